//! Pauses between attempts, where what is measured has a period of its own.
//!
//! A store that flushes on a tick answers an append at the end of a tick. Whoever asks again at once always asks at the
//! start of the next one, and what anybody adds on the way vanishes in the wait for its end. So attempts start at all
//! phases of the tick alike. The pauses are no random numbers: the multiples of the golden ratio fill an interval more
//! evenly, so that two ways measured with the same pauses differ by less chance.

use std::time::Duration;

/// The fractional part of the golden ratio.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// The pause before the `n`th attempt: below `period`, and spread evenly over it by any run of attempts.
#[must_use]
pub fn pause(n: u32, period: Duration) -> Duration {
    period.mul_f64((f64::from(n) * GOLDEN).fract())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_tenth_of_the_period_gets_its_tenth_of_any_hundred_attempts(first in 0_u32..1_000_000) {
            let period = Duration::from_millis(10);
            let mut tenths = [0; 10];
            for n in first..first + 100 {
                let pause = pause(n, period);
                prop_assert!(pause < period);
                tenths[usize::try_from(pause.as_micros() / 1000).unwrap()] += 1;
            }
            prop_assert!(tenths.iter().all(|count| (8..=12).contains(count)), "{:?}", tenths);
        }
    }
}
