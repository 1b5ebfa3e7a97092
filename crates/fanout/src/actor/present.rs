//! Answers of the present.
//!
//! Any pod can write to any stream at any time. So an answer that is not the ack of the request's own append needs a tail
//! check that was sent after the request arrived: one under way and one waiting, shared by all who need it. Where the
//! check shows records that are not folded yet, the session brings them, or the gap is read. A stream whose lifetime has
//! passed is ended before anything is said of it.

use tailwater_log::{Presence, Refusal};
use tailwater_protocol::Lifetime;
use tailwater_upstream::Position;
use tokio::time::Instant;
use tracing::debug;

use super::{Actor, Done, LookAt, Message, Phase, Request, later};
use crate::{
    batch::LogRecord,
    config::{SESSION_LAG, SESSION_RETRY},
    ops::OpError,
};

/// How many records may be missing before the log is looked into anew instead of read on.
const MAX_GAP: u64 = 4_000;
/// How often a gap is tried again before writes that have landed are answered without it.
const MAX_GAP_FAILURES: u32 = 5;
/// How often a request is put off for the sake of the stream's lifetime before it fails.
const MAX_PUT_OFF: u32 = 4;

/// What is known of the present, and who waits for it.
#[derive(Default)]
pub(super) struct Present {
    /// The log ends at least here.
    known_tail: u64,
    checking: bool,
    /// Where the log was folded up to when the check under way was sent: it cannot have ended before.
    checked_from: u64,
    /// Whom the check under way serves.
    served: Vec<Request>,
    /// Who came after it was sent.
    waiting: Vec<Request>,
    /// Whether a check is needed that has not been sent yet, whoever waits.
    needs_another: bool,
    /// Who waits until the log is folded up to there.
    behind: Vec<(u64, Request)>,
    gap: Gap,
    /// How many reads of a gap have failed, one after the other.
    gap_failures: u32,
    /// Who waits for a mark that the stream's lifetime needs.
    put_off: Vec<Request>,
}

#[derive(Default, Clone, Copy)]
enum Gap {
    #[default]
    None,
    /// The session is given until then to bring what is missing, or the store to come back.
    WaitUntil(Instant),
    Reading,
}

/// What was done for a stream's lifetime.
enum Tended {
    Nothing,
    /// A mark is on its way; the request need not wait for it.
    Touched,
    /// What can be said depends on what becomes of the mark.
    MustWait,
}

/// What a stream's lifetime says at this moment.
enum Age {
    /// The present, in milliseconds since the Unix epoch; 0 where the stream has no lifetime.
    Alive(u64),
    Expired,
    /// No ack has told the store's time yet.
    Unknown,
}

impl Present {
    /// The log ends at least here.
    pub(super) fn known(&mut self, tail: u64) {
        self.known_tail = self.known_tail.max(tail);
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.checking && self.waiting.is_empty() && self.behind.is_empty() && self.put_off.is_empty()
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.served.len() + self.waiting.len() + self.behind.len() + self.put_off.len()
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        match self.gap {
            Gap::WaitUntil(then) => Some(then),
            Gap::None | Gap::Reading => None,
        }
    }

    /// Before an activation, which finds at least what is known now: whoever waits for that need not wait for more. The
    /// numbers themselves may mean nothing any more, where the store has reaped the stream.
    pub(super) fn forget(&mut self) {
        self.known_tail = 0;
        for (at, _) in &mut self.behind {
            *at = 0;
        }
    }

    /// After an activation. What was acked meanwhile may lie behind what it found.
    pub(super) fn start_again(&mut self, next: u64) {
        self.known(next);
        self.gap = Gap::None;
    }

    /// Everyone who waits.
    pub(super) fn drain(&mut self) -> Vec<Message> {
        let behind = self.behind.drain(..).map(|(_, request)| request);
        let requests = self.served.drain(..).chain(self.waiting.drain(..)).chain(behind).chain(self.put_off.drain(..));
        requests.map(|request| request.message).collect()
    }
}

impl Actor {
    /// Lets a request through once it can be answered of the present; keeps it where it has to wait for that.
    pub(super) fn in_the_present(&mut self, request: Request) -> Option<Request> {
        let reads = matches!(request.message, Message::Look { .. } | Message::Join { .. } | Message::References { .. });
        if reads && !request.fresh && !self.seed.upstream.single_owner() {
            self.present.waiting.push(request);
            self.check_tail();
            return None;
        }
        if reads && self.state.next() < self.present.known_tail {
            self.present.behind.push((self.present.known_tail, request));
            return None;
        }
        self.in_its_lifetime(request)
    }

