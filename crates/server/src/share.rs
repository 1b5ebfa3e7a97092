//! What each project uses of what all of them share on this pod: requests that are served at once, connections, active
//! streams, and memory for bodies. When one of them is nearly used up, whoever has more than a fair share is refused first
//! ([`tailwater_auth::turn`]).
//!
//! Counted are requests for streams from when it is known that they may be asked until their answer is sent or has left for a
//! delivery shard, so nobody uses up a project's share of them by asking it for what he may not have; and live responses that
//! have a connection to themselves. What a connection is for that asks for nothing, nobody knows. A stream counts for as long
//! as the gateway has it among the active ones, which keeps the [`Using`]. The table has an entry for each project
//! that has been asked for and is in force, or has something under way.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use axum::{body::Body, response::Response};
use http_body::Body as _;
use tailwater_auth::{Claim, Projects, Turn, turn};
use tailwater_fanout::{Allot, Allotment, Crowd, Need};
use tailwater_protocol::ProjectId;

use crate::{admission::Held, guard::Guard, metrics::Metrics};

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    /// Requests that are served at once.
    Requests,
    /// Connections.
    Connections,
    /// Streams that are active.
    Streams,
    /// Memory for bodies, in the unit in which it is handed out.
    Bodies,
}

/// How many kinds of it there are.
const KINDS: usize = Shared::ALL.len();

/// Who uses how much.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    projects: RwLock<HashMap<ProjectId, Arc<Usage>>>,
    all: Arc<All>,
}

/// What concerns all projects.
#[derive(Debug, Default)]
struct All {
    in_force: AtomicUsize,
    /// How many projects use some of each.
    users: [AtomicU64; KINDS],
}

/// How much one project uses of each.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    own: [AtomicU64; KINDS],
    all: Arc<All>,
}

/// A request's use of what is shared, once that has begun. Only whoever serves the request keeps it.
#[derive(Debug, Default)]
pub(crate) struct Entered(OnceLock<Using>);

/// So much of what is shared, in use for as long as this lives.
#[derive(Debug)]
pub(crate) struct Using {
    usage: Arc<Usage>,
    shared: Shared,
    amount: u64,
}

impl Shares {
    /// What a project uses that is one of those in force.
    pub(crate) fn of(&self, id: &ProjectId, in_force: &Projects) -> Arc<Usage> {
        self.all.in_force.store(in_force.len(), Ordering::Relaxed);
        if let Some(usage) = self.projects.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Arc::clone(usage);
        }
        let mut projects = self.projects.write().unwrap_or_else(PoisonError::into_inner);
        projects.retain(|id, usage| in_force.get(id).is_some() || usage.is_used());
        let new = || Arc::new(Usage { all: Arc::clone(&self.all), ..Usage::default() });
        Arc::clone(projects.entry(id.clone()).or_insert_with(new))
    }

    /// Lets streams become active, where tokens are asked for. Whoever asked for a stream, its project has it.
    pub(crate) fn of_streams(self: &Arc<Self>, guard: &Guard, metrics: &Metrics) -> Allot {
        let (shares, guard, metrics) = (Arc::clone(self), guard.clone(), metrics.clone());
        Box::new(move |key, Crowd { active, most }, need| {
            let Ok(id) = ProjectId::parse(&key.project) else { return Some(Box::new(())) };
            let using = shares.of(&id, &guard.projects()).begin(Shared::Streams);
            let refused = match need {
                Need::Request => using.refused(active + 1, most, &metrics),
                Need::Owed => false,
            };
            (!refused).then(|| -> Allotment { Box::new(using) })
        })
    }
}

impl Usage {
    /// Begins with one.
    pub(crate) fn begin(self: &Arc<Self>, shared: Shared) -> Using {
        let mut using = self.begin_with_none(shared);
        using.grow(1);
        using
    }

    /// Begins with nothing yet.
    pub(crate) fn begin_with_none(self: &Arc<Self>, shared: Shared) -> Using {
        Using { usage: Arc::clone(self), shared, amount: 0 }
    }

    fn own(&self, shared: Shared) -> &AtomicU64 {
        &self.own[shared as usize]
    }

    fn users(&self, shared: Shared) -> &AtomicU64 {
        &self.all.users[shared as usize]
    }

    fn is_used(&self) -> bool {
        self.own.iter().any(|own| own.load(Ordering::Relaxed) > 0)
    }
}

impl Entered {
    /// It is known that the request may be asked.
    pub(crate) fn begin(&self, usage: &Arc<Usage>) -> &Using {
        self.0.get_or_init(|| usage.begin(Shared::Requests))
    }

    /// Lasts until the response has been sent, or has left the HTTP library.
    pub(crate) fn last_with(self: Arc<Self>, response: Response) -> Response {
        if response.body().is_end_stream() {
            return response;
        }
        response.map(|body| Body::new(Held::new(body, self)))
    }
}

impl Using {
    /// Whether it is for others to have so much, and not for this project; it is counted if so. `used` is what all have, this
    /// included: what somebody holds already for the same thing does not speak against having more of it.
    pub(crate) fn refused(&self, used: usize, capacity: usize, metrics: &Metrics) -> bool {
        let is_too_much = self.is_too_much(used, capacity);
        if is_too_much {
            metrics.over_share(self.shared);
        }
        is_too_much
    }

