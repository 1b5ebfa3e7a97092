//! Where each request of a connection of HTTP/1.1 begins and ends (RFC 9112, sections 2, 5, 6 and 7), judged before the
//! HTTP library sees the bytes, and more strictly than it judges.
//!
//! Where two servers in a row see the end of a request at different bytes, what one takes for a body is a request for the
//! other: that is how requests are smuggled past whoever decides in front. So whatever could be read in two ways is not
//! read here at all: both a length and an encoding, or two of one of them; any encoding but `chunked`; a line that ends
//! at something else than CR LF; a line that is folded; what is no name in front of a colon; control characters; sizes of
//! chunks in any form but hexadecimal digits. A chunk's extension is ignored, as it has to be, where it is plain text.
//!
//! The library's own rules come behind these. What passes here means the same to both, and a test holds them against each
//! other.

/// The most bytes of a chunk's extension. Nothing uses them.
const MAX_EXTENSION: usize = 256;
/// The most digits of a length: what has more is beyond all that could be sent.
const MAX_DIGITS: usize = 18;
/// The most digits of a chunk's size.
const MAX_HEX_DIGITS: usize = 15;
/// As long as the longest name that is looked for, and the longest value that one may have.
const SHORT: usize = 18;

/// Follows the bytes of one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    /// The most bytes in a head.
    most: usize,
    /// How many bytes the head has, or the trailers.
    length: usize,
    name: Short,
    value: Short,
    /// What the head says about the body.
    body: Body,
    in_trailers: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A request, or an empty line in front of it (RFC 9112, section 2.2).
    Start,
    StartLf,
    RequestLine,
    RequestLineLf,
    /// A field, or the end of the head.
    Field,
    Name,
    Value,
    ValueLf,
    EndLf,
    Sized(u64),
    /// The size of a chunk, of which so many digits have been.
    ChunkSize(usize, u64),
    /// So many bytes of an extension have been.
    ChunkExtension(usize, u64),
    ChunkSizeLf(u64),
    Chunk(u64),
    ChunkCr,
    ChunkLf,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Unsaid,
    Sized(u64),
    Chunked,
}

/// The beginning of a name or a value, in lower case; and how long it is.
#[derive(Debug, Default)]
struct Short {
    bytes: [u8; SHORT],
    length: usize,
}

/// Bytes that are not for the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// How many bytes in front of them are.
    pub passed: usize,
    /// What the library is to see in their place, so that it refuses the request and ends the connection.
    pub instead: &'static [u8],
}

/// Why a byte cannot stand where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Malformed,
    TooLarge,
}

