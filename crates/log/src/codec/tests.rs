use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{StreamState, simulation::assert_usable};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn with_header(value: Bytes) -> Record {
    let headers = vec![Header { name: Bytes::from_static(HEADER), value }];
    NewRecord { headers, body: Bytes::new() }.at(7, 1_000)
}

fn decoded(value: &[u8]) -> Result<Entry, RecordError> {
    Entry::decode(&with_header(Bytes::copy_from_slice(value)))
}

fn name(stream: &str) -> StreamName {
    StreamName { project: Arc::from("acme"), stream: Arc::from(stream) }
}

fn producer(id: &str, epoch: u64, seq: u64) -> Producer {
    Producer { id: ProducerId::new(id).unwrap(), epoch, seq }
}

fn plain_open() -> Open {
    Open {
        incarnation: 0x0123_4567_89ab_cdef,
        content_type: ContentType::parse("text/plain").unwrap(),
        lifetime: Lifetime::Forever,
        visibility: None,
        retention_ms: None,
        adopts_native: false,
        fork: None,
    }
}

fn forked_open() -> Open {
    let inherited = |birth, source: Option<&str>, from, to| Segment { birth, source: source.map(name), from, to };
    Open {
        lifetime: Lifetime::Ttl { seconds: 3600 },
        visibility: Some(Visibility::Private),
        retention_ms: Some(86_400_000),
        fork: Some(Fork {
            source: name("a/b"),
            incarnation: 9,
            at: Offset { birth: 1_700_000_000_000, seq: 42 },
            sub_offset: 3,
            chain: vec![inherited(0, Some("a/b"), 0, 10), inherited(1_700_000_000_000, Some("a/b"), 12, 42)],
        }),
        ..plain_open()
    }
}

/// Header values as every release has written them. A line may be added; none may ever change.
fn golden() -> Vec<(&'static str, Entry)> {
    let stamp = Stamp { batch: BatchId { writer: 0xdead_beef_0000_0001, counter: 300 }, checkpoint: None };
    let pointing = Stamp { checkpoint: Some(70_000), ..stamp };
    let bare = |kind| Entry { stamp: None, kind };
    let stamped = |kind| Entry { stamp: Some(stamp), kind };
    let claimed =
        Message { producer: Some(producer("p-1", 2, 128)), stream_seq: Some(StreamSeq::new(b"0042").unwrap()) };
    let commit = Commit { body: 7, pieces: vec![3, 4, 500], bytes: 2_000_000, message: claimed.clone() };
    let expiring = Open { lifetime: Lifetime::ExpiresAt { at_ms: 1_800_000_000_000 }, ..plain_open() };
    let public = Open { visibility: Some(Visibility::Public), ..plain_open() };
    let adopting = Open { adopts_native: true, ..plain_open() };
    let reference = Reference { incarnation: 0xff, fork: name("fork") };
    let subscription = Subscription { subscription: 5, source: name("src"), incarnation: 6, from: 1000 };
    vec![
        ("010102deadbeef00000001ac02000000", stamped(Kind::Message(Message::default()))),
        (
            "010102deadbeef00000001ac0201f0a2040000",
            Entry { stamp: Some(pointing), kind: Kind::Message(Message::default()) },
        ),
        ("0101000103702d31028001010430303432", bare(Kind::Message(claimed))),
        ("01020000000000000000078101", bare(Kind::Piece(Piece { body: 7, index: 129 }))),
        ("010300000000000000000780897a030304f4030103702d31028001010430303432", bare(Kind::Commit(commit))),
        ("0104000123456789abcdef0a746578742f706c61696e0000000000", bare(Kind::Open(Box::new(plain_open())))),
        ("0104000123456789abcdef0a746578742f706c61696e0280a0f1c2b13400000000", bare(Kind::Open(Box::new(expiring)))),
        ("0104000123456789abcdef0a746578742f706c61696e0002000000", bare(Kind::Open(Box::new(public)))),
        ("0104000123456789abcdef0a746578742f706c61696e0000000100", bare(Kind::Open(Box::new(adopting)))),
        (
            "0104000123456789abcdef0a746578742f706c61696e01901c010180b8992900010461636d6503612f62000000000000000980d095ffbc312a030200010461636d6503612f62000a80d095ffbc31010461636d6503612f620c2a",
            bare(Kind::Open(Box::new(forked_open()))),
        ),
        ("010502deadbeef00000001ac020000", stamped(Kind::Close(Close { by: None }))),
        ("0105000102c3a90000", bare(Kind::Close(Close { by: Some(producer("é", 0, 0)) }))),
        ("01060000", bare(Kind::Gone(Gone { reason: GoneReason::Deleted }))),
        ("01060001", bare(Kind::Gone(Gone { reason: GoneReason::Expired }))),
        ("010700", bare(Kind::Touch)),
        ("01080000000000000000ff0461636d6504666f726b", bare(Kind::Ref(reference.clone()))),
        ("01090000000000000000ff0461636d6504666f726b", bare(Kind::Unref(reference))),
        ("010a01f0a204808080808020", bare(Kind::Checkpoint(Checkpoint { as_of: 70_000, weight: 1 << 40 }))),
        ("010b0000000000000000050461636d65037372630000000000000006e807", bare(Kind::Sub(subscription))),
        ("010c000000000000000005", bare(Kind::Unsub { subscription: 5 })),
        (
            "010d0000000000000000050000000000000006ffffffffffffffffff01",
            bare(Kind::Delivery(Delivery { subscription: 5, incarnation: 6, source_seq: u64::MAX })),
        ),
    ]
}

