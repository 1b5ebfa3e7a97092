//! The store's present.
//!
//! Time is S2's: lifetimes are counted in the timestamps of records, and no pod's own clock takes part. The newest ack
//! carries such a timestamp; that, plus the monotonic time since it arrived, is a lower bound of S2's present.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use tokio::time::Instant;

/// A lower bound of S2's present, shared by all streams of a gateway.
#[derive(Debug, Default)]
pub(crate) struct StoreClock(Mutex<Option<(u64, Instant)>>);

impl StoreClock {
    /// Learns from an ack that has just arrived.
    pub(crate) fn learn(&self, timestamp_ms: u64) {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let later = known.is_none_or(|(at, since)| timestamp_ms > at + elapsed_ms(since, now));
        if later {
            *known = Some((timestamp_ms, now));
        }
    }

    /// The present, in milliseconds since the Unix epoch; `None` before the first ack.
    pub(crate) fn present_ms(&self) -> Option<u64> {
        let known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.map(|(at, since)| at + elapsed_ms(since, Instant::now()))
    }
}

/// What this machine takes the time for, in milliseconds since the Unix epoch. It is asked only for what may be wrong: in
/// which hour a stream is looked after.
#[derive(Clone)]
pub struct MachineClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl MachineClock {
    /// A clock that shows what `now_ms` says.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl Default for MachineClock {
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

impl fmt::Debug for MachineClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineClock")
    }
}

fn elapsed_ms(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_present_never_goes_back() {
        let clock = StoreClock::default();
        assert_eq!(clock.present_ms(), None);
        clock.learn(1_000);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(clock.present_ms(), Some(1_500));
        clock.learn(1_200);
        assert_eq!(clock.present_ms(), Some(1_500), "an older ack says nothing new");
        clock.learn(9_000);
        assert_eq!(clock.present_ms(), Some(9_000));
    }
}
