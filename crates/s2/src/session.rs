//! The read session as a stream of events.
//!
//! S2's session yields records, and knows on the side whether it has caught up. Here the two become one stream, in
//! which the news that everything before a tail was yielded has its place among the records.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use s2_sdk::{error::ReadSessionError, types::ReadBatch};
use tailwater_upstream::{Position, ReadError, ReadSession, SessionEvent};

use crate::{
    metrics::{Meter, Operation, SessionGuard},
    translate,
};

/// A stream of batches that knows whether it has caught up.
pub(crate) trait Following: Stream<Item = Result<ReadBatch, ReadSessionError>> + Unpin {
    /// The tail up to which everything was yielded; `None` while there is something before it, or no connection.
    fn caught_up_at(&self) -> Option<Position>;
}

struct Events<F> {
    /// Gone once it has ended, and its place in the gauge with it.
    session: Option<(F, SessionGuard)>,
    /// The tail that was told of; `None` while the session is behind, so that reaching the same tail again is news.
    announced: Option<Position>,
    meter: Meter,
}

/// Turns a session into events, and ends with its first error. A connection lost while the session is behind anyway is
/// not told of: nothing was claimed then that has to be taken back.
pub(crate) fn events<F: Following + Send + 'static>(session: F, guard: SessionGuard, meter: Meter) -> ReadSession {
    Events { session: Some((session, guard)), announced: None, meter }.boxed()
}

impl Following for s2_sdk::read_session::ReadSession {
    fn caught_up_at(&self) -> Option<Position> {
        if !self.is_caught_up() {
            return None;
        }
        self.caught_up().now_or_never()?.ok().map(translate::position)
    }
}

impl<F: Following> Stream for Events<F> {
    type Item = Result<SessionEvent, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some((session, _)) = &mut this.session else { return Poll::Ready(None) };
        // The batch that was yielded last may have reached the tail.
        if let Some(tail) = news(&mut this.announced, session.caught_up_at()) {
            return Poll::Ready(Some(Ok(SessionEvent::CaughtUp(tail))));
        }
        match session.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(batch))) => {
                Poll::Ready(Some(Ok(SessionEvent::Records(translate::records(batch.records)))))
            }
            Poll::Ready(Some(Err(error))) => {
                this.session = None;
                let error = translate::session_error(error);
                this.meter.read_failed(Operation::ReadSession, &error);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.session = None;
                Poll::Ready(None)
            }
            // Without a batch, only a heartbeat or a lost connection changes where the session stands.
            Poll::Pending => {
                let was_caught_up = this.announced.is_some();
                match news(&mut this.announced, session.caught_up_at()) {
                    Some(tail) => Poll::Ready(Some(Ok(SessionEvent::CaughtUp(tail)))),
                    None if was_caught_up && this.announced.is_none() => Poll::Ready(Some(Ok(SessionEvent::Stalled))),
                    None => Poll::Pending,
                }
            }
        }
    }
}

