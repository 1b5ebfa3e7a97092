//! All projects that there are, and what their tokens allow.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tailwater_protocol::ProjectId;

use crate::{
    cache::{Digest, Verified},
    key::{Key, KeyPrint},
    project::{BasinName, Project},
    ticket::TicketHeld,
    token::{Grant, Moment, Token, TokenError},
};

/// How many tokens of public algorithms are remembered.
pub const CACHED_TOKENS: usize = 16 * 1024;

/// The projects in force. They do not change: new ones replace them as a whole, and what was remembered with them.
#[derive(Debug)]
pub struct Projects {
    projects: HashMap<ProjectId, Project>,
    verified: Verified,
}

/// Why projects cannot be in force together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectsError {
    /// Two have the same id.
    #[error("there are two projects `{id}`")]
    Id {
        /// The id.
        id: ProjectId,
    },
    /// Two have the same basin, in which their streams could not be told apart.
    #[error("two projects have the basin `{basin}`")]
    Basin {
        /// The basin.
        basin: BasinName,
    },
}

impl Default for Projects {
    /// None at all.
    fn default() -> Self {
        Self { projects: HashMap::new(), verified: Verified::with_capacity(CACHED_TOKENS) }
    }
}

impl Projects {
    /// These projects.
    ///
    /// # Errors
    /// [`ProjectsError`].
    pub fn new(projects: impl IntoIterator<Item = Project>) -> Result<Self, ProjectsError> {
        let mut kept = HashMap::new();
        let mut basins = HashSet::new();
        for project in projects {
            if let Some(basin) = project.basin.clone().filter(|basin| !basins.insert(basin.clone())) {
                return Err(ProjectsError::Basin { basin });
            }
            let id = project.id.clone();
            if kept.insert(id.clone(), project).is_some() {
                return Err(ProjectsError::Id { id });
            }
        }
        Ok(Self { projects: kept, ..Self::default() })
    }

    /// The project of this id.
    #[must_use]
    pub fn get(&self, id: &ProjectId) -> Option<&Project> {
        self.projects.get(id)
    }

