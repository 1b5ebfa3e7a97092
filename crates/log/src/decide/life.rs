//! What else is written in a stream's life: one batch each, on the weakest condition that is enough.

use bytes::Bytes;

use super::{
    NativeDefaults, Refusal,
    batch::{BatchBuilder, Condition, Plan},
    present,
};
use crate::{
    mark::{BatchId, Gone, GoneReason, Kind, Reference},
    record::NewRecord,
    state::{Life, MAX_FORKS, Presence, StreamState},
    token::{Phase, Token},
};

/// The batch that deletes a stream, on condition of the token alone, or that ends an expired one, on condition of the
/// position too, so that it loses against any write that came first.
pub fn plan_gone(state: &StreamState, reason: GoneReason, batch: BatchId) -> Result<Plan, Refusal> {
    let life = present(state)?;
    let mut builder = BatchBuilder::new(state, batch);
    let incarnation = match life {
        Some(life) => life.open.incarnation,
        // A native stream has no incarnation yet; the batch's own numbers make one.
        None => batch.writer ^ batch.counter.rotate_left(32),
    };
    builder.push(Kind::Fence(Token::ours(Phase::Gone, incarnation).to_string()), Bytes::new());
    builder.push(Kind::Gone(Gone { reason }), Bytes::new());
    Ok(builder.finish(match reason {
        GoneReason::Deleted => Condition::Token,
        GoneReason::Expired => Condition::TokenAndPosition,
    }))
}

/// The batch that empties a stream which is gone and which no fork needs; `None` where there is nothing to trim.
#[must_use]
pub fn plan_trim(state: &StreamState) -> Option<NewRecord> {
    let dead = matches!(state.token, Token::Ours(_)) && state.presence() == Presence::Absent;
    (dead && state.trimmed < state.next).then(|| NewRecord::trim(state.next))
}

/// Whether the end of a stream that no fork needs was not followed by its trim: what it held stands there still. Pods that
/// trim at the same time leave each a record behind, which is nothing to trim again for.
#[must_use]
pub fn wants_trim(state: &StreamState) -> bool {
    let held_to = match &state.life {
        Life::Native(native) => native.tail.unwrap_or(0),
        Life::Opened(life) => life.tail.unwrap_or(life.opened_at + 1),
    };
    state.trimmed < held_to && plan_trim(state).is_some()
}

/// A `touch`, on condition of the token.
pub fn plan_touch(state: &StreamState, batch: BatchId) -> Result<Plan, Refusal> {
    present(state)?;
    let mut builder = BatchBuilder::new(state, batch);
    builder.push(Kind::Touch, Bytes::new());
    Ok(builder.finish(Condition::Token))
}

/// A checkpoint on its own: after an activation that had to look far, or to learn S2's present. None of a stream that is
/// gone and that no fork needs: behind its trim it would keep the log from ever being empty.
#[must_use]
pub fn plan_checkpoint(state: &StreamState, batch: BatchId) -> Option<Plan> {
    state.incarnation().filter(|_| state.presence() != Presence::Absent)?;
    let mut builder = BatchBuilder::new(state, batch);
    builder.checkpoint();
    (builder.len() > 0).then(|| builder.finish(Condition::Token))
}

/// A fork's `ref` in its source, on condition of the token. A native source is opened by it: references are part of a
/// life that a gateway began.
pub fn plan_ref(
    state: &StreamState,
    reference: Reference,
    native: &NativeDefaults,
    batch: BatchId,
) -> Result<Plan, Refusal> {
    let life = present(state)?;
    if life.is_some_and(|life| life.references.len() >= MAX_FORKS) {
        return Err(Refusal::TooManyForks);
    }
    let mut builder = BatchBuilder::new(state, batch);
    if life.is_none() {
        builder.push(Kind::Fence(Token::ours(Phase::Open, native.incarnation).to_string()), Bytes::new());
        builder.push(Kind::Open(Box::new(native.open())), Bytes::new());
    }
    builder.push(Kind::Ref(reference), Bytes::new());
    Ok(builder.finish(Condition::Token))
}

/// A fork's `unref`, whatever has become of the source; `None` where it holds no such reference.
#[must_use]
pub fn plan_unref(state: &StreamState, reference: &Reference, batch: BatchId) -> Option<Plan> {
    state.incarnation()?.references.get(&reference.incarnation)?;
    let mut builder = BatchBuilder::new(state, batch);
    builder.push(Kind::Unref(reference.clone()), Bytes::new());
    Some(builder.finish(Condition::Token))
}

#[cfg(test)]
mod tests;
