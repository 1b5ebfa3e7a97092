//! The floor: the least that a server can do for the readers of a stream.
//!
//! One thread, non-blocking sockets. An append makes one frame, in the shape in which a Durable Streams server sends it
//! (section 5.8), and each reader of the stream gets it with one `write`: nothing is allocated, encoded or queued for a
//! reader. A reader that cannot take a frame whole is dropped and counted. Frames stay in memory, up to a bound, so that
//! readers can come back and replays can be measured.
//!
//! It takes well-formed requests of `fanbench`, and is no server for anything else.

mod stream;

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
};

use anyhow::{Context as _, Result};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Protocol, Socket, Type};

use self::stream::{Missing, Start, Streams};
use crate::process;

/// The token of the listener; those of connections are their numbers.
const LISTENER: Token = Token(usize::MAX);
/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 16_384;
/// The largest request, in bytes.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// One connection.
struct Connection {
    socket: TcpStream,
    /// The part of a request that has arrived.
    request: Vec<u8>,
    /// The part of an answer that was not written; frames of live readers are never in here.
    answer: Vec<u8>,
    reading: Option<Reading>,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    stream: usize,
    how: Live,
    /// The frame from which a long-poll goes on.
    offset: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Live {
    Events,
    LongPoll,
}

/// The server.
pub(crate) struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    streams: Streams,
    /// Who waits for frames of a stream.
    readers: Vec<Vec<usize>>,
    buffer: Vec<u8>,
    dropped: u64,
}

/// One request, borrowed from its bytes.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    body: &'a [u8],
    /// How long the request is.
    length: usize,
}

