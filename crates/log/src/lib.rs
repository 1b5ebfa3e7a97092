//! The log of one stream: what its records mean, the fold over them, and what may be appended next.
//!
//! A Durable Stream is one S2 stream, and everything about it stands in its own log: there is no database and no leader.
//! `state(n + 1) = apply(state(n), record n)` is the heart of the program. This crate is pure: it has no I/O, no clock,
//! no randomness and no runtime; what it needs of those it is given.
//!
//! | module | what it holds |
//! |---|---|
//! | `record` | records as S2 has them |
//! | `codec` | bytes to records' meaning and back |
//! | `mark` | the kinds of records, as types |
//! | `token` | the fencing token, which is part of the state |
//! | `state` | the state of a stream, and `apply` |
//! | `producers` | idempotent producers, bounded |
//! | `place`, `inherit` | offsets to places in logs; what a fork inherits |
//! | `decide` | requests to batches, or to refusals |
//! | `checkpoint` | the state written down |
//! | `activate` | from nothing to a state, without reading the history |
//!
//! # Invariants
//!
//! - Every pod that has folded the same records has the same state; folding from a checkpoint gives the state that
//!   folding from the start gives.
//! - Arbitrary bytes never panic: a record with our header either decodes, may be skipped, or is an error that names it.
//! - What is visible is decided by the positions of `open` and `close` alone; what must be refused is refused before it
//!   is appended, by S2 itself, on the condition that a plan names.
//! - All that is folded is bounded, so that a checkpoint fits one record.

mod activate;
mod checkpoint;
mod codec;
mod decide;
mod inherit;
#[cfg(test)]
mod kept;
mod mark;
mod place;
mod producers;
mod record;
#[cfg(test)]
mod simulation;
mod state;
mod token;

pub use activate::{Activated, Activation, Found, Step};
pub use checkpoint::CHECKPOINT_MIN_RECORDS;
pub use codec::{HEADER, MAX_FORK_DEPTH, MAX_PIECES, VERSION};
pub use decide::{
    AppendRequest, BATCH_RESERVE, BatchBuilder, Condition, ConfigField, Content, CreateOutcome, CreateRequest,
    DeclaredConfig, DeclaredFork, NativeDefaults, Outcome, Plan, Planner, Refusal, decide_existing, plan_checkpoint,
    plan_create, plan_gone, plan_ref, plan_touch, plan_trim, plan_unref, wants_trim,
};
pub use mark::{
    BatchId, Checkpoint, Close, Commit, Delivery, Entry, Fork, Gone, GoneReason, Kind, Message, Open, Piece, Reference,
    Segment, Stamp, StreamName, Subscription, Visibility,
};
pub use place::{Misplaced, Place, Span};
pub use producers::{Accepted, MAX_PRODUCERS, PRODUCER_IDLE_MS, Producers, Verdict};
pub use record::{Command, Header, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, NewRecord, Record};
pub use state::{Closed, FoldError, Folded, Incarnation, Life, MAX_FORKS, Native, Presence, StreamState};
pub use tailwater_wire::{RecordError, WireError};
pub use token::{OurToken, Phase, Token};
