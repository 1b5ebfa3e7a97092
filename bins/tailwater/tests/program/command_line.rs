//! Flags, environment and file; what is printed, and how it exits when they are wrong.

use std::fs;

use tempfile::tempdir;

use crate::{
    http::send,
    process::{Program, command, run},
};

/// How the program exits when it was told nonsense (`EX_USAGE` of sysexits).
const BAD_CONFIGURATION: Option<i32> = Some(64);

#[test]
fn help_names_every_flag_that_scripts_rely_on() {
    let directory = tempdir().unwrap();
    let help = run(command(directory.path(), ["--help"]));
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    let flags = [
        "listen",
        "tls-cert",
        "tls-key",
        "memory",
        "data-dir",
        "s2-endpoint",
        "s2-listen",
        "basin",
        "basin-prefix",
        "single-project",
        "long-poll-timeout",
        "sse-lifetime",
        "linger",
        "drain",
        "drain-notice",
        "max-body",
        "max-connections",
        "max-requests",
        "max-connections-per-address",
        "max-connection-age",
        "trusted-proxy",
        "keep-alive",
        "header-timeout",
        "body-timeout",
        "write-timeout",
        "send-buffer",
        "memory-budget",
        "max-streams",
        "public-url",
        "config",
        "print-config",
    ];
    for flag in flags {
        assert!(
            help.stdout.contains(&format!("--{flag} "))
                || help.stdout.contains(&format!("--{flag}\n"))
                || help.stdout.contains(&format!("--{flag}[")),
            "--{flag} in {}",
            help.stdout
        );
    }
    for name in ["serve", "dev", "store"] {
        assert!(help.stdout.lines().any(|line| line.trim_start().starts_with(name)), "{name}");
        assert_eq!(run(command(directory.path(), [name, "--help"])).code, Some(0));
    }
    assert!(run(command(directory.path(), ["--version"])).stdout.starts_with("tailwater "));
}

#[test]
fn nonsense_exits_64_with_a_sentence_and_starts_nothing() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("unknown.toml"), "listen = ['127.0.0.1:0']\nlisten-to = 'x'\n").unwrap();
    fs::write(directory.path().join("wrong.toml"), "linger = 3\n").unwrap();
    let table: [(&[&str], &str); 13] = [
        (&["--config", "unknown.toml"], "listen-to"),
        (&["--config", "wrong.toml"], "linger"),
        (&["--config", "missing.toml"], "missing.toml"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--listen", "nowhere"], "nowhere"),
        (&["--linger", "soon"], "soon"),
        (&["--max-body", "much"], "much"),
        (&["--memory", "--data-dir", "data"], "exclude"),
        (&["--basin", "a-basin-of-all", "--basin-prefix", "tailwater"], "exclude"),
        (&["--s2-listen", "0.0.0.0:0", "--memory"], "token"),
        (&["--tls-cert", "tls.crt", "--memory"], "tls-key"),
        (&["--listen", "0.0.0.0:0", "--memory"], "--auth open"),
        (&["--auth", "required", "--memory"], "projects"),
    ];
    for (args, word) in table {
        let output = run(command(directory.path(), args));
        assert_eq!(output.code, BAD_CONFIGURATION, "{args:?}: {output:?}");
        assert!(output.stderr.contains(word), "{args:?}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{args:?}");
        assert!(!directory.path().join("tailwater-data").exists(), "{args:?}");
    }
    let mut wrong = command(directory.path(), ["--print-config"]);
    wrong.env("TAILWATER_LINGER", "soon");
    let output = run(wrong);
    assert_eq!(output.code, BAD_CONFIGURATION);
    assert!(output.stderr.contains("TAILWATER_LINGER"), "{}", output.stderr);
}

