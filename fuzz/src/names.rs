//! Names of streams as requests and tokens spell them, and the query of a read.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tailwater_auth::{
    Pattern, Streams,
    ticket::{PARAMETER, in_query},
};
use tailwater_protocol::{
    Addressing, BadRequest, Offset, ProjectId, ReadMode, ReadOffset, ReadQuery, StreamPath,
    bad_request::MAX_EXCERPT,
    path::{MAX_STREAM_NAME, RESERVED_SEGMENT, STREAM_ROOT},
};
use tailwater_server::edges::profile_seconds;

use crate::input::lines;

/// What an error says around what it repeats is shorter than this.
const MAX_SENTENCE: usize = 160;

/// That what is said of a malformed request can stand in a log and on a terminal.
pub(crate) fn is_safe_to_say(error: &BadRequest) {
    let said = error.to_string();
    assert!(said.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{said:?}");
    assert!(said.len() <= MAX_SENTENCE + MAX_EXCERPT + 3, "{said:?}");
    assert!(error.code().bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()));
}

pub(crate) fn path(data: &[u8]) {
    let Ok(raw) = str::from_utf8(data) else { return };
    let default = ProjectId::default();
    let single = Addressing::Single(default.clone());
    let in_projects = StreamPath::parse(raw, &Addressing::Projects, &default);
    let in_one = StreamPath::parse(raw, &single, &default);

    let reference = StreamPath::parse_reference(&format!("{STREAM_ROOT}{raw}"), &Addressing::Projects, &default);
    assert_eq!(reference.as_ref().ok(), in_projects.as_ref().ok());
    if let (Ok(one), Ok(other)) = (&in_projects, &in_one) {
        let whole = format!("{}/{}", one.project.as_str(), one.stream);
        assert!(other.stream == one.stream || other.stream == whole, "{other:?} {one:?}");
    }
    for (parsed, addressing) in [(in_projects, &Addressing::Projects), (in_one, &single)] {
        match parsed {
            Ok(path) => has_one_meaning(&path, addressing),
            Err(error) => is_safe_to_say(&error),
        }
    }
}

fn has_one_meaning(path: &StreamPath, addressing: &Addressing) {
    let StreamPath { project, stream } = path;
    assert!((1..=MAX_STREAM_NAME).contains(&stream.len()));
    assert!(!stream.contains(char::is_control));
    assert!(!stream.split('/').any(|segment| matches!(segment, "" | "." | "..")), "{stream:?}");
    assert_ne!(stream.split('/').next(), Some(RESERVED_SEGMENT));
    assert_eq!(ProjectId::parse(project.as_str()).as_ref(), Ok(project));

    let name = spelled(stream);
    let raw = match addressing {
        Addressing::Projects => format!("{}/{name}", project.as_str()),
        Addressing::Single(_) => name.clone(),
    };
    assert_eq!(StreamPath::parse(&raw, addressing, &ProjectId::default()).as_ref(), Ok(path));
    assert!(format!("{STREAM_ROOT}{raw}").parse::<http::Uri>().is_ok());
    for pattern in [Pattern::exactly(stream), Pattern::parse(&name).expect("a name without a star is a pattern")] {
        assert!(pattern.matches(stream));
    }
}

/// The decoded name of a stream, as a path spells it.
fn spelled(stream: &str) -> String {
    let segments: Vec<_> =
        stream.split('/').map(|segment| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string()).collect();
    segments.join("/")
}

pub(crate) fn query(data: &[u8]) {
    let [raw, last_event_id] = lines(data);
    match ReadQuery::parse(raw.as_deref(), last_event_id.as_deref()) {
        Ok(query) => means_the_same_spelled_plainly(query),
        Err(error) => is_safe_to_say(&error),
    }
    let raw = raw.as_deref().unwrap_or_default();
    let named = |pair: &&str| percent_decode_str(pair.split('=').next().unwrap_or_default()).eq(PARAMETER.bytes());
    let given: Vec<&str> = raw.split('&').filter(named).collect();
    match (in_query(raw), given.as_slice()) {
        (Ok(None), []) | (Err(_), [_, _, ..]) => {}
        (Ok(Some(ticket)), [pair]) => {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            assert_eq!(ticket, percent_decode_str(value).decode_utf8_lossy());
        }
        (found, given) => panic!("{found:?} in {given:?}"),
    }
    how_long_a_profile_takes(raw);
}

