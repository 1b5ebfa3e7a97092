//! What becomes of a request, given a state: pure, so that every pod that has read the same log decides the same.
//!
//! | module | what it decides |
//! |---|---|
//! | `append` | many waiting appends at once: a `Planner` takes one after the other, as if those before it had landed |
//! | `create` | a PUT: against what exists, and the batch that begins a life |
//! | `life` | the rest of a life, one batch each: end, trim, touch, references, checkpoints |
//! | `batch` | how a batch is put together: its stamp, its checkpoint, the condition on which it lands |

use tailwater_protocol::{ContentType, Lifetime, Offset};

use crate::{
    mark::{Open, Visibility},
    state::{Incarnation, Presence, StreamState},
    token::Token,
};

mod append;
mod batch;
mod create;
mod life;

pub use append::{AppendRequest, Content, Outcome, Planner};

pub use batch::{BATCH_RESERVE, BatchBuilder, Condition, Plan};

pub use create::{
    ConfigField, CreateOutcome, CreateRequest, DeclaredConfig, DeclaredFork, decide_existing, plan_create,
};

pub use life::{plan_checkpoint, plan_gone, plan_ref, plan_touch, plan_trim, plan_unref, wants_trim};

/// Why a request is refused. Nothing of it was, or will be, appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such stream.
    #[error("no such stream")]
    NotFound,
    /// Deleted, and kept for its forks.
    #[error("the stream is deleted, and kept for its forks")]
    SoftDeleted,
    /// Closed; `tail` is the final offset.
    #[error("the stream is closed")]
    Closed {
        /// The final offset.
        tail: Offset,
    },
    /// The declared type is not the stream's.
    #[error("the content type is not the stream's, which is {actual}")]
    ContentType {
        /// The stream's.
        actual: String,
    },
    /// A later epoch of the producer has taken over.
    #[error("the producer's epoch is stale")]
    StaleEpoch {
        /// The epoch in force.
        current: u64,
    },
    /// A new epoch has to start with sequence 0.
    #[error("a new epoch must start at sequence 0")]
    EpochStart,
    /// Something before it is missing.
    #[error("the producer's sequence has a gap")]
    ProducerGap {
        /// What would be next.
        expected: u64,
        /// What came.
        received: u64,
    },
    /// The stream remembers as many producers as it may.
    #[error("the stream has too many producers")]
    TooManyProducers,
    /// `Stream-Seq` is not greater than the last.
    #[error("the stream-seq is not greater than the last one")]
    StreamSeq,
    /// A native writer has fenced the stream; the gateway does not write there.
    #[error("the stream is fenced by a native writer")]
    Fenced,
    /// The stream has as many forks as it may.
    #[error("the stream has too many forks")]
    TooManyForks,
}

/// How a native stream is served, and what its first append through a gateway opens it with; and what is true of any stream
/// of which nobody has said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeDefaults {
    /// The content type.
    pub content_type: ContentType,
    /// Who may see a stream of which nobody has said that. It is not written down: who asks for tokens later decides anew.
    pub visibility: Visibility,
    /// A random number for the incarnation, should one begin.
    pub incarnation: u64,
}

impl NativeDefaults {
    fn open(&self) -> Open {
        Open {
            incarnation: self.incarnation,
            content_type: self.content_type.clone(),
            lifetime: Lifetime::Forever,
            visibility: None,
            retention_ms: None,
            adopts_native: true,
            fork: None,
        }
    }
}

/// The life that can be changed: `None` for a native stream, which has none yet.
fn present(state: &StreamState) -> Result<Option<&Incarnation>, Refusal> {
    match state.presence() {
        Presence::Absent => Err(Refusal::NotFound),
        Presence::SoftDeleted => Err(Refusal::SoftDeleted),
        Presence::Here if matches!(state.token, Token::Foreign(_)) => Err(Refusal::Fenced),
        Presence::Here => Ok(state.incarnation()),
    }
}
