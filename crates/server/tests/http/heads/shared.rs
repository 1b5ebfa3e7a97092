//! Where tokens are asked for: projects that share with pages in every way, pages of every origin, and everybody who may ask.

use std::time::Duration;

use axum::body::Body;
use tailwater_auth::{File, Projects};
use tailwater_server::{Auth, Config, Guard};

use super::{Asked, Both, get, patient};
use crate::rights::{PAGE, PROJECTS, ticket, token, with_ticket};

/// No page, pages that some projects name, one that none does, one without an origin, one of the gateway's own, and nonsense.
const ORIGINS: [&[&str]; 7] = [
    &[],
    &[PAGE],
    &["http://localhost:3000"],
    &["https://evil.example"],
    &["null"],
    &["http://h"],
    &[PAGE, "https://evil.example"],
];

const WHO: [&str; 8] = ["nobody", "junk", "reader", "writer", "foreign", "cookie", "cookie-of-the-site", "ticket"];

const VISIBILITIES: [&str; 2] = ["private", "public"];

/// Sharing with no page, with none and a cookie, with named ones and a cookie, and with all.
const SHARING: [&str; 4] = ["other", "chat", "shared", "wide"];

async fn gateways() -> Both {
    let projects = Projects::parse([File { name: "projects.toml", bytes: PROJECTS.as_bytes() }]).unwrap();
    let auth = Auth::Required(Guard::fixed(projects, Duration::from_secs(30)));
    let both = Both::with(Config { auth, ..patient() }, Default::default()).await;
    for project in SHARING {
        for visibility in VISIBILITIES {
            let writer = bearer(project, "write");
            let headers = [
                ("authorization", writer.as_str()),
                ("content-type", "application/json"),
                ("stream-visibility", visibility),
            ];
            let created = both.stays.fixture.send("PUT", &path(project, visibility), &headers, "[1]").await;
            assert_eq!(created.status, 201);
        }
    }
    both
}

fn bearer(project: &str, scopes: &str) -> String {
    format!("Bearer {}", token(project, scopes, None, 600))
}

/// What somebody shows: fields, and perhaps a ticket for a stream.
fn shown(who: &str, project: &str, stream: &str) -> (Vec<(&'static str, String)>, Option<String>) {
    let name = if project == "chat" { "__Host-session" } else { "session" };
    let cookie = || ("cookie", format!("{name}={}", token(project, "read", None, 600)));
    match who {
        "junk" => (vec![("authorization", "Bearer junk".to_owned())], None),
        "reader" => (vec![("authorization", bearer(project, "read"))], None),
        "writer" => (vec![("authorization", bearer(project, "write"))], None),
        "foreign" => (vec![("authorization", bearer(if project == "other" { "chat" } else { "other" }, "read"))], None),
        "cookie" => (vec![cookie()], None),
        "cookie-of-the-site" => (vec![cookie(), ("sec-fetch-site", "same-origin".to_owned())], None),
        "ticket" => (vec![], Some(ticket(project, stream, PAGE, 0))),
        _ => (vec![], None),
    }
}

/// Everybody asks from every page for both streams of a project, with fields besides; and whether who asks is let in.
async fn ask_all(both: &Both, project: &str, queries: [&str; 2], besides: &[(&str, &str)]) -> Vec<(Asked, bool)> {
    let mut all = Vec::new();
    for (stream, query) in VISIBILITIES.into_iter().zip(queries) {
        for who in WHO {
            let (fields, ticket) = shown(who, project, stream);
            for origins in ORIGINS {
                let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
                let origins = origins.iter().map(|origin| ("origin", *origin));
                let fields: Vec<_> = fields.chain(origins).chain(besides.iter().copied()).collect();
                let target = with_ticket(&format!("{}?{query}", path(project, stream)), ticket.as_deref());
                let with_host = [&fields[..], &[("host", "h")]].concat();
                let looked = both.stays.fixture.respond("HEAD", &target, &with_host, Body::empty()).await;
                all.push((both.ask(get(&target, &fields)).await, looked.status() == 200));
            }
        }
    }
    all
}

fn path(project: &str, stream: &str) -> String {
    format!("/v1/stream/{project}/{stream}")
}

#[tokio::test]
async fn whoever_reads_from_whichever_page_gets_the_same_head_of_events() {
    let both = gateways().await;
    for project in SHARING {
        let mut open = Vec::new();
        for (mut asked, is_let_in) in ask_all(&both, project, ["offset=-1&live=sse"; 2], &[]).await {
            let status = asked.compare().await.status;
            assert!(
                if is_let_in { status == 200 } else { matches!(status, 400 | 401 | 403) },
                "{status}: {}",
                asked.head
            );
            open.extend(is_let_in.then_some(asked));
        }
        both.follow(open.len(), open.len()).await;
        drop(open);
        both.follow(0, 0).await;
    }
}

#[tokio::test]
async fn whoever_reads_from_whichever_page_gets_the_same_answer_to_a_long_poll() {
    let both = gateways().await;
    for project in SHARING {
        let writer = bearer(project, "write read");
        let writer = ("authorization", writer.as_str());
        for (known, answered) in [(&[][..], 200), (&[("if-none-match", "*")][..], 304)] {
            let [private, public] = VISIBILITIES.map(|stream| path(project, stream));
            let queries = [both.tail(&private, &[writer]).await, both.tail(&public, &[writer]).await];
            let queries = queries.map(|tail| format!("offset={tail}&live=long-poll"));
            let polls = ask_all(&both, project, [&queries[0], &queries[1]], known).await;
            both.park(polls.iter().filter(|(_, is_let_in)| *is_let_in).count()).await;
            for path in [private, public] {
                let headers = [writer, ("content-type", "application/json")];
                assert_eq!(both.stays.fixture.send("POST", &path, &headers, "[2]").await.status, 204);
            }
            for (mut asked, is_let_in) in polls {
                let status = asked.compare().await.status;
                let fits = if is_let_in { status == answered } else { matches!(status, 400 | 401 | 403) };
                assert!(fits, "{status}: {}", asked.head);
            }
        }
    }
}
