//! What needs a socket: connections and their end.

use std::time::Duration;

use tailwater_server::{Config, Ended};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fixture::Fixture,
    wire::{LIMIT, ask, counted, read_to_end, read_until, request, serve},
};

#[tokio::test]
async fn a_location_without_a_host_is_the_listeners_address() {
    let fixture = Fixture::new();
    let (server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = ask(&mut stream, "PUT /v1/stream/s HTTP/1.0").await;
    assert!(head.starts_with("HTTP/1.0 201") || head.starts_with("HTTP/1.1 201"), "{head}");
    assert!(head.contains(&format!("location: http://{address}/v1/stream/s\r\n")), "{head}");
    drop(stream);
    assert_eq!(timeout(LIMIT, server.shut_down(CancellationToken::new())).await, Ok(Ended::Clean));
}

#[tokio::test]
async fn a_shutdown_ends_readers_in_band_and_then_their_connections() {
    let config = Config { drain: Duration::from_millis(200), ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let begun = read_until(&mut stream, "upToDate").await;
    assert!(begun.contains("transfer-encoding: chunked") && !begun.contains("content-length"), "{begun}");

    let (ended, rest) = tokio::join!(timeout(LIMIT, server.shut_down(CancellationToken::new())), async {
        let mut rest = String::new();
        timeout(LIMIT, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
        rest
    });
    assert_eq!(ended, Ok(Ended::Clean));
    assert!(rest.contains("retry: ") && rest.ends_with("0\r\n\r\n"), "{rest}");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_hurried_shutdown_tells_readers_and_cuts_off_what_is_left() {
    let fixture = Fixture::new();
    let (server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.unwrap();
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let mut reader = TcpStream::connect(address).await.unwrap();
    reader.write_all(b"GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    read_until(&mut reader, "upToDate").await;
    let mut other = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut other, "GET /health HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200"));
    let hurry = CancellationToken::new();
    hurry.cancel();
    let ended = timeout(LIMIT, server.shut_down(hurry)).await;
    assert_eq!(ended, Ok(Ended::Cut));
    read_until(&mut reader, "retry: ").await;
    assert_eq!(timeout(LIMIT, stream.read(&mut [0; 16])).await.unwrap().unwrap_or(0), 0);
}

/// A gateway whose connections last a moment.
fn short_lived() -> Fixture {
    let age = Duration::from_millis(300);
    Fixture::with(Config { max_connection_age: age, drain: age, ..Config::default() }, Default::default())
}

#[tokio::test]
async fn a_connection_that_has_lasted_long_enough_ends_when_it_is_idle() {
    let fixture = short_lived();
    let (server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        assert!(ask(&mut stream, "HEAD /health HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(read_to_end(&mut stream).await, "");
    counted(&fixture, "tailwater_connections_cut_total{reason=\"age\"} 1").await;
    assert_eq!(timeout(LIMIT, server.shut_down(CancellationToken::new())).await, Ok(Ended::Clean));
}

#[tokio::test]
async fn a_connection_that_has_lasted_long_enough_finishes_the_answer_that_is_under_way_and_says_that_it_is_the_last() {
    let fixture = short_lived();
    fixture.put("/v1/stream/s", "text/plain", "").await;
    let (_server, address) = serve(&fixture).await;
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: 1";
    let mut writer = request(address, head).await;
    // Nothing is answered before the body is there, and the connection has been too old for long by then.
    let mut old = request(address, "HEAD /health HTTP/1.1\r\nhost: h").await;
    read_to_end(&mut old).await;
    let mut older = request(address, "HEAD /health HTTP/1.1\r\nhost: h").await;
    read_to_end(&mut older).await;
    writer.write_all(b"a").await.unwrap();
    let answer = read_to_end(&mut writer).await;
    assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_long_poll_that_waited_for_longer_than_its_connection_lasts_is_its_last_answer() {
    let fixture = short_lived();
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (_server, address) = serve(&fixture).await;
    let mut poll = request(address, "GET /v1/stream/s?offset=now&live=long-poll HTTP/1.1\r\nhost: h").await;
    for _ in 0..2 {
        let mut old = request(address, "HEAD /health HTTP/1.1\r\nhost: h").await;
        read_to_end(&mut old).await;
    }
    fixture.post("/v1/stream/s", "text/plain", "b").await;
    let answer = read_to_end(&mut poll).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nb"), "{answer}");
}

#[tokio::test]
async fn behind_a_live_response_a_connection_that_has_lasted_long_enough_ends() {
    let config = Config {
        max_connection_age: Duration::from_millis(100),
        sse_lifetime: Duration::from_millis(600),
        ..Config::default()
    };
    let fixture = Fixture::with(config, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (_server, address) = serve(&fixture).await;
    let mut stream = request(address, "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h").await;
    let all = read_to_end(&mut stream).await;
    assert!(all.contains("retry: ") && all.ends_with("0\r\n\r\n"), "{all}");
    counted(&fixture, "tailwater_connections_cut_total{reason=\"age\"} 1").await;
}

#[tokio::test]
async fn an_end_is_announced_before_anybody_is_refused_and_hurried_all_the_same() {
    let config = Config { drain: LIMIT * 8, drain_notice: LIMIT * 2, ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (server, address) = serve(&fixture).await;
    let hurry = CancellationToken::new();
    let ending = tokio::spawn(server.shut_down(hurry.clone()));
    let began = Instant::now();
    while fixture.probe("/readyz").await != 503 {
        assert!(began.elapsed() < LIMIT);
        tokio::task::yield_now().await;
    }
    let mut reader = request(address, "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h").await;
    assert!(read_until(&mut reader, "upToDate").await.starts_with("HTTP/1.1 200 "), "it is still let in");
    hurry.cancel();
    assert!(read_to_end(&mut reader).await.contains("retry: "));
    assert_eq!(timeout(LIMIT, ending).await.unwrap().unwrap(), Ended::Clean);
    assert!(began.elapsed() < LIMIT * 2, "nobody waits for the notice to be over");
}

#[tokio::test]
async fn in_a_drain_a_connection_ends_behind_its_answer() {
    let config = Config { drain: LIMIT * 10, ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (server, address) = serve(&fixture).await;
    let mut kept = TcpStream::connect(address).await.unwrap();
    assert!(!ask(&mut kept, "HEAD /health HTTP/1.1\r\nhost: h").await.contains("connection: close"));
    let mut live = request(address, "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h").await;
    read_until(&mut live, "upToDate").await;
    let hurry = CancellationToken::new();
    let ended = tokio::spawn(server.shut_down(hurry.clone()));
    while !fixture.app.drain().has_begun() {
        tokio::task::yield_now().await;
    }
    let mut late = request(address, "GET /v1/stream/s HTTP/1.1\r\nhost: h").await;
    let answer = read_to_end(&mut late).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\na"), "{answer}");
    drop((kept, live));
    hurry.cancel();
    timeout(LIMIT, ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_head_of_a_stream_says_nothing_about_the_length_of_its_body() {
    let fixture = Fixture::new();
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (path, length) in [("s", false), ("none", true), ("s", false)] {
        let head = ask(&mut stream, &format!("HEAD /v1/stream/{path} HTTP/1.1\r\nhost: h")).await;
        assert_eq!(head.contains("content-length:"), length, "{head}");
        assert!(head.ends_with("\r\n\r\n") && !head.contains("content-length: 0"), "{head}");
    }
    drop(stream);
    assert_eq!(timeout(LIMIT, server.shut_down(CancellationToken::new())).await, Ok(Ended::Clean));
}

#[tokio::test]
async fn http2_without_tls_is_understood() {
    let fixture = Fixture::new();
    let (server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The preface, and an empty settings frame.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    timeout(LIMIT, stream.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!(frame[3], 4, "the server's settings come first");
    drop(stream);
    assert_eq!(timeout(LIMIT, server.shut_down(CancellationToken::new())).await, Ok(Ended::Clean));
}

#[tokio::test]
async fn requests_that_were_sent_ahead_are_answered_in_order_however_often_the_connection_leaves() {
    // More than the HTTP library reads at once, and less than is too much.
    const AHEAD: usize = 120;
    let fixture = Fixture::with(Config { delivery_shards: 1, ..Config::default() }, Default::default());
    for path in ["/v1/stream/a", "/v1/stream/b"] {
        fixture.put(path, "text/plain", "").await;
    }
    let (server, address) = serve(&fixture).await;
    let poll = |path: &str| format!("GET /v1/stream/{path}?offset=now&live=long-poll HTTP/1.1\r\nhost: h");
    let mut stream = request(address, &poll("a")).await;
    counted(&fixture, "tailwater_shard_readers 1").await;
    let mut ahead = poll("b") + "\r\n\r\n";
    for n in 0..AHEAD {
        let path = if n % 3 == 0 { "/v1/stream/none" } else { "/health" };
        ahead += &format!("GET {path} HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(48));
    }
    ahead += "GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    assert!((9 * 1024..16 * 1024).contains(&ahead.len()), "{}", ahead.len());
    stream.write_all(ahead.as_bytes()).await.unwrap();
    fixture.post("/v1/stream/a", "text/plain", "<first>").await;
    let mut all = read_until(&mut stream, "<first>").await;
    counted(&fixture, "tailwater_shard_readers 1").await;
    counted(&fixture, "tailwater_http_requests_in_flight 1").await;
    counted(&fixture, "tailwater_http_long_polls 1").await;
    fixture.post("/v1/stream/b", "text/plain", "<second>").await;
    all += &read_to_end(&mut stream).await;
    let answers: Vec<&str> = all.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(answers.len(), 2 + AHEAD + 1);
    assert!(answers[0].starts_with("200 ") && answers[0].ends_with("<first>"), "{}", answers[0]);
    assert!(answers[1].starts_with("200 ") && answers[1].ends_with("<second>"), "{}", answers[1]);
    for (n, answer) in answers[2..].iter().enumerate() {
        let status = if n % 3 == 0 && n < AHEAD { "404 " } else { "200 " };
        assert!(answer.starts_with(status), "{n}: {answer}");
    }
    for gauge in ["http_requests_in_flight", "http_long_polls", "http_connections", "live_readers", "shard_readers"] {
        counted(&fixture, &format!("tailwater_{gauge} 0")).await;
    }
    assert_eq!(timeout(LIMIT, server.shut_down(CancellationToken::new())).await, Ok(Ended::Clean));
}

#[tokio::test]
async fn a_replay_that_ends_inside_a_character_goes_on_with_the_rest_of_it() {
    let small = tailwater_fanout::Config { ring_bytes: 1, ..tailwater_fanout::Config::default() };
    let fixture = Fixture::with(Config { delivery_shards: 1, ..Config::default() }, small);
    fixture.put("/v1/stream/s", "text/plain", "").await;
    // The ring holds the last one alone; what is before it is replayed, together with it.
    for piece in [b"before ".as_slice(), b"a\xe2"] {
        fixture.post("/v1/stream/s", "text/plain", piece).await;
    }
    let (server, address) = serve(&fixture).await;
    let mut stream = request(address, "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h").await;
    read_until(&mut stream, "\r\n\r\n").await;
    counted(&fixture, "tailwater_history_reads_total 1").await;
    fixture.post("/v1/stream/s", "text/plain", &b"\x82"[..]).await;
    fixture.post("/v1/stream/s", "text/plain", &b"\xac behind"[..]).await;
    let events = read_until(&mut stream, "behind\n\n").await;
    assert!(events.contains("data:before a\u{20ac} behind\n\n"), "{events}");
    // Nothing is held back any more, and it is where the others are.
    counted(&fixture, "tailwater_shard_readers 1").await;
    fixture.post("/v1/stream/s", "text/plain", "and on").await;
    read_until(&mut stream, "data:and on\n\n").await;
    drop(stream);
    assert_eq!(timeout(LIMIT, server.shut_down(CancellationToken::new())).await, Ok(Ended::Clean));
}
