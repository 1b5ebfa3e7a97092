//! A client's view of Server-Sent Events: bytes in, events out.
//!
//! [`SseParser`] follows the parsing rules of the HTML standard ("Interpreting an event stream"): lines end at CR LF, LF
//! or CR, in whatever pieces they arrive; one space after the colon goes; an event without data is not dispatched; an id
//! stays in force until the next one; a leading byte order mark is skipped. [`DurableSse`] adds what the Durable Streams
//! protocol demands.

mod durable;

use std::{collections::VecDeque, mem, time::Duration};

pub use durable::{Control, DurableEvent, DurableSse, Payload, Violation};

/// One event, as it was dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// The event's type; `message` where it names none.
    pub event: String,
    /// The data lines, joined by line feeds.
    pub data: String,
    /// The id that this very event carried, not one that an earlier event left in force.
    pub id: Option<String>,
    /// The reconnection time that this very event carried.
    pub retry: Option<Duration>,
}

/// An incremental parser. It never fails: what it cannot read, the standard says to ignore.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    /// The last line ended at a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// A line has ended, so that no byte order mark can come any more.
    past_start: bool,
    block: Block,
    last_event_id: String,
    reconnection_time: Option<Duration>,
    ready: VecDeque<SseEvent>,
}

/// The fields since the last blank line.
#[derive(Debug, Default, PartialEq)]
struct Block {
    event: String,
    data: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
}

impl SseParser {
    /// A parser at the start of a response.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they arrived. Any split is the same.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let after_cr = mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(),
                other => self.line.push(*other),
            }
        }
    }

    /// The next event that is complete.
    pub fn pop(&mut self) -> Option<SseEvent> {
        self.ready.pop_front()
    }

    /// What an `EventSource` would send as `Last-Event-ID` once the events so far are taken; empty at first.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The newest reconnection time, whether or not its block was dispatched.
    #[must_use]
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.reconnection_time
    }

    /// Whether something has arrived that no blank line has completed, which the end of a response would discard.
    #[must_use]
    pub fn is_mid_event(&self) -> bool {
        !self.line.is_empty() || self.block != Block::default()
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !mem::replace(&mut self.past_start, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        self.field(field, value.strip_prefix(' ').unwrap_or(value));
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.block.event),
            "data" => match &mut self.block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.block.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.block.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                let millis = value.parse().unwrap_or(u64::MAX);
                self.block.retry = Some(Duration::from_millis(millis));
                self.reconnection_time = self.block.retry;
            }
            // A comment has an empty field name; unknown fields are ignored.
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let Block { event, data, id, retry } = mem::take(&mut self.block);
        if let Some(id) = &id {
            id.clone_into(&mut self.last_event_id);
        }
        let Some(data) = data else { return };
        let event = if event.is_empty() { "message".to_owned() } else { event };
        self.ready.push_back(SseEvent { event, data, id, retry });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<SseEvent> {
        let mut parser = SseParser::new();
        pieces.into_iter().for_each(|piece| parser.push(piece));
        std::iter::from_fn(|| parser.pop()).collect()
    }

    fn event(event: &str, data: &str) -> SseEvent {
        SseEvent { event: event.to_owned(), data: data.to_owned(), id: None, retry: None }
    }

    #[test]
    fn lines_end_at_lf_cr_and_crlf() {
        for end in ["\n", "\r", "\r\n"] {
            let text = ["event: a", "data: 1", "data: 2", "", "data: 3", "", ""].join(end);
            assert_eq!(parse([text.as_bytes()]), [event("a", "1\n2"), event("message", "3")], "{end:?}");
        }
    }

    #[test]
    fn an_event_is_dispatched_by_a_cr_without_waiting_for_an_lf() {
        let mut parser = SseParser::new();
        parser.push(b"data: x\r\n\r");
        assert_eq!(parser.pop(), Some(event("message", "x")));
        parser.push(b"\ndata: y\r\n\r\n");
        assert_eq!(parser.pop(), Some(event("message", "y")));
        assert_eq!(parser.pop(), None);
    }

    #[test]
    fn exactly_one_space_after_the_colon_goes() {
        let cases =
            [("data:x", "x"), ("data: x", "x"), ("data:  x", " x"), ("data", ""), ("data:", ""), ("data: ", "")];
        for (line, data) in cases {
            assert_eq!(parse([format!("{line}\n\n").as_bytes()]), [event("message", data)], "{line:?}");
        }
    }

    #[test]
    fn an_event_without_data_is_not_dispatched_but_its_id_and_retry_count() {
        let mut parser = SseParser::new();
        parser.push(b"event: a\nid: 7\nretry: 1500\n\ndata: x\n\n");
        assert_eq!(parser.pop(), Some(event("message", "x")));
        assert_eq!(parser.last_event_id(), "7");
        assert_eq!(parser.reconnection_time(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn an_event_carries_its_own_id_and_retry() {
        let with = SseEvent { id: Some("9".to_owned()), retry: Some(Duration::from_secs(2)), ..event("e", "x") };
        assert_eq!(parse([b"id:9\nevent:e\nretry:2000\ndata:x\n\n".as_slice()]), [with]);
    }

    #[test]
    fn comments_unknown_fields_bad_ids_and_bad_retries_are_ignored() {
        let text = b": note\nfoo: bar\nid: a\0b\nretry: 1s\nretry: \nDATA: no\ndata: x\n\n";
        assert_eq!(parse([text.as_slice()]), [event("message", "x")]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_only() {
        let text = "\u{feff}data: x\n\n\u{feff}data: y\n\ndata: z\n\n";
        assert_eq!(parse([text.as_bytes()]), [event("message", "x"), event("message", "z")]);
    }

    #[test]
    fn what_no_blank_line_completes_is_mid_event() {
        let mut parser = SseParser::new();
        for (bytes, mid) in [("data: x\n", true), ("\n", false), ("dat", true), ("a: y\n\n", false)] {
            parser.push(bytes.as_bytes());
            assert_eq!(parser.is_mid_event(), mid, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_bytes_are_split(
            text in "(data|event|id|retry|:|: |\u{e4}|x|1|\r|\n|\r\n|\n\n){0,60}",
            size in 1_usize..7,
        ) {
            prop_assert_eq!(parse(text.as_bytes().chunks(size)), parse([text.as_bytes()]));
        }

        #[test]
        fn data_comes_back_as_it_was_written(lines in prop::collection::vec("[^\r\n]{0,12}", 1..6)) {
            let text: String = lines.iter().map(|line| format!("data: {line}\n")).collect();
            prop_assert_eq!(parse([format!("{text}\n").as_bytes()]), [event("message", &lines.join("\n"))]);
        }
    }
}
