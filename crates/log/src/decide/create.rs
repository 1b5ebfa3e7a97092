//! PUT: protocol section 5.1, and 4.2 for forks.

use bytes::Bytes;
use tailwater_protocol::{ContentType, Lifetime, Offset};

use super::{
    Content, NativeDefaults, Refusal,
    batch::{BatchBuilder, Condition, Plan},
};
use crate::{
    mark::{BatchId, Close, Commit, Kind, Message, Open, StreamName, Visibility},
    state::{Incarnation, Life, Presence, StreamState},
    token::{Phase, Token},
};

/// What a PUT asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// The configuration; its incarnation is a fresh random number, its chain is filled in for a fork.
    pub open: Open,
    /// What the stream starts with: for a fork, what it inherits of a message comes first.
    pub content: Content,
    /// Whether it is created closed.
    pub closed: bool,
}

/// What becomes of a PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// Append this; the messages end before `messages_end` records of it.
    Create {
        /// The batch, conditioned on token and position.
        plan: Plan,
        /// Counted from the batch's first record.
        messages_end: Option<usize>,
    },
    /// It exists with this configuration.
    Exists,
    /// It exists with another; the field that differs first.
    Conflict(ConfigField),
    /// Refused.
    Refused(Refusal),
}

/// A field of a stream's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigField {
    /// `Content-Type`.
    ContentType,
    /// `Stream-TTL` or `Stream-Expires-At`.
    Lifetime,
    /// `Stream-Closed`.
    Closed,
    /// `Stream-Visibility`.
    Visibility,
    /// `Stream-Forked-From`, `Stream-Fork-Offset`, `Stream-Fork-Sub-Offset`.
    Fork,
    /// The stream is deleted and kept for its forks.
    SoftDeleted,
}

/// What a PUT is compared by where the stream exists; what it left out matches anything that it would have inherited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredConfig {
    /// As declared; `None` on a fork that inherits it, and where the default applies.
    pub content_type: Option<ContentType>,
    /// As declared; `None` on a fork that inherits it, and where none was declared, which is for ever.
    pub lifetime: Option<Lifetime>,
    /// `Stream-Closed: true`.
    pub closed: bool,
    /// As declared; `None` where the default applies, whatever it was or is.
    pub visibility: Option<Visibility>,
    /// The source, the fork offset where one was named, and the sub-offset.
    pub fork: Option<DeclaredFork>,
}

/// What a PUT says of a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredFork {
    /// The source.
    pub source: StreamName,
    /// Where, if it says so; the start of the source is resolved by the caller.
    pub at: Option<Offset>,
    /// How far past it.
    pub sub_offset: u64,
}

/// Compares a PUT with what exists; `None` where nothing does.
#[must_use]
pub fn decide_existing(
    state: &StreamState,
    declared: &DeclaredConfig,
    native: &NativeDefaults,
) -> Option<CreateOutcome> {
    match state.presence() {
        Presence::Absent if matches!(state.token, Token::Foreign(_)) => {
            return Some(CreateOutcome::Refused(Refusal::Fenced));
        }
        Presence::Absent => return None,
        Presence::SoftDeleted => return Some(CreateOutcome::Conflict(ConfigField::SoftDeleted)),
        Presence::Here => {}
    }
    let outcome = match &state.life {
        Life::Native(_) => differs_from_native(declared, native),
        Life::Opened(life) => differs(life, declared, native),
    };
    Some(outcome.map_or(CreateOutcome::Exists, CreateOutcome::Conflict))
}

fn differs_from_native(declared: &DeclaredConfig, native: &NativeDefaults) -> Option<ConfigField> {
    let other = |declared: &ContentType| !declared.same_media_type(&native.content_type);
    if declared.content_type.as_ref().is_some_and(other) {
        return Some(ConfigField::ContentType);
    }
    if declared.lifetime.is_some_and(|lifetime| lifetime != Lifetime::Forever) {
        return Some(ConfigField::Lifetime);
    }
    if declared.fork.is_some() {
        return Some(ConfigField::Fork);
    }
    if declared.visibility.is_some_and(|declared| declared != native.visibility) {
        return Some(ConfigField::Visibility);
    }
    declared.closed.then_some(ConfigField::Closed)
}

fn differs(life: &Incarnation, declared: &DeclaredConfig, native: &NativeDefaults) -> Option<ConfigField> {
    let default;
    let content_type = match (&declared.content_type, &declared.fork) {
        (Some(declared), _) => Some(declared),
        (None, Some(_)) => None,
        (None, None) => {
            default = ContentType::default_binary();
            Some(&default)
        }
    };
    if content_type.is_some_and(|declared| !declared.same_media_type(&life.open.content_type)) {
        return Some(ConfigField::ContentType);
    }
    let lifetime = declared.lifetime.or_else(|| declared.fork.is_none().then_some(Lifetime::Forever));
    if lifetime.is_some_and(|declared| declared != life.open.lifetime) {
        return Some(ConfigField::Lifetime);
    }
    if declared.closed != life.closed.is_some() {
        return Some(ConfigField::Closed);
    }
    let visibility = life.open.visibility.unwrap_or(native.visibility);
    if declared.visibility.is_some_and(|declared| declared != visibility) {
        return Some(ConfigField::Visibility);
    }
    let same_fork = match (&declared.fork, &life.open.fork) {
        (None, None) => true,
        (Some(declared), Some(fork)) => {
            declared.source == fork.source
                && declared.sub_offset == fork.sub_offset
                && declared.at.is_none_or(|at| at == fork.at)
        }
        (None, Some(_)) | (Some(_), None) => false,
    };
    (!same_fork).then_some(ConfigField::Fork)
}

/// The batch that creates a stream where nothing is in the way: `[fence, open, messages…]`, or with a closure
/// `[fence, open, messages…, close]`, on condition of token and position.
#[must_use]
pub fn plan_create(state: &StreamState, request: &CreateRequest, batch: BatchId) -> (Plan, Option<usize>) {
    let phase = if request.closed { Phase::Closed } else { Phase::Open };
    // Nothing of an earlier life matters to this one; the pointer to its checkpoint least of all.
    let fresh = StreamState { checkpoint: None, ..StreamState::starting_at(state.next) };
    let mut builder = BatchBuilder::new(&fresh, batch);
    builder.push(Kind::Fence(Token::ours(phase, request.open.incarnation).to_string()), Bytes::new());
    builder.push(Kind::Open(Box::new(request.open.clone())), Bytes::new());
    match &request.content {
        Content::Messages(messages) => {
            for message in messages {
                builder.push(Kind::Message(Message::default()), message.clone());
            }
        }
        Content::Pieces { body, pieces, bytes } => {
            let message = Message::default();
            let commit = Commit { body: *body, pieces: pieces.clone(), bytes: *bytes, message };
            builder.push(Kind::Commit(commit), Bytes::new());
        }
    }
    let messages_end = (!request.content.is_empty()).then_some(builder.len());
    if request.closed {
        builder.push(Kind::Close(Close { by: None }), Bytes::new());
    }
    (builder.finish(Condition::TokenAndPosition), messages_end)
}

#[cfg(test)]
mod tests;
