//! How a long-poll ends that has waited: by all that can become of its stream, its reader, its connection and the gateway.

use std::{fs, path::PathBuf, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use tailwater_log::{BatchBuilder, BatchId, Condition, HEADER, Header, NewRecord, StreamState};
use tailwater_server::{Auth, Config, Guard, Issuers};
use tailwater_testkit::fault::{Outage, SessionFault};
use tailwater_upstream::{Append, StreamKey};
use tempfile::TempDir;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::{Asked, Both, Seen, get, patient};
use crate::{
    fixture::Fixture,
    rights::{PROJECTS, token},
    wire::{read_to_end, request},
};

const PATH: &str = "/v1/stream/chat/s";

/// What happens while a long-poll waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    Message,
    /// One that the client has.
    KnownMessage,
    /// One that goes out in turns.
    LargeMessage,
    /// One, where there are quotas.
    CountedMessage,
    LastMessage,
    Close,
    Deletion,
    /// Of a stream whose forks go on.
    DeletionOfASource,
    /// The name is taken by another stream at once.
    Rebirth,
    /// And that is not for everybody any more.
    PrivateRebirth,
    /// The place at which it waits is not there any more.
    Trim,
    /// What comes cannot be read.
    Nonsense,
    Nothing,
    /// Nothing, and nobody knows whether that is so before the store is asked.
    NothingKnown,
    Expiry,
    Revocation,
    /// Its stream is public; the project is removed.
    Removal,
    Drain,
    /// And the client has sent the next request already.
    DrainAhead,
    DrainWithoutStore,
    Age,
    AgeAhead,
}

/// All that happens, and the status that is answered then.
const TABLE: [(Happens, u16); 22] = [
    (Happens::Message, 200),
    (Happens::KnownMessage, 304),
    (Happens::LargeMessage, 200),
    (Happens::CountedMessage, 200),
    (Happens::LastMessage, 200),
    (Happens::Close, 204),
    (Happens::Deletion, 404),
    (Happens::DeletionOfASource, 410),
    (Happens::Rebirth, 410),
    (Happens::PrivateRebirth, 401),
    (Happens::Trim, 410),
    (Happens::Nonsense, 500),
    (Happens::Nothing, 204),
    (Happens::NothingKnown, 204),
    (Happens::Expiry, 401),
    (Happens::Revocation, 401),
    (Happens::Removal, 401),
    (Happens::Drain, 204),
    (Happens::DrainAhead, 204),
    (Happens::DrainWithoutStore, 503),
    (Happens::Age, 200),
    (Happens::AgeAhead, 200),
];

/// Two gateways with their projects.
struct House {
    both: Both,
    guard: Guard,
    file: PathBuf,
    _directory: TempDir,
}

impl Happens {
    fn config(self) -> Config {
        let config = Config { drain: Duration::from_millis(400), ..patient() };
        if matches!(self, Self::Nothing | Self::NothingKnown) {
            Config { long_poll_timeout: Duration::from_millis(300), ..config }
        } else if matches!(self, Self::Age | Self::AgeAhead) {
            Config { max_connection_age: Duration::from_millis(100), ..config }
        } else {
            config
        }
    }

    fn projects(self) -> String {
        let quota = "quota = { principal = { readers = 5, bytes = { most = 100000, within = 100000 } } }";
        let chat = if self == Self::CountedMessage { format!("\"chat\"\n{quota}") } else { "\"chat\"".to_owned() };
        PROJECTS.replacen("\"chat\"", &chat, 1)
    }

    /// Whether it is seen by who shows nothing.
    fn is_public(self) -> bool {
        matches!(self, Self::PrivateRebirth | Self::Removal)
    }

    /// Whether it comes by itself, and perhaps before anybody could look whether the long-poll waits.
    fn comes_by_itself(self) -> bool {
        matches!(self, Self::Nothing | Self::NothingKnown | Self::Expiry)
    }

    async fn ask(self, house: &House) -> Asked {
        let lasts = if self == Self::Expiry { 1 } else { 600 };
        let reader = format!("Bearer {}", token("chat", "read", None, lasts));
        let mut fields = vec![("origin", "https://app.example")];
        if !self.is_public() {
            fields.push(("authorization", &reader));
        }
        if self == Self::KnownMessage {
            fields.push(("if-none-match", "*"));
        }
        let tail = house.both.tail(PATH, &[("authorization", &bearer())]).await;
        let mut head = get(&format!("{PATH}?offset={tail}&live=long-poll"), &fields);
        if matches!(self, Self::DrainAhead | Self::AgeAhead) {
            head += "\r\n\r\nGET /health HTTP/1.1\r\nhost: h";
        }
        house.both.ask(head).await
    }

    async fn comes(self, house: &mut House) {
        let store = house.both.store.clone();
        match self {
            Self::Message | Self::KnownMessage | Self::CountedMessage => house.post("b".to_owned(), &[]).await,
            Self::LargeMessage => house.post("b".repeat(200_000), &[]).await,
            Self::LastMessage => house.post("b".to_owned(), &[("stream-closed", "true")]).await,
            Self::Close => house.post(String::new(), &[("stream-closed", "true")]).await,
            Self::Deletion => house.send("DELETE", PATH, &[], "", 204).await,
            Self::DeletionOfASource => {
                house.send("PUT", "/v1/stream/chat/fork", &[("stream-forked-from", PATH)], "", 201).await;
                house.send("DELETE", PATH, &[], "", 204).await;
            }
            Self::Rebirth | Self::PrivateRebirth => house.reborn().await,
            Self::Trim => house.trim().await,
            Self::Nonsense => {
                let header = Header { name: Bytes::from_static(HEADER), value: Bytes::from_static(&[1, 200, 0]) };
                let forged = NewRecord { headers: vec![header], body: Bytes::new() };
                store.land(&key(), Append::new(vec![forged])).unwrap();
            }
            Self::Nothing | Self::NothingKnown | Self::Expiry => {}
            Self::Revocation => house.change("the secret of chat", "another secret of chat").await,
            Self::Removal => house.change("\"chat\"", "\"not-chat\"").await,
            Self::Drain | Self::DrainAhead => house.drain(),
            Self::DrainWithoutStore => {
                house.until_followed().await;
                store.set_outage(Outage::Refusing);
                assert_eq!(store.cut_sessions(&key()), 2);
                // Both have noticed.
                while store.counts().sessions_open > 0 {
                    yield_now().await;
                }
                house.drain();
            }
            Self::Age | Self::AgeAhead => {
                house.grow_old().await;
                house.post("b".to_owned(), &[]).await;
            }
        }
    }

