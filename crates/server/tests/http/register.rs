//! What is changed at run time: projects, keys, revocations; and the log of who has asked for what.

mod audit;
mod tickets;

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_auth::{
    File, NewToken, Operator, Project, Projects, Scopes, document::projects_of, mint, register::Record,
};
use tailwater_log::{NewRecord, Visibility};
use tailwater_protocol::ProjectId;
use tailwater_register::RegisterLog;
use tailwater_server::{Config, Guard};
use tailwater_testkit::{
    ScriptedUpstream, Settings,
    fault::{AppendFault, Outage},
};
use tailwater_upstream::{Append, StreamKey};
use zeroize::Zeroizing;

use crate::{
    fixture::{Answer, Fixture, NOW_MS},
    rights::{PAGE, ticket},
};

pub(crate) const NOW: u64 = NOW_MS / 1000;
pub(crate) const CREDENTIAL: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn document(id: &str, secret: &str) -> String {
    format!(
        "[[project]]\nid = '{id}'\n[[project.key]]\nid = '1'\nalgorithm = 'HS256'\nsecret = 'the secret {secret}, and it \
         is long enough'\n"
    )
}

fn project(document: &str) -> Project {
    projects_of(File { name: "p", bytes: document.as_bytes() }).unwrap().remove(0)
}

/// A token of a project that is as it says there.
pub(crate) fn token_of(document: &str, scopes: &str, id: Option<&str>, issued_at: u64) -> String {
    let project = project(document);
    let new = NewToken {
        project: project.id.clone(),
        scopes: Scopes::among(scopes.split(' ')),
        streams: None,
        issued_at,
        expires_at: NOW + 600,
        not_before: None,
        audience: None,
        issuer: None,
        id: id.map(str::to_owned),
    };
    mint(&project.keys.first().unwrap().signing().unwrap(), &new).unwrap()
}

/// Of `filed`, which is a project of a file everywhere here.
pub(crate) fn filed(scopes: &str, id: &str) -> String {
    token_of(&document("filed", "of filed"), scopes, Some(id), NOW)
}

/// A gateway with a register, and `filed` for a project of a file.
pub(crate) fn gateway(upstream: &ScriptedUpstream, config: Config) -> Fixture {
    gateway_of(upstream, &document("filed", "of filed"), config, Visibility::Private)
}

/// The same with this file, where streams of which nobody says so are as visible as this.
fn gateway_of(upstream: &ScriptedUpstream, filed: &str, config: Config, undeclared_visibility: Visibility) -> Fixture {
    let projects = Projects::parse([File { name: "projects.toml", bytes: filed.as_bytes() }]).unwrap();
    let guard = Guard::fixed(projects, Duration::ZERO);
    let config = Config { operator: Some(Operator::new(CREDENTIAL).unwrap()), ..config };
    let fanout = tailwater_fanout::Config { undeclared_visibility, ..Default::default() };
    Fixture::beside_register(upstream.clone(), guard, config, fanout)
}

/// A store whose clock shows what the gateways' clocks do.
pub(crate) fn store() -> ScriptedUpstream {
    ScriptedUpstream::new(Settings { start_ms: NOW_MS, ..Settings::default() })
}

pub(crate) async fn fresh() -> Fixture {
    gateway(&store(), Config::default()).read().await
}

fn audit_key() -> StreamKey {
    StreamKey::new("filed", "audit")
}

async fn audited() -> Fixture {
    let config = Config { audit: Some(audit_key()), ..Config::default() };
    gateway(&store(), config).read().await
}

pub(crate) async fn send(fixture: &Fixture, method: &str, path: &str, token: &str, body: impl ToString) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    fixture.send(method, path, &headers, body.to_string()).await
}

pub(crate) async fn administer(
    fixture: &Fixture,
    method: &str,
    path: &str,
    token: &str,
    body: impl ToString,
) -> Answer {
    send(fixture, method, &format!("/v1/admin/{path}"), token, body).await
}

