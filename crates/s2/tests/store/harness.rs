//! A store, an upstream to it, and the words that the tests use.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use prometheus::Registry;
use tailwater_log::{NewRecord, Record};
use tailwater_s2::{
    EmbeddedStore, EmbeddedStoreConfig, Endpoint, Meter, Metrics, Placement, S2Upstream, S2UpstreamConfig, Storage,
};
use tailwater_upstream::{
    Append, AppendAck, AppendError, Position, ReadFrom, ReadSession, SessionEvent, StreamKey, Upstream as _,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How long a test waits for what must come. Never reached where all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A store in memory and an upstream to it.
pub(crate) struct Harness {
    pub(crate) store: EmbeddedStore,
    pub(crate) upstream: S2Upstream,
    pub(crate) registry: Registry,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with(EmbeddedStoreConfig::new(Storage::Memory)).await
    }

    pub(crate) async fn with(config: EmbeddedStoreConfig) -> Self {
        let store = EmbeddedStore::start(config).await.unwrap();
        let (registry, meter) = meter();
        let upstream = store.upstream(placement(), meter).unwrap();
        Self { store, upstream, registry }
    }

    /// The address of the store's own door.
    pub(crate) fn addr(&self) -> SocketAddr {
        let Endpoint::Url(url) = self.store.endpoint() else { panic!("an embedded store has a url") };
        url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// The value of a counter or gauge, all its labels together.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap();
        let value = |m: &prometheus::proto::Metric| m.get_counter().value() + m.get_gauge().value();
        family.get_metric().iter().map(value).sum()
    }

    pub(crate) async fn append(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        self.upstream.append(key, append).await
    }

    pub(crate) async fn read(&self, key: &StreamKey, from: u64) -> Vec<Record> {
        self.upstream.read(key, ReadFrom::Seq(from), 1000).await.unwrap().records
    }
}

/// Follows a session with patience, and remembers what it yields.
pub(crate) struct Follower {
    session: ReadSession,
    pub(crate) records: Vec<Record>,
    pub(crate) tails: Vec<Position>,
    pub(crate) stalls: usize,
}

impl Follower {
    pub(crate) fn new(session: ReadSession) -> Self {
        Self { session, records: Vec::new(), tails: Vec::new(), stalls: 0 }
    }

    /// Follows until the session says that it has caught up with `tail`.
    pub(crate) async fn until_caught_up_at(&mut self, tail: u64) {
        while self.step().await != Some(tail) {}
    }

    /// Follows until the session says once more that it has lost touch.
    pub(crate) async fn until_stalled(&mut self) {
        let stalls = self.stalls;
        while self.stalls == stalls {
            self.step().await;
        }
    }

    /// One event; the tail, if it is one.
    async fn step(&mut self) -> Option<u64> {
        let event = timeout(PATIENCE, self.session.next()).await.unwrap().unwrap().unwrap();
        match event {
            SessionEvent::Records(records) => self.records.extend(records),
            SessionEvent::Stalled => self.stalls += 1,
            SessionEvent::CaughtUp(position) => {
                self.tails.push(position);
                return Some(position.seq);
            }
        }
        None
    }

    pub(crate) fn seqs(&self) -> Vec<u64> {
        self.records.iter().map(|r| r.seq).collect()
    }
}

/// Passes bytes on to a store that may change, and holds the store's answers back on request.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) target: watch::Sender<SocketAddr>,
    pub(crate) hold: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (target, targeted) = watch::channel(target);
        let (hold, held) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = *targeted.borrow();
                // A store that is away ends the client's connection, as it would itself.
                let Ok(store) = TcpStream::connect(target).await else { continue };
                let ((from_client, to_client), (from_store, to_store)) = (client.into_split(), store.into_split());
                tokio::spawn(pass(from_client, to_store, None));
                tokio::spawn(pass(from_store, to_client, Some(held.clone())));
            }
        });
        Self { addr, target, hold }
    }
}

pub(crate) fn meter() -> (Registry, Meter) {
    let registry = Registry::new();
    let meter = Arc::new(Metrics::register(&registry).unwrap());
    (registry, meter)
}

pub(crate) fn placement() -> Placement {
    Placement::basin_per_project("tailwater").unwrap()
}

/// An upstream to somewhere, with a token of no meaning.
pub(crate) fn upstream_to(url: &str) -> S2Upstream {
    S2Upstream::new(config_to(url), meter().1).unwrap()
}

pub(crate) fn config_to(url: &str) -> S2UpstreamConfig {
    S2UpstreamConfig::new(Endpoint::Url(url.to_owned()), "no-token-of-ours".into(), placement())
}

pub(crate) fn key() -> StreamKey {
    StreamKey::new("project", "a/stream")
}

pub(crate) fn message(body: &str) -> NewRecord {
    NewRecord::message(Bytes::copy_from_slice(body.as_bytes()))
}

pub(crate) fn messages(bodies: &[&str]) -> Append {
    Append::new(bodies.iter().map(|body| message(body)).collect())
}

pub(crate) fn bodies(records: &[Record]) -> Vec<&str> {
    records.iter().map(|r| std::str::from_utf8(&r.body).unwrap()).collect()
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut question: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !question().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: Option<watch::Receiver<bool>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if let Some(held) = &mut held
            && held.wait_for(|held| !held).await.is_err()
        {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
