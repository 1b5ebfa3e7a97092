use std::num::NonZeroU64;

use super::*;
use crate::{key::KeyError, quota::Quotas};

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

fn parse(text: &str) -> Result<Projects, DocumentError> {
    Projects::parse([File { name: "p.toml", bytes: text.as_bytes() }])
}

fn project(text: &str) -> Project {
    let id = ProjectId::parse("p").unwrap();
    parse(&format!("[[project]]\nid = 'p'\n{text}")).unwrap().get(&id).unwrap().clone()
}

fn fault(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn key(extra: &str) -> String {
    format!("[[project.key]]\nalgorithm = 'HS256'\nsecret = '{SECRET}'\n{extra}")
}

#[test]
fn what_is_not_said_is_closed() {
    let project = project(&key(""));
    assert_eq!(project.visibility, Visibility::Private);
    assert_eq!(project.origins, Origins::Closed);
    assert_eq!((project.writers, project.cookie), (Writers::WriteOnly, None));
    assert_eq!((project.audience, project.issuer, project.revoked.len()), (None, None, 0));
    assert_eq!((project.basin, project.limits, project.quotas), (None, Limits::default(), Quotas::default()));
    assert_eq!(project.keys.first().unwrap().algorithm(), Algorithm::Hs256);
}

#[test]
fn what_is_said_is_in_force() {
    let text = "visibility = 'public'\norigins = ['https://a.example']\nwriters-read = true\naudience = 'a'\n\
                issuer = 'i'\nrevoked = ['one', 'two']\nbasin = 'acme-events'\nmax-body = 10\n\
                max-readers-per-stream = 3\ncookie = '__Host-s'\nquota = { streams = 7 }\n";
    let project = project(&format!("{text}{}{}", key("id = 'first'\n"), key("id = 'second'\n")));
    assert_eq!(project.visibility, Visibility::Public);
    assert_eq!(project.origins, Origins::Only(vec!["https://a.example".to_owned()]));
    assert_eq!(project.writers, Writers::ReadToo);
    assert_eq!((project.audience.as_deref(), project.issuer.as_deref()), (Some("a"), Some("i")));
    assert_eq!(project.basin.as_ref().map(BasinName::as_str), Some("acme-events"));
    assert_eq!(project.cookie.as_ref().map(CookieName::as_str), Some("__Host-s"));
    let limits = Limits { body: NonZeroUsize::new(10), readers_per_stream: NonZeroUsize::new(3) };
    assert_eq!(project.limits, limits);
    assert!(project.revoked.contains("one") && project.revoked.contains("two"));
    assert_eq!(project.quotas.project.streams, NonZeroU64::new(7));
    let ids: Vec<_> = project.keys.iter().filter_map(Key::id).map(KeyId::as_str).collect();
    assert_eq!(ids, ["first", "second"]);
}

#[test]
fn an_issuers_keys_stand_beside_a_projects_own_or_in_their_place() {
    let issuer = "issuer = 'https://login.example'\n";
    let jwks = "[project.jwks]\nurl = 'https://login.example:8443/keys'\n";
    for (text, own) in [(format!("{issuer}{jwks}"), 0), (format!("{issuer}{jwks}{}", key("")), 1)] {
        let project = project(&text);
        assert_eq!(project.keys.iter().count(), own);
        let source = project.source().unwrap();
        assert_eq!((source.issuer.as_str(), source.url.host()), ("https://login.example", "login.example"));
    }
    assert!(project(&format!("{issuer}{}", key(""))).source().is_none());
}

#[test]
fn files_count_together_and_a_project_is_in_one_of_them() {
    let (a, b) = (format!("[[project]]\nid = 'a'\n{}", key("")), format!("[[project]]\nid = 'b'\n{}", key("")));
    let files = |texts: &[&str]| {
        let files: Vec<_> = texts.iter().map(|text| File { name: "f", bytes: text.as_bytes() }).collect();
        Projects::parse(files)
    };
    assert_eq!(files(&[&a, "", &b]).unwrap().iter().count(), 2);
    assert_eq!(files(&[&a, &a]).unwrap_err().to_string(), "there are two projects `a`");
    let with_basin = |id: &str| format!("[[project]]\nid = '{id}'\nbasin = 'the-basin'\n{}", key(""));
    let fault = files(&[&with_basin("a"), &with_basin("b")]).unwrap_err().to_string();
    assert_eq!(fault, "two projects have the basin `the-basin`");
    assert_eq!(files(&["# nothing"]).unwrap_err(), DocumentError::None);
    assert_eq!(files(&[]).unwrap_err(), DocumentError::None);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let with = |text: &str| format!("[[project]]\nid = 'p'\n{text}{}", key(""));
    let table = [
        ("[[project]]\n".to_owned(), "p.toml:1: missing field `id`"),
        ("[[project]]\nid = 'admin'\n".to_owned(), "p.toml: project 1: `id` is not a project's id"),
        ("[[project]]\nid = 'p'\n".to_owned(), "p.toml: project 1: a project has at least one key"),
        (with("nonsense = 1\n"), "p.toml:3: unknown field `nonsense`"),
        (with("visibility = 'secret'\n"), "p.toml:3: expected "),
        (with("origins = ['a.example']\n"), "p.toml: project 1: `origins`: an origin is"),
        (with("basin = 'Capital-letters'\n"), "p.toml: project 1: `basin` is no name"),
        (with("basin = 'trailing-'\n"), "p.toml: project 1: `basin` is no name"),
        (with("cookie = 'a b'\n"), "p.toml: project 1: `cookie` is no name"),
        (with("max-body = 0\n"), "p.toml:3: expected "),
        (with("max-readers-per-stream = -1\n"), "p.toml:3: expected "),
        (with("max-streams = 1\n"), "p.toml:3: unknown field `max-streams`"),
        (with("quota = {}\n"), "p.toml: project 1: `quota`: a table of quotas has at least one"),
        (with("quota = { readers = 0 }\n"), "p.toml:3: expected "),
        (
            "[[project]]\nid = 'p'\n[project.jwks]\nurl = 'https://a.example/k'\n".to_owned(),
            "p.toml: project 1: `jwks` needs `issuer`",
        ),
        (
            "[[project]]\nid = 'p'\nissuer = 'i'\n[project.jwks]\nurl = 'http://a.example/k'\n".to_owned(),
            "p.toml: project 1: `jwks`: keys are fetched from `https://",
        ),
        (
            "[[project]]\nid = 'p'\nissuer = 'i'\n[project.jwks]\nhost = 'x'\n".to_owned(),
            "p.toml:5: unknown field `host`",
        ),
        (with("revoked = ['']\n"), "p.toml: project 1: `revoked`"),
        (with("x = = 1\n"), "p.toml:3: expected nothing"),
        ("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'none'\n".to_owned(), "p.toml:4: expected "),
        ("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\n".to_owned(), "p.toml: project 1: key 1: HS256"),
        (with(&key("id = 'a b'\n")), "p.toml: project 1: key 1: a key's id"),
        (with(&key("public-key = 'x'\n")), "p.toml: project 1: key 1: HS256 takes a secret"),
        (with(&(key("id = 'a'\n") + &key("id = 'a'\n"))), "p.toml: project 1: two keys have the id `a`"),
    ];
    for (text, start) in table {
        let fault = fault(&text);
        assert!(fault.starts_with(start), "{fault}\n{text}");
    }
    let bytes: &[u8] = b"\xff";
    assert_eq!(Projects::parse([File { name: "f", bytes }]).unwrap_err().to_string(), "f: not utf-8");
}

#[test]
fn no_error_repeats_a_secret() {
    let short = "hunter2";
    let table = [
        format!("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = '{short}'\n"),
        format!("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = ['{short}']\n"),
        format!("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = {{ a = '{short}' }}\n"),
        format!("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = '{short}'\n"),
        format!("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = '{short}\n"),
        format!("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = {short}\n"),
        format!("[[project]]\nid = 'p'\nwriters-read = '{short}'\n"),
        format!("[[project]]\nid = '{short}!'\n"),
        format!("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'ES256'\npublic-key = '{short}'\n"),
        "[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = 20260711\n".to_owned(),
        "[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = 2026.0711\n".to_owned(),
    ];
    for text in table {
        let error = parse(&text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(short) && !shown.contains("0711"), "{shown}");
    }
    let projects = parse(&format!("[[project]]\nid = 'p'\n{}", key(""))).unwrap();
    assert!(!format!("{projects:?}").contains("hunter2"));
}

#[test]
fn a_secret_is_long_enough_for_its_hash() {
    let with = |length: usize| {
        let secret = "x".repeat(length);
        parse(&format!("[[project]]\nid = 'p'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = '{secret}'\n"))
    };
    assert!(with(32).is_ok());
    let fault = ProjectFault::Key { number: 1, fault: KeyError::SecretLength { length: 31 } };
    assert_eq!(with(31).unwrap_err(), DocumentError::Project { file: "p.toml".to_owned(), number: 1, fault });
}
