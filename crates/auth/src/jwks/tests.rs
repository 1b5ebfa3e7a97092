use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};
use serde_json::{Value, json};

use super::*;
use crate::{der::PublicKey, key::SigningKey};

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn p256(pair: &KeyPair) -> Value {
    let info = pair.subject_public_key_info();
    let point = &info[info.len() - 64..];
    json!({"kty": "EC", "crv": "P-256", "kid": "es", "x": b64(&point[..32]), "y": b64(&point[32..])})
}

fn ed25519(pair: &KeyPair) -> Value {
    let info = pair.subject_public_key_info();
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(&info[info.len() - 32..])})
}

/// Of 2048 bits: behind the head of the sequence and of the integer, and its sign, stands the modulus.
fn rsa(pair: &KeyPair) -> Value {
    let info = pair.subject_public_key_info();
    let key = PublicKey::read(&info).unwrap().bytes;
    json!({"kty": "RSA", "kid": "rs", "n": b64(&key[9..9 + 256]), "e": "AQAB"})
}

fn any_ed25519() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(&[7; 32])})
}

fn any_p256() -> Value {
    json!({"kty": "EC", "crv": "P-256", "kid": "es", "x": b64(&[7; 32]), "y": b64(&[8; 32])})
}

fn any_rsa(bytes: usize) -> Value {
    json!({"kty": "RSA", "kid": "rs", "n": b64(&vec![0xff; bytes]), "e": "AQAB"})
}

/// The same with some members replaced.
fn with(key: &Value, changes: &Value) -> Value {
    let mut key = key.clone();
    for (name, value) in changes.as_object().unwrap() {
        key[name] = value.clone();
    }
    key
}

fn without(key: &Value, member: &str) -> Value {
    let mut key = key.clone();
    key.as_object_mut().unwrap().remove(member);
    key
}

fn parse(keys: &[Value]) -> Result<Jwks, JwksError> {
    Jwks::parse(json!({"keys": keys}).to_string().as_bytes())
}

/// What becomes of a set with this key alone: `Ok(None)` if it counts.
fn judged(key: &Value) -> Result<Option<PassedOver>, JwksError> {
    parse(std::slice::from_ref(key)).map(|jwks| {
        assert_eq!(jwks.keys.len() + jwks.passed_over.len(), 1);
        jwks.passed_over.first().map(|(_, reason)| *reason)
    })
}

#[test]
fn a_key_of_each_kind_verifies_what_its_owner_signed_and_nothing_else() {
    let pairs = [
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    ];
    let jwks = parse(&[rsa(&pairs[0]), p256(&pairs[1]), ed25519(&pairs[2])]).unwrap();
    let algorithms: Vec<_> = jwks.keys.iter().map(Key::algorithm).collect();
    assert_eq!(algorithms, [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
    for (key, pair) in jwks.keys.iter().zip(&pairs) {
        let owner = SigningKey::private(None, &pair.serialize_pem()).unwrap();
        let signature = owner.sign(b"message").unwrap();
        assert!(key.verifies(b"message", &signature), "{key:?}");
        assert!(!key.verifies(b"massage", &signature), "{key:?}");
        assert!(jwks.keys.iter().filter(|other| other.verifies(b"message", &signature)).count() == 1);
        assert!(key.signing().is_none());
    }
}

#[test]
fn what_is_of_another_kind_or_for_something_else_is_passed_over() {
    use PassedOver::{Algorithm, Id, Kind, RsaLength, Use};
    let (ed, ec, rs) = (any_ed25519(), any_p256(), any_rsa(256));
    let table = [
        (ed.clone(), None),
        (with(&ed, &json!({"use": "sig", "alg": "EdDSA", "key_ops": ["verify"], "x5t": "a", "vendor": {}})), None),
        (with(&ec, &json!({"use": "sig", "alg": "ES256"})), None),
        (with(&rs, &json!({"alg": "RS256", "key_ops": ["sign", "verify"]})), None),
        (json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}), Some(Kind)),
        (json!({"kty": "rsa"}), Some(Kind)),
        (json!({"kty": ""}), Some(Kind)),
        (with(&ec, &json!({"crv": "P-384"})), Some(Kind)),
        (with(&ec, &json!({"crv": "secp256k1"})), Some(Kind)),
        (with(&ed, &json!({"crv": "Ed448"})), Some(Kind)),
        (with(&ed, &json!({"crv": "X25519"})), Some(Kind)),
        (with(&rs, &json!({"use": "enc"})), Some(Use)),
        (with(&rs, &json!({"use": "SIG"})), Some(Use)),
        (with(&rs, &json!({"key_ops": ["encrypt", "wrapKey"]})), Some(Use)),
        (with(&rs, &json!({"key_ops": []})), Some(Use)),
        (with(&rs, &json!({"use": "sig", "key_ops": ["sign"]})), Some(Use)),
        (with(&rs, &json!({"alg": "PS256"})), Some(Algorithm)),
        (with(&rs, &json!({"alg": "RS512"})), Some(Algorithm)),
        (with(&rs, &json!({"alg": "HS256"})), Some(Algorithm)),
        (with(&rs, &json!({"alg": "none"})), Some(Algorithm)),
        (with(&rs, &json!({"alg": "ES256"})), Some(Algorithm)),
        (with(&ec, &json!({"alg": "EdDSA"})), Some(Algorithm)),
        (without(&rs, "kid"), Some(Id)),
        (with(&rs, &json!({"kid": ""})), Some(Id)),
        (with(&rs, &json!({"kid": "../../etc/passwd"})), Some(Id)),
        (with(&rs, &json!({"kid": "x".repeat(65)})), Some(Id)),
        (any_rsa(128), Some(RsaLength)),
        (any_rsa(255), Some(RsaLength)),
        (any_rsa(513), Some(RsaLength)),
        (any_rsa(512), None),
    ];
    for (key, reason) in table {
        assert_eq!(judged(&key), Ok(reason), "{key}");
    }
}