pub(crate) async fn revoke(fixture: &Fixture, token: &str, what: Value) -> Answer {
    administer(fixture, "POST", "projects/filed/revocations", token, what).await
}

pub(crate) async fn reads(fixture: &Fixture, path: &str, token: &str) -> u16 {
    send(fixture, "GET", &format!("/v1/stream/{path}"), token, "").await.status
}

/// Asks until a gateway that was not told itself knows.
async fn until(fixture: &Fixture, path: &str, token: &str, status: u16) {
    for _ in 0..1000 {
        if reads(fixture, path, token).await == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} is never answered {status}");
}

#[tokio::test(start_paused = true)]
async fn a_project_is_made_replaced_and_removed_at_run_time_on_every_gateway() {
    let upstream = store();
    let (one, other) =
        (gateway(&upstream, Config::default()).read().await, gateway(&upstream, Config::default()).read().await);
    let first = document("new", "one");
    let made = administer(&one, "POST", "projects", CREDENTIAL, &first).await;
    assert_eq!((made.status, made.json()), (201, json!({ "id": "new" })));
    assert_eq!(administer(&one, "POST", "projects", CREDENTIAL, &first).await.code(), "project_exists");
    let token = token_of(&first, "read write", None, NOW);
    assert_eq!(send(&one, "PUT", "/v1/stream/new/s", &token, "a").await.status, 201);
    let shown = administer(&one, "GET", "projects", CREDENTIAL, "").await.json();
    let ids: Vec<_> = shown["projects"].as_array().unwrap().iter().map(|project| project["id"].clone()).collect();
    assert_eq!(ids, ["filed", "new"]);
    until(&other, "new/s", &token, 200).await;

    let second = document("new", "two");
    assert_eq!(administer(&other, "PUT", "projects/new", CREDENTIAL, &second).await.status, 200);
    assert_eq!(reads(&other, "new/s", &token).await, 401, "its key is gone");
    let token = token_of(&second, "read write", None, NOW);
    assert_eq!(reads(&other, "new/s", &token).await, 200);
    until(&one, "new/s", &token, 200).await;

    let removed = administer(&one, "DELETE", "projects/new", CREDENTIAL, "").await;
    assert_eq!((removed.status, removed.json()), (200, json!({ "removed": "new" })));
    assert_eq!(reads(&one, "new/s", &token).await, 401);
    until(&other, "new/s", &token, 401).await;
    assert_eq!(administer(&one, "DELETE", "projects/new", CREDENTIAL, "").await.code(), "project_not_found");
    assert_eq!(administer(&one, "PUT", "projects/new", CREDENTIAL, &second).await.status, 200);
    assert_eq!(reads(&one, "new/s", &token).await, 401, "what was issued before it was removed stays revoked");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_judged_on_what_other_gateways_were_asked_for_before() {
    let upstream = store();
    let gateway = async || gateway(&upstream, Config::default()).read().await;
    let (one, other) = (gateway().await, gateway().await);
    let made = document("new", "one");
    let manager = token_of(&made, "manage", Some("m"), NOW);
    assert_eq!(administer(&one, "POST", "projects", CREDENTIAL, &made).await.status, 201);
    assert_eq!(administer(&other, "POST", "projects/new/keys", CREDENTIAL, json!({ "id": "2" })).await.status, 201);
    assert_eq!(administer(&one, "PUT", "projects/new/keys/2", CREDENTIAL, "").await.status, 200);
    let minted =
        administer(&other, "POST", "projects/new/tokens", CREDENTIAL, json!({ "scope": ["read"] })).await.json();
    assert_eq!(administer(&one, "DELETE", "projects/new/keys/1", CREDENTIAL, "").await.status, 200);
    assert_eq!(reads(&one, "new/s", minted["token"].as_str().unwrap()).await, 404, "signed with the second key");
    let late = administer(&other, "POST", "projects/new/keys", &manager, json!({ "id": "3" })).await;
    assert_eq!(late.status, 401, "whose key is gone changes nothing");
}

#[tokio::test(start_paused = true)]
async fn keys_are_rotated_by_who_manages_the_project() {
    let fixture = fresh().await;
    let made = document("new", "one");
    administer(&fixture, "POST", "projects", CREDENTIAL, &made).await;
    let manager = token_of(&made, "manage", None, NOW);
    let keys = "projects/new/keys";
    let added = administer(&fixture, "POST", keys, &manager, json!({ "id": "2" })).await;
    let secret = added.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(secret.len(), 64);
    assert_eq!((added.status, added.header("cache-control")), (201, "no-store"));
    let expected = json!({ "id": "2", "algorithm": "HS256", "first": false, "secret": secret });
    assert_eq!(added.json(), expected);
    let listed = async || administer(&fixture, "GET", keys, CREDENTIAL, "").await.json();
    assert_eq!(listed().await["keys"][1], json!({ "id": "2", "algorithm": "HS256", "first": false }));
    assert!(!listed().await.to_string().contains(&secret), "told once");

    assert_eq!(administer(&fixture, "PUT", "projects/new/keys/2", &manager, "").await.status, 200);
    assert_eq!(listed().await["keys"][0]["id"], "2");
    assert_eq!(administer(&fixture, "POST", keys, &manager, json!({ "id": "2" })).await.code(), "keys_conflict");
    assert_eq!(administer(&fixture, "PUT", "projects/new/keys/3", &manager, "").await.code(), "key_not_found");
    assert_eq!(administer(&fixture, "DELETE", "projects/new/keys/a%20b", &manager, "").await.code(), "key_not_found");
    assert_eq!(administer(&fixture, "DELETE", "projects/new/keys/1", &manager, "").await.status, 200);
    let gone = administer(&fixture, "GET", keys, &manager, "").await;
    assert_eq!((gone.status, gone.code().as_str()), (401, "token_refused"), "its key is gone");
    assert_eq!(administer(&fixture, "DELETE", "projects/new/keys/2", CREDENTIAL, "").await.code(), "keys_conflict");

    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let public = json!({ "id": "e", "publicKey": pair.public_key_pem(), "first": true });
    let added = administer(&fixture, "POST", keys, CREDENTIAL, public).await;
    assert_eq!(added.json(), json!({ "id": "e", "algorithm": "EdDSA", "first": true }));
    let by = project(&document("new", "x")).id;
    let token = NewToken {
        project: by,
        scopes: Scopes::among(["manage"]),
        streams: None,
        issued_at: NOW,
        expires_at: NOW + 60,
        not_before: None,
        audience: None,
        issuer: None,
        id: None,
    };
    let second =
        format!("[[project]]\nid = 'new'\n[[project.key]]\nid = '2'\nalgorithm = 'HS256'\nsecret = '{secret}'\n");
    let token = mint(&project(&second).keys.first().unwrap().signing().unwrap(), &token).unwrap();
    assert_eq!(administer(&fixture, "GET", keys, &token, "").await.status, 200, "the secret is the one that was told");
}

#[tokio::test(start_paused = true)]
async fn what_was_revoked_counts_no_more_for_anything() {
    let fixture = fresh().await;
    let manager = filed("manage", "boss");
    let everything = filed("read write manage", "one");
    assert_eq!(send(&fixture, "PUT", "/v1/stream/filed/s", &everything, "a").await.status, 201);
    let revoked = revoke(&fixture, &manager, json!({ "id": "one", "expiresAt": NOW + 600 })).await;
    let what = json!({ "id": "one", "expiresAt": NOW + 600 });
    assert_eq!((revoked.status, revoked.json()), (200, json!({ "project": "filed", "revoked": what })));
    for (method, path) in [
        ("GET", "/v1/stream/filed/s"),
        ("HEAD", "/v1/stream/filed/s"),
        ("POST", "/v1/stream/filed/s"),
        ("GET", "/v1/stream/filed/none"),
        ("GET", "/v1/admin/projects/filed"),
        ("POST", "/v1/admin/projects/filed/revocations"),
    ] {
        let refused = send(&fixture, method, path, &everything, "").await;
        assert_eq!(refused.status, 401, "{method} {path}");
        if method != "HEAD" {
            assert_eq!((refused.code().as_str(), &refused.json()["reason"]), ("token_refused", &json!("revoked")));
        }
    }
    let seen = administer(&fixture, "POST", "projects/filed/tokens/inspect", &manager, &everything).await.json();
    assert_eq!((&seen["verdict"]["counts"], &seen["verdict"]["reason"]), (&json!(false), &json!("revoked")));
    let again = json!({ "scope": ["read"], "id": "one" });
    assert_eq!(
        administer(&fixture, "POST", "projects/filed/tokens", CREDENTIAL, again).await.code(),
        "invalid_token_request"
    );

    let two = filed("read", "two");
    assert_eq!(reads(&fixture, "filed/s", &two).await, 200);
    let revoked = revoke(&fixture, &manager, json!({ "token": two })).await.json();
    assert_eq!(revoked["revoked"], json!({ "id": "two", "expiresAt": NOW + 600 }));
    assert_eq!(reads(&fixture, "filed/s", &two).await, 401);
    assert_eq!(revoke(&fixture, &manager, json!({ "token": two })).await.status, 200, "again is harmless");

    let (older, newer) = (filed("read", "three"), token_of(&document("filed", "of filed"), "read", None, NOW + 1));
    assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "before": NOW + 1 })).await.status, 200);
    assert_eq!((reads(&fixture, "filed/s", &older).await, reads(&fixture, "filed/s", &newer).await), (401, 200));
    assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "before": NOW + 300 })).await.status, 200);
    assert_eq!(reads(&fixture, "filed/s", &newer).await, 401, "whose clock may be ahead");
}

