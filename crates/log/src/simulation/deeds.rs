//! What pods and native writers do, as values that can be drawn at random.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use tailwater_protocol::{ContentType, Lifetime, Offset, Producer, ProducerId, StreamSeq};

use super::{World, open};
use crate::{
    AppendRequest, BatchBuilder, Checkpoint, Condition, Content, CreateRequest, DeclaredConfig, Entry, Fork,
    GoneReason, Kind, Life, NewRecord, Reference, Segment, StreamName, Token, decide_existing, plan_checkpoint,
    plan_create, plan_gone, plan_ref, plan_touch, plan_trim, plan_unref,
};

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) pod: usize,
    /// How much the pod folds before it decides.
    pub(crate) folds: usize,
    /// What passes of S2's time before.
    pub(crate) wait_ms: u64,
    pub(crate) deed: Deed,
}

#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Append(Vec<Request>),
    Create {
        closed: bool,
        messages: usize,
        forked: bool,
    },
    End(GoneReason),
    Trim,
    Touch,
    Ref,
    Unref,
    Checkpoint,
    /// `[checkpoint, trim]`, as retention does it.
    Retain {
        keep: u64,
    },
    MoveToken,
    /// A native writer appends.
    Native(Vec<Bytes>),
    /// A native writer fences its own stream.
    NativeFence,
    /// A native writer writes what looks like a checkpoint.
    Forge {
        as_of: u64,
    },
}

/// An append whose claim is completed from the pod's state, so that many are accepted.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    content: Content,
    claim: Option<(u8, u64, Option<u64>)>,
    stream_seq: Option<u8>,
    close: bool,
}

pub(crate) fn tasks(count: Range<usize>) -> impl Strategy<Value = Vec<Task>> {
    let folds = prop_oneof![4 => Just(usize::MAX), 1 => 0..20usize];
    let task = (0..3usize, folds, 0..2_000u64, deeds());
    let task = task.prop_map(|(pod, folds, wait_ms, deed)| Task { pod, folds, wait_ms, deed });
    let fenced = Task { pod: 0, folds: 0, wait_ms: 0, deed: Deed::NativeFence };
    (option::weighted(0.1, Just(fenced)), vec(task, count)).prop_map(|(fenced, mut tasks)| {
        let halfway = tasks.len() / 2;
        fenced.into_iter().for_each(|fenced| tasks.insert(halfway, fenced));
        tasks
    })
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => vec(requests(), 1..5).prop_map(Deed::Append),
        2 => bodies(30..60).prop_map(|bodies| Deed::Append(vec![Request::plain(bodies)])),
        4 => (any::<bool>(), 0..4usize, any::<bool>())
            .prop_map(|(closed, messages, forked)| Deed::Create { closed: closed && messages > 1, messages, forked }),
        1 => prop_oneof![Just(GoneReason::Deleted), Just(GoneReason::Expired)].prop_map(Deed::End),
        2 => Just(Deed::Trim),
        1 => Just(Deed::Touch),
        1 => Just(Deed::Ref),
        2 => Just(Deed::Unref),
        2 => Just(Deed::Checkpoint),
        1 => (0..40u64).prop_map(|keep| Deed::Retain { keep }),
        1 => Just(Deed::MoveToken),
        3 => bodies(1..12).prop_map(Deed::Native),
        1 => (0..500u64).prop_map(|as_of| Deed::Forge { as_of }),
    ]
}

pub(crate) fn requests() -> impl Strategy<Value = Request> {
    let pieces = (any::<u64>(), vec(0..100u64, 0..6), 0..9_000u64);
    let content = prop_oneof![
        8 => bodies(1..4).prop_map(Content::Messages),
        1 => pieces.prop_map(|(body, pieces, bytes)| Content::Pieces { body, pieces, bytes }),
    ];
    let claim = option::of((0..4u8, 0..3u64, prop_oneof![3 => Just(None), 1 => (0..4u64).prop_map(Some)]));
    let close = prop_oneof![40 => Just(false), 1 => Just(true)];
    (content, claim, option::weighted(0.2, any::<u8>()), close).prop_map(|(content, claim, stream_seq, close)| {
        let content = if close && stream_seq.is_none() { Content::Messages(Vec::new()) } else { content };
        Request { content, claim, stream_seq, close }
    })
}

fn bodies(count: Range<usize>) -> impl Strategy<Value = Vec<Bytes>> {
    vec(vec(any::<u8>(), 0..24).prop_map(Bytes::from), count)
}

impl Request {
    fn plain(bodies: Vec<Bytes>) -> Self {
        Self { content: Content::Messages(bodies), claim: None, stream_seq: None, close: false }
    }

    /// The request, its claim the next one of its producer where it names none.
    pub(crate) fn on(&self, life: &Life) -> AppendRequest {
        let producer = self.claim.map(|(id, epoch, seq)| {
            let id = ProducerId::new(&format!("p{id}")).unwrap();
            let known = match life {
                Life::Opened(life) => life.producers.get(&id),
                Life::Native(_) => None,
            };
            let next = known.filter(|known| known.epoch == epoch).map_or(0, |known| known.seq + 1);
            Producer { id, epoch, seq: seq.unwrap_or(next) }
        });
        AppendRequest {
            content: self.content.clone(),
            content_type: Some(ContentType::default_binary()),
            producer,
            stream_seq: self.stream_seq.map(|seq| StreamSeq::new(&[seq]).unwrap()),
            close: self.close,
        }
    }
}

