//! The log of one S2 stream, in memory: conditional appends, the fencing token, trims, reads.
//!
//! What it does was measured on S2: the token is checked before the position; command records take sequence numbers
//! and work only when their batch is accepted; a trim reaches at most to just behind its own record; all records of a
//! batch carry the same arrival timestamp, which never decreases along a log.

use std::collections::VecDeque;

use tailwater_log::{Command, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Record};
use tailwater_upstream::{Append, AppendAck, AppendError, Position, ReadFrom};

/// The longest fencing token that S2 takes, in bytes.
const MAX_TOKEN_BYTES: usize = 36;
/// How many append batches S2 keeps for the sessions that follow live; one that is further behind reads the log.
pub(crate) const LIVE_BATCHES: usize = 32;

/// One stream. The tail outlives the records: a trimmed stream continues its numbering.
#[derive(Debug, Default)]
pub(crate) struct StreamLog {
    records: VecDeque<Record>,
    tail: u64,
    last_timestamp: u64,
    token: String,
    /// Everything before this number is to go, or has gone.
    trim_point: u64,
    /// The newest batches as they were appended, for live sessions; a trim does not reach them.
    recent: VecDeque<Vec<Record>>,
    reaped: bool,
}

impl StreamLog {
    /// Appends all of a batch or nothing, at `now` in milliseconds. The batch has passed [`admit`].
    pub(crate) fn append(&mut self, append: Append, now: u64) -> Result<AppendAck, AppendError> {
        if append.token.as_ref().is_some_and(|wanted| *wanted != self.token) {
            return Err(AppendError::TokenMismatch { actual: self.token.clone() });
        }
        if append.match_seq.is_some_and(|wanted| wanted != self.tail) {
            return Err(AppendError::SeqMismatch { actual: self.tail });
        }
        let timestamp = now.max(self.last_timestamp);
        let first = self.tail;
        let batch: Vec<Record> = (first..).zip(append.records).map(|(seq, record)| record.at(seq, timestamp)).collect();
        for record in &batch {
            self.obey(record);
        }
        self.tail += batch.len() as u64;
        self.last_timestamp = timestamp;
        self.keep(batch);
        Ok(AppendAck { start: Position { seq: first, timestamp }, end: self.tail() })
    }

    /// Removes what was trimmed.
    pub(crate) fn settle_trims(&mut self) {
        while self.records.front().is_some_and(|record| record.seq < self.trim_point) {
            self.records.pop_front();
        }
    }

    /// Ends the stream as S2's deletion does: with a last trim record that live sessions still see.
    pub(crate) fn reap(&mut self, now: u64) {
        let timestamp = now.max(self.last_timestamp);
        let last = tailwater_log::NewRecord::trim(u64::MAX).at(self.tail, timestamp);
        self.records.clear();
        self.tail += 1;
        self.last_timestamp = timestamp;
        self.keep(vec![last]);
        self.reaped = true;
    }

    /// At most `limit` records, 1,000 and 1 MiB; from the first record left where the start was trimmed.
    pub(crate) fn page(&self, from: ReadFrom, limit: usize) -> Vec<Record> {
        let start = match from {
            ReadFrom::Seq(seq) => seq,
            ReadFrom::TailOffset(back) => self.tail.saturating_sub(back),
        };
        let mut bytes = 0;
        self.records
            .range(self.records.partition_point(|record| record.seq < start)..)
            .take(limit.min(MAX_BATCH_RECORDS))
            .take_while(|record| {
                bytes += record.metered_bytes();
                bytes <= MAX_BATCH_BYTES
            })
            .cloned()
            .collect()
    }

    /// The append batch that starts at `seq`, while it is among the newest.
    pub(crate) fn recent_batch(&self, seq: u64) -> Option<&[Record]> {
        let at = self.recent.binary_search_by_key(&seq, |batch| batch[0].seq).ok()?;
        Some(&self.recent[at])
    }

