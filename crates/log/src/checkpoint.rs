//! Checkpoints: the folded state, written down in the log itself.
//!
//! All that is folded is bounded ([`MAX_PRODUCERS`], [`MAX_FORKS`], the lengths of ids and names), and the bounds are
//! chosen so that a checkpoint always fits one record: there is no such thing as half of one.

use bytes::Bytes;
use tailwater_wire::{Reader, WireError, Writer};

use crate::{
    codec::{self, MAX_FORK_DEPTH},
    mark::{Checkpoint, Gone, GoneReason, Reference},
    producers::{Accepted, MAX_PRODUCERS, Producers},
    record::MAX_BATCH_BYTES,
    state::{Closed, Incarnation, Life, MAX_FORKS_FOLDED, Native, StreamState},
    token::Token,
};

/// A checkpoint is worth its bytes once what it saves weighs this many times as much.
const WEIGHT_FACTOR: u64 = 8;
/// And once it saves at least this many records.
pub const CHECKPOINT_MIN_RECORDS: u64 = 128;

/// The longest that a producer id, a project with a stream's name, and a `Stream-Seq` can be, in bytes.
const MAX_ID: usize = 256;
const MAX_NAME: usize = 64 + 400;

// What the largest state weighs, with room for numbers and lengths: it must leave space for the header.
// A fork's chain is written twice: as its `open` declared it, and as it is served.
const LARGEST: usize =
    MAX_PRODUCERS * (MAX_ID + 32) + MAX_FORKS_FOLDED * (MAX_NAME + 16) + 2 * MAX_FORK_DEPTH * (MAX_NAME + 40) + 4096;
const _: () = assert!(LARGEST < MAX_BATCH_BYTES - 1024, "a checkpoint fits one record");

/// The first byte of a checkpoint's body.
const VERSION: u8 = 1;

impl StreamState {
    /// Whether the log has grown enough since the last checkpoint for the next append to carry one.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        let Some(life) = self.incarnation() else { return false };
        let (as_of, weight) = self.checkpoint.map_or((life.opened_at, 0), |c| (c.as_of, c.weight));
        let records = self.next.saturating_sub(as_of.max(life.opened_at));
        let bytes = self.weight.saturating_sub(weight);
        records >= CHECKPOINT_MIN_RECORDS && bytes >= WEIGHT_FACTOR * self.estimated_bytes()
    }

    /// The checkpoint of this state, and the body of its record.
    #[must_use]
    pub fn to_checkpoint(&self) -> (Checkpoint, Bytes) {
        (Checkpoint { as_of: self.next, weight: self.weight }, encode(self))
    }

    /// The state that a checkpoint's body holds.
    pub fn from_checkpoint(body: &[u8]) -> Result<Self, WireError> {
        decode(body)
    }

    fn estimated_bytes(&self) -> u64 {
        let life = self.incarnation();
        let producers = life.map_or(0, |life| life.producers.iter().map(|(id, _)| id.as_str().len() + 20).sum());
        let forks = life.map_or(0, |life| life.references.len() * 64 + life.chain.len() * 64);
        (producers + forks + 128) as u64
    }
}

fn encode(state: &StreamState) -> Bytes {
    let mut w = Writer::default();
    w.byte(VERSION).number(state.next).number(state.clock_ms).text(&state.token.to_string());
    w.number(state.trimmed).number(state.weight);
    w.option(state.checkpoint, |w, known| w.number(known.as_of).number(known.weight));
    match &state.life {
        Life::Native(native) => w.byte(0).option(native.tail, Writer::number),
        Life::Opened(life) => encode_life(w.byte(1), life),
    };
    w.finish().into()
}

fn encode_life<'w>(w: &'w mut Writer, life: &Incarnation) -> &'w mut Writer {
    codec::write_open(w, &life.open).number(life.opened_at).number(life.birth);
    codec::write_chain(w, &life.chain).option(life.tail, Writer::number);
    w.option(life.closed.as_ref(), |w, closed| w.number(closed.at).option(closed.by.as_ref(), codec::write_producer));
    w.option(life.gone, |w, gone| w.byte(u8::from(gone.reason == GoneReason::Expired)));
    w.list(life.producers.iter(), |w, (id, last)| {
        w.text(id.as_str()).number(last.epoch).number(last.seq).number(last.at_ms)
    });
    w.option(life.stream_seq.as_ref(), codec::write_stream_seq).number(life.last_use_ms);
    w.list(life.references.iter(), |w, (incarnation, fork)| {
        codec::write_reference(w, &Reference { incarnation: *incarnation, fork: fork.clone() })
    })
}

fn decode(body: &[u8]) -> Result<StreamState, WireError> {
    let mut r = Reader::new(body);
    if r.byte()? != VERSION {
        return Err(WireError::Value);
    }
    let (next, clock_ms) = (r.number()?, r.number()?);
    let token = Token::parse(r.text()?);
    let (trimmed, weight) = (r.number()?, r.number()?);
    let checkpoint = r.option(|r| Ok(Checkpoint { as_of: r.number()?, weight: r.number()? }))?;
    let life = match r.byte()? {
        0 => Life::Native(Native { tail: r.option(Reader::number)? }),
        1 => Life::Opened(Box::new(decode_life(&mut r)?)),
        _ => return Err(WireError::Value),
    };
    r.finish()?;
    let ends = |tail: Option<u64>| tail.is_none_or(|tail| tail <= next);
    let is_within = match &life {
        Life::Native(native) => ends(native.tail),
        Life::Opened(life) => {
            life.opened_at < next && ends(life.tail) && life.closed.as_ref().is_none_or(|closed| closed.at < next)
        }
    };
    if trimmed > next || !is_within {
        return Err(WireError::Value);
    }
    Ok(StreamState { next, clock_ms, token, trimmed, weight, checkpoint, life })
}

fn decode_life(r: &mut Reader<'_>) -> Result<Incarnation, WireError> {
    let open = codec::read_open(r)?;
    let (opened_at, birth) = (r.number()?, r.number()?);
    let chain = codec::read_chain(r)?;
    if chain.last().is_some_and(|last| last.birth >= birth) {
        return Err(WireError::Value);
    }
    let tail = r.option(Reader::number)?;
    let closed = r.option(|r| Ok(Closed { at: r.number()?, by: r.option(codec::read_producer)? }))?;
    let gone = r.option(|r| match r.byte()? {
        0 => Ok(Gone { reason: GoneReason::Deleted }),
        1 => Ok(Gone { reason: GoneReason::Expired }),
        _ => Err(WireError::Value),
    })?;
    let mut producers = Producers::default();
    for (id, last) in r.list(MAX_PRODUCERS, |r| {
        let id = codec::read_producer_id(r)?;
        Ok((id, Accepted { epoch: r.number()?, seq: r.number()?, at_ms: r.number()? }))
    })? {
        producers.restore(id, last);
    }
    let stream_seq = r.option(codec::read_stream_seq)?;
    let last_use_ms = r.number()?;
    let references = r.list(MAX_FORKS_FOLDED, codec::read_reference)?;
    let references = references.into_iter().map(|r| (r.incarnation, r.fork)).collect();
    Ok(Incarnation {
        open,
        opened_at,
        birth,
        chain,
        tail,
        closed,
        gone,
        producers,
        stream_seq,
        last_use_ms,
        references,
    })
}

#[cfg(test)]
mod tests;
