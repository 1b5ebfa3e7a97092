//! How long a stream lives: `Stream-TTL` and `Stream-Expires-At` (protocol, section 5.1).
//!
//! A TTL of 0 and an expiry in the past are valid: they make a stream that has expired when it is next looked at.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::{
    bad_request::{BadRequest, Excerpt},
    headers,
};

/// The longest TTL, in seconds. It is some 31,700 years, and in milliseconds it is still exact in JavaScript, so that
/// no sum of times overflows anywhere.
pub const MAX_TTL_SECONDS: u64 = 1_000_000_000_000;
/// The latest expiry: the last millisecond of the year 9999, which is the last that RFC 3339 can spell.
pub const MAX_EXPIRES_AT_MS: u64 = 253_402_300_799_999;

/// When a stream expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// Never.
    Forever,
    /// When nobody has read or written for this long.
    Ttl {
        /// The window; at most [`MAX_TTL_SECONDS`].
        seconds: u64,
    },
    /// At a point in time, used or not.
    ExpiresAt {
        /// In milliseconds since the Unix epoch; at most [`MAX_EXPIRES_AT_MS`].
        at_ms: u64,
    },
}

impl Lifetime {
    /// Reads the two headers, of which a request may have one.
    ///
    /// # Errors
    /// [`BadRequest::ConflictingLifetime`] for both; [`BadRequest::Ttl`] for anything but `0` or digits without a
    /// leading zero up to [`MAX_TTL_SECONDS`]; [`BadRequest::ExpiresAt`] for anything but an RFC 3339 timestamp.
    pub fn from_headers(ttl: Option<&str>, expires_at: Option<&str>) -> Result<Self, BadRequest> {
        match (ttl, expires_at) {
            (None, None) => Ok(Self::Forever),
            (Some(text), None) => crate::digits::canonical(text)
                .filter(|seconds| *seconds <= MAX_TTL_SECONDS)
                .map(|seconds| Self::Ttl { seconds })
                .ok_or_else(|| BadRequest::Ttl { got: Excerpt::new(text) }),
            (None, Some(text)) => timestamp_ms(text)
                .map(|at_ms| Self::ExpiresAt { at_ms })
                .ok_or_else(|| BadRequest::ExpiresAt { got: Excerpt::new(text) }),
            (Some(_), Some(_)) => Err(BadRequest::ConflictingLifetime),
        }
    }

    /// The header that tells a client (section 5.5): its name and its value. The TTL is the window, not what is left
    /// of it; the expiry is in UTC, whatever zone it was given in.
    #[must_use]
    pub fn to_header(&self) -> Option<(&'static str, String)> {
        match *self {
            Self::Forever => None,
            Self::Ttl { seconds } => Some((headers::STREAM_TTL, seconds.to_string())),
            Self::ExpiresAt { at_ms } => Some((headers::STREAM_EXPIRES_AT, rfc3339(at_ms))),
        }
    }
}

/// A timestamp, as milliseconds since the Unix epoch: fractions of a millisecond are cut off, what is before the epoch
/// is the epoch, and what a zone puts beyond the year 9999 is its end.
fn timestamp_ms(text: &str) -> Option<u64> {
    // The parser takes any separator between date and time; the grammar has only this one.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let ms = at.unix_timestamp_nanos().div_euclid(1_000_000);
    Some(u64::try_from(ms).unwrap_or(0).min(MAX_EXPIRES_AT_MS))
}

