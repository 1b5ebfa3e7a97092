//! Live responses outside the HTTP library: at the delivery shards, and on the way there and back.
//!
//! ```text
//!            ┌────────── HTTP library ◄─────────┐
//!     leaves │                                  │ its response is complete
//!            ▼                                  │
//!   has it caught up? ── yes ──► shard ─────────┤
//!            │ no                  ▲  │         │
//!            ▼          has caught │  │ falls behind, or has to look anew
//!         escort ──────────────────┘◄─┘─────────┘
//! ```
//!
//! An escort is a task that writes the response of one reader who is not where the stream is: chunk after chunk, as the
//! ordinary path would. It ends when the reader has caught up. So replays are paid for by those who replay, and the shards
//! see nothing of them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::response::IntoResponse;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use socket2::SockRef;
use tailwater_fanout::{Arrival, Departure, End, Loss, Reader, ShardConfig, Shards, ShardsSeed, Stands, Wake, Wants};
use tailwater_protocol::sse::Lapse;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admitted,
    app::App,
    connection::{Cut, Host},
    handover::Leaving,
    long_poll::{Parked, Poll},
    metrics::SseEnd,
    routes::Observed,
    sse::{ENDED_RETRY, ROTATED_RETRY, Session, Stay, Step},
    standing::{LOOK_AGAIN, lapse_of},
    turns::Others,
    wire,
};

/// The most bytes that a client may send while an escort writes its response.
const MAX_UNREAD: usize = 16 * 1024;

/// How much the kernel may hold for a connection that was a live reader's, as far as it lets anybody have that much. What
/// it has been told once it does not find out by itself any more.
const ORDINARY_SEND_BUFFER: usize = 1024 * 1024;

/// What a socket takes along to a shard.
pub(crate) struct Luggage {
    passage: Passage,
    errand: Errand,
}

/// What its reader is there for.
enum Errand {
    /// The events of a response.
    Events(Stay),
    /// The answer to a long-poll.
    Poll(Box<(Parked, Observed)>),
}

/// What a socket needs to go back to the HTTP library.
pub(crate) struct Passage {
    pub(crate) host: Arc<Host>,
    pub(crate) peer: SocketAddr,
    pub(crate) admitted: Admitted,
}

/// A live response whose socket has left the HTTP library.
pub(crate) struct Boarding {
    pub(crate) stream: TcpStream,
    /// What the client has sent behind its request.
    pub(crate) unread: Bytes,
    pub(crate) leaving: Leaving,
}

impl std::fmt::Debug for Boarding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Boarding").finish_non_exhaustive()
    }
}

impl Luggage {
    /// Why its reader may not go on; nothing, where he may.
    fn lapse(&self) -> Option<Lapse> {
        let standing = match &self.errand {
            Errand::Events(stay) => stay.standing.as_deref(),
            Errand::Poll(poll) => poll.0.standing(),
        };
        standing?.check().err().map(lapse_of)
    }
}

/// Those who have left a shard and are not seen off yet. There are as many as there are connections at most.
pub(crate) type Departures = mpsc::UnboundedReceiver<Departure<std::net::TcpStream, Luggage>>;

/// Starts the shards, if there are to be any.
pub(crate) fn start(app: &App) -> io::Result<Option<(Shards<Luggage>, Departures)>> {
    if app.config.delivery_shards == 0 {
        return Ok(None);
    }
    let (departs, departures) = mpsc::unbounded_channel();
    let config = &app.config;
    let shards = Shards::start(&ShardsSeed {
        count: config.delivery_shards,
        config: ShardConfig {
            keep_alive: config.keep_alive,
            write_timeout: config.write_timeout,
            rotated_retry: ROTATED_RETRY,
            drained_retry: ENDED_RETRY,
            random: app.ambient.random,
        },
        metrics: app.metrics.shards.clone(),
        now_ms: app.ambient.now_ms,
        on_departure: Arc::new(move |departure| {
            // Nobody is left to see it off when the server is gone; it is closed by being dropped.
            drop(departs.send(departure));
        }),
        judge: Arc::new(Luggage::lapse),
        deliveries: Arc::clone(&app.deliveries),
    })?;
    Ok(Some((shards, departures)))
}

