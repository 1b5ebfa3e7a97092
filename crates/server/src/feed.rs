//! What one reader of Server-Sent Events is sent, without I/O (protocol, section 5.8).
//!
//! A delivery becomes one data event and one control event, in one piece. The control event's offset is where the reader
//! goes on after a cut, so it never lies inside something that was sent, nor behind something that was not.
//!
//! That matters for text. An event stream is UTF-8, and two appends may share one character. A delivery that ends inside
//! a character is held back, offset and all, until what follows completes it; a reader that is cut off meanwhile gets it
//! again from the start. What never becomes a character goes out with replacement characters: when the stream is closed,
//! or when more than [`MAX_HELD`](text::MAX_HELD) bytes have come behind it.

use bytes::{Bytes, BytesMut};
use tailwater_fanout::Delivery;
use tailwater_protocol::{ContentKind, Offset, cursor, sse, text};

/// Where a reader stands, and what is held back for it.
#[derive(Debug)]
pub(crate) struct Feed {
    kind: ContentKind,
    /// The position after everything sent.
    at: Offset,
    /// The least cursor to send: cursors never go back.
    cursor: u64,
    held: Vec<Bytes>,
    /// How many bytes came behind the first delivery of those held back.
    behind: usize,
}

impl Feed {
    /// A reader at a position. `cursor` is what its first control event says at least.
    pub(crate) fn new(kind: ContentKind, at: Offset, cursor: u64) -> Self {
        Self { kind, at, cursor, held: Vec::new(), behind: 0 }
    }

    /// The least cursor to send.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether something waits for what completes it.
    pub(crate) fn holds_back(&self) -> bool {
        !self.held.is_empty()
    }

    /// What a delivery makes the reader see; `None` when it is held back.
    pub(crate) fn deliver(&mut self, delivery: &Delivery, now_ms: u64) -> Option<Bytes> {
        let first_held = self.held.is_empty();
        if !first_held {
            self.behind += size(&delivery.messages);
        }
        self.held.extend(delivery.messages.iter().cloned());
        let wait = self.kind == ContentKind::Text && !delivery.closed && self.behind <= text::MAX_HELD;
        if wait && self.ends_inside_a_character() {
            return None;
        }
        let held = std::mem::take(&mut self.held);
        self.behind = 0;
        self.at = delivery.next;
        let mut out = BytesMut::with_capacity(size(&held) + 256);
        if size(&held) > 0 {
            // A reader that is cut off behind the data event has been given it, whether the control event came or not.
            sse::write_id(&mut out, self.at);
        }
        sse::write_data(&mut out, self.kind, held.iter().map(Bytes::as_ref));
        self.write_control(&mut out, delivery.up_to_date, delivery.closed, now_ms);
        Some(out.freeze())
    }

    /// A control event of its own. `up_to_date` is whether nothing more is there; with something held back, there is.
    pub(crate) fn control(&mut self, up_to_date: bool, now_ms: u64) -> Bytes {
        let mut out = BytesMut::new();
        self.write_control(&mut out, up_to_date && self.held.is_empty(), false, now_ms);
        out.freeze()
    }

    /// The only event of a reader who is at the end of a closed stream.
    pub(crate) fn end(&mut self, now_ms: u64) -> Bytes {
        let mut out = BytesMut::new();
        self.write_control(&mut out, true, true, now_ms);
        out.freeze()
    }

    fn write_control(&mut self, out: &mut BytesMut, up_to_date: bool, closed: bool, now_ms: u64) {
        self.cursor = self.cursor.max(cursor::interval(now_ms));
        let control = sse::Control { next: self.at, cursor: Some(self.cursor), up_to_date, closed, id: true };
        sse::write_control(out, &control);
    }

    fn ends_inside_a_character(&self) -> bool {
        text::ends_inside(self.held.iter().map(Bytes::as_ref))
    }
}

