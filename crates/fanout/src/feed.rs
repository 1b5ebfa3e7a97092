//! The feed of a stream: where its actor and its readers meet.
//!
//! The actor puts each batch into the ring and rings; readers take from the ring what they have not had. The ring is the
//! truth and the ringing a doorbell, so a listener that is late, or is rung up once for several batches, misses nothing.
//!
//! All rings share one limit ([`RingPool`]). A ring lets go of whatever it is asked for, its newest batch too: who has not
//! had that goes the way of every reader that is behind. Nobody else keeps batches, so one that the ring has let go of is
//! there only for as long as somebody is just being given it.

mod pool;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

pub use self::pool::RingPool;
use self::pool::{Row, Ticket};
use crate::{
    batch::Batch,
    ring::{Newest, Ring},
};

/// What a stream shows its readers.
#[derive(Debug)]
pub struct Feed {
    shown: Mutex<Shown>,
    /// Whom to ring up. Under a lock of its own: who is rung up looks at what is shown, on another thread and at once, and
    /// to wait there for the one who rings would be two turns of a core for nothing.
    listeners: Mutex<Vec<Arc<dyn Listener>>>,
    pulse: Pulse,
    pool: Arc<RingPool>,
    me: Weak<Self>,
}

#[derive(Debug)]
struct Shown {
    ring: Ring,
    /// Grows whenever readers have to look anew where they stand.
    turn: u64,
    /// Whether the stream is closed behind what the ring holds.
    closed: bool,
    /// What the pool has on its books for this ring.
    booked: usize,
    /// Its place among the rings that the pool can ask for room. A ring that holds something has one.
    ticket: Option<Ticket>,
}

/// One who is told that there is something to look at. Called by the actor: it must not wait.
pub(crate) trait Listener: std::fmt::Debug + Send + Sync {
    /// There is something new.
    fn ring(&self);

    /// Up to where those who listen here have been given everything, as far as they still look into this feed.
    fn taken(&self) -> u64;
}

/// What readers can see of a feed without taking its lock.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    alive: AtomicBool,
    lost: AtomicBool,
    rung: AtomicU64,
}

/// What a reader finds that has had everything up to a position.
#[derive(Debug)]
pub enum Found {
    /// What came since.
    Batches {
        /// Contiguous and in order; none where there is nothing new.
        batches: Vec<Arc<Batch>>,
        /// The position behind them, marks included.
        next: u64,
        /// Whether the stream is closed behind them.
        closed: bool,
    },
    /// Some of it has left the ring.
    Behind,
    /// The reader has to look anew where it stands.
    Moved,
}

impl Pulse {
    /// Whether the session shows life, so that readers may be told that they are up to date.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(crate) fn set_alive(&self, alive: bool) {
        self.alive.store(alive, Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }

    /// Whether there was a session and it has lost its connection: the store may be away, and whoever left now might not
    /// be let in again.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn set_lost(&self) {
        self.alive.store(false, Ordering::Release);
        self.lost.store(true, Ordering::Release);
    }

    /// The position behind all that has been rung for.
    pub(crate) fn rung(&self) -> u64 {
        self.rung.load(Ordering::Acquire)
    }

    pub(crate) fn set_rung(&self, next: u64) {
        self.rung.store(next, Ordering::Release);
    }
}

