//! The loads. Each is a script over the engine: what joins when, what is waited for, and what is looked at.
//!
//! What they share is here: how a run is set up, and how its report is filled.

pub(crate) mod memory;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod storm;

use std::time::Duration;

use anyhow::{Result, bail};
use bytesize::ByteSize;
use serde::Serialize;

use crate::{
    adapter::{Address, Ask, From, Target},
    args::LoadArgs,
    engine::{Engine, Role, SECOND, Setup},
    process,
    report::{Appends, Connect, Cpu, Deliveries, MemoryAt, Replays, Report},
};

/// How fast a server must at least be filled, in bytes a second.
const PRELOAD_RATE: u64 = 1024 * 1024;

/// What a load wants besides the common settings.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// Connections at the same time, of all kinds.
    connections: usize,
    from: From,
    preload: ByteSize,
    preload_size: Option<ByteSize>,
    replay: Ask,
    staller_buffer: ByteSize,
}

/// A run under way.
struct Bench {
    engine: Engine,
    report: Report,
    load: LoadArgs,
    /// The machine's count of full listener queues before the run.
    overflows: u64,
}

/// CPU and deliveries at a moment.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: u64,
    server: u64,
    client: u64,
    delivered: u64,
}

impl Wish {
    fn new(connections: usize, from: From) -> Self {
        Self {
            connections,
            from,
            preload: ByteSize::b(0),
            preload_size: None,
            replay: Ask::CatchUp,
            staller_buffer: ByteSize::kib(16),
        }
    }
}

impl Bench {
    /// Makes and fills the streams. `Err`: there is nothing to measure.
    fn open(command: &'static str, settings: &impl Serialize, load: &LoadArgs, wish: Wish) -> Result<Self> {
        if let Some(core) = load.pin {
            process::pin(core)?;
        }
        process::allow_descriptors(wish.connections + load.writers)?;
        process::memory(&load.pid)?;
        let setup = setup(load, wish)?;
        let preload = wish.preload.as_u64() * setup.streams as u64;
        let streams = setup.streams as u64;
        let mut bench = Self {
            engine: Engine::new(setup)?,
            report: Report::new(command, serde_json::to_value(settings)?),
            load: load.clone(),
            overflows: process::listen_overflows(),
        };
        let patience = 60 * SECOND + streams * SECOND / 5 + preload / PRELOAD_RATE * SECOND;
        for step in [Engine::prepare, Engine::create, Engine::preload] {
            step(&mut bench.engine);
            let done = bench.engine.turn_until(process::now() + patience, |engine| engine.writers_idle())?;
            if !done {
                let why = bench.engine.failures.told.first().map_or("the server takes too long", String::as_str);
                bail!("the streams could not be made: {why}");
            }
        }
        bench.look("start")?;
        Ok(bench)
    }

    /// Adds `count` connections, and waits until all have an answer. False: not all had in time.
    fn join(&mut self, role: Role, count: usize) -> Result<bool> {
        let begin = process::now();
        for _ in 0..count {
            self.engine.join(role);
        }
        let deadline = begin + nanoseconds(self.load.connect_timeout);
        let all = self.engine.turn_until(deadline, |engine| engine.joining == 0)?;
        if !all {
            let missing = self.engine.joining;
            self.engine.failures.add(|| format!("{missing} connections had no answer in time"));
        }
        if role == Role::Live {
            let all_ms = (process::now() - begin) / 1_000_000;
            self.report.connect = Some(Connect { all_ms, latency: self.engine.connect.percentiles() });
        }
        Ok(all)
    }

    /// Notes the memory of the server.
    fn look(&mut self, at: &str) -> Result<()> {
        if self.load.pid.is_empty() {
            return Ok(());
        }
        let processes = process::memory(&self.load.pid)?;
        self.report.memory.push(MemoryAt {
            at: at.to_owned(),
            readers: self.engine.slots.iter().filter(|slot| slot.is_joined()).count(),
            rss_anon: processes.iter().map(|memory| memory.rss_anon).sum(),
            anonymous: processes.iter().map(|memory| memory.anonymous).sum(),
            sockets: process::socket_memory()?,
            processes,
        });
        Ok(())
    }

    /// CPU and deliveries so far.
    fn mark(&self) -> Result<Mark> {
        Ok(Mark {
            at: process::now(),
            server: process::cpu(&self.load.pid)?,
            client: process::own_cpu(),
            delivered: self.engine.figures.delivered,
        })
    }

    /// CPU since a moment.
    fn tell_cpu(&mut self, since: Mark) -> Result<()> {
        let now = self.mark()?;
        let deliveries = now.delivered - since.delivered;
        let each = |ms: f64| (deliveries > 0).then(|| ms * 1000.0 / deliveries as f64);
        let server_ms = (!self.load.pid.is_empty()).then(|| (now.server - since.server) as f64 / 1e6);
        let client_ms = (now.client - since.client) as f64 / 1e6;
        self.report.cpu = Some(Cpu {
            window_ms: (now.at - since.at) / 1_000_000,
            deliveries,
            server_ms,
            client_ms,
            server_us_per_delivery: server_ms.and_then(each),
            client_us_per_delivery: each(client_ms),
        });
        Ok(())
    }

