//! The register: what was revoked, and the projects that were made at run time. It is a log of its own in the store, and
//! this is its fold: every pod that has read the same prefix answers alike, and there is no database.
//!
//! ```text
//! state(n+1) = apply(state(n), position, time of record n, record n)        no clock, no I/O
//! ```
//!
//! **Order.** A position is folded once: what comes again is passed over, and a gap is an error, because what is missing
//! could be a revocation. Revocations commute; of what is put or removed the last counts.
//!
//! **Bounds, and what happens at them.** Everything is bounded, so that all of it fits one record ([`Record::Checkpoint`]).
//! At a bound the answer becomes stricter, never laxer, and the same on every pod:
//!
//! | full | then |
//! |---|---|
//! | the tokens that a project has revoked one by one ([`MAX_LISTED_PER_PROJECT`], [`MAX_LISTED`] of all) | revoking one more revokes all tokens that the project has issued until then |
//! | the projects that have revoked something or were removed ([`MAX_ROWS`]) | the one that was removed first is given up: from then on no token that is older than that counts in any project that is put anew. Where none was removed, the oldest that only says "all before a time" is given up, and that time counts for all projects without one of their own |
//! | the projects ([`MAX_PROJECTS`], [`MAX_DOCUMENTS`]) | one that there is no room for does not exist; its change takes it away, rather than leave it with keys that were to go |
//!
//! [`Register::check`] tells before a record is appended that it would meet a bound. What is no longer needed goes by the
//! time of the records: an id that was revoked, an hour after its token has expired, by when no skew makes that count. A token
//! may live for any time, so an id without an end stays until its project is removed, and "all before a time" until it has to
//! make room. A removal asks for no room, and touches no other project.
//!
//! **Checkpoints** are appended on condition that the log ends where they were taken; what stands before may be trimmed
//! then. A fold begins at position 0, or at a checkpoint that stands where it was taken.

mod record;
mod revocations;
mod snapshot;

use std::mem;

use tailwater_protocol::ProjectId;
pub use tailwater_wire::{RecordError, WireError};

pub use self::{
    record::{PutError, Record, VERSION},
    snapshot::Snapshot,
};
use self::{
    revocations::{FOREVER, Revocations, TokenPrint},
    snapshot::Snapshot as State,
};
use crate::{
    document::{DocumentError, File, projects_of},
    jwks::JwksUrl,
    key::SecretText,
    project::Project,
    projects::{Projects, ProjectsError},
    token::Grant,
};

/// The most tokens that are revoked one by one and have not expired, of all projects.
pub const MAX_LISTED: usize = 12 * 1024;
/// The most of one project.
pub const MAX_LISTED_PER_PROJECT: usize = 4 * 1024;
/// The most projects with revocations of their own.
pub const MAX_ROWS: usize = 2 * 1024;
/// The most projects that are made at run time.
pub const MAX_PROJECTS: usize = 1024;
/// The most bytes of one of them.
pub const MAX_DOCUMENT: usize = 16 * 1024;
/// The most bytes of all of them.
pub const MAX_DOCUMENTS: usize = 384 * 1024;
/// How long a revoked id is remembered after its token has expired, in seconds: longer than any skew.
pub const KEPT_AFTER_EXPIRY: u64 = 3600;
/// How far ahead issuers' clocks are taken to be, in seconds, where all that was issued until now is revoked.
pub const CLOCKS_AHEAD: u64 = 300;

/// What the log says, as far as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Register {
    /// Where the next record stands; `None` before the first.
    next: Option<u64>,
    state: State,
    /// The tokens that are revoked one by one, of all projects.
    listed: usize,
    /// The bytes of all projects' documents.
    documents: usize,
}

/// What a record has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was folded.
    Now,
    /// It was folded before.
    Before,
    /// It is of a kind that may be skipped.
    Skipped,
}

/// Why a record cannot be folded. The state stays as it was, and is not to be served from for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// It cannot be read.
    #[error("the register cannot be read at {position}")]
    Record {
        /// Where it stands.
        position: u64,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// Records between are missing.
    #[error("the register goes on at {found} instead of {expected}")]
    Gap {
        /// Where the next one should stand.
        expected: u64,
        /// Where it stands.
        found: u64,
    },
    /// What stands first is neither the first record nor a checkpoint at its place.
    #[error("the register begins at {position} with no checkpoint of that place")]
    Start {
        /// Where it begins.
        position: u64,
    },
}

