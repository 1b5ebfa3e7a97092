//! What follows when a flight has ended.

use tailwater_log::{Condition, NewRecord, Reference, Refusal, Token};
use tailwater_protocol::Offset;
use tailwater_upstream::{AppendAck, AppendError};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Flight, Gate, Mark, Planned, Write, WriteKind, Wrote};
use crate::{
    actor::{Actor, Chore, Phase, Reply, answer, stream_key, stream_name},
    config::{LOST_RACES, MARK_AGAIN, MAX_TRIES, TURN},
    metrics::WriteOutcome,
    ops::{Appended, Created, Head, OpError},
    settle::{Settled, failed},
    sweep::Listing,
};

/// A write that has landed, and whose answer needs the log folded up to it.
pub(super) enum After {
    Appended { reply: Reply<Appended>, end: Option<u64>, closed: bool },
    Created(Reply<Created>),
    Deleted(Reply<()>),
    Referred { incarnation: u64, reply: Reply<()> },
    Released(Reply<()>),
    Expired,
    Marked,
}

impl After {
    /// The actor ends before the log is folded up to it. It has landed all the same; what cannot be said any more is
    /// which offset it has.
    pub(super) fn fail(self) {
        match self {
            Self::Appended { reply, .. } => answer(reply, Err(OpError::OutcomeUnknown)),
            Self::Created(reply) => answer(reply, Err(OpError::OutcomeUnknown)),
            Self::Deleted(reply) | Self::Referred { reply, .. } | Self::Released(reply) => {
                answer(reply, Err(OpError::OutcomeUnknown));
            }
            Self::Expired | Self::Marked => {}
        }
    }
}

impl Actor {
    pub(in crate::actor) fn on_wrote(&mut self, wrote: Wrote) {
        self.writes.flights.end();
        match wrote {
            Wrote::Batch { flight, writes, records, condition, settled } => match settled {
                Settled::Landed(ack) => self.on_landed(writes, records, ack),
                Settled::Refused { token } => self.on_refused(&flight, writes, condition, token.as_ref()),
                Settled::Failed(error) => self.on_failed(writes, error),
                Settled::Unknown => {
                    self.seed.metrics.wrote(WriteOutcome::Unknown);
                    warn!(stream = %self.seed.key, "the fate of an append is not known");
                    self.fail_writes(writes.into_iter().map(|(write, _)| write), &OpError::OutcomeUnknown);
                }
            },
            Wrote::Pieces { flight, write, uploaded } => self.on_uploaded(&flight, write, uploaded),
        }
        if !self.writes.flights.are_under_way() {
            self.take_up_refused();
        }
    }

    fn on_failed(&mut self, writes: Vec<(Write, Planned)>, error: AppendError) {
        self.seed.metrics.wrote(WriteOutcome::Failed);
        if matches!(error, AppendError::Busy { .. }) {
            // That the store is left alone is logged where that is decided, not for each stream.
            debug!(stream = %self.seed.key, "the store takes no append now");
            self.put_off_marks(&writes);
        } else {
            warn!(stream = %self.seed.key, error = &error as &dyn std::error::Error, "an append failed");
        }
        let error = failed(error);
        self.fail_writes(writes.into_iter().map(|(write, _)| write), &error);
    }

    /// A mark that the store would not take is tried again later than usual: while it is away, each stream with a lifetime
    /// and readers has one.
    fn put_off_marks(&mut self, writes: &[(Write, Planned)]) {
        if writes.iter().any(|(write, _)| matches!(write.kind, WriteKind::Mark(_))) {
            self.next_tick = Instant::now() + self.seed.config.chance.jittered(MARK_AGAIN);
        }
    }

    fn fail_writes(&mut self, writes: impl Iterator<Item = Write>, error: &OpError) {
        for write in writes {
            if matches!(write.kind, WriteKind::Mark(Mark::Trim)) {
                self.leave_the_trim();
            }
            write.fail(error);
        }
        self.resume_put_off();
    }

    /// What could not be trimmed is left to the sweep: nobody may ever ask for this stream again.
    fn leave_the_trim(&self) {
        let Some(life) = self.state.incarnation() else { return };
        let (incarnation, at_ms) = (life.open.incarnation, self.state.clock_ms());
        self.leave(Chore::List(Listing { key: self.seed.key.clone(), incarnation, at_ms }));
    }

    fn on_landed(&mut self, writes: Vec<(Write, Planned)>, records: Vec<NewRecord>, ack: AppendAck) {
        self.seed.metrics.wrote(WriteOutcome::Landed);
        self.writes.races = 0;
        let whole = writes.iter().find_map(|(write, _)| match &write.kind {
            WriteKind::Append(write) => write.uploaded.as_ref().map(|uploaded| uploaded.whole.clone()),
            WriteKind::Create(write) => write.whole.clone(),
            WriteKind::Mark(_) => None,
        });
        for (write, planned) in writes {
            self.complete(write.kind, &planned, ack);
        }
        if self.phase == Phase::Serving && ack.start.seq > self.state.next() && self.writes.flights.are_under_way() {
            self.seed.clock.learn(ack.end.timestamp);
            self.present.known(ack.end.seq);
            self.writes.flights.keep_ahead(records, ack);
        } else {
            self.take_own(records, whole.as_ref(), ack);
        }
        self.finish_writes();
    }

    /// Folds what has landed behind batches whose acks came later, as far as it follows on what is folded now.
    pub(in crate::actor) fn take_ahead(&mut self) {
        while self.phase == Phase::Serving
            && let Some((records, ack)) = self.writes.flights.next_ahead(self.state.next())
        {
            self.take_own(records, None, ack);
        }
    }

