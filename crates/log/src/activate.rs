//! Bounded activation: from nothing to a stream's state, without reading its history.
//!
//! A pod that meets a stream reads the last record. Its stamp names the newest checkpoint (`as of`); from there on the
//! log is read and folded. Where no stamp tells, it looks back in steps of 8, 64 and 1,000 records, until it finds a
//! stamp that does, a checkpoint, an `open`, or the first record that is left. A log that no gateway ever fenced has none
//! of these: its token, which a refused append names, says so before anyone looks further back than 8.
//!
//! This is a synchronous machine: it says what to do next ([`Step`]) and is told what came of it.

use std::collections::VecDeque;

use crate::{
    mark::{Entry, Kind, Stamp},
    record::Record,
    state::{FoldError, StreamState},
    token::{Phase, Token},
};

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Read at most `limit` records, from this far before the tail.
    ReadLast(u64),
    /// Read at most 1,000 records from here on.
    ReadFrom(u64),
    /// Ask for the fencing token, by an append that it refuses, and for the tail.
    ProbeToken,
    /// It is done.
    Done(Box<Activated>),
}

/// What came of a step.
#[derive(Debug)]
pub enum Found {
    /// The store has no such stream.
    Missing,
    /// Records, from where they were asked for, or from the first that is left.
    Records(Vec<Record>),
    /// The token in force, the tail, and the timestamp of the last record.
    Token {
        /// The token.
        token: String,
        /// The sequence number of the next record.
        tail: u64,
        /// In milliseconds since the Unix epoch.
        clock_ms: u64,
    },
}

/// A stream's state, and what was read on the way.
#[derive(Debug)]
pub struct Activated {
    /// The state.
    pub state: StreamState,
    /// The last records of the log, contiguous up to the state's position: they fill the ring.
    pub recent: Vec<Record>,
    /// Whether the way here was long, so that a checkpoint should be left for the next.
    pub wants_checkpoint: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Activation {
    /// Contiguous, oldest first.
    records: VecDeque<Record>,
    /// Where a mark was found: the state after the last of `records`.
    state: Option<StreamState>,
    stage: Stage,
    probe: Option<Probe>,
    reads: u32,
}

/// What a refused append has told.
#[derive(Debug, Clone)]
struct Probe {
    token: Token,
    tail: u64,
    clock_ms: u64,
}

#[derive(Debug)]
enum Stage {
    /// Looking back this many records from the tail.
    Last(u64),
    /// Reading forward to the tail: from a pointer, or from where a page stopped at its byte limit. `back` is how far
    /// was looked back before.
    Forward { back: u64 },
    /// Looking further back, page by page, up to the first record that is known.
    Before { older: Vec<Record> },
    /// Waiting for the token.
    Token,
}

/// How far back to look, one after the other; the last is repeated.
const STEPS: [u64; 4] = [1, 8, 64, 1_000];
/// A way of more reads than this should not be gone twice.
const SHORT_WAY: u32 = 4;
/// How many bytes of the last records are kept for the ring.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

impl Default for Activation {
    fn default() -> Self {
        Self { records: VecDeque::new(), state: None, stage: Stage::Last(STEPS[0]), probe: None, reads: 0 }
    }
}

impl Activation {
    /// The first step.
    #[must_use]
    pub fn start(&self) -> Step {
        Step::ReadLast(STEPS[0])
    }

    /// Takes what came of the last step, and gives the next.
    pub fn on(&mut self, found: Found) -> Result<Step, FoldError> {
        self.reads += 1;
        match (std::mem::replace(&mut self.stage, Stage::Token), found) {
            (_, Found::Missing) => Ok(done(StreamState::default(), Vec::new(), false)),
            (Stage::Token, Found::Token { token, tail, clock_ms }) => {
                self.on_token(Probe { token: Token::parse(&token), tail, clock_ms })
            }
            (Stage::Last(back), Found::Records(page)) => self.on_last(back, page),
            (Stage::Forward { back }, Found::Records(page)) => self.on_forward(back, page),
            (Stage::Before { older }, Found::Records(page)) => self.on_before(older, page),
            (Stage::Token, Found::Records(_)) | (_, Found::Token { .. }) => Ok(self.restart()),
        }
    }

    /// Begins again with what is left, after a trim under our hands.
    fn restart(&mut self) -> Step {
        let reads = self.reads;
        *self = Self { reads, ..Self::default() };
        self.start()
    }

