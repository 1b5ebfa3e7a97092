//! Live responses that leave the HTTP library: what a client sees is what it would see of one that stays.
//!
//! A request with `Connection: close` stays, so each row of the tables is asked twice.

use std::time::Duration;

use futures_util::future::join;
use http::HeaderMap;
use tailwater_testkit::sse::Payload;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::{
    client::Ask,
    fixture::{House, PATIENCE, Settings, eventually},
};

/// The readers that a shard has.
const AT_SHARDS: &str = "tailwater_shard_readers";

/// How many pieces of 16 KiB are far more than the ring and two kernels hold.
const PIECES: usize = 40;

/// A connection that a test drives byte by byte.
struct Wire {
    stream: TcpStream,
    /// What came and was not looked at.
    rest: Vec<u8>,
}

impl Wire {
    async fn open(house: &House) -> Self {
        Self { stream: TcpStream::connect(house.client().addr()).await.unwrap(), rest: Vec::new() }
    }

    /// One whose kernel takes little that the test has not read.
    async fn narrow(house: &House) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self { stream: socket.connect(house.client().addr()).await.unwrap(), rest: Vec::new() }
    }

    async fn ask(&mut self, target: &str) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: gateway\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// All up to the end of what is waited for.
    async fn until(&mut self, end: &str) -> String {
        let end = end.as_bytes();
        let whole = async {
            loop {
                if let Some(at) = self.rest.windows(end.len()).position(|window| window == end) {
                    return self.rest.drain(..at + end.len()).collect::<Vec<u8>>();
                }
                let read = self.stream.read_buf(&mut self.rest).await.unwrap();
                assert!(read > 0, "ended before {end:?}: {}", String::from_utf8_lossy(&self.rest));
            }
        };
        let whole = timeout(PATIENCE, whole).await.expect("it comes in time");
        String::from_utf8(whole).unwrap()
    }

    /// All up to the end of the connection, which may come as a reset.
    async fn until_cut(&mut self) -> usize {
        let whole = async {
            let mut sink = [0; 4096];
            let mut taken = 0;
            while let Ok(read @ 1..) = self.stream.read(&mut sink).await {
                taken += read;
            }
            taken
        };
        timeout(PATIENCE, whole).await.expect("it is cut in time")
    }
}

async fn at_shards(house: &House, readers: usize) {
    eventually("the shards have so many readers", || async {
        house.client().metric(AT_SHARDS).await as usize == readers
    })
    .await;
}

/// The head of an answer, without what may differ between two: the time, the cursor's jitter, and how the connection goes on.
fn head(status: u16, mut headers: HeaderMap) -> (u16, Vec<(String, String)>) {
    for name in ["date", "connection", "stream-cursor"] {
        headers.remove(name);
    }
    let mut head: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    head.sort();
    (status, head)
}

fn close(ask: Ask) -> Ask {
    ask.header("connection", "close")
}

#[tokio::test]
async fn the_head_of_events_that_leave_is_the_one_of_events_that_stay() {
    let house = House::start().await;
    let client = house.client();
    let kinds = [
        ("text", "text/plain", Payload::Text),
        ("json", "application/json", Payload::Json),
        ("binary", "application/octet-stream", Payload::Binary),
    ];
    for (stream, content_type, payload) in kinds {
        client.create(stream, content_type).await;
        client.post(stream).body(content_type, "[1]").send().await.expect(204);
        for query in ["offset=-1", "offset=now", "offset=-1&cursor=7"] {
            for fields in [&[][..], &[("origin", "https://example.org")], &[("accept", "text/event-stream")]] {
                let target = format!("{stream}?{query}&live=sse");
                let leaves = client.get(&target).headers(fields).follow(payload).await;
                let stays = close(client.get(&target).headers(fields)).follow(payload).await;
                assert_eq!(head(200, leaves.headers.clone()), head(200, stays.headers.clone()), "{target}");
            }
        }
    }
    at_shards(&house, 0).await;
}

