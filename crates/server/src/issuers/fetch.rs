//! One fetch of an issuer's keys: a `GET` of HTTP/1.1 over TLS, to an address that was looked at before.
//!
//! The client is hyper's, over a connection that is made here, because of what this leaves out: nothing resolves a name a
//! second time, follows a redirect, asks a proxy of the environment, keeps a cookie or a connection, or unpacks a body. So
//! a name that leads inside ([`outbound`]) leads nowhere, whatever it says when it is asked again, and what an issuer can
//! do to the gateway ends with [`FETCH_LIMIT`], [`MAX_HEAD`] and [`MAX_JWKS`].

use std::{fmt, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tailwater_auth::{
    Jwks, JwksError, JwksUrl,
    jwks::{MAX_JWKS, PassedOver},
    outbound,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    pin,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use crate::client_address::{self, InvalidNetwork};

/// How long a fetch may take in all, its turn included.
pub(crate) const FETCH_LIMIT: Duration = Duration::from_secs(5);
/// How long one address may take to be connected to.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// How many addresses of a host are tried.
const MAX_TRIED: usize = 3;
/// The most bytes in the head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// The most fields in it.
const MAX_FIELDS: usize = 100;
/// What the gateway calls itself.
const USER_AGENT: &str = concat!("tailwater/", env!("CARGO_PKG_VERSION"));

/// Which addresses the gateway may connect to of its own accord: those of the public Internet, and networks that whoever
/// runs it has named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach(Vec<IpNet>);

/// What tells the addresses of a host; a cheap clone. Tests bring their own.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String) -> Resolving + Send + Sync>);

/// The addresses of a host, as soon as they are known.
type Resolving = BoxFuture<'static, io::Result<Vec<IpAddr>>>;

/// Fetches keys.
pub(crate) struct Fetcher {
    pub(crate) resolver: Resolver,
    pub(crate) reach: Reach,
    pub(crate) tls: TlsConnector,
}

/// What was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) jwks: Jwks,
    /// For how long it is fresh, if the issuer says.
    pub(crate) fresh: Option<Duration>,
}

/// Why nothing was fetched. Of an answer's body nothing is repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the host cannot be resolved")]
    Unresolved(#[source] io::Error),
    #[error("the host has no address")]
    NoAddress,
    #[error("the host has the address {address}, which is not on the public internet nor in a network that is allowed")]
    Forbidden { address: IpAddr },
    #[error("the host cannot be connected to")]
    Unreachable(#[source] io::Error),
    #[error("tls was not agreed on")]
    Tls(#[source] io::Error),
    #[error("the answer is not http")]
    Http(#[from] hyper::Error),
    #[error("the url cannot be asked for")]
    Request(#[from] http::Error),
    #[error("the answer is {status}, and only 200 has keys")]
    Status { status: StatusCode },
    #[error("the answer is encoded, which was not asked for")]
    Encoded,
    #[error(transparent)]
    Set(#[from] JwksError),
    #[error("it took longer than {FETCH_LIMIT:?}")]
    TimedOut,
}

impl Reach {
    /// The public Internet, and these networks, in the form `10.0.0.0/8`, or single addresses.
    ///
    /// # Errors
    /// [`InvalidNetwork`], with the first text that is neither.
    pub fn with<S: AsRef<str>>(networks: impl IntoIterator<Item = S>) -> Result<Self, InvalidNetwork> {
        networks.into_iter().map(|text| client_address::network(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    fn includes(&self, address: IpAddr) -> bool {
        outbound::may_reach(address) || self.0.iter().any(|network| network.contains(&address))
    }
}

impl Resolver {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        Self::by(|host| {
            Box::pin(async move {
                // The port is none of the resolver's business, but the library wants one.
                Ok(lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
            })
        })
    }

    /// A resolver that asks this.
    pub fn by(resolve: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }
}

impl Fetcher {
    /// Fetches the keys that stand at a URL. Who awaits it bounds the time.
    pub(crate) async fn fetch(&self, url: &JwksUrl) -> Result<Fetched, FetchError> {
        let stream = self.connect(url).await?;
        let name = ServerName::try_from(url.host().to_owned());
        let name = name.map_err(|fault| FetchError::Tls(io::Error::other(fault)))?;
        let stream: TlsStream<_> = self.tls.connect(name, stream).await.map_err(FetchError::Tls)?;
        ask(url, stream).await
    }

    /// Connects to one of the host's addresses, if it may be connected to any of them.
    async fn connect(&self, url: &JwksUrl) -> Result<TcpStream, FetchError> {
        let addresses = (self.resolver.0)(url.host().to_owned()).await.map_err(FetchError::Unresolved)?;
        if let Some(address) = addresses.iter().copied().find(|address| !self.reach.includes(*address)) {
            return Err(FetchError::Forbidden { address });
        }
        let mut error = FetchError::NoAddress;
        for address in addresses.into_iter().take(MAX_TRIED) {
            match timeout(CONNECT_LIMIT, TcpStream::connect((address, url.port()))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(fault)) => error = FetchError::Unreachable(fault),
                Err(late) => error = FetchError::Unreachable(late.into()),
            }
        }
        Err(error)
    }
}

impl FetchError {
    /// A stable name, for metrics.
    pub(crate) const fn outcome(&self) -> &'static str {
        match self {
            Self::Unresolved(_) | Self::NoAddress => "unresolved",
            Self::Forbidden { .. } => "forbidden_address",
            Self::Unreachable(_) => "unreachable",
            Self::Tls(_) => "tls",
            Self::Http(_) | Self::Request(_) => "http",
            Self::Status { .. } => "status",
            Self::Encoded | Self::Set(_) => "malformed",
            Self::TimedOut => "timed_out",
        }
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver(…)")
    }
}

/// Asks for the keys over a connection.
async fn ask<Io>(url: &JwksUrl, stream: Io) -> Result<Fetched, FetchError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let request = Request::get(url.target())
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let exchange = async { taken(sender.send_request(request).await?).await };
    pin!(exchange, connection);
    let mut is_open = true;
    loop {
        tokio::select! {
            // The answer first: a connection that has ended may have brought all of it.
            biased;
            fetched = &mut exchange => return fetched,
            _ended = &mut connection, if is_open => is_open = false,
        }
    }
}

/// Takes an answer in, as far as it may go.
async fn taken(response: Response<Incoming>) -> Result<Fetched, FetchError> {
    let (parts, mut body) = response.into_parts();
    if parts.status != StatusCode::OK {
        return Err(FetchError::Status { status: parts.status });
    }
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(FetchError::Encoded);
    }
    let most = MAX_JWKS as u64;
    if body.size_hint().lower() > most {
        return Err(JwksError::TooLong.into());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_JWKS {
            return Err(JwksError::TooLong.into());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Fetched { jwks: Jwks::parse(&bytes)?, fresh: fresh(&parts.headers) })
}

/// For how long an answer is fresh (RFC 9111, section 5.2.2). The cache bounds it.
fn fresh(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let directives = lines.flat_map(|line| line.split(',')).map(|directive| directive.trim().to_ascii_lowercase());
    let said = directives.filter_map(|directive| match directive.as_str() {
        "no-store" | "no-cache" => Some(Duration::ZERO),
        other => Some(Duration::from_secs(other.strip_prefix("max-age=")?.trim_matches('"').parse().ok()?)),
    });
    // Where it says two things, the stricter one.
    said.min()
}

/// What is said of keys that do not count, for who runs an issuer: their places in the set, and why.
pub(crate) fn passed_over(jwks: &Jwks) -> String {
    let one = |(number, reason): &(usize, PassedOver)| format!("{number}: {reason:?}");
    jwks.passed_over.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_an_issuer_says_about_freshness_is_taken_strictly() {
        let table: [(&[&str], Option<u64>); 8] = [
            (&[], None),
            (&["public"], None),
            (&["public, max-age=100"], Some(100)),
            (&["Max-Age=\"100\"", "max-age=50"], Some(50)),
            (&["max-age=100, no-cache"], Some(0)),
            (&["no-store"], Some(0)),
            (&["max-age=-1"], None),
            (&["max-age=99999999999999999999"], None),
        ];
        for (lines, seconds) in table {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
            }
            assert_eq!(fresh(&headers), seconds.map(Duration::from_secs), "{lines:?}");
        }
    }

    #[test]
    fn a_network_is_reached_only_if_it_is_public_or_named() {
        let reach = Reach::with(["10.1.0.0/16", "fd00::1"]).unwrap();
        let reaches = |address: &str| reach.includes(address.parse().unwrap());
        assert!(reaches("8.8.8.8") && reaches("10.1.2.3") && reaches("fd00::1"));
        for address in ["10.2.0.1", "127.0.0.1", "169.254.169.254", "fd00::2", "::ffff:10.1.2.3"] {
            assert!(!reaches(address), "{address}");
        }
        assert!(Reach::with(["10.0.0.0/33"]).is_err());
    }
}
