use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::Index};
use tailwater_protocol::{ContentType, Lifetime, Offset, Producer, ProducerId, StreamSeq};

use super::*;
use crate::{
    BatchId, Entry, Fork, Kind, Message, NewRecord, Open, Outcome, Planner, Segment, StreamName, Visibility,
    plan_checkpoint,
    simulation::{World, append_request, assert_usable, fold, open, tasks},
};

/// A time whose varint has ten bytes.
const NOW: u64 = 1 << 63;

fn longest_name(n: usize) -> StreamName {
    StreamName { project: Arc::from(format!("{n:0>64}")), stream: Arc::from(format!("{n:0>400}")) }
}

fn longest_open() -> Open {
    let segment = |n| Segment { birth: NOW + n as u64, source: Some(longest_name(n)), from: u64::MAX, to: u64::MAX };
    let fork = Fork {
        source: longest_name(0),
        incarnation: u64::MAX,
        at: Offset { birth: u64::MAX, seq: u64::MAX },
        sub_offset: u64::MAX,
        chain: (0..MAX_FORK_DEPTH).map(segment).collect(),
    };
    Open {
        incarnation: u64::MAX,
        content_type: ContentType::parse(&format!("text/{}", "x".repeat(251))).unwrap(),
        lifetime: Lifetime::ExpiresAt { at_ms: u64::MAX },
        visibility: Some(Visibility::Private),
        retention_ms: Some(u64::MAX),
        adopts_native: false,
        fork: Some(fork),
    }
}

/// The largest state that clients can make: every table full, every id, name and number as long as it may be.
fn largest_state() -> StreamState {
    let at = u64::MAX - 10_000;
    let mut state = StreamState::starting_at(at);
    let longest = (1 << 53) - 1;
    let claim = |n: usize, epoch, seq| {
        let producer = Producer { id: ProducerId::new(&format!("{n:0>256}")).unwrap(), epoch, seq };
        let stream_seq = Some(StreamSeq::new(&[b'9'; 256]).unwrap());
        Kind::Message(Message { producer: Some(producer), stream_seq })
    };
    let reference = |n: usize| Kind::Ref(Reference { incarnation: n as u64, fork: longest_name(n) });
    let kinds = [Kind::Open(Box::new(longest_open()))]
        .into_iter()
        .chain((0..MAX_PRODUCERS + 10).map(|n| claim(n, longest, 0)))
        .chain((0..MAX_FORKS_FOLDED + 10).map(reference))
        .chain([Kind::Fence(Token::parse(&"x".repeat(36)).to_string())])
        .chain([Kind::Close(crate::Close {
            by: Some(Producer { id: ProducerId::new(&"é".repeat(128)).unwrap(), epoch: 0, seq: 0 }),
        })]);
    for (kind, seq) in kinds.zip(at..) {
        let record = Entry { stamp: None, kind }.encode(Bytes::new()).at(seq, NOW);
        state.apply(&record).unwrap();
    }
    let Life::Opened(life) = &mut state.life else { panic!("it was opened") };
    let ids: Vec<ProducerId> = life.producers.iter().map(|(id, _)| id.clone()).collect();
    for id in ids {
        life.producers.restore(id, Accepted { epoch: longest, seq: longest, at_ms: NOW });
    }
    state
}

#[test]
fn the_largest_state_that_clients_can_make_fits_one_record() {
    let state = largest_state();
    let life = state.incarnation().unwrap();
    assert_eq!(
        (life.producers.len(), life.references.len(), life.chain.len()),
        (MAX_PRODUCERS, MAX_FORKS_FOLDED, MAX_FORK_DEPTH)
    );
    let (checkpoint, body) = state.to_checkpoint();
    assert!(body.len() <= LARGEST, "{} bytes, {LARGEST} reckoned", body.len());
    let batch = BatchId { writer: u64::MAX, counter: u64::MAX };
    let plan = plan_checkpoint(&state, batch).unwrap();
    assert_eq!(plan.records.len(), 1);
    let bytes = plan.records[0].metered_bytes();
    assert!(bytes <= MAX_BATCH_BYTES, "{bytes} bytes");
    assert!(bytes > 900_000, "it is the largest, after all: {bytes} bytes");
    assert_eq!(Entry::decode(&plan.records[0].clone().at(0, 0)).unwrap().kind, Kind::Checkpoint(checkpoint));
    assert_eq!(StreamState::from_checkpoint(&body), Ok(state));
}

