//! Readers across interruptions: sessions that break, actors that come and go, trims, other pods.

use std::time::Duration;

use futures_util::future::{join, join_all};
use tailwater_fanout::{Config, Event, OpError};
use tailwater_log::{BatchBuilder, BatchId, Condition, NewRecord, Refusal, StreamState};
use tailwater_protocol::ReadOffset;
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{Pause, ReadFault, SessionFault},
};
use tailwater_upstream::{Append, StreamKey};

use crate::harness::*;

/// What retention does: a checkpoint, and a trim before it.
fn retain_from(store: &ScriptedUpstream, key: &StreamKey, from: u64) {
    let mut state = StreamState::default();
    for record in store.records(key) {
        state.apply(&record).unwrap();
    }
    let mut batch = BatchBuilder::new(&state, BatchId { writer: 1, counter: 1 });
    batch.checkpoint();
    let mut records = batch.finish(Condition::Token).records;
    records.push(NewRecord::trim(from));
    store.land(key, Append::new(records)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_outlives_its_sessions() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    let mut seen = Vec::new();
    for n in 0..60 {
        match n % 6 {
            0 => {
                store.cut_sessions(&key);
            }
            2 => {
                store.stall_sessions(&key);
            }
            4 => store.resume_sessions(&key),
            5 => {
                store.faults().next_session(SessionFault::Cut);
            }
            _ => tokio::time::sleep(Duration::from_millis(300)).await,
        }
        let writer = if n % 2 == 0 { &pod } else { &other };
        landed(writer.append(&key, tell(&n.to_string())).await);
        if n % 10 == 9 {
            store.resume_sessions(&key);
            seen.extend(take(&mut reader, n + 1 - seen.len()).await);
        }
    }
    assert_eq!(seen, numbered(0..60));
    assert_silent(&mut reader).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_sees_what_other_pods_and_native_writers_append() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    landed(other.append(&key, say(&["0", "1"])).await);
    store.append_native(&key, ["2", "3"]);
    landed(pod.append(&key, tell("4")).await);
    assert_eq!(take(&mut reader, 5).await, numbered(0..5));
    assert_eq!(read(&pod, &key).await, numbered(0..5));
}

#[tokio::test(start_paused = true)]
async fn an_idle_actor_retires_and_the_next_one_goes_on_where_it_was() {
    let store = store();
    let idle = Duration::from_secs(20);
    let (pod, key) = (Pod::with(&store, Config { idle, ..Config::default() }), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut tail = pod.head(&key).await.unwrap().tail;
    for n in 0..5 {
        assert_eq!(pod.metric("tailwater_active_streams"), 1.0);
        tokio::time::sleep(idle + Duration::from_secs(1)).await;
        assert_eq!(pod.metric("tailwater_active_streams"), 0.0);
        assert_eq!(pod.metric("tailwater_ring_bytes"), 0.0);
        assert_eq!(pod.head(&key).await.unwrap().tail, tail);
        tail = landed(pod.append(&key, by(claim("p", 0, n), tell(&n.to_string()))).await);
        assert_eq!(read(&pod, &key).await.len(), usize::try_from(n).unwrap() + 1);
    }
    assert_eq!(pod.metric("tailwater_activations_total"), 6.0);
}

#[tokio::test(start_paused = true)]
async fn an_actor_with_a_reader_does_not_retire() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    tokio::time::sleep(Config::default().idle * 10).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 1.0);
    landed(pod.append(&key, tell("a")).await);
    assert_eq!(take(&mut reader, 1).await, ["a"]);
    drop(reader);
    tokio::time::sleep(Config::default().idle * 3).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 0.0);
    assert_eq!(store.counts().sessions_open, 0);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_retires_under_a_request_hands_it_on() {
    let store = store();
    let idle = Duration::from_millis(100);
    let config = Config { idle, linger: idle, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    // Requests at just the time at which actors retire.
    for n in 0..200 {
        tokio::time::sleep(idle - Duration::from_millis(1) + Duration::from_micros(n * 10)).await;
        landed(pod.append(&key, tell(&n.to_string())).await);
    }
    assert!(pod.metric("tailwater_activations_total") > 1.0);
    assert_eq!(read(&pod, &key).await, numbered(0..200));
}

/// Somebody asks for what is not there.
async fn assert_missing(pod: &Pod, key: &StreamKey) {
    let error = in_time(pod.head(key)).await.unwrap_err();
    assert!(matches!(error, OpError::Refused(Refusal::NotFound)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn names_of_which_the_store_holds_nothing_take_the_place_of_streams_for_a_second() {
    let store = store();
    let pod = Pod::with(&store, Config { max_streams: 3, ..Config::default() });
    pod.create(&key("s"), plain()).await.unwrap();
    assert_missing(&pod, &key("made up")).await;
    assert_missing(&pod, &key("made up, too")).await;
    assert!(matches!(pod.head(&key("one too many")).await, Err(OpError::TooManyStreams)));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 3.0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 1.0);
    assert!(pod.create(&key("one too many"), plain()).await.unwrap().fresh);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 2.0, "what is there stays as ever");
}

#[tokio::test(start_paused = true)]
async fn however_often_a_missing_name_is_asked_for_it_costs_one_activation_a_second_at_most() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("made up"));
    let gate = Gate::new();
    store.faults_of(&key).next_read(ReadFault::PauseBefore(Pause::At(gate.clone())));
    let crowd = join_all((0..500).map(|_| assert_missing(&pod, &key)));
    let opened = async {
        gate.arrived().await;
        // Longer than a name keeps its actor, and no less than an activation may take.
        tokio::time::sleep(Duration::from_secs(5)).await;
        gate.open();
    };
    join(crowd, opened).await;
    assert_eq!(pod.metric("tailwater_activations_total"), 1.0, "all who wait are answered by one");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_missing(&pod, &key).await;
    }
    assert_eq!(pod.metric("tailwater_activations_total"), 1.0);
    for n in 0..10 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_missing(&pod, &key).await;
        assert_eq!(pod.metric("tailwater_activations_total"), f64::from(n + 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_comes_while_the_actor_of_a_missing_name_goes_creates() {
    let pod = Pod::new(&store());
    for n in 0..200 {
        let key = key(&n.to_string());
        assert_missing(&pod, &key).await;
        // At just the time at which that retires.
        tokio::time::sleep(Duration::from_millis(999) + Duration::from_micros(n * 10)).await;
        assert!(in_time(pod.create(&key, holding(&["a"]))).await.unwrap().fresh);
        landed(pod.append(&key, tell("b")).await);
        assert_eq!(read(&pod, &key).await, ["a", "b"]);
    }
    let activations = pod.metric("tailwater_activations_total");
    assert!(activations > 200.0 && activations < 400.0, "some came before and some behind: {activations}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_stream_keeps_its_actor_as_ever() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    pod.delete(&key).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_missing(&pod, &key).await;
    tokio::time::sleep(Config::default().idle - Duration::from_secs(1)).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 1.0);
    assert_eq!(pod.metric("tailwater_activations_total"), 1.0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_before_a_trim_is_reset_to_what_is_left() {
    let store = store();
    let config = Config { ring_bytes: 1, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    let early = pod.create(&key, holding(&["0"])).await.unwrap().head.tail;
    for n in 1..10 {
        landed(pod.append(&key, tell(&n.to_string())).await);
    }
    let mut reader = pod.follow(&key, ReadOffset::At(early)).await.unwrap();
    let left = pod.head(&key).await.unwrap().tail.seq - 3;
    retain_from(&store, &key, left);
    match in_time(reader.next()).await {
        Event::Reset { earliest } => assert_eq!(earliest.seq, left),
        other => panic!("it should have been reset: {other:?}"),
    }
    assert_eq!(read(&pod, &key).await, numbered(7..10), "from the start is from what is left");
    let error = pod.read(&key, ReadOffset::At(early)).await.unwrap_err();
    assert!(matches!(error, OpError::Misplaced(tailwater_log::Misplaced::Gone { .. })), "{error:?}");
    assert!(pod.follow(&key, ReadOffset::At(early)).await.is_err());
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    assert_eq!(take(&mut reader, 3).await, numbered(7..10));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_crosses_a_trim_makes_the_pod_look_at_the_log_anew() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, holding(&["0"])).await.unwrap();
    let mut at_tail = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    store.stall_sessions(&key);
    for n in 1..10 {
        landed(other.append(&key, tell(&n.to_string())).await);
    }
    let tail = other.head(&key).await.unwrap().tail;
    retain_from(&store, &key, tail.seq - 2);
    store.resume_sessions(&key);
    match in_time(at_tail.next()).await {
        Event::Reset { earliest } => assert_eq!(earliest.seq, tail.seq - 2),
        other => panic!("it should have been reset: {other:?}"),
    }
    assert!(pod.metric("tailwater_resets_total") >= 1.0);
    assert_eq!(read(&pod, &key).await, ["8", "9"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_keeps_its_stream_when_its_actor_goes_though_its_project_has_too_many() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, holding(&["0"])).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    pod.allot_by(only_what_is_owed());
    store.stall_sessions(&key);
    for n in 1..10 {
        landed(other.append(&key, tell(&n.to_string())).await);
    }
    let tail = other.head(&key).await.unwrap().tail;
    retain_from(&store, &key, tail.seq - 2);
    // The actor has to look at the log anew, and cannot.
    store.faults_of(&key).next_read(ReadFault::Refused);
    store.resume_sessions(&key);
    assert!(matches!(in_time(reader.next()).await, Event::Reset { .. }));
    assert_eq!(pod.metric("tailwater_activations_total"), 3.0, "one of them failed, and the next is of another actor");
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_stream_was_reaped_behind_a_stalled_session_is_told() {
    for begun_anew in [false, true] {
        let store = store();
        let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
        pod.create(&key, holding(&["a", "b", "c"])).await.unwrap();
        let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
        rest().await;
        store.stall_sessions(&key);
        other.delete(&key).await.unwrap();
        rest().await;
        store.land(&key, Append::new(vec![NewRecord::trim(u64::MAX)])).unwrap();
        assert!(store.reap(&key));
        if begun_anew {
            other.create(&key, holding(&["of the next life"])).await.unwrap();
        }
        store.resume_sessions(&key);
        let event = in_time(reader.next()).await;
        assert!(matches!(event, Event::Gone | Event::Reset { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readers_end_with_the_gateway() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    pod.begin_shutdown();
    let event = in_time(reader.next()).await;
    assert!(matches!(event, Event::Failed(OpError::Draining)), "{event:?}");
    drop(reader);
    pod.shut_down().await;
    assert_eq!(store.counts().sessions_open, 0);
    assert!(matches!(pod.head(&key).await, Err(OpError::Draining)));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_settles_what_is_under_way_and_takes_nothing_new() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = Gate::new();
    let pause = Pause::At(gate.clone());
    store.faults().next_append(tailwater_testkit::fault::AppendFault::PauseBefore(pause));
    let shuts_down = async {
        gate.arrived().await;
        pod.begin_shutdown();
        rest().await;
        let (late, ()) = join(pod.append(&key, tell("late")), async {
            rest().await;
            gate.open();
        })
        .await;
        assert!(matches!(late, Err(OpError::Draining)), "{late:?}");
    };
    let (early, ()) = in_time(join(pod.append(&key, tell("early")), shuts_down)).await;
    landed(early);
    pod.shut_down().await;
    assert_eq!(read(&Pod::new(&store), &key).await, ["early"]);
}

#[tokio::test(start_paused = true)]
async fn however_much_a_pod_has_missed_its_ring_holds_no_more_of_it_than_a_batch() {
    let (store, key) = (store(), key("s"));
    let (pod, other) = (Pod::with(&store, Config { ring_bytes: 1, ..Config::default() }), Pod::new(&store));
    pod.create(&key, plain()).await.unwrap();
    let body = "x".repeat(900 * 1024);
    for _ in 0..6 {
        landed(other.append(&key, tell(&body)).await);
    }
    assert_eq!(pod.head(&key).await.unwrap().tail, other.head(&key).await.unwrap().tail);
    let held = pod.metric("tailwater_ring_bytes");
    // Two messages are a batch, and each is there twice: as it came and as it is sent.
    assert!((1.0..4.0 * 1024.0 * 1024.0).contains(&held), "{held}");
}
