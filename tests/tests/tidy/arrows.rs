//! Which crate may name which: dependencies point down, and the adapter knows the core, never the reverse.
//!
//! ```text
//! {protocol, wire} ← log ← upstream ← {s2, fanout}    {protocol, wire} ← auth    {auth, upstream} ← register
//! fanout ← pubsub    all but s2 ← server    all ← bins
//! ```

use crate::Member;

/// What each library may name of the workspace outside of its tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("wire", &[]),
    ("log", &["protocol", "wire"]),
    ("upstream", &["log", "protocol"]),
    ("s2", &["upstream", "log", "protocol"]),
    ("fanout", &["upstream", "log", "protocol"]),
    ("auth", &["protocol", "wire"]),
    ("register", &["auth", "upstream", "log", "protocol"]),
    ("pubsub", &["fanout", "upstream", "log", "protocol"]),
    // Not `s2`: the server is handed a store by the binary, and so builds and is tested without S2.
    ("server", &["pubsub", "register", "auth", "fanout", "upstream", "log", "protocol"]),
    ("testkit", &["auth", "upstream", "log", "protocol"]),
];

/// Libraries of others that change what a crate is, and the crates that may name them; without any it is for programs.
const PLACES: &[(&[&str], &[&str])] = &[
    (&["axum"], &["server", "s2"]),
    (&["s2-sdk", "s2-lite", "s2-common", "s2-api", "slatedb"], &["s2"]),
    (&["anyhow", "clap"], &[]),
    // Projects are read from bytes that somebody else has read; programs read their settings.
    (&["toml", "toml_edit"], &["auth", PROGRAMS]),
];

/// Among the homes of a library: every program.
const PROGRAMS: &str = "bins";

/// Harnesses whose libraries need the testkit: they are nothing but tests.
const TESTS_THROUGHOUT: &[&str] = &["fuzz", "pods", "sim"];

/// Crates that are pure functions: no runtime, no clock, no input or output.
pub(crate) const PURE: &[&str] = &["protocol", "wire", "log", "auth"];

/// What would make a pure crate impure.
const RUNTIMES: &[&str] =
    &["async-broadcast", "axum", "futures-util", "hyper", "hyper-util", "mio", "rand", "rustix", "tracing"];

/// A member by what it is for.
enum Role<'a> {
    /// A crate of `crates/`, by its short name.
    Library(&'a str),
    /// A program of `bins/`, which puts the parts together.
    Program,
    /// Tests, benches, simulation: never shipped.
    Harness,
}

impl<'a> Role<'a> {
    fn of(member: &'a Member) -> Self {
        match member.folder.split_once('/') {
            Some(("crates", name)) => Self::Library(name),
            Some(("bins", _)) => Self::Program,
            _ => Self::Harness,
        }
    }
}

/// Arrows between members that point the wrong way.
pub(crate) fn between_members(members: &[Member]) -> Vec<String> {
    let mut breaches = Vec::new();
    for member in members {
        let allowed = match Role::of(member) {
            Role::Library(name) => match ARROWS.iter().find(|(from, _)| *from == name) {
                Some((_, allowed)) => Some(*allowed),
                None => {
                    breaches.push(format!("{} has no place in the crate map: add it to ARROWS", member.name));
                    continue;
                }
            },
            Role::Program | Role::Harness => None,
        };
        for dependency in member.dependencies.iter().filter(|dependency| !dependency.dev) {
            let Some(target) = dependency.name.strip_prefix("tailwater-") else { continue };
            if target == "testkit" && !TESTS_THROUGHOUT.contains(&member.folder.as_str()) {
                breaches.push(format!("{} names testkit, which is for dev-dependencies only", member.name));
            } else if allowed.is_some_and(|allowed| !allowed.contains(&target)) {
                breaches.push(format!("{} must not depend on {}", member.name, dependency.name));
            }
        }
    }
    breaches
}

