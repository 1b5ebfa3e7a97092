use bytes::Bytes;
use proptest::prelude::*;
use tailwater_protocol::ProducerId;

use super::*;
use crate::{
    BatchId, Close, Commit, Delivery, Fork, GoneReason, MAX_PRODUCERS, NewRecord, Piece,
    simulation::{World, name, open, tasks},
};

const BORN: u64 = 10_000;

/// Folds entries one after the other, each a second after the one before.
struct Story {
    state: StreamState,
    now: u64,
}

impl Story {
    fn new() -> Self {
        Self { state: StreamState::default(), now: BORN }
    }

    /// A stream that was opened as a gateway does it: the fence at 0, the `open` at 1.
    fn opened(open: Open) -> Self {
        let mut story = Self::new();
        story.fence(Phase::Open, open.incarnation);
        assert_eq!(story.tell(Kind::Open(Box::new(open))), Folded::Opened);
        story
    }

    fn tell(&mut self, kind: Kind) -> Folded {
        let record = Entry { stamp: None, kind }.encode(Bytes::from_static(b"x")).at(self.state.next, self.now);
        self.now += 1_000;
        self.state.apply(&record).unwrap()
    }

    fn fence(&mut self, phase: Phase, incarnation: u64) {
        assert_eq!(self.tell(Kind::Fence(Token::ours(phase, incarnation).to_string())), Folded::Hidden);
    }

    fn message(&mut self) -> Folded {
        self.tell(Kind::Message(Message::default()))
    }

    fn life(&self) -> &Incarnation {
        self.state.incarnation().unwrap()
    }
}

fn claim(id: &str, seq: u64) -> Producer {
    Producer { id: ProducerId::new(id).unwrap(), epoch: 0, seq }
}

fn claimed(id: &str, seq: u64) -> Kind {
    Kind::Message(Message { producer: Some(claim(id, seq)), stream_seq: None })
}

fn reference(incarnation: u64) -> Reference {
    Reference { incarnation, fork: name("fork") }
}

const DELETED: Kind = Kind::Gone(Gone { reason: GoneReason::Deleted });

#[test]
fn nothing_is_absent() {
    let state = StreamState::default();
    assert_eq!(state.presence(), Presence::Absent);
    assert_eq!((state.next(), state.token(), state.served_to()), (0, &Token::Native, 0));
}

#[test]
fn a_life_goes_from_open_through_closed_to_gone() {
    let mut story = Story::opened(open(7));
    assert_eq!(story.state.presence(), Presence::Here);
    assert_eq!(story.state.token(), &Token::ours(Phase::Open, 7));
    let birth = story.life().birth;
    assert_eq!(birth, BORN + 1_000, "the timestamp of the open");
    assert_eq!(story.state.tail_offset(), Offset { birth, seq: 2 });

    assert_eq!(story.message(), Folded::Message);
    assert_eq!(story.tell(Kind::Piece(Piece { body: 1, index: 0 })), Folded::Hidden);
    assert_eq!(story.state.tail_offset(), Offset { birth, seq: 3 }, "what is hidden moves nothing that clients see");
    let commit = Commit { body: 1, pieces: vec![3], bytes: 1, message: Message::default() };
    assert_eq!(story.tell(Kind::Commit(commit)), Folded::Message);
    let delivery = Delivery { subscription: 1, incarnation: 2, source_seq: 3 };
    assert_eq!(story.tell(Kind::Delivery(delivery)), Folded::Message);
    assert_eq!(story.state.tail_offset(), Offset { birth, seq: 6 });

    story.fence(Phase::Closed, 7);
    assert_eq!(story.tell(Kind::Close(Close { by: Some(claim("p", 0)) })), Folded::Closed);
    assert_eq!(story.life().closed, Some(Closed { at: 7, by: Some(claim("p", 0)) }));
    assert_eq!(story.state.served_to(), 7);
    assert_eq!(story.message(), Folded::Unserved, "a native writer cannot reopen it");
    assert_eq!(story.tell(Kind::Close(Close { by: None })), Folded::Closed);
    assert_eq!(story.life().closed.as_ref().unwrap().at, 7, "the first closure counts");
    assert_eq!(story.state.tail_offset(), Offset { birth, seq: 6 });

    story.fence(Phase::Gone, 7);
    assert_eq!(story.tell(DELETED), Folded::Gone);
    assert_eq!(story.state.presence(), Presence::Absent);
    assert_eq!(story.tell(Kind::Gone(Gone { reason: GoneReason::Expired })), Folded::Gone);
    assert_eq!(story.life().gone, Some(Gone { reason: GoneReason::Deleted }), "the first end counts");
    assert_eq!(story.message(), Folded::Unserved);
}

