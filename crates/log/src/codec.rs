//! Records to bytes and back.
//!
//! A gateway's record carries one header named [`HEADER`]. Its value:
//!
//! ```text
//! ┌─────────┬──────┬───────┬──────────────────────────────┬─────────────────┐
//! │ version │ kind │ flags │ stamp, if flag 2             │ the kind's own  │
//! │ 1 byte  │ 1    │ 1     │ writer 8, counter, as of     │ fields          │
//! └─────────┴──────┴───────┴──────────────────────────────┴─────────────────┘
//! flags: 1 = a reader that does not know the kind may skip it, 2 = a stamp follows
//! ```
//!
//! A reader takes its own version and the one after it, so that pods can be upgraded one by one: of the next version it
//! ignores what fields may have come at the end, and skips unknown kinds whose flag allows it.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_protocol::{ContentType, Lifetime, Offset, Producer, ProducerId, StreamSeq};

use crate::{
    mark::{
        BatchId, Checkpoint, Close, Commit, Delivery, Entry, Fork, Gone, GoneReason, Kind, Message, Open, Piece,
        Reference, Segment, Stamp, StreamName, Subscription, Visibility,
    },
    record::{Command, Header, NewRecord, Record},
    wire::{Reader, WireError, Writer},
};

/// The one header name that is reserved for gateways.
pub const HEADER: &[u8] = b"tw";
/// The version that this program writes.
pub const VERSION: u8 = 1;
/// The most pieces that a commit may name.
pub const MAX_PIECES: usize = 4096;
/// The deepest that forks may be nested.
pub const MAX_FORK_DEPTH: usize = 64;

const FLAG_SKIPPABLE: u8 = 1;
const FLAG_STAMP: u8 = 2;

/// Why a record with our header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Neither this version nor the one after it.
    #[error("a record of version {0}")]
    Version(u8),
    /// A kind that this version does not know and may not skip.
    #[error("a record of unknown kind {0}")]
    Kind(u8),
    /// Fields that are not what the kind has.
    #[error("a record of kind {kind} is malformed")]
    Fields {
        /// The kind.
        kind: u8,
        /// What is wrong.
        #[source]
        source: WireError,
    },
    /// Fewer bytes than every header has.
    #[error("a record with a cut header")]
    Short,
}

/// A kind's number in the header.
mod number {
    pub(super) const MESSAGE: u8 = 1;
    pub(super) const PIECE: u8 = 2;
    pub(super) const COMMIT: u8 = 3;
    pub(super) const OPEN: u8 = 4;
    pub(super) const CLOSE: u8 = 5;
    pub(super) const GONE: u8 = 6;
    pub(super) const TOUCH: u8 = 7;
    pub(super) const REF: u8 = 8;
    pub(super) const UNREF: u8 = 9;
    pub(super) const CHECKPOINT: u8 = 10;
    pub(super) const SUB: u8 = 11;
    pub(super) const UNSUB: u8 = 12;
    pub(super) const DELIVERY: u8 = 13;
}

impl Entry {
    /// What a record is. A record without our header is a plain message, whoever wrote it.
    pub fn decode(record: &Record) -> Result<Self, CodecError> {
        if let Some(command) = record.command() {
            let kind = match command {
                Command::Fence(token) => Kind::Fence(token),
                Command::Trim(before) => Kind::Trim(before),
            };
            return Ok(Self { stamp: None, kind });
        }
        match record.headers.iter().find(|h| h.name == HEADER) {
            Some(header) => decode_header(&header.value),
            None => Ok(Self { stamp: None, kind: Kind::Message(Message::default()) }),
        }
    }

    /// The record that says this, with `body` as its body. Commands and skipped kinds are not written this way.
    #[must_use]
    pub fn encode(&self, body: Bytes) -> NewRecord {
        if let Kind::Fence(token) = &self.kind {
            return NewRecord::fence(token);
        }
        if let Kind::Trim(before) = self.kind {
            return NewRecord::trim(before);
        }
        if self.stamp.is_none() && self.kind == Kind::Message(Message::default()) {
            return NewRecord::message(body);
        }
        let header = Header { name: Bytes::from_static(HEADER), value: encode_header(self) };
        NewRecord { headers: vec![header], body }
    }
}

fn encode_header(entry: &Entry) -> Bytes {
    let mut w = Writer::default();
    let skippable = matches!(entry.kind, Kind::Checkpoint(_));
    let flags = if skippable { FLAG_SKIPPABLE } else { 0 } | if entry.stamp.is_some() { FLAG_STAMP } else { 0 };
    w.byte(VERSION).byte(kind_number(&entry.kind)).byte(flags);
    if let Some(stamp) = &entry.stamp {
        w.fixed(stamp.batch.writer).number(stamp.batch.counter);
        w.option(stamp.checkpoint, |w, as_of| {
            w.number(as_of);
        });
    }
    encode_fields(&mut w, &entry.kind);
    w.finish()
}

