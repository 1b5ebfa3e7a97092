//! The fan-out: one actor per active stream, any number of readers.
//!
//! Each active stream has one owner on a pod, an actor that holds its folded state, one read session upstream while there
//! are live readers, a ring of recent batches, and a doorbell. Upstream cost is O(streams), never O(readers).
//!
//! | module | what it holds |
//! |---|---|
//! | `gateway` | streams by name; which of them may be active; forks, which touch two of them |
//! | `ops` | what can be asked, and what comes back |
//! | `actor` | the owner of a stream |
//! | `batch`, `ring`, `feed` | what readers are given: made once, shared by all |
//! | `frame` | the same as Server-Sent Events, encoded once |
//! | `shard` | the sockets of many readers, and the thread that writes to them |
//! | `reader` | a live reader |
//! | `history` | older ranges, in chunks that all readers share |
//! | `logread`, `settle` | one log read; one append until its fate is known |
//! | `sweep` | streams to be looked after although nobody asks for them |
//! | `clock` | the store's present, and the machine's |
//! | `chance` | random numbers |
//! | `precedence` | what is live before the past |
//! | `budget` | one budget of memory, and its shares |
//! | `workbench` | parts of the inside, for who measures them |
//! | `config`, `metrics` | what an operator turns and sees |
//!
//! # Invariants
//!
//! - A reader sees every message from its offset on, once and in order, or is told that it cannot.
//! - Nothing waits for a reader: a slow one finds what it missed in the ring, or behind it in history.
//! - An actor has a few plain batches in flight, or one of anything else, and never waits itself; one turn is one step on
//!   its state.
//! - A record is folded once, by its sequence number, whoever brought it; what does not follow on is never guessed at.
//! - An error answer to a write means that it was not appended, now or later, but for "outcome unknown".
//!
//! HTTP is not here, and neither is S2: both know this crate, it knows neither.

mod actor;
mod batch;
mod budget;
mod chance;
mod clock;
mod config;
mod feed;
mod frame;
mod gateway;
mod history;
mod logread;
mod metrics;
mod ops;
mod precedence;
mod reader;
mod ring;
mod settle;
mod shard;
mod sweep;
#[doc(hidden)]
pub mod workbench;

pub use budget::Budget;
pub use chance::Chance;
pub use clock::MachineClock;
pub use config::Config;
pub use gateway::{Allot, Allotment, Crowd, Gateway, Need, Seed};
pub use metrics::{Metrics, ShardMetrics};
pub use ops::{
    Appended, Create, Created, ForkError, ForkFrom, ForkPoint, Head, NewVisibility, OpError, Page, Post, SourceAccess,
};
pub use precedence::{Precedence, UnderWay};
pub use reader::{Delivery, Event, Reader};
pub use shard::{
    Arrival, Departure, End, Judge, Loss, Moment, STAY, Seat, ShardConfig, Shards, ShardsSeed, Stands, Wake, Wants,
};
pub use tailwater_log::Visibility;
