//! The content type of a stream: kept as sent, compared by media type (RFC 9110, section 8.3.1; protocol, section 9).

use std::{fmt, sync::Arc};

use crate::bad_request::{BadRequest, Excerpt};

/// The longest content type, in bytes.
pub const MAX_CONTENT_TYPE: usize = 256;

/// A media type with its parameters, as the stream's creator spelled it. Two are equal when they are spelled alike; see
/// [`same_media_type`](ContentType::same_media_type) for what the protocol compares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContentType(Arc<str>);

/// How the messages of a stream travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// `application/json`: each message is a JSON value; reads give arrays (section 9.1).
    Json,
    /// `text/*`: bytes that are UTF-8 text, sent as such over SSE (section 5.8).
    Text,
    /// Everything else: bytes, as base64 over SSE (section 5.8).
    Binary,
}

impl ContentType {
    /// Parses a `Content-Type` value.
    ///
    /// # Errors
    /// [`BadRequest::ContentType`] when it is not `type/subtype` with optional parameters, all ASCII, of at most
    /// [`MAX_CONTENT_TYPE`] bytes.
    pub fn parse(text: &str) -> Result<Self, BadRequest> {
        if text.len() > MAX_CONTENT_TYPE || !is_media_type(text) {
            return Err(BadRequest::ContentType { got: Excerpt::new(text) });
        }
        Ok(Self(text.into()))
    }

    /// `application/octet-stream`, for a stream whose creator named none (section 5.1).
    #[must_use]
    pub fn default_binary() -> Self {
        Self("application/octet-stream".into())
    }

    /// The value, exactly as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How its messages travel. Only the media type counts, in any case; `application/ndjson` and `+json` types are
    /// binary, because the protocol gives only `application/json` its meaning.
    #[must_use]
    pub fn kind(&self) -> ContentKind {
        let essence = self.essence();
        if essence.eq_ignore_ascii_case("application/json") {
            ContentKind::Json
        } else if essence.split('/').next().is_some_and(|top| top.eq_ignore_ascii_case("text")) {
            ContentKind::Text
        } else {
            ContentKind::Binary
        }
    }

    /// Whether both name the same media type: `type/subtype` in any case, whatever the parameters.
    #[must_use]
    pub fn same_media_type(&self, other: &Self) -> bool {
        self.essence().eq_ignore_ascii_case(other.essence())
    }

    fn essence(&self) -> &str {
        self.0.split(';').next().unwrap_or_default().trim_end_matches(is_blank)
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_media_type(text: &str) -> bool {
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let Some((top, sub)) = essence.trim_end_matches(is_blank).split_once('/') else { return false };
    is_token(top) && is_token(sub) && are_parameters(parameters)
}

/// What stands behind the first `;`. The grammar lets a parameter be missing between two of them.
fn are_parameters(text: &str) -> bool {
    let mut rest = text.trim_start_matches(is_blank);
    while !rest.is_empty() {
        if !rest.starts_with(';') {
            let Some(after) = after_parameter(rest) else { return false };
            rest = after.trim_start_matches(is_blank);
        }
        rest = match rest.strip_prefix(';') {
            Some(next) => next.trim_start_matches(is_blank),
            None if rest.is_empty() => rest,
            None => return false,
        };
    }
    true
}

/// What follows `name=value`; `None` where that does not stand.
fn after_parameter(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    if !is_token(name) {
        return None;
    }
    if let Some(quoted) = value.strip_prefix('"') {
        return after_quoted(quoted);
    }
    let end = value.find(|c| !is_token_char(c)).unwrap_or(value.len());
    (end > 0).then(|| &value[end..])
}

/// What follows the closing quote; `None` without one, or when something cannot stand inside quotes.
fn after_quoted(text: &str) -> Option<&str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let plain = match c {
            '"' => return Some(&text[at + 1..]),
            '\\' => chars.next()?.1,
            _ => c,
        };
        if !is_blank(plain) && !plain.is_ascii_graphic() {
            return None;
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn media_types_are_kept_as_sent_and_known_by_their_essence() {
        let table = [
            ("application/json", ContentKind::Json),
            ("APPLICATION/JSON", ContentKind::Json),
            ("application/json; charset=utf-8", ContentKind::Json),
            ("application/json ;charset=utf-8", ContentKind::Json),
            ("application/json;", ContentKind::Json),
            ("text/plain", ContentKind::Text),
            ("Text/Html;charset=\"utf-8\"", ContentKind::Text),
            ("text/x;a=\"q \\\" ; \t=\";b=c", ContentKind::Text),
            ("text/x; ; a=b ;", ContentKind::Text),
            ("application/octet-stream", ContentKind::Binary),
            ("application/ndjson", ContentKind::Binary),
            ("application/vnd.api+json", ContentKind::Binary),
            ("application/json-seq", ContentKind::Binary),
            ("textual/plain", ContentKind::Binary),
            ("image/png", ContentKind::Binary),
        ];
        for (text, kind) in table {
            let parsed = ContentType::parse(text).unwrap();
            assert_eq!(parsed.as_str(), text);
            assert_eq!(parsed.kind(), kind, "{text}");
        }
        assert_eq!(ContentType::default_binary(), ContentType::parse("application/octet-stream").unwrap());
    }

    #[test]
    fn what_is_no_media_type_is_refused() {
        let long = format!("text/{}", "x".repeat(252));
        let table = [
            "",
            "text",
            "text/",
            "/plain",
            "text/plain/x",
            "text plain",
            " text/plain",
            "text /plain",
            "text/plain x",
            "text/plain;charset",
            "text/plain;charset=",
            "text/plain;=utf-8",
            "text/plain;charset =utf-8",
            "text/plain;charset=utf-8 x",
            "text/plain;a=\"b",
            "text/plain;a=\"b\"c",
            "text/plain;a=\"b\\",
            "text/plain;a=\"\u{e9}\"",
            "text/plain;a=\"\n\"",
            "text/pl\u{e9}in",
            "text/plain\r\nx: y",
            "text/plain, text/html",
            "*/*;q=(",
            &long,
        ];
        for text in table {
            assert_eq!(ContentType::parse(text), Err(BadRequest::ContentType { got: Excerpt::new(text) }), "{text:?}");
        }
        assert!(ContentType::parse(&long[..MAX_CONTENT_TYPE]).is_ok());
    }

    #[test]
    fn parameters_and_case_do_not_make_another_media_type() {
        let table = [
            ("text/plain", "text/plain; charset=utf-8", true),
            ("text/plain", "TEXT/Plain", true),
            ("text/plain;a=b", "text/plain ;a=c", true),
            ("text/plain", "text/html", false),
            ("application/json", "application/json5", false),
        ];
        for (a, b, same) in table {
            let (a, b) = (ContentType::parse(a).unwrap(), ContentType::parse(b).unwrap());
            assert_eq!(a.same_media_type(&b), same, "{a} {b}");
            assert_eq!(b.same_media_type(&a), same, "{b} {a}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_can_stand_in_a_header(text in "[a-z/;= \"\\\\\t\r\n\u{e9}]{0,20}|text/.{0,20}") {
            if let Ok(parsed) = ContentType::parse(&text) {
                prop_assert!(parsed.as_str().bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b)));
                prop_assert!(parsed.same_media_type(&parsed));
            }
        }
    }
}