#[tokio::test]
async fn what_is_answered_at_once_is_the_same_for_those_who_may_leave() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let end = client.append("s", "x").await;
    client.close("s").await;
    let beyond = format!("{}_{:016}", &end[..16], 99);
    for live in ["sse", "long-poll"] {
        let table: [(String, &[(&str, &str)]); 6] = [
            (format!("s?offset=-1&live={live}"), &[]),
            (format!("s?offset={end}&live={live}"), &[]),
            (format!("s?offset={end}&live={live}"), &[("last-event-id", &end)]),
            (format!("s?offset={beyond}&live={live}"), &[]),
            (format!("s?live={live}"), &[]),
            (format!("nothing?offset=-1&live={live}"), &[("origin", "https://example.org")]),
        ];
        for (target, fields) in table {
            let leaves = client.get(&target).headers(fields).send().await;
            let stays = close(client.get(&target).headers(fields)).send().await;
            assert_eq!(head(leaves.status, leaves.headers), head(stays.status, stays.headers), "{target}");
            assert_eq!(leaves.body, stays.body, "{target}");
        }
    }
}

#[tokio::test]
async fn a_long_poll_that_waits_elsewhere_is_answered_as_one_that_stays() {
    let house = House::with(Settings::server(|server| server.long_poll_timeout = Duration::from_millis(700))).await;
    let client = house.client();
    for (stream, content_type) in [("text", "text/plain"), ("json", "application/json")] {
        let start = client.create(stream, content_type).await;
        for query in [format!("offset={start}"), "offset=now".into(), format!("offset={start}&cursor=3")] {
            let target = format!("{stream}?{query}&live=long-poll");
            // Nothing comes.
            let (leaves, stays) = join(client.get(&target).send(), close(client.get(&target)).send()).await;
            assert_eq!(leaves.status, 204);
            assert!(leaves.header("stream-cursor").is_some());
            assert_eq!(head(leaves.status, leaves.headers), head(stays.status, stays.headers), "{target}");
        }
        // Something comes; the first to be there waits for it, whichever way.
        let target = format!("{stream}?offset={start}&live=long-poll");
        let answers = join(client.get(&target).send(), close(client.get(&target)).send());
        let append = async {
            eventually("both wait", || async { client.metric("tailwater_http_long_polls").await as usize == 2 }).await;
            client.post(stream).body(content_type, "[1]").send().await.expect(204);
        };
        let ((leaves, stays), ()) = join(answers, append).await;
        assert_eq!((leaves.status, &leaves.body), (200, &stays.body));
        assert!(leaves.header("stream-cursor").is_some());
        assert_eq!(head(leaves.status, leaves.headers), head(stays.status, stays.headers), "{target}");
    }
    at_shards(&house, 0).await;
}

#[tokio::test]
async fn a_long_poll_is_told_of_the_end_and_of_the_deletion() {
    let house = House::start().await;
    let client = house.client();
    for stream in ["closed", "deleted"] {
        client.create(stream, "text/plain").await;
    }
    let (closed, ()) = join(client.get("closed?offset=now&live=long-poll").send(), async {
        at_shards(&house, 1).await;
        client.close("closed").await;
    })
    .await;
    assert!(closed.expect(204).is_closed());
    let (deleted, ()) = join(client.get("deleted?offset=now&live=long-poll").send(), async {
        at_shards(&house, 1).await;
        client.delete("deleted").send().await.expect(204);
    })
    .await;
    deleted.refused(404, "stream_not_found");
}

