//! Tickets and cookies: how they are got, and what they let whom read.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, poll, stream};
use rcgen::{KeyPair, PKCS_ED25519};
use tailwater_auth::{File, NewToken, Projects, Scopes, SigningKey, TicketSecrets, mint};
use tailwater_protocol::ProjectId;
use tailwater_server::{Auth, Config, Guard};
use tailwater_testkit::ScriptedUpstream;
use tokio::time::Instant;

use crate::{
    fixture::{Answer, Fixture, NOW_MS},
    rights::{PAGE, PROJECTS, credentials, guarded, prepare, ticket, token},
};

const STREAM: &str = "/v1/stream/chat/room/a%20b";
const EVIL: &str = "https://evil.example";

async fn wanted(fixture: &Fixture, bearer: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[("authorization", bearer)], headers].concat();
    fixture.send("POST", "/v1/ticket", &headers, body.to_owned()).await
}

/// A gateway with these projects, and perhaps a secret of its own.
fn of_projects(upstream: ScriptedUpstream, projects: &str, secret: Option<&[u8]>) -> Fixture {
    let projects = Projects::parse([File { name: "projects.toml", bytes: projects.as_bytes() }]).unwrap();
    let auth = Auth::Required(Guard::fixed(projects, Duration::from_secs(30)));
    let ticket_secrets = TicketSecrets::new(secret).unwrap();
    Fixture::on(upstream, Config { auth, ticket_secrets, ..Config::default() }, Default::default())
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_issued_for_a_token_and_reads_its_stream_from_its_page() {
    let fixture = guarded();
    prepare(&fixture, "private").await;
    let bearer = credentials("all").unwrap();
    for name in ["chat/room/a%20b", "/v1/stream/chat/room/a%20b", "%63hat/room/%61 b"] {
        let body = format!(r#"{{"origin":"{PAGE}","stream":"{name}"}}"#);
        let answer = wanted(&fixture, &bearer, &[], &body).await;
        assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"), "{name}");
        let said = answer.json();
        assert_eq!(said["expiresAt"], NOW_MS / 1000 + 60);
        assert_eq!(said["id"], "ticket-BwcHBwcHBwcH");
        let ticket = said["ticket"].as_str().unwrap();
        for query in ["", "offset=-1&live=sse&", "offset=-1&live=long-poll&"] {
            let uri = format!("{STREAM}?{query}ticket={ticket}");
            let response = fixture.respond("GET", &uri, &[("origin", PAGE)], Default::default()).await;
            assert_eq!(response.status(), 200, "{uri}");
            let refused = fixture.send("GET", &uri, &[("origin", EVIL)], "").await;
            assert_eq!((refused.status, refused.code().as_str()), (401, "ticket_refused"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whether_a_stream_is_there_is_not_told_with_its_ticket() {
    let bearer = credentials("elsewhere").unwrap();
    let (own, body) = (credentials("own").unwrap(), format!(r#"{{"origin":"{PAGE}","stream":"chat/room/a%20b"}}"#));
    let mut answers = Vec::new();
    for subject in ["private", "public", "missing", "native"] {
        let fixture = guarded();
        prepare(&fixture, subject).await;
        let before = fixture.upstream.counts();
        let [refused, issued] = [wanted(&fixture, &bearer, &[], &body).await, wanted(&fixture, &own, &[], &body).await];
        assert_eq!((refused.status, refused.code().as_str(), issued.status), (404, "stream_not_found", 201));
        assert_eq!(fixture.upstream.counts(), before, "the store was asked");
        answers.push((refused.body, issued.body));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_ticket_says_all_that_it_is_for_and_nothing_else() {
    let fixture = guarded();
    let bearer = credentials("all").unwrap();
    let with = |stream: &str, origin: &str| format!(r#"{{"stream":{stream},"origin":{origin}}}"#);
    let page = format!("\"{PAGE}\"");
    let table = [
        (String::new(), 400, "invalid_ticket_request"),
        ("{}".to_owned(), 400, "invalid_ticket_request"),
        (format!(r#"["chat/s",{page}]"#), 400, "invalid_ticket_request"),
        (with("\"chat/s\"", "null"), 400, "invalid_ticket_request"),
        (with("null", &page), 400, "invalid_ticket_request"),
        (with("\"chat/s\"", &format!("{page},\"scope\":\"write\"")), 400, "invalid_ticket_request"),
        (with("\"chat/s\"", &format!("{page},\"stream\":\"chat/t\"")), 400, "invalid_ticket_request"),
        (with("\"chat/s\"", "\"*\""), 400, "invalid_ticket_request"),
        (with("\"chat/s\"", "\"null\""), 400, "invalid_ticket_request"),
        (with("\"chat/s\"", "\"https://app.example/\""), 400, "invalid_ticket_request"),
        (with("\"chat/s?offset=-1\"", &page), 400, "invalid_stream_name"),
        (with("\"chat/../s\"", &page), 400, "invalid_stream_name"),
        (with("\"https://h/v1/stream/chat/s\"", &page), 400, "invalid_stream_name"),
        (with("\"\"", &page), 400, "invalid_stream_name"),
        (with("\"other/s\"", &page), 401, "token_refused"),
        (with("\"nowhere/s\"", &page), 401, "token_refused"),
        (with(&format!("\"{}\"", "x".repeat(9000)), &page), 413, "body_too_large"),
    ];
    for (body, status, code) in table {
        let answer = wanted(&fixture, &bearer, &[], &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("chat/t"), "nothing of what it says is repeated");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_gets_tickets_for_itself_and_sees_them_where_its_project_names_it() {
    let fixture = guarded();
    let table = [
        // The project, the page that asks, the page that the ticket is for: status, and who may see the answer.
        ("shared", PAGE, PAGE, 201, PAGE),
        ("shared", EVIL, EVIL, 201, ""),
        ("shared", EVIL, PAGE, 400, ""),
        ("shared", PAGE, EVIL, 400, PAGE),
        ("shared", "null", PAGE, 400, ""),
        ("wide", EVIL, EVIL, 201, "*"),
        ("chat", PAGE, PAGE, 201, ""),
    ];
    for (project, page, origin, status, seen) in table {
        let body = format!(r#"{{"stream":"{project}/s","origin":"{origin}"}}"#);
        let bearer = format!("Bearer {}", token(project, "read", None, 60));
        let answer = wanted(&fixture, &bearer, &[("origin", page)], &body).await;
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!((answer.status, allowed), (status, seen), "{project} {page} {origin}");
        let refused = wanted(&fixture, "Bearer junk", &[("origin", page)], &body).await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, ""));
    }
    let preflight = fixture.send("OPTIONS", "/v1/ticket", &[("origin", EVIL)], "").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, "*"));
    assert!(preflight.header("access-control-allow-headers").contains("authorization"));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_used_soon_or_goes_on_and_is_refused_with_its_reason() {
    let fixture = guarded();
    prepare(&fixture, "private").await;
    let good = ticket("chat", "room/a b", PAGE, 0);
    let late = ticket("chat", "room/a b", PAGE, 90);
    let own = ticket("chat", "room/a b", "http://gateway.example:4437", 0);
    let at = |origin| vec![("origin", origin)];
    let here = |site, host| vec![("sec-fetch-site", site), ("host", host)];
    let resumed = |id| vec![("origin", PAGE), ("last-event-id", id)];
    let table = [
        (format!("?ticket={good}"), at(PAGE), 200, ""),
        (format!("?ticket={good}"), vec![], 401, "no_origin"),
        (format!("?ticket={good}"), at("null"), 401, "unverified"),
        (format!("?ticket={good}"), at("https://APP.example"), 401, "unverified"),
        (format!("?ticket={good}"), here("same-origin", "gateway.example:4437"), 401, "unverified"),
        (format!("?ticket={own}"), here("same-origin", "gateway.example:4437"), 200, ""),
        (format!("?ticket={own}"), here("same-site", "gateway.example:4437"), 401, "no_origin"),
        (format!("?ticket={own}"), here("same-origin", "evil.example"), 401, "unverified"),
        (format!("?ticket={own}"), vec![("host", "gateway.example:4437")], 401, "no_origin"),
        (format!("?%74icket={good}"), at(PAGE), 200, ""),
        (format!("?ticket={late}"), at(PAGE), 401, "late"),
        (format!("?ticket={late}"), resumed(""), 401, "late"),
        (format!("?ticket={late}"), resumed("0_0"), 200, ""),
        ("?ticket".to_owned(), at(PAGE), 401, "form"),
        (format!("?ticket={}", "x".repeat(600)), at(PAGE), 401, "too_long"),
        (format!("?ticket={}", token("chat", "read", None, 60)), at(PAGE), 401, "form"),
        (format!("?ticket={}", &good[1..]), at(PAGE), 401, "form"),
    ];
    for (query, headers, status, reason) in table {
        let answer = fixture.send("GET", &format!("{STREAM}{query}"), &headers, "").await;
        assert_eq!(answer.status, status, "{query} {headers:?}");
        if status == 401 {
            assert_eq!((answer.code().as_str(), answer.json()["reason"].as_str()), ("ticket_refused", Some(reason)));
            assert!(answer.header("www-authenticate").contains("invalid_token"));
        }
    }
    let twice = fixture.send("GET", &format!("{STREAM}?ticket={good}&ticket={good}"), &at(PAGE), "").await;
    assert_eq!((twice.status, twice.code().as_str()), (400, "repeated_ticket"));
    let bearer = credentials("all").unwrap();
    let both = [("authorization", bearer.as_str()), ("origin", PAGE)];
    let answer = fixture.send("GET", &format!("{STREAM}?ticket={good}"), &both, "").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "two_credentials"));
    let as_token = format!("Bearer {good}");
    let answer = fixture.send("GET", STREAM, &[("authorization", &as_token), ("origin", PAGE)], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_refused"));
    let written = fixture.send("POST", &format!("{STREAM}?ticket={good}"), &at(PAGE), "x").await;
    assert_eq!((written.status, written.code().as_str()), (401, "token_needed"));
}

#[tokio::test(start_paused = true)]
async fn the_body_of_who_has_no_token_that_counts_is_not_kept() {
    let projects = Projects::parse([File { name: "projects.toml", bytes: PROJECTS.as_bytes() }]).unwrap();
    let auth = Auth::Required(Guard::fixed(projects, Duration::from_secs(30)));
    let fixture = Fixture::with(Config { auth, body_budget: 1024, ..Config::default() }, Default::default());
    let body = format!(r#"{{"stream":"chat/s","origin":"{PAGE}"}}"#);
    let good = credentials("all").unwrap();
    let (signed, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", "A".repeat(43));
    for bearer in [forged, credentials("expired").unwrap()] {
        let crumbs =
            stream::iter(body.clone().into_bytes()).map(|byte| Ok::<_, Infallible>(Bytes::copy_from_slice(&[byte])));
        let unending = Body::from_stream(crumbs.chain(stream::pending()));
        let headers = [("authorization", bearer.as_str())];
        let (began, mut slow) = (Instant::now(), pin!(fixture.send("POST", "/v1/ticket", &headers, unending)));
        assert!(poll!(&mut slow).is_pending());
        assert_eq!(wanted(&fixture, &good, &[], &body).await.status, 201, "all of the budget is there");
        let refused = slow.await;
        assert_eq!((refused.status, refused.code().as_str()), (401, "token_refused"));
        assert_eq!(began.elapsed(), Duration::from_secs(5), "it is thrown away for as long as any");
    }
    let unending = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let began = Instant::now();
    let late = fixture.send("POST", "/v1/ticket", &[("authorization", &good)], unending).await;
    assert_eq!((late.status, began.elapsed()), (408, Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_for_a_while_comes_back_with_the_ticket_after_its_first_minute() {
    let fixture = guarded();
    prepare(&fixture, "private").await;
    let bearer = credentials("all").unwrap();
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    let first = fixture.send("POST", STREAM, &headers, "first").await.header("stream-next-offset").to_owned();
    assert_eq!(fixture.send("POST", STREAM, &headers, "second").await.status, 204);
    let live = |ticket: &str| format!("{STREAM}?offset={first}&live=sse&ticket={ticket}");
    let event_source = [("origin", PAGE), ("accept", "text/event-stream"), ("cache-control", "no-cache")];

    let full = of_projects(fixture.upstream.clone(), PROJECTS, None);
    full.app.drain().begin();
    let told = full.send("GET", &live(&ticket("chat", "room/a b", PAGE, 0)), &event_source, "").await;
    assert_eq!(told.status, 200);
    let told = String::from_utf8(told.body.into()).unwrap();
    let id = told.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id to come back with");
    assert!(told.contains("retry: "), "{told}");

    let late = live(&ticket("chat", "room/a b", PAGE, 90));
    let refused = fixture.send("GET", &late, &event_source, "").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (401, Some("late")));
    let back = [&event_source[..], &[("last-event-id", id)]].concat();
    let got = fixture.live(&late, &back).await.chunk().await.unwrap();
    assert!(got.contains("second") && !got.contains("first"), "{got}");
}

#[tokio::test(start_paused = true)]
async fn revoking_a_ticket_ends_it() {
    let fixture = guarded();
    prepare(&fixture, "private").await;
    let uri = format!("{STREAM}?ticket={}", ticket("chat", "room/a b", PAGE, 0));
    assert_eq!(fixture.send("GET", &uri, &[("origin", PAGE)], "").await.status, 200);
    let cookie = "cookie = \"__Host-session\"";
    let revoked = PROJECTS.replace(cookie, &format!("{cookie}\nrevoked = [\"ticket-BwcHBwcHBwcH\"]"));
    let later = of_projects(fixture.upstream.clone(), &revoked, None);
    let answer = later.send("GET", &uri, &[("origin", PAGE)], "").await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (401, Some("revoked")));
}

#[tokio::test(start_paused = true)]
async fn tickets_of_a_project_with_a_public_key_need_a_secret_of_the_gateway() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let projects = format!(
        "[[project]]\nid = 'chat'\n[[project.key]]\nalgorithm = 'EdDSA'\npublic-key = '''\n{}'''\n",
        pair.public_key_pem()
    );
    let new = NewToken {
        project: ProjectId::parse("chat").unwrap(),
        scopes: Scopes::among(["read", "write"]),
        streams: None,
        issued_at: NOW_MS / 1000,
        expires_at: NOW_MS / 1000 + 60,
        not_before: None,
        audience: None,
        issuer: None,
        id: None,
    };
    let key = SigningKey::private(None, &pair.serialize_pem()).unwrap();
    let bearer = format!("Bearer {}", mint(&key, &new).unwrap());
    let body = format!(r#"{{"stream":"chat/room/a%20b","origin":"{PAGE}"}}"#);
    let without = of_projects(ScriptedUpstream::new(Default::default()), &projects, None);
    let missing = wanted(&without, &bearer, &[], &body).await;
    assert_eq!((missing.status, missing.code().as_str()), (409, "ticket_secret_missing"));

    let secret: &[u8] = b"the secret of this gateway, and it is long enough";
    let fixture = of_projects(without.upstream.clone(), &projects, Some(secret));
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    assert_eq!(fixture.send("PUT", STREAM, &headers, "hello").await.status, 201);
    let issued = wanted(&fixture, &bearer, &[], &body).await.json();
    let uri = format!("{STREAM}?ticket={}", issued["ticket"].as_str().unwrap());
    assert_eq!(fixture.send("GET", &uri, &[("origin", PAGE)], "").await.body, "hello");
    let answer = without.send("GET", &uri, &[("origin", PAGE)], "").await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (401, Some("unverified")));
}

#[tokio::test(start_paused = true)]
async fn a_cookie_reads_for_pages_of_the_site_and_of_named_origins_and_does_nothing_else() {
    let fixture = guarded();
    let writer = format!("Bearer {}", token("shared", "write", None, 60));
    for visibility in ["private", "public"] {
        let headers =
            [("authorization", writer.as_str()), ("content-type", "text/plain"), ("stream-visibility", visibility)];
        assert_eq!(fixture.send("PUT", &format!("/v1/stream/shared/{visibility}"), &headers, "a").await.status, 201);
    }
    let all = format!("session={}", token("shared", "read write manage", None, 60));
    let expired = format!("session={}", token("shared", "read", None, -31));
    let twice = format!("{all}; {all}");
    let site = ("sec-fetch-site", "same-site");
    let own = ("sec-fetch-site", "same-origin");
    let cross = ("sec-fetch-site", "cross-site");
    type Headers<'h> = Vec<(&'h str, &'h str)>;
    let table: [(Headers<'_>, &str, u16, u16); 14] = [
        // The headers; the code of what is private where it is refused, and the statuses of what is private and public.
        (vec![("cookie", &all), own], "", 200, 200),
        (vec![("cookie", &all), site], "", 200, 200),
        (vec![("cookie", &all), cross, ("origin", PAGE)], "", 200, 200),
        (vec![("cookie", &all), ("origin", PAGE)], "", 200, 200),
        (vec![("cookie", "x=1"), ("cookie", &all), own], "", 200, 200),
        (vec![("cookie", &all), cross, ("origin", EVIL)], "token_needed", 401, 200),
        (vec![("cookie", &all), cross], "token_needed", 401, 200),
        (vec![("cookie", &all), ("sec-fetch-site", "none")], "token_needed", 401, 200),
        (vec![("cookie", &all)], "token_needed", 401, 200),
        (vec![("cookie", &all), own, ("authorization", "Basic YTph")], "token_needed", 401, 200),
        (vec![("cookie", &twice), own], "token_needed", 401, 200),
        (vec![("cookie", "session=junk"), own], "token_needed", 401, 200),
        (vec![("cookie", &expired), own], "token_refused", 401, 200),
        (vec![("cookie", &expired), cross], "token_needed", 401, 200),
    ];
    for (headers, code, private, public) in table {
        let answer = fixture.send("GET", "/v1/stream/shared/private", &headers, "").await;
        assert_eq!(answer.status, private, "{headers:?}");
        assert!(private == 200 || answer.code() == code, "{headers:?}: {}", answer.code());
        assert_eq!(fixture.send("GET", "/v1/stream/shared/public", &headers, "").await.status, public, "{headers:?}");
        assert_eq!(
            fixture.send("HEAD", "/v1/stream/shared/private", &headers, "").await.status,
            private,
            "{headers:?}"
        );
        let elsewhere = [("PUT", "/v1/stream/shared/new"), ("POST", "/v1/stream/shared/private")];
        for (method, path) in [("DELETE", "/v1/stream/shared/private"), ("POST", "/v1/ticket")].iter().chain(&elsewhere)
        {
            let answer = fixture.send(method, path, &headers, "x").await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "token_needed"), "{method} {path} {headers:?}");
        }
        let admin = fixture.send("GET", "/v1/admin/projects/shared", &headers, "").await;
        assert_eq!(admin.status, 401, "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_may_have_its_browser_send_the_cookie_where_the_project_names_both() {
    let fixture = guarded();
    let table = [
        ("shared", PAGE, "GET", true),
        ("shared", PAGE, "HEAD", true),
        ("shared", PAGE, "POST", false),
        ("shared", PAGE, "DELETE", false),
        ("shared", EVIL, "GET", false),
        ("shared", "null", "GET", false),
        ("wide", PAGE, "GET", false),
        ("chat", PAGE, "GET", false),
        ("other", PAGE, "GET", false),
        ("nowhere", PAGE, "GET", false),
    ];
    for (project, origin, method, allowed) in table {
        let path = format!("/v1/stream/{project}/s");
        let meant = [("origin", origin), ("access-control-request-method", method)];
        let preflight = fixture.send("OPTIONS", &path, &meant, "").await;
        let answer = fixture.send(method, &path, &[("origin", origin)], "").await;
        for answer in [preflight, answer] {
            let credentials = answer.header("access-control-allow-credentials");
            assert_eq!(credentials, if allowed { "true" } else { "" }, "{project} {origin} {method}");
        }
    }
}
