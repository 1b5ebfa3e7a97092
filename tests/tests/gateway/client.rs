//! An HTTP client for tests, which checks on every answer what nobody remembers to check: security and CORS headers
//! (protocol, section 12.7), problem bodies with a code (RFC 9457), known headers only, and offsets that go forward.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tailwater_protocol::{ReadOffset, headers};
use tailwater_testkit::sse::Payload;
use tokio::{net::TcpStream, time::timeout};

use crate::{fixture::PATIENCE, follow::Follow};

/// Headers that an answer may have.
const KNOWN: &[&str] = &[
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "cross-origin-resource-policy",
    "date",
    "etag",
    "location",
    "producer-epoch",
    "producer-expected-seq",
    "producer-received-seq",
    "producer-seq",
    "referrer-policy",
    "retry-after",
    "stream-closed",
    "stream-cursor",
    "stream-earliest-offset",
    "stream-expires-at",
    "stream-next-offset",
    "stream-sse-data-encoding",
    "stream-ttl",
    "stream-up-to-date",
    "stream-visibility",
    "transfer-encoding",
    "x-accel-buffering",
    "x-content-type-options",
];

type Body = BoxBody<Bytes, Infallible>;
type Connection = SendRequest<Body>;

/// A client of one gateway; clones share connections.
#[derive(Clone)]
pub(crate) struct Client {
    addr: SocketAddr,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// A request in the making.
pub(crate) struct Ask {
    client: Client,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Body,
}

/// An answer that has passed all checks.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    asked: String,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, idle: Arc::default() }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A request. A target that is no path is a stream's name, perhaps with a query.
    pub(crate) fn ask(&self, method: Method, target: &str) -> Ask {
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/v1/stream/{target}") };
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::try_from(self.addr.to_string()).unwrap());
        Ask { client: self.clone(), method, target, headers, body: Full::default().boxed() }
    }

    pub(crate) fn get(&self, target: &str) -> Ask {
        self.ask(Method::GET, target)
    }

    pub(crate) fn head(&self, target: &str) -> Ask {
        self.ask(Method::HEAD, target)
    }

    pub(crate) fn put(&self, target: &str) -> Ask {
        self.ask(Method::PUT, target)
    }

    pub(crate) fn post(&self, target: &str) -> Ask {
        self.ask(Method::POST, target)
    }

    pub(crate) fn delete(&self, target: &str) -> Ask {
        self.ask(Method::DELETE, target)
    }

    /// Creates a stream of this content type; its first offset.
    pub(crate) async fn create(&self, stream: &str, content_type: &str) -> String {
        self.put(stream).header("content-type", content_type).send().await.expect(201).next()
    }

    /// Appends text and returns the offset after it.
    pub(crate) async fn append(&self, stream: &str, text: &str) -> String {
        self.post(stream).body("text/plain", text.as_bytes().to_vec()).send().await.expect(204).next()
    }

    /// Closes a stream and returns its final offset.
    pub(crate) async fn close(&self, stream: &str) -> String {
        self.post(stream).header("stream-closed", "true").send().await.expect(204).next()
    }

    /// All of a stream from an offset on, page by page.
    pub(crate) async fn read_from(&self, stream: &str, offset: &str) -> Vec<u8> {
        let (mut offset, mut whole) = (offset.to_owned(), Vec::new());
        loop {
            let page = self.get(&format!("{stream}?offset={offset}")).send().await.expect(200);
            whole.extend_from_slice(&page.body);
            if page.header("stream-up-to-date") == Some("true") {
                return whole;
            }
            assert!(page.next() > offset || offset == "-1", "a page that leads nowhere, at {offset}");
            offset = page.next();
        }
    }

    pub(crate) async fn read(&self, stream: &str) -> String {
        String::from_utf8(self.read_from(stream, "-1").await).unwrap()
    }

    /// The sum of all values of a metric.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").send().await.expect(200).text().to_owned();
        let of_metric = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values: Vec<f64> =
            text.lines().filter(of_metric).map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!values.is_empty(), "no metric {name}");
        values.iter().sum()
    }

    async fn connection(&self) -> Connection {
        while let Some(mut idle) = self.pop() {
            if idle.ready().await.is_ok() {
                return idle;
            }
        }
        let stream = TcpStream::connect(self.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        // What goes wrong on the connection is told to who waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
        sender
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.lock().unwrap().pop()
    }
}

