//! Live answers that end because their reader may not go on: with his token, and when that is revoked.

use std::{fs, path::PathBuf, time::Duration};

use tailwater_auth::{File, NewToken, Projects, Scopes, mint};
use tailwater_protocol::ProjectId;
use tailwater_server::{Auth, Config, Ended, Guard, Issuers};
use tailwater_testkit::{
    fault::{Pause, ReadFault},
    sse::{DurableEvent, DurableSse, Payload},
};
use tailwater_upstream::StreamKey;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fixture::{Fixture, Live, NOW_MS},
    rights::PAGE,
    wire::{LIMIT, ask, counted, cramped, read_until, request, serve},
};

/// `chat` has what the tests are about, with two keys; `other` is there so that the file is never empty.
const PROJECTS: &str = r#"
[[project]]
id = "chat"
revoked = []
writers-read = true
[[project.key]]
algorithm = "HS256"
secret = "the first secret of chat, and it is long enough"
[[project.key]]
algorithm = "HS256"
secret = "the second secret of chat, and it is long enough"

[[project]]
id = "other"
[[project.key]]
algorithm = "HS256"
secret = "the secret of other, and it is long enough"
"#;

const PATH: &str = "/v1/stream/chat/s";
/// How long a token counts for longer than it says.
const SKEW: Duration = Duration::from_secs(2);
/// How long a change may take to reach a reader.
const A_SECOND: Duration = Duration::from_secs(1);

/// A gateway whose projects stand in a file.
pub(crate) struct House {
    pub(crate) fixture: Fixture,
    guard: Guard,
    file: PathBuf,
    _directory: TempDir,
}

/// Which of the project's keys signs.
#[derive(Debug, Clone, Copy)]
enum By {
    First,
    Second,
}

impl House {
    fn new() -> Self {
        Self::with(Config::default(), Default::default(), SKEW)
    }

    pub(crate) fn with(config: Config, fanout: tailwater_fanout::Config, skew: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        fs::write(&file, PROJECTS).unwrap();
        let guard = Guard::load(&file, skew, Issuers::none()).unwrap();
        let fixture = Fixture::with(Config { auth: Auth::Required(guard.clone()), ..config }, fanout);
        Self { fixture, guard, file, _directory: directory }
    }

    /// Other projects are in force.
    async fn change(&self, text: &str) {
        let aside = self.file.with_extension("new");
        fs::write(&aside, text).unwrap();
        fs::rename(&aside, &self.file).unwrap();
        self.guard.look().await;
        let expected = Projects::parse([File { name: "projects.toml", bytes: text.as_bytes() }]).unwrap();
        assert_eq!(self.guard.projects().iter().count(), expected.iter().count(), "it was not taken");
    }

    async fn revoke(&self, id: &str) {
        self.change(&PROJECTS.replace("revoked = []", &format!("revoked = [\"{id}\"]"))).await;
    }

    /// Creates the stream.
    pub(crate) async fn put(&self, visibility: &str, body: &'static str) {
        let writer = bearer("writer", "write", 3600);
        let headers = [writer_of(&writer), ("content-type", "text/plain"), ("stream-visibility", visibility)];
        assert_eq!(self.fixture.send("PUT", PATH, &headers, body).await.status, 201);
    }

    pub(crate) async fn post(&self, body: impl Into<axum::body::Body>) {
        let writer = bearer("writer", "write", 3600);
        let headers = [writer_of(&writer), ("content-type", "text/plain")];
        assert_eq!(self.fixture.send("POST", PATH, &headers, body).await.status, 204);
    }

    async fn live(&self, bearer: Option<&str>) -> Live {
        let headers: Vec<_> = bearer.map(writer_of).into_iter().collect();
        self.fixture.live(&format!("{PATH}?offset=-1&live=sse"), &headers).await
    }
}

fn writer_of(bearer: &str) -> (&str, &str) {
    ("authorization", bearer)
}