#[test]
fn headers_are_read_and_written_as_they_always_were() {
    for (bytes, entry) in golden() {
        let record = entry.encode(Bytes::from_static(b"body"));
        let [header] = record.headers.as_slice() else { panic!("one header: {record:?}") };
        assert_eq!(header.name, HEADER);
        assert_eq!(hex(&header.value), hex(&unhex(bytes)), "{entry:?}");
        assert_eq!(decoded(&unhex(bytes)), Ok(entry));
        assert_eq!(record.body, &b"body"[..]);
    }
}

#[test]
fn commands_are_the_ones_of_s2() {
    let fence = Entry { stamp: None, kind: Kind::Fence("o.0".to_owned()) };
    let trim = Entry { stamp: None, kind: Kind::Trim(258) };
    for (entry, command, body) in [(fence, "fence", "6f2e30"), (trim, "trim", "0000000000000102")] {
        let record = entry.encode(Bytes::from_static(b"ignored"));
        let command = Header { name: Bytes::new(), value: Bytes::copy_from_slice(command.as_bytes()) };
        assert_eq!(record.headers, [command]);
        assert_eq!(record.body, unhex(body));
        assert_eq!(Entry::decode(&record.at(0, 0)), Ok(entry));
    }
}

#[test]
fn a_message_with_nothing_to_say_is_a_plain_record() {
    let said = Entry { stamp: None, kind: Kind::Message(Message::default()) };
    let record = said.encode(Bytes::from_static(b"hello"));
    assert_eq!(record, NewRecord::message(Bytes::from_static(b"hello")));
    assert_eq!(Entry::decode(&record.at(0, 0)), Ok(said));
}

#[test]
fn what_native_writers_write_is_a_message() {
    let message = Entry { stamp: None, kind: Kind::Message(Message::default()) };
    let header = |name: &'static str| Header { name: Bytes::from_static(name.as_bytes()), value: Bytes::new() };
    for headers in [vec![], vec![header("TW")], vec![header("t"), header("two")]] {
        let record = NewRecord { headers, body: Bytes::from_static(b"x") };
        assert_eq!(Entry::decode(&record.at(0, 0)), Ok(message.clone()));
    }
}

#[test]
fn the_version_after_this_one_is_read_and_the_one_after_that_is_not() {
    for (bytes, entry) in golden() {
        let mut longer = unhex(bytes).to_vec();
        longer.extend_from_slice(b"new fields");
        assert!(matches!(decoded(&longer), Err(RecordError::Fields { source: WireError::Trailing, .. })), "{entry:?}");
        longer[0] = VERSION + 1;
        assert_eq!(decoded(&longer), Ok(entry));
        for version in [0, VERSION + 2, u8::MAX] {
            longer[0] = version;
            assert_eq!(decoded(&longer), Err(RecordError::Version(version)));
        }
    }
}

#[test]
fn an_unknown_kind_is_skipped_only_where_its_writer_allows_it() {
    let stamp = Stamp { batch: BatchId { writer: 1, counter: 2 }, checkpoint: Some(3) };
    let skipped = |stamp| Ok(Entry { stamp, kind: Kind::Skipped });
    for version in [VERSION, VERSION + 1] {
        assert_eq!(decoded(&[version, 200, FLAG_SKIPPABLE]), skipped(None));
        assert_eq!(decoded(&[version, 200, FLAG_SKIPPABLE, 9, 9, 9]), skipped(None));
        let stamped = [version, 200, FLAG_SKIPPABLE | FLAG_STAMP, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 3];
        assert_eq!(decoded(&stamped), skipped(Some(stamp)));
        assert_eq!(decoded(&[version, 200, 0]), Err(RecordError::Kind(200)));
        assert_eq!(decoded(&[version, 0, 0]), Err(RecordError::Kind(0)));
    }
}

