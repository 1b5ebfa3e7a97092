//! Quotas: how much a project, and each principal of it, may ask for; and what who asks for more is told.
//!
//! A *principal* is whoever a project tells apart: a token's id, or an address where there is no token. What a project may
//! have, all its principals have together; so no number of principals is worth more than the project's own quota.
//!
//! **Principals are remembered for as long as it matters, and no longer.** One that has taken nothing for so long that all
//! its buckets are full is as good as new, and goes when its place is needed; no other goes, so nobody escapes a limit by
//! making others up. When there is no place left, all newcomers of the project share what one principal has: making up
//! principals hurts the newcomers of one's own project, and nobody else.
//!
//! Counted is what was let in. Whoever is refused is told when to come again, and waits no longer for having asked.
//! Quotas are looked at when it is known who asks: a refused token costs nobody's quota (section 8.2 of the draft).

mod bucket;
mod fields;

use std::{collections::HashMap, num::NonZeroU64, time::Duration};

use tailwater_protocol::ProjectId;

use self::bucket::Bucket;
pub use self::{
    bucket::Policy,
    fields::{Fields, QUOTA_EXCEEDED, REDUCED_CAPACITY},
};

/// The most principals of a project that are told apart.
pub const MAX_PRINCIPALS_PER_PROJECT: usize = 4 * 1024;
/// The most principals of all projects.
pub const MAX_PRINCIPALS: usize = 64 * 1024;
/// How often a full table is searched for principals that are as good as new.
const SWEEP: Duration = Duration::from_secs(1);

/// What is metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metered {
    /// Requests.
    Requests,
    /// Bytes of contents.
    Bytes,
    /// Live responses that are opened.
    Connections,
    /// Live responses that are open.
    Readers,
    /// Streams that are held open.
    Streams,
}

/// Who has a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// All principals of a project together.
    Project,
    /// One of them.
    Principal,
}

/// How much one holder may ask for; without a limit, as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Requests.
    pub requests: Option<Policy>,
    /// Bytes of contents.
    pub bytes: Option<Policy>,
    /// Live responses that are opened.
    pub connections: Option<Policy>,
    /// Live responses that are open at a time.
    pub readers: Option<NonZeroU64>,
    /// Streams that are held open at a time.
    pub streams: Option<NonZeroU64>,
}

/// The quotas of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Of all together.
    pub project: Allowance,
    /// Of each principal.
    pub principal: Allowance,
}

/// Who asks, as a hash that whoever knows makes of it: of a token's id, else of the token, else of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Principal(pub [u8; 16]);

/// Who asks, and what it may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The project.
    pub project: &'a ProjectId,
    /// Who of it.
    pub principal: Principal,
    /// The quotas of the project, as they are now.
    pub quotas: &'a Quotas,
}

/// What a request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Requests.
    pub requests: u64,
    /// Bytes of contents, as far as they are known beforehand.
    pub bytes: u64,
    /// Live responses that are opened.
    pub connections: u64,
}

/// What is held for as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Of a live response.
    Reader,
    /// Of a stream.
    Stream,
}

/// A place that is held, to be given back to [`Meter::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not given back is held for ever"]
pub struct Held {
    project: ProjectId,
    slot: Slot,
    place: Place,
}

/// Where a principal is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Nowhere: nothing was limited.
    Nowhere,
    /// Among those for which there is no place.
    Newcomers,
    /// In its own account.
    Principal(Principal),
}

/// What is left to a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// To whom.
    pub holder: Holder,
    /// Of what.
    pub metered: Metered,
    /// Of how much.
    pub quota: u64,
    /// In how many seconds; `None` of what is held.
    pub window: Option<u32>,
    /// How much.
    pub available: u64,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota `{}` is used up", left.name())]
pub struct Exceeded {
    /// Of what too much was asked.
    pub left: Left,
    /// When there is enough; `None` where a place has to become free.
    pub wait: Option<Duration>,
}

/// What everybody has used on one pod. Times are since any one moment, and do not go back.
#[derive(Debug, Default)]
pub struct Meter {
    projects: HashMap<ProjectId, Book>,
    /// Of all projects.
    principals: usize,
}

/// What one project has used.
#[derive(Debug, Default)]
struct Book {
    own: Account,
    /// Of all principals for which there is no place.
    newcomers: Account,
    principals: HashMap<Principal, Account>,
    swept: Option<Duration>,
}

/// The accounts that a request is for.
struct Accounts<'m> {
    own: &'m mut Account,
    principal: &'m mut Account,
    slot: Slot,
}

