//! The end of a scenario: nothing goes wrong any more, everything has to come to rest, and every pod is asked for the
//! whole of each stream, before and after all have been ended in good order and started again.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use tailwater_protocol::headers;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::Cluster,
    crowd::{AT_ONCE, Crowd},
    history::{End, Start, StreamHistory},
    message::Content,
    oracle::{Rule, Verdict, judge},
    report::Findings,
    wire::{Ask, Link},
};

/// How long a stream may take to be closed, with all attempts.
const CLOSURE: Duration = Duration::from_secs(60);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long readers may take to come to the end of their streams once these are closed.
const READ_ON: Duration = Duration::from_secs(90);

/// Brings everything to rest, and returns all that happened.
///
/// # Errors
/// When it does not come to rest.
pub async fn rest(mut crowd: Crowd, cluster: &mut Cluster, drain: Duration) -> anyhow::Result<Vec<StreamHistory>> {
    cluster.still_runs()?;
    cluster.ready().await?;
    let writers = crowd.stop_writing().await?;
    let front = cluster.fronts()[0];
    stream::iter(crowd.streams())
        .map(|(name, _)| close(front, name))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let readers = crowd.finish_reading(READ_ON).await?;
    let mut histories = crowd.histories(writers, readers);
    ask_for_ends(cluster, &mut histories, "at the end").await?;
    ask_for_what_is_behind(cluster, &mut histories).await?;
    cluster.restart(drain + PATIENCE).await?;
    ask_for_ends(cluster, &mut histories, "after a restart").await?;
    Ok(histories)
}

/// Judges what happened, with a check for each rule.
pub fn tell(histories: &[StreamHistory], findings: &mut Findings) -> Verdict {
    let verdict = judge(histories);
    let counts = verdict.counts;
    for (name, count) in [
        ("messages stored", counts.stored),
        ("acknowledged to plain writers", counts.acked_plain),
        ("acknowledged to producers", counts.acked_producer),
        ("refused", counts.refused),
        ("of unknown fate", counts.unknown),
        ("of unknown fate and stored", counts.unknown_stored),
        ("given to readers", counts.delivered),
        ("readers", counts.readers),
        ("resumed, all readers", counts.resumes),
        ("resumed, the reader who did so least", counts.least_resumes),
    ] {
        findings.figure(name, count);
    }
    for rule in Rule::ALL {
        let count = verdict.breaches_of(rule);
        let first = verdict.breaches.iter().find(|breach| breach.rule == rule);
        let such_as = first.map(|breach| format!(", such as {}", breach.what)).unwrap_or_default();
        findings.check(format!("{count} {}{such_as}", rule.counted()), count == 0);
    }
    verdict
}

async fn ask_for_ends(cluster: &Cluster, histories: &mut [StreamHistory], when: &str) -> anyhow::Result<()> {
    for pod in &cluster.pods {
        let told_by = format!("{} {when}", pod.name());
        let told: Vec<End> = stream::iter(histories.iter())
            .map(|history| whole(pod.addr(), &history.name, history.content, "-1", &told_by))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (history, end) in histories.iter_mut().zip(told) {
            history.ends.push(end);
        }
    }
    Ok(())
}

/// Asks for what stands behind the first offset of each reader that began at what was the tail then.
async fn ask_for_what_is_behind(cluster: &Cluster, histories: &mut [StreamHistory]) -> anyhow::Result<()> {
    for history in histories {
        let (name, content) = (history.name.as_str(), history.content);
        for (n, reader) in history.readers.iter_mut().enumerate().filter(|(_, reader)| reader.from == Start::Now) {
            let Some(begun) = &reader.begun else { continue };
            let pod = &cluster.pods[n % cluster.pods.len()];
            let told_by = format!("{} behind {}", pod.name(), begun.offset);
            reader.behind = Some(whole(pod.addr(), name, content, &begun.offset, &told_by).await?.bytes);
        }
    }
    Ok(())
}

/// Closes a stream, with as many attempts as that takes.
async fn close(front: SocketAddr, name: &str) -> anyhow::Result<()> {
    let ask = Ask::new(Method::POST, format!("/v1/stream/{name}")).with(headers::STREAM_CLOSED, "true");
    let (mut link, began) = (Link::to(front), Instant::now());
    loop {
        match link.exchange(&ask, PATIENCE).await {
            Ok(answer) if answer.status == 204 => return Ok(()),
            Ok(answer) if answer.status < 500 => {
                anyhow::bail!("{name} was not closed: {} {:?}", answer.status, answer.code())
            }
            Ok(_) | Err(_) => {}
        }
        ensure!(began.elapsed() < CLOSURE, "{name} was not closed in time");
        sleep(Duration::from_millis(500)).await;
    }
}

/// The whole of a closed stream from an offset on, as one pod tells it.
async fn whole(pod: SocketAddr, name: &str, content: Content, from: &str, told_by: &str) -> anyhow::Result<End> {
    let (mut link, mut pages, mut offset) = (Link::to(pod), Vec::new(), from.to_owned());
    loop {
        let page = link.exchange(&Ask::get(format!("/v1/stream/{name}?offset={offset}")), PATIENCE).await;
        let page = page.with_context(|| format!("{told_by} does not tell {name}"))?;
        ensure!(page.status == 200, "{told_by} tells of {name}: {} {:?}", page.status, page.code());
        let next = page.next().context("a page without an offset")?.to_owned();
        let (is_end, moved) = (page.is_up_to_date(), next != offset);
        pages.push(page.body.clone());
        if is_end {
            ensure!(page.is_closed(), "{told_by} says that {name} is open");
            return Ok(End { told_by: told_by.to_owned(), bytes: content.join(&pages)?, next });
        }
        ensure!(moved, "a page of {name} leads nowhere");
        offset = next;
    }
}
