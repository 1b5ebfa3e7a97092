//! A store, gateways on it, and nginx in front of them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    nginx::{Fronts, Nginx},
    service::{Service, find, free_address},
    wire::{Ask, Link},
};

/// How long everything may take to be ready again once nothing goes wrong any more.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How many gateways.
    pub pods: u8,
    /// Their settings, beside the address and the store's.
    pub pod_args: Vec<String>,
    /// Whether clients go through nginx.
    pub way: Way,
}

/// How clients reach the gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through nginx.
    Proxied,
    /// At their own addresses.
    Direct,
}

/// What runs. All of it ends when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The store.
    pub store: Service,
    /// The gateways.
    pub pods: Vec<Service>,
    nginx: Option<Nginx>,
    /// Last, so that it is removed when nobody writes there any more.
    folder: TempDir,
}

impl Cluster {
    /// Starts everything.
    ///
    /// # Errors
    /// When something is missing, or does not start.
    pub async fn start(setup: &Setup) -> anyhow::Result<Self> {
        let program = find("tailwater", "TAILWATER_BIN")?;
        let folder = TempDir::with_prefix("tailwater-pods-")?;
        let at = free_address(Ipv4Addr::new(127, 1, 1, 0))?;
        let mut store = Service::new("store", &program, store_args(at, folder.path())?, at, folder.path());
        store.start().await?;
        let mut pods = Vec::new();
        for n in 0..setup.pods {
            let own = free_address(Ipv4Addr::new(127, 1, 2, n))?;
            let args = [pod_args(own, at), setup.pod_args.clone()].concat();
            let mut pod = Service::new(&format!("pod-{n}"), &program, args, own, folder.path());
            pod.start().await?;
            pods.push(pod);
        }
        let addresses: Vec<SocketAddr> = pods.iter().map(Service::addr).collect();
        let nginx = match setup.way {
            Way::Proxied => Some(Nginx::start(folder.path(), &addresses).await?),
            Way::Direct => None,
        };
        let cluster = Self { store, pods, nginx, folder };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Where clients are to go, any to any: both servers of nginx, or the gateways themselves.
    #[must_use]
    pub fn fronts(&self) -> Vec<SocketAddr> {
        match self.nginx.as_ref().map(Nginx::fronts) {
            Some(Fronts { round_robin, hashed }) => vec![round_robin, hashed],
            None => self.pods.iter().map(Service::addr).collect(),
        }
    }

    /// Waits until every gateway says that it is ready, which includes the store.
    ///
    /// # Errors
    /// When one does not in time.
    pub async fn ready(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        for pod in &self.pods {
            let mut link = Link::to(pod.addr());
            let ask = Ask::get("/readyz");
            while !link.exchange(&ask, PATIENCE).await.is_ok_and(|answer| answer.status == 200) {
                ensure!(began.elapsed() < RECOVERY, "{} is not ready after {RECOVERY:?}", pod.name());
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(began.elapsed())
    }

    /// Ends all gateways and the store in good order, and starts them again.
    ///
    /// # Errors
    /// When one does not end in time, or does not come back.
    pub async fn restart(&mut self, within: Duration) -> anyhow::Result<()> {
        for pod in &self.pods {
            pod.terminate()?;
        }
        for pod in &mut self.pods {
            pod.ended(within).await?;
        }
        self.store.terminate()?;
        self.store.ended(within).await?;
        self.store.start().await?;
        for pod in &mut self.pods {
            pod.start().await?;
        }
        self.ready().await?;
        Ok(())
    }

    /// Makes sure that nothing has ended by itself.
    ///
    /// # Errors
    /// When something has.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        self.store.still_runs()?;
        self.pods.iter_mut().try_for_each(Service::still_runs)
    }

    /// The value of a gateway's metric, over all labels.
    ///
    /// # Errors
    /// When the gateway does not answer, or has no such metric.
    pub async fn metric(&self, pod: usize, name: &str) -> anyhow::Result<f64> {
        let answer = Link::to(self.pods[pod].addr()).exchange(&Ask::get("/metrics"), PATIENCE).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        ensure!(!values.is_empty(), "no metric {name}");
        Ok(values.iter().sum())
    }

    /// Ends everything and leaves its files where they are; where that is.
    #[must_use]
    pub fn leave(self) -> String {
        self.folder.keep().display().to_string()
    }
}

fn store_args(at: SocketAddr, folder: &Path) -> anyhow::Result<Vec<String>> {
    let data = folder.join("data");
    let data = data.to_str().context("the temporary folder's name is no text")?;
    Ok(["store", "--listen", &at.to_string(), "--data-dir", data, "--log", "warn"].map(str::to_owned).to_vec())
}

fn pod_args(at: SocketAddr, store: SocketAddr) -> Vec<String> {
    let (at, endpoint) = (at.to_string(), format!("http://{store}"));
    ["serve", "--listen", &at, "--s2-endpoint", &endpoint, "--log", "warn"].map(str::to_owned).to_vec()
}
