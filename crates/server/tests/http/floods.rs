//! Clients of HTTP/2 that go beyond what they may, frame by frame.

use std::{net::SocketAddr, time::Duration};

use tailwater_server::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fixture::Fixture,
    http2::{END_HEADERS, END_STREAM, GET, HEADERS, POST, PREFACE, block, frame},
    wire::{LIMIT, counted, cramped, serve},
};

const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

/// What a client may have, as the documentation says.
const STREAMS: u32 = 1000;
const RESETS: u32 = 100;
/// Of a head, behind the first.
const FRAMES: usize = 6;

struct Client(TcpStream);

struct Frame {
    stream: u32,
    payload: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let mut client = Self(TcpStream::connect(address).await.unwrap());
        client.send(PREFACE).await;
        client
    }

    async fn send(&mut self, frames: &[u8]) {
        self.0.write_all(frames).await.unwrap();
    }

    /// The next frame of this kind.
    async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let mut head = [0; 9];
            timeout(LIMIT, self.0.read_exact(&mut head)).await.expect("a frame of this kind").unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut payload).await.unwrap();
            if head[3] == kind {
                return Frame { stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload };
            }
        }
    }

    /// Waits until the server has seen all that was sent, and goes on.
    async fn is_served(&mut self) {
        self.send(&frame(PING, 0, 0, b"all seen")).await;
        while self.next(PING).await.payload != b"all seen" {}
    }

    /// Waits until the server has ended the connection. That may be a reset, with what was sent still unread.
    async fn ends(mut self) {
        let _end = timeout(LIMIT, self.0.read_to_end(&mut Vec::new())).await.expect("the end");
    }
}

fn get(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(GET, "/health", fields))
}

const CUT: &str = "tailwater_connections_cut_total{reason=\"resets\"} 1";

#[tokio::test]
async fn who_opens_more_streams_than_it_may_is_refused_those_alone() {
    const REFUSED_STREAM: [u8; 4] = 7_u32.to_be_bytes();
    const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
    let fixture = Fixture::new();
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (_server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let settings = client.next(SETTINGS).await.payload;
    for (setting, value) in [(3_u16, STREAMS), (6, 16 * 1024)] {
        let said = [&setting.to_be_bytes()[..], &value.to_be_bytes()].concat();
        assert!(settings.chunks(6).any(|setting| setting == said), "{setting} in {settings:?}");
    }
    let head = block(POST, "/v1/stream/s", &[("content-type", "text/plain")]);
    let open: Vec<_> = (0..STREAMS).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &head)).collect();
    client.send(&open).await;
    counted(&fixture, &format!("tailwater_http_requests_in_flight {STREAMS}")).await;
    for beyond in [2 * STREAMS + 1, 2 * STREAMS + 3] {
        client.send(&get(beyond, &[])).await;
        let refused = client.next(RST_STREAM).await;
        assert_eq!((refused.stream, refused.payload), (beyond, REFUSED_STREAM.to_vec()));
    }
    assert!(fixture.metric(&format!("tailwater_http_requests_in_flight {STREAMS}")), "the others go on");
    client.send(&frame(RST_STREAM, 0, 1, &CANCEL)).await;
    let next = 2 * STREAMS + 5;
    client.send(&get(next, &[])).await;
    assert_eq!(client.next(HEADERS).await.stream, next, "where one has gone there is room for another");
}

#[tokio::test]
async fn who_makes_the_gateway_reset_one_stream_after_the_other_is_cut() {
    let fixture = Fixture::new();
    let (_server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let malformed = |n: u32| get(2 * n + 1, &[("connection", "close")]);
    client.send(&(0..RESETS).flat_map(malformed).collect::<Vec<_>>()).await;
    client.is_served().await;
    client.send(&malformed(RESETS)).await;
    client.ends().await;
    counted(&fixture, CUT).await;
}

#[tokio::test]
async fn a_head_in_ever_more_frames_ends_its_connection() {
    let fixture = Fixture::new();
    let (_server, address) = serve(&fixture).await;
    let mut client = Client::connect(address).await;
    let begun = |stream| frame(HEADERS, END_STREAM, stream, &block(GET, "/health", &[]));
    // Each without a field, so that the head never becomes too large.
    let further = |stream| frame(CONTINUATION, 0, stream, &[]);
    let last = frame(CONTINUATION, END_HEADERS, 1, &[]);
    client.send(&[begun(1), further(1).repeat(FRAMES - 1), last].concat()).await;
    assert_eq!(client.next(HEADERS).await.stream, 1);
    client.send(&[begun(3), further(3).repeat(FRAMES)].concat()).await;
    client.ends().await;
    counted(&fixture, CUT).await;
}

#[tokio::test]
async fn who_asks_for_answers_and_takes_none_is_cut() {
    let config = Config { write_timeout: Duration::from_millis(300), ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    let (_server, address) = serve(&fixture).await;
    let floods = [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])];
    for (count, flood) in floods.into_iter().enumerate() {
        let mut client = cramped(address).await;
        client.write_all(PREFACE).await.unwrap();
        let flood = flood.repeat(1000);
        let floods = async { while client.write_all(&flood).await.is_ok() {} };
        timeout(LIMIT, floods).await.expect("the end");
        counted(&fixture, &format!("tailwater_connections_cut_total{{reason=\"stalled\"}} {}", count + 1)).await;
    }
}
