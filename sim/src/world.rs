//! One store, its pods, and all that is written down of them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use prometheus::Registry;
use tailwater_fanout::{Chance, Config, Gateway, MachineClock, Metrics, Seed, ShardMetrics};
use tailwater_log::{Command, Entry, Kind, NewRecord, Record};
use tailwater_protocol::ContentType;
use tailwater_testkit::{ScriptedUpstream, Settings, Trims, fault::Outage};
use tailwater_upstream::{Append, StreamKey};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    desk::Desk,
    faults::Faults,
    history::{Told, What},
    link::{Link, LinkSeed},
    oracle::{Breach, Rule},
    script::{Fault, FaultKind, PodPlan, Script, key_of},
    trace::{Trace, brief},
};

/// Longer than anything may take, whatever goes wrong.
const LONG: Duration = Duration::from_secs(300);
/// What all rings of a pod may hold together, as a multiple of one.
const RINGS: usize = 2;
/// What readers of a pod that are behind may have in hand together.
const WINDOWS: usize = 200_000;

/// What a message takes in a ring at the most, beside its bytes, which are there twice: it may be a batch of its own.
const MESSAGE_COST: usize = 256;

/// How long after its end a stream is removed by the store, at the least. In S2 that is a day, and it must be longer than any
/// pod can think that the stream lives: that another log has its name now cannot be told from a log of the same length.
const REAPED_AFTER: Duration = Duration::from_secs(10);

/// Everything.
pub struct World {
    /// What is played.
    pub script: Script,
    /// The store.
    pub store: ScriptedUpstream,
    /// What goes wrong.
    pub faults: Arc<Faults>,
    /// What happened.
    pub trace: Arc<Trace>,
    /// What clients asked and were told.
    pub history: RefCell<Vec<Told>>,
    /// What was seen to be wrong while it was played.
    pub breaches: RefCell<Vec<Breach>>,
    /// How often each kind of deed was done.
    pub deeds: RefCell<BTreeMap<&'static str, u64>>,
    began: Instant,
    pods: Vec<RefCell<Rc<Pod>>>,
    /// Rings where another pod has taken one's place.
    replaced: Vec<Notify>,
    /// Those that were killed, or asked to end.
    retired: RefCell<Vec<Rc<Pod>>>,
    next_pod: Cell<u64>,
    /// The last `Stream-Seq` of a client.
    pub numbers: Cell<u64>,
}

/// A running gateway, with all that it was given.
pub struct Pod {
    /// The gateway.
    pub gateway: Gateway,
    /// Its way to the store.
    pub link: Arc<Link>,
    /// Its delivery shard.
    pub desk: Desk,
    registry: Registry,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    dead: CancellationToken,
}

/// What became of a request to a pod.
pub enum Asked<T> {
    /// The answer.
    Answer(T),
    /// The pod was killed before it answered.
    Cut,
}

impl World {
    /// A world at its beginning. Must be called within a paused runtime.
    #[must_use]
    pub fn new(script: &Script) -> Self {
        let trims = if script.late_trims { Trims::WhenSettled } else { Trims::AtOnce };
        let store = ScriptedUpstream::new(Settings { trims, keeps_journal: true, ..Settings::default() });
        let mut world = Self {
            script: script.clone(),
            store,
            faults: Arc::default(),
            trace: Arc::new(Trace::begin()),
            history: RefCell::default(),
            breaches: RefCell::default(),
            deeds: RefCell::default(),
            began: Instant::now(),
            pods: Vec::new(),
            replaced: script.pods.iter().map(|_| Notify::new()).collect(),
            retired: RefCell::default(),
            next_pod: Cell::new(0),
            numbers: Cell::new(0),
        };
        for plan in &script.pods {
            if plan.skew_ms != 0 {
                world.did("pods with a wrong clock");
            }
            if plan.next_version {
                world.did("pods of the next version");
            }
        }
        world.pods = (0..script.pods.len()).map(|n| RefCell::new(world.start_pod(n, script.pods[n]))).collect();
        world
    }

