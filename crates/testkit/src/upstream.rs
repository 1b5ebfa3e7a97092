//! The scripted upstream: the model behind the `Upstream` trait, with faults, counters and back doors.

use std::{
    fmt, mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tailwater_log::{NewRecord, Record};
use tailwater_upstream::{
    Append, AppendAck, AppendError, Fate, Page, Position, ReadError, ReadFrom, ReadSession, SessionEvent, StreamKey,
    Upstream,
};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::timeout,
};

use crate::{
    clock::{START_MS, StoreClock},
    fault::{ANSWER_WITHIN, AppendFault, AppendHook, Faults, Outage, Queue, ReadFault, Script, SessionFault},
    store::{Landed, Store, Trims},
    tally::{AskedAppend, Counts},
};

/// The largest page of a listing.
const LIST_LIMIT: usize = 1000;

/// How a scripted store is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// When what was trimmed goes.
    pub trims: Trims,
    /// What [`Upstream::single_owner`] says.
    pub single_owner: bool,
    /// What the store's clock shows at first, in milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// Whether it remembers all that has ever landed.
    pub keeps_journal: bool,
}

/// A store in memory that does what its script says. Clones are the same store.
///
/// The methods of the `Upstream` trait are what the gateway under test uses: they meet faults and are counted. The
/// others are the test's own back doors: they always work, at once, and are not counted.
#[derive(Clone)]
pub struct ScriptedUpstream(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Apart from the state, so that a hook may look at the store.
    hook: Mutex<Option<AppendHook>>,
    counts: watch::Sender<Counts>,
    /// Rung when the state's outage is another one. Those who wait are woken in the order in which they came.
    outage_moved: Notify,
    clock: StoreClock,
    single_owner: bool,
}

#[derive(Debug)]
struct State {
    store: Store,
    outage: Outage,
    script: Script,
    asked: Vec<AskedAppend>,
    held: Vec<AskedAppend>,
    hung: Vec<(AskedAppend, oneshot::Sender<Result<AppendAck, AppendError>>)>,
}

/// An open session. It is counted for as long as it lives.
struct OpenSession {
    upstream: ScriptedUpstream,
    id: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { trims: Trims::AtOnce, single_owner: false, start_ms: START_MS, keeps_journal: false }
    }
}

