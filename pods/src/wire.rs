//! HTTP/1.1 for clients that lose their connections all the time: a loss is an answer like any other, and says whether
//! the request can have arrived.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tailwater_protocol::headers;
use tokio::{net::TcpStream, time::timeout};

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    method: Method,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// There is no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Nobody listens, so nothing was sent.
    #[error("nobody listens")]
    Unreachable(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// Nothing came in time.
    #[error("nothing came in time")]
    Silent,
}

/// A connection that is opened when it is needed, and again when it has broken.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Ask {
    /// A request.
    #[must_use]
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: Bytes::new() }
    }

    /// A request to read.
    #[must_use]
    pub fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    /// The same with a further header; its name in lower case.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn request(&self, addr: SocketAddr) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.parse().expect("targets are made of names and offsets");
        let fields = request.headers_mut();
        fields.insert(header::HOST, text(&addr.to_string()));
        for (name, value) in &self.headers {
            fields.insert(HeaderName::from_static(name), text(value));
        }
        request
    }
}

impl Answer {
    /// A header that is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Stream-Next-Offset`.
    #[must_use]
    pub fn next(&self) -> Option<&str> {
        self.header(headers::STREAM_NEXT_OFFSET)
    }

    /// Whether the stream is closed, and this is its end.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.header(headers::STREAM_CLOSED).is_some()
    }

    /// Whether nothing more was there.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.header(headers::STREAM_UP_TO_DATE).is_some()
    }

    /// The code of a problem of the gateway's; nginx has none.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        if self.header("content-type") != Some("application/problem+json") {
            return None;
        }
        let problem: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(problem.get("code")?.as_str()?.to_owned())
    }

    /// `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.header("retry-after")?.parse().ok()?))
    }
}

impl Link {
    /// A link that is not open yet.
    #[must_use]
    pub fn to(addr: SocketAddr) -> Self {
        Self { addr, open: None }
    }

    /// Sends a request and takes the head of the answer. The connection is the answer's own from then on: it is cut
    /// when the body is dropped.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn start(&mut self, ask: &Ask, patience: Duration) -> Result<Response<Incoming>, Lost> {
        let asked = async {
            let mut sender = self.sender().await?;
            sender.send_request(ask.request(self.addr)).await.map_err(Lost::Broken)
        };
        timeout(patience, asked).await.unwrap_or(Err(Lost::Silent))
    }

    /// Sends a request and takes the whole answer. The connection is kept for the next one.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn exchange(&mut self, ask: &Ask, patience: Duration) -> Result<Answer, Lost> {
        let asked = async {
            let mut sender = self.sender().await?;
            let response = sender.send_request(ask.request(self.addr)).await.map_err(Lost::Broken)?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(Lost::Broken)?.to_bytes();
            let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
            Ok::<_, Lost>((answer, sender))
        };
        let (answer, sender) = timeout(patience, asked).await.unwrap_or(Err(Lost::Silent))?;
        self.open = Some(sender);
        Ok(answer)
    }

    /// Closes the connection, if there is one.
    pub fn cut(&mut self) {
        self.open = None;
    }

    /// The open connection, or a new one. It is out of the link until it is put back.
    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, Lost> {
        if let Some(mut open) = self.open.take()
            && open.ready().await.is_ok()
        {
            return Ok(open);
        }
        let stream = TcpStream::connect(self.addr).await.map_err(Lost::Unreachable)?;
        stream.set_nodelay(true).map_err(Lost::Unreachable)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Lost::Broken)?;
        // It ends with its sender; what goes wrong on it is told to who waits for the answer.
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::try_from(value).expect("headers are made of names and offsets")
}
