//! Group commit: what is in flight is one batch, or a few whose order does not matter ([`flights`]); all else waits, and is
//! decided on the state that they leave.
//!
//! What waits for an append is judged by the pure planner and goes together in one batch. A batch whose condition did
//! not hold is decided again after a look at the log; its requests lose nothing but time. An answer that is not an ack
//! (a duplicate, a refusal) is only given on a state that was checked after the request arrived.

mod complete;
mod flights;
mod upload;
mod waiting;

use std::{collections::VecDeque, sync::Arc};

use tailwater_log::{
    AppendRequest, BatchId, Condition, Content, CreateOutcome, GoneReason, NewRecord, Outcome, Plan, Planner, Refusal,
    Token, decide_existing, plan_checkpoint, plan_create, plan_gone, plan_ref, plan_touch, plan_trim, plan_unref,
};
use tokio::time::Instant;

pub(crate) use self::waiting::NewStream;
use self::{
    complete::After,
    flights::{Flight, Flights, Room},
    upload::Uploaded,
    waiting::{AppendWrite, CreateWrite, Mark, Write, WriteKind},
};
use super::{Actor, Done, answer};
use crate::{
    chance::Chance,
    config::MAX_TRIES,
    ops::{Appended, Created, Head, OpError},
    settle::{Attempt, Settled},
};

/// What waits to be written, and what is under way.
pub(super) struct Writes {
    queue: VecDeque<Write>,
    flights: Flights<Vec<(Write, Planned)>>,
    /// What waits gathers until then, and may go beside what is in flight.
    gathers_until: Option<Instant>,
    gate: Gate,
    /// The turn of another pod, which has moved the token.
    turn_until: Option<Instant>,
    /// Positions lost to others, one after the other.
    races: u32,
    /// Writes that have landed, and whose answers need the log folded up to there.
    after: Vec<(u64, After)>,
    writer: u64,
    counter: u64,
    incarnation: u64,
}

/// Whether writes may be decided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// The state is not what the log says; a tail check that is sent from now on has to tell. One that is under way was
    /// sent too early.
    NeedsCheck,
    /// Such a check is under way.
    Checking,
    /// Once the log is folded up to there.
    At(u64),
}

/// What is remembered of a write while its batch is in flight.
pub(super) struct Planned {
    /// Where its messages end, counted from the batch's first record.
    messages_end: Option<usize>,
    closes: bool,
    /// The birth of its offsets, where that is known before the batch lands.
    birth: Option<u64>,
}

/// A flight that has ended.
pub(super) enum Wrote {
    Batch {
        flight: Flight,
        writes: Vec<(Write, Planned)>,
        records: Vec<NewRecord>,
        condition: Condition,
        settled: Settled,
    },
    Pieces {
        flight: Flight,
        write: Write,
        uploaded: Uploaded,
    },
}

