//! How many appends a second the gateway takes, beside S2's client library on the same store in the same run.
//!
//! ```text
//! cargo build --release && cargo bench -p tailwater-benches --bench appends
//! ```
//!
//! The store is `tailwater store --memory` and the gateway `tailwater serve --s2-endpoint`, processes of their own
//! (`TAILWATER_BIN`, or what stands in this build's own target folder). Writers append one message after the other, each
//! once the one before is acknowledged, to one stream after the other, so that every stream has its share of all writers.
//! For each number of streams and of writers these take turns, on one store:
//!
//! - unary: the library, a request for each message, without a condition.
//! - unary, in turns: the same on condition of the position and of the token. Of several writers of a stream one appends
//!   at a time, because all others would be refused. What it takes to write exactly once without a gateway.
//! - session: the library's append sessions, one a stream, that all writers share; each append is on condition of the
//!   position that those before it leave. Needs all writers to be in one process.
//! - gateway: a POST for each message, on a connection of each writer's own.
//! - gateway, producers: the same, each writer with a producer of its own. Beside the two conditional ways.
//!
//! Where there are two cores and `taskset`, the store is on the second, and on the first is who speaks to it: the gateway,
//! or this process where it goes past the gateway. As a client of the gateway this process is on the second, beside the
//! store. All CPU is told, so that it can be seen which core was full.
//!
//! A lone writer always asks at the start of the store's flush tick, and what anybody takes until its end does not show
//! in its rate; the bench `share` is about that. Where several writers wait for one stream, the gateway appends what waits
//! together, a few batches at a time (`docs/adr/0014-a-few-plain-batches-in-flight.md`); where something is counted, one.
//! A writer with a producer that comes while a batch is in flight waits for a second tick, and the store has fewer appends
//! to take.
//!
//! Rates and times are those of acks between the end of a warm-up and the last append; figures are medians of rounds.
//! Sizes are set by the environment: `APPENDS_STREAMS` and `APPENDS_WRITERS` (lists with commas), `APPENDS_SECONDS`,
//! `APPENDS_ROUNDS`. `APPENDS_STREAMS=1,3 APPENDS_WRITERS=1,16 APPENDS_SECONDS=1 APPENDS_ROUNDS=1` only tries out the bars,
//! in a minute. The last two lines are the figures as JSON and the verdict; the exit code is 0 only where every append was
//! acknowledged, and every stream then holds exactly the messages that were acknowledged, each writer's in their order.

mod house;
mod report;
mod turn;
mod way;

use std::{env, io::Write as _, process::ExitCode, str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use tailwater_benches::{ledger::MESSAGE, programs::Cores};
use tikv_jemallocator::Jemalloc;

use crate::{
    house::House,
    report::Report,
    turn::{Load, Turn},
    way::Way,
};

/// As the gateway has it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How long what is left of a turn may take to end.
const END: Duration = Duration::from_secs(5);

/// How much is measured.
struct Sizes {
    streams: Vec<u32>,
    writers: Vec<u32>,
    seconds: u32,
    rounds: u32,
}

fn main() -> anyhow::Result<ExitCode> {
    let sizes = Sizes::read()?;
    // The gateway is on the servers' core.
    let cores = Cores::claim()?;
    let places = match cores {
        Cores::Pinned { .. } => "gateway or library on core 0; store, and the gateway's client, on core 1",
        Cores::Free => "not pinned to cores",
    };
    let Sizes { seconds, rounds, .. } = sizes;
    say(&format!("messages of {MESSAGE} bytes, {seconds} s a turn, {rounds} rounds; {places}"))?;

    let mut report = Report::default();
    for round in 0..sizes.rounds {
        for load in sizes.loads() {
            measure(cores, load, round, &mut report).with_context(|| format!("{load}, round {}", round + 1))?;
        }
    }
    say(&format!("\n{report}"))?;
    say(&report.json(seconds, rounds).to_string())?;
    let (verdict, code) = match report.holds() {
        true => ("every bar is held", ExitCode::SUCCESS),
        false => ("not every bar is held", ExitCode::FAILURE),
    };
    say(verdict)?;
    Ok(code)
}

/// Every way in one round, on a store and through a gateway of this load's own.
fn measure(cores: Cores, load: Load, round: u32, report: &mut Report) -> anyhow::Result<()> {
    let keeper = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let house = keeper.block_on(Box::pin(House::open(cores)))?;
    let mut ways = Way::ALL;
    // Another one begins each round, so that none always finds the store as the same one left it.
    ways.rotate_left(round as usize % Way::ALL.len());
    for way in ways {
        let own = if way.is_direct() { cores.turned() } else { cores };
        own.enter()?;
        let turn = take_turn(&house, load, way).with_context(|| way.name())?;
        for missed in report.take(load, way, turn) {
            say(&format!("MISSED: {load}, {}, round {}: {missed}", way.name(), round + 1))?;
        }
    }
    keeper.block_on(house.close())
}

/// One way, once. Its runtime ends with it, so nothing of it is left in the CPU of the next one.
fn take_turn(house: &House, load: Load, way: Way) -> anyhow::Result<Turn> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // On the worker: what `block_on` itself is given would run on a second thread.
    let turn = runtime.block_on(runtime.spawn(Box::pin(turn::turn(house.doors(), load, way))));
    runtime.shutdown_timeout(END);
    turn.context("the turn has panicked")?
}

impl Sizes {
    fn read() -> anyhow::Result<Self> {
        let sizes = Self {
            streams: numbers("APPENDS_STREAMS", &[1, 100])?,
            writers: numbers("APPENDS_WRITERS", &[1, 16, 256])?,
            seconds: numbers("APPENDS_SECONDS", &[5])?.remove(0),
            rounds: numbers("APPENDS_ROUNDS", &[3])?.remove(0),
        };
        let all = [&sizes.streams[..], &sizes.writers, &[sizes.seconds, sizes.rounds]].concat();
        ensure!(!all.contains(&0), "no streams, no writers, no time or no rounds measure nothing");
        Ok(sizes)
    }

    fn loads(&self) -> impl Iterator<Item = Load> {
        let Self { writers, seconds, .. } = self;
        let of = move |streams| writers.iter().map(move |&writers| Load { streams, writers, seconds: *seconds });
        self.streams.iter().flat_map(move |&streams| of(streams))
    }
}

/// The numbers that an environment variable names; at least one.
fn numbers(variable: &str, default: &[u32]) -> anyhow::Result<Vec<u32>> {
    let Some(text) = env::var_os(variable) else { return Ok(default.to_vec()) };
    let text = text.to_str().with_context(|| format!("{variable} is no text"))?;
    text.split(',').map(u32::from_str).collect::<Result<_, _>>().with_context(|| format!("{variable} is {text:?}"))
}

/// Prints a line at once: the next one may take minutes.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
