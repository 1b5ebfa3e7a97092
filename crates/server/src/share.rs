//! What each project uses of what all of them share on this pod: requests that are served at once, and connections. When
//! one of them is nearly used up, whoever has more than a fair share is refused first ([`tailwater_auth::turn`]).
//!
//! Counted are requests for streams from when it is known that they may be asked until their answer is sent or has left for a
//! delivery shard, so nobody uses up a project's share by asking it for what he may not have; and live responses that have a connection to themselves. What a connection is for that asks for nothing, nobody
//! knows. The table has an entry for each project that has been asked for and is in force, or has something under way.

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
use tailwater_protocol::ProjectId;

use crate::admission::Held;

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    /// Requests that are served at once.
    Requests,
    /// Connections.
    Connections,
}

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
    users: [AtomicU64; 2],
}

/// How much one project uses of each.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    own: [AtomicU64; 2],
    all: Arc<All>,
}

/// A request's use of what is shared, once that has begun. Only whoever serves the request keeps it.
#[derive(Debug, Default)]
pub(crate) struct Entered(OnceLock<Using>);

/// One of what is shared, in use for as long as this lives.
#[derive(Debug)]
pub(crate) struct Using {
    usage: Arc<Usage>,
    shared: Shared,
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
}

impl Usage {
    pub(crate) fn begin(self: &Arc<Self>, shared: Shared) -> Using {
        if self.own(shared).fetch_add(1, Ordering::Relaxed) == 0 {
            self.users(shared).fetch_add(1, Ordering::Relaxed);
        }
        Using { usage: Arc::clone(self), shared }
    }

    /// Whether it is for others to have one, and not for this project, which has just begun with one more. `used` is what
    /// all have, that one included.
    pub(crate) fn is_too_much(&self, shared: Shared, used: usize, capacity: usize) -> bool {
        let users = self.users(shared).load(Ordering::Relaxed);
        let claim = Claim {
            capacity: capacity as u64,
            used: (used as u64).saturating_sub(1),
            own: self.own(shared).load(Ordering::Relaxed).saturating_sub(1),
            users,
            others_may_come: self.all.in_force.load(Ordering::Relaxed) as u64 > users,
        };
        // Where nothing is left, whoever hands it out has said so.
        turn(claim) == Turn::Others
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
    pub(crate) fn begin(&self, usage: &Arc<Usage>) {
        self.0.get_or_init(|| usage.begin(Shared::Requests));
    }

    /// Lasts until the response has been sent, or has left the HTTP library.
    pub(crate) fn last_with(self: Arc<Self>, response: Response) -> Response {
        if response.body().is_end_stream() {
            return response;
        }
        response.map(|body| Body::new(Held::new(body, self)))
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        if self.usage.own(self.shared).fetch_sub(1, Ordering::Relaxed) == 1 {
            self.usage.users(self.shared).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// A stable name.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Connections => "connections",
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
        assert!(!a.is_too_much(Shared::Requests, 8, 10), "there is plenty");
        greedy.push(a.begin(Shared::Requests));
        assert!(a.is_too_much(Shared::Requests, 9, 10));
        assert!(!a.is_too_much(Shared::Connections, 9, 10), "of that it has none");
        greedy.pop();
        let modest = b.begin(Shared::Requests);
        assert!(!b.is_too_much(Shared::Requests, 9, 10));
        drop((modest, greedy));
        let _again = a.begin(Shared::Requests);
        assert!(!a.is_too_much(Shared::Requests, 9, 10), "it has less than its share");
        assert_eq!(a.users(Shared::Requests).load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_project_alone_may_have_everything() {
        let (shares, in_force) = (Shares::default(), projects(&["a"]));
        let a = shares.of(&id("a"), &in_force);
        let _all: Vec<_> = (0..10).map(|_| a.begin(Shared::Connections)).collect();
        assert!(!a.is_too_much(Shared::Connections, 10, 10));
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
