//! Reading through the cache, against the log as it stands.

use futures_util::future::join_all;
use prometheus::Registry;
use proptest::prelude::*;
use tailwater_log::{Commit, Entry, Header, Kind, Message, NewRecord, Open, Piece, Record};
use tailwater_protocol::{ContentType, Lifetime, json};
use tailwater_testkit::{
    Gate, ScriptedUpstream, Settings, Trims,
    fault::{AppendFault, Pause, ReadFault},
};
use tailwater_upstream::{Append, Upstream as _};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{metrics::Metrics, precedence::AppendsFirst};

const PLENTY: usize = 1 << 30;

/// A log and its fold.
struct World {
    store: ScriptedUpstream,
    key: StreamKey,
    state: StreamState,
    /// All records that ever stood there.
    log: Vec<Record>,
    /// The pieces of bodies that no commit has named yet.
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
enum Act {
    /// Messages of a size, stamped by a gateway or plain, valid as JSON or not.
    Messages {
        count: usize,
        size: usize,
        valid: bool,
    },
    Mark,
    Piece(usize),
    Commit,
}

impl World {
    fn new(kind: ContentKind) -> Self {
        let store = ScriptedUpstream::new(Settings { trims: Trims::WhenSettled, ..Settings::default() });
        let key = StreamKey::new("p", "s");
        let mut world = Self { store, key, state: StreamState::default(), log: Vec::new(), pieces: Vec::new() };
        let content_type = if kind == ContentKind::Json { "application/json" } else { "text/plain" };
        let open = Open {
            incarnation: 7,
            content_type: ContentType::parse(content_type).unwrap(),
            lifetime: Lifetime::Forever,
            visibility: None,
            retention_ms: None,
            adopts_native: false,
            fork: None,
        };
        world.land(vec![mark(Kind::Open(Box::new(open)))]);
        world
    }

    fn land(&mut self, records: Vec<NewRecord>) {
        let known = self.log.len();
        self.store.land(&self.key, Append::new(records)).unwrap();
        let records = self.store.records(&self.key).into_iter().filter(|record| record.seq >= known as u64);
        for record in records {
            self.state.apply(&record).unwrap();
            self.log.push(record);
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Messages { count, size, valid } => {
                let byte = if *valid { b'1' } else { b'x' };
                let body = Bytes::from(vec![byte; (*size).max(1)]);
                self.land(vec![NewRecord::message(body); (*count).min((1 << 20) / (size + 64)).max(1)]);
            }
            Act::Mark => self.land(vec![mark(Kind::Touch)]),
            Act::Piece(size) => {
                let piece = Piece { body: 9, index: self.pieces.len() as u64 };
                let record = Entry { stamp: None, kind: Kind::Piece(piece) }.encode(Bytes::from(vec![b'2'; *size]));
                self.land(vec![record]);
                self.pieces.push(piece);
            }
            Act::Commit => self.commit(),
        }
    }

    fn commit(&mut self) {
        let pieces: Vec<&Record> = self.log.iter().rev().filter(|record| is_piece(record)).collect();
        let pieces: Vec<&Record> = pieces.into_iter().take(self.pieces.len()).rev().collect();
        let commit = Commit {
            body: 9,
            pieces: pieces.iter().map(|record| record.seq).collect(),
            bytes: pieces.iter().map(|record| record.body.len() as u64).sum(),
            message: Message::default(),
        };
        if !commit.pieces.is_empty() {
            self.pieces.clear();
            self.land(vec![mark(Kind::Commit(commit))]);
        }
    }

    /// What a reader sees, worked out from the records alone.
    fn visible(&self, kind: ContentKind) -> Vec<(u64, Bytes)> {
        let mut visible = Vec::new();
        for record in &self.log[1..] {
            let entry = Entry::decode(record).unwrap();
            let mut body = record.body.clone();
            if let Kind::Commit(commit) = &entry.kind {
                let parts = commit.pieces.iter().map(|seq| self.log[*seq as usize].body.to_vec());
                body = Bytes::from(parts.collect::<Vec<_>>().concat());
            }
            let breaks = kind == ContentKind::Json && record.headers.is_empty() && !json::is_valid(&body);
            if entry.kind.is_visible() && !breaks {
                visible.push((record.seq, body));
            }
        }
        visible
    }

