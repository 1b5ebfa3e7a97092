//! What comes from others: licences, sources, open versions, and what is banned, as `deny.toml` has them. `cargo deny` looks
//! deeper and needs to be installed; this holds wherever the tests run.
//!
//! The program that fuzzes is a workspace of its own without a lock that is committed, so without a network there is only
//! what its manifest declares. Nobody is given that program, and what it alone takes in may have other licences.

use std::path::Path;

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};
use serde_json::Value;

/// A package of somebody else's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Foreign {
    name: String,
    version: String,
    /// In the language of SPDX.
    license: Option<String>,
    /// Where it comes from.
    source: String,
}

/// A package of somebody else's, as a manifest declares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declared {
    /// The package whose manifest it is.
    by: String,
    name: String,
    /// Which versions are taken.
    required: String,
    /// Where it comes from.
    source: String,
}

/// What may come into the build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    licenses: Vec<String>,
    banned: Vec<String>,
    /// Registries, as `Cargo.lock` writes them.
    registries: Vec<String>,
}

impl Rules {
    /// Out of the text of `deny.toml`.
    pub(crate) fn read(text: &str) -> Self {
        let rules: Value = toml::from_str(text).expect("deny.toml is toml");
        let list = |pointer: &str| rules.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        let texts = |pointer: &str| list(pointer).filter_map(Value::as_str).map(str::to_owned).collect();
        let banned = list("/bans/deny").filter_map(|entry| entry["crate"].as_str()).map(str::to_owned).collect();
        let registries: Vec<String> = texts("/sources/allow-registry");
        Self {
            licenses: texts("/licenses/allow"),
            banned,
            registries: registries.iter().map(|registry| format!("registry+{registry}")).collect(),
        }
    }

