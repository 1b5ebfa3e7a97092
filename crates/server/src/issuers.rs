//! Issuers: whose keys verify a project's tokens beside the project's own, fetched by URL (JWKS, RFC 7517).
//!
//! Which URL that is stands in the project's configuration, and its host in the gateway's: nothing in a token has a say.
//! When keys are fetched, and how long they count, is for [`JwksCache`] to say. What is here is what it takes: a fetch has
//! a task of its own, so that it does not end with the request that it is for, and the requests that need its outcome wait
//! for it, so many of them and so long. A token of which nothing can be said, because its issuer is away, is not refused
//! but answered `503`: it may well count.
//!
//! - `fetch`: one fetch.
//! - `count`: what is counted.

mod count;
mod fetch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tailwater_auth::{
    Grant, JwksCache, JwksHosts, Key, Moment, Project, Projects, TokenError,
    jwks::{Fetch, FetchId, Found, Lookup, Source, Wanted},
    key::KeyPrint,
    token::Token,
};
use tailwater_protocol::ProjectId;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{
            CertificateDer,
            pem::{self, PemObject as _},
        },
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    count::IssuerMetrics,
    fetch::{Reach, Resolver},
};
use self::{
    count::Unjudged,
    fetch::{FETCH_LIMIT, FetchError, Fetched, Fetcher, passed_over},
};
use crate::metrics::Alive;

/// How many fetches are under way at once. Others wait for their turn, within their time.
const MAX_FETCHES: usize = 8;
/// How many requests wait for keys at once. Further ones are told to come back.
const MAX_WAITING: usize = 16 * 1024;
/// How long a request waits for keys: as long as a fetch may take, and a moment for word of it to get around.
const WAIT_LIMIT: Duration = FETCH_LIMIT.saturating_add(Duration::from_secs(1));
/// When to come back where nobody knows better.
const SOON: Duration = Duration::from_secs(1);

/// The issuers whose keys count, or none; a cheap clone.
#[derive(Debug, Clone, Default)]
pub struct Issuers(Option<Arc<Shared>>);

/// What [`Issuers`] are made of.
#[derive(Debug)]
pub struct IssuersSeed {
    /// Where keys may be fetched from, whatever projects say.
    pub hosts: JwksHosts,
    /// Which addresses those hosts may have.
    pub reach: Reach,
    /// Who says that a host is the one that it is called.
    pub authorities: Authorities,
    /// What tells the hosts' addresses.
    pub resolver: Resolver,
    /// What is counted.
    pub metrics: IssuerMetrics,
}

/// Authorities whose certificates are believed.
#[derive(Debug, Clone)]
pub struct Authorities(RootCertStore);

/// Why issuers' keys cannot be fetched at all.
#[derive(Debug, thiserror::Error)]
pub enum IssuersError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificates in PEM.
    #[error("{} holds no certificates", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A certificate is of no use.
    #[error("a certificate in {} is of no use", path.display())]
    Useless {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Nobody would be believed.
    #[error("the system has no certificates of authorities, and none are named")]
    NoAuthorities,
    /// The cryptography is not available.
    #[error("tls cannot be set up")]
    Setup {
        /// Why.
        source: rustls::Error,
    },
}

/// A project whose keys may not be fetched from where it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "project `{project}` has its issuer's keys at `{authority}`, which is none of the hosts that keys are fetched from"
)]
pub struct Unlisted {
    /// The project.
    pub project: ProjectId,
    /// The host, and its port if it is not the usual one.
    pub authority: String,
}

/// Why nobody knows whether a token counts: its issuer's keys are not known, and cannot be fetched just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys of the token's issuer cannot be fetched just now")]
pub struct IssuerAway {
    /// When to come back.
    pub again_after: Duration,
}

/// Why a token lets nobody do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoGrant {
    /// It does not count.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody knows.
    #[error(transparent)]
    Away(#[from] IssuerAway),
}

