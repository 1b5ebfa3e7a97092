//! Where settings come from: flags, the environment, one file. All three have the same names; a flag wins over the
//! environment, which wins over the file.
//!
//! Reading is apart from deciding: everything here works on text that was read before, so tests touch no environment.
//!
//! Some settings choose between things that exclude each other, such as a store in memory or in a directory. Two of
//! them in one place are an error; in two places the stronger place has chosen, and what the weaker one says about it
//! does not count.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::{Args, Command, ValueEnum};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// What variables of the environment start with.
pub(crate) const ENV_PREFIX: &str = "TAILWATER_";
/// Names the file; itself no setting, because a file cannot name itself.
pub(crate) const CONFIG_ENV: &str = "TAILWATER_CONFIG";

/// The settings of `serve` and `dev`, as far as they are given somewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ServeSettings {
    /// Where to listen for clients; repeat it for more [default: 127.0.0.1:4437]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<Vec<SocketAddr>>,
    /// Where to listen for metrics, profiles and administration, apart from clients; with TLS if clients have it [default:
    /// they are at --listen, without profiles, if all of that is loopback; else nowhere]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Speak TLS with the certificate in this file, PEM with all that leads to an authority; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Whether everybody may do everything, or tokens are asked for [default: required with --projects, else
    /// open, which is for loopback alone unless it is said here]
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) auth: Option<AuthMode>,
    /// The projects and their keys: a TOML file, or a directory of which every *.toml counts; read again when it changes.
    /// Without it, --auth required and --admin-token-file make do with projects that are made at run time
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub(crate) projects: Option<PathBuf>,
    /// How far the clock of whoever makes tokens may be off, 10m at most [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) token_skew: Option<Span>,
    /// The file that holds the credential with which all projects can be administered; 32 characters at least
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// The file that holds secrets for tickets of projects that have public keys alone, the same on all gateways: 32 characters
    /// at least, one a line, of which the first signs and all verify
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_secret_file: Option<PathBuf>,
    /// Write what is asked of the administration to this stream, as JSON; nobody else writes to it
    #[arg(long, value_name = "PROJECT/NAME")]
    pub(crate) audit_stream: Option<String>,
    /// A host, or HOST:PORT, from which keys of issuers may be fetched where a project's `jwks` says so; repeat it for more
    #[arg(long, value_name = "HOST")]
    pub(crate) jwks_host: Option<Vec<String>>,
    /// Believe certificates of these hosts from the authorities in this file, too, PEM, beside those of the system
    #[arg(long, value_name = "FILE")]
    pub(crate) jwks_ca: Option<PathBuf>,
    /// A network beyond the public Internet in which these hosts may be; repeat it for more [default: none]
    #[arg(long, value_name = "CIDR")]
    pub(crate) jwks_private_network: Option<Vec<String>>,
    /// Keep the data in memory: it is gone with the process
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) memory: Option<bool>,
    /// Keep the data in this directory [default: ./tailwater-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep the data in this bucket, which AWS_REGION, AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and so on tell how to reach
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// What the names of all objects in the bucket start with [default: nothing]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) bucket_prefix: Option<String>,
    /// Use the S2 store at this address, instead of one inside the process
    #[arg(long, value_name = "URL")]
    pub(crate) s2_endpoint: Option<String>,
    /// Use S2 as a service; S2_ACCOUNT_ENDPOINT and S2_BASIN_ENDPOINT say where, if not at s2.dev
    #[arg(long, value_name = "SERVICE", value_enum)]
    pub(crate) s2: Option<Service>,
    /// Show the S2 API of the store inside the process to others, here
    #[arg(long, value_name = "ADDR")]
    pub(crate) s2_listen: Option<SocketAddr>,
    /// The file that holds the token which --s2-endpoint or --s2 wants, or which clients of --s2-listen must send
    #[arg(long, value_name = "FILE")]
    pub(crate) s2_token_file: Option<PathBuf>,
    /// Put all projects into this basin
    #[arg(long, value_name = "NAME")]
    pub(crate) basin: Option<String>,
    /// Give each project a basin of its own, whose name starts so [default: tailwater]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) basin_prefix: Option<String>,
    /// Serve this project only: the whole path is then the name of a stream
    #[arg(long, value_name = "PROJECT")]
    pub(crate) single_project: Option<String>,
    /// How long a long-poll waits [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) long_poll_timeout: Option<Span>,
    /// How long a response of Server-Sent Events lasts, give or take a tenth [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) sse_lifetime: Option<Span>,
    /// How long a stream's read session outlives its last live reader [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) linger: Option<Span>,
    /// Over how long live responses are ended when the process is told to stop [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) drain: Option<Span>,
    /// For how long of that, at first, only readiness says so; a quarter of it at most [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) drain_notice: Option<Span>,
    /// The largest body of a request, 64MiB at most [default: 8MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_body: Option<Size>,
    /// The most connections at once [default: as many as the process may open files, less 512 or half, and 100000 at most]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_connections: Option<Count>,
    /// The most requests at once over all connections, beside live responses of plain HTTP/1.1 [default: 100000]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_requests: Option<Count>,
    /// The most connections at once from one client address, 0 for no limit; /64 networks of IPv6 count as one. Off by
    /// default, because behind a proxy that is no --trusted-proxy everybody has the same address [default: 0]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_connections_per_address: Option<Count>,
    /// How long a connection may last, give or take a tenth, before it takes no further request; 0s for no limit [default:
    /// 10m]
    #[arg(long, value_name = "DURATION")]
    pub(crate) max_connection_age: Option<Span>,
    /// A proxy, or a network of them, whose X-Forwarded-For says which client a request is from; repeat it for more
    #[arg(long, value_name = "CIDR")]
    pub(crate) trusted_proxy: Option<Vec<String>>,
    /// How long a response of Server-Sent Events is silent before it is sent a control event [default: 15s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_alive: Option<Span>,
    /// How long the head of a request may take, and a connection of HTTP/1.1 be idle [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) header_timeout: Option<Span>,
    /// How long the body of a request may stand still [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) body_timeout: Option<Span>,
    /// How long a reader may take nothing of what it is sent [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) write_timeout: Option<Span>,
    /// How much the kernel may hold for a live reader of plain HTTP/1.1 that is slow to take it [default: 64KiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) send_buffer: Option<Size>,
    /// How many threads write to live readers over plain HTTP/1.1; with 0 these take the way of all others [default: one
    /// for each core]
    #[arg(long, value_name = "COUNT")]
    pub(crate) delivery_shards: Option<Count>,
    /// How much memory data may take: recent and older messages, readers that are behind, bodies of requests [default: 40 %
    /// of what the process may have]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_budget: Option<Size>,
    /// The most streams that are active at once; requests for further ones are refused [default: 100000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_streams: Option<usize>,
    /// What clients know the gateway by, where a proxy stands in front of it
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// How the log looks [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged, such as `warn,tailwater_server=debug` [default: info, of the store's libraries
    /// warn]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// The settings of `store`, as far as they are given somewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct StoreSettings {
    /// Where to listen for S2 clients [default: 127.0.0.1:4438]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Keep the data in memory: it is gone with the process
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) memory: Option<bool>,
    /// Keep the data in this directory [default: ./tailwater-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep the data in this bucket, which AWS_REGION, AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and so on tell how to reach
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// What the names of all objects in the bucket start with [default: nothing]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) bucket_prefix: Option<String>,
    /// The file that holds the token which clients must send; needed beyond loopback
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How the log looks [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged, such as `warn,tailwater_s2=debug` [default: info, of the store's libraries warn]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// Everything that says something about settings, read but not judged.
#[derive(Debug, Default)]
pub(crate) struct Sources<S> {
    /// What the command line says.
    pub(crate) flags: S,
    /// The variables that start with [`ENV_PREFIX`].
    pub(crate) env: BTreeMap<String, String>,
    /// The name and the text of the file.
    pub(crate) file: Option<(PathBuf, String)>,
}

/// Settings that can be layered.
pub(crate) trait Layer: Args + DeserializeOwned + Default {
    /// These settings, and where they say nothing, those of a weaker place.
    fn or(self, weaker: Self) -> Self;

    /// What contradicts itself within one place.
    fn contradiction(&self) -> Option<&'static str>;
}

/// A length of time such as `500ms` or `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

/// A number of bytes such as `8MiB` or `500kB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Size(pub(crate) u64);

/// How many of something. A file may hold it as a number, and a variable has to hold it as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "i64")]
pub(crate) struct Count(pub(crate) u32);

/// A [`Count`] as it may be written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(i64),
    Text(String),
}

/// An S2 that somebody else runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Service {
    /// Managed S2, by its makers.
    Cloud,
}

