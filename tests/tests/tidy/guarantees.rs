//! What `docs/guarantees.md` names as tested is tested: the files, tests, stages and proofs that it names are there.

use crate::{SourceFile, is_rust};

/// Where the promises stand.
const PAGE: &str = "docs/guarantees.md";
/// Where the stages and the proofs are.
const STAGES: &str = "test";
const PROOFS: &str = "benches/prove";
/// The parts of the page that promise something. What is not promised needs no test.
const PROMISES: [&str; 2] = ["\n## What an answer to a write means\n", "\n## What readers are promised\n"];

/// What the page names and is not there, and promises that name nothing.
pub(crate) fn untested(files: &[SourceFile]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let page = text(PAGE);
    let mut breaches = Vec::new();
    for name in quoted(page) {
        let there = match Named::of(name) {
            Named::Test => {
                let start = format!("fn {name}(");
                files.iter().any(|file| is_rust(file) && file.text.contains(&start))
            }
            Named::File => files.iter().any(|file| file.path == name),
            Named::Proof(proof) => text(PROOFS).contains(&format!("\nclaim_{proof}=")),
            Named::Stage(stage) => text(STAGES).contains(&format!("\nstage_{stage}()")),
            Named::Nothing => true,
        };
        if !there {
            breaches.push(format!("{PAGE}: there is no {name}"));
        }
    }
    let without = promises(page).filter(|promise| !quoted(promise).any(|name| Named::of(name) != Named::Nothing));
    breaches.extend(without.map(|promise| format!("{PAGE}: nothing tests {promise:?}")));
    breaches
}

/// What stands between back-ticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The entries of the lists that promise something.
fn promises(page: &str) -> impl Iterator<Item = &str> {
    let parts = PROMISES.iter().filter_map(|title| page.split_once(title));
    parts.flat_map(|(_, rest)| rest.split("\n## ").next().unwrap_or_default().split("\n- ").skip(1))
}

/// What a text between back-ticks names.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    /// A test: a sentence, of four words at least.
    Test,
    /// A file of the repository.
    File,
    /// A proof.
    Proof(&'a str),
    /// A stage of the tests that has no folder.
    Stage(&'a str),
    /// Nothing that tests.
    Nothing,
}

impl<'a> Named<'a> {
    fn of(name: &'a str) -> Self {
        let in_words = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if let Some(proof) = name.strip_prefix("just prove ").filter(|proof| *proof != "NAME") {
            Self::Proof(proof)
        } else if let Some(stage) = name.strip_prefix("./test ") {
            Self::Stage(stage)
        } else if name.matches('_').count() >= 3 && name.chars().all(in_words) {
            Self::Test
        } else if name.contains('/') && !name.contains(' ') {
            Self::File
        } else {
            Self::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(page: &str) -> Vec<SourceFile> {
        let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        vec![
            file(PAGE, &format!("# Guarantees\n{}\n- {page}\n", PROMISES[0])),
            file("crates/a/tests/b.rs", "fn what_is_said_is_true() {}\n"),
            file(PROOFS, "\nclaim_kills=\"\"\n"),
            file(STAGES, "\nstage_pods() { true; }\n"),
        ]
    }

    #[test]
    fn what_is_there_may_be_named() {
        for name in ["what_is_said_is_true", "crates/a/tests/b.rs", "just prove kills", "./test pods"] {
            assert_eq!(untested(&repository(&format!("A promise. `{name}`"))), [""; 0]);
        }
    }

    #[test]
    fn what_is_named_and_not_there_is_found() {
        for name in ["what_is_said_is_false", "crates/a/tests/c.rs", "just prove kill", "./test pod"] {
            let breaches = untested(&repository(&format!("A promise. `{name}`")));
            assert_eq!(breaches, [format!("{PAGE}: there is no {name}")]);
        }
    }

    #[test]
    fn a_promise_that_nothing_tests_is_found() {
        assert_eq!(untested(&repository("A promise of `something`.")).len(), 1);
    }
}
