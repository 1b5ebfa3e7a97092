//! What times say: quantiles by the nearest-rank rule, and one way held against another.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

/// Times of one operation done one way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample(Vec<Duration>);

/// What is told of a [`Sample`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many times there are.
    pub count: usize,
    /// The median.
    pub p50: Duration,
    /// What 99 of 100 do not exceed.
    pub p99: Duration,
}

/// One operation on one store, done directly and through the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// Where the store is.
    pub store: &'static str,
    /// What was done.
    pub operation: &'static str,
    /// By the store's own client library.
    pub direct: Summary,
    /// Through the gateway.
    pub gateway: Summary,
}

/// All comparisons of a run. Its `Display` is a table for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The comparisons.
    pub comparisons: Vec<Comparison>,
    /// What every share has to stay under.
    pub bar: Duration,
}

impl Sample {
    /// Takes a further time.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// What is told of the times; `None` where there are none.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        Some(Summary { count: sorted.len(), p50: nearest_rank(&sorted, 50)?, p99: nearest_rank(&sorted, 99)? })
    }
}

impl Comparison {
    /// The gateway's share: its median less the direct one, in milliseconds. Below zero where the gateway was faster.
    #[must_use]
    pub fn share(&self) -> f64 {
        millis(self.gateway.p50) - millis(self.direct.p50)
    }
}

impl Report {
    /// Whether every share is under the bar.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.comparisons.iter().all(|comparison| comparison.share() < millis(self.bar))
    }

    /// The same as the table, for machines. Times are in milliseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let summary = |s: &Summary| json!({ "count": s.count, "p50": rounded(s.p50), "p99": rounded(s.p99) });
        let comparison = |c: &Comparison| {
            json!({
                "store": c.store,
                "operation": c.operation,
                "direct": summary(&c.direct),
                "gateway": summary(&c.gateway),
                "share": (c.share() * 1e3).round() / 1e3,
            })
        };
        let comparisons: Vec<Value> = self.comparisons.iter().map(comparison).collect();
        json!({ "unit": "ms", "bar": rounded(self.bar), "holds": self.holds(), "comparisons": comparisons })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<9}{:<11}{:^20}{:^20}{:>10}", "", "", "s2-sdk, ms", "gateway, ms", "share, ms")?;
        let [p50, p99] = ["p50", "p99"];
        writeln!(f, "{:<9}{:<11}{p50:>10}{p99:>10}{p50:>10}{p99:>10}{p50:>10}", "store", "operation")?;
        for comparison in &self.comparisons {
            let Comparison { store, operation, direct, gateway } = comparison;
            write!(f, "{store:<9}{operation:<11}")?;
            for time in [direct.p50, direct.p99, gateway.p50, gateway.p99] {
                write!(f, "{:>10.3}", millis(time))?;
            }
            writeln!(f, "{:>+10.3}", comparison.share())?;
        }
        Ok(())
    }
}

/// The smallest of `sorted` that at least `percent` of 100 do not exceed.
fn nearest_rank(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rounded(time: Duration) -> f64 {
    (millis(time) * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn summary(times: impl IntoIterator<Item = u64>) -> Option<Summary> {
        let mut sample = Sample::default();
        times.into_iter().for_each(|micros| sample.push(Duration::from_micros(micros)));
        sample.summary()
    }

    fn comparison(direct: u64, gateway: u64) -> Comparison {
        let [direct, gateway] = [direct, gateway].map(|micros| summary([micros]).unwrap());
        Comparison { store: "apart", operation: "append", direct, gateway }
    }

    #[test]
    fn quantiles_are_times_that_were_taken() {
        let micros = Duration::from_micros;
        assert_eq!(summary((1..=2000).rev()), Some(Summary { count: 2000, p50: micros(1000), p99: micros(1980) }));
        assert_eq!(summary([7]), Some(Summary { count: 1, p50: micros(7), p99: micros(7) }));
        assert_eq!(summary([]), None);
    }

    #[test]
    fn a_share_at_the_bar_is_over_it_and_one_below_zero_is_under_it() {
        let report = |comparisons| Report { comparisons, bar: Duration::from_millis(1) };
        assert!(report(vec![comparison(500, 1499), comparison(900, 400)]).holds());
        assert!(!report(vec![comparison(500, 600), comparison(500, 1501)]).holds());
        assert!(!report(vec![comparison(0, 1000)]).holds());
    }

    #[test]
    fn the_table_and_the_json_tell_the_same() {
        let report = Report { comparisons: vec![comparison(2500, 2250)], bar: Duration::from_millis(1) };
        let last = report.to_string().lines().last().map(str::to_owned).unwrap();
        let cells: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(cells, ["apart", "append", "2.500", "2.500", "2.250", "2.250", "-0.250"]);
        let of = |at: &str| report.json().pointer(at).cloned().unwrap();
        assert_eq!(of("/comparisons/0/direct/p50"), json!(2.5));
        assert_eq!(of("/comparisons/0/share"), json!(-0.25));
        assert_eq!(of("/holds"), json!(true));
    }

    proptest! {
        #[test]
        fn as_many_as_a_quantile_promises_do_not_exceed_it(times in prop::collection::vec(0_u64..50, 1..300)) {
            let found = summary(times.iter().copied()).unwrap();
            for (percent, quantile) in [(50, found.p50), (99, found.p99)] {
                let micros = u64::try_from(quantile.as_micros()).unwrap();
                let within = times.iter().filter(|time| **time <= micros).count();
                let below = times.iter().filter(|time| **time < micros).count();
                prop_assert!(within * 100 >= times.len() * percent);
                prop_assert!(below * 100 < times.len() * percent);
            }
        }
    }
}
