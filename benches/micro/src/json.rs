//! JSON bodies: validated and split into messages, and joined messages split again.

use std::hint::black_box;

use tailwater_protocol::json;

use crate::{Operation, Work, payload};

const SMALL: usize = 200;
const LARGE: usize = 64 * 1024;

pub(crate) const OPERATIONS: &[Operation] = &[
    operation("split-array-200", SMALL, 1_000, || split(SMALL, 4)),
    operation("split-array-64k", LARGE, 20, || split(LARGE, 320)),
    operation("validate-200", SMALL, 1_000, || validate(SMALL, 4)),
    operation("validate-64k", LARGE, 20, || validate(LARGE, 320)),
    operation("split-joined-64k", LARGE, 20, || split_joined(LARGE, 320)),
];

const fn operation(name: &'static str, bytes: usize, calls: u32, prepare: fn() -> Box<dyn FnMut()>) -> Operation {
    Operation { group: "json", name, work: Work::Bytes(bytes as u64), calls, prepare }
}

fn split(bytes: usize, count: usize) -> Box<dyn FnMut()> {
    let body = payload::json_array(bytes, count);
    Box::new(move || {
        let messages = json::split(black_box(&body));
        assert_eq!(black_box(messages).map_or(0, |messages| messages.len()), count, "every element is a message");
    })
}

fn validate(bytes: usize, count: usize) -> Box<dyn FnMut()> {
    let body = payload::json_array(bytes, count);
    Box::new(move || assert!(json::is_valid(black_box(&body)), "the body is valid"))
}

fn split_joined(bytes: usize, count: usize) -> Box<dyn FnMut()> {
    let body = payload::json_array(bytes, count);
    let joined = body.slice(1..body.len() - 1);
    Box::new(move || assert_eq!(json::split_values(black_box(&joined)).len(), count, "every value is a message"))
}
