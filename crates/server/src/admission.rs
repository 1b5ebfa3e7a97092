//! Who is let in: how many connections there may be, in all and from one client, and how many requests on all of them.
//!
//! What counts is guarded: a place is taken when a connection is accepted, or when a request comes through a trusted
//! proxy, and given back when the guard goes. The table of clients has an entry for each that has a place, and no other,
//! so it is bounded by what is open. The guard of a connection also knows until when that may last: a pod that is new gets
//! its share of readers only because the connections of others come to an end.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use prometheus::IntGauge;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    client_address::{Client, TrustedProxies},
    config::{
        Config, MAX_OPERATIONS_CONNECTIONS, MAX_OPERATIONS_CONNECTIONS_PER_ADDRESS, MAX_OPERATIONS_REQUESTS,
        MAX_REFUSALS,
    },
};

/// In how many parts of a second the ends of connections are counted, so that they fit four bytes for eight years.
const PARTS: u32 = 16;

/// What bounds connections and requests; shared by all listeners and handlers.
#[derive(Debug)]
pub(crate) struct Admission {
    door: Arc<Door>,
    refusals: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    max_requests: usize,
    clients: Clients,
    per_client: Option<NonZeroUsize>,
    proxies: TrustedProxies,
    /// What is said where there are as many connections as there may be.
    full: Limit,
}

/// Where connections come in, and go.
#[derive(Debug)]
struct Door {
    slots: Semaphore,
    open: IntGauge,
    began: Instant,
    max_age: Duration,
}

/// What a connection holds for as long as it is open, whoever serves it. Very many of them wait at the delivery shards, so
/// it is small.
#[derive(Debug)]
pub(crate) struct Admitted {
    door: Arc<Door>,
    /// Until when it may last, in parts of a second since the door was opened.
    until: Option<NonZeroU32>,
    _place: Option<Place>,
}

/// A client's claim to one of its places.
#[derive(Debug)]
pub(crate) struct Place {
    clients: Clients,
    client: Client,
}

/// A request that is being served, until its response is sent or has left for a delivery shard, where it is bounded by the
/// connections.
#[derive(Debug)]
pub(crate) struct Serving {
    _permit: OwnedSemaphorePermit,
}

/// The address of a connection's other end, for the handlers of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Which limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Limit {
    /// As many connections as there may be.
    #[error("the gateway has as many connections as it may")]
    Connections,
    /// As many as there may be to the listener for operations.
    #[error("the listener has as many connections as it may")]
    OperationsConnections,
    /// As many connections, or requests through proxies, as one client may have.
    #[error("this address has as many connections as it may")]
    ConnectionsPerAddress,
    /// As many requests as may be served at once.
    #[error("the gateway serves as many requests as it may")]
    Requests,
    /// As many bytes of bodies as there may be in memory.
    #[error("the gateway holds as many bytes of bodies as it may")]
    BodyBytes,
    /// The process has as many files open as it may.
    #[error("the gateway has as many files open as it may")]
    Descriptors,
}

/// How many places each client has.
#[derive(Debug, Clone, Default)]
struct Clients(Arc<Mutex<HashMap<Client, usize>>>);

/// A body that keeps what its request holds until it ends.
pub(crate) struct Held<K> {
    body: Body,
    _kept: K,
}