    /// The newest append batch, as it was appended.
    pub(crate) fn newest_batch(&self) -> &[Record] {
        self.recent.back().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn tail(&self) -> Position {
        Position { seq: self.tail, timestamp: self.last_timestamp }
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn is_reaped(&self) -> bool {
        self.reaped
    }

    fn obey(&mut self, record: &Record) {
        match record.command() {
            Some(Command::Fence(token)) => self.token = token,
            Some(Command::Trim(before)) => self.trim_point = self.trim_point.max(before.min(record.seq + 1)),
            None => {}
        }
    }

    fn keep(&mut self, batch: Vec<Record>) {
        if self.recent.len() == LIVE_BATCHES {
            self.recent.pop_front();
        }
        self.records.extend(batch.iter().cloned());
        self.recent.push_back(batch);
    }
}

/// Refuses what S2 refuses whatever the stream holds, before it even creates the stream.
pub(crate) fn admit(append: &Append) -> Result<(), AppendError> {
    let refused = |why: String| Err(AppendError::Refused { cause: why.into() });
    let (count, bytes) = (append.records.len(), append.metered_bytes());
    if count == 0 || count > MAX_BATCH_RECORDS {
        return refused(format!("a batch of {count} records"));
    }
    if bytes > MAX_BATCH_BYTES {
        return refused(format!("a batch of {bytes} metered bytes"));
    }
    if append.token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN_BYTES) {
        return refused(format!("a fencing token longer than {MAX_TOKEN_BYTES} bytes"));
    }
    for record in &append.records {
        if !record.headers.iter().any(|header| header.name.is_empty()) {
            continue;
        }
        match record.clone().at(0, 0).command() {
            Some(Command::Fence(_)) if record.body.len() > MAX_TOKEN_BYTES => {
                return refused(format!("a fencing token longer than {MAX_TOKEN_BYTES} bytes"));
            }
            Some(Command::Fence(_)) if std::str::from_utf8(&record.body).is_err() => {
                return refused("a fencing token that is not UTF-8".to_owned());
            }
            Some(Command::Fence(_) | Command::Trim(_)) => {}
            None => return refused("a header without a name on what is no command".to_owned()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tailwater_log::{Header, NewRecord};

    use super::*;

    fn message(body: &'static str) -> NewRecord {
        NewRecord::message(Bytes::from_static(body.as_bytes()))
    }

    fn holding(count: u64) -> StreamLog {
        let mut log = StreamLog::default();
        for _ in 0..count {
            log.append(Append::new(vec![message("x")]), 1).unwrap();
        }
        log
    }

    fn seqs(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.seq).collect()
    }

    #[test]
    fn all_records_of_a_batch_carry_one_timestamp_and_timestamps_never_decrease() {
        let mut log = StreamLog::default();
        log.append(Append::new(vec![message("a"), message("b")]), 700).unwrap();
        let ack = log.append(Append::new(vec![message("c")]), 600).unwrap();
        assert_eq!(log.records().map(|record| record.timestamp).collect::<Vec<_>>(), [700, 700, 700]);
        assert_eq!(ack.start, Position { seq: 2, timestamp: 700 });
        assert_eq!(ack.end, Position { seq: 3, timestamp: 700 });
    }

    #[test]
    fn the_token_is_checked_before_the_position_and_both_are() {
        let mut log = StreamLog::default();
        log.append(Append::new(vec![NewRecord::fence("o.1")]), 1).unwrap();
        let conditions = |token: &str, seq| Append {
            match_seq: Some(seq),
            token: Some(token.to_owned()),
            ..Append::new(vec![message("x")])
        };
        let both_wrong = log.append(conditions("o.2", 9), 1).unwrap_err();
        assert!(matches!(both_wrong, AppendError::TokenMismatch { actual } if actual == "o.1"));
        let position_wrong = log.append(conditions("o.1", 0), 1).unwrap_err();
        assert!(matches!(position_wrong, AppendError::SeqMismatch { actual: 1 }));
        assert_eq!(log.append(conditions("o.1", 1), 1).unwrap().start.seq, 1);
    }

    #[test]
    fn a_fence_in_a_refused_batch_sets_nothing() {
        let mut log = holding(2);
        let append = Append { match_seq: Some(0), ..Append::new(vec![NewRecord::fence("o.1")]) };
        log.append(append, 1).unwrap_err();
        assert_eq!(log.token(), "");
        assert_eq!(log.tail().seq, 2);
    }

    #[test]
    fn the_last_fence_of_a_batch_counts() {
        let mut log = StreamLog::default();
        log.append(Append::new(vec![NewRecord::fence("a"), message("x"), NewRecord::fence("b")]), 1).unwrap();
        assert_eq!(log.token(), "b");
    }

    #[test]
    fn a_trim_takes_at_most_itself_and_the_numbering_goes_on() {
        let mut log = holding(3);
        log.append(Append::new(vec![NewRecord::trim(u64::MAX), message("kept")]), 1).unwrap();
        assert_eq!(log.page(ReadFrom::Seq(0), 10).len(), 5, "a trim is applied later");
        log.settle_trims();
        assert_eq!(seqs(&log.page(ReadFrom::Seq(0), 10)), [4]);
        assert_eq!(log.append(Append::new(vec![message("x")]), 1).unwrap().start.seq, 5);
    }

    #[test]
    fn a_trim_below_an_earlier_one_brings_nothing_back() {
        let mut log = holding(4);
        log.append(Append::new(vec![NewRecord::trim(3)]), 1).unwrap();
        log.append(Append::new(vec![NewRecord::trim(1)]), 1).unwrap();
        log.settle_trims();
        assert_eq!(seqs(&log.page(ReadFrom::Seq(0), 10)), [3, 4, 5]);
    }

    #[test]
    fn a_page_stops_at_its_limit_at_1000_records_and_at_1_mib() {
        let mut log = StreamLog::default();
        log.append(Append::new(vec![message("x"); 1000]), 1).unwrap();
        log.append(Append::new(vec![message("x")]), 1).unwrap();
        assert_eq!(log.page(ReadFrom::Seq(0), 5000).len(), 1000);
        assert_eq!(seqs(&log.page(ReadFrom::Seq(7), 2)), [7, 8]);
        assert_eq!(log.page(ReadFrom::Seq(0), 0), []);

        let mut log = StreamLog::default();
        let half = NewRecord::message(Bytes::from(vec![0; MAX_BATCH_BYTES / 2 - 8]));
        for _ in 0..3 {
            log.append(Append::new(vec![half.clone()]), 1).unwrap();
        }
        assert_eq!(log.page(ReadFrom::Seq(0), 10).len(), 2, "exactly 1 MiB fits");
    }

    #[test]
    fn a_tail_offset_counts_from_the_tail_and_stops_at_the_first_record() {
        let log = holding(5);
        assert_eq!(seqs(&log.page(ReadFrom::TailOffset(2), 10)), [3, 4]);
        assert_eq!(seqs(&log.page(ReadFrom::TailOffset(1000), 10)), [0, 1, 2, 3, 4]);
        assert_eq!(log.page(ReadFrom::TailOffset(0), 10), []);
        assert_eq!(log.page(ReadFrom::Seq(5), 10), []);
        assert_eq!(log.page(ReadFrom::Seq(99), 10), []);
    }

    #[test]
    fn only_the_newest_batches_are_kept_for_live_sessions() {
        let log = holding(LIVE_BATCHES as u64 + 1);
        assert_eq!(log.recent_batch(0), None);
        assert_eq!(seqs(log.recent_batch(1).unwrap()), [1]);
    }

    #[test]
    fn batches_beyond_the_limits_of_s2_are_refused() {
        let full = NewRecord::message(Bytes::from(vec![0; MAX_BATCH_BYTES - 8]));
        let nameless = NewRecord {
            headers: vec![Header { name: Bytes::new(), value: Bytes::from_static(b"trim") }],
            body: Bytes::from_static(b"short"),
        };
        let accepted = [vec![full.clone()], vec![message("x"); 1000], vec![NewRecord::fence(&"t".repeat(36))]];
        let refused = [
            vec![],
            vec![message("x"); 1001],
            vec![full, message("")],
            vec![NewRecord::fence(&"t".repeat(37))],
            vec![nameless],
        ];
        for records in accepted {
            admit(&Append::new(records)).unwrap();
        }
        for records in refused {
            assert!(matches!(admit(&Append::new(records)), Err(AppendError::Refused { .. })));
        }
        let long_token = Append { token: Some("t".repeat(37)), ..Append::new(vec![message("x")]) };
        assert!(matches!(admit(&long_token), Err(AppendError::Refused { .. })));
    }
}
