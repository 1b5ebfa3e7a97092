//! The loop around a shard: a thread of its own, which sleeps in `epoll` until a socket is ready, a bell rings, somebody
//! arrives, or time has passed.
//!
//! A part of a review comes first, if there is one, so that nobody is given what is new who may not have it. Bells come next,
//! so that what is new goes out before anything else; then arrivals, a few at a time, so that a storm of
//! them does not hold up those who are there; then the sockets.

use std::{
    collections::VecDeque,
    io,
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker};
use tracing::warn;

use super::{Arrival, Departure, Judge, Loss, Moment, Shard, ShardConfig, TICK, line::Bell};
use crate::{metrics::ShardMetrics, precedence::Precedence};

/// The events of one look at the sockets.
const EVENTS: usize = 1024;
/// The arrivals between two looks at the bells.
const ARRIVALS: usize = 32;
const WAKE: Token = Token(usize::MAX);

type Sink<L> = Arc<dyn Fn(Departure<TcpStream, L>) + Send + Sync>;

/// What shards are made of.
pub struct ShardsSeed<L> {
    /// How many, one thread each.
    pub count: usize,
    /// The settings.
    pub config: ShardConfig,
    /// The metrics.
    pub metrics: ShardMetrics,
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: fn() -> u64,
    /// What becomes of the readers that a shard no longer has. Called on the shard's thread: it must not wait.
    pub on_departure: Sink<L>,
    /// Tells whether a reader may go on. Called on the shard's thread: it must not wait.
    pub judge: Judge<L>,
    /// Where the shards say that they deliver, for those who give way.
    pub deliveries: Arc<Precedence>,
}

/// The shards of a process.
pub struct Shards<L> {
    handles: Vec<Handle<L>>,
    next: AtomicUsize,
}

struct Handle<L> {
    inbox: Arc<Inbox<L>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What waits for a shard. As many arrivals as there are connections at most.
struct Inbox<L> {
    orders: Mutex<Orders<L>>,
    bell: Arc<Bell>,
}

struct Orders<L> {
    arrivals: VecDeque<Arrival<TcpStream, L>>,
    drain: Option<Duration>,
    review: bool,
    close: bool,
    /// Whether nobody takes them any more.
    closed: bool,
}

struct Poller<L> {
    poll: Poll,
    shard: Shard<mio::net::TcpStream, L>,
    inbox: Arc<Inbox<L>>,
    now_ms: fn() -> u64,
    on_departure: Sink<L>,
    deliveries: Arc<Precedence>,
    next_tick: Instant,
}

impl<L: Send + 'static> Shards<L> {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(seed: &ShardsSeed<L>) -> io::Result<Self> {
        let handles = (0..seed.count.max(1)).map(|number| Handle::start(seed, number)).collect::<io::Result<_>>()?;
        Ok(Self { handles, next: AtomicUsize::new(0) })
    }

    /// Hands a reader over.
    ///
    /// # Errors
    /// The reader, where the shards have ended.
    pub fn take(&self, arrival: Arrival<TcpStream, L>) -> Result<(), Box<Arrival<TcpStream, L>>> {
        let (first, count) = (self.next.fetch_add(1, Ordering::Relaxed), self.handles.len());
        // One that has failed leaves its share to the others.
        for inbox in (0..count).map(|more| &self.handles[first.wrapping_add(more) % count].inbox) {
            let mut orders = inbox.orders();
            if orders.closed {
                continue;
            }
            orders.arrivals.push_back(arrival);
            drop(orders);
            inbox.bell.call();
            return Ok(());
        }
        Err(Box::new(arrival))
    }

    /// Ends all responses within this time, each at a moment of its own.
    pub fn drain(&self, window: Duration) {
        for handle in &self.handles {
            handle.inbox.orders().drain = Some(window);
            handle.inbox.bell.call();
        }
    }

    /// Asks again whether readers may go on: those who are there, and those who are on their way. Each shard begins with its
    /// next turn, and goes over its readers in parts, so it may still give a message to one that it has not come to.
    pub fn review(&self) {
        for handle in &self.handles {
            handle.inbox.orders().review = true;
            handle.inbox.bell.call();
        }
    }

    /// Whether one of the threads takes nobody any more.
    #[cfg(test)]
    pub(super) fn has_failed(&self) -> bool {
        self.handles.iter().any(|handle| handle.inbox.orders().closed)
    }

    /// Waits for the threads to end, once they are told to [`stop`](Self::stop). Blocks.
    pub fn join(&self) {
        for handle in &self.handles {
            let thread = handle.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                warn!("a delivery shard has panicked");
            }
        }
    }
}

impl<L> Shards<L> {
    /// Makes the threads give up all readers, and end.
    pub fn stop(&self) {
        for handle in &self.handles {
            handle.inbox.stop();
        }
    }
}

impl<L> Drop for Handle<L> {
    fn drop(&mut self) {
        // Whoever wants to wait for the thread has stopped it.
        self.inbox.stop();
    }
}

impl<L> std::fmt::Debug for Shards<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shards").field("count", &self.handles.len()).finish_non_exhaustive()
    }
}

impl<L: Send + 'static> Handle<L> {
    fn start(seed: &ShardsSeed<L>, number: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let bell = Bell::new(Box::new(move || {
            if let Err(error) = waker.wake() {
                warn!(%error, "a delivery shard could not be woken; it looks by itself in a moment");
            }
        }));
        let orders = Orders { arrivals: VecDeque::new(), drain: None, review: false, close: false, closed: false };
        let inbox = Arc::new(Inbox { orders: Mutex::new(orders), bell: Arc::clone(&bell) });
        let now = Instant::now();
        let poller = Poller {
            poll,
            shard: Shard::new(seed.config.clone(), seed.metrics.clone(), bell, now).judged_by(Arc::clone(&seed.judge)),
            inbox: Arc::clone(&inbox),
            now_ms: seed.now_ms,
            on_departure: Arc::clone(&seed.on_departure),
            deliveries: Arc::clone(&seed.deliveries),
            next_tick: now + TICK,
        };
        let thread = thread::Builder::new().name(format!("shard-{number}")).spawn(move || poller.run())?;
        Ok(Self { inbox, thread: Mutex::new(Some(thread)) })
    }
}

