//! A live reader: a position, and the feed that moves it on.
//!
//! A reader that keeps up is fed by the doorbell. One that does not finds what it missed in the ring, and behind the ring
//! in history; nothing is queued for it, so a slow one costs the others nothing. Whatever happens to the actor (it
//! retires, it looks at its log anew, the stream is created again), the reader joins again at its own offset, and the
//! offset says whether it can go on.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use tailwater_log::{Misplaced, Place, Refusal, StreamState, Visibility};
use tailwater_protocol::{Offset, ReadOffset};
use tailwater_upstream::{StreamKey, Traffic};
use tokio::time::sleep;
use tracing::debug;

use crate::{
    actor::{Joined, ReaderGuard},
    batch::{Batch, Bell},
    config::SESSION_RETRY,
    feed::Feed as StreamFeed,
    frame::Stand,
    gateway::Gateway,
    history::{Hole, Window},
    ops::{Head, OpError},
    shard::{Resume, Seat, Stands},
};

/// A live reader. Dropping it is leaving.
pub struct Reader {
    gateway: Gateway,
    key: StreamKey,
    head: Head,
    /// The life that it reads; `None` is a native stream.
    life: Option<u64>,
    /// Where the reader stands, as it would tell a client.
    position: Offset,
    feed: Feed,
    closed: bool,
    /// What it has in hand of history; while it is live, nothing.
    window: Option<Box<Window>>,
    /// Where to join again after an interruption.
    rejoin_at: ReadOffset,
}

/// What comes next.
#[derive(Debug)]
pub enum Event {
    /// Messages, or the closure, or both.
    Messages(Delivery),
    /// What the reader stood at is no longer there; `earliest` is what is left. The reader ends.
    Reset {
        /// The earliest offset that can be read.
        earliest: Offset,
    },
    /// The stream is deleted or expired. The reader ends.
    Gone,
    /// It cannot go on. The reader ends.
    Failed(OpError),
}

/// Messages, or the closure, or both.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The bodies, in order. In a JSON stream each is one value, or several joined by commas.
    pub messages: Vec<Bytes>,
    /// The offset to go on from.
    pub next: Offset,
    /// Whether this is all there is at this moment.
    pub up_to_date: bool,
    /// Whether the stream ends here.
    pub closed: bool,
}

enum Feed {
    /// At the actor, or a few batches behind it.
    Live(Box<Live>),
    /// Behind the ring: reading history up to where the view ends.
    Behind { view: Arc<StreamState>, place: Place, hole: Hole, _guard: ReaderGuard },
    /// Between two joins.
    Joining,
}

struct Live {
    view: Arc<StreamState>,
    /// The next sequence number of the stream's own log.
    seq: u64,
    /// What the ring held when it joined, for as long as the ring does: a reader that takes nothing keeps nothing.
    backlog: VecDeque<Weak<Batch>>,
    bell: async_broadcast::Receiver<Bell>,
    shown: Arc<StreamFeed>,
    turn: u64,
    /// Heard while looking for more batches, and to be acted on next.
    interrupted: Option<Heard>,
    guard: ReaderGuard,
}

/// What a ring of the bell meant.
enum Heard {
    Batch(Arc<Batch>),
    Nothing,
    Rejoin,
    Gone,
}

impl Reader {
    pub(crate) async fn join(gateway: Gateway, key: StreamKey, from: ReadOffset, most: usize) -> Result<Self, OpError> {
        let joined = gateway.join_first(&key, from, most).await?;
        let head = Head::of(&joined.view, gateway.config());
        let position = joined.view.offset_at(joined.place);
        let life = joined.view.incarnation().map(|life| life.open.incarnation);
        let mut reader = Self {
            gateway,
            key,
            head,
            life,
            position,
            feed: Feed::Joining,
            closed: false,
            window: None,
            rejoin_at: ReadOffset::At(position),
        };
        let hole = if from == ReadOffset::Start { Hole::Skip } else { Hole::Refuse };
        if from == ReadOffset::Start {
            reader.rejoin_at = from;
        }
        reader.take(joined, hole);
        Ok(reader)
    }

