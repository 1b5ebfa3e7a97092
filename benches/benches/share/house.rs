//! A gateway on a store, and both ways to that store.

use std::net::TcpListener;

use anyhow::ensure;
use prometheus::Registry;
use tailwater_benches::{direct::Direct, programs::Cores};
use tailwater_s2::S2Upstream;
use tokio::process::Child;

/// Where the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In a process of its own.
    Apart,
    /// Inside the gateway.
    Within,
}

/// A gateway on a store, and both ways to that store.
pub(crate) struct House {
    pub(crate) layout: Layout,
    /// The gateway's address.
    pub(crate) gateway: String,
    /// S2's own client library.
    pub(crate) direct: S2Upstream,
    processes: Vec<Child>,
}

impl Layout {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::Within => "within",
        }
    }
}

impl House {
    pub(crate) async fn open(layout: Layout, cores: Cores) -> anyhow::Result<Self> {
        let mut processes = Vec::new();
        let store = match layout {
            Layout::Apart => {
                let (child, addr) = cores.serve(&["store", "--memory", "--listen", "127.0.0.1:0"]).await?;
                processes.push(child);
                addr
            }
            Layout::Within => free_addr()?,
        };
        let direct = Direct::at(&store)?;
        let backend: &[&str] = match layout {
            Layout::Apart => &["--s2-endpoint", direct.endpoint()],
            Layout::Within => &["--memory", "--s2-listen", &store],
        };
        // One response is followed all the way: a reader that reconnects is another matter.
        let serve = ["serve", "--listen", "127.0.0.1:0", "--sse-lifetime", "1h"];
        let (child, gateway) = cores.serve(&[&serve, backend].concat()).await?;
        processes.push(child);

        let direct = direct.upstream(&Registry::new())?;
        Ok(Self { layout, gateway, direct, processes })
    }

    /// Ends the processes. Their data is in memory, so there is nothing to be saved.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            ensure!(process.try_wait()?.is_none(), "the program ended by itself");
            process.kill().await?;
        }
        Ok(())
    }
}

/// An address that was free just now. The gateway tells its own address only, so its store cannot choose one.
fn free_addr() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
