//! What was good in another place, for something else, or before, and is sent again: tokens, tickets and cookies.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tailwater_auth::ticket::{FIRST_USE, MAX_LIFE};

use crate::{
    attacked::{House, OPERATOR, Told, told},
    attacks::good,
    fixture::Later,
    forge::{KEYS, NOW, SKEW, by_pair, claims_with, hs_header, hs256},
    rights::PAGE,
};

const EVIL: &str = "https://evil.example";
const STREAM: &str = "/v1/stream/chat/s";
const TICKETS: &str = "/v1/ticket";
const ADMIN: &str = "/v1/admin/projects/chat";
/// How long the tokens here say that they last, in seconds.
const LASTS: u64 = 600;

type Headers = Vec<(&'static str, String)>;

fn bearer(token: &str) -> Headers {
    vec![("authorization", format!("Bearer {token}")), ("content-type", "text/plain".to_owned())]
}

fn page(origin: &str) -> Headers {
    vec![("origin", origin.to_owned())]
}

fn at(path: &str) -> String {
    path.to_owned()
}

/// A cookie as a page of the gateway's own origin sends it.
fn cookie(value: &str) -> Headers {
    vec![("cookie", format!("session={value}")), ("sec-fetch-site", "same-origin".to_owned())]
}

/// A token of a public algorithm, whose signature is remembered.
fn remembered(id: &str) -> String {
    by_pair(&KEYS.p256, &json!({"alg": "ES256"}), &claims_with(&json!({"jti": id})))
}

impl House {
    async fn status(&self, uri: &str, headers: &Headers) -> u16 {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.fixture.send("GET", uri, &headers, "").await.status
    }

    /// A ticket for the stream, as a page gets it.
    async fn ticket(&self, token: &str) -> String {
        let headers = [("authorization", &*format!("Bearer {token}"))];
        let answer = self.fixture.send("POST", TICKETS, &headers, WANTED).await;
        assert_eq!(answer.status, 201);
        answer.json()["ticket"].as_str().unwrap().to_owned()
    }

    /// What bears this id counts no more.
    async fn revoke(&self, id: &str) {
        let headers = [("authorization", &*format!("Bearer {OPERATOR}"))];
        let body = json!({"id": id}).to_string();
        let answer = self.fixture.send("POST", &format!("{ADMIN}/revocations"), &headers, body).await;
        assert_eq!(answer.status, 200);
    }

    async fn refuses_to_read(&self, name: &str, uri: &str, headers: Headers, expected: Told) {
        let answer = self.refuses(name, &("GET", uri.to_owned(), headers, String::new())).await;
        let (status, code, reason) = told(&answer);
        assert_eq!((status, code.as_str(), reason.as_str()), expected, "{name}");
    }
}

const WANTED: &str = r#"{"stream":"chat/s","origin":"https://app.example"}"#;
const NEEDED: Told = (401, "token_needed", "");
const UNVERIFIED: Told = (401, "token_refused", "unverified");
const OF_ANOTHER: Told = (401, "token_refused", "project");
const NO_TOKEN: Told = (401, "token_refused", "form");
const NO_TICKET: Told = (401, "ticket_refused", "form");
const ANOTHERS: Told = (401, "ticket_refused", "unverified");

/// What it is, the method, the URL, what is shown there, and what must come of it.
type Replay = (&'static str, &'static str, String, Headers, Told);

/// A token where another one is needed, or something else.
fn tokens(token: &str, ticket: &str) -> Vec<Replay> {
    let both = || [bearer(token), page(PAGE)].concat();
    vec![
        ("a token as a ticket", "GET", format!("{STREAM}?ticket={token}"), page(PAGE), NO_TICKET),
        ("a token as a parameter", "GET", format!("{STREAM}?access_token={token}"), page(PAGE), NEEDED),
        ("a token as a password", "GET", at(STREAM), vec![("authorization", format!("Basic {token}"))], NEEDED),
        ("a token twice", "GET", at(STREAM), [bearer(token), bearer(token)].concat(), (400, "repeated_header", "")),
        ("a token at another project", "GET", at("/v1/stream/other/s"), bearer(token), UNVERIFIED),
        ("a token at one with its secret", "GET", at("/v1/stream/twin/s"), bearer(token), OF_ANOTHER),
        ("a token at no project", "GET", at("/v1/stream/nowhere/s"), bearer(token), UNVERIFIED),
        ("a token at another's administration", "GET", at("/v1/admin/projects/twin"), bearer(token), OF_ANOTHER),
        ("a token beside a ticket", "GET", format!("{STREAM}?ticket={ticket}"), both(), (400, "two_credentials", "")),
    ]
}

/// A ticket as something else, for something else, or changed.
fn tickets(ticket: &str) -> Vec<Replay> {
    let with = |path: &str| format!("{path}?ticket={ticket}");
    // The version, an id of 9 bytes, the print of a key; and the signature, in 43 characters.
    let changed = |at: usize| {
        let (carried, signature) = ticket.split_at(ticket.len() - 43);
        let mut carried = URL_SAFE_NO_PAD.decode(carried).unwrap();
        carried[at] ^= 1;
        format!("{STREAM}?ticket={}{signature}", URL_SAFE_NO_PAD.encode(carried))
    };
    vec![
        ("a ticket as a token", "GET", at(STREAM), bearer(ticket), NO_TOKEN),
        ("a ticket as a token that writes", "POST", at(STREAM), bearer(ticket), NO_TOKEN),
        ("a ticket as a token for a ticket", "POST", at(TICKETS), bearer(ticket), NO_TOKEN),
        ("a ticket as a token of administration", "GET", at(ADMIN), bearer(ticket), NO_TOKEN),
        ("a ticket as a cookie", "GET", at(STREAM), cookie(ticket), NEEDED),
        (
            "a ticket twice",
            "GET",
            format!("{STREAM}?ticket={ticket}&ticket={ticket}"),
            page(PAGE),
            (400, "repeated_ticket", ""),
        ),
        ("a ticket by another id", "GET", changed(1), page(PAGE), ANOTHERS),
        ("a ticket of another token's key", "GET", changed(10), page(PAGE), ANOTHERS),
        ("a ticket for another stream", "GET", with("/v1/stream/chat/t"), page(PAGE), ANOTHERS),
        ("a ticket for what is below", "GET", with("/v1/stream/chat/s/a/b"), page(PAGE), ANOTHERS),
        ("a ticket for what is not there", "GET", with("/v1/stream/chat/none"), page(PAGE), ANOTHERS),
        ("a ticket for another project", "GET", with("/v1/stream/other/s"), page(PAGE), ANOTHERS),
        ("a ticket for one with its secret", "GET", with("/v1/stream/twin/s"), page(PAGE), ANOTHERS),
        ("a ticket for no project", "GET", with("/v1/stream/nowhere/s"), page(PAGE), ANOTHERS),
        ("a ticket from another page", "GET", with(STREAM), page(EVIL), ANOTHERS),
        ("a ticket from an opaque page", "GET", with(STREAM), page("null"), ANOTHERS),
        ("a ticket from no page", "GET", with(STREAM), vec![], (401, "ticket_refused", "no_origin")),
        ("a ticket that appends", "POST", with(STREAM), page(PAGE), NEEDED),
        ("a ticket that creates", "PUT", with("/v1/stream/chat/new"), page(PAGE), NEEDED),
        ("a ticket that deletes", "DELETE", with(STREAM), page(PAGE), NEEDED),
        ("a ticket for a ticket", "POST", with(TICKETS), page(PAGE), NEEDED),
        ("a ticket at the administration", "GET", with(ADMIN), page(PAGE), NEEDED),
    ]
}

/// A cookie that does more than to read, or that no page of the site has sent.
fn cookies(token: &str) -> Vec<Replay> {
    let from = |site: &str, more: Headers| {
        [vec![("cookie", format!("session={token}")), ("sec-fetch-site", site.to_owned())], more].concat()
    };
    vec![
        ("a cookie that appends", "POST", at(STREAM), cookie(token), NEEDED),
        ("a cookie that creates", "PUT", at("/v1/stream/chat/new"), cookie(token), NEEDED),
        ("a cookie that deletes", "DELETE", at(STREAM), cookie(token), NEEDED),
        ("a cookie for a ticket", "POST", at(TICKETS), cookie(token), NEEDED),
        ("a cookie at the administration", "GET", at(ADMIN), cookie(token), NEEDED),
        ("a cookie of another site", "GET", at(STREAM), from("cross-site", page(EVIL)), NEEDED),
        ("a cookie of nobody", "GET", at(STREAM), from("none", vec![]), NEEDED),
        (
            "a cookie twice",
            "GET",
            at(STREAM),
            from("same-origin", vec![("cookie", format!("session={token}"))]),
            NEEDED,
        ),
        (
            "a cookie beside a password",
            "GET",
            at(STREAM),
            from("same-origin", vec![("authorization", at("Basic YTph"))]),
            NEEDED,
        ),
        ("a cookie at one with its secret", "GET", at("/v1/stream/twin/s"), cookie(token), NEEDED),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_is_good_in_one_place_is_refused_in_others() {
    let house = House::new().await;
    house.make_streams().await;
    let token = good();
    let ticket = house.ticket(&token).await;
    for (uri, headers) in [
        (STREAM.to_owned(), bearer(&token)),
        (format!("{STREAM}?ticket={ticket}"), page(PAGE)),
        (STREAM.to_owned(), cookie(&token)),
    ] {
        assert_eq!(house.status(&uri, &headers).await, 200, "{uri} {headers:?}");
    }
    let replays = [tokens(&token, &ticket), tickets(&ticket), cookies(&token)].concat();
    assert_eq!(replays.iter().map(|(name, ..)| name).collect::<BTreeSet<_>>().len(), replays.len(), "each has a name");
    for (name, method, uri, headers, expected) in replays {
        let body = if uri.starts_with(TICKETS) { WANTED } else { "" };
        let answer = house.refuses(name, &(method, uri, headers, body.to_owned())).await;
        let (status, code, reason) = told(&answer);
        assert_eq!((status, code.as_str(), reason.as_str()), expected, "{name}");
    }
    assert_eq!(house.asked().1, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_a_token_ends_with_it_and_so_do_its_tickets() {
    let house = House::new().await;
    house.make_streams().await;
    for token in [good(), remembered("two")] {
        let with_ticket = format!("{STREAM}?ticket={}", house.ticket(&token).await);
        let resumed = || [page(PAGE), vec![("last-event-id", "0_0".to_owned())]].concat();
        for _ in 0..2 {
            assert_eq!(house.status(STREAM, &bearer(&token)).await, 200);
            assert_eq!(house.status(&with_ticket, &page(PAGE)).await, 200);
        }
        let later = Later::by(FIRST_USE - 1);
        assert_eq!(house.status(&with_ticket, &page(PAGE)).await, 200);
        drop(later);
        let later = Later::by(FIRST_USE);
        house.refuses_to_read("a ticket used late", &with_ticket, page(PAGE), (401, "ticket_refused", "late")).await;
        assert_eq!(house.status(&with_ticket, &resumed()).await, 200, "what was begun in time goes on");
        drop(later);
        let later = Later::by(LASTS + SKEW - 1);
        assert_eq!(house.status(STREAM, &bearer(&token)).await, 200);
        assert_eq!(house.status(&with_ticket, &resumed()).await, 200);
        drop(later);
        let _later = Later::by(LASTS + SKEW);
        let expired = (401, "token_refused", "expired");
        house.refuses_to_read("a remembered token that has expired", STREAM, bearer(&token), expired).await;
        house.refuses_to_read("a cookie that has expired", STREAM, cookie(&token), expired).await;
        let expired = (401, "ticket_refused", "expired");
        house.refuses_to_read("a ticket of a token that has expired", &with_ticket, page(PAGE), expired).await;
        house.refuses_to_read("such a ticket, resumed", &with_ticket, resumed(), expired).await;
    }
    let long = hs256(&hs_header(), &claims_with(&json!({"exp": NOW + 2 * MAX_LIFE})));
    let with_ticket = format!("{STREAM}?ticket={}", house.ticket(&long).await);
    let _later = Later::by(MAX_LIFE);
    assert_eq!(house.status(STREAM, &bearer(&long)).await, 200);
    let expired = (401, "ticket_refused", "expired");
    let resumed = [page(PAGE), vec![("last-event-id", "0_0".to_owned())]].concat();
    house.refuses_to_read("a ticket after its hour", &with_ticket, resumed, expired).await;
    assert_eq!(house.asked().1, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_a_token_ends_when_it_is_revoked_and_so_do_its_tickets() {
    let house = House::beside_register().await;
    house.make_streams().await;
    for token in [good(), remembered("two")] {
        assert_eq!(house.status(STREAM, &bearer(&token)).await, 200);
    }
    for (id, token) in [("one", good()), ("two", remembered("two"))] {
        let with_ticket = format!("{STREAM}?ticket={}", house.ticket(&token).await);
        assert_eq!(house.status(&with_ticket, &page(PAGE)).await, 200);
        house.revoke(id).await;
        let revoked = (401, "token_refused", "revoked");
        house.refuses_to_read("a remembered token that was revoked", STREAM, bearer(&token), revoked).await;
        house.refuses_to_read("a cookie that was revoked", STREAM, cookie(&token), revoked).await;
        let revoked = (401, "ticket_refused", "revoked");
        house.refuses_to_read("a ticket of a revoked token", &with_ticket, page(PAGE), revoked).await;
    }
    let token = remembered("three");
    let with_ticket = format!("{STREAM}?ticket={}", house.ticket(&token).await);
    house.revoke("ticket-BwcHBwcHBwcH").await;
    let revoked = (401, "ticket_refused", "revoked");
    house.refuses_to_read("a ticket that was revoked", &with_ticket, page(PAGE), revoked).await;
    assert_eq!(house.status(STREAM, &bearer(&token)).await, 200, "the token was not");
}

#[tokio::test]
async fn a_token_ends_with_its_key_and_a_ticket_with_that_of_its_token_and_that_which_signed_it() {
    let house = House::new().await;
    house.make_streams().await;
    // Of a key that is not the project's own its issuer is asked: it has said by now what it has.
    house.read_with_theirs().await;
    let token = remembered("two");
    let with_ticket = format!("{STREAM}?ticket={}", house.ticket(&token).await);
    let counts = async || {
        let of_token = house.status(STREAM, &bearer(&token)).await;
        (of_token, house.status(&with_ticket, &page(PAGE)).await)
    };
    assert_eq!(counts().await, (200, 200));

    house.change(&without_key(&house.document, "es")).await;
    house.refuses_to_read("a token whose key was removed", STREAM, bearer(&token), UNVERIFIED).await;
    house.refuses_to_read("such a token in a cookie", STREAM, cookie(&token), NEEDED).await;
    let revoked = (401, "ticket_refused", "revoked");
    house.refuses_to_read("a ticket whose token's key was removed", &with_ticket, page(PAGE), revoked).await;
    house.change(&house.document).await;
    assert_eq!(counts().await, (200, 200), "the key is there again");

    house.change(&without_key(&house.document, "hs")).await;
    assert_eq!(counts().await, (200, 401));
    house.refuses_to_read("a ticket whose signer was removed", &with_ticket, page(PAGE), ANOTHERS).await;
    assert_eq!(house.asked().1, (1, 1));
}

/// The projects, the first of which, `chat`, has lost a key.
fn without_key(document: &str, id: &str) -> String {
    let mut parts: Vec<_> = document.split("[[project.key]]").collect();
    let at = parts.iter().position(|part| part.trim_start().starts_with(&format!("id = '{id}'"))).unwrap();
    assert!(!parts.remove(at).contains("[[project]]"), "it is not the last key of a project");
    parts.join("[[project.key]]")
}
