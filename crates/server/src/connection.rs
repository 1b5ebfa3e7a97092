//! One connection, from its first byte to its end: which protocol it speaks, who answers its requests, and why it ended.
//!
//! ```text
//! accepted ─ TLS? ── yes ── handshake ── ALPN ──┬── h2 ──────► HTTP/2
//!              └──── no ─── first bytes ────────┴── else ────► HTTP/1.1
//! ```
//!
//! Every wait for the other side has an end: for the handshake, the first bytes and the head of a request it is the header
//! timeout, for a write the write timeout ([`stall`](crate::stall)), for a stream of HTTP/2 the same ([`http2`]), and for a
//! host that has vanished the kernel's own patience. Whatever the gateway ends is counted by its reason.
//!
//! A connection that has lasted as long as it may, or that meets its moment of a drain, takes no further request
//! ([`Leave`]): the response under way is finished, and says so where its head is still to come.

use std::{
    convert::Infallible,
    error::Error,
    future::{Future, pending, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use http::Request;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tailwater_fanout::Shards;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Admission, Admitted, Limit, Peer},
    app::App,
    config::{Config, DESCRIPTOR_REFUSAL_LIMIT, LINGER, MAX_HEAD, PEER_TIMEOUT_MARGIN, REFUSAL_LIMIT},
    delivery::{Boarding, Luggage, Passage},
    handover::{Exit, Watched, may_leave},
    host,
    http2::{self, Portions, Streams},
    location::LocalAddress,
    refuse::Refusal,
    rewind::{Rewound, Version, sniff},
    stall::Unstalled,
    strict::Strict,
    surface::Surface,
};

/// What the connections of one listener share.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) app: App,
    pub(crate) router: Router,
    /// What the router serves.
    pub(crate) surface: Surface,
    pub(crate) local: LocalAddress,
    /// Where live responses of plain HTTP/1.1 go on; without it, they stay with the HTTP library.
    pub(crate) shards: Option<Arc<Shards<Luggage>>>,
    /// Ends connections when what they have under way is answered.
    pub(crate) close: CancellationToken,
    /// Ends them now.
    pub(crate) cut: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Why the gateway ended a connection, or a stream of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The head of a request did not come in time, or the first byte of a connection.
    HeaderTimeout,
    /// The handshake of TLS was not through in time.
    Handshake,
    /// The head of a request is too large.
    HeaderSize,
    /// It sent what is no request, or what others could take for another one.
    Malformed,
    /// The body of a request did not come in time.
    BodyTimeout,
    /// It went on with a body that was refused, when as many of those were thrown away as may be.
    Declined,
    /// It took nothing of what was written.
    Stalled,
    /// The same of a stream of HTTP/2.
    StalledStream,
    /// The other host answers no more.
    Unreachable,
    /// It has reset too many streams of HTTP/2, or broken other rules of it.
    Resets,
    /// It has had no request for too long.
    Idle,
    /// It has sent more than it may while a live response lasts.
    Noisy,
    /// It has lasted as long as it may.
    Age,
    /// The process ended before its requests did.
    Shutdown,
}

/// Why a connection takes no further request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// It has lasted as long as it may.
    Aged,
    /// The process is about to end.
    Drained,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both sides are through.
    Finished,
    /// It goes on outside the HTTP library.
    Left(Box<Boarding>),
    /// The gateway ended it.
    Cut(Cut),
    /// The other side ended it, or spoke no HTTP.
    Broken(Box<dyn Error + Send + Sync>),
}

/// A socket, or what is laid over one.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether the other side has said something that was not answered.
    fn heard(&self) -> bool;

    /// The socket, and what was read of it and not yielded yet; `None` where something is laid over it.
    fn into_socket(self) -> Option<(TcpStream, Bytes)>;
}

/// What answers requests, whichever version they come in.
pub(crate) trait Answers:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + Unpin>
    + Clone
    + Send
    + Unpin
    + 'static
{
}