#[test]
fn a_certificate_that_cannot_be_used_ends_it_before_it_listens() {
    let directory = tempdir().unwrap();
    let [one, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
    fs::write(directory.path().join("one.crt"), one.cert.pem()).unwrap();
    fs::write(directory.path().join("other.key"), other.signing_key.serialize_pem()).unwrap();
    for (key, word) in
        [("missing.key", "missing.key cannot be read"), ("one.crt", "private key"), ("other.key", "is not the one")]
    {
        let args = ["--memory", "--listen", "127.0.0.1:0", "--tls-cert", "one.crt", "--tls-key", key];
        let output = run(command(directory.path(), args));
        assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{output:?}");
        assert!(output.stderr.contains(word), "{word} in {}", output.stderr);
    }
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("a.toml"), "linger = '1s'\ndrain = '1s'\nsse-lifetime = '1s'\nmax-body = '1MiB'\n")
        .unwrap();
    let mut asked = command(directory.path(), ["--print-config", "--linger", "3s"]);
    asked.env("TAILWATER_CONFIG", "a.toml").env("TAILWATER_LINGER", "2s").env("TAILWATER_DRAIN", "2s");
    let output = run(asked);
    assert_eq!(output.code, Some(0), "{output:?}");
    for (name, value) in [("linger", "3s"), ("drain", "2s"), ("sse-lifetime", "1s"), ("max-body", "1MiB")] {
        let line = format!("{name} = \"{value}\"");
        assert!(output.stdout.lines().any(|own| own == line), "{line} in {}", output.stdout);
    }
    // What is printed is a file that says the same.
    fs::write(directory.path().join("b.toml"), &output.stdout).unwrap();
    let again = run(command(directory.path(), ["--print-config", "--config", "b.toml"]));
    assert_eq!(again.stdout, output.stdout, "{}", again.stderr);
}

#[test]
fn what_is_printed_holds_no_secret() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("token"), "hunter2").unwrap();
    let args = ["--print-config", "--s2-endpoint", "http://user:hunter2@127.0.0.1:1", "--s2-token-file", "token"];
    let output = run(command(directory.path(), args));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("127.0.0.1:1") && !output.stdout.contains("hunter2"), "{}", output.stdout);
    assert!(!output.stderr.contains("hunter2"));
}

#[test]
fn without_a_word_it_serves_from_a_directory_of_its_own() {
    let directory = tempdir().unwrap();
    let output = run(command(directory.path(), ["--print-config"]));
    assert!(output.stdout.contains("127.0.0.1:4437") && output.stdout.contains("tailwater-data"), "{}", output.stdout);
    let program = Program::start(command(directory.path(), ["--listen", "127.0.0.1:0"]));
    program.streams().create("s", "a");
    assert!(directory.path().join("tailwater-data").is_dir());
}

#[test]
fn every_listener_has_its_line_and_serves() {
    let directory = tempdir().unwrap();
    let args = ["dev", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let program = Program::start(command(directory.path(), args));
    let second = program.line().unwrap();
    let second = second.strip_prefix("listening on http://").unwrap().parse().unwrap();
    program.streams().create("s", "a");
    assert_eq!(send(second, "GET", "/v1/stream/s", &[], "").unwrap().expect(200).body, "a");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "`dev` leaves nothing behind");
}

#[test]
fn the_commands_that_are_printed_work_as_they_stand() {
    let directory = tempdir().unwrap();
    let program = Program::start(command(directory.path(), ["serve", "--memory", "--listen", "127.0.0.1:0"]));
    let mut bodies = Vec::new();
    while let Some(line) = program.line() {
        let Some(arguments) = line.trim().strip_prefix("curl ") else { continue };
        let curl = Curl::parse(arguments);
        if curl.stays {
            assert!(curl.url.ends_with("?offset=-1&live=sse"), "{line}");
            break;
        }
        let headers: Vec<_> = curl.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let path = curl.url.strip_prefix(&format!("http://{}", program.addr)).unwrap();
        let answer = send(program.addr, &curl.method, path, &headers, &curl.body).unwrap();
        assert!((200..300).contains(&answer.status), "{line}: {answer:?}");
        bodies.push(answer.body);
    }
    assert_eq!(bodies.last().map(String::as_str), Some("hello, world"), "{bodies:?}");
    let mut live = program.streams().follow("hello");
    let mut events = String::new();
    while !events.contains("upToDate") {
        std::io::BufRead::read_line(&mut live.body, &mut events).unwrap();
    }
    assert!(events.contains("data:hello, world"), "{events}");
}

/// What a `curl` command asks for.
struct Curl {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
    /// Its output is not buffered: it is to be watched.
    stays: bool,
}

impl Curl {
    fn parse(arguments: &str) -> Self {
        let mut curl = Self {
            method: "GET".to_owned(),
            url: String::new(),
            headers: Vec::new(),
            body: String::new(),
            stays: false,
        };
        let mut words = words(arguments).into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap();
            match word.as_str() {
                "-X" => curl.method = value(),
                "-d" => curl.body = value(),
                "-N" => curl.stays = true,
                "-H" => {
                    let header = value();
                    let (name, value) = header.split_once(": ").unwrap();
                    curl.headers.push((name.to_owned(), value.to_owned()));
                }
                url => curl.url = url.to_owned(),
            }
        }
        curl
    }
}

/// Words as a shell splits them, where single quotes are the only ones.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}
