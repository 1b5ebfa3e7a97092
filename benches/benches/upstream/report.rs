//! The rows: medians of all rounds, and how far the rounds lie apart.

use std::{fmt, time::Duration};

use serde_json::{Value, json};
use tailwater_benches::rounds::{Rounds, Spread};

use crate::drive::{Plan, Turn, Variant};

/// What all turns of all variants took.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    missed: Vec<String>,
}

/// What the turns of one variant took.
struct Row {
    variant: Variant,
    /// CPU of a message, in µs.
    message: Rounds,
    /// CPU over time, in percent of a core.
    core: Rounds,
    /// Quantiles of a turn's acks, in ms.
    p50: Rounds,
    p99: Rounds,
}

impl Report {
    /// Takes the figures of a turn; the bars that it missed.
    pub(crate) fn take(&mut self, variant: Variant, turn: Turn) -> Vec<String> {
        let at = match self.rows.iter().position(|row| row.variant == variant) {
            Some(at) => at,
            None => {
                self.rows.push(Row::of(variant));
                self.rows.len() - 1
            }
        };
        self.rows[at].take(&turn);
        self.missed.extend(turn.missed.iter().map(|missed| format!("{}: {missed}", variant.name())));
        turn.missed
    }

    /// Whether every bar is held.
    pub(crate) fn holds(&self) -> bool {
        self.missed.is_empty()
    }

    /// The same as the table, for machines.
    pub(crate) fn json(&self, plan: Plan, rounds: u32) -> Value {
        let Plan { streams, rate, seconds } = plan;
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        json!({
            "holds": self.holds(), "missed": self.missed, "streams": streams, "rate": rate, "seconds": seconds,
            "rounds": rounds, "rows": rows,
        })
    }
}

impl Row {
    fn of(variant: Variant) -> Self {
        let [message, core, p50, p99] = Default::default();
        Self { variant, message, core, p50, p99 }
    }

    fn take(&mut self, turn: &Turn) {
        let micros = turn.cpu.as_secs_f64() * 1e6;
        if turn.messages > 0 {
            self.message.push(micros / f64::from(turn.messages));
        }
        self.core.push(100.0 * turn.cpu.as_secs_f64() / turn.elapsed.as_secs_f64());
        if let Some(acks) = turn.acks {
            self.p50.push(millis(acks.p50));
            self.p99.push(millis(acks.p99));
        }
    }

    fn json(&self) -> Value {
        let spread = |rounds: &Rounds| {
            let spread = rounds.spread();
            spread.map(|s| json!({ "median": rounded(s.median), "least": rounded(s.least), "most": rounded(s.most) }))
        };
        json!({
            "variant": self.variant.name(), "cpu_us_a_message": spread(&self.message), "core_percent": spread(&self.core),
            "ack_p50_ms": spread(&self.p50), "ack_p99_ms": spread(&self.p99),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<31}{:^27}{:>11}{:^20}", "", "CPU of a message, us", "of a core", "ack, ms")?;
        let [median, least, most, percent, p50, p99] = ["median", "least", "most", "%", "p50", "p99"];
        writeln!(f, "{:<31}{median:>9}{least:>9}{most:>9}{percent:>11}{p50:>10}{p99:>10}", "")?;
        for Row { variant, message, core, p50, p99 } in &self.rows {
            write!(f, "{:<31}", variant.name())?;
            let message = message.spread();
            for part in [|s: Spread| s.median, |s: Spread| s.least, |s: Spread| s.most] {
                cell(f, 9, 1, message.map(part))?;
            }
            cell(f, 11, 2, core.spread().map(|s| s.median))?;
            cell(f, 10, 3, p50.spread().map(|s| s.median))?;
            cell(f, 10, 3, p99.spread().map(|s| s.median))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A figure with so many digits behind the point, or a dash, in so many columns.
fn cell(f: &mut fmt::Formatter<'_>, width: usize, digits: usize, figure: Option<f64>) -> fmt::Result {
    match figure {
        Some(figure) => write!(f, "{figure:>width$.digits$}"),
        None => write!(f, "{:>width$}", "-"),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}
