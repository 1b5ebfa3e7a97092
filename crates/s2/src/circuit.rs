//! When to leave a store alone that does not answer. No clock and no dice of its own: time and chance are given.
//!
//! ```text
//!            too many in a row without an answer
//!   closed ───────────────────────────────────────► open ◄─────────────┐
//!     ▲                                             │  ▲               │ the probe fails: a longer pause
//!     │ an answer                  the pause is over│  │ two fail      │
//!     │                                             ▼  │               │
//!   trial ◄──────────────────────────────────── probing ───────────────┘
//!                     the probe is answered
//! ```
//!
//! While it is open nothing is asked. After a pause one request goes through, the probe, and no other until it is known
//! what became of that. The pauses double up to a second: a reader is to have its next event within two seconds of the
//! store's return, and one probe a second is nothing to a store, however many streams wait for it.
//!
//! Many requests share a connection, and when that breaks, all of them fail at once, which says nothing about the store.
//! So it takes a stretch of time, too, in which nothing was answered; and a request that was sent before the last answer
//! came proves nothing by its failure. Nor is a stream that cannot be read the store: where only one fails, it takes many
//! failures more, and any answer to another begins the row anew.

use std::time::Duration;

use tokio::time::Instant;

/// How many requests in a row have to stay without an answer, if they were not all about one stream.
const FAILURES: u32 = 5;
/// The same on trial.
const FAILURES_ON_TRIAL: u32 = 2;
/// The same if they were all about one stream.
const FAILURES_OF_ONE: u32 = 25;
/// For how long nothing must have been answered.
const SILENCE: Duration = Duration::from_millis(250);
/// The first pause, and the longest, before jitter, which takes up to a half off.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// When to look again for those who wait while a probe is under way.
const DURING_PROBE: Duration = Duration::from_millis(250);
/// After this time another probe may go: a request that takes longer is one that nobody attends to.
const PROBE_LIMIT: Duration = Duration::from_secs(15);
/// From here on pauses are as long as they get.
const TOP_LEVEL: u32 = 4;

/// Whether requests of one kind are sent.
#[derive(Debug)]
pub(crate) struct Circuit {
    state: State,
    /// How many pauses there have been since all was well.
    level: u32,
    /// When the last answer came.
    answered_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        /// The requests that have failed since the last answer.
        row: Option<Row>,
        /// Whether the last answer was the first one. The next one closes it for good.
        on_trial: bool,
    },
    Open {
        until: Instant,
    },
    Probing {
        since: Instant,
    },
}

/// Requests that have failed, one after the other.
#[derive(Debug, Clone, Copy)]
struct Row {
    failures: u32,
    /// When the first of them was sent.
    since: Instant,
    /// Which stream they were about, where it was one.
    only: Option<u64>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is sent.
    Go,
    /// It is sent, as the only one, and what becomes of it has to be told.
    Probe,
    /// It is not sent; another may be after this time.
    Wait(Duration),
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything is sent.
    Closed,
    /// Nothing is, but perhaps a probe.
    Open,
    /// Everything is sent, and the next request decides.
    Trial,
}

impl Circuit {
    pub(crate) fn new() -> Self {
        Self { state: State::Closed { row: None, on_trial: false }, level: 0, answered_at: None }
    }

