//! The settings of the HTTP surface.

use std::{fmt, num::NonZeroUsize, str::FromStr, thread, time::Duration};

use http::Uri;
use tailwater_auth::{Operator, TicketSecrets};
use tailwater_protocol::{Addressing, ProjectId};
use tailwater_upstream::StreamKey;

use crate::{client_address::TrustedProxies, guard::Auth, surface::Surface, tls::Tls};

/// What an operator can turn.
#[derive(Debug, Clone)]
pub struct Config {
    /// How paths name projects.
    pub addressing: Addressing,
    /// The project of a path that names none.
    pub default_project: ProjectId,
    /// What clients know the gateway by, where a proxy stands in front of it. Without it, `Location` is built from the
    /// request's `Host`.
    pub public_url: Option<PublicUrl>,
    /// How long a long-poll waits. Shorter where something between cuts off silent requests.
    pub long_poll_timeout: Duration,
    /// How long a response of Server-Sent Events lasts, give or take a tenth. Shorter helps caches that collapse readers;
    /// longer spares reconnects.
    pub sse_lifetime: Duration,
    /// How long a response of Server-Sent Events is silent before it is sent a control event. Shorter where something
    /// between cuts off silent connections.
    pub keep_alive: Duration,
    /// The most bytes in a request's body.
    pub max_body: usize,
    /// The most bytes in all bodies that are being received or appended, rounded up to whole KiB each.
    pub body_budget: usize,
    /// How long the head of a request may take, and how long a connection of HTTP/1.1 may be idle.
    pub header_timeout: Duration,
    /// How long a body may stand still.
    pub body_timeout: Duration,
    /// How long a connection that is written to, or a stream of HTTP/2, may take nothing before it is closed.
    pub write_timeout: Duration,
    /// Over how long live responses are spread when the process ends.
    pub drain: Duration,
    /// For how long, at first, only readiness says that the process is about to end, and everybody is still let in; at most
    /// a quarter of the drain. Longer where whatever spreads the load asks for readiness more rarely.
    pub drain_notice: Duration,
    /// The most connections at once; further ones are refused.
    pub max_connections: usize,
    /// The most requests that are served at once over all connections; live responses of plain HTTP/1.1 are not among them,
    /// since each has a connection. Lower where clients of HTTP/2 bring more than the machine can bear.
    pub max_requests: usize,
    /// The most connections at once from one client address; no limit without it, because behind a proxy that is not
    /// named in `trusted_proxies` everybody has the same address.
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// How long a connection may last, give or take a tenth, before it takes no further request; for ever if this is
    /// nothing. Shorter evens the pods out sooner after one was added or replaced; longer spares clients new connections.
    pub max_connection_age: Duration,
    /// Who may say in `X-Forwarded-For` whom a request comes from.
    pub trusted_proxies: TrustedProxies,
    /// How many bytes the kernel may hold for a live reader that is slow to take them (`SO_SNDBUF`). Smaller saves memory
    /// where many readers stall; larger feeds fast readers that are far away.
    pub send_buffer: usize,
    /// How many threads write to the live readers of plain HTTP/1.1. With none, these readers take the way of all others,
    /// which costs more of everything.
    pub delivery_shards: usize,
    /// What makes the listeners speak TLS, and nothing else.
    pub tls: Option<Tls>,
    /// What the listeners for clients serve.
    pub surface: Surface,
    /// Whether the listener for operations shows profiles to everybody who reaches it. Without it they are for the operator,
    /// and for nobody where there is none.
    pub open_profiles: bool,
    /// Whether anybody may do anything, or whose tokens are asked for.
    pub auth: Auth,
    /// Who may administer all projects, if anybody; where tokens are asked for.
    pub operator: Option<Operator>,
    /// What signs the tickets of projects whose keys do not sign. The same on all gateways, or a ticket counts on one alone.
    pub ticket_secrets: TicketSecrets,
    /// The stream that tells what was asked of the administration, and by whom; where tokens are asked for. Only the gateway
    /// writes to it.
    pub audit: Option<StreamKey>,
}

