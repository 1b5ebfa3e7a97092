//! Who sees the audit log: whoever may read in its project, however visible streams are there by themselves.

use tailwater_log::Visibility::{self, Private, Public};

use super::*;

const PATH: &str = "/v1/stream/filed/audit";

/// A gateway with this audit log, where streams are as visible as this by themselves: by their project, and by the gateway.
async fn where_streams_are(upstream: &ScriptedUpstream, by_project: &str, by_gateway: Visibility) -> Fixture {
    let visible = format!("[[project]]\nvisibility = '{by_project}'");
    let filed = document("filed", "of filed").replacen("[[project]]", &visible, 1);
    let config = Config { audit: Some(audit_key()), ..Config::default() };
    gateway_of(upstream, &filed, config, by_gateway).read().await
}

#[tokio::test(start_paused = true)]
async fn the_audit_log_is_private_however_visible_streams_are_by_themselves() {
    for (by_project, by_gateway, anybody) in
        [("public", Public, 200), ("public", Private, 200), ("private", Public, 401), ("private", Private, 401)]
    {
        let fixture = where_streams_are(&store(), by_project, by_gateway).await;
        let everything = filed("read write manage", "a");
        assert_eq!(send(&fixture, "PUT", "/v1/stream/filed/s", &everything, "a").await.status, 201);
        assert_eq!(revoke(&fixture, &everything, json!({ "id": "b" })).await.status, 200);
        let by_themselves = fixture.send("GET", "/v1/stream/filed/s", &[], "").await.status;
        assert_eq!(by_themselves, anybody, "{by_project} {by_gateway:?}");
        for query in ["", "?offset=-1", "?offset=now&live=sse"] {
            let answer = fixture.send("GET", &format!("{PATH}{query}"), &[], "").await;
            assert_eq!(answer.status, 401, "{by_project} {by_gateway:?} {query}");
        }
        let shown = send(&fixture, "HEAD", PATH, &everything, "").await;
        assert_eq!((shown.status, shown.header("stream-visibility")), (200, "private"), "{by_project} {by_gateway:?}");
        let written = entries(&fixture).await;
        assert_eq!(written[0]["act"], "revoke", "{by_project} {by_gateway:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_public_stream_in_the_place_of_the_audit_log_is_not_written_to_and_nothing_is_administered() {
    let made = document("new", "one");
    for (visibility, is_one) in [("public", false), ("private", true)] {
        let upstream = store();
        let plain = gateway(&upstream, Config::default()).read().await;
        let bearer = format!("Bearer {}", filed("write", "a"));
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("stream-visibility", visibility),
        ];
        assert_eq!(plain.send("PUT", PATH, &headers, "").await.status, 201);
        let before = upstream.records(&audit_key()).len();

        let fixture = where_streams_are(&upstream, "public", Public).await;
        for (path, body, done) in [
            ("projects", made.clone(), 201),
            ("projects/filed/revocations", json!({ "id": "b" }).to_string(), 200),
            ("projects/filed/tokens", json!({ "scope": ["read"] }).to_string(), 201),
        ] {
            let answer = administer(&fixture, "POST", path, CREDENTIAL, body).await;
            assert_eq!(answer.status, if is_one { done } else { 503 }, "{visibility} {path}");
            assert!(is_one || answer.code() == "audit_unavailable", "{visibility} {path}");
        }
        // Nobody who is refused is written down there either.
        assert_eq!(revoke(&fixture, &filed("read", "r"), json!({ "id": "c" })).await.status, 403);
        let written = upstream.records(&audit_key()).len() - before;
        assert_eq!((written, upstream.records(&RegisterLog::key()).len()), if is_one { (7, 2) } else { (0, 0) });
        assert_eq!(reads(&fixture, "filed/audit", &filed("read", "b")).await, if is_one { 401 } else { 200 });
        let line = if is_one { "result=\"written\"} 7" } else { "result=\"failed\"} 4" };
        assert!(fixture.metric(&format!("tailwater_audit_entries_total{{{line}")), "{visibility}");
    }
}
