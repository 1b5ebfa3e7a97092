//! Headers and paths of requests, read into types.
//!
//! A header of the protocol that stands there more than once is refused: which of the two counts would be anyone's
//! guess, and proxies guess differently.

use http::{HeaderMap, Uri, header};
use tailwater_protocol::{
    BadRequest, ContentType, ForkRequest, Lifetime, Producer, StreamPath, StreamSeq, Visibility, closed, headers,
    path::STREAM_ROOT,
};
use tailwater_upstream::StreamKey;

use crate::config::Config;

/// Whether a request is from the same origin, the same site, or another.
pub(crate) const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The headers of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'h>(pub(crate) &'h HeaderMap);

/// What is wrong with a header, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    /// It stands there more than once.
    #[error("the header `{name}` is given more than once")]
    Repeated {
        /// The header.
        name: &'static str,
    },
    /// It is not UTF-8.
    #[error("the header `{name}` is not utf-8")]
    NotText {
        /// The header.
        name: &'static str,
    },
    /// It does not say what it has to.
    #[error(transparent)]
    Bad(#[from] BadRequest),
}

impl<'h> Fields<'h> {
    fn bytes(self, name: &'static str) -> Result<Option<&'h [u8]>, FieldError> {
        let mut values = self.0.get_all(name).iter();
        match (values.next(), values.next()) {
            (first, None) => Ok(first.map(http::HeaderValue::as_bytes)),
            (_, Some(_)) => Err(FieldError::Repeated { name }),
        }
    }

    fn text(self, name: &'static str) -> Result<Option<&'h str>, FieldError> {
        let decode = |bytes| std::str::from_utf8(bytes).map_err(|_| FieldError::NotText { name });
        self.bytes(name)?.map(decode).transpose()
    }

    pub(crate) fn content_type(self) -> Result<Option<ContentType>, FieldError> {
        Ok(self.text(header::CONTENT_TYPE.as_str())?.map(ContentType::parse).transpose()?)
    }

    pub(crate) fn closes(self) -> Result<bool, FieldError> {
        Ok(self.text(headers::STREAM_CLOSED)?.is_some_and(closed::is_closed_value))
    }

    /// `None` where the request says nothing about it, so that a fork can inherit.
    pub(crate) fn lifetime(self) -> Result<Option<Lifetime>, FieldError> {
        let (ttl, expires_at) = (self.text(headers::STREAM_TTL)?, self.text(headers::STREAM_EXPIRES_AT)?);
        let lifetime = Lifetime::from_headers(ttl, expires_at)?;
        Ok((ttl.is_some() || expires_at.is_some()).then_some(lifetime))
    }

    pub(crate) fn visibility(self) -> Result<Option<Visibility>, FieldError> {
        Ok(self.text(headers::STREAM_VISIBILITY)?.map(Visibility::parse).transpose()?)
    }

    /// The bearer's token (RFC 6750, section 2.1). Credentials of another scheme are somebody else's, and none.
    pub(crate) fn bearer(self) -> Result<Option<&'h str>, FieldError> {
        let Some(credentials) = self.text(header::AUTHORIZATION.as_str())? else { return Ok(None) };
        let (scheme, token) = credentials.split_once(' ').unwrap_or((credentials, ""));
        Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' ')))
    }

    pub(crate) fn producer(self) -> Result<Option<Producer>, FieldError> {
        Ok(Producer::from_headers(
            self.text(headers::PRODUCER_ID)?,
            self.text(headers::PRODUCER_EPOCH)?,
            self.text(headers::PRODUCER_SEQ)?,
        )?)
    }

    pub(crate) fn stream_seq(self) -> Result<Option<StreamSeq>, FieldError> {
        Ok(self.bytes(headers::STREAM_SEQ)?.map(StreamSeq::new).transpose()?)
    }

    pub(crate) fn fork(self) -> Result<Option<ForkRequest>, FieldError> {
        Ok(ForkRequest::from_headers(
            self.text(headers::STREAM_FORKED_FROM)?,
            self.text(headers::STREAM_FORK_OFFSET)?,
            self.text(headers::STREAM_FORK_SUB_OFFSET)?,
        )?)
    }

    /// `If-None-Match` may be spread over several lines, which make one list (RFC 9110, section 5.3).
    pub(crate) fn if_none_match(self) -> Option<String> {
        let lines: Vec<_> =
            self.0.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok()).collect();
        (!lines.is_empty()).then(|| lines.join(","))
    }

    /// Of which origin the page is that asks, if a browser says so.
    pub(crate) fn origin(self) -> Result<Option<&'h str>, FieldError> {
        self.text(header::ORIGIN.as_str())
    }

    /// How far the page that asks is from here, as a browser has it (the Fetch Metadata standard, section 2.4).
    pub(crate) fn fetch_site(self) -> Result<Option<&'h str>, FieldError> {
        self.text(SEC_FETCH_SITE)
    }

    /// Set by scripts and other servers too, so what is wrong with it is no reason to refuse.
    pub(crate) fn last_event_id(self) -> Option<&'h str> {
        self.text(headers::LAST_EVENT_ID).ok().flatten()
    }
}

