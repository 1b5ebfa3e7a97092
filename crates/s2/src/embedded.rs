//! s2-lite inside this process, put together from its public parts.
//!
//! Not its own `server::run`: that binds every interface without a token, leaves Nagle's algorithm on (40 ms stalls),
//! and cannot be stopped. Here the store listens on a loopback port of its own that wants a token made at start, keeps
//! its caches and its write-ahead log small, and is closed properly.
//!
//! - `storage`: where the data is, and the lock that keeps a second process away.
//! - `listener`: accepts connections, and ends them in bounded time.
//! - `layers`: the token, and the count of what is read.

mod layers;
mod listener;
mod storage;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use bytesize::ByteSize;
use s2_lite::backend::{Backend, bgtasks};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    layers::StoreObserver,
    storage::{BucketConfig, Storage},
};
use self::{layers::TokenHash, storage::Opened};
use crate::{Endpoint, Meter, Placement, S2Upstream, S2UpstreamConfig, Secret, upstream::S2UpstreamError};

/// How long a write may wait for the next flush in memory or a directory. One flush writes all that waits, so this is
/// most of an append's latency.
const LOCAL_FLUSH: Duration = Duration::from_millis(5);
/// The same for a bucket, where each flush is a paid request.
const BUCKET_FLUSH: Duration = Duration::from_millis(50);
/// Metered bytes of appends in flight, over all streams; beyond, appends wait.
const APPENDS_IN_FLIGHT: ByteSize = ByteSize::mib(128);
/// How long closing the database may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What an [`EmbeddedStore`] needs to know.
#[derive(Clone)]
pub struct EmbeddedStoreConfig {
    /// Where the data is.
    pub storage: Storage,
    /// How long a write may wait for the next flush: lower for less latency, higher for fewer and larger writes.
    pub flush_interval: Duration,
    /// A second address where others may use the store as S2, if any.
    pub expose: Option<Exposure>,
    /// Who is told of what is read, if anybody.
    pub observer: Option<Arc<dyn StoreObserver>>,
}

/// Where, and to whom, the store's S2 API is shown.
#[derive(Debug, Clone)]
pub struct Exposure {
    /// The address to listen on.
    pub addr: SocketAddr,
    /// The token that clients must send. Only on loopback can there be none.
    pub token: Option<Secret>,
}