impl Framing {
    /// A connection at its beginning, or behind a whole request, of which heads have so many bytes at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            state: State::Start,
            most,
            length: 0,
            name: Short::default(),
            value: Short::default(),
            body: Body::Unsaid,
            in_trailers: false,
        }
    }

    /// Whether nothing is begun: no request, and no empty line in front of one.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.state == State::Start
    }

    /// Follows further bytes, as far as they are good. Behind an error nothing may be asked any more.
    ///
    /// # Errors
    ///
    /// The first byte that cannot stand where it does.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        while at < bytes.len() {
            let state = self.state;
            let (State::Sized(left) | State::Chunk(left)) = state else {
                let in_trailers = self.in_trailers;
                let refused = |fault| Refused { passed: at, instead: end(state, in_trailers, fault) };
                self.state = self.step(bytes[at]).map_err(refused)?;
                at += 1;
                continue;
            };
            // Whatever is in there.
            let here = left.min((bytes.len() - at) as u64);
            at += here as usize;
            self.state = match (state == State::Chunk(left), left - here) {
                (true, 0) => State::ChunkCr,
                (true, left) => State::Chunk(left),
                (false, 0) => State::Start,
                (false, left) => State::Sized(left),
            };
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        let state = self.state;
        if state.is_of_head() {
            self.length += 1;
            if self.length > self.most {
                return Err(Fault::TooLarge);
            }
        }
        let next = match (state, byte) {
            (State::Start, b'\r') => State::StartLf,
            (State::Start, byte) if is_token(byte) => State::RequestLine,
            (State::StartLf, b'\n') => State::Start,
            (State::RequestLine, b'\r') => State::RequestLineLf,
            (State::RequestLine, byte) if !byte.is_ascii_control() => State::RequestLine,
            (State::RequestLineLf, b'\n') => State::Field,
            (State::Field, b'\r') => State::EndLf,
            (State::Field, byte) if is_token(byte) => {
                self.name = Short::default();
                self.name.push(byte);
                State::Name
            }
            (State::Name, b':') => {
                self.value = Short::default();
                State::Value
            }
            (State::Name, byte) if is_token(byte) => {
                self.name.push(byte);
                State::Name
            }
            (State::Value, b'\r') => State::ValueLf,
            (State::Value, byte) if byte == b'\t' || !byte.is_ascii_control() => {
                self.value.push_value(byte);
                State::Value
            }
            (State::ValueLf, b'\n') => {
                self.note()?;
                State::Field
            }
            (State::EndLf, b'\n') => self.behind_fields(),
            (state, byte) => {
                let next = chunks(state, byte).ok_or(Fault::Malformed)?;
                self.in_trailers = next == State::Field;
                next
            }
        };
        Ok(next)
    }

    /// Takes down what a field says about the body.
    fn note(&mut self) -> Result<(), Fault> {
        let said = match self.name.text() {
            b"content-length" => self.value.decimal().map(Body::Sized).ok_or(Fault::Malformed)?,
            b"transfer-encoding" if self.value.text() == b"chunked" => Body::Chunked,
            b"transfer-encoding" => return Err(Fault::Malformed),
            _ => return Ok(()),
        };
        // Two that say the same are a sign of something that does not look.
        if self.body != Body::Unsaid || self.in_trailers {
            return Err(Fault::Malformed);
        }
        self.body = said;
        Ok(())
    }

    fn behind_fields(&mut self) -> State {
        let in_trailers = std::mem::take(&mut self.in_trailers);
        self.length = 0;
        match std::mem::replace(&mut self.body, Body::Unsaid) {
            // The trailers are behind the body.
            Body::Chunked if !in_trailers => {
                self.body = Body::Chunked;
                State::ChunkSize(0, 0)
            }
            Body::Sized(bytes) if bytes > 0 => State::Sized(bytes),
            Body::Sized(_) | Body::Chunked | Body::Unsaid => State::Start,
        }
    }
}

impl State {
    /// Whether its bytes count among those of a head, or of trailers.
    const fn is_of_head(self) -> bool {
        match self {
            Self::Start
            | Self::StartLf
            | Self::RequestLine
            | Self::RequestLineLf
            | Self::Field
            | Self::Name
            | Self::Value
            | Self::ValueLf
            | Self::EndLf => true,
            Self::Sized(_)
            | Self::ChunkSize(..)
            | Self::ChunkExtension(..)
            | Self::ChunkSizeLf(_)
            | Self::Chunk(_)
            | Self::ChunkCr
            | Self::ChunkLf => false,
        }
    }
}

/// What comes behind a byte between chunks, if it may stand there (RFC 9112, section 7.1).
fn chunks(state: State, byte: u8) -> Option<State> {
    match (state, byte) {
        (State::ChunkSize(digits, size), byte) if byte.is_ascii_hexdigit() => {
            let digit = char::from(byte).to_digit(16)?;
            (digits < MAX_HEX_DIGITS).then(|| State::ChunkSize(digits + 1, size * 16 + u64::from(digit)))
        }
        (State::ChunkSize(1.., size), b'\r') | (State::ChunkExtension(_, size), b'\r') => {
            Some(State::ChunkSizeLf(size))
        }
        (State::ChunkSize(1.., size), b';') => Some(State::ChunkExtension(0, size)),
        (State::ChunkExtension(length, size), byte) if byte == b'\t' || !byte.is_ascii_control() => {
            (length < MAX_EXTENSION).then(|| State::ChunkExtension(length + 1, size))
        }
        (State::ChunkSizeLf(0), b'\n') => Some(State::Field),
        (State::ChunkSizeLf(size), b'\n') => Some(State::Chunk(size)),
        (State::ChunkCr, b'\r') => Some(State::ChunkLf),
        (State::ChunkLf, b'\n') => Some(State::ChunkSize(0, 0)),
        _ => None,
    }
}

