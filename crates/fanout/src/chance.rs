//! Random numbers: what names lives, writers, bodies and turns, and the jitter of pauses.
//!
//! Nothing here is a secret; the numbers must only differ from pod to pod. A simulation gives each pod a seed instead, so
//! that the same seed is the same run.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Where a gateway's random numbers come from; the thread's generator by default. Clones of a seeded one share it.
#[derive(Clone, Default)]
pub struct Chance(Option<Arc<Mutex<StdRng>>>);

impl Chance {
    /// The same numbers in the same order for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// The next number.
    pub(crate) fn number(&self) -> u64 {
        match &self.0 {
            None => rand::random(),
            Some(seeded) => seeded.lock().unwrap_or_else(PoisonError::into_inner).random(),
        }
    }

    /// Between half of a pause and one and a half of it, so that pods do not move in step.
    pub(crate) fn jittered(&self, pause: Duration) -> Duration {
        let share = self.number() as f64 / u64::MAX as f64;
        pause.mul_f64(0.5 + share)
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Chance(seeded)" } else { "Chance" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_numbers_and_its_clones_go_on_with_them() {
        let (one, two) = (Chance::seeded(7), Chance::seeded(7));
        let again = two.clone();
        assert_eq!([one.number(), one.number()], [two.number(), again.number()]);
        assert_ne!(one.number(), Chance::seeded(8).number());
        assert_ne!(Chance::default().number(), Chance::default().number());
    }

    #[test]
    fn jitter_stays_within_half_of_a_pause() {
        let (chance, pause) = (Chance::seeded(1), Duration::from_millis(100));
        for _ in 0..1_000 {
            let jittered = chance.jittered(pause);
            assert!(jittered >= pause / 2 && jittered <= pause * 3 / 2);
        }
    }
}
