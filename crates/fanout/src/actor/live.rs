//! Readers, and the read session that feeds them.
//!
//! The session opens with the first live reader and closes a linger after the last one: streams that are only written
//! to hold none.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use prometheus::IntGauge;
use tailwater_protocol::ReadOffset;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tracing::debug;

use super::{Actor, Done, Joined, Phase, Reply, answer, later, place_of};
use crate::{
    batch::{Batch, Bell},
    chance::Chance,
    config::{DOORBELL, SESSION_RETRY},
    feed::{Feed, Listener},
    logread::LogEvent,
    ops::OpError,
};

/// The events of a session that wait for the actor.
const SESSION_EVENTS: usize = 16;

/// The live side of a stream.
pub(super) struct Live {
    session: Session,
    bell: async_broadcast::Sender<Bell>,
    doorbell: Arc<Doorbell>,
    readers: Arc<Readers>,
    /// When the last reader left.
    quiet_since: Option<Instant>,
    feed: Arc<Feed>,
    chance: Chance,
}

enum Session {
    /// Nobody needs one.
    Closed,
    Opening,
    Open(mpsc::Receiver<LogEvent>),
    /// It broke, or could not be opened; tried again then.
    Broken(Instant),
}

/// What a feed has to know of the readers that the doorbell rings up.
#[derive(Debug)]
struct Doorbell {
    /// Keeps the doorbell open while nobody listens.
    silent: async_broadcast::InactiveReceiver<Bell>,
    /// Up to where it has rung.
    rung: AtomicU64,
}

#[derive(Debug, Default)]
struct Readers {
    count: AtomicUsize,
    changed: Arc<Notify>,
}

/// A reader that the actor counts. Dropping it is leaving.
#[derive(Debug)]
pub(crate) struct ReaderGuard {
    readers: Arc<Readers>,
    gauge: IntGauge,
}

#[cfg(test)]
impl ReaderGuard {
    /// One that no actor counts, but the gauge.
    pub(crate) fn of_nobody(gauge: &IntGauge) -> Self {
        gauge.inc();
        let readers = Arc::new(Readers { count: AtomicUsize::new(1), changed: Arc::default() });
        Self { readers, gauge: gauge.clone() }
    }
}

impl Drop for Live {
    /// However the actor ends, its readers learn that they have to look elsewhere.
    fn drop(&mut self) {
        self.feed.unlisten(&(Arc::clone(&self.doorbell) as Arc<dyn Listener>));
        self.feed.turn();
    }
}

impl Listener for Doorbell {
    /// It has rung already, and brings more than that there is something.
    fn ring(&self) {}

    fn taken(&self) -> u64 {
        // In this order: what rings in between is not taken for what was answered.
        let rung = self.rung.load(Ordering::Acquire);
        match (self.silent.receiver_count(), self.silent.is_empty()) {
            (0, _) => u64::MAX,
            (_, true) => rung,
            (_, false) => 0,
        }
    }
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        self.gauge.dec();
        self.readers.count.fetch_sub(1, Ordering::AcqRel);
        self.readers.changed.notify_one();
    }
}

impl Live {
    pub(super) fn new(feed: Arc<Feed>, chance: Chance) -> Self {
        let (mut bell, receiver) = async_broadcast::broadcast(DOORBELL);
        bell.set_overflow(true);
        bell.set_await_active(false);
        let doorbell = Arc::new(Doorbell { silent: receiver.deactivate(), rung: AtomicU64::new(0) });
        feed.listen(Arc::clone(&doorbell) as Arc<dyn Listener>);
        Self { session: Session::Closed, bell, doorbell, readers: Arc::default(), quiet_since: None, feed, chance }
    }

