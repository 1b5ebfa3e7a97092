//! An issuer on loopback: HTTP over TLS, with the keys that a test gives it, or whatever else the test has it say.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prometheus::Registry;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _};
use serde_json::json;
use tailwater_auth::{File, JwksHosts, KeyId, NewToken, Projects, Scopes, SigningKey, TicketSecrets, mint};
use tailwater_protocol::ProjectId;
use tailwater_server::{Auth, Authorities, Config, Guard, IssuerMetrics, Issuers, IssuersSeed, Reach, Resolver};
use tempfile::tempdir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::fixture::{Fixture, NOW_MS};

/// What the issuer calls itself in tokens.
pub(crate) const ISSUER: &str = "https://login.example";
/// Where its keys are.
const HOST: &str = "login.example";

/// What it answers.
#[derive(Clone)]
pub(crate) enum Says {
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing more, for as long as the client stays.
    Stalls(Vec<u8>),
}

pub(crate) struct Issuer {
    pub(crate) port: u16,
    /// Its certificate, in PEM, which stands for its authority.
    pub(crate) certificate: String,
    says: Arc<Mutex<Says>>,
    /// The heads of the requests that it was sent.
    asked: Arc<Mutex<Vec<String>>>,
}

/// Somebody's key pair, and what it is called.
pub(crate) struct Pair {
    id: &'static str,
    pair: KeyPair,
}

/// The addresses of the issuer's host as the gateway is told them, and how often it has asked.
#[derive(Clone)]
pub(crate) struct Names {
    addresses: Arc<Mutex<Vec<&'static str>>>,
    asked: Arc<Mutex<usize>>,
}

impl Issuer {
    /// An issuer with the certificate of this name, and no keys yet.
    pub(crate) async fn called(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            port: listener.local_addr().unwrap().port(),
            certificate: made.cert.pem(),
            says: Arc::new(Mutex::new(Says::Bytes(Vec::new()))),
            asked: Arc::default(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (says, asked) = (Arc::clone(&issuer.says), Arc::clone(&issuer.asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, Arc::clone(&says), Arc::clone(&asked)));
            }
        });
        issuer
    }

    /// One whose name is what the gateway knows it by, with these keys.
    pub(crate) async fn with(keys: &[&Pair]) -> Self {
        let issuer = Self::called(HOST).await;
        issuer.shows(keys);
        issuer
    }

    /// Answers with these keys from now on.
    pub(crate) fn shows(&self, keys: &[&Pair]) {
        self.says(Says::Bytes(ok(&set(keys))));
    }

    pub(crate) fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// The heads of the requests that it was sent.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until it was asked so often.
    pub(crate) async fn asked_times(&self, times: usize) {
        settled(|| self.asked().len() >= times).await;
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    asked.lock().unwrap().push(String::from_utf8(head).unwrap());
    let says = says.lock().unwrap().clone();
    let (Says::Bytes(bytes) | Says::Stalls(bytes)) = &says;
    stream.write_all(bytes).await?;
    stream.flush().await?;
    if matches!(says, Says::Stalls(_)) {
        // Until the client has had enough.
        stream.read_u8().await?;
    }
    stream.shutdown().await
}

impl Pair {
    pub(crate) fn new(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate_for(&PKCS_ED25519).unwrap() }
    }

    /// The public one, as it stands in a set.
    pub(crate) fn jwk(&self) -> serde_json::Value {
        let info = self.pair.subject_public_key_info();
        let x = URL_SAFE_NO_PAD.encode(&info[info.len() - 32..]);
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x, "use": "sig"})
    }

    /// A token for all streams of `chat`, signed with it.
    pub(crate) fn token(&self) -> String {
        self.token_saying(|_| {})
    }

    pub(crate) fn token_saying(&self, change: impl FnOnce(&mut NewToken)) -> String {
        let id = KeyId::parse(self.id).unwrap();
        let key = SigningKey::private(Some(id), &self.pair.serialize_pem()).unwrap();
        mint(&key, &said(change)).unwrap()
    }
}

/// A token's contents.
pub(crate) fn said(change: impl FnOnce(&mut NewToken)) -> NewToken {
    let mut token = NewToken {
        project: ProjectId::parse("chat").unwrap(),
        scopes: Scopes::among(["read", "write", "manage"]),
        streams: None,
        issued_at: NOW_MS / 1000,
        expires_at: NOW_MS / 1000 + 7200,
        not_before: None,
        audience: None,
        issuer: Some(ISSUER.to_owned()),
        id: None,
    };
    change(&mut token);
    token
}

