//! Where an issuer's keys are fetched: a URL of the project's configuration, at a host that whoever runs the gateway has
//! listed. None is ever taken from a token.

use std::fmt;

/// The longest URL, in bytes.
pub const MAX_URL: usize = 512;

/// The most hosts of a list.
pub const MAX_HOSTS: usize = 64;

/// The URL of a document of keys. Whether its host is listed is for [`JwksHosts`] to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JwksUrl {
    url: String,
    /// Where the host's name ends.
    host_end: usize,
    port: u16,
}

/// The hosts that keys may be fetched from, each with one port. Without any, none are fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JwksHosts(Vec<(String, u16)>);

/// Why a URL is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("keys are fetched from `https://host/path` or `https://host:port/path`, in lower case, by a host's name")]
pub struct UrlError;

/// Why a list of hosts is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// One is no host.
    #[error("`{host}` is not `host` or `host:port`, in lower case, by a name with a dot in it")]
    Form {
        /// Which.
        host: String,
    },
    /// There are too many.
    #[error("keys are fetched from {MAX_HOSTS} hosts at most")]
    TooMany,
}

const SCHEME: &str = "https://";
const DEFAULT_PORT: u16 = 443;

impl JwksUrl {
    /// Takes a URL of the one form that no two programs read differently.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let rest = url.strip_prefix(SCHEME).ok_or(UrlError)?;
        // What programs read in different ways is none: user names, backslashes, fragments, what is not visible ASCII.
        let sound = |byte: u8| byte.is_ascii_graphic() && !b"@\\#\"<>^`{|}".contains(&byte);
        if url.len() > MAX_URL || !rest.bytes().all(sound) {
            return Err(UrlError);
        }
        let (authority, _) = rest.split_once('/').ok_or(UrlError)?;
        let (host, port) = host_and_port(authority).ok_or(UrlError)?;
        Ok(Self { url: url.to_owned(), host_end: SCHEME.len() + host.len(), port })
    }

    /// The whole of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The name of the host, to be resolved, and to be what its certificate is for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.url[SCHEME.len()..self.host_end]
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host, and the port where it is not the usual one: what a request's `Host` says.
    #[must_use]
    pub fn authority(&self) -> &str {
        let rest = &self.url[SCHEME.len()..];
        rest.split_once('/').map_or(rest, |(authority, _)| authority)
    }

    /// The same without its query, in which some issuers have credentials of who asks.
    #[must_use]
    pub fn without_query(&self) -> &str {
        self.url.split_once('?').map_or(&self.url, |(url, _)| url)
    }

    /// What is asked for there: the path and the query, from the first slash.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.url[SCHEME.len() + self.authority().len()..]
    }
}

impl JwksHosts {
    /// Hosts, each as `host`, which is for port 443 alone, or as `host:port`.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn parse<'h>(hosts: impl IntoIterator<Item = &'h str>) -> Result<Self, HostsError> {
        let mut listed = Vec::new();
        for host in hosts {
            let (name, port) = host_and_port(host).ok_or_else(|| HostsError::Form { host: host.to_owned() })?;
            listed.push((name.to_owned(), port));
        }
        if listed.len() > MAX_HOSTS { Err(HostsError::TooMany) } else { Ok(Self(listed)) }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether keys may be fetched from there.
    #[must_use]
    pub fn lists(&self, url: &JwksUrl) -> bool {
        self.0.iter().any(|(host, port)| host == url.host() && *port == url.port())
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.split_once(':') {
        None => (authority, DEFAULT_PORT),
        Some((host, port)) => (host, port_of(port)?),
    };
    is_name(host).then_some((host, port))
}

fn port_of(text: &str) -> Option<u16> {
    text.parse::<u16>().ok().filter(|port| *port > 0 && port.to_string() == text)
}

/// Whether this is a name with a dot, whose last part is no number: no spelling of an address is one, `0x7f.1` included.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit_once('.').map(|(_, last)| last);
    host.len() <= 253
        && host.split('.').all(is_label)
        && last.is_some_and(|last| last.starts_with(|first: char| first.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_once() {
        let table = [
            ("https://login.example/keys", "login.example", 443, "login.example", "/keys"),
            (
                "https://login.example:8443/.well-known/jwks.json?v=1/2",
                "login.example",
                8443,
                "login.example:8443",
                "/.well-known/jwks.json?v=1/2",
            ),
            ("https://keys.login.example/", "keys.login.example", 443, "keys.login.example", "/"),
        ];
        for (url, host, port, authority, target) in table {
            let parsed = JwksUrl::parse(url).unwrap();
            assert_eq!((parsed.host(), parsed.port(), parsed.as_str()), (host, port, url));
            assert_eq!((parsed.authority(), parsed.target()), (authority, target));
            assert!(!parsed.without_query().contains('?') && url.starts_with(parsed.without_query()));
        }
    }

    #[test]
    fn keys_are_fetched_from_a_listed_host_at_its_port_alone() {
        let hosts = JwksHosts::parse(["login.example", "keys.example:8443"]).unwrap();
        let lists = |url: &str| hosts.lists(&JwksUrl::parse(url).unwrap());
        assert!(lists("https://login.example/keys") && lists("https://login.example:443/any?x"));
        assert!(lists("https://keys.example:8443/keys"));
        for url in [
            "https://login.example:8443/keys",
            "https://keys.example/keys",
            "https://evil.example/login.example",
            "https://xlogin.example/",
            "https://login.example.evil.example/",
            "https://a.login.example/",
        ] {
            assert!(!lists(url), "{url}");
        }
        assert!(!JwksHosts::default().lists(&JwksUrl::parse("https://login.example/").unwrap()));
        for host in [
            "",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "0x7f.1",
            "LOGIN.example",
            "a.example:0",
            "https://a.example",
            "*.example",
        ] {
            assert_eq!(JwksHosts::parse([host]), Err(HostsError::Form { host: host.to_owned() }));
        }
        assert_eq!(JwksHosts::parse(vec!["a.example"; MAX_HOSTS + 1]), Err(HostsError::TooMany));
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let form = [
            "",
            "https://",
            "https:///keys",
            "http://login.example/keys",
            "HTTPS://login.example/keys",
            "ftp://login.example/keys",
            "file:///etc/passwd",
            "//login.example/keys",
            "https:login.example/keys",
            "https://login.example",
            "https://login.example?x=/",
            "https://login.example#/",
            "https://LOGIN.example/",
            "https://login.example./keys",
            "https://login.example:/keys",
            "https://login.example:0/keys",
            "https://login.example:0443/keys",
            "https://login.example:99999/keys",
            "https://login.example:+1/keys",
            "https://user@login.example/",
            "https://login.example@evil.example/",
            "https://evil.example\\@login.example/",
            "https://login.example\\.evil.example/",
            "https://login.example/a b",
            "https://login.example/\r\nHost: x",
            "https://login.example/#frag",
            "https://127.0.0.1/keys",
            "https://[::1]/keys",
            "https://localhost/keys",
            "https://0x7f.1/keys",
            "https://2130706433/keys",
            "https://127.1/keys",
            "https://-a.example/",
            "https://lögin.example/",
            "https://login%2eexample/",
            " https://login.example/",
        ];
        for url in form {
            assert_eq!(JwksUrl::parse(url), Err(UrlError), "{url}");
        }
        let long = format!("https://login.example/{}", "x".repeat(MAX_URL));
        assert_eq!(JwksUrl::parse(&long), Err(UrlError));
    }
}
