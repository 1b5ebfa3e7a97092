//! Tokens that are signed with keys of an issuer, which are fetched by URL: which count, when keys are fetched and how
//! often, and what an issuer, or whoever poses as one, can make the gateway do.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde_json::json;
use tailwater_auth::{Key, KeyId, jwks::MAX_JWKS, mint};

use crate::{
    fixture::{Answer, Fixture, Live},
    issuer::{Issuer, Names, Pair, SECRET, Says, answer, gateway, gateway_trusting, ok, pass, said, set, settled},
    wire::serve,
};

/// Creates what is there to be read.
async fn write(fixture: &Fixture, token: &str) -> Answer {
    let headers = [("authorization", &*format!("Bearer {token}")), ("content-type", "text/plain")];
    fixture.send("PUT", "/v1/stream/chat/room", &headers, "").await
}

async fn read(fixture: &Fixture, token: &str) -> Answer {
    fixture.send("GET", "/v1/stream/chat/room?offset=-1", &[("authorization", &format!("Bearer {token}"))], "").await
}

/// What a token is answered, and why: `200`, `401 unverified`, `503 issuer_unavailable`.
async fn told(fixture: &Fixture, token: &str) -> String {
    let answer = read(fixture, token).await;
    match answer.status {
        200 => "200".to_owned(),
        401 => format!("401 {}", answer.json()["reason"].as_str().unwrap()),
        404 => "404".to_owned(),
        status => format!("{status} {}", answer.code()),
    }
}

fn fetches(outcome: &str, times: usize) -> String {
    format!("tailwater_jwks_fetches_total{{outcome=\"{outcome}\"}} {times}")
}

/// A gateway whose issuer has these keys, and a stream that they can read.
async fn started(keys: &[&Pair]) -> (Issuer, Names, Fixture) {
    let (issuer, names) = (Issuer::with(keys).await, Names::at(&["127.0.0.1"]));
    let fixture = gateway(&issuer, &names);
    assert_eq!(write(&fixture, &keys[0].token()).await.status, 201);
    (issuer, names, fixture)
}