/// Who may do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthMode {
    /// Everybody.
    Open,
    /// Who has a token.
    Required,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file is malformed, or holds an unknown key.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A variable is malformed.
    #[error("{variable}: {fault}")]
    Env {
        /// The variable.
        variable: String,
        /// What is wrong.
        fault: String,
    },
    /// One place says two things that exclude each other.
    #[error("{place}: {fault}")]
    Contradiction {
        /// Which place.
        place: &'static str,
        /// What is wrong.
        fault: &'static str,
    },
}

impl<S: Layer> Sources<S> {
    /// One set of settings, the strongest word on each; and the variables that name none. Those are no error: clusters
    /// put variables of their own there, named after whatever else runs.
    pub(crate) fn resolve(self) -> Result<(S, Vec<String>), SettingsError> {
        let (env, unknown) = from_env::<S>(&self.env)?;
        let file = match &self.file {
            None => S::default(),
            Some((path, text)) => toml::from_str(text)
                .map_err(|fault| SettingsError::File { path: path.clone(), fault: fault.to_string() })?,
        };
        for (place, settings) in [("flags", &self.flags), ("environment", &env), ("file", &file)] {
            if let Some(fault) = settings.contradiction() {
                return Err(SettingsError::Contradiction { place, fault });
            }
        }
        Ok((self.flags.or(env).or(file), unknown))
    }
}

