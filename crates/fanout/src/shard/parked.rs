//! Readers that wait for an answer: long-polls. They are woken, and never written to.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use super::{
    Moment, Shard, Wake, Wants,
    line::{Came, LineId},
    slot::{Place, SlotId},
};
use crate::feed::Found;

impl<S: Read + Write, L> Shard<S, L> {
    /// Looks after a reader that does not stand with the others.
    pub(super) fn attend(&mut self, id: SlotId, now: Moment) {
        match self.slots.get(id).map(|slot| (slot.wants, slot.place)) {
            None | Some((_, Place::Current | Place::Parked)) => {}
            Some((Wants::Events { .. }, Place::Waiting | Place::Busy)) => self.advance(id, now),
            Some((Wants::Answer, Place::Waiting | Place::Busy)) => self.park(id),
        }
    }

    /// Looks after a reader that waits for an answer when some time has passed. It is sent nothing: of its response not
    /// even the head is with the client.
    pub(super) fn look_after_parked(&mut self, id: SlotId, millis: u64) {
        if millis < self.slots[id].ends_at {
            if self.slots[id].place != Place::Parked {
                self.park(id);
            }
            return;
        }
        // What has come is given out, however late it is: that nothing has is told only of a ring that holds nothing.
        let wake = match self.come_for(id) {
            Ok(wake) => wake,
            Err(_) => Wake::TimedOut { is_fresh: self.lines[self.slots[id].line].feed.pulse().is_alive() },
        };
        self.wake(id, wake);
    }

    /// Lets a reader wait with the others, unless something is there for it.
    fn park(&mut self, id: SlotId) {
        let next = match self.come_for(id) {
            Ok(wake) => return self.wake(id, wake),
            Err(next) => next,
        };
        let line_seq = self.lines[self.slots[id].line].stand.seq;
        let slot = &mut self.slots[id];
        slot.stand.seq = slot.stand.seq.max(next);
        let place = if slot.stand.seq == line_seq { Place::Parked } else { Place::Waiting };
        self.put(id, place);
    }

    /// What there is to wake a reader with, or else how far there is nothing for it.
    fn come_for(&self, id: SlotId) -> Result<Wake, u64> {
        let line = &self.lines[self.slots[id].line];
        if line.is_over {
            return Ok(Wake::Moved);
        }
        let stand = self.stand_of(id);
        match line.feed.look(line.turn, stand.seq) {
            Found::Moved | Found::Behind => Ok(Wake::Moved),
            Found::Batches { batches, next, closed } => {
                let delivery = Came::new(batches, next, closed).delivery(stand);
                delivery.map(|delivery| Wake::News(Arc::new(delivery))).ok_or(next)
            }
        }
    }

    /// Wakes all who wait for the first thing that comes.
    pub(super) fn wake_parked(&mut self, line: LineId, came: &Came) {
        let known = &self.lines[line];
        if known.parked.is_empty() {
            return;
        }
        let Some(delivery) = came.delivery(known.stand) else { return };
        let delivery = Arc::new(delivery);
        for id in known.parked.clone() {
            self.wake(id, Wake::News(Arc::clone(&delivery)));
        }
    }
}
