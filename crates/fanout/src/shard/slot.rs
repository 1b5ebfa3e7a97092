//! The slot of one reader, and how it comes to its place and goes.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use slab::Slab;
use tailwater_protocol::sse::Lapse;

use super::{Departure, End, Loss, Shard, Stands, Wake, Wants, alarms::Alarms, line::LineId};
use crate::{actor::ReaderGuard, frame::Stand};

const A_MILLISECOND: Duration = Duration::from_millis(1);

/// Where a slot is in its shard.
pub type SlotId = usize;

/// A reader. What a delivery looks at stands first, in one line of the processor's cache: with many readers each look is
/// one at memory.
#[repr(C, align(64))]
pub(super) struct Slot<S, L> {
    pub(super) socket: S,
    /// The least cursor to send.
    pub(super) cursor: u64,
    /// Since when nothing was sent, in milliseconds of the shard.
    pub(super) quiet_since: u64,
    pub(super) line: LineId,
    pub(super) wants: Wants,
    pub(super) place: Place,
    /// Its index in the list of its place.
    index: u32,
    /// Where it stands, unless it stands with the others.
    pub(super) stand: Stand,
    /// When its response ends, in milliseconds of the shard.
    pub(super) ends_at: u64,
    pub(super) unsent: Option<Box<Unsent>>,
    pub(super) unread: Vec<u8>,
    /// Why its response ends, once what is unsent is sent.
    pub(super) ending: Option<End>,
    /// Why its response ends when it does.
    pub(super) due: Due,
    /// When its reader may not go on, in seconds of the shard, rounded up; the end of a response may be put off, but not
    /// beyond that.
    pub(super) expires: u32,
    _guard: ReaderGuard,
    pub(super) luggage: L,
}

/// Where a reader is among those of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// With the others: it has had what they have had.
    Current,
    /// With the others, and to be woken when something comes.
    Parked,
    /// Apart from them, with a socket that takes something; looked at with the next bell and the next sweep.
    Waiting,
    /// Apart from them, until its socket takes something.
    Busy,
}

/// Why a response ends at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// It has lasted long enough by then, or the gateway is shutting down.
    Time,
    /// Its reader may not go on.
    Lapse(Lapse),
}

/// What a socket did not take.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) rest: Bytes,
    /// Since when it has taken nothing, in milliseconds of the shard.
    pub(super) since: u64,
}

/// What a slot is made of.
pub(super) struct SlotSeed<S, L> {
    pub(super) socket: S,
    pub(super) line: LineId,
    pub(super) wants: Wants,
    pub(super) stand: Stand,
    pub(super) cursor: u64,
    pub(super) now: u64,
    pub(super) ends_at: u64,
    /// When its reader may not go on, in milliseconds of the shard.
    pub(super) expires_at: Option<u64>,
    pub(super) unread: Vec<u8>,
    pub(super) guard: ReaderGuard,
    pub(super) luggage: L,
}

impl<S, L> Slot<S, L> {
    pub(super) fn is_current(&self) -> bool {
        self.place == Place::Current
    }

    /// When there is something to do about it that nothing but time brings about, in milliseconds of the shard.
    pub(super) fn due_at(&self, keep_alive: u64, write_timeout: u64) -> u64 {
        if let Some(unsent) = &self.unsent {
            return unsent.since.saturating_add(write_timeout);
        }
        match self.place {
            Place::Current => self.ends_at.min(self.quiet_since.saturating_add(keep_alive)),
            Place::Parked => self.ends_at,
            // Every sweep tries to bring it to the others.
            Place::Waiting | Place::Busy => 0,
        }
    }

    /// Whether its reader may not go on any more.
    pub(super) fn has_lapsed(&self, millis: u64) -> bool {
        matches!(self.due, Due::Lapse(_)) && millis >= self.ends_at
    }

    /// Puts off the end of its response, as far as that can be.
    pub(super) fn put_off(&mut self, until: u64) {
        let expires = u64::from(self.expires) * 1000;
        self.ends_at = until.min(expires);
        if expires <= until {
            self.due = Due::Lapse(Lapse::Expired);
        }
    }
}

