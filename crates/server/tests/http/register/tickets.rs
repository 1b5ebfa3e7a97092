//! What is revoked while somebody reads by a ticket: the ticket, the token that it was got with, or all that is as old.

use super::*;
use crate::{
    rights::PAGE,
    wire::{counted, read_until, request, serve},
};

const PATH: &str = "/v1/stream/filed/s";
/// The id of whatever ticket is issued here: nothing is drawn at random.
const TICKET: &str = "ticket-BwcHBwcHBwcH";

#[tokio::test]
async fn what_is_revoked_ends_what_came_by_ticket_and_nothing_comes_by_it_any_more() {
    let table = [
        (json!({ "id": TICKET }), true),
        (json!({ "id": "reader" }), true),
        (json!({ "before": NOW + 1 }), true),
        (json!({ "id": "another" }), false),
        (json!({ "before": NOW }), false),
    ];
    for delivery_shards in [0, 1] {
        for (what, ends) in &table {
            let config = Config { delivery_shards, ..Config::default() };
            revoked_while_read(&gateway(&store(), config).read().await, delivery_shards, what, *ends).await;
        }
    }
}

async fn revoked_while_read(fixture: &Fixture, delivery_shards: usize, what: &Value, ends: bool) {
    let writer = token_of(&document("filed", "of filed"), "write", Some("writer"), NOW + 1);
    assert_eq!(send(fixture, "PUT", PATH, &writer, "a").await.status, 201);
    let wanted = json!({ "stream": "filed/s", "origin": PAGE });
    let issued = send(fixture, "POST", "/v1/ticket", &filed("read", "reader"), wanted).await.json();
    assert_eq!(issued["id"], TICKET);
    let uri = |query: &str| format!("{PATH}?{query}&ticket={}", issued["ticket"].as_str().unwrap());
    let head = |query: &str| format!("GET {} HTTP/1.1\r\nhost: h\r\norigin: {PAGE}", uri(query));

    let (_server, address) = serve(fixture).await;
    let mut follows = request(address, &head("offset=-1&live=sse")).await;
    read_until(&mut follows, "upToDate").await;
    let mut polls = request(address, &head("offset=now&live=long-poll")).await;
    counted(fixture, "tailwater_http_long_polls 1").await;
    if delivery_shards > 0 {
        counted(fixture, "tailwater_shard_readers 2").await;
    }
    assert_eq!(revoke(fixture, CREDENTIAL, what.clone()).await.status, 200);
    let again = fixture.send("GET", &uri("offset=-1"), &[("origin", PAGE)], "").await;
    if ends {
        let told = read_until(&mut follows, "0\r\n\r\n").await;
        assert!(told.contains("event: unauthorized\ndata:{\"reason\":\"revoked\"}\n"), "{what}: {told}");
        let polled = read_until(&mut polls, "\"reason\":\"revoked\"").await;
        assert!(polled.starts_with("HTTP/1.1 401 "), "{what}: {polled}");
        assert_eq!((again.status, again.code().as_str()), (401, "ticket_refused"), "{what}");
        assert_eq!(again.json()["reason"], "revoked");
    } else {
        assert_eq!(send(fixture, "POST", PATH, &writer, "b").await.status, 204);
        read_until(&mut follows, "data:b\n").await;
        let polled = read_until(&mut polls, "\r\n\r\nb").await;
        assert!(polled.starts_with("HTTP/1.1 200 "), "{what}: {polled}");
        assert_eq!(again.status, 200, "{what}");
    }
}
