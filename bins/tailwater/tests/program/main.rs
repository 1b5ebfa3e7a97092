//! The program as a process: what it prints, how it exits, and what is still there after it was killed.
//!
//! - [`process`]: starting, stopping and reading a process; [`http`]: talking to it.
//! - [`command_line`], [`lifecycle`], [`limits`], [`kills`], [`kept`], [`operations`], [`trust`], [`redaction`]: tests.

#![allow(clippy::unwrap_used, reason = "what is missing in a test is a failed test")]

mod command_line;
mod http;
mod kept;
mod kills;
mod lifecycle;
mod limits;
mod operations;
mod process;
mod redaction;
mod trust;
