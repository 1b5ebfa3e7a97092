//! Where the embedded store keeps its data, and how its database is tuned.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;
use futures_util::StreamExt as _;
use object_store::{
    ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    local::LocalFileSystem,
    memory::InMemory,
    path::Path as ObjectPath,
};
use rustix::fs::FlockOperation;
use slatedb::{
    Db, Settings,
    config::{GarbageCollectorDirectoryOptions, GarbageCollectorOptions},
    db_cache::{
        SplitCache,
        foyer::{FoyerCache, FoyerCacheOptions},
    },
};
use tokio::time::timeout;

use super::EmbeddedStoreError;
use crate::Secret;

/// The file in the data directory that its owner holds locked.
const LOCK_FILE: &str = "tailwater.lock";
/// The caches of blocks, and of indices and filters. The defaults (512 and 128 MiB) are for a machine of its own; what
/// many read is in the gateway's own ring and history cache anyway.
const BLOCK_CACHE: ByteSize = ByteSize::mib(24);
const META_CACHE: ByteSize = ByteSize::mib(8);
const CACHE_SHARDS: usize = 4;
/// When what is in memory becomes a sorted file. Smaller than the default, for memory and a quick start.
const L0_FILE: ByteSize = ByteSize::mib(8);
/// How soon a write-ahead log file goes once it is not needed: at 200 flushes a second, the default of 10 minutes leaves
/// a hundred thousand of them.
const WAL_CLEANUP: Duration = Duration::from_secs(15);
/// How long a bucket may take to say what it holds, before its data is opened.
const BUCKET_ANSWER: Duration = Duration::from_secs(20);
/// How long it may take to open a bucket's data. A crash leaves a log to replay, of seconds; but where writing is not
/// allowed, the database tries for ever.
const BUCKET_OPEN: Duration = Duration::from_secs(120);
/// Attempts again of one request to a bucket. The database tries without end on top of it; here a fault should show.
const BUCKET_RETRIES: usize = 3;
/// How soon merged files go.
const COMPACTED_CLEANUP: Duration = Duration::from_secs(60);

/// Where the data is.
#[derive(Debug, Clone)]
pub enum Storage {
    /// Nowhere but here: gone with the process.
    Memory,
    /// A directory, which one process at a time can use. What was acknowledged is synced to disk.
    Directory(PathBuf),
    /// A bucket. The newest process to open it wins; [`EmbeddedStore::closed`](super::EmbeddedStore::closed) tells the
    /// one before.
    Bucket(BucketConfig),
}

/// A bucket that speaks S3, conditional `PUT` included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketConfig {
    /// The bucket.
    pub bucket: String,
    /// What the names of all objects start with; may be empty.
    pub prefix: String,
    /// The region.
    pub region: String,
    /// The endpoint, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// The access key; without one, the instance's own role is used.
    pub access_key: Option<String>,
    /// What belongs to the access key.
    pub secret_key: Option<Secret>,
    /// What belongs to an access key that is valid for a while only.
    pub session_token: Option<Secret>,
    /// Whether the endpoint may be plain `http`.
    pub allow_http: bool,
}

/// An open database, and what keeps others away from it.
pub(super) struct Opened {
    pub(super) db: Db,
    /// Locked for as long as it is open.
    _lock: Option<File>,
}

pub(super) async fn open(storage: &Storage, flush_interval: Duration) -> Result<Opened, EmbeddedStoreError> {
    let (objects, prefix, lock): (Arc<dyn ObjectStore>, &str, _) = match storage {
        Storage::Memory => (Arc::new(InMemory::new()), "", None),
        Storage::Directory(directory) => {
            let lock = lock(directory)?;
            let files = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
            (Arc::new(files), "", Some(lock))
        }
        Storage::Bucket(config) => (Arc::new(config.open().await?), config.prefix.as_str(), None),
    };
    let settings = settings(flush_interval);
    let takeover = settings.manifest_poll_interval;
    let opening = Db::builder(prefix, objects).with_settings(settings).with_db_cache(Arc::new(cache()), 0).build();
    let Storage::Bucket(config) = storage else { return Ok(Opened { db: opening.await?, _lock: lock }) };
    let db = timeout(BUCKET_OPEN, opening).await.map_err(|_| config.late(BUCKET_OPEN))??;
    // A process that had the bucket before learns of us when it looks next, and may answer reads until then.
    tokio::time::sleep(takeover).await;
    Ok(Opened { db, _lock: lock })
}

