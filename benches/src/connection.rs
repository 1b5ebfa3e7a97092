//! A client of the gateway: HTTP/1.1 over one connection that is kept (protocol sections 5.1, 5.2, 5.2.1, 5.6 and 5.8).

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const PRODUCER_ID: HeaderName = HeaderName::from_static("producer-id");
const PRODUCER_EPOCH: HeaderName = HeaderName::from_static("producer-epoch");
const PRODUCER_SEQ: HeaderName = HeaderName::from_static("producer-seq");
const NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
const UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
/// The offset of the beginning.
const BEGINNING: &str = "-1";

/// One connection to the gateway.
pub struct Connection {
    addr: String,
    project: &'static str,
    sender: SendRequest<Full<Bytes>>,
}

/// What a producer claims of an append, in its first epoch.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Who it is.
    pub id: &'a str,
    /// Its number on this stream, from 0 on.
    pub seq: u64,
}

impl Connection {
    /// Connects to `addr`. All streams that it names are in `project`.
    ///
    /// # Errors
    /// When there is no gateway.
    pub async fn open(addr: &str, project: &'static str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        // What goes wrong on the connection is told to who waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { addr: addr.to_owned(), project, sender })
    }

    /// Creates a JSON stream.
    ///
    /// # Errors
    /// When the answer is not that it was created.
    pub async fn create(&mut self, stream: &str) -> anyhow::Result<()> {
        self.ask(Method::PUT, stream, HeaderMap::new(), Bytes::new(), StatusCode::CREATED).await.map(drop)
    }

    /// Appends one message, and returns once the whole answer is there.
    ///
    /// # Errors
    /// When the answer is not that it was appended.
    pub async fn append(&mut self, stream: &str, message: Bytes) -> anyhow::Result<()> {
        self.ask(Method::POST, stream, HeaderMap::new(), message, StatusCode::NO_CONTENT).await.map(drop)
    }

    /// Appends one message of a producer, and returns once the whole answer is there.
    ///
    /// # Errors
    /// When the answer is not that it was appended, by this request and no earlier one.
    pub async fn append_claimed(&mut self, stream: &str, message: Bytes, claim: Claim<'_>) -> anyhow::Result<()> {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(PRODUCER_ID, HeaderValue::from_str(claim.id)?);
        headers.insert(PRODUCER_EPOCH, HeaderValue::from_static("0"));
        headers.insert(PRODUCER_SEQ, claim.seq.into());
        self.ask(Method::POST, stream, headers, message, StatusCode::OK).await.map(drop)
    }

    /// Follows a stream from now on. The connection is then the response's.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn follow(mut self, stream: &str) -> anyhow::Result<Incoming> {
        let target = format!("{stream}?offset=now&live=sse");
        Ok(self.send(Method::GET, &target, HeaderMap::new(), Bytes::new(), StatusCode::OK).await?.into_body())
    }

    /// All that a stream holds, from its beginning to its present tail: the pages, each a JSON array.
    ///
    /// # Errors
    /// When the gateway refuses, or does not say where to go on.
    pub async fn read_all(&mut self, stream: &str) -> anyhow::Result<Vec<Bytes>> {
        let mut pages = Vec::new();
        let mut offset = BEGINNING.to_owned();
        loop {
            let target = format!("{stream}?offset={offset}");
            let response = self.send(Method::GET, &target, HeaderMap::new(), Bytes::new(), StatusCode::OK).await?;
            let is_last = response.headers().contains_key(UP_TO_DATE);
            let next = response.headers().get(NEXT_OFFSET).context("a page without an offset to go on from")?;
            offset = next.to_str()?.to_owned();
            pages.push(response.into_body().collect().await?.to_bytes());
            if is_last {
                return Ok(pages);
            }
        }
    }

    async fn ask(
        &mut self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
        status: StatusCode,
    ) -> anyhow::Result<Bytes> {
        Ok(self.send(method, target, headers, body, status).await?.into_body().collect().await?.to_bytes())
    }

    async fn send(
        &mut self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
        status: StatusCode,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("/v1/stream/{}/{target}", self.project))
            .header(header::HOST, &self.addr)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        request.headers_mut().extend(headers);
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await.with_context(|| format!("{method} {target}"))?;
        ensure!(response.status() == status, "{method} {target}: {} instead of {status}", response.status());
        Ok(response)
    }
}
