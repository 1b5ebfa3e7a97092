//! Plays many seeds, on as many threads as there are cores, and adds up what happened.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    oracle::{Breach, Rule},
    play::{Played, play},
    script::{FaultKind, Script},
};

/// The deeds that a hunt must have had: what clients ask for, wherever and however often.
const DEEDS: &[&str] = &[
    "claims",
    "claims at two pods at once",
    "claims repeated",
    "closes",
    "creates",
    "deletes",
    "epochs",
    "forks",
    "large posts",
    "marks of the next version",
    "native appends",
    "native trims",
    "pods of the next version",
    "pods with a wrong clock",
    "posts",
    "posts with a number",
    "reads at another pod",
    "rings filled to their limits",
    "scenes beside a plain writer",
    "scenes of pods that contend",
    "scenes of readers of a deleted stream",
    "streams looked at for remains",
    "stretches at a shard",
    "stretches by a task",
    "stretches of long-polls",
    "stretches resumed at another pod",
    "stretches with stalls",
];

/// How long a seed may take, of real time. Most take a tenth of a second; whoever needs this long spins without asking the
/// store for anything and without letting virtual time pass, so that nothing else would end it.
const SPINS_AFTER: Duration = Duration::from_secs(90);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What came of a hunt.
#[derive(Debug, Default)]
pub struct Hunt {
    /// How many seeds were played.
    pub seeds: u64,
    /// The first seed that failed.
    pub failed: Option<(u64, Played)>,
    /// How often each fault was met.
    pub faults: BTreeMap<FaultKind, u64>,
    /// How often each deed was done.
    pub deeds: BTreeMap<&'static str, u64>,
    /// Deliveries to readers.
    pub deliveries: u64,
    /// Batches that have landed.
    pub batches: u64,
    /// What came of it, by the logs.
    pub outcomes: BTreeMap<&'static str, u64>,
}

/// Plays the seeds of a range, and stops at a failing one: the least of those that were played.
#[must_use]
pub fn hunt(from: u64, seeds: u64) -> Hunt {
    hunt_by(from, seeds, SPINS_AFTER, |seed| play(&Script::of(seed)))
}

/// The same with whatever plays a seed. Who plays one that never ends cannot be ended: its thread is left behind.
fn hunt_by(from: u64, seeds: u64, within: Duration, play: impl Fn(u64) -> Played + Send + Sync + 'static) -> Hunt {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let (next, play) = (Arc::new(AtomicU64::new(from)), Arc::new(play));
    let (tell, told) = mpsc::channel();
    for _ in 0..jobs {
        let (next, play, tell) = (Arc::clone(&next), Arc::clone(&play), tell.clone());
        thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from + seeds || tell.send((seed, None)).is_err() {
                    return;
                }
                let played = play(seed);
                if !played.breaches.is_empty() {
                    next.store(from + seeds, Ordering::Relaxed);
                }
                if tell.send((seed, Some(played))).is_err() {
                    return;
                }
            }
        });
    }
    drop(tell);
    let (mut found, mut played_since) = (Hunt::default(), BTreeMap::new());
    loop {
        match told.recv_timeout(LOOK_EVERY) {
            Ok((seed, None)) => drop(played_since.insert(seed, Instant::now())),
            Ok((seed, Some(played))) => {
                played_since.remove(&seed);
                found.add(seed, played);
            }
            Err(RecvTimeoutError::Disconnected) => return found,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some((seed, _)) = played_since.iter().find(|(_, since)| since.elapsed() > within) {
            let what = format!("it goes round and round, and after {} s no end is in sight", within.as_secs());
            found.add(*seed, Played { breaches: vec![Breach { rule: Rule::Spins, what }], ..Played::default() });
            return found;
        }
    }
}

impl Hunt {
    fn add(&mut self, seed: u64, played: Played) {
        self.seeds += 1;
        self.deliveries += played.deliveries;
        self.batches += played.batches;
        for (kind, count) in &played.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for (deed, count) in &played.deeds {
            *self.deeds.entry(deed).or_default() += count;
        }
        for (outcome, count) in &played.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        let is_first = self.failed.as_ref().is_none_or(|(other, _)| seed < *other);
        if !played.breaches.is_empty() && is_first {
            self.failed = Some((seed, played));
        }
    }

    /// What a hunt is for and this one never met: faults, deeds, outcomes.
    #[must_use]
    pub fn never_met(&self) -> Vec<String> {
        let is_met = |count: Option<&u64>| count.is_some_and(|count| *count > 0);
        let faults = FaultKind::ALL.into_iter().filter(|kind| !is_met(self.faults.get(kind)));
        let deeds = DEEDS.iter().filter(|deed| !is_met(self.deeds.get(*deed)));
        let outcomes = self.outcomes.iter().filter(|(_, count)| **count == 0);
        let others = deeds.copied().chain(outcomes.map(|(outcome, _)| *outcome)).map(str::to_owned);
        faults.map(|kind| format!("{kind:?}")).chain(others).collect()
    }
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, batches, deliveries, .. } = self;
        writeln!(f, "{seeds} seeds: {batches} batches landed, {deliveries} deliveries")?;
        writeln!(f, "faults:")?;
        for kind in FaultKind::ALL {
            writeln!(f, "  {:<22}{:>8}", format!("{kind:?}"), self.faults.get(&kind).copied().unwrap_or(0))?;
        }
        writeln!(f, "deeds:")?;
        for (deed, count) in &self.deeds {
            writeln!(f, "  {deed:<40}{count:>8}")?;
        }
        writeln!(f, "outcomes:")?;
        for (outcome, count) in &self.outcomes {
            writeln!(f, "  {outcome:<40}{count:>8}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn failing() -> Played {
        let breaches = vec![Breach { rule: Rule::Once, what: String::new() }];
        Played { breaches, ..Played::default() }
    }

    #[test]
    fn a_hunt_ends_at_the_first_seed_that_fails() {
        let hunted = hunt_by(5, 100, SPINS_AFTER, |seed| if seed >= 9 { failing() } else { Played::default() });
        assert_eq!(hunted.failed.map(|(seed, _)| seed), Some(9));
        assert!(hunted.seeds >= 5);
    }

    #[test]
    fn a_seed_that_never_ends_is_found() {
        let (stays, park) = mpsc::channel::<()>();
        let park = Mutex::new(park);
        let hunted = hunt_by(7, 1, Duration::ZERO, move |_| {
            drop(park.lock().map(|park| park.recv()));
            Played::default()
        });
        drop(stays);
        let (seed, played) = hunted.failed.expect("one fails");
        assert_eq!((seed, played.breaches[0].rule), (7, Rule::Spins));
    }

    #[test]
    fn what_a_hunt_never_met_is_named() {
        let never = Hunt::default().never_met();
        assert!(never.len() >= FaultKind::ALL.len() + DEEDS.len());
        assert!(never.contains(&"KillBeforeCommit".to_owned()) && never.contains(&"forks".to_owned()));
    }
}
