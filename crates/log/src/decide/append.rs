//! Appends: protocol sections 5.2 and 5.2.1, with many requests to a batch.

use std::collections::BTreeMap;

use bytes::Bytes;
use tailwater_protocol::{ContentType, Producer, ProducerId, StreamSeq};

use super::{
    NativeDefaults, Refusal,
    batch::{BATCH_RESERVE, BatchBuilder, Condition, Plan, metered},
};
use crate::{
    mark::{BatchId, Close, Commit, Kind, Message, Open},
    producers::{Accepted, MAX_PRODUCERS, Producers, Verdict},
    record::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS},
    state::{Presence, StreamState},
    token::{Phase, Token},
};

/// What a client wants appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// The messages, in order; none for a close without data.
    pub content: Content,
    /// The declared type; a close without data needs none.
    pub content_type: Option<ContentType>,
    /// The producer's claim.
    pub producer: Option<Producer>,
    /// The writer's sequence.
    pub stream_seq: Option<StreamSeq>,
    /// Whether the stream ends with this.
    pub close: bool,
}

impl AppendRequest {
    /// Whether nothing about it depends on what else the log holds: messages of one batch, no claim, no closure. On a state
    /// that [takes plain batches](StreamState::takes_plain_batches) it lands on condition of the token alone.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Self { content, content_type: _, producer, stream_seq, close } = self;
        let messages = matches!(content, Content::Messages(_)) && !content.is_empty() && content.fits_a_batch();
        messages && producer.is_none() && stream_seq.is_none() && !close
    }
}

impl StreamState {
    /// Whether batches of [plain appends](AppendRequest::is_plain) may be under way together, in whatever order they
    /// land: they carry nothing of the state but the token and the birth. A stream that the batch would open is not like
    /// that, nor one that is over, nor a batch that carries a checkpoint, which is of one position.
    #[must_use]
    pub fn takes_plain_batches(&self) -> bool {
        let is_open = self.incarnation().is_some_and(|life| life.closed.is_none() && life.gone.is_none());
        is_open && matches!(self.token, Token::Ours(_)) && !self.is_inside_a_batch() && !self.checkpoint_due()
    }
}

/// The messages of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Each becomes a record.
    Messages(Vec<Bytes>),
    /// They stand in pieces that are in the log already.
    Pieces {
        /// The body's random number.
        body: u64,
        /// Where the pieces stand.
        pieces: Vec<u64>,
        /// Their bytes together.
        bytes: u64,
    },
}

/// What happens to an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Part of the batch; the messages end before this many records of it.
    Planned {
        /// Counted from the batch's first record; `None` for a close without data.
        messages_end: Option<usize>,
        /// Whether the stream ends with it.
        closes: bool,
    },
    /// It was appended before.
    Duplicate {
        /// The highest sequence number accepted in the claim's epoch.
        highest: u64,
        /// Whether the stream is closed.
        closed: bool,
    },
    /// A close of what is closed.
    AlreadyClosed,
    /// Refused.
    Refused(Refusal),
    /// It did not fit this batch, or must not go together with what is in it: ask again with the next.
    NotNow,
}

/// Makes one batch of the appends that wait.
#[derive(Debug)]
pub struct Planner<'a> {
    state: &'a StreamState,
    fence: Option<Token>,
    opening: Option<Open>,
    entries: Vec<(Kind, Bytes)>,
    bytes: usize,
    counted: bool,
    closing: Option<Close>,
    claims: BTreeMap<ProducerId, Accepted>,
    new_producers: usize,
    stream_seq: Option<StreamSeq>,
}

impl<'a> Planner<'a> {
    /// A planner on a state; an expired stream has to be ended first.
    #[must_use]
    pub fn new(state: &'a StreamState) -> Self {
        Self {
            state,
            fence: None,
            opening: None,
            entries: Vec::new(),
            bytes: 0,
            counted: false,
            closing: None,
            claims: BTreeMap::new(),
            new_producers: 0,
            stream_seq: None,
        }
    }