    /// What the stream was at the time of joining, or of joining again.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Where the reader stands.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Whether it has been given everything that this pod knows.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        match &self.feed {
            Feed::Live(live) => live.is_caught_up(),
            Feed::Behind { .. } | Feed::Joining => false,
        }
    }

    /// Whether it stands at the end of a closed stream: nothing will come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the read session has shown life, so that a caught-up reader may be told that it is up to date.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        match &self.feed {
            Feed::Live(live) => live.shown.pulse().is_alive(),
            Feed::Behind { .. } | Feed::Joining => false,
        }
    }

    /// Whether its stream's session has lost its connection, or it cannot go on for want of the store: whoever left now
    /// might not be let in again.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        match &self.feed {
            Feed::Live(live) => live.shown.pulse().is_lost(),
            Feed::Behind { .. } | Feed::Joining => self.gateway.upstream().is_suspended(Traffic::Reads),
        }
    }

    /// A reader that left its shard: it joins again where it stands.
    #[must_use]
    pub fn resume(gateway: Gateway, stands: &Stands) -> Self {
        Self {
            gateway,
            key: stands.resume.key.clone(),
            head: stands.resume.head.clone(),
            life: stands.resume.life,
            position: stands.stand.at,
            feed: Feed::Joining,
            window: None,
            closed: false,
            rejoin_at: ReadOffset::At(stands.stand.at),
        }
    }

    /// Whether a delivery shard can take this reader over: it is within reach of what its stream shows.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.feed, Feed::Live(_)) && !self.closed
    }

    /// What a delivery shard needs to take this reader over, from what was given out so far; the reader itself where it
    /// is not within reach of what its stream shows.
    ///
    /// # Errors
    /// The reader, which goes on as it is.
    pub fn into_seat(mut self) -> Result<Seat, Box<Self>> {
        match std::mem::replace(&mut self.feed, Feed::Joining) {
            Feed::Live(live) if !self.closed => {
                let Live { seq, shown, turn, guard, .. } = *live;
                let kind = self.head.content_type.kind();
                let resume = Arc::new(Resume { key: self.key, head: self.head, life: self.life });
                Ok(Seat { feed: shown, turn, resume, kind, stand: Stand { seq, at: self.position }, guard })
            }
            feed @ (Feed::Live(_) | Feed::Behind { .. } | Feed::Joining) => {
                self.feed = feed;
                Err(Box::new(self))
            }
        }
    }

    /// Waits for what comes next. Cancel safe. At the end of a closed stream it waits for ever.
    pub async fn next(&mut self) -> Event {
        self.drop_window();
        loop {
            if self.closed {
                std::future::pending::<()>().await;
            }
            let step = match &mut self.feed {
                Feed::Live(_) => self.step_live().await,
                Feed::Behind { .. } => self.step_behind().await,
                Feed::Joining => self.step_joining().await,
            };
            if let Some(event) = step {
                return event;
            }
        }
    }

    /// Who asks for more has got rid of what it was given. One that is still behind keeps its place among those who wait.
    fn drop_window(&mut self) {
        if self.closed || !matches!(self.feed, Feed::Behind { .. }) {
            self.window = None;
        }
    }

    /// Waits for what comes next, or for the reader to be [live](Self::is_live), which is `None`. Cancel safe.
    pub async fn next_unless_live(&mut self) -> Option<Event> {
        self.drop_window();
        loop {
            if self.is_live() {
                return None;
            }
            if self.closed {
                std::future::pending::<()>().await;
            }
            let step = match &mut self.feed {
                Feed::Live(_) => return None,
                Feed::Behind { .. } => self.step_behind().await,
                Feed::Joining => self.step_joining().await,
            };
            if step.is_some() {
                return step;
            }
        }
    }

    fn take(&mut self, joined: Joined, hole: Hole) {
        let Joined { view, place, batches, bell, guard, feed, turn } = joined;
        self.life = view.incarnation().map(|life| life.open.incarnation);
        self.head = Head::of(&view, self.gateway.config());
        self.feed = match batches {
            Some(batches) => {
                // Without a backlog there is nothing between the place and the end, whatever marks stand there.
                let holds_any = |batch: &Arc<Batch>| batch.from(place.seq).next().is_some();
                let backlog: VecDeque<_> =
                    batches.iter().filter(|batch| holds_any(batch)).map(Arc::downgrade).collect();
                self.closed = self.head.closed && backlog.is_empty();
                if self.closed {
                    self.position = view.tail_offset();
                }
                let seq = place.seq;
                let mut live = Live { view, seq, backlog, bell, shown: feed, turn, interrupted: None, guard };
                live.pass_marks();
                Feed::Live(Box::new(live))
            }
            None => Feed::Behind { view, place, hole, _guard: guard },
        };
    }

    async fn step_live(&mut self) -> Option<Event> {
        let Feed::Live(live) = &mut self.feed else { return None };
        let heard = match live.backlog() {
            Some(heard) => heard,
            None => live.hear().await,
        };
        match heard {
            Heard::Batch(batch) => self.deliver(batch),
            Heard::Nothing => None,
            Heard::Rejoin => {
                self.feed = Feed::Joining;
                None
            }
            Heard::Gone => Some(Event::Gone),
        }
    }

    /// One delivery of a batch and of all that waits behind it, within a page.
    fn deliver(&mut self, batch: Arc<Batch>) -> Option<Event> {
        let Feed::Live(live) = &mut self.feed else { return None };
        let mut delivery = Delivery { messages: Vec::new(), next: self.position, up_to_date: false, closed: false };
        let mut bytes = 0;
        let mut next = Some(batch);
        while let Some(batch) = next.take() {
            delivery.messages.extend(batch.from(live.seq).map(|message| message.body.clone()));
            bytes += batch.bytes;
            live.seq = live.seq.max(batch.next);
            delivery.next = batch.next_offset;
            delivery.closed |= batch.closes;
            live.pass_marks();
            if bytes < self.gateway.config().page_bytes && !delivery.closed {
                next = live.more();
            }
        }
        // The ring keeps messages only: that the stream was closed before the reader came is known from its view.
        delivery.closed |= self.head.closed && live.backlog.is_empty() && live.interrupted.is_none();
        delivery.up_to_date = delivery.closed || live.is_caught_up();
        self.position = delivery.next;
        self.rejoin_at = ReadOffset::At(self.position);
        self.closed = delivery.closed;
        (!delivery.messages.is_empty() || delivery.closed).then_some(Event::Messages(delivery))
    }

    /// One window of history; behind the last one the reader joins again.
    async fn step_behind(&mut self) -> Option<Event> {
        let Feed::Behind { view, place, hole, .. } = &self.feed else { return None };
        let history = self.gateway.replay(&self.key);
        let window = self.window.get_or_insert_with(|| Box::new(self.gateway.window()));
        let kind = self.head.content_type.kind();
        let page = match history.page_within(window, (view, kind), *place, *hole).await {
            Ok(page) => page,
            Err(OpError::Draining) => return Some(Event::Failed(OpError::Draining)),
            Err(OpError::Misplaced(Misplaced::Gone { earliest })) => return Some(Event::Reset { earliest }),
            Err(error) if error.is_retryable() => {
                debug!(stream = %self.key, %error, "history could not be read; trying again");
                self.wait_for_the_store().await;
                return None;
            }
            Err(error) => return Some(Event::Failed(error)),
        };
        let at_end = view.span_at(page.place).is_none();
        let next = if at_end { view.tail_offset() } else { view.offset_at(page.place) };
        let closed = at_end && self.head.closed;
        // The end of the view is not the end of the stream: joining says whether there is more by now. Nothing of this
        // reader has changed until then, so that being cancelled here costs a page, not a message. The place alone does not
        // say whose life it is: forks that inherit the same have it in common.
        let joined = if at_end && !closed {
            let joined = self.gateway.join(&self.key, ReadOffset::At(next)).await.ok();
            joined.filter(|joined| self.goes_on_in(&joined.view))
        } else {
            None
        };
        self.position = next;
        self.rejoin_at = ReadOffset::At(next);
        match joined {
            Some(joined) => self.take(joined, Hole::Refuse),
            None if at_end && !closed => self.feed = Feed::Joining,
            None => {
                if let Feed::Behind { place, hole, .. } = &mut self.feed {
                    *place = page.place;
                    *hole = Hole::Refuse;
                }
                self.closed = closed;
            }
        }
        let closed = self.closed;
        if page.messages.is_empty() && !closed {
            return None;
        }
        let messages = page.messages.into_iter().map(|(body, _)| body).collect();
        Some(Event::Messages(Delivery { messages, next, up_to_date: closed || self.is_caught_up(), closed }))
    }

    async fn step_joining(&mut self) -> Option<Event> {
        self.gateway.metrics().rejoins.inc();
        match self.gateway.join(&self.key, self.rejoin_at).await {
            Ok(joined) if !self.goes_on_in(&joined.view) => Some(Event::Gone),
            Ok(joined) => {
                self.take(joined, Hole::Refuse);
                // Closed since the last delivery: it has to be told, even without messages.
                let delivery = Delivery { messages: Vec::new(), next: self.position, up_to_date: true, closed: true };
                self.closed.then_some(Event::Messages(delivery))
            }
            Err(OpError::Misplaced(Misplaced::Gone { earliest })) => self.reset(earliest).await,
            Err(OpError::Refused(Refusal::NotFound | Refusal::SoftDeleted)) => Some(Event::Gone),
            Err(OpError::Draining) => Some(Event::Failed(OpError::Draining)),
            Err(error) if error.is_retryable() => {
                debug!(stream = %self.key, %error, "joining failed; trying again");
                self.wait_for_the_store().await;
                None
            }
            Err(error) => Some(Event::Failed(error)),
        }
    }
}

