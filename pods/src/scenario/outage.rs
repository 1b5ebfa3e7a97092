//! The store is paused, and killed, under many active streams and their readers. Their connections have to survive, the
//! gateway has to be quiet meanwhile, and events have to come again soon after the store has.

use std::{ops::Range, time::Duration};

use anyhow::Context as _;
use futures_util::future::join;
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
/// How long a response of events lasts.
const LIFETIME: &str = "1h";
/// Readers of each stream.
const READERS: u32 = 2;
/// The most CPU time that the gateway may take in an outage from its first moment on, as a share of a core.
const CPU: f64 = 0.05;
/// When 99 of 100 readers of what is written all the time have to have an event, after the store is back.
const SOON: Duration = Duration::from_secs(2);
/// When all of them have to.
const ALL_OF_THEM: Duration = Duration::from_millis(2_500);
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
    // Nothing but a fault ends a response here: one that ends by its age while the store is away has to be asked for anew.
    findings.figure("lifetime of responses, longer than an outage", LIFETIME);
    let pod_args = ["--drain", "5s", "--sse-lifetime", LIFETIME].map(str::to_owned).to_vec();
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
    woken: Range<usize>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let resumes = crowd.resumes().0;
    let gateway = cluster.pods[0].pid().context("the gateway runs")?;
    let (used, began) = (cpu(gateway)?, Instant::now());
    match outage {
        Outage::Paused => cluster.store.pause()?,
        Outage::Killed => cluster.store.kill().await?,
    }
    sleep(size.outage).await;
    let share = (cpu(gateway)? - used).as_secs_f64() / began.elapsed().as_secs_f64();
    let of = |streams: Range<usize>| Waiting::of(crowd.watched(), &streams);
    let (of_busy, of_woken) = (of(0..size.busy), of(woken.clone()));
    match outage {
        Outage::Paused => cluster.store.resume()?,
        Outage::Killed => {
            cluster.store.start().await?;
        }
    }
    let returned = Instant::now();
    for stream in woken {
        write(crowd, cluster, stream, (Duration::from_secs(10), Duration::from_secs(20)));
    }
    let (busy, woken) = join(arrivals(of_busy, returned), arrivals(of_woken, returned)).await;

    let name = format!("{outage:?}").to_lowercase();
    let cut = crowd.resumes().0 - resumes;
    findings.check(format!("{name}: {cut} connections lost"), cut == 0);
    let percent = share * 100.0;
    findings.check(format!("{name}: {percent:.1} % of a core meanwhile, of {:.0} %", CPU * 100.0), share < CPU);
    for (share, within) in [(99, SOON), (100, ALL_OF_THEM)] {
        let at = percentile(&busy, share).unwrap_or(LAST);
        let what = format!("{name}: {share} % of the readers of busy streams have an event {:.3} s", seconds(at));
        findings.check(format!("{what} after the return, within {within:?}"), at <= within);
    }
    for (kind, arrivals, streams) in [("busy", busy, size.busy), ("woken", woken, size.woken)] {
        let missing = streams * READERS as usize - arrivals.len();
        findings.check(
            format!("{name}: {missing} readers of {kind} streams without an event after {LAST:?}"),
            missing == 0,
        );
        let of = |share: usize| percentile(&arrivals, share).map(seconds);
        let figures = serde_json::json!([of(0), of(50), of(99), of(100)]);
        findings
            .figure(&format!("{name}: event of {kind} streams after the return, first, p50, p99, last, s"), figures);
    }
    Ok(())
}

/// Readers, each with the messages that it had before the store came back.
struct Waiting(Vec<(Watched, u64)>);

impl Waiting {
    fn of(readers: &[Watched], streams: &Range<usize>) -> Self {
        let readers = readers.iter().filter(|reader| streams.contains(&reader.stream));
        Self(readers.map(|reader| (reader.clone(), reader.progress.messages())).collect())
    }
}

/// When each of these readers has had its next message: in their order, as far as they have.
async fn arrivals(Waiting(mut waiting): Waiting, since: Instant) -> Vec<Duration> {
    let mut arrived = Vec::new();
    while !waiting.is_empty() && since.elapsed() < LAST {
        let before = waiting.len();
        waiting.retain(|(reader, had)| reader.progress.messages() == *had);
        arrived.resize(arrived.len() + before - waiting.len(), since.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    arrived
}

/// What so many of a hundred stay within.
fn percentile(sorted: &[Duration], share: usize) -> Option<Duration> {
    sorted.get((sorted.len() * share).div_ceil(100).saturating_sub(1)).copied()
}

impl Size {
    fn of(form: Form) -> Self {
        match form {
            Form::Short => Self { streams: 50, busy: 5, woken: 10, outage: Duration::from_secs(8) },
            Form::Long => Self { streams: 1_000, busy: 100, woken: 100, outage: Duration::from_secs(30) },
        }
    }
}
