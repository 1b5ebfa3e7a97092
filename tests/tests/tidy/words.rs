//! What no file of the repository may contain: hosts that a package comes from and places on one machine. A clone must
//! build behind any mirror, and in any folder.

use crate::SourceFile;

/// Hosts of package registries, in two parts, so that this file does not hold them.
const HOSTS: &[(&str, &str)] = &[
    ("registry.npmjs", "org"),
    ("registry.yarnpkg", "com"),
    ("index.crates", "io"),
    ("static.crates", "io"),
    ("pypi", "org"),
    ("files.pythonhosted", "org"),
    ("proxy.golang", "org"),
];

/// Folders at the root of somebody's machine, without the slashes around them. Tests and examples make their own.
const PLACES: &[&str] = &["root", "tmp", "work", "Users"];

/// Where Cargo's own lockfile says that a crate comes from, whatever mirror it came through.
const CRATES_SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Lines with a registry's host or an absolute path of one machine.
pub(crate) fn forbidden(files: &[SourceFile]) -> Vec<String> {
    let hosts: Vec<String> = HOSTS.iter().map(|(name, end)| format!("{name}.{end}")).collect();
    let places: Vec<String> = PLACES.iter().map(|place| format!("/{place}/")).collect();
    let mut breaches = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let host = hosts.iter().find(|host| line.contains(*host));
            let place = places.iter().find(|place| starts_a_path(line, place));
            if let Some(found) = host.or(place) {
                breaches.push(format!("{}:{}: {found}", file.path, index + 1));
            }
        }
    }
    breaches
}

/// Whether `place` stands in `line` at the start of a path, and not inside one, such as an URL's.
fn starts_a_path(line: &str, place: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "._-/}>*".contains(c);
    line.match_indices(place).any(|(at, _)| !line[..at].chars().next_back().is_some_and(inside))
}

/// Lines of lockfiles that pin a package to the host it was fetched from.
pub(crate) fn lockfile_hosts(files: &[SourceFile]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files {
        let pins: fn(&str) -> bool = match file.path.rsplit('/').next() {
            Some("Cargo.lock") => |line| line.starts_with("source = ") && line != CRATES_SOURCE,
            Some("package-lock.json") => |line| line.starts_with("\"resolved\":"),
            _ => continue,
        };
        let lines = file.text.lines().enumerate().filter(|(_, line)| pins(line.trim()));
        breaches.extend(lines.map(|(index, _)| format!("{}:{}: names a host", file.path, index + 1)));
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Vec<SourceFile> {
        vec![SourceFile { path: path.to_owned(), text: text.to_owned() }]
    }

    #[test]
    fn every_registry_host_is_found() {
        for (name, end) in HOSTS {
            assert_eq!(
                forbidden(&file("a.md", &format!("fine\nsee https://{name}.{end}/x\n"))),
                [format!("a.md:2: {name}.{end}")]
            );
        }
    }

    #[test]
    fn a_place_on_one_machine_is_found_but_not_a_part_of_a_path() {
        for place in PLACES {
            assert_eq!(forbidden(&file("a.md", &format!("cd /{place}/x"))).len(), 1);
            assert_eq!(forbidden(&file("a.md", &format!("\"/{place}/x\""))).len(), 1);
            assert_eq!(forbidden(&file("a.md", &format!("crates/{place}/x and https://host/{place}/x"))), [""; 0]);
        }
    }

    #[test]
    fn a_lockfile_that_names_a_host_is_found() {
        assert_eq!(lockfile_hosts(&file("Cargo.lock", CRATES_SOURCE)), [""; 0]);
        assert_eq!(lockfile_hosts(&file("Cargo.lock", "source = \"registry+https://mirror.example/index\"")).len(), 1);
        assert_eq!(
            lockfile_hosts(&file("a/package-lock.json", "  \"resolved\": \"https://mirror.example/a.tgz\",")).len(),
            1
        );
        assert_eq!(lockfile_hosts(&file("a/package-lock.json", "  \"integrity\": \"sha512-\",")), [""; 0]);
    }
}