/// A log as the first release wrote it, and the checkpoint of its end: folded for ever.
#[test]
fn the_log_of_the_first_release_is_still_folded_to_the_same_state() {
    let header = |hex: &str| crate::Header { name: Bytes::from_static(crate::HEADER), value: unhex(hex) };
    let ours = |hex: &str| NewRecord { headers: vec![header(hex)], body: Bytes::from_static(b"body") };
    let records = [
        NewRecord::fence("o.0123456789abcdef"),
        ours("0104000123456789abcdef0a746578742f706c61696e0000000000"),
        NewRecord::message(Bytes::from_static(b"plain")),
        ours("0101000103702d31028001010430303432"),
        ours("0101000103702d31030000"),
        ours("01020000000000000000078101"),
        ours("010300000000000000000780897a030304f4030000"),
        ours("01080000000000000000ff0461636d6504666f726b"),
        ours("010700"),
        ours("010102deadbeef00000001ac020104 0000"),
        NewRecord::trim(3),
        ours("01fa01 736b6970 706564"),
        NewRecord::fence("c.0123456789abcdef"),
        ours("010502deadbeef00000001ac0200 0103702d310301"),
        NewRecord::message(Bytes::from_static(b"native, too late")),
    ];
    let mut state = StreamState::default();
    for (record, seq) in records.into_iter().zip(0..) {
        state.apply(&record.at(seq, 1_700_000_000_000 + seq)).unwrap();
    }
    let written = unhex(GOLDEN);
    let hex: String = state.to_checkpoint().1.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(state.to_checkpoint().1, written, "{hex}");
    assert_eq!(StreamState::from_checkpoint(&written), Ok(state));
}

const GOLDEN: &str = "010f8ed095ffbc3112632e30313233343536373839616263646566039d03010400\
    010123456789abcdef0a746578742f706c61696e00000000000181d095ffbc3100010a010d0103702d310301\
    000103702d3103018dd095ffbc310104303034328dd095ffbc310100000000000000ff0461636d6504666f726b";

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn a_checkpoint_is_due_once_it_saves_records_and_weighs_little() {
    let record = |kind, body: usize, seq| Entry { stamp: None, kind }.encode(Bytes::from(vec![0; body])).at(seq, 0);
    let mut state = StreamState::default();
    assert!(!state.checkpoint_due(), "a native stream has nothing to write down");
    state.apply(&record(Kind::Open(Box::new(open(7))), 0, 0)).unwrap();
    let fill = |state: &mut StreamState, to, body| {
        for seq in state.next()..to {
            state.apply(&record(Kind::Message(Message::default()), body, seq)).unwrap();
        }
    };
    let mut heavy = state.clone();
    fill(&mut heavy, CHECKPOINT_MIN_RECORDS - 1, 10_000);
    assert!(!heavy.checkpoint_due(), "{} records are read at once", CHECKPOINT_MIN_RECORDS - 1);
    fill(&mut heavy, CHECKPOINT_MIN_RECORDS, 10_000);
    assert!(heavy.checkpoint_due());

    let (checkpoint, body) = heavy.to_checkpoint();
    let written = Entry { stamp: None, kind: Kind::Checkpoint(checkpoint) }.encode(body).at(heavy.next(), 0);
    heavy.apply(&written).unwrap();
    assert!(!heavy.checkpoint_due());
    let next = heavy.next() + CHECKPOINT_MIN_RECORDS;
    fill(&mut heavy, next, 10_000);
    assert!(heavy.checkpoint_due(), "and again");

    // Many producers make a checkpoint heavy: it waits until the log is heavier.
    for (n, seq) in (0..500u64).zip(state.next()..) {
        let producer = Producer { id: ProducerId::new(&format!("{n:0>100}")).unwrap(), epoch: 0, seq: 0 };
        let kind = Kind::Message(Message { producer: Some(producer), stream_seq: None });
        state.apply(&record(kind, 0, seq)).unwrap();
    }
    assert!(!state.checkpoint_due());
    let next = state.next() + 500;
    fill(&mut state, next, 1_000);
    assert!(state.checkpoint_due());
}

