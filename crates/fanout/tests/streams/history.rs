//! Older ranges: many readers, few reads; and nothing of what is over.

use bytes::Bytes;
use futures_util::future::join_all;
use tailwater_fanout::{Config, ForkFrom, ForkPoint};
use tailwater_log::NewRecord;
use tailwater_protocol::ReadOffset;
use tailwater_testkit::ScriptedUpstream;
use tailwater_upstream::{Append, StreamKey};

use crate::harness::*;

const MESSAGE: usize = 16 * 1024;
const MESSAGES: usize = 20 * 1024 * 1024 / MESSAGE;
/// As many messages as one read brings: the next one would pass 1 MiB.
const MESSAGES_A_CHUNK: usize = 63;

/// Rings that hold next to nothing, so that all is history.
fn no_rings() -> Config {
    Config { ring_bytes: 1, native_content_type: text(), ..Config::default() }
}

/// 20 MiB, each message with its number.
fn fill(store: &ScriptedUpstream, key: &StreamKey) {
    let message = |number: usize| Bytes::from(format!("{number:0>MESSAGE$}"));
    for first in (0..MESSAGES).step_by(60) {
        store.append_native(key, (first..MESSAGES.min(first + 60)).map(message));
    }
}

fn empty_and_reap(store: &ScriptedUpstream, key: &StreamKey) {
    store.land(key, Append::new(vec![NewRecord::trim(u64::MAX)])).unwrap();
    assert!(store.reap(key));
}

