//! Folding what has come, each record once, by its sequence number.
//!
//! Records come from the session, from the acks of this actor's own appends, and from reads of a gap; whoever is first
//! brings them. What was folded before is skipped, and what does not follow on what was folded is never guessed at.

use std::sync::Arc;

use tailwater_log::{Activated, Entry, Folded, NewRecord, Presence};
use tailwater_protocol::{ContentKind, json};
use tailwater_upstream::AppendAck;
use tracing::{debug, warn};

use super::{Actor, Phase};
use crate::{
    batch::{Batch, Bell, LogRecord, Message},
    config::BATCH_BYTES,
    ops::OpError,
};

impl Actor {
    /// Folds records in order, and hands their messages to the ring and the doorbell.
    pub(super) fn ingest(&mut self, records: Vec<LogRecord>) {
        if self.phase != Phase::Serving {
            return;
        }
        let mut batch = Draft::at(self.state.next());
        for read in records {
            let seq = read.record.seq;
            if seq < self.state.next() {
                continue;
            }
            if seq > self.state.next() {
                self.emit(batch);
                debug!(stream = %self.seed.key, seq, expected = self.state.next(), "records are missing");
                return self.reset();
            }
            self.view = None;
            match self.state.apply(&read.record) {
                Ok(Folded::Message) => {
                    self.draft(&mut batch, &read);
                    // The pool may be passed by a batch, and a ring keeps its newest: however much comes at once, a batch
                    // is bounded.
                    if batch.bytes >= BATCH_BYTES {
                        self.emit(batch);
                        batch = Draft::at(self.state.next());
                    }
                }
                Ok(Folded::Unserved) => self.note_unserved(seq),
                Ok(Folded::Closed) => batch.closes = true,
                Ok(Folded::Hidden) => {}
                Ok(Folded::Opened) => {
                    self.emit(batch);
                    self.feed.restart(self.state.next(), false);
                    self.live.ring(Bell::Rejoin);
                    batch = Draft::at(self.state.next());
                }
                Ok(Folded::Gone) => {
                    self.emit(batch);
                    self.live.ring(Bell::Gone);
                    batch = Draft::at(self.state.next());
                }
                Err(error) => {
                    return self.fail(OpError::from(error));
                }
            }
        }
        self.emit(batch);
        self.advance();
    }

    fn draft(&mut self, batch: &mut Draft, read: &LogRecord) {
        let body = read.body();
        if breaks_json(self.content_kind(), read) {
            return self.note_unserved(read.record.seq);
        }
        batch.bytes += body.len();
        batch.messages.push(Message { seq: read.record.seq, body });
    }

    fn emit(&mut self, draft: Draft) {
        let next = self.state.next();
        if next == draft.first {
            return;
        }
        let since = self.feed.quiet_since();
        let batch = Batch::new(since, draft.first, next, self.state.tail_offset(), draft.messages, draft.closes);
        let batch = Arc::new(batch);
        self.feed.push(Arc::clone(&batch));
        if !batch.messages.is_empty() || batch.closes {
            self.live.announce(&batch);
        }
    }

    /// Takes the records of an own append from its ack, where they follow on what is folded; others are on their way.
    pub(super) fn take_own(&mut self, records: Vec<NewRecord>, whole: Option<&bytes::Bytes>, ack: AppendAck) {
        self.seed.clock.learn(ack.end.timestamp);
        self.present.known(ack.end.seq);
        // Records of one batch share their timestamp unless S2's clock moved in between; then only S2 knows which.
        if ack.start.seq != self.state.next() || ack.start.timestamp != ack.end.timestamp {
            return;
        }
        let at = |(n, record): (u64, NewRecord)| {
            let record = record.at(ack.start.seq + n, ack.end.timestamp);
            LogRecord { assembled: whole.filter(|_| is_commit(&record)).cloned(), record }
        };
        let taken = (0u64..).zip(records).map(at).collect();
        self.ingest(taken);
    }

    pub(super) fn on_activated(&mut self, activated: Activated) {
        let before = self.state.incarnation().map(|life| life.open.incarnation);
        self.state = activated.state;
        self.view = None;
        self.phase = Phase::Serving;
        self.present.start_again(self.state.next());
        self.fill_ring(activated.recent);
        self.live.start_again(self.state.next());
        let after = self.state.incarnation().map(|life| life.open.incarnation);
        if before.is_some() && before != after {
            self.live.ring(Bell::Gone);
        }
        self.live.ring(Bell::Rejoin);
        if activated.wants_checkpoint && self.state.presence() == Presence::Here {
            self.queue_checkpoint();
        }
        self.advance();
    }

    /// Puts what activation has read into the ring: the same reads serve both.
    fn fill_ring(&mut self, recent: Vec<tailwater_log::Record>) {
        let next = self.state.next();
        let opened = self.state.incarnation().map_or(0, |life| life.opened_at + 1);
        // A commit's bytes are not at hand here; the history path puts them together.
        let behind_commit = recent.iter().rev().find(|record| is_commit(record)).map_or(0, |record| record.seq + 1);
        let known = recent.first().map_or(next, |record| record.seq);
        let first = known.max(opened).max(behind_commit).min(next);
        // Behind the last message stand only marks: whoever has had it has had everything, however few of them were read.
        let behind_last = self.state.incarnation().map_or(next, |life| life.tail.unwrap_or(life.opened_at + 1));
        let first = first.min(behind_last);
        let closed = self.state.incarnation().is_some_and(|life| life.closed.is_some());
        self.feed.restart(first, closed);
        let mut draft = Draft::at(first);
        let served_to = self.state.served_to();
        for record in recent.into_iter().filter(|record| record.seq >= first && record.seq < served_to) {
            let read = LogRecord { record, assembled: None };
            let visible = Entry::decode(&read.record).is_ok_and(|entry| entry.kind.is_visible());
            if visible {
                self.draft(&mut draft, &read);
            }
        }
        if next > first {
            let tail = self.state.tail_offset();
            self.feed.push(Arc::new(Batch::new(first, first, next, tail, draft.messages, false)));
        }
    }

    /// How messages of this stream are put together.
    pub(super) fn content_kind(&self) -> ContentKind {
        match self.state.incarnation() {
            Some(life) => life.open.content_type.kind(),
            None => self.seed.config.native_content_type.kind(),
        }
    }

    /// A record that readers cannot be given: counted, and logged once for the stream.
    fn note_unserved(&mut self, seq: u64) {
        self.seed.metrics.unserved.inc();
        if !self.warned_unserved {
            self.warned_unserved = true;
            warn!(stream = %self.seed.key, seq, "a native record is not served; further ones are only counted");
        }
    }
}

/// A batch in the making.
struct Draft {
    first: u64,
    messages: Vec<Message>,
    bytes: usize,
    closes: bool,
}

impl Draft {
    fn at(first: u64) -> Self {
        Self { first, messages: Vec::new(), bytes: 0, closes: false }
    }
}

/// Whether a record would break a JSON stream for everyone: a native writer's, that is not JSON. What the gateway
/// writes was validated; its records without a header cannot be told from native ones.
pub(crate) fn breaks_json(kind: ContentKind, read: &LogRecord) -> bool {
    kind == ContentKind::Json && read.record.headers.is_empty() && !json::is_valid(&read.body())
}

fn is_commit(record: &tailwater_log::Record) -> bool {
    Entry::decode(record).is_ok_and(|entry| matches!(entry.kind, tailwater_log::Kind::Commit(_)))
}