impl ScriptedUpstream {
    /// An empty store. Tests with paused time make it inside the paused runtime.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                store: Store::new(settings.trims, settings.keeps_journal),
                outage: Outage::Over,
                script: Script::default(),
                asked: Vec::new(),
                held: Vec::new(),
                hung: Vec::new(),
            }),
            hook: Mutex::new(None),
            counts: watch::Sender::default(),
            outage_moved: Notify::new(),
            clock: StoreClock::starting_at(settings.start_ms),
            single_owner: settings.single_owner,
        }))
    }

    /// The clock that stamps records.
    #[must_use]
    pub fn clock(&self) -> &StoreClock {
        &self.0.clock
    }

    /// Where to put faults that the next operation on whatever stream meets.
    #[must_use]
    pub fn faults(&self) -> Faults<'_> {
        Faults::new(self, None)
    }

    /// Where to put faults that only operations on this stream meet.
    #[must_use]
    pub fn faults_of(&self, key: &StreamKey) -> Faults<'_> {
        Faults::new(self, Some(key.clone()))
    }

    /// Lets `hook` choose the fault of each append for which none is queued. It must not append itself.
    pub fn on_append(&self, hook: impl FnMut(&StreamKey, &Append) -> Option<AppendFault> + Send + 'static) {
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Begins or ends an outage. At the end of a silent one the hanging appends land, in order; where it turns into a
    /// refusing one they are lost.
    pub fn set_outage(&self, outage: Outage) {
        let now = self.now_ms();
        let answers = self.with_state(|state| {
            state.outage = outage;
            self.0.outage_moved.notify_waiters();
            state.store.set_down(outage != Outage::Over);
            let hung = if outage == Outage::Silent { Vec::new() } else { mem::take(&mut state.hung) };
            let mut land = |asked: AskedAppend| match outage {
                Outage::Over => state.store.append(&asked.key, asked.append, now),
                Outage::Refusing | Outage::Silent => Err(unavailable(Fate::Unknown)),
            };
            hung.into_iter().map(|(asked, reply)| (reply, land(asked))).collect::<Vec<_>>()
        });
        for (reply, answer) in answers {
            // Whoever asked may have given up; the append has landed all the same.
            drop(reply.send(answer));
        }
    }

    /// How many appends are [held](AppendFault::LandsLater).
    #[must_use]
    pub fn held(&self) -> usize {
        self.with_state(|state| state.held.len())
    }

    /// Lets the held appends arrive, in order, and says what became of each.
    pub fn release_held(&self) -> Vec<Result<AppendAck, AppendError>> {
        let now = self.now_ms();
        self.with_state(|state| {
            let held = mem::take(&mut state.held);
            held.into_iter().map(|asked| state.store.append(&asked.key, asked.append, now)).collect()
        })
    }

    /// Loses the held appends for good, and says how many.
    pub fn forget_held(&self) -> usize {
        self.with_state(|state| mem::take(&mut state.held).len())
    }

    /// Ends the open sessions of a stream with an error, and says how many.
    pub fn cut_sessions(&self, key: &StreamKey) -> usize {
        self.with_state(|state| state.store.cut_sessions(key))
    }

    /// Keeps the open sessions of a stream from yielding anything but the word that they have lost their connection, until
    /// they are resumed; says how many.
    pub fn stall_sessions(&self, key: &StreamKey) -> usize {
        self.with_state(|state| state.store.stall_sessions(key))
    }

    /// Lets stalled sessions go on. They come back as after a lost connection: they read what lies between in pages,
    /// cross a trim in silence, and say again when they have caught up.
    pub fn resume_sessions(&self, key: &StreamKey) {
        self.with_state(|state| state.store.resume_sessions(key));
    }

    /// Removes what was trimmed, where that waits for this call.
    pub fn settle_trims(&self) {
        self.with_state(|state| state.store.settle_trims());
    }

    /// Removes a stream that has nothing left, as S2's `delete_on_empty` does; false where it does not exist or still
    /// holds records. Open sessions see S2's last trim record, and end with `NotFound`. The name is free at once, and a
    /// stream that is created under it starts at 0.
    pub fn reap(&self, key: &StreamKey) -> bool {
        let now = self.now_ms();
        self.with_state(|state| state.store.reap(key, now))
    }

    /// Appends a batch of messages as a native writer does: without conditions, and without meeting faults.
    ///
    /// # Panics
    ///
    /// Where S2 would refuse the batch.
    pub fn append_native<B: Into<Bytes>>(&self, key: &StreamKey, bodies: impl IntoIterator<Item = B>) -> AppendAck {
        let records = bodies.into_iter().map(|body| NewRecord::message(body.into())).collect();
        self.land(key, Append::new(records)).expect("a batch within the limits and without conditions lands")
    }

    /// Appends as another process does whose way to the store is in order: no faults, no counting, real conditions.
    pub fn land(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        let now = self.now_ms();
        self.with_state(|state| state.store.append(key, append, now))
    }

    /// All records that a stream holds, command records among them; none where it does not exist.
    #[must_use]
    pub fn records(&self, key: &StreamKey) -> Vec<Record> {
        self.with_state(|state| state.store.records(key))
    }

    /// All that has ever landed on whatever stream, in order, where a [journal](Settings::keeps_journal) is kept.
    #[must_use]
    pub fn journal(&self) -> Vec<Landed> {
        self.with_state(|state| state.store.journal().to_vec())
    }

    /// How many batches the journal holds: a clock that moves with every append that lands.
    #[must_use]
    pub fn landed(&self) -> usize {
        self.with_state(|state| state.store.journal().len())
    }

    /// The fencing token in force, where the stream exists.
    #[must_use]
    pub fn token(&self, key: &StreamKey) -> Option<String> {
        self.with_state(|state| state.store.token(key))
    }

    /// The tail, where the stream exists.
    #[must_use]
    pub fn tail(&self, key: &StreamKey) -> Option<Position> {
        self.with_state(|state| state.store.tail(key).ok())
    }

    /// What was asked so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.0.counts.borrow()
    }

    /// Waits until what was asked is as wanted.
    pub async fn when(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.0.counts.subscribe();
        let found = counts.wait_for(wanted).await;
        *found.expect("the store holds the sender")
    }

    /// The appends that were asked for so far, in order, whatever became of them.
    #[must_use]
    pub fn asked(&self) -> Vec<AskedAppend> {
        self.with_state(|state| state.asked.clone())
    }

    /// How many open sessions have something to yield for which nobody has polled them yet. Once everything has come to
    /// rest it must be 0: a session that is not polled holds others up.
    #[must_use]
    pub fn sessions_behind(&self) -> usize {
        self.with_state(|state| state.store.sessions_behind())
    }

    pub(crate) fn with_script<R>(&self, act: impl FnOnce(&mut Script) -> R) -> R {
        act(&mut self.lock().script)
    }

    /// Does something to the state, and wakes whom it concerns once the lock is gone.
    fn with_state<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let woken = state.store.take_woken();
        drop(state);
        woken.into_iter().for_each(std::task::Waker::wake);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.0.counts.send_modify(change);
    }

    fn append_fault(&self, key: &StreamKey, append: &Append) -> Option<AppendFault> {
        if let Some(fault) = self.with_script(|script| script.appends.take(Some(key))) {
            return Some(fault);
        }
        let mut hook = self.0.hook.lock().unwrap_or_else(PoisonError::into_inner);
        hook.as_mut().and_then(|hook| hook(key, append))
    }

    /// Lands an append unless an outage is in the way.
    async fn arrive(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        let now = self.now_ms();
        let answer = self.with_state(|state| match state.outage {
            Outage::Over => Ok(state.store.append(key, append, now)),
            Outage::Refusing => Ok(Err(unavailable(Fate::NotAppended))),
            Outage::Silent => {
                let (reply, answer) = oneshot::channel();
                state.hung.push((AskedAppend { key: key.clone(), append }, reply));
                Err(answer)
            }
        });
        match answer {
            Ok(answer) => answer,
            Err(hangs) => match timeout(ANSWER_WITHIN, hangs).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Err(unavailable(Fate::Unknown)),
            },
        }
    }

    /// Waits until the store can be reached.
    async fn reach(&self, within: Duration) -> Result<(), ReadError> {
        let spoken = async {
            loop {
                // Listens before it looks, so that no end is missed.
                let mut moved = pin!(self.0.outage_moved.notified());
                moved.as_mut().enable();
                let outage = self.outage();
                if outage != Outage::Silent {
                    return outage;
                }
                moved.await;
            }
        };
        match timeout(within, spoken).await {
            Ok(Outage::Over) => Ok(()),
            Ok(Outage::Refusing | Outage::Silent) | Err(_) => Err(unreadable()),
        }
    }

    fn outage(&self) -> Outage {
        self.with_state(|state| state.outage)
    }

    /// Answers from the state, with the faults of a queue.
    async fn answer<R: Send>(
        &self,
        key: Option<&StreamKey>,
        queue: impl FnOnce(&mut Script) -> &mut Queue<ReadFault> + Send,
        look: impl Fn(&Store) -> Result<R, ReadError> + Send,
    ) -> Result<R, ReadError> {
        self.reach(ANSWER_WITHIN).await?;
        match self.with_script(|script| queue(script).take(key)) {
            None => look(&self.lock().store),
            Some(ReadFault::PauseBefore(pause)) => {
                pause.pass().await;
                self.reach(ANSWER_WITHIN).await?;
                look(&self.lock().store)
            }
            Some(ReadFault::PauseAfter(pause)) => {
                let answer = look(&self.lock().store);
                pause.pass().await;
                answer
            }
            Some(ReadFault::Fails) => Err(unreadable()),
            Some(ReadFault::Busy { retry_after }) => Err(ReadError::Busy { retry_after }),
            Some(ReadFault::Refused) => Err(ReadError::Refused { cause: "the script refused it".into() }),
        }
    }
}

