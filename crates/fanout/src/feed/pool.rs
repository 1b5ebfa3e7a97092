//! The limit on what all rings hold together, and who makes room while it is passed.
//!
//! Rings that hold something stand in a queue. Who pushes a batch beyond the limit first lets go of what its own ring
//! holds beyond its share, but for that batch. Where that is not enough, the others are asked, one after the other: the
//! first in the queue goes down to its share, but lets go of at least its oldest batch, and stands at the end again. A ring
//! whose newest batch readers are about to be given is put off: that batch goes only when no other ring has anything left.
//! Then it goes too, so the limit has no exception, and its readers go the way of all who are behind.
//!
//! Each ring that is asked gives something, or is put off, which it is once for each time that it has come into the queue.
//! So what a push costs does not depend on the number of streams.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use prometheus::IntGauge;

use super::Feed;

/// The limit on what all rings hold together: it is kept whenever no push is under way, and while some are, it is passed
/// by their batches at most.
#[derive(Debug)]
pub struct RingPool {
    limit: usize,
    used: AtomicUsize,
    gauge: IntGauge,
    /// Taken while a feed's lock is held, never the other way round.
    queue: Mutex<Queue>,
    /// Held by the one who has rings make room: a ring that is being asked is in no row, and must not be missed there.
    hand: Mutex<()>,
    /// How many rings were asked.
    #[cfg(test)]
    pub(super) asked: AtomicUsize,
}

/// Where a ring stands in the queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Which rings are asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// Those whose batches nobody is about to be given, as far as is known.
    Open,
    /// Those that were put off.
    Awaited,
}

/// The rings that hold something.
#[derive(Debug, Default)]
struct Queue {
    tickets: u64,
    open: BTreeMap<Ticket, Weak<Feed>>,
    awaited: BTreeMap<Ticket, Weak<Feed>>,
    /// The one of those put off that was looked at last.
    reviewed: Ticket,
}

