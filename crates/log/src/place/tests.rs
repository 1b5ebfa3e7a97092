use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{
    Close, Entry, Fork, Kind, NewRecord, Open,
    simulation::{Log, name, open},
};

fn offset(birth: u64, seq: u64) -> Offset {
    Offset { birth, seq }
}

fn mark(kind: Kind) -> NewRecord {
    Entry { stamp: None, kind }.encode(Bytes::new())
}

fn message(text: &'static str) -> NewRecord {
    NewRecord::message(Bytes::from_static(text.as_bytes()))
}

/// A log whose clock stands at `now` throughout.
fn log_of(now: u64, records: &[NewRecord]) -> Log {
    let mut log = Log { now, ..Log::default() };
    log.append(records, None, None);
    log
}

fn state_of(now: u64, records: &[NewRecord]) -> StreamState {
    log_of(now, records).fold_to(records.len() as u64)
}

fn opened(open: Open) -> Vec<NewRecord> {
    vec![NewRecord::fence(&format!("o.{:016x}", open.incarnation)), mark(Kind::Open(Box::new(open)))]
}

/// An own life: fence, open, two messages, a touch.
fn simple() -> Vec<NewRecord> {
    [opened(open(7)), vec![message("a"), message("b"), mark(Kind::Touch)]].concat()
}

/// Two native messages, then a life that adopts them, with one message of its own at 4.
fn adopted() -> Vec<NewRecord> {
    let open = Open { adopts_native: true, ..open(7) };
    [vec![message("a"), message("b")], opened(open), vec![message("c")]].concat()
}

/// A fork of a fork of a fork: three inherited stretches.
fn inheriting() -> Open {
    let segment = |birth, stream, from, to| Segment { birth, source: Some(name(stream)), from, to };
    let chain = vec![segment(100, "a", 2, 5), segment(200, "b", 2, 4), segment(300, "c", 2, 9)];
    let fork = Fork { source: name("c"), incarnation: 1, at: offset(300, 9), sub_offset: 0, chain };
    Open { fork: Some(fork), ..open(7) }
}

#[test]
fn offsets_of_an_own_life_are_places_in_its_log() {
    let state = state_of(500, &simple());
    let own = |seq| Ok(Place { segment: 0, seq });
    let gone = Err(Misplaced::Gone { earliest: offset(500, 2) });
    for (asked, found) in [
        (offset(500, 2), own(2)),
        (offset(500, 3), own(3)),
        (offset(500, 4), own(4)),
        (offset(500, 5), own(5)),
        (offset(500, 6), Err(Misplaced::Beyond)),
        (offset(500, u64::MAX), Err(Misplaced::Beyond)),
        // Of another life of the same millisecond, of an earlier life, of a later one.
        (offset(500, 1), gone),
        (offset(499, 3), gone),
        (offset(0, 0), gone),
        (offset(501, 3), Err(Misplaced::Beyond)),
    ] {
        assert_eq!(state.resolve(asked), found, "{asked}");
    }
    assert_eq!(state.start(), Place { segment: 0, seq: 2 });
    assert_eq!(state.tail(), Place { segment: 0, seq: 5 });
    assert_eq!(state.tail_offset(), offset(500, 4), "the touch does not move what clients see");
}

#[test]
fn marks_behind_the_last_message_have_its_offset() {
    let state = state_of(500, &simple());
    for (seq, shown) in [(2, 2), (3, 3), (4, 4), (5, 4)] {
        assert_eq!(state.offset_at(Place { segment: 0, seq }), offset(500, shown));
    }
    let empty = state_of(500, &[opened(open(7)), vec![mark(Kind::Touch), mark(Kind::Touch)]].concat());
    for seq in 2..5 {
        assert_eq!(empty.offset_at(Place { segment: 0, seq }), offset(500, 2));
    }
}

