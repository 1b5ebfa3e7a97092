//! TLS at the listener: both versions of HTTP, and clients that do not get through the handshake.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_server::{Config, Tls};
use tempfile::tempdir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
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

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// How long a new pair may take until it is shown: files are looked at every five seconds.
const REPLACED_WITHIN: Duration = Duration::from_secs(30);

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
    let directory = tempdir().unwrap();
    let client = written(directory.path());
    (Tls::load(&directory.path().join(CERTIFICATE), &directory.path().join(KEY)).unwrap(), client)
}

/// Puts a new pair into its place, in new files, as those who replace certificates do; a client that trusts no other.
fn written(directory: &Path) -> Client {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, text) in [(CERTIFICATE, made.cert.pem()), (KEY, made.signing_key.serialize_pem())] {
        fs::write(directory.join("new"), text).unwrap();
        fs::rename(directory.join("new"), directory.join(name)).unwrap();
    }
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    Client::of(roots, &[&version::TLS13, &version::TLS12])
}

impl Client {
    fn of(roots: RootCertStore, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap();
        Self { config: builder.with_root_certificates(roots).with_no_client_auth() }
    }

    async fn connect(&self, address: SocketAddr, protocols: &[&str]) -> TlsStream<TcpStream> {
        self.shake_hands(address, protocols).await.unwrap()
    }

    async fn shake_hands(&self, address: SocketAddr, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
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
async fn a_certificate_that_is_replaced_is_shown_to_whoever_comes_then_and_ends_nobody() {
    let directory = tempdir().unwrap();
    let before = written(directory.path());
    let tls = Tls::load(&directory.path().join(CERTIFICATE), &directory.path().join(KEY)).unwrap();
    // Who is connected may be silent for as long as this takes.
    let config = Config { tls: Some(tls), header_timeout: REPLACED_WITHIN * 2, ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    let (_server, address) = serve(&fixture).await;
    let mut open = before.connect(address, &["http/1.1"]).await;

    let after = written(directory.path());
    let shown = async {
        while after.shake_hands(address, &["http/1.1"]).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(REPLACED_WITHIN, shown).await.expect("the gateway looks at its files");
    assert!(before.shake_hands(address, &["http/1.1"]).await.is_err(), "the old one is shown no more");
    let answer = exchange(&mut open, "GET /health HTTP/1.1\r\nhost: h").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
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
