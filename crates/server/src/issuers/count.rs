//! What is counted of issuers. No label is anybody's name: hosts stand in the log.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// What is counted; a cheap clone.
#[derive(Debug, Clone)]
pub struct IssuerMetrics {
    /// `tailwater_jwks_fetches_total{outcome}`.
    fetches: IntCounterVec,
    /// `tailwater_jwks_failing`: issuers whose last fetch failed.
    pub(crate) failing: IntGauge,
    /// `tailwater_jwks_waiting`: requests that wait for keys.
    pub(crate) waiting: IntGauge,
    /// `tailwater_jwks_unjudged_total{reason}`: tokens of which nobody could say whether they count.
    unjudged: IntCounterVec,
}

/// Why nobody could say whether a token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unjudged {
    /// The keys of its issuer were not to be had.
    Away,
    /// Too many others were waiting for keys.
    Crowded,
}

impl IssuerMetrics {
    /// Metrics in a registry.
    ///
    /// # Errors
    /// Those of the registry, for metrics of these names that are there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        Ok(Self {
            fetches: counters("tailwater_jwks_fetches_total", "Fetches of issuers' keys, by outcome.", "outcome")?,
            failing: gauge("tailwater_jwks_failing", "Issuers whose keys could not be fetched the last time.")?,
            waiting: gauge("tailwater_jwks_waiting", "Requests that wait for an issuer's keys.")?,
            unjudged: counters(
                "tailwater_jwks_unjudged_total",
                "Tokens that could not be judged because keys were not to be had, by reason.",
                "reason",
            )?,
        })
    }

    /// A fetch has ended.
    pub(crate) fn fetched(&self, outcome: &'static str) {
        self.fetches.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn unjudged(&self, reason: Unjudged) {
        self.unjudged.with_label_values(&[reason.label()]).inc();
    }

    #[cfg(test)]
    pub(crate) fn count_of(&self, reason: Unjudged) -> u64 {
        self.unjudged.with_label_values(&[reason.label()]).get()
    }
}

impl Unjudged {
    const fn label(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Crowded => "crowded",
        }
    }
}
