//! What is wrong with a request, by field: every `400` that the request alone decides, whatever the stream holds.
//!
//! A [`code`](BadRequest::code) is part of the public interface and never changes; the sentence may. A sentence shows
//! what the client sent only as an [`Excerpt`]: escaped and cut, so that an error is safe in a log and in a terminal.

use std::fmt;

/// The longest excerpt, in characters, the dots of a cut one not counted.
pub const MAX_EXCERPT: usize = 64;
/// The longest run of what tokens and tickets are made of that an excerpt shows. An offset has 33 characters.
pub const MAX_RUN: usize = 40;

/// A malformed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// `offset` is neither a sentinel nor an offset of this server's form (section 8).
    #[error("the offset `{got}` is not one that this server gave out, nor `-1` or `now`")]
    Offset {
        /// What was sent.
        got: Excerpt,
    },
    /// `offset` was given more than once.
    #[error("the query has more than one offset")]
    DuplicateOffset,
    /// A live read without `offset` (sections 5.7, 5.8).
    #[error("a live read needs an offset; `-1` is the start and `now` the tail")]
    MissingOffset,
    /// `live` names no mode of reading (sections 5.7, 5.8).
    #[error("`live={got}` is not known; it is `long-poll` or `sse`")]
    Live {
        /// What was sent.
        got: Excerpt,
    },
    /// `live` was given more than once.
    #[error("the query has more than one live mode")]
    DuplicateLive,
    /// `Content-Type` is not a media type (RFC 9110, section 8.3.1).
    #[error("the content type `{got}` is not a media type of at most {} bytes", crate::content_type::MAX_CONTENT_TYPE)]
    ContentType {
        /// What was sent.
        got: Excerpt,
    },
    /// An append with a body has no `Content-Type` (section 5.2).
    #[error("an append needs the content type of its stream")]
    MissingContentType,
    /// An append has neither a body nor `Stream-Closed: true` (section 5.2).
    #[error("an append needs a body, unless it closes the stream")]
    EmptyBody,
    /// `Stream-TTL` is not a count of seconds (section 5.1).
    #[error(
        "the ttl `{got}` is not a whole number of seconds from 0 to {}, without sign or leading zeros",
        crate::lifetime::MAX_TTL_SECONDS
    )]
    Ttl {
        /// What was sent.
        got: Excerpt,
    },
    /// `Stream-Expires-At` is not a point in time (RFC 3339, section 5.6).
    #[error("the expiry `{got}` is not an rfc 3339 timestamp such as `2030-01-31T12:00:00Z`")]
    ExpiresAt {
        /// What was sent.
        got: Excerpt,
    },
    /// `Stream-TTL` beside `Stream-Expires-At` (section 5.1).
    #[error("a stream has a ttl or an expiry, not both")]
    ConflictingLifetime,
    /// `Stream-Visibility` is no word that is known.
    #[error("the visibility `{got}` is not `public` or `private`")]
    Visibility {
        /// What was sent.
        got: Excerpt,
    },
    /// `Producer-Id` is empty or too long (section 5.2.1).
    #[error("a producer id has 1 to {} bytes, not {length}", crate::producer::MAX_PRODUCER_ID)]
    ProducerId {
        /// The length of what was sent, in bytes.
        length: usize,
    },
    /// `Producer-Epoch` is not an integer that JavaScript can hold (section 5.2.1).
    #[error("the producer epoch `{got}` is not a whole number from 0 to {}", crate::producer::MAX_PRODUCER_INTEGER)]
    ProducerEpoch {
        /// What was sent.
        got: Excerpt,
    },
    /// `Producer-Seq` is not an integer that JavaScript can hold (section 5.2.1).
    #[error("the producer seq `{got}` is not a whole number from 0 to {}", crate::producer::MAX_PRODUCER_INTEGER)]
    ProducerSeq {
        /// What was sent.
        got: Excerpt,
    },
    /// Some producer headers without the others (section 5.2.1).
    #[error("producer-id, producer-epoch and producer-seq come together or not at all")]
    IncompleteProducer,
    /// `Stream-Seq` is too long (section 5.2).
    #[error("a stream-seq has at most {} bytes, not {length}", crate::producer::MAX_STREAM_SEQ)]
    StreamSeq {
        /// The length of what was sent, in bytes.
        length: usize,
    },
    /// `Stream-Forked-From` is not the path of a stream here (section 4.2).
    #[error("`{got}` is not the path of a stream on this server, such as `{}name`", crate::path::STREAM_ROOT)]
    ForkedFrom {
        /// What was sent.
        got: Excerpt,
    },
    /// A position to fork at, without a stream to fork (section 4.2).
    #[error("a fork offset needs stream-forked-from")]
    MissingForkedFrom,
    /// `Stream-Fork-Offset` is malformed (section 4.2).
    #[error("the fork offset `{got}` is not one that this server gave out")]
    ForkOffset {
        /// What was sent.
        got: Excerpt,
    },
    /// `Stream-Fork-Sub-Offset` is malformed (section 4.2).
    #[error("the fork sub-offset `{got}` is not a whole number without sign or leading zeros")]
    ForkSubOffset {
        /// What was sent.
        got: Excerpt,
    },
    /// The body of a JSON stream is not UTF-8 (RFC 8259, section 8.1).
    #[error("the body is not utf-8 at byte {at}")]
    JsonEncoding {
        /// The index of the first byte that does not fit.
        at: usize,
    },
    /// The body of a JSON stream is not JSON (section 9.1.4).
    #[error("the body is not json at line {line}, column {column}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, in bytes, from 1; 0 where a line ends too early.
        column: usize,
    },
    /// An append of `[]` (section 9.1.3).
    #[error("an empty array appends nothing")]
    EmptyArray,
    /// The URL's path is not the name of a stream.
    #[error("the path does not name a stream: {fault}")]
    StreamName {
        /// What is wrong with it.
        fault: NameFault,
    },
    /// The first segment of the path is not a project's id.
    #[error("`{got}` is not a project id: 1 to 64 of `A-Z a-z 0-9 - _`, not starting with `_`, not a reserved word")]
    Project {
        /// What was sent.
        got: Excerpt,
    },
    /// The path is below `__ds`, which is the protocol's own (section 6.1).
    #[error("names that start with the segment `{}` are reserved", crate::path::RESERVED_SEGMENT)]
    ReservedName,
}