impl Default for ScriptedUpstream {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl fmt::Debug for ScriptedUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedUpstream").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Upstream for ScriptedUpstream {
    async fn append(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        self.with_state(|state| state.asked.push(AskedAppend { key: key.clone(), append: append.clone() }));
        self.count(|counts| {
            counts.appends += 1;
            counts.append_records += append.records.len() as u64;
        });
        // A loop of appends must let others run, as it would over a network.
        tokio::task::consume_budget().await;
        if self.outage() != Outage::Over {
            return self.arrive(key, append).await;
        }
        match self.append_fault(key, &append) {
            None => self.arrive(key, append).await,
            Some(AppendFault::PauseBefore(pause)) => {
                pause.pass().await;
                self.arrive(key, append).await
            }
            Some(AppendFault::PauseAfter(pause)) => {
                let answer = self.arrive(key, append).await;
                pause.pass().await;
                answer
            }
            Some(AppendFault::NotSent) => Err(unavailable(Fate::NotAppended)),
            Some(AppendFault::AnswerLost) => {
                // Refused or not: the caller does not learn it.
                drop(self.arrive(key, append).await);
                Err(unavailable(Fate::Unknown))
            }
            Some(AppendFault::LandsLater) => {
                self.with_state(|state| state.held.push(AskedAppend { key: key.clone(), append }));
                Err(unavailable(Fate::Unknown))
            }
            Some(AppendFault::Busy { retry_after }) => Err(AppendError::Busy { retry_after }),
            Some(AppendFault::DeletionPending) => Err(AppendError::DeletionPending),
            Some(AppendFault::Refused) => Err(AppendError::Refused { cause: "the script refused it".into() }),
        }
    }

