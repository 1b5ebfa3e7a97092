//! What one holder has used, and what all of a kind have.

use std::{
    collections::{HashMap, hash_map::Entry},
    num::NonZeroU64,
    time::Duration,
};

use super::{
    ASSURED_PRINCIPALS, Allowance, Cost, Exceeded, Holder, Left, MAX_PRINCIPALS, MAX_PRINCIPALS_PER_PROJECT, Metered,
    Policy, Principal, StreamPrint, bucket::Bucket,
};

/// How often a full table is searched for principals that are as good as new.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

/// What one holder has used.
#[derive(Debug, Default)]
pub(super) struct Account {
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
    connections: Option<Bucket>,
    readers: u64,
    /// Streams that are followed, and by how many live responses; but for what was held before these were limited.
    followed: HashMap<StreamPrint, u64>,
}

/// What a project's principals of one kind have used.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Of all for which there is no place.
    pub(super) newcomers: Account,
    pub(super) principals: HashMap<Principal, Account>,
    swept: Option<Duration>,
}

impl Account {
    /// Full buckets for what is limited and has none. Those that there are stay as they are.
    pub(super) fn open(&mut self, allowance: &Allowance, now: Duration) {
        for (bucket, policy) in [
            (&mut self.requests, allowance.requests),
            (&mut self.bytes, allowance.bytes),
            (&mut self.connections, allowance.connections),
        ] {
            if let (None, Some(policy)) = (&bucket, policy) {
                *bucket = Some(Bucket::full(policy, now));
            }
        }
    }

    /// Buckets for what is limited, as it is now.
    pub(super) fn adopt(&mut self, allowance: &Allowance, now: Duration) {
        for (bucket, policy) in [
            (&mut self.requests, allowance.requests),
            (&mut self.bytes, allowance.bytes),
            (&mut self.connections, allowance.connections),
        ] {
            match (bucket.as_mut(), policy) {
                (Some(bucket), Some(policy)) => bucket.adopt(policy, now),
                (None, Some(policy)) => *bucket = Some(Bucket::full(policy, now)),
                (_, None) => *bucket = None,
            }
        }
    }

    fn buckets(&self) -> [(Metered, Option<&Bucket>); 3] {
        [
            (Metered::Requests, self.requests.as_ref()),
            (Metered::Bytes, self.bytes.as_ref()),
            (Metered::Connections, self.connections.as_ref()),
        ]
    }

    /// What has no room for this cost.
    pub(super) fn exceeded(&self, holder: Holder, allowance: &Allowance, cost: Cost, now: Duration) -> Vec<Exceeded> {
        let full = |(metered, bucket): (Metered, Option<&Bucket>)| {
            // What a request asks nothing of does not hinder it, be it owed or not.
            let wait = bucket.filter(|_| cost.of(metered) > 0)?.wait(cost.of(metered), now)?;
            Some(Exceeded { left: self.left_of(holder, allowance, metered, now)?, wait: Some(wait) })
        };
        self.buckets().into_iter().filter_map(full).collect()
    }

    pub(super) fn take(&mut self, cost: Cost, now: Duration) {
        for (bucket, cost) in self.buckets_of(cost) {
            bucket.take(cost, now);
        }
    }

    pub(super) fn give_back(&mut self, cost: Cost, now: Duration) {
        for (bucket, cost) in self.buckets_of(cost) {
            bucket.give_back(cost, now);
        }
    }

    fn buckets_of(&mut self, cost: Cost) -> impl Iterator<Item = (&mut Bucket, u64)> {
        let all = [
            (&mut self.requests, cost.requests),
            (&mut self.bytes, cost.bytes),
            (&mut self.connections, cost.connections),
        ];
        all.into_iter().filter_map(|(bucket, cost)| Some((bucket.as_mut()?, cost)))
    }

    pub(super) fn left_of(
        &self,
        holder: Holder,
        allowance: &Allowance,
        metered: Metered,
        now: Duration,
    ) -> Option<Left> {
        let flowing = |policy: Option<Policy>, bucket: &Option<Bucket>| {
            // What is limited for the asker may be so in another way by now.
            let bucket = policy.and(bucket.as_ref())?;
            let policy = bucket.policy();
            Some((policy.quota, Some(policy.window.get()), bucket.available(now)))
        };
        let standing = |most: Option<NonZeroU64>, held: u64| Some((most?, None, most?.get().saturating_sub(held)));
        let (quota, window, available) = match metered {
            Metered::Requests => flowing(allowance.requests, &self.requests),
            Metered::Bytes => flowing(allowance.bytes, &self.bytes),
            Metered::Connections => flowing(allowance.connections, &self.connections),
            Metered::Readers => standing(allowance.readers, self.readers),
            Metered::Streams => standing(allowance.streams, self.followed.len() as u64),
        }?;
        Some(Left { holder, metered, quota: quota.get(), window, available })
    }

    pub(super) fn readers(&self) -> u64 {
        self.readers
    }

    /// Whether a live response of this holder has the stream already: one more takes no more of the store.
    pub(super) fn follows(&self, stream: StreamPrint) -> bool {
        self.followed.contains_key(&stream)
    }

    pub(super) fn hold(&mut self, stream: Option<StreamPrint>) {
        self.readers += 1;
        if let Some(stream) = stream {
            *self.followed.entry(stream).or_default() += 1;
        }
    }

    pub(super) fn release(&mut self, stream: Option<StreamPrint>) {
        self.readers = self.readers.saturating_sub(1);
        if let Some(stream) = stream
            && let Entry::Occupied(mut count) = self.followed.entry(stream)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.readers == 0 && self.followed.is_empty()
    }

    fn is_as_good_as_new(&self, now: Duration) -> bool {
        let full = self.buckets().into_iter().filter_map(|(_, bucket)| bucket).all(|bucket| bucket.is_full(now));
        full && self.is_unused()
    }
}

impl Crowd {
    /// Whether there is a place for a principal, be it its own.
    pub(super) fn make_place(&mut self, principal: Principal, total: usize, now: Duration) -> bool {
        if self.principals.contains_key(&principal) {
            return true;
        }
        let known = self.principals.len();
        let is_full = |left: usize| {
            let all = total - (known - left);
            left >= MAX_PRINCIPALS_PER_PROJECT || left >= ASSURED_PRINCIPALS && all >= MAX_PRINCIPALS
        };
        let rested = self.swept.is_none_or(|swept| now.saturating_sub(swept) >= SWEEP);
        if is_full(known) && rested {
            self.swept = Some(now);
            self.sweep(now);
        }
        !is_full(self.principals.len())
    }

    /// Forgets who is as good as new.
    pub(super) fn sweep(&mut self, now: Duration) {
        self.principals.retain(|_, account| !account.is_as_good_as_new(now));
    }
}