    /// Judges a request that is to be sent now.
    pub(crate) fn ask(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Closed { .. } => Verdict::Go,
            State::Open { .. } | State::Probing { .. } => match self.due_in(now) {
                Duration::ZERO => {
                    self.state = State::Probing { since: now };
                    Verdict::Probe
                }
                wait => Verdict::Wait(wait),
            },
        }
    }

    /// After which time a request may be sent, or it can be known when.
    pub(crate) fn due_in(&self, now: Instant) -> Duration {
        match self.state {
            State::Closed { .. } => Duration::ZERO,
            State::Open { until } => until.saturating_duration_since(now),
            State::Probing { since } => DURING_PROBE.min((since + PROBE_LIMIT).saturating_duration_since(now)),
        }
    }

    /// A request, the probe or any other, was answered: with whatever, but by the store.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.answered_at = Some(now);
        let on_trial = !matches!(self.state, State::Closed { .. });
        if !on_trial {
            self.level = 0;
        }
        self.state = State::Closed { row: None, on_trial };
    }

    /// A request about a stream that was sent at `sent`, and was not the probe, was not answered. `chance` is between 0
    /// and 1.
    pub(crate) fn failed(&mut self, stream: u64, sent: Instant, now: Instant, chance: f64) {
        if self.answered_at.is_some_and(|answered| sent < answered) {
            return;
        }
        match self.state {
            State::Closed { row, on_trial } => {
                let row = row.unwrap_or(Row { failures: 0, since: sent, only: Some(stream) });
                let row = Row {
                    failures: row.failures.saturating_add(1),
                    since: row.since.min(sent),
                    only: row.only.filter(|only| *only == stream),
                };
                let enough = match (row.only, on_trial) {
                    (Some(_), _) => FAILURES_OF_ONE,
                    (None, true) => FAILURES_ON_TRIAL,
                    (None, false) => FAILURES,
                };
                let silent = now.saturating_duration_since(row.since);
                if row.failures >= enough && (silent >= SILENCE || on_trial) {
                    self.open(now, chance);
                } else {
                    self.state = State::Closed { row: Some(row), on_trial };
                }
            }
            // It was sent before, and is late to say what is known.
            State::Open { .. } | State::Probing { .. } => {}
        }
    }

    /// The probe was not answered.
    pub(crate) fn probe_failed(&mut self, now: Instant, chance: f64) {
        if matches!(self.state, State::Probing { .. }) {
            self.open(now, chance);
        }
    }

    /// Whoever sent the probe has given up before it could be known what became of it: another may take its place.
    pub(crate) fn probe_abandoned(&mut self, now: Instant) {
        if matches!(self.state, State::Probing { .. }) {
            self.state = State::Open { until: now };
        }
    }

    /// There is reason to believe that the store is back: it is time for a probe.
    pub(crate) fn hint(&mut self, now: Instant) {
        if let State::Open { until } = &mut self.state {
            *until = now.min(*until);
        }
    }

    /// When the last answer came.
    pub(crate) fn answered_at(&self) -> Option<Instant> {
        self.answered_at
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Closed { on_trial: false, .. } => Phase::Closed,
            State::Closed { on_trial: true, .. } => Phase::Trial,
            State::Open { .. } | State::Probing { .. } => Phase::Open,
        }
    }

    fn open(&mut self, now: Instant, chance: f64) {
        self.state = State::Open { until: now + pause(self.level, chance) };
        self.level = self.level.saturating_add(1).min(TOP_LEVEL);
    }
}

