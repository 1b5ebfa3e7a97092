//! Forks (protocol section 4.2): they point to what they inherit, and keep it alive.

use std::time::Duration;

use futures_util::future::join;
use tailwater_fanout::{
    Config, Create, Event, ForkError, ForkFrom, ForkPoint, NewVisibility, OpError, Post, SourceAccess,
};
use tailwater_log::{ConfigField, Kind, Refusal, Visibility};
use tailwater_protocol::{Offset, ReadOffset};
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{AppendFault, Outage, Pause},
};
use tailwater_upstream::StreamKey;
use tokio::time::sleep;

use crate::harness::*;

fn fork_at(source: &StreamKey, at: ForkPoint, sub_offset: u64) -> Create {
    Create {
        content_type: None,
        fork: Some(ForkFrom { source: source.clone(), at, sub_offset, access: SourceAccess::Any }),
        ..plain()
    }
}

fn fork(source: &StreamKey) -> Create {
    fork_at(source, ForkPoint::Tail, 0)
}

fn fork_error(answer: Result<tailwater_fanout::Created, OpError>) -> ForkError {
    match answer {
        Err(OpError::Fork(error)) => error,
        other => panic!("the fork should have been refused: {other:?}"),
    }
}

/// The references that a stream's log has been given and not lost again.
fn references(store: &ScriptedUpstream, key: &StreamKey) -> isize {
    let delta = |record: &tailwater_log::Record| match tailwater_log::Entry::decode(record).unwrap().kind {
        Kind::Ref(_) => 1,
        Kind::Unref(_) => -1,
        _ => 0,
    };
    store.records(key).iter().map(delta).sum()
}

async fn source(pod: &Pod, key: &StreamKey, bodies: &[&str]) -> Vec<Offset> {
    let mut offsets = vec![pod.create(key, plain()).await.unwrap().head.tail];
    for body in bodies {
        offsets.push(landed(pod.append(key, tell(body)).await));
    }
    offsets
}

