//! The loop: one thread, all connections.
//!
//! The commands call [`Engine::turn`] until what they wait for has happened. A turn sends what is due, begins the
//! connections that wait, and handles what the sockets have. The schedule is looked at between any two sockets of readers,
//! and the writers' sockets after every few, so a burst of deliveries delays neither an append nor its ack. Receipt is
//! stamped per read, not per turn.
//!
//! - [`readers`](self): connections of readers, stallers and replayers.
//! - [`writers`](self): kept connections that create, preload and append.

mod readers;
mod writers;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mio::{Interest, Poll, Registry, Token, net::TcpStream, unix::SourceFd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub(crate) use self::readers::{Role, Slot};
use self::writers::Writer;
use crate::{
    adapter::{Ask, From, Mode, Target},
    figures::{Figures, Latencies},
    message::Shape,
    process,
    schedule::Schedule,
};

/// The token of the writers' poller; those of readers are their numbers.
const WRITERS: Token = Token(usize::MAX - 2);
/// After how many events of readers the writers are looked at.
const READERS_AT_ONCE: usize = 32;
/// The token of the clock that wakes the loop for the schedule.
const CLOCK: Token = Token(usize::MAX - 1);
/// How much is read at once, in bytes.
const READ: usize = 256 * 1024;
/// How long the loop looks for more before it sleeps, in nanoseconds. On loopback it is the server that wakes a client, in
/// the middle of its `write`; asleep between any two deliveries, the client would make each of them dearer by up to a
/// quarter, which over a network no server pays.
const AWAKE: u64 = SECOND / 10_000;
/// How often a socket is read before others get their turn.
const READS: usize = 4;
/// How often replayers are read, all of them together, before live readers are looked at again. Live readers are what is
/// timed: what else the client has to read is not to show as the server's delay.
const REPLAY_READS: usize = 2;
/// Failures that are told one by one; the rest is counted.
const TOLD: usize = 20;
/// One second, in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// What stays the same during a run.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) target: Target,
    pub(crate) mode: Mode,
    pub(crate) from: From,
    pub(crate) streams: usize,
    /// The size of a message, in bytes.
    pub(crate) size: usize,
    /// The size of a message that is there before the run, in bytes.
    pub(crate) preload_size: usize,
    /// How many messages are in each stream before the run.
    pub(crate) preload: u64,
    /// Addresses that readers connect from, in turns; empty for the kernel's choice.
    pub(crate) sources: Vec<IpAddr>,
    /// How many connections are begun at once.
    pub(crate) window: usize,
    /// The most connections of writers.
    pub(crate) writers: usize,
    /// What replayers ask for.
    pub(crate) replay: Ask,
    /// How long a reader waits before it reconnects when the server has not said so.
    pub(crate) retry: Duration,
    /// The receive buffer of stallers, in bytes.
    pub(crate) staller_buffer: usize,
}

/// Everything that was found wrong.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// The first of them.
    pub(crate) told: Vec<String>,
    pub(crate) total: u64,
}

/// What is counted besides deliveries.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    /// Appends that left more than a millisecond after they were due.
    pub(crate) late: u64,
    /// Reads that were answered with these statuses.
    pub(crate) refusals: BTreeMap<u16, u64>,
    /// Connections that could not be made, or ended before an answer.
    pub(crate) connect_errors: u64,
    /// Responses that the server ended properly while their reader wanted more.
    pub(crate) rotations: u64,
    /// Responses that broke off.
    pub(crate) cut: u64,
}

