//! What is sent of the past goes out in turns.
//!
//! The HTTP library writes all it is given for as long as the socket takes it. On a fast way that is a whole page at once,
//! and a few who read a long history make everything else on their thread wait for a page each: appends, their acks, and
//! what the store sends for live readers. So a page is given to the library in parts, with a turn for others between two.
//! And where the delivery shards need all cores, the next part waits for them ([`Precedence`]): a thread that sends the past
//! would take half the time of one that sends what is new.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Frame, SizeHint};
use prometheus::IntCounter;
use tailwater_fanout::Precedence;
use tokio::task::yield_now;

use crate::app::App;

/// What is given at once, in bytes: some tens of microseconds of copying.
const TURN: usize = 64 * 1024;

/// Those who go first.
#[derive(Clone)]
pub(crate) struct Others {
    deliveries: Arc<Precedence>,
    /// How often somebody waited for them.
    waits: IntCounter,
}

/// What is left of an answer.
struct Turns {
    rest: Bytes,
    others: Others,
    turn: Turn,
}

/// Whose turn it is.
enum Turn {
    Mine,
    /// Others are to have theirs first.
    Theirs,
    /// They need all there is.
    Waits(BoxFuture<'static, ()>),
}

/// A body of these bytes, in turns where it is large.
pub(crate) fn in_turns(app: &App, body: Bytes) -> Body {
    if body.len() <= TURN {
        return Body::from(body);
    }
    Body::new(Turns { rest: body, others: Others::of(app), turn: Turn::Mine })
}

impl Others {
    pub(crate) fn of(app: &App) -> Self {
        Self { deliveries: Arc::clone(&app.deliveries), waits: app.metrics.gave_way.clone() }
    }

    /// Lets others have their turn, and waits where they need all cores, but not for long. Cancel safe.
    pub(crate) async fn go_first(&self) {
        if self.need_all() { self.wait().await } else { yield_now().await }
    }

    fn need_all(&self) -> bool {
        self.deliveries.is_full()
    }

    async fn wait(&self) {
        self.waits.inc();
        self.deliveries.give_way().await;
    }
}

impl http_body::Body for Turns {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if matches!(self.turn, Turn::Theirs) {
            if !self.others.need_all() {
                self.turn = Turn::Mine;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let others = self.others.clone();
            self.turn = Turn::Waits(Box::pin(async move { others.wait().await }));
        }
        if let Turn::Waits(others) = &mut self.turn {
            ready!(others.as_mut().poll(cx));
        }
        self.turn = Turn::Theirs;
        let size = TURN.min(self.rest.len());
        let part = self.rest.split_to(size);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;

    fn others() -> Others {
        let waits = IntCounter::new("waits", "waits").unwrap();
        Others { deliveries: Arc::new(Precedence::of_deliveries(1)), waits }
    }

    fn turns(others: &Others, rest: Bytes) -> Body {
        Body::new(Turns { rest, others: others.clone(), turn: Turn::Mine })
    }

    /// The sizes of the frames of a body, with a 0 for each time that it gave way.
    async fn frames(mut body: Body) -> Vec<usize> {
        let mut sizes = Vec::new();
        loop {
            let next = poll_fn(|cx| {
                Poll::Ready(match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Pending => Some(0),
                    Poll::Ready(frame) => frame.map(|frame| frame.unwrap().into_data().unwrap().len()),
                })
            });
            match next.await {
                Some(size) => sizes.push(size),
                None => return sizes,
            }
        }
    }

    #[tokio::test]
    async fn others_have_their_turn_between_the_parts_of_a_large_answer() {
        let of = |size| turns(&others(), Bytes::from(vec![7; size]));
        assert_eq!(frames(of(TURN)).await, [TURN]);
        assert_eq!(frames(of(2 * TURN + 5)).await, [TURN, 0, TURN, 0, 5]);
    }

    #[tokio::test]
    async fn whoever_gives_way_goes_on_by_itself_and_nothing_is_lost() {
        let whole: Bytes = (0..3 * TURN + 1).map(|n| (n % 251) as u8).collect();
        let body = turns(&others(), whole.clone());
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(whole.len() as u64), false));
        assert_eq!(body.collect().await.unwrap().to_bytes(), whole);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_part_waits_while_deliveries_need_all_cores() {
        let others = others();
        let began = Instant::now();
        let delivery = others.deliveries.begin();
        let mut body = turns(&others, Bytes::from(vec![7; 3 * TURN]));
        let mut parts = Vec::new();
        while let Some(part) = body.frame().await {
            parts.push((part.unwrap().into_data().unwrap().len(), began.elapsed()));
        }
        drop(delivery);
        let lengths: Vec<_> = parts.iter().map(|(length, _)| *length).collect();
        assert_eq!((lengths, others.waits.get()), (vec![TURN; 3], 2));
        let waited: Vec<_> = parts.windows(2).map(|pair| !(pair[1].1 - pair[0].1).is_zero()).collect();
        assert_eq!((parts[0].1.is_zero(), waited), (true, vec![true, true]), "it waits, and not for ever");
        let before = Instant::now();
        let whole = turns(&others, Bytes::from(vec![7; 3 * TURN])).collect().await.unwrap().to_bytes();
        assert_eq!((whole.len(), before.elapsed(), others.waits.get()), (3 * TURN, std::time::Duration::ZERO, 2));
    }
}
