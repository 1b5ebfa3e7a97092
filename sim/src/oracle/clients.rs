//! What single answers said: looks, reads, stretches of following, forks, deletes.

use bytes::Bytes;
use tailwater_fanout::Head;
use tailwater_protocol::{Offset, ReadOffset};
use tailwater_upstream::StreamKey;

use super::{Rule, Verdict, brief};
use crate::{
    history::{End, Fate, Followed, Given, Looked, Pages, Told, Why},
    truth::{Life, Message, Truth},
};

/// Messages of a life with the offset before each.
type View<'a> = Vec<(Offset, &'a Message)>;

impl Verdict<'_> {
    /// Finds a life for which nothing is wrong; where there is none, what is wrong with the last.
    fn any_life(&mut self, told: &Told, judge: impl Fn(&Truth, &Life) -> Result<(), (Rule, String)>) {
        let mut wrong = (Rule::True, "there was no such stream".to_owned());
        for life in self.truth.alive(&told.key, told.from, told.to) {
            match judge(self.truth, life) {
                Ok(()) => return,
                Err(found) => wrong = found,
            }
        }
        let (rule, what) = wrong;
        self.breach(rule, format!("client {}, {}: {what}", told.who, told.key));
    }

    pub(super) fn judge_looked(&mut self, told: &Told, looked: &Looked<Head>) {
        match looked {
            Looked::Nothing => {}
            Looked::Refused(why) => self.judge_why(told, why),
            Looked::Found(head) => self.any_life(told, |truth, life| {
                check_tail(&truth.view(life), life, head.tail, told)?;
                check_closed(life, head.closed, told)
            }),
        }
    }

    pub(super) fn judge_read(&mut self, told: &Told, read: &Looked<Pages>) {
        match read {
            Looked::Nothing => {}
            Looked::Refused(why) => self.judge_why(told, why),
            Looked::Found(pages) => self.any_life(told, |truth, life| {
                if !life.knows(pages.next.birth) {
                    return Err((Rule::Reader, format!("it was given offsets of another life: {}", pages.next)));
                }
                let view = truth.view(life);
                let start = truth_start(&view, pages.start);
                let given: Vec<Given> = vec![Given {
                    bytes: Bytes::from(pages.messages.concat()),
                    count: Some(pages.messages.len()),
                    next: pages.next,
                    closed: pages.closed && pages.whole,
                }];
                check_given(&view, life, (start, true), &given, told)?;
                if pages.whole {
                    check_tail(&view, life, pages.next, told)?;
                    check_closed(life, pages.closed, told)?;
                }
                Ok(())
            }),
        }
    }

    pub(super) fn judge_followed(&mut self, told: &Told, followed: &Followed) {
        if let Some(start) = followed.start {
            self.any_life(told, |truth, life| {
                let newest = followed.given.last().map_or(start, |given| given.next);
                if !life.knows(newest.birth) || !life.knows(start.birth) {
                    return Err((Rule::Reader, format!("it was given offsets of another life: {start}, {newest}")));
                }
                let view = truth.view(life);
                match followed.asked {
                    // The end of what is inherited is also the beginning of what is its own.
                    ReadOffset::At(asked)
                        if asked > start || view.iter().any(|(offset, _)| (asked..start).contains(offset)) =>
                    {
                        return Err((Rule::Reader, format!("it asked for {asked}, and was put at {start}")));
                    }
                    ReadOffset::Now => check_tail(&view, life, start, told)?,
                    ReadOffset::At(_) | ReadOffset::Start => {}
                }
                let from_start = followed.asked == ReadOffset::Start;
                let start = if from_start { truth_start(&view, start) } else { start };
                check_given(&view, life, (start, from_start), &followed.given, told)?;
                if followed.end == End::Closed {
                    check_closed(life, true, told)?;
                    check_tail(&view, life, newest, told)?;
                }
                Ok(())
            });
        }
        self.judge_end(told, followed);
    }

    /// A reader is told that its place is gone only if it is.
    fn judge_end(&mut self, told: &Told, followed: &Followed) {
        let asked = match followed.asked {
            ReadOffset::At(asked) => Some(asked),
            ReadOffset::Start | ReadOffset::Now => None,
        };
        let stood = followed.given.last().map(|given| given.next).or(followed.start).or(asked);
        let is_gone = |life: &Life| {
            let still = life.began < told.from && !life.is_over_by(told.to);
            let trimmed = stood.is_some_and(|at| at.seq < life.trimmed_by(told.to));
            !still || trimmed
        };
        let place_went = stood.is_none_or(|stood| {
            let mut of = self.truth.lives.iter().filter(|life| life.key == told.key && life.knows(stood.birth));
            of.all(is_gone)
        });
        let (who, key) = (told.who, &told.key);
        match &followed.end {
            End::Left | End::Cut | End::Closed => {}
            End::Gone if self.truth.was_absent(key, told.from, told.to) && place_went => {}
            End::Reset(_) if place_went => {}
            End::Refused(Why::Misplaced) if place_went => {}
            End::Refused(Why::Misplaced) | End::Gone | End::Reset(_) => {
                let what = format!(
                    "client {who} stood at {stood:?} of {key}, which is there, and was told {:?}",
                    followed.end
                );
                self.breach(Rule::Reader, what);
            }
            End::Refused(why) => self.judge_why(told, why),
        }
    }

    /// What a fork inherits is a beginning of what its source shows, and at the source's tail all that was there when it
    /// was asked for.
    pub(super) fn judge_fork(&mut self, told: &Told, source: &StreamKey, at_tail: bool) {
        let source = source.clone();
        self.any_life(told, |truth, life| {
            let view = truth.view(life);
            let inherited = &view[..view.len() - life.messages.len()];
            let is_prefix = truth.alive(&source, told.from, told.to).any(|of| {
                let whole = truth.view(of);
                let before = whole.iter().filter(|(_, message)| message.landed < told.from).count();
                whole.len() >= inherited.len()
                    && whole.iter().zip(inherited).all(|(one, two)| one.0 == two.0)
                    && (!at_tail || inherited.len() >= before)
            });
            if is_prefix {
                return Ok(());
            }
            Err((Rule::Fork, format!("it inherits {} messages that {source} does not begin with", inherited.len())))
        });
    }

    pub(super) fn judge_deleted(&mut self, told: &Told, fate: &Fate) {
        match fate {
            Fate::Unknown => {}
            Fate::Refused(why) => self.judge_why(told, why),
            Fate::Done => self.any_life(told, |_, life| match life.gone {
                Some((at, ..)) if at < told.to => Ok(()),
                Some(_) | None => Err((Rule::Acked, "it was deleted, and is there".to_owned())),
            }),
        }
    }
}

