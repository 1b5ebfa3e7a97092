//! Batches: what every one of them has, whatever is in it.

use bytes::Bytes;

use crate::{
    mark::{BatchId, Checkpoint, Entry, Kind, Stamp},
    record::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, NewRecord},
    state::StreamState,
};

/// Room in every batch for what is not messages: fences, headers, and marks, of which the `open` of a deeply nested fork
/// is the largest. A checkpoint rides along only where there is room beside.
pub const BATCH_RESERVE: usize = 40 * 1024;

/// What a stamp and a header add to a record, at most.
const STAMP_RESERVE: usize = 64;

/// What must hold for a batch to land.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The fencing token alone.
    Token,
    /// The token, and that the log ends where the state was read.
    TokenAndPosition,
}

/// A batch, ready to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The records.
    pub records: Vec<NewRecord>,
    /// What must hold.
    pub condition: Condition,
    /// Its identity.
    pub batch: BatchId,
}

/// Puts the stamp on the last record of a batch.
#[derive(Debug)]
pub struct BatchBuilder<'a> {
    state: &'a StreamState,
    batch: BatchId,
    entries: Vec<(Kind, Bytes)>,
    checkpoint: Option<Checkpoint>,
}

impl<'a> BatchBuilder<'a> {
    /// An empty batch on a state.
    #[must_use]
    pub fn new(state: &'a StreamState, batch: BatchId) -> Self {
        Self { state, batch, entries: Vec::new(), checkpoint: state.checkpoint }
    }

    /// Adds a record.
    pub fn push(&mut self, kind: Kind, body: Bytes) {
        self.entries.push((kind, body));
    }

    /// Adds a checkpoint where one is due and the batch has room for it.
    pub fn checkpoint_if_due(&mut self) {
        if self.state.checkpoint_due() {
            self.checkpoint();
        }
    }

    /// Adds a checkpoint where the batch has room for it.
    pub fn checkpoint(&mut self) {
        let (checkpoint, body) = self.state.to_checkpoint();
        let kind = Kind::Checkpoint(checkpoint);
        let others: usize = self.entries.iter().map(|(kind, body)| metered(kind, body)).sum();
        let fits = others + metered(&kind, &body) + STAMP_RESERVE <= MAX_BATCH_BYTES;
        if fits && self.entries.len() < MAX_BATCH_RECORDS {
            self.entries.push((kind, body));
            self.checkpoint = Some(checkpoint);
        }
    }

    /// How many records there are so far.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The batch. On a state that ends inside another batch it is conditioned on the position, whatever was asked for: the
    /// log certainly goes on, and what it says there has to be known first.
    #[must_use]
    pub fn finish(self, condition: Condition) -> Plan {
        let condition = if self.state.is_inside_a_batch() { Condition::TokenAndPosition } else { condition };
        let last = self.entries.len().saturating_sub(1);
        let stamp = Stamp { batch: self.batch, checkpoint: self.checkpoint.map(|c| c.as_of) };
        let record = |(at, (kind, body)): (usize, (Kind, Bytes))| {
            Entry { stamp: (at == last).then_some(stamp), kind }.encode(body)
        };
        let records = self.entries.into_iter().enumerate().map(record).collect();
        Plan { records, condition, batch: self.batch }
    }
}

/// What S2 counts a record without a stamp as, in bytes.
pub(super) fn metered(kind: &Kind, body: &Bytes) -> usize {
    Entry { stamp: None, kind: kind.clone() }.encode(body.clone()).metered_bytes()
}
