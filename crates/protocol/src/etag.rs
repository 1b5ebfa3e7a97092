//! Entity tags of reads, and `If-None-Match` (protocol, section 10.1; RFC 9110, sections 8.8.3 and 13.1.2).

use std::fmt;

use crate::offset::{Offset, ReadOffset};

/// A strong entity tag, quotes included.
///
/// It names the incarnation that was read, the range, and whether the stream is closed. Messages never change, so equal
/// tags mean equal bytes; and as the tag changes when the stream is closed, no `304` hides the end of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(String);

impl ETag {
    /// The tag of what was read of the incarnation `birth`, from `start` (`None` is the start of the stream) to `next`.
    /// `closed` is whether the response says that the stream is closed.
    #[must_use]
    pub fn new(birth: u64, start: Option<Offset>, next: Offset, closed: bool) -> Self {
        let start = start.map_or(ReadOffset::Start, ReadOffset::At);
        let mark = if closed { ":c" } else { "" };
        Self(format!("\"{birth}:{start}:{next}{mark}\""))
    }

    /// The tag, as it stands in the `ETag` header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an `If-None-Match` value names `etag`, so that a `GET` is to be answered `304`: `*`, or a list that holds
/// it. Tags are compared weakly, as the header demands: a cache that compressed the response has made the tag a weak
/// one. What is malformed matches nothing, from where it stands.
#[must_use]
pub fn if_none_match_matches(header: &str, etag: &str) -> bool {
    let blank = [' ', '\t'];
    if header.trim_matches(blank) == "*" {
        return true;
    }
    let Some((wanted, "")) = opaque_tag(etag) else { return false };
    let mut rest = header;
    loop {
        // A list may have empty elements (RFC 9110, section 5.6.1).
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((tag, after)) = opaque_tag(rest) else { return false };
        let after = after.trim_start_matches(blank);
        if !after.is_empty() && !after.starts_with(',') {
            return false;
        }
        if tag == wanted {
            return true;
        }
        rest = after;
    }
}

/// The opaque part of the entity tag at the start of `text`, quotes included, and what follows it.
fn opaque_tag(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix("W/").unwrap_or(text);
    let inner = text.strip_prefix('"')?;
    let (opaque, after) = inner.split_once('"')?;
    let allowed = opaque.chars().all(|c| c > ' ' && c != '\u{7f}');
    allowed.then(|| (&text[..opaque.len() + 2], after))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const NEXT: Offset = Offset { birth: 5, seq: 9 };

    #[test]
    fn a_tag_names_incarnation_range_and_closure() {
        let start = Some(Offset { birth: 5, seq: 2 });
        let open = ETag::new(5, start, NEXT, false);
        assert_eq!(open.as_str(), "\"5:0000000000000005_0000000000000002:0000000000000005_0000000000000009\"");
        let closed = ETag::new(5, None, NEXT, true);
        assert_eq!(closed.to_string(), "\"5:-1:0000000000000005_0000000000000009:c\"");
    }

    #[test]
    fn each_part_of_what_was_read_changes_the_tag() {
        let other = Offset { birth: 5, seq: 10 };
        let tags = [
            ETag::new(5, None, NEXT, false),
            ETag::new(5, None, NEXT, true),
            ETag::new(6, None, NEXT, false),
            ETag::new(5, Some(NEXT), NEXT, false),
            ETag::new(5, None, other, false),
            ETag::new(5, Some(other), other, false),
        ];
        assert_eq!(tags.iter().collect::<HashSet<_>>().len(), tags.len());
    }

    #[test]
    fn if_none_match_is_a_list_a_star_or_nothing() {
        let table = [
            ("\"a\"", true),
            ("W/\"a\"", true),
            (" \"a\" ", true),
            ("\"b\", \"a\"", true),
            ("\"b\",W/\"a\"", true),
            ("\"b\" ,\t\"a\" , \"c\"", true),
            (", ,\"a\",", true),
            ("\"x,\", \"a\"", true),
            ("*", true),
            (" * ", true),
            ("", false),
            (",", false),
            ("a", false),
            ("\"A\"", false),
            ("\"b\"", false),
            ("\"ab\"", false),
            ("\"\"", false),
            ("\"a", false),
            ("a\"", false),
            ("w/\"a\"", false),
            ("W\"a\"", false),
            ("W/ \"a\"", false),
            ("\"a\"b", false),
            ("\"b\" \"a\"", false),
            ("\"b c\", \"a\"", false),
            ("b, \"a\"", false),
            ("*, \"b\"", false),
            ("\"x, \"a\"\"", false),
            ("\"*\"", false),
        ];
        for (header, matches) in table {
            assert_eq!(if_none_match_matches(header, "\"a\""), matches, "{header:?}");
            assert_eq!(if_none_match_matches(header, "W/\"a\""), matches, "{header:?} weak");
        }
        assert!(!if_none_match_matches("a", "a"), "a tag without quotes is none");
    }

    proptest! {
        #[test]
        fn a_tag_is_found_in_every_list_that_holds_it(
            before in prop::collection::vec("(W/)?\"[!#-~]{0,8}\"", 0..4),
            after in prop::collection::vec("(W/)?\"[!#-~]{0,8}\"", 0..4),
            separator in "[ \t]{0,2},[ \t,]{0,2}",
            weak in any::<bool>(),
            birth in any::<u64>(),
            closed in any::<bool>(),
        ) {
            let tag = ETag::new(birth, None, NEXT, closed);
            let sent = if weak { format!("W/{tag}") } else { tag.to_string() };
            let others = [before.clone(), after.clone()].concat().join(&separator);
            let list = [before, vec![sent], after].concat().join(&separator);
            prop_assert!(if_none_match_matches(&list, tag.as_str()));
            prop_assert!(!if_none_match_matches(&others, tag.as_str()));
        }

        #[test]
        fn no_header_panics(header in "([\",W/* ]|\\PC){0,12}", etag in "([\",W/* ]|\\PC){0,6}") {
            let matched = if_none_match_matches(&header, &etag);
            prop_assert!(!matched || header.contains('"') || header.contains('*'));
        }
    }
}
