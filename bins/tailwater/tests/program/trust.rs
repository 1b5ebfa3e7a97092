//! Projects and tokens: made by the program, taken by the program, and not told to anybody.

use std::{fs, path::Path, process::Stdio};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tempfile::tempdir;

use crate::{
    http::send,
    process::{Program, command, eventually, run},
};

const TEXT: (&str, &str) = ("content-type", "text/plain");

/// A project of the program's own making.
pub(crate) fn project(directory: &Path, id: &str) -> String {
    let made = run(command(directory, ["project", "new", id]));
    assert_eq!(made.code, Some(0), "{made:?}");
    made.stdout
}

pub(crate) fn minted(directory: &Path, further: &[&str]) -> String {
    let args = [&["token", "mint", "--projects", "projects.toml", "--project", "chat"], further].concat();
    let made = run(command(directory, args));
    assert_eq!(made.code, Some(0), "{made:?}");
    format!("Bearer {}", made.stdout.trim())
}

pub(crate) fn replace(directory: &Path, text: &str) {
    fs::write(directory.join("aside"), text).unwrap();
    fs::rename(directory.join("aside"), directory.join("projects.toml")).unwrap();
}

#[test]
fn who_has_a_token_gets_in_and_new_projects_are_taken_without_a_restart() {
    let directory = tempdir().unwrap();
    let directory = directory.path();
    let first = project(directory, "chat");
    replace(directory, &first);
    let args = ["serve", "--memory", "--listen", "127.0.0.1:0", "--projects", "projects.toml", "--log", "trace"];
    let program = Program::start(command(directory, args));
    let streams = program.streams();
    eventually("it is known what was revoked", || streams.send("GET", "chat/s", &[], "").status != 503);
    assert_eq!(streams.send("PUT", "chat/s", &[TEXT], "a").expect(401).code(), "token_needed");
    assert_eq!(streams.send("PUT", "s", &[TEXT], "a").expect(401).code(), "token_needed");
    let writer = minted(directory, &["--scope", "read", "--scope", "write", "--stream", "s"]);
    let authorized = ("authorization", writer.as_str());
    streams.send("PUT", "chat/s", &[TEXT, authorized], "a").expect(201);
    assert_eq!(streams.send("GET", "chat/s", &[authorized], "").expect(200).body, "a");
    assert_eq!(streams.send("PUT", "chat/t", &[TEXT, authorized], "").expect(403).code(), "stream_not_allowed");
    assert_eq!(streams.send("GET", "chat/t", &[authorized], "").expect(404).code(), "stream_not_found");

    replace(directory, "nonsense");
    eventually("the fault is logged", || program.stderr().contains("the projects were not replaced"));
    streams.send("GET", "chat/s", &[authorized], "").expect(200);
    let second = project(directory, "chat");
    replace(directory, &(second.clone() + &project(directory, "more")));
    eventually("the old secret counts no more", || streams.send("GET", "chat/s", &[authorized], "").status == 401);
    let reader = minted(directory, &["--scope", "read"]);
    assert_eq!(streams.send("GET", "chat/s", &[("authorization", &reader)], "").expect(200).body, "a");

    let log = program.stderr();
    for secret in [&first, &second].map(|table| table.split('"').nth_back(1).unwrap()) {
        assert_eq!(secret.len(), 64);
        assert!(!log.contains(secret), "a secret is in the log");
    }
    for token in [&writer, &reader] {
        for part in token.trim_start_matches("Bearer ").split('.') {
            assert!(!log.contains(part), "a part of a token is in the log");
        }
    }
}

#[test]
fn the_commands_that_are_printed_ask_for_a_token() {
    let directory = tempdir().unwrap();
    replace(directory.path(), &project(directory.path(), "chat"));
    let args = ["serve", "--memory", "--listen", "127.0.0.1:0", "--projects", "projects.toml"];
    let program = Program::start(command(directory.path(), args));
    let lines: Vec<_> = std::iter::from_fn(|| program.line().filter(|line| !line.contains("live=sse"))).collect();
    let mint = "  TOKEN=$(tailwater token mint --projects 'projects.toml' --project chat --scope read --scope write)";
    assert!(lines.iter().any(|line| line == mint), "{lines:?}");
    let curls: Vec<_> = lines.iter().filter(|line| line.starts_with("  curl ")).collect();
    assert_eq!(curls.len(), 3);
    for curl in curls {
        assert!(curl.contains("/v1/stream/chat/hello -H \"Authorization: Bearer $TOKEN\""), "{curl}");
    }
}

