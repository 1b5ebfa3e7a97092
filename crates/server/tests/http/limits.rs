//! How many connections there may be, and what those beyond are told.

use std::{
    io::{ErrorKind, Read as _},
    num::NonZeroUsize,
};

use tailwater_server::{Config, TrustedProxies};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fixture::Fixture,
    wire::{LIMIT, ask, counted, from, read_to_end, read_until, request, serve},
};

const FOLLOW: &str = "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h";

async fn fixture(connections: usize, per_address: usize, proxies: &[&str]) -> Fixture {
    let config = Config {
        max_connections: connections,
        max_connections_per_address: NonZeroUsize::new(per_address),
        trusted_proxies: TrustedProxies::parse(proxies).unwrap(),
        ..Config::default()
    };
    let fixture = Fixture::with(config, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "first").await;
    fixture
}

/// A reader of Server-Sent Events that is up to date.
async fn reader(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = request(address, FOLLOW).await;
    read_until(&mut stream, "upToDate").await;
    stream
}

#[tokio::test]
async fn a_full_gateway_refuses_with_503_and_its_readers_notice_nothing() {
    let fixture = fixture(2, 0, &[]).await;
    let (_server, address) = serve(&fixture).await;
    let mut readers = [reader(address).await, reader(address).await];
    counted(&fixture, "tailwater_http_connections 2").await;
    for head in ["GET /health HTTP/1.1\r\nhost: h", FOLLOW, "PUT /v1/stream/t HTTP/1.1\r\nhost: h"] {
        let answer = read_to_end(&mut request(address, head).await).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        for line in ["retry-after: 5", "connection: close", "x-content-type-options: nosniff"] {
            assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line} in {answer}");
        }
        assert!(answer.contains("\"code\":\"too_many_connections\""), "{answer}");
    }
    assert!(fixture.metric("tailwater_connections_refused_total{limit=\"connections\"} 3"));

    fixture.post("/v1/stream/s", "text/plain", "second").await;
    for reader in &mut readers {
        read_until(reader, "data:second").await;
    }
    let [left, _stays] = readers;
    drop(left);
    counted(&fixture, "tailwater_http_connections 1").await;
    let mut next = reader(address).await;
    fixture.post("/v1/stream/s", "text/plain", "third").await;
    read_until(&mut next, "data:third").await;
}

#[tokio::test]
async fn an_event_source_beyond_the_limit_is_told_to_come_back() {
    let fixture = fixture(0, 0, &[]).await;
    let (_server, address) = serve(&fixture).await;
    let head = format!("{FOLLOW}\r\naccept: text/event-stream\r\ncache-control: no-cache");
    let answer = read_to_end(&mut request(address, &head).await).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-type: text/event-stream\r\n"), "{answer}");
    assert!(
        answer.contains("access-control-allow-origin: *\r\n") && answer.contains("\r\n\r\nid: refused\nretry: "),
        "{answer}"
    );
}

#[tokio::test]
async fn a_refusal_is_read_even_by_who_sends_a_large_body() {
    let fixture = fixture(0, 0, &[]).await;
    let (_server, address) = serve(&fixture).await;
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: 1000000";
    let mut stream = request(address, head).await;
    stream.write_all(&vec![b'x'; 300_000]).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too_many_connections"), "{answer}");
}

#[tokio::test]
async fn one_address_beyond_its_share_is_refused_with_429_and_others_come_in() {
    let fixture = fixture(10, 1, &[]).await;
    let (_server, address) = serve(&fixture).await;
    let mut first = reader(address).await;
    // Whoever connects directly speaks for nobody else.
    let forged = format!("{FOLLOW}\r\nx-forwarded-for: 198.51.100.1");
    let answer = read_to_end(&mut request(address, &forged).await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: 5\r\n"), "{answer}");
    assert!(answer.contains("\"code\":\"too_many_connections_from_address\""), "{answer}");
    assert!(fixture.metric("tailwater_connections_refused_total{limit=\"connections_per_address\"} 1"));
    let mut other = from("127.0.0.2", address).await;
    assert!(ask(&mut other, FOLLOW).await.starts_with("HTTP/1.1 200 "));

    fixture.post("/v1/stream/s", "text/plain", "second").await;
    read_until(&mut first, "data:second").await;
    drop(first);
    counted(&fixture, "tailwater_http_connections 1").await;
    reader(address).await;
}

#[tokio::test]
async fn requests_through_a_trusted_proxy_count_for_as_long_as_they_last_by_whom_they_are_from() {
    let fixture = fixture(10, 1, &["127.0.0.1"]).await;
    let (_server, address) = serve(&fixture).await;
    let through = |client: &str| format!("{FOLLOW}\r\nx-forwarded-for: 203.0.113.5, {client}");
    let mut first = request(address, &through("198.51.100.1")).await;
    read_until(&mut first, "upToDate").await;
    let mut proxy = TcpStream::connect(address).await.unwrap();
    // One connection, requests of many: what is refused is a request, and the connection goes on.
    for (client, status) in [("198.51.100.1", 429), ("198.51.100.2", 200), ("198.51.100.1", 429), ("127.0.0.1", 200)] {
        let head = format!("HEAD /v1/stream/s HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 203.0.113.5, {client}");
        let answer = ask(&mut proxy, &head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{client}: {answer}");
    }
    assert!(ask(&mut proxy, "HEAD /v1/stream/s HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200 "));
    drop(first);
    counted(&fixture, "tailwater_http_sse_readers 0").await;
    let head = "HEAD /v1/stream/s HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 198.51.100.1";
    assert!(ask(&mut proxy, head).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn beyond_the_refusals_connections_wait_and_are_answered_later() {
    let fixture = fixture(1, 0, &[]).await;
    let (_server, address) = serve(&fixture).await;
    let _reader = reader(address).await;
    // They ask nothing, so that their refusals last.
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    counted(&fixture, "tailwater_connections_refused_total{limit=\"connections\"} 64").await;
    let mut waits = request(address, "GET /health HTTP/1.1\r\nhost: h").await;
    drop(silent);
    assert!(read_to_end(&mut waits).await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn one_address_that_takes_up_all_refusals_is_dropped_beyond_them_and_keeps_nobody_out() {
    const REFUSALS: usize = 64;
    let fixture = fixture(10, 1, &[]).await;
    let (_server, address) = serve(&fixture).await;
    let _reader = reader(address).await;
    let mut silent = Vec::new();
    for _ in 0..REFUSALS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let told = |count| format!("tailwater_connections_refused_total{{limit=\"connections_per_address\"}} {count}");
    counted(&fixture, &told(REFUSALS)).await;
    let mut beyond = TcpStream::connect(address).await.unwrap();
    let read = timeout(LIMIT, beyond.read(&mut [0; 16])).await.unwrap();
    assert_eq!(read.unwrap_or(0), 0, "it is told nothing");
    assert!(fixture.metric(&told(REFUSALS + 1)), "and counted");
    let mut other = from("127.0.0.2", address).await;
    assert!(ask(&mut other, FOLLOW).await.starts_with("HTTP/1.1 200 "));
    for silent in silent {
        let error = silent.into_std().unwrap().read(&mut [0]).expect_err("it has not been given up for that");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}