/// What one holder has used.
#[derive(Debug, Default)]
struct Account {
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
    connections: Option<Bucket>,
    readers: u64,
    streams: u64,
}

impl Meter {
    /// Lets something in, and counts it, if all quotas have room for it; else none of them is touched.
    ///
    /// # Errors
    /// [`Exceeded`], of the quota that has room last.
    pub fn charge(&mut self, asker: &Asker<'_>, cost: Cost, now: Duration) -> Result<(), Exceeded> {
        let Some(Accounts { own, principal, .. }) = self.accounts(asker, now) else { return Ok(()) };
        let mut exceeded = own.exceeded(Holder::Project, &asker.quotas.project, cost, now);
        exceeded.extend(principal.exceeded(Holder::Principal, &asker.quotas.principal, cost, now));
        let exceeded = exceeded.into_iter().max_by_key(|exceeded| exceeded.wait);
        if let Some(exceeded) = exceeded {
            return Err(exceeded);
        }
        own.take(cost, now);
        principal.take(cost, now);
        Ok(())
    }

    /// Counts what turned out to have been asked for, whether or not there was room for it: later requests wait for it.
    pub fn owe(&mut self, asker: &Asker<'_>, cost: Cost, now: Duration) {
        let Some(Accounts { own, principal, .. }) = self.accounts(asker, now) else { return };
        own.take(cost, now);
        principal.take(cost, now);
    }

    /// Takes a place, if there is one.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn hold(&mut self, asker: &Asker<'_>, place: Place, now: Duration) -> Result<Held, Exceeded> {
        let (project, quotas) = (asker.project.clone(), asker.quotas);
        let Some(Accounts { own, principal, slot }) = self.accounts(asker, now) else {
            return Ok(Held { project, slot: Slot::Nowhere, place });
        };
        let sides = [(Holder::Project, &*own, &quotas.project), (Holder::Principal, &*principal, &quotas.principal)];
        for (holder, account, allowance) in sides {
            if let Some(left) = account.left_of(holder, allowance, place.metered(), now)
                && left.available == 0
            {
                return Err(Exceeded { left, wait: None });
            }
        }
        *own.held(place) += 1;
        *principal.held(place) += 1;
        Ok(Held { project, slot, place })
    }

    /// Gives a place back.
    #[expect(clippy::needless_pass_by_value, reason = "it is given back once")]
    pub fn release(&mut self, held: Held) {
        let Some(book) = self.projects.get_mut(&held.project) else { return };
        let principal = match held.slot {
            Slot::Nowhere => return,
            Slot::Newcomers => Some(&mut book.newcomers),
            Slot::Principal(principal) => book.principals.get_mut(&principal),
        };
        for account in principal.into_iter().chain([&mut book.own]) {
            let count = account.held(held.place);
            *count = count.saturating_sub(1);
        }
    }

    /// What is left to the asker, for [`Fields`].
    pub fn left(&mut self, asker: &Asker<'_>, now: Duration) -> Vec<Left> {
        let Some(Accounts { own, principal, .. }) = self.accounts(asker, now) else { return Vec::new() };
        let sides =
            [(Holder::Project, own, &asker.quotas.project), (Holder::Principal, principal, &asker.quotas.principal)];
        let of_all = sides.into_iter().flat_map(|(holder, account, allowance)| {
            let account = &*account;
            Metered::ALL.into_iter().filter_map(move |metered| account.left_of(holder, allowance, metered, now))
        });
        of_all.collect()
    }

    /// How many places of a project are held, of all its principals.
    #[must_use]
    pub fn held(&self, project: &ProjectId, place: Place) -> u64 {
        self.projects.get(project).map_or(0, |book| match place {
            Place::Reader => book.own.readers,
            Place::Stream => book.own.streams,
        })
    }

    /// Forgets projects that do not exist any more, once nothing of them is held.
    pub fn retain(&mut self, exists: impl Fn(&ProjectId) -> bool) {
        self.projects.retain(|id, book| exists(id) || book.own.readers + book.own.streams > 0);
        self.principals = self.projects.values().map(|book| book.principals.len()).sum();
    }

    /// The accounts that a request is for. `None` where nothing is limited: then nothing is remembered either, and what is
    /// held before a limit comes is not counted under it.
    fn accounts(&mut self, asker: &Asker<'_>, now: Duration) -> Option<Accounts<'_>> {
        let quotas = asker.quotas;
        if *quotas == Quotas::default() {
            return None;
        }
        let Self { projects, principals: total } = self;
        let book = projects.entry(asker.project.clone()).or_default();
        let known = book.principals.len();
        // Where only the project has quotas, it does not matter who of it asks.
        let has_place = quotas.principal != Allowance::default() && book.make_place(asker.principal, *total, now);
        let Book { own, newcomers, principals, .. } = book;
        *total -= known - principals.len();
        let (principal, slot) = if has_place {
            let known = principals.len();
            principals.entry(asker.principal).or_default();
            *total += principals.len() - known;
            (principals.entry(asker.principal).or_default(), Slot::Principal(asker.principal))
        } else {
            (newcomers, Slot::Newcomers)
        };
        own.adopt(&quotas.project, now);
        principal.adopt(&quotas.principal, now);
        Some(Accounts { own, principal, slot })
    }
}

