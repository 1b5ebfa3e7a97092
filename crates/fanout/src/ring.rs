//! The ring: the recent batches of a stream, bounded in bytes.
//!
//! It answers "what came after this position" for reconnects, long-polls and joins without touching S2. It is the truth
//! about its stretch of the log: every message that is visible in `start..next` is in it.

use std::{collections::VecDeque, sync::Arc};

use crate::batch::Batch;

/// Recent batches, contiguous and in order.
#[derive(Debug)]
pub struct Ring {
    batches: VecDeque<Arc<Batch>>,
    /// From where on nothing is missing.
    start: u64,
    /// Up to where it is known.
    next: u64,
    bytes: usize,
    limit: usize,
}

/// What becomes of the newest batch where a ring has to get smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newest {
    /// It stays, whatever its size.
    Stays,
    /// It goes like any other.
    Goes,
}

/// What a batch costs beside its messages, so that a flood of empty ones is bounded too.
const OVERHEAD: usize = 128;
/// What a message costs beside its bytes.
const MESSAGE_OVERHEAD: usize = 48;

impl Ring {
    /// An empty ring at a position, of at most this many bytes.
    pub fn new(at: u64, limit: usize) -> Self {
        Self { batches: VecDeque::new(), start: at, next: at, bytes: 0, limit }
    }

    /// An empty ring of the same limit, at another position.
    pub(crate) fn anew(&self, at: u64) -> Self {
        Self::new(at, self.limit)
    }

    /// Adds the next batch and lets go of the oldest ones beyond the limit. The newest stays whatever its size: live
    /// readers are about to be given it. What all rings hold together is the pool's to bound, which may take it too.
    pub fn push(&mut self, batch: Arc<Batch>) {
        debug_assert_eq!(batch.first, self.next, "batches are contiguous");
        self.next = batch.next;
        if batch.messages.is_empty() {
            return;
        }
        self.bytes += cost(&batch);
        self.batches.push_back(batch);
        self.shrink_to(self.limit, Newest::Stays);
    }

    /// Whether everything from this position on is here.
    pub(crate) fn holds(&self, seq: u64) -> bool {
        seq >= self.start && seq <= self.next
    }

    /// The batches that hold something at or after a position; `None` where some of it has gone.
    pub fn since(&self, seq: u64) -> Option<Vec<Arc<Batch>>> {
        if !self.holds(seq) {
            return None;
        }
        let first = self.batches.partition_point(|batch| batch.next <= seq);
        Some(self.batches.range(first..).cloned().collect())
    }

    /// From where on it holds no message.
    pub(crate) fn quiet_since(&self) -> u64 {
        self.batches.back().map_or(self.start, |newest| newest.next)
    }

    /// Up to where it is known.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// What it holds, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it holds no batch.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Lets go of the oldest batches beyond this many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize, newest: Newest) {
        let least = usize::from(newest == Newest::Stays);
        while self.bytes > bytes && self.batches.len() > least {
            self.let_go();
        }
    }

    /// Lets go of the oldest batch. Whoever has had its messages misses nothing, whatever marks stand behind them: an offset
    /// says no more. Who has not is behind the ring from now on.
    pub(crate) fn let_go(&mut self) {
        if let Some(oldest) = self.batches.pop_front() {
            self.bytes -= cost(&oldest);
            self.start = oldest.messages.last().map_or(oldest.next, |last| last.seq + 1);
        }
    }
}