#[derive(Debug)]
struct Shared {
    hosts: JwksHosts,
    fetcher: Fetcher,
    cache: Mutex<JwksCache>,
    /// What the cache's times are since.
    began: Instant,
    /// Rings whenever a fetch has ended.
    news: watch::Sender<()>,
    /// Rings whenever keys that counted do so no more.
    withdrawals: watch::Sender<()>,
    turns: Semaphore,
    places: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
    metrics: IssuerMetrics,
}

impl Authorities {
    /// Those of the system, and those in a file of PEM.
    ///
    /// # Errors
    /// [`IssuersError`], where a file is of no use, or there are none at all.
    pub fn load(file: Option<&Path>) -> Result<Self, IssuersError> {
        let mut roots = RootCertStore::empty();
        // What the system has and cannot be read is nobody's who would be believed.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = file {
            let unreadable = |source| IssuersError::Unreadable { path: path.to_owned(), source };
            let text = fs::read(path).map_err(unreadable)?;
            let named = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
            let named = named.and_then(|all| if all.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(all) });
            let named = named.map_err(|source| IssuersError::Malformed { path: path.to_owned(), source })?;
            for certificate in named {
                let useless = |source| IssuersError::Useless { path: path.to_owned(), source };
                roots.add(certificate).map_err(useless)?;
            }
        }
        if roots.is_empty() { Err(IssuersError::NoAuthorities) } else { Ok(Self(roots)) }
    }
}

impl Issuers {
    /// Issuers at these hosts.
    ///
    /// # Errors
    /// [`IssuersError::Setup`].
    pub fn new(seed: IssuersSeed) -> Result<Self, IssuersError> {
        let IssuersSeed { hosts, reach, authorities, resolver, metrics } = seed;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let builder = builder.map_err(|source| IssuersError::Setup { source })?;
        let mut tls = builder.with_root_certificates(authorities.0).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Some(Arc::new(Shared {
            hosts,
            fetcher: Fetcher { resolver, reach, tls: TlsConnector::from(Arc::new(tls)) },
            cache: Mutex::default(),
            began: Instant::now(),
            news: watch::Sender::default(),
            withdrawals: watch::Sender::default(),
            turns: Semaphore::new(MAX_FETCHES),
            places: Semaphore::new(MAX_WAITING),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            metrics,
        }))))
    }

    /// No issuers: projects have no keys but their own.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether the keys of all these projects may be fetched from where they are.
    ///
    /// # Errors
    /// [`Unlisted`], with one of which they may not.
    pub fn check<'p>(&self, projects: impl IntoIterator<Item = &'p Project>) -> Result<(), Unlisted> {
        let mut elsewhere = projects.into_iter().filter_map(|project| {
            let url = project.jwks.as_ref().filter(|url| !self.may_ask(url))?;
            Some(Unlisted { project: project.id.clone(), authority: url.authority().to_owned() })
        });
        elsewhere.next().map_or(Ok(()), Err)
    }

    /// These projects are in force: their issuers are known from now on, and no others.
    pub(crate) fn configure(&self, projects: &Projects) {
        let Some(shared) = &self.0 else { return };
        // Where the projects come from is no matter here: what is not listed is not fetched.
        let sources = projects.iter().filter_map(Project::source).filter(|source| self.may_ask(&source.url));
        // Of those that stand for others, somebody who reads already may have a key; nobody else may ever ask.
        for (source, id) in shared.locked(|cache| cache.configure(sources, shared.now())) {
            shared.tasks.spawn(Arc::clone(shared).fetch(source, id));
        }
    }

    /// Whether keys may be fetched from there.
    pub(crate) fn may_ask(&self, url: &tailwater_auth::JwksUrl) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.hosts.lists(url))
    }

    /// What a token lets its bearer do in a project at this moment, by a key of the project's own or of its issuer's.
    ///
    /// # Errors
    /// [`NoGrant`].
    pub(crate) async fn grant(
        &self,
        projects: &Projects,
        project: &ProjectId,
        token: &str,
        moment: Moment,
    ) -> Result<Arc<Grant>, NoGrant> {
        let unverified = match projects.verify(project, token, moment) {
            Err(error @ TokenError::Unverified) => error.into(),
            verdict => return Ok(verdict?),
        };
        let source = projects.get(project).and_then(Project::source);
        let (Some(shared), Some(source)) = (&self.0, source) else { return Err(unverified) };
        let wanted = Project::wanted(&Token::parse(token)?).ok_or(unverified)?;
        let key = shared.key(&source, &wanted).await?.ok_or(unverified)?;
        Ok(projects.verify_with(project, &key, token, moment)?)
    }

    /// Whether what a key has let in may go on: it was the project's issuer's, and is not known to be so no more. This lets
    /// nobody in, and nothing is fetched for it.
    #[must_use]
    pub fn still_have(&self, project: &Project, key: KeyPrint) -> bool {
        let (Some(shared), Some(source)) = (&self.0, project.source()) else { return false };
        shared.locked(|cache| cache.still_has(&source, key))
    }

    /// Whether a key is one of the project's issuer's, fetched where that may tell.
    ///
    /// # Errors
    /// [`IssuerAway`], where nobody knows.
    pub async fn recognise(&self, project: &Project, key: KeyPrint) -> Result<bool, IssuerAway> {
        let (Some(shared), Some(source)) = (&self.0, project.source()) else { return Ok(false) };
        Ok(shared.key(&source, &Wanted::Print(key)).await?.is_some())
    }

    /// Tells whenever issuers have withdrawn keys since a subscription; `None` where none have any.
    pub(crate) fn withdrawals(&self) -> Option<watch::Receiver<()>> {
        Some(self.0.as_ref()?.withdrawals.subscribe())
    }

    /// Ends what is under way, and waits for it.
    pub(crate) async fn end(&self) {
        let Some(shared) = &self.0 else { return };
        shared.stop.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
    }
}

