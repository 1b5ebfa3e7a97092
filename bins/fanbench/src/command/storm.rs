//! Storms: all readers are reset at once, and come back at once, each at its own offset, while appends go on.

use anyhow::Result;

use super::{Bench, Wish, ask_of, check, nanoseconds};
use crate::{
    args::StormArgs,
    engine::Role,
    figures::Latencies,
    process,
    report::{Report, Storm},
    schedule::Schedule,
};

/// Runs the load.
pub(crate) fn run(args: &StormArgs) -> Result<Report> {
    check(&args.load, &[ask_of(&args.load)])?;
    let wish = Wish {
        preload: args.preload.preload,
        preload_size: args.preload.preload_size,
        ..Wish::new(args.follow.readers, args.follow.from)
    };
    let mut bench = Bench::open("storm", args, &args.load, wish)?;
    if !bench.join(Role::Live, args.follow.readers)? {
        return Ok(bench.close(None));
    }
    bench.look("connected")?;
    let begin = process::now();
    bench.engine.figures.measure(begin, u64::MAX);
    bench.engine.follow(Schedule::new(args.follow.rate, args.load.streams as usize, begin, u64::MAX));
    // Everybody has had a message, and an offset with it, before the first storm.
    let preload = bench.engine.setup.preload;
    let deadline = process::now() + nanoseconds(args.load.connect_timeout);
    let receiving = bench.engine.turn_until(deadline, |engine| {
        engine.slots.iter().filter(|slot| slot.is_live()).all(|slot| slot.reader.seen() > preload)
    })?;
    if !receiving {
        bench.engine.failures.add(|| "not every reader had a message before the storm".to_owned());
        return Ok(bench.close(None));
    }
    for _ in 0..args.storms {
        storm(&mut bench)?;
        bench.engine.turn_for(args.gap)?;
    }
    bench.settle()?;
    bench.look("end")?;
    bench.engine.leave();
    let window = std::time::Duration::from_nanos(process::now() - begin);
    Ok(bench.close(Some(window)))
}

fn storm(bench: &mut Bench) -> Result<()> {
    let readers = bench.engine.slots.iter().filter(|slot| slot.is_live()).count();
    bench.engine.back = Latencies::new();
    let begin = process::now();
    bench.engine.storm();
    let deadline = begin + nanoseconds(bench.load.connect_timeout);
    let all = bench.engine.turn_until(deadline, |engine| engine.away == 0)?;
    let back = bench.engine.back.percentiles();
    if !all {
        let away = bench.engine.away;
        bench.engine.failures.add(|| format!("{away} of {readers} readers were not back in time after a storm"));
    }
    // The slowest reader's own time, not that of the turn in which it was noticed.
    let all_back_ms = (all && back.count > 0).then_some(back.max_us / 1000);
    bench.report.storms.push(Storm { readers, all_back_ms, back });
    Ok(())
}