    /// Wakes the actor when a reader has left.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.readers.changed)
    }

    pub(super) fn readers(&self) -> usize {
        self.readers.count.load(Ordering::Acquire)
    }

    /// Whether there is neither a reader nor a session.
    pub(super) fn is_quiet(&self) -> bool {
        self.readers() == 0 && matches!(self.session, Session::Closed)
    }

    pub(super) fn has_session(&self) -> bool {
        matches!(self.session, Session::Open(_))
    }

    /// Tells all live readers what is in the ring by now. Never waits: one who does not keep up finds everything there.
    pub(super) fn announce(&self, batch: &Arc<Batch>) {
        self.feed.pulse().set_rung(batch.next);
        self.feed.ring();
        self.ring_doorbell(Bell::of(batch));
        self.doorbell.rung.store(batch.next, Ordering::Release);
    }

    /// Makes all live readers look anew where they stand; the bell says what for.
    pub(super) fn ring(&self, bell: Bell) {
        self.feed.turn();
        self.ring_doorbell(bell);
    }

    fn ring_doorbell(&self, bell: Bell) {
        // Fails only while nobody listens.
        drop(self.bell.try_broadcast(bell));
    }

    /// After an activation.
    pub(super) fn start_again(&self, next: u64) {
        self.feed.pulse().set_rung(next);
        self.doorbell.rung.store(next, Ordering::Release);
    }

    /// The next event of the session; never, while there is none.
    pub(super) async fn next_event(&mut self) -> Option<LogEvent> {
        match &mut self.session {
            Session::Open(events) => events.recv().await,
            Session::Closed | Session::Opening | Session::Broken(_) => pending().await,
        }
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        match self.session {
            Session::Broken(again) if self.readers() > 0 => Some(again),
            Session::Broken(_) | Session::Open(_) => self.quiet_since,
            Session::Closed | Session::Opening => None,
        }
    }

    pub(super) fn drop_session(&mut self) {
        self.session = Session::Closed;
        self.quiet_since = None;
        self.feed.pulse().set_alive(false);
    }

    fn break_session(&mut self) {
        self.session = Session::Broken(Instant::now() + self.chance.jittered(SESSION_RETRY));
        self.feed.pulse().set_lost();
    }
}

impl Actor {
    pub(super) fn join(&mut self, from: ReadOffset, reply: Reply<Joined>) {
        let view = self.view();
        let place = match self.check_readable().and_then(|()| Ok(place_of(&view, from)?)) {
            Ok(place) => place,
            Err(error) => return answer(reply, Err(error)),
        };
        let readers = &self.live.readers;
        readers.count.fetch_add(1, Ordering::AcqRel);
        self.seed.metrics.live_readers.inc();
        let guard = ReaderGuard { readers: Arc::clone(readers), gauge: self.seed.metrics.live_readers.clone() };
        self.live.quiet_since = None;
        // Backlog and feed come from the same turn of the actor: nothing can lie between them, and nothing in both.
        let joined = Joined {
            batches: self.since(place),
            bell: self.live.bell.new_receiver(),
            turn: self.live.feed.turns(),
            feed: Arc::clone(&self.live.feed),
            view,
            place,
            guard,
        };
        answer(reply, Ok(joined));
    }

    /// Opens the session when it is wanted, and closes it a linger after it no longer is.
    pub(super) fn tend_session(&mut self) {
        let now = Instant::now();
        if self.live.readers() > 0 {
            self.live.quiet_since = None;
            let due = match self.live.session {
                Session::Closed => true,
                Session::Broken(again) => again <= now,
                Session::Opening | Session::Open(_) => false,
            };
            if due && self.is_over() {
                self.live.drop_session();
            } else if due {
                self.open_session();
            }
            return;
        }
        if matches!(self.live.session, Session::Closed | Session::Opening) {
            return;
        }
        let end = *self.live.quiet_since.get_or_insert_with(|| later(now, self.seed.config.linger));
        if end <= now {
            self.live.quiet_since = None;
            self.live.drop_session();
            self.last_use = now;
        }
    }

    fn open_session(&mut self) {
        self.live.session = Session::Opening;
        let (reader, from, tracker) = (self.reader.clone(), self.state.next(), self.seed.tracker.clone());
        self.start(async move {
            let opened = reader.follow(from).await.map(|session| {
                let (events, receiver) = mpsc::channel(SESSION_EVENTS);
                tracker.spawn(session.pump(events));
                receiver
            });
            Done::Session(opened)
        });
    }

