//! Upstream cost: read sessions are counted at the store, apart from the gateway's own gauge. It is in streams, never in
//! readers.

use std::time::Duration;

use futures_util::future::join_all;
use tailwater_testkit::sse::Payload;
use tokio::time::Instant;

use crate::{
    fixture::{Counts, House, Settings, eventually},
    follow::Follow,
};

const READERS: usize = 200;
const GAUGE: &str = "tailwater_upstream_read_sessions";

async fn readers(house: &House, stream: &str) -> Vec<Follow> {
    let target = format!("{stream}?offset=-1&live=sse");
    join_all((0..READERS).map(|_| house.client().get(&target).follow(Payload::Text))).await
}

/// The gateway counts what it holds, the store what it serves; they agree as soon as the last byte has crossed.
async fn gauge_says(house: &House, sessions: usize) {
    eventually("the gauge agrees", || async { house.client().metric(GAUGE).await as usize == sessions }).await;
}

#[tokio::test]
async fn two_hundred_readers_of_a_stream_share_one_read_session_at_the_store() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    house.client().append("s", "history,").await;
    let mut readers = readers(&house, "s").await;
    join_all(readers.iter_mut().map(Follow::until_up_to_date)).await;
    for part in ["one,", "two,", "three."] {
        house.client().append("s", part).await;
    }
    join_all(readers.iter_mut().map(|reader| reader.until_data("three."))).await;

    assert!(readers.iter().all(|reader| reader.text() == "history,one,two,three."));
    assert_eq!(house.store.sessions.counts(), Counts { opened: 1, open: 1 });
    gauge_says(&house, 1).await;
    assert_eq!(house.client().metric("tailwater_http_sse_readers").await as usize, READERS);
    assert_eq!(house.client().metric("tailwater_live_readers").await as usize, READERS);
}

#[tokio::test]
async fn each_stream_with_readers_has_one_read_session() {
    let house = House::start().await;
    let mut all = Vec::new();
    for stream in ["a", "b", "c"] {
        house.client().create(stream, "text/plain").await;
        for _ in 0..5 {
            all.push(house.client().get(&format!("{stream}?offset=now&live=sse")).follow(Payload::Text).await);
        }
    }
    join_all(all.iter_mut().map(Follow::until_up_to_date)).await;
    house.store.sessions.until_open(3).await;
    assert_eq!(house.store.sessions.counts().opened, 3);
    gauge_says(&house, 3).await;
}

#[tokio::test]
async fn a_stream_that_is_only_written_to_and_read_has_no_read_session() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    for _ in 0..50 {
        house.client().append("s", "x").await;
    }
    assert_eq!(house.client().read("s").await.len(), 50);
    house.client().head("s").send().await.expect(200);
    assert_eq!(house.store.sessions.counts(), Counts { opened: 0, open: 0 });
    gauge_says(&house, 0).await;
}

#[tokio::test]
async fn the_read_session_closes_a_linger_after_the_last_reader() {
    let linger = Duration::from_millis(300);
    let house = House::with(Settings::fanout(|config| config.linger = linger)).await;
    house.client().create("s", "text/plain").await;
    let mut readers = readers(&house, "s").await;
    join_all(readers.iter_mut().map(Follow::until_up_to_date)).await;
    house.store.sessions.until_open(1).await;

    let left = Instant::now();
    drop(readers);
    house.store.sessions.until_open(0).await;
    assert!(left.elapsed() >= linger, "it lingers: {:?}", left.elapsed());
    assert!(left.elapsed() < linger + Duration::from_secs(3), "and no longer: {:?}", left.elapsed());
    gauge_says(&house, 0).await;
    assert_eq!(house.store.sessions.counts().opened, 1);
}

#[tokio::test]
async fn a_reader_that_comes_within_the_linger_finds_the_session_open() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    for round in ["1", "2", "3"] {
        let mut reader = house.client().get("s?offset=-1&live=sse").follow(Payload::Text).await;
        reader.until_up_to_date().await;
        house.client().append("s", round).await;
        reader.until_data(round).await;
        drop(reader);
        eventually("it has left", || async { house.client().metric("tailwater_live_readers").await == 0.0 }).await;
    }
    assert_eq!(house.store.sessions.counts(), Counts { opened: 1, open: 1 });
}

#[tokio::test]
async fn long_polls_share_the_read_session_of_everybody_else() {
    let house = House::start().await;
    let client = house.client();
    let tail = client.create("s", "text/plain").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_up_to_date().await;
    let target = format!("s?offset={tail}&live=long-poll");
    let polls: Vec<_> = (0..50).map(|_| tokio::spawn(client.get(&target).send())).collect();
    eventually("they wait", || async { client.metric("tailwater_http_long_polls").await == 50.0 }).await;
    client.append("s", "woken").await;
    for answer in join_all(polls).await {
        assert_eq!(answer.unwrap().expect(200).text(), "woken");
    }
    assert_eq!(house.store.sessions.counts(), Counts { opened: 1, open: 1 });
}
