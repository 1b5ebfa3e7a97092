//! What stands around requests: the version of HTTP that a connection begins with, whom a page calls the gateway, and
//! whether it is a browser's `EventSource` that asks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};
use tailwater_auth::{TicketError, origin::is_origin, ticket::page_of};
use tailwater_server::{PublicUrl, edges, host};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::input::lines;

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Where the listener is.
pub(crate) const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4437);

/// A connection that yields its bytes in pieces of these lengths, over and over; without any, as they are asked for.
struct InPieces<'d> {
    bytes: &'d [u8],
    lengths: std::iter::Cycle<std::slice::Iter<'d, u8>>,
}

impl<'d> InPieces<'d> {
    fn new(bytes: &'d [u8], lengths: &'d [u8]) -> Self {
        Self { bytes, lengths: lengths.iter().cycle() }
    }
}

impl AsyncRead for InPieces<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A read of nothing would be the end.
        let length = this.lengths.next().map_or(usize::MAX, |length| usize::from(*length).max(1));
        let (piece, rest) = this.bytes.split_at(length.min(buf.remaining()).min(this.bytes.len()));
        buf.put_slice(piece);
        this.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// How many lengths, the lengths of the pieces that a connection comes in, and its bytes.
pub(crate) fn preface(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let (lengths, bytes) = rest.split_at(usize::from(*count).min(rest.len()));
    let version = if bytes.starts_with(PREFACE) { Version::HTTP_2 } else { Version::HTTP_11 };
    for lengths in [lengths, &[], &[1]] {
        // However it comes, it is told the same, and nothing that told it is lost.
        assert_eq!(sniffed(InPieces::new(bytes, lengths)), (version, bytes.to_vec()));
    }
}

/// The version that is told, and all that is read after it.
fn sniffed(io: InPieces<'_>) -> (Version, Vec<u8>) {
    let read = async {
        let (version, mut io) = edges::sniff(io).await?;
        let mut all = Vec::new();
        io.read_to_end(&mut all).await?;
        Ok::<_, io::Error>((version, all))
    };
    match pin!(read).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read.expect("these connections do not fail"),
        Poll::Pending => panic!("all of it is there"),
    }
}

/// A scheme, a public URL, a URL, and a field `Host`.
pub(crate) fn own_origin(data: &[u8]) {
    let [scheme, public, uri, host] = lines(data);
    let scheme = if scheme.as_deref() == Some("https") { "https" } else { "http" };
    let public = public.and_then(|url| url.parse::<PublicUrl>().ok());
    let Ok(uri) = uri.unwrap_or_default().parse::<Uri>() else { return };
    let Ok(host) = host.as_deref().map(HeaderValue::from_str).transpose() else { return };
    let named = |host: Option<&HeaderValue>| -> HeaderMap {
        host.map(|host| (header::HOST, host.clone())).into_iter().collect()
    };
    let own = |public: Option<&PublicUrl>, uri: &Uri, host: Option<&HeaderValue>| {
        edges::own_origin(public, (LISTENER, scheme), uri, &named(host))
    };
    let origin = own(public.as_ref(), &uri, host.as_ref());
    // A page gets an origin only from what is one, and only where it says that it is of the same.
    let own_name = origin.as_deref();
    assert_eq!(page_of(None, Some("same-origin"), own_name), own_name.ok_or(TicketError::NoOrigin));
    assert_eq!(page_of(None, Some("same-site"), own_name), Err(TicketError::NoOrigin));
    if public.is_some() {
        // Nothing that a client names counts beside it.
        let other = HeaderValue::from_static("evil.example");
        assert_eq!(own(public.as_ref(), &Uri::from_static("/"), Some(&other)), origin);
    }
    let Some(origin) = origin else { return };
    assert!(is_origin(&origin), "{origin:?}");
    // Whoever names the host of it as a browser does names it again, in whatever case.
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let again = HeaderValue::from_str(authority).expect("an origin is text");
    if public.is_none() {
        assert_eq!(own(None, &Uri::from_static("/"), Some(&again)).as_deref(), Some(&*origin));
        let shouted = HeaderValue::from_str(&authority.to_uppercase()).expect("an origin is text");
        assert_eq!(own(None, &Uri::from_static("/"), Some(&shouted)).as_deref(), Some(&*origin));
        assert!(origin.starts_with(&format!("{scheme}://")));
        // Beside a URL that names a host, what stands in the header changes nothing.
        if uri.authority().is_some() {
            assert_eq!(own(None, &uri, None).as_deref(), Some(&*origin));
        }
    }
    let mut request = Request::new(());
    request.headers_mut().insert(header::HOST, again);
    assert_eq!(host::judge(&request), Ok(()));
}

/// Lines of headers; what counts are `Accept`, `Cache-Control` and `Last-Event-ID`.
pub(crate) fn event_source(data: &[u8]) {
    let headers: HeaderMap = data.split(|byte| *byte == b'\n').filter_map(field).collect();
    let is_one = edges::is_event_source(&headers);
    let without = |name: HeaderName| {
        let mut headers = headers.clone();
        headers.remove(name);
        edges::is_event_source(&headers)
    };
    let last_event_id = HeaderName::from_static("last-event-id");
    // One has said what it takes, and by one of two ways that it is none that could do without.
    assert!(!without(header::ACCEPT));
    assert_eq!(is_one, without(header::CACHE_CONTROL) || without(last_event_id.clone()));
    let mut resumed = headers.clone();
    resumed.insert(last_event_id, HeaderValue::from_static("1"));
    assert!(edges::is_event_source(&resumed) || !is_one);
    // No case matters, and neither does another field, or another line of the same.
    let changed = |change: fn(&HeaderValue) -> HeaderValue| -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), change(value))).collect()
    };
    let shouted = changed(|value| HeaderValue::from_bytes(&value.as_bytes().to_ascii_uppercase()).expect("as it was"));
    assert_eq!(edges::is_event_source(&shouted), is_one);
    let mut more = headers.clone();
    more.append(header::ACCEPT, HeaderValue::from_static("*/*"));
    more.append(header::CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
    more.insert("x-accept", HeaderValue::from_static("text/event-stream"));
    assert_eq!(edges::is_event_source(&more), is_one);
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}
