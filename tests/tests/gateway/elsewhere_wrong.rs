//! What other servers of the protocol are known to get wrong, or to do in ways of their own. Each is right here.

use futures_util::future::join;
use tailwater_testkit::sse::Payload;

use crate::fixture::{House, eventually};

#[tokio::test]
async fn stream_closed_is_compared_without_case_and_nothing_else_closes() {
    let house = House::start().await;
    let client = house.client();
    for (index, value) in ["true", "TRUE", "True", "tRuE"].iter().enumerate() {
        let (made, posted) = (format!("put-{index}"), format!("post-{index}"));
        assert!(client.put(&made).header("stream-closed", value).send().await.expect(201).is_closed(), "{value}");
        client.create(&posted, "text/plain").await;
        assert!(client.post(&posted).header("stream-closed", value).send().await.expect(204).is_closed(), "{value}");
        assert!(client.head(&posted).send().await.expect(200).is_closed(), "{value}");
    }
    for (index, value) in ["false", "yes", "1", "", "truee", "\"true\""].iter().enumerate() {
        let stream = format!("open-{index}");
        assert!(!client.put(&stream).header("stream-closed", value).send().await.expect(201).is_closed(), "{value}");
        let refused = client.post(&stream).header("stream-closed", value).send().await;
        refused.refused(400, "empty_body");
        client
            .post(&stream)
            .body("application/octet-stream", "a")
            .header("stream-closed", value)
            .send()
            .await
            .expect(204);
        assert!(!client.head(&stream).send().await.is_closed(), "{value}");
    }
}

#[tokio::test]
async fn a_stream_that_is_made_expired_is_created_and_then_not_found() {
    let house = House::start().await;
    let client = house.client();
    let table = [("stream-ttl", "0"), ("stream-expires-at", "2001-01-01T00:00:00Z")];
    for (name, value) in table {
        client.put(name).header(name, value).send().await.expect(201);
        eventually("it has expired", || async { client.head(name).send().await.status == 404 }).await;
        client.get(name).send().await.refused(404, "stream_not_found");
        client.post(name).body("application/octet-stream", "a").send().await.refused(404, "stream_not_found");
        client.put(name).body("text/plain", "anew").send().await.expect(201);
        assert_eq!(client.read(name).await, "anew");
    }
}

#[tokio::test]
async fn a_lifetime_is_rfc_3339_or_a_number_that_fits() {
    let house = House::start().await;
    let client = house.client();
    let table = [
        ("stream-expires-at", "2099-01-01", "invalid_expires_at"),
        ("stream-expires-at", "2099-01-01 00:00:00Z", "invalid_expires_at"),
        ("stream-expires-at", "2099-01-01T00:00:00", "invalid_expires_at"),
        ("stream-expires-at", "4070908800", "invalid_expires_at"),
        ("stream-ttl", "99999999999999999999", "invalid_ttl"),
        ("stream-ttl", "00060", "invalid_ttl"),
        ("stream-ttl", "+60", "invalid_ttl"),
        ("stream-ttl", "60.5", "invalid_ttl"),
        ("stream-ttl", "1e3", "invalid_ttl"),
        ("stream-ttl", "-1", "invalid_ttl"),
    ];
    for (name, value, code) in table {
        client.put("s").header(name, value).send().await.refused(400, code);
        client.head("s").send().await.expect(404);
    }
    let zone = client.put("z").header("stream-expires-at", "2099-01-01T02:00:00+02:00").send().await.expect(201);
    assert!(zone.header("location").is_some());
    let head = client.head("z").send().await.expect(200);
    assert_eq!(head.header("stream-expires-at"), Some("2099-01-01T00:00:00Z"));
}

#[tokio::test]
async fn json_comes_back_byte_for_byte() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "application/json").await;
    let values = [
        "12345678901234567890",
        "1.0",
        "1e2",
        "-0.0",
        r#"{"a":1,"a":2}"#,
        r#""\u00e9\/""#,
        r#"{ "spaced" : [ 1 , 2 ] }"#,
        r#"{"z":1,"a":2}"#,
        "\"\u{2028}é😀\"",
    ];
    for value in values {
        client.post("s").json(value).send().await.expect(204);
    }
    client.post("s").json(format!(" [ {} ] ", values.join(" , "))).send().await.expect(204);
    let expected = format!("[{},{}]", values.join(","), values.join(","));
    assert_eq!(client.read("s").await, expected);
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Json).await;
    reader.until_up_to_date().await;
    assert_eq!(format!("[{}]", reader.text()), expected);
}

