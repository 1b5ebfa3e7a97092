//! Requests that others could take for something else (RFC 9112, section 11.2): each is refused, its connection ends, and
//! nothing in it or behind it is served as another request.

use tailwater_server::Config;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    fixture::Fixture,
    wire::{ask, counted, read_to_end, read_until, request, serve},
};

/// What is to be smuggled in.
const SMUGGLED: &str =
    "PUT /v1/stream/smuggled HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n";
/// A request with a body, up to where something is said about that.
const POST: &str = "POST /v1/stream/s HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\n";
const CHUNKED: &str =
    "POST /v1/stream/s HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
const GET: &str = "GET /health HTTP/1.1\r\nhost: h\r\n";

/// Shapes of heads, each with what it begins with.
const HEADS: [(&str, &str); 56] = [
    // Where the body ends.
    (POST, "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
    (POST, "content-length: 0\r\ncontent-length: 5\r\n\r\n"),
    (POST, "content-length: 5\r\ncontent-length: 0\r\n\r\nhello"),
    (POST, "content-length: 0\r\ncontent-length: 0\r\n\r\n"),
    (POST, "content-length: 0, 0\r\n\r\n"),
    (POST, "content-length: +0\r\n\r\n"),
    (POST, "content-length: -1\r\n\r\n"),
    (POST, "content-length: 0x5\r\n\r\nhello"),
    (POST, "content-length: 5 5\r\n\r\nhello"),
    (POST, "content-length:\r\n\r\n"),
    (POST, "content-length: 18446744073709551616\r\n\r\n"),
    (POST, "content-length: 00000000000000000000005\r\n\r\nhello"),
    (POST, "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: identity\r\n\r\n"),
    (POST, "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding:\r\n\r\n"),
    (POST, "transfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    (POST, "transfer-encoding\0: chunked\r\n\r\n0\r\n\r\n"),
    (POST, "content-length : 0\r\n\r\n"),
    ("POST /v1/stream/s HTTP/1.0\r\ncontent-type: text/plain\r\n", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    // Where a line ends.
    (GET, "x: a\r\n b\r\n\r\n"),
    (GET, "x: a\r\n\tcontent-length: 5\r\n\r\n"),
    (POST, "content-length:\r\n 0\r\n\r\n"),
    ("GET /health HTTP/1.1\r\n", " host: h\r\n\r\n"),
    ("GET /health HTTP/1.1\n", "host: h\r\n\r\n"),
    (GET, "x: a\ny: b\r\n\r\n"),
    (GET, "x: a\n\r\n"),
    (GET, "\n"),
    (GET, "x: a\r\n\n"),
    (GET, "x: a\rcontent-length: 5\r\n\r\n"),
    (GET, "x: a\r\r\n\r\n"),
    (GET, "\r\r\n"),
    ("\n", "GET /health HTTP/1.1\r\nhost: h\r\n\r\n"),
    ("\rGET", " /health HTTP/1.1\r\nhost: h\r\n\r\n"),
    // What stands in a line.
    (GET, "x: a\0b\r\n\r\n"),
    (GET, "x\0: a\r\n\r\n"),
    (GET, ": a\r\n\r\n"),
    (GET, "nothing\r\n\r\n"),
    (GET, "x(y): a\r\n\r\n"),
    ("GET /hea\0lth HTTP/1.1\r\n", "host: h\r\n\r\n"),
    ("GET  /health HTTP/1.1\r\n", "host: h\r\n\r\n"),
    ("GET\t/health HTTP/1.1\r\n", "host: h\r\n\r\n"),
    ("GET /health HTTP/1.1 \r\n", "host: h\r\n\r\n"),
    ("GET /health HTTP/1.2\r\n", "host: h\r\n\r\n"),
];

/// Shapes of bodies in chunks.
const CHUNKS: [&str; 22] = [
    "5\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5h\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    ";x\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "5;x\nhello\r\n0\r\n\r\n",
    "5;x\rhello\r\n0\r\n\r\n",
    "5;\0\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello world\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhello\r\n0\r\ncontent-length: 5\r\n\r\n",
    "5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    "5\r\nhello\r\n0\r\nx: y\n\r\n",
    "5\r\nhello\r\n0\r\n x: y\r\n\r\n",
];

/// The statuses of all answers.
fn statuses(answers: &str) -> Vec<&str> {
    let starts = answers.match_indices("HTTP/1.").map(|(at, _)| &answers[at..]);
    starts.filter_map(|answer| answer.split(' ').nth(1)).collect()
}

/// What is answered to these bytes and to a request behind them, until the connection ends.
async fn answered(address: std::net::SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{bytes}{SMUGGLED}").as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

async fn nothing_was_smuggled(fixture: &Fixture, shape: &str) {
    assert_eq!(fixture.get("/v1/stream/smuggled").await.status, 404, "{shape:?}");
}

/// Ends what is live on a stream.
async fn close(fixture: &Fixture, path: &str) {
    assert_eq!(fixture.send("POST", path, &[("stream-closed", "true")], "").await.status, 204);
}

fn malformed(count: usize) -> String {
    format!("tailwater_connections_cut_total{{reason=\"malformed\"}} {count}")
}

#[tokio::test]
async fn a_head_that_could_be_read_in_two_ways_is_400_and_the_last_of_its_connection() {
    let fixture = Fixture::new();
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (_server, address) = serve(&fixture).await;
    for (count, (begins, goes_on)) in HEADS.iter().enumerate() {
        let shape = format!("{begins}{goes_on}");
        let answers = answered(address, &shape).await;
        assert_eq!(statuses(&answers), ["400"], "{shape:?}: {answers}");
        nothing_was_smuggled(&fixture, &shape).await;
        counted(&fixture, &malformed(count + 1)).await;
    }
    assert_eq!(fixture.get("/v1/stream/s?offset=-1").await.body, "a", "nothing was appended");
}

#[tokio::test]
async fn a_body_in_chunks_that_could_be_read_in_two_ways_is_400_and_the_last_of_its_connection() {
    let fixture = Fixture::new();
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (_server, address) = serve(&fixture).await;
    for (count, chunks) in CHUNKS.iter().enumerate() {
        let answers = answered(address, &format!("{CHUNKED}{chunks}")).await;
        assert_eq!(statuses(&answers), ["400"], "{chunks:?}: {answers}");
        assert!(answers.contains("broken_body"), "{chunks:?}: {answers}");
        nothing_was_smuggled(&fixture, chunks).await;
        counted(&fixture, &malformed(count + 1)).await;
    }
    assert_eq!(fixture.get("/v1/stream/s?offset=-1").await.body, "a", "nothing was appended");
}

#[tokio::test]
async fn what_has_one_meaning_only_is_served() {
    let fixture = Fixture::new();
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (_server, address) = serve(&fixture).await;
    let table = [
        (format!("\r\n\r\n{GET}\r\n"), "200"),
        (format!("{GET}x:\ta b \u{e9}\r\n\r\n"), "200"),
        (format!("{CHUNKED}1\r\nb\r\n0001;x=\"y z\"\r\nc\r\n0;x\r\nx: y\r\n\r\n"), "204"),
        (format!("{POST}Content-Length:01\r\n\r\nd"), "204"),
        (format!("{POST}Transfer-Encoding:\tCHUNKED\r\n\r\n1\r\ne\r\n0\r\n\r\n"), "204"),
        // A body where none is expected is one all the same.
        (format!("{GET}content-length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()), "200"),
        (format!("{GET}transfer-encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()), "200"),
        // No other method, no other protocol, no tunnel.
        ("get /health HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(), "405"),
        ("GET http://h/health HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(), "200"),
        ("OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(), "204"),
        ("CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\n\r\n".to_owned(), "404"),
        (
            format!("{GET}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n"),
            "200",
        ),
        (format!("{GET}upgrade: websocket\r\nconnection: upgrade\r\n\r\n"), "200"),
    ];
    for (bytes, status) in table {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let last = "GET /readyz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        stream.write_all(format!("{bytes}{last}").as_bytes()).await.unwrap();
        let answers = read_to_end(&mut stream).await;
        assert_eq!(statuses(&answers), [status, "200"], "{bytes:?}: {answers}");
        nothing_was_smuggled(&fixture, &bytes).await;
    }
    assert_eq!(fixture.get("/v1/stream/s?offset=-1").await.body, "abcde");
    assert!(!fixture.metric(&malformed(1)));
}

#[tokio::test]
async fn nothing_is_smuggled_behind_a_live_response() {
    let fixture = Fixture::with(Config { delivery_shards: 1, ..Config::default() }, Default::default());
    let (_server, address) = serve(&fixture).await;
    let behind =
        [HEADS[0], HEADS[2], HEADS[13], HEADS[32], HEADS[37], HEADS[39], HEADS[46]].map(|(a, b)| format!("{a}{b}"));
    let behind =
        behind.into_iter().chain([format!("{CHUNKED}5;x\nhello"), format!("{CHUNKED}5\nhello"), "\0".to_owned()]);
    for (n, bytes) in behind.enumerate() {
        for (live, status) in [("offset=-1&live=sse", "200"), ("offset=now&live=long-poll", "204")] {
            let path = format!("/v1/stream/{status}-{n}");
            fixture.put(&path, "text/plain", "a").await;
            let mut stream = request(address, &format!("GET {path}?{live} HTTP/1.1\r\nhost: h")).await;
            // Some of it with the request, and the rest when the socket is elsewhere.
            stream.write_all(bytes.as_bytes()).await.unwrap();
            counted(&fixture, "tailwater_shard_readers 1").await;
            stream.write_all(SMUGGLED.as_bytes()).await.unwrap();
            close(&fixture, &path).await;
            let answers = read_to_end(&mut stream).await;
            assert_eq!(statuses(&answers), [status, "400"], "{bytes:?}: {answers}");
            nothing_was_smuggled(&fixture, &bytes).await;
            counted(&fixture, "tailwater_shard_readers 0").await;
        }
    }
    // A live request with a body, which is no request.
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let head = format!("GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h\r\ncontent-length: {}", SMUGGLED.len());
    let mut stream = request(address, &head).await;
    stream.write_all(SMUGGLED.as_bytes()).await.unwrap();
    read_until(&mut stream, "upToDate").await;
    close(&fixture, "/v1/stream/s").await;
    read_until(&mut stream, "streamClosed").await;
    nothing_was_smuggled(&fixture, &head).await;
}

#[tokio::test]
async fn a_request_that_names_two_hosts_or_none_is_refused_and_the_next_one_is_served() {
    let fixture = Fixture::new();
    let (_server, address) = serve(&fixture).await;
    let table = [
        "GET /health HTTP/1.1",
        "GET /health HTTP/1.1\r\nhost: h\r\nhost: g",
        "GET /health HTTP/1.1\r\nhost: h\r\nHost: h",
        "GET http://g/health HTTP/1.1\r\nhost: h",
        "GET http://h:1/health HTTP/1.1\r\nhost: h",
        "GET http://u@h/health HTTP/1.1\r\nhost: h",
        "GET /health HTTP/1.1\r\nhost: h/health",
        "GET /health HTTP/1.1\r\nhost: u@h",
        "OPTIONS /health HTTP/1.1\r\nhost: h, g",
    ];
    let mut stream = TcpStream::connect(address).await.unwrap();
    for head in table {
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "}").await;
        assert_eq!(statuses(&answer), ["400"], "{head:?}: {answer}");
        assert!(answer.contains("\"code\":\"invalid_host\""), "{head:?}: {answer}");
        assert!(ask(&mut stream, "HEAD /health HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200 "), "{head:?}");
    }
    // Without a version that knows the field, nobody has to send it.
    assert!(read_to_end(&mut request(address, "GET /health HTTP/1.0").await).await.contains(" 200 "));
}

#[tokio::test]
async fn who_has_sent_a_host_gets_it_back_as_a_location_and_nobody_else_does() {
    let fixture = Fixture::new();
    let (_server, address) = serve(&fixture).await;
    let forged = "host: evil.example\r\nx-forwarded-host: evil.example\r\nforwarded: host=evil.example\r\n\
                  x-forwarded-proto: evil.example\r\nx-original-url: /evil.example\r\nx-forwarded-for: 192.0.2.1";
    let table = [
        ("PUT", "/v1/stream/s", true),
        ("PUT", "/v1/stream/s", false),
        ("POST", "/v1/stream/s", false),
        ("GET", "/v1/stream/s", false),
        ("GET", "/v1/stream/s?offset=-1", false),
        ("GET", "/v1/stream/missing", false),
        ("HEAD", "/v1/stream/s", false),
        ("GET", "/v1/stream/s?offset=now&live=nonsense", false),
        ("GET", "/nothing", false),
        ("GET", "/health", false),
        ("GET", "/metrics", false),
        ("OPTIONS", "/v1/stream/s", false),
        ("DELETE", "/v1/stream/s", false),
    ];
    for (method, path, told) in table {
        let head = format!("{method} {path} HTTP/1.1\r\n{forged}\r\ncontent-type: text/plain\r\nconnection: close");
        let answer = read_to_end(&mut request(address, &head).await).await;
        let lines: Vec<_> = answer.split("\r\n").filter(|line| line.contains("evil.example")).collect();
        let location = ["location: http://evil.example/v1/stream/s"];
        assert_eq!(lines, if told { &location[..] } else { &[] }, "{method} {path}: {answer}");
    }
    let public = Config { public_url: Some("https://a.example".parse().unwrap()), ..Config::default() };
    let fixture = Fixture::with(public, Default::default());
    let (_server, address) = serve(&fixture).await;
    let head = format!("PUT /v1/stream/s HTTP/1.1\r\n{forged}\r\ncontent-type: text/plain\r\nconnection: close");
    let answer = read_to_end(&mut request(address, &head).await).await;
    assert!(
        answer.contains("location: https://a.example/v1/stream/s\r\n") && !answer.contains("evil.example"),
        "{answer}"
    );
}