    fn is_too_much(&self, used: usize, capacity: usize) -> bool {
        let Self { usage, shared, amount } = self;
        let users = usage.users(*shared).load(Ordering::Relaxed);
        let claim = Claim {
            capacity: capacity as u64,
            used: (used as u64).saturating_sub(*amount),
            own: usage.own(*shared).load(Ordering::Relaxed).saturating_sub(*amount),
            users,
            others_may_come: usage.all.in_force.load(Ordering::Relaxed) as u64 > users,
        };
        // Where nothing is left, whoever hands it out has said so.
        turn(claim) == Turn::Others
    }

    /// Uses so much more.
    pub(crate) fn grow(&mut self, more: u64) {
        self.amount += more;
        if more > 0 && self.usage.own(self.shared).fetch_add(more, Ordering::Relaxed) == 0 {
            self.usage.users(self.shared).fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let amount = self.amount;
        if amount > 0 && self.usage.own(self.shared).fetch_sub(amount, Ordering::Relaxed) == amount {
            self.usage.users(self.shared).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// All of it.
    pub(crate) const ALL: [Self; 4] = [Self::Requests, Self::Connections, Self::Streams, Self::Bodies];

    /// A stable name.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Connections => "connections",
            Self::Streams => "streams",
            Self::Bodies => "bodies",
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_auth::File;

    use super::*;

    fn projects(ids: &[&str]) -> Projects {
        let secret = "hunter2".repeat(8);
        let table = |id: &&str| {
            format!("[[project]]\nid = '{id}'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = '{secret}'\n")
        };
        let text: String = ids.iter().map(table).collect();
        Projects::parse([File { name: "projects.toml", bytes: text.as_bytes() }]).unwrap()
    }

    fn id(text: &str) -> ProjectId {
        ProjectId::parse(text).unwrap()
    }

    #[test]
    fn a_greedy_project_leaves_the_last_fifth_to_others_and_gets_it_back_when_they_have_gone() {
        let (shares, in_force) = (Shares::default(), projects(&["a", "b", "c"]));
        let (a, b) = (shares.of(&id("a"), &in_force), shares.of(&id("b"), &in_force));
        let mut greedy: Vec<_> = (0..8).map(|_| a.begin(Shared::Requests)).collect();
        assert!(!greedy[7].is_too_much(8, 10), "there is plenty");
        greedy.push(a.begin(Shared::Requests));
        assert!(greedy[8].is_too_much(9, 10));
        assert!(!a.begin(Shared::Connections).is_too_much(9, 10), "of that it has none");
        greedy.pop();
        let modest = b.begin(Shared::Requests);
        assert!(!modest.is_too_much(9, 10));
        drop((modest, greedy));
        let again = a.begin(Shared::Requests);
        assert!(!again.is_too_much(9, 10), "it has less than its share");
        assert_eq!(a.users(Shared::Requests).load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_comes_in_pieces_counts_as_what_it_is_in_all_and_not_against_itself() {
        let (shares, in_force) = (Shares::default(), projects(&["a", "b"]));
        let a = shares.of(&id("a"), &in_force);
        let (mut body, mut other) = (a.begin_with_none(Shared::Bodies), a.begin_with_none(Shared::Bodies));
        assert_eq!(a.users(Shared::Bodies).load(Ordering::Relaxed), 0, "who holds nothing is no user");
        body.grow(50);
        body.grow(36);
        assert!(!body.is_too_much(86, 100), "it is all that there is");
        other.grow(1);
        assert!(other.is_too_much(87, 100), "another one is one too many");
        assert!(!body.is_too_much(87, 100));
        drop(other);
        assert_eq!(a.own(Shared::Bodies).load(Ordering::Relaxed), 86);
        drop(body);
        assert_eq!((a.users(Shared::Bodies).load(Ordering::Relaxed), a.is_used()), (0, false));
    }

    #[test]
    fn one_project_alone_may_have_everything() {
        let (shares, in_force) = (Shares::default(), projects(&["a"]));
        let a = shares.of(&id("a"), &in_force);
        let all: Vec<_> = (0..10).map(|_| a.begin(Shared::Connections)).collect();
        assert!(!all[9].is_too_much(10, 10));
    }

    #[test]
    fn a_project_that_is_gone_is_forgotten_when_nothing_of_it_is_under_way() {
        let shares = Shares::default();
        let before = projects(&["a", "b"]);
        let under_way = shares.of(&id("a"), &before).begin(Shared::Requests);
        drop(shares.of(&id("b"), &before));
        let after = projects(&["c", "d"]);
        drop(shares.of(&id("c"), &after));
        let known = || {
            let mut ids: Vec<_> = shares.projects.read().unwrap().keys().map(ToString::to_string).collect();
            ids.sort();
            ids
        };
        assert_eq!(known(), ["a", "c"]);
        drop(under_way);
        drop(shares.of(&id("d"), &after));
        assert_eq!(known(), ["c", "d"]);
    }
}
