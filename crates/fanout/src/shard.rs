//! A delivery shard: the sockets of many readers, and one synchronous struct that writes to them.
//!
//! A shard knows nothing of polls and threads: it is told what has happened ([`arrive`](Shard::arrive), a
//! [`bell`](Shard::on_bell), a socket that is [ready](Shard::on_ready), [time](Shard::on_timer)) and writes to its
//! sockets, which never block. The [`poller`] around it is a loop; a test, or a simulation, calls it by hand.
//!
//! All readers of a stream that have had everything stand at the same place, so they share one [`Burst`]: one `write` for
//! each reader and event, with no wake-up, no buffer, no timer and no lock of its own. A reader costs a slot of some 250
//! bytes. When its socket takes less than all, the slot keeps the rest (shared with the others) and leaves the place where
//! the rest stand; what came meanwhile it is given from the ring once its socket takes more. Nothing is queued for it: one
//! that has fallen behind the ring, or whose stream has to be looked at anew, [departs](Departure::Behind) and catches up
//! elsewhere.
//!
//! A long-poll waits here too, parked beside the others. It is given nothing: the first thing that comes, or the end of its
//! wait, sends it [back](Departure::Woken) to be answered.
//!
//! Timers are a sweep over the [alarms] of the slots: silence, the end of a response, and readers that take nothing.
//!
//! Whether a reader may go on is not asked for each message, but when it arrives and in a [review](Shard::review), which
//! goes over all slots.

mod alarms;
mod line;
mod parked;
mod poller;
mod review;
mod slot;
mod traffic;

