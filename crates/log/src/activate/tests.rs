use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    BatchId, Condition, Content, CreateRequest, GoneReason, Life, MAX_BATCH_BYTES, NativeDefaults, NewRecord, Outcome,
    Planner, Presence, Reference, plan_create, plan_gone, plan_ref, plan_trim,
    simulation::{Log, World, append_request, assert_agree, fold, name, open, tasks},
};

const WHOLE: usize = MAX_BATCH_BYTES;

fn batch(counter: u64) -> BatchId {
    BatchId { writer: 1, counter }
}

fn natives(count: usize) -> Vec<NewRecord> {
    vec![NewRecord::message(Bytes::from_static(b"native")); count]
}

fn created(messages: usize) -> Log {
    let mut log = Log { now: 1_000, ..Log::default() };
    let content = Content::Messages(vec![Bytes::from_static(b"m"); messages]);
    let request = CreateRequest { open: open(7), content, closed: false };
    let state = StreamState::default();
    assert_eq!(log.land(&state, &plan_create(&state, &request, batch(0)).0), Some(0));
    log
}

/// Appends one message after the other as a gateway would; its checkpoints ride along.
fn write(log: &mut Log, state: &mut StreamState, count: u64) {
    let native = NativeDefaults {
        content_type: tailwater_protocol::ContentType::default_binary(),
        visibility: crate::Visibility::Public,
        incarnation: 8,
    };
    for _ in 0..count {
        let mut planner = Planner::new(state);
        assert!(matches!(planner.push(&append_request(&["message"]), &native), Outcome::Planned { .. }));
        let plan = planner.finish(batch(state.next()));
        assert_eq!(log.land(state, &plan), Some(state.next()));
        let from = usize::try_from(state.next()).unwrap();
        *state = fold(state.clone(), &log.records[from..]).unwrap();
    }
}

#[test]
fn a_stream_that_does_not_exist_is_absent_after_one_look() {
    let mut activation = Activation::default();
    assert!(matches!(activation.start(), Step::ReadLast(1)));
    let Ok(Step::Done(activated)) = activation.on(Found::Missing) else { panic!("nothing more to ask") };
    assert_eq!(activated.state, StreamState::default());
    assert_eq!(activated.state.presence(), Presence::Absent);
    assert!(activated.recent.is_empty() && !activated.wants_checkpoint);
}

#[test]
fn an_empty_stream_is_what_its_token_says() {
    for (token, presence, reads) in [
        ("", Presence::Here, 2),
        ("leader", Presence::Here, 2),
        // A token of ours may have been set since the first look.
        ("g.00000000000000ab", Presence::Absent, 3),
        ("o.00000000000000ab", Presence::Absent, 3),
    ] {
        let mut log = Log::default();
        log.append(&natives(5), None, None);
        log.append(&[NewRecord::fence(token)], None, None);
        log.first = log.tail();
        let (activated, answers) = log.activate(WHOLE);
        assert_eq!(activated.state.presence(), presence, "{token:?}");
        assert_eq!(activated.state.token().to_string(), token);
        assert_eq!((activated.state.next(), answers), (6, reads));
    }
}

#[test]
fn a_native_log_is_known_by_its_token_without_reading_its_history() {
    let mut log = Log::default();
    log.append(&natives(900), None, None);
    let (activated, answers) = log.activate(WHOLE);
    assert_agree(&activated.state, &log.fold_to(900));
    assert_eq!(answers, 4, "the last, the last eight, whether there is more, the token");
    assert_eq!(activated.recent.len(), 8);

    log.append(&[NewRecord::fence("leader")], None, None);
    let (activated, answers) = log.activate(WHOLE);
    assert_agree(&activated.state, &log.fold_to(901));
    assert_eq!(answers, 4);
}

#[test]
fn pieces_of_a_body_that_was_never_committed_are_no_stream() {
    let piece = |index| {
        Entry { stamp: None, kind: Kind::Piece(crate::Piece { body: 9, index }) }.encode(Bytes::from_static(b"part"))
    };
    let mut log = Log::default();
    for index in 0..70 {
        log.append(&[piece(index)], None, None);
    }
    let (activated, answers) = log.activate(WHOLE);
    assert_eq!((activated.state.presence(), answers <= 8), (Presence::Absent, true), "{answers}");

    let mut log = Log::default();
    log.append(&natives(3), None, None);
    for index in 0..12 {
        log.append(&[piece(index)], None, None);
    }
    let (activated, _) = log.activate(WHOLE);
    assert_eq!(activated.state.presence(), Presence::Here);
    assert_eq!(activated.state.tail_offset(), tailwater_protocol::Offset { birth: 0, seq: 3 });
}

