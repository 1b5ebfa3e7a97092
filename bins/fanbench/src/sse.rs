//! Server-Sent Events as they arrive (HTML, section 9.2), for streams whose events are named before their data.
//!
//! A line that arrives whole is handed on in place; one that a read cut is carried over. The data of a message event is
//! handed on in pieces even within a line, because the first event of a replay can be as large as the stream.

use memchr::memchr;

/// The longest line that is carried over, in bytes. Data of messages is not carried, so no honest line comes near it.
const MAX_LINE: usize = 64 * 1024;

/// Who is told what the lines say.
pub(crate) trait Listener {
    /// Why the listener gives up.
    type Error;

    /// The event has this name. Called before any data of it; answers whether its data may come in pieces.
    fn name(&mut self, name: &[u8]) -> Pieces;

    /// Some of the event's data: a whole line of it, unless the name allowed pieces.
    fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// The event's id.
    fn id(&mut self, id: &[u8]);

    /// How long to wait before the next connection, in milliseconds.
    fn retry(&mut self, milliseconds: u32);

    /// The event is whole. Not called for events that had no field at all.
    fn dispatch(&mut self) -> Result<(), Self::Error>;

    /// The bytes are not what a server of this kind may send.
    fn malformed(&mut self, what: &'static str) -> Self::Error;
}

/// Whether the data of an event may be handed on in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pieces {
    Allowed,
    WholeLines,
}

/// A stream of events that is being read.
#[derive(Debug)]
pub(crate) struct Events {
    /// The start of a line that a read cut.
    carry: Vec<u8>,
    /// The data of a line is being handed on.
    in_data: bool,
    /// The event has data already.
    has_data: bool,
    /// The event has a field.
    begun: bool,
    pieces: Pieces,
    /// How data without a name is to be taken.
    unnamed: Pieces,
}

impl Events {
    /// Before the first byte. `unnamed` says how the data of events without a name may come.
    pub(crate) const fn new(unnamed: Pieces) -> Self {
        Self { carry: Vec::new(), in_data: false, has_data: false, begun: false, pieces: unnamed, unnamed }
    }

    /// Back to before the first byte; keeps what was allocated.
    pub(crate) fn reset(&mut self) {
        self.carry.clear();
        self.in_data = false;
        self.end_event();
    }

    /// Takes the next bytes.
    pub(crate) fn feed<L: Listener>(&mut self, mut input: &[u8], listener: &mut L) -> Result<(), L::Error> {
        while !input.is_empty() {
            let Some(end) = memchr(b'\n', input) else { return self.cut(input, listener) };
            let (line, rest) = (&input[..end], &input[end + 1..]);
            input = rest;
            if self.in_data {
                self.in_data = false;
                listener.data(line.strip_suffix(b"\r").unwrap_or(line))?;
            } else if self.carry.is_empty() {
                self.line(line, listener)?;
            } else {
                let mut carry = std::mem::take(&mut self.carry);
                carry.extend_from_slice(line);
                self.line(&carry, listener)?;
                carry.clear();
                self.carry = carry;
            }
        }
        Ok(())
    }

    /// Takes bytes in which no line ends.
    fn cut<L: Listener>(&mut self, input: &[u8], listener: &mut L) -> Result<(), L::Error> {
        if self.in_data {
            return listener.data(input);
        }
        self.carry.extend_from_slice(input);
        if self.pieces == Pieces::Allowed && self.carry.len() > 6 && self.carry.starts_with(b"data:") {
            let carry = std::mem::take(&mut self.carry);
            self.begun = true;
            self.has_data = true;
            self.in_data = true;
            listener.data(without_space(&carry[5..]))?;
            self.carry = carry;
            self.carry.clear();
        }
        if self.carry.len() > MAX_LINE { Err(listener.malformed("a line is too long")) } else { Ok(()) }
    }

    fn line<L: Listener>(&mut self, line: &[u8], listener: &mut L) -> Result<(), L::Error> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let begun = self.begun;
            self.end_event();
            return if begun { listener.dispatch() } else { Ok(()) };
        }
        let colon = memchr(b':', line).unwrap_or(line.len());
        let value = without_space(line.get(colon + 1..).unwrap_or_default());
        match &line[..colon] {
            b"" => return Ok(()),
            b"data" => {
                self.has_data = true;
                listener.data(value)?;
            }
            b"event" if self.has_data => return Err(listener.malformed("an event is named after its data")),
            b"event" => self.pieces = listener.name(value),
            b"id" => listener.id(value),
            b"retry" => {
                if let Some(milliseconds) = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
                    listener.retry(milliseconds);
                }
            }
            _ => {}
        }
        self.begun = true;
        Ok(())
    }

    fn end_event(&mut self) {
        self.has_data = false;
        self.begun = false;
        self.pieces = self.unnamed;
    }
}

fn without_space(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        events: Vec<(String, String, String)>,
        current: (String, String, String),
        retry: Option<u32>,
    }

    impl Listener for Seen {
        type Error = &'static str;

        fn name(&mut self, name: &[u8]) -> Pieces {
            self.current.0 = String::from_utf8_lossy(name).into_owned();
            if name == b"data" { Pieces::Allowed } else { Pieces::WholeLines }
        }

        fn data(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
            self.current.1.push_str(&String::from_utf8_lossy(bytes));
            Ok(())
        }

        fn id(&mut self, id: &[u8]) {
            self.current.2 = String::from_utf8_lossy(id).into_owned();
        }

        fn retry(&mut self, milliseconds: u32) {
            self.retry = Some(milliseconds);
        }

        fn dispatch(&mut self) -> Result<(), &'static str> {
            self.events.push(std::mem::take(&mut self.current));
            Ok(())
        }

        fn malformed(&mut self, what: &'static str) -> &'static str {
            what
        }
    }

    fn event(name: &str, data: &str, id: &str) -> (String, String, String) {
        (name.to_owned(), data.to_owned(), id.to_owned())
    }

    #[test]
    fn events_read_the_same_wherever_they_are_cut() {
        let bytes = b": hi\n\nid: 1_2\nevent: data\ndata:[{\"n\":1},\ndata: {\"n\":2}]\n\nretry: 250\r\n\
            event: control\r\ndata:{\"upToDate\":true}\r\n\r\ndata: bare\n\n";
        let expected = [
            event("data", "[{\"n\":1},{\"n\":2}]", "1_2"),
            event("control", "{\"upToDate\":true}", ""),
            event("", "bare", ""),
        ];
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut seen = Seen::default();
                let mut events = Events::new(Pieces::WholeLines);
                for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    events.feed(part, &mut seen).expect("the events are well formed");
                }
                assert_eq!(seen.events, expected, "cut at {first} and {second}");
                assert_eq!(seen.retry, Some(250));
            }
        }
    }

    #[test]
    fn half_an_event_is_not_dispatched() {
        let mut seen = Seen::default();
        let mut events = Events::new(Pieces::Allowed);
        events.feed(b"event: data\ndata:[1]\n", &mut seen).expect("well formed");
        assert_eq!(seen.events, []);
        events.reset();
        seen.current = event("", "", "");
        events.feed(b"\n", &mut seen).expect("well formed");
        assert_eq!(seen.events, []);
    }

    #[test]
    fn a_name_behind_the_data_and_an_endless_line_are_refused() {
        let mut events = Events::new(Pieces::Allowed);
        assert!(events.feed(b"data: 1\nevent: control\n", &mut Seen::default()).is_err());
        let mut events = Events::new(Pieces::WholeLines);
        assert!(events.feed(&vec![b'x'; MAX_LINE + 1], &mut Seen::default()).is_err());
    }
}
