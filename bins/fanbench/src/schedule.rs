//! When each message is due: fixed before the first is sent, so that a slow server cannot slow the load down.

/// Messages at even distances, round robin over the streams.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    /// When the first message is due, in nanoseconds of the monotonic clock.
    origin: u64,
    /// Messages a second, over all streams.
    rate: f64,
    streams: usize,
    /// How many messages were handed out.
    given: u64,
    /// No message is due at this time or later.
    end: u64,
}

/// One message that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) stream: usize,
    /// When, in nanoseconds of the monotonic clock.
    pub(crate) at: u64,
}

impl Schedule {
    /// `rate` messages a second to each of `streams` streams, from `origin` until `end`.
    pub(crate) fn new(rate: f64, streams: usize, origin: u64, end: u64) -> Self {
        Self { origin, rate: rate * streams as f64, streams, given: 0, end }
    }

    /// When the next message is due; `None` when there is none any more.
    pub(crate) fn next_at(&self) -> Option<u64> {
        if self.rate <= 0.0 {
            return None;
        }
        let at = self.origin + (self.given as f64 * 1e9 / self.rate) as u64;
        (at < self.end).then_some(at)
    }

    /// The next message that is due by `now`.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Due> {
        let at = self.next_at().filter(|at| *at <= now)?;
        let stream = (self.given % self.streams as u64) as usize;
        self.given += 1;
        Some(Due { stream, at })
    }

    /// Nothing is due from `now` on.
    pub(crate) fn stop(&mut self, now: u64) {
        self.end = self.end.min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn all(mut schedule: Schedule, now: u64) -> Vec<Due> {
        std::iter::from_fn(move || schedule.pop(now)).collect()
    }

    #[test]
    fn messages_are_due_at_even_distances_over_all_streams() {
        let due = all(Schedule::new(2.0, 2, SECOND, 2 * SECOND), 10 * SECOND);
        let at = |stream, quarters: u64| Due { stream, at: SECOND + quarters * SECOND / 4 };
        assert_eq!(due, [at(0, 0), at(1, 1), at(0, 2), at(1, 3)]);
    }

    #[test]
    fn a_late_caller_gets_every_message_with_the_time_at_which_it_was_due() {
        let mut schedule = Schedule::new(1000.0, 1, 0, SECOND);
        assert_eq!(schedule.pop(0).map(|due| due.at), Some(0));
        assert_eq!(schedule.pop(SECOND / 2000), None);
        let late = all(schedule, SECOND / 2);
        assert_eq!(late.len(), 500);
        assert_eq!(late.first().map(|due| due.at), Some(SECOND / 1000));
    }

    #[test]
    fn nothing_is_due_after_the_end_or_a_stop_or_at_no_rate() {
        assert_eq!(all(Schedule::new(10.0, 1, 0, SECOND), u64::MAX).len(), 10);
        let mut schedule = Schedule::new(10.0, 1, 0, SECOND);
        schedule.stop(SECOND / 2);
        assert_eq!(all(schedule, u64::MAX).len(), 5);
        assert_eq!(Schedule::new(0.0, 1, 0, SECOND).next_at(), None);
    }
}
