//! A pod's way to the store: it takes time, things go wrong on it, and it ends when the pod is killed.
//!
//! A killed pod is one whose way to the store has ended: what it still does reaches nobody, and its clients are cut off.
//! That it is killed between two writes is decided here, because here the second one is seen before it is sent.

use std::{
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tailwater_log::{Entry, Fork, HEADER, Kind, NewRecord, Open, VERSION};
use tailwater_protocol::Lifetime;
use tailwater_testkit::ScriptedUpstream;
use tailwater_upstream::{
    Append, AppendAck, AppendError, Fate, Page, Position, ReadError, ReadFrom, ReadSession, StreamKey, Upstream,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    faults::Faults,
    script::{Fault, FaultKind},
    trace::Trace,
};

/// What happens to an append on its way.
const APPEND_FAULTS: &[FaultKind] = &[
    FaultKind::AckLost,
    FaultKind::AckLate,
    FaultKind::AppendLate,
    FaultKind::AppendLaterStill,
    FaultKind::AppendNotSent,
    FaultKind::Busy,
    FaultKind::DeletionPending,
];
/// What happens only to an append that says itself that at most one of it can land: by its position, or by a fence. No
/// other is ever sent twice.
const REPEATS: &[FaultKind] = &[FaultKind::AppendTwice];

/// One pod's way to the store.
#[derive(Debug)]
pub struct Link {
    pod: usize,
    store: ScriptedUpstream,
    faults: Arc<Faults>,
    trace: Arc<Trace>,
    latency_ms: u64,
    next_version: bool,
    dice: Mutex<StdRng>,
    dead: CancellationToken,
    tries: AtomicU64,
}

/// What a link is made of.
pub struct LinkSeed {
    /// The number of its pod.
    pub pod: usize,
    /// The store.
    pub store: ScriptedUpstream,
    /// What waits to go wrong.
    pub faults: Arc<Faults>,
    /// Where to note what happens.
    pub trace: Arc<Trace>,
    /// The longest way, one way.
    pub latency_ms: u64,
    /// Whether the pod writes the next version of the envelope.
    pub next_version: bool,
    /// What the dice start from.
    pub seed: u64,
    /// The end of the pod.
    pub dead: CancellationToken,
}

impl Link {
    /// A link.
    #[must_use]
    pub fn new(seed: LinkSeed) -> Self {
        Self {
            pod: seed.pod,
            store: seed.store,
            faults: seed.faults,
            trace: seed.trace,
            latency_ms: seed.latency_ms,
            next_version: seed.next_version,
            dice: Mutex::new(StdRng::seed_from_u64(seed.seed)),
            dead: seed.dead,
            tries: AtomicU64::new(0),
        }
    }

    /// How many appends the pod has tried.
    #[must_use]
    pub fn tries(&self) -> u64 {
        self.tries.load(Ordering::Relaxed)
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.trace.note(format_args!("pod {}", self.pod), what);
    }

    /// One way of an operation; of a pod that is dead it has no end.
    async fn way(&self) {
        self.trace.count_operation();
        if self.latency_ms > 0 {
            let ms = self.dice.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..=self.latency_ms);
            sleep(Duration::from_millis(ms)).await;
        }
        if self.dead.is_cancelled() {
            pending::<()>().await;
        }
    }

    async fn die(&self, kind: FaultKind) {
        self.note(format_args!("is killed, {kind:?}"));
        self.dead.cancel();
        pending().await
    }

    /// Kills the pod before it sends the second of two writes.
    async fn kill_before(&self, kinds: &[Kind]) {
        for kind in kinds {
            let between = match kind {
                Kind::Open(open) => match **open {
                    Open { fork: Some(Fork { .. }), .. } => FaultKind::KillBeforeForkOpen,
                    Open { lifetime: Lifetime::Ttl { .. } | Lifetime::ExpiresAt { .. }, .. } => {
                        FaultKind::KillBeforeListedOpen
                    }
                    Open { .. } => continue,
                },
                Kind::Unref(_) => FaultKind::KillBeforeUnref,
                Kind::Trim(_) => FaultKind::KillBeforeTrim,
                Kind::Commit(_) => FaultKind::KillBeforeCommit,
                Kind::Message(_)
                | Kind::Piece(_)
                | Kind::Close(_)
                | Kind::Gone(_)
                | Kind::Touch
                | Kind::Ref(_)
                | Kind::Checkpoint(_)
                | Kind::Sub(_)
                | Kind::Unsub { .. }
                | Kind::Delivery(_)
                | Kind::Fence(_)
                | Kind::Skipped => continue,
            };
            if self.faults.for_pod(self.pod, between).is_some() {
                self.die(between).await;
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what else there is concerns no append")]
    async fn send(&self, key: &StreamKey, append: Append, fault: Option<Fault>) -> Result<AppendAck, AppendError> {
        let Some(Fault { ms, kind, .. }) = fault else { return self.store.append(key, append).await };
        self.note(format_args!("{kind:?} on {key}, {ms} ms"));
        match kind {
            FaultKind::AckLost => {
                drop(self.store.append(key, append).await);
                Err(unavailable(Fate::Unknown))
            }
            FaultKind::AckLate => {
                let answer = self.store.append(key, append).await;
                sleep(Duration::from_millis(ms)).await;
                answer
            }
            FaultKind::AppendLate => {
                sleep(Duration::from_millis(ms)).await;
                self.way().await;
                self.store.append(key, append).await
            }
            FaultKind::AppendLaterStill => {
                self.land_later(key, append, ms);
                Err(unavailable(Fate::Unknown))
            }
            FaultKind::AppendTwice => {
                let answer = self.store.append(key, append.clone()).await;
                // Of one that was refused nothing is on its way any more.
                if answer.is_ok() {
                    self.land_later(key, append, ms);
                }
                answer
            }
            FaultKind::AppendNotSent => Err(unavailable(Fate::NotAppended)),
            FaultKind::Busy => Err(AppendError::Busy { retry_after: None }),
            FaultKind::DeletionPending => Err(AppendError::DeletionPending),
            other => unreachable!("{other:?} does not wait for an append"),
        }
    }

    /// What is on its way arrives whatever becomes of the pod.
    fn land_later(&self, key: &StreamKey, append: Append, ms: u64) {
        let (store, key, trace) = (self.store.clone(), key.clone(), Arc::clone(&self.trace));
        tokio::spawn(async move {
            sleep(Duration::from_millis(ms)).await;
            let landed = store.land(&key, append);
            trace.note("store", format_args!("a late append to {key}: {}", told(&landed)));
        });
    }
}

#[async_trait]
impl Upstream for Link {
    async fn append(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        let kinds: Vec<Kind> = append.records.iter().filter_map(kind_of).collect();
        self.kill_before(&kinds).await;
        let append = if self.next_version { upgraded(append) } else { append };
        let asked = describe(&append, &kinds);
        self.way().await;
        let moves_turn = matches!(kinds.as_slice(), [Kind::Fence(token)] if !token.is_empty());
        let at_most_once = append.match_seq.is_some() || append.records.iter().any(NewRecord::is_fence);
        let repeated = if at_most_once { self.faults.for_stream(key, REPEATS) } else { None };
        let fault = repeated.or_else(|| self.faults.for_stream(key, APPEND_FAULTS));
        let answer = self.send(key, append, fault).await;
        self.note(format_args!("appends to {key}: {asked}: {}", told(&answer)));
        if moves_turn && answer.is_ok() && self.faults.for_pod(self.pod, FaultKind::KillAfterTurn).is_some() {
            self.die(FaultKind::KillAfterTurn).await;
        }
        self.way().await;
        answer
    }

    async fn read(&self, key: &StreamKey, from: ReadFrom, limit: usize) -> Result<Page, ReadError> {
        self.way().await;
        if self.faults.for_stream(key, &[FaultKind::ReadFails]).is_some() {
            return Err(unreadable());
        }
        let page = self.store.read(key, from, limit).await;
        let brought = page.as_ref().map_or(0, |page| page.records.len());
        self.note(format_args!("reads {key}, {from:?}: {brought} records"));
        self.way().await;
        page
    }

    async fn check_tail(&self, key: &StreamKey) -> Result<Position, ReadError> {
        self.way().await;
        if self.faults.for_stream(key, &[FaultKind::TailFails]).is_some() {
            return Err(unreadable());
        }
        let tail = self.store.check_tail(key).await;
        if let Some(late) = self.faults.for_stream(key, &[FaultKind::TailLate]) {
            sleep(Duration::from_millis(late.ms)).await;
        }
        self.way().await;
        tail
    }

    async fn read_session(&self, key: &StreamKey, seq: u64) -> Result<ReadSession, ReadError> {
        self.way().await;
        if self.faults.for_stream(key, &[FaultKind::SessionRefused]).is_some() {
            return Err(unreadable());
        }
        let session = self.store.read_session(key, seq).await?;
        Ok(session.take_until(self.dead.clone().cancelled_owned()).boxed())
    }

    async fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ReadError> {
        self.way().await;
        if self.faults.for_pod(self.pod, FaultKind::ListFails).is_some() {
            return Err(unreadable());
        }
        self.store.list(project, prefix, after, limit).await
    }

    async fn ready(&self, within: Duration) -> Result<(), ReadError> {
        self.store.ready(within).await
    }
}

fn kind_of(record: &NewRecord) -> Option<Kind> {
    Entry::decode(&record.clone().at(0, 0)).ok().map(|entry| entry.kind)
}

/// The same as a pod of the next version would write it: with fields at the end that this one does not know.
fn upgraded(mut append: Append) -> Append {
    for record in &mut append.records {
        for header in record.headers.iter_mut().filter(|header| header.name == HEADER) {
            let mut value = BytesMut::from(header.value.as_ref());
            value[0] = VERSION + 1;
            value.put_slice(b"new");
            header.value = value.freeze();
        }
    }
    append
}

/// A mark of the next version that this one may skip.
#[must_use]
pub fn next_mark() -> NewRecord {
    let header = tailwater_log::Header {
        name: Bytes::from_static(HEADER),
        value: Bytes::from_static(&[VERSION + 1, 99, 1, 1, 2, 3]),
    };
    NewRecord { headers: vec![header], body: Bytes::from_static(b"of the next version") }
}

fn describe(append: &Append, kinds: &[Kind]) -> String {
    let mut text = String::new();
    for (record, kind) in append.records.iter().zip(kinds).take(4) {
        let name = format!("{kind:?}");
        let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let body = String::from_utf8_lossy(&record.body[..record.body.len().min(12)]).into_owned();
        let body = if matches!(kind, Kind::Message(_)) { body } else { String::new() };
        text.push_str(&format!("{name} {body}, "));
    }
    let (token, seq) = (append.token.as_deref().unwrap_or("-"), append.match_seq);
    format!("{} records, {text}if {token} and {seq:?}", append.records.len())
}

fn told(answer: &Result<AppendAck, AppendError>) -> String {
    match answer {
        Ok(ack) => format!("{}..{}", ack.start.seq, ack.end.seq),
        Err(error) => format!("{error}"),
    }
}

fn unavailable(fate: Fate) -> AppendError {
    AppendError::Unavailable { fate, cause: "the script let it fail".into() }
}

fn unreadable() -> ReadError {
    ReadError::Unavailable { cause: "the script let it fail".into() }
}