    /// How many there are.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "nobody asks whether there are none: then there would be no gateway"
    )]
    pub fn len(&self) -> usize {
        self.projects.len()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Project> {
        self.projects.values()
    }

    /// What a token lets its bearer do in this project, at this moment. Of a project that does not exist no key verifies
    /// anything, which is what its answer says.
    ///
    /// # Errors
    /// [`TokenError`], where the token does not count.
    pub fn verify(&self, project: &ProjectId, token: &str, moment: Moment) -> Result<Arc<Grant>, TokenError> {
        let text = token;
        let token = Token::parse(text)?;
        let project = self.get(project).ok_or(TokenError::Unverified)?;
        let grant = if token.algorithm().is_symmetric() {
            Arc::new(project.verify_signature(&token)?)
        } else {
            let digest = Digest::of(&project.id, text);
            match self.verified.get(digest) {
                Some(grant) if project.keys.iter().any(|key| key.print() == grant.key) => grant,
                // Its issuer's key verified it, which none of the project's own did before.
                Some(_) => return Err(TokenError::Unverified),
                None => {
                    let grant = Arc::new(project.verify_signature(&token)?);
                    self.verified.insert(digest, Arc::clone(&grant));
                    grant
                }
            }
        };
        project.check(&grant, moment)?;
        Ok(grant)
    }

    /// Whether what a token has let its bearer do, or the ticket that was got with it, counts at this moment, too: for
    /// answers that last. `is_issuers` is asked whether a key that the project does not have itself is one of its issuer's
    /// now.
    ///
    /// # Errors
    /// [`TokenError`], where it does not. It is not asked whether an `aud` or `iss` that the project has been given since
    /// would let the token in.
    pub fn check(
        &self,
        grant: &Grant,
        ticket: Option<TicketHeld>,
        moment: Moment,
        is_issuers: impl FnOnce(KeyPrint) -> bool,
    ) -> Result<(), TokenError> {
        let project = self.get(&grant.project).ok_or(TokenError::Unverified)?;
        project.still_grants(grant, ticket, moment, is_issuers)
    }

    /// The same for a token that no key of the project's own [verifies](Self::verify), with this key of its issuer's, as it
    /// is now: what was verified with another one is verified again.
    ///
    /// # Errors
    /// [`TokenError`], where the token does not count.
    pub fn verify_with(
        &self,
        project: &ProjectId,
        key: &Key,
        token: &str,
        moment: Moment,
    ) -> Result<Arc<Grant>, TokenError> {
        let text = token;
        let token = Token::parse(text)?;
        let project = self.get(project).ok_or(TokenError::Unverified)?;
        let digest = Digest::of(&project.id, text);
        let grant = match self.verified.get(digest) {
            Some(grant) if grant.key == key.print() => grant,
            Some(_) | None => {
                let grant = Arc::new(project.verify_signature_with(key, &token)?);
                self.verified.insert(digest, Arc::clone(&grant));
                grant
            }
        };
        project.check(&grant, moment)?;
        Ok(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{document::File, pattern::Streams, scope::Scopes, ticket::TicketId};

    const SECRETS: [&str; 2] = ["the first secret, which is long enough", "the second secret, which is long enough"];

    fn projects(id: &str, secrets: &[&str], revoked: &str) -> Projects {
        let key = |secret: &&str| format!("[[project.key]]\nalgorithm = 'HS256'\nsecret = '{secret}'\n");
        let keys: String = secrets.iter().map(key).collect();
        let text = format!("[[project]]\nid = '{id}'\nrevoked = [{revoked}]\n{keys}");
        Projects::parse([File { name: "p.toml", bytes: text.as_bytes() }]).unwrap()
    }

    #[test]
    fn what_was_granted_counts_while_project_key_and_time_do_and_nothing_is_revoked() {
        let id = ProjectId::parse("p").unwrap();
        let key = projects("p", &SECRETS, "").get(&id).unwrap().keys.first().unwrap().print();
        let grant = Grant {
            project: id,
            scopes: Scopes::among(["read"]),
            streams: Streams::All,
            expires_at: 100,
            not_before: None,
            issued_at: None,
            key,
            id: Some("token".to_owned()),
        };
        let id = TicketId([7; 9]);
        let of_ticket = format!("'{id}'");
        let ticket = TicketHeld { id, signer: None, hour_ends_at: 200 };
        let signed = |secret: &str| {
            let print = Key::secret(None, secret.as_bytes()).unwrap().print();
            Some(TicketHeld { signer: Some(print), ..ticket })
        };
        let expired = Err(TokenError::Expired);
        let table = [
            (projects("p", &SECRETS, ""), 109, None, Ok(())),
            (projects("p", &SECRETS, ""), 110, None, expired),
            (projects("p", &SECRETS[..1], ""), 50, None, Ok(())),
            (projects("p", &SECRETS[1..], ""), 50, None, Err(TokenError::Unverified)),
            (projects("other", &SECRETS, ""), 50, None, Err(TokenError::Unverified)),
            (projects("p", &SECRETS, "'another'"), 50, None, Ok(())),
            (projects("p", &SECRETS, "'token'"), 50, None, Err(TokenError::Revoked)),
            (projects("p", &SECRETS, "'token'"), 50, Some(ticket), Err(TokenError::Revoked)),
            (projects("p", &SECRETS, &of_ticket), 50, Some(ticket), Err(TokenError::Revoked)),
            (projects("p", &SECRETS, &of_ticket), 50, None, Ok(())),
            (projects("p", &SECRETS, ""), 50, signed(SECRETS[1]), Ok(())),
            (projects("p", &SECRETS[..1], ""), 50, signed(SECRETS[1]), Err(TokenError::Unverified)),
            (projects("p", &SECRETS[..1], ""), 50, Some(ticket), Ok(())),
            (projects("p", &SECRETS, ""), 104, Some(TicketHeld { hour_ends_at: 105, ..ticket }), Ok(())),
            (projects("p", &SECRETS, ""), 105, Some(TicketHeld { hour_ends_at: 105, ..ticket }), expired),
        ];
        for (n, (projects, now, ticket, counts)) in table.into_iter().enumerate() {
            assert_eq!(projects.check(&grant, ticket, Moment { now, skew: 10 }, |_| false), counts, "{n}");
        }
        let moment = Moment { now: 50, skew: 0 };
        let elsewhere = projects("p", &SECRETS[1..], "");
        assert_eq!(elsewhere.check(&grant, None, moment, |print| print == key), Ok(()), "a key of its issuer's");
        let by_issuers = signed(SECRETS[0]);
        let answer = elsewhere.check(&grant, by_issuers, moment, |_| true);
        assert_eq!(answer, Err(TokenError::Unverified), "an issuer's keys sign no tickets");
        let early = Grant { not_before: Some(60), ..grant };
        for (revoked, counts) in [("", TokenError::NotYet), ("'token'", TokenError::Revoked)] {
            assert_eq!(projects("p", &SECRETS, revoked).check(&early, None, moment, |_| false), Err(counts));
        }
    }
}
