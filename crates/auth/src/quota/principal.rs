//! Who asks, as far as quotas tell askers apart.

use crate::{key::KeyPrint, token::Grant};

/// Who asks, as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Whoever has a token: by its id, else by what its key has signed.
    Token([u8; 16]),
    /// Whoever has none: by the address.
    Address([u8; 16]),
}

/// What a principal is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Address,
}

impl Principal {
    /// Whoever has this token, which was verified to grant this.
    #[must_use]
    pub fn of_bearer(grant: &Grant, token: &str) -> Self {
        grant.id.as_deref().map_or_else(|| Self::of_token(token), Self::of_token_id)
    }

    /// Whoever has a token of this id, of a project.
    #[must_use]
    pub fn of_token_id(id: &str) -> Self {
        Self::Token(hash(b"id", id.as_bytes()))
    }

    /// Whoever has this token, which has no id. The signature does not count: some can be spelled in two ways by anybody.
    #[must_use]
    pub(super) fn of_token(token: &str) -> Self {
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        Self::Token(hash(b"token", signed.as_bytes()))
    }

    /// Whoever has something that was made for a token without an id, and is not the token: it is known by when the token was
    /// issued, and by which key. So no number of tickets is more than one principal.
    #[must_use]
    pub fn of_issue(key: KeyPrint, issued_at: Option<u64>) -> Self {
        let issued_at = issued_at.map_or([0; 8], u64::to_be_bytes);
        Self::Token(hash(b"issue", &[key.0, issued_at].concat()))
    }

    /// Whoever asks from an address, as bytes that stand for it.
    #[must_use]
    pub fn of_address(address: &[u8]) -> Self {
        Self::Address(hash(b"address", address))
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Token(_) => Kind::Token,
            Self::Address(_) => Kind::Address,
        }
    }
}

pub(super) fn hash(what: &[u8], of: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(what).update(&[0]).update(of);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}
