//! Responses of HTTP/1.1 as they arrive, piece by piece (RFC 9112): the head, then the body without its framing.
//!
//! Nothing is copied when a head or a chunk arrives whole, which is the ordinary case; what is cut by a read is carried
//! over. A head is bounded by [`MAX_HEAD`], so a server cannot make the client grow.

use std::fmt;

use memchr::{memchr, memmem};
use tailwater_protocol::headers::{STREAM_CURSOR, STREAM_NEXT_OFFSET, STREAM_UP_TO_DATE};

/// The longest head that is taken, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// What a response is about, borrowed from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// The status code.
    pub(crate) status: u16,
    /// Whether the connection can carry another request after this response.
    pub(crate) keep_alive: bool,
    /// `Stream-Next-Offset`.
    pub(crate) next_offset: Option<&'a [u8]>,
    /// `Stream-Cursor`.
    pub(crate) cursor: Option<&'a [u8]>,
    /// `Stream-Up-To-Date: true`.
    pub(crate) up_to_date: bool,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u32>,
    /// Whether the body is a stream of events.
    pub(crate) events: bool,
    framing: Framing,
}

/// One step of reading a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// The next bytes of the body.
    Body(&'a [u8]),
    /// The input is used up, and the response is not at its end.
    More,
    /// The response is at its end; what is left of the input belongs to the next one.
    End,
}

/// Bytes that are not a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Where in a response the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Length(u64),
    UntilClose,
    /// In the line with a chunk's size; whether a digit was seen, and whether its extension began.
    ChunkSize {
        size: u64,
        digits: u8,
        extension: bool,
    },
    ChunkData(u64),
    ChunkEnd,
    /// In the trailer; how long the line is so far.
    Trailer(usize),
    End,
}

/// A response that is being read.
#[derive(Debug)]
pub(crate) struct Response {
    place: Place,
    carry: Vec<u8>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed response: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl Response {
    /// Before the first byte of a response.
    pub(crate) const fn new() -> Self {
        Self { place: Place::Head, carry: Vec::new() }
    }

    /// Back to before the first byte; keeps what was allocated.
    pub(crate) fn reset(&mut self) {
        self.place = Place::Head;
        self.carry.clear();
    }

    /// Whether the head is still to come.
    pub(crate) fn in_head(&self) -> bool {
        self.place == Place::Head
    }

    /// Whether the end of the connection is the end of this response.
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.place == Place::UntilClose
    }