#[test]
fn the_next_life_knows_nothing_of_the_one_before() {
    let mut story = Story::opened(open(7));
    story.tell(claimed("p", 0));
    story.tell(Kind::Message(Message { producer: None, stream_seq: Some(StreamSeq::new(b"9").unwrap()) }));
    story.fence(Phase::Gone, 7);
    story.tell(DELETED);
    story.tell(Kind::Trim(5));
    assert_eq!(story.message(), Folded::Unserved, "between two lives nothing is served");
    story.fence(Phase::Open, 8);
    let from = story.state.next;
    story.tell(Kind::Open(Box::new(open(8))));

    let mut fresh = Story { state: StreamState::starting_at(from), now: story.now - 1_000 };
    fresh.tell(Kind::Open(Box::new(open(8))));
    assert_eq!(story.state, fresh.state, "a fold may start at the open");
    assert_eq!(story.message(), Folded::Message);
    assert!(story.life().producers.is_empty() && story.life().stream_seq.is_none());
}

#[test]
fn a_stream_can_be_created_closed() {
    let mut story = Story::new();
    story.fence(Phase::Closed, 7);
    story.tell(Kind::Open(Box::new(open(7))));
    assert_eq!(story.message(), Folded::Message, "what stands between open and close is served");
    story.tell(Kind::Close(Close { by: None }));
    assert_eq!(story.state.token(), &Token::ours(Phase::Closed, 7));
    assert_eq!(story.state.presence(), Presence::Here);

    let mut without_fence = Story { state: StreamState::starting_at(1), now: BORN + 1_000 };
    without_fence.tell(Kind::Open(Box::new(open(7))));
    without_fence.message();
    without_fence.tell(Kind::Close(Close { by: None }));
    assert_eq!(without_fence.state.token(), story.state.token());
}

#[test]
fn the_token_agrees_with_the_life_whether_the_fence_was_seen_or_not() {
    for turn in [None, Some(5)] {
        for (phase, kind) in [(Phase::Closed, Kind::Close(Close { by: None })), (Phase::Gone, DELETED)] {
            let mut seen = Story::opened(open(7));
            if let Some(turn) = turn {
                let moved = seen.state.token().with_turn(turn).unwrap();
                seen.tell(Kind::Fence(moved.to_string()));
                assert_eq!(seen.state.token(), &moved);
            }
            let mut unseen = Story { state: seen.state.clone(), now: seen.now };
            seen.fence(phase, 7);
            seen.tell(kind.clone());
            unseen.tell(kind);
            assert_eq!(seen.state.token(), &Token::ours(phase, 7));
            assert_eq!(unseen.state.token(), seen.state.token());
        }
    }
}

#[test]
fn a_token_that_is_not_ours_stays_in_force() {
    let mut story = Story::opened(open(7));
    story.tell(Kind::Fence("leader".to_owned()));
    story.tell(Kind::Close(Close { by: None }));
    assert_eq!(story.state.token(), &Token::Foreign("leader".to_owned()));
    assert_eq!(story.state.presence(), Presence::Here, "it can still be read");
}

