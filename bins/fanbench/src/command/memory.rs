//! Memory per idle reader: readers join in steps, each gets a message, and the server's memory is looked at.

use anyhow::{Result, bail};

use super::{Bench, Wish, ask_of, check, nanoseconds};
use crate::{
    adapter::From,
    args::MemoryArgs,
    engine::Role,
    process,
    report::{MemoryAt, Report, Slope},
};

/// Runs the load.
pub(crate) fn run(args: &MemoryArgs) -> Result<Report> {
    check(&args.load, &[ask_of(&args.load)])?;
    if args.load.pid.is_empty() {
        bail!("whose memory? --pid says");
    }
    let rising = args.steps.windows(2).all(|pair| pair[0] < pair[1]);
    let (Some(&most), true) = (args.steps.last(), rising) else { bail!("steps are numbers of readers that rise") };
    let mut bench = Bench::open("memory", args, &args.load, Wish::new(most + args.warm, From::Now))?;
    if args.warm > 0 {
        bench.report.memory.clear();
        if !join_and_tell(&mut bench, args, args.warm)? {
            return Ok(bench.close(None));
        }
        bench.engine.leave();
        bench.engine.turn_for(args.rest)?;
        bench.look("start")?;
    }
    let mut there = 0;
    for &step in &args.steps {
        // Readers that join later begin behind what has been sent.
        if !join_and_tell(&mut bench, args, step - there)? {
            return Ok(bench.close(None));
        }
        there = step;
        bench.engine.turn_for(args.rest)?;
        bench.look(&format!("step {step}"))?;
    }
    bench.settle()?;
    bench.engine.leave();
    bench.engine.turn_for(args.after)?;
    bench.look("left")?;
    bench.report.slope = slope(&bench.report.memory);
    Ok(bench.close(None))
}

/// More readers, and a message for each that is there.
fn join_and_tell(bench: &mut Bench, args: &MemoryArgs, readers: usize) -> Result<bool> {
    if !bench.join(Role::Live, readers)? {
        return Ok(false);
    }
    bench.engine.publish();
    let deadline = process::now() + nanoseconds(args.load.connect_timeout);
    let all = bench.engine.turn_until(deadline, |engine| engine.writers_idle() && engine.all_caught_up())?;
    if !all {
        bench.engine.tell_missing();
    }
    Ok(all)
}

/// The slope between the first and the last step. The first look is before any reader, the last after all.
fn slope(looks: &[MemoryAt]) -> Option<Slope> {
    let [start, steps @ .., left] = looks else { return None };
    let (first, last) = (steps.first()?, steps.last()?);
    // With one step, what the first reader costs is in it too.
    let first = if steps.len() == 1 { start } else { first };
    let readers = (last.readers as f64 - first.readers as f64).max(1.0);
    let each = |of: fn(&MemoryAt) -> u64| (of(last) as f64 - of(first) as f64) / readers;
    Some(Slope {
        from: first.readers,
        to: last.readers,
        bytes_per_reader: each(|look| look.rss_anon),
        kernel_bytes_per_reader: each(|look| look.sockets),
        after_ratio: left.rss_anon as f64 / start.rss_anon.max(1) as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(readers: usize, rss_anon: u64) -> MemoryAt {
        MemoryAt { at: String::new(), readers, rss_anon, anonymous: 0, sockets: rss_anon * 2, processes: Vec::new() }
    }

    #[test]
    fn the_slope_leaves_out_what_the_first_step_cost() {
        let looks = [look(0, 1000), look(10, 5000), look(20, 6000), look(30, 7000), look(0, 1100)];
        let slope = slope(&looks).expect("there are steps");
        assert_eq!((slope.from, slope.to), (10, 30));
        assert!((slope.bytes_per_reader - 100.0).abs() < 1e-9);
        assert!((slope.kernel_bytes_per_reader - 200.0).abs() < 1e-9);
        assert!((slope.after_ratio - 1.1).abs() < 1e-9);
    }

    #[test]
    fn one_step_is_measured_from_the_start() {
        let slope = slope(&[look(0, 1000), look(10, 5000), look(0, 1000)]).expect("there is a step");
        assert_eq!((slope.from, slope.to), (0, 10));
        assert!((slope.bytes_per_reader - 400.0).abs() < 1e-9);
    }
}
