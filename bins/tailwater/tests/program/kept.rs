//! What an earlier version has left on disk: every data directory in `tests/data` is opened, and has to tell what it
//! told when it was written.
//!
//! There is one for each version that wrote anything differently, and one for this version; each file of it is
//! compressed by itself. With `TAILWATER_KEEP_DATA=1` this version's is written, and beside the fold of `crates/log` the
//! records that stand in it, which are folded there; both are committed then, and never changed again.

mod records;

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use tempfile::tempdir;

use crate::{
    http::{Answer, Streams},
    process::Program,
};

const TEXT: (&str, &str) = ("content-type", "text/plain");
const JSON: (&str, &str) = ("content-type", "application/json");
/// More than one batch of the store takes.
const LARGE: usize = 1_100_000;
/// Beside a data directory: what it tells.
const TOLD: &str = "told.txt";
/// The store's own; nothing stands in it.
const LOCK: &str = "tailwater.lock";
/// How long a process may take to end in good order.
const END: Duration = Duration::from_secs(30);

/// Streams, by what there is to be known of them.
const STREAMS: [&str; 12] =
    ["text", "json", "bytes", "long", "large", "closed", "deleted", "anew", "producers", "numbered", "fork", "source"];
/// Those of which the log is kept, too: of a deleted stream none is left.
const LOGS: [&str; 11] =
    ["text", "json", "bytes", "long", "large", "closed", "anew", "producers", "numbered", "fork", "source"];

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Where the fold finds the records that a version wrote.
fn kept_records() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/log/src/kept");
    folder.join(concat!(env!("CARGO_PKG_VERSION"), ".txt"))
}

/// One of everything that a log can hold.
fn write(streams: &Streams) {
    let producer = |epoch: &'static str, seq: &'static str| {
        [JSON, ("producer-id", "p"), ("producer-epoch", epoch), ("producer-seq", seq)]
    };
    streams.create("text", "one,");
    streams.append("text", "two,").expect(204);
    streams.send("PUT", "json", &[JSON], "[{\"a\":\"ä\"},1.0]").expect(201);
    streams.send("POST", "json", &[JSON], "[[1,2],null]").expect(204);
    streams.send("PUT", "bytes", &[("content-type", "application/octet-stream")], "\u{1}\u{0}\u{7f}").expect(201);
    streams.send("PUT", "long", &[JSON, ("stream-expires-at", "2999-01-01T00:00:00Z")], "").expect(201);
    for _ in 0..5 {
        let many: Vec<u32> = (0..60).collect();
        streams.send("POST", "long", &[JSON], &serde_json::to_string(&many).unwrap()).expect(204);
    }
    streams.create("large", &"x".repeat(LARGE));
    streams.append("large", "behind it").expect(204);
    streams.create("closed", "last");
    let as_producer = [("producer-id", "p"), ("producer-epoch", "1"), ("producer-seq", "0")];
    let closing = [[TEXT, ("stream-closed", "true")].as_slice(), &as_producer].concat();
    streams.send("POST", "closed", &closing, "!").expect(200);
    for stream in ["deleted", "anew"] {
        streams.create(stream, "old");
        streams.send("DELETE", stream, &[], "").expect(204);
    }
    streams.create("anew", "new");
    streams.send("PUT", "producers", &[JSON], "").expect(201);
    for (epoch, seq) in [("0", "0"), ("0", "1"), ("4", "0"), ("4", "1")] {
        streams.send("POST", "producers", &producer(epoch, seq), "[\"a\",\"b\"]").expect(200);
    }
    streams.create("numbered", "");
    streams.send("POST", "numbered", &[TEXT, ("stream-seq", "m")], "m").expect(204);
    streams.create("source", "inherited,");
    streams.send("PUT", "fork", &[("stream-forked-from", "/v1/stream/source")], "").expect(201);
    streams.append("fork", "own").expect(204);
    streams.send("DELETE", "source", &[], "").expect(204);
}

/// What there is to be known, a line for each stream.
fn tell(streams: &Streams) -> String {
    STREAMS.map(|stream| tell_one(streams, stream)).concat()
}

fn tell_one(streams: &Streams, stream: &str) -> String {
    let head = streams.send("HEAD", stream, &[], "");
    let mut line = format!("{stream}: {}", head.status);
    for name in ["content-type", "stream-next-offset", "stream-closed", "stream-expires-at"] {
        line.push_str(&head.header(name).map(|value| format!(" {name}={value}")).unwrap_or_default());
    }
    if head.status == 200 {
        let whole = streams.read(stream);
        let sum = whole.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let start: String = whole.chars().take(60).collect();
        line.push_str(&format!(" {} bytes, {sum:016x}, {start:?}", whole.len()));
    }
    line + "\n"
}

