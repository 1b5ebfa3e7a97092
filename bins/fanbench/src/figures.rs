//! What is measured: latencies as histograms, and what became of each message.
//!
//! A latency counts when its message was due within the measured window. All are kept in microseconds, with three
//! significant digits.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::message::Message;

/// The longest latency that is told apart, in microseconds: ten minutes.
const LONGEST: u64 = 600_000_000;

/// Latencies, in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u32>);

/// Latencies as they are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) mean_us: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

/// What became of one message that was sent. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: u64,
    /// When its ack arrived; 0 before.
    acked: u64,
    /// When the last reader had it; 0 before the first.
    last: u64,
}

/// The messages of one stream that were sent during the run.
#[derive(Debug)]
struct Stream {
    /// The number of the first of them.
    first: u64,
    sent: Vec<Sent>,
}

/// Everything that is measured of deliveries and appends.
#[derive(Debug)]
pub(crate) struct Figures {
    streams: Vec<Stream>,
    /// Messages that were due from here on are measured.
    from: u64,
    /// Messages that were due before this are measured.
    until: u64,
    /// From a message's due time to its ack.
    pub(crate) ack: Latencies,
    /// From a message's ack to a reader's having it.
    pub(crate) ack_to_receive: Latencies,
    /// From a message's due time to a reader's having it.
    pub(crate) publish_to_receive: Latencies,
    /// Deliveries of messages whose ack was not read yet; in `ack_to_receive` they count as 0.
    pub(crate) before_ack: u64,
    /// Deliveries of messages that were sent during the run.
    pub(crate) delivered: u64,
    /// Those of them that were due within the measured window.
    pub(crate) measured: u64,
}

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order"))
    }

    /// Adds the time from one moment to a later one, both in nanoseconds.
    pub(crate) fn record(&mut self, from: u64, to: u64) {
        self.0.saturating_record(to.saturating_sub(from) / 1000);
    }

    /// What is reported of them.
    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile).min(self.0.max());
        Percentiles {
            count: self.0.len(),
            mean_us: self.0.mean() as u64,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
        }
    }
}

impl Figures {
    /// Nothing measured yet, of streams whose next messages have these numbers.
    pub(crate) fn new(firsts: impl Iterator<Item = u64>) -> Self {
        Self {
            streams: firsts.map(|first| Stream { first, sent: Vec::new() }).collect(),
            from: u64::MAX,
            until: u64::MAX,
            ack: Latencies::new(),
            ack_to_receive: Latencies::new(),
            publish_to_receive: Latencies::new(),
            before_ack: 0,
            delivered: 0,
            measured: 0,
        }
    }

    /// Messages that are due between these two times are measured.
    pub(crate) fn measure(&mut self, from: u64, until: u64) {
        (self.from, self.until) = (from, until);
    }

    /// A message of `stream` is being sent; gives it the next number.
    pub(crate) fn send(&mut self, stream: usize, at: u64) -> Message {
        let stream = &mut self.streams[stream];
        stream.sent.push(Sent { at, acked: 0, last: 0 });
        Message { number: stream.first + stream.sent.len() as u64 - 1, at }
    }

    /// The ack of a message arrived.
    pub(crate) fn acked(&mut self, stream: usize, message: Message, now: u64) {
        let stream = &mut self.streams[stream];
        let index = (message.number - stream.first) as usize;
        stream.sent[index].acked = now;
        if self.from <= message.at && message.at < self.until {
            self.ack.record(message.at, now);
        }
    }

    /// Whether this message was sent during the run.
    pub(crate) fn was_sent(&self, stream: usize, message: Message) -> bool {
        let stream = &self.streams[stream];
        let sent = message.number.checked_sub(stream.first).and_then(|index| stream.sent.get(index as usize));
        sent.is_some_and(|sent| sent.at == message.at)
    }

    /// A live reader has a message that was sent during the run. False: no such message was sent.
    pub(crate) fn received(&mut self, stream: usize, message: Message, now: u64) -> bool {
        let stream = &mut self.streams[stream];
        let sent = message.number.checked_sub(stream.first).and_then(|index| stream.sent.get_mut(index as usize));
        let Some(sent) = sent.filter(|sent| sent.at == message.at) else { return false };
        sent.last = now;
        self.delivered += 1;
        if self.from <= message.at && message.at < self.until {
            self.measured += 1;
            self.publish_to_receive.record(message.at, now);
            if sent.acked == 0 {
                self.before_ack += 1;
                self.ack_to_receive.record(0, 0);
            } else {
                self.ack_to_receive.record(sent.acked, now);
            }
        }
        true
    }