#[test]
fn native_records_are_messages_until_a_token_of_ours_says_otherwise() {
    let mut story = Story::new();
    assert_eq!(story.message(), Folded::Message);
    assert_eq!(story.state.presence(), Presence::Here);
    assert_eq!(story.state.tail_offset(), Offset { birth: 0, seq: 1 });
    story.tell(Kind::Fence("leader".to_owned()));
    assert_eq!(story.message(), Folded::Message, "native writers may fence each other");
    assert_eq!(story.state.tail_offset(), Offset { birth: 0, seq: 3 });

    story.fence(Phase::Gone, 7);
    assert_eq!(story.state.presence(), Presence::Absent);
    assert_eq!(story.tell(DELETED), Folded::Gone);
    assert_eq!(story.message(), Folded::Unserved);
}

#[test]
fn a_native_stream_is_adopted_with_all_that_stands_before() {
    let mut story = Story::new();
    story.message();
    story.message();
    story.fence(Phase::Open, 7);
    story.tell(Kind::Open(Box::new(Open { adopts_native: true, ..open(7) })));
    let adopted = Segment { birth: 0, source: None, from: 0, to: 3 };
    assert_eq!(story.life().chain, [adopted]);
    assert_eq!(story.state.tail_offset(), Offset { birth: 0, seq: 3 }, "its offsets go on");
    assert_eq!(story.message(), Folded::Message);
    assert_eq!(story.state.tail_offset(), Offset { birth: BORN + 3_000, seq: 5 });
}

#[test]
fn the_offsets_of_a_fork_sort_behind_what_it_inherits_whatever_the_clocks_say() {
    for (source_birth, birth) in [(5, BORN + 1_000), (BORN + 1_000, BORN + 1_001), (u64::MAX - 1, u64::MAX)] {
        let chain = vec![Segment { birth: source_birth, source: Some(name("source")), from: 2, to: 9 }];
        let at = Offset { birth: source_birth, seq: 9 };
        let fork = Fork { source: name("source"), incarnation: 1, at, sub_offset: 0, chain };
        let mut story = Story::opened(Open { fork: Some(fork), ..open(7) });
        assert_eq!(story.life().birth, birth);
        assert_eq!(story.state.tail_offset(), at, "an empty fork ends at the fork offset");
        story.message();
        assert_eq!(story.state.tail_offset(), Offset { birth, seq: 3 });
    }
}

#[test]
fn references_decide_what_deletion_means() {
    let mut story = Story::opened(open(7));
    story.tell(Kind::Ref(reference(1)));
    story.tell(Kind::Ref(reference(2)));
    story.tell(Kind::Unref(reference(2)));
    story.fence(Phase::Gone, 7);
    story.tell(DELETED);
    assert_eq!(story.state.presence(), Presence::SoftDeleted);
    assert_eq!(story.state.for_readers().presence(), Presence::SoftDeleted);
    story.tell(Kind::Unref(reference(2)));
    assert_eq!(story.state.presence(), Presence::SoftDeleted, "each reference leaves once");
    story.tell(Kind::Unref(reference(1)));
    assert_eq!(story.state.presence(), Presence::Absent);
}

#[test]
fn what_clients_can_make_grow_is_bounded() {
    let mut story = Story::opened(open(7));
    let now = story.now;
    for n in 0..100_000 {
        story.now = now + n / 100;
        story.tell(claimed(&format!("producer-{n}"), 0));
    }
    for n in 0..2_000 {
        story.tell(Kind::Ref(reference(n)));
    }
    assert_eq!(story.life().producers.len(), MAX_PRODUCERS);
    assert_eq!(story.life().references.len(), MAX_FORKS_FOLDED);
    let (_, body) = story.state.to_checkpoint();
    assert!(body.len() < 64 * MAX_PRODUCERS, "{} bytes", body.len());
    assert_eq!(StreamState::from_checkpoint(&body).unwrap(), story.state);
}

