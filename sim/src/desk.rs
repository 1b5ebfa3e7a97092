//! A pod's delivery shard, called by hand, and the sockets of its readers.
//!
//! The shard's own thread is a loop around calls; here whoever waits at the desk makes them, at the same moments.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::{self, ErrorKind, IoSlice, Read, Write},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tailwater_fanout::{
    Arrival, Departure, Moment, Seat, ShardConfig, ShardMetrics, Wants,
    workbench::{Shard, ShardBell, SlotId, TICK},
};
use tailwater_protocol::Offset;
use tailwater_testkit::{
    Chunks, Piece,
    sse::{DurableEvent, DurableSse, Payload},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::history::Given;

/// How long a response lasts.
const LASTS: Duration = Duration::from_secs(60);
/// What the clock shows at the beginning, for cursors.
const CURSORS_FROM_MS: u64 = 1_800_000_000_000;

/// What departs from a desk; readers are known by their numbers.
pub type Departed = Departure<Socket, usize>;

/// A shard with its surroundings.
pub struct Desk {
    shard: RefCell<Shard<Socket, usize>>,
    bell: Arc<ShardBell>,
    woken: Arc<Notify>,
    began: Instant,
    next_tick: Cell<Instant>,
    departed: RefCell<BTreeMap<usize, Departed>>,
    arrived: Cell<usize>,
}

/// The gateway's end of a connection.
#[derive(Debug)]
pub struct Socket(Rc<RefCell<Wire>>);

#[derive(Debug)]
struct Wire {
    written: Vec<u8>,
    takes: bool,
    has_left: bool,
}

/// The client's end: it checks the body's chunks and every event, and gives out what they bring.
pub struct Client {
    wire: Rc<RefCell<Wire>>,
    read: usize,
    chunks: Chunks,
    sse: DurableSse,
    data: Vec<u8>,
}

impl Desk {
    /// A desk without readers.
    #[must_use]
    pub fn new(metrics: ShardMetrics) -> Self {
        let woken = Arc::new(Notify::new());
        let waker = Arc::clone(&woken);
        let bell = ShardBell::new(Box::new(move || waker.notify_waiters()));
        let config = ShardConfig {
            keep_alive: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            rotated_retry: (Duration::from_millis(50), Duration::from_millis(550)),
            drained_retry: (Duration::from_millis(1000), Duration::from_millis(2000)),
            random: || 4,
        };
        let began = Instant::now();
        Self {
            shard: RefCell::new(Shard::new(config, metrics, Arc::clone(&bell), began.into_std())),
            bell,
            woken,
            began,
            next_tick: Cell::new(began),
            departed: RefCell::default(),
            arrived: Cell::new(0),
        }
    }

    /// Takes a reader in; its number, and its slot where it has not departed at once.
    pub fn arrive(&self, client: &Client, seat: Seat, wants: Wants) -> (usize, Option<SlotId>) {
        let number = self.arrived.get();
        self.arrived.set(number + 1);
        let arrival = Arrival {
            socket: Socket(Rc::clone(&client.wire)),
            seat,
            cursor: 0,
            ends_at: (Instant::now() + LASTS).into_std(),
            expires_at: None,
            wants,
            unread: Bytes::new(),
            luggage: number,
        };
        let slot = self.shard.borrow_mut().arrive(arrival, self.now());
        self.see_off();
        (number, slot)
    }

    /// The socket of a reader takes more, or has something to say.
    pub fn ready(&self, slot: SlotId) {
        self.shard.borrow_mut().on_ready(slot, self.now());
        self.see_off();
    }

    /// Waits for the bell, or for a moment, and does what there is to do.
    pub async fn turn(&self, until: Instant) {
        self.bell.doze();
        if !self.bell.has_rung() {
            let next = self.next_tick.get().max(Instant::now() + Duration::from_millis(1)).min(until);
            tokio::select! {
                biased;
                () = self.woken.notified() => {}
                () = sleep_until(next) => {}
            }
        }
        self.bell.rise();
        let mut shard = self.shard.borrow_mut();
        for line in shard.rung() {
            shard.on_bell(line, self.now());
        }
        if self.next_tick.get() <= Instant::now() {
            shard.on_timer(self.now());
            self.next_tick.set(Instant::now() + TICK);
        }
        drop(shard);
        self.see_off();
    }

    /// How a reader has departed, if it has.
    pub fn departed(&self, number: usize) -> Option<Departed> {
        self.departed.borrow_mut().remove(&number)
    }

    /// Whether a reader has departed.
    pub fn has_departed(&self, number: usize) -> bool {
        self.departed.borrow().contains_key(&number)
    }

    /// Ends all responses, as at the end of a drain.
    pub fn close(&self) {
        self.shard.borrow_mut().drain(Duration::from_millis(100), Instant::now().into_std());
    }

    /// The pod is no more: nobody looks after its readers, and nothing of them is left.
    pub fn abandon(&self) {
        self.shard.borrow_mut().close();
        drop(self.shard.borrow_mut().departures());
        self.departed.borrow_mut().clear();
    }

    fn see_off(&self) {
        for departure in self.shard.borrow_mut().departures() {
            let number = match &departure {
                Departure::Behind { luggage, .. }
                | Departure::Woken { luggage, .. }
                | Departure::Ended { luggage, .. }
                | Departure::Lost { luggage, .. } => *luggage,
            };
            self.departed.borrow_mut().insert(number, departure);
        }
    }

    fn now(&self) -> Moment {
        let now = Instant::now();
        let passed = u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX);
        Moment { at: now.into_std(), unix_ms: CURSORS_FROM_MS + passed }
    }
}