/// The router, told where the connection comes from, and where live responses may leave it.
#[derive(Clone)]
struct Routed {
    router: TowerToHyperService<Router>,
    local: LocalAddress,
    peer: Peer,
    exit: Option<Exit>,
}

impl Transport for Unstalled<TcpStream> {
    fn heard(&self) -> bool {
        self.heard()
    }

    fn into_socket(self) -> Option<(TcpStream, Bytes)> {
        Some((self.into_inner(), Bytes::new()))
    }
}

impl<Io: Transport> Transport for Rewound<Io> {
    fn heard(&self) -> bool {
        self.get_ref().heard()
    }

    fn into_socket(self) -> Option<(TcpStream, Bytes)> {
        let (io, seen) = self.into_parts();
        let (socket, behind) = io.into_socket()?;
        Some((socket, if behind.is_empty() { seen } else { [seen, behind].concat().into() }))
    }
}

impl<Io: Transport> Transport for TlsStream<Io> {
    fn heard(&self) -> bool {
        self.get_ref().0.heard()
    }

    fn into_socket(self) -> Option<(TcpStream, Bytes)> {
        None
    }
}

impl<S> Answers for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + Unpin>
        + Clone
        + Send
        + Unpin
        + 'static
{
}

impl Service<Request<Incoming>> for Routed {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        arrive(&mut request, self.local, self.peer);
        if let Some(exit) = self.exit.as_ref().filter(|_| may_leave(&request)) {
            request.extensions_mut().insert(exit.clone());
        }
        Box::pin(self.router.call(request))
    }
}

impl Host {
    /// What bounds the listener's connections.
    pub(crate) fn admission(&self) -> &Admission {
        self.app.admission_at(self.surface)
    }

