//! One reader: what the bytes of its connection mean, without the connection.
//!
//! It is told the bytes as they come and says what to do next. Every message passes [`Position`], so a gap, a repeat or
//! a foreign byte is found at once, in every mode and across reconnects.

use memchr::{memchr, memmem};

use crate::{
    adapter::{Adapter, Ask, Holds},
    http::{Malformed, Piece, Response},
    message::{Foreign, Message, Scanner, Shape},
    position::{Accepted, OutOfPlace, Position},
    sse::{Events, Listener, Pieces},
};

/// Stands for the expected number until it is put in by whoever knows the position.
const UNKNOWN: u64 = u64::MAX;

/// Where messages go once they are known to be in place and new.
pub(crate) trait Sink {
    /// A message arrived for the first time; false if it was never sent.
    fn take(&mut self, message: Message) -> bool;
}

/// What is wrong with what a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A gap or a repeat.
    OutOfPlace(OutOfPlace),
    /// Bytes that are no message of this stream, where one must stand.
    Foreign { expected: u64 },
    /// Bytes that are no answer.
    Malformed(&'static str),
    /// The server said so.
    Told(String),
    /// An answer of a kind that was not asked for.
    NotEvents,
    /// Messages without an offset to go on from.
    NoOffset,
}

/// What the bytes led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The answer goes on.
    Reading,
    /// The answer is at its end; whether the connection can carry another.
    Complete { keep_alive: bool },
    /// The server refused, and said when to come back, in seconds.
    Refused { status: u16, retry_after: Option<u32> },
}

/// What a reader has been told so far.
#[derive(Debug)]
pub(crate) struct Reader {
    response: Response,
    events: Events,
    keep_alive: bool,
    body: Body,
    /// Bytes of bodies so far.
    pub(crate) bytes: u64,
    /// Whether the head of the current answer was seen and is a success.
    pub(crate) accepted: bool,
    content: Content,
}

/// What kind of body the current answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Events,
    Messages,
    Empty,
}

/// What the body of an answer says.
#[derive(Debug)]
struct Content {
    adapter: Adapter,
    scanner: Scanner,
    position: Position,
    holds: Holds,
    /// The id of the current event, or the offset behind the current answer.
    offset: Vec<u8>,
    has_offset: bool,
    cursor: Vec<u8>,
    retry: Option<u32>,
    up_to_date: bool,
    /// Whole events, or whole answers, on this connection.
    heard: u32,
}

/// What listens to the events of one read.
struct Ears<'a, S> {
    content: &'a mut Content,
    shape: &'a Shape,
    sink: &'a mut S,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutOfPlace(out) => out.fmt(f),
            Self::Foreign { expected } => write!(f, "foreign bytes: expected message {expected}"),
            Self::Malformed(what) => write!(f, "malformed answer: {what}"),
            Self::Told(what) => write!(f, "the server ended the stream: {what}"),
            Self::NotEvents => f.write_str("the answer is not an event stream"),
            Self::NoOffset => f.write_str("an answer without Stream-Next-Offset"),
        }
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

impl From<OutOfPlace> for Fault {
    fn from(out: OutOfPlace) -> Self {
        Self::OutOfPlace(out)
    }
}

impl From<Foreign> for Fault {
    fn from(_: Foreign) -> Self {
        Self::Foreign { expected: UNKNOWN }
    }
}

impl Reader {
    /// A reader whose first message has the number `first`.
    pub(crate) fn new(adapter: Adapter, first: u64) -> Self {
        let (holds, pieces) = adapter.unnamed();
        Self {
            response: Response::new(),
            events: Events::new(pieces),
            keep_alive: false,
            body: Body::Empty,
            bytes: 0,
            accepted: false,
            content: Content {
                adapter,
                scanner: Scanner::new(adapter.grammar()),
                position: Position::at(first),
                holds,
                offset: Vec::new(),
                has_offset: false,
                cursor: Vec::new(),
                retry: None,
                up_to_date: false,
                heard: 0,
            },
        }
    }

    /// Where the reader stands, and the cursor it was given last.
    pub(crate) fn place(&self) -> (&Position, &[u8]) {
        (&self.content.position, &self.content.cursor)
    }

    /// How many messages lie behind the reader.
    pub(crate) fn seen(&self) -> u64 {
        self.content.position.seen()
    }

    /// Whole events, or whole answers, since the last connection began.
    pub(crate) fn heard(&self) -> u32 {
        self.content.heard
    }

