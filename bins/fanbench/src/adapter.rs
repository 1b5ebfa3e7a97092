//! What a server is asked, and in which form it answers: one adapter for each kind of server.
//!
//! - `durable-streams`: the Durable Streams protocol, sections 5.1 (create), 5.2 (append), 5.6 to 5.8 (reads).
//! - `ursula`: the same, but JSON streams are read as lines (`application/x-ndjson`).
//! - `nchan`: nginx with nchan, locations `/pub` and `/sub`, its channel in the parameter `id`.
//! - `s2`: S2's own REST API, version 1.

use std::{
    io::Write as _,
    net::{SocketAddr, ToSocketAddrs as _},
};

use anyhow::{Context as _, Result};

use crate::{
    message::{Grammar, Message, Shape},
    position::Position,
    sse::Pieces,
};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Adapter {
    /// A server of the Durable Streams protocol
    DurableStreams,
    /// nginx with nchan; its configuration says where readers without an id begin
    Nchan,
    /// S2, or s2-lite, without anything in front
    S2,
    /// The built-in floor server; the same as durable-streams
    Floor,
    /// Ursula: as durable-streams, but messages stand in lines instead of JSON arrays
    Ursula,
}

/// How readers follow a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Server-Sent Events
    Sse,
    /// Long-polls on kept connections
    LongPoll,
}

/// Where a reader without an offset begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum From {
    /// Behind what is there
    Now,
    /// At the first message
    Start,
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Everything from its position on, as events, for ever.
    Events,
    /// What comes after its position, once there is something.
    LongPoll,
    /// What there is after its position, now.
    CatchUp,
}

/// What an event of a given name holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Messages,
    /// A Durable Streams control event.
    Control,
    Nothing,
    /// The server says why it ends.
    Failure,
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Where to connect.
    pub(crate) socket: SocketAddr,
    /// The `Host` header.
    pub(crate) host: String,
    /// With the slash that it begins with, unless it is empty.
    pub(crate) path: String,
}

/// The server under load, and the streams of this run on it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) adapter: Adapter,
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// The `Host` header.
    pub(crate) host: String,
    /// The path of the URL, without a slash at its end.
    pub(crate) prefix: String,
    /// What the names of this run's streams begin with.
    pub(crate) run: String,
    /// S2's basin.
    pub(crate) basin: String,
    /// The bearer token, if any.
    pub(crate) token: Option<String>,
}

impl Address {
    /// Takes a URL apart, and looks its host up.
    pub(crate) fn of(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("a URL begins with http://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let mut addresses = with_port.to_socket_addrs().with_context(|| format!("no such host: {host}"))?;
        let socket = addresses.next().with_context(|| format!("{host} has no address"))?;
        Ok(Self { socket, host: host.to_owned(), path: path.to_owned() })
    }
}

impl Adapter {
    /// Whether the adapter can do this; if not, why.
    pub(crate) fn refuses(self, ask: Ask) -> Option<&'static str> {
        match (self, ask) {
            (Self::Nchan, Ask::LongPoll | Ask::CatchUp) => Some("the nchan adapter reads Server-Sent Events only"),
            (Self::S2, Ask::LongPoll | Ask::CatchUp) => Some("the s2 adapter reads Server-Sent Events only"),
            _ => None,
        }
    }

    /// What stands in an answer to `ask`.
    pub(crate) fn grammar(self) -> Grammar {
        match self {
            Self::DurableStreams | Self::Floor => Grammar::Array,
            Self::Ursula => Grammar::Lines,
            Self::Nchan => Grammar::Single,
            Self::S2 => Grammar::Records,
        }
    }

    /// What an event without a name holds.
    pub(crate) fn unnamed(self) -> (Holds, Pieces) {
        match self {
            Self::Nchan => (Holds::Messages, Pieces::Allowed),
            Self::DurableStreams | Self::Floor | Self::Ursula | Self::S2 => (Holds::Nothing, Pieces::WholeLines),
        }
    }

    /// What an event of that name holds.
    pub(crate) fn named(self, name: &[u8]) -> (Holds, Pieces) {
        match (self, name) {
            (Self::DurableStreams | Self::Floor | Self::Ursula, b"data") | (Self::S2, b"batch") => {
                (Holds::Messages, Pieces::Allowed)
            }
            (Self::DurableStreams | Self::Floor | Self::Ursula, b"control") => (Holds::Control, Pieces::WholeLines),
            (Self::DurableStreams | Self::Floor | Self::Ursula, b"reset" | b"unauthorized") | (Self::S2, b"error") => {
                (Holds::Failure, Pieces::WholeLines)
            }
            (Self::Nchan, b"message") => (Holds::Messages, Pieces::Allowed),
            _ => (Holds::Nothing, Pieces::WholeLines),
        }
    }

