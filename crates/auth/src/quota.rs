//! Quotas: how much a project, and each principal of it, may ask for; and what who asks for more is told.
//!
//! A *principal* is whoever a project tells apart: a token's id, or an address where there is no token. What a project may
//! have, all its principals have together; so no number of principals is worth more than the project's own quota.
//!
//! **Principals are remembered for as long as it matters, and no longer.** One that has taken nothing for so long that all
//! its buckets are full is as good as new, and goes when its place is needed; no other goes, so nobody escapes a limit by
//! making others up. When there is no place left, all newcomers of the project share what one principal has: making up
//! principals hurts the newcomers of one's own project, and those of others only where these have more than
//! [some](ASSURED_PRINCIPALS), whose places nobody can take. Addresses cost nothing, so they have a table of their own, and
//! take no place from tokens.
//!
//! Counted is what was let in. Whoever is refused is told when to come again, and waits no longer for having asked; what was
//! counted before there turned out to be no place for it is [given back](Meter::give_back). What is let in or not is judged
//! by the quotas as they are when it asks; what it owes later counts under those that are in force by then, and brings no old
//! ones back.
//! Quotas are looked at when it is known who asks: a refused token costs nobody's quota (section 8.2 of the draft).

mod account;
mod bucket;
mod fields;
mod principal;

use std::{collections::HashMap, num::NonZeroU64, time::Duration};

use tailwater_protocol::ProjectId;

use self::{
    account::{Account, Crowd, SWEEP},
    principal::{Kind, hash},
};
pub use self::{
    bucket::Policy,
    fields::{Fields, QUOTA_EXCEEDED, REDUCED_CAPACITY},
    principal::Principal,
};

/// The most principals of a project that are told apart: so many tokens, and so many addresses.
pub const MAX_PRINCIPALS_PER_PROJECT: usize = 4 * 1024;
/// The same of all projects, but for what each has in any case.
pub const MAX_PRINCIPALS: usize = 32 * 1024;
/// So many a project has in any case, of tokens and of addresses, however many others have.
pub const ASSURED_PRINCIPALS: usize = 256;

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
    /// Streams that are followed, each once.
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
    /// Streams that are followed at a time, each once: each costs a session at the store.
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

/// A live response's place, to be given back to [`Meter::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not given back is held for ever"]
pub struct Held {
    project: ProjectId,
    slot: Slot,
    /// The stream, where these are limited.
    stream: Option<StreamPrint>,
}

/// A stream's name, as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct StreamPrint([u8; 16]);

/// Where a principal is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Nowhere: nothing was limited.
    Nowhere,
    /// Among those of its kind for which there is no place.
    Newcomers(Kind),
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
    tokens: usize,
    /// Of all projects.
    addresses: usize,
    swept: Option<Duration>,
}

/// What one project has used.
#[derive(Debug, Default)]
struct Book {
    own: Account,
    tokens: Crowd,
    addresses: Crowd,
}

/// The accounts that a request is for.
struct Accounts<'m> {
    own: &'m mut Account,
    principal: &'m mut Account,
    slot: Slot,
}

impl Meter {
    /// Lets something in, and counts it, if all quotas have room for it; else none of them is touched.
    ///
    /// # Errors
    /// [`Exceeded`], of the quota that has room last.
    pub fn charge(&mut self, asker: &Asker<'_>, cost: Cost, now: Duration) -> Result<(), Exceeded> {
        let Some(mut accounts) = self.accounts(asker, now) else { return Ok(()) };
        accounts.adopt(asker.quotas, now);
        let Accounts { own, principal, .. } = accounts;
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

    /// Counts what turned out to have been asked for, whether or not there was room for it: later requests wait for it. The
    /// asker's quotas may have changed since it was let in.
    pub fn owe(&mut self, asker: &Asker<'_>, cost: Cost, now: Duration) {
        let Some(Accounts { own, principal, .. }) = self.accounts(asker, now) else { return };
        own.take(cost, now);
        principal.take(cost, now);
    }

    /// Gives back what was [charged](Self::charge) for what was not let in after all.
    pub fn give_back(&mut self, asker: &Asker<'_>, cost: Cost, now: Duration) {
        let Some(Accounts { own, principal, .. }) = self.accounts(asker, now) else { return };
        own.give_back(cost, now);
        principal.give_back(cost, now);
    }

    /// Takes the place of a live response that follows a stream, if there is one.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn hold(&mut self, asker: &Asker<'_>, stream: &str, now: Duration) -> Result<Held, Exceeded> {
        let (project, quotas) = (asker.project.clone(), asker.quotas);
        let Some(mut accounts) = self.accounts(asker, now) else {
            return Ok(Held { project, slot: Slot::Nowhere, stream: None });
        };
        accounts.adopt(quotas, now);
        let Accounts { own, principal, slot } = accounts;
        let is_limited = quotas.project.streams.or(quotas.principal.streams).is_some();
        let stream = is_limited.then(|| StreamPrint(hash(b"stream", stream.as_bytes())));
        let sides = [(Holder::Project, &*own, &quotas.project), (Holder::Principal, &*principal, &quotas.principal)];
        for (holder, account, allowance) in sides {
            let of = |metered| account.left_of(holder, allowance, metered, now);
            let readers = of(Metered::Readers);
            let streams = stream.filter(|stream| !account.follows(*stream)).and_then(|_| of(Metered::Streams));
            if let Some(left) = [readers, streams].into_iter().flatten().find(|left| left.available == 0) {
                return Err(Exceeded { left, wait: None });
            }
        }
        own.hold(stream);
        principal.hold(stream);
        Ok(Held { project, slot, stream })
    }

