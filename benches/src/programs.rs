//! The programs under measurement, started as an operator would, the cores that they and this process run on, and the CPU
//! that they have taken.

use std::{
    env,
    path::{Path, PathBuf},
    process::{self, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a server may take to say where it listens.
const START: Duration = Duration::from_secs(30);
/// What the line starts with in which it says so.
const LISTENING: &str = "listening on http://";

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Servers on one core; this process, and what else it starts, on the other.
    Pinned {
        /// The number of the servers' core: 0 or 1.
        servers: u8,
    },
    /// Wherever the system puts them.
    Free,
}

impl Cores {
    /// Puts this process, and every thread and process that it starts from now on, on the second core, where there is
    /// one and `taskset` is installed.
    ///
    /// # Errors
    /// When the system does not tell its cores.
    pub fn claim() -> anyhow::Result<Self> {
        Self::claim_beside(0)
    }

    /// The other way round, for a process that is itself what is measured: it has the first core, where the gateway is
    /// otherwise, and the servers that it starts have the second.
    ///
    /// # Errors
    /// When the system does not tell its cores.
    pub fn claim_the_servers() -> anyhow::Result<Self> {
        Self::claim_beside(1)
    }

    /// The same cores the other way round. Nothing moves by this alone.
    #[must_use]
    pub fn turned(self) -> Self {
        match self {
            Self::Pinned { servers } => Self::Pinned { servers: 1 - servers },
            Self::Free => Self::Free,
        }
    }

    /// Puts this thread, which must be the main one, on the core that is not the servers', and with it every thread and
    /// process that it starts from now on.
    ///
    /// # Errors
    /// When it cannot go there.
    pub fn enter(self) -> anyhow::Result<()> {
        let Self::Pinned { servers } = self else { return Ok(()) };
        let (core, own) = ((1 - servers).to_string(), process::id().to_string());
        let moved = process::Command::new("taskset").args(["-c", "-p", &core, &own]).stdout(Stdio::null()).status()?;
        ensure!(moved.success(), "this process cannot go to core {core}");
        Ok(())
    }

    fn claim_beside(servers: u8) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().context("the number of cores")?;
        let pinned = Self::Pinned { servers };
        Ok(if cores.get() > 1 && pinned.enter().is_ok() { pinned } else { Self::Free })
    }

    /// Starts `tailwater` with these arguments, and returns the address that it tells.
    ///
    /// # Errors
    /// When it is not there, does not start, or does not say in time where it listens.
    pub async fn serve(self, args: &[&str]) -> anyhow::Result<(Child, String)> {
        let program = find("tailwater", "TAILWATER_BIN")?;
        let mut command = self.command(&program);
        // A setting in the environment would silently change what is measured.
        for (variable, _) in env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("TAILWATER_"))
        {
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

    fn command(self, program: &Path) -> Command {
        match self {
            Self::Free => Command::new(program),
            Self::Pinned { servers } => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(servers.to_string()).arg(program);
                command
            }
        }
    }
}

/// CPU that a process has taken so far, user and system. The kernel counts in ticks, mostly of 10 ms (proc(5)).
///
/// # Errors
/// When there is no such process.
pub fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    let ticks = ticks_in(&stat).with_context(|| format!("/proc/{pid}/stat makes no sense"))?;
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// Fields 14 and 15. The second field, the process's name, can hold anything.
fn ticks_in(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// What an environment variable names, or the program beside this one: a bench target is `target/release/deps/name-…`,
/// two folders below.
///
/// # Errors
/// When there is no such file.
pub fn find(name: &str, variable: &str) -> anyhow::Result<PathBuf> {
    let program = match env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => env::current_exe()?.ancestors().nth(2).context("this program stands in no folder")?.join(name),
    };
    ensure!(program.is_file(), "{} is missing; `cargo build --release --workspace --bins` makes it", program.display());
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_ticks() {
        let stat = "7 (a) R 1) S 1 7 7 0 -1 4194560 100 0 0 0 31 12 0 0 20 0 3 0 99 0 0";
        assert_eq!(ticks_in(stat), Some(43));
        assert_eq!(ticks_in("7 (a) S 1"), None);
    }
}
