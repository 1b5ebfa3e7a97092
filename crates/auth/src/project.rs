//! A project: whose streams they are, who may sign tokens for them, and how they are shown.

use std::collections::HashSet;

use tailwater_protocol::{ProjectId, Visibility};

use crate::{
    keys::Keys,
    origin::Origins,
    token::{Grant, Moment, Token, TokenError},
};

/// A project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its name in paths, and the `sub` of its tokens.
    pub id: ProjectId,
    /// What verifies its tokens.
    pub keys: Keys,
    /// What a token's `aud` must name, if anything.
    pub audience: Option<String>,
    /// What a token's `iss` must be, if anything.
    pub issuer: Option<String>,
    /// Who sees a stream whose creator says nothing about it.
    pub visibility: Visibility,
    /// Whether a token that may write may read, too.
    pub writers: Writers,
    /// Which pages may see its answers.
    pub origins: Origins,
    /// The `jti` of tokens that count no more.
    pub revoked: HashSet<String>,
}

/// What who may write may do besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writers {
    /// Nothing.
    #[default]
    WriteOnly,
    /// Read what they may write.
    ReadToo,
}

impl Project {
    /// A project with these keys, closed in every respect.
    #[must_use]
    pub fn new(id: ProjectId, keys: Keys) -> Self {
        Self {
            id,
            keys,
            audience: None,
            issuer: None,
            visibility: Visibility::Private,
            writers: Writers::default(),
            origins: Origins::default(),
            revoked: HashSet::new(),
        }
    }

    /// What a token lets its bearer do here, at this moment.
    ///
    /// # Errors
    /// [`TokenError`], where it does not count.
    pub fn verify(&self, token: &str, moment: Moment) -> Result<Grant, TokenError> {
        let grant = self.verify_signature(&Token::parse(token)?)?;
        self.check(&grant, moment)?;
        Ok(grant)
    }

    /// What is signed by one of its keys, for it: all that does not change while the keys stand.
    pub(crate) fn verify_signature(&self, token: &Token<'_>) -> Result<Grant, TokenError> {
        let mut meant = self.keys.iter().filter(|key| key.is_meant_by(token.algorithm(), token.key_id()));
        if !meant.any(|key| key.verifies(token.signed(), token.signature())) {
            return Err(TokenError::Unverified);
        }
        let claims = token.claims()?;
        claims.grant(self)
    }

    /// What may change from one moment to the next.
    pub(crate) fn check(&self, grant: &Grant, moment: Moment) -> Result<(), TokenError> {
        if !moment.precedes(grant.expires_at) {
            return Err(TokenError::Expired);
        }
        if grant.not_before.is_some_and(|start| !moment.has_reached(start)) {
            return Err(TokenError::NotYet);
        }
        if grant.id.as_ref().is_some_and(|id| self.revoked.contains(id)) {
            return Err(TokenError::Revoked);
        }
        Ok(())
    }
}
