//! A shard, the streams that it serves, and the readers that it has.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus::{IntGauge, Registry};
use tailwater_log::Visibility;
use tailwater_protocol::{
    ContentKind, ContentType, Lifetime, Offset,
    cursor::{EPOCH_MS, INTERVAL_MS},
    sse::Lapse,
};
use tailwater_upstream::StreamKey;

use super::{
    super::{
        Arrival, Departure, Judge, Moment, Resume, Seat, Shard, ShardConfig, TICK, Wants, line::Bell, slot::SlotId,
        whole_millis,
    },
    script::{Client, Log, Socket, Wire},
};
use crate::{
    actor::ReaderGuard,
    batch::{Batch, Message},
    feed::{Feed, RingPool},
    frame::Stand,
    metrics::ShardMetrics,
    ops::Head,
};

/// The cursor of the first moment; it has seven digits.
pub(super) const CURSOR: u64 = 2_000_000;
/// The birth of all offsets.
pub(super) const BIRTH: u64 = 1;

/// A shard with its surroundings. What goes along with a socket is its number.
pub(super) struct World {
    pub(super) shard: Shard<Socket, usize>,
    pub(super) now: Moment,
    pub(super) metrics: ShardMetrics,
    /// How many readers the streams count.
    pub(super) live: IntGauge,
    pub(super) pool: Arc<RingPool>,
    /// How often the shard was woken.
    pub(super) woken: Arc<AtomicUsize>,
    pub(super) arrived: usize,
    /// Who may not go on, by number, and why.
    pub(super) lapsed: Arc<Mutex<HashMap<usize, Lapse>>>,
    /// How often it was asked whether somebody may go on.
    pub(super) asked: Arc<AtomicUsize>,
}

/// A stream, with what it has been given.
pub(super) struct Stream {
    pub(super) feed: Arc<Feed>,
    pub(super) kind: ContentKind,
    pub(super) next: u64,
    pub(super) log: Log,
    /// All batches, whether the ring has them or not.
    pub(super) history: Vec<Arc<Batch>>,
    pub(super) closed: bool,
    resume: Arc<Resume>,
}

/// A reader, as the test has it.
pub(super) struct Guest {
    pub(super) id: Option<SlotId>,
    pub(super) client: Client,
}

/// How a reader arrives.
pub(super) struct Coming {
    pub(super) cursor: u64,
    pub(super) greet: bool,
    pub(super) lasts: Duration,
    /// When its reader may not go on, if ever.
    pub(super) expires: Option<Duration>,
    pub(super) room: usize,
    /// What it waits for; events, unless it says something else.
    pub(super) wants: Option<Wants>,
}

impl Default for Coming {
    fn default() -> Self {
        Self { cursor: 0, greet: false, lasts: Duration::from_secs(3600), expires: None, room: usize::MAX, wants: None }
    }
}

pub(super) fn settings() -> ShardConfig {
    ShardConfig {
        keep_alive: Duration::from_secs(15),
        write_timeout: Duration::from_secs(30),
        rotated_retry: (Duration::from_millis(50), Duration::from_millis(550)),
        drained_retry: (Duration::from_millis(1000), Duration::from_millis(2000)),
        random: || 123,
    }
}