impl Writes {
    pub(super) fn new(chance: &Chance) -> Self {
        Self {
            queue: VecDeque::new(),
            flights: Flights::default(),
            gathers_until: None,
            gate: Gate::Open,
            turn_until: None,
            races: 0,
            after: Vec::new(),
            writer: chance.number(),
            counter: 0,
            incarnation: chance.number(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.is_in_flight() && self.after.is_empty()
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.flights.are_under_way()
    }

    /// The incarnation that a native stream gets when this actor opens it.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(super) fn next_batch_id(&mut self) -> BatchId {
        self.counter += 1;
        BatchId { writer: self.writer, counter: self.counter }
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        let wakes = [self.turn_until, self.gathers_until];
        wakes.into_iter().flatten().filter(|_| !self.queue.is_empty()).min()
    }

    /// Whether a write needs the log folded beyond `next`.
    pub(super) fn waits_for(&self, next: u64) -> bool {
        matches!(self.gate, Gate::At(at) if at > next) || self.after.iter().any(|(at, _)| *at > next)
    }

    /// Whether a mark for the stream's lifetime waits or is under way.
    pub(super) fn has_lifetime_mark(&self) -> bool {
        let lifetime = |mark: &Mark| matches!(mark, Mark::Expire | Mark::Touch | Mark::Checkpoint);
        self.queue.iter().any(|write| matches!(&write.kind, WriteKind::Mark(mark) if lifetime(mark)))
    }

    /// A tail check is sent: it tells of all that was there when what waits now came.
    pub(super) fn check_sent(&mut self) {
        if self.gate == Gate::NeedsCheck {
            self.gate = Gate::Checking;
        }
    }

    /// The tail check that was under way has come back.
    pub(super) fn checked(&mut self, tail: u64) {
        if self.gate == Gate::Checking {
            self.gate = Gate::At(tail);
        }
    }

    /// The store cannot say what the log holds: nothing that waits for that can be decided. Whether anything did.
    pub(super) fn check_failed(&mut self, error: &OpError) -> bool {
        let waits = self.gate == Gate::Checking;
        if waits {
            self.gate = Gate::Open;
            for write in self.queue.drain(..) {
                write.fail(error);
            }
        }
        waits
    }

    /// What lies between the state and a position could not be read: what waits for that cannot be decided. What has
    /// landed is answered without it when it goes on for `too_long`.
    pub(super) fn gap_failed(&mut self, error: &OpError, too_long: bool) {
        if matches!(self.gate, Gate::At(_)) {
            self.gate = Gate::Open;
            for write in self.queue.drain(..) {
                write.fail(error);
            }
        }
        if too_long {
            for (_, after) in self.after.drain(..) {
                after.fail();
            }
        }
    }

    /// Before an activation: it finds at least what anything waits for.
    pub(super) fn forget(&mut self) {
        self.flights.forget_ahead();
        if matches!(self.gate, Gate::At(_)) {
            self.gate = Gate::At(0);
        }
        for (at, _) in &mut self.after {
            *at = 0;
        }
    }

    /// The actor ends; `None` is without fault, and another actor takes what was not begun.
    pub(super) fn fail_all(&mut self, error: &Option<OpError>) {
        let error = error.as_ref().map_or(OpError::Draining, OpError::again);
        self.gathers_until = None;
        let refused = self.flights.take_refused().into_iter().map(|(write, _)| write);
        for write in refused.chain(self.queue.drain(..)) {
            write.fail(&error);
        }
        for (_, after) in self.after.drain(..) {
            after.fail();
        }
    }

    fn put_back(&mut self, write: Write) {
        self.queue.push_front(write);
    }
}

impl Actor {
    /// Starts the next batch, where one may go.
    pub(super) fn pump_writes(&mut self) {
        while self.may_write() {
            let Some(write) = self.writes.queue.pop_front() else { return };
            match write.kind {
                WriteKind::Append(append) => self.plan_appends(*append, write.fresh, write.tries),
                WriteKind::Create(create) => self.plan_create(*create, write.fresh, write.tries),
                WriteKind::Mark(mark) => self.plan_mark(mark, write.fresh, write.tries),
            }
        }
    }

    fn may_write(&mut self) -> bool {
        if matches!(self.writes.gate, Gate::At(at) if self.state.next() >= at) {
            self.writes.gate = Gate::Open;
        }
        if self.writes.turn_until.is_some_and(|until| until <= Instant::now()) {
            self.writes.turn_until = None;
        }
        self.writes.gathers_until = None;
        if self.writes.queue.is_empty() || self.writes.gate != Gate::Open || self.writes.turn_until.is_some() {
            return false;
        }
        match self.writes.flights.room() {
            Room::Whole => true,
            Room::No => false,
            Room::Beside { from } if from > Instant::now() => {
                self.writes.gathers_until = Some(from);
                false
            }
            // Whatever else waits has waited for what is in flight alone, and takes along what came with it.
            Room::Beside { .. } => self.state.takes_plain_batches() && self.writes.queue.iter().all(Write::is_plain),
        }
    }

