//! Whatever is sent to show who asks, nothing of it is told: not in the log at any level, in no answer but the one that gives
//! it to whoever has asked for it, and in no metric. The same holds for what the gateway has in files: what it shows its
//! store, and what signs tickets.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tailwater_server::{Surface, paths, paths_of};
use tempfile::tempdir;

use crate::{
    http::{PATIENCE, send},
    process::{Program, command, eventually},
    trust::{minted, project, replace},
};

const PAGE: &str = "https://app.example";
const OPERATOR: &str = "the-credential-of-an-operator-42-characters";
/// What a store is opened with, and what it is not.
const STORE_TOKENS: [&str; 2] = ["opens-the-store-4711", "does-not-open-any-store"];
/// One signs tickets, the other did.
const TICKET_SECRETS: [&str; 2] = ["signs-tickets-and-has-32-characters", "has-signed-tickets-before-the-other"];
/// A part of a secret that is as long as this would be no accident.
const PIECE: usize = 12;

/// What shows who asks, and must not be shown.
struct Secrets {
    /// For everything.
    token: String,
    expired: String,
    /// Of a stream.
    ticket: String,
}

struct Asking {
    http2: bool,
    client: Client<HttpConnector, Full<Bytes>>,
    /// Where clients and operations are, and where is asked.
    clients: String,
    operations: String,
    root: String,
    /// All that was answered.
    told: String,
}

fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    // There are very many small requests.
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).http2_only(http2).build(connector)
}

