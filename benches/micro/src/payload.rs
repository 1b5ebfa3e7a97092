//! What is in the messages: fixed bytes, so that every run measures the same.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_fanout::workbench::{Batch, Message};
use tailwater_protocol::Offset;

/// The birth of the streams here: some day in 2026, so that offsets and cursors have the digits that they have now.
pub(crate) const BIRTH: u64 = 1_780_000_000_000;

/// A JSON object of exactly so many bytes, at least 40.
pub(crate) fn json(n: u64, bytes: usize) -> Bytes {
    let head = format!("{{\"id\":{n},\"user\":\"anna\",\"text\":\"");
    let text: String =
        "the quick brown fox jumps over the lazy dog ".chars().cycle().take(bytes - head.len() - 2).collect();
    Bytes::from(format!("{head}{text}\"}}"))
}

/// A JSON array of so many objects, of exactly so many bytes in all: at least 42 an object.
pub(crate) fn json_array(bytes: usize, count: usize) -> Bytes {
    let each = (bytes - 1) / count - 1;
    let last = bytes - 2 - (count - 1) * (each + 1);
    let objects = (1..=count).map(|n| json(n as u64, if n < count { each } else { last }));
    Bytes::from([b"[".as_slice(), &objects.collect::<Vec<_>>().join(&b','), b"]"].concat())
}

/// Text with an end of a line after each 60 characters, LF and CRLF by turns.
pub(crate) fn lines(bytes: usize) -> Bytes {
    let line = "0123456789".repeat(6);
    let two = format!("{line}\n{line}\r\n");
    Bytes::from(two.bytes().cycle().take(bytes).collect::<Vec<u8>>())
}

/// Every byte there is, over and over.
pub(crate) fn binary(bytes: usize) -> Bytes {
    Bytes::from((0..=u8::MAX).cycle().take(bytes).collect::<Vec<u8>>())
}

/// The offset before a record.
pub(crate) fn offset(seq: u64) -> Offset {
    Offset { birth: BIRTH, seq }
}

/// A batch of one message.
pub(crate) fn batch(seq: u64, body: Bytes) -> Arc<Batch> {
    Arc::new(Batch::new(seq, seq, seq + 1, offset(seq + 1), vec![Message { seq, body }], false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_the_size_that_is_asked_for() {
        for bytes in [42, 200, 4_096] {
            assert_eq!(json(7, bytes).len(), bytes);
            assert_eq!(lines(bytes).len(), bytes);
            assert_eq!(binary(bytes).len(), bytes);
        }
        for (bytes, count) in [(200, 4), (64 * 1024, 320)] {
            assert_eq!(json_array(bytes, count).len(), bytes);
        }
    }
}