    /// Serves a connection that was let in.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, admitted: Admitted) {
        let exit = Exit::default();
        let service = self.routed(peer, &exit);
        let end = self.until_cut(self.converse(stream, service, &exit, &self.close, admitted.until())).await;
        self.finish(end, peer, admitted);
    }

    /// Serves a connection that a live response has come back with.
    pub(crate) async fn serve_again(
        self: Arc<Self>,
        stream: TcpStream,
        unread: Bytes,
        peer: SocketAddr,
        admitted: Admitted,
    ) {
        let exit = Exit::default();
        let service = self.routed(peer, &exit);
        let patience = self.app.config.write_timeout;
        let served = async {
            // The library gives up an answer to what is no request where it cannot write it at once, and of a socket that
            // comes from elsewhere nobody knows yet that it can be written to.
            match timeout(patience, stream.writable()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return End::of(error.into()),
                Err(_) => return End::Cut(Cut::Stalled),
            }
            let io = Rewound::new(Unstalled::new(stream, patience), unread);
            self.serve_http1(io, service, &exit, &self.close, admitted.until()).await
        };
        let end = self.until_cut(Box::pin(served)).await;
        self.finish(end, peer, admitted);
    }

    /// Whether a connection that has nothing under way is to be ended.
    pub(crate) fn is_over(&self, admitted: &Admitted) -> bool {
        self.app.drain.has_begun() || admitted.until().is_some_and(|until| until <= Instant::now())
    }

    /// Ends a connection whose last response is complete.
    pub(crate) async fn see_out(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, admitted: Admitted) {
        let io = Unstalled::new(stream, self.app.config.write_timeout);
        let why = if self.app.drain.has_begun() { Leave::Drained } else { Leave::Aged };
        let lingers = async {
            self.linger(io).await;
            why.end()
        };
        let end = self.until_cut(lingers).await;
        self.finish(end, peer, admitted);
    }

    fn routed(&self, peer: SocketAddr, exit: &Exit) -> Routed {
        let router = TowerToHyperService::new(self.router.clone());
        let is_plain = self.app.config.tls.is_none();
        let exit = (is_plain && self.shards.is_some()).then(|| exit.clone());
        Routed { router, local: self.local, peer: Peer(peer), exit }
    }

    fn finish(self: Arc<Self>, end: End, peer: SocketAddr, admitted: Admitted) {
        match end {
            End::Left(boarding) => Passage { host: self, peer, admitted }.board(*boarding),
            end @ (End::Finished | End::Cut(_) | End::Broken(_)) => {
                drop(admitted);
                self.note(&end, peer);
            }
        }
    }

    /// Answers the first request of a connection that is not let in, and ends it.
    pub(crate) async fn refuse(&self, stream: TcpStream, peer: SocketAddr, limit: Limit) {
        self.app.metrics.refused(limit);
        let asked = self.close.child_token();
        let service = Refusal { app: self.app.clone(), surface: self.surface, limit, asked: asked.clone() };
        let nowhere = Exit::default();
        let patience = if limit == Limit::Descriptors { DESCRIPTOR_REFUSAL_LIMIT } else { REFUSAL_LIMIT };
        let conversation = timeout(patience, self.converse(stream, service, &nowhere, &asked, None));
        // Whoever does not even ask is told nothing.
        let end = self.until_cut(async { conversation.await.unwrap_or(End::Finished) }).await;
        tracing::debug!(?end, ?limit, %peer, "a connection was refused");
    }

    async fn until_cut(&self, conversation: impl Future<Output = End>) -> End {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => End::Cut(Cut::Shutdown),
            end = conversation => end,
        }
    }

    /// Waits until a connection is to take no further request. Cancel safe.
    async fn leaves(&self, until: Option<Instant>) -> Leave {
        let ages = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = ages => Leave::Aged,
            () = self.app.drain.comes_to(self.app.ambient.share()) => Leave::Drained,
        }
    }

    async fn converse(
        &self,
        stream: TcpStream,
        service: impl Answers,
        exit: &Exit,
        close: &CancellationToken,
        until: Option<Instant>,
    ) -> End {
        let config = &self.app.config;
        if let Err(error) = prepare(&stream, config) {
            return End::Broken(error.into());
        }
        let io = Unstalled::new(stream, config.write_timeout);
        // Each on the heap: a connection needs the room for one of them only.
        match &config.tls {
            Some(tls) => match Box::pin(self.begun(tls.accept(io), Cut::Handshake)).await {
                Ok((Version::One, io)) => Box::pin(self.serve_http1(io, service, exit, close, until)).await,
                Ok((Version::Two, io)) => Box::pin(self.serve_http2(io, service, close, until)).await,
                Err(end) => end,
            },
            None => match self.begun(sniff(io), Cut::HeaderTimeout).await {
                Ok((Version::One, io)) => Box::pin(self.serve_http1(io, service, exit, close, until)).await,
                Ok((Version::Two, io)) => Box::pin(self.serve_http2(io, service, close, until)).await,
                Err(end) => end,
            },
        }
    }

    /// What comes of the first steps, which take the header timeout at most.
    async fn begun<T>(&self, steps: impl Future<Output = io::Result<T>>, late: Cut) -> Result<T, End> {
        tokio::select! {
            begun = timeout(self.app.config.header_timeout, steps) => match begun {
                Ok(begun) => begun.map_err(|error| End::of(error.into())),
                Err(_) => Err(End::Cut(late)),
            },
            () = self.close.cancelled() => Err(End::Finished),
        }
    }

    async fn serve_http1<Io: Transport>(
        &self,
        io: Io,
        service: impl Answers,
        exit: &Exit,
        close: &CancellationToken,
        until: Option<Instant>,
    ) -> End {
        let io = TokioIo::new(Watched::new(Strict::new(io), exit.clone()));
        let mut connection = http1_builder(&self.app.config).serve_connection(io, service);
        let mut closing = pin!(close.cancelled());
        let mut leaves = pin!(self.leaves(until));
        let (mut closes, mut why) = (false, None);
        let served = poll_fn(|cx| {
            if !closes && closing.as_mut().poll(cx).is_ready() {
                closes = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            loop {
                if let Poll::Ready(served) = connection.poll_without_shutdown(cx) {
                    return Poll::Ready(Err(served));
                }
                // Looked at when the library has done what it can: the head of a response is with the kernel by then.
                if let Some(leaving) = exit.leave() {
                    return Poll::Ready(Ok(leaving));
                }
                if closes {
                    return Poll::Pending;
                }
                // Looked at last, so that a request which has come is answered. Without one, the connection ends at once.
                let Poll::Ready(leave) = leaves.as_mut().poll(cx) else { return Poll::Pending };
                (closes, why) = (true, Some(leave));
                Pin::new(&mut connection).graceful_shutdown();
            }
        })
        .await;
        let parts = connection.into_parts();
        let strict = parts.io.into_inner().into_inner();
        let has_refused = strict.has_refused();
        let (io, instead) = strict.into_parts();
        match served {
            Ok(leaving) => match io.into_socket() {
                Some((stream, seen)) => {
                    // The library has read the first part of it, and has not come to the second. What stands in place of
                    // something that was refused is refused again, and nothing behind it counts.
                    let seen = if has_refused { Bytes::from_static(instead) } else { seen };
                    let unread = if seen.is_empty() { parts.read_buf } else { [parts.read_buf, seen].concat().into() };
                    End::Left(Box::new(Boarding { stream, unread, leaving }))
                }
                None => End::Broken("only a plain socket can leave".into()),
            },
            Err(Err(error)) if error.is_parse() => {
                self.linger(io).await;
                End::Cut(if error.is_parse_too_large() { Cut::HeaderSize } else { Cut::Malformed })
            }
            Err(_) if has_refused => {
                self.linger(io).await;
                End::Cut(Cut::Malformed)
            }
            Err(Ok(())) => {
                self.linger(io).await;
                why.map_or(End::Finished, Leave::end)
            }
            Err(Err(error)) if error.is_timeout() => End::Cut(if io.heard() { Cut::HeaderTimeout } else { Cut::Idle }),
            Err(Err(error)) => End::of(error.into()),
        }
    }

    /// Ends a connection so that the other side reads the last answer: a socket that is closed with something unread is
    /// reset, and what was sent may be lost with it.
    async fn linger<Io: Transport>(&self, mut io: Io) {
        let rest = async {
            io.shutdown().await?;
            let mut sink = [0; 1024];
            while io.read(&mut sink).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        // However it ends, it has ended.
        tokio::select! {
            _ended = timeout(LINGER, rest) => {}
            () = self.close.cancelled() => {}
        }
    }

    async fn serve_http2<Io: Transport>(
        &self,
        io: Io,
        service: impl Answers,
        close: &CancellationToken,
        until: Option<Instant>,
    ) -> End {
        let (config, metrics) = (&self.app.config, &self.app.metrics);
        let streams = Streams::new(config, metrics, &self.tasks);
        let service = service_fn(move |request| {
            let answered = service.call(request);
            async move { answered.await.map(|response| response.map(Portions::new)) }
        });
        let connection = http2::builder(config, streams.clone()).serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(connection);
        let (idle, why) = tokio::select! {
            served = connection.as_mut() => return End::of_http2(served),
            () = close.cancelled() => (None, None),
            leave = self.leaves(until) => (None, Some(leave)),
            idle = streams.idle() => (Some(idle), None),
        };
        connection.as_mut().graceful_shutdown();
        let Some(idle) = idle else {
            return match (End::of_http2(connection.await), why) {
                (End::Finished, Some(leave)) => leave.end(),
                (end, _) => end,
            };
        };
        // There is nothing to finish, so it takes a moment, or else the other side does not play.
        match timeout(config.header_timeout, connection).await {
            Ok(served) => match End::of_http2(served) {
                End::Finished => End::Cut(idle),
                other @ (End::Left(_) | End::Cut(_) | End::Broken(_)) => other,
            },
            Err(_) => End::Cut(idle),
        }
    }

    fn note(&self, end: &End, peer: SocketAddr) {
        match end {
            End::Finished | End::Left(_) => {}
            End::Cut(reason) => {
                self.app.metrics.cut(*reason);
                tracing::debug!(?reason, %peer, "a connection was cut");
            }
            End::Broken(error) => tracing::debug!(error, %peer, "a connection broke"),
        }
    }
}

impl Leave {
    fn end(self) -> End {
        match self {
            Self::Aged => End::Cut(Cut::Age),
            Self::Drained => End::Finished,
        }
    }
}

impl End {
    /// What an error means that came up from the socket.
    fn of(error: Box<dyn Error + Send + Sync>) -> Self {
        let cut = causes(&*error).find_map(|cause| {
            let io = cause.downcast_ref::<io::Error>()?;
            // Ours has no number; one with a number is the kernel's.
            (io.kind() == io::ErrorKind::TimedOut).then(|| match io.raw_os_error() {
                None => Cut::Stalled,
                Some(_) => Cut::Unreachable,
            })
        });
        cut.map_or(Self::Broken(error), Self::Cut)
    }

    pub(crate) fn of_http2(served: hyper::Result<()>) -> Self {
        let Err(error) = served else { return Self::Finished };
        if error.is_timeout() {
            return Self::Cut(Cut::Unreachable);
        }
        let enough = causes(&error).any(|cause| {
            let cause = cause.downcast_ref::<h2::Error>();
            cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
        });
        if enough { Self::Cut(Cut::Resets) } else { Self::of(error.into()) }
    }
}

impl Cut {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::HeaderTimeout => "header_timeout",
            Self::Handshake => "handshake",
            Self::HeaderSize => "header_size",
            Self::Malformed => "malformed",
            Self::BodyTimeout => "body_timeout",
            Self::Declined => "declined",
            Self::Stalled => "stalled",
            Self::StalledStream => "stalled_stream",
            Self::Unreachable => "unreachable",
            Self::Resets => "resets",
            Self::Idle => "idle",
            Self::Noisy => "noisy",
            Self::Age => "age",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Tells a request which connection it came on, and whether it is one that names its host as it must.
pub(crate) fn arrive<B>(request: &mut Request<B>, local: LocalAddress, peer: Peer) {
    request.extensions_mut().insert(local);
    request.extensions_mut().insert(peer);
    if let Err(misnamed) = host::judge(request) {
        request.extensions_mut().insert(misnamed);
    }
}

/// An error and what caused it.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Sets what a connection needs of its socket.
fn prepare(stream: &TcpStream, config: &Config) -> io::Result<()> {
    // Events are small and must not wait for each other.
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(config.write_timeout + PEER_TIMEOUT_MARGIN))
}

fn http1_builder(config: &Config) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_header_size(MAX_HEAD);
    builder
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The number of it on Linux.
    const ETIMEDOUT: i32 = 110;

    #[tokio::test]
    async fn the_system_gives_a_peer_up_later_than_one_that_takes_nothing_is_cut_off() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let config = Config { write_timeout: Duration::from_secs(7), ..Config::default() };
        prepare(&stream, &config).unwrap();
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(Duration::from_secs(22)));
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn a_silent_peer_is_told_from_a_vanished_one() {
        let end = |error: io::Error| match End::of(Box::new(error)) {
            End::Cut(cut) => Some(cut),
            End::Finished | End::Left(_) | End::Broken(_) => None,
        };
        assert_eq!(end(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")), Some(Cut::Stalled));
        assert_eq!(end(io::Error::from_raw_os_error(ETIMEDOUT)), Some(Cut::Unreachable));
        assert_eq!(end(io::ErrorKind::ConnectionReset.into()), None);
    }
}
