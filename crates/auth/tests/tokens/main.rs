//! Tokens that somebody made to get in, and what becomes of each; and good ones, which must not be among them.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod attacks;
mod forge;
mod good;
mod judged;
mod refused;
