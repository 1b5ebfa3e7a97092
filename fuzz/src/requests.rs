//! Whole requests of whoever has no right to anything, through the router: where tokens are asked for, and where not.

use std::{cell::OnceCell, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use prometheus::Registry;
use tailwater_auth::Operator;
use tailwater_fanout::{Gateway, Seed};
use tailwater_server::{Ambient, App, Auth, Config, Guard, Metrics, Parts, router};
use tailwater_testkit::ScriptedUpstream;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::trust::{MOMENT, NOW, TICKET_SECRETS, projects};

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

/// What somebody asks: a line of a method and a target, lines of headers, an empty line, and the body.
#[derive(Clone)]
struct Asked {
    method: Method,
    target: http::Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Gate {
    fn new(auth: Auth) -> Self {
        let (registry, upstream) = (Registry::new(), ScriptedUpstream::new(Default::default()));
        let shutdown = CancellationToken::new();
        let gateway = Gateway::new(Seed {
            upstream: Arc::new(upstream.clone()),
            config: tailwater_fanout::Config::default(),
            metrics: tailwater_fanout::Metrics::register(&registry).expect("the registry is new"),
            tracker: TaskTracker::new(),
            shutdown: shutdown.clone(),
        });
        let operator = Operator::new("the operator's credential of thirty-two").ok();
        let app = App::new(Parts {
            gateway,
            config: Config { auth, operator, ticket_secrets: TICKET_SECRETS.clone(), ..Config::default() },
            metrics: Metrics::register(&registry).expect("the registry is new"),
            registry,
            ambient: Ambient { now_ms: || NOW * 1000, random: || 7, secret: |bytes| bytes.fill(7) },
        });
        Self { router: router(app), upstream, shutdown }
    }

    async fn answer(&self, asked: &Asked) -> http::Response<Body> {
        let mut request = Request::new(Body::from(asked.body.clone()));
        *request.method_mut() = asked.method.clone();
        *request.uri_mut() = asked.target.clone();
        *request.headers_mut() = asked.headers.clone();
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
        let target = http::Uri::try_from(&first[space + 1..]).ok()?;
        let mut headers = HeaderMap::new();
        let mut consumed = first.len() + 1;
        while let Some(field) = line().filter(|field| !field.is_empty()) {
            consumed += field.len() + 1;
            let colon = field.iter().position(|byte| *byte == b':')?;
            let name = http::HeaderName::from_bytes(&field[..colon]).ok()?;
            headers.append(name, http::HeaderValue::from_bytes(field[colon + 1..].trim_ascii()).ok()?);
        }
        let body = data.get(consumed + 1..).unwrap_or_default().to_vec();
        Some(Self { method, target, headers, body })
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
    let gate = Gate::new(Auth::Required(Guard::fixed(projects(), Duration::from_secs(MOMENT.skew))));
    let response = gate.answer(asked).await;
    let status = response.status();
    let known = ["/health", "/readyz", "/metrics"].contains(&asked.target.path());
    assert!(known || UNTRUSTED.contains(&status.as_u16()), "{status}");
    assert_eq!(gate.upstream.landed(), 0);
    assert!(status != StatusCode::UNAUTHORIZED || response.headers().contains_key(header::WWW_AUTHENTICATE));
    is_in_order(asked, response).await;
    gate.shutdown.cancel();
}

async fn open(asked: &Asked) {
    let gate = Gate::new(Auth::Open);
    let response = gate.answer(asked).await;
    assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    is_in_order(asked, response).await;
    gate.shutdown.cancel();
}

/// What holds of every answer.
async fn is_in_order(asked: &Asked, response: http::Response<Body>) {
    let (parts, body) = response.into_parts();
    assert_eq!(parts.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
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