    fn complete(&mut self, kind: WriteKind, planned: &Planned, ack: AppendAck) {
        let end = planned.messages_end.map(|end| ack.start.seq + end as u64);
        let after = match kind {
            WriteKind::Append(write) => match (end, planned.birth, planned.closes) {
                (Some(seq), Some(birth), false) => {
                    let next = Offset { birth, seq };
                    return answer(write.reply, Ok(Appended::Landed { next, closed: false }));
                }
                _ => After::Appended { reply: write.reply, end, closed: planned.closes },
            },
            WriteKind::Create(write) => After::Created(write.reply),
            WriteKind::Mark(mark) => match mark {
                Mark::Delete(reply) => After::Deleted(reply),
                Mark::Refer { reference, reply, .. } => After::Referred { incarnation: reference.incarnation, reply },
                Mark::Release { reply, .. } => After::Released(reply),
                Mark::Expire => After::Expired,
                Mark::Touch | Mark::Checkpoint => After::Marked,
                Mark::Trim => return,
                Mark::Turn => {
                    // The turn is in the token: what follows is decided on a state that knows it.
                    if self.writes.gate == Gate::Open {
                        self.writes.gate = Gate::At(ack.end.seq);
                    }
                    return;
                }
            },
        };
        self.writes.after.push((ack.end.seq, after));
    }

    /// Answers what had to wait for the fold.
    pub(in crate::actor) fn finish_writes(&mut self) {
        let next = self.state.next();
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.writes.after).into_iter().partition(|(at, _)| *at <= next);
        self.writes.after = waiting;
        for (_, after) in ready {
            self.finish(after);
        }
    }

    fn finish(&mut self, after: After) {
        match after {
            After::Appended { reply, end, closed } => {
                let tail = self.state.tail_offset();
                let next = end.map_or(tail, |seq| Offset { birth: self.state.own_birth(), seq });
                answer(reply, Ok(Appended::Landed { next, closed }));
            }
            After::Created(reply) => {
                let head = Head::of(&self.state, &self.seed.config);
                answer(reply, Ok(Created { fresh: true, head }));
            }
            After::Deleted(reply) => {
                self.clear_away();
                answer(reply, Ok(()));
            }
            After::Expired => {
                self.clear_away();
                self.resume_put_off();
            }
            After::Released(reply) => {
                self.clear_away();
                answer(reply, Ok(()));
            }
            After::Referred { incarnation, reply } => {
                let life = self.state.incarnation();
                let counted = life.is_some_and(|life| life.references.contains_key(&incarnation));
                answer(reply, if counted { Ok(()) } else { Err(Refusal::TooManyForks.into()) });
            }
            After::Marked => self.resume_put_off(),
        }
    }

    /// A stream that is gone and that no fork needs: its data goes, and it lets go of its own source. One that forks
    /// still need is looked after.
    fn clear_away(&mut self) {
        let Some(life) = self.state.incarnation().filter(|life| life.gone.is_some()) else {
            return self.queue_trim();
        };
        let incarnation = life.open.incarnation;
        if life.is_soft_deleted() {
            let at_ms = self.state.clock_ms();
            return self.leave(Chore::List(Listing { key: self.seed.key.clone(), incarnation, at_ms }));
        }
        if let Some(fork) = &life.open.fork {
            let reference = Reference { incarnation, fork: stream_name(&self.seed.key) };
            self.leave(Chore::Release { source: stream_key(&fork.source), reference });
        }
        self.queue_trim();
    }

    fn leave(&self, chore: Chore) {
        if self.seed.chores.try_send(chore).is_err() {
            warn!(stream = %self.seed.key, "what the end of this stream leaves to be done is left to a sweep");
        }
    }

    /// The log, or the token, is not what the batch was decided on. It is decided again once nothing is in flight: what is
    /// may be refused, too, and all goes back to the queue in the order in which it came.
    pub(super) fn on_refused(
        &mut self,
        flight: &Flight,
        writes: Vec<(Write, Planned)>,
        condition: Condition,
        token: Option<&Token>,
    ) {
        self.seed.metrics.wrote(WriteOutcome::Refused);
        let turn_moved = token.is_some_and(|token| self.state.token().differs_only_in_turn(token));
        if turn_moved {
            self.writes.turn_until = Some(Instant::now() + self.seed.config.chance.jittered(TURN));
        }
        if condition == Condition::TokenAndPosition && token.is_none() {
            self.writes.races += 1;
        }
        debug!(stream = %self.seed.key, races = self.writes.races, "a batch is decided again");
        self.writes.flights.set_aside(flight, writes);
    }

    /// Decides again what was refused, after a look at the log.
    fn take_up_refused(&mut self) {
        let refused = self.writes.flights.take_refused();
        if refused.is_empty() {
            return;
        }
        for (mut write, _) in refused.into_iter().rev() {
            write.tries += 1;
            match &mut write.kind {
                WriteKind::Create(create) => {
                    create.stream.request.content = create.messages.clone();
                    create.whole = None;
                }
                WriteKind::Mark(Mark::Delete(_) | Mark::Refer { .. } | Mark::Release { .. }) | WriteKind::Append(_) => {
                }
                // Whoever was first has changed what there is to do; it is found out anew.
                WriteKind::Mark(Mark::Expire | Mark::Touch | Mark::Checkpoint | Mark::Trim | Mark::Turn) => continue,
            }
            if write.tries > MAX_TRIES {
                write.fail(&OpError::Unavailable { retry_after: None, cause: None });
            } else {
                self.writes.put_back(write);
            }
        }
        if self.writes.races >= LOST_RACES {
            self.writes.races = 0;
            self.writes.queue.push_front(Write::new(WriteKind::Mark(Mark::Turn), true));
        }
        self.resume_put_off();
        self.writes.gate = Gate::NeedsCheck;
        self.check_from_now();
    }
}
