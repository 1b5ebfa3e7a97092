//! The quotas of a project, as TOML: what all its principals may have together, and in `principal` what each may have.
//!
//! What would never refuse anything is a mistake, and is refused itself.

use std::num::{NonZeroU32, NonZeroU64};

use serde::Deserialize;

use crate::quota::{Allowance, Metered, Policy, Quotas};

/// What is wrong with quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotaFault {
    /// A table has nothing in it.
    #[error("a table of quotas has at least one")]
    Empty,
    /// What a principal may have is no less than what all may have together.
    #[error("`principal`: `{}` would do nothing, for the project as a whole may have no more", metered.as_str())]
    Idle {
        /// Of what.
        metered: Metered,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct QuotaTable {
    requests: Option<PolicyTable>,
    bytes: Option<PolicyTable>,
    connections: Option<PolicyTable>,
    readers: Option<NonZeroU64>,
    streams: Option<NonZeroU64>,
    principal: Option<PrincipalTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PrincipalTable {
    requests: Option<PolicyTable>,
    bytes: Option<PolicyTable>,
    connections: Option<PolicyTable>,
    readers: Option<NonZeroU64>,
    streams: Option<NonZeroU64>,
}

/// So much in so many seconds.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PolicyTable {
    most: NonZeroU64,
    within: NonZeroU32,
}

impl QuotaTable {
    pub(super) fn quotas(self) -> Result<Quotas, QuotaFault> {
        let Self { requests, bytes, connections, readers, streams, principal } = self;
        let project = Allowance { readers, streams, ..flows(requests, bytes, connections) };
        let principal = principal.map(PrincipalTable::allowance).transpose()?.unwrap_or_default();
        let quotas = Quotas { project, principal };
        if quotas == Quotas::default() {
            return Err(QuotaFault::Empty);
        }
        match idle(&project, &principal) {
            Some(metered) => Err(QuotaFault::Idle { metered }),
            None => Ok(quotas),
        }
    }
}

impl PrincipalTable {
    fn allowance(self) -> Result<Allowance, QuotaFault> {
        let Self { requests, bytes, connections, readers, streams } = self;
        let allowance = Allowance { readers, streams, ..flows(requests, bytes, connections) };
        if allowance == Allowance::default() { Err(QuotaFault::Empty) } else { Ok(allowance) }
    }
}

/// What flows; what is held has no window.
fn flows(requests: Option<PolicyTable>, bytes: Option<PolicyTable>, connections: Option<PolicyTable>) -> Allowance {
    let policy =
        |table: Option<PolicyTable>| table.map(|PolicyTable { most, within }| Policy { quota: most, window: within });
    Allowance {
        requests: policy(requests),
        bytes: policy(bytes),
        connections: policy(connections),
        ..Allowance::default()
    }
}

/// What one may have no less of than all together, at once and as it comes back.
fn idle(project: &Allowance, principal: &Allowance) -> Option<Metered> {
    let rate = |of: Policy, window: Policy| u128::from(of.quota.get()) * u128::from(window.window.get());
    let flowing = |all: Option<Policy>, one: Option<Policy>| {
        all.zip(one).is_some_and(|(all, one)| one.quota >= all.quota && rate(one, all) >= rate(all, one))
    };
    let held = |all: Option<NonZeroU64>, one: Option<NonZeroU64>| all.zip(one).is_some_and(|(all, one)| one >= all);
    let table = [
        (Metered::Requests, flowing(project.requests, principal.requests)),
        (Metered::Bytes, flowing(project.bytes, principal.bytes)),
        (Metered::Connections, flowing(project.connections, principal.connections)),
        (Metered::Readers, held(project.readers, principal.readers)),
        (Metered::Streams, held(project.streams, principal.streams)),
    ];
    table.into_iter().find_map(|(metered, is_idle)| is_idle.then_some(metered))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(text: &str) -> Result<Quotas, String> {
        let table: QuotaTable = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        table.quotas().map_err(|fault| fault.to_string())
    }

    fn policy(quota: u64, window: u32) -> Option<Policy> {
        Some(Policy { quota: NonZeroU64::new(quota)?, window: NonZeroU32::new(window)? })
    }

    #[test]
    fn what_is_said_is_in_force_and_nothing_else() {
        let text = "requests = { most = 1000, within = 10 }\nbytes = { most = 8000000, within = 60 }\nstreams = 50\n\
                    [principal]\nconnections = { most = 5, within = 1 }\nreaders = 3\nstreams = 2\n";
        let expected = Quotas {
            project: Allowance {
                requests: policy(1000, 10),
                bytes: policy(8_000_000, 60),
                streams: NonZeroU64::new(50),
                ..Allowance::default()
            },
            principal: Allowance {
                connections: policy(5, 1),
                readers: NonZeroU64::new(3),
                streams: NonZeroU64::new(2),
                ..Allowance::default()
            },
        };
        assert_eq!(quotas(text), Ok(expected));
    }

    #[test]
    fn what_would_do_nothing_is_refused() {
        let idle =
            |what: &str| format!("`principal`: `{what}` would do nothing, for the project as a whole may have no more");
        let empty = "a table of quotas has at least one".to_owned();
        let table = [
            ("", empty.clone()),
            ("readers = 5\n[principal]\n", empty),
            ("readers = 5\n[principal]\nreaders = 5\n", idle("readers")),
            ("streams = 5\n[principal]\nstreams = 6\n", idle("streams")),
            (
                "requests = { most = 10, within = 10 }\n[principal]\nrequests = { most = 10, within = 10 }\n",
                idle("requests"),
            ),
            ("bytes = { most = 10, within = 10 }\n[principal]\nbytes = { most = 11, within = 11 }\n", idle("bytes")),
        ];
        for (text, fault) in table {
            assert_eq!(quotas(text), Err(fault), "{text}");
        }
        // A smaller burst at a higher rate, or a larger one at a lower rate, is a limit.
        for one in ["{ most = 5, within = 1 }", "{ most = 20, within = 100 }"] {
            let text = format!("requests = {{ most = 10, within = 10 }}\n[principal]\nrequests = {one}\n");
            assert!(quotas(&text).is_ok(), "{one}");
        }
    }

    #[test]
    fn what_is_no_quota_is_refused() {
        for text in [
            "requests = 10\n",
            "requests = { most = 0, within = 10 }\n",
            "requests = { most = 10, within = 0 }\n",
            "requests = { most = 10 }\n",
            "requests = { most = 10, within = 10, per = 1 }\n",
            "readers = 0\n",
            "readers = -1\n",
            "appends = 1\n",
            "[principal]\nstreams = 0\n",
        ] {
            assert!(quotas(text).is_err(), "{text}");
        }
    }
}