    /// How many pods there are.
    #[must_use]
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// The pod that runs under a number now.
    #[must_use]
    pub fn pod(&self, number: usize) -> Rc<Pod> {
        Rc::clone(&self.pods[number % self.pods.len()].borrow())
    }

    /// How long the world has been played.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A pod that knows nothing, beside the others.
    #[must_use]
    pub fn fresh_pod(&self) -> Rc<Pod> {
        let plan = PodPlan { ring_bytes: 1, page_bytes: 4_000, next_version: false, ..self.script.pods[0] };
        self.start_pod(self.pods.len(), plan)
    }

    fn start_pod(&self, number: usize, plan: PodPlan) -> Rc<Pod> {
        self.next_pod.set(self.next_pod.get() + 1);
        let seed = self.script.seed.wrapping_mul(1_000).wrapping_add(self.next_pod.get());
        let dead = CancellationToken::new();
        let link = Arc::new(Link::new(LinkSeed {
            pod: number,
            store: self.store.clone(),
            faults: Arc::clone(&self.faults),
            trace: Arc::clone(&self.trace),
            latency_ms: self.script.latency_ms,
            next_version: plan.next_version,
            seed,
            dead: dead.clone(),
        }));
        let clock = self.store.clock().clone();
        let config = Config {
            ring_bytes: plan.ring_bytes,
            ring_total_bytes: plan.ring_bytes * RINGS,
            page_bytes: plan.page_bytes,
            history_bytes: plan.history_bytes,
            window_bytes: 4_000,
            window_budget_bytes: WINDOWS,
            linger: Duration::from_millis(plan.linger_ms),
            idle: Duration::from_millis(plan.idle_ms),
            native_content_type: text(),
            chance: Chance::seeded(seed),
            machine_clock: MachineClock::new(move || clock.now_ms().saturating_add_signed(plan.skew_ms)),
            ..Config::default()
        };
        let (registry, tracker, shutdown) = (Registry::new(), TaskTracker::new(), CancellationToken::new());
        let metrics = Metrics::register(&registry).expect("an empty registry takes all metrics");
        let shards = ShardMetrics::register(&registry).expect("an empty registry takes all metrics");
        let upstream = Arc::clone(&link);
        let gateway =
            Gateway::new(Seed { upstream, config, metrics, tracker: tracker.clone(), shutdown: shutdown.clone() });
        Rc::new(Pod { gateway, link, desk: Desk::new(shards), registry, tracker, shutdown, dead })
    }

    /// Kills a pod; another takes its place at once.
    pub fn kill(&self, number: usize) {
        self.trace.note(format_args!("pod {number}"), "is killed");
        self.pod(number).dead.cancel();
        self.replace(number);
    }

    /// Asks a pod to end; another takes its place at once.
    pub fn drain(&self, number: usize) {
        self.trace.note(format_args!("pod {number}"), "is asked to end");
        self.pod(number).end();
        self.replace(number);
    }

    fn replace(&self, number: usize) {
        let pod = self.start_pod(number, self.script.pods[number]);
        let old = self.pods[number].replace(pod);
        self.replaced[number].notify_one();
        old.end();
        if old.dead.is_cancelled() {
            old.desk.abandon();
        }
        self.retired.borrow_mut().push(old);
    }

    /// All pods that ever were, but for fresh ones.
    #[must_use]
    pub fn all_pods(&self) -> Vec<Rc<Pod>> {
        let mut all = self.retired.take();
        all.extend(self.pods.iter().map(|pod| Rc::clone(&pod.borrow())));
        all
    }

