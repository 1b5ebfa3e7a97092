//! What an operator can turn, and what is a constant with a name and a unit.

use std::time::Duration;

use tailwater_log::Visibility;
use tailwater_protocol::ContentType;

use crate::{budget::Budget, chance::Chance, clock::MachineClock};

/// The settings of the fan-out.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long the read session of a stream stays open after its last live reader has left. Longer spares a session
    /// where readers come and go; shorter spares what an open session costs.
    pub linger: Duration,
    /// How long a stream without readers and requests keeps its actor. Longer spares activations. A name of which the store
    /// holds nothing keeps one for a second at most.
    pub idle: Duration,
    /// About how many bytes of messages an answer holds: it ends with the message that passes them.
    pub page_bytes: usize,
    /// The most bytes of recent batches that a stream keeps, each counted twice: as it is, and as readers are sent it.
    pub ring_bytes: usize,
    /// The most bytes of recent batches that all streams keep together, counted in the same way. It has no exception: beside
    /// it there is at most one batch for each that is just coming in.
    pub ring_total_bytes: usize,
    /// The most bytes of history that are kept for whoever reads it next.
    pub history_bytes: usize,
    /// About how many bytes of history a live reader that is behind takes at a time.
    pub window_bytes: usize,
    /// The most bytes of history that all such readers have taken and not got rid of; beyond it they wait.
    pub window_budget_bytes: usize,
    /// The most streams that are active at once; beyond it requests are refused.
    pub max_streams: usize,
    /// The most live readers of one stream, long-polls included; beyond it new ones are refused.
    pub max_readers_per_stream: usize,
    /// The most appends and other writes that wait for one stream.
    pub max_waiting: usize,
    /// The most requests of whatever kind that wait for one stream's present.
    pub max_waiting_requests: usize,
    /// For how long the fate of an append is looked into before its client is told that it is unknown.
    pub settle: Duration,
    /// How native streams are served.
    pub native_content_type: ContentType,
    /// Who may see streams of which nobody has said that: native ones, and those from before tokens were asked for.
    pub undeclared_visibility: Visibility,
    /// Where random numbers come from.
    pub chance: Chance,
    /// What this machine takes the time for, until the store has told its own.
    pub machine_clock: MachineClock,
}

impl Config {
    /// The defaults, within a budget of memory.
    #[must_use]
    pub fn within(budget: Budget) -> Self {
        Self {
            linger: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            page_bytes: 1024 * 1024,
            ring_bytes: 2 * 1024 * 1024,
            ring_total_bytes: budget.rings(),
            history_bytes: budget.history(),
            window_bytes: 256 * 1024,
            window_budget_bytes: budget.windows(),
            max_streams: 100_000,
            max_readers_per_stream: 100_000,
            max_waiting: 4096,
            max_waiting_requests: 32_768,
            settle: Duration::from_secs(10),
            native_content_type: ContentType::default_binary(),
            undeclared_visibility: Visibility::Public,
            chance: Chance::default(),
            machine_clock: MachineClock::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::within(Budget::default())
    }
}

/// How long a name keeps its actor after it was last asked for, where the store holds nothing of it. Made-up names must not
/// take the place of streams for long; but who asks for one again and again is served by one actor, so however often that is,
/// a name costs one activation in this time.
pub(crate) const NOTHING_THERE: Duration = Duration::from_secs(1);
/// The messages that an actor's mailbox holds.
pub(crate) const MAILBOX: usize = 256;
/// The batches that the doorbell holds for one who is slow to answer it; beyond them it goes to the ring.
pub(crate) const DOORBELL: usize = 64;
/// After how many bytes of messages the next batch begins, where more have come at once.
pub(crate) const BATCH_BYTES: usize = 1024 * 1024;
/// How long to wait before a session that could not be opened, or broke, is tried again.
pub(crate) const SESSION_RETRY: Duration = Duration::from_millis(500);
/// How long a tail check, an activation or a history read may take before the store counts as away, and for how long who
/// wants to follow a stream waits for a store that does.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a present tail may be ahead of the read session before the gap is read instead.
pub(crate) const SESSION_LAG: Duration = Duration::from_millis(250);
/// How many plain batches of a stream may be in flight (ADR 14).
pub(crate) const MAX_FLIGHTS: usize = 4;
/// How long after one plain batch the next follows at the earliest while that is in flight. Many writers who were answered
/// at once come again at once: shorter makes many small batches of them, longer makes them miss a store's next flush.
pub(crate) const GATHER: Duration = Duration::from_millis(2);
/// How often a position may be lost to others before the token is moved to get a turn.
pub(crate) const LOST_RACES: u32 = 3;
/// How long to leave the turn to a pod that has moved the token, before jitter.
pub(crate) const TURN: Duration = Duration::from_millis(100);
/// How often a write is decided again before its client is told to come back.
pub(crate) const MAX_TRIES: u32 = 50;
/// How long to wait, before jitter, until a mark for a lifetime is tried again that the store would not take.
pub(crate) const MARK_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait, before jitter, until what a stream's end leaves to be done is tried again, while the store is away.
pub(crate) const CHORE_AGAIN: Duration = Duration::from_secs(5);
/// How often a stream with live readers looks at its lifetime.
pub(crate) const TICK: Duration = Duration::from_millis(500);
