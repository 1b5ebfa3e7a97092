//! What can be asked of a stream, and what comes back: the crate's vocabulary towards the HTTP surface.

use std::time::Duration;

use bytes::Bytes;
use tailwater_log::{ConfigField, Misplaced, Refusal, StreamState, Visibility};
use tailwater_protocol::{ContentType, Lifetime, Offset, Producer, StreamSeq};
use tailwater_upstream::{Cause, Fault, StreamKey};

use crate::config::Config;

/// A PUT, parsed.
#[derive(Debug, Clone)]
pub struct Create {
    /// As declared; `None` is the default, or what a fork inherits.
    pub content_type: Option<ContentType>,
    /// As declared; `None` is for ever, or what a fork inherits.
    pub lifetime: Option<Lifetime>,
    /// Who may cache and see it.
    pub visibility: NewVisibility,
    /// The first messages.
    pub messages: Vec<Bytes>,
    /// Whether it is created closed.
    pub closed: bool,
    /// Where it is forked from.
    pub fork: Option<ForkFrom>,
}

/// Who may see a new stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewVisibility {
    /// As the request says; a stream that exists must have it.
    Declared(Visibility),
    /// The request says nothing, and whoever takes it says this. A fork of a private source is private all the same.
    Default(Visibility),
    /// Nobody says anything, because everybody may do everything. Should that end, it is not public for having been
    /// made before.
    Undeclared,
}

/// Which sources the author of a fork may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceAccess {
    /// Whatever is named.
    #[default]
    Any,
    /// Public ones; others are not there for them.
    Public,
}

/// Where a fork comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkFrom {
    /// The source.
    pub source: StreamKey,
    /// Whether it has to be public.
    pub access: SourceAccess,
    /// The fork offset.
    pub at: ForkPoint,
    /// Bytes past it, or messages of a JSON stream (protocol section 4.2).
    pub sub_offset: u64,
}

/// A fork offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkPoint {
    /// The source's tail: no offset was given.
    Tail,
    /// The source's start.
    Start,
    /// An offset that a server has given out.
    At(Offset),
}

/// A POST, parsed.
#[derive(Debug, Clone)]
pub struct Post {
    /// The messages; none for a close without data.
    pub messages: Vec<Bytes>,
    /// As declared.
    pub content_type: Option<ContentType>,
    /// The producer's claim.
    pub producer: Option<Producer>,
    /// The writer's sequence.
    pub stream_seq: Option<StreamSeq>,
    /// Whether the stream ends with this.
    pub close: bool,
}

/// What a stream is at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// As declared at creation.
    pub content_type: ContentType,
    /// When it expires.
    pub lifetime: Lifetime,
    /// Who may cache and see it.
    pub visibility: Visibility,
    /// The birth of its own offsets; with the name, its identity.
    pub birth: u64,
    /// The offset after the last message.
    pub tail: Offset,
    /// Whether it takes no more appends.
    pub closed: bool,
}

/// What became of a PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Whether it was created by this request, or existed with the same configuration.
    pub fresh: bool,
    /// What it is now.
    pub head: Head,
}

/// What became of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is durable; `next` is the offset after its last message.
    Landed {
        /// The offset after its last message; of a close without data the tail.
        next: Offset,
        /// Whether the stream is closed now.
        closed: bool,
    },
    /// The producer's claim was accepted before.
    Duplicate {
        /// The highest sequence number accepted in the claim's epoch.
        highest: u64,
        /// The tail.
        next: Offset,
        /// Whether the stream is closed.
        closed: bool,
    },
    /// A close of what was closed.
    AlreadyClosed {
        /// The final offset.
        next: Offset,
    },
}

/// What a catch-up read found.
#[derive(Debug, Clone)]
pub struct Page {
    /// What the stream is.
    pub head: Head,
    /// The bodies, in order. In a JSON stream each is one value, or several joined by commas.
    pub messages: Vec<Bytes>,
    /// The offset that the page starts at.
    pub start: Offset,
    /// The offset to go on from.
    pub next: Offset,
    /// Whether the page ends at the tail of this moment.
    pub up_to_date: bool,
}

