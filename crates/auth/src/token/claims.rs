//! The claims of a token (RFC 7519, section 4; RFC 8693, section 4.2, for `scope`).
//!
//! | claim | |
//! |---|---|
//! | `sub` | the project; needed |
//! | `exp` | needed |
//! | `scope` | names with spaces between them, or a list; without it nothing is allowed |
//! | `streams` | patterns; without it all streams |
//! | `nbf` | |
//! | `aud`, `iss` | needed where the project demands them |
//! | `jti` | what a revocation names |
//!
//! Others are overlooked. A time may have a fraction, and is taken for the stricter second.

use serde::Deserialize;

use crate::{
    json::given,
    pattern::Streams,
    project::Project,
    scope::Scopes,
    token::{Grant, TokenError},
};

/// The longest `jti`, in bytes.
pub(crate) const MAX_TOKEN_ID: usize = 256;

/// What a token claims. A member that is `null` is malformed, not missing: a restriction must not vanish so.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    #[serde(default, deserialize_with = "given")]
    pub(crate) scope: Option<Names>,
    #[serde(default, deserialize_with = "given")]
    pub(crate) streams: Option<Vec<String>>,
    pub(crate) exp: f64,
    #[serde(default, deserialize_with = "given")]
    pub(crate) nbf: Option<f64>,
    #[serde(default, deserialize_with = "given")]
    pub(crate) aud: Option<Names>,
    #[serde(default, deserialize_with = "given")]
    pub(crate) iss: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub(crate) jti: Option<String>,
}

/// A text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Names {
    One(String),
    Many(Vec<String>),
}

impl Names {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

impl Claims {
    /// What they grant in this project, whenever.
    pub(crate) fn grant(self, project: &Project) -> Result<Grant, TokenError> {
        if self.sub != project.id.as_str() {
            return Err(TokenError::Project);
        }
        if let Some(audience) = &project.audience
            && !self.aud.iter().flat_map(Names::iter).any(|named| named == audience)
        {
            return Err(TokenError::Audience);
        }
        if project.issuer.is_some() && project.issuer != self.iss {
            return Err(TokenError::Issuer);
        }
        if self.jti.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_TOKEN_ID) {
            return Err(TokenError::Claims);
        }
        let streams = match &self.streams {
            None => Streams::All,
            Some(patterns) => Streams::only(patterns.iter().map(String::as_str)).map_err(TokenError::Streams)?,
        };
        let names = self.scope.iter().flat_map(Names::iter).flat_map(|names| names.split(' '));
        Ok(Grant {
            project: project.id.clone(),
            scopes: Scopes::among(names),
            streams,
            expires_at: seconds(self.exp.floor()),
            not_before: self.nbf.map(|start| seconds(start.ceil())),
            id: self.jti,
        })
    }
}

/// A time before the epoch is the epoch, and one beyond all reckoning the end of it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is meant")]
fn seconds(time: f64) -> u64 {
    time as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_for_the_stricter_second() {
        for (text, floor, ceil) in [("1.5", 1, 2), ("2", 2, 2), ("-1", 0, 0), ("1e30", u64::MAX, u64::MAX)] {
            let time: f64 = serde_json::from_str(text).unwrap();
            assert_eq!((seconds(time.floor()), seconds(time.ceil())), (floor, ceil), "{text}");
        }
    }
}
