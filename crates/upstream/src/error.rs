//! What can go wrong, and what follows from it.

use std::{error::Error, time::Duration};

/// Whose fault an error is. A label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request's.
    Client,
    /// The gateway's own.
    Gateway,
    /// The store's, or the way to it.
    Upstream,
}

/// Whether a failed append may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It did not, and will not.
    NotAppended,
    /// It may have, or may yet.
    Unknown,
}

/// The error that a store's library gave, for the log.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why an append failed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The condition on the position did not hold; the next record would get `actual`. Nothing was appended.
    #[error("the log does not end where expected, but at {actual}")]
    SeqMismatch {
        /// Where the log ends.
        actual: u64,
    },
    /// The condition on the fencing token did not hold; `actual` is in force. Nothing was appended.
    #[error("another fencing token is in force")]
    TokenMismatch {
        /// The token in force.
        actual: String,
    },
    /// The stream is being deleted in the store; its name can be used again in a moment. Nothing was appended.
    #[error("the store is deleting a stream of this name")]
    DeletionPending,
    /// The stream's project would be a new one, and the store holds as many as it may. Nothing was appended.
    #[error("the store holds {limit} projects, which is as many as it may")]
    TooManyProjects {
        /// The limit.
        limit: usize,
    },
    /// The store asks for patience (429 and the like), or is left alone because it does not answer. Nothing was appended.
    #[error("the store asks for patience")]
    Busy {
        /// For how long, where it says so.
        retry_after: Option<Duration>,
    },
    /// The store cannot be reached, or failed.
    #[error("the store is not available")]
    Unavailable {
        /// Whether the append may have happened.
        fate: Fate,
        /// What its library said.
        #[source]
        cause: Cause,
    },
    /// The store refused the request as such: a configuration or permission that is not ours to mend, or a bug.
    /// Nothing was appended.
    #[error("the store refused the append")]
    Refused {
        /// What its library said.
        #[source]
        cause: Cause,
    },
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store has no such stream.
    #[error("the store has no such stream")]
    NotFound,
    /// The store asks for patience, or is left alone because it does not answer.
    #[error("the store asks for patience")]
    Busy {
        /// For how long, where it says so.
        retry_after: Option<Duration>,
    },
    /// The store cannot be reached, or failed.
    #[error("the store is not available")]
    Unavailable {
        /// What its library said.
        #[source]
        cause: Cause,
    },
    /// The store refused the request as such.
    #[error("the store refused the read")]
    Refused {
        /// What its library said.
        #[source]
        cause: Cause,
    },
}

impl AppendError {
    /// Whether the append may have happened.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            Self::Unavailable { fate, .. } => *fate,
            Self::SeqMismatch { .. }
            | Self::TokenMismatch { .. }
            | Self::DeletionPending
            | Self::TooManyProjects { .. }
            | Self::Busy { .. }
            | Self::Refused { .. } => Fate::NotAppended,
        }
    }

    /// Whether the same append may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::DeletionPending | Self::Busy { .. } | Self::Unavailable { .. } => true,
            Self::SeqMismatch { .. }
            | Self::TokenMismatch { .. }
            | Self::TooManyProjects { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::SeqMismatch { .. } | Self::TokenMismatch { .. } | Self::Refused { .. } => Fault::Gateway,
            Self::TooManyProjects { .. } => Fault::Gateway,
            Self::DeletionPending | Self::Busy { .. } | Self::Unavailable { .. } => Fault::Upstream,
        }
    }
}

impl ReadError {
    /// Whether the same read may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Unavailable { .. } => true,
            Self::NotFound | Self::Refused { .. } => false,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound => Fault::Client,
            Self::Refused { .. } => Fault::Gateway,
            Self::Busy { .. } | Self::Unavailable { .. } => Fault::Upstream,
        }
    }
}