impl Floor {
    /// A server at this address that keeps up to `history` bytes of frames per stream.
    pub(crate) fn bind(address: SocketAddr, history: usize) -> Result<Self> {
        process::allow_descriptors(0)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into()).with_context(|| format!("cannot listen on {address}"))?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            streams: Streams::new(history),
            readers: Vec::new(),
            buffer: vec![0; 256 * 1024],
            dropped: 0,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the process is ended.
    pub(crate) fn serve(mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.context("the poller failed")?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(index) => {
                        if event.is_writable() {
                            self.flush(index);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.read(index);
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error)
                    if error.kind() == ErrorKind::Interrupted || error.kind() == ErrorKind::ConnectionAborted =>
                {
                    continue;
                }
                Err(error) => return Err(error).context("cannot accept"),
            };
            socket.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            self.connections[index] =
                Some(Connection { socket, request: Vec::new(), answer: Vec::new(), reading: None });
        }
    }

    fn read(&mut self, index: usize) {
        loop {
            let Some(connection) = &mut self.connections[index] else { return };
            match connection.socket.read(&mut self.buffer) {
                Ok(0) => return self.close(index),
                Ok(length) => {
                    connection.request.extend_from_slice(&self.buffer[..length]);
                    self.requests(index);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(index),
            }
        }
    }

    /// Answers what has arrived whole.
    fn requests(&mut self, index: usize) {
        while let Some(connection) = &mut self.connections[index]
            && connection.reading.is_none()
        {
            let bytes = std::mem::take(&mut connection.request);
            let Some(request) = parse(&bytes) else {
                connection.request = bytes;
                if connection.request.len() > MAX_REQUEST {
                    self.close(index);
                }
                return;
            };
            self.answer(index, &request);
            let length = request.length;
            if let Some(connection) = &mut self.connections[index] {
                connection.request = bytes[length..].to_vec();
            }
        }
    }

    fn answer(&mut self, index: usize, request: &Request<'_>) {
        match request.method {
            "PUT" => {
                self.streams.create(request.path);
                self.readers.resize_with(self.streams.len(), Vec::new);
                self.reply(
                    index,
                    b"HTTP/1.1 201 Created\r\nStream-Next-Offset: 0000000000000000\r\nContent-Length: 0\r\n\r\n",
                );
            }
            "POST" => match self.streams.find(request.path) {
                None => self.refuse(index, "404 Not Found"),
                Some(stream) => {
                    self.streams.append(stream, request.body);
                    let next = self.streams.tail(stream);
                    let answer = format!("HTTP/1.1 204 No Content\r\nStream-Next-Offset: {next:016}\r\n\r\n");
                    self.reply(index, answer.as_bytes());
                    self.deliver(stream);
                }
            },
            "GET" => self.get(index, request),
            _ => self.refuse(index, "405 Method Not Allowed"),
        }
    }

    fn get(&mut self, index: usize, request: &Request<'_>) {
        let parameter = |name: &str| request.query.split('&').find_map(|part| part.strip_prefix(name));
        let Some(stream) = self.streams.find(request.path) else { return self.refuse(index, "404 Not Found") };
        let start = match parameter("offset=") {
            Some("now") => Start::Tail,
            Some("-1") => Start::At(0),
            Some(offset) => match offset.parse() {
                Ok(offset) => Start::At(offset),
                Err(_) => return self.refuse(index, "400 Bad Request"),
            },
            None => return self.refuse(index, "400 Bad Request"),
        };
        let mut answer = Vec::new();
        let taken = match parameter("live=") {
            Some("sse") => self.streams.write_events(stream, start, &mut answer).map(|()| Some(Live::Events)),
            Some("long-poll") if self.streams.is_at_tail(stream, start) => Ok(Some(Live::LongPoll)),
            _ => self.streams.write_page(stream, start, &mut answer).map(|()| None),
        };
        match taken {
            Err(Missing) => return self.refuse(index, "410 Gone"),
            Ok(Some(how)) => {
                if let Some(connection) = &mut self.connections[index] {
                    connection.reading = Some(Reading { stream, how, offset: self.streams.tail(stream) });
                    self.readers[stream].push(index);
                }
            }
            Ok(None) => {}
        }
        self.reply(index, &answer);
    }

    /// Writes the newest frame of a stream to each of its readers.
    fn deliver(&mut self, stream: usize) {
        let mut readers = std::mem::take(&mut self.readers[stream]);
        let mut kept = 0;
        for at in 0..readers.len() {
            let index = readers[at];
            let Some(connection) = &mut self.connections[index] else { continue };
            let Some(reading) = connection.reading.filter(|reading| reading.stream == stream) else { continue };
            if reading.how == Live::LongPoll {
                connection.reading = None;
                let mut answer = Vec::new();
                let page = self.streams.write_page(stream, Start::At(reading.offset), &mut answer);
                page.expect("the newest frame is kept");
                self.reply(index, &answer);
                self.requests(index);
                continue;
            }
            let frame = self.streams.newest(stream);
            let whole = connection.answer.is_empty()
                && connection.socket.write(frame).is_ok_and(|length| length == frame.len());
            if whole {
                readers[kept] = index;
                kept += 1;
            } else {
                self.dropped += 1;
                // Nobody reads the log of a floor that runs in the background.
                drop(writeln!(io::stderr(), "floor: dropped {} slow readers", self.dropped));
                self.close(index);
            }
        }
        readers.truncate(kept);
        // Long-polls that were answered may have asked again at once.
        readers.append(&mut self.readers[stream]);
        self.readers[stream] = readers;
    }

    fn refuse(&mut self, index: usize, status: &str) {
        self.reply(index, format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    }

    /// Writes an answer, or keeps what the socket does not take.
    fn reply(&mut self, index: usize, answer: &[u8]) {
        if let Some(connection) = &mut self.connections[index] {
            connection.answer.extend_from_slice(answer);
        }
        self.flush(index);
    }

    fn flush(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        let mut written = 0;
        while written < connection.answer.len() {
            match connection.socket.write(&connection.answer[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(index),
            }
        }
        connection.answer.drain(..written);
        if connection.answer.is_empty() {
            // Thousands of readers have had an answer, and none will have another.
            connection.answer = Vec::new();
        }
    }

    fn close(&mut self, index: usize) {
        let Some(connection) = self.connections[index].take() else { return };
        if let Some(reading) = connection.reading {
            self.readers[reading.stream].retain(|reader| *reader != index);
        }
        self.free.push(index);
    }
}

/// The request at the start of `bytes`, if it is there whole.
fn parse(bytes: &[u8]) -> Option<Request<'_>> {
    let head_end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_end]).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let lengths = lines.filter_map(|line| line.split_once(':'));
    let mut lengths = lengths.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().map_or(Some(0), |(_, value)| value.trim().parse().ok())?;
    let body = bytes.get(head_end + 4..)?.get(..length)?;
    Some(Request { method, path, query, body, length: head_end + 4 + length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_once_it_is_whole() {
        let bytes = b"POST /a/b?x=1 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET";
        for end in 0..bytes.len() - 3 {
            assert!(parse(&bytes[..end]).is_none(), "ends at {end}");
        }
        let request = parse(bytes).expect("the request is whole");
        assert_eq!((request.method, request.path, request.query), ("POST", "/a/b", "x=1"));
        assert_eq!((request.body, request.length), (&b"abc"[..], bytes.len() - 3));
    }
}
