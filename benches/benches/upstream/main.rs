//! What a message costs whoever stands in front of S2: the CPU of a process that does nothing but append to streams, and
//! follow them, by S2's own client library. A gateway pays at least that for each message, however many readers it has.
//!
//! ```text
//! cargo build --release && cargo bench -p tailwater-benches --bench upstream
//! ```
//!
//! The store is `tailwater store --memory` (`TAILWATER_BIN`, or what stands in this build's own target folder). This
//! process takes the part of the gateway: where there are two cores and `taskset`, it has the first one, with one worker
//! thread and the allocator of the gateway, and the store has the second. Appends fall due at fixed times, whether or not
//! the ones before are acknowledged, spread evenly over the streams and over the ticks of the store's flush
//! ([`tailwater_benches::phases`] says why). These take turns, each with a store and with connections of its own:
//!
//! - the schedule alone: nothing is appended. What this benchmark itself takes, and is part of the rows below.
//! - unary: an append is a request, by [`S2Upstream`](tailwater_s2::S2Upstream): that is `s2-sdk`, and a translation of terms.
//! - append session: an append is a frame of a long request, one a stream, by `s2-sdk` itself. What a session would save.
//! - both with a read session on each stream, by `S2Upstream`, which is polled all the time.
//! - read sessions alone: nothing is appended, and nothing falls due.
//!
//! CPU is that of all threads of this process, user and system, between the first append after a warm-up and the end of
//! the schedule; streams are made and sessions opened before. An ack is timed from when the append was due, so that a
//! process that lags behind its schedule cannot hide it.
//!
//! Sizes are set by the environment: `UPSTREAM_STREAMS`, `UPSTREAM_RATE` (messages a second and stream),
//! `UPSTREAM_SECONDS`, `UPSTREAM_ROUNDS`. `UPSTREAM_STREAMS=10 UPSTREAM_SECONDS=1 UPSTREAM_ROUNDS=1` only tries out the
//! bars, in half a minute. The last two lines are the figures as JSON and the verdict; the exit code is 0 only where every
//! append was acknowledged, every record came back once on the read session of its stream, and there were exactly as many
//! read sessions as streams, none of which lost its connection.

mod drive;
mod house;
mod readers;
mod report;

use std::{env, io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use tailwater_benches::programs::Cores;
use tikv_jemallocator::Jemalloc;

use crate::{
    drive::{Plan, Turn, Variant},
    report::Report,
};

/// As the gateway has it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How long what is left of a turn may take to end.
const END: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<ExitCode> {
    let plan =
        Plan::new(number("UPSTREAM_STREAMS", 100)?, number("UPSTREAM_RATE", 2)?, number("UPSTREAM_SECONDS", 10)?)?;
    let rounds = number("UPSTREAM_ROUNDS", 5)?;
    ensure!(rounds > 0, "UPSTREAM_ROUNDS=0 measures nothing");
    let cores = Cores::claim_the_servers()?;
    let places = match cores {
        Cores::Pinned { servers } => format!("store on core {servers}, this process on the other"),
        Cores::Free => "not pinned to cores".to_owned(),
    };
    say(&format!("{plan}, {rounds} rounds; {places}"))?;

    let mut report = Report::default();
    for round in 1..=rounds {
        for variant in Variant::ALL {
            let turn = turn(cores, plan, variant);
            let turn = turn.with_context(|| format!("{}, round {round}", variant.name()))?;
            for missed in report.take(variant, turn) {
                say(&format!("MISSED: {}, round {round}: {missed}", variant.name()))?;
            }
        }
    }
    say(&format!("\n{report}"))?;
    say(&report.json(plan, rounds).to_string())?;
    let (verdict, code) = match report.holds() {
        true => ("every bar is held", ExitCode::SUCCESS),
        false => ("not every bar is held", ExitCode::FAILURE),
    };
    say(verdict)?;
    Ok(code)
}

/// One variant in one round. Its runtime ends with it, so nothing of it is left in the CPU of the next one.
fn turn(cores: Cores, plan: Plan, variant: Variant) -> anyhow::Result<Turn> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // On the worker: what `block_on` itself is given would run on a second thread.
    let turn = runtime.block_on(runtime.spawn(Box::pin(drive::turn(cores, plan, variant))));
    runtime.shutdown_timeout(END);
    turn.context("the turn has panicked")?
}

/// The number that an environment variable names.
fn number(variable: &str, default: u32) -> anyhow::Result<u32> {
    let Some(text) = env::var_os(variable) else { return Ok(default) };
    let text = text.to_str().with_context(|| format!("{variable} is no text"))?;
    text.parse().with_context(|| format!("{variable} is {text:?}"))
}

/// Prints a line at once: the next one may take minutes.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
