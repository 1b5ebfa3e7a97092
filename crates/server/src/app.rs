//! What all handlers share.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus::Registry;
use tailwater_fanout::{Gateway, Precedence};
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};

use crate::{
    admission::Admission,
    audit::AuditLog,
    body::Limits,
    config::{Config, READINESS_TIMEOUT, READINESS_TTL},
    drain::Drain,
    guard::Auth,
    metrics::Metrics,
    quota::Metering,
    share::Shares,
    surface::Surface,
};

/// What an [`App`] is made of.
pub struct Parts {
    /// Where requests go.
    pub gateway: Gateway,
    /// The settings.
    pub config: Config,
    /// What `/metrics` shows.
    pub registry: Registry,
    /// What this crate counts; registered in `registry` or elsewhere.
    pub metrics: Metrics,
    /// The clock and the dice.
    pub ambient: Ambient,
}

/// The clock and the dice: what handlers take from the world. Tests bring their own.
#[derive(Debug, Clone, Copy)]
pub struct Ambient {
    /// Milliseconds since the Unix epoch, for cursors and for `Cache-Control`.
    pub now_ms: fn() -> u64,
    /// Any number, for jitter.
    pub random: fn() -> u64,
    /// Fills bytes that nobody can guess.
    pub secret: fn(&mut [u8]),
}

/// The handlers' state; a cheap clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// What the clones of an [`App`] share.
pub struct Shared {
    pub(crate) gateway: Gateway,
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) ambient: Ambient,
    pub(crate) drain: Drain,
    pub(crate) bodies: Limits,
    /// What bounds the listeners for clients.
    pub(crate) admission: Admission,
    /// What bounds the listener for operations.
    pub(crate) operations: Admission,
    pub(crate) metering: Metering,
    pub(crate) shares: Arc<Shares>,
    pub(crate) readiness: Readiness,
    pub(crate) audit: AuditLog,
    /// What the delivery shards have under way, and what is sent of the past gives way to.
    pub(crate) deliveries: Arc<Precedence>,
    /// Whose turn it is to make a profile.
    pub(crate) profiles: Semaphore,
}

/// Whether the store answers; asked at most once in a while, however many ask here.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, bool)>>);

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { gateway, config, registry, metrics, ambient } = parts;
        let drain = Drain::new(config.drain, config.drain_notice);
        let bodies = Limits::new(&config, &metrics);
        let admission = Admission::new(&config, &metrics.connections);
        let operations = Admission::of_operations(&config, &metrics.operations_connections);
        let metering = Metering::new(&metrics);
        let shares = Arc::<Shares>::default();
        if let Auth::Required(guard) = &config.auth {
            gateway.allot_by(shares.of_streams(guard, &metrics));
        }
        let audit = AuditLog::new(config.audit.clone(), &metrics);
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self(Arc::new(Shared {
            gateway,
            config,
            registry,
            metrics,
            ambient,
            drain,
            bodies,
            admission,
            operations,
            metering,
            shares,
            readiness: Readiness::default(),
            audit,
            deliveries: Arc::new(Precedence::of_deliveries(cores)),
            profiles: Semaphore::new(1),
        }))
    }

    /// What bounds the listeners of a surface.
    pub(crate) fn admission_at(&self, surface: Surface) -> &Admission {
        match surface {
            Surface::All | Surface::Streams => &self.0.admission,
            Surface::Operations => &self.0.operations,
        }
    }

    /// What ends its live responses.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.0.drain
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Default for Ambient {
    /// The system's clock and the thread's random numbers, which are fit for secrets.
    fn default() -> Self {
        Self { now_ms: system_ms, random: rand::random::<u64>, secret: |bytes| rand::fill(bytes) }
    }
}

impl Ambient {
    pub(crate) fn now(self) -> u64 {
        (self.now_ms)()
    }

    /// A share between 0 and 1, 1 excluded.
    pub(crate) fn share(self) -> f64 {
        let thousandths = u16::try_from((self.random)() % 1000).expect("a number below 1000 is below 65536");
        f64::from(thousandths) / 1000.0
    }

    /// A name for something, which nothing else has: 128 random bits.
    pub(crate) fn id(self) -> String {
        format!("{:016x}{:016x}", (self.random)(), (self.random)())
    }

    /// A duration between two.
    pub(crate) fn between(self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.share())
    }
}

impl Readiness {
    pub(crate) async fn store_answers(&self, gateway: &Gateway) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, answered)) = *last
            && at.elapsed() < READINESS_TTL
        {
            return answered;
        }
        let answered = gateway.ready(READINESS_TIMEOUT).await.is_ok();
        *last = Some((Instant::now(), answered));
        answered
    }
}

fn system_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
