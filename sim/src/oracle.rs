//! Judges a history against the log: a pure function, so that its tests can show it broken histories.

mod clients;
mod marks;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use tailwater_log::GoneReason;
use tailwater_protocol::Producer;

use crate::{
    history::{Created, Told, What, Why, Wrote},
    truth::{Life, Message, Truth},
};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every acked message stands in the log once, where its answer said, when it was given, and in its writer's order.
    Acked,
    /// Nothing of a refused write, closure, creation or deletion ever does.
    Refused,
    /// No message stands in a life twice.
    Once,
    /// Every tuple of a producer is accepted at most once in a life, and in order.
    Tuple,
    /// A reader is given every message from its offset on, once and in order, or is told truly why not.
    Reader,
    /// Whoever asks after a write was acked, at whatever pod, sees it.
    Present,
    /// What is said of a stream was so while it was asked for.
    True,
    /// A closed stream stays closed.
    Closed,
    /// A fork begins with what its source held.
    Fork,
    /// A stream expires only when its time has come.
    Expiry,
    /// What stands in the log can be read.
    Log,
    /// All pods, and folds from checkpoints, come to one state.
    State,
    /// What is kept in memory stays within its budget.
    OverBudget,
    /// Everything is answered.
    Hangs,
    /// Nothing goes round and round without time passing.
    Spins,
    /// Whoever wants a turn gets one.
    Turn,
    /// What is over is told to all who wait, and cleared away.
    Ends,
    /// No invariant of the program's own breaks.
    Panic,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub rule: Rule,
    /// How.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// All that is wrong.
#[must_use]
pub fn judge(history: &[Told], truth: &Truth) -> Vec<Breach> {
    let mut verdict = Verdict { truth, breaches: Vec::new() };
    for fault in &truth.faults {
        verdict.breach(Rule::Log, fault.clone());
    }
    for life in &truth.lives {
        verdict.judge_life(life);
    }
    verdict.judge_writes(history);
    verdict.judge_marks(history);
    for told in history {
        verdict.judge_told(told);
    }
    verdict.breaches
}

pub(crate) struct Verdict<'a> {
    pub(crate) truth: &'a Truth,
    pub(crate) breaches: Vec<Breach>,
}

/// A short form of a message.
pub(crate) fn brief(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(24)]).into_owned()
}

