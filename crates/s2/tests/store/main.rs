//! The store against a real s2-lite in this process: what the gateway leans on, held against what it gets.

#![allow(clippy::unwrap_used, reason = "all of this is tests, also what has no test attribute")]

mod basins;
mod domains;
mod embedded;
mod failures;
mod harness;
mod log;
