//! Faults, dealt to processes as a plan says.

use std::time::Duration;

use futures_util::future::{try_join, try_join_all};
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    plan::{Fault, Plan, Step},
    service::Service,
};

/// How long a process may take to end beyond the drain window: connections, streams and the store have their own
/// bounds.
const SLACK: Duration = Duration::from_secs(30);

/// What was dealt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dealt {
    /// SIGKILLs.
    pub kills: u64,
    /// SIGSTOPs, and SIGCONTs after them.
    pub pauses: u64,
    /// The shortest time between the two.
    pub shortest_pause: Option<Duration>,
    /// SIGTERMs that were followed by an end in good order.
    pub stops: u64,
    /// The longest time between the two.
    pub longest_stop: Duration,
    /// The longest time that a start took.
    pub longest_start: Duration,
}

impl Dealt {
    fn and(self, other: Self) -> Self {
        Self {
            kills: self.kills + other.kills,
            pauses: self.pauses + other.pauses,
            shortest_pause: self.shortest_pause.into_iter().chain(other.shortest_pause).min(),
            stops: self.stops + other.stops,
            longest_stop: self.longest_stop.max(other.longest_stop),
            longest_start: self.longest_start.max(other.longest_start),
        }
    }
}

/// Deals a plan to the end: to the gateways, and to the store. Everything runs before and after.
///
/// # Errors
/// When a process does not do what it should: it ends by itself, or not in good order and in time, or does not come
/// back.
pub async fn deal(plan: &Plan, cluster: &mut Cluster, drain: Duration) -> anyhow::Result<(Dealt, Dealt)> {
    let lanes = cluster.pods.iter_mut().zip(&plan.gateways).map(|(pod, steps)| lane(pod, steps, drain + SLACK));
    let store = lane(&mut cluster.store, &plan.store, SLACK);
    let (of_pods, of_store) = try_join(try_join_all(lanes), store).await?;
    Ok((of_pods.into_iter().fold(Dealt::default(), Dealt::and), of_store))
}

async fn lane(service: &mut Service, steps: &[Step], within: Duration) -> anyhow::Result<Dealt> {
    let mut dealt = Dealt::default();
    for step in steps {
        sleep(step.calm).await;
        service.still_runs()?;
        match step.fault {
            Fault::Kill => {
                service.kill().await?;
                dealt.kills += 1;
            }
            Fault::Pause(pause) => {
                service.pause()?;
                sleep(pause).await;
                service.resume()?;
                dealt.pauses += 1;
                dealt.shortest_pause = dealt.shortest_pause.into_iter().chain([pause]).min();
                continue;
            }
            Fault::Stop => {
                service.terminate()?;
                dealt.longest_stop = dealt.longest_stop.max(service.ended(within).await?);
                dealt.stops += 1;
            }
        }
        sleep(step.away).await;
        dealt.longest_start = dealt.longest_start.max(service.start().await?);
    }
    Ok(dealt)
}
