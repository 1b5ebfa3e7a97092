//! What clients asked and were told: all that the [oracle](crate::oracle) judges, beside the log itself.
//!
//! Moments are counted in batches that had landed by then, so that "before" and "after" have no ties.

use bytes::Bytes;
use tailwater_fanout::{Head, OpError};
use tailwater_log::{Misplaced, Refusal};
use tailwater_protocol::{Offset, Producer, ReadOffset};
use tailwater_upstream::StreamKey;

/// One thing that a client asked, and what it was told.
#[derive(Debug, Clone)]
pub struct Told {
    /// Which client.
    pub who: usize,
    /// Which stream.
    pub key: StreamKey,
    /// How many batches had landed when it asked.
    pub from: usize,
    /// How many had landed when it was told.
    pub to: usize,
    /// What.
    pub what: What,
}

/// What was asked and told.
#[derive(Debug, Clone)]
pub enum What {
    /// A POST.
    Wrote {
        /// The messages.
        bodies: Vec<Bytes>,
        /// The claim.
        claim: Option<Producer>,
        /// Whether it closes.
        closes: bool,
        /// The answer.
        answer: Wrote,
    },
    /// A PUT.
    Created {
        /// The messages.
        bodies: Vec<Bytes>,
        /// Where it is forked from, and whether at the tail.
        fork: Option<(StreamKey, bool)>,
        /// Whether it was created; none where it was refused.
        answer: Created,
    },
    /// A DELETE.
    Deleted(Fate),
    /// A HEAD.
    Looked(Looked<Head>),
    /// GETs from the start on.
    Read(Looked<Pages>),
    /// A stretch of following.
    Followed(Followed),
}

/// What became of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrote {
    /// It is durable.
    Landed {
        /// The offset behind it.
        next: Offset,
        /// Whether the stream is closed.
        closed: bool,
    },
    /// Its claim was accepted before.
    Duplicate,
    /// The stream was closed already.
    AlreadyClosed,
    /// It was not appended, and never will be.
    Refused(Why),
    /// Nobody knows.
    Unknown,
}

/// What became of a PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The stream was created.
    Fresh,
    /// It was there.
    Existed,
    /// It was refused.
    Refused(Why),
    /// Nobody knows.
    Unknown,
}

/// What became of a DELETE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Done,
    /// It was refused.
    Refused(Why),
    /// Nobody knows.
    Unknown,
}

/// What a look at a stream said.
#[derive(Debug, Clone)]
pub enum Looked<T> {
    /// It is there.
    Found(T),
    /// It is not.
    Refused(Why),
    /// Nothing was said.
    Nothing,
}

/// GETs, each from where the one before ended.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Where the first one started.
    pub start: Offset,
    /// What they brought.
    pub messages: Vec<Bytes>,
    /// Where the last one ended.
    pub next: Offset,
    /// Whether that is the tail.
    pub whole: bool,
    /// Whether the stream is closed.
    pub closed: bool,
}

/// A stretch of following, from a join to a departure.
#[derive(Debug, Clone)]
pub struct Followed {
    /// What was asked for.
    pub asked: ReadOffset,
    /// Where it began; none where the reader could not join.
    pub start: Option<Offset>,
    /// What was given.
    pub given: Vec<Given>,
    /// How it ended.
    pub end: End,
}

/// One delivery.
#[derive(Debug, Clone)]
pub struct Given {
    /// The messages, one after the other.
    pub bytes: Bytes,
    /// How many they were, where that can be told.
    pub count: Option<usize>,
    /// The offset behind them.
    pub next: Offset,
    /// Whether the stream ends here.
    pub closed: bool,
}

/// How a stretch of following ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The client left.
    Left,
    /// It was cut off.
    Cut,
    /// The stream is closed, and all of it was given.
    Closed,
    /// It is told that the stream is gone.
    Gone,
    /// It is told that its place is gone.
    Reset(Offset),
    /// It is told that it cannot be served.
    Refused(Why),
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// There is no such stream.
    NotFound,
    /// It is deleted, and kept for its forks.
    SoftDeleted,
    /// It is closed.
    Closed,
    /// The producer's next number is another one.
    Gap(u64),
    /// The producer's epoch is another one.
    Stale(u64),
    /// The offset points nowhere.
    Misplaced,
    /// It may work another time.
    Later,
    /// Anything else.
    Other(String),
}

impl Why {
    /// What an error says; none where nobody knows what became of it.
    #[must_use]
    pub fn of(error: &OpError) -> Option<Self> {
        if error.is_retryable() && !matches!(error, OpError::OutcomeUnknown) {
            return Some(Self::Later);
        }
        Some(match error {
            OpError::OutcomeUnknown => return None,
            OpError::Refused(Refusal::NotFound) => Self::NotFound,
            OpError::Refused(Refusal::SoftDeleted) => Self::SoftDeleted,
            OpError::Refused(Refusal::Closed { .. }) => Self::Closed,
            OpError::Refused(Refusal::ProducerGap { expected, .. }) => Self::Gap(*expected),
            OpError::Refused(Refusal::StaleEpoch { current }) => Self::Stale(*current),
            OpError::Misplaced(Misplaced::Beyond | Misplaced::Gone { .. }) => Self::Misplaced,
            OpError::Refused(_)
            | OpError::Conflict { .. }
            | OpError::Fork(_)
            | OpError::StreamBusy
            | OpError::TooManyReaders { .. }
            | OpError::TooManyStreams
            | OpError::OverFairShare
            | OpError::TooManyProjects { .. }
            | OpError::Draining
            | OpError::Unavailable { .. }
            | OpError::Unreadable { .. }
            | OpError::StoreRefused { .. } => Self::Other(error.to_string()),
        })
    }
}