/// A token by this id, in seconds from now.
pub(crate) fn bearer(id: &str, scope: &str, expires_in: u64) -> String {
    signed(id, scope, expires_in, By::First)
}

fn signed(id: &str, scope: &str, expires_in: u64, by: By) -> String {
    let projects = Projects::parse([File { name: "projects.toml", bytes: PROJECTS.as_bytes() }]).unwrap();
    let project = ProjectId::parse("chat").unwrap();
    let keys = &projects.get(&project).unwrap().keys;
    let key = match by {
        By::First => keys.first().unwrap(),
        By::Second => keys.iter().nth(1).unwrap(),
    };
    let new = NewToken {
        project,
        scopes: Scopes::among([scope]),
        streams: None,
        issued_at: NOW_MS / 1000,
        expires_at: NOW_MS / 1000 + expires_in,
        not_before: None,
        audience: None,
        issuer: None,
        id: Some(id.to_owned()),
    };
    format!("Bearer {}", mint(&key.signing().unwrap(), &new).unwrap())
}

fn last_words(reason: &str) -> String {
    format!("event: unauthorized\ndata:{{\"reason\":\"{reason}\"}}\n\nretry: 517\n\n")
}

async fn rest(mut live: Live) -> String {
    let mut all = String::new();
    while let Some(chunk) = live.chunk().await {
        all += &chunk;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn events_end_with_their_readers_token_and_say_so() {
    let house = House::new();
    house.put("private", "a").await;
    let reader = bearer("reader", "read", 5);
    let mut live = house.live(Some(&reader)).await;
    assert!(live.chunk().await.unwrap().contains("data:a\n"));
    let began = Instant::now();
    let (chunk, ()) = tokio::join!(live.chunk(), async {
        sleep(Duration::from_secs(6)).await;
        house.post("b").await;
    });
    assert!(chunk.unwrap().contains("data:b\n"), "it counts for longer than it says, by the skew");
    assert_eq!(live.chunk().await.unwrap(), last_words("expired"));
    assert_eq!(began.elapsed().as_secs(), 7);
    assert_eq!(live.chunk().await, None);
    assert!(house.fixture.metric("tailwater_http_sse_ends_total{reason=\"expired\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_has_lasted_long_enough_ends_before_its_token_does() {
    let house = House::new();
    house.put("private", "a").await;
    let reader = bearer("reader", "read", 100);
    let began = Instant::now();
    let all = rest(house.live(Some(&reader)).await).await;
    assert!(all.contains("retry: 53\n") && !all.contains("unauthorized"), "{all}");
    assert!((54..66).contains(&began.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_its_token_as_a_new_request_would() {
    let house = House::new();
    house.put("private", "a").await;
    let reader = bearer("reader", "read", 5);
    let began = Instant::now();
    let poll = format!("{PATH}?offset=now&live=long-poll");
    let answer = house.fixture.send("GET", &poll, &[writer_of(&reader)], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_refused"));
    assert_eq!(answer.json()["reason"], "expired");
    assert!(answer.header("www-authenticate").contains("invalid_token"));
    assert_eq!(began.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn whose_token_is_revoked_sees_nothing_of_what_comes_a_second_later() {
    let house = House::new();
    house.put("private", "a").await;
    let (one, other) = (bearer("one", "read", 600), bearer("other", "read", 600));
    let reads = tokio::spawn(rest(house.live(Some(&one)).await));
    let mut goes_on = house.live(Some(&other)).await;
    goes_on.chunk().await.unwrap();
    let poll = format!("{PATH}?offset=now&live=long-poll");
    let one = [writer_of(&one)];
    let (polled, ()) = tokio::join!(biased; house.fixture.send("GET", &poll, &one, ""), async {
        house.revoke("one").await;
        sleep(A_SECOND).await;
        house.post("b").await;
    });
    assert_eq!((polled.status, polled.code().as_str()), (401, "token_refused"));
    assert_eq!(polled.json()["reason"], "revoked");
    let all = reads.await.unwrap();
    assert!(all.contains("data:a\n") && !all.contains("data:b\n") && all.ends_with(&last_words("revoked")), "{all}");
    assert!(goes_on.chunk().await.unwrap().contains("data:b\n"));
    assert!(house.fixture.metric("tailwater_http_sse_ends_total{reason=\"revoked\"} 1"));
    assert!(house.fixture.metric("tailwater_http_sse_readers 1"));
}

/// What is taken away, and whom that ends.
#[tokio::test(start_paused = true)]
async fn a_response_ends_with_whatever_it_stands_on_and_with_nothing_else() {
    let without_first = PROJECTS.replace("the first secret of chat", "another secret of chat");
    let without_second = PROJECTS.replace("the second secret of chat", "another secret of chat");
    let without_chat = PROJECTS.split_once("[[project]]\nid = \"other\"").unwrap().1;
    let without_chat = format!("[[project]]\nid = \"other\"{without_chat}");
    let strict = PROJECTS.replace("writers-read = true\n", "");
    let otherwise = PROJECTS.replace("the secret of other", "another secret of other");
    let (first, second) = (bearer("1", "read", 600), signed("2", "read", 600, By::Second));
    let (writes, manages) = (bearer("3", "write", 600), bearer("4", "manage", 600));
    let readers = [Some(&first), Some(&second), Some(&writes), Some(&manages), None];
    // Who ends: with the first key, the second, as a writer, with a token that is for other things, and without any.
    let table = [
        ("the first key", without_first, [true, false, true, true, false]),
        ("the second key", without_second, [false, true, false, false, false]),
        ("the project", without_chat, [true; 5]),
        ("that writers read", strict, [false, false, true, false, false]),
        ("another project's key", otherwise, [false; 5]),
    ];
    for (what, text, ends) in table {
        let house = House::new();
        house.put("public", "a").await;
        let mut lives = Vec::new();
        for reader in readers {
            let mut live = house.live(reader.map(String::as_str)).await;
            live.chunk().await.unwrap();
            lives.push(live);
        }
        house.change(&text).await;
        sleep(A_SECOND).await;
        if what != "the project" && what != "the first key" {
            house.post("b").await;
        }
        for (n, (mut live, ends)) in lives.into_iter().zip(ends).enumerate() {
            let chunk = live.chunk().await.unwrap();
            assert_eq!(chunk == last_words("revoked"), ends, "{what}, {n}: {chunk}");
        }
    }
}

/// The URL of what a ticket reads that is got with this token.
async fn by_ticket(house: &House, bearer: &str) -> String {
    let wanted = format!(r#"{{"stream": "chat/s", "origin": "{PAGE}"}}"#);
    let issued = house.fixture.send("POST", "/v1/ticket", &[writer_of(bearer)], wanted).await;
    assert_eq!(issued.status, 201);
    format!("{PATH}?offset=-1&live=sse&ticket={}", issued.json()["ticket"].as_str().unwrap())
}

/// The first key signs tickets, whichever has signed the token.
#[tokio::test(start_paused = true)]
async fn a_response_by_ticket_ends_with_the_key_of_the_ticket_and_with_that_of_the_token() {
    let table = [
        ("the first secret of chat", [true, true]),
        ("the second secret of chat", [false, true]),
        ("the secret of other", [false, false]),
    ];
    for (secret, ends) in table {
        let house = House::new();
        house.put("private", "a").await;
        let mut lives = Vec::new();
        for by in [By::First, By::Second] {
            let uri = by_ticket(&house, &signed("reader", "read", 600, by)).await;
            let mut live = house.fixture.live(&uri, &[("origin", PAGE)]).await;
            assert!(live.chunk().await.unwrap().contains("data:a\n"));
            lives.push(live);
        }
        house.change(&PROJECTS.replace(secret, "another secret, which is new,")).await;
        for (mut live, ends) in lives.into_iter().zip(ends) {
            let told = timeout(A_SECOND, live.chunk()).await.ok().flatten();
            assert_eq!(told, ends.then(|| last_words("revoked")), "{secret}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_by_ticket_ends_with_the_tickets_hour_which_no_skew_lengthens() {
    let lasts = Config { sse_lifetime: Duration::from_secs(3 * 3600), ..Config::default() };
    let house = House::with(lasts, Default::default(), SKEW);
    house.put("private", "a").await;
    // How long the token lasts, and the response.
    for (token, response) in [(7200, 3600), (3599, 3600), (3600, 3600), (60, 62)] {
        let uri = by_ticket(&house, &bearer("reader", "read", token)).await;
        let began = Instant::now();
        let all = rest(house.fixture.live(&uri, &[("origin", PAGE)]).await).await;
        assert!(all.ends_with(&last_words("expired")), "{all}");
        assert_eq!(began.elapsed().as_secs(), response, "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_one_after_the_other_are_seen_within_a_second() {
    let house = House::new();
    house.put("private", "a").await;
    let reader = bearer("reader", "read", 600);
    let reads = tokio::spawn(rest(house.live(Some(&reader)).await));
    sleep(Duration::from_secs(5)).await;
    for n in 0..8 {
        house.change(&PROJECTS.replace("the secret of other", &format!("secret {n} of other"))).await;
        sleep(Duration::from_millis(300)).await;
        assert!(!reads.is_finished());
    }
    let began = Instant::now();
    house.revoke("reader").await;
    assert!(reads.await.unwrap().ends_with(&last_words("revoked")));
    assert!(began.elapsed() <= A_SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_far_behind_is_given_nothing_more() {
    let small = tailwater_fanout::Config { ring_bytes: 1, ..Default::default() };
    let house = House::with(Config::default(), small, SKEW);
    house.put("private", "").await;
    for _ in 0..8 {
        house.post("z".repeat(500_000)).await;
    }
    let reader = bearer("reader", "read", 600);
    let mut live = house.live(Some(&reader)).await;
    for _ in 0..2 {
        let chunk = live.chunk().await.unwrap();
        assert!(chunk.contains("zzz") && !chunk.contains("upToDate"));
    }
    house.revoke("reader").await;
    sleep(A_SECOND).await;
    assert_eq!(live.chunk().await.unwrap(), last_words("revoked"));
    assert_eq!(live.chunk().await, None);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_go_on_by_the_time_he_has_joined_is_refused_like_a_new_request() {
    for live in ["sse", "long-poll"] {
        let house = House::new();
        house.put("private", "a").await;
        let config = Config { auth: Auth::Required(house.guard.clone()), ..Config::default() };
        let elsewhere = Fixture::on(house.fixture.upstream.clone(), config, Default::default());
        let reader = bearer("reader", "read", 1);
        house.fixture.upstream.faults().next_tail(ReadFault::PauseBefore(Pause::For(Duration::from_secs(4))));
        let began = Instant::now();
        let uri = format!("{PATH}?offset=-1&live={live}");
        let answer = elsewhere.send("GET", &uri, &[writer_of(&reader)], "").await;
        assert_eq!(began.elapsed().as_secs(), 4, "the store took its time");
        assert_eq!((answer.status, answer.code().as_str()), (401, "token_refused"), "{live}");
        assert!(elsewhere.metric("tailwater_http_sse_readers 0"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_was_slow_to_tell_is_not_passed_on_to_who_may_not_have_it_by_then() {
    let house = House::new();
    house.put("private", "a").await;
    let open = Fixture::on(house.fixture.upstream.clone(), Config::default(), Default::default());
    let (reader, poll) = (bearer("reader", "read", 31), format!("{PATH}?offset=now&live=long-poll"));
    let began = Instant::now();
    let upstream = &house.fixture.upstream;
    let headers = [writer_of(&reader)];
    let (answer, ()) = tokio::join!(biased; house.fixture.send("GET", &poll, &headers, ""), async {
        sleep(Duration::from_millis(1)).await;
        assert_eq!(upstream.stall_sessions(&StreamKey::new("chat", "s")), 1);
        open.post(PATH, "text/plain", "b").await;
        upstream.faults().next_tail(ReadFault::PauseBefore(Pause::For(Duration::from_secs(4))));
    });
    assert!(began.elapsed().as_secs() >= 34, "{:?}", began.elapsed());
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (401, Some("expired")));
}

/// A long-poll without a token waits on a public stream. Then that is deleted, and perhaps there is a private one of its
/// name, elsewhere; the read session tells of it, or is too slow and the store is asked at the end of the wait.
#[tokio::test(start_paused = true)]
async fn a_poll_of_a_public_stream_learns_nothing_of_its_private_next_life() {
    let mut answers = Vec::new();
    for stalls in [false, true] {
        for lives_again in [false, true] {
            let house = House::new();
            house.put("public", "a").await;
            let open = Fixture::on(house.fixture.upstream.clone(), Config::default(), Default::default());
            let poll = format!("{PATH}?offset=now&live=long-poll");
            let began = Instant::now();
            let (answer, ()) = tokio::join!(biased; house.fixture.send("GET", &poll, &[], ""), async {
                // The session is there by now.
                sleep(Duration::from_millis(1)).await;
                if stalls {
                    assert_eq!(house.fixture.upstream.stall_sessions(&StreamKey::new("chat", "s")), 1);
                }
                assert_eq!(open.send("DELETE", PATH, &[], "").await.status, 204);
                if lives_again {
                    let headers = [("content-type", "application/json"), ("stream-visibility", "private")];
                    assert_eq!(open.send("PUT", PATH, &headers, "[\"secret\"]").await.status, 201);
                }
            });
            assert_eq!(began.elapsed().as_secs() >= 30, stalls, "it waits for as long as it knows of nothing");
            let mut fields: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
            fields.sort();
            answers.push((answer.status, answer.code(), fields, answer.body));
        }
    }
    assert_eq!((answers[0].0, answers[0].1.as_str()), (401, "token_needed"));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

/// The events of a response, behind its head; the body must be whole.
fn events_of(response: &str) -> Vec<DurableEvent> {
    let (_, mut rest) = response.split_once("\r\n\r\n").unwrap();
    let (mut sse, mut events) = (DurableSse::new(Payload::Text), Vec::new());
    loop {
        let (size, behind) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        sse.push(&behind.as_bytes()[..size]);
        while let Some(event) = sse.pop() {
            events.push(event.unwrap());
        }
        rest = behind[size..].strip_prefix("\r\n").unwrap();
        if size == 0 {
            assert_eq!(rest, "");
            return events;
        }
    }
}

fn get(query: &str, bearer: &str) -> String {
    format!("GET {PATH}?{query} HTTP/1.1\r\nhost: h\r\nauthorization: {bearer}")
}

#[tokio::test]
async fn at_a_socket_a_revoked_reader_is_told_and_its_connection_goes_on() {
    for delivery_shards in [0, 1] {
        let house = House::with(Config { delivery_shards, ..Config::default() }, Default::default(), SKEW);
        house.put("private", "a").await;
        let (server, address) = serve(&house.fixture).await;
        let (one, other) = (bearer("one", "read", 600), bearer("other", "read", 600));
        let mut revoked = request(address, &get("offset=-1&live=sse", &one)).await;
        let mut goes_on = request(address, &get("offset=-1&live=sse", &other)).await;
        let mut seen = read_until(&mut revoked, "upToDate").await;
        read_until(&mut goes_on, "upToDate").await;
        let mut polls = request(address, &get("offset=now&live=long-poll", &one)).await;
        counted(&house.fixture, "tailwater_http_long_polls 1").await;
        if delivery_shards > 0 {
            counted(&house.fixture, "tailwater_shard_readers 3").await;
        }
        house.revoke("one").await;
        seen += &read_until(&mut revoked, "0\r\n\r\n").await;
        let polled = read_until(&mut polls, "\"reason\":\"revoked\"").await;
        house.post("b").await;
        read_until(&mut goes_on, "data:b\n").await;
        let events = events_of(&seen);
        assert_eq!(events.last(), Some(&DurableEvent::Unauthorized { reason: "revoked".to_owned() }), "{seen}");
        assert!(polled.starts_with("HTTP/1.1 401 ") && polled.contains("www-authenticate: Bearer"), "{polled}");
        for stream in [&mut revoked, &mut polls] {
            assert!(ask(stream, "HEAD /health HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200 "));
        }
        let again = ask(&mut revoked, &get("offset=-1&live=sse", &one)).await;
        assert!(again.starts_with("HTTP/1.1 401 "), "{again}");
        counted(&house.fixture, "tailwater_http_sse_ends_total{reason=\"revoked\"} 1").await;
        drop((revoked, goes_on, polls));
        for gauge in ["http_sse_readers", "http_long_polls", "shard_readers", "live_readers", "http_connections"] {
            counted(&house.fixture, &format!("tailwater_{gauge} 0")).await;
        }
        assert_eq!(timeout(LIMIT, server.shut_down(CancellationToken::new())).await, Ok(Ended::Clean));
    }
}

#[tokio::test]
async fn at_a_socket_a_response_ends_when_its_token_does_and_a_poll_is_refused() {
    for delivery_shards in [0, 1] {
        let house = House::with(Config { delivery_shards, ..Config::default() }, Default::default(), Duration::ZERO);
        house.put("private", "a").await;
        let (_server, address) = serve(&house.fixture).await;
        let reader = bearer("reader", "read", 1);
        let (events, poll) = (get("offset=-1&live=sse", &reader), get("offset=now&live=long-poll", &reader));
        let began = Instant::now();
        let (mut follows, mut polls) = (request(address, &events).await, request(address, &poll).await);
        let seen = read_until(&mut follows, "0\r\n\r\n").await;
        assert_eq!(events_of(&seen).last(), Some(&DurableEvent::Unauthorized { reason: "expired".to_owned() }));
        let polled = read_until(&mut polls, "\"reason\":\"expired\"").await;
        assert!(polled.starts_with("HTTP/1.1 401 "), "{polled}");
        assert!(began.elapsed() >= Duration::from_secs(1));
        counted(&house.fixture, "tailwater_http_sse_ends_total{reason=\"expired\"} 1").await;
    }
}

#[tokio::test]
async fn who_is_written_to_by_an_escort_gets_the_chunk_that_is_on_its_way_and_no_more() {
    const MESSAGES: usize = 40;
    const LENGTH: usize = 500_000;
    let small = tailwater_fanout::Config { ring_bytes: 1, ..Default::default() };
    let house = House::with(Config { delivery_shards: 1, ..Config::default() }, small, SKEW);
    house.put("private", "").await;
    for _ in 0..MESSAGES {
        house.post("z".repeat(LENGTH)).await;
    }
    let (_server, address) = serve(&house.fixture).await;
    let reader = bearer("reader", "read", 600);
    let mut stream: TcpStream = cramped(address).await;
    let head = get("offset=-1&live=sse", &reader) + "\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = read_until(&mut stream, "zzz").await;
    house.revoke("reader").await;
    seen += &read_until(&mut stream, "0\r\n\r\n").await;
    let events = events_of(&seen);
    assert_eq!(events.last(), Some(&DurableEvent::Unauthorized { reason: "revoked".to_owned() }));
    let data = |event: &DurableEvent| if let DurableEvent::Data(data) = event { data.len() } else { 0 };
    let given: usize = events.iter().map(data).sum();
    assert!(given.is_multiple_of(LENGTH) && given < MESSAGES * LENGTH, "{given}");
    drop(stream);
    counted(&house.fixture, "tailwater_http_sse_readers 0").await;
}
