//! The messages of a run: how they are written, and how they are told from everything else.
//!
//! A message is `{"n":7,"at":123,"pad":"…"}`, padded to a size: its number in its stream, the time at which it was due (in
//! nanoseconds of the monotonic clock), and a text that names the run and the stream. As the size and the padding are
//! known, a reader compares every byte; so a message that is cut, altered or of another stream is never taken for one
//! of its own, and no checksum is needed.

use std::io::Write as _;

use memchr::memmem;

/// The smallest size of a message, in bytes: room for two long numbers and the names of the run and the stream.
pub(crate) const MIN_SIZE: usize = 96;

/// What a message takes beside its two numbers and its padding.
const FRAME: usize = br#"{"n":,"at":,"pad":""}"#.len();

/// In what the readers of a server find the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// A JSON array of messages; white space may stand between.
    Array,
    /// One message.
    Single,
    /// Messages with white space, or nothing, between them.
    Lines,
    /// S2's batch of records, in whose bodies the messages stand as JSON strings.
    Records,
}

/// What the messages of one stream look like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// The padding of the longest message.
    pad: Box<[u8]>,
    /// The size of the messages that were there before the run, in bytes.
    preload_size: usize,
    /// How many those are: the numbers below this one.
    pub(crate) preloaded: u64,
    /// The size of the others, in bytes.
    size: usize,
}

/// A message that was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its number in its stream.
    pub(crate) number: u64,
    /// When it was due, in nanoseconds of the monotonic clock.
    pub(crate) at: u64,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// They are the beginning of one.
    Incomplete,
    /// They are something else.
    Foreign,
}

/// Bytes that no writer of this run has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Foreign;

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Open,
    FirstOrClose,
    Item,
    CommaOrClose,
    Nothing,
}

/// Finds messages in bytes that come in any pieces.
#[derive(Debug)]
pub(crate) struct Scanner {
    grammar: Grammar,
    expect: Expect,
    /// The beginning of a message that was cut.
    carry: Vec<u8>,
}

impl Shape {
    /// The messages of stream `stream` of the run called `run`. Sizes are in bytes, and at least [`MIN_SIZE`].
    pub(crate) fn new(run: &str, stream: usize, size: usize, preloaded: u64, preload_size: usize) -> Self {
        let longest = size.max(preload_size);
        let mut pad = format!("{run}.{stream}.").into_bytes();
        pad.extend((pad.len()..longest).map(|at| b'a' + (at % 26) as u8));
        Self { pad: pad.into_boxed_slice(), preload_size, preloaded, size }
    }