/// Why an operation failed. Where it is an append, nothing of it was or will be appended, but for
/// [`OutcomeUnknown`](Self::OutcomeUnknown).
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The stream's state forbids it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A PUT to a stream that exists with another configuration.
    #[error("the stream exists with another configuration")]
    Conflict {
        /// The field that differs first.
        field: ConfigField,
    },
    /// The offset points nowhere.
    #[error(transparent)]
    Misplaced(#[from] Misplaced),
    /// The fork cannot be made.
    #[error(transparent)]
    Fork(#[from] ForkError),
    /// Too much waits for this stream already.
    #[error("too many requests wait for this stream")]
    StreamBusy,
    /// The stream has as many live readers as it may.
    #[error("the stream has {limit} live readers, which is as many as it may")]
    TooManyReaders {
        /// The limit.
        limit: usize,
    },
    /// The gateway serves as many streams as it may.
    #[error("the gateway serves as many streams as it may")]
    TooManyStreams,
    /// It serves nearly as many, and the next one is for projects that have fewer of them.
    #[error("the gateway is nearly full, and what is left is for projects that have less of it")]
    OverFairShare,
    /// The stream's project would be a new one, and the store holds as many as it may.
    #[error("the store holds {limit} projects, which is as many as it may")]
    TooManyProjects {
        /// The limit.
        limit: usize,
    },
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    Draining,
    /// The store cannot be reached, or failed.
    #[error("the store is not available")]
    Unavailable {
        /// For how long to wait, where the store says so.
        retry_after: Option<Duration>,
        /// What its library said.
        #[source]
        cause: Option<Cause>,
    },
    /// The append may have landed, and the store did not answer in time to tell.
    #[error("the store did not say in time whether the append landed")]
    OutcomeUnknown,
    /// A record of the stream's log breaks the format; the stream is quarantined.
    #[error("the stream's log holds a record that cannot be read")]
    Unreadable {
        /// Its position.
        seq: u64,
    },
    /// The store refused the request as such.
    #[error("the store refused the request")]
    StoreRefused {
        /// What its library said.
        #[source]
        cause: Option<Cause>,
    },
}

/// Why a fork cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// No such source.
    #[error("the source of the fork does not exist")]
    SourceNotFound,
    /// The source is deleted, and kept for other forks.
    #[error("the source of the fork is deleted")]
    SourceDeleted,
    /// The fork offset lies beyond the source's tail.
    #[error("the fork offset lies beyond the tail of the source")]
    OffsetBeyond,
    /// What the fork offset points to is no longer there.
    #[error("the fork offset is no longer available")]
    OffsetGone,
    /// The sub-offset lies beyond the source's data.
    #[error("the fork sub-offset lies beyond the data of the source")]
    SubOffset,
    /// Forks are nested as deep as they may be.
    #[error("forks are nested too deep")]
    TooDeep,
}

impl NewVisibility {
    /// What an existing stream has to have, if anything.
    pub(crate) fn declared(self) -> Option<Visibility> {
        match self {
            Self::Declared(visibility) => Some(visibility),
            Self::Default(_) | Self::Undeclared => None,
        }
    }

    /// Of a stream that is no fork.
    pub(crate) fn plain(self) -> Option<Visibility> {
        match self {
            Self::Declared(visibility) | Self::Default(visibility) => Some(visibility),
            Self::Undeclared => None,
        }
    }

    /// Of a fork of this source.
    pub(crate) fn of_fork(self, source: Visibility) -> Option<Visibility> {
        match self {
            Self::Declared(visibility) => Some(visibility),
            Self::Default(_) | Self::Undeclared if source == Visibility::Private => Some(Visibility::Private),
            Self::Default(visibility) => Some(visibility),
            Self::Undeclared => None,
        }
    }
}