    fn in_its_lifetime(&mut self, mut request: Request) -> Option<Request> {
        let is_read = match &request.message {
            Message::Release { .. } | Message::References { .. } => return Some(request),
            Message::Look { at: LookAt::Read(_), .. } | Message::Join { .. } => true,
            Message::Look { .. }
            | Message::Append { .. }
            | Message::Create { .. }
            | Message::Delete { .. }
            | Message::Refer { .. } => false,
        };
        match self.tend_lifetime(is_read) {
            Tended::Nothing | Tended::Touched => return Some(request),
            Tended::MustWait => {}
        }
        request.put_off += 1;
        if request.put_off > MAX_PUT_OFF {
            request.message.end(Some(&OpError::Unavailable { retry_after: None, cause: None }));
            return None;
        }
        self.present.put_off.push(request);
        None
    }

    /// Queues the mark that the lifetime asks for at this moment.
    fn tend_lifetime(&mut self, used: bool) -> Tended {
        match self.age() {
            Age::Expired if self.is_kept_alive() => self.queue_touch(),
            Age::Expired => self.queue_expire(),
            Age::Unknown => self.queue_checkpoint(),
            Age::Alive(now) => {
                let Some(life) = self.state.incarnation().filter(|life| used && life.wants_touch(now)) else {
                    return Tended::Nothing;
                };
                let must_wait = life.lives_on_grace(now);
                self.queue_touch();
                return if must_wait { Tended::MustWait } else { Tended::Touched };
            }
        }
        Tended::MustWait
    }

    /// Whether there are readers who were let in while the stream lived, and have been here ever since. Then it has been
    /// used all the time, and what is missing is the sign of it, which the store did not take in time.
    fn is_kept_alive(&self) -> bool {
        let lifetime = self.state.incarnation().map(|life| life.open.lifetime);
        self.live.readers() > 0 && matches!(lifetime, Some(Lifetime::Ttl { .. }))
    }

    /// What a stream with live readers does for its lifetime: they are its use.
    pub(super) fn keep_alive(&mut self) {
        if self.has_lifetime() && !self.writes.has_lifetime_mark() {
            self.tend_lifetime(true);
        }
    }

    pub(super) fn has_lifetime(&self) -> bool {
        let here = self.state.presence() == Presence::Here;
        here && self.state.incarnation().is_some_and(|life| life.open.lifetime != Lifetime::Forever)
    }

    /// Whether its time has come, on what is known of it now.
    pub(super) fn has_expired(&self) -> bool {
        matches!(self.age(), Age::Expired)
    }

    fn age(&self) -> Age {
        if !self.has_lifetime() {
            return Age::Alive(0);
        }
        let Some(end) = self.state.incarnation().and_then(|life| life.expires_at_ms()) else { return Age::Alive(0) };
        match self.seed.clock.present_ms() {
            None => Age::Unknown,
            Some(now) if now >= end => Age::Expired,
            Some(now) => Age::Alive(now),
        }
    }

    /// Whether no sign of use is recent enough.
    pub(super) fn wants_touch(&self) -> bool {
        let now = self.seed.clock.present_ms();
        now.is_some_and(|now| self.state.incarnation().is_some_and(|life| life.wants_touch(now)))
    }

    /// Takes up again what was put off: the mark has landed, or could not.
    pub(super) fn resume_put_off(&mut self) {
        self.todo.extend(self.present.put_off.drain(..));
    }

    /// The log may not be what the state says: a check that is sent from now on has to tell.
    pub(super) fn check_from_now(&mut self) {
        self.present.needs_another = true;
        self.check_tail();
    }

    fn check_tail(&mut self) {
        if self.present.checking {
            return;
        }
        self.present.checking = true;
        self.present.served = std::mem::take(&mut self.present.waiting);
        self.present.needs_another = false;
        self.writes.check_sent();
        self.present.checked_from = if self.phase == Phase::Serving { self.state.next() } else { 0 };
        self.seed.metrics.tail_checks.inc();
        let reader = self.reader.clone();
        self.start(async move { Done::Tail(reader.tail().await) });
    }

