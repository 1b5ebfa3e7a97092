//! Projects as they are configured: TOML, in one file or several.
//!
//! ```toml
//! [[project]]
//! id = "chat"
//! visibility = "private"                  # of streams whose creator does not say; private without it
//! origins = ["https://app.example"]       # whose pages may see answers; none without it
//! cookie = "__Host-session"               # where pages may have their tokens beside a header; nowhere without it
//! writers-read = false                    # whether a token that may write may read, too
//! audience = "tailwater"                  # what `aud` must name, if given
//! issuer = "https://login.example"        # what `iss` must be, if given
//! revoked = ["a-jti"]                     # tokens that count no more
//! basin = "acme-events"                   # where its streams are in S2; without it, where the gateway's settings say
//! max-body = 65536                        # the most bytes of a request's body, if fewer than the gateway takes
//! max-readers-per-stream = 1000           # the most live readers of one stream on one pod, if fewer than there may be
//!
//! [project.quota]                         # what all its principals together may have on one pod; without it, what there is
//! requests = { most = 1000, within = 10 } # so many at once, and so many in as many seconds after that
//! bytes = { most = 8000000, within = 10 } # of bodies, and of what is read; not of what comes while a response is live
//! connections = { most = 100, within = 10 } # live responses that are opened, long-polls included
//! readers = 5000                          # live responses that are open
//! streams = 200                           # streams that have one, each once; of all principals together alone
//!
//! [project.quota.principal]               # the same of each: of a token by its `jti`, of an address where there is none
//! requests = { most = 100, within = 10 }
//!
//! [project.jwks]                          # the issuer's keys verify, too; needs `issuer`, and a host that the gateway lists
//! url = "https://login.example/keys.json"
//!
//! [[project.key]]                         # the first signs, all verify; needed where there is no `jwks`
//! id = "2026-11"
//! algorithm = "HS256"
//! secret = "at least 32 bytes, as they stand here"
//!
//! [[project.key]]
//! algorithm = "ES256"
//! public-key = """
//! -----BEGIN PUBLIC KEY-----
//! …
//! -----END PUBLIC KEY-----
//! """
//! ```
//!
//! An error says where, never what stands there: it could be a secret.

mod quota;

use std::{fmt, num::NonZeroUsize};

use serde::{Deserialize, Deserializer, de::Visitor};
use tailwater_protocol::{ProjectId, Visibility};
use zeroize::Zeroizing;

pub use self::quota::QuotaFault;
use self::quota::QuotaTable;
use crate::{
    cookie::{CookieName, MAX_COOKIE_NAME},
    jwks::{JwksUrl, UrlError},
    key::{Algorithm, Key, KeyError, KeyId, SecretText},
    keys::{Keys, KeysError},
    origin::{OriginError, Origins},
    project::{BasinName, Limits, Project, Writers},
    projects::{Projects, ProjectsError},
    token::claims::MAX_TOKEN_ID,
};

/// A file, read.
#[derive(Clone, Copy)]
pub struct File<'f> {
    /// What errors call it.
    pub name: &'f str,
    /// What it holds.
    pub bytes: &'f [u8],
}

/// Its secrets stand in it.
impl fmt::Debug for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.name).finish()
    }
}

/// What is wrong with a configuration of projects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is not UTF-8.
    #[error("{file}: not utf-8")]
    NotText {
        /// The file.
        file: String,
    },
    /// It is not TOML, or has a key that is not known, or a value of another kind.
    #[error("{file}:{line}: {fault}")]
    Malformed {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        fault: String,
    },
    /// A project's table says what cannot be.
    #[error("{file}: project {number}: {fault}")]
    Project {
        /// The file.
        file: String,
        /// Which of the file's projects, from 1.
        number: usize,
        /// What is wrong.
        fault: ProjectFault,
    },
    /// Two projects have something in common that is for one.
    #[error(transparent)]
    Repeated(#[from] ProjectsError),
    /// There is no project at all.
    #[error("there is no project: with none, nothing could be reached")]
    None,
}

