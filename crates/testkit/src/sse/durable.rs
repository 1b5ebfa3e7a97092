//! What a Durable Streams client may rely on, checked on every event (PROTOCOL.md, sections 5.8, 8 and 10.1; the rules
//! for `id:` lines and for `reset` are the gateway's own).

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;

use super::{SseEvent, SseParser};

/// How data events carry a stream's bytes; follows from its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// `text/*`: as they are.
    Text,
    /// `application/json`: as one JSON array a data event.
    Json,
    /// Everything else: in base64.
    Binary,
}

/// An event that has passed all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DurableEvent {
    /// Data: the decoded bytes, or the text of the JSON array.
    Data(Bytes),
    /// Where the reader stands.
    Control(Control),
    /// The reader's position is gone; nothing follows.
    Reset {
        /// The earliest offset that can still be read.
        earliest: String,
    },
    /// The stream is deleted or has expired; nothing follows.
    Gone,
    /// The reader may not go on; nothing follows.
    Unauthorized {
        /// Why: `expired` or `revoked`.
        reason: String,
    },
}

/// A control event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Where to read on.
    pub next: String,
    /// The cursor to send with the next request; none at the end of a closed stream.
    pub cursor: Option<u64>,
    /// Whether nothing more was there when it was written. A closed stream's end implies it.
    pub up_to_date: bool,
    /// Whether the stream is closed and this is its end.
    pub closed: bool,
}

/// A promise that the server broke.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// Section 5.8: each data event is followed by a control event.
    #[error("a data event was followed by {by} instead of a control event")]
    NoControl {
        /// The type of the event, or what else came.
        by: String,
    },
    /// Section 5.8: the control event of a closed stream's end is the last; so is one of the gateway's own.
    #[error("{event:?} came after the last event")]
    AfterEnd {
        /// The type of the event.
        event: String,
    },
    /// There are data and control events, and the gateway's own: reset and unauthorized.
    #[error("an event of the type {event:?}")]
    UnknownEvent {
        /// Its type.
        event: String,
    },
    /// The JSON of an event that is not data does not have exactly the fields that it should have.
    #[error("{data:?} cannot be read: {reason}")]
    Unreadable {
        /// The event's data.
        data: String,
        /// Why not.
        reason: String,
    },
    /// The data are not what the content type calls for.
    #[error("{data:?} is not {payload:?}")]
    BadPayload {
        /// The event's data.
        data: String,
        /// What they should be.
        payload: Payload,
    },
    /// An offset that a server may not hand out (section 8: `-1`, `now`), or an empty one.
    #[error("{offset:?} is no offset of a server's")]
    BadOffset {
        /// The offset.
        offset: String,
    },
    /// Offsets sort as text: data move them forward, and nothing moves them back.
    #[error("the offset went from {from:?} to {to:?}, after data: {after_data}")]
    OffsetOrder {
        /// The one before.
        from: String,
        /// This one.
        to: String,
        /// Whether a data event came in between, so that it must have grown.
        after_data: bool,
    },
    /// The id of a control event is its offset; that of a data event, where it has one, is the same.
    #[error("the id {id:?} on an event that calls for {wanted:?}")]
    BadId {
        /// The id.
        id: Option<String>,
        /// What it should be.
        wanted: Option<String>,
    },
    /// Section 5.8: an open stream's control event carries a cursor, which is a decimal number (section 10.1).
    #[error("the cursor {cursor:?} of an open stream")]
    BadCursor {
        /// The cursor.
        cursor: Option<String>,
    },
    /// Section 10.1: cursors never go backwards, and the first is greater than the one that the request carried.
    #[error("the cursor is {to}, and must be at least {least}")]
    CursorOrder {
        /// The least that it may be.
        least: u64,
        /// This one.
        to: u64,
    },
    /// Section 5.8: the end of a closed stream is up to date.
    #[error("a closed stream's end that claims not to be up to date")]
    ClosedNotUpToDate,
    /// The response ended inside an event.
    #[error("the response ended inside an event")]
    Truncated,
}