    /// Takes the head from `input` and shows it to `see`. `None`: the input is used up, and the head is not whole.
    pub(crate) fn head<T>(
        &mut self,
        input: &mut &[u8],
        see: impl FnOnce(&Head<'_>) -> T,
    ) -> Result<Option<T>, Malformed> {
        let carried = self.carry.len();
        let (end, whole) = if carried == 0 {
            (head_end(input, 0), *input)
        } else {
            self.carry.extend_from_slice(input);
            (head_end(&self.carry, carried), self.carry.as_slice())
        };
        let Some(end) = end else {
            if carried == 0 {
                self.carry.extend_from_slice(input);
            }
            *input = &[];
            return if self.carry.len() > MAX_HEAD { Err(Malformed("the head is too long")) } else { Ok(None) };
        };
        let head = parse_head(&whole[..end])?;
        let seen = see(&head);
        self.place = match head.framing {
            Framing::Length(0) => Place::End,
            Framing::Length(length) => Place::Length(length),
            Framing::Chunked => Place::ChunkSize { size: 0, digits: 0, extension: false },
            Framing::UntilClose => Place::UntilClose,
        };
        *input = &input[end - carried..];
        self.carry.clear();
        Ok(Some(seen))
    }

    /// The next piece of the body. To be called after the head, until it says `More` or `End`.
    pub(crate) fn body<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, Malformed> {
        loop {
            match self.place {
                Place::End => return Ok(Piece::End),
                Place::Head => return Err(Malformed("a body before its head")),
                _ if input.is_empty() => return Ok(Piece::More),
                Place::UntilClose => return Ok(Piece::Body(take(input, u64::MAX).0)),
                Place::Length(left) => {
                    let (bytes, left) = take(input, left);
                    self.place = if left == 0 { Place::End } else { Place::Length(left) };
                    return Ok(Piece::Body(bytes));
                }
                Place::ChunkData(left) => {
                    let (bytes, left) = take(input, left);
                    self.place = if left == 0 { Place::ChunkEnd } else { Place::ChunkData(left) };
                    return Ok(Piece::Body(bytes));
                }
                Place::ChunkSize { .. } | Place::ChunkEnd | Place::Trailer(_) => {
                    let (byte, rest) = input.split_first().expect("the input is not empty");
                    *input = rest;
                    self.place = self.place.after(*byte)?;
                }
            }
        }
    }
}

impl Place {
    /// Where a byte of a chunk's framing leads.
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        match (self, byte) {
            (Self::ChunkSize { digits: 0, .. }, b'\n') => Err(Malformed("a chunk without a size")),
            (Self::ChunkSize { size: 0, .. }, b'\n') => Ok(Self::Trailer(0)),
            (Self::ChunkSize { size, .. }, b'\n') => Ok(Self::ChunkData(size)),
            (Self::ChunkSize { extension: true, .. } | Self::ChunkEnd, b'\r') => Ok(self),
            (Self::ChunkSize { extension: true, .. }, _) => Ok(self),
            (Self::ChunkSize { size, digits, .. }, b'\r' | b';' | b' ' | b'\t') => {
                Ok(Self::ChunkSize { size, digits, extension: true })
            }
            (Self::ChunkSize { size, digits, .. }, digit) => {
                let value = char::from(digit).to_digit(16).ok_or(Malformed("the size of a chunk is no number"))?;
                if digits == 15 {
                    return Err(Malformed("the size of a chunk is too large"));
                }
                Ok(Self::ChunkSize { size: size * 16 + u64::from(value), digits: digits + 1, extension: false })
            }
            (Self::ChunkEnd, b'\n') => Ok(Self::ChunkSize { size: 0, digits: 0, extension: false }),
            (Self::ChunkEnd, _) => Err(Malformed("a chunk is longer than its size")),
            (Self::Trailer(_), b'\r') => Ok(self),
            (Self::Trailer(0), b'\n') => Ok(Self::End),
            (Self::Trailer(_), b'\n') => Ok(Self::Trailer(0)),
            (Self::Trailer(length), _) if length < MAX_HEAD => Ok(Self::Trailer(length + 1)),
            (Self::Trailer(_), _) => Err(Malformed("the trailer is too long")),
            (Self::Head | Self::Length(_) | Self::UntilClose | Self::ChunkData(_) | Self::End, _) => Ok(self),
        }
    }
}

/// Cuts up to `most` bytes off the input; returns them, and how many of `most` are left.
fn take<'a>(input: &mut &'a [u8], most: u64) -> (&'a [u8], u64) {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (bytes, rest) = input.split_at(length);
    *input = rest;
    (bytes, most - length as u64)
}

/// Where the head ends, behind its empty line. The first `searched` bytes are known not to hold the end.
fn head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    memmem::find(&bytes[from..], b"\r\n\r\n").map(|at| from + at + 4)
}