#[tokio::test(start_paused = true)]
async fn a_live_reader_of_another_gateway_is_told_that_its_token_or_its_project_is_gone() {
    let upstream = store();
    let (one, other) =
        (gateway(&upstream, Config::default()).read().await, gateway(&upstream, Config::default()).read().await);
    let made = document("new", "one");
    administer(&one, "POST", "projects", CREDENTIAL, &made).await;
    let writer = token_of(&made, "read write", Some("w"), NOW);
    assert_eq!(send(&one, "PUT", "/v1/stream/new/s", &writer, "a").await.status, 201);
    // What is done, and whether a reader ends with it.
    let changes = [
        ("POST", "projects/new/keys", json!({ "id": "2" }).to_string(), false),
        ("POST", "projects/new/revocations", json!({ "id": "another" }).to_string(), false),
        ("POST", "projects/new/revocations", json!({ "id": "r2" }).to_string(), true),
        ("DELETE", "projects/new", String::new(), true),
    ];
    for (n, (method, path, body, ends)) in changes.into_iter().enumerate() {
        let token = token_of(&made, "read", Some(&format!("r{n}")), NOW);
        until(&other, "new/s", &token, 200).await;
        let bearer = format!("Bearer {token}");
        let mut reader = other.live("/v1/stream/new/s?offset=-1&live=sse", &[("authorization", &bearer)]).await;
        assert!(reader.chunk().await.unwrap().contains("data:a"));
        assert_eq!(administer(&one, method, path, CREDENTIAL, &body).await.status / 100, 2, "{path} {body}");
        let mut last = String::new();
        while let Ok(Some(chunk)) = tokio::time::timeout(Duration::from_secs(5), reader.chunk()).await {
            last = chunk;
        }
        let told = last.contains("event: unauthorized\ndata:{\"reason\":\"revoked\"}\n");
        assert_eq!(told, ends, "{path} {body}: {last}");
    }
}

