//! What the gateway needs of a store, and nothing of how a store does it.
//!
//! [`Upstream`] has two implementations: S2 (`tailwater-s2`) and the scripted one of the tests (`tailwater-testkit`).
//! It speaks in S2's terms (records, sequence numbers, fencing tokens), because S2's conditional append is what the
//! whole design stands on.
//!
//! - [`store`](Upstream): the trait, and what goes in and comes out.
//! - [`error`](AppendError): what can go wrong, each with the answers to "can a retry help", "whose fault is it", and,
//!   for appends, "may it have happened".
//!
//! Not here: batching, settling of appends of unknown fate, caching. Those are the actor's.

mod error;
mod store;

pub use error::{AppendError, Cause, Fate, Fault, ReadError};
pub use store::{Append, AppendAck, Page, Position, ReadFrom, ReadSession, SessionEvent, StreamKey, Traffic, Upstream};