/// A reader of one SSE response. It is fused: nothing comes after a violation.
#[derive(Debug)]
pub struct DurableSse {
    parser: SseParser,
    payload: Payload,
    offset: Option<String>,
    least_cursor: u64,
    cursor: Option<u64>,
    expects: Expects,
    /// The id of the data event whose control event is due.
    data_id: Option<String>,
    up_to_date: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Anything,
    /// A data event has come.
    Control,
    /// The stream's end, or a reset, has come.
    Nothing {
        closed: bool,
    },
    /// A violation has been reported.
    NoTrust,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ControlFields {
    stream_next_offset: String,
    stream_cursor: Option<String>,
    up_to_date: Option<bool>,
    stream_closed: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResetFields {
    earliest_offset: Option<String>,
    gone: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnauthorizedFields {
    reason: String,
}

impl DurableSse {
    /// A reader at the start of a response.
    #[must_use]
    pub fn new(payload: Payload) -> Self {
        Self {
            parser: SseParser::new(),
            payload,
            offset: None,
            least_cursor: 0,
            cursor: None,
            expects: Expects::Anything,
            data_id: None,
            up_to_date: false,
        }
    }

    /// Says which offset the request carried. The sentinels `-1` and `now` say nothing about what may come.
    #[must_use]
    pub fn from_offset(mut self, offset: &str) -> Self {
        self.offset = (!matches!(offset, "-1" | "now")).then(|| offset.to_owned());
        self
    }

    /// Says which cursor the request carried.
    #[must_use]
    pub fn from_cursor(mut self, cursor: u64) -> Self {
        self.least_cursor = cursor.saturating_add(1);
        self
    }

    /// Takes bytes of the body as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.parser.push(bytes);
    }

    /// The next event, checked.
    ///
    /// # Errors
    ///
    /// What the server should not have done; nothing comes after it.
    pub fn pop(&mut self) -> Option<Result<DurableEvent, Violation>> {
        if self.expects == Expects::NoTrust {
            return None;
        }
        let event = self.parser.pop()?;
        let checked = self.check(event);
        if checked.is_err() {
            self.expects = Expects::NoTrust;
        }
        Some(checked)
    }

    /// Says that the response has ended in good order, and that all events were taken.
    ///
    /// # Errors
    ///
    /// When it ended inside an event, or between a data event and its control event.
    pub fn finish(&self) -> Result<(), Violation> {
        if self.parser.is_mid_event() {
            return Err(Violation::Truncated);
        }
        match self.expects {
            Expects::Control => Err(Violation::NoControl { by: "the end".to_owned() }),
            Expects::Anything | Expects::Nothing { .. } | Expects::NoTrust => Ok(()),
        }
    }

    /// Where to read on: the newest offset, or at first the one that the request carried.
    #[must_use]
    pub fn offset(&self) -> Option<&str> {
        self.offset.as_deref()
    }

    /// The newest cursor.
    #[must_use]
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Whether the newest event says that nothing more is there.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.up_to_date
    }

    /// Whether the end of a closed stream has come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.expects == Expects::Nothing { closed: true }
    }

