//! Streams that native S2 writers write, beside the gateway or without it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use tailwater_fanout::{Config, Create, Event, ForkFrom, ForkPoint, NewVisibility, OpError, Post, SourceAccess};
use tailwater_log::{HEADER, Header, NewRecord, Refusal, Visibility};
use tailwater_protocol::{Offset, ReadOffset};
use tailwater_testkit::{
    Gate,
    fault::{AppendFault, Pause},
};
use tailwater_upstream::Append;
use tokio::time::timeout;

use crate::harness::*;

fn as_text() -> Config {
    Config { native_content_type: text(), ..Config::default() }
}

#[tokio::test(start_paused = true)]
async fn a_native_stream_is_read_without_a_word_written_to_it() {
    let store = store();
    let (pod, key) = (Pod::with(&store, as_text()), key("s"));
    store.append_native(&key, ["a", "b"]);
    let head = pod.head(&key).await.unwrap();
    assert_eq!((head.birth, head.content_type.clone(), head.closed), (0, text(), false));
    assert_eq!(head.tail, Offset { birth: 0, seq: 2 });
    assert_eq!(read(&pod, &key).await, ["a", "b"]);
    let mut reader = pod.follow(&key, ReadOffset::At(Offset { birth: 0, seq: 1 })).await.unwrap();
    assert_eq!(take(&mut reader, 1).await, ["b"]);
    store.append_native(&key, ["c"]);
    assert_eq!(take(&mut reader, 1).await, ["c"]);
    assert_eq!(store.records(&key).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_which_nobody_has_said_it_is_seen_by_whom_the_settings_say_adopted_or_not() {
    for undeclared_visibility in [Visibility::Public, Visibility::Private] {
        let store = store();
        let (pod, key) = (Pod::with(&store, Config { undeclared_visibility, ..as_text() }), key("s"));
        store.append_native(&key, ["a"]);
        assert_eq!(pod.head(&key).await.unwrap().visibility, undeclared_visibility);
        landed(pod.append(&key, by(claim("p", 0, 0), tell("b"))).await);
        assert_eq!(pod.head(&key).await.unwrap().visibility, undeclared_visibility);
        let elsewhere = Pod::new(&store);
        assert_eq!(elsewhere.head(&key).await.unwrap().visibility, Visibility::Public, "the log says nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_anybody_was_asked_for_a_token_is_not_public_for_that() {
    let store = store();
    let (open, [undeclared, declared, fork]) = (Pod::new(&store), ["undeclared", "declared", "fork"].map(key));
    let visibility = NewVisibility::Declared(Visibility::Public);
    open.create(&undeclared, plain()).await.unwrap();
    open.create(&declared, Create { visibility, ..plain() }).await.unwrap();
    let access = SourceAccess::Any;
    let from = ForkFrom { source: undeclared.clone(), at: ForkPoint::Tail, sub_offset: 0, access };
    open.create(&fork, Create { fork: Some(from), ..plain() }).await.unwrap();
    let closed = Pod::with(&store, Config { undeclared_visibility: Visibility::Private, ..Config::default() });
    for (key, seen) in
        [(&undeclared, Visibility::Private), (&declared, Visibility::Public), (&fork, Visibility::Private)]
    {
        assert_eq!(open.head(key).await.unwrap().visibility, Visibility::Public, "{key}");
        assert_eq!(closed.head(key).await.unwrap().visibility, seen, "{key}");
    }
    assert!(!closed.create(&undeclared, plain()).await.unwrap().fresh, "it is there");
}

#[tokio::test(start_paused = true)]
async fn a_native_stream_of_many_records_is_activated_from_its_end() {
    let store = store();
    let (pod, key) = (Pod::with(&store, as_text()), key("s"));
    let bodies = numbered(0..3_000);
    for chunk in bodies.chunks(1_000) {
        store.append_native(&key, chunk.to_vec());
    }
    assert_eq!(pod.head(&key).await.unwrap().tail.seq, 3_000);
    assert!(store.counts().reads <= 3, "{}", store.counts().reads);
    assert_eq!(read(&pod, &key).await, bodies);
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    assert_eq!(take(&mut reader, 3_000).await, bodies);
}

#[tokio::test(start_paused = true)]
async fn the_first_append_through_a_gateway_adopts_what_stands_before() {
    let store = store();
    let (pod, other, key) = (Pod::with(&store, as_text()), Pod::with(&store, as_text()), key("s"));
    store.append_native(&key, ["0", "1"]);
    let native = Offset { birth: 0, seq: 1 };
    let mut readers = [
        pod.follow(&key, ReadOffset::Start).await.unwrap(),
        other.follow(&key, ReadOffset::At(native)).await.unwrap(),
        other.follow(&key, ReadOffset::Now).await.unwrap(),
    ];
    rest().await;
    let next = landed(pod.append(&key, by(claim("p", 0, 0), tell("2"))).await);
    assert!(next.birth > 0);
    assert!(store.token(&key).unwrap().starts_with("o."));
    for pod in [&pod, &other] {
        assert_eq!(read(pod, &key).await, numbered(0..3));
        assert_eq!(read_from(pod, &key, ReadOffset::At(native)).await.unwrap(), ["1", "2"]);
        assert_eq!(pod.head(&key).await.unwrap().tail, next);
    }
    let expected = [numbered(0..3), numbered(1..3), numbered(2..3)];
    for (reader, expected) in readers.iter_mut().zip(expected) {
        assert_eq!(take(reader, expected.len()).await, expected);
    }
    landed(other.append(&key, by(claim("p", 0, 1), tell("3"))).await);
    store.append_native(&key, ["4"]);
    for reader in &mut readers {
        assert_eq!(take(reader, 2).await, ["3", "4"]);
    }
    assert_eq!(read(&Pod::with(&store, as_text()), &key).await, numbered(0..5));
}

#[tokio::test(start_paused = true)]
async fn two_pods_that_adopt_a_native_stream_at_once_agree() {
    let store = store();
    let (pod, other, key) = (Pod::with(&store, as_text()), Pod::with(&store, as_text()), key("s"));
    store.append_native(&key, ["0"]);
    pod.head(&key).await.unwrap();
    other.head(&key).await.unwrap();
    let posts = join(pod.append(&key, tell("1")), other.append(&key, tell("2")));
    let (one, two) = in_time(posts).await;
    assert_eq!(landed(one).birth, landed(two).birth);
    assert_eq!(read(&pod, &key).await, numbered(0..3));
    assert_eq!(read(&other, &key).await, numbered(0..3));
}

#[tokio::test(start_paused = true)]
async fn a_native_stream_can_be_deleted_and_its_name_used() {
    let store = store();
    let (pod, key) = (Pod::with(&store, as_text()), key("s"));
    store.append_native(&key, ["a"]);
    let created = pod.create(&key, plain()).await.unwrap();
    assert!(!created.fresh, "it exists with this configuration");
    pod.delete(&key).await.unwrap();
    assert!(matches!(pod.head(&key).await, Err(OpError::Refused(Refusal::NotFound))));
    assert!(pod.create(&key, holding(&["b"])).await.unwrap().fresh);
    assert_eq!(read(&pod, &key).await, ["b"]);
    let error = pod.read(&key, ReadOffset::At(Offset { birth: 0, seq: 0 })).await.unwrap_err();
    assert!(matches!(error, OpError::Misplaced(_)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_a_stream_that_a_native_writer_has_fenced() {
    let store = store();
    let (pod, key) = (Pod::with(&store, as_text()), key("s"));
    store.append_native(&key, ["a"]);
    store.land(&key, Append::new(vec![NewRecord::fence("leader-1")])).unwrap();
    let before = store.records(&key);
    assert_eq!(read(&pod, &key).await, ["a"]);
    let fenced = |error: OpError| assert!(matches!(error, OpError::Refused(Refusal::Fenced)), "{error:?}");
    fenced(pod.append(&key, tell("x")).await.unwrap_err());
    fenced(pod.append(&key, close()).await.unwrap_err());
    fenced(pod.delete(&key).await.unwrap_err());
    assert_eq!(store.records(&key), before);
}

#[tokio::test(start_paused = true)]
async fn native_records_that_would_break_a_json_stream_are_skipped_and_counted() {
    let store = store();
    let config = Config { native_content_type: json(), ring_bytes: 1, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    store.append_native(&key, ["1", "{broken", "[2]", ""]);
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    assert_eq!(take(&mut reader, 2).await, ["1", "[2]"]);
    store.append_native(&key, ["also broken", "3"]);
    assert_eq!(take(&mut reader, 1).await, ["3"]);
    landed(pod.append(&key, Post { content_type: Some(json()), ..tell("4") }).await);
    store.append_native(&key, ["broken again"]);
    landed(pod.append(&key, Post { content_type: Some(json()), ..tell("5") }).await);
    assert_eq!(take(&mut reader, 2).await, ["4", "5"]);
    assert_eq!(read(&pod, &key).await, ["1", "[2]", "3", "4", "5"]);
    assert!(pod.metric("tailwater_unserved_records_total") >= 2.0);
}

#[tokio::test(start_paused = true)]
async fn what_native_writers_append_behind_a_closure_is_counted_and_not_served() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    pod.append(&key, close()).await.unwrap();
    let tail = pod.head(&key).await.unwrap().tail;
    store.append_native(&key, ["late", "later"]);
    assert_eq!(take_all(&mut reader).await, ["a"]);
    for pod in [&pod, &Pod::new(&store)] {
        assert_eq!(read(pod, &key).await, ["a"]);
        assert_eq!(pod.head(&key).await.unwrap().tail, tail);
    }
    assert_eq!(pod.metric("tailwater_unserved_records_total"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_ends_its_stream_and_no_other() {
    let store = store();
    let (pod, key, sound) = (Pod::new(&store), key("s"), key("sound"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    pod.create(&sound, holding(&["b"])).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    let header = Header { name: Bytes::from_static(HEADER), value: Bytes::from_static(&[1, 200, 0]) };
    let forged = NewRecord { headers: vec![header], body: Bytes::new() };
    let seq = store.land(&key, Append::new(vec![forged])).unwrap().start.seq;
    match in_time(reader.next()).await {
        Event::Failed(OpError::Unreadable { seq: at }) => assert_eq!(at, seq),
        other => panic!("it should have failed: {other:?}"),
    }
    for _ in 0..2 {
        let error = in_time(pod.head(&key)).await.unwrap_err();
        assert!(matches!(error, OpError::Unreadable { seq: at } if at == seq), "{error:?}");
        assert!(!error.is_retryable());
    }
    assert!(matches!(pod.append(&key, tell("x")).await, Err(OpError::Unreadable { .. })));
    assert_eq!(
        pod.metric("tailwater_quarantined_total"),
        1.0,
        "found out and logged once, however often it is asked for"
    );
    assert_eq!(read(&pod, &sound).await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_meets_an_unreadable_record_on_its_way_is_told_so() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    let header = Header { name: Bytes::from_static(HEADER), value: Bytes::from_static(&[9, 9, 9]) };
    let forged = NewRecord { headers: vec![header], body: Bytes::new() };
    store.land(&key, Append::new(vec![forged])).unwrap();
    let error = in_time(pod.head(&key)).await.unwrap_err();
    assert!(matches!(error, OpError::Unreadable { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_refused_when_its_stream_cannot_be_read_is_told_so_at_once() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let _reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    let gate = Gate::new();
    store.faults().next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let breaks = async {
        gate.arrived().await;
        let header = Header { name: Bytes::from_static(HEADER), value: Bytes::from_static(&[1, 200, 0]) };
        let forged = NewRecord { headers: vec![header], body: Bytes::new() };
        store.land(&key, Append::new(vec![NewRecord::fence("of another"), forged])).unwrap();
        rest().await;
        gate.open();
    };
    let (answer, ()) = timeout(Duration::from_secs(5), join(pod.append(&key, tell("a")), breaks)).await.unwrap();
    assert!(matches!(answer, Err(OpError::Unreadable { .. })), "{answer:?}");
}
