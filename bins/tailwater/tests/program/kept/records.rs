//! The records of streams as they stand in a store, and the states that they fold to, as text: for the test in
//! `crates/log` that folds them for ever.

use std::{fmt::Write as _, path::Path, sync::Arc};

use prometheus::Registry;
use tailwater_log::{Record, StreamState};
use tailwater_s2::{EmbeddedStore, EmbeddedStoreConfig, Metrics, Placement, Storage};
use tailwater_upstream::{ReadFrom, StreamKey, Upstream};
use tokio::runtime::Runtime;

/// A body of one byte only is written as that byte and how often it comes, from this many on.
const LONG: usize = 64;

/// Tells all streams of a directory that nobody else has open.
pub(super) fn tell(directory: &Path, streams: &[&str]) -> String {
    Runtime::new().unwrap().block_on(async {
        let config = EmbeddedStoreConfig::new(Storage::Directory(directory.to_owned()));
        let store = EmbeddedStore::start(config).await.unwrap();
        let placement = Placement::basin_per_project("tailwater").unwrap();
        let meter = Arc::new(Metrics::register(&Registry::new()).unwrap());
        let upstream = store.upstream(placement, meter).unwrap();
        let mut text = String::new();
        for stream in streams {
            text.push_str(&tell_one(stream, &records_of(&upstream, stream).await));
        }
        store.shutdown().await.unwrap();
        text
    })
}

async fn records_of(upstream: &impl Upstream, stream: &str) -> Vec<Record> {
    let key = StreamKey::new("default", stream);
    let tail = upstream.check_tail(&key).await.unwrap().seq;
    let mut records: Vec<Record> = Vec::new();
    let mut next = 0;
    while next < tail {
        records.extend(upstream.read(&key, ReadFrom::Seq(next), 1000).await.unwrap().records);
        next = records.last().unwrap().seq + 1;
    }
    records
}

/// A line for the stream, one for each of its records, and one for the state behind them, as a checkpoint's body.
fn tell_one(stream: &str, records: &[Record]) -> String {
    let mut text = format!("stream {stream}\n");
    let mut state = StreamState::starting_at(records[0].seq);
    for record in records {
        state.apply(record).unwrap();
        let headers: Vec<String> =
            record.headers.iter().map(|header| format!("{}={}", hex(&header.name), hex(&header.value))).collect();
        let (seq, timestamp, body) = (record.seq, record.timestamp, &record.body);
        let body = match body.first() {
            Some(first) if body.len() >= LONG && body.iter().all(|byte| byte == first) => {
                format!("{first:02x}*{}", body.len())
            }
            Some(_) => hex(body),
            None => "-".to_owned(),
        };
        writeln!(text, "record {seq} {timestamp} [{}] {body}", headers.join(",")).unwrap();
    }
    let (_, state) = state.to_checkpoint();
    writeln!(text, "state {}", hex(&state)).unwrap();
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
