//! Making tokens, and what may not be the name of one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use tailwater_protocol::ProjectId;

use crate::{
    key::{Algorithm, SigningKey},
    pattern::{PatternError, Streams},
    scope::Scopes,
    ticket::check_form,
    token::{MAX_TOKEN, Token},
};

/// What a new token says.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The project that it is for.
    pub project: ProjectId,
    /// What it allows.
    pub scopes: Scopes,
    /// To which streams, as patterns; all without it.
    pub streams: Option<Vec<String>>,
    /// When it is made, in seconds since the Unix epoch.
    pub issued_at: u64,
    /// When it expires.
    pub expires_at: u64,
    /// When it begins, if later than now.
    pub not_before: Option<u64>,
    /// Whom it is for.
    pub audience: Option<String>,
    /// Whom it is from.
    pub issuer: Option<String>,
    /// By which name it can be revoked, which is no secret: [`is_credential`].
    pub id: Option<String>,
}

/// Why a token cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// A pattern would not be understood.
    #[error("a stream restriction is malformed: {0}")]
    Streams(#[from] PatternError),
    /// Its id is a token or a ticket, which is not to be told; nothing of it is repeated.
    #[error("the token's id is a token or a ticket itself, and an id is told and kept")]
    Id,
    /// It would have expired already.
    #[error("the token would expire before it counts")]
    Expired,
    /// It would be refused for its length.
    #[error("the token would be longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// The key cannot sign.
    #[error("the key cannot sign")]
    Key,
}

#[derive(Serialize)]
struct Header<'t> {
    alg: Algorithm,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'t str>,
}

#[derive(Serialize)]
struct Claims<'t> {
    sub: &'t str,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<&'t [String]>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'t str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'t str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'t str>,
}

/// A token that says this, signed with this key.
///
/// # Errors
/// [`MintError`], where it would be of no use.
pub fn mint(key: &SigningKey, token: &NewToken) -> Result<String, MintError> {
    if token.id.as_deref().is_some_and(is_credential) {
        return Err(MintError::Id);
    }
    if let Some(patterns) = &token.streams {
        Streams::only(patterns.iter().map(String::as_str))?;
    }
    if token.expires_at <= token.not_before.unwrap_or(token.issued_at).max(token.issued_at) {
        return Err(MintError::Expired);
    }
    let header = Header { alg: key.algorithm(), typ: "JWT", kid: key.id().map(crate::key::KeyId::as_str) };
    let claims = Claims {
        sub: token.project.as_str(),
        scope: token.scopes.to_string(),
        streams: token.streams.as_deref(),
        iat: token.issued_at,
        exp: token.expires_at,
        nbf: token.not_before,
        aud: token.audience.as_deref(),
        iss: token.issuer.as_deref(),
        jti: token.id.as_deref(),
    };
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = key.sign(signed.as_bytes()).ok_or(MintError::Key)?;
    let minted = format!("{signed}.{signature}");
    if minted.len() > MAX_TOKEN { Err(MintError::TooLong) } else { Ok(minted) }
}

/// Whether a text has the form of a token or of a ticket, be it one that counts or not. A name that is told, logged and
/// kept, as a `jti` and the id of a ticket are, may have neither.
#[must_use]
pub fn is_credential(text: &str) -> bool {
    Token::parse(text).is_ok() || check_form(text).is_ok()
}

fn encode(part: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).expect("texts and numbers can be written as json"))
}
