//! Headers that every response has (protocol, section 12.7; the Fetch standard, section 3.2; RFC 9110, section 12.5.5).
//!
//! Where everybody may do everything, any origin may ask: what a stream shows is decided by who asks, not by which page
//! does it, and no cookie is looked at. Where tokens are asked for, a project names the origins whose pages may see its
//! answers, and none without that. A script that may see an answer sees every header of the protocol. Credentials of the
//! browser are allowed where the project names a cookie, to pages of an origin that it names, for reading.
//!
//! A guarded answer says what it depends on: on the origin, unless every origin is allowed or the answer is public; on what
//! shows who asks, unless it is public. It says so of a project that does not exist, and of one without a cookie, too.
//!
//! What a stream holds was written by somebody who need not be trusted, and may call itself a page. Opened as one it is
//! given an origin of its own and no scripts (`Content-Security-Policy: sandbox`): in the gateway's origin it would read, with
//! the reader's cookie, what the reader may.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use tailwater_auth::{Project, Sharing};
use tailwater_protocol::{headers, path::STREAM_ROOT};

use crate::{
    answer, app::App, guard::Auth, problem::STREAM_EARLIEST_OFFSET, request::stream_path, surface::Surface, tickets,
};

/// The methods of a stream, and of everything else here.
pub(crate) const METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
/// How long a browser may remember the answer to a preflight, in seconds. Browsers allow hours at most.
const PREFLIGHT_SECONDS: &str = "7200";
/// What an answer depends on besides the origin, unless it is public.
const WHO: &str = "authorization, cookie, sec-fetch-site";

static EXPOSED: LazyLock<HeaderValue> =
    LazyLock::new(|| list([headers::EXPOSED, &[STREAM_EARLIEST_OFFSET]].concat().as_slice()));
static ALLOWED: LazyLock<HeaderValue> = LazyLock::new(|| list(headers::ALLOWED));

/// What a response says to browsers and caches about who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cors {
    shared: Shared,
    /// Whether the answer may depend on a token.
    guarded: bool,
    /// Whether a page may have its browser send the project's cookie.
    with_cookie: bool,
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
    /// What the response to a request at a listener says.
    pub(crate) fn at(surface: Surface, app: &App, method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        match surface {
            Surface::All | Surface::Streams => Self::of(app, method, uri, headers),
            // No page has any business with operations, not even where everybody may do everything.
            Surface::Operations => Self::closed(),
        }
    }

    fn of(app: &App, method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let Auth::Required(guard) = &app.config.auth else {
            return Self { shared: Shared::WithAll, guarded: false, with_cookie: false };
        };
        if uri.path() == tickets::PATH && method == Method::OPTIONS {
            return Self { shared: Shared::WithAll, guarded: true, with_cookie: false };
        }
        if !uri.path().starts_with(STREAM_ROOT) {
            return Self { shared: Shared::WithNone, guarded: false, with_cookie: false };
        }
        let projects = guard.projects();
        let project = stream_path(uri, &app.config).ok().and_then(|path| projects.get(&path.project));
        let cors = Self::of_project(project, headers);
        // A preflight is about the method that it names.
        let meant = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| method == Method::OPTIONS);
        let reads = match meant {
            Some(meant) => meant == "GET" || meant == "HEAD",
            None => [Method::GET, Method::HEAD].contains(method),
        };
        let has_cookie = project.is_some_and(|project| project.cookie.is_some());
        let with_cookie = has_cookie && reads && matches!(cors.shared, Shared::With(_));
        Self { with_cookie, ..cors }
    }

    /// What a response says that is about a project, or about one that is not there.
    pub(crate) fn of_project(project: Option<&Project>, headers: &HeaderMap) -> Self {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        let sharing = project.map_or(Sharing::None, |project| project.origins.share(origin.map(HeaderValue::as_bytes)));
        let shared = match (sharing, origin) {
            (Sharing::Any, _) => Shared::WithAll,
            (Sharing::This(_), Some(origin)) => Shared::With(origin.clone()),
            (Sharing::This(_) | Sharing::NotThis | Sharing::None, _) => Shared::WithNone,
        };
        Self { shared, guarded: true, with_cookie: false }
    }

    /// What responses say that are for no page at all.
    const fn closed() -> Self {
        Self { shared: Shared::WithNone, guarded: false, with_cookie: false }
    }

    /// Adds what every response has.
    pub(crate) fn adorn(&self, headers: &mut HeaderMap) {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        // What is opened as a page tells nobody its URL, in which a ticket may stand.
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
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
        if self.with_cookie {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if !self.guarded {
            return;
        }
        let is_public = answer::is_public(headers);
        // A ticket counts for one origin, whichever may see the answer.
        if self.shared != Shared::WithAll || !is_public {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if !is_public {
            headers.append(header::VARY, HeaderValue::from_static(WHO));
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
        let cors = Cors { shared: Shared::WithAll, guarded: false, with_cookie: false };
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
        assert_eq!(
            (header("content-security-policy"), header("referrer-policy")),
            ("sandbox".into(), "no-referrer".into())
        );
    }
}
