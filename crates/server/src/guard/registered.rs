//! What the register says beside the files: further projects, and what was revoked.
//!
//! A file is above the register: whoever writes files is above whoever is asked by HTTP. Where a project's streams are is
//! settled when the program starts, so a project of the register has no basin of its own, nor the id of one that had a basin
//! then: this program would look for its streams there, and one that starts later would not.
//!
//! Until the register was read, nobody knows which projects there are and which tokens were revoked, so nothing is judged.
//! After that, what is known counts, whatever becomes of the store.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tailwater_auth::{
    Grant, Project, Projects, TicketHeld, TokenError,
    key::SecretText,
    register::{InForce, Register},
};
use tailwater_protocol::ProjectId;
use tailwater_register::{RegisterLog, Standing, View};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use super::{Guard, Trusted};

/// How long what has been folded may take to be in force.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);

/// The register, and what it was put together with.
pub(super) struct Registered {
    log: OnceLock<RegisterLog>,
    parts: Mutex<Parts>,
    /// Up to where the register is in force; `None` before it was read.
    reached: watch::Sender<Option<u64>>,
}

/// What the projects in force were put together from.
struct Parts {
    files: Arc<Projects>,
    documents: Vec<(ProjectId, SecretText)>,
    /// Which projects of the register are not in force, and why, as it was said last.
    said: HashSet<(ProjectId, String)>,
}

impl Registered {
    pub(super) fn beside(files: Arc<Projects>) -> Self {
        let parts = Mutex::new(Parts { files, documents: Vec::new(), said: HashSet::new() });
        Self { log: OnceLock::new(), parts, reached: watch::Sender::new(None) }
    }
}

impl Guard {
    /// The same, with the register of a store beside its files. It is followed while the guard [keeps
    /// up](Self::keep_up).
    #[must_use]
    pub fn beside_register(self, log: RegisterLog) -> Self {
        self.0.registered.log.get_or_init(|| log);
        self
    }

    /// Keeps up with the files, the issuers and the register, for ever.
    pub async fn keep_up(self) {
        let (files, issuers) = (Box::pin(self.clone().watch()), Box::pin(self.heed_issuers()));
        let Some(log) = self.register().cloned() else {
            tokio::join!(files, issuers);
            return;
        };
        tokio::join!(files, issuers, Box::pin(log.clone().follow()), Box::pin(self.heed(&log)));
    }

    /// The register, where there is one.
    pub(crate) fn register(&self) -> Option<&RegisterLog> {
        self.0.registered.log.get()
    }

    /// How well the register is known, where there is one.
    pub(crate) fn register_standing(&self) -> Option<Standing> {
        let standing = self.register()?.standing();
        Some(if self.is_unread() && standing == Standing::Current { Standing::Unread } else { standing })
    }

    /// Whether nobody can be judged, because nobody knows who was revoked.
    pub(crate) fn is_unread(&self) -> bool {
        self.register().is_some() && self.0.registered.reached.borrow().is_none()
    }

    /// Waits until the register was read, where there is one; false where that takes longer.
    pub async fn is_read_within(&self, limit: Duration) -> bool {
        let mut reached = self.0.registered.reached.subscribe();
        self.register().is_none() || matches!(timeout(limit, reached.wait_for(Option::is_some)).await, Ok(Ok(_)))
    }

    /// Whether what was granted counts no more: what was granted for a token, or for a ticket that was got with it.
    pub(crate) fn revokes(&self, grant: &Grant, ticket: Option<TicketHeld>) -> bool {
        let Some(log) = self.register() else { return false };
        let is_revoked = |register: &Register| {
            let is_named =
                |ticket: TicketHeld| register.is_revoked(&grant.project, Some(&ticket.id.to_string()), grant.issued_at);
            register.revokes(grant) || ticket.is_some_and(is_named)
        };
        log.with(|view| is_revoked(view.register()))
    }