impl Layer for ServeSettings {
    fn or(self, weaker: Self) -> Self {
        let weaker = match self.stores() > 0 {
            true => Self {
                memory: None,
                data_dir: None,
                bucket: None,
                bucket_prefix: None,
                s2_endpoint: None,
                s2: None,
                ..weaker
            },
            false => weaker,
        };
        let weaker = match self.basin.is_some() || self.basin_prefix.is_some() {
            true => Self { basin: None, basin_prefix: None, ..weaker },
            false => weaker,
        };
        Self {
            listen: self.listen.or(weaker.listen),
            admin_listen: self.admin_listen.or(weaker.admin_listen),
            tls_cert: self.tls_cert.or(weaker.tls_cert),
            tls_key: self.tls_key.or(weaker.tls_key),
            auth: self.auth.or(weaker.auth),
            projects: self.projects.or(weaker.projects),
            token_skew: self.token_skew.or(weaker.token_skew),
            admin_token_file: self.admin_token_file.or(weaker.admin_token_file),
            ticket_secret_file: self.ticket_secret_file.or(weaker.ticket_secret_file),
            audit_stream: self.audit_stream.or(weaker.audit_stream),
            jwks_host: self.jwks_host.or(weaker.jwks_host),
            jwks_ca: self.jwks_ca.or(weaker.jwks_ca),
            jwks_private_network: self.jwks_private_network.or(weaker.jwks_private_network),
            memory: self.memory.or(weaker.memory),
            data_dir: self.data_dir.or(weaker.data_dir),
            bucket: self.bucket.or(weaker.bucket),
            bucket_prefix: self.bucket_prefix.or(weaker.bucket_prefix),
            s2_endpoint: self.s2_endpoint.or(weaker.s2_endpoint),
            s2: self.s2.or(weaker.s2),
            s2_listen: self.s2_listen.or(weaker.s2_listen),
            s2_token_file: self.s2_token_file.or(weaker.s2_token_file),
            basin: self.basin.or(weaker.basin),
            basin_prefix: self.basin_prefix.or(weaker.basin_prefix),
            single_project: self.single_project.or(weaker.single_project),
            long_poll_timeout: self.long_poll_timeout.or(weaker.long_poll_timeout),
            sse_lifetime: self.sse_lifetime.or(weaker.sse_lifetime),
            linger: self.linger.or(weaker.linger),
            drain: self.drain.or(weaker.drain),
            drain_notice: self.drain_notice.or(weaker.drain_notice),
            max_body: self.max_body.or(weaker.max_body),
            max_connections: self.max_connections.or(weaker.max_connections),
            max_requests: self.max_requests.or(weaker.max_requests),
            max_connections_per_address: self.max_connections_per_address.or(weaker.max_connections_per_address),
            max_connection_age: self.max_connection_age.or(weaker.max_connection_age),
            trusted_proxy: self.trusted_proxy.or(weaker.trusted_proxy),
            keep_alive: self.keep_alive.or(weaker.keep_alive),
            header_timeout: self.header_timeout.or(weaker.header_timeout),
            body_timeout: self.body_timeout.or(weaker.body_timeout),
            write_timeout: self.write_timeout.or(weaker.write_timeout),
            send_buffer: self.send_buffer.or(weaker.send_buffer),
            delivery_shards: self.delivery_shards.or(weaker.delivery_shards),
            memory_budget: self.memory_budget.or(weaker.memory_budget),
            max_streams: self.max_streams.or(weaker.max_streams),
            public_url: self.public_url.or(weaker.public_url),
            log_format: self.log_format.or(weaker.log_format),
            log: self.log.or(weaker.log),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        if self.stores() > 1 {
            return Some("memory, data-dir, bucket, s2-endpoint and s2 exclude each other: there is one store");
        }
        (self.basin.is_some() && self.basin_prefix.is_some())
            .then_some("basin and basin-prefix exclude each other: projects share a basin or have their own")
    }
}

impl ServeSettings {
    /// How many stores are named.
    fn stores(&self) -> usize {
        let inside = [self.memory == Some(true), self.data_dir.is_some(), self.bucket.is_some()];
        let elsewhere = [self.s2_endpoint.is_some(), self.s2.is_some()];
        inside.into_iter().chain(elsewhere).filter(|named| *named).count()
    }
}

impl Layer for StoreSettings {
    fn or(self, weaker: Self) -> Self {
        let weaker = match self.stores() > 0 {
            true => Self { memory: None, data_dir: None, bucket: None, bucket_prefix: None, ..weaker },
            false => weaker,
        };
        Self {
            listen: self.listen.or(weaker.listen),
            memory: self.memory.or(weaker.memory),
            data_dir: self.data_dir.or(weaker.data_dir),
            bucket: self.bucket.or(weaker.bucket),
            bucket_prefix: self.bucket_prefix.or(weaker.bucket_prefix),
            token_file: self.token_file.or(weaker.token_file),
            log_format: self.log_format.or(weaker.log_format),
            log: self.log.or(weaker.log),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        (self.stores() > 1).then_some("memory, data-dir and bucket exclude each other: there is one store")
    }
}

impl StoreSettings {
    /// How many stores are named.
    fn stores(&self) -> usize {
        [self.memory == Some(true), self.data_dir.is_some(), self.bucket.is_some()]
            .into_iter()
            .filter(|named| *named)
            .count()
    }
}

/// The settings that variables name. Each is judged alone first, so that an error can say which is wrong, and then all
/// together, because they are one place.
fn from_env<S: Layer>(env: &BTreeMap<String, String>) -> Result<(S, Vec<String>), SettingsError> {
    let command = S::augment_args(Command::new("settings"));
    let mut all = Table::new();
    let mut unknown = Vec::new();
    for (variable, text) in env.iter().filter(|(variable, _)| *variable != CONFIG_ENV) {
        let name = variable.trim_start_matches(ENV_PREFIX).to_ascii_lowercase().replace('_', "-");
        let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(&name)) else {
            unknown.push(variable.clone());
            continue;
        };
        let value = value_of(text, arg);
        settings_of::<S>(Table::from_iter([(name.clone(), value.clone())]), variable)?;
        all.insert(name, value);
    }
    Ok((settings_of(all, ENV_PREFIX)?, unknown))
}

fn settings_of<S: Layer>(table: Table, variable: &str) -> Result<S, SettingsError> {
    S::deserialize(Value::Table(table)).map_err(|fault| SettingsError::Env {
        variable: variable.to_owned(),
        // What follows says where in a file it stands.
        fault: fault.message().to_owned(),
    })
}

/// A variable's text, as a file would have it.
fn value_of(text: &str, arg: &clap::Arg) -> Value {
    let is_list = matches!(arg.get_action(), clap::ArgAction::Append);
    // What needs no value on the command line is a yes or no.
    let is_switch = arg.is_require_equals_set();
    match text {
        "true" | "1" if is_switch => Value::Boolean(true),
        "false" | "0" if is_switch => Value::Boolean(false),
        text if is_list => Value::Array(text.split(',').map(|part| Value::String(part.trim().to_owned())).collect()),
        text => Value::String(text.to_owned()),
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("`{text}` is no length of time such as 500ms or 30s"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size: ByteSize = text.parse().map_err(|_| format!("`{text}` is no number of bytes such as 8MiB"))?;
        Ok(Self(size.as_u64()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match whole.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("`{text}` is no number from 0 to {}", u32::MAX))
    }
}

impl TryFrom<Written> for Count {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(number) => number.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Count> for i64 {
    fn from(count: Count) -> Self {
        count.0.into()
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(flags: ServeSettings, env: &[(&str, &str)], file: &str) -> Sources<ServeSettings> {
        let env = env.iter().map(|(variable, text)| ((*variable).to_owned(), (*text).to_owned())).collect();
        Sources { flags, env, file: Some(("t.toml".into(), file.to_owned())) }
    }

    fn resolved(flags: ServeSettings, env: &[(&str, &str)], file: &str) -> ServeSettings {
        sources(flags, env, file).resolve().unwrap().0
    }

    fn refused(flags: ServeSettings, env: &[(&str, &str)], file: &str) -> String {
        sources(flags, env, file).resolve().unwrap_err().to_string()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let span = |seconds| Some(Span(Duration::from_secs(seconds)));
        let flags = ServeSettings { linger: span(1), ..ServeSettings::default() };
        let env = [("TAILWATER_LINGER", "2s"), ("TAILWATER_DRAIN", "2s")];
        let file = "linger = '3s'\ndrain = '3s'\nsse-lifetime = '3s'";
        let settings = resolved(flags, &env, file);
        assert_eq!((settings.linger, settings.drain, settings.sse_lifetime), (span(1), span(2), span(3)));
    }

    #[test]
    fn the_three_places_spell_the_same_settings() {
        let file = "listen = ['127.0.0.1:1', '[::1]:2']\nmemory = true\nmax-body = '2MiB'\nlog-format = 'json'\n\
                    max-connections = 500\ntrusted-proxy = ['10.0.0.0/8', '::1']";
        let env = [
            ("TAILWATER_MAX_CONNECTIONS", "500"),
            ("TAILWATER_TRUSTED_PROXY", "10.0.0.0/8,::1"),
            ("TAILWATER_LISTEN", "127.0.0.1:1, [::1]:2"),
            ("TAILWATER_MEMORY", "1"),
            ("TAILWATER_MAX_BODY", "2048KiB"),
            ("TAILWATER_LOG_FORMAT", "json"),
        ];
        let flags = ServeSettings {
            listen: Some(vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]),
            memory: Some(true),
            max_body: Some(Size(2 << 20)),
            log_format: Some(LogFormat::Json),
            max_connections: Some(Count(500)),
            trusted_proxy: Some(vec!["10.0.0.0/8".to_owned(), "::1".to_owned()]),
            ..ServeSettings::default()
        };
        assert_eq!(resolved(ServeSettings::default(), &[], file), flags);
        assert_eq!(resolved(ServeSettings::default(), &env, ""), flags);
        assert_eq!(toml::from_str::<ServeSettings>(&toml::to_string(&flags).unwrap()), Ok(flags));
    }

    #[test]
    fn a_stronger_place_chooses_the_store_alone() {
        let file = "data-dir = 'd'\nbasin = 'shared-basin'";
        let settings = resolved(ServeSettings::default(), &[("TAILWATER_MEMORY", "true")], file);
        assert_eq!((settings.memory, settings.data_dir), (Some(true), None));
        let flags = ServeSettings { basin_prefix: Some("prefix".to_owned()), ..ServeSettings::default() };
        let settings = resolved(flags, &[], file);
        assert_eq!((settings.basin, settings.data_dir), (None, Some("d".into())));
    }

    #[test]
    fn a_prefix_belongs_to_the_bucket_that_it_was_named_with() {
        let file = "bucket = 'b'\nbucket-prefix = 'p'";
        let bucket = |s: ServeSettings| (s.bucket, s.bucket_prefix);
        let (b, p, q) = (Some("b".to_owned()), Some("p".to_owned()), Some("q".to_owned()));
        assert_eq!(bucket(resolved(ServeSettings::default(), &[], file)), (b.clone(), p.clone()));
        assert_eq!(bucket(resolved(ServeSettings::default(), &[("TAILWATER_BUCKET", "q")], file)), (q.clone(), None));
        let flags = ServeSettings { bucket_prefix: q.clone(), ..ServeSettings::default() };
        assert_eq!(bucket(resolved(flags, &[], file)), (b, q.clone()));
        let both = [("TAILWATER_BUCKET", "q"), ("TAILWATER_BUCKET_PREFIX", "p")];
        assert_eq!(bucket(resolved(ServeSettings::default(), &both, "memory = true")), (q, p));
    }

    #[test]
    fn every_two_stores_in_one_place_exclude_each_other() {
        let stores = ["memory = true", "data-dir = 'd'", "bucket = 'b'", "s2-endpoint = 'http://s2:1'", "s2 = 'cloud'"];
        for (at, one) in stores.into_iter().enumerate() {
            assert!(sources(ServeSettings::default(), &[], one).resolve().is_ok(), "{one}");
            for other in &stores[at + 1..] {
                let fault = refused(ServeSettings::default(), &[], &format!("{one}\n{other}"));
                assert!(fault.starts_with("file: memory, data-dir, bucket, s2-endpoint and s2 exclude"), "{fault}");
            }
        }
        let env = [("TAILWATER_DATA_DIR", "d"), ("TAILWATER_MEMORY", "1")];
        assert!(refused(ServeSettings::default(), &env, "").starts_with("environment: "));
        let alone = |text: &str| toml::from_str::<StoreSettings>(text).unwrap().contradiction();
        assert!(alone("bucket = 'b'").is_none() && alone("bucket = 'b'\nmemory = true").is_some());
    }

    #[test]
    fn what_contradicts_itself_or_is_unknown_is_refused_with_its_place() {
        let none = ServeSettings::default;
        let both = ServeSettings { memory: Some(true), data_dir: Some("d".into()), ..none() };
        assert!(refused(both, &[], "").starts_with("flags: memory, data-dir"));
        assert!(refused(none(), &[], "basin = 'a'\nbasin-prefix = 'b'").starts_with("file: basin and"));
        assert!(refused(none(), &[], "lingre = '1s'").contains("lingre"));
        assert!(refused(none(), &[], "linger = 5").starts_with("t.toml: "));
        assert!(refused(none(), &[("TAILWATER_LINGER", "soon")], "").starts_with("TAILWATER_LINGER: "));
        assert!(refused(none(), &[("TAILWATER_MAX_CONNECTIONS", "-1")], "").starts_with("TAILWATER_MAX_CONNECTIONS: "));
        assert!(refused(none(), &[], "max-connections = -1").contains("no number from 0"));
        assert!(refused(none(), &[("TAILWATER_LISTEN", "nowhere")], "").starts_with("TAILWATER_LISTEN: "));
    }

    #[test]
    fn a_variable_that_names_no_setting_is_reported_and_no_error() {
        let env = [("TAILWATER_PORT", "tcp://10.0.0.1:80"), ("TAILWATER_CONFIG", "t.toml"), ("TAILWATER_LINGER", "1s")];
        let (_, unknown) = sources(ServeSettings::default(), &env, "").resolve().unwrap();
        assert_eq!(unknown, ["TAILWATER_PORT"]);
    }

    #[test]
    fn sizes_and_times_are_shown_as_they_are_written() {
        for text in ["8MiB", "1GiB", "1000B", "0B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["500ms", "30s", "1m 30s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert!("8 parsecs".parse::<Size>().is_err() && "later".parse::<Span>().is_err());
    }
}
