//! Bytes of HTTP/1.1 before the HTTP library sees them, and whom requests are for: what is met first of all.

use http::{HeaderName, HeaderValue, Request, Uri, Version, header};
use tailwater_server::{
    framing::{Framing, Refused},
    host::{self, HostError},
};

use crate::input::Pieces;

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