    async fn read(&self, key: &StreamKey, from: ReadFrom, limit: usize) -> Result<Page, ReadError> {
        self.count(|counts| counts.reads += 1);
        self.answer(Some(key), |script| &mut script.reads, |store| store.read(key, from, limit)).await
    }

    async fn check_tail(&self, key: &StreamKey) -> Result<Position, ReadError> {
        self.count(|counts| counts.tail_checks += 1);
        self.answer(Some(key), |script| &mut script.tails, |store| store.tail(key)).await
    }

    async fn read_session(&self, key: &StreamKey, seq: u64) -> Result<ReadSession, ReadError> {
        self.reach(ANSWER_WITHIN).await?;
        let fault = self.with_script(|script| script.sessions.take(Some(key)));
        match &fault {
            Some(SessionFault::PauseBefore(pause)) => {
                pause.pass().await;
                self.reach(ANSWER_WITHIN).await?;
            }
            Some(SessionFault::Fails) => return Err(unreadable()),
            Some(SessionFault::Busy { retry_after }) => return Err(ReadError::Busy { retry_after: *retry_after }),
            Some(SessionFault::Refused) => {
                return Err(ReadError::Refused { cause: "the script refused it".into() });
            }
            Some(SessionFault::Cut | SessionFault::Stall) | None => {}
        }
        let id = self.with_state(|state| {
            let id = state.store.open_session(key, seq)?;
            match fault {
                Some(SessionFault::Cut) => state.store.cut_session(id),
                Some(SessionFault::Stall) => state.store.stall_session(id),
                Some(
                    SessionFault::PauseBefore(_)
                    | SessionFault::Fails
                    | SessionFault::Busy { .. }
                    | SessionFault::Refused,
                )
                | None => {}
            }
            Ok(id)
        })?;
        Ok(OpenSession::new(self.clone(), id).boxed())
    }

    async fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ReadError> {
        self.count(|counts| counts.lists += 1);
        let limit = limit.min(LIST_LIMIT);
        self.answer(None, |script| &mut script.lists, |store| Ok(store.list(project, prefix, after, limit))).await
    }

    async fn ready(&self, within: Duration) -> Result<(), ReadError> {
        self.reach(within).await
    }

    fn single_owner(&self) -> bool {
        self.0.single_owner
    }
}

impl OpenSession {
    fn new(upstream: ScriptedUpstream, id: u64) -> Self {
        upstream.count(|counts| {
            counts.sessions_opened += 1;
            counts.sessions_open += 1;
        });
        Self { upstream, id }
    }
}

impl Stream for OpenSession {
    type Item = Result<SessionEvent, ReadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.upstream.count(|counts| counts.session_polls += 1);
        self.upstream.with_state(|state| state.store.poll_session(self.id, cx))
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.upstream.with_state(|state| state.store.close_session(self.id));
        self.upstream.count(|counts| counts.sessions_open -= 1);
    }
}

fn unavailable(fate: Fate) -> AppendError {
    AppendError::Unavailable { fate, cause: "the script let it fail".into() }
}

fn unreadable() -> ReadError {
    ReadError::Unavailable { cause: "the script let it fail".into() }
}
