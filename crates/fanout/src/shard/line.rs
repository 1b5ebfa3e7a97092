//! A line: the readers that a shard has of one stream.

use std::{
    io::{Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tailwater_protocol::ContentKind;

use super::{PAGE, Resume, Seat, Shard, slot::Place, slot::SlotId};
use crate::{
    batch::Batch,
    feed::{Feed, Listener},
    frame::{News, Says, Stand},
    reader::Delivery,
};

/// Where a line is in its shard.
pub type LineId = usize;

/// The readers of one stream.
pub(super) struct Line {
    pub(super) feed: Arc<Feed>,
    pub(super) resume: Arc<Resume>,
    pub(super) kind: ContentKind,
    /// The feed's turn in which its readers last looked where they stand.
    pub(super) turn: u64,
    /// Where the current ones stand.
    pub(super) stand: Stand,
    /// Whether its readers have to look anew where they stand. Those who are left are in the middle of a chunk, and
    /// whoever arrives gets a line of its own.
    pub(super) is_over: bool,
    pub(super) current: Vec<SlotId>,
    pub(super) parked: Vec<SlotId>,
    pub(super) waiting: Vec<SlotId>,
    pub(super) readers: usize,
    bell: Arc<LineBell>,
}

/// What has come, before it is known how it is sent.
pub(super) struct Came {
    pub(super) batches: Vec<Arc<Batch>>,
    pub(super) next: u64,
    /// What there is to say behind them.
    pub(super) says: Says,
}

/// The bell of a shard: which of its lines have been rung up, and what wakes it.
pub struct Bell {
    rung: Mutex<Vec<LineId>>,
    /// Whether the shard sleeps, or is about to.
    asleep: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The bell of one line. Rung while it still rings, it is not heard twice.
#[derive(Debug)]
struct LineBell {
    line: LineId,
    rings: AtomicBool,
    /// Where the line stands, for whoever has to know what its readers are still to be given.
    taken: AtomicU64,
    bell: Arc<Bell>,
}

impl Line {
    /// Its current readers have been given everything up to there.
    pub(super) fn move_to(&mut self, stand: Stand) {
        self.stand = stand;
        self.bell.taken.store(stand.seq, Ordering::Release);
    }

    fn key(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.feed) as usize, self.turn)
    }

    /// The list of a place; those who are busy are in none.
    pub(super) fn list(&mut self, place: Place) -> Option<&mut Vec<SlotId>> {
        match place {
            Place::Current => Some(&mut self.current),
            Place::Parked => Some(&mut self.parked),
            Place::Waiting => Some(&mut self.waiting),
            Place::Busy => None,
        }
    }
}

impl Came {
    pub(super) fn new(batches: Vec<Arc<Batch>>, next: u64, closed: bool) -> Self {
        Self { batches, next, says: if closed { Says::End } else { Says::All } }
    }

    /// As far as a position. A batch that reaches beyond it is left out whole, and nothing of it counts as had. Marks
    /// beyond it make no difference: a stream that is closed ends for whoever has had its messages.
    pub(super) fn until(mut self, seq: u64) -> Self {
        if let Some(beyond) = self.batches.iter().position(|batch| batch.next > seq) {
            self.next = self.batches[beyond].first;
            self.batches.truncate(beyond);
            self.says = Says::More;
        }
        self.next = self.next.min(seq);
        self
    }

    /// What one who stands there is given, about a page at most; `None` where there is nothing.
    pub(super) fn delivery(&self, from: Stand) -> Option<Delivery> {
        let mut delivery =
            Delivery { messages: Vec::new(), next: from.at, up_to_date: true, closed: self.says == Says::End };
        let mut bytes = 0;
        for batch in &self.batches {
            if bytes >= PAGE {
                (delivery.up_to_date, delivery.closed) = (false, false);
                break;
            }
            delivery.messages.extend(batch.from(from.seq).map(|message| message.body.clone()));
            delivery.next = batch.next_offset;
            bytes += batch.bytes;
        }
        (!delivery.messages.is_empty() || delivery.closed).then_some(delivery)
    }

    pub(super) fn of(&self, kind: ContentKind) -> News<'_> {
        News { kind, batches: &self.batches, next: self.next, says: self.says }
    }
}

