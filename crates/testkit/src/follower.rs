//! One read session as a state machine: where it stands, and what it yields next.
//!
//! As measured on S2: what lies behind is read in pages of up to 1,000 records or 1 MiB; at the tail the session goes
//! live and gets each append batch as it was appended; one that falls further behind than S2 keeps batches for reads
//! pages again. A trim is crossed in silence, unless the session was live. A session that lost its connection says so,
//! if it has yielded anything since it last did, and comes back by itself, to whatever stream then bears the name.

use std::{
    mem,
    task::{Poll, Waker},
};

use tailwater_log::MAX_BATCH_RECORDS;
use tailwater_upstream::{ReadError, ReadFrom, SessionEvent, StreamKey};

use crate::log::StreamLog;

/// What a session yields: an event, an error that ends it, or the end.
pub(crate) type Yield = Option<Result<SessionEvent, ReadError>>;

/// The state of one open session.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) key: StreamKey,
    /// The log that it is connected to; none while its connection is lost.
    pub(crate) log: Option<u64>,
    pub(crate) waker: Option<Waker>,
    /// The script keeps it from yielding anything.
    pub(crate) stalled: bool,
    next: u64,
    phase: Phase,
    /// The tail of the last `CaughtUp`.
    announced: Option<u64>,
    /// Whether it has yielded anything since it last said that it had lost its connection.
    has_yielded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    CatchingUp,
    Live,
    /// The script cut it: it yields an error next.
    Cut,
    Ended,
}

impl Follower {
    /// A session of `key` that starts at `next`, connected to `log`.
    pub(crate) fn new(key: StreamKey, log: u64, next: u64) -> Self {
        Self {
            key,
            log: Some(log),
            waker: None,
            stalled: false,
            next,
            phase: Phase::CatchingUp,
            announced: None,
            has_yielded: false,
        }
    }

    /// What the session yields next; pending when it stands at the tail of its log.
    pub(crate) fn step(&mut self, log: &StreamLog) -> Poll<Yield> {
        match self.phase {
            Phase::Ended => return Poll::Ready(None),
            Phase::Cut => return self.fail(ReadError::Unavailable { cause: "the session was cut".into() }),
            Phase::Live => {
                if let Some(batch) = log.recent_batch(self.next) {
                    return self.give(batch.to_vec());
                }
                if self.next < log.tail().seq {
                    self.phase = Phase::CatchingUp;
                }
            }
            Phase::CatchingUp => {}
        }
        let page = log.page(ReadFrom::Seq(self.next), MAX_BATCH_RECORDS);
        if !page.is_empty() {
            return self.give(page);
        }
        let tail = log.tail();
        self.next = tail.seq;
        self.phase = Phase::Live;
        if log.is_reaped() {
            return self.fail(ReadError::NotFound);
        }
        if self.announced == Some(tail.seq) {
            return Poll::Pending;
        }
        self.announced = Some(tail.seq);
        self.has_yielded = true;
        Poll::Ready(Some(Ok(SessionEvent::CaughtUp(tail))))
    }

    /// What it yields while its connection is lost: the word of that, once.
    pub(crate) fn step_lost(&mut self) -> Poll<Yield> {
        match mem::take(&mut self.has_yielded) {
            true => Poll::Ready(Some(Ok(SessionEvent::Stalled))),
            false => Poll::Pending,
        }
    }

    /// Whether it has to say that its connection is lost.
    pub(crate) fn has_loss_to_tell(&self) -> bool {
        self.log.is_none() && self.has_yielded && !self.is_over()
    }

    /// Ends the session with an error.
    pub(crate) fn fail(&mut self, error: ReadError) -> Poll<Yield> {
        self.phase = Phase::Ended;
        Poll::Ready(Some(Err(error)))
    }

    /// Lets the next step end it with an error.
    pub(crate) fn cut(&mut self) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Cut;
        }
    }

    /// Comes back after a lost connection. S2 refuses a start beyond the tail.
    pub(crate) fn reconnect(&mut self, id: u64, log: &StreamLog) -> Result<(), ReadError> {
        start_within(self.next, log)?;
        self.log = Some(id);
        self.phase = Phase::CatchingUp;
        self.announced = None;
        Ok(())
    }

    /// Whether it would yield something if it were polled.
    pub(crate) fn has_work(&self, log: &StreamLog) -> bool {
        match self.phase {
            Phase::Ended => false,
            Phase::Cut => true,
            Phase::CatchingUp | Phase::Live => {
                self.next < log.tail().seq || self.announced != Some(log.tail().seq) || log.is_reaped()
            }
        }
    }

    /// Whether the state of the log has no more say in what it yields.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Cut | Phase::Ended)
    }

    fn give(&mut self, records: Vec<tailwater_log::Record>) -> Poll<Yield> {
        self.next = records[records.len() - 1].seq + 1;
        self.has_yielded = true;
        Poll::Ready(Some(Ok(SessionEvent::Records(records))))
    }
}

/// Refuses a session's start beyond the tail.
pub(crate) fn start_within(seq: u64, log: &StreamLog) -> Result<(), ReadError> {
    let tail = log.tail().seq;
    if seq <= tail {
        return Ok(());
    }
    Err(ReadError::Refused { cause: format!("the start {seq} is beyond the tail {tail}").into() })
}
