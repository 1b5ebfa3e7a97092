//! Bodies larger than one batch: their pieces are appended first, and the commit follows as an ordinary write.
//!
//! Pieces are invisible without their commit, so whatever becomes of one, nothing was appended until the commit lands.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tailwater_log::{
    BATCH_RESERVE, BatchBuilder, Condition, Content, Kind, MAX_BATCH_BYTES, NewRecord, Piece, Plan, Token,
};
use tailwater_protocol::ContentKind;
use tailwater_upstream::{AppendAck, StreamKey, Upstream};

use super::{AppendWrite, Flight, Planned, Write, WriteKind, Wrote};
use crate::{
    actor::{Actor, Done},
    ops::OpError,
    settle::{Attempt, Patience, Settled, failed},
};

/// A large body whose pieces are in the log.
pub(super) struct LargeBody {
    pub(super) whole: Bytes,
    /// The messages as they came.
    pub(super) messages: Content,
}

/// What became of a large body's pieces.
pub(in crate::actor) struct Uploaded {
    pub(super) body: u64,
    pub(super) whole: Bytes,
    pub(super) acks: Vec<(NewRecord, AppendAck)>,
    /// How the first piece that did not land ended.
    pub(super) failure: Option<Settled>,
}

impl Actor {
    /// The pieces of a body went with the life in which they were appended: they are appended again.
    pub(super) fn forget_lost_pieces(&self, write: &mut AppendWrite) {
        let Content::Pieces { pieces, .. } = &write.request.content else { return };
        let life = self.state.incarnation().filter(|life| !life.open.adopts_native);
        let lost = life.is_some_and(|life| pieces.iter().any(|piece| *piece < life.opened_at));
        if let Some(uploaded) = write.uploaded.take_if(|_| lost) {
            write.request.content = uploaded.messages;
        }
    }

    /// Appends a large body in pieces; the commit follows as an ordinary write.
    pub(super) fn upload(&mut self, write: Write) {
        let (content, kind) = match &write.kind {
            WriteKind::Append(write) => (&write.request.content, self.content_kind()),
            WriteKind::Create(write) => (&write.stream.request.content, write.stream.request.open.content_type.kind()),
            WriteKind::Mark(_) => return,
        };
        let whole = join(content, kind);
        let body = self.seed.config.chance.number();
        let plans: Vec<Plan> = pieces(&whole).enumerate().map(|(n, bytes)| self.plan_piece(body, n, bytes)).collect();
        let attempts = Pieces {
            upstream: Arc::clone(&self.seed.upstream),
            key: self.seed.key.clone(),
            token: self.state.token().clone(),
            next: self.state.next(),
            patience: (&self.seed.config).into(),
        };
        let flight = self.writes.flights.begin_alone();
        self.start(async move {
            let (acks, failure) = attempts.run(plans, &|| write.is_awaited()).await;
            let uploaded = Uploaded { body, whole, acks, failure };
            Done::Wrote(Box::new(Wrote::Pieces { flight, write, uploaded }))
        });
    }

    fn plan_piece(&mut self, body: u64, index: usize, bytes: Bytes) -> Plan {
        let batch = self.writes.next_batch_id();
        let mut builder = BatchBuilder::new(&self.state, batch);
        builder.push(Kind::Piece(Piece { body, index: index as u64 }), bytes);
        builder.finish(Condition::Token)
    }

    pub(super) fn on_uploaded(&mut self, flight: &Flight, mut write: Write, uploaded: Uploaded) {
        let Uploaded { body, whole, acks, failure } = uploaded;
        let positions: Vec<u64> = acks.iter().map(|(_, ack)| ack.start.seq).collect();
        for (record, ack) in acks {
            self.take_own(vec![record], None, ack);
        }
        match failure {
            None => {
                let content = Content::Pieces { body, pieces: positions, bytes: whole.len() as u64 };
                match &mut write.kind {
                    WriteKind::Append(append) => {
                        let messages = std::mem::replace(&mut append.request.content, content);
                        append.uploaded = Some(LargeBody { whole, messages });
                    }
                    WriteKind::Create(create) => {
                        create.stream.request.content = content;
                        create.whole = Some(whole);
                    }
                    WriteKind::Mark(_) => {}
                }
                self.writes.put_back(write);
            }
            Some(Settled::Refused { token }) => {
                let planned = Planned { messages_end: None, closes: false, birth: None };
                self.on_refused(flight, vec![(write, planned)], Condition::Token, token.as_ref());
            }
            // The pieces are invisible without their commit: whatever became of the last one, nothing was appended.
            Some(Settled::Failed(error)) => write.fail(&failed(error)),
            Some(Settled::Unknown | Settled::Landed(_)) => {
                write.fail(&OpError::Unavailable { retry_after: None, cause: None });
            }
        }
    }
}

