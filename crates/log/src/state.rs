//! The fold: `state(n + 1) = apply(state(n), record n)`.
//!
//! No clock, no I/O, no randomness: every pod that has folded the same records has the same state, and a checkpoint is
//! nothing but this state written down.

use std::collections::BTreeMap;

use tailwater_protocol::{Lifetime, Offset, Producer, StreamSeq};
use tailwater_wire::RecordError;

use crate::{
    mark::{Checkpoint, Entry, Gone, Kind, Message, Open, Reference, Segment, Stamp, StreamName},
    producers::Producers,
    record::Record,
    token::{Phase, Token},
};

/// The most forks that may point to a stream. Pods that add one at the same time may pass it by a few.
pub const MAX_FORKS: usize = 1_000;
/// Beyond this many a `ref` in the log is not counted, and its fork is not created.
pub(crate) const MAX_FORKS_FOLDED: usize = MAX_FORKS + 50;

/// Everything about a stream, as its log says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamState {
    /// The sequence number of the next record to fold.
    pub(crate) next: u64,
    /// The timestamp of the last record folded.
    pub(crate) clock_ms: u64,
    /// The fencing token in force.
    pub(crate) token: Token,
    /// The records before this one are trimmed.
    pub(crate) trimmed: u64,
    /// The metered bytes folded since the `open`, or since the log's beginning.
    pub(crate) weight: u64,
    /// The newest checkpoint known to stand in the log.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Who the stream is.
    pub(crate) life: Life,
}

/// Who a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// No gateway has opened it: native, or nothing at all.
    Native(Native),
    /// A gateway has.
    Opened(Box<Incarnation>),
}

/// A stream that only native writers have written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Native {
    /// The position after the last message; `None` where there was none.
    pub tail: Option<u64>,
}

/// One life of a stream, from its `open` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// The configuration.
    pub open: Open,
    /// The position of the `open`.
    pub opened_at: u64,
    /// The birth that this life's own offsets carry.
    pub birth: u64,
    /// What stands before this life's own messages, oldest first: inherited by a fork, or adopted from native writers.
    pub chain: Vec<Segment>,
    /// The position after the last own message; `None` where there is none.
    pub tail: Option<u64>,
    /// Set once the stream takes no more appends.
    pub closed: Option<Closed>,
    /// Set once it is deleted or expired.
    pub gone: Option<Gone>,
    /// Its producers.
    pub producers: Producers,
    /// The last `Stream-Seq`.
    pub stream_seq: Option<StreamSeq>,
    /// The last durable sign of use, for a sliding TTL.
    pub last_use_ms: u64,
    /// The forks that need its data, by incarnation.
    pub references: BTreeMap<u64, StreamName>,
}

/// A closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The position of the `close`: what stands behind it is not served.
    pub at: u64,
    /// The producer that closed it.
    pub by: Option<Producer>,
}

/// What folding a record meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// A message that readers see.
    Message,
    /// A mark, a piece, a command: readers do not see it.
    Hidden,
    /// A message that stands where none is served: after a closure, or between two lives.
    Unserved,
    /// A life began.
    Opened,
    /// It takes no more appends.
    Closed,
    /// It ended.
    Gone,
}

/// Why a record cannot be folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// It is not the next one: something lies between, or it was folded before.
    #[error("record {found} where {expected} was expected")]
    OutOfOrder {
        /// What would have been next.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// It has our header, and cannot be read.
    #[error("record {seq} cannot be read")]
    Unreadable {
        /// Its position.
        seq: u64,
        /// Why.
        #[source]
        source: RecordError,
    },
}

impl Default for Life {
    fn default() -> Self {
        Self::Native(Native::default())
    }
}

impl StreamState {
    /// The state before a record whose past is not known: what an `open` there starts from.
    #[must_use]
    pub fn starting_at(seq: u64) -> Self {
        Self { next: seq, ..Self::default() }
    }