impl World {
    pub(super) fn new() -> Self {
        let metrics = ShardMetrics::register(&Registry::new()).unwrap();
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        let bell = Bell::new(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        let now = Moment { at: Instant::now(), unix_ms: EPOCH_MS + CURSOR * INTERVAL_MS };
        let (lapsed, asked) = (Arc::<Mutex<HashMap<usize, Lapse>>>::default(), Arc::<AtomicUsize>::default());
        let (list, count) = (Arc::clone(&lapsed), Arc::clone(&asked));
        let judge: Judge<usize> = Arc::new(move |number| {
            count.fetch_add(1, Ordering::Relaxed);
            list.lock().unwrap().get(number).copied()
        });
        Self {
            shard: Shard::new(settings(), metrics.clone(), bell, now.at).judged_by(judge),
            now,
            metrics,
            live: IntGauge::new("live", "live").unwrap(),
            pool: RingPool::new(1 << 24, IntGauge::new("ring", "ring").unwrap()),
            woken,
            arrived: 0,
            lapsed,
            asked,
        }
    }

    pub(super) fn stream(&self, kind: ContentKind) -> Stream {
        self.stream_of(kind, 1 << 20)
    }

    pub(super) fn stream_of(&self, kind: ContentKind, ring_bytes: usize) -> Stream {
        let feed = Feed::new(&self.pool, ring_bytes);
        feed.pulse().set_alive(true);
        let head = Head {
            content_type: ContentType::default_binary(),
            lifetime: Lifetime::Forever,
            visibility: Visibility::Public,
            birth: BIRTH,
            tail: Offset { birth: BIRTH, seq: 0 },
            closed: false,
        };
        let resume = Arc::new(Resume { key: StreamKey::new("p", "s"), head, life: Some(BIRTH) });
        Stream { feed, kind, next: 0, log: Rc::default(), history: Vec::new(), closed: false, resume }
    }

    /// A reader that arrives at a position, with everything as it is by default.
    pub(super) fn arrive(&mut self, stream: &Stream, seq: u64) -> Guest {
        self.arrive_as(stream, seq, &Coming::default())
    }

    pub(super) fn arrive_as(&mut self, stream: &Stream, seq: u64, coming: &Coming) -> Guest {
        let wire = Wire::new(&stream.log);
        wire.borrow_mut().room = coming.room;
        let stand = Stand { seq, at: stream.offset_at(seq) };
        let client = Client::new(&wire, stream.kind, stand.at);
        let seat = stream.seat(stand, stream.feed.turns(), &self.live);
        let arrival = Arrival {
            socket: Socket(wire),
            seat,
            cursor: coming.cursor,
            ends_at: self.now.at + coming.lasts,
            expires_at: coming.expires.map(|lasts| self.now.at + lasts),
            wants: coming.wants.unwrap_or(Wants::Events { greet: coming.greet }),
            unread: Bytes::new(),
            luggage: self.arrived,
        };
        self.arrived += 1;
        let id = self.shard.arrive(arrival, self.now);
        let mut guest = Guest { id, client };
        guest.client.read();
        guest
    }

    /// A reader that has departed comes back at once, where it stands.
    pub(super) fn come_back(
        &mut self,
        stream: &Stream,
        departure: Departure<Socket, usize>,
    ) -> (usize, Option<SlotId>) {
        let Departure::Behind { socket, stands, cursor, ends_at, unread, luggage } = departure else {
            panic!("it does not come back")
        };
        let seat = stream.seat(stands.stand, stream.feed.turns(), &self.live);
        let wants = Wants::Events { greet: false };
        let arrival = Arrival { socket, seat, cursor, ends_at, expires_at: None, wants, unread, luggage };
        (luggage, self.shard.arrive(arrival, self.now))
    }

    /// A long-poll that was answered comes again on the same connection.
    pub(super) fn poll_again(
        &mut self,
        stream: &Stream,
        socket: Socket,
        stand: Stand,
        lasts: Duration,
        luggage: usize,
    ) -> Option<SlotId> {
        let seat = stream.seat(stand, stream.feed.turns(), &self.live);
        let ends_at = self.now.at + lasts;
        let (wants, unread) = (Wants::Answer, Bytes::new());
        let arrival = Arrival { socket, seat, cursor: 0, ends_at, expires_at: None, wants, unread, luggage };
        self.shard.arrive(arrival, self.now)
    }

    /// A reader may not go on any more; nobody is told.
    pub(super) fn withdraw(&self, number: usize, why: Lapse) {
        self.lapsed.lock().unwrap().insert(number, why);
    }

    /// A whole review.
    pub(super) fn review(&mut self) {
        self.shard.review();
        while self.shard.is_reviewing() {
            self.shard.review_part(self.now);
        }
    }

    /// The shard hears its bell.
    pub(super) fn hear(&mut self) {
        for line in self.shard.rung() {
            self.shard.on_bell(line, self.now);
        }
    }

    /// Pushes a batch, rings, and lets the shard hear it.
    pub(super) fn publish(&mut self, stream: &mut Stream, messages: &[&[u8]]) {
        stream.push(messages);
        stream.feed.ring();
        self.hear();
    }

    /// The socket takes more.
    pub(super) fn make_room(&mut self, guest: &mut Guest, room: usize) {
        guest.client.wire.borrow_mut().room = room;
        self.shard.on_ready(guest.id.unwrap(), self.now);
        guest.client.read();
    }

    /// Time goes by, and the shard looks at it as its poller lets it.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now.at + time;
        while self.now.at + TICK <= until {
            self.jump(TICK);
            self.shard.on_timer(self.now);
        }
        self.jump(until - self.now.at);
    }

    /// Time goes by, and the shard does not notice.
    pub(super) fn jump(&mut self, time: Duration) {
        self.now.at += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
    }

    /// Whether nothing is left of any reader.
    pub(super) fn assert_empty(&self, streams: &[&Stream]) {
        assert_eq!((self.shard.readers(), self.shard.lines.len(), self.shard.by_feed.len()), (0, 0, 0));
        assert_eq!((self.metrics.readers.get(), self.live.get()), (0, 0), "gauges");
        assert!(streams.iter().all(|stream| stream.feed.listeners() == 0), "somebody still listens");
    }