fn kind_number(kind: &Kind) -> u8 {
    match kind {
        Kind::Message(_) => number::MESSAGE,
        Kind::Piece(_) => number::PIECE,
        Kind::Commit(_) => number::COMMIT,
        Kind::Open(_) => number::OPEN,
        Kind::Close(_) => number::CLOSE,
        Kind::Gone(_) => number::GONE,
        Kind::Touch => number::TOUCH,
        Kind::Ref(_) => number::REF,
        Kind::Unref(_) => number::UNREF,
        Kind::Checkpoint(_) => number::CHECKPOINT,
        Kind::Sub(_) => number::SUB,
        Kind::Unsub { .. } => number::UNSUB,
        Kind::Delivery(_) => number::DELIVERY,
        Kind::Fence(_) | Kind::Trim(_) | Kind::Skipped => 0,
    }
}

fn encode_fields(w: &mut Writer, kind: &Kind) {
    match kind {
        Kind::Message(message) => write_message(w, message),
        Kind::Piece(Piece { body, index }) => {
            w.fixed(*body).number(*index);
        }
        Kind::Commit(Commit { body, pieces, bytes, message }) => {
            w.fixed(*body).number(*bytes).list(pieces.iter(), |w, seq| {
                w.number(*seq);
            });
            write_message(w, message);
        }
        Kind::Open(open) => write_open(w, open),
        Kind::Close(Close { by }) => {
            w.option(by.as_ref(), write_producer);
        }
        Kind::Gone(Gone { reason }) => {
            w.byte(match reason {
                GoneReason::Deleted => 0,
                GoneReason::Expired => 1,
            });
        }
        Kind::Ref(reference) | Kind::Unref(reference) => write_reference(w, reference),
        Kind::Checkpoint(Checkpoint { as_of, weight }) => {
            w.number(*as_of).number(*weight);
        }
        Kind::Sub(Subscription { subscription, source, incarnation, from }) => {
            w.fixed(*subscription);
            write_name(w, source);
            w.fixed(*incarnation).number(*from);
        }
        Kind::Unsub { subscription } => {
            w.fixed(*subscription);
        }
        Kind::Delivery(Delivery { subscription, incarnation, source_seq }) => {
            w.fixed(*subscription).fixed(*incarnation).number(*source_seq);
        }
        Kind::Touch | Kind::Fence(_) | Kind::Trim(_) | Kind::Skipped => {}
    }
}

fn decode_header(value: &[u8]) -> Result<Entry, CodecError> {
    let &[version, kind, flags, ref fields @ ..] = value else { return Err(CodecError::Short) };
    if version != VERSION && version != VERSION + 1 {
        return Err(CodecError::Version(version));
    }
    let fault = |source| CodecError::Fields { kind, source };
    let mut r = Reader::new(fields);
    let stamp = if flags & FLAG_STAMP == 0 { None } else { Some(read_stamp(&mut r).map_err(fault)?) };
    let Some(kind) = decode_fields(&mut r, kind).map_err(fault)? else {
        if flags & FLAG_SKIPPABLE == 0 {
            return Err(CodecError::Kind(kind));
        }
        return Ok(Entry { stamp, kind: Kind::Skipped });
    };
    if version == VERSION {
        r.finish().map_err(fault)?;
    }
    Ok(Entry { stamp, kind })
}

fn read_stamp(r: &mut Reader<'_>) -> Result<Stamp, WireError> {
    let batch = BatchId { writer: r.fixed()?, counter: r.number()? };
    Ok(Stamp { batch, checkpoint: r.option(Reader::number)? })
}

fn decode_fields(r: &mut Reader<'_>, kind: u8) -> Result<Option<Kind>, WireError> {
    Ok(Some(match kind {
        number::MESSAGE => Kind::Message(read_message(r)?),
        number::PIECE => Kind::Piece(Piece { body: r.fixed()?, index: r.number()? }),
        number::COMMIT => {
            let (body, bytes) = (r.fixed()?, r.number()?);
            let pieces = r.list(MAX_PIECES, Reader::number)?;
            Kind::Commit(Commit { body, pieces, bytes, message: read_message(r)? })
        }
        number::OPEN => Kind::Open(Box::new(read_open(r)?)),
        number::CLOSE => Kind::Close(Close { by: r.option(read_producer)? }),
        number::GONE => Kind::Gone(Gone {
            reason: match r.byte()? {
                0 => GoneReason::Deleted,
                1 => GoneReason::Expired,
                _ => return Err(WireError::Value),
            },
        }),
        number::TOUCH => Kind::Touch,
        number::REF => Kind::Ref(read_reference(r)?),
        number::UNREF => Kind::Unref(read_reference(r)?),
        number::CHECKPOINT => Kind::Checkpoint(Checkpoint { as_of: r.number()?, weight: r.number()? }),
        number::SUB => Kind::Sub(Subscription {
            subscription: r.fixed()?,
            source: read_name(r)?,
            incarnation: r.fixed()?,
            from: r.number()?,
        }),
        number::UNSUB => Kind::Unsub { subscription: r.fixed()? },
        number::DELIVERY => {
            Kind::Delivery(Delivery { subscription: r.fixed()?, incarnation: r.fixed()?, source_seq: r.number()? })
        }
        _ => return Ok(None),
    }))
}