impl Ask {
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    pub(crate) fn headers(self, pairs: &[(&str, &str)]) -> Self {
        pairs.iter().fold(self, |ask, (name, value)| ask.header(name, value))
    }

    /// The headers of an idempotent producer.
    pub(crate) fn producer(self, id: &str, epoch: u64, seq: u64) -> Self {
        self.header("producer-id", id)
            .header("producer-epoch", epoch.to_string())
            .header("producer-seq", seq.to_string())
    }

    /// A body with a content type and a length.
    pub(crate) fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = Full::new(body.into()).boxed();
        self.header("content-type", content_type)
    }

    pub(crate) fn text(self, body: impl Into<Bytes>) -> Self {
        self.body("text/plain", body)
    }

    pub(crate) fn json(self, body: impl Into<Bytes>) -> Self {
        self.body("application/json", body)
    }

    /// A body without a length, in chunks.
    pub(crate) fn chunked(mut self, content_type: &str, chunks: Vec<Bytes>) -> Self {
        let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
        self.body = StreamBody::new(stream::iter(frames)).boxed();
        self.header("content-type", content_type)
    }

    /// The same with other headers than the body's own.
    pub(crate) fn replace(mut self, pairs: &[(&str, &str)]) -> Self {
        self.headers.remove(header::CONTENT_TYPE);
        self.headers(pairs)
    }

    /// Sends it and takes the whole answer.
    pub(crate) async fn send(self) -> Answer {
        timeout(PATIENCE, self.exchange()).await.expect("an answer in time")
    }

    /// Sends it as the request of a reader of Server-Sent Events.
    pub(crate) async fn follow(self, payload: Payload) -> Follow {
        let asked = self.target.clone();
        self.follow_unless_over(payload).await.unwrap_or_else(|| panic!("{asked}: nothing more"))
    }

    /// The same for a reader that resumes, and may be told by `204` that it has had everything.
    pub(crate) async fn follow_unless_over(self, payload: Payload) -> Option<Follow> {
        let resumed = self.headers.get(headers::LAST_EVENT_ID).map(|id| id.to_str().unwrap().to_owned());
        let offset = resumed.filter(|id| is_offset(id)).or_else(|| query(&self.target, "offset")).unwrap_or_default();
        let cursor = query(&self.target, "cursor").and_then(|cursor| cursor.parse().ok());
        let (response, asked, _connection) = timeout(PATIENCE, self.start()).await.expect("an answer in time");
        let (parts, body) = response.into_parts();
        check(&asked, parts.status.as_u16(), &parts.headers);
        if parts.status == 204 {
            return None;
        }
        assert_eq!(parts.status, 200, "{asked}");
        Some(Follow::new(&parts.headers, body, payload, &offset, cursor))
    }

    async fn start(self) -> (Response<Incoming>, String, Connection) {
        let asked = format!("{} {}", self.method, self.target);
        let mut connection = self.client.connection().await;
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target.parse().unwrap();
        *request.headers_mut() = self.headers;
        let response = connection.send_request(request).await;
        (response.unwrap_or_else(|error| panic!("{asked}: {error:?}")), asked, connection)
    }

    async fn exchange(self) -> Answer {
        let idle = Arc::clone(&self.client.idle);
        let (response, asked, connection) = self.start().await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("{asked}: {error:?}")).to_bytes();
        idle.lock().unwrap().push(connection);
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body, asked };
        answer.check();
        answer
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {:?} {}", self.asked, self.headers, self.text_lossy());
        self
    }

    /// A problem of this status and code.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.code(), code, "{}", answer.asked);
        answer
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text_lossy()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// `Stream-Next-Offset`.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        self.header("stream-next-offset").unwrap_or_else(|| panic!("{}: no offset", self.asked)).to_owned()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.header("stream-closed").is_some()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn text_lossy(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(2000)]).into_owned()
    }

    fn check(&self) {
        check(&self.asked, self.status, &self.headers);
        let is_head = self.asked.starts_with("HEAD");
        if self.status >= 400 {
            assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.asked);
            if !is_head {
                let problem = self.json();
                assert_eq!(problem["status"], self.status, "{}", self.asked);
                for member in ["type", "title", "code", "detail"] {
                    assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{}: {problem}", self.asked);
                }
            }
        }
        if matches!(self.status, 429 | 503) {
            assert!(self.header("retry-after").is_some(), "{}: no time to come back", self.asked);
        }
        if is_head || matches!(self.status, 204 | 304) {
            assert!(self.body.is_empty(), "{}: a body", self.asked);
        }
        let is_read = self.asked.starts_with("GET /v1/stream/") && !self.asked.contains("live=sse");
        if is_read && matches!(self.status, 200 | 204) {
            self.check_offsets();
        }
    }

    /// Messages move the offset on, and nothing else moves it.
    fn check_offsets(&self) {
        let next = self.next();
        let Some(from) = query(&self.asked, "offset").filter(|offset| is_offset(offset)) else { return };
        let empty = self.body.is_empty() || &self.body[..] == b"[]";
        assert!(if empty { next == from } else { next > from }, "{}: {next} after {:?}", self.asked, self.body);
    }
}

