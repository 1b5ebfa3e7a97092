//! What of one stream is under way: up to [`MAX_FLIGHTS`] plain batches, or one batch of anything else.
//!
//! A plain batch is messages of appends without claim, sequence or closure, on condition of the token alone. Nothing in
//! it depends on what else the log holds, so several may be under way, and it does not matter in which order they land:
//! of two appends that were under way together, neither was sent after the answer to the other. All else (producers,
//! `Stream-Seq`, closures, creates, marks, pieces and commits, and a plain batch that carries a checkpoint) is decided on
//! the state that those before leave, and goes alone: it starts when nothing is in flight, and nothing starts beside it.
//!
//! - **Nobody starves.** Nothing starts beside a plain batch while anything that is not plain waits. So that waits for what
//!   is in flight at most, and whatever came meanwhile goes together with it or behind it.
//! - **Answers.** A plain append is answered by its ack: the birth in its offset is that of the life whose token was the
//!   condition. It needs nothing folded.
//! - **Folding.** The log is folded in its order. The ack of a batch that stands behind one without an ack is kept until
//!   it follows on what is folded, and no longer than anything is in flight that could fill what lies between. It keeps
//!   its place among the [`MAX_FLIGHTS`] until then, which bounds what is kept.
//! - **Refusals.** All that is in flight may be refused for the same reason, and the refusals come in any order. So what
//!   was refused is set aside until nothing is in flight, and goes back to the queue in the order in which it started,
//!   once. Nothing starts before.
//! - **Unknown fates.** Each batch is settled by itself, by its own identity. The first to move the token also settles
//!   that no late copy of the others lands: their moves are refused by a token that is not the one they were on, and each
//!   finds its own batch in the log or not. What had not landed when the token moved is refused, and decided again.
//! - **Bursts.** An ack of the store answers many writers at once, who come again within a moment. The first of them goes
//!   at once, and what follows gathers for [`GATHER`], so that it goes as one batch and not as one for each.

use std::collections::BTreeMap;

use tailwater_log::NewRecord;
use tailwater_upstream::AppendAck;
use tokio::time::Instant;

use crate::config::{GATHER, MAX_FLIGHTS};

/// What is under way, and what of it has ended and waits for the rest. `W` is what is remembered of a batch's writes.
#[derive(Debug)]
pub(super) struct Flights<W> {
    under_way: UnderWay,
    started: u64,
    /// What has landed behind what has no ack yet, by its first position.
    ahead: BTreeMap<u64, (Vec<NewRecord>, AppendAck)>,
    /// What was refused, in the order in which it started.
    refused: BTreeMap<u64, W>,
}

#[derive(Debug, Clone, Copy)]
enum UnderWay {
    Nothing,
    Plain {
        count: usize,
        /// When the next may start.
        next_from: Instant,
    },
    Alone,
}

/// One batch under way: which of all that this actor has started.
#[derive(Debug)]
pub(in crate::actor) struct Flight {
    number: u64,
}

/// What may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Anything.
    Whole,
    /// A plain batch, from then on.
    Beside { from: Instant },
    /// Nothing.
    No,
}

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self { under_way: UnderWay::Nothing, started: 0, ahead: BTreeMap::new(), refused: BTreeMap::new() }
    }
}

impl<W> Flights<W> {
    pub(super) fn are_under_way(&self) -> bool {
        !matches!(self.under_way, UnderWay::Nothing)
    }

    pub(super) fn room(&self) -> Room {
        match self.under_way {
            _ if !self.refused.is_empty() => Room::No,
            UnderWay::Nothing => Room::Whole,
            UnderWay::Plain { count, next_from } if count + self.ahead.len() < MAX_FLIGHTS => {
                Room::Beside { from: next_from }
            }
            UnderWay::Plain { .. } | UnderWay::Alone => Room::No,
        }
    }

    pub(super) fn begin_alone(&mut self) -> Flight {
        debug_assert!(!self.are_under_way(), "what depends on the state starts when nothing is in flight");
        self.under_way = UnderWay::Alone;
        self.number()
    }

    pub(super) fn begin_plain(&mut self, now: Instant) -> Flight {
        let others = match self.under_way {
            UnderWay::Plain { count, .. } => count,
            UnderWay::Nothing | UnderWay::Alone => 0,
        };
        self.under_way = UnderWay::Plain { count: others + 1, next_from: now + GATHER };
        self.number()
    }

    /// One of those under way has ended, however.
    pub(super) fn end(&mut self) {
        self.under_way = match self.under_way {
            UnderWay::Plain { count, next_from } if count > 1 => UnderWay::Plain { count: count - 1, next_from },
            UnderWay::Plain { .. } | UnderWay::Alone | UnderWay::Nothing => UnderWay::Nothing,
        };
    }

    /// Keeps what has landed behind what is still in flight.
    pub(super) fn keep_ahead(&mut self, records: Vec<NewRecord>, ack: AppendAck) {
        self.ahead.insert(ack.start.seq, (records, ack));
    }

    /// Of what is kept, that which stands at `next`. What others have brought meanwhile is let go, and everything where
    /// nothing in flight can fill what lies between.
    pub(super) fn next_ahead(&mut self, next: u64) -> Option<(Vec<NewRecord>, AppendAck)> {
        if self.ahead.is_empty() {
            return None;
        }
        self.ahead = self.ahead.split_off(&next);
        let found = self.ahead.remove(&next);
        if found.is_none() && !self.are_under_way() {
            self.ahead.clear();
        }
        found
    }

    /// The positions that are kept may mean nothing any more.
    pub(super) fn forget_ahead(&mut self) {
        self.ahead.clear();
    }

    pub(super) fn set_aside(&mut self, flight: &Flight, writes: W) {
        self.refused.insert(flight.number, writes);
    }

    fn number(&mut self) -> Flight {
        self.started += 1;
        Flight { number: self.started }
    }
}

impl<T> Flights<Vec<T>> {
    /// What was refused, in the order in which it started.
    pub(super) fn take_refused(&mut self) -> Vec<T> {
        std::mem::take(&mut self.refused).into_values().flatten().collect()
    }
}
