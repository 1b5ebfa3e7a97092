//! A server of the Durable Streams protocol that breaks one rule, on purpose.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// What the server does wrong. Numbers are those of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// A message is left out, and its offset passed over.
    Gap(usize),
    /// A message comes twice.
    Repeat(usize),
    /// One byte of a message is another.
    Alter(usize),
    /// The time in a message is another.
    Retime(usize),
    /// In the place of a message stands the one before it.
    Stale(usize),
    /// This message and all after it do not come.
    Withhold(usize),
    /// The append of a message is refused.
    RefuseAppend(usize),
    /// The append of a message is never answered.
    IgnoreAppend(usize),
    /// The connection of a writer is closed behind each answer, as servers close idle ones. That is no fault.
    CloseIdle,
    /// The first reads are refused.
    RefuseReads(usize),
    /// The first reads have their connections closed instead of an answer.
    DropReads(usize),
    /// Reads are never answered.
    IgnoreReads,
    /// Readers that come back are never answered.
    IgnoreReturns,
    /// Readers whose answer is ended are told to stay away for a quarter of a second. That is no fault.
    LongRetry,
    /// Readers that come back are put after the message at their offset.
    SkipOnReturn,
    /// Readers that come back are put before the message in front of their offset.
    RepeatOnReturn,
    /// A read of pages says that it is at the tail when it is not.
    FalseTail,
    /// The answer to a read of pages has one message less than its offset says.
    ShortPage,
}

/// A server, and what it has been sent.
pub(crate) struct Scripted {
    fault: Fault,
    /// Event responses end after this many messages.
    rotate_after: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    messages: Vec<String>,
    reads: usize,
    /// Where they came from.
    readers: Vec<SocketAddr>,
}

impl Scripted {
    /// Starts a server; its threads live as long as the test process.
    pub(crate) fn start(fault: Fault, rotate_after: usize) -> String {
        Self::start_watched(fault, rotate_after).0
    }