/// What is wrong with a stream's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Two slashes meet, or the path is empty, or it ends in a slash.
    #[error("it has an empty segment")]
    EmptySegment,
    /// `.` or `..`, which clients and proxies resolve, each in its own way.
    #[error("it has a segment `.` or `..`")]
    DotSegment,
    /// A `%` without two hexadecimal digits behind it.
    #[error("it has a broken percent escape")]
    Escape,
    /// The decoded bytes are not text.
    #[error("a segment is not utf-8 when decoded")]
    NotUtf8,
    /// A decoded slash, a control character, or a raw `?` or `#`.
    #[error("a segment holds an encoded slash, a control character, `?` or `#`")]
    Character,
    /// The decoded name is too long.
    #[error("it is longer than {} bytes", crate::path::MAX_STREAM_NAME)]
    TooLong,
}

/// A short look at what a client sent: printable ASCII, at most [`MAX_EXCERPT`] characters and three dots where it was
/// cut. It is cut before what could be a token or a ticket in a wrong place: errors are shown to more people than URLs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    /// Escapes and cuts `raw`. An escape is never cut in two.
    #[must_use]
    pub fn new(raw: &str) -> Self {
        let harmless = without_long_runs(raw);
        let mut shown = String::new();
        let mut is_cut = harmless.len() < raw.len();
        for c in harmless.chars() {
            let escaped = c.escape_default();
            if shown.len() + escaped.len() > MAX_EXCERPT {
                is_cut = true;
                break;
            }
            shown.extend(escaped);
        }
        if is_cut {
            shown.push_str("...");
        }
        Self(shown.into_boxed_str())
    }

    /// The excerpt.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands before the first run that is longer than [`MAX_RUN`].
fn without_long_runs(raw: &str) -> &str {
    let is_of_run = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let mut start = 0;
    for run in raw.as_bytes().split(|byte| !is_of_run(*byte)) {
        if run.len() > MAX_RUN {
            return &raw[..start];
        }
        start += run.len() + 1;
    }
    raw
}