#[test]
fn projects_of_run_time_are_made_by_http_and_outlast_the_process_without_being_told_to_the_log() {
    let directory = tempdir().unwrap();
    let directory = directory.path();
    let operator = "the-credential-of-an-operator-42-characters";
    fs::write(directory.join("operator"), operator).unwrap();
    let args =
        ["--auth", "required", "--admin-token-file", "operator", "--audit-stream", "chat/audit", "--log", "trace"];
    let program = Program::serve(directory, &args);
    let lines: Vec<_> = std::iter::from_fn(|| program.line().filter(|line| !line.contains("live=sse"))).collect();
    assert!(
        lines.iter().any(|line| line.contains("/v1/admin/projects") && line.contains("$(cat 'operator')")),
        "{lines:?}"
    );
    let bearer = format!("Bearer {operator}");
    let admin = |program: &Program, method: &str, path: &str, body: &str| {
        let headers = [("authorization", bearer.as_str())];
        send(program.addr, method, &format!("/v1/admin/projects{path}"), &headers, body).unwrap()
    };
    let made = project(directory, "chat");
    eventually("the register is read", || program.streams().send("GET", "chat/s", &[], "").status == 401);
    admin(&program, "POST", "", &made).expect(201);
    let added = admin(&program, "POST", "/chat/keys", "{\"id\":\"2\",\"first\":true}").expect(201);
    let minted = |program: &Program, id: &str| {
        let wanted = format!("{{\"scope\":[\"read\",\"write\"],\"id\":\"{id}\"}}");
        let made = admin(program, "POST", "/chat/tokens", &wanted).expect(201);
        let made: serde_json::Value = serde_json::from_str(&made.body).unwrap();
        format!("Bearer {}", made["token"].as_str().unwrap())
    };
    let (kept, gone) = (minted(&program, "kept"), minted(&program, "gone"));
    program.streams().send("PUT", "chat/s", &[TEXT, ("authorization", &gone)], "a").expect(201);
    admin(&program, "POST", "/chat/revocations", "{\"id\":\"gone\"}").expect(200);
    program.streams().send("GET", "chat/s", &[("authorization", &gone)], "").expect(401);
    let log = program.stderr();
    program.kill();

    let program = Program::serve(directory, &args);
    let read = |token: &str| program.streams().send("GET", "chat/s", &[("authorization", token)], "").status;
    eventually("the register is read", || read(&kept) == 200);
    assert_eq!(read(&gone), 401);
    let audit = program.streams().send("GET", "chat/audit?offset=-1", &[("authorization", &kept)], "").expect(200).body;
    assert!(audit.contains("\"act\":\"revoke\"") && audit.contains("\"outcome\":\"done\""), "{audit}");

    let told = log + &program.stderr() + &audit;
    assert!(told.contains("the register is known"));
    let added: serde_json::Value = serde_json::from_str(&added.body).unwrap();
    for secret in [made.split('"').nth_back(1).unwrap(), added["secret"].as_str().unwrap(), operator] {
        assert!(secret.len() > 40 && !told.contains(secret), "a secret is told");
    }
    for part in [&kept, &gone].into_iter().flat_map(|token| token.trim_start_matches("Bearer ").split('.')) {
        assert!(!told.contains(part), "a part of a token is told");
    }
}

#[test]
fn a_token_is_looked_into_without_being_on_a_command_line() {
    let directory = tempdir().unwrap();
    let directory = directory.path();
    replace(directory, &project(directory, "chat"));
    let token = minted(directory, &["--scope", "manage", "--expires-in", "5m"]);
    fs::write(directory.join("token"), token.trim_start_matches("Bearer ")).unwrap();
    let mut inspect = command(directory, ["token", "inspect", "--projects", "projects.toml"]);
    inspect.stdin(Stdio::from(fs::File::open(directory.join("token")).unwrap()));
    let shown = run(inspect);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("\"scope\": \"manage\"") && shown.stdout.contains("it counts for"), "{shown:?}");
    let listed = run(command(directory, ["project", "list", "projects.toml"]));
    assert_eq!(listed.stdout, "chat: private; keys 1(HS256); origins none; 0 tokens revoked\n");
    let wrong = run(command(directory, ["project", "list", "token"]));
    assert_eq!(wrong.code, Some(64));
    assert!(!wrong.stderr.contains(token.rsplit_once('.').unwrap().1), "{wrong:?}");
}

