//! The heads of live responses. Two gateways stand on one store, with the same clock and the same chance: of one, live
//! responses leave the HTTP library for a delivery shard; of the other they stay. Both are asked the same, byte by byte, and
//! answer the same, but for the date and for the order of fields with different names, which says nothing (RFC 9110, section
//! 5.3).

mod open;
mod parked;
mod shared;

use std::net::SocketAddr;

use tailwater_server::{Config, Server};
use tailwater_testkit::{ScriptedUpstream, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fixture::{Fixture, NOW_MS},
    wire::{LIMIT, counted, request, serve},
};

/// The two gateways.
struct Both {
    store: ScriptedUpstream,
    stays: Pod,
    leaves: Pod,
}

struct Pod {
    fixture: Fixture,
    /// Until it is shut down.
    server: Option<Server>,
    address: SocketAddr,
}

/// What both were asked, and the connections on which they answer.
struct Asked {
    head: String,
    stays: BufReader<TcpStream>,
    leaves: BufReader<TcpStream>,
}

/// What a client sees of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    /// The first line, and the fields in the order of their names without the date.
    head: Vec<String>,
    /// Nothing, where it has no length.
    body: Option<String>,
}

impl Both {
    async fn with(config: Config, fanout: tailwater_fanout::Config) -> Self {
        let store = ScriptedUpstream::new(Settings { start_ms: NOW_MS, ..Settings::default() });
        let pod = async |delivery_shards| {
            let config = Config { delivery_shards, ..config.clone() };
            let fixture = Fixture::on(store.clone(), config, fanout.clone());
            let (server, address) = serve(&fixture).await;
            Pod { fixture, server: Some(server), address }
        };
        Self { stays: pod(0).await, leaves: pod(1).await, store }
    }

    /// Asks both; the head comes without its end.
    async fn ask(&self, head: String) -> Asked {
        let at = async |pod: &Pod| BufReader::new(request(pod.address, &head).await);
        Asked { stays: at(&self.stays).await, leaves: at(&self.leaves).await, head }
    }

    /// Asks both, and compares what they answer.
    async fn compare(&self, head: String) -> Seen {
        self.ask(head).await.compare().await
    }

    /// Waits until both have so many live readers, of whom so many have left.
    async fn follow(&self, readers: usize, leave: usize) {
        for pod in [&self.stays, &self.leaves] {
            counted(&pod.fixture, &format!("tailwater_http_sse_readers {readers}")).await;
        }
        self.have_left(leave).await;
    }

    /// Waits until so many long-polls wait at both, and those of one have left.
    async fn park(&self, polls: usize) {
        for pod in [&self.stays, &self.leaves] {
            counted(&pod.fixture, &format!("tailwater_http_long_polls {polls}")).await;
        }
        self.have_left(polls).await;
    }

    async fn have_left(&self, readers: usize) {
        counted(&self.leaves.fixture, &format!("tailwater_shard_readers {readers}")).await;
        assert!(self.stays.fixture.metric("tailwater_shard_readers 0"), "nobody leaves where there is no shard");
    }

    /// Where a stream ends.
    async fn tail(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let answer = self.stays.fixture.send("HEAD", path, headers, "").await;
        assert_eq!(answer.status, 200, "{path}");
        answer.header("stream-next-offset").to_owned()
    }
}

impl Asked {
    /// Compares what both answer.
    async fn compare(&mut self) -> Seen {
        let has_body = !self.head.starts_with("HEAD ");
        let (stays, leaves) = tokio::join!(seen(&mut self.stays, has_body), seen(&mut self.leaves, has_body));
        assert_eq!(leaves, stays, "{}", self.head);
        leaves
    }

    /// Compares how the connections go on: what else they answer, and whether they end.
    async fn compare_the_rest(&mut self) {
        for stream in [&mut self.stays, &mut self.leaves] {
            // Where it has ended, or is about to, that is seen by what comes of it.
            drop(stream.write_all(b"GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await);
        }
        let rest = async |stream: &mut BufReader<TcpStream>| {
            let mut rest = Vec::new();
            // Whoever has said that it closes may reset what comes all the same.
            drop(timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it ends"));
            let rest = String::from_utf8(rest).unwrap();
            rest.lines().filter(|line| !line.starts_with("date: ")).map(str::to_owned).collect::<Vec<_>>()
        };
        let (stays, leaves) = tokio::join!(rest(&mut self.stays), rest(&mut self.leaves));
        assert_eq!(leaves, stays, "behind {}", self.head);
    }
}

/// Takes an answer off a connection, and no byte more where it has a length.
async fn seen(stream: &mut BufReader<TcpStream>, has_body: bool) -> Seen {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(LIMIT, stream.read_u8()).await.expect("a head in time");
        head.push(byte.unwrap_or_else(|error| panic!("{error} behind {:?}", String::from_utf8_lossy(&head))));
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n").map(str::to_owned);
    let first = lines.next().unwrap();
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    let (dates, mut fields): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("date: "));
    assert_eq!(dates.len(), 1, "{head}");
    fields.sort_by_key(|line| line.split(':').next().unwrap().to_owned());
    let length = fields.iter().find_map(|line| line.strip_prefix("content-length: ")).map(|n| n.parse().unwrap());
    let body = match length.filter(|_| has_body) {
        Some(length) => {
            let mut body = vec![0; length];
            timeout(LIMIT, stream.read_exact(&mut body)).await.expect("a body in time").unwrap();
            Some(String::from_utf8(body).unwrap())
        }
        None => None,
    };
    Seen { status, head: [vec![first], fields].concat(), body }
}

/// Nothing ends by itself before it was looked at, however slow the machine is.
fn patient() -> Config {
    let long = LIMIT * 6;
    Config { long_poll_timeout: long, sse_lifetime: long, header_timeout: long, ..Config::default() }
}

/// A request for a target with further fields.
fn get(target: &str, fields: &[(&str, &str)]) -> String {
    get_by("HTTP/1.1", target, fields)
}

fn get_by(version: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("\r\n{name}: {value}")).collect();
    format!("GET {target} {version}\r\nhost: h{fields}")
}
