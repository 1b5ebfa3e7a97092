//! The administration: who sees what, and what tokens can be made with which.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_auth::{File, NewToken, Operator, Projects, Scopes, mint};
use tailwater_protocol::ProjectId;
use tailwater_server::{Auth, Config, Guard};

use crate::{
    fixture::{Answer, Fixture, NOW_MS},
    rights::{PAGE, ticket},
};

const NOW: u64 = NOW_MS / 1000;
const CREDENTIAL: &str = "0123456789abcdef0123456789abcdef";
const PROJECTS: &str = r#"
[[project]]
id = "chat"
origins = ["https://app.example"]
audience = "tailwater"
basin = "chat-events"
max-body = 10
max-readers-per-stream = 1
quota = { readers = 9, principal = { requests = { most = 1000, within = 10 } } }
revoked = ["gone"]
[[project.key]]
id = "k1"
algorithm = "HS256"
secret = "the secret of chat, and it is long enough"

[[project]]
id = "other"
[[project.key]]
algorithm = "HS256"
secret = "the secret of other, and it is long enough"
"#;

fn projects() -> Projects {
    Projects::parse([File { name: "projects.toml", bytes: PROJECTS.as_bytes() }]).unwrap()
}

fn guarded() -> Fixture {
    let auth = Auth::Required(Guard::fixed(projects(), Duration::ZERO));
    let operator = Some(Operator::new(CREDENTIAL).unwrap());
    Fixture::with(Config { auth, operator, ..Config::default() }, Default::default())
}

/// A token of a project, for a minute.
fn token(project: &str, scopes: &str) -> String {
    let id = ProjectId::parse(project).unwrap();
    let projects = projects();
    let project = projects.get(&id).unwrap();
    let new = NewToken {
        project: id,
        scopes: Scopes::among(scopes.split(' ')),
        streams: None,
        issued_at: NOW,
        expires_at: NOW + 60,
        not_before: None,
        audience: project.audience.clone(),
        issuer: None,
        id: None,
    };
    mint(&project.keys.first().unwrap().signing().unwrap(), &new).unwrap()
}

async fn send(fixture: &Fixture, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    fixture.send(method, path, &[("authorization", &bearer)], body.to_owned()).await
}

async fn ask(fixture: &Fixture, token: &str, wanted: &Value) -> Answer {
    send(fixture, "POST", "/v1/admin/projects/chat/tokens", token, &wanted.to_string()).await
}

