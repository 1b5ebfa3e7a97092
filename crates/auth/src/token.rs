//! Tokens: JWTs (RFC 7519) in the compact form of JWS (RFC 7515), judged as RFC 8725 asks.
//!
//! The order of the checks is part of what is promised. Size and form come first, the header before any key is looked at,
//! the signature before any claim is believed. Whether a project exists, and which keys it has, cannot be told from an
//! error: what no key verifies is [`TokenError::Unverified`], whyever.
//!
//! - `header`: what the header may say. Nothing in it brings or names a key's bytes.
//! - `claims`: what the claims must say.

pub(crate) mod claims;
pub(crate) mod header;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use tailwater_protocol::ProjectId;

pub use self::header::HeaderFault;
use self::{claims::Claims, header::Header};
use crate::{
    json,
    key::{Algorithm, KeyPrint},
    pattern::PatternError,
    pattern::Streams,
    scope::Scopes,
};

/// The longest token, in bytes. What holds a request's head holds two of them.
pub const MAX_TOKEN: usize = 8 * 1024;

/// A token of good form, of which nothing is believed yet.
pub struct Token<'t> {
    header: Header,
    /// Header and claims, as they are signed.
    signed: &'t str,
    claims: &'t str,
    signature: &'t str,
}

/// What a token that counts lets its bearer do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// In this project.
    pub project: ProjectId,
    /// These things.
    pub scopes: Scopes,
    /// To these streams.
    pub streams: Streams,
    /// Until then, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// From then on.
    pub not_before: Option<u64>,
    /// Since when it has been one, as its issuer says.
    pub issued_at: Option<u64>,
    /// The key that it was verified with.
    pub key: KeyPrint,
    /// By this name it is revoked (`jti`).
    pub id: Option<String>,
}

/// Of what a token claims, that by which its keys are found.
#[derive(Deserialize)]
struct Subject {
    sub: String,
}

/// The time at which a token is judged, and how far its issuer's clock may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since the Unix epoch.
    pub now: u64,
    /// Seconds by which a token counts earlier and longer than it says.
    pub skew: u64,
}

/// Why a token does not count. Nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is longer than [`MAX_TOKEN`].
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// It is not three parts of base64url with dots between them.
    #[error("the token is not a jwt in compact form")]
    Form,
    /// The header is not one that is taken.
    #[error("the token's header {0}")]
    Header(HeaderFault),
    /// No key that it could mean verifies it.
    #[error("no key of the project verifies the token")]
    Unverified,
    /// The claims are not an object with the claims that are needed, or one has another type than it should.
    #[error("the token's claims are malformed, or `sub` or `exp` is missing")]
    Claims,
    /// The stream restriction is not understood.
    #[error("the token's `streams` are malformed: {0}")]
    Streams(PatternError),
    /// `sub` names another project.
    #[error("the token is for another project")]
    Project,
    /// `aud` does not name this gateway.
    #[error("the token is for another audience")]
    Audience,
    /// `iss` names another issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It does not count yet.
    #[error("the token does not count yet")]
    NotYet,
    /// It was revoked.
    #[error("the token was revoked")]
    Revoked,
}

/// Whoever has a token may do what it says, whatever it is called.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl<'t> Token<'t> {
    /// Takes a token apart, and judges its header.
    ///
    /// # Errors
    /// [`TokenError::TooLong`], [`TokenError::Form`], [`TokenError::Header`].
    pub fn parse(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
        if claims.contains('.') || [header, claims, signature].contains(&"") {
            return Err(TokenError::Form);
        }
        let header: Header = decode(header).ok_or(TokenError::Form)?;
        header.judge().map_err(TokenError::Header)?;
        Ok(Self { header, signed, claims, signature })
    }

    /// How it says that it is signed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.header.algorithm().expect("a header without a known algorithm was refused")
    }

    /// Which key it says that it is signed with.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.header.key_id()
    }

    pub(crate) fn signed(&self) -> &'t [u8] {
        self.signed.as_bytes()
    }

    pub(crate) fn signature(&self) -> &'t str {
        self.signature
    }

    /// The project that it claims to be for, be it true or not: good for choosing the keys that may verify it, and for
    /// nothing else.
    #[must_use]
    pub fn claimed_project(&self) -> Option<ProjectId> {
        let Subject { sub } = decode(self.claims)?;
        ProjectId::parse(&sub).ok()
    }

    /// What it claims, be it true or not.
    pub(crate) fn claims(&self) -> Result<Claims, TokenError> {
        decode(self.claims).ok_or(TokenError::Claims)
    }
}

impl Moment {
    /// Whether it lies before this time of the issuer's clock.
    #[must_use]
    pub fn precedes(self, time: u64) -> bool {
        self.now < time.saturating_add(self.skew)
    }

    /// Whether this time of the issuer's clock has come.
    #[must_use]
    pub fn has_reached(self, time: u64) -> bool {
        time <= self.now.saturating_add(self.skew)
    }
}

impl TokenError {
    /// A stable name, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Form => "form",
            Self::Header(_) => "header",
            Self::Unverified => "unverified",
            Self::Claims => "claims",
            Self::Streams(_) => "streams",
            Self::Project => "project",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Revoked => "revoked",
        }
    }
}

/// An object of JSON in base64url, without padding and in its one spelling.
fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    json::object(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_counts_from_its_beginning_to_its_end_give_or_take_the_skew() {
        let at = |now, skew| Moment { now, skew };
        assert!(at(99, 0).precedes(100) && !at(100, 0).precedes(100));
        assert!(at(109, 10).precedes(100) && !at(110, 10).precedes(100));
        assert!(at(100, 0).has_reached(100) && !at(99, 0).has_reached(100));
        assert!(at(90, 10).has_reached(100) && !at(89, 10).has_reached(100));
        assert!(at(u64::MAX - 1, u64::MAX).precedes(u64::MAX) && at(u64::MAX, u64::MAX).has_reached(u64::MAX));
    }

    #[test]
    fn debug_shows_nothing_of_a_token() {
        let [header, claims] = ["{\"alg\":\"HS256\",\"kid\":\"a-key\"}", "{}"].map(|part| URL_SAFE_NO_PAD.encode(part));
        let token = format!("{header}.{claims}.c2lnbmF0dXJl");
        assert_eq!(format!("{:?}", Token::parse(&token).unwrap()), "Token(…)");
    }

    #[test]
    fn the_project_that_a_token_claims_is_known_before_anything_is_believed() {
        let claimed = |claims: &str| {
            let [header, claims] = ["{\"alg\":\"HS256\"}", claims].map(|part| URL_SAFE_NO_PAD.encode(part));
            let token = format!("{header}.{claims}.c2lnbmF0dXJl");
            Token::parse(&token).unwrap().claimed_project().map(|project| project.to_string())
        };
        assert_eq!(claimed(r#"{"sub":"chat","exp":"never"}"#).as_deref(), Some("chat"));
        for claims in
            ["{}", r#"{"sub":7}"#, r#"{"sub":""}"#, r#"{"sub":"a/b"}"#, r#"{"sub":"a","sub":"b"}"#, r#"["a"]"#]
        {
            assert_eq!(claimed(claims), None, "{claims}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([.A-Za-z0-9_-]|\\PC){0,40}", json in "[{}\\[\\]\":,a-z0-9]{0,30}") {
            let wrapped = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(&json), URL_SAFE_NO_PAD.encode(&json));
            for token in [&text, &wrapped] {
                prop_assert!(Token::parse(token).and_then(|token| token.claims()).is_err());
            }
        }
    }
}