#[test]
fn nothing_behind_a_closure_is_read() {
    let fence = NewRecord::fence("c.0000000000000007");
    let close = mark(Kind::Close(Close { by: None }));
    let state = state_of(500, &[simple(), vec![fence, close, message("native")]].concat());
    let to = 6;
    assert_eq!(state.tail(), Place { segment: 0, seq: to });
    let whole = Span { source: None, birth: 500, from: 2, to };
    assert_eq!(state.span_at(state.start()), Some(whole));
    assert_eq!(state.span_at(state.tail()), None);
    assert_eq!(state.resolve(offset(500, 8)), Ok(state.tail()), "it was given out before the closure was known");
    assert_eq!(state.offset_at(state.tail()), offset(500, 4));
}

#[test]
fn a_native_stream_is_one_stretch_of_birth_0() {
    let state = state_of(500, &[message("a"), message("b"), NewRecord::trim(1)]);
    assert_eq!(state.start(), Place { segment: 0, seq: 1 });
    assert_eq!(state.resolve(offset(0, 0)), Err(Misplaced::Gone { earliest: offset(0, 1) }));
    assert_eq!(state.resolve(offset(0, 2)), Ok(Place { segment: 0, seq: 2 }));
    assert_eq!(state.resolve(offset(1, 0)), Err(Misplaced::Beyond));
    assert_eq!(state.span_at(state.start()), Some(Span { source: None, birth: 0, from: 1, to: 3 }));
    assert_eq!(state.offset_at(state.tail()), offset(0, 2));
}

#[test]
fn an_adopted_stream_goes_on_where_its_native_part_ends() {
    let state = state_of(500, &adopted());
    assert_eq!(state.start(), Place { segment: 0, seq: 0 });
    let native = Span { source: None, birth: 0, from: 0, to: 3 };
    assert_eq!(state.span_at(state.start()), Some(native));
    let own = state.after(state.start(), 3);
    assert_eq!(own, Place { segment: 1, seq: 4 });
    assert_eq!(state.span_at(own), Some(Span { source: None, birth: 500, from: 4, to: 5 }));
    assert_eq!(state.offset_at(own), offset(500, 4));
    for (asked, found) in [
        (offset(0, 0), Ok(Place { segment: 0, seq: 0 })),
        (offset(0, 2), Ok(Place { segment: 0, seq: 2 })),
        (offset(0, 3), Ok(own)),
        (offset(0, 4), Err(Misplaced::Beyond)),
        (offset(500, 5), Ok(state.tail())),
        (offset(400, 4), Err(Misplaced::Gone { earliest: offset(0, 0) })),
    ] {
        assert_eq!(state.resolve(asked), found, "{asked}");
    }
}

#[test]
fn a_trim_takes_the_oldest_part_wherever_it_ends() {
    for (before, start, earliest) in [
        (1, Place { segment: 0, seq: 1 }, offset(0, 1)),
        (3, Place { segment: 1, seq: 4 }, offset(500, 4)),
        (5, Place { segment: 1, seq: 5 }, offset(500, 5)),
    ] {
        let state = state_of(500, &[adopted(), vec![NewRecord::trim(before)]].concat());
        assert_eq!(state.start(), start);
        assert_eq!(state.offset_at(start), earliest);
        assert_eq!(state.resolve(offset(0, 0)), Err(Misplaced::Gone { earliest }));
    }
    let state = state_of(500, &[simple(), vec![NewRecord::trim(3)]].concat());
    assert_eq!(state.resolve(offset(500, 2)), Err(Misplaced::Gone { earliest: offset(500, 3) }));
    assert_eq!(state.resolve(offset(500, 3)), Ok(Place { segment: 0, seq: 3 }));
}

