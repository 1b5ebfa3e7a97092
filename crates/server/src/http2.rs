//! HTTP/2 within bounds (RFC 9113, section 10.5).
//!
//! A client of HTTP/2 says for each stream how much it will take, so a reader that takes nothing stops its own stream and
//! not the connection: the socket stays writable, and nothing below can see it. So each stream is watched here. hyper asks
//! a body for its next chunk only when the one before was taken over, and takes a chunk over when the client has room for
//! the first byte of it. A chunk that is not taken over in time ends its stream.
//!
//! What was taken over waits in memory for the client's room, even after its response is complete and nobody watches it
//! any more. So chunks are small, and the last byte of a body whose end is known goes alone: that it was taken over means
//! that there is room for everything.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::{rt::Executor, server::conn::http2};
use hyper_util::rt::TokioTimer;
use tokio::{
    sync::watch,
    task_local,
    time::{Instant, Sleep, sleep},
};
use tokio_util::task::TaskTracker;

use crate::{
    config::{Config, MAX_HEAD},
    connection::Cut,
    metrics::Metrics,
};

/// How many requests a connection may have open at once. All readers of a proxy may share one connection.
const MAX_STREAMS: u32 = 1000;
/// How many streams a client may have reset before they were looked at, and how many may be reset because of its own
/// errors, before the connection ends (CVE-2023-44487).
const MAX_RESETS: usize = 100;
/// How many bytes of a body a client may send before they are taken, on one stream and on all.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How many bytes wait for the client's room, for each stream.
const MAX_WAITING: usize = 32 * 1024;
/// The largest chunk that is taken over at once.
const PORTION: usize = 16 * 1024;
/// How often a connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);
/// How long a connection may be without a request, once it has had one.
const IDLE: Duration = Duration::from_secs(60);

task_local! {
    /// Of the stream whose task it is.
    static PROGRESS: Arc<Progress>;
}

/// The streams of one connection, as they are run.
#[derive(Clone)]
pub(crate) struct Streams {
    patience: Duration,
    /// How long the first request may take to come.
    first: Duration,
    metrics: Metrics,
    tasks: TaskTracker,
    open: watch::Sender<usize>,
    /// Whether there has been a stream.
    had: Arc<AtomicBool>,
}

/// Where a stream stands.
#[derive(Debug, Default)]
struct Progress {
    /// How often its body was asked for more.
    asked: AtomicUsize,
    /// Whether a chunk is out that was not taken over yet.
    holds: AtomicBool,
}

/// A stream that must get on.
struct Watched<F> {
    /// Gone when it was given up.
    stream: Option<Pin<Box<F>>>,
    progress: Arc<Progress>,
    /// Armed while a chunk waits, with the number of times that the body had been asked by then.
    waits: Option<(usize, Pin<Box<Sleep>>)>,
    streams: Streams,
}

/// A body in chunks that are small enough, which tells how it gets on.
pub(crate) struct Portions {
    body: Body,
    rest: Bytes,
}

/// How connections are served whose streams are run by `streams`.
pub(crate) fn builder(config: &Config, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_header_list_size(u32::try_from(MAX_HEAD).expect("the largest head is small"))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_WAITING)
        .keep_alive_interval(PING)
        .keep_alive_timeout(config.write_timeout);
    builder
}

impl Streams {
    pub(crate) fn new(config: &Config, metrics: &Metrics, tasks: &TaskTracker) -> Self {
        let (patience, first, open) = (config.write_timeout, config.header_timeout, watch::Sender::new(0));
        let had = Arc::default();
        Self { patience, first, metrics: metrics.clone(), tasks: tasks.clone(), open, had }
    }

