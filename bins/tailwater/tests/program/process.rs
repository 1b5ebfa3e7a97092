//! The program, started and stopped. Nothing of the test's own environment reaches it, and it does not outlive the test.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::http::{PATIENCE, Streams};

/// How a process that was left to itself ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process that listens.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    pub(crate) addr: SocketAddr,
}

/// The program, to be run in a directory of the test's own.
pub(crate) fn command<I: AsRef<OsStr>>(directory: &Path, args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
    command.args(args).current_dir(directory).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command that ends by itself.
pub(crate) fn run(mut command: Command) -> Output {
    let output = command.output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Program {
    /// Starts a command that listens, and waits until it does.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let stderr = collected(child.stderr.take().unwrap());
        let first = lines.recv_timeout(PATIENCE).ok();
        let addr = first.as_deref().and_then(|line| line.strip_prefix("listening on http://")?.parse().ok());
        match addr {
            Some(addr) => Self { child, lines, stderr, addr },
            None => {
                child.kill().ok();
                child.wait().ok();
                panic!("it does not listen: {first:?}, {}", stderr.lock().unwrap());
            }
        }
    }

    /// A gateway on a port of its own with its data in `directory/data`.
    pub(crate) fn serve(directory: &Path, further: &[&str]) -> Self {
        let args = [&["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"], further].concat();
        Self::start(command(directory, args))
    }

    pub(crate) fn streams(&self) -> Streams {
        Streams(self.addr)
    }

    /// The next line of its stdout, if there is one already or soon.
    pub(crate) fn line(&self) -> Option<String> {
        self.lines.recv_timeout(Duration::from_secs(5)).ok()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// SIGKILL, and the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it has not ended within {within:?}: {}", self.stderr());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks again and again until the answer is yes.
pub(crate) fn eventually(what: &str, mut question: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !question() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn lines_of(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn collected(stderr: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::<Mutex<String>>::default();
    let kept = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    text
}
