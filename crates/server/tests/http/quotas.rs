//! How much a project, and each principal of it, may ask for; and whose turn it is when the gateway is nearly full.

mod shares;

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tailwater_auth::{File, NewToken, Projects, Scopes, mint};
use tailwater_protocol::ProjectId;
use tailwater_server::{Auth, Config, Guard, TrustedProxies};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, advance, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fixture::{Answer, Fixture, NOW_MS},
    wire::{LIMIT, ask, counted, cramped, from, read_until, request, serve},
};

const PATH: &str = "/v1/stream/chat/s";
const PLAIN: (&str, &str) = ("content-type", "text/plain");

/// `chat` with these quotas, and `other` with none.
fn projects(quota: &str) -> Projects {
    let project = |id: &str, quota: &str| {
        let secret = format!("the secret of {id}, and it is long enough");
        format!("[[project]]\nid = '{id}'\n{quota}\n[[project.key]]\nalgorithm = 'HS256'\nsecret = '{secret}'\n")
    };
    let text = project("chat", quota) + &project("other", "origins = ['https://app.example']");
    Projects::parse([File { name: "projects.toml", bytes: text.as_bytes() }]).unwrap()
}

fn on(quota: &str, config: Config, fanout: tailwater_fanout::Config) -> Fixture {
    let auth = Auth::Required(Guard::fixed(projects(quota), Duration::from_secs(30)));
    Fixture::with(Config { auth, ..config }, fanout)
}

fn fixture(quota: &str) -> Fixture {
    on(quota, Config::default(), Default::default())
}

/// The credentials of a token that may read and write, with an id or without.
fn bearer(project: &str, id: Option<&str>) -> String {
    bearer_until(project, id, 1000)
}

/// The same, which expires in so many seconds.
fn bearer_until(project: &str, id: Option<&str>, expires_in: u64) -> String {
    let project = ProjectId::parse(project).unwrap();
    let key = projects("").get(&project).unwrap().keys.first().unwrap().signing().unwrap();
    let now = NOW_MS / 1000;
    let new = NewToken {
        project,
        scopes: Scopes::among(["read", "write"]),
        streams: None,
        issued_at: now - 1000,
        expires_at: now + expires_in,
        not_before: None,
        audience: None,
        issuer: None,
        id: id.map(str::to_owned),
    };
    format!("Bearer {}", mint(&key, &new).unwrap())
}

/// Somebody with a token for `chat`.
fn who(id: &str) -> String {
    bearer("chat", Some(id))
}

async fn put(fixture: &Fixture, path: &str, visibility: &str) {
    let project = path.split('/').nth(3).unwrap();
    let owner = bearer(project, Some("owner"));
    let headers = [("authorization", owner.as_str()), PLAIN, ("stream-visibility", visibility)];
    assert_eq!(fixture.send("PUT", path, &headers, "first").await.status, 201);
}

async fn send(fixture: &Fixture, who: &str, method: &str, path: &str, body: impl Into<Body>) -> Answer {
    fixture.send(method, path, &[("authorization", who), PLAIN], body).await
}

async fn head(fixture: &Fixture, who: &str) -> Answer {
    send(fixture, who, "HEAD", PATH, "").await
}

/// What an answer says is left under a policy.
fn left(answer: &Answer, policy: &str) -> Option<u64> {
    let start = format!("\"{policy}\";r=");
    let rest = answer.header("ratelimit").split(", ").find_map(|item| item.strip_prefix(start.as_str()))?;
    rest.split(';').next().unwrap().parse().ok()
}

/// The request of somebody, for a socket.
fn asking(who: &str, what: &str) -> String {
    format!("{what} HTTP/1.1\r\nhost: h\r\nauthorization: {who}\r\ncontent-type: text/plain")
}

fn following(who: &str) -> String {
    asking(who, "GET /v1/stream/chat/s?offset=-1&live=sse")
}

/// A reader of Server-Sent Events that is up to date.
async fn reader(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = request(address, head).await;
    read_until(&mut stream, "upToDate").await;
    stream
}

