//! The shelf: which chunks are kept, within their bytes, and which are under way. Synchronous; the cache locks it.
//!
//! A chunk starts at a multiple of 64 records, or where the one before stopped short. So readers who come with
//! different offsets meet in the same chunks, and who reads on finds the next one where the last ended. Where records
//! are so large that a chunk from a multiple of 64 does not reach the place that is looked for, multiples of 16, of 4,
//! and the place itself are tried: four reads at most, whatever the offset.
//!
//! A chunk that may have ended with the log ([`End::Open`]) is no place for the next one to start: who looks for what
//! has come behind it reads it again from an aligned start, and the longer one takes its place. So a stream that grows
//! under its readers does not fall into crumbs, and a thousand who replay it at once read its end once.
//!
//! What makes room is chosen as CLOCK does: chunks stand in a queue, the one in front goes unless it was used since it
//! was there last. That is constant work for each chunk, and a scan of a long stream does not push out what is in use.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use tailwater_protocol::ContentKind;
use tailwater_upstream::StreamKey;

use super::chunk::{CHUNK_RECORDS, Chunk, End, Stretch};

/// What a chunk starts at a multiple of, unless records are large.
pub(super) const ALIGNMENT: u64 = 64;

/// A log, as far as its chunks depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LogKey {
    pub(super) stream: StreamKey,
    /// The birth of the offsets, which tells one life of a name from another. 0 is a native log.
    birth: u64,
    /// Whether what is not JSON is left out.
    json: bool,
}

/// Chunks, and reads of chunks (`F`) that others can wait for.
#[derive(Debug)]
pub(super) struct Shelf<F> {
    logs: HashMap<LogKey, Log<F>>,
    /// The chunks in the order in which they are looked at for eviction.
    clock: VecDeque<(LogKey, u64)>,
    bytes: usize,
    limit: usize,
    flights: u64,
}

#[derive(Debug)]
struct Log<F> {
    chunks: BTreeMap<u64, Kept>,
    flights: BTreeMap<u64, Flight<F>>,
}

#[derive(Debug)]
struct Kept {
    chunk: Arc<Chunk>,
    used: bool,
}

#[derive(Debug)]
struct Flight<F> {
    number: u64,
    waiting: F,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) seq: u64,
    /// Up to where the log is known to reach.
    pub(super) known_end: u64,
    /// What a chunk should start at a multiple of.
    pub(super) alignment: u64,
    /// Where it should start at the earliest; at most `seq`.
    pub(super) floor: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found<F> {
    /// A chunk that covers the place.
    Kept(Arc<Chunk>),
    /// A read that may bring it.
    UnderWay(F),
    /// Nothing: this has to be read, and is under way from now on.
    Missing(Departure, F),
}

/// A read that has begun; to be given back when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Departure {
    number: u64,
    pub(super) stretch: Stretch,
}

impl LogKey {
    /// The log of one life of a stream, read as content of a kind.
    pub(super) fn new(stream: StreamKey, birth: u64, kind: ContentKind) -> Self {
        Self { stream, birth, json: kind == ContentKind::Json }
    }

    /// How its messages are judged.
    pub(super) fn kind(&self) -> ContentKind {
        if self.json { ContentKind::Json } else { ContentKind::Binary }
    }
}

impl<F> Default for Log<F> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new(), flights: BTreeMap::new() }
    }
}