impl Client {
    /// A client that has had everything up to an offset.
    #[must_use]
    pub fn new(from: Offset) -> Self {
        let wire = Rc::new(RefCell::new(Wire { written: Vec::new(), takes: true, has_left: false }));
        let sse = DurableSse::new(Payload::Text).from_offset(&from.to_string());
        Self { wire, read: 0, chunks: Chunks::default(), sse, data: Vec::new() }
    }

    /// Its socket takes nothing, or everything again.
    pub fn takes(&self, takes: bool) {
        self.wire.borrow_mut().takes = takes;
    }

    /// It goes.
    pub fn leave(&self) {
        self.wire.borrow_mut().has_left = true;
    }

    /// What has come since.
    ///
    /// # Errors
    /// What the gateway should not have sent.
    pub fn receive(&mut self) -> Result<Vec<Given>, String> {
        let wire = Rc::clone(&self.wire);
        let wire = wire.borrow();
        self.chunks.push(&wire.written[self.read..]);
        self.read = wire.written.len();
        let mut given = Vec::new();
        while let Some(piece) = self.chunks.pop().map_err(|error| error.to_string())? {
            let Piece::Chunk { bytes, .. } = piece else { continue };
            self.sse.push(&bytes);
            while let Some(event) = self.sse.pop() {
                match event.map_err(|error| error.to_string())? {
                    DurableEvent::Data(data) => self.data.extend_from_slice(&data),
                    DurableEvent::Control(control) => given.push(Given {
                        bytes: std::mem::take(&mut self.data).into(),
                        count: None,
                        next: Offset::parse(&control.next).map_err(|error| error.to_string())?,
                        closed: control.closed,
                    }),
                    other @ (DurableEvent::Reset { .. } | DurableEvent::Gone | DurableEvent::Unauthorized { .. }) => {
                        return Err(format!("{other:?} from a shard"));
                    }
                }
            }
        }
        Ok(given)
    }
}

impl Write for Socket {
    fn write(&mut self, offered: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if wire.has_left {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if !wire.takes {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.written.extend_from_slice(offered);
        Ok(offered.len())
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write(&offered)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if self.0.borrow().has_left { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }
}
