//! Fairness between projects on one pod: when what they share is nearly used up, whoever has more than a fair share is
//! refused first.
//!
//! While there is plenty, everybody may have as much as they like: a share that nobody else wants is not kept free for
//! its own sake. From [`NEARLY`] on, what is left is for those that have less than their share, one more counted as long as
//! there are projects that have nothing: so whoever comes next finds room. Nothing is taken from anybody; live responses
//! end by themselves, and when one of a project with too much comes again, its place is another's.

/// How full what is shared is when shares begin to count, in percent.
pub const NEARLY: u64 = 80;

/// Somebody wants more of what is shared: connections, requests under way, active streams, memory for bodies. What they want
/// is counted in none of these yet, nor is what they have of it for the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// How much there is, for all projects.
    pub capacity: u64,
    /// How much of it is used.
    pub used: u64,
    /// How much of that the project uses that wants more.
    pub own: u64,
    /// How many projects use some of it, this one included.
    pub users: u64,
    /// Whether there are projects that use none of it. Where there is one project alone, there are none.
    pub others_may_come: bool,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// That of who asks.
    Own,
    /// That of projects with less: `503`, with [`REDUCED_CAPACITY`](crate::quota::REDUCED_CAPACITY), for this is no quota.
    Others,
    /// Nobody's: there is nothing left.
    Nobody,
}

/// Whose turn it is when this is claimed.
#[must_use]
pub fn turn(claim: Claim) -> Turn {
    let Claim { capacity, used, own, users, others_may_come } = claim;
    if used >= capacity {
        return Turn::Nobody;
    }
    let nearly = u128::from(used) * 100 >= u128::from(capacity) * u128::from(NEARLY);
    let share = capacity / users.saturating_add(u64::from(others_may_come)).max(1);
    // Who has nothing has less than any share, even if there are more projects than places.
    if !nearly || own == 0 || own < share { Turn::Own } else { Turn::Others }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pod that everybody keeps asking for more, in this order; what each project has in the end.
    fn crowd(capacity: u64, projects: usize, asked: &[usize]) -> Vec<u64> {
        let mut held = vec![0_u64; projects];
        for asker in asked {
            let users = held.iter().enumerate().filter(|(who, own)| **own > 0 || who == asker).count();
            let claim = Claim {
                capacity,
                used: held.iter().sum(),
                own: held[*asker],
                users: users as u64,
                others_may_come: users < projects,
            };
            if turn(claim) == Turn::Own {
                held[*asker] += 1;
            }
        }
        held
    }

    #[test]
    fn it_is_decided_so() {
        let claim = |used, own, users, others_may_come| Claim { capacity: 100, used, own, users, others_may_come };
        let table = [
            (claim(0, 0, 1, false), Turn::Own),
            (claim(79, 79, 1, true), Turn::Own),
            (claim(80, 80, 1, true), Turn::Others),
            (claim(99, 99, 1, false), Turn::Own),
            (claim(100, 100, 1, false), Turn::Nobody),
            (claim(100, 0, 2, false), Turn::Nobody),
            (claim(80, 79, 2, false), Turn::Others),
            (claim(80, 1, 2, false), Turn::Own),
            (claim(90, 49, 2, false), Turn::Own),
            (claim(90, 50, 2, false), Turn::Others),
            (claim(99, 0, 1000, true), Turn::Own),
            (claim(99, 1, 1000, true), Turn::Others),
        ];
        for (claim, expected) in table {
            assert_eq!(turn(claim), expected, "{claim:?}");
        }
        let huge = Claim { capacity: u64::MAX, used: u64::MAX - 1, own: 0, users: u64::MAX, others_may_come: true };
        assert_eq!(turn(huge), Turn::Own);
        assert_eq!(turn(Claim { capacity: 0, ..huge }), Turn::Nobody);
    }

    #[test]
    fn one_project_alone_may_have_everything() {
        assert_eq!(crowd(50, 1, &[0; 80]), [50]);
    }

    #[test]
    fn whoever_comes_after_a_greedy_one_finds_room() {
        let asked: Vec<usize> = [0; 200].into_iter().chain([1; 200]).collect();
        assert_eq!(crowd(100, 2, &asked), [80, 20]);
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_and_who_has_less_than_a_share_is_not_refused(
            capacity in 1..60_u64, projects in 1..6_usize, asked in prop::collection::vec(0..6_usize, 0..150)
        ) {
            let asked: Vec<_> = asked.into_iter().map(|who| who % projects).collect();
            let held = crowd(capacity, projects, &asked);
            let used: u64 = held.iter().sum();
            prop_assert!(used <= capacity);
            for (who, own) in held.iter().enumerate() {
                let wanted = asked.iter().filter(|asker| **asker == who).count() as u64;
                let share = capacity / projects as u64;
                prop_assert!(*own >= wanted.min(share) || used == capacity, "{} of {:?}", who, held);
            }
        }

        #[test]
        fn a_greedy_project_has_at_most_what_is_plenty_or_its_share(capacity in 10..80_u64, others in prop::collection::vec(0..4_usize, 0..40)) {
            let asked: Vec<_> = others.iter().flat_map(|who| [0, 0, 0, who + 1]).chain([0; 100]).collect();
            let held = crowd(capacity, 5, &asked);
            let plenty = (capacity * NEARLY).div_ceil(100);
            prop_assert!(held[0] <= plenty, "{:?}", held);
        }
    }
}
