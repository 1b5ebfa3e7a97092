//! The actor: the one owner of a stream on this pod.
//!
//! It holds the folded state, the ring, the doorbell, the read session while there are live readers, and what waits to
//! be written. Everything that takes time is a future that it polls beside its mailbox, and that gives its result back as
//! a [`Done`]; so the actor itself never waits, and one turn of it is one synchronous step on its state.
//!
//! | module | what it does |
//! |---|---|
//! | `ingest` | folds records, from the session, from acks and from gap reads alike, each once, by sequence number |
//! | `present` | makes sure that an answer speaks of the present: tail checks, gaps, lifetimes |
//! | `writes` | group commit: a few plain batches in flight, or one of anything else; what waits is decided on what they bring |
//! | `live` | readers, and the session that feeds them |

mod ingest;
mod live;
mod present;
mod writes;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tailwater_log::{Activated, NativeDefaults, Place, Reference, StreamName, StreamState, wants_trim};
use tailwater_protocol::ReadOffset;
use tailwater_upstream::{StreamKey, Upstream};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

pub(crate) use self::{ingest::breaks_json, live::ReaderGuard, writes::NewStream};
use self::{
    live::Live,
    present::Present,
    writes::{Writes, Wrote},
};
use crate::{
    batch::{Batch, Bell},
    clock::StoreClock,
    config::{Config, MAILBOX, NOTHING_THERE, TICK},
    feed::{Feed, RingPool},
    history::HistoryCache,
    logread::{LogEvent, LogReader},
    metrics::{Counted, Limit, Metrics},
    ops::{Appended, Created, OpError, Post},
    sweep::Listing,
};

/// What a reply carries: an answer, or the word that the actor has retired and another will take the request.
pub(crate) type Answer<T> = Result<Result<T, OpError>, Retired>;
pub(crate) type Reply<T> = oneshot::Sender<Answer<T>>;

/// The actor has retired without looking at the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retired;

/// What an actor is asked.
pub(crate) enum Message {
    /// Append, or close, or both.
    Append { post: Box<Post>, reply: Reply<Appended> },
    /// Create.
    Create { stream: Box<NewStream>, reply: Reply<Created> },
    /// Delete.
    Delete { reply: Reply<()> },
    /// The stream as it is now, and what the ring holds from an offset on.
    Look { at: LookAt, reply: Reply<Look> },
    /// Follow the stream from an offset on.
    Join { from: ReadOffset, arrival: Arrival, reply: Reply<Joined> },
    /// A fork needs this stream's data.
    Refer {
        reference: Reference,
        /// The life that the fork was decided on; `None` is a native stream.
        life: Option<u64>,
        reply: Reply<()>,
    },
    /// The forks that need this stream's data.
    References { reply: Reply<Vec<Reference>> },
    /// A fork needs it no longer.
    Release { reference: Reference, reply: Reply<()> },
}

/// Whether a reader that joins is counted already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It comes for the first time: it may be one too many.
    New {
        /// How many there may be, if not as many as anywhere.
        most: usize,
    },
    /// It was let in before, and goes on.
    Again,
}

/// How to look at a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookAt {
    /// Metadata: no use of the stream, nothing from the ring.
    Head,
    /// A read: a sign of use.
    Read(ReadOffset),
}

/// A stream as it was at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// The state, without what only writers need.
    pub(crate) view: Arc<StreamState>,
    /// What the ring holds from the offset on; `None` where some of it is older.
    pub(crate) batches: Option<Vec<Arc<Batch>>>,
}

/// A reader's place in the live feed, and what stands between it and the offset it came with.
pub(crate) struct Joined {
    pub(crate) view: Arc<StreamState>,
    /// Where the reader stands.
    pub(crate) place: Place,
    /// What it has missed; `None` where it has to read history first and join again.
    pub(crate) batches: Option<Vec<Arc<Batch>>>,
    pub(crate) bell: async_broadcast::Receiver<Bell>,
    pub(crate) guard: ReaderGuard,
    pub(crate) feed: Arc<Feed>,
    /// The feed's turn at that moment.
    pub(crate) turn: u64,
}