#[tokio::test]
async fn requests_that_need_the_same_keys_wait_for_one_fetch() {
    let key = Pair::new("a");
    let (issuer, names) = (Issuer::with(&[&key]).await, Names::at(&["127.0.0.1"]));
    let fixture = gateway(&issuer, &names);
    let token = key.token();
    let answers = join_all((0..50).map(|_| told(&fixture, &token))).await;
    assert_eq!(answers, vec!["404"; 50], "they may read, and there is nothing");
    assert_eq!(write(&fixture, &token).await.status, 201);
    assert_eq!(told(&fixture, &token).await, "200");
    assert_eq!((issuer.asked().len(), names.asked()), (1, 1));
    assert!(fixture.metric(&fetches("keys", 1)) && fixture.metric("tailwater_jwks_waiting 0"));
    let asked = issuer.asked().remove(0).to_lowercase();
    assert!(asked.starts_with("get /keys?v=1 http/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("\r\nhost: login.example:{}\r\n", issuer.port)), "{asked}");
    for never in ["authorization", "cookie", "referer", "gzip"] {
        assert!(!asked.contains(never), "{asked}");
    }
}

#[tokio::test]
async fn a_key_that_the_issuer_adds_is_found_and_one_that_it_withdraws_counts_no_more() {
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    let (issuer, _names, fixture) = started(&[&old]).await;
    issuer.shows(&[&old, &new]);
    assert_eq!(told(&fixture, &new.token()).await, "401 unverified", "nobody looks again at once");
    pass(30).await;
    assert_eq!(told(&fixture, &new.token()).await, "200");
    assert_eq!((told(&fixture, &old.token()).await.as_str(), issuer.asked().len()), ("200", 2));

    issuer.shows(&[&new]);
    pass(299).await;
    assert_eq!((told(&fixture, &old.token()).await.as_str(), issuer.asked().len()), ("200", 2));
    pass(1).await;
    assert_eq!(told(&fixture, &old.token()).await, "200", "it counts while keys are fetched again");
    settled(|| fixture.metric(&fetches("keys", 3))).await;
    assert_eq!(told(&fixture, &old.token()).await, "401 unverified", "though it was remembered");
    assert_eq!(told(&fixture, &new.token()).await, "200");
}

#[tokio::test]
async fn another_key_under_the_same_name_ends_what_the_first_has_signed() {
    let (stolen, successor) = (Pair::new("a"), Pair::new("a"));
    let (issuer, _names, fixture) = started(&[&stolen]).await;
    issuer.shows(&[&successor]);
    pass(900).await;
    assert_eq!(told(&fixture, &stolen.token()).await, "401 unverified", "nobody has asked for it so long");
    assert_eq!((told(&fixture, &successor.token()).await.as_str(), issuer.asked().len()), ("200", 2));
}

#[tokio::test]
async fn a_live_answer_ends_when_the_issuer_withdraws_its_key() {
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    let (issuer, _names, fixture) = started(&[&old, &new]).await;
    // It hears what is withdrawn.
    let (_server, _address) = serve(&fixture).await;
    let follow = async |token: String| {
        let headers = [("authorization", &*format!("Bearer {token}"))];
        fixture.live("/v1/stream/chat/room?offset=-1&live=sse", &headers).await
    };
    let (mut ends, mut stays) = (follow(old.token()).await, follow(new.token()).await);
    issuer.shows(&[&new]);
    pass(300).await;
    assert_eq!(told(&fixture, &new.token()).await, "200");
    let until = async |live: &mut Live, text: &str| loop {
        let chunk = live.chunk().await.expect("it goes on until then");
        if chunk.contains(text) {
            return chunk;
        }
    };
    let last = until(&mut ends, "event: unauthorized").await;
    assert!(last.contains("revoked"), "{last}");
    assert_eq!(ends.chunk().await, None);
    let headers = [("authorization", &*format!("Bearer {}", new.token())), ("content-type", "text/plain")];
    assert_eq!(fixture.send("POST", "/v1/stream/chat/room", &headers, "still here").await.status, 204);
    until(&mut stays, "still here").await;
}

#[tokio::test]
async fn a_ticket_that_was_got_with_an_issuers_key_counts_as_long_as_that_does() {
    let key = Pair::new("a");
    let (issuer, names, fixture) = started(&[&key]).await;
    let headers = [("authorization", &*format!("Bearer {}", key.token()))];
    let body = r#"{"stream":"chat/room","origin":"https://app.example"}"#;
    let issued = fixture.send("POST", "/v1/ticket", &headers, body).await;
    assert_eq!(issued.status, 201, "{:?}", issued.body);
    // Used once, it may come back.
    let headers = [("origin", "https://app.example"), ("last-event-id", "1")];
    let uri = format!("/v1/stream/chat/room?offset=-1&ticket={}", issued.json()["ticket"].as_str().unwrap());
    assert_eq!(fixture.send("GET", &uri, &headers, "").await.status, 200);
    names.become_those(&[]);
    pass(300).await;
    assert_eq!(fixture.send("GET", &uri, &headers, "").await.status, 200, "its issuer is away");
    settled(|| fixture.metric(&fetches("unresolved", 1))).await;
    names.become_those(&["127.0.0.1"]);
    issuer.shows(&[]);
    pass(300).await;
    assert_eq!(fixture.send("GET", &uri, &headers, "").await.status, 200, "it counts while keys are fetched again");
    settled(|| fixture.metric(&fetches("keys", 2))).await;
    let refused = fixture.send("GET", &uri, &headers, "").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (401, Some("revoked")));
}

#[tokio::test]
async fn a_live_answer_ends_when_an_issuer_that_was_away_for_long_is_back_without_its_key() {
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    let (issuer, names, fixture) = started(&[&old, &new]).await;
    let (_server, _address) = serve(&fixture).await;
    let headers = [("authorization", &*format!("Bearer {}", old.token()))];
    let mut live = fixture.live("/v1/stream/chat/room?offset=-1&live=sse", &headers).await;
    names.become_those(&[]);
    pass(3600).await;
    assert_eq!(told(&fixture, &old.token()).await, "503 issuer_unavailable", "nobody is let in");
    issuer.shows(&[&new]);
    names.become_those(&["127.0.0.1"]);
    pass(60).await;
    assert_eq!(told(&fixture, &new.token()).await, "200");
    let last = loop {
        let chunk = live.chunk().await.expect("it is told why");
        if chunk.contains("event: unauthorized") {
            break chunk;
        }
    };
    assert!(last.contains("revoked"), "{last}");
}

#[tokio::test]
async fn made_up_key_ids_do_not_make_the_gateway_fetch() {
    let key = Pair::new("a");
    let (issuer, names, fixture) = started(&[&key]).await;
    let made_up = Pair::new("made-up").token();
    let (_, rest) = made_up.split_once('.').unwrap();
    let mut fetched = Vec::new();
    for minute in 0..20 {
        let tokens: Vec<_> = (0..50)
            .map(|n| {
                let header = json!({"alg": "EdDSA", "kid": format!("made-up-{minute}-{n}")}).to_string();
                format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
            })
            .collect();
        let answers = join_all(tokens.iter().map(|token| told(&fixture, token))).await;
        assert_eq!(answers, vec!["401 unverified"; 50]);
        assert_eq!(told(&fixture, &key.token()).await, "200");
        fetched.push(issuer.asked().len());
        pass(60).await;
    }
    assert!(*fetched.last().unwrap() <= 8, "{fetched:?} of 1000 in twenty minutes, four of them due anyway");
    assert_eq!(names.asked(), issuer.asked().len());
}

#[tokio::test]
async fn while_an_issuer_is_away_known_keys_count_for_an_hour_and_of_others_nothing_is_said() {
    let (key, new) = (Pair::new("a"), Pair::new("new"));
    let (issuer, names, fixture) = started(&[&key]).await;
    names.become_those(&[]);
    for _ in 0..11 {
        pass(300).await;
        assert_eq!(told(&fixture, &key.token()).await, "200");
        settled(|| fixture.metric("tailwater_jwks_waiting 0")).await;
    }
    assert_eq!(told(&fixture, &new.token()).await, "503 issuer_unavailable", "it may well count");
    assert!(fixture.metric("tailwater_jwks_failing 1"));
    pass(300).await;
    let answer = read(&fixture, &key.token()).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "issuer_unavailable"));
    assert!(!answer.header("retry-after").is_empty() && answer.header("www-authenticate").is_empty());
    let bearer = format!("Bearer {}", key.token());
    let source = [("authorization", &*bearer), ("accept", "text/event-stream"), ("cache-control", "no-cache")];
    let live = fixture.send("GET", "/v1/stream/chat/room?offset=-1&live=sse", &source, "").await;
    assert_eq!(live.status, 200);
    assert!(live.body.starts_with(b"id: refused\nretry: "), "an EventSource comes back: {:?}", live.body);

    names.become_those(&["127.0.0.1"]);
    pass(60).await;
    assert_eq!(told(&fixture, &key.token()).await, "200");
    assert_eq!(issuer.asked().len(), 2);
    assert!(fixture.metric("tailwater_jwks_failing 0"));
    let text = prometheus::TextEncoder::new().encode_to_string(&fixture.registry.gather()).unwrap();
    assert!(!text.contains("login.example"), "no metric names a host");
}

