//! Absolute URLs of streams, for `Location` (protocol, section 5.1).
//!
//! The scheme is the listener's. What a client used to reach a proxy cannot be seen here, and headers that claim it can be
//! forged; who needs another one sets the public URL.

use std::{fmt::Write as _, net::SocketAddr};

use http::{HeaderMap, HeaderValue, Uri, header, uri::Authority};
use tailwater_auth::origin::is_origin;

use crate::config::PublicUrl;

/// Where a connection was accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalAddress {
    pub(crate) address: SocketAddr,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
}

/// The URL of what was requested, without its query.
pub(crate) fn of_request(
    public: Option<&PublicUrl>,
    uri: &Uri,
    headers: &HeaderMap,
    local: Option<LocalAddress>,
) -> HeaderValue {
    let scheme = local.map_or("http", |local| local.scheme);
    let mut url = match (public, authority(uri, headers), local) {
        (Some(public), _, _) => public.as_str().to_owned(),
        (None, Some(authority), _) => format!("{scheme}://{authority}"),
        (None, None, Some(LocalAddress { address, .. })) => format!("{scheme}://{address}"),
        (None, None, None) => String::new(),
    };
    for byte in uri.path().bytes() {
        if byte.is_ascii_graphic() {
            url.push(char::from(byte));
        } else {
            // Infallible: a string takes everything.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(url).expect("a URL of printable ASCII is a header value")
}

/// What a page calls the origin of the gateway: that of the public URL, or whom the client asked. Only what a browser sends
/// tells of a page; whoever else names a host here could name any origin.
pub(crate) fn own_origin(
    public: Option<&PublicUrl>,
    uri: &Uri,
    headers: &HeaderMap,
    local: Option<LocalAddress>,
) -> Option<String> {
    let public = public.map(|url| url.as_str().parse::<Uri>().expect("a public url was parsed before"));
    let (scheme, authority) = match &public {
        Some(url) => (url.scheme_str()?, url.authority()?.clone()),
        None => (local.map_or("http", |local| local.scheme), authority(uri, headers)?),
    };
    let default = if scheme == "https" { 443 } else { 80 };
    let host = authority.host().to_ascii_lowercase();
    let origin = match authority.port_u16().filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    // A URL may have other characters in its host, and no page an origin with them.
    is_origin(&origin).then_some(origin)
}

/// Whom the client asked: the authority of the URL (HTTP/2, or a proxy's form), or `Host`.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let asked = match uri.authority() {
        Some(authority) => authority.clone(),
        None => headers.get(header::HOST)?.to_str().ok()?.parse().ok()?,
    };
    let plain = !asked.host().is_empty() && asked.as_str().is_ascii() && !asked.as_str().contains('@');
    plain.then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(public: Option<&str>, uri: &str, host: Option<&str>) -> String {
        location_at("http", public, uri, host)
    }

    fn location_at(scheme: &'static str, public: Option<&str>, uri: &str, host: Option<&str>) -> String {
        let public = public.map(|url| url.parse().unwrap());
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        let local = LocalAddress { address: ([127, 0, 0, 1], 4437).into(), scheme };
        let value = of_request(public.as_ref(), &uri.parse().unwrap(), &headers, Some(local));
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_location_is_the_public_url_or_the_host_or_the_listener() {
        let table = [
            (Some("https://a.example/x/"), "/v1/stream/s?q=1", Some("h:1"), "https://a.example/x/v1/stream/s"),
            (None, "/v1/stream/a%2Fb", Some("localhost:4437"), "http://localhost:4437/v1/stream/a%2Fb"),
            (None, "/v1/stream/s", Some("[::1]:80"), "http://[::1]:80/v1/stream/s"),
            (None, "http://h2.example/v1/stream/s", None, "http://h2.example/v1/stream/s"),
            (None, "/v1/stream/s", None, "http://127.0.0.1:4437/v1/stream/s"),
            (None, "/v1/stream/s", Some("evil@h"), "http://127.0.0.1:4437/v1/stream/s"),
            (None, "/v1/stream/s", Some("a b/c"), "http://127.0.0.1:4437/v1/stream/s"),
            (None, "/v1/stream/é", Some("h"), "http://h/v1/stream/%C3%A9"),
        ];
        for (public, uri, host, expected) in table {
            assert_eq!(location(public, uri, host), expected);
        }
    }

    #[test]
    fn the_gateways_own_origin_is_spelled_as_browsers_do() {
        let table = [
            ("http", None, "/s", Some("localhost:4437"), Some("http://localhost:4437")),
            ("https", None, "/s", Some("A.example"), Some("https://a.example")),
            ("https", None, "/s", Some("a.example:443"), Some("https://a.example")),
            ("http", None, "/s", Some("a.example:443"), Some("http://a.example:443")),
            ("https", None, "https://h2.example:8443/s", None, Some("https://h2.example:8443")),
            ("http", None, "/s", Some("[::1]:80"), Some("http://[::1]")),
            ("http", Some("https://a.example:443/x"), "/s", Some("evil.example"), Some("https://a.example")),
            ("http", None, "/s", Some("user@a.example"), None),
            ("http", None, "/s", Some("a!b.example"), None),
            ("http", None, "/s", Some("a.example:0"), None),
            ("http", None, "/s", None, None),
        ];
        for (scheme, public, uri, host, origin) in table {
            let public = public.map(|url: &str| url.parse().unwrap());
            let headers = host.map(|host: &str| (header::HOST, host.parse().unwrap())).into_iter().collect();
            let local = LocalAddress { address: ([127, 0, 0, 1], 4437).into(), scheme };
            let own = own_origin(public.as_ref(), &uri.parse().unwrap(), &headers, Some(local));
            assert_eq!(own.as_deref(), origin, "{uri} {host:?}");
        }
    }

    #[test]
    fn a_listener_with_tls_makes_secure_locations() {
        assert_eq!(location_at("https", None, "/v1/stream/s", Some("h:1")), "https://h:1/v1/stream/s");
        assert_eq!(location_at("https", None, "/v1/stream/s", None), "https://127.0.0.1:4437/v1/stream/s");
        assert_eq!(location_at("https", Some("http://a"), "/v1/stream/s", Some("h")), "http://a/v1/stream/s");
    }
}
