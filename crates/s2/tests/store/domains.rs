//! S2 at two addresses, with a sub-domain for each basin: who is asked for what, and what answers of a service mean
//! that the embedded store never gives.
//!
//! The zone is `0.0.0x1` and the basin is called `0x0000000000007f`: together that is an old spelling of 127.0.0.1
//! (`inet_aton` takes hexadecimal parts), which every resolver knows by itself. A sub-domain of `localhost` would need
//! one that is set up for it.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tailwater_s2::{Endpoint, Placement, S2Upstream, S2UpstreamConfig, S2UpstreamError};
use tailwater_upstream::{AppendError, Fate, ReadError, ReadFrom, Upstream as _};
use tokio::{net::TcpListener, time::timeout};

use crate::harness::{PATIENCE, key, messages, meter};

const BASIN: &str = "0x0000000000007f";

/// A service that gives every request the same answer.
struct Service {
    port: u16,
    /// Host, path and `Authorization` of each request.
    seen: Arc<Mutex<Vec<[String; 3]>>>,
}

/// What a service answers, and what it was asked.
struct Answer {
    status: StatusCode,
    code: &'static str,
    seen: Arc<Mutex<Vec<[String; 3]>>>,
}

impl Service {
    async fn answering(status: StatusCode, code: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::default();
        let answer = Answer { status, code, seen: Arc::clone(&seen) };
        let router = Router::new().fallback(respond).with_state(Arc::new(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, seen }
    }

    fn upstream(&self) -> S2Upstream {
        let host = |name| format!("http://{name}.0.0.0x1:{}", self.port);
        let endpoint = Endpoint::Domains { account: host("0x7f"), basin: host("{basin}") };
        let placement = Placement::shared(BASIN, "").unwrap();
        S2Upstream::new(S2UpstreamConfig::new(endpoint, "a-token".into(), placement), meter().1).unwrap()
    }

    /// The first labels of the hosts that were asked, one for each request.
    fn names(&self) -> Vec<String> {
        let zone = format!(".0.0.0x1:{}", self.port);
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|[host, ..]| host.strip_suffix(&zone).unwrap().to_owned()).collect()
    }
}

async fn respond(State(answer): State<Arc<Answer>>, request: Request) -> Response {
    let header = |name| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let host = request.uri().authority().map_or_else(|| header(header::HOST), ToString::to_string);
    let seen = [host, request.uri().path().to_owned(), header(header::AUTHORIZATION)];
    answer.seen.lock().unwrap().push(seen);
    let body = format!(r#"{{"code":"{}","message":"no"}}"#, answer.code);
    (answer.status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[tokio::test]
async fn a_basin_is_asked_at_its_sub_domain_and_the_account_at_its_own_address() {
    let service = Service::answering(StatusCode::UNAUTHORIZED, "authn").await;
    let upstream = service.upstream();
    assert!(upstream.check_tail(&key()).await.is_err());
    assert_eq!(service.names(), [BASIN]);
    assert!(upstream.ready(PATIENCE).await.is_err());
    assert_eq!(service.names(), [BASIN, "0x7f"]);
    let seen = service.seen.lock().unwrap();
    assert!(seen.iter().all(|[.., authorization]| authorization == "Bearer a-token"), "{seen:?}");
    assert!(seen[0][1].ends_with("/records/tail") && seen[1][1] == "/v1/basins", "{seen:?}");
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_refused_and_not_tried_again() {
    let service = Service::answering(StatusCode::UNAUTHORIZED, "authn").await;
    let upstream = service.upstream();
    let append = timeout(PATIENCE, upstream.append(&key(), messages(&["a"]))).await.unwrap().unwrap_err();
    assert!(matches!(append, AppendError::Refused { .. }), "{append:?}");
    assert_eq!(service.names().len(), 1);
    let read = timeout(PATIENCE, upstream.read(&key(), ReadFrom::Seq(0), 1)).await.unwrap().unwrap_err();
    assert!(matches!(read, ReadError::Refused { .. }), "{read:?}");
    let session = timeout(PATIENCE, upstream.read_session(&key(), 0)).await.unwrap().err().unwrap();
    assert!(matches!(session, ReadError::Refused { .. }), "{session:?}");
}

#[tokio::test]
async fn a_limited_rate_is_busy_and_nothing_was_appended() {
    let service = Service::answering(StatusCode::TOO_MANY_REQUESTS, "rate_limited").await;
    let upstream = service.upstream();
    let append = timeout(PATIENCE, upstream.append(&key(), messages(&["a"]))).await.unwrap().unwrap_err();
    assert!(matches!(append, AppendError::Busy { .. }), "{append:?}");
    assert_eq!((append.fate(), append.is_retryable()), (Fate::NotAppended, true));
    assert_eq!(service.names().len(), 3, "it was tried again, a few times");
    let read = timeout(PATIENCE, upstream.read(&key(), ReadFrom::Seq(0), 1)).await.unwrap().unwrap_err();
    assert!(matches!(read, ReadError::Busy { .. }), "{read:?}");
    let tail = timeout(PATIENCE, upstream.check_tail(&key())).await.unwrap().unwrap_err();
    assert!(matches!(tail, ReadError::Busy { .. }), "{tail:?}");
}

#[tokio::test]
async fn two_addresses_of_different_schemes_or_none_at_all_are_refused() {
    let table = [
        ("http://a.example", "https://{basin}.b.example"),
        ("https://a.example", "http://{basin}.b.example"),
        ("https://not a host", "https://{basin}.b.example"),
        ("https://a.example", "https://{basin}.not a host"),
    ];
    for (account, basin) in table {
        let endpoint = Endpoint::Domains { account: account.to_owned(), basin: basin.to_owned() };
        let config = S2UpstreamConfig::new(endpoint, "t".into(), Placement::shared(BASIN, "").unwrap());
        let refused = S2Upstream::new(config, meter().1).err().unwrap();
        assert!(matches!(refused, S2UpstreamError::Endpoint { .. }), "{account}, {basin}: {refused:?}");
    }
}
