//! What readers of Server-Sent Events are sent over HTTP/1.1, encoded once for all of them (protocol, section 5.8; RFC
//! 9112, section 7.1).
//!
//! A [`Frame`] is a batch as one chunk of a response: its data event and its control event. The only thing in it that is
//! not the same for all readers are the digits of the cursor, so a frame leaves room for them. A [`Burst`] is what one
//! write sends: the frames of all the batches that a reader has not had, with the digits filled in.
//!
//! An event stream is UTF-8, and two appends may share a character. A batch that ends inside one waits for what completes
//! it, and both go out in one chunk; see [`text`]. So a burst may end before the newest batch, and the position that it
//! ends at never lies behind something that was not sent.

use std::{
    io::{self, IoSlice, Write},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use tailwater_protocol::{ContentKind, Offset, sse, text};

use crate::batch::Batch;

/// What ends a response in chunks.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// How many digits a frame leaves room for. A cursor has so many until the year 2030, and one more until 2087.
const DIGITS: usize = 7;

/// What a control event says about what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// There is more.
    More,
    /// This is all there is.
    All,
    /// The stream is closed here.
    End,
}

/// One chunk, with room for the digits of the cursor.
#[derive(Debug)]
pub struct Frame {
    bytes: Bytes,
    /// Where the digits go; the end of a stream has no cursor.
    digits_at: Option<usize>,
}

/// What a reader has had, and how it is sent more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// The position up to which it has had everything.
    pub seq: u64,
    /// The same, as it was told.
    pub at: Offset,
}

/// What one write sends.
#[derive(Debug, Clone)]
pub struct Burst {
    bytes: Bytes,
    cursor: u64,
    digits_at: Vec<usize>,
    /// Where a reader stands who has been sent it.
    pub(crate) until: Stand,
    /// Whether it holds everything that was there.
    pub(crate) is_all: bool,
    /// Whether the response ends with it.
    pub(crate) ends: bool,
}

/// What a burst is made of.
#[derive(Debug, Clone, Copy)]
pub struct News<'b> {
    /// How its messages travel.
    pub kind: ContentKind,
    /// What has come since the reader was sent something.
    pub batches: &'b [Arc<Batch>],
    /// The position behind them.
    pub next: u64,
    /// What there is to say behind the last one.
    pub says: Says,
}

impl Says {
    pub(crate) const COUNT: usize = 3;

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::More => 0,
            Self::All => 1,
            Self::End => 2,
        }
    }

    const fn control(self, next: Offset) -> sse::Control {
        let (up_to_date, closed) = match self {
            Self::More => (false, false),
            Self::All => (true, false),
            Self::End => (true, true),
        };
        sse::Control { next, cursor: Some(0), up_to_date, closed, id: true }
    }
}

impl Frame {
    /// The messages as one data event and one control event, in one chunk.
    pub fn encode<'m>(
        kind: ContentKind,
        messages: impl Iterator<Item = &'m [u8]> + Clone,
        next: Offset,
        says: Says,
    ) -> Self {
        let size: usize = messages.clone().map(<[u8]>::len).sum();
        let mut events = BytesMut::with_capacity(size + size / 2 + 256);
        if size > 0 {
            // A reader that is cut off behind the data event has been given it, whether the control event came or not.
            sse::write_id(&mut events, next);
        }
        sse::write_data(&mut events, kind, messages);
        let control = says.control(next);
        sse::control_head(&mut events, &control);
        let digits_at = control.sent_cursor().is_some().then(|| {
            let at = events.len();
            events.put_bytes(b'0', DIGITS);
            at
        });
        events.put_slice(sse::control_tail(&control));
        let head = format!("{:x}\r\n", events.len());
        let mut bytes = BytesMut::with_capacity(head.len() + events.len() + 2);
        bytes.put_slice(head.as_bytes());
        bytes.put_slice(&events);
        bytes.put_slice(b"\r\n");
        Self { bytes: bytes.freeze(), digits_at: digits_at.map(|at| head.len() + at) }
    }

    /// Appends the frame with its cursor filled in; where the digits stand, if there is room in it for so many.
    fn write_to(&self, out: &mut BytesMut, digits: &str) -> Option<usize> {
        let Some(at) = self.digits_at else {
            out.put_slice(&self.bytes);
            return None;
        };
        if digits.len() == DIGITS {
            let start = out.len() + at;
            out.put_slice(&self.bytes);
            out[start..start + DIGITS].copy_from_slice(digits.as_bytes());
            return Some(start);
        }
        // A chunk of another length has another head.
        let head_end = self.bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let length = self.bytes.len() - head_end - 2 - DIGITS + digits.len();
        out.put_slice(format!("{length:x}\r\n").as_bytes());
        out.put_slice(&self.bytes[head_end..at]);
        out.put_slice(digits.as_bytes());
        out.put_slice(&self.bytes[at + DIGITS..]);
        None
    }
}

