//! The store is paused, and killed, under many active streams and their readers. Their connections have to survive, the
//! gateway has to be quiet meanwhile, and events have to come again soon after the store has.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::{Form, PLAINLY, leave, seconds};
use crate::{
    cluster::{Cluster, Setup, Way},
    crowd::{Crowd, Watched},
    ending::{rest, tell},
    history::{Start, WriterKind},
    kernel::{allow_connections, cpu},
    message::Content,
    reader::{Kind, Reading},
    report::Findings,
    writer::Writing,
};

/// Longer than anything that keeps a reader waiting here.
const SILENCE: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(5);
/// Readers of each stream.
const READERS: u32 = 2;
/// How long after its beginning an outage is what the gateway has got used to.
const ONSET: Duration = Duration::from_secs(2);
/// The most CPU time that the gateway may take in an outage, as a share of a core.
const CPU: f64 = 0.05;
/// When the first event has to be there, after the store is.
const FIRST: Duration = Duration::from_secs(2);
/// How long the last one is waited for.
const LAST: Duration = Duration::from_secs(30);

/// What happens to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    Paused,
    Killed,
}

/// How much of everything.
struct Size {
    streams: usize,
    /// Streams that are written to all the time.
    busy: usize,
    /// Streams that are written to from the return on, another part of the quiet ones after each outage.
    woken: usize,
    outage: Duration,
}

/// Runs it.
///
/// # Errors
/// When something does not start or does not end.
pub async fn run(form: Form, seed: u64) -> anyhow::Result<Findings> {
    let size = Size::of(form);
    allow_connections(size.streams as u64 * u64::from(READERS) + 2_000)?;
    let mut findings = Findings::of("outage");
    findings.figure("seed", seed);
    findings.figure("active streams", size.streams);
    findings.figure("readers of events", size.streams * READERS as usize);
    findings.figure("streams written to all the time", size.busy);
    // Nothing but a fault ends a response here.
    let pod_args = ["--drain", "5s", "--sse-lifetime", "1h"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start(&Setup { pods: 1, pod_args, way: Way::Direct }).await?;
    let streams = (0..size.streams).map(|n| (format!("outage-{n}"), Content::Json)).collect();
    let mut crowd = Crowd::at(cluster.fronts()[0], streams).await?;
    gather(&mut crowd, &cluster, &size, seed);
    // Every reader is there, and every stream has been quiet or busy for a while.
    sleep(Duration::from_millis(2) * (size.streams as u32 * READERS) + Duration::from_secs(10)).await;
    let live = cluster.metric(0, "tailwater_live_readers").await?;
    findings.check(format!("{live} readers follow"), live >= (size.streams * READERS as usize) as f64);

    let mut woken = size.busy;
    for outage in [Outage::Paused, Outage::Killed] {
        let streams = woken..woken + size.woken;
        woken = streams.end;
        suffer(outage, &mut cluster, &mut crowd, &size, streams, &mut findings).await?;
    }
    let histories = rest(crowd, &mut cluster, DRAIN).await?;
    tell(&histories, &mut findings);
    Ok(leave(cluster, findings))
}

fn gather(crowd: &mut Crowd, cluster: &Cluster, size: &Size, seed: u64) {
    let fronts = cluster.fronts();
    for stream in 0..size.streams {
        for n in 0..READERS {
            let own = stream as u32 * READERS + n;
            crowd.read(stream, |name, content| Reading {
                stream: name.to_owned(),
                content,
                fronts: fronts.clone(),
                kind: Kind::Events,
                from: Start::Beginning,
                after: Duration::from_millis(2) * own,
                silence: SILENCE,
                keeps: None,
                seed: seed.wrapping_add(u64::from(own)),
            });
        }
    }
    for stream in 0..size.busy {
        write(crowd, cluster, stream, (Duration::from_secs(2), Duration::from_secs(5)));
    }
}

fn write(crowd: &mut Crowd, cluster: &Cluster, stream: usize, pace: (Duration, Duration)) {
    crowd.write(stream, |name, content| Writing {
        stream: name.to_owned(),
        content,
        fronts: cluster.fronts(),
        writer: 0,
        kind: WriterKind::Producer,
        pace,
        patience: PATIENCE,
        habits: PLAINLY,
        seed: stream as u64,
    });
}

/// One outage, from its beginning to the last event after it.
async fn suffer(
    outage: Outage,
    cluster: &mut Cluster,
    crowd: &mut Crowd,
    size: &Size,
    woken: std::ops::Range<usize>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let resumes = crowd.resumes().0;
    let gateway = cluster.pods[0].pid().context("the gateway runs")?;
    match outage {
        Outage::Paused => cluster.store.pause()?,
        Outage::Killed => cluster.store.kill().await?,
    }
    sleep(ONSET).await;
    let (used, began) = (cpu(gateway)?, Instant::now());
    sleep(size.outage.saturating_sub(ONSET)).await;
    let share = (cpu(gateway)? - used).as_secs_f64() / began.elapsed().as_secs_f64();
    match outage {
        Outage::Paused => cluster.store.resume()?,
        Outage::Killed => {
            cluster.store.start().await?;
        }
    }
    let returned = Instant::now();
    let waiting: Vec<Watched> =
        crowd.watched().iter().filter(|reader| woken.contains(&reader.stream)).cloned().collect();
    for stream in woken {
        write(crowd, cluster, stream, (Duration::from_secs(10), Duration::from_secs(20)));
    }
    let arrivals = arrivals(waiting, returned).await;

    let name = format!("{outage:?}").to_lowercase();
    let cut = crowd.resumes().0 - resumes;
    findings.check(format!("{name}: {cut} connections lost"), cut == 0);
    let percent = share * 100.0;
    findings.check(format!("{name}: {percent:.1} % of a core meanwhile, of {:.0} %", CPU * 100.0), share < CPU);
    let first = arrivals.first().copied().unwrap_or(LAST);
    findings.check(format!("{name}: the first event {:.3} s after the return", seconds(first)), first <= FIRST);
    let missing = size.woken * READERS as usize - arrivals.len();
    findings.check(format!("{name}: {missing} readers without an event after {LAST:?}"), missing == 0);
    let at = |share: usize| arrivals.get(arrivals.len() * share / 100).or_else(|| arrivals.last());
    let of = |share: usize| at(share).copied().map(seconds);
    let figures = serde_json::json!([of(50), of(99), of(100)]);
    findings.figure(&format!("{name}: event after the return, p50, p99, max, s"), figures);
    Ok(())
}

/// When each of these readers, all of quiet streams, has had its next message: in their order, as far as they have.
async fn arrivals(mut waiting: Vec<Watched>, since: Instant) -> Vec<Duration> {
    let mut arrived = Vec::new();
    while !waiting.is_empty() && since.elapsed() < LAST {
        let before = waiting.len();
        waiting.retain(|reader| reader.progress.messages() == 0);
        arrived.resize(arrived.len() + before - waiting.len(), since.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    arrived
}

impl Size {
    fn of(form: Form) -> Self {
        match form {
            Form::Short => Self { streams: 50, busy: 5, woken: 10, outage: Duration::from_secs(8) },
            Form::Long => Self { streams: 1_000, busy: 100, woken: 100, outage: Duration::from_secs(30) },
        }
    }
}
