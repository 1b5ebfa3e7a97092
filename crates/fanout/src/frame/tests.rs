//! The bytes of bursts: golden ones for the wire, and properties over what they are made of.

use proptest::prelude::*;
use tailwater_protocol::text::MAX_HELD;
use tailwater_testkit::{Chunks, Piece};

use super::*;
use crate::batch::Message;

const CURSOR: u64 = 1_234_567;

fn stand(seq: u64) -> Stand {
    Stand { seq, at: Offset { birth: 1, seq } }
}

/// Batches of these messages, the first message at 0.
fn batches(bodies: &[&[&[u8]]]) -> Vec<Arc<Batch>> {
    let mut next = 0;
    let batch = |bodies: &&[&[u8]]| {
        let first = next;
        next += bodies.len() as u64;
        let bodies = bodies.iter().map(|body| Bytes::copy_from_slice(body));
        let messages = (first..).zip(bodies).map(|(seq, body)| Message { seq, body }).collect();
        Arc::new(Batch::new(first, first, next, Offset { birth: 1, seq: next }, messages, false))
    };
    bodies.iter().map(batch).collect()
}

fn burst(kind: ContentKind, from: u64, batches: &[Arc<Batch>], says: Says, cursor: u64) -> Burst {
    let next = batches.last().map_or(from, |batch| batch.next);
    Burst::of(stand(from), News { kind, batches, next, says }, cursor, usize::MAX)
}

/// What the chunks of a burst hold.
fn chunks(burst: &[u8]) -> Vec<String> {
    let mut reader = Chunks::default();
    reader.push(burst);
    let mut chunks = Vec::new();
    while let Some(piece) = reader.pop().unwrap() {
        match piece {
            Piece::Chunk { bytes, .. } => chunks.push(String::from_utf8(bytes.to_vec()).unwrap()),
            Piece::End => chunks.push("the end".to_owned()),
        }
    }
    assert!(!reader.is_mid_chunk());
    chunks
}

fn offset(seq: u64) -> String {
    format!("0000000000000001_{seq:016}")
}

fn control(seq: u64, rest: &str) -> String {
    let offset = offset(seq);
    format!("id: {offset}\nevent: control\ndata:{{\"streamNextOffset\":\"{offset}\"{rest}}}\n\n")
}

fn data(seq: u64, data: &str, rest: &str) -> String {
    format!("id: {}\nevent: data\ndata:{data}\n\n{}", offset(seq), control(seq, rest))
}

const MORE: &str = ",\"streamCursor\":\"1234567\"";
const ALL: &str = ",\"streamCursor\":\"1234567\",\"upToDate\":true";
const END: &str = ",\"upToDate\":true,\"streamClosed\":true";

#[test]
fn a_frame_is_one_chunk_to_the_byte() {
    let burst = burst(ContentKind::Text, 0, &batches(&[&[b"hi"]]), Says::All, CURSOR);
    let expected = "d8\r\n\
        id: 0000000000000001_0000000000000001\nevent: data\ndata:hi\n\n\
        id: 0000000000000001_0000000000000001\nevent: control\n\
        data:{\"streamNextOffset\":\"0000000000000001_0000000000000001\",\"streamCursor\":\"1234567\",\"upToDate\":true}\n\n\
        \r\n";
    assert_eq!(std::str::from_utf8(burst.bytes()).unwrap(), expected);
    assert_eq!((burst.len(), burst.is_empty(), burst.is_all, burst.ends), (expected.len(), false, true, false));
}

#[test]
fn the_last_frame_says_what_there_is_to_say_and_the_others_that_there_is_more() {
    let two = batches(&[&[b"a"], &[b"b"]]);
    let first = data(1, "a", MORE);
    let table = [
        (Says::More, vec![first.clone(), data(2, "b", MORE)]),
        (Says::All, vec![first.clone(), data(2, "b", ALL)]),
        (Says::End, vec![first, data(2, "b", END), "the end".to_owned()]),
    ];
    for (says, expected) in table {
        let burst = burst(ContentKind::Text, 0, &two, says, CURSOR);
        assert_eq!(chunks(burst.bytes()), expected);
        assert_eq!((burst.until, burst.is_all, burst.ends), (stand(2), says != Says::More, says == Says::End));
    }
}