#[test]
fn fields_are_refused_by_what_is_wrong_with_them() {
    let malformed = |kind, source| Err(RecordError::Fields { kind, source });
    for (bytes, error) in [
        ("", Err(RecordError::Short)),
        ("0101", Err(RecordError::Short)),
        ("010102ff", malformed(number::MESSAGE, WireError::Short)),
        ("01010002", malformed(number::MESSAGE, WireError::Value)),
        // A producer's id that is empty, one that is not UTF-8.
        ("01010001000000", malformed(number::MESSAGE, WireError::Value)),
        ("01010001 01ff 0000", malformed(number::MESSAGE, WireError::Text)),
        ("01060002", malformed(number::GONE, WireError::Value)),
        // A content type that is none, a lifetime and a visibility that nobody has.
        ("010400 0000000000000000 00 0000000000", malformed(number::OPEN, WireError::Value)),
        ("010400 0000000000000000 03612f62 03 00000000", malformed(number::OPEN, WireError::Value)),
        ("010400 0000000000000000 03612f62 00 03000000", malformed(number::OPEN, WireError::Value)),
        ("010400 0000000000000000 03612f62 00 00000200", malformed(number::OPEN, WireError::Value)),
        // A number in another spelling than the one that is written.
        ("010a00 8000 00", malformed(number::CHECKPOINT, WireError::Number)),
        // More pieces than a commit may have.
        ("010300 0000000000000000 00 8120", malformed(number::COMMIT, WireError::Value)),
    ] {
        assert_eq!(decoded(&unhex(bytes)), error, "{bytes}");
    }
}

#[test]
fn a_chain_in_which_a_birth_names_no_one_stretch_is_refused() {
    let of = |segments: &[(u64, u64, u64)]| {
        let segment = |&(birth, from, to): &(u64, u64, u64)| Segment { birth, source: None, from, to };
        let mut w = Writer::default();
        write_chain(&mut w, &segments.iter().map(segment).collect::<Vec<_>>());
        read_chain(&mut Reader::new(&w.finish())).map(|chain| chain.len())
    };
    for (segments, expected) in [
        (&[][..], Ok(0)),
        (&[(0, 0, 0), (1, 7, 9), (u64::MAX - 1, 3, 3)], Ok(3)),
        (&[(1, 0, 5), (1, 5, 9)], Err(WireError::Value)),
        (&[(2, 0, 5), (1, 5, 9)], Err(WireError::Value)),
        (&[(u64::MAX, 0, 5)], Err(WireError::Value)),
        (&[(1, 6, 5)], Err(WireError::Value)),
    ] {
        assert_eq!(of(segments), expected, "{segments:?}");
    }
}

fn messages() -> impl Strategy<Value = Message> {
    let stream_seq = vec(any::<u8>(), 0..40).prop_map(|bytes| StreamSeq::new(&bytes).unwrap());
    (option::of(producers()), option::of(stream_seq))
        .prop_map(|(producer, stream_seq)| Message { producer, stream_seq })
}

fn producers() -> impl Strategy<Value = Producer> {
    ("\\PC{1,40}", any::<u64>(), any::<u64>()).prop_map(|(id, epoch, seq)| producer(&id, epoch, seq))
}

fn names() -> impl Strategy<Value = StreamName> {
    ("[A-Za-z0-9_-]{1,64}", "\\PC{1,60}")
        .prop_map(|(project, stream)| StreamName { project: Arc::from(project), stream: Arc::from(stream) })
}

fn forks() -> impl Strategy<Value = Fork> {
    let segment = (any::<u64>(), option::of(names()), any::<u64>(), any::<u64>())
        .prop_map(|(birth, source, one, other)| Segment { birth, source, from: one.min(other), to: one.max(other) });
    let chain = vec(segment, 0..5).prop_map(|mut chain| {
        chain.sort_by_key(|segment| segment.birth);
        chain.dedup_by_key(|segment| segment.birth);
        chain.retain(|segment| segment.birth < u64::MAX);
        chain
    });
    (names(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), chain).prop_map(
        |(source, incarnation, birth, seq, sub_offset, chain)| {
            let at = Offset { birth, seq };
            Fork { source, incarnation, at, sub_offset, chain }
        },
    )
}