impl Feed {
    /// The feed of a stream that nothing is known of yet, with a ring of at most this many bytes.
    pub fn new(pool: &Arc<RingPool>, ring_bytes: usize) -> Arc<Self> {
        let shown = Shown { ring: Ring::new(0, ring_bytes), turn: 0, closed: false, booked: 0, ticket: None };
        Arc::new_cyclic(|me| Self {
            shown: Mutex::new(shown),
            listeners: Mutex::default(),
            pulse: Pulse::default(),
            pool: Arc::clone(pool),
            me: Weak::clone(me),
        })
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Starts a ring anew at a position. Whoever looks from now on finds that it has to look anew where it stands: what
    /// is being put into the ring is not to be taken for what follows on what was there. Who listens is not told yet;
    /// see [`turn`](Self::turn).
    pub fn restart(&self, at: u64, closed: bool) {
        let mut shown = self.shown();
        shown.turn += 1;
        shown.ring = shown.ring.anew(at);
        shown.closed = closed;
        self.book(&mut shown);
    }

    /// Adds the next batch. Where that takes more room than there is, rings have let go of as much when this is done, if
    /// need be of this very batch.
    pub fn push(&self, batch: Arc<Batch>) {
        {
            let mut shown = self.shown();
            shown.closed |= batch.closes;
            shown.ring.push(batch);
            if shown.ticket.is_none() && !shown.ring.is_empty() {
                shown.ticket = Some(self.pool.enter(Row::Open, &self.me));
            }
            self.book(&mut shown);
            if self.pool.is_over() {
                shown.ring.shrink_to(self.pool.share(), Newest::Stays);
                self.book(&mut shown);
            }
        }
        if self.pool.is_over() {
            self.pool.reclaim();
        }
    }

    /// Tells all who listen.
    pub(crate) fn ring(&self) {
        for listener in self.listened().iter() {
            listener.ring();
        }
    }

    /// Makes every reader look anew where it stands.
    pub(crate) fn turn(&self) {
        self.shown().turn += 1;
        self.ring();
    }

    /// How often readers have been made to look anew.
    pub(crate) fn turns(&self) -> u64 {
        self.shown().turn
    }

    /// What a reader finds that has had everything up to `seq`, and that last looked where it stands in `turn`.
    pub fn look(&self, turn: u64, seq: u64) -> Found {
        let shown = self.shown();
        if shown.turn != turn {
            return Found::Moved;
        }
        match shown.ring.since(seq) {
            Some(batches) => Found::Batches { batches, next: shown.ring.next(), closed: shown.closed },
            None => Found::Behind,
        }
    }

    /// The batches that hold something at or after a position; `None` where some of it has gone.
    pub(crate) fn since(&self, seq: u64) -> Option<Vec<Arc<Batch>>> {
        self.shown().ring.since(seq)
    }

    /// From where on the ring holds no message.
    pub(crate) fn quiet_since(&self) -> u64 {
        self.shown().ring.quiet_since()
    }

    /// Rings `listener` up from now on.
    pub(crate) fn listen(&self, listener: Arc<dyn Listener>) {
        self.listened().push(listener);
    }

    /// Rings `listener` up no longer.
    pub(crate) fn unlisten(&self, listener: &Arc<dyn Listener>) {
        self.listened().retain(|other| !Arc::ptr_eq(other, listener));
    }

    /// How many are rung up.
    #[cfg(test)]
    pub(crate) fn listeners(&self) -> usize {
        self.listened().len()
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        // Nothing that runs under the lock can leave it half done.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listened(&self) -> MutexGuard<'_, Vec<Arc<dyn Listener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the pool's books in line with what the ring holds.
    fn book(&self, shown: &mut Shown) {
        let bytes = shown.ring.bytes();
        self.pool.rebook(shown.booked, bytes);
        shown.booked = bytes;
    }

    /// Makes room when its turn has come: down to its share, and at least one batch. Where readers are about to be given
    /// the newest one and other rings are still to be asked, it waits with that for the end of the queue.
    fn make_room(&self, share: usize, row: Row) {
        let taken = self.taken();
        let mut shown = self.shown();
        let is_put_off = row == Row::Open && shown.is_awaited(taken);
        if is_put_off {
            shown.ring.shrink_to(share, Newest::Stays);
        } else {
            let before = shown.ring.bytes();
            shown.ring.shrink_to(share, Newest::Goes);
            if shown.ring.bytes() == before {
                shown.ring.let_go();
            }
        }
        self.book(&mut shown);
        let row = if is_put_off { Row::Awaited } else { Row::Open };
        shown.ticket = (!shown.ring.is_empty()).then(|| self.pool.enter(row, &self.me));
    }

    /// Stands with the others again once readers have been given what it was put off for.
    fn line_up_again(&self) {
        let taken = self.taken();
        let mut shown = self.shown();
        if shown.is_awaited(taken) {
            return;
        }
        if let Some(ticket) = shown.ticket {
            self.pool.leave(ticket);
            shown.ticket = Some(self.pool.enter(Row::Open, &self.me));
        }
    }

    /// Up to where all who are rung up have been given everything. Asked for before the lock is taken, so that nobody
    /// waits there for the one who rings.
    pub(crate) fn taken(&self) -> u64 {
        self.listened().iter().map(|listener| listener.taken()).min().unwrap_or(u64::MAX)
    }
}

impl Shown {
    /// Whether readers who have had everything up to there are about to be given the newest batch.
    fn is_awaited(&self, taken: u64) -> bool {
        !self.ring.is_empty() && taken < self.ring.quiet_since()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut shown = self.shown();
        if let Some(ticket) = shown.ticket.take() {
            self.pool.leave(ticket);
        }
        self.pool.rebook(shown.booked, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use bytes::Bytes;
    use prometheus::IntGauge;
    use tailwater_protocol::Offset;

    use super::*;
    use crate::batch::Message;

    fn pool(limit: usize) -> Arc<RingPool> {
        RingPool::new(limit, IntGauge::new("ring", "ring").unwrap())
    }

    fn push(feed: &Feed, seq: u64, size: usize, closes: bool) {
        let messages = vec![Message { seq, body: Bytes::from(vec![b'x'; size]) }];
        let next_offset = Offset { birth: 1, seq: seq + 1 };
        feed.push(Arc::new(Batch::new(seq, seq, seq + 1, next_offset, messages, closes)));
    }

    #[derive(Debug, Default)]
    struct Bell(AtomicUsize);

    impl Listener for Bell {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn taken(&self) -> u64 {
            0
        }
    }

    #[test]
    fn a_reader_finds_what_came_since_and_is_told_when_it_cannot() {
        let feed = Feed::new(&pool(1 << 20), 1000);
        feed.restart(5, false);
        let turn = feed.turns();
        push(&feed, 5, 10, false);
        assert!(matches!(feed.look(turn, 5), Found::Batches { batches, next: 6, closed: false } if batches.len() == 1));
        assert!(matches!(feed.look(turn, 6), Found::Batches { batches, .. } if batches.is_empty()));
        push(&feed, 6, 2000, true);
        assert!(matches!(feed.look(turn, 5), Found::Behind), "the large one has pushed the other out");
        assert!(matches!(feed.look(turn, 6), Found::Batches { closed: true, .. }));
        feed.turn();
        assert!(matches!(feed.look(0, 6), Found::Moved));
        assert!(matches!(feed.look(feed.turns(), 6), Found::Batches { .. }));
    }

    #[test]
    fn nobody_takes_a_ring_that_is_being_filled_for_the_end_of_a_closed_stream() {
        let feed = Feed::new(&pool(1 << 20), 1000);
        let turn = feed.turns();
        feed.restart(0, true);
        assert!(matches!(feed.look(turn, 0), Found::Moved), "what the stream ends with is not in the ring yet");
        push(&feed, 0, 10, false);
        assert!(matches!(feed.look(turn, 0), Found::Moved));
    }

    /// What it could see of a feed each time that it was rung up.
    #[derive(Debug)]
    struct Onlooker(Arc<Feed>, Mutex<Vec<Option<u64>>>);

    impl Listener for Onlooker {
        fn ring(&self) {
            let turn = self.0.shown.try_lock().ok().map(|shown| shown.turn);
            self.1.lock().unwrap().push(turn);
        }

        fn taken(&self) -> u64 {
            0
        }
    }

    #[test]
    fn who_is_rung_up_finds_no_lock_in_the_way_of_what_it_is_to_look_at() {
        let feed = Feed::new(&pool(1 << 20), 1000);
        let onlooker = Arc::new(Onlooker(Arc::clone(&feed), Mutex::default()));
        feed.listen(Arc::clone(&onlooker) as Arc<dyn Listener>);
        feed.ring();
        feed.turn();
        assert_eq!(*onlooker.1.lock().unwrap(), [Some(0), Some(1)]);
        // They hold each other.
        feed.unlisten(&(onlooker as Arc<dyn Listener>));
    }

    #[test]
    fn only_who_listens_is_rung_up() {
        let feed = Feed::new(&pool(1 << 20), 1000);
        let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
        let listeners: Vec<Arc<dyn Listener>> = bells.iter().map(|bell| Arc::clone(bell) as _).collect();
        listeners.iter().for_each(|listener| feed.listen(Arc::clone(listener)));
        feed.ring();
        feed.unlisten(&listeners[0]);
        feed.ring();
        feed.turn();
        assert_eq!(bells.map(|bell| bell.0.load(Ordering::Relaxed)), [1, 3]);
    }

    #[test]
    fn who_has_had_everything_does_not_notice_that_the_ring_is_emptied() {
        let feed = Feed::new(&pool(0), 1000);
        push(&feed, 0, 10, false);
        assert!(matches!(feed.look(0, 0), Found::Behind), "a reader that has not had it goes to history");
        assert!(matches!(feed.look(0, 1), Found::Batches { batches, next: 1, .. } if batches.is_empty()));
        assert_eq!(feed.quiet_since(), 1, "what comes next follows on what was let go");
        push(&feed, 1, 10, true);
        assert!(matches!(feed.look(0, 1), Found::Behind));
        assert!(matches!(feed.look(0, 2), Found::Batches { next: 2, closed: true, .. }));
    }
}