    /// What an `EventSource` would send as `Last-Event-ID`; empty at first.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    /// The newest reconnection time.
    #[must_use]
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.parser.reconnection_time()
    }

    fn check(&mut self, event: SseEvent) -> Result<DurableEvent, Violation> {
        match self.expects {
            Expects::Nothing { .. } | Expects::NoTrust => return Err(Violation::AfterEnd { event: event.event }),
            Expects::Control if event.event != "control" => return Err(Violation::NoControl { by: event.event }),
            Expects::Control | Expects::Anything => {}
        }
        match event.event.as_str() {
            "data" => self.data(event),
            "control" => self.control(&event),
            "reset" => self.reset(&event),
            "unauthorized" => self.unauthorized(&event),
            _ => Err(Violation::UnknownEvent { event: event.event }),
        }
    }

    fn data(&mut self, event: SseEvent) -> Result<DurableEvent, Violation> {
        self.data_id.clone_from(&event.id);
        self.expects = Expects::Control;
        self.up_to_date = false;
        let payload = self.payload;
        match payload {
            Payload::Text => Some(event.data.clone().into_bytes()),
            Payload::Json => {
                let array: Result<Vec<serde::de::IgnoredAny>, _> = serde_json::from_str(&event.data);
                array.is_ok().then(|| event.data.clone().into_bytes())
            }
            Payload::Binary => BASE64_STANDARD.decode(event.data.replace('\n', "")).ok(),
        }
        .map(|bytes| DurableEvent::Data(bytes.into()))
        .ok_or(Violation::BadPayload { data: event.data, payload })
    }

    fn control(&mut self, event: &SseEvent) -> Result<DurableEvent, Violation> {
        let fields: ControlFields = read(&event.data)?;
        let next = fields.stream_next_offset;
        self.check_offset(&next)?;
        if event.id.as_ref() != Some(&next) {
            return Err(Violation::BadId { id: event.id.clone(), wanted: Some(next) });
        }
        if let Some(id) = self.data_id.take().filter(|id| *id != next) {
            return Err(Violation::BadId { id: Some(id), wanted: Some(next) });
        }
        let closed = fields.stream_closed.unwrap_or(false);
        if closed && fields.up_to_date == Some(false) {
            return Err(Violation::ClosedNotUpToDate);
        }
        let cursor = self.check_cursor(fields.stream_cursor, closed)?;
        let up_to_date = closed || fields.up_to_date.unwrap_or(false);
        self.expects = if closed { Expects::Nothing { closed } } else { Expects::Anything };
        self.up_to_date = up_to_date;
        self.cursor = cursor.or(self.cursor);
        self.offset = Some(next.clone());
        Ok(DurableEvent::Control(Control { next, cursor, up_to_date, closed }))
    }

    fn reset(&mut self, event: &SseEvent) -> Result<DurableEvent, Violation> {
        let fields: ResetFields = read(&event.data)?;
        let reset = match (fields.earliest_offset, fields.gone) {
            (Some(earliest), None) => {
                no_sentinel(&earliest)?;
                DurableEvent::Reset { earliest }
            }
            (None, Some(true)) => DurableEvent::Gone,
            (_, _) => {
                let reason = "a reset names the earliest offset, or says that the stream is gone".to_owned();
                return Err(Violation::Unreadable { data: event.data.clone(), reason });
            }
        };
        self.expects = Expects::Nothing { closed: false };
        Ok(reset)
    }

    fn unauthorized(&mut self, event: &SseEvent) -> Result<DurableEvent, Violation> {
        let UnauthorizedFields { reason } = read(&event.data)?;
        if !["expired", "revoked"].contains(&reason.as_str()) {
            let reason = "a right expires, or is revoked".to_owned();
            return Err(Violation::Unreadable { data: event.data.clone(), reason });
        }
        self.expects = Expects::Nothing { closed: false };
        Ok(DurableEvent::Unauthorized { reason })
    }

    fn check_offset(&self, next: &str) -> Result<(), Violation> {
        no_sentinel(next)?;
        let after_data = self.expects == Expects::Control;
        match &self.offset {
            Some(from) if next < from.as_str() || (after_data && next == from) => {
                Err(Violation::OffsetOrder { from: from.clone(), to: next.to_owned(), after_data })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_cursor(&self, cursor: Option<String>, closed: bool) -> Result<Option<u64>, Violation> {
        let Some(text) = cursor else {
            return if closed { Ok(None) } else { Err(Violation::BadCursor { cursor: None }) };
        };
        // Section 10.1 writes it as a plain decimal number, which this is where it comes back the same.
        let Some(to) = text.parse::<u64>().ok().filter(|to| to.to_string() == text) else {
            return Err(Violation::BadCursor { cursor: Some(text) });
        };
        let least = self.cursor.unwrap_or(self.least_cursor);
        if to < least {
            return Err(Violation::CursorOrder { least, to });
        }
        Ok(Some(to))
    }
}

fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, Violation> {
    serde_json::from_str(data)
        .map_err(|error| Violation::Unreadable { data: data.to_owned(), reason: error.to_string() })
}

fn no_sentinel(offset: &str) -> Result<(), Violation> {
    if matches!(offset, "" | "-1" | "now") {
        return Err(Violation::BadOffset { offset: offset.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(next: &str, rest: &str) -> String {
        format!("id: {next}\nevent: control\ndata:{{\"streamNextOffset\":\"{next}\"{rest}}}\n\n")
    }

    fn open(next: &str, cursor: u64) -> String {
        control(next, &format!(",\"streamCursor\":\"{cursor}\""))
    }

    fn data(text: &str) -> String {
        format!("event: data\ndata:{text}\n\n")
    }

    /// Reads everything; the first violation, where there is one.
    fn read_all(mut reader: DurableSse, body: &str) -> Result<DurableSse, Violation> {
        reader.push(body.as_bytes());
        while let Some(event) = reader.pop() {
            event?;
        }
        reader.finish()?;
        Ok(reader)
    }

    fn violation(body: &str) -> Violation {
        read_all(DurableSse::new(Payload::Text).from_offset("0_1"), body).unwrap_err()
    }

    #[test]
    fn a_good_response_is_read_to_its_end() {
        let body = [
            "retry: 1200\n\n".to_owned(),
            data("a\ndata:b"),
            open("0_2", 7),
            control("0_2", r#","streamCursor":"7","upToDate":true"#),
            data("c"),
            control("0_3", r#","streamClosed":true"#),
        ]
        .concat();
        let mut reader = DurableSse::new(Payload::Text).from_offset("0_1").from_cursor(6);
        reader.push(body.as_bytes());
        let events: Vec<_> = std::iter::from_fn(|| reader.pop()).collect::<Result<_, _>>().unwrap();
        let at = |next: &str, cursor, up_to_date, closed| {
            DurableEvent::Control(Control { next: next.to_owned(), cursor, up_to_date, closed })
        };
        let expected = [
            DurableEvent::Data("a\nb".into()),
            at("0_2", Some(7), false, false),
            at("0_2", Some(7), true, false),
            DurableEvent::Data("c".into()),
            at("0_3", None, true, true),
        ];
        assert_eq!(events, expected);
        reader.finish().unwrap();
        assert!(reader.is_closed() && reader.is_up_to_date());
        assert_eq!((reader.offset(), reader.cursor(), reader.last_event_id()), (Some("0_3"), Some(7), "0_3"));
        assert_eq!(reader.reconnection_time(), Some(Duration::from_millis(1200)));
    }

    #[test]
    fn a_data_event_needs_its_control_event() {
        let by = |by: &str| Violation::NoControl { by: by.to_owned() };
        assert_eq!(violation(&(data("a") + &data("b"))), by("data"));
        assert_eq!(violation(&data("a")), by("the end"));
        assert_eq!(violation(&(data("a") + "event: reset\ndata:{\"earliestOffset\":\"0_9\"}\n\n")), by("reset"));
    }

    #[test]
    fn offsets_grow_with_data_and_never_shrink() {
        let order = |from: &str, to: &str, after_data| Violation::OffsetOrder {
            from: from.to_owned(),
            to: to.to_owned(),
            after_data,
        };
        assert_eq!(violation(&(data("a") + &open("0_1", 1))), order("0_1", "0_1", true));
        assert_eq!(violation(&open("0_0", 1)), order("0_1", "0_0", false));
        assert_eq!(violation(&(open("0_3", 1) + &data("a") + &open("0_2", 1))), order("0_3", "0_2", true));
        read_all(DurableSse::new(Payload::Text).from_offset("now"), &open("0_0", 1)).unwrap();
    }

    #[test]
    fn sentinels_are_no_offsets() {
        for offset in ["-1", "now", ""] {
            let reader = DurableSse::new(Payload::Text);
            let found = read_all(reader, &open(offset, 1)).unwrap_err();
            assert_eq!(found, Violation::BadOffset { offset: offset.to_owned() });
        }
    }

    #[test]
    fn the_id_of_a_control_event_is_its_offset_and_so_is_that_of_the_data_before_it() {
        let without = open("0_2", 1).replace("id: 0_2\n", "");
        assert_eq!(violation(&without), Violation::BadId { id: None, wanted: Some("0_2".to_owned()) });
        let other = open("0_2", 1).replace("id: 0_2", "id: 0_3");
        assert!(matches!(violation(&other), Violation::BadId { id: Some(id), .. } if id == "0_3"));
        let on_data = format!("id: 0_3\n{}{}", data("a"), open("0_2", 1));
        assert!(matches!(violation(&on_data), Violation::BadId { id: Some(id), .. } if id == "0_3"));
        let same = format!("id: 0_2\n{}{}", data("a"), open("0_2", 1));
        assert!(read_all(DurableSse::new(Payload::Text).from_offset("0_1"), &same).is_ok());
    }

    #[test]
    fn cursors_are_there_are_numbers_and_never_go_backwards() {
        assert_eq!(violation(&control("0_2", "")), Violation::BadCursor { cursor: None });
        for bad in ["abc", "007", "-1", "+1", ""] {
            let body = control("0_2", &format!(",\"streamCursor\":\"{bad}\""));
            assert_eq!(violation(&body), Violation::BadCursor { cursor: Some(bad.to_owned()) });
        }
        assert_eq!(violation(&(open("0_2", 9) + &open("0_2", 8))), Violation::CursorOrder { least: 9, to: 8 });
        let echoed = read_all(DurableSse::new(Payload::Text).from_cursor(5), &open("0_2", 5)).unwrap_err();
        assert_eq!(echoed, Violation::CursorOrder { least: 6, to: 5 });
    }

    #[test]
    fn a_closed_end_is_up_to_date_and_nothing_follows_it() {
        let end = control("0_2", r#","streamClosed":true"#);
        for (next, event) in [(data("a"), "data"), (open("0_2", 1), "control")] {
            assert_eq!(violation(&(end.clone() + &next)), Violation::AfterEnd { event: event.to_owned() });
        }
        let body = control("0_2", r#","streamClosed":true,"upToDate":false"#);
        assert_eq!(violation(&body), Violation::ClosedNotUpToDate);
    }

    #[test]
    fn a_reset_may_say_that_the_stream_is_gone_and_nothing_else() {
        let mut reader = DurableSse::new(Payload::Text);
        reader.push(b"event: reset\ndata:{\"gone\":true}\n\n");
        assert_eq!(reader.pop(), Some(Ok(DurableEvent::Gone)));
        for data in ["{}", "{\"gone\":false}", "{\"gone\":true,\"earliestOffset\":\"0_9\"}"] {
            let broken = violation(&format!("event: reset\ndata:{data}\n\n"));
            assert!(matches!(broken, Violation::Unreadable { .. }), "{broken:?}");
        }
    }

    #[test]
    fn a_reader_that_may_not_go_on_is_told_why_and_nothing_else() {
        let last = |reason: &str| format!("event: unauthorized\ndata:{{\"reason\":\"{reason}\"}}\n\n");
        for reason in ["expired", "revoked"] {
            let mut reader = DurableSse::new(Payload::Text).from_offset("0_1");
            reader.push(last(reason).as_bytes());
            assert_eq!(reader.pop(), Some(Ok(DurableEvent::Unauthorized { reason: reason.to_owned() })));
            assert!(!reader.is_closed());
            reader.finish().unwrap();
            assert_eq!(violation(&(last(reason) + &data("a"))), Violation::AfterEnd { event: "data".to_owned() });
        }
        let broken = violation(&last("bored"));
        assert!(matches!(broken, Violation::Unreadable { .. }), "{broken:?}");
    }

    #[test]
    fn a_reset_names_the_earliest_offset_and_is_the_last() {
        let reset = "event: reset\ndata:{\"earliestOffset\":\"0_9\"}\n\n";
        let mut reader = DurableSse::new(Payload::Text).from_offset("0_1");
        reader.push(reset.as_bytes());
        assert_eq!(reader.pop(), Some(Ok(DurableEvent::Reset { earliest: "0_9".to_owned() })));
        assert!(!reader.is_closed());
        reader.finish().unwrap();
        assert_eq!(
            violation(&(reset.to_owned() + &open("0_2", 1))),
            Violation::AfterEnd { event: "control".to_owned() }
        );
    }

    #[test]
    fn events_of_other_kinds_and_other_fields_are_violations() {
        assert_eq!(violation("data: x\n\n"), Violation::UnknownEvent { event: "message".to_owned() });
        assert!(matches!(violation(&control("0_2", r#","extra":1"#)), Violation::Unreadable { .. }));
        assert!(matches!(violation("event: control\ndata: nonsense\n\n"), Violation::Unreadable { .. }));
    }

    #[test]
    fn data_are_what_the_content_type_calls_for() {
        let read = |payload, text: &str| {
            let mut reader = DurableSse::new(payload);
            reader.push(data(text).as_bytes());
            reader.pop().unwrap()
        };
        assert_eq!(read(Payload::Binary, "AQIDBAUG\ndata:BwgJCg=="), Ok(DurableEvent::Data(Bytes::from_iter(1..=10))));
        assert_eq!(read(Payload::Json, "[1,\ndata:2]"), Ok(DurableEvent::Data("[1,\n2]".into())));
        for (payload, text) in [(Payload::Binary, "AQI"), (Payload::Json, "{}"), (Payload::Json, "[1")] {
            assert_eq!(read(payload, text), Err(Violation::BadPayload { data: text.to_owned(), payload }));
        }
    }

    #[test]
    fn a_response_that_ends_inside_an_event_is_truncated() {
        assert_eq!(violation(&(open("0_2", 1) + "event: data\nda")), Violation::Truncated);
    }

    #[test]
    fn nothing_comes_after_a_violation() {
        let mut reader = DurableSse::new(Payload::Text);
        reader.push((data("a") + &data("b") + &open("0_2", 1)).as_bytes());
        assert!(matches!((reader.pop(), reader.pop()), (Some(Ok(_)), Some(Err(_)))));
        assert_eq!(reader.pop(), None);
    }
}
