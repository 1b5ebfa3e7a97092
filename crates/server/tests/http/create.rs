//! `PUT`, `HEAD`, `DELETE` and `OPTIONS`.

use tailwater_server::Config;

use crate::fixture::Fixture;

const PATH: &str = "/v1/stream/s";

#[tokio::test(start_paused = true)]
async fn a_new_stream_says_where_it_is_and_what_it_is() {
    let fixture = Fixture::new();
    let headers = [("host", "a.example:1"), ("content-type", "text/plain; charset=utf-8")];
    let created = fixture.send("PUT", "/v1/stream/p/a%20b?x=1", &headers, "").await;
    assert_eq!((created.status, created.body.len()), (201, 0));
    assert_eq!(created.header("location"), "http://a.example:1/v1/stream/p/a%20b");
    assert_eq!(created.header("content-type"), "text/plain; charset=utf-8");
    let tail = created.header("stream-next-offset");
    assert_eq!((tail.len(), tail.as_bytes()[16]), (33, b'_'));

    let head = fixture.send("HEAD", "/v1/stream/p/a%20b", &[], "").await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("stream-next-offset"), tail);
    assert_eq!(head.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(head.header("cache-control"), "no-store");
}

#[tokio::test(start_paused = true)]
async fn the_public_url_wins_over_the_host() {
    let config = Config { public_url: Some("https://streams.example/x".parse().unwrap()), ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    let created = fixture.send("PUT", PATH, &[("host", "internal:80")], "").await;
    assert_eq!(created.header("location"), "https://streams.example/x/v1/stream/s");
}

#[tokio::test(start_paused = true)]
async fn to_create_again_is_fine_when_nothing_differs_and_appends_nothing() {
    let fixture = Fixture::new();
    let first = fixture.put(PATH, "text/plain", "a").await;
    let again = fixture.send("PUT", PATH, &[("content-type", "TEXT/PLAIN; charset=utf-8")], "b").await;
    assert_eq!((again.status, again.header("location")), (200, ""));
    assert_eq!(again.header("content-type"), "text/plain");
    assert_eq!(again.header("stream-next-offset"), first.header("stream-next-offset"));
    assert_eq!(fixture.get(PATH).await.body, "a");

    let other = fixture.send("PUT", PATH, &[("content-type", "application/json")], "").await;
    assert_eq!((other.status, other.code().as_str()), (409, "content_type_conflict"));
    let other = fixture.send("PUT", PATH, &[("content-type", "text/plain"), ("stream-ttl", "60")], "").await;
    assert_eq!((other.status, other.code().as_str()), (409, "lifetime_conflict"));
}

#[tokio::test(start_paused = true)]
async fn a_json_stream_can_start_with_messages_or_with_an_empty_array() {
    let fixture = Fixture::new();
    fixture.put(PATH, "application/json", "[1.0, {\"a\":\"\\u00e9\"}]").await;
    let read = fixture.get(PATH).await;
    assert_eq!(read.body, "[1.0,{\"a\":\"\\u00e9\"}]");
    assert_eq!(read.header("content-type"), "application/json");
    fixture.put("/v1/stream/e", "application/json", "[]").await;
    assert_eq!(fixture.get("/v1/stream/e").await.body, "[]");
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_refused_leaves_no_stream_behind() {
    let fixture = Fixture::new();
    let json = ("content-type", "application/json");
    let later = ("stream-expires-at", "2099-01-01T00:00:00Z");
    let table: [(&[_], &str, &str); 8] = [
        (&[json], "{", "invalid_json"),
        (&[json], " ", "invalid_json"),
        (&[("stream-ttl", "060")], "", "invalid_ttl"),
        (&[("stream-expires-at", "2099-01-01")], "", "invalid_expires_at"),
        (&[("stream-ttl", "1"), later], "", "conflicting_lifetime"),
        (&[("content-type", "nonsense")], "", "invalid_content_type"),
        (&[("stream-fork-sub-offset", "0")], "", "missing_forked_from"),
        (&[("stream-forked-from", "/elsewhere")], "", "invalid_forked_from"),
    ];
    for (headers, body, code) in table {
        let refused = fixture.send("PUT", PATH, headers, body).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, code));
    }
    let missing = fixture.send("PUT", PATH, &[("stream-forked-from", "/v1/stream/none")], "x").await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "fork_source_not_found"));
    assert_eq!(fixture.get(PATH).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_names_no_content_type_reads_its_first_messages_as_its_source_would() {
    let fixture = Fixture::new();
    fixture.put(PATH, "application/json", "[1,2]").await;
    let fork = [("stream-forked-from", PATH)];
    let made = fixture.send("PUT", "/v1/stream/f", &fork, "[3,[4]]").await;
    assert_eq!((made.status, made.header("content-type")), (201, "application/json"));
    assert_eq!(fixture.get("/v1/stream/f").await.body, "[1,2,3,[4]]");
    assert_eq!(fixture.send("PUT", "/v1/stream/g", &fork, "{").await.code(), "invalid_json");
    assert_eq!(fixture.get("/v1/stream/g").await.status, 404);

    assert_eq!(fixture.send("DELETE", PATH, &[], "").await.status, 204);
    assert_eq!(fixture.get(PATH).await.code(), "stream_deleted");
    assert_eq!(fixture.send("PUT", "/v1/stream/f", &fork, "[3,[4]]").await.status, 200, "it is there already");
    let late = fixture.send("PUT", "/v1/stream/g", &fork, "[3]").await;
    assert_eq!((late.status, late.code().as_str()), (409, "fork_source_deleted"));
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_is_shown_as_it_was_declared() {
    let fixture = Fixture::new();
    let at = "2099-01-01T01:00:00+01:00";
    fixture.send("PUT", PATH, &[("stream-ttl", "3600")], "").await;
    fixture.send("PUT", "/v1/stream/e", &[("stream-expires-at", at)], "").await;
    assert_eq!(fixture.send("HEAD", PATH, &[], "").await.header("stream-ttl"), "3600");
    let head = fixture.send("HEAD", "/v1/stream/e", &[], "").await;
    assert_eq!(head.header("stream-expires-at"), "2099-01-01T00:00:00Z");
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_is_not_found() {
    let fixture = Fixture::new();
    fixture.put(PATH, "text/plain", "a").await;
    assert_eq!(fixture.send("DELETE", PATH, &[], "").await.status, 204);
    for method in ["DELETE", "GET", "HEAD"] {
        assert_eq!(fixture.send(method, PATH, &[], "").await.status, 404, "{method}");
    }
    let append = fixture.send("POST", PATH, &[("content-type", "text/plain")], "a").await;
    assert_eq!((append.status, append.code().as_str()), (404, "stream_not_found"));
    assert_eq!(fixture.put(PATH, "application/json", "").await.status, 201);
    assert_eq!(fixture.get(PATH).await.body, "[]");
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_answered_on_any_path() {
    let fixture = Fixture::new();
    for path in [PATH, "/v1/stream/__ds/x", "/", "/v1/stream/%2F"] {
        let answer = fixture.send("OPTIONS", path, &[], "").await;
        assert_eq!(answer.status, 204, "{path}");
        assert!(answer.header("access-control-allow-headers").contains("if-none-match"));
        assert!(answer.header("access-control-allow-methods").contains("DELETE"));
    }
}