impl Reader {
    /// Its place is gone. What stands there may be another stream by now, of which a reader that came because this one was
    /// public is told nothing.
    async fn reset(&self, earliest: Offset) -> Option<Event> {
        if self.head.visibility == Visibility::Private {
            return Some(Event::Reset { earliest });
        }
        match self.gateway.head(&self.key).await {
            Ok(head) if head.visibility == Visibility::Public => Some(Event::Reset { earliest }),
            Err(error) if error.is_retryable() => {
                self.wait_for_the_store().await;
                None
            }
            Ok(_) | Err(_) => Some(Event::Gone),
        }
    }

    /// Waits until another try makes sense. There are many readers, and a store that is away is not to be looked for by
    /// each of them.
    async fn wait_for_the_store(&self) {
        self.gateway.upstream().reachable(&self.key).await;
        sleep(self.gateway.config().chance.jittered(SESSION_RETRY)).await;
    }

    /// Whether a stream of this name is still the one that is being read.
    fn goes_on_in(&self, view: &StreamState) -> bool {
        match (self.life, view.incarnation()) {
            (None, None) => true,
            (None, Some(life)) => life.open.adopts_native,
            (Some(before), now) => now.is_some_and(|life| life.open.incarnation == before),
        }
    }
}

impl Live {
    /// Whether nothing has come that was not given to the reader.
    fn is_caught_up(&self) -> bool {
        self.backlog.is_empty() && self.interrupted.is_none() && self.seq >= self.shown.pulse().rung()
    }

