//! Batches: what an upstream append brought, made once for all readers.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use tailwater_log::Record;
use tailwater_protocol::{ContentKind, Offset};

use crate::frame::{Frame, Says};

/// A record of the log, with the bytes of a large body put together where it is a commit.
#[derive(Debug, Clone)]
pub(crate) struct LogRecord {
    /// As S2 has it.
    pub(crate) record: Record,
    /// The bytes that a commit's pieces hold.
    pub(crate) assembled: Option<Bytes>,
}

impl LogRecord {
    /// The message's bytes, where the record is one.
    pub(crate) fn body(&self) -> Bytes {
        self.assembled.clone().unwrap_or_else(|| self.record.body.clone())
    }
}

/// One message, at its place in the log.
#[derive(Debug, Clone)]
pub struct Message {
    /// The record's sequence number.
    pub seq: u64,
    /// The bytes. In a JSON stream one value, or several joined by commas.
    pub body: Bytes,
}

/// Messages that arrived together, immutable and shared by all who are given them.
#[derive(Debug)]
pub struct Batch {
    /// From here on to `first` the log holds marks only: whoever stands there has missed nothing.
    pub(crate) since: u64,
    /// The sequence number of the first record that it covers.
    pub(crate) first: u64,
    /// The sequence number after the last record that it covers, marks included.
    pub(crate) next: u64,
    /// The offset after its last message, or of the tail where it holds none.
    pub(crate) next_offset: Offset,
    /// The messages.
    pub(crate) messages: Vec<Message>,
    /// Whether the stream is closed behind it.
    pub(crate) closes: bool,
    /// The bytes of its messages.
    pub(crate) bytes: usize,
    /// What readers of Server-Sent Events are sent, one for each thing that it can say; made when first asked for.
    frames: [OnceLock<Frame>; Says::COUNT],
}

impl Batch {
    /// The messages of a stretch of the log; the arguments are the fields of the same names.
    pub fn new(since: u64, first: u64, next: u64, next_offset: Offset, messages: Vec<Message>, closes: bool) -> Self {
        let bytes = messages.iter().map(|message| message.body.len()).sum();
        Self { since, first, next, next_offset, messages, closes, bytes, frames: Default::default() }
    }

    /// The batch as Server-Sent Events, for all who have had everything before it.
    pub(crate) fn frame(&self, kind: ContentKind, says: Says) -> &Frame {
        self.frames[says.index()].get_or_init(|| {
            Frame::encode(kind, self.messages.iter().map(|message| message.body.as_ref()), self.next_offset, says)
        })
    }

    /// The messages from a position on.
    pub(crate) fn from(&self, seq: u64) -> impl DoubleEndedIterator<Item = &Message> + Clone {
        let start = self.messages.partition_point(|message| message.seq < seq);
        self.messages[start..].iter()
    }
}

/// What the actor rings its readers up for.
#[derive(Debug, Clone)]
pub(crate) enum Bell {
    /// Messages, for as long as the ring holds them. A reader that is slow to answer must not keep what the ring has let
    /// go of.
    Batch {
        /// [`Batch::since`].
        since: u64,
        /// [`Batch::next`].
        next: u64,
        /// Nothing where the ring has let go of it.
        batch: Weak<Batch>,
    },
    /// The closure without messages, which no ring holds.
    Closed(Arc<Batch>),
    /// The actor's view has changed in a way that a reader must look at: join again at your own offset.
    Rejoin,
    /// The stream is deleted or expired.
    Gone,
}

impl Bell {
    /// What a batch is announced with.
    pub(crate) fn of(batch: &Arc<Batch>) -> Self {
        if batch.messages.is_empty() {
            return Self::Closed(Arc::clone(batch));
        }
        Self::Batch { since: batch.since, next: batch.next, batch: Arc::downgrade(batch) }
    }
}