    /// A log of which nothing but its end and its token is known, because no mark of ours stands in it.
    #[must_use]
    pub fn without_marks(next: u64, clock_ms: u64, token: Token) -> Self {
        let tail = (token == Token::Native || matches!(token, Token::Foreign(_))).then_some(next);
        Self {
            next,
            clock_ms,
            token,
            life: Life::Native(Native { tail: tail.filter(|tail| *tail > 0) }),
            ..Self::default()
        }
    }

    /// The same state without what only writers need: what readers are given a copy of.
    #[must_use]
    pub fn for_readers(&self) -> Self {
        let life = match &self.life {
            Life::Native(native) => Life::Native(*native),
            Life::Opened(life) => Life::Opened(Box::new(Incarnation {
                open: life.open.clone(),
                chain: life.chain.clone(),
                closed: life.closed.clone(),
                producers: Producers::default(),
                stream_seq: None,
                // Whether there are any decides between 404 and 410.
                references: life.references.iter().take(1).map(|(id, name)| (*id, name.clone())).collect(),
                ..**life
            })),
        };
        Self { life, token: self.token.clone(), ..*self }
    }

    /// Folds the next record.
    pub fn apply(&mut self, record: &Record) -> Result<Folded, FoldError> {
        if record.seq != self.next {
            return Err(FoldError::OutOfOrder { expected: self.next, found: record.seq });
        }
        let entry = Entry::decode(record).map_err(|source| FoldError::Unreadable { seq: record.seq, source })?;
        self.next = record.seq + 1;
        self.clock_ms = self.clock_ms.max(record.timestamp);
        self.weight = self.weight.saturating_add(record.metered_bytes() as u64);
        if let Some(Stamp { checkpoint: Some(as_of), .. }) = entry.stamp {
            self.note_checkpoint(Checkpoint { as_of, weight: 0 }, record);
        }
        Ok(self.apply_kind(record, entry.kind))
    }

    fn apply_kind(&mut self, record: &Record, kind: Kind) -> Folded {
        match kind {
            Kind::Fence(token) => {
                self.token = Token::parse(&token);
                Folded::Hidden
            }
            Kind::Trim(before) => {
                self.trimmed = self.trimmed.max(before.min(self.next));
                Folded::Hidden
            }
            Kind::Checkpoint(checkpoint) => {
                self.note_checkpoint(checkpoint, record);
                Folded::Hidden
            }
            Kind::Open(open) => {
                self.open(*open, record);
                Folded::Opened
            }
            Kind::Message(message) => self.message(record, &message),
            Kind::Commit(commit) => self.message(record, &commit.message),
            Kind::Delivery(_) => self.message(record, &Message::default()),
            Kind::Close(close) => {
                self.set_phase(Phase::Closed);
                self.in_life(|life| {
                    if let Some(by) = &close.by {
                        life.producers.fold(by, record.timestamp);
                    }
                    life.last_use_ms = life.last_use_ms.max(record.timestamp);
                    life.closed.get_or_insert(Closed { at: record.seq, by: close.by });
                });
                Folded::Closed
            }
            Kind::Gone(gone) => {
                self.set_phase(Phase::Gone);
                self.in_life(|life| {
                    life.gone.get_or_insert(gone);
                });
                Folded::Gone
            }
            Kind::Touch => {
                self.in_life(|life| life.last_use_ms = life.last_use_ms.max(record.timestamp));
                Folded::Hidden
            }
            Kind::Ref(reference) => {
                self.in_life(|life| life.refer(reference));
                Folded::Hidden
            }
            Kind::Unref(reference) => {
                self.in_life(|life| {
                    life.references.remove(&reference.incarnation);
                });
                Folded::Hidden
            }
            Kind::Piece(_) | Kind::Sub(_) | Kind::Unsub { .. } | Kind::Skipped => Folded::Hidden,
        }
    }

    fn message(&mut self, record: &Record, message: &Message) -> Folded {
        match &mut self.life {
            Life::Native(native) => {
                if matches!(self.token, Token::Ours(_)) {
                    return Folded::Unserved;
                }
                native.tail = Some(record.seq + 1);
                Folded::Message
            }
            Life::Opened(life) if life.closed.is_some() || life.gone.is_some() => Folded::Unserved,
            Life::Opened(life) => {
                life.tail = Some(record.seq + 1);
                life.last_use_ms = life.last_use_ms.max(record.timestamp);
                if let Some(claim) = &message.producer {
                    life.producers.fold(claim, record.timestamp);
                }
                if message.stream_seq.is_some() {
                    life.stream_seq.clone_from(&message.stream_seq);
                }
                Folded::Message
            }
        }
    }