impl Admission {
    pub(crate) fn new(config: &Config, open: &IntGauge) -> Self {
        let max_requests = config.max_requests.min(Semaphore::MAX_PERMITS);
        Self {
            door: Arc::new(Door {
                slots: Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)),
                open: open.clone(),
                began: Instant::now(),
                max_age: config.max_connection_age,
            }),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            requests: Arc::new(Semaphore::new(max_requests)),
            max_requests,
            clients: Clients::default(),
            per_client: config.max_connections_per_address,
            proxies: config.trusted_proxies.clone(),
            full: Limit::Connections,
        }
    }

    /// What bounds the listener for operations.
    pub(crate) fn of_operations(config: &Config, open: &IntGauge) -> Self {
        let config = Config {
            max_connections: MAX_OPERATIONS_CONNECTIONS,
            max_connections_per_address: NonZeroUsize::new(MAX_OPERATIONS_CONNECTIONS_PER_ADDRESS),
            max_requests: MAX_OPERATIONS_REQUESTS,
            max_connection_age: config.max_connection_age,
            ..Config::default()
        };
        Self { full: Limit::OperationsConnections, ..Self::new(&config, open) }
    }

    /// Waits until a connection can be let in, or at least be told that it cannot. Cancel safe.
    pub(crate) async fn room(&self) {
        // The semaphores are never closed, and whoever accepts asks again for what it needs.
        tokio::select! {
            biased;
            _ = self.door.slots.acquire() => {}
            _ = self.refusals.acquire() => {}
        }
    }

    /// Lets a connection in.
    pub(crate) fn admit(&self, peer: SocketAddr) -> Result<Admitted, Limit> {
        let slot = self.door.slots.try_acquire().map_err(|_| self.full)?;
        // What comes from a trusted proxy is counted request by request, by whom the proxy speaks for.
        let place = if self.proxies.contains(peer.ip()) { None } else { self.place(peer.ip())? };
        // Given back when what is made of it goes.
        slot.forget();
        Ok(self.door.admitted(place))
    }

    /// A request's share of what may be served at once: a connection of HTTP/2 can bring a thousand.
    pub(crate) fn serve(&self) -> Result<Serving, Limit> {
        let permit = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| Limit::Requests)?;
        Ok(Serving { _permit: permit })
    }

    /// Lets a request in, for whoever a trusted proxy says that it is from. Others were counted with their connection.
    pub(crate) fn admit_request(&self, peer: Option<Peer>, headers: &HeaderMap) -> Result<Option<Place>, Limit> {
        match peer {
            Some(Peer(peer)) if self.per_client.is_some() && self.proxies.contains(peer.ip()) => {
                self.proxies.client_behind(headers).map_or(Ok(None), |client| self.place(client))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Whom a request is from: whoever a trusted proxy says, else the other end of its connection.
    pub(crate) fn client(&self, peer: Option<Peer>, headers: &HeaderMap) -> Option<Client> {
        let Peer(peer) = peer?;
        let behind = || self.proxies.contains(peer.ip()).then(|| self.proxies.client_behind(headers)).flatten();
        Some(behind().unwrap_or_else(|| peer.ip()).into())
    }

    /// How many requests are being served.
    pub(crate) fn requests(&self) -> usize {
        self.max_requests - self.requests.available_permits()
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        usize::try_from(self.door.open.get()).unwrap_or(0)
    }

    /// The right to tell a connection that it is refused, if not too many are being told already.
    pub(crate) fn refusal(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }

    fn place(&self, client: IpAddr) -> Result<Option<Place>, Limit> {
        self.per_client.map(|most| self.clients.enter(client.into(), most)).transpose()
    }
}

impl Door {
    fn admitted(self: &Arc<Self>, place: Option<Place>) -> Admitted {
        self.open.inc();
        // Give or take a tenth: those who came together do not leave together.
        let age = self.max_age.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        let parts = ((self.began.elapsed() + age).as_secs_f64() * f64::from(PARTS)).ceil();
        let until = if self.max_age.is_zero() { None } else { NonZeroU32::new(parts as u32) };
        Admitted { door: Arc::clone(self), until, _place: place }
    }
}

impl Admitted {
    /// When the connection has lasted as long as it may; `None` where it may for ever.
    pub(crate) fn until(&self) -> Option<Instant> {
        let parts = self.until?.get();
        self.door.began.checked_add(Duration::from_secs(u64::from(parts)) / PARTS)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.door.slots.add_permits(1);
        self.door.open.dec();
    }
}

impl Clients {
    fn enter(&self, client: Client, most: NonZeroUsize) -> Result<Place, Limit> {
        let mut table = self.table();
        let count = table.entry(client).or_insert(0);
        if *count >= most.get() {
            return Err(Limit::ConnectionsPerAddress);
        }
        *count += 1;
        Ok(Place { clients: self.clone(), client })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Client, usize>> {
        // Nothing in here can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.clients.table();
        match table.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                table.remove(&self.client);
            }
        }
    }
}

impl Limit {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::OperationsConnections => "operations_connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Requests => "requests",
            Self::BodyBytes => "body_bytes",
            Self::Descriptors => "descriptors",
        }
    }
}

impl Place {
    /// Keeps the place until the response has been sent. Whoever takes the response on without its body keeps it by itself.
    pub(crate) fn keep_with(self: Arc<Self>, response: Response) -> Response {
        response.map(|body| Body::new(Held::new(body, self)))
    }
}

impl Serving {
    /// Lasts until the response has been sent.
    pub(crate) fn last_with(self, response: Response) -> Response {
        if http_body::Body::is_end_stream(response.body()) {
            return response;
        }
        response.map(|body| Body::new(Held::new(body, self)))
    }
}

impl<K> Held<K> {
    pub(crate) fn new(body: Body, kept: K) -> Self {
        Self { body, _kept: kept }
    }
}

