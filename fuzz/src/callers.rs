//! Who asks: the addresses that proxies name, and the origins of pages.

use std::{net::IpAddr, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use tailwater_auth::{CookieName, Origins, Sharing, cookie::may_count};
use tailwater_server::TrustedProxies;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

static PROXIES: LazyLock<TrustedProxies> =
    LazyLock::new(|| TrustedProxies::parse(["10.0.0.0/8", "192.0.2.7", "fd00::/8"]).expect("these are networks"));

/// Lines of `X-Forwarded-For`.
pub(crate) fn client_address(data: &[u8]) {
    let lines: Vec<_> =
        data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let client = client_of(&lines);
    // What a trusted proxy appends to a line is believed, whatever bytes of a client's stand before it.
    let sent: Vec<u8> = data.iter().copied().filter(|byte| *byte != b'\n').collect();
    let appended = [&sent[..], b", 198.51.100.1, 10.0.0.1"].concat();
    if let Ok(appended) = HeaderValue::from_bytes(&appended) {
        assert_eq!(client_of(&[appended]), "198.51.100.1".parse().ok());
    }
    // What a client puts into a line before what its proxy says changes nothing.
    let forged = HeaderValue::from_static("203.0.113.66, 10.0.0.9");
    let mut behind = vec![forged];
    behind.extend(lines.iter().cloned());
    if client.is_some_and(|client| !is_trusted(client)) {
        assert_eq!(client_of(&behind), client);
    }
    // So is what it appends as a line of its own.
    let appended = HeaderValue::from_static("198.51.100.1, 10.0.0.1");
    behind.push(appended);
    assert_eq!(client_of(&behind), "198.51.100.1".parse().ok());
    // One list is read the same on one line and on several.
    let texts: Vec<_> = lines.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&texts.join(&b',')) {
        assert_eq!(client_of(&[joined]), client);
    }
    if let Some(client) = client {
        assert_eq!(client, client.to_canonical());
    }
    if let Ok(text) = str::from_utf8(data) {
        names_a_network(text);
    }
}

fn client_of(lines: &[HeaderValue]) -> Option<IpAddr> {
    let headers: HeaderMap = lines.iter().map(|line| (FORWARDED_FOR, line.clone())).collect();
    PROXIES.client_behind(&headers)
}

/// Whether it is one of the proxies, by the header that only a proxy's own address could be passed over in.
fn is_trusted(address: IpAddr) -> bool {
    let text = format!("198.51.100.1, {address}");
    HeaderValue::from_str(&text).is_ok_and(|line| client_of(&[line]) != Some(address))
}

fn names_a_network(text: &str) {
    if let Err(error) = TrustedProxies::parse([text]) {
        assert!(text.parse::<IpAddr>().is_err(), "{error}");
    }
}

/// The name of a cookie, and lines of `Cookie`.
pub(crate) fn cookie(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let name = lines.next().and_then(|name| str::from_utf8(name).ok()).and_then(CookieName::parse);
    let Some(name) = name else { return };
    assert!(HeaderValue::from_str(name.as_str()).is_ok() && !name.as_str().contains(['=', ';', ' ', ',']));
    let lines: Vec<&[u8]> = lines.collect();
    let value = name.value_in(lines.iter().copied());
    // On one line or on several, it is one list (RFC 9113, section 8.2.3).
    let joined = lines.join(&b"; "[..]);
    assert_eq!(name.value_in([&joined[..]]), value);
    if let Some(value) = value {
        assert_eq!(value, value.trim_ascii());
        assert!(!value.contains(';') && lines.iter().any(|line| String::from_utf8_lossy(line).contains(value)));
        assert!(String::from_utf8_lossy(&joined).contains(name.as_str()));
        // One more of that name, wherever it stands, and there is none; one of another name changes nothing.
        let other = format!("{}=other", name.as_str());
        assert_eq!(name.value_in([other.as_bytes(), &joined]), None);
        assert_eq!(name.value_in([&joined, other.as_bytes()]), None);
        assert_eq!(name.value_in([&joined, format!("x{other}").as_bytes()]), Some(value));
    }
    // Where a page comes from is said by its browser alone.
    let origins = Origins::parse(["https://app.example"].into_iter()).expect("this is an origin");
    let first = lines.first().copied();
    assert_eq!(may_count(first, None, &origins), matches!(first, Some(b"same-origin" | b"same-site")));
    assert_eq!(may_count(None, first, &origins), first == Some(b"https://app.example"));
    assert!(!may_count(Some(b"cross-site"), first, &Origins::Any));
}

pub(crate) fn origin(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let origins = Origins::parse([text].into_iter());
    let Ok(origins) = origins else { return };
    if origins == Origins::Any {
        assert_eq!(text, "*");
        return;
    }
    assert_eq!(origins.share(Some(data)), Sharing::This(text));
    assert_eq!(origins.share(None), Sharing::NotThis);
    assert_eq!(origins.share(Some(b"null")), Sharing::NotThis);
    assert_eq!(origins.share(Some(text.to_uppercase().as_bytes())), Sharing::NotThis);
    for other in [format!("{text}/"), format!("{text}.evil.example"), format!(" {text}"), format!("{text}:1")] {
        assert_eq!(origins.share(Some(other.as_bytes())), Sharing::NotThis);
    }
    assert!(HeaderValue::from_str(text).is_ok());
    // It is a URL of nothing but what an origin has.
    if let Ok(uri) = text.parse::<http::Uri>() {
        let authority = uri.authority().map(http::uri::Authority::as_str);
        assert_eq!(uri.scheme_str().zip(authority), text.split_once("://"));
        assert!(uri.query().is_none() && !authority.is_some_and(|authority| authority.contains('@')));
    }
}