#[test]
fn without_messages_there_is_nothing_to_send_but_the_end() {
    for says in [Says::More, Says::All] {
        let news = News { kind: ContentKind::Text, batches: &[], next: 9, says };
        let burst = Burst::of(stand(4), news, CURSOR, usize::MAX);
        assert!(burst.is_empty() && !burst.ends);
        assert_eq!(burst.until, Stand { seq: 9, at: stand(4).at }, "marks move nobody's offset");
    }
    let news = News { kind: ContentKind::Text, batches: &[], next: 9, says: Says::End };
    let burst = Burst::of(stand(4), news, CURSOR, usize::MAX);
    assert_eq!(chunks(burst.bytes()), [control(4, END), "the end".to_owned()]);
    assert!(burst.ends && burst.suits(CURSOR));
}

#[test]
fn a_control_event_of_its_own_is_one_chunk() {
    for (says, rest) in [(Says::More, MORE), (Says::All, ALL), (Says::End, END)] {
        assert_eq!(chunks(Burst::control(stand(3), CURSOR, says).bytes()), [control(3, rest)]);
    }
}

#[test]
fn each_kind_is_sent_in_its_own_way_and_from_the_middle_of_a_batch() {
    let table = [
        (ContentKind::Text, 0, "a€b", "€b"),
        (ContentKind::Binary, 0, "YeKCrGI=", "4oKsYg=="),
        (ContentKind::Json, 0, "[a,€,b]", "[€,b]"),
    ];
    for (kind, from, whole, rest) in table {
        let batch = batches(&[&[b"a", "€".as_bytes(), b"b"]]);
        assert_eq!(chunks(burst(kind, from, &batch, Says::All, CURSOR).bytes()), [data(3, whole, ALL)]);
        assert_eq!(chunks(burst(kind, from + 1, &batch, Says::All, CURSOR).bytes()), [data(3, rest, ALL)]);
    }
}

#[test]
fn a_message_without_bytes_has_a_control_event_and_no_data() {
    let empty = batches(&[&[b""]]);
    assert_eq!(chunks(burst(ContentKind::Binary, 0, &empty, Says::All, CURSOR).bytes()), [control(1, ALL)]);
}

#[test]
fn what_ends_inside_a_character_waits_for_what_completes_it() {
    type Row<'t> = (&'t [&'t [&'t [u8]]], Says, Vec<String>, u64);
    let table: &[Row<'_>] = &[
        (&[&[b"a\xe2"]], Says::All, vec![], 0),
        (&[&[b"a\xe2"], &[b"\x82"]], Says::All, vec![], 0),
        (&[&[b"a\xe2"], &[b"\x82\xac"]], Says::All, vec![data(2, "a€", ALL)], 2),
        (&[&[b"a\xe2"], &[b"\x82"], &[b"\xac"]], Says::All, vec![data(3, "a€", ALL)], 3),
        (&[&[b"a"], &[b"\xe2"]], Says::All, vec![data(1, "a", MORE)], 1),
        (&[&[b"a\xe2"], &[b"b"], &[b"c"]], Says::All, vec![data(2, "a\u{fffd}b", MORE), data(3, "c", ALL)], 3),
        (&[&[b"a"], &[b"b\xe2"]], Says::End, vec![data(1, "a", MORE), data(2, "b\u{fffd}", END), "the end".into()], 2),
        (&[&[b"a\xff"]], Says::All, vec![data(1, "a\u{fffd}", ALL)], 1),
    ];
    for (bodies, says, expected, until) in table {
        let burst = burst(ContentKind::Text, 0, &batches(bodies), *says, CURSOR);
        assert_eq!((&chunks(burst.bytes()), burst.until), (expected, stand(*until)), "{bodies:x?}");
        assert_eq!(burst.is_all, *until == bodies.len() as u64);
    }
}

#[test]
fn what_waits_is_bounded_by_what_comes_behind_it() {
    let first = [vec![b'a'; 2 * MAX_HELD], vec![0xe2]].concat();
    for (length, goes) in [(MAX_HELD, false), (MAX_HELD + 1, true)] {
        let behind = [vec![b'b'; length - 1], vec![0xe2]].concat();
        let burst = burst(ContentKind::Text, 0, &batches(&[&[&first], &[&behind]]), Says::All, CURSOR);
        assert_eq!((burst.is_empty(), burst.is_all), (!goes, goes));
    }
}

#[test]
fn a_cursor_with_another_number_of_digits_has_chunk_heads_of_its_own() {
    for cursor in [0, 9, 999_999, 1_000_000, 9_999_999, 10_000_000, u64::MAX] {
        let two = batches(&[&[b"a"], &[b"b"]]);
        let burst = burst(ContentKind::Text, 0, &two, Says::All, cursor);
        let says = |rest: &str| rest.replace("1234567", &cursor.to_string());
        assert_eq!(chunks(burst.bytes()), [data(1, "a", &says(MORE)), data(2, "b", &says(ALL))], "{cursor}");
    }
}