    /// Waits until all appends have an answer and all readers have all messages; tells of those that have not.
    fn settle(&mut self) -> Result<()> {
        self.engine.end_schedule();
        let deadline = process::now() + nanoseconds(self.load.settle);
        let settled = self.engine.turn_until(deadline, |engine| engine.writers_idle() && engine.all_caught_up())?;
        if !settled {
            if !self.engine.writers_idle() && !self.engine.stopped {
                self.engine.failures.add(|| "not every append was answered in time".to_owned());
            }
            self.engine.tell_missing();
        }
        Ok(())
    }

    /// What became of those who replayed.
    fn tell_replays(&mut self) {
        let replayers = self.engine.slots.iter().enumerate().filter(|(_, slot)| slot.role == Role::Replay);
        let mut time = crate::figures::Latencies::new();
        let (mut clients, mut finished, mut bytes, mut begin, mut end) = (0, 0, 0, u64::MAX, 0);
        let mut late = Vec::new();
        for (index, slot) in replayers {
            clients += 1;
            bytes += slot.reader.bytes;
            begin = begin.min(slot.began());
            match slot.finished {
                Some(at) => {
                    finished += 1;
                    end = end.max(at);
                    time.record(slot.began(), at);
                }
                None if slot.failed => {}
                None => late.push((index, slot.reader.seen())),
            }
        }
        for (index, seen) in late {
            self.engine.failures.add(|| format!("replayer {index} was not done in time: it had {seen} messages"));
        }
        let elapsed = end.saturating_sub(begin);
        if clients > 0 {
            self.report.replays = Some(Replays {
                clients,
                finished,
                bytes,
                elapsed_ms: elapsed / 1_000_000,
                mib_per_second: if finished > 0 {
                    bytes as f64 / 1_048_576.0 / (elapsed.max(1) as f64 / 1e9)
                } else {
                    0.0
                },
                time: time.percentiles(),
            });
        }
    }

    /// Fills in what every report has. `window` is how long deliveries were measured.
    fn close(mut self, window: Option<Duration>) -> Report {
        let Engine { figures, tally, failures, .. } = &mut self.engine;
        if !self.load.allow_refusals {
            let refused = tally.refusals.values().sum::<u64>();
            if refused > 0 {
                failures.add(|| format!("{refused} reads were refused"));
            }
            if tally.connect_errors > 0 {
                failures.add(|| format!("{} connections failed", tally.connect_errors));
            }
        }
        let report = &mut self.report;
        report.appends = Some(Appends {
            sent: tally.sent,
            acked: tally.acked,
            late: tally.late,
            latency: figures.ack.percentiles(),
        });
        if let Some(window) = window {
            let (last_reader, ack_to_last_reader) = figures.last_reader();
            report.deliveries = Some(Deliveries {
                total: figures.delivered,
                measured: figures.measured,
                per_second: figures.measured as f64 / window.as_secs_f64().max(1e-9),
                before_ack: figures.before_ack,
                publish_to_receive: figures.publish_to_receive.percentiles(),
                ack_to_receive: figures.ack_to_receive.percentiles(),
                last_reader: last_reader.percentiles(),
                ack_to_last_reader: ack_to_last_reader.percentiles(),
            });
        }
        report.refusals = std::mem::take(&mut tally.refusals);
        report.connect_errors = tally.connect_errors;
        report.listen_overflows = process::listen_overflows() - self.overflows;
        report.rotations = tally.rotations;
        report.cut = tally.cut;
        report.failures = std::mem::take(&mut failures.told);
        report.failures_total = failures.total;
        report.ok = failures.total == 0;
        self.report
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

fn setup(load: &LoadArgs, wish: Wish) -> Result<Setup> {
    let size = usize::try_from(load.size.as_u64())?;
    let preload_size = usize::try_from(wish.preload_size.unwrap_or(load.size).as_u64())?;
    Ok(Setup {
        target: target(load)?,
        mode: load.mode,
        from: wish.from,
        streams: load.streams as usize,
        size,
        preload_size,
        preload: wish.preload.as_u64().div_ceil(preload_size as u64),
        sources: load.source.as_ref().map(|sources| sources.0.clone()).unwrap_or_default(),
        window: load.connect_window.max(1),
        writers: load.writers,
        replay: wish.replay,
        retry: load.retry,
        staller_buffer: usize::try_from(wish.staller_buffer.as_u64())?,
    })
}

fn target(load: &LoadArgs) -> Result<Target> {
    let Address { socket, host, path } = Address::of(&load.url)?;
    let run = load.name.clone().unwrap_or_else(|| format!("r{:x}", process::run_number()));
    if !run.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || run.len() > 32 {
        bail!("a name is made of letters, digits and hyphens, 32 at most");
    }
    Ok(Target {
        adapter: load.adapter,
        address: socket,
        host,
        prefix: path.trim_end_matches('/').to_owned(),
        run,
        basin: load.basin.clone(),
        token: load.token.clone(),
    })
}

/// Refuses what the adapter cannot do.
fn check(load: &LoadArgs, asks: &[Ask]) -> Result<()> {
    match asks.iter().find_map(|ask| load.adapter.refuses(*ask)) {
        Some(why) => bail!(why),
        None => Ok(()),
    }
}

/// What a reader of this mode asks for.
fn ask_of(load: &LoadArgs) -> Ask {
    match load.mode {
        crate::adapter::Mode::Sse => Ask::Events,
        crate::adapter::Mode::LongPoll => Ask::LongPoll,
    }
}
