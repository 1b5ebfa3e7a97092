//! Looking into a token, for people. What is shown is what it says, be it true or not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::token::{Token, TokenError};

/// What a token says. The signature is left out: what is shown can be passed on without passing on the token.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The header, if it is JSON.
    pub header: Option<Value>,
    /// The claims, if they are JSON.
    pub claims: Option<Value>,
    /// Whether its form and header are ones that are taken.
    pub form: Result<(), TokenError>,
}

/// Looks into a token, whatever is wrong with it.
#[must_use]
pub fn inspect(token: &str) -> Inspection {
    let mut parts = token.split('.').map(part);
    Inspection {
        header: parts.next().flatten(),
        claims: parts.next().flatten(),
        form: Token::parse(token).and_then(|token| token.claims()).map(drop),
    }
}

fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