    /// Both gateways wait, and answer the same.
    async fn compare(self) -> (Self, u16) {
        let mut house = House::of(self).await;
        let mut asked = self.ask(&house).await;
        if !self.comes_by_itself() {
            house.both.park(1).await;
        }
        self.comes(&mut house).await;
        let Seen { status, .. } = asked.compare().await;
        asked.compare_the_rest().await;
        (self, status)
    }
}

impl House {
    async fn of(happens: Happens) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        fs::write(&file, happens.projects()).unwrap();
        let guard = Guard::load(&file, Duration::ZERO, Issuers::none()).unwrap();
        let config = Config { auth: Auth::Required(guard.clone()), ..happens.config() };
        let both = Both::with(config, Default::default()).await;
        let house = Self { both, guard, file, _directory: directory };
        house.put(if happens.is_public() { "public" } else { "private" }).await;
        if happens == Happens::NothingKnown {
            for _ in 0..2 {
                house.both.store.faults_of(&key()).next_session(SessionFault::Stall);
            }
        }
        house
    }

    /// Does something at the gateway of which nobody leaves; the other one hears of it.
    async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: impl Into<Body>, status: u16) {
        let bearer = bearer();
        let fields = [&[("authorization", bearer.as_str())], fields].concat();
        let answer = self.both.stays.fixture.send(method, path, &fields, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {:?}", answer.body);
    }

    async fn put(&self, visibility: &str) {
        let fields = [("content-type", "text/plain"), ("stream-visibility", visibility)];
        self.send("PUT", PATH, &fields, "a", 201).await;
    }

    async fn post(&self, body: String, fields: &[(&str, &str)]) {
        let fields = [&[("content-type", "text/plain")], fields].concat();
        self.send("POST", PATH, &fields, body, 204).await;
    }

    /// Other projects are in force.
    async fn change(&self, from: &str, to: &str) {
        let aside = self.file.with_extension("new");
        fs::write(&aside, PROJECTS.replacen(from, to, 1)).unwrap();
        fs::rename(&aside, &self.file).unwrap();
        self.guard.look().await;
    }

    /// Waits until both gateways follow the store.
    async fn until_followed(&self) {
        while self.both.store.counts().sessions_open < 2 {
            yield_now().await;
        }
    }

    /// Another gateway on the store, of whose deeds these two hear only once they are told to [`hear`](Self::hear).
    async fn other(&self) -> Fixture {
        self.until_followed().await;
        assert_eq!(self.both.store.stall_sessions(&key()), 2);
        Fixture::on(self.both.store.clone(), Config::default(), Default::default())
    }

    fn hear(&self) {
        self.both.store.resume_sessions(&key());
    }

    /// Its stream is deleted, and another one has taken its name before anybody hears of it.
    async fn reborn(&self) {
        let other = self.other().await;
        assert_eq!(other.send("DELETE", PATH, &[], "").await.status, 204);
        let fields = [("content-type", "text/plain"), ("stream-visibility", "private")];
        assert_eq!(other.send("PUT", PATH, &fields, "of the next life").await.status, 201);
        self.hear();
    }

    /// Nothing is left from where the long-poll waits up to the last message before anybody hears of it.
    async fn trim(&self) {
        let (store, other) = (&self.both.store, self.other().await);
        for body in ["b", "c", "d"] {
            other.post(PATH, "text/plain", body).await;
        }
        let (mut state, records) = (StreamState::default(), store.records(&key()));
        for record in &records {
            state.apply(record).unwrap();
        }
        let mut batch = BatchBuilder::new(&state, BatchId { writer: 1, counter: 1 });
        batch.checkpoint();
        let mut trims = batch.finish(Condition::Token).records;
        trims.push(NewRecord::trim(records.last().unwrap().seq));
        store.land(&key(), Append::new(trims)).unwrap();
        self.hear();
    }

    /// Shuts both gateways down; those who wait have their turn in the drain.
    fn drain(&mut self) {
        for pod in [&mut self.both.stays, &mut self.both.leaves] {
            let server = pod.server.take().expect("it is shut down once");
            tokio::spawn(server.shut_down(CancellationToken::new()));
        }
    }

    /// Waits until connections that are younger than those of the long-polls have lasted long enough.
    async fn grow_old(&self) {
        for pod in [&self.both.stays, &self.both.leaves] {
            for _ in 0..2 {
                read_to_end(&mut request(pod.address, "HEAD /health HTTP/1.1\r\nhost: h").await).await;
            }
        }
    }
}

fn key() -> StreamKey {
    StreamKey::new("chat", "s")
}

fn bearer() -> String {
    format!("Bearer {}", token("chat", "read write", None, 600))
}

#[tokio::test]
async fn a_long_poll_that_leaves_ends_as_one_that_stays_whatever_happens_while_it_waits() {
    let ends = join_all(TABLE.map(|(happens, _)| happens.compare())).await;
    assert_eq!(ends, TABLE);
}