#[tokio::test]
async fn a_cookie_that_nobody_can_judge_does_not_close_what_is_public() {
    let (key, strange) = (Pair::new("a"), Pair::new("strange"));
    let (_issuer, names, fixture) = started(&[&key]).await;
    let bearer = format!("Bearer {}", key.token());
    let headers = [("authorization", &*bearer), ("content-type", "text/plain"), ("stream-visibility", "public")];
    assert_eq!(fixture.send("PUT", "/v1/stream/chat/open", &headers, "a").await.status, 201);
    names.become_those(&[]);
    pass(3700).await;
    let cookie = format!("session={}", strange.token());
    let from_page = [("cookie", &*cookie), ("sec-fetch-site", "same-origin")];
    for query in ["", "?offset=-1&live=long-poll"] {
        let ask = async |stream| fixture.send("GET", &format!("/v1/stream/chat/{stream}{query}"), &from_page, "").await;
        assert_eq!(ask("open").await.status, 200, "{query}");
        // It may well count, and whether a stream is there is not told.
        let [private, missing] = [ask("room").await, ask("none").await];
        assert_eq!((private.status, private.code().as_str()), (503, "issuer_unavailable"), "{query}");
        assert_eq!((missing.status, missing.body), (503, private.body), "{query}");
    }
    assert_eq!(fixture.send("HEAD", "/v1/stream/chat/open", &from_page, "").await.status, 200);
    assert_eq!(fixture.send("HEAD", "/v1/stream/chat/room", &from_page, "").await.status, 503);
}

