//! What is in force: settings, judged together and turned into the configurations of the parts.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use tailwater_fanout::{Budget, Config as FanoutConfig, Visibility};
use tailwater_protocol::{Addressing, ProjectId, StreamPath};
use tailwater_s2::{BucketConfig, Endpoint, Placement};
use tailwater_server::{Config as ServerConfig, Surface, TrustedProxies};

use crate::{
    foreign::{self, Foreign},
    issuers::Outside,
    settings::{AuthMode, Count, LogFormat, ServeSettings, Service, Size, Span, StoreSettings},
};

/// Where the data is, unless settings say otherwise.
const DATA_DIR: &str = "./tailwater-data";
/// What the names of basins start with, unless settings say otherwise.
const BASIN_PREFIX: &str = "tailwater";
/// What is logged, unless settings say otherwise: the store's libraries only where they complain.
const LOG: &str = "info,s2_lite=warn,slatedb=warn,foyer=warn";
/// What `dev` logs: each request too.
const DEV_LOG: &str = "info,tailwater_server=debug,s2_lite=warn,slatedb=warn,foyer=warn";
/// The share of the memory which the process may have that its data may take, unless settings say otherwise. The rest is
/// for connections, for streams, and for the store inside the process.
const MEMORY_PERCENT: u64 = 40;
/// The largest `--max-body`. A body is one message, and one message is put together in memory.
const MAX_BODY: u64 = 64 << 20;
/// What `--send-buffer` may be. The kernel takes no less, and more than this is no bound.
const SEND_BUFFER: std::ops::RangeInclusive<u64> = 4 << 10..=16 << 20;

/// How far the clocks of others may be off, unless settings say otherwise.
const TOKEN_SKEW: Duration = Duration::from_secs(30);
/// The largest `--token-skew`: whoever needs more needs a clock.
const MAX_TOKEN_SKEW: Duration = Duration::from_secs(600);

/// The largest `--delivery-shards`.
const MAX_SHARDS: u32 = 256;

/// A gateway.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) listen: Vec<SocketAddr>,
    /// Where operations are apart from clients.
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) tls: Option<TlsFiles>,
    /// Where the projects are that are trusted; without it, everybody may do everything.
    pub(crate) trust: Option<Trust>,
    pub(crate) store: Store,
    pub(crate) placement: Placement,
    pub(crate) server: ServerConfig,
    pub(crate) fanout: FanoutConfig,
    pub(crate) log: Log,
}

/// The files that TLS needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Whose tokens are taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// Where the projects of files are; without it, there are those of run time alone.
    pub(crate) projects: Option<PathBuf>,
    pub(crate) skew: Duration,
    /// What holds the credential of who may administer all projects.
    pub(crate) operator: Option<PathBuf>,
    /// What holds the gateway's own secrets for tickets.
    pub(crate) ticket_secrets: Option<PathBuf>,
    /// The stream that tells what was asked of the administration.
    pub(crate) audit: Option<StreamPath>,
    /// Where keys of issuers may be fetched from.
    pub(crate) outside: Option<Outside>,
}

/// An embedded store alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StoreAlone {
    pub(crate) listen: SocketAddr,
    pub(crate) data: Data,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) log: Log,
}

/// Which store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Inside this process.
    Embedded {
        /// Where its data is.
        data: Data,
        /// Where others may use it too.
        expose: Option<SocketAddr>,
        /// What they have to send.
        token_file: Option<PathBuf>,
    },
    /// Elsewhere.
    Remote {
        /// Its URL, or URLs.
        endpoint: Endpoint,
        /// What it wants.
        token_file: Option<PathBuf>,
    },
}

/// Where an embedded store's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Memory,
    Directory(PathBuf),
    Bucket(BucketConfig),
}

/// What is logged, and how it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) filter: String,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {fault}")]
pub(crate) struct ConfigError {
    setting: &'static str,
    fault: String,
}

/// Who runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Serve,
    Dev,
}