/// All connections of a run and what is known of them.
pub(crate) struct Engine {
    pub(crate) setup: Setup,
    pub(crate) figures: Figures,
    pub(crate) failures: Failures,
    pub(crate) tally: Tally,
    pub(crate) slots: Vec<Slot>,
    /// From the start of a connection to the head of its answer, for first connections.
    pub(crate) connect: Latencies,
    /// From a storm to the first event or answer, per reader.
    pub(crate) back: Latencies,
    /// Readers that a storm has reset and that have heard nothing since.
    pub(crate) away: usize,
    /// Readers whose connection has been asked for, but has no answer yet.
    pub(crate) joining: usize,
    /// Connections that have been begun and have no answer yet.
    connecting: usize,
    /// Nothing more can come of this run.
    pub(crate) stopped: bool,
    poll: Poll,
    events: Option<mio::Events>,
    /// The writers' connections, so that an ack does not wait behind thousands of deliveries.
    acks: Poll,
    ack_events: Option<mio::Events>,
    clock: OwnedFd,
    armed: Option<u64>,
    shapes: Vec<Shape>,
    preloaded_at: u64,
    writers: Vec<Writer>,
    /// Jobs of writers that have not been answered.
    busy: usize,
    schedule: Option<Schedule>,
    /// Readers that connect as soon as the window allows.
    waiting: VecDeque<usize>,
    /// Readers that connect at a time.
    later: BinaryHeap<Reverse<(u64, usize)>>,
    /// Readers whose sockets may hold more than was read.
    again: Vec<usize>,
    /// The same of replayers, who come after the live.
    replays: VecDeque<usize>,
    buffer: Vec<u8>,
    request: Vec<u8>,
    began: u64,
    next_progress: u64,
    told_deliveries: u64,
}

impl Failures {
    /// Adds what was found wrong.
    pub(crate) fn add(&mut self, what: impl FnOnce() -> String) {
        self.total += 1;
        if self.told.len() < TOLD {
            self.told.push(what());
        }
    }
}

