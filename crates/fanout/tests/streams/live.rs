//! Live readers: what they are given, and what they cost.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use tailwater_fanout::{Config, Create, Event, NewVisibility, OpError};
use tailwater_log::{BatchId, Entry, Kind, Refusal, Stamp, StreamState, Visibility};
use tailwater_protocol::{Lifetime, ReadOffset};
use tailwater_testkit::{ScriptedUpstream, fault::SessionFault};
use tailwater_upstream::{
    Append, AppendAck, AppendError, Page, Position, ReadError, ReadFrom, ReadSession, SessionEvent, StreamKey, Upstream,
};
use tokio::sync::Notify;

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn two_hundred_readers_share_one_read_session_and_one_copy_of_each_batch() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..200 {
        readers.push(pod.follow(&key, ReadOffset::Now).await.unwrap());
    }
    rest().await;
    assert_eq!(store.counts().sessions_open, 1);
    assert_eq!(pod.metric("tailwater_live_readers"), 200.0);
    landed(pod.append(&key, tell("a")).await);
    let mut bodies = Vec::new();
    for reader in &mut readers {
        bodies.extend(delivery(reader).await.messages);
    }
    assert_eq!(bodies.len(), 200);
    assert!(bodies.iter().all(|body| body.as_ptr() == bodies[0].as_ptr()), "nothing is copied for a reader");
    assert_eq!(store.counts().sessions_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn writers_alone_need_no_read_session() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    for body in numbered(0..50) {
        landed(pod.append(&key, tell(&body)).await);
        pod.read(&key, ReadOffset::Now).await.unwrap();
    }
    assert_eq!(store.counts().sessions_opened, 0);
}

