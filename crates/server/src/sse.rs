//! `GET ?live=sse`: what is there and what comes, as Server-Sent Events (protocol, section 5.8; HTML, section 9.2).
//!
//! The frames are made by [`feed`](crate::feed); here are the waits. Each delivery is one chunk of the body, because
//! clients count chunks. A response is silent for a keep-alive interval at most, lasts about as long as it may, and ends
//! with a `retry:` of its own, so that readers who came together do not come back together.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use tailwater_fanout::{Event, Reader, STAY, Stands};
use tailwater_protocol::{
    Answer, ContentKind, Offset, ReadOffset, cursor, headers,
    sse::{self, Lapse},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    admission::Place,
    answer,
    app::App,
    drain::{Draining, Turn},
    event_source::{EVENT_STREAM, retry_after},
    feed::Feed,
    handover::Pass,
    metrics::{Alive, SseEnd},
    permit::{Followed, Permit},
    problem::Problem,
    quota::Attendance,
    read,
    standing::{Standing, Vigil, end_of, lapse_of},
    turns::Others,
};

/// Between these a reader comes back after its response has lasted as long as it may.
pub(crate) const ROTATED_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(550));
/// Between these a reader comes back after the gateway, or the stream, has ended its response.
pub(crate) const ENDED_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(3000));
/// What a reader of a deleted stream is sent. It may try again, and is then told by a status.
const GONE: &[u8] = b"event: reset\ndata:{\"gone\":true}\n\n";

/// What is followed.
pub(crate) struct Follow {
    pub(crate) permit: Permit,
    pub(crate) from: ReadOffset,
    /// The cursor of the client's last response.
    pub(crate) cursor: Option<u64>,
    /// Whether an `EventSource` goes on where it was cut off.
    pub(crate) resumed: bool,
}

/// One response.
pub(crate) struct Session {
    pub(crate) stay: Stay,
    pub(crate) reader: Reader,
    pub(crate) feed: Feed,
    phase: Phase,
    /// When it has lasted as long as it may.
    pub(crate) ends_at: Instant,
    /// Waits for the end of what it stands on; nothing, where that is for ever.
    vigil: Option<Vigil>,
}

/// What a response holds for as long as it lasts, whoever writes it. Dropping it counts the one reason why it ended, also
/// where its body is dropped because the reader has left.
pub(crate) struct Stay {
    app: App,
    turn: Turn,
    reason: SseEnd,
    /// What it stands on; nothing, where everybody may do everything.
    pub(crate) standing: Option<Arc<Standing>>,
    /// Its client's, where the response is not written by the HTTP library.
    place: Option<Arc<Place>>,
    /// What it holds of quotas, where tokens are asked for.
    attendance: Option<Box<Attendance>>,
    _alive: Alive,
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent yet.
    First,
    Live,
    Ended,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Something to send.
    Chunk,
    /// The same, unless the reader is live.
    Live,
}

/// What a response that is not live yet comes to next.
pub(crate) enum Step {
    /// Something to send.
    Chunk(Bytes),
    /// It has ended.
    Ended,
    /// It has caught up, and can be written by a delivery shard.
    Live,
}

pub(crate) async fn get(app: &App, follow: Follow, pass: Option<Pass>) -> Result<Response, Problem> {
    let turn = app.drain.enter(app.ambient.share())?;
    let standing = follow.permit.standing(app);
    let Followed { reader, attendance } = tokio::select! {
        biased;
        () = turn.comes() => return Err(Draining.into()),
        followed = follow.permit.follow(app, follow.from) => followed?,
    };
    // Nothing else stops an `EventSource` from reconnecting for ever.
    if follow.resumed && reader.is_closed() {
        return Ok(nothing_more(app, &reader));
    }
    if let Some(standing) = &standing {
        // Joining may have taken a while.
        standing.check()?;
    }
    let kind = reader.head().content_type.kind();
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, read::cache_value(app, Answer::Sse, reader.head()));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if kind == ContentKind::Binary {
        headers.insert(headers::STREAM_SSE_DATA_ENCODING, HeaderValue::from_static("base64"));
    }
    let mut session = Session::new(app, reader, turn, follow.cursor, standing);
    session.stay.attendance = attendance;
    *response.body_mut() = match pass {
        Some(pass) if !session.reader.is_closed() => {
            session.stay.place = pass.place;
            pass.exit.take(session)
        }
        Some(_) | None => session.into_body(),
    };
    Ok(response)
}

