//! Offsets: the tokens that name a position in a stream (protocol, section 8).
//!
//! On the wire an offset is `<16 digits: birth>_<16 digits: sequence number>`. The fixed width makes it sort as text in
//! the order of positions, as the protocol demands, and the birth names the incarnation of the stream, so that an
//! offset from before a deletion is recognised instead of read from the wrong log.

use std::{fmt, str::FromStr};

use crate::bad_request::{BadRequest, Excerpt};

/// The largest birth and the largest sequence number that the wire can carry: sixteen nines. In milliseconds that is
/// the year 318857; at a million records a second it is 317 years of them.
pub const MAX_COMPONENT: u64 = 9_999_999_999_999_999;

const DIGITS: usize = 16;
const WIRE_LENGTH: usize = 2 * DIGITS + 1;

/// A position: before the record with this sequence number. It orders by birth, then by number, and its text orders in
/// the same way.
///
/// Neither part may exceed [`MAX_COMPONENT`]. What does has no spelling of its own: it is printed as the largest that
/// has one, so that text never grows and never sorts wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// When the incarnation that holds the position was opened, in milliseconds since the Unix epoch by the store's
    /// clock; 0 for a native stream.
    pub birth: u64,
    /// The store's sequence number.
    pub seq: u64,
}

/// Where a read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadOffset {
    /// `-1`: the first message.
    Start,
    /// `now`: the tail, so that only later messages are read.
    Now,
    /// A position that the server gave out.
    At(Offset),
}

impl Offset {
    /// Parses the wire form, and nothing else: the sentinels are no offsets.
    ///
    /// # Errors
    /// [`BadRequest::Offset`] for anything but 16 digits, `_` and 16 digits.
    pub fn parse(text: &str) -> Result<Self, BadRequest> {
        Self::read(text).ok_or_else(|| BadRequest::Offset { got: Excerpt::new(text) })
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.len() != WIRE_LENGTH {
            return None;
        }
        let (birth, seq) = text.split_once('_')?;
        if birth.len() != DIGITS {
            return None;
        }
        Some(Self { birth: crate::digits::lenient(birth)?, seq: crate::digits::lenient(seq)? })
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}_{:016}", self.birth.min(MAX_COMPONENT), self.seq.min(MAX_COMPONENT))
    }
}

impl FromStr for Offset {
    type Err = BadRequest;

    fn from_str(text: &str) -> Result<Self, BadRequest> {
        Self::parse(text)
    }
}

impl ReadOffset {
    /// Parses `-1`, `now`, or an offset.
    ///
    /// # Errors
    /// [`BadRequest::Offset`] for anything else.
    pub fn parse(text: &str) -> Result<Self, BadRequest> {
        match text {
            "-1" => Ok(Self::Start),
            "now" => Ok(Self::Now),
            _ => Offset::parse(text).map(Self::At),
        }
    }
}

impl fmt::Display for ReadOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("-1"),
            Self::Now => f.write_str("now"),
            Self::At(offset) => offset.fmt(f),
        }
    }
}

impl FromStr for ReadOffset {
    type Err = BadRequest;

    fn from_str(text: &str) -> Result<Self, BadRequest> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offsets() -> impl Strategy<Value = Offset> {
        (0..=MAX_COMPONENT, 0..=MAX_COMPONENT).prop_map(|(birth, seq)| Offset { birth, seq })
    }

    #[test]
    fn an_offset_has_one_spelling() {
        let table = [
            ("0000000000000000_0000000000000000", Offset { birth: 0, seq: 0 }),
            ("0001728432000000_0000000000000042", Offset { birth: 1_728_432_000_000, seq: 42 }),
            ("9999999999999999_9999999999999999", Offset { birth: MAX_COMPONENT, seq: MAX_COMPONENT }),
        ];
        for (text, offset) in table {
            assert_eq!(Offset::parse(text), Ok(offset));
            assert_eq!(ReadOffset::parse(text), Ok(ReadOffset::At(offset)));
            assert_eq!(offset.to_string(), text);
        }
    }

    #[test]
    fn the_sentinels_are_where_to_read_from_but_no_offsets() {
        assert_eq!(ReadOffset::parse("-1"), Ok(ReadOffset::Start));
        assert_eq!(ReadOffset::parse("now"), Ok(ReadOffset::Now));
        assert!(Offset::parse("-1").is_err());
        assert!(Offset::parse("now").is_err());
        assert_eq!(ReadOffset::Start.to_string(), "-1");
        assert_eq!(ReadOffset::Now.to_string(), "now");
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let table = [
            "",
            "0",
            "-2",
            "NOW",
            "now ",
            " -1",
            "0000000000000000",
            "0000000000000000_000000000000000",
            "0000000000000000_00000000000000000",
            "000000000000000_00000000000000000",
            "00000000000000000_000000000000000",
            "0000000000000000-0000000000000000",
            "000000000000000a_0000000000000000",
            "+000000000000000_0000000000000000",
            "0000000000000000_-000000000000000",
            "0000000000000000_000000000000000\n",
            "0000000000000000_0000000000000000\0",
            "0000000000000000_00000000\u{0661}000000",
            "_00000000000000000000000000000000",
            "0,1",
            "a/b",
            "..",
            "9999999999999999_9999999999999999_",
        ];
        for text in table {
            let got = Excerpt::new(text);
            assert_eq!(Offset::parse(text), Err(BadRequest::Offset { got: got.clone() }), "{text:?}");
            assert_eq!(ReadOffset::parse(text), Err(BadRequest::Offset { got }), "{text:?}");
        }
    }

    #[test]
    fn what_the_wire_cannot_carry_still_has_its_width() {
        let offset = Offset { birth: u64::MAX, seq: MAX_COMPONENT + 1 };
        assert_eq!(offset.to_string(), "9999999999999999_9999999999999999");
    }

    proptest! {
        #[test]
        fn parsing_undoes_printing(offset in offsets()) {
            prop_assert_eq!(Offset::parse(&offset.to_string()), Ok(offset));
            prop_assert_eq!(offset.to_string().parse(), Ok(ReadOffset::At(offset)));
        }

        #[test]
        fn offsets_sort_as_text(a in offsets(), b in offsets(), near in 0..3_u64) {
            let c = Offset { seq: (a.seq + near).min(MAX_COMPONENT), ..a };
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.cmp(&c), a.to_string().cmp(&c.to_string()));
        }

        #[test]
        fn no_text_is_parsed_into_another_offset(text in "[0-9_+-]{0,34}|.{0,40}") {
            if let Ok(offset) = Offset::parse(&text) {
                prop_assert_eq!(offset.to_string(), text);
            }
        }
    }
}