impl ServeSettings {
    /// These settings with everything filled in that has a default.
    fn with_defaults(mut self, flavour: Flavour) -> Self {
        let defaults = ServerConfig::default();
        let span = |slot: &mut Option<Span>, default| *slot = slot.or(Some(Span(default)));
        span(&mut self.long_poll_timeout, defaults.long_poll_timeout);
        span(&mut self.sse_lifetime, defaults.sse_lifetime);
        span(&mut self.drain, defaults.drain);
        span(&mut self.drain_notice, defaults.drain_notice);
        span(&mut self.max_connection_age, defaults.max_connection_age);
        let fanout = FanoutConfig::default();
        span(&mut self.linger, fanout.linger);
        self.max_streams.get_or_insert(fanout.max_streams);
        self.memory_budget.get_or_insert_with(|| Size(Budget::default().total() as u64));
        span(&mut self.keep_alive, defaults.keep_alive);
        span(&mut self.header_timeout, defaults.header_timeout);
        span(&mut self.body_timeout, defaults.body_timeout);
        span(&mut self.write_timeout, defaults.write_timeout);
        self.listen.get_or_insert_with(|| vec![SocketAddr::from(([127, 0, 0, 1], 4437))]);
        if self.projects.is_some() {
            self.auth.get_or_insert(AuthMode::Required);
        }
        if self.auth == Some(AuthMode::Required) {
            span(&mut self.token_skew, TOKEN_SKEW);
        }
        self.max_body.get_or_insert(Size(defaults.max_body as u64));
        let connections = u32::try_from(defaults.max_connections).unwrap_or(u32::MAX);
        self.max_connections.get_or_insert(Count(connections));
        let requests = u32::try_from(defaults.max_requests).unwrap_or(u32::MAX);
        self.max_requests.get_or_insert(Count(requests));
        self.max_connections_per_address.get_or_insert(Count(0));
        self.send_buffer.get_or_insert(Size(defaults.send_buffer as u64));
        let shards = u32::try_from(defaults.delivery_shards).unwrap_or(u32::MAX);
        self.delivery_shards.get_or_insert(Count(shards));
        self.log_format.get_or_insert(LogFormat::Text);
        let log = if flavour == Flavour::Dev { DEV_LOG } else { LOG };
        self.log.get_or_insert_with(|| log.to_owned());
        self.memory = self.memory.filter(|memory| *memory);
        let elsewhere = self.s2_endpoint.is_some() || self.s2.is_some();
        if self.memory.is_none() && self.bucket.is_none() && !elsewhere {
            self.data_dir.get_or_insert_with(|| DATA_DIR.into());
        }
        if self.basin.is_none() && self.s2.is_none() {
            self.basin_prefix.get_or_insert_with(|| BASIN_PREFIX.to_owned());
        }
        self
    }

    /// Where no budget is given, makes it a share of the bytes that the process may have; but one that a body fits into.
    pub(crate) fn choose_memory_budget(&mut self, memory: Option<u64>) {
        let Some(memory) = memory else { return };
        let Size(max_body) = self.max_body.unwrap_or_else(|| Size(ServerConfig::default().max_body as u64));
        let least = Budget::for_body(usize::try_from(max_body).unwrap_or(usize::MAX)).total() as u64;
        // Whole MiB, so that it reads well.
        let share = (memory / 100).saturating_mul(MEMORY_PERCENT) >> 20 << 20;
        self.memory_budget.get_or_insert_with(|| Size(share.max(least)));
    }

    /// What is in force, as `--print-config` shows it. Tokens are in files, which it names; a password that somebody
    /// put into a URL is left out.
    pub(crate) fn in_force(self, flavour: Flavour) -> Self {
        let settings = self.with_defaults(flavour);
        Self { s2_endpoint: settings.s2_endpoint.as_deref().map(without_user), ..settings }
    }
}

impl Serve {
    /// Judges settings; they need not be filled in.
    pub(crate) fn decide(settings: ServeSettings, foreign: &Foreign, flavour: Flavour) -> Result<Self, ConfigError> {
        let settings = settings.with_defaults(flavour);
        let log = Log::new(settings.log_format, settings.log.clone());
        let store = Store::decide(&settings, foreign)?;
        let trust = trust(&settings)?;
        let admin_listen = settings.admin_listen;
        Ok(Self {
            admin_listen,
            tls: tls(&settings)?,
            placement: placement(&settings)?,
            server: server(&settings)?,
            fanout: FanoutConfig { undeclared_visibility: undeclared_visibility(trust.as_ref()), ..fanout(&settings)? },
            trust,
            listen: settings
                .listen
                .filter(|listen| !listen.is_empty())
                .ok_or_else(|| refused("listen", &"is empty"))?,
            store,
            log,
        })
    }
}

