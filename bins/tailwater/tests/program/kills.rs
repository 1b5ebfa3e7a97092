//! What is still there after the process was killed in the middle of its work: every acknowledged message once, every
//! one of unknown fate once or not at all, and all decisions as before.
//!
//! `TAILWATER_KILLS` and `TAILWATER_TERMS` say how often it is killed and terminated; 3 and 2 without.

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tempfile::tempdir;

use crate::{
    http::Streams,
    process::{Program, eventually},
};

const PLAIN_WRITERS: usize = 4;
const PRODUCERS: usize = 4;
/// How many appends are acknowledged in a round before it ends.
const ACKS: usize = 60;
const TEXT: (&str, &str) = ("content-type", "text/plain");

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Terminate,
}

/// What happened to appends without a producer: each has a number of its own.
#[derive(Debug, Default)]
struct Plain {
    acked: Vec<String>,
    unknown: Vec<String>,
    refused: Vec<String>,
}

/// A producer: what it will append next, and whether it has tried.
#[derive(Debug, Default)]
struct Producer {
    next: u64,
    tried: bool,
}

/// Everything that was acknowledged, over all rounds.
#[derive(Debug, Default)]
struct Ledger {
    plain: [Plain; PLAIN_WRITERS],
    producers: [Producer; PRODUCERS],
    /// Appends that waited for an answer when the process ended.
    in_flight: usize,
    /// Forks, with what they held.
    forks: Vec<(String, String)>,
}

/// What the writers of one round share.
struct Round<'r> {
    number: usize,
    streams: Streams,
    /// What forks inherit.
    base: String,
    acks: AtomicUsize,
    over: AtomicBool,
    in_flight: AtomicUsize,
    forks: &'r Mutex<Vec<(String, String)>>,
}

fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn nothing_that_was_acknowledged_is_lost_or_doubled_however_the_process_ends() {
    let (kills, terms) = (setting("TAILWATER_KILLS", 3), setting("TAILWATER_TERMS", 2));
    let directory = tempdir().unwrap();
    let mut ledger = Ledger::default();
    let program = Program::serve(directory.path(), &[]);
    program.streams().create("plain", "");
    program.streams().create("producers", "");
    program.streams().create("base", "base,");
    drop(program);

    // Kills and terminations take turns for as long as there are both.
    let ends = (0..kills.max(terms))
        .flat_map(|n| [(n < kills).then_some(End::Kill), (n < terms).then_some(End::Terminate)].into_iter().flatten());
    for (number, end) in ends.enumerate() {
        let program = Program::serve(directory.path(), &["--drain", "100ms"]);
        ledger.verify(&program.streams(), number);
        ledger.round(number, program, end);
    }
    let program = Program::serve(directory.path(), &[]);
    ledger.verify(&program.streams(), kills + terms);

    let count = |pick: fn(&Plain) -> usize| -> usize { ledger.plain.iter().map(pick).sum() };
    let produced: u64 = ledger.producers.iter().map(|producer| producer.next).sum();
    let landed = ledger.landed(&program.streams());
    println!(
        "{kills} SIGKILL, {terms} SIGTERM: {} appends acked and {} of unknown fate, {landed} of which landed, \
         {} refused; {produced} producer appends acked; {} in flight at an end; {} forks",
        count(|plain| plain.acked.len()),
        count(|plain| plain.unknown.len()),
        count(|plain| plain.refused.len()),
        ledger.in_flight,
        ledger.forks.len(),
    );
    assert!(ledger.in_flight >= kills, "each kill met appends in flight");
}

