//! One process that listens: started, killed, paused, told to end, and started again at the same address.

use std::{
    env,
    fs::{File, OpenOptions},
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, timeout},
};

/// How long a process may take to say where it listens. A store that was killed reads its log first.
const START: Duration = Duration::from_secs(60);
/// What the line starts with in which it says so.
const LISTENING: &str = "listening on http://";

/// A process, or where there will be one. What runs is killed when this is dropped.
#[derive(Debug)]
pub struct Service {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    addr: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Service {
    /// A service that does not run yet. Its stderr goes to a file in `folder`.
    #[must_use]
    pub fn new(name: &str, program: &Path, args: Vec<String>, addr: SocketAddr, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self { name: name.to_owned(), program: program.to_owned(), args, addr, log, child: None }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens while it runs.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts it, and waits until it listens. How long that took.
    ///
    /// # Errors
    /// When it does not listen in time, or where it should.
    pub async fn start(&mut self) -> anyhow::Result<Duration> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        // A setting in the environment would silently change what is shown.
        for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TAILWATER_")) {
            command.env_remove(variable);
        }
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(append_to(&self.log)?);
        let mut child = command.kill_on_drop(true).spawn().with_context(|| format!("{:?}", self.program))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        self.child = Some(child);
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(START, lines.next_line()).await;
        let line = line.with_context(|| format!("{} does not say where it listens", self.name))??;
        let Some(line) = line else { bail!("{} ended at its start: {}", self.name, self.last_words()) };
        let addr = line.strip_prefix(LISTENING).with_context(|| format!("{} says {line:?}", self.name))?;
        ensure!(addr.parse::<SocketAddr>().ok() == Some(self.addr), "{} listens on {addr}", self.name);
        // What else it says is of no interest, but it must be able to say it; this ends with the process.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(began.elapsed())
    }

    /// SIGKILL, and its end.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        child.start_kill()?;
        child.wait().await?;
        Ok(())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM. [`ended`](Self::ended) waits for what follows.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits for its end, which has to be in good order. How long that took.
    ///
    /// # Errors
    /// When it does not end in time, or not with 0.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        let status = timeout(within, child.wait()).await;
        let status = status.with_context(|| format!("{} has not ended within {within:?}", self.name))??;
        ensure!(status.success(), "{} ended with {status}: {}", self.name, self.last_words());
        Ok(began.elapsed())
    }

    /// Makes sure that it has not ended by itself.
    ///
    /// # Errors
    /// When it has.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        let child = self.child.as_mut().with_context(|| format!("{} does not run", self.name))?;
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself with {status}: {}", self.name, self.last_words()),
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.with_context(|| format!("{} does not run", self.name))?;
        Ok(kill_process(pid, signal)?)
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// An address that nobody has now. Processes that are killed and started again have to find theirs free, so each has an
/// IP address of its own: no connection that this machine opens is given one of its ports meanwhile.
///
/// # Errors
/// When the kernel has none.
pub fn free_address(ip: impl Into<IpAddr>) -> anyhow::Result<SocketAddr> {
    let ip: IpAddr = ip.into();
    Ok(TcpListener::bind((ip, 0))?.local_addr()?)
}

/// What an environment variable names, or the program beside this one.
///
/// # Errors
/// When there is no such file.
pub fn find(name: &str, variable: &str) -> anyhow::Result<PathBuf> {
    let program = match env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => env::current_exe()?.parent().context("this program stands in no folder")?.join(name),
    };
    ensure!(program.is_file(), "{} is missing; `cargo build --release` makes it", program.display());
    Ok(program)
}

fn append_to(log: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))
}
