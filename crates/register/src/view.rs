//! What is known of the register, and what is wrong with it.

use std::{sync::Arc, time::Duration};

use tailwater_auth::{RegisterError, register::Register};
use tokio::time::Instant;

/// How long the log may not be followed before that is said. A lost connection is found again in less.
pub(crate) const BEHIND_AFTER: Duration = Duration::from_secs(5);

/// What is known of the register; a cheap clone.
#[derive(Debug, Clone)]
pub struct View {
    register: Arc<Register>,
    is_read: bool,
    trouble: Option<Trouble>,
}

/// Why there may be more than is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nobody tells of new records, since then.
    Unfollowed(Instant),
    /// A record cannot be folded.
    Unreadable(RegisterError),
    /// The log ends before what is known of it.
    Shortened,
}

/// How well the register is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// All of it, but for what was written in the last moment.
    Current,
    /// As it was a while ago; the store does not tell more.
    Behind,
    /// Not at all yet.
    Unread,
    /// As far as a record that this program cannot read.
    Unreadable,
    /// As it was before its log lost records, which is not believed until the program is started again.
    Shortened,
}

impl View {
    pub(crate) fn unread() -> Self {
        Self { register: Arc::default(), is_read: false, trouble: None }
    }

    pub(crate) fn of(register: Register) -> Self {
        Self { register: Arc::new(register), is_read: true, trouble: None }
    }

    /// The same, with what is wrong now.
    pub(crate) fn amid(&self, trouble: Option<Trouble>) -> Self {
        let trouble = match (trouble, self.trouble) {
            // It has been so since before.
            (Some(Trouble::Unfollowed(_)), Some(Trouble::Unfollowed(since))) => Some(Trouble::Unfollowed(since)),
            (trouble, _) => trouble,
        };
        Self { register: Arc::clone(&self.register), is_read: self.is_read, trouble }
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// The register as it is known: as nothing, until it was read.
    #[must_use]
    pub fn register(&self) -> &Arc<Register> {
        &self.register
    }

    /// Whether it was read to its end once. Until then nobody knows who was revoked.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_read
    }

    /// How well it is known at this moment.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.trouble {
            Some(Trouble::Unreadable(_)) => Standing::Unreadable,
            Some(Trouble::Shortened) => Standing::Shortened,
            Some(Trouble::Unfollowed(_)) | None if !self.is_read => Standing::Unread,
            Some(Trouble::Unfollowed(since)) if since.elapsed() >= BEHIND_AFTER => Standing::Behind,
            Some(Trouble::Unfollowed(_)) | None => Standing::Current,
        }
    }
}

impl Standing {
    /// Its number in the metric.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Current => 0,
            Self::Behind => 1,
            Self::Unread => 2,
            Self::Unreadable => 3,
            Self::Shortened => 4,
        }
    }
}