#[tokio::test(start_paused = true)]
async fn until_the_register_was_read_nobody_is_judged_and_after_that_everybody_is() {
    let upstream = store();
    let record =
        Record::RevokeToken { project: ProjectId::parse("filed").unwrap(), id: "gone".into(), expires_at: None };
    let record = NewRecord::message(record.encode().into());
    upstream.land(&RegisterLog::key(), Append::new(vec![record])).unwrap();
    upstream.set_outage(Outage::Refusing);
    let fixture = gateway(&upstream, Config::default());
    for token in [&filed("read", "a"), &filed("read", "gone"), "junk", CREDENTIAL] {
        for path in ["/v1/stream/filed/s", "/v1/stream/nowhere/s", "/v1/admin/projects/filed"] {
            let answer = send(&fixture, "GET", path, token, "").await;
            assert_eq!((answer.status, answer.code().as_str()), (503, "register_not_known"), "{path}");
            assert!(!answer.header("retry-after").is_empty());
        }
    }
    assert_eq!(fixture.send("GET", "/v1/stream/filed/s", &[], "").await.code(), "register_not_known");
    upstream.set_outage(Outage::Over);
    let fixture = fixture.read().await;
    assert_eq!(reads(&fixture, "filed/s", &filed("read", "a")).await, 404);
    assert_eq!(reads(&fixture, "filed/s", &filed("read", "gone")).await, 401);

    upstream.set_outage(Outage::Refusing);
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(reads(&fixture, "filed/s", &filed("read", "gone")).await, 401, "what was known counts");
    assert_eq!(fixture.get("/readyz").await.code(), "store_unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_cannot_follow_the_register_says_so() {
    let upstream = store();
    let fixture = gateway(&upstream, Config::default()).read().await;
    assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "id": "gone" })).await.status, 200);
    upstream.stall_sessions(&RegisterLog::key());
    tokio::time::sleep(Duration::from_secs(6)).await;
    // Nobody has asked whether it is ready.
    let shown = String::from_utf8(fixture.get("/metrics").await.body.to_vec()).unwrap();
    assert!(shown.contains("\ntailwater_register_standing 1\n"), "{shown}");
    assert_eq!(fixture.get("/readyz").await.code(), "register_behind");
    upstream.resume_sessions(&RegisterLog::key());
    let fixture = fixture.read().await;
    upstream.append_native(&RegisterLog::key(), ["from a program of the future"]);
    while fixture.probe("/readyz").await == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.get("/readyz").await.code(), "register_broken");
    assert_eq!(reads(&fixture, "filed/s", &filed("read", "gone")).await, 401);
    assert_eq!(reads(&fixture, "filed/s", &filed("read", "a")).await, 404);
    assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "id": "b" })).await.code(), "register_broken");
}