    /// Gives a place back.
    #[expect(clippy::needless_pass_by_value, reason = "it is given back once")]
    pub fn release(&mut self, held: Held) {
        let Some(book) = self.projects.get_mut(&held.project) else { return };
        let principal = match held.slot {
            Slot::Nowhere => return,
            Slot::Newcomers(kind) => Some(&mut book.crowd(kind).newcomers),
            Slot::Principal(principal) => book.crowd(principal.kind()).principals.get_mut(&principal),
        };
        if let Some(account) = principal {
            account.release(held.stream);
        }
        book.own.release(held.stream);
    }

    /// What is left to the asker of its own quotas, for [`Fields`]: under those in force, where they have changed since it
    /// was let in.
    pub fn left(&mut self, asker: &Asker<'_>, now: Duration) -> Vec<Left> {
        let mut left = Vec::with_capacity(Metered::ALL.len());
        if let Some(Accounts { principal, .. }) = self.accounts(asker, now) {
            let allowance = &asker.quotas.principal;
            let of = |metered| principal.left_of(Holder::Principal, allowance, metered, now);
            left.extend(Metered::ALL.into_iter().filter_map(of));
        }
        left
    }

    /// How many live responses of a project are open, of all its principals.
    #[must_use]
    pub fn readers(&self, project: &ProjectId) -> u64 {
        self.projects.get(project).map_or(0, |book| book.own.readers())
    }

    /// How many principals are remembered.
    #[must_use]
    pub fn principals(&self) -> usize {
        self.tokens + self.addresses
    }

    /// Forgets projects that have no quotas any more, or do not exist, once nothing of them is held.
    pub fn retain(&mut self, has_quotas: impl Fn(&ProjectId) -> bool) {
        self.projects.retain(|id, book| has_quotas(id) || book.own.readers() > 0);
        self.count();
    }

    /// Makes room where the principals of other projects take it up that are as good as new.
    fn sweep(&mut self, now: Duration) {
        let is_full = self.tokens >= MAX_PRINCIPALS || self.addresses >= MAX_PRINCIPALS;
        let rested = self.swept.is_none_or(|swept| now.saturating_sub(swept) >= SWEEP);
        if is_full && rested {
            self.swept = Some(now);
            for book in self.projects.values_mut() {
                book.tokens.sweep(now);
                book.addresses.sweep(now);
            }
            self.count();
        }
    }

    fn count(&mut self) {
        self.tokens = self.projects.values().map(|book| book.tokens.principals.len()).sum();
        self.addresses = self.projects.values().map(|book| book.addresses.principals.len()).sum();
    }

    /// The accounts that a request is for, with the quotas that are in force there. `None` where nothing is limited: then
    /// nothing is remembered either, and what is held before a limit comes is not counted under it.
    fn accounts(&mut self, asker: &Asker<'_>, now: Duration) -> Option<Accounts<'_>> {
        let quotas = asker.quotas;
        if *quotas == Quotas::default() {
            return None;
        }
        self.sweep(now);
        let Self { projects, tokens, addresses, .. } = self;
        // Its name is copied for the first of its requests only.
        if !projects.contains_key(asker.project) {
            projects.insert(asker.project.clone(), Book::default());
        }
        let book = projects.get_mut(asker.project)?;
        let (crowd, total) = match asker.principal.kind() {
            Kind::Token => (&mut book.tokens, tokens),
            Kind::Address => (&mut book.addresses, addresses),
        };
        let known = crowd.principals.len();
        // Where only the project has quotas, it does not matter who of it asks, unless that was different, or has become so.
        let has_place = crowd.principals.contains_key(&asker.principal)
            || quotas.principal != Allowance::default() && crowd.make_place(asker.principal, *total, now);
        let Crowd { newcomers, principals, .. } = crowd;
        *total -= known - principals.len();
        let (principal, slot) = if has_place {
            let known = principals.len();
            principals.entry(asker.principal).or_default();
            *total += principals.len() - known;
            (principals.entry(asker.principal).or_default(), Slot::Principal(asker.principal))
        } else {
            (newcomers, Slot::Newcomers(asker.principal.kind()))
        };
        book.own.open(&quotas.project, now);
        principal.open(&quotas.principal, now);
        Some(Accounts { own: &mut book.own, principal, slot })
    }
}

impl Accounts<'_> {
    /// Puts quotas in force.
    fn adopt(&mut self, quotas: &Quotas, now: Duration) {
        self.own.adopt(&quotas.project, now);
        self.principal.adopt(&quotas.principal, now);
    }
}

impl Book {
    fn crowd(&mut self, kind: Kind) -> &mut Crowd {
        match kind {
            Kind::Token => &mut self.tokens,
            Kind::Address => &mut self.addresses,
        }
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

#[cfg(test)]
mod tests;