#[test]
fn a_log_with_checkpoints_is_activated_in_a_few_reads_however_long_it_is() {
    let mut log = created(0);
    let mut state = log.fold_to(2);
    write(&mut log, &mut state, 200);
    let mut most = 0;
    for _ in 0..40 {
        write(&mut log, &mut state, 97);
        let (activated, answers) = log.activate(WHOLE);
        assert_eq!(activated.state, state);
        assert!(!activated.wants_checkpoint);
        most = most.max(answers);
    }
    assert!(log.tail() > 3_800);
    assert_eq!(most, 3, "the last, from its pointer on, whether there is more");
}

#[test]
fn a_moved_token_or_a_native_record_at_the_end_costs_a_few_reads_more() {
    let mut log = created(0);
    let mut state = log.fold_to(2);
    write(&mut log, &mut state, 2_000);
    let moved = state.token().with_turn(5).unwrap();
    log.append(&[NewRecord::fence(&moved.to_string())], None, None);
    let (activated, answers) = log.activate(WHOLE);
    assert_eq!(activated.state, log.fold_to(log.tail()));
    assert_eq!(answers, 4);

    log.append(&natives(500), None, None);
    let (activated, answers) = log.activate(WHOLE);
    assert_eq!(activated.state, log.fold_to(log.tail()));
    assert!(answers <= 9, "{answers}");
    assert!(activated.wants_checkpoint, "the next one should have it easier");
}

#[test]
fn a_life_without_a_checkpoint_is_found_behind_thousands_of_native_records() {
    let mut log = created(2);
    log.append(&natives(900), None, None);
    for _ in 0..4 {
        log.append(&natives(1000), None, None);
    }
    for page_bytes in [WHOLE, 3_000] {
        let (activated, _) = log.activate(page_bytes);
        assert_eq!(activated.state, log.fold_to(log.tail()));
        assert!(activated.wants_checkpoint);
    }
}

#[test]
fn a_source_that_is_kept_for_its_forks_is_found_behind_native_records() {
    let mut log = created(1);
    let native = NativeDefaults {
        content_type: tailwater_protocol::ContentType::default_binary(),
        visibility: crate::Visibility::Public,
        incarnation: 8,
    };
    let reference = Reference { incarnation: 3, fork: name("fork") };
    let state = log.fold_to(log.tail());
    log.land(&state, &plan_ref(&state, reference, &native, batch(1)).unwrap()).unwrap();
    let state = log.fold_to(log.tail());
    log.land(&state, &plan_gone(&state, GoneReason::Deleted, batch(2)).unwrap()).unwrap();
    log.append(&natives(300), None, None);
    let (activated, _) = log.activate(WHOLE);
    assert_eq!(activated.state.presence(), Presence::SoftDeleted);
    assert_eq!(plan_trim(&activated.state), None, "its forks need the data");
}

#[test]
fn a_deleted_and_trimmed_stream_is_absent_and_can_be_created_again() {
    let mut log = created(3);
    let state = log.fold_to(log.tail());
    log.land(&state, &plan_gone(&state, GoneReason::Deleted, batch(1)).unwrap()).unwrap();
    let state = log.fold_to(log.tail());
    log.append(&[plan_trim(&state).unwrap()], None, Some(&log.token.clone())).unwrap();
    for trailing in [0, 3, 20] {
        let mut log = log.clone();
        if trailing > 0 {
            log.append(&natives(trailing), None, None);
        }
        let (activated, answers) = log.activate(WHOLE);
        assert_agree(&activated.state, &log.fold_to(log.tail()));
        assert_eq!(activated.state.presence(), Presence::Absent);
        assert!(answers <= 6, "{answers}");

        let content = Content::Messages(Vec::new());
        let request = CreateRequest { open: open(9), content, closed: false };
        let plan = plan_create(&activated.state, &request, batch(2)).0;
        assert_eq!(plan.condition, Condition::TokenAndPosition);
        log.land(&activated.state, &plan).unwrap();
        let (again, _) = log.activate(WHOLE);
        assert_eq!(again.state, log.fold_to(log.tail()));
        assert_eq!(again.state.presence(), Presence::Here);
    }
}

