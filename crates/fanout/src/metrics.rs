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
    /// `tailwater_history_reads_total`: reads of older ranges.
    pub(crate) history_reads: IntCounter,
    /// `tailwater_writes_total{outcome}`: batches, by what became of them.
    pub(crate) writes: IntCounterVec,
    /// `tailwater_unserved_records_total`: native messages behind a closure, or that are not JSON in a JSON stream.
    pub(crate) unserved: IntCounter,
    /// `tailwater_quarantined_total`: streams given up because of a record that cannot be read.
    pub(crate) quarantined: IntCounter,
    /// `tailwater_reader_rejoins_total`: readers that went back to the ring or to history.
    pub(crate) rejoins: IntCounter,
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
        Ok(Self {
            active_streams: gauge("tailwater_active_streams", "Streams that have an actor.")?,
            live_readers: gauge("tailwater_live_readers", "Readers that follow a stream.")?,
            ring_bytes: gauge("tailwater_ring_bytes", "Bytes of recent batches, over all streams.")?,
            activations: counter("tailwater_activations_total", "Logs looked into because no actor knew them.")?,
            resets: counter("tailwater_resets_total", "Logs looked into again after a gap.")?,
            tail_checks: counter("tailwater_tail_checks_total", "Tail checks that answers needed.")?,
            history_reads: counter("tailwater_history_reads_total", "Reads of older ranges.")?,
            writes,
            unserved: counter("tailwater_unserved_records_total", "Native messages that are not served.")?,
            quarantined: counter("tailwater_quarantined_total", "Streams given up because of an unreadable record.")?,
            rejoins: counter("tailwater_reader_rejoins_total", "Readers that went back to the ring or to history.")?,
        })
    }

    pub(crate) fn wrote(&self, outcome: WriteOutcome) {
        self.writes.with_label_values(&[outcome.label()]).inc();
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
