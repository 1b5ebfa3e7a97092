//! What changes while a request is under way: who was judged when it came is judged again before anything is done.

use std::{fs, time::Duration};

use axum::body::Body;
use futures_util::stream;
use serde_json::json;
use tailwater_auth::{Operator, register::Record};
use tailwater_log::NewRecord;
use tailwater_protocol::ProjectId;
use tailwater_register::RegisterLog;
use tailwater_server::{Config, Guard, Issuers};
use tailwater_testkit::ScriptedUpstream;
use tailwater_upstream::Append;
use tokio::{sync::oneshot, time::Instant};
use zeroize::Zeroizing;

use crate::{
    fixture::{Answer, Fixture},
    register::{CREDENTIAL, NOW, administer, document, filed, fresh, gateway, reads, revoke, send, store, token_of},
};

/// Sends a request whose body does not come before something has been done, and that not before the body is waited for.
async fn amid(
    fixture: &Fixture,
    (method, path): (&str, &str),
    (token, body): (&str, &str),
    meanwhile: impl Future<Output = ()>,
) -> Answer {
    let (waits, is_waited_for) = oneshot::channel();
    let (comes, has_come) = oneshot::channel::<()>();
    let body = body.to_owned();
    let body = Body::from_stream(stream::once(async move {
        waits.send(()).unwrap();
        has_come.await.map(|()| body)
    }));
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    let meanwhile = async {
        is_waited_for.await.unwrap();
        meanwhile.await;
        comes.send(()).unwrap();
    };
    tokio::join!(fixture.send(method, path, &headers, body), meanwhile).0
}

/// Puts a record into the register that no gateway was asked for.
fn land(upstream: &ScriptedUpstream, record: &Record) {
    let record = NewRecord::message(record.encode().into());
    upstream.land(&RegisterLog::key(), Append::new(vec![record])).unwrap();
}

