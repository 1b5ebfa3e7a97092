//! What is counted of the register. Label values come from enums; a registry is given.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::view::Standing;

/// The metrics; a cheap clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `tailwater_register_standing`.
    standing: IntGauge,
    /// `tailwater_register_next`.
    next: IntGauge,
    /// `tailwater_register_sessions_total`: read sessions that were opened.
    pub(crate) sessions: IntCounter,
    /// `tailwater_register_refolds_total`: times that it was read again from its beginning.
    pub(crate) refolds: IntCounter,
    /// `tailwater_register_checkpoints_total`: checkpoints that this pod has appended.
    pub(crate) checkpoints: IntCounter,
    /// `tailwater_register_appends_total{outcome}`.
    appends: IntCounterVec,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Landed,
    LostRace,
    Failed,
    Unknown,
}

impl Metrics {
    /// Metrics in a registry.
    ///
    /// # Errors
    /// Those of the registry, for metrics of these names that are there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let appends = IntCounterVec::new(
            Opts::new("tailwater_register_appends_total", "Records for the register, by what became of them."),
            &["outcome"],
        )?;
        registry.register(Box::new(appends.clone()))?;
        Ok(Self {
            standing: gauge("tailwater_register_standing", "How well the register is known.")?,
            next: gauge("tailwater_register_next", "How many records of the register are known.")?,
            sessions: counter("tailwater_register_sessions_total", "Read sessions opened to follow the register.")?,
            refolds: counter("tailwater_register_refolds_total", "Times the register was read again from its start.")?,
            checkpoints: counter("tailwater_register_checkpoints_total", "Checkpoints of the register appended.")?,
            appends,
        })
    }

    pub(crate) fn stands(&self, standing: Standing) {
        self.standing.set(standing.number());
    }

    pub(crate) fn reached(&self, next: u64) {
        self.next.set(i64::try_from(next).unwrap_or(i64::MAX));
    }

    pub(crate) fn appended(&self, outcome: Outcome) {
        self.appends.with_label_values(&[outcome.label()]).inc();
    }
}

impl Outcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Landed => "landed",
            Self::LostRace => "lost_race",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}