/// Has the shards ask again whether their readers may go on, for as long as what they stand on may change.
pub(crate) async fn review(mut changes: watch::Receiver<()>, shards: Arc<Shards<Luggage>>) {
    while changes.changed().await.is_ok() {
        shards.review();
        // What changes meanwhile is seen by one review.
        sleep(LOOK_AGAIN).await;
    }
}

/// Sees off who leaves a shard, until the shards end.
pub(crate) async fn see_off(mut departures: Departures) {
    while let Some(departure) = departures.recv().await {
        match departure {
            Departure::Behind { socket, stands, cursor, ends_at, unread, luggage } => {
                let Luggage { passage, errand } = luggage;
                if let (Errand::Events(stay), Some(stream)) = (errand, adopted(socket)) {
                    let session = Session::resume(stay, &stands, cursor, Instant::from_std(ends_at));
                    passage.board(Boarding { stream, unread, leaving: Leaving::Events(Box::new(session)) });
                }
            }
            Departure::Woken { wake, socket, stands, unread, luggage } => {
                let Luggage { passage, errand } = luggage;
                if let (Errand::Poll(poll), Some(stream)) = (errand, adopted(socket)) {
                    let tasks = passage.host.tasks.clone();
                    tasks.spawn(passage.answer(stream, unread, poll, wake, stands));
                }
            }
            Departure::Ended { reason, socket, unread, luggage } => {
                let Luggage { passage, errand } = luggage;
                if let Errand::Events(mut stay) = errand {
                    stay.end(reason.into());
                }
                if let Some(stream) = adopted(socket) {
                    passage.go_back(stream, unread);
                }
            }
            Departure::Lost { reason, socket, luggage } => lose(reason, &socket, luggage),
        }
    }
}

/// Back under the runtime; `None` where it has no room for the socket.
fn adopted(socket: std::net::TcpStream) -> Option<TcpStream> {
    TcpStream::from_std(socket).inspect_err(|error| tracing::warn!(%error, "a live connection is lost")).ok()
}

fn lose(reason: Loss, socket: &std::net::TcpStream, luggage: Luggage) {
    let Luggage { passage, errand } = luggage;
    let metrics = &passage.host.app.metrics;
    match reason {
        Loss::Left => {}
        Loss::Stalled => {
            metrics.cut(Cut::Stalled);
            if let Errand::Events(mut stay) = errand {
                stay.end(SseEnd::Stalled);
            }
            forget(socket);
        }
        Loss::Noisy => metrics.cut(Cut::Noisy),
        Loss::Closed => metrics.cut(Cut::Shutdown),
    }
}

/// Makes the kernel drop what the other side does not take, instead of keeping it for minutes behind a closed socket.
fn forget(socket: &std::net::TcpStream) {
    // Where it fails, the kernel's own patience ends it.
    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}

impl From<End> for SseEnd {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Rotated => Self::Rotated,
            End::Drained => Self::Drained,
            End::Lapsed(lapse) => lapse.into(),
        }
    }
}

impl Passage {
    /// Takes what has left the HTTP library to a shard, or to an escort where it has to catch up first.
    pub(crate) fn board(self, boarding: Boarding) {
        let Boarding { stream, unread, leaving } = boarding;
        match leaving {
            Leaving::Events(session) if session.is_boardable() => self.hand_over(stream, unread, *session),
            Leaving::Events(session) => {
                let tasks = self.host.tasks.clone();
                tasks.spawn(self.escort(stream, unread, session));
            }
            Leaving::Poll(poll, observed) => self.hand_over_poll(stream, unread, *poll, observed),
        }
    }

