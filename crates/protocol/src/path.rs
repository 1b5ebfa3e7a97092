//! Which stream of which project a URL names.
//!
//! The path behind `/v1/stream/` is split at its raw slashes, and each segment is percent-decoded once. So `%2F` can
//! never become a separator, and no segment can climb (protocol, section 12.2): a name has one meaning, whatever
//! proxies stand in front.

use std::{fmt, sync::Arc};

use percent_encoding::percent_decode_str;

use crate::bad_request::{BadRequest, Excerpt, NameFault};

/// What the path of every stream starts with.
pub const STREAM_ROOT: &str = "/v1/stream/";
/// The first segment of the protocol's own paths (section 6.1).
pub const RESERVED_SEGMENT: &str = "__ds";
/// The longest stream name, in decoded bytes. The store allows 512; the rest is for the prefixes of a shared basin and
/// of internal streams.
pub const MAX_STREAM_NAME: usize = 400;
/// The longest project id, in bytes.
pub const MAX_PROJECT_ID: usize = 64;

/// Ids that no project can have, because paths and tools use the words.
const RESERVED_PROJECTS: [&str; 5] = ["stream", "estuary", "subscribe", "ticket", "admin"];

/// The id of a project: `[A-Za-z0-9_-]{1,64}`, not starting with `_`, and not a reserved word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectId(Arc<str>);

/// How paths name projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressing {
    /// `{project}/{stream…}`; a single segment is a stream of the default project.
    Projects,
    /// The whole path is a stream of this project.
    Single(ProjectId),
}

/// A stream, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamPath {
    /// The project.
    pub project: ProjectId,
    /// The decoded segments of the name, joined by `/`; at most [`MAX_STREAM_NAME`] bytes.
    pub stream: String,
}