    fn open(&mut self, open: Open, record: &Record) {
        let chain = match &open.fork {
            Some(fork) => fork.chain.clone(),
            None if open.adopts_native => {
                vec![Segment { birth: 0, source: None, from: 0, to: record.seq }]
            }
            None => Vec::new(),
        };
        // Offsets of a fork must sort after all that it inherits, whatever the clocks said.
        let birth = chain.last().map_or(record.timestamp, |last| record.timestamp.max(last.birth.saturating_add(1)));
        // The fence of the same batch stands before the `open`; a fold that starts here has not seen it.
        if self.token.ours_in(Phase::Open) != Some(open.incarnation)
            && self.token.ours_in(Phase::Closed) != Some(open.incarnation)
        {
            self.token = Token::ours(Phase::Open, open.incarnation);
        }
        // Nothing of an earlier life is part of this one's state, so that a fold may start at the `open`.
        self.weight = record.metered_bytes() as u64;
        self.checkpoint = None;
        self.trimmed = 0;
        self.life = Life::Opened(Box::new(Incarnation {
            opened_at: record.seq,
            birth,
            chain,
            tail: None,
            closed: None,
            gone: None,
            producers: Producers::default(),
            stream_seq: None,
            last_use_ms: record.timestamp,
            references: BTreeMap::new(),
            open,
        }));
    }

    /// `close` and `gone` stand in one batch with the fence that says the same. A fold that began in between, or a
    /// record whose fence a native writer has overwritten, still ends with a token that agrees with the life.
    fn set_phase(&mut self, phase: Phase) {
        let Life::Opened(life) = &self.life else { return };
        let incarnation = life.open.incarnation;
        let later = match phase {
            Phase::Open => true,
            Phase::Closed => self.token.ours_in(Phase::Open) == Some(incarnation),
            Phase::Gone => self.token.ours_in(Phase::Gone) != Some(incarnation),
        };
        if later && matches!(self.token, Token::Ours(_)) {
            self.token = Token::ours(phase, incarnation);
        }
    }

    /// Whether the last record folded is the fence of a batch whose mark has not been folded yet. What is decided on such
    /// a state holds the new token without knowing what it stands for.
    pub(crate) fn is_inside_a_batch(&self) -> bool {
        let (Token::Ours(token), Life::Opened(life)) = (&self.token, &self.life) else { return false };
        let phase = match (&life.gone, &life.closed) {
            (Some(_), _) => Phase::Gone,
            (None, Some(_)) => Phase::Closed,
            (None, None) => Phase::Open,
        };
        token.incarnation != life.open.incarnation || token.phase != phase
    }

    fn in_life(&mut self, change: impl FnOnce(&mut Incarnation)) {
        if let Life::Opened(life) = &mut self.life {
            change(life);
        }
    }

    fn note_checkpoint(&mut self, seen: Checkpoint, at: &Record) {
        if seen.as_of > at.seq {
            // No gateway has folded what did not stand there yet; a native writer made this up.
            return;
        }
        let known = self.checkpoint.get_or_insert(seen);
        if seen.as_of > known.as_of || (seen.as_of == known.as_of && seen.weight > known.weight) {
            *known = seen;
        }
    }

    /// The sequence number of the next record: where the log ends, as far as it is folded.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The timestamp of the last record folded, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// The fencing token in force.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The records before this sequence number are trimmed.
    #[must_use]
    pub fn trimmed(&self) -> u64 {
        self.trimmed
    }

    /// The newest checkpoint known.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// Metered bytes since the `open`, or since the log's beginning.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Who the stream is.
    #[must_use]
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// The life that a gateway opened, gone or not.
    #[must_use]
    pub fn incarnation(&self) -> Option<&Incarnation> {
        match &self.life {
            Life::Opened(life) => Some(life),
            Life::Native(_) => None,
        }
    }