    fn cache(&self, bytes: usize) -> (Arc<HistoryCache>, Metrics) {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let upstream = Arc::new(AppendsFirst::new(Arc::new(self.store.clone())));
        let cache = HistoryCache::new(upstream, bytes, metrics.clone(), TaskTracker::new(), CancellationToken::new());
        (Arc::new(cache), metrics)
    }

    fn history(&self, cache: &Arc<HistoryCache>, page_bytes: usize) -> History {
        History { cache: Arc::clone(cache), key: self.key.clone(), page_bytes }
    }
}

fn mark(kind: Kind) -> NewRecord {
    Entry { stamp: None, kind }.encode(Bytes::new())
}

fn is_piece(record: &Record) -> bool {
    matches!(Entry::decode(record).unwrap().kind, Kind::Piece(_))
}

fn at(seq: u64) -> Place {
    Place { segment: 0, seq }
}

/// All from a place on, and the error that it ended with.
async fn read_on(
    history: &History,
    view: &StreamState,
    kind: ContentKind,
    from: u64,
    hole: Hole,
) -> (Vec<(u64, Bytes)>, Option<OpError>) {
    let (mut place, mut hole, mut all) = (at(from), hole, Vec::new());
    while view.span_at(place).is_some() {
        let page = match history.page(view, kind, place, hole).await {
            Ok(page) => page,
            Err(error) => return (all, Some(error)),
        };
        assert!(page.place.seq > place.seq, "a page goes forward");
        assert!(
            !page.messages.is_empty() || view.span_at(page.place).is_none(),
            "a page before the tail holds something"
        );
        let all_but_last =
            page.messages.split_last().map_or(0, |(_, rest)| rest.iter().map(|(body, _)| body.len()).sum());
        assert!(all_but_last < history.page_bytes);
        all.extend(page.messages.into_iter().map(|(body, at)| (at.seq, body)));
        (place, hole) = (page.place, Hole::Refuse);
    }
    (all, None)
}

fn paused<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let size = prop_oneof![4 => 1usize..50, 2 => 2_000usize..20_000, 1 => 200_000usize..900_000];
    let act = prop_oneof![
        6 => (1usize..80, size, prop::bool::weighted(0.8)).prop_map(|(count, size, valid)| Act::Messages { count, size, valid }),
        2 => Just(Act::Mark),
        1 => (1usize..600_000).prop_map(Act::Piece),
        1 => Just(Act::Commit),
    ];
    prop::collection::vec(act, 1..40)
}

fn kinds() -> impl Strategy<Value = ContentKind> {
    prop_oneof![Just(ContentKind::Json), Just(ContentKind::Text)]
}