impl RingPool {
    /// A limit of this many bytes. `gauge` shows what is held.
    pub fn new(limit: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            gauge,
            queue: Mutex::default(),
            hand: Mutex::default(),
            #[cfg(test)]
            asked: AtomicUsize::new(0),
        })
    }

    /// Enters a ring that holds something, at the end of a row.
    pub(super) fn enter(&self, row: Row, feed: &Weak<Feed>) -> Ticket {
        let mut queue = self.queue();
        queue.tickets += 1;
        let ticket = Ticket(queue.tickets);
        match row {
            Row::Open => queue.open.insert(ticket, Weak::clone(feed)),
            Row::Awaited => queue.awaited.insert(ticket, Weak::clone(feed)),
        };
        ticket
    }

    /// Takes a ring out of its row, if it stands in one.
    pub(super) fn leave(&self, ticket: Ticket) {
        let mut queue = self.queue();
        if queue.open.remove(&ticket).is_none() {
            queue.awaited.remove(&ticket);
        }
    }

    /// Brings the books in line with what a ring holds.
    pub(super) fn rebook(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::AcqRel);
        } else {
            self.used.fetch_sub(before - after, Ordering::AcqRel);
        }
        self.gauge.add(signed(after) - signed(before));
    }

    pub(super) fn is_over(&self) -> bool {
        self.used.load(Ordering::Acquire) > self.limit
    }

    /// What each ring that holds something may hold when all do.
    pub(super) fn share(&self) -> usize {
        self.limit / self.queue().len().max(1)
    }

    /// Has rings make room until the limit is kept.
    pub(super) fn reclaim(&self) {
        // Nothing that runs under the lock can leave it half done.
        let _hand = self.hand.lock().unwrap_or_else(PoisonError::into_inner);
        // Apart from the queue's lock, here and below: a feed that is dropped takes it.
        let reviewed = self.queue().review();
        if let Some(feed) = reviewed {
            feed.line_up_again();
        }
        while self.is_over() {
            let share = self.share();
            let next = self.queue().next();
            let Some((row, feed)) = next else { return };
            #[cfg(test)]
            self.asked.fetch_add(1, Ordering::Relaxed);
            feed.make_room(share, row);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queue().len()
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.open.len() + self.awaited.len()
    }

    /// Who is to make room next. A feed that is being dropped gives its room back itself.
    fn next(&mut self) -> Option<(Row, Arc<Feed>)> {
        while let Some((_, feed)) = self.open.pop_first() {
            if let Some(feed) = feed.upgrade() {
                return Some((Row::Open, feed));
            }
        }
        while let Some((_, feed)) = self.awaited.pop_first() {
            if let Some(feed) = feed.upgrade() {
                return Some((Row::Awaited, feed));
            }
        }
        None
    }

    /// One of those that were put off, each in its turn: what it was put off for may have been given to its readers.
    fn review(&mut self) -> Option<Arc<Feed>> {
        let behind = self.awaited.range(Ticket(self.reviewed.0 + 1)..).next();
        let (ticket, feed) = behind.or_else(|| self.awaited.first_key_value())?;
        self.reviewed = *ticket;
        feed.upgrade()
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use bytes::Bytes;
    use proptest::prelude::*;
    use tailwater_protocol::Offset;

    use super::*;
    use crate::{
        batch::{Batch, Message},
        feed::{Found, Listener},
    };

    fn pool(limit: usize) -> Arc<RingPool> {
        RingPool::new(limit, IntGauge::new("ring", "ring").unwrap())
    }

    /// Pushes a message of so many bytes.
    fn push(feed: &Feed, seq: u64, size: usize) {
        let messages = vec![Message { seq, body: Bytes::from(vec![b'x'; size]) }];
        let next_offset = Offset { birth: 1, seq: seq + 1 };
        feed.push(Arc::new(Batch::new(seq, seq, seq + 1, next_offset, messages, false)));
    }

    /// What a message of so many bytes takes.
    fn cost(size: usize) -> usize {
        let pool = pool(usize::MAX);
        let feed = Feed::new(&pool, usize::MAX);
        push(&feed, 0, size);
        pool.used()
    }

    fn held(feed: &Feed) -> usize {
        feed.shown().ring.bytes()
    }

    /// Readers who have been given everything up to a position.
    #[derive(Debug, Default)]
    struct Crowd(AtomicU64);

    impl Crowd {
        fn of(feed: &Feed) -> Arc<Self> {
            let crowd = Arc::new(Self::default());
            feed.listen(Arc::clone(&crowd) as Arc<dyn Listener>);
            crowd
        }

        fn take(&self, next: u64) {
            self.0.store(next, Ordering::Release);
        }
    }

    impl Listener for Crowd {
        fn ring(&self) {}

        fn taken(&self) -> u64 {
            self.0.load(Ordering::Acquire)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize, usize),
        Take(usize),
        Restart(usize),
        Renew(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0usize..6, 0usize..3000).prop_map(|(which, size)| Step::Push(which, size)),
            3 => (0usize..6).prop_map(Step::Take),
            1 => (0usize..6).prop_map(Step::Restart),
            1 => (0usize..6).prop_map(Step::Renew),
        ]
    }

    proptest! {
        #[test]
        fn all_rings_together_keep_the_limit_after_every_push(
            steps in prop::collection::vec(step(), 1..200),
            limit in prop_oneof![1 => Just(0usize), 9 => 500usize..40_000],
            readers in prop::collection::vec(any::<bool>(), 6),
        ) {
            let pool = pool(limit);
            let begin = |has_readers: &bool| {
                let feed = Feed::new(&pool, 10_000);
                let crowd = has_readers.then(|| Crowd::of(&feed));
                (feed, crowd, 0u64)
            };
            let mut streams: Vec<_> = readers.iter().map(begin).collect();
            for step in steps {
                match step {
                    Step::Push(which, size) => {
                        let (feed, _, next) = &mut streams[which];
                        push(feed, *next, size);
                        *next += 1;
                    }
                    Step::Take(which) => {
                        let (_, crowd, next) = &streams[which];
                        crowd.iter().for_each(|crowd| crowd.take(*next));
                    }
                    Step::Restart(which) => streams[which].0.restart(streams[which].2, false),
                    Step::Renew(which) => streams[which] = begin(&readers[which]),
                }
                let total: usize = streams.iter().map(|(feed, ..)| held(feed)).sum();
                prop_assert!(total <= limit, "{} of {}", total, limit);
                prop_assert_eq!((total, signed(total)), (pool.used(), pool.gauge.get()));
                let holding = streams.iter().filter(|(feed, ..)| held(feed) > 0).count();
                prop_assert!((holding..=streams.len()).contains(&pool.queued()), "who holds something can be asked");
                for (feed, _, next) in &streams {
                    let found = feed.look(feed.turns(), *next);
                    let nothing = matches!(&found, Found::Batches { batches, .. } if batches.is_empty());
                    prop_assert!(nothing, "whoever has had everything finds nothing new: {:?}", found);
                }
            }
        }
    }

    #[test]
    fn while_pushes_are_under_way_the_limit_is_passed_by_their_batches_at_most() {
        const THREADS: usize = 4;
        const SIZE: usize = 1000;
        let limit = 10 * cost(SIZE);
        let pool = pool(limit);
        let most = limit + THREADS * cost(SIZE);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let feeds: Vec<_> = (0..8).map(|_| Feed::new(&pool, 1 << 20)).collect();
                    let crowds: Vec<_> = feeds.iter().step_by(2).map(|feed| Crowd::of(feed)).collect();
                    for seq in 0..500 {
                        for feed in &feeds {
                            push(feed, seq, SIZE);
                            assert!(pool.used() <= most - cost(SIZE), "this push is done");
                        }
                        crowds.iter().step_by(2).for_each(|crowd| crowd.take(seq + 1));
                    }
                });
            }
        });
        assert_eq!((pool.used(), pool.queued()), (0, 0), "all feeds have gone");
    }

    #[test]
    fn a_push_asks_few_rings_however_many_there_are() {
        const STREAMS: usize = 5_000;
        const SIZE: usize = 100;
        let pool = pool(STREAMS / 2 * cost(SIZE));
        let feeds: Vec<_> = (0..STREAMS).map(|_| Feed::new(&pool, 1 << 20)).collect();
        // Of a half the readers never take anything.
        let stuck: Vec<_> = feeds.iter().step_by(2).map(|feed| Crowd::of(feed)).collect();
        for seq in 0..3 {
            feeds.iter().for_each(|feed| push(feed, seq, SIZE));
        }
        let asked = pool.asked.load(Ordering::Relaxed);
        let pushed = 3 * STREAMS;
        assert!(pool.used() <= pool.limit && asked >= STREAMS, "there is no room for all of them: {asked}");
        assert!(asked <= 2 * pushed, "{asked} for {pushed} pushes");
        assert_eq!(stuck.len(), STREAMS / 2);
    }

    #[test]
    fn what_readers_are_about_to_be_given_outlasts_what_nobody_waits_for() {
        const SIZE: usize = 1000;
        let pool = pool(4 * cost(SIZE));
        let live = Feed::new(&pool, 1 << 20);
        let quiet: Vec<_> = (0..10).map(|_| Feed::new(&pool, 1 << 20)).collect();
        let crowd = Crowd::of(&live);
        push(&live, 0, SIZE);
        for seq in 0..3 {
            quiet.iter().for_each(|feed| push(feed, seq, SIZE));
        }
        assert_eq!((held(&live), pool.used()), (cost(SIZE), pool.limit), "the others make room for each other");
        crowd.take(1);
        quiet.iter().for_each(|feed| push(feed, 3, SIZE));
        assert_eq!(held(&live), 0, "its readers have it, and it stands with the others");
    }

    #[test]
    fn what_readers_are_about_to_be_given_goes_when_no_other_ring_has_anything_left() {
        const SIZE: usize = 1000;
        let pool = pool(3 * cost(SIZE));
        let feeds: Vec<_> = (0..4).map(|_| Feed::new(&pool, 1 << 20)).collect();
        let crowds: Vec<_> = feeds.iter().map(|feed| Crowd::of(feed)).collect();
        feeds.iter().for_each(|feed| push(feed, 0, SIZE));
        let holding: Vec<bool> = feeds.iter().map(|feed| held(feed) > 0).collect();
        assert_eq!(holding, [false, true, true, true], "the one that was put off first");
        assert_eq!((pool.used(), crowds.len()), (pool.limit, 4));
    }

    #[test]
    fn a_busy_stream_makes_its_own_room_and_leaves_the_others_theirs() {
        const SIZE: usize = 1000;
        let pool = pool(9 * cost(SIZE));
        let [small, other, busy] = [(); 3].map(|()| Feed::new(&pool, 1 << 20));
        (0..2).for_each(|seq| push(&small, seq, SIZE));
        (0..3).for_each(|seq| push(&other, seq, SIZE));
        (0..50).for_each(|seq| push(&busy, seq, SIZE));
        assert_eq!([&small, &other].map(|feed| held(feed)), [2 * cost(SIZE), 3 * cost(SIZE)]);
    }

    #[test]
    fn what_is_idle_does_not_keep_what_the_busy_ones_need() {
        const SIZE: usize = 1000;
        let pool = pool(12 * cost(SIZE));
        let [idle, small, busy] = [(); 3].map(|()| Feed::new(&pool, 1 << 20));
        (0..11).for_each(|seq| push(&idle, seq, SIZE));
        push(&small, 0, SIZE);
        push(&busy, 0, SIZE);
        assert_eq!(held(&idle), 4 * cost(SIZE), "its share");
        assert_eq!((held(&small), held(&busy)), (cost(SIZE), cost(SIZE)));
    }

    #[test]
    fn a_feed_that_goes_leaves_nothing_on_the_books() {
        let pool = pool(1 << 20);
        let feed = Feed::new(&pool, 1000);
        push(&feed, 0, 500);
        assert!(pool.used() > 500);
        assert_eq!((pool.gauge.get(), pool.queued()), (signed(pool.used()), 1));
        drop(feed);
        assert_eq!((pool.used(), pool.gauge.get(), pool.queued()), (0, 0, 0));
    }
}