impl Verdict<'_> {
    pub(crate) fn breach(&mut self, rule: Rule, what: String) {
        self.breaches.push(Breach { rule, what });
    }

    /// What the log says of one life by itself.
    fn judge_life(&mut self, life: &Life) {
        let mut bodies: BTreeMap<&Bytes, u64> = BTreeMap::new();
        let mut claims: BTreeMap<&str, &Producer> = BTreeMap::new();
        let mut number = None;
        for message in &life.messages {
            if let Some(before) = bodies.insert(&message.body, message.seq) {
                let (body, key) = (brief(&message.body), &life.key);
                self.breach(Rule::Once, format!("{body} stands in {key} at {before} and {}", message.seq));
            }
            if let Some(claim) = &message.claim {
                let before = claims.insert(claim.id.as_str(), claim);
                let follows = before.is_none_or(|before| match claim.epoch.cmp(&before.epoch) {
                    std::cmp::Ordering::Less => false,
                    std::cmp::Ordering::Equal => claim.seq == before.seq + 1,
                    std::cmp::Ordering::Greater => claim.seq == 0,
                });
                if !follows || before.is_none() && claim.seq != 0 {
                    self.breach(Rule::Tuple, format!("{claim:?} of {} stands behind {before:?}", life.key));
                }
            }
            if let Some(of_message) = &message.number {
                if number.is_some_and(|before| of_message <= before) {
                    self.breach(Rule::Tuple, format!("{of_message:?} of {} stands behind {number:?}", life.key));
                }
                number = Some(of_message);
            }
        }
        let Some((_, at_ms, GoneReason::Expired)) = life.gone else { return };
        if life.expires_ms().is_none_or(|expires| at_ms < expires) {
            let expires = life.expires_ms();
            self.breach(Rule::Expiry, format!("{} was ended at {at_ms} ms, and expires at {expires:?}", life.key));
        }
    }

    /// The attempts at each write together: one that is repeated may be refused the second time and stand there since
    /// the first.
    fn judge_writes(&mut self, history: &[Told]) {
        let mut attempts: BTreeMap<&Bytes, Vec<&Told>> = BTreeMap::new();
        for told in history {
            let first = match &told.what {
                What::Wrote { bodies, .. } | What::Created { bodies, .. } => bodies.first(),
                What::Deleted(_) | What::Looked(_) | What::Read(_) | What::Followed(_) => None,
            };
            if let Some(first) = first {
                attempts.entry(first).or_default().push(told);
            }
        }
        for attempts in attempts.values() {
            let refused = |told: &&Told| match &told.what {
                What::Wrote { answer, .. } => matches!(answer, Wrote::Refused(_) | Wrote::AlreadyClosed),
                What::Created { answer, .. } => matches!(answer, Created::Refused(_) | Created::Existed),
                What::Deleted(_) | What::Looked(_) | What::Read(_) | What::Followed(_) => false,
            };
            if attempts.iter().all(refused) {
                self.judge_refused(attempts[0]);
            }
            for told in attempts {
                self.judge_acked(told);
            }
        }
        self.judge_order(history);
    }

    fn judge_refused(&mut self, told: &Told) {
        let (What::Wrote { bodies, .. } | What::Created { bodies, .. }) = &told.what else { return };
        for body in bodies {
            if self.truth.lives.iter().any(|life| life.messages.iter().any(|message| message.body == *body)) {
                let (body, key) = (brief(body), &told.key);
                self.breach(Rule::Refused, format!("{body} of client {} was refused, and stands in {key}", told.who));
            }
        }
    }

    fn judge_acked(&mut self, told: &Told) {
        let (bodies, told_next) = match &told.what {
            What::Wrote { bodies, answer: Wrote::Landed { next, .. }, .. } => (bodies, Some(*next)),
            What::Wrote { bodies, answer: Wrote::Duplicate, .. } => (bodies, None),
            What::Created { bodies, answer: Created::Fresh, .. } => (bodies, None),
            What::Wrote { .. }
            | What::Created { .. }
            | What::Deleted(_)
            | What::Looked(_)
            | What::Read(_)
            | What::Followed(_) => return,
        };
        let Some(last) = bodies.last() else { return };
        let (who, key) = (told.who, &told.key);
        let lives: Vec<&Life> = self.truth.alive(key, told.from, told.to).collect();
        let found = lives.iter().filter_map(|life| {
            let at = life.messages.iter().position(|message| message.body == *last)?;
            let first = (at + 1).checked_sub(bodies.len())?;
            let run = &life.messages[first..=at];
            run.iter().zip(bodies).all(|(message, body)| message.body == *body).then_some((*life, &life.messages[at]))
        });
        let found: Vec<(&Life, &Message)> = found.collect();
        // What is known of a producer goes with the life: a claim that is sent twice may land once in each, and each ack
        // tells of its own.
        let as_told = |(life, message): &&(&Life, &Message)| {
            told_next.is_none_or(|next| (next.birth, next.seq) == (life.birth, message.seq + 1))
        };
        let Some((life, message)) = found.iter().find(as_told).or_else(|| found.first()) else {
            let told_next = told_next.map(|next| next.to_string());
            let what = format!("{} of client {who} was acked at {told_next:?}, and is not in {key}", brief(last));
            return self.breach(Rule::Acked, what);
        };
        let (landed, seq, birth) = (message.landed, message.seq, life.birth);
        if landed >= told.to {
            self.breach(Rule::Acked, format!("{} of client {who} was acked before it had landed", brief(last)));
        }
        if told_next.is_some_and(|next| (next.birth, next.seq) != (birth, seq + 1)) {
            let what = format!("{} of client {who} stands at {seq}, and was acked at {told_next:?}", brief(last));
            self.breach(Rule::Acked, what);
        }
    }

    /// What one client wrote one after the other stands in that order.
    fn judge_order(&mut self, history: &[Told]) {
        let mut newest: BTreeMap<(usize, u64, u64), (u64, &Bytes)> = BTreeMap::new();
        for told in history {
            let What::Wrote { bodies, answer: Wrote::Landed { next, .. }, claim: None, .. } = &told.what else {
                continue;
            };
            let Some(last) = bodies.last() else { continue };
            let of_log = self.truth.alive(&told.key, told.from, told.to).find(|life| life.birth == next.birth);
            let Some(log) = of_log.map(|life| life.log) else { continue };
            if let Some((before, body)) = newest.insert((told.who, log, next.birth), (next.seq, last))
                && before >= next.seq
            {
                let what = format!("{} of client {} stands before {}", brief(last), told.who, brief(body));
                self.breach(Rule::Acked, what);
            }
        }
    }

    fn judge_told(&mut self, told: &Told) {
        match &told.what {
            What::Wrote { answer, closes, .. } => match answer {
                Wrote::Refused(why) => self.judge_why(told, why),
                Wrote::AlreadyClosed => self.judge_why(told, &Why::Closed),
                Wrote::Landed { closed, .. } => {
                    let is_closed =
                        self.truth.alive(&told.key, told.from, told.to).any(|life| life.is_closed_by(told.to));
                    if (*closes || *closed) && !is_closed {
                        self.breach(Rule::Closed, format!("{} was closed, and is open", told.key));
                    }
                }
                Wrote::Duplicate | Wrote::Unknown => {}
            },
            What::Created { answer: Created::Refused(why), .. } => self.judge_why(told, why),
            What::Created { fork: Some((source, at_tail)), answer: Created::Fresh, .. } => {
                self.judge_fork(told, source, *at_tail);
            }
            What::Created { .. } => {}
            What::Deleted(fate) => self.judge_deleted(told, fate),
            What::Looked(looked) => self.judge_looked(told, looked),
            What::Read(read) => self.judge_read(told, read),
            What::Followed(followed) => self.judge_followed(told, followed),
        }
    }

    /// Whether a refusal is true.
    pub(crate) fn judge_why(&mut self, told: &Told, why: &Why) {
        let (key, truth) = (&told.key, self.truth);
        let holds = match why {
            Why::NotFound | Why::SoftDeleted => truth.was_absent(key, told.from, told.to),
            Why::Closed => truth.alive(key, told.from, told.to).any(|life| life.is_closed_by(told.to)),
            Why::Gap(_) | Why::Stale(_) => self.is_so_of_the_claim(told, why),
            Why::Misplaced | Why::Later => true,
            // What is left are conflicts of configuration, and what a broken log leads to.
            Why::Other(text) => !text.contains("cannot be read"),
        };
        if !holds {
            self.breach(Rule::True, format!("client {} was told {why:?} of {key}, which was not so", told.who));
        }
    }
}

impl Life {
    /// Whether it was closed by a moment.
    pub(crate) fn is_closed_by(&self, moment: usize) -> bool {
        self.closed.is_some_and(|at| at < moment)
    }
}
