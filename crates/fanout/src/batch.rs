//! Batches: what an upstream append brought, made once for all readers.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_log::Record;
use tailwater_protocol::Offset;

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
pub(crate) struct Message {
    /// The record's sequence number.
    pub(crate) seq: u64,
    /// The bytes. In a JSON stream one value, or several joined by commas.
    pub(crate) body: Bytes,
}

/// Messages that arrived together, immutable and shared by the ring and the doorbell.
#[derive(Debug)]
pub(crate) struct Batch {
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
}

impl Batch {
    /// The messages from a position on.
    pub(crate) fn from(&self, seq: u64) -> impl Iterator<Item = &Message> {
        let start = self.messages.partition_point(|message| message.seq < seq);
        self.messages[start..].iter()
    }
}

/// What the actor rings its readers up for.
#[derive(Debug, Clone)]
pub(crate) enum Bell {
    /// Messages, or the closure, or both.
    Batch(Arc<Batch>),
    /// The actor's view has changed in a way that a reader must look at: join again at your own offset.
    Rejoin,
    /// The stream is deleted or expired.
    Gone,
}
