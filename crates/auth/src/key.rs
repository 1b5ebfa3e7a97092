//! Keys: what signs and verifies tokens.
//!
//! A key knows the one algorithm that it is for, and a token is verified with a key only if its header names that
//! algorithm (RFC 8725, section 3.1). So a public key is never a secret of HMAC, whatever a header says.

use std::fmt;

use jsonwebtoken::{DecodingKey, EncodingKey, crypto};
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::der::{PrivateKey, PublicKey};

/// The least bytes of a secret: as many as the hash has (RFC 7518, section 3.2).
pub const MIN_SECRET: usize = 32;
/// The most bytes of a secret: beyond a block of the hash they add nothing.
pub const MAX_SECRET: usize = 1024;
/// The lengths of an RSA modulus, in bits, with which signatures are verified. A longer one costs more at each token that is
/// refused than it is worth: a token that names no key is tried with all of its algorithm.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The most bytes of a key's id.
pub const MAX_KEY_ID: usize = 64;

/// What holds a key's bytes wipes them when it goes, of which the library's types would otherwise give no sign.
const _: () = {
    const fn is_wiped<T: ZeroizeOnDrop>() {}
    is_wiped::<DecodingKey>();
    is_wiped::<EncodingKey>();
};

/// How tokens are signed (RFC 7518, section 3.1; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256: who verifies can sign.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA, PKCS#1 v1.5, with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// What tokens call a key (`kid`): `[A-Za-z0-9._-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(String);

/// What tells a key from others without being it: a part of a hash. It is no secret, and proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPrint(pub(crate) [u8; 8]);

/// Verifies tokens; one with a secret signs them, too.
#[derive(Clone)]
pub struct Key {
    id: Option<KeyId>,
    algorithm: Algorithm,
    print: KeyPrint,
    verifying: DecodingKey,
    /// Of a secret.
    signing: Option<EncodingKey>,
}

/// Signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    id: Option<KeyId>,
    algorithm: Algorithm,
    signing: EncodingKey,
}

/// Why something is no key. What was given is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The id has another form.
    #[error("a key's id is 1 to {MAX_KEY_ID} of `A-Z a-z 0-9 . _ -`")]
    Id,
    /// The secret is too short to be one, or absurdly long.
    #[error("a secret has {MIN_SECRET} to {MAX_SECRET} bytes, and this one has {length}")]
    SecretLength {
        /// Its length, in bytes.
        length: usize,
    },
    /// A private key stands where the public one belongs.
    #[error("this is a private key; the public one is enough here, and the private one belongs elsewhere")]
    Private,
    /// It is not PEM, or not a key that can be used.
    #[error("this is no public key for RS256, ES256 or EdDSA: PEM, `BEGIN PUBLIC KEY`")]
    Public,
    /// It is not PEM, or not a key that can be used.
    #[error("this is no private key for RS256, ES256 or EdDSA: PEM, PKCS#8, `BEGIN PRIVATE KEY`")]
    NotPrivate,
    /// It is a key of another algorithm.
    #[error("this is a key for {found}, not for {declared}")]
    Mismatch {
        /// What it was said to be for.
        declared: Algorithm,
        /// What it is for.
        found: Algorithm,
    },
    /// The RSA modulus has another length.
    #[error("an RSA key has 2048 to 4096 bits, and this one has {bits}")]
    RsaLength {
        /// Its length, in bits.
        bits: usize,
    },
    /// A public algorithm has no secret, and HMAC no public key.
    #[error("HS256 takes a secret, and every other algorithm a public key")]
    Kind,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// How tokens spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Whether the same key signs and verifies.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        self == Self::Hs256
    }

    pub(crate) fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl KeyId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`KeyError::Id`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let formed = (1..=MAX_KEY_ID).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        formed.then(|| Self(text.to_owned())).ok_or(KeyError::Id)
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl KeyPrint {
    fn of(algorithm: Algorithm, key: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tailwater print of a key");
        // No name of an algorithm holds a NUL, so no two keys are hashed alike.
        hasher.update(algorithm.as_str().as_bytes()).update(&[0]).update(key);
        let mut print = [0; 8];
        hasher.finalize_xof().fill(&mut print);
        Self(print)
    }
}

impl Key {
    /// A secret for HS256.
    ///
    /// # Errors
    /// [`KeyError::SecretLength`].
    pub fn secret(id: Option<KeyId>, secret: &[u8]) -> Result<Self, KeyError> {
        if !(MIN_SECRET..=MAX_SECRET).contains(&secret.len()) {
            return Err(KeyError::SecretLength { length: secret.len() });
        }
        Ok(Self {
            id,
            algorithm: Algorithm::Hs256,
            print: KeyPrint::of(Algorithm::Hs256, secret),
            verifying: DecodingKey::from_secret(secret),
            signing: Some(EncodingKey::from_secret(secret)),
        })
    }

