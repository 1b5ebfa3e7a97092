//! The corpus that is committed, through every target, and what a simple mutator makes of it. What libFuzzer does for
//! hours, and with an eye on what is reached, is `fuzz/run`.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use tailwater_fuzz::{TARGETS, target};

/// The most bytes of the whole corpus: a clone is to stay small.
const MAX_CORPUS: usize = 1024 * 1024;
/// How many inputs of each target are made up.
const MUTANTS: u32 = 2000;
/// The longest that is made up, in bytes.
const MAX_MUTANT: usize = 4096;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs of a target, in the order of their names.
fn inputs(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(corpus().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folders: BTreeSet<_> =
        fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, names);
    assert_eq!(names.len(), TARGETS.len(), "a name is given once");
    for (name, _) in TARGETS {
        assert!(!inputs(name).is_empty(), "{name}");
        assert!(target(name).is_some(), "{name}");
    }
    assert!(target("nothing").is_none());
}

#[test]
fn the_corpus_is_small() {
    let bytes: usize = TARGETS.iter().flat_map(|(name, _)| inputs(name)).map(|input| input.len()).sum();
    assert!(bytes <= MAX_CORPUS, "{bytes} bytes");
}

#[test]
fn the_corpus_breaks_nothing() {
    for (name, run) in TARGETS {
        for (number, input) in inputs(name).iter().enumerate() {
            holds(name, run, input, &format!("input {number}"));
        }
    }
}

#[test]
fn what_a_simple_mutator_makes_of_the_corpus_breaks_nothing() {
    for (name, run) in TARGETS {
        let inputs = inputs(name);
        // The same each time: what fails here fails again.
        let mut dice = Dice(0x2545_f491_4f6c_dd1d);
        for number in 0..MUTANTS {
            let mutant = dice.mutant(&inputs);
            holds(name, run, &mutant, &format!("mutant {number}"));
        }
    }
}

/// Says which input it was, where one breaks a target.
fn holds(name: &str, run: fn(&[u8]), input: &[u8], which: &str) {
    let outcome = std::panic::catch_unwind(|| run(input));
    assert!(outcome.is_ok(), "{name}, {which}: {:?}", String::from_utf8_lossy(input));
}

/// Numbers that look like chance (xorshift, 64 bits).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let share = self.0 >> 16;
        usize::try_from(share % bound.max(1) as u64).unwrap()
    }

    /// One of the inputs, changed in one to four places.
    fn mutant(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = at + self.below((bytes.len() - at).min(32) + 1);
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.insert(at, u8::try_from(self.below(256)).unwrap()),
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                4 => {
                    let other = &inputs[self.below(inputs.len())];
                    let from = self.below(other.len());
                    let part = other[from..(from + 32).min(other.len())].to_vec();
                    bytes.splice(at..end, part);
                }
                _ => bytes.truncate(at),
            }
        }
        bytes.truncate(MAX_MUTANT);
        bytes
    }
}
