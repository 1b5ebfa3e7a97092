//! A token in a cookie that the application's own login has set, out of reach of scripts (`HttpOnly`; RFC 6265).
//!
//! A browser sends a cookie whoever makes it ask, so a token there counts for less than one in a header: for reading
//! alone, and only where the request says that it is from a page that may ask ([`may_count`]). Otherwise it is as if there
//! were no cookie.

use std::fmt;

use crate::origin::{Origins, Sharing};

/// The longest name of a cookie, in bytes.
pub const MAX_COOKIE_NAME: usize = 64;

/// The name of a cookie: a token of RFC 9110, section 5.6.2, as RFC 6265, section 4.1.1, asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(String);

impl CookieName {
    /// Parses a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let formed = (1..=MAX_COOKIE_NAME).contains(&name.len()) && name.bytes().all(is_of_token);
        formed.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value of this cookie in the lines of `Cookie`, which may be several in HTTP/2 (RFC 9113, section 8.2.3). A cookie
    /// that stands there twice has none: a sibling of the site could have set one of them, and nobody can tell which.
    #[must_use]
    pub fn value_in<'h>(&self, lines: impl IntoIterator<Item = &'h [u8]>) -> Option<&'h str> {
        let mut found = None;
        for pair in lines.into_iter().flat_map(|line| line.split(|byte| *byte == b';')) {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at(at);
            if name.trim_ascii_end() != self.0.as_bytes() {
                continue;
            }
            if found.replace(value).is_some() {
                return None;
            }
        }
        let value = str::from_utf8(found?).ok()?;
        value.strip_prefix('=').map(str::trim_ascii)
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a request is from a page whose cookies count: `Sec-Fetch-Site`, which no page can set, says that it is of the
/// gateway's own origin or site (the Fetch Metadata standard, section 2.4), or `Origin` is one that the project names itself.
/// To allow every origin names none.
#[must_use]
pub fn may_count(fetch_site: Option<&[u8]>, origin: Option<&[u8]>, origins: &Origins) -> bool {
    match fetch_site {
        Some(b"same-origin" | b"same-site") => true,
        Some(_) | None => matches!(origins.share(origin), Sharing::This(_)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value<'h>(name: &str, lines: &[&'h str]) -> Option<&'h str> {
        CookieName::parse(name).unwrap().value_in(lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn a_name_is_what_a_browser_can_send_back() {
        for name in ["a", "__Host-session", "__Secure-s.1", &"n".repeat(64)] {
            assert_eq!(CookieName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "a b", "a=b", "a;b", "a,b", "\"a\"", "é", "a\n", "a/b", &"n".repeat(65)] {
            assert_eq!(CookieName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others_and_one_that_stands_there_twice_is_not() {
        let table: [(&[&str], Option<&str>); 14] = [
            (&["s=a.b.c"], Some("a.b.c")),
            (&["x=1; s=a; y=2"], Some("a")),
            (&["x=1;s=a"], Some("a")),
            (&["x=1", "s=a"], Some("a")),
            (&["s = a "], Some("a")),
            (&["s="], Some("")),
            (&["s=a=b"], Some("a=b")),
            (&["s"], None),
            (&[], None),
            (&["S=a; ss=b; xs=c; =s=d"], None),
            (&["s=a; s=a"], None),
            (&["s=a; s"], None),
            (&["s=a", "x=1; s=b"], None),
            (&["x=s=a"], None),
        ];
        for (lines, found) in table {
            assert_eq!(value("s", lines), found, "{lines:?}");
        }
        let name = CookieName::parse("s").unwrap();
        assert_eq!(name.value_in([b"s=\xff".as_slice()]), None);
        assert_eq!(name.value_in([b"x=\xff; s=a".as_slice()]), Some("a"));
    }

    #[test]
    fn a_cookie_counts_where_a_page_of_the_site_or_of_a_named_origin_asks() {
        let app: &[u8] = b"https://app.example";
        let named = Origins::parse(["https://app.example"].into_iter()).unwrap();
        type Field = Option<&'static [u8]>;
        let table: [(Field, Field, [bool; 3]); 10] = [
            // `Sec-Fetch-Site`, `Origin`; where the origin is named, where all are allowed, where none is
            (Some(b"same-origin"), None, [true, true, true]),
            (Some(b"same-site"), None, [true, true, true]),
            (Some(b"same-site"), Some(b"https://sibling.example"), [true, true, true]),
            (Some(b"cross-site"), Some(app), [true, false, false]),
            (Some(b"cross-site"), Some(b"https://evil.example"), [false, false, false]),
            (Some(b"cross-site"), None, [false, false, false]),
            (Some(b"none"), None, [false, false, false]),
            (Some(b"Same-Origin"), None, [false, false, false]),
            (None, Some(app), [true, false, false]),
            (None, None, [false, false, false]),
        ];
        for (site, origin, counts) in table {
            let counted = [&named, &Origins::Any, &Origins::Closed].map(|origins| may_count(site, origin, origins));
            assert_eq!(counted, counts, "{site:?} {origin:?}");
        }
    }

    proptest! {
        #[test]
        fn what_stands_in_other_cookies_is_never_the_value(before in "[a-z=; \"]{0,12}", after in "[a-z=; \"]{0,12}") {
            let line = format!("{before};S=token;{after}");
            prop_assert_eq!(value("S", &[&line]), Some("token"));
            prop_assert_eq!(value("Other", &[&line]), None);
        }
    }
}