#[tokio::test(start_paused = true)]
async fn what_is_of_files_is_not_changed_here_and_hides_what_has_its_name() {
    let upstream = store();
    let own = Record::put(Zeroizing::new(document("filed", "of another"))).unwrap();
    let record = NewRecord::message(own.encode().into());
    upstream.land(&RegisterLog::key(), Append::new(vec![record])).unwrap();
    let fixture = gateway(&upstream, Config::default()).read().await;
    assert_eq!(reads(&fixture, "filed/s", &filed("read", "a")).await, 404, "the file's key counts");
    let other = token_of(&document("filed", "of another"), "read", None, NOW);
    assert_eq!(reads(&fixture, "filed/s", &other).await, 401);
    let document = document("filed", "x");
    assert_eq!(administer(&fixture, "POST", "projects", CREDENTIAL, &document).await.code(), "project_exists");
    assert_eq!(
        administer(&fixture, "PUT", "projects/filed", CREDENTIAL, &document).await.code(),
        "projects_from_files"
    );
    for (method, path) in [("DELETE", ""), ("POST", "/keys"), ("PUT", "/keys/1"), ("DELETE", "/keys/1")] {
        let answer = administer(&fixture, method, &format!("projects/filed{path}"), CREDENTIAL, "{\"id\":\"k\"}").await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "projects_from_files"), "{method} {path}");
    }
    let by_manager = administer(&fixture, "POST", "projects/filed/keys", &filed("manage", "m"), "{\"id\":\"k\"}").await;
    assert_eq!(by_manager.code(), "projects_from_files", "whom the file trusts does not change what it hides");
    assert_eq!(reads(&fixture, "filed/s", &filed("read", "a")).await, 404, "the file's tokens count as before");
    assert_eq!(upstream.records(&RegisterLog::key()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_project_whose_keys_are_where_this_gateway_fetches_none_is_not_in_force() {
    let upstream = store();
    let (listed, elsewhere) = (document("listed", "of listed"), document("more", "of more"));
    let jwks = "issuer = 'i'\n[project.jwks]\nurl = 'https://login.example/keys'\n[[project.key]]";
    for document in [&listed, &elsewhere.replace("[[project.key]]", jwks)] {
        let record = Record::put(Zeroizing::new(document.clone())).unwrap();
        let record = NewRecord::message(record.encode().into());
        upstream.land(&RegisterLog::key(), Append::new(vec![record])).unwrap();
    }
    let fixture = gateway(&upstream, Config::default()).read().await;
    assert_eq!(reads(&fixture, "listed/s", &token_of(&listed, "read", None, NOW)).await, 404);
    assert_eq!(administer(&fixture, "GET", "projects/listed", CREDENTIAL, "").await.status, 200);
    assert_eq!(administer(&fixture, "GET", "projects/more", CREDENTIAL, "").await.status, 404);
}

/// Bodies that ask for no key.
const NO_KEYS: &[&str] = &[
    "",
    "[]",
    "{}",
    "{\"id\":\"a b\"}",
    "{\"id\":null}",
    "{\"id\":\"k\",\"x\":1}",
    "{\"id\":\"k\",\"id\":\"k\"}",
    "{\"id\":\"k\",\"publicKey\":\"hunter2\"}",
    "{\"id\":\"k\",\"secret\":\"hunter2\"}",
];

/// Bodies that revoke nothing, or not one thing.
const NO_REVOCATIONS: &[&str] = &[
    "",
    "{}",
    "[\"hunter2\"]",
    "{\"id\":\"a\",\"before\":1}",
    "{\"before\":null}",
    "{\"before\":-1}",
    "{\"expiresAt\":1}",
    "{\"token\":\"hunter2\"}",
    "{\"id\":\"hunter2\",\"id\":\"b\"}",
    "{\"token\":\"a\",\"expiresAt\":1}",
    "{\"id\":\"a\",\"expiresAt\":3600}",
];

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_out_changes_nothing_and_nothing_of_it_is_told() {
    let fixture = fresh().await;
    administer(&fixture, "POST", "projects", CREDENTIAL, document("new", "one")).await;
    let good = document("more", "of hunter2");
    let elsewhere = "issuer = 'i'\n[project.jwks]\nurl = 'https://evil.example/hunter2'\n[[project.key]]";
    let projects = [
        ("POST", "projects", good.replace("[[project.key]]", elsewhere)),
        ("POST", "projects", "nonsense hunter2".to_owned()),
        ("POST", "projects", String::new()),
        ("POST", "projects", good.clone() + &document("two", "x")),
        ("POST", "projects", good.replace("[[project.key]]", "basin = 'a-basin-of-its-own'\n[[project.key]]")),
        ("POST", "projects", good.replace("more", "_more")),
        ("POST", "projects", good.replace("HS256", "ES256")),
        (
            "POST",
            "projects",
            good.replace(
                "[[project.key]]",
                "issuer = 'https://a.example'\njwks = 'https://a.example/keys'\n[[project.key]]",
            ),
        ),
        ("PUT", "projects/new", good.clone()),
    ];
    let (past, ahead) = (json!({ "id": "a", "expiresAt": NOW }), json!({ "before": NOW + 301 }));
    let untimely = [past, ahead, json!({ "before": NOW_MS })].map(|revocation| revocation.to_string());
    let all = projects
        .map(|(method, path, body)| (method, path, body, "invalid_project"))
        .into_iter()
        .chain(NO_KEYS.iter().map(|body| ("POST", "projects/new/keys", (*body).to_owned(), "invalid_key_request")))
        .chain(
            NO_REVOCATIONS
                .iter()
                .map(|body| (*body).to_owned())
                .chain(untimely)
                .map(|body| ("POST", "projects/new/revocations", body, "invalid_revocation")),
        );
    let before = fixture.upstream.counts().appends;
    for (method, path, body, code) in all {
        let answer = administer(&fixture, method, path, CREDENTIAL, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}");
        assert!(!answer.json().to_string().contains("hunter2"), "{body}");
    }
    let nameless = token_of(&document("new", "one"), "read", None, NOW);
    let answer =
        administer(&fixture, "POST", "projects/new/revocations", CREDENTIAL, json!({ "token": &nameless })).await;
    assert_eq!(answer.code(), "invalid_revocation");
    let told = ticket("chat", "s", PAGE, 0);
    for secret in [&nameless, &told] {
        let body = json!({ "id": secret });
        let answer = administer(&fixture, "POST", "projects/new/revocations", CREDENTIAL, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_revocation"));
        assert!(!answer.json().to_string().contains(secret.as_str()), "it is no id, and not told");
    }
    let long = json!({ "id": "x".repeat(1000) });
    assert_eq!(administer(&fixture, "POST", "projects/new/revocations", CREDENTIAL, long).await.code(), "unfit_record");
    let large = "#".repeat(17 * 1024);
    assert_eq!(administer(&fixture, "POST", "projects", CREDENTIAL, large).await.code(), "body_too_large");
    assert_eq!(fixture.upstream.counts().appends, before);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_not_known_is_not_told_as_if_it_were() {
    let fixture = fresh().await;
    let faults = fixture.upstream.faults_of(&RegisterLog::key());
    for (fault, code) in [
        (AppendFault::AnswerLost, "outcome_unknown"),
        (AppendFault::NotSent, "store_unavailable"),
        (AppendFault::Refused, "store_refused"),
    ] {
        faults.next_append(fault);
        assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "id": "a" })).await.code(), code);
    }
    assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "id": "a" })).await.status, 200, "again is harmless");
}

