//! Whose turn it is when the gateway is nearly full.

use std::num::NonZeroUsize;

use futures_util::{StreamExt as _, future::join};
use tailwater_testkit::{
    Gate,
    fault::{Pause, ReadFault},
};
use tailwater_upstream::StreamKey;
use tokio::sync::oneshot;

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

/// Asks a guarded gateway for something that it is another project's turn to have.
async fn over_share(fixture: &Fixture, who: &str, method: &str, path: &str, body: impl Into<Body>) {
    let refused = send(fixture, who, method, path, body).await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &"over_fair_share".into()));
    assert_eq!(refused.header("retry-after"), "5");
    assert!(refused.headers.get("connection").is_none());
}

#[tokio::test(start_paused = true)]
async fn where_active_streams_are_nearly_used_up_a_greedy_project_is_refused_and_others_are_served() {
    let fanout = tailwater_fanout::Config { max_streams: 10, ..Default::default() };
    let idle = fanout.idle;
    let fixture = on("", Config::default(), fanout);
    let (greedy, modest) = (who("a"), bearer("other", None));
    for n in 0..8 {
        put(&fixture, &format!("/v1/stream/chat/{n}"), "public").await;
    }
    for method in ["PUT", "POST", "GET", "DELETE"] {
        over_share(&fixture, &greedy, method, "/v1/stream/chat/more", "a").await;
    }
    // Names that strangers make up are the project's, whose names they are.
    let stranger = fixture.send("GET", "/v1/stream/chat/made-up", &[], "").await;
    assert_eq!((stranger.status, &stranger.json()["code"]), (503, &"over_fair_share".into()));
    assert!(fixture.metric("tailwater_share_refused_total{shared=\"streams\"} 5"));
    assert!(fixture.metric("tailwater_active_streams 8"));
    // What is active is served, whose it is.
    assert_eq!(send(&fixture, &greedy, "POST", "/v1/stream/chat/0", "a").await.status, 204);
    for path in ["/v1/stream/other/s", "/v1/stream/other/t"] {
        put(&fixture, path, "private").await;
        assert_eq!(send(&fixture, &modest, "GET", path, "").await.status, 200);
    }
    let full = send(&fixture, &modest, "GET", "/v1/stream/other/u", "").await;
    assert_eq!(full.json()["code"], "over_capacity");
    // When its streams are not active any more, it is its turn again.
    advance(idle / 2).await;
    assert_eq!(send(&fixture, &greedy, "GET", "/v1/stream/chat/0", "").await.status, 200);
    sleep(idle * 3 / 4).await;
    assert!(fixture.metric("tailwater_active_streams 1"));
    put(&fixture, "/v1/stream/chat/more", "private").await;
}

#[tokio::test]
async fn where_memory_for_bodies_is_nearly_used_up_a_greedy_project_is_refused_and_others_are_served() {
    let fixture = on("", Config { body_budget: 10 * 1024, ..Config::default() }, Default::default());
    put(&fixture, PATH, "private").await;
    put(&fixture, "/v1/stream/other/s", "private").await;
    let (greedy, modest) = (who("a"), bearer("other", None));
    let ((begun, has_begun), (end, ends)) = (oneshot::channel(), oneshot::channel::<()>());
    let chunk = |length| Ok::<_, Infallible>(Bytes::from(vec![b'a'; length]));
    let rest = async move {
        // What came before it has been taken in.
        begun.send(()).unwrap();
        ends.await.unwrap();
        chunk(1)
    };
    let slow = Body::from_stream(stream::once(async move { chunk(8 * 1024 - 1) }).chain(stream::once(rest)));
    let meanwhile = async {
        has_begun.await.unwrap();
        over_share(&fixture, &greedy, "POST", PATH, "a").await;
        assert!(fixture.metric("tailwater_share_refused_total{shared=\"bodies\"} 1"));
        let ticket = [("authorization", &*greedy), ("content-type", "application/json")];
        let refused = fixture.send("POST", "/v1/ticket", &ticket, "{}").await;
        assert_eq!(refused.json()["code"], "over_fair_share");
        for length in [1024, 2048] {
            assert_eq!(send(&fixture, &modest, "POST", "/v1/stream/other/s", vec![b'a'; length]).await.status, 204);
        }
        end.send(()).unwrap();
    };
    let (slow, ()) = join(send(&fixture, &greedy, "POST", PATH, slow), meanwhile).await;
    assert_eq!(slow.status, 204, "who was let in is served");
    assert_eq!(send(&fixture, &greedy, "POST", PATH, "a").await.status, 204, "it has less than its share");
    // One body may be all that there is, in however many pieces: what it has itself is no reason to refuse it.
    let pieces = Body::from_stream(stream::iter((0..10).map(move |_| chunk(1024))));
    assert_eq!(send(&fixture, &greedy, "POST", PATH, pieces).await.status, 204);
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