use std::{
    collections::HashMap,
    hint::black_box,
    io::{ErrorKind, Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use slab::Slab;
use tailwater_protocol::{cursor, sse};

pub(crate) use self::traffic::Resume;
use self::{
    alarms::Alarms,
    line::{Bell, Came, Line},
    review::Review,
    slot::{Due, Place, Slot, SlotSeed, Unsent},
};
pub use self::{
    line::{Bell as ShardBell, LineId},
    poller::{Shards, ShardsSeed},
    slot::SlotId,
    traffic::{Arrival, Departure, End, Judge, Loss, Moment, Seat, ShardConfig, Stands, Wake, Wants},
};
use crate::{
    feed::Found,
    frame::{self, Burst, Says},
    metrics::ShardMetrics,
};

/// About how much a reader that waits for an answer is given.
const PAGE: usize = 1024 * 1024;
/// How much a reader that is behind is given at a time.
const WINDOW: usize = 256 * 1024;
/// How often in a row a reader that is behind is given something before others have their turn.
const TURNS: usize = 4;
/// The most bytes that a client may send while its response lasts: a request or two that it has pipelined.
const MAX_UNREAD: usize = 16 * 1024;
/// Into how many parts a sweep over all slots is cut, one for each tick.
const PARTS: usize = 8;
/// Between these a response lasts on that should end while its stream's session has lost its connection.
pub const STAY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// How often the time is looked at. A sweep takes eight ticks: a deadline is kept to a quarter of a second.
pub const TICK: Duration = Duration::from_millis(31);

/// The readers of one thread.
pub struct Shard<S, L> {
    config: ShardConfig,
    metrics: ShardMetrics,
    slots: Slab<Slot<S, L>>,
    alarms: Alarms,
    lines: Slab<Line>,
    /// The line of each feed, as its readers last looked where they stand. Those who looked before are on their way out.
    by_feed: HashMap<(usize, u64), LineId>,
    bell: Arc<Bell>,
    departures: Vec<Departure<S, L>>,
    began: Instant,
    /// The highest interval for cursors so far: clocks may be set back, cursors never go back.
    interval: u64,
    /// Where the sweep goes on.
    swept: usize,
    drain: Option<Drain>,
    judge: Judge<L>,
    review: Option<Review>,
}

#[derive(Debug, Clone, Copy)]
struct Drain {
    began: Instant,
    window: Duration,
}

/// What became of a write.
enum Sent {
    All,
    /// So much of it.
    Some(usize),
    Failed,
}

impl<S: Read + Write, L> Shard<S, L> {
    /// A shard without readers, who all may go on; `bell` is what their streams ring.
    pub fn new(config: ShardConfig, metrics: ShardMetrics, bell: Arc<Bell>, now: Instant) -> Self {
        Self {
            config,
            metrics,
            slots: Slab::new(),
            alarms: Alarms::default(),
            lines: Slab::new(),
            by_feed: HashMap::new(),
            bell,
            departures: Vec::new(),
            began: now,
            interval: 0,
            swept: 0,
            drain: None,
            judge: Arc::new(|_| None),
            review: None,
        }
    }

    /// How many readers it has.
    pub fn readers(&self) -> usize {
        self.slots.len()
    }

    /// Who has departed since the last time.
    pub fn departures(&mut self) -> Vec<Departure<S, L>> {
        std::mem::take(&mut self.departures)
    }

    /// The socket of a reader.
    pub fn socket(&mut self, id: SlotId) -> Option<&mut S> {
        self.slots.get_mut(id).map(|slot| &mut slot.socket)
    }

    /// Takes a reader in, and sends it what it has not had. `None` where it has departed at once.
    pub fn arrive(&mut self, arrival: Arrival<S, L>, now: Moment) -> Option<SlotId> {
        let Arrival { socket, seat, cursor, ends_at, expires_at, wants, unread, luggage } = arrival;
        if let Some(line) = self.known_line(&seat) {
            // First, because it may be over by now, and then it is no line for this reader.
            self.on_bell(line, now);
        }
        let line = self.line_of(&seat);
        let stand = seat.stand;
        let (now_millis, ends_at) = (self.millis(now.at), self.millis(ends_at));
        let expires_at = expires_at.map(|at| self.millis(at));
        let (unread, guard) = (unread.to_vec(), seat.guard);
        let id = self.seat(SlotSeed {
            socket,
            line,
            wants,
            stand,
            cursor,
            now: now_millis,
            ends_at,
            expires_at,
            unread,
            guard,
            luggage,
        });
        if self.judge(id, now) {
            return self.slots.contains(id).then_some(id);
        }
        // The line first, so that the reader can stand with the others behind what has just come.
        self.on_bell(line, now);
        self.attend(id, now);
        let greet = wants == Wants::Events { greet: true };
        if greet && self.slots.get(id).is_some_and(|slot| slot.unsent.is_none() && slot.stand.at == stand.at) {
            self.say(id, self.what_to_say(id), now);
        }
        if let Some(drain) = self.drain {
            self.drain_slot(id, drain);
        }
        self.slots.contains(id).then_some(id)
    }

    /// The bell of a stream has rung: its readers are sent what is new.
    pub fn on_bell(&mut self, line: LineId, now: Moment) {
        let cursor = self.interval(now);
        let mut has_moved = false;
        loop {
            let Some(known) = self.lines.get(line).filter(|line| !line.is_over) else { return };
            let news = match known.feed.look(known.turn, known.stand.seq) {
                Found::Moved | Found::Behind => return self.dissolve(line),
                Found::Batches { batches, next, closed } => Came::new(batches, next, closed),
            };
            self.wake_parked(line, &news);
            let Some(known) = self.lines.get(line) else { return };
            let burst = Burst::of(known.stand, news.of(known.kind), cursor, WINDOW);
            let moved = burst.until != known.stand || burst.ends;
            if !burst.is_empty() {
                self.deliver(line, &burst, now);
            }
            let Some(known) = self.lines.get_mut(line) else { return };
            known.move_to(burst.until);
            has_moved |= moved;
            if !moved || burst.is_all {
                break;
            }
        }
        for id in self.lines.get(line).map(|line| line.waiting.clone()).unwrap_or_default() {
            // What the line holds back, because it ends inside a character, is news for who waits for an answer.
            if has_moved || self.slots.get(id).is_some_and(|slot| slot.wants == Wants::Answer) {
                self.attend(id, now);
            }
        }
    }

    /// A socket can be read from or written to, or both, or has nothing for us at all.
    pub fn on_ready(&mut self, id: SlotId, now: Moment) {
        if self.slots.get(id).is_some_and(|slot| slot.unsent.is_some()) {
            self.flush(id, now);
        }
        if self.slots.contains(id) {
            self.listen_to(id);
        }
    }

    /// Some time has passed: looks at the next part of the slots.
    pub fn on_timer(&mut self, now: Moment) {
        // A drain has a window to keep to, and sweeps all at once.
        let parts = if self.drain.is_some() { 1 } else { PARTS };
        let part = self.slots.capacity().div_ceil(parts).max(1);
        let from = if self.swept >= self.slots.capacity() { 0 } else { self.swept };
        self.swept = from + part;
        let millis = self.millis(now.at);
        for id in from..self.swept {
            if self.alarms.rings(id, millis) && self.slots.contains(id) {
                self.look_after(id, now);
                self.set_alarm(id);
            }
        }
    }

    fn set_alarm(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get(id) {
            let Self { config, .. } = &self;
            let at = slot.due_at(whole_millis(config.keep_alive), whole_millis(config.write_timeout));
            self.alarms.set(id, at);
        }
    }

    /// Every response ends within the window.
    pub fn drain(&mut self, window: Duration, now: Instant) {
        let drain = Drain { began: now, window };
        self.drain = Some(drain);
        for id in self.ids() {
            self.drain_slot(id, drain);
        }
    }

    /// A reader whose socket cannot be waited for.
    pub fn give_up(&mut self, id: SlotId) {
        self.lose(id, Loss::Left);
    }

    /// Gives up all readers.
    pub fn close(&mut self) {
        for id in self.ids() {
            self.lose(id, Loss::Closed);
        }
    }

    fn ids(&self) -> Vec<SlotId> {
        self.slots.iter().map(|(id, _)| id).collect()
    }

    /// Sends a burst to all who stand at the line's place, which then stand behind it.
    fn deliver(&mut self, line: LineId, burst: &Burst, now: Moment) {
        let (millis, before) = (self.millis(now.at), self.lines[line].stand);
        let (mut sent, mut bytes) = (0, 0);
        // Backwards, because whoever leaves is replaced by the last one.
        for index in (0..self.lines[line].current.len()).rev() {
            let current = &self.lines[line].current;
            let (id, next) = (current[index], current[index.saturating_sub(1)]);
            // Has the next slot come out of memory while the kernel is busy with this one.
            black_box(self.slots[next].cursor);
            let slot = &mut self.slots[id];
            if !burst.suits(slot.cursor) {
                slot.stand = before;
                self.put(id, Place::Waiting);
                continue;
            }
            let cursor = slot.cursor;
            sent += 1;
            match attempt(|| burst.write(&mut slot.socket, cursor), burst.len()) {
                Sent::All => {
                    slot.quiet_since = millis;
                    bytes += burst.len();
                    if burst.ends {
                        self.end(id, End::Closed);
                    }
                }
                Sent::Some(written) => {
                    bytes += written;
                    slot.stand = burst.until;
                    self.keep(id, burst.rest(cursor, written), burst.ends.then_some(End::Closed), millis);
                }
                Sent::Failed => self.lose(id, Loss::Left),
            }
        }
        self.metrics.delivered(sent, bytes);
    }

    /// Brings a reader that does not stand with the others as far as the line is, as far as its socket takes it.
    fn advance(&mut self, id: SlotId, now: Moment) {
        let interval = self.interval(now);
        for _ in 0..TURNS {
            let Some(slot) = self.slots.get(id).filter(|slot| !slot.is_current() && slot.unsent.is_none()) else {
                return;
            };
            let line = &self.lines[slot.line];
            if line.is_over {
                return self.depart_behind(id);
            }
            let news = match line.feed.look(line.turn, slot.stand.seq) {
                Found::Moved | Found::Behind => return self.depart_behind(id),
                Found::Batches { batches, next, closed } => Came::new(batches, next, closed).until(line.stand.seq),
            };
            let burst = Burst::of(slot.stand, news.of(line.kind), slot.cursor.max(interval), WINDOW);
            let (line_seq, is_new) = (line.stand.seq, burst.until != slot.stand);
            if burst.is_empty() {
                let slot = &mut self.slots[id];
                slot.stand.seq = burst.until.seq;
                let place = if slot.stand.seq == line_seq { Place::Current } else { Place::Waiting };
                return self.put(id, place);
            }
            if !self.send(id, &burst, now) || !is_new {
                return;
            }
        }
        // Others first. Its socket takes more, so it is told no more that it does: the sweep comes back to it.
        self.put(id, Place::Waiting);
    }

    /// Sends a burst to one reader; whether it took all of it and the response goes on.
    fn send(&mut self, id: SlotId, burst: &Burst, now: Moment) -> bool {
        let millis = self.millis(now.at);
        let slot = &mut self.slots[id];
        let ending = burst.ends.then_some(End::Closed);
        slot.stand = burst.until;
        match attempt(|| slot.socket.write(burst.bytes()), burst.len()) {
            Sent::All => {
                slot.quiet_since = millis;
                self.metrics.delivered(1, burst.len());
                if let Some(end) = ending {
                    self.end(id, end);
                }
                ending.is_none()
            }
            Sent::Some(written) => {
                self.metrics.delivered(1, written);
                self.keep(id, burst.rest(0, written), ending, millis);
                false
            }
            Sent::Failed => {
                self.lose(id, Loss::Left);
                false
            }
        }
    }

    /// A control event of its own, for a reader with nothing half written.
    fn say(&mut self, id: SlotId, says: Says, now: Moment) {
        let floor = self.slots[id].cursor.max(self.interval(now));
        let burst = Burst::control(self.stand_of(id), floor, says);
        self.send(id, &burst, now);
    }

    /// What a control event may say to a reader: that this is all only if it has had all that the ring holds. What waits
    /// for what completes it, and what the bell is still to ring for, it has not had.
    fn what_to_say(&self, id: SlotId) -> Says {
        let line = &self.lines[self.slots[id].line];
        match line.feed.look(line.turn, self.stand_of(id).seq) {
            Found::Batches { batches, .. } if batches.is_empty() => Says::All,
            Found::Batches { .. } | Found::Behind | Found::Moved => Says::More,
        }
    }

    /// The socket takes no more for now.
    fn keep(&mut self, id: SlotId, rest: Bytes, ending: Option<End>, millis: u64) {
        self.metrics.partial.inc();
        self.put(id, Place::Busy);
        let slot = &mut self.slots[id];
        slot.ending = ending;
        slot.unsent = Some(Box::new(Unsent { rest, since: millis }));
    }

    fn flush(&mut self, id: SlotId, now: Moment) {
        let millis = self.millis(now.at);
        let slot = &mut self.slots[id];
        let Some(unsent) = &mut slot.unsent else { return };
        match attempt(|| slot.socket.write(&unsent.rest), unsent.rest.len()) {
            Sent::Failed => return self.lose(id, Loss::Left),
            Sent::Some(0) => return,
            Sent::Some(written) => {
                self.metrics.bytes.inc_by(written as u64);
                unsent.rest = unsent.rest.slice(written..);
                unsent.since = millis;
                return;
            }
            Sent::All => self.metrics.bytes.inc_by(unsent.rest.len() as u64),
        }
        slot.unsent = None;
        slot.quiet_since = millis;
        match slot.ending {
            Some(end) => self.end(id, end),
            None if slot.has_lapsed(millis) => self.end_with_retry(id, now),
            None => self.advance(id, now),
        }
    }

    /// Takes what the client sends while its response lasts: another request as a rule, or its end.
    fn listen_to(&mut self, id: SlotId) {
        let slot = &mut self.slots[id];
        let mut buffer = [0; 2048];
        loop {
            match slot.socket.read(&mut buffer) {
                Ok(0) => return self.lose(id, Loss::Left),
                Ok(length) => slot.unread.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.lose(id, Loss::Left),
            }
            if slot.unread.len() > MAX_UNREAD {
                return self.lose(id, Loss::Noisy);
            }
        }
    }

    fn look_after(&mut self, id: SlotId, now: Moment) {
        let millis = self.millis(now.at);
        let slot = &self.slots[id];
        if let Some(unsent) = &slot.unsent {
            if millis.saturating_sub(unsent.since) >= whole_millis(self.config.write_timeout) {
                self.lose(id, Loss::Stalled);
            }
            return;
        }
        if slot.wants == Wants::Answer {
            return self.look_after_parked(id, millis);
        }
        if millis >= slot.ends_at && !self.stays(id, millis) {
            return self.end_with_retry(id, now);
        }
        let slot = &self.slots[id];
        if !slot.is_current() {
            self.attend(id, now);
        }
        let Some(slot) = self.slots.get(id).filter(|slot| slot.unsent.is_none()) else { return };
        if millis.saturating_sub(slot.quiet_since) >= whole_millis(self.config.keep_alive) {
            let is_alive = self.lines[slot.line].feed.pulse().is_alive();
            self.say(id, if is_alive { self.what_to_say(id) } else { Says::More }, now);
        }
    }

    /// Whether a response lasts on although its time is over, because its session has lost its connection: while the store
    /// is away its reader would not be let in again. When it is back, they do not all leave at once.
    fn stays(&mut self, id: SlotId, millis: u64) -> bool {
        let slot = &mut self.slots[id];
        let stays = slot.due == Due::Time && self.drain.is_none() && self.lines[slot.line].feed.pulse().is_lost();
        if stays {
            let (least, most) = (whole_millis(STAY.0), whole_millis(STAY.1));
            slot.put_off(millis + least + (self.config.random)() % (most - least));
        }
        stays
    }

    /// The response has lasted as long as it may.
    fn end_with_retry(&mut self, id: SlotId, now: Moment) {
        let mut events = Vec::new();
        let (end, (least, most)) = match (self.slots[id].due, self.drain) {
            (Due::Lapse(why), _) => {
                sse::write_unauthorized(&mut events, why);
                (End::Lapsed(why), self.config.drained_retry)
            }
            (Due::Time, Some(_)) => (End::Drained, self.config.drained_retry),
            (Due::Time, None) => (End::Rotated, self.config.rotated_retry),
        };
        let spread = whole_millis(most.saturating_sub(least)).max(1);
        sse::write_retry(&mut events, whole_millis(least) + (self.config.random)() % spread);
        let last = Bytes::from([&frame::chunk(&events), frame::LAST_CHUNK].concat());
        let millis = self.millis(now.at);
        let slot = &mut self.slots[id];
        match attempt(|| slot.socket.write(&last), last.len()) {
            Sent::All => {
                self.metrics.bytes.inc_by(last.len() as u64);
                self.end(id, end);
            }
            Sent::Some(written) => {
                self.metrics.bytes.inc_by(written as u64);
                self.keep(id, last.slice(written..), Some(end), millis);
            }
            Sent::Failed => self.lose(id, Loss::Left),
        }
    }

    fn drain_slot(&mut self, id: SlotId, drain: Drain) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        // Neighbours are far from each other in the window; who came together does not leave together.
        let share = f64::from((id as u32).wrapping_mul(2_654_435_769)) / f64::from(u32::MAX);
        let end = drain.began + drain.window.mul_f64(share);
        let end = u64::try_from(end.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        if end < slot.ends_at {
            (slot.ends_at, slot.due) = (end, Due::Time);
            self.alarms.set_off(id);
        }
    }

    fn interval(&mut self, now: Moment) -> u64 {
        self.interval = self.interval.max(cursor::interval(now.unix_ms));
        self.interval
    }

    fn millis(&self, at: Instant) -> u64 {
        whole_millis(at.saturating_duration_since(self.began))
    }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn attempt(mut write: impl FnMut() -> std::io::Result<usize>, length: usize) -> Sent {
    loop {
        return match write() {
            Ok(written) if written >= length => Sent::All,
            Ok(written) => Sent::Some(written),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Some(0),
            Err(_) => Sent::Failed,
        };
    }
}

#[cfg(test)]
mod tests;
