//! A rolling restart: three gateways are drained and started again, one after the other, under thousands of readers.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::{Form, PLAINLY, leave, seconds};
use crate::{
    cluster::{Cluster, Setup, Way},
    crowd::Crowd,
    ending::{rest, tell},
    history::{Start, StreamHistory, WriterKind},
    kernel::allow_connections,
    message::Content,
    reader::{Kind, Progress, Reading},
    report::Findings,
    writer::Writing,
};

const PODS: u8 = 3;
/// How long a gateway may take to end beyond its drain.
const SLACK: Duration = Duration::from_secs(30);
/// How long a reader that is told when to come back may take to be there.
const BACK: Duration = Duration::from_secs(6);
/// Longer than anything that keeps a reader waiting here.
const SILENCE: Duration = Duration::from_secs(60);
/// The most reconnects of a second, as a multiple of the even rate.
const PEAK: f64 = 2.0;

/// How much of everything.
struct Size {
    streams: u32,
    readers: u32,
    drain: Duration,
    pace: (Duration, Duration),
}

/// What one drain did to readers.
struct Wave {
    pod: usize,
    /// How many readers the gateway had when it was told to stop.
    readers: f64,
    took: Duration,
    /// Reconnects in each second from then on.
    reconnects: Vec<u32>,
}

/// Runs it.
///
/// # Errors
/// When something does not start, does not end in good order, or does not come back.
pub async fn run(form: Form, seed: u64) -> anyhow::Result<Findings> {
    let size = Size::of(form);
    // nginx has two of each.
    allow_connections(u64::from(size.readers) * 2 + 4_000)?;
    let mut findings = Findings::of("rolling");
    findings.figure("seed", seed);
    findings.figure("readers of events", size.readers);
    findings.figure("drain, s", seconds(size.drain));
    let drain = format!("{}s", size.drain.as_secs());
    // Nothing but a drain ends a response here.
    let pod_args = ["--drain", &drain, "--sse-lifetime", "1h"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start(&Setup { pods: PODS, pod_args, way: Way::Proxied }).await?;
    let streams = (0..size.streams).map(|n| (format!("rolling-{n}"), Content::Json)).collect();
    let mut crowd = Crowd::at(cluster.fronts()[0], streams).await?;
    gather(&mut crowd, &cluster, &size, seed);
    all_have_begun(&crowd).await?;

    let mut waves = Vec::new();
    for pod in 0..cluster.pods.len() {
        waves.push(restart(&mut cluster, &crowd, pod, size.drain).await?);
    }
    let histories = rest(crowd, &mut cluster, size.drain).await?;
    for wave in &waves {
        wave.tell(&mut findings, size.drain);
    }
    tell_appends(&mut findings, &histories);
    tell(&histories, &mut findings);
    Ok(leave(cluster, findings))
}

fn gather(crowd: &mut Crowd, cluster: &Cluster, size: &Size, seed: u64) {
    // In turns: a hash would put all readers of a stream on one gateway.
    let fronts = vec![cluster.fronts()[0]];
    for stream in 0..crowd.streams().len() {
        crowd.write(stream, |name, content| Writing {
            stream: name.to_owned(),
            content,
            fronts: fronts.clone(),
            writer: 0,
            kind: WriterKind::Producer,
            pace: size.pace,
            patience: SILENCE,
            habits: PLAINLY,
            seed: seed + stream as u64,
        });
    }
    for n in 0..size.readers {
        crowd.read(n as usize % crowd.streams().len(), |name, content| Reading {
            stream: name.to_owned(),
            content,
            fronts: fronts.clone(),
            kind: Kind::Events,
            from: Start::Beginning,
            after: Duration::from_micros(1_500) * n,
            silence: SILENCE,
            keeps: None,
            seed: seed.wrapping_add(10_000 + u64::from(n)),
        });
    }
}

/// Waits until every reader has something.
async fn all_have_begun(crowd: &Crowd) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while crowd.watched().iter().any(|reader| reader.progress.messages() == 0) {
        anyhow::ensure!(Instant::now() < deadline, "not all readers have begun");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn restart(cluster: &mut Cluster, crowd: &Crowd, pod: usize, drain: Duration) -> anyhow::Result<Wave> {
    let readers = cluster.metric(pod, "tailwater_live_readers").await?;
    let began = Instant::now();
    let gateway = &mut cluster.pods[pod];
    gateway.terminate()?;
    let took = gateway.ended(drain + SLACK).await?;
    sleep((began + drain + BACK).saturating_duration_since(Instant::now())).await;
    let over = Instant::now();
    cluster.pods[pod].start().await?;
    cluster.ready().await.with_context(|| format!("after the restart of gateway {pod}"))?;
    let mut reconnects = vec![0; (over - began).as_secs() as usize + 1];
    let all: Vec<Arc<Progress>> = crowd.watched().iter().map(|reader| Arc::clone(&reader.progress)).collect();
    for at in all.iter().flat_map(|progress| progress.resumed_between(began, over)) {
        reconnects[(at - began).as_secs() as usize] += 1;
    }
    Ok(Wave { pod, readers, took, reconnects })
}

impl Wave {
    fn tell(&self, findings: &mut Findings, drain: Duration) {
        let Self { pod, readers, took, reconnects } = self;
        let even = readers / drain.as_secs_f64();
        let peak = reconnects.iter().copied().max().unwrap_or_default();
        let all: u32 = reconnects.iter().sum();
        findings.figure(&format!("gateway {pod}: readers, even rate"), serde_json::json!([readers, even]));
        findings.figure(&format!("gateway {pod}: ended after, s"), seconds(*took));
        findings.figure(&format!("gateway {pod}: reconnects a second"), reconnects.clone());
        findings.check(format!("gateway {pod}: {all} reconnects of {readers} readers"), f64::from(all) >= *readers);
        let most = even * PEAK;
        findings.check(format!("gateway {pod}: peak of {peak} a second, at most {most:.0}"), f64::from(peak) <= most);
    }
}

fn tell_appends(findings: &mut Findings, histories: &[StreamHistory]) {
    let writers = || histories.iter().flat_map(|history| &history.writers);
    let appends: usize = writers().map(|writer| writer.appends.len()).sum();
    let retried: u64 = writers().map(|writer| writer.retried).sum();
    let failed: u64 = writers().map(|writer| writer.failed_twice).sum();
    findings.figure("appends, and those that were tried again", serde_json::json!([appends, retried]));
    findings.check(format!("{failed} appends that failed twice"), failed == 0);
}

impl Size {
    fn of(form: Form) -> Self {
        let s = Duration::from_secs;
        match form {
            Form::Short => Self { streams: 10, readers: 300, drain: s(5), pace: (s(1), s(2)) },
            Form::Long => Self { streams: 30, readers: 6_000, drain: s(20), pace: (s(2), s(4)) },
        }
    }
}
