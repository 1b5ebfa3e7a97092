//! A client of the gateway: HTTP/1.1 over one connection that is kept.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::measure::PROJECT;

/// One connection to the gateway.
pub(crate) struct Connection {
    addr: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(addr: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        // What goes wrong on the connection is told to who waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { addr: addr.to_owned(), sender })
    }

    /// Creates a JSON stream.
    pub(crate) async fn create(&mut self, stream: &str) -> anyhow::Result<()> {
        self.ask(Method::PUT, stream, Bytes::new(), StatusCode::CREATED).await.map(drop)
    }

    /// Appends one message, and returns once the whole answer is there.
    pub(crate) async fn append(&mut self, stream: &str, message: Bytes) -> anyhow::Result<()> {
        self.ask(Method::POST, stream, message, StatusCode::NO_CONTENT).await.map(drop)
    }

    /// Follows a stream from now on. The connection is then the response's.
    pub(crate) async fn follow(mut self, stream: &str) -> anyhow::Result<Incoming> {
        let target = format!("{stream}?offset=now&live=sse");
        Ok(self.send(Method::GET, &target, Bytes::new(), StatusCode::OK).await?.into_body())
    }

    async fn ask(&mut self, method: Method, target: &str, body: Bytes, status: StatusCode) -> anyhow::Result<Bytes> {
        Ok(self.send(method, target, body, status).await?.into_body().collect().await?.to_bytes())
    }

    async fn send(
        &mut self,
        method: Method,
        target: &str,
        body: Bytes,
        status: StatusCode,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(&method)
            .uri(format!("/v1/stream/{PROJECT}/{target}"))
            .header(header::HOST, &self.addr)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await.with_context(|| format!("{method} {target}"))?;
        ensure!(response.status() == status, "{method} {target}: {} instead of {status}", response.status());
        Ok(response)
    }
}