#[test]
fn what_should_not_be_there_spoils_the_set() {
    let (ed, ec, rs) = (any_ed25519(), any_p256(), any_rsa(256));
    let malformed = JwksError::Malformed { number: 1 };
    let private = JwksError::Private { number: 1 };
    let table = [
        (json!({"kty": "oct", "k": b64(&[1; 32]), "alg": "HS256", "kid": "a"}), JwksError::Secret { number: 1 }),
        (json!({"kty": "oct"}), JwksError::Secret { number: 1 }),
        (with(&rs, &json!({"k": b64(&[1; 32])})), private),
        (with(&rs, &json!({"d": "AA"})), private),
        (with(&rs, &json!({"use": "enc", "p": "AA"})), private),
        (with(&ec, &json!({"d": ""})), private),
        (with(&ed, &json!({"d": 1})), private),
        (with(&ec, &json!({"crv": "P-384", "d": "AA"})), private),
        (without(&ec, "crv"), malformed),
        (without(&ec, "x"), malformed),
        (without(&ec, "y"), malformed),
        (without(&rs, "n"), malformed),
        (without(&rs, "e"), malformed),
        (with(&rs, &json!({"crv": "P-256"})), malformed),
        (with(&ec, &json!({"x": b64(&[7; 31])})), malformed),
        (with(&ec, &json!({"x": b64(&[7; 33])})), malformed),
        (with(&ec, &json!({"x": format!("{}=", b64(&[7; 32]))})), malformed),
        (with(&ed, &json!({"x": "not base64"})), malformed),
        (with(&ed, &json!({"x": ""})), malformed),
        (with(&ed, &json!({"x": null})), malformed),
        (with(&ed, &json!({"use": null})), malformed),
        (with(&ed, &json!({"key_ops": "verify"})), malformed),
        (with(&ed, &json!({"alg": ["EdDSA"]})), malformed),
        (with(&ed, &json!({"kid": 1})), malformed),
        (with(&rs, &json!({"n": b64(&[0xfe; 256])})), malformed),
        (with(&rs, &json!({"n": ""})), malformed),
        (with(&rs, &json!({"e": ""})), malformed),
        (with(&rs, &json!({"e": b64(&[1])})), malformed),
        (with(&rs, &json!({"e": b64(&[0, 0, 1])})), malformed),
        (with(&rs, &json!({"e": b64(&[2])})), malformed),
        (with(&rs, &json!({"e": b64(&[0xff; 5])})), malformed),
    ];
    for (key, fault) in table {
        assert_eq!(judged(&key).err(), Some(fault), "{key}");
        let others = parse(&[any_ed25519(), key.clone()]);
        assert!(others.is_err(), "with a good one before it: {key}");
    }
}

#[test]
fn a_sign_before_a_modulus_is_no_part_of_it() {
    let signed = with(&any_rsa(256), &json!({"n": b64(&[&[0][..], &[0xff; 256]].concat())}));
    assert_eq!(judged(&signed), Ok(None));
    let padded = with(&any_rsa(256), &json!({"n": b64(&[&[0; 128][..], &[0xff; 128]].concat())}));
    assert_eq!(judged(&padded), Ok(Some(PassedOver::RsaLength)), "zeros do not make it longer");
    let bits = |first: u8| judged(&with(&any_rsa(256), &json!({"n": b64(&[&[first][..], &[0xff; 255]].concat())})));
    assert_eq!((bits(0x80), bits(0x7f)), (Ok(None), Ok(Some(PassedOver::RsaLength))));
}

