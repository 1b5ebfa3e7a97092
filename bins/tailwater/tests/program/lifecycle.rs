//! Starting beside others, and stopping.

use std::{
    fs,
    io::{BufRead as _, Read as _},
    thread,
    time::{Duration, Instant},
};

use tempfile::tempdir;

use crate::{
    http::send,
    process::{Program, command, eventually, run},
};

/// What an end may take beyond the drain window: requests, streams and the store each have their own bound.
const SLACK: Duration = Duration::from_secs(15);

fn ready(program: &Program) -> bool {
    send(program.addr, "GET", "/readyz", &[], "").is_ok_and(|answer| answer.status == 200)
}

#[test]
fn a_sigterm_ends_it_cleanly_and_in_time_with_readers_connected() {
    let directory = tempdir().unwrap();
    let program = Program::serve(directory.path(), &["--drain", "1s"]);
    program.streams().create("s", "a");
    let readers: Vec<_> = (0..20).map(|_| program.streams().follow("s")).collect();
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            thread::spawn(move || {
                let mut rest = String::new();
                reader.body.read_to_string(&mut rest).unwrap();
                rest
            })
        })
        .collect();
    let began = Instant::now();
    program.terminate();
    let status = program.ended(Duration::from_secs(1) + SLACK);
    assert_eq!(status.code(), Some(0), "after {:?}", began.elapsed());
    for reader in readers {
        let rest = reader.join().unwrap();
        assert!(rest.lines().any(|line| line.starts_with("retry: ")), "told when to come back: {rest}");
    }
    let again = Program::serve(directory.path(), &[]);
    assert_eq!(again.streams().read("s"), "a");
}

#[test]
fn a_second_sigterm_hurries() {
    let directory = tempdir().unwrap();
    let program = Program::serve(directory.path(), &["--drain", "10m"]);
    program.streams().create("s", "a");
    let _readers: Vec<_> = (0..5).map(|_| program.streams().follow("s")).collect();
    program.terminate();
    eventually("it drains", || !ready(&program));
    program.streams().append("s", "still served").expect(204);
    let began = Instant::now();
    program.terminate();
    assert_eq!(program.ended(SLACK).code(), Some(0), "after {:?}", began.elapsed());
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let directory = tempdir().unwrap();
    let first = Program::serve(directory.path(), &[]);
    first.streams().create("s", "a");
    for args in [
        ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"],
        ["store", "--listen", "127.0.0.1:0", "--data-dir", "data"],
    ] {
        let second = run(command(directory.path(), args));
        assert_eq!((second.code, second.stdout.as_str()), (Some(1), ""), "{second:?}");
        assert!(second.stderr.contains("another process"), "{}", second.stderr);
    }
    first.streams().append("s", "b").expect(204);
    assert_eq!(first.streams().read("s"), "ab");
}

#[test]
fn an_address_that_is_taken_is_a_clear_error() {
    let directory = tempdir().unwrap();
    let first = Program::start(command(directory.path(), ["serve", "--memory", "--listen", "127.0.0.1:0"]));
    let taken = first.addr.to_string();
    let second = run(command(directory.path(), ["serve", "--memory", "--listen", &taken]));
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains(&taken), "{}", second.stderr);
}

#[test]
fn two_gateways_beside_one_store_serve_the_same_streams() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("token"), "a secret\n").unwrap();
    let args = ["store", "--listen", "127.0.0.1:0", "--data-dir", "data", "--token-file", "token"];
    let store = Program::start(command(directory.path(), args));
    let endpoint = format!("http://{}", store.addr);
    let gateway = || {
        let args = ["serve", "--listen", "127.0.0.1:0", "--s2-endpoint", &endpoint, "--s2-token-file", "token"];
        Program::start(command(directory.path(), args))
    };
    let (a, b) = (gateway(), gateway());
    a.streams().create("s", "0,");
    let mut live = b.streams().follow("s");
    let mut expected = "0,".to_owned();
    for n in 1..=20 {
        let (one, other) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        one.streams().append("s", &format!("{n},")).expect(204);
        expected.push_str(&format!("{n},"));
        assert_eq!(other.streams().read("s"), expected);
    }
    let mut seen = String::new();
    while !seen.contains("data:20,") && !seen.contains(",20,") {
        assert_ne!(live.body.read_line(&mut seen).unwrap(), 0, "{seen}");
    }
    drop(live);
    let refused = send(store.addr, "GET", "/v1/basins", &[], "").unwrap();
    assert_eq!(refused.status, 401, "the store wants its token");

    for program in [a, b, store] {
        program.terminate();
        assert_eq!(program.ended(Duration::from_secs(10) + SLACK).code(), Some(0));
    }
}

#[test]
fn a_store_that_goes_away_and_comes_back_leaves_its_gateway_running() {
    let directory = tempdir().unwrap();
    let store = |listen: &str| {
        let args = ["store", "--listen", listen, "--data-dir", "data"];
        Program::start(command(directory.path(), args))
    };
    let first = store("127.0.0.1:0");
    let addr = first.addr.to_string();
    let endpoint = format!("http://{addr}");
    let args = ["serve", "--listen", "127.0.0.1:0", "--s2-endpoint", &endpoint];
    let gateway = Program::start(command(directory.path(), args));
    gateway.streams().create("s", "a");
    let mut live = gateway.streams().follow("s");
    first.kill();
    let refused = gateway.streams().append("s", "b").expect(503);
    assert!(refused.header("retry-after").is_some());
    let lost = if refused.code() == "outcome_unknown" { "ab" } else { "a" };

    let _second = store(&addr);
    eventually("the gateway is ready", || ready(&gateway));
    eventually("appends land", || {
        let headers =
            [("content-type", "text/plain"), ("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "0")];
        [200, 204].contains(&gateway.streams().send("POST", "s", &headers, "c").status)
    });
    let whole = gateway.streams().read("s");
    assert!(whole == "ac" || whole == format!("{lost}c"), "{whole}");
    let mut line = String::new();
    while line.trim_end() != "data:c" {
        line.clear();
        assert_ne!(live.body.read_line(&mut line).unwrap(), 0, "the reader has stayed");
    }
}

#[test]
fn a_disk_that_takes_no_more_is_503_in_time_and_readers_stay_until_it_does() {
    let directory = tempdir().unwrap();
    let gateway = Program::serve(directory.path(), &[]);
    gateway.streams().create("s", "a");
    let mut live = gateway.streams().follow("s");
    // Where the store's log belongs stands a file: like a full disk, every write fails, and it can be mended.
    let (log, aside) = (directory.path().join("data/wal"), directory.path().join("data/wal-aside"));
    fs::rename(&log, &aside).unwrap();
    fs::write(&log, "").unwrap();
    let began = Instant::now();
    let refused = gateway.streams().append("s", "b").expect(503);
    assert!(refused.header("retry-after").is_some());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let landed_late = refused.code() == "outcome_unknown";
    fs::remove_file(&log).unwrap();
    fs::rename(&aside, &log).unwrap();

    eventually("appends land", || {
        let headers =
            [("content-type", "text/plain"), ("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "0")];
        [200, 204].contains(&gateway.streams().send("POST", "s", &headers, "c").status)
    });
    let whole = gateway.streams().read("s");
    assert!(whole == "ac" || (landed_late && whole == "abc"), "{whole}");
    let mut line = String::new();
    while line.trim_end() != "data:c" {
        line.clear();
        assert_ne!(live.body.read_line(&mut line).unwrap(), 0, "the reader has stayed");
    }
}
