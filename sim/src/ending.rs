//! The end of a world: faults are over, every stream ends, and everything has to come to rest.
//!
//! Here it shows whether anybody waits for ever, whether all pods and all ways to a state agree, and whether what crashes
//! have left behind is cleared away.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use futures_util::future::{join, join_all};
use tailwater_fanout::{Gateway, Head, OpError};
use tailwater_log::{Activation, Found, MAX_BATCH_BYTES, Record, Step, StreamState};
use tailwater_testkit::fault::Outage;
use tailwater_upstream::StreamKey;
use tokio::time::{sleep, timeout};

use crate::{
    history::{End, Fate, Why, Wrote},
    oracle::Rule,
    readers::follow,
    script::{Deed, Follow, Step as Deeds, Theme, Way, key_of},
    truth::Truth,
    world::{Pod, World},
    writers::{Memory, Writer},
};

/// How long what was sent before may still arrive.
const LATE: Duration = Duration::from_secs(12);
/// Within how many tries, and how long for each, a stream is closed or deleted once nothing goes wrong any more.
const TRIES: usize = 8;
const ONE_TRY: Duration = Duration::from_secs(20);
/// How long a reader may wait for the end of its stream.
const TOLD_WITHIN_MS: u64 = 30_000;
/// How long pods may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(120);
/// How many hours are swept at the end, one after the other.
const SWEEPS: usize = 5;
/// The numbers of the clients that write at the end, and how much each of them does.
const FILLER: usize = 950;
const FILLS: usize = 2;
/// The number of the client that looks at the end.
const LAST_CLIENT: usize = 900;

/// Nothing goes wrong any more.
pub async fn end_faults(world: &World) {
    world.trace.note("fault", "no more");
    world.faults.disarm();
    world.store.set_outage(Outage::Over);
    for n in 0..world.script.streams.len() {
        world.store.resume_sessions(&key_of(n));
    }
    sleep(LATE).await;
}

/// Ends every stream, with all who follow it, and looks whether all agree on what is left.
pub async fn settle(world: &World, readers: &mut [(usize, &mut Memory, Way)]) {
    for pod in 0..world.pods() {
        fill_rings(world, pod).await;
    }
    let follows = readers.iter_mut().map(|(who, memory, way)| to_the_end(world, *who, memory, *way));
    let ends = (0..world.script.streams.len()).map(|stream| end_stream(world, stream));
    let _all: (Vec<()>, Vec<()>) = join(join_all(follows), join_all(ends)).await;
    // What the end of one stream leaves to be done in another is done a little later.
    sleep(LATE).await;
    world.store.settle_trims();
    world.check_memory();
    let fresh = world.fresh_pod();
    for stream in 0..world.script.streams.len() {
        look(world, stream).await;
        let key = key_of(stream);
        compare(world, &key, &fresh.gateway).await;
        compare_folds(world, &key);
    }
    fresh.end();
    if matches!(world.script.theme, Theme::Lives | Theme::Forks | Theme::Expiry) {
        sweep(world).await;
    }
    look_for_remains(world);
}

/// Nobody follows anything now. A few more messages in each stream, and the rings of the pod that has brought them there
/// hold no more than they may, whatever they were filled with before.
async fn fill_rings(world: &World, pod: usize) {
    let since = world.store.landed();
    for stream in 0..world.script.streams.len() {
        // A first write would open a native stream, and what has no end or no place for more keeps what it was filled with.
        if world.script.streams[stream].native {
            return;
        }
        let mut memory = Memory::of(stream);
        let mut writer = Writer { world, who: FILLER + 10 * pod + stream, memory: &mut memory };
        for _ in 0..FILLS {
            if !matches!(writer.say(pod).await, Wrote::Landed { .. }) {
                return;
            }
        }
    }
    world.did("rings filled to their limits");
    world.check_rings(pod, since);
}

async fn to_the_end(world: &World, who: usize, memory: &mut Memory, way: Way) {
    let how = Follow { way, from_now: false, takes: usize::MAX, patience_ms: TOLD_WITHIN_MS, stall_ms: 0 };
    for pod in who..who + 20 {
        match follow(world, who, memory, pod, how).await {
            End::Closed | End::Gone | End::Refused(Why::NotFound | Why::SoftDeleted) => return,
            End::Left => {
                let key = key_of(memory.stream);
                return world.breach(Rule::Ends, format!("client {who} waits for the end of {key} for ever"));
            }
            End::Reset(_) | End::Cut | End::Refused(_) => sleep(Duration::from_millis(100)).await,
        }
    }
    world.breach(Rule::Ends, format!("client {who} never comes to the end of {}", key_of(memory.stream)));
}

