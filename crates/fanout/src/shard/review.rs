//! Whether readers may go on: asked when they arrive, and in a review of all of them.
//!
//! A review goes over the slots in parts, so that deliveries are not held up by it. Who arrives while it lasts, or behind
//! it, is asked on arrival; so whoever changes something and then has all reviewed misses nobody.

use std::io::{Read, Write};

use tailwater_protocol::sse::Lapse;

use super::{
    Judge, Moment, Shard, Wake, Wants,
    slot::{Due, SlotId},
};

/// How many slots a review looks at before others have their turn.
pub(super) const PART: usize = 1024;

/// How far a review is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Review {
    next: SlotId,
    /// Whether there is to be another one behind it.
    again: bool,
}

impl<S: Read + Write, L> Shard<S, L> {
    /// The same shard, whose readers go on only as long as they may.
    #[must_use]
    pub fn judged_by(self, judge: Judge<L>) -> Self {
        Self { judge, ..self }
    }

    /// All readers are to be asked again. Where a review is under way, there is another one behind it.
    pub fn review(&mut self) {
        let review = self.review.map_or(Review { next: 0, again: false }, |review| Review { again: true, ..review });
        self.review = Some(review);
    }

    /// Whether a review is under way.
    pub fn is_reviewing(&self) -> bool {
        self.review.is_some()
    }

    /// Goes on with a review.
    pub fn review_part(&mut self, now: Moment) {
        let Some(Review { next, again }) = self.review.take() else { return };
        let (until, all) = (next + PART, self.slots.capacity());
        for id in next..until.min(all) {
            if self.slots.contains(id) {
                self.judge(id, now);
            }
        }
        self.review = match (until < all, again) {
            (true, _) => Some(Review { next: until, again }),
            (false, true) => Some(Review { next: 0, again: false }),
            (false, false) => None,
        };
    }

    /// Ends the response of a reader who may not go on, or has it end where it is in the middle of a chunk; whether that is
    /// so. One who waits for an answer is woken, to get one that says so.
    pub(super) fn judge(&mut self, id: SlotId, now: Moment) -> bool {
        let Some(lapse) = (self.judge)(&self.slots[id].luggage) else { return false };
        if self.slots[id].wants == Wants::Answer {
            self.wake(id, Wake::Moved);
        } else {
            self.dismiss(id, lapse, now);
        }
        true
    }

    fn dismiss(&mut self, id: SlotId, lapse: Lapse, now: Moment) {
        let slot = &mut self.slots[id];
        (slot.ends_at, slot.due) = (0, Due::Lapse(lapse));
        if slot.unsent.is_none() {
            self.end_with_retry(id, now);
        }
    }
}