    /// Behind the last message that was known on joining there were only marks.
    fn pass_marks(&mut self) {
        if self.backlog.is_empty() {
            self.seq = self.seq.max(self.view.next());
        }
    }

    /// The next batch of the backlog, where there is one.
    fn backlog(&mut self) -> Option<Heard> {
        let batch = self.backlog.pop_front()?;
        Some(batch.upgrade().map_or(Heard::Rejoin, Heard::Batch))
    }

    /// The next batch that is there already. What is no batch is kept for the next [`hear`](Self::hear).
    fn more(&mut self) -> Option<Arc<Batch>> {
        match self.backlog() {
            Some(Heard::Batch(batch)) => Some(batch),
            Some(gone) => {
                self.interrupted = Some(gone);
                None
            }
            None => self.waiting(),
        }
    }

    async fn hear(&mut self) -> Heard {
        if let Some(interruption) = self.interrupted.take() {
            return interruption;
        }
        let heard = self.bell.recv_direct().await;
        self.understand(heard)
    }

    /// What rings without waiting, where it follows on; anything else is kept for the next [`hear`](Self::hear).
    fn waiting(&mut self) -> Option<Arc<Batch>> {
        while self.interrupted.is_none() {
            let heard = self.bell.try_recv().ok()?;
            match self.understand(Ok(heard)) {
                Heard::Batch(batch) => return Some(batch),
                Heard::Nothing => {}
                interruption @ (Heard::Rejoin | Heard::Gone) => self.interrupted = Some(interruption),
            }
        }
        None
    }

    /// A batch, where it follows on what was had. One that the ring has let go of is to be read like any that was missed.
    fn follow_on(&self, since: u64, next: u64, batch: impl FnOnce() -> Option<Arc<Batch>>) -> Heard {
        if next <= self.seq {
            return Heard::Nothing;
        }
        let batch = if since > self.seq { None } else { batch() };
        batch.map_or(Heard::Rejoin, Heard::Batch)
    }

    fn understand(&self, heard: Result<Bell, async_broadcast::RecvError>) -> Heard {
        match heard {
            Ok(Bell::Batch { since, next, batch }) => self.follow_on(since, next, || batch.upgrade()),
            Ok(Bell::Closed(batch)) => self.follow_on(batch.since, batch.next, || Some(Arc::clone(&batch))),
            Ok(Bell::Gone) => Heard::Gone,
            Ok(Bell::Rejoin) | Err(_) => Heard::Rejoin,
        }
    }
}