    /// Whether what was granted for a token counts by this register, too, which may say more than is in force here.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn counts_in(&self, register: &Register, grant: &Grant, now_ms: u64) -> Result<(), TokenError> {
        if register.revokes(grant) {
            return Err(TokenError::Revoked);
        }
        if !self.is_of_files(&grant.project) {
            let project = register.project(&grant.project).ok_or(TokenError::Unverified)?;
            let is_issuers = |key| self.issuers().still_have(&project, key);
            project.still_grants(grant, None, self.moment(now_ms), is_issuers)?;
        }
        self.counts(grant, None, now_ms)
    }

    /// Whether the streams of this id have been put into a basin that a file has named, for as long as the process lives.
    pub(crate) fn has_settled(&self, project: &ProjectId) -> bool {
        self.0.basins.contains_key(project)
    }

    /// Whether a file has this project.
    pub(crate) fn is_of_files(&self, project: &ProjectId) -> bool {
        self.0.parts().files.get(project).is_some()
    }

    /// Waits until what stands in the register at `position` is in force; false if that takes too long.
    pub(crate) async fn has_in_force(&self, position: u64) -> bool {
        let mut reached = self.0.registered.reached.subscribe();
        let there = reached.wait_for(|reached| reached.is_some_and(|next| next > position));
        matches!(timeout(IN_FORCE_WITHIN, there).await, Ok(Ok(_)))
    }

    /// Waits until what other gateways have answered as done is in force here, too, as far as the store tells.
    pub(crate) async fn catch_up(&self) {
        let Some(log) = self.register() else { return };
        if log.catch_up().await
            && let Some(last) = log.with(|view| view.register().next()).checked_sub(1)
        {
            self.has_in_force(last).await;
        }
    }

    /// Tells whoever has a live answer that an issuer has withdrawn keys.
    async fn heed_issuers(&self) {
        let Some(mut withdrawals) = self.issuers().withdrawals() else { return };
        while withdrawals.changed().await.is_ok() {
            self.0.changes.send_replace(());
        }
    }

    /// Puts in force what is folded.
    async fn heed(&self, log: &RegisterLog) {
        let mut views = log.changes();
        loop {
            let is_news = {
                let view = views.borrow_and_update();
                view.is_read() && *self.0.registered.reached.borrow() != Some(view.register().next())
            };
            if is_news {
                let (trusted, log) = (Arc::clone(&self.0), log.clone());
                // Reading documents takes a while if there are many.
                match spawn_blocking(move || trusted.take_register(&log)).await {
                    Ok(next) => self.0.has_reached(next),
                    Err(error) => tracing::error!(%error, "the register's projects were not put in force"),
                }
            }
            if views.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Trusted {
    /// Puts other files in force, with the register beside them.
    pub(super) fn take_files(&self, files: Projects) {
        let mut parts = self.parts();
        parts.files = Arc::new(files);
        match self.registered.log.get().map(RegisterLog::view).filter(View::is_read) {
            Some(view) => self.combine(&mut parts, view.register()),
            None => self.replace(Arc::clone(&parts.files)),
        }
    }

    /// Puts what the register says now in force, and tells up to where. Revocations are looked up as they are asked for.
    fn take_register(&self, log: &RegisterLog) -> u64 {
        let mut parts = self.parts();
        // Not before the lock: what is put in force never goes back.
        let view = log.view();
        let register = view.register();
        let known = parts.documents.iter().map(|(id, document)| (id, document));
        // New ones forget what was verified before, so they are made where they have to be.
        if !register.documents().eq(known) {
            self.combine(&mut parts, register);
        }
        register.next()
    }

    fn combine(&self, parts: &mut Parts, register: &Register) {
        parts.documents = register.documents().map(|(id, document)| (id.clone(), document.clone())).collect();
        if parts.documents.is_empty() {
            return self.replace(Arc::clone(&parts.files));
        }
        let files: Vec<Project> = parts.files.iter().cloned().collect();
        match register.in_force(files, |id| self.basins.contains_key(id), |url| self.issuers.may_ask(url)) {
            Ok(InForce { projects, set_aside }) => {
                let said = set_aside.into_iter().map(|(id, reason)| (id, reason.to_string())).collect();
                for (project, reason) in HashSet::difference(&said, &parts.said) {
                    tracing::warn!(%project, reason, "a project of the register is not in force");
                }
                parts.said = said;
                self.replace(Arc::new(projects));
            }
            // Those of files were in force together before, and others are set aside where they cannot be.
            Err(error) => tracing::error!(%error, "the projects were not replaced"),
        }
    }

    fn has_reached(&self, next: u64) {
        self.registered.reached.send_replace(Some(next));
        // What it says of revocations is looked up, so nothing else has rung for it.
        self.changes.send_replace(());
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.registered.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tailwater_auth::{File, Scopes, Streams, TicketId, TokenError, register::Record};
    use tailwater_log::NewRecord;
    use tailwater_testkit::ScriptedUpstream;
    use tailwater_upstream::Append;

    use super::*;

    /// A clock that was set back makes a token too young, which ends nothing; but what is revoked meanwhile is.
    #[tokio::test(start_paused = true)]
    async fn what_is_revoked_does_not_count_whatever_the_clock_says() {
        let text = "[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = 'the secret of p, and it is long enough'\n";
        let projects = Projects::parse([File { name: "p.toml", bytes: text.as_bytes() }]).unwrap();
        let project = ProjectId::parse("p").unwrap();
        let key = projects.get(&project).unwrap().keys.first().unwrap().print();
        let upstream = ScriptedUpstream::default();
        let revoked = |id: &str| Record::RevokeToken { project: project.clone(), id: id.to_owned(), expires_at: None };
        let ticket = TicketHeld { id: TicketId([7; 9]), signer: Some(key), hour_ends_at: 3000 };
        let records = [revoked("gone"), revoked(&ticket.id.to_string())];
        let records = records.map(|record| NewRecord::message(record.encode().into()));
        upstream.land(&RegisterLog::key(), Append::new(records.to_vec())).unwrap();
        let metrics = tailwater_register::Metrics::register(&prometheus::Registry::new()).unwrap();
        let guard = Guard::fixed(projects, Duration::ZERO);
        let guard = guard.beside_register(RegisterLog::new(Arc::new(upstream), metrics));
        tokio::spawn(guard.clone().keep_up());
        assert!(guard.is_read_within(Duration::from_secs(60)).await);

        let grant = |id: &str| Grant {
            project: project.clone(),
            scopes: Scopes::among(["read"]),
            streams: Streams::All,
            expires_at: 3000,
            not_before: Some(1000),
            issued_at: Some(1000),
            key,
            id: Some(id.to_owned()),
        };
        let table = [
            ("good", None, 2000, Ok(())),
            ("good", None, 999, Err(TokenError::NotYet)),
            ("gone", None, 999, Err(TokenError::Revoked)),
            ("good", Some(ticket), 999, Err(TokenError::Revoked)),
            ("gone", None, 4000, Err(TokenError::Revoked)),
        ];
        for (id, ticket, now, counts) in table {
            assert_eq!(guard.counts(&grant(id), ticket, now * 1000), counts, "{id} {ticket:?} {now}");
        }
    }
}
