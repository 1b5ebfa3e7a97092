//! A project: whose streams they are, who may sign tokens for them, and how they are shown.

use std::{collections::HashSet, fmt, num::NonZeroUsize};

use tailwater_protocol::{ProjectId, Visibility};

use crate::{
    cookie::CookieName,
    jwks::{JwksUrl, Source, Wanted},
    key::{Key, KeyId, KeyPrint},
    keys::Keys,
    origin::Origins,
    quota::Quotas,
    ticket::TicketHeld,
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
    /// Where its issuer's keys are, which verify its tokens, too.
    pub jwks: Option<JwksUrl>,
    /// Who sees a stream whose creator says nothing about it.
    pub visibility: Visibility,
    /// Whether a token that may write may read, too.
    pub writers: Writers,
    /// Which pages may see its answers.
    pub origins: Origins,
    /// The cookie in which pages may have their tokens, if there is one.
    pub cookie: Option<CookieName>,
    /// The `jti` of tokens that count no more.
    pub revoked: HashSet<String>,
    /// The basin of S2 that is its own, if it has been given one.
    pub basin: Option<BasinName>,
    /// What it may have less of than others.
    pub limits: Limits,
    /// How much of what it may ask for, on one pod.
    pub quotas: Quotas,
}

/// What a project may have; without a limit, as much as anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The most bytes of a request's body.
    pub body: Option<NonZeroUsize>,
    /// The most live readers of one stream on one pod, long-polls included.
    pub readers_per_stream: Option<NonZeroUsize>,
}

/// The name of a basin of S2: 8 to 48 of `a-z 0-9 -`, from a letter or digit to a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BasinName(String);

/// What who may write may do besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writers {
    /// Nothing.
    #[default]
    WriteOnly,
    /// Read what they may write.
    ReadToo,
}

impl BasinName {
    /// Parses a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let end = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
        let bytes = name.as_bytes();
        let formed = (8..=48).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
            && end(bytes.first())
            && end(bytes.last());
        formed.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BasinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
            jwks: None,
            visibility: Visibility::Private,
            writers: Writers::default(),
            origins: Origins::default(),
            cookie: None,
            revoked: HashSet::new(),
            basin: None,
            limits: Limits::default(),
            quotas: Quotas::default(),
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

    /// The same with a key of its issuer's, which was found by what the token's header names. The token must be from that
    /// issuer, and say which key it means.
    ///
    /// # Errors
    /// [`TokenError`], where it does not count; [`TokenError::Issuer`], too, where the project names no issuer.
    pub fn verify_with(&self, key: &Key, token: &str, moment: Moment) -> Result<Grant, TokenError> {
        let grant = self.verify_signature_with(key, &Token::parse(token)?)?;
        self.check(&grant, moment)?;
        Ok(grant)
    }

    /// Whose keys verify its tokens beside its own.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        Some(Source { issuer: self.issuer.clone()?, url: self.jwks.clone()? })
    }

    /// Which key of its issuer's a token may be signed with: the one that its header names.
    #[must_use]
    pub fn wanted(token: &Token<'_>) -> Option<Wanted> {
        let id = token.key_id().and_then(|id| KeyId::parse(id).ok())?;
        (!token.algorithm().is_symmetric()).then(|| Wanted::Named(id, token.algorithm()))
    }

    pub(crate) fn verify_signature_with(&self, key: &Key, token: &Token<'_>) -> Result<Grant, TokenError> {
        let is_named = key.id().is_some_and(|id| token.key_id() == Some(id.as_str()));
        if !is_named || key.algorithm().is_symmetric() {
            return Err(TokenError::Unverified);
        }
        let grant = self.verify_by([key], token)?;
        if self.issuer.is_none() {
            return Err(TokenError::Issuer);
        }
        Ok(grant)
    }

    /// What is signed by one of its keys, for it: all that does not change while the keys stand.
    pub(crate) fn verify_signature(&self, token: &Token<'_>) -> Result<Grant, TokenError> {
        self.verify_by(self.keys.iter(), token)
    }

    fn verify_by<'k>(&self, keys: impl IntoIterator<Item = &'k Key>, token: &Token<'_>) -> Result<Grant, TokenError> {
        let mut meant = keys.into_iter().filter(|key| key.is_meant_by(token.algorithm(), token.key_id()));
        let key = meant.find(|key| key.verifies(token.signed(), token.signature())).ok_or(TokenError::Unverified)?;
        token.claims()?.grant(self, key.print())
    }

    /// Whether what a token of this project has let its bearer do, or the ticket that was got with it, counts with the
    /// project as it is here, as of [`Projects::check`](crate::Projects::check).
    ///
    /// # Errors
    /// [`TokenError`], where it does not.
    pub fn still_grants(
        &self,
        grant: &Grant,
        ticket: Option<TicketHeld>,
        moment: Moment,
        is_issuers: impl FnOnce(KeyPrint) -> bool,
    ) -> Result<(), TokenError> {
        let has = |print: KeyPrint| self.keys.iter().any(|key| key.print() == print);
        let has_signer = ticket.and_then(|ticket| ticket.signer).is_none_or(has);
        if !has_signer || !has(grant.key) && !is_issuers(grant.key) {
            return Err(TokenError::Unverified);
        }
        if ticket.is_some_and(|ticket| self.revoked.contains(&ticket.id.to_string())) {
            return Err(TokenError::Revoked);
        }
        if ticket.is_some_and(|ticket| moment.now >= ticket.hour_ends_at) {
            return Err(TokenError::Expired);
        }
        self.check(grant, moment)
    }

    /// What may change from one moment to the next. Revocation comes first: what lasts goes on where it only does not count
    /// yet, because the clock was set back.
    pub(crate) fn check(&self, grant: &Grant, moment: Moment) -> Result<(), TokenError> {
        if grant.id.as_ref().is_some_and(|id| self.revoked.contains(id)) {
            return Err(TokenError::Revoked);
        }
        if !moment.precedes(grant.expires_at) {
            return Err(TokenError::Expired);
        }
        if grant.not_before.is_some_and(|start| !moment.has_reached(start)) {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }
}