/// Appends pieces one after the other.
struct Pieces {
    upstream: Arc<dyn Upstream>,
    key: StreamKey,
    token: Token,
    next: u64,
    patience: Patience,
}

impl Pieces {
    async fn run(
        mut self,
        plans: Vec<Plan>,
        is_awaited: &(dyn Fn() -> bool + Send + Sync),
    ) -> (Vec<(NewRecord, AppendAck)>, Option<Settled>) {
        let mut acks = Vec::with_capacity(plans.len());
        for plan in plans {
            let record = plan.records[0].clone();
            match self.append(plan, is_awaited).await {
                Ok(ack) => {
                    self.next = ack.end.seq;
                    acks.push((record, ack));
                }
                Err(failure) => return (acks, Some(failure)),
            }
        }
        (acks, None)
    }

    /// A moved turn does not matter to a piece: it goes on with the new token.
    async fn append(
        &mut self,
        plan: Plan,
        is_awaited: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<AppendAck, Settled> {
        loop {
            let upstream = Arc::clone(&self.upstream);
            let token = self.token.clone();
            let attempt =
                Attempt::new(upstream, self.key.clone(), plan.clone(), (token, self.next), self.patience.clone());
            match attempt.run(is_awaited).await {
                Settled::Landed(ack) => return Ok(ack),
                Settled::Refused { token: Some(token) } if self.token.differs_only_in_turn(&token) => {
                    self.token = token;
                }
                settled @ (Settled::Refused { .. } | Settled::Failed(_) | Settled::Unknown) => return Err(settled),
            }
        }
    }
}

/// A large body as one run of bytes: the values of a JSON stream joined by commas, all else end to end.
fn join(content: &Content, kind: ContentKind) -> Bytes {
    let Content::Messages(messages) = content else { return Bytes::new() };
    if let [only] = messages.as_slice() {
        return only.clone();
    }
    let mut whole = BytesMut::with_capacity(messages.iter().map(|message| message.len() + 1).sum());
    for (n, message) in messages.iter().enumerate() {
        if n > 0 && kind == ContentKind::Json {
            whole.extend_from_slice(b",");
        }
        whole.extend_from_slice(message);
    }
    whole.freeze()
}

fn pieces(whole: &Bytes) -> impl Iterator<Item = Bytes> {
    const PIECE: usize = MAX_BATCH_BYTES - BATCH_RESERVE;
    (0..whole.len()).step_by(PIECE).map(|from| whole.slice(from..whole.len().min(from + PIECE)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tailwater_protocol::json;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_the_whole_body_and_each_fits_a_batch(len in 0usize..4_000_000) {
            let whole = Bytes::from(vec![7; len]);
            let cut: Vec<Bytes> = pieces(&whole).collect();
            prop_assert_eq!(cut.concat(), whole);
            prop_assert!(cut.iter().all(|piece| !piece.is_empty() && piece.len() + BATCH_RESERVE <= MAX_BATCH_BYTES));
        }

        #[test]
        fn values_that_were_joined_come_apart_again(values in prop::collection::vec("[0-9]{1,9}", 1..50)) {
            let values: Vec<Bytes> = values.into_iter().map(Bytes::from).collect();
            let joined = join(&Content::Messages(values.clone()), ContentKind::Json);
            prop_assert_eq!(&json::split_values(&joined), &values);
            prop_assert_eq!(join(&Content::Messages(values.clone()), ContentKind::Text), values.concat());
        }
    }
}