/// Why a record is better not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No pod could read it, nor anything behind it.
    #[error("no such record can be read")]
    Malformed,
    /// All of the project's tokens would be revoked.
    #[error("too many tokens are revoked one by one: revoke all that were issued before a time")]
    Tokens,
    /// Projects that have revoked nothing would be touched.
    #[error("too many projects have revoked something")]
    Rows,
    /// The project would not exist.
    #[error("there is no room for one more project, or a longer one")]
    Projects,
}

/// The projects in force, those of files and those of the register.
#[derive(Debug)]
pub struct InForce {
    /// The projects.
    pub projects: Projects,
    /// Projects of the register that are not among them.
    pub set_aside: Vec<(ProjectId, SetAside)>,
}

/// Why a project of the register is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetAside {
    /// A file has a project of this id, and whoever writes files is above whoever is asked by HTTP.
    #[error("a file has a project of this id")]
    File,
    /// It names a basin, which might be another's, and where no program that runs already would look for its streams.
    #[error("it names a basin, which only a project of a file may")]
    Basin,
    /// A file had a project of this id, with a basin, when the program started. One that starts later would look for the
    /// streams elsewhere.
    #[error("a file gave a project of this id a basin when this program started: restart it, or take another id")]
    Settled,
    /// Its issuer's keys are where this pod fetches none from: none of their tokens would count, and nobody would know why.
    #[error("its issuer's keys are at `{authority}`, which is none of the hosts that keys are fetched from")]
    Issuer {
        /// The host, and the port if it is given.
        authority: String,
    },
    /// It cannot be read, which a newer program's may be.
    #[error("its document cannot be read: {0}")]
    Malformed(DocumentError),
    /// Its document holds something else.
    #[error("its document is not one of this project alone")]
    Other,
}