    /// How many messages one append can carry.
    pub(crate) fn batch(self) -> usize {
        match self {
            Self::DurableStreams | Self::Floor | Self::Ursula | Self::S2 => 500,
            Self::Nchan => 1,
        }
    }
}

impl Target {
    /// The requests that make what the streams of a run stand in, before any stream.
    pub(crate) fn write_prepare(&self, out: &mut Vec<u8>) -> bool {
        if self.adapter != Adapter::S2 {
            return false;
        }
        let body = serde_json::json!({ "basin": self.basin }).to_string();
        self.post(out, "/v1/basins", body.as_bytes());
        true
    }

    /// The request that makes a stream; nothing where an append makes it.
    pub(crate) fn write_create(&self, out: &mut Vec<u8>, stream: usize) -> bool {
        match self.adapter {
            Adapter::Nchan => return false,
            Adapter::S2 => {
                let body = serde_json::json!({ "stream": self.name(stream) }).to_string();
                self.post(out, "/v1/streams", body.as_bytes());
            }
            Adapter::DurableStreams | Adapter::Floor | Adapter::Ursula => {
                self.head(out, "PUT", &format!("/{}", self.name(stream)));
                out.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: 0\r\n\r\n");
            }
        }
        true
    }

    /// Whether this status says that a stream, or what it stands in, is there.
    pub(crate) fn created(&self, status: u16) -> bool {
        (200..300).contains(&status) || (self.adapter == Adapter::S2 && status == 409)
    }

