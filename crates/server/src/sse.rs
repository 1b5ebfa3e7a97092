//! `GET ?live=sse`: what is there and what comes, as Server-Sent Events (protocol, section 5.8; HTML, section 9.2).
//!
//! The frames are made by [`feed`](crate::feed); here are the waits. Each delivery is one chunk of the body, because
//! clients count chunks. A response is silent for a keep-alive interval at most, lasts about as long as it may, and ends
//! with a `retry:` of its own, so that readers who came together do not come back together.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use tailwater_fanout::{Event, Reader};
use tailwater_protocol::{Answer, ContentKind, Offset, ReadOffset, cursor, headers, sse};
use tailwater_upstream::StreamKey;
use tokio::time::{Instant, sleep_until};

use crate::{
    answer,
    app::App,
    drain::Turn,
    event_source::{EVENT_STREAM, retry_after},
    feed::Feed,
    metrics::{Alive, Metrics, SseEnd},
    problem::Problem,
    read,
};

/// Between these a reader comes back after its response has lasted as long as it may.
const ROTATED_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(550));
/// Between these a reader comes back after the gateway, or the stream, has ended its response.
const ENDED_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(3000));
/// What a reader of a deleted stream is sent. It may try again, and is then told by a status.
const GONE: &[u8] = b"event: reset\ndata:{\"gone\":true}\n\n";

/// What is followed.
pub(crate) struct Follow {
    pub(crate) key: StreamKey,
    pub(crate) from: ReadOffset,
    /// The cursor of the client's last response.
    pub(crate) cursor: Option<u64>,
    /// Whether an `EventSource` goes on where it was cut off.
    pub(crate) resumed: bool,
}

/// One response.
struct Session {
    app: App,
    reader: Reader,
    feed: Feed,
    turn: Turn,
    phase: Phase,
    /// When it has lasted as long as it may.
    ends_at: Instant,
    ending: Ending,
    _alive: Alive,
}

enum Phase {
    /// Nothing was sent yet.
    First,
    Live,
    Ended,
}

/// Counts the one reason why a response ended, also where its body is dropped because the reader has left.
struct Ending {
    metrics: Metrics,
    reason: SseEnd,
}

pub(crate) async fn get(app: &App, follow: Follow) -> Result<Response, Problem> {
    let turn = app.drain.enter(app.ambient.share())?;
    let reader = app.gateway.follow(&follow.key, follow.from).await?;
    // Nothing else stops an `EventSource` from reconnecting for ever.
    if follow.resumed && reader.is_closed() {
        return Ok(nothing_more(app, &reader));
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
    let session = Session::new(app, reader, turn, follow.cursor);
    *response.body_mut() = Body::from_stream(stream::unfold(session, |mut session| async move {
        let chunk = session.next_chunk().await?;
        session.app.metrics.sent_bytes(chunk.len());
        Some((Ok::<_, Infallible>(chunk), session))
    }));
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
    fn new(app: &App, reader: Reader, turn: Turn, client: Option<u64>) -> Self {
        let ambient = app.ambient;
        let cursor = cursor::respond(ambient.now(), client, (ambient.random)());
        let lifetime = app.config.sse_lifetime;
        let lasts = ambient.between(lifetime.mul_f64(0.9), lifetime.mul_f64(1.1));
        Self {
            feed: Feed::new(reader.head().content_type.kind(), reader.position(), cursor),
            reader,
            turn,
            phase: Phase::First,
            ends_at: Instant::now() + lasts,
            ending: Ending { metrics: app.metrics.clone(), reason: SseEnd::Left },
            _alive: Alive::new(&app.metrics.sse_readers),
            app: app.clone(),
        }
    }

    /// What to send next; `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::First => {
                self.phase = Phase::Live;
                match self.first() {
                    Some(chunk) => Some(chunk),
                    None => Some(self.live().await),
                }
            }
            Phase::Live => Some(self.live().await),
            Phase::Ended => None,
        }
    }

    /// The control event of a reader for whom there is nothing yet. It may say that this is all: joining has just asked
    /// the store.
    fn first(&mut self) -> Option<Bytes> {
        if self.reader.is_closed() {
            self.end(SseEnd::Closed);
            return Some(self.feed.end(self.app.ambient.now()));
        }
        self.reader.is_caught_up().then(|| self.feed.control(true, self.app.ambient.now()))
    }

    async fn live(&mut self) -> Bytes {
        let silent_until = Instant::now() + self.app.config.keep_alive;
        loop {
            // Ends come first, or a busy stream would never come to them; silence last.
            let event = tokio::select! {
                biased;
                () = self.turn.comes() => return self.ended(SseEnd::Drained, &[], ENDED_RETRY),
                () = sleep_until(self.ends_at) => return self.ended(SseEnd::Rotated, &[], ROTATED_RETRY),
                event = self.reader.next() => event,
                () = sleep_until(silent_until) => {
                    let all = self.reader.is_caught_up() && self.reader.is_fresh();
                    return self.feed.control(all, self.app.ambient.now());
                }
            };
            match event {
                Event::Messages(delivery) => {
                    if let Some(chunk) = self.feed.deliver(&delivery, self.app.ambient.now()) {
                        if delivery.closed {
                            self.end(SseEnd::Closed);
                        }
                        return chunk;
                    }
                }
                Event::Reset { earliest } => return self.ended(SseEnd::Reset, &reset(earliest), ENDED_RETRY),
                Event::Gone => return self.ended(SseEnd::Gone, GONE, ENDED_RETRY),
                Event::Failed(error) => {
                    // Logs it. The reader learns by a status when it comes back.
                    let _problem = Problem::from(error);
                    return self.ended(SseEnd::Failed, &[], ENDED_RETRY);
                }
            }
        }
    }

    /// Ends, with last words and the time to come back.
    fn ended(&mut self, reason: SseEnd, last: &[u8], retry: (Duration, Duration)) -> Bytes {
        self.end(reason);
        [last, &retry_after(self.app.ambient, retry)].concat().into()
    }

    fn end(&mut self, reason: SseEnd) {
        self.phase = Phase::Ended;
        self.ending.reason = reason;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.metrics.sse_ended(self.reason);
    }
}

fn reset(earliest: Offset) -> BytesMut {
    let mut out = BytesMut::new();
    sse::write_reset(&mut out, earliest);
    out
}