#[test]
fn what_no_state_has_is_no_checkpoint() {
    let mut state = StreamState::default();
    for (record, seq) in [Kind::Open(Box::new(open(7))), Kind::Close(crate::Close { by: None })].into_iter().zip(0..) {
        state.apply(&Entry { stamp: None, kind: record }.encode(Bytes::new()).at(seq, 5)).unwrap();
    }
    let with_life = |change: fn(&mut Incarnation)| {
        let mut changed = state.clone();
        let Life::Opened(life) = &mut changed.life else { panic!("it was opened") };
        change(life);
        StreamState::from_checkpoint(&changed.to_checkpoint().1)
    };
    assert_eq!(with_life(|_| ()), Ok(state.clone()));
    assert_eq!(with_life(|life| life.opened_at = u64::MAX), Err(WireError::Value));
    assert_eq!(with_life(|life| life.closed.as_mut().unwrap().at = 2), Err(WireError::Value));
    assert_eq!(with_life(|life| life.tail = Some(3)), Err(WireError::Value));
    fn inherits(life: &mut Incarnation, birth: u64) {
        life.chain = vec![Segment { birth, source: None, from: 0, to: 1 }];
    }
    assert!(with_life(|life| inherits(life, life.birth - 1)).is_ok());
    assert_eq!(with_life(|life| inherits(life, life.birth)), Err(WireError::Value), "its own offsets are later");
    let native = StreamState { life: Life::Native(Native { tail: Some(3) }), ..state.clone() };
    assert_eq!(StreamState::from_checkpoint(&native.to_checkpoint().1), Err(WireError::Value));
    assert_eq!(
        StreamState::from_checkpoint(&StreamState { trimmed: 3, ..state.clone() }.to_checkpoint().1),
        Err(WireError::Value)
    );
    assert_eq!(StreamState::from_checkpoint(&[]), Err(WireError::Short));
    let mut longer = state.to_checkpoint().1.to_vec();
    longer.push(0);
    assert_eq!(StreamState::from_checkpoint(&longer), Err(WireError::Trailing));
    longer[0] = VERSION + 1;
    assert_eq!(StreamState::from_checkpoint(&longer), Err(WireError::Value), "a later form is not guessed at");
}

#[test]
fn a_checkpoint_that_is_due_rides_along_with_the_next_append() {
    let mut world = World::new(1);
    let native = crate::NativeDefaults {
        content_type: ContentType::default_binary(),
        visibility: Visibility::Public,
        incarnation: 1,
    };
    let batch = |counter| BatchId { writer: 1, counter };
    let mut rode = Vec::new();
    world.log.append(&[NewRecord::message(Bytes::new())], None, None);
    for counter in 0..400 {
        let state = world.log.fold_to(world.log.tail());
        let mut planner = Planner::new(&state);
        assert!(matches!(planner.push(&append_request(&["m"]), &native), Outcome::Planned { .. }));
        let plan = planner.finish(batch(counter));
        let last = Entry::decode(&plan.records.last().unwrap().clone().at(0, 0)).unwrap();
        let stamp = last.stamp.expect("the last record has the stamp");
        if let Kind::Checkpoint(checkpoint) = last.kind {
            assert_eq!(checkpoint.as_of, state.next());
            rode.push(checkpoint.as_of);
        }
        assert_eq!(stamp.checkpoint, rode.last().copied());
        world.log.land(&state, &plan).unwrap();
    }
    assert!(rode.len() >= 2 && rode.windows(2).all(|pair| pair[1] - pair[0] >= CHECKPOINT_MIN_RECORDS), "{rode:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn folding_on_from_any_checkpoint_gives_what_folding_from_the_start_gives(tasks in tasks(20..80), at in any::<Index>()) {
        let mut world = World::new(3);
        tasks.iter().for_each(|task| world.carry_out(task));
        let at = at.index(world.log.records.len() + 1);
        let state = world.log.fold_to(at as u64);
        let restored = StreamState::from_checkpoint(&state.to_checkpoint().1).unwrap();
        prop_assert_eq!(&restored, &state);
        prop_assert_eq!(&fold(restored, &world.log.records[at..]).unwrap(), &world.truth);
    }

    #[test]
    fn damaged_and_arbitrary_checkpoints_never_panic(
        tasks in tasks(5..40),
        places in vec(any::<(Index, u8)>(), 0..4),
        arbitrary in vec(any::<u8>(), 0..200),
    ) {
        let mut world = World::new(2);
        tasks.iter().for_each(|task| world.carry_out(task));
        let mut damaged = world.truth.to_checkpoint().1.to_vec();
        for (place, byte) in places {
            let at = place.index(damaged.len());
            damaged[at] = byte;
        }
        let versioned: Vec<u8> = [VERSION].into_iter().chain(arbitrary).collect();
        for body in [damaged, versioned] {
            if let Ok(state) = StreamState::from_checkpoint(&body) {
                assert_usable(&state);
                let reopened = NewRecord::message(Bytes::new()).at(state.next(), 0);
                prop_assert!(state.clone().apply(&reopened).is_ok() || state.next() == u64::MAX);
            }
        }
    }
}
