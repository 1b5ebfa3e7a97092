//! What a token costs: CPU of the gateway for an open of Server-Sent Events with a token of HS256, less what it takes where
//! nobody is asked for one.
//!
//! ```text
//! cargo build --release && cargo bench -p tailwater-benches --bench opens
//! ```
//!
//! Two gateways, alike but for `--projects`, have a stream with one message each. A client opens it, over a connection of
//! its own, reads to the first control event that says that this is all, and leaves. They are taken in turns, in blocks,
//! and the CPU of a block is the kernel's figure for the process. Where nobody is asked for a token, none is sent, so the
//! bytes of the header count too. The exit code is not 0 unless the median of the differences is under [`BAR`].

use std::{fs, io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tailwater_benches::programs::{Cores, cpu_of, find};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

/// What a token may add to the CPU of an open.
const BAR: Duration = Duration::from_micros(30);
/// How often the two are measured in turns, and what is opened each time.
const ROUNDS: usize = 9;
const OPENS: u32 = 3_000;
/// Opens before the first round: threads, caches and the stream itself are then awake.
const WARM_UP: u32 = 500;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
const PROJECTS: &str = "[[project]]\nid = 'bench'\n[[project.key]]\nid = '1'\nalgorithm = 'HS256'\n\
                        secret = 'the secret of a bench, which is no secret'\n";

/// A gateway, and how it is asked.
struct Door {
    gateway: Child,
    addr: String,
    /// The header that a token is in, with the end of its line.
    authorization: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let cores = Cores::claim()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rounds = runtime.block_on(Box::pin(measure(cores)))?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "CPU of an open, {OPENS} opens a round\n\nround  without  with a token  more")?;
    let mut differences = Vec::new();
    for (round, (without, with)) in rounds.into_iter().enumerate() {
        let more = micros(with) - micros(without);
        writeln!(out, "{round:>5}  {:>4.1} µs       {:>4.1} µs  {more:>4.1} µs", micros(without), micros(with))?;
        differences.push(more);
    }
    differences.sort_by(f64::total_cmp);
    let median = differences[differences.len() / 2];
    let holds = median <= micros(BAR);
    writeln!(out, "\nmedian of what it is more: {median:.1} µs; the bar is {:.0} µs", micros(BAR))?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(cores: Cores) -> anyhow::Result<Vec<(Duration, Duration)>> {
    let folder = tempfile::tempdir()?;
    let projects = folder.path().join("projects.toml");
    fs::write(&projects, PROJECTS)?;
    let projects = projects.to_str().context("the folder for temporary files has an odd name")?;
    let args = ["serve", "--memory", "--listen", "127.0.0.1:0"];
    let open = Door::of(cores.serve(&args).await?, String::new());
    let guarded = cores.serve(&[&args[..], &["--projects", projects]].concat()).await?;
    let guarded = Door::of(guarded, format!("authorization: Bearer {}\r\n", minted(projects).await?));
    for door in [&open, &guarded] {
        door.create().await?;
        door.block(WARM_UP).await?;
    }
    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        // Whoever comes second finds a warmer machine: turn about.
        rounds.push(match round % 2 {
            0 => (open.block(OPENS).await?, guarded.block(OPENS).await?),
            _ => {
                let with = guarded.block(OPENS).await?;
                (open.block(OPENS).await?, with)
            }
        });
    }
    Ok(rounds)
}

async fn minted(projects: &str) -> anyhow::Result<String> {
    let mut command = Command::new(find("tailwater", "TAILWATER_BIN")?);
    command.args(["token", "mint", "--projects", projects, "--project", "bench"]);
    let made = command.args(["--scope", "read", "--scope", "write", "--stream", "room/**"]).output().await?;
    ensure!(made.status.success(), "no token: {}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

impl Door {
    fn of((gateway, addr): (Child, String), authorization: String) -> Self {
        Self { gateway, addr, authorization }
    }

    async fn create(&self) -> anyhow::Result<()> {
        let head = self.head("PUT", "");
        let body = "content-type: text/plain\r\ncontent-length: 1\r\nconnection: close\r\n\r\na";
        let answer = self.ask(&(head + body), b"\r\n\r\n").await?;
        ensure!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// The CPU that one of so many opens takes.
    async fn block(&self, opens: u32) -> anyhow::Result<Duration> {
        let request = self.head("GET", "?offset=-1&live=sse") + "\r\n";
        let pid = self.gateway.id().context("the gateway has ended")?;
        let before = cpu_of(pid)?;
        for _ in 0..opens {
            let answer = self.ask(&request, b"\"upToDate\":true").await?;
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        }
        Ok((cpu_of(pid)? - before) / opens)
    }

    fn head(&self, method: &str, query: &str) -> String {
        let Self { addr, authorization, .. } = self;
        format!("{method} /v1/stream/bench/room/1{query} HTTP/1.1\r\nhost: {addr}\r\n{authorization}")
    }

    /// Sends a request, and reads up to something.
    async fn ask(&self, request: &str, up_to: &[u8]) -> anyhow::Result<Vec<u8>> {
        let answered = async {
            let mut socket = TcpStream::connect(&self.addr).await?;
            socket.set_nodelay(true)?;
            socket.write_all(request.as_bytes()).await?;
            let mut answer = Vec::with_capacity(2048);
            while !answer.windows(up_to.len()).any(|window| window == up_to) {
                if socket.read_buf(&mut answer).await? == 0 {
                    bail!("the answer ends early: {}", String::from_utf8_lossy(&answer));
                }
            }
            Ok(answer)
        };
        timeout(PATIENCE, answered).await.context("no answer")?
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