#[test]
fn a_trim_moves_only_forwards_and_never_past_itself() {
    let mut story = Story::opened(open(7));
    for (before, trimmed) in [(1, 1), (0, 1), (3, 3), (u64::MAX, 6)] {
        story.tell(Kind::Trim(before));
        assert_eq!(story.state.trimmed(), trimmed);
    }
}

#[test]
fn a_checkpoint_that_nobody_can_have_written_is_not_remembered() {
    let mut story = Story::opened(open(7));
    story.tell(Kind::Checkpoint(Checkpoint { as_of: 3, weight: 0 }));
    assert_eq!(story.state.checkpoint(), None, "it names what did not stand there yet");
    story.tell(Kind::Checkpoint(Checkpoint { as_of: 2, weight: 9 }));
    let known = Some(Checkpoint { as_of: 2, weight: 9 });
    assert_eq!(story.state.checkpoint(), known);
    story.tell(Kind::Checkpoint(Checkpoint { as_of: 1, weight: 99 }));
    assert_eq!(story.state.checkpoint(), known, "an older one changes nothing");
    let stamp = |as_of| Stamp { batch: BatchId { writer: 0, counter: 0 }, checkpoint: Some(as_of) };
    for (as_of, expected) in [(2, known), (6, Some(Checkpoint { as_of: 6, weight: 0 }))] {
        let entry = Entry { stamp: Some(stamp(as_of)), kind: Kind::Touch };
        story.state.apply(&entry.encode(Bytes::new()).at(story.state.next, story.now)).unwrap();
        assert_eq!(story.state.checkpoint(), expected);
    }
}

#[test]
fn a_record_out_of_order_and_one_that_cannot_be_read_change_nothing() {
    let mut story = Story::opened(open(7));
    let before = story.state.clone();
    for seq in [0, 1, 3] {
        let error = story.state.apply(&NewRecord::message(Bytes::new()).at(seq, 0)).unwrap_err();
        assert_eq!(error, FoldError::OutOfOrder { expected: 2, found: seq });
    }
    let header = crate::Header { name: Bytes::from_static(crate::HEADER), value: Bytes::from_static(&[1, 99, 0]) };
    let unknown = NewRecord { headers: vec![header], body: Bytes::new() }.at(2, 0);
    let error = story.state.apply(&unknown).unwrap_err();
    assert_eq!(error, FoldError::Unreadable { seq: 2, source: RecordError::Kind(99) });
    assert_eq!(story.state, before);
}

#[test]
fn a_sliding_lifetime_begins_anew_with_every_sign_of_use() {
    let ttl = Open { lifetime: Lifetime::Ttl { seconds: 80 }, ..open(7) };
    let mut story = Story::opened(ttl);
    let grace = 10_000;
    let opened = BORN + 1_000;
    assert_eq!(story.life().expires_at_ms(), Some(opened + 80_000 + grace));
    story.now = 50_000;
    story.message();
    assert_eq!(story.life().expires_at_ms(), Some(50_000 + 80_000 + grace));
    story.now = 60_000;
    story.tell(Kind::Touch);
    for (now, touch, on_grace) in [
        (60_000, false, false),
        (60_000 + grace, false, false),
        (60_000 + grace + 1, true, false),
        (140_000, true, false),
        (140_001, true, true),
    ] {
        assert_eq!(story.life().wants_touch(now), touch, "{now}");
        assert_eq!(story.life().lives_on_grace(now), on_grace, "{now}");
    }
    story.now = 70_000;
    story.tell(Kind::Close(Close { by: None }));
    story.now = 75_000;
    assert_eq!(story.message(), Folded::Unserved);
    assert_eq!(story.life().last_use_ms, 70_000, "what is not served is no use");
    story.now = 80_000;
    story.tell(Kind::Touch);
    assert_eq!(story.life().last_use_ms, 80_000, "a closed stream is still read");
}

