//! What needs a socket: connections and their end.

use std::time::Duration;

use tailwater_server::{Config, Ended, Server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

const LIMIT: Duration = Duration::from_secs(20);

async fn serve(fixture: &Fixture) -> (Server, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (Server::start(&fixture.app, vec![listener]), address)
}

/// Reads until `end` has come, and returns all that came.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        let mut buffer = [0; 4096];
        let read = timeout(LIMIT, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "ended before {end:?}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

async fn ask(stream: &mut TcpStream, head: &str) -> String {
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
    read_until(stream, "\r\n\r\n").await
}

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
