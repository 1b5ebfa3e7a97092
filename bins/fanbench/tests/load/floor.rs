//! The floor server, for one test.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use crate::program;

/// A floor server that ends with its test.
pub(crate) struct Floor {
    process: Child,
    /// What stands before the names of streams.
    pub(crate) url: String,
}

impl Floor {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut process = program()
            .arg("floor")
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("listening on ").expect("it says where it listens");
        let url = format!("http://{address}/v1/stream/bench");
        Self { process, url }
    }

    pub(crate) fn pid(&self) -> String {
        self.process.id().to_string()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended by itself, which its test has noticed.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