    /// The same, and the server itself, to ask what it has seen.
    pub(crate) fn start_watched(fault: Fault, rotate_after: usize) -> (String, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let server = Arc::new(Self { fault, rotate_after, state: Mutex::default(), changed: Condvar::new() });
        let watched = Arc::clone(&server);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                // A client that goes away ends its thread with an error, and that is all there is to it.
                thread::spawn(move || drop(server.serve(socket)));
            }
        });
        (format!("http://{address}/v1/stream/bench"), watched)
    }

    /// Where each read came from, in the order of their arrival.
    pub(crate) fn readers(&self) -> Vec<SocketAddr> {
        self.state.lock().expect("no thread panics with it").readers.clone()
    }

    fn serve(&self, mut socket: TcpStream) -> io::Result<()> {
        loop {
            let (line, body) = read_request(&mut socket)?;
            let mut words = line.split(' ');
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            match method {
                "PUT" => socket.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")?,
                "POST" => {
                    self.append(&mut socket, &body)?;
                    if self.fault == Fault::CloseIdle {
                        return Ok(());
                    }
                }
                _ => {
                    let (_, query) = target.split_once('?').unwrap_or_default();
                    if !self.read(&mut socket, query)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn append(&self, socket: &mut TcpStream, body: &str) -> io::Result<()> {
        let inner = body.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(body);
        let mut state = self.state.lock().expect("no thread panics with it");
        for message in inner.replace("},{", "}\n{").lines() {
            let number = state.messages.len();
            if self.fault == Fault::RefuseAppend(number) {
                return socket.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
            }
            state.messages.push(message.to_owned());
            self.changed.notify_all();
            if self.fault == Fault::IgnoreAppend(number) {
                return Ok(());
            }
        }
        drop(state);
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    }

    /// Answers a read. False: the connection is to end.
    #[expect(clippy::wildcard_enum_match_arm, reason = "each place breaks one rule and keeps the others")]
    fn read(&self, socket: &mut TcpStream, query: &str) -> io::Result<bool> {
        let parameter = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)).unwrap_or_default();
        let state = self.state.lock().expect("no thread panics with it");
        let tail = state.messages.len();
        drop(state);
        let position = match parameter("offset=") {
            "now" => tail,
            "-1" => 0,
            offset => self.resume(offset.parse().unwrap_or(0)),
        };
        let nth = self.count_read(socket.peer_addr()?);
        let ignored = match self.fault {
            Fault::IgnoreReads => true,
            Fault::IgnoreReturns => parameter("offset=") != "now",
            _ => false,
        };
        if ignored {
            // Until the client goes away.
            return read_request(socket).map(|_| false);
        }
        if matches!(self.fault, Fault::DropReads(first) if nth <= first) {
            return Ok(false);
        }
        if matches!(self.fault, Fault::RefuseReads(first) if nth <= first) {
            socket.write_all(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(false);
        }
        match parameter("live=") {
            "sse" => self.events(socket, position),
            "long-poll" => self.page(socket, position, self.wait_for(position)).map(|()| true),
            _ => self.page(socket, position, tail.min(position + 40)).map(|()| true),
        }
    }

    /// How many reads there were, with this one.
    fn count_read(&self, reader: SocketAddr) -> usize {
        let mut state = self.state.lock().expect("no thread panics with it");
        state.reads += 1;
        state.readers.push(reader);
        state.reads
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "each place breaks one rule and keeps the others")]
    fn resume(&self, offset: usize) -> usize {
        match self.fault {
            Fault::SkipOnReturn => offset + 1,
            Fault::RepeatOnReturn => offset.saturating_sub(1),
            _ => offset,
        }
    }

    /// Waits for more messages than these.
    fn wait_for(&self, position: usize) -> usize {
        let state = self.state.lock().expect("no thread panics with it");
        let more = |state: &mut State| state.messages.len() <= position;
        self.changed.wait_while(state, more).expect("no thread panics with it").messages.len()
    }

    fn events(&self, socket: &mut TcpStream, mut position: usize) -> io::Result<bool> {
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        chunk(socket, &control(position))?;
        for _ in 0..self.rotate_after {
            self.wait_for(position);
            if let Some(messages) = self.messages(position, position + 1) {
                chunk(socket, &format!("event: data\ndata:[{messages}]\n\n{}", control(position + 1)))?;
            }
            position += 1;
        }
        let retry = if self.fault == Fault::LongRetry { 250 } else { 1 };
        chunk(socket, &format!("retry: {retry}\n\n"))?;
        socket.write_all(b"0\r\n\r\n")?;
        Ok(false)
    }

    fn page(&self, socket: &mut TcpStream, from: usize, until: usize) -> io::Result<()> {
        let cut = if self.fault == Fault::ShortPage && until > from { until - 1 } else { until };
        let parts: Vec<String> = (from..cut).filter_map(|number| self.messages(number, number + 1)).collect();
        let body = format!("[{}]", parts.join(","));
        let tail = self.state.lock().expect("no thread panics with it").messages.len();
        let up_to_date = until == tail || self.fault == Fault::FalseTail;
        let up_to_date = if up_to_date { "Stream-Up-To-Date: true\r\n" } else { "" };
        let length = body.len();
        let head = format!("Stream-Next-Offset: {until}\r\n{up_to_date}Content-Length: {length}\r\n\r\n");
        socket.write_all(format!("HTTP/1.1 200 OK\r\n{head}{body}").as_bytes())
    }

    /// These messages as the fault has them; `None` where nothing is to be sent.
    #[expect(clippy::wildcard_enum_match_arm, reason = "each place breaks one rule and keeps the others")]
    fn messages(&self, from: usize, until: usize) -> Option<String> {
        let state = self.state.lock().expect("no thread panics with it");
        let right = |number: usize| state.messages.get(number).cloned();
        let faulty = |number: usize| match self.fault {
            Fault::Gap(at) if at == number => None,
            Fault::Withhold(at) if number >= at => None,
            Fault::Repeat(at) if at == number => right(number).map(|message| format!("{message},{message}")),
            Fault::Alter(at) if at == number => right(number).map(|message| message.replace("xyz", "xyy")),
            Fault::Retime(at) if at == number => right(number).map(|message| retimed(&message)),
            Fault::Stale(at) if at == number => right(number - 1),
            _ => right(number),
        };
        let parts: Vec<String> = (from..until).filter_map(faulty).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }
}

/// The message with another first digit of its time.
fn retimed(message: &str) -> String {
    let (head, time) = message.split_once("\"at\":").expect("a message has a time");
    let digit = if time.starts_with('1') { '2' } else { '1' };
    format!("{head}\"at\":{digit}{}", &time[1..])
}

fn control(offset: usize) -> String {
    format!("event: control\ndata:{{\"streamNextOffset\":\"{offset}\",\"upToDate\":true}}\n\n")
}

fn chunk(socket: &mut TcpStream, text: &str) -> io::Result<()> {
    socket.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}

/// Reads one request: its first line and its body.
fn read_request(socket: &mut TcpStream) -> io::Result<(String, String)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()));
            }
        }
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
}
