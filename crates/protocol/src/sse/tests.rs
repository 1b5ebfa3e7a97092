//! Golden bytes, and a parser after the HTML standard that reads what was written.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

const NEXT: Offset = Offset { birth: 1, seq: 2 };

/// What an event stream dispatches, and what it sets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    /// Name, data and last event id of each event.
    events: Vec<(String, String, String)>,
    /// The reconnection time.
    retry: Option<u64>,
}

/// The event stream interpretation of the HTML standard (section 9.2.6).
fn parse(stream: &[u8]) -> Parsed {
    let text = std::str::from_utf8(stream).unwrap().replace("\r\n", "\n").replace('\r', "\n");
    let mut parsed = Parsed::default();
    let (mut name, mut data, mut id) = (String::new(), String::new(), String::new());
    // What stands behind the last line end is not a line yet.
    let (lines, _) = text.rsplit_once('\n').unwrap_or(("", ""));
    for line in lines.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if let Some(data) = data.strip_suffix('\n') {
                    parsed.events.push((name.clone(), data.to_owned(), id.clone()));
                }
                name.clear();
                data.clear();
            }
            "event" => value.clone_into(&mut name),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            "retry" => parsed.retry = value.parse().ok(),
            _ => {}
        }
    }
    parsed
}

fn data(kind: ContentKind, messages: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    write_data(&mut out, kind, messages.iter().copied());
    out
}

fn control(control: &Control) -> Vec<u8> {
    let mut out = Vec::new();
    write_control(&mut out, control);
    out
}

/// The payload of the one data event that these bytes are; empty when they are none.
fn payload(bytes: &[u8]) -> String {
    let events = parse(bytes).events;
    assert!(events.len() <= 1, "{events:?}");
    events.into_iter().next().map_or_else(String::new, |(name, data, id)| {
        assert_eq!((name.as_str(), id.as_str()), ("data", ""));
        data
    })
}

/// What remains of a text over SSE: every line end is LF.
fn line_fed(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

#[test]
fn data_events_have_these_bytes() {
    use ContentKind::{Binary, Json, Text};
    let table: &[(ContentKind, &[&[u8]], &str)] = &[
        (Json, &[], ""),
        (Json, &[b"{\"k\":1}"], "event: data\ndata:[{\"k\":1}]\n\n"),
        (Json, &[b"1", b"\"a\"", b"[]"], "event: data\ndata:[1,\"a\",[]]\n\n"),
        (Json, &[b"{\n \"a\":\r\n1}\r", b" 2"], "event: data\ndata:[{\ndata:  \"a\":\ndata:1}\ndata:, 2]\n\n"),
        (Text, &[], ""),
        (Text, &[b""], ""),
        (Text, &[b"", b""], ""),
        (Text, &[b"hello"], "event: data\ndata:hello\n\n"),
        (Text, &[b"hello ", b"world"], "event: data\ndata:hello world\n\n"),
        (Text, &[b" x"], "event: data\ndata:  x\n\n"),
        (Text, &[b" "], "event: data\ndata:  \n\n"),
        (Text, &[b"\n"], "event: data\ndata:\ndata:\n\n"),
        (Text, &[b"a\nb\rc\r\nd"], "event: data\ndata:a\ndata:b\ndata:c\ndata:d\n\n"),
        (Text, &[b"a\r", b"\nb"], "event: data\ndata:a\ndata:b\n\n"),
        (Text, &[b"a\n", b" b"], "event: data\ndata:a\ndata:  b\n\n"),
        (Text, &[b"\xe2\x82", b"\xac"], "event: data\ndata:\u{20ac}\n\n"),
        (Text, &[b"a\xff", b"b\xe2"], "event: data\ndata:a\u{fffd}b\u{fffd}\n\n"),
        (Binary, &[], ""),
        (Binary, &[b""], ""),
        (Binary, &[b"\x01\x02\x03\x04\x05\x06"], "event: data\ndata:AQIDBAUG\n\n"),
        (Binary, &[b"\x01", b"\x02\x03\x04"], "event: data\ndata:AQIDBA==\n\n"),
        (Binary, &[b"\xfb\xff\n"], "event: data\ndata:+/8K\n\n"),
    ];
    for (kind, messages, bytes) in table {
        assert_eq!(String::from_utf8(data(*kind, messages)).unwrap(), *bytes, "{kind:?} {messages:?}");
    }
}

#[test]
fn control_events_have_these_bytes() {
    let open = Control { next: NEXT, cursor: Some(7), up_to_date: false, closed: false, id: false };
    let offset = "0000000000000001_0000000000000002";
    let table = [
        (open, format!("event: control\ndata:{{\"streamNextOffset\":\"{offset}\",\"streamCursor\":\"7\"}}\n\n")),
        (
            Control { up_to_date: true, id: true, ..open },
            format!(
                "id: {offset}\nevent: control\n\
                 data:{{\"streamNextOffset\":\"{offset}\",\"streamCursor\":\"7\",\"upToDate\":true}}\n\n"
            ),
        ),
        (Control { cursor: None, ..open }, format!("event: control\ndata:{{\"streamNextOffset\":\"{offset}\"}}\n\n")),
        (
            Control { closed: true, id: true, ..open },
            format!(
                "id: {offset}\nevent: control\n\
                 data:{{\"streamNextOffset\":\"{offset}\",\"upToDate\":true,\"streamClosed\":true}}\n\n"
            ),
        ),
    ];
    for (event, bytes) in table {
        assert_eq!(String::from_utf8(control(&event)).unwrap(), bytes);
    }
}

#[test]
fn a_reset_names_the_earliest_offset_and_a_retry_dispatches_nothing() {
    let mut out = BytesMut::new();
    write_retry(&mut out, 1500);
    write_reset(&mut out, NEXT);
    assert_eq!(out, "retry: 1500\n\nevent: reset\ndata:{\"earliestOffset\":\"0000000000000001_0000000000000002\"}\n\n");
    let parsed = parse(&out);
    assert_eq!(parsed.retry, Some(1500));
    assert_eq!(parsed.events.len(), 1);
}

#[test]
fn who_may_not_go_on_is_told_why() {
    for (why, reason) in [(Lapse::Expired, "expired"), (Lapse::Revoked, "revoked")] {
        let mut out = BytesMut::new();
        write_unauthorized(&mut out, why);
        assert_eq!(out, format!("event: unauthorized\ndata:{{\"reason\":\"{reason}\"}}\n\n"));
        assert_eq!(parse(&out).events.len(), 1);
    }
}

#[test]
fn no_payload_forges_an_event() {
    let attack = "start\n\nevent: control\ndata:{}\r\rid: 9\rretry: 1\r\n\r\nevent: data\n: x\n\nend";
    assert_eq!(payload(&data(ContentKind::Text, &[attack.as_bytes()])), line_fed(attack));
    let json = format!("{{\"a\":\r\n\r\n1,\n\nid\n\n:{}}}", 1);
    assert_eq!(payload(&data(ContentKind::Json, &[json.as_bytes()])), line_fed(&format!("[{json}]")));
}

fn controls() -> impl Strategy<Value = Control> {
    let next = (0..1_000_000_u64, 0..1_000_000_u64).prop_map(|(birth, seq)| Offset { birth, seq });
    (next, any::<Option<u64>>(), any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(next, cursor, up_to_date, closed, id)| Control { next, cursor, up_to_date, closed, id })
}

/// Texts made of what is special to an event stream.
fn tricky_text() -> impl Strategy<Value = String> {
    "(\r\n|\r|\n| |:|event: control|data:|id: 1|retry: 1|\u{feff}|\u{2028}|\u{2029}|\u{85}|\u{b}|\0|€|😀|[a-c{}\"]){0,16}"
}

fn byte_messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..4)
}