/// What a stream's end leaves to be done elsewhere.
#[derive(Debug, Clone)]
pub(crate) enum Chore {
    /// A fork is no more: its source need not keep the reference.
    Release {
        /// The source.
        source: StreamKey,
        /// The reference that it holds.
        reference: Reference,
    },
    /// A soft-deleted source, or data that could not be trimmed, has to be looked after.
    List(Listing),
}

/// What an actor is made of.
pub(crate) struct Seed {
    pub(crate) key: StreamKey,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<StoreClock>,
    pub(crate) rings: Arc<RingPool>,
    pub(crate) history: Arc<HistoryCache>,
    pub(crate) tracker: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) chores: mpsc::Sender<Chore>,
}

/// The handle: a bounded sender.
#[derive(Clone)]
pub(crate) struct StreamHandle {
    mailbox: mpsc::Sender<Message>,
}

impl StreamHandle {
    /// Puts a message into the mailbox; gives it back where the actor has retired.
    pub(crate) async fn send(&self, message: Message) -> Result<(), Message> {
        self.mailbox.send(message).await.map_err(|refused| refused.0)
    }
}

/// A request that the actor has taken on.
struct Request {
    message: Message,
    /// Whether a tail check that was sent after it arrived has come back.
    fresh: bool,
    /// How often it was put off for the stream's lifetime.
    put_off: u32,
}

/// What came of something that took time.
enum Done {
    Activated(Result<Box<Activated>, OpError>),
    Tail(Result<Option<tailwater_upstream::Position>, OpError>),
    Gap(Result<Vec<crate::batch::LogRecord>, OpError>),
    Session(Result<mpsc::Receiver<LogEvent>, OpError>),
    Wrote(Box<Wrote>),
}

pub(crate) struct Actor {
    seed: Seed,
    reader: LogReader,
    state: StreamState,
    /// `state` for readers, until the next record.
    view: Option<Arc<StreamState>>,
    feed: Arc<Feed>,
    live: Live,
    present: Present,
    writes: Writes,
    todo: VecDeque<Request>,
    pending: FuturesUnordered<BoxFuture<'static, Done>>,
    phase: Phase,
    /// Why it ends.
    failure: Option<OpError>,
    last_use: Instant,
    /// When to look at the lifetime of a stream with live readers again.
    next_tick: Instant,
    warned_unserved: bool,
    _counted: Counted,
}

/// Where the actor is in its life.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Phase {
    /// Finding out the state; requests wait in the mailbox.
    Activating,
    Serving,
    /// A record cannot be read: every request is told so, until the actor retires and another looks again.
    Quarantined {
        /// The record's position.
        seq: u64,
    },
    /// It ends: the store is away.
    Failed,
}

impl Seed {
    /// Starts the actor. `on_exit` is called when it has retired.
    pub(crate) fn spawn(self, on_exit: impl FnOnce() + Send + 'static) -> StreamHandle {
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        let tracker = self.tracker.clone();
        let actor = Actor::new(self);
        tracker.spawn(actor.run(messages, on_exit));
        StreamHandle { mailbox }
    }
}

impl Actor {
    fn new(seed: Seed) -> Self {
        let counted = Counted::new(&seed.metrics.active_streams);
        let reader = LogReader::new(Arc::clone(&seed.upstream), seed.key.clone());
        let feed = Feed::new(&seed.rings, seed.config.ring_bytes);
        Self {
            live: Live::new(Arc::clone(&feed), seed.config.chance.clone()),
            feed,
            present: Present::default(),
            writes: Writes::new(&seed.config.chance),
            state: StreamState::default(),
            view: None,
            todo: VecDeque::new(),
            pending: FuturesUnordered::new(),
            phase: Phase::Activating,
            last_use: Instant::now(),
            next_tick: Instant::now(),
            failure: None,
            warned_unserved: false,
            _counted: counted,
            reader,
            seed,
        }
    }

