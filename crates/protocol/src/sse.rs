//! The bytes of Server-Sent Events (protocol, section 5.8; HTML, section 9.2).
//!
//! A parser of these events ends a line at CRLF, CR or LF, and strips one space behind the colon. So a payload is cut
//! at each of the three, every line gets its `data:`, and a line that itself begins with a space gets one more. Nothing
//! else is escaped, and nothing else needs to be: what stands behind `data:` cannot become a field or end an event.
//!
//! A carriage return cannot be carried: a text's CRLF and CR arrive as LF. In JSON a line end can only be white space
//! between tokens, so nothing is lost.
//!
//! Every event is appended whole. Data and its control event belong into one write.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BufMut;
use memchr::memchr2;

use crate::{content_type::ContentKind, offset::Offset};

/// What a control event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// The position after everything sent so far.
    pub next: Offset,
    /// The cursor; left out of the event when the stream is closed, as there is nothing to reconnect for.
    pub cursor: Option<u64>,
    /// Whether everything that is there has been sent. Implied by `closed`.
    pub up_to_date: bool,
    /// Whether the stream is closed and everything has been sent.
    pub closed: bool,
    /// Whether the event carries its offset as event id, with which an `EventSource` resumes.
    pub id: bool,
}

/// Why a reader may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// His token has expired. With another one he goes on where he was.
    Expired,
    /// His token counts no more, or what he has read has been withdrawn from everybody.
    Revoked,
}

/// Appends one data event that carries all `messages`, or nothing when their payload is empty.
///
/// - JSON: one array of the messages.
/// - Text: the messages joined. A character that two of them share comes out whole; bytes that are not UTF-8 are
///   replaced
///   (U+FFFD), because an event stream is UTF-8. To keep a character that is not finished yet for the next event is the
///   caller's part, see [`text::split_complete`](crate::text::split_complete).
/// - Binary: the base64 of the messages joined (RFC 4648, section 4), on one line.
pub fn write_data<'m>(out: &mut impl BufMut, kind: ContentKind, messages: impl IntoIterator<Item = &'m [u8]>) {
    let messages = messages.into_iter();
    match kind {
        ContentKind::Json => write_json(out, messages),
        ContentKind::Text => write_text(out, &String::from_utf8_lossy(&joined(messages))),
        ContentKind::Binary => write_text(out, &STANDARD.encode(joined(messages))),
    }
}

/// Appends the `id:` line of the event that follows: what an `EventSource` sends back as `Last-Event-ID` once it has seen
/// that event whole (HTML, section 9.2). It stands before the event's name; between the name and the data it would come
/// between two lines that clients expect together.
pub fn write_id(out: &mut impl BufMut, next: Offset) {
    out.put_slice(b"id: ");
    out.put_slice(next.to_string().as_bytes());
    out.put_slice(b"\n");
}

/// Appends a control event.
pub fn write_control(out: &mut impl BufMut, control: &Control) {
    control_head(out, control);
    if let Some(cursor) = control.sent_cursor() {
        out.put_slice(cursor.to_string().as_bytes());
    }
    out.put_slice(control_tail(control));
}

/// Appends a control event up to where the digits of its cursor stand. With [`control_tail`] it makes the event whole:
/// `head`, the digits where the control [has a cursor](Control::sent_cursor), `tail`. So one head and one tail serve
/// all readers, whatever their cursors; which number stands in `control` makes no difference to either.
pub fn control_head(out: &mut impl BufMut, control: &Control) {
    let next = control.next.to_string();
    if control.id {
        write_id(out, control.next);
    }
    out.put_slice(b"event: control\ndata:{\"streamNextOffset\":\"");
    out.put_slice(next.as_bytes());
    if control.sent_cursor().is_some() {
        out.put_slice(b"\",\"streamCursor\":\"");
    }
}

/// What follows the digits of the cursor, or the head of a control event that has none.
#[must_use]
pub fn control_tail(control: &Control) -> &'static [u8] {
    match (control.closed, control.up_to_date) {
        (true, _) => b"\",\"upToDate\":true,\"streamClosed\":true}\n\n",
        (false, true) => b"\",\"upToDate\":true}\n\n",
        (false, false) => b"\"}\n\n",
    }
}

/// Appends a reset event: the reader's position no longer exists, and `earliest` is the first that does. An extension:
/// clients skip events that they do not know, and see the connection end.
pub fn write_reset(out: &mut impl BufMut, earliest: Offset) {
    out.put_slice(format!("event: reset\ndata:{{\"earliestOffset\":\"{earliest}\"}}\n\n").as_bytes());
}

/// Appends the event that ends a response whose reader may not go on. An extension, like a reset: whoever does not know it
/// comes back, and is told by a status.
pub fn write_unauthorized(out: &mut impl BufMut, why: Lapse) {
    let reason = match why {
        Lapse::Expired => "expired",
        Lapse::Revoked => "revoked",
    };
    out.put_slice(format!("event: unauthorized\ndata:{{\"reason\":\"{reason}\"}}\n\n").as_bytes());
}

/// Appends how long an `EventSource` is to wait before it reconnects, in milliseconds. It dispatches no event.
pub fn write_retry(out: &mut impl BufMut, millis: u64) {
    out.put_slice(format!("retry: {millis}\n\n").as_bytes());
}

impl Control {
    /// The cursor as far as the event shows it: none when the stream is closed.
    #[must_use]
    pub fn sent_cursor(&self) -> Option<u64> {
        if self.closed { None } else { self.cursor }
    }
}

fn write_json<'m>(out: &mut impl BufMut, messages: impl Iterator<Item = &'m [u8]>) {
    let mut messages = messages.peekable();
    if messages.peek().is_none() {
        return;
    }
    let mut separator: &[u8] = b"event: data\ndata:[";
    for message in messages {
        out.put_slice(separator);
        write_lines(out, message);
        separator = b",";
    }
    out.put_slice(b"]\n\n");
}

fn write_text(out: &mut impl BufMut, text: &str) {
    if text.is_empty() {
        return;
    }
    out.put_slice(b"event: data\ndata:");
    keep_leading_space(out, text.as_bytes());
    write_lines(out, text.as_bytes());
    out.put_slice(b"\n\n");
}

/// Appends `text` to a line that has its `data:`, with a new one for each line end in it.
fn write_lines(out: &mut impl BufMut, text: &[u8]) {
    let mut rest = text;
    while let Some(end) = memchr2(b'\r', b'\n', rest) {
        let (line, from_end) = rest.split_at(end);
        rest = from_end.strip_prefix(b"\r\n").unwrap_or_else(|| &from_end[1..]);
        out.put_slice(line);
        out.put_slice(b"\ndata:");
        keep_leading_space(out, rest);
    }
    out.put_slice(rest);
}

fn keep_leading_space(out: &mut impl BufMut, line: &[u8]) {
    if line.starts_with(b" ") {
        out.put_slice(b" ");
    }
}

/// The messages in one piece; a single one is not copied.
fn joined<'m>(mut messages: impl Iterator<Item = &'m [u8]>) -> Cow<'m, [u8]> {
    let Some(first) = messages.next() else { return Cow::Borrowed(&[]) };
    let mut whole = Cow::Borrowed(first);
    for message in messages {
        whole.to_mut().extend_from_slice(message);
    }
    whole
}

#[cfg(test)]
mod tests;
