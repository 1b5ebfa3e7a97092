//! Which streams of its project a token is for.
//!
//! A pattern is spelled like the path of a stream: segments between raw slashes, each percent-decoded once. It is matched
//! against the decoded segments of a name, so a token means the same streams however a request spells them.
//!
//! | pattern | streams |
//! |---|---|
//! | `chat/general` | this one |
//! | `chat/user-*` | one segment below `chat` that starts with `user-` |
//! | `chat/*` | one segment below `chat` |
//! | `chat/**` | everything below `chat`, at any depth; not `chat` itself |
//! | `**` | every stream |
//! | `a%2A` | the stream `a*` |
//!
//! A star anywhere else is refused: a restriction that is not understood must not become none.

use tailwater_protocol::path::decode_segment;

/// The most patterns of a token.
pub const MAX_PATTERNS: usize = 64;

/// A set of streams, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// Whether anything may follow; at least one segment does.
    open: bool,
}

/// What one segment may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    /// This.
    Exactly(String),
    /// What starts with this; anything, if it is empty.
    StartsWith(String),
}

/// The streams of a project that a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Streams {
    /// All of them: the token says nothing about it.
    #[default]
    All,
    /// Those that one of these names; none, if there are no patterns.
    Only(Vec<Pattern>),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A segment could not be one of a stream's name.
    #[error("a segment of the pattern is none of a stream's name")]
    Segment,
    /// A star stands elsewhere than at the end of a segment, or two elsewhere than at the end of the pattern.
    #[error("a star stands where it has no meaning")]
    Star,
    /// There are more than [`MAX_PATTERNS`].
    #[error("there are too many patterns")]
    TooMany,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`PatternError::Segment`] and [`PatternError::Star`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (fixed, open) = match text.strip_suffix("**") {
            Some("") => return Ok(Self { segments: Vec::new(), open: true }),
            Some(fixed) => (fixed.strip_suffix('/').ok_or(PatternError::Star)?, true),
            None => (text, false),
        };
        let segments = fixed.split('/').map(Segment::parse).collect::<Result<_, _>>()?;
        Ok(Self { segments, open })
    }

    /// Whether it names this stream, given by its decoded segments with slashes between them.
    #[must_use]
    pub fn matches(&self, stream: &str) -> bool {
        let mut names = stream.split('/');
        let fixed = self.segments.iter().all(|segment| names.next().is_some_and(|name| segment.matches(name)));
        fixed && names.next().is_some() == self.open
    }
}

impl Segment {
    fn parse(raw: &str) -> Result<Self, PatternError> {
        let (literal, open) = match raw.strip_suffix('*') {
            Some(start) => (start, true),
            None => (raw, false),
        };
        if literal.contains('*') {
            return Err(PatternError::Star);
        }
        if !open {
            return decode_segment(literal).map(Self::Exactly).map_err(|_| PatternError::Segment);
        }
        // What a name may start with is not what it may be, such as a dot: it is judged by a name that it would match.
        let mut example = decode_segment(&format!("{literal}-")).map_err(|_| PatternError::Segment)?;
        example.pop();
        Ok(Self::StartsWith(example))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exactly(exactly) => name == exactly,
            Self::StartsWith(start) => name.starts_with(start.as_str()),
        }
    }
}

