//! The rules of this repository that no compiler checks, as tests over `cargo metadata` and the files of the tree.
//!
//! - [`arrows`]: which crate may name which crate.
//! - [`guarantees`]: the page of guarantees, and the tests that it names.
//! - [`manifests`]: what every `Cargo.toml` inherits, and dependencies that nobody uses.
//! - [`sources`]: long files, module names, and what the pure crates must not reach for.
//! - [`metrics`]: the list of metrics in the documentation.
//! - [`supply`]: licences, sources, bans and open versions of what comes from others.
//! - [`words`]: what no file of the repository may contain, and lockfiles that name no host.
//!
//! A rule is a pure function that returns one text for each breach. Beside each stands a test that it can fail.

mod arrows;
mod guarantees;
mod manifests;
mod metrics;
mod sources;
mod supply;
mod words;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// One package of the workspace, reduced to what the rules look at.
#[derive(Debug, Clone, Default)]
struct Member {
    /// The package's name.
    name: String,
    /// Its folder, relative to the root, with `/`.
    folder: String,
    /// The text of its `Cargo.toml`.
    manifest: String,
    /// What it depends on.
    dependencies: Vec<Dependency>,
    /// The code of its library, binaries and build script, without their tests.
    code: String,
    /// All of its code: the above, their tests, and the folders of tests, benches and examples.
    all_code: String,
}

/// One declared dependency.
#[derive(Debug, Clone)]
struct Dependency {
    /// The package that is named, or what it is renamed to.
    name: String,
    /// Only for tests, benches and examples.
    dev: bool,
}

/// A file of the repository.
#[derive(Debug, Clone)]
struct SourceFile {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

impl Member {
    fn read(root: &Path, package: &Package, files: &[SourceFile]) -> io::Result<Self> {
        let folder_path = package.manifest_path.parent().expect("a manifest stands in a folder").as_std_path();
        let folder = slashed(folder_path.strip_prefix(root).expect("members stand below the root"));
        let parts_of = |names: &[&str]| -> Vec<&SourceFile> {
            let starts: Vec<String> = names.iter().map(|name| format!("{folder}/{name}")).collect();
            let own = |file: &&SourceFile| is_rust(file) && starts.iter().any(|start| file.path.starts_with(start));
            files.iter().filter(own).collect()
        };
        let code = parts_of(&["src/", "build.rs"]).into_iter().map(sources::production_code).collect();
        let all = parts_of(&["src/", "build.rs", "tests/", "benches/", "examples/"]);
        let all_code = all.into_iter().map(|file| sources::without_comments(&file.text)).collect();
        Ok(Self {
            name: package.name.to_string(),
            manifest: fs::read_to_string(&package.manifest_path)?,
            dependencies: package.dependencies.iter().map(Dependency::read).collect(),
            code,
            all_code,
            folder,
        })
    }
}

impl Dependency {
    fn read(declared: &cargo_metadata::Dependency) -> Self {
        let name = declared.rename.clone().unwrap_or_else(|| declared.name.clone());
        Self { name, dev: declared.kind == DependencyKind::Development }
    }
}

fn is_rust(file: &SourceFile) -> bool {
    Path::new(&file.path).extension().is_some_and(|extension| extension == "rs")
}

fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("the manifests can be read")
}

/// The repository as it stands on disk.
fn repository() -> (Vec<Member>, Vec<SourceFile>) {
    let metadata = metadata();
    let root = metadata.workspace_root.as_std_path();
    let files = files_below(root).expect("the files can be read");
    let members: io::Result<_> = metadata.packages.iter().map(|package| Member::read(root, package, &files)).collect();
    (members.expect("the manifests can be read"), files)
}

/// Every file that is or could be committed: what `.gitignore` names is left out.
fn files_below(root: &Path) -> io::Result<Vec<SourceFile>> {
    let ignored = fs::read_to_string(root.join(".gitignore"))?;
    let skipped: BTreeSet<&str> = ignored.lines().map(|line| line.trim_matches('/')).chain([".git"]).collect();
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if skipped.contains(&*entry.file_name().to_string_lossy()) {
                continue;
            }
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                let path = slashed(entry.path().strip_prefix(root).expect("the walk stays below the root"));
                found.push(SourceFile { path, text: String::from_utf8_lossy(&fs::read(entry.path())?).into_owned() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

#[track_caller]
fn holds(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn crates_depend_downwards_only() {
    holds(&arrows::between_members(&repository().0));
}

#[test]
fn each_library_of_others_is_named_only_where_it_belongs() {
    holds(&arrows::to_others(&repository().0));
}

#[test]
fn packages_are_named_after_their_folders() {
    holds(&manifests::misnamed(&repository().0));
}

#[test]
fn manifests_inherit_from_the_workspace() {
    holds(&manifests::not_inherited(&repository().0));
}

#[test]
fn every_dependency_is_used() {
    holds(&manifests::unused_dependencies(&repository().0, manifests::USED_UNSEEN));
}

#[test]
fn no_file_is_long_without_a_reason() {
    holds(&sources::long_files(&repository().1, sources::LONG_FOR_A_REASON));
}

#[test]
fn modules_are_named_after_an_idea() {
    holds(&sources::idle_names(&repository().1));
}

#[test]
fn the_pure_crates_have_no_clock_and_no_input_or_output() {
    holds(&sources::impurities(&repository().1));
}

#[test]
fn every_metric_is_listed() {
    let (members, files) = repository();
    holds(&metrics::unlisted(&members, &files));
}

#[test]
fn what_is_promised_is_tested() {
    holds(&guarantees::untested(&repository().1));
}

#[test]
fn no_file_names_a_registry_host_or_a_place_on_one_machine() {
    holds(&words::forbidden(&repository().1));
}

#[test]
fn lockfiles_name_no_host() {
    holds(&words::lockfile_hosts(&repository().1));
}

/// The manifest of the workspace, and the text of `deny.toml`.
fn supplied() -> (PathBuf, String) {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let text = fs::read_to_string(manifest.with_file_name("deny.toml")).expect("deny.toml can be read");
    (manifest, text)
}

#[test]
fn what_comes_from_others_is_allowed() {
    let (manifest, text) = supplied();
    let others = supply::foreign(&manifest, &supply::Rules::platforms(&text));
    assert!(others.len() > 100, "there are some: {}", others.len());
    holds(&supply::unwanted(&others, &supply::Rules::read(&text)));
}

#[test]
fn no_manifest_declares_what_may_not_come_in_or_leaves_its_version_open() {
    let (manifest, text) = supplied();
    let declared = supply::declared(&manifest);
    assert!(declared.len() > 100, "there are some: {}", declared.len());
    holds(&supply::careless(&declared, &supply::Rules::read(&text)));
}

#[test]
fn what_fuzzing_alone_takes_in_is_allowed_and_has_one_version() {
    let (manifest, text) = supplied();
    let declared = supply::declared(&manifest.with_file_name("fuzz/libfuzzer/Cargo.toml"));
    assert!(!declared.is_empty(), "libFuzzer at least");
    holds(&supply::careless(&declared, &supply::Rules::read(&text)));
    holds(&supply::inexact(&declared));
}

#[test]
fn the_walk_finds_the_sources_and_leaves_out_what_is_built() {
    let (members, files) = repository();
    assert!(files.iter().any(|file| file.path == "tests/tests/tidy/main.rs"));
    assert!(!files.iter().any(|file| file.path.starts_with("target/") || file.path.contains("node_modules/")));
    assert!(members.iter().any(|member| member.name == "tailwater" && member.code.contains("fn main")));
}