/// That it takes a time within bounds, which is said once at most.
fn how_long_a_profile_takes(raw: &str) {
    let seconds = profile_seconds(Some(raw));
    let said = raw.split('&').filter(|pair| pair.starts_with("seconds=")).count();
    match seconds {
        None => assert!(said > 0, "{raw:?}"),
        Some(seconds) => {
            assert!(said <= 1 && (1..=60).contains(&seconds), "{seconds} of {raw:?}");
            let plain = format!("seconds={seconds}");
            assert_eq!(profile_seconds(Some(&plain)), Some(seconds));
            let twice = format!("{plain}&{raw}&{plain}");
            assert_eq!(profile_seconds(Some(&twice)), None);
        }
    }
    assert!(said > 0 || seconds == profile_seconds(None));
}

fn means_the_same_spelled_plainly(query: ReadQuery) {
    let ReadQuery { offset, mode, cursor, resumed } = query;
    assert!(mode == ReadMode::CatchUp || offset.is_some());
    assert!(!resumed || (mode == ReadMode::Sse && matches!(offset, Some(ReadOffset::At(_)))));
    let mut pairs = Vec::new();
    pairs.extend(offset.map(|offset| format!("offset={offset}")));
    pairs.extend(match mode {
        ReadMode::CatchUp => None,
        ReadMode::LongPoll => Some("live=long-poll".to_owned()),
        ReadMode::Sse => Some("live=sse".to_owned()),
    });
    pairs.extend(cursor.map(|cursor| format!("cursor={cursor}")));
    let again = ReadQuery::parse(Some(&pairs.join("&")), None);
    assert_eq!(again, Ok(ReadQuery { resumed: false, ..query }));
}

pub(crate) fn offset(data: &[u8]) {
    let [one, other] = lines::<2>(data).map(|line| line.unwrap_or_default());
    for text in [&one, &other] {
        match ReadOffset::parse(text) {
            Ok(offset) => assert_eq!(&offset.to_string(), text),
            Err(error) => is_safe_to_say(&error),
        }
        assert_eq!(Offset::parse(text).ok().map(ReadOffset::At), ReadOffset::parse(text).ok().filter(is_position));
    }
    if let (Ok(first), Ok(second)) = (Offset::parse(&one), Offset::parse(&other)) {
        assert_eq!(one.cmp(&other), first.cmp(&second));
    }
}

fn is_position(offset: &ReadOffset) -> bool {
    matches!(offset, ReadOffset::At(_))
}

pub(crate) fn pattern(data: &[u8]) {
    let [text, name] = lines::<2>(data).map(|line| line.unwrap_or_default());
    let single = Addressing::Single(ProjectId::default());
    let Ok(StreamPath { stream, .. }) = StreamPath::parse(&name, &single, &ProjectId::default()) else { return };
    let read = Pattern::parse(&text);
    assert_eq!(read, Pattern::parse(&text));
    let Ok(pattern) = read else { return };
    assert_eq!(pattern.matches(&stream), reaches(&text, &stream), "{text:?} {stream:?}");
    let streams = Streams::only([&*text].into_iter()).expect("one pattern is not too many");
    assert_eq!(streams.contain(&stream), pattern.matches(&stream));
    if !text.contains('*') {
        assert_eq!(pattern.matches(&stream), pattern == Pattern::exactly(&stream));
    }
}

/// The same as a pattern matches, by another way: of segments that may be left over at the end.
fn reaches(pattern: &str, stream: &str) -> bool {
    let mut names = stream.split('/').peekable();
    for segment in pattern.split('/') {
        if segment == "**" {
            return names.peek().is_some();
        }
        let Some(name) = names.next() else { return false };
        let (literal, is_start) = segment.strip_suffix('*').map_or((segment, false), |start| (start, true));
        let literal: Vec<u8> = percent_decode_str(literal).collect();
        let fits = if is_start { name.as_bytes().starts_with(&literal) } else { name.as_bytes() == literal };
        if !fits {
            return false;
        }
    }
    names.next().is_none()
}
