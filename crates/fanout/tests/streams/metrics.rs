//! Metrics: each moves when it should, and gauges come back to nothing.

use std::time::Duration;

use bytes::Bytes;
use tailwater_fanout::{Config, Event, OpError};
use tailwater_log::{HEADER, Header, NewRecord};
use tailwater_protocol::ReadOffset;
use tailwater_testkit::fault::{AppendFault, Outage, ReadFault, SessionFault};
use tailwater_upstream::Append;

use crate::harness::*;

const GAUGES: [&str; 3] = ["tailwater_active_streams", "tailwater_live_readers", "tailwater_ring_bytes"];

#[tokio::test(start_paused = true)]
async fn gauges_follow_what_lives_and_are_nothing_after_a_shutdown() {
    let store = store();
    let pod = Pod::new(&store);
    let mut readers = Vec::new();
    for n in 0..5 {
        let key = key(&n.to_string());
        pod.create(&key, holding(&["a"])).await.unwrap();
        readers.push(pod.follow(&key, ReadOffset::Start).await.unwrap());
        readers.push(pod.follow(&key, ReadOffset::Now).await.unwrap());
    }
    rest().await;
    assert_eq!(pod.metric("tailwater_active_streams"), 5.0);
    assert_eq!(pod.metric("tailwater_live_readers"), 10.0);
    assert!(pod.metric("tailwater_ring_bytes") >= 5.0);
    assert_eq!(pod.metric("tailwater_activations_total"), 5.0);
    readers.truncate(4);
    assert_eq!(pod.metric("tailwater_live_readers"), 4.0);
    pod.begin_shutdown();
    for mut reader in readers {
        let behind = usize::from(reader.position() != reader.head().tail);
        take(&mut reader, behind).await;
        let event = in_time(reader.next()).await;
        assert!(matches!(event, Event::Failed(OpError::Draining)), "{event:?}");
    }
    pod.shut_down().await;
    for gauge in GAUGES {
        assert_eq!(pod.metric(gauge), 0.0, "{gauge}");
    }
    assert_eq!(store.counts().sessions_open, 0);
}

#[tokio::test(start_paused = true)]
async fn writes_are_counted_by_what_became_of_them() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    landed(pod.append(&key, tell("a")).await);
    assert_eq!(pod.writes("landed"), 2.0);
    landed(other.append(&key, tell("b")).await);
    landed(pod.append(&key, by(claim("p", 0, 0), tell("c"))).await);
    assert_eq!(pod.writes("refused"), 1.0);
    store.faults().next_append(AppendFault::NotSent);
    assert!(pod.append(&key, tell("x")).await.is_err());
    assert_eq!(pod.writes("failed"), 1.0);
    store.set_outage(Outage::Silent);
    assert!(matches!(pod.append(&key, tell("x")).await, Err(OpError::OutcomeUnknown)));
    assert_eq!(pod.writes("unknown"), 1.0);
    assert_eq!(pod.writes("landed"), 3.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_the_ordinary_is_counted() {
    let store = store();
    let config = Config { ring_bytes: 1, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    for name in ["resets_total", "history_reads_total", "reader_rejoins_total", "unserved_records_total"] {
        assert_eq!(pod.metric(&format!("tailwater_{name}")), 0.0, "{name}");
    }
    for body in ["0", "1", "2"] {
        landed(pod.append(&key, tell(body)).await);
    }
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    assert_eq!(take(&mut reader, 3).await, numbered(0..3));
    assert_eq!(pod.metric("tailwater_history_reads_total"), 1.0);
    for n in 3..103 {
        landed(pod.append(&key, tell(&n.to_string())).await);
    }
    assert_eq!(take(&mut reader, 100).await, numbered(3..103));
    assert_eq!(pod.metric("tailwater_reader_rejoins_total"), 1.0, "the doorbell does not hold that many");
    let before = pod.metric("tailwater_tail_checks_total");
    pod.head(&key).await.unwrap();
    assert_eq!(pod.metric("tailwater_tail_checks_total"), before + 1.0);

    pod.append(&key, close()).await.unwrap();
    store.append_native(&key, ["late"]);
    pod.head(&key).await.unwrap();
    assert_eq!(pod.metric("tailwater_unserved_records_total"), 1.0);

    let header = Header { name: Bytes::from_static(HEADER), value: Bytes::new() };
    store.land(&key, Append::new(vec![NewRecord { headers: vec![header], body: Bytes::new() }])).unwrap();
    assert!(pod.head(&key).await.is_err());
    assert!(pod.metric("tailwater_quarantined_total") >= 1.0);
    assert_eq!(pod.metric("tailwater_resets_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn gauges_come_back_to_nothing_through_failures_too() {
    let store = store();
    let config = Config { idle: Duration::from_secs(1), linger: Duration::from_secs(1), ..Config::default() };
    let pod = Pod::with(&store, config);
    for n in 0..20 {
        let key = key(&n.to_string());
        pod.create(&key, holding(&["a", "b"])).await.unwrap();
        match n % 4 {
            0 => drop(store.faults_of(&key).next_session(SessionFault::Fails)),
            1 => drop(store.faults_of(&key).next_session(SessionFault::Cut)),
            2 => drop(store.faults_of(&key).next_tail(ReadFault::Fails)),
            _ => drop(store.faults_of(&key).next_read(ReadFault::Fails)),
        }
        let reader = pod.follow(&key, ReadOffset::Now).await;
        tokio::time::sleep(Duration::from_millis(n * 37)).await;
        drop(reader);
        if n % 3 == 0 {
            pod.delete(&key).await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    for gauge in GAUGES {
        assert_eq!(pod.metric(gauge), 0.0, "{gauge}");
    }
    assert_eq!(store.counts().sessions_open, 0);
    pod.shut_down().await;
}
