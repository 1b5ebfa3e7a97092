//! More than there is room for: what is too much is told so at once, and when it has gone everything is as before.

use std::{net::SocketAddr, time::Duration};

use tailwater_server::Config;
use tailwater_testkit::fault::Outage;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    fixture::Fixture,
    wire::{LIMIT, ask, counted, read_to_end, read_until, request, serve},
};

const FOLLOW: &str = "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h";
const READ: &str = "GET /v1/stream/s HTTP/1.1\r\nhost: h\r\nconnection: close";
const METRICS: &str = "GET /metrics HTTP/1.1\r\nhost: h";
/// The most requests that these tests let in at once.
const REQUESTS: usize = 20;
/// The same of connections.
const CONNECTIONS: usize = 40;

/// Little room for anything, and one stream.
async fn narrow() -> Fixture {
    let config = Config {
        max_connections: CONNECTIONS,
        max_requests: REQUESTS,
        max_body: 4096,
        body_budget: 8 * 1024,
        // Live responses are requests as all others then.
        delivery_shards: 0,
        ..Config::default()
    };
    let fanout = tailwater_fanout::Config {
        max_streams: 3,
        max_readers_per_stream: 2,
        max_waiting: 2,
        max_waiting_requests: 2,
        idle: Duration::from_millis(100),
        ..tailwater_fanout::Config::default()
    };
    let fixture = Fixture::with(config, fanout);
    fixture.put("/v1/stream/s", "text/plain", "first").await;
    fixture
}

fn post(stream: &str, length: usize) -> String {
    format!(
        "POST /v1/stream/{stream} HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\
         connection: close"
    )
}

/// A request with this much of its body.
async fn posting(address: SocketAddr, head: &str, sent: usize) -> TcpStream {
    let mut stream = request(address, head).await;
    stream.write_all(&vec![b'x'; sent]).await.unwrap();
    stream
}

/// Asks for something that is too much.
async fn refused(stream: &mut TcpStream, code: &str) {
    let answer = read_to_end(stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
}

/// Asks until the answer has this status.
async fn until(address: SocketAddr, head: &str, body: usize, status: u16) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = read_until(&mut posting(address, head, body).await, "\r\n").await;
        if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
            return;
        }
        assert!(Instant::now() < deadline, "{head}: {answer}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn limit(name: &str) -> String {
    format!("tailwater_requests_refused_total{{limit=\"{name}\"}} 1")
}

/// Meets every limit of the fan-out; what holds them.
async fn fill_the_streams(fixture: &Fixture, address: SocketAddr) -> Vec<TcpStream> {
    let mut held = Vec::new();
    // One write is under way, and two wait: plain ones might be under way together.
    for in_flight in 1..=3 {
        let claim = format!("producer-id: p{in_flight}\r\nproducer-epoch: 0\r\nproducer-seq: 0");
        held.push(posting(address, &format!("{}\r\n{claim}", post("s", 1)), 1).await);
        counted(fixture, &format!("tailwater_http_requests_in_flight {in_flight}")).await;
    }
    refused(&mut posting(address, &post("s", 1), 1).await, "stream_busy").await;
    counted(fixture, &limit("waiting_writes")).await;
    // Two wait for the present.
    for in_flight in 4..=5 {
        held.push(request(address, READ).await);
        counted(fixture, &format!("tailwater_http_requests_in_flight {in_flight}")).await;
    }
    refused(&mut request(address, READ).await, "stream_busy").await;
    counted(fixture, &limit("waiting_requests")).await;
    // Two more streams than the one there is are being looked into.
    for (in_flight, stream) in [(6, "a"), (7, "b")] {
        held.push(request(address, &READ.replace("/s ", &format!("/{stream} "))).await);
        counted(fixture, &format!("tailwater_http_requests_in_flight {in_flight}")).await;
    }
    refused(&mut request(address, &READ.replace("/s ", "/c ")).await, "over_capacity").await;
    counted(fixture, &limit("streams")).await;
    held
}