fn cache_sizes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(10_000), Just(2 << 20), Just(PLENTY)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_in_the_log_readers_of_the_cache_see_what_stands_there(
        acts in acts(),
        more in acts(),
        kind in kinds(),
        cache_bytes in cache_sizes(),
        readers in prop::collection::vec((0.0..1.0f64, 1usize..400_000), 1..6),
    ) {
        paused(async {
            let mut world = World::new(kind);
            let (cache, _) = world.cache(cache_bytes);
            // The log grows under the chunks that ended with it.
            for acts in [acts, more] {
                acts.iter().for_each(|act| world.act(act));
                let (view, visible) = (world.state.for_readers(), world.visible(kind));
                let read = readers.iter().map(|(share, page_bytes)| {
                    let from = 1 + ((view.tail().seq - 1) as f64 * share) as u64;
                    let (history, view, visible) = (world.history(&cache, *page_bytes), &view, &visible);
                    async move {
                        let (seen, error) = read_on(&history, view, kind, from, Hole::Refuse).await;
                        assert!(error.is_none(), "{error:?}");
                        let expected: Vec<_> = visible.iter().filter(|(seq, _)| *seq >= from).cloned().collect();
                        assert!(seen == expected, "from {from}: {} of {}", seen.len(), expected.len());
                    }
                });
                join_all(read).await;
            }
        });
    }

    #[test]
    fn a_trim_leaves_no_gap_for_anyone_who_named_an_offset(
        acts in acts(),
        kind in kinds(),
        cache_bytes in cache_sizes(),
        warm in prop::collection::vec(0.0..1.0f64, 0..3),
        trim in 0.0..1.0f64,
        readers in prop::collection::vec((0.0..1.0f64, 1usize..400_000, any::<bool>()), 1..6),
    ) {
        // Pieces without their commit do not outlive a trim, so there are none here.
        let acts = acts.into_iter().filter(|act| matches!(act, Act::Messages { .. } | Act::Mark));
        paused(async {
            let mut world = World::new(kind);
            acts.for_each(|act| world.act(&act));
            let (cache, _) = world.cache(cache_bytes);
            // This view does not know of the trim.
            let (view, visible) = (world.state.for_readers(), world.visible(kind));
            let seq_at = |share: f64| 1 + ((view.tail().seq - 1) as f64 * share) as u64;
            for share in warm {
                read_on(&world.history(&cache, 5_000), &view, kind, seq_at(share), Hole::Refuse).await;
            }
            let trim = seq_at(trim);
            world.land(vec![NewRecord::trim(trim)]);
            world.store.settle_trims();
            for (share, page_bytes, names_offset) in readers {
                let (from, hole) = (seq_at(share), if names_offset { Hole::Refuse } else { Hole::Skip });
                let (seen, error) = read_on(&world.history(&cache, page_bytes), &view, kind, from, hole).await;
                let after = |seq: u64| visible.iter().filter(move |(at, _)| *at >= seq);
                match error {
                    None if hole == Hole::Skip => {
                        prop_assert!(after(from).cloned().collect::<Vec<_>>().ends_with(&seen));
                        prop_assert!(seen.len() >= after(trim.max(from)).count());
                    }
                    None => prop_assert!(seen == after(from).cloned().collect::<Vec<_>>()),
                    Some(OpError::Misplaced(Misplaced::Gone { earliest })) => {
                        prop_assert!(after(from).cloned().collect::<Vec<_>>().starts_with(&seen) || hole == Hole::Skip);
                        prop_assert!(from < trim && earliest.seq <= trim.max(from));
                    }
                    Some(other) => prop_assert!(false, "{other:?}"),
                }
            }
            Ok(())
        })?;
    }
}

/// A text log of so many messages of a size.
fn filled(count: usize, size: usize) -> World {
    let mut world = World::new(ContentKind::Text);
    let body = Bytes::from(vec![b'a'; size]);
    let at_once = ((1 << 20) / (size + 64)).clamp(1, 1_000);
    for first in (0..count).step_by(at_once) {
        world.land(vec![NewRecord::message(body.clone()); at_once.min(count - first)]);
    }
    world
}

async fn count_from(history: &History, view: &StreamState, from: u64) -> Result<usize, OpError> {
    let (seen, error) = read_on(history, view, ContentKind::Text, from, Hole::Refuse).await;
    error.map_or(Ok(seen.len()), Err)
}

#[tokio::test(start_paused = true)]
async fn many_who_want_one_missing_chunk_cause_one_read() {
    let world = filled(500, 10);
    let (cache, metrics) = world.cache(PLENTY);
    let (history, view) = (world.history(&cache, PLENTY), world.state.for_readers());
    let counts = join_all((0..100).map(|n| count_from(&history, &view, 1 + n % 60))).await;
    assert!(counts.into_iter().zip(0..).all(|(count, n)| count.unwrap() as u64 == 500 - n % 60));
    assert_eq!(world.store.counts().reads, 1);
    assert_eq!((metrics.history_hits.get(), metrics.history_misses.get()), (0, 100));
    count_from(&history, &view, 300).await.unwrap();
    assert_eq!((metrics.history_hits.get(), metrics.history_reads.get()), (1, 1));
    assert!(metrics.history_bytes.get() > 5_000);
}

