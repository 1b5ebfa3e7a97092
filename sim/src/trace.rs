//! What happened, line by line: the same for the same script, to the byte.

use std::{
    fmt::{self, Display, Write as _},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

/// The most operations at the store that a run has. One that has more goes round in circles: as no time passes, nothing
/// else would end it.
const MOST_OPERATIONS: u64 = 300_000;

/// The lines so far.
#[derive(Debug)]
pub struct Trace {
    since: Instant,
    lines: Mutex<String>,
    operations: AtomicU64,
}

/// Takes so many bytes, and then no more.
struct Short(String, usize);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() > self.1 {
            return Err(fmt::Error);
        }
        self.0.extend(text.chars().take(self.1));
        Ok(())
    }
}

/// The beginning of what something looks like, however long that is.
#[must_use]
pub fn brief(what: &impl fmt::Debug) -> String {
    let mut short = Short(String::new(), 400);
    // It ends with an error where it is cut off.
    let _cut = write!(short, "{what:?}");
    short.0
}

impl Trace {
    /// An empty trace that counts time from now on.
    #[must_use]
    pub fn begin() -> Self {
        Self { since: Instant::now(), lines: Mutex::default(), operations: AtomicU64::new(0) }
    }

    /// Notes what somebody does, or is told.
    pub fn note(&self, who: impl Display, what: impl Display) {
        let at = self.since.elapsed().as_micros();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{:>7}.{:03} {who}: {what}\n", at / 1000, at % 1000);
        lines.push_str(&line);
    }

    /// Counts an operation at the store.
    ///
    /// # Panics
    /// Where there are too many.
    pub fn count_operation(&self) {
        let before = self.operations.fetch_add(1, Ordering::Relaxed);
        assert!(before < MOST_OPERATIONS, "the store is asked over and over");
    }

    /// All lines.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