    pub(super) fn on_tail(&mut self, tail: Result<Option<Position>, OpError>) {
        self.present.checking = false;
        let served = std::mem::take(&mut self.present.served);
        match tail {
            Ok(tail) => {
                let seq = tail.map_or(0, |position| position.seq);
                // The store has reaped the stream, or its name may have a new one: a log that is over gets nothing but its
                // trim and the next life, and numbers alone cannot tell whether the store began it anew.
                let is_over = self.state.presence() == Presence::Absent && !self.writes.is_in_flight();
                if seq < self.present.checked_from || (is_over && seq > self.state.next()) {
                    self.reset();
                }
                self.present.known(seq);
                self.writes.checked(self.present.known_tail);
                self.todo.extend(served.into_iter().map(|request| Request { fresh: true, ..request }));
            }
            Err(error) => {
                debug!(stream = %self.seed.key, %error, "the tail could not be checked");
                for request in served {
                    request.message.end(Some(&error));
                }
                if self.writes.check_failed(&error) {
                    self.resume_put_off();
                }
            }
        }
        if !self.present.waiting.is_empty() || self.present.needs_another {
            self.check_tail();
        }
    }

    /// Sees to it that what is known to be in the log gets folded, where someone waits for it.
    pub(super) fn chase(&mut self) {
        let wanted = !self.present.behind.is_empty() || self.writes.waits_for(self.state.next());
        if !wanted || self.state.next() >= self.present.known_tail {
            if matches!(self.present.gap, Gap::WaitUntil(_)) {
                self.present.gap = Gap::None;
            }
            return;
        }
        match self.present.gap {
            Gap::Reading => {}
            Gap::WaitUntil(then) if then > Instant::now() => {}
            Gap::None if self.live.has_session() => {
                self.present.gap = Gap::WaitUntil(later(Instant::now(), SESSION_LAG));
            }
            Gap::None | Gap::WaitUntil(_) => self.read_gap(),
        }
    }

    fn read_gap(&mut self) {
        let (from, to) = (self.state.next(), self.present.known_tail);
        if to - from > MAX_GAP {
            return self.reset();
        }
        self.present.gap = Gap::Reading;
        let reader = self.reader.clone();
        self.start(async move { Done::Gap(reader.read_all(from, to).await) });
    }

    pub(super) fn on_gap(&mut self, records: Result<Vec<LogRecord>, OpError>) {
        self.present.gap = Gap::None;
        match records {
            Ok(records) => {
                self.present.gap_failures = 0;
                let next = self.state.next();
                let leads_on = records.last().is_some_and(|last| last.record.seq >= next);
                self.ingest(records);
                if !leads_on && next < self.present.known_tail {
                    // What was there has been trimmed.
                    self.reset();
                }
            }
            Err(error) => {
                debug!(stream = %self.seed.key, %error, "a gap could not be read");
                self.present.gap = Gap::WaitUntil(later(Instant::now(), SESSION_RETRY));
                self.present.gap_failures += 1;
                for (_, request) in self.present.behind.drain(..) {
                    request.message.end(Some(&error));
                }
                self.writes.gap_failed(&error, self.present.gap_failures >= MAX_GAP_FAILURES);
                self.resume_put_off();
            }
        }
    }

    /// Goes on with whatever waited for the log to be folded up to where it is now.
    pub(super) fn advance(&mut self) {
        let next = self.state.next();
        let (ready, behind) = std::mem::take(&mut self.present.behind).into_iter().partition(|(at, _)| *at <= next);
        self.present.behind = behind;
        let ready: Vec<(u64, Request)> = ready;
        self.todo.extend(ready.into_iter().map(|(_, request)| request));
        if next >= self.present.known_tail && matches!(self.present.gap, Gap::WaitUntil(_)) {
            self.present.gap = Gap::None;
        }
        self.finish_writes();
    }

    /// Whether there is a stream to read.
    pub(super) fn check_readable(&self) -> Result<(), OpError> {
        match self.state.presence() {
            Presence::Here => Ok(()),
            Presence::SoftDeleted => Err(Refusal::SoftDeleted.into()),
            Presence::Absent => Err(Refusal::NotFound.into()),
        }
    }

    /// Whether nothing will ever come of this stream again.
    pub(super) fn is_over(&self) -> bool {
        self.state.presence() != Presence::Here
    }
}
