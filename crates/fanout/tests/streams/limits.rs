//! Limits: what is beyond one is refused at once, counted, and everybody else is served as before.

use futures_util::future::{join, join_all};
use tailwater_fanout::{Config, OpError};
use tailwater_protocol::ReadOffset;
use tailwater_testkit::{
    Gate,
    fault::{Pause, ReadFault},
};

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn a_reader_too_many_is_refused_and_one_who_leaves_makes_room() {
    let store = store();
    let config = Config { max_readers_per_stream: 2, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let first = pod.follow(&key, ReadOffset::Now).await.unwrap();
    let _second = pod.follow(&key, ReadOffset::Now).await.unwrap();
    let refused = pod.follow(&key, ReadOffset::Now).await.err().unwrap();
    assert!(matches!(refused, OpError::TooManyReaders { limit: 2 }), "{refused:?}");
    assert_eq!(pod.refused("readers_per_stream"), 1.0);
    pod.create(&self::key("other"), plain()).await.unwrap();
    pod.follow(&self::key("other"), ReadOffset::Now).await.unwrap();
    pod.head(&key).await.unwrap();
    drop(first);
    pod.follow(&key, ReadOffset::Now).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_fewer_readers_than_there_may_be_is_heard() {
    let store = store();
    let config = Config { max_readers_per_stream: 3, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let _first = pod.follow_among(&key, ReadOffset::Now, 1).await.unwrap();
    let refused = pod.follow_among(&key, ReadOffset::Now, 1).await.err().unwrap();
    assert!(matches!(refused, OpError::TooManyReaders { limit: 1 }), "{refused:?}");
    let _others = [pod.follow(&key, ReadOffset::Now).await.unwrap(), pod.follow(&key, ReadOffset::Now).await.unwrap()];
    let refused = pod.follow_among(&key, ReadOffset::Now, 9).await.err().unwrap();
    assert!(matches!(refused, OpError::TooManyReaders { limit: 3 }), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_let_in_is_not_one_too_many_when_it_joins_again() {
    let store = store();
    let config = Config { max_readers_per_stream: 1, ring_bytes: 1, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    // More than the doorbell holds: it goes back to the ring, to history, and joins again.
    for body in numbered(0..300) {
        landed(pod.append(&key, tell(&body)).await);
    }
    assert_eq!(take(&mut reader, 300).await, numbered(0..300));
    assert!(pod.metric("tailwater_reader_rejoins_total") >= 1.0);
    assert_eq!(pod.refused("readers_per_stream"), 0.0);
    assert!(pod.follow(&key, ReadOffset::Now).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_may_wait_for_the_present_are_refused_and_the_rest_answered() {
    let store = store();
    let config = Config { max_waiting_requests: 20, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    let gate = Gate::new();
    store.faults_of(&key).next_tail(ReadFault::PauseBefore(Pause::At(gate.clone())));
    let heads = join_all((0..30).map(|_| pod.head(&key)));
    let joins = join_all((0..20).map(|_| pod.follow(&key, ReadOffset::Now)));
    let opened = async {
        gate.arrived().await;
        rest().await;
        gate.open();
    };
    let ((heads, joins), ()) = in_time(join(join(heads, joins), opened)).await;
    let busy = |error: &OpError| matches!(error, OpError::StreamBusy);
    assert_eq!(heads.iter().filter(|answer| answer.is_ok()).count(), 20, "those who came first");
    assert_eq!(heads.iter().filter(|answer| answer.as_ref().is_err_and(busy)).count(), 10);
    assert!(joins.iter().all(|answer| answer.as_ref().is_err_and(busy)));
    assert_eq!(pod.refused("waiting_requests"), 30.0);
    pod.head(&key).await.unwrap();
    assert_eq!(read(&pod, &key).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn each_limit_counts_whom_it_refuses() {
    let store = own_store();
    let config = Config { max_streams: 1, max_waiting: 0, ..Config::default() };
    let pod = Pod::with(&store, config);
    store.append_native(&key("a"), ["a"]);
    pod.head(&key("a")).await.unwrap();
    assert!(matches!(pod.head(&key("b")).await, Err(OpError::TooManyStreams)));
    assert_eq!(pod.refused("streams"), 1.0);
    assert!(matches!(pod.append(&key("a"), tell("b")).await, Err(OpError::StreamBusy)));
    assert_eq!(pod.refused("waiting_writes"), 1.0);
    assert_eq!(pod.metric("tailwater_requests_refused_total"), 2.0);
}