fn number(message: &Bytes) -> usize {
    std::str::from_utf8(message).unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_replay_twenty_mebibytes_cost_a_read_a_chunk_and_stay_within_the_windows() {
    let store = store();
    let config = Config { window_budget_bytes: 16 * 1024 * 1024, ..no_rings() };
    let (pod, key) = (Pod::with(&store, config.clone()), key("s"));
    fill(&store, &key);
    pod.head(&key).await.unwrap();
    let before = store.counts().reads;
    let replay = async |number: usize| {
        let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
        let (mut next, mut in_hand) = (0, 0.0_f64);
        while next < MESSAGES {
            for message in delivery(&mut reader).await.messages {
                assert_eq!(message.len(), MESSAGE);
                assert!(message.ends_with(next.to_string().as_bytes()), "{next}");
                next += 1;
            }
            // What was given is in hand while others get their turn.
            tokio::task::yield_now().await;
            if number.is_multiple_of(100) {
                in_hand = in_hand.max(pod.metric("tailwater_window_bytes"));
            }
        }
        in_hand
    };
    let in_hand = join_all((0..1_000).map(replay)).await;
    let most = in_hand.into_iter().fold(0.0, f64::max);
    let reads = store.counts().reads - before;
    assert!(reads <= MESSAGES.div_ceil(MESSAGES_A_CHUNK) as u64 + 5, "{reads}");
    assert!(most > 0.0 && most <= config.window_budget_bytes as f64, "{most}");
    assert_eq!(pod.metric("tailwater_window_bytes"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_catch_up_page_by_page_cost_a_read_a_chunk() {
    let store = store();
    let (pod, key) = (Pod::with(&store, no_rings()), key("s"));
    fill(&store, &key);
    pod.head(&key).await.unwrap();
    let before = store.counts().reads;
    let catch_up = async || {
        let (mut from, mut next) = (ReadOffset::Start, 0);
        loop {
            let page = pod.read(&key, from).await.unwrap();
            for message in &page.messages {
                assert!(message.ends_with(next.to_string().as_bytes()), "{next}");
                next += 1;
            }
            if page.up_to_date {
                return next;
            }
            from = ReadOffset::At(page.next);
        }
    };
    let counts = join_all((0..1_000).map(|_| catch_up())).await;
    assert!(counts.into_iter().all(|count| count == MESSAGES));
    let reads = store.counts().reads - before;
    assert!(reads <= MESSAGES.div_ceil(MESSAGES_A_CHUNK) as u64 + 5, "{reads}");
}

#[tokio::test(start_paused = true)]
async fn a_storm_whose_readers_missed_more_than_the_ring_holds_costs_a_read_a_missing_chunk() {
    const SEEN: usize = 100;
    const MISSED: usize = 300;
    let store = store();
    // The ring counts a message twice, so it holds ten.
    let config = Config { ring_bytes: 20 * MESSAGE, ..no_rings() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    let message = |number: usize| Bytes::from(format!("{number:0>MESSAGE$}"));
    store.append_native(&key, (0..SEEN / 2).map(message));
    store.append_native(&key, (SEEN / 2..SEEN).map(message));
    // Keeps the session open; where it stands, all others stood.
    let mut witness = pod.follow(&key, ReadOffset::Start).await.unwrap();
    assert_eq!(take(&mut witness, SEEN).await.len(), SEEN);
    let (before, at) = (store.counts(), witness.position());
    for first in (SEEN..SEEN + MISSED).step_by(50) {
        store.append_native(&key, (first..first + 50).map(message));
    }
    let back = join_all((0..200).map(async |_| {
        let mut reader = pod.follow(&key, ReadOffset::At(at)).await.unwrap();
        let mut next = SEEN;
        while next < SEEN + MISSED {
            for message in delivery(&mut reader).await.messages {
                assert_eq!(number(&message), next);
                next += 1;
            }
        }
    }));
    in_time(back).await;
    let reads = store.counts().reads - before.reads;
    let missing = (SEEN + MISSED).div_ceil(MESSAGES_A_CHUNK) - SEEN / MESSAGES_A_CHUNK;
    assert!((1..=missing as u64).contains(&reads), "{reads} reads for {missing} chunks");
    assert_eq!((store.counts().sessions_opened, store.counts().sessions_open), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_window_at_a_time_is_enough_for_all() {
    let store = store();
    let config = Config { window_budget_bytes: 1, window_bytes: 100, ..no_rings() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    store.append_native(&key, numbered(0..300));
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(pod.follow(&key, ReadOffset::Start).await.unwrap());
    }
    let all = join_all(readers.iter_mut().map(|reader| async {
        let seen = take(reader, 300).await;
        // Asking for more says that the last window is done with.
        assert_silent(reader).await;
        seen
    }));
    assert!(in_time(all).await.into_iter().all(|seen| seen == numbered(0..300)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_created_again_shows_nothing_of_what_was() {
    let store = store();
    let (pod, key) = (Pod::with(&store, no_rings()), key("s"));
    let mut bodies = Vec::new();
    for life in 0..3 {
        pod.create(&key, plain()).await.unwrap();
        bodies = (0..200).map(|n| format!("{n} of life {life}")).collect();
        for body in &bodies {
            landed(pod.append(&key, tell(body)).await);
        }
        assert_eq!(read(&pod, &key).await, bodies);
        let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
        assert_eq!(take(&mut reader, 200).await, bodies);
        if life < 2 {
            drop(reader);
            pod.delete(&key).await.unwrap();
            rest().await;
        }
        if life == 1 {
            // Its numbers begin anew.
            empty_and_reap(&store, &key);
        }
    }
    assert_eq!(read(&pod, &key).await, bodies);
}

#[tokio::test(start_paused = true)]
async fn a_native_stream_that_became_another_one_shows_nothing_of_what_was() {
    let store = store();
    let (pod, key) = (Pod::with(&store, no_rings()), key("s"));
    store.append_native(&key, numbered(0..200));
    assert_eq!(read(&pod, &key).await, numbered(0..200));
    empty_and_reap(&store, &key);
    let others: Vec<String> = (0..150).map(|n| format!("other {n}")).collect();
    store.append_native(&key, others.clone());
    assert_eq!(read(&pod, &key).await, others);
}

#[tokio::test(start_paused = true)]
async fn a_fork_reads_the_chunks_of_its_source() {
    let store = store();
    let (pod, source, fork) = (Pod::with(&store, no_rings()), key("source"), key("fork"));
    pod.create(&source, plain()).await.unwrap();
    for body in numbered(0..100) {
        landed(pod.append(&source, tell(&body)).await);
    }
    let from = ForkFrom {
        source: source.clone(),
        at: ForkPoint::Tail,
        sub_offset: 0,
        access: tailwater_fanout::SourceAccess::Any,
    };
    pod.create(&fork, tailwater_fanout::Create { fork: Some(from), ..plain() }).await.unwrap();
    for body in numbered(100..110) {
        landed(pod.append(&source, tell(&body)).await);
        landed(pod.append(&fork, tell(&format!("{body} of the fork"))).await);
    }
    assert_eq!(read(&pod, &source).await, numbered(0..110));
    let before = pod.metric("tailwater_history_reads_total");
    let mut expected = numbered(0..100);
    expected.extend(numbered(100..110).into_iter().map(|body| format!("{body} of the fork")));
    for _ in 0..3 {
        assert_eq!(read(&pod, &fork).await, expected);
    }
    assert_eq!(pod.metric("tailwater_history_reads_total"), before + 1.0, "the fork's own chunk");
}

#[tokio::test(start_paused = true)]
async fn a_single_message_larger_than_the_cache_and_all_windows_is_served() {
    let store = store();
    let config = Config { history_bytes: 1_000, window_bytes: 10, window_budget_bytes: 100, ..no_rings() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    fill(&store, &key);
    for _ in 0..2 {
        let page = pod.read(&key, ReadOffset::Start).await.unwrap();
        assert_eq!(number(&page.messages[63]), 63);
    }
    let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    for expected in 0..100 {
        assert_eq!(delivery(&mut reader).await.messages.iter().map(number).collect::<Vec<_>>(), [expected]);
    }
    assert_eq!(pod.metric("tailwater_history_bytes"), 0.0);
    assert_eq!(pod.metric("tailwater_history_evictions_total"), 0.0, "what does not fit is not kept at all");
}