    /// The one way in and out: whatever ends the serving, what still waits is told, and the registry forgets.
    async fn run(mut self, mut messages: mpsc::Receiver<Message>, on_exit: impl FnOnce()) {
        self.activate();
        let error = self.serve(&mut messages).await;
        messages.close();
        on_exit();
        self.live.ring(Bell::Rejoin);
        self.writes.fail_all(&error);
        for request in self.todo.drain(..).map(|request| request.message).chain(self.present.drain()) {
            request.end(error.as_ref());
        }
        while let Ok(message) = messages.try_recv() {
            message.end(error.as_ref());
        }
        debug!(stream = %self.seed.key, failed = error.is_some(), "the stream's actor has retired");
    }

    /// Serves until it is idle (`None`), or cannot go on.
    async fn serve(&mut self, messages: &mut mpsc::Receiver<Message>) -> Option<OpError> {
        let shutdown = self.seed.shutdown.clone();
        let changed = self.live.changed();
        let mut draining = false;
        loop {
            if draining && self.writes.is_idle() {
                return Some(OpError::Draining);
            }
            let wake = self.next_wake();
            tokio::select! {
                // What is under way comes before what is new, so that nothing is decided on a state that is known to
                // be old; the session before requests, so that readers are fed first. All arms are cancel safe:
                // channels, and futures that are kept between turns.
                biased;
                () = shutdown.cancelled(), if !draining => draining = true,
                Some(done) = self.pending.next(), if !self.pending.is_empty() => self.on_done(done),
                event = self.live.next_event() => self.on_session(event),
                Some(message) = messages.recv(), if self.takes_messages() && !draining => {
                    self.on_message(message);
                    // All that has come goes together: into one batch, or behind one tail check.
                    for _ in 1..MAILBOX {
                        let Ok(message) = messages.try_recv() else { break };
                        self.on_message(message);
                    }
                }
                () = changed.notified(), if self.phase == Phase::Serving => self.last_use = Instant::now(),
                () = sleep_until(wake) => {
                    if self.is_idle() {
                        return None;
                    }
                }
            }
            if self.phase == Phase::Failed {
                return Some(self.failure.take().unwrap_or(OpError::Unavailable { retry_after: None, cause: None }));
            }
            self.settle();
        }
    }