#[tokio::test]
async fn json_that_is_not_utf_8_is_refused() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "application/json").await;
    for body in [b"\"\xff\"".as_slice(), b"\"\xed\xa0\x80\"", b"\"\xc0\xaf\"", b"[\"a\",\"\xe2\x82\"]"] {
        client.post("s").json(body.to_vec()).send().await.refused(400, "invalid_json");
        client.put("new").json(body.to_vec()).send().await.refused(400, "invalid_json");
    }
    assert_eq!(client.read("s").await, "[]");
    client.head("new").send().await.expect(404);
}

#[tokio::test]
async fn a_character_split_over_two_appends_is_whole_in_server_sent_events() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_up_to_date().await;
    client.post("s").text(b"a\xe2\x82".to_vec()).send().await.expect(204);
    client.post("s").text(b"\xac.".to_vec()).send().await.expect(204);
    reader.until_data("a€.").await;
    let mut late = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    late.until_up_to_date().await;
    assert_eq!(late.text(), "a€.");
}

#[tokio::test]
async fn catch_up_may_be_cached() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    client.append("s", "a").await;
    let answer = client.get("s?offset=-1").send().await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60, stale-while-revalidate=300"));
}

#[tokio::test]
async fn an_unknown_live_mode_is_refused() {
    let house = House::start().await;
    house.client().create("s", "text/plain").await;
    for live in ["bogus", "", "SSE", "true", "long_poll", "longpoll"] {
        let answer = house.client().get(&format!("s?offset=-1&live={live}")).send().await;
        answer.refused(400, "invalid_live");
    }
}

#[tokio::test]
async fn the_last_control_event_of_a_closed_stream_says_both_up_to_date_and_closed() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
    reader.until_up_to_date().await;
    let answer = client.post("s").text("end").header("stream-closed", "true").send().await.expect(204);
    assert!(answer.is_closed());
    let last = reader.until_closed().await;
    assert_eq!((reader.text(), &last.next), ("end", &answer.next()));
    let raw = String::from_utf8(reader.raw).unwrap();
    let after_data = raw.split_once("data:end\n\n").unwrap().1;
    assert_eq!(after_data.matches("event:").count(), 1, "closure comes with the data: {after_data}");
    assert!(after_data.contains("\"upToDate\":true") && after_data.contains("\"streamClosed\":true"), "{after_data}");
}

#[tokio::test]
async fn a_read_beyond_the_tail_is_refused_and_not_answered_with_another_offset() {
    let house = House::start().await;
    let tail = house.client().create("s", "text/plain").await;
    let beyond = tail.replace("_0", "_9");
    house.client().get(&format!("s?offset={beyond}")).send().await.refused(400, "offset_beyond_tail");
}

#[tokio::test]
async fn a_long_poll_whose_stream_is_deleted_is_answered_404() {
    let house = House::start().await;
    let client = house.client();
    let tail = client.create("s", "text/plain").await;
    let waits = async {
        let target = format!("s?offset={tail}&live=long-poll");
        client.get(&target).send().await.refused(404, "stream_not_found");
    };
    let deletes = async {
        eventually("it waits", || async { client.metric("tailwater_http_long_polls").await == 1.0 }).await;
        client.delete("s").send().await.expect(204);
    };
    join(waits, deletes).await;
}

#[tokio::test]
async fn a_long_poll_that_is_woken_by_append_and_close_says_closed_with_the_data() {
    let house = House::start().await;
    let client = house.client();
    let tail = client.create("s", "text/plain").await;
    let waits = async {
        let answer = client.get(&format!("s?offset={tail}&live=long-poll")).send().await.expect(200);
        assert_eq!((answer.text(), answer.is_closed()), ("end", true));
        assert!(answer.header("stream-up-to-date").is_some());
    };
    let closes = async {
        eventually("it waits", || async { client.metric("tailwater_http_long_polls").await == 1.0 }).await;
        client.post("s").text("end").header("stream-closed", "true").send().await.expect(204);
    };
    join(waits, closes).await;
}

