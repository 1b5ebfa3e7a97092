//! Where a project's streams live in S2: the name of the basin, and the name of the stream in it.
//!
//! S2's rules: a basin is 8 to 48 of `a-z 0-9 -` and starts and ends with a letter or digit; a stream is 1 to 512 bytes
//! of UTF-8 without NUL, and neither `.` nor `..`. Project ids are `[A-Za-z0-9_-]{1,64}`, so most fit and some do not.
//! Pure: no I/O, and equal inputs give equal names on every pod and for ever.

use std::collections::{BTreeMap, BTreeSet};

use s2_sdk::types::{BasinName, StreamName, ValidationError};
use tailwater_upstream::StreamKey;

/// The shortest basin prefix: with it, the shortest project id still makes a name of [`MIN_BASIN`] bytes.
const MIN_PREFIX: usize = 6;
/// The longest basin prefix: with it, a hashed project id still fits [`MAX_BASIN`] bytes.
const MAX_PREFIX: usize = 16;
/// S2's longest basin name, in bytes.
const MAX_BASIN: usize = 48;
/// S2's shortest basin name, in bytes.
const MIN_BASIN: usize = 8;
/// The longest project id, in bytes.
const MAX_PROJECT: usize = 64;
/// Digits of a hashed project id: 140 bits of BLAKE3, so that 2^70 ids would have to be tried for two that meet.
const HASH_DIGITS: usize = 28;
/// Stands between a prefix and an escaped id. A plain id starts with a letter or digit, so it never looks like this.
const ESCAPED: &str = "--e";
/// Stands between a prefix and a hashed id.
const HASHED: &str = "--h";
/// RFC 4648 base32, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

const _: () = assert!(MIN_PREFIX + 1 + 1 == MIN_BASIN);
const _: () = assert!(MAX_PREFIX + HASHED.len() + HASH_DIGITS < MAX_BASIN);

/// How projects are placed in S2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Each project has a basin of its own; streams keep their names.
    BasinPerProject(BasinPrefix),
    /// All projects share one basin; streams carry the project's id before their names.
    Shared(SharedBasin),
    /// Some projects have a basin that was named for them; streams keep their names there.
    Named(Box<NamedBasins>),
}

/// Basins that were named for projects, and where all others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedBasins {
    named: BTreeMap<String, BasinName>,
    others: Placement,
}

/// What the basins of a deployment start with. Basin names are global on managed S2, so each deployment needs its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasinPrefix(String);

/// A basin that all projects share, and what the names of its streams start with (`{prefix}{project}/{stream}`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedBasin {
    basin: BasinName,
    prefix: String,
}

/// Where a stream lives in S2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) basin: BasinName,
    pub(crate) stream: StreamName,
}

/// Why a name cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NamingError {
    /// The basin prefix breaks a rule.
    #[error("a basin prefix is 6 to 16 of a-z, 0-9 and -, from a letter or digit to a letter or digit, not {prefix:?}")]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// The name of the shared basin breaks S2's rule.
    #[error("{basin:?} is no name of an s2 basin")]
    Basin {
        /// The name.
        basin: String,
        /// S2's rule.
        #[source]
        rule: ValidationError,
    },
    /// A basin that was named for a project could hold the streams of another one as well.
    #[error("basin {basin:?} cannot be project {project:?}'s alone: other projects have it, or could have")]
    Taken {
        /// The project.
        project: String,
        /// The basin.
        basin: String,
    },
    /// The project's id is not `[A-Za-z0-9_-]{1,64}`.
    #[error("{project:?} is no project id")]
    Project {
        /// The id.
        project: String,
    },
    /// The stream's name, with what stands before it, breaks S2's rule.
    #[error("{stream:?} is no name of an s2 stream")]
    Stream {
        /// The name as S2 would get it.
        stream: String,
        /// S2's rule.
        #[source]
        rule: ValidationError,
    },
}

impl Placement {
    /// A basin for each project, named `{prefix}-{project}` where the id allows it.
    ///
    /// # Errors
    /// [`NamingError::Prefix`] unless the prefix is 6 to 16 of `a-z 0-9 -` and starts and ends with a letter or digit.
    pub fn basin_per_project(prefix: &str) -> Result<Self, NamingError> {
        let fits = (MIN_PREFIX..=MAX_PREFIX).contains(&prefix.len()) && is_plain(prefix);
        if !fits {
            return Err(NamingError::Prefix { prefix: prefix.to_owned() });
        }
        Ok(Self::BasinPerProject(BasinPrefix(prefix.to_owned())))
    }

    /// One basin for all projects, with streams named `{prefix}{project}/{stream}`.
    ///
    /// # Errors
    /// [`NamingError::Basin`] when `basin` is no basin name.
    pub fn shared(basin: &str, prefix: &str) -> Result<Self, NamingError> {
        let name = basin.parse().map_err(|rule| NamingError::Basin { basin: basin.to_owned(), rule })?;
        Ok(Self::Shared(SharedBasin { basin: name, prefix: prefix.to_owned() }))
    }