/// The messages of the audit log, without what differs from run to run.
async fn entries(fixture: &Fixture) -> Vec<Value> {
    let text = send(fixture, "GET", "/v1/stream/filed/audit?offset=-1", &filed("read", "auditor"), "").await;
    let mut entries: Vec<Value> = serde_json::from_slice(&text.body).unwrap();
    for entry in &mut entries {
        assert_eq!(entry["time"], NOW_MS);
        entry.as_object_mut().unwrap().retain(|name, _| !["time", "entry"].contains(&name.as_str()));
    }
    entries
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_the_administration_is_written_down_before_it_is_done() {
    let fixture = audited().await;
    let text = document("new", "of hunter2");
    administer(&fixture, "POST", "projects", CREDENTIAL, &text).await;
    let added =
        administer(&fixture, "POST", "projects/new/keys", &token_of(&text, "manage", Some("m"), NOW), "{\"id\":\"2\"}")
            .await;
    let made =
        administer(&fixture, "POST", "projects/new/tokens", CREDENTIAL, "{\"scope\":[\"read\"],\"id\":\"r\"}").await;
    let reader = token_of(&text, "read", Some("r"), NOW);
    assert_eq!(administer(&fixture, "DELETE", "projects/new/keys/1", &reader, "").await.status, 403);
    assert_eq!(
        administer(&fixture, "DELETE", "projects/new", &token_of(&text, "manage", None, NOW), "").await.status,
        403
    );
    administer(&fixture, "GET", "projects/new", &reader, "").await;
    administer(&fixture, "DELETE", "projects/new", "junk", "").await;
    let entry =
        |outcome: &str, act: &str, who: Value| json!({ "outcome": outcome, "act": act, "project": "new", "who": who });
    let with = |mut entry: Value, name: &str, value: Value| {
        entry[name] = value;
        entry
    };
    let token = |id: Option<&str>| json!({ "token": id });
    let (key, minted) = (json!({ "key": "2" }), json!({ "id": "r", "scope": "read", "expiresAt": NOW + 3600 }));
    let expected = [
        entry("intent", "make_project", json!("operator")),
        entry("done", "make_project", json!("operator")),
        with(entry("intent", "add_key", token(Some("m"))), "what", key.clone()),
        with(entry("done", "add_key", token(Some("m"))), "what", key),
        with(entry("intent", "make_token", json!("operator")), "what", minted.clone()),
        with(entry("done", "make_token", json!("operator")), "what", minted),
        with(entry("refused", "remove_key", token(Some("r"))), "problem", json!("scope_needed")),
        with(entry("refused", "remove_project", token(None)), "problem", json!("operator_needed")),
    ];
    let written = entries(&fixture).await;
    assert_eq!(written, expected);
    let all = json!(written).to_string();
    for secret in ["hunter2", added.json()["secret"].as_str().unwrap(), made.json()["token"].as_str().unwrap()] {
        assert!(!all.contains(secret));
    }
    assert!(fixture.metric("tailwater_audit_entries_total{result=\"written\"} 8"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_down_is_not_done() {
    let fixture = audited().await;
    fixture.upstream.faults_of(&audit_key()).next_append(AppendFault::Refused);
    let refused = administer(&fixture, "POST", "projects", CREDENTIAL, document("new", "one")).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "audit_unavailable"));
    assert!(fixture.metric("tailwater_audit_entries_total{result=\"failed\"} 1"));
    assert_eq!(administer(&fixture, "GET", "projects/new", CREDENTIAL, "").await.status, 404);
    assert!(fixture.upstream.records(&RegisterLog::key()).is_empty());
    fixture
        .upstream
        .faults_of(&RegisterLog::key())
        .next_append(AppendFault::NotSent)
        .next_append(AppendFault::AnswerLost);
    for _ in 0..2 {
        assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "id": "a" })).await.status, 503);
    }
    let outcomes: Vec<_> =
        entries(&fixture).await.iter().map(|entry| (entry["outcome"].clone(), entry["problem"].clone())).collect();
    let null = Value::Null;
    let expected = [
        (json!("intent"), null.clone()),
        (json!("failed"), json!("store_unavailable")),
        (json!("intent"), null),
        (json!("unknown"), json!("outcome_unknown")),
    ];
    assert_eq!(outcomes, expected);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_no_audit_log_is_not_taken_for_one() {
    let upstream = store();
    let plain = gateway(&upstream, Config::default()).read().await;
    assert_eq!(send(&plain, "PUT", "/v1/stream/filed/audit", &filed("write", "a"), "of clients").await.status, 201);
    let fixture = gateway(&upstream, Config { audit: Some(audit_key()), ..Config::default() }).read().await;
    assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "id": "a" })).await.code(), "audit_unavailable");
}

