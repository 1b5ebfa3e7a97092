//! Three gateways and their store are killed, paused, drained and started again, while clients write and read through
//! nginx.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::{Form, leave, seconds};
use crate::{
    cluster::{Cluster, Setup, Way},
    crowd::Crowd,
    ending::{rest, tell},
    history::{Start, WriterKind},
    lanes::{Dealt, deal},
    message::Content,
    plan::{Dose, Plan},
    reader::{Kind, Reading},
    report::Findings,
    writer::{Habits, Writing},
};

const DRAIN: Duration = Duration::from_secs(2);
const LEAST_PAUSE: Duration = Duration::from_secs(5);
/// How long a writer waits for an answer. Some have less patience than an append may take.
const PATIENCE: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(25)];
/// How long a reader takes silence for a pause. Some have less patience than a pause takes.
const SILENCE: [Duration; 3] = [Duration::from_secs(4), Duration::from_secs(6), Duration::from_secs(12)];
const HABITS: Habits = Habits { most: 4, padding: 200, large: 0.001, crash: 0.02, twice: 0.1, look: 0.1 };

/// How much of everything.
struct Size {
    dose: Dose,
    streams: u32,
    plain: u32,
    producers: u32,
    pace: (Duration, Duration),
    /// How long readers keep a connection that nothing else ends.
    keeps: (Duration, Duration),
    messages: u64,
    resumes: u64,
    /// How long clients may go on after the last fault until these two are reached.
    until: Duration,
}

/// Runs it.
///
/// # Errors
/// When something does not start, does not end, or does not come back.
pub async fn run(form: Form, seed: u64) -> anyhow::Result<Findings> {
    let (size, mut findings) = (Size::of(form), Findings::of("chaos"));
    findings.figure("seed", seed);
    let mut cluster = Cluster::start(&Setup {
        pods: 3,
        pod_args: ["--drain", "2s", "--keep-alive", "2s", "--long-poll-timeout", "2s", "--sse-lifetime", "10s"]
            .map(str::to_owned)
            .to_vec(),
        way: Way::Proxied,
    })
    .await?;
    let content = |n: u32| if n.is_multiple_of(2) { Content::Text } else { Content::Json };
    let streams = (0..size.streams).map(|n| (format!("chaos-{n}"), content(n))).collect();
    let mut crowd = Crowd::at(cluster.fronts()[0], streams).await?;
    gather(&mut crowd, &cluster, &size, seed);

    let began = Instant::now();
    let (of_pods, of_store) = deal(&Plan::draw(seed, &size.dose), &mut cluster, DRAIN).await?;
    findings.figure("faults dealt over, s", seconds(began.elapsed()));
    let last = Instant::now();
    let enough = |crowd: &Crowd| crowd.acked() >= size.messages && crowd.resumes().1 as u64 >= size.resumes;
    while !enough(&crowd) && last.elapsed() < size.until {
        sleep(Duration::from_millis(100)).await;
    }
    let calm = Instant::now();
    let histories = rest(crowd, &mut cluster, DRAIN).await?;
    findings.figure("came to rest in, s", seconds(calm.elapsed()));

    tell_faults(&mut findings, &size, &of_pods, &of_store);
    let counts = tell(&histories, &mut findings).counts;
    let acked = counts.acked_plain + counts.acked_producer;
    findings.check(format!("{acked} messages acknowledged, of {} at least", size.messages), acked >= size.messages);
    let least = counts.least_resumes;
    findings.check(format!("every reader resumed {least} times, of {} at least", size.resumes), least >= size.resumes);
    ensure!(counts.readers > 0, "nobody has read");
    Ok(leave(cluster, findings))
}

/// Writers of both kinds, and readers of all four, for each stream.
fn gather(crowd: &mut Crowd, cluster: &Cluster, size: &Size, seed: u64) {
    let fronts = cluster.fronts();
    for stream in 0..crowd.streams().len() {
        let own = seed.wrapping_mul(1_000_003).wrapping_add(stream as u64 * 1_000);
        for writer in 0..size.plain + size.producers {
            crowd.write(stream, |name, content| Writing {
                stream: name.to_owned(),
                content,
                fronts: fronts.clone(),
                writer,
                kind: if writer < size.plain { WriterKind::Plain } else { WriterKind::Producer },
                pace: size.pace,
                patience: PATIENCE[writer as usize % PATIENCE.len()],
                habits: HABITS,
                seed: own + u64::from(writer),
            });
        }
        let all = Kind::ALL.map(|kind| (kind, Start::Beginning)).into_iter();
        let readers = all.chain([(Kind::Events, Start::Now), (Kind::LongPoll, Start::Now)]);
        for (n, (kind, from)) in readers.enumerate() {
            crowd.read(stream, |name, content| Reading {
                stream: name.to_owned(),
                content,
                fronts: fronts.clone(),
                kind,
                from,
                after: Duration::ZERO,
                silence: SILENCE[n % SILENCE.len()],
                keeps: Some(size.keeps),
                seed: own + 500 + n as u64,
            });
        }
    }
}

fn tell_faults(findings: &mut Findings, size: &Size, pods: &Dealt, store: &Dealt) {
    let Dose { gateway_kills, store_kills, pauses, drains, store_restarts, .. } = size.dose;
    let shortest = pods.shortest_pause.into_iter().chain(store.shortest_pause).min().unwrap_or_default();
    findings.figure("shortest pause, s", seconds(shortest));
    findings.figure("longest drain, s", seconds(pods.longest_stop));
    findings.figure("longest start of a gateway, s", seconds(pods.longest_start));
    findings.figure("longest start of the store, s", seconds(store.longest_start));
    let paused = pods.pauses + store.pauses;
    for (what, dealt, ordered) in [
        ("SIGKILLs of gateways", pods.kills, gateway_kills),
        ("SIGKILLs of the store", store.kills, store_kills),
        ("pauses", paused, pauses),
        ("drains with exit 0", pods.stops, drains),
        ("restarts of the store with exit 0", store.stops, store_restarts),
    ] {
        findings.check(format!("{dealt} {what}, of {ordered}"), dealt == ordered as u64);
    }
    findings.check(format!("every pause took {LEAST_PAUSE:?} or more"), paused == 0 || shortest >= LEAST_PAUSE);
}

impl Size {
    fn of(form: Form) -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        match form {
            Form::Short => Self {
                dose: Dose {
                    gateways: 3,
                    gateway_kills: 4,
                    store_kills: 2,
                    pauses: 2,
                    least_pause: LEAST_PAUSE,
                    drains: 2,
                    store_restarts: 0,
                    calm: s(3),
                },
                streams: 4,
                plain: 2,
                producers: 2,
                pace: (ms(20), ms(150)),
                keeps: (s(1), s(4)),
                messages: 1_000,
                resumes: 3,
                until: s(20),
            },
            Form::Long => Self {
                dose: Dose {
                    gateways: 3,
                    gateway_kills: 40,
                    store_kills: 20,
                    pauses: 40,
                    least_pause: LEAST_PAUSE,
                    drains: 20,
                    store_restarts: 4,
                    calm: s(12),
                },
                streams: 8,
                plain: 2,
                producers: 3,
                pace: (ms(20), ms(200)),
                keeps: (s(2), s(30)),
                messages: 50_000,
                resumes: 10,
                until: s(300),
            },
        }
    }
}
