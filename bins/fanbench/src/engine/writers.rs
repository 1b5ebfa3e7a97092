//! Kept connections that create streams, fill them, and append what is due.
//!
//! A stream's requests all go through one connection, one after the other, so its messages stand in the order of their
//! numbers. When an answer is late, the messages behind it are sent late, but keep the time at which they were due.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
};

use mio::{event::Event, net::TcpStream};

use super::{Engine, connect, register};
use crate::{
    http::{Malformed, Piece, Response},
    message::Message,
    process,
    schedule::Schedule,
};

/// How many bytes of messages one request fills a stream with, at most.
const PRELOAD_BODY: usize = 512 * 1024;
/// What an append may be late before it is counted, in nanoseconds.
const LATE: u64 = 1_000_000;

/// Something to ask of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    /// What all streams stand in.
    Prepare,
    Create {
        stream: usize,
    },
    /// Fills a stream, from the message with this number on.
    Preload {
        stream: usize,
        next: u64,
    },
    Append {
        stream: usize,
        message: Message,
    },
}

/// One connection and what it has to do.
pub(super) struct Writer {
    socket: Option<TcpStream>,
    response: Response,
    status: u16,
    /// Whether the connection can be kept after the answer.
    keep: bool,
    jobs: VecDeque<Job>,
    in_flight: Option<Job>,
    /// The request in flight, and how much of it was written.
    out: Vec<u8>,
    written: usize,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            socket: None,
            response: Response::new(),
            status: 0,
            keep: true,
            jobs: VecDeque::new(),
            in_flight: None,
            out: Vec::new(),
            written: 0,
        }
    }

    /// Takes bytes of an answer: its status, once it is whole.
    fn take(&mut self, mut input: &[u8]) -> Result<Option<u16>, Malformed> {
        if self.response.in_head() {
            let Some((status, keep_alive)) = self.response.head(&mut input, |head| (head.status, head.keep_alive))?
            else {
                return Ok(None);
            };
            self.status = status;
            self.keep = keep_alive;
        }
        loop {
            match self.response.body(&mut input)? {
                Piece::Body(_) => {}
                Piece::More => return Ok(None),
                Piece::End => return Ok(Some(self.status)),
            }
        }
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prepare => f.write_str("preparing the server"),
            Self::Create { stream } => write!(f, "creating stream {stream}"),
            Self::Preload { stream, next } => write!(f, "filling stream {stream} from message {next}"),
            Self::Append { stream, message } => write!(f, "appending message {} to stream {stream}", message.number),
        }
    }
}

impl Engine {
    /// Asks for what all streams stand in, if there is such a thing.
    pub(crate) fn prepare(&mut self) {
        self.queue(0, Job::Prepare);
    }

    /// Creates all streams.
    pub(crate) fn create(&mut self) {
        for stream in 0..self.setup.streams {
            self.queue(stream, Job::Create { stream });
        }
    }

    /// Fills all streams with what is to be there before the run.
    pub(crate) fn preload(&mut self) {
        let streams = if self.setup.preload > 0 { self.setup.streams } else { 0 };
        for stream in 0..streams {
            self.queue(stream, Job::Preload { stream, next: 0 });
        }
    }

    /// Appends one message to each stream, due now.
    pub(crate) fn publish(&mut self) {
        let now = process::now();
        for stream in 0..self.setup.streams {
            let message = self.figures.send(stream, now);
            self.queue(stream, Job::Append { stream, message });
        }
    }

    /// Appends from now on what this schedule says.
    pub(crate) fn follow(&mut self, schedule: Schedule) {
        self.schedule = Some(schedule);
    }

    /// Lets nothing be due any more.
    pub(crate) fn end_schedule(&mut self) {
        if let Some(schedule) = &mut self.schedule {
            schedule.stop(process::now());
        }
    }

    /// Whether every request of the writers has been answered.
    pub(crate) fn writers_idle(&self) -> bool {
        self.busy == 0
    }

    /// Sends what is due.
    pub(super) fn pump(&mut self, now: u64) {
        while let Some(due) = self.schedule.as_mut().and_then(|schedule| schedule.pop(now)) {
            let message = self.figures.send(due.stream, due.at);
            self.queue(due.stream, Job::Append { stream: due.stream, message });
        }
    }

    fn queue(&mut self, stream: usize, job: Job) {
        let writer = stream % self.writers.len();
        self.busy += 1;
        self.writers[writer].jobs.push_back(job);
        self.advance(writer);
    }

    /// Begins the next job of a writer that has none.
    fn advance(&mut self, index: usize) {
        while self.writers[index].in_flight.is_none() && !self.stopped {
            // Servers close idle connections, and one that was idle has not been looked at.
            self.read_answer(index);
            let Some(job) = self.writers[index].jobs.pop_front() else { return };
            let mut out = std::mem::take(&mut self.writers[index].out);
            out.clear();
            let needed = self.write_request(job, &mut out);
            let writer = &mut self.writers[index];
            writer.out = out;
            if !needed {
                self.busy -= 1;
                continue;
            }
            writer.written = 0;
            writer.response.reset();
            writer.in_flight = Some(job);
            if let Job::Append { message, .. } = job {
                self.tally.sent += 1;
                self.tally.late += u64::from(process::now().saturating_sub(message.at) > LATE);
            }
            self.flush(index);
        }
    }

