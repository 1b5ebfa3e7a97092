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
//! What its fields are made of, and which versions and kinds a reader takes, is told by [`tailwater_wire`].

use std::sync::Arc;

use bytes::Bytes;
use tailwater_protocol::{ContentType, Lifetime, Offset, Producer, ProducerId, StreamSeq};
use tailwater_wire::{FLAG_SKIPPABLE, Head, Reader, RecordError, WireError, Writer, read_record};

use crate::{
    mark::{
        BatchId, Checkpoint, Close, Commit, Delivery, Entry, Fork, Gone, GoneReason, Kind, Message, Open, Piece,
        Reference, Segment, Stamp, StreamName, Subscription, Visibility,
    },
    record::{Command, Header, NewRecord, Record},
};

/// The one header name that is reserved for gateways.
pub const HEADER: &[u8] = b"tw";
/// The version that this program writes.
pub const VERSION: u8 = 1;
/// The most pieces that a commit may name.
pub const MAX_PIECES: usize = 4096;
/// The deepest that forks may be nested.
pub const MAX_FORK_DEPTH: usize = 64;

const FLAG_STAMP: u8 = 2;

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
    pub fn decode(record: &Record) -> Result<Self, RecordError> {
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
    Head { version: VERSION, kind: kind_number(&entry.kind), flags }.write(&mut w);
    if let Some(stamp) = &entry.stamp {
        w.fixed_number(stamp.batch.writer).number(stamp.batch.counter).option(stamp.checkpoint, Writer::number);
    }
    encode_fields(&mut w, &entry.kind);
    w.finish().into()
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

fn encode_fields<'w>(w: &'w mut Writer, kind: &Kind) -> &'w mut Writer {
    match kind {
        Kind::Message(message) => write_message(w, message),
        Kind::Piece(Piece { body, index }) => w.fixed_number(*body).number(*index),
        Kind::Commit(Commit { body, pieces, bytes, message }) => {
            w.fixed_number(*body).number(*bytes).list(pieces.iter(), |w, seq| w.number(*seq));
            write_message(w, message)
        }
        Kind::Open(open) => write_open(w, open),
        Kind::Close(Close { by }) => w.option(by.as_ref(), write_producer),
        Kind::Gone(Gone { reason }) => w.byte(match reason {
            GoneReason::Deleted => 0,
            GoneReason::Expired => 1,
        }),
        Kind::Ref(reference) | Kind::Unref(reference) => write_reference(w, reference),
        Kind::Checkpoint(Checkpoint { as_of, weight }) => w.number(*as_of).number(*weight),
        Kind::Sub(Subscription { subscription, source, incarnation, from }) => {
            write_name(w.fixed_number(*subscription), source).fixed_number(*incarnation).number(*from)
        }
        Kind::Unsub { subscription } => w.fixed_number(*subscription),
        Kind::Delivery(Delivery { subscription, incarnation, source_seq }) => {
            w.fixed_number(*subscription).fixed_number(*incarnation).number(*source_seq)
        }
        Kind::Touch | Kind::Fence(_) | Kind::Trim(_) | Kind::Skipped => w,
    }
}

fn decode_header(value: &[u8]) -> Result<Entry, RecordError> {
    let mut stamp = None;
    let kind = read_record(value, VERSION, |head, r| {
        if head.flags & FLAG_STAMP != 0 {
            stamp = Some(read_stamp(r)?);
        }
        decode_fields(r, head.kind)
    })?;
    Ok(Entry { stamp, kind: kind.unwrap_or(Kind::Skipped) })
}

fn read_stamp(r: &mut Reader<'_>) -> Result<Stamp, WireError> {
    let batch = BatchId { writer: r.fixed_number()?, counter: r.number()? };
    Ok(Stamp { batch, checkpoint: r.option(Reader::number)? })
}

fn decode_fields(r: &mut Reader<'_>, kind: u8) -> Result<Option<Kind>, WireError> {
    Ok(Some(match kind {
        number::MESSAGE => Kind::Message(read_message(r)?),
        number::PIECE => Kind::Piece(Piece { body: r.fixed_number()?, index: r.number()? }),
        number::COMMIT => {
            let (body, bytes) = (r.fixed_number()?, r.number()?);
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
            subscription: r.fixed_number()?,
            source: read_name(r)?,
            incarnation: r.fixed_number()?,
            from: r.number()?,
        }),
        number::UNSUB => Kind::Unsub { subscription: r.fixed_number()? },
        number::DELIVERY => Kind::Delivery(Delivery {
            subscription: r.fixed_number()?,
            incarnation: r.fixed_number()?,
            source_seq: r.number()?,
        }),
        _ => return Ok(None),
    }))
}

