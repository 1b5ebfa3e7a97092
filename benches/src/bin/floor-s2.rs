//! `floor-s2 LISTEN STORE`: the floor of whoever stands in front of S2.
//!
//! The deliveries of `fanbench floor`, and S2's client library as the gateway uses it: an append is one unary request, whose
//! ack answers the writer, and a read session for each stream brings the record back. All on one thread, with no log, no
//! offsets but numbers, no catch-up, no limits, and no HTTP library. What it takes is what S2 takes of every gateway.
//!
//! It takes well-formed requests of `fanbench run` for live events, and is no server for anything else.

use std::{cell::RefCell, collections::HashMap, io::Write as _, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use prometheus::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tailwater_benches::direct::Direct;
use tailwater_log::NewRecord;
use tailwater_s2::S2Upstream;
use tailwater_upstream::{Append, ReadSession, SessionEvent, StreamKey, Upstream as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
    time::sleep,
};

/// The gateway's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PROJECT: &str = "floor";
/// What is in a stream before it is followed.
const FIRST: &[u8] = b"{}";
/// Between two tries to accept.
const PAUSE: Duration = Duration::from_millis(50);

struct House {
    upstream: S2Upstream,
    streams: RefCell<HashMap<String, Rc<Stream>>>,
}

struct Stream {
    key: StreamKey,
    readers: RefCell<Vec<std::net::TcpStream>>,
}

/// One request.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    path: String,
    body: Bytes,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, store] = arguments.as_slice() else { anyhow::bail!("usage: floor-s2 LISTEN STORE") };
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(listen.parse()?, store))
}

async fn serve(listen: SocketAddr, store: &str) -> anyhow::Result<()> {
    let upstream = Direct::at(store)?.upstream(&Registry::new())?;
    let house = Rc::new(House { upstream, streams: RefCell::default() });
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        socket.set_nodelay(true)?;
        // Whoever is not understood is not answered, and the load says that it failed.
        spawn_local(converse(Rc::clone(&house), socket));
    }
}

async fn converse(house: Rc<House>, mut socket: TcpStream) -> anyhow::Result<()> {
    let mut bytes = BytesMut::new();
    loop {
        let Some(request) = take_request(&mut bytes)? else {
            if socket.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let stream = house.stream(&request.path).await?;
        match request.method.as_str() {
            "PUT" => socket.write_all(&answer("201 Created", 0)).await?,
            "POST" => {
                let append = Append::new(vec![NewRecord::message(request.body)]);
                let ack = house.upstream.append(&stream.key, append).await?;
                socket.write_all(&answer("204 No Content", ack.start.seq)).await?;
            }
            "GET" => {
                socket.write_all(&[HEAD, &chunk(&control(0))].concat()).await?;
                stream.readers.borrow_mut().push(socket.into_std()?);
                return Ok(());
            }
            method => anyhow::bail!("{method} is not for here"),
        }
    }
}

impl House {
    /// A stream, which is made and followed from when it is first asked for.
    async fn stream(&self, path: &str) -> anyhow::Result<Rc<Stream>> {
        let known = self.streams.borrow().get(path).cloned();
        if let Some(stream) = known {
            return Ok(stream);
        }
        let stream =
            Rc::new(Stream { key: StreamKey::new(PROJECT, path.trim_matches('/')), readers: RefCell::default() });
        self.streams.borrow_mut().insert(path.to_owned(), Rc::clone(&stream));
        self.upstream.append(&stream.key, Append::new(vec![NewRecord::message(Bytes::from_static(FIRST))])).await?;
        let session = self.upstream.read_session(&stream.key, 1).await?;
        spawn_local(Rc::clone(&stream).follow(session));
        Ok(stream)
    }
}

impl Stream {
    async fn follow(self: Rc<Self>, mut session: ReadSession) {
        while let Some(Ok(event)) = session.next().await {
            let SessionEvent::Records(records) = event else { continue };
            for record in records {
                self.deliver(&frame(&record.body, record.seq));
            }
        }
    }

    /// One write for each reader; who does not take a frame whole is dropped, and the load says that it failed.
    fn deliver(&self, frame: &[u8]) {
        self.readers.borrow_mut().retain_mut(|socket| socket.write(frame).is_ok_and(|length| length == frame.len()));
    }
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
    transfer-encoding: chunked\r\n\r\n";

fn answer(status: &str, next: u64) -> Vec<u8> {
    let length = if status.starts_with("204") { "" } else { "Content-Length: 0\r\n" };
    format!("HTTP/1.1 {status}\r\nStream-Next-Offset: {next:016}\r\n{length}\r\n").into_bytes()
}

fn control(next: u64) -> String {
    format!(
        "id: {next:016}\nevent: control\ndata:{{\"streamNextOffset\":\"{next:016}\",\"streamCursor\":\"3339878\",\
         \"upToDate\":true}}\n\n"
    )
}

/// A message as the floor sends it: its data event and its control event, in one chunk.
fn frame(body: &[u8], next: u64) -> Vec<u8> {
    let message = String::from_utf8_lossy(body);
    chunk(&format!("id: {next:016}\nevent: data\ndata:[{message}]\n\n{}", control(next)))
}

fn chunk(events: &str) -> Vec<u8> {
    format!("{:X}\r\n{events}\r\n", events.len()).into_bytes()
}

/// Takes the request at the start of `bytes`, if it is there whole.
fn take_request(bytes: &mut BytesMut) -> anyhow::Result<Option<Request>> {
    let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head])?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { anyhow::bail!("no request") };
    let path = target.split('?').next().unwrap_or_default();
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())?;
    ensure!(method != "GET" || target.contains("live=sse"), "only live events are here");
    let (method, path) = (method.to_owned(), path.to_owned());
    if bytes.len() < head + 4 + length {
        return Ok(None);
    }
    bytes.advance(head + 4);
    Ok(Some(Request { method, path, body: bytes.split_to(length).freeze() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_once_it_is_whole() {
        let whole = b"POST /a/b?x=1 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        for end in 0..whole.len() {
            let mut bytes = BytesMut::from(&whole[..end]);
            assert_eq!(take_request(&mut bytes).unwrap_or(None), None, "ends at {end}");
        }
        let mut bytes = BytesMut::from(&[whole.as_slice(), b"GET"].concat()[..]);
        let request = take_request(&mut bytes).expect("it is one").expect("it is whole");
        let wanted = Request { method: "POST".to_owned(), path: "/a/b".to_owned(), body: Bytes::from_static(b"abc") };
        assert_eq!((request, &bytes[..]), (wanted, b"GET".as_slice()));
    }
}
