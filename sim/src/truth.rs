//! What the log says, read from all that ever landed: lives and their messages.
//!
//! This is a second reading of the format, apart from the product's own fold, and much simpler: it has the whole log at
//! hand, and no need to be quick.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use tailwater_log::{Command, Entry, GoneReason, Kind, Open, Record, Segment};
use tailwater_protocol::{Lifetime, Offset, Producer, StreamSeq};
use tailwater_testkit::Landed;
use tailwater_upstream::StreamKey;

/// All lives of all streams.
#[derive(Debug, Default)]
pub struct Truth {
    /// In the order in which they began.
    pub lives: Vec<Life>,
    /// What is wrong with the log itself.
    pub faults: Vec<String>,
}

/// One life of a stream.
#[derive(Debug)]
pub struct Life {
    /// Whose.
    pub key: StreamKey,
    /// In which log of that name.
    pub log: u64,
    /// The `open`; none of a native stream.
    pub open: Option<Open>,
    /// The position of the `open`.
    pub opened_at: u64,
    /// The birth of its own offsets.
    pub birth: u64,
    /// What it inherits.
    pub chain: Vec<Segment>,
    /// Its own messages.
    pub messages: Vec<Message>,
    /// When it began, in batches landed.
    pub began: usize,
    /// When it was closed.
    pub closed: Option<usize>,
    /// When it went, with the timestamp and the reason.
    pub gone: Option<(usize, u64, GoneReason)>,
    /// When a pod opened it, if native writers had begun it: it goes on as another life.
    pub adopted: Option<usize>,
    /// The last sign of use, by the store's clock.
    pub used_ms: u64,
    /// Before which number its log was trimmed, by which batch.
    pub trims: Vec<(usize, u64)>,
    /// The incarnations of forks that refer to it.
    pub references: Vec<u64>,
}

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its place.
    pub seq: u64,
    /// The bytes.
    pub body: Bytes,
    /// The claim of its request, on the last message of it.
    pub claim: Option<Producer>,
    /// The `Stream-Seq` of its request.
    pub number: Option<StreamSeq>,
    /// Which batch brought it.
    pub landed: usize,
}

struct Log {
    key: StreamKey,
    id: u64,
    pieces: BTreeMap<u64, Bytes>,
    token: String,
    life: Option<usize>,
    trims: Vec<(usize, u64)>,
}

impl Truth {
    /// Reads a journal.
    #[must_use]
    pub fn read(journal: &[Landed]) -> Self {
        let mut truth = Self::default();
        let mut logs: BTreeMap<u64, Log> = BTreeMap::new();
        for (at, landed) in journal.iter().enumerate() {
            let log = logs.entry(landed.log).or_insert_with(|| Log {
                key: landed.key.clone(),
                id: landed.log,
                pieces: BTreeMap::new(),
                token: String::new(),
                life: None,
                trims: Vec::new(),
            });
            for record in &landed.records {
                truth.take(log, at, record);
            }
        }
        truth
    }

    fn take(&mut self, log: &mut Log, at: usize, record: &Record) {
        match record.command() {
            Some(Command::Fence(token)) => log.token = token,
            Some(Command::Trim(before)) => {
                let before = before.min(record.seq + 1);
                log.trims.push((at, before));
                for life in self.lives.iter_mut().filter(|life| life.log == log.id) {
                    life.trims.push((at, before));
                }
            }
            None => match Entry::decode(record) {
                Ok(entry) => self.take_kind(log, at, record, entry.kind),
                Err(error) => self.faults.push(format!("record {} of {}: {error}", record.seq, log.key)),
            },
        }
    }

    fn take_kind(&mut self, log: &mut Log, at: usize, record: &Record, kind: Kind) {
        match kind {
            Kind::Open(open) => self.open(log, at, record, *open),
            Kind::Message(message) => {
                let (claim, number) = (message.producer, message.stream_seq);
                let body = record.body.clone();
                self.message(log, record, Message { seq: record.seq, body, claim, number, landed: at });
            }
            Kind::Piece(_) => drop(log.pieces.insert(record.seq, record.body.clone())),
            Kind::Commit(commit) => {
                let mut whole = BytesMut::new();
                for piece in commit.pieces.iter().filter_map(|seq| log.pieces.get(seq)) {
                    whole.extend_from_slice(piece);
                }
                if whole.len() as u64 != commit.bytes {
                    let (seq, named, found) = (record.seq, commit.bytes, whole.len());
                    self.faults.push(format!("commit {seq} of {} names {named} bytes, and has {found}", log.key));
                }
                let (claim, number) = (commit.message.producer, commit.message.stream_seq);
                self.message(log, record, Message { seq: record.seq, body: whole.freeze(), claim, number, landed: at });
            }
            Kind::Close(_) => self.in_life(log, |life| {
                life.use_at(record.timestamp);
                life.closed.get_or_insert(at);
            }),
            Kind::Gone(gone) => self.in_life(log, |life| {
                life.gone.get_or_insert((at, record.timestamp, gone.reason));
            }),
            Kind::Touch => self.in_life(log, |life| life.use_at(record.timestamp)),
            Kind::Ref(reference) => self.in_life(log, |life| life.references.push(reference.incarnation)),
            Kind::Unref(reference) => {
                self.in_life(log, |life| life.references.retain(|held| *held != reference.incarnation));
            }
            Kind::Checkpoint(_)
            | Kind::Sub(_)
            | Kind::Unsub { .. }
            | Kind::Delivery(_)
            | Kind::Fence(_)
            | Kind::Trim(_)
            | Kind::Skipped => {}
        }
    }