impl Book {
    /// Whether there is a place for a principal, be it its own.
    fn make_place(&mut self, principal: Principal, total: usize, now: Duration) -> bool {
        if self.principals.contains_key(&principal) {
            return true;
        }
        let known = self.principals.len();
        let is_full = |left: usize| left >= MAX_PRINCIPALS_PER_PROJECT || total - (known - left) >= MAX_PRINCIPALS;
        let rested = self.swept.is_none_or(|swept| now.saturating_sub(swept) >= SWEEP);
        if is_full(known) && rested {
            self.swept = Some(now);
            self.principals.retain(|_, account| !account.is_as_good_as_new(now));
        }
        !is_full(self.principals.len())
    }
}

impl Account {
    /// Buckets for what is limited, as it is now.
    fn adopt(&mut self, allowance: &Allowance, now: Duration) {
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
    fn exceeded(&self, holder: Holder, allowance: &Allowance, cost: Cost, now: Duration) -> Vec<Exceeded> {
        let full = |(metered, bucket): (Metered, Option<&Bucket>)| {
            // What a request asks nothing of does not hinder it, be it owed or not.
            let wait = bucket.filter(|_| cost.of(metered) > 0)?.wait(cost.of(metered), now)?;
            Some(Exceeded { left: self.left_of(holder, allowance, metered, now)?, wait: Some(wait) })
        };
        self.buckets().into_iter().filter_map(full).collect()
    }

    fn take(&mut self, cost: Cost, now: Duration) {
        for (bucket, cost) in [
            (&mut self.requests, cost.requests),
            (&mut self.bytes, cost.bytes),
            (&mut self.connections, cost.connections),
        ] {
            if let Some(bucket) = bucket {
                bucket.take(cost, now);
            }
        }
    }

    fn left_of(&self, holder: Holder, allowance: &Allowance, metered: Metered, now: Duration) -> Option<Left> {
        let flowing = |policy: Option<Policy>, bucket: &Option<Bucket>| {
            let (policy, bucket) = (policy?, bucket.as_ref()?);
            Some((policy.quota, Some(policy.window.get()), bucket.available(now)))
        };
        let standing = |most: Option<NonZeroU64>, held: u64| Some((most?, None, most?.get().saturating_sub(held)));
        let (quota, window, available) = match metered {
            Metered::Requests => flowing(allowance.requests, &self.requests),
            Metered::Bytes => flowing(allowance.bytes, &self.bytes),
            Metered::Connections => flowing(allowance.connections, &self.connections),
            Metered::Readers => standing(allowance.readers, self.readers),
            Metered::Streams => standing(allowance.streams, self.streams),
        }?;
        Some(Left { holder, metered, quota: quota.get(), window, available })
    }

    fn held(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Reader => &mut self.readers,
            Place::Stream => &mut self.streams,
        }
    }

    fn is_as_good_as_new(&self, now: Duration) -> bool {
        let full = self.buckets().into_iter().filter_map(|(_, bucket)| bucket).all(|bucket| bucket.is_full(now));
        full && self.readers == 0 && self.streams == 0
    }
}

impl Cost {
    fn of(self, metered: Metered) -> u64 {
        match metered {
            Metered::Requests => self.requests,
            Metered::Bytes => self.bytes,
            Metered::Connections => self.connections,
            Metered::Readers | Metered::Streams => 0,
        }
    }
}

impl Metered {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Requests, Self::Bytes, Self::Connections, Self::Readers, Self::Streams];
}

impl Place {
    fn metered(self) -> Metered {
        match self {
            Self::Reader => Metered::Readers,
            Self::Stream => Metered::Streams,
        }
    }
}

#[cfg(test)]
mod tests;