impl BadRequest {
    /// The stable name of the fault, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Offset { .. } => "invalid_offset",
            Self::DuplicateOffset => "duplicate_offset",
            Self::MissingOffset => "missing_offset",
            Self::Live { .. } => "invalid_live",
            Self::DuplicateLive => "duplicate_live",
            Self::ContentType { .. } => "invalid_content_type",
            Self::MissingContentType => "missing_content_type",
            Self::EmptyBody => "empty_body",
            Self::Ttl { .. } => "invalid_ttl",
            Self::ExpiresAt { .. } => "invalid_expires_at",
            Self::ConflictingLifetime => "conflicting_lifetime",
            Self::Visibility { .. } => "invalid_visibility",
            Self::ProducerId { .. } => "invalid_producer_id",
            Self::ProducerEpoch { .. } => "invalid_producer_epoch",
            Self::ProducerSeq { .. } => "invalid_producer_seq",
            Self::IncompleteProducer => "incomplete_producer",
            Self::StreamSeq { .. } => "invalid_stream_seq",
            Self::ForkedFrom { .. } => "invalid_forked_from",
            Self::MissingForkedFrom => "missing_forked_from",
            Self::ForkOffset { .. } => "invalid_fork_offset",
            Self::ForkSubOffset { .. } => "invalid_fork_sub_offset",
            Self::JsonEncoding { .. } | Self::Json { .. } => "invalid_json",
            Self::EmptyArray => "empty_array",
            Self::StreamName { .. } => "invalid_stream_name",
            Self::Project { .. } => "invalid_project",
            Self::ReservedName => "reserved_name",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn one_of_each() -> Vec<BadRequest> {
        let got = Excerpt::new("x\r\n");
        vec![
            BadRequest::Offset { got: got.clone() },
            BadRequest::DuplicateOffset,
            BadRequest::MissingOffset,
            BadRequest::Live { got: got.clone() },
            BadRequest::DuplicateLive,
            BadRequest::ContentType { got: got.clone() },
            BadRequest::MissingContentType,
            BadRequest::EmptyBody,
            BadRequest::Ttl { got: got.clone() },
            BadRequest::ExpiresAt { got: got.clone() },
            BadRequest::ConflictingLifetime,
            BadRequest::Visibility { got: got.clone() },
            BadRequest::ProducerId { length: 0 },
            BadRequest::ProducerEpoch { got: got.clone() },
            BadRequest::ProducerSeq { got: got.clone() },
            BadRequest::IncompleteProducer,
            BadRequest::StreamSeq { length: 257 },
            BadRequest::ForkedFrom { got: got.clone() },
            BadRequest::MissingForkedFrom,
            BadRequest::ForkOffset { got: got.clone() },
            BadRequest::ForkSubOffset { got: got.clone() },
            BadRequest::Json { line: 1, column: 1 },
            BadRequest::EmptyArray,
            BadRequest::StreamName { fault: NameFault::EmptySegment },
            BadRequest::Project { got },
            BadRequest::ReservedName,
        ]
    }

    #[test]
    fn every_fault_has_a_code_of_its_own_in_snake_case() {
        let faults = one_of_each();
        let codes: HashSet<_> = faults.iter().map(BadRequest::code).collect();
        assert_eq!(codes.len(), faults.len());
        assert!(codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{codes:?}");
        assert_eq!(BadRequest::JsonEncoding { at: 3 }.code(), "invalid_json");
    }

    #[test]
    fn every_fault_is_one_short_printable_sentence() {
        for fault in one_of_each() {
            let text = fault.to_string();
            assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)), "{text}");
            assert!(!text.ends_with('.') && text.len() < 200, "{text}");
        }
    }

    #[test]
    fn an_excerpt_is_escaped_and_cut() {
        let table = [
            ("", String::new()),
            ("abc", "abc".to_owned()),
            ("a\r\nb\0", "a\\r\\nb\\u{0}".to_owned()),
            ("\u{e9}", "\\u{e9}".to_owned()),
            (&"a ".repeat(32), "a ".repeat(32)),
            (&format!("{}a", "a ".repeat(32)), format!("{}...", "a ".repeat(32))),
            (&format!("{} \n", "a ".repeat(31)), format!("{} ...", "a ".repeat(31))),
            (&"a".repeat(40), "a".repeat(40)),
            (&"a".repeat(41), "...".to_owned()),
            (&format!("sse&ticket={}", "A-_9".repeat(11)), "sse&ticket=...".to_owned()),
            (&format!("\u{e9}{}\u{e9}", "a.b".repeat(14)), "\\u{e9}...".to_owned()),
        ];
        for (raw, shown) in table {
            assert_eq!(Excerpt::new(raw).as_str(), shown);
        }
    }

    proptest! {
        #[test]
        fn no_excerpt_is_long_or_unprintable(raw in ".{0,200}") {
            let shown = Excerpt::new(&raw);
            prop_assert!(shown.as_str().len() <= MAX_EXCERPT + 3);
            prop_assert!(shown.as_str().bytes().all(|b| (0x20..0x7f).contains(&b)));
        }

        #[test]
        fn no_excerpt_shows_a_ticket(before in "\\PC{0,12}", ticket in "[A-Za-z0-9_-]{60,100}", after in "\\PC{0,12}") {
            let shown = Excerpt::new(&format!("{before}{ticket}{after}"));
            prop_assert!(!(0..ticket.len() - 12).any(|at| shown.as_str().contains(&ticket[at..at + 12])));
        }
    }
}