fn opens() -> impl Strategy<Value = Open> {
    let lifetime = prop_oneof![
        Just(Lifetime::Forever),
        any::<u64>().prop_map(|seconds| Lifetime::Ttl { seconds }),
        any::<u64>().prop_map(|at_ms| Lifetime::ExpiresAt { at_ms }),
    ];
    let visibility = option::of(prop_oneof![Just(Visibility::Public), Just(Visibility::Private)]);
    let content_type = "[a-z]{1,9}/[a-z]{1,9}(; ?a=\"b c\")?";
    (any::<u64>(), content_type, lifetime, visibility, any::<Option<u64>>(), any::<bool>(), option::of(forks()))
        .prop_map(|(incarnation, content_type, lifetime, visibility, retention_ms, adopts_native, fork)| {
            let content_type = ContentType::parse(&content_type).unwrap();
            Open { incarnation, content_type, lifetime, visibility, retention_ms, adopts_native, fork }
        })
}

/// Every kind that has a header; the compiler asks here for each new one.
fn kinds() -> impl Strategy<Value = Kind> {
    let commit = (any::<u64>(), vec(any::<u64>(), 0..20), any::<u64>(), messages())
        .prop_map(|(body, pieces, bytes, message)| Commit { body, pieces, bytes, message });
    let reference = || (any::<u64>(), names()).prop_map(|(incarnation, fork)| Reference { incarnation, fork });
    let subscription = (any::<u64>(), names(), any::<u64>(), any::<u64>())
        .prop_map(|(subscription, source, incarnation, from)| Subscription { subscription, source, incarnation, from });
    let delivery = any::<(u64, u64, u64)>().prop_map(|(subscription, incarnation, source_seq)| Delivery {
        subscription,
        incarnation,
        source_seq,
    });
    let reasons = prop_oneof![Just(GoneReason::Deleted), Just(GoneReason::Expired)];
    prop_oneof![
        messages().prop_map(Kind::Message),
        any::<(u64, u64)>().prop_map(|(body, index)| Kind::Piece(Piece { body, index })),
        commit.prop_map(Kind::Commit),
        opens().prop_map(|open| Kind::Open(Box::new(open))),
        option::of(producers()).prop_map(|by| Kind::Close(Close { by })),
        reasons.prop_map(|reason| Kind::Gone(Gone { reason })),
        Just(Kind::Touch),
        reference().prop_map(Kind::Ref),
        reference().prop_map(Kind::Unref),
        any::<(u64, u64)>().prop_map(|(as_of, weight)| Kind::Checkpoint(Checkpoint { as_of, weight })),
        subscription.prop_map(Kind::Sub),
        any::<u64>().prop_map(|subscription| Kind::Unsub { subscription }),
        delivery.prop_map(Kind::Delivery),
    ]
}

fn entries() -> impl Strategy<Value = Entry> {
    let stamp = any::<(u64, u64, Option<u64>)>()
        .prop_map(|(writer, counter, checkpoint)| Stamp { batch: BatchId { writer, counter }, checkpoint });
    (option::of(stamp), kinds()).prop_map(|(stamp, kind)| Entry { stamp, kind })
}

/// A few bytes changed, put in or taken out.
fn damage(mut bytes: Vec<u8>, places: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (index, how, byte) in places {
        let at = index.index(bytes.len() + 1);
        match how % 3 {
            0 => bytes.insert(at, *byte),
            _ if at == bytes.len() => bytes.truncate(at / 2),
            1 => bytes[at] = *byte,
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

proptest! {
    #[test]
    fn every_kind_comes_back(entry in entries(), body in vec(any::<u8>(), 0..50)) {
        let record = entry.encode(Bytes::from(body.clone())).at(3, 4);
        prop_assert_eq!(Entry::decode(&record), Ok(entry));
        prop_assert_eq!(record.body, body);
    }

    #[test]
    fn arbitrary_headers_never_panic(
        version in prop_oneof![Just(VERSION), Just(VERSION + 1), any::<u8>()],
        kind in prop_oneof![8 => 1..=13u8, 1 => any::<u8>()],
        rest in vec(any::<u8>(), 0..80),
        body in vec(any::<u8>(), 0..80),
    ) {
        let value: Vec<u8> = [version, kind].into_iter().chain(rest).collect();
        let record = Record { body: Bytes::from(body), ..with_header(Bytes::from(value)) };
        let mut state = StreamState::starting_at(record.seq);
        if state.apply(&record).is_ok() {
            assert_usable(&state);
        }
    }

    #[test]
    fn damaged_headers_never_panic(
        entries in vec(entries(), 1..4),
        places in vec(any::<(prop::sample::Index, u8, u8)>(), 0..4),
    ) {
        let mut state = StreamState::starting_at(7);
        for (entry, seq) in entries.into_iter().zip(7..) {
            let value = damage(encode_header(&entry).to_vec(), &places);
            let record = Record { seq, ..with_header(Bytes::from(value)) };
            if state.apply(&record).is_err() {
                break;
            }
            assert_usable(&state);
        }
    }
}
