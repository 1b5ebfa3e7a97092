//! The read session as a stream of events.
//!
//! S2's session yields records, and knows on the side whether it has caught up. Here the two become one stream, in
//! which the news that everything before a tail was yielded has its place among the records.
//!
//! A session of S2 is one connection here. When it is lost, another goes on behind what was yielded, once the store can
//! be asked for one; whoever reads is told of the loss, and sees neither a gap nor a repeat. A store that stands still ends
//! no connection: what the [watch](crate::sentry) over it finds is told as well, while the connection is kept.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream};
use s2_sdk::{error::ReadSessionError, types::ReadBatch};
use tailwater_upstream::{Position, ReadError, ReadSession, SessionEvent};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    circuit::pause,
    metrics::{Meter, Operation, SessionGuard},
    sentry::Post,
    translate::{self, TimedOut},
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

/// Opens a session from a position on, as soon as the store can be asked for one.
pub(crate) type Reopen = Box<dyn FnMut(u64) -> BoxFuture<'static, Result<ReadSession, ReadError>> + Send>;

/// A session over as many connections as it takes.
struct Resuming {
    connection: Option<ReadSession>,
    reopen: Reopen,
    /// Where it goes on.
    next: u64,
    /// Whether something has come since a loss was told of.
    has_yielded: bool,
    /// The tail that the connection has caught up with, and behind which nothing has come.
    caught_up_at: Option<Position>,
    post: Post,
    /// How many connections in a row were lost soon, or not made.
    failed: u32,
    connected_at: Instant,
    is_over: bool,
}

/// A connection that has lasted so long was a good one: what follows it is not put off by what came before.
const LASTING: Duration = Duration::from_secs(5);

/// Opens a session, and opens it again whenever its connection is lost; an error that another try would not mend ends it.
///
/// # Errors
/// When there is no connection `within` this time.
pub(crate) async fn resuming(
    from: u64,
    within: Duration,
    post: Post,
    reopen: Reopen,
) -> Result<ReadSession, ReadError> {
    let mut session = Resuming {
        connection: None,
        reopen,
        next: from,
        has_yielded: false,
        caught_up_at: None,
        post,
        failed: 0,
        connected_at: Instant::now(),
        is_over: false,
    };
    let late = |_| Err(ReadError::Unavailable { cause: TimedOut { within }.into() });
    timeout(within, session.connect()).await.unwrap_or_else(late)?;
    let events = stream::unfold(session, |mut session| async move {
        let event = session.next().await?;
        Some((event, session))
    });
    Ok(events.boxed())
}

/// Turns one connection's session into events, and ends with its first error. A reconnect of the library's own while the
/// session is behind is not told of: nothing was claimed then that has to be taken back.
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

impl Resuming {
    /// The next event; nothing behind an error that ends it.
    async fn next(&mut self) -> Option<Result<SessionEvent, ReadError>> {
        while !self.is_over {
            let Some(connection) = &mut self.connection else {
                if let Err(error) = self.connect().await {
                    self.is_over = true;
                    return Some(Err(error));
                }
                continue;
            };
            let event = tokio::select! {
                biased;
                event = connection.next() => event,
                is_sound = self.post.news() => match self.heard(is_sound) {
                    Some(event) => return Some(Ok(event)),
                    None => continue,
                },
            };
            match event {
                Some(Ok(event)) => {
                    self.note(&event);
                    return Some(Ok(event));
                }
                Some(Err(error)) if !error.is_retryable() => {
                    self.is_over = true;
                    self.connection = None;
                    return Some(Err(error));
                }
                Some(Err(error)) => tracing::debug!(%error, "a read session has lost its connection"),
                // What has no end and ends was cut off.
                None => {}
            }
            (self.connection, self.caught_up_at) = (None, None);
            let before = if self.connected_at.elapsed() >= LASTING { 0 } else { self.failed };
            self.failed = before.saturating_add(1);
            if mem::take(&mut self.has_yielded) {
                return Some(Ok(SessionEvent::Stalled));
            }
        }
        None
    }