impl World {
    pub(crate) fn carry_out(&mut self, task: &Task) {
        self.log.now += task.wait_ms;
        let pod = task.pod % self.pods.len();
        self.pods[pod].catch_up(&self.log, task.folds);
        let state = self.pods[pod].state.clone();
        match &task.deed {
            Deed::Append(requests) => {
                let requests: Vec<AppendRequest> = requests.iter().map(|request| request.on(state.life())).collect();
                self.append(pod, &requests);
            }
            Deed::Create { closed, messages, forked } => self.create(pod, *closed, *messages, *forked),
            Deed::Trim => {
                if let Some(trim) = plan_trim(&state) {
                    self.log.append(&[trim], None, Some(&state.token().to_string()));
                }
            }
            Deed::MoveToken => {
                if let Some(moved) = state.token().with_turn(self.fresh_number()) {
                    let fence = NewRecord::fence(&moved.to_string());
                    self.log.append(&[fence], None, Some(&state.token().to_string()));
                }
            }
            Deed::Native(bodies) => self.native(&bodies.iter().cloned().map(NewRecord::message).collect::<Vec<_>>()),
            Deed::NativeFence => {
                if !matches!(self.truth.token(), Token::Ours(_)) {
                    self.native(&[NewRecord::fence("leader"), NewRecord::message(Bytes::from_static(b"mine"))]);
                }
            }
            Deed::Forge { as_of } => {
                let kind = Kind::Checkpoint(Checkpoint { as_of: *as_of, weight: 0 });
                let forged = Entry { stamp: None, kind }.encode(Bytes::from_static(b"\x01forged"));
                self.native(&[forged, NewRecord::message(Bytes::from_static(b"mine"))]);
            }
            Deed::End(_) | Deed::Touch | Deed::Ref | Deed::Unref | Deed::Checkpoint | Deed::Retain { .. } => {
                self.mark(pod, &task.deed);
            }
        }
        self.witness();
    }

    fn native(&mut self, batch: &[NewRecord]) {
        self.log.append(batch, None, None);
    }

    fn create(&mut self, pod: usize, closed: bool, messages: usize, forked: bool) {
        let state = self.pods[pod].state.clone();
        let declared = DeclaredConfig { content_type: None, lifetime: None, closed, visibility: None, fork: None };
        let native = self.native_defaults();
        if decide_existing(&state, &declared, &native).is_some() {
            return;
        }
        let fork = forked.then(|| fork_of(self.log.now - 7));
        let content = Content::Messages(vec![Bytes::from_static(b"first"); messages]);
        let lifetime = Lifetime::Ttl { seconds: 60 };
        let request =
            CreateRequest { open: crate::Open { fork, lifetime, ..open(self.fresh_number()) }, content, closed };
        let (plan, messages_end) = plan_create(&state, &request, self.pods[pod].batch());
        if let Some(start) = self.land(pod, &plan)
            && let Some(end) = messages_end
        {
            assert_eq!(self.truth.tail_offset().seq, start + end as u64);
        }
    }

    fn mark(&mut self, pod: usize, deed: &Deed) {
        let state = self.pods[pod].state.clone();
        let batch = self.pods[pod].batch();
        let plan = match deed {
            Deed::End(reason) => plan_gone(&state, *reason, batch).ok(),
            Deed::Touch => state.incarnation().and_then(|_| plan_touch(&state, batch).ok()),
            Deed::Ref => {
                let reference = Reference { incarnation: self.fresh_number(), fork: name("a fork") };
                let native = self.native_defaults();
                plan_ref(&state, reference, &native, batch).ok()
            }
            Deed::Unref => state
                .incarnation()
                .and_then(|life| life.references.iter().next())
                .and_then(|(id, fork)| plan_unref(&state, &Reference { incarnation: *id, fork: fork.clone() }, batch)),
            Deed::Checkpoint => plan_checkpoint(&state, batch),
            Deed::Retain { keep } => state.incarnation().filter(|life| life.gone.is_none()).map(|_| {
                let mut builder = BatchBuilder::new(&state, batch);
                builder.checkpoint();
                builder.push(Kind::Trim(state.next().saturating_sub(*keep)), Bytes::new());
                builder.finish(Condition::TokenAndPosition)
            }),
            Deed::Append(_)
            | Deed::Create { .. }
            | Deed::Trim
            | Deed::MoveToken
            | Deed::Native(_)
            | Deed::NativeFence
            | Deed::Forge { .. } => None,
        };
        if let Some(plan) = plan {
            self.land(pod, &plan);
        }
    }
}

pub(crate) fn name(stream: &str) -> StreamName {
    StreamName { project: Arc::from("p"), stream: Arc::from(stream) }
}

fn fork_of(birth: u64) -> Fork {
    let segment = Segment { birth, source: Some(name("source")), from: 2, to: 9 };
    Fork { source: name("source"), incarnation: 99, at: Offset { birth, seq: 9 }, sub_offset: 0, chain: vec![segment] }
}