    /// Whether nothing is planned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.closing.is_none()
    }

    /// Judges a request, and takes it into the batch where it goes. `native` is the configuration that a first append to
    /// a native stream opens it with.
    pub fn push(&mut self, request: &AppendRequest, native: &NativeDefaults) -> Outcome {
        if self.closing.is_some() {
            return Outcome::NotNow;
        }
        let outcome = self.judge(request, native);
        if let Err(outcome) = outcome {
            return outcome;
        }
        let Some(fitting) = self.fit(request) else { return Outcome::NotNow };
        self.take(request, fitting, native)
    }

    fn judge(&self, request: &AppendRequest, native: &NativeDefaults) -> Result<(), Outcome> {
        let refused = |refusal| Err(Outcome::Refused(refusal));
        match self.state.presence() {
            Presence::Absent => return refused(Refusal::NotFound),
            Presence::SoftDeleted => return refused(Refusal::SoftDeleted),
            Presence::Here => {}
        }
        if matches!(self.state.token, Token::Foreign(_)) {
            return refused(Refusal::Fenced);
        }
        if let Some(answer) = self.judge_closed(request) {
            return Err(answer);
        }
        let own = match self.state.incarnation() {
            Some(life) => &life.open.content_type,
            None => &native.content_type,
        };
        match &request.content_type {
            Some(declared) if !request.content.is_empty() && !declared.same_media_type(own) => {
                return refused(Refusal::ContentType { actual: own.as_str().to_owned() });
            }
            Some(_) | None => {}
        }
        self.judge_producer(request)?;
        if let Some(seq) = &request.stream_seq {
            let known = self.state.incarnation().and_then(|life| life.stream_seq.as_ref());
            if known.is_some_and(|last| seq <= last) {
                return refused(Refusal::StreamSeq);
            }
            if self.stream_seq.as_ref().is_some_and(|planned| seq <= planned) {
                return Err(Outcome::NotNow);
            }
        }
        Ok(())
    }

    fn judge_closed(&self, request: &AppendRequest) -> Option<Outcome> {
        let closed = self.state.incarnation()?.closed.as_ref()?;
        if let (Some(by), Some(claim)) = (&closed.by, &request.producer)
            && by == claim
        {
            return Some(Outcome::Duplicate { highest: claim.seq, closed: true });
        }
        if request.close && request.content.is_empty() && request.producer.is_none() {
            return Some(Outcome::AlreadyClosed);
        }
        Some(Outcome::Refused(Refusal::Closed { tail: self.state.tail_offset() }))
    }

    fn judge_producer(&self, request: &AppendRequest) -> Result<(), Outcome> {
        let Some(claim) = &request.producer else { return Ok(()) };
        let also = self.claims.get(&claim.id).copied();
        if also.is_none() && self.must_go_alone(claim) {
            return Err(Outcome::NotNow);
        }
        let verdict = match self.state.incarnation() {
            Some(life) => life.producers.judge(claim, self.state.clock_ms, also, self.new_producers),
            None => Producers::default().judge(claim, 0, also, self.new_producers),
        };
        Err(match verdict {
            Verdict::Accept => return Ok(()),
            // What is only planned may still be refused: an answer that leans on it has to wait.
            _ if also.is_some() => Outcome::NotNow,
            Verdict::Duplicate { highest } => Outcome::Duplicate { highest, closed: false },
            Verdict::Stale { current } => Outcome::Refused(Refusal::StaleEpoch { current }),
            Verdict::EpochStart => Outcome::Refused(Refusal::EpochStart),
            Verdict::Gap { expected } => Outcome::Refused(Refusal::ProducerGap { expected, received: claim.seq }),
            Verdict::Full => Outcome::Refused(Refusal::TooManyProducers),
        })
    }

    /// Whether a claim must not share a batch with those that are in it. A new producer in a full table makes the fold
    /// forget the idle ones, and it depends on the claims beside it which those are: one at a time, judgement and fold
    /// cannot disagree.
    fn must_go_alone(&self, claim: &Producer) -> bool {
        let Some(producers) = self.state.incarnation().map(|life| &life.producers) else { return false };
        let full = producers.len() + self.new_producers >= MAX_PRODUCERS;
        let any_new = self.new_producers > 0 || producers.get(&claim.id).is_none();
        full && any_new && !self.claims.is_empty()
    }

    /// The request's messages as records of this batch, and their bytes, where they fit.
    fn fit(&self, request: &AppendRequest) -> Option<(Vec<(Kind, Bytes)>, usize)> {
        let meta = Message { producer: request.producer.clone(), stream_seq: request.stream_seq.clone() };
        let messages: Vec<(Kind, Bytes)> = match &request.content {
            Content::Messages(bodies) => {
                let last = bodies.len().saturating_sub(1);
                let meta_at = |at| if at == last { meta.clone() } else { Message::default() };
                bodies.iter().enumerate().map(|(at, body)| (Kind::Message(meta_at(at)), body.clone())).collect()
            }
            Content::Pieces { body, pieces, bytes } => {
                let commit = Commit { body: *body, pieces: pieces.clone(), bytes: *bytes, message: meta };
                vec![(Kind::Commit(commit), Bytes::new())]
            }
        };
        let bytes: usize = messages.iter().map(|(kind, body)| metered(kind, body)).sum();
        let room = self.bytes + bytes + BATCH_RESERVE <= MAX_BATCH_BYTES
            && self.entries.len() + messages.len() + 4 <= MAX_BATCH_RECORDS;
        (room || self.is_empty()).then_some((messages, bytes))
    }

    fn take(
        &mut self,
        request: &AppendRequest,
        (messages, bytes): (Vec<(Kind, Bytes)>, usize),
        native: &NativeDefaults,
    ) -> Outcome {
        if self.state.incarnation().is_none() && self.opening.is_none() {
            self.adopt(native);
        }
        if let Some(claim) = &request.producer {
            let known = self.state.incarnation().and_then(|life| life.producers.get(&claim.id));
            let last = Accepted { epoch: claim.epoch, seq: claim.seq, at_ms: self.state.clock_ms };
            if self.claims.insert(claim.id.clone(), last).is_none() && known.is_none() {
                self.new_producers += 1;
            }
        }
        if let Some(seq) = &request.stream_seq {
            self.stream_seq = Some(seq.clone());
        }
        self.counted |= request.producer.is_some() || request.stream_seq.is_some();
        self.bytes += bytes;
        self.entries.extend(messages);
        let messages_end = (!request.content.is_empty()).then_some(self.entries.len() + self.leading());
        if request.close {
            self.closing = Some(Close { by: request.producer.clone() });
            if let Some(incarnation) = self.incarnation() {
                // The fence leads the batch; what was counted so far moves by it.
                self.fence = Some(Token::ours(Phase::Closed, incarnation));
            }
        }
        Outcome::Planned { messages_end, closes: request.close }
    }

    /// The first append through a gateway opens a native stream, and what stands before belongs to it.
    fn adopt(&mut self, native: &NativeDefaults) {
        let open = native.open();
        self.fence = Some(Token::ours(Phase::Open, open.incarnation));
        self.opening = Some(open);
    }

    fn incarnation(&self) -> Option<u64> {
        let opened = self.state.incarnation().map(|life| life.open.incarnation);
        opened.or_else(|| self.opening.as_ref().map(|open| open.incarnation))
    }

    /// How many records stand before the messages.
    fn leading(&self) -> usize {
        usize::from(self.opening.is_some()) * 2
    }

    /// The batch, with its stamp on the last record, and a checkpoint where one is due. Fences stand where the marks
    /// that they belong to stand: before the `open`, and before the `close`.
    #[must_use]
    pub fn finish(self, batch: BatchId) -> Plan {
        let counted = self.counted;
        let mut builder = BatchBuilder::new(self.state, batch);
        if let Some(open) = self.opening {
            builder.push(Kind::Fence(Token::ours(Phase::Open, open.incarnation).to_string()), Bytes::new());
            builder.push(Kind::Open(Box::new(open)), Bytes::new());
        }
        for (kind, body) in self.entries {
            builder.push(kind, body);
        }
        if let (Some(close), Some(fence)) = (self.closing, self.fence) {
            builder.push(Kind::Fence(fence.to_string()), Bytes::new());
            builder.push(Kind::Close(close), Bytes::new());
        } else {
            builder.checkpoint_if_due();
        }
        builder.finish(if counted { Condition::TokenAndPosition } else { Condition::Token })
    }
}

impl Content {
    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Messages(messages) => messages.is_empty(),
            Self::Pieces { .. } => false,
        }
    }

    /// Whether the messages go into one batch; others are appended in pieces first.
    #[must_use]
    pub fn fits_a_batch(&self) -> bool {
        match self {
            Self::Messages(messages) => {
                let bytes: usize = messages.iter().map(|m| m.len() + 8).sum();
                bytes + BATCH_RESERVE <= MAX_BATCH_BYTES && messages.len() + 8 <= MAX_BATCH_RECORDS
            }
            Self::Pieces { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests;