impl Shared {
    /// A key, fetched if need be; none, if there is none.
    async fn key(self: &Arc<Self>, source: &Source, wanted: &Wanted) -> Result<Option<Box<Key>>, IssuerAway> {
        match self.look(source, wanted) {
            Some(Ok(known)) => Ok(known),
            Some(Err(again_after)) => Err(self.away(Unjudged::Away, again_after)),
            // Few come here, and what they need is more than all others should carry along.
            None => Box::pin(self.awaited(source, wanted)).await,
        }
    }

    async fn awaited(self: &Arc<Self>, source: &Source, wanted: &Wanted) -> Result<Option<Box<Key>>, IssuerAway> {
        let Ok(_place) = self.places.try_acquire() else { return Err(self.away(Unjudged::Crowded, SOON)) };
        let _waiting = Alive::new(&self.metrics.waiting);
        let deadline = Instant::now() + WAIT_LIMIT;
        // Before the look, so that no news is missed.
        let mut news = self.news.subscribe();
        loop {
            match self.look(source, wanted) {
                Some(Ok(known)) => return Ok(known),
                Some(Err(again_after)) => return Err(self.away(Unjudged::Away, again_after)),
                None => {}
            }
            let has_news = tokio::select! {
                // There will be none.
                () = self.stop.cancelled() => false,
                heard = timeout_at(deadline, news.changed()) => heard.is_ok(),
            };
            if !has_news {
                return Err(self.away(Unjudged::Away, SOON));
            }
        }
    }

    /// The key, if there is one, or when to ask again; nothing, while a fetch is under way that may tell.
    fn look(self: &Arc<Self>, source: &Source, wanted: &Wanted) -> Option<Result<Option<Box<Key>>, Duration>> {
        let now = self.now();
        let (known, fetch) = self.locked(|cache| {
            let Lookup { found, fetch } = cache.look_up(source, wanted, now);
            let known = match found {
                Found::Key(key) => Some(Ok(Some(Box::new(key.clone())))),
                Found::Pending => None,
                Found::Unknown => Some(Ok(None)),
                Found::Away(wait) => Some(Err(wait)),
            };
            (known, fetch)
        });
        if let Some(id) = fetch {
            self.tasks.spawn(Arc::clone(self).fetch(source.clone(), id));
        }
        known
    }

