//! A token bucket in whole numbers: nothing is lost to rounding, however often it is asked.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

/// So much in so long: as much at once, and after that as it comes back, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How much, in units of what is metered.
    pub quota: NonZeroU64,
    /// In how many seconds.
    pub window: NonZeroU32,
}

/// What is left under a policy. What costs more than there ever is can be had when the bucket is full, and is owed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    policy: Policy,
    /// Units times the nanoseconds of the window, of which a nanosecond brings `quota`; below zero it is owed.
    level: i128,
    /// When it was that.
    at: Duration,
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

impl Policy {
    /// One unit, as levels are counted.
    fn unit(self) -> i128 {
        i128::from(self.window.get()) * NANOS_PER_SECOND
    }

    fn quota(self) -> i128 {
        i128::from(self.quota.get())
    }

    fn full(self) -> i128 {
        self.quota() * self.unit()
    }
}

impl Bucket {
    pub(super) fn full(policy: Policy, now: Duration) -> Self {
        Self { policy, level: policy.full(), at: now }
    }

    /// The policy was changed: what is left, or owed, stays the same number of units.
    pub(super) fn adopt(&mut self, policy: Policy, now: Duration) {
        if self.policy == policy {
            return;
        }
        let units = self.level(now).div_euclid(self.policy.unit());
        *self = Self { policy, level: units.saturating_mul(policy.unit()).min(policy.full()), at: now };
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    /// What is left in whole units.
    pub(super) fn available(&self, now: Duration) -> u64 {
        u64::try_from(self.level(now).div_euclid(self.policy.unit())).unwrap_or(0)
    }

    /// How long until this much can be had; `None` if it can be had now.
    pub(super) fn wait(&self, cost: u64, now: Duration) -> Option<Duration> {
        let lacking = self.lacking(i128::from(cost).min(self.policy.quota()) * self.policy.unit(), now)?;
        Some(Duration::from_nanos(u64::try_from(lacking).unwrap_or(u64::MAX)))
    }

    /// Takes this much, whether or not it is there.
    pub(super) fn take(&mut self, cost: u64, now: Duration) {
        let level = self.level(now).saturating_sub(i128::from(cost).saturating_mul(self.policy.unit()));
        *self = Self { policy: self.policy, level, at: self.at.max(now) };
    }

    /// Puts back what was taken, as far as there is room: what has come back by itself meanwhile is not had twice.
    pub(super) fn give_back(&mut self, cost: u64, now: Duration) {
        let level = self.level(now).saturating_add(i128::from(cost).saturating_mul(self.policy.unit()));
        *self = Self { policy: self.policy, level: level.min(self.policy.full()), at: self.at.max(now) };
    }

    /// Whether it is as if nothing had ever been taken.
    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.lacking(self.policy.full(), now).is_none()
    }

    /// Nanoseconds until it holds `wanted`.
    fn lacking(&self, wanted: i128, now: Duration) -> Option<i128> {
        let lacking = wanted.saturating_sub(self.level(now));
        // Rounded up: who comes then is not sent away again.
        (lacking > 0).then(|| lacking.saturating_add(self.policy.quota() - 1) / self.policy.quota())
    }

    fn level(&self, now: Duration) -> i128 {
        let elapsed = i128::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(i128::MAX);
        let come_back = elapsed.saturating_mul(self.policy.quota());
        self.level.saturating_add(come_back).min(self.policy.full())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(quota: u64, window: u32) -> Policy {
        Policy { quota: NonZeroU64::new(quota).unwrap(), window: NonZeroU32::new(window).unwrap() }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_is_had_at_once_and_the_rest_as_it_comes_back() {
        let mut bucket = Bucket::full(policy(10, 5), ms(0));
        bucket.take(10, ms(0));
        assert_eq!((bucket.available(ms(0)), bucket.wait(1, ms(0))), (0, Some(ms(500))));
        assert_eq!((bucket.wait(1, ms(499)), bucket.wait(1, ms(500))), (Some(ms(1)), None));
        assert_eq!((bucket.available(ms(1700)), bucket.wait(4, ms(1700))), (3, Some(ms(300))));
        assert!(!bucket.is_full(ms(4999)) && bucket.is_full(ms(5000)));
        assert_eq!(bucket.available(ms(1_000_000)), 10);
    }

    #[test]
    fn what_costs_more_than_all_is_owed() {
        let mut bucket = Bucket::full(policy(10, 10), ms(0));
        assert_eq!(bucket.wait(25, ms(0)), None);
        bucket.take(25, ms(0));
        assert_eq!(bucket.wait(1, ms(0)), Some(ms(16_000)));
        assert_eq!(bucket.wait(25, ms(16_000)), Some(ms(9_000)));
        assert_eq!(bucket.available(ms(3_000)), 0);
    }

    #[test]
    fn another_policy_leaves_what_was_left_and_what_was_owed() {
        let mut bucket = Bucket::full(policy(10, 10), ms(0));
        bucket.take(6, ms(0));
        bucket.adopt(policy(100, 1), ms(0));
        assert_eq!(bucket.available(ms(0)), 4);
        bucket.adopt(policy(2, 60), ms(0));
        assert_eq!(bucket.available(ms(0)), 2);
        bucket.take(8, ms(0));
        bucket.adopt(policy(1, 1), ms(0));
        assert_eq!(bucket.wait(1, ms(0)), Some(ms(7000)));
    }

    #[test]
    fn no_number_is_too_large() {
        let most = Policy { quota: NonZeroU64::MAX, window: NonZeroU32::MAX };
        let mut bucket = Bucket::full(most, ms(0));
        for _ in 0..5 {
            bucket.take(u64::MAX, Duration::MAX);
        }
        assert!(bucket.wait(u64::MAX, ms(0)).is_some());
        assert_eq!(bucket.available(Duration::MAX), 0);
        let least = policy(1, 1);
        let mut bucket = Bucket::full(least, ms(0));
        bucket.take(u64::MAX, ms(0));
        assert!(bucket.wait(1, ms(0)) > Some(Duration::from_secs(1 << 33)));
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_a_burst_and_what_came_back(
            quota in 1..50_u64, window in 1..20_u32, asked in prop::collection::vec((0..3000_u64, 1..9_u64), 0..100)
        ) {
            let policy = policy(quota, window);
            let mut bucket = Bucket::full(policy, ms(0));
            let (mut now, mut had) = (0, 0);
            for (pause, cost) in asked {
                now += pause;
                match bucket.wait(cost, ms(now)) {
                    None => {
                        bucket.take(cost, ms(now));
                        had += cost;
                    }
                    Some(wait) => {
                        // As soon as it says, and no sooner.
                        prop_assert!(bucket.wait(cost, ms(now) + wait).is_none());
                        prop_assert!(bucket.wait(cost, ms(now) + wait - Duration::from_nanos(1)).is_some());
                    }
                }
                // A cost above the quota, had at a full bucket, is what may go beyond.
                let most = quota.max(9) * 1000 * u64::from(window) + quota * now;
                prop_assert!(had * 1000 * u64::from(window) <= most);
            }
        }

        #[test]
        fn a_clock_that_goes_back_brings_nothing(times in prop::collection::vec(0..1000_u64, 1..200)) {
            let mut bucket = Bucket::full(policy(5, 1), ms(0));
            let latest = *times.iter().max().unwrap();
            let mut had = 0;
            for at in times {
                if bucket.wait(1, ms(at)).is_none() {
                    bucket.take(1, ms(at));
                    had += 1;
                }
            }
            prop_assert!(had * 1000 <= 5000 + 5 * latest);
        }
    }
}
