//! Starvation passes every check of safety. So here are scenarios with a clock and a count: who wants a turn gets it,
//! within a stated number of tries, whatever others do at the same time.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    history::{Created, End, Fate, Wrote},
    oracle::Rule,
    readers::follow,
    script::{Deed, Fault, FaultKind, Follow, Step, Way, key_of},
    world::World,
    writers::{Memory, Writer},
};

/// The most appends that one write takes beside a plain writer, and the longest that it takes.
const TRIES: u64 = 16;
const WITHIN: Duration = Duration::from_secs(8);
/// How often the plain writer writes.
const EVERY: Duration = Duration::from_millis(20);
/// For how long pods contend, with what pause between two claims of one; how many times as many claims one may get through
/// as another, and the most appends that one takes.
const SPAN: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(5);
const SHARE: u64 = 10;
const TRIES_A_CLAIM: u64 = 10;
/// The numbers of the clients that contend.
const CONTENDERS: usize = 50;
/// Within how long a reader learns that its stream is gone, once its session is back.
const TOLD_WITHIN_MS: u64 = 20_000;
/// The number of the client that writes all the time.
const BUSY: usize = 800;

/// Plays the scenario that the seed chooses.
pub async fn run(world: &World) {
    let mut memory = Memory::default();
    let created = Writer { world, who: 0, memory: &mut memory }.create(0, 0).await;
    if created != Created::Fresh {
        world.breach(Rule::Turn, format!("the stream was not created: {created:?}"));
        return;
    }
    match (world.script.seed / 9) % 3 {
        0 => beside_a_plain_writer(world).await,
        1 => pods_share(world).await,
        _ => readers_of_a_deleted_stream(world).await,
    }
}

/// Plain writes at 50 a second through one pod; a producer, a close and a delete at another get their turn.
async fn beside_a_plain_writer(world: &World) {
    world.did("scenes beside a plain writer");
    let busy = async {
        let mut memories: Vec<Memory> = (0..64).map(|_| Memory::default()).collect();
        loop {
            // Each write is a client of its own: none waits for another's ack.
            let writes = memories.iter_mut().enumerate().map(|(n, memory)| async move {
                sleep(EVERY * u32::try_from(n).unwrap_or(0)).await;
                let step = Step { wait_ms: 0, pod: 1, deed: Deed::Say { count: 1, size: 0, look: None } };
                Writer { world, who: BUSY + n, memory }.take(&step).await;
            });
            let _done: Vec<()> = join_all(writes).await;
        }
    };
    let wants = async {
        let mut memory = Memory::default();
        let mut writer = Writer { world, who: 1, memory: &mut memory };
        for n in 0..6 {
            in_turn(world, &format!("claim {n}"), writer.claim_at(0)).await;
        }
        in_turn(world, "a delete", async { writer.delete(0).await == Fate::Done }).await;
        in_turn(world, "a create", async { writer.create(0, 0).await == Created::Fresh }).await;
        in_turn(world, "a close", async { matches!(writer.close(0).await, Wrote::Landed { .. }) }).await;
    };
    tokio::select! {
        biased;
        () = busy => {}
        () = wants => {}
    }
}

/// One write of pod 0: done, in time, with few tries.
async fn in_turn(world: &World, what: &str, work: impl Future<Output = bool>) {
    let (pod, since) = (world.pod(0), Instant::now());
    let before = pod.link.tries();
    let done = timeout(WITHIN, work).await;
    let tries = pod.link.tries() - before;
    if done != Ok(true) || tries > TRIES {
        let took = since.elapsed();
        world.breach(Rule::Turn, format!("{what} beside a plain writer: {done:?} after {tries} tries and {took:?}"));
    }
}

/// Producers at all pods at the same time: none gets all the turns.
async fn pods_share(world: &World) {
    world.did("scenes of pods that contend");
    let until = Instant::now() + SPAN;
    let produce = |pod: usize| async move {
        let (mut memory, mut done) = (Memory::default(), 0);
        while Instant::now() < until {
            let since = Instant::now();
            let accepted = Writer { world, who: CONTENDERS + pod, memory: &mut memory }.claim_at(pod).await;
            if since.elapsed() > WITHIN {
                world.breach(Rule::Turn, format!("a claim at pod {pod} took {:?}", since.elapsed()));
            }
            done += u64::from(accepted);
            sleep(PAUSE).await;
        }
        (done, world.pod(pod).link.tries())
    };
    let done: Vec<(u64, u64)> = join_all((0..world.pods()).map(produce)).await;
    let (most, least) = (done.iter().map(|(done, _)| *done).max(), done.iter().map(|(done, _)| *done).min());
    world.trace.note("liveness", format_args!("claims accepted and appends of each pod: {done:?}"));
    if least == Some(0) || least.unwrap_or(0) * SHARE < most.unwrap_or(0) {
        world.breach(
            Rule::Turn,
            format!("pods that contend do not share: claims accepted and appends of each: {done:?}"),
        );
    }
    for (pod, (claims, tries)) in done.into_iter().enumerate() {
        if tries > (claims + 1) * TRIES_A_CLAIM {
            world.breach(Rule::Turn, format!("pod {pod} needed {tries} appends for {claims} claims"));
        }
    }
}

/// A stream is deleted while the sessions of its readers hang, are cut, or cannot be opened; maybe its name is created
/// again before they are back, or reaped a little later. All of its readers learn that it is gone.
async fn readers_of_a_deleted_stream(world: &World) {
    world.did("scenes of readers of a deleted stream");
    let dice = world.script.seed / 27;
    let delete = async {
        sleep(Duration::from_millis(1_000)).await;
        let kind = [FaultKind::SessionStall, FaultKind::SessionCut][usize::try_from(dice % 2).unwrap_or(0)];
        let fault = Fault { at_ms: 0, pod: 1, stream: 0, ms: 300 + (dice % 7) * 400, kind };
        world.carry_out(&fault);
        for _ in 0..dice % 3 {
            world.carry_out(&Fault { kind: FaultKind::SessionRefused, ..fault.clone() });
        }
        let mut memory = Memory::default();
        let mut writer = Writer { world, who: 1, memory: &mut memory };
        let fate = writer.delete(0).await;
        if fate != Fate::Done {
            world.breach(Rule::Turn, format!("the stream was not deleted: {fate:?}"));
        }
        if dice % 4 > 1 {
            world.store.settle_trims();
            world.carry_out(&Fault { kind: FaultKind::Reap, ..fault.clone() });
        }
        if dice % 4 == 1 {
            writer.create(0, 0).await;
        }
    };
    let readers =
        [Way::Task, Way::Seat, Way::Poll, Way::Task, Way::Seat].into_iter().enumerate().map(|(n, way)| async move {
            let how = Follow { way, from_now: n > 2, takes: usize::MAX, patience_ms: TOLD_WITHIN_MS, stall_ms: 0 };
            let mut memory = Memory::default();
            let end = follow(world, 10 + n, &mut memory, n, how).await;
            if matches!(end, End::Left | End::Closed) {
                world.breach(Rule::Ends, format!("{way:?} {n} of {} is told {end:?} where it was deleted", key_of(0)));
            }
        });
    let _done: ((), Vec<()>) = futures_util::future::join(delete, join_all(readers)).await;
}
