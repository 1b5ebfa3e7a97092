//! Statuses and headers, one test for each case: appends and producers, closure, places that are not there, limits.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tailwater_log::NewRecord;
use tailwater_testkit::sse::{DurableEvent, Payload};
use tailwater_upstream::{Append, ReadFrom, StreamKey, Upstream as _};

use crate::{
    client::Client,
    fixture::{House, Pair, Remote, Settings, eventually},
};

async fn producer(client: &Client, id: &str, epoch: u64, seq: u64, text: &str) -> crate::client::Answer {
    client.post("s").text(text.to_owned()).producer(id, epoch, seq).send().await
}

#[tokio::test]
async fn a_plain_append_is_answered_204_with_the_next_offset() {
    let house = House::start().await;
    let first = house.client().create("s", "text/plain").await;
    let answer = house.client().post("s").text("a").send().await.expect(204);
    assert!(answer.next() > first);
    assert!(answer.header("producer-seq").is_none() && answer.header("stream-closed").is_none());
    assert_eq!(house.client().head("s").send().await.next(), answer.next());
}

#[tokio::test]
async fn a_new_producer_append_is_answered_200_with_its_epoch_and_seq() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    let answer = producer(house.client(), "p", 7, 0, "a").await.expect(200);
    assert_eq!((answer.header("producer-epoch"), answer.header("producer-seq")), (Some("7"), Some("0")));
    assert_eq!(house.client().read_from("s", "-1").await, b"a");
    assert_eq!(answer.next(), house.client().head("s").send().await.next());
}

#[tokio::test]
async fn a_duplicate_is_answered_204_with_the_highest_accepted_seq() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    for seq in 0..4 {
        producer(house.client(), "p", 2, seq, "x").await.expect(200);
    }
    let again = producer(house.client(), "p", 2, 1, "other").await.expect(204);
    assert_eq!((again.header("producer-epoch"), again.header("producer-seq")), (Some("2"), Some("3")));
    assert_eq!(house.client().read("s").await, "xxxx");
}

#[tokio::test]
async fn a_stale_epoch_is_answered_403_with_the_current_one() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    producer(house.client(), "p", 5, 0, "a").await.expect(200);
    let stale = producer(house.client(), "p", 4, 1, "b").await.refused(403, "stale_epoch");
    assert_eq!(stale.header("producer-epoch"), Some("5"));
    producer(house.client(), "p", 6, 1, "b").await.refused(400, "new_epoch_not_at_zero");
    producer(house.client(), "p", 6, 0, "b").await.expect(200);
    assert_eq!(house.client().read("s").await, "ab");
}

#[tokio::test]
async fn a_gap_is_answered_409_with_what_was_expected_and_what_came() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    let unknown = producer(house.client(), "p", 3, 5, "a").await.refused(409, "producer_gap");
    assert_eq!(unknown.header("producer-expected-seq"), Some("0"));
    producer(house.client(), "p", 3, 0, "a").await.expect(200);
    let gap = producer(house.client(), "p", 3, 2, "b").await.refused(409, "producer_gap");
    assert_eq!(gap.header("producer-expected-seq"), Some("1"));
    assert_eq!(gap.header("producer-received-seq"), Some("2"));
    assert_eq!(house.client().read("s").await, "a");
}

#[tokio::test]
async fn a_closed_stream_is_answered_409_before_content_type_and_sequence_checks() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.post("s").text("a").header("stream-seq", "5").producer("p", 3, 0).send().await.expect(200);
    let end = client.close("s").await;
    let table = [
        client.post("s").text("b"),
        client.post("s").json("1"),
        client.post("s").text("b").header("stream-seq", "1"),
        client.post("s").text("b").producer("p", 3, 9),
        client.post("s").text("b").producer("other", 0, 0),
        client.post("s").json("1").header("stream-seq", "1").header("stream-closed", "true"),
    ];
    for ask in table {
        let refused = ask.send().await.refused(409, "stream_closed");
        assert!(refused.is_closed());
        assert_eq!(refused.next(), end);
    }
    let again = client.post("s").header("stream-closed", "true").header("content-type", "x/y").send().await.expect(204);
    assert!(again.is_closed() && again.next() == end, "closing what is closed changes nothing");
    assert_eq!(client.read("s").await, "a");
}