    /// A live response is complete: the HTTP library takes the connection again, unless it has come to its end.
    fn go_back(self, stream: TcpStream, unread: Bytes) {
        if unread.is_empty() && self.host.is_over(&self.admitted) {
            self.see_out(stream);
        } else {
            self.serve_again(stream, unread);
        }
    }

    fn see_out(self, stream: TcpStream) {
        let Self { host, peer, admitted } = self;
        let tasks = host.tasks.clone();
        tasks.spawn(host.see_out(stream, peer, admitted));
    }

    fn serve_again(self, stream: TcpStream, unread: Bytes) {
        if let Err(error) = SockRef::from(&stream).set_send_buffer_size(ORDINARY_SEND_BUFFER) {
            tracing::debug!(%error, "the send buffer stays as it was for a live reader");
        }
        let Self { host, peer, admitted } = self;
        let tasks = host.tasks.clone();
        tasks.spawn(host.serve_again(stream, unread, peer, admitted));
    }

    fn hand_over(self, stream: TcpStream, unread: Bytes, session: Session) {
        if let Err(error) = SockRef::from(&stream).set_send_buffer_size(self.host.app.config.send_buffer) {
            tracing::debug!(%error, "the send buffer of a live reader stays as it is");
        }
        let wants = Wants::Events { greet: session.is_fresh() };
        let (cursor, ends_at) = (session.feed.cursor(), session.ends_at);
        let Session { stay, reader, .. } = session;
        let expires_at = stay.standing.as_ref().and_then(|standing| standing.ends_at());
        self.seat(stream, unread, Ticket { reader, errand: Errand::Events(stay), wants, cursor, ends_at, expires_at });
    }

    fn hand_over_poll(self, stream: TcpStream, unread: Bytes, poll: Poll, observed: Observed) {
        let (parked, reader) = poll.park();
        let ends_at = parked.deadline();
        let errand = Errand::Poll(Box::new((parked, observed)));
        let ticket = Ticket { reader, errand, wants: Wants::Answer, cursor: 0, ends_at, expires_at: None };
        self.seat(stream, unread, ticket);
    }

    fn seat(self, stream: TcpStream, unread: Bytes, ticket: Ticket) {
        let Ticket { reader, errand, wants, cursor, ends_at, expires_at } = ticket;
        let (Ok(seat), Ok(socket)) = (reader.into_seat(), stream.into_std()) else {
            return tracing::error!("a live reader is lost: it is not where it was, or its socket is not");
        };
        let host = Arc::clone(&self.host);
        let luggage = Luggage { passage: self, errand };
        let (ends_at, expires_at) = (ends_at.into_std(), expires_at.map(Instant::into_std));
        let Some(shards) = &host.shards else { return };
        // Refused only behind the end of the server, when the connection ends with everything else.
        if shards.take(Arrival { socket, seat, cursor, ends_at, expires_at, wants, unread, luggage }).is_err() {
            host.app.metrics.cut(Cut::Shutdown);
        }
    }

    /// Answers a long-poll that a shard has woken.
    async fn answer(
        self,
        mut stream: TcpStream,
        unread: Bytes,
        poll: Box<(Parked, Observed)>,
        wake: Wake,
        stands: Stands,
    ) {
        let host = Arc::clone(&self.host);
        let mut unread = BytesMut::from(unread.as_ref());
        let (parked, observed) = *poll;
        let mut response = tokio::select! {
            biased;
            () = host.cut.cancelled() => return host.app.metrics.cut(Cut::Shutdown),
            left = listen(&stream, &mut unread) => return left.note(&host),
            answered = parked.answer(wake, &stands) => answered.unwrap_or_else(IntoResponse::into_response),
        };
        observed.finish(&host.app, &mut response);
        // Whatever the client has sent ahead: behind what says that it is the last, nothing more is answered.
        let is_last = host.is_over(&self.admitted);
        if is_last {
            // Whoever keeps connections must not send a request into the end of this one.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let bytes = match wire::spell(response).await {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(%error, "an answer has no body"),
        };
        match host.write(&mut stream, &bytes).await {
            Ok(()) if is_last => self.see_out(stream),
            Ok(()) => self.serve_again(stream, unread.freeze()),
            Err(unwritten) => unwritten.note(&host, stream),
        }
    }

