//! The gateway: streams by name.
//!
//! An actor starts with the first request for its stream and retires when it is idle, soon where the store holds nothing
//! under its name. Starting is single flight, because the entry in the registry is the actor's handle, and what the actor
//! has to find out it finds out itself. Retiring is free of races: a request that meets a retired actor is given back and
//! goes to the next one.

mod allot;
mod fork;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use dashmap::{DashMap, Entry};
use tailwater_log::{Content, CreateRequest, DeclaredConfig, Misplaced, Open, Place, Presence, Refusal, StreamState};
use tailwater_protocol::{ContentType, Lifetime, ReadOffset};
use tailwater_upstream::{StreamKey, Traffic, Upstream};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

pub use self::allot::{Allot, Allotment, Crowd, Need};
use crate::{
    actor::{self, Answer, Arrival, Chore, Joined, Look, LookAt, Message, NewStream, Reply, StreamHandle, place_of},
    clock::StoreClock,
    config::{CHORE_AGAIN, Config, READ_TIMEOUT},
    feed::RingPool,
    history::{History, HistoryCache, Hole, Window, Windows},
    metrics::Metrics,
    ops::{Appended, Create, Created, Head, OpError, Page, Post},
    precedence::AppendsFirst,
    reader::Reader,
    sweep::Listing,
};

/// How many chores may wait for other streams; beyond it they are left behind, and logged.
const MAX_CHORES: usize = 10_000;

/// What a gateway is made of.
pub struct Seed {
    /// The store.
    pub upstream: Arc<dyn Upstream>,
    /// The settings.
    pub config: Config,
    /// The metrics.
    pub metrics: Metrics,
    /// What shutdown waits for.
    pub tracker: TaskTracker,
    /// Ends all actors, once what they have in flight is settled.
    pub shutdown: CancellationToken,
}

/// All streams of this pod. A cheap clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    upstream: Arc<dyn Upstream>,
    config: Arc<Config>,
    metrics: Metrics,
    clock: Arc<StoreClock>,
    rings: Arc<RingPool>,
    history: Arc<HistoryCache>,
    windows: Windows,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    streams: DashMap<StreamKey, Slot>,
    generations: AtomicU64,
    allot: OnceLock<Allot>,
    chores: mpsc::Sender<Chore>,
}

/// An actor's place in the registry. The generation keeps one that retires late from removing its successor.
struct Slot {
    handle: StreamHandle,
    generation: u64,
    _allotment: Option<Allotment>,
}