impl Store {
    fn decide(settings: &ServeSettings, foreign: &Foreign) -> Result<Self, ConfigError> {
        let token_file = settings.s2_token_file.clone();
        let elsewhere = match (&settings.s2, &settings.s2_endpoint) {
            (Some(Service::Cloud), _) if token_file.is_none() => {
                return Err(refused("s2-token-file", &"is not given, and managed S2 wants a token"));
            }
            (Some(Service::Cloud), _) => Some(foreign.cloud()?),
            (None, Some(url)) => Some(Endpoint::Url(url.clone())),
            (None, None) => None,
        };
        let data = Data::decide(settings.data_dir.as_ref(), (&settings.bucket, &settings.bucket_prefix), foreign)?;
        let expose = settings.s2_listen;
        let Some(endpoint) = elsewhere else {
            if token_file.is_some() && expose.is_none() {
                return Err(refused("s2-token-file", &"is for s2-endpoint, s2 or s2-listen, and none is given"));
            }
            needs_token("s2-listen", expose, token_file.is_some())?;
            return Ok(Self::Embedded { data, expose, token_file });
        };
        if expose.is_some() {
            let fault = "shows the store inside the process, and with s2-endpoint or s2 there is none";
            return Err(refused("s2-listen", &fault));
        }
        Ok(Self::Remote { endpoint, token_file })
    }

    /// What `--print-config` shows of it beyond settings.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Embedded { data, .. } => data.shown(),
            Self::Remote { endpoint, .. } => foreign::shown_of_cloud(endpoint),
        }
    }
}

impl Data {
    fn decide(
        directory: Option<&PathBuf>,
        bucket: (&Option<String>, &Option<String>),
        foreign: &Foreign,
    ) -> Result<Self, ConfigError> {
        match (bucket, directory) {
            ((Some(bucket), prefix), _) => {
                foreign.bucket(bucket, prefix.as_deref().unwrap_or_default()).map(Self::Bucket)
            }
            ((None, Some(_)), _) => Err(refused("bucket-prefix", &"is for bucket, and none is given")),
            ((None, None), Some(directory)) => Ok(Self::Directory(directory.clone())),
            ((None, None), None) => Ok(Self::Memory),
        }
    }

    /// What `--print-config` shows of it beyond settings.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Memory | Self::Directory(_) => String::new(),
            Self::Bucket(config) => foreign::shown_of_bucket(config),
        }
    }
}

impl StoreAlone {
    pub(crate) fn decide(mut settings: StoreSettings, foreign: &Foreign) -> Result<Self, ConfigError> {
        let listen = settings.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 4438)));
        needs_token("listen", Some(listen), settings.token_file.is_some())?;
        if settings.memory != Some(true) && settings.bucket.is_none() {
            settings.data_dir.get_or_insert_with(|| DATA_DIR.into());
        }
        let data = Data::decide(settings.data_dir.as_ref(), (&settings.bucket, &settings.bucket_prefix), foreign)?;
        let log = Log::new(settings.log_format, settings.log);
        Ok(Self { listen, data, token_file: settings.token_file, log })
    }
}

impl StoreAlone {
    /// What is in force, as `--print-config` shows it.
    pub(crate) fn in_force(&self) -> StoreSettings {
        let data = match &self.data {
            Data::Memory => StoreSettings { memory: Some(true), ..StoreSettings::default() },
            Data::Directory(directory) => {
                StoreSettings { data_dir: Some(directory.clone()), ..StoreSettings::default() }
            }
            Data::Bucket(BucketConfig { bucket, prefix, .. }) => StoreSettings {
                bucket: Some(bucket.clone()),
                bucket_prefix: Some(prefix.clone()).filter(|prefix| !prefix.is_empty()),
                ..StoreSettings::default()
            },
        };
        StoreSettings {
            listen: Some(self.listen),
            token_file: self.token_file.clone(),
            log_format: Some(self.log.format),
            log: Some(self.log.filter.clone()),
            ..data
        }
    }
}

impl Log {
    fn new(format: Option<LogFormat>, filter: Option<String>) -> Self {
        Self { format: format.unwrap_or(LogFormat::Text), filter: filter.unwrap_or_else(|| LOG.to_owned()) }
    }
}

fn tls(settings: &ServeSettings) -> Result<Option<TlsFiles>, ConfigError> {
    match (&settings.tls_cert, &settings.tls_key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate: certificate.clone(), key: key.clone() })),
        (Some(_), None) => Err(refused("tls-key", &"is not given, and tls-cert needs one")),
        (None, Some(_)) => Err(refused("tls-cert", &"is not given, and tls-key is for one")),
    }
}