    /// Writes a response until its reader has caught up.
    async fn escort(self, mut stream: TcpStream, unread: Bytes, mut session: Box<Session>) {
        let host = Arc::clone(&self.host);
        let others = Others::of(&host.app);
        let mut unread = BytesMut::from(unread.as_ref());
        loop {
            let step = tokio::select! {
                biased;
                () = host.cut.cancelled() => return host.app.metrics.cut(Cut::Shutdown),
                left = listen(&stream, &mut unread) => return left.note(&host),
                step = session.step() => step,
            };
            let written = match step {
                Step::Live => return self.hand_over(stream, unread.freeze(), *session),
                Step::Ended => {
                    let written = host.write(&mut stream, b"0\r\n\r\n").await;
                    if matches!(written, Ok(())) {
                        drop(session);
                        return self.go_back(stream, unread.freeze());
                    }
                    written
                }
                Step::Chunk(events) => {
                    host.app.metrics.sent_bytes(events.len());
                    session.stay.replayed(events.len());
                    let chunk = [format!("{:x}\r\n", events.len()).as_bytes(), &events, b"\r\n"].concat();
                    drop(events);
                    let written = host.write(&mut stream, &chunk).await;
                    // Others have their turn before the next chunk, however fast this socket is.
                    others.go_first().await;
                    written
                }
            };
            if let Err(unwritten) = written {
                if unwritten == Unwritten::Stalled {
                    session.stay.end(SseEnd::Stalled);
                }
                return unwritten.note(&host, stream);
            }
        }
    }
}

/// What it takes to have a seat at a shard.
struct Ticket {
    reader: Reader,
    errand: Errand,
    wants: Wants,
    cursor: u64,
    ends_at: Instant,
    expires_at: Option<Instant>,
}

/// Why something was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwritten {
    /// The connection is over.
    Broken,
    /// Nothing was taken for too long.
    Stalled,
    /// The process ends, and waits for nobody any more.
    Cut,
}

/// Why nothing more is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The client has gone.
    Gone,
    /// It sends more than it may.
    Noisy,
}