/// Waits until so many readers' places are left.
async fn places(fixture: &Fixture, who: &str, left_over: u64) {
    let deadline = Instant::now() + LIMIT;
    while left(&head(fixture, who).await, "readers") != Some(left_over) {
        assert!(Instant::now() < deadline, "never {left_over} left");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_let_in_up_to_the_quota_and_again_when_the_answer_has_said_so() {
    let fixture = fixture("quota = { principal = { requests = { most = 3, within = 30 } } }");
    put(&fixture, PATH, "private").await;
    let (a, b) = (who("a"), who("b"));
    for rest in [2, 1, 0] {
        let answer = head(&fixture, &a).await;
        assert_eq!((answer.status, left(&answer, "requests")), (200, Some(rest)));
        assert_eq!(answer.header("ratelimit-policy"), "\"requests\";q=3;w=30");
    }
    let refused = send(&fixture, &a, "GET", PATH, "").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "quota_exceeded"));
    assert_eq!(refused.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["requests"]));
    assert_eq!((refused.header("ratelimit"), refused.header("retry-after")), ("\"requests\";r=0;t=10", "10"));
    assert_eq!(head(&fixture, &b).await.status, 200, "each has its own");
    assert!(fixture.metric("tailwater_quota_refused_total{holder=\"principal\",metered=\"requests\"} 1"));
    assert!(fixture.metric("tailwater_quota_principals 3"));

    advance(Duration::from_millis(9_900)).await;
    assert_eq!(head(&fixture, &a).await.status, 429);
    advance(Duration::from_millis(100)).await;
    assert_eq!(head(&fixture, &a).await.status, 200, "as soon as was said");
    assert_eq!(head(&fixture, &a).await.status, 429);
    advance(Duration::from_secs(60)).await;
    assert_eq!(left(&head(&fixture, &a).await, "requests"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn all_principals_together_have_no_more_than_the_project_and_are_told_of_it_only_then() {
    let quota = "[project.quota]\nrequests = { most = 4, within = 40 }\n\
                 [project.quota.principal]\nrequests = { most = 3, within = 30 }";
    let fixture = fixture(quota);
    put(&fixture, PATH, "private").await;
    for (id, status) in [("a", 200), ("a", 200), ("b", 200), ("c", 429)] {
        let answer = head(&fixture, &who(id)).await;
        assert_eq!(answer.status, status, "{id}");
        assert_eq!(left(&answer, "project-requests"), (status == 429).then_some(0));
    }
    let refused = send(&fixture, &who("c"), "GET", PATH, "").await;
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["project-requests"]));
    assert_eq!(left(&refused, "requests"), Some(3), "who was refused has lost nothing");
    assert!(fixture.metric("tailwater_quota_refused_total{holder=\"project\",metered=\"requests\"} 2"));
    let other = bearer("other", None);
    assert_eq!(send(&fixture, &other, "HEAD", "/v1/stream/other/s", "").await.status, 404, "another project's");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_declared_are_charged_and_others_are_owed() {
    let fixture = fixture("max-body = 40\nquota = { principal = { bytes = { most = 100, within = 100 } } }");
    put(&fixture, PATH, "private").await;
    let a = who("a");
    let rest = async |method: &str, body: Body, status: u16| {
        let answer = send(&fixture, &a, method, PATH, body).await;
        assert_eq!(answer.status, status, "{:?}", answer.body);
        left(&answer, "bytes").unwrap()
    };
    assert_eq!(rest("POST", "x".repeat(25).into(), 204).await, 75);
    let pieces = ["y".repeat(10), "z".repeat(10)].map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
    assert_eq!(rest("POST", Body::from_stream(stream::iter(pieces)), 204).await, 55);
    assert_eq!(rest("HEAD", Body::empty(), 200).await, 55);
    assert_eq!(rest("GET", Body::empty(), 200).await, 5, "what was read: 5, 25 and 20 bytes");
    assert_eq!(rest("POST", "x".repeat(6).into(), 429).await, 5);
    assert_eq!(rest("GET", Body::empty(), 200).await, 0, "how much there is to read is not known beforehand");
    assert_eq!(rest("GET", Body::empty(), 429).await, 0, "and is waited for later");
    assert_eq!(rest("POST", "x".into(), 429).await, 0);
    assert_eq!(rest("DELETE", Body::empty(), 204).await, 0, "where there are no bytes, they are not waited for");
    advance(Duration::from_secs(45)).await;
    assert_eq!(rest("POST", "x".into(), 429).await, 0);
    advance(Duration::from_secs(2)).await;
    // A number is written quickly, so what may not be costs no more than what may.
    assert_eq!(rest("POST", "x".repeat(4000).into(), 429).await, 2);
    advance(Duration::from_secs(53)).await;
    assert_eq!(rest("POST", "x".repeat(4000).into(), 413).await, 15);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_counts_whatever_type_its_stream_has_and_a_refusal_in_band_does_not() {
    let bytes = "bytes = { most = 100, within = 1000 }";
    let fixture =
        fixture(&format!("quota = {{ principal = {{ {bytes}, connections = {{ most = 1, within = 1000 }} }} }}"));
    let a = who("a");
    let events = [("authorization", a.as_str()), ("content-type", "text/event-stream")];
    assert_eq!(fixture.send("PUT", PATH, &events, "x".repeat(30)).await.status, 201);
    let page = send(&fixture, &a, "GET", PATH, "").await;
    assert_eq!((page.header("content-type"), left(&page, "bytes")), ("text/event-stream", Some(40)));
    let poll = send(&fixture, &a, "GET", &format!("{PATH}?offset=-1&live=long-poll"), "").await;
    assert_eq!((poll.status, left(&poll, "bytes")), (200, Some(10)));
    let event_source = [("authorization", a.as_str()), ("accept", "text/event-stream"), ("cache-control", "no-cache")];
    let told = fixture.send("GET", &format!("{PATH}?offset=-1&live=sse"), &event_source, "").await;
    assert!(told.status == 200 && told.body.starts_with(b"id: refused\nretry: "), "{:?}", told.body);
    assert_eq!(left(&head(&fixture, &a).await, "bytes"), Some(10), "who was refused has read nothing");
}

#[tokio::test(start_paused = true)]
async fn live_responses_that_are_opened_have_a_quota_of_their_own_and_an_event_source_is_told_in_band() {
    let fixture = fixture("quota = { principal = { connections = { most = 2, within = 60 } } }");
    put(&fixture, PATH, "private").await;
    let a = who("a");
    let live = fixture.live(&format!("{PATH}?offset=-1&live=sse"), &[("authorization", &a)]).await;
    assert_eq!(live.headers["ratelimit"], "\"connections\";r=1;t=60");
    let poll = format!("{PATH}?offset=-1&live=long-poll");
    let polled = send(&fixture, &a, "GET", &poll, "").await;
    assert_eq!((polled.status, left(&polled, "connections")), (200, Some(0)));
    let refused = send(&fixture, &a, "GET", &poll, "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "30"));
    assert_eq!(head(&fixture, &a).await.status, 200);

    let event_source = [("authorization", a.as_str()), ("accept", "text/event-stream"), ("cache-control", "no-cache")];
    let mut told = fixture.live(&format!("{PATH}?offset=-1&live=sse"), &event_source).await;
    assert_eq!(told.chunk().await.unwrap(), "id: refused\nretry: 30035\n\n", "when there is room, and not before");
    assert_eq!(told.chunk().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_back_however_a_live_response_ends() {
    let config = Config { drain: Duration::from_secs(4), ..Config::default() };
    let fixture = on("quota = { principal = { readers = 2 } }", config, Default::default());
    put(&fixture, PATH, "private").await;
    let a = who("a");
    let headers = [("authorization", a.as_str())];
    let (sse, poll) = (format!("{PATH}?offset=-1&live=sse"), format!("{PATH}?offset=now&live=long-poll"));
    let free = async || left(&head(&fixture, &a).await, "readers").unwrap();

    let mut first = fixture.live(&sse, &headers).await;
    let second = fixture.live(&sse, &headers).await;
    assert_eq!(free().await, 0);
    let refused = send(&fixture, &a, "GET", &poll, "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "5"), "nobody knows when a place is free");
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["readers"]));
    assert!(fixture.metric("tailwater_quota_refused_total{holder=\"principal\",metered=\"readers\"} 1"));
    drop(second);
    assert_eq!(free().await, 1, "left");
    while first.chunk().await.is_some() {}
    drop(first);
    assert_eq!(free().await, 2, "rotated");

    let (timed_out, during) = tokio::join!(biased; send(&fixture, &a, "GET", &poll, ""), free());
    assert_eq!((timed_out.status, during, free().await), (204, 1, 2), "timed out");
    let (answered, _) =
        tokio::join!(biased; send(&fixture, &a, "GET", &poll, ""), send(&fixture, &a, "POST", PATH, "b"));
    assert_eq!((answered.status, free().await), (200, 2), "answered");
    assert_eq!(left(&answered, "readers"), Some(2));

    let mut drained = fixture.live(&sse, &headers).await;
    let (polled, ()) = tokio::join!(biased; send(&fixture, &a, "GET", &poll, ""), async {
        assert_eq!(free().await, 0);
        fixture.app.drain().begin();
        while drained.chunk().await.is_some() {}
        drop(drained);
    });
    assert_eq!((polled.status, free().await), (204, 2), "drained");
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_has_lost_nothing_by_asking() {
    let flows = |most: u64| {
        let most = format!("{{ most = {most}, within = 1000000 }}");
        format!("requests = {most}, bytes = {most}, connections = {most}")
    };
    // Who has put the stream there has asked once, and the other one may ask eight times.
    let (own, all) = (flows(8), flows(9));
    let table = [
        ("readers", format!("quota = {{ {all}, principal = {{ readers = 1, {own} }} }}")),
        ("project-readers", format!("quota = {{ readers = 1, {all}, principal = {{ {own} }} }}")),
        ("streams", format!("quota = {{ {all}, principal = {{ streams = 1, {own} }} }}")),
        ("project-streams", format!("quota = {{ streams = 1, {all}, principal = {{ {own} }} }}")),
    ];
    for (policy, quota) in table {
        let fixture = fixture(&quota);
        put(&fixture, "/v1/stream/chat/t", "private").await;
        let a = who("a");
        let held = fixture.live("/v1/stream/chat/t?offset=now&live=sse", &[("authorization", &a)]).await;
        for live in ["sse", "long-poll"].repeat(10) {
            let refused = send(&fixture, &a, "GET", &format!("{PATH}?offset=-1&live={live}"), "").await;
            assert_eq!(refused.status, 429, "{policy}");
            assert_eq!(refused.json()["violated-policies"], serde_json::json!([policy]));
            assert_eq!(["requests", "bytes", "connections"].map(|name| left(&refused, name)), [Some(7); 3], "{policy}");
        }
        drop(held);
        for rest in (0..7).rev() {
            let answer = send(&fixture, &a, "HEAD", "/v1/stream/chat/t", "").await;
            assert_eq!((answer.status, left(&answer, "requests")), (200, Some(rest)), "{policy}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_back_when_the_stream_has_ended() {
    let fixture = fixture("quota = { principal = { readers = 1 } }");
    put(&fixture, PATH, "private").await;
    let a = who("a");
    for (method, headers) in [("POST", vec![("stream-closed", "true")]), ("DELETE", vec![])] {
        let mut live = fixture.live(&format!("{PATH}?offset=-1&live=sse"), &[("authorization", &a)]).await;
        assert!(live.chunk().await.is_some());
        let headers = [vec![("authorization", a.as_str())], headers].concat();
        let ended = async { fixture.send(method, PATH, &headers, "").await };
        let (_, ()) = tokio::join!(ended, async { while live.chunk().await.is_some() {} });
        drop(live);
        put_again(&fixture, method).await;
        assert_eq!(left(&head(&fixture, &a).await, "readers"), Some(1), "{method}");
    }
}

/// A stream that was closed is deleted, so that there is an open one.
async fn put_again(fixture: &Fixture, ended_by: &str) {
    if ended_by == "POST" {
        assert_eq!(send(fixture, &who("owner"), "DELETE", PATH, "").await.status, 204);
    }
    put(fixture, PATH, "private").await;
}

#[tokio::test(start_paused = true)]
async fn a_project_follows_so_many_streams_whoever_does() {
    let fixture = fixture("quota = { streams = 2 }");
    for stream in ["s", "t", "u"] {
        put(&fixture, &format!("/v1/stream/chat/{stream}"), "private").await;
    }
    let follow = async |id: &str, stream: &str| {
        let path = format!("/v1/stream/chat/{stream}?offset=-1&live=sse");
        fixture.respond("GET", &path, &[("authorization", &who(id))], Body::empty()).await
    };
    let mut held = Vec::new();
    for (id, stream) in [("a", "s"), ("b", "s"), ("a", "t")] {
        held.push(follow(id, stream).await);
        assert_eq!(held.last().unwrap().status(), 200);
    }
    assert_eq!(follow("b", "u").await.status(), 429);
    assert_eq!(send(&fixture, &who("b"), "GET", "/v1/stream/chat/u", "").await.status, 200, "it is not followed");
    assert!(fixture.metric("tailwater_quota_refused_total{holder=\"project\",metered=\"streams\"} 1"));
    drop(held.pop());
    assert_eq!(follow("b", "u").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_for_other_reasons_costs_nobody_anything_and_is_told_of_no_quota() {
    let fixture = fixture("quota = { requests = { most = 2, within = 1000 }, principal = { readers = 1 } }");
    put(&fixture, PATH, "private").await;
    let reference = fixture.get("/v1/stream/nowhere/s").await;
    let junk = bearer("other", None);
    for headers in [vec![], vec![("authorization", "Bearer junk")], vec![("authorization", junk.as_str())]] {
        for path in [PATH, "/v1/stream/chat/missing", "/v1/stream/chat/s?offset=-1&live=sse"] {
            for _ in 0..3 {
                let answer = fixture.send("GET", path, &headers, "").await;
                assert_eq!(answer.status, 401);
                assert_eq!((answer.header("ratelimit"), answer.header("ratelimit-policy")), ("", ""));
                if headers.is_empty() {
                    assert_eq!((&answer.body, &answer.headers), (&reference.body, &reference.headers), "{path}");
                }
            }
        }
    }
    assert_eq!(head(&fixture, &who("a")).await.status, 200);
    assert_eq!(head(&fixture, &who("a")).await.status, 429);
}

#[tokio::test]
async fn who_reads_what_is_public_without_a_token_is_told_apart_by_address() {
    let quota = "quota = { principal = { requests = { most = 2, within = 1000 } } }";
    let proxies = TrustedProxies::parse(["127.0.0.1"]).unwrap();
    let fixture = on(quota, Config { trusted_proxies: proxies, ..Config::default() }, Default::default());
    put(&fixture, PATH, "public").await;
    let (_server, address) = serve(&fixture).await;
    let read = |client: &str| format!("GET {PATH} HTTP/1.1\r\nhost: h{client}");
    let status = async |mut stream: TcpStream, head: &str| ask(&mut stream, head).await[9..12].to_owned();
    let by_proxy = async |client: &str| {
        let head = read(&format!("\r\nx-forwarded-for: {client}"));
        status(TcpStream::connect(address).await.unwrap(), &head).await
    };
    for (client, expected) in [
        ("198.51.100.1", "200"),
        ("203.0.113.9, 198.51.100.1", "200"),
        ("203.0.113.8, 198.51.100.1", "429"),
        ("198.51.100.2", "200"),
        ("2001:db8:1:2::1", "200"),
        ("2001:db8:1:2::2", "200"),
        ("2001:db8:1:2:3::3", "429"),
        ("2001:db8:1:3::1", "200"),
    ] {
        assert_eq!(by_proxy(client).await, expected, "{client}");
    }
    // Whoever connects directly speaks for nobody else.
    for (client, expected) in [("192.0.2.1", "200"), ("192.0.2.2", "200"), ("192.0.2.3", "429")] {
        let head = read(&format!("\r\nx-forwarded-for: {client}"));
        assert_eq!(status(from("127.0.0.2", address).await, &head).await, expected, "{client}");
    }
    assert_eq!(head(&fixture, &who("a")).await.status, 200, "and who has a token by that");
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_id_is_itself_and_a_new_one_is_another() {
    let fixture = fixture("quota = { principal = { requests = { most = 1, within = 1000 } } }");
    put(&fixture, PATH, "private").await;
    let token = bearer("chat", None);
    assert_eq!((head(&fixture, &token).await.status, head(&fixture, &token).await.status), (200, 429));
    assert_eq!(head(&fixture, &who("a")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_token_in_a_cookie_is_who_it_is_in_a_header() {
    let quota = "cookie = 'session'\nquota = { principal = { requests = { most = 2, within = 1000 } } }";
    let fixture = fixture(quota);
    put(&fixture, PATH, "private").await;
    let with_cookie = async |bearer: &str| {
        let cookie = format!("session={}", bearer.strip_prefix("Bearer ").unwrap());
        fixture.send("HEAD", PATH, &[("cookie", &cookie), ("sec-fetch-site", "same-origin")], "").await
    };
    // Two tokens without an id that were issued at the same time, and one with an id.
    for token in [bearer("chat", None), bearer_until("chat", None, 999), who("a")] {
        let answers = [with_cookie(&token).await, head(&fixture, &token).await, with_cookie(&token).await];
        assert_eq!(
            answers.map(|answer| (answer.status, left(&answer, "requests"))),
            [(200, Some(1)), (200, Some(0)), (429, Some(0))]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_ticket_costs_a_request_and_whoever_has_it_is_whoever_got_it() {
    let fixture = fixture("quota = { principal = { requests = { most = 3, within = 1000 } } }");
    put(&fixture, PATH, "private").await;
    let wanted = r#"{"stream": "chat/s", "origin": "https://app.example"}"#;
    for credentials in [who("a"), bearer("chat", None)] {
        let issued = send(&fixture, &credentials, "POST", "/v1/ticket", wanted).await;
        assert_eq!((issued.status, left(&issued, "requests")), (201, Some(2)));
        let path = format!("{PATH}?ticket={}", issued.json()["ticket"].as_str().unwrap());
        let page = [("origin", "https://app.example")];
        let read = fixture.send("HEAD", &path, &page, "").await;
        // A token with an id is known by it, and its tickets with it. Those of one without are known together.
        let shares = credentials == who("a");
        assert_eq!((read.status, left(&read, "requests")), (200, Some(if shares { 1 } else { 2 })));
        let another = send(&fixture, &credentials, "POST", "/v1/ticket", wanted).await;
        assert_eq!((another.status, left(&another, "requests")), (201, Some(if shares { 0 } else { 1 })));
        let path = format!("{PATH}?ticket={}", another.json()["ticket"].as_str().unwrap());
        let read = fixture.send("HEAD", &path, &page, "").await;
        assert_eq!((read.status, left(&read, "requests")), if shares { (429, Some(0)) } else { (200, Some(1)) });
        let refused = send(&fixture, &credentials, "POST", "/v1/ticket", wanted).await;
        assert_eq!(refused.status, if shares { 429 } else { 201 });
    }
    let junk = fixture.send("POST", "/v1/ticket", &[("authorization", "Bearer junk")], wanted).await;
    assert_eq!((junk.status, junk.header("ratelimit")), (401, ""));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_what_somebody_else_has_left() {
    let fixture = fixture("quota = { principal = { requests = { most = 9, within = 10 } } }");
    put(&fixture, PATH, "public").await;
    let answer = send(&fixture, &who("a"), "GET", &format!("{PATH}?offset=-1"), "").await;
    assert!(answer.header("cache-control").starts_with("public"), "{}", answer.header("cache-control"));
    assert_eq!(
        (answer.header("ratelimit"), answer.header("ratelimit-policy")),
        ("", ""),
        "caches would show it around"
    );
    assert_eq!(left(&send(&fixture, &who("a"), "POST", PATH, "b").await, "requests"), Some(7));
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_quota_nothing_is_said_and_pages_may_see_what_is() {
    let open = Fixture::new();
    open.put("/v1/stream/s", "text/plain", "a").await;
    let guarded = fixture("");
    put(&guarded, "/v1/stream/other/s", "private").await;
    let other = bearer("other", None);
    let told = send(&guarded, &other, "HEAD", "/v1/stream/other/s", "").await;
    for answer in [open.get("/v1/stream/s").await, told] {
        assert_eq!((answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")), (200, "", ""));
    }
    assert!(guarded.metric("tailwater_quota_principals 0"));
    let headers = [("authorization", other.as_str()), ("origin", "https://app.example")];
    let shown = guarded.send("GET", "/v1/stream/other/s", &headers, "").await;
    let exposed: Vec<_> = shown.header("access-control-expose-headers").split(", ").collect();
    assert!(["ratelimit", "ratelimit-policy", "retry-after"].iter().all(|name| exposed.contains(name)), "{exposed:?}");
}

/// A gateway at a socket, over which live responses leave the HTTP library.
fn at_a_socket(quota: &str) -> Fixture {
    let config = Config {
        sse_lifetime: Duration::from_secs(3600),
        write_timeout: Duration::from_millis(500),
        delivery_shards: 1,
        send_buffer: 4096,
        ..Config::default()
    };
    let fanout = tailwater_fanout::Config { ring_bytes: 64 * 1024, ..Default::default() };
    on(quota, config, fanout)
}

#[tokio::test]
async fn a_place_is_given_back_however_a_live_response_ends_at_a_shard() {
    let fixture = at_a_socket("quota = { principal = { readers = 2 } }");
    put(&fixture, PATH, "private").await;
    let (a, writer) = (who("a"), who("writer"));
    let (server, address) = serve(&fixture).await;
    let poll = asking(&a, "GET /v1/stream/chat/s?offset=now&live=long-poll");

    let first = reader(address, &following(&a)).await;
    let mut second = request(address, &poll).await;
    places(&fixture, &a, 0).await;
    counted(&fixture, "tailwater_shard_readers 2").await;
    let mut third = TcpStream::connect(address).await.unwrap();
    let refused = ask(&mut third, &following(&a)).await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("ratelimit: \"readers\";r=0\r\n"), "{refused}");
    drop(first);
    places(&fixture, &a, 1).await;
    assert_eq!(send(&fixture, &writer, "POST", PATH, "second").await.status, 204);
    let answered = read_until(&mut second, "second").await;
    assert!(answered.contains("\r\nratelimit: \"readers\";r="), "{answered}");
    places(&fixture, &a, 2).await;

    // One that takes nothing falls behind, leaves the shard, and is gone in time.
    let mut staller = cramped(address).await;
    staller.write_all(format!("{}\r\n\r\n", following(&a)).as_bytes()).await.unwrap();
    places(&fixture, &a, 1).await;
    for _ in 0..12 {
        assert_eq!(send(&fixture, &writer, "POST", PATH, vec![b'x'; 1 << 20]).await.status, 204);
    }
    counted(&fixture, "tailwater_http_sse_ends_total{reason=\"stalled\"} 1").await;
    places(&fixture, &a, 2).await;

    let now = asking(&a, "GET /v1/stream/chat/s?offset=now&live=sse");
    let mut drained = reader(address, &now).await;
    let hurry = CancellationToken::new();
    hurry.cancel();
    assert!(timeout(LIMIT, server.shut_down(hurry)).await.is_ok());
    read_until(&mut drained, "retry: ").await;
    places(&fixture, &a, 2).await;
}

#[tokio::test]
async fn a_place_is_kept_on_the_way_to_a_shard_and_given_back_when_the_stream_has_ended() {
    let config = Config { delivery_shards: 1, ..Config::default() };
    let fanout = tailwater_fanout::Config { ring_bytes: 1, page_bytes: 64, ..Default::default() };
    let fixture =
        on("quota = { principal = { readers = 1, bytes = { most = 100000, within = 100000 } } }", config, fanout);
    put(&fixture, PATH, "private").await;
    let (a, writer) = (who("a"), who("writer"));
    for _ in 0..20 {
        send(&fixture, &writer, "POST", PATH, "x".repeat(100)).await;
    }
    let (_server, address) = serve(&fixture).await;
    // It comes from far behind, so an escort brings it to the shard; what it is given of history is owed.
    let mut behind = reader(address, &following(&a)).await;
    counted(&fixture, "tailwater_shard_readers 1").await;
    assert_eq!(left(&head(&fixture, &a).await, "readers"), Some(0));
    let close = [("authorization", writer.as_str()), ("stream-closed", "true")];
    assert_eq!(fixture.send("POST", PATH, &close, "").await.status, 204);
    read_until(&mut behind, "0\r\n\r\n").await;
    places(&fixture, &a, 1).await;
    let owed = 100_000 - left(&head(&fixture, &a).await, "bytes").unwrap();
    assert!((2000..20_000).contains(&owed), "{owed}");
}

#[tokio::test]
async fn a_place_is_given_back_when_the_response_has_lasted_however_short_that_is() {
    let config = Config { sse_lifetime: Duration::from_millis(50), delivery_shards: 1, ..Config::default() };
    let fixture = on("quota = { principal = { readers = 1 } }", config, Default::default());
    put(&fixture, PATH, "private").await;
    let a = who("a");
    let (_server, address) = serve(&fixture).await;
    let mut rotated = request(address, &following(&a)).await;
    read_until(&mut rotated, "retry: ").await;
    places(&fixture, &a, 1).await;
}