impl<F: Clone> Shelf<F> {
    /// An empty shelf for so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { logs: HashMap::new(), clock: VecDeque::new(), bytes: 0, limit, flights: 0 }
    }

    /// Looks for what covers a place; `begin` makes what others can wait for, where nothing does.
    pub(super) fn find(&mut self, key: &LogKey, wanted: Wanted, begin: impl FnOnce() -> F) -> Found<F> {
        let Wanted { seq, known_end, alignment, floor } = wanted;
        let log = self.logs.entry(key.clone()).or_default();
        let before = match log.chunks.range_mut(..=seq).next_back() {
            Some((_, kept)) if kept.chunk.next > seq => {
                kept.used = true;
                return Found::Kept(Arc::clone(&kept.chunk));
            }
            Some((_, kept)) if kept.chunk.end == End::Full => kept.chunk.next,
            Some((start, _)) => *start,
            None => 0,
        };
        let start = (seq - seq % alignment).max(before).max(floor);
        if let Some((_, flight)) = log.flights.range(start..=seq).next_back() {
            return Found::UnderWay(flight.waiting.clone());
        }
        let after = log.chunks.range(seq + 1..).next().map_or(u64::MAX, |(start, _)| *start);
        let limit = CHUNK_RECORDS.min(after - start);
        self.flights += 1;
        let departure = Departure { number: self.flights, stretch: Stretch { start, limit, known_end } };
        let waiting = begin();
        log.flights.insert(start, Flight { number: self.flights, waiting: waiting.clone() });
        Found::Missing(departure, waiting)
    }

    /// A read has ended. What it brought is kept, unless its log was forgotten meanwhile; how many chunks went for it.
    pub(super) fn land(&mut self, key: &LogKey, departure: Departure, chunk: Option<Arc<Chunk>>) -> u64 {
        let Some(log) = self.logs.get_mut(key) else { return 0 };
        let start = departure.stretch.start;
        if log.flights.get(&start).is_none_or(|flight| flight.number != departure.number) {
            return 0;
        }
        log.flights.remove(&start);
        if let Some(chunk) = chunk.filter(|chunk| chunk.cost <= self.limit) {
            self.bytes += chunk.cost;
            match log.chunks.insert(start, Kept { chunk, used: false }) {
                Some(replaced) => self.bytes -= replaced.chunk.cost,
                None => self.clock.push_back((key.clone(), start)),
            }
        }
        self.drop_if_empty(key);
        self.evict()
    }

    /// Forgets the chunks of a native log and what is under way there: it may be another one from now on.
    pub(super) fn forget_native(&mut self, stream: &StreamKey) {
        for kind in [ContentKind::Json, ContentKind::Binary] {
            let key = LogKey::new(stream.clone(), 0, kind);
            let Some(log) = self.logs.remove(&key) else { continue };
            self.bytes -= log.chunks.values().map(|kept| kept.chunk.cost).sum::<usize>();
            if !log.chunks.is_empty() {
                self.clock.retain(|(other, _)| *other != key);
            }
        }
    }

    /// What the chunks take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn evict(&mut self) -> u64 {
        let mut evicted = 0;
        while self.bytes > self.limit {
            let Some((key, start)) = self.clock.pop_front() else { break };
            let Some(log) = self.logs.get_mut(&key) else { continue };
            match log.chunks.get_mut(&start) {
                Some(kept) if kept.used => {
                    kept.used = false;
                    self.clock.push_back((key, start));
                }
                Some(kept) => {
                    self.bytes -= kept.chunk.cost;
                    log.chunks.remove(&start);
                    evicted += 1;
                    self.drop_if_empty(&key);
                }
                None => {}
            }
        }
        evicted
    }

    fn drop_if_empty(&mut self, key: &LogKey) {
        if self.logs.get(key).is_some_and(|log| log.chunks.is_empty() && log.flights.is_empty()) {
            self.logs.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_END: u64 = u64::MAX;

    fn key(name: &str) -> LogKey {
        LogKey::new(StreamKey::new("p", name), 7, ContentKind::Text)
    }

    fn wanted(seq: u64) -> Wanted {
        Wanted { seq, known_end: NO_END, alignment: ALIGNMENT, floor: 0 }
    }

    fn missing(shelf: &mut Shelf<()>, key: &LogKey, seq: u64) -> Departure {
        match shelf.find(key, wanted(seq), || ()) {
            Found::Missing(departure, ()) => departure,
            other @ (Found::Kept(_) | Found::UnderWay(())) => panic!("{other:?}"),
        }
    }

    fn keep(shelf: &mut Shelf<()>, key: &LogKey, seq: u64, next: u64, end: End) {
        let departure = missing(shelf, key, seq);
        let chunk = Chunk::blank(departure.stretch.start, next, end, 100);
        shelf.land(key, departure, Some(Arc::new(chunk)));
    }

    fn stretch(shelf: &mut Shelf<()>, seq: u64) -> (u64, u64) {
        let departure = missing(shelf, &key("s"), seq);
        shelf.land(&key("s"), departure, None);
        (departure.stretch.start, departure.stretch.limit)
    }

    #[test]
    fn a_chunk_starts_at_a_multiple_or_where_the_one_before_stopped_short() {
        let mut shelf = Shelf::new(10_000);
        assert_eq!(stretch(&mut shelf, 200), (192, CHUNK_RECORDS));
        keep(&mut shelf, &key("s"), 0, 70, End::Full);
        assert_eq!(stretch(&mut shelf, 70), (70, CHUNK_RECORDS));
        assert_eq!(stretch(&mut shelf, 127), (70, CHUNK_RECORDS));
        assert_eq!(stretch(&mut shelf, 129), (128, CHUNK_RECORDS));
        keep(&mut shelf, &key("s"), 130, 200, End::Full);
        assert_eq!(stretch(&mut shelf, 100), (70, 58), "up to where the next one starts");
    }

    #[test]
    fn behind_a_chunk_that_ended_with_its_log_the_last_records_are_read_again() {
        let mut shelf = Shelf::new(10_000);
        keep(&mut shelf, &key("s"), 0, 70, End::Open);
        assert_eq!(stretch(&mut shelf, 70), (64, CHUNK_RECORDS));
        keep(&mut shelf, &key("s"), 70, 80, End::Open);
        keep(&mut shelf, &key("s"), 80, 90, End::Open);
        assert_eq!((shelf.bytes(), shelf.clock.len()), (200, 2), "the longer one takes the place of the shorter");
        assert!(matches!(shelf.find(&key("s"), wanted(85), || ()), Found::Kept(chunk) if chunk.first == 64));
    }

    #[test]
    fn finer_multiples_meet_large_records() {
        let mut shelf = Shelf::new(10_000);
        for (alignment, floor, start) in [(64, 0, 64), (16, 66, 112), (4, 113, 124), (1, 125, 127), (4, 126, 126)] {
            let wanted = Wanted { alignment, floor, ..wanted(127) };
            let Found::Missing(departure, ()) = shelf.find(&key("s"), wanted, || ()) else { panic!("it is missing") };
            assert_eq!(departure.stretch.start, start);
            shelf.land(&key("s"), departure, None);
        }
        assert!(shelf.logs.is_empty(), "nothing is left of what was not found");
    }

    #[test]
    fn one_read_serves_all_whom_it_may() {
        let mut shelf = Shelf::new(10_000);
        let departure = missing(&mut shelf, &key("s"), 10);
        assert!(matches!(shelf.find(&key("s"), wanted(63), || ()), Found::UnderWay(())));
        assert_eq!(missing(&mut shelf, &key("s"), 64).stretch.start, 64, "that one may not reach so far");
        assert_eq!(missing(&mut shelf, &key("other"), 10).stretch.start, 0);
        shelf.land(&key("s"), departure, None);
        assert_eq!(missing(&mut shelf, &key("s"), 10).stretch.start, 0, "what came to nothing is tried again");
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes_in_order() {
        let mut shelf = Shelf::new(300);
        for (name, next) in [("a", 64), ("b", 64), ("c", 64)] {
            keep(&mut shelf, &key(name), 0, next, End::Full);
        }
        assert!(matches!(shelf.find(&key("a"), wanted(1), || ()), Found::Kept(_)));
        keep(&mut shelf, &key("d"), 0, 64, End::Full);
        let kept = |shelf: &Shelf<()>, name| shelf.logs.contains_key(&key(name));
        assert!(kept(&shelf, "a") && !kept(&shelf, "b") && kept(&shelf, "c") && kept(&shelf, "d"));
    }

    #[test]
    fn a_native_log_is_forgotten_with_what_is_under_way_and_no_other_is() {
        let mut shelf: Shelf<()> = Shelf::new(10_000);
        let native = LogKey::new(StreamKey::new("p", "s"), 0, ContentKind::Json);
        keep(&mut shelf, &native, 0, 64, End::Full);
        keep(&mut shelf, &key("s"), 0, 64, End::Full);
        let departure = missing(&mut shelf, &native, 64);
        shelf.forget_native(&native.stream);
        let late = Chunk::blank(64, 128, End::Full, 100);
        shelf.land(&native, departure, Some(Arc::new(late)));
        assert_eq!((shelf.bytes(), shelf.clock.len(), shelf.logs.len()), (100, 1, 1));
        assert!(matches!(shelf.find(&key("s"), wanted(1), || ()), Found::Kept(_)));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_within_its_bytes_and_counted_right(
            acts in prop::collection::vec((0u64..3, 0u64..2_000, 1u64..CHUNK_RECORDS, 1usize..400, any::<bool>()), 1..200),
            limit in 0usize..2_000,
        ) {
            let mut shelf = Shelf::new(limit);
            for (stream, seq, length, cost, full) in acts {
                if full && length < 20 {
                    shelf.forget_native(&StreamKey::new("p", &stream.to_string()));
                    continue;
                }
                let key = LogKey::new(StreamKey::new("p", &stream.to_string()), stream, ContentKind::Text);
                match shelf.find(&key, wanted(seq), || ()) {
                    Found::Kept(chunk) => prop_assert!(chunk.first <= seq && seq < chunk.next),
                    Found::UnderWay(()) => prop_assert!(false, "all have landed"),
                    Found::Missing(departure, ()) => {
                        let Stretch { start, limit, .. } = departure.stretch;
                        prop_assert!(start <= seq && seq - start < ALIGNMENT && limit > 0);
                        let end = if full { End::Full } else { End::Open };
                        let chunk = Chunk::blank(start, start + length.min(limit), end, cost);
                        shelf.land(&key, departure, Some(Arc::new(chunk)));
                    }
                }
                let chunks = shelf.logs.values().flat_map(|log| log.chunks.values());
                let counted: Vec<usize> = chunks.map(|kept| kept.chunk.cost).collect();
                prop_assert_eq!(counted.iter().sum::<usize>(), shelf.bytes());
                prop_assert_eq!(counted.len(), shelf.clock.len());
                prop_assert!(shelf.bytes() <= limit);
            }
        }
    }
}
