//! What an answer says about limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, sections 3
//! and 4; structured fields, RFC 9651), and `Retry-After` (RFC 9110, section 10.2.3).
//!
//! Said is what concerns the asker alone. What is left of a project's quotas would tell each of its clients what the others
//! do (section 8.2), so that is said only where it is why something was refused.

use std::{fmt::Write as _, time::Duration};

use crate::quota::{Exceeded, Holder, Left, Metered};

/// The largest integer of a structured field.
const MAX_INTEGER: u64 = 999_999_999_999_999;
/// How much the values take, as a rule.
const ROOM: usize = 128;
/// What `Retry-After` says where a place has to become free, in seconds.
const PLACE_WAIT: u64 = 5;

/// The problem type of an answer to who has exceeded a quota (section 5.1); its member `violated-policies` has the names.
pub const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// The problem type of an answer to who is refused for the sake of others (section 5.2).
pub const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// The values of the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// `RateLimit-Policy`.
    pub policy: String,
    /// `RateLimit`.
    pub limit: String,
}

impl Fields {
    /// Of an answer to who has this left; `None` where nothing limits it.
    #[must_use]
    pub fn of(left: &[Left], exceeded: Option<&Exceeded>) -> Option<Self> {
        if left.is_empty() && exceeded.is_none() {
            return None;
        }
        let own = left.iter().filter(|left| left.holder == Holder::Principal);
        let refused = exceeded.map(|exceeded| &exceeded.left).filter(|left| left.holder == Holder::Project);
        let (mut policy, mut limit) = (String::with_capacity(ROOM), String::with_capacity(ROOM));
        // What is neither a request, nor a byte, nor under way is of no unit that the draft has.
        for left in own.chain(refused).filter(|left| left.metered != Metered::Streams) {
            let cut = if policy.is_empty() { "" } else { ", " };
            let (name, quota) = (left.name(), left.quota.min(MAX_INTEGER));
            let (unit, available) = (left.metered.unit(), left.available.min(MAX_INTEGER));
            write!(policy, "{cut}\"{name}\";q={quota}{unit}").expect("a text takes all");
            write!(limit, "{cut}\"{name}\";r={available}").expect("a text takes all");
            if let Some(window) = left.window {
                write!(policy, ";w={window}").expect("a text takes all");
                // Where something is left, that for a whole window: who spreads it so stays below the quota.
                let within = match exceeded.filter(|exceeded| exceeded.left == *left) {
                    Some(exceeded) => exceeded.seconds(),
                    None => u64::from(window),
                };
                write!(limit, ";t={within}").expect("a text takes all");
            }
        }
        (!policy.is_empty()).then_some(Self { policy, limit })
    }
}

impl Exceeded {
    /// `Retry-After`, in seconds: no earlier than `t` of the field beside it, and later by a random part of `spread`, so that
    /// not all who were refused come back at once. `chance` is drawn between 0 and 1.
    #[must_use]
    pub fn retry_after(&self, spread: Duration, chance: f64) -> u64 {
        let part = spread.mul_f64(chance.clamp(0.0, 1.0));
        self.seconds() + part.as_secs()
    }

    fn seconds(&self) -> u64 {
        let Some(wait) = self.wait else { return PLACE_WAIT };
        (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
    }
}

impl Left {
    /// The name of its policy.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.holder, self.metered) {
            (Holder::Principal, metered) => metered.as_str(),
            (Holder::Project, Metered::Requests) => "project-requests",
            (Holder::Project, Metered::Bytes) => "project-bytes",
            (Holder::Project, Metered::Connections) => "project-connections",
            (Holder::Project, Metered::Readers) => "project-readers",
            (Holder::Project, Metered::Streams) => "project-streams",
        }
    }
}

impl Metered {
    /// A stable name, for policies and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Connections => "connections",
            Self::Readers => "readers",
            Self::Streams => "streams",
        }
    }

    /// The unit, where it is not requests; connections are counted by the requests that open them.
    fn unit(self) -> &'static str {
        match self {
            Self::Bytes => ";qu=\"content-bytes\"",
            Self::Readers => ";qu=\"concurrent-requests\"",
            Self::Requests | Self::Connections | Self::Streams => "",
        }
    }
}
