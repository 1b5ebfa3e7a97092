//! Makes a failing script smaller: leaves out deeds and faults for as long as the same rule is broken without them.

use crate::{oracle::Rule, play::play, script::Script};

/// The most scripts that are tried.
const MOST_TRIES: usize = 600;

/// The shortest script found that still breaks the rule, and how many were tried.
#[must_use]
pub fn shrink(script: &Script, rule: Rule) -> (Script, usize) {
    let breaks = |script: &Script| play(script).breaches.iter().any(|breach| breach.rule == rule);
    shrink_by(script, breaks)
}

/// The same for whatever makes a script worth keeping.
pub fn shrink_by(script: &Script, breaks: impl Fn(&Script) -> bool) -> (Script, usize) {
    let (mut smallest, mut tries) = (script.clone(), 0);
    let mut chunk = smallest.len().div_ceil(2).max(1);
    loop {
        let (mut at, mut has_shrunk) = (0, false);
        while at < smallest.len() && tries < MOST_TRIES {
            let without = smallest.only(|n| n < at || n >= at + chunk);
            tries += 1;
            if breaks(&without) {
                smallest = without;
                has_shrunk = true;
            } else {
                at += chunk;
            }
        }
        if tries >= MOST_TRIES || chunk == 1 && !has_shrunk {
            return (smallest, tries);
        }
        if !has_shrunk {
            chunk = chunk.div_ceil(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_takes_to_fail_is_left_and_nothing_else() {
        let script = Script::of(0);
        assert!(script.len() > 10, "{}", script.len());
        let wanted: Vec<_> = script.actors.iter().flat_map(|actor| actor.steps.last().cloned()).take(2).collect();
        let holds = |script: &Script| {
            let steps: Vec<_> = script.actors.iter().flat_map(|actor| &actor.steps).collect();
            wanted.iter().all(|step| steps.contains(&step))
        };
        let (smallest, _) = shrink_by(&script, holds);
        assert!(holds(&smallest));
        assert_eq!(smallest.len(), 2, "{smallest}");
    }
}