    /// Judges what waits in front, and starts one batch of all appends that go together.
    fn plan_appends(&mut self, first: AppendWrite, fresh: bool, tries: u32) {
        let batch = self.writes.next_batch_id();
        let native = self.native();
        let birth = self.state.incarnation().map(|life| life.birth);
        let mut queue = std::mem::take(&mut self.writes.queue);
        queue.push_front(Write { kind: WriteKind::Append(Box::new(first)), fresh, tries });
        let (mut planned, mut judged, mut large) = (Vec::new(), Vec::new(), None);
        let mut planner = Planner::new(&self.state);
        while let Some(Write { kind: WriteKind::Append(mut write), fresh, tries }) =
            queue.pop_front_if(|write| matches!(write.kind, WriteKind::Append(_)))
        {
            self.forget_lost_pieces(&mut write);
            if !write.request.content.fits_a_batch() {
                if !planner.is_empty() {
                    queue.push_front(Write { kind: WriteKind::Append(write), fresh, tries });
                    break;
                }
                // A body without pieces yet is judged as its commit would be, before anything of it is appended.
                let content = Content::Pieces { body: 0, pieces: Vec::new(), bytes: 0 };
                let AppendRequest { content_type, producer, stream_seq, close, .. } = &write.request;
                let commit = AppendRequest {
                    content,
                    content_type: content_type.clone(),
                    producer: producer.clone(),
                    stream_seq: stream_seq.clone(),
                    close: *close,
                };
                match Planner::new(&self.state).push(&commit, &native) {
                    Outcome::Planned { .. } => large = Some(Write { kind: WriteKind::Append(write), fresh, tries }),
                    outcome @ (Outcome::Duplicate { .. }
                    | Outcome::AlreadyClosed
                    | Outcome::Refused(_)
                    | Outcome::NotNow) => {
                        judged.push((write, fresh, tries, outcome));
                    }
                }
                break;
            }
            match planner.push(&write.request, &native) {
                Outcome::NotNow => {
                    queue.push_front(Write { kind: WriteKind::Append(write), fresh, tries });
                    break;
                }
                Outcome::Planned { messages_end, closes } => {
                    let write = Write { kind: WriteKind::Append(write), fresh, tries };
                    planned.push((write, Planned { messages_end, closes, birth }));
                }
                outcome @ (Outcome::Duplicate { .. } | Outcome::AlreadyClosed | Outcome::Refused(_)) => {
                    judged.push((write, fresh, tries, outcome));
                }
            }
        }
        let plan = (!planner.is_empty()).then(|| planner.finish(batch));
        self.writes.queue = queue;
        // Backwards, because what is decided again goes to the front of the queue.
        for (write, fresh, tries, outcome) in judged.into_iter().rev() {
            self.answer_append(write, fresh, tries, outcome);
        }
        match (plan, large) {
            (Some(plan), _) => self.fly(plan, planned),
            (None, Some(write)) => self.upload(write),
            (None, None) => {}
        }
    }

    /// Answers what needs no append; on a state that may be old, it looks first.
    fn answer_append(&mut self, write: Box<AppendWrite>, fresh: bool, tries: u32, outcome: Outcome) {
        if !fresh {
            return self.decide_again(Write { kind: WriteKind::Append(write), fresh: true, tries });
        }
        let next = self.state.tail_offset();
        let result = match outcome {
            Outcome::Duplicate { highest, closed } => {
                let closed = closed || self.state.incarnation().is_some_and(|life| life.closed.is_some());
                Ok(Appended::Duplicate { highest, next, closed })
            }
            Outcome::AlreadyClosed => Ok(Appended::AlreadyClosed { next }),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Planned { .. } | Outcome::NotNow => {
                return self.writes.put_back(Write { kind: WriteKind::Append(write), fresh, tries });
            }
        };
        answer(write.reply, result);
    }

    fn plan_create(&mut self, write: CreateWrite, fresh: bool, tries: u32) {
        let native = self.native();
        let existing = decide_existing(&self.state, &write.stream.declared, &native);
        if existing.is_some() && !fresh {
            return self.decide_again(Write { kind: WriteKind::Create(Box::new(write)), fresh: true, tries });
        }
        let head = || Head::of(&self.state, &self.seed.config);
        match existing {
            Some(CreateOutcome::Exists) => answer(write.reply, Ok(Created { fresh: false, head: head() })),
            Some(CreateOutcome::Conflict(field)) => answer(write.reply, Err(OpError::Conflict { field })),
            Some(CreateOutcome::Refused(refusal)) => answer(write.reply, Err(refusal.into())),
            Some(CreateOutcome::Create { .. }) | None if write.stream.compare_only => {
                answer(write.reply, Err(Refusal::NotFound.into()));
            }
            Some(CreateOutcome::Create { .. }) | None => {
                if !write.stream.request.content.fits_a_batch() {
                    return self.upload(Write { kind: WriteKind::Create(Box::new(write)), fresh, tries });
                }
                let batch = self.writes.next_batch_id();
                let (plan, messages_end) = plan_create(&self.state, &write.stream.request, batch);
                let closes = write.stream.request.closed;
                let write = Write { kind: WriteKind::Create(Box::new(write)), fresh, tries };
                self.fly(plan, vec![(write, Planned { messages_end, closes, birth: None })]);
            }
        }
    }