impl Gateway {
    /// A gateway on a store. Must be called within a runtime.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        let (chores, waiting) = mpsc::channel(MAX_CHORES);
        let rings = RingPool::new(seed.config.ring_total_bytes, seed.metrics.ring_bytes.clone());
        let (config, metrics) = (&seed.config, &seed.metrics);
        let windows = Windows::new(config.window_budget_bytes, config.window_bytes, metrics.window_bytes.clone());
        let upstream = Arc::new(AppendsFirst::new(seed.upstream));
        let history = HistoryCache::new(
            Arc::clone(&upstream),
            config.history_bytes,
            metrics.clone(),
            seed.tracker.clone(),
            seed.shutdown.clone(),
        );
        let gateway = Self {
            inner: Arc::new(Inner {
                upstream,
                config: Arc::new(seed.config),
                metrics: seed.metrics,
                clock: Arc::default(),
                rings,
                history: Arc::new(history),
                windows,
                tracker: seed.tracker,
                shutdown: seed.shutdown,
                streams: DashMap::new(),
                generations: AtomicU64::new(0),
                allot: OnceLock::new(),
                chores,
            }),
        };
        gateway.inner.tracker.spawn(gateway.clone().do_chores(waiting));
        gateway.inner.tracker.spawn(gateway.clone().sweep_for_ever());
        gateway
    }

    /// PUT: creates a stream, or finds one with the same configuration.
    pub async fn create(&self, key: &StreamKey, create: Create) -> Result<Created, OpError> {
        let Some(fork) = create.fork.clone() else {
            let open = Open {
                incarnation: self.inner.config.chance.number(),
                content_type: create.content_type.clone().unwrap_or_else(ContentType::default_binary),
                lifetime: create.lifetime.unwrap_or(Lifetime::Forever),
                visibility: create.visibility.plain(),
                retention_ms: None,
                adopts_native: false,
                fork: None,
            };
            let declared = DeclaredConfig {
                content_type: create.content_type,
                lifetime: Some(open.lifetime),
                closed: create.closed,
                visibility: create.visibility.declared(),
                fork: None,
            };
            let content = Content::Messages(create.messages);
            let request = CreateRequest { open, content, closed: create.closed };
            return self.put_listed(key, &declared, &request).await;
        };
        self.create_fork(key, create, fork).await
    }

    /// Creates a stream that has a lifetime only once it is listed for the sweep: a crash in between leaves an entry
    /// that says nothing, never a stream that nobody looks after.
    async fn put_listed(
        &self,
        key: &StreamKey,
        declared: &DeclaredConfig,
        request: &CreateRequest,
    ) -> Result<Created, OpError> {
        let at_ms = match request.open.lifetime {
            Lifetime::Forever => return self.put(key, declared, request, false).await,
            Lifetime::ExpiresAt { at_ms } => at_ms,
            Lifetime::Ttl { seconds } => self.about_now_ms().saturating_add(seconds.saturating_mul(1000)),
        };
        match self.put(key, declared, request, true).await {
            Err(OpError::Refused(Refusal::NotFound)) => {}
            answer => return answer,
        }
        self.list(&Listing { key: key.clone(), incarnation: request.open.incarnation, at_ms }).await?;
        self.put(key, declared, request, false).await
    }

    async fn put(
        &self,
        key: &StreamKey,
        declared: &DeclaredConfig,
        request: &CreateRequest,
        compare_only: bool,
    ) -> Result<Created, OpError> {
        let create = |reply| {
            let stream = NewStream { declared: declared.clone(), request: request.clone(), compare_only };
            Message::Create { stream: Box::new(stream), reply }
        };
        self.ask(key, create).await
    }

    /// POST: appends, closes, or both.
    pub async fn append(&self, key: &StreamKey, post: Post) -> Result<Appended, OpError> {
        self.ask(key, |reply| Message::Append { post: Box::new(post.clone()), reply }).await
    }

    /// DELETE.
    pub async fn delete(&self, key: &StreamKey) -> Result<(), OpError> {
        self.ask(key, |reply| Message::Delete { reply }).await
    }

    /// HEAD.
    pub async fn head(&self, key: &StreamKey) -> Result<Head, OpError> {
        let look = self.look(key, LookAt::Head).await?;
        Ok(Head::of(&look.view, &self.inner.config))
    }

    /// GET without `live`: one bounded page.
    pub async fn read(&self, key: &StreamKey, from: ReadOffset) -> Result<Page, OpError> {
        let Look { view, batches } = self.look(key, LookAt::Read(from)).await?;
        let head = Head::of(&view, &self.inner.config);
        let start = place_of(&view, from)?;
        let mut messages = Vec::new();
        let place = match batches {
            Some(batches) => self.page_of_ring(&view, start, &batches, &mut messages),
            None => {
                let hole = if from == ReadOffset::Start { Hole::Skip } else { Hole::Refuse };
                let page = self.history(key).page(&view, head.content_type.kind(), start, hole).await?;
                messages.extend(page.messages.into_iter().map(|(body, _)| body));
                page.place
            }
        };
        let up_to_date = view.span_at(place).is_none();
        let next = if up_to_date { head.tail } else { view.offset_at(place) };
        Ok(Page { start: view.offset_at(start), head, messages, next, up_to_date })
    }

    fn page_of_ring(
        &self,
        view: &StreamState,
        start: Place,
        batches: &[Arc<crate::batch::Batch>],
        messages: &mut Vec<bytes::Bytes>,
    ) -> Place {
        let (mut bytes, mut end) = (0, start);
        for message in batches.iter().flat_map(|batch| batch.from(start.seq)) {
            if bytes >= self.inner.config.page_bytes {
                return end;
            }
            bytes += message.body.len();
            end = view.after(start, message.seq + 1);
            messages.push(message.body.clone());
        }
        view.tail()
    }

    /// GET with `live`: joins the stream. While the store is left alone, it waits for it for a while: who wants to follow
    /// has time, and would only come again and again.
    pub async fn follow(&self, key: &StreamKey, from: ReadOffset) -> Result<Reader, OpError> {
        self.follow_among(key, from, usize::MAX).await
    }

    /// The same, unless the stream has so many live readers here already.
    pub async fn follow_among(&self, key: &StreamKey, from: ReadOffset, most: usize) -> Result<Reader, OpError> {
        match Reader::join(self.clone(), key.clone(), from, most).await {
            Err(OpError::Unavailable { retry_after, .. }) if retry_after.is_some() || self.suspended().is_some() => {}
            joined => return joined,
        }
        // Whether it is back or not, the second answer says.
        drop(timeout(READ_TIMEOUT, self.inner.upstream.reachable(key)).await);
        Reader::join(self.clone(), key.clone(), from, most).await
    }

    /// Whether the store answers.
    pub async fn ready(&self, within: std::time::Duration) -> Result<(), OpError> {
        Ok(self.inner.upstream.ready(within).await?)
    }

    /// What is not sent to the store for now, because it did not answer.
    #[must_use]
    pub fn suspended(&self) -> Option<Traffic> {
        Traffic::ALL.into_iter().find(|traffic| self.inner.upstream.is_suspended(*traffic))
    }

    /// Whether a write to a stream may be taken. If not, it would be refused whatever it holds, and need not be received:
    /// appends are not sent to the store, or the stream would be one too many that are active, of all or of its project.
    ///
    /// # Errors
    /// What the write would be answered.
    pub fn takes_writes(&self, key: &StreamKey) -> Result<(), OpError> {
        if self.inner.upstream.is_suspended(Traffic::Appends) {
            return Err(OpError::Unavailable { retry_after: None, cause: None });
        }
        if self.inner.streams.contains_key(key) { Ok(()) } else { self.allot(key, Need::Request).map(drop) }
    }

    async fn look(&self, key: &StreamKey, at: LookAt) -> Result<Look, OpError> {
        let look = self.ask(key, |reply| Message::Look { at, reply }).await?;
        match look.view.presence() {
            Presence::Here => Ok(look),
            Presence::SoftDeleted => Err(Refusal::SoftDeleted.into()),
            Presence::Absent => Err(Refusal::NotFound.into()),
        }
    }

    /// A place in the live feed for a reader that has none yet: there may be too many.
    pub(crate) async fn join_first(&self, key: &StreamKey, from: ReadOffset, most: usize) -> Result<Joined, OpError> {
        self.ask(key, |reply| Message::Join { from, arrival: Arrival::New { most }, reply }).await
    }

    /// A place in the live feed for a reader that was counted before.
    pub(crate) async fn join(&self, key: &StreamKey, from: ReadOffset) -> Result<Joined, OpError> {
        self.ask_owed(key, |reply| Message::Join { from, arrival: Arrival::Again, reply }).await
    }

    pub(crate) fn upstream(&self) -> &Arc<dyn Upstream> {
        &self.inner.upstream
    }

    pub(crate) fn clock(&self) -> &StoreClock {
        &self.inner.clock
    }

    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.inner.shutdown
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn history(&self, key: &StreamKey) -> History {
        self.history_by(key, self.inner.config.page_bytes)
    }

    /// The history of a stream for a live reader that is behind: in windows.
    pub(crate) fn replay(&self, key: &StreamKey) -> History {
        self.history_by(key, self.inner.config.window_bytes)
    }

    /// A claim on what readers that are behind may have in hand.
    pub(crate) fn window(&self) -> Window {
        self.inner.windows.claim()
    }

    fn history_by(&self, key: &StreamKey, page_bytes: usize) -> History {
        History { cache: Arc::clone(&self.inner.history), key: key.clone(), page_bytes }
    }

    /// Asks the stream's actor for a request.
    pub(crate) async fn ask<T>(&self, key: &StreamKey, message: impl FnMut(Reply<T>) -> Message) -> Result<T, OpError> {
        self.ask_for(Need::Request, key, message).await
    }

    /// Asks it for what may not be refused because of who else is there.
    pub(crate) async fn ask_owed<T>(
        &self,
        key: &StreamKey,
        message: impl FnMut(Reply<T>) -> Message,
    ) -> Result<T, OpError> {
        self.ask_for(Need::Owed, key, message).await
    }

    /// Asks the stream's actor, whichever lives: one that has retired gives the request back unseen.
    async fn ask_for<T>(
        &self,
        need: Need,
        key: &StreamKey,
        mut message: impl FnMut(Reply<T>) -> Message,
    ) -> Result<T, OpError> {
        loop {
            let handle = self.handle(key, need)?;
            let (reply, answer) = oneshot::channel::<Answer<T>>();
            if handle.send(message(reply)).await.is_err() {
                tokio::task::yield_now().await;
                continue;
            }
            match answer.await {
                Ok(Ok(result)) => return result,
                Ok(Err(actor::Retired)) => {}
                // The actor ended without a word, which only a broken invariant can do: what it had begun is unknown.
                Err(_) => return Err(OpError::OutcomeUnknown),
            }
        }
    }

    fn handle(&self, key: &StreamKey, need: Need) -> Result<StreamHandle, OpError> {
        let active = || self.inner.streams.get(key).map(|slot| slot.handle.clone());
        if let Some(handle) = active() {
            return Ok(handle);
        }
        if self.inner.shutdown.is_cancelled() {
            return Err(OpError::Draining);
        }
        let allotment = match self.allot(key, need) {
            Ok(allotment) => allotment,
            // Somebody else's request may have taken the last place, for this very stream.
            Err(refused) => return active().ok_or(refused),
        };
        match self.inner.streams.entry(key.clone()) {
            Entry::Occupied(slot) => Ok(slot.get().handle.clone()),
            Entry::Vacant(vacant) => {
                let generation = self.inner.generations.fetch_add(1, Ordering::Relaxed);
                let handle = self.spawn(key, generation);
                vacant.insert(Slot { handle: handle.clone(), generation, _allotment: allotment });
                Ok(handle)
            }
        }
    }

    fn spawn(&self, key: &StreamKey, generation: u64) -> StreamHandle {
        let inner = &self.inner;
        let seed = actor::Seed {
            key: key.clone(),
            upstream: Arc::clone(&inner.upstream),
            config: Arc::clone(&inner.config),
            metrics: inner.metrics.clone(),
            clock: Arc::clone(&inner.clock),
            rings: Arc::clone(&inner.rings),
            history: Arc::clone(&inner.history),
            tracker: inner.tracker.clone(),
            shutdown: inner.shutdown.clone(),
            chores: inner.chores.clone(),
        };
        let (registry, key) = (Arc::downgrade(inner), key.clone());
        seed.spawn(move || {
            if let Some(inner) = registry.upgrade() {
                inner.streams.remove_if(&key, |_, slot| slot.generation == generation);
            }
        })
    }

    /// Carries what a stream's end leaves to be done in others, one after the other.
    async fn do_chores(self, mut chores: mpsc::Receiver<Chore>) {
        let shutdown = self.inner.shutdown.clone();
        loop {
            let chore = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                chore = chores.recv() => chore,
            };
            let Some(chore) = chore else { return };
            while let Err(error) = self.do_chore(&chore).await {
                debug!(?chore, %error, "a chore was not done");
                // While the store is away, so is all that the other chores would ask it; a place they all need.
                if !matches!(error, OpError::Unavailable { .. } | OpError::OutcomeUnknown | OpError::TooManyStreams) {
                    break;
                }
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(self.config().chance.jittered(CHORE_AGAIN)) => {}
                }
            }
        }
    }

    async fn do_chore(&self, chore: &Chore) -> Result<(), OpError> {
        match chore {
            Chore::Release { source, reference } => {
                self.ask_owed(source, |reply| Message::Release { reference: reference.clone(), reply }).await
            }
            Chore::List(listing) => self.list(listing).await,
        }
    }
}

/// An offset that a fork names, where it points nowhere.
pub(crate) fn misplaced_fork(misplaced: Misplaced) -> crate::ops::ForkError {
    match misplaced {
        Misplaced::Beyond => crate::ops::ForkError::OffsetBeyond,
        Misplaced::Gone { .. } => crate::ops::ForkError::OffsetGone,
    }
}
