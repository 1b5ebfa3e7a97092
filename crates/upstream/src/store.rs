//! The trait, and what goes in and comes out.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tailwater_log::{NewRecord, Record};

use crate::error::{AppendError, ReadError};

/// The name of a stream: a project, and a stream within it. How the two become an S2 basin and an S2 stream is the
/// store's business.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The project, `[A-Za-z0-9_-]{1,64}`.
    pub project: std::sync::Arc<str>,
    /// The stream's name within the project: the decoded path segments, joined by `/`.
    pub stream: std::sync::Arc<str>,
}

impl StreamKey {
    /// A key from its two parts, which are taken as they are.
    #[must_use]
    pub fn new(project: &str, stream: &str) -> Self {
        Self { project: project.into(), stream: stream.into() }
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.stream)
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamKey({:?}, {:?})", self.project, self.stream)
    }
}

/// A place in a log: the sequence number of the next record, and the timestamp of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The sequence number that the next record gets.
    pub seq: u64,
    /// The timestamp of the last record, in milliseconds since the Unix epoch; 0 on an empty stream.
    pub timestamp: u64,
}

/// One atomic append. All records land, next to each other, or none does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// 1 to 1,000 records of at most 1 MiB metered together.
    pub records: Vec<NewRecord>,
    /// Refuse unless the first record would get this sequence number.
    pub match_seq: Option<u64>,
    /// Refuse unless this is the stream's fencing token. `Some("")` is the token of a stream that was never fenced.
    pub token: Option<String>,
}

/// Where an append landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendAck {
    /// The place of the first record, and its timestamp.
    pub start: Position,
    /// The place after the last record, and the last record's timestamp.
    pub end: Position,
}

/// Where a unary read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At this sequence number; below the trim point S2 starts silently at the first record left.
    Seq(u64),
    /// This many records before the tail; on a shorter stream at its first record.
    TailOffset(u64),
}

/// What a unary read returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The records in order. Empty when the read started at or beyond the tail, or on a stream with nothing left.
    pub records: Vec<Record>,
}

/// What a read session yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// Records, in order, contiguous but for trims.
    Records(Vec<Record>),
    /// The session has yielded everything before this tail.
    CaughtUp(Position),
    /// The session has lost its connection and is looking for another; what it yields next follows on what it yielded
    /// last. Until it has caught up again nobody knows whether there is more.
    Stalled,
}

/// Requests of one kind, which reach the store or do not reach it together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// Unary reads, tail checks, lists, and read sessions.
    Reads,
    /// Appends.
    Appends,
}

/// An open read session. It must be polled all the time: sessions share connections and windows, and one with unread
/// data holds up the others. It reconnects by itself for as long as it lives; an error ends it.
pub type ReadSession = BoxStream<'static, Result<SessionEvent, ReadError>>;

/// A durable stream store with S2's semantics.
///
/// Every method is cancel safe in that dropping its future leaks nothing; a dropped `append` may still land.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Appends one batch, at most once: no attempt is repeated after one whose effect is unknown. Creates the stream,
    /// and its project's place in the store, where they do not exist.
    async fn append(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError>;

    /// Reads once, without waiting: at most `limit` records and 1 MiB. [`ReadError::NotFound`] where the stream does
    /// not exist.
    async fn read(&self, key: &StreamKey, from: ReadFrom, limit: usize) -> Result<Page, ReadError>;

    /// The present tail. [`ReadError::NotFound`] where the stream does not exist.
    async fn check_tail(&self, key: &StreamKey) -> Result<Position, ReadError>;

    /// Opens a session that follows the stream from `seq` on, command records included.
    async fn read_session(&self, key: &StreamKey, seq: u64) -> Result<ReadSession, ReadError>;

    /// The names of a project's streams that start with `prefix` and come after `after`, in order, at most `limit`.
    /// A project that the store does not know has none.
    async fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ReadError>;

    /// Whether the store answers at all; for readiness.
    async fn ready(&self, within: Duration) -> Result<(), ReadError>;

    /// Waits until the store is believed to answer reads of this stream, which may take a try. Of all who wait one at a
    /// time tries. A store that knows no better keeps nobody waiting. Cancel safe.
    async fn reachable(&self, _key: &StreamKey) {}

    /// Whether this is not sent to the store for now, because nothing like it was answered.
    fn is_suspended(&self, _traffic: Traffic) -> bool {
        false
    }

    /// Whether nobody but this process can write to the store, so that what this process knows is the present.
    fn single_owner(&self) -> bool {
        false
    }
}

impl Traffic {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Reads, Self::Appends];

    /// Its name, as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Appends => "appends",
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Append {
    /// A batch without conditions.
    #[must_use]
    pub fn new(records: Vec<NewRecord>) -> Self {
        Self { records, match_seq: None, token: None }
    }

    /// What S2 counts the batch as, in bytes.
    #[must_use]
    pub fn metered_bytes(&self) -> usize {
        self.records.iter().map(NewRecord::metered_bytes).sum()
    }

    /// The bodies, for tests.
    pub fn bodies(&self) -> impl Iterator<Item = &Bytes> {
        self.records.iter().map(|r| &r.body)
    }
}
