//! The gateway from outside: a real store, a real listener and real sockets, all in one process.
//!
//! - [`fixture`]: stores and gateways; [`proxy`] between them.
//! - [`client`], [`follow`]: what a client does, with checks on every answer and every event.
//! - everything else: tests, by subject.

#![allow(clippy::unwrap_used, reason = "what is missing in a test is a failed test")]

mod client;
mod fixture;
mod follow;
mod proxy;

mod caching;
mod content;
mod elsewhere_wrong;
mod fan_out;
mod handover;
mod live;
mod native;
mod outages;
mod refusals;
mod statuses;
mod two_gateways;