/// What the library refuses wherever it stands: with `400`, or with `431` what is too large.
fn end(state: State, in_trailers: bool, fault: Fault) -> &'static [u8] {
    match (fault, state) {
        (Fault::TooLarge | Fault::Malformed, state) if in_trailers && state.is_of_head() => b"\r\0",
        // A head that is whole, and longer than the library takes.
        (Fault::TooLarge, State::RequestLine) => b" HTTP/1.1\r\n\r\n",
        (Fault::TooLarge, State::Name) => b":\r\n\r\n",
        (Fault::TooLarge, State::Value) => b"\r\n\r\n",
        (Fault::TooLarge, State::RequestLineLf | State::ValueLf) => b"\n\r\n",
        (Fault::TooLarge, State::Field) => b"\r\n",
        (Fault::TooLarge, State::EndLf) => b"\n",
        // Anything else is part of an extension for it.
        (_, State::ChunkExtension(..)) => b"\n",
        // No name, value, method, target, size or line end has a NUL. The library looks at a head when it seems whole.
        _ => b"\0\r\n\r\n",
    }
}

/// What names and methods are made of (RFC 9110, section 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

impl Short {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte.to_ascii_lowercase();
        }
        self.length = self.length.saturating_add(1);
    }

    /// White space around a value is no part of it. Within one it is, and behind the first byte nobody knows yet.
    fn push_value(&mut self, byte: u8) {
        if self.length > 0 || !matches!(byte, b' ' | b'\t') {
            self.push(byte);
        }
    }

    /// All of it; nothing where it is longer than anything that is looked for.
    fn text(&self) -> &[u8] {
        let text = self.bytes.get(..self.length).unwrap_or_default();
        text.trim_ascii_end()
    }

    fn decimal(&self) -> Option<u64> {
        let text = self.text();
        let digits = (1..=MAX_DIGITS).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
        digits.then(|| text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http_body_util::BodyExt as _;
    use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const MOST: usize = 256;

    /// The bodies of the requests that these bytes are; `None` where they are refused, or end within one.
    fn bodies(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut framing = Framing::new(MOST);
        let (mut bodies, mut body) = (Vec::new(), Vec::new());
        for byte in bytes {
            let before = framing.state;
            framing.follow(&[*byte]).ok()?;
            if matches!(before, State::Sized(_) | State::Chunk(_)) {
                body.push(*byte);
            }
            if framing.state == State::Start && before != State::StartLf {
                bodies.push(std::mem::take(&mut body));
            }
        }
        (framing.state == State::Start).then_some(bodies)
    }

    /// What the HTTP library takes them for.
    async fn served(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (ours, mut client) = duplex(1 << 16);
        let seen = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let service = service_fn(|request: Request<Incoming>| {
            let seen = Arc::clone(&seen);
            async move {
                if let Ok(body) = request.into_body().collect().await {
                    seen.lock().unwrap().push(body.to_bytes().to_vec());
                }
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        });
        let connection =
            http1::Builder::new().half_close(true).max_header_size(MOST).serve_connection(TokioIo::new(ours), service);
        let ask = async {
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let (_ended, ()) = tokio::join!(connection, ask);
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    /// Requests that are good, or nearly.
    fn requests() -> impl Strategy<Value = Vec<u8>> {
        let request = prop::sample::select(vec![
            "GET /a HTTP/1.1\r\nhost: h\r\n\r\n",
            "\r\n\r\nDELETE /a HTTP/1.1\r\nhost:h\r\n\r\n",
            "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
            "POST /a HTTP/1.1\r\nContent-Length:\t003 \r\nhost: h\r\n\r\na\r\n",
            "PUT /a HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /a HTTP/1.1\r\nTransfer-Encoding:CHUNKED\r\nx: y\r\n\r\n2\r\nab\r\n00A\r\n0123456789\r\n0\r\n\r\n",
            "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;x=\"y\" z\r\n\n\r\n000\r\nx: y\r\nz:\r\n\r\n",
            "GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        ]);
        let pieces = ["", "\r", "\n", "\r\n", " ", "\t", "\0", "0", "5", ";", ":", "\r\nab", "content-length: 1\r\n"];
        let more =
            ["transfer-encoding: chunked\r\n", "Transfer-Encoding : x\r\n", "\r\n a\r\n", "é", "\u{b}", "chunked,"];
        // Just as long as a head may be, and longer.
        let long = (MOST - 64..MOST + 64).prop_map(|length| "a".repeat(length));
        let piece = prop::sample::select([&pieces[..], &more[..]].concat()).prop_map(str::to_owned);
        let piece = prop_oneof![3 => piece, 1 => long];
        (prop::collection::vec(request, 1..4), piece, any::<prop::sample::Index>()).prop_map(|(requests, piece, at)| {
            let mut bytes = requests.concat().into_bytes();
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, piece.bytes());
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn what_passes_means_the_same_to_the_http_library(bytes in requests()) {
            if let Some(bodies) = bodies(&bytes) {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let served = runtime.block_on(served(&bytes));
                // It has rules of its own behind these, and takes nothing behind what it refuses.
                prop_assert!(bodies.starts_with(&served), "{:?} and not {:?}", served, bodies);
            }
        }

        #[test]
        fn what_is_refused_is_refused_at_the_same_byte_however_it_arrives(
            bytes in requests(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let whole = Framing::new(MOST).follow(&bytes);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut framing = Framing::new(MOST);
            let mut in_pieces = Ok(());
            let mut from = 0;
            for to in cuts.into_iter().chain([bytes.len()]) {
                if let Err(refused) = framing.follow(&bytes[from..to]) {
                    in_pieces = Err(Refused { passed: from + refused.passed, ..refused });
                    break;
                }
                from = to;
            }
            prop_assert_eq!(in_pieces, whole);
        }

        #[test]
        fn what_stands_in_place_of_what_is_refused_makes_the_http_library_refuse(bytes in requests()) {
            if let Err(refused) = Framing::new(MOST).follow(&bytes) {
                let good = &bytes[..refused.passed];
                let mut framing = Framing::new(MOST);
                let whole = good.iter().filter(|byte| {
                    let before = framing.state;
                    framing.follow(&[**byte]).unwrap();
                    framing.state == State::Start && before != State::StartLf
                });
                let whole = whole.count();
                let seen = [good, refused.instead, b"GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"].concat();
                // A socket that a live response comes back with is read again, with what stood in place.
                let again = Framing::new(MOST).follow(&seen).unwrap_err();
                let seen_again = [&seen[..again.passed], again.instead, b"GET /smuggled HTTP/1.1\r\n\r\n"].concat();
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                prop_assert!(runtime.block_on(served(&seen)).len() <= whole);
                prop_assert!(runtime.block_on(served(&seen_again)).len() <= whole);
            }
        }
    }

    #[test]
    fn a_head_and_trailers_have_an_end() {
        let fill = |text: &str| [text.as_bytes(), &[b'a'; MOST + 1]].concat();
        for (text, instead) in
            [("GET /", " HTTP/1.1\r\n\r\n"), ("GET / HTTP/1.1\r\n", ":\r\n\r\n"), ("GET / HTTP/1.1\r\nx: ", "\r\n\r\n")]
        {
            let refused = Framing::new(MOST).follow(&fill(text)).unwrap_err();
            assert_eq!((refused.passed, refused.instead), (MOST, instead.as_bytes()), "{text}");
        }
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
        let refused = Framing::new(MOST).follow(&fill(head)).unwrap_err();
        assert_eq!((refused.passed, refused.instead), (head.len() + MOST, &b"\r\0"[..]));
        let empty = "\r\n".repeat(MOST);
        assert!(Framing::new(MOST).follow(empty.as_bytes()).is_err(), "empty lines in front of a request count");
    }
}