impl<S: Read + Write, L> Shard<S, L> {
    /// Makes a slot, which is at no place yet.
    pub(super) fn seat(&mut self, seed: SlotSeed<S, L>) -> SlotId {
        let SlotSeed { socket, line, wants, stand, cursor, now, ends_at, expires_at, unread, guard, luggage } = seed;
        let expires_at = expires_at.unwrap_or(u64::MAX);
        let due = if expires_at <= ends_at { Due::Lapse(Lapse::Expired) } else { Due::Time };
        self.lines[line].readers += 1;
        self.metrics.readers.inc();
        let id = self.slots.insert(Slot {
            socket,
            line,
            wants,
            place: Place::Busy,
            index: 0,
            stand,
            cursor,
            quiet_since: now,
            ends_at: ends_at.min(expires_at),
            unsent: None,
            unread,
            ending: None,
            due,
            expires: u32::try_from(expires_at.div_ceil(1000)).unwrap_or(u32::MAX),
            _guard: guard,
            luggage,
        });
        self.alarms.set_off(id);
        id
    }

    /// Puts a slot into a place, and takes it out of the one where it was.
    pub(super) fn put(&mut self, id: SlotId, place: Place) {
        let slot = &mut self.slots[id];
        if slot.place == place {
            return;
        }
        let (was, index) = (slot.place, slot.index as usize);
        slot.place = place;
        self.alarms.set_off(id);
        let line = &mut self.lines[slot.line];
        if let Some(list) = line.list(was) {
            list.swap_remove(index);
            if let Some(moved) = list.get(index) {
                self.slots[*moved].index = index as u32;
            }
        }
        let line = &mut self.lines[self.slots[id].line];
        if let Some(list) = line.list(place) {
            list.push(id);
            self.slots[id].index = (list.len() - 1) as u32;
        }
    }

    /// The response is complete.
    pub(super) fn end(&mut self, id: SlotId, reason: End) {
        let Slot { socket, unread, luggage, .. } = self.remove(id);
        self.departures.push(Departure::Ended { reason, socket, unread: unread.into(), luggage });
    }

    /// The connection is over.
    pub(super) fn lose(&mut self, id: SlotId, reason: Loss) {
        let Slot { socket, luggage, .. } = self.remove(id);
        self.departures.push(Departure::Lost { reason, socket, luggage });
    }

    /// The reader has to catch up elsewhere.
    pub(super) fn depart_behind(&mut self, id: SlotId) {
        if self.slots[id].wants == Wants::Answer {
            return self.wake(id, Wake::Moved);
        }
        let (stands, Slot { socket, cursor, ends_at, due, unread, luggage, .. }) = self.leave(id);
        self.metrics.fell_behind.inc();
        // Times were rounded down here. Where its reader may not go on by then, the response must not end before that for
        // having lasted long enough: nobody would say why.
        let rounded_off = matches!(due, Due::Lapse(_)).then_some(A_MILLISECOND);
        let ends_at = self.began + Duration::from_millis(ends_at) + rounded_off.unwrap_or_default();
        // It may have been sent one that is higher than its own.
        let cursor = cursor.max(self.interval);
        let unread = unread.into();
        self.departures.push(Departure::Behind { socket, stands, cursor, ends_at, unread, luggage });
    }

    /// The reader is to be answered.
    pub(super) fn wake(&mut self, id: SlotId, wake: Wake) {
        let (stands, Slot { socket, unread, luggage, .. }) = self.leave(id);
        self.departures.push(Departure::Woken { wake, socket, stands, unread: unread.into(), luggage });
    }

    /// Takes a reader out, which goes on elsewhere.
    fn leave(&mut self, id: SlotId) -> (Stands, Slot<S, L>) {
        let resume = Arc::clone(&self.lines[self.slots[id].line].resume);
        (Stands { resume, stand: self.stand_of(id) }, self.remove(id))
    }

    /// Where a reader stands.
    pub(super) fn stand_of(&self, id: SlotId) -> Stand {
        let slot = &self.slots[id];
        match slot.place {
            Place::Current | Place::Parked => self.lines[slot.line].stand,
            Place::Waiting | Place::Busy => slot.stand,
        }
    }

    fn remove(&mut self, id: SlotId) -> Slot<S, L> {
        self.put(id, Place::Busy);
        let slot = self.slots.remove(id);
        self.alarms.turn_off(id);
        self.metrics.readers.dec();
        self.leave_line(slot.line);
        if self.slots.is_empty() {
            // What a crowd has needed is given back when it has gone.
            self.slots = Slab::new();
            self.lines = Slab::new();
            self.alarms = Alarms::default();
        }
        slot
    }
}
