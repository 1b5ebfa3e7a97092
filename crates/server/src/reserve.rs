//! Descriptors in reserve, for connections that have to be refused because there are no others.
//!
//! Where the process may open no more files, a connection cannot be accepted, and so not be told why. So each listener
//! keeps some open for nothing but to be given up: one for each connection that is being refused, until that has ended.

use std::{
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::MAX_DESCRIPTOR_REFUSALS;

/// The descriptors that one listener keeps; a cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Reserve {
    kept: Arc<Mutex<Vec<File>>>,
    /// A permit for each that is not lent.
    places: Arc<Semaphore>,
}

/// Room for one connection. Dropped behind its socket, it takes the descriptor back.
#[derive(Debug)]
pub(crate) struct Lent {
    reserve: Reserve,
    _place: OwnedSemaphorePermit,
}

impl Reserve {
    pub(crate) fn new() -> Self {
        let reserve = Self { kept: Arc::default(), places: Arc::new(Semaphore::new(MAX_DESCRIPTOR_REFUSALS)) };
        reserve.fill();
        reserve
    }

    /// Opens what is missing: what was given up can go to somebody else before it is taken back.
    pub(crate) fn fill(&self) {
        let mut kept = self.kept();
        while kept.len() < self.places.available_permits() {
            let Some(file) = open() else { return };
            kept.push(file);
        }
    }

    /// Gives one up, as soon as not all are. Cancel safe.
    pub(crate) async fn lend(&self) -> Lent {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        drop(self.kept().pop());
        Lent { reserve: self.clone(), _place: place }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<File>> {
        // Nothing in here can panic half way.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // At once, before whoever waits for a descriptor gets it: it would be gone for good.
        if let Some(file) = open() {
            self.reserve.kept().push(file);
        }
    }
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn so_many_are_given_up_at_once_and_taken_back() {
        let reserve = Reserve::new();
        let kept = || reserve.kept().len();
        assert_eq!(kept(), MAX_DESCRIPTOR_REFUSALS);
        let mut lent = Vec::new();
        for left in (0..MAX_DESCRIPTOR_REFUSALS).rev() {
            lent.push(reserve.lend().await);
            reserve.fill();
            assert_eq!(kept(), left, "what is given up is not opened again");
        }
        assert!(reserve.lend().now_or_never().is_none(), "nothing is left");
        lent.pop();
        assert_eq!(kept(), 1);
        assert!(reserve.lend().now_or_never().is_some());
        drop(lent);
        assert_eq!(kept(), MAX_DESCRIPTOR_REFUSALS);
    }

    #[test]
    fn what_was_lost_is_opened_again() {
        let reserve = Reserve::new();
        reserve.kept().clear();
        reserve.fill();
        assert_eq!(reserve.kept().len(), MAX_DESCRIPTOR_REFUSALS);
    }
}
