//! What the floor keeps: one frame for each append, ready to be written.

use std::{collections::HashMap, collections::VecDeque, io::Write as _};

/// A page of catch-up holds about this much, in bytes.
const PAGE: usize = 1024 * 1024;

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    numbers: HashMap<String, usize>,
    all: Vec<Stream>,
    /// The most that a stream keeps, in bytes.
    history: usize,
}

/// The frames of one stream.
#[derive(Debug, Default)]
struct Stream {
    frames: VecDeque<Frame>,
    /// How many were forgotten.
    forgotten: usize,
    bytes: usize,
}

/// One append, as a chunk of a response with events.
#[derive(Debug)]
struct Frame {
    chunk: Box<[u8]>,
    /// Where the messages stand in the chunk, without the brackets around them.
    messages: (usize, usize),
}

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At the frame with this number.
    At(usize),
    Tail,
}

/// The frames that were asked for are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing;

impl Streams {
    pub(super) fn new(history: usize) -> Self {
        Self { numbers: HashMap::new(), all: Vec::new(), history }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn create(&mut self, path: &str) {
        let next = self.all.len();
        if *self.numbers.entry(path.to_owned()).or_insert(next) == next {
            self.all.push(Stream::default());
        }
    }

    pub(super) fn find(&self, path: &str) -> Option<usize> {
        self.numbers.get(path).copied()
    }

    /// The offset behind the newest frame.
    pub(super) fn tail(&self, stream: usize) -> usize {
        self.all[stream].tail()
    }

    pub(super) fn is_at_tail(&self, stream: usize, start: Start) -> bool {
        start == Start::Tail || start == Start::At(self.tail(stream))
    }

    /// Adds a frame with the messages of a body: one message, or an array of them.
    pub(super) fn append(&mut self, stream: usize, body: &[u8]) {
        let messages = body.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(body);
        let stream = &mut self.all[stream];
        let frame = Frame::new(messages, stream.tail() + 1);
        stream.bytes += frame.chunk.len();
        stream.frames.push_back(frame);
        while stream.bytes > self.history && stream.frames.len() > 1 {
            let oldest = stream.frames.pop_front().expect("there are frames");
            stream.bytes -= oldest.chunk.len();
            stream.forgotten += 1;
        }
    }

    /// The newest frame, as a chunk.
    pub(super) fn newest(&self, stream: usize) -> &[u8] {
        self.all[stream].frames.back().map_or(&[], |frame| &frame.chunk)
    }

    /// The beginning of a response with events: its head, the frames there are, or where the reader stands.
    pub(super) fn write_events(&self, stream: usize, start: Start, out: &mut Vec<u8>) -> Result<(), Missing> {
        let mut frames = self.all[stream].from(start)?.peekable();
        out.extend_from_slice(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
            transfer-encoding: chunked\r\n\r\n",
        );
        if frames.peek().is_none() {
            let mut event = Vec::new();
            write_control(&mut event, self.tail(stream));
            write_chunk(out, &event);
        }
        frames.for_each(|frame| out.extend_from_slice(&frame.chunk));
        Ok(())
    }

    /// A response with the messages from `start` on, up to a page of them.
    pub(super) fn write_page(&self, stream: usize, start: Start, out: &mut Vec<u8>) -> Result<(), Missing> {
        let mut body = vec![b'['];
        let mut next = match start {
            Start::At(offset) => offset,
            Start::Tail => self.tail(stream),
        };
        for frame in self.all[stream].from(start)? {
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(&frame.chunk[frame.messages.0..frame.messages.1]);
            next += 1;
            if body.len() >= PAGE {
                break;
            }
        }
        body.push(b']');
        let up_to_date = if next == self.tail(stream) { "Stream-Up-To-Date: true\r\n" } else { "" };
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nStream-Next-Offset: {next:016}\r\n{up_to_date}\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .expect("a vector takes everything");
        out.append(&mut body);
        Ok(())
    }
}

impl Stream {
    fn tail(&self) -> usize {
        self.forgotten + self.frames.len()
    }