fn parse_head(bytes: &[u8]) -> Result<Head<'_>, Malformed> {
    let mut lines = Lines(bytes);
    let status_line = lines.next().unwrap_or_default();
    let version = status_line.get(..9).ok_or(Malformed("no status line"))?;
    if !version.starts_with(b"HTTP/1.") {
        return Err(Malformed("not HTTP/1"));
    }
    let status = status_line.get(9..12).and_then(number).and_then(|status| u16::try_from(status).ok());
    let status = status.ok_or(Malformed("no status"))?;
    let mut length = None;
    let mut chunked = false;
    let mut head = Head {
        status,
        keep_alive: version != b"HTTP/1.0 ",
        next_offset: None,
        cursor: None,
        up_to_date: false,
        retry_after: None,
        events: false,
        framing: Framing::UntilClose,
    };
    for line in lines {
        let Some(colon) = memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is("content-length") {
            length = Some(number(value).ok_or(Malformed("content-length is no number"))?);
        } else if is("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if is("content-type") {
            head.events = value.to_ascii_lowercase().starts_with(b"text/event-stream");
        } else if is("connection") {
            head.keep_alive &= !value.eq_ignore_ascii_case(b"close");
        } else if is("retry-after") {
            head.retry_after = number(value).and_then(|seconds| u32::try_from(seconds).ok());
        } else if is(STREAM_NEXT_OFFSET) {
            head.next_offset = Some(value);
        } else if is(STREAM_CURSOR) {
            head.cursor = Some(value);
        } else if is(STREAM_UP_TO_DATE) {
            head.up_to_date = value.eq_ignore_ascii_case(b"true");
        }
    }
    head.framing = match (status, chunked, length) {
        (100..=199 | 204 | 304, ..) => Framing::Length(0),
        (_, true, _) => Framing::Chunked,
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => Framing::UntilClose,
    };
    head.keep_alive &= head.framing != Framing::UntilClose;
    Ok(head)
}

/// A decimal number of at most 18 digits.
fn number(text: &[u8]) -> Option<u64> {
    let digits = (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    digits.then(|| text.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}

/// The lines of a head, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.0)?;
        let line = self.0[..end].strip_suffix(b"\r").unwrap_or(&self.0[..end]);
        self.0 = &self.0[end + 1..];
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `whole` in two parts, cut at `cut`: the status, the body, and whether the end was seen.
    fn read(whole: &[u8], cut: usize) -> Result<(u16, Vec<u8>, bool), Malformed> {
        let mut response = Response::new();
        let (mut status, mut body, mut ended) = (0, Vec::new(), false);
        for mut input in [&whole[..cut], &whole[cut..]] {
            if response.in_head() {
                match response.head(&mut input, |head| head.status)? {
                    Some(seen) => status = seen,
                    None => continue,
                }
            }
            loop {
                match response.body(&mut input)? {
                    Piece::Body(bytes) => body.extend_from_slice(bytes),
                    Piece::More => break,
                    Piece::End => {
                        ended = true;
                        break;
                    }
                }
            }
        }
        Ok((status, body, ended))
    }

    #[test]
    fn a_response_reads_the_same_wherever_it_is_cut() {
        let cases: [(&[u8], u16, &[u8], bool); 5] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", true),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n",
                200,
                b"hello",
                true,
            ),
            (b"HTTP/1.1 204 No Content\r\nStream-Next-Offset: 7\r\n\r\n", 204, b"", true),
            (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello", false),
            (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length:0\r\nRetry-After: 2\r\n\r\n", 503, b"", true),
        ];
        for (whole, status, body, ended) in cases {
            for cut in 0..=whole.len() {
                assert_eq!(read(whole, cut), Ok((status, body.to_vec(), ended)), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_the_load_needs_of_a_head_is_found_in_any_case() {
        let mut input: &[u8] = b"HTTP/1.1 200 OK\r\nstream-next-offset: 1_2\r\nSTREAM-CURSOR: 9\r\n\
            Stream-Up-To-Date: true\r\nContent-Type: text/event-stream; charset=utf-8\r\nRetry-After: 3\r\n\
            Connection: close\r\n\r\n";
        let mut response = Response::new();
        let seen = response.head(&mut input, |head| {
            assert_eq!(head.next_offset, Some(&b"1_2"[..]));
            assert_eq!(head.cursor, Some(&b"9"[..]));
            assert_eq!(head.retry_after, Some(3));
            assert!(head.up_to_date && head.events && !head.keep_alive);
        });
        assert_eq!(seen, Ok(Some(())));
        assert!(response.ends_with_connection());
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for bytes in [
            &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert!(read(bytes, bytes.len()).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_head_without_an_end_is_refused_at_its_bound() {
        let mut response = Response::new();
        assert_eq!(response.head(&mut &b"HTTP/1.1 200 OK\r\n"[..], |_| ()), Ok(None));
        assert!(response.head(&mut vec![b'a'; MAX_HEAD].as_slice(), |_| ()).is_err());
    }
}
