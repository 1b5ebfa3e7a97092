//! The simulation itself: that it is what its seed says, that it meets every fault, and that it finds nothing.

use tailwater_sim::{
    hunt::hunt,
    play::play,
    script::{FaultKind, Script},
    shrink::shrink_by,
};

/// How many seeds the tests play; the stage `sim` of `./test` plays more.
const SEEDS: u64 = 54;

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    for seed in 0..SEEDS {
        let script = Script::of(seed);
        let (one, two) = (play(&script), play(&script));
        assert!(one.trace.lines().count() > 10, "seed {seed} is a run");
        assert!(one.trace == two.trace, "seed {seed}: two runs differ");
    }
}

#[test]
fn no_seed_breaks_a_rule() {
    let hunted = hunt(0, SEEDS);
    if let Some((seed, played)) = hunted.failed {
        panic!("seed {seed}: {}", played.breaches[0]);
    }
    assert_eq!(hunted.seeds, SEEDS);
    assert!(hunted.deliveries > SEEDS && hunted.batches > 10 * SEEDS);
}

#[test]
fn a_script_is_shrunk_by_playing_it_to_the_few_lines_that_it_takes() {
    let meets = |script: &Script| play(script).faults.contains_key(&FaultKind::AckLost);
    let long = (0..).map(Script::of).find(|script| script.len() > 30 && meets(script)).expect("some seed meets it");
    let (short, _) = shrink_by(&long, meets);
    assert!(meets(&short));
    assert!(short.len() * 5 < long.len(), "of {} lines are left: {short}", long.len());
    for n in 0..short.len() {
        assert!(!meets(&short.only(|other| other != n)), "line {n} could go: {short}");
    }
}
