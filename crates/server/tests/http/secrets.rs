//! What holds a secret shows none: not by `Debug`, which is how things get into logs, errors and panics.

use std::{fmt::Debug, time::Duration};

use tailwater_auth::{
    File, Key, KeyId, NewToken, Operator, Projects, Record, Rekeyed, Scopes, TicketSecrets, mint, rekey::NewKey,
    token::Token,
};
use tailwater_protocol::ProjectId;
use tailwater_server::{Auth, Config, Guard, Tls};
use tempfile::tempdir;

/// Every secret of this test begins so; in base64, hexadecimal and as numbers it would look like this.
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";
const LOOKS: [&str; 4] = ["hunter2", "aHVudGVyM", "68756e746572", "104, 117, 110"];
const FILE: &str = "[[project]]\nid = 'chat'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = 'hunter2-hunter2-hunter2-hunter2-hunter2'\n";

#[track_caller]
fn shows_none(secrets: &[&str], shown: &dyn Debug) {
    for text in [format!("{shown:?}"), format!("{shown:#?}")] {
        for secret in secrets.iter().chain(&LOOKS) {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

fn projects() -> Projects {
    Projects::parse([File { name: "projects.toml", bytes: FILE.as_bytes() }]).unwrap()
}

#[test]
fn nothing_that_holds_a_key_or_a_credential_shows_it() {
    let id = ProjectId::parse("chat").unwrap();
    let projects = projects();
    let project = projects.get(&id).unwrap();
    let key = Key::secret(None, SECRET.as_bytes()).unwrap();
    let signing = key.signing().unwrap();
    let tickets = TicketSecrets::new([SECRET.as_bytes()]).unwrap();
    let operator = Operator::new(SECRET).unwrap();
    let guard = Guard::fixed(self::projects(), Duration::ZERO);
    let config = Config { auth: Auth::Required(guard.clone()), operator: Some(operator.clone()), ..Config::default() };
    let file = File { name: "projects.toml", bytes: FILE.as_bytes() };
    let new = NewKey::Secret(SECRET.to_owned().into());
    let added =
        Rekeyed::Added { id: KeyId::parse("2").unwrap(), key: NewKey::Secret(SECRET.to_owned().into()), signs: true };
    let put = Record::put(FILE.to_owned().into()).unwrap();
    let shown: [&dyn Debug; 14] = [
        &key,
        &signing,
        &project.keys,
        project,
        &projects,
        &tickets,
        &operator,
        &guard,
        &config.auth,
        &config,
        &file,
        &new,
        &added,
        &put,
    ];
    for shown in shown {
        shows_none(&[], shown);
    }
}

#[test]
fn a_token_is_not_shown_by_what_has_taken_it_apart() {
    let id = ProjectId::parse("chat").unwrap();
    let token = NewToken {
        project: id.clone(),
        scopes: Scopes::among(["read"]),
        streams: None,
        issued_at: 1,
        expires_at: 100,
        not_before: None,
        audience: None,
        issuer: None,
        id: None,
    };
    let token = mint(&Key::secret(None, SECRET.as_bytes()).unwrap().signing().unwrap(), &token).unwrap();
    let parts: Vec<_> = token.split('.').collect();
    shows_none(&parts[1..], &Token::parse(&token).unwrap());
    let changed = token.replacen('.', ".x", 1);
    shows_none(&parts[1..], &projects().verify(&id, &changed, tailwater_auth::Moment { now: 2, skew: 0 }).unwrap_err());
}

#[test]
fn a_certificate_shows_where_its_key_is_and_not_what_it_is() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempdir().unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    let pem = made.signing_key.serialize_pem();
    std::fs::write(&key, &pem).unwrap();
    let secret: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let tls = Tls::load(&certificate, &key).unwrap();
    shows_none(&secret, &tls);
    shows_none(&secret, &Config { tls: Some(tls), ..Config::default() });
    std::fs::write(&key, pem.replace("-----END", "x-----END")).unwrap();
    shows_none(&secret, &Tls::load(&certificate, &key).unwrap_err());
}

#[test]
fn no_error_about_a_file_repeats_what_stands_in_it() {
    let files = [
        FILE.replace("HS256", "XS256"),
        FILE.replace("secret =", "secrets ="),
        FILE.replace("'chat'", "'a b'"),
        FILE.replace("'hunter2-hunter2-hunter2-hunter2-hunter2'", "'hunter2'"),
        FILE.replace("-hunter2'", "-hunter2"),
        FILE.replace("secret = ", "secret = [").replace("hunter2'\n", "hunter2']\n"),
        format!("{FILE}{FILE}"),
    ];
    for text in files {
        let error = Projects::parse([File { name: "projects.toml", bytes: text.as_bytes() }]).unwrap_err();
        shows_none(&[], &error);
        shows_none(&[], &format_args!("{error}"));
    }
}
