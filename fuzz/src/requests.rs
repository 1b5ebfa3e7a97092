//! Whole requests of whoever has no right to anything, through the router: where tokens are asked for, and where not.

use std::{
    cell::OnceCell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Limited};
use prometheus::Registry;
use tailwater_auth::Operator;
use tailwater_fanout::{Gateway, Seed};
use tailwater_server::{
    Ambient, App, Auth, Config, Guard, Metrics, Parts, Surface, TrustedProxies, edges, host, router_of,
};
use tailwater_testkit::ScriptedUpstream;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    edges::LISTENER,
    trust::{MOMENT, NOW, TICKET_SECRETS, projects},
};

/// No answer takes longer, on a clock that goes on when nothing else does.
const LONGEST: Duration = Duration::from_secs(900);
/// More than any problem says.
const MAX_PROBLEM: usize = 16 * 1024;
/// A part of a credential that is at least so long says something of it.
const TELLING: usize = 16;
/// The only origin that a project of `trust.toml` names.
const NAMED_ORIGIN: &str = "https://app.example";
/// The statuses of somebody without any right, where tokens are asked for.
const UNTRUSTED: [u16; 6] = [204, 400, 401, 404, 405, 501];

/// What the operator sends, and nobody else.
const OPERATOR: &str = "the-operators-credential-of-thirty-two";
/// Who has a connection, and nobody's word.
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 50_000);
/// Who is believed about others.
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 50_000);

