//! What bad input gets, and what is served beside streams.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use futures_util::stream;
use tailwater_server::Config;
use tailwater_testkit::fault::Outage;
use tokio::time::{Instant, sleep};

use crate::fixture::Fixture;

const PATH: &str = "/v1/stream/s";

#[tokio::test(start_paused = true)]
async fn every_malformed_request_gets_the_code_of_its_field() {
    let fixture = Fixture::new();
    fixture.put(PATH, "application/json", "").await;
    let json = ("content-type", "application/json");
    let incomplete = [json, ("producer-id", "p"), ("producer-epoch", "0")];
    let epoch = [json, ("producer-id", "p"), ("producer-epoch", "1e3"), ("producer-seq", "0")];
    let table: [(&str, &str, &[_], &str, u16, &str); 18] = [
        ("GET", "?offset=", &[], "", 400, "invalid_offset"),
        ("GET", "?offset=1,2", &[], "", 400, "invalid_offset"),
        ("GET", "?offset=-1&offset=-1", &[], "", 400, "duplicate_offset"),
        ("GET", "?offset=9999999999999999_9999999999999999", &[], "", 400, "offset_beyond_tail"),
        ("GET", "?live=sse", &[], "", 400, "missing_offset"),
        ("GET", "?live=bogus&offset=-1", &[], "", 400, "invalid_live"),
        ("GET", "/../x", &[], "", 400, "invalid_stream_name"),
        ("GET", "//x", &[], "", 400, "invalid_stream_name"),
        ("POST", "", &[json], "", 400, "empty_body"),
        ("POST", "", &[], "1", 400, "missing_content_type"),
        ("POST", "", &[json], "{", 400, "invalid_json"),
        ("POST", "", &[json], " [ ] ", 400, "empty_array"),
        ("POST", "", &incomplete, "1", 400, "incomplete_producer"),
        ("POST", "", &epoch, "1", 400, "invalid_producer_epoch"),
        ("POST", "", &[json, json], "1", 400, "repeated_header"),
        ("POST", "", &[json, ("content-encoding", "gzip")], "1", 415, "content_encoding_not_supported"),
        ("POST", "", &[("content-type", "text/plain")], "1", 409, "content_type_mismatch"),
        ("PATCH", "", &[], "", 405, "method_not_allowed"),
    ];
    for (method, rest, headers, body, status, code) in table {
        let answer = fixture.send(method, &format!("{PATH}{rest}"), headers, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {rest} {headers:?} {body}");
    }
    assert_eq!(fixture.get(PATH).await.body, "[]", "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_taken_up_to_the_limit() {
    let fixture = Fixture::with(Config { max_body: 4, ..Config::default() }, Default::default());
    fixture.put(PATH, "text/plain", "").await;
    fixture.post(PATH, "text/plain", "four").await;
    let refused = fixture.send("POST", PATH, &[("content-type", "text/plain")], "fives").await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "body_too_large"));
    assert_eq!(fixture.get(PATH).await.body, "four");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_for_ever_is_ended_after_ten_minutes() {
    let fixture = Fixture::new();
    fixture.put(PATH, "text/plain", "").await;
    for (method, path) in [("POST", PATH), ("PUT", "/v1/stream/new")] {
        let drips = stream::unfold((), |()| async {
            // It never stands still for as long as it may.
            sleep(Config::default().body_timeout - Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>("a"), ()))
        });
        let began = Instant::now();
        let refused = fixture.send(method, path, &[("content-type", "text/plain")], Body::from_stream(drips)).await;
        assert_eq!((refused.status, refused.code().as_str()), (408, "body_timeout"), "{method}");
        assert_eq!(began.elapsed().as_secs(), 600, "{method}");
    }
    assert!(fixture.metric("tailwater_connections_cut_total{reason=\"body_timeout\"} 2"));
    assert_eq!(fixture.get(PATH).await.body, "", "nothing was written");
    assert_eq!(fixture.get("/v1/stream/new").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn the_protocols_own_paths_are_reserved_and_others_are_not_found() {
    let fixture = Fixture::new();
    for path in ["/v1/stream/__ds", "/v1/stream/__ds/subscriptions/1", "/v1/stream/p/__ds/x"] {
        for method in ["GET", "PUT", "POST", "DELETE"] {
            let answer = fixture.send(method, path, &[], "").await;
            assert_eq!((answer.status, answer.code().as_str()), (501, "reserved_name"), "{method} {path}");
        }
    }
    for path in ["/", "/v1", "/v1/stream", "/healthz"] {
        assert_eq!(fixture.get(path).await.code(), "not_found", "{path}");
    }
    assert_eq!(fixture.get("/v1/stream/").await.code(), "invalid_stream_name");
    assert_eq!(fixture.send("POST", "/health", &[], "").await.header("allow"), "GET, HEAD, OPTIONS");
}

#[tokio::test(start_paused = true)]
async fn a_process_is_ready_until_it_drains_and_alive_until_it_ends() {
    let fixture = Fixture::new();
    for path in ["/health", "/readyz"] {
        assert_eq!(fixture.get(path).await.status, 200, "{path}");
    }
    assert_eq!(fixture.send("HEAD", "/health", &[], "").await.status, 200);
    let metrics = fixture.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert!(String::from_utf8_lossy(&metrics.body).contains("tailwater_http_requests_total"));
    fixture.app.drain().begin();
    assert_eq!(fixture.probe("/readyz").await, 503);
    assert_eq!(fixture.probe("/health").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_store_is_away_is_not_ready_and_says_when_to_come_back() {
    let fixture = Fixture::new();
    fixture.put(PATH, "text/plain", "").await;
    fixture.upstream.set_outage(Outage::Refusing);
    assert_eq!(fixture.probe("/readyz").await, 503);
    let refused = fixture.send("POST", PATH, &[("content-type", "text/plain")], "a").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert!(["store_unavailable", "outcome_unknown"].contains(&refused.code().as_str()));
}