    /// Appends a job's request to `out`. False: there is nothing to ask.
    fn write_request(&self, job: Job, out: &mut Vec<u8>) -> bool {
        let target = &self.setup.target;
        match job {
            Job::Prepare => target.write_prepare(out),
            Job::Create { stream } => target.write_create(out, stream),
            Job::Preload { stream, next } => {
                let at = self.preloaded_at;
                let messages: Vec<Message> =
                    (next..self.preload_end(next)).map(|number| Message { number, at }).collect();
                target.write_append(out, stream, &self.shapes[stream], messages.into_iter());
                true
            }
            Job::Append { stream, message } => {
                target.write_append(out, stream, &self.shapes[stream], [message].into_iter());
                true
            }
        }
    }

    /// The number behind the last message of a request that fills a stream.
    fn preload_end(&self, next: u64) -> u64 {
        let fitting = (PRELOAD_BODY / self.setup.preload_size).clamp(1, self.setup.target.adapter.batch());
        (next + fitting as u64).min(self.setup.preload)
    }

    /// Writes what is left of the request in flight, on a new connection if there is none.
    fn flush(&mut self, index: usize) {
        let writer = &mut self.writers[index];
        if writer.in_flight.is_none() {
            return;
        }
        let Some(socket) = &mut writer.socket else {
            let begun = connect(self.setup.target.address, None, None).and_then(|mut socket| {
                register(self.acks.registry(), &mut socket, index)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => writer.socket = Some(socket),
                Err(error) => self.give_up(index, &error.to_string()),
            }
            return;
        };
        while writer.written < writer.out.len() {
            match socket.write(&writer.out[writer.written..]) {
                Ok(length) => writer.written += length,
                // A connection that is not made yet says so when it is.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let text = error.to_string();
                    return self.broken(index, &text);
                }
            }
        }
    }

    pub(super) fn writer_ready(&mut self, index: usize, event: &Event) {
        if event.is_writable() {
            if let Some(socket) = &self.writers[index].socket
                && let Ok(Some(error)) = socket.take_error()
            {
                return self.broken(index, &error.to_string());
            }
            self.flush(index);
        }
        if event.is_readable() || event.is_read_closed() {
            self.read_answer(index);
        }
    }

    fn read_answer(&mut self, index: usize) {
        loop {
            let writer = &mut self.writers[index];
            let Some(socket) = &mut writer.socket else { return };
            match socket.read(&mut self.buffer) {
                Ok(0) => return self.broken(index, "the server closed the connection"),
                Ok(length) => {
                    match writer.take(&self.buffer[..length]) {
                        Ok(None) => {}
                        Ok(Some(status)) => {
                            if !writer.keep {
                                writer.socket = None;
                            }
                            self.answered_job(index, status);
                        }
                        Err(malformed) => return self.give_up(index, &malformed.to_string()),
                    }
                    if length < self.buffer.len() {
                        return;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let text = error.to_string();
                    return self.broken(index, &text);
                }
            }
        }
    }

    /// The connection is gone: no harm while nothing is in flight, as servers close idle ones.
    fn broken(&mut self, index: usize, why: &str) {
        self.writers[index].socket = None;
        if self.writers[index].in_flight.is_none() {
            return;
        }
        self.give_up(index, why);
    }

    fn answered_job(&mut self, index: usize, status: u16) {
        let Some(job) = self.writers[index].in_flight.take() else {
            return self.give_up(index, "an answer that was not asked for");
        };
        let accepted = match job {
            Job::Prepare | Job::Create { .. } => self.setup.target.created(status),
            Job::Preload { .. } | Job::Append { .. } => (200..300).contains(&status),
        };
        if !accepted {
            self.failures.add(|| format!("{job} was answered {status}"));
            self.stopped = true;
            return;
        }
        self.busy -= 1;
        match job {
            Job::Append { stream, message } => {
                self.tally.acked += 1;
                self.figures.acked(stream, message, process::now());
            }
            Job::Preload { stream, next } if self.preload_end(next) < self.setup.preload => {
                let next = self.preload_end(next);
                self.busy += 1;
                self.writers[index].jobs.push_front(Job::Preload { stream, next });
            }
            Job::Prepare | Job::Create { .. } | Job::Preload { .. } => {}
        }
        self.advance(index);
    }

    /// The run cannot go on: whether the job in flight took effect is not known.
    fn give_up(&mut self, index: usize, why: &str) {
        let job = self.writers[index].in_flight.take();
        self.failures.add(|| match job {
            Some(job) => format!("{job} failed: {why}"),
            None => format!("a writer failed: {why}"),
        });
        self.stopped = true;
    }
}