fn write_message(w: &mut Writer, message: &Message) {
    w.option(message.producer.as_ref(), write_producer);
    w.option(message.stream_seq.as_ref(), |w, seq| {
        w.bytes(seq.as_bytes());
    });
}

fn read_message(r: &mut Reader<'_>) -> Result<Message, WireError> {
    Ok(Message { producer: r.option(read_producer)?, stream_seq: r.option(read_stream_seq)? })
}

pub(crate) fn read_stream_seq(r: &mut Reader<'_>) -> Result<StreamSeq, WireError> {
    StreamSeq::new(r.bytes()?).map_err(|_| WireError::Value)
}

pub(crate) fn write_producer(w: &mut Writer, producer: &Producer) {
    w.text(producer.id.as_str()).number(producer.epoch).number(producer.seq);
}

pub(crate) fn read_producer(r: &mut Reader<'_>) -> Result<Producer, WireError> {
    Ok(Producer { id: read_producer_id(r)?, epoch: r.number()?, seq: r.number()? })
}

pub(crate) fn read_producer_id(r: &mut Reader<'_>) -> Result<ProducerId, WireError> {
    ProducerId::new(r.text()?).map_err(|_| WireError::Value)
}

pub(crate) fn write_reference(w: &mut Writer, reference: &Reference) {
    w.fixed(reference.incarnation);
    write_name(w, &reference.fork);
}

pub(crate) fn read_reference(r: &mut Reader<'_>) -> Result<Reference, WireError> {
    Ok(Reference { incarnation: r.fixed()?, fork: read_name(r)? })
}

fn write_name(w: &mut Writer, name: &StreamName) {
    w.text(&name.project).text(&name.stream);
}

fn read_name(r: &mut Reader<'_>) -> Result<StreamName, WireError> {
    Ok(StreamName { project: Arc::from(r.text()?), stream: Arc::from(r.text()?) })
}

pub(crate) fn write_open(w: &mut Writer, open: &Open) {
    w.fixed(open.incarnation).text(open.content_type.as_str());
    match open.lifetime {
        Lifetime::Forever => w.byte(0),
        Lifetime::Ttl { seconds } => w.byte(1).number(seconds),
        Lifetime::ExpiresAt { at_ms } => w.byte(2).number(at_ms),
    };
    // Zero is what stands in logs from before there was anything to be said.
    w.byte(match open.visibility {
        None => 0,
        Some(Visibility::Private) => 1,
        Some(Visibility::Public) => 2,
    });
    w.option(open.retention_ms, |w, ms| {
        w.number(ms);
    });
    w.byte(u8::from(open.adopts_native));
    w.option(open.fork.as_ref(), |w, fork| {
        write_name(w, &fork.source);
        w.fixed(fork.incarnation).number(fork.at.birth).number(fork.at.seq).number(fork.sub_offset);
        write_chain(w, &fork.chain);
    });
}

pub(crate) fn read_open(r: &mut Reader<'_>) -> Result<Open, WireError> {
    let incarnation = r.fixed()?;
    let content_type = ContentType::parse(r.text()?).map_err(|_| WireError::Value)?;
    let lifetime = match r.byte()? {
        0 => Lifetime::Forever,
        1 => Lifetime::Ttl { seconds: r.number()? },
        2 => Lifetime::ExpiresAt { at_ms: r.number()? },
        _ => return Err(WireError::Value),
    };
    let visibility = match r.byte()? {
        0 => None,
        1 => Some(Visibility::Private),
        2 => Some(Visibility::Public),
        _ => return Err(WireError::Value),
    };
    let retention_ms = r.option(Reader::number)?;
    let adopts_native = match r.byte()? {
        0 => false,
        1 => true,
        _ => return Err(WireError::Value),
    };
    let fork = r.option(|r| {
        Ok(Fork {
            source: read_name(r)?,
            incarnation: r.fixed()?,
            at: Offset { birth: r.number()?, seq: r.number()? },
            sub_offset: r.number()?,
            chain: read_chain(r)?,
        })
    })?;
    Ok(Open { incarnation, content_type, lifetime, visibility, retention_ms, adopts_native, fork })
}

pub(crate) fn write_chain(w: &mut Writer, chain: &[Segment]) {
    w.list(chain.iter(), |w, segment| {
        w.number(segment.birth).option(segment.source.as_ref(), write_name);
        w.number(segment.from).number(segment.to);
    });
}

pub(crate) fn read_chain(r: &mut Reader<'_>) -> Result<Vec<Segment>, WireError> {
    r.list(MAX_FORK_DEPTH, |r| {
        Ok(Segment { birth: r.number()?, source: r.option(read_name)?, from: r.number()?, to: r.number()? })
    })
}

#[cfg(test)]
mod tests;