    /// The platforms that are shipped, which are those that dependencies are looked at for.
    pub(crate) fn platforms(text: &str) -> Vec<String> {
        let rules: Value = toml::from_str(text).expect("deny.toml is toml");
        let platforms = rules.pointer("/graph/targets").and_then(Value::as_array).into_iter().flatten();
        platforms.filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

/// All packages of others that a build for these platforms can take in.
pub(crate) fn foreign(manifest: &Path, platforms: &[String]) -> Vec<Foreign> {
    let platforms = platforms.iter().flat_map(|platform| ["--filter-platform".to_owned(), platform.clone()]);
    let mut command = MetadataCommand::new();
    command.manifest_path(manifest).features(CargoOpt::AllFeatures);
    let options: Vec<String> = ["--locked".to_owned()].into_iter().chain(platforms).collect();
    let metadata: Metadata = command.other_options(options).exec().expect("the dependencies can be read");
    let others = metadata.packages.into_iter().filter_map(|package| {
        let source = package.source?.repr;
        Some(Foreign {
            name: package.name.to_string(),
            version: package.version.to_string(),
            license: package.license,
            source,
        })
    });
    others.collect()
}

/// All packages of others that a manifest, or those of its workspace, declare.
pub(crate) fn declared(manifest: &Path) -> Vec<Declared> {
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("the manifests can be read");
    let mut found = Vec::new();
    for package in metadata.packages {
        for dependency in package.dependencies {
            // What stands in this repository has a path, and no version.
            let Some(source) = dependency.source else { continue };
            found.push(Declared {
                by: package.name.to_string(),
                name: dependency.name,
                required: dependency.req.to_string(),
                source: source.repr,
            });
        }
    }
    found
}

/// What is declared of packages that may not come in, or in versions that nobody has seen yet.
pub(crate) fn careless(declared: &[Declared], rules: &Rules) -> Vec<String> {
    let mut breaches = Vec::new();
    for Declared { by, name, required, source } in declared {
        if rules.banned.contains(name) {
            breaches.push(format!("{by}: {name} is banned"));
        }
        if !rules.registries.contains(source) {
            breaches.push(format!("{by}: {name} comes from {source}"));
        }
        if required.contains('*') || required.contains('>') && !required.contains('<') {
            breaches.push(format!("{by}: {name} may have any version from {required} on"));
        }
    }
    breaches
}

/// What is not declared in exactly one version, where no lock says which it is.
pub(crate) fn inexact(declared: &[Declared]) -> Vec<String> {
    let open = declared.iter().filter(|declared| !declared.required.starts_with('='));
    open.map(|Declared { by, name, required, .. }| format!("{by}: {name} may have a version {required}")).collect()
}

/// Packages that may not come in.
pub(crate) fn unwanted(packages: &[Foreign], rules: &Rules) -> Vec<String> {
    let mut breaches = Vec::new();
    for Foreign { name, version, license, source } in packages {
        if rules.banned.contains(name) {
            breaches.push(format!("{name} {version} is banned"));
        }
        if !rules.registries.contains(source) {
            breaches.push(format!("{name} {version} comes from {source}"));
        }
        if !license.as_deref().is_some_and(|license| is_allowed(license, &rules.licenses)) {
            breaches.push(format!("{name} {version} has the license {}", license.as_deref().unwrap_or("of nobody")));
        }
    }
    breaches
}

/// Whether one of the choices that a license leaves is allowed. What cannot be read is not.
fn is_allowed(license: &str, allowed: &[String]) -> bool {
    // Before SPDX a slash stood between choices.
    let spaced = license.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    matches!(choice(&words, allowed), Some((true, [])))
}

/// The value of the choice that the words begin with, and what follows it.
fn choice<'w>(words: &'w [&'w str], allowed: &[String]) -> Option<(bool, &'w [&'w str])> {
    let (mut any, mut rest) = all_of(words, allowed)?;
    while let ["OR", after @ ..] = rest {
        let (next, after) = all_of(after, allowed)?;
        (any, rest) = (any || next, after);
    }
    Some((any, rest))
}

fn all_of<'w>(words: &'w [&'w str], allowed: &[String]) -> Option<(bool, &'w [&'w str])> {
    let (mut all, mut rest) = term(words, allowed)?;
    while let ["AND", after @ ..] = rest {
        let (next, after) = term(after, allowed)?;
        (all, rest) = (all && next, after);
    }
    Some((all, rest))
}

fn term<'w>(words: &'w [&'w str], allowed: &[String]) -> Option<(bool, &'w [&'w str])> {
    match words {
        ["(", inner @ ..] => match choice(inner, allowed)? {
            (value, [")", rest @ ..]) => Some((value, rest)),
            _ => None,
        },
        // An exception makes another license of it.
        [name, "WITH", exception, rest @ ..] => Some((allowed.contains(&format!("{name} WITH {exception}")), rest)),
        [")" | "OR" | "AND" | "WITH", ..] | [] => None,
        [name, rest @ ..] => Some((allowed.iter().any(|allowed| allowed == name), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::read(
            "[graph]\ntargets = ['x']\n[bans]\ndeny = [{ crate = 'bad', reason = 'r' }]\n\
             [licenses]\nallow = ['MIT', 'ISC']\n[sources]\nallow-registry = ['https://a.example/index']\n",
        )
    }

    fn package(name: &str, license: &str) -> Foreign {
        let source = "registry+https://a.example/index".to_owned();
        Foreign { name: name.to_owned(), version: "1.0.0".to_owned(), license: Some(license.to_owned()), source }
    }

    fn declaration(required: &str) -> Declared {
        let source = "registry+https://a.example/index".to_owned();
        Declared { by: "tailwater-x".to_owned(), name: "a".to_owned(), required: required.to_owned(), source }
    }

    #[test]
    fn a_version_that_has_no_end_is_found() {
        for required in ["^1.2.3", "=1.2.3", "~1.2", "<2", ">=1, <3"] {
            assert_eq!(careless(&[declaration(required)], &rules()), [""; 0], "{required}");
        }
        for required in ["*", "1.*", ">1", ">=1.2"] {
            assert_eq!(careless(&[declaration(required)], &rules()).len(), 1, "{required}");
        }
    }

    #[test]
    fn what_is_declared_and_may_not_come_in_is_found() {
        let banned = Declared { name: "bad".to_owned(), ..declaration("^1") };
        assert_eq!(careless(&[banned], &rules()), ["tailwater-x: bad is banned"]);
        let elsewhere = Declared { source: "git+https://b.example/".to_owned(), ..declaration("^1") };
        assert_eq!(careless(&[elsewhere], &rules()), ["tailwater-x: a comes from git+https://b.example/"]);
    }

    #[test]
    fn what_is_not_declared_exactly_is_found() {
        assert_eq!(inexact(&[declaration("=1.2.3")]), [""; 0]);
        assert_eq!(inexact(&[declaration("^1.2.3"), declaration("*")]).len(), 2);
    }

    #[test]
    fn a_license_counts_if_one_of_its_choices_is_allowed_as_a_whole() {
        for license in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "MIT AND (GPL-3.0 OR ISC)", "(MIT)"] {
            assert_eq!(unwanted(&[package("a", license)], &rules()), [""; 0], "{license}");
        }
        for license in
            ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH x", "", "MIT OR", "(MIT", "MIT ISC", "MIT AND (GPL-3.0)"]
        {
            assert_eq!(unwanted(&[package("a", license)], &rules()).len(), 1, "{license}");
        }
    }

    #[test]
    fn what_is_banned_or_comes_from_elsewhere_or_has_no_license_is_found() {
        assert_eq!(unwanted(&[package("bad", "MIT")], &rules()), ["bad 1.0.0 is banned"]);
        let elsewhere = Foreign { source: "git+https://b.example/".to_owned(), ..package("a", "MIT") };
        assert_eq!(unwanted(&[elsewhere], &rules()), ["a 1.0.0 comes from git+https://b.example/"]);
        let nobodys = Foreign { license: None, ..package("a", "MIT") };
        assert_eq!(unwanted(&[nobodys], &rules()), ["a 1.0.0 has the license of nobody"]);
    }
}