#[tokio::test(start_paused = true)]
async fn the_session_closes_a_linger_after_the_last_reader_and_not_before() {
    let store = store();
    let linger = Duration::from_secs(10);
    let (pod, key) = (Pod::with(&store, Config { linger, ..Config::default() }), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let first = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    drop(first);
    tokio::time::sleep(linger - Duration::from_secs(1)).await;
    let second = pod.follow(&key, ReadOffset::Now).await.unwrap();
    tokio::time::sleep(linger * 3).await;
    assert_eq!((store.counts().sessions_open, store.counts().sessions_opened), (1, 1), "a reader is there again");
    drop(second);
    tokio::time::sleep(linger - Duration::from_secs(1)).await;
    assert_eq!(store.counts().sessions_open, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.counts().sessions_open, 0);
    assert_eq!(pod.metric("tailwater_live_readers"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_sees_every_message_once_and_in_order() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, holding(&["0"])).await.unwrap();
    let at = landed(pod.append(&key, say(&["1", "2"])).await);
    landed(pod.append(&key, tell("3")).await);
    let mut from_start = pod.follow(&key, ReadOffset::Start).await.unwrap();
    let mut from_there = pod.follow(&key, ReadOffset::At(at)).await.unwrap();
    let mut from_now = pod.follow(&key, ReadOffset::Now).await.unwrap();
    for n in 4..20 {
        landed(pod.append(&key, tell(&n.to_string())).await);
    }
    assert_eq!(take(&mut from_start, 20).await, numbered(0..20));
    assert_eq!(take(&mut from_there, 17).await, numbered(3..20));
    assert_eq!(take(&mut from_now, 16).await, numbered(4..20));
    for reader in [&mut from_start, &mut from_there, &mut from_now] {
        assert!(reader.is_caught_up() && reader.is_fresh());
        assert_eq!(reader.position(), pod.head(&key).await.unwrap().tail);
        assert_silent(reader).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_may_join_in_the_middle_of_a_batch() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let end = landed(pod.append(&key, say(&["a", "b", "c"])).await);
    let middle = tailwater_protocol::Offset { seq: end.seq - 1, ..end };
    let mut reader = pod.follow(&key, ReadOffset::At(middle)).await.unwrap();
    assert_eq!(take(&mut reader, 1).await, ["c"]);
    assert_eq!(read_from(&pod, &key, ReadOffset::At(middle)).await.unwrap(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_all_is_up_to_date_whatever_the_others_have_taken() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let slow = pod.follow(&key, ReadOffset::Now).await.unwrap();
    let mut quick = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    for n in 0..5 {
        landed(pod.append(&key, tell(&n.to_string())).await);
        let delivery = delivery(&mut quick).await;
        assert!(delivery.up_to_date, "nothing more is there for it");
        assert!(quick.is_caught_up() && !slow.is_caught_up());
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_leaves_something_behind_is_not_up_to_date() {
    let config = Config { page_bytes: 4, ..Config::default() };
    let (pod, key) = (Pod::with(&store(), config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    for _ in 0..3 {
        landed(pod.append(&key, tell("12345")).await);
    }
    let up_to_date = [delivery(&mut reader).await, delivery(&mut reader).await, delivery(&mut reader).await];
    assert_eq!(up_to_date.map(|delivery| delivery.up_to_date), [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_not_polled_while_the_doorbell_overflowed_misses_nothing() {
    for ring_bytes in [1024 * 1024, 2_000] {
        let config = Config { ring_bytes, ..Config::default() };
        let (pod, key) = (Pod::with(&store(), config), key("s"));
        pod.create(&key, plain()).await.unwrap();
        let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
        rest().await;
        for body in numbered(0..500) {
            landed(pod.append(&key, tell(&body)).await);
        }
        assert_eq!(take(&mut reader, 500).await, numbered(0..500));
        assert!(pod.metric("tailwater_reader_rejoins_total") >= 1.0);
        landed(pod.append(&key, tell("500")).await);
        assert_eq!(take(&mut reader, 1).await, ["500"]);
        let from_history = pod.metric("tailwater_history_reads_total") > 0.0;
        assert_eq!(from_history, ring_bytes == 2_000, "what the ring holds is not read again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_from_the_start_catches_up_through_history_while_others_write() {
    let config = Config { ring_bytes: 1_000, page_bytes: 50, ..Config::default() };
    let (pod, key) = (Pod::with(&store(), config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    for body in numbered(0..300) {
        landed(pod.append(&key, tell(&body)).await);
    }
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    let mut seen = Vec::new();
    for n in 300..400 {
        seen.extend(take(&mut reader, 1).await);
        landed(pod.append(&key, tell(&n.to_string())).await);
    }
    seen.extend(take(&mut reader, 400 - seen.len()).await);
    assert_eq!(seen, numbered(0..400));
}

#[tokio::test(start_paused = true)]
async fn marks_do_not_disturb_readers() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    let lifetime = Some(Lifetime::Ttl { seconds: 60 });
    pod.create(&key, Create { lifetime, ..plain() }).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    let before = pod.head(&key).await.unwrap();
    // The reader is the stream's use: touches land all the while.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(store.records(&key).len() > 10, "there were touches");
    assert_eq!(pod.head(&key).await.unwrap(), before, "no mark moves an offset");
    assert_silent(&mut reader).await;
    assert!(reader.is_caught_up());
    landed(pod.append(&key, tell("a")).await);
    assert_eq!(take(&mut reader, 1).await, ["a"]);
    assert_eq!(pod.metric("tailwater_reader_rejoins_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_closure_reaches_every_reader_with_and_without_data() {
    for closing in [close(), last(&["b", "c"])] {
        let store = store();
        let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
        pod.create(&key, holding(&["a"])).await.unwrap();
        let mut readers = Vec::new();
        for pod in [&pod, &other] {
            for from in [ReadOffset::Start, ReadOffset::Now] {
                readers.push((pod.follow(&key, from).await.unwrap(), from));
            }
        }
        let expected = [vec!["a".to_owned()], strings(&closing.messages)].concat();
        pod.append(&key, closing).await.unwrap();
        let tail = pod.head(&key).await.unwrap().tail;
        for (reader, from) in &mut readers {
            let skipped = usize::from(*from == ReadOffset::Now);
            assert_eq!(take_all(reader).await, expected[skipped..]);
            assert_eq!(reader.position(), tail);
            assert_silent(reader).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_after_the_closure_is_told_of_it_on_the_way() {
    for (ring_bytes, closing) in [(1024 * 1024, close()), (1024 * 1024, last(&["3"])), (1, close()), (1, last(&["3"]))]
    {
        let store = store();
        let config = Config { ring_bytes, ..Config::default() };
        let (pod, key) = (Pod::with(&store, config), key("s"));
        pod.create(&key, holding(&["0"])).await.unwrap();
        let middle = landed(pod.append(&key, tell("1")).await);
        landed(pod.append(&key, tell("2")).await);
        let count = 3 + closing.messages.len();
        pod.append(&key, closing).await.unwrap();
        let late = Pod::new(&store);
        for pod in [&pod, &late] {
            let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
            assert_eq!(take_all(&mut reader).await, numbered(0..count));
            let mut reader = pod.follow(&key, ReadOffset::At(middle)).await.unwrap();
            assert_eq!(take_all(&mut reader).await, numbered(2..count));
            let reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
            assert!(reader.is_closed(), "nothing will come");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_deleted_stream_is_told_that_it_is_gone() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    let mut readers =
        [pod.follow(&key, ReadOffset::Start).await.unwrap(), other.follow(&key, ReadOffset::Now).await.unwrap()];
    assert_eq!(take(&mut readers[0], 1).await, ["a"]);
    rest().await;
    pod.delete(&key).await.unwrap();
    for reader in &mut readers {
        let event = in_time(reader.next()).await;
        assert!(matches!(event, Event::Gone), "{event:?}");
    }
    assert!(matches!(pod.follow(&key, ReadOffset::Now).await, Err(OpError::Refused(Refusal::NotFound))));
}

#[tokio::test(start_paused = true)]
async fn no_reader_is_given_data_of_another_life() {
    let store = store();
    for other_does_it in [false, true] {
        for stalls in [false, true] {
            let (pod, other) = (Pod::new(&store), Pod::new(&store));
            let key = key(&format!("{other_does_it}-{stalls}"));
            pod.create(&key, plain()).await.unwrap();
            let mut readers = vec![
                pod.follow(&key, ReadOffset::Start).await.unwrap(),
                pod.follow(&key, ReadOffset::Now).await.unwrap(),
            ];
            rest().await;
            if stalls {
                assert_eq!(store.stall_sessions(&key), 1);
            }
            let actor = if other_does_it { &other } else { &pod };
            actor.delete(&key).await.unwrap();
            actor.create(&key, holding(&["of the next life"])).await.unwrap();
            landed(actor.append(&key, tell("and more")).await);
            store.resume_sessions(&key);
            for reader in &mut readers {
                let event = in_time(reader.next()).await;
                assert!(matches!(event, Event::Gone | Event::Reset { .. }), "{event:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_not_heard_of_the_end_of_its_life_is_not_led_into_the_next() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    pod.delete(&key).await.unwrap();
    pod.create(&key, plain()).await.unwrap();
    // More than the doorbell holds: the word of the end is lost to a reader that does not listen.
    for body in numbered(0..200) {
        landed(pod.append(&key, tell(&body)).await);
    }
    let event = in_time(reader.next()).await;
    assert!(matches!(event, Event::Gone | Event::Reset { .. }), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_what_was_public_is_told_nothing_of_a_private_next_life() {
    for (next, told) in [(Visibility::Public, true), (Visibility::Private, false)] {
        let (pod, key) = (Pod::new(&store()), key("s"));
        pod.create(&key, plain()).await.unwrap();
        let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
        pod.delete(&key).await.unwrap();
        pod.create(&key, Create { visibility: NewVisibility::Declared(next), ..plain() }).await.unwrap();
        for body in numbered(0..200) {
            landed(pod.append(&key, tell(&body)).await);
        }
        let event = in_time(reader.next()).await;
        assert_eq!(matches!(event, Event::Reset { .. }), told, "{event:?}");
        assert_eq!(matches!(event, Event::Gone), !told, "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_fresh_while_its_session_shows_life() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    store.faults().next_session(SessionFault::Fails);
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    assert!(!reader.is_fresh(), "there is no session yet");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(reader.is_fresh());
    store.faults().next_session(SessionFault::Stall);
    store.cut_sessions(&key);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!reader.is_fresh(), "the new session has said nothing yet");
    store.resume_sessions(&key);
    rest().await;
    assert!(reader.is_fresh());
    landed(pod.append(&key, tell("a")).await);
    assert_eq!(take(&mut reader, 1).await, ["a"]);
}

/// A store whose sessions say that they have lost their connection when they are told to.
struct Losing {
    store: ScriptedUpstream,
    lost: Arc<Notify>,
}

#[async_trait]
impl Upstream for Losing {
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
        let session = self.store.read_session(key, seq).await?;
        let losses = stream::unfold(Arc::clone(&self.lost), |lost| async {
            lost.notified().await;
            Some((Ok(SessionEvent::Stalled), lost))
        });
        Ok(stream::select(session, losses).boxed())
    }

    async fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ReadError> {
        self.store.list(project, prefix, after, limit).await
    }

    async fn ready(&self, within: Duration) -> Result<(), ReadError> {
        self.store.ready(within).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_not_fresh_while_its_session_has_lost_its_connection() {
    let (store, lost, key) = (store(), Arc::new(Notify::new()), key("s"));
    let pod = Pod::on(Arc::new(Losing { store: store.clone(), lost: Arc::clone(&lost) }), Config::default());
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    assert!(reader.is_fresh());
    lost.notify_one();
    rest().await;
    assert!(!reader.is_fresh() && reader.is_caught_up());
    store.append_native(&key, ["a"]);
    assert_eq!(take(&mut reader, 1).await, ["a"]);
    rest().await;
    assert!(reader.is_fresh(), "it has caught up again");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_opened_is_given_up_with_its_last_reader() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    for _ in 0..2 {
        store.faults().next_session(SessionFault::Fails);
    }
    let reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    rest().await;
    drop(reader);
    // Time goes on only while nobody is busy.
    in_time(tokio::time::sleep(Config::default().linger + Config::default().idle * 2)).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 0.0, "it has retired");
}

#[tokio::test(start_paused = true)]
async fn every_session_is_polled_whatever_its_readers_do() {
    let store = store();
    let pod = Pod::new(&store);
    let keys: Vec<_> = (0..10).map(|n| key(&n.to_string())).collect();
    let mut idle_readers = Vec::new();
    for key in &keys {
        pod.create(key, plain()).await.unwrap();
        idle_readers.push(pod.follow(key, ReadOffset::Now).await.unwrap());
    }
    rest().await;
    let posts = keys.iter().flat_map(|key| (0..100).map(|_| pod.append(key, tell("a"))));
    for answer in in_time(join_all(posts)).await {
        landed(answer);
    }
    rest().await;
    assert_eq!(store.sessions_behind(), 0);
}

/// What follows on a log that ends with marks, and of which little was read on the way to its state.
fn marks_at_the_end(store: &ScriptedUpstream, key: &StreamKey) {
    let mark = |kind, checkpoint, body| {
        let stamp = Stamp { batch: BatchId { writer: 1, counter: 1 }, checkpoint };
        Append::new(vec![Entry { stamp: Some(stamp), kind }.encode(body)])
    };
    store.land(key, mark(Kind::Touch, None, Bytes::new())).unwrap();
    let mut state = StreamState::default();
    for record in store.records(key) {
        state.apply(&record).unwrap();
    }
    let (checkpoint, body) = state.to_checkpoint();
    store.land(key, mark(Kind::Checkpoint(checkpoint), Some(checkpoint.as_of), body)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_had_everything_waits_however_many_marks_stand_behind_it() {
    for bodies in [&["a"][..], &[]] {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        let tail = pod.create(&key, holding(bodies)).await.unwrap().head.tail;
        pod.shut_down().await;
        marks_at_the_end(&store, &key);
        let pod = Pod::new(&store);
        let mut reader = pod.follow(&key, ReadOffset::At(tail)).await.unwrap();
        assert!(reader.is_caught_up() && reader.is_live(), "there is nothing that it could look for");
        let reads = store.counts().reads;
        assert_silent(&mut reader).await;
        assert_eq!(store.counts().reads, reads);
        landed(pod.append(&key, tell("b")).await);
        assert_eq!(take(&mut reader, 1).await, ["b"]);
    }
}