impl Ledger {
    /// Lets everybody write until enough is acknowledged, and ends the process under them.
    fn round(&mut self, number: usize, program: Program, end: End) {
        decide(&program.streams(), number);
        let forks = Mutex::new(Vec::new());
        let round = Round {
            number,
            streams: program.streams(),
            base: program.streams().read("base"),
            acks: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            forks: &forks,
        };
        thread::scope(|scope| {
            for (writer, plain) in self.plain.iter_mut().enumerate() {
                let round = &round;
                scope.spawn(move || plain.write(writer, round));
            }
            for (writer, producer) in self.producers.iter_mut().enumerate() {
                let round = &round;
                scope.spawn(move || producer.write(writer, round));
            }
            scope.spawn(|| round.fork());
            eventually("enough is acknowledged", || round.acks.load(Ordering::Relaxed) >= ACKS);
            match end {
                End::Kill => program.kill(),
                End::Terminate => {
                    program.terminate();
                    assert_eq!(program.ended(Duration::from_secs(30)).code(), Some(0));
                }
            }
            round.over.store(true, Ordering::Relaxed);
        });
        self.in_flight += round.in_flight.into_inner();
        self.forks.append(&mut forks.into_inner().unwrap());
    }

    /// Compares what is there with what was acknowledged in the rounds so far.
    fn verify(&mut self, streams: &Streams, rounds: usize) {
        for number in 0..rounds {
            let closed = streams.append(&format!("closed-{number}"), "more").expect(409);
            assert_eq!((closed.code().as_str(), closed.header("stream-closed")), ("stream_closed", Some("true")));
            let closing =
                [("stream-closed", "true"), ("producer-id", "p"), ("producer-epoch", "1"), ("producer-seq", "0")];
            streams.send("POST", &format!("closed-{number}"), &closing, "").expect(204);
            assert_eq!(streams.read(&format!("closed-{number}")), "last");
            streams.send("GET", &format!("deleted-{number}"), &[], "").expect(404);
            assert_eq!(streams.read(&format!("anew-{number}")), "new");
        }
        let base: String = (0..rounds).map(|number| format!("{number},")).collect();
        assert_eq!(streams.read("base"), format!("base,{base}"));
        for (fork, content) in &self.forks {
            assert_eq!(streams.read(fork), *content, "{fork}");
        }
        let whole = streams.read("plain");
        for (writer, plain) in self.plain.iter().enumerate() {
            plain.verify(writer, &whole);
        }
        for (writer, producer) in self.producers.iter_mut().enumerate() {
            producer.verify(writer, streams);
        }
    }

    /// How many appends of unknown fate are there.
    fn landed(&self, streams: &Streams) -> usize {
        let whole = streams.read("plain");
        let unknown = self.plain.iter().flat_map(|plain| &plain.unknown);
        unknown.filter(|text| whole.contains(text.as_str())).count()
    }
}

impl Plain {
    fn write(&mut self, writer: usize, round: &Round<'_>) {
        for n in 0.. {
            if round.over.load(Ordering::Relaxed) {
                return;
            }
            let text = format!("<{writer}.{}.{n}>", round.number);
            match round.streams.attempt("POST", "plain", &[TEXT], &text) {
                Ok(answer) if answer.status == 204 => {
                    self.acked.push(text);
                    round.acks.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) if answer.status == 503 && answer.code() == "outcome_unknown" => self.unknown.push(text),
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    self.refused.push(text);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return,
                Err(_) => {
                    round.in_flight.fetch_add(1, Ordering::Relaxed);
                    self.unknown.push(text);
                    return;
                }
            }
        }
    }

    fn verify(&self, writer: usize, whole: &str) {
        let start = format!("<{writer}.");
        let there: Vec<&str> = whole.split_inclusive('>').filter(|text| text.starts_with(&start)).collect();
        let count = |text: &String| there.iter().filter(|own| **own == text).count();
        for text in &self.acked {
            assert_eq!(count(text), 1, "{text} was acknowledged");
        }
        for text in &self.unknown {
            assert!(count(text) <= 1, "{text} is there more than once");
        }
        for text in &self.refused {
            assert_eq!(count(text), 0, "{text} was refused");
        }
        let mut acked = there.iter().filter(|text| !self.unknown.iter().any(|unknown| unknown == *text));
        assert!(self.acked.iter().all(|text| acked.next() == Some(&text.as_str())), "in the order of writing");
        assert_eq!(acked.next(), None, "nothing that nobody wrote");
    }
}

