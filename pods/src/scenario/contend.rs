//! Two gateways, and as many producers at each, on one stream: every append is conditioned on the position, so each has
//! to win a race for it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Form, PLAINLY, leave, seconds};
use crate::{
    cluster::{Cluster, Setup, Way},
    crowd::Crowd,
    ending::{rest, tell},
    history::{Fate, Start, StreamHistory, WriterKind},
    message::Content,
    reader::{Kind, Reading},
    report::Findings,
    writer::Writing,
};

/// Producers at each gateway.
const PRODUCERS: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(10);

/// Runs it.
///
/// # Errors
/// When something does not start or does not end.
pub async fn run(form: Form, seed: u64) -> anyhow::Result<Findings> {
    let contention = match form {
        Form::Short => Duration::from_secs(5),
        Form::Long => Duration::from_secs(60),
    };
    let mut findings = Findings::of("contend");
    findings.figure("seed", seed);
    let mut cluster = Cluster::start(&Setup { pods: 2, pod_args: Vec::new(), way: Way::Direct }).await?;
    let pods = cluster.fronts();
    let mut crowd = Crowd::at(pods[0], vec![("contended".to_owned(), Content::Json)]).await?;
    for (pod, front) in (0_u32..).zip(&pods) {
        crowd.read(0, |name, content| Reading {
            stream: name.to_owned(),
            content,
            fronts: vec![*front],
            kind: Kind::Events,
            from: Start::Beginning,
            after: Duration::ZERO,
            silence: PATIENCE,
            keeps: None,
            seed: u64::from(pod),
        });
        for n in 0..PRODUCERS {
            let writer = pod * PRODUCERS + n;
            crowd.write(0, |name, content| Writing {
                stream: name.to_owned(),
                content,
                fronts: vec![*front],
                writer,
                kind: WriterKind::Producer,
                pace: (Duration::ZERO, Duration::ZERO),
                patience: PATIENCE,
                habits: PLAINLY,
                seed: seed + u64::from(writer),
            });
        }
    }
    let began = Instant::now();
    sleep(contention).await;
    let (acked, took) = (crowd.acked(), began.elapsed());
    let histories = rest(crowd, &mut cluster, DRAIN).await?;

    findings.figure("producers at each gateway", PRODUCERS);
    findings.figure("contended for, s", seconds(took));
    findings.figure("messages acknowledged per second", (acked as f64 / took.as_secs_f64()).round());
    tell_shares(&mut findings, &histories, pods.len());
    tell(&histories, &mut findings);
    Ok(leave(cluster, findings))
}

/// How the gateways shared the stream, and whether every producer got something.
fn tell_shares(findings: &mut Findings, histories: &[StreamHistory], pods: usize) {
    let writers = || histories.iter().flat_map(|history| &history.writers);
    let acked = |writer: u32| -> usize {
        let own = writers().filter(|own| own.writer == writer).flat_map(|own| &own.appends);
        own.filter(|append| append.fate == Fate::Acked).count()
    };
    let all: Vec<usize> = (0..PRODUCERS * pods as u32).map(acked).collect();
    for (pod, own) in all.chunks(PRODUCERS as usize).enumerate() {
        let (least, most) = (own.iter().min(), own.iter().max());
        findings.figure(&format!("appends of gateway {pod}"), own.iter().sum::<usize>());
        let of_one = format!("the least and the most of one producer of gateway {pod}");
        findings.figure(&of_one, serde_json::json!([least, most]));
    }
    let retried: u64 = writers().map(|writer| writer.retried).sum();
    findings.figure("appends that needed another attempt", retried);
    let starved = all.iter().filter(|acked| **acked == 0).count();
    findings.check(format!("{starved} producers that got nothing in"), starved == 0);
}
