//! The header of a token (RFC 7515, section 4).
//!
//! Read by its members' exact names; a member that stands there twice is refused by the reader. What would change how the
//! token is to be read, or bring a key along, is refused, because to overlook it could be what an attacker wants. What only
//! describes (`x5t`, names that nobody has defined) is overlooked, as section 4 asks.

use serde::{Deserialize, de::IgnoredAny};

use crate::key::Algorithm;

/// The header, as far as it matters.
#[derive(Debug, Deserialize)]
pub(crate) struct Header {
    alg: Option<String>,
    typ: Option<String>,
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
    #[serde(default, deserialize_with = "present")]
    cty: bool,
    #[serde(default, deserialize_with = "present")]
    enc: bool,
    #[serde(default, deserialize_with = "present")]
    zip: bool,
    #[serde(default, deserialize_with = "present")]
    jwk: bool,
    #[serde(default, deserialize_with = "present")]
    jku: bool,
    #[serde(default, deserialize_with = "present")]
    x5u: bool,
    #[serde(default, deserialize_with = "present")]
    x5c: bool,
}

/// Why a header is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// `alg` is missing, `none`, or none of those that are taken.
    #[error("names no algorithm that is taken: HS256, RS256, ES256, EdDSA")]
    Algorithm,
    /// `typ` says that it is something else (RFC 8725, section 3.11).
    #[error("says that it is something else than a jwt")]
    Type,
    /// `kid` is no key's id.
    #[error("has a malformed key id")]
    KeyId,
    /// `crit` names what has to be understood, and nothing is.
    #[error("has critical members that are not understood")]
    Critical,
    /// It is encrypted, compressed, nested, or not in base64url.
    #[error("says that the token is encrypted, compressed or nested")]
    Encoding,
    /// It brings a key, or names where one is.
    #[error("brings a key of its own")]
    OwnKey,
}

impl Header {
    /// Whether it is one that is taken.
    pub(crate) fn judge(&self) -> Result<(), HeaderFault> {
        if self.crit {
            return Err(HeaderFault::Critical);
        }
        if self.jwk || self.jku || self.x5u || self.x5c {
            return Err(HeaderFault::OwnKey);
        }
        if self.b64 || self.cty || self.enc || self.zip {
            return Err(HeaderFault::Encoding);
        }
        if self.typ.as_deref().is_some_and(|typ| !is_jwt(typ)) {
            return Err(HeaderFault::Type);
        }
        if self.kid.as_deref().is_some_and(|kid| crate::key::KeyId::parse(kid).is_err()) {
            return Err(HeaderFault::KeyId);
        }
        self.algorithm().map(drop).ok_or(HeaderFault::Algorithm)
    }

    /// The algorithm, by its exact name.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        let named = self.alg.as_deref()?;
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == named)
    }

    pub(crate) fn key_id(&self) -> Option<&str> {
        self.kid.as_deref()
    }
}

/// `JWT`, or an access token of OAuth (RFC 9068, section 2.1).
fn is_jwt(typ: &str) -> bool {
    let start = typ.get(..12).filter(|start| start.eq_ignore_ascii_case("application/"));
    let name = start.map_or(typ, |start| &typ[start.len()..]);
    name.eq_ignore_ascii_case("jwt") || name.eq_ignore_ascii_case("at+jwt")
}

/// That a member is there, whatever it holds.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(json: &str) -> Option<Result<(), HeaderFault>> {
        serde_json::from_str::<Header>(json).ok().map(|header| header.judge())
    }

    #[test]
    fn a_header_is_taken_only_if_all_of_it_is_understood() {
        use HeaderFault::{Algorithm, Critical, Encoding, KeyId, OwnKey, Type};
        let table = [
            (r#"{"alg":"HS256"}"#, Ok(())),
            (r#"{"alg":"EdDSA","typ":"JWT","kid":"a","x5t":"b","vendor":{"a":1}}"#, Ok(())),
            (r#"{"alg":"ES256","typ":"application/at+jwt"}"#, Ok(())),
            (r#"{"alg":"RS256","typ":"jwt"}"#, Ok(())),
            (r"{}", Err(Algorithm)),
            (r#"{"ALG":"HS256"}"#, Err(Algorithm)),
            (r#"{"alg":"none"}"#, Err(Algorithm)),
            (r#"{"alg":"nOnE"}"#, Err(Algorithm)),
            (r#"{"alg":"hs256"}"#, Err(Algorithm)),
            (r#"{"alg":"HS384"}"#, Err(Algorithm)),
            (r#"{"alg":"PS256"}"#, Err(Algorithm)),
            (r#"{"alg":"HS256 "}"#, Err(Algorithm)),
            (r#"{"alg":null}"#, Err(Algorithm)),
            (r#"{"alg":"HS256","typ":"logout+jwt"}"#, Err(Type)),
            (r#"{"alg":"HS256","typ":""}"#, Err(Type)),
            (r#"{"alg":"HS256","kid":"../../dev/null"}"#, Err(KeyId)),
            (r#"{"alg":"HS256","kid":""}"#, Err(KeyId)),
            (r#"{"alg":"HS256","crit":["exp"]}"#, Err(Critical)),
            (r#"{"alg":"HS256","crit":null}"#, Err(Critical)),
            (r#"{"alg":"HS256","b64":false}"#, Err(Encoding)),
            (r#"{"alg":"HS256","cty":"JWT"}"#, Err(Encoding)),
            (r#"{"alg":"HS256","enc":"A128GCM"}"#, Err(Encoding)),
            (r#"{"alg":"HS256","zip":"DEF"}"#, Err(Encoding)),
            (r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}"#, Err(OwnKey)),
            (r#"{"alg":"RS256","jku":"https://evil.example"}"#, Err(OwnKey)),
            (r#"{"alg":"RS256","x5u":"https://evil.example"}"#, Err(OwnKey)),
            (r#"{"alg":"RS256","x5c":["MII"]}"#, Err(OwnKey)),
        ];
        for (json, expected) in table {
            assert_eq!(judged(json), Some(expected), "{json}");
        }
    }

    #[test]
    fn a_header_that_could_be_read_in_two_ways_is_read_in_none() {
        for json in [
            r#"{"alg":"HS256","alg":"none"}"#,
            r#"{"alg":"HS256","\u0061lg":"none"}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":"HS256","kid":1}"#,
            r#"{"alg":"HS256"} {}"#,
            r#"{"alg":"HS256""#,
            "",
        ] {
            assert_eq!(judged(json), None, "{json}");
        }
    }
}
