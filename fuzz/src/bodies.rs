//! JSON bodies taken apart, and the events that messages are put into.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;
use tailwater_protocol::{
    ContentKind, Offset, json,
    sse::{Control, write_control, write_data, write_reset, write_retry},
    text,
};
use tailwater_testkit::sse::{SseEvent, SseParser};

use crate::{input::Pieces, names::is_safe_to_say};

pub(crate) fn json_body(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    // Of bytes that are no values, slices come out, whatever they are.
    let loose = json::split_values(&body);
    assert!(loose.iter().map(Bytes::len).sum::<usize>() + loose.len().saturating_sub(1) <= body.len());

    let messages = match json::split(&body) {
        Ok(messages) => messages,
        Err(error) => {
            assert!(!json::is_valid(data));
            return is_safe_to_say(&error);
        }
    };
    assert!(json::is_valid(data));
    for message in &messages {
        assert!(json::is_valid(message));
        assert!(!message.first().is_some_and(u8::is_ascii_whitespace));
    }
    let joined = Bytes::from(messages.join(&b","[..]));
    assert_eq!(json::split_values(&joined), messages);
    let array = Bytes::from([b"[", &joined[..], b"]"].concat());
    assert_eq!(json::split(&array).as_ref(), Ok(&messages));

    // Another reader sees the same values; it refuses some that are nested deeply, or numbers that it cannot hold.
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let values = match value {
        Value::Array(values) => values,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => vec![value],
    };
    assert_eq!(values.len(), messages.len());
    for (value, message) in values.iter().zip(&messages) {
        assert_eq!(serde_json::from_slice::<Value>(message).ok().as_ref(), Some(value));
    }
}

/// A byte for the kind, one for the control event, and messages with a record separator between them.
pub(crate) fn sse(data: &[u8]) {
    let mut pieces = Pieces(data);
    let (Some(kind), Some(how)) = (pieces.byte(), pieces.byte()) else { return };
    let rest = Bytes::copy_from_slice(pieces.0);
    let (kind, messages) = match kind % 3 {
        0 => match json::split(&rest) {
            Ok(messages) => (ContentKind::Json, messages),
            Err(_) => return,
        },
        kind => {
            let kind = if kind == 1 { ContentKind::Text } else { ContentKind::Binary };
            (kind, rest.split(|byte| *byte == 0x1e).map(|message| rest.slice_ref(message)).collect())
        }
    };
    cuts_between_characters(&rest, &messages);
    let control = Control {
        next: Offset { birth: u64::from(how), seq: rest.len() as u64 },
        cursor: (how & 1 == 1).then_some(u64::from(how)),
        up_to_date: how & 2 == 2,
        closed: how & 4 == 4,
        id: how & 8 == 8,
    };
    let mut out = Vec::new();
    write_data(&mut out, kind, messages.iter().map(|message| &message[..]));
    write_control(&mut out, &control);
    write_reset(&mut out, control.next);
    write_retry(&mut out, u64::from(how));

    // Cut anywhere, the same arrives.
    let mut parser = SseParser::new();
    let (before, after) = out.split_at(usize::from(how) * out.len() / 256);
    parser.push(before);
    parser.push(after);
    assert!(!parser.is_mid_event());
    if let Some(payload) = payload(kind, &messages) {
        let event = parser.pop().expect("messages make an event");
        assert_eq!((event.event.as_str(), event.id.as_deref()), ("data", None));
        assert!(kind != ContentKind::Json || same_json(&event.data, &payload), "{event:?} {payload:?}");
        assert!(kind == ContentKind::Json || event.data == payload, "{event:?} {payload:?}");
    }
    let event = parser.pop().expect("a control event was written");
    is_the_control_event(&event, &control);
    assert_eq!(parser.pop().map(|event| event.event).as_deref(), Some("reset"));
    assert_eq!(parser.pop(), None);
}

fn is_the_control_event(event: &SseEvent, control: &Control) {
    let next = control.next.to_string();
    assert_eq!(event.event, "control");
    assert_eq!(event.id.as_ref(), control.id.then_some(&next));
    let said: Value = serde_json::from_str(&event.data).expect("a control event is json");
    assert_eq!(said["streamNextOffset"], next);
    let is_true = |name: &str| said.get(name) == Some(&Value::Bool(true));
    assert_eq!(is_true("streamClosed"), control.closed);
    assert_eq!(is_true("upToDate"), control.closed || control.up_to_date);
    let cursor = control.sent_cursor().map(|cursor| Value::String(cursor.to_string()));
    assert_eq!(said.get("streamCursor"), cursor.as_ref());
}

/// What an event with these messages holds; nothing, where there is none.
fn payload(kind: ContentKind, messages: &[Bytes]) -> Option<String> {
    let whole = messages.concat();
    match kind {
        ContentKind::Json => {
            let joined = String::from_utf8(messages.join(&b","[..])).expect("json is text");
            (!messages.is_empty()).then(|| format!("[{joined}]"))
        }
        ContentKind::Text => {
            let text = String::from_utf8_lossy(&whole).replace("\r\n", "\n").replace('\r', "\n");
            (!whole.is_empty()).then_some(text)
        }
        ContentKind::Binary => (!whole.is_empty()).then(|| STANDARD.encode(whole)),
    }
}

/// Whether two texts differ in how lines end alone, which in JSON is white space.
fn same_json(arrived: &str, sent: &str) -> bool {
    arrived == sent.replace("\r\n", "\n").replace('\r', "\n") && json::is_valid(arrived.as_bytes())
}

fn cuts_between_characters(whole: &[u8], messages: &[Bytes]) {
    let cut = text::split_complete(whole);
    let held = &whole[cut..];
    assert!(held.len() <= 3);
    // What is held back could become a character, and nothing else is.
    let unfinished = str::from_utf8(held).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none());
    assert!(held.is_empty() || unfinished);
    let joined = messages.concat();
    assert_eq!(
        text::ends_inside(messages.iter().map(|message| &message[..])),
        text::split_complete(&joined) < joined.len()
    );
}