#[tokio::test]
async fn an_offset_of_a_deleted_incarnation_is_answered_410() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let old = client.append("s", "old").await;
    client.delete("s").send().await.expect(204);
    let fresh = client.create("s", "text/plain").await;
    client.append("s", "new").await;
    for live in ["", "&live=long-poll", "&live=sse"] {
        let gone = client.get(&format!("s?offset={old}{live}")).send().await.refused(410, "offset_gone");
        assert_eq!(gone.header("stream-earliest-offset"), Some(fresh.as_str()));
        assert_eq!(gone.json()["earliestOffset"], fresh);
    }
    assert_eq!(client.read("s").await, "new");
}

#[tokio::test]
async fn an_offset_before_the_earliest_retained_message_is_answered_410() {
    let pair = Pair::start().await;
    let key = StreamKey::new("default", "s");
    let upstream = &pair.a.upstream;
    let messages = ["a", "b", "c", "d"].map(|text| NewRecord::message(text.into())).to_vec();
    upstream.append(&key, Append::new(messages)).await.unwrap();
    let offset = |seq: u64| format!("{:016}_{seq:016}", 0);
    let client = &pair.a.client;
    let mut reader = client.get(&format!("s?offset={}&live=sse", offset(1))).follow(Payload::Binary).await;
    reader.until_data("bcd").await;

    upstream.append(&key, Append::new(vec![NewRecord::trim(2)])).await.unwrap();
    eventually("the trim is done", || async {
        upstream.read(&key, ReadFrom::Seq(0), 10).await.unwrap().records[0].seq == 2
    })
    .await;
    for live in ["", "&live=long-poll", "&live=sse"] {
        let answer = pair.b.client.get(&format!("s?offset={}{live}", offset(1))).send().await;
        let gone = answer.refused(410, "offset_gone");
        assert_eq!(gone.header("stream-earliest-offset"), Some(offset(2).as_str()));
    }
    assert_eq!(pair.b.client.read_from("s", &offset(2)).await, b"cd");
    assert_eq!(pair.b.client.read("s").await, "cd", "from the start, which is where it starts now");
    upstream.append(&key, Append::new(vec![NewRecord::message("e".into())])).await.unwrap();
    reader.until_data("bcde").await;
}