#[test]
fn a_fork_of_a_fork_of_a_fork_reads_all_its_stretches() {
    let state = state_of(500, &[opened(inheriting()), vec![message("own")]].concat());
    let spans: Vec<(u64, u64, u64)> =
        walk(&state).into_iter().map(|(_, span)| (span.birth, span.from, span.to)).collect();
    assert_eq!(spans, [(100, 2, 5), (200, 2, 4), (300, 2, 9), (500, 2, 3)]);
    for (asked, found) in [
        (offset(100, 4), Ok(Place { segment: 0, seq: 4 })),
        (offset(100, 5), Ok(Place { segment: 1, seq: 2 })),
        (offset(100, 6), Err(Misplaced::Beyond)),
        (offset(200, 3), Ok(Place { segment: 1, seq: 3 })),
        (offset(300, 9), Ok(Place { segment: 3, seq: 2 })),
        (offset(500, 3), Ok(state.tail())),
        // Below the fork's own stretch of that log, between two births, after all.
        (offset(100, 1), Err(Misplaced::Gone { earliest: offset(100, 2) })),
        (offset(250, 3), Err(Misplaced::Gone { earliest: offset(100, 2) })),
        (offset(501, 3), Err(Misplaced::Beyond)),
    ] {
        assert_eq!(state.resolve(asked), found, "{asked}");
    }
}

#[test]
fn an_empty_fork_ends_at_the_fork_offset() {
    let state = state_of(500, &[opened(inheriting()), vec![mark(Kind::Touch)]].concat());
    let end = state.resolve(offset(300, 9)).unwrap();
    assert_eq!(end, Place { segment: 3, seq: 2 });
    for place in [end, state.tail()] {
        assert_eq!(state.offset_at(place), offset(300, 9), "{place:?}");
    }
    assert_eq!(state.tail_offset(), offset(300, 9));
}

/// The spans from the start to the tail, each with its place.
fn walk(state: &StreamState) -> Vec<(Place, Span)> {
    let mut place = state.start();
    let mut spans = Vec::new();
    while let Some(span) = state.span_at(place) {
        spans.push((place, span.clone()));
        place = state.after(place, span.to);
    }
    spans
}

/// Streams that grow, are forked, adopted and closed, each with the messages that it should serve.
#[derive(Default)]
struct Family {
    logs: BTreeMap<String, Log>,
    expected: BTreeMap<String, Vec<Bytes>>,
    now: u64,
    count: u64,
}

#[derive(Debug, Clone)]
enum Growth {
    Messages(Index, u8),
    Touch(Index),
    Fork(Index, Index),
    Adopt(Index),
    Close(Index),
    Wait,
}

fn growth() -> impl Strategy<Value = Growth> {
    let which = any::<Index>;
    prop_oneof![
        4 => (which(), 1..4u8).prop_map(|(stream, count)| Growth::Messages(stream, count)),
        2 => which().prop_map(Growth::Touch),
        3 => (which(), which()).prop_map(|(stream, at)| Growth::Fork(stream, at)),
        1 => which().prop_map(Growth::Adopt),
        1 => which().prop_map(Growth::Close),
        1 => Just(Growth::Wait),
    ]
}

impl Family {
    fn with_native_ancestor() -> Self {
        let mut family = Self::default();
        family.logs.insert("s0".to_owned(), Log::default());
        family.expected.insert("s0".to_owned(), Vec::new());
        family.messages("s0", 2);
        family
    }

    fn pick(&self, index: Index) -> String {
        index.get(&self.logs.keys().collect::<Vec<_>>()).to_string()
    }

    fn state(&self, stream: &str) -> StreamState {
        self.logs[stream].fold_to(self.logs[stream].tail())
    }

    fn append(&mut self, stream: &str, records: &[NewRecord]) {
        let log = self.logs.get_mut(stream).unwrap();
        log.now = self.now;
        log.append(records, None, None);
    }

    fn messages(&mut self, stream: &str, count: u8) {
        let closed = self.state(stream).incarnation().is_some_and(|life| life.closed.is_some());
        for _ in 0..count {
            self.count += 1;
            let body = Bytes::from(self.count.to_string());
            self.append(stream, &[NewRecord::message(body.clone())]);
            if !closed {
                self.expected.get_mut(stream).unwrap().push(body);
            }
        }
    }

