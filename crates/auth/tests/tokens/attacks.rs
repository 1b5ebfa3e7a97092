//! Attacks, each with the status and the reason of its refusal. None needs more than the token: nothing is looked up. The tests
//! of the server send the same through the whole gateway.

use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::PublicKeyData as _;
use serde_json::{Value, json};
use tailwater_auth::{Act, MAX_TOKEN};

use crate::forge::{
    AUDIENCE, ISSUER, KEYS, NOW, OTHER_SECRET, SECRET, SKEW, STOLEN, by_pair, claims, claims_with, encoded, hs_header,
    hs256, secret_key, signed,
};

/// What it is, the project, the token, the deed; and what must come of it.
pub(crate) type Attack = (&'static str, &'static str, String, Act<'static>, (u16, &'static str));

const READ: Act<'static> = Act::Read("s");
const WRITE: Act<'static> = Act::Write("s");
const UNVERIFIED: (u16, &str) = (401, "unverified");
const HEADER: (u16, &str) = (401, "header");
const FORM: (u16, &str) = (401, "form");
const CLAIMS: (u16, &str) = (401, "claims");

/// All of them, by what is wrong with them.
pub(crate) fn attacks() -> [(&'static str, Vec<Attack>); 8] {
    [
        ("forged", forged()),
        ("confused", confused()),
        ("injected", injected()),
        ("malformed", malformed()),
        ("expired", expired()),
        ("revoked", revoked()),
        ("misaddressed", misaddressed()),
        ("misscoped", misscoped()),
    ]
}

pub(crate) fn good() -> String {
    hs256(&hs_header(), &claims())
}

fn with_claims(changes: &Value) -> String {
    hs256(&hs_header(), &claims_with(changes))
}

fn with_header(header: &Value) -> String {
    hs256(header, &claims())
}

fn with_secret(secret: &[u8], claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(secret), &hs_header().to_string(), &claims.to_string())
}

/// The good token with one of its three parts replaced.
fn with_part(index: usize, part: &str) -> String {
    let token = good();
    let mut parts: Vec<_> = token.split('.').collect();
    parts[index] = part;
    parts.join(".")
}

/// Nobody who could sign has signed it.
fn forged() -> Vec<Attack> {
    let flipped = {
        let token = good();
        let (rest, last) = token.split_at(token.len() - 2);
        format!("{rest}{}{}", if last.starts_with('A') { 'B' } else { 'A' }, &last[1..])
    };
    let promoted = encoded(&claims_with(&json!({"scope": "read write manage"})).to_string());
    let other_header = encoded(&json!({"alg": "HS256", "kid": "hs"}).to_string());
    let mut cut = good();
    cut.truncate(cut.len() - 4);
    let strange = |pair, alg: &str| by_pair(pair, &json!({"alg": alg}), &claims());
    vec![
        ("another secret", "chat", with_secret(OTHER_SECRET.as_bytes(), &claims()), READ, UNVERIFIED),
        ("an empty secret", "chat", with_secret(b"", &claims()), READ, UNVERIFIED),
        ("a guessed secret", "chat", with_secret(b"secret", &claims()), READ, UNVERIFIED),
        (
            "the secret with a line break",
            "chat",
            with_secret(format!("{SECRET}\n").as_bytes(), &claims()),
            READ,
            UNVERIFIED,
        ),
        ("a flipped bit of the signature", "chat", flipped, READ, UNVERIFIED),
        ("a signature cut short", "chat", cut, READ, UNVERIFIED),
        ("claims replaced under a good signature", "chat", with_part(1, &promoted), READ, UNVERIFIED),
        ("a header replaced under a good signature", "chat", with_part(0, &other_header), READ, UNVERIFIED),
        ("no signature", "chat", with_part(2, ""), READ, FORM),
        ("a signature of zeros", "chat", with_part(2, &"A".repeat(43)), READ, UNVERIFIED),
        ("an RSA key that nobody trusts", "chat", strange(&KEYS.strange_rsa, "RS256"), READ, UNVERIFIED),
        ("a P-256 key that nobody trusts", "chat", strange(&KEYS.strange_p256, "ES256"), READ, UNVERIFIED),
        ("an Ed25519 key that nobody trusts", "chat", strange(&KEYS.strange_ed25519, "EdDSA"), READ, UNVERIFIED),
        (
            "a zero signature of ECDSA",
            "chat",
            {
                let token = by_pair(&KEYS.p256, &json!({"alg": "ES256"}), &claims());
                let (message, _) = token.rsplit_once('.').unwrap();
                format!("{message}.{}", "A".repeat(86))
            },
            READ,
            UNVERIFIED,
        ),
        ("a key id of another key", "chat", with_header(&json!({"alg": "HS256", "kid": "rs"})), READ, UNVERIFIED),
        ("a key id that no key has", "chat", with_header(&json!({"alg": "HS256", "kid": "unknown"})), READ, UNVERIFIED),
    ]
}