    fn from(&self, start: Start) -> Result<impl Iterator<Item = &Frame>, Missing> {
        let offset = match start {
            Start::At(offset) => offset,
            Start::Tail => self.tail(),
        };
        let first = offset.checked_sub(self.forgotten).filter(|first| *first <= self.frames.len()).ok_or(Missing)?;
        Ok(self.frames.range(first..))
    }
}

impl Frame {
    /// The frame of messages behind which the offset is `next`.
    fn new(messages: &[u8], next: usize) -> Self {
        let mut event = format!("id: {next:016}\nevent: data\ndata:[").into_bytes();
        let begin = event.len();
        event.extend_from_slice(messages);
        let end = event.len();
        event.extend_from_slice(b"]\n\n");
        write_control(&mut event, next);
        let mut chunk = Vec::with_capacity(event.len() + 16);
        let size = write_chunk(&mut chunk, &event);
        Self { chunk: chunk.into_boxed_slice(), messages: (size + begin, size + end) }
    }
}

fn write_control(out: &mut Vec<u8>, next: usize) {
    write!(
        out,
        "id: {next:016}\nevent: control\ndata:{{\"streamNextOffset\":\"{next:016}\",\"streamCursor\":\"3339878\",\
         \"upToDate\":true}}\n\n"
    )
    .expect("a vector takes everything");
}

/// Appends a chunk; says how long the line with its size is.
fn write_chunk(out: &mut Vec<u8>, bytes: &[u8]) -> usize {
    let begin = out.len();
    write!(out, "{:X}\r\n", bytes.len()).expect("a vector takes everything");
    let size = out.len() - begin;
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(history: usize) -> Streams {
        let mut streams = Streams::new(history);
        streams.create("/a");
        streams.append(0, b"{\"n\":0}");
        streams.append(0, b"[{\"n\":1},{\"n\":2}]");
        streams
    }

    fn page(streams: &Streams, start: Start) -> String {
        let mut out = Vec::new();
        streams.write_page(0, start, &mut out).expect("the frames are there");
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn a_frame_is_one_chunk_with_its_messages_and_where_they_end() {
        let frames = streams(1000);
        let expected = "id: 0000000000000002\nevent: data\ndata:[{\"n\":1},{\"n\":2}]\n\nid: 0000000000000002\n\
            event: control\ndata:{\"streamNextOffset\":\"0000000000000002\",\"streamCursor\":\"3339878\",\
            \"upToDate\":true}\n\n";
        let chunk = format!("{:X}\r\n{expected}\r\n", expected.len());
        assert_eq!(frames.newest(0), chunk.as_bytes());
    }

    #[test]
    fn a_page_goes_on_where_the_last_one_ended() {
        let streams = streams(1000);
        assert!(page(&streams, Start::At(0)).ends_with("\r\n\r\n[{\"n\":0},{\"n\":1},{\"n\":2}]"));
        let rest = page(&streams, Start::At(1));
        assert!(rest.ends_with("[{\"n\":1},{\"n\":2}]") && rest.contains("Stream-Up-To-Date: true"));
        assert!(page(&streams, Start::Tail).ends_with("[]"));
    }

    #[test]
    fn what_was_forgotten_or_is_not_there_yet_is_missing() {
        let streams = streams(1);
        assert_eq!((streams.tail(0), streams.all[0].frames.len()), (2, 1));
        for offset in [0, 3] {
            assert_eq!(streams.write_page(0, Start::At(offset), &mut Vec::new()), Err(Missing));
            assert_eq!(streams.write_events(0, Start::At(offset), &mut Vec::new()), Err(Missing));
        }
        assert!(streams.write_events(0, Start::At(1), &mut Vec::new()).is_ok());
    }
}
