//! A socket that takes what its script says, and the client at its other end, which trusts nobody.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Read, Write},
    rc::Rc,
};

use bytes::Bytes;
use tailwater_protocol::{ContentKind, Offset, text};
use tailwater_testkit::{
    Chunks, Piece,
    sse::{DurableEvent, DurableSse, Payload},
};

/// The messages of a stream, as far as they were pushed.
pub(super) type Log = Rc<RefCell<Vec<(u64, Bytes)>>>;

/// The gateway's end of a connection.
#[derive(Debug)]
pub(super) struct Socket(pub(super) Rc<RefCell<Wire>>);

/// What lies between a socket and its client.
#[derive(Debug)]
pub(super) struct Wire {
    /// All that was taken.
    pub(super) written: Vec<u8>,
    /// How many bytes it takes until it would block.
    pub(super) room: usize,
    /// How many bytes it takes with one call.
    pub(super) per_call: usize,
    /// How often it is interrupted first.
    pub(super) interrupts: usize,
    /// What every write fails with from now on.
    pub(super) broken: Option<ErrorKind>,
    /// What the client sends; `None` is the end.
    pub(super) incoming: VecDeque<Option<Bytes>>,
    /// How many writes took something or would have blocked.
    pub(super) writes: usize,
    /// What was offered and not taken yet: the next write has to offer just that.
    owed: Vec<u8>,
    /// Where in the body what was offered together starts, and how many messages there were at that time.
    offers: Vec<(usize, usize)>,
    log: Log,
}

/// The client's end.
pub(super) struct Client {
    pub(super) wire: Rc<RefCell<Wire>>,
    log: Log,
    kind: ContentKind,
    read: usize,
    chunks: Chunks,
    sse: DurableSse,
    /// The position up to which it has been given everything.
    pub(super) at: u64,
    /// The data since the last control event.
    data: Vec<u8>,
    /// What each chunk held: whether data, and what the last control event in it said.
    pub(super) seen: Vec<Seen>,
    /// Why it may not go on, if it was told so.
    pub(super) unauthorized: Option<String>,
    pub(super) has_ended: bool,
}

/// A chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) data: String,
    pub(super) next: Option<u64>,
    pub(super) cursor: Option<u64>,
    pub(super) up_to_date: bool,
    pub(super) closed: bool,
}

impl Wire {
    pub(super) fn new(log: &Log) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            written: Vec::new(),
            room: usize::MAX,
            per_call: usize::MAX,
            interrupts: 0,
            broken: None,
            incoming: VecDeque::new(),
            writes: 0,
            owed: Vec::new(),
            offers: Vec::new(),
            log: Rc::clone(log),
        }))
    }

    fn take(&mut self, offered: &[u8]) -> io::Result<usize> {
        assert!(!offered.is_empty(), "a write of nothing");
        if self.interrupts > 0 {
            self.interrupts -= 1;
            return Err(ErrorKind::Interrupted.into());
        }
        if let Some(kind) = self.broken {
            return Err(kind.into());
        }
        self.writes += 1;
        if self.owed.is_empty() {
            self.offers.push((self.written.len(), self.log.borrow().len()));
        } else {
            assert_eq!(offered, self.owed, "what was half written comes first");
        }
        let taken = offered.len().min(self.per_call).min(self.room);
        self.owed = offered[taken..].to_vec();
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.room != usize::MAX {
            self.room -= taken;
        }
        self.written.extend_from_slice(&offered[..taken]);
        Ok(taken)
    }

    /// What somebody else writes.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        assert!(self.owed.is_empty(), "something is half written");
        self.offers.push((self.written.len(), self.log.borrow().len()));
        self.written.extend_from_slice(bytes);
    }

    /// What somebody else wrote, nobody knows when.
    pub(super) fn put_late(&mut self, bytes: &[u8]) {
        self.offers.push((self.written.len(), 0));
        self.written.extend_from_slice(bytes);
    }

    /// How many messages there were when what stands at a place of the body was made.
    fn known_at(&self, place: usize) -> usize {
        let index = self.offers.partition_point(|(start, _)| *start <= place);
        self.offers[index - 1].1
    }
}

impl Write for Socket {
    fn write(&mut self, offered: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().take(offered)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.0.borrow_mut().take(&offered)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let Some(next) = wire.incoming.pop_front() else { return Err(ErrorKind::WouldBlock.into()) };
        let Some(mut bytes) = next else { return Ok(0) };
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes.split_to(length));
        if !bytes.is_empty() {
            wire.incoming.push_front(Some(bytes));
        }
        Ok(length)
    }
}