/// The offset of what a read from the start begins with: before all that is there.
fn truth_start(view: &View<'_>, start: Offset) -> Offset {
    view.first().map_or(start, |(first, _)| start.min(*first))
}

/// A tail that was told was the tail at some moment in between.
fn check_tail(view: &View<'_>, life: &Life, tail: Offset, told: &Told) -> Result<(), (Rule, String)> {
    let before = view.iter().rev().find(|(_, message)| message.landed < told.from);
    if let Some((at, message)) = before
        && *at >= tail
    {
        return Err((Rule::Present, format!("{} was there before, and it was told {tail}", brief(&message.body))));
    }
    let behind = |(at, message): &(Offset, &Message)| {
        message.landed < told.to && (at.birth, at.seq + 1) == (tail.birth, tail.seq)
    };
    let at_the_end_of_what_is_inherited =
        life.chain.last().is_some_and(|last| (last.birth, last.to) == (tail.birth, tail.seq));
    let at_the_open = (tail.birth, tail.seq) == (life.birth, life.opened_at + 1);
    // Where a native log was trimmed, nobody can tell how long ago its last message was; any place behind it will do.
    let is_native = tail.birth == 0 && view.iter().all(|(at, message)| *at >= tail || message.landed < told.to);
    if view.iter().any(behind) || at_the_end_of_what_is_inherited || at_the_open || is_native {
        return Ok(());
    }
    Err((Rule::True, format!("{tail} was never its tail")))
}

fn check_closed(life: &Life, closed: bool, told: &Told) -> Result<(), (Rule, String)> {
    if closed && !life.is_closed_by(told.to) {
        return Err((Rule::True, "it was told that it is closed, and it is not".to_owned()));
    }
    if !closed && life.is_closed_by(told.from) {
        return Err((Rule::Closed, "it was closed before, and was told to be open".to_owned()));
    }
    Ok(())
}

/// What was given between two offsets is what stands between them. Whoever starts at the start may find that the oldest
/// have been trimmed.
fn check_given(
    view: &View<'_>,
    life: &Life,
    (start, may_skip): (Offset, bool),
    given: &[Given],
    told: &Told,
) -> Result<(), (Rule, String)> {
    let mut at = start;
    for (n, one) in given.iter().enumerate() {
        if one.next < at {
            return Err((Rule::Reader, format!("it went back from {at} to {}", one.next)));
        }
        let mut between: Vec<&Message> =
            view.iter().filter(|(offset, _)| (at..one.next).contains(offset)).map(|(_, message)| *message).collect();
        let whole: usize = between.iter().map(|message| message.body.len()).sum();
        if may_skip && n == 0 {
            let (mut bytes, trimmed) = (whole, life.trimmed_by(told.to));
            let mut skipped = 0;
            while bytes > one.bytes.len() && between.get(skipped).is_some_and(|message| message.seq < trimmed) {
                bytes -= between[skipped].body.len();
                skipped += 1;
            }
            between.drain(..skipped);
        }
        let expected: Vec<&[u8]> = between.iter().map(|message| message.body.as_ref()).collect();
        if expected.concat() != one.bytes || one.count.is_some_and(|count| count != between.len()) {
            let (expected, found) = (expected.concat(), &one.bytes);
            let differ = expected.iter().zip(found).take_while(|(one, two)| one == two).count();
            let what = format!(
                "from {at} to {} it was given {} bytes, {:?}, and there are {}, {:?}, which differ at {differ}",
                one.next,
                found.len(),
                brief(&found[..]),
                expected.len(),
                brief(&expected)
            );
            return Err((Rule::Reader, what));
        }
        if let Some(early) = between.iter().find(|message| message.landed >= told.to) {
            return Err((Rule::Reader, format!("it was given {} before it had landed", brief(&early.body))));
        }
        at = one.next;
    }
    Ok(())
}