    fn takes_messages(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Quarantined { .. })
    }

    /// After every step: what can go on, goes on.
    fn settle(&mut self) {
        if let Phase::Quarantined { seq } = self.phase {
            for message in self.todo.drain(..).map(|request| request.message).chain(self.present.drain()) {
                message.end(Some(&OpError::Unreadable { seq }));
            }
            // What was in flight when the record was met, and was refused, is not decided again.
            self.writes.fail_all(&Some(OpError::Unreadable { seq }));
        }
        if self.phase != Phase::Serving {
            return;
        }
        self.tick();
        loop {
            while let Some(request) = self.todo.pop_front() {
                self.handle(request);
            }
            self.take_ahead();
            self.chase();
            self.pump_writes();
            if self.todo.is_empty() || self.phase != Phase::Serving {
                break;
            }
        }
        self.tend_session();
    }

    fn on_message(&mut self, message: Message) {
        // A quarantined stream is looked at again after a while, however often it is asked for.
        if self.phase == Phase::Serving {
            self.last_use = Instant::now();
        }
        // What releases a source must not be lost, and comes from no client.
        let is_bounded = !matches!(message, Message::Release { .. });
        if is_bounded && self.todo.len() + self.present.waiting() >= self.seed.config.max_waiting_requests {
            self.seed.metrics.refused(Limit::WaitingRequests);
            return message.end(Some(&OpError::StreamBusy));
        }
        self.todo.push_back(Request { message, fresh: false, put_off: 0 });
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Activated(Ok(activated)) => {
                self.seed.history.forget_native(&self.seed.key);
                self.on_activated(*activated);
            }
            Done::Activated(Err(error)) => self.fail(error),
            Done::Tail(tail) => self.on_tail(tail),
            Done::Gap(records) => self.on_gap(records),
            Done::Session(session) => self.on_session_opened(session),
            Done::Wrote(wrote) => self.on_wrote(*wrote),
        }
    }

    fn fail(&mut self, error: OpError) {
        if let OpError::Unreadable { seq } = error {
            self.seed.metrics.quarantined.inc();
            warn!(stream = %self.seed.key, seq, "a record cannot be read; the stream is quarantined");
            self.phase = Phase::Quarantined { seq };
            self.last_use = Instant::now();
            self.live.drop_session();
            self.live.ring(Bell::Rejoin);
            self.writes.fail_all(&Some(error));
            return;
        }
        self.phase = Phase::Failed;
        self.failure = Some(error);
    }

    fn activate(&mut self) {
        self.phase = Phase::Activating;
        self.seed.metrics.activations.inc();
        let reader = self.reader.clone();
        let chance = self.seed.config.chance.clone();
        self.start(async move { Done::Activated(reader.activate(&chance).await.map(Box::new)) });
    }

    fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.pending.push(work.boxed());
    }

    fn handle(&mut self, request: Request) {
        let Some(request) = self.in_the_present(request) else { return };
        match request.message {
            Message::Append { post, reply } => self.queue_append(*post, reply, request.fresh),
            Message::Create { stream, reply } => self.queue_create(stream, reply, request.fresh),
            Message::Delete { reply } => self.queue_delete(reply, request.fresh),
            Message::Refer { reference, life, reply } => self.queue_refer(reference, life, reply, request.fresh),
            Message::Release { reference, reply } => self.queue_release(reference, reply, request.fresh),
            Message::References { reply } => self.list_references(reply),
            Message::Look { at, reply } => self.look(at, reply),
            Message::Join { from, arrival, reply } => match self.check_room(arrival) {
                Ok(()) => self.join(from, reply),
                Err(error) => answer(reply, Err(error)),
            },
        }
    }

    /// Whether there is room for one more live reader.
    fn check_room(&self, arrival: Arrival) -> Result<(), OpError> {
        let limit = match arrival {
            Arrival::New { most } => self.seed.config.max_readers_per_stream.min(most),
            Arrival::Again => return Ok(()),
        };
        if self.live.readers() < limit {
            return Ok(());
        }
        self.seed.metrics.refused(Limit::ReadersPerStream);
        Err(OpError::TooManyReaders { limit })
    }

    fn look(&mut self, at: LookAt, reply: Reply<Look>) {
        let view = self.view();
        if wants_trim(&self.state) {
            // Whoever ended it, here or elsewhere, may not have come to this.
            self.queue_trim();
        }
        let batches = match at {
            LookAt::Head => None,
            LookAt::Read(from) => place_of(&view, from).ok().and_then(|place| self.since(place)),
        };
        answer(reply, Ok(Look { view, batches }));
    }

    fn list_references(&self, reply: Reply<Vec<Reference>>) {
        let held = self.state.incarnation().map(|life| &life.references);
        let listed = held.into_iter().flatten();
        let listed = listed.map(|(incarnation, fork)| Reference { incarnation: *incarnation, fork: fork.clone() });
        answer(reply, Ok(listed.collect()));
    }

    /// What the ring holds from a place on.
    fn since(&self, place: Place) -> Option<Vec<Arc<Batch>>> {
        let own = self.state.tail().segment;
        (place.segment == own).then(|| self.feed.since(place.seq)).flatten()
    }

    fn view(&mut self) -> Arc<StreamState> {
        Arc::clone(self.view.get_or_insert_with(|| Arc::new(self.state.for_readers())))
    }

    fn native(&self) -> NativeDefaults {
        NativeDefaults {
            content_type: self.seed.config.native_content_type.clone(),
            visibility: self.seed.config.undeclared_visibility,
            incarnation: self.writes.incarnation(),
        }
    }

    fn is_idle(&self) -> bool {
        let unused = self.pending.is_empty() && self.last_use.elapsed() >= self.idle();
        let nothing_to_do = self.live.is_quiet() && self.writes.is_idle() && self.present.is_idle();
        match self.phase {
            Phase::Serving => unused && nothing_to_do,
            Phase::Quarantined { .. } => unused,
            Phase::Activating | Phase::Failed => false,
        }
    }

    /// How long it stays unused.
    fn idle(&self) -> Duration {
        // A deleted stream's log holds what tells of it until the store has reaped it.
        let nothing_there = self.phase == Phase::Serving && self.state.next() == 0;
        if nothing_there { self.seed.config.idle.min(NOTHING_THERE) } else { self.seed.config.idle }
    }

    /// When to look around, if nothing happens before.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        if matches!(self.phase, Phase::Activating | Phase::Failed) {
            return now + TICK;
        }
        // Past that time something else keeps the actor, and wakes it when it goes.
        let idle = self.idle();
        let idle = if self.last_use.elapsed() < idle { self.last_use + idle } else { later(now, idle.max(TICK)) };
        let tick = (self.has_lifetime() && self.live.readers() > 0).then_some(self.next_tick);
        [tick, self.writes.wake(), self.present.wake(), self.live.wake()].into_iter().flatten().fold(idle, Instant::min)
    }

    /// Looks after the lifetime of a stream with live readers, however busy the actor is otherwise.
    fn tick(&mut self) {
        let now = Instant::now();
        if self.live.readers() > 0 && self.next_tick <= now {
            self.next_tick = now + TICK;
            self.keep_alive();
        }
    }
}

