//! A large answer goes out in turns.
//!
//! The HTTP library writes all it is given for as long as the socket takes it. On a fast way that is a whole page at once,
//! and a few who read a long history make everything else on their thread wait for a page each: appends, their acks, and
//! what the store sends for live readers. So a page is given to the library in parts, with a turn for others between two.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// What is given at once, in bytes: some tens of microseconds of copying.
const TURN: usize = 64 * 1024;

/// What is left of an answer.
struct Turns {
    rest: Bytes,
    /// Others are to have their turn first.
    gives_way: bool,
}

/// A body of these bytes, in turns where it is large.
pub(crate) fn in_turns(body: Bytes) -> Body {
    if body.len() <= TURN { Body::from(body) } else { Body::new(Turns { rest: body, gives_way: false }) }
}

impl http_body::Body for Turns {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.gives_way) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.gives_way = true;
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

    use super::*;

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
        let of = |size| in_turns(Bytes::from(vec![7; size]));
        assert_eq!(frames(of(TURN)).await, [TURN]);
        assert_eq!(frames(of(2 * TURN + 5)).await, [TURN, 0, TURN, 0, 5]);
    }

    #[tokio::test]
    async fn whoever_gives_way_goes_on_by_itself_and_nothing_is_lost() {
        let whole: Bytes = (0..3 * TURN + 1).map(|n| (n % 251) as u8).collect();
        let body = in_turns(whole.clone());
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(whole.len() as u64), false));
        assert_eq!(body.collect().await.unwrap().to_bytes(), whole);
    }
}
