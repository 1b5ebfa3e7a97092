//! Connections of those who read, or pretend to.

use std::{
    cmp::Reverse,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use mio::{event::Event, net::TcpStream};

use super::{Engine, READS, REPLAY_READS, connect, register, reset};
use crate::{
    adapter::{Ask, From, Mode},
    figures::Figures,
    message::Message,
    process,
    reader::{Fault, Reader, Sink, Step},
};

/// How long a reader waits after a refusal without `Retry-After`, or a connection that failed.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Follows its stream, and comes back when it is cut off.
    Live,
    /// Reads its stream from the first message to the tail, then leaves.
    Replay,
    /// Asks for events, and never reads them.
    Staller,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not connected; will be, if it is in one of the queues.
    Away,
    Connecting,
    Open,
    /// Never again.
    Done,
}

/// One reader and its connection.
pub(crate) struct Slot {
    pub(crate) role: Role,
    pub(crate) stream: usize,
    pub(crate) reader: Reader,
    socket: Option<TcpStream>,
    state: State,
    /// When the current connection, or a replayer's first, was begun.
    began: u64,
    /// Whether it has had the answer that makes it a reader.
    joined: bool,
    /// It counts among those that are joining.
    joining: bool,
    /// Its connection counts among those that have been begun and have no answer yet.
    counted: bool,
    /// It is among the replayers whose sockets may hold something.
    queued: bool,
    /// When the storm was that it is not back from.
    reset_at: Option<u64>,
    /// Something was wrong with it.
    pub(crate) failed: bool,
    /// When a replayer had all, or a staller's connection was ended by the server.
    pub(crate) finished: Option<u64>,
    /// A staller's own address.
    pub(crate) local: Option<SocketAddr>,
}

/// Where a reader's messages go.
struct Delivery<'a> {
    figures: &'a mut Figures,
    role: Role,
    stream: usize,
    preloaded: u64,
    preloaded_at: u64,
    now: u64,
}

impl Sink for Delivery<'_> {
    fn take(&mut self, message: Message) -> bool {
        if message.number < self.preloaded {
            return message.at == self.preloaded_at;
        }
        match self.role {
            Role::Live => self.figures.received(self.stream, message, self.now),
            // It comes to what was sent meanwhile when it has had the rest, which is no delay of the server's.
            Role::Replay | Role::Staller => self.figures.was_sent(self.stream, message),
        }
    }
}

impl Slot {
    /// Whether it has had the answer that makes it a reader, and goes on reading.
    pub(crate) fn is_joined(&self) -> bool {
        self.joined && self.state == State::Open
    }

    /// Whether it follows its stream and nothing is wrong with it.
    pub(crate) fn is_live(&self) -> bool {
        self.role == Role::Live && !self.failed && self.state != State::Done
    }

    /// Whether it will not read any more.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// When a replayer, or the current connection of another, began.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// What it asks the server for.
    fn ask(&self, mode: Mode, replay: Ask) -> Ask {
        match (self.role, mode) {
            (Role::Replay, _) => replay,
            (Role::Staller, _) | (Role::Live, Mode::Sse) => Ask::Events,
            // A poll at `now` says nothing until something comes, so the tail is asked for before.
            (Role::Live, Mode::LongPoll) if self.reader.place().0.offset().is_empty() => Ask::CatchUp,
            (Role::Live, Mode::LongPoll) => Ask::LongPoll,
        }
    }
}

impl Engine {
    /// Adds a reader of the stream whose turn it is, which connects in the turns that follow.
    pub(crate) fn join(&mut self, role: Role) {
        let index = self.slots.len();
        let stream = index % self.setup.streams;
        let first = match (role, self.setup.from) {
            (Role::Live, From::Now) => self.figures.next_number(stream),
            _ => 0,
        };
        self.slots.push(Slot {
            role,
            stream,
            reader: Reader::new(self.setup.target.adapter, first),
            socket: None,
            state: State::Away,
            began: 0,
            joined: false,
            joining: true,
            counted: false,
            queued: false,
            reset_at: None,
            failed: false,
            finished: None,
            local: None,
        });
        self.joining += 1;
        self.waiting.push_back(index);
    }