impl Streams {
    /// Parses a token's patterns.
    ///
    /// # Errors
    /// [`PatternError`] of the first one that is none, or when there are too many.
    pub fn only<'p>(patterns: impl ExactSizeIterator<Item = &'p str>) -> Result<Self, PatternError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(PatternError::TooMany);
        }
        patterns.map(Pattern::parse).collect::<Result<_, _>>().map(Self::Only)
    }

    /// Whether this stream is among them.
    #[must_use]
    pub fn contain(&self, stream: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(stream)),
        }
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, stream: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(stream)
    }

    #[test]
    fn a_pattern_names_what_its_form_says() {
        let table: [(&str, &[&str], &[&str]); 12] = [
            ("a", &["a"], &["", "b", "a/b", "A", "aa"]),
            ("a/b", &["a/b"], &["a", "b", "a/b/c", "ab"]),
            ("*", &["a", "*", "**"], &["a/b"]),
            ("**", &["a", "a/b", "a/b/c", "..."], &[]),
            ("a/*", &["a/b", "a/*"], &["a", "a/b/c", "b/b"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "ab", "b/a", "ab/c"]),
            ("*/b", &["a/b", "b/b"], &["b", "a/b/c", "a/c"]),
            ("a-*", &["a-", "a-b"], &["a", "a-b/c", "xa-b"]),
            ("a/b-*/**", &["a/b-/c", "a/b-1/c/d"], &["a/b-1", "a/b/c"]),
            ("a%2A", &["a*"], &["a", "ab", "a%2A"]),
            ("%61b", &["ab"], &["%61b"]),
            (".*", &[".a", "..."], &["a"]),
        ];
        for (pattern, named, others) in table {
            for stream in named {
                assert!(matches(pattern, stream), "{pattern} {stream}");
            }
            for stream in others {
                assert!(!matches(pattern, stream), "{pattern} {stream}");
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        use PatternError::{Segment, Star};
        let table = [
            ("", Segment),
            ("/", Segment),
            ("/a", Segment),
            ("a/", Segment),
            ("a//b", Segment),
            ("/**", Segment),
            ("a//**", Segment),
            (".", Segment),
            ("..", Segment),
            ("a/../b", Segment),
            ("a/%2e%2e/**", Segment),
            ("a%2Fb", Segment),
            ("a%2F*", Segment),
            ("a%", Segment),
            ("a%4*", Segment),
            ("%C3*", Segment),
            ("a\n", Segment),
            ("a?b", Segment),
            ("a*b", Star),
            ("*a", Star),
            ("a**", Star),
            ("***", Star),
            ("**/a", Star),
            ("a/**/b", Star),
            ("a/***", Star),
        ];
        for (pattern, error) in table {
            assert_eq!(Pattern::parse(pattern), Err(error), "{pattern:?}");
        }
    }

    #[test]
    fn one_pattern_that_is_none_spoils_them_all() {
        let only = |patterns: &[&str]| Streams::only(patterns.iter().copied());
        assert_eq!(only(&["a", "b*c"]), Err(PatternError::Star));
        assert_eq!(only(&["a"; MAX_PATTERNS + 1]), Err(PatternError::TooMany));
        let none = only(&[]).unwrap();
        let some = only(&["a", "b/*"]).unwrap();
        for (stream, in_some) in [("a", true), ("b/c", true), ("b", false), ("c", false)] {
            assert!(Streams::All.contain(stream) && !none.contain(stream));
            assert_eq!(some.contain(stream), in_some, "{stream}");
        }
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        let segment = prop_oneof!["[a-c*.%-]{1,3}", "[^/\\pC]{1,6}"];
        prop::collection::vec(segment, 1..4)
            .prop_filter("no name", |segments| segments.iter().all(|segment| segment != "." && segment != ".."))
    }

    fn spelled(segments: &[String]) -> String {
        let encode = |segment: &String| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string();
        segments.iter().map(encode).collect::<Vec<_>>().join("/")
    }

    proptest! {
        #[test]
        fn a_name_spelled_out_matches_itself_alone(name in names(), other in names()) {
            let pattern = Pattern::parse(&spelled(&name)).unwrap();
            prop_assert!(pattern.matches(&name.join("/")));
            prop_assert_eq!(pattern.matches(&other.join("/")), name == other);
        }

        #[test]
        fn everything_below_a_name_is_what_starts_with_its_segments(name in names(), other in names()) {
            let pattern = Pattern::parse(&format!("{}/**", spelled(&name))).unwrap();
            let below = other.len() > name.len() && other.starts_with(&name);
            prop_assert_eq!(pattern.matches(&other.join("/")), below);
        }

        #[test]
        fn a_star_stays_within_its_segment(name in names(), other in names()) {
            let pattern = Pattern::parse(&format!("{}*", spelled(&name))).unwrap();
            let (last, before) = name.split_last().unwrap();
            let expected = other.len() == name.len()
                && other.starts_with(before)
                && other.last().is_some_and(|segment| segment.starts_with(last.as_str()));
            prop_assert_eq!(pattern.matches(&other.join("/")), expected);
        }

        #[test]
        fn a_further_pattern_never_takes_a_stream_away(one in names(), more in names(), stream in names()) {
            let (one, more, stream) = (spelled(&one), spelled(&more), stream.join("/"));
            let few = Streams::only([one.as_str()].into_iter()).unwrap();
            let many = Streams::only([one.as_str(), more.as_str()].into_iter()).unwrap();
            prop_assert!(!few.contain(&stream) || many.contain(&stream));
        }

        #[test]
        fn no_text_panics_and_what_parses_matches_only_names(text in "([*/.%a2Ff]|\\PC){0,8}", stream in "([*/.a]){0,6}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let matched = pattern.matches(&stream);
                prop_assert!(!matched || stream.split('/').count() >= pattern.segments.len());
            }
        }
    }
}
