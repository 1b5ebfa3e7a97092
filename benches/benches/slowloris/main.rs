//! What slow clients do to live readers: nothing that they would notice.
//!
//! ```text
//! cargo build --release --workspace --bins && cargo bench -p tailwater-benches --bench slowloris
//! ```
//!
//! 5,000 sockets, from addresses of which each stays under the limit for one address, hold on to the gateway: half of them
//! send the head of a request byte by byte, half the body of one; who is cut off comes back at once. `fanbench` has readers
//! of one stream there, which check every byte and every number. Rounds with and without the slow ones are taken in turns,
//! and the exit code is not 0 unless
//!
//! - nothing is lost, repeated or refused to readers, in any round;
//! - the gateway holds nine in ten of the sockets in the mean, readers not counted, and nine in ten of the bodies as
//!   requests that wait; cuts off slow heads; and is rid of all sockets when they leave;
//! - the median of the rounds' 99th percentiles, from a message's time to its arrival, is at most [`BAR`] times that of
//!   the rounds without.
//!
//! `SLOWLORIS_SOCKETS`, `SLOWLORIS_READERS`, `SLOWLORIS_SECONDS` and `SLOWLORIS_ROUNDS` make it smaller; the percentiles
//! are then shown, and held against nothing.

mod slow;

use std::{env, io::Write as _, process::ExitCode, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tailwater_benches::{
    programs::{Cores, find},
    rounds::Rounds,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::slow::{PER_ADDRESS, Slow};

/// How much longer the 99th percentile may be.
const BAR: f64 = 1.5;
/// Where readers connect from.
const SOURCES: &str = "127.0.0.2-127.0.0.17";
/// How long the sockets may take to be there, and to be gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the gateway waits for a head. Shorter than a round, so that each round has some that are cut.
const HEADER_TIMEOUT: &str = "5s";

/// How much of everything.
struct Size {
    sockets: usize,
    readers: usize,
    seconds: usize,
    rounds: usize,
    /// Whether it is what the bar is for.
    whole: bool,
}

/// What one round came to.
struct Round {
    p99: f64,
    deliveries: u64,
}

/// What of the slow ones a gateway holds at a time.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Connections that are none of a reader's.
    connections: f64,
    /// Requests without a response: those of which the body is not there yet.
    bodies: f64,
}

struct Gateway {
    child: Child,
    addr: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let size = Size::given()?;
    slow::allow_descriptors(size.sockets as u64 + 2_000)?;
    let cores = Cores::claim()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rounds = runtime.block_on(Box::pin(measure(cores, &size)))?;

    let mut out = std::io::stdout().lock();
    let Size { sockets, readers, seconds, .. } = size;
    writeln!(out, "{readers} readers of 10 messages a second, {seconds} s a round; {sockets} slow sockets\n")?;
    writeln!(out, "round  deliveries  p99 without  p99 with")?;
    let (mut without, mut with) = (Rounds::default(), Rounds::default());
    for (number, [calm, slow]) in rounds.into_iter().enumerate() {
        let deliveries = calm.deliveries + slow.deliveries;
        writeln!(out, "{number:>5}  {deliveries:>10}  {:>8.2} ms  {:>5.2} ms", calm.p99 / 1e3, slow.p99 / 1e3)?;
        without.push(calm.p99);
        with.push(slow.p99);
    }
    let median = |rounds: &Rounds| rounds.spread().context("there was no round").map(|spread| spread.median);
    let ratio = median(&with)? / median(&without)?;
    writeln!(out, "\nmedian with over median without: {ratio:.2}; the bar is {BAR}")?;
    writeln!(out, "no message was lost or repeated, and no reader refused")?;
    if !size.whole {
        writeln!(out, "smaller than it is to be: the percentiles are held against nothing")?;
    }
    Ok(if ratio <= BAR || !size.whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(cores: Cores, size: &Size) -> anyhow::Result<Vec<[Round; 2]>> {
    let per_address = PER_ADDRESS.to_string();
    let limits = ["--max-connections-per-address", &per_address, "--header-timeout", HEADER_TIMEOUT];
    let args = [&["serve", "--memory", "--listen", "127.0.0.1:0"][..], &limits].concat();
    let (child, addr) = cores.serve(&args).await?;
    let mut gateway = Gateway { child, addr };
    let mut rounds = Vec::new();
    for round in 0..size.rounds {
        // Whoever comes second finds a warmer machine: turn about.
        rounds.push(match round % 2 {
            0 => [gateway.calm(size, round * 2).await?, gateway.beset(size, round * 2 + 1).await?],
            _ => {
                let beset = gateway.beset(size, round * 2).await?;
                [gateway.calm(size, round * 2 + 1).await?, beset]
            }
        });
        ensure!(gateway.child.try_wait()?.is_none(), "the gateway has ended");
    }
    Ok(rounds)
}

impl Size {
    fn given() -> anyhow::Result<Self> {
        let number = |name: &str, whole: usize| match env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name} is a number")),
            Err(_) => Ok(whole),
        };
        let (sockets, readers) = (number("SLOWLORIS_SOCKETS", 5_000)?, number("SLOWLORIS_READERS", 500)?);
        let (seconds, rounds) = (number("SLOWLORIS_SECONDS", 15)?, number("SLOWLORIS_ROUNDS", 7)?);
        ensure!(rounds > 0, "SLOWLORIS_ROUNDS is 1 at least");
        let whole = (sockets, readers) == (5_000, 500) && seconds >= 15 && rounds >= 5;
        Ok(Self { sockets, readers, seconds, rounds, whole })
    }
}

impl Gateway {
    async fn calm(&self, size: &Size, number: usize) -> anyhow::Result<Round> {
        ensure!(self.held().await?.connections < 10.0, "somebody else is here");
        self.load(size, number).await
    }

    /// The same while slow clients hold on.
    async fn beset(&self, size: &Size, number: usize) -> anyhow::Result<Round> {
        let wanted = Held { connections: size.sockets as f64 * 0.9, bodies: size.sockets as f64 * 0.45 };
        let cut = self.cut().await?;
        let slow = Slow::start(&self.addr, size.sockets).await?;
        self.until(|held| held.has(wanted)).await.context("the slow sockets are not let in")?;
        let load = self.load(size, number);
        let mut samples = vec![self.held().await?];
        let round = async {
            let mut load = std::pin::pin!(load);
            loop {
                tokio::select! {
                    round = &mut load => return round,
                    () = sleep(Duration::from_secs(1)) => samples.push(self.held().await?),
                }
            }
        };
        let round = round.await?;
        // Heads that came together are cut off together, and take a moment to come again; bodies stay.
        let mean = samples.iter().map(|held| held.connections).sum::<f64>() / samples.len() as f64;
        let bodies = samples.iter().map(|held| held.bodies).fold(f64::INFINITY, f64::min);
        let held = Held { connections: mean, bodies };
        ensure!(held.has(wanted), "the gateway has held only {held:?}, connections in the mean and bodies at least");
        drop(slow);
        self.until(|held| held.connections < 10.0).await.context("slow sockets that have left are still there")?;
        let cut = self.cut().await? - cut;
        ensure!(cut > 0.0 || !size.whole, "no slow head was cut off");
        Ok(round)
    }

    /// Live readers and a writer, by `fanbench`, whose own checks have to hold.
    async fn load(&self, size: &Size, number: usize) -> anyhow::Result<Round> {
        let folder = tempfile::tempdir()?;
        let json = folder.path().join("report.json");
        let mut fanbench = Command::new(find("fanbench", "FANBENCH_BIN")?);
        let url = format!("http://{}/v1/stream/bench", self.addr);
        let (name, readers) = (format!("round-{number}"), size.readers.to_string());
        let duration = format!("{}s", size.seconds);
        fanbench.args(["run", "--url", &url, "--name", &name, "--source", SOURCES, "--readers", &readers]);
        fanbench.args(["--rate", "10", "--duration", &duration, "--warmup", "1s", "--json"]).arg(&json);
        let ended = fanbench.stdin(Stdio::null()).kill_on_drop(true).output().await.context("fanbench")?;
        let errors = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "fanbench found: {}", errors.lines().last().unwrap_or_default());
        let report: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
        ensure!(report["cut"] == 0, "readers were cut off: {}", report["cut"]);
        let deliveries = &report["deliveries"];
        let p99 = deliveries["publish_to_receive"]["p99_us"].as_f64().context("fanbench tells no percentile")?;
        Ok(Round { p99, deliveries: deliveries["measured"].as_u64().context("fanbench tells no deliveries")? })
    }

    async fn until(&self, there: impl Fn(Held) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let held = self.held().await?;
            if there(held) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "there are {held:?} after {PATIENCE:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn held(&self) -> anyhow::Result<Held> {
        let page = self.metrics().await?;
        let connections = value(&page, "tailwater_http_connections")? - value(&page, "tailwater_http_sse_readers")?;
        // The one that asks for this is a request, too.
        Ok(Held { connections, bodies: value(&page, "tailwater_http_requests_in_flight")? - 1.0 })
    }

    async fn cut(&self) -> anyhow::Result<f64> {
        value(&self.metrics().await?, "tailwater_connections_cut_total{reason=\"header_timeout\"}")
    }

    async fn metrics(&self) -> anyhow::Result<String> {
        let ask = async {
            let mut socket = TcpStream::connect(&self.addr).await?;
            let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.addr);
            socket.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = timeout(PATIENCE, ask).await.context("the gateway does not answer")??;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "no metrics: {}", answer.lines().next().unwrap_or_default());
        Ok(answer)
    }
}

impl Held {
    fn has(self, wanted: Self) -> bool {
        self.connections >= wanted.connections && self.bodies >= wanted.bodies
    }
}

/// A metric's value; 0 where it has not been counted yet.
fn value(page: &str, name: &str) -> anyhow::Result<f64> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(Ok(0.0), |value| value.parse().context("a metric is a number"))
}