    /// Whether the server has said that there is nothing more for now.
    pub(crate) fn up_to_date(&self) -> bool {
        self.content.up_to_date
    }

    /// How long the server asked to wait before the next connection, in milliseconds.
    pub(crate) fn retry(&self) -> Option<u32> {
        self.content.retry
    }

    /// The next answer begins, on the same connection.
    pub(crate) fn begin_answer(&mut self) {
        self.response.reset();
        self.events.reset();
        self.content.scanner.reset();
        self.content.end_event();
        self.accepted = false;
        self.content.up_to_date = false;
    }

    /// The connection is gone: what was not covered by an offset will come again.
    pub(crate) fn disconnect(&mut self) {
        self.begin_answer();
        self.content.position.roll_back();
        self.content.heard = 0;
    }

    /// The server has ended the connection. Whether that was the proper end of the answer.
    pub(crate) fn end_of_connection(&self) -> bool {
        self.response.ends_with_connection()
    }

    /// Takes the next bytes of the connection. What is left of `input` belongs to the next answer.
    pub(crate) fn take(
        &mut self,
        input: &mut &[u8],
        ask: Ask,
        shape: &Shape,
        sink: &mut impl Sink,
    ) -> Result<Step, Fault> {
        if self.response.in_head() {
            match self.head(input, ask)? {
                Some(Step::Reading) => {}
                Some(step) => return Ok(step),
                None => return Ok(Step::Reading),
            }
        }
        loop {
            match self.response.body(input)? {
                Piece::More => return Ok(Step::Reading),
                Piece::End => {
                    self.content.end_answer(self.body)?;
                    return Ok(Step::Complete { keep_alive: self.keep_alive });
                }
                Piece::Body(bytes) => {
                    self.bytes += bytes.len() as u64;
                    let mut ears = Ears { content: &mut self.content, shape, sink };
                    match self.body {
                        Body::Events => self.events.feed(bytes, &mut ears)?,
                        Body::Messages => ears.messages(bytes)?,
                        Body::Empty => {}
                    }
                }
            }
        }
    }

    fn head(&mut self, input: &mut &[u8], ask: Ask) -> Result<Option<Step>, Fault> {
        let content = &mut self.content;
        let seen = self.response.head(input, |head| {
            self.keep_alive = head.keep_alive;
            if !(200..300).contains(&head.status) {
                return Ok(Step::Refused { status: head.status, retry_after: head.retry_after });
            }
            self.body = match (ask, head.status) {
                (Ask::Events, _) if !head.events => return Err(Fault::NotEvents),
                (Ask::Events, _) => Body::Events,
                (Ask::LongPoll | Ask::CatchUp, 204) => Body::Empty,
                (Ask::LongPoll | Ask::CatchUp, _) => Body::Messages,
            };
            if ask != Ask::Events {
                let offset = head.next_offset.ok_or(Fault::NoOffset)?;
                content.offset.clear();
                content.offset.extend_from_slice(offset);
                content.has_offset = true;
                content.cursor.clear();
                content.cursor.extend_from_slice(head.cursor.unwrap_or_default());
                content.up_to_date = head.up_to_date;
            }
            self.accepted = true;
            Ok(Step::Reading)
        })?;
        seen.transpose()
    }
}

impl Content {
    /// An answer that is not made of events is whole.
    fn end_answer(&mut self, body: Body) -> Result<(), Fault> {
        match body {
            Body::Events => return Ok(()),
            Body::Messages => {
                let expected = self.position.seen();
                self.scanner.end().map_err(|_| Fault::Foreign { expected })?;
            }
            Body::Empty => {}
        }
        self.heard += 1;
        self.commit();
        Ok(())
    }

    fn commit(&mut self) {
        if self.has_offset {
            self.position.commit(&self.offset);
        }
        self.has_offset = false;
    }

    fn end_event(&mut self) {
        self.has_offset = false;
        self.holds = self.adapter.unnamed().0;
    }

    /// Reads a control event's data (Durable Streams, section 5.8).
    fn control(&mut self, data: &[u8]) {
        if let Some(offset) = json_text(data, br#""streamNextOffset":"#) {
            self.offset.clear();
            self.offset.extend_from_slice(offset);
            self.has_offset = true;
        }
        if let Some(cursor) = json_text(data, br#""streamCursor":"#) {
            self.cursor.clear();
            self.cursor.extend_from_slice(cursor);
        }
        self.up_to_date = memmem::find(data, br#""upToDate":true"#).is_some();
    }
}

impl<S: Sink> Ears<'_, S> {
    fn messages(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Content { scanner, position, .. } = &mut *self.content;
        let sink = &mut *self.sink;
        let result = scanner.feed(self.shape, bytes, |message| {
            match position.accept(message.number)? {
                Accepted::New if !sink.take(message) => return Err(Fault::Foreign { expected: message.number }),
                Accepted::New | Accepted::Again => {}
            }
            Ok(())
        });
        let expected = self.content.position.seen();
        result.map_err(|fault| if fault == Foreign.into() { Fault::Foreign { expected } } else { fault })
    }
}