    /// How many deliveries readers were given.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        let given = |told: &Told| {
            if let What::Followed(followed) = &told.what { followed.given.len() as u64 } else { 0 }
        };
        self.history.borrow().iter().map(given).sum()
    }

    /// Starts another pod whenever one was killed between two writes; never ends.
    pub async fn keep_pods(&self, number: usize) {
        loop {
            let pod = self.pod(number);
            tokio::select! {
                biased;
                () = self.replaced[number].notified() => {}
                () = pod.dead.cancelled() => self.replace(number),
            }
        }
    }

    /// Asks whichever pod runs under a number now.
    pub async fn ask<T>(&self, number: usize, ask: impl AsyncFnOnce(Gateway) -> T) -> Asked<T> {
        let pod = self.pod(number);
        tokio::select! {
            biased;
            () = pod.dead.cancelled() => {
                // Whoever comes back at once finds the next one.
                sleep(Duration::from_millis(5)).await;
                Asked::Cut
            }
            answer = timeout(LONG, ask(pod.gateway.clone())) => match answer {
                Ok(answer) => Asked::Answer(answer),
                Err(_) => {
                    self.breach(Rule::Hangs, format!("pod {number} does not answer for {} s", LONG.as_secs()));
                    Asked::Cut
                }
            }
        }
    }

    /// Notes what a client was told.
    pub fn tell(&self, who: usize, key: &StreamKey, from: usize, what: What) {
        let to = self.store.landed();
        let short = brief(&what);
        self.trace.note(format_args!("client {who}"), format_args!("{key}, {from}..{to}: {short}"));
        self.history.borrow_mut().push(Told { who, key: key.clone(), from, to, what });
    }

    /// Counts a deed.
    pub fn did(&self, deed: &'static str) {
        *self.deeds.borrow_mut().entry(deed).or_default() += 1;
    }

    /// Something is wrong.
    pub fn breach(&self, rule: Rule, what: String) {
        self.trace.note("oracle", format_args!("{rule:?}: {what}"));
        self.breaches.borrow_mut().push(Breach { rule, what });
    }

    /// Carries out a fault whose time has come.
    pub fn carry_out(&self, fault: &Fault) {
        let key = key_of(fault.stream);
        let later = Duration::from_millis(fault.ms);
        self.trace.note("fault", format_args!("{:?} of {key}, pod {}, {} ms", fault.kind, fault.pod, fault.ms));
        let met = match fault.kind {
            FaultKind::SessionCut => self.store.cut_sessions(&key) > 0,
            FaultKind::SessionStall => {
                let stalled = self.store.stall_sessions(&key);
                let store = self.store.clone();
                tokio::spawn(async move {
                    sleep(later).await;
                    store.resume_sessions(&key);
                });
                stalled > 0
            }
            FaultKind::OutageRefusing | FaultKind::OutageSilent => {
                let is_silent = fault.kind == FaultKind::OutageSilent;
                self.take_the_store_away(if is_silent { Outage::Silent } else { Outage::Refusing }, later);
                true
            }
            FaultKind::ClockJump => {
                self.store.clock().advance(later);
                true
            }
            FaultKind::TrimsSettle => {
                self.store.settle_trims();
                self.script.late_trims
            }
            FaultKind::Reap => {
                let (store, faults) = (self.store.clone(), Arc::clone(&self.faults));
                tokio::spawn(async move {
                    sleep(REAPED_AFTER).await;
                    if reap(&store, &key) {
                        faults.count(FaultKind::Reap);
                    }
                });
                false
            }
            FaultKind::Drain => {
                self.drain(fault.pod);
                true
            }
            FaultKind::Kill => {
                self.kill(fault.pod);
                true
            }
            FaultKind::KillAfterTurn => {
                self.faults.arm(fault.clone());
                self.faults.arm(Fault { kind: FaultKind::AckLost, ..fault.clone() });
                false
            }
            FaultKind::SessionRefused
            | FaultKind::AckLost
            | FaultKind::AckLate
            | FaultKind::AppendLate
            | FaultKind::AppendLaterStill
            | FaultKind::AppendTwice
            | FaultKind::AppendNotSent
            | FaultKind::Busy
            | FaultKind::DeletionPending
            | FaultKind::ReadFails
            | FaultKind::TailLate
            | FaultKind::TailFails
            | FaultKind::ListFails
            | FaultKind::KillBeforeForkOpen
            | FaultKind::KillBeforeListedOpen
            | FaultKind::KillBeforeUnref
            | FaultKind::KillBeforeTrim
            | FaultKind::KillBeforeCommit => {
                self.faults.arm(fault.clone());
                false
            }
        };
        if met {
            self.faults.count(fault.kind);
        }
    }

    fn take_the_store_away(&self, outage: Outage, for_a_while: Duration) {
        self.store.set_outage(outage);
        let store = self.store.clone();
        tokio::spawn(async move {
            sleep(for_a_while).await;
            store.set_outage(Outage::Over);
        });
    }

    /// Whether each pod keeps its memory within its budget. Rings do without exception; a window begins with what comes at
    /// once however large, which may be all that was ever written.
    pub fn check_memory(&self) {
        let all = self.cost_since(0);
        for (n, plan) in self.script.pods.iter().enumerate() {
            self.check_gauge(n, "tailwater_ring_bytes", plan.ring_bytes * RINGS);
            self.check_gauge(n, "tailwater_history_bytes", plan.history_bytes);
            self.check_gauge(n, "tailwater_window_bytes", WINDOWS + all);
        }
    }

    /// Whether a pod's rings have let go of what was there before a moment. Each of them was given something since, so
    /// only of that its newest batch can be, which may be larger than a ring is otherwise.
    pub fn check_rings(&self, n: usize, since: usize) {
        let n = n % self.pods.len();
        self.check_gauge(n, "tailwater_ring_bytes", self.rings_of(&self.script.pods[n]) + self.cost_since(since));
    }

    fn check_gauge(&self, n: usize, name: &str, limit: usize) {
        let families = self.pod(n).registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let value = family.map_or(0.0, |family| family.get_metric()[0].get_gauge().value());
        if value > limit as f64 {
            self.breach(Rule::OverBudget, format!("{name} of pod {n} is {value}, and may be {limit}"));
        }
    }

    /// What a pod's rings may hold but for their newest batches.
    fn rings_of(&self, plan: &PodPlan) -> usize {
        plan.ring_bytes * self.script.streams.len().min(RINGS)
    }

    /// What the messages take in rings that have landed since a moment.
    fn cost_since(&self, since: usize) -> usize {
        self.store.journal()[since..].iter().flat_map(|landed| &landed.records).map(cost).sum()
    }
}