impl Names {
    pub(crate) fn at(addresses: &[&'static str]) -> Self {
        Self { addresses: Arc::new(Mutex::new(addresses.to_vec())), asked: Arc::default() }
    }

    /// Other addresses from now on.
    pub(crate) fn become_those(&self, addresses: &[&'static str]) {
        *self.addresses.lock().unwrap() = addresses.to_vec();
    }

    pub(crate) fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    fn resolver(&self) -> Resolver {
        let names = self.clone();
        Resolver::by(move |host| {
            assert_eq!(host, HOST, "no other name is ever resolved");
            *names.asked.lock().unwrap() += 1;
            let addresses = names.addresses.lock().unwrap().clone();
            Box::pin(async move {
                let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
                if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
            })
        })
    }
}

/// A gateway that fetches the keys of `chat` from this issuer, whose host has these addresses. `own` has a key of its own.
pub(crate) fn gateway(issuer: &Issuer, names: &Names) -> Fixture {
    gateway_trusting(issuer, names, &issuer.certificate, &format!("{HOST}:{}", issuer.port))
}

/// The same, with another authority and another list of hosts.
pub(crate) fn gateway_trusting(issuer: &Issuer, names: &Names, authority: &str, host: &str) -> Fixture {
    let registry = Registry::new();
    let issuers = issuers(names, authority, host, &registry);
    let text = format!(
        "[[project]]\nid = 'chat'\nissuer = '{ISSUER}'\ncookie = 'session'\n[project.jwks]\nurl = 'https://{HOST}:{}/keys?v=1'\n\
         [[project]]\nid = 'own'\n[[project.key]]\nalgorithm = 'HS256'\nsecret = '{SECRET}'\n",
        issuer.port
    );
    let projects = Projects::parse([File { name: "projects.toml", bytes: text.as_bytes() }]).unwrap();
    let guard = Guard::fixed_with(projects, Duration::from_secs(30), issuers);
    let ticket_secrets = TicketSecrets::new([SECRET.as_bytes()]).unwrap();
    let auth = Auth::Required(guard);
    // Longer than what a test lets go by.
    let sse_lifetime = Duration::from_secs(2 * 3600);
    Fixture::counting(registry, Config { auth, ticket_secrets, sse_lifetime, ..Config::default() })
}

/// Keys of issuers, fetched from this host if this authority vouches for it.
fn issuers(names: &Names, authority: &str, host: &str, registry: &Registry) -> Issuers {
    let directory = tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, authority).unwrap();
    let issuers = Issuers::new(IssuersSeed {
        hosts: JwksHosts::parse([host]).unwrap(),
        reach: Reach::with(["127.0.0.0/8"]).unwrap(),
        authorities: Authorities::load(Some(&file)).unwrap(),
        resolver: names.resolver(),
        metrics: IssuerMetrics::register(registry).unwrap(),
    });
    issuers.unwrap()
}

impl Issuer {
    /// Its keys, for a gateway that is told where it is.
    pub(crate) fn keys(&self, names: &Names) -> Issuers {
        issuers(names, &self.certificate, &format!("{HOST}:{}", self.port), &Registry::new())
    }

    /// Where its keys are.
    pub(crate) fn url(&self) -> String {
        format!("https://{HOST}:{}/keys", self.port)
    }
}

/// The secret of `own`.
pub(crate) const SECRET: &str = "the secret of own, and it is long enough";

/// The text of a set with these keys.
pub(crate) fn set(keys: &[&Pair]) -> String {
    json!({"keys": keys.iter().map(|pair| pair.jwk()).collect::<Vec<_>>()}).to_string()
}

/// An answer with this body.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    answer("200 OK", "content-type: application/json\r\n", body)
}

/// An answer with this status, these fields and this body.
pub(crate) fn answer(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Lets time go by.
pub(crate) async fn pass(seconds: u64) {
    time::pause();
    time::advance(Duration::from_secs(seconds)).await;
    time::resume();
}

/// Waits until something is so.
pub(crate) async fn settled(is_so: impl Fn() -> bool) {
    let patience = time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(time::Instant::now() < patience, "it did not come to that");
        time::sleep(Duration::from_millis(2)).await;
    }
}