impl Bell {
    /// A bell that calls `wake` when it is rung and the shard sleeps.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { rung: Mutex::default(), asleep: AtomicBool::new(false), wake })
    }

    /// Something has been put where the shard will find it.
    pub(crate) fn call(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// The shard is about to sleep, and looks once more whether there is something for it.
    pub fn doze(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// The shard is awake.
    pub fn rise(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Whether a line has been rung up.
    pub fn has_rung(&self) -> bool {
        !self.rung.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn ring(&self, line: LineId) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        self.call();
    }

    fn take(&self) -> Vec<LineId> {
        std::mem::take(&mut self.rung.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

impl Listener for LineBell {
    fn ring(&self) {
        if !self.rings.swap(true, Ordering::AcqRel) {
            self.bell.ring(self.line);
        }
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }
}

impl<S: Read + Write, L> Shard<S, L> {
    /// The lines that have been rung up since the last time.
    pub fn rung(&self) -> Vec<LineId> {
        let rung = self.bell.take();
        for line in rung.iter().filter_map(|line| self.lines.get(*line)) {
            // Before the ring is looked at: what comes behind that rings again.
            line.bell.rings.store(false, Ordering::SeqCst);
        }
        rung
    }

    /// The line of a reader's stream, where there is one.
    pub(super) fn known_line(&self, seat: &Seat) -> Option<LineId> {
        self.by_feed.get(&(Arc::as_ptr(&seat.feed) as usize, seat.turn)).copied()
    }

    /// The line of a reader's stream; a new one, where it is the first.
    pub(super) fn line_of(&mut self, seat: &Seat) -> LineId {
        if let Some(line) = self.known_line(seat) {
            return line;
        }
        let entry = self.lines.vacant_entry();
        let id = entry.key();
        let (rings, taken) = (AtomicBool::new(false), AtomicU64::new(seat.stand.seq));
        let bell = Arc::new(LineBell { line: id, rings, taken, bell: Arc::clone(&self.bell) });
        seat.feed.listen(Arc::clone(&bell) as Arc<dyn Listener>);
        let line = entry.insert(Line {
            feed: Arc::clone(&seat.feed),
            resume: Arc::clone(&seat.resume),
            kind: seat.kind,
            turn: seat.turn,
            stand: seat.stand,
            is_over: false,
            current: Vec::new(),
            parked: Vec::new(),
            waiting: Vec::new(),
            readers: 0,
            bell,
        });
        self.by_feed.insert(line.key(), id);
        id
    }

    /// Every reader of a line has to look anew where it stands; those who are in the middle of a chunk, once they are
    /// through with it.
    pub(super) fn dissolve(&mut self, id: LineId) {
        let Some(line) = self.lines.get_mut(id) else { return };
        line.is_over = true;
        // They look into this feed no more.
        line.bell.taken.store(u64::MAX, Ordering::Release);
        let leaving: Vec<SlotId> = line.current.iter().chain(&line.parked).chain(&line.waiting).copied().collect();
        self.by_feed.remove(&line.key());
        for slot in leaving {
            self.depart_behind(slot);
        }
    }

    /// One reader less; the last one takes the line along.
    pub(super) fn leave_line(&mut self, id: LineId) {
        let line = &mut self.lines[id];
        line.readers -= 1;
        if line.readers > 0 {
            return;
        }
        let line = self.lines.remove(id);
        // The place of one that is over may be another's by now.
        if !line.is_over {
            self.by_feed.remove(&line.key());
        }
        let listener: Arc<dyn Listener> = line.bell;
        line.feed.unlisten(&listener);
    }
}