impl BucketConfig {
    /// Opens the bucket, and looks into it: one that is not there, or not ours, is found here.
    async fn open(&self) -> Result<AmazonS3, EmbeddedStoreError> {
        let unusable = |source| EmbeddedStoreError::Bucket { bucket: self.bucket.clone(), source };
        let objects = self.client().map_err(unusable)?;
        let prefix = ObjectPath::from(self.prefix.as_str());
        let first = timeout(BUCKET_ANSWER, async { objects.list(Some(&prefix)).next().await });
        match first.await.map_err(|_| self.late(BUCKET_ANSWER))? {
            Some(Err(source)) => Err(unusable(source)),
            Some(Ok(_)) | None => Ok(objects),
        }
    }

    fn late(&self, within: Duration) -> EmbeddedStoreError {
        EmbeddedStoreError::BucketTimeout { bucket: self.bucket.clone(), within }
    }

    fn client(&self) -> Result<AmazonS3, object_store::Error> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_allow_http(self.allow_http)
            .with_retry(RetryConfig { max_retries: BUCKET_RETRIES, ..RetryConfig::default() });
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(key) = &self.access_key {
            builder = builder.with_access_key_id(key);
        }
        if let Some(key) = &self.secret_key {
            builder = builder.with_secret_access_key(key.reveal());
        }
        if let Some(token) = &self.session_token {
            builder = builder.with_token(token.reveal());
        }
        builder.build()
    }
}

/// Takes the directory's lock, which the system lets go of when the process ends, however it ends. The database itself
/// would let the newer process win and break the older one.
fn lock(directory: &Path) -> Result<File, EmbeddedStoreError> {
    let unusable = |source| EmbeddedStoreError::Directory { directory: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(unusable)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(directory.join(LOCK_FILE)).map_err(unusable)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(EmbeddedStoreError::Locked { directory: directory.to_owned() }),
        Err(errno) => Err(unusable(errno.into())),
    }
}

fn settings(flush_interval: Duration) -> Settings {
    let every = |interval| GarbageCollectorDirectoryOptions {
        interval: Some(interval),
        ..GarbageCollectorDirectoryOptions::default()
    };
    Settings {
        flush_interval: Some(flush_interval),
        l0_sst_size_bytes: usize::try_from(L0_FILE.as_u64()).expect("8 MiB fit any address space"),
        garbage_collector_options: Some(GarbageCollectorOptions {
            wal_options: Some(GarbageCollectorDirectoryOptions { min_age: WAL_CLEANUP, ..every(WAL_CLEANUP) }),
            compacted_options: Some(every(COMPACTED_CLEANUP)),
            ..GarbageCollectorOptions::default()
        }),
        ..Settings::default()
    }
}

fn cache() -> SplitCache {
    let foyer = |size: ByteSize| {
        let options = FoyerCacheOptions { max_capacity: size.as_u64(), shards: CACHE_SHARDS };
        Arc::new(FoyerCache::new_with_opts(options))
    };
    SplitCache::new().with_block_cache(Some(foyer(BLOCK_CACHE))).with_meta_cache(Some(foyer(META_CACHE))).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_bucket_are_not_shown() {
        let config = BucketConfig {
            bucket: "b".to_owned(),
            prefix: String::new(),
            region: "r".to_owned(),
            endpoint: None,
            access_key: Some("id".to_owned()),
            secret_key: Some("hunter2".into()),
            session_token: Some("hunter2".into()),
            allow_http: false,
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_bucket_of_ones_own_needs_no_keys_to_be_described() {
        let config = BucketConfig {
            bucket: "b".to_owned(),
            prefix: "p".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            access_key: None,
            secret_key: None,
            session_token: None,
            allow_http: true,
        };
        assert!(config.client().is_ok());
    }

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        assert!(
            matches!(lock(directory.path()), Err(EmbeddedStoreError::Locked { directory: d }) if d == directory.path())
        );
        drop(held);
        assert!(lock(directory.path()).is_ok());
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            matches!(lock(file.path()), Err(EmbeddedStoreError::Directory { directory: d, .. }) if d == file.path())
        );
    }
}