#[test]
fn the_grace_is_bounded_and_nothing_overflows() {
    let life = |lifetime| Story::opened(Open { lifetime, ..open(7) }).life().clone();
    let opened = BORN + 1_000;
    assert_eq!(life(Lifetime::Ttl { seconds: 0 }).expires_at_ms(), Some(opened));
    let month = 30 * 24 * 3600;
    let expires = life(Lifetime::Ttl { seconds: month }).expires_at_ms();
    assert_eq!(expires, Some(opened + month * 1000 + 3_600_000), "an hour at most");
    assert_eq!(life(Lifetime::Ttl { seconds: u64::MAX }).expires_at_ms(), Some(u64::MAX));

    for (lifetime, expires) in [(Lifetime::Forever, None), (Lifetime::ExpiresAt { at_ms: 5 }, Some(5))] {
        let life = life(lifetime);
        assert_eq!(life.expires_at_ms(), expires);
        assert!(!life.wants_touch(u64::MAX) && !life.lives_on_grace(u64::MAX), "use does not matter to {lifetime:?}");
    }
}

#[test]
fn a_log_without_marks_is_judged_by_its_token() {
    for (token, tail) in
        [("", Some(9)), ("leader", Some(9)), ("o.00000000000000ab", None), ("g.00000000000000ab", None)]
    {
        let state = StreamState::without_marks(9, 5, Token::parse(token));
        assert_eq!(state.life(), &Life::Native(Native { tail }), "{token:?}");
        assert_eq!((state.next(), state.clock_ms()), (9, 5));
    }
    assert_eq!(StreamState::without_marks(0, 0, Token::Native).presence(), Presence::Absent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn readers_see_the_same_on_the_copy_that_they_are_given(tasks in tasks(10..60)) {
        let mut world = World::new(3);
        for task in &tasks {
            world.carry_out(task);
            let (state, copy) = (&world.truth, world.truth.for_readers());
            prop_assert_eq!(state.presence(), copy.presence());
            prop_assert_eq!(state.tail_offset(), copy.tail_offset());
            prop_assert_eq!((state.start(), state.tail()), (copy.start(), copy.tail()));
            prop_assert_eq!((state.next(), state.served_to(), state.trimmed()), (copy.next(), copy.served_to(), copy.trimmed()));
            prop_assert_eq!((state.clock_ms(), state.token()), (copy.clock_ms(), copy.token()));
            for seq in 0..=state.next() + 1 {
                let offset = Offset { birth: state.own_birth(), seq };
                let place = state.resolve(offset);
                prop_assert_eq!(place, copy.resolve(offset));
                if let Ok(place) = place {
                    prop_assert_eq!(state.span_at(place), copy.span_at(place));
                    prop_assert_eq!(state.offset_at(place), copy.offset_at(place));
                }
            }
            if let (Some(life), Some(copy)) = (state.incarnation(), copy.incarnation()) {
                prop_assert_eq!(&life.open, &copy.open);
                prop_assert_eq!((&life.closed, life.gone), (&copy.closed, copy.gone));
                prop_assert_eq!(life.expires_at_ms(), copy.expires_at_ms());
                prop_assert!(copy.producers.is_empty());
            }
        }
    }

    #[test]
    fn pods_that_write_by_the_rules_all_fold_to_the_same(tasks in tasks(20..100)) {
        let mut world = World::new(3);
        tasks.iter().for_each(|task| world.carry_out(task));
        prop_assert_eq!(&world.log.fold_to(world.log.tail()), &world.truth);
        let messages = world.folded.iter().zip(0u64..).filter(|(folded, _)| **folded == Folded::Message);
        let opened_at = world.truth.incarnation().map_or(0, |life| life.opened_at);
        let last = messages.map(|(_, at)| at).filter(|at| *at >= opened_at).last();
        let tail = match world.truth.life() {
            Life::Native(native) => native.tail,
            Life::Opened(life) => life.tail,
        };
        prop_assert_eq!(tail, last.map(|last| last + 1));
    }
}
