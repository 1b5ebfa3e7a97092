//! Sees to it that the basin of a project exists before the first append, and that it keeps what it is given.
//!
//! S2's default retention is 7 days, and the marks that are a stream's state must not expire. So a basin is made with
//! infinite retention, and one that was made by somebody else is looked at, never changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use s2_sdk::{
    S2,
    error::{ErrorCode, RequestError},
    types::{
        BasinConfig, BasinName, CreateBasinInput, DeleteOnEmptyConfig, ListBasinsInput, RetentionPolicy, StreamConfig,
        TimestampingConfig, TimestampingMode,
    },
};
use tailwater_upstream::AppendError;
use tokio::sync::OnceCell;

use crate::translate;

/// How long an emptied stream stays, so that stale offsets into it stay recognisable.
const DELETE_ON_EMPTY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How many projects with a basin of their own there may be. Whoever can write can name a new project, and a basin is
/// not free; processes that make some at the same time may pass the limit by a few.
pub(crate) const MAX_PROJECTS: usize = 1_000;
/// Of how many basins is remembered that they are fit; beyond, some are looked at again.
const MAX_KNOWN: usize = 4096;

/// Why a basin that exists is not written to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnfitBasin {
    /// Records would expire, and with them the state of streams.
    #[error("basin {basin} drops records after {seconds} s; its retention must be infinite")]
    FiniteRetention {
        /// The basin.
        basin: String,
        /// Its retention, in seconds; S2's default where it names none.
        seconds: u64,
    },
    /// New streams cannot be created together with their first records.
    #[error("basin {basin} does not create streams on append")]
    NoCreateOnAppend {
        /// The basin.
        basin: String,
    },
}

/// The basins that were seen to.
pub(crate) struct Basins {
    s2: S2,
    accept_finite_retention: bool,
    max_projects: usize,
    known: Mutex<HashMap<BasinName, Arc<OnceCell<()>>>>,
}

/// S2's retention where a basin names none.
const DEFAULT_RETENTION: RetentionPolicy = RetentionPolicy::Age(7 * 24 * 60 * 60);

impl Basins {
    pub(crate) fn new(s2: S2, accept_finite_retention: bool, max_projects: usize) -> Self {
        Self { s2, accept_finite_retention, max_projects, known: Mutex::default() }
    }

    /// Returns once the basin exists and is fit. Asks S2 once per basin, however many callers wait; a failure is
    /// forgotten, so that the next caller asks again. No error of this method leaves anything appended.
    pub(crate) async fn ensure(&self, basin: &BasinName) -> Result<(), AppendError> {
        let cell = self.cell(basin);
        cell.get_or_try_init(|| self.provision(basin)).await.copied()
    }

    /// Forgets a basin that turned out to be missing.
    pub(crate) fn forget(&self, basin: &BasinName) {
        self.lock().remove(basin);
    }

    fn cell(&self, basin: &BasinName) -> Arc<OnceCell<()>> {
        let mut known = self.lock();
        if let Some(cell) = known.get(basin) {
            return Arc::clone(cell);
        }
        if known.len() >= MAX_KNOWN
            && let Some(some) = known.keys().next().cloned()
        {
            known.remove(&some);
        }
        Arc::clone(known.entry(basin.clone()).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<BasinName, Arc<OnceCell<()>>>> {
        // Each change is one call on the map, so a panic elsewhere leaves it whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn provision(&self, basin: &BasinName) -> Result<(), AppendError> {
        match self.s2.get_basin_config(basin.clone()).await {
            Ok(config) => self.check(basin, &config),
            Err(e) if translate::is_code(&e, ErrorCode::BasinNotFound) => self.create(basin).await,
            // A token that may append but not look: whoever accepts any retention needs no look.
            Err(e) if self.accept_finite_retention && translate::is_code(&e, ErrorCode::PermissionDenied) => Ok(()),
            Err(e) => Err(not_appended(e)),
        }
    }

    async fn create(&self, basin: &BasinName) -> Result<(), AppendError> {
        self.make_room_for(basin).await?;
        match self.s2.create_basin(CreateBasinInput::new(basin.clone()).with_config(config())).await {
            Ok(_) => {
                tracing::info!(%basin, "created a basin");
                Ok(())
            }
            // Another process was faster.
            Err(e) if translate::is_code(&e, ErrorCode::ResourceAlreadyExists) => {
                let config = self.s2.get_basin_config(basin.clone()).await.map_err(not_appended)?;
                self.check(basin, &config)
            }
            Err(e) => Err(not_appended(e)),
        }
    }

    /// Refuses another basin where there are as many as there may be; those of the account that are not ours count too.
    async fn make_room_for(&self, basin: &BasinName) -> Result<(), AppendError> {
        let page = match self.s2.list_basins(ListBasinsInput::new().with_limit(self.max_projects)).await {
            Ok(page) => page,
            // A token that may create but not look: the account's own limit has to do.
            Err(e) if translate::is_code(&e, ErrorCode::PermissionDenied) => return Ok(()),
            Err(e) => return Err(not_appended(e)),
        };
        if page.values.len() >= self.max_projects {
            tracing::warn!(%basin, limit = self.max_projects, "there are as many basins as there may be");
            return Err(AppendError::TooManyProjects { limit: self.max_projects });
        }
        Ok(())
    }

    fn check(&self, basin: &BasinName, config: &BasinConfig) -> Result<(), AppendError> {
        let retention = config.default_stream_config.as_ref().and_then(|c| c.retention_policy);
        if let RetentionPolicy::Age(seconds) = retention.unwrap_or(DEFAULT_RETENTION)
            && !self.accept_finite_retention
        {
            return Err(translate::refused(UnfitBasin::FiniteRetention { basin: basin.to_string(), seconds }));
        }
        if !config.create_stream_on_append {
            return Err(translate::refused(UnfitBasin::NoCreateOnAppend { basin: basin.to_string() }));
        }
        Ok(())
    }
}

/// What a project's basin is made with.
fn config() -> BasinConfig {
    let stream = StreamConfig::new()
        .with_retention_policy(RetentionPolicy::Infinite)
        .with_timestamping(TimestampingConfig::new().with_mode(TimestampingMode::Arrival))
        .with_delete_on_empty(DeleteOnEmptyConfig::new().with_min_age(DELETE_ON_EMPTY_AFTER));
    BasinConfig::new()
        .with_default_stream_config(stream)
        .with_create_stream_on_append(true)
        .with_create_stream_on_read(false)
}

/// The basin's request may have had an effect, the append was not even sent.
fn not_appended(error: RequestError) -> AppendError {
    match translate::failed_append(error) {
        AppendError::Unavailable { cause, .. } => {
            AppendError::Unavailable { fate: tailwater_upstream::Fate::NotAppended, cause }
        }
        other @ (AppendError::SeqMismatch { .. }
        | AppendError::TokenMismatch { .. }
        | AppendError::DeletionPending
        | AppendError::TooManyProjects { .. }
        | AppendError::Busy { .. }
        | AppendError::Refused { .. }) => other,
    }
}
