//! The rows: medians of all rounds, and how far the rounds lie apart.

use std::{fmt, time::Duration};

use serde_json::{Value, json};
use tailwater_benches::rounds::{Rounds, Spread};

use crate::{
    turn::{Load, Turn},
    way::Way,
};

/// What all turns of all loads took.
#[derive(Default)]
pub(crate) struct Report {
    loads: Vec<(Load, Vec<Row>)>,
    missed: Vec<String>,
}

/// What the turns of one way under one load took.
struct Row {
    way: Way,
    /// Acks a second, one figure a round.
    rates: Vec<f64>,
    /// Quantiles of a turn's acks, in ms.
    p50: Rounds,
    p99: Rounds,
    /// CPU of an append, in µs: of this process, the gateway and the store.
    own: Rounds,
    gateway: Rounds,
    store: Rounds,
}

impl Report {
    /// Takes the figures of a turn; the bars that it missed.
    pub(crate) fn take(&mut self, load: Load, way: Way, turn: Turn) -> Vec<String> {
        let at = match self.loads.iter().position(|(known, _)| *known == load) {
            Some(at) => at,
            None => {
                self.loads.push((load, Way::ALL.map(Row::of).into()));
                self.loads.len() - 1
            }
        };
        let row = self.loads[at].1.iter_mut().find(|row| row.way == way);
        row.expect("there is a row for every way").take(load, &turn);
        self.missed.extend(turn.missed.iter().map(|missed| format!("{load}, {}: {missed}", way.name())));
        turn.missed
    }

    /// Whether every bar is held.
    pub(crate) fn holds(&self) -> bool {
        self.missed.is_empty()
    }

    /// The same as the table, for machines.
    pub(crate) fn json(&self, seconds: u32, rounds: u32) -> Value {
        let load = |(load, rows): &(Load, Vec<Row>)| {
            let rows: Vec<_> = rows.iter().map(|row| row.json(rows)).collect();
            json!({ "streams": load.streams, "writers": load.writers, "rows": rows })
        };
        let loads: Vec<_> = self.loads.iter().map(load).collect();
        json!({ "holds": self.holds(), "missed": self.missed, "seconds": seconds, "rounds": rounds, "loads": loads })
    }
}

impl Row {
    fn of(way: Way) -> Self {
        let [p50, p99, own, gateway, store] = Default::default();
        Self { way, rates: Vec::new(), p50, p99, own, gateway, store }
    }

    fn take(&mut self, load: Load, turn: &Turn) {
        let acks = turn.acks as f64;
        self.rates.push(acks / f64::from(load.seconds));
        if let Some(times) = turn.times {
            self.p50.push(millis(times.p50));
            self.p99.push(millis(times.p99));
            for (rounds, cpu) in [
                (&mut self.own, turn.cpu.own),
                (&mut self.gateway, turn.cpu.gateway),
                (&mut self.store, turn.cpu.store),
            ] {
                rounds.push(cpu.as_secs_f64() * 1e6 / acks);
            }
        }
    }

    /// Its rate as a multiple of another way's: the median of what it was within each round.
    fn times(&self, other: Way, rows: &[Self]) -> Option<f64> {
        // What asks for no condition is beside what has none; a session costs the same with one and without.
        let is_like = match (self.way, other) {
            (Way::Gateway, Way::Unary | Way::Session) | (Way::Producers, Way::Turns | Way::Session) => true,
            (Way::Gateway | Way::Producers | Way::Unary | Way::Turns | Way::Session, _) => false,
        };
        let other = rows.iter().find(|row| row.way == other && is_like)?;
        let mut multiples = Rounds::default();
        self.rates.iter().zip(&other.rates).for_each(|(own, other)| multiples.push(own / other));
        median(&multiples)
    }

    fn rate(&self) -> Option<Spread> {
        let mut rounds = Rounds::default();
        self.rates.iter().for_each(|rate| rounds.push(*rate));
        rounds.spread()
    }

    fn json(&self, rows: &[Self]) -> Value {
        let rate = self.rate();
        let rate =
            rate.map(|s| json!({ "median": rounded(s.median), "least": rounded(s.least), "most": rounded(s.most) }));
        let of = |rounds: &Rounds| median(rounds).map(rounded);
        json!({
            "way": self.way.name(), "appends_a_second": rate, "ack_p50_ms": of(&self.p50), "ack_p99_ms": of(&self.p99),
            "cpu_us_an_append": { "own": of(&self.own), "gateway": of(&self.gateway), "store": of(&self.store) },
            "times_unary": self.times(Way::Unary, rows).map(rounded),
            "times_turns": self.times(Way::Turns, rows).map(rounded),
            "times_session": self.times(Way::Session, rows).map(rounded),
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, rows: &[Self]) -> fmt::Result {
        write!(f, "{:<20}", self.way.name())?;
        let rate = self.rate();
        for part in [|s: Spread| s.median, |s: Spread| s.least, |s: Spread| s.most] {
            cell(f, 9, 0, rate.map(part))?;
        }
        for times in [&self.p50, &self.p99] {
            cell(f, 9, 2, median(times))?;
        }
        for cpu in [&self.own, &self.gateway, &self.store] {
            cell(f, 9, 1, median(cpu))?;
        }
        for other in [Way::Unary, Way::Turns, Way::Session] {
            cell(f, 9, 2, self.times(other, rows))?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20}{:^27}{:^18}{:^27}{:^27}", "", "appends a second", "ack, ms", "CPU of an append, us", "x")?;
        for (load, rows) in &self.loads {
            write!(f, "\n{:<20}", load.to_string())?;
            let [median, least, most, p50, p99] = ["median", "least", "most", "p50", "p99"];
            let [own, gateway, store] = ["own", "gateway", "store"];
            write!(f, "{median:>9}{least:>9}{most:>9}{p50:>9}{p99:>9}{own:>9}{gateway:>9}{store:>9}")?;
            writeln!(f, "{:>9}{:>9}{:>9}", "unary", "turns", "session")?;
            rows.iter().try_for_each(|row| row.write(f, rows))?;
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

fn median(rounds: &Rounds) -> Option<f64> {
    rounds.spread().map(|spread| spread.median)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}