fn size(messages: &[Bytes]) -> usize {
    messages.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use tailwater_protocol::{
        cursor::{EPOCH_MS, INTERVAL_MS},
        text::MAX_HELD,
    };

    use super::*;

    const NOW: u64 = EPOCH_MS + 10 * INTERVAL_MS;

    fn at(seq: u64) -> Offset {
        Offset { birth: 1, seq }
    }

    fn delivery(messages: &[&'static [u8]], next: u64) -> Delivery {
        let messages = messages.iter().map(|message| Bytes::from_static(message)).collect();
        Delivery { messages, next: at(next), up_to_date: true, closed: false }
    }

    fn text_feed() -> Feed {
        Feed::new(ContentKind::Text, at(0), 0)
    }

    fn shown(chunk: Option<Bytes>) -> String {
        String::from_utf8(chunk.expect("something is sent").to_vec()).unwrap()
    }

    fn control(seq: u64, rest: &str) -> String {
        let offset = at(seq);
        format!("id: {offset}\nevent: control\ndata:{{\"streamNextOffset\":\"{offset}\"{rest}}}\n\n")
    }

    const TAIL: &str = ",\"streamCursor\":\"10\",\"upToDate\":true";

    #[test]
    fn a_delivery_is_one_data_event_and_one_control_event() {
        let mut feed = Feed::new(ContentKind::Json, at(0), 0);
        let chunk = shown(feed.deliver(&delivery(&[b"1", b"2,3"], 2), NOW));
        assert_eq!(chunk, format!("id: {}\nevent: data\ndata:[1,2,3]\n\n{}", at(2), control(2, TAIL)));
    }

    #[test]
    fn a_character_that_two_appends_share_comes_out_whole() {
        let mut feed = text_feed();
        assert_eq!(feed.deliver(&delivery(&[b"a\xe2"], 1), NOW), None);
        assert_eq!(feed.deliver(&delivery(&[b"\x82"], 2), NOW), None);
        assert_eq!(
            shown(Some(feed.control(true, NOW))),
            control(0, ",\"streamCursor\":\"10\""),
            "not past what is held"
        );
        let chunk = shown(feed.deliver(&delivery(&[b"\xac."], 3), NOW));
        assert_eq!(chunk, format!("id: {}\nevent: data\ndata:a€.\n\n{}", at(3), control(3, TAIL)));
    }

    #[test]
    fn an_unfinished_character_ends_with_its_stream() {
        let mut feed = text_feed();
        assert_eq!(feed.deliver(&delivery(&[b"a\xe2\x82"], 1), NOW), None);
        let closing = Delivery { closed: true, ..delivery(&[], 1) };
        let chunk = shown(feed.deliver(&closing, NOW));
        let end = control(1, ",\"upToDate\":true,\"streamClosed\":true");
        assert_eq!(chunk, format!("id: {}\nevent: data\ndata:a\u{fffd}\n\n{end}", at(1)));
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut feed = text_feed();
        let page = Bytes::from([vec![b'a'; 2 * MAX_HELD], vec![0xe2]].concat());
        let large = Delivery { messages: vec![page], ..delivery(&[], 1) };
        assert_eq!(feed.deliver(&large, NOW), None, "a page may end anywhere");
        let mut sent = 0;
        let mut next = 1;
        while sent <= MAX_HELD {
            assert!(feed.held.iter().map(Bytes::len).sum::<usize>() <= 3 * MAX_HELD + 1);
            next += 1;
            sent += 4096;
            let message = Bytes::from([vec![b'b'; 4095], vec![0xe2]].concat());
            let chunk = feed.deliver(&Delivery { messages: vec![message], ..delivery(&[], next) }, NOW);
            assert_eq!(chunk.is_some(), sent > MAX_HELD, "{sent}");
        }
        assert_eq!((feed.at, feed.held.len(), feed.behind), (at(next), 0, 0));
    }

    #[test]
    fn what_is_not_text_is_never_held_back() {
        for kind in [ContentKind::Binary, ContentKind::Json] {
            let mut feed = Feed::new(kind, at(0), 0);
            assert!(feed.deliver(&delivery(&[b"\xe2"], 1), NOW).is_some(), "{kind:?}");
        }
        assert!(text_feed().deliver(&delivery(&[b"\xff"], 1), NOW).is_some(), "nothing would complete it");
    }

    #[test]
    fn a_cursor_never_goes_back() {
        let mut feed = Feed::new(ContentKind::Text, at(0), 12);
        let shows = |chunk: Bytes, number: u64| shown(Some(chunk)).contains(&format!("\"streamCursor\":\"{number}\""));
        assert!(shows(feed.control(true, NOW), 12));
        assert!(shows(feed.control(true, NOW + 5 * INTERVAL_MS), 15));
        assert!(shows(feed.control(true, NOW), 15));
    }

    #[test]
    fn the_end_of_a_closed_stream_is_one_control_event_without_a_cursor() {
        let mut feed = Feed::new(ContentKind::Binary, at(4), 0);
        assert_eq!(shown(Some(feed.end(NOW))), control(4, ",\"upToDate\":true,\"streamClosed\":true"));
    }
}