    /// Tries for a connection until there is one, or will be none.
    async fn connect(&mut self) -> Result<(), ReadError> {
        loop {
            if let Some(before) = self.failed.checked_sub(1) {
                sleep(pause(before, rand::random())).await;
            }
            match (self.reopen)(self.next).await {
                Ok(connection) => {
                    (self.connection, self.connected_at) = (Some(connection), Instant::now());
                    self.post.forget();
                    return Ok(());
                }
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "a read session found no connection");
                    self.failed = self.failed.saturating_add(1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&mut self, event: &SessionEvent) {
        self.caught_up_at = None;
        match event {
            SessionEvent::Records(records) => self.next = records.last().map_or(self.next, |last| last.seq + 1),
            SessionEvent::CaughtUp(tail) => {
                self.next = tail.seq;
                self.caught_up_at = Some(*tail);
            }
            SessionEvent::Stalled => {
                self.has_yielded = false;
                return;
            }
        }
        self.has_yielded = true;
    }

    /// What the watch says of a connection that has not broken: that nobody knows whether there is more, or that it still
    /// stands where it stood.
    fn heard(&mut self, is_sound: bool) -> Option<SessionEvent> {
        if !is_sound {
            return mem::take(&mut self.has_yielded).then_some(SessionEvent::Stalled);
        }
        let tail = self.caught_up_at.filter(|_| !self.has_yielded)?;
        self.has_yielded = true;
        Some(SessionEvent::CaughtUp(tail))
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
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use futures_util::task::noop_waker;
    use prometheus::Registry;
    use s2_sdk::types::{SequencedRecord, StreamPosition};

    use super::*;
    use crate::{
        Placement,
        metrics::Metrics,
        sentry::{Sentry, Stream as Followed},
    };

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

    type Yield = Result<SessionEvent, ReadError>;

    fn records(seqs: std::ops::Range<u64>) -> Yield {
        let record = |seq| tailwater_log::Record { seq, timestamp: 0, headers: Vec::new(), body: Bytes::new() };
        Ok(SessionEvent::Records(seqs.map(record).collect()))
    }

    fn caught_up(seq: u64) -> Yield {
        Ok(SessionEvent::CaughtUp(Position { seq, timestamp: 0 }))
    }

    fn lost() -> Yield {
        Err(ReadError::Unavailable { cause: "lost".into() })
    }

    fn post(sentry: &Sentry) -> Post {
        let key = tailwater_upstream::StreamKey::new("project", "stream");
        let place = Placement::basin_per_project("tailwater").unwrap().locate(&key).unwrap();
        sentry.post(Followed { key, place })
    }

    /// A session over these connections, one for each try; and from where each was asked for.
    async fn over(
        connections: Vec<Result<Vec<Yield>, ReadError>>,
    ) -> (Result<ReadSession, ReadError>, Arc<Mutex<Vec<u64>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (mut connections, from) = (VecDeque::from(connections), Arc::clone(&asked));
        let reopen: Reopen = Box::new(move |seq| {
            from.lock().unwrap().push(seq);
            let connection = connections.pop_front();
            async move {
                match connection {
                    Some(connection) => connection.map(|events| stream::iter(events).boxed()),
                    None => std::future::pending().await,
                }
            }
            .boxed()
        });
        (resuming(7, Duration::from_secs(10), post(&Sentry::new()), reopen).await, asked)
    }

    /// What it yields until it has nothing more to say, in short.
    async fn said(session: &mut ReadSession) -> Vec<String> {
        let mut said = Vec::new();
        while let Ok(Some(event)) = timeout(Duration::from_secs(60), session.next()).await {
            said.push(match event {
                Ok(SessionEvent::Records(records)) => {
                    format!("{}..{}", records[0].seq, records[0].seq + records.len() as u64)
                }
                Ok(SessionEvent::CaughtUp(tail)) => format!("tail {}", tail.seq),
                Ok(SessionEvent::Stalled) => "stalled".to_owned(),
                Err(error) => error.to_string(),
            });
        }
        said
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_goes_on_behind_what_it_has_yielded_and_says_once_that_it_was_cut_off() {
        let away = || Err(ReadError::Unavailable { cause: "away".into() });
        let (session, asked) = over(vec![
            Ok(vec![records(7..9), caught_up(9), records(9..10), lost()]),
            away(),
            Ok(vec![lost()]),
            away(),
            // Ended without a word.
            Ok(vec![records(10..12)]),
            Ok(vec![caught_up(12)]),
        ])
        .await;
        let said = said(&mut session.unwrap()).await;
        assert_eq!(said, ["7..9", "tail 9", "9..10", "stalled", "10..12", "stalled", "tail 12", "stalled"]);
        assert_eq!(*asked.lock().unwrap(), [7, 10, 10, 10, 10, 12, 12]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stands_still_is_told_of_and_the_connection_goes_on_when_it_moves_again() {
        let sentry = Sentry::new();
        let (events, mut incoming) = tokio::sync::mpsc::unbounded_channel::<Yield>();
        let mut connection = Some(stream::poll_fn(move |cx| incoming.poll_recv(cx)).boxed());
        let reopen: Reopen = Box::new(move |_| {
            let connection = connection.take();
            async move { connection.ok_or(ReadError::NotFound) }.boxed()
        });
        let mut session = resuming(7, LASTING, post(&sentry), reopen).await.unwrap();
        let mut next = async |is_sound: Option<bool>| {
            if let Some(is_sound) = is_sound {
                sentry.tell(is_sound);
            }
            timeout(Duration::from_secs(1), session.next()).await.ok().flatten().map(Result::unwrap)
        };
        let (at_7, at_8) = (caught_up(7).unwrap(), caught_up(8).unwrap());
        assert_eq!(next(Some(false)).await, None, "it has claimed nothing");
        assert_eq!(next(Some(true)).await, None);
        events.send(caught_up(7)).unwrap();
        assert_eq!(next(None).await, Some(at_7.clone()));
        assert_eq!(next(Some(false)).await, Some(SessionEvent::Stalled));
        assert_eq!(next(None).await, None, "once");
        assert_eq!(next(Some(true)).await, Some(at_7), "it stands where it stood");
        assert_eq!(next(Some(false)).await, Some(SessionEvent::Stalled));
        events.send(records(7..8)).unwrap();
        assert!(matches!(next(None).await, Some(SessionEvent::Records(_))), "what it yields is true in any case");
        assert_eq!(next(Some(true)).await, None, "there may be more behind it");
        events.send(caught_up(8)).unwrap();
        assert_eq!(next(None).await, Some(at_8));
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_try_would_not_mend_ends_a_session() {
        let (session, asked) = over(vec![Ok(vec![records(7..8), Err(ReadError::NotFound)]), Ok(vec![])]).await;
        assert_eq!(said(&mut session.unwrap()).await, ["7..8", "the store has no such stream"]);
        assert_eq!(asked.lock().unwrap().len(), 1);
        let (session, _) = over(vec![Ok(vec![lost()]), Err(ReadError::NotFound)]).await;
        assert_eq!(said(&mut session.unwrap()).await, ["the store has no such stream"]);
        assert!(matches!(over(vec![Err(ReadError::NotFound)]).await.0, Err(ReadError::NotFound)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_comes_and_goes_at_once_is_tried_at_ever_longer_intervals() {
        let (session, asked) = over((0..1000).map(|_| Ok(vec![lost()])).collect()).await;
        assert_eq!(said(&mut session.unwrap()).await, [""; 0]);
        let tries = asked.lock().unwrap().len();
        assert!((60..=130).contains(&tries), "in a minute: {tries}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_good_is_replaced_at_once() {
        let asked_at = Arc::new(Mutex::new(Vec::new()));
        let times = Arc::clone(&asked_at);
        let reopen: Reopen = Box::new(move |_| {
            times.lock().unwrap().push(Instant::now());
            let lasts = stream::once(sleep(LASTING)).filter_map(async |()| None::<Yield>);
            std::future::ready(Ok(lasts.boxed())).boxed()
        });
        let mut session = resuming(0, LASTING, post(&Sentry::new()), reopen).await.unwrap();
        assert!(timeout(LASTING * 100, session.next()).await.is_err());
        let asked_at = asked_at.lock().unwrap();
        assert!(asked_at.len() > 95, "{}", asked_at.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_connection_is_waited_for_as_long_as_it_may_take() {
        let began = Instant::now();
        assert!(matches!(over(Vec::new()).await.0, Err(ReadError::Unavailable { .. })));
        assert_eq!(began.elapsed(), Duration::from_secs(10));
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
