//! The query of a read: `offset`, `live` and `cursor` (protocol, sections 5.6 to 5.8).
//!
//! Decoded as HTML forms are (`+` is a space). Parameters that the protocol does not know are ignored, for extensions.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::{
    bad_request::{BadRequest, Excerpt},
    cursor,
    offset::{Offset, ReadOffset},
};

/// What a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadQuery {
    /// Where to start; `None`, in a catch-up read only, is the start of the stream.
    pub offset: Option<ReadOffset>,
    /// How to read.
    pub mode: ReadMode,
    /// The cursor of the client's last response. One that is no number counts as none.
    pub cursor: Option<u64>,
    /// Whether `offset` is from `Last-Event-ID`: an `EventSource` goes on where it was cut off.
    pub resumed: bool,
}

/// How to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// What is there (section 5.6).
    CatchUp,
    /// What is there, or else what comes next (section 5.7).
    LongPoll,
    /// What is there and what comes, as Server-Sent Events (section 5.8).
    Sse,
}

/// The parameters that count, decoded.
#[derive(Default)]
struct Parameters<'q> {
    offset: Option<Cow<'q, str>>,
    live: Option<Cow<'q, str>>,
    cursor: Option<u64>,
}

impl ReadQuery {
    /// Parses the raw query of a URL, and the `Last-Event-ID` header.
    ///
    /// An `EventSource` repeats its first URL whenever it reconnects, so in SSE an event id that is an offset of this
    /// server overrides the one in the URL. In other modes, and when it is anything else, it is ignored: other servers
    /// and scripts may have set it.
    ///
    /// # Errors
    /// [`BadRequest::Offset`], [`BadRequest::DuplicateOffset`], [`BadRequest::Live`], [`BadRequest::DuplicateLive`],
    /// and [`BadRequest::MissingOffset`] for a live read without an offset.
    pub fn parse(raw_query: Option<&str>, last_event_id: Option<&str>) -> Result<Self, BadRequest> {
        let parameters = Parameters::collect(raw_query.unwrap_or_default())?;
        let mode = match parameters.live.as_deref() {
            None => ReadMode::CatchUp,
            Some("long-poll") => ReadMode::LongPoll,
            Some("sse") => ReadMode::Sse,
            Some(other) => return Err(BadRequest::Live { got: Excerpt::new(other) }),
        };
        let offset = parameters.offset.as_deref().map(ReadOffset::parse).transpose()?;
        if offset.is_none() && mode != ReadMode::CatchUp {
            return Err(BadRequest::MissingOffset);
        }
        let resume = match mode {
            ReadMode::Sse => last_event_id.and_then(Offset::read).map(ReadOffset::At),
            ReadMode::CatchUp | ReadMode::LongPoll => None,
        };
        Ok(Self { offset: resume.or(offset), mode, cursor: parameters.cursor, resumed: resume.is_some() })
    }
}

