//! How many files the process may have open, and what of that is for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::{Count, ServeSettings};

/// How many descriptors are kept for what is no client's connection: the store, its files and sessions, listeners, the log,
/// and connections that are told that they are too many. No more than half of all, where that is less.
const RESERVE: u64 = 512;
/// The most connections that are allowed by default, however many files the process may open.
const MOST: u64 = 100_000;

/// What raising the limit has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptors {
    pub(crate) before: Option<u64>,
    /// In force now; `None` is no limit.
    pub(crate) now: Option<u64>,
}

impl Descriptors {
    /// Raises the soft limit of this process to the hard one, which needs no permission. The low soft limit that most
    /// systems start with is for programs that cannot count further (`select`).
    pub(crate) fn raise() -> Self {
        let Rlimit { current: before, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        Self { before, now: if raised.is_ok() { maximum } else { before } }
    }

    /// How many connections there is room for.
    pub(crate) fn connections(self) -> u32 {
        let room = self.now.map_or(MOST, |now| now - RESERVE.min(now / 2));
        u32::try_from(room.clamp(1, MOST)).expect("a hundred thousand is a small number")
    }

    /// Fills in what settings leave open.
    pub(crate) fn fill_in(self, settings: &mut ServeSettings) {
        settings.max_connections.get_or_insert_with(|| Count(self.connections()));
    }

    pub(crate) fn log(self, connections: usize) {
        let Self { before, now } = self;
        tracing::info!(descriptors = now, before, connections, "files that may be open");
        if now.is_some_and(|now| u64::try_from(connections).is_ok_and(|connections| connections >= now)) {
            tracing::warn!(connections, "max-connections is more than the process may open files");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_reserve_and_are_bounded() {
        let table = [
            (Some(20_000), 19_488),
            (Some(1024), 512),
            (Some(256), 128),
            (Some(1 << 20), 100_000),
            (Some(0), 1),
            (None, 100_000),
        ];
        for (now, connections) in table {
            assert_eq!(Descriptors { before: now, now }.connections(), connections, "{now:?}");
        }
    }

    #[test]
    fn raising_reaches_the_hard_limit_and_a_given_number_stands() {
        let raised = Descriptors::raise();
        assert_eq!(raised.now, getrlimit(Resource::Nofile).maximum);
        let mut settings = ServeSettings { max_connections: Some(Count(3)), ..ServeSettings::default() };
        raised.fill_in(&mut settings);
        assert_eq!(settings.max_connections, Some(Count(3)));
    }
}