async fn end_stream(world: &World, stream: usize) {
    sleep(Duration::from_millis(500)).await;
    let deletes = matches!(world.script.theme, Theme::Lives | Theme::Forks) && stream.is_multiple_of(2);
    let mut memory = Memory::of(stream);
    for pod in 0..TRIES {
        let writer = Writer { world, who: LAST_CLIENT, memory: &mut memory };
        let done = async {
            if deletes {
                return matches!(
                    writer.delete(pod).await,
                    Fate::Done | Fate::Refused(Why::NotFound | Why::SoftDeleted)
                );
            }
            match writer.close(pod).await {
                Wrote::Landed { .. } | Wrote::AlreadyClosed => true,
                Wrote::Refused(Why::NotFound | Why::SoftDeleted) => true,
                Wrote::Refused(_) | Wrote::Duplicate | Wrote::Unknown => false,
            }
        };
        match timeout(ONE_TRY, done).await {
            Ok(true) => return,
            Ok(false) => sleep(Duration::from_millis(100)).await,
            Err(_) => world.breach(Rule::Turn, format!("{} does not end within {ONE_TRY:?}", key_of(stream))),
        }
    }
    world.breach(Rule::Turn, format!("{} does not end within {TRIES} tries", key_of(stream)));
}

/// Every pod says what it thinks of a stream; the oracle knows better.
async fn look(world: &World, stream: usize) {
    for pod in 0..world.pods() {
        let mut memory = Memory::of(stream);
        for deed in [Deed::Head, Deed::Read] {
            let step = Deeds { wait_ms: 0, pod, deed };
            Writer { world, who: LAST_CLIENT, memory: &mut memory }.take(&step).await;
        }
    }
}

/// A pod that knows nothing says the same as the others.
async fn compare(world: &World, key: &StreamKey, fresh: &Gateway) {
    for n in 0..world.pods() {
        // What it says may change in between, by what a sweep has just found.
        let before = fresh.head(key).await;
        let found = world.pod(n).gateway.head(key).await;
        let expected = fresh.head(key).await;
        let is_same = |expected: &Result<Head, OpError>| match (expected, &found) {
            (Ok(one), Ok(two)) => one == two,
            (Err(one), Err(two)) => Why::of(one) == Why::of(two),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        };
        if !is_same(&before) && !is_same(&expected) {
            world.breach(Rule::State, format!("pod {n} says {found:?} of {key}, and a fresh one {expected:?}"));
        }
    }
}

/// What activation makes of the log that is left is what folding all of it makes.
fn compare_folds(world: &World, key: &StreamKey) {
    let journal = world.store.journal();
    let of_key: Vec<_> = journal.iter().filter(|landed| landed.key == *key).collect();
    let Some(log) = of_key.last().map(|landed| landed.log) else { return };
    // A log that was reaped is no more, whatever stands under its name now.
    if world.store.tail(key).is_none_or(|tail| tail.seq == 0) {
        return;
    }
    let mut folded = StreamState::default();
    for record in of_key.iter().filter(|landed| landed.log == log).flat_map(|landed| &landed.records) {
        if let Err(error) = folded.apply(record) {
            return world.breach(Rule::Log, format!("{key} cannot be folded: {error}"));
        }
    }
    let Some(found) = activate(world, key) else {
        return world.breach(Rule::Log, format!("{key} cannot be activated"));
    };
    let same =
        found.presence() == folded.presence() && found.token() == folded.token() && found.next() == folded.next();
    if !same || found.incarnation().is_some() && found != folded {
        let (found, folded) = first_difference(&format!("{found:?}"), &format!("{folded:?}"));
        world.breach(Rule::State, format!("{key} is activated with {found}, and all of its log folds to {folded}"));
    }
}

/// Where two texts begin to differ, with a little of what stands before.
fn first_difference(one: &str, two: &str) -> (String, String) {
    let same = one.chars().zip(two.chars()).take_while(|(one, two)| one == two).count();
    let near = |text: &str| text.chars().skip(same.saturating_sub(30)).take(60).collect();
    (near(one), near(two))
}