#[tokio::test(start_paused = true)]
async fn a_fork_inherits_what_stands_before_its_offset_and_goes_its_own_way() {
    let store = store();
    let (pod, other) = (Pod::new(&store), Pod::new(&store));
    let (s, f) = (key("source"), key("fork"));
    let offsets = source(&pod, &s, &["a", "b", "c"]).await;
    let created = pod.create(&f, fork_at(&s, ForkPoint::At(offsets[2]), 0)).await.unwrap();
    assert!(created.fresh);
    assert_eq!(created.head.tail, offsets[2], "until it has messages of its own");
    assert_eq!(created.head.content_type, text());
    landed(pod.append(&s, tell("d")).await);
    let tail = landed(other.append(&f, tell("x")).await);
    assert!(tail > offsets[3]);
    for pod in [&pod, &other, &Pod::new(&store)] {
        assert_eq!(read(pod, &f).await, ["a", "b", "x"]);
        assert_eq!(read(pod, &s).await, ["a", "b", "c", "d"]);
        assert_eq!(read_from(pod, &f, ReadOffset::At(offsets[1])).await.unwrap(), ["b", "x"]);
        assert_eq!(read_from(pod, &f, ReadOffset::At(offsets[2])).await.unwrap(), ["x"]);
        assert!(pod.read(&f, ReadOffset::At(offsets[3])).await.is_err(), "that is the source's alone");
        let mut reader = pod.follow(&f, ReadOffset::Start).await.unwrap();
        assert_eq!(take(&mut reader, 3).await, ["a", "b", "x"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fork_of_a_fork_of_a_fork_reads_through_all_of_them() {
    let store = store();
    let pod = Pod::new(&store);
    let keys = ["0", "1", "2", "3"].map(key);
    source(&pod, &keys[0], &["0"]).await;
    for n in 1..4 {
        assert!(pod.create(&keys[n], fork(&keys[n - 1])).await.unwrap().fresh);
        landed(pod.append(&keys[n - 1], tell("not inherited")).await);
        landed(pod.append(&keys[n], tell(&n.to_string())).await);
    }
    for pod in [&pod, &Pod::new(&store)] {
        assert_eq!(read(pod, &keys[3]).await, numbered(0..4));
        let mut reader = pod.follow(&keys[3], ReadOffset::Start).await.unwrap();
        assert_eq!(take(&mut reader, 4).await, numbered(0..4));
        // Every offset on the way is a place to go on from.
        let mut from = ReadOffset::Start;
        let mut seen = Vec::new();
        let small = Config { page_bytes: 1, ring_bytes: 1, ..Config::default() };
        let small = Pod::with(&store, small);
        loop {
            let page = small.read(&keys[3], from).await.unwrap();
            seen.extend(strings(&page.messages));
            from = ReadOffset::At(page.next);
            if page.up_to_date {
                break;
            }
        }
        assert_eq!(seen, numbered(0..4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fork_may_begin_within_a_message() {
    let store = store();
    let pod = Pod::new(&store);
    let s = key("source");
    let offsets = source(&pod, &s, &["hello", "world"]).await;
    for (name, at, sub_offset, expected) in [
        ("a", ForkPoint::Start, 3, vec!["hel"]),
        ("b", ForkPoint::Start, 5, vec!["hello"]),
        ("c", ForkPoint::Start, 7, vec!["hello", "wo"]),
        ("d", ForkPoint::At(offsets[1]), 4, vec!["hello", "worl"]),
        ("e", ForkPoint::At(offsets[1]), 5, vec!["hello", "world"]),
    ] {
        let f = key(name);
        assert!(pod.create(&f, fork_at(&s, at, sub_offset)).await.unwrap().fresh);
        assert!(!pod.create(&f, fork_at(&s, at, sub_offset)).await.unwrap().fresh, "the same PUT again");
        assert_eq!(read(&pod, &f).await, expected, "{name}");
        landed(pod.append(&f, tell("!")).await);
        assert_eq!(read(&Pod::new(&store), &f).await, [expected, vec!["!"]].concat(), "{name}");
    }
    assert_eq!(fork_error(pod.create(&key("f"), fork_at(&s, ForkPoint::Start, 11)).await), ForkError::SubOffset);
    assert_eq!(fork_error(pod.create(&key("f"), fork_at(&s, ForkPoint::Tail, 1)).await), ForkError::SubOffset);
}

#[tokio::test(start_paused = true)]
async fn a_fork_may_begin_within_the_last_message_that_its_source_inherited() {
    let store = store();
    let pod = Pod::new(&store);
    let keys = ["0", "1", "2", "3"].map(key);
    let offsets = source(&pod, &keys[0], &["hello", "world"]).await;
    pod.create(&keys[1], fork(&keys[0])).await.unwrap();
    // Once without own messages in the source, once with.
    for (n, sub_offset, expected) in [(2, 8, vec!["hello", "wor"]), (3, 10, vec!["hello", "world"])] {
        let create = fork_at(&keys[1], ForkPoint::Start, sub_offset);
        assert!(pod.create(&keys[n], create).await.unwrap().fresh);
        assert_eq!(read(&pod, &keys[n]).await, expected);
        landed(pod.append(&keys[1], tell("own")).await);
        assert_eq!(read(&pod, &keys[n]).await, expected);
    }
    let deep = key("4");
    pod.create(&deep, fork_at(&keys[1], ForkPoint::At(offsets[1]), 2)).await.unwrap();
    assert_eq!(read(&pod, &deep).await, ["hello", "wo"]);
    let beyond = key("5");
    pod.create(&beyond, fork_at(&keys[1], ForkPoint::Start, 12)).await.unwrap();
    assert_eq!(read(&pod, &beyond).await, ["hello", "world", "ow"]);
}

#[tokio::test(start_paused = true)]
async fn a_sub_offset_of_a_json_stream_counts_values_also_within_a_large_commit() {
    let store = store();
    let pod = Pod::new(&store);
    let (s, f) = (key("source"), key("fork"));
    pod.create(&s, Create { content_type: Some(json()), ..plain() }).await.unwrap();
    let as_json = |bodies: &[&str]| Post { content_type: Some(json()), ..say(bodies) };
    landed(pod.append(&s, as_json(&["1", "[2,3]"])).await);
    let values = numbered(0..5_000);
    let large: Vec<&str> = values.iter().map(String::as_str).collect();
    landed(in_time(pod.append(&s, as_json(&large))).await);
    for (name, sub_offset, expected) in [
        ("one", 1, "1".to_owned()),
        ("two", 2, "1|[2,3]".to_owned()),
        ("within", 5, "1|[2,3]|0,1,2".to_owned()),
        ("most", 4_002, format!("1|[2,3]|{}", values[..4_000].join(","))),
        ("all", 5_002, format!("1|[2,3]|{}", values.join(","))),
    ] {
        let key = key(name);
        in_time(pod.create(&key, fork_at(&s, ForkPoint::Start, sub_offset))).await.unwrap();
        assert_eq!(read(&pod, &key).await.join("|"), expected, "{name}");
    }
    assert_eq!(fork_error(pod.create(&f, fork_at(&s, ForkPoint::Start, 5_003)).await), ForkError::SubOffset);
}

#[tokio::test(start_paused = true)]
async fn a_fork_may_begin_within_a_large_text() {
    let store = store();
    let pod = Pod::new(&store);
    let (s, f) = (key("source"), key("fork"));
    let body = "0123456789abcdef".repeat(200_000);
    pod.create(&s, plain()).await.unwrap();
    landed(in_time(pod.append(&s, tell(&body))).await);
    in_time(pod.create(&f, fork_at(&s, ForkPoint::Start, 2_500_000))).await.unwrap();
    for pod in [&pod, &Pod::new(&store)] {
        assert!(read(pod, &f).await == [&body[..2_500_000]]);
    }
}

#[tokio::test(start_paused = true)]
async fn closed_native_and_empty_streams_can_be_forked() {
    let store = store();
    let config = Config { native_content_type: text(), ..Config::default() };
    let pod = Pod::with(&store, config);
    let [closed, native, empty] = ["closed", "native", "empty"].map(key);
    pod.create(&closed, Create { closed: true, ..holding(&["a"]) }).await.unwrap();
    store.append_native(&native, ["b"]);
    pod.create(&empty, plain()).await.unwrap();
    for (source, expected) in [(&closed, vec!["a"]), (&native, vec!["b"]), (&empty, vec![])] {
        let f = key(&format!("fork of {}", source.stream));
        let head = pod.create(&f, fork(source)).await.unwrap().head;
        assert!(!head.closed, "closure is not inherited");
        landed(pod.append(&f, tell("x")).await);
        store.append_native(source, ["not inherited"]);
        assert_eq!(read(&pod, &f).await, [expected, vec!["x"]].concat());
    }
    assert!(matches!(pod.append(&closed, tell("x")).await, Err(OpError::Refused(Refusal::Closed { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_fork_may_have_first_messages_and_be_closed() {
    let store = store();
    let pod = Pod::new(&store);
    let (s, f) = (key("source"), key("fork"));
    source(&pod, &s, &["hello"]).await;
    let create = Create { messages: bytes(&["x", "y"]), closed: true, ..fork_at(&s, ForkPoint::Start, 2) };
    let head = pod.create(&f, create).await.unwrap().head;
    assert!(head.closed);
    assert_eq!(read(&pod, &f).await, ["he", "x", "y"]);
    let mut reader = pod.follow(&f, ReadOffset::Start).await.unwrap();
    assert_eq!(take_all(&mut reader).await, ["he", "x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_deleted_stays_for_its_forks_and_goes_with_the_last() {
    let store = store();
    let (pod, other) = (Pod::new(&store), Pod::new(&store));
    let keys = ["0", "1", "2"].map(key);
    source(&pod, &keys[0], &["0"]).await;
    pod.create(&keys[1], fork(&keys[0])).await.unwrap();
    landed(pod.append(&keys[1], tell("1")).await);
    pod.create(&keys[2], fork(&keys[1])).await.unwrap();
    pod.delete(&keys[0]).await.unwrap();
    other.delete(&keys[1]).await.unwrap();
    for pod in [&pod, &other] {
        for key in &keys[..2] {
            let soft = |error: OpError| assert!(matches!(error, OpError::Refused(Refusal::SoftDeleted)), "{error:?}");
            soft(pod.head(key).await.unwrap_err());
            soft(pod.read(key, ReadOffset::Start).await.unwrap_err());
            soft(pod.append(key, tell("x")).await.unwrap_err());
            soft(pod.delete(key).await.unwrap_err());
            soft(pod.follow(key, ReadOffset::Start).await.err().unwrap());
            let again = pod.create(key, plain()).await;
            assert!(matches!(again, Err(OpError::Conflict { field: ConfigField::SoftDeleted })), "{again:?}");
            assert_eq!(fork_error(pod.create(&crate::harness::key("late"), fork(key)).await), ForkError::SourceDeleted);
        }
        assert_eq!(read(pod, &keys[2]).await, ["0", "1"]);
    }
    pod.delete(&keys[2]).await.unwrap();
    rest().await;
    for key in &keys {
        assert!(matches!(other.head(key).await, Err(OpError::Refused(Refusal::NotFound))), "{key}");
        assert!(store.records(key).len() <= 1, "{key}: {:?}", store.records(key));
        assert!(other.create(key, plain()).await.unwrap().fresh);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fork_of_a_private_stream_is_private_unless_its_author_says_otherwise() {
    let (public, private) = (Visibility::Public, Visibility::Private);
    let store = store();
    let pod = Pod::new(&store);
    for (source, new, expected) in [
        (public, NewVisibility::Default(public), public),
        (public, NewVisibility::Default(private), private),
        (private, NewVisibility::Default(public), private),
        (private, NewVisibility::Declared(public), public),
        (public, NewVisibility::Declared(private), private),
        (public, NewVisibility::Undeclared, public),
        (private, NewVisibility::Undeclared, private),
    ] {
        let (s, f) = (key(&format!("source of {new:?} {source:?}")), key(&format!("fork of {new:?} {source:?}")));
        pod.create(&s, Create { visibility: NewVisibility::Declared(source), ..plain() }).await.unwrap();
        let created = pod.create(&f, Create { visibility: new, ..fork(&s) }).await.unwrap();
        assert_eq!(created.head.visibility, expected, "{source:?} {new:?}");
        assert!(!pod.create(&f, Create { visibility: new, ..fork(&s) }).await.unwrap().fresh);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_still_behind_is_not_led_into_another_fork_of_the_same_source() {
    for next in [Visibility::Private, Visibility::Public] {
        let (store, s, f) = (store(), key("source"), key("fork"));
        let pod = Pod::with(&store, Config { ring_bytes: 1, window_bytes: 100, ..Config::default() });
        let bodies = numbered(0..200);
        pod.create(&s, holding(&bodies.iter().map(String::as_str).collect::<Vec<_>>())).await.unwrap();
        pod.create(&f, fork(&s)).await.unwrap();
        let mut reader = pod.follow(&f, ReadOffset::Start).await.unwrap();
        let mut seen = strings(&delivery(&mut reader).await.messages);
        assert!(seen.len() < bodies.len(), "it is behind: {}", seen.len());
        pod.delete(&f).await.unwrap();
        pod.create(&f, Create { visibility: NewVisibility::Declared(next), ..fork(&s) }).await.unwrap();
        // Its next life has no message of its own yet, so that its tail is the place where the reader comes to stand.
        let event = loop {
            match in_time(reader.next()).await {
                Event::Messages(delivery) => {
                    assert!(!delivery.up_to_date, "of another life");
                    seen.extend(strings(&delivery.messages));
                }
                event @ (Event::Gone | Event::Reset { .. } | Event::Failed(_)) => break event,
            }
        };
        assert!(matches!(event, Event::Gone), "{event:?}");
        assert_eq!(reader.head().visibility, Visibility::Public);
        assert_eq!(seen, bodies);
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_see_public_streams_only_forks_nothing_else_and_cannot_tell_what_there_is() {
    let store = store();
    let pod = Pod::new(&store);
    let [public, private, deleted, nowhere] = ["public", "private", "deleted", "nowhere"].map(key);
    let hidden = Create { visibility: NewVisibility::Declared(Visibility::Private), ..holding(&["a"]) };
    pod.create(&public, holding(&["a"])).await.unwrap();
    pod.create(&private, hidden.clone()).await.unwrap();
    pod.create(&deleted, hidden).await.unwrap();
    pod.create(&key("keeps it"), fork(&deleted)).await.unwrap();
    pod.delete(&deleted).await.unwrap();
    let seen = |source: &StreamKey| {
        let mut create = fork(source);
        create.fork.as_mut().unwrap().access = SourceAccess::Public;
        create
    };
    assert!(pod.create(&key("f"), seen(&public)).await.unwrap().fresh);
    for source in [&private, &deleted, &nowhere] {
        assert_eq!(fork_error(pod.create(&key("g"), seen(source)).await), ForkError::SourceNotFound, "{source}");
    }
    assert_eq!(references(&store, &private), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_fork_leaves_no_reference() {
    let store = store();
    let pod = Pod::new(&store);
    let (s, f) = (key("source"), key("fork"));
    let offsets = source(&pod, &s, &["a"]).await;
    let tail = offsets[1];
    let beyond = ForkPoint::At(Offset { seq: tail.seq + 100, ..tail });
    assert_eq!(fork_error(pod.create(&f, fork_at(&s, beyond, 0)).await), ForkError::OffsetBeyond);
    assert_eq!(fork_error(pod.create(&f, fork(&key("nothing"))).await), ForkError::SourceNotFound);
    let gone = ForkPoint::At(Offset { birth: tail.birth - 1, ..tail });
    assert_eq!(fork_error(pod.create(&f, fork_at(&s, gone, 0)).await), ForkError::OffsetGone);
    let other_type = Create { content_type: Some(json()), ..fork(&s) };
    let conflict = pod.create(&f, other_type).await;
    assert!(matches!(conflict, Err(OpError::Conflict { field: ConfigField::ContentType })));
    pod.create(&f, plain()).await.unwrap();
    assert!(matches!(pod.create(&f, fork(&s)).await, Err(OpError::Conflict { field: ConfigField::Fork })));
    assert_eq!(references(&store, &s), 0);

    // One whose own append fails behind the reference.
    let g = key("g");
    store.faults_of(&g).next_append(AppendFault::NotSent);
    assert!(pod.create(&g, fork(&s)).await.is_err());
    rest().await;
    assert_eq!(references(&store, &s), 0);
    pod.delete(&s).await.unwrap();
    rest().await;
    assert!(matches!(pod.head(&s).await, Err(OpError::Refused(Refusal::NotFound))));
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_to_a_source_reaches_it_though_its_project_has_too_many_active_streams() {
    let store = store();
    let idle = Duration::from_secs(5);
    let pod = Pod::with(&store, Config { idle, ..Config::default() });
    let (s, f) = (key("source"), key("fork"));
    source(&pod, &s, &["a"]).await;
    pod.create(&f, fork(&s)).await.unwrap();
    assert_eq!(references(&store, &s), 1);
    while pod.metric("tailwater_active_streams") > 0.0 {
        sleep(idle).await;
    }
    assert!(pod.head(&f).await.is_ok());
    pod.allot_by(only_what_is_owed());
    assert!(matches!(pod.head(&s).await, Err(OpError::OverFairShare)));
    pod.delete(&f).await.unwrap();
    rest().await;
    assert_eq!(references(&store, &s), 0);
}

#[tokio::test(start_paused = true)]
async fn of_forks_created_at_once_one_is_created_and_one_reference_is_left() {
    let store = store();
    let pods = [Pod::new(&store), Pod::new(&store)];
    let (s, f) = (key("source"), key("fork"));
    source(&pods[0], &s, &["a"]).await;
    let creates = (0..6).map(|n| pods[n % 2].create(&f, fork(&s)));
    let created = in_time(futures_util::future::join_all(creates)).await;
    assert_eq!(created.into_iter().filter(|created| created.as_ref().unwrap().fresh).count(), 1);
    rest().await;
    assert_eq!(references(&store, &s), 1);
    assert_eq!(read(&pods[1], &f).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_fork_is_not_made_of_a_life_that_ended_meanwhile() {
    let store = store();
    let (pod, other) = (Pod::new(&store), Pod::new(&store));
    let (s, f) = (key("source"), key("fork"));
    source(&pod, &s, &["of the first life"]).await;
    let gate = Gate::new();
    store.faults_of(&s).next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let next_life = async {
        gate.arrived().await;
        other.delete(&s).await.unwrap();
        other.create(&s, holding(&["of the second life"])).await.unwrap();
        gate.open();
    };
    let (created, ()) = in_time(join(pod.create(&f, fork(&s)), next_life)).await;
    match created {
        Err(OpError::Fork(ForkError::SourceNotFound)) => assert_eq!(references(&store, &s), 0),
        Ok(_) => assert_eq!(read(&pod, &f).await, ["of the second life"]),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_fork_is_not_woken_by_its_source() {
    let store = store();
    let pod = Pod::new(&store);
    let (s, f) = (key("source"), key("fork"));
    source(&pod, &s, &["a"]).await;
    pod.create(&f, fork(&s)).await.unwrap();
    let mut reader = pod.follow(&f, ReadOffset::Now).await.unwrap();
    rest().await;
    landed(pod.append(&s, tell("b")).await);
    assert_silent(&mut reader).await;
    pod.append(&s, close()).await.unwrap();
    pod.delete(&s).await.unwrap();
    assert_silent(&mut reader).await;
    landed(pod.append(&f, tell("x")).await);
    assert_eq!(take(&mut reader, 1).await, ["x"]);
    pod.delete(&f).await.unwrap();
    assert!(matches!(in_time(reader.next()).await, Event::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_fork_of_unknown_fate_is_settled_and_keeps_its_source() {
    for fault in [AppendFault::AnswerLost, AppendFault::LandsLater] {
        let store = store();
        let pod = Pod::new(&store);
        let (s, f) = (key("source"), key("fork"));
        source(&pod, &s, &["a"]).await;
        store.faults_of(&s).next_append(fault.clone());
        store.faults_of(&f).next_append(fault);
        assert!(in_time(pod.create(&f, fork(&s))).await.unwrap().fresh);
        assert!(store.release_held().iter().all(Result::is_err));
        pod.delete(&s).await.unwrap();
        assert_eq!(read(&Pod::new(&store), &f).await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_reference_is_found_by_the_sweep() {
    let store = store();
    let (pod, s) = (Pod::new(&store), key("source"));
    source(&pod, &s, &["a"]).await;
    // What a pod leaves that dies between the reference and its fork, or of whose fork nobody ever hears again.
    let f = key("fork");
    let lost = f.clone();
    store.on_append(move |key, _| (*key == lost).then_some(AppendFault::LandsLater));
    let answer = in_time(pod.create(&f, fork(&s))).await;
    assert!(matches!(answer, Err(OpError::OutcomeUnknown)), "{answer:?}");
    store.forget_held();
    store.on_append(|_, _| None);
    assert_eq!(references(&store, &s), 1);
    pod.delete(&s).await.unwrap();
    assert!(matches!(pod.head(&s).await, Err(OpError::Refused(Refusal::SoftDeleted))));
    sleep(Duration::from_secs(3600 * 3)).await;
    assert!(matches!(pod.head(&s).await, Err(OpError::Refused(Refusal::NotFound))));
    assert!(store.records(&s).len() <= 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_end_of_a_fork_leaves_to_be_done_waits_for_the_store() {
    let store = store();
    let (pod, source, forked) = (Pod::new(&store), key("source"), key("fork"));
    pod.create(&source, holding(&["a"])).await.unwrap();
    pod.create(&forked, fork(&source)).await.unwrap();
    pod.delete(&source).await.unwrap();
    rest().await;
    let gate = Gate::new();
    store.faults_of(&forked).next_append(AppendFault::PauseAfter(Pause::At(gate.clone())));
    let goes_away = async {
        gate.arrived().await;
        store.set_outage(Outage::Refusing);
        gate.open();
    };
    let (deleted, ()) = in_time(join(pod.delete(&forked), goes_away)).await;
    deleted.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(store.records(&source).len() > 1, "the store was to be away");
    store.set_outage(Outage::Over);
    sleep(Duration::from_secs(60)).await;
    assert!(store.records(&source).len() <= 1, "{:?}", store.records(&source));
}
