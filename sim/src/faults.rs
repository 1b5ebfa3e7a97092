//! Faults that wait for the operation that they are meant for, and the count of those that were met.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tailwater_upstream::StreamKey;

use crate::script::{Fault, FaultKind, key_of};

/// The faults of one world.
#[derive(Debug, Default)]
pub struct Faults {
    armed: Mutex<Vec<Fault>>,
    met: Mutex<BTreeMap<FaultKind, u64>>,
}

impl Faults {
    /// Lets a fault wait.
    pub fn arm(&self, fault: Fault) {
        lock(&self.armed).push(fault);
    }

    /// None waits any more.
    pub fn disarm(&self) {
        lock(&self.armed).clear();
    }

    /// Takes the first of these kinds that waits for a stream, and counts it.
    pub fn for_stream(&self, key: &StreamKey, kinds: &[FaultKind]) -> Option<Fault> {
        self.take(|fault| kinds.contains(&fault.kind) && key_of(fault.stream) == *key)
    }

    /// Takes the first of a kind that waits for a pod, and counts it.
    pub fn for_pod(&self, pod: usize, kind: FaultKind) -> Option<Fault> {
        self.take(|fault| fault.kind == kind && fault.pod == pod)
    }

    /// One of a kind was met.
    pub fn count(&self, kind: FaultKind) {
        *lock(&self.met).entry(kind).or_default() += 1;
    }

    /// How often each kind was met.
    #[must_use]
    pub fn met(&self) -> BTreeMap<FaultKind, u64> {
        lock(&self.met).clone()
    }

    fn take(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut armed = lock(&self.armed);
        let at = armed.iter().position(wanted)?;
        let fault = armed.remove(at);
        self.count(fault.kind);
        Some(fault)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
