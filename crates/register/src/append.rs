//! Records for the register, by compare and swap.
//!
//! A record is judged on what is known, and appended on condition that this is all there is. Who loses the race learns what
//! the winner has written, and is judged again. It is done when it is in force here.

use std::time::Duration;

use tailwater_auth::register::{Record, Register, Unfit};
use tailwater_log::NewRecord;
use tailwater_upstream::{Append, AppendAck, AppendError as StoreError, Cause, Fate, ReadError};
use tokio::time::timeout;

use crate::{RegisterLog, metrics::Outcome, view::Standing};

/// How often a race may be lost before whoever asks is told to come again.
const ATTEMPTS: usize = 8;
/// How long an append may take before its fate is unknown.
pub(crate) const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a record may take from the store to this pod's register.
const FOLD_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a record is not known to be in force.
#[derive(Debug, thiserror::Error)]
pub enum AppendError<E> {
    /// It is not to be, given what is known. Nothing was appended.
    #[error("it was declined")]
    Declined(E),
    /// It would meet a bound. Nothing was appended.
    #[error(transparent)]
    Unfit(Unfit),
    /// What is in the register is not known well enough to add to it. Nothing was appended.
    #[error("what the register says is not known: {0:?}")]
    NotFollowed(Standing),
    /// Others were faster, time and again. Nothing was appended.
    #[error("others have changed the register at the same time")]
    Contended,
    /// The store did not take it. Nothing was appended.
    #[error("the register was not appended to")]
    Store(#[source] StoreError),
    /// It may be in force, or come to be.
    #[error("whether the register was appended to is not known")]
    Unknown(#[source] Option<StoreError>),
    /// It is in the register, and every pod that follows it will know; this one does not know yet.
    #[error("the register was appended to, and this gateway has not read it yet")]
    Unfolded,
}

impl RegisterLog {
    /// Appends the record that `make` makes of what is known, and waits until it is in force here; says where it stands.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append<E>(&self, make: impl Fn(&Register) -> Result<Record, E> + Send) -> Result<u64, AppendError<E>> {
        let Ok(_turn) = timeout(APPEND_TIMEOUT, self.0.turn.lock()).await else { return Err(AppendError::Contended) };
        for _ in 0..ATTEMPTS {
            let view = self.view();
            let standing = view.standing();
            if matches!(standing, Standing::Unread | Standing::Unreadable | Standing::Shortened) {
                return Err(AppendError::NotFollowed(standing));
            }
            let (record, position) = {
                let register = view.register();
                let record = make(register).map_err(AppendError::Declined)?;
                register.check(&record).map_err(AppendError::Unfit)?;
                (NewRecord::message(record.encode().into()), register.next())
            };
            match self.put(vec![record], position).await {
                Ok(_) => {
                    self.0.metrics.appended(Outcome::Landed);
                    // Whoever waits for the log to come to be need not wait longer.
                    self.0.created.notify_one();
                    return if self.folds(position).await { Ok(position) } else { Err(AppendError::Unfolded) };
                }
                Err(StoreError::SeqMismatch { actual }) => {
                    self.0.metrics.appended(Outcome::LostRace);
                    self.0.created.notify_one();
                    if actual <= position || !self.folds(actual - 1).await {
                        return Err(AppendError::NotFollowed(self.view().standing()));
                    }
                }
                Err(error) if error.fate() == Fate::Unknown => {
                    self.0.metrics.appended(Outcome::Unknown);
                    self.0.created.notify_one();
                    return Err(AppendError::Unknown(Some(error)));
                }
                Err(error) => {
                    self.0.metrics.appended(Outcome::Failed);
                    return Err(AppendError::Store(error));
                }
            }
        }
        Err(AppendError::Contended)
    }

    /// Waits until all is known here that stood in the log when this was asked; false where that cannot be told, or takes too
    /// long. What others have answered as done is not refused then for being unknown.
    pub async fn catch_up(&self) -> bool {
        let tail = timeout(APPEND_TIMEOUT, self.0.upstream.check_tail(&self.0.key)).await;
        let last = match tail {
            Ok(Ok(tail)) => tail.seq.checked_sub(1),
            Ok(Err(ReadError::NotFound)) => None,
            Ok(Err(ReadError::Busy { .. } | ReadError::Unavailable { .. } | ReadError::Refused { .. })) | Err(_) => {
                return false;
            }
        };
        let Some(last) = last else { return true };
        self.0.created.notify_one();
        self.folds(last).await
    }

    /// Appends if the log ends at `position`.
    pub(crate) async fn put(&self, records: Vec<NewRecord>, position: u64) -> Result<AppendAck, StoreError> {
        let append = Append { match_seq: Some(position), ..Append::new(records) };
        timeout(APPEND_TIMEOUT, self.0.upstream.append(&self.0.key, append))
            .await
            .unwrap_or_else(|late| Err(StoreError::Unavailable { fate: Fate::Unknown, cause: Cause::from(late) }))
    }

    /// Waits until what stands at `position` is known here; false if that takes too long.
    async fn folds(&self, position: u64) -> bool {
        let mut views = self.changes();
        let known = views.wait_for(|view| view.register().next() > position);
        matches!(timeout(FOLD_TIMEOUT, known).await, Ok(Ok(_)))
    }
}
