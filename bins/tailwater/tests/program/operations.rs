//! Where operations are, as the program is started; and what it writes to the log of what clients have chosen.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use tempfile::tempdir;

use crate::{
    http::{PATIENCE, send},
    process::{Program, command, eventually},
};

fn status(addr: SocketAddr, path: &str) -> u16 {
    send(addr, "GET", path, &[], "").unwrap().status
}

fn started(args: &[&str]) -> Program {
    let directory = tempdir().unwrap();
    Program::start(command(directory.path(), [&["serve", "--memory", "--log", "info"][..], args].concat()))
}

#[test]
fn operations_are_apart_from_clients_where_that_was_said() {
    let program = started(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let line = program.line().unwrap();
    let operations = line.strip_prefix("operations on http://").unwrap().parse().unwrap();
    program.streams().create("s", "a");
    for (path, at_clients, at_operations) in [
        ("/metrics", 404, 200),
        ("/debug/profile?seconds=1", 404, 200),
        ("/v1/stream/s", 200, 404),
        ("/health", 200, 200),
        ("/readyz", 200, 200),
    ] {
        assert_eq!((status(program.addr, path), status(operations, path)), (at_clients, at_operations), "{path}");
    }
    program.terminate();
    assert_eq!(program.ended(PATIENCE).code(), Some(0));
}

#[test]
fn beyond_loopback_operations_are_nowhere_and_the_program_says_so() {
    let program = started(&["--listen", "0.0.0.0:0", "--auth", "open"]);
    let addr = SocketAddr::from(([127, 0, 0, 1], program.addr.port()));
    for (path, expected) in [("/metrics", 404), ("/debug/profile", 404), ("/health", 200), ("/readyz", 200)] {
        assert_eq!(status(addr, path), expected, "{path}");
    }
    eventually("it says how to have them", || program.stderr().contains("--admin-listen"));
    let program = started(&["--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"]);
    let line = program.line().unwrap();
    let operations: SocketAddr = line.strip_prefix("operations on http://").unwrap().parse().unwrap();
    let operations = SocketAddr::from(([127, 0, 0, 1], operations.port()));
    assert_eq!((status(operations, "/metrics"), status(operations, "/debug/profile")), (200, 404));
    eventually("it warns", || program.stderr().contains("can read the metrics"));
}

/// Whether a character ends a line, colours it, turns it around or hides in it.
fn hides(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}')
}

#[test]
fn what_clients_choose_cannot_make_or_hide_a_line_of_the_log() {
    let hostile = "\u{202e}x\u{2028}y\u{9b}31mz\u{feff}";
    let requests = [
        "PUT /v1/stream/a%0Aforged%1B%5B31m HTTP/1.0\r\n\r\n".to_owned(),
        format!("PUT /v1/stream/{hostile} HTTP/1.0\r\ncontent-type: text/plain\r\n\r\n"),
        format!(
            "GET /{hostile} HTTP/1.0\r\nhost: {hostile}\r\norigin: {hostile}\r\nauthorization: Bearer {hostile}\r\n\r\n"
        ),
        format!(
            "POST /v1/stream/s HTTP/1.0\r\nproducer-id: {hostile}\r\nproducer-epoch: {hostile}\r\nproducer-seq: 1\r\n\r\n"
        ),
        format!(
            "PUT /v1/stream/t HTTP/1.0\r\ncontent-type: {hostile}\r\nstream-forked-from: /v1/stream/{hostile}\r\n\r\n"
        ),
        format!("{hostile} / HTTP/1.0\r\n\r\n"),
        "GET / HTTP/1.1\r\nx: a\u{1b}[2J\nb\r\n\r\n".to_owned(),
    ];
    for format in ["text", "json"] {
        let directory = tempdir().unwrap();
        let args = ["serve", "--memory", "--listen", "127.0.0.1:0", "--log", "trace", "--log-format", format];
        let program = Program::start(command(directory.path(), args));
        for request in &requests {
            let mut stream = TcpStream::connect(program.addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            // Whatever is answered.
            drop(stream.read_to_end(&mut Vec::new()));
        }
        assert_eq!(status(program.addr, "/last"), 404);
        eventually("all was logged", || program.stderr().contains("/last"));
        let log = program.stderr();
        assert!(log.contains("forged"), "{log}");
        for line in log.lines() {
            assert!(!line.contains(hides), "{line:?}");
            let begins = if format == "json" { "{\"timestamp\":" } else { "20" };
            assert!(line.starts_with(begins), "{line:?}");
        }
    }
}