    /// What must hold between any two calls.
    pub(super) fn check(&self) {
        for (id, line) in &self.shard.lines {
            let slots: Vec<_> = self.shard.slots.iter().filter(|(_, slot)| slot.line == id).collect();
            assert_eq!(line.readers, slots.len(), "a line counts its readers");
            assert!(!line.is_over || line.current.is_empty() && line.parked.is_empty() && line.waiting.is_empty());
            let places = line.current.len() + line.parked.len() + line.waiting.len();
            let busy = slots.iter().filter(|(_, slot)| slot.unsent.is_some()).count();
            assert_eq!(places + busy, slots.len(), "who is not busy is in a list");
        }
        for (id, slot) in &self.shard.slots {
            let due = slot.due_at(whole_millis(settings().keep_alive), whole_millis(settings().write_timeout));
            assert!(self.shard.alarms.rings(id, due), "an alarm never rings too late");
        }
        let mapped = self.shard.lines.iter().filter(|(_, line)| !line.is_over).count();
        assert_eq!(self.shard.by_feed.len(), mapped);
        assert_eq!(self.metrics.readers.get(), i64::try_from(self.shard.readers()).unwrap());
        assert_eq!(self.live.get(), self.metrics.readers.get());
    }
}

impl Stream {
    /// The offset of whoever has had everything up to a position.
    pub(super) fn offset_at(&self, seq: u64) -> Offset {
        let log = self.log.borrow();
        let before = log.iter().rev().find(|(message, _)| *message < seq);
        Offset { birth: BIRTH, seq: before.map_or(0, |(message, _)| message + 1) }
    }

    pub(super) fn seat(&self, stand: Stand, turn: u64, live: &IntGauge) -> Seat {
        Seat {
            feed: Arc::clone(&self.feed),
            turn,
            resume: Arc::clone(&self.resume),
            kind: self.kind,
            stand,
            guard: ReaderGuard::of_nobody(live),
        }
    }

    /// Adds a batch; the bell does not ring.
    pub(super) fn push(&mut self, messages: &[&[u8]]) {
        self.add(messages, 0, false);
    }

    /// Adds marks, which readers do not see.
    pub(super) fn marks(&mut self, count: u64) {
        self.add(&[], count, false);
    }

    /// Closes the stream behind some messages; the bell does not ring.
    pub(super) fn close(&mut self, messages: &[&[u8]]) {
        self.add(messages, 1, true);
    }

    /// Adds a batch with so many marks behind its messages.
    pub(super) fn add(&mut self, messages: &[&[u8]], marks: u64, closes: bool) {
        let batch = self.prepare_as(messages, marks, closes);
        self.feed.push(batch);
        self.feed.pulse().set_rung(self.next);
    }

    /// A batch that is still to be pushed.
    pub(super) fn prepare(&mut self, messages: &[&[u8]]) -> Arc<Batch> {
        self.prepare_as(messages, 0, false)
    }

    fn prepare_as(&mut self, messages: &[&[u8]], marks: u64, closes: bool) -> Arc<Batch> {
        let first = self.next;
        let bodies = messages.iter().map(|body| Bytes::copy_from_slice(body));
        let numbered: Vec<(u64, Bytes)> = (first..).zip(bodies).collect();
        self.next += messages.len() as u64 + marks;
        self.log.borrow_mut().extend(numbered.iter().cloned());
        let messages = numbered.into_iter().map(|(seq, body)| Message { seq, body }).collect();
        let (since, tail) = (self.feed.quiet_since(), self.offset_at(self.next));
        let batch = Arc::new(Batch::new(since, first, self.next, tail, messages, closes));
        self.history.push(Arc::clone(&batch));
        self.closed |= closes;
        batch
    }
}

/// The rest that a reader's socket did not take.
pub(super) fn rest(world: &World, guest: &Guest) -> Option<Bytes> {
    let slot = world.shard.slots.get(guest.id?)?;
    slot.unsent.as_ref().map(|unsent| unsent.rest.clone())
}

/// Reads all clients to the end of what has arrived.
pub(super) fn read_all(guests: &mut [Guest]) {
    guests.iter_mut().for_each(|guest| guest.client.read());
}

/// How many bytes sockets have taken.
pub(super) fn bytes_sent(guests: &[&Guest]) -> u64 {
    let length = |wire: &RefCell<Wire>| wire.borrow().written.len() as u64;
    guests.iter().map(|guest| length(&guest.client.wire)).sum()
}
