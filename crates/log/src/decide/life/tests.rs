use super::*;
use crate::{
    Entry,
    simulation::{Log, name, open},
};

fn batch(counter: u64) -> BatchId {
    BatchId { writer: 1, counter }
}

fn native() -> NativeDefaults {
    NativeDefaults {
        content_type: tailwater_protocol::ContentType::default_binary(),
        visibility: crate::Visibility::Public,
        incarnation: 8,
    }
}

fn reference(incarnation: u64) -> Reference {
    Reference { incarnation, fork: name("fork") }
}

fn kinds(plan: &Plan) -> Vec<Kind> {
    plan.records.iter().map(|record| Entry::decode(&record.clone().at(0, 0)).unwrap().kind).collect()
}

fn log_of(kinds: Vec<Kind>) -> Log {
    let records: Vec<NewRecord> =
        kinds.into_iter().map(|kind| Entry { stamp: None, kind }.encode(Bytes::new())).collect();
    let mut log = Log { now: 1_000, ..Log::default() };
    for batch in records.chunks(crate::MAX_BATCH_RECORDS) {
        log.append(batch, None, None);
    }
    log
}

fn opened() -> Log {
    log_of(vec![Kind::Fence("o.0000000000000007".to_owned()), Kind::Open(Box::new(open(7)))])
}

fn state(log: &Log) -> StreamState {
    log.fold_to(log.tail())
}

#[test]
fn a_deletion_needs_the_token_alone_and_an_expiry_the_position_too() {
    for (reason, lands_behind_a_write) in [(GoneReason::Deleted, true), (GoneReason::Expired, false)] {
        let mut log = opened();
        let before = state(&log);
        let plan = plan_gone(&before, reason, batch(1)).unwrap();
        assert_eq!(kinds(&plan), [Kind::Fence("g.0000000000000007".to_owned()), Kind::Gone(Gone { reason })]);
        log.append(&[NewRecord::message(Bytes::new())], None, None);
        assert_eq!(log.land(&before, &plan).is_some(), lands_behind_a_write, "{reason:?}");
        assert_eq!(state(&log).presence() == Presence::Absent, lands_behind_a_write);
        assert_eq!(log.land(&before, &plan), None, "a stream goes once");
    }
}

#[test]
fn a_native_stream_can_be_deleted_and_what_comes_after_is_not_served() {
    let mut log = log_of(vec![Kind::Message(crate::Message::default())]);
    let before = state(&log);
    let plan = plan_gone(&before, GoneReason::Deleted, batch(1)).unwrap();
    log.land(&before, &plan).unwrap();
    log.append(&[NewRecord::message(Bytes::new())], None, None);
    let after = state(&log);
    assert_eq!(after.presence(), Presence::Absent);
    assert!(after.token().ours_in(Phase::Gone).is_some());
    assert_eq!(plan_trim(&after), Some(NewRecord::trim(4)));
    assert!(!wants_trim(&before) && wants_trim(&after));
    let other = plan_gone(&before, GoneReason::Deleted, batch(2)).unwrap();
    assert_ne!(kinds(&plan)[0], kinds(&other)[0], "two deletions never share a token");
}

#[test]
fn nothing_is_done_to_what_is_not_there() {
    let mut log = opened();
    let before = state(&log);
    log.land(&before, &plan_gone(&before, GoneReason::Deleted, batch(1)).unwrap()).unwrap();
    let fenced = log_of(vec![Kind::Message(crate::Message::default()), Kind::Fence("leader".to_owned())]);
    for (state, refusal) in [
        (StreamState::default(), Refusal::NotFound),
        (state(&log), Refusal::NotFound),
        (state(&kept_source()), Refusal::SoftDeleted),
        (state(&fenced), Refusal::Fenced),
    ] {
        assert_eq!(plan_gone(&state, GoneReason::Deleted, batch(2)).unwrap_err(), refusal);
        assert_eq!(plan_touch(&state, batch(2)).unwrap_err(), refusal);
        assert_eq!(plan_ref(&state, reference(1), &native(), batch(2)).unwrap_err(), refusal);
    }
}

/// Deleted, with one fork that needs its data.
fn kept_source() -> Log {
    let mut log = opened();
    let before = state(&log);
    log.land(&before, &plan_ref(&before, reference(1), &native(), batch(1)).unwrap()).unwrap();
    let before = state(&log);
    log.land(&before, &plan_gone(&before, GoneReason::Deleted, batch(2)).unwrap()).unwrap();
    log
}