    /// A public key in PEM.
    ///
    /// # Errors
    /// [`KeyError`], where it is none, or one of another algorithm.
    pub fn public(id: Option<KeyId>, algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let info = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Public)?;
        let key = PublicKey::read(&info).ok_or(KeyError::Public)?;
        if key.algorithm != algorithm {
            return Err(KeyError::Mismatch { declared: algorithm, found: key.algorithm });
        }
        if let Some(bits) = key.modulus_bits.filter(|bits| !RSA_BITS.contains(bits)) {
            return Err(KeyError::RsaLength { bits });
        }
        let verifying = match algorithm {
            Algorithm::Hs256 => return Err(KeyError::Kind),
            Algorithm::Rs256 => DecodingKey::from_rsa_der(key.bytes),
            Algorithm::Es256 => DecodingKey::from_ec_der(key.bytes),
            Algorithm::EdDsa => DecodingKey::from_ed_der(key.bytes),
        };
        Ok(Self { id, algorithm, print: KeyPrint::of(algorithm, key.bytes), verifying, signing: None })
    }

    /// A public key of RSA: modulus and exponent, without leading zeros, and judged already.
    pub(crate) fn rsa(id: KeyId, n: &[u8], e: &[u8]) -> Self {
        let verifying = DecodingKey::from_rsa_raw_components(n, e);
        let print = KeyPrint::of(Algorithm::Rs256, &[n, &[0], e].concat());
        Self { id: Some(id), algorithm: Algorithm::Rs256, print, verifying, signing: None }
    }

    /// A public key of P-256: an uncompressed point.
    pub(crate) fn p256(id: KeyId, point: &[u8]) -> Self {
        let print = KeyPrint::of(Algorithm::Es256, point);
        Self {
            id: Some(id),
            algorithm: Algorithm::Es256,
            print,
            verifying: DecodingKey::from_ec_der(point),
            signing: None,
        }
    }

    /// A public key of Ed25519.
    pub(crate) fn ed25519(id: KeyId, key: &[u8]) -> Self {
        let print = KeyPrint::of(Algorithm::EdDsa, key);
        Self {
            id: Some(id),
            algorithm: Algorithm::EdDsa,
            print,
            verifying: DecodingKey::from_ed_der(key),
            signing: None,
        }
    }

    /// What tokens call it.
    #[must_use]
    pub fn id(&self) -> Option<&KeyId> {
        self.id.as_ref()
    }

    /// What it is for.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What tells it from others.
    #[must_use]
    pub fn print(&self) -> KeyPrint {
        self.print
    }

    /// What signs with it; `None` for a public key.
    #[must_use]
    pub fn signing(&self) -> Option<SigningKey> {
        let signing = self.signing.clone()?;
        Some(SigningKey { id: self.id.clone(), algorithm: self.algorithm, signing })
    }

    /// Whether a token whose header says this may have been signed with it.
    pub(crate) fn is_meant_by(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let named = match (&self.id, id) {
            (Some(own), Some(named)) => own.as_str() == named,
            // Who does not say which key is meant means any.
            (_, None) | (None, Some(_)) => true,
        };
        named && self.algorithm == algorithm
    }

    /// Whether `signature`, in base64url, is this key's of `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        crypto::verify(signature, message, &self.verifying, self.algorithm.of_library()).unwrap_or(false)
    }
}

impl SigningKey {
    /// A private key in PEM; its algorithm is what it is for.
    ///
    /// # Errors
    /// [`KeyError::NotPrivate`].
    pub fn private(id: Option<KeyId>, pem: &str) -> Result<Self, KeyError> {
        let document = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NotPrivate)?;
        let key = PrivateKey::read(document.secret_pkcs8_der()).ok_or(KeyError::NotPrivate)?;
        let signing = match key.algorithm {
            Algorithm::Hs256 => return Err(KeyError::NotPrivate),
            Algorithm::Rs256 => EncodingKey::from_rsa_der(&key.bytes),
            Algorithm::Es256 => EncodingKey::from_ec_der(&key.bytes),
            Algorithm::EdDsa => EncodingKey::from_ed_der(&key.bytes),
        };
        Ok(Self { id, algorithm: key.algorithm, signing })
    }

    /// What tokens call it.
    #[must_use]
    pub fn id(&self) -> Option<&KeyId> {
        self.id.as_ref()
    }

    /// What it is for.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The signature of `message`, in base64url; `None` where the key is broken within.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<String> {
        crypto::sign(message, &self.signing, self.algorithm.of_library()).ok()
    }
}

/// A secret's text; erased when it goes, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub(crate) Zeroizing<String>);

/// It is made of what wipes itself, and of nothing else.
const _: fn(Zeroizing<String>) -> SecretText = SecretText;

impl SecretText {
    /// The text, for whoever needs to read it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    /// An element of DER.
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap();
        let [high, low] = length.to_be_bytes();
        let head = match length {
            0..128 => vec![tag, low],
            128..256 => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        [head.as_slice(), content].concat()
    }

    /// A public key whose modulus has so many bits.
    fn rsa(bits: usize) -> String {
        let modulus = element(0x02, &[&[0][..], &vec![0xff; bits / 8]].concat());
        let key = element(0x30, &[modulus, element(0x02, &[1, 0, 1])].concat());
        let identifier = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
        let algorithm = element(0x30, &[element(0x06, &identifier), element(0x05, &[])].concat());
        let bit_string = element(0x03, &[&[0][..], key.as_slice()].concat());
        let info = element(0x30, &[algorithm, bit_string].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(info))
    }

    #[test]
    fn rsa_keys_are_neither_short_nor_longer_than_they_are_worth() {
        for (bits, taken) in [(1024, false), (2040, false), (2048, true), (4096, true), (4104, false), (8192, false)] {
            let fault = Key::public(None, Algorithm::Rs256, &rsa(bits)).err();
            assert_eq!(fault, (!taken).then_some(KeyError::RsaLength { bits }), "{bits}");
        }
    }
}
