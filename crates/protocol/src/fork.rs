//! The headers that make a new stream a fork (protocol, section 4.2).

use crate::{
    bad_request::{BadRequest, Excerpt},
    offset::{Offset, ReadOffset},
};

/// What a fork is asked to be. Where the source ends, and so whether the position exists, is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkRequest {
    /// The path of the source, as sent; see [`StreamPath::parse_reference`](crate::StreamPath::parse_reference).
    pub source: String,
    /// Where the fork leaves the source; at the source's tail when not given.
    pub offset: Option<ForkOffset>,
    /// How far past that position, in the source's units: messages of a JSON stream, bytes of any other.
    pub sub_offset: u64,
}

/// Where a fork leaves its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForkOffset {
    /// Before its first message.
    Start,
    /// At a position.
    At(Offset),
}

impl ForkRequest {
    /// Reads the three headers; `None` when the stream is to be no fork.
    ///
    /// # Errors
    /// [`BadRequest::MissingForkedFrom`] for a position without a source, even one of 0; [`BadRequest::ForkOffset`]
    /// and [`BadRequest::ForkSubOffset`] for malformed ones. An empty `Stream-Forked-From` is
    /// [`BadRequest::ForkedFrom`].
    pub fn from_headers(
        from: Option<&str>,
        offset: Option<&str>,
        sub: Option<&str>,
    ) -> Result<Option<Self>, BadRequest> {
        let Some(source) = from else {
            let alone = offset.is_none() && sub.is_none();
            return if alone { Ok(None) } else { Err(BadRequest::MissingForkedFrom) };
        };
        if source.is_empty() {
            return Err(BadRequest::ForkedFrom { got: Excerpt::new(source) });
        }
        let offset = offset.map(ForkOffset::parse).transpose()?;
        let sub_offset = match sub {
            None => 0,
            Some(text) => {
                crate::digits::canonical(text).ok_or_else(|| BadRequest::ForkSubOffset { got: Excerpt::new(text) })?
            }
        };
        Ok(Some(Self { source: source.to_owned(), offset, sub_offset }))
    }
}

impl ForkOffset {
    /// Parses `Stream-Fork-Offset`: an offset, or the start, which is spelled `-1` as in reads or with all zeros as
    /// other implementations do. `now` is refused: a position that moves would make a repeated request mean another
    /// fork, and leaving the header out says the same.
    ///
    /// # Errors
    /// [`BadRequest::ForkOffset`] for anything else.
    pub fn parse(text: &str) -> Result<Self, BadRequest> {
        match ReadOffset::parse(text) {
            Ok(ReadOffset::Start | ReadOffset::At(Offset { birth: 0, seq: 0 })) => Ok(Self::Start),
            Ok(ReadOffset::At(offset)) => Ok(Self::At(offset)),
            Ok(ReadOffset::Now) | Err(_) => Err(BadRequest::ForkOffset { got: Excerpt::new(text) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "0000000000000000_0000000000000000";
    const NINES: &str = "9999999999999999_9999999999999999";
    const SOURCE: &str = "/v1/stream/a";

    #[test]
    fn a_fork_has_a_source_and_perhaps_a_position() {
        let at = |birth, seq| Some(ForkOffset::At(Offset { birth, seq }));
        let nines = 9_999_999_999_999_999;
        let table = [
            (None, None, None, 0),
            (Some("-1"), None, Some(ForkOffset::Start), 0),
            (Some(ZERO), Some("0"), Some(ForkOffset::Start), 0),
            (Some("0000000000000000_0000000000000001"), None, at(0, 1), 0),
            (Some("0000000000000001_0000000000000000"), Some("12"), at(1, 0), 12),
            (Some(NINES), None, at(nines, nines), 0),
            (None, Some("18446744073709551615"), None, u64::MAX),
        ];
        for (offset, sub, parsed, sub_offset) in table {
            let request = ForkRequest { source: SOURCE.to_owned(), offset: parsed, sub_offset };
            assert_eq!(ForkRequest::from_headers(Some(SOURCE), offset, sub), Ok(Some(request)), "{offset:?} {sub:?}");
        }
        assert_eq!(ForkRequest::from_headers(None, None, None), Ok(None));
    }

    #[test]
    fn a_position_needs_a_source_even_when_it_is_nothing() {
        for (offset, sub) in [(Some(ZERO), None), (None, Some("0")), (Some("-1"), Some("0")), (None, Some("x"))] {
            let parsed = ForkRequest::from_headers(None, offset, sub);
            assert_eq!(parsed, Err(BadRequest::MissingForkedFrom), "{offset:?} {sub:?}");
        }
        let empty = ForkRequest::from_headers(Some(""), None, None);
        assert_eq!(empty, Err(BadRequest::ForkedFrom { got: Excerpt::new("") }));
    }

    #[test]
    fn malformed_positions_are_refused_by_name() {
        for text in ["", "now", "0", "-2", "abc", "0_0", "1,2", "0000000000000000_000000000000000x"] {
            let parsed = ForkRequest::from_headers(Some(SOURCE), Some(text), None);
            assert_eq!(parsed, Err(BadRequest::ForkOffset { got: Excerpt::new(text) }), "{text:?}");
        }
        for text in ["", "-1", "abc", "1.5", "05", "00", "+1", " 1", "1e2", "18446744073709551616"] {
            let parsed = ForkRequest::from_headers(Some(SOURCE), None, Some(text));
            assert_eq!(parsed, Err(BadRequest::ForkSubOffset { got: Excerpt::new(text) }), "{text:?}");
        }
    }
}
