//! Lifetimes: counted in the store's time, renewed by use, ended for all pods alike.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use tailwater_fanout::{Config, Create, Event, MachineClock, OpError};
use tailwater_log::{HEADER, Header, Kind, NewRecord, Refusal};
use tailwater_protocol::{Lifetime, ReadOffset};
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{AppendFault, Outage, Pause},
};
use tailwater_upstream::{Append, StreamKey, Upstream as _};
use tokio::time::sleep;

use crate::harness::*;

const SECOND: Duration = Duration::from_secs(1);

fn ttl(seconds: u64) -> Create {
    Create { lifetime: Some(Lifetime::Ttl { seconds }), ..holding(&["a"]) }
}

fn touches(store: &ScriptedUpstream, key: &StreamKey) -> usize {
    let is_touch = |record: &&tailwater_log::Record| {
        tailwater_log::Entry::decode(record).is_ok_and(|entry| entry.kind == Kind::Touch)
    };
    store.records(key).iter().filter(is_touch).count()
}

fn assert_not_found<T>(answer: Result<T, OpError>) {
    let error = answer.err();
    assert!(matches!(error, Some(OpError::Refused(Refusal::NotFound))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_uses_expires_for_everyone() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, ttl(8)).await.unwrap();
    other.head(&key).await.unwrap();
    sleep(SECOND * 8).await;
    // A look at the metadata is no use of the stream, and does not end it before its time.
    pod.head(&key).await.unwrap();
    other.head(&key).await.unwrap();
    sleep(SECOND * 2).await;
    assert_not_found(other.head(&key).await);
    assert!(store.token(&key).unwrap().starts_with("g."), "the answer is durable");
    assert_not_found(pod.read(&key, ReadOffset::Start).await);
    assert_not_found(pod.append(&key, tell("x")).await);
    assert_not_found(pod.delete(&key).await);
    assert!(pod.create(&key, plain()).await.unwrap().fresh);
    assert!(read(&other, &key).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_request_finds_the_end_by_itself() {
    for request in 0..6 {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        pod.create(&key, ttl(8)).await.unwrap();
        sleep(SECOND * 10).await;
        match request {
            0 => assert_not_found(pod.head(&key).await),
            1 => assert_not_found(pod.read(&key, ReadOffset::Now).await),
            2 => assert_not_found(pod.append(&key, tell("x")).await),
            3 => assert_not_found(pod.delete(&key).await),
            4 => assert_not_found(pod.follow(&key, ReadOffset::Now).await),
            _ => assert!(pod.create(&key, ttl(8)).await.unwrap().fresh),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reads_and_appends_renew_a_lifetime_and_touches_are_few() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, ttl(80)).await.unwrap();
    for _ in 0..100 {
        sleep(SECOND * 3).await;
        pod.read(&key, ReadOffset::Now).await.unwrap();
    }
    let written = touches(&store, &key);
    assert!((20..=30).contains(&written), "one for each eighth of the lifetime: {written}");
    for _ in 0..10 {
        sleep(SECOND * 60).await;
        landed(pod.append(&key, tell("b")).await);
    }
    assert_eq!(touches(&store, &key), written, "an append is a sign of use itself");
    sleep(SECOND * 91).await;
    assert_not_found(pod.head(&key).await);
}

#[tokio::test(start_paused = true)]
async fn a_read_in_the_last_fraction_waits_for_its_touch() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, ttl(80)).await.unwrap();
    sleep(SECOND * 85).await;
    let gate = Gate::new();
    store.faults_of(&key).next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let touch = async {
        gate.arrived().await;
        sleep(SECOND).await;
        assert_eq!(touches(&store, &key), 0);
        gate.open();
    };
    let read = async {
        pod.read(&key, ReadOffset::Start).await.unwrap();
        assert_eq!(touches(&store, &key), 1, "the answer comes behind the touch");
    };
    in_time(join(read, touch)).await;
    // Earlier than that it does not.
    sleep(SECOND * 30).await;
    let gate = Gate::new();
    store.faults_of(&key).next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    in_time(pod.read(&key, ReadOffset::Start)).await.unwrap();
    assert_eq!(touches(&store, &key), 1);
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn a_touch_that_fails_is_no_answer_that_the_stream_lives() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, ttl(80)).await.unwrap();
    sleep(SECOND * 85).await;
    for _ in 0..10 {
        store.faults_of(&key).next_append(AppendFault::NotSent);
    }
    let answer = in_time(pod.read(&key, ReadOffset::Start)).await;
    assert!(matches!(answer, Err(OpError::Unavailable { .. })), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn live_readers_keep_their_stream_alive_however_busy_it_is() {
    for busy in [false, true] {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        pod.create(&key, ttl(16)).await.unwrap();
        let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
        for _ in 0..600 {
            sleep(SECOND / 5).await;
            if busy {
                pod.head(&key).await.unwrap();
            }
        }
        pod.head(&key).await.unwrap();
        landed(pod.append(&key, tell("b")).await);
        assert_eq!(take(&mut reader, 1).await, ["b"]);
        drop(reader);
        sleep(SECOND * 19).await;
        assert_not_found(pod.head(&key).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_live_readers_outlives_an_outage_that_is_longer_than_its_lifetime() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, ttl(8)).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    store.set_outage(Outage::Refusing);
    sleep(SECOND * 60).await;
    store.set_outage(Outage::Over);
    landed(in_time(pod.append(&key, tell("b"))).await);
    assert_eq!(take(&mut reader, 1).await, ["b"]);
    drop(reader);
    sleep(SECOND * 60).await;
    assert_not_found(pod.head(&key).await);
}

#[tokio::test(start_paused = true)]
async fn a_date_of_expiry_never_moves_and_ends_live_readers() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    let at_ms = store.clock().now_ms() + 60_000;
    let lifetime = Some(Lifetime::ExpiresAt { at_ms });
    pod.create(&key, Create { lifetime, ..plain() }).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    for n in 0..5 {
        sleep(SECOND * 10).await;
        landed(pod.append(&key, tell(&n.to_string())).await);
        pod.read(&key, ReadOffset::Now).await.unwrap();
    }
    assert_eq!(take(&mut reader, 5).await, numbered(0..5));
    assert_eq!(touches(&store, &key), 0);
    sleep(SECOND * 9).await;
    pod.head(&key).await.unwrap();
    let event = in_time(reader.next()).await;
    assert!(matches!(event, Event::Gone), "{event:?}");
    assert!(store.clock().now_ms() < at_ms + 2_000);
    assert_not_found(pod.head(&key).await);
}

#[tokio::test(start_paused = true)]
async fn an_end_loses_against_a_write_that_came_first() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, ttl(8)).await.unwrap();
    sleep(SECOND * 10).await;
    let gate = Gate::new();
    store.faults_of(&key).next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let writes = async {
        gate.arrived().await;
        // A native writer, who knows nothing of lifetimes.
        store.append_native(&key, ["b"]);
        gate.open();
    };
    let (head, ()) = in_time(join(pod.head(&key), writes)).await;
    head.unwrap();
    assert_eq!(read(&other, &key).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_seen_no_ack_yet_finds_the_end_all_the_same() {
    let store = store();
    let key = key("s");
    Pod::new(&store).create(&key, ttl(8)).await.unwrap();
    let late = Pod::new(&store);
    late.head(&key).await.unwrap();
    store.clock().advance(SECOND * 3600);
    let fresh = Pod::new(&store);
    assert_not_found(in_time(fresh.read(&key, ReadOffset::Start)).await);
}

#[tokio::test(start_paused = true)]
async fn a_closed_stream_expires_too() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, ttl(8)).await.unwrap();
    pod.append(&key, close()).await.unwrap();
    sleep(SECOND * 5).await;
    assert_eq!(read(&pod, &key).await, ["a"]);
    sleep(SECOND * 8).await;
    assert_eq!(read(&pod, &key).await, ["a"], "the read before was a use");
    sleep(SECOND * 10).await;
    assert_not_found(pod.head(&key).await);
}

#[tokio::test(start_paused = true)]
async fn requests_that_find_the_end_together_are_all_answered() {
    let store = store();
    let pods = [Pod::new(&store), Pod::new(&store)];
    let key = key("s");
    pods[0].create(&key, ttl(8)).await.unwrap();
    pods[1].head(&key).await.unwrap();
    sleep(SECOND * 10).await;
    let requests = (0..40).map(|n| {
        let (gateway, key) = (pods[n % 2].gateway(), key.clone());
        async move {
            match n % 4 {
                0 | 1 => gateway.head(&key).await.err(),
                2 => gateway.read(&key, ReadOffset::Start).await.err(),
                _ => gateway.append(&key, tell("x")).await.err(),
            }
        }
    });
    for error in in_time(futures_util::future::join_all(requests)).await {
        assert!(matches!(error, Some(OpError::Refused(Refusal::NotFound))), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_again_is_swept() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    // From its ack the pod knows the store's time, by which streams are listed.
    pod.create(&crate::harness::key("first"), plain()).await.unwrap();
    pod.create(&key, ttl(60)).await.unwrap();
    let kept = crate::harness::key("kept");
    pod.create(&kept, ttl(60)).await.unwrap();
    let mut reader = pod.follow(&kept, ReadOffset::Now).await.unwrap();
    sleep(SECOND * 3600 * 3).await;
    assert!(store.token(&key).unwrap().starts_with("g."), "it has ended without being asked for");
    assert!(store.records(&key).len() <= 1);
    landed(pod.append(&kept, tell("b")).await);
    assert_eq!(take(&mut reader, 1).await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn logs_that_were_swept_stand_in_nobodys_way_and_cost_no_further_append() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    for n in 0..150 {
        // As a sweep leaves it, until the store reaps it.
        let log = StreamKey::new("_tailwater", &format!("expiry/00000001/{n}"));
        store.append_native(&log, ["what was listed"]);
        store.land(&log, Append::new(vec![NewRecord::trim(1)])).unwrap();
    }
    pod.create(&crate::harness::key("first"), plain()).await.unwrap();
    pod.create(&key, ttl(60)).await.unwrap();
    sleep(SECOND * 3600 * 2).await;
    assert!(store.token(&key).unwrap().starts_with("g."), "it has ended without being asked for");
    let before = store.counts().appends;
    sleep(SECOND * 3600).await;
    assert_eq!(store.counts().appends, before);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_by_a_clock_that_is_ahead_forgets_no_stream_that_is_being_opened() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&crate::harness::key("first"), plain()).await.unwrap();
    let gate = Gate::new();
    store.faults_of(&key).next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let ahead = store.clock().now_ms() + 24 * 3600 * 1000;
    let sweeps = async {
        gate.arrived().await;
        let machine_clock = MachineClock::new(move || ahead);
        let wrong = Pod::with(&store, Config { machine_clock, ..Config::default() });
        sleep(SECOND).await;
        wrong.shut_down().await;
        gate.open();
    };
    let (created, ()) = in_time(join(pod.create(&key, ttl(60)), sweeps)).await;
    assert!(created.unwrap().fresh);
    sleep(SECOND * 3600 * 2).await;
    assert!(store.token(&key).unwrap().starts_with("g."), "it has ended without being asked for");
}

#[tokio::test(start_paused = true)]
async fn a_trim_that_fails_is_made_up_for_by_the_sweep_or_by_whoever_asks_first() {
    for asked in [false, true] {
        let store = store();
        let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
        pod.create(&key, holding(&["a", "b"])).await.unwrap();
        let faults = store.faults_of(&key);
        faults.next_append(AppendFault::PauseAfter(Pause::For(Duration::ZERO)));
        faults.next_append(AppendFault::NotSent);
        pod.delete(&key).await.unwrap();
        rest().await;
        assert!(store.records(&key).len() > 1, "the trim was to fail");
        if asked {
            assert_not_found(other.head(&key).await);
            rest().await;
        } else {
            sleep(SECOND * 3600 * 2).await;
        }
        assert!(store.records(&key).len() <= 1, "asked: {asked}, {:?}", store.records(&key));
        let before = store.records(&key);
        assert_not_found(other.head(&key).await);
        assert_not_found(pod.head(&key).await);
        rest().await;
        assert_eq!(store.records(&key), before, "it is trimmed once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_looked_at_keeps_no_other_from_being_swept_and_is_listed_once() {
    let store = store();
    let pod = Pod::new(&store);
    pod.create(&key("first"), plain()).await.unwrap();
    let keys: Vec<StreamKey> = (0..40).map(|n| key(&format!("s{n}"))).collect();
    for key in &keys {
        pod.create(key, ttl(60)).await.unwrap();
    }
    for key in keys.iter().step_by(4) {
        let header = Header { name: Bytes::from_static(HEADER), value: Bytes::from_static(&[1, 200, 0]) };
        let forged = NewRecord { headers: vec![header], body: Bytes::new() };
        store.land(key, Append::new(vec![forged])).unwrap();
    }
    sleep(SECOND * 3600 * 2).await;
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(store.token(key).unwrap().starts_with("g."), n % 4 != 0, "{n}");
    }
    let listed = async || {
        let logs = store.list("_tailwater", "expiry/", "", 100).await.unwrap();
        let is_entry = |record: &tailwater_log::Record| {
            tailwater_log::Entry::decode(record).is_ok_and(|entry| matches!(entry.kind, Kind::Ref(_)))
        };
        let entries =
            |log: &String| store.records(&StreamKey::new("_tailwater", log)).iter().filter(|r| is_entry(r)).count();
        logs.iter().map(entries).sum::<usize>()
    };
    assert_eq!(listed().await, 10);
    sleep(SECOND * 3600 * 4).await;
    assert_eq!(listed().await, 10, "what is listed again is listed once");
}
