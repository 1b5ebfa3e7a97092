//! A store, a gateway in front of it, and the doors of both.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use prometheus::Registry;
use tailwater_benches::{direct::Direct, programs::Cores};
use tailwater_log::NewRecord;
use tailwater_upstream::{Append, StreamKey, Upstream as _};
use tokio::process::Child;

/// The project that all streams are in.
pub(crate) const PROJECT: &str = "bench";

/// A store, and a gateway in front of it.
pub(crate) struct House {
    store: Child,
    gateway: Child,
    doors: Doors,
}

/// Where the processes are found.
#[derive(Clone)]
pub(crate) struct Doors {
    /// Into the store, past the gateway.
    pub(crate) direct: Direct,
    /// The gateway's address.
    pub(crate) gateway: String,
    pub(crate) store_pid: u32,
    pub(crate) gateway_pid: u32,
}

impl House {
    /// The gateway where `cores` have their servers, the store on the other one.
    pub(crate) async fn open(cores: Cores) -> anyhow::Result<Self> {
        let (store, addr) = cores.turned().serve(&["store", "--memory", "--listen", "127.0.0.1:0"]).await?;
        let direct = Direct::at(&addr)?;
        let endpoint = direct.endpoint();
        let (gateway, addr) = cores.serve(&["serve", "--listen", "127.0.0.1:0", "--s2-endpoint", endpoint]).await?;
        // Append sessions find the project's basin, which nobody else has to make while it is measured.
        let first = Append::new(vec![NewRecord::message(Bytes::from_static(b"{}"))]);
        let upstream = direct.upstream(&Registry::new())?;
        upstream.append(&StreamKey::new(PROJECT, "first"), first).await.context("the basin is not made")?;
        let pid = |child: &Child| child.id().context("a server ended at its start");
        let doors = Doors { gateway: addr, store_pid: pid(&store)?, gateway_pid: pid(&gateway)?, direct };
        Ok(Self { store, gateway, doors })
    }

    pub(crate) fn doors(&self) -> Doors {
        self.doors.clone()
    }

    /// Ends the processes. Their data is in memory, so there is nothing to be saved.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        for process in [&mut self.gateway, &mut self.store] {
            ensure!(process.try_wait()?.is_none(), "the program ended by itself");
            process.kill().await?;
        }
        Ok(())
    }
}
