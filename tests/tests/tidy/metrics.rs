//! The list of metrics in the documentation is the list of metrics in the sources.

use std::collections::BTreeSet;

use crate::{Member, SourceFile};

/// Where the list stands.
const LIST: &str = "docs/metrics.md";
/// What every metric's name begins with.
const PREFIX: &str = "tailwater_";

/// Metrics that stand in one of the two places only.
pub(crate) fn unlisted(members: &[Member], files: &[SourceFile]) -> Vec<String> {
    let registered: BTreeSet<&str> = members.iter().flat_map(|member| quoted(&member.code, '"')).collect();
    let list = files.iter().find(|file| file.path == LIST).map_or("", |file| file.text.as_str());
    let listed: BTreeSet<&str> = quoted(list, '`').collect();
    let missing = registered.difference(&listed).map(|name| format!("{name} is not in {LIST}"));
    let stale = listed.difference(&registered).map(|name| format!("{name} is in {LIST} only"));
    missing.chain(stale).collect()
}

/// The names of metrics between quotes in a text; names of crates, which stand without quotes, are not meant.
fn quoted(text: &str, quote: char) -> impl Iterator<Item = &str> {
    let is_name = |part: &&str| {
        part.starts_with(PREFIX)
            && part.len() > PREFIX.len()
            && part.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    text.split(quote).filter(is_name)
}

#[test]
fn a_metric_in_one_place_only_is_a_breach() {
    let member = |code: &str| [Member { code: code.to_owned(), ..Member::default() }];
    let list = |text: &str| [SourceFile { path: LIST.to_owned(), text: text.to_owned() }];
    let code = "use tailwater_log::X; counter(\"tailwater_a_total\", \"help\")";
    assert!(unlisted(&member(code), &list("| `tailwater_a_total` | counter |")).is_empty());
    assert_eq!(unlisted(&member(code), &list("| none |")), ["tailwater_a_total is not in docs/metrics.md"]);
    assert_eq!(unlisted(&member(""), &list("`tailwater_b`")), ["tailwater_b is in docs/metrics.md only"]);
}