fn write_message<'w>(w: &'w mut Writer, message: &Message) -> &'w mut Writer {
    w.option(message.producer.as_ref(), write_producer).option(message.stream_seq.as_ref(), write_stream_seq)
}

fn read_message(r: &mut Reader<'_>) -> Result<Message, WireError> {
    Ok(Message { producer: r.option(read_producer)?, stream_seq: r.option(read_stream_seq)? })
}

pub(crate) fn write_stream_seq<'w>(w: &'w mut Writer, seq: &StreamSeq) -> &'w mut Writer {
    w.bytes(seq.as_bytes())
}

pub(crate) fn read_stream_seq(r: &mut Reader<'_>) -> Result<StreamSeq, WireError> {
    StreamSeq::new(r.bytes()?).map_err(|_| WireError::Value)
}

pub(crate) fn write_producer<'w>(w: &'w mut Writer, producer: &Producer) -> &'w mut Writer {
    w.text(producer.id.as_str()).number(producer.epoch).number(producer.seq)
}

pub(crate) fn read_producer(r: &mut Reader<'_>) -> Result<Producer, WireError> {
    Ok(Producer { id: read_producer_id(r)?, epoch: r.number()?, seq: r.number()? })
}

pub(crate) fn read_producer_id(r: &mut Reader<'_>) -> Result<ProducerId, WireError> {
    ProducerId::new(r.text()?).map_err(|_| WireError::Value)
}

pub(crate) fn write_reference<'w>(w: &'w mut Writer, reference: &Reference) -> &'w mut Writer {
    write_name(w.fixed_number(reference.incarnation), &reference.fork)
}

pub(crate) fn read_reference(r: &mut Reader<'_>) -> Result<Reference, WireError> {
    Ok(Reference { incarnation: r.fixed_number()?, fork: read_name(r)? })
}

fn write_name<'w>(w: &'w mut Writer, name: &StreamName) -> &'w mut Writer {
    w.text(&name.project).text(&name.stream)
}

fn read_name(r: &mut Reader<'_>) -> Result<StreamName, WireError> {
    Ok(StreamName { project: Arc::from(r.text()?), stream: Arc::from(r.text()?) })
}

pub(crate) fn write_open<'w>(w: &'w mut Writer, open: &Open) -> &'w mut Writer {
    w.fixed_number(open.incarnation).text(open.content_type.as_str());
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
    w.option(open.retention_ms, Writer::number).flag(open.adopts_native).option(open.fork.as_ref(), write_fork)
}

fn write_fork<'w>(w: &'w mut Writer, fork: &Fork) -> &'w mut Writer {
    write_name(w, &fork.source).fixed_number(fork.incarnation);
    w.number(fork.at.birth).number(fork.at.seq).number(fork.sub_offset);
    write_chain(w, &fork.chain)
}

pub(crate) fn read_open(r: &mut Reader<'_>) -> Result<Open, WireError> {
    let incarnation = r.fixed_number()?;
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
    let adopts_native = r.flag()?;
    let fork = r.option(read_fork)?;
    Ok(Open { incarnation, content_type, lifetime, visibility, retention_ms, adopts_native, fork })
}

fn read_fork(r: &mut Reader<'_>) -> Result<Fork, WireError> {
    Ok(Fork {
        source: read_name(r)?,
        incarnation: r.fixed_number()?,
        at: Offset { birth: r.number()?, seq: r.number()? },
        sub_offset: r.number()?,
        chain: read_chain(r)?,
    })
}

pub(crate) fn write_chain<'w>(w: &'w mut Writer, chain: &[Segment]) -> &'w mut Writer {
    w.list(chain.iter(), |w, segment| {
        w.number(segment.birth).option(segment.source.as_ref(), write_name).number(segment.from).number(segment.to)
    })
}

pub(crate) fn read_chain(r: &mut Reader<'_>) -> Result<Vec<Segment>, WireError> {
    let chain = r.list(MAX_FORK_DEPTH, |r| {
        Ok(Segment { birth: r.number()?, source: r.option(read_name)?, from: r.number()?, to: r.number()? })
    })?;
    if is_chain(&chain) { Ok(chain) } else { Err(WireError::Value) }
}

/// Whether a birth names one stretch, and leaves a later one for what comes behind them all: offsets sort as what they name.
fn is_chain(chain: &[Segment]) -> bool {
    let has_later = |last: &Segment| last.birth < u64::MAX;
    chain.is_sorted_by(|one, next| one.birth < next.birth)
        && chain.last().is_none_or(has_later)
        && chain.iter().all(|segment| segment.from <= segment.to)
}

#[cfg(test)]
mod tests;