    /// Waits until there has been no stream for too long; what the connection is cut for. Cancel safe.
    pub(crate) async fn idle(&self) -> Cut {
        let mut open = self.open.subscribe();
        loop {
            // Never closed: `self` holds the sender.
            let _none = open.wait_for(|open| *open == 0).await.map(|open| *open);
            let has_had = self.had.load(Ordering::Relaxed);
            let (patience, why) = if has_had { (IDLE, Cut::Idle) } else { (self.first, Cut::HeaderTimeout) };
            tokio::select! {
                () = sleep(patience) => return why,
                _ = open.changed() => {}
            }
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let progress = Arc::<Progress>::default();
        self.had.store(true, Ordering::Relaxed);
        self.open.send_modify(|open| *open += 1);
        let stream = Box::pin(PROGRESS.scope(Arc::clone(&progress), stream));
        self.tasks.spawn(Watched { stream: Some(stream), progress, waits: None, streams: self.clone() });
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else { return Poll::Ready(()) };
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !this.progress.holds.load(Ordering::Relaxed) {
            this.waits = None;
            return Poll::Pending;
        }
        let asked = this.progress.asked.load(Ordering::Relaxed);
        let patience = this.streams.patience;
        let (since, waits) = this.waits.get_or_insert_with(|| (asked, Box::pin(sleep(patience))));
        if *since != asked {
            *since = asked;
            waits.as_mut().reset(Instant::now() + patience);
        }
        ready!(waits.as_mut().poll(cx));
        this.streams.metrics.cut(Cut::StalledStream);
        // Nobody answers any more, so the stream is reset and what waits of it is thrown away.
        this.stream = None;
        Poll::Ready(())
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        self.streams.open.send_modify(|open| *open -= 1);
    }
}

impl Portions {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new() }
    }

    /// What goes next of a chunk. A part of it is a copy, because it must not keep the whole in memory.
    fn portion(&mut self) -> Bytes {
        let ends = self.body.is_end_stream();
        let whole = self.rest.len();
        let size = if ends && whole > 1 { PORTION.min(whole - 1) } else { PORTION.min(whole) };
        if size == whole {
            return std::mem::take(&mut self.rest);
        }
        Bytes::copy_from_slice(&self.rest.split_to(size))
    }
}