#[tokio::test]
async fn behind_a_long_poll_the_connection_goes_on_with_what_was_sent_meanwhile() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    let mut wire = Wire::open(&house).await;
    for turn in ["one", "two", "three"] {
        wire.ask("/v1/stream/s?offset=now&live=long-poll").await;
        at_shards(&house, 1).await;
        wire.ask("/health").await;
        house.client().append("s", turn).await;
        let polled = wire.until(turn).await;
        assert!(polled.starts_with("HTTP/1.1 200 OK\r\n") && polled.contains("content-type: text/plain"), "{polled}");
        let health = wire.until("\r\n\r\n").await;
        assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
        wire.until("ok\n").await;
    }
    assert_eq!(house.client().metric("tailwater_http_connections").await as usize, 2, "one is the test's client");
}

#[tokio::test]
async fn behind_events_the_connection_goes_on() {
    let house = House::with(Settings::server(|server| server.sse_lifetime = Duration::from_millis(600))).await;
    house.client().create("s", "text/plain").await;
    let mut wire = Wire::open(&house).await;
    for _ in 0..3 {
        wire.ask("/v1/stream/s?offset=now&live=sse").await;
        let events = wire.until("\r\n0\r\n\r\n").await;
        assert!(events.contains("\"upToDate\":true") && events.contains("retry: "), "{events}");
    }
    wire.ask("/health").await;
    assert!(wire.until("\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(house.client().metric("tailwater_http_sse_ends_total").await as usize, 3);
}

#[tokio::test]
async fn a_client_that_talks_through_its_response_is_cut() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    let mut wire = Wire::open(&house).await;
    wire.ask("/v1/stream/s?offset=now&live=sse").await;
    at_shards(&house, 1).await;
    wire.stream.write_all(&[b'x'; 40 * 1024]).await.unwrap();
    wire.until_cut().await;
    at_shards(&house, 0).await;
    assert_eq!(house.client().metric("tailwater_connections_cut_total").await as usize, 1);
}

#[tokio::test]
async fn a_reader_that_falls_behind_the_ring_catches_up_and_comes_back() {
    let mut settings = Settings::fanout(|fanout| fanout.ring_bytes = 64 * 1024);
    settings.server.send_buffer = 4096;
    let house = House::with(settings).await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let mut wire = Wire::narrow(&house).await;
    wire.ask("/v1/stream/s?offset=-1&live=sse").await;
    at_shards(&house, 1).await;
    let piece = |n: usize| format!("<{n:04}>{}", "x".repeat(16 * 1024));
    for n in 0..PIECES {
        client.append("s", &piece(n)).await;
    }
    client.append("s", "the end").await;
    let events = wire.until("the end\n\n").await;
    let seen: Vec<&str> = events.match_indices('<').map(|(at, _)| &events[at + 1..at + 5]).collect();
    let expected: Vec<String> = (0..PIECES).map(|n| format!("{n:04}")).collect();
    assert_eq!(seen, expected);
    assert!(client.metric("tailwater_shard_fell_behind_total").await >= 1.0);
    at_shards(&house, 1).await;
    client.append("s", "and on").await;
    wire.until("and on\n\n").await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_counted_and_others_see_nothing_of_it() {
    let mut settings = Settings::server(|server| {
        server.write_timeout = Duration::from_millis(400);
        server.send_buffer = 4096;
    });
    settings.fanout.ring_bytes = 256 * 1024;
    let house = House::with(settings).await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let mut staller = Wire::narrow(&house).await;
    staller.ask("/v1/stream/s?offset=now&live=sse").await;
    let mut healthy = client.get("s?offset=now&live=sse").follow(Payload::Text).await;
    at_shards(&house, 2).await;
    let began = Instant::now();
    let mut n = 0;
    // One that is cut takes its reset only once it looks; the shard says that it has gone.
    while client.metric(AT_SHARDS).await as usize == 2 {
        assert!(began.elapsed() < PATIENCE, "never cut");
        n += 1;
        client.append("s", &format!("{n}:{};", "x".repeat(8 * 1024))).await;
        healthy.until_data(";").await;
    }
    assert_eq!(client.metric("tailwater_connections_cut_total").await as usize, 1);
    assert_eq!(healthy.text().matches(';').count(), n);
    staller.until_cut().await;
}