proptest! {
    #[test]
    fn text_comes_back_whatever_it_is(texts in prop::collection::vec(tricky_text(), 0..5)) {
        let messages: Vec<_> = texts.iter().map(String::as_bytes).collect();
        prop_assert_eq!(payload(&data(ContentKind::Text, &messages)), line_fed(&texts.concat()));
    }

    #[test]
    fn text_without_carriage_returns_comes_back_byte_for_byte(text in "[^\r]{0,40}|[ \n]{0,6}") {
        prop_assert_eq!(payload(&data(ContentKind::Text, &[text.as_bytes()])), text);
    }

    #[test]
    fn any_bytes_as_text_are_valid_events(messages in byte_messages()) {
        let messages: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        let text = String::from_utf8_lossy(&messages.concat()).into_owned();
        prop_assert_eq!(payload(&data(ContentKind::Text, &messages)), line_fed(&text));
    }

    #[test]
    fn bytes_come_back_out_of_base64(messages in byte_messages()) {
        let messages: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        let encoded = payload(&data(ContentKind::Binary, &messages));
        prop_assert_eq!(encoded.len() % 4, 0);
        prop_assert_eq!(STANDARD.decode(encoded).unwrap(), messages.concat());
    }

    #[test]
    fn json_comes_back_as_an_array(
        values in prop::collection::vec(("[ \r\n]{0,3}", "[a-z€]{0,3}", "[ \t\r\n]{0,3}"), 1..5),
    ) {
        let texts: Vec<_> = values.iter().map(|(a, k, b)| format!("{a}{{{b}\"{k}\"{a}:{b}[1,{a}2]}}{b}")).collect();
        let messages: Vec<_> = texts.iter().map(String::as_bytes).collect();
        let array = payload(&data(ContentKind::Json, &messages));
        prop_assert_eq!(&array, &line_fed(&format!("[{}]", texts.join(","))));
        prop_assert_eq!(crate::json::split(&array.into_bytes().into()).unwrap().len(), texts.len());
    }

    #[test]
    fn head_digits_and_tail_are_the_control_event(event in controls(), other in any::<u64>()) {
        // The frame is made once, with any number, and finished with each reader's own.
        let template = Control { cursor: event.cursor.map(|_| other), ..event };
        let mut pieces = Vec::new();
        control_head(&mut pieces, &template);
        if let Some(cursor) = event.sent_cursor() {
            pieces.extend_from_slice(cursor.to_string().as_bytes());
        }
        pieces.extend_from_slice(control_tail(&template));
        prop_assert_eq!(pieces, control(&event));
    }

    #[test]
    fn a_control_event_says_what_it_was_given(event in controls()) {
        let events = parse(&control(&event)).events;
        prop_assert_eq!(events.len(), 1);
        let (name, data, id) = &events[0];
        prop_assert_eq!(name, "control");
        prop_assert_eq!(id, &if event.id { event.next.to_string() } else { String::new() });
        let mut expected = serde_json::json!({ "streamNextOffset": event.next.to_string() });
        if let (Some(cursor), false) = (event.cursor, event.closed) {
            expected["streamCursor"] = cursor.to_string().into();
        }
        if event.up_to_date || event.closed {
            expected["upToDate"] = true.into();
        }
        if event.closed {
            expected["streamClosed"] = true.into();
        }
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap(), expected);
    }
}
