//! What requests leave in the log beside messages: an `open`, a closure, an end, a producer's last number.
//!
//! A request without a message cannot be recognised by what it wrote. So these are judged from the log's side: whatever
//! stands there was asked for by somebody who was not told that it would not be.

use tailwater_log::GoneReason;
use tailwater_protocol::Producer;

use super::{Rule, Verdict};
use crate::{
    history::{Created, Fate, Told, What, Why, Wrote},
    trace,
    truth::{Life, Message},
};

/// A mark that clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Open,
    Close,
    Gone,
}

/// What a client knows of the mark that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knows {
    /// It stands there.
    Done,
    /// It does not, and never will.
    Refused,
    /// Nothing.
    Nothing,
}

impl Verdict<'_> {
    /// Every mark has an author: somebody who asked for it before it landed, and was not refused.
    pub(super) fn judge_marks(&mut self, history: &[Told]) {
        for life in &self.truth.lives {
            for (mark, at) in marks(life) {
                let asked = history.iter().filter(|told| told.key == life.key && told.from <= at);
                let asked: Vec<(&Told, Knows)> =
                    asked.filter_map(|told| asks_for(mark, &told.what).map(|knows| (told, knows))).collect();
                let is_author = |(told, knows): &&(&Told, Knows)| match knows {
                    Knows::Done => at < told.to,
                    Knows::Refused => false,
                    Knows::Nothing => true,
                };
                if asked.iter().any(|one| is_author(&one)) {
                    continue;
                }
                let refused = asked.iter().rfind(|(_, knows)| *knows == Knows::Refused).or_else(|| asked.last());
                let by = match refused {
                    Some((told, _)) => format!("client {} was told {}", told.who, trace::brief(&told.what)),
                    None => "nobody asked for it".to_owned(),
                };
                self.breach(Rule::Refused, format!("{mark:?} of {} has landed as batch {at}: {by}", life.key));
            }
        }
    }

    /// Whether what a producer was told of its numbers was so at some moment while it asked.
    pub(super) fn is_so_of_the_claim(&self, told: &Told, why: &Why) -> bool {
        let What::Wrote { claim: Some(claim), .. } = &told.what else { return false };
        self.truth.alive(&told.key, told.from, told.to).any(|life| {
            let accepted =
                |message: &Message| message.claim.clone().filter(|of| of.id == claim.id).map(|of| (message.landed, of));
            let accepted: Vec<(usize, Producer)> =
                life.messages.iter().filter_map(accepted).filter(|(landed, _)| *landed < told.to).collect();
            let before = accepted.iter().rfind(|(landed, _)| *landed < told.from);
            let meanwhile = accepted.iter().filter(|(landed, _)| *landed >= told.from);
            std::iter::once(before)
                .chain(meanwhile.map(Some))
                .any(|last| follows_from(why, claim, last.map(|(_, of)| of)))
        })
    }
}

/// Whether a claim is answered so where this is the last that was accepted of its producer (protocol, section 5.2.1).
fn follows_from(why: &Why, claim: &Producer, last: Option<&Producer>) -> bool {
    match (why, last) {
        (Why::Gap(expected), None) => claim.seq > 0 && *expected == 0,
        (Why::Gap(expected), Some(last)) => {
            claim.epoch == last.epoch && *expected == last.seq + 1 && claim.seq > *expected
        }
        (Why::Stale(current), Some(last)) => claim.epoch < last.epoch && *current == last.epoch,
        (Why::Stale(_), None)
        | (Why::NotFound | Why::SoftDeleted | Why::Closed | Why::Misplaced | Why::Later | Why::Other(_), _) => false,
    }
}

/// The marks of a life that somebody must have asked for. Streams expire by themselves, and whoever writes first to a
/// native one opens it.
fn marks(life: &Life) -> impl Iterator<Item = (Mark, usize)> {
    let opened = life.open.as_ref().is_some_and(|open| !open.adopts_native).then_some((Mark::Open, life.began));
    let closed = life.closed.map(|at| (Mark::Close, at));
    let gone = life.gone.filter(|(_, _, reason)| *reason == GoneReason::Deleted).map(|(at, ..)| (Mark::Gone, at));
    [opened, closed, gone].into_iter().flatten()
}

/// What a client knows of a mark, where it has asked for it.
fn asks_for(mark: Mark, what: &What) -> Option<Knows> {
    match (mark, what) {
        (Mark::Open, What::Created { answer, .. }) => Some(match answer {
            Created::Fresh => Knows::Done,
            Created::Existed | Created::Refused(_) => Knows::Refused,
            Created::Unknown => Knows::Nothing,
        }),
        (Mark::Close, What::Wrote { closes: true, answer, .. }) => Some(match answer {
            Wrote::Landed { .. } | Wrote::Duplicate => Knows::Done,
            Wrote::AlreadyClosed | Wrote::Refused(_) => Knows::Refused,
            Wrote::Unknown => Knows::Nothing,
        }),
        (Mark::Gone, What::Deleted(fate)) => Some(match fate {
            Fate::Done => Knows::Done,
            Fate::Refused(_) => Knows::Refused,
            Fate::Unknown => Knows::Nothing,
        }),
        (
            Mark::Open | Mark::Close | Mark::Gone,
            What::Wrote { .. }
            | What::Created { .. }
            | What::Deleted(_)
            | What::Looked(_)
            | What::Read(_)
            | What::Followed(_),
        ) => None,
    }
}