fn nothing_more(app: &App, reader: &Reader) -> Response {
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    answer::set_next_offset(headers, reader.position());
    answer::set_up_to_date(headers, true);
    answer::set_closed(headers, true);
    headers.insert(header::CACHE_CONTROL, read::cache_value(app, Answer::LongPollTimeout, reader.head()));
    response
}

impl Session {
    fn new(app: &App, reader: Reader, turn: Turn, client: Option<u64>, standing: Option<Arc<Standing>>) -> Self {
        let ambient = app.ambient;
        let cursor = cursor::respond(ambient.now(), client, (ambient.random)());
        let lifetime = app.config.sse_lifetime;
        let lasts = ambient.between(lifetime.mul_f64(0.9), lifetime.mul_f64(1.1));
        let stay = Stay {
            turn,
            reason: SseEnd::Left,
            standing,
            place: None,
            attendance: None,
            _alive: Alive::new(&app.metrics.sse_readers),
            app: app.clone(),
        };
        let feed = Feed::new(reader.head().content_type.kind(), reader.position(), cursor);
        let vigil = stay.vigil();
        Self { stay, reader, feed, phase: Phase::First, ends_at: Instant::now() + lasts, vigil }
    }

    /// A response that goes on where a delivery shard has left it.
    pub(crate) fn resume(stay: Stay, stands: &Stands, cursor: u64, ends_at: Instant) -> Self {
        let reader = Reader::resume(stay.app.gateway.clone(), stands);
        let feed = Feed::new(reader.head().content_type.kind(), reader.position(), cursor);
        let vigil = stay.vigil();
        Self { stay, reader, feed, phase: Phase::Live, ends_at, vigil }
    }