impl Client {
    pub(super) fn new(wire: &Rc<RefCell<Wire>>, kind: ContentKind, at: Offset) -> Self {
        let payload = match kind {
            ContentKind::Json => Payload::Json,
            ContentKind::Text => Payload::Text,
            ContentKind::Binary => Payload::Binary,
        };
        Self {
            wire: Rc::clone(wire),
            log: Rc::clone(&wire.borrow().log),
            kind,
            read: 0,
            chunks: Chunks::default(),
            sse: DurableSse::new(payload).from_offset(&at.to_string()),
            at: at.seq,
            data: Vec::new(),
            seen: Vec::new(),
            unauthorized: None,
            has_ended: false,
        }
    }

    /// Reads what has arrived, and checks it: the chunks, that each holds whole events, that what came between two
    /// offsets is what the log holds there, and that nobody was told to be up to date who was not.
    pub(super) fn read(&mut self) {
        let wire = Rc::clone(&self.wire);
        let wire = wire.borrow();
        self.chunks.push(&wire.written[self.read..]);
        self.read = wire.written.len();
        while let Some(piece) = self.chunks.pop().expect("the body is in chunks") {
            match piece {
                Piece::End => self.has_ended = true,
                Piece::Chunk { bytes, at } => self.read_chunk(&bytes, wire.known_at(at)),
            }
        }
    }

    /// The newest chunk.
    pub(super) fn last(&self) -> &Seen {
        self.seen.last().expect("something has come")
    }

    /// Whether a chunk has come in part.
    pub(super) fn is_mid_chunk(&self) -> bool {
        self.chunks.is_mid_chunk()
    }

    pub(super) fn reconnection_time(&self) -> Option<std::time::Duration> {
        self.sse.reconnection_time()
    }

    fn read_chunk(&mut self, bytes: &[u8], known: usize) {
        self.sse.push(bytes);
        let mut seen = Seen { data: String::new(), next: None, cursor: None, up_to_date: false, closed: false };
        while let Some(event) = self.sse.pop() {
            match event.expect("the events keep the protocol") {
                DurableEvent::Data(data) => {
                    seen.data.push_str(&String::from_utf8_lossy(&data));
                    self.data.extend_from_slice(&data);
                }
                DurableEvent::Control(control) => {
                    let next = Offset::parse(&control.next).expect("an offset");
                    self.check_data(next.seq, control.closed);
                    self.check_claims(next.seq, control.up_to_date, known);
                    seen = Seen {
                        next: Some(next.seq),
                        cursor: control.cursor,
                        up_to_date: control.up_to_date,
                        closed: control.closed,
                        data: seen.data,
                    };
                }
                DurableEvent::Unauthorized { reason } => self.unauthorized = Some(reason),
                other @ (DurableEvent::Reset { .. } | DurableEvent::Gone) => panic!("{other:?} from a shard"),
            }
        }
        self.sse.finish().expect("a chunk holds whole events");
        self.seen.push(seen);
    }

    fn check_data(&mut self, next: u64, closed: bool) {
        let log = self.log.borrow();
        let between = log.iter().filter(|(seq, _)| (self.at..next).contains(seq)).map(|(_, body)| body.as_ref());
        let between: Vec<&[u8]> = between.collect();
        let data = std::mem::take(&mut self.data);
        match self.kind {
            ContentKind::Binary => assert_eq!(data, between.concat(), "{} to {next}", self.at),
            ContentKind::Json if between.is_empty() => assert_eq!(data, b""),
            ContentKind::Json => assert_eq!(data, [b"[", between.join(&b","[..]).as_slice(), b"]"].concat()),
            ContentKind::Text => {
                let whole = between.concat();
                let forced = closed || whole.len() > text::MAX_HELD;
                assert!(forced || !text::ends_inside(between.into_iter()), "{next} lies inside a character");
                if std::str::from_utf8(&whole).is_ok() {
                    assert_eq!(data, whole, "{} to {next}", self.at);
                }
                // How many replacement characters stand for garbage depends on where it is cut.
                let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\u{fffd}', "");
                assert_eq!(plain(&data), plain(&whole), "{} to {next}", self.at);
            }
        }
        self.at = next;
    }

    fn check_claims(&self, next: u64, up_to_date: bool, known: usize) {
        let newest = self.log.borrow()[..known].last().map(|(seq, _)| *seq);
        assert!(!up_to_date || newest.is_none_or(|seq| seq < next), "up to date at {next}, and {newest:?} is there");
    }
}