impl Host {
    async fn write(&self, stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Unwritten> {
        write(stream, bytes, self.app.config.write_timeout, &self.cut).await
    }
}

impl Unwritten {
    fn note(self, host: &Host, stream: TcpStream) {
        match self {
            Self::Broken => {}
            Self::Stalled => {
                host.app.metrics.cut(Cut::Stalled);
                if let Ok(socket) = stream.into_std() {
                    forget(&socket);
                }
            }
            Self::Cut => host.app.metrics.cut(Cut::Shutdown),
        }
    }
}

impl Left {
    fn note(self, host: &Host) {
        match self {
            Self::Gone => {}
            Self::Noisy => host.app.metrics.cut(Cut::Noisy),
        }
    }
}

/// Writes all of it, as long as some of it is taken now and then, and nothing cuts it off.
async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    patience: Duration,
    cut: &CancellationToken,
) -> Result<(), Unwritten> {
    while !bytes.is_empty() {
        let written = tokio::select! {
            biased;
            // Whoever takes a byte now and then would hold up the end of the process for as long as it likes.
            () = cut.cancelled() => return Err(Unwritten::Cut),
            written = timeout(patience, stream.write(bytes)) => written,
        };
        match written {
            Err(_) => return Err(Unwritten::Stalled),
            Ok(Err(_) | Ok(0)) => return Err(Unwritten::Broken),
            Ok(Ok(written)) => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Takes what the client sends, until it has gone or sends too much. Cancel safe.
async fn listen(stream: &TcpStream, unread: &mut BytesMut) -> Left {
    let mut buffer = [0; 2048];
    loop {
        if stream.readable().await.is_err() {
            return Left::Gone;
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => return Left::Gone,
            Ok(length) => unread.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Left::Gone,
        }
        if unread.len() > MAX_UNREAD {
            return Left::Noisy;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, duplex},
        net::TcpListener,
        time::sleep,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Both ends of a connection: the gateway's, and the client's.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, client) = tokio::join!(listener.accept(), TcpStream::connect(address));
        (accepted.unwrap().0, client.unwrap())
    }

    async fn write_to(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Unwritten> {
        write(stream, bytes, PATIENCE, &CancellationToken::new()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_waited_for_as_long_as_patience_lasts() {
        let (mut ours, mut theirs) = duplex(4);
        let began = Instant::now();
        assert_eq!(write_to(&mut ours, b"four and more").await, Err(Unwritten::Stalled));
        assert_eq!(began.elapsed(), PATIENCE);
        drop(ours);
        let mut taken = Vec::new();
        theirs.read_to_end(&mut taken).await.unwrap();
        assert_eq!(taken, b"four");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_byte_now_and_then_gets_all_of_it() {
        let (mut ours, mut theirs) = duplex(1);
        let slow = async {
            let mut taken = Vec::new();
            while taken.len() < 10 {
                sleep(PATIENCE - Duration::from_millis(1)).await;
                taken.push(theirs.read_u8().await.unwrap());
            }
            taken
        };
        let (written, taken) = tokio::join!(write_to(&mut ours, b"0123456789"), slow);
        assert_eq!((written, taken), (Ok(()), b"0123456789".to_vec()));
        assert_eq!(write_to(&mut ours, b"").await, Ok(()), "nothing is written at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_over_is_noticed_by_who_writes_to_it() {
        let (mut ours, theirs) = duplex(4);
        let (written, ()) = tokio::join!(write_to(&mut ours, b"four and more"), async { drop(theirs) });
        assert_eq!(written, Err(Unwritten::Broken));
    }

    #[tokio::test(start_paused = true)]
    async fn who_writes_when_the_process_ends_writes_no_more() {
        let (cut, began) = (CancellationToken::new(), Instant::now());
        let (mut ours, _theirs) = duplex(4);
        let (written, ()) =
            tokio::join!(biased; write(&mut ours, b"four and more", PATIENCE, &cut), async { cut.cancel() });
        assert_eq!((written, began.elapsed()), (Err(Unwritten::Cut), Duration::ZERO));
    }

    #[tokio::test]
    async fn what_a_client_says_is_kept_until_it_goes() {
        let (ours, mut theirs) = connection().await;
        let mut unread = BytesMut::from(&b"GET /a "[..]);
        theirs.write_all(b"HTTP/1.1").await.unwrap();
        theirs.shutdown().await.unwrap();
        assert_eq!(listen(&ours, &mut unread).await, Left::Gone);
        assert_eq!(unread, "GET /a HTTP/1.1");
    }

    #[tokio::test]
    async fn a_client_may_say_so_much_and_not_a_byte_more() {
        let (ours, mut theirs) = connection().await;
        let mut unread = BytesMut::new();
        let much = [b'x'; MAX_UNREAD];
        let (left, ()) = tokio::join!(listen(&ours, &mut unread), async {
            theirs.write_all(&much).await.unwrap();
            theirs.shutdown().await.unwrap();
        });
        assert_eq!((left, unread.len()), (Left::Gone, MAX_UNREAD));

        let (ours, mut theirs) = connection().await;
        let (left, ()) = tokio::join!(listen(&ours, &mut unread), async { theirs.write_all(b"x").await.unwrap() });
        assert_eq!(left, Left::Noisy);
    }

    #[tokio::test]
    async fn a_client_that_resets_its_connection_has_gone() {
        let (ours, theirs) = connection().await;
        SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        assert_eq!(listen(&ours, &mut BytesMut::new()).await, Left::Gone);
    }
}
