//! Bytes of HTTP/1.1 before the HTTP library sees them, and whom requests are for: what is met first of all.

use std::{cell::OnceCell, convert::Infallible, sync::mpsc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tailwater_server::{
    framing::{Framing, Refused},
    host::{self, HostError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::{Builder, Runtime},
};

use crate::input::Pieces;

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// The least that a head may have here: few bytes, so that too large ones are found.
const MIN_HEAD: usize = 16;
/// More than anything that stands in place of what was refused.
const MAX_INSTEAD: usize = 16;
/// What comes behind what was refused.
const BEHIND: [&[u8]; 4] = [b"", b"GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n", b"\r\n0\r\n\r\n", b"\n"];

/// The most bytes of a head, where the bytes are cut, and the bytes of a connection.
pub(crate) fn framing(data: &[u8]) {
    let mut pieces = Pieces(data);
    let (Some(most), Some(cut)) = (pieces.byte(), pieces.byte()) else { return };
    let (most, bytes) = (MIN_HEAD + usize::from(most), pieces.0);
    let whole = Framing::new(most).follow(bytes);
    // Where they are cut does not matter.
    let (front, back) = bytes.split_at(usize::from(cut) * bytes.len() / 256);
    assert_eq!(followed(most, [front, back]), whole);
    assert_eq!(followed(most, bytes.chunks(1)), whole);
    let passed = whole.map_or_else(|refused| refused.passed, |()| bytes.len());
    means_the_same_to_the_library(most, &bytes[..passed], whole.err());

    let Err(Refused { passed, instead }) = whole else { return };
    let good = &bytes[..passed];
    assert_eq!(Framing::new(most).follow(good), Ok(()));
    assert!((1..=MAX_INSTEAD).contains(&instead.len()));
    for behind in BEHIND {
        // A socket that a live response comes back with is read again: nothing behind what was refused may get through.
        let again = refused_again(most, good, instead, behind);
        let again_good = [good, &instead[..again.passed - passed]].concat();
        let third = refused_again(most, &again_good, again.instead, behind);
        assert_eq!(third.passed, again.passed, "from then on it is the same byte");
    }
}

/// What is refused of what stands in place of something that was refused behind what is good.
fn refused_again(most: usize, good: &[u8], instead: &[u8], behind: &[u8]) -> Refused {
    let seen = [good, instead, behind].concat();
    let refused = Framing::new(most).follow(&seen).expect_err("what was refused is refused again");
    // In trailers the library is to see a line that ends at a bare CR; the CR may be good by itself.
    let lead = usize::from(instead == b"\r\0");
    assert!((good.len()..=good.len() + lead).contains(&refused.passed), "{} and {refused:?}", good.len());
    refused
}

fn followed<'b>(most: usize, pieces: impl IntoIterator<Item = &'b [u8]>) -> Result<(), Refused> {
    let (mut framing, mut before) = (Framing::new(most), 0);
    for piece in pieces {
        let follows = framing.follow(piece);
        follows.map_err(|refused| Refused { passed: before + refused.passed, ..refused })?;
        before += piece.len();
    }
    Ok(())
}

/// That the HTTP library ends each request of these bytes where they are said to end, and takes nothing for one that is
/// refused behind them, or stands behind that.
fn means_the_same_to_the_library(most: usize, good: &[u8], refused: Option<Refused>) {
    let whole = requests(most, good);
    let alone: Vec<_> = whole.iter().map(|request| served(most, request)).collect();
    // It has rules of its own, and may refuse what passes, or end behind it.
    assert!(alone.iter().all(|requests| requests.len() <= 1), "{alone:?}");
    let expected: Vec<_> = alone.into_iter().map_while(|mut requests| requests.pop()).collect();
    let instead = refused.map_or(&b""[..], |refused| refused.instead);
    let behind = if refused.is_some() { BEHIND[1] } else { b"" };
    let served = served(most, &[good, instead, behind].concat());
    assert!(expected.starts_with(&served), "{served:?} and not {expected:?}");
}

/// The requests that are whole, with the empty lines in front of them.
fn requests(most: usize, bytes: &[u8]) -> Vec<&[u8]> {
    let mut framing = Framing::new(most);
    let (mut requests, mut from, mut line) = (Vec::new(), 0, 0);
    for (at, byte) in bytes.iter().enumerate() {
        framing.follow(&[*byte]).expect("these bytes are good");
        if framing.is_between() {
            if &bytes[line..=at] != b"\r\n" {
                requests.push(&bytes[from..=at]);
                from = at + 1;
            }
            line = at + 1;
        }
    }
    requests
}

/// What the HTTP library takes these bytes of a connection for: what is asked, and the bodies.
fn served(most: usize, bytes: &[u8]) -> Vec<(String, Bytes)> {
    let (ours, mut client) = duplex(bytes.len().max(1));
    let (tell, told) = mpsc::channel();
    let service = service_fn(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let asked = format!("{} {}", request.method(), request.uri());
            if let Ok(body) = request.into_body().collect().await {
                tell.send((asked, body.to_bytes())).expect("somebody waits for all of it");
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let connection =
        http1::Builder::new().half_close(true).max_header_size(most).serve_connection(TokioIo::new(ours), service);
    let ask = async {
        client.write_all(bytes).await?;
        client.shutdown().await?;
        client.read_to_end(&mut Vec::new()).await
    };
    let _ended = RUNTIME.with(|runtime| {
        let new = || Builder::new_current_thread().build().expect("a runtime of one thread needs nothing");
        // It may end in an error, and before it has read all.
        runtime.get_or_init(new).block_on(async { tokio::join!(connection, ask) })
    });
    told.try_iter().collect()
}

/// A version, a URL, and fields `Host`, a line each.
pub(crate) fn host(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let version = match lines.next() {
        Some(b"1.0") => Version::HTTP_10,
        Some(b"2") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let Some(Ok(uri)) = lines.next().map(Uri::try_from) else { return };
    let Ok(fields) = lines.map(HeaderValue::from_bytes).collect::<Result<Vec<_>, _>>() else { return };
    let judged = |version, uri: &Uri, fields: &[HeaderValue]| {
        let mut request = Request::new(());
        (*request.version_mut(), *request.uri_mut()) = (version, uri.clone());
        request.headers_mut().extend(fields.iter().map(|field| (header::HOST, field.clone())));
        request.headers_mut().append(HeaderName::from_static("x-forwarded-host"), HeaderValue::from_static("evil"));
        host::judge(&request)
    };
    let verdict = judged(version, &uri, &fields);
    // Two are never one, whatever they say, and only who need not name one may leave it out.
    if fields.len() > 1 {
        assert_eq!(verdict, Err(HostError::Repeated));
    }
    assert_eq!(verdict == Err(HostError::Missing), fields.is_empty() && version == Version::HTTP_11);
    if verdict.is_err() || fields.is_empty() {
        return;
    }
    assert_eq!(judged(version, &uri, &[fields[0].clone(), fields[0].clone()]), Err(HostError::Repeated));
    // Nothing but a host and a port gets by; case makes no difference.
    let named = fields[0].to_str().expect("a host is text");
    assert!(!named.contains(['@', '/', '?', '#', ' ', ',', '\\']), "{named:?}");
    let shouted = HeaderValue::from_str(&named.to_uppercase()).expect("it is text all the same");
    assert_eq!(judged(version, &uri, &[shouted]), Ok(()));
}
