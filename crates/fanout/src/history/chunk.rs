//! Chunks: what one read of a log brought, decoded once for all readers.
//!
//! A chunk is a stretch of a log with the messages that are visible in it. What stands at a position of a log never
//! changes, so a chunk is true for as long as the log is the same; what is trimmed meanwhile was there when it was read.
//!
//! Bodies are copied together into allocations of their own. As they come from the store they may be slices of a whole
//! answer, and one small message would hold all of it.

use bytes::{Bytes, BytesMut};
use tailwater_log::{Entry, Record};
use tailwater_protocol::ContentKind;

use crate::{
    actor::breaks_json,
    batch::LogRecord,
    logread::{LogReader, Stash},
    ops::OpError,
};

/// The most records that a chunk covers: a multiple of the alignment, within the 1,000 of one read.
pub(super) const CHUNK_RECORDS: u64 = 960;
/// A chunk ends behind the message with which it passes this many bytes. A read stops at as many, but what it brings may
/// name pieces elsewhere.
const CHUNK_BYTES: usize = 1024 * 1024;
/// The size of the allocations that small bodies are copied into.
const SLAB_BYTES: usize = 64 * 1024;
/// What a chunk costs beside its messages.
const OVERHEAD: usize = 256;
/// What a message costs beside its bytes.
const MESSAGE_OVERHEAD: usize = size_of::<(u64, Bytes)>();

/// What is visible in a stretch of a log.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The first record that was there: behind the start of the read where something is trimmed.
    pub(super) first: u64,
    /// Behind the last record.
    pub(super) next: u64,
    /// Each with its sequence number, in order.
    messages: Vec<(u64, Bytes)>,
    /// The records that cannot be read, in order.
    unreadable: Vec<u64>,
    /// How it ended.
    pub(super) end: End,
    /// What it takes, in bytes.
    pub(super) cost: usize,
}

/// Where a chunk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// At a limit: the next chunk starts there.
    Full,
    /// Perhaps where the log ended at that time: read again, it may hold more.
    Open,
}

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The first sequence number.
    pub(super) start: u64,
    /// The most records, 1 at least.
    pub(super) limit: u64,
    /// Up to where the log is known to reach.
    pub(super) known_end: u64,
}

/// A chunk in the making.
struct Draft {
    chunk: Chunk,
    slab: BytesMut,
    /// The bytes of the bodies that are still to come, at most.
    to_come: usize,
    /// The bytes of its messages.
    bytes: usize,
}

impl Chunk {
    /// Reads a chunk; `None` where there is nothing at `start` or behind it.
    pub(super) async fn read(reader: &LogReader, stretch: Stretch, kind: ContentKind) -> Result<Option<Self>, OpError> {
        let limit = usize::try_from(stretch.limit).unwrap_or(usize::MAX);
        let records = reader.records(stretch.start, limit).await?;
        let Some(first) = records.first().map(|record| record.seq) else { return Ok(None) };
        let (count, mut stash) = (records.len(), Stash::default());
        let mut draft = Draft::new(first, &records);
        for record in records {
            if draft.bytes >= CHUNK_BYTES {
                draft.chunk.end = End::Full;
                break;
            }
            let seq = record.seq;
            match reader.assemble(record, &mut stash).await {
                Ok(read) => draft.add(&read, kind),
                Err(OpError::Unreadable { .. }) => draft.chunk.unreadable.push(seq),
                Err(error) => return Err(error),
            }
            draft.chunk.next = seq + 1;
        }
        if count >= limit || draft.chunk.next < stretch.known_end {
            draft.chunk.end = End::Full;
        }
        Ok(Some(draft.finish()))
    }

    /// The first record at or behind a position that was there, as far as this chunk says.
    pub(super) fn first_from(&self, seq: u64) -> u64 {
        self.first.max(seq)
    }

    /// The messages in `from..to`.
    pub(super) fn messages(&self, from: u64, to: u64) -> &[(u64, Bytes)] {
        let start = self.messages.partition_point(|(seq, _)| *seq < from);
        let end = self.messages.partition_point(|(seq, _)| *seq < to);
        self.messages.get(start..end).unwrap_or_default()
    }

    /// Up to where the chunk can be read from a position on.
    pub(super) fn readable_from(&self, seq: u64) -> u64 {
        self.unreadable.iter().copied().find(|unreadable| *unreadable >= seq).unwrap_or(self.next)
    }
}

impl Draft {
    fn new(first: u64, records: &[Record]) -> Self {
        let chunk = Chunk { first, next: first, messages: Vec::new(), unreadable: Vec::new(), end: End::Open, cost: 0 };
        let to_come = records.iter().map(|record| record.body.len()).sum();
        Self { chunk, slab: BytesMut::new(), to_come, bytes: 0 }
    }

    fn add(&mut self, read: &LogRecord, kind: ContentKind) {
        let (seq, size) = (read.record.seq, read.record.body.len());
        match Entry::decode(&read.record) {
            Ok(entry) if entry.kind.is_visible() && !breaks_json(kind, read) => {
                let body = match &read.assembled {
                    Some(assembled) => assembled.clone(),
                    None => self.copy(&read.record.body),
                };
                self.bytes += body.len();
                self.chunk.messages.push((seq, body));
            }
            Ok(_) => {}
            Err(_) => self.chunk.unreadable.push(seq),
        }
        self.to_come -= size;
    }

    fn copy(&mut self, body: &Bytes) -> Bytes {
        if body.len() >= SLAB_BYTES / 4 {
            return Bytes::copy_from_slice(body);
        }
        if self.slab.capacity() < body.len() {
            self.slab = BytesMut::with_capacity(self.to_come.clamp(body.len(), SLAB_BYTES));
        }
        self.slab.extend_from_slice(body);
        self.slab.split().freeze()
    }

    fn finish(self) -> Chunk {
        let Chunk { mut messages, mut unreadable, .. } = self.chunk;
        messages.shrink_to_fit();
        unreadable.shrink_to_fit();
        let cost = OVERHEAD + self.bytes + messages.len() * MESSAGE_OVERHEAD + unreadable.len() * size_of::<u64>();
        Chunk { messages, unreadable, cost, ..self.chunk }
    }
}

#[cfg(test)]
impl Chunk {
    /// A chunk that holds nothing but its cost.
    pub(super) fn blank(first: u64, next: u64, end: End, cost: usize) -> Self {
        Self { first, next, messages: Vec::new(), unreadable: Vec::new(), end, cost }
    }
}