impl ProjectId {
    /// Parses a project's id.
    ///
    /// # Errors
    /// [`BadRequest::Project`] for what is not of the form, or reserved.
    pub fn parse(text: &str) -> Result<Self, BadRequest> {
        let formed = (1..=MAX_PROJECT_ID).contains(&text.len())
            && !text.starts_with('_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !formed || RESERVED_PROJECTS.contains(&text) {
            return Err(BadRequest::Project { got: Excerpt::new(text) });
        }
        Ok(Self(text.into()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ProjectId {
    /// `default`, the project of streams whose path names none.
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StreamPath {
    /// Parses what stands behind [`STREAM_ROOT`] in the raw path of a URL, without its query. `default` is the project
    /// of a path with a single segment, where paths name projects.
    ///
    /// # Errors
    /// [`BadRequest::StreamName`], [`BadRequest::Project`], or [`BadRequest::ReservedName`] for a path below
    /// [`RESERVED_SEGMENT`], be it of the server or of a project.
    pub fn parse(raw: &str, addressing: &Addressing, default: &ProjectId) -> Result<Self, BadRequest> {
        let segments = raw.split('/').map(segment_of).collect::<Result<Vec<_>, _>>()?;
        let reserved = |segments: &[String]| segments.first().is_some_and(|first| first == RESERVED_SEGMENT);
        if reserved(&segments) {
            return Err(BadRequest::ReservedName);
        }
        let (project, name) = match (addressing, segments.as_slice()) {
            (Addressing::Single(project), name) => (project.clone(), name),
            (Addressing::Projects, [project, name @ ..]) if !name.is_empty() => (ProjectId::parse(project)?, name),
            (Addressing::Projects, name) => (default.clone(), name),
        };
        if reserved(name) {
            return Err(BadRequest::ReservedName);
        }
        let stream = name.join("/");
        if stream.len() > MAX_STREAM_NAME {
            return Err(BadRequest::StreamName { fault: NameFault::TooLong });
        }
        Ok(Self { project, stream })
    }

    /// Parses the path of a stream on this server, as `Stream-Forked-From` carries it: [`STREAM_ROOT`] and what
    /// [`parse`](StreamPath::parse) takes.
    ///
    /// # Errors
    /// [`BadRequest::ForkedFrom`], whatever is wrong with it, so that the code names the header at fault.
    pub fn parse_reference(path: &str, addressing: &Addressing, default: &ProjectId) -> Result<Self, BadRequest> {
        path.strip_prefix(STREAM_ROOT)
            .and_then(|raw| Self::parse(raw, addressing, default).ok())
            .ok_or_else(|| BadRequest::ForkedFrom { got: Excerpt::new(path) })
    }
}

fn segment_of(raw: &str) -> Result<String, BadRequest> {
    decode_segment(raw).map_err(|fault| BadRequest::StreamName { fault })
}

/// One segment of a stream's name, percent-decoded once.
///
/// # Errors
/// What keeps it from being one.
pub fn decode_segment(raw: &str) -> Result<String, NameFault> {
    if raw.contains(['?', '#']) {
        return Err(NameFault::Character);
    }
    let mut escapes = raw.split('%').skip(1).map(str::as_bytes);
    if !escapes.all(|rest| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())) {
        return Err(NameFault::Escape);
    }
    let segment = percent_decode_str(raw).decode_utf8().map_err(|_| NameFault::NotUtf8)?;
    match segment.as_ref() {
        "" => Err(NameFault::EmptySegment),
        "." | ".." => Err(NameFault::DotSegment),
        text if text.contains(|c: char| c == '/' || c.is_control()) => Err(NameFault::Character),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn in_projects(raw: &str) -> Result<StreamPath, BadRequest> {
        StreamPath::parse(raw, &Addressing::Projects, &ProjectId::default())
    }

    fn in_one_project(raw: &str) -> Result<StreamPath, BadRequest> {
        let only = ProjectId::parse("only").unwrap();
        StreamPath::parse(raw, &Addressing::Single(only), &ProjectId::default())
    }

    #[test]
    fn the_first_of_several_segments_is_the_project() {
        let table = [
            ("a", "default", "a"),
            ("stream", "default", "stream"),
            ("_x", "default", "_x"),
            ("p/a", "p", "a"),
            ("default/a", "default", "a"),
            ("p/a/b/c", "p", "a/b/c"),
            ("p/a%20b", "p", "a b"),
            ("%70/a", "p", "a"),
            ("p/%E2%82%AC", "p", "€"),
            ("p/%252F", "p", "%2F"),
            ("p/a+b", "p", "a+b"),
            ("p/...", "p", "..."),
            ("p/x/__ds", "p", "x/__ds"),
            ("p/%3F%23", "p", "?#"),
        ];
        for (raw, project, stream) in table {
            let project = ProjectId::parse(project).unwrap();
            assert_eq!(in_projects(raw), Ok(StreamPath { project, stream: stream.to_owned() }), "{raw}");
        }
    }

    #[test]
    fn in_single_project_mode_the_path_is_the_name() {
        for (raw, stream) in [("a", "a"), ("p/a", "p/a"), ("events/sync-1", "events/sync-1"), ("_p/a", "_p/a")] {
            let project = ProjectId::parse("only").unwrap();
            assert_eq!(in_one_project(raw), Ok(StreamPath { project, stream: stream.to_owned() }), "{raw}");
        }
    }

    #[test]
    fn paths_that_could_mean_two_things_are_refused() {
        let table = [
            ("", NameFault::EmptySegment),
            ("/", NameFault::EmptySegment),
            ("/a", NameFault::EmptySegment),
            ("p/", NameFault::EmptySegment),
            ("p//a", NameFault::EmptySegment),
            ("p/.", NameFault::DotSegment),
            ("p/../a", NameFault::DotSegment),
            ("p/%2e%2E", NameFault::DotSegment),
            ("p/.%2e/a", NameFault::DotSegment),
            ("p/a%2Fb", NameFault::Character),
            ("p/a%00", NameFault::Character),
            ("p/a%0d%0a", NameFault::Character),
            ("p/a%7F", NameFault::Character),
            ("p/%C2%85", NameFault::Character),
            ("p/a\n", NameFault::Character),
            ("p/a?b", NameFault::Character),
            ("p/a#b", NameFault::Character),
            ("p/%FF", NameFault::NotUtf8),
            ("p/%C3", NameFault::NotUtf8),
            ("p/%", NameFault::Escape),
            ("p/%4", NameFault::Escape),
            ("p/%zz", NameFault::Escape),
            ("p/%+1", NameFault::Escape),
            ("p/%%20", NameFault::Escape),
            ("%/p", NameFault::Escape),
        ];
        for (raw, fault) in table {
            assert_eq!(in_projects(raw), Err(BadRequest::StreamName { fault }), "{raw:?}");
            assert_eq!(in_one_project(raw), Err(BadRequest::StreamName { fault }), "{raw:?}");
        }
    }

    #[test]
    fn a_name_is_bounded_in_decoded_bytes() {
        let longest = "%61".repeat(MAX_STREAM_NAME);
        assert_eq!(in_projects(&longest).map(|path| path.stream.len()), Ok(MAX_STREAM_NAME));
        let fault = NameFault::TooLong;
        assert_eq!(in_projects(&"a".repeat(401)), Err(BadRequest::StreamName { fault }));
        assert_eq!(in_projects(&format!("p/{}/b", "a".repeat(399))), Err(BadRequest::StreamName { fault }));
    }

    #[test]
    fn the_protocols_own_names_are_reserved() {
        for raw in ["__ds", "__ds/subscriptions/1", "%5F_ds/x", "p/__ds", "p/__ds/jwks.json"] {
            assert_eq!(in_projects(raw), Err(BadRequest::ReservedName), "{raw}");
        }
        assert_eq!(in_one_project("__ds/x"), Err(BadRequest::ReservedName));
        assert!(in_one_project("p/__ds").is_ok());
        assert!(in_projects("__ds2").is_ok());
    }

    #[test]
    fn project_ids_have_one_form() {
        let longest = "p".repeat(MAX_PROJECT_ID);
        for id in ["a", "0", "-", "A-b_9", "default", "Stream", "streams", &longest] {
            assert_eq!(ProjectId::parse(id).unwrap().as_str(), id);
        }
        let too_long = "p".repeat(65);
        for id in
            ["", "_a", "_", "a b", "a.b", "é", "a/b", "stream", "estuary", "subscribe", "ticket", "admin", &too_long]
        {
            assert_eq!(ProjectId::parse(id), Err(BadRequest::Project { got: Excerpt::new(id) }), "{id:?}");
        }
        assert_eq!(in_projects("admin/a"), Err(BadRequest::Project { got: Excerpt::new("admin") }));
        assert_eq!(in_projects("a%20b/c"), Err(BadRequest::Project { got: Excerpt::new("a b") }));
    }

    #[test]
    fn a_reference_is_the_path_of_a_url() {
        let reference = |path| StreamPath::parse_reference(path, &Addressing::Projects, &ProjectId::default());
        assert_eq!(reference("/v1/stream/a"), in_projects("a"));
        assert_eq!(reference("/v1/stream/p/a%20b"), in_projects("p/a%20b"));
        let table = [
            "",
            "a",
            "/a",
            "/v1/stream",
            "/v1/stream/",
            "v1/stream/a",
            "//v1/stream/a",
            "/v1/stream/p/../a",
            "/v1/stream/a?x=1",
            "/v1/stream/__ds/x",
            "/v1/stream/admin/a",
            "http://host/v1/stream/a",
            "/V1/stream/a",
        ];
        for path in table {
            assert_eq!(reference(path), Err(BadRequest::ForkedFrom { got: Excerpt::new(path) }), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn no_path_yields_a_name_that_climbs_or_hides(raw in "(%2[eEfF0]|%00|%5f|[a_./%]|\\PC){0,12}") {
            for parsed in [in_projects(&raw), in_one_project(&raw)].into_iter().flatten() {
                let segments: Vec<_> = parsed.stream.split('/').collect();
                prop_assert!(segments.iter().all(|s| !s.is_empty() && *s != "." && *s != ".."));
                prop_assert!(!parsed.stream.contains(char::is_control) && segments[0] != RESERVED_SEGMENT);
            }
        }

        #[test]
        fn every_encoded_name_is_found_again(segments in prop::collection::vec("[^/\\pC]{1,12}", 1..4)) {
            prop_assume!(segments.iter().all(|s| s != "." && s != ".." && s != RESERVED_SEGMENT));
            let encode = |s: &String| utf8_percent_encode(s, NON_ALPHANUMERIC).to_string();
            let encoded: Vec<_> = segments.iter().map(encode).collect();
            let parsed = in_one_project(&encoded.join("/")).unwrap();
            prop_assert_eq!(parsed.stream, segments.join("/"));
        }
    }
}
