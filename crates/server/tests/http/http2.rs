//! HTTP/2: many streams on one connection, none of which can harm the others.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_server::{Config, Ended, Server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ends::{House, bearer},
    fixture::Fixture,
    wire::{LIMIT, counted, serve},
};

const SHORT: Duration = Duration::from_millis(300);

struct Client(http2::SendRequest<Empty<Bytes>>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // Room for little on a stream, and for much on all together.
        builder.initial_stream_window_size(4096).initial_connection_window_size(16 << 20);
        let (sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.ask(Request::get(format!("http://h{path}")).body(Empty::new()).unwrap()).await
    }

    async fn ask(&mut self, request: Request<Empty<Bytes>>) -> Response<Incoming> {
        timeout(LIMIT, self.0.send_request(request)).await.unwrap().unwrap()
    }
}

/// Reads until `end` has come.
async fn read_until(body: &mut Incoming, end: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(end) {
        let frame = timeout(LIMIT, body.frame()).await.unwrap().unwrap().unwrap();
        seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    seen
}

async fn shut_down(server: Server) {
    assert_eq!(timeout(LIMIT, server.shut_down(CancellationToken::new())).await, Ok(Ended::Clean));
}

#[tokio::test]
async fn a_stream_that_stalls_is_reset_and_the_one_beside_it_gets_everything() {
    let config = Config { write_timeout: SHORT, drain: SHORT, ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "first").await;
    for n in 0..8 {
        fixture.post("/v1/stream/s", "text/plain", format!("{n}{}", "z".repeat(100_000))).await;
    }
    let (server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let stalled = client.get("/v1/stream/s?offset=-1&live=sse").await;
    let page = client.get("/v1/stream/s?offset=-1").await;
    let mut healthy = client.get("/v1/stream/s?offset=-1&live=sse").await;
    let seen = read_until(healthy.body_mut(), "upToDate").await;
    assert_eq!(seen.matches('z').count(), 800_000);

    counted(&fixture, "tailwater_connections_cut_total{reason=\"stalled_stream\"} 2").await;
    counted(&fixture, "tailwater_http_sse_readers 1").await;
    for reset in [stalled, page] {
        assert!(timeout(LIMIT, reset.into_body().collect()).await.unwrap().is_err(), "reset, not ended");
    }
    fixture.post("/v1/stream/s", "text/plain", "second").await;
    read_until(healthy.body_mut(), "data:second").await;
    drop(healthy);
    shut_down(server).await;
}

#[tokio::test]
async fn events_end_with_their_token_and_the_streams_beside_them_go_on() {
    let house = House::with(Config::default(), Default::default(), Duration::ZERO);
    house.put("private", "a").await;
    let (server, address) = serve(&house.fixture).await;
    let mut client = Client::connect(address).await;
    let mut live = async |expires_in| {
        let uri = "http://h/v1/stream/chat/s?offset=-1&live=sse";
        let request = Request::get(uri).header("authorization", bearer("reader", "read", expires_in));
        client.ask(request.body(Empty::new()).unwrap()).await
    };
    let (short, mut long) = (live(1).await, live(60).await);
    let whole = timeout(LIMIT, short.into_body().collect()).await.unwrap().unwrap().to_bytes();
    let whole = String::from_utf8_lossy(&whole);
    assert!(whole.contains("data:a\n"), "{whole}");
    assert!(whole.ends_with("event: unauthorized\ndata:{\"reason\":\"expired\"}\n\nretry: 517\n\n"), "{whole}");
    read_until(long.body_mut(), "data:a\n").await;
    house.post("b").await;
    read_until(long.body_mut(), "data:b\n").await;
    drop((client, long));
    shut_down(server).await;
}

#[tokio::test]
async fn a_body_is_whole_however_little_room_there_is_for_it() {
    let fixture = Fixture::new();
    fixture.put("/v1/stream/s", "text/plain", "first").await;
    fixture.post("/v1/stream/s", "text/plain", "x".repeat(100_000)).await;
    let (server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let page = client.get("/v1/stream/s?offset=-1").await;
    assert_eq!(page.headers()["content-length"], "100005");
    let body = timeout(LIMIT, page.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(body.len(), 100_005);
    drop(client);
    shut_down(server).await;
}

#[tokio::test]
async fn a_full_gateway_tells_a_client_of_http2_too() {
    let fixture = Fixture::with(Config { max_connections: 0, ..Config::default() }, Default::default());
    let (server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let refused = client.get("/health").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("too_many_connections"));
    // And its connection ends.
    assert!(
        timeout(LIMIT, async {
            while client.0.ready().await.is_ok() {
                tokio::task::yield_now().await
            }
        })
        .await
        .is_ok()
    );
    shut_down(server).await;
}

#[tokio::test]
async fn a_connection_that_has_lasted_long_enough_takes_no_more_requests_and_finishes_those_it_has() {
    let config = Config { max_connection_age: SHORT, drain: SHORT, ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let mut live = client.get("/v1/stream/s?offset=-1&live=sse").await.into_body();
    read_until(&mut live, "upToDate").await;
    let asks = async {
        let ask = || Request::get("http://h/health").body(Empty::new()).unwrap();
        while client.0.send_request(ask()).await.is_ok() {}
    };
    assert!(timeout(LIMIT, asks).await.is_ok(), "it takes no more");
    fixture.post("/v1/stream/s", "text/plain", "b").await;
    read_until(&mut live, "data:b").await;
    drop(live);
    counted(&fixture, "tailwater_connections_cut_total{reason=\"age\"} 1").await;
    shut_down(server).await;
}

#[tokio::test]
async fn who_resets_streams_as_fast_as_it_opens_them_is_cut() {
    let fixture = Fixture::new();
    let (server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut attack = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for id in (1..2000_u32).step_by(2) {
        // HEADERS (the whole of a request, from the static table), and RST_STREAM (CANCEL).
        attack.extend_from_slice(b"\0\0\x03\x01\x05");
        attack.extend_from_slice(&id.to_be_bytes());
        attack.extend_from_slice(b"\x82\x86\x84\0\0\x04\x03\0");
        attack.extend_from_slice(&id.to_be_bytes());
        attack.extend_from_slice(b"\0\0\0\x08");
    }
    stream.write_all(&attack).await.unwrap();
    // ENHANCE_YOUR_CALM, and the end. It may come as a reset, with what was sent still unread.
    let mut seen = Vec::new();
    let _end = timeout(LIMIT, stream.read_to_end(&mut seen)).await.unwrap();
    counted(&fixture, "tailwater_connections_cut_total{reason=\"resets\"} 1").await;
    counted(&fixture, "tailwater_http_requests_in_flight 0").await;
    shut_down(server).await;
}

#[tokio::test]
async fn streams_of_one_connection_count_as_the_requests_that_they_are() {
    let fixture = Fixture::with(Config { max_requests: 2, ..Config::default() }, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "first").await;
    let (server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let mut first = client.get("/v1/stream/s?offset=-1&live=sse").await.into_body();
    let second = client.get("/v1/stream/s?offset=-1&live=sse").await.into_body();
    read_until(&mut first, "upToDate").await;
    let refused = client.get("/v1/stream/s").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(fixture.metric("tailwater_connections_refused_total{limit=\"requests\"} 1"));
    assert_eq!(client.get("/readyz").await.status(), 200);
    drop(second);
    counted(&fixture, "tailwater_http_sse_readers 1").await;
    assert_eq!(client.get("/v1/stream/s").await.status(), 200);
    drop((first, client));
    shut_down(server).await;
}

#[tokio::test]
async fn who_names_two_hosts_and_never_ends_a_body_counts_among_all_that_are_served() {
    let fixture = Fixture::with(Config { max_requests: 2, ..Config::default() }, Default::default());
    let (server, address) = serve(&fixture).await;
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut post = |path| {
        let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let request = Request::post(format!("http://a{path}")).header("host", "b");
        sender.send_request(request.body(body).unwrap())
    };
    let dripping = [post("/v1/stream/s"), post("/health")];
    counted(&fixture, "tailwater_http_requests_in_flight 2").await;
    for path in ["/v1/stream/s", "/metrics"] {
        let refused = timeout(LIMIT, post(path)).await.unwrap().unwrap();
        assert_eq!(refused.status(), 503, "{path}");
    }
    assert!(fixture.metric("tailwater_connections_refused_total{limit=\"requests\"} 2"));
    connection.abort();
    drop(dripping);
    counted(&fixture, "tailwater_http_requests_in_flight 0").await;
    shut_down(server).await;
}

/// What a client says first: that it speaks HTTP/2, and no settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame of HEADERS on the first stream.
fn headers(flags: u8, method: u8, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags, 1, &block(method, path, fields))
}

/// The head of a request with these further fields, each literal and without Huffman.
pub(crate) fn block(method: u8, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let mut block = [&[method, 0x86, 0x01][..], &string("h"), &[0x04], &string(path)].concat();
    for (name, value) in fields {
        block.extend([&[0x00][..], &string(name), &string(value)].concat());
    }
    block
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) const HEADERS: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const GET: u8 = 0x82;
pub(crate) const POST: u8 = 0x83;

#[tokio::test]
async fn a_connection_whose_first_request_never_comes_or_never_ends_is_not_waited_for() {
    let fixture = Fixture::with(Config { header_timeout: SHORT, ..Config::default() }, Default::default());
    let (server, address) = serve(&fixture).await;
    // The preface alone, with settings, and with a head that goes on in another frame for ever.
    let begun = [PREFACE[..24].to_vec(), PREFACE.to_vec(), [PREFACE, &headers(0, GET, "/health", &[])].concat()];
    for (count, begun) in begun.into_iter().enumerate() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&begun).await.unwrap();
        timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap_or_default();
        counted(&fixture, &format!("tailwater_connections_cut_total{{reason=\"header_timeout\"}} {}", count + 1)).await;
    }
    shut_down(server).await;
}

#[tokio::test]
async fn a_body_that_stands_still_ends_its_stream_alone() {
    let fixture = Fixture::with(Config { body_timeout: SHORT, ..Config::default() }, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (server, address) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let slow = headers(END_HEADERS, POST, "/v1/stream/s", &[("content-type", "text/plain")]);
    stream.write_all(&[PREFACE, &slow, b"\0\0\x01\0\0\0\0\0\x01x"].concat()).await.unwrap();
    counted(&fixture, "tailwater_connections_cut_total{reason=\"body_timeout\"} 1").await;
    counted(&fixture, "tailwater_http_problems_total{code=\"body_timeout\",fault=\"client\"} 1").await;
    assert!(fixture.metric("tailwater_http_connections 1"), "the connection goes on");
    drop(stream);
    shut_down(server).await;
}

#[tokio::test]
async fn a_head_or_a_url_that_is_too_large_is_431() {
    let fixture = Fixture::new();
    let (server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let long = "y".repeat(17 * 1024);
    let mut many = Request::get("http://h/health");
    for n in 0..600 {
        many = many.header(format!("x-{n}"), "");
    }
    let requests = [
        Request::get("http://h/health").header("x", &long).body(Empty::new()).unwrap(),
        Request::get(format!("http://h/health?{long}")).body(Empty::new()).unwrap(),
        many.body(Empty::new()).unwrap(),
    ];
    for request in requests {
        let answered = timeout(LIMIT, client.0.send_request(request)).await.unwrap().unwrap();
        assert_eq!(answered.status(), 431);
        assert_eq!(client.get("/health").await.status(), 200, "the connection goes on");
    }
    drop(client);
    shut_down(server).await;
}

#[tokio::test]
async fn what_only_http1_has_is_no_request_of_http2() {
    let fixture = Fixture::new();
    let (server, address) = serve(&fixture).await;
    let fields = [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("te", "gzip"),
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("X", "upper case"),
        ("x y", "a"),
        ("x:", "a"),
        ("host", "another"),
        ("content-length", "5"),
    ];
    for (name, value) in fields {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // END_STREAM, so that a length is a lie.
        stream
            .write_all(&[PREFACE, &headers(END_HEADERS | END_STREAM, GET, "/health", &[(name, value)])].concat())
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap_or_default();
        let served = "tailwater_http_requests_total{method=\"get\",route=\"health\",status=\"2xx\"} 1";
        assert!(!fixture.metric(served), "{name}: {value:?}");
    }
    shut_down(server).await;
}