#[tokio::test(start_paused = true)]
async fn a_project_is_shown_without_its_secrets() {
    let fixture = guarded();
    let answer = send(&fixture, "GET", "/v1/admin/projects/chat", &token("chat", "manage"), "").await;
    let expected = json!({
        "id": "chat", "visibility": "private", "writersRead": false, "origins": ["https://app.example"],
        "cookie": null, "audience": "tailwater", "issuer": null, "jwks": null, "basin": "chat-events", "maxBody": 10,
        "maxReadersPerStream": 1,
        "quota": {
            "requests": null, "bytes": null, "connections": null, "readers": 9, "streams": null,
            "principal": {
                "requests": { "most": 1000, "within": 10 },
                "bytes": null, "connections": null, "readers": null, "streams": null,
            },
        },
        "revokedTokens": 1, "keys": [{ "id": "k1", "algorithm": "HS256", "first": true }],
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(answer.header("cache-control"), "no-store");
    let all = send(&fixture, "GET", "/v1/admin/projects", CREDENTIAL, "").await.json();
    let ids: Vec<_> = all["projects"].as_array().unwrap().iter().map(|project| project["id"].clone()).collect();
    assert_eq!(ids, ["chat", "other"]);
    assert_eq!(all["projects"][1]["quota"], json!(null));
    assert!(!all.to_string().contains("secret of"));
}

#[tokio::test(start_paused = true)]
async fn only_the_operator_is_told_that_there_is_no_such_project() {
    let fixture = guarded();
    for path in ["nowhere", "nowhere/keys", "admin", "%63hat", "chat%2Fkeys"] {
        let path = format!("/v1/admin/projects/{path}");
        let missing = send(&fixture, "GET", &path, CREDENTIAL, "").await;
        assert_eq!((missing.status, missing.code().as_str()), (404, "project_not_found"), "{path}");
        for token in [&token("chat", "manage"), "junk"] {
            let (there, nowhere) = (
                send(&fixture, "GET", "/v1/admin/projects/other", token, "").await,
                send(&fixture, "GET", &path, token, "").await,
            );
            assert_eq!((nowhere.status, &nowhere.body), (401, &there.body), "{path}");
            assert_eq!(nowhere.headers, there.headers);
        }
    }
    assert_eq!(send(&fixture, "GET", "/v1/admin/projects/chat/", CREDENTIAL, "").await.code(), "not_found");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_made_that_counts_and_nothing_outlives_what_it_was_made_with() {
    let fixture = guarded();
    let manager = token("chat", "read write manage");
    let wanted = json!({ "scope": ["read", "write"], "streams": ["room/*"], "expiresIn": 3600, "id": "one" });
    let made = ask(&fixture, &manager, &wanted).await;
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"));
    let made = made.json();
    assert_eq!((&made["id"], &made["expiresAt"]), (&json!("one"), &json!(NOW + 60)));
    let text = made["token"].as_str().unwrap();
    let bearer = format!("Bearer {text}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    assert_eq!(fixture.send("PUT", "/v1/stream/chat/room/a", &headers, "a").await.status, 201);
    assert_eq!(fixture.send("PUT", "/v1/stream/chat/hall", &headers, "a").await.status, 403);

    let inspect = "/v1/admin/projects/chat/tokens/inspect";
    let seen = send(&fixture, "POST", inspect, &manager, &format!("{text}\n")).await.json();
    assert_eq!(seen["claims"]["streams"], json!(["room/*"]));
    assert_eq!(seen["verdict"], json!({ "counts": true, "expiresAt": NOW + 60 }));
    assert!(!seen.to_string().contains(text.rsplit('.').next().unwrap()), "no signature");
    let foreign = send(&fixture, "POST", inspect, &manager, &token("other", "read")).await.json();
    assert_eq!((&foreign["verdict"]["counts"], &foreign["verdict"]["reason"]), (&json!(false), &json!("unverified")));

    let administrator = json!({ "scope": ["manage"], "expiresIn": 86400 });
    assert_eq!(ask(&fixture, &manager, &administrator).await.code(), "invalid_token_request");
    let made = ask(&fixture, CREDENTIAL, &administrator).await.json();
    assert_eq!(made["expiresAt"], json!(NOW + 86400));
    assert_eq!(made["id"].as_str().unwrap().len(), 32);
    // Of the operator is asked what its token is to do itself.
    let administrator = made["token"].as_str().unwrap();
    assert_eq!(ask(&fixture, administrator, &json!({ "scope": ["read"] })).await.code(), "scope_needed");
}

#[tokio::test(start_paused = true)]
async fn a_token_makes_none_that_may_do_what_it_may_not() {
    let fixture = guarded();
    // What the token may do, what is asked for, and what is lacking.
    let table = [
        ("manage", vec!["read"], "read"),
        ("manage", vec!["write"], "write"),
        ("read manage", vec!["read", "write"], "write"),
        ("write manage", vec!["read", "write"], "read"),
        ("read manage", vec!["read"], ""),
        ("read write manage", vec!["write", "read"], ""),
    ];
    for (scopes, wanted, lacking) in table {
        let answer = ask(&fixture, &token("chat", scopes), &json!({ "scope": wanted })).await;
        if lacking.is_empty() {
            assert_eq!(answer.status, 201, "{scopes} {wanted:?}");
            continue;
        }
        assert_eq!((answer.status, answer.code().as_str()), (403, "scope_needed"), "{scopes} {wanted:?}");
        assert_eq!(answer.json()["scope"], lacking, "{scopes} {wanted:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("\"token\""), "{scopes} {wanted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_be_no_token_is_refused_without_being_repeated() {
    let fixture = guarded();
    let wanted = [
        json!({}),
        json!({ "scope": [] }),
        json!({ "scope": "read" }),
        json!({ "scope": ["hunter2"] }),
        json!({ "scope": ["read"], "hunter2": 1 }),
        json!({ "scope": ["read"], "expiresIn": "hunter2" }),
        json!({ "scope": ["read"], "expiresIn": 0 }),
        json!({ "scope": ["read"], "streams": ["a*hunter2"] }),
        json!({ "scope": ["read"], "streams": null }),
        json!({ "scope": ["read"], "expiresIn": null }),
        json!({ "scope": ["read"], "id": null }),
        json!([["read"]]),
        json!([["read"], ["s"], 60, "hunter2"]),
        json!({ "scope": ["read"], "id": "" }),
        json!({ "scope": ["read"], "id": "gone" }),
        json!({ "scope": ["read"], "id": "x".repeat(300) }),
    ];
    for wanted in wanted {
        let answer = ask(&fixture, CREDENTIAL, &wanted).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_token_request"), "{wanted}");
        assert!(!answer.json().to_string().contains("hunter2"), "{wanted}");
    }
    let large = send(&fixture, "POST", "/v1/admin/projects/chat/tokens", CREDENTIAL, &"x".repeat(1 << 20)).await;
    assert_eq!(large.code(), "body_too_large");
}

#[tokio::test(start_paused = true)]
async fn no_token_is_called_by_a_token_or_a_ticket_which_would_be_told_and_kept() {
    let fixture = guarded();
    let (token, ticket) = (token("chat", "read write manage"), ticket("chat", "s", PAGE, 0));
    for secret in [&token, &ticket] {
        for who in [CREDENTIAL, &token] {
            let answer = ask(&fixture, who, &json!({ "scope": ["read"], "id": secret })).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_token_request"), "{secret}");
            let told = answer.json().to_string();
            assert!(told.contains("a token or a ticket itself") && !told.contains(secret.as_str()), "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_asked_for_a_token_there_is_no_administration() {
    let fixture = Fixture::new();
    for (method, path) in [("GET", ""), ("GET", "/chat"), ("POST", "/chat/tokens"), ("DELETE", "/chat/keys/k1")] {
        let path = format!("/v1/admin/projects{path}");
        assert_eq!(send(&fixture, method, &path, CREDENTIAL, "").await.code(), "not_found", "{path}");
    }
    let auth = Auth::Required(Guard::fixed(projects(), Duration::ZERO));
    let without = Fixture::with(Config { auth, ..Config::default() }, Default::default());
    let answer = send(&without, "GET", "/v1/admin/projects", CREDENTIAL, "").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_refused"));
}

#[tokio::test(start_paused = true)]
async fn a_projects_limits_hold_for_its_own_streams() {
    let fixture = guarded();
    for (project, refused) in [("chat", true), ("other", false)] {
        let bearer = format!("Bearer {}", token(project, "read write"));
        let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
        let path = format!("/v1/stream/{project}/s");
        assert_eq!(fixture.send("PUT", &path, &headers, "0123456789").await.status, 201);
        for (method, path) in [("PUT", format!("{path}2")), ("POST", path.clone())] {
            let answer = fixture.send(method, &path, &headers, "0123456789a").await;
            assert_eq!(answer.status == 413, refused, "{method} {path}");
        }
        let live = format!("{path}?offset=now&live=sse");
        let _first = fixture.live(&live, &headers[..1]).await;
        let second = fixture.respond("GET", &live, &headers[..1], axum::body::Body::empty()).await;
        assert_eq!(second.status() == 503, refused, "{path}");
    }
}