impl http_body::Body for Portions {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let mark = |holds: bool| {
            // Outside of a stream's task nobody watches.
            let _unwatched = PROGRESS.try_with(|progress| {
                progress.asked.fetch_add(1, Ordering::Relaxed);
                progress.holds.store(holds, Ordering::Relaxed);
            });
        };
        if this.rest.is_empty() {
            mark(false);
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let portion = this.portion();
        // What is empty needs no room.
        mark(!portion.is_empty());
        Poll::Ready(Some(Ok(Frame::data(portion))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn};

    use futures_util::{StreamExt as _, stream};
    use http::Response;
    use http_body_util::BodyExt as _;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use prometheus::Registry;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        task::JoinHandle,
        time::timeout,
    };

    use super::*;
    use crate::{connection::End, stall::Unstalled};

    fn streams() -> Streams {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Streams::new(&Config::default(), &metrics, &TaskTracker::new())
    }

    async fn sizes(body: Body) -> Vec<usize> {
        let portions = Portions::new(body);
        portions.into_data_stream().map(|chunk| chunk.unwrap().len()).collect().await
    }

    #[tokio::test]
    async fn a_body_goes_in_small_chunks_and_its_last_byte_alone() {
        assert_eq!(sizes(Body::empty()).await, [0; 0]);
        assert_eq!(sizes(Body::from("a")).await, [1]);
        assert_eq!(sizes(Body::from("abc")).await, [2, 1]);
        assert_eq!(sizes(Body::from(vec![0; PORTION])).await, [PORTION - 1, 1]);
        assert_eq!(sizes(Body::from(vec![0; 2 * PORTION + 5])).await, [PORTION, PORTION, 4, 1]);
        let live = stream::iter([3, PORTION + 2].map(|size| Ok::<_, Infallible>(Bytes::from(vec![0; size]))));
        assert_eq!(sizes(Body::from_stream(live)).await, [3, PORTION, 2], "where the end is not known");
    }

    #[tokio::test]
    async fn the_length_of_a_body_is_what_is_left_of_it() {
        let mut portions = Portions::new(Body::from("abc"));
        assert_eq!(portions.size_hint().exact(), Some(3));
        assert!(portions.frame().await.is_some());
        assert_eq!((portions.size_hint().exact(), portions.is_end_stream()), (Some(1), false));
        assert!(portions.frame().await.is_some());
        assert!(portions.is_end_stream());
    }

    /// What hyper does with a response: takes a chunk over each time that `room` has a permit.
    async fn pipe(mut body: Portions, room: Arc<tokio::sync::Semaphore>) {
        while let Some(chunk) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            assert!(chunk.is_ok());
            room.acquire().await.unwrap().forget();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_chunk_is_not_taken_ends_and_one_that_waits_for_its_body_does_not() {
        let streams = streams();
        let room = Arc::new(tokio::sync::Semaphore::new(0));
        let began = Instant::now();
        streams.execute(pipe(Portions::new(Body::from("abc")), Arc::clone(&room)));
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        streams.execute(pipe(Portions::new(silent), Arc::clone(&room)));
        let mut open = streams.open.subscribe();
        assert_eq!(*open.borrow(), 2);
        // A slow one is one that takes something: the clock starts again.
        sleep(streams.patience - Duration::from_secs(1)).await;
        room.add_permits(1);
        open.wait_for(|open| *open == 1).await.unwrap();
        assert_eq!(began.elapsed(), streams.patience * 2 - Duration::from_secs(1));
        sleep(streams.patience * 10).await;
        assert_eq!(*open.borrow(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_it_has_had_no_stream_for_long() {
        let streams = streams();
        let began = Instant::now();
        let (done, wait) = tokio::sync::oneshot::channel::<()>();
        let end = async move {
            sleep(IDLE * 3).await;
            done.send(()).unwrap();
        };
        streams.execute(async move { wait.await.unwrap() });
        let (why, ()) = tokio::join!(streams.idle(), end);
        assert_eq!((began.elapsed(), why), (IDLE * 4, Cut::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_stream_is_not_waited_for_as_long_as_further_ones() {
        let streams = streams();
        let began = Instant::now();
        assert_eq!((streams.idle().await, began.elapsed()), (Cut::HeaderTimeout, streams.first));
        streams.execute(async {});
        assert_eq!(streams.idle().await, Cut::Idle);
        assert_eq!(began.elapsed(), streams.first + IDLE);
    }

    /// Longer than a connection may last here. The clock is the test's own, so to wait for it costs nothing.
    const LONG: Duration = Duration::from_secs(600);

    /// What the connection was cut for.
    async fn ended(served: JoinHandle<Option<Cut>>) -> Option<Cut> {
        timeout(LONG, served).await.expect("the connection ends").unwrap()
    }

    /// A connection that is served in memory, with room for little on its way; the client has said that it speaks HTTP/2.
    async fn served() -> (DuplexStream, JoinHandle<Option<Cut>>) {
        let (mut client, io) = duplex(1024);
        let config = Config::default();
        let io = TokioIo::new(Unstalled::new(io, config.write_timeout));
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Portions::new(Body::empty()))));
        let connection = builder(&config, streams()).serve_connection(io, service);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let served = tokio::spawn(async move {
            match End::of_http2(connection.await) {
                End::Cut(cut) => Some(cut),
                End::Finished | End::Left(_) | End::Broken(_) => None,
            }
        });
        (client, served)
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_not_taken_wait_in_little_memory_and_then_the_connection_ends() {
        // PING, and SETTINGS without any: each has to be answered with one as long as it is.
        let ping = [b"\0\0\x08\x06\0\0\0\0\0".as_slice(), &[7; 8]].concat();
        for flood in [ping, b"\0\0\0\x04\0\0\0\0\0".to_vec()] {
            let (mut client, served) = served().await;
            let began = Instant::now();
            let mut sent = 0;
            while timeout(Duration::from_secs(1), client.write_all(&flood)).await.is_ok() {
                sent += flood.len();
                assert!(sent < MAX_WAITING, "{sent} bytes, of which no answer was taken");
            }
            assert_eq!(ended(served).await, Some(Cut::Stalled));
            assert_eq!(began.elapsed(), Config::default().write_timeout);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_that_does_not_answer_whether_it_is_there() {
        const PING_FRAME: u8 = 6;
        const ACK: u8 = 1;
        let (mut client, served) = served().await;
        let began = Instant::now();
        let mut answers = 2;
        let mut head = [0; 9];
        let answering = async {
            while client.read_exact(&mut head).await.is_ok() {
                let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
                client.read_exact(&mut payload).await.unwrap();
                if head[3] == PING_FRAME && answers > 0 {
                    answers -= 1;
                    head[4] = ACK;
                    client.write_all(&[&head, payload.as_slice()].concat()).await.unwrap();
                }
            }
        };
        timeout(LONG, answering).await.expect("the connection ends");
        assert_eq!(ended(served).await, Some(Cut::Unreachable));
        assert_eq!(began.elapsed(), PING * 3 + Config::default().write_timeout, "the third was not answered");
    }
}