#[test]
fn no_two_keys_have_one_name() {
    let (ed, ec) = (any_ed25519(), any_p256());
    let other = with(&ed, &json!({"x": b64(&[9; 32])}));
    assert_eq!(parse(&[ed.clone(), other]).unwrap_err(), JwksError::Repeated { number: 2 });
    let named_alike = with(&ec, &json!({"kid": "ed"}));
    assert_eq!(parse(&[ed, named_alike]).unwrap().keys.len(), 2, "the algorithm tells them apart");
}

#[test]
fn a_set_has_one_form() {
    let ed = any_ed25519().to_string();
    let good = format!(r#"{{"keys":[{ed}],"more":[1]}}"#);
    assert_eq!(Jwks::parse(good.as_bytes()).unwrap().keys.len(), 1);
    assert_eq!(parse(&[]).unwrap().keys.len(), 0, "an issuer may withdraw all of them");
    let bad = [
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        format!("[{ed}]"),
        ed.clone(),
        r#"{"keys":null}"#.to_owned(),
        format!("[[{ed}]]"),
        r#"{"keys":[["AKP"]]}"#.to_owned(),
        r#"{"keys":[["OKP",null,null]]}"#.to_owned(),
        r#"{"keys":{}}"#.to_owned(),
        r#"{"keys":[1]}"#.to_owned(),
        r#"{"keys":[{}]}"#.to_owned(),
        r#"{"keys":[{"kty":1}]}"#.to_owned(),
        r#"{"keys":[{"kty":"oct","kty":"AKP"}]}"#.to_owned(),
        format!(r#"{{"keys":[],"keys":[{ed}]}}"#),
        format!(r#"{{"keys":[{ed}]}} {{}}"#),
        format!(r#"{{"keys":[{ed}]"#),
        format!("<html>{good}"),
    ];
    for text in bad {
        assert_eq!(Jwks::parse(text.as_bytes()).unwrap_err(), JwksError::Form, "{text}");
    }
    assert_eq!(Jwks::parse(&[good.as_bytes(), &[0xff]].concat()).unwrap_err(), JwksError::Form);
    let twice = good.replacen("\"kid\"", "\"kid\":\"x\",\"kid\"", 1);
    assert_eq!(Jwks::parse(twice.as_bytes()).unwrap_err(), JwksError::Malformed { number: 1 });
}

#[test]
fn a_set_is_bounded() {
    let many = |count: usize| -> Vec<Value> {
        (0..count).map(|n| with(&any_ed25519(), &json!({"kid": n.to_string()}))).collect()
    };
    assert_eq!(parse(&many(MAX_JWKS_KEYS)).unwrap().keys.len(), MAX_JWKS_KEYS);
    assert_eq!(parse(&many(MAX_JWKS_KEYS + 1)).unwrap_err(), JwksError::TooMany);
    let unknown = vec![json!({"kty": "x"}); MAX_JWKS_KEYS + 1];
    assert_eq!(parse(&unknown).unwrap_err(), JwksError::TooMany, "those that are passed over count, too");
    let spaces = [br#"{"keys":[]"#.as_slice(), &vec![b' '; MAX_JWKS], b"}"].concat();
    assert_eq!(Jwks::parse(&spaces).unwrap_err(), JwksError::TooLong);
    let deep = format!(r#"{{"keys":[{{"kty":"x","a":{}{}}}]}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(Jwks::parse(deep.as_bytes()).unwrap().passed_over, [(1, PassedOver::Kind)], "no stack is deep enough");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[{}\\[\\]\":,a-z0-9]{0,60}") {
        prop_assert!(Jwks::parse(&bytes).is_err());
        let wrapped = format!(r#"{{"keys":[{{"kty":"EC",{text}}}]}}"#);
        if let Ok(jwks) = Jwks::parse(wrapped.as_bytes()) {
            prop_assert!(jwks.keys.is_empty());
        }
    }

    #[test]
    fn a_key_counts_only_as_what_it_says(member in "use|alg|crv|kid|kty", value in "sig|enc|RS256|ES256|EdDSA|HS256|P-256|Ed25519|RSA|EC|OKP|oct|x") {
        for key in [any_rsa(256), any_p256(), any_ed25519()] {
            let changed = with(&key, &json!({member.as_str(): value.as_str()}));
            if let Ok(jwks) = parse(&[changed])
                && let [counted] = jwks.keys.as_slice()
            {
                let kinds = [("RSA", Algorithm::Rs256), ("EC", Algorithm::Es256), ("OKP", Algorithm::EdDsa)];
                prop_assert!(kinds.contains(&(key["kty"].as_str().unwrap(), counted.algorithm())));
            }
        }
    }
}
