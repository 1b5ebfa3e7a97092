//! A steady load: readers follow, writers append on schedule, and whoever else is asked for is in their way.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, Wish, ask_of, check, nanoseconds};
use crate::{
    adapter::Ask,
    args::RunArgs,
    counters,
    engine::{Role, SECOND},
    process,
    report::{Counter, Report, Staller},
    schedule::Schedule,
};

/// How long after the start of the schedule its first message is due, in nanoseconds.
const LEAD: u64 = SECOND / 10;

/// Runs the load.
pub(crate) fn run(args: &RunArgs) -> Result<Report> {
    let replay = if args.replay_events { Ask::Events } else { Ask::CatchUp };
    check(&args.load, &[ask_of(&args.load)])?;
    if args.replayers > 0 {
        check(&args.load, &[replay])?;
    }
    let connections = args.follow.readers + args.stallers + args.replayers;
    let wish = Wish {
        preload: args.preload.preload,
        preload_size: args.preload.preload_size,
        replay,
        staller_buffer: args.staller_buffer,
        ..Wish::new(connections, args.follow.from)
    };
    let mut bench = Bench::open("run", args, &args.load, wish)?;
    if !bench.join(Role::Live, args.follow.readers)? {
        return Ok(bench.close(None));
    }
    bench.look("readers")?;
    let before = count(args)?;
    if !bench.join(Role::Staller, args.stallers)? {
        return Ok(bench.close(None));
    }
    bench.look("connected")?;
    let origin = process::now() + LEAD;
    let begin = origin + nanoseconds(args.warmup);
    let end = begin + nanoseconds(args.duration);
    bench.engine.figures.measure(begin, end);
    bench.engine.follow(Schedule::new(args.follow.rate, args.load.streams as usize, origin, end));
    bench.engine.turn_for(Duration::from_nanos(begin - process::now()))?;
    let mark = bench.mark()?;
    for _ in 0..args.replayers {
        bench.engine.join(Role::Replay);
    }
    let replay_deadline = process::now() + nanoseconds(args.replay_timeout);
    measured(&mut bench, args.leave_rate, end)?;
    bench.settle()?;
    bench.tell_cpu(mark)?;
    bench.look("end")?;
    bench.engine.turn_until(replay_deadline, |engine| {
        engine.slots.iter().all(|slot| slot.role != Role::Replay || slot.is_done())
    })?;
    bench.tell_replays();
    bench.tell_stallers();
    bench.tell_counters(args, &before)?;
    bench.engine.leave();
    if !args.load.pid.is_empty() {
        bench.engine.turn_for(args.after)?;
        bench.look("left")?;
    }
    Ok(bench.close(Some(args.duration)))
}

/// The measured time, in which `leave_rate` readers a second leave and come back.
fn measured(bench: &mut Bench, leave_rate: f64, end: u64) -> Result<()> {
    let live: Vec<usize> = (0..bench.engine.slots.len()).filter(|index| bench.engine.slots[*index].is_live()).collect();
    if leave_rate <= 0.0 || live.is_empty() {
        bench.engine.turn_until(end, |_| false)?;
        return Ok(());
    }
    let mut leaving = Schedule::new(leave_rate, 1, process::now(), end);
    let mut who = live.iter().cycle();
    while let Some(at) = leaving.next_at() {
        bench.engine.turn_until(at, |_| false)?;
        if bench.engine.stopped {
            return Ok(());
        }
        while leaving.pop(process::now()).is_some() {
            let index = *who.next().expect("a cycle does not end");
            // One that is away already cannot leave.
            if bench.engine.slots[index].is_joined() {
                bench.engine.rejoin(index);
                bench.report.churned += 1;
            }
        }
    }
    bench.engine.turn_until(end, |_| false)?;
    Ok(())
}

/// What the server's own counters say.
fn count(args: &RunArgs) -> Result<Vec<Option<f64>>> {
    match &args.metrics {
        Some(url) => counters::read(url, &args.counter),
        None => Ok(Vec::new()),
    }
}

impl Bench {
    /// What the server's own counters came to meanwhile.
    fn tell_counters(&mut self, args: &RunArgs, before: &[Option<f64>]) -> Result<()> {
        let after = count(args)?;
        let counted = args.counter.iter().zip(before.iter().zip(after));
        self.report.counters =
            counted.map(|(series, (&before, after))| Counter { series: series.clone(), before, after }).collect();
        Ok(())
    }

    /// What became of those who do not read.
    fn tell_stallers(&mut self) {
        let remote = self.engine.setup.target.address;
        let stallers = self.engine.slots.iter().enumerate().filter(|(_, slot)| slot.role == Role::Staller);
        self.report.stallers = stallers
            .map(|(index, slot)| Staller {
                index,
                closed_after_ms: slot.finished.map(|at| (at - slot.began()) / 1_000_000),
                server_end_open: slot.finished.is_none()
                    && slot.local.is_some_and(|local| process::server_end_is_open(local, remote)),
            })
            .collect();
    }
}