    fn on_last(&mut self, back: u64, page: Vec<Record>) -> Result<Step, FoldError> {
        self.records = page.into();
        let Some(last) = self.records.back() else {
            // Everything is trimmed, or nothing was ever written: the token alone can tell.
            let asked = if back == STEPS[0] { self.probe.take() } else { None };
            return Ok(asked.map_or(Step::ProbeToken, without_records));
        };
        let next = last.seq + 1;
        self.state = fold_from_mark(self.records.make_contiguous())?;
        if self.state.is_none()
            && let Some(as_of) = newest_pointer(self.records.make_contiguous())?
        {
            self.records.clear();
            self.stage = Stage::Forward { back };
            return Ok(Step::ReadFrom(as_of));
        }
        // A longer page may have stopped at its byte limit; the next read says whether it did.
        if back > STEPS[0] {
            self.stage = Stage::Forward { back };
            return Ok(Step::ReadFrom(next));
        }
        self.conclude(back)
    }

    fn on_forward(&mut self, back: u64, page: Vec<Record>) -> Result<Step, FoldError> {
        let Some(last) = page.last() else { return self.conclude(back) };
        let next = last.seq + 1;
        if self.records.back().is_some_and(|known| page[0].seq != known.seq + 1) {
            return Ok(self.restart());
        }
        if let Some(state) = &mut self.state {
            for record in &page {
                state.apply(record)?;
            }
        }
        self.records.extend(page);
        if self.state.is_none() {
            self.state = fold_from_mark(self.records.make_contiguous())?;
        }
        if self.state.is_some() {
            self.forget_old();
        }
        self.stage = Stage::Forward { back };
        Ok(Step::ReadFrom(next))
    }

    fn on_before(&mut self, mut older: Vec<Record>, page: Vec<Record>) -> Result<Step, FoldError> {
        let known = self.records.front().map_or(u64::MAX, |first| first.seq);
        if let (Some(last), Some(next)) = (older.last(), page.first())
            && next.seq != last.seq + 1
        {
            return Ok(self.restart());
        }
        older.extend(page.into_iter().filter(|record| record.seq < known));
        let reached = older.last().map_or(known, |last| last.seq + 1);
        if reached < known {
            self.stage = Stage::Before { older };
            return Ok(Step::ReadFrom(reached));
        }
        let none_left = older.is_empty();
        for record in older.into_iter().rev() {
            self.records.push_front(record);
        }
        self.state = fold_from_mark(self.records.make_contiguous())?;
        if none_left && self.state.is_none() {
            return self.conclude_without_mark();
        }
        self.conclude(STEPS[3])
    }

    /// At the tail: done, where a mark was found or the log's beginning; else further back.
    fn conclude(&mut self, back: u64) -> Result<Step, FoldError> {
        if let Some(state) = self.state.take() {
            return Ok(self.finish(state));
        }
        let Some(first) = self.records.front().map(|first| first.seq) else {
            // A pointer that led nowhere: trimmed since, or forged by a native writer.
            self.stage = Stage::Last(STEPS[1]);
            return Ok(Step::ReadLast(STEPS[1]));
        };
        if first == 0 {
            let state = fold(StreamState::default(), self.records.make_contiguous())?;
            return Ok(self.finish(state));
        }
        if (self.records.len() as u64) < back {
            // Less was there than was asked for: nothing stands before it any more.
            return self.conclude_without_mark();
        }
        if back >= STEPS[1] && self.probe.is_none() {
            return Ok(Step::ProbeToken);
        }
        if self.probe.as_ref().is_some_and(|probe| !matches!(probe.token, Token::Ours(_))) && self.holds_a_message() {
            return self.conclude_without_mark();
        }
        Ok(self.look_back(back, first))
    }

    /// Whether one of the records at hand is a message: what a log without marks is known by.
    fn holds_a_message(&self) -> bool {
        self.records.iter().any(|record| Entry::decode(record).is_ok_and(|entry| entry.kind.is_visible()))
    }

    fn look_back(&mut self, back: u64, first: u64) -> Step {
        if let Some(further) = STEPS.into_iter().find(|step| *step > back) {
            self.stage = Stage::Last(further);
            return Step::ReadLast(further);
        }
        self.stage = Stage::Before { older: Vec::new() };
        Step::ReadFrom(first.saturating_sub(STEPS[3]))
    }

