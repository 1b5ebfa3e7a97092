//! What bad input gets: a status and a code that names the field, and nothing is written.

use http::Method;

use crate::fixture::House;

type Headers = &'static [(&'static str, &'static str)];

/// Headers that neither a `PUT` nor a `POST` takes.
const MALFORMED: &[(Headers, &str)] = &[
    (&[("content-type", "nonsense")], "invalid_content_type"),
    (&[("content-type", "text/")], "invalid_content_type"),
    (&[("content-type", "")], "invalid_content_type"),
    (&[("content-type", "text/plain"), ("content-type", "text/plain")], "repeated_header"),
    (&[("content-type", "text/plain"), ("stream-closed", "true"), ("stream-closed", "true")], "repeated_header"),
];

const MALFORMED_PUT: &[(Headers, &str)] = &[
    (&[("stream-ttl", "abc")], "invalid_ttl"),
    (&[("stream-ttl", "")], "invalid_ttl"),
    (&[("stream-ttl", "1"), ("stream-ttl", "1")], "repeated_header"),
    (&[("stream-expires-at", "tomorrow")], "invalid_expires_at"),
    (&[("stream-ttl", "60"), ("stream-expires-at", "2099-01-01T00:00:00Z")], "conflicting_lifetime"),
    (&[("stream-forked-from", "elsewhere")], "invalid_forked_from"),
    (&[("stream-forked-from", "http://other/v1/stream/s")], "invalid_forked_from"),
    (&[("stream-forked-from", "/v1/stream/s/../x")], "invalid_forked_from"),
    (&[("stream-fork-offset", "-1")], "missing_forked_from"),
    (&[("stream-fork-sub-offset", "0")], "missing_forked_from"),
    (&[("stream-forked-from", "/v1/stream/s"), ("stream-fork-offset", "soon")], "invalid_fork_offset"),
    (&[("stream-forked-from", "/v1/stream/s"), ("stream-fork-sub-offset", "-1")], "invalid_fork_sub_offset"),
    (&[("stream-forked-from", "/v1/stream/s"), ("stream-fork-sub-offset", "05")], "invalid_fork_sub_offset"),
    (&[("stream-forked-from", "/v1/stream/s"), ("stream-fork-sub-offset", "+1")], "invalid_fork_sub_offset"),
    (&[("stream-forked-from", "/v1/stream/s"), ("stream-fork-sub-offset", "1.5")], "invalid_fork_sub_offset"),
];

const PRODUCER: [&str; 3] = ["producer-id", "producer-epoch", "producer-seq"];

const MALFORMED_PRODUCER: &[([&str; 3], &str)] = &[
    (["", "0", "0"], "invalid_producer_id"),
    (["p", "1abc", "0"], "invalid_producer_epoch"),
    (["p", "-1", "0"], "invalid_producer_epoch"),
    (["p", "9007199254740992", "0"], "invalid_producer_epoch"),
    (["p", "", "0"], "invalid_producer_epoch"),
    (["p", "0", "0xyz"], "invalid_producer_seq"),
    (["p", "0", "1e3"], "invalid_producer_seq"),
    (["p", "0", "+1"], "invalid_producer_seq"),
    (["p", "0", "9007199254740992"], "invalid_producer_seq"),
];

#[tokio::test]
async fn a_malformed_header_of_a_put_is_named_and_leaves_no_stream_behind() {
    let house = House::start().await;
    let client = house.client();
    client.put("s").body("text/plain", "source").send().await.expect(201);
    for (headers, code) in MALFORMED.iter().chain(MALFORMED_PUT) {
        let answer = client.put("new").headers(headers).send().await.refused(400, code);
        if *code == "repeated_header" {
            assert!(headers.iter().any(|(name, _)| answer.json()["field"] == *name), "{headers:?}");
        }
        client.head("new").send().await.expect(404);
    }
    client.delete("s").send().await.expect(204);
    client.get("s").send().await.refused(404, "stream_not_found");
}