    /// These basins for these projects, and for all others what was decided before.
    ///
    /// # Errors
    /// [`NamingError::Project`], [`NamingError::Basin`], and [`NamingError::Taken`] for a basin that is another's, or that
    /// this placement could give to another.
    pub fn with_basins<'n>(self, named: impl IntoIterator<Item = (&'n str, &'n str)>) -> Result<Self, NamingError> {
        let (mut basins, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for (project, basin) in named {
            check_project(project)?;
            let name: BasinName = basin.parse().map_err(|rule| NamingError::Basin { basin: basin.to_owned(), rule })?;
            if self.could_give(basin) || !taken.insert(basin) {
                return Err(NamingError::Taken { project: project.to_owned(), basin: basin.to_owned() });
            }
            basins.insert(project.to_owned(), name);
        }
        if basins.is_empty() {
            return Ok(self);
        }
        Ok(Self::Named(Box::new(NamedBasins { named: basins, others: self })))
    }

    /// Whether this placement gives a basin to some project, or might.
    fn could_give(&self, basin: &str) -> bool {
        match self {
            // Whatever stands behind the prefix: what is hashed cannot be told from what is not.
            Self::BasinPerProject(prefix) => basin.strip_prefix(&prefix.0).is_some_and(|rest| rest.starts_with('-')),
            Self::Shared(shared) => shared.basin.as_ref() == basin,
            Self::Named(named) => {
                named.named.values().any(|other| other.as_ref() == basin) || named.others.could_give(basin)
            }
        }
    }

    /// The name of the basin that holds a project's streams. Two projects have the same one only where all share it.
    /// An id too long for a readable name is hashed, to 140 bits.
    ///
    /// # Errors
    /// [`NamingError::Project`] when `project` is no project id.
    pub fn basin(&self, project: &str) -> Result<String, NamingError> {
        self.basin_name(project).map(|name| name.to_string())
    }

    /// The name that a stream of a project has in its basin. Two streams have the same one only in different basins.
    ///
    /// # Errors
    /// [`NamingError::Project`] when `project` is no project id.
    pub fn stream(&self, project: &str, stream: &str) -> Result<String, NamingError> {
        check_project(project)?;
        Ok(match self {
            Self::BasinPerProject(_) => stream.to_owned(),
            Self::Shared(shared) => format!("{}{project}/{stream}", shared.prefix),
            Self::Named(named) if named.named.contains_key(project) => stream.to_owned(),
            Self::Named(named) => return named.others.stream(project, stream),
        })
    }

    /// The inverse of [`Placement::stream`]: the stream of `project` that S2 calls `name`, where it is one.
    #[must_use]
    pub fn stream_of<'a>(&self, project: &str, name: &'a str) -> Option<&'a str> {
        match self {
            Self::BasinPerProject(_) => Some(name),
            Self::Shared(shared) => name.strip_prefix(&shared.prefix)?.strip_prefix(project)?.strip_prefix('/'),
            Self::Named(named) if named.named.contains_key(project) => Some(name),
            Self::Named(named) => named.others.stream_of(project, name),
        }
    }

    /// The inverse of [`Placement::basin`]: the project whose basin this is. `None` for a basin that is not ours, that
    /// all projects share, or whose project's id was hashed.
    #[must_use]
    pub fn project_of(&self, basin: &str) -> Option<String> {
        let prefix = match self {
            Self::BasinPerProject(prefix) => prefix,
            Self::Shared(_) => return None,
            Self::Named(named) => {
                let own = named.named.iter().find(|(_, own)| own.as_ref() == basin);
                return own.map(|(project, _)| project.clone()).or_else(|| named.others.project_of(basin));
            }
        };
        let rest = basin.strip_prefix(&prefix.0)?;
        if let Some(escaped) = rest.strip_prefix(ESCAPED) {
            return unescape(escaped);
        }
        rest.strip_prefix('-').filter(|id| is_plain(id)).map(str::to_owned)
    }

    /// Both names of a stream, as S2 takes them.
    pub(crate) fn locate(&self, key: &StreamKey) -> Result<Place, NamingError> {
        let basin = self.basin_name(&key.project)?;
        let name = self.stream(&key.project, &key.stream)?;
        let stream = name.parse().map_err(|rule| NamingError::Stream { stream: name, rule })?;
        Ok(Place { basin, stream })
    }

    pub(crate) fn basin_name(&self, project: &str) -> Result<BasinName, NamingError> {
        check_project(project)?;
        match self {
            Self::BasinPerProject(prefix) => {
                Ok(prefix.name(project).parse().expect("what the prefix makes of a project id is a basin name"))
            }
            Self::Shared(shared) => Ok(shared.basin.clone()),
            Self::Named(named) => match named.named.get(project) {
                Some(basin) => Ok(basin.clone()),
                None => named.others.basin_name(project),
            },
        }
    }
}