    /// The request that appends messages to a stream.
    pub(crate) fn write_append(
        &self,
        out: &mut Vec<u8>,
        stream: usize,
        shape: &Shape,
        messages: impl ExactSizeIterator<Item = Message>,
    ) {
        let mut body = Vec::with_capacity(256);
        let single = messages.len() == 1;
        for (index, message) in messages.enumerate() {
            let mut text = Vec::new();
            shape.write(&mut text, message);
            body.extend_from_slice(if index == 0 { b"" } else { b"," });
            if self.adapter == Adapter::S2 {
                let text = String::from_utf8(text).expect("messages are ASCII");
                let record = serde_json::json!({ "body": text }).to_string();
                body.extend_from_slice(record.as_bytes());
            } else {
                body.append(&mut text);
            }
        }
        let (path, body) = match self.adapter {
            Adapter::DurableStreams | Adapter::Floor | Adapter::Ursula if single => {
                (format!("/{}", self.name(stream)), body)
            }
            Adapter::DurableStreams | Adapter::Floor | Adapter::Ursula => {
                (format!("/{}", self.name(stream)), [b"[", body.as_slice(), b"]"].concat())
            }
            Adapter::Nchan => (format!("/pub?id={}", self.name(stream)), body),
            Adapter::S2 => (
                format!("/v1/streams/{}/records", self.name(stream)),
                [br#"{"records":["#, body.as_slice(), b"]}"].concat(),
            ),
        };
        self.post(out, &path, &body);
    }

    /// The request with which a reader goes on at its position, or begins at `from`.
    pub(crate) fn write_read(
        &self,
        out: &mut Vec<u8>,
        stream: usize,
        ask: Ask,
        from: From,
        (position, cursor): (&Position, &[u8]),
    ) {
        let offset = position.offset();
        match self.adapter {
            Adapter::DurableStreams | Adapter::Floor | Adapter::Ursula => {
                let mut path = format!("/{}?offset=", self.name(stream)).into_bytes();
                match (offset, from) {
                    (b"", From::Now) => path.extend_from_slice(b"now"),
                    (b"", From::Start) => path.extend_from_slice(b"-1"),
                    _ => escape(&mut path, offset),
                }
                path.extend_from_slice(match ask {
                    Ask::Events => b"&live=sse",
                    Ask::LongPoll => b"&live=long-poll",
                    Ask::CatchUp => b"",
                });
                if !cursor.is_empty() && ask != Ask::CatchUp {
                    path.extend_from_slice(b"&cursor=");
                    escape(&mut path, cursor);
                }
                self.head(out, "GET", &String::from_utf8_lossy(&path));
            }
            Adapter::Nchan => {
                self.head(out, "GET", &format!("/sub?id={}", self.name(stream)));
                out.extend_from_slice(b"Accept: text/event-stream\r\n");
                if !offset.is_empty() {
                    out.extend_from_slice(b"Last-Event-ID: ");
                    out.extend_from_slice(offset);
                    out.extend_from_slice(b"\r\n");
                }
            }
            Adapter::S2 => {
                let start = match (s2_next(offset), from) {
                    (Some(next), _) => format!("seq_num={next}"),
                    (None, From::Now) => "tail_offset=0".to_owned(),
                    (None, From::Start) => "seq_num=0".to_owned(),
                };
                self.head(out, "GET", &format!("/v1/streams/{}/records?{start}", self.name(stream)));
                out.extend_from_slice(b"Accept: text/event-stream\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The name of a stream.
    fn name(&self, stream: usize) -> String {
        format!("{}-{stream}", self.run)
    }

    fn post(&self, out: &mut Vec<u8>, path: &str, body: &[u8]) {
        self.head(out, "POST", path);
        write!(out, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())
            .expect("a vector takes everything");
        out.extend_from_slice(body);
    }

    fn head(&self, out: &mut Vec<u8>, method: &str, path: &str) {
        let Self { prefix, host, .. } = self;
        write!(out, "{method} {prefix}{path} HTTP/1.1\r\nHost: {host}\r\n").expect("a vector takes everything");
        if self.adapter == Adapter::S2 {
            write!(out, "S2-Basin: {}\r\n", self.basin).expect("a vector takes everything");
        }
        if let Some(token) = &self.token {
            write!(out, "Authorization: Bearer {token}\r\n").expect("a vector takes everything");
        }
    }
}

/// The sequence number behind an event of S2, whose id begins with the last one in it.
fn s2_next(id: &[u8]) -> Option<u64> {
    let last = id.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(last).ok()?.parse::<u64>().ok().map(|last| last + 1)
}

/// Percent-encodes what may not stand in a query (RFC 3986, section 2.3).
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            write!(out, "%{byte:02X}").expect("a vector takes everything");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(adapter: Adapter) -> Target {
        Target {
            adapter,
            address: SocketAddr::from(([127, 0, 0, 1], 80)),
            host: "h:80".to_owned(),
            prefix: "/p".to_owned(),
            run: "r".to_owned(),
            basin: "a-basin".to_owned(),
            token: None,
        }
    }

    fn first_line(adapter: Adapter, ask: Ask, from: From, offset: &[u8], cursor: &[u8]) -> String {
        let mut position = Position::at(0);
        position.commit(offset);
        let mut out = Vec::new();
        target(adapter).write_read(&mut out, 2, ask, from, (&position, cursor));
        let text = String::from_utf8(out).expect("ascii");
        assert!(text.ends_with("\r\n\r\n"));
        text.lines().next().expect("a request has a line").to_owned()
    }

    #[test]
    fn a_reader_without_an_offset_asks_for_now_or_the_start() {
        let line = |adapter, from| first_line(adapter, Ask::Events, from, b"", b"");
        assert_eq!(line(Adapter::Floor, From::Now), "GET /p/r-2?offset=now&live=sse HTTP/1.1");
        assert_eq!(line(Adapter::DurableStreams, From::Start), "GET /p/r-2?offset=-1&live=sse HTTP/1.1");
        assert_eq!(line(Adapter::S2, From::Now), "GET /p/v1/streams/r-2/records?tail_offset=0 HTTP/1.1");
        assert_eq!(line(Adapter::S2, From::Start), "GET /p/v1/streams/r-2/records?seq_num=0 HTTP/1.1");
        assert_eq!(line(Adapter::Nchan, From::Now), "GET /p/sub?id=r-2 HTTP/1.1");
    }

    #[test]
    fn a_reader_with_an_offset_goes_on_from_it() {
        let line = |adapter, ask, offset: &[u8]| first_line(adapter, ask, From::Now, offset, b"9");
        assert_eq!(
            line(Adapter::Floor, Ask::LongPoll, b"1_2:3"),
            "GET /p/r-2?offset=1_2%3A3&live=long-poll&cursor=9 HTTP/1.1"
        );
        assert_eq!(line(Adapter::Floor, Ask::CatchUp, b"1_2"), "GET /p/r-2?offset=1_2 HTTP/1.1");
        assert_eq!(line(Adapter::S2, Ask::Events, b"41,3,99"), "GET /p/v1/streams/r-2/records?seq_num=42 HTTP/1.1");
    }

    #[test]
    fn an_append_is_what_the_server_takes() {
        let shape = Shape::new("r", 2, 96, 0, 96);
        let body = |adapter, count: u64| {
            let mut out = Vec::new();
            let messages: Vec<Message> = (0..count).map(|number| Message { number, at: 5 }).collect();
            target(adapter).write_append(&mut out, 2, &shape, messages.into_iter());
            let text = String::from_utf8(out).expect("ascii");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            serde_json::from_str::<serde_json::Value>(body).expect("the body is JSON")
        };
        assert_eq!(body(Adapter::Floor, 1)["n"], 0);
        assert_eq!(body(Adapter::DurableStreams, 2)[1]["n"], 1);
        assert_eq!(body(Adapter::Nchan, 1)["at"], 5);
        let records = body(Adapter::S2, 2);
        assert!(records["records"][1]["body"].as_str().expect("text").starts_with(r#"{"n":1,"at":5,"pad":"r.2."#));
    }
}
