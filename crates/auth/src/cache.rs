//! Tokens whose signature was verified before: verifying RSA and elliptic curves again for each request would cost what
//! nothing else here does. Only what does not change while the keys stand is remembered; time and revocation are looked at
//! each time, and new keys begin with an empty cache.
//!
//! A token is remembered by its hash. What is not verified is not remembered, so nobody without a key can fill it.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use tailwater_protocol::ProjectId;

use crate::token::Grant;

/// Tokens that were verified, in two generations: who is asked for moves to the younger one, and when that is full the
/// older one goes. So it holds between half and all of what it may, of those that were asked for last.
#[derive(Debug)]
pub(crate) struct Verified {
    /// Of each generation.
    capacity: usize,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Digest, Arc<Grant>>,
    old: HashMap<Digest, Arc<Grant>>,
}

/// The hash of a token and of the project that it was verified for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(project: &ProjectId, token: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        // No project's id holds a NUL, so no two pairs are hashed alike.
        hasher.update(project.as_str().as_bytes()).update(&[0]).update(token.as_bytes());
        Self(hasher.finalize().into())
    }
}

impl Verified {
    /// Room for this many tokens, at least two.
    pub(crate) fn with_capacity(tokens: usize) -> Self {
        Self { capacity: (tokens / 2).max(1), generations: Mutex::default() }
    }

    pub(crate) fn get(&self, digest: Digest) -> Option<Arc<Grant>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grant) = generations.young.get(&digest) {
            return Some(Arc::clone(grant));
        }
        let grant = generations.old.remove(&digest)?;
        generations.keep(digest, Arc::clone(&grant), self.capacity);
        Some(grant)
    }

    pub(crate) fn insert(&self, digest: Digest, grant: Arc<Grant>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.keep(digest, grant, self.capacity);
    }
}

impl Generations {
    fn keep(&mut self, digest: Digest, grant: Arc<Grant>, capacity: usize) {
        if self.young.len() >= capacity {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(digest, grant);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{pattern::Streams, scope::Scopes};

    fn grant(expires_at: u64) -> Arc<Grant> {
        Arc::new(Grant {
            project: ProjectId::default(),
            scopes: Scopes::default(),
            streams: Streams::All,
            expires_at,
            not_before: None,
            id: None,
        })
    }

    fn digest(token: u64) -> Digest {
        Digest::of(&ProjectId::default(), &token.to_string())
    }

    fn len(cache: &Verified) -> usize {
        let generations = cache.generations.lock().unwrap();
        generations.young.len() + generations.old.len()
    }

    #[test]
    fn a_token_is_remembered_for_its_project_alone() {
        let (a, b) = (ProjectId::parse("a").unwrap(), ProjectId::parse("b").unwrap());
        let cache = Verified::with_capacity(4);
        cache.insert(Digest::of(&a, "token"), grant(1));
        assert!(cache.get(Digest::of(&a, "token")).is_some());
        assert!(cache.get(Digest::of(&b, "token")).is_none());
        assert!(cache.get(Digest::of(&a, "token ")).is_none());
    }

    #[test]
    fn who_is_asked_for_stays_and_who_is_not_goes() {
        let cache = Verified::with_capacity(8);
        cache.insert(digest(0), grant(0));
        for other in 1..100 {
            cache.insert(digest(other), grant(other));
            assert!(cache.get(digest(0)).is_some(), "{other}");
        }
        assert!(cache.get(digest(1)).is_none());
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_never_mixes_up_tokens(capacity in 0..10_usize, asked in prop::collection::vec(0..30_u64, 0..200)) {
            let cache = Verified::with_capacity(capacity);
            for token in asked {
                match cache.get(digest(token)) {
                    Some(found) => prop_assert_eq!(found.expires_at, token),
                    None => cache.insert(digest(token), grant(token)),
                }
                prop_assert!(len(&cache) <= capacity.max(2));
            }
        }
    }
}
