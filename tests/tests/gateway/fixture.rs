//! The parts of the program, put together in the test's process as the binary does: the embedded store, an upstream to
//! it, a gateway, and its HTTP surface on a real listener.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus::Registry;
use tailwater_fanout::{Gateway, Seed};
use tailwater_protocol::Addressing;
use tailwater_s2::{
    EmbeddedStore, EmbeddedStoreConfig, Endpoint, Meter, Metrics, Placement, S2Upstream, S2UpstreamConfig, Storage,
    StoreObserver,
};
use tailwater_server::{Ambient, App, Parts, Server};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{client::Client, proxy::Proxy};

/// How long a test waits for what must come. Never reached where all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a gateway is told.
pub(crate) struct Settings {
    pub(crate) server: tailwater_server::Config,
    pub(crate) fanout: tailwater_fanout::Config,
    pub(crate) append_timeout: Duration,
}

/// A store, counted at its own door.
pub(crate) struct Store {
    pub(crate) embedded: EmbeddedStore,
    pub(crate) sessions: Arc<Sessions>,
}

/// A gateway on a store, and its client.
pub(crate) struct Pod {
    pub(crate) client: Client,
    pub(crate) upstream: S2Upstream,
    pub(crate) app: App,
    server: Server,
    shutdown: CancellationToken,
    actors: TaskTracker,
}

/// A store in memory with one gateway, which owns it alone, as `tailwater serve --memory` has it.
pub(crate) struct House {
    pub(crate) store: Store,
    pub(crate) pod: Pod,
}

/// Two gateways that share a store, and know that they do.
pub(crate) struct Pair {
    pub(crate) store: Store,
    pub(crate) a: Pod,
    pub(crate) b: Pod,
}

/// A gateway that reaches its store through a proxy, so that the way can be cut.
pub(crate) struct Remote {
    pub(crate) store: Store,
    pub(crate) proxy: Proxy,
    pub(crate) pod: Pod,
}

/// The read sessions at the store.
#[derive(Default)]
pub(crate) struct Sessions(watch::Sender<Counts>);

/// How many read sessions there are, and were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) opened: usize,
    pub(crate) open: usize,
}

impl StoreObserver for Sessions {
    fn read_session_opened(&self) {
        self.0.send_modify(|counts| {
            counts.opened += 1;
            counts.open += 1;
        });
    }

    fn read_session_closed(&self) {
        self.0.send_modify(|counts| counts.open -= 1);
    }
}

impl Sessions {
    pub(crate) fn counts(&self) -> Counts {
        *self.0.borrow()
    }

    pub(crate) async fn until_open(&self, open: usize) {
        let mut counts = self.0.subscribe();
        let reached = timeout(PATIENCE, counts.wait_for(|counts| counts.open == open)).await;
        reached.unwrap_or_else(|_| panic!("never {open} sessions: {:?}", self.counts())).unwrap();
    }
}

impl Default for Settings {
    fn default() -> Self {
        let server = tailwater_server::Config {
            addressing: Addressing::Projects,
            long_poll_timeout: PATIENCE,
            drain: Duration::from_millis(200),
            delivery_shards: delivery_shards(),
            ..tailwater_server::Config::default()
        };
        let fanout = tailwater_fanout::Config::default();
        Self { server, fanout, append_timeout: Duration::from_secs(5) }
    }
}

/// As by default, unless a whole run of these tests is to see to those who stay with the HTTP library.
fn delivery_shards() -> usize {
    std::env::var("TAILWATER_TEST_SHARDS").map_or_else(
        |_| tailwater_server::Config::default().delivery_shards,
        |shards| shards.parse().expect("TAILWATER_TEST_SHARDS is a number"),
    )
}

impl Settings {
    pub(crate) fn server(change: impl FnOnce(&mut tailwater_server::Config)) -> Self {
        let mut settings = Self::default();
        change(&mut settings.server);
        settings
    }

    pub(crate) fn fanout(change: impl FnOnce(&mut tailwater_fanout::Config)) -> Self {
        let mut settings = Self::default();
        change(&mut settings.fanout);
        settings
    }
}

impl Store {
    pub(crate) async fn memory() -> Self {
        Self::start(EmbeddedStoreConfig::new(Storage::Memory)).await
    }

    pub(crate) async fn start(mut config: EmbeddedStoreConfig) -> Self {
        let sessions = Arc::<Sessions>::default();
        config.observer = Some(sessions.clone());
        Self { embedded: EmbeddedStore::start(config).await.unwrap(), sessions }
    }

    /// The address of the store's own door.
    pub(crate) fn addr(&self) -> SocketAddr {
        let Endpoint::Url(url) = self.embedded.endpoint() else { panic!("an embedded store has a url") };
        url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// A gateway that knows of others on this store.
    pub(crate) async fn shared_pod(&self, settings: Settings) -> Pod {
        self.pod_through(self.addr(), settings).await
    }

    /// The same, with the store at another address.
    pub(crate) async fn pod_through(&self, addr: SocketAddr, settings: Settings) -> Pod {
        let endpoint = Endpoint::Url(format!("http://{addr}"));
        let config = S2UpstreamConfig::new(endpoint, self.embedded.token().clone(), placement());
        Pod::start(config, settings).await
    }
}

impl Pod {
    pub(crate) async fn start(mut config: S2UpstreamConfig, settings: Settings) -> Self {
        config.append_timeout = settings.append_timeout;
        let registry = Registry::new();
        let meter: Meter = Arc::new(Metrics::register(&registry).unwrap());
        let upstream = S2Upstream::new(config, meter).unwrap();
        let (shutdown, actors) = (CancellationToken::new(), TaskTracker::new());
        let gateway = Gateway::new(Seed {
            upstream: Arc::new(upstream.clone()),
            config: settings.fanout,
            metrics: tailwater_fanout::Metrics::register(&registry).unwrap(),
            tracker: actors.clone(),
            shutdown: shutdown.clone(),
        });
        let metrics = tailwater_server::Metrics::register(&registry).unwrap();
        let ambient = Ambient::default();
        let app = App::new(Parts { gateway, config: settings.server, registry, metrics, ambient });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        let server = Server::start(&app, vec![listener]).expect("the delivery shards start");
        Self { client, upstream, app, server, shutdown, actors }
    }

    /// Ends as the program does.
    pub(crate) async fn shut_down(self) {
        let Self { server, shutdown, actors, client, .. } = self;
        drop(client);
        server.shut_down(CancellationToken::new()).await;
        shutdown.cancel();
        actors.close();
        timeout(PATIENCE, actors.wait()).await.expect("actors end in time");
    }
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let store = Store::memory().await;
        let pod = Pod::start(store.embedded.upstream_config(placement()), settings).await;
        Self { store, pod }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.pod.client
    }
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let store = Store::memory().await;
        let a = store.shared_pod(Settings::default()).await;
        let b = store.shared_pod(Settings::default()).await;
        Self { store, a, b }
    }
}

impl Remote {
    pub(crate) async fn with(settings: Settings) -> Self {
        let store = Store::memory().await;
        let proxy = Proxy::to(store.addr()).await;
        let pod = store.pod_through(proxy.addr, settings).await;
        Self { store, proxy, pod }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.pod.client
    }
}

pub(crate) fn placement() -> Placement {
    Placement::basin_per_project("tailwater").unwrap()
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut question: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !question().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
