//! What the store was asked.

use tailwater_upstream::{Append, StreamKey};

/// How often the store was asked what, through the `Upstream` trait; back doors do not count. An operation counts when
/// it arrives, whatever becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Appends.
    pub appends: u64,
    /// Records in these appends.
    pub append_records: u64,
    /// Unary reads.
    pub reads: u64,
    /// Tail checks.
    pub tail_checks: u64,
    /// Listings.
    pub lists: u64,
    /// Read sessions that were opened, those that were refused not among them.
    pub sessions_opened: u64,
    /// Read sessions that are held now, those that have ended but were not dropped among them.
    pub sessions_open: u64,
    /// Polls of all read sessions.
    pub session_polls: u64,
}

/// An append as it was asked for, with its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedAppend {
    /// The stream.
    pub key: StreamKey,
    /// The batch and its conditions.
    pub append: Append,
}