impl Pod {
    /// Begins to end it.
    pub fn end(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.desk.close();
    }

    /// Ends when all of its tasks have.
    pub async fn ended(&self) {
        self.tracker.wait().await;
    }

    /// Ends when the pod is killed.
    pub async fn killed(&self) {
        self.dead.cancelled().await;
    }
}

/// What a record takes in a ring: nothing, unless it is a message.
fn cost(record: &Record) -> usize {
    let bytes = match Entry::decode(record).map(|entry| entry.kind) {
        Ok(Kind::Message(_)) => record.body.len(),
        Ok(Kind::Commit(commit)) => usize::try_from(commit.bytes).unwrap_or(usize::MAX / 4),
        Ok(_) | Err(_) => return 0,
    };
    MESSAGE_COST + 2 * bytes
}

/// The store removes a stream that is gone, and of which nothing is left but trims, as S2 does once these have gone too.
fn reap(store: &ScriptedUpstream, key: &StreamKey) -> bool {
    let (records, token) = (store.records(key), store.token(key).unwrap_or_default());
    let is_empty = records.iter().all(|record| matches!(record.command(), Some(Command::Trim(_))));
    if records.is_empty() || !is_empty || !token.starts_with("g.") {
        return false;
    }
    drop(store.land(key, Append::new(vec![NewRecord::trim(u64::MAX)])));
    store.settle_trims();
    store.reap(key)
}

/// The content type of all streams.
///
/// # Panics
/// Never: it is one.
#[must_use]
pub fn text() -> ContentType {
    ContentType::parse("text/plain").expect("it is a content type")
}
