//! From offsets to places in logs, and from places to what has to be read.
//!
//! What a stream serves is a chain of segments, each a stretch of some log with a birth of its own, and then its own
//! messages. An offset names the log that it points into by its birth, so one of another life is recognised, where other
//! servers silently serve wrong data.

use tailwater_protocol::Offset;

use crate::{
    mark::{Segment, StreamName},
    state::{Life, StreamState},
};

/// A place within a stream: the next record to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment of the chain, or the number of segments for the stream's own log.
    pub segment: usize,
    /// The sequence number within that segment's log.
    pub seq: u64,
}

/// Why an offset points nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// It lies beyond the tail: no server has given it out.
    #[error("the offset lies beyond the tail")]
    Beyond,
    /// What it points to was deleted or trimmed; `earliest` is what is left.
    #[error("the offset is no longer available")]
    Gone {
        /// The earliest offset that can be read.
        earliest: Offset,
    },
}

/// A stretch of one log, to be read in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Whose log; `None` is the stream's own.
    pub source: Option<StreamName>,
    /// The birth of the offsets in it.
    pub birth: u64,
    /// The first sequence number to read.
    pub from: u64,
    /// The sequence number before which to stop.
    pub to: u64,
}

impl StreamState {
    /// Where the earliest message that is left stands, or would.
    #[must_use]
    pub fn start(&self) -> Place {
        let chain = self.chain();
        let first = chain.first().map_or_else(|| self.own_start(), |segment| self.first_in(segment));
        self.normalise(Place { segment: 0, seq: first })
    }

    /// Where the next message will stand.
    #[must_use]
    pub fn tail(&self) -> Place {
        Place { segment: self.chain().len(), seq: self.served_to().max(self.own_start()) }
    }

    /// The place that an offset names.
    pub fn resolve(&self, offset: Offset) -> Result<Place, Misplaced> {
        let chain = self.chain();
        if offset.birth == self.own_birth() {
            if offset.seq > self.next {
                return Err(Misplaced::Beyond);
            }
            // What stands before the `open` belongs to an earlier life, even one that was born in the same millisecond.
            if offset.seq < self.own_start() {
                return Err(self.gone());
            }
            return Ok(Place { segment: chain.len(), seq: offset.seq.min(self.tail().seq) });
        }
        if let Some(segment) = chain.iter().position(|segment| segment.birth == offset.birth) {
            if offset.seq > chain[segment].to {
                return Err(Misplaced::Beyond);
            }
            if offset.seq < self.first_in(&chain[segment]) {
                return Err(self.gone());
            }
            return Ok(self.normalise(Place { segment, seq: offset.seq }));
        }
        Err(if offset.birth > self.own_birth() { Misplaced::Beyond } else { self.gone() })
    }

    /// The offset of a place: what a client that has read up to there is told. Places at which nothing was read yet
    /// have the offset of what stands before, so that a fork's tail is the fork offset until it has messages of its own.
    #[must_use]
    pub fn offset_at(&self, place: Place) -> Offset {
        let chain = self.chain();
        match chain.get(place.segment) {
            Some(segment) => Offset { birth: segment.birth, seq: place.seq },
            None if self.own_end().is_some_and(|end| place.seq < end) => {
                Offset { birth: self.own_birth(), seq: place.seq }
            }
            None => self.tail_offset(),
        }
    }

    /// The stretch to read at a place; `None` at the tail.
    #[must_use]
    pub fn span_at(&self, place: Place) -> Option<Span> {
        match self.chain().get(place.segment) {
            Some(segment) => {
                Some(Span { source: segment.source.clone(), birth: segment.birth, from: place.seq, to: segment.to })
            }
            None => {
                let to = self.served_to();
                (place.seq < to).then(|| Span { source: None, birth: self.own_birth(), from: place.seq, to })
            }
        }
    }

    /// The place behind a span that was read up to `seq`.
    #[must_use]
    pub fn after(&self, place: Place, seq: u64) -> Place {
        self.normalise(Place { segment: place.segment, seq })
    }

    /// The birth of offsets into the stream's own log.
    #[must_use]
    pub fn own_birth(&self) -> u64 {
        match &self.life {
            Life::Native(_) => 0,
            Life::Opened(life) => life.birth,
        }
    }

    fn chain(&self) -> &[Segment] {
        match &self.life {
            Life::Native(_) => &[],
            Life::Opened(life) => &life.chain,
        }
    }

    /// Where the stream's own messages start: behind its `open`, or what is left of a native log.
    fn own_start(&self) -> u64 {
        match &self.life {
            Life::Native(_) => self.trimmed,
            Life::Opened(life) => self.trimmed.max(life.opened_at + 1),
        }
    }

    /// Behind the stream's own last message; `None` where it has none.
    fn own_end(&self) -> Option<u64> {
        match &self.life {
            Life::Native(native) => native.tail,
            Life::Opened(life) => life.tail,
        }
    }

    fn first_in(&self, segment: &Segment) -> u64 {
        if segment.source.is_none() { segment.from.max(self.trimmed.min(segment.to)) } else { segment.from }
    }

    /// Moves a place at a segment's end to where reading goes on.
    fn normalise(&self, mut place: Place) -> Place {
        let chain = self.chain();
        while let Some(segment) = chain.get(place.segment) {
            if place.seq < segment.to {
                return place;
            }
            place.segment += 1;
            place.seq = chain.get(place.segment).map_or_else(|| self.own_start(), |next| self.first_in(next));
        }
        place
    }

    fn gone(&self) -> Misplaced {
        Misplaced::Gone { earliest: self.offset_at(self.start()) }
    }
}

#[cfg(test)]
mod tests;