fn check(asked: &str, status: u16, fields: &HeaderMap) {
    let value = |name: &str| fields.get(name).map(|value| value.to_str().unwrap());
    for name in fields.keys() {
        assert!(KNOWN.contains(&name.as_str()), "{asked}: an unknown header {name}");
        assert_eq!(fields.get_all(name).iter().count(), 1, "{asked}: {name} more than once");
    }
    assert_eq!(value("x-content-type-options"), Some("nosniff"), "{asked}");
    assert_eq!(value("content-security-policy"), Some("sandbox"), "{asked}");
    assert_eq!(value("referrer-policy"), Some("no-referrer"), "{asked}");
    assert_eq!(value("cross-origin-resource-policy"), Some("cross-origin"), "{asked}");
    assert_eq!(value("access-control-allow-origin"), Some("*"), "{asked}");
    let exposed = value("access-control-expose-headers").unwrap_or_default();
    let shown: Vec<&str> = exposed.split(", ").collect();
    for name in headers::EXPOSED {
        assert!(shown.contains(name), "{asked}: {name} is not exposed in {exposed:?}");
    }
    let simple = ["cache-control", "content-length", "content-type"];
    for name in fields.keys().filter(|name| ["stream-", "producer-"].iter().any(|own| name.as_str().starts_with(own))) {
        assert!(shown.contains(&name.as_str()) || simple.contains(&name.as_str()), "{asked}: {name} is not exposed");
    }
    for flag in [headers::STREAM_CLOSED, headers::STREAM_UP_TO_DATE] {
        assert!(value(flag).is_none_or(|value| value == "true"), "{asked}: {flag}");
    }
    // Where nobody is asked for a token, whatever says nothing else is for everybody.
    assert!(value(headers::STREAM_VISIBILITY).is_none_or(|value| value == "public"), "{asked}: whose stream?");
    if let Some(next) = value(headers::STREAM_NEXT_OFFSET) {
        assert!(is_offset(next), "{asked}: {next} is no offset");
    }
    let cacheable = asked.starts_with("GET") || asked.starts_with("HEAD");
    if cacheable || status >= 400 {
        let rule = value("cache-control").unwrap_or_else(|| panic!("{asked}: no cache-control"));
        assert!(status < 400 || rule == "no-store", "{asked}: {rule}");
    }
}

/// Whether a server can have given it out.
fn is_offset(text: &str) -> bool {
    matches!(ReadOffset::parse(text), Ok(ReadOffset::At(_)))
}

/// A parameter of a target's query, as it stands there.
fn query(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.into())
}