#[test]
fn the_last_reference_that_leaves_lets_a_deleted_source_go() {
    let mut log = kept_source();
    let kept = state(&log);
    assert_eq!(kept.presence(), Presence::SoftDeleted);
    assert_eq!(plan_trim(&kept), None);
    assert!(!wants_trim(&kept), "a fork needs it");
    assert_eq!(plan_unref(&kept, &reference(2), batch(3)), None, "no such reference");
    let plan = plan_unref(&kept, &reference(1), batch(3)).unwrap();
    assert_eq!((kinds(&plan), plan.condition), (vec![Kind::Unref(reference(1))], Condition::Token));
    log.land(&kept, &plan).unwrap();
    let after = state(&log);
    assert_eq!(after.presence(), Presence::Absent);
    assert_eq!(plan_unref(&after, &reference(1), batch(4)), None, "it left already");
    let trim = plan_trim(&after).unwrap();
    assert_eq!(trim, NewRecord::trim(after.next()));
    assert!(wants_trim(&after));
    assert!(plan_checkpoint(&kept, batch(5)).is_some() && plan_checkpoint(&after, batch(5)).is_none());
    for _ in 0..2 {
        // Two pods may do it at the same time.
        log.append(std::slice::from_ref(&trim), None, Some(&after.token().to_string())).unwrap();
        assert!(!wants_trim(&state(&log)), "once is enough");
    }
    log.append(&[NewRecord::trim(log.tail() + 1)], None, None);
    assert_eq!(plan_trim(&state(&log)), None, "there is nothing left to trim");
}

#[test]
fn a_living_stream_is_never_trimmed_as_a_dead_one() {
    assert!(!wants_trim(&state(&opened())) && !wants_trim(&StreamState::default()));
    assert_eq!(plan_trim(&state(&opened())), None);
    assert_eq!(plan_trim(&StreamState::default()), None);
    assert_eq!(plan_trim(&state(&log_of(vec![Kind::Message(crate::Message::default())]))), None);
}

#[test]
fn a_touch_and_a_reference_land_beside_other_writers() {
    let mut log = opened();
    let before = state(&log);
    let touch = plan_touch(&before, batch(1)).unwrap();
    let refer = plan_ref(&before, reference(1), &native(), batch(2)).unwrap();
    assert_eq!((kinds(&touch), touch.condition), (vec![Kind::Touch], Condition::Token));
    assert_eq!((kinds(&refer), refer.condition), (vec![Kind::Ref(reference(1))], Condition::Token));
    log.append(&[NewRecord::message(Bytes::new())], None, None);
    log.now = 5_000;
    assert!(log.land(&before, &touch).is_some() && log.land(&before, &refer).is_some());
    let life = state(&log).incarnation().unwrap().clone();
    assert_eq!(life.last_use_ms, 5_000);
    assert_eq!(life.references.get(&1), Some(&name("fork")));
}

#[test]
fn a_reference_opens_a_native_source() {
    let mut log = log_of(vec![Kind::Message(crate::Message::default())]);
    let before = state(&log);
    let plan = plan_ref(&before, reference(1), &native(), batch(1)).unwrap();
    log.land(&before, &plan).unwrap();
    let life = state(&log).incarnation().unwrap().clone();
    assert!(life.open.adopts_native && life.references.contains_key(&1));
    assert_eq!(log.land(&before, &plan), None, "the token has moved: one of two pods adopts it");
}

#[test]
fn a_stream_has_no_more_forks_than_it_may() {
    let forks = |count| (0..count).map(|n| Kind::Ref(reference(n)));
    let begun = vec![Kind::Fence("o.0000000000000007".to_owned()), Kind::Open(Box::new(open(7)))];
    let state = state(&log_of(begun.into_iter().chain(forks(MAX_FORKS as u64 - 1)).collect()));
    assert!(plan_ref(&state, reference(u64::MAX), &native(), batch(1)).is_ok());
    let mut full = state;
    let last = Entry { stamp: None, kind: Kind::Ref(reference(u64::MAX)) }.encode(Bytes::new()).at(full.next(), 0);
    full.apply(&last).unwrap();
    assert_eq!(plan_ref(&full, reference(9_999), &native(), batch(1)), Err(Refusal::TooManyForks));
}

#[test]
fn a_checkpoint_alone_holds_the_state_and_points_to_itself() {
    let mut log = opened();
    let before = state(&log);
    let plan = plan_checkpoint(&before, batch(1)).unwrap();
    let record = plan.records[0].clone().at(2, 0);
    assert_eq!(StreamState::from_checkpoint(&record.body).unwrap(), before);
    let stamp = Entry::decode(&record).unwrap().stamp.unwrap();
    assert_eq!((stamp.batch, stamp.checkpoint), (batch(1), Some(2)));
    log.land(&before, &plan).unwrap();
    assert_eq!(state(&log).checkpoint().map(|checkpoint| checkpoint.as_of), Some(2));
    assert_eq!(plan_checkpoint(&StreamState::default(), batch(2)), None, "reading never writes to a native stream");
}
