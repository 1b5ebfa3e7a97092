//! What one figure was in each of several rounds: the median, and how far the rounds lie apart.

/// The same figure, measured once a round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rounds(Vec<f64>);

/// What is told of [`Rounds`], in their unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number of rounds, what lies between the middle two.
    pub median: f64,
    /// The least of all rounds.
    pub least: f64,
    /// The most of all rounds.
    pub most: f64,
}

impl Rounds {
    /// Takes the figure of a further round.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// What is told of the rounds; `None` where there are none.
    #[must_use]
    pub fn spread(&self) -> Option<Spread> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Spread { median, least, most })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(figures: &[f64]) -> Option<Spread> {
        Rounds(figures.to_vec()).spread()
    }

    #[test]
    fn the_median_of_an_odd_number_is_a_round_and_of_an_even_one_lies_between_two() {
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 9.0 }));
        assert_eq!(spread(&[4.0, 1.0, 9.0, 2.0]), Some(Spread { median: 3.0, least: 1.0, most: 9.0 }));
        assert_eq!(spread(&[7.0]), Some(Spread { median: 7.0, least: 7.0, most: 7.0 }));
        assert_eq!(spread(&[]), None);
    }

    proptest! {
        #[test]
        fn no_more_than_half_of_the_rounds_are_on_either_side(figures in prop::collection::vec(-1e6_f64..1e6, 1..20)) {
            let Spread { median, least, most } = spread(&figures).unwrap();
            prop_assert!(least <= median && median <= most);
            prop_assert!(figures.iter().filter(|figure| **figure < median).count() * 2 <= figures.len());
            prop_assert!(figures.iter().filter(|figure| **figure > median).count() * 2 <= figures.len());
        }
    }
}
