//! Which pages of other origins may see a project's answers (the Fetch standard, section 3.2; RFC 6454, section 6.1).
//!
//! Closed unless the project names origins. Credentials of the browser are allowed only where the project names a cookie, to
//! pages of an origin that it names one by one, and for reading. Otherwise an origin that is named back gives a page nothing
//! that it did not bring: a token is in a header that only the page's own script can set.

/// The most origins of a project.
pub const MAX_ORIGINS: usize = 256;

/// The origins that a project allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    /// None.
    #[default]
    Closed,
    /// Every page, whoever wrote it.
    Any,
    /// These.
    Only(Vec<String>),
}

/// What a response says to a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing<'o> {
    /// Nothing, whoever asks.
    None,
    /// `Access-Control-Allow-Origin: *`, whoever asks.
    Any,
    /// Nothing to this origin, but something to others: `Vary: Origin`.
    NotThis,
    /// `Access-Control-Allow-Origin` with this origin, and `Vary: Origin`.
    This(&'o str),
}

/// Why something is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It has another form than a browser would send.
    #[error("an origin is `https://host` or `https://host:port`, in lower case, without path or default port; or `*`")]
    Form,
    /// `*` stands beside others.
    #[error("`*` allows every origin; name it alone")]
    AnyAndOthers,
    /// There are too many.
    #[error("a project has at most {MAX_ORIGINS} origins")]
    TooMany,
}

impl Origins {
    /// Parses a list of origins; an empty one allows none.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn parse<'o>(origins: impl ExactSizeIterator<Item = &'o str>) -> Result<Self, OriginError> {
        if origins.len() > MAX_ORIGINS {
            return Err(OriginError::TooMany);
        }
        let origins: Vec<_> = origins.collect();
        match origins.as_slice() {
            [] => Ok(Self::Closed),
            ["*"] => Ok(Self::Any),
            some if some.contains(&"*") => Err(OriginError::AnyAndOthers),
            some if some.iter().all(|origin| is_origin(origin)) => {
                Ok(Self::Only(some.iter().map(|origin| (*origin).to_owned()).collect()))
            }
            _ => Err(OriginError::Form),
        }
    }

    /// What a response to a request with this `Origin` says. Compared byte by byte: browsers have one spelling.
    #[must_use]
    pub fn share(&self, origin: Option<&[u8]>) -> Sharing<'_> {
        match self {
            Self::Closed => Sharing::None,
            Self::Any => Sharing::Any,
            Self::Only(origins) => origins
                .iter()
                .find(|own| origin == Some(own.as_bytes()))
                .map_or(Sharing::NotThis, |own| Sharing::This(own)),
        }
    }
}

/// Whether a browser would spell an origin so. `null`, which any page can have itself called, is none.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let (rest, default_port) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, "443"),
        (None, Some(rest)) => (rest, "80"),
        (None, None) => return false,
    };
    // The colons of an IPv6 address stand in brackets.
    let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let is_name =
        |host: &str| host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b));
    let is_address = |host: &str| host.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase() || b == b':');
    let named = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.is_some_and(|inner| !inner.is_empty() && is_address(inner)),
        None => !host.is_empty() && is_name(host),
    };
    let placed = port.is_none_or(|port| {
        let canonical = port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port);
        canonical && port != default_port
    });
    named && placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Result<Origins, OriginError> {
        Origins::parse(list.iter().copied())
    }

    #[test]
    fn only_what_a_browser_sends_is_an_origin() {
        let good = [
            "https://app.example",
            "http://localhost:3000",
            "https://a-b.example:8443",
            "http://127.0.0.1:8080",
            "https://[::1]",
            "http://[2001:db8::1]:8080",
        ];
        for origin in good {
            assert!(origins(&[origin]).is_ok(), "{origin}");
        }
        let bad = [
            "",
            "null",
            "app.example",
            "https://",
            "https://App.example",
            "https://app.example/",
            "https://app.example:443",
            "http://app.example:80",
            "https://app.example:0",
            "https://app.example:08443",
            "https://app.example:99999",
            "https://app.example:",
            "https://u@app.example",
            "https://*.example",
            "https://app.example?x",
            "https://[::1",
            "https://[]",
            "https://é.example",
            "file://",
            "HTTPS://app.example",
        ];
        for origin in bad {
            assert_eq!(origins(&[origin]), Err(OriginError::Form), "{origin}");
        }
        assert_eq!(origins(&["*", "https://a.example"]), Err(OriginError::AnyAndOthers));
        assert_eq!(origins(&["https://a.example"; MAX_ORIGINS + 1]), Err(OriginError::TooMany));
    }

    #[test]
    fn an_origin_is_named_back_only_where_the_project_names_it() {
        let (closed, any) = (origins(&[]).unwrap(), origins(&["*"]).unwrap());
        let some = origins(&["https://a.example", "http://a.example"]).unwrap();
        let table: [(Option<&[u8]>, Sharing<'_>); 8] = [
            (None, Sharing::NotThis),
            (Some(b"https://a.example"), Sharing::This("https://a.example")),
            (Some(b"http://a.example"), Sharing::This("http://a.example")),
            (Some(b"https://a.example.evil.example"), Sharing::NotThis),
            (Some(b"https://evil.example"), Sharing::NotThis),
            (Some(b"https://A.example"), Sharing::NotThis),
            (Some(b"null"), Sharing::NotThis),
            (Some(b"*"), Sharing::NotThis),
        ];
        for (origin, sharing) in table {
            assert_eq!(closed.share(origin), Sharing::None, "{origin:?}");
            assert_eq!(any.share(origin), Sharing::Any, "{origin:?}");
            assert_eq!(some.share(origin), sharing, "{origin:?}");
        }
    }
}
