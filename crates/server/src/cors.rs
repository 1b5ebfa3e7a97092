//! Headers that every response has (protocol, section 12.7; the Fetch standard, section 3.2).
//!
//! Any origin may ask, and a script may see every header of the protocol: what a stream shows is decided by who asks,
//! not by which page does it, and no cookie is ever looked at.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tailwater_protocol::headers;

use crate::problem::STREAM_EARLIEST_OFFSET;

/// The methods of a stream, and of everything else here.
pub(crate) const METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
/// How long a browser may remember the answer to a preflight, in seconds. Browsers allow hours at most.
const PREFLIGHT_SECONDS: &str = "7200";

static EXPOSED: LazyLock<HeaderValue> =
    LazyLock::new(|| list([headers::EXPOSED, &[STREAM_EARLIEST_OFFSET]].concat().as_slice()));
static ALLOWED: LazyLock<HeaderValue> = LazyLock::new(|| list(headers::ALLOWED));

/// Adds what every response has.
pub(crate) fn adorn(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.clone());
}

/// The answer to `OPTIONS`, on any path: a preflight does not know what stands there.
pub(crate) fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED.clone());
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    response
}

fn list(names: &[&str]) -> HeaderValue {
    HeaderValue::try_from(names.join(", ")).expect("a list of header names is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_may_send_and_see_every_header_of_the_protocol() {
        let mut response = preflight();
        adorn(response.headers_mut());
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        for name in ["if-none-match", "stream-seq", "producer-epoch", "stream-fork-sub-offset", "authorization"] {
            assert!(header("access-control-allow-headers").split(", ").any(|allowed| allowed == name), "{name}");
        }
        for name in ["stream-sse-data-encoding", "stream-closed", "producer-expected-seq", "location", "etag"] {
            assert!(header("access-control-expose-headers").split(", ").any(|exposed| exposed == name), "{name}");
        }
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("cross-origin-resource-policy"), "cross-origin");
    }
}
