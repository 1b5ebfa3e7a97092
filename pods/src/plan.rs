//! Which fault meets which process, and when: drawn from a seed, with as many of each kind as were ordered.
//!
//! Each process has a lane of its own, so that a process has one fault at a time and the faults of several overlap as
//! they come. The store's lane is stretched to the length of the others.

use std::time::Duration;

use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// How many faults there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dose {
    /// Gateways that share them.
    pub gateways: usize,
    /// SIGKILLs of gateways.
    pub gateway_kills: usize,
    /// SIGKILLs of the store.
    pub store_kills: usize,
    /// SIGSTOPs, of which the store gets a quarter.
    pub pauses: usize,
    /// The shortest time until the SIGCONT. The longest is half as much again.
    pub least_pause: Duration,
    /// SIGTERMs of gateways.
    pub drains: usize,
    /// SIGTERMs of the store.
    pub store_restarts: usize,
    /// How long a gateway is left alone between two faults, give or take a half.
    pub calm: Duration,
}

/// What happens to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after this time.
    Pause(Duration),
    /// SIGTERM, and the wait for its end.
    Stop,
}

/// A fault, and the time around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How long the process is left alone before.
    pub calm: Duration,
    /// What happens to it.
    pub fault: Fault,
    /// How long it stays away before it is started again, where it has ended.
    pub away: Duration,
}

/// A lane for each process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The gateways'.
    pub gateways: Vec<Vec<Step>>,
    /// The store's.
    pub store: Vec<Step>,
}

/// For how long a process that was killed or has ended stays away.
const AWAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_500));

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64, dose: &Dose) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let store_pauses = dose.pauses / 4;
        let mut pauses = |count: usize| -> Vec<Fault> {
            let longest = dose.least_pause + dose.least_pause / 2;
            (0..count).map(|_| Fault::Pause(between(&mut rng, dose.least_pause, longest))).collect()
        };
        let (of_gateways, of_store) = (pauses(dose.pauses - store_pauses), pauses(store_pauses));
        let ends = |kills: usize, stops: usize| [vec![Fault::Kill; kills], vec![Fault::Stop; stops]].concat();

        let mut faults = [ends(dose.gateway_kills, dose.drains), of_gateways].concat();
        faults.shuffle(&mut rng);
        let mut gateways = vec![Vec::new(); dose.gateways];
        for (n, fault) in faults.iter().enumerate() {
            gateways[n % dose.gateways].push(step(&mut rng, *fault, dose.calm));
        }
        let mut faults = [ends(dose.store_kills, dose.store_restarts), of_store].concat();
        faults.shuffle(&mut rng);
        let longest = gateways.iter().map(Vec::len).max().unwrap_or_default();
        let calm = dose.calm.mul_f64(longest.max(1) as f64 / faults.len().max(1) as f64);
        let store = faults.into_iter().map(|fault| step(&mut rng, fault, calm)).collect();
        Self { gateways, store }
    }

    /// How often something is to happen, to gateways and to the store.
    #[must_use]
    pub fn count(&self, which: impl Fn(&Fault) -> bool) -> (usize, usize) {
        let of = |steps: &[Step]| steps.iter().filter(|step| which(&step.fault)).count();
        (self.gateways.iter().map(|steps| of(steps)).sum(), of(&self.store))
    }
}

/// A moment between two.
pub fn between(rng: &mut impl Rng, least: Duration, most: Duration) -> Duration {
    least + most.saturating_sub(least).mul_f64(rng.random_range(0.0..1.0))
}

fn step(rng: &mut StdRng, fault: Fault, calm: Duration) -> Step {
    Step { calm: between(rng, calm / 2, calm + calm / 2), fault, away: between(rng, AWAY.0, AWAY.1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn doses() -> impl Strategy<Value = Dose> {
        (1..5_usize, 0..50_usize, 0..30_usize, 0..50_usize, 0..30_usize, 0..5_usize).prop_map(
            |(gateways, gateway_kills, store_kills, pauses, drains, store_restarts)| Dose {
                gateways,
                gateway_kills,
                store_kills,
                pauses,
                least_pause: Duration::from_secs(5),
                drains,
                store_restarts,
                calm: Duration::from_secs(4),
            },
        )
    }

    proptest! {
        #[test]
        fn every_fault_that_was_ordered_is_there_and_no_other(seed: u64, dose in doses()) {
            let plan = Plan::draw(seed, &dose);
            prop_assert_eq!(plan.count(|fault| *fault == Fault::Kill), (dose.gateway_kills, dose.store_kills));
            prop_assert_eq!(plan.count(|fault| *fault == Fault::Stop), (dose.drains, dose.store_restarts));
            let pauses = plan.count(|fault| matches!(fault, Fault::Pause(_)));
            prop_assert_eq!(pauses.0 + pauses.1, dose.pauses);
            let long = plan.count(|fault| matches!(fault, Fault::Pause(pause) if *pause >= dose.least_pause));
            prop_assert_eq!(long, pauses);
        }

        #[test]
        fn gateways_share_what_there_is_for_them(seed: u64, dose in doses()) {
            let plan = Plan::draw(seed, &dose);
            let lengths = || plan.gateways.iter().map(Vec::len);
            prop_assert!(lengths().max().unwrap_or(0) - lengths().min().unwrap_or(0) <= 1);
        }

        #[test]
        fn the_same_seed_is_the_same_plan(seed: u64, dose in doses()) {
            prop_assert_eq!(Plan::draw(seed, &dose), Plan::draw(seed, &dose));
        }
    }
}