impl<'q> Parameters<'q> {
    fn collect(raw: &'q str) -> Result<Self, BadRequest> {
        let mut found = Self::default();
        for pair in raw.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match decode(name).as_ref() {
                "offset" if found.offset.is_some() => return Err(BadRequest::DuplicateOffset),
                "offset" => found.offset = Some(decode(value)),
                "live" if found.live.is_some() => return Err(BadRequest::DuplicateLive),
                "live" => found.live = Some(decode(value)),
                // Of several cursors the highest counts: the answer must exceed whichever the client holds.
                "cursor" => found.cursor = found.cursor.max(cursor::parse(&decode(value))),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Decodes a name or a value. What is not UTF-8 becomes a replacement character, which no valid value contains.
fn decode(raw: &str) -> Cow<'_, str> {
    if raw.contains('+') {
        let spaced = raw.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(raw).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "0000000000000001_0000000000000002";
    const AT: ReadOffset = ReadOffset::At(Offset { birth: 1, seq: 2 });

    fn parse(raw: &str) -> Result<ReadQuery, BadRequest> {
        ReadQuery::parse(Some(raw), None)
    }

    #[test]
    fn a_query_says_where_and_how_to_read() {
        let start = Some(ReadOffset::Start);
        let now = Some(ReadOffset::Now);
        let table = [
            ("".to_owned(), None, ReadMode::CatchUp, None),
            ("offset=-1".to_owned(), start, ReadMode::CatchUp, None),
            ("offset=now".to_owned(), now, ReadMode::CatchUp, None),
            (format!("offset={TOKEN}"), Some(AT), ReadMode::CatchUp, None),
            (format!("offset={}", TOKEN.replace('_', "%5F")), Some(AT), ReadMode::CatchUp, None),
            ("off%73et=%2D1".to_owned(), start, ReadMode::CatchUp, None),
            ("offset=-1&live=long-poll".to_owned(), start, ReadMode::LongPoll, None),
            ("live=sse&offset=now&cursor=17".to_owned(), now, ReadMode::Sse, Some(17)),
            ("cursor=17&live=long-poll&offset=now".to_owned(), now, ReadMode::LongPoll, Some(17)),
            ("cursor=abc&offset=-1".to_owned(), start, ReadMode::CatchUp, None),
            ("cursor=&cursor=3&cursor=x&cursor=2".to_owned(), None, ReadMode::CatchUp, Some(3)),
            ("cursor=99999999999999999999".to_owned(), None, ReadMode::CatchUp, None),
            ("Offset=x&LIVE=x&foo&=&a=b&%FF=%zz&&".to_owned(), None, ReadMode::CatchUp, None),
        ];
        for (raw, offset, mode, cursor) in table {
            assert_eq!(parse(&raw), Ok(ReadQuery { offset, mode, cursor, resumed: false }), "{raw}");
        }
        assert_eq!(ReadQuery::parse(None, None), parse(""));
    }

    #[test]
    fn malformed_offsets_are_refused() {
        let table = [
            ("offset=", ""),
            ("offset", ""),
            ("offset=0", "0"),
            ("offset=+-1", " -1"),
            ("offset=-1%20", "-1 "),
            ("offset=a,b", "a,b"),
            ("offset=a%2Fb", "a/b"),
            ("offset=a=b", "a=b"),
            ("offset=..", ".."),
            ("offset=%00", "\0"),
            ("offset=-1%0D%0A", "-1\r\n"),
            ("offset=%FF", "\u{fffd}"),
            ("offset=%zz", "%zz"),
            ("offset=x&live=sse", "x"),
        ];
        for (raw, got) in table {
            assert_eq!(parse(raw), Err(BadRequest::Offset { got: Excerpt::new(got) }), "{raw}");
        }
    }

    #[test]
    fn a_parameter_that_counts_is_given_once() {
        for raw in ["offset=-1&offset=-1", "offset=&offset=-1", "offset=-1&x=y&%6Fffset=now"] {
            assert_eq!(parse(raw), Err(BadRequest::DuplicateOffset), "{raw}");
        }
        assert_eq!(parse("offset=-1&live=sse&live=sse"), Err(BadRequest::DuplicateLive));
    }

    #[test]
    fn there_are_two_live_modes_and_both_need_an_offset() {
        for (raw, got) in [("live=bogus", "bogus"), ("live=", ""), ("live", ""), ("live=SSE&offset=-1", "SSE")] {
            assert_eq!(parse(raw), Err(BadRequest::Live { got: Excerpt::new(got) }), "{raw}");
        }
        for raw in ["live=sse", "live=long-poll", "live=long-poll&cursor=1"] {
            assert_eq!(parse(raw), Err(BadRequest::MissingOffset), "{raw}");
            assert_eq!(ReadQuery::parse(Some(raw), Some(TOKEN)), Err(BadRequest::MissingOffset), "{raw}");
        }
    }

    #[test]
    fn an_event_source_goes_on_where_it_was_cut_off() {
        let table = [
            ("offset=-1&live=sse", Some(TOKEN), Some(AT), true),
            ("offset=now&live=sse", Some(TOKEN), Some(AT), true),
            ("offset=-1&live=sse", Some(""), Some(ReadOffset::Start), false),
            ("offset=-1&live=sse", Some("-1"), Some(ReadOffset::Start), false),
            ("offset=-1&live=sse", Some("now"), Some(ReadOffset::Start), false),
            ("offset=-1&live=sse", Some("other"), Some(ReadOffset::Start), false),
            ("offset=-1&live=sse", None, Some(ReadOffset::Start), false),
            ("offset=-1&live=long-poll", Some(TOKEN), Some(ReadOffset::Start), false),
            ("offset=-1", Some(TOKEN), Some(ReadOffset::Start), false),
            ("", Some(TOKEN), None, false),
        ];
        for (raw, id, offset, resumed) in table {
            let parsed = ReadQuery::parse(Some(raw), id).unwrap();
            assert_eq!((parsed.offset, parsed.resumed), (offset, resumed), "{raw} {id:?}");
        }
        assert!(ReadQuery::parse(Some("offset=x&live=sse"), Some(TOKEN)).is_err());
    }

    proptest! {
        #[test]
        fn unknown_parameters_change_nothing(name in "[a-z]{1,8}", value in "[a-z%+=]{0,8}") {
            prop_assume!(!["offset", "live", "cursor"].contains(&name.as_str()));
            let query = format!("offset=now&live=sse&cursor=4&{name}={value}");
            prop_assert_eq!(parse(&query), parse("offset=now&live=sse&cursor=4"));
        }

        #[test]
        fn whatever_is_accepted_is_consistent(
            raw in "(offset|live|sse|cursor|-1|now|&|=|%|\\PC){0,12}", id in ".{0,40}",
        ) {
            let parsed = ReadQuery::parse(Some(&raw), Some(&id));
            if let Ok(query) = parsed {
                prop_assert!(query.mode == ReadMode::CatchUp || query.offset.is_some());
                prop_assert!(!query.resumed || query.mode == ReadMode::Sse);
            } else {
                prop_assert!(raw.contains("offset") || raw.contains("live") || raw.contains('%'));
            }
        }
    }
}