/// The most connections at once to the listener for operations. They are apart from all others, so that a gateway can be
/// looked at that has as many as it may.
pub(crate) const MAX_OPERATIONS_CONNECTIONS: usize = 32;
/// The most of them from one address, so that none keeps all others out.
pub(crate) const MAX_OPERATIONS_CONNECTIONS_PER_ADDRESS: usize = 8;
/// The most requests that are served at once there, beside probes and metrics.
pub(crate) const MAX_OPERATIONS_REQUESTS: usize = 64;
/// How many connections beyond a limit are being told so at once. Further ones wait in the kernel's queue.
pub(crate) const MAX_REFUSALS: usize = 64;
/// How many connections each listener tells at once that the process may open no more files, each with a descriptor that is
/// kept for that. Further ones wait in the kernel's queue.
pub(crate) const MAX_DESCRIPTOR_REFUSALS: usize = 16;
/// How many bodies are thrown away at once, so that their clients get to read why they are refused. Where there are more, the
/// connection or stream of one that is refused ends instead.
pub(crate) const MAX_DECLINED_BODIES: usize = 1024;
/// How long a connection that is refused may take to ask and to read the answer.
pub(crate) const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
/// The same where the process may open no more files, because others wait for its descriptor.
pub(crate) const DESCRIPTOR_REFUSAL_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection that has been answered for good may still send, so that it reads the answer before it is reset.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// By how much the kernel's patience with a silent peer exceeds the write timeout, which is the more precise of the two.
pub(crate) const PEER_TIMEOUT_MARGIN: Duration = Duration::from_secs(15);
/// The most bytes in the head of a request, in either version of HTTP.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// How long a body may take in all, however steadily it trickles.
pub(crate) const WHOLE_BODY_TIMEOUT: Duration = Duration::from_secs(600);
/// How long requests may take to end after the live responses have, before they are cut off.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// The same where somebody does not want to wait.
pub(crate) const HURRIED_GRACE: Duration = Duration::from_millis(250);
/// How long an answer about readiness is repeated before the store is asked again.
pub(crate) const READINESS_TTL: Duration = Duration::from_secs(1);
/// How long the store may take to say that it is there.
pub(crate) const READINESS_TIMEOUT: Duration = Duration::from_secs(2);

impl Default for Config {
    fn default() -> Self {
        Self {
            addressing: Addressing::Projects,
            default_project: ProjectId::default(),
            public_url: None,
            long_poll_timeout: Duration::from_secs(30),
            sse_lifetime: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            max_body: 8 * 1024 * 1024,
            body_budget: 256 * 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            drain_notice: Duration::from_secs(1),
            max_connections: 100_000,
            max_requests: 100_000,
            max_connections_per_address: None,
            max_connection_age: Duration::from_secs(600),
            trusted_proxies: TrustedProxies::default(),
            send_buffer: 64 * 1024,
            delivery_shards: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            tls: None,
            surface: Surface::All,
            open_profiles: false,
            auth: Auth::Open,
            operator: None,
            ticket_secrets: TicketSecrets::default(),
            audit: None,
        }
    }
}

/// An absolute `http` or `https` URL without query, to which the path of a stream is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

/// What is wrong with a public URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a public url is `http://` or `https://`, a host, and perhaps a path; no user, no query")]
pub struct InvalidPublicUrl;

impl FromStr for PublicUrl {
    type Err = InvalidPublicUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPublicUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidPublicUrl)?;
        let scheme = uri.scheme_str().is_some_and(|scheme| scheme == "http" || scheme == "https");
        let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if !scheme || !authority || uri.query().is_some() || text.contains('#') || !text.is_ascii() {
            return Err(InvalidPublicUrl);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl PublicUrl {
    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_absolute_and_plain() {
        let table = [
            ("http://a", "http://a"),
            ("https://a.example:8443/", "https://a.example:8443"),
            ("https://a.example/streams/", "https://a.example/streams"),
            ("http://[::1]:4437", "http://[::1]:4437"),
        ];
        for (text, url) in table {
            assert_eq!(text.parse::<PublicUrl>().unwrap().as_str(), url);
        }
        for text in ["", "a.example", "/streams", "ftp://a", "http://", "http://u@a", "http://a/?b", "http://a/#b"] {
            assert_eq!(text.parse::<PublicUrl>(), Err(InvalidPublicUrl), "{text}");
        }
    }
}
