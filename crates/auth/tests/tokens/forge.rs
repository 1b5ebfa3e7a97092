//! Keys of every kind, the projects that trust some of them, and tokens that say whatever a test wants. The tests of the server
//! take part in it.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use tailwater_auth::key::SigningKey;

pub(crate) const NOW: u64 = 1_728_452_000;
pub(crate) const SKEW: u64 = 30;
pub(crate) const SECRET: &str = "the secret of chat: thirty-two bytes and more";
pub(crate) const OTHER_SECRET: &str = "the secret of other: thirty-two bytes and more";
pub(crate) const AUDIENCE: &str = "tailwater";
pub(crate) const ISSUER: &str = "https://login.example";
/// What a project has revoked.
pub(crate) const STOLEN: &str = "stolen";

pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(Keys::generate);

/// Pairs whose public keys the project `chat` trusts, and one of each kind that nobody trusts.
pub(crate) struct Keys {
    pub(crate) rsa: KeyPair,
    pub(crate) p256: KeyPair,
    pub(crate) ed25519: KeyPair,
    pub(crate) strange_rsa: KeyPair,
    pub(crate) strange_p256: KeyPair,
    pub(crate) strange_ed25519: KeyPair,
}

impl Keys {
    fn generate() -> Self {
        let rsa = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let p256 = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let ed25519 = || KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self {
            rsa: rsa(),
            p256: p256(),
            ed25519: ed25519(),
            strange_rsa: rsa(),
            strange_p256: p256(),
            strange_ed25519: ed25519(),
        }
    }
}

/// `chat` trusts a key of each kind, demands audience and issuer, and says what else the test has it say; `twin` has the secret
/// of `chat`; `other` has its own; `open` trusts a public key alone.
pub(crate) fn document(of_chat: &str) -> String {
    let public = |algorithm: &str, id: &str, pair: &KeyPair| {
        let pem = pair.public_key_pem();
        format!("[[project.key]]\nid = '{id}'\nalgorithm = '{algorithm}'\npublic-key = '''\n{pem}'''\n")
    };
    let secret = |secret: &str| format!("[[project.key]]\nid = 'hs'\nalgorithm = 'HS256'\nsecret = '{secret}'\n");
    let project =
        |id: &str, rest: &str, keys: &[String]| format!("[[project]]\nid = '{id}'\n{rest}\n{}", keys.concat());
    let demands = format!("audience = '{AUDIENCE}'\nissuer = '{ISSUER}'\nrevoked = ['{STOLEN}']\n{of_chat}");
    let rs = public("RS256", "rs", &KEYS.rsa);
    let es = public("ES256", "es", &KEYS.p256);
    let ed = public("EdDSA", "ed", &KEYS.ed25519);
    [
        project("chat", &demands, &[secret(SECRET), rs.clone(), es, ed]),
        project("twin", "", &[secret(SECRET)]),
        project("other", "", &[secret(OTHER_SECRET)]),
        project("open", "", &[rs]),
    ]
    .concat()
}

/// What a good token of `chat` claims.
pub(crate) fn claims() -> Value {
    json!({
        "sub": "chat", "scope": "read write", "exp": NOW + 600, "iat": NOW, "nbf": NOW,
        "aud": AUDIENCE, "iss": ISSUER, "jti": "one",
    })
}

/// The same with some of them replaced, or taken away by `null`.
pub(crate) fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    let all = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            all.remove(name);
        } else {
            all.insert(name.clone(), value.clone());
        }
    }
    claims
}

pub(crate) fn encoded(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of these texts, signed so.
pub(crate) fn signed(algorithm: Algorithm, key: &EncodingKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

pub(crate) fn secret_key() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

/// A token with the secret of `chat`.
pub(crate) fn hs256(header: &Value, claims: &Value) -> String {
    signed(Algorithm::HS256, &secret_key(), &header.to_string(), &claims.to_string())
}

pub(crate) fn hs_header() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

/// A token with a private key, whatever its header says.
pub(crate) fn by_pair(pair: &KeyPair, header: &Value, claims: &Value) -> String {
    let pem = pair.serialize_pem();
    let key = SigningKey::private(None, &pem).unwrap();
    let document = pair.serialize_der();
    let (algorithm, key) = match key.algorithm() {
        tailwater_auth::Algorithm::Rs256 => (Algorithm::RS256, EncodingKey::from_rsa_der(&pkcs1(&document))),
        tailwater_auth::Algorithm::Es256 => (Algorithm::ES256, EncodingKey::from_ec_der(&document)),
        tailwater_auth::Algorithm::EdDsa => (Algorithm::EdDSA, EncodingKey::from_ed_der(&document)),
        tailwater_auth::Algorithm::Hs256 => panic!("a pair is no secret"),
    };
    signed(algorithm, &key, &header.to_string(), &claims.to_string())
}

/// The RSA key within PKCS#8: what stands behind the 26 bytes of version, algorithm, and length.
fn pkcs1(document: &[u8]) -> Vec<u8> {
    document[26..].to_vec()
}
