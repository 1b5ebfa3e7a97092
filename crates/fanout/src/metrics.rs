//! The metrics of the fan-out. Label values come from enums; a registry is given.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// What the fan-out counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `tailwater_active_streams`: actors that live.
    pub(crate) active_streams: IntGauge,
    /// `tailwater_live_readers`: readers that follow a stream, long-polls included.
    pub(crate) live_readers: IntGauge,
    /// `tailwater_ring_bytes`: what all rings hold.
    pub(crate) ring_bytes: IntGauge,
    /// `tailwater_activations_total`: logs looked into because no actor knew them.
    pub(crate) activations: IntCounter,
    /// `tailwater_resets_total`: logs that had to be looked into again, because a session crossed a trim.
    pub(crate) resets: IntCounter,
    /// `tailwater_tail_checks_total`: tail checks that answers needed.
    pub(crate) tail_checks: IntCounter,
    /// `tailwater_history_reads_total`: chunks of older ranges that were read from the store.
    pub(crate) history_reads: IntCounter,
    /// `tailwater_history_hits_total`: chunks that were at hand when a reader wanted them.
    pub(crate) history_hits: IntCounter,
    /// `tailwater_history_misses_total`: chunks that a reader had to wait for.
    pub(crate) history_misses: IntCounter,
    /// `tailwater_history_evictions_total`: chunks that made room for others.
    pub(crate) history_evictions: IntCounter,
    /// `tailwater_history_bytes`: what all chunks take.
    pub(crate) history_bytes: IntGauge,
    /// `tailwater_window_bytes`: what readers that are behind have in hand.
    pub(crate) window_bytes: IntGauge,
    /// `tailwater_requests_refused_total{limit}`: requests refused because of a limit.
    pub(crate) refused: IntCounterVec,
    /// `tailwater_writes_total{outcome}`: batches, by what became of them.
    pub(crate) writes: IntCounterVec,
    /// `tailwater_unserved_records_total`: native messages behind a closure, or that are not JSON in a JSON stream.
    pub(crate) unserved: IntCounter,
    /// `tailwater_quarantined_total`: streams given up because of a record that cannot be read.
    pub(crate) quarantined: IntCounter,
    /// `tailwater_reader_rejoins_total`: readers that went back to the ring or to history.
    pub(crate) rejoins: IntCounter,
}

/// What the delivery shards count.
#[derive(Debug, Clone)]
pub struct ShardMetrics {
    /// `tailwater_shard_readers`: readers whose sockets a delivery shard has.
    pub(crate) readers: IntGauge,
    /// `tailwater_shard_deliveries_total`: writes of new events to readers, keep-alives included.
    pub(crate) deliveries: IntCounter,
    /// `tailwater_shard_sent_bytes_total`: bytes written to readers, chunk heads included.
    pub(crate) bytes: IntCounter,
    /// `tailwater_shard_partial_writes_total`: writes that a socket did not take whole.
    pub(crate) partial: IntCounter,
    /// `tailwater_shard_fell_behind_total`: readers that left a shard to catch up elsewhere.
    pub(crate) fell_behind: IntCounter,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// Durable.
    Landed,
    /// Its condition did not hold; decided again.
    Refused,
    /// The store failed before it could land.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// A limit that a request can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Of active streams.
    Streams,
    /// Of live readers of one stream.
    ReadersPerStream,
    /// Of writes that wait for one stream.
    WaitingWrites,
    /// Of requests that wait for one stream's present.
    WaitingRequests,
}

impl Limit {
    const fn label(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::ReadersPerStream => "readers_per_stream",
            Self::WaitingWrites => "waiting_writes",
            Self::WaitingRequests => "waiting_requests",
        }
    }
}

impl WriteOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Landed => "landed",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl Metrics {
    /// Metrics in a registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let writes = IntCounterVec::new(
            Opts::new("tailwater_writes_total", "Batches appended, by what became of them."),
            &["outcome"],
        )?;
        registry.register(Box::new(writes.clone()))?;
        let refused = IntCounterVec::new(
            Opts::new("tailwater_requests_refused_total", "Requests refused because of a limit."),
            &["limit"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            active_streams: gauge("tailwater_active_streams", "Streams that have an actor.")?,
            live_readers: gauge("tailwater_live_readers", "Readers that follow a stream.")?,
            ring_bytes: gauge("tailwater_ring_bytes", "Bytes of recent batches, over all streams.")?,
            activations: counter("tailwater_activations_total", "Logs looked into because no actor knew them.")?,
            resets: counter("tailwater_resets_total", "Logs looked into again after a gap.")?,
            tail_checks: counter("tailwater_tail_checks_total", "Tail checks that answers needed.")?,
            history_reads: counter("tailwater_history_reads_total", "Chunks of older ranges read from the store.")?,
            history_hits: counter("tailwater_history_hits_total", "Chunks that were at hand for a reader.")?,
            history_misses: counter("tailwater_history_misses_total", "Chunks that a reader had to wait for.")?,
            history_evictions: counter("tailwater_history_evictions_total", "Chunks that made room for others.")?,
            history_bytes: gauge("tailwater_history_bytes", "Bytes of older ranges that are kept.")?,
            window_bytes: gauge("tailwater_window_bytes", "Bytes that readers which are behind have in hand.")?,
            refused,
            writes,
            unserved: counter("tailwater_unserved_records_total", "Native messages that are not served.")?,
            quarantined: counter("tailwater_quarantined_total", "Streams given up because of an unreadable record.")?,
            rejoins: counter("tailwater_reader_rejoins_total", "Readers that went back to the ring or to history.")?,
        })
    }

    pub(crate) fn refused(&self, limit: Limit) {
        self.refused.with_label_values(&[limit.label()]).inc();
    }

    pub(crate) fn wrote(&self, outcome: WriteOutcome) {
        self.writes.with_label_values(&[outcome.label()]).inc();
    }
}

impl ShardMetrics {
    /// Metrics in a registry.
    ///
    /// # Errors
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let readers = IntGauge::new("tailwater_shard_readers", "Readers whose sockets a delivery shard has.")?;
        registry.register(Box::new(readers.clone()))?;
        Ok(Self {
            readers,
            deliveries: counter("tailwater_shard_deliveries_total", "Writes of events to readers, by shards.")?,
            bytes: counter("tailwater_shard_sent_bytes_total", "Bytes written to readers, by shards.")?,
            partial: counter("tailwater_shard_partial_writes_total", "Writes that a socket did not take whole.")?,
            fell_behind: counter(
                "tailwater_shard_fell_behind_total",
                "Readers that left a shard to catch up elsewhere.",
            )?,
        })
    }

    pub(crate) fn delivered(&self, writes: u64, bytes: usize) {
        self.deliveries.inc_by(writes);
        self.bytes.inc_by(bytes as u64);
    }
}

/// A gauge that is up by one for as long as this lives.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
