//! Plays a script from its beginning to its end, and says what was wrong.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
    sync::Once,
    time::Duration,
};

use futures_util::future::{join, join_all};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    ending, liveness,
    oracle::{Breach, Rule, judge},
    readers::follow,
    script::{Actor, Deed, FaultKind, Script, Theme, Way, key_of},
    truth::Truth,
    world::World,
    writers::{Memory, Writer},
};

/// The longest that a script may take, of virtual time.
const TOO_LONG: Duration = Duration::from_secs(4 * 60 * 60);
/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// What came of playing a script.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// What was wrong.
    pub breaches: Vec<Breach>,
    /// How often each fault was met.
    pub faults: BTreeMap<FaultKind, u64>,
    /// How often each deed was done.
    pub deeds: BTreeMap<&'static str, u64>,
    /// How many deliveries readers were given.
    pub deliveries: u64,
    /// How many batches have landed.
    pub batches: u64,
    /// What came of it, by the log.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// What happened, line by line.
    pub trace: String,
}

thread_local! {
    /// What has panicked while a script is played on this thread; none while none is.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Plays a script.
///
/// # Panics
/// Where the machine has no room for another runtime.
#[must_use]
pub fn play(script: &Script) -> Played {
    listen_to_panics();
    PANICS.set(Some(Vec::new()));
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("the machine has room for one more runtime");
    let played = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(script))));
    let mut played = played.unwrap_or_default();
    drop(runtime);
    for what in PANICS.take().unwrap_or_default() {
        played.breaches.push(Breach { rule: Rule::Panic, what });
    }
    played
}

/// A task that panics must not pass for one that has nothing to say.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_played = PANICS.with_borrow_mut(|panics| match panics {
                Some(panics) => {
                    panics.push(info.to_string());
                    true
                }
                None => false,
            });
            if !is_played {
                usual(info);
            }
        }));
    });
}

async fn run(script: &Script) -> Played {
    let world = World::new(script);
    let keepers = join_all((0..world.pods()).map(|pod| world.keep_pods(pod)));
    tokio::select! {
        biased;
        _ = keepers => {}
        over = timeout(TOO_LONG, live(&world)) => {
            if over.is_err() {
                world.breach(Rule::Hangs, "it does not end".to_owned());
            }
        }
    }
    let truth = Truth::read(&world.store.journal());
    // What clients were told and the log says comes first: what else is wrong mostly follows from it.
    let mut breaches = judge(&world.history.borrow(), &truth);
    breaches.extend(world.breaches.take());
    Played {
        breaches,
        faults: world.faults.met(),
        deeds: world.deeds.take(),
        deliveries: world.deliveries(),
        batches: world.store.landed() as u64,
        outcomes: truth.outcomes(),
        trace: world.trace.text(),
    }
}

async fn live(world: &World) {
    let mut memories: Vec<Memory> = world.script.actors.iter().map(|actor| Memory::of(actor.stream)).collect();
    if world.script.theme == Theme::Liveness {
        liveness::run(world).await;
    } else {
        begin(world).await;
        let acts = memories.iter_mut().zip(&world.script.actors).enumerate();
        let acts = acts.map(|(who, (memory, actor))| act(world, who, memory, actor));
        let _done: (Vec<()>, ()) = join(join_all(acts), weather(world)).await;
    }
    ending::end_faults(world).await;
    let actors = world.script.actors.iter().zip(&mut memories).enumerate();
    let readers = actors.filter_map(|(who, (actor, memory))| way_of(actor).map(|way| (who, memory, way)));
    let mut readers: Vec<(usize, &mut Memory, Way)> = readers.collect();
    ending::settle(world, &mut readers).await;
    ending::shut_down(world).await;
}

fn way_of(actor: &Actor) -> Option<Way> {
    actor.steps.iter().find_map(|step| if let Deed::Follow(follow) = step.deed { Some(follow.way) } else { None })
}

/// Creates the streams that are there at first.
async fn begin(world: &World) {
    for (n, plan) in world.script.streams.iter().enumerate().filter(|(_, plan)| plan.at_first) {
        if plan.native {
            world.store.append_native(&key_of(n), ["<native 1>", "<native 2>"]);
            continue;
        }
        let mut memory = Memory::of(n);
        Writer { world, who: 700 + n, memory: &mut memory }.create(n, n).await;
    }
}

async fn act(world: &World, who: usize, memory: &mut Memory, actor: &Actor) {
    for step in &actor.steps {
        sleep(Duration::from_millis(step.wait_ms)).await;
        if let Deed::Follow(how) = step.deed {
            drop(follow(world, who, memory, step.pod, how).await);
        } else {
            Writer { world, who, memory }.take(step).await;
        }
    }
}

/// Lets go wrong what goes wrong, and looks at the memory now and then.
async fn weather(world: &World) {
    let began = Instant::now();
    let mut next_look = began + LOOK_EVERY;
    for fault in &world.script.faults {
        let at = began + Duration::from_millis(fault.at_ms);
        while next_look < at {
            sleep_until(next_look).await;
            world.check_memory();
            next_look += LOOK_EVERY;
        }
        sleep_until(at).await;
        world.carry_out(fault);
    }
}