    /// The number that the next message of `stream` will get: one more than that of the last.
    pub(crate) fn next_number(&self, stream: usize) -> u64 {
        let stream = &self.streams[stream];
        stream.first + stream.sent.len() as u64
    }

    /// From due time, and from ack, to the last reader of each measured message that anyone received.
    pub(crate) fn last_reader(&self) -> (Latencies, Latencies) {
        let (mut from_publish, mut from_ack) = (Latencies::new(), Latencies::new());
        let measured = |sent: &&Sent| self.from <= sent.at && sent.at < self.until && sent.last > 0;
        for sent in self.streams.iter().flat_map(|stream| &stream.sent).filter(measured) {
            from_publish.record(sent.at, sent.last);
            if sent.acked > 0 {
                from_ack.record(sent.acked, sent.last);
            }
        }
        (from_publish, from_ack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn percentiles_of_known_latencies_are_right_within_three_digits() {
        let mut latencies = Latencies::new();
        for millisecond in 1..=1000 {
            latencies.record(5 * MS, 5 * MS + millisecond * MS);
        }
        let reported = latencies.percentiles();
        assert_eq!(reported.count, 1000);
        for (got, wanted) in [
            (reported.p50_us, 500_000),
            (reported.p90_us, 900_000),
            (reported.p99_us, 990_000),
            (reported.p999_us, 999_000),
            (reported.max_us, 1_000_000),
        ] {
            assert!(u64::abs_diff(got, wanted) <= wanted / 1000, "{got} is not {wanted}");
        }
    }

    #[test]
    fn only_messages_that_were_due_in_the_window_are_measured() {
        let mut figures = Figures::new([10].into_iter());
        figures.measure(100 * MS, 200 * MS);
        for at in [50, 150, 200] {
            let message = figures.send(0, at * MS);
            figures.acked(0, message, (at + 2) * MS);
            assert!(figures.received(0, message, (at + 5) * MS));
            assert!(figures.received(0, message, (at + 9) * MS));
        }
        assert_eq!((figures.delivered, figures.measured, figures.ack.percentiles().count), (6, 2, 1));
        assert_eq!(figures.publish_to_receive.percentiles().max_us / 100, 90);
        assert_eq!(figures.ack_to_receive.percentiles().max_us / 100, 70);
        let (from_publish, from_ack) = figures.last_reader();
        assert_eq!((from_publish.percentiles().count, from_publish.percentiles().max_us / 100), (1, 90));
        assert_eq!(from_ack.percentiles().max_us / 100, 70);
        assert_eq!(figures.next_number(0), 13);
    }

    #[test]
    fn what_is_only_looked_up_is_not_measured() {
        let mut figures = Figures::new([10].into_iter());
        figures.measure(0, 200 * MS);
        let message = figures.send(0, MS);
        assert!(figures.was_sent(0, message));
        assert!(!figures.was_sent(0, Message { at: 2 * MS, ..message }));
        assert!(
            !figures.was_sent(0, Message { number: 11, ..message })
                && !figures.was_sent(0, Message { number: 9, ..message })
        );
        assert_eq!((figures.delivered, figures.measured), (0, 0));
    }

    #[test]
    fn a_message_that_was_never_sent_or_at_another_time_is_refused() {
        let mut figures = Figures::new([3].into_iter());
        let message = figures.send(0, MS);
        assert_eq!(message, Message { number: 3, at: MS });
        assert!(!figures.received(0, Message { number: 2, at: MS }, MS));
        assert!(!figures.received(0, Message { number: 4, at: MS }, MS));
        assert!(!figures.received(0, Message { number: 3, at: MS + 1 }, MS));
        assert!(figures.received(0, message, MS));
        assert_eq!(figures.before_ack, 0, "nothing is measured before a window is set");
    }

    #[test]
    fn a_delivery_before_its_ack_counts_as_none() {
        let mut figures = Figures::new([0].into_iter());
        figures.measure(0, u64::MAX);
        let message = figures.send(0, MS);
        assert!(figures.received(0, message, 2 * MS));
        assert_eq!((figures.before_ack, figures.ack_to_receive.percentiles().count), (1, 1));
    }
}
