//! Long-polls and Server-Sent Events.

use std::time::Duration;

use tailwater_testkit::fault::Outage;
use tailwater_testkit::sse::{DurableEvent, DurableSse, Payload};
use tailwater_upstream::StreamKey;
use tokio::time::Instant;

use crate::fixture::{Fixture, Live};

const PATH: &str = "/v1/stream/s";
const EVENT_SOURCE: [(&str, &str); 2] = [("accept", "text/event-stream"), ("cache-control", "no-cache")];

fn long_poll(offset: &str) -> String {
    format!("{PATH}?offset={offset}&live=long-poll")
}

fn sse(offset: &str) -> String {
    format!("{PATH}?offset={offset}&live=sse")
}

fn control(offset: &str, rest: &str) -> String {
    format!("id: {offset}\nevent: control\ndata:{{\"streamNextOffset\":\"{offset}\"{rest}}}\n\n")
}

fn tail(offset: &str) -> String {
    control(offset, ",\"streamCursor\":\"1000\",\"upToDate\":true")
}

async fn put(fixture: &Fixture, content_type: &str, body: &'static str) -> String {
    fixture.put(PATH, content_type, body).await.header("stream-next-offset").to_owned()
}

async fn rest(mut live: Live) -> String {
    let mut all = String::new();
    while let Some(chunk) = live.chunk().await {
        all += &chunk;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_gives_what_is_there_at_once() {
    let fixture = Fixture::new();
    put(&fixture, "application/json", "[1,2]").await;
    let answer = fixture.get(&long_poll("-1")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"[1,2]"[..]));
    assert_eq!((answer.header("stream-cursor"), answer.header("stream-up-to-date")), ("1000", "true"));
    let again = fixture.send("GET", &long_poll("-1"), &[("if-none-match", answer.header("etag"))], "").await;
    assert_eq!(again.status, 304);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_waits_for_what_comes_next() {
    let fixture = Fixture::new();
    for from in [put(&fixture, "text/plain", "a").await, "now".to_owned()] {
        let (from, writer) = (long_poll(&from), fixture.post(PATH, "text/plain", "b"));
        let (answer, written) = tokio::join!(biased; fixture.get(&from), writer);
        assert_eq!((answer.status, &answer.body[..]), (200, &b"b"[..]), "{from}");
        assert_eq!(answer.header("stream-next-offset"), written);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_that_meets_nothing_ends_with_the_tail_and_a_cursor_that_moves() {
    let fixture = Fixture::new();
    let at = put(&fixture, "text/plain", "a").await;
    let began = Instant::now();
    let answer = fixture.get(&format!("{}&cursor=1000", long_poll(&at))).await;
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!((answer.status, answer.header("stream-next-offset")), (204, at.as_str()));
    assert_eq!((answer.header("stream-up-to-date"), answer.header("stream-cursor")), ("true", "1008"));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_at_the_end_of_a_closed_stream_does_not_wait() {
    let fixture = Fixture::new();
    let at = put(&fixture, "text/plain", "a").await;
    fixture.send("POST", PATH, &[("stream-closed", "true")], "").await;
    let began = Instant::now();
    for from in [at.as_str(), "now"] {
        let answer = fixture.get(&long_poll(from)).await;
        assert_eq!((answer.status, answer.header("stream-closed")), (204, "true"));
        assert_eq!((answer.header("stream-next-offset"), answer.header("stream-cursor")), (at.as_str(), ""));
    }
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_is_woken_by_a_close_with_or_without_data_and_by_a_deletion() {
    let close = [("content-type", "text/plain"), ("stream-closed", "true")];
    for (method, body, status) in [("POST", "end", 200), ("POST", "", 204), ("DELETE", "", 404)] {
        let fixture = Fixture::new();
        let from = long_poll(&put(&fixture, "text/plain", "a").await);
        let (answer, _) = tokio::join!(biased; fixture.get(&from), fixture.send(method, PATH, &close, body));
        assert_eq!(answer.status, status, "{method} {body}");
        assert_eq!(answer.header("stream-closed"), if status == 404 { "" } else { "true" });
        assert_eq!(&answer.body[..] == body.as_bytes(), status != 404);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_sees_each_delivery_as_one_chunk_and_then_the_end() {
    let fixture = Fixture::new();
    let first = put(&fixture, "text/plain", "a\r\n b").await;
    let mut live = fixture.live(&sse("-1"), &[]).await;
    assert_eq!(live.headers["content-type"], "text/event-stream");
    assert_eq!(live.headers["cache-control"], "no-cache, no-transform");
    assert_eq!(live.headers["x-accel-buffering"], "no");
    assert!(!live.headers.contains_key("stream-sse-data-encoding"));
    let chunk = live.chunk().await.unwrap();
    assert_eq!(chunk, format!("id: {first}\nevent: data\ndata:a\ndata:  b\n\n{}", tail(&first)));
    let second = fixture.post(PATH, "text/plain", "c").await;
    assert_eq!(live.chunk().await.unwrap(), format!("id: {second}\nevent: data\ndata:c\n\n{}", tail(&second)));
    let end = fixture.send("POST", PATH, &[("content-type", "text/plain"), ("stream-closed", "true")], "d").await;
    let last = end.header("stream-next-offset");
    let closed = control(last, ",\"upToDate\":true,\"streamClosed\":true");
    assert_eq!(live.chunk().await.unwrap(), format!("id: {last}\nevent: data\ndata:d\n\n{closed}"));
    assert_eq!(live.chunk().await, None);
    assert!(fixture.metric("tailwater_http_sse_ends_total{reason=\"closed\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn an_empty_stream_and_its_tail_begin_with_a_control_event() {
    let fixture = Fixture::new();
    let at = put(&fixture, "application/octet-stream", "").await;
    for from in ["-1", "now", &at] {
        let mut live = fixture.live(&sse(from), &[]).await;
        assert_eq!(live.headers["stream-sse-data-encoding"], "base64");
        assert_eq!(live.chunk().await.unwrap(), tail(&at), "{from}");
    }
    let mut live = fixture.live(&format!("{}&cursor=1000", sse("now")), &[]).await;
    assert!(live.chunk().await.unwrap().contains("\"streamCursor\":\"1008\""), "a cursor that is not behind moves on");
    let next = fixture.post(PATH, "application/octet-stream", "\u{1}\u{2}").await;
    assert!(live.chunk().await.unwrap().starts_with(&format!("id: {next}\nevent: data\ndata:AQI=\n\nid: {next}\n")));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_closed_stream_is_said_once_and_a_reconnect_is_stopped() {
    let fixture = Fixture::new();
    let at = put(&fixture, "text/plain", "a").await;
    fixture.send("POST", PATH, &[("stream-closed", "true")], "").await;
    let closed = control(&at, ",\"upToDate\":true,\"streamClosed\":true");
    for from in [at.as_str(), "now"] {
        assert_eq!(rest(fixture.live(&sse(from), &[]).await).await, closed);
    }
    let back = fixture.send("GET", &sse("-1"), &[("last-event-id", &at)], "").await;
    assert_eq!((back.status, back.header("stream-closed")), (204, "true"));
    let whole = rest(fixture.live(&sse("-1"), &[("last-event-id", "of another server")]).await).await;
    assert_eq!(whole, format!("id: {at}\nevent: data\ndata:a\n\n{closed}"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_kept_alive_and_its_response_ends_with_a_time_to_come_back() {
    let fixture = Fixture::new();
    let at = put(&fixture, "text/plain", "a").await;
    let mut live = fixture.live(&sse(&at), &[]).await;
    let began = Instant::now();
    let mut seconds = Vec::new();
    let last = loop {
        let chunk = live.chunk().await.unwrap();
        if chunk.starts_with("retry: ") {
            break chunk;
        }
        assert!(chunk.starts_with(&format!("id: {at}\nevent: control\n")));
        seconds.push(began.elapsed().as_secs());
    };
    assert_eq!(seconds, [0, 15, 30, 45]);
    assert!((54..66).contains(&began.elapsed().as_secs()));
    assert_eq!(last, "retry: 53\n\n");
    assert_eq!(live.chunk().await, None);
    assert!(fixture.metric("tailwater_http_sse_ends_total{reason=\"rotated\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_from_far_behind_is_told_at_once_when_it_has_caught_up() {
    let small = tailwater_fanout::Config { ring_bytes: 1, page_bytes: 64, ..tailwater_fanout::Config::default() };
    let fixture = Fixture::with(Default::default(), small);
    put(&fixture, "application/json", "").await;
    let mut last = String::new();
    for number in 0..200 {
        last = fixture.post(PATH, "application/json", number.to_string()).await;
    }
    let began = Instant::now();
    let mut live = fixture.live(&sse("-1"), &[]).await;
    let mut reader = DurableSse::new(Payload::Json);
    while !reader.is_up_to_date() {
        reader.push(live.chunk().await.unwrap().as_bytes());
        while let Some(event) = reader.pop() {
            event.unwrap();
        }
    }
    assert_eq!(reader.offset(), Some(last.as_str()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_character_that_two_appends_share_comes_out_whole() {
    let fixture = Fixture::new();
    let mut live = DurableSse::new(Payload::Text);
    let empty = put(&fixture, "text/plain", "").await;
    let mut body = fixture.live(&sse(&empty), &[]).await;
    live.push(body.chunk().await.unwrap().as_bytes());
    fixture.post(PATH, "text/plain", &b"\xe2\x82"[..]).await;
    let whole = fixture.post(PATH, "text/plain", &b"\xac"[..]).await;
    live.push(body.chunk().await.unwrap().as_bytes());
    let mut texts = Vec::new();
    while let Some(event) = live.pop() {
        if let DurableEvent::Data(data) = event.unwrap() {
            texts.push(data);
        }
    }
    assert_eq!((texts.len(), &texts[0][..]), (1, "€".as_bytes()));
    assert_eq!(live.offset(), Some(whole.as_str()));
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_deleted_stream_are_told_and_their_response_ends() {
    let fixture = Fixture::new();
    let at = put(&fixture, "text/plain", "a").await;
    let mut live = fixture.live(&sse(&at), &[]).await;
    live.chunk().await.unwrap();
    fixture.send("DELETE", PATH, &[], "").await;
    let last = rest(live).await;
    assert!(last.starts_with("event: reset\n") && last.contains("retry: "), "{last}");
    assert_eq!(fixture.send("GET", &sse("-1"), &[("last-event-id", &at)], "").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_live_responses_and_takes_no_new_ones_but_serves_the_rest() {
    let fixture = Fixture::new();
    let at = put(&fixture, "text/plain", "a").await;
    let mut live = fixture.live(&sse(&at), &[]).await;
    live.chunk().await.unwrap();
    let poll = long_poll(&at);
    let (polled, ()) = tokio::join!(biased; fixture.get(&poll), async { fixture.app.drain().begin() });
    assert_eq!((polled.status, polled.header("stream-next-offset")), (204, at.as_str()));
    assert!(rest(live).await.starts_with("retry: "));
    fixture.app.drain().ended().await;

    for path in [sse(&at), long_poll(&at)] {
        let refused = fixture.get(&path).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "draining"));
        assert_eq!(refused.header("retry-after"), "1");
    }
    let told = rest(fixture.live(&sse(&at), &EVENT_SOURCE).await).await;
    assert!(told.starts_with("id: refused\nretry: "), "an event source would not come back after an error");
    assert_eq!(fixture.get(PATH).await.body, "a");
    fixture.post(PATH, "text/plain", "b").await;
}

#[tokio::test(start_paused = true)]
async fn live_requests_are_told_to_come_back_while_the_store_is_away() {
    let fixture = Fixture::new();
    put(&fixture, "text/plain", "a").await;
    fixture.upstream.set_outage(Outage::Refusing);
    let elsewhere = "/v1/stream/elsewhere?offset=-1";
    for mode in ["sse", "long-poll"] {
        let refused = fixture.get(&format!("{elsewhere}&live={mode}")).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "store_unavailable"));
        assert_eq!(refused.header("retry-after"), "1");
    }
    let told = rest(fixture.live(&format!("{elsewhere}&live=sse"), &EVENT_SOURCE).await).await;
    assert!(told.starts_with("id: refused\nretry: "), "{told}");
    fixture.upstream.set_outage(Outage::Over);
    assert_eq!(fixture.get(&format!("{elsewhere}&live=sse")).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_response_outlasts_its_time_while_the_store_is_away_and_claims_nothing() {
    let fixture = Fixture::new();
    let at = put(&fixture, "text/plain", "a").await;
    let mut live = fixture.live(&sse(&at), &[]).await;
    assert!(live.chunk().await.unwrap().contains("upToDate"));
    // The session is there by now.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(fixture.upstream.cut_sessions(&StreamKey::new("default", "s")), 1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    fixture.upstream.set_outage(Outage::Refusing);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(150) {
        let chunk = live.chunk().await.unwrap();
        assert!(chunk.contains("event: control") && !chunk.contains("upToDate"), "{chunk}");
    }
    fixture.upstream.set_outage(Outage::Over);
    let back = Instant::now();
    assert!(rest(live).await.contains("retry: "));
    assert!(back.elapsed() < Duration::from_secs(15), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_leaves_is_counted_as_one_who_left() {
    let fixture = Fixture::new();
    let at = put(&fixture, "text/plain", "a").await;
    let mut live = fixture.live(&sse(&at), &[]).await;
    live.chunk().await.unwrap();
    assert!(fixture.metric("tailwater_http_sse_readers 1"));
    drop(live);
    assert!(fixture.metric("tailwater_http_sse_readers 0"));
    assert!(fixture.metric("tailwater_http_sse_ends_total{reason=\"left\"} 1"));
}