impl Message {
    /// Ends a request that was not looked at: another actor takes it, or it fails with what ended this one.
    fn end(self, error: Option<&OpError>) {
        fn tell<T>(reply: Reply<T>, error: Option<&OpError>) {
            // A client that has gone needs no answer.
            drop(reply.send(error.map_or(Err(Retired), |error| Ok(Err(error.again())))));
        }
        match self {
            Self::Append { reply, .. } => tell(reply, error),
            Self::Create { reply, .. } => tell(reply, error),
            Self::Delete { reply } | Self::Refer { reply, .. } | Self::Release { reply, .. } => tell(reply, error),
            Self::References { reply } => tell(reply, error),
            Self::Look { reply, .. } => tell(reply, error),
            Self::Join { reply, .. } => tell(reply, error),
        }
    }
}

/// Where a read starts.
pub(crate) fn place_of(state: &StreamState, from: ReadOffset) -> Result<Place, tailwater_log::Misplaced> {
    match from {
        ReadOffset::Start => Ok(state.start()),
        ReadOffset::Now => Ok(state.tail()),
        ReadOffset::At(offset) => state.resolve(offset),
    }
}

/// Answers; a client that has gone needs none.
fn answer<T>(reply: Reply<T>, result: Result<T, OpError>) {
    drop(reply.send(Ok(result)));
}

/// The name that marks use for a key.
pub(crate) fn stream_name(key: &StreamKey) -> StreamName {
    StreamName { project: Arc::clone(&key.project), stream: Arc::clone(&key.stream) }
}

/// The key of a name in a mark.
pub(crate) fn stream_key(name: &StreamName) -> StreamKey {
    StreamKey { project: Arc::clone(&name.project), stream: Arc::clone(&name.stream) }
}

/// A duration as far as a timer can go.
fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now + Duration::from_secs(86_400))
}
