//! One budget of memory, and what it is for.
//!
//! | share | what it holds |
//! |---|---|
//! | a half | rings: the recent batches of all streams |
//! | a quarter | history: chunks of older ranges |
//! | an eighth | windows: what readers that are behind have in hand |
//! | an eighth | bodies of requests that are being received or appended |
//!
//! What is not in it: what a connection or a stream costs beside its data, which is bounded by their numbers, and the
//! store inside the process, which has bounds of its own.

/// How much memory data may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    total: usize,
}

impl Budget {
    /// A budget of so many bytes in all.
    #[must_use]
    pub const fn of(total: usize) -> Self {
        Self { total }
    }

    /// All of it, in bytes.
    #[must_use]
    pub const fn total(self) -> usize {
        self.total
    }

    /// What the recent batches of all streams may take, in bytes.
    #[must_use]
    pub const fn rings(self) -> usize {
        self.total / 2
    }

    /// What history that is kept may take, in bytes.
    #[must_use]
    pub const fn history(self) -> usize {
        self.total / 4
    }

    /// What readers that are behind may have in hand, in bytes.
    #[must_use]
    pub const fn windows(self) -> usize {
        self.total / 8
    }

    /// What the bodies of requests may take, in bytes.
    #[must_use]
    pub const fn bodies(self) -> usize {
        self.total / 8
    }

    /// The smallest budget whose share for bodies holds a body of so many bytes.
    #[must_use]
    pub const fn for_body(bytes: usize) -> Self {
        Self { total: bytes.saturating_mul(8) }
    }
}

impl Default for Budget {
    /// 512 MiB.
    fn default() -> Self {
        Self::of(512 * 1024 * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_all_there_is_and_no_more() {
        for total in [0, 7, 8, 1 << 20, (1 << 30) + 5, usize::MAX] {
            let budget = Budget::of(total);
            let shares = [budget.rings(), budget.history(), budget.windows(), budget.bodies()];
            let sum: usize = shares.iter().sum();
            assert!(sum <= total && total - sum < 32, "{total}: {shares:?}");
        }
        assert_eq!(Budget::for_body(8 << 20).bodies(), 8 << 20);
    }
}