impl BasinPrefix {
    fn name(&self, project: &str) -> String {
        let prefix = &self.0;
        let plain = format!("{prefix}-{project}");
        if is_plain(project) && plain.len() <= MAX_BASIN {
            return plain;
        }
        let escaped = format!("{prefix}{ESCAPED}{}", escape(project));
        if escaped.len() <= MAX_BASIN {
            return escaped;
        }
        format!("{prefix}{HASHED}{}", hash(project))
    }
}

/// Whether this is `a-z 0-9 -`, from a letter or digit to a letter or digit.
fn is_plain(text: &str) -> bool {
    let end = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    end(bytes.first())
        && end(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn check_project(project: &str) -> Result<(), NamingError> {
    let fits = (1..=MAX_PROJECT).contains(&project.len())
        && project.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits { Ok(()) } else { Err(NamingError::Project { project: project.to_owned() }) }
}

/// A hyphen starts a pair: with a letter the capital, with `0` an underscore, with `1` a hyphen. So the text is taken
/// apart in one way only, and ends with a letter or digit.
fn escape(project: &str) -> String {
    let mut out = String::with_capacity(2 * project.len());
    for c in project.chars() {
        match c {
            'A'..='Z' => out.extend(['-', c.to_ascii_lowercase()]),
            '_' => out.push_str("-0"),
            '-' => out.push_str("-1"),
            other => out.push(other),
        }
    }
    out
}

fn unescape(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        match c {
            '-' => match chars.next()? {
                letter @ 'a'..='z' => out.push(letter.to_ascii_uppercase()),
                '0' => out.push('_'),
                '1' => out.push('-'),
                _ => return None,
            },
            'a'..='z' | '0'..='9' => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}

/// The first [`HASH_DIGITS`] base32 digits of the id's BLAKE3.
fn hash(project: &str) -> String {
    let digest = blake3::hash(project.as_bytes());
    let mut digits = String::with_capacity(HASH_DIGITS);
    let mut pending: u32 = 0;
    let mut bits = 0;
    for byte in digest.as_bytes() {
        pending = (pending << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            digits.push(char::from(BASE32[(pending >> bits) as usize & 31]));
        }
        pending &= (1 << bits) - 1;
    }
    digits.truncate(HASH_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn per_project() -> Placement {
        Placement::basin_per_project("tailwater").unwrap()
    }

    #[test]
    fn short_ids_stay_readable() {
        let placement = per_project();
        let name = |project: &str| placement.basin(project).unwrap();
        assert_eq!(name("default"), "tailwater-default");
        assert_eq!(name("a"), "tailwater-a");
        assert_eq!(name("My_shop"), "tailwater--e-my-0shop");
        assert_eq!(name("-x-"), "tailwater--e-1x-1");
        assert_eq!(name(&"a".repeat(38)), format!("tailwater-{}", "a".repeat(38)));
    }

    #[test]
    fn an_id_too_long_is_hashed_to_a_name_that_never_changes() {
        let name = per_project().basin(&"a".repeat(39)).unwrap();
        assert_eq!(name, "tailwater--hxn5z7ehnpgt4qoqbnohinpzpgxch");
        assert_eq!(per_project().project_of(&name), None);
    }

    #[test]
    fn a_prefix_outside_the_rule_is_refused() {
        for prefix in ["", "short", "-leading", "trailing-", "Capital", "seventeen-letters", "under_score"] {
            assert!(matches!(Placement::basin_per_project(prefix), Err(NamingError::Prefix { .. })), "{prefix:?}");
        }
        assert!(Placement::basin_per_project("sixsix").is_ok());
        assert!(Placement::basin_per_project("sixteen--letters").is_ok());
    }

    #[test]
    fn what_is_no_project_id_is_refused() {
        for project in ["", "a/b", "a.b", "ü", &"a".repeat(65)] {
            assert!(matches!(per_project().basin(project), Err(NamingError::Project { .. })), "{project:?}");
        }
    }

    #[test]
    fn a_stream_name_that_s2_does_not_take_is_refused() {
        for stream in ["", ".", "..", "nul\0", &"x".repeat(513)] {
            let located = per_project().locate(&StreamKey::new("p", stream));
            assert!(matches!(located, Err(NamingError::Stream { .. })), "{stream:?}");
        }
        assert!(per_project().locate(&StreamKey::new("p", &"x".repeat(512))).is_ok());
    }

    #[test]
    fn a_shared_basin_needs_a_basin_name() {
        assert!(matches!(Placement::shared("Short", ""), Err(NamingError::Basin { .. })));
        let shared = Placement::shared("everything", "tw/").unwrap();
        assert_eq!(shared.basin("Any").unwrap(), "everything");
        assert_eq!(shared.stream("Any", "a/b").unwrap(), "tw/Any/a/b");
        assert_eq!(shared.project_of("everything"), None);
    }

    #[test]
    fn a_project_has_the_basin_that_was_named_for_it_and_others_have_what_they_had() {
        let named = [("acme", "acme-events"), ("Old_shop", "tailwaters")];
        let table = [
            (per_project(), "tailwater-other", "a/b"),
            (Placement::shared("everything", "tw/").unwrap(), "everything", "tw/other/a/b"),
        ];
        for (before, basin, stream) in table {
            let placement = before.clone().with_basins(named).unwrap();
            assert_eq!(placement.basin("acme").unwrap(), "acme-events");
            assert_eq!(placement.stream("acme", "a/b").unwrap(), "a/b");
            assert_eq!(placement.stream_of("acme", "a/b"), Some("a/b"));
            assert_eq!(placement.project_of("tailwaters").as_deref(), Some("Old_shop"));
            assert_eq!(
                (placement.basin("other").unwrap().as_str(), placement.stream("other", "a/b").unwrap().as_str()),
                (basin, stream)
            );
            assert_eq!(placement.stream_of("other", stream), Some("a/b"));
            assert_eq!(placement.project_of(basin), before.project_of(basin));
            assert_eq!(before.clone().with_basins([]).unwrap(), before);
        }
    }

    #[test]
    fn no_basin_is_named_that_could_be_anothers() {
        let taken = |placement: Placement, named: &[(&'static str, &'static str)]| {
            matches!(placement.with_basins(named.iter().copied()), Err(NamingError::Taken { .. }))
        };
        for basin in
            ["tailwater-acme", "tailwater-other", "tailwater--hxn5z7ehnpgt4qoqbnohinpzpgxch", "tailwater--e-1x-1"]
        {
            assert!(taken(per_project(), &[("acme", basin)]), "{basin}");
        }
        assert!(taken(Placement::shared("everything", "").unwrap(), &[("acme", "everything")]));
        assert!(taken(per_project(), &[("a", "the-basin"), ("b", "the-basin")]));
        let once = per_project().with_basins([("a", "the-basin")]).unwrap();
        assert!(taken(once, &[("b", "the-basin")]));
        assert!(matches!(per_project().with_basins([("a", "Short")]), Err(NamingError::Basin { .. })));
        assert!(matches!(per_project().with_basins([("a/b", "the-basin")]), Err(NamingError::Project { .. })));
    }

    /// Ids that are close to each other, and to what the encodings make.
    fn project() -> impl Strategy<Value = String> {
        prop_oneof!["[A-Za-z0-9_-]{1,64}", "[aA0_-]{1,6}", "(-e|-h|--e|--h)[a-z0-9-]{0,40}", "[a-z0-9-]{30,45}"]
    }

    fn prefix() -> impl Strategy<Value = String> {
        "[a-z0-9][a-z0-9-]{4,14}[a-z0-9]"
    }

    proptest! {
        #[test]
        fn two_projects_never_share_a_basin(prefix in prefix(), a in project(), b in project()) {
            let placement = Placement::basin_per_project(&prefix).unwrap();
            let (left, right) = (placement.basin(&a).unwrap(), placement.basin(&b).unwrap());
            prop_assert_eq!(left == right, a == b);
        }

        #[test]
        fn a_basin_leads_back_to_its_project_unless_that_was_hashed(prefix in prefix(), project in project()) {
            let placement = Placement::basin_per_project(&prefix).unwrap();
            let basin = placement.basin(&project).unwrap();
            match placement.project_of(&basin) {
                Some(back) => prop_assert_eq!(back, project),
                None => prop_assert!(basin.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with(HASHED))),
            }
        }

        #[test]
        fn two_streams_of_a_shared_basin_never_share_a_name(
            prefix in "[a-z/]{0,8}",
            a in (project(), "[a-zA-Z0-9/_-]{1,12}"),
            b in (project(), "[a-zA-Z0-9/_-]{1,12}"),
        ) {
            let placement = Placement::shared("everything", &prefix).unwrap();
            let name = |key: &(String, String)| placement.stream(&key.0, &key.1).unwrap();
            prop_assert_eq!(name(&a) == name(&b), a == b);
        }

        #[test]
        fn a_stream_name_leads_back_to_the_stream(project in project(), stream in "\\PC{1,40}") {
            for placement in [per_project(), Placement::shared("everything", "tw.").unwrap()] {
                let name = placement.stream(&project, &stream).unwrap();
                prop_assert_eq!(placement.stream_of(&project, &name), Some(stream.as_str()));
            }
        }
    }
}