#[tokio::test]
async fn what_is_no_set_of_keys_makes_no_token_count() {
    let key = Pair::new("a");
    let good = set(&[&key]);
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let chunked = format!(
        "{}{:x}\r\n{}\r\n0\r\n\r\n",
        head("transfer-encoding: chunked\r\n"),
        MAX_JWKS + 1,
        " ".repeat(MAX_JWKS + 1)
    );
    let elsewhere = "location: https://login.example/other\r\n";
    let mut private = key.jwk();
    private["d"] = "AA".into();
    let many = (0..200).fold(String::new(), |mut many, n| {
        write!(many, "x-{n}: y\r\n").unwrap();
        many
    });
    let table: [(&str, Vec<u8>); 18] = [
        ("status", answer("301 Moved Permanently", elsewhere, &good)),
        ("status", answer("302 Found", elsewhere, &good)),
        ("status", answer("307 Temporary Redirect", "location: http://169.254.169.254/\r\n", &good)),
        ("status", answer("304 Not Modified", "", "")),
        ("status", answer("404 Not Found", "", &good)),
        ("status", answer("500 Internal Server Error", "", &good)),
        ("status", answer("204 No Content", "", "")),
        ("malformed", answer("200 OK", "content-encoding: gzip\r\n", &good)),
        ("malformed", ok("<html>log in</html>")),
        ("malformed", ok(&json!({"keys": [private]}).to_string())),
        ("malformed", ok("")),
        ("malformed", ok(&format!("{good}{}", " ".repeat(MAX_JWKS)))),
        ("malformed", head("content-length: 99999999999\r\n").into_bytes()),
        ("malformed", chunked.into_bytes()),
        ("http", b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec()),
        ("http", head(&format!("x: {}\r\n", "y".repeat(64 * 1024))).into_bytes()),
        ("http", head(&many).into_bytes()),
        ("http", format!("{}{{", head("content-length: 1000\r\n")).into_bytes()),
    ];
    for (outcome, bytes) in table {
        let (issuer, names) = (Issuer::called("login.example").await, Names::at(&["127.0.0.1"]));
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        issuer.says(Says::Bytes(bytes));
        let fixture = gateway(&issuer, &names);
        assert_eq!(told(&fixture, &key.token()).await, "503 issuer_unavailable", "{shown}");
        assert!(fixture.metric(&fetches(outcome, 1)), "{outcome}: {shown}");
        assert_eq!((issuer.asked().len(), names.asked()), (1, 1), "nothing is followed: {shown}");
        issuer.shows(&[&key]);
        pass(1).await;
        assert_eq!(told(&fixture, &key.token()).await, "404", "it may read, and there is nothing: {shown}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_slow_is_cut_off_and_holds_up_nobody_else() {
    let key = Pair::new("a");
    let (issuer, names) = (Issuer::called("login.example").await, Names::at(&["127.0.0.1"]));
    let whole = ok(&set(&[&key]));
    issuer.says(Says::Stalls(whole[..whole.len() - 1].to_vec()));
    let fixture = gateway(&issuer, &names);
    let token = key.token();
    let waiting = async { told(&fixture, &token).await };
    let meanwhile = async {
        issuer.asked_times(1).await;
        settled(|| fixture.metric("tailwater_jwks_waiting 1")).await;
        let own = Key::secret(None, SECRET.as_bytes()).unwrap().signing().unwrap();
        let own = mint(&own, &said(|token| token.project = tailwater_protocol::ProjectId::parse("own").unwrap()));
        let headers = [("authorization", &*format!("Bearer {}", own.unwrap()))];
        assert_eq!(fixture.send("GET", "/v1/stream/own/room?offset=-1", &headers, "").await.status, 404);
        pass(5).await;
    };
    let (told, ()) = tokio::join!(waiting, meanwhile);
    assert_eq!(told, "503 issuer_unavailable");
    assert!(fixture.metric(&fetches("timed_out", 1)));
    assert!(fixture.metric("tailwater_jwks_unjudged_total{reason=\"away\"} 1"));
}

#[tokio::test]
async fn a_host_with_an_address_inside_is_not_connected_to() {
    let key = Pair::new("a");
    for addresses in [
        &["10.0.0.1"][..],
        &["127.0.0.1", "169.254.169.254"],
        &["192.168.0.1", "127.0.0.1"],
        &["127.0.0.1", "::1"],
        &["::ffff:127.0.0.1"],
        &["fd00::1"],
        &["0.0.0.0"],
    ] {
        let (issuer, names) = (Issuer::with(&[&key]).await, Names::at(addresses));
        let fixture = gateway(&issuer, &names);
        assert_eq!(told(&fixture, &key.token()).await, "503 issuer_unavailable", "{addresses:?}");
        assert!(fixture.metric(&fetches("forbidden_address", 1)), "{addresses:?}");
        assert_eq!(issuer.asked().len(), 0);
    }
}

#[tokio::test]
async fn a_name_is_resolved_once_for_each_fetch_and_judged_each_time() {
    let key = Pair::new("a");
    let (issuer, names, fixture) = started(&[&key]).await;
    assert_eq!((issuer.asked().len(), names.asked()), (1, 1));
    names.become_those(&["10.0.0.1"]);
    pass(300).await;
    assert_eq!(told(&fixture, &key.token()).await, "200");
    settled(|| fixture.metric(&fetches("forbidden_address", 1))).await;
    assert_eq!((issuer.asked().len(), names.asked()), (1, 2));
}

#[tokio::test]
async fn who_is_not_the_issuer_is_not_asked() {
    let key = Pair::new("a");
    let names = Names::at(&["127.0.0.1"]);
    let (other, stranger) = (Issuer::called("evil.example").await, Issuer::with(&[&key]).await);
    for (issuer, authority) in [(&other, &other.certificate), (&stranger, &other.certificate)] {
        issuer.shows(&[&key]);
        let fixture = gateway_trusting(issuer, &names, authority, &format!("login.example:{}", issuer.port));
        assert_eq!(told(&fixture, &key.token()).await, "503 issuer_unavailable");
        assert!(fixture.metric(&fetches("tls", 1)));
        assert_eq!(issuer.asked().len(), 0);
    }
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_not_even_resolved() {
    let key = Pair::new("a");
    let (issuer, names) = (Issuer::with(&[&key]).await, Names::at(&["127.0.0.1"]));
    for listed in ["login.example", "login.example:1", "keys.login.example"] {
        let fixture = gateway_trusting(&issuer, &names, &issuer.certificate, listed);
        assert_eq!(told(&fixture, &key.token()).await, "401 unverified", "{listed}");
    }
    assert_eq!((issuer.asked().len(), names.asked()), (0, 0));
}

#[tokio::test]
async fn a_token_that_no_key_of_the_issuer_could_verify_fetches_nothing() {
    let key = Pair::new("a");
    let (issuer, names) = (Issuer::with(&[&key]).await, Names::at(&["127.0.0.1"]));
    let fixture = gateway(&issuer, &names);
    let token = key.token();
    let (_, rest) = token.split_once('.').unwrap();
    let headed = |header: serde_json::Value| format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
    let x = URL_SAFE_NO_PAD.decode(key.jwk()["x"].as_str().unwrap()).unwrap();
    let confused = Key::secret(Some(KeyId::parse("a").unwrap()), &x).unwrap().signing().unwrap();
    let address = format!("https://login.example:{}/keys", issuer.port);
    let table = [
        (headed(json!({"alg": "EdDSA", "kid": "a", "jku": address})), "401 header"),
        (headed(json!({"alg": "EdDSA", "kid": "a", "x5u": address})), "401 header"),
        (headed(json!({"alg": "EdDSA", "kid": "a", "jwk": key.jwk()})), "401 header"),
        (headed(json!({"alg": "EdDSA", "kid": "a", "crit": ["jku"]})), "401 header"),
        (headed(json!({"alg": "EdDSA", "kid": "../keys"})), "401 header"),
        (headed(json!({"alg": "none", "kid": "a"})), "401 header"),
        (headed(json!({"alg": "EdDSA"})), "401 unverified"),
        (headed(json!({"alg": "HS256", "kid": "a"})), "401 unverified"),
        (mint(&confused, &said(|_| {})).unwrap(), "401 unverified"),
    ];
    for (token, expected) in table {
        assert_eq!(told(&fixture, &token).await, expected, "{token}");
    }
    assert_eq!((issuer.asked().len(), names.asked()), (0, 0));
}

#[tokio::test]
async fn a_token_of_the_issuer_is_judged_as_any_other() {
    let (key, thief) = (Pair::new("a"), Pair::new("a"));
    let (issuer, _names, fixture) = started(&[&key]).await;
    let swapped = {
        let (head, _) = key.token().rsplit_once('.').map(|(head, tail)| (head.to_owned(), tail.to_owned())).unwrap();
        format!("{head}.{}", thief.token().rsplit_once('.').unwrap().1)
    };
    let table = [
        (key.token(), "200"),
        (thief.token(), "401 unverified"),
        (swapped, "401 unverified"),
        (key.token_saying(|token| token.issuer = Some("https://evil.example".to_owned())), "401 issuer"),
        (key.token_saying(|token| token.issuer = None), "401 issuer"),
        (key.token_saying(|token| token.project = tailwater_protocol::ProjectId::parse("own").unwrap()), "401 project"),
        (key.token_saying(|token| (token.issued_at, token.expires_at) = (1, 2)), "401 expired"),
    ];
    for (token, expected) in table {
        assert_eq!(told(&fixture, &token).await, expected);
    }
    let headers = [("authorization", &*format!("Bearer {}", key.token()))];
    let foreign = fixture.send("GET", "/v1/stream/own/room?offset=-1", &headers, "").await;
    assert_eq!((foreign.status, foreign.json()["reason"].as_str()), (401, Some("unverified")));
    assert_eq!(issuer.asked().len(), 1);
}

#[tokio::test]
async fn the_administration_knows_an_issuers_keys_and_makes_no_tokens_with_them() {
    let key = Pair::new("a");
    let (issuer, _names, fixture) = started(&[&key]).await;
    let token = key.token();
    let headers = [("authorization", &*format!("Bearer {token}"))];
    let inspected = fixture.send("POST", "/v1/admin/projects/chat/tokens/inspect", &headers, token.clone()).await;
    assert_eq!(inspected.json()["verdict"]["counts"], true);
    let project = fixture.send("GET", "/v1/admin/projects/chat", &headers, "").await.json();
    assert_eq!(project["jwks"], format!("https://login.example:{}/keys", issuer.port), "without its query");
    assert_eq!(project["keys"], json!([]));
    let made = fixture.send("POST", "/v1/admin/projects/chat/tokens", &headers, "{\"scope\":[\"read\"]}").await;
    assert_eq!((made.status, made.code().as_str()), (409, "key_cannot_sign"));
}