/// Who may do anything. Everybody may only where that was said, or where nobody else can ask.
fn trust(settings: &ServeSettings) -> Result<Option<Trust>, ConfigError> {
    let beyond = settings.listen.iter().flatten().find(|address| !address.ip().is_loopback());
    let (projects, operator) = (settings.projects.clone(), settings.admin_token_file.clone());
    match (settings.auth, &settings.projects, beyond) {
        (Some(AuthMode::Required), None, _) if operator.is_none() => Err(refused(
            "projects",
            &"is not given, nor an --admin-token-file to make projects with, and with auth required nobody could do anything",
        )),
        (Some(AuthMode::Required), None, Some(_)) if settings.admin_listen.is_none() => Err(refused(
            "admin-listen",
            &"is not given, and beyond loopback there is no other place where projects could be made; or name --projects",
        )),
        (Some(AuthMode::Required), _, _) => {
            let skew = settings.token_skew.map_or(TOKEN_SKEW, |span| span.0);
            if skew > MAX_TOKEN_SKEW {
                return Err(refused("token-skew", &format!("must be {} at most", Span(MAX_TOKEN_SKEW))));
            }
            let ticket_secrets = settings.ticket_secret_file.clone();
            let audit = settings.audit_stream.as_deref().map(audit_stream).transpose()?;
            let outside = Outside::decide(settings)?;
            Ok(Some(Trust { projects, skew, operator, ticket_secrets, audit, outside }))
        }
        (Some(AuthMode::Open), Some(_), _) => {
            Err(refused("projects", &"is for auth required, and with auth open nobody is asked for a token"))
        }
        (_, None, _) if settings.token_skew.is_some() => {
            Err(refused("token-skew", &"is for auth required, and nobody is asked for a token"))
        }
        (_, None, _) if settings.admin_token_file.is_some() => {
            Err(refused("admin-token-file", &"is for auth required, and there are no projects to administer"))
        }
        (_, None, _) if settings.ticket_secret_file.is_some() => {
            Err(refused("ticket-secret-file", &"is for auth required, and nobody needs a ticket"))
        }
        (_, None, _) if settings.audit_stream.is_some() => {
            Err(refused("audit-stream", &"is for auth required, and there is nothing to administer"))
        }
        (Some(AuthMode::Open), None, _) | (None, None, None) => Outside::decide(settings).map(|_| None),
        (None, None, Some(address)) => Err(refused(
            "auth",
            &format!(
                "is not given, and {address} is beyond loopback: name the --projects whose tokens are to be asked for, or \
                 say --auth open if whoever reaches this address may read and write every stream"
            ),
        )),
        // Filled in before.
        (None, Some(_), _) => Err(refused("auth", &"is not given")),
    }
}

/// Which stream a project and a name are, as paths spell them.
fn audit_stream(text: &str) -> Result<StreamPath, ConfigError> {
    // Of a path that names its project nothing is taken from elsewhere.
    let parsed = StreamPath::parse(text, &Addressing::Projects, &ProjectId::default());
    parsed.ok().filter(|_| text.contains('/')).ok_or_else(|| refused("audit-stream", &"must be PROJECT/NAME"))
}

/// What clients are served: operations too, but only where they cannot come from elsewhere, and nobody has said where else
/// operations are.
fn surface(settings: &ServeSettings) -> Surface {
    let beyond = settings.listen.iter().flatten().any(|address| !address.ip().is_loopback());
    if beyond || settings.admin_listen.is_some() { Surface::Streams } else { Surface::All }
}

/// Who sees a stream of which no creator has said anything.
fn undeclared_visibility(trust: Option<&Trust>) -> Visibility {
    if trust.is_some() { Visibility::Private } else { Visibility::Public }
}

fn placement(settings: &ServeSettings) -> Result<Placement, ConfigError> {
    match (&settings.basin, &settings.basin_prefix) {
        (Some(basin), _) => Placement::shared(basin, "").map_err(|fault| refused("basin", &fault)),
        (None, Some(prefix)) => Placement::basin_per_project(prefix).map_err(|fault| refused("basin-prefix", &fault)),
        (None, None) => Err(refused(
            "basin-prefix",
            &"is not given, nor is basin, and on managed S2 the names of basins are everybody's",
        )),
    }
}

fn budget(settings: &ServeSettings) -> Result<Budget, ConfigError> {
    let Some(Size(bytes)) = settings.memory_budget else { return Ok(Budget::default()) };
    usize::try_from(bytes).map(Budget::of).map_err(|fault| refused("memory-budget", &fault))
}

fn fanout(settings: &ServeSettings) -> Result<FanoutConfig, ConfigError> {
    let defaults = FanoutConfig::within(budget(settings)?);
    if settings.max_streams == Some(0) {
        return Err(refused("max-streams", &"must be at least 1"));
    }
    Ok(FanoutConfig {
        linger: settings.linger.map_or(defaults.linger, |span| span.0),
        max_streams: settings.max_streams.unwrap_or(defaults.max_streams),
        ..defaults
    })
}

