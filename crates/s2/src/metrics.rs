//! What the store is asked to do, counted.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tailwater_upstream::{AppendError, ReadError, Traffic};

use crate::circuit::Phase;

/// The counters of one upstream, shared by its clones.
pub type Meter = Arc<Metrics>;

/// The metrics `tailwater_upstream_*`.
#[derive(Debug)]
pub struct Metrics {
    read_sessions: IntGauge,
    appends: IntCounter,
    append_records: IntCounter,
    append_bytes: IntCounter,
    reads: IntCounter,
    tail_checks: IntCounter,
    errors: IntCounterVec,
    circuit: IntGaugeVec,
    circuit_changes: IntCounterVec,
    spared: IntCounterVec,
}

/// What was asked for; the label `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Append,
    Read,
    CheckTail,
    ReadSession,
    List,
    Ready,
}

/// Counts an open read session for as long as it lives.
#[derive(Debug)]
pub(crate) struct SessionGuard(IntGauge);

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When the registry has metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let read_sessions = IntGauge::new("tailwater_upstream_read_sessions", "Read sessions open at the store.")?;
        registry.register(Box::new(read_sessions.clone()))?;
        let errors = IntCounterVec::new(
            Opts::new("tailwater_upstream_errors_total", "Operations of the store that failed."),
            &["operation", "kind"],
        )?;
        registry.register(Box::new(errors.clone()))?;
        let circuit = IntGaugeVec::new(
            Opts::new("tailwater_upstream_circuit", "Whether requests are sent: 0 yes, 1 on trial, 2 probes only."),
            &["traffic"],
        )?;
        registry.register(Box::new(circuit.clone()))?;
        let circuit_changes = IntCounterVec::new(
            Opts::new("tailwater_upstream_circuit_changes_total", "Changes of that."),
            &["traffic", "to"],
        )?;
        registry.register(Box::new(circuit_changes.clone()))?;
        let spared = IntCounterVec::new(
            Opts::new("tailwater_upstream_spared_total", "Requests refused without asking a store that is away."),
            &["traffic"],
        )?;
        registry.register(Box::new(spared.clone()))?;
        Ok(Self {
            read_sessions,
            appends: counter("tailwater_upstream_appends_total", "Batches that the store acknowledged.")?,
            append_records: counter("tailwater_upstream_append_records_total", "Records in acknowledged batches.")?,
            append_bytes: counter("tailwater_upstream_append_bytes_total", "Metered bytes in acknowledged batches.")?,
            reads: counter("tailwater_upstream_reads_total", "Unary reads sent to the store.")?,
            tail_checks: counter("tailwater_upstream_tail_checks_total", "Tail checks sent to the store.")?,
            errors,
            circuit,
            circuit_changes,
            spared,
        })
    }

    pub(crate) fn appended(&self, records: usize, bytes: usize) {
        self.appends.inc();
        self.append_records.inc_by(records as u64);
        self.append_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn read(&self) {
        self.reads.inc();
    }

    pub(crate) fn tail_checked(&self) {
        self.tail_checks.inc();
    }

    pub(crate) fn session(&self) -> SessionGuard {
        self.read_sessions.inc();
        SessionGuard(self.read_sessions.clone())
    }

    pub(crate) fn append_failed(&self, error: &AppendError) {
        let kind = match error {
            AppendError::SeqMismatch { .. } => "seq_mismatch",
            AppendError::TokenMismatch { .. } => "token_mismatch",
            AppendError::DeletionPending => "deletion_pending",
            AppendError::TooManyProjects { .. } => "too_many_projects",
            AppendError::Busy { .. } => "busy",
            AppendError::Unavailable { .. } => "unavailable",
            AppendError::Refused { .. } => "refused",
        };
        self.failed(Operation::Append, kind);
    }

    pub(crate) fn read_failed(&self, operation: Operation, error: &ReadError) {
        let kind = match error {
            ReadError::NotFound => "not_found",
            ReadError::Busy { .. } => "busy",
            ReadError::Unavailable { .. } => "unavailable",
            ReadError::Refused { .. } => "refused",
        };
        self.failed(operation, kind);
    }

    /// Where a circuit stands.
    pub(crate) fn circuit(&self, traffic: Traffic, phase: Phase) {
        let value = match phase {
            Phase::Closed => 0,
            Phase::Trial => 1,
            Phase::Open => 2,
        };
        self.circuit.with_label_values(&[traffic.label()]).set(value);
    }

    pub(crate) fn circuit_changed(&self, traffic: Traffic, to: Phase) {
        self.circuit(traffic, to);
        self.circuit_changes.with_label_values(&[traffic.label(), to.label()]).inc();
    }

    pub(crate) fn spared(&self, traffic: Traffic) {
        self.spared.with_label_values(&[traffic.label()]).inc();
    }

    fn failed(&self, operation: Operation, kind: &str) {
        self.errors.with_label_values(&[operation.label(), kind]).inc();
    }
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Read => "read",
            Self::CheckTail => "check_tail",
            Self::ReadSession => "read_session",
            Self::List => "list",
            Self::Ready => "ready",
        }
    }
}

impl Phase {
    const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Trial => "trial",
            Self::Open => "open",
        }
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_takes_the_metrics_once() {
        let registry = Registry::new();
        assert!(Metrics::register(&registry).is_ok());
        assert!(Metrics::register(&registry).is_err());
    }
}