    fn grow(&mut self, growth: &Growth) {
        match growth {
            Growth::Messages(stream, count) => self.messages(&self.pick(*stream), *count),
            Growth::Touch(stream) => self.append(&self.pick(*stream), &[mark(Kind::Touch)]),
            Growth::Fork(stream, at) => self.fork(&self.pick(*stream), *at),
            Growth::Adopt(stream) => {
                let stream = self.pick(*stream);
                if self.state(&stream).incarnation().is_none() {
                    self.append(&stream, &opened(Open { adopts_native: true, ..open(7) }));
                }
            }
            Growth::Close(stream) => self.append(&self.pick(*stream), &[mark(Kind::Close(Close { by: None }))]),
            Growth::Wait => self.now += 1,
        }
    }

    /// A fork behind some message of a source, its chain the source's up to there.
    fn fork(&mut self, source: &str, at: Index) {
        let state = self.state(source);
        let served = self.serve(&state, source);
        let kept = at.index(served.len() + 1);
        let place = if kept == 0 { state.start() } else { served[kept - 1].1 };
        let at = state.offset_at(place);
        assert!(state.resolve(at).is_ok());
        let chain = state.inherited_before(at, &name(source));
        let fork = format!("s{}", self.logs.len());
        let declared = Fork { source: name(source), incarnation: 1, at, sub_offset: 0, chain };
        self.logs.insert(fork.clone(), Log::default());
        self.expected.insert(fork.clone(), self.expected[source][..kept].to_vec());
        self.append(&fork, &opened(Open { fork: Some(declared), ..open(8) }));
        assert!(self.state(&fork).tail_offset() == at, "an empty fork ends where it was forked");
    }

    /// Every message that a reader sees from a place on, with the place behind it.
    fn serve_from(&self, state: &StreamState, stream: &str, mut place: Place) -> Vec<(Bytes, Place)> {
        let mut served = Vec::new();
        while let Some(span) = state.span_at(place) {
            let source = span.source.as_ref().map_or(stream, |source| &source.stream);
            for record in &self.logs[source].records {
                let visible = Entry::decode(record).unwrap().kind.is_visible();
                if visible && (span.from..span.to).contains(&record.seq) {
                    served.push((record.body.clone(), state.after(place, record.seq + 1)));
                }
            }
            place = state.after(place, span.to);
        }
        assert_eq!(state.offset_at(place), state.tail_offset());
        served
    }

    fn serve(&self, state: &StreamState, stream: &str) -> Vec<(Bytes, Place)> {
        self.serve_from(state, stream, state.start())
    }
}

proptest! {
    #[test]
    fn every_reader_of_any_chain_sees_every_message_once_and_in_order(growths in prop::collection::vec(growth(), 1..40)) {
        let mut family = Family::with_native_ancestor();
        growths.iter().for_each(|growth| family.grow(growth));
        for (stream, expected) in &family.expected {
            let state = family.state(stream);
            let served = family.serve(&state, stream);
            let bodies: Vec<Bytes> = served.iter().map(|(body, _)| body.clone()).collect();
            prop_assert_eq!(&bodies, expected);

            let offsets: Vec<Offset> = served.iter().map(|(_, after)| state.offset_at(*after)).collect();
            prop_assert!(offsets.is_sorted_by(|a, b| a < b), "{:?}", offsets);
            for (at, offset) in offsets.iter().enumerate() {
                let place = state.resolve(*offset).unwrap();
                let rest: Vec<Bytes> =
                    family.serve_from(&state, stream, place).into_iter().map(|(body, _)| body).collect();
                prop_assert_eq!(&rest, &expected[at + 1..], "from {}", offset);
            }
        }
    }
}
