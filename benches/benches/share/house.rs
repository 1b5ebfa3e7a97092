//! The program, started as an operator would, and the cores that it and its client run on.

use std::{
    env, fmt,
    net::TcpListener,
    path::PathBuf,
    process::{self, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use prometheus::Registry;
use tailwater_s2::{Endpoint, Metrics, Placement, S2Upstream, S2UpstreamConfig, Secret};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long the program may take to say where it listens.
const START: Duration = Duration::from_secs(30);
/// What the line starts with in which it says so.
const LISTENING: &str = "listening on http://";
/// The gateway's own default.
const BASIN_PREFIX: &str = "tailwater";

/// Where the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In a process of its own.
    Apart,
    /// Inside the gateway.
    Within,
}

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// The program on the first core, this process on the second.
    Pinned,
    /// Wherever the system puts them.
    Free,
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

impl Cores {
    /// Puts this process, and every thread that it starts from now on, on the second core, where there is one.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().context("the number of cores")?;
        let own = process::id().to_string();
        let pinned = cores.get() > 1
            && process::Command::new("taskset")
                .args(["-c", "-p", "1", &own])
                .stdout(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        Ok(if pinned { Self::Pinned } else { Self::Free })
    }

    fn command(self, program: &PathBuf) -> Command {
        match self {
            Self::Free => Command::new(program),
            Self::Pinned => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(program);
                command
            }
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pinned => "store and gateway on core 0, client on core 1",
            Self::Free => "not pinned to cores",
        })
    }
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
                let (child, addr) = start(cores, &["store", "--memory", "--listen", "127.0.0.1:0"]).await?;
                processes.push(child);
                addr
            }
            Layout::Within => free_addr()?,
        };
        let endpoint = format!("http://{store}");
        let backend: &[&str] = match layout {
            Layout::Apart => &["--s2-endpoint", &endpoint],
            Layout::Within => &["--memory", "--s2-listen", &store],
        };
        // One response is followed all the way: a reader that reconnects is another matter.
        let serve = ["serve", "--listen", "127.0.0.1:0", "--sse-lifetime", "1h"];
        let (child, gateway) = start(cores, &[&serve, backend].concat()).await?;
        processes.push(child);

        let placement = Placement::basin_per_project(BASIN_PREFIX)?;
        let config = S2UpstreamConfig::new(Endpoint::Url(endpoint), Secret::from("none"), placement);
        let direct = S2Upstream::new(config, Metrics::register(&Registry::new())?.into())?;
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

/// Starts the program, and returns the address that it tells.
async fn start(cores: Cores, args: &[&str]) -> anyhow::Result<(Child, String)> {
    let program = program()?;
    let mut command = cores.command(&program);
    // A setting in the environment would silently change what is measured.
    for (variable, _) in env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("TAILWATER_")) {
        command.env_remove(variable);
    }
    command.args(args).args(["--log", "warn"]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(START, lines.next_line()).await.context("the program does not say where it listens")??;
    let line = line.context("the program ended at its start")?;
    let addr = line.strip_prefix(LISTENING).with_context(|| format!("the program says {line:?}"))?.to_owned();
    // What else it says is of no interest, but it must be able to say it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, addr))
}

/// `TAILWATER_BIN`, or the program beside this one: `target/release/deps/share-…` is two folders below.
fn program() -> anyhow::Result<PathBuf> {
    let program = match env::var_os("TAILWATER_BIN") {
        Some(path) => PathBuf::from(path),
        None => env::current_exe()?.ancestors().nth(2).context("this program stands in no folder")?.join("tailwater"),
    };
    ensure!(program.is_file(), "{} is missing; make it with `cargo build --release`", program.display());
    Ok(program)
}

/// An address that was free just now. The gateway tells its own address only, so its store cannot choose one.
fn free_addr() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
