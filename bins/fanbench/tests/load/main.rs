//! The program from outside: every load against its own floor server, and every check against a server that is made to
//! break it. A check that cannot fail would let a wrong figure pass, so each has a test in which it does.

mod floor;
mod metrics;
mod scripted;

mod checks;
mod loads;
mod progress;
mod s2;
mod sources;

use std::{fs, process::Command};

use serde_json::Value;

/// What a run of the program came to.
struct Outcome {
    code: Option<i32>,
    report: Value,
    stdout: String,
    stderr: String,
}

/// The program that is tested.
fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fanbench"))
}

/// Runs a load against `url` to its end.
fn run(command: &str, url: &str, flags: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let output = program().arg(command).args(["--url", url]).args(flags).arg("--json").arg(&json).output();
    let output = output.expect("the program starts");
    let text = fs::read_to_string(&json).unwrap_or_else(|_| "null".to_owned());
    Outcome {
        code: output.status.code(),
        report: serde_json::from_str(&text).expect("the report is JSON"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Outcome {
    /// A number of the report, by its path.
    fn number(&self, path: &str) -> f64 {
        self.report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path}: {self}"))
    }

    /// Fails unless every check of the run held.
    fn expect_ok(self) -> Self {
        assert_eq!((self.code, &self.report["ok"]), (Some(0), &Value::Bool(true)), "{self}");
        assert_eq!(self.number("/failures_total") as u64, 0);
        assert!(self.stdout.contains("every check held"), "{self}");
        self
    }

    /// Fails unless a check of the run failed and said this.
    fn expect_failure(&self, what: &str) {
        assert_eq!((self.code, &self.report["ok"]), (Some(1), &Value::Bool(false)), "{self}");
        let failures = self.report["failures"].as_array().expect("a list of failures");
        let told = failures.iter().filter_map(Value::as_str).any(|failure| failure.contains(what));
        assert!(told, "no failure says {what:?}: {self}");
        assert!(self.stdout.contains("FAILED"), "{self}");
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n{:#}\n{}\n{}", self.code, self.report, self.stdout, self.stderr)
    }
}