    fn open(&mut self, log: &mut Log, at: usize, record: &Record, open: Open) {
        let mut chain = open.fork.as_ref().map(|fork| fork.chain.clone()).unwrap_or_default();
        if open.adopts_native {
            chain = vec![Segment { birth: 0, source: None, from: 0, to: record.seq }];
            self.in_life(log, |life| life.adopted = Some(at));
        }
        let birth = chain.last().map_or(record.timestamp, |last| record.timestamp.max(last.birth + 1));
        self.begin(log, at, record, (birth, chain), Some(open));
    }

    fn begin(
        &mut self,
        log: &mut Log,
        at: usize,
        record: &Record,
        (birth, chain): (u64, Vec<Segment>),
        open: Option<Open>,
    ) {
        log.life = Some(self.lives.len());
        self.lives.push(Life {
            key: log.key.clone(),
            log: log.id,
            opened_at: record.seq,
            birth,
            chain,
            open,
            messages: Vec::new(),
            began: at,
            closed: None,
            gone: None,
            adopted: None,
            used_ms: record.timestamp,
            trims: log.trims.clone(),
            references: Vec::new(),
        });
    }

    fn message(&mut self, log: &mut Log, record: &Record, message: Message) {
        if log.life.is_none() && log.token.is_empty() {
            self.begin(log, message.landed, record, (0, Vec::new()), None);
        }
        self.in_life(log, |life| {
            if life.closed.is_none() && life.gone.is_none() {
                life.use_at(record.timestamp);
                life.messages.push(message);
            }
        });
    }

    fn in_life(&mut self, log: &Log, change: impl FnOnce(&mut Life)) {
        if let Some(life) = log.life {
            change(&mut self.lives[life]);
        }
    }

    /// What has come of it all, counted.
    #[must_use]
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let mut names = BTreeSet::new();
        let mut counts = BTreeMap::new();
        for life in &self.lives {
            let whats = [
                ("lives closed", life.closed.is_some()),
                ("lives deleted", life.gone.is_some() && !life.has_expired()),
                ("lives expired", life.has_expired()),
                ("lives begun by native writers", life.open.is_none()),
                ("lives that are forks", life.open.as_ref().is_some_and(|open| open.fork.is_some())),
                ("lives of a name that had one before", !names.insert(&life.key)),
            ];
            for (what, is_so) in whats {
                *counts.entry(what).or_default() += u64::from(is_so);
            }
            let accepted = life.messages.iter().filter(|message| message.claim.is_some());
            *counts.entry("claims accepted").or_default() += accepted.count() as u64;
        }
        counts
    }

    /// The lives of a stream that were there at some moment between two.
    pub fn alive<'a>(&'a self, key: &'a StreamKey, from: usize, to: usize) -> impl Iterator<Item = &'a Life> {
        self.lives.iter().filter(move |life| life.key == *key && life.began < to && !life.is_over_by(from))
    }

    /// Whether there was a moment between two at which a stream was not there.
    #[must_use]
    pub fn was_absent(&self, key: &StreamKey, from: usize, to: usize) -> bool {
        let through = |life: &Life| life.key == *key && life.began < from && !life.is_over_by(to);
        !self.lives.iter().any(through)
    }

    /// All that a life shows, in order, with the offset before each; what it inherits first.
    #[must_use]
    pub fn view<'a>(&'a self, life: &'a Life) -> Vec<(Offset, &'a Message)> {
        let mut view = Vec::new();
        for segment in &life.chain {
            let source = match &segment.source {
                None => life.key.clone(),
                Some(name) => StreamKey { project: name.project.clone(), stream: name.stream.clone() },
            };
            let of = |other: &&Life| other.key == source && other.birth == segment.birth;
            let messages = self.lives.iter().filter(of).flat_map(|life| &life.messages);
            let messages = messages.filter(|message| (segment.from..segment.to).contains(&message.seq));
            view.extend(messages.map(|message| (Offset { birth: segment.birth, seq: message.seq }, message)));
        }
        view.extend(life.messages.iter().map(|message| (Offset { birth: life.birth, seq: message.seq }, message)));
        view
    }
}

impl Life {
    fn use_at(&mut self, timestamp: u64) {
        if self.gone.is_none() {
            self.used_ms = self.used_ms.max(timestamp);
        }
    }

    /// Whether it had gone by a moment, or become another life.
    #[must_use]
    pub fn is_over_by(&self, moment: usize) -> bool {
        self.gone.is_some_and(|(at, ..)| at < moment) || self.adopted.is_some_and(|at| at < moment)
    }

    /// Whether it has expired.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        matches!(self.gone, Some((_, _, GoneReason::Expired)))
    }

    /// Whether its offsets can have this birth.
    #[must_use]
    pub fn knows(&self, birth: u64) -> bool {
        self.birth == birth || self.chain.iter().any(|segment| segment.birth == birth)
    }

    /// Before which of its own numbers it was trimmed by a moment.
    #[must_use]
    pub fn trimmed_by(&self, moment: usize) -> u64 {
        self.trims.iter().filter(|(at, _)| *at < moment).map(|(_, before)| *before).max().unwrap_or(0)
    }

    /// From when on it may have expired, by the store's clock, after the last use that the log tells of.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        match self.open.as_ref()?.lifetime {
            Lifetime::Forever => None,
            Lifetime::Ttl { seconds } => Some(self.used_ms + seconds * 1000),
            Lifetime::ExpiresAt { at_ms } => Some(at_ms),
        }
    }
}
