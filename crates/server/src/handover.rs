//! The way of a live response out of the HTTP library, to a delivery shard, and back.
//!
//! A live request is routed and answered by the ordinary handler. On plain HTTP/1.1 its connection carries an [`Exit`]:
//! the handler leaves the response's [`Session`] there, and a body that never yields anything. The HTTP library writes the
//! head, which is therefore the one of the ordinary path; once it has been flushed, the connection takes its socket back
//! and hands it, with the session, to a shard. When the response is over, the socket goes to the HTTP library again.
//!
//! There is no exit where the response could not be finished by others: HTTP/1.0, which has no chunks; a connection that
//! is to be closed behind the response, or that asked for something else (an upgrade); `HEAD`; a request with a body, of
//! which some may still be on its way.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll as TaskPoll},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Extensions, HeaderMap, Method, Request, Version, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{admission::Place, long_poll::Poll, routes::Observed, sse::Session};

/// Where a handler leaves what is to be carried on by a shard. A cheap clone.
#[derive(Clone, Default)]
pub(crate) struct Exit(Arc<Door>);

#[derive(Default)]
struct Door {
    leaving: Mutex<Option<Leaving>>,
    /// Whether everything that was written has reached the kernel.
    is_flushed: AtomicBool,
}

/// A request that may leave, and what goes along with it.
pub(crate) struct Pass {
    pub(crate) exit: Exit,
    pub(crate) observed: Observed,
    /// Its client's, where a proxy speaks for the client.
    pub(crate) place: Option<Arc<Place>>,
}

/// What leaves the HTTP library.
pub(crate) enum Leaving {
    /// A response, whose head was sent.
    Events(Box<Session>),
    /// A long-poll, of whose response nothing was sent.
    Poll(Box<Poll>, Observed),
}

/// A socket that tells its exit whether everything that was written has reached the kernel: what the HTTP library still
/// holds when the socket is taken from it would be lost.
#[derive(Debug)]
pub(crate) struct Watched<Io> {
    io: Io,
    exit: Exit,
}

impl Exit {
    /// Takes a response in; the body stands for what is written elsewhere.
    pub(crate) fn take(&self, session: Session) -> Body {
        *self.leaving() = Some(Leaving::Events(Box::new(session)));
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
    }

    /// Takes a long-poll in; the handler must not answer it any more.
    pub(crate) fn park(&self, poll: Poll, observed: Observed) {
        *self.leaving() = Some(Leaving::Poll(Box::new(poll), observed));
    }

    /// What was left here, once the socket can go along.
    pub(crate) fn leave(&self) -> Option<Leaving> {
        if self.0.is_flushed.load(Ordering::Acquire) { self.leaving().take() } else { None }
    }

    fn leaving(&self) -> MutexGuard<'_, Option<Leaving>> {
        self.0.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_flushed(&self, is_flushed: bool) {
        self.0.is_flushed.store(is_flushed, Ordering::Release);
    }
}

impl Pass {
    /// That of a request, if it may leave.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        let exit = extensions.get::<Exit>()?.clone();
        let observed = extensions.get::<Observed>()?.clone();
        Some(Self { exit, observed, place: extensions.get::<Arc<Place>>().cloned() })
    }
}

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exit").finish_non_exhaustive()
    }
}

impl<Io> Watched<Io> {
    /// Watches a socket to which nothing was written that has not reached the kernel.
    pub(crate) fn new(io: Io, exit: Exit) -> Self {
        exit.set_flushed(true);
        Self { io, exit }
    }

