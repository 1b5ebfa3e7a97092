//! The store is away: answers say so in time, and everything goes on when it returns.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::{join, join_all};
use tailwater_fanout::{Config, OpError};
use tailwater_protocol::ReadOffset;
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{AppendFault, Outage, Pause, ReadFault},
};
use tailwater_upstream::{
    Append, AppendAck, AppendError, Page, Position, ReadError, ReadFrom, ReadSession, StreamKey, Traffic, Upstream,
};
use tokio::{sync::watch, time::Instant};

use crate::harness::*;

/// Longer than any answer may take when the store does not answer.
const PATIENCE: Duration = Duration::from_secs(35);

fn assert_away<T: std::fmt::Debug>(answer: Result<T, OpError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, OpError::Unavailable { .. } | OpError::OutcomeUnknown), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn every_request_is_answered_while_the_store_is_away_and_succeeds_when_it_is_back() {
    for outage in [Outage::Refusing, Outage::Silent] {
        for known in [false, true] {
            let store = store();
            let (pod, key) = (Pod::new(&store), key("s"));
            Pod::new(&store).create(&key, holding(&["a"])).await.unwrap();
            if known {
                pod.head(&key).await.unwrap();
            }
            store.set_outage(outage);
            let since = Instant::now();
            assert_away(pod.head(&key).await);
            assert_away(pod.read(&key, ReadOffset::Start).await);
            assert!(pod.follow(&key, ReadOffset::Now).await.is_err());
            assert_away(pod.append(&key, by(claim("p", 0, 0), tell("b"))).await);
            assert_away(pod.create(&key, plain()).await);
            assert!(since.elapsed() < PATIENCE * 5, "{:?}", since.elapsed());
            store.set_outage(Outage::Over);
            pod.head(&key).await.unwrap();
            pod.append(&key, by(claim("p", 0, 0), tell("b"))).await.unwrap();
            assert_eq!(read(&pod, &key).await, ["a", "b"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn live_readers_stay_through_an_outage_and_go_on() {
    for outage in [Outage::Refusing, Outage::Silent] {
        let store = store();
        let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
        landed(pod.append(&key, tell("0")).await);
        assert_eq!(take(&mut reader, 1).await, ["0"]);
        store.set_outage(outage);
        let waits = tokio::time::timeout(Duration::from_secs(600), reader.next()).await;
        assert!(waits.is_err(), "{waits:?}");
        store.set_outage(Outage::Over);
        landed(other.append(&key, tell("1")).await);
        landed(pod.append(&key, tell("2")).await);
        assert_eq!(take(&mut reader, 2).await, ["1", "2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_cut_off_and_claims_nothing_from_the_word_of_its_session_until_it_has_caught_up_again() {
    for other_appends in [false, true] {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
        rest().await;
        assert!(reader.is_fresh() && !reader.is_cut_off());
        assert_eq!(store.stall_sessions(&key), 1);
        rest().await;
        assert!(!reader.is_fresh() && reader.is_cut_off() && reader.is_caught_up());
        if other_appends {
            store.append_native(&key, ["a"]);
            rest().await;
            assert!(reader.is_cut_off(), "nobody here knows of it yet");
        }
        store.resume_sessions(&key);
        rest().await;
        assert!(reader.is_fresh() && !reader.is_cut_off());
        if other_appends {
            assert_eq!(take(&mut reader, 1).await, ["a"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_activation_that_fails_is_answered_and_the_next_request_tries_again() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    Pod::new(&store).create(&key, holding(&["a"])).await.unwrap();
    for fault in [ReadFault::Fails, ReadFault::Busy { retry_after: None }] {
        store.faults().next_read(fault);
        assert_away(pod.head(&key).await);
    }
    assert_eq!(read(&pod, &key).await, ["a"]);
    assert_eq!(pod.metric("tailwater_active_streams"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_activation_that_hangs_keeps_nobody_waiting_for_ever() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    Pod::new(&store).create(&key, holding(&["a"])).await.unwrap();
    let gate = Gate::new();
    store.faults().next_read(ReadFault::PauseBefore(Pause::At(gate)));
    let since = Instant::now();
    assert_away(in_time(pod.read(&key, ReadOffset::Start)).await);
    assert!(since.elapsed() < PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_cannot_be_read_fails_who_waits_for_it_and_no_one_else() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    landed(other.append(&key, tell("a")).await);
    store.faults().next_read(ReadFault::Fails);
    assert_away(in_time(pod.head(&key)).await);
    // Time goes on only while nobody is busy.
    in_time(tokio::time::sleep(Duration::from_secs(5))).await;
    assert_eq!(read(&pod, &key).await, ["a"]);

    landed(other.append(&key, by(claim("p", 0, 0), tell("b"))).await);
    store.faults().next_read(ReadFault::Fails);
    assert_away(in_time(pod.append(&key, by(claim("q", 0, 0), tell("x")))).await);
    landed(in_time(pod.append(&key, by(claim("q", 0, 0), tell("c")))).await);
    assert_eq!(read(&pod, &key).await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_has_landed_is_answered_even_if_what_lies_before_it_cannot_be_read() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    landed(other.append(&key, tell("b")).await);
    for _ in 0..100 {
        store.faults().next_read(ReadFault::Fails);
    }
    let since = Instant::now();
    let answer = in_time(pod.append(&key, close())).await;
    assert!(matches!(answer, Err(OpError::OutcomeUnknown)), "the final offset cannot be said: {answer:?}");
    assert!(since.elapsed() < PATIENCE);
    let fresh = Pod::new(&store);
    while store.faults().waiting() > 0 {
        drop(fresh.head(&key).await);
    }
    assert!(fresh.head(&key).await.unwrap().closed);
    assert!(pod.head(&key).await.unwrap().closed);
}

#[tokio::test(start_paused = true)]
async fn a_history_that_cannot_be_read_is_tried_again_for_live_readers() {
    let store = store();
    let config = Config { ring_bytes: 1, history_bytes: 0, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    for body in numbered(0..20) {
        landed(pod.append(&key, tell(&body)).await);
    }
    for _ in 0..3 {
        store.faults().next_read(ReadFault::Fails);
    }
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    assert_eq!(take(&mut reader, 20).await, numbered(0..20));
    store.faults().next_read(ReadFault::Fails);
    assert_away(pod.read(&key, ReadOffset::Start).await);
}

/// A store of which it is known when it is away.
struct Known {
    store: ScriptedUpstream,
    is_there: watch::Sender<bool>,
}

#[async_trait]
impl Upstream for Known {
    async fn append(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        self.store.append(key, append).await
    }

    async fn read(&self, key: &StreamKey, from: ReadFrom, limit: usize) -> Result<Page, ReadError> {
        self.store.read(key, from, limit).await
    }

    async fn check_tail(&self, key: &StreamKey) -> Result<Position, ReadError> {
        self.store.check_tail(key).await
    }

    async fn read_session(&self, key: &StreamKey, seq: u64) -> Result<ReadSession, ReadError> {
        self.store.read_session(key, seq).await
    }

    async fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ReadError> {
        self.store.list(project, prefix, after, limit).await
    }

    async fn ready(&self, within: Duration) -> Result<(), ReadError> {
        self.store.ready(within).await
    }

    async fn reachable(&self, _: &StreamKey) {
        let mut is_there = self.is_there.subscribe();
        let _there = is_there.wait_for(|there| *there).await.map(|there| *there);
    }

    fn is_suspended(&self, traffic: Traffic) -> bool {
        traffic == Traffic::Appends && !*self.is_there.borrow()
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_would_be_refused_whatever_it_holds_is_known_before_it_is_received() {
    let store = store();
    let known = Arc::new(Known { store: store.clone(), is_there: watch::Sender::new(true) });
    let pod = Pod::on(Arc::clone(&known) as Arc<dyn Upstream>, Config { max_streams: 1, ..Config::default() });
    let (active, other) = (key("active"), key("other"));
    pod.takes_writes(&active).unwrap();
    pod.create(&active, plain()).await.unwrap();
    pod.takes_writes(&active).unwrap();
    assert!(matches!(pod.takes_writes(&other), Err(OpError::TooManyStreams)));
    assert_eq!(pod.suspended(), None);
    known.is_there.send_replace(false);
    assert_away(pod.takes_writes(&active));
    assert_eq!(pod.suspended(), Some(Traffic::Appends));
    known.is_there.send_replace(true);
    pod.takes_writes(&active).unwrap();
}

#[tokio::test(start_paused = true)]
async fn readers_that_cannot_go_on_wait_for_the_store_and_do_not_look_for_it() {
    const READERS: usize = 50;
    let (store, key) = (store(), key("s"));
    let known = Arc::new(Known { store: store.clone(), is_there: watch::Sender::new(true) });
    let config = Config { ring_bytes: 1, history_bytes: 0, ..Config::default() };
    let pod = Pod::on(Arc::clone(&known) as Arc<dyn Upstream>, config);
    pod.create(&key, plain()).await.unwrap();
    for body in numbered(0..20) {
        landed(pod.append(&key, tell(&body)).await);
    }
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(pod.follow(&key, ReadOffset::Start).await.unwrap());
    }
    known.is_there.send_replace(false);
    store.set_outage(Outage::Refusing);
    let before = store.counts().reads;
    let returns = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let asked = store.counts().reads - before;
        assert!(asked <= READERS as u64, "once each at most: {asked}");
        store.set_outage(Outage::Over);
        known.is_there.send_replace(true);
    };
    let all = join_all(readers.iter_mut().map(|reader| take(reader, 20)));
    let (all, ()) = in_time(join(all, returns)).await;
    assert!(all.iter().all(|seen| *seen == numbered(0..20)));
}

#[tokio::test(start_paused = true)]
async fn a_tail_check_that_fails_while_a_stream_is_being_ended_keeps_nobody_waiting() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    let lifetime = Some(tailwater_protocol::Lifetime::Ttl { seconds: 8 });
    pod.create(&key, tailwater_fanout::Create { lifetime, ..plain() }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    // The end of the stream loses its position to the other pod's append, and then nobody can say what the log holds.
    let gate = Gate::new();
    store.faults_of(&key).next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let interferes = async {
        gate.arrived().await;
        store.append_native(&key, ["a"]);
        for _ in 0..3 {
            store.faults_of(&key).next_tail(ReadFault::Fails);
        }
        gate.open();
    };
    let append = pod.append(&key, tell("b"));
    let (answer, ()) = in_time(join(append, interferes)).await;
    match answer {
        Ok(_) => {}
        Err(error) => assert!(matches!(error, OpError::Unavailable { .. }), "{error:?}"),
    }
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_stores() {
    let store = store();
    let pod = Pod::new(&store);
    let within = Duration::from_secs(1);
    pod.ready(within).await.unwrap();
    for outage in [Outage::Refusing, Outage::Silent] {
        store.set_outage(outage);
        assert_away(pod.ready(within).await);
    }
    store.set_outage(Outage::Over);
    pod.ready(within).await.unwrap();
}