    /// Whether nothing was sent yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.phase == Phase::First
    }

    /// Whether a delivery shard can write the rest of it.
    pub(crate) fn is_boardable(&self) -> bool {
        self.reader.is_live() && !self.feed.holds_back() && self.phase != Phase::Ended
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut session| async move {
            let replays = !session.reader.is_live();
            let chunk = session.next_chunk().await?;
            session.stay.app.metrics.sent_bytes(chunk.len());
            if replays {
                session.stay.replayed(chunk.len());
                Others::of(&session.stay.app).go_first().await;
            }
            Some((Ok::<_, Infallible>(chunk), session))
        }))
    }

    /// What to send next, or that it can be handed to a delivery shard. Cancel safe.
    pub(crate) async fn step(&mut self) -> Step {
        if self.phase == Phase::Ended {
            return Step::Ended;
        }
        if self.reader.is_closed() && self.phase == Phase::First {
            self.end(SseEnd::Closed);
            return Step::Chunk(self.feed.end(self.stay.app.ambient.now()));
        }
        match self.live(Until::Live).await {
            Some(chunk) => {
                self.phase = if self.phase == Phase::First { Phase::Live } else { self.phase };
                Step::Chunk(chunk)
            }
            None => Step::Live,
        }
    }

    /// What to send next; `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::First => {
                self.phase = Phase::Live;
                match self.first() {
                    Some(chunk) => Some(chunk),
                    None => self.live(Until::Chunk).await,
                }
            }
            Phase::Live => self.live(Until::Chunk).await,
            Phase::Ended => None,
        }
    }

    /// The control event of a reader for whom there is nothing yet. It may say that this is all: joining has just asked
    /// the store.
    fn first(&mut self) -> Option<Bytes> {
        if self.reader.is_closed() {
            self.end(SseEnd::Closed);
            return Some(self.feed.end(self.stay.app.ambient.now()));
        }
        self.reader.is_caught_up().then(|| self.feed.control(true, self.stay.app.ambient.now()))
    }

    /// What to send next; `None` where that is not to be waited for because the reader is live and nothing is held back
    /// for it: a shard would go on behind what was not sent.
    async fn live(&mut self, until: Until) -> Option<Bytes> {
        let silent_until = Instant::now() + self.stay.app.config.keep_alive;
        loop {
            let next = async {
                match until {
                    Until::Live if !self.feed.holds_back() => self.reader.next_unless_live().await,
                    Until::Live | Until::Chunk => Some(self.reader.next().await),
                }
            };
            // Ends come first, or a busy stream would never come to them; silence last.
            let event = tokio::select! {
                biased;
                refusal = end_of(&mut self.vigil) => return Some(self.lapsed(lapse_of(refusal))),
                () = self.stay.turn.comes() => return Some(self.ended(SseEnd::Drained, &[], ENDED_RETRY)),
                () = sleep_until(self.ends_at) => {
                    if self.reader.is_cut_off() {
                        // It would not be let in again. When the store is back, not all leave at once.
                        self.ends_at = Instant::now() + self.stay.app.ambient.between(STAY.0, STAY.1);
                        continue;
                    }
                    return Some(self.ended(SseEnd::Rotated, &[], ROTATED_RETRY));
                }
                event = next => event?,
                () = sleep_until(silent_until) => {
                    let all = self.reader.is_caught_up() && self.reader.is_fresh();
                    return Some(self.feed.control(all, self.stay.app.ambient.now()));
                }
            };
            if let Some(chunk) = self.react(event) {
                return Some(chunk);
            }
        }
    }

    /// What an event makes the reader see, if anything.
    fn react(&mut self, event: Event) -> Option<Bytes> {
        match event {
            Event::Messages(delivery) => {
                let chunk = self.feed.deliver(&delivery, self.stay.app.ambient.now());
                if chunk.is_some() && delivery.closed {
                    self.end(SseEnd::Closed);
                }
                chunk
            }
            Event::Reset { earliest } => Some(self.ended(SseEnd::Reset, &reset(earliest), ENDED_RETRY)),
            Event::Gone => Some(self.ended(SseEnd::Gone, GONE, ENDED_RETRY)),
            Event::Failed(error) => {
                // Logs it. The reader learns by a status when it comes back.
                let _problem = Problem::from(error);
                Some(self.ended(SseEnd::Failed, &[], ENDED_RETRY))
            }
        }
    }

    /// Ends, with last words and the time to come back.
    fn ended(&mut self, reason: SseEnd, last: &[u8], retry: (Duration, Duration)) -> Bytes {
        self.end(reason);
        [last, &retry_after(self.stay.app.ambient, retry)].concat().into()
    }

    /// Ends because its reader may not go on. Those who come back all the same do not come together.
    fn lapsed(&mut self, lapse: Lapse) -> Bytes {
        let mut last = Vec::new();
        sse::write_unauthorized(&mut last, lapse);
        self.ended(lapse.into(), &last, ENDED_RETRY)
    }

    fn end(&mut self, reason: SseEnd) {
        self.phase = Phase::Ended;
        self.stay.reason = reason;
    }
}

impl Stay {
    fn vigil(&self) -> Option<Vigil> {
        self.standing.clone().map(Standing::vigil)
    }

    /// Says why the response ends.
    pub(crate) fn end(&mut self, reason: SseEnd) {
        self.reason = reason;
    }

    /// Counts events that it was sent while it was behind.
    pub(crate) fn replayed(&mut self, bytes: usize) {
        if let Some(attendance) = &mut self.attendance {
            attendance.replayed(bytes);
        }
    }
}

impl From<Lapse> for SseEnd {
    fn from(lapse: Lapse) -> Self {
        match lapse {
            Lapse::Expired => Self::Expired,
            Lapse::Revoked => Self::Revoked,
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.app.metrics.sse_ended(self.reason);
    }
}

fn reset(earliest: Offset) -> BytesMut {
    let mut out = BytesMut::new();
    sse::write_reset(&mut out, earliest);
    out
}
