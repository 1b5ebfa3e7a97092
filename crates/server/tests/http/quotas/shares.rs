//! Whose turn it is when the gateway is nearly full.

use std::num::NonZeroUsize;

use tailwater_testkit::{
    Gate,
    fault::{Pause, ReadFault},
};
use tailwater_upstream::StreamKey;

use super::*;
use crate::wire::read_to_end;

#[tokio::test]
async fn where_connections_are_nearly_used_up_a_greedy_project_is_refused_and_others_come_in() {
    let config = Config { max_connections: 10, ..Config::default() };
    // As many as are let in below: who is refused has lost nothing.
    let fixture =
        on("quota = { principal = { requests = { most = 10, within = 1000000 } } }", config, Default::default());
    put(&fixture, PATH, "private").await;
    put(&fixture, "/v1/stream/other/s", "private").await;
    let (_server, address) = serve(&fixture).await;
    let (greedy, modest) =
        (following(&who("a")), { asking(&bearer("other", None), "GET /v1/stream/other/s?offset=-1&live=sse") });
    let mut readers = Vec::new();
    for _ in 0..8 {
        readers.push(reader(address, &greedy).await);
    }
    let refused = read_to_end(&mut request(address, &greedy).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("\"code\":\"over_fair_share\""), "{refused}");
    assert!(refused.contains("http-problem-types#temporary-reduced-capacity"), "{refused}");
    assert!(refused.contains("\r\nconnection: close\r\n") && refused.contains("\r\nretry-after: "), "{refused}");
    let event_source = format!("{greedy}\r\naccept: text/event-stream\r\ncache-control: no-cache");
    let told = read_to_end(&mut request(address, &event_source).await).await;
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("\r\n\r\nid: refused\nretry: "), "{told}");
    assert!(fixture.metric("tailwater_share_refused_total{shared=\"connections\"} 2"));
    counted(&fixture, "tailwater_http_connections 8").await;
    for _ in 0..2 {
        readers.push(reader(address, &modest).await);
    }
    // What is not live takes no place for long, and is let in.
    readers.pop();
    counted(&fixture, "tailwater_http_connections 9").await;
    let mut last = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut last, &asking(&who("a"), "HEAD /v1/stream/chat/s")).await.starts_with("HTTP/1.1 200 "));
    drop(last);
    // When it has less than its share, it is its turn again.
    readers.drain(..4);
    counted(&fixture, "tailwater_http_connections 5").await;
    for _ in 0..3 {
        readers.push(reader(address, &modest).await);
    }
    readers.push(reader(address, &greedy).await);
}

#[tokio::test]
async fn where_requests_are_nearly_used_up_a_greedy_project_is_refused_and_others_are_served() {
    // Live responses are requests as all others then.
    let config = Config { max_requests: 10, delivery_shards: 0, ..Config::default() };
    let fixture = on("", config, Default::default());
    put(&fixture, PATH, "private").await;
    put(&fixture, "/v1/stream/other/s", "private").await;
    let (_server, address) = serve(&fixture).await;
    let mut readers = Vec::new();
    for _ in 0..8 {
        readers.push(reader(address, &following(&who("a"))).await);
    }
    let refused =
        ask(&mut TcpStream::connect(address).await.unwrap(), &asking(&who("b"), "HEAD /v1/stream/chat/s")).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && !refused.contains("connection: close"), "{refused}");
    assert!(fixture.metric("tailwater_share_refused_total{shared=\"requests\"} 1"));
    let served = asking(&bearer("other", None), "HEAD /v1/stream/other/s");
    assert!(ask(&mut TcpStream::connect(address).await.unwrap(), &served).await.starts_with("HTTP/1.1 200 "));
    readers.clear();
    counted(&fixture, "tailwater_http_sse_readers 0").await;
    let head = asking(&who("b"), "HEAD /v1/stream/chat/s");
    assert!(ask(&mut TcpStream::connect(address).await.unwrap(), &head).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn strangers_who_ask_for_what_they_may_not_have_use_up_nothing_of_the_projects_share() {
    let config = Config { max_requests: 10, delivery_shards: 0, ..Config::default() };
    let fixture = on("", config, Default::default());
    put(&fixture, PATH, "private").await;
    let (_server, address) = serve(&fixture).await;
    let gate = Gate::new();
    let mut strangers = Vec::new();
    for n in 0..8 {
        let upstream = &fixture.upstream;
        let key = StreamKey::new("chat", &format!("made-up-{n}"));
        upstream.faults_of(&key).next_tail(ReadFault::PauseBefore(Pause::At(gate.clone())));
        strangers.push(request(address, &format!("GET /v1/stream/chat/made-up-{n} HTTP/1.1\r\nhost: h")).await);
    }
    timeout(LIMIT, gate.arrivals(8)).await.unwrap();
    let head = asking(&who("a"), "HEAD /v1/stream/chat/s");
    let served = ask(&mut TcpStream::connect(address).await.unwrap(), &head).await;
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
    gate.open();
    for stranger in &mut strangers {
        assert!(read_until(stranger, "\r\n\r\n").await.starts_with("HTTP/1.1 401 "));
    }
}

#[tokio::test]
async fn in_open_mode_everything_is_one_project_and_may_have_all() {
    let config = Config { max_connections: 5, max_connections_per_address: NonZeroUsize::new(5), ..Config::default() };
    let fixture = Fixture::with(config, Default::default());
    fixture.put("/v1/stream/s", "text/plain", "a").await;
    let (_server, address) = serve(&fixture).await;
    let mut readers = Vec::new();
    for _ in 0..5 {
        readers.push(reader(address, "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: h").await);
    }
    assert!(fixture.metric("tailwater_http_connections 5"));
}