impl<L> Inbox<L> {
    /// Makes the thread end.
    fn stop(&self) {
        self.orders().close = true;
        self.bell.call();
    }

    fn orders(&self) -> MutexGuard<'_, Orders<L>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L> Drop for Poller<L> {
    /// However the thread ends, nobody waits for it.
    fn drop(&mut self) {
        let left = {
            let mut orders = self.inbox.orders();
            orders.closed = true;
            std::mem::take(&mut orders.arrivals)
        };
        for Arrival { socket, luggage, .. } in left {
            (self.on_departure)(Departure::Lost { reason: Loss::Closed, socket, luggage });
        }
    }
}

impl<L> Poller<L> {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.sleep_for();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(%error, "a delivery shard cannot look at its sockets");
                break;
            }
            self.inbox.bell.rise();
            if !self.turn(&events) {
                break;
            }
        }
        self.shard.close();
        self.see_off();
    }

    /// For how long there is nothing to do unless something happens.
    fn sleep_for(&self) -> Option<Duration> {
        self.inbox.bell.doze();
        let orders = self.inbox.orders();
        let has_orders = !orders.arrivals.is_empty() || orders.drain.is_some() || orders.review || orders.close;
        if has_orders || self.shard.is_reviewing() || self.inbox.bell.has_rung() {
            return Some(Duration::ZERO);
        }
        (self.shard.readers() > 0).then(|| self.next_tick.saturating_duration_since(Instant::now()))
    }

    /// One turn; whether there will be another.
    fn turn(&mut self, events: &Events) -> bool {
        let (arrivals, drain, review, close) = {
            let mut orders = self.inbox.orders();
            // Those who have not been let in when it closes are seen off with all who wait.
            let some = if orders.close { 0 } else { orders.arrivals.len().min(ARRIVALS) };
            let arrivals: Vec<_> = orders.arrivals.drain(..some).collect();
            (arrivals, orders.drain.take(), std::mem::take(&mut orders.review), orders.close)
        };
        if review {
            self.shard.review();
        }
        if self.shard.is_reviewing() {
            // Before the bells: who may not go on is not to be given what they ring for.
            let now = self.now();
            self.shard.review_part(now);
        }
        self.hear();
        if close {
            return false;
        }
        for arrival in arrivals {
            self.arrive(arrival);
        }
        if let Some(window) = drain {
            self.shard.drain(window, Instant::now());
        }
        for (n, event) in events.iter().enumerate().filter(|(_, event)| event.token() != WAKE) {
            if n % ARRIVALS == ARRIVALS - 1 {
                self.hear();
            }
            let now = self.now();
            self.shard.on_ready(event.token().0, now);
        }
        let now = self.now();
        if now.at >= self.next_tick {
            self.shard.on_timer(now);
            self.next_tick = now.at + TICK;
        }
        self.see_off();
        true
    }

    fn hear(&mut self) {
        let rung = self.shard.rung();
        if rung.is_empty() {
            return;
        }
        let deliveries = Arc::clone(&self.deliveries);
        let _under_way = deliveries.begin();
        for line in rung {
            let now = self.now();
            self.shard.on_bell(line, now);
        }
    }

    fn arrive(&mut self, arrival: Arrival<TcpStream, L>) {
        let Arrival { socket, seat, cursor, ends_at, expires_at, wants, unread, luggage } = arrival;
        let socket = mio::net::TcpStream::from_std(socket);
        let arrival = Arrival { socket, seat, cursor, ends_at, expires_at, wants, unread, luggage };
        let now = self.now();
        let Some(id) = self.shard.arrive(arrival, now) else { return };
        let Some(socket) = self.shard.socket(id) else { return };
        // Edge-triggered for both: one system call for the whole stay. What became ready before is reported now.
        if self.poll.registry().register(socket, Token(id), Interest::READABLE | Interest::WRITABLE).is_err() {
            self.shard.give_up(id);
        }
    }

    /// Lets go of those who have departed.
    fn see_off(&mut self) {
        for departure in self.shard.departures() {
            let departure = departure.map_socket(|mut socket| {
                // One that departed as it arrived was never registered, which is the only way in which this can fail.
                drop(self.poll.registry().deregister(&mut socket));
                TcpStream::from(OwnedFd::from(socket))
            });
            (self.on_departure)(departure);
        }
    }

    fn now(&self) -> Moment {
        Moment { at: Instant::now(), unix_ms: (self.now_ms)() }
    }
}

impl<S, L> Departure<S, L> {
    fn map_socket<T>(self, map: impl FnOnce(S) -> T) -> Departure<T, L> {
        match self {
            Self::Behind { socket, stands, cursor, ends_at, unread, luggage } => {
                Departure::Behind { socket: map(socket), stands, cursor, ends_at, unread, luggage }
            }
            Self::Woken { wake, socket, stands, unread, luggage } => {
                Departure::Woken { wake, socket: map(socket), stands, unread, luggage }
            }
            Self::Ended { reason, socket, unread, luggage } => {
                Departure::Ended { reason, socket: map(socket), unread, luggage }
            }
            Self::Lost { reason, socket, luggage } => Departure::Lost { reason, socket: map(socket), luggage },
        }
    }
}