impl Asking {
    async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, String) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.root));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.client.request(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        // What was asked for is for whoever asked.
        if parts.status != StatusCode::CREATED {
            self.told += &format!("{parts:?}\n{body}\n");
        }
        (parts.status, body)
    }

    /// A token, a ticket and a cookie, in their places and in others, on every route and on what is none.
    async fn show(&mut self, secrets: &Secrets) {
        let listeners = [(self.clients.clone(), Surface::Streams), (self.operations.clone(), Surface::Operations)];
        let others = [
            "/v1/stream/chat/none",
            "/v1/stream/nowhere/s",
            "/v1/stream/chat/../s",
            "/v1/admin/projects/chat",
            "/debug/profile",
            "/elsewhere",
        ];
        for (root, surface) in listeners {
            self.root = root;
            let served = routes(surface);
            self.show_at(&served.iter().map(String::as_str).chain(others).collect(), secrets).await;
            self.show_in_bodies(&served, secrets).await;
        }
        self.root = self.clients.clone();
        let Secrets { token, ticket, .. } = secrets;
        let authorization = ("authorization", &*format!("Bearer {token}"));
        let both = format!("/v1/stream/chat/s?ticket={ticket}");
        assert_eq!(self.ask("GET", &both, &[authorization], "").await.0, 400);
        let fork = [authorization, ("stream-forked-from", both.as_str())];
        assert_eq!(self.ask("PUT", "/v1/stream/chat/fork", &fork, "").await.0, 400);
    }

    async fn show_at(&mut self, routes: &BTreeSet<&str>, secrets: &Secrets) {
        let Secrets { token, expired, ticket } = secrets;
        let bearers = [token, expired, ticket, &format!("{token}x")].map(|text| format!("Bearer {text}"));
        let cookies = [token, expired, ticket].map(|text| format!("session={text}; {text}; {text}={text}"));
        let misplaced = [
            format!("?ticket={ticket}"),
            format!("?ticket={ticket}x"),
            format!("?ticket={token}"),
            format!("?ticket={ticket}&ticket={ticket}"),
            format!("?live=sse&offset=-1&ticket={ticket}x"),
            format!("?live=sse%26ticket%3D{ticket}"),
            format!("?live={ticket}&ticket={ticket}"),
            format!("?offset={token}&ticket={ticket}"),
            format!("?cursor={ticket}&{ticket}&ticket={ticket}"),
        ];
        for route in routes {
            // A connection of HTTP/2 ends after so many bodies that nobody wanted.
            self.client = client(self.http2);
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
                for bearer in &bearers {
                    // Not what would make tokens, tickets and streams: these are told to who asks, or change what is asked.
                    let authorized = [("authorization", bearer.as_str()), ("origin", PAGE)];
                    if bearer != &bearers[0] || ["GET", "OPTIONS", "PATCH"].contains(&method) {
                        self.ask(method, route, &authorized, token).await;
                    }
                }
                for cookie in &cookies {
                    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
                    self.ask(method, route, &headers, ticket).await;
                }
                for query in &misplaced {
                    let path = format!("{route}{query}");
                    self.ask(method, &path, &[("origin", PAGE)], token).await;
                }
            }
        }
    }

    /// In the bodies of what is asked for by them.
    async fn show_in_bodies(&mut self, served: &[String], secrets: &Secrets) {
        let Secrets { token, expired, ticket } = secrets;
        let bearers = [token, expired, ticket, &format!("{token}x")].map(|text| format!("Bearer {text}"));
        let wanted = [
            format!(r#"{{"stream":"{token}","origin":"{ticket}"}}"#),
            format!(r#"{{"{ticket}":"{token}"}}"#),
            format!(r#"{{"token":"{expired}"}}"#),
            format!(r#"{{"id":"{ticket}"}}"#),
            format!(r#"{{"id":"{expired}"}}"#),
            format!(r#"{{"scope":["read"],"id":"{ticket}"}}"#),
            format!(r#"{{"scope":["read"],"id":"{expired}"}}"#),
        ];
        for route in served.iter().filter(|route| route.starts_with("/v1/admin/") || *route == "/v1/ticket") {
            self.client = client(self.http2);
            for body in &wanted {
                for bearer in &bearers {
                    let status = self.ask("POST", route, &[("authorization", bearer)], body).await.0;
                    // What is inspected or revoked is told by its `jti`.
                    let names = ["inspect", "revocations"].iter().any(|end| route.ends_with(end));
                    assert!(status.is_client_error() || names && bearer == &bearers[0], "{route}: {status}");
                }
            }
        }
    }
}

/// All that is served by these listeners, where it is about a project, a stream and a key that are there.
fn routes(surface: Surface) -> Vec<String> {
    let fill = |path: &str| path.replace("{*path}", "chat/s").replace("{project}", "chat").replace("{key}", "1");
    let filled = paths_of(surface).map(fill);
    filled.inspect(|path| assert!(!path.contains('{'), "nothing stands for a part of {path}")).collect()
}

/// Requests that are none, or too long.
fn malform(addr: SocketAddr, secrets: &Secrets) -> String {
    let Secrets { token, ticket, .. } = secrets;
    let target = format!("/v1/stream/chat/s?ticket={ticket}");
    let heads = [
        format!("GET {target} HTTP/9.9\r\nhost: h\r\nauthorization: Bearer {token}\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nhost: h\r\nauthorization Bearer {token}\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nhost: h\r\ncookie: session={}\r\n\r\n", token.repeat(200)),
        format!("GET {target}{} HTTP/1.1\r\nhost: h\r\n\r\n", ticket.repeat(600)),
        format!("{token}{token} / HTTP/1.1\r\n\r\n"),
        format!("POST {target} HTTP/1.1\r\nhost: h\r\ncontent-length: {token}\r\n\r\n"),
    ];
    heads
        .map(|head| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // The answer, and the end, may come before all is said.
            let mut answer = Vec::new();
            stream.write_all(head.as_bytes()).ok();
            stream.read_to_end(&mut answer).ok();
            String::from_utf8_lossy(&answer).into_owned()
        })
        .concat()
}

/// Words of a text that hold pieces of secrets, which are made of what words are made of here.
fn telling<'t>(told: &'t str, secrets: &[&str]) -> Vec<&'t str> {
    let pieces: HashSet<&[u8]> = secrets.iter().flat_map(|secret| secret.as_bytes().windows(PIECE)).collect();
    let words: HashSet<&str> = told
        .split(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c))
        .filter(|word| word.len() >= PIECE)
        .collect();
    let tells = |word: &&str| word.as_bytes().windows(PIECE).any(|window| pieces.contains(window));
    words.into_iter().filter(tells).collect()
}

#[test]
fn every_path_is_served_at_one_of_the_listeners_that_are_asked() {
    let asked: HashSet<_> = [Surface::Streams, Surface::Operations].into_iter().flat_map(paths_of).collect();
    assert_eq!(asked, paths().collect());
}

#[tokio::test]
async fn no_piece_of_a_token_a_ticket_or_a_cookie_is_told_at_any_level_by_any_route() {
    let directory = tempdir().unwrap();
    let directory = directory.path();
    let named = format!("origins = [\"{PAGE}\"]\ncookie = \"session\"\nvisibility");
    replace(directory, &project(directory, "chat").replacen("visibility", &named, 1));
    let args = ["serve", "--memory", "--listen", "127.0.0.1:0", "--projects", "projects.toml", "--log", "trace"];
    let audit = ["--audit-stream", "chat/audit"];
    fs::write(directory.join("operator"), OPERATOR).unwrap();
    let apart = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", "operator"];
    // Of what is malformed some is answered, and more is waited for.
    let impatient = ["--header-timeout", "500ms", "--body-timeout", "500ms"];
    let program = Program::start(command(directory, [&args[..], &audit, &apart, &impatient].concat()));
    let operations = program.line().unwrap().replace("operations on ", "");
    let all = ["--scope", "read", "--scope", "write", "--scope", "manage"];
    let bearer = minted(directory, &all);
    let plain = ("content-type", "text/plain");
    let authorized = [plain, ("authorization", bearer.as_str())];
    // Nobody is judged before it is known what was revoked.
    eventually("a stream", || program.streams().send("PUT", "chat/s", &authorized, "a").status == 201);
    let gone = minted(directory, &["--scope", "read", "--expires-in", "1s", "--stream", "elsewhere"]);
    let bare = |bearer: &str| bearer.trim_start_matches("Bearer ").to_owned();
    let mut told = String::new();
    for http2 in [true, false] {
        let (clients, operations) = (format!("http://{}", program.addr), operations.clone());
        let root = clients.clone();
        let mut asking = Asking { client: client(http2), http2, clients, operations, root, told: String::new() };
        let wanted = format!(r#"{{"stream":"chat/s","origin":"{PAGE}"}}"#);
        let (status, body) = asking.ask("POST", "/v1/ticket", &[("authorization", &bearer)], &wanted).await;
        assert_eq!(status, 201, "{body}");
        let said: serde_json::Value = serde_json::from_str(&body).unwrap();
        let ticket = said["ticket"].as_str().unwrap().to_owned();
        let secrets = Secrets { token: bare(&bearer), expired: bare(&gone), ticket };
        let uri = format!("/v1/stream/chat/s?ticket={}", secrets.ticket);
        assert_eq!(asking.ask("GET", &uri, &[("origin", PAGE)], "").await, (StatusCode::OK, "a".to_owned()));
        let cookie = format!("session={}", secrets.token);
        let from_page = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
        assert_eq!(asking.ask("GET", "/v1/stream/chat/s", &from_page, "").await.0, 200);
        asking.show(&secrets).await;
        asking.root = asking.operations.clone();
        let operator = [("authorization", &*format!("Bearer {OPERATOR}"))];
        for path in ["/v1/admin/projects/chat", "/debug/profile?seconds=1"] {
            assert_eq!(asking.ask("GET", path, &operator, "").await.0, 200, "{path}");
        }
        told = told + &asking.told + &malform(program.addr, &secrets) + &program.stderr();
        let audit = program.streams().send("GET", "chat/audit?offset=-1", &authorized, "").expect(200).body;
        assert!(audit.contains("\"act\":\"revoke\"") && audit.contains("\"outcome\":\"refused\""), "{audit}");
        told += &audit;
        let secrets = [secrets.token.as_str(), &secrets.expired, &secrets.ticket, OPERATOR];
        let found = telling(&told, &secrets);
        assert!(found.is_empty(), "{found:?}");
        let piece = format!("harmless\n…{}…", &secrets[2][20..32]);
        assert_eq!(telling(&piece, &secrets).len(), 1, "a piece would be found");
    }
    let secret = fs::read_to_string(directory.join("projects.toml")).unwrap();
    let secret = secret.split('"').find(|text| text.len() == 64).unwrap();
    assert!(telling(&told, &[secret]).is_empty());
    for shown in ["tailwater_http_requests_total", "ticket_refused", "two_credentials", "issued a ticket", "TRACE"] {
        assert!(told.contains(shown), "{shown}");
    }
}

/// A project that verifies and cannot sign, so that the gateway's own secret signs its tickets; a token of it.
fn verifying(directory: &Path) -> String {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = format!("id = \"1\"\nalgorithm = \"EdDSA\"\npublic-key = \"\"\"\n{}\"\"\"\n", pair.public_key_pem());
    replace(directory, &format!("[[project]]\nid = \"chat\"\norigins = [\"{PAGE}\"]\n[[project.key]]\n{key}"));
    fs::write(directory.join("key.pem"), pair.serialize_pem()).unwrap();
    minted(directory, &["--scope", "read", "--scope", "write", "--key", "key.pem", "--key-id", "1"])
}

#[test]
fn no_piece_of_what_opens_the_store_or_signs_tickets_is_told_at_any_level() {
    let directory = tempdir().unwrap();
    let directory = directory.path();
    for (name, text) in
        [("opens", STORE_TOKENS[0]), ("opens-not", STORE_TOKENS[1]), ("signs", &TICKET_SECRETS.join("\n"))]
    {
        fs::write(directory.join(name), text).unwrap();
    }
    let bearer = verifying(directory);
    let start = |args: &[&str]| Program::start(command(directory, [args, &["--log", "trace"]].concat()));
    let store = start(&["store", "--listen", "127.0.0.1:0", "--data-dir", "data", "--token-file", "opens"]);
    let endpoint = format!("http://{}", store.addr);
    let gateway = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--s2-endpoint", &endpoint];
    let with = |further: &[&str]| start(&[&gateway, further].concat());
    let trusted = with(&["--s2-token-file", "opens", "--projects", "projects.toml", "--ticket-secret-file", "signs"]);
    let refused = with(&["--s2-token-file", "opens-not"]);

    let mut told = String::new();
    let mut ask = |program: &Program, status: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let answer = send(program.addr, method, path, headers, body).unwrap().expect(status);
        told += &format!("{answer:?}\n");
        answer
    };
    let (plain, authorized, page) = (("content-type", "text/plain"), ("authorization", &*bearer), ("origin", PAGE));
    let write = || trusted.streams().send("PUT", "chat/s", &[plain, authorized], "a").status;
    eventually("a stream", || write() == 201);
    let wanted = format!(r#"{{"stream":"chat/s","origin":"{PAGE}"}}"#);
    let issued = ask(&trusted, 201, "POST", "/v1/ticket", &[authorized], &wanted);
    let issued: serde_json::Value = serde_json::from_str(&issued.body).unwrap();
    let read = format!("/v1/stream/chat/s?ticket={}", issued["ticket"].as_str().unwrap());
    ask(&trusted, 200, "GET", &read, &[page], "");
    ask(&trusted, 401, "GET", &format!("{read}x"), &[page], "");
    ask(&refused, 502, "PUT", "/v1/stream/s", &[plain], "a");
    ask(&refused, 503, "GET", "/readyz", &[], "");
    let mut logged = store.stderr();
    store.kill();
    ask(&trusted, 503, "POST", "/v1/stream/chat/s", &[plain, authorized], "b");
    for program in [trusted, refused] {
        let operations = program.line().unwrap().replace("operations on http://", "").parse().unwrap();
        logged += &send(operations, "GET", "/metrics", &[], "").unwrap().expect(200).body;
        logged += &program.stderr();
    }
    told += &logged;

    let secrets = [STORE_TOKENS, TICKET_SECRETS].concat();
    assert_eq!(telling(&told, &secrets), [""; 0]);
    for shown in ["tailwater_http_requests_total", "store_refused", "ticket_refused", "issued a ticket", "TRACE"] {
        assert!(told.contains(shown), "{shown}");
    }
}
