//! Tokens that count.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::PublicKeyData as _;
use serde_json::{Value, json};
use tailwater_auth::{
    Act, Algorithm, Jwks, Key, KeyId, MintError, NewToken, Purpose, Scopes, SigningKey, TicketId, TicketSecrets,
    TokenError, inspect, is_credential, mint, ticket::issue,
};
use tailwater_protocol::ProjectId;

use crate::{
    forge::{AUDIENCE, ISSUER, KEYS, NOW, SECRET, SKEW, STOLEN, by_pair, claims, claims_with, hs_header, hs256},
    judged::{PROJECTS, asked, asked_at, granted, moment},
};

const ALLOWED: (u16, &str) = (200, "allowed");

fn allowed(answer: &(u16, String)) -> bool {
    (answer.0, answer.1.as_str()) == ALLOWED
}

fn new_token() -> NewToken {
    NewToken {
        project: ProjectId::parse("chat").unwrap(),
        scopes: Scopes::among(["read", "write"]),
        streams: Some(vec!["room/*".to_owned()]),
        issued_at: NOW,
        expires_at: NOW + 60,
        not_before: None,
        audience: Some(AUDIENCE.to_owned()),
        issuer: Some(ISSUER.to_owned()),
        id: Some("minted".to_owned()),
    }
}

#[test]
fn a_token_of_each_algorithm_counts() {
    assert!(allowed(&asked("chat", &hs256(&hs_header(), &claims()), Act::Read("s"))));
    let pairs = [(&KEYS.rsa, "RS256", "rs"), (&KEYS.p256, "ES256", "es"), (&KEYS.ed25519, "EdDSA", "ed")];
    for (pair, algorithm, id) in pairs {
        for header in [json!({"alg": algorithm}), json!({"alg": algorithm, "kid": id, "typ": "at+jwt", "x5t": "AA"})] {
            let token = by_pair(pair, &header, &claims());
            // The second time it is remembered.
            for _ in 0..2 {
                assert!(allowed(&asked("chat", &token, Act::Write("s"))), "{header}");
            }
        }
    }
}

#[test]
fn a_token_by_a_key_of_the_issuer_counts_where_the_project_names_that_issuer() {
    let point = KEYS.strange_p256.subject_public_key_info();
    let point = &point[point.len() - 64..];
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[..32]), URL_SAFE_NO_PAD.encode(&point[32..]));
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "new", "x": x, "y": y});
    let jwks = Jwks::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    let verified = |project: &str, header: &Value, changes: &Value| {
        let project = PROJECTS.get(&ProjectId::parse(project).unwrap()).unwrap();
        let token = by_pair(&KEYS.strange_p256, header, &claims_with(changes));
        project.verify_with(&jwks.keys[0], &token, moment(NOW)).map(|grant| grant.key)
    };
    let named = json!({"alg": "ES256", "kid": "new"});
    let (twin, none) = (json!({"sub": "twin"}), json!({}));
    let table = [
        ("chat", &named, &none, Ok(jwks.keys[0].print())),
        ("chat", &json!({"alg": "ES256"}), &none, Err(TokenError::Unverified)),
        ("chat", &json!({"alg": "ES256", "kid": "es"}), &none, Err(TokenError::Unverified)),
        ("chat", &json!({"alg": "HS256", "kid": "new"}), &none, Err(TokenError::Unverified)),
        ("chat", &named, &json!({"iss": "https://evil.example"}), Err(TokenError::Issuer)),
        ("chat", &named, &json!({"iss": null}), Err(TokenError::Issuer)),
        ("chat", &named, &json!({"exp": NOW - SKEW}), Err(TokenError::Expired)),
        ("chat", &named, &json!({"jti": STOLEN}), Err(TokenError::Revoked)),
        ("chat", &named, &twin, Err(TokenError::Project)),
        ("twin", &named, &twin, Err(TokenError::Issuer)),
    ];
    for (project, header, changes, expected) in table {
        assert_eq!(verified(project, header, changes), expected, "{project} {header} {changes}");
    }
    let secret = Key::secret(Some(KeyId::parse("hs").unwrap()), SECRET.as_bytes()).unwrap();
    let chat = PROJECTS.get(&ProjectId::parse("chat").unwrap()).unwrap();
    let token = hs256(&json!({"alg": "HS256", "kid": "hs"}), &claims());
    assert!(chat.verify(&token, moment(NOW)).is_ok());
    assert_eq!(chat.verify_with(&secret, &token, moment(NOW)), Err(TokenError::Unverified), "no issuer shows a secret");
}

#[test]
fn what_is_remembered_of_an_issuers_key_counts_with_that_key_alone() {
    let jwk = |pair: &rcgen::KeyPair| {
        let info = pair.subject_public_key_info();
        let x = URL_SAFE_NO_PAD.encode(&info[info.len() - 32..]);
        let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "new", "x": x}]});
        Jwks::parse(set.to_string().as_bytes()).unwrap().keys.remove(0)
    };
    let (stolen, successor) = (jwk(&KEYS.strange_ed25519), jwk(&KEYS.ed25519));
    let chat = ProjectId::parse("chat").unwrap();
    let token = by_pair(&KEYS.strange_ed25519, &json!({"alg": "EdDSA", "kid": "new"}), &claims());
    for _ in 0..2 {
        assert_eq!(PROJECTS.verify_with(&chat, &stolen, &token, moment(NOW)).unwrap().key, stolen.print());
        assert_eq!(PROJECTS.verify(&chat, &token, moment(NOW)), Err(TokenError::Unverified), "it is not the project's");
        let under_its_name = PROJECTS.verify_with(&chat, &successor, &token, moment(NOW));
        assert_eq!(under_its_name, Err(TokenError::Unverified));
    }
    let late = PROJECTS.verify_with(&chat, &stolen, &token, moment(NOW + 600 + SKEW));
    assert_eq!(late, Err(TokenError::Expired), "what is remembered expires");
}