fn activate(world: &World, key: &StreamKey) -> Option<StreamState> {
    let (records, tail) = (world.store.records(key), world.store.tail(key)?);
    let mut activation = Activation::default();
    let mut step = activation.start();
    for _ in 0..10_000 {
        let found = match step {
            Step::Done(activated) => return Some(activated.state),
            Step::ReadLast(back) => page(&records, tail.seq.saturating_sub(back), back),
            Step::ReadFrom(seq) => page(&records, seq, 1_000),
            Step::ProbeToken => {
                let token = world.store.token(key)?;
                Found::Token { token, tail: tail.seq, clock_ms: tail.timestamp }
            }
        };
        step = activation.on(found).ok()?;
    }
    None
}

fn page(records: &[Record], from: u64, limit: u64) -> Found {
    let (mut bytes, limit) = (0, usize::try_from(limit).unwrap_or(1_000).min(1_000));
    let of_page = records.iter().filter(|record| record.seq >= from).take(limit).take_while(|record| {
        bytes += record.metered_bytes();
        bytes <= MAX_BATCH_BYTES
    });
    Found::Records(of_page.cloned().collect())
}

/// Hours pass, and pods look after what nobody asks for.
async fn sweep(world: &World) {
    for n in 0..SWEEPS {
        world.store.clock().advance(Duration::from_secs(2 * 60 * 60));
        for pod in 0..world.pods() {
            // An ack tells each of them the time.
            let mut memory = Memory::of(0);
            let key = StreamKey::new("p", &format!("clock {n} {pod}"));
            Writer { world, who: LAST_CLIENT, memory: &mut memory }.create_plain(pod, &key).await;
        }
        sleep(Duration::from_secs(65)).await;
    }
    let truth = Truth::read(&world.store.journal());
    for life in &truth.lives {
        let Some(open) = &life.open else { continue };
        let (key, incarnation) = (&life.key, open.incarnation);
        if life.gone.is_none() && life.expires_ms().is_some() {
            world.breach(Rule::Ends, format!("{key} ({incarnation:x}) has outlived its lifetime"));
        }
        let is_needed = |fork: &u64| {
            let of = |life: &&crate::truth::Life| life.open.as_ref().is_some_and(|open| open.incarnation == *fork);
            truth.lives.iter().find(of).is_some_and(|fork| fork.gone.is_none() || !fork.references.is_empty())
        };
        if life.gone.is_some() && !life.references.iter().all(is_needed) {
            world.breach(Rule::Ends, format!("{key} ({incarnation:x}) is kept for a fork that is no more"));
        }
    }
}

/// What is gone, and needed by no fork, is cleared away: nothing of it is left but what S2 is told by.
fn look_for_remains(world: &World) {
    world.store.settle_trims();
    let journal = world.store.journal();
    let truth = Truth::read(&journal);
    let keys: BTreeSet<&StreamKey> = truth.lives.iter().map(|life| &life.key).collect();
    for key in keys {
        // What was reaped is no more; what its name stands for now is judged.
        let Some(log) = journal.iter().rfind(|landed| landed.key == *key).map(|landed| landed.log) else { continue };
        let newest = truth.lives.iter().rfind(|life| life.log == log);
        if newest.is_none_or(|life| life.gone.is_none() || !life.references.is_empty()) {
            continue;
        }
        world.did("streams looked at for remains");
        let left = world.store.records(key).iter().filter(|record| record.command().is_none()).count();
        if left > 0 {
            world.breach(Rule::Ends, format!("{key} is gone and needed by nobody, and {left} records of it are left"));
        }
    }
}

/// Ends all pods, and sees that nothing of them is left.
pub async fn shut_down(world: &World) {
    let pods: Vec<Rc<Pod>> = world.all_pods();
    for pod in &pods {
        pod.end();
    }
    if timeout(ENDS_WITHIN, join_all(pods.iter().map(|pod| pod.ended()))).await.is_err() {
        world.breach(Rule::Ends, "a pod that was told to end goes on".to_owned());
    }
    drop(pods);
    sleep(Duration::from_millis(1)).await;
    let open = world.store.counts().sessions_open;
    if open > 0 {
        world.breach(Rule::Ends, format!("{open} read sessions are open at the end"));
    }
}