impl<S: Sink> Listener for Ears<'_, S> {
    type Error = Fault;

    fn name(&mut self, name: &[u8]) -> Pieces {
        let (holds, pieces) = self.content.adapter.named(name);
        self.content.holds = holds;
        pieces
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self.content.holds {
            Holds::Messages => self.messages(bytes),
            Holds::Control => {
                self.content.control(bytes);
                Ok(())
            }
            Holds::Nothing => Ok(()),
            Holds::Failure => Err(Fault::Told(String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned())),
        }
    }

    fn id(&mut self, id: &[u8]) {
        self.content.offset.clear();
        self.content.offset.extend_from_slice(id);
        self.content.has_offset = true;
    }

    fn retry(&mut self, milliseconds: u32) {
        self.content.retry = Some(milliseconds);
    }

    fn dispatch(&mut self) -> Result<(), Fault> {
        let content = &mut *self.content;
        match content.holds {
            Holds::Messages => {
                let expected = content.position.seen();
                content.scanner.end().map_err(|_| Fault::Foreign { expected })?;
                content.heard += 1;
                content.commit();
            }
            Holds::Control => {
                content.heard += 1;
                content.commit();
            }
            Holds::Nothing | Holds::Failure => {}
        }
        content.end_event();
        Ok(())
    }

    fn malformed(&mut self, what: &'static str) -> Fault {
        Fault::Malformed(what)
    }
}