    pub(super) fn on_session_opened(&mut self, opened: Result<mpsc::Receiver<LogEvent>, OpError>) {
        if !matches!(self.live.session, Session::Opening) {
            return;
        }
        match opened {
            Ok(events) => self.live.session = Session::Open(events),
            Err(error) => {
                debug!(stream = %self.seed.key, %error, "the read session could not be opened");
                self.live.break_session();
                // The log may not reach that far any more: the store has reaped the stream.
                self.check_from_now();
            }
        }
    }

    pub(super) fn on_session(&mut self, event: Option<LogEvent>) {
        match event {
            // There may be more behind them: it is fresh once it has caught up.
            Some(LogEvent::Records(records)) => self.ingest(records),
            Some(LogEvent::CaughtUp(tail)) => {
                self.live.feed.pulse().set_alive(true);
                if tail > self.state.next() {
                    // It has yielded all there is, and still something is missing: it crossed a trim.
                    self.reset();
                }
            }
            Some(LogEvent::Stalled) => self.live.feed.pulse().set_lost(),
            Some(LogEvent::Ended(error)) => {
                debug!(stream = %self.seed.key, %error, "the read session ended");
                self.live.break_session();
            }
            None => self.live.break_session(),
        }
    }

    /// The log is not what the state says: find out anew, and let every reader look at where it stands.
    pub(super) fn reset(&mut self) {
        if self.phase == Phase::Activating {
            return;
        }
        self.seed.metrics.resets.inc();
        self.present.forget();
        self.writes.forget();
        self.live.drop_session();
        self.activate();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tailwater_protocol::Offset;

    use super::*;
    use crate::{batch::Message, feed::RingPool};

    fn batch(seq: u64) -> Arc<Batch> {
        let messages = vec![Message { seq, body: Bytes::from_static(b"body") }];
        Arc::new(Batch::new(seq, seq, seq + 1, Offset { birth: 1, seq: seq + 1 }, messages, false))
    }

    fn live(pool_bytes: usize) -> (Arc<Feed>, Live) {
        let pool = RingPool::new(pool_bytes, IntGauge::new("ring", "ring").unwrap());
        let feed = Feed::new(&pool, 1000);
        let live = Live::new(Arc::clone(&feed), Chance::default());
        (feed, live)
    }

    #[test]
    fn an_actor_that_ends_without_a_word_makes_its_readers_look_elsewhere() {
        let (feed, live) = live(1000);
        drop(live);
        assert_eq!((feed.turns(), feed.listeners()), (1, 0));
    }

    #[test]
    fn a_reader_that_is_slow_to_answer_keeps_nothing_that_the_ring_has_let_go_of() {
        for (pool_bytes, is_kept) in [(0, false), (1000, true)] {
            let (feed, live) = live(pool_bytes);
            let mut slow = live.bell.new_receiver();
            let batch = batch(0);
            feed.push(Arc::clone(&batch));
            live.announce(&batch);
            let rest = Arc::downgrade(&batch);
            drop(batch);
            assert_eq!(rest.upgrade().is_some(), is_kept);
            let Ok(Bell::Batch { next: 1, batch, .. }) = slow.try_recv() else { panic!("the bell has rung") };
            assert_eq!(batch.upgrade().is_some(), is_kept);
        }
    }

    #[test]
    fn who_is_rung_up_has_taken_what_it_has_answered_and_nobody_waits_for_nothing() {
        let (feed, live) = live(1000);
        assert_eq!(live.doorbell.taken(), u64::MAX, "nobody is there");
        let mut reader = live.bell.new_receiver();
        assert_eq!(live.doorbell.taken(), 0);
        let batch = batch(0);
        feed.push(Arc::clone(&batch));
        live.announce(&batch);
        assert_eq!(live.doorbell.taken(), 0, "it has rung, and nobody has answered");
        drop(reader.try_recv().unwrap());
        assert_eq!(live.doorbell.taken(), 1);
        drop(reader);
        assert_eq!(live.doorbell.taken(), u64::MAX);
    }
}
