//! What the sources look like: no long files, no modules without an idea, nothing impure in the pure crates.

use crate::{SourceFile, arrows::PURE, is_rust};

/// Lines of code after which a file needs a reason.
const LONG: usize = 600;

/// Files that may be longer: path, reason.
pub(crate) const LONG_FOR_A_REASON: &[(&str, &str)] = &[];

/// Names of modules that say nothing about what is in them.
const IDLE: &[&str] = &["common", "helpers", "misc", "models", "prelude", "types", "util", "utils"];

/// What a pure crate must not reach for: the clock, files, sockets, the environment, threads.
const IMPURE: &[&str] =
    &["SystemTime", "Instant::now", "now_utc", "std::env", "std::fs", "std::net", "std::process", "std::thread"];

/// Files with more than [`LONG`] lines of code and no reason, and reasons for files that are short or gone.
pub(crate) fn long_files(files: &[SourceFile], reasons: &[(&str, &str)]) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut needed = Vec::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        let lines = production_code(file).lines().count();
        let reason = reasons.iter().find(|(path, _)| *path == file.path);
        match reason {
            Some(reason) if lines > LONG => needed.push(reason),
            None if lines > LONG => breaches.push(format!("{} has {lines} lines of code", file.path)),
            _ => {}
        }
    }
    let stale = reasons.iter().filter(|reason| !needed.contains(reason));
    breaches.extend(stale.map(|(path, _)| format!("the exception for {path} is not needed")));
    breaches
}

/// Modules without an idea, and `mod.rs`.
pub(crate) fn idle_names(files: &[SourceFile]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        let stem = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        if stem == "mod" {
            breaches.push(format!("{}: modules stand in `name.rs`, not `name/mod.rs`", file.path));
        }
        if IDLE.contains(&stem) {
            breaches.push(format!("{}: the module's name says nothing", file.path));
        }
        let inline = file.text.lines().filter_map(inline_module).filter(|name| IDLE.contains(name));
        breaches.extend(inline.map(|name| format!("{}: the name of module `{name}` says nothing", file.path)));
    }
    breaches
}

/// What the pure crates reach for outside of their tests.
pub(crate) fn impurities(files: &[SourceFile]) -> Vec<String> {
    let mut breaches = Vec::new();
    let pure = |file: &&SourceFile| PURE.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")));
    for file in files.iter().filter(pure) {
        let code = production_code(file);
        let found = IMPURE.iter().filter(|word| code.contains(**word));
        breaches.extend(found.map(|word| format!("{} reaches for {word}", file.path)));
    }
    breaches
}

/// The code of a file that is not a test: nothing, if the file is one.
pub(crate) fn production_code(file: &SourceFile) -> String {
    if is_test(&file.path) { String::new() } else { without_comments(production_part(&file.text)) }
}

/// The lines that are code: neither blank nor a comment.
pub(crate) fn without_comments(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"));
    code.flat_map(|line| [line, "\n"]).collect()
}

/// What stands before the test module. `#[cfg(test)]` on anything else does not end it.
fn production_part(text: &str) -> &str {
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let opens_module = lines.peek().is_some_and(|next| next.starts_with("mod ") && next.trim_end().ends_with('{'));
        if line.trim_end() == "#[cfg(test)]" && opens_module {
            return &text[..at];
        }
        at += line.len();
    }
    text
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// The name in `mod name {`, with or without a visibility.
fn inline_module(line: &str) -> Option<&str> {
    let line = line.trim().strip_suffix('{')?.trim_end();
    let (before, name) = line.rsplit_once(' ')?;
    (before == "mod" || (before.starts_with("pub") && before.ends_with(" mod"))).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Vec<SourceFile> {
        vec![SourceFile { path: path.to_owned(), text: text.to_owned() }]
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(long_files(&file("crates/x/src/a.rs", &"f();\n".repeat(LONG)), &[]), [""; 0]);
        assert_eq!(long_files(&file("crates/x/src/a.rs", &"f();\n".repeat(LONG + 1)), &[]).len(), 1);
        assert_eq!(long_files(&file("crates/x/tests/a.rs", &"f();\n".repeat(LONG + 1)), &[]), [""; 0]);
    }

    #[test]
    fn comments_blank_lines_and_the_test_module_do_not_make_a_file_long() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "f();\n".repeat(LONG));
        let text = format!("{}{tests}", "// why\n\nf();\n".repeat(LONG));
        assert_eq!(long_files(&file("crates/x/src/a.rs", &text), &[]), [""; 0]);
    }

    #[test]
    fn code_behind_a_test_attribute_that_opens_no_module_counts() {
        let text = format!("#[cfg(test)]\nmod tests;\n{}", "f();\n".repeat(LONG));
        assert_eq!(long_files(&file("crates/x/src/a.rs", &text), &[]).len(), 1);
    }

    #[test]
    fn a_reason_for_a_file_that_is_not_long_is_found() {
        let reasons = [("crates/x/src/a.rs", "one table")];
        assert_eq!(long_files(&file("crates/x/src/a.rs", &"f();\n".repeat(LONG + 1)), &reasons), [""; 0]);
        assert_eq!(long_files(&file("crates/x/src/a.rs", "f();\n"), &reasons).len(), 1);
    }

    #[test]
    fn a_module_without_an_idea_is_found() {
        assert_eq!(idle_names(&file("crates/x/src/ring.rs", "mod tests {\n}\n")), [""; 0]);
        assert_eq!(idle_names(&file("crates/x/src/utils.rs", "")).len(), 1);
        assert_eq!(idle_names(&file("crates/x/src/ring/mod.rs", "")).len(), 1);
        assert_eq!(idle_names(&file("crates/x/src/ring.rs", "pub(crate) mod types {\n}\n")).len(), 1);
        assert_eq!(idle_names(&file("crates/x/src/ring.rs", "mod prelude {\n}\n")).len(), 1);
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_found_outside_of_its_tests() {
        let call = "fn f() { std::time::SystemTime::now(); }\n";
        assert_eq!(impurities(&file("crates/log/src/fold.rs", call)).len(), 1);
        assert_eq!(impurities(&file("crates/fanout/src/ring.rs", call)), [""; 0]);
        assert_eq!(
            impurities(&file("crates/log/src/fold.rs", &format!("#[cfg(test)]\nmod tests {{\n{call}}}\n"))),
            [""; 0]
        );
    }
}