/// What is wrong with a project's table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectFault {
    /// `id`.
    #[error("`id` is not a project's id: 1 to 64 of `A-Z a-z 0-9 - _`, not starting with `_`, not a reserved word")]
    Id,
    /// One of the keys.
    #[error("key {number}: {fault}")]
    Key {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        fault: KeyError,
    },
    /// The keys together.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// `url` of `jwks`.
    #[error("`jwks`: {0}")]
    Jwks(#[from] UrlError),
    /// `jwks` without `issuer`.
    #[error("`jwks` needs `issuer`: keys of an issuer verify tokens of that issuer alone")]
    NoIssuer,
    /// `origins`.
    #[error("`origins`: {0}")]
    Origins(#[from] OriginError),
    /// `cookie`.
    #[error("`cookie` is no name of one: 1 to {MAX_COOKIE_NAME} letters, digits and such as `-`, `_` and `.`")]
    Cookie,
    /// `basin`.
    #[error("`basin` is no name of one: 8 to 48 of `a-z 0-9 -`, from a letter or digit to a letter or digit")]
    Basin,
    /// `quota`.
    #[error("`quota`: {0}")]
    Quota(#[from] QuotaFault),
    /// `revoked`.
    #[error("`revoked`: the id of a token has 1 to {MAX_TOKEN_ID} bytes")]
    Revoked,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    project: Vec<ProjectTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ProjectTable {
    id: String,
    #[serde(default)]
    visibility: VisibilityWord,
    #[serde(default)]
    origins: Vec<String>,
    cookie: Option<String>,
    #[serde(default)]
    writers_read: bool,
    audience: Option<String>,
    issuer: Option<String>,
    #[serde(default)]
    revoked: Vec<String>,
    basin: Option<String>,
    max_body: Option<NonZeroUsize>,
    max_readers_per_stream: Option<NonZeroUsize>,
    quota: Option<QuotaTable>,
    jwks: Option<JwksTable>,
    #[serde(default)]
    key: Vec<KeyTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct JwksTable {
    url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct KeyTable {
    id: Option<String>,
    algorithm: Algorithm,
    secret: Option<SecretText>,
    public_key: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum VisibilityWord {
    #[default]
    Private,
    Public,
}

impl Projects {
    /// Reads projects from files, all of which count together.
    ///
    /// # Errors
    /// [`DocumentError`], for the first file that is wrong.
    pub fn parse<'f>(files: impl IntoIterator<Item = File<'f>>) -> Result<Self, DocumentError> {
        let mut projects = Vec::new();
        for file in files {
            projects.append(&mut projects_of(file)?);
        }
        if projects.is_empty() {
            return Err(DocumentError::None);
        }
        Ok(Self::new(projects)?)
    }
}

/// The projects of one file, whatever others there are.
///
/// # Errors
/// [`DocumentError`], but for what is wrong with projects together.
pub fn projects_of(file: File<'_>) -> Result<Vec<Project>, DocumentError> {
    let wrong = |index, fault| DocumentError::Project { file: file.name.to_owned(), number: index + 1, fault };
    let tables = read(file)?.into_iter().enumerate();
    tables.map(|(index, table)| table.project().map_err(|fault| wrong(index, fault))).collect()
}

fn read(file: File<'_>) -> Result<Vec<ProjectTable>, DocumentError> {
    let name = || file.name.to_owned();
    let text = str::from_utf8(file.bytes).map_err(|_| DocumentError::NotText { file: name() })?;
    let document: Document = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        DocumentError::Malformed { file: name(), line, fault: without_values(error.message()) }
    })?;
    Ok(document.project)
}

/// An error's text without what was found, which may be a secret in the wrong place.
fn without_values(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    match first.split_once(", expected ") {
        Some((_, expected)) if !first.starts_with("unknown field") => format!("expected {expected}"),
        _ if ["unknown field", "missing field", "duplicate"].iter().any(|known| first.starts_with(known)) => {
            first.to_owned()
        }
        _ => "not toml".to_owned(),
    }
}

impl ProjectTable {
    fn project(self) -> Result<Project, ProjectFault> {
        let id = ProjectId::parse(&self.id).map_err(|_| ProjectFault::Id)?;
        let mut keys = Vec::with_capacity(self.key.len());
        for (index, table) in self.key.into_iter().enumerate() {
            keys.push(table.key().map_err(|fault| ProjectFault::Key { number: index + 1, fault })?);
        }
        if self.revoked.iter().any(|id| id.is_empty() || id.len() > MAX_TOKEN_ID) {
            return Err(ProjectFault::Revoked);
        }
        let jwks = self.jwks.map(|jwks| JwksUrl::parse(&jwks.url)).transpose()?;
        if jwks.is_some() && self.issuer.is_none() {
            return Err(ProjectFault::NoIssuer);
        }
        let keys = if keys.is_empty() && jwks.is_some() { Keys::none() } else { Keys::new(keys)? };
        Ok(Project {
            jwks,
            audience: self.audience,
            issuer: self.issuer,
            visibility: match self.visibility {
                VisibilityWord::Private => Visibility::Private,
                VisibilityWord::Public => Visibility::Public,
            },
            writers: if self.writers_read { Writers::ReadToo } else { Writers::WriteOnly },
            origins: Origins::parse(self.origins.iter().map(String::as_str))?,
            cookie: self.cookie.map(|name| CookieName::parse(&name).ok_or(ProjectFault::Cookie)).transpose()?,
            revoked: self.revoked.into_iter().collect(),
            basin: self.basin.map(|name| BasinName::parse(&name).ok_or(ProjectFault::Basin)).transpose()?,
            limits: Limits { body: self.max_body, readers_per_stream: self.max_readers_per_stream },
            quotas: self.quota.map(QuotaTable::quotas).transpose()?.unwrap_or_default(),
            ..Project::new(id, keys)
        })
    }
}

impl KeyTable {
    fn key(self) -> Result<Key, KeyError> {
        let id = self.id.as_deref().map(KeyId::parse).transpose()?;
        match (self.algorithm.is_symmetric(), self.secret, self.public_key) {
            (true, Some(secret), None) => Key::secret(id, secret.0.as_bytes()),
            (false, None, Some(pem)) => Key::public(id, self.algorithm, &pem),
            (_, _, _) => Err(KeyError::Kind),
        }
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Takes a text; of anything else it says only what it is not.
struct SecretVisitor;

impl Visitor<'_> for SecretVisitor {
    type Value = SecretText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret in quotes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SecretText, E> {
        Ok(SecretText(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<SecretText, E> {
        Ok(SecretText(Zeroizing::new(text)))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<SecretText, E> {
        Err(E::custom("invalid type, expected a secret in quotes"))
    }
}

#[cfg(test)]
mod tests;
