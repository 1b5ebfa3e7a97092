//! Bytes in and out: what logs of streams, checkpoints, the register and tickets are made of.
//!
//! | module | what it holds |
//! |---|---|
//! | `fields` | numbers, texts, options, lists |
//! | `envelope` | what stands before a record's fields; which records may be read, and which may be skipped |
//!
//! The forms of fields:
//!
//! | form | bytes |
//! |---|---|
//! | number | 64 bits, LEB128 in its one spelling: the shortest, at most ten bytes |
//! | fixed | as many bytes as its reader expects; a number of this form has eight, big end first |
//! | bytes, text | their length as a number, and the bytes; a text is UTF-8 |
//! | flag | one byte: 0 or 1 |
//! | option | a flag, and the value if it is 1 |
//! | list | how many as a number, and the items |
//!
//! # Invariants
//!
//! - Arbitrary bytes never panic, and never make room for more items than they could hold.
//! - What was read and is written again has the same bytes: no form has two spellings.
//! - No clock, no I/O, no `Debug` that would show what a buffer holds: it may be a secret.

mod envelope;
mod fields;

pub use envelope::{FLAG_SKIPPABLE, Head, RecordError, read_record};
pub use fields::{Reader, WireError, Writer};
