//! What every `Cargo.toml` of the workspace has in common: names, inheritance, and no dependency that nobody uses.

use crate::Member;

/// What a package inherits, as it stands in the manifest.
const INHERITED: &[&str] = &[
    "version.workspace = true",
    "edition.workspace = true",
    "rust-version.workspace = true",
    "license.workspace = true",
    "publish.workspace = true",
];

/// Dependencies that are used although no source names them: package, dependency, reason.
pub(crate) const USED_UNSEEN: &[(&str, &str, &str)] = &[];

/// Packages that are not called `tailwater-` and their folder. The program itself is plain `tailwater`.
pub(crate) fn misnamed(members: &[Member]) -> Vec<String> {
    let expected = |member: &Member| match member.folder.rsplit('/').next().unwrap_or_default() {
        "tailwater" => "tailwater".to_owned(),
        folder => format!("tailwater-{folder}"),
    };
    let wrong = members.iter().filter(|member| member.name != expected(member));
    wrong
        .map(|member| format!("{}: the package is called {}, not {}", member.folder, member.name, expected(member)))
        .collect()
}

/// What stands in a manifest although the workspace has it.
pub(crate) fn not_inherited(members: &[Member]) -> Vec<String> {
    let mut breaches = Vec::new();
    for Member { folder, manifest, .. } in members {
        let mut section = "";
        let mut lints = false;
        for line in manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('[') {
                section = line;
            } else if section == "[lints]" {
                lints |= line == "workspace = true";
            } else if section.ends_with("dependencies]") && !line.contains("workspace = true") {
                breaches.push(format!("{folder}/Cargo.toml: not from the workspace: {line}"));
            }
        }
        if !lints {
            breaches.push(format!("{folder}/Cargo.toml: the lints of the workspace are not inherited"));
        }
        let absent = INHERITED.iter().filter(|wanted| !manifest.lines().any(|line| line.trim() == **wanted));
        breaches.extend(absent.map(|wanted| format!("{folder}/Cargo.toml: `{wanted}` is missing")));
    }
    breaches
}

/// Dependencies that no source of the package names, and exceptions that are none any more.
pub(crate) fn unused_dependencies(members: &[Member], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut needed = Vec::new();
    for member in members {
        for dependency in &member.dependencies {
            let identifier = dependency.name.replace('-', "_");
            let used = names(if dependency.dev { &member.all_code } else { &member.code }, &identifier);
            let exception =
                exceptions.iter().find(|(package, name, _)| *package == member.name && *name == dependency.name);
            match exception {
                Some(exception) if !used => needed.push(exception),
                None if !used => breaches.push(format!("{} does not use {}", member.name, dependency.name)),
                _ => {}
            }
        }
    }
    let stale = exceptions.iter().filter(|exception| !needed.contains(exception));
    breaches.extend(stale.map(|(package, name, _)| format!("the exception for {name} in {package} is not needed")));
    breaches
}

/// Whether `code` holds `identifier` as a whole word.
fn names(code: &str, identifier: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(identifier).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + identifier.len()..].chars().next();
        !before.is_some_and(in_word) && !after.is_some_and(in_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dependency;

    fn user_of(dependency: &str, dev: bool, code: &str, all_code: &str) -> Vec<Member> {
        vec![Member {
            name: "tailwater-x".to_owned(),
            folder: "crates/x".to_owned(),
            dependencies: vec![Dependency { name: dependency.to_owned(), dev }],
            code: code.to_owned(),
            all_code: all_code.to_owned(),
            ..Member::default()
        }]
    }

    fn with_manifest(manifest: &str) -> Vec<Member> {
        vec![Member { folder: "crates/x".to_owned(), manifest: manifest.to_owned(), ..Member::default() }]
    }

    fn whole_manifest() -> String {
        format!(
            "[package]\n{}\n[lints]\nworkspace = true\n[dependencies]\nbytes.workspace = true\n",
            INHERITED.join("\n")
        )
    }

    #[test]
    fn a_name_that_is_not_the_folders_is_found() {
        let member = |folder: &str, name: &str| {
            vec![Member { folder: folder.to_owned(), name: name.to_owned(), ..Member::default() }]
        };
        assert_eq!(misnamed(&member("bins/tailwater", "tailwater")), [""; 0]);
        assert_eq!(misnamed(&member("crates/log", "tailwater-log")), [""; 0]);
        assert_eq!(misnamed(&member("tests", "tailwater-tests")), [""; 0]);
        assert_eq!(misnamed(&member("crates/log", "log")).len(), 1);
        assert_eq!(misnamed(&member("bins/fanbench", "fanbench")).len(), 1);
    }

    #[test]
    fn a_manifest_that_inherits_all_is_fine() {
        assert_eq!(not_inherited(&with_manifest(&whole_manifest())), [""; 0]);
    }

    #[test]
    fn each_line_that_is_not_inherited_is_found() {
        for wanted in INHERITED.iter().chain(&["[lints]\nworkspace = true\n"]) {
            let manifest = whole_manifest().replacen(wanted, "", 1);
            assert_eq!(not_inherited(&with_manifest(&manifest)).len(), 1, "without {wanted}");
        }
        let versioned = whole_manifest().replace("bytes.workspace = true", "bytes = \"1\"");
        assert_eq!(not_inherited(&with_manifest(&versioned)).len(), 1);
    }

    #[test]
    fn a_dependency_that_no_source_names_is_found() {
        assert_eq!(unused_dependencies(&user_of("s2-sdk", false, "use s2_sdk::S2;", ""), &[]), [""; 0]);
        assert_eq!(
            unused_dependencies(&user_of("s2-sdk", false, "use s2_sdk_extra::S2; let my_s2_sdk = 1;", ""), &[]).len(),
            1
        );
        assert_eq!(unused_dependencies(&user_of("s2-sdk", false, "", "use s2_sdk::S2;"), &[]).len(), 1);
        assert_eq!(unused_dependencies(&user_of("s2-sdk", true, "", "use s2_sdk::S2;"), &[]), [""; 0]);
    }

    #[test]
    fn an_exception_that_is_not_needed_is_found() {
        let exceptions = [("tailwater-x", "s2-sdk", "switches on a feature")];
        assert_eq!(unused_dependencies(&user_of("s2-sdk", false, "", ""), &exceptions), [""; 0]);
        assert_eq!(unused_dependencies(&user_of("s2-sdk", false, "s2_sdk::S2", ""), &exceptions).len(), 1);
        assert_eq!(unused_dependencies(&[], &exceptions).len(), 1);
    }
}