/// What a batch takes: its messages, and the same once more as readers are sent them. A batch that some have to catch up
/// with is there in a second wording for a while, which is not counted.
fn cost(batch: &Batch) -> usize {
    OVERHEAD + 2 * batch.bytes + batch.messages.len() * MESSAGE_OVERHEAD
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use tailwater_protocol::Offset;

    use super::*;
    use crate::batch::Message;

    fn batch(first: u64, sizes: &[usize]) -> Arc<Batch> {
        let message = |(n, size): (usize, &usize)| Message { seq: first + n as u64, body: Bytes::from(vec![0; *size]) };
        let messages: Vec<Message> = sizes.iter().enumerate().map(message).collect();
        let next = first + sizes.len().max(1) as u64;
        Arc::new(Batch::new(first, first, next, Offset { birth: 1, seq: next }, messages, false))
    }

    #[test]
    fn who_has_had_the_messages_of_what_went_is_not_behind_for_the_marks_behind_them() {
        let mut ring = Ring::new(0, 1000);
        let (next, message) = (6, Message { seq: 0, body: Bytes::from_static(b"body") });
        ring.push(Arc::new(Batch::new(0, 0, next, Offset { birth: 1, seq: 1 }, vec![message], false)));
        ring.let_go();
        assert!(ring.since(0).is_none());
        assert!(ring.since(1).is_some_and(|batches| batches.is_empty()), "its reader would never get any further");
        assert_eq!((ring.quiet_since(), ring.next()), (1, next));
        ring.push(batch(next, &[10]));
        assert_eq!(ring.since(1).map(|batches| batches.len()), Some(1));
    }

    proptest! {
        #[test]
        fn what_it_holds_is_contiguous_whole_and_within_its_bytes(
            sizes in prop::collection::vec(prop::collection::vec(0usize..2000, 0..4), 1..60),
            limit in 500usize..20_000,
            at in 0u64..200,
            let_go in prop::collection::vec(0usize..60, 0..6),
        ) {
            let mut ring = Ring::new(0, limit);
            let mut all = Vec::new();
            let mut next = 0;
            for (n, sizes) in sizes.iter().enumerate() {
                let pushed = batch(next, sizes);
                next = pushed.next;
                all.extend(pushed.messages.iter().map(|message| message.seq));
                ring.push(pushed);
                prop_assert!(ring.bytes() <= limit || ring.batches.len() == 1);
                if let_go.contains(&n) {
                    ring.shrink_to(limit / 4, Newest::Goes);
                    prop_assert!(ring.bytes() <= limit / 4, "the newest, too");
                    ring.let_go();
                }
                let whole: usize = ring.batches.iter().map(|batch| cost(batch)).sum();
                prop_assert_eq!((ring.bytes(), ring.is_empty()), (whole, ring.batches.is_empty()));
                prop_assert!(ring.start <= ring.quiet_since() && ring.quiet_since() <= ring.next);
            }
            match ring.since(at) {
                Some(batches) => {
                    let seen: Vec<u64> = batches.iter().flat_map(|b| b.from(at)).map(|m| m.seq).collect();
                    let expected: Vec<u64> = all.into_iter().filter(|seq| *seq >= at).collect();
                    prop_assert_eq!(seen, expected);
                }
                None => prop_assert!(at < ring.start || at > next),
            }
        }
    }

    #[test]
    fn a_batch_larger_than_the_ring_is_kept_until_the_next() {
        let mut ring = Ring::new(0, 1000);
        ring.push(batch(0, &[5000]));
        assert_eq!(ring.since(0).map(|batches| batches.len()), Some(1));
        ring.push(batch(1, &[10]));
        assert!(ring.since(0).is_none(), "the large one has gone");
        assert_eq!(ring.since(1).map(|batches| batches.len()), Some(1));
    }

    #[test]
    fn marks_move_the_end_but_take_no_room() {
        let mut ring = Ring::new(7, 1000);
        ring.push(batch(7, &[]));
        assert_eq!(ring.quiet_since(), 7);
        assert!(ring.holds(8) && ring.holds(7));
        assert_eq!(ring.bytes(), 0);
        assert!(!ring.holds(9) && !ring.holds(6));
        ring.push(batch(8, &[5]));
        ring.push(batch(9, &[]));
        assert_eq!(ring.quiet_since(), 9);
    }
}
