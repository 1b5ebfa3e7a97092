//! When slots are to be looked at, beside the slots.
//!
//! A slot is two lines of the processor's cache, and with many readers each look at one is a look at memory. Sweeps that
//! looked at all of them four times a second would look at as many as deliveries do. So what a sweep goes over is a list of
//! times, one next to the other.
//!
//! An alarm never rings too late; it may ring too early. A delivery puts off what its reader's silence would have done, and
//! does not touch the alarm: whoever is looked at says when to be looked at again.

use super::slot::SlotId;

/// When each slot is to be looked at, in milliseconds of the shard.
#[derive(Debug, Default)]
pub(super) struct Alarms(Vec<u64>);

impl Alarms {
    /// A slot is to be looked at as soon as this.
    pub(super) fn set(&mut self, id: SlotId, at: u64) {
        if id >= self.0.len() {
            self.0.resize(id + 1, u64::MAX);
        }
        self.0[id] = at;
    }

    /// A slot is to be looked at by the next sweep: something about it has changed.
    pub(super) fn set_off(&mut self, id: SlotId) {
        self.set(id, 0);
    }

    /// Nobody is at this slot any more.
    pub(super) fn turn_off(&mut self, id: SlotId) {
        self.set(id, u64::MAX);
    }

    /// Whether a slot is to be looked at.
    pub(super) fn rings(&self, id: SlotId, millis: u64) -> bool {
        self.0.get(id).is_some_and(|at| *at <= millis)
    }
}
