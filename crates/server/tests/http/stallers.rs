//! Clients that keep a connection and do nothing with it: each is gone in time, by the counter that says so.

use std::time::Duration;

use prometheus::TextEncoder;
use tailwater_server::Config;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    fixture::Fixture,
    wire::{LIMIT, ask, counted, cramped, read_to_end, request, serve},
};

/// Long enough for what is honest here.
const SHORT: Duration = Duration::from_millis(300);

fn fixture() -> Fixture {
    let config = Config { header_timeout: SHORT, body_timeout: SHORT, write_timeout: SHORT, ..Config::default() };
    Fixture::with(config, Default::default())
}

fn cut(reason: &str, count: usize) -> String {
    format!("tailwater_connections_cut_total{{reason=\"{reason}\"}} {count}")
}

#[tokio::test]
async fn a_head_that_never_comes_or_never_ends_is_not_waited_for() {
    let fixture = fixture();
    let (_server, address) = serve(&fixture).await;
    for (count, begun) in ["", "P", "PRI * HTTP/2.0\r\n", "GET /health HTTP/1.1\r\nho"].into_iter().enumerate() {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, "", "{begun:?}");
        assert!(began.elapsed() >= SHORT, "{begun:?}");
        counted(&fixture, &cut("header_timeout", count + 1)).await;
    }
    assert!(fixture.metric("tailwater_http_connections 0"));
}

#[tokio::test]
async fn a_connection_that_is_used_no_more_is_idle_and_no_staller() {
    let fixture = fixture();
    let (_server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut stream, "HEAD /health HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(read_to_end(&mut stream).await, "");
    counted(&fixture, &cut("idle", 1)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "HEAD /health HTTP/1.1\r\nhost: h").await;
    stream.write_all(b"GET /he").await.unwrap();
    read_to_end(&mut stream).await;
    counted(&fixture, &cut("header_timeout", 1)).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let fixture = fixture();
    let (_server, address) = serve(&fixture).await;
    let long = format!("GET /health HTTP/1.1\r\nhost: h\r\nx: {}", "y".repeat(17 * 1024));
    let many = format!("GET /health HTTP/1.1\r\nhost: h{}", "\r\nx: y".repeat(101));
    let target = format!("GET /health?{} HTTP/1.1\r\nhost: h", "y".repeat(17 * 1024));
    let name = format!("GET /health HTTP/1.1\r\nhost: h\r\n{}: x", "y".repeat(17 * 1024));
    // One that does not end, either.
    let endless = format!("GET /health HTTP/1.1\r\nhost: h\r\nx: {}", "y".repeat(100 * 1024));
    for (count, head) in [long, many, target, name, endless].iter().enumerate() {
        let answer = read_to_end(&mut request(address, head).await).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        counted(&fixture, &cut("header_size", count + 1)).await;
    }
    let fine = format!("GET /health HTTP/1.1\r\nhost: h\r\nx: {}", "y".repeat(15 * 1024));
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut stream, &fine).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_body_that_stands_still_is_408() {
    let fixture = fixture();
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (_server, address) = serve(&fixture).await;
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: 9";
    let mut stream = request(address, head).await;
    stream.write_all(b"half").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
    assert!(fixture.metric(&cut("body_timeout", 1)));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_gone_and_one_beside_it_gets_all() {
    let fixture = fixture();
    fixture.put("/v1/stream/s", "text/plain", "first").await;
    for _ in 0..12 {
        fixture.post("/v1/stream/s", "text/plain", vec![b'x'; 1 << 20]).await;
    }
    let (_server, address) = serve(&fixture).await;
    let follow = b"GET /v1/stream/s?offset=-1&live=sse HTTP/1.0\r\n\r\n";
    let mut staller = cramped(address).await;
    staller.write_all(follow).await.unwrap();
    let mut healthy = TcpStream::connect(address).await.unwrap();
    healthy.write_all(follow).await.unwrap();
    let mut taken = 0;
    timeout(LIMIT, async {
        let mut buffer = vec![0; 1 << 20];
        while taken < 12 << 20 {
            taken += tokio::io::AsyncReadExt::read(&mut healthy, &mut buffer).await.unwrap();
        }
    })
    .await
    .unwrap();
    counted(&fixture, &cut("stalled", 1)).await;
    counted(&fixture, "tailwater_http_sse_readers 1").await;
}

/// What has been counted under a name, by reason; nothing where that is nought.
fn reasons(fixture: &Fixture, name: &str) -> Vec<(String, String)> {
    let text = TextEncoder::new().encode_to_string(&fixture.registry.gather()).unwrap();
    let counted = |line: &str| {
        let (reason, count) = line.strip_prefix(name)?.strip_prefix("{reason=\"")?.split_once("\"} ")?;
        (count != "0").then(|| (reason.to_owned(), count.to_owned()))
    };
    text.lines().filter_map(counted).collect()
}

#[tokio::test]
async fn a_live_reader_that_takes_nothing_is_counted_as_a_staller_and_as_nothing_else() {
    // How much its stream keeps for who is slow, and whether that is too little: then it does not stall at the shard, but
    // on its way back there.
    for (ring_bytes, falls_behind) in [(1 << 20, false), (1, true)] {
        let config = Config { write_timeout: SHORT, send_buffer: 4096, delivery_shards: 1, ..Config::default() };
        let fixture = Fixture::with(config, tailwater_fanout::Config { ring_bytes, ..Default::default() });
        fixture.put("/v1/stream/s", "text/plain", "").await;
        let (_server, address) = serve(&fixture).await;
        let mut staller = cramped(address).await;
        staller.write_all(b"GET /v1/stream/s?offset=now&live=sse HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        counted(&fixture, "tailwater_shard_readers 1").await;
        // More than the two kernels hold for it, and less than the larger ring.
        for _ in 0..64 {
            fixture.post("/v1/stream/s", "text/plain", vec![b'x'; 8 << 10]).await;
        }
        counted(&fixture, "tailwater_http_connections 0").await;
        let once = [("stalled".to_owned(), "1".to_owned())];
        assert_eq!(reasons(&fixture, "tailwater_connections_cut_total"), once);
        assert_eq!(reasons(&fixture, "tailwater_http_sse_ends_total"), once);
        assert_eq!(fixture.metric("tailwater_shard_fell_behind_total 0"), !falls_behind);
        assert!(fixture.metric("tailwater_shard_readers 0") && fixture.metric("tailwater_http_sse_readers 0"));
    }
}