    /// Appends a message to `out`, as JSON.
    pub(crate) fn write(&self, out: &mut Vec<u8>, message: Message) {
        let begin = out.len();
        write!(out, r#"{{"n":{},"at":{},"pad":""#, message.number, message.at).expect("a vector takes everything");
        let numbers = out.len() - begin + 2 - FRAME;
        out.extend_from_slice(self.pad(message.number, numbers));
        out.extend_from_slice(b"\"}");
    }

    /// The padding of a message whose two numbers have that many digits.
    fn pad(&self, number: u64, digits: usize) -> &[u8] {
        let size = if number < self.preloaded { self.preload_size } else { self.size };
        &self.pad[..size.saturating_sub(FRAME + digits)]
    }

    /// The longest that an item with a message can be: the message, escaped, and what S2 puts around it.
    fn longest(&self) -> usize {
        self.pad.len() + 512
    }

    /// Reads a message at the start of `bytes`; also says how long it is.
    fn read(&self, bytes: &[u8], grammar: Grammar) -> Result<(Message, usize), Flaw> {
        if grammar != Grammar::Records {
            return self.read_message(bytes, [br#"{"n":"#, br#","at":"#, br#","pad":""#, br#""}"#]);
        }
        let marker = br#""body":""#;
        let begin = memmem::find(bytes, marker).ok_or(Flaw::Incomplete)? + marker.len();
        let escaped: [&[u8]; 4] = [br#"{\"n\":"#, br#",\"at\":"#, br#",\"pad\":\""#, br#"\"}""#];
        let (message, length) = self.read_message(&bytes[begin..], escaped)?;
        Ok((message, begin + length))
    }

    fn read_message(&self, bytes: &[u8], literals: [&[u8]; 4]) -> Result<(Message, usize), Flaw> {
        let mut rest = bytes;
        literal(&mut rest, literals[0])?;
        let (number, digits) = decimal(&mut rest)?;
        literal(&mut rest, literals[1])?;
        let (at, more) = decimal(&mut rest)?;
        literal(&mut rest, literals[2])?;
        literal(&mut rest, self.pad(number, digits + more))?;
        literal(&mut rest, literals[3])?;
        Ok((Message { number, at }, bytes.len() - rest.len()))
    }
}

impl Scanner {
    /// Before the first byte.
    pub(crate) fn new(grammar: Grammar) -> Self {
        Self { grammar, expect: start(grammar), carry: Vec::new() }
    }

    /// Back to before the first byte; keeps what was allocated.
    pub(crate) fn reset(&mut self) {
        self.expect = start(self.grammar);
        self.carry.clear();
    }

    /// Takes the next bytes and shows each message in them to `see`.
    pub(crate) fn feed<E: From<Foreign>>(
        &mut self,
        shape: &Shape,
        mut input: &[u8],
        mut see: impl FnMut(Message) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(first) = input.first() {
            let cut = !self.carry.is_empty();
            if !cut && self.grammar != Grammar::Records && first.is_ascii_whitespace() {
                input = &input[1..];
                continue;
            }
            match (self.expect, first) {
                (Expect::Open, b'[') => self.expect = Expect::FirstOrClose,
                (Expect::FirstOrClose | Expect::CommaOrClose, b']') if !cut => self.expect = Expect::Nothing,
                (Expect::CommaOrClose, b',') => self.expect = Expect::Item,
                (Expect::FirstOrClose | Expect::Item, _) => {
                    if let Some(message) = self.item(shape, &mut input)? {
                        see(message)?;
                    }
                    continue;
                }
                (Expect::Open | Expect::CommaOrClose | Expect::Nothing, _) => return Err(Foreign.into()),
            }
            input = &input[1..];
        }
        Ok(())
    }

    /// Whether the bytes so far are whole; the next ones begin anew.
    pub(crate) fn end(&mut self) -> Result<(), Foreign> {
        let whole = match self.grammar {
            Grammar::Array | Grammar::Single => self.expect == Expect::Nothing,
            Grammar::Lines => self.carry.is_empty(),
            Grammar::Records => memmem::find(&self.carry, br#""body""#).is_none(),
        };
        self.reset();
        if whole { Ok(()) } else { Err(Foreign) }
    }

    fn item(&mut self, shape: &Shape, input: &mut &[u8]) -> Result<Option<Message>, Foreign> {
        let carried = self.carry.len();
        let read = if carried == 0 {
            shape.read(input, self.grammar)
        } else {
            let room = shape.longest().saturating_sub(carried).min(input.len());
            self.carry.extend_from_slice(&input[..room]);
            shape.read(&self.carry, self.grammar)
        };
        match read {
            Ok((message, length)) => {
                *input = &input[length - carried..];
                self.carry.clear();
                self.expect = match self.grammar {
                    Grammar::Array => Expect::CommaOrClose,
                    Grammar::Single => Expect::Nothing,
                    Grammar::Lines | Grammar::Records => Expect::Item,
                };
                Ok(Some(message))
            }
            Err(Flaw::Incomplete) => {
                let kept = self.carry.len() - carried;
                if carried == 0 {
                    self.carry.extend_from_slice(input);
                    *input = &[];
                } else {
                    *input = &input[kept..];
                }
                let too_long = self.carry.len() >= shape.longest();
                if too_long { Err(Foreign) } else { Ok(None) }
            }
            Err(Flaw::Foreign) => Err(Foreign),
        }
    }
}

fn start(grammar: Grammar) -> Expect {
    match grammar {
        Grammar::Array => Expect::Open,
        Grammar::Single | Grammar::Lines | Grammar::Records => Expect::Item,
    }
}

fn literal(rest: &mut &[u8], wanted: &[u8]) -> Result<(), Flaw> {
    if let Some(behind) = rest.strip_prefix(wanted) {
        *rest = behind;
        return Ok(());
    }
    Err(if wanted.starts_with(rest) { Flaw::Incomplete } else { Flaw::Foreign })
}

/// A decimal number and how many digits it has.
fn decimal(rest: &mut &[u8]) -> Result<(u64, usize), Flaw> {
    let mut value: u64 = 0;
    for (digits, byte) in rest.iter().enumerate() {
        if byte.is_ascii_digit() && digits < 19 {
            value = value * 10 + u64::from(byte - b'0');
        } else if digits == 0 || byte.is_ascii_digit() {
            return Err(Flaw::Foreign);
        } else {
            *rest = &rest[digits..];
            return Ok((value, digits));
        }
    }
    Err(if rest.len() > 19 { Flaw::Foreign } else { Flaw::Incomplete })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape() -> Shape {
        Shape::new("run7", 3, 120, 2, 200)
    }

    fn message(number: u64) -> Message {
        Message { number, at: 1_000_000 + number }
    }

    fn text(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        shape().write(&mut out, message(number));
        out
    }

    /// How a server of the grammar would send the messages.
    fn encode(grammar: Grammar, numbers: std::ops::Range<u64>) -> Vec<u8> {
        let texts: Vec<String> = numbers.map(|n| String::from_utf8(text(n)).expect("ascii")).collect();
        match grammar {
            Grammar::Array => format!("[ {}\n]", texts.join(" ,\n")).into_bytes(),
            Grammar::Single => texts.concat().into_bytes(),
            Grammar::Lines => (texts.join("\n") + "\n").into_bytes(),
            Grammar::Records => {
                let record = |text: &String| serde_json::json!({"seq_num": 4, "timestamp": 5, "body": text});
                let records: Vec<serde_json::Value> = texts.iter().map(record).collect();
                let tail = serde_json::json!({"seq_num": 9, "timestamp": 5});
                // As the server writes it: the body is the last field of a record.
                serde_json::json!({ "records": records, "tail": tail }).to_string().into_bytes()
            }
        }
    }

    fn scan(scanner: &mut Scanner, parts: &[&[u8]]) -> Result<Vec<u64>, Foreign> {
        let mut numbers = Vec::new();
        for part in parts {
            scanner.feed(&shape(), part, |seen| {
                assert_eq!(seen, message(seen.number));
                numbers.push(seen.number);
                Ok::<(), Foreign>(())
            })?;
        }
        scanner.end()?;
        Ok(numbers)
    }

    #[test]
    fn a_message_has_the_size_that_was_asked_for() {
        assert_eq!(text(1).len(), 200);
        assert_eq!(text(2).len(), 120);
        assert_eq!(text(123_456).len(), 120);
        serde_json::from_slice::<serde_json::Value>(&text(2)).expect("a message is JSON");
    }

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        for (grammar, count) in [(Grammar::Array, 4), (Grammar::Single, 1), (Grammar::Lines, 4), (Grammar::Records, 4)]
        {
            let bytes = encode(grammar, 0..count);
            let expected: Vec<u64> = (0..count).collect();
            let mut scanner = Scanner::new(grammar);
            for cut in 0..=bytes.len() {
                assert_eq!(
                    scan(&mut scanner, &[&bytes[..cut], &bytes[cut..]]),
                    Ok(expected.clone()),
                    "{grammar:?} {cut}"
                );
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(scan(&mut scanner, &single), Ok(expected));
        }
    }

    #[test]
    fn an_array_that_is_cut_short_is_foreign() {
        let bytes = encode(Grammar::Array, 0..3);
        for end in 1..bytes.len() {
            assert_eq!(scan(&mut Scanner::new(Grammar::Array), &[&bytes[..end]]), Err(Foreign), "ends at {end}");
        }
    }

    #[test]
    fn a_line_or_a_record_that_is_cut_short_is_foreign() {
        for grammar in [Grammar::Lines, Grammar::Records] {
            let bytes = encode(grammar, 0..1);
            let end = bytes.windows(6).position(|part| part.starts_with(b"run7.")).expect("a message has a padding");
            assert_eq!(scan(&mut Scanner::new(grammar), &[&bytes[..end + 9]]), Err(Foreign), "{grammar:?}");
        }
    }

    #[test]
    fn a_message_of_another_stream_or_run_is_foreign() {
        for other in
            [Shape::new("run7", 4, 120, 2, 200), Shape::new("run8", 3, 120, 2, 200), Shape::new("run7", 3, 121, 2, 200)]
        {
            let mut bytes = Vec::new();
            other.write(&mut bytes, message(5));
            assert_eq!(scan(&mut Scanner::new(Grammar::Single), &[&bytes]), Err(Foreign));
        }
    }

    proptest! {
        #[test]
        fn no_change_of_a_byte_goes_unseen(at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = text(1);
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            let mut seen = Vec::new();
            let mut scanner = Scanner::new(Grammar::Single);
            let fed = scanner.feed(&shape(), &bytes, |message| {
                seen.push(message);
                Ok::<(), Foreign>(())
            });
            // A changed digit is another number or time, which the sequence or the schedule refuses.
            let is_another = seen.iter().any(|seen| *seen != message(1));
            prop_assert!(fed.and_then(|()| scanner.end()).is_err() || is_another);
        }
    }
}
