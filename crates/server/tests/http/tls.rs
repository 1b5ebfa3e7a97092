//! TLS at the listener: both versions of HTTP, and clients that do not get through the handshake.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_server::{Config, Tls};
use tempfile::tempdir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion, crypto::aws_lc_rs, pki_types::ServerName,
        version,
    },
};

use crate::{
    fixture::Fixture,
    surfaces::{OPERATOR, apart, guarded},
    wire::{LIMIT, counted, read_to_end, request, serve},
};

/// A client that trusts the gateway's certificate.
struct Client {
    config: ClientConfig,
}

fn fixture(config: Config) -> (Fixture, Client) {
    let (tls, client) = pair();
    (Fixture::with(Config { tls: Some(tls), ..config }, Default::default()), client)
}

/// What a gateway shows, and a client that trusts it.
fn pair() -> (Tls, Client) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempdir().unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Tls::load(&certificate, &key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (tls, Client::of(roots, &[&version::TLS13, &version::TLS12]))
}

impl Client {
    fn of(roots: RootCertStore, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap();
        Self { config: builder.with_root_certificates(roots).with_no_client_auth() }
    }

    async fn connect(&self, address: SocketAddr, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

async fn exchange(stream: &mut TlsStream<TcpStream>, head: &str) -> String {
    stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn both_versions_of_http_are_agreed_on_and_locations_are_secure() {
    let (fixture, client) = fixture(Config::default());
    let (_server, address) = serve(&fixture).await;
    for protocols in [&["http/1.1"][..], &[]] {
        let mut stream = client.connect(address, protocols).await;
        let answer = exchange(&mut stream, &format!("PUT /v1/stream/s{} HTTP/1.1\r\nhost: h", protocols.len())).await;
        assert!(answer.starts_with("HTTP/1.1 201 ") && answer.contains("location: https://h/v1/stream/s"), "{answer}");
    }
    fixture.post("/v1/stream/s0", "application/octet-stream", "abc").await;
    let stream = client.connect(address, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let page = Request::get("https://h/v1/stream/s0?offset=-1").body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(page).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "abc");
}

#[tokio::test]
async fn a_session_is_resumed() {
    let (fixture, client) = fixture(Config::default());
    let (_server, address) = serve(&fixture).await;
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = client.connect(address, &["http/1.1"]).await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        exchange(&mut stream, "GET /health HTTP/1.1\r\nhost: h").await;
    }
}

#[tokio::test]
async fn who_speaks_no_tls_gets_nothing_and_who_stalls_is_cut() {
    let short = Config { header_timeout: Duration::from_millis(300), ..Config::default() };
    let (fixture, client) = fixture(short);
    let (_server, address) = serve(&fixture).await;
    let answer = read_to_end(&mut request(address, "GET /health HTTP/1.1\r\nhost: h").await).await;
    assert!(!answer.contains("HTTP"), "an alert at most: {answer}");
    // A record that says that it is a handshake, and no more.
    let mut staller = TcpStream::connect(address).await.unwrap();
    staller.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
    read_to_end(&mut staller).await;
    counted(&fixture, "tailwater_connections_cut_total{reason=\"handshake\"} 1").await;
    let mut slow = client.connect(address, &["http/1.1"]).await;
    slow.write_all(b"GET /he").await.unwrap();
    timeout(LIMIT, slow.read_to_end(&mut Vec::new())).await.unwrap().unwrap_or_default();
    counted(&fixture, "tailwater_connections_cut_total{reason=\"header_timeout\"} 1").await;
    let mut fine = client.connect(address, &["http/1.1"]).await;
    assert!(exchange(&mut fine, "GET /health HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_refusal_is_encrypted_too() {
    let (fixture, client) = fixture(Config { max_connections: 0, ..Config::default() });
    let (_server, address) = serve(&fixture).await;
    let mut stream = client.connect(address, &["http/1.1"]).await;
    let answer = exchange(&mut stream, "GET /health HTTP/1.1\r\nhost: h").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too_many_connections"), "{answer}");
}

#[tokio::test]
async fn operations_are_asked_over_tls_too_and_in_no_other_way() {
    let (tls, client) = pair();
    let (fixture, _server, [_, operations]) = apart(guarded(Config { tls: Some(tls), ..Config::default() })).await;
    let heads = ["GET /metrics HTTP/1.1\r\nhost: h", "GET /v1/admin/projects/chat HTTP/1.1\r\nhost: h"];
    let heads = heads.map(|head| format!("{head}\r\nauthorization: Bearer {OPERATOR}"));
    for (head, part) in heads.iter().zip(["\ntailwater_operations_connections 1\n", "\"id\":\"chat\""]) {
        let mut stream = client.connect(operations, &["http/1.1"]).await;
        let answer = exchange(&mut stream, head).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(part), "{answer}");
        let plain = read_to_end(&mut request(operations, head).await).await;
        assert!(!plain.contains("HTTP") && !plain.contains(part), "an alert at most: {plain}");
        counted(&fixture, "tailwater_operations_connections 0").await;
    }
    assert_eq!(client.connect(operations, &["h2", "http/1.1"]).await.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}