impl Producer {
    fn append(&mut self, writer: usize, streams: &Streams) -> std::io::Result<u16> {
        self.tried = true;
        let (id, seq) = (format!("p{writer}"), self.next.to_string());
        let headers = [TEXT, ("producer-id", &id), ("producer-epoch", "3"), ("producer-seq", &seq)];
        let answer = streams.attempt("POST", "producers", &headers, &format!("<{writer}.{seq}>"))?;
        match answer.status {
            200 | 204 => {
                assert_eq!(answer.header("producer-seq"), Some(seq.as_str()));
                self.next += 1;
                self.tried = false;
            }
            503 => {}
            _ => panic!("{answer:?}"),
        }
        Ok(answer.status)
    }

    fn write(&mut self, writer: usize, round: &Round<'_>) {
        while !round.over.load(Ordering::Relaxed) {
            match self.append(writer, &round.streams) {
                Ok(200) => {
                    round.acks.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return,
                Err(_) => {
                    round.in_flight.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// What it did not hear of, it sends again; what it did hear of is decided as before.
    fn verify(&mut self, writer: usize, streams: &Streams) {
        if self.tried {
            eventually("the retry is taken", || self.append(writer, streams).unwrap() != 503);
        }
        let own = format!("<{writer}.");
        let whole = streams.read("producers");
        let there: Vec<&str> = whole.split_inclusive('>').filter(|text| text.starts_with(&own)).collect();
        let sent: Vec<String> = (0..self.next).map(|seq| format!("<{writer}.{seq}>")).collect();
        assert_eq!(there, sent, "each once, and in order");
        let Some(last) = self.next.checked_sub(1) else { return };
        let id = format!("p{writer}");
        let claim = |epoch: &str, seq: u64| {
            let seq = seq.to_string();
            let headers = [TEXT, ("producer-id", &id), ("producer-epoch", epoch), ("producer-seq", &seq)];
            streams.send("POST", "producers", &headers, "never")
        };
        let highest = last.to_string();
        assert_eq!(claim("3", 0).expect(204).header("producer-seq"), Some(highest.as_str()));
        assert_eq!(claim("2", last).expect(403).header("producer-epoch"), Some("3"));
        let gap = claim("3", last + 2).expect(409);
        assert_eq!(gap.header("producer-expected-seq"), Some(self.next.to_string().as_str()));
    }
}

impl Round<'_> {
    /// Forks a stream that stands still in this round, again and again.
    fn fork(&self) {
        for n in 0..5 {
            let fork = format!("fork-{}-{n}", self.number);
            let headers = [("stream-forked-from", "/v1/stream/base")];
            match self.streams.attempt("PUT", &fork, &headers, "") {
                Ok(answer) if answer.status == 201 => {
                    self.forks.lock().unwrap().push((fork, self.base.clone()));
                }
                Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                // It may be there or not; a `PUT` again would tell.
                Err(_) => return,
            }
        }
    }
}

/// Closures, deletions and a re-creation that every later process has to know.
fn decide(streams: &Streams, number: usize) {
    streams.create(&format!("closed-{number}"), "last");
    let closing = [("stream-closed", "true"), ("producer-id", "p"), ("producer-epoch", "1"), ("producer-seq", "0")];
    streams.send("POST", &format!("closed-{number}"), &closing, "").expect(204);
    streams.create(&format!("deleted-{number}"), "old");
    streams.send("DELETE", &format!("deleted-{number}"), &[], "").expect(204);
    streams.create(&format!("anew-{number}"), "old");
    streams.send("DELETE", &format!("anew-{number}"), &[], "").expect(204);
    streams.create(&format!("anew-{number}"), "new");
    streams.append("base", &format!("{number},")).expect(204);
}