impl Head {
    /// What a stream in this state is; the configuration says it of streams that no gateway opened.
    #[must_use]
    pub(crate) fn of(state: &StreamState, config: &Config) -> Self {
        let life = state.incarnation();
        let open = life.map(|life| &life.open);
        Self {
            content_type: open.map_or(&config.native_content_type, |open| &open.content_type).clone(),
            lifetime: open.map_or(Lifetime::Forever, |open| open.lifetime),
            visibility: open.and_then(|open| open.visibility).unwrap_or(config.undeclared_visibility),
            birth: state.own_birth(),
            tail: state.tail_offset(),
            closed: life.is_some_and(|life| life.closed.is_some()),
        }
    }
}

impl OpError {
    /// The same error for another who is told of it: without the cause, which is logged where it is met first.
    #[must_use]
    pub fn again(&self) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.clone()),
            Self::Conflict { field } => Self::Conflict { field: *field },
            Self::Misplaced(misplaced) => Self::Misplaced(*misplaced),
            Self::Fork(fork) => Self::Fork(*fork),
            Self::StreamBusy => Self::StreamBusy,
            Self::TooManyReaders { limit } => Self::TooManyReaders { limit: *limit },
            Self::TooManyStreams => Self::TooManyStreams,
            Self::OverFairShare => Self::OverFairShare,
            Self::TooManyProjects { limit } => Self::TooManyProjects { limit: *limit },
            Self::Draining => Self::Draining,
            Self::Unavailable { retry_after, .. } => Self::Unavailable { retry_after: *retry_after, cause: None },
            Self::OutcomeUnknown => Self::OutcomeUnknown,
            Self::Unreadable { seq } => Self::Unreadable { seq: *seq },
            Self::StoreRefused { .. } => Self::StoreRefused { cause: None },
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused(_) | Self::Conflict { .. } | Self::Misplaced(_) | Self::Fork(_) => Fault::Client,
            Self::StreamBusy
            | Self::TooManyReaders { .. }
            | Self::TooManyStreams
            | Self::OverFairShare
            | Self::TooManyProjects { .. }
            | Self::Draining => Fault::Gateway,
            Self::Unavailable { .. } | Self::OutcomeUnknown | Self::Unreadable { .. } | Self::StoreRefused { .. } => {
                Fault::Upstream
            }
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::StreamBusy
            | Self::TooManyReaders { .. }
            | Self::TooManyStreams
            | Self::OverFairShare
            | Self::Draining
            | Self::Unavailable { .. }
            | Self::OutcomeUnknown => true,
            Self::Refused(_)
            | Self::TooManyProjects { .. }
            | Self::Conflict { .. }
            | Self::Misplaced(_)
            | Self::Fork(_)
            | Self::Unreadable { .. }
            | Self::StoreRefused { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_told_again_keeps_its_meaning() {
        let cause = || Some(Cause::from("what the library said"));
        let retry_after = Some(Duration::from_secs(3));
        let table = [
            (OpError::Refused(Refusal::NotFound), Fault::Client, false),
            (OpError::Conflict { field: ConfigField::Closed }, Fault::Client, false),
            (OpError::Misplaced(Misplaced::Beyond), Fault::Client, false),
            (OpError::Fork(ForkError::TooDeep), Fault::Client, false),
            (OpError::StreamBusy, Fault::Gateway, true),
            (OpError::TooManyReaders { limit: 1 }, Fault::Gateway, true),
            (OpError::TooManyStreams, Fault::Gateway, true),
            (OpError::OverFairShare, Fault::Gateway, true),
            (OpError::TooManyProjects { limit: 1 }, Fault::Gateway, false),
            (OpError::Draining, Fault::Gateway, true),
            (OpError::Unavailable { retry_after, cause: cause() }, Fault::Upstream, true),
            (OpError::OutcomeUnknown, Fault::Upstream, true),
            (OpError::Unreadable { seq: 7 }, Fault::Upstream, false),
            (OpError::StoreRefused { cause: cause() }, Fault::Upstream, false),
        ];
        for (error, fault, retryable) in table {
            let again = error.again();
            assert_eq!(again.to_string(), error.to_string());
            for error in [error, again] {
                assert_eq!((error.fault(), error.is_retryable()), (fault, retryable), "{error:?}");
            }
        }
    }
}
