//! Streams that S2's own clients write, read through the gateway, and the other way round.

use bytes::Bytes;
use tailwater_log::{NewRecord, Record};
use tailwater_s2::S2Upstream;
use tailwater_testkit::sse::Payload;
use tailwater_upstream::{Append, ReadFrom, StreamKey, Upstream as _};

use crate::fixture::{Pair, eventually};

const BINARY: &str = "application/octet-stream";

fn key() -> StreamKey {
    StreamKey::new("default", "s")
}

/// Appends as a client of S2 does that knows nothing of gateways.
async fn write(upstream: &S2Upstream, bodies: &[&str]) {
    let records = bodies.iter().map(|body| NewRecord::message(Bytes::copy_from_slice(body.as_bytes()))).collect();
    upstream.append(&key(), Append::new(records)).await.unwrap();
}

async fn records(upstream: &S2Upstream) -> Vec<Record> {
    upstream.read(&key(), ReadFrom::Seq(0), 1000).await.unwrap().records
}

#[tokio::test]
async fn what_a_native_client_writes_is_read_through_the_gateway() {
    let pair = Pair::start().await;
    let (client, upstream) = (&pair.a.client, &pair.b.upstream);
    write(upstream, &["a", "b"]).await;
    let answer = client.get("s?offset=-1").send().await.expect(200);
    assert_eq!((answer.text(), answer.header("content-type")), ("ab", Some(BINARY)));
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Binary).await;
    reader.until_data("ab").await;
    write(upstream, &["c"]).await;
    reader.until_data("abc").await;
    assert_eq!(records(upstream).await.len(), 3, "reading writes nothing");
    assert_eq!(client.read_from("s", &answer.next()).await, b"c");
}

#[tokio::test]
async fn a_native_stream_goes_on_when_the_gateway_writes_to_it_too() {
    let pair = Pair::start().await;
    let (client, upstream) = (&pair.a.client, &pair.b.upstream);
    write(upstream, &["a", "b"]).await;
    let native = client.get("s?offset=-1").send().await.expect(200).next();
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Binary).await;
    reader.until_data("ab").await;
    client.post("s").body(BINARY, "c").send().await.expect(204);
    write(upstream, &["d"]).await;
    client.post("s").body(BINARY, "e").producer("p", 0, 0).send().await.expect(200);
    reader.until_data("abcde").await;
    for client in [client, &pair.b.client] {
        assert_eq!(client.read_from("s", "-1").await, b"abcde");
        assert_eq!(client.read_from("s", &native).await, b"cde", "offsets of before still hold");
    }
}

#[tokio::test]
async fn what_the_gateway_writes_is_read_by_a_native_client() {
    let pair = Pair::start().await;
    let (client, upstream) = (&pair.a.client, &pair.b.upstream);
    client.put("s").json("[1,2]").send().await.expect(201);
    client.post("s").json("{\"a\":3}").send().await.expect(204);
    client.post("s").json("[4,5]").producer("p", 0, 0).send().await.expect(200);
    let records = records(upstream).await;
    let bodies: Vec<&str> = records.iter().filter_map(|record| std::str::from_utf8(&record.body).ok()).collect();
    let mut rest = bodies.iter();
    for message in ["1", "2", "{\"a\":3}", "4", "5"] {
        assert!(rest.any(|body| *body == message), "{message} in order in {bodies:?}");
    }
}

#[tokio::test]
async fn a_native_record_that_is_no_json_is_skipped_and_counted() {
    let pair = Pair::start().await;
    let (client, upstream) = (&pair.a.client, &pair.a.upstream);
    client.put("s").json("[1]").send().await.expect(201);
    let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Json).await;
    reader.until_data("1").await;
    write(upstream, &["2", "no json", "[3"]).await;
    client.post("s").json("4").send().await.expect(204);
    reader.until_data("4").await;
    assert_eq!(reader.text(), "1,2,4");
    assert_eq!(pair.b.client.read("s").await, "[1,2,4]");
    assert!(client.metric("tailwater_unserved_records_total").await >= 2.0);
}

#[tokio::test]
async fn what_a_native_client_writes_after_the_close_is_not_served() {
    let pair = Pair::start().await;
    let (client, upstream) = (&pair.a.client, &pair.a.upstream);
    client.create("s", "text/plain").await;
    client.append("s", "a").await;
    let end = client.close("s").await;
    write(upstream, &["late"]).await;
    for client in [client, &pair.b.client] {
        assert_eq!(client.read("s").await, "a");
        let head = client.head("s").send().await.expect(200);
        assert!(head.is_closed() && head.next() == end);
        let mut reader = client.get("s?offset=-1&live=sse").follow(Payload::Text).await;
        reader.until_closed().await;
        assert_eq!(reader.text(), "a");
    }
    eventually("it is counted", || async { client.metric("tailwater_unserved_records_total").await >= 1.0 }).await;
}

#[tokio::test]
async fn a_stream_that_a_native_writer_has_fenced_is_read_and_not_written() {
    let pair = Pair::start().await;
    let (client, upstream) = (&pair.a.client, &pair.b.upstream);
    write(upstream, &["a"]).await;
    upstream.append(&key(), Append::new(vec![NewRecord::fence("mine")])).await.unwrap();
    client.post("s").body(BINARY, "b").send().await.refused(409, "stream_fenced");
    client.delete("s").send().await.refused(409, "stream_fenced");
    assert_eq!(client.read("s").await, "a");
}
