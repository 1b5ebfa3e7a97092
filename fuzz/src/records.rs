//! What stands in the store: logs of streams, and the register. Whoever can write there is trusted, and yet nothing that
//! stands there may panic.

use bytes::Bytes;
use tailwater_auth::register::{Applied, Record as Registered, Register};
use tailwater_log::{Entry, HEADER, Header, Kind, Record, StreamState};
use tailwater_protocol::ProjectId;

use crate::input::Pieces;

/// The most records of an input.
const MAX_RECORDS: u64 = 32;
/// When the first record of a register may have been appended, in seconds.
const BEGAN: u64 = 1 << 40;

/// The value of our header, and a body.
fn record(seq: u64, header: &[u8], body: &[u8]) -> Record {
    let header = Header { name: Bytes::from_static(HEADER), value: Bytes::copy_from_slice(header) };
    Record { seq, timestamp: seq, headers: vec![header], body: Bytes::copy_from_slice(body) }
}

pub(crate) fn log_entry(data: &[u8]) {
    let Ok(entry) = Entry::decode(&record(0, data, b"")) else { return };
    if entry.kind != Kind::Skipped {
        let again = Entry::decode(&entry.encode(Bytes::new()).at(0, 0));
        assert_eq!(again, Ok(entry));
    }
    // A checkpoint's body is of the same making.
    if let Ok(state) = StreamState::from_checkpoint(data) {
        is_what_its_checkpoint_says(&state);
    }
}

/// Records, one after the other: the length of a header and the header, the length of a body and the body.
pub(crate) fn log(data: &[u8]) {
    let mut pieces = Pieces(data);
    let mut state = StreamState::default();
    for seq in 0..MAX_RECORDS {
        let (Some(header), Some(body)) = (pieces.piece(), pieces.piece()) else { break };
        let record = match header {
            [] => Record { headers: Vec::new(), ..record(seq, header, body) },
            [0, name @ ..] => command(seq, name, body),
            header => record(seq, header, body),
        };
        let before = state.clone();
        match state.apply(&record) {
            Ok(_) => {
                assert_eq!(state.next(), seq + 1);
                is_what_its_checkpoint_says(&state);
                assert!(state.served_to() <= state.next());
                // A log that was trimmed beyond its end has no place for its tail.
                if let Ok(place) = state.resolve(state.tail_offset()) {
                    assert_eq!(state.resolve(state.offset_at(place)), Ok(place));
                }
            }
            Err(_) => {
                assert_eq!(state, before);
                break;
            }
        }
    }
}

/// A command of the store's own.
fn command(seq: u64, name: &[u8], body: &[u8]) -> Record {
    let header = Header { name: Bytes::new(), value: Bytes::copy_from_slice(name) };
    Record { seq, timestamp: seq, headers: vec![header], body: Bytes::copy_from_slice(body) }
}

fn is_what_its_checkpoint_says(state: &StreamState) {
    let (checkpoint, body) = state.to_checkpoint();
    assert_eq!(checkpoint.as_of, state.next());
    let read = StreamState::from_checkpoint(&body).expect("what is written can be read");
    assert_eq!(read.to_checkpoint(), (checkpoint, body));
    assert_eq!(read.presence(), state.presence());
    assert_eq!(read.tail_offset(), state.tail_offset());
}

/// Records, one after the other: a byte for the time, the length, and the bytes.
pub(crate) fn register(data: &[u8]) {
    let mut pieces = Pieces(data);
    let (mut register, mut at) = (Register::default(), BEGAN);
    for position in 0..MAX_RECORDS {
        let (Some(later), Some(bytes)) = (pieces.byte(), pieces.piece()) else { break };
        at += u64::from(later) * 60;
        let decoded = Registered::decode(bytes);
        if let Ok(Some(record)) = &decoded {
            assert_eq!(Registered::decode(&record.encode()).as_ref(), Ok(&Some(record.clone())));
        }
        let before = register.clone();
        match register.apply(position, at, bytes) {
            Ok(_) => {
                assert!(decoded.is_ok());
                assert_eq!(register.next(), position + 1);
                let after = register.clone();
                assert_eq!(register.apply(position, at, bytes), Ok(Applied::Before));
                assert_eq!(register, after);
                revokes_what_it_says(&register, decoded.ok().flatten().as_ref());
                goes_on_from_its_checkpoint(&register, at);
            }
            Err(_) => {
                assert_eq!(register, before);
                break;
            }
        }
    }
}

fn revokes_what_it_says(register: &Register, record: Option<&Registered>) {
    match record {
        Some(Registered::RevokeToken { project, id, expires_at }) => {
            let counts = expires_at.is_none_or(|end| end >= BEGAN + MAX_RECORDS * 255 * 60);
            assert!(!counts || register.is_revoked(project, Some(id), None));
        }
        Some(Registered::RevokeOlder { project, before }) => {
            let issued = before.saturating_sub(1).min(BEGAN - 1);
            assert!(*before == 0 || register.is_revoked(project, None, Some(issued)));
        }
        Some(Registered::PutProject { .. } | Registered::RemoveProject { .. } | Registered::Checkpoint(_)) | None => {}
    }
}

/// That whoever begins at a checkpoint answers as who has read what stands before it.
fn goes_on_from_its_checkpoint(register: &Register, at: u64) {
    let (position, record) = (register.next(), register.checkpoint().encode());
    let (mut one, mut other) = (register.clone(), Register::default());
    assert_eq!(one.apply(position, at, &record), Ok(Applied::Now));
    assert_eq!(other.apply(position, at, &record), Ok(Applied::Now));
    assert_eq!(one, other);
    assert!(other.in_force(Vec::new(), |_| false, |_| true).is_ok());
    let stranger = ProjectId::default();
    assert_eq!(one.is_revoked(&stranger, Some("a"), None), register.is_revoked(&stranger, Some("a"), None));
}