/// Libraries of others that are named where they do not belong.
pub(crate) fn to_others(members: &[Member]) -> Vec<String> {
    let mut breaches = Vec::new();
    for member in members {
        for dependency in &member.dependencies {
            let library = dependency.name.as_str();
            let placed = PLACES.iter().find(|(libraries, _)| libraries.contains(&library));
            let away_from = |name| placed.is_some_and(|(_, homes)| !homes.contains(&name));
            let misplaced = match Role::of(member) {
                Role::Library(name) if PURE.contains(&name) => is_runtime(library) || away_from(name),
                Role::Library(name) => !dependency.dev && away_from(name),
                Role::Program => {
                    !dependency.dev && away_from(PROGRAMS) && placed.is_some_and(|(_, homes)| !homes.is_empty())
                }
                Role::Harness => false,
            };
            if misplaced {
                breaches.push(format!("{} must not name {library}", member.name));
            }
        }
    }
    breaches
}

fn is_runtime(library: &str) -> bool {
    library == "tokio" || library.starts_with("tokio-") || RUNTIMES.contains(&library)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dependency;

    fn member(folder: &str, dependency: &str, dev: bool) -> Vec<Member> {
        let dependencies = vec![Dependency { name: dependency.to_owned(), dev }];
        vec![Member { name: folder.to_owned(), folder: folder.to_owned(), dependencies, ..Member::default() }]
    }

    #[test]
    fn an_arrow_that_points_up_is_found() {
        assert_eq!(between_members(&member("crates/log", "tailwater-protocol", false)), [""; 0]);
        assert_eq!(between_members(&member("crates/protocol", "tailwater-log", false)).len(), 1);
        assert_eq!(between_members(&member("crates/fanout", "tailwater-s2", false)).len(), 1);
        assert_eq!(between_members(&member("crates/server", "tailwater-s2", false)).len(), 1);
        assert_eq!(between_members(&member("bins/tailwater", "tailwater-s2", false)), [""; 0]);
    }

    #[test]
    fn the_testkit_is_for_tests_only() {
        assert_eq!(between_members(&member("crates/fanout", "tailwater-testkit", true)), [""; 0]);
        assert_eq!(between_members(&member("crates/fanout", "tailwater-testkit", false)).len(), 1);
        assert_eq!(between_members(&member("bins/tailwater", "tailwater-testkit", false)).len(), 1);
        assert_eq!(between_members(&member("benches", "tailwater-testkit", false)).len(), 1);
        assert_eq!(between_members(&member("pods", "tailwater-testkit", false)), [""; 0]);
        assert_eq!(between_members(&member("sim", "tailwater-testkit", false)), [""; 0]);
    }

    #[test]
    fn a_crate_without_a_place_in_the_map_is_found() {
        assert_eq!(between_members(&member("crates/misc", "bytes", false)).len(), 1);
    }

    #[test]
    fn a_runtime_in_a_pure_crate_is_found_even_in_its_tests() {
        for library in ["tokio", "tokio-util", "axum", "rand"] {
            assert_eq!(to_others(&member("crates/log", library, false)).len(), 1);
            assert_eq!(to_others(&member("crates/protocol", library, true)).len(), 1);
        }
        assert_eq!(to_others(&member("crates/log", "bytes", false)), [""; 0]);
    }

    #[test]
    fn a_library_outside_its_home_is_found() {
        assert_eq!(to_others(&member("crates/server", "axum", false)), [""; 0]);
        assert_eq!(to_others(&member("crates/fanout", "axum", false)).len(), 1);
        assert_eq!(to_others(&member("bins/tailwater", "axum", false)).len(), 1);
        assert_eq!(to_others(&member("crates/s2", "slatedb", false)), [""; 0]);
        assert_eq!(to_others(&member("crates/server", "s2-sdk", false)).len(), 1);
        assert_eq!(to_others(&member("bins/tailwater", "clap", false)), [""; 0]);
        assert_eq!(to_others(&member("crates/server", "anyhow", false)).len(), 1);
        assert_eq!(to_others(&member("crates/server", "toml", false)).len(), 1);
        assert_eq!(to_others(&member("crates/log", "toml", false)).len(), 1);
        assert_eq!(to_others(&member("crates/auth", "toml", false)), [""; 0]);
        assert_eq!(to_others(&member("bins/tailwater", "toml", false)), [""; 0]);
    }
}
