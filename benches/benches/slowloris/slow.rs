//! Clients that hold on to a server and hardly say anything.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How many connections the server takes from one address.
pub(crate) const PER_ADDRESS: usize = 100;
/// How many of them come from one: half of what it takes.
const FROM_ONE: usize = PER_ADDRESS / 2;
/// How long a byte is in coming.
const DRIP: Duration = Duration::from_secs(2);
/// How many come in a millisecond, so that they do not meet a full queue.
const ABREAST: usize = 5;
const BODY: &str = "content-type: text/plain\r\ncontent-length: 1000000\r\n\r\n";

/// All of them; they leave when it is dropped.
pub(crate) struct Slow {
    _clients: JoinSet<()>,
}

/// In which part of a request somebody is slow.
#[derive(Debug, Clone, Copy)]
enum In {
    Head,
    Body,
}

/// Lets this process have so many files open.
pub(crate) fn allow_descriptors(wanted: u64) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    ensure!(maximum.is_none_or(|maximum| maximum >= wanted), "this needs {wanted} descriptors: `ulimit -n`");
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).context("the limit of descriptors")
}

impl Slow {
    /// So many, half of them slow in the head, half in the body.
    pub(crate) async fn start(addr: &str, sockets: usize) -> anyhow::Result<Self> {
        let addr: SocketAddr = addr.parse().context("the gateway's address")?;
        let mut clients = JoinSet::new();
        for n in 0..sockets {
            let (high, low) = ((n / FROM_ONE) / 250, (n / FROM_ONE) % 250);
            let octets = (u8::try_from(high + 1), u8::try_from(low + 1));
            let (Ok(high), Ok(low)) = octets else { anyhow::bail!("too many sockets for the addresses of loopback") };
            let part = if n % 2 == 0 { In::Head } else { In::Body };
            clients.spawn(hold(addr, Ipv4Addr::new(127, 0, high, low), part));
            if n % ABREAST == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(Self { _clients: clients })
    }
}

/// Is slow for ever: who is cut off comes back.
async fn hold(addr: SocketAddr, from: Ipv4Addr, part: In) {
    loop {
        // Whatever becomes of it.
        drop(drip(addr, from, part).await);
        sleep(Duration::from_millis(50)).await;
    }
}

async fn drip(addr: SocketAddr, from: Ipv4Addr, part: In) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let mut stream = socket.connect(addr).await?;
    let begun = format!("POST /v1/stream/bench/slow HTTP/1.1\r\nhost: {addr}\r\n");
    let begun = match part {
        In::Head => begun + "x-slow: ",
        In::Body => begun + BODY,
    };
    stream.write_all(begun.as_bytes()).await?;
    while !is_over(&mut stream).await {
        stream.write_all(b"x").await?;
    }
    Ok(())
}

/// Waits for a moment; whether the server has ended it meanwhile.
async fn is_over(stream: &mut TcpStream) -> bool {
    let mut sink = [0; 512];
    // Whatever it says is not read to the end.
    timeout(DRIP, stream.read(&mut sink)).await.is_ok()
}
