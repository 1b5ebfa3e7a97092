//! Where an issuer's keys are fetched: a URL that whoever runs the gateway has configured, at a host that it has listed.
//! None is ever taken from a token.

use std::fmt;

/// The longest URL, in bytes.
pub const MAX_URL: usize = 512;

/// The URL of a document of keys: `https`, at a listed host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JwksUrl {
    url: String,
    /// Where the host's name ends.
    host_end: usize,
    port: u16,
}

/// Why a URL is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is of another form.
    #[error("keys are fetched from `https://host/path` or `https://host:port/path`, in lower case, by a host's name")]
    Form,
    /// Its host is not listed.
    #[error("the host is none of those that keys may be fetched from")]
    Host,
}

const SCHEME: &str = "https://";
const DEFAULT_PORT: u16 = 443;

impl JwksUrl {
    /// Takes a URL if its host is one of these.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse<'h>(url: &str, hosts: impl IntoIterator<Item = &'h str>) -> Result<Self, UrlError> {
        let rest = url.strip_prefix(SCHEME).ok_or(UrlError::Form)?;
        // What programs read in different ways is none: user names, backslashes, fragments, what is not visible ASCII.
        let sound = |byte: u8| byte.is_ascii_graphic() && !b"@\\#\"<>^`{|}".contains(&byte);
        if url.len() > MAX_URL || !rest.bytes().all(sound) {
            return Err(UrlError::Form);
        }
        let (authority, _) = rest.split_once('/').ok_or(UrlError::Form)?;
        let (host, port) = match authority.split_once(':') {
            None => (authority, DEFAULT_PORT),
            Some((host, port)) => (host, port_of(port).ok_or(UrlError::Form)?),
        };
        if !is_name(host) {
            return Err(UrlError::Form);
        }
        if !hosts.into_iter().any(|listed| listed == host) {
            return Err(UrlError::Host);
        }
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
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
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
    fn a_url_is_taken_if_its_host_is_listed() {
        let hosts = ["login.example", "keys.login.example"];
        let table = [
            ("https://login.example/keys", "login.example", 443),
            ("https://login.example:8443/.well-known/jwks.json?v=1", "login.example", 8443),
            ("https://keys.login.example/", "keys.login.example", 443),
        ];
        for (url, host, port) in table {
            let parsed = JwksUrl::parse(url, hosts).unwrap();
            assert_eq!((parsed.host(), parsed.port(), parsed.as_str()), (host, port, url));
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let hosts = ["login.example", "127.0.0.1", "localhost", "[::1]", "0x7f.1", "LOGIN.example"];
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
            assert_eq!(JwksUrl::parse(url, hosts), Err(UrlError::Form), "{url}");
        }
        for url in [
            "https://evil.example/",
            "https://xlogin.example/",
            "https://login.example.evil.example/",
            "https://a.login.example/",
            "https://example/".trim_end_matches('/'),
        ] {
            assert!(JwksUrl::parse(url, hosts).is_err(), "{url}");
        }
        assert_eq!(JwksUrl::parse("https://evil.example/", hosts), Err(UrlError::Host));
        assert_eq!(JwksUrl::parse("https://login.example/", []), Err(UrlError::Host));
        let long = format!("https://login.example/{}", "x".repeat(MAX_URL));
        assert_eq!(JwksUrl::parse(&long, hosts), Err(UrlError::Form));
    }
}