impl Burst {
    /// What a reader that stands there is sent of the news, at most `limit` bytes and one frame. Without bytes, where
    /// there is nothing to send: the reader stands where it says all the same.
    pub fn of(from: Stand, news: News<'_>, cursor: u64, limit: usize) -> Self {
        let digits = cursor.to_string();
        let mut out = BytesMut::new();
        let mut burst =
            Self { bytes: Bytes::new(), cursor, digits_at: Vec::new(), until: from, is_all: false, ends: false };
        let batches = news.batches;
        let (mut start, mut behind) = (0, 0);
        for (n, batch) in batches.iter().enumerate() {
            let group = &batches[start..=n];
            behind += if start < n { batch.bytes } else { 0 };
            let says = if n + 1 == batches.len() { news.says } else { Says::More };
            let waits = news.kind == ContentKind::Text && says != Says::End && behind <= text::MAX_HELD;
            if waits && text::ends_inside(messages_of(group, from.seq)) {
                continue;
            }
            if out.len() >= limit {
                burst.bytes = out.freeze();
                return burst;
            }
            if says == Says::End || messages_of(group, from.seq).next().is_some() {
                let at = match group {
                    [batch] if from.seq <= batch.first => batch.frame(news.kind, says).write_to(&mut out, &digits),
                    _ => {
                        let messages = messages_of(group, from.seq);
                        Frame::encode(news.kind, messages, batch.next_offset, says).write_to(&mut out, &digits)
                    }
                };
                burst.digits_at.extend(at);
                burst.until.at = batch.next_offset;
                burst.ends = says == Says::End;
            }
            burst.until.seq = batch.next.max(from.seq);
            (start, behind) = (n + 1, 0);
        }
        if start == batches.len() {
            burst.is_all = news.says != Says::More;
            burst.until.seq = news.next.max(from.seq);
            if news.says == Says::End && !burst.ends {
                out.put_slice(&control(burst.until.at, cursor, Says::End));
                burst.ends = true;
            }
        }
        if burst.ends {
            out.put_slice(LAST_CHUNK);
        }
        burst.bytes = out.freeze();
        burst
    }

    /// A control event for a reader who has had everything.
    pub(crate) fn control(stand: Stand, cursor: u64, says: Says) -> Self {
        let bytes = control(stand.at, cursor, says);
        Self { bytes, cursor, digits_at: Vec::new(), until: stand, is_all: true, ends: false }
    }

    /// Its bytes, as they go to whoever has no cursor of its own.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it can be sent to a reader whose cursor may not be less than this: cursors never go back.
    pub(crate) fn suits(&self, cursor: u64) -> bool {
        cursor <= self.cursor || (self.digits_at.len() == 1 && has_digits(cursor) && has_digits(self.cursor))
    }

    /// Writes it with one call, as far as the socket takes it.
    pub fn write(&self, socket: &mut impl Write, cursor: u64) -> io::Result<usize> {
        match self.digits_at.first() {
            Some(at) if cursor > self.cursor => {
                let digits = cursor.to_string();
                let (head, tail) = (&self.bytes[..*at], &self.bytes[at + DIGITS..]);
                socket.write_vectored(&[head, digits.as_bytes(), tail].map(IoSlice::new))
            }
            _ => socket.write(&self.bytes),
        }
    }

    /// What is left of it when so much was written.
    pub(crate) fn rest(&self, cursor: u64, written: usize) -> Bytes {
        match self.digits_at.first() {
            Some(at) if cursor > self.cursor => {
                let mut whole = BytesMut::from(self.bytes.as_ref());
                whole[*at..at + DIGITS].copy_from_slice(cursor.to_string().as_bytes());
                whole.freeze().slice(written..)
            }
            _ => self.bytes.slice(written..),
        }
    }
}

/// Some events as a chunk.
pub(crate) fn chunk(events: &[u8]) -> Bytes {
    [format!("{:x}\r\n", events.len()).as_bytes(), events, b"\r\n"].concat().into()
}

fn control(at: Offset, cursor: u64, says: Says) -> Bytes {
    let mut event = BytesMut::new();
    sse::write_control(&mut event, &sse::Control { cursor: Some(cursor), ..says.control(at) });
    chunk(&event)
}

fn has_digits(cursor: u64) -> bool {
    cursor.checked_ilog10().is_some_and(|log| log as usize + 1 == DIGITS)
}

fn messages_of(group: &[Arc<Batch>], from: u64) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
    group.iter().flat_map(move |batch| batch.from(from)).map(|message| message.body.as_ref())
}

#[cfg(test)]
mod tests;