fn server(settings: &ServeSettings) -> Result<ServerConfig, ConfigError> {
    let defaults = ServerConfig::default();
    let addressing = match &settings.single_project {
        None => Addressing::Projects,
        Some(project) => {
            Addressing::Single(ProjectId::parse(project).map_err(|fault| refused("single-project", &fault))?)
        }
    };
    let public_url = match &settings.public_url {
        None => None,
        Some(url) => Some(url.parse().map_err(|fault| refused("public-url", &fault))?),
    };
    let size = |setting, given: Option<Size>, range: std::ops::RangeInclusive<u64>, default| match given {
        None => Ok(default),
        Some(Size(bytes)) if range.contains(&bytes) => usize::try_from(bytes).map_err(|fault| refused(setting, &fault)),
        Some(size) => {
            Err(refused(setting, &format!("{size} is not from {} to {}", Size(*range.start()), Size(*range.end()))))
        }
    };
    let max_body = size("max-body", settings.max_body, 1..=MAX_BODY, defaults.max_body)?;
    let body_budget = budget(settings)?.bodies();
    if body_budget < max_body {
        let least = Size(Budget::for_body(max_body).total() as u64);
        return Err(refused("memory-budget", &format!("is less than {least}, and an eighth of it must hold a body")));
    }
    let span = |setting, given: Option<Span>, default| match given {
        Some(Span(Duration::ZERO)) => Err(refused(setting, &"must be longer than nothing")),
        Some(Span(given)) => Ok(given),
        None => Ok(default),
    };
    Ok(ServerConfig {
        addressing,
        public_url,
        max_body,
        body_budget,
        send_buffer: size("send-buffer", settings.send_buffer, SEND_BUFFER, defaults.send_buffer)?,
        delivery_shards: match settings.delivery_shards {
            Some(Count(count)) if count > MAX_SHARDS => {
                return Err(refused("delivery-shards", &format_args!("must be {MAX_SHARDS} at most")));
            }
            Some(Count(count)) => usize::try_from(count).map_err(|fault| refused("delivery-shards", &fault))?,
            None => defaults.delivery_shards,
        },
        max_connections: some("max-connections", settings.max_connections, defaults.max_connections)?,
        max_requests: some("max-requests", settings.max_requests, defaults.max_requests)?,
        max_connections_per_address: settings
            .max_connections_per_address
            .and_then(|Count(most)| NonZeroUsize::new(usize::try_from(most).unwrap_or(usize::MAX))),
        max_connection_age: settings.max_connection_age.map_or(defaults.max_connection_age, |span| span.0),
        trusted_proxies: TrustedProxies::parse(settings.trusted_proxy.iter().flatten())
            .map_err(|fault| refused("trusted-proxy", &fault))?,
        keep_alive: span("keep-alive", settings.keep_alive, defaults.keep_alive)?,
        header_timeout: span("header-timeout", settings.header_timeout, defaults.header_timeout)?,
        body_timeout: span("body-timeout", settings.body_timeout, defaults.body_timeout)?,
        write_timeout: span("write-timeout", settings.write_timeout, defaults.write_timeout)?,
        long_poll_timeout: span("long-poll-timeout", settings.long_poll_timeout, defaults.long_poll_timeout)?,
        sse_lifetime: span("sse-lifetime", settings.sse_lifetime, defaults.sse_lifetime)?,
        surface: surface(settings),
        // Where nobody else can ask.
        open_profiles: settings.admin_listen.is_some_and(|address| address.ip().is_loopback()),
        drain: settings.drain.map_or(defaults.drain, |span| span.0),
        drain_notice: settings.drain_notice.map_or(defaults.drain_notice, |span| span.0),
        ..defaults
    })
}

/// A number that must not be none.
fn some(name: &'static str, set: Option<Count>, default: usize) -> Result<usize, ConfigError> {
    match set {
        None => Ok(default),
        Some(Count(0)) => Err(refused(name, &"must be more than none")),
        Some(Count(most)) => usize::try_from(most).map_err(|fault| refused(name, &fault)),
    }
}

fn needs_token(setting: &'static str, shown: Option<SocketAddr>, has_token: bool) -> Result<(), ConfigError> {
    match shown {
        Some(address) if !address.ip().is_loopback() && !has_token => {
            Err(refused(setting, &format!("{address} is beyond loopback, where a token file is needed")))
        }
        Some(_) | None => Ok(()),
    }
}

/// What is wrong with a setting, or with a variable that it makes count.
pub(crate) fn refused(setting: &'static str, fault: &impl ToString) -> ConfigError {
    ConfigError { setting, fault: fault.to_string() }
}