/// Requests over HTTP/2 and over HTTP/1.1, with a token in the header.
async fn ask(client: &Client<HttpConnector, Full<Bytes>>, url: &str, bearer: &str) -> (StatusCode, String) {
    let request = Request::get(url).header("authorization", bearer).body(Full::default()).unwrap();
    let answer = client.request(request).await.unwrap();
    let status = answer.status();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn no_part_of_a_token_is_told_at_any_level_over_either_version() {
    let directory = tempdir().unwrap();
    let directory = directory.path();
    replace(directory, &project(directory, "chat"));
    let operator = "the-credential-of-an-operator-42-characters";
    fs::write(directory.join("operator"), operator).unwrap();
    let args = ["serve", "--memory", "--listen", "127.0.0.1:0", "--projects", "projects.toml", "--log", "trace"];
    let program = Program::start(command(directory, [&args[..], &["--admin-token-file", "operator"]].concat()));
    let good = minted(directory, &["--scope", "read", "--scope", "write"]);
    let dead = minted(directory, &["--scope", "read", "--expires-in", "1s", "--stream", "elsewhere"]);
    let headers = [TEXT, ("authorization", good.as_str())];
    program.streams().send("PUT", "chat/s", &headers, "a").expect(201);
    let root = format!("http://{}", program.addr);
    let clients = [true, false].map(|http2| Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
    let mut told = String::new();
    for client in &clients {
        let junk = format!("{good}x");
        for (bearer, status) in [(&good, 200), (&dead, 404), (&junk, 401)] {
            let (answered, body) = ask(client, &format!("{root}/v1/stream/chat/s"), bearer).await;
            // The short one may have expired by now.
            assert!(answered == status || bearer == &dead && answered == 401, "{answered} {body}");
            told += &body;
        }
        let operator = format!("Bearer {operator}");
        let (answered, body) = ask(client, &format!("{root}/v1/admin/projects"), &operator).await;
        assert_eq!(answered, 200, "{body}");
        told += &body;
        told += &ask(client, &format!("{root}/metrics"), &good).await.1;
    }
    told += &program.stderr();
    assert!(told.contains("tailwater_http_requests_total") && told.contains("\"projects\""));
    for secret in [&good, &dead].into_iter().flat_map(|token| token.trim_start_matches("Bearer ").split('.')) {
        assert!(!told.contains(secret), "a part of a token was told");
    }
    assert!(!told.contains(operator), "the operator's credential was told");
}

#[test]
fn a_key_is_rotated_by_commands_and_a_project_has_a_basin_of_its_own() {
    let directory = tempdir().unwrap();
    let directory = directory.path();
    let placed = project(directory, "chat").replacen("visibility", "basin = \"acme-events\"\nvisibility", 1);
    replace(directory, &placed);
    let args = ["serve", "--memory", "--listen", "127.0.0.1:0", "--projects", "projects.toml"];
    let program = Program::start(command(directory, args));
    let streams = program.streams();
    let first = minted(directory, &["--scope", "read", "--scope", "write"]);
    streams.send("PUT", "chat/s", &[TEXT, ("authorization", &first)], "a").expect(201);
    eventually("the basin is made", || program.stderr().contains("acme-events"));

    let key = |verb: &str| {
        let changed = run(command(directory, ["project", "key", verb, "projects.toml", "chat", "2"]));
        assert_eq!((changed.code, changed.stdout.as_str()), (Some(0), ""), "{changed:?}");
    };
    key("add");
    key("promote");
    let second = minted(directory, &["--scope", "read"]);
    eventually("the new key counts", || streams.send("GET", "chat/s", &[("authorization", &second)], "").status == 200);
    streams.send("GET", "chat/s", &[("authorization", &first)], "").expect(200);
    let removed = run(command(directory, ["project", "key", "remove", "projects.toml", "chat", "1"]));
    assert_eq!(removed.code, Some(0), "{removed:?}");
    eventually("the old key counts no more", || {
        streams.send("GET", "chat/s", &[("authorization", &first)], "").status == 401
    });
    streams.send("GET", "chat/s", &[("authorization", &second)], "").expect(200);
    let last = run(command(directory, ["project", "key", "remove", "projects.toml", "chat", "2"]));
    assert_eq!(last.code, Some(64));
    assert!(last.stderr.contains("the last one stays"), "{last:?}");

    let moved = fs::read_to_string(directory.join("projects.toml")).unwrap().replace("acme-events", "other-events");
    replace(directory, &moved);
    eventually("the move is refused", || program.stderr().contains("is settled when the program starts"));
    streams.send("GET", "chat/s", &[("authorization", &second)], "").expect(200);
}