impl Engine {
    /// A loop without connections.
    pub(crate) fn new(setup: Setup) -> Result<Self> {
        let poll = Poll::new().context("no poller")?;
        let clock = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&clock.as_raw_fd()), CLOCK, Interest::READABLE)?;
        let acks = Poll::new().context("no poller")?;
        poll.registry().register(&mut SourceFd(&acks.as_raw_fd()), WRITERS, Interest::READABLE)?;
        let Setup { target, streams, size, preload, preload_size, .. } = &setup;
        let shapes = (0..*streams).map(|stream| Shape::new(&target.run, stream, *size, *preload, *preload_size));
        let now = process::now();
        Ok(Self {
            figures: Figures::new((0..*streams).map(|_| *preload)),
            failures: Failures::default(),
            tally: Tally::default(),
            slots: Vec::new(),
            connect: Latencies::new(),
            back: Latencies::new(),
            away: 0,
            joining: 0,
            connecting: 0,
            stopped: false,
            poll,
            events: Some(mio::Events::with_capacity(1024)),
            acks,
            ack_events: Some(mio::Events::with_capacity(64)),
            clock,
            armed: None,
            shapes: shapes.collect(),
            preloaded_at: now,
            writers: (0..setup.writers.min(setup.streams).max(1)).map(|_| Writer::new()).collect(),
            busy: 0,
            schedule: None,
            waiting: VecDeque::new(),
            later: BinaryHeap::new(),
            again: Vec::new(),
            replays: VecDeque::new(),
            buffer: vec![0; READ],
            request: Vec::with_capacity(1024),
            began: now,
            next_progress: now + SECOND,
            told_deliveries: 0,
            setup,
        })
    }

    /// Waits, until `until` at the latest, for something to happen, and handles it.
    pub(crate) fn turn(&mut self, until: u64) -> Result<()> {
        let now = process::now();
        self.pump(now);
        self.reconnect_due(now);
        self.begin_connections(now);
        self.tell_progress(now);
        self.arm()?;
        let mut events = self.events.take().expect("a turn gives the events back");
        self.look(&mut events, self.patience(now, until))?;
        for index in std::mem::take(&mut self.again) {
            self.read(index, false);
        }
        for (handled, event) in events.iter().enumerate() {
            match event.token() {
                CLOCK | WRITERS => {}
                Token(reader) => self.reader_ready(reader, event),
            }
            self.pump(process::now());
            if handled % READERS_AT_ONCE == 0 {
                self.hear_writers()?;
            }
        }
        self.events = Some(events);
        self.read_replays();
        self.hear_writers()
    }

    /// Waits for something to happen: awake for a moment, then asleep.
    fn look(&mut self, events: &mut mio::Events, patience: Duration) -> Result<()> {
        let asleep_at = process::now() + AWAKE.min(patience.as_nanos() as u64);
        loop {
            let now = process::now();
            let asleep = now >= asleep_at;
            let polled = self.poll.poll(events, Some(if asleep { patience } else { Duration::ZERO }));
            match polled {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error).context("the poller failed");
                }
                _ if asleep || !events.is_empty() => return Ok(()),
                // Whoever shares the core, such as a store, goes first.
                _ => std::thread::yield_now(),
            }
        }
    }

    /// Handles what the writers' connections have.
    fn hear_writers(&mut self) -> Result<()> {
        if self.busy == 0 {
            return Ok(());
        }
        let mut events = self.ack_events.take().expect("the events are given back");
        let polled = self.acks.poll(&mut events, Some(Duration::ZERO));
        for event in &events {
            self.writer_ready(event.token().0, event);
        }
        self.ack_events = Some(events);
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error).context("the poller failed"),
            _ => Ok(()),
        }
    }

    /// Turns until `done` says so. False: `until` came first, or the run has stopped.
    pub(crate) fn turn_until(&mut self, until: u64, mut done: impl FnMut(&mut Self) -> bool) -> Result<bool> {
        loop {
            if done(self) {
                return Ok(true);
            }
            if self.stopped || process::now() >= until {
                return Ok(false);
            }
            // Conditions are looked at a few hundred times a second, however much happens.
            self.turn(until.min(process::now() + SECOND / 200))?;
        }
    }

    /// Turns until that time.
    pub(crate) fn turn_for(&mut self, time: Duration) -> Result<()> {
        let until = process::now() + time.as_nanos() as u64;
        while !self.stopped && process::now() < until {
            self.turn(until)?;
        }
        Ok(())
    }

    /// How long the poller may wait.
    fn patience(&self, now: u64, until: u64) -> Duration {
        if !self.again.is_empty() || !self.replays.is_empty() {
            return Duration::ZERO;
        }
        let next = self.later.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        Duration::from_nanos(until.min(next).min(self.next_progress).saturating_sub(now))
    }

    /// Sets the clock to the next message that is due. The poller alone counts in milliseconds.
    fn arm(&mut self) -> Result<()> {
        let next = self.schedule.as_ref().and_then(Schedule::next_at);
        if next != self.armed
            && let Some(at) = next
        {
            let value = Timespec { tv_sec: (at / SECOND) as i64, tv_nsec: (at % SECOND) as i64 };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            rustix::time::timerfd_settime(&self.clock, TimerfdTimerFlags::ABSTIME, &once)?;
        }
        self.armed = next;
        Ok(())
    }

    fn tell_progress(&mut self, now: u64) {
        if now < self.next_progress {
            return;
        }
        self.next_progress = now + SECOND;
        let Tally { sent, acked, late, refusals, connect_errors, rotations, .. } = &self.tally;
        let delivered = self.figures.delivered;
        let open = self.slots.iter().filter(|slot| slot.is_joined()).count();
        let p50 = self.figures.publish_to_receive.percentiles().p50_us as f64 / 1000.0;
        let refused = refusals.values().sum::<u64>() + connect_errors;
        let line = format!(
            "{:>4} s  readers {open}  sent {sent}  acked {acked}  late {late}  delivered {delivered} (+{})  p50 {p50:.1} ms  \
             rotated {rotations}  refused {refused}  failures {}",
            (now - self.began) / SECOND,
            delivered - self.told_deliveries,
            self.failures.total,
        );
        self.told_deliveries = delivered;
        // A run goes on when nobody reads its progress.
        drop(writeln!(io::stderr(), "{line}"));
    }
}

/// Begins a connection, from `source` if it is given; `buffer` bounds what the kernel receives unread.
fn connect(address: SocketAddr, source: Option<IpAddr>, buffer: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(size) = buffer {
        socket.set_recv_buffer_size(size)?;
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

fn register(registry: &Registry, socket: &mut TcpStream, token: usize) -> io::Result<()> {
    registry.register(socket, Token(token), Interest::READABLE | Interest::WRITABLE)
}

/// Ends a connection so that the other side sees a reset and no port lingers.
fn reset(socket: TcpStream) {
    // A socket that cannot be set is closed in the ordinary way by the drop.
    drop(SockRef::from(&socket).set_linger(Some(Duration::ZERO)));
    drop(socket);
}
