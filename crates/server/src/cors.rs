//! Headers that every response has (protocol, section 12.7; the Fetch standard, section 3.2; RFC 9110, section 12.5.5).
//!
//! Where everybody may do everything, any origin may ask: what a stream shows is decided by who asks, not by which page
//! does it, and no cookie is ever looked at. Where tokens are asked for, a project names the origins whose pages may see
//! its answers, and none without that. A script that may see an answer sees every header of the protocol. Credentials of
//! the browser are allowed to nobody.
//!
//! A guarded answer says what it depends on: on the origin, unless every origin is allowed; on the token, unless it is
//! public. It says so of a project that does not exist, too.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use tailwater_auth::Sharing;
use tailwater_protocol::{headers, path::STREAM_ROOT};

use crate::{app::App, guard::Auth, problem::STREAM_EARLIEST_OFFSET, request::stream_path};

/// The methods of a stream, and of everything else here.
pub(crate) const METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
/// How long a browser may remember the answer to a preflight, in seconds. Browsers allow hours at most.
const PREFLIGHT_SECONDS: &str = "7200";

static EXPOSED: LazyLock<HeaderValue> =
    LazyLock::new(|| list([headers::EXPOSED, &[STREAM_EARLIEST_OFFSET]].concat().as_slice()));
static ALLOWED: LazyLock<HeaderValue> = LazyLock::new(|| list(headers::ALLOWED));

/// What a response says to browsers and caches about who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cors {
    shared: Shared,
    /// Whether the answer may depend on a token.
    guarded: bool,
}

/// Which pages may see a response.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shared {
    /// All.
    WithAll,
    /// Those of this origin, which has asked.
    With(HeaderValue),
    /// None, or not those of the origin that has asked.
    WithNone,
}

impl Cors {
    /// What the response to a request says.
    pub(crate) fn of(app: &App, uri: &Uri, headers: &HeaderMap) -> Self {
        let Auth::Required(guard) = &app.config.auth else {
            return Self { shared: Shared::WithAll, guarded: false };
        };
        if !uri.path().starts_with(STREAM_ROOT) {
            return Self { shared: Shared::WithNone, guarded: false };
        }
        let projects = guard.projects();
        let project = stream_path(uri, &app.config).ok().and_then(|path| projects.get(&path.project));
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        let sharing = project.map_or(Sharing::None, |project| project.origins.share(origin.map(HeaderValue::as_bytes)));
        let shared = match (sharing, origin) {
            (Sharing::Any, _) => Shared::WithAll,
            (Sharing::This(_), Some(origin)) => Shared::With(origin.clone()),
            (Sharing::This(_) | Sharing::NotThis | Sharing::None, _) => Shared::WithNone,
        };
        Self { shared, guarded: true }
    }

    /// Adds what every response has.
    pub(crate) fn adorn(&self, headers: &mut HeaderMap) {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let (policy, allowed) = match &self.shared {
            Shared::WithAll => ("cross-origin", Some(HeaderValue::from_static("*"))),
            Shared::With(origin) => ("same-origin", Some(origin.clone())),
            Shared::WithNone => ("same-origin", None),
        };
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static(policy));
        if let Some(allowed) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.clone());
        }
        if !self.guarded {
            return;
        }
        if self.shared != Shared::WithAll {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        let public = |value: &HeaderValue| value.as_bytes().starts_with(b"public");
        if !headers.get(header::CACHE_CONTROL).is_some_and(public) {
            headers.append(header::VARY, HeaderValue::from_static("authorization"));
        }
    }

    /// The answer to `OPTIONS`, on any path: a preflight does not know what stands there. Whose origin is not allowed is
    /// told so by what it does not say.
    pub(crate) fn preflight(&self) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
        if self.shared != Shared::WithNone {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED.clone());
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
        }
        response
    }
}

fn list(names: &[&str]) -> HeaderValue {
    HeaderValue::try_from(names.join(", ")).expect("a list of header names is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_may_send_and_see_every_header_of_the_protocol() {
        let cors = Cors { shared: Shared::WithAll, guarded: false };
        let mut response = cors.preflight();
        cors.adorn(response.headers_mut());
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
