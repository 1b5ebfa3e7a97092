//! The history cache: the shelf with its reads.
//!
//! A chunk that is missing is read once, however many want it. The read is a task of its own, so nobody's leaving ends
//! it for the others; an error is told to all who wait, and the next one tries again.
//!
//! # What makes a chunk old
//!
//! - Nothing that is appended: a chunk covers what stands, and the [shelf](super::shelf) knows which may grow.
//! - Not a re-creation through a gateway: the new life has another birth, and that is part of the key. A native log has
//!   none. So when a stream's actor looks into its log, which is what a log that has become another one leads to, the
//!   chunks of the native log of that name are forgotten.
//! - Not a trim. What a chunk holds was there when it was read, so whoever is given it is given what it asked for, once
//!   and in order. That an offset is gone is said first by the state, which knows of every trim that is a record of the
//!   log, before anything is looked for here. Only a trim that no record tells of (a rule of the store's own, which
//!   the gateway never sets) can leave chunks that answer where the store would not; asking the store each time to find
//!   that out would cost the very read that the cache is there to spare.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{FutureExt, future::Shared};
use tailwater_upstream::{StreamKey, Upstream};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    chunk::{Chunk, Stretch},
    shelf::{ALIGNMENT, Departure, Found, LogKey, Shelf, Wanted},
};
use crate::{logread::LogReader, metrics::Metrics, ops::OpError, precedence::AppendsFirst};

/// What a read came to: a chunk, or nothing at all from there on.
type Outcome = Result<Option<Arc<Chunk>>, Arc<OpError>>;
/// Those who wait are woken in the same order every time, which a `watch` does not promise.
type Waiting = Shared<oneshot::Receiver<Outcome>>;

/// The chunks of all streams.
pub(crate) struct HistoryCache {
    upstream: Arc<AppendsFirst>,
    metrics: Metrics,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    shelf: Mutex<Shelf<Waiting>>,
}

/// A read under way. However it ends, it does not stay on the shelf.
struct Flight {
    cache: Arc<HistoryCache>,
    log: LogKey,
    departure: Departure,
}

impl HistoryCache {
    /// A cache of so many bytes. Its reads are tasks of `tracker`, and end with `shutdown`.
    pub(crate) fn new(
        upstream: Arc<AppendsFirst>,
        bytes: usize,
        metrics: Metrics,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self { upstream, metrics, tracker, shutdown, shelf: Mutex::new(Shelf::new(bytes)) }
    }

    /// The chunk that covers a place; `None` where the log has nothing there nor behind. `known_end` is up to where the
    /// log is known to reach. Cancel safe.
    pub(super) async fn chunk_at(
        self: &Arc<Self>,
        log: &LogKey,
        seq: u64,
        known_end: u64,
    ) -> Result<Option<Arc<Chunk>>, OpError> {
        let mut wanted = Wanted { seq, known_end, alignment: ALIGNMENT, floor: 0 };
        let mut is_first = true;
        loop {
            let waiting = match self.look(log, wanted) {
                Ok(chunk) => {
                    if is_first {
                        self.metrics.history_hits.inc();
                    }
                    return Ok(Some(chunk));
                }
                Err(waiting) => waiting,
            };
            if std::mem::take(&mut is_first) {
                self.metrics.history_misses.inc();
            }
            match waiting.await {
                Ok(Ok(Some(chunk))) if chunk.next > seq => return Ok(Some(chunk)),
                Ok(Ok(Some(chunk))) => wanted.floor = wanted.floor.max(chunk.next),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(error.again()),
                // Only a read that panicked is given up without an outcome.
                Err(_) => return Err(OpError::Unavailable { retry_after: None, cause: None }),
            }
            wanted.alignment = (wanted.alignment / 4).max(1);
        }
    }

    /// The log of this stream was looked into anew: what was native there may be another log by now.
    pub(crate) fn forget_native(&self, stream: &StreamKey) {
        let mut shelf = self.lock();
        shelf.forget_native(stream);
        self.report(&shelf);
    }

    /// What is kept, or what to wait for; a read is begun where there is neither.
    fn look(self: &Arc<Self>, log: &LogKey, wanted: Wanted) -> Result<Arc<Chunk>, Waiting> {
        let mut sender = None;
        let begin = || {
            let (outcome, waiting) = oneshot::channel();
            sender = Some(outcome);
            waiting.shared()
        };
        let found = self.lock().find(log, wanted, begin);
        match (found, sender) {
            (Found::Kept(chunk), _) => Ok(chunk),
            (Found::Missing(departure, waiting), Some(outcome)) => {
                let flight = Flight { cache: Arc::clone(self), log: log.clone(), departure };
                self.tracker.spawn(flight.run(outcome));
                Err(waiting)
            }
            (Found::UnderWay(waiting) | Found::Missing(_, waiting), _) => Err(waiting),
        }
    }

    async fn read(&self, log: &LogKey, stretch: Stretch) -> Result<Option<Arc<Chunk>>, OpError> {
        self.upstream.give_way().await;
        self.metrics.history_reads.inc();
        let upstream: Arc<dyn Upstream> = self.upstream.clone();
        let reader = LogReader::new(upstream, log.stream.clone());
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(OpError::Draining),
            read = Chunk::read(&reader, stretch, log.kind()) => Ok(read?.map(Arc::new)),
        }
    }

    fn land(&self, log: &LogKey, departure: Departure, chunk: Option<Arc<Chunk>>) {
        let mut shelf = self.lock();
        let evicted = shelf.land(log, departure, chunk);
        self.metrics.history_evictions.inc_by(evicted);
        self.report(&shelf);
    }

    fn report(&self, shelf: &Shelf<Waiting>) {
        self.metrics.history_bytes.set(i64::try_from(shelf.bytes()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Shelf<Waiting>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HistoryCache {
    fn drop(&mut self) {
        self.metrics.history_bytes.set(0);
    }
}

impl Flight {
    async fn run(self, outcome: oneshot::Sender<Outcome>) {
        let read = self.cache.read(&self.log, self.departure.stretch).await;
        if let Err(error) = &read {
            debug!(stream = %self.log.stream, ?error, "a chunk of history could not be read");
        }
        let chunk = read.as_ref().ok().cloned().flatten();
        // Kept before it is told, so that nobody who comes now reads it again.
        self.cache.land(&self.log, self.departure, chunk);
        // Whoever wanted it may have left.
        drop(outcome.send(read.map_err(Arc::new)));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Does nothing where it has landed.
        self.cache.land(&self.log, self.departure, None);
    }
}