#[test]
fn a_stream_that_is_deleted_while_it_is_looked_for_is_absent() {
    let mut log = created(2);
    for _ in 0..3 {
        log.append(&natives(1000), None, None);
    }
    let alive = log.fold_to(log.tail());
    for answers_before in 0..40 {
        let mut log = log.clone();
        let mut activation = Activation::default();
        let mut step = activation.start();
        let mut answers = 0;
        let activated = loop {
            if let Step::Done(activated) = step {
                break activated;
            }
            step = activation.on(log.answer(&step, 3_000)).unwrap();
            answers += 1;
            assert!(answers < 100, "it ends");
            if answers == answers_before {
                log.land(&alive, &plan_gone(&alive, GoneReason::Deleted, batch(1)).unwrap()).unwrap();
                let trim = plan_trim(&log.fold_to(log.tail())).unwrap();
                log.append(&[trim], None, None);
            }
        };
        let from = usize::try_from(activated.state.next()).unwrap();
        let now = fold(activated.state, &log.records[from..]).unwrap();
        assert_agree(&now, &log.fold_to(log.tail()));
    }
}

#[test]
fn a_pointer_that_leads_nowhere_only_costs_reads() {
    let mut log = created(40);
    let forged = |as_of| {
        let stamp = Stamp { batch: batch(u64::MAX), checkpoint: Some(as_of) };
        Entry { stamp: Some(stamp), kind: Kind::Message(crate::Message::default()) }.encode(Bytes::new())
    };
    for as_of in [20, 0, 41, u64::MAX] {
        log.append(&[forged(as_of)], None, None);
        let (activated, _) = log.activate(WHOLE);
        assert_eq!(activated.state, log.fold_to(log.tail()));
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let mut log = created(0);
    let header = crate::Header { name: Bytes::from_static(crate::HEADER), value: Bytes::from_static(b"\x09\x01\x00") };
    log.append(&[NewRecord { headers: vec![header], body: Bytes::new() }], None, None);
    let mut activation = Activation::default();
    let error = activation.on(log.answer(&activation.start(), WHOLE)).unwrap_err();
    assert!(matches!(error, FoldError::Unreadable { seq: 2, .. }));
}

#[test]
fn no_more_is_kept_for_the_ring_than_it_may_hold() {
    let mut log = created(0);
    for _ in 0..7 {
        log.append(&[NewRecord::message(Bytes::from(vec![0; 900 * 1024]))], None, None);
    }
    let (activated, _) = log.activate(WHOLE);
    assert_eq!(activated.state, log.fold_to(9));
    let bytes: usize = activated.recent.iter().map(Record::metered_bytes).sum();
    assert!(bytes <= KEPT_BYTES && bytes > KEPT_BYTES - 1024 * 1024);
}

/// The last records, without a gap, up to where the state stands.
fn assert_recent(activated: &Activated) {
    let first = activated.state.next() - activated.recent.len() as u64;
    assert!(activated.recent.iter().map(|record| record.seq).eq(first..activated.state.next()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_pod_that_activates_at_any_moment_knows_what_one_knows_that_folded_everything(
        tasks in tasks(20..90),
        page_bytes in 40..1_500usize,
    ) {
        let mut world = World::new(3);
        for (at, task) in tasks.iter().enumerate() {
            world.carry_out(task);
            if at % 3 == 0 || at + 1 == tasks.len() {
                let (activated, _) = world.log.activate(page_bytes);
                assert_agree(&activated.state, &world.truth);
                assert_recent(&activated);
            }
        }
    }

    #[test]
    fn an_activation_amid_writes_and_trims_still_leads_to_the_truth(
        before in tasks(10..60),
        amid in tasks(0..12),
        page_bytes in 40..1_500usize,
    ) {
        let mut world = World::new(3);
        before.iter().for_each(|task| world.carry_out(task));
        let mut amid = amid.iter();
        let mut activation = Activation::default();
        let mut step = activation.start();
        let activated = loop {
            if let Step::Done(activated) = step {
                break activated;
            }
            let mut found = world.log.answer(&step, page_bytes);
            amid.by_ref().take(2).for_each(|task| world.carry_out(task));
            if let Found::Token { token, .. } = &mut found {
                token.clone_from(&world.log.token);
            }
            step = activation.on(found).unwrap();
        };
        assert_recent(&activated);
        let next = activated.state.next();
        prop_assume!(next >= world.log.first);
        let rest = &world.log.records[usize::try_from(next).unwrap()..];
        assert_agree(&fold(activated.state.clone(), rest).unwrap(), &world.truth);
        if matches!(activated.state.life(), Life::Opened(_)) {
            prop_assert_eq!(activated.state, world.log.fold_to(next));
        }
    }
}
