//! A replay: many clients read the same streams from their first message to their tail, all at once.

use anyhow::{Result, bail};

use super::{Bench, Wish, check, nanoseconds};
use crate::{
    adapter::{Ask, From},
    args::ReplayArgs,
    engine::Role,
    process,
    report::Report,
};

/// Runs the load.
pub(crate) fn run(args: &ReplayArgs) -> Result<Report> {
    let replay = if args.replay_events { Ask::Events } else { Ask::CatchUp };
    check(&args.load, &[replay])?;
    if args.preload.as_u64() == 0 {
        bail!("there is nothing to replay: --preload is 0");
    }
    let wish =
        Wish { preload: args.preload, preload_size: args.preload_size, replay, ..Wish::new(args.clients, From::Start) };
    let mut bench = Bench::open("replay", args, &args.load, wish)?;
    bench.engine.setup.window = args.clients;
    let mark = bench.mark()?;
    for _ in 0..args.clients {
        bench.engine.join(Role::Replay);
    }
    let deadline = process::now() + nanoseconds(args.replay_timeout);
    bench.engine.turn_until(deadline, |engine| engine.slots.iter().all(crate::engine::Slot::is_done))?;
    bench.look("end")?;
    bench.tell_replays();
    bench.tell_cpu(mark)?;
    bench.engine.leave();
    Ok(bench.close(None))
}
