//! Logs as earlier versions have written them, record by record: they are folded for ever.
//!
//! The program's own test of its data directories writes a version's file, from the records that stand in its store
//! (`bins/tailwater/tests/program/kept.rs`). A file is added where a version writes anything differently; none is ever
//! changed. Its lines are
//!
//! ```text
//! stream NAME
//! record NUMBER TIMESTAMP [HEADER=VALUE,…] BODY     in hexadecimal; BODY may be BYTE*COUNT, or - where empty
//! state CHECKPOINT                                  what the records fold to, as the body of a checkpoint
//! ```

use bytes::Bytes;

use crate::{
    Command, Header, Kind, MAX_BATCH_BYTES, NewRecord, Record, StreamState, Visibility,
    mark::Entry,
    simulation::{Log, assert_agree, assert_usable, fold},
};

/// The second has what creators have said of who may see a stream, which the first could not hold yet.
const KEPT: [(&str, &str); 2] =
    [("0.1.0", include_str!("kept/0.1.0.txt")), ("0.1.0 with visibility", include_str!("kept/0.1.0-visibility.txt"))];

/// One stream of a file.
struct Stream {
    name: String,
    records: Vec<Record>,
    state: StreamState,
}

fn streams() -> Vec<Stream> {
    let mut streams = Vec::new();
    for (version, text) in KEPT {
        let mut lines = text.lines();
        while let Some(name) = lines.next() {
            let name = format!("{} of {version}", name.strip_prefix("stream ").unwrap());
            let mut records = Vec::new();
            let state = loop {
                match lines.next().unwrap().split_once(' ').unwrap() {
                    ("record", fields) => records.push(record(fields)),
                    ("state", body) => break StreamState::from_checkpoint(&unhex(body)).unwrap(),
                    (word, _) => panic!("{word} in {name}"),
                }
            };
            streams.push(Stream { name, records, state });
        }
    }
    streams
}

fn record(fields: &str) -> Record {
    let fields: Vec<&str> = fields.split(' ').collect();
    let [seq, timestamp, headers, body] = fields.as_slice() else { panic!("{fields:?}") };
    let headers = headers.trim_matches(['[', ']']).split(',').filter_map(|header| header.split_once('='));
    let headers = headers.map(|(name, value)| Header { name: unhex(name), value: unhex(value) }).collect();
    let body = match body.split_once('*') {
        Some((byte, count)) => Bytes::from(unhex(byte).repeat(count.parse().unwrap())),
        None => unhex(body.trim_matches('-')),
    };
    NewRecord { headers, body }.at(seq.parse().unwrap(), timestamp.parse().unwrap())
}

fn unhex(text: &str) -> Bytes {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn logs_of_all_versions_are_folded_to_the_states_that_they_were_folded_to() {
    for Stream { name, records, state } in streams() {
        let folded = fold(StreamState::starting_at(records[0].seq), &records).unwrap();
        assert_eq!(folded, state, "{name}");
        assert_usable(&folded);
    }
}

#[test]
fn who_may_see_a_stream_is_said_where_it_was_said() {
    let said = |name: &str| {
        let stream = streams().into_iter().find(|stream| stream.name == name).unwrap();
        stream.state.incarnation().unwrap().open.visibility
    };
    assert_eq!(said("text of 0.1.0"), None);
    assert_eq!(said("public of 0.1.0 with visibility"), Some(Visibility::Public));
    assert_eq!(said("private of 0.1.0 with visibility"), Some(Visibility::Private));
}

#[test]
fn a_pod_that_meets_a_log_of_any_version_finds_the_same_state() {
    for Stream { name, records, state } in streams() {
        let token = records.iter().filter_map(Record::command).filter_map(|command| match command {
            Command::Fence(token) => Some(token),
            Command::Trim(_) => None,
        });
        let (first, token) = (records[0].seq, token.last().unwrap_or_default());
        let trimmed = (0..first).map(|seq| NewRecord::message(Bytes::new()).at(seq, 0));
        let log = Log { first, token, records: trimmed.chain(records).collect(), ..Log::default() };
        for page_bytes in [400, MAX_BATCH_BYTES] {
            let (activated, answers) = log.activate(page_bytes);
            assert_agree(&activated.state, &state);
            assert!(answers < 200, "{name}: {answers} answers");
        }
    }
}

#[test]
fn what_is_kept_holds_every_kind_that_the_program_writes() {
    let mut kinds = Vec::new();
    for record in streams().iter().flat_map(|stream| &stream.records) {
        let kind = match Entry::decode(record).unwrap().kind {
            Kind::Message(message) if message.producer.is_some() => "claim",
            Kind::Message(message) if message.stream_seq.is_some() => "numbered message",
            Kind::Message(_) => "message",
            Kind::Piece(_) => "piece",
            Kind::Commit(_) => "commit",
            Kind::Open(open) if open.fork.is_some() => "open of a fork",
            Kind::Open(_) => "open",
            Kind::Close(_) => "close",
            Kind::Gone(_) => "gone",
            Kind::Ref(_) => "ref",
            Kind::Checkpoint(_) => "checkpoint",
            Kind::Fence(_) => "fence",
            Kind::Trim(_) | Kind::Touch | Kind::Unref(_) => continue,
            Kind::Delivery(_) | Kind::Sub(_) | Kind::Unsub { .. } | Kind::Skipped => {
                panic!("nothing writes {record:?}")
            }
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.sort_unstable();
    let all = [
        "checkpoint",
        "claim",
        "close",
        "commit",
        "fence",
        "gone",
        "message",
        "numbered message",
        "open",
        "open of a fork",
        "piece",
        "ref",
    ];
    assert_eq!(kinds, all);
}