#[tokio::test]
async fn preflights_are_answered_on_every_path_with_all_of_cors() {
    let house = House::start().await;
    for target in ["/v1/stream/missing", "/v1/stream/a/b/c", "/v1/stream/__ds/x", "/health", "/nowhere", "/"] {
        let answer = house.client().ask(http::Method::OPTIONS, target).header("origin", "http://page.example");
        let answer = answer.header("access-control-request-method", "PUT").send().await.expect(204);
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
            assert!(answer.header("access-control-allow-methods").unwrap().contains(method), "{target}");
        }
        let allowed: Vec<_> = answer.header("access-control-allow-headers").unwrap().split(", ").collect();
        for name in ["content-type", "if-none-match", "stream-closed", "stream-seq", "producer-id", "last-event-id"] {
            assert!(allowed.contains(&name), "{target}: {name}");
        }
    }
}

#[tokio::test]
async fn health_is_answered() {
    let house = House::start().await;
    assert_eq!(house.client().get("/health").send().await.expect(200).text(), "ok\n");
}

#[tokio::test]
async fn leading_zeros_of_an_epoch_are_taken_as_the_number_they_are() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let spelled = [("producer-id", "p"), ("producer-epoch", "007"), ("producer-seq", "00")];
    let answer = client.post("s").text("a").headers(&spelled).send().await.expect(200);
    assert_eq!((answer.header("producer-epoch"), answer.header("producer-seq")), (Some("7"), Some("0")));
    client.post("s").text("a").producer("p", 7, 0).send().await.expect(204);
}

#[tokio::test]
async fn closure_is_part_of_what_a_put_compares() {
    let house = House::start().await;
    let client = house.client();
    let put = |stream: &str, closed: bool| {
        let ask = client.put(stream).header("content-type", "text/plain");
        if closed { ask.header("stream-closed", "true").send() } else { ask.send() }
    };
    put("open", false).await.expect(201);
    put("closed", true).await.expect(201);
    put("open", false).await.expect(200);
    put("open", true).await.refused(409, "closed_conflict");
    put("closed", false).await.refused(409, "closed_conflict");
    assert!(put("closed", true).await.expect(200).is_closed());
    assert!(!client.head("open").send().await.is_closed(), "a refused put closes nothing");
}

#[tokio::test]
async fn a_charset_is_no_part_of_the_comparison_and_comes_back_as_it_was_sent() {
    let house = House::start().await;
    let client = house.client();
    let made = client.put("s").header("content-type", "Text/Plain; charset=UTF-8").send().await.expect(201);
    assert_eq!(made.header("content-type"), Some("Text/Plain; charset=UTF-8"));
    client.put("s").header("content-type", "text/plain").send().await.expect(200);
    client.append("s", "a").await;
    for answer in [client.get("s").send().await, client.head("s").send().await] {
        assert_eq!(answer.header("content-type"), Some("Text/Plain; charset=UTF-8"));
    }
}

#[tokio::test]
async fn stream_seqs_are_bytes_in_lexicographic_order_and_an_empty_one_is_the_least() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "text/plain").await;
    let table =
        [("09", true), ("10", true), ("5", true), ("", false), ("5", false), ("10", false), ("a", true), ("B", false)];
    for (seq, taken) in table {
        let answer = client.post("s").text(".").header("stream-seq", seq).send().await;
        if taken {
            answer.expect(204)
        } else {
            answer.refused(409, "stream_seq_not_greater")
        };
    }
    assert_eq!(client.read("s").await, "....");
}

#[tokio::test]
async fn white_space_is_no_json_and_a_put_of_bad_json_creates_nothing() {
    let house = House::start().await;
    let client = house.client();
    client.create("s", "application/json").await;
    for body in [" ", "\n\t ", "{", "[1,]", "nul", "1 2", "'a'", "\u{feff}1", "NaN"] {
        client.post("s").json(body).send().await.refused(400, "invalid_json");
        client.put("new").json(body).send().await.refused(400, "invalid_json");
        client.head("new").send().await.expect(404);
    }
    client.post("s").json("[ ]").send().await.refused(400, "empty_array");
    client.put("new").json("[]").send().await.expect(201);
    assert_eq!(client.read("new").await, "[]");
}

#[tokio::test]
async fn names_keep_their_escapes_in_the_location_and_encoded_slashes_are_refused() {
    let house = House::start().await;
    let client = house.client();
    let made = client.put("project/a%20b/c%3Fd").header("content-type", "text/plain").send().await.expect(201);
    let url = format!("http://{}/v1/stream/project/a%20b/c%3Fd", client.addr());
    assert_eq!(made.header("location"), Some(url.as_str()));
    client.append("project/a%20b/c%3Fd", "x").await;
    assert_eq!(client.read("project/%61%20b/c%3fd").await, "x", "one name, however it is spelled");
    client.put("project/a%2Fb").send().await.refused(400, "invalid_stream_name");
}