/// The text behind a key of a flat JSON object whose texts need no escapes.
fn json_text<'a>(data: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let value = data[memmem::find(data, key)? + key.len()..].trim_ascii_start().strip_prefix(b"\"")?;
    Some(&value[..memchr(b'"', value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Taken(Vec<u64>);

    impl Sink for Taken {
        fn take(&mut self, message: Message) -> bool {
            self.0.push(message.number);
            message.at == 7
        }
    }

    fn shape() -> Shape {
        Shape::new("r", 0, 96, 0, 96)
    }

    fn text(number: u64) -> String {
        let mut out = Vec::new();
        shape().write(&mut out, Message { number, at: 7 });
        String::from_utf8(out).expect("ascii")
    }

    fn event(number: u64) -> String {
        format!(
            "event: data\ndata:[{}]\n\nevent: control\ndata:{{\"streamNextOffset\":\"o{}\",\"streamCursor\":\"5\",\"upToDate\":true}}\n\n",
            text(number),
            number + 1
        )
    }

    fn events(body: &str) -> Vec<u8> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        format!("{head}{body}").into_bytes()
    }

    /// Feeds `bytes` in parts that end at `cuts`.
    fn feed(reader: &mut Reader, bytes: &[u8], cut: usize, ask: Ask) -> Result<(Step, Vec<u64>), Fault> {
        let mut taken = Taken::default();
        let mut step = Step::Reading;
        for mut part in [&bytes[..cut], &bytes[cut..]] {
            if !part.is_empty() && step == Step::Reading {
                step = reader.take(&mut part, ask, &shape(), &mut taken)?;
            }
        }
        Ok((step, taken.0))
    }

    #[test]
    fn events_are_delivered_and_their_offset_kept_wherever_they_are_cut() {
        let bytes = events(&format!("{}{}", event(0), event(1)));
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(Adapter::DurableStreams, 0);
            let result = feed(&mut reader, &bytes, cut, Ask::Events);
            assert_eq!(result, Ok((Step::Reading, vec![0, 1])), "cut at {cut}");
            assert_eq!(reader.place().0.offset(), b"o2");
            assert_eq!(reader.place().1, b"5");
            assert!(reader.up_to_date() && reader.accepted);
            assert_eq!(reader.heard(), 4);
        }
    }

    #[test]
    fn what_no_offset_covers_may_come_again_after_a_reconnect_but_is_delivered_once() {
        let mut reader = Reader::new(Adapter::DurableStreams, 0);
        let data_only = format!("{}event: data\ndata:[{}]\n\n", event(0), text(1));
        let bytes = events(&data_only);
        assert_eq!(feed(&mut reader, &bytes, 0, Ask::Events), Ok((Step::Reading, vec![0, 1])));
        reader.disconnect();
        assert_eq!(reader.place().0.offset(), b"o1");
        let bytes = events(&format!("{}{}", event(1), event(2)));
        assert_eq!(feed(&mut reader, &bytes, 0, Ask::Events), Ok((Step::Reading, vec![2])));
        reader.disconnect();
        assert!(feed(&mut reader, &events(&event(2)), 0, Ask::Events).is_err());
    }

    #[test]
    fn an_id_is_an_offset_once_its_event_is_whole() {
        let mut reader = Reader::new(Adapter::Nchan, 0);
        let bytes = events(&format!("id: 17:0\ndata: {}\n\nid: 18:0\ndata: {}\n", text(0), text(1)));
        assert_eq!(feed(&mut reader, &bytes, 0, Ask::Events), Ok((Step::Reading, vec![0, 1])));
        assert_eq!(reader.place().0.offset(), b"17:0");
    }

    #[test]
    fn a_long_poll_delivers_commits_and_keeps_its_connection() {
        let body = format!("[{},{}]", text(0), text(1));
        let bytes = format!(
            "HTTP/1.1 200 OK\r\nStream-Next-Offset: o2\r\nStream-Cursor: 8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut reader = Reader::new(Adapter::DurableStreams, 0);
        let complete = Step::Complete { keep_alive: true };
        assert_eq!(feed(&mut reader, bytes.as_bytes(), 9, Ask::LongPoll), Ok((complete, vec![0, 1])));
        assert_eq!(reader.place().0.offset(), b"o2");
        reader.begin_answer();
        let empty = b"HTTP/1.1 204 No Content\r\nStream-Next-Offset: o2\r\nStream-Up-To-Date: true\r\n\r\n";
        assert_eq!(feed(&mut reader, empty, 3, Ask::LongPoll), Ok((complete, vec![])));
        assert_eq!(reader.heard(), 2);
    }

    #[test]
    fn gaps_repeats_and_foreign_bytes_are_faults_that_say_what_was_expected() {
        let fault = |body: &str| {
            let mut reader = Reader::new(Adapter::DurableStreams, 0);
            feed(&mut reader, &events(body), 0, Ask::Events).expect_err("the body is faulty").to_string()
        };
        assert_eq!(fault(&event(1)), "gap: expected message 0, got 1");
        assert_eq!(fault(&format!("{}{}", event(0), event(0))), "repeat: expected message 1, got 0");
        assert_eq!(fault(&event(0).replace("\"pad\":\"r.0.", "\"pad\":\"r.1.")), "foreign bytes: expected message 0");
        assert_eq!(fault("event: data\ndata:[]x\n\n"), "foreign bytes: expected message 0");
        assert_eq!(fault(&event(0).replace("\"at\":7", "\"at\":8")), "foreign bytes: expected message 0");
        assert_eq!(fault(&event(0).replace("]\n\n", "\n\n")), "foreign bytes: expected message 1");
        assert_eq!(fault("event: reset\ndata:{}\n\n"), "the server ended the stream: {}");
    }

    #[test]
    fn a_page_that_is_not_whole_is_foreign() {
        let body = format!("[{}", text(0));
        let head = "HTTP/1.1 200 OK\r\nStream-Next-Offset: o1\r\nContent-Length";
        let bytes = format!("{head}: {}\r\n\r\n{body}", body.len());
        let mut reader = Reader::new(Adapter::DurableStreams, 0);
        let result = feed(&mut reader, bytes.as_bytes(), 0, Ask::CatchUp);
        assert_eq!(result, Err(Fault::Foreign { expected: 1 }));
    }

    #[test]
    fn a_refusal_and_an_answer_of_another_kind_are_told() {
        let mut reader = Reader::new(Adapter::DurableStreams, 0);
        let bytes = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 3\r\n\r\nno\n";
        let refused = Step::Refused { status: 503, retry_after: Some(2) };
        assert_eq!(feed(&mut reader, bytes, 0, Ask::Events), Ok((refused, vec![])));
        assert!(!reader.accepted);
        reader.begin_answer();
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
        assert_eq!(feed(&mut reader, bytes, 0, Ask::Events), Err(Fault::NotEvents));
        reader.begin_answer();
        assert_eq!(feed(&mut reader, bytes, 0, Ask::CatchUp), Err(Fault::NoOffset));
    }
}