/// Takes note of where the session stands, and returns a tail that was not told of yet.
fn news(announced: &mut Option<Position>, now: Option<Position>) -> Option<Position> {
    if *announced == now {
        return None;
    }
    *announced = now;
    now
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use futures_util::task::noop_waker;
    use prometheus::Registry;
    use s2_sdk::types::{SequencedRecord, StreamPosition};

    use super::*;
    use crate::metrics::Metrics;

    /// One poll's worth of what a session does.
    enum Step {
        Batch { seq: u64, tail: Option<u64> },
        Heartbeat(u64),
        Lost,
        Fail,
    }

    struct Scripted {
        steps: VecDeque<Step>,
        tail: Option<u64>,
    }

    impl Following for Scripted {
        fn caught_up_at(&self) -> Option<Position> {
            self.tail.map(|seq| Position { seq, timestamp: 0 })
        }
    }

    impl Stream for Scripted {
        type Item = Result<ReadBatch, ReadSessionError>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            match self.steps.pop_front() {
                Some(Step::Batch { seq, tail }) => {
                    self.tail = tail;
                    let records = vec![SequencedRecord::from_parts(seq, 0, Vec::new(), "x")];
                    let tail = tail.map(|seq| StreamPosition::new(seq, 0));
                    Poll::Ready(Some(Ok(ReadBatch::new(records, tail))))
                }
                Some(Step::Heartbeat(tail)) => {
                    self.tail = Some(tail);
                    Poll::Pending
                }
                Some(Step::Lost) => {
                    self.tail = None;
                    Poll::Pending
                }
                Some(Step::Fail) => Poll::Ready(Some(Err(ReadSessionError::HeartbeatTimeout))),
                None => Poll::Ready(None),
            }
        }
    }

    /// Polls the script to its end: the first record's number of each batch, and the tails that were told of.
    fn play(steps: Vec<Step>) -> Vec<String> {
        let registry = Registry::new();
        let meter: Meter = Arc::new(Metrics::register(&registry).unwrap());
        let session = Scripted { steps: steps.into(), tail: None };
        let mut events = events(session, meter.session(), Arc::clone(&meter));
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut seen = Vec::new();
        loop {
            match events.poll_next_unpin(&mut cx) {
                Poll::Ready(Some(Ok(SessionEvent::Records(records)))) => seen.push(records[0].seq.to_string()),
                Poll::Ready(Some(Ok(SessionEvent::CaughtUp(tail)))) => seen.push(format!("tail {}", tail.seq)),
                Poll::Ready(Some(Ok(SessionEvent::Stalled))) => seen.push("stalled".to_owned()),
                Poll::Ready(Some(Err(_))) => seen.push("error".to_owned()),
                Poll::Ready(None) => return seen,
                Poll::Pending => {}
            }
        }
    }

    #[test]
    fn a_tail_is_told_of_after_the_batch_that_reached_it() {
        let steps = vec![
            Step::Batch { seq: 0, tail: None },
            Step::Batch { seq: 1, tail: Some(2) },
            Step::Batch { seq: 2, tail: Some(3) },
        ];
        assert_eq!(play(steps), ["0", "1", "tail 2", "2", "tail 3"]);
    }

    #[test]
    fn a_heartbeat_tells_of_a_tail_once() {
        let steps = vec![Step::Heartbeat(4), Step::Heartbeat(4), Step::Heartbeat(9)];
        assert_eq!(play(steps), ["tail 4", "tail 9"]);
    }

    #[test]
    fn reaching_the_same_tail_after_a_reconnect_is_news() {
        let steps = vec![Step::Heartbeat(4), Step::Lost, Step::Heartbeat(4)];
        assert_eq!(play(steps), ["tail 4", "stalled", "tail 4"]);
    }

    #[test]
    fn a_connection_is_lost_once_and_only_by_a_session_that_had_caught_up() {
        let steps = vec![Step::Lost, Step::Heartbeat(4), Step::Lost, Step::Lost];
        assert_eq!(play(steps), ["tail 4", "stalled"]);
    }

    #[test]
    fn a_batch_that_leaves_the_session_behind_is_no_stall() {
        let steps = vec![Step::Heartbeat(4), Step::Batch { seq: 4, tail: None }, Step::Lost, Step::Heartbeat(6)];
        assert_eq!(play(steps), ["tail 4", "4", "tail 6"]);
    }

    #[test]
    fn an_error_ends_the_session() {
        let steps = vec![Step::Batch { seq: 0, tail: None }, Step::Fail, Step::Batch { seq: 1, tail: None }];
        assert_eq!(play(steps), ["0", "error"]);
    }

    #[test]
    fn the_gauge_counts_a_session_until_it_ends() {
        let registry = Registry::new();
        let meter: Meter = Arc::new(Metrics::register(&registry).unwrap());
        let open = || {
            registry.gather().iter().find(|m| m.name().ends_with("read_sessions")).unwrap().get_metric()[0]
                .get_gauge()
                .value()
        };
        let session = Scripted { steps: VecDeque::from([Step::Fail]), tail: None };
        let mut events = events(session, meter.session(), Arc::clone(&meter));
        assert_eq!(open(), 1.0);
        assert!(events.next().now_or_never().flatten().unwrap().is_err());
        assert_eq!(open(), 0.0, "an ended session is not open, even while its stream is held");
    }
}
