//! A gateway over a scripted store, and a client that checks on every response what no test remembers to check.

use std::{cell::Cell, sync::Arc};

use axum::{
    Router,
    body::{Body, BodyDataStream},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use prometheus::Registry;
use tailwater_fanout::{Gateway, Seed};
use tailwater_register::RegisterLog;
use tailwater_server::{Ambient, App, Auth, Config, Guard, Metrics, Parts, Surface, router, router_of};
use tailwater_testkit::ScriptedUpstream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// The interval that every test runs in: 1,000.
pub(crate) const NOW_MS: u64 = 1_728_432_000_000 + 1000 * 20_000;

thread_local! {
    /// How much later it is by the clock of gateways, in seconds.
    static LATER: Cell<u64> = const { Cell::new(0) };
}

/// A later time, for as long as it is kept, by the clock of the gateways whose requests this thread serves.
pub(crate) struct Later(());

pub(crate) struct Fixture {
    pub(crate) app: App,
    pub(crate) upstream: ScriptedUpstream,
    pub(crate) registry: Registry,
    /// Whose listeners are asked.
    pub(crate) surface: Surface,
    router: Router,
    /// Whether tokens are asked for.
    guarded: bool,
}

/// A whole response.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A response whose body goes on.
pub(crate) struct Live {
    pub(crate) headers: HeaderMap,
    chunks: BodyDataStream,
}

impl Later {
    pub(crate) fn by(seconds: u64) -> Self {
        LATER.set(seconds);
        Self(())
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        LATER.set(0);
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(Config::default(), tailwater_fanout::Config::default())
    }

    pub(crate) fn with(config: Config, fanout: tailwater_fanout::Config) -> Self {
        Self::on(ScriptedUpstream::new(Default::default()), config, fanout)
    }

    /// Over a store that others may serve, too.
    pub(crate) fn on(upstream: ScriptedUpstream, config: Config, fanout: tailwater_fanout::Config) -> Self {
        Self::built(upstream, config, fanout, Registry::new())
    }

    /// With a registry in which something is counted already.
    pub(crate) fn counting(registry: Registry, config: Config) -> Self {
        Self::built(ScriptedUpstream::new(Default::default()), config, Default::default(), registry)
    }

    fn built(upstream: ScriptedUpstream, config: Config, fanout: tailwater_fanout::Config, registry: Registry) -> Self {
        let config = Config { delivery_shards: delivery_shards(config.delivery_shards), ..config };
        let (guarded, surface) = (matches!(config.auth, Auth::Required(_)), config.surface);
        let gateway = Gateway::new(Seed {
            upstream: Arc::new(upstream.clone()),
            config: fanout,
            metrics: tailwater_fanout::Metrics::register(&registry).unwrap(),
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        let app = App::new(Parts {
            gateway,
            config,
            metrics: Metrics::register(&registry).unwrap(),
            registry: registry.clone(),
            ambient: Ambient { now_ms: || NOW_MS + LATER.get() * 1000, random: || 7, secret: |bytes| bytes.fill(7) },
        });
        Self { router: router(app.clone()), app, upstream, registry, surface, guarded }
    }

    /// Beside a register, which is followed from now on.
    pub(crate) fn beside_register(
        upstream: ScriptedUpstream,
        guard: Guard,
        config: Config,
        fanout: tailwater_fanout::Config,
    ) -> Self {
        let registry = Registry::new();
        let metrics = tailwater_register::Metrics::register(&registry).unwrap();
        let guard = guard.beside_register(RegisterLog::new(Arc::new(upstream.clone()), metrics));
        tokio::spawn(guard.clone().keep_up());
        Self::built(upstream, Config { auth: Auth::Required(guard), ..config }, fanout, registry)
    }

    /// Waits until the register was read.
    pub(crate) async fn read(self) -> Self {
        while self.probe("/readyz").await != 200 {
            tokio::task::yield_now().await;
        }
        self
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let response = self.respond(method, path, headers, body.into()).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
        if answer.status >= 400 {
            assert_eq!(answer.header("cache-control"), "no-store");
            if method != "HEAD" {
                assert_eq!(answer.header("content-type"), "application/problem+json");
                assert_eq!(answer.json()["status"], answer.status);
            }
        }
        if method == "HEAD" {
            assert!(answer.body.is_empty());
        }
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Creates a stream with this content type, and perhaps data.
    pub(crate) async fn put(&self, path: &str, content_type: &str, body: &'static str) -> Answer {
        let answer = self.send("PUT", path, &[("content-type", content_type)], body).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        answer
    }

    /// Appends, and returns the offset behind it.
    pub(crate) async fn post(&self, path: &str, content_type: &str, body: impl Into<Body>) -> String {
        let answer = self.send("POST", path, &[("content-type", content_type)], body).await;
        assert_eq!(answer.status, 204, "{:?}", answer.body);
        answer.header("stream-next-offset").to_owned()
    }

    pub(crate) async fn live(&self, path: &str, headers: &[(&str, &str)]) -> Live {
        let response = self.respond("GET", path, headers, Body::empty()).await;
        assert_eq!(response.status(), 200);
        let (parts, body) = response.into_parts();
        Live { headers: parts.headers, chunks: body.into_data_stream() }
    }

    pub(crate) async fn respond(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let adorned = response.headers();
        assert_eq!(adorned["x-content-type-options"], "nosniff");
        assert_eq!(adorned["referrer-policy"], "no-referrer");
        assert_eq!(adorned["content-security-policy"], "sandbox");
        let with_credentials = adorned.contains_key("access-control-allow-credentials");
        assert!(!with_credentials || self.guarded && adorned["access-control-allow-origin"] != "*");
        if !self.guarded {
            assert_eq!(adorned["cross-origin-resource-policy"], "cross-origin");
            assert_eq!(adorned["access-control-allow-origin"], "*");
            assert!(adorned.contains_key("access-control-expose-headers"));
            assert!(!adorned.contains_key("vary"));
        }
        assert_ne!(adorned.get("stream-closed").map(|value| value == "true"), Some(false), "only ever `true`");
        response
    }

    /// The status of what is no stream.
    pub(crate) async fn probe(&self, path: &str) -> u16 {
        self.respond("GET", path, &[], Body::empty()).await.status().as_u16()
    }

    /// The same at the listeners of a surface, whatever is there.
    pub(crate) async fn probe_at(&self, surface: Surface, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let router = router_of(self.app.clone(), surface);
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap().lines().any(|l| l == line)
    }
}

/// As a test says; where it says nothing, as a whole run of these tests is told. On a machine with one core nobody can tell
/// who says one from who says nothing, and such a run is like any other.
fn delivery_shards(said: usize) -> usize {
    let told = std::env::var("TAILWATER_TEST_SHARDS").ok();
    match told.filter(|_| said > 1 && said == Config::default().delivery_shards) {
        Some(told) => told.parse().expect("TAILWATER_TEST_SHARDS is a number"),
        None => said,
    }
}

impl Answer {
    /// A header, empty where it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

impl Live {
    /// The next chunk; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let chunk = self.chunks.next().await?.unwrap();
        Some(String::from_utf8(chunk.to_vec()).unwrap())
    }
}