    pub(crate) fn into_inner(self) -> Io {
        self.io
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> TaskPoll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> TaskPoll<io::Result<usize>> {
        self.exit.set_flushed(false);
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> TaskPoll<io::Result<usize>> {
        self.exit.set_flushed(false);
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> TaskPoll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        // Asked for only when the library holds nothing back itself.
        this.exit.set_flushed(matches!(flushed, TaskPoll::Ready(Ok(()))));
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> TaskPoll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Whether the response to a request may be written by others.
pub(crate) fn may_leave<B: http_body::Body>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && !headers.contains_key(header::EXPECT)
        && !headers.contains_key(header::UPGRADE)
        && !mentions_close(headers)
}

fn mentions_close(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    // A line that cannot be read is taken for the worst.
    lines.into_iter().any(|line| {
        line.to_str().map_or(true, |line| line.split(',').any(|option| option.trim().eq_ignore_ascii_case("close")))
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn request(method: Method, version: Version, fields: &[(&str, &str)], body: &'static str) -> Request<Body> {
        let mut request = Request::builder().method(method).version(version).uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(if body.is_empty() { Body::empty() } else { Body::from(body) }).unwrap()
    }

    #[test]
    fn only_a_plain_request_may_leave() {
        use Version as V;
        type Fields = &'static [(&'static str, &'static str)];
        let table: [(Method, V, Fields, &str, bool); 11] = [
            (Method::GET, V::HTTP_11, &[], "", true),
            (Method::GET, V::HTTP_11, &[("connection", "keep-alive")], "", true),
            (Method::GET, V::HTTP_11, &[("connection", "Keep-Alive, TE")], "", true),
            (Method::GET, V::HTTP_10, &[], "", false),
            (Method::GET, V::HTTP_2, &[], "", false),
            (Method::HEAD, V::HTTP_11, &[], "", false),
            (Method::GET, V::HTTP_11, &[("connection", "close")], "", false),
            (Method::GET, V::HTTP_11, &[("connection", "te, Close")], "", false),
            (Method::GET, V::HTTP_11, &[("upgrade", "h2c")], "", false),
            (Method::GET, V::HTTP_11, &[("expect", "100-continue")], "", false),
            (Method::GET, V::HTTP_11, &[], "x", false),
        ];
        for (method, version, fields, body, may) in table {
            assert_eq!(
                may_leave(&request(method.clone(), version, fields, body)),
                may,
                "{method} {version:?} {fields:?}"
            );
        }
    }

    fn is_flushed(exit: &Exit) -> bool {
        exit.0.is_flushed.load(Ordering::Acquire)
    }

    #[tokio::test]
    async fn what_was_written_counts_only_once_it_is_flushed() {
        let exit = Exit::default();
        assert!(!is_flushed(&exit), "nobody watches a socket yet");
        let (io, mut client) = duplex(1024);
        let mut io = Watched::new(io, exit.clone());
        assert!(is_flushed(&exit), "nothing was written");
        for round in 0..2 {
            io.write_all(b"head").await.unwrap();
            assert!(!is_flushed(&exit), "{round}");
            io.flush().await.unwrap();
            assert!(is_flushed(&exit), "{round}");
            let written = io.write_vectored(&[io::IoSlice::new(b"bo"), io::IoSlice::new(b"dy")]).await.unwrap();
            assert!(written > 0 && !is_flushed(&exit), "{round}");
            io.flush().await.unwrap();
            assert!(is_flushed(&exit), "{round}");
        }
        drop(io.into_inner());
        let mut taken = String::new();
        client.read_to_string(&mut taken).await.unwrap();
        assert_eq!(taken.matches("head").count(), 2);
        assert!(is_flushed(&exit), "reading changes nothing");
    }

    #[tokio::test]
    async fn a_write_that_waits_holds_back_who_would_leave() {
        let exit = Exit::default();
        let (io, _full) = duplex(4);
        let mut io = Watched::new(io, exit.clone());
        io.write_all(b"full").await.unwrap();
        io.flush().await.unwrap();
        let waits = poll_fn(|cx| TaskPoll::Ready(Pin::new(&mut io).poll_write(cx, b"x").is_pending())).await;
        assert!(waits && !is_flushed(&exit), "the library still holds it");
    }

    #[tokio::test]
    async fn a_flush_that_fails_or_waits_holds_back_who_would_leave() {
        let exit = Exit::default();
        let mut io = Watched::new(Stuck { then_fails: false }, exit.clone());
        for _ in 0..2 {
            let flushed = poll_fn(|cx| TaskPoll::Ready(Pin::new(&mut io).poll_flush(cx))).await;
            assert!(!matches!(flushed, TaskPoll::Ready(Ok(()))) && !is_flushed(&exit), "{flushed:?}");
            io.io.then_fails = true;
        }
    }

    /// A socket that never gets anything through.
    struct Stuck {
        then_fails: bool,
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> TaskPoll<io::Result<usize>> {
            TaskPoll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> TaskPoll<io::Result<()>> {
            if self.then_fails { TaskPoll::Ready(Err(io::ErrorKind::BrokenPipe.into())) } else { TaskPoll::Pending }
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> TaskPoll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }
}
