//! What a scenario shows: figures, and checks that hold or do not.

use std::fmt;

use serde_json::Value;

/// What was found, in the order in which it was found.
#[derive(Debug, Clone)]
pub struct Findings {
    scenario: &'static str,
    figures: Vec<(String, Value)>,
    checks: Vec<Check>,
}

#[derive(Debug, Clone)]
struct Check {
    what: String,
    holds: bool,
}

impl Findings {
    /// Nothing yet.
    #[must_use]
    pub fn of(scenario: &'static str) -> Self {
        Self { scenario, figures: Vec::new(), checks: Vec::new() }
    }

    /// A figure, which is shown and not judged.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.push((name.to_owned(), value.into()));
    }

    /// Something that has to hold, told with what was found.
    pub fn check(&mut self, what: impl Into<String>, holds: bool) {
        self.checks.push(Check { what: what.into(), holds });
    }

    /// Whether everything holds that has to.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }
}

/// A line for each figure and check, and the sum of the checks.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.figures {
            writeln!(f, "{name:<40} {value}")?;
        }
        for Check { what, holds } in &self.checks {
            writeln!(f, "{}: {what}", if *holds { "holds" } else { "failed" })?;
        }
        let holding = self.checks.iter().filter(|check| check.holds).count();
        writeln!(f, "{}: {holding} passed, {} failed", self.scenario, self.checks.len() - holding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_the_checks() {
        let mut findings = Findings::of("chaos");
        findings.figure("messages", 12);
        findings.check("0 lost", true);
        assert!(findings.hold());
        findings.check("2 repeated", false);
        assert!(!findings.hold());
        let text = findings.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..], ["holds: 0 lost", "failed: 2 repeated", "chaos: 1 passed, 1 failed"]);
        assert!(lines[0].starts_with("messages ") && lines[0].ends_with(" 12"), "{text}");
    }
}
