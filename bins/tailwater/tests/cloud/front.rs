//! What managed S2 looks like from outside, in front of an embedded store: one TLS listener, where a basin is the first
//! label of the host's name, and a bearer token that it checks.
//!
//! The names have to lead to this machine, without a resolver that knows them and without a change to the machine. So
//! the zone is `0.0.0x1`, and a basin is called `0x0000000000007f`: together that is an old spelling of 127.0.0.1
//! (`inet_aton` takes one to four parts, also hexadecimal and octal ones), which `getaddrinfo` knows by itself. To
//! everything else, TLS and HTTP among it, it is a name like others: its last part is no number.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tailwater_s2::{EmbeddedStore, EmbeddedStoreConfig, Endpoint, Storage};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

/// The token that the front accepts.
pub(crate) const TOKEN: &str = "the-token-of-the-account";
/// The sub-domain for what concerns no basin. Too short for a basin's name.
pub(crate) const ACCOUNT: &str = "0x7f";
/// What all names end with.
const ZONE: &str = "0.0.0x1";

/// A front and the store behind it.
pub(crate) struct Front {
    pub(crate) port: u16,
    /// The certificate, which is its own authority.
    pub(crate) certificate: String,
    shared: Arc<Shared>,
}

/// One request, as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The sub-domain that the TLS handshake asked for (RFC 6066, section 3).
    pub(crate) name: String,
    /// The host that the request names.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
}

/// How the front takes requests whose token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It passes them on.
    Open,
    /// It says that there are too many.
    Overloaded,
}

struct Shared {
    store: EmbeddedStore,
    client: Client<HttpConnector, Incoming>,
    seen: Mutex<Vec<Seen>>,
    mood: Mutex<Mood>,
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

impl Front {
    pub(crate) async fn start() -> Self {
        let store = EmbeddedStore::start(EmbeddedStoreConfig::new(Storage::Memory)).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let shared = Arc::new(Shared { store, client, seen: Mutex::default(), mood: Mutex::new(Mood::Open) });
        let (acceptor, certificate) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(connection(socket, acceptor.clone(), Arc::clone(&accepting)));
            }
        });
        Self { port, certificate, shared }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn feel(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// Where the account is, as `S2_ACCOUNT_ENDPOINT` has it.
    pub(crate) fn account(&self) -> String {
        format!("https://{}", authority(ACCOUNT, self.port))
    }

    /// Where basins are, as `S2_BASIN_ENDPOINT` has it.
    pub(crate) fn basin(&self) -> String {
        format!("https://{}", authority("{basin}", self.port))
    }
}

impl Shared {
    async fn answer(&self, name: String, mut request: Request<Incoming>) -> Answer {
        let text = |value: Option<&HeaderValue>| value.map(|value| value.to_str().unwrap().to_owned());
        let host = request.uri().authority().map(ToString::to_string);
        let seen = Seen {
            name: name.clone(),
            host: host.or_else(|| text(request.headers().get(HOST))).unwrap_or_default(),
            path: request.uri().path().to_owned(),
            authorization: text(request.headers().get(AUTHORIZATION)),
        };
        let admitted = seen.authorization.as_deref() == Some(&format!("Bearer {TOKEN}"));
        self.seen.lock().unwrap().push(seen);
        if !admitted {
            return problem(StatusCode::UNAUTHORIZED, "authn");
        }
        if *self.mood.lock().unwrap() == Mood::Overloaded {
            return problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
        }
        let Endpoint::Url(store) = self.store.endpoint() else { panic!("an embedded store has a url") };
        let path = request.uri().path_and_query().unwrap();
        *request.uri_mut() = format!("{store}{path}").parse().unwrap();
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, format!("Bearer {}", self.store.token().reveal()).parse().unwrap());
        assert!(!headers.contains_key("s2-basin"), "with sub-domains there is no need to name the basin again");
        if name != ACCOUNT {
            headers.insert("s2-basin", name.parse().unwrap());
        }
        self.client.request(request).await.unwrap().map(BodyExt::boxed)
    }
}

/// The host and port of a sub-domain.
pub(crate) fn authority(name: &str, port: u16) -> String {
    format!("{name}.{ZONE}:{port}")
}

/// An acceptor, and the certificate that it shows.
fn tls() -> (TlsAcceptor, String) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([format!("*.{ZONE}")]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    socket.set_nodelay(true).unwrap();
    // A client that does not like the certificate ends the handshake.
    let Ok(socket) = acceptor.accept(socket).await else { return };
    let name = socket.get_ref().1.server_name().unwrap_or_default().to_owned();
    let name = name.strip_suffix(&format!(".{ZONE}")).unwrap_or_default().to_owned();
    let service = service_fn(|request| {
        let (shared, name) = (Arc::clone(&shared), name.clone());
        async move { Ok::<_, hyper::Error>(shared.answer(name, request).await) }
    });
    // How the connection ends is the client's affair.
    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await.ok();
}

/// An error in S2's form.
fn problem(status: StatusCode, code: &str) -> Answer {
    let body = Full::from(format!(r#"{{"code":"{code}","message":"from the front"}}"#));
    let mut answer = Response::new(body.map_err(|never| match never {}).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
