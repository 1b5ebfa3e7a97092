//! The model of S2 and its faults, through the `Upstream` trait: what the gateway's tests lean on.

mod appends;
mod counting;
mod faults;
mod outages;
mod reads;
mod sessions;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::join};
use tailwater_log::{Command, NewRecord, Record};
use tailwater_testkit::{
    Counts, Gate, ScriptedUpstream, Settings, Trims,
    fault::{ANSWER_WITHIN, AppendFault, Outage, Pause, ReadFault, SessionFault},
};
use tailwater_upstream::{
    Append, AppendAck, AppendError, Fate, Page, Position, ReadError, ReadFrom, ReadSession, SessionEvent, StreamKey,
    Upstream,
};
use tokio::time::Instant;

const START_MS: u64 = 1_000_000;

fn store() -> ScriptedUpstream {
    ScriptedUpstream::new(Settings { start_ms: START_MS, ..Settings::default() })
}

fn key() -> StreamKey {
    StreamKey::new("project", "stream")
}

fn message(body: &'static str) -> NewRecord {
    NewRecord::message(Bytes::from_static(body.as_bytes()))
}

fn one(body: &'static str) -> Append {
    Append::new(vec![message(body)])
}

fn seqs(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}

fn bodies(store: &ScriptedUpstream) -> Vec<Bytes> {
    store.records(&key()).into_iter().map(|record| record.body).collect()
}

async fn page(store: &ScriptedUpstream, from: u64) -> Vec<u64> {
    seqs(&store.read(&key(), ReadFrom::Seq(from), 1000).await.expect("no fault is in the way").records)
}

async fn session(store: &ScriptedUpstream, from: u64) -> ReadSession {
    store.read_session(&key(), from).await.expect("no fault is in the way")
}

/// What a session yields without waiting, as text: `0..3` for records, `=3` for caught up.
fn drain(session: &mut ReadSession) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(event) = session.next().now_or_never() {
        seen.push(match event {
            Some(Ok(SessionEvent::Records(records))) => {
                let (first, last) = (records[0].seq, records[records.len() - 1].seq);
                assert_eq!(last - first + 1, records.len() as u64, "a hole inside one event");
                format!("{first}..{}", last + 1)
            }
            Some(Ok(SessionEvent::CaughtUp(tail))) => format!("={}", tail.seq),
            Some(Ok(SessionEvent::Stalled)) => "stalled".to_owned(),
            Some(Err(ReadError::NotFound)) => "not found".to_owned(),
            Some(Err(ReadError::Unavailable { .. })) => "unavailable".to_owned(),
            Some(Err(other)) => other.to_string(),
            None => return [seen, vec!["end".to_owned()]].concat(),
        });
    }
    seen
}

fn is_unavailable(answer: &Result<AppendAck, AppendError>, fate: Fate) -> bool {
    matches!(answer, Err(AppendError::Unavailable { fate: found, .. }) if *found == fate)
}