/// What is decided by what was written: the same answers as ever, and no new message.
fn decide(streams: &Streams) {
    let claim = |stream: &str, (epoch, seq): (&str, &str), further: &[(&str, &str)]| -> Answer {
        let headers = [("producer-id", "p"), ("producer-epoch", epoch), ("producer-seq", seq)];
        streams.send("POST", stream, &[further, &headers].concat(), "[0]")
    };
    assert_eq!(claim("producers", ("4", "1"), &[JSON]).expect(204).header("producer-seq"), Some("1"));
    assert_eq!(claim("producers", ("3", "9"), &[JSON]).expect(403).header("producer-epoch"), Some("4"));
    assert_eq!(claim("producers", ("4", "7"), &[JSON]).expect(409).header("producer-expected-seq"), Some("2"));
    claim("closed", ("1", "0"), &[TEXT, ("stream-closed", "true")]).expect(204);
    assert_eq!(claim("closed", ("1", "1"), &[TEXT]).expect(409).code(), "stream_closed");
    let seq = streams.send("POST", "numbered", &[TEXT, ("stream-seq", "c")], "c").expect(409);
    assert_eq!(seq.code(), "stream_seq_not_greater");
    streams.send("HEAD", "source", &[], "").expect(410);
    streams.send("PUT", "text", &[JSON], "").expect(409);
}

/// Life goes on.
fn go_on(streams: &Streams) {
    for stream in ["text", "large", "anew", "fork"] {
        let before = streams.read(stream);
        streams.append(stream, "further").expect(204);
        assert_eq!(streams.read(stream), before + "further");
    }
    let next = [JSON, ("producer-id", "p"), ("producer-epoch", "4"), ("producer-seq", "2")];
    streams.send("POST", "producers", &next, "[\"c\"]").expect(200);
    streams.create("deleted", "again");
}

fn stop(program: Program) {
    program.terminate();
    assert_eq!(program.ended(END).code(), Some(0));
}

#[test]
fn what_this_version_writes_it_tells_again() {
    let directory = tempdir().unwrap();
    let program = Program::serve(directory.path(), &[]);
    write(&program.streams());
    let told = tell(&program.streams());
    decide(&program.streams());
    stop(program);
    let data = directory.path().join("data");
    let packed = tempdir().unwrap();
    each_file(&data, packed.path(), pack);
    let records = records::tell(&data, &LOGS);
    if env::var_os("TAILWATER_KEEP_DATA").is_some() {
        let folder = kept().join(env!("CARGO_PKG_VERSION"));
        each_file(packed.path(), &folder.join("data"), |from, to| {
            fs::copy(from, to).unwrap();
        });
        fs::write(folder.join(TOLD), &told).unwrap();
        fs::create_dir_all(kept_records().parent().unwrap()).unwrap();
        fs::write(kept_records(), &records).unwrap();
    }
    assert_tells(packed.path(), &told);
}

#[test]
fn what_earlier_versions_have_written_is_told_as_they_told_it() {
    let versions: Vec<PathBuf> = fs::read_dir(kept()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(versions.iter().any(|folder| folder.ends_with(env!("CARGO_PKG_VERSION"))), "this version's is missing");
    for folder in versions {
        assert_tells(&folder.join("data"), &fs::read_to_string(folder.join(TOLD)).unwrap());
    }
}

/// Opens what was packed; it has to tell what it told, and to go on.
#[track_caller]
fn assert_tells(packed: &Path, told: &str) {
    let directory = tempdir().unwrap();
    each_file(packed, &directory.path().join("data"), unpack);
    let program = Program::serve(directory.path(), &[]);
    assert_eq!(tell(&program.streams()), told, "{}", packed.display());
    decide(&program.streams());
    go_on(&program.streams());
    let told = tell(&program.streams());
    stop(program);
    let again = Program::serve(directory.path(), &[]);
    assert_eq!(tell(&again.streams()), told, "what was written since, too");
}

fn pack(from: &Path, to: &Path) {
    let mut packed = GzEncoder::new(File::create(to).unwrap(), Compression::best());
    io::copy(&mut File::open(from).unwrap(), &mut packed).unwrap();
    packed.finish().unwrap();
}

fn unpack(from: &Path, to: &Path) {
    io::copy(&mut GzDecoder::new(File::open(from).unwrap()), &mut File::create(to).unwrap()).unwrap();
}

fn each_file(from: &Path, to: &Path, copy: fn(&Path, &Path)) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            each_file(&entry.path(), &target, copy);
        } else if entry.file_name() != LOCK {
            copy(&entry.path(), &target);
        }
    }
}