    /// Closes a reader's connection and opens another at once, at its offset.
    pub(crate) fn rejoin(&mut self, index: usize) {
        self.leave_connection(index);
        self.waiting.push_back(index);
    }

    /// Resets every live reader's connection and opens all of them again, without a window.
    pub(crate) fn storm(&mut self) {
        let now = process::now();
        for index in 0..self.slots.len() {
            if !self.slots[index].is_live() {
                continue;
            }
            if let Some(socket) = self.slots[index].socket.take() {
                reset(socket);
            }
            self.leave_connection(index);
            if self.slots[index].reset_at.replace(now).is_none() {
                self.away += 1;
            }
        }
        self.later.clear();
        self.waiting.clear();
        for index in 0..self.slots.len() {
            if self.slots[index].is_live() {
                self.begin(index, process::now());
            }
        }
    }

    /// Closes all readers for good.
    pub(crate) fn leave(&mut self) {
        self.later.clear();
        self.waiting.clear();
        for index in 0..self.slots.len() {
            self.retire(index);
        }
    }

    /// Whether every live reader has every message that was sent.
    pub(crate) fn all_caught_up(&self) -> bool {
        let live = self.slots.iter().filter(|slot| slot.is_live());
        live.into_iter().all(|slot| slot.reader.seen() == self.figures.next_number(slot.stream))
    }

