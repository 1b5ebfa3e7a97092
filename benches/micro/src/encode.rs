//! Server-Sent Events: what is done once for a batch, and what is done once for its readers.

use std::{hint::black_box, io, sync::Arc};

use bytes::Bytes;
use tailwater_fanout::workbench::{Batch, Burst, Frame, News, Says, Stand};
use tailwater_protocol::{ContentKind, cursor};

use crate::{Operation, Work, payload};

pub(crate) const OPERATIONS: &[Operation] = &[
    operation("json-1x200", Work::Bytes(200), || frame(ContentKind::Json, vec![payload::json(1, 200)])),
    operation("json-16x200", Work::Bytes(3_200), || {
        frame(ContentKind::Json, (0..16).map(|n| payload::json(n, 200)).collect())
    }),
    operation("text-lines-4k", Work::Bytes(4_096), || frame(ContentKind::Text, vec![payload::lines(4_096)])),
    operation("binary-4k", Work::Bytes(4_096), || frame(ContentKind::Binary, vec![payload::binary(4_096)])),
    operation("burst-of-1-cached-frame", Work::Elements(1), || burst_of_cached(1)),
    operation("burst-of-100-cached-frames", Work::Elements(100), || burst_of_cached(100)),
    operation("write-with-own-cursor", Work::Elements(1), write_with_own_cursor),
];

/// The cursor of the time that offsets are from.
fn now() -> u64 {
    cursor::interval(payload::BIRTH)
}

const fn operation(name: &'static str, work: Work, prepare: fn() -> Box<dyn FnMut()>) -> Operation {
    Operation { group: "encode", name, work, calls: 1_000, prepare }
}

/// A batch as one chunk, from its messages.
fn frame(kind: ContentKind, messages: Vec<Bytes>) -> Box<dyn FnMut()> {
    Box::new(move || {
        let messages = messages.iter().map(AsRef::as_ref);
        black_box(Frame::encode(black_box(kind), messages, payload::offset(1), Says::All));
    })
}

/// What all readers of a stream are sent who have not had these batches, once the frames are there.
fn burst_of_cached(count: u64) -> Box<dyn FnMut()> {
    let batches = batches(count);
    Box::new(move || {
        black_box(burst(&batches, black_box(now())));
    })
}

/// What is left to be done for a reader whose cursor is ahead of the others'. The socket takes everything and costs
/// nothing.
fn write_with_own_cursor() -> Box<dyn FnMut()> {
    let burst = burst(&batches(1), now());
    Box::new(move || {
        let written = burst.write(&mut io::sink(), black_box(now() + 1));
        drop(black_box(written));
    })
}

fn batches(count: u64) -> Vec<Arc<Batch>> {
    (0..count).map(|seq| payload::batch(seq, payload::json(seq, 200))).collect()
}

fn burst(batches: &[Arc<Batch>], cursor: u64) -> Burst {
    const LIMIT: usize = 256 * 1024;
    let from = Stand { seq: 0, at: payload::offset(0) };
    let news = News { kind: ContentKind::Json, batches, next: batches.len() as u64, says: Says::All };
    Burst::of(from, news, cursor, LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_sent_with_the_cursor_of_its_reader() {
        let mut sent = Vec::new();
        burst(&batches(1), now()).write(&mut sent, now() + 1).unwrap();
        let sent = String::from_utf8(sent).unwrap();
        assert!(sent.contains(&format!("\"streamCursor\":\"{}\"", now() + 1)), "{sent}");
    }

    #[test]
    fn a_burst_of_100_batches_holds_all_of_them() {
        let mut sent = Vec::new();
        burst(&batches(100), now()).write(&mut sent, now()).unwrap();
        let sent = String::from_utf8(sent).unwrap();
        assert_eq!(sent.matches("event: data").count(), 100);
        assert_eq!(sent.matches("upToDate").count(), 1);
    }
}
