//! Reading a log: with a time-out, with the pieces of large bodies put together, and never more than is asked for.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tailwater_log::{
    Activated, Activation, Commit, Entry, FoldError, Found, Kind, MAX_BATCH_BYTES, NewRecord, Record, Step,
};
use tailwater_upstream::{
    Append, AppendError, Cause, Page, Position, ReadError, ReadFrom, ReadSession, SessionEvent, StreamKey, Upstream,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::StreamExt;

use crate::{batch::LogRecord, chance::Chance, config::READ_TIMEOUT, ops::OpError};

/// How many records a unary read may bring.
const PAGE_RECORDS: usize = 1_000;
/// The most bytes of pieces that a session keeps for commits that may follow.
const STASH_BYTES: usize = 16 * 1024 * 1024;

/// Reads one stream's log.
#[derive(Clone)]
pub(crate) struct LogReader {
    upstream: Arc<dyn Upstream>,
    key: StreamKey,
}

impl LogReader {
    pub(crate) fn new(upstream: Arc<dyn Upstream>, key: StreamKey) -> Self {
        Self { upstream, key }
    }

    /// The present tail; `None` where the store has no such stream.
    pub(crate) async fn tail(&self) -> Result<Option<Position>, OpError> {
        match in_time(self.upstream.check_tail(&self.key)).await {
            Ok(position) => Ok(Some(position)),
            Err(ReadError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The records of `from..to`, as many as one read brings; a trimmed start is skipped, as S2 does. A read of nothing
    /// at all, because all is trimmed or the stream is missing, is empty.
    pub(crate) async fn read(&self, from: u64, to: u64) -> Result<Vec<LogRecord>, OpError> {
        let limit = usize::try_from(to.saturating_sub(from)).unwrap_or(PAGE_RECORDS).min(PAGE_RECORDS);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let records = self.records(from, limit).await?;
        let mut stash = Stash::default();
        let mut read = Vec::with_capacity(records.len());
        for record in records.into_iter().filter(|record| record.seq < to) {
            read.push(self.assemble(record, &mut stash).await?);
        }
        Ok(read)
    }

    /// The records from a position on as they stand there, at most `limit` and as many as one read brings.
    pub(crate) async fn records(&self, from: u64, limit: usize) -> Result<Vec<Record>, OpError> {
        let page = self.page(ReadFrom::Seq(from), limit.min(PAGE_RECORDS)).await?;
        Ok(page.map(|page| page.records).unwrap_or_default())
    }

    /// All records of `from..to`, in as many reads as it takes.
    pub(crate) async fn read_all(&self, mut from: u64, to: u64) -> Result<Vec<LogRecord>, OpError> {
        let mut all = Vec::new();
        while from < to {
            let page = self.read(from, to).await?;
            let Some(last) = page.last() else { break };
            from = last.record.seq + 1;
            all.extend(page);
        }
        Ok(all)
    }

    async fn page(&self, from: ReadFrom, limit: usize) -> Result<Option<Page>, OpError> {
        match in_time(self.upstream.read(&self.key, from, limit)).await {
            Ok(page) => Ok(Some(page)),
            Err(ReadError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A session from a position on, its commits put together.
    pub(crate) async fn follow(&self, from: u64) -> Result<LogSession, OpError> {
        let session = in_time(self.upstream.read_session(&self.key, from)).await?;
        Ok(LogSession { reader: self.clone(), session, stash: Stash::default() })
    }

    /// Finds out the state of a stream of which nothing is known.
    pub(crate) async fn activate(&self, chance: &Chance) -> Result<Activated, OpError> {
        let mut activation = Activation::default();
        let mut step = activation.start();
        loop {
            let found = match step {
                Step::Done(activated) => return Ok(*activated),
                Step::ReadLast(back) => {
                    let limit = usize::try_from(back).unwrap_or(PAGE_RECORDS);
                    self.page(ReadFrom::TailOffset(back), limit).await?
                }
                Step::ReadFrom(seq) => self.page(ReadFrom::Seq(seq), PAGE_RECORDS).await?,
                Step::ProbeToken => {
                    step = activation.on(self.probe(chance).await?)?;
                    continue;
                }
            };
            step = activation.on(found.map_or(Found::Missing, |page| Found::Records(page.records)))?;
        }
    }

    /// Asks for the token in force by an append that must be refused: its condition is a token that nobody ever set.
    async fn probe(&self, chance: &Chance) -> Result<Found, OpError> {
        let Some(tail) = self.tail().await? else { return Ok(Found::Missing) };
        let token = self.token(chance).await?;
        Ok(Found::Token { token, tail: tail.seq, clock_ms: tail.timestamp })
    }

    async fn token(&self, chance: &Chance) -> Result<String, OpError> {
        let nobodys = format!("?{:016x}{:016x}", chance.number(), chance.number());
        let append = Append { records: vec![NewRecord::fence("")], match_seq: None, token: Some(nobodys) };
        match in_append_time(self.upstream.append(&self.key, append)).await {
            Err(AppendError::TokenMismatch { actual }) => Ok(actual),
            Err(error) => Err(error.into()),
            Ok(_) => Err(OpError::StoreRefused { cause: None }),
        }
    }

    /// A record with what its pieces hold, where it is a commit; pieces that pass by are kept for the commits that follow.
    pub(crate) async fn assemble(&self, record: Record, stash: &mut Stash) -> Result<LogRecord, OpError> {
        let Ok(entry) = Entry::decode(&record) else {
            // The fold says what is wrong with it, and at which position.
            return Ok(LogRecord { record, assembled: None });
        };
        if matches!(entry.kind, Kind::Piece(_)) {
            stash.keep(record.seq, record.body.clone());
        }
        let Kind::Commit(commit) = entry.kind else { return Ok(LogRecord { record, assembled: None }) };
        let assembled = match stash.assemble(&commit) {
            Some(whole) => whole,
            None => self.fetch_pieces(&commit).await?.ok_or(OpError::Unreadable { seq: record.seq })?,
        };
        let assembled = Some(assembled);
        Ok(LogRecord { record, assembled })
    }

    /// The pieces that a commit names, one read each; `None` where they are not what it says.
    async fn fetch_pieces(&self, commit: &Commit) -> Result<Option<Bytes>, OpError> {
        let mut whole = BytesMut::with_capacity(size_of_whole(commit));
        for (index, seq) in commit.pieces.iter().enumerate() {
            let page = self.page(ReadFrom::Seq(*seq), 1).await?.unwrap_or_default();
            let Some(record) = page.records.into_iter().find(|record| record.seq == *seq) else { return Ok(None) };
            match Entry::decode(&record).map(|entry| entry.kind) {
                Ok(Kind::Piece(piece)) if piece.body == commit.body && piece.index == index as u64 => {
                    whole.extend_from_slice(&record.body);
                }
                Ok(_) | Err(_) => return Ok(None),
            }
        }
        Ok((whole.len() as u64 == commit.bytes).then(|| whole.freeze()))
    }
}

/// A read session whose commits come with their bytes.
pub(crate) struct LogSession {
    reader: LogReader,
    session: ReadSession,
    stash: Stash,
}

/// What a session yields.
#[derive(Debug)]
pub(crate) enum LogEvent {
    /// Records, in order.
    Records(Vec<LogRecord>),
    /// Everything before this position was yielded.
    CaughtUp(u64),
    /// Nobody knows whether there is more, until it has caught up again.
    Stalled,
    /// The session has ended.
    Ended(OpError),
}

impl LogSession {
    /// Feeds a channel until either side ends. The session has a task of its own because it must be polled all the time,
    /// whatever its actor is doing, and because what was taken from it must not be lost to a cancelled wait.
    pub(crate) async fn pump(mut self, events: mpsc::Sender<LogEvent>) {
        loop {
            let event = tokio::select! {
                biased;
                () = events.closed() => return,
                event = self.next() => event,
            };
            let ended = matches!(event, LogEvent::Ended(_));
            if events.send(event).await.is_err() || ended {
                return;
            }
        }
    }

    /// While a commit's pieces are fetched the session is not polled. The pieces of a live commit have passed by just
    /// before, so that happens only where the session began among them.
    async fn next(&mut self) -> LogEvent {
        match self.session.next().await {
            Some(Ok(SessionEvent::Records(records))) => {
                let mut read = Vec::with_capacity(records.len());
                for record in records {
                    match self.reader.assemble(record, &mut self.stash).await {
                        Ok(record) => read.push(record),
                        Err(error) => return LogEvent::Ended(error),
                    }
                }
                LogEvent::Records(read)
            }
            Some(Ok(SessionEvent::CaughtUp(position))) => LogEvent::CaughtUp(position.seq),
            Some(Ok(SessionEvent::Stalled)) => LogEvent::Stalled,
            Some(Err(error)) => LogEvent::Ended(error.into()),
            None => LogEvent::Ended(OpError::Unavailable { retry_after: None, cause: None }),
        }
    }
}

/// Pieces that have passed by, for the commits that may follow; bounded.
#[derive(Debug, Default)]
pub(crate) struct Stash {
    bodies: HashMap<u64, Bytes>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl Stash {
    fn keep(&mut self, seq: u64, body: Bytes) {
        self.bytes += body.len();
        self.order.push_back(seq);
        self.bodies.insert(seq, body);
        while self.bytes > STASH_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.bodies.remove(&oldest).map_or(0, |body| body.len());
        }
    }

    fn assemble(&self, commit: &Commit) -> Option<Bytes> {
        let mut whole = BytesMut::with_capacity(size_of_whole(commit));
        for seq in &commit.pieces {
            whole.extend_from_slice(self.bodies.get(seq)?);
        }
        (whole.len() as u64 == commit.bytes).then(|| whole.freeze())
    }
}

/// The bytes of a large body, as far as its pieces can hold them.
fn size_of_whole(commit: &Commit) -> usize {
    usize::try_from(commit.bytes).unwrap_or(usize::MAX).min(commit.pieces.len().saturating_mul(MAX_BATCH_BYTES))
}

/// A read that does not end in time counts as the store being away.
async fn in_time<T>(read: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
    timeout(READ_TIMEOUT, read).await.unwrap_or_else(|late| Err(ReadError::Unavailable { cause: Cause::from(late) }))
}

pub(crate) async fn in_append_time<T>(append: impl Future<Output = Result<T, AppendError>>) -> Result<T, AppendError> {
    append_within(READ_TIMEOUT, append).await
}

/// An append that does not end in time has an unknown fate.
pub(crate) async fn append_within<T>(
    limit: Duration,
    append: impl Future<Output = Result<T, AppendError>>,
) -> Result<T, AppendError> {
    timeout(limit, append).await.unwrap_or_else(|late| {
        let fate = tailwater_upstream::Fate::Unknown;
        Err(AppendError::Unavailable { fate, cause: Cause::from(late) })
    })
}

impl From<ReadError> for OpError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::Unavailable { retry_after: None, cause: None },
            ReadError::Busy { retry_after } => Self::Unavailable { retry_after, cause: None },
            ReadError::Unavailable { cause } => Self::Unavailable { retry_after: None, cause: Some(cause) },
            ReadError::Refused { cause } => Self::StoreRefused { cause: Some(cause) },
        }
    }
}

impl From<AppendError> for OpError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Busy { retry_after } => Self::Unavailable { retry_after, cause: None },
            AppendError::Unavailable { cause, .. } => Self::Unavailable { retry_after: None, cause: Some(cause) },
            AppendError::TooManyProjects { limit } => Self::TooManyProjects { limit },
            AppendError::Refused { cause } => Self::StoreRefused { cause: Some(cause) },
            AppendError::SeqMismatch { .. } | AppendError::TokenMismatch { .. } | AppendError::DeletionPending => {
                Self::Unavailable { retry_after: None, cause: Some(Cause::from(error)) }
            }
        }
    }
}

impl From<FoldError> for OpError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Unreadable { seq, .. } | FoldError::OutOfOrder { found: seq, .. } => Self::Unreadable { seq },
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_log::Message;

    use super::*;

    fn commit(pieces: Vec<u64>, bytes: u64) -> Commit {
        Commit { body: 1, pieces, bytes, message: Message::default() }
    }

    #[test]
    fn a_commit_is_put_together_from_the_pieces_that_passed_by() {
        let mut stash = Stash::default();
        stash.keep(3, Bytes::from_static(b"ab"));
        stash.keep(7, Bytes::from_static(b"c"));
        assert_eq!(stash.assemble(&commit(vec![3, 7], 3)), Some(Bytes::from_static(b"abc")));
        assert_eq!(stash.assemble(&commit(vec![3, 7], 4)), None, "not what the commit says");
        assert_eq!(stash.assemble(&commit(vec![3, 5, 7], 3)), None, "one has not passed by");
    }

    #[test]
    fn pieces_of_commits_that_never_came_make_room() {
        let mut stash = Stash::default();
        let piece = Bytes::from(vec![0; 1024 * 1024]);
        for seq in 0..100 {
            stash.keep(seq, piece.clone());
            assert!(stash.bytes <= STASH_BYTES);
            assert_eq!(stash.bodies.len(), stash.order.len());
        }
        assert!(stash.bodies.contains_key(&99) && !stash.bodies.contains_key(&0));
    }
}