/// Which stream the raw path of a URL names.
pub(crate) fn stream_path(uri: &Uri, config: &Config) -> Result<StreamPath, BadRequest> {
    let raw = uri.path().strip_prefix(STREAM_ROOT).unwrap_or_default();
    StreamPath::parse(raw, &config.addressing, &config.default_project)
}

/// Which stream `Stream-Forked-From` names.
pub(crate) fn fork_source(path: &str, config: &Config) -> Result<StreamPath, BadRequest> {
    StreamPath::parse_reference(path, &config.addressing, &config.default_project)
}

pub(crate) fn key_of(path: &StreamPath) -> StreamKey {
    StreamKey::new(path.project.as_str(), &path.stream)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn map(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let parse = |(name, value): &(&'static str, &[u8])| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(parse) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn a_header_that_is_repeated_or_no_text_is_refused_by_name() {
        let twice = map(&[("stream-ttl", b"1"), ("stream-ttl", b"1"), ("stream-closed", b"\xff")]);
        assert_eq!(Fields(&twice).lifetime(), Err(FieldError::Repeated { name: "stream-ttl" }));
        assert_eq!(Fields(&twice).closes(), Err(FieldError::NotText { name: "stream-closed" }));
    }

    #[test]
    fn a_lifetime_that_is_not_declared_is_left_open() {
        assert_eq!(Fields(&map(&[])).lifetime(), Ok(None));
        assert_eq!(Fields(&map(&[("stream-ttl", b"0")])).lifetime(), Ok(Some(Lifetime::Ttl { seconds: 0 })));
    }

    #[test]
    fn a_stream_seq_is_bytes_and_an_empty_one_is_one() {
        let seq = |value| Fields(&map(&[("stream-seq", value)])).stream_seq().unwrap().unwrap();
        assert_eq!(seq(b"\xff1").as_bytes(), b"\xff1");
        assert_eq!(seq(b"").as_bytes(), b"");
        assert_eq!(Fields(&map(&[])).stream_seq(), Ok(None));
    }

    #[test]
    fn tags_on_several_lines_are_one_list() {
        let lines = map(&[("if-none-match", b"\"a\""), ("if-none-match", b"W/\"b\"")]);
        assert_eq!(Fields(&lines).if_none_match().as_deref(), Some("\"a\",W/\"b\""));
        assert_eq!(Fields(&map(&[])).if_none_match(), None);
    }

    #[test]
    fn a_token_is_what_stands_behind_bearer() {
        let table: [(&[u8], Option<&str>); 8] = [
            (b"Bearer abc", Some("abc")),
            (b"bearer  abc", Some("abc")),
            (b"BEARER a b", Some("a b")),
            (b"Bearer", Some("")),
            (b"Bearer ", Some("")),
            (b"Bearerabc", None),
            (b"Basic abc", None),
            (b"", None),
        ];
        for (value, token) in table {
            assert_eq!(Fields(&map(&[("authorization", value)])).bearer(), Ok(token), "{value:?}");
        }
        assert_eq!(Fields(&map(&[])).bearer(), Ok(None));
        let twice = map(&[("authorization", b"Bearer a"), ("authorization", b"Bearer a")]);
        assert_eq!(Fields(&twice).bearer(), Err(FieldError::Repeated { name: "authorization" }));
    }

    #[test]
    fn the_raw_path_is_decoded_once() {
        let config = Config::default();
        let key = |path: &str| stream_path(&path.parse().unwrap(), &config).map(|path| key_of(&path));
        assert_eq!(key("/v1/stream/p/a%20b/c?x=1"), Ok(StreamKey::new("p", "a b/c")));
        assert_eq!(key("/v1/stream/a"), Ok(StreamKey::new("default", "a")));
        assert_eq!(key("/v1/stream/p/a%2Fb").unwrap_err().code(), "invalid_stream_name");
        assert_eq!(key("/v1/stream/").unwrap_err().code(), "invalid_stream_name");
        assert_eq!(fork_source("/v1/stream/p/a", &config).map(|path| key_of(&path)), Ok(StreamKey::new("p", "a")));
        assert_eq!(fork_source("/elsewhere", &config).unwrap_err().code(), "invalid_forked_from");
    }
}
