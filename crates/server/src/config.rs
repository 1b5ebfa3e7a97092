//! The settings of the HTTP surface.

use std::{fmt, str::FromStr, time::Duration};

use http::Uri;
use tailwater_protocol::{Addressing, ProjectId};

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
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a body may stand still.
    pub body_timeout: Duration,
    /// How long a connection that is written to may take nothing before it is closed.
    pub write_timeout: Duration,
    /// Over how long live responses are spread when the process ends.
    pub drain: Duration,
    /// The most connections at once; further ones wait to be accepted.
    pub max_connections: usize,
}

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
            max_connections: 100_000,
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