/// A URL without what may be a password in it.
pub(crate) fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let host = rest[..end].rfind('@').map_or(rest, |at| &rest[at + 1..]);
            format!("{scheme}://{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> ServeSettings {
        toml::from_str(text).unwrap()
    }

    fn foreign(env: &[(&str, &str)]) -> Foreign {
        Foreign::pick(&env.iter().map(|(variable, text)| ((*variable).to_owned(), (*text).to_owned())).collect())
    }

    fn decided(text: &str) -> Serve {
        Serve::decide(settings(text), &foreign(&[("AWS_REGION", "r")]), Flavour::Serve).unwrap()
    }

    #[test]
    fn nothing_at_all_is_a_gateway_on_loopback_with_a_directory() {
        let serve = decided("");
        assert_eq!(serve.listen, ["127.0.0.1:4437".parse().unwrap()]);
        let data = Data::Directory("./tailwater-data".into());
        assert_eq!(serve.store, Store::Embedded { data, expose: None, token_file: None });
        assert_eq!(serve.server.long_poll_timeout, Duration::from_secs(30));
        assert_eq!(serve.server.max_body, 8 << 20);
        assert_eq!(serve.fanout.linger, Duration::from_secs(10));
        assert_eq!((serve.fanout.max_streams, serve.server.body_budget), (100_000, 64 << 20));
        assert_eq!(serve.server.max_connections_per_address, None);
    }

    #[test]
    fn settings_reach_the_parts_that_they_are_for() {
        let serve = decided(
            "memory = true\nlinger = '1s'\ndrain = '0s'\ndrain-notice = '3s'\nmax-requests = 8\nlong-poll-timeout = '500ms'\nsse-lifetime = '5s'\n\
             max-body = '1MiB'\nmemory-budget = '80MiB'\nmax-streams = 5\nmax-connections = 7\nmax-connections-per-address = 3\ntrusted-proxy = ['10.0.0.0/8']\n\
             max-connection-age = '9s'\nkeep-alive = '1s'\nheader-timeout = '2s'\nbody-timeout = '3s'\nwrite-timeout = '4s'\nsend-buffer = '16KiB'\n\
             public-url = 'https://a.example/'\nsingle-project = 'p'",
        );
        assert_eq!(serve.store, Store::Embedded { data: Data::Memory, expose: None, token_file: None });
        assert_eq!((serve.fanout.linger, serve.server.drain), (Duration::from_secs(1), Duration::ZERO));
        assert_eq!(serve.server.long_poll_timeout, Duration::from_millis(500));
        assert_eq!(serve.server.sse_lifetime, Duration::from_secs(5));
        assert_eq!((serve.server.max_body, serve.server.send_buffer), (1 << 20, 16 << 10));
        assert_eq!((serve.server.max_connections, serve.server.max_requests), (7, 8));
        assert_eq!(serve.server.drain_notice, Duration::from_secs(3));
        assert_eq!(serve.server.max_connection_age, Duration::from_secs(9));
        assert_eq!(decided("max-connection-age = '0s'").server.max_connection_age, Duration::ZERO);
        assert_eq!(serve.server.max_connections_per_address, NonZeroUsize::new(3));
        assert_eq!(serve.server.trusted_proxies, TrustedProxies::parse(["10.0.0.0/8"]).unwrap());
        let spans = [serve.server.keep_alive, serve.server.header_timeout, serve.server.body_timeout];
        assert_eq!(spans.map(|span| span.as_secs()), [1, 2, 3]);
        assert_eq!(serve.server.write_timeout, Duration::from_secs(4));
        assert_eq!((serve.fanout.max_streams, serve.server.body_budget), (5, 10 << 20));
        assert_eq!((serve.fanout.ring_total_bytes, serve.fanout.history_bytes), (40 << 20, 20 << 20));
        assert_eq!(serve.fanout.window_budget_bytes, 10 << 20);
        assert_eq!(serve.server.public_url.unwrap().as_str(), "https://a.example");
        assert_eq!(serve.server.addressing, Addressing::Single(ProjectId::parse("p").unwrap()));
        let files = TlsFiles { certificate: "c".into(), key: "k".into() };
        assert_eq!(decided("tls-cert = 'c'\ntls-key = 'k'").tls, Some(files));
        let remote = decided("s2-endpoint = 'http://s2:1'\ns2-token-file = 'f'");
        let endpoint = Endpoint::Url("http://s2:1".into());
        assert_eq!(remote.store, Store::Remote { endpoint, token_file: Some("f".into()) });
        let cloud = decided("s2 = 'cloud'\ns2-token-file = 'f'\nbasin-prefix = 'mine-alone'");
        assert_eq!(cloud.store, Store::Remote { endpoint: Endpoint::Cloud, token_file: Some("f".into()) });
        let bucket = decided("bucket = 'b'\nbucket-prefix = 'p'");
        let Store::Embedded { data: Data::Bucket(config), expose: None, token_file: None } = bucket.store else {
            panic!("a bucket is a store inside the process")
        };
        assert_eq!((config.bucket.as_str(), config.prefix.as_str(), config.region.as_str()), ("b", "p", "r"));
    }

    #[test]
    fn a_memory_budget_that_is_not_given_is_a_share_and_holds_a_body() {
        let table: [(&str, Option<u64>, Option<u64>); 7] = [
            ("", Some(1000 << 20), Some(400 << 20)),
            ("", Some(1 << 40), Some(419_430 << 20)),
            ("", Some(100 << 20), Some(64 << 20)),
            ("max-body = '64MiB'", Some(1000 << 20), Some(512 << 20)),
            ("max-body = '1MiB'", Some(0), Some(8 << 20)),
            ("memory-budget = '2GiB'", Some(1 << 20), Some(2 << 30)),
            ("", None, None),
        ];
        for (text, memory, budget) in table {
            let mut settings = settings(text);
            settings.choose_memory_budget(memory);
            assert_eq!(settings.memory_budget.map(|size| size.0), budget, "{text} {memory:?}");
            let serve = Serve::decide(settings, &Foreign::default(), Flavour::Serve).unwrap();
            assert!(serve.server.body_budget >= serve.server.max_body);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_name_of_its_setting() {
        let table = [
            ("listen = []", "listen"),
            ("max-body = '0B'", "max-body"),
            ("max-body = '65MiB'", "max-body"),
            ("tls-cert = 'c'", "tls-key"),
            ("tls-key = 'k'", "tls-cert"),
            ("auth = 'required'", "projects"),
            ("auth = 'required'\nadmin-token-file = 'f'\nlisten = ['0.0.0.0:1']", "admin-listen"),
            ("auth = 'open'\nprojects = 'p'", "projects"),
            ("projects = 'p'\ntoken-skew = '11m'", "token-skew"),
            ("token-skew = '1s'", "token-skew"),
            ("admin-token-file = 'f'", "admin-token-file"),
            ("ticket-secret-file = 'f'", "ticket-secret-file"),
            ("audit-stream = 'p/s'", "audit-stream"),
            ("projects = 'p'\naudit-stream = 's'", "audit-stream"),
            ("projects = 'p'\naudit-stream = '_p/s'", "audit-stream"),
            ("projects = 'p'\naudit-stream = 'p/'", "audit-stream"),
            ("listen = ['127.0.0.1:1', '0.0.0.0:1']", "auth"),
            ("listen = ['[::]:1']", "auth"),
            ("send-buffer = '1KiB'", "send-buffer"),
            ("max-connections = 0", "max-connections"),
            ("max-requests = 0", "max-requests"),
            ("trusted-proxy = ['10.0.0.0/33']", "trusted-proxy"),
            ("trusted-proxy = ['proxy.example']", "trusted-proxy"),
            ("keep-alive = '0s'", "keep-alive"),
            ("header-timeout = '0s'", "header-timeout"),
            ("body-timeout = '0s'", "body-timeout"),
            ("write-timeout = '0s'", "write-timeout"),
            ("memory-budget = '63MiB'", "memory-budget"),
            ("max-streams = 0", "max-streams"),
            ("basin = 'x'", "basin"),
            ("basin-prefix = 'UPPER-CASE'", "basin-prefix"),
            ("single-project = 'admin'", "single-project"),
            ("public-url = 'a.example'", "public-url"),
            ("long-poll-timeout = '0s'", "long-poll-timeout"),
            ("s2-endpoint = 'http://s2:1'\ns2-listen = '127.0.0.1:1'", "s2-listen"),
            ("s2-listen = '0.0.0.0:1'", "s2-listen"),
            ("s2-token-file = 'f'", "s2-token-file"),
            ("s2 = 'cloud'\nbasin = 'a-basin-of-mine'", "s2-token-file"),
            ("s2 = 'cloud'\ns2-token-file = 'f'", "basin-prefix"),
            ("s2 = 'cloud'\ns2-token-file = 'f'\ns2-listen = '127.0.0.1:1'", "s2-listen"),
            ("bucket-prefix = 'p'", "bucket-prefix"),
            ("bucket = 'b'", "AWS_REGION"),
        ];
        for (text, setting) in table {
            let error = Serve::decide(settings(text), &Foreign::default(), Flavour::Serve).unwrap_err();
            assert_eq!(error.setting, setting, "{error}");
        }
    }

    #[test]
    fn everybody_may_do_everything_only_on_loopback_unless_that_is_said() {
        let trust = |projects: &str, seconds| {
            Some(Trust {
                projects: Some(projects.into()),
                skew: Duration::from_secs(seconds),
                operator: None,
                ticket_secrets: None,
                audit: None,
                outside: None,
            })
        };
        let table = [
            ("", None),
            ("listen = ['127.0.0.1:1', '[::1]:1']", None),
            ("auth = 'open'", None),
            ("auth = 'open'\nlisten = ['0.0.0.0:1']", None),
            ("projects = 'p'", trust("p", 30)),
            ("auth = 'required'\nprojects = 'p'\ntoken-skew = '0s'", trust("p", 0)),
            ("projects = 'p'\nlisten = ['0.0.0.0:1']", trust("p", 30)),
        ];
        for (text, trust) in table {
            let serve = decided(text);
            assert_eq!(serve.trust, trust, "{text}");
            assert_eq!(serve.fanout.undeclared_visibility == Visibility::Private, trust.is_some(), "{text}");
        }
        let trust = decided("auth = 'required'\nadmin-token-file = 'f'\naudit-stream = 'ops/audit/all'").trust.unwrap();
        assert_eq!((trust.projects, trust.operator, trust.skew), (None, Some("f".into()), TOKEN_SKEW));
        let audit = trust.audit.unwrap();
        assert_eq!((audit.project.as_str(), audit.stream.as_str()), ("ops", "audit/all"));
        let trust = decided("auth = 'required'\nadmin-token-file = 'f'\njwks-host = ['login.example']").trust.unwrap();
        assert!(trust.projects.is_none() && trust.outside.is_some());
        let error = Serve::decide(settings("listen = ['0.0.0.0:1']"), &Foreign::default(), Flavour::Serve).unwrap_err();
        assert!(error.to_string().contains("--projects") && error.to_string().contains("--auth open"), "{error}");
    }

    #[test]
    fn operations_are_apart_where_that_was_said_or_clients_come_from_elsewhere() {
        let table = [
            ("", Surface::All, false),
            ("listen = ['127.0.0.1:1', '[::1]:1']", Surface::All, false),
            ("admin-listen = '127.0.0.1:2'", Surface::Streams, true),
            ("admin-listen = '[::1]:2'", Surface::Streams, true),
            ("admin-listen = '0.0.0.0:2'", Surface::Streams, false),
            ("listen = ['127.0.0.1:1', '0.0.0.0:1']\nauth = 'open'", Surface::Streams, false),
            ("listen = ['0.0.0.0:1']\nauth = 'open'\nadmin-listen = '127.0.0.1:2'", Surface::Streams, true),
        ];
        for (text, surface, open_profiles) in table {
            let serve = decided(text);
            assert_eq!((serve.server.surface, serve.server.open_profiles), (surface, open_profiles), "{text}");
            assert_eq!(serve.admin_listen.is_some(), text.contains("admin-listen"), "{text}");
        }
    }

    #[test]
    fn a_store_alone_needs_a_token_beyond_loopback() {
        let decide = |text: &str| StoreAlone::decide(toml::from_str(text).unwrap(), &Foreign::default());
        assert_eq!(decide("memory = true").unwrap().data, Data::Memory);
        assert!(decide("listen = '0.0.0.0:1'").is_err());
        assert!(decide("listen = '0.0.0.0:1'\ntoken-file = 'f'").is_ok());
    }

    #[test]
    fn a_store_alone_shows_the_data_that_it_serves() {
        let env = foreign(&[("AWS_REGION", "r"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")]);
        for text in ["memory = true", "data-dir = 'd'", "bucket = 'b'", "bucket = 'b'\nbucket-prefix = 'p'"] {
            let store = StoreAlone::decide(toml::from_str(text).unwrap(), &env).unwrap();
            let shown = toml::to_string(&store.in_force()).unwrap() + &store.data.shown();
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(StoreAlone::decide(toml::from_str(&shown).unwrap(), &env).unwrap(), store);
        }
        let none = StoreAlone::decide(StoreSettings::default(), &env).unwrap();
        assert_eq!(none.in_force().data_dir, Some(DATA_DIR.into()));
    }

    #[test]
    fn what_is_in_force_can_be_read_back_and_shows_no_password() {
        let shown = settings("s2-endpoint = 'http://user:hunter2@s2:1/x@y'").in_force(Flavour::Serve);
        let text = toml::to_string(&shown).unwrap();
        assert!(text.contains("http://s2:1/x@y") && !text.contains("hunter2"), "{text}");
        assert_eq!(toml::from_str::<ServeSettings>(&text).unwrap().in_force(Flavour::Serve), shown);
        let data = settings("").in_force(Flavour::Dev);
        assert_eq!(data.data_dir, Some(DATA_DIR.into()));
        assert!(data.log.is_some_and(|log| log.contains("debug")));
    }
}