#[test]
fn only_a_burst_with_one_cursor_of_the_usual_length_suits_a_higher_one() {
    let (one, two) = (batches(&[&[b"a"]]), batches(&[&[b"a"], &[b"b"]]));
    let of = |batches, cursor| burst(ContentKind::Text, 0, batches, Says::All, cursor);
    let table = [
        (of(&one, CURSOR), CURSOR, true),
        (of(&one, CURSOR), CURSOR + 1, true),
        (of(&one, CURSOR), 10_000_000, false),
        (of(&one, 999_999), 1_000_000, false),
        (of(&one, 10_000_000), 10_000_001, false),
        (of(&two, CURSOR), CURSOR, true),
        (of(&two, CURSOR), CURSOR + 1, false),
        (Burst::control(stand(1), CURSOR, Says::All), CURSOR + 1, false),
    ];
    for (n, (burst, cursor, suits)) in table.iter().enumerate() {
        assert_eq!(burst.suits(*cursor), *suits, "{n}");
    }
}

#[test]
fn a_frame_is_encoded_once_for_each_thing_that_it_can_say() {
    let batch = &batches(&[&[b"a"]])[0];
    for says in [Says::More, Says::All, Says::End] {
        let frame = batch.frame(ContentKind::Text, says);
        assert!(std::ptr::eq(frame, batch.frame(ContentKind::Text, says)));
    }
}

/// A socket that takes so many bytes.
struct Takes(usize, Vec<u8>);

impl Write for Takes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.1.extend_from_slice(&bytes[..taken]);
        self.0 -= taken;
        Ok(taken)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        parts.iter().map(|part| self.write(part)).sum()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn kinds() -> impl Strategy<Value = ContentKind> {
    prop_oneof![Just(ContentKind::Text), Just(ContentKind::Json), Just(ContentKind::Binary)]
}

fn bodies() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let byte = prop_oneof![Just(b'a'), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f)];
    prop::collection::vec(prop::collection::vec(prop::collection::vec(byte, 0..5), 1..4), 1..8)
}

fn made(bodies: &[Vec<Vec<u8>>]) -> Vec<Arc<Batch>> {
    let bodies: Vec<Vec<&[u8]>> = bodies.iter().map(|batch| batch.iter().map(Vec::as_slice).collect()).collect();
    batches(&bodies.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn a_write_and_its_rest_are_the_burst_with_the_readers_own_cursor(
        kind in kinds(), bodies in bodies(), above in 0..3_u64, taken in 0..2000_usize,
    ) {
        let batches = made(&bodies);
        let burst = burst(kind, 0, &batches, Says::All, CURSOR);
        let own = CURSOR + above;
        prop_assume!(burst.suits(own));
        let expected = Burst::of(stand(0), News { kind, batches: &batches, next: burst.until.seq, says: Says::All }, own, usize::MAX);
        let mut socket = Takes(taken, Vec::new());
        let written = burst.write(&mut socket, own).unwrap();
        prop_assert_eq!(written, taken.min(burst.len()));
        prop_assert_eq!([socket.1, burst.rest(own, written).to_vec()].concat(), expected.bytes());
    }

    #[test]
    fn windows_of_any_size_are_the_whole(
        kind in kinds(), bodies in bodies(), limit in 1..900_usize, back in 0..20_u64, closed in any::<bool>(),
    ) {
        let batches = made(&bodies);
        let next = batches.last().map_or(0, |batch| batch.next);
        let from = stand(next.saturating_sub(back));
        let says = if closed { Says::End } else { Says::All };
        let whole = Burst::of(from, News { kind, batches: &batches[..], next, says }, CURSOR, usize::MAX);
        let (mut at, mut bytes) = (from, Vec::new());
        loop {
            let left = &batches[batches.partition_point(|batch| batch.next <= at.seq)..];
            let window = Burst::of(at, News { kind, batches: left, next, says }, CURSOR, limit);
            bytes.extend_from_slice(window.bytes());
            let moved = window.until != at;
            at = window.until;
            if !moved || window.is_all {
                prop_assert_eq!(window.is_all, whole.is_all);
                break;
            }
        }
        prop_assert_eq!(Bytes::from(bytes), Bytes::copy_from_slice(whole.bytes()));
        prop_assert_eq!(at, whole.until);
    }
}