/// Why the embedded store could not be started, or not be closed properly.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedStoreError {
    /// Another process has the directory open.
    #[error("another process has {} open", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory cannot be used.
    #[error("{} cannot be used as a store", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The directory cannot be used by the database.
    #[error("the object store cannot be used")]
    ObjectStore(#[from] object_store::Error),
    /// The bucket cannot be reached, does not exist, or is not ours to use.
    #[error("bucket {bucket} cannot be used")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// The bucket does not answer, or lets nothing be written.
    #[error("bucket {bucket} could not be opened within {within:?}")]
    BucketTimeout {
        /// The bucket.
        bucket: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// The database could not be opened or closed.
    #[error("the database failed")]
    Database(#[from] slatedb::Error),
    /// The database did not close in time; nothing acknowledged is lost, the next start takes longer.
    #[error("the database did not close within {within:?}")]
    CloseTimeout {
        /// How long it was waited for.
        within: Duration,
    },
    /// An address beyond loopback was to be opened without a token.
    #[error("{addr} is beyond loopback and needs a token")]
    TokenRequired {
        /// The address.
        addr: SocketAddr,
    },
    /// An address could not be listened on.
    #[error("{addr} cannot be listened on")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A listener's task panicked.
    #[error("a listener ended in a panic")]
    Listener(#[from] JoinError),
}

/// How a store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreEnd {
    /// It was shut down.
    Closed,
    /// Another process opened the same data, and owns it from then on.
    Fenced,
    /// A task of the database panicked.
    Panicked,
}

/// A running store. Dropping it stops the listeners but does not close the database; [`EmbeddedStore::shutdown`] does.
pub struct EmbeddedStore {
    opened: Opened,
    backend: Backend,
    addr: SocketAddr,
    exposed: Option<SocketAddr>,
    token: Secret,
    /// Stops the listeners, also when the store is only dropped.
    stop: tokio_util::sync::DropGuard,
    listeners: Vec<JoinHandle<()>>,
}

impl EmbeddedStoreConfig {
    /// A configuration with defaults: a flush tick that suits the storage, not exposed, not observed.
    #[must_use]
    pub fn new(storage: Storage) -> Self {
        let flush_interval = match storage {
            Storage::Memory | Storage::Directory(_) => LOCAL_FLUSH,
            Storage::Bucket(_) => BUCKET_FLUSH,
        };
        Self { storage, flush_interval, expose: None, observer: None }
    }
}

impl EmbeddedStore {
    /// Opens the data and starts to listen, on a loopback port that the system chooses and where it was asked to.
    ///
    /// # Errors
    /// When the data is in use or cannot be used, or an address cannot be listened on.
    pub async fn start(config: EmbeddedStoreConfig) -> Result<Self, EmbeddedStoreError> {
        // What can be refused at once is refused before the data is touched.
        let internal = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let exposed = match config.expose {
            Some(exposure) => Some(expose(exposure).await?),
            None => None,
        };

        let opened = storage::open(&config.storage, config.flush_interval).await?;
        let backend = Backend::new(opened.db.clone(), APPENDS_IN_FLIGHT);
        bgtasks::spawn(&backend);
        let mut router = s2_lite::handlers::router().with_state(backend.clone());
        if let Some(observer) = config.observer {
            router = layers::observed(router, observer);
        }

        let token = Secret::random();
        let stop = CancellationToken::new();
        let addr = local_addr(&internal)?;
        let guarded = layers::guarded(router.clone(), TokenHash::of(&token));
        let mut listeners = vec![serve(internal, guarded, &stop)];
        let mut exposed_addr = None;
        if let Some((listener, token)) = exposed {
            exposed_addr = Some(local_addr(&listener)?);
            let app = match token {
                Some(token) => layers::guarded(router, TokenHash::of(&token)),
                None => router,
            };
            listeners.push(serve(listener, app, &stop));
        }
        tracing::info!(storage = ?config.storage, %addr, exposed = ?exposed_addr, "embedded store started");
        Ok(Self { opened, backend, addr, exposed: exposed_addr, token, stop: stop.drop_guard(), listeners })
    }

    /// The endpoint of the store's S2 API, for this process.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Url(format!("http://{}", self.addr))
    }

    /// The token that [`EmbeddedStore::endpoint`] wants.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// Where the store is exposed to others, if it is.
    #[must_use]
    pub fn exposed_addr(&self) -> Option<SocketAddr> {
        self.exposed
    }

    /// The configuration of an upstream to this store, the only owner unless the store is exposed.
    #[must_use]
    pub fn upstream_config(&self, placement: Placement) -> S2UpstreamConfig {
        let mut config = S2UpstreamConfig::new(self.endpoint(), self.token.clone(), placement);
        config.single_owner = self.exposed.is_none();
        config
    }

    /// An upstream to this store, with the defaults of [`EmbeddedStore::upstream_config`].
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn upstream(&self, placement: Placement, meter: Meter) -> Result<S2Upstream, S2UpstreamError> {
        S2Upstream::new(self.upstream_config(placement), meter)
    }

    /// Resolves when the store has ended: it was shut down, another process took the data, or its database died. It
    /// does not come back by itself, so whoever serves from it should end.
    pub fn closed(&self) -> impl Future<Output = StoreEnd> + Send + 'static {
        let mut status = self.opened.db.subscribe();
        async move {
            let reason = status.wait_for(|s| s.close_reason.is_some()).await.ok().and_then(|s| s.close_reason);
            match reason {
                Some(slatedb::CloseReason::Fenced) => StoreEnd::Fenced,
                Some(slatedb::CloseReason::Clean) | None => StoreEnd::Closed,
                Some(slatedb::CloseReason::Panic | _) => StoreEnd::Panicked,
            }
        }
    }

    /// Stops to accept, lets what is under way end for a moment, cuts the rest off, and closes the database.
    ///
    /// # Errors
    /// When the database cannot be closed, or not in time. Nothing acknowledged is lost then.
    pub async fn shutdown(self) -> Result<(), EmbeddedStoreError> {
        self.stop.disarm().cancel();
        for listener in self.listeners {
            listener.await?;
        }
        timeout(CLOSE_TIMEOUT, self.backend.close())
            .await
            .map_err(|_| EmbeddedStoreError::CloseTimeout { within: CLOSE_TIMEOUT })??;
        tracing::info!("embedded store closed");
        Ok(())
    }
}

async fn bind(addr: SocketAddr) -> Result<TcpListener, EmbeddedStoreError> {
    TcpListener::bind(addr).await.map_err(|source| EmbeddedStoreError::Listen { addr, source })
}

async fn expose(exposure: Exposure) -> Result<(TcpListener, Option<Secret>), EmbeddedStoreError> {
    let Exposure { addr, token } = exposure;
    let token = token.filter(|token| !token.reveal().is_empty());
    if token.is_none() && !addr.ip().is_loopback() {
        return Err(EmbeddedStoreError::TokenRequired { addr });
    }
    Ok((bind(addr).await?, token))
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr, EmbeddedStoreError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|source| EmbeddedStoreError::Listen { addr: unknown, source })
}

fn serve(listener: TcpListener, app: Router, stop: &CancellationToken) -> JoinHandle<()> {
    tokio::spawn(listener::serve(listener, app, stop.clone()))
}
