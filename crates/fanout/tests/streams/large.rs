//! Bodies larger than one batch of the store: one message at one position, whole or not there at all.

use bytes::Bytes;
use futures_util::future::join;
use tailwater_fanout::{Config, Create, OpError, Post};
use tailwater_protocol::ReadOffset;
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{AppendFault, Pause},
};

use crate::harness::*;

const MIB: usize = 1024 * 1024;
/// The appends that a body of three MiB takes: four pieces and the commit.
const APPENDS: usize = 5;

fn large_text() -> String {
    (0..3 * MIB / 8).map(|n| format!("{n:07} ")).collect()
}

fn post(body: &str) -> Post {
    Post { messages: vec![Bytes::copy_from_slice(body.as_bytes())], ..tell("") }
}

fn many_values() -> (Post, String) {
    let values: Vec<Bytes> = (0..5_000).map(|n| Bytes::from(n.to_string())).collect();
    let joined = numbered(0..5_000).join(",");
    (Post { messages: values, content_type: Some(json()), ..tell("") }, joined)
}

/// Lets all appends to a store pass until the `nth` from now on, which meets a fault.
fn fail_the(store: &ScriptedUpstream, nth: usize, fault: AppendFault) {
    let mut left = nth;
    store.on_append(move |_, _| {
        left = left.wrapping_sub(1);
        (left == 0).then(|| fault.clone())
    });
}

#[tokio::test(start_paused = true)]
async fn a_large_body_is_one_message_however_it_is_read() {
    for store in [store(), own_store()] {
        let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
        let before = pod.create(&key, holding(&["before"])).await.unwrap().head.tail;
        let mut live = pod.follow(&key, ReadOffset::Now).await.unwrap();
        let mut elsewhere = other.follow(&key, ReadOffset::Now).await.unwrap();
        rest().await;
        let body = large_text();
        let end = landed(in_time(pod.append(&key, post(&body))).await);
        landed(pod.append(&key, tell("after")).await);
        for reader in [&mut live, &mut elsewhere] {
            assert!(take(reader, 2).await == [body.clone(), "after".to_owned()]);
        }
        for pod in [&pod, &other, &Pod::new(&store)] {
            assert!(read(pod, &key).await == ["before".to_owned(), body.clone(), "after".to_owned()]);
            let page = pod.read(&key, ReadOffset::At(before)).await.unwrap();
            assert!(strings(&page.messages)[0] == body);
            assert_eq!(read_from(pod, &key, ReadOffset::At(end)).await.unwrap(), ["after"]);
            let mut late = pod.follow(&key, ReadOffset::At(before)).await.unwrap();
            assert!(take(&mut late, 2).await == [body.clone(), "after".to_owned()]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_of_json_values_are_one_commit() {
    let store = store();
    let config = Config { ring_bytes: 1, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, Create { content_type: Some(json()), ..plain() }).await.unwrap();
    let mut live = pod.follow(&key, ReadOffset::Now).await.unwrap();
    let (values, joined) = many_values();
    landed(in_time(pod.append(&key, values)).await);
    assert_eq!(take(&mut live, 1).await, std::slice::from_ref(&joined));
    assert_eq!(read(&Pod::new(&store), &key).await, [joined]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_can_be_created_with_a_large_body_and_closed_with_one() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    let body = large_text();
    for _ in 0..2 {
        let create = Create { messages: vec![Bytes::from(body.clone())], ..plain() };
        let created = in_time(pod.create(&key, create)).await.unwrap();
        assert!(created.fresh);
        let last = Post { close: true, ..post(&body) };
        in_time(pod.append(&key, last)).await.unwrap();
        for pod in [&pod, &Pod::new(&store)] {
            assert!(read(pod, &key).await == [body.clone(), body.clone()]);
            assert!(pod.head(&key).await.unwrap().closed);
        }
        pod.delete(&key).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_body_carries_its_producers_claim_once() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let body = large_text();
    landed(in_time(pod.append(&key, by(claim("p", 0, 0), post(&body)))).await);
    let pieces = store.records(&key).len();
    let again = pod.append(&key, by(claim("p", 0, 0), post(&body))).await.unwrap();
    assert!(matches!(again, tailwater_fanout::Appended::Duplicate { highest: 0, .. }));
    assert_eq!(store.records(&key).len(), pieces, "what is refused appends no pieces");
    assert_eq!(read(&pod, &key).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fault_among_the_pieces_leaves_nothing_visible_and_the_next_try_works() {
    for fault in [AppendFault::NotSent, AppendFault::Busy { retry_after: None }, AppendFault::Refused] {
        for nth in 1..=APPENDS {
            let store = store();
            let (pod, key) = (Pod::new(&store), key("s"));
            let tail = pod.create(&key, holding(&["before"])).await.unwrap().head.tail;
            fail_the(&store, nth, fault.clone());
            let body = large_text();
            let answer = in_time(pod.append(&key, post(&body))).await;
            assert!(answer.is_err(), "{fault:?} at {nth}: {answer:?}");
            for pod in [&pod, &Pod::new(&store)] {
                assert_eq!(read(pod, &key).await, ["before"]);
                assert_eq!(pod.head(&key).await.unwrap().tail, tail);
            }
            landed(in_time(pod.append(&key, post(&body))).await);
            assert!(read(&pod, &key).await == ["before".to_owned(), body]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_and_commits_of_unknown_fate_are_settled() {
    for fault in [AppendFault::AnswerLost, AppendFault::LandsLater] {
        for nth in 1..=APPENDS {
            let store = store();
            let (pod, key) = (Pod::new(&store), key("s"));
            pod.create(&key, plain()).await.unwrap();
            fail_the(&store, nth, fault.clone());
            let body = large_text();
            landed(in_time(pod.append(&key, post(&body))).await);
            assert!(store.release_held().iter().all(Result::is_err));
            for pod in [&pod, &Pod::new(&store)] {
                assert!(read(pod, &key).await == [body.clone()], "{fault:?} at {nth}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn others_append_between_the_pieces() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = Gate::new();
    fail_the(&store, 2, AppendFault::PauseBefore(Pause::At(gate.clone())));
    let body = large_text();
    let between = async {
        gate.arrived().await;
        landed(other.append(&key, tell("between")).await);
        gate.open();
    };
    let (answer, ()) = in_time(join(pod.append(&key, post(&body)), between)).await;
    landed(answer);
    for pod in [&pod, &other, &Pod::new(&store)] {
        assert!(read(pod, &key).await == ["between".to_owned(), body.clone()]);
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_that_went_with_an_earlier_life_are_appended_again() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = Gate::new();
    // The commit waits while the stream is deleted and created again.
    fail_the(&store, APPENDS, AppendFault::PauseBefore(Pause::At(gate.clone())));
    let body = large_text();
    let next_life = async {
        gate.arrived().await;
        other.delete(&key).await.unwrap();
        other.create(&key, holding(&["of the next life"])).await.unwrap();
        gate.open();
    };
    let (answer, ()) = in_time(join(pod.append(&key, post(&body)), next_life)).await;
    match answer {
        Ok(_) => assert!(read(&pod, &key).await == ["of the next life".to_owned(), body]),
        Err(OpError::Refused(_)) => assert_eq!(read(&pod, &key).await, ["of the next life"]),
        Err(other) => panic!("{other:?}"),
    }
}
