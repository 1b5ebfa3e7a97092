//! What the fan-out costs the store, counted at the store: read sessions and unary reads, with many readers.
//!
//! ```text
//! cargo build --release -p tailwater -p tailwater-fanbench && cargo bench -p tailwater-benches --bench fan
//! ```
//!
//! The store is in this process, in memory, and tells what it is asked for; `tailwater serve --s2-endpoint` and
//! `fanbench` are the programs as they ship (`TAILWATER_BIN` and `FANBENCH_BIN`, or what stands in this build's own target
//! folder). Each of these has a store and a gateway of its own:
//!
//! - sessions: readers of 1, 100 and 1,000 streams. As long as they are there, the store has one read session a stream.
//! - storm: all readers of a stream are cut and come back at once, each at its offset, out of the ring.
//! - replay: many clients read the same long stream from its beginning at once, as pages and as events. The store is read
//!   once for each chunk.
//!
//! Sizes are set by the environment, for trying out a change in less time: `FAN_READERS`, `FAN_STREAMS` (a list with
//! commas), `FAN_STORM_READERS`, `FAN_CLIENTS`, `FAN_REPLAY_MIB`. Each line of the output says what was counted. The last
//! two lines are the same as JSON, and the verdict; the exit code is 0 only where every bar is held.

mod house;
mod shows;

use std::{env, io::Write as _, process::ExitCode, str::FromStr};

use anyhow::Context as _;
use serde_json::json;
use tailwater_benches::programs::Cores;

use crate::shows::{Finding, Form, replay, sessions, storm};

/// How many of everything there are.
struct Sizes {
    /// Readers that follow, and the numbers of streams that they are spread over.
    readers: u64,
    streams: Vec<u64>,
    /// Readers that are cut and come back.
    storm_readers: u64,
    /// Clients that replay, and what they replay, in MiB.
    clients: u64,
    replay_mib: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let sizes = Sizes::read()?;
    let cores = Cores::claim()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    say(match cores {
        Cores::Pinned { .. } => "gateway on core 0; store and readers on core 1",
        Cores::Free => "not pinned to cores",
    })?;
    let findings = runtime.block_on(Box::pin(show(cores, &sizes)))?;

    let holds = findings.iter().all(Finding::holds);
    let figures: Vec<_> = findings.iter().map(Finding::json).collect();
    say(&json!({ "holds": holds, "findings": figures }).to_string())?;
    let (verdict, code) = match holds {
        true => ("every bar is held", ExitCode::SUCCESS),
        false => ("not every bar is held", ExitCode::FAILURE),
    };
    say(verdict)?;
    Ok(code)
}

async fn show(cores: Cores, sizes: &Sizes) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for streams in &sizes.streams {
        let found = sessions(cores, sizes.readers, *streams).await;
        findings.push(found.with_context(|| format!("readers of {streams} streams"))?.told()?);
    }
    findings.push(storm(cores, sizes.storm_readers).await.context("the storm")?.told()?);
    for form in [Form::Pages, Form::Events] {
        findings.push(replay(cores, sizes.clients, sizes.replay_mib, form).await.context("the replay")?.told()?);
    }
    Ok(findings)
}

impl Sizes {
    fn read() -> anyhow::Result<Self> {
        Ok(Self {
            readers: numbers("FAN_READERS", &[10_000])?.remove(0),
            streams: numbers("FAN_STREAMS", &[1, 100, 1_000])?,
            storm_readers: numbers("FAN_STORM_READERS", &[8_000])?.remove(0),
            clients: numbers("FAN_CLIENTS", &[1_000])?.remove(0),
            replay_mib: numbers("FAN_REPLAY_MIB", &[20])?.remove(0),
        })
    }
}

/// The numbers that an environment variable names; at least one.
fn numbers(variable: &str, default: &[u64]) -> anyhow::Result<Vec<u64>> {
    let Some(text) = env::var_os(variable) else { return Ok(default.to_vec()) };
    let text = text.to_str().with_context(|| format!("{variable} is no text"))?;
    text.split(',').map(u64::from_str).collect::<Result<_, _>>().with_context(|| format!("{variable} is {text:?}"))
}

/// Prints a line at once: the next one may take a minute.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