/// The pause before one more try, when so many have failed already. `chance` is between 0 and 1.
pub(crate) fn pause(failed: u32, chance: f64) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << failed.min(TOP_LEVEL)).min(LONGEST_PAUSE);
    whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A circuit that has just opened, and when.
    fn opened() -> (Circuit, Instant) {
        let (mut circuit, sent) = (Circuit::new(), Instant::now());
        let now = sent + SILENCE;
        for stream in 0..FAILURES {
            assert_eq!(circuit.phase(), Phase::Closed);
            circuit.failed(stream.into(), sent, now, 1.0);
        }
        assert_eq!(circuit.phase(), Phase::Open);
        (circuit, now)
    }

    #[test]
    fn a_connection_that_breaks_under_many_requests_is_no_store_that_is_away() {
        let (mut circuit, sent) = (Circuit::new(), Instant::now());
        for stream in 0..1000 {
            circuit.failed(stream, sent, sent + MS * 20, 1.0);
        }
        assert_eq!(circuit.phase(), Phase::Closed);
        circuit.failed(0, sent + MS * 21, sent + SILENCE, 1.0);
        assert_eq!(circuit.phase(), Phase::Open, "but if nothing is answered for a while, it is");
    }

    #[test]
    fn failures_between_answers_are_no_row_and_old_requests_prove_nothing() {
        let (mut circuit, began) = (Circuit::new(), Instant::now());
        for n in 0..100 {
            let now = began + SILENCE * n;
            for stream in 1..FAILURES {
                circuit.failed(stream.into(), now, now + SILENCE, 1.0);
            }
            circuit.answered(now + SILENCE);
        }
        let now = began + SILENCE * 200;
        circuit.answered(now);
        for stream in 0..100 {
            circuit.failed(stream, now - MS, now + SILENCE * 20, 1.0);
        }
        assert_eq!(circuit.phase(), Phase::Closed);
    }

    #[test]
    fn a_stream_that_cannot_be_read_is_no_store_that_is_away() {
        let (mut circuit, mut now) = (Circuit::new(), Instant::now());
        for _ in 0..1000 {
            for _ in 1..FAILURES_OF_ONE {
                circuit.failed(7, now, now + SILENCE, 1.0);
            }
            now += SILENCE;
            circuit.answered(now);
        }
        assert_eq!(circuit.phase(), Phase::Closed, "others are answered");
        for _ in 0..FAILURES_OF_ONE {
            assert_eq!(circuit.phase(), Phase::Closed);
            circuit.failed(7, now, now + SILENCE, 1.0);
        }
        assert_eq!(circuit.phase(), Phase::Open, "nobody else is");

        let now = now + LONGEST_PAUSE;
        assert_eq!(circuit.ask(now), Verdict::Probe);
        circuit.answered(now);
        for _ in 0..10 {
            circuit.failed(7, now, now + SILENCE, 1.0);
        }
        assert_eq!(circuit.ask(now), Verdict::Go, "on trial neither");
    }

    #[test]
    fn one_probe_goes_at_a_time_and_the_pauses_between_them_grow_to_a_second() {
        let (mut circuit, mut now) = opened();
        for pause in [100, 200, 400, 800, 1000, 1000] {
            let pause = MS * pause;
            assert_eq!(circuit.ask(now), Verdict::Wait(pause));
            assert_eq!(circuit.ask(now + pause - MS), Verdict::Wait(MS));
            now += pause;
            assert_eq!(circuit.ask(now), Verdict::Probe);
            assert_eq!(circuit.ask(now + LONGEST_PAUSE * 10), Verdict::Wait(DURING_PROBE));
            now += MS;
            circuit.probe_failed(now, 1.0);
        }
    }

    #[test]
    fn an_answered_probe_lets_everything_through_and_the_next_requests_decide() {
        let (mut circuit, now) = opened();
        let now = now + LONGEST_PAUSE;
        assert_eq!(circuit.ask(now), Verdict::Probe);
        circuit.answered(now);
        assert_eq!((circuit.phase(), circuit.ask(now), circuit.ask(now)), (Phase::Trial, Verdict::Go, Verdict::Go));
        circuit.failed(1, now, now + MS, 1.0);
        assert_eq!(circuit.phase(), Phase::Trial);
        circuit.failed(2, now, now + MS, 1.0);
        assert_eq!(circuit.ask(now + MS), Verdict::Wait(MS * 200), "the pauses go on where they were");
        let now = now + LONGEST_PAUSE;
        assert_eq!(circuit.ask(now), Verdict::Probe);
        circuit.answered(now);
        circuit.answered(now + MS);
        for stream in 1..FAILURES {
            circuit.failed(stream.into(), now + MS, now + SILENCE + MS, 1.0);
        }
        assert_eq!(circuit.phase(), Phase::Closed, "a few failures are none again");
    }

    #[test]
    fn an_abandoned_probe_is_nobodys_fault_and_leaves_its_place_to_the_next() {
        let (mut circuit, now) = opened();
        let now = now + LONGEST_PAUSE;
        assert_eq!(circuit.ask(now), Verdict::Probe);
        circuit.probe_abandoned(now);
        assert_eq!(circuit.ask(now), Verdict::Probe);
    }

    #[test]
    fn a_probe_that_nobody_attends_to_does_not_keep_others_away_for_ever() {
        let (mut circuit, now) = opened();
        let now = now + LONGEST_PAUSE;
        assert_eq!(circuit.ask(now), Verdict::Probe);
        assert_eq!(circuit.ask(now + PROBE_LIMIT - MS), Verdict::Wait(MS));
        assert_eq!(circuit.ask(now + PROBE_LIMIT), Verdict::Probe);
        assert_eq!(circuit.ask(now + PROBE_LIMIT), Verdict::Wait(DURING_PROBE));
    }

    #[test]
    fn a_hint_ends_a_pause_and_nothing_else() {
        let (mut circuit, now) = opened();
        circuit.hint(now);
        assert_eq!(circuit.ask(now), Verdict::Probe);
        circuit.hint(now);
        assert_eq!(circuit.ask(now), Verdict::Wait(DURING_PROBE));
        circuit.answered(now);
        circuit.hint(now);
        assert_eq!(circuit.phase(), Phase::Trial);
    }

    #[test]
    fn jitter_takes_up_to_a_half_off_a_pause() {
        assert_eq!([0.0, 0.5, 1.0].map(|chance| pause(0, chance)), [MS * 50, MS * 75, MS * 100]);
        assert_eq!(pause(u32::MAX, 0.0), LONGEST_PAUSE / 2);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Ask,
        Answered,
        Failed { stream: u64, ago_ms: u64 },
        ProbeFailed,
        Abandoned,
        Pass { ms: u64 },
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            6 => Just(Act::Ask),
            1 => Just(Act::Answered),
            6 => (0..4u64, 0..6_000u64).prop_map(|(stream, ago_ms)| Act::Failed { stream, ago_ms }),
            3 => Just(Act::ProbeFailed),
            1 => Just(Act::Abandoned),
            4 => (0..700u64).prop_map(|ms| Act::Pass { ms }),
        ];
        prop::collection::vec(act, 0..200)
    }

    proptest! {
        #[test]
        fn a_store_is_never_hammered_and_never_forgotten(
            acts in acts(),
            chances in prop::collection::vec(0.0..1.0f64, 200),
        ) {
            let began = Instant::now();
            let mut now = began + Duration::from_secs(60);
            let mut circuit = Circuit::new();
            // Whether a probe is under way, and when the last one failed.
            let (mut probing, mut failed_at) = (None::<Instant>, None::<Instant>);
            for (act, chance) in acts.into_iter().zip(chances) {
                let before = circuit.phase();
                match act {
                    Act::Ask => match circuit.ask(now) {
                        Verdict::Go => prop_assert_ne!(before, Phase::Open),
                        Verdict::Probe => {
                            prop_assert!(probing.is_none_or(|sent| now - sent >= PROBE_LIMIT), "two probes at a time");
                            let rested = failed_at.is_none_or(|failed| now - failed >= FIRST_PAUSE / 2);
                            prop_assert!(rested, "a probe right behind one that failed");
                            probing = Some(now);
                        }
                        Verdict::Wait(wait) => {
                            prop_assert_eq!(before, Phase::Open);
                            prop_assert!(wait > Duration::ZERO && wait <= LONGEST_PAUSE);
                        }
                    },
                    Act::Answered => {
                        circuit.answered(now);
                        prop_assert_ne!(circuit.phase(), Phase::Open);
                        (probing, failed_at) = (None, None);
                    }
                    Act::Failed { stream, ago_ms } => {
                        circuit.failed(stream, now - Duration::from_millis(ago_ms), now, chance);
                        if circuit.phase() == Phase::Open && before != Phase::Open {
                            failed_at = Some(now);
                        }
                    }
                    Act::ProbeFailed if probing.is_some() => {
                        circuit.probe_failed(now, chance);
                        prop_assert_eq!(circuit.phase(), Phase::Open);
                        (probing, failed_at) = (None, Some(now));
                    }
                    Act::Abandoned if probing.is_some() => {
                        circuit.probe_abandoned(now);
                        (probing, failed_at) = (None, None);
                    }
                    Act::ProbeFailed | Act::Abandoned => {}
                    Act::Pass { ms } => now += Duration::from_millis(ms),
                }
            }
            // Whatever has happened, somebody may ask in the end: within the longest pause, unless somebody is asking.
            if circuit.phase() == Phase::Open {
                let patience = if probing.is_some() { PROBE_LIMIT } else { LONGEST_PAUSE };
                prop_assert_eq!(circuit.ask(now + patience), Verdict::Probe);
            }
        }
    }
}
