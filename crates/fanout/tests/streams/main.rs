//! Streams through the gateway, on a store that does what its script says: what clients are promised, and what it costs.

#![allow(clippy::unwrap_used, reason = "all of this is tests, also what has no test attribute")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names what it expects; all else fails it")]

mod chaos;
mod contention;
mod continuity;
mod fates;
mod flights;
mod forks;
mod group_commit;
mod harness;
mod history;
mod large;
mod lifecycle;
mod lifetimes;
mod limits;
mod live;
mod memory;
mod metrics;
mod native;
mod outages;
mod present;
mod producers;