#[tokio::test]
async fn an_offset_beyond_the_tail_is_answered_400() {
    let house = House::start().await;
    let client = house.client();
    let tail = client.create("s", "text/plain").await;
    let (birth, seq) = tail.split_once('_').unwrap();
    let beyond = format!("{birth}_{:016}", seq.parse::<u64>().unwrap() + 1);
    let later = format!("{:016}_{seq}", birth.parse::<u64>().unwrap() + 1);
    for offset in [beyond, later, format!("{birth}_9999999999999999"), "9999999999999999_9999999999999999".to_owned()] {
        for live in ["", "&live=long-poll", "&live=sse"] {
            let answer = client.get(&format!("s?offset={offset}{live}")).send().await;
            answer.refused(400, "offset_beyond_tail");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_answered_503_with_a_time_to_come_back() {
    let remote = Remote::with(Settings { append_timeout: Duration::from_secs(1), ..Settings::default() }).await;
    let client = remote.client();
    let tail = client.create("s", "text/plain").await;
    remote.proxy.cut();
    let asks = [
        client.put("new").text("a").send(),
        client.post("s").text("a").send(),
        client.get("unknown").send(),
        client.get(&format!("s?offset={tail}")).send(),
        client.get(&format!("s?offset={tail}&live=sse")).send(),
        client.head("s").send(),
        client.delete("s").send(),
    ];
    for answer in join_all(asks).await {
        let answer = answer.expect(503);
        if !answer.body.is_empty() {
            assert!(["store_unavailable", "outcome_unknown"].contains(&answer.code().as_str()), "{}", answer.text());
        }
    }
    client.get("/readyz").send().await.expect(503);
    client.get("/health").send().await.expect(200);
}

#[tokio::test]
async fn what_is_over_capacity_is_answered_503_with_a_time_to_come_back() {
    let house = House::with(Settings::fanout(|config| config.max_streams = 2)).await;
    let client = house.client();
    let mut readers = Vec::new();
    for stream in ["a", "b"] {
        client.create(stream, "text/plain").await;
        readers.push(client.get(&format!("{stream}?offset=-1&live=sse")).follow(Payload::Text).await);
    }
    client.put("c").text("x").send().await.refused(503, "over_capacity");
    client.get("c").send().await.refused(503, "over_capacity");
    client.append("a", "served.").await;
    readers[0].until_data("served.").await;
}

#[tokio::test]
async fn a_gateway_that_drains_is_unready_and_answers_live_requests_503() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.append("s", "a").await;
    client.get("/readyz").send().await.expect(200);
    house.pod.app.drain().begin();
    client.get("/readyz").send().await.expect(503);
    client.get("s?offset=-1&live=sse").send().await.refused(503, "draining");
    client.get("s?offset=-1&live=long-poll").send().await.refused(503, "draining");
    assert_eq!(client.read("s").await, "a", "what is not live is served to the end");
    client.append("s", "b").await;
}

#[tokio::test]
async fn a_plain_event_source_that_is_refused_for_a_passing_reason_is_told_when_to_come_back() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    house.pod.app.drain().begin();
    let event_source = [("accept", "text/event-stream"), ("cache-control", "no-cache")];
    let answer = client.get("/v1/stream/s?live=sse&offset=-1").headers(&event_source).send().await.expect(200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let retry = answer.text().strip_prefix("id: refused\nretry: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
    assert!((1000..=5000).contains(&retry.parse::<u64>().unwrap()), "{retry}");
}

#[tokio::test]
async fn the_1501st_producer_is_answered_429_and_those_that_are_known_go_on() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let first = |n: usize| client.post("s").text(".").producer(&format!("p{n}"), 0, 0).send();
    let limit = 1500;
    for wave in (0..limit).collect::<Vec<_>>().chunks(100) {
        for answer in join_all(wave.iter().map(|n| first(*n))).await {
            answer.expect(200);
        }
    }
    first(limit).await.refused(429, "too_many_producers");
    client.post("s").text("!").producer("p7", 0, 1).send().await.expect(200);
    assert_eq!(client.read("s").await.len(), limit + 1);
}

#[tokio::test]
async fn an_append_whose_fate_is_not_settled_in_time_is_answered_outcome_unknown() {
    let mut settings = Settings::fanout(|config| config.settle = Duration::from_millis(300));
    settings.append_timeout = Duration::from_millis(700);
    let remote = Remote::with(settings).await;
    let client = remote.client();
    client.create("s", "text/plain").await;
    client.append("s", "a").await;
    remote.proxy.hold(true);
    let unknown = client.post("s").text("b").producer("p", 0, 0).send().await.refused(503, "outcome_unknown");
    assert!(unknown.header("stream-next-offset").is_none());
    remote.proxy.hold(false);
    eventually("a retry is taken, once", || async {
        let retry = client.post("s").text("b").producer("p", 0, 0).send().await;
        assert!([200, 204, 503].contains(&retry.status), "{}", retry.status);
        retry.status != 503
    })
    .await;
    assert_eq!(client.read("s").await, "ab");
}

#[tokio::test]
async fn a_reader_at_the_end_of_a_closed_stream_gets_one_control_event_and_the_end() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.append("s", "a").await;
    let end = client.close("s").await;
    let mut reader = client.get(&format!("s?offset={end}&live=sse")).follow(Payload::Text).await;
    let events = reader.until_end().await;
    let [DurableEvent::Control(control)] = events.as_slice() else { panic!("{events:?}") };
    assert!(control.closed && control.cursor.is_none() && control.next == end);
    let raw = String::from_utf8(reader.raw).unwrap();
    assert!(raw.contains("\"upToDate\":true") && raw.contains("\"streamClosed\":true"), "{raw}");
}

#[tokio::test]
async fn only_a_reader_that_sends_its_last_event_id_gets_204_at_the_end_of_a_closed_stream() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.append("s", "a").await;
    client.close("s").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    let end = reader.until_closed().await;
    assert_eq!(reader.last_event_id(), end.next);
    let ask = client.get("s?offset=-1&live=sse").header("last-event-id", reader.last_event_id());
    let answer = ask.send().await.expect(204);
    assert!(answer.is_closed());
    assert_eq!(answer.next(), end.next);
}

#[tokio::test]
async fn bytes_that_a_stream_does_not_have_are_never_served() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "application/octet-stream").await;
    let body = Bytes::from((0..=255).collect::<Vec<u8>>());
    client.post("s").body("application/octet-stream", body.clone()).send().await.expect(204);
    assert_eq!(client.read_from("s", "-1").await, body);
}
