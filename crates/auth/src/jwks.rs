//! An issuer's keys: a set of JSON Web Keys (RFC 7517; RFC 7518, section 6; RFC 8037), and where and when they are fetched.
//!
//! A key counts if every member that it has agrees with what it would be used for: verifying tokens with one of the
//! algorithms that are taken. What is merely of another kind or for something else is passed over, for issuers list all of
//! their keys. What should not be there at all spoils the set: a secret or a private key in a public place means that
//! anybody may sign, and what is malformed or could be read in two ways was not written by who it seems.
//!
//! | module | what it holds |
//! |---|---|
//! | `url` | where keys may be fetched |
//! | `cache` | when they are, and how long they count |

mod cache;
mod url;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;

pub use self::{
    cache::{DEFAULT_FRESH, Fetch, FetchId, Found, JwksCache, KEPT_FOR, Lookup, MAX_FRESH, MIN_FRESH, Source, Wanted},
    url::{HostsError, JwksHosts, JwksUrl, MAX_HOSTS, MAX_URL, UrlError},
};
use crate::{
    json::{self, given},
    key::{Algorithm, Key, KeyId, RSA_BITS},
};

/// The longest set, in bytes.
pub const MAX_JWKS: usize = 64 * 1024;
/// The most keys of a set, those that are passed over included.
pub const MAX_JWKS_KEYS: usize = 32;

/// The bytes of a coordinate of P-256, and of a key of Ed25519.
const COORDINATE: usize = 32;

/// A set of keys.
#[derive(Debug, Clone)]
pub struct Jwks {
    /// Those that count; each has an id, and no two have the same id and algorithm.
    pub keys: Vec<Key>,
    /// The places, from 1, of those that do not, and why.
    pub passed_over: Vec<(usize, PassedOver)>,
}

/// Why a key of a set does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedOver {
    /// Its `kty` or `crv` is another.
    Kind,
    /// Its `use` or `key_ops` do not say that it verifies signatures.
    Use,
    /// Its `alg` is not the one that is taken for its kind.
    Algorithm,
    /// It has no `kid` that a token could name: `[A-Za-z0-9._-]{1,64}`.
    Id,
    /// Its RSA modulus has not 2048 to 4096 bits.
    RsaLength,
}

/// Why a set is not taken, any of it. Nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is longer than [`MAX_JWKS`].
    #[error("a set of keys has at most {MAX_JWKS} bytes")]
    TooLong,
    /// It is not JSON with an array `keys` of objects that have a `kty`.
    #[error("this is no set of keys")]
    Form,
    /// It has too many keys.
    #[error("a set has at most {MAX_JWKS_KEYS} keys")]
    TooMany,
    /// A secret of HMAC stands there, where everybody may read it.
    #[error("key {number} is a secret")]
    Secret {
        /// Which, from 1.
        number: usize,
    },
    /// A private key stands there.
    #[error("key {number} is a private key")]
    Private {
        /// Which, from 1.
        number: usize,
    },
    /// A key is not what its kind has to be, or a member stands there twice.
    #[error("key {number} is malformed")]
    Malformed {
        /// Which, from 1.
        number: usize,
    },
    /// Two keys cannot be told apart.
    #[error("key {number} has the id and the algorithm of another")]
    Repeated {
        /// Which, from 1.
        number: usize,
    },
}

