//! What comes to a shard and what leaves it: arrivals, departures, and the reasons for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tailwater_protocol::{ContentKind, Offset, sse::Lapse};
use tailwater_upstream::StreamKey;

use crate::{actor::ReaderGuard, feed::Feed, frame::Stand, ops::Head, reader::Delivery};

/// What a shard is told of the world.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The monotonic time.
    pub at: Instant,
    /// Milliseconds since the Unix epoch, for cursors.
    pub unix_ms: u64,
}

/// The settings of a shard.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// How long a response is silent before it is sent a control event.
    pub keep_alive: Duration,
    /// How long a reader may take nothing before it is closed.
    pub write_timeout: Duration,
    /// Between these a reader comes back after its response has lasted as long as it may.
    pub rotated_retry: (Duration, Duration),
    /// Between these a reader comes back after the gateway has ended its response early.
    pub drained_retry: (Duration, Duration),
    /// The dice, for jitter.
    pub random: fn() -> u64,
}

/// Tells from what came along with a socket why its reader may not go on; nothing, where he may. It is asked when a reader
/// arrives and in a [review](crate::Shards::review), and must not wait.
pub type Judge<L> = Arc<dyn Fn(&L) -> Option<Lapse> + Send + Sync>;

/// A live reader's place in its stream, as a shard takes it over from a [`Reader`](crate::Reader).
#[derive(Debug)]
pub struct Seat {
    pub(crate) feed: Arc<Feed>,
    pub(crate) turn: u64,
    pub(crate) resume: Arc<Resume>,
    pub(crate) kind: ContentKind,
    pub(crate) stand: Stand,
    pub(crate) guard: ReaderGuard,
}

/// What it takes to join again, apart from the offset.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) key: StreamKey,
    /// What the stream is.
    pub(crate) head: Head,
    /// The life that is read; `None` is a native stream.
    pub(crate) life: Option<u64>,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Events, in a response whose head has been sent. `greet` is whether nothing else was, so that a reader who has
    /// everything is to be told so.
    Events {
        /// Whether nothing was sent behind the head.
        greet: bool,
    },
    /// To be woken by the first thing that comes: a long-poll, of whose response nothing has been sent.
    Answer,
}

/// A live reader that a shard is to take over.
#[derive(Debug)]
pub struct Arrival<S, L> {
    /// The socket; non-blocking.
    pub socket: S,
    /// Where the reader stands.
    pub seat: Seat,
    /// The least cursor to send: cursors never go back.
    pub cursor: u64,
    /// When the response, or the wait, has lasted as long as it may.
    pub ends_at: Instant,
    /// When its reader may not go on with events, if ever: his response ends then at the latest, and says so.
    pub expires_at: Option<Instant>,
    /// What it waits for.
    pub wants: Wants,
    /// What the client has sent behind its request.
    pub unread: Bytes,
    /// What goes along with the socket.
    pub luggage: L,
}

/// A reader that a shard no longer has.
#[derive(Debug)]
pub enum Departure<S, L> {
    /// It has to catch up elsewhere, from where it stands, and may come back. The response goes on.
    Behind {
        /// The socket, with nothing half written.
        socket: S,
        /// Where it stands.
        stands: Stands,
        /// The least cursor to send.
        cursor: u64,
        /// When the response has lasted as long as it may.
        ends_at: Instant,
        /// What the client has sent meanwhile.
        unread: Bytes,
        /// What came along with the socket.
        luggage: L,
    },
    /// What it waited for has come, or will not. Nothing of its response was sent.
    Woken {
        /// Why.
        wake: Wake,
        /// The socket.
        socket: S,
        /// Where it stands.
        stands: Stands,
        /// What the client has sent meanwhile.
        unread: Bytes,
        /// What came along with the socket.
        luggage: L,
    },
    /// Its response is complete. The connection may go on with another request.
    Ended {
        /// Why.
        reason: End,
        /// The socket.
        socket: S,
        /// What the client has sent meanwhile.
        unread: Bytes,
        /// What came along with the socket.
        luggage: L,
    },
    /// The connection is over; the socket is closed when this is dropped.
    Lost {
        /// Why.
        reason: Loss,
        /// The socket.
        socket: S,
        /// What came along with the socket.
        luggage: L,
    },
}

/// Where a reader stands that has left its shard.
#[derive(Debug, Clone)]
pub struct Stands {
    pub(crate) resume: Arc<Resume>,
    pub(crate) stand: Stand,
}

/// Why a reader that waits is woken.
#[derive(Debug, Clone)]
pub enum Wake {
    /// Something has come; shared by all who waited at the same place.
    News(Arc<Delivery>),
    /// Nothing has come for as long as it may wait.
    TimedOut {
        /// Whether the read session has shown life, so that this is known.
        is_fresh: bool,
    },
    /// It has to look anew where it stands.
    Moved,
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The stream is closed and all of it was sent.
    Closed,
    /// It lasted as long as it may.
    Rotated,
    /// The gateway is shutting down.
    Drained,
    /// Its reader may not go on.
    Lapsed(Lapse),
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The client has gone.
    Left,
    /// It takes nothing any more.
    Stalled,
    /// It sends more than it may while its response lasts.
    Noisy,
    /// The shard ends.
    Closed,
}

impl Stands {
    /// What the stream was when the reader last looked where it stands.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.resume.head
    }

    /// The position, as a client would be told it.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.stand.at
    }
}