thread_local! {
    /// Time stands still in it until there is nothing else to do.
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// A gateway over an empty store.
struct Gate {
    router: Router,
    upstream: ScriptedUpstream,
    shutdown: CancellationToken,
}

/// What somebody asks: a line of a method, a target and letters for a [`Way`], lines of headers, an empty line, and the body.
#[derive(Clone)]
struct Asked {
    way: Way,
    method: Method,
    target: http::Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// How a request comes.
#[derive(Clone, Copy)]
struct Way {
    version: Version,
    surface: Surface,
    scheme: &'static str,
    /// Who is at the other end of its connection; without anybody it has none.
    peer: Option<SocketAddr>,
    has_operator: bool,
}

impl Way {
    /// `0` and `2` for versions, `s` and `o` for surfaces, `t` for TLS, `p` for a stranger and `x` for a trusted proxy at the
    /// other end, `n` where there is no operator.
    fn read(letters: &[u8]) -> Self {
        let has = |letter: u8| letters.contains(&letter);
        let version = match (has(b'0'), has(b'2')) {
            (true, _) => Version::HTTP_10,
            (false, true) => Version::HTTP_2,
            (false, false) => Version::HTTP_11,
        };
        let surface = match (has(b's'), has(b'o')) {
            (true, _) => Surface::Streams,
            (false, true) => Surface::Operations,
            (false, false) => Surface::All,
        };
        let peer = match (has(b'p'), has(b'x')) {
            (true, _) => Some(STRANGER),
            (false, true) => Some(PROXY),
            (false, false) => None,
        };
        let scheme = if has(b't') { "https" } else { "http" };
        Self { version, surface, scheme, peer, has_operator: !has(b'n') }
    }

    /// Whether profiles are for everybody.
    fn shows_profiles(self) -> bool {
        self.surface == Surface::Operations && !self.has_operator
    }
}

impl Gate {
    fn new(auth: Auth, way: Way) -> Self {
        let (registry, upstream) = (Registry::new(), ScriptedUpstream::new(Default::default()));
        let shutdown = CancellationToken::new();
        let gateway = Gateway::new(Seed {
            upstream: Arc::new(upstream.clone()),
            config: tailwater_fanout::Config::default(),
            metrics: tailwater_fanout::Metrics::register(&registry).expect("the registry is new"),
            tracker: TaskTracker::new(),
            shutdown: shutdown.clone(),
        });
        let operator = || Operator::new(OPERATOR).expect("the credential is long, and can be sent");
        let config = Config {
            auth,
            operator: way.has_operator.then(operator),
            ticket_secrets: TICKET_SECRETS.clone(),
            open_profiles: way.shows_profiles(),
            trusted_proxies: TrustedProxies::parse(["10.0.0.0/8"]).expect("this is a network"),
            max_connections_per_address: NonZeroUsize::new(4),
            ..Config::default()
        };
        let app = App::new(Parts {
            gateway,
            config,
            metrics: Metrics::register(&registry).expect("the registry is new"),
            registry,
            ambient: Ambient { now_ms: || NOW * 1000, random: || 7, secret: |bytes| bytes.fill(7) },
        });
        Self { router: router_of(app, way.surface), upstream, shutdown }
    }

    async fn answer(&self, asked: &Asked) -> http::Response<Body> {
        let mut request = Request::new(Body::from(asked.body.clone()));
        *request.method_mut() = asked.method.clone();
        *request.uri_mut() = asked.target.clone();
        *request.headers_mut() = asked.headers.clone();
        *request.version_mut() = asked.way.version;
        if let Some(peer) = asked.way.peer {
            edges::arrive(&mut request, (LISTENER, asked.way.scheme), peer);
        }
        let answered = timeout(LONGEST, self.router.clone().oneshot(request)).await;
        answered.expect("every wait has an end").expect("a router answers whatever it is asked")
    }
}

impl Asked {
    fn read(data: &[u8]) -> Option<Self> {
        let mut lines = data.split_inclusive(|byte| *byte == b'\n');
        let mut line = || lines.next().map(|line| line.strip_suffix(b"\n").unwrap_or(line));
        let first = line()?;
        let space = first.iter().position(|byte| *byte == b' ')?;
        let method = Method::from_bytes(&first[..space]).ok()?;
        let behind = &first[space + 1..];
        let end = behind.iter().position(|byte| *byte == b' ').unwrap_or(behind.len());
        let (target, way) = (http::Uri::try_from(&behind[..end]).ok()?, Way::read(&behind[end..]));
        let mut headers = HeaderMap::new();
        let mut consumed = first.len() + 1;
        while let Some(field) = line().filter(|field| !field.is_empty()) {
            consumed += field.len() + 1;
            let colon = field.iter().position(|byte| *byte == b':')?;
            let name = http::HeaderName::from_bytes(&field[..colon]).ok()?;
            headers.append(name, http::HeaderValue::from_bytes(field[colon + 1..].trim_ascii()).ok()?);
        }
        let body = data.get(consumed + 1..).unwrap_or_default().to_vec();
        Some(Self { way, method, target, headers, body })
    }

    /// Whether it came on a connection, and does not name its host as it must there.
    fn is_misnamed(&self) -> bool {
        let mut request = Request::new(());
        (*request.version_mut(), *request.uri_mut()) = (self.way.version, self.target.clone());
        *request.headers_mut() = self.headers.clone();
        self.way.peer.is_some() && host::judge(&request).is_err()
    }

    /// The credentials, and a query that could hold one.
    fn secrets(&self) -> Vec<&str> {
        let credentials = self.headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
        let credentials = credentials.filter_map(|value| value.split_once(' ').map(|(_, token)| token.trim()));
        let cookies = self.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies = cookies.flat_map(|value| value.split(['=', ';'])).map(str::trim);
        let pairs = self.target.query().into_iter().flat_map(|query| query.split('&'));
        let tickets = pairs.filter_map(|pair| pair.strip_prefix("ticket="));
        credentials.chain(cookies).chain(tickets).filter(|secret| secret.len() >= TELLING).collect()
    }
}

pub(crate) fn request(data: &[u8]) {
    let Some(asked) = Asked::read(data) else { return };
    RUNTIME.with(|runtime| {
        let paused = || Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.get_or_init(|| paused().expect("a runtime of one thread needs nothing"));
        runtime.block_on(async {
            guarded(&asked).await;
            open(&asked).await;
        });
    });
}

async fn guarded(asked: &Asked) {
    let (gate, response) = answered(asked, asking()).await;
    let (status, path) = (response.status(), asked.target.path());
    let known = ["/health", "/readyz", "/metrics"].contains(&path);
    let known = known || (path == "/debug/profile" && asked.way.shows_profiles());
    assert!(known || UNTRUSTED.contains(&status.as_u16()), "{status}");
    assert_eq!(gate.upstream.landed(), 0);
    assert!(status != StatusCode::UNAUTHORIZED || response.headers().contains_key(header::WWW_AUTHENTICATE));
    is_in_order(asked, response).await;
    gate.shutdown.cancel();
}

async fn open(asked: &Asked) {
    let (gate, response) = answered(asked, Auth::Open).await;
    assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    is_in_order(asked, response).await;
    gate.shutdown.cancel();
}

/// Where tokens are asked for.
fn asking() -> Auth {
    Auth::Required(Guard::fixed(projects(), Duration::from_secs(MOMENT.skew)))
}

async fn answered(asked: &Asked, auth: Auth) -> (Gate, http::Response<Body>) {
    let gate = Gate::new(auth, asked.way);
    let response = gate.answer(asked).await;
    (gate, response)
}

/// What holds of every answer.
async fn is_in_order(asked: &Asked, response: http::Response<Body>) {
    let (parts, body) = response.into_parts();
    assert_eq!(parts.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(!asked.is_misnamed() || parts.status == StatusCode::BAD_REQUEST, "{}", parts.status);
    // Only a page whose origin the project names, and that has asked from there, may send credentials of its browser.
    if parts.headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS) {
        assert_eq!(parts.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], NAMED_ORIGIN);
        assert_eq!(asked.headers[header::ORIGIN], NAMED_ORIGIN);
    }
    let is_problem = parts.status.is_client_error() || parts.status.is_server_error();
    let mut said = format!("{:?}", parts.headers);
    if is_problem {
        assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
        let body = Limited::new(body, MAX_PROBLEM).collect().await.expect("a problem is short").to_bytes();
        if asked.method != Method::HEAD {
            let problem: serde_json::Value = serde_json::from_slice(&body).expect("a problem is json");
            assert_eq!(problem["status"], parts.status.as_u16());
            assert!(problem["code"].as_str().is_some_and(|code| !code.is_empty()));
        }
        said.push_str(&String::from_utf8_lossy(&body));
    }
    // What also stands where it is no secret, such as in the path, may be repeated.
    for secret in asked.secrets().into_iter().filter(|secret| !is_told_anyway(asked, secret)) {
        assert!(!said.contains(secret), "{said}");
    }
}

/// Whether it stands elsewhere, or could be a word of the gateway's own, none of which has small and capital letters and digits.
fn is_told_anyway(asked: &Asked, secret: &str) -> bool {
    let elsewhere =
        asked.headers.iter().filter(|(name, _)| **name != header::AUTHORIZATION && **name != header::COOKIE);
    let elsewhere = elsewhere.filter_map(|(_, value)| value.to_str().ok()).any(|value| value.contains(secret));
    let has = |kind: fn(&u8) -> bool| secret.as_bytes().iter().any(kind);
    let plain = !has(u8::is_ascii_lowercase) || !has(u8::is_ascii_uppercase) || !has(u8::is_ascii_digit);
    let pairs = asked.target.query().into_iter().flat_map(|query| query.split('&'));
    let queried = pairs.filter(|pair| !pair.starts_with("ticket=")).any(|pair| pair.contains(secret));
    elsewhere || plain || queried || asked.target.path().contains(secret)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;

    /// The status and the code of the answer to what lies in the corpus, where tokens are asked for.
    fn told(seed: &str) -> (u16, String) {
        let path = format!("{}/corpus/request/{seed}", env!("CARGO_MANIFEST_DIR"));
        let asked = Asked::read(&std::fs::read(path).unwrap()).unwrap();
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (_gate, response) = answered(&asked, asking()).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
            (status, problem["code"].as_str().unwrap_or_default().to_owned())
        })
    }

    #[test]
    fn tickets_of_the_corpus_get_as_far_as_they_say() {
        // Who may read it is told that the stream is not there.
        for seed in ["ticket-valid", "ticket-of-the-gateway", "ticket-own-origin", "ticket-own-origin-http2"] {
            assert_eq!(told(seed), (404, "stream_not_found".to_owned()), "{seed}");
        }
        for seed in ["ticket-forged", "ticket-own-origin-forged"] {
            assert_eq!(told(seed), (401, "ticket_refused".to_owned()), "{seed}");
        }
    }

    #[test]
    fn what_a_connection_says_of_a_request_gets_to_its_answer() {
        for seed in ["misnamed", "misnamed-preflight", "conflicting"] {
            assert_eq!(told(seed).0, 400, "{seed}");
        }
        assert_eq!(told("profile").0, 200);
        assert_eq!(told("profile-operator").0, 401);
        assert_eq!(told("nowhere-operations").0, 404);
    }
}
