//! The store's clock: what stamps records on arrival.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The time at which a store's clock starts unless told otherwise, in milliseconds since the Unix epoch.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// A clock that runs with tokio's time, and can be moved. Clones share it.
///
/// Moving it backwards is allowed, as clocks do that; the timestamps of a log never decrease all the same.
#[derive(Debug, Clone)]
pub struct StoreClock(Arc<Mutex<Reading>>);

#[derive(Debug)]
struct Reading {
    base_ms: u64,
    since: Instant,
}

impl StoreClock {
    /// A clock that shows `start_ms` now, in milliseconds since the Unix epoch. Tests with paused time make it inside
    /// the paused runtime.
    #[must_use]
    pub fn starting_at(start_ms: u64) -> Self {
        Self(Arc::new(Mutex::new(Reading { base_ms: start_ms, since: Instant::now() })))
    }

    /// The present, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.base_ms.saturating_add(millis(reading.since.elapsed()))
    }

    /// Moves the clock to `now_ms`, from where it runs on.
    pub fn set(&self, now_ms: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Reading { base_ms: now_ms, since: Instant::now() };
    }

    /// Moves the clock forward, tokio's time left as it is.
    pub fn advance(&self, by: Duration) {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.base_ms = reading.base_ms.saturating_add(millis(by));
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_runs_with_paused_time_and_can_be_moved() {
        let clock = StoreClock::starting_at(1_000);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now_ms(), 1_250);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now_ms(), 2_250);
        clock.set(500);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now_ms(), 505);
    }
}