/// The algorithm is another than the key's, or none.
fn confused() -> Vec<Attack> {
    let unsigned = |alg: &str, signature: &str| {
        format!("{}.{}.{signature}", encoded(&json!({"alg": alg}).to_string()), encoded(&claims().to_string()))
    };
    let hmac = |secret: &[u8]| with_secret(secret, &claims_with(&json!({"sub": "open"})));
    let (pem, der) = (KEYS.rsa.public_key_pem(), KEYS.rsa.subject_public_key_info());
    let raw = KEYS.rsa.der_bytes().to_vec();
    let hs = |alg, name: &str| signed(alg, &secret_key(), &json!({"alg": name}).to_string(), &claims().to_string());
    vec![
        ("none", "chat", unsigned("none", ""), READ, FORM),
        ("none with a signature", "chat", unsigned("none", "AA"), READ, HEADER),
        ("none in another spelling", "chat", unsigned("NonE", "AA"), READ, HEADER),
        ("an empty algorithm", "chat", unsigned("", "AA"), READ, HEADER),
        ("no algorithm", "chat", with_header(&json!({"typ": "JWT"})), READ, HEADER),
        ("HMAC with a public key, PEM", "open", hmac(pem.as_bytes()), READ, UNVERIFIED),
        (
            "HMAC with a public key, PEM without the last line break",
            "open",
            hmac(pem.trim_end().as_bytes()),
            READ,
            UNVERIFIED,
        ),
        ("HMAC with a public key, DER", "open", hmac(&der), READ, UNVERIFIED),
        ("HMAC with a public key, PKCS#1", "open", hmac(&raw), READ, UNVERIFIED),
        ("HMAC with a public key beside a secret", "chat", with_secret(pem.as_bytes(), &claims()), READ, UNVERIFIED),
        ("HS384 with the secret", "chat", hs(Algorithm::HS384, "HS384"), READ, HEADER),
        ("HS512 with the secret", "chat", hs(Algorithm::HS512, "HS512"), READ, HEADER),
        ("HS512 that says HS256", "chat", hs(Algorithm::HS512, "HS256"), READ, UNVERIFIED),
        ("HS256 that says RS256", "chat", hs(Algorithm::HS256, "RS256"), READ, UNVERIFIED),
        ("HS256 that says EdDSA", "chat", hs(Algorithm::HS256, "EdDSA"), READ, UNVERIFIED),
        ("RS256 that says ES256", "chat", by_pair(&KEYS.rsa, &json!({"alg": "ES256"}), &claims()), READ, UNVERIFIED),
        ("ES256 that says EdDSA", "chat", by_pair(&KEYS.p256, &json!({"alg": "EdDSA"}), &claims()), READ, UNVERIFIED),
        ("RS256 that says PS256", "chat", by_pair(&KEYS.rsa, &json!({"alg": "PS256"}), &claims()), READ, HEADER),
        (
            "two algorithms",
            "chat",
            signed(Algorithm::HS256, &secret_key(), r#"{"alg":"HS256","alg":"none"}"#, &claims().to_string()),
            READ,
            FORM,
        ),
    ]
}

/// The header brings a key, or says that the token is to be read in another way.
fn injected() -> Vec<Attack> {
    let hs = |name: &str, value: Value| with_header(&json!({"alg": "HS256", name: value}));
    let own_jwk = json!({"kty": "oct", "k": encoded("my own secret of thirty-two bytes!!")});
    let own = b"my own secret of thirty-two bytes!!";
    let with_own = |header: Value| {
        signed(Algorithm::HS256, &EncodingKey::from_secret(own), &header.to_string(), &claims().to_string())
    };
    vec![
        ("its own key", "chat", with_own(json!({"alg": "HS256", "jwk": own_jwk})), READ, HEADER),
        (
            "a URL of its own keys",
            "chat",
            with_own(json!({"alg": "HS256", "jku": "https://evil.example/k"})),
            READ,
            HEADER,
        ),
        ("a URL of its own certificate", "chat", hs("x5u", json!("https://evil.example/c")), READ, HEADER),
        ("its own certificate", "chat", hs("x5c", json!(["MIIB"])), READ, HEADER),
        ("a key id that is a path", "chat", hs("kid", json!("../../../dev/null")), READ, HEADER),
        ("a key id that is SQL", "chat", hs("kid", json!("' UNION SELECT 'k")), READ, HEADER),
        ("a key id that is no text", "chat", hs("kid", json!({"$ne": ""})), READ, FORM),
        ("a critical member that nobody knows", "chat", hs("crit", json!(["x-policy"])), READ, HEADER),
        ("a critical member that is known", "chat", hs("crit", json!(["exp"])), READ, HEADER),
        ("an empty list of critical members", "chat", hs("crit", json!([])), READ, HEADER),
        ("a payload that is not encoded", "chat", with_header(&json!({"alg": "HS256", "b64": false})), READ, HEADER),
        ("a compressed token", "chat", hs("zip", json!("DEF")), READ, HEADER),
        ("an encrypted token", "chat", hs("enc", json!("A256GCM")), READ, HEADER),
        ("a token in a token", "chat", hs("cty", json!("JWT")), READ, HEADER),
        ("a token of another kind", "chat", hs("typ", json!("logout+jwt")), READ, HEADER),
    ]
}

/// It is no token, or not one that says what it must.
fn malformed() -> Vec<Attack> {
    let padded = good().replace('.', "=.");
    let standard = with_part(0, &encoded(&hs_header().to_string()).replace('e', "+"));
    let texts = |claims: &str| signed(Algorithm::HS256, &secret_key(), &hs_header().to_string(), claims);
    let listed = |header: &str, claims: &str| signed(Algorithm::HS256, &secret_key(), header, claims);
    let list = format!(r#"["chat","read",["s"],{},{NOW},"{AUDIENCE}","{ISSUER}","one"]"#, NOW + 600);
    let twice = format!(r#"{{"sub":"chat","exp":{},"exp":1,"aud":"{AUDIENCE}"}}"#, NOW + 600);
    vec![
        ("nothing", "chat", String::new(), READ, FORM),
        ("one part", "chat", "token".to_owned(), READ, FORM),
        ("two parts", "chat", with_part(2, "").trim_end_matches('.').to_owned(), READ, FORM),
        ("four parts", "chat", good() + ".AA", READ, FORM),
        ("five parts, as when encrypted", "chat", "a.b.c.d.e".to_owned(), READ, FORM),
        ("dots alone", "chat", "..".to_owned(), READ, FORM),
        ("padding", "chat", padded, READ, FORM),
        ("another alphabet", "chat", standard, READ, FORM),
        ("white space within", "chat", good().replacen('.', " .", 1), READ, FORM),
        ("a header that is no JSON", "chat", with_part(0, &encoded("alg=HS256")), READ, FORM),
        ("a header that is an empty list", "chat", with_part(0, &encoded("[]")), READ, FORM),
        ("a header that is a list", "chat", listed(r#"["HS256","JWT",null]"#, &claims().to_string()), READ, FORM),
        ("a header that is a list, in white space", "chat", listed(" \n[\"HS256\",null,null] ", "{}"), READ, FORM),
        ("too long", "chat", with_claims(&json!({"vendor": "x".repeat(MAX_TOKEN)})), READ, (401, "too_long")),
        ("nested deep", "chat", texts(&"[".repeat(4000)), READ, CLAIMS),
        ("claims that are no object", "chat", texts("[]"), READ, CLAIMS),
        ("claims that are a list", "chat", texts(&list), READ, CLAIMS),
        ("claims twice", "chat", texts(&twice), READ, CLAIMS),
        ("no end", "chat", with_claims(&json!({"exp": null})), READ, CLAIMS),
        ("an end that is text", "chat", with_claims(&json!({"exp": (NOW + 600).to_string()})), READ, CLAIMS),
        ("an end that is null", "chat", texts(r#"{"sub":"chat","exp":null}"#), READ, CLAIMS),
        ("an end beyond all numbers", "chat", texts(r#"{"sub":"chat","exp":1e999}"#), READ, CLAIMS),
        ("no project", "chat", with_claims(&json!({"sub": null})), READ, CLAIMS),
        ("several projects", "chat", with_claims(&json!({"sub": ["chat", "other"]})), READ, CLAIMS),
        ("an id without end", "chat", with_claims(&json!({"jti": "x".repeat(257)})), READ, CLAIMS),
        ("an empty id", "chat", with_claims(&json!({"jti": ""})), READ, CLAIMS),
        ("an age that is a text", "chat", with_claims(&json!({"iat": "1"})), READ, CLAIMS),
        (
            "a restriction that is null",
            "chat",
            texts(r#"{"sub":"chat","exp":9999999999,"streams":null}"#),
            READ,
            CLAIMS,
        ),
        ("a restriction that is text", "chat", with_claims(&json!({"streams": "s"})), READ, CLAIMS),
        (
            "a restriction that is not understood",
            "chat",
            with_claims(&json!({"streams": ["s*x"]})),
            READ,
            (401, "streams"),
        ),
        ("a restriction that climbs", "chat", with_claims(&json!({"streams": ["a/../s"]})), READ, (401, "streams")),
        ("restrictions without end", "chat", with_claims(&json!({"streams": vec!["s"; 65]})), READ, (401, "streams")),
    ]
}

/// It was good once, or will be.
fn expired() -> Vec<Attack> {
    vec![
        ("expired", "chat", with_claims(&json!({"exp": NOW - SKEW})), READ, (401, "expired")),
        ("expired before the epoch", "chat", with_claims(&json!({"exp": -1})), READ, (401, "expired")),
        ("expired by a fraction", "chat", with_claims(&json!({"exp": 1_728_451_970.9})), READ, (401, "expired")),
        ("not yet", "chat", with_claims(&json!({"nbf": NOW + SKEW + 1})), READ, (401, "not_yet")),
        ("not yet, by a fraction", "chat", with_claims(&json!({"nbf": 1_728_452_030.1})), READ, (401, "not_yet")),
    ]
}

/// It was good until the project has said otherwise.
fn revoked() -> Vec<Attack> {
    let stolen = claims_with(&json!({"jti": STOLEN}));
    let by = |pair, alg: &str| by_pair(pair, &json!({"alg": alg}), &stolen);
    vec![
        ("revoked", "chat", hs256(&hs_header(), &stolen), READ, (401, "revoked")),
        ("revoked, of RS256", "chat", by(&KEYS.rsa, "RS256"), READ, (401, "revoked")),
        ("revoked, of ES256", "chat", by(&KEYS.p256, "ES256"), READ, (401, "revoked")),
        ("revoked, of EdDSA", "chat", by(&KEYS.ed25519, "EdDSA"), READ, (401, "revoked")),
        ("revoked, for a write", "chat", hs256(&hs_header(), &stolen), WRITE, (401, "revoked")),
    ]
}

/// It is good elsewhere.
fn misaddressed() -> Vec<Attack> {
    vec![
        ("another project's", "other", good(), READ, UNVERIFIED),
        ("another project's with the same secret", "twin", good(), READ, (401, "project")),
        ("another project's in another case", "chat", with_claims(&json!({"sub": "Chat"})), READ, (401, "project")),
        ("a project's that does not exist", "nowhere", with_claims(&json!({"sub": "nowhere"})), READ, UNVERIFIED),
        ("another audience", "chat", with_claims(&json!({"aud": "billing"})), READ, (401, "audience")),
        ("other audiences", "chat", with_claims(&json!({"aud": ["billing", "tailwater2"]})), READ, (401, "audience")),
        ("no audience", "chat", with_claims(&json!({"aud": null})), READ, (401, "audience")),
        ("an audience of another type", "chat", with_claims(&json!({"aud": {"tailwater": true}})), READ, CLAIMS),
        ("another issuer", "chat", with_claims(&json!({"iss": "https://login.example/"})), READ, (401, "issuer")),
        ("no issuer", "chat", with_claims(&json!({"iss": null})), READ, (401, "issuer")),
    ]
}

/// It is good, and for something else.
fn misscoped() -> Vec<Attack> {
    let scope = |scope: &str| with_claims(&json!({"scope": scope}));
    let streams = |streams: &[&str]| with_claims(&json!({"scope": "read write manage", "streams": streams}));
    let (read, write) = ((403, "scope read"), (403, "scope write"));
    vec![
        ("no scope reads", "chat", with_claims(&json!({"scope": null})), READ, read),
        ("an empty scope reads", "chat", scope(""), READ, read),
        ("a strange scope reads", "chat", scope("admin *"), READ, read),
        ("another spelling reads", "chat", scope("READ"), READ, read),
        ("a scope with a tab reads", "chat", scope("\tread"), READ, read),
        ("a reader writes", "chat", scope("read"), WRITE, write),
        ("a manager writes", "chat", scope("manage"), WRITE, write),
        ("a writer reads", "chat", scope("write"), READ, read),
        ("a writer administers", "chat", scope("read write"), Act::Manage, (403, "scope manage")),
        ("a reader of another stream reads", "chat", streams(&["t"]), READ, (404, "hidden")),
        ("a reader of no stream reads", "chat", streams(&[]), READ, (404, "hidden")),
        ("a reader of what is below reads above", "chat", streams(&["s/**"]), READ, (404, "hidden")),
        ("a reader of one level reads the next", "chat", streams(&["s/*"]), Act::Read("s/a/b"), (404, "hidden")),
        ("a writer of a prefix writes beside it", "chat", streams(&["user-1*"]), Act::Write("user-2"), (403, "stream")),
        (
            "a writer of a prefix writes below it",
            "chat",
            streams(&["user-1*"]),
            Act::Write("user-1/x"),
            (403, "stream"),
        ),
        ("a writer of some streams administers", "chat", streams(&["**"]), Act::Manage, (403, "stream")),
    ]
}
