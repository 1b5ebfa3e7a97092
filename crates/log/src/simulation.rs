//! For this crate's tests: an S2 log in memory, and pods that write to it by this crate's rules.
//!
//! What a pod does is decided on the state that it happens to have, which may be old; the log takes a batch only on the
//! conditions that S2 would check. [`World`] keeps the truth beside it: the fold of all that was ever appended.

use std::collections::HashSet;

use bytes::Bytes;
use tailwater_protocol::{ContentType, Lifetime, Producer};

use crate::{
    Activated, Activation, AppendRequest, BatchId, Condition, FoldError, Folded, Found, Life, NativeDefaults,
    NewRecord, Open, Outcome, Plan, Planner, Presence, Record, Step, StreamState, Token, Visibility, record::Command,
};

mod deeds;

pub(crate) use deeds::{name, requests, tasks};

/// One S2 stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// All that was ever appended, trimmed or not.
    pub(crate) records: Vec<Record>,
    /// The first record that is left.
    pub(crate) first: u64,
    pub(crate) token: String,
    pub(crate) now: u64,
}

impl Log {
    pub(crate) fn tail(&self) -> u64 {
        self.records.len() as u64
    }

    /// Appends all of a batch or nothing; gives the position of its first record.
    pub(crate) fn append(&mut self, batch: &[NewRecord], position: Option<u64>, token: Option<&str>) -> Option<u64> {
        assert!(!batch.is_empty() && batch.len() <= crate::MAX_BATCH_RECORDS, "{} records", batch.len());
        let bytes: usize = batch.iter().map(NewRecord::metered_bytes).sum();
        assert!(bytes <= crate::MAX_BATCH_BYTES, "{bytes} bytes");
        let start = self.tail();
        if token.is_some_and(|wanted| wanted != self.token) || position.is_some_and(|wanted| wanted != start) {
            return None;
        }
        for record in batch {
            let record = record.clone().at(self.tail(), self.now);
            match record.command() {
                Some(Command::Fence(token)) => self.token = token,
                Some(Command::Trim(before)) => self.first = self.first.max(before.min(record.seq + 1)),
                None => {}
            }
            self.records.push(record);
        }
        Some(start)
    }

    /// Lands a plan that was made on `state`.
    pub(crate) fn land(&mut self, state: &StreamState, plan: &Plan) -> Option<u64> {
        let position = match plan.condition {
            Condition::Token => None,
            Condition::TokenAndPosition => Some(state.next()),
        };
        self.append(&plan.records, position, Some(&state.token().to_string()))
    }

    /// At most 1,000 records, and no more than `bytes`, but one at least.
    fn page(&self, from: u64, limit: u64, bytes: usize) -> Vec<Record> {
        let start = usize::try_from(from.max(self.first)).unwrap().min(self.records.len());
        let mut left = bytes;
        let mut page = Vec::new();
        for record in self.records[start..].iter().take(usize::try_from(limit.min(1000)).unwrap()) {
            if !page.is_empty() && record.metered_bytes() > left {
                break;
            }
            left = left.saturating_sub(record.metered_bytes());
            page.push(record.clone());
        }
        page
    }

    /// What the store answers to a step of an activation.
    pub(crate) fn answer(&self, step: &Step, page_bytes: usize) -> Found {
        match step {
            Step::ReadLast(back) => Found::Records(self.page(self.tail().saturating_sub(*back), *back, page_bytes)),
            Step::ReadFrom(seq) => Found::Records(self.page(*seq, 1000, page_bytes)),
            Step::ProbeToken => {
                let clock_ms = self.records.last().map_or(0, |last| last.timestamp);
                Found::Token { token: self.token.clone(), tail: self.tail(), clock_ms }
            }
            Step::Done(_) => panic!("it is done"),
        }
    }

    /// Activates, and says how many answers that took.
    pub(crate) fn activate(&self, page_bytes: usize) -> (Activated, u32) {
        let mut activation = Activation::default();
        let mut step = activation.start();
        for answers in 0..10_000 {
            if let Step::Done(activated) = step {
                return (*activated, answers);
            }
            step = activation.on(self.answer(&step, page_bytes)).unwrap();
        }
        panic!("an activation ends");
    }

    /// The fold of the first records, from the very first on.
    pub(crate) fn fold_to(&self, next: u64) -> StreamState {
        fold(StreamState::default(), &self.records[..usize::try_from(next).unwrap()]).unwrap()
    }
}

pub(crate) fn fold(mut state: StreamState, records: &[Record]) -> Result<StreamState, FoldError> {
    for record in records {
        state.apply(record)?;
    }
    Ok(state)
}

/// One gateway process, as far as this stream is concerned.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) state: StreamState,
    pub(crate) writer: u64,
    pub(crate) counter: u64,
}

impl Pod {
    fn batch(&mut self) -> BatchId {
        self.counter += 1;
        BatchId { writer: self.writer, counter: self.counter }
    }

    /// Folds what has come; activates again where it was trimmed away.
    fn catch_up(&mut self, log: &Log, at_most: usize) {
        if self.state.next() < log.first {
            self.state = log.activate(crate::MAX_BATCH_BYTES).0.state;
            return;
        }
        let from = usize::try_from(self.state.next()).unwrap();
        let to = log.records.len().min(from.saturating_add(at_most));
        self.state = fold(self.state.clone(), &log.records[from..to]).unwrap();
    }
}

/// A log, its pods, and the truth.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) truth: StreamState,
    pub(crate) pods: Vec<Pod>,
    /// What was folded last of each record.
    pub(crate) folded: Vec<Folded>,
    names: u64,
    /// Claims that landed: a second landing would be a duplicate that a reader sees.
    claims: HashSet<(u64, Producer)>,
}

