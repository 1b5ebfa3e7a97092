//! What is served at which listeners, and that the listener for operations answers however full the gateway is.

use std::time::Duration;

use tailwater_auth::{File, Operator, Projects};
use tailwater_server::{Auth, Config, Guard, Listeners, Server, Surface, TrustedProxies, paths_of};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use crate::{
    fixture::Fixture,
    wire::{ask, counted, from, read_to_end, read_until, request},
};

pub(crate) const OPERATOR: &str = "the-credential-of-who-runs-all-this";
const PROJECT: &str = "
[[project]]
id = 'chat'
[[project.key]]
algorithm = 'HS256'
secret = 'the secret of chat, and it is long enough'
";

/// A path, and statuses: where everything is together, for clients, and for operations.
type Row = (&'static str, [u16; 3], [u16; 3], [u16; 3]);

/// Each path, and what `GET` of it comes to: where everything is together, for clients, and for operations. In the first
/// triple nobody is asked for a token; in the second, somebody asks without one; in the third, the operator does.
const TABLE: [Row; 15] = [
    ("/v1/stream/", [400, 400, 404], [400, 400, 404], [400, 400, 404]),
    ("/v1/stream/{*path}", [404, 404, 404], [401, 401, 404], [401, 401, 404]),
    ("/v1/ticket", [404; 3], [405, 405, 404], [405, 405, 404]),
    ("/v1/admin/projects", [404, 404, 404], [401, 404, 401], [200, 404, 200]),
    ("/v1/admin/projects/{project}", [404, 404, 404], [401, 404, 401], [200, 404, 200]),
    ("/v1/admin/projects/{project}/keys", [404, 404, 404], [401, 404, 401], [200, 404, 200]),
    ("/v1/admin/projects/{project}/keys/{key}", [404, 404, 404], [405, 404, 405], [405, 404, 405]),
    ("/v1/admin/projects/{project}/revocations", [404, 404, 404], [405, 404, 405], [405, 404, 405]),
    ("/v1/admin/projects/{project}/tokens", [404, 404, 404], [405, 404, 405], [405, 404, 405]),
    ("/v1/admin/projects/{project}/tokens/inspect", [404, 404, 404], [405, 404, 405], [405, 404, 405]),
    ("/health", [200; 3], [200; 3], [200; 3]),
    ("/readyz", [200; 3], [200; 3], [200; 3]),
    ("/metrics", [200, 404, 200], [200, 404, 200], [200, 404, 200]),
    ("/debug/profile", [404, 404, 400], [404, 404, 401], [404, 404, 400]),
    ("/nothing", [404; 3], [404; 3], [404; 3]),
];

const SURFACES: [Surface; 3] = [Surface::All, Surface::Streams, Surface::Operations];

pub(crate) fn guarded(config: Config) -> Config {
    let projects = Projects::parse([File { name: "projects.toml", bytes: PROJECT.as_bytes() }]).unwrap();
    let auth = Auth::Required(Guard::fixed(projects, Duration::from_secs(30)));
    Config { auth, operator: Some(Operator::new(OPERATOR).unwrap()), ..config }
}

/// A gateway whose clients and operations are apart.
pub(crate) async fn apart(config: Config) -> (Fixture, Server, [std::net::SocketAddr; 2]) {
    let fixture = Fixture::with(Config { surface: Surface::Streams, ..config }, Default::default());
    let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (public, operations) = (listen().await, listen().await);
    let addresses = [&public, &operations].map(|listener| listener.local_addr().unwrap());
    let listeners = Listeners { public: vec![public], operations: Some(operations) };
    let server = Server::start(&fixture.app, listeners).unwrap();
    (fixture, server, addresses)
}

/// What an answer is but for when it was made.
fn without_date(answer: &str) -> String {
    answer.split("\r\n").filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\r\n")
}

#[test]
fn every_path_that_is_served_somewhere_is_in_the_table() {
    for surface in SURFACES {
        for path in paths_of(surface) {
            assert!(TABLE.iter().any(|(own, ..)| *own == path), "{path}");
        }
    }
}

#[tokio::test]
async fn each_path_is_where_it_belongs_and_nowhere_else() {
    let profiles = Config { open_profiles: true, ..Config::default() };
    for (path, open, anonymous, operator) in TABLE {
        let path = path.replace("{*path}", "chat/s").replace("{project}", "chat").replace("{key}", "k");
        // Not to wait for one.
        let path = if path == "/debug/profile" { format!("{path}?seconds=0") } else { path };
        for (surface, statuses) in SURFACES.into_iter().zip(0..3) {
            let config = |config: Config| Config { surface, ..config };
            let fixture = Fixture::with(config(profiles.clone()), Default::default());
            assert_eq!(fixture.probe_at(surface, &path, &[]).await, open[statuses], "{surface:?} {path}");
            let fixture = Fixture::with(config(guarded(Config::default())), Default::default());
            assert_eq!(fixture.probe_at(surface, &path, &[]).await, anonymous[statuses], "{surface:?} {path}");
            let bearer = format!("Bearer {OPERATOR}");
            let status = fixture.probe_at(surface, &path, &[("authorization", &bearer)]).await;
            assert_eq!(status, operator[statuses], "{surface:?} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_not_served_at_a_listener_is_answered_like_anything_that_nobody_has_heard_of() {
    for config in [Config::default(), guarded(Config::default())] {
        let (_fixture, _server, [public, operations]) = apart(config).await;
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answered = async |address, path: &str| {
                let head =
                    format!("{method} {path} HTTP/1.1\r\nhost: h\r\norigin: https://a.example\r\nconnection: close");
                without_date(&read_to_end(&mut request(address, &head).await).await)
            };
            let unknown = answered(public, "/nothing").await;
            for path in ["/metrics", "/debug/profile", "/v1/admin/projects", "/v1/admin/projects/chat/tokens"] {
                assert_eq!(answered(public, path).await, unknown, "{method} {path}");
            }
            let unknown = answered(operations, "/nothing").await;
            for path in ["/v1/stream/chat/s", "/v1/stream/chat/s?offset=-1&live=sse", "/v1/stream/"] {
                assert_eq!(answered(operations, path).await, unknown, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn no_page_may_see_an_answer_about_operations() {
    let (_fixture, _server, [_, operations]) = apart(Config::default()).await;
    for path in ["/health", "/metrics", "/v1/admin/projects", "/nothing"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: h\r\norigin: https://a.example\r\nconnection: close");
        let answer = read_to_end(&mut request(operations, &head).await).await;
        assert!(answer.contains("cross-origin-resource-policy: same-origin\r\n"), "{path}: {answer}");
        assert!(!answer.contains("access-control-"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_full_can_still_be_looked_at() {
    let config = Config {
        max_connections: 1,
        max_requests: 1,
        max_connections_per_address: std::num::NonZeroUsize::new(1),
        trusted_proxies: TrustedProxies::parse(["127.0.0.1"]).unwrap(),
        ..guarded(Config::default())
    };
    let (fixture, _server, [public, operations]) = apart(config).await;
    let mut only = TcpStream::connect(public).await.unwrap();
    assert!(ask(&mut only, "HEAD /health HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200 "));
    let refused = read_to_end(&mut request(public, "GET /health HTTP/1.1\r\nhost: h").await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let forwarded = "host: h\r\nx-forwarded-for: 192.0.2.1";
    let bearer = format!("authorization: Bearer {OPERATOR}");
    for path in ["/metrics", "/readyz", "/v1/admin/projects"] {
        let mut stream = TcpStream::connect(operations).await.unwrap();
        let head = format!("HEAD {path} HTTP/1.1\r\n{forwarded}\r\n{bearer}");
        assert!(ask(&mut stream, &head).await.starts_with("HTTP/1.1 200 "), "{path}");
    }
    counted(&fixture, "tailwater_operations_connections 0").await;
    assert!(fixture.metric("tailwater_http_connections 1"), "each is counted where it is");
}

#[tokio::test]
async fn requests_of_clients_that_wait_take_no_place_from_those_about_operations() {
    let (fixture, _server, [public, operations]) =
        apart(guarded(Config { max_requests: 1, ..Config::default() })).await;
    let bearer = format!("authorization: Bearer {OPERATOR}");
    // A body that does not come, at each listener. The first is all that clients may have at once.
    let waiting = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: h\r\n{bearer}\r\ncontent-length: 9");
    let _write = request(public, &waiting("/v1/stream/chat/s")).await;
    counted(&fixture, "tailwater_http_requests_in_flight 1").await;
    let read = "GET /v1/stream/chat/s HTTP/1.1\r\nhost: h\r\nconnection: close";
    let refused = read_to_end(&mut request(public, read).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("\"code\":\"over_capacity\""), "{refused}");
    let _token = request(operations, &waiting("/v1/admin/projects/chat/tokens")).await;
    counted(&fixture, "tailwater_http_requests_in_flight 2").await;
    for path in ["/metrics", "/readyz", "/v1/admin/projects"] {
        let mut stream = TcpStream::connect(operations).await.unwrap();
        let answer = ask(&mut stream, &format!("HEAD {path} HTTP/1.1\r\nhost: h\r\n{bearer}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    assert!(fixture.metric("tailwater_http_requests_in_flight 2"), "both wait still");
}

#[tokio::test]
async fn the_listener_for_operations_has_a_limit_of_its_own() {
    let (fixture, _server, [public, operations]) = apart(Config::default()).await;
    let mut held = Vec::new();
    for n in 0..32 {
        if n % 8 == 0 && n > 0 {
            // Whoever has eight has no ninth, however many are left.
            let head = "GET /metrics HTTP/1.1\r\nhost: h\r\n\r\n";
            let mut ninth = from(&format!("127.0.0.{}", 1 + n / 8), operations).await;
            ninth.write_all(head.as_bytes()).await.unwrap();
            let refused = read_to_end(&mut ninth).await;
            assert!(refused.contains("too_many_connections_from_address"), "{refused}");
        }
        held.push(from(&format!("127.0.0.{}", 2 + n / 8), operations).await);
    }
    counted(&fixture, "tailwater_operations_connections 32").await;
    let refused = read_to_end(&mut request(operations, "GET /metrics HTTP/1.1\r\nhost: h").await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too_many_connections"), "{refused}");
    assert!(fixture.metric("tailwater_connections_refused_total{limit=\"operations_connections\"} 1"));
    assert!(fixture.metric("tailwater_connections_refused_total{limit=\"connections_per_address\"} 3"));
    assert!(!refused.contains("access-control-"), "{refused}");
    assert!(refused.contains("cross-origin-resource-policy: same-origin\r\n"), "{refused}");
    let stream = read_to_end(&mut request(operations, "GET /v1/stream/s HTTP/1.1\r\nhost: h").await).await;
    assert!(stream.starts_with("HTTP/1.1 503 ") && !stream.contains("access-control-"), "{stream}");
    let counted_as = |route: &str| {
        let line = format!("tailwater_http_requests_total{{method=\"get\",route=\"{route}\",status=\"5xx\"}} 1");
        fixture.metric(&line)
    };
    assert!(counted_as("metrics") && counted_as("other") && !counted_as("stream"), "no streams are served there");
    let mut client = TcpStream::connect(public).await.unwrap();
    assert!(ask(&mut client, "HEAD /health HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_profile_is_made_one_at_a_time_and_for_those_alone_who_may_see_it() {
    let open = Config { open_profiles: true, ..Config::default() };
    let (fixture, _server, [_, operations]) = apart(open.clone()).await;
    let mut first = request(operations, "GET /debug/profile?seconds=1 HTTP/1.1\r\nhost: h").await;
    // There is nothing to be seen of one that is under way, but that there is no other.
    let second = loop {
        let head = "GET /debug/profile?seconds=1 HTTP/1.1\r\nhost: h\r\nconnection: close";
        let answer = read_to_end(&mut request(operations, head).await).await;
        if answer.starts_with("HTTP/1.1 429 ") {
            break answer;
        }
    };
    assert!(second.contains("\"code\":\"profile_under_way\"") && second.contains("retry-after: "), "{second}");
    let profile = read_until(&mut first, "]}").await;
    let (head, body) = profile.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("cache-control: no-store"), "{head}");
    let profile: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(
        profile["seconds"].as_f64().unwrap() >= 1.0 && profile["threads"].as_array().unwrap().len() > 1,
        "{profile}"
    );
    assert!(profile["memory"]["resident"].as_u64().unwrap() > 1 << 20, "{profile}");
    drop(fixture);

    // Beyond loopback they are not there at all without an operator, and for the operator alone with one.
    let (_fixture, _server, [_, operations]) = apart(Config::default()).await;
    let mut stream = TcpStream::connect(operations).await.unwrap();
    assert!(ask(&mut stream, "HEAD /debug/profile HTTP/1.1\r\nhost: h").await.starts_with("HTTP/1.1 404 "));
    let (_fixture, _server, [_, operations]) = apart(guarded(open)).await;
    let bearers = ["", "authorization: Bearer junk\r\n", "authorization: Basic eA==\r\n"];
    for bearer in bearers {
        let mut stream = TcpStream::connect(operations).await.unwrap();
        stream.write_all(format!("HEAD /debug/profile HTTP/1.1\r\n{bearer}host: h\r\n\r\n").as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 401 "), "{bearer}");
    }
}