    /// Whether a client finds a stream here (one that is soft-deleted is not found, but gone).
    #[must_use]
    pub fn presence(&self) -> Presence {
        match &self.life {
            Life::Opened(life) if life.gone.is_none() => Presence::Here,
            Life::Opened(life) if life.is_soft_deleted() => Presence::SoftDeleted,
            Life::Opened(_) => Presence::Absent,
            Life::Native(Native { tail: Some(_) }) if !matches!(self.token, Token::Ours(_)) => Presence::Here,
            Life::Native(_) => Presence::Absent,
        }
    }

    /// The offset after the last message, inherited ones included.
    #[must_use]
    pub fn tail_offset(&self) -> Offset {
        match &self.life {
            Life::Native(native) => Offset { birth: 0, seq: native.tail.unwrap_or(0) },
            Life::Opened(life) => life.tail_offset(),
        }
    }

    /// The position behind which this log holds no message that is served: the closure, or the end.
    #[must_use]
    pub fn served_to(&self) -> u64 {
        let closed = self.incarnation().and_then(|life| life.closed.as_ref());
        closed.map_or(self.next, |closed| closed.at)
    }
}

/// Whether a client finds a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does: open or closed.
    Here,
    /// Deleted, and kept for its forks (protocol section 4.2): 410.
    SoftDeleted,
    /// Never created, deleted or expired: 404.
    Absent,
}

impl Incarnation {
    fn refer(&mut self, reference: Reference) {
        if self.references.len() < MAX_FORKS_FOLDED {
            self.references.insert(reference.incarnation, reference.fork);
        }
    }

    /// Whether it was deleted while forks need its data. Expiry does the same: the forks' data must stay.
    #[must_use]
    pub fn is_soft_deleted(&self) -> bool {
        self.gone.is_some() && !self.references.is_empty()
    }

    /// The offset after the last message, inherited ones included.
    #[must_use]
    pub fn tail_offset(&self) -> Offset {
        match (self.tail, self.chain.last()) {
            (Some(tail), _) => Offset { birth: self.birth, seq: tail },
            (None, Some(last)) => Offset { birth: last.birth, seq: last.to },
            (None, None) => Offset { birth: self.birth, seq: self.opened_at + 1 },
        }
    }

    /// By when, in S2's time, the stream has expired if nobody uses it again.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        match self.open.lifetime {
            Lifetime::Forever => None,
            Lifetime::ExpiresAt { at_ms } => Some(at_ms),
            Lifetime::Ttl { seconds } => {
                Some(self.last_use_ms.saturating_add(seconds.saturating_mul(1000)).saturating_add(grace_ms(seconds)))
            }
        }
    }

    /// Whether a read at this time must wait until its `touch` is durable, because nothing else keeps the stream alive.
    #[must_use]
    pub fn lives_on_grace(&self, now_ms: u64) -> bool {
        match self.open.lifetime {
            Lifetime::Ttl { seconds } => now_ms > self.last_use_ms.saturating_add(seconds.saturating_mul(1000)),
            Lifetime::Forever | Lifetime::ExpiresAt { .. } => false,
        }
    }

    /// Whether a read at this time must leave a `touch`, so that the stream lives for its whole TTL from now.
    #[must_use]
    pub fn wants_touch(&self, now_ms: u64) -> bool {
        match self.open.lifetime {
            Lifetime::Ttl { seconds } => now_ms > self.last_use_ms.saturating_add(grace_ms(seconds)),
            Lifetime::Forever | Lifetime::ExpiresAt { .. } => false,
        }
    }
}

/// How old a durable sign of use may be before a read leaves a new one. The stream lives that much longer than its TTL,
/// so that a read which leaves none still gets its full time.
fn grace_ms(ttl_seconds: u64) -> u64 {
    const LONGEST_MS: u64 = 60 * 60 * 1000;
    (ttl_seconds.saturating_mul(1000) / 8).min(LONGEST_MS)
}

#[cfg(test)]
mod tests;