#[tokio::test]
async fn a_malformed_header_of_a_post_is_named_and_writes_nothing() {
    let house = House::start().await;
    let client = house.client();
    let tail = client.create("s", "text/plain").await;
    for (headers, code) in MALFORMED {
        // The body's own content type would be one more.
        let mut ask = client.post("s").chunked("text/plain", vec!["a".into()]);
        ask = if headers.iter().filter(|(name, _)| *name == "content-type").count() == 1 && headers.len() == 1 {
            ask.replace(headers)
        } else {
            ask.headers(headers)
        };
        ask.send().await.refused(400, code);
    }
    for (values, code) in MALFORMED_PRODUCER {
        let pairs: Vec<_> = PRODUCER.into_iter().zip(*values).collect();
        client.post("s").text("a").headers(&pairs).send().await.refused(400, code);
    }
    for missing in PRODUCER {
        let given: Vec<_> = PRODUCER.into_iter().filter(|name| *name != missing).map(|name| (name, "0")).collect();
        client.post("s").text("a").headers(&given).send().await.refused(400, "incomplete_producer");
        client.post("s").text("a").header(missing, "0").send().await.refused(400, "incomplete_producer");
    }
    for name in PRODUCER.into_iter().chain(["stream-seq"]) {
        let ask = client.post("s").text("a").producer("p", 0, 0).header("stream-seq", "1").header(name, "0");
        ask.send().await.refused(400, "repeated_header");
    }
    let long = "x".repeat(257);
    client.post("s").text("a").header("stream-seq", &long).send().await.refused(400, "invalid_stream_seq");
    client.post("s").text("a").producer(&long, 0, 0).send().await.refused(400, "invalid_producer_id");
    client.post("s").text("a").producer("p", 0, 0).header("producer-id", "q").send().await.expect(400);

    assert_eq!(client.head("s").send().await.next(), tail, "nothing was written");
    client.post("s").text("a").producer("p", 0, 0).header("stream-seq", "0").send().await.expect(200);
}

#[tokio::test]
async fn an_append_needs_a_body_of_the_streams_content_type() {
    let house = House::start().await;
    let client = house.client();
    let tail = client.create("s", "text/plain").await;
    client.post("s").send().await.refused(400, "empty_body");
    client.post("s").header("content-type", "text/plain").send().await.refused(400, "empty_body");
    client.post("s").producer("p", 0, 0).send().await.refused(400, "empty_body");
    client.post("s").text("a").replace(&[]).send().await.refused(400, "missing_content_type");
    client.post("s").body("text/html", "a").send().await.refused(409, "content_type_mismatch");
    client.post("s").json("1").producer("p", 0, 0).send().await.refused(409, "content_type_mismatch");
    assert_eq!(client.head("s").send().await.next(), tail);
    client.post("s").body("TEXT/PLAIN; a=b", "a").send().await.expect(204);
}

#[tokio::test]
async fn malformed_offsets_are_refused_in_every_mode() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let offsets = ["", "0", "abc", "-2", "a,b", "a/b", "..", "a%20b", "%00", "%0D%0A", "%FF", "-1%20", "NOW", "1_2"];
    for offset in offsets {
        for live in ["", "&live=long-poll", "&live=sse"] {
            client.get(&format!("s?offset={offset}{live}")).send().await.refused(400, "invalid_offset");
        }
    }
    client.get("s?offset=-1&offset=-1").send().await.refused(400, "duplicate_offset");
    client.get("s?offset=-1&live=sse&live=sse").send().await.refused(400, "duplicate_live");
    client.get("s?live=sse").send().await.refused(400, "missing_offset");
    client.get("s?live=long-poll").send().await.refused(400, "missing_offset");
    client.get("s?offset=-1&unknown=x&y").send().await.expect(200);
}

#[tokio::test]
async fn malformed_names_are_refused_with_every_method() {
    let house = House::start().await;
    let table = [
        ("/v1/stream/", "invalid_stream_name"),
        ("/v1/stream/a//b", "invalid_stream_name"),
        ("/v1/stream/a/", "invalid_stream_name"),
        ("/v1/stream/a/./b", "invalid_stream_name"),
        ("/v1/stream/a/%2e%2e/b", "invalid_stream_name"),
        ("/v1/stream/a/b%00", "invalid_stream_name"),
        ("/v1/stream/a/b%0a", "invalid_stream_name"),
        ("/v1/stream/a/b%zz", "invalid_stream_name"),
        ("/v1/stream/a/b%ff", "invalid_stream_name"),
        ("/v1/stream/admin/b", "invalid_project"),
        ("/v1/stream/_a/b", "invalid_project"),
        ("/v1/stream/a%20b/c", "invalid_project"),
    ];
    for (target, code) in table {
        for method in [Method::PUT, Method::POST, Method::GET, Method::DELETE] {
            let ask = house.client().ask(method, target).body("text/plain", "a");
            ask.send().await.refused(400, code);
        }
        house.client().head(target).send().await.expect(400);
    }
    let long = format!("/v1/stream/p/{}", "x".repeat(401));
    house.client().put(&long).send().await.refused(400, "invalid_stream_name");
    for name in ["/v1/stream/__ds/subscriptions/a", "/v1/stream/__ds"] {
        for method in [Method::PUT, Method::POST, Method::GET, Method::DELETE] {
            house.client().ask(method, name).send().await.refused(501, "reserved_name");
        }
    }
}

