//! The tokens on the wire. One is too little to be measured by the clock, so each call does a hundred different ones.

use std::{fmt::Write as _, hint::black_box};

use tailwater_protocol::{Offset, cursor};

use crate::{Operation, Work, payload};

pub(crate) const OPERATIONS: &[Operation] = &[
    operation("cursor", "respond-100", respond),
    operation("cursor", "parse-100", parse_cursors),
    operation("offset", "print-100", print),
    operation("offset", "parse-100", parse_offsets),
];

const fn operation(group: &'static str, name: &'static str, prepare: fn() -> Box<dyn FnMut()>) -> Operation {
    Operation { group, name, work: Work::Elements(100), calls: 1_000, prepare }
}

/// Clients without a cursor, with one that is behind, and with one that is not.
fn respond() -> Box<dyn FnMut()> {
    let present = cursor::interval(payload::BIRTH);
    let client = |n: u64| match n % 3 {
        0 => None,
        1 => Some(present - n),
        _ => Some(present + n),
    };
    let clients: Vec<Option<u64>> = (0..100).map(client).collect();
    Box::new(move || {
        for (jitter, client) in (0..).zip(&clients) {
            black_box(cursor::respond(payload::BIRTH, black_box(*client), jitter));
        }
    })
}

fn parse_cursors() -> Box<dyn FnMut()> {
    let present = cursor::interval(payload::BIRTH);
    let texts: Vec<String> = (0..100).map(|n| (present + n).to_string()).collect();
    Box::new(move || {
        for text in &texts {
            black_box(cursor::parse(black_box(text)));
        }
    })
}

/// Into one string: whether another could grow where it lies depends on what the allocator did before.
fn print() -> Box<dyn FnMut()> {
    let offsets: Vec<Offset> = offsets().collect();
    let mut text = String::with_capacity(64);
    Box::new(move || {
        for offset in &offsets {
            text.clear();
            write!(text, "{}", black_box(offset)).expect("a string takes all that is written to it");
            black_box(&text);
        }
    })
}

fn parse_offsets() -> Box<dyn FnMut()> {
    let texts: Vec<String> = offsets().map(|offset| offset.to_string()).collect();
    Box::new(move || {
        for text in &texts {
            drop(black_box(Offset::parse(black_box(text))));
        }
    })
}

/// From the first to beyond a million.
fn offsets() -> impl Iterator<Item = Offset> {
    (0..100_u64).map(|n| payload::offset(n * n * n * 2))
}