    /// Fetches a source's keys, and tells everybody.
    async fn fetch(self: Arc<Self>, source: Source, id: FetchId) {
        let in_turn = async {
            // It is never closed.
            let _turn = self.turns.acquire().await.ok();
            self.fetcher.fetch(&source.url).await
        };
        let fetched = tokio::select! {
            // Nobody asks any more.
            () = self.stop.cancelled() => return,
            fetched = timeout(FETCH_LIMIT, in_turn) => fetched.unwrap_or(Err(FetchError::TimedOut)),
        };
        let fetch = self.told(&source, fetched);
        let (is_less, failing) = self.locked(|cache| {
            let is_less = cache.fetched(&source, id, fetch, self.now());
            (is_less, cache.failing())
        });
        self.metrics.failing.set(i64::try_from(failing).unwrap_or(i64::MAX));
        if is_less {
            self.withdrawals.send_replace(());
        }
        self.news.send_replace(());
    }

    /// Counts and logs what became of a fetch. The path of the URL is not logged: some issuers have a key of ours in it.
    fn told(&self, source: &Source, fetched: Result<Fetched, FetchError>) -> Fetch {
        let host = source.url.host();
        match fetched {
            Ok(Fetched { jwks, fresh }) => {
                self.metrics.fetched("keys");
                let (keys, others) = (jwks.keys.len(), passed_over(&jwks));
                tracing::debug!(host, keys, others, "fetched an issuer's keys");
                Fetch::Keys(jwks, fresh)
            }
            Err(error) => {
                self.metrics.fetched(error.outcome());
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(host, %error, cause, "an issuer's keys were not fetched");
                Fetch::Failed
            }
        }
    }

    fn away(&self, reason: Unjudged, again_after: Duration) -> IssuerAway {
        self.metrics.unjudged(reason);
        IssuerAway { again_after }
    }