impl Register {
    /// Folds the record at `position`, whose time in the store is `at`, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn apply(&mut self, position: u64, at: u64, record: &[u8]) -> Result<Applied, RegisterError> {
        if self.is_past(position)? {
            return Ok(Applied::Before);
        }
        let record = Record::decode(record).map_err(|source| RegisterError::Record { position, source })?;
        match (self.next, &record) {
            (None, Some(Record::Checkpoint(snapshot))) if snapshot.as_of == position => {
                self.restore((**snapshot).clone())
            }
            // A log that was copied or cut: what the checkpoint stands for is not what stands before it.
            (None, Some(Record::Checkpoint(_))) => return Err(RegisterError::Start { position }),
            (None, _) if position != 0 => return Err(RegisterError::Start { position }),
            _ => {}
        }
        self.next = Some(position.saturating_add(1));
        self.pass_time(at);
        match record {
            // Whoever has read what stands before knows it, and better.
            Some(Record::Checkpoint(_)) => {}
            Some(Record::RevokeToken { project, id, expires_at }) => self.revoke_token(&project, &id, expires_at),
            Some(Record::RevokeOlder { project, before }) => {
                self.revoke_older(&project, before.min(self.until_now()));
            }
            Some(Record::PutProject { project, document }) => self.put(project, document),
            Some(Record::RemoveProject { project }) => self.remove(&project),
            None => return Ok(Applied::Skipped),
        }
        Ok(Applied::Now)
    }

    /// Passes over a record of the store's own, such as a fence or a trim.
    ///
    /// # Errors
    /// [`RegisterError::Gap`] and [`RegisterError::Start`].
    pub fn pass(&mut self, position: u64) -> Result<(), RegisterError> {
        if self.is_past(position)? {
            return Ok(());
        }
        if self.next.is_none() && position != 0 {
            return Err(RegisterError::Start { position });
        }
        self.next = Some(position.saturating_add(1));
        Ok(())
    }

    /// Where the next record stands.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next.unwrap_or_default()
    }

    /// Whether a token is revoked, by its id, or because of when it was issued; one that does not say is as old as can be.
    #[must_use]
    pub fn is_revoked(&self, project: &ProjectId, id: Option<&str>, issued_at: Option<u64>) -> bool {
        let issued_at = issued_at.unwrap_or_default();
        match self.state.revocations.get(project) {
            Some(revocations) => revocations.cover(id, issued_at),
            None => issued_at < self.state.others_before,
        }
    }

    /// The same of what a token was verified to grant.
    #[must_use]
    pub fn revokes(&self, grant: &Grant) -> bool {
        self.is_revoked(&grant.project, grant.id.as_deref(), grant.issued_at)
    }

    /// Whether a record, appended now, would do what it says, and no more. To be asked before any is appended.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn check(&self, record: &Record) -> Result<(), Unfit> {
        if Record::decode(&record.encode()).as_ref() != Ok(&Some(record.clone())) {
            return Err(Unfit::Malformed);
        }
        let row = |project| match self.state.revocations.get(project) {
            None if !self.has_room() => Err(Unfit::Rows),
            row => Ok(row.map_or(0, |row| row.tokens.len())),
        };
        match record {
            Record::RevokeToken { project, .. } => {
                let full = row(project)? >= MAX_LISTED_PER_PROJECT || self.listed >= MAX_LISTED;
                if full { Err(Unfit::Tokens) } else { Ok(()) }
            }
            Record::RevokeOlder { project, .. } => row(project).map(drop),
            Record::PutProject { project, document } => {
                if self.has_to_be_younger(project) {
                    row(project)?;
                }
                if self.fits(project, document) { Ok(()) } else { Err(Unfit::Projects) }
            }
            Record::RemoveProject { .. } | Record::Checkpoint(_) => Ok(()),
        }
    }

    /// A record that holds all of it. It is to be appended on condition that the log ends at [`next`](Self::next).
    #[must_use]
    pub fn checkpoint(&self) -> Record {
        Record::Checkpoint(Box::new(State { as_of: self.next(), ..self.state.clone() }))
    }

    /// The projects that it holds, by id, as they were put.
    pub fn documents(&self) -> impl Iterator<Item = (&ProjectId, &SecretText)> {
        self.state.projects.iter()
    }

    /// A project that it holds, if that can be read.
    #[must_use]
    pub fn project(&self, id: &ProjectId) -> Option<Project> {
        read(id, self.state.projects.get(id)?).ok()
    }

    /// The projects in force together with those of files. One that cannot be is set aside, and hinders no other. So is one
    /// of which `is_settled` says that this program has put the streams of its id into a basin. Keys of issuers are fetched
    /// only from where `may_ask` says so.
    ///
    /// # Errors
    /// [`ProjectsError`], where those of files cannot be in force together.
    pub fn in_force(
        &self,
        files: Vec<Project>,
        is_settled: impl Fn(&ProjectId) -> bool,
        may_ask: impl Fn(&JwksUrl) -> bool,
    ) -> Result<InForce, ProjectsError> {
        let of_files: Vec<ProjectId> = files.iter().map(|project| project.id.clone()).collect();
        let (mut projects, mut set_aside) = (files, Vec::new());
        for (id, document) in &self.state.projects {
            let read = match id {
                id if of_files.contains(id) => Err(SetAside::File),
                id if is_settled(id) => Err(SetAside::Settled),
                id => read(id, document),
            };
            match read {
                Ok(Project { basin: Some(_), .. }) => set_aside.push((id.clone(), SetAside::Basin)),
                Ok(Project { jwks: Some(url), .. }) if !may_ask(&url) => {
                    set_aside.push((id.clone(), SetAside::Issuer { authority: url.authority().to_owned() }));
                }
                Ok(project) => projects.push(project),
                Err(reason) => set_aside.push((id.clone(), reason)),
            }
        }
        Ok(InForce { projects: Projects::new(projects)?, set_aside })
    }

    fn is_past(&self, position: u64) -> Result<bool, RegisterError> {
        match self.next {
            Some(expected) if position > expected => Err(RegisterError::Gap { expected, found: position }),
            next => Ok(next.is_some_and(|next| position < next)),
        }
    }

    fn restore(&mut self, snapshot: State) {
        self.listed = snapshot.revocations.values().map(|row| row.tokens.len()).sum();
        self.documents = snapshot.projects.values().map(|document| document.0.len()).sum();
        self.state = State { as_of: 0, ..snapshot };
    }

    /// The end of what is issued by now.
    fn until_now(&self) -> u64 {
        self.state.now.saturating_add(CLOCKS_AHEAD)
    }

    fn revoke_token(&mut self, project: &ProjectId, id: &str, expires_at: Option<u64>) {
        let until = expires_at.map_or(FOREVER, |at| at.saturating_add(KEPT_AFTER_EXPIRY));
        if until <= self.state.now {
            return;
        }
        let (listed, until_now) = (self.listed, self.until_now());
        let Some(row) = self.row(project) else {
            self.state.others_before = self.state.others_before.max(until_now);
            return;
        };
        let token = TokenPrint::of(id);
        if let Some(known) = row.tokens.get_mut(&token) {
            *known = until.max(*known);
        } else if row.tokens.len() >= MAX_LISTED_PER_PROJECT || listed >= MAX_LISTED {
            row.raise(until_now);
        } else {
            row.tokens.insert(token, until);
            self.listed += 1;
        }
    }

    fn revoke_older(&mut self, project: &ProjectId, before: u64) {
        match self.row(project) {
            Some(row) => row.raise(before),
            None => self.state.others_before = self.state.others_before.max(before),
        }
    }

    /// The row of a project, for what is there; `None` if there is no room for it, and none that could be given up.
    fn row(&mut self, project: &ProjectId) -> Option<&mut Revocations> {
        if !self.state.revocations.contains_key(project) && self.state.revocations.len() >= MAX_ROWS {
            self.give_one_up()?;
        }
        // What counted for it until now goes on doing so.
        let before = self.state.others_before;
        let row = self.state.revocations.entry(project.clone());
        let row = row.or_insert_with(|| Revocations { before, ..Revocations::default() });
        row.is_removed = false;
        Some(row)
    }

    /// Gives up the oldest row that lists no tokens, of a project that was removed if there is one.
    fn give_one_up(&mut self) -> Option<()> {
        let bare = self.state.revocations.iter().filter(|(_, row)| row.tokens.is_empty());
        let (oldest, _) = bare.min_by_key(|(_, row)| (!row.is_removed, row.before))?;
        let oldest = oldest.clone();
        let row = self.state.revocations.remove(&oldest)?;
        let covers = if row.is_removed { &mut self.state.removed_before } else { &mut self.state.others_before };
        *covers = row.before.max(*covers);
        Some(())
    }

    /// Whether there is room for one more row that costs no project that is there anything.
    fn has_room(&self) -> bool {
        let rows = &self.state.revocations;
        rows.len() < MAX_ROWS || rows.values().any(|row| row.is_removed)
    }

    /// Whether a project, put now, might be one that was removed, and that nothing is known of any more.
    fn has_to_be_younger(&self, project: &ProjectId) -> bool {
        let before = self.state.revocations.get(project).map_or(self.state.others_before, |row| row.before);
        !self.state.projects.contains_key(project) && before < self.state.removed_before
    }

    /// Forgets what has expired, once a minute of the records' time: all pods do so at the same record.
    fn pass_time(&mut self, at: u64) {
        let (last, now) = (self.state.now, self.state.now.max(at));
        self.state.now = now;
        if last / 60 == now / 60 {
            return;
        }
        let mut forgotten = 0;
        for row in self.state.revocations.values_mut() {
            let before = row.tokens.len();
            row.tokens.retain(|_, until| *until > now);
            forgotten += before - row.tokens.len();
        }
        self.listed -= forgotten;
        // A row that says nothing more than what counts without it is none.
        let others = self.state.others_before;
        self.state.revocations.retain(|_, row| !row.tokens.is_empty() || row.before > others);
    }

    fn fits(&self, project: &ProjectId, document: &SecretText) -> bool {
        let old = self.state.projects.get(project);
        let others = self.state.projects.len() - usize::from(old.is_some());
        let bytes = self.documents - old.map_or(0, |old| old.0.len());
        others < MAX_PROJECTS && document.0.len() <= MAX_DOCUMENT && bytes + document.0.len() <= MAX_DOCUMENTS
    }

    fn put(&mut self, project: ProjectId, document: SecretText) {
        let fits = self.fits(&project, &document);
        if fits && self.has_to_be_younger(&project) {
            self.revoke_older(&project, self.state.removed_before);
        }
        self.take(&project);
        if fits {
            if let Some(row) = self.state.revocations.get_mut(&project) {
                row.is_removed = false;
            }
            self.documents += document.0.len();
            self.state.projects.insert(project, document);
        }
    }

    /// Removes a project, and all that was issued for it: else one of the same name and keys, made later, would be open to
    /// its tokens.
    fn remove(&mut self, project: &ProjectId) {
        if !self.take(project) {
            return;
        }
        let before = self.state.now.saturating_add(1);
        if !self.state.revocations.contains_key(project) && !self.has_room() {
            // It says too much of those that are put later, and nothing of those that are there.
            self.state.removed_before = self.state.removed_before.max(before);
            return;
        }
        if let Some(row) = self.row(project) {
            row.raise(before);
            row.is_removed = true;
            // They were issued before.
            let listed = mem::take(&mut row.tokens).len();
            self.listed -= listed;
        }
    }

    /// Takes a project away; whether there was one.
    fn take(&mut self, project: &ProjectId) -> bool {
        let taken = self.state.projects.remove(project);
        self.documents -= taken.as_ref().map_or(0, |document| document.0.len());
        taken.is_some()
    }
}

fn read(id: &ProjectId, document: &SecretText) -> Result<Project, SetAside> {
    let file = File { name: id.as_str(), bytes: document.0.as_bytes() };
    let mut projects = projects_of(file).map_err(SetAside::Malformed)?;
    match projects.pop() {
        Some(project) if projects.is_empty() && project.id == *id => Ok(project),
        _ => Err(SetAside::Other),
    }
}

#[cfg(test)]
mod tests;
