//! The gateway's share, from outside: what an append and a delivery take through the gateway, less what they take by
//! S2's own client library on the same store.
//!
//! ```text
//! cargo build --release && cargo bench -p tailwater-benches --bench share -- [--count N]
//! ```
//!
//! The program is `TAILWATER_BIN`, or what stands in this build's own target folder. Where there are two cores and
//! `taskset`, it has the first one, store and all, and the client has the second. Two houses are measured:
//!
//! - `apart`: `tailwater store --memory`, and `tailwater serve --s2-endpoint` beside it.
//! - `within`: `tailwater serve --memory`, the default but for the data being in memory. Its store is shown with
//!   `--s2-listen`, because the library needs a way in. That changes reads, which then ask for the tail, and leaves the
//!   path of an append and of a delivery as it is.
//!
//! Appends are taken in turns, one by one; deliveries in blocks. Both ways start at the same phases of the store's flush
//! tick ([`tailwater_benches::phases`] says why). The last two lines are the figures as JSON and the verdict; the exit
//! code is not 0 unless the share of every median is under [`BAR`].

mod arrivals;
mod house;
mod measure;

use std::{env, io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use tailwater_benches::{figures::Report, programs::Cores};

use crate::house::{House, Layout};

/// What the gateway may add to the median of an append or of a delivery.
const BAR: Duration = Duration::from_millis(1);
/// How many times each operation is done each way, unless `--count` says otherwise: for trying out a change in minutes.
const COUNT: u32 = 2_000;

fn main() -> anyhow::Result<ExitCode> {
    let count = count(env::args().skip(1))?;
    let cores = Cores::claim()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(Box::pin(compare(cores, count)))?;

    let mut out = std::io::stdout().lock();
    let places = match cores {
        Cores::Pinned { .. } => "store and gateway on core 0, client on core 1",
        Cores::Free => "not pinned to cores",
    };
    writeln!(out, "{count} times each way, messages of {} bytes, {places}\n\n{report}", measure::MESSAGE)?;
    writeln!(out, "{}", report.json())?;
    let (verdict, code) = match report.holds() {
        true => ("every share is under", ExitCode::SUCCESS),
        false => ("not every share is under", ExitCode::FAILURE),
    };
    writeln!(out, "{verdict} {BAR:?}")?;
    Ok(code)
}

async fn compare(cores: Cores, count: u32) -> anyhow::Result<Report> {
    let mut comparisons = Vec::new();
    for layout in [Layout::Apart, Layout::Within] {
        let house = House::open(layout, cores).await?;
        comparisons.push(measure::appends(&house, count).await.context("appends")?);
        comparisons.push(measure::deliveries(&house, count).await.context("deliveries")?);
        house.close().await?;
    }
    Ok(Report { comparisons, bar: BAR })
}

/// `--count N`; `--bench` is what Cargo puts there.
fn count(mut args: impl Iterator<Item = String>) -> anyhow::Result<u32> {
    let mut count = COUNT;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--count" => count = args.next().context("--count wants a number")?.parse().context("--count")?,
            other => bail!("{other} is no argument of this benchmark; there is --count N"),
        }
    }
    match count {
        0 => bail!("--count 0 measures nothing"),
        count => Ok(count),
    }
}