#[test]
fn what_a_token_need_not_say_it_need_not_say() {
    let table = [
        json!({"nbf": null, "iat": null, "jti": null}),
        json!({"aud": ["somebody", AUDIENCE]}),
        json!({"scope": ["read", "write"]}),
        json!({"scope": "openid read email"}),
        json!({"exp": (NOW + 1)}),
        json!({"exp": f64::from(u32::try_from(NOW).unwrap()) + 1.5}),
        json!({"streams": ["**"]}),
        json!({"streams": ["a", "s"]}),
        json!({"vendor": {"deep": [1, 2, 3]}}),
    ];
    for changes in table {
        let token = hs256(&hs_header(), &claims_with(&changes));
        assert!(allowed(&asked("chat", &token, Act::Read("s"))), "{changes}");
    }
}

#[test]
fn clocks_may_differ_by_the_skew_and_no_more() {
    let token = hs256(&hs_header(), &claims_with(&json!({"exp": NOW + 100, "nbf": NOW})));
    let table = [
        (NOW - SKEW - 1, (401, "not_yet")),
        (NOW - SKEW, ALLOWED),
        (NOW + 100 + SKEW - 1, ALLOWED),
        (NOW + 100 + SKEW, (401, "expired")),
    ];
    for (now, (status, name)) in table {
        assert_eq!(asked_at(now, "chat", &token, Act::Read("s")), (status, name.to_owned()), "{now}");
    }
}

#[test]
fn what_is_remembered_still_expires() {
    let token = by_pair(&KEYS.p256, &json!({"alg": "ES256"}), &claims_with(&json!({"exp": NOW + 7})));
    assert!(granted(NOW, "chat", &token).is_ok());
    let (status, name) = asked_at(NOW + 7 + SKEW, "chat", &token, Act::Read("s"));
    assert_eq!((status, name.as_str()), (401, "expired"));
    assert!(granted(NOW, "chat", &token).is_ok(), "the clock went back, and the token counts again");
}

#[test]
fn what_is_minted_counts_for_what_it_was_minted_for() {
    let chat = PROJECTS.get(&ProjectId::parse("chat").unwrap()).unwrap();
    let secret = chat.keys.first().and_then(Key::signing).unwrap();
    let id = KeyId::parse("ed").unwrap();
    let private = |pair: &rcgen::KeyPair| SigningKey::private(None, &pair.serialize_pem()).unwrap();
    let named = SigningKey::private(Some(id), &KEYS.ed25519.serialize_pem()).unwrap();
    for key in [secret, private(&KEYS.rsa), private(&KEYS.p256), named] {
        let token = mint(&key, &new_token()).unwrap();
        let grant = chat.verify(&token, moment(NOW)).unwrap();
        assert_eq!((grant.scopes.to_string().as_str(), grant.expires_at), ("read write", NOW + 60));
        assert!(allowed(&asked("chat", &token, Act::Write("room/1"))), "{key:?}");
        assert_eq!(asked("chat", &token, Act::Write("hall")), (403, "stream".to_owned()));
    }
}

#[test]
fn no_token_is_minted_that_would_be_refused() {
    let key = SigningKey::private(None, &KEYS.ed25519.serialize_pem()).unwrap();
    assert_eq!(key.algorithm(), Algorithm::EdDsa);
    let table = [
        NewToken { expires_at: NOW, ..new_token() },
        NewToken { not_before: Some(NOW + 60), ..new_token() },
        NewToken { streams: Some(vec!["a*b".to_owned()]), ..new_token() },
        NewToken { streams: Some(vec!["a".repeat(300); 40]), ..new_token() },
    ];
    for token in table {
        assert!(mint(&key, &token).is_err(), "{token:?}");
    }
}

#[test]
fn no_token_has_a_token_or_a_ticket_for_its_id() {
    let chat = PROJECTS.get(&ProjectId::parse("chat").unwrap()).unwrap();
    let key = chat.keys.first().and_then(Key::signing).unwrap();
    let token = mint(&key, &new_token()).unwrap();
    let grant = chat.verify(&token, moment(NOW)).unwrap();
    let purpose =
        Purpose { project: chat, stream: "room/1", origin: "https://app.example", secrets: &TicketSecrets::default() };
    let ticket = issue(&purpose, &grant, NOW, TicketId([7; 9])).unwrap();
    for secret in [&*token, ticket.reveal()] {
        assert!(is_credential(secret));
        let named = NewToken { id: Some(secret.to_owned()), ..new_token() };
        assert_eq!(mint(&key, &named), Err(MintError::Id));
    }
    let id = TicketId([7; 9]).to_string();
    for name in ["", "a", "a.b.c", &*id, &"0123456789abcdef".repeat(16), &token[1..], &"x".repeat(9000)] {
        assert!(!is_credential(name), "{name}");
    }
}

#[test]
fn an_inspection_shows_what_a_token_says_and_not_its_signature() {
    let token = hs256(&hs_header(), &claims());
    let shown = inspect(&token);
    assert_eq!((shown.header, shown.claims), (Some(hs_header()), Some(claims())));
    assert!(shown.form.is_ok());
    let (_, signature) = token.rsplit_once('.').unwrap();
    assert!(!format!("{:?}", inspect(&token)).contains(signature));
    let other = inspect("no.token");
    assert!(other.header.is_none() && other.form.is_err());
    assert!(inspect(&hs256(&json!({"alg": "none"}), &claims())).form.is_err());
}