impl World {
    pub(crate) fn new(pods: u64) -> Self {
        let pod = |writer| Pod { state: StreamState::default(), writer, counter: 0 };
        Self {
            log: Log { now: 1_000, ..Log::default() },
            truth: StreamState::default(),
            pods: (0..pods).map(pod).collect(),
            folded: Vec::new(),
            names: 0,
            claims: HashSet::new(),
        }
    }

    fn fresh_number(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn native_defaults(&mut self) -> NativeDefaults {
        NativeDefaults {
            content_type: ContentType::default_binary(),
            visibility: Visibility::Public,
            incarnation: self.fresh_number(),
        }
    }

    /// Whatever has landed becomes part of the truth.
    fn witness(&mut self) {
        for at in self.folded.len()..self.log.records.len() {
            let folded = self.truth.apply(&self.log.records[at]).unwrap();
            self.folded.push(folded);
        }
    }

    fn land(&mut self, pod: usize, plan: &Plan) -> Option<u64> {
        let landed = self.log.land(&self.pods[pod].state, plan);
        self.witness();
        landed
    }

    /// Requests in as many batches as it takes to answer the first one; what becomes of the last batch is checked
    /// against what was judged.
    fn append(&mut self, pod: usize, requests: &[AppendRequest]) {
        let native = self.native_defaults();
        let batch = self.pods[pod].batch();
        let state = self.pods[pod].state.clone();
        let mut planner = Planner::new(&state);
        let outcomes: Vec<Outcome> = requests.iter().map(|request| planner.push(request, &native)).collect();
        if planner.is_empty() {
            return;
        }
        let plan = planner.finish(batch);
        if let Some(start) = self.land(pod, &plan) {
            self.check_landed(start, requests, &outcomes);
        }
    }

    fn check_landed(&mut self, start: u64, requests: &[AppendRequest], outcomes: &[Outcome]) {
        let life = self.truth.incarnation().expect("what was appended to has a life").clone();
        let mut expected_tail = None;
        for (request, outcome) in requests.iter().zip(outcomes) {
            let Outcome::Planned { messages_end, closes } = outcome else { continue };
            expected_tail = messages_end.map(|end| start + end as u64).or(expected_tail);
            if let Some(claim) = &request.producer {
                assert!(self.claims.insert((life.open.incarnation, claim.clone())), "{claim:?} landed twice");
                let known = life.producers.get(&claim.id).expect("an accepted claim is remembered");
                assert!((known.epoch, known.seq) >= (claim.epoch, claim.seq), "{claim:?} is forgotten");
            }
            assert_eq!(*closes, request.close);
            assert!(!closes || life.closed.is_some());
        }
        if let Some(tail) = expected_tail {
            assert_eq!(self.truth.tail_offset().seq, tail);
            assert_eq!(self.truth.tail_offset().birth, life.birth);
        }
    }
}

/// What readers, and those who answer them, see of a state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    presence: Presence,
    token: Token,
    next: u64,
    tail: Option<tailwater_protocol::Offset>,
}

impl View {
    pub(crate) fn of(state: &StreamState) -> Self {
        let here = state.presence() == Presence::Here;
        Self {
            presence: state.presence(),
            token: state.token().clone(),
            next: state.next(),
            tail: here.then(|| state.tail_offset()),
        }
    }
}

/// Two pods agree: about a life in all that there is to know, about none in what can be seen of it.
pub(crate) fn assert_agree(found: &StreamState, truth: &StreamState) {
    assert_eq!(View::of(found), View::of(truth));
    if matches!(found.life(), Life::Opened(_)) || truth.presence() != Presence::Absent {
        let same_life = found.incarnation().is_some() || truth.incarnation().is_none();
        assert!(same_life, "a life was not found: {truth:?}");
    }
    if found.incarnation().is_some() {
        assert_eq!(found, truth);
    }
}

pub(crate) fn open(incarnation: u64) -> Open {
    Open {
        incarnation,
        content_type: ContentType::default_binary(),
        lifetime: Lifetime::Forever,
        visibility: None,
        retention_ms: None,
        adopts_native: false,
        fork: None,
    }
}

pub(crate) fn append_request(bodies: &[&'static str]) -> AppendRequest {
    AppendRequest {
        content: crate::Content::Messages(bodies.iter().map(|body| Bytes::from_static(body.as_bytes())).collect()),
        content_type: Some(ContentType::default_binary()),
        producer: None,
        stream_seq: None,
        close: false,
    }
}

/// Whatever a state was made from, it can be asked everything.
pub(crate) fn assert_usable(state: &StreamState) {
    let _presence = state.presence();
    let tail = state.tail_offset();
    let _due = state.checkpoint_due();
    for seq in [0, tail.seq, state.next(), u64::MAX] {
        for birth in [0, tail.birth, state.own_birth(), u64::MAX] {
            let offset = tailwater_protocol::Offset { birth, seq };
            if let Ok(place) = state.resolve(offset) {
                let _inherited = state.inherited_before(offset, &name("fork"));
                let _offset = state.offset_at(place);
                let span = state.span_at(place);
                let _next = span.map(|span| state.after(place, span.to));
            }
        }
    }
    let start = state.start();
    let _span = state.span_at(start);
    if let Some(life) = state.incarnation() {
        let _times = (life.expires_at_ms(), life.lives_on_grace(u64::MAX), life.wants_touch(u64::MAX));
    }
    assert_eq!(StreamState::from_checkpoint(&state.to_checkpoint().1).as_ref(), Ok(state));
}