    /// Tells of every live reader that lacks messages.
    pub(crate) fn tell_missing(&mut self) {
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.is_live()) {
            let (seen, wanted) = (slot.reader.seen(), self.figures.next_number(slot.stream));
            if seen != wanted {
                let stream = slot.stream;
                self.failures.add(|| {
                    format!(
                        "reader {index} of stream {stream}: missing at the end: expected {wanted} messages, got {seen}"
                    )
                });
            }
        }
    }

    pub(super) fn reconnect_due(&mut self, now: u64) {
        while let Some(Reverse((at, index))) = self.later.peek().copied() {
            if at > now {
                break;
            }
            self.later.pop();
            self.waiting.push_back(index);
        }
    }

    /// Begins connections as far as the window allows.
    pub(super) fn begin_connections(&mut self, now: u64) {
        let mut open = self.setup.window.saturating_sub(self.connecting);
        while open > 0
            && let Some(index) = self.waiting.pop_front()
        {
            if self.slots[index].state == State::Away {
                self.begin(index, now);
                open -= 1;
            }
        }
    }

    fn begin(&mut self, index: usize, now: u64) {
        let sources = &self.setup.sources;
        let source = (!sources.is_empty()).then(|| sources[index % sources.len()]);
        let slot = &mut self.slots[index];
        if slot.role != Role::Replay || slot.began == 0 {
            slot.began = now;
        }
        let buffer = (slot.role == Role::Staller).then_some(self.setup.staller_buffer);
        let begun = connect(self.setup.target.address, source, buffer).and_then(|mut socket| {
            register(self.poll.registry(), &mut socket, index)?;
            Ok(socket)
        });
        match begun {
            Ok(socket) => {
                slot.socket = Some(socket);
                slot.state = State::Connecting;
                slot.counted = true;
                self.connecting += 1;
            }
            Err(_) => self.lost(index),
        }
    }

    pub(super) fn reader_ready(&mut self, index: usize, event: &Event) {
        let slot = &mut self.slots[index];
        match (slot.state, slot.role) {
            (State::Connecting, _) if event.is_writable() || event.is_error() => self.connected(index),
            (State::Open, Role::Staller) if event.is_read_closed() || event.is_error() => {
                slot.finished = Some(process::now());
                self.retire(index);
            }
            (State::Open, Role::Live) => self.read(index, event.is_read_closed()),
            (State::Open, Role::Replay) if !slot.queued => {
                slot.queued = true;
                self.replays.push_back(index);
            }
            (State::Away | State::Connecting | State::Open | State::Done, _) => {}
        }
    }

    /// Reads replayers in turns, each until its socket has nothing more.
    pub(super) fn read_replays(&mut self) {
        for _ in 0..REPLAY_READS {
            let Some(index) = self.replays.pop_front() else { return };
            let slot = &mut self.slots[index];
            let Some(socket) = slot.socket.as_mut().filter(|_| slot.state == State::Open) else {
                slot.queued = false;
                continue;
            };
            let read = socket.read(&mut self.buffer);
            slot.queued = match &read {
                Ok(length) => *length > 0,
                Err(error) => error.kind() == ErrorKind::Interrupted,
            };
            if slot.queued {
                self.replays.push_back(index);
            }
            match read {
                Ok(0) => self.ended(index),
                Ok(length) => self.heard(index, length),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => self.ended(index),
            }
        }
    }

    fn connected(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(socket) = &slot.socket else { return };
        match socket.peer_addr() {
            // An event of this slot's last connection, in the same turn.
            Err(_) if matches!(socket.take_error(), Ok(None)) => return,
            Err(_) => return self.lost(index),
            Ok(_) => {}
        }
        slot.local = socket.local_addr().ok();
        if !self.send_request(index) {
            return;
        }
        let slot = &mut self.slots[index];
        slot.state = State::Open;
        if slot.role == Role::Staller {
            // It will never see its answer, so having asked is all there is.
            self.answered(index);
            self.greet(index);
        } else {
            self.read(index, false);
        }
    }

    /// Sends what the reader asks for. False: the connection is gone.
    fn send_request(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        let ask = slot.ask(self.setup.mode, self.setup.replay);
        // Whoever replays begins at the start, and so does a staller: it is to be sent something.
        let from = if slot.role == Role::Live { self.setup.from } else { From::Start };
        self.request.clear();
        self.setup.target.write_read(&mut self.request, slot.stream, ask, from, slot.reader.place());
        let written = slot.socket.as_mut().is_some_and(|socket| {
            // A request is smaller than any send buffer, so that a part of it is as good as none.
            socket.write(&self.request).is_ok_and(|length| length == self.request.len())
        });
        if !written {
            self.lost(index);
        }
        written
    }

    pub(super) fn read(&mut self, index: usize, closed: bool) {
        for _ in 0..READS {
            let slot = &mut self.slots[index];
            let Some(socket) = slot.socket.as_mut().filter(|_| slot.state == State::Open) else { return };
            match socket.read(&mut self.buffer) {
                Ok(0) => return self.ended(index),
                Ok(length) => {
                    self.heard(index, length);
                    // A read that does not fill the buffer has emptied the socket; the poller tells of what comes next.
                    if length < self.buffer.len() && !closed {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.ended(index),
            }
        }
        self.again.push(index);
    }

    /// Handles the bytes that were read into the buffer.
    fn heard(&mut self, index: usize, length: usize) {
        let now = process::now();
        let mut taken = 0;
        loop {
            let slot = &mut self.slots[index];
            let ask = slot.ask(self.setup.mode, self.setup.replay);
            let shape = &self.shapes[slot.stream];
            let mut sink = Delivery {
                figures: &mut self.figures,
                role: slot.role,
                stream: slot.stream,
                preloaded: shape.preloaded,
                preloaded_at: self.preloaded_at,
                now,
            };
            let mut input = &self.buffer[taken..length];
            let step = slot.reader.take(&mut input, ask, shape, &mut sink);
            taken = length - input.len();
            if slot.reader.accepted && slot.joining && ask != Ask::CatchUp {
                self.greet(index);
            }
            self.note_return(index, now);
            match step {
                Err(fault) => return self.fault(index, &fault),
                Ok(Step::Refused { status, retry_after }) => return self.refused(index, status, retry_after),
                Ok(Step::Reading) => break,
                Ok(Step::Complete { keep_alive }) => {
                    if !self.completed(index, ask, keep_alive) {
                        return;
                    }
                }
            }
        }
        let slot = &self.slots[index];
        if slot.role == Role::Replay && self.setup.replay == Ask::Events && slot.reader.seen() >= self.setup.preload {
            self.replayed(index, now);
        }
    }

    /// An answer is whole. Whether there may be another on this connection.
    fn completed(&mut self, index: usize, ask: Ask, keep_alive: bool) -> bool {
        if self.slots[index].joining {
            self.greet(index);
        }
        let slot = &mut self.slots[index];
        if ask == Ask::Events {
            self.tally.rotations += 1;
            self.come_back_when_told(index);
            return false;
        }
        if slot.role == Role::Replay && slot.reader.up_to_date() {
            if slot.reader.seen() < self.setup.preload {
                let fault = format!("up to date after {} of {} messages", slot.reader.seen(), self.setup.preload);
                self.fault(index, &Fault::Told(fault));
            } else {
                self.replayed(index, process::now());
            }
            return false;
        }
        if !keep_alive {
            self.rejoin(index);
            return false;
        }
        slot.reader.begin_answer();
        self.send_request(index)
    }

    /// The server, or the network, has ended the connection.
    fn ended(&mut self, index: usize) {
        let slot = &self.slots[index];
        if !slot.reader.accepted && slot.reader.heard() == 0 {
            return self.lost(index);
        }
        if slot.reader.end_of_connection() {
            self.tally.rotations += 1;
        } else {
            self.tally.cut += 1;
        }
        self.come_back_when_told(index);
    }

    /// The connection was never one, or gave no answer.
    fn lost(&mut self, index: usize) {
        self.tally.connect_errors += 1;
        self.come_back(index, AFTER_REFUSAL);
    }

    fn refused(&mut self, index: usize, status: u16, retry_after: Option<u32>) {
        *self.tally.refusals.entry(status).or_default() += 1;
        let wait = retry_after.map_or(AFTER_REFUSAL, |seconds| Duration::from_secs(u64::from(seconds)));
        self.come_back(index, wait);
    }

    fn come_back_when_told(&mut self, index: usize) {
        let retry = self.slots[index].reader.retry();
        let wait = retry.map_or(self.setup.retry, |milliseconds| Duration::from_millis(u64::from(milliseconds)));
        if wait.is_zero() {
            self.rejoin(index);
        } else {
            self.come_back_after(index, wait);
        }
    }

    /// Comes back after a while that is different for each reader.
    fn come_back(&mut self, index: usize, wait: Duration) {
        let spread = wait.mul_f64((index % 97) as f64 / 194.0);
        self.come_back_after(index, wait + spread);
    }

    fn come_back_after(&mut self, index: usize, wait: Duration) {
        self.leave_connection(index);
        self.later.push(Reverse((process::now() + wait.as_nanos() as u64, index)));
    }

    /// The reader is one, as of now.
    fn greet(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.joined = true;
        if std::mem::take(&mut slot.joining) {
            self.joining -= 1;
            self.connect.record(slot.began, process::now());
        }
    }

    /// Notes the first event or answer after a storm, and the end of a connection's beginning.
    fn note_return(&mut self, index: usize, now: u64) {
        let slot = &mut self.slots[index];
        if slot.reader.heard() > 0
            && let Some(reset_at) = slot.reset_at.take()
        {
            self.away -= 1;
            self.back.record(reset_at, now);
        }
        if slot.reader.accepted {
            self.answered(index);
        }
    }

    /// The connection has its answer, and makes room in the window.
    fn answered(&mut self, index: usize) {
        if std::mem::take(&mut self.slots[index].counted) {
            self.connecting -= 1;
        }
    }

    fn replayed(&mut self, index: usize, now: u64) {
        self.slots[index].finished = Some(now);
        self.retire(index);
    }

    fn fault(&mut self, index: usize, fault: &Fault) {
        let slot = &mut self.slots[index];
        slot.failed = true;
        let stream = slot.stream;
        let who = match slot.role {
            Role::Live => "reader",
            Role::Replay => "replayer",
            Role::Staller => "staller",
        };
        self.failures.add(|| format!("{who} {index} of stream {stream}: {fault}"));
        self.retire(index);
    }

    /// Ends a reader for good.
    fn retire(&mut self, index: usize) {
        self.leave_connection(index);
        let slot = &mut self.slots[index];
        slot.state = State::Done;
        if std::mem::take(&mut slot.joining) {
            self.joining -= 1;
        }
        if slot.reset_at.take().is_some() {
            self.away -= 1;
        }
    }

    /// Closes a reader's connection.
    fn leave_connection(&mut self, index: usize) {
        self.answered(index);
        let slot = &mut self.slots[index];
        slot.socket = None;
        slot.reader.disconnect();
        if slot.state != State::Done {
            slot.state = State::Away;
        }
    }
}