    fn plan_mark(&mut self, mark: Mark, fresh: bool, tries: u32) {
        let batch = self.writes.next_batch_id();
        let state = &self.state;
        let plan = match &mark {
            Mark::Delete(_) => plan_gone(state, GoneReason::Deleted, batch).map(Some),
            Mark::Expire if !self.has_expired() => Ok(None),
            Mark::Expire => plan_gone(state, GoneReason::Expired, batch).map(Some),
            Mark::Refer { life, .. } if !self.is_life(*life) => Err(Refusal::NotFound),
            Mark::Refer { reference, .. } => plan_ref(state, reference.clone(), &self.native(), batch).map(Some),
            Mark::Release { reference, .. } => Ok(plan_unref(state, reference, batch)),
            Mark::Touch if !self.wants_touch() => Ok(None),
            Mark::Touch => plan_touch(state, batch).map(Some),
            Mark::Checkpoint => Ok(plan_checkpoint(state, batch)),
            Mark::Trim => Ok(plan_trim(state).map(|trim| single(trim, batch))),
            Mark::Turn => {
                let moved = state.token().with_turn(self.seed.config.chance.number());
                Ok(moved.map(|token| single(NewRecord::fence(&token.to_string()), batch)))
            }
        };
        let write = |mark| Write { kind: WriteKind::Mark(mark), fresh, tries };
        match plan {
            Ok(Some(plan)) => {
                let planned = Planned { messages_end: None, closes: false, birth: None };
                self.fly(plan, vec![(write(mark), planned)]);
            }
            Ok(None) | Err(_) if !fresh => self.decide_again(Write { fresh: true, ..write(mark) }),
            Ok(None) => self.skip(mark),
            Err(refusal) => {
                mark.fail(&refusal.into());
                self.resume_put_off();
            }
        }
    }

    /// Whether this is still the life that a fork was decided on.
    fn is_life(&self, expected: Option<u64>) -> bool {
        match (expected, self.state.incarnation()) {
            (None, None) => true,
            (None, Some(life)) => life.open.adopts_native,
            (Some(expected), Some(life)) => life.open.incarnation == expected,
            (Some(_), None) => false,
        }
    }

    /// There is nothing to do for it.
    fn skip(&mut self, mark: Mark) {
        if let Mark::Release { reply, .. } = mark {
            return answer(reply, Ok(()));
        }
        self.resume_put_off();
    }

    /// Looks at the log, and takes the write up again on what it says now.
    fn decide_again(&mut self, write: Write) {
        if write.tries >= MAX_TRIES {
            return write.fail(&OpError::Unavailable { retry_after: None, cause: None });
        }
        self.writes.put_back(write);
        // Where several are judged together, the first has asked for a check, which is not sent before this turn.
        if self.writes.gate == Gate::Open {
            self.writes.gate = Gate::NeedsCheck;
            self.check_from_now();
        }
    }

    fn fly(&mut self, plan: Plan, writes: Vec<(Write, Planned)>) {
        let plain = plan.condition == Condition::Token
            && self.state.takes_plain_batches()
            && writes.iter().all(|(write, _)| write.is_plain());
        let flight =
            if plain { self.writes.flights.begin_plain(Instant::now()) } else { self.writes.flights.begin_alone() };
        let (records, condition) = (plan.records.clone(), plan.condition);
        let attempt = self.attempt(plan, self.state.token().clone(), self.state.next());
        self.start(async move {
            let settled = attempt.run(&|| writes.iter().any(|(write, _)| write.is_awaited())).await;
            Done::Wrote(Box::new(Wrote::Batch { flight, writes, records, condition, settled }))
        });
    }

    fn attempt(&self, plan: Plan, token: Token, next: u64) -> Attempt {
        let upstream = Arc::clone(&self.seed.upstream);
        Attempt::new(upstream, self.seed.key.clone(), plan, (token, next), (&self.seed.config).into())
    }
}

fn single(record: NewRecord, batch: BatchId) -> Plan {
    Plan { records: vec![record], condition: Condition::Token, batch }
}
