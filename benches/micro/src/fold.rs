//! The state of a stream: folding records, reading and writing checkpoints, and deciding what is appended next.

use std::hint::black_box;

use bytes::Bytes;
use tailwater_log::{
    AppendRequest, BatchId, Content, Entry, Kind, MAX_PRODUCERS, Message, NativeDefaults, NewRecord, Open, Plan,
    Planner, Record, Stamp, StreamState, Visibility,
};
use tailwater_protocol::{ContentType, Lifetime, Producer, ProducerId};

use crate::{Operation, Work, payload};

pub(crate) const OPERATIONS: &[Operation] = &[
    operation("10k-plain", Work::Elements(10_000), 4, || fold(plain(10_000))),
    operation("10k-of-100-producers", Work::Elements(10_000), 4, || fold(claims(10_000, 100))),
    operation("1k-from-checkpoint", Work::Elements(1_000), 20, from_checkpoint),
    operation("to-checkpoint", Work::Elements(MAX_PRODUCERS as u64), 20, to_checkpoint),
    operation("decide-1-append", Work::Elements(1), 1_000, || decide(1, None)),
    operation("decide-64-of-producers", Work::Elements(64), 100, || decide(64, Some(1))),
];

const fn operation(name: &'static str, work: Work, calls: u32, prepare: fn() -> Box<dyn FnMut()>) -> Operation {
    Operation { group: "fold", name, work, calls, prepare }
}

/// From the `open` to the end.
fn fold(records: Vec<Record>) -> Box<dyn FnMut()> {
    Box::new(move || {
        black_box(folded(opened(), &records));
    })
}

/// A checkpoint of as many producers as there may be, and the records behind it: what activation comes to.
fn from_checkpoint() -> Box<dyn FnMut()> {
    let written = folded(opened(), &claims(MAX_PRODUCERS as u64, MAX_PRODUCERS as u64));
    let (as_of, body) = written.to_checkpoint();
    let behind: Vec<Record> = (0..1_000).map(|n| plain_at(as_of.as_of + n)).collect();
    Box::new(move || {
        let state = StreamState::from_checkpoint(black_box(&body)).expect("it has just been written");
        black_box(folded(state, &behind));
    })
}

fn to_checkpoint() -> Box<dyn FnMut()> {
    let state = folded(opened(), &claims(MAX_PRODUCERS as u64, MAX_PRODUCERS as u64));
    Box::new(move || {
        black_box(black_box(&state).to_checkpoint());
    })
}

/// Requests that wait together, into one batch; each of another producer where `seq` is the number that is its turn.
fn decide(count: u64, seq: Option<u64>) -> Box<dyn FnMut()> {
    let state = folded(opened(), &claims(100, 100));
    let native = NativeDefaults { content_type: content_type(), visibility: Visibility::Public, incarnation: 1 };
    let requests: Vec<AppendRequest> = (0..count).map(|n| request(n, seq.map(|seq| claim(n, seq)))).collect();
    Box::new(move || {
        black_box(planned(black_box(&state), &requests, &native));
    })
}

fn planned(state: &StreamState, requests: &[AppendRequest], native: &NativeDefaults) -> Plan {
    let mut planner = Planner::new(state);
    for request in requests {
        black_box(planner.push(request, native));
    }
    planner.finish(BatchId { writer: 1, counter: 1 })
}

fn folded(mut state: StreamState, records: &[Record]) -> StreamState {
    for record in records {
        state.apply(record).expect("the records are contiguous and well formed");
    }
    state
}

/// A stream that begins with its `open`, at 0.
fn opened() -> StreamState {
    let open = Open {
        incarnation: 1,
        content_type: content_type(),
        lifetime: Lifetime::Forever,
        visibility: None,
        retention_ms: None,
        adopts_native: false,
        fork: None,
    };
    let entry = Entry { stamp: None, kind: Kind::Open(Box::new(open)) };
    folded(StreamState::default(), &[entry.encode(Bytes::new()).at(0, payload::BIRTH)])
}

fn plain(count: u64) -> Vec<Record> {
    (1..=count).map(plain_at).collect()
}

fn plain_at(seq: u64) -> Record {
    NewRecord::message(payload::json(seq, 200)).at(seq, payload::BIRTH + seq)
}

/// Records that producers append in turns, each in a batch of its own.
fn claims(count: u64, producers: u64) -> Vec<Record> {
    let record = |n: u64| {
        let batch = BatchId { writer: 1, counter: n };
        let message = Message { producer: Some(claim(n % producers, n / producers)), stream_seq: None };
        let entry = Entry { stamp: Some(Stamp { batch, checkpoint: None }), kind: Kind::Message(message) };
        entry.encode(payload::json(n, 200)).at(n + 1, payload::BIRTH + n)
    };
    (0..count).map(record).collect()
}

fn claim(producer: u64, seq: u64) -> Producer {
    let id = ProducerId::new(&format!("producer-{producer:04}")).expect("the id is short and plain");
    Producer { id, epoch: 0, seq }
}

fn request(n: u64, producer: Option<Producer>) -> AppendRequest {
    AppendRequest {
        content: Content::Messages(vec![payload::json(n, 200)]),
        content_type: Some(content_type()),
        producer,
        stream_seq: None,
        close: false,
    }
}

fn content_type() -> ContentType {
    ContentType::parse("application/json").expect("the type is well formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_that_is_folded_counts() {
        let state = folded(opened(), &claims(10_000, 100));
        let life = state.incarnation().unwrap();
        assert_eq!((state.next(), life.producers.len(), life.tail), (10_001, 100, Some(10_001)));
        assert_eq!(life.producers.get(&claim(99, 0).id).map(|last| last.seq), Some(99));
        assert_eq!(folded(opened(), &plain(10_000)).incarnation().unwrap().tail, Some(10_001));
    }

    #[test]
    fn every_request_is_in_the_batch_and_no_checkpoint_is() {
        let state = folded(opened(), &claims(100, 100));
        let native = NativeDefaults { content_type: content_type(), visibility: Visibility::Public, incarnation: 1 };
        let requests: Vec<_> = (0..64).map(|n| request(n, Some(claim(n, 1)))).collect();
        assert_eq!(planned(&state, &requests, &native).records.len(), 64);
    }
}