fn put(document: String) -> Record {
    Record::put(Zeroizing::new(document)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_is_revoked_while_a_body_comes_does_nothing_with_it() {
    let fixture = fresh().await;
    let made = document("new", "one");
    assert_eq!(administer(&fixture, "POST", "projects", CREDENTIAL, &made).await.status, 201);
    assert_eq!(send(&fixture, "PUT", "/v1/stream/filed/s", &filed("write", "w"), "a").await.status, 201);
    let requests = [
        ("POST", "/v1/admin/projects/filed/revocations", "{\"id\":\"x\"}"),
        ("POST", "/v1/admin/projects/filed/tokens", "{\"scope\":[\"read\"]}"),
        ("POST", "/v1/admin/projects/filed/tokens/inspect", "junk"),
        ("POST", "/v1/admin/projects/new/keys", "{\"id\":\"2\"}"),
        ("PUT", "/v1/stream/filed/another", "a"),
        ("POST", "/v1/stream/filed/s", "b"),
        ("POST", "/v1/ticket", "{\"stream\":\"filed/s\",\"origin\":\"https://app.example\"}"),
    ];
    for (n, (method, path, body)) in requests.into_iter().enumerate() {
        let (project, secret) = if path.contains("/new/") { ("new", "one") } else { ("filed", "of filed") };
        let id = format!("t{n}");
        let token = token_of(&document(project, secret), "read write manage", Some(&id), NOW);
        let before = fixture.upstream.counts().appends;
        let revoked = async {
            let path = format!("projects/{project}/revocations");
            assert_eq!(administer(&fixture, "POST", &path, CREDENTIAL, json!({ "id": id })).await.status, 200);
        };
        let answer = amid(&fixture, (method, path), (&token, body), revoked).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (401, &json!("revoked")), "{method} {path}");
        assert_eq!(fixture.upstream.counts().appends, before + 1, "{method} {path}: the revocation alone");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_still_there_when_a_body_has_come_does_what_was_asked() {
    let fixture = fresh().await;
    let all = filed("read write manage", "one");
    for (method, path, body, status) in [
        ("PUT", "/v1/stream/filed/s", "a", 201),
        ("POST", "/v1/stream/filed/s", "b", 204),
        ("POST", "/v1/admin/projects/filed/tokens", "{\"scope\":[\"read\"]}", 201),
        ("POST", "/v1/admin/projects/filed/revocations", "{\"id\":\"x\"}", 200),
    ] {
        let another = async {
            assert_eq!(revoke(&fixture, CREDENTIAL, json!({ "id": "another" })).await.status, 200);
        };
        assert_eq!(amid(&fixture, (method, path), (&all, body), another).await.status, status, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_loses_a_race_to_the_end_of_who_asks_is_not_made() {
    let id = |id: &str| ProjectId::parse(id).unwrap();
    let ends = [
        ("filed", Record::RevokeToken { project: id("filed"), id: "m".to_owned(), expires_at: None }, "revoked"),
        ("filed", Record::RevokeOlder { project: id("filed"), before: NOW + 1 }, "revoked"),
        ("new", Record::RevokeToken { project: id("new"), id: "m".to_owned(), expires_at: None }, "revoked"),
        ("new", Record::RemoveProject { project: id("new") }, "revoked"),
        ("new", put(document("new", "two")), "unverified"),
        ("new", put(document("new", "one").replace("id = 'new'", "id = 'new'\nrevoked = ['m']")), "revoked"),
    ];
    for (project, end, reason) in ends {
        let upstream = store();
        let fixture = gateway(&upstream, Config::default()).read().await;
        assert_eq!(administer(&fixture, "POST", "projects", CREDENTIAL, document("new", "one")).await.status, 201);
        let secret = if project == "new" { "one" } else { "of filed" };
        let manager = token_of(&document(project, secret), "manage", Some("m"), NOW);
        let path = format!("/v1/admin/projects/{project}/revocations");
        let (known, is_known) = oneshot::channel();
        let unseen = async {
            upstream.stall_sessions(&RegisterLog::key());
            land(&upstream, &end);
            known.send(()).unwrap();
        };
        let seen = async {
            is_known.await.unwrap();
            // Nothing is due but that: the record was refused for what stands there, and is to be judged again.
            tokio::time::sleep(Duration::from_secs(1)).await;
            upstream.resume_sessions(&RegisterLog::key());
        };
        let (answer, ()) = tokio::join!(amid(&fixture, ("POST", &path), (&manager, "{\"id\":\"x\"}"), unseen), seen);
        assert_eq!((answer.status, &answer.json()["reason"]), (401, &json!(reason)), "{end:?}");
        assert_eq!(upstream.records(&RegisterLog::key()).len(), 2, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_for_the_administration_comes_soon_or_not_at_all() {
    let fixture = fresh().await;
    let bearer = format!("Bearer {CREDENTIAL}");
    for path in ["revocations", "tokens", "tokens/inspect"] {
        let trickle = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            Some((Ok::<_, std::convert::Infallible>(" "), ()))
        });
        let began = Instant::now();
        let path = format!("/v1/admin/projects/filed/{path}");
        let answer = fixture.send("POST", &path, &[("authorization", &bearer)], Body::from_stream(trickle)).await;
        assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"), "{path}");
        assert_eq!(began.elapsed().as_secs(), 10, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_project_of_run_time_does_not_come_where_a_file_has_put_another_ones_streams() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("projects.toml");
    let placed =
        document("placed", "of placed").replace("[[project.key]]", "basin = 'a-basin-of-its-own'\n[[project.key]]");
    fs::write(&file, placed + &document("filed", "of filed")).unwrap();
    let guard = Guard::load(&file, Duration::ZERO, Issuers::none()).unwrap();
    let config = Config { operator: Some(Operator::new(CREDENTIAL).unwrap()), ..Config::default() };
    let fixture = Fixture::beside_register(store(), guard.clone(), config, Default::default()).read().await;
    fs::write(&file, document("filed", "of filed")).unwrap();
    guard.look().await;
    assert_eq!(
        administer(&fixture, "GET", "projects/placed", CREDENTIAL, "").await.status,
        404,
        "it has left its file"
    );

    let again = document("placed", "of another");
    for (method, path) in [("POST", "projects"), ("PUT", "projects/placed")] {
        let answer = administer(&fixture, method, path, CREDENTIAL, &again).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_project"), "{method}");
    }
    // A gateway that was started without that file takes it.
    land(&fixture.upstream, &put(again.clone()));
    assert_eq!(administer(&fixture, "POST", "projects", CREDENTIAL, document("new", "one")).await.status, 201);
    assert_eq!(reads(&fixture, "new/s", &token_of(&document("new", "one"), "read", None, NOW)).await, 404);
    assert_eq!(reads(&fixture, "placed/s", &token_of(&again, "read", None, NOW)).await, 401, "not in force here");
}
