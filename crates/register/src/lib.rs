//! The register's log: what was revoked, and the projects of run time, for every pod within a moment.
//!
//! The log is one stream of the store, under a name that no client's path has. What its records mean is
//! [`tailwater_auth::register`]'s: there is the fold, here is what it folds.
//!
//! | module | what it holds |
//! |---|---|
//! | `fold` | a log, read into a register, without I/O |
//! | `view` | what is known, and what is wrong with it |
//! | `follow` | the one read session of a pod, for as long as the process lives |
//! | `append` | records, by compare and swap |
//! | `metrics` | what is counted |
//!
//! ```text
//! admin ──► append ──(only if the log ends where I think)──► store ──► follow ──► fold ──► view ──► who judges tokens
//!             ▲                                                                              │
//!             └──────────────────── answered once it is folded here ─────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - What was known stays in force until more is known: an outage, a gap, or a record that cannot be read takes nothing back.
//! - A view never goes back: a log that has become shorter is not believed.
//! - What a pod answers as done is in force on that pod.
//! - Time is that of the records. The pods' own clocks decide only how long to wait.

mod append;
mod fold;
mod follow;
mod metrics;
mod view;

use std::{fmt, sync::Arc};

use tailwater_upstream::{StreamKey, Upstream};
use tokio::sync::{Mutex, Notify, watch};

pub use self::{
    append::AppendError,
    metrics::Metrics,
    view::{Standing, View},
};

/// The project of what gateways need for themselves. No client can name it: ids do not start with `_`.
const OWN_PROJECT: &str = "_tailwater";
/// The log.
const STREAM: &str = "register";

/// The register's log, for those who ask it, append to it and follow it; a cheap clone.
#[derive(Clone)]
pub struct RegisterLog(Arc<Inner>);

struct Inner {
    upstream: Arc<dyn Upstream>,
    key: StreamKey,
    view: watch::Sender<View>,
    /// One append of this process at a time: two would only take the place from each other.
    turn: Mutex<()>,
    /// Rung when the log may have come to be.
    created: Notify,
    metrics: Metrics,
}

impl RegisterLog {
    /// The register's log in a store. Nothing is known of it until it is [followed](Self::follow).
    #[must_use]
    pub fn new(upstream: Arc<dyn Upstream>, metrics: Metrics) -> Self {
        let (view, turn, created) = (watch::Sender::new(View::unread()), Mutex::default(), Notify::new());
        let log = Self(Arc::new(Inner { upstream, key: Self::key(), view, turn, created, metrics }));
        log.0.metrics.stands(Standing::Unread);
        log
    }

    /// Where it lies in the store.
    #[must_use]
    pub fn key() -> StreamKey {
        StreamKey::new(OWN_PROJECT, STREAM)
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> View {
        self.0.view.borrow().clone()
    }

    /// Looks at what is known now, which must not take long.
    pub fn with<R>(&self, look: impl FnOnce(&View) -> R) -> R {
        look(&self.0.view.borrow())
    }

    /// How well the register is known at this moment.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let standing = self.with(View::standing);
        self.0.metrics.stands(standing);
        standing
    }

    /// What is known, and whatever changes of it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<View> {
        self.0.view.subscribe()
    }
}

impl fmt::Debug for RegisterLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterLog").field("key", &self.0.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