impl<K: Unpin> http_body::Body for Held<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};

    use super::*;

    fn admission(connections: usize, per_address: usize) -> Admission {
        let config = Config {
            max_connections: connections,
            max_connections_per_address: NonZeroUsize::new(per_address),
            trusted_proxies: TrustedProxies::parse(["10.0.0.0/8"]).unwrap(),
            ..Config::default()
        };
        Admission::new(&config, &IntGauge::new("open", "open").unwrap())
    }

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 4711)
    }

    fn forwarded(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static(text))])
    }

    #[test]
    fn a_slot_is_free_again_when_its_connection_has_gone() {
        let admission = admission(2, 0);
        let first = admission.admit(peer("192.0.2.1")).unwrap();
        let _second = admission.admit(peer("192.0.2.1")).unwrap();
        assert_eq!(admission.door.open.get(), 2);
        assert_eq!(admission.admit(peer("192.0.2.2")).unwrap_err(), Limit::Connections);
        drop(first);
        assert!(admission.admit(peer("192.0.2.2")).is_ok());
        assert!(admission.clients.table().is_empty(), "nobody is counted where there is no limit");
    }

    #[test]
    fn one_address_cannot_take_all_and_what_it_leaves_behind_is_nothing() {
        let admission = admission(10, 2);
        let held: Vec<_> = (0..2).map(|_| admission.admit(peer("192.0.2.1")).unwrap()).collect();
        assert_eq!(admission.admit(peer("192.0.2.1")).unwrap_err(), Limit::ConnectionsPerAddress);
        assert!(admission.admit(peer("192.0.2.2")).is_ok());
        assert_eq!(admission.door.slots.available_permits(), 8, "who is refused takes no slot");
        drop(held);
        assert!(admission.clients.table().is_empty());
    }

    #[test]
    fn operations_have_their_own_requests_however_few_clients_may_have() {
        let config = Config { max_requests: 1, ..Config::default() };
        let admission = Admission::of_operations(&config, &IntGauge::new("open", "open").unwrap());
        let served: Vec<_> = std::iter::from_fn(|| admission.serve().ok()).collect();
        assert_eq!(served.len(), MAX_OPERATIONS_REQUESTS);
        assert_eq!(admission.serve().unwrap_err(), Limit::Requests);
        drop(served);
        assert!(admission.serve().is_ok());
    }

    #[test]
    fn connections_that_came_together_may_last_about_as_long_and_not_exactly() {
        let admission = |max_connection_age| {
            let config = Config { max_connection_age, ..Config::default() };
            Admission::new(&config, &IntGauge::new("open", "open").unwrap())
        };
        let limited = admission(Duration::from_secs(600));
        let now = Instant::now();
        let age = |_| limited.admit(peer("192.0.2.1")).unwrap().until().unwrap() - now;
        let mut ages: Vec<_> = (0..100).map(age).collect();
        assert!(ages.iter().all(|age| (540..=661).contains(&age.as_secs())), "{ages:?}");
        ages.sort_unstable();
        ages.dedup();
        assert!(ages.len() > 50, "{ages:?}");
        assert_eq!(admission(Duration::ZERO).admit(peer("192.0.2.1")).unwrap().until(), None);
    }

    #[test]
    fn a_proxys_requests_are_counted_by_whom_it_speaks_for_and_nobody_elses_are() {
        let admission = admission(10, 1);
        let proxy = Some(Peer(peer("10.0.0.1")));
        let _connections: Vec<_> = (0..3).map(|_| admission.admit(peer("10.0.0.1")).unwrap()).collect();
        let first = admission.admit_request(proxy, &forwarded("192.0.2.1")).unwrap();
        assert!(first.is_some());
        let refused = admission.admit_request(proxy, &forwarded("192.0.2.9, 192.0.2.1"));
        assert_eq!(refused.unwrap_err(), Limit::ConnectionsPerAddress);
        assert!(admission.admit_request(proxy, &forwarded("192.0.2.1, 192.0.2.9")).is_ok());
        assert!(admission.admit_request(proxy, &HeaderMap::new()).unwrap().is_none());
        let forger = Some(Peer(peer("192.0.2.5")));
        for _ in 0..3 {
            assert!(admission.admit_request(forger, &forwarded("192.0.2.1")).unwrap().is_none());
        }
    }

    #[test]
    fn a_place_is_kept_until_the_body_and_whoever_took_it_over_have_gone() {
        let admission = admission(10, 1);
        let place = admission.place("192.0.2.1".parse().unwrap()).unwrap().unwrap();
        let place = Arc::new(place);
        let response = Arc::clone(&place).keep_with(Response::new(Body::from("abc")));
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(3));
        drop(response);
        assert_eq!(admission.clients.table().len(), 1);
        drop(place);
        assert!(admission.clients.table().is_empty());
    }

    #[tokio::test]
    async fn there_is_room_until_slots_and_refusals_are_both_taken() {
        let admission = admission(1, 0);
        admission.room().await;
        let slot = admission.admit(peer("192.0.2.1")).unwrap();
        admission.room().await;
        let refusals: Vec<_> = std::iter::from_fn(|| admission.refusal()).collect();
        assert_eq!(refusals.len(), MAX_REFUSALS);
        assert!(futures_util::FutureExt::now_or_never(admission.room()).is_none());
        drop(slot);
        admission.room().await;
    }
}