    fn on_token(&mut self, probe: Probe) -> Result<Step, FoldError> {
        let news = self.probe.as_ref().is_none_or(|known| known.token != probe.token);
        // A life of ours has an `open`, or a checkpoint, somewhere, unless it is over and trimmed. One that is over and
        // not trimmed may be kept for its forks, which the token does not say.
        let more = match probe.token {
            Token::Ours(ours) if news => ours.phase != Phase::Gone || self.records.len() as u64 >= STEPS[1],
            Token::Ours(_) => false,
            // Pieces of a body whose commit never came stand in a log that may hold nothing else.
            Token::Native | Token::Foreign(_) => !self.holds_a_message(),
        };
        let ours = matches!(probe.token, Token::Ours(_));
        match self.records.front().map(|first| first.seq) {
            // It may have been opened since.
            None if ours => {
                self.probe = Some(probe);
                self.stage = Stage::Last(STEPS[0]);
                Ok(Step::ReadLast(STEPS[0]))
            }
            None => Ok(without_records(probe)),
            Some(first) => {
                self.probe = Some(probe);
                if more { Ok(self.look_back(STEPS[1], first)) } else { self.conclude_without_mark() }
            }
        }
    }

    /// No mark of ours stands in what is left of the log: its token says what that means.
    fn conclude_without_mark(&mut self) -> Result<Step, FoldError> {
        // A token that is older than the records may have been moved by one of them that is trimmed already.
        let next = self.records.back().map_or(0, |last| last.seq + 1);
        let Some(probe) = self.probe.clone().filter(|probe| next <= probe.tail) else { return Ok(Step::ProbeToken) };
        let first = self.records.front().map_or(0, |first| first.seq);
        let state = fold(StreamState::without_marks(first, 0, probe.token), self.records.make_contiguous())?;
        Ok(self.finish(state))
    }

    fn finish(&mut self, state: StreamState) -> Step {
        self.forget_old();
        let wants_checkpoint = self.reads > SHORT_WAY && state.incarnation().is_some();
        done(state, std::mem::take(&mut self.records).into(), wants_checkpoint)
    }

    fn forget_old(&mut self) {
        let mut bytes: usize = self.records.iter().map(Record::metered_bytes).sum();
        while bytes > KEPT_BYTES
            && let Some(oldest) = self.records.pop_front()
        {
            bytes -= oldest.metered_bytes();
        }
    }
}

fn done(state: StreamState, recent: Vec<Record>, wants_checkpoint: bool) -> Step {
    Step::Done(Box::new(Activated { state, recent, wants_checkpoint }))
}

/// A log with nothing left in it.
fn without_records(Probe { token, tail, clock_ms }: Probe) -> Step {
    done(StreamState::without_marks(tail, clock_ms, token), Vec::new(), false)
}

fn decode(record: &Record) -> Result<Entry, FoldError> {
    Entry::decode(record).map_err(|source| FoldError::Unreadable { seq: record.seq, source })
}

/// The checkpoint that the newest stamp among some records names, where it stands before them.
fn newest_pointer(records: &[Record]) -> Result<Option<u64>, FoldError> {
    let first = records.first().map_or(0, |first| first.seq);
    for record in records.iter().rev() {
        if let Some(Stamp { checkpoint, .. }) = decode(record)?.stamp {
            return Ok(checkpoint.filter(|as_of| *as_of < first));
        }
    }
    Ok(None)
}

fn fold(mut state: StreamState, records: &[Record]) -> Result<StreamState, FoldError> {
    for record in records {
        state.apply(record)?;
    }
    Ok(state)
}

/// Folds from the newest checkpoint or `open` in a contiguous run of records; `None` where it holds none.
fn fold_from_mark(records: &[Record]) -> Result<Option<StreamState>, FoldError> {
    let Some(first) = records.first().map(|first| first.seq) else { return Ok(None) };
    for record in records.iter().rev() {
        if let Some(state) = state_from_mark(record, first)? {
            let known = records.partition_point(|record| record.seq < state.next());
            return fold(state, &records[known..]).map(Some);
        }
    }
    Ok(None)
}

/// The state that a mark says the log had, at `first` or later; `None` where the record is no such mark.
fn state_from_mark(record: &Record, first: u64) -> Result<Option<StreamState>, FoldError> {
    let kind = decode(record)?.kind;
    if matches!(kind, Kind::Open(_)) {
        return Ok(Some(StreamState::starting_at(record.seq)));
    }
    let Kind::Checkpoint(checkpoint) = kind else { return Ok(None) };
    if !(first..=record.seq).contains(&checkpoint.as_of) {
        return Ok(None);
    }
    // Any native writer can write a record that looks like one of ours.
    let state = StreamState::from_checkpoint(&record.body).ok();
    Ok(state.filter(|state| state.next() == checkpoint.as_of))
}

#[cfg(test)]
mod tests;
