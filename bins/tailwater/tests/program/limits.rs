//! What happens where the machine gives no more: descriptors.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use tempfile::tempdir;

use crate::{
    http::PATIENCE,
    process::{Program, command, eventually, run},
};

/// The program with no more than so many files open at once.
fn limited(directory: &Path, descriptors: usize, args: &[&str]) -> Command {
    let plain = command(directory, args);
    let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    let mut limited = Command::new("/bin/sh");
    limited.args([OsStr::new("-c"), OsStr::new(&script), plain.get_program()]).args(plain.get_args());
    limited.current_dir(directory).env_clear().stdin(std::process::Stdio::null());
    limited.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    limited
}

/// A connection that stays open between its requests.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// The status and the body of an answer.
    fn send(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: {length}");
        self.0.get_mut().write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        let (mut lines, mut line) = (Vec::new(), String::new());
        while self.0.read_line(&mut line).unwrap() > 2 {
            lines.push(std::mem::take(&mut line).trim_end().to_ascii_lowercase());
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let length =
            lines.iter().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}

#[test]
fn at_the_descriptor_limit_new_connections_are_refused_and_readers_live_on() {
    let directory = tempdir().unwrap();
    let args =
        ["serve", "--memory", "--listen", "127.0.0.1:0", "--max-connections", "100000", "--header-timeout", "10m"];
    let program = Program::start(limited(directory.path(), 160, &args));
    program.streams().create("s", "first");
    let mut readers: Vec<_> = (0..20).map(|_| program.streams().follow("s")).collect();

    let mut kept = Vec::new();
    let refused = loop {
        let mut connection = Kept::connect(program.addr);
        match connection.send("GET", "/health", "") {
            (200, _) => kept.push(connection),
            other => break other,
        }
        assert!(kept.len() < 160, "more connections than descriptors");
    };
    assert_eq!(refused.0, 503, "{refused:?}");
    assert!(refused.1.contains("too_many_connections"), "{refused:?}");
    for _ in 0..3 {
        assert_eq!(Kept::connect(program.addr).send("GET", "/health", "").0, 503, "again and again");
    }
    let (_, metrics) = kept[0].send("GET", "/metrics", "");
    assert!(metrics.contains("tailwater_connections_refused_total{limit=\"descriptors\"} 4"), "{metrics}");
    assert_eq!(kept[0].send("POST", "/v1/stream/s", "second").0, 204);
    for reader in &mut readers {
        let mut line = String::new();
        while line.trim_end() != "data:second" {
            line.clear();
            assert_ne!(reader.body.read_line(&mut line).unwrap(), 0, "the reader has stayed");
        }
    }

    kept.truncate(1);
    eventually("connections are let in again", || Kept::connect(program.addr).send("GET", "/health", "").0 == 200);
    program.terminate();
    assert_eq!(program.ended(PATIENCE).code(), Some(0));
}

/// A client that never asks to the end, and never reads.
fn dawdler(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    stream
}

#[test]
fn at_the_descriptor_limit_nobody_waits_for_the_refusal_of_a_client_that_neither_asks_nor_leaves() {
    let directory = tempdir().unwrap();
    let args =
        ["serve", "--memory", "--listen", "127.0.0.1:0", "--max-connections", "100000", "--header-timeout", "10m"];
    let program = Program::start(limited(directory.path(), 160, &args));
    let mut kept = Vec::new();
    loop {
        let mut connection = Kept::connect(program.addr);
        if connection.send("GET", "/health", "").0 != 200 {
            break;
        }
        kept.push(connection);
        assert!(kept.len() < 160, "more connections than descriptors");
    }

    let dawdlers: Vec<_> = (0..12).map(|_| dawdler(program.addr)).collect();
    eventually("all of them are being refused", || {
        let (_, metrics) = kept[0].send("GET", "/metrics", "");
        metrics.contains("tailwater_connections_refused_total{limit=\"descriptors\"} 13")
    });
    assert_eq!(Kept::connect(program.addr).send("GET", "/health", "").0, 503);
    for mut dawdler in &dawdlers {
        dawdler.set_nonblocking(true).unwrap();
        let error = dawdler.read(&mut [0]).expect_err("it has not been given up yet");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    // More than are refused at once, and each ends in time; and so often that descriptors which are given up come back.
    let more: Vec<_> = (0..20).map(|_| dawdler(program.addr)).collect();
    for _ in 0..40 {
        assert_eq!(Kept::connect(program.addr).send("GET", "/health", "").0, 503);
    }
    drop((dawdlers, more));
    kept.truncate(1);
    eventually("connections are let in again", || Kept::connect(program.addr).send("GET", "/health", "").0 == 200);
    program.terminate();
    assert_eq!(program.ended(PATIENCE).code(), Some(0));
}

#[test]
fn the_limit_follows_from_the_files_that_may_be_open() {
    let directory = tempdir().unwrap();
    for (args, line) in [
        (&["--print-config"][..], "max-connections = 100"),
        (&["--print-config", "--max-connections", "7"], "max-connections = 7"),
    ] {
        let output = run(limited(directory.path(), 200, args));
        assert!(output.stdout.lines().any(|own| own == line), "{line} in {output:?}");
    }
}