#[tokio::test(start_paused = true)]
async fn nobody_writes_to_the_audit_log_and_readers_of_its_project_read_it() {
    let fixture = audited().await;
    let all = filed("read write manage", "a");
    let path = "/v1/stream/filed/audit";
    for method in ["PUT", "POST", "DELETE"] {
        for path in [path, "/v1/stream/%66iled/%61udit"] {
            assert_eq!(send(&fixture, method, path, &all, "x").await.code(), "audit_stream", "{method} {path}");
        }
    }
    assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "id": "b" })).await.status, 200);
    assert_eq!(send(&fixture, "GET", path, &all, "").await.status, 200);
    assert_eq!(send(&fixture, "GET", path, &filed("write", "c"), "").await.status, 403);
    assert_eq!(fixture.send("GET", path, &[], "").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_time_and_again_does_not_fill_the_audit_log() {
    let fixture = audited().await;
    let reader = filed("read", "r");
    for _ in 0..70 {
        assert_eq!(revoke(&fixture, &reader, json!({ "id": "a" })).await.status, 403);
    }
    assert_eq!(entries(&fixture).await.len(), 60);
    assert!(fixture.metric("tailwater_audit_entries_total{result=\"omitted\"} 10"));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(revoke(&fixture, &reader, json!({ "id": "a" })).await.status, 403);
    assert_eq!(entries(&fixture).await[60]["omitted"], 10);
}
