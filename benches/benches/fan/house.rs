//! A store that counts, a gateway in front of it, and a load on the gateway.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tailwater_benches::programs::{Cores, find};
use tailwater_s2::{
    EmbeddedStore, EmbeddedStoreConfig, EmbeddedStoreError, Exposure, Metrics, Placement, S2Upstream, Storage,
    StoreObserver,
};
use tailwater_upstream::{StreamKey, Upstream as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
};

/// The gateway's own default.
const BASIN_PREFIX: &str = "tailwater";
const PROJECT: &str = "bench";
/// What the names of the load's streams begin with.
const RUN: &str = "fan";
/// Where readers connect from: one address has too few ports for them all.
const SOURCES: &str = "127.0.0.2-127.0.0.9";

/// What the store was asked for so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Read sessions that are open.
    pub(crate) open: u64,
    /// Read sessions that were opened.
    pub(crate) opened: u64,
    /// Unary reads of records.
    pub(crate) reads: u64,
    /// Those before the first read session was opened: none of them is a live reader's.
    pub(crate) reads_before: u64,
}

/// A store, and a gateway that has it all to itself without knowing so.
pub(crate) struct House {
    store: EmbeddedStore,
    counts: Arc<Counter>,
    /// Into the store, past the door of the gateway.
    direct: S2Upstream,
    gateway: Child,
    addr: String,
}

#[derive(Default)]
struct Counter(Mutex<Counts>);

impl Counter {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl StoreObserver for Counter {
    fn read_session_opened(&self) {
        self.change(|counts| {
            if counts.opened == 0 {
                counts.reads_before = counts.reads;
            }
            counts.open += 1;
            counts.opened += 1;
        });
    }

    fn read_session_closed(&self) {
        self.change(|counts| counts.open -= 1);
    }

    fn read(&self) {
        self.change(|counts| counts.reads += 1);
    }
}

impl House {
    pub(crate) async fn open(cores: Cores) -> anyhow::Result<Self> {
        let counts = Arc::new(Counter::default());
        let mut config = EmbeddedStoreConfig::new(Storage::Memory);
        config.expose = Some(Exposure { addr: SocketAddr::from(([127, 0, 0, 1], 0)), token: None });
        config.observer = Some(Arc::clone(&counts) as Arc<dyn StoreObserver>);
        let store = EmbeddedStore::start(config).await?;
        let placement = Placement::basin_per_project(BASIN_PREFIX)?;
        let direct = store.upstream(placement, Arc::new(Metrics::register(&prometheus::Registry::new())?))?;
        let endpoint = format!("http://{}", store.exposed_addr().context("the store is exposed")?);
        let (gateway, addr) = cores.serve(&["serve", "--listen", "127.0.0.1:0", "--s2-endpoint", &endpoint]).await?;
        Ok(Self { store, counts, direct, gateway, addr })
    }

    /// Puts a load on the gateway and returns what `fanbench` measured, be it that a check of its own failed.
    pub(crate) async fn load(
        &self,
        command: &str,
        settings: &[(&str, String)],
        flags: &[&str],
    ) -> anyhow::Result<Value> {
        let folder = tempfile::tempdir()?;
        let json = folder.path().join("report.json");
        let mut fanbench = Command::new(find("fanbench", "FANBENCH_BIN")?);
        let url = format!("http://{}/v1/stream/{PROJECT}", self.addr);
        fanbench.args([command, "--url", &url, "--name", RUN, "--source", SOURCES, "--json"]).arg(&json).args(flags);
        for (flag, value) in settings {
            fanbench.arg(format!("--{flag}={value}"));
        }
        let ended = fanbench.stdin(Stdio::null()).kill_on_drop(true).output().await.context("fanbench")?;
        let errors = String::from_utf8_lossy(&ended.stderr);
        let last = errors.lines().last().unwrap_or_default();
        ensure!(matches!(ended.status.code(), Some(0 | 1)), "fanbench made no run: {last}");
        Ok(serde_json::from_slice(&std::fs::read(&json)?)?)
    }

    /// What the store was asked for so far.
    pub(crate) fn counts(&self) -> Counts {
        *self.counts.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many live readers the gateway says that it has.
    pub(crate) async fn live_readers(&self) -> anyhow::Result<u64> {
        let mut socket = TcpStream::connect(&self.addr).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.addr);
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let value = answer.lines().find_map(|line| line.strip_prefix("tailwater_live_readers "));
        value.context("the gateway has no such metric")?.parse().context("the number of readers")
    }

    /// How many records the load's `n`th stream has at the store, marks and all.
    pub(crate) async fn records(&self, n: u64) -> anyhow::Result<u64> {
        Ok(self.direct.check_tail(&StreamKey::new(PROJECT, &format!("{RUN}-{n}"))).await?.seq)
    }

    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        ensure!(self.gateway.try_wait()?.is_none(), "the gateway ended by itself");
        self.gateway.kill().await?;
        match self.store.shutdown().await {
            // Its data is in memory, so nothing is lost where there is more of it than can be put in order in time.
            Ok(()) | Err(EmbeddedStoreError::CloseTimeout { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
