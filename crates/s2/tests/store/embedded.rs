//! The embedded store: its data, its doors, its end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use object_store::local::LocalFileSystem;
use tailwater_s2::{
    EmbeddedStore, EmbeddedStoreConfig, EmbeddedStoreError, Exposure, S2Upstream, Storage, StoreEnd, StoreObserver,
};
use tailwater_upstream::{AppendError, ReadError, ReadFrom, Traffic, Upstream as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::harness::{
    Follower, Harness, PATIENCE, Proxy, bodies, config_to, eventually, key, message, messages, meter, upstream_to,
};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn exposed(storage: Storage, addr: SocketAddr, token: Option<&str>) -> EmbeddedStoreConfig {
    let mut config = EmbeddedStoreConfig::new(storage);
    config.expose = Some(Exposure { addr, token: token.map(Into::into) });
    config
}

/// The status of a plain HTTP/1.1 request.
async fn status(addr: &str, path: &str, authorization: Option<&str>) -> u16 {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let authorization = authorization.map(|a| format!("Authorization: {a}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: store\r\n{authorization}Connection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_directory_keeps_everything_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedStoreConfig::new(Storage::Directory(directory.path().to_owned()));
    let h = Harness::with(config.clone()).await;
    let fence = tailwater_log::NewRecord::fence("o.1");
    h.append(&key(), tailwater_upstream::Append::new(vec![message("a"), fence])).await.unwrap();
    let before = h.read(&key(), 0).await;
    h.store.shutdown().await.unwrap();

    let h = Harness::with(config).await;
    assert_eq!(h.read(&key(), 0).await, before);
    let mut other = messages(&["b"]);
    other.token = Some(String::new());
    let refused = h.append(&key(), other).await.unwrap_err();
    assert!(matches!(&refused, AppendError::TokenMismatch { actual } if actual == "o.1"), "the token is kept, too");
    h.store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_second_opener_of_a_directory_is_turned_away_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedStoreConfig::new(Storage::Directory(directory.path().to_owned()));
    let h = Harness::with(config.clone()).await;
    let second = EmbeddedStore::start(config.clone()).await.err().unwrap();
    assert!(matches!(&second, EmbeddedStoreError::Locked { directory: d } if d == directory.path()), "{second:?}");
    assert!(second.to_string().contains(directory.path().to_str().unwrap()));
    h.append(&key(), messages(&["the first is unharmed"])).await.unwrap();
    h.store.shutdown().await.unwrap();
    EmbeddedStore::start(config).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_store_taken_over_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let h = Harness::with(EmbeddedStoreConfig::new(Storage::Directory(directory.path().to_owned()))).await;
    h.append(&key(), messages(&["a"])).await.unwrap();
    let closed = h.store.closed();
    // Somebody who knows nothing of our lock.
    let files = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let thief = slatedb::Db::builder("", files).build().await.unwrap();
    assert_eq!(timeout(PATIENCE, closed).await.unwrap(), StoreEnd::Fenced);
    let error = h.append(&key(), messages(&["b"])).await.unwrap_err();
    assert!(matches!(error, AppendError::Unavailable { .. }), "{error:?}");
    assert!(h.upstream.ready(PATIENCE).await.is_err());
    thief.close().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_is_bounded_even_with_a_session_open() {
    let h = Harness::start().await;
    h.append(&key(), messages(&["a"])).await.unwrap();
    let mut follower = Follower::new(h.upstream.read_session(&key(), 0).await.unwrap());
    follower.until_caught_up_at(1).await;
    let closed = h.store.closed();
    timeout(PATIENCE, h.store.shutdown()).await.unwrap().unwrap();
    assert_eq!(timeout(PATIENCE, closed).await.unwrap(), StoreEnd::Closed);
    let read = h.upstream.read(&key(), ReadFrom::Seq(0), 1).await.unwrap_err();
    assert!(matches!(read, ReadError::Unavailable { .. }), "{read:?}");
}

#[tokio::test]
async fn only_the_token_made_at_start_opens_the_store() {
    let h = Harness::start().await;
    let stranger = upstream_to(&format!("http://{}", h.addr()));
    let append = stranger.append(&key(), messages(&["a"])).await.unwrap_err();
    assert!(matches!(append, AppendError::Refused { .. }), "{append:?}");
    let read = stranger.read(&key(), ReadFrom::Seq(0), 1).await.unwrap_err();
    assert!(matches!(read, ReadError::Refused { .. }), "{read:?}");
    let session = stranger.read_session(&key(), 0).await.err().unwrap();
    assert!(matches!(session, ReadError::Refused { .. }), "{session:?}");
    let ready = stranger.ready(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(ready, ReadError::Refused { .. }), "{ready:?}");
}

#[tokio::test]
async fn health_needs_no_token_and_everything_else_does() {
    let h = Harness::start().await;
    let addr = h.addr().to_string();
    let good = format!("bearer {}", h.store.token().reveal());
    let almost = format!("Bearer {}", &h.store.token().reveal()[1..]);
    assert_eq!(status(&addr, "/health", None).await, 200);
    assert_eq!(status(&addr, "/v1/basins", None).await, 401);
    assert_eq!(status(&addr, "/metrics", None).await, 401);
    assert_eq!(status(&addr, "/v1/basins", Some(&almost)).await, 401);
    assert_eq!(status(&addr, "/v1/basins", Some(h.store.token().reveal())).await, 401, "no scheme");
    assert_eq!(status(&addr, "/v1/basins", Some(&good)).await, 200);
}

#[tokio::test]
async fn an_address_beyond_loopback_needs_a_token() {
    let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    for token in [None, Some("")] {
        let refused = EmbeddedStore::start(exposed(Storage::Memory, anywhere, token)).await.err().unwrap();
        assert!(matches!(refused, EmbeddedStoreError::TokenRequired { addr } if addr == anywhere), "{refused:?}");
    }
    let store = EmbeddedStore::start(exposed(Storage::Memory, anywhere, Some("open sesame"))).await.unwrap();
    let addr = format!("127.0.0.1:{}", store.exposed_addr().unwrap().port());
    assert_eq!(status(&addr, "/v1/basins", None).await, 401);
    assert_eq!(status(&addr, "/v1/basins", Some("Bearer open sesame")).await, 200);
}

#[tokio::test]
async fn an_exposed_store_has_more_than_one_owner() {
    let hidden = Harness::start().await;
    assert!(hidden.upstream.single_owner());
    let shown = Harness::with(exposed(Storage::Memory, loopback(), None)).await;
    assert!(!shown.upstream.single_owner());
    let guest = upstream_to(&format!("http://{}", shown.store.exposed_addr().unwrap()));
    assert!(!guest.single_owner());
    guest.append(&key(), messages(&["from outside"])).await.unwrap();
    assert_eq!(bodies(&shown.read(&key(), 0).await), ["from outside"]);
}

#[tokio::test]
async fn a_session_outlives_a_restart_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let storage = || Storage::Directory(directory.path().to_owned());
    let h = Harness::with(exposed(storage(), loopback(), None)).await;
    let proxy = Proxy::to(h.store.exposed_addr().unwrap()).await;
    let guest = upstream_to(&format!("http://{}", proxy.addr));
    guest.append(&key(), messages(&["a", "b"])).await.unwrap();
    let mut follower = Follower::new(guest.read_session(&key(), 0).await.unwrap());
    follower.until_caught_up_at(2).await;
    let restart = async {
        h.store.shutdown().await.unwrap();
        let h = Harness::with(exposed(storage(), loopback(), None)).await;
        proxy.target.send_replace(h.store.exposed_addr().unwrap());
        h.append(&key(), messages(&["c"])).await.unwrap();
        h
    };
    let (h, ()) = tokio::join!(restart, follower.until_caught_up_at(3));
    assert_eq!(bodies(&follower.records), ["a", "b", "c"]);
    assert_eq!(follower.stalls, 1, "the session says that it has lost its connection");
    h.store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_away_is_looked_for_by_one_and_not_by_all_who_wait() {
    const SESSIONS: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let storage = || Storage::Directory(directory.path().to_owned());
    let h = Harness::with(exposed(storage(), loopback(), None)).await;
    let proxy = Proxy::to(h.store.exposed_addr().unwrap()).await;
    let (registry, meter) = meter();
    let guest = S2Upstream::new(config_to(&format!("http://{}", proxy.addr)), meter).unwrap();
    guest.append(&key(), messages(&["a"])).await.unwrap();
    let mut followers = Vec::new();
    for _ in 0..SESSIONS {
        let mut follower = Follower::new(guest.read_session(&key(), 0).await.unwrap());
        follower.until_caught_up_at(1).await;
        followers.push(follower);
    }
    let restart = async {
        h.store.shutdown().await.unwrap();
        eventually("a read is refused and not sent", || async {
            let refused = guest.read(&key(), ReadFrom::Seq(0), 1).await;
            matches!(refused, Err(ReadError::Busy { retry_after: Some(_) }))
        })
        .await;
        assert!(guest.append(&key(), messages(&["lost"])).await.is_err(), "appends find out by themselves");
        let h = Harness::with(exposed(storage(), loopback(), None)).await;
        proxy.target.send_replace(h.store.exposed_addr().unwrap());
        h.append(&key(), messages(&["b"])).await.unwrap();
        h
    };
    let following = join_all(followers.iter_mut().map(|follower| follower.until_caught_up_at(2)));
    let (h, _) = tokio::join!(restart, following);
    assert!(followers.iter().all(|follower| bodies(&follower.records) == ["a", "b"] && follower.stalls == 1));
    eventually("nothing is held back any more", || async {
        Traffic::ALL.iter().all(|traffic| !guest.is_suspended(*traffic))
    })
    .await;
    let failed: f64 = registry
        .gather()
        .iter()
        .filter(|family| family.name() == "tailwater_upstream_errors_total")
        .flat_map(|family| family.get_metric().iter().map(|metric| metric.get_counter().value()))
        .sum();
    // Each has lost its connection, and may have looked for another twice before it was known that there is none.
    assert!(failed <= 3.0 * SESSIONS as f64 + 50.0, "{failed}");
    h.store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_store_that_stands_still_is_noticed_long_before_a_heartbeat_is_missed() {
    let h = Harness::with(exposed(Storage::Memory, loopback(), None)).await;
    let proxy = Proxy::to(h.store.exposed_addr().unwrap()).await;
    let guest = upstream_to(&format!("http://{}", proxy.addr));
    guest.append(&key(), messages(&["a"])).await.unwrap();
    let mut follower = Follower::new(guest.read_session(&key(), 0).await.unwrap());
    follower.until_caught_up_at(1).await;
    let began = Instant::now();
    proxy.hold.send_replace(true);
    follower.until_stalled().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    proxy.hold.send_replace(false);
    follower.until_caught_up_at(1).await;
    h.append(&key(), messages(&["b"])).await.unwrap();
    follower.until_caught_up_at(2).await;
    assert_eq!(bodies(&follower.records), ["a", "b"], "the connection has gone on");
}

#[derive(Default)]
struct Counter {
    open: AtomicUsize,
    opened: AtomicUsize,
    reads: AtomicUsize,
}

impl StoreObserver for Counter {
    fn read_session_opened(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.opened.fetch_add(1, Ordering::SeqCst);
    }

    fn read_session_closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn read(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
    }
}

/// A store that is exposed, and what it is asked for.
async fn counted() -> (Harness, Arc<Counter>) {
    let counter = Arc::new(Counter::default());
    let mut config = exposed(Storage::Memory, loopback(), None);
    config.observer = Some(Arc::clone(&counter) as Arc<dyn StoreObserver>);
    (Harness::with(config).await, counter)
}

#[tokio::test]
async fn sessions_are_counted_at_the_store_and_unary_reads_are_none() {
    let (h, counter) = counted().await;
    h.append(&key(), messages(&["a"])).await.unwrap();
    h.read(&key(), 0).await;
    assert!(h.upstream.read_session(&tailwater_upstream::StreamKey::new("project", "none"), 0).await.is_err());
    assert_eq!(counter.opened.load(Ordering::SeqCst), 0);
    let ours = h.upstream.read_session(&key(), 0).await.unwrap();
    let guest = S2Upstream::new(config_to(&format!("http://{}", h.store.exposed_addr().unwrap())), meter().1).unwrap();
    let theirs = guest.read_session(&key(), 0).await.unwrap();
    assert_eq!(counter.open.load(Ordering::SeqCst), 2);
    drop(ours);
    eventually("one session is closed", || async { counter.open.load(Ordering::SeqCst) == 1 }).await;
    drop(theirs);
    eventually("both sessions are closed", || async { counter.open.load(Ordering::SeqCst) == 0 }).await;
}

#[tokio::test]
async fn unary_reads_are_counted_at_the_store_and_sessions_tails_and_failures_are_none() {
    let (h, counter) = counted().await;
    let reads = || counter.reads.load(Ordering::SeqCst);
    h.append(&key(), messages(&["a", "b"])).await.unwrap();
    assert_eq!(reads(), 0);
    h.read(&key(), 0).await;
    let guest = upstream_to(&format!("http://{}", h.store.exposed_addr().unwrap()));
    guest.read(&key(), ReadFrom::Seq(1), 1).await.unwrap();
    assert_eq!(reads(), 2);
    assert!(h.read(&key(), 2).await.is_empty(), "nothing is there yet");
    assert_eq!(reads(), 3);

    h.upstream.check_tail(&key()).await.unwrap();
    let mut follower = Follower::new(h.upstream.read_session(&key(), 0).await.unwrap());
    follower.until_caught_up_at(2).await;
    assert!(h.upstream.read_session(&key(), 9).await.is_err(), "beyond the tail");
    let nowhere = tailwater_upstream::StreamKey::new("project", "none");
    assert!(h.upstream.read(&nowhere, ReadFrom::Seq(0), 1).await.is_err());
    assert_eq!(reads(), 3);
}