/// What is decided about one key.
enum Fault {
    Passed(PassedOver),
    Malformed,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Kind {
    kty: String,
}

/// A key of a kind that is known. A member that is `null` is malformed.
#[derive(Deserialize)]
struct Jwk {
    #[serde(default, rename = "use", deserialize_with = "given")]
    purpose: Option<String>,
    #[serde(default, deserialize_with = "given")]
    key_ops: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    alg: Option<String>,
    #[serde(default, deserialize_with = "given")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "given")]
    crv: Option<String>,
    #[serde(default, deserialize_with = "given")]
    n: Option<String>,
    #[serde(default, deserialize_with = "given")]
    e: Option<String>,
    #[serde(default, deserialize_with = "given")]
    x: Option<String>,
    #[serde(default, deserialize_with = "given")]
    y: Option<String>,
}

/// What only a private key or a secret has (RFC 7518, section 6).
#[derive(Deserialize)]
struct PrivateMembers {
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

impl Jwks {
    /// Reads a set.
    ///
    /// # Errors
    /// [`JwksError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JwksError> {
        if bytes.len() > MAX_JWKS {
            return Err(JwksError::TooLong);
        }
        let set: Set = json::object(bytes).map_err(|_| JwksError::Form)?;
        if set.keys.len() > MAX_JWKS_KEYS {
            return Err(JwksError::TooMany);
        }
        let mut read = Self { keys: Vec::new(), passed_over: Vec::new() };
        for (index, text) in set.keys.iter().enumerate() {
            let number = index + 1;
            let Kind { kty } = member_of(text).ok_or(JwksError::Form)?;
            match kty.as_str() {
                "oct" => return Err(JwksError::Secret { number }),
                "RSA" | "EC" | "OKP" => {}
                _ => {
                    read.passed_over.push((number, PassedOver::Kind));
                    continue;
                }
            }
            let private: PrivateMembers = member_of(text).ok_or(JwksError::Malformed { number })?;
            if private.any() {
                return Err(JwksError::Private { number });
            }
            let jwk: Jwk = member_of(text).ok_or(JwksError::Malformed { number })?;
            match jwk.key(&kty) {
                Ok(key) if read.keys.iter().any(|other| is_same(other, &key)) => {
                    return Err(JwksError::Repeated { number });
                }
                Ok(key) => read.keys.push(key),
                Err(Fault::Passed(reason)) => read.passed_over.push((number, reason)),
                Err(Fault::Malformed) => return Err(JwksError::Malformed { number }),
            }
        }
        Ok(read)
    }
}

impl PrivateMembers {
    fn any(&self) -> bool {
        let rsa = [&self.d, &self.p, &self.q, &self.dp, &self.dq, &self.qi, &self.oth];
        rsa.into_iter().chain([&self.k]).any(Option::is_some)
    }
}

impl Jwk {
    fn key(&self, kty: &str) -> Result<Key, Fault> {
        let algorithm = match (kty, self.crv.as_deref()) {
            ("RSA", None) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            ("EC" | "OKP", Some(_)) => return Err(Fault::Passed(PassedOver::Kind)),
            _ => return Err(Fault::Malformed),
        };
        let verifies = self.key_ops.as_ref().is_none_or(|deeds| deeds.iter().any(|deed| deed == "verify"));
        if !verifies || self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err(Fault::Passed(PassedOver::Use));
        }
        if self.alg.as_deref().is_some_and(|named| named != algorithm.as_str()) {
            return Err(Fault::Passed(PassedOver::Algorithm));
        }
        let id = self.kid.as_deref().and_then(|kid| KeyId::parse(kid).ok());
        let id = id.ok_or(Fault::Passed(PassedOver::Id))?;
        match algorithm {
            Algorithm::Rs256 => self.rsa(id),
            Algorithm::Es256 => {
                let point = [&[4][..], &coordinate(self.x.as_ref())?, &coordinate(self.y.as_ref())?].concat();
                Ok(Key::p256(id, &point))
            }
            Algorithm::EdDsa => Ok(Key::ed25519(id, &coordinate(self.x.as_ref())?)),
            Algorithm::Hs256 => Err(Fault::Malformed),
        }
    }

    fn rsa(&self, id: KeyId) -> Result<Key, Fault> {
        let (n, e) = (decoded(self.n.as_ref())?, decoded(self.e.as_ref())?);
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        // Even ones, and an exponent of 1, which "verifies" whatever it is shown, are no keys at all.
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        if !is_odd(&n) || !is_odd(&e) || e == [1] || e.len() > 4 {
            return Err(Fault::Malformed);
        }
        if !RSA_BITS.contains(&bits) {
            return Err(Fault::Passed(PassedOver::RsaLength));
        }
        Ok(Key::rsa(id, &n, &e))
    }
}

fn is_same(one: &Key, other: &Key) -> bool {
    one.id() == other.id() && one.algorithm() == other.algorithm()
}

fn member_of<T: DeserializeOwned>(text: &RawValue) -> Option<T> {
    json::object(text.get().as_bytes()).ok()
}

/// A number without leading zeros, or bytes.
fn decoded(member: Option<&String>) -> Result<Vec<u8>, Fault> {
    let bytes = member.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(Fault::Malformed)?;
    // The form is the shortest (RFC 7518, section 6.3.1.1), but some issuers put the sign that ASN.1 has.
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

fn coordinate(member: Option<&String>) -> Result<[u8; COORDINATE], Fault> {
    let bytes = member.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(Fault::Malformed)?;
    bytes.try_into().map_err(|_| Fault::Malformed)
}

#[cfg(test)]
mod tests;