#[tokio::test]
async fn with_every_limit_met_at_once_what_is_too_much_is_told_so_and_when_it_has_gone_all_is_as_before() {
    let fixture = narrow().await;
    let (_server, address) = serve(&fixture).await;
    let mut watch = TcpStream::connect(address).await.unwrap();
    let mut readers = [request(address, FOLLOW).await, request(address, FOLLOW).await];
    for reader in &mut readers {
        read_until(reader, "upToDate").await;
    }
    refused(&mut request(address, &format!("{FOLLOW}\r\nconnection: close")).await, "too_many_readers").await;
    counted(&fixture, &limit("readers_per_stream")).await;

    fixture.upstream.set_outage(Outage::Silent);
    let held = fill_the_streams(&fixture, address).await;
    // A body that has not come whole, and with it the bytes that all of them may have.
    let slow = posting(address, &post("s", 4096), 4095).await;
    counted(&fixture, "tailwater_http_requests_in_flight 8").await;
    // That one, and what waits to be appended: a KiB each.
    counted(&fixture, "tailwater_http_body_bytes 7168").await;
    assert!(fixture.metric("tailwater_http_body_limit_bytes 8192"));
    refused(&mut posting(address, &post("s", 3000), 3000).await, "over_capacity").await;
    counted(&fixture, "tailwater_connections_refused_total{limit=\"body_bytes\"} 1").await;
    assert!(fixture.metric("tailwater_http_body_bytes 7168"), "what is refused holds nothing");
    // Heads without bodies, until there are as many requests as there may be.
    let mut idle = Vec::new();
    for _ in 8 + readers.len()..REQUESTS {
        idle.push(request(address, &post("s", 1)).await);
    }
    counted(&fixture, &format!("tailwater_http_requests_in_flight {}", REQUESTS - readers.len())).await;
    refused(&mut request(address, READ).await, "over_capacity").await;
    counted(&fixture, "tailwater_connections_refused_total{limit=\"requests\"} 1").await;
    // And connections that ask for nothing.
    for _ in 1 + REQUESTS..CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    counted(&fixture, &format!("tailwater_http_connections {CONNECTIONS}")).await;
    refused(&mut request(address, READ).await, "too_many_connections").await;
    assert!(ask(&mut watch, METRICS).await.starts_with("HTTP/1.1 200 "), "who watches is answered");

    fixture.upstream.set_outage(Outage::Over);
    for mut request in held {
        let answer = read_to_end(&mut request).await;
        let status = answer.split(' ').nth(1).unwrap();
        assert!(["200", "204", "404"].contains(&status), "who was let in is served: {answer}");
    }
    drop((slow, idle));
    counted(&fixture, "tailwater_http_requests_in_flight 0").await;
    counted(&fixture, "tailwater_http_body_bytes 0").await;
    counted(&fixture, "tailwater_http_connections 3").await;
    until(address, &post("s", 4096), 4096, 204).await;
    for stream in ["a", "b", "c", "d", "e"] {
        until(address, &READ.replace("/s ", &format!("/{stream} ")), 0, 404).await;
    }
    let [left, mut stays] = readers;
    drop(left);
    until(address, FOLLOW, 0, 200).await;
    fixture.post("/v1/stream/s", "text/plain", "the end").await;
    read_until(&mut stays, "data:the end").await;
}

#[tokio::test]
async fn a_write_that_is_refused_in_any_case_is_refused_before_its_body() {
    let fixture = Fixture::with(Config::default(), tailwater_fanout::Config { max_streams: 1, ..Default::default() });
    fixture.put("/v1/stream/s", "text/plain", "first").await;
    let (_server, address) = serve(&fixture).await;
    for method in ["POST", "PUT"] {
        let head = post("t", 1_000_000).replace("POST", method);
        // Who asks first has sent nothing, and is not asked to.
        refused(&mut request(address, &format!("{head}\r\nexpect: 100-continue")).await, "over_capacity").await;
        // Who does not is heard out, so that it reads the answer, and nothing is kept.
        refused(&mut posting(address, &head, 1_000_000).await, "over_capacity").await;
    }
    assert!(fixture.metric("tailwater_http_received_bytes_total 5"), "of the stream that there is");
}