fn rfc3339(at_ms: u64) -> String {
    let nanos = i128::from(at_ms.min(MAX_EXPIRES_AT_MS)) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .map(|at| at.to_offset(UtcOffset::UTC))
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .expect("a time between 1970 and 9999 has a spelling")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ttl(text: &str) -> Result<Lifetime, BadRequest> {
        Lifetime::from_headers(Some(text), None)
    }

    fn expires_at(text: &str) -> Result<Lifetime, BadRequest> {
        Lifetime::from_headers(None, Some(text))
    }

    #[test]
    fn a_ttl_is_a_plain_number_of_seconds() {
        for (text, seconds) in [("0", 0), ("1", 1), ("3600", 3600), ("1000000000000", MAX_TTL_SECONDS)] {
            assert_eq!(ttl(text), Ok(Lifetime::Ttl { seconds }));
            let header = Lifetime::Ttl { seconds }.to_header();
            assert_eq!(header, Some((headers::STREAM_TTL, text.to_owned())));
        }
        let table = [
            "",
            "abc",
            "-1",
            "+60",
            "00060",
            "00",
            "60.5",
            "1e3",
            " 60",
            "60 ",
            "1000000000001",
            "99999999999999999999",
        ];
        for text in table {
            assert_eq!(ttl(text), Err(BadRequest::Ttl { got: Excerpt::new(text) }), "{text:?}");
        }
    }

    #[test]
    fn an_expiry_is_a_timestamp_in_any_zone() {
        let table = [
            ("2099-01-01T00:00:00Z", 4_070_908_800_000, "2099-01-01T00:00:00Z"),
            ("2099-01-01t00:00:00z", 4_070_908_800_000, "2099-01-01T00:00:00Z"),
            ("2099-01-01T00:00:00+00:00", 4_070_908_800_000, "2099-01-01T00:00:00Z"),
            ("2099-01-01T01:30:00+01:30", 4_070_908_800_000, "2099-01-01T00:00:00Z"),
            ("2098-12-31T16:00:00-08:00", 4_070_908_800_000, "2099-01-01T00:00:00Z"),
            ("2099-01-01T00:00:00.250Z", 4_070_908_800_250, "2099-01-01T00:00:00.25Z"),
            ("2099-01-01T00:00:00.0009999Z", 4_070_908_800_000, "2099-01-01T00:00:00Z"),
            ("2024-02-29T12:00:00Z", 1_709_208_000_000, "2024-02-29T12:00:00Z"),
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("1960-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999Z", MAX_EXPIRES_AT_MS, "9999-12-31T23:59:59.999Z"),
            ("9999-12-31T23:59:59-01:00", MAX_EXPIRES_AT_MS, "9999-12-31T23:59:59.999Z"),
        ];
        for (text, at_ms, canonical) in table {
            assert_eq!(expires_at(text), Ok(Lifetime::ExpiresAt { at_ms }), "{text}");
            let header = Lifetime::ExpiresAt { at_ms }.to_header();
            assert_eq!(header, Some((headers::STREAM_EXPIRES_AT, canonical.to_owned())));
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        let table = [
            "",
            "soon",
            "2099-01-01",
            "2099-01-01T00:00:00",
            "2099-01-01T00:00Z",
            "2099-01-01 00:00:00Z",
            "2099-01-01\u{e9}00:00:00Z",
            "2099-1-1T00:00:00Z",
            "2099-13-01T00:00:00Z",
            "2099-02-29T00:00:00Z",
            "2099-01-01T24:00:00Z",
            "2099-01-01T00:60:00Z",
            "2099-01-01T00:00:61Z",
            "2099-01-01T00:00:00.Z",
            "2099-01-01T00:00:00+0000",
            "2099-01-01T00:00:00+25:00",
            "2099-01-01T00:00:00+01:60",
            "2099-01-01T00:00:00Z ",
            " 2099-01-01T00:00:00Z",
            "+2099-01-01T00:00:00Z",
            "12099-01-01T00:00:00Z",
            "4070908800",
            "Thu, 01 Jan 2099 00:00:00 GMT",
        ];
        for text in table {
            assert_eq!(expires_at(text), Err(BadRequest::ExpiresAt { got: Excerpt::new(text) }), "{text:?}");
        }
    }

    #[test]
    fn a_stream_has_one_lifetime_or_none() {
        assert_eq!(Lifetime::from_headers(None, None), Ok(Lifetime::Forever));
        assert_eq!(Lifetime::Forever.to_header(), None);
        let both = Lifetime::from_headers(Some("1"), Some("2099-01-01T00:00:00Z"));
        assert_eq!(both, Err(BadRequest::ConflictingLifetime));
        assert_eq!(Lifetime::from_headers(Some("x"), Some("y")), Err(BadRequest::ConflictingLifetime));
    }

    #[test]
    fn a_time_beyond_the_last_is_printed_as_the_last() {
        let header = Lifetime::ExpiresAt { at_ms: u64::MAX }.to_header();
        assert_eq!(header.map(|(_, value)| value).as_deref(), Some("9999-12-31T23:59:59.999Z"));
    }

    proptest! {
        #[test]
        fn reading_a_header_undoes_writing_it(
            lifetime in prop_oneof![
                (0..=MAX_TTL_SECONDS).prop_map(|seconds| Lifetime::Ttl { seconds }),
                (0..=MAX_EXPIRES_AT_MS).prop_map(|at_ms| Lifetime::ExpiresAt { at_ms }),
            ],
        ) {
            let (name, value) = lifetime.to_header().unwrap();
            let header = |wanted: &str| (name == wanted).then_some(value.as_str());
            let read = Lifetime::from_headers(header(headers::STREAM_TTL), header(headers::STREAM_EXPIRES_AT));
            prop_assert_eq!(read, Ok(lifetime));
        }
    }
}
