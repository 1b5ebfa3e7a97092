//! Idempotent producers (protocol section 5.2.1), bounded.

use std::collections::BTreeMap;

use tailwater_protocol::{Producer, ProducerId};

/// The most producers that a stream remembers. A new one beyond it is refused until another has been idle for
/// [`PRODUCER_IDLE_MS`]; forgetting one that is in use would let its retries in twice.
pub const MAX_PRODUCERS: usize = 1_500;
/// After how much of S2's time without an append a producer may be forgotten for a new one: a day.
pub const PRODUCER_IDLE_MS: u64 = 24 * 60 * 60 * 1000;

/// The producers of a stream, each with the last claim that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producers(BTreeMap<ProducerId, Accepted>);

/// The last claim accepted of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The epoch.
    pub epoch: u64,
    /// The sequence number within the epoch.
    pub seq: u64,
    /// When, by the record's timestamp.
    pub at_ms: u64,
}

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Accept,
    /// It was accepted before; `highest` is the last that was.
    Duplicate {
        /// The highest sequence number accepted in this epoch.
        highest: u64,
    },
    /// A later epoch has taken over.
    Stale {
        /// The epoch in force.
        current: u64,
    },
    /// A new epoch has to start at 0.
    EpochStart,
    /// Something before it is missing.
    Gap {
        /// What would be next.
        expected: u64,
    },
    /// The stream remembers as many producers as it may, none of them idle.
    Full,
}

impl Producers {
    /// Judges a claim at a time. `also` overrides what is remembered, for claims that are about to be appended.
    #[must_use]
    pub fn judge(&self, claim: &Producer, at_ms: u64, also: Option<Accepted>, pending: usize) -> Verdict {
        match also.as_ref().or_else(|| self.0.get(&claim.id)) {
            None if claim.seq != 0 => Verdict::Gap { expected: 0 },
            None if self.live_at(at_ms) + pending >= MAX_PRODUCERS => Verdict::Full,
            None => Verdict::Accept,
            Some(last) if claim.epoch < last.epoch => Verdict::Stale { current: last.epoch },
            Some(last) if claim.epoch > last.epoch && claim.seq != 0 => Verdict::EpochStart,
            Some(last) if claim.epoch > last.epoch => Verdict::Accept,
            Some(last) if claim.seq <= last.seq => Verdict::Duplicate { highest: last.seq },
            Some(last) if claim.seq == last.seq + 1 => Verdict::Accept,
            Some(last) => Verdict::Gap { expected: last.seq + 1 },
        }
    }

    /// What is remembered of a producer.
    #[must_use]
    pub fn get(&self, id: &ProducerId) -> Option<&Accepted> {
        self.0.get(id)
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of their ids.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&ProducerId, &Accepted)> {
        self.0.iter()
    }

    /// Remembers what an earlier program wrote down.
    pub(crate) fn restore(&mut self, id: ProducerId, accepted: Accepted) {
        self.0.insert(id, accepted);
    }

    /// Folds a claim that stands in the log. One that [`judge`](Self::judge) would not have let in changes nothing.
    pub(crate) fn fold(&mut self, claim: &Producer, at_ms: u64) {
        if self.judge(claim, at_ms, None, 0) != Verdict::Accept {
            return;
        }
        if !self.0.contains_key(&claim.id) && self.0.len() >= MAX_PRODUCERS {
            self.0.retain(|_, last| is_live(last, at_ms));
        }
        self.0.insert(claim.id.clone(), Accepted { epoch: claim.epoch, seq: claim.seq, at_ms });
    }

    /// How many could not be forgotten at this time. Counts only when it matters.
    fn live_at(&self, at_ms: u64) -> usize {
        if self.0.len() < MAX_PRODUCERS / 2 {
            return self.0.len();
        }
        self.0.values().filter(|last| is_live(last, at_ms)).count()
    }
}

fn is_live(last: &Accepted, at_ms: u64) -> bool {
    last.at_ms.saturating_add(PRODUCER_IDLE_MS) > at_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: &str, epoch: u64, seq: u64) -> Producer {
        Producer { id: ProducerId::new(id).unwrap(), epoch, seq }
    }

    #[test]
    fn claims_are_judged_as_the_protocol_says() {
        let mut producers = Producers::default();
        assert_eq!(producers.judge(&claim("a", 0, 5), 0, None, 0), Verdict::Gap { expected: 0 });
        assert_eq!(producers.judge(&claim("a", 3, 1), 0, None, 0), Verdict::Gap { expected: 0 });
        producers.fold(&claim("a", 3, 0), 0);
        producers.fold(&claim("a", 3, 1), 0);
        for (epoch, seq, verdict) in [
            (3, 0, Verdict::Duplicate { highest: 1 }),
            (3, 1, Verdict::Duplicate { highest: 1 }),
            (3, 2, Verdict::Accept),
            (3, 3, Verdict::Gap { expected: 2 }),
            (2, 9, Verdict::Stale { current: 3 }),
            (4, 1, Verdict::EpochStart),
            (4, 0, Verdict::Accept),
        ] {
            assert_eq!(producers.judge(&claim("a", epoch, seq), 0, None, 0), verdict, "epoch {epoch} seq {seq}");
        }
    }

    #[test]
    fn a_hundred_thousand_ids_stay_within_the_limit_and_none_in_use_is_forgotten() {
        let mut producers = Producers::default();
        for n in 0..100_000u64 {
            producers.fold(&claim(&format!("producer-{n}"), 0, 0), n);
        }
        assert_eq!(producers.len(), MAX_PRODUCERS);
        assert!(producers.get(&claim("producer-0", 0, 0).id).is_some(), "the first is still remembered");
        assert_eq!(producers.judge(&claim("late", 0, 0), 100_000, None, 0), Verdict::Full);

        let a_day_later = PRODUCER_IDLE_MS + 100_000;
        assert_eq!(producers.judge(&claim("late", 0, 0), a_day_later, None, 0), Verdict::Accept);
        producers.fold(&claim("late", 0, 0), a_day_later);
        assert_eq!(producers.len(), 1, "all the idle ones went");
    }

    #[test]
    fn claims_that_are_under_way_count_towards_the_limit() {
        let mut producers = Producers::default();
        for n in 0..MAX_PRODUCERS - 1 {
            producers.fold(&claim(&n.to_string(), 0, 0), 0);
        }
        assert_eq!(producers.judge(&claim("x", 0, 0), 0, None, 0), Verdict::Accept);
        assert_eq!(producers.judge(&claim("x", 0, 0), 0, None, 1), Verdict::Full);
    }
}
