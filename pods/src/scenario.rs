//! The scenarios. Each starts what it needs, lets clients at it, and tells what it found.

pub mod chaos;
pub mod contend;
pub mod outage;
pub mod rolling;
pub mod trust;

use std::time::Duration;

use crate::{cluster::Cluster, report::Findings, writer::Habits};

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For every push.
    Short,
    /// For a proof.
    Long,
}

/// Writers that only write.
const PLAINLY: Habits = Habits { most: 1, padding: 100, large: 0.0, crash: 0.0, twice: 0.0, look: 0.0 };

/// Ends everything. Where something does not hold, the files of all processes are left, and told where.
fn leave(cluster: Cluster, mut findings: Findings) -> Findings {
    if !findings.hold() {
        findings.figure("files", cluster.leave());
    }
    findings
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}
