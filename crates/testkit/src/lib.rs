//! For tests only: a store that does what its script says, and an SSE client that trusts nobody.
//!
//! - [`ScriptedUpstream`]: the `Upstream` trait over an in-memory model of S2, with its semantics to the letter (the
//!   order in which conditions are checked, what a trim takes, what a session sees), a clock of its own, counters, and
//!   back doors for native writers.
//! - [`fault`]: what can be scripted to go wrong, one operation at a time or all at once, and the [`Gate`] at which an
//!   operation waits until the test lets it go.
//! - [`sse`]: a parser of Server-Sent Events, and [`DurableSse`](sse::DurableSse), which checks on every event what no
//!   test remembers to check.
//! - [`Chunks`]: a strict reader of a chunked body.
//!
//! Everything is deterministic: no randomness, no threads, and time only from tokio's clock, so that tests with paused
//! time take none. Misuse panics with a sentence.
//!
//! Invariants: a log and its sessions are synchronous structs; the only awaits are in the shell around them, and no
//! lock is held across one. Nothing that ships depends on this crate.

mod chunks;
mod clock;
pub mod fault;
mod follower;
mod gate;
mod log;
pub mod sse;
mod store;
mod tally;
mod upstream;

pub use chunks::{Chunks, Malformed, Piece};
pub use clock::StoreClock;
pub use gate::Gate;
pub use store::{Landed, Trims};
pub use tally::{AskedAppend, Counts};
pub use upstream::{ScriptedUpstream, Settings};