#[tokio::test(start_paused = true)]
async fn who_started_a_read_may_leave_and_the_others_are_served() {
    let world = filled(500, 10);
    let (cache, _) = world.cache(PLENTY);
    let (history, view) = (world.history(&cache, PLENTY), world.state.for_readers());
    let gate = Gate::new();
    world.store.faults().next_read(ReadFault::PauseBefore(Pause::At(gate.clone())));
    let first = tokio::spawn({
        let (history, view) = (history.clone(), view.clone());
        async move { count_from(&history, &view, 1).await }
    });
    gate.arrived().await;
    let second = tokio::spawn({
        let (history, view) = (history.clone(), view.clone());
        async move { count_from(&history, &view, 2).await }
    });
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.open();
    assert_eq!(second.await.unwrap().unwrap(), 499);
    assert_eq!(world.store.counts().reads, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_to_all_who_wait_and_not_kept() {
    let world = filled(500, 10);
    let (cache, _) = world.cache(PLENTY);
    let (history, view) = (world.history(&cache, PLENTY), world.state.for_readers());
    world.store.faults().next_read(ReadFault::Fails);
    let counts = join_all((0..3).map(|_| count_from(&history, &view, 1))).await;
    assert!(counts.iter().all(|count| matches!(count, Err(OpError::Unavailable { .. }))), "{counts:?}");
    assert_eq!(world.store.counts().reads, 1);
    assert_eq!(count_from(&history, &view, 1).await.unwrap(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_is_read_when_no_append_is_under_way() {
    let world = filled(500, 10);
    let upstream = Arc::new(AppendsFirst::new(Arc::new(world.store.clone())));
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let shutdown = CancellationToken::new();
    let cache = HistoryCache::new(Arc::clone(&upstream), PLENTY, metrics, TaskTracker::new(), shutdown);
    let (history, view, gate) = (world.history(&Arc::new(cache), PLENTY), world.state.for_readers(), Gate::new());
    world.store.faults().next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let other = StreamKey::new("p", "another");
    let append = upstream.append(&other, Append::new(vec![NewRecord::message(Bytes::from_static(b"a"))]));
    let begin = async {
        gate.arrived().await;
        tokio::task::yield_now().await;
        assert_eq!(world.store.counts().reads, 0);
        gate.open();
    };
    let (appended, count, ()) = tokio::join!(append, count_from(&history, &view, 1), begin);
    assert_eq!((appended.is_ok(), count.unwrap(), world.store.counts().reads), (true, 500, 1));
}

#[tokio::test(start_paused = true)]
async fn a_read_under_way_ends_with_a_shutdown() {
    let world = filled(500, 10);
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let upstream = Arc::new(AppendsFirst::new(Arc::new(world.store.clone())));
    let cache = Arc::new(HistoryCache::new(upstream, PLENTY, metrics, tracker.clone(), shutdown.clone()));
    let (history, view, gate) = (world.history(&cache, PLENTY), world.state.for_readers(), Gate::new());
    world.store.faults().next_read(ReadFault::PauseBefore(Pause::At(gate.clone())));
    let end = async {
        gate.arrived().await;
        shutdown.cancel();
        tracker.close();
        tracker.wait().await;
    };
    let (count, ()) = tokio::join!(count_from(&history, &view, 1), end);
    assert!(matches!(count, Err(OpError::Draining)), "{count:?}");
}

#[tokio::test(start_paused = true)]
async fn an_offset_amid_large_records_takes_four_reads_at_most() {
    let world = filled(130, 700_000);
    let (cache, _) = world.cache(0);
    let (history, view) = (world.history(&cache, 1), world.state.for_readers());
    for seq in [1, 63, 64, 100, 127] {
        let before = world.store.counts().reads;
        let page = history.page(&view, ContentKind::Text, at(seq), Hole::Refuse).await.unwrap();
        assert_eq!((page.messages.len(), page.place.seq), (1, seq + 1));
        let reads = world.store.counts().reads - before;
        assert!(reads <= 4, "{reads} for {seq}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_reads_each_chunk_once_however_small_the_windows() {
    let world = filled(2_000, 5_000);
    let records = world.log.iter().map(Record::metered_bytes).sum::<usize>();
    let chunks = records.div_ceil((1 << 20) - 5_100) as u64;
    let (cache, metrics) = world.cache(PLENTY);
    let (history, view) = (world.history(&cache, 30_000), world.state.for_readers());
    for _ in 0..3 {
        assert_eq!(count_from(&history, &view, 1).await.unwrap(), 2_000);
    }
    assert!(metrics.history_reads.get() <= chunks, "{} for {chunks}", metrics.history_reads.get());
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_too_small_for_all_stays_within_its_bytes_and_counts_what_goes() {
    let world = filled(2_000, 5_000);
    let (cache, metrics) = world.cache(3 << 20);
    let (history, view) = (world.history(&cache, 100_000), world.state.for_readers());
    assert_eq!(count_from(&history, &view, 1).await.unwrap(), 2_000);
    assert!(metrics.history_evictions.get() >= 7, "{}", metrics.history_evictions.get());
    let kept = metrics.history_bytes.get();
    assert!(kept > 2 << 20 && kept <= 3 << 20, "{kept}");
    drop((cache, history));
    assert_eq!(metrics.history_bytes.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_page_ends_before_a_hole_and_the_next_one_tells_of_it() {
    let mut world = filled(300, 5_000);
    let (cache, _) = world.cache(PLENTY);
    let (history, view) = (world.history(&cache, PLENTY), world.state.for_readers());
    let first = world.history(&cache, 1).page(&view, ContentKind::Text, at(1), Hole::Skip).await.unwrap();
    assert_eq!(first.messages.len(), 1);
    world.land(vec![NewRecord::trim(250)]);
    world.store.settle_trims();
    for hole in [Hole::Refuse, Hole::Skip] {
        let (seen, error) = read_on(&history, &view, ContentKind::Text, 1, hole).await;
        assert!(seen.len() > 100 && seen.len() < 249, "what was read before the trim is there: {}", seen.len());
        let gone = |error| matches!(error, OpError::Misplaced(Misplaced::Gone { earliest }) if earliest.seq == 250);
        assert!(error.is_some_and(gone));
    }
    let (seen, error) = read_on(&history, &view, ContentKind::Text, 240, Hole::Skip).await;
    assert_eq!((seen.len(), error.is_none()), (51, true), "who was given nothing yet gets what is left");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_stops_only_those_who_come_to_it() {
    let mut world = filled(10, 10);
    let bad = world.log.len() as u64;
    let header = Header { name: Bytes::from_static(tailwater_log::HEADER), value: Bytes::new() };
    let record = NewRecord { headers: vec![header], body: Bytes::new() };
    world.store.land(&world.key, Append::new(vec![record])).unwrap();
    let ack = world.store.append_native(&world.key, ["behind"]);
    // No state gets past such a record; this one is told that it is a mark.
    let touch = mark(Kind::Touch).at(bad, ack.end.timestamp);
    world.state.apply(&touch).unwrap();
    world.state.apply(&NewRecord::message(Bytes::new()).at(bad + 1, ack.end.timestamp)).unwrap();
    let (cache, _) = world.cache(PLENTY);
    let (history, view) = (world.history(&cache, PLENTY), world.state.for_readers());
    for from in [1, 5] {
        let (seen, error) = read_on(&history, &view, ContentKind::Text, from, Hole::Refuse).await;
        assert_eq!(seen.len() as u64, bad - from);
        assert!(matches!(error, Some(OpError::Unreadable { seq }) if seq == bad), "{error:?}");
    }
    assert_eq!(count_from(&history, &view, bad + 1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_small_message_does_not_hold_on_to_what_came_with_it() {
    let mut world = World::new(ContentKind::Text);
    let (small, large) = (Bytes::from_static(b"small"), Bytes::from(vec![b'a'; 500_000]));
    world.land(vec![NewRecord::message(small), NewRecord::message(large)]);
    let (cache, metrics) = world.cache(PLENTY);
    let (history, view) = (world.history(&cache, PLENTY), world.state.for_readers());
    let page = history.page(&view, ContentKind::Text, at(1), Hole::Refuse).await.unwrap();
    let stored = &world.log[1].body;
    assert!(page.messages[0].0 == stored && page.messages[0].0.as_ptr() != stored.as_ptr());
    let again = history.page(&view, ContentKind::Text, at(1), Hole::Refuse).await.unwrap();
    let address = |page: &HistoryPage, n: usize| page.messages[n].0.as_ptr();
    assert!((0..2).all(|n| address(&again, n) == address(&page, n)), "all readers share one copy");
    assert!((500_005..502_000).contains(&metrics.history_bytes.get()));
}