    fn locked<T>(&self, with: impl FnOnce(&mut JwksCache) -> T) -> T {
        with(&mut self.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        net::{IpAddr, Ipv4Addr},
        sync::atomic::{AtomicI64, Ordering},
    };

    use futures_util::future::join_all;
    use prometheus::{IntGauge, Registry};
    use tailwater_auth::{File, jwks::MAX_HOSTS};

    use super::*;

    /// As many projects, each with an issuer at a host of its own.
    fn projects(count: usize) -> Projects {
        let project =
            |n| format!("[[project]]\nid = 'p{n}'\nissuer = 'i'\n[project.jwks]\nurl = 'https://h{n}.example/keys'\n");
        let text: String = (0..count).map(project).collect();
        Projects::parse([File { name: "p.toml", bytes: text.as_bytes() }]).unwrap()
    }

    /// Issuers of these projects, whose hosts are resolved so.
    fn issuers(projects: &Projects, resolver: Resolver) -> Issuers {
        let made = rcgen::generate_simple_self_signed(["login.example".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let hosts: Vec<_> = projects.iter().map(|project| project.jwks.as_ref().unwrap().host()).collect();
        let issuers = Issuers::new(IssuersSeed {
            hosts: JwksHosts::parse(hosts).unwrap(),
            reach: Reach::default(),
            authorities: Authorities(roots),
            resolver,
            metrics: IssuerMetrics::register(&Registry::new()).unwrap(),
        });
        let issuers = issuers.unwrap();
        issuers.configure(projects);
        issuers
    }

    fn some_key() -> KeyPrint {
        Key::secret(None, &[7; 32]).unwrap().print()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_fetches_are_under_way_at_once_and_none_for_longer_than_it_may() {
        let active = IntGauge::new("active", "Fetches that are under way.").unwrap();
        let most = Arc::new(AtomicI64::new(0));
        let (now, peak) = (active.clone(), Arc::clone(&most));
        let projects = projects(MAX_HOSTS);
        let issuers = issuers(
            &projects,
            Resolver::by(move |_| {
                let (now, peak) = (now.clone(), Arc::clone(&peak));
                Box::pin(async move {
                    let _alive = Alive::new(&now);
                    peak.fetch_max(now.get(), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
                })
            }),
        );
        let began = Instant::now();
        let asked = join_all(projects.iter().map(|project| issuers.recognise(project, some_key()))).await;
        assert!(asked.iter().all(Result::is_err), "no address of theirs may be reached");
        assert_eq!((most.load(Ordering::Relaxed), active.get()), (i64::try_from(MAX_FETCHES).unwrap(), 0));
        assert!(began.elapsed() <= WAIT_LIMIT, "{:?}", began.elapsed());
        let metrics = &issuers.0.as_ref().unwrap().metrics;
        assert_eq!(metrics.failing.get(), i64::try_from(MAX_HOSTS).unwrap());
        assert_eq!(metrics.waiting.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_too_many_waiting_is_told_at_once() {
        let projects = projects(1);
        let issuers = issuers(&projects, Resolver::by(|_| Box::pin(pending())));
        let project = projects.iter().next().unwrap();
        let shared = issuers.0.as_ref().unwrap();
        shared.places.forget_permits(MAX_WAITING - 1);
        let began = Instant::now();
        let (first, second) =
            tokio::join!(issuers.recognise(project, some_key()), issuers.recognise(project, some_key()));
        assert_eq!(second, Err(IssuerAway { again_after: SOON }));
        assert!(first.is_err_and(|away| away.again_after == SOON) && began.elapsed() == FETCH_LIMIT);
        let text = |reason: Unjudged| shared.metrics.count_of(reason);
        assert_eq!((text(Unjudged::Crowded), text(Unjudged::Away)), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_stands_for_another_is_asked_at_once_whose_keys_it_has() {
        let of = |path: &str| {
            let text =
                format!("[[project]]\nid = 'p'\nissuer = 'i'\n[project.jwks]\nurl = 'https://h.example/{path}'\n");
            Projects::parse([File { name: "p.toml", bytes: text.as_bytes() }]).unwrap()
        };
        let (before, after) = (of("keys"), of("others"));
        let issuers = issuers(&before, Resolver::by(|_| Box::pin(pending())));
        let shared = issuers.0.as_ref().unwrap();
        let (project, key) = (before.iter().next().unwrap(), Key::secret(None, &[8; 32]).unwrap());
        let (source, print) = (project.source().unwrap(), key.print());
        shared.locked(|cache| {
            let id = cache.look_up(&source, &Wanted::Print(print), shared.now()).fetch.unwrap();
            let jwks = tailwater_auth::Jwks { keys: vec![key], passed_over: Vec::new() };
            cache.fetched(&source, id, Fetch::Keys(jwks, None), shared.now());
        });
        assert!(issuers.still_have(project, print) && shared.tasks.is_empty());
        issuers.configure(&after);
        let project = after.iter().next().unwrap();
        assert!(issuers.still_have(project, print) && !issuers.still_have(project, some_key()));
        assert_eq!(shared.tasks.len(), 1, "though nobody comes with a token");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_no_issuer() {
        let projects = projects(1);
        let issuers = issuers(&projects, Resolver::by(|_| Box::pin(pending())));
        let project = projects.iter().next().unwrap();
        let began = Instant::now();
        let ends = async {
            // The other is to be the first.
            tokio::task::yield_now().await;
            issuers.end().await;
            began.elapsed()
        };
        let (asked, ended) = tokio::join!(issuers.recognise(project, some_key()), ends);
        assert_eq!((asked.is_err(), ended, began.elapsed()), (true, Duration::ZERO, Duration::ZERO));
        assert!(!issuers.still_have(project, some_key()));
    }
}