#[tokio::test]
async fn what_is_not_served_is_404_or_405() {
    let house = House::start().await;
    let client = house.client();
    for target in ["/", "/v1", "/v1/streams/a", "/nowhere"] {
        client.get(target).send().await.refused(404, "not_found");
    }
    let patch = client.ask(Method::PATCH, "s").send().await.refused(405, "method_not_allowed");
    assert_eq!(patch.header("allow"), Some("GET, HEAD, PUT, POST, DELETE, OPTIONS"));
    client.ask(Method::POST, "/health").send().await.refused(405, "method_not_allowed");
    client.ask(Method::DELETE, "/metrics").send().await.refused(405, "method_not_allowed");
}

#[tokio::test]
async fn a_missing_stream_is_404_however_it_is_asked() {
    let house = House::start().await;
    let client = house.client();
    for target in ["s", "s?offset=-1", "s?offset=now", "s?offset=now&live=sse", "s?offset=-1&live=long-poll"] {
        client.get(target).send().await.refused(404, "stream_not_found");
    }
    client.post("s").text("a").send().await.refused(404, "stream_not_found");
    client.post("s").header("stream-closed", "true").send().await.refused(404, "stream_not_found");
    client.delete("s").send().await.refused(404, "stream_not_found");
    client.head("s").send().await.expect(404);
    assert_eq!(house.store.sessions.counts().opened, 0, "and nobody looks for it at length");
}

#[tokio::test]
async fn a_put_that_conflicts_names_what_differs_and_changes_nothing() {
    let house = House::start().await;
    let client = house.client();
    let put = |headers: Headers| client.put("s").headers(headers).send();
    put(&[("content-type", "text/plain"), ("stream-ttl", "3600")]).await.expect(201);
    put(&[("content-type", "TEXT/plain"), ("stream-ttl", "3600")]).await.expect(200);
    put(&[("content-type", "text/html"), ("stream-ttl", "3600")]).await.refused(409, "content_type_conflict");
    put(&[("content-type", "text/plain"), ("stream-ttl", "60")]).await.refused(409, "lifetime_conflict");
    put(&[("content-type", "text/plain")]).await.refused(409, "lifetime_conflict");
    let head = client.head("s").send().await.expect(200);
    assert_eq!((head.header("stream-ttl"), head.header("content-type")), (Some("3600"), Some("text/plain")));
}

#[tokio::test]
async fn a_fork_that_cannot_be_made_leaves_no_reference_on_its_source() {
    let house = House::start().await;
    let client = house.client();
    client.put("s").body("text/plain", "abc").send().await.expect(201);
    let from = ("stream-forked-from", "/v1/stream/s");
    let table: [(Headers, u16, &str); 3] = [
        (&[("content-type", "text/html")], 409, "content_type_conflict"),
        (&[("stream-fork-offset", "9999999999999999_9999999999999999")], 400, "fork_offset_beyond_tail"),
        (&[("stream-fork-sub-offset", "7")], 400, "fork_sub_offset_beyond"),
    ];
    for (headers, status, code) in table {
        client.put("f").headers(&[from]).headers(headers).send().await.refused(status, code);
        client.head("f").send().await.expect(404);
    }
    client.put("f").header(from.0, "/v1/stream/missing").send().await.refused(404, "fork_source_not_found");
    client.delete("s").send().await.expect(204);
    client.head("s").send().await.expect(404);
    client.put("s").body("text/plain", "anew").send().await.expect(201);
}

#[tokio::test]
async fn a_deleted_source_with_forks_is_gone_until_the_last_fork_goes() {
    let house = House::start().await;
    let client = house.client();
    client.put("s").body("text/plain", "abc").send().await.expect(201);
    client.put("f").header("stream-forked-from", "/v1/stream/s").send().await.expect(201);
    client.delete("s").send().await.expect(204);
    client.get("s").send().await.refused(410, "stream_deleted");
    client.post("s").text("d").send().await.refused(410, "stream_deleted");
    client.delete("s").send().await.refused(410, "stream_deleted");
    client.put("s").header("content-type", "text/plain").send().await.refused(409, "deleted_conflict");
    client.put("g").header("stream-forked-from", "/v1/stream/s").send().await.refused(409, "fork_source_deleted");
    assert_eq!(client.read("f").await, "abc");
    client.delete("f").send().await.expect(204);
    crate::fixture::eventually("the source goes", || async { client.head("s").send().await.status == 404 }).await;
    client.put("s").body("text/plain", "anew").send().await.expect(201);
}
