//! Recent batches: what the actor does with a new one, and what it takes to find those that a reader has not had. The
//! ring alone, and in a feed: under its lock, and on the books of the pool.

use std::{hint::black_box, sync::Arc};

use prometheus::IntGauge;
use tailwater_fanout::workbench::{Feed, Found, Ring, RingPool};

use crate::{Operation, Work, payload};

pub(crate) const OPERATIONS: &[Operation] = &[
    operation("push-evict", push_evict),
    operation("since-tail", || since(0)),
    operation("since-100-back", || since(100)),
    operation("feed-push-evict", feed_push_evict),
    operation("feed-look-tail", || look(0)),
    operation("feed-look-100-back", || look(100)),
];

/// The gateway's own limits, as they stand unless an operator says otherwise.
const RING_BYTES: usize = 1024 * 1024;
const POOL_BYTES: usize = 512 * 1024 * 1024;
/// How many batches of 200 bytes are more than a ring holds.
const FULL: u64 = 4_000;

const fn operation(name: &'static str, prepare: fn() -> Box<dyn FnMut()>) -> Operation {
    Operation { group: "ring", name, work: Work::Elements(1), calls: 1_000, prepare }
}

/// A batch is made and takes the place of the oldest.
fn push_evict() -> Box<dyn FnMut()> {
    let (mut ring, mut next) = (full_ring(), FULL);
    let body = payload::json(0, 200);
    Box::new(move || {
        ring.push(payload::batch(next, body.clone()));
        next += 1;
    })
}

fn since(back: u64) -> Box<dyn FnMut()> {
    let ring = full_ring();
    Box::new(move || {
        black_box(black_box(&ring).since(black_box(FULL - back)));
    })
}

fn feed_push_evict() -> Box<dyn FnMut()> {
    let (feed, mut next) = (full_feed(), FULL);
    let body = payload::json(0, 200);
    Box::new(move || {
        feed.push(payload::batch(next, body.clone()));
        next += 1;
    })
}

fn look(back: u64) -> Box<dyn FnMut()> {
    let feed = full_feed();
    Box::new(move || {
        black_box::<Found>(feed.look(0, black_box(FULL - back)));
    })
}

fn full_ring() -> Ring {
    let mut ring = Ring::new(0, RING_BYTES);
    (0..FULL).for_each(|seq| ring.push(payload::batch(seq, payload::json(seq, 200))));
    ring
}

fn full_feed() -> Arc<Feed> {
    let gauge = IntGauge::new("ring_bytes", "what rings hold").expect("the name is well formed");
    let feed = Feed::new(&RingPool::new(POOL_BYTES, gauge), RING_BYTES);
    (0..FULL).for_each(|seq| feed.push(payload::batch(seq, payload::json(seq, 200))));
    feed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_has_let_go_of_its_first_batch_and_holds_the_last_hundred() {
        let ring = full_ring();
        assert!(ring.since(0).is_none());
        assert_eq!(ring.since(FULL - 100).map(|batches| batches.len()), Some(100));
    }

    #[test]
    fn a_full_feed_is_looked_at_where_it_stands() {
        let feed = full_feed();
        assert!(matches!(feed.look(0, 0), Found::Behind));
        assert!(matches!(feed.look(0, FULL), Found::Batches { batches, next: FULL, .. } if batches.is_empty()));
    }
}
