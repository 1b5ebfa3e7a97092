//! The attacks that tokens of `tailwater-auth` are tested with, through the whole gateway, with an issuer whose keys it may fetch:
//! each is refused with its status, code and reason, whichever way it comes, and asks neither the store nor anybody else.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use tailwater_auth::{Act, Operator};
use tailwater_server::{Auth, Config, Guard};
use tailwater_testkit::{Counts, ScriptedUpstream};
use tempfile::TempDir;

use crate::{
    attacks::{Attack, attacks, good},
    fixture::{Answer, Fixture, NOW_MS},
    forge::{AUDIENCE, KEYS, NOW, OTHER_SECRET, SECRET, SKEW, by_pair, claims_with, document, hs_header, signed},
    issuer::{Issuer, Names, Pair},
    rights::PAGE,
};

/// The tokens of the attacks are of the time that gateways here take it to be.
const _: () = assert!(NOW * 1000 == NOW_MS);

/// Who may revoke what others have.
pub(crate) const OPERATOR: &str = "the-credential-of-who-runs-all-this";
/// The streams that attacks are about, all of them private.
const STREAMS: [&str; 5] = ["s", "s/a/b", "t", "user-1/x", "user-2"];

/// A gateway that trusts what the attacks are made to look like, and an issuer that it could ask.
pub(crate) struct House {
    pub(crate) fixture: Fixture,
    pub(crate) document: String,
    guard: Guard,
    issuer: Issuer,
    names: Names,
    key: Pair,
    file: PathBuf,
    _directory: TempDir,
}

/// What a request is answered: the status, the code, and the reason or the scope, where one is named.
pub(crate) type Told = (u16, &'static str, &'static str);

/// A way to send what stands for a token: the method, the URL, where it stands, and a body.
type Way<'a> = (&'a str, String, Vec<(&'a str, String)>, String);

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|guard, config| {
            Fixture::with(Config { auth: Auth::Required(guard), ..config }, tailwater_fanout::Config::default())
        })
        .await
    }

    /// The same beside a register.
    pub(crate) async fn beside_register() -> Self {
        let fixture = |guard, config| {
            let upstream = ScriptedUpstream::default();
            Fixture::beside_register(upstream, guard, config, tailwater_fanout::Config::default())
        };
        let mut house = Self::with(fixture).await;
        house.fixture = house.fixture.read().await;
        house
    }

    async fn with(fixture: impl FnOnce(Guard, Config) -> Fixture) -> Self {
        let (key, names) = (Pair::new("theirs"), Names::at(&["127.0.0.1"]));
        let issuer = Issuer::with(&[&key]).await;
        let document = document(&format!("cookie = 'session'\n[project.jwks]\nurl = '{}'\n", issuer.url()));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("projects.toml");
        fs::write(&file, &document).unwrap();
        let guard = Guard::load(&file, Duration::from_secs(SKEW), issuer.keys(&names)).unwrap();
        let config = Config { operator: Some(Operator::new(OPERATOR).unwrap()), ..Config::default() };
        let fixture = fixture(guard.clone(), config);
        Self { fixture, document, guard, issuer, names, key, file, _directory: directory }
    }

    /// Makes the streams, one also in each of the other projects. The gateway knows them from then on.
    pub(crate) async fn make_streams(&self) {
        let of = |project: &str| claims_with(&json!({"sub": project}));
        let by_secret = |secret: &str, project: &str| {
            let key = EncodingKey::from_secret(secret.as_bytes());
            signed(Algorithm::HS256, &key, &hs_header().to_string(), &of(project).to_string())
        };
        let others = [
            ("twin", by_secret(SECRET, "twin")),
            ("other", by_secret(OTHER_SECRET, "other")),
            ("open", by_pair(&KEYS.rsa, &json!({"alg": "RS256"}), &of("open"))),
        ];
        let own = STREAMS.map(|stream| (format!("chat/{stream}"), good()));
        for (stream, token) in own.into_iter().chain(others.map(|(project, token)| (format!("{project}/s"), token))) {
            let headers = [("authorization", &*format!("Bearer {token}")), ("content-type", "text/plain")];
            let made = self.fixture.send("PUT", &format!("/v1/stream/{stream}"), &headers, "hello").await;
            assert_eq!(made.status, 201, "{stream}");
        }
    }

    /// Reads with a token that the issuer has signed.
    pub(crate) async fn read_with_theirs(&self) {
        let theirs = self.key.token_saying(|token| token.audience = Some(AUDIENCE.to_owned()));
        let headers = [("authorization", &*format!("Bearer {theirs}"))];
        assert_eq!(self.fixture.send("GET", "/v1/stream/chat/s", &headers, "").await.status, 200);
    }

    /// Other projects are in force.
    pub(crate) async fn change(&self, document: &str) {
        let aside = self.file.with_extension("new");
        fs::write(&aside, document).unwrap();
        fs::rename(&aside, &self.file).unwrap();
        let before = self.guard.projects();
        self.guard.look().await;
        assert!(!Arc::ptr_eq(&before, &self.guard.projects()), "they were not taken");
    }

    /// What the store was asked, and how often the issuer and for the addresses of its host.
    pub(crate) fn asked(&self) -> (Counts, (usize, usize)) {
        (self.fixture.upstream.counts(), (self.issuer.asked().len(), self.names.asked()))
    }

    /// Sends what is to be refused, and nobody to be asked about. What counts for nothing here, and is no reason to refuse what
    /// anybody may read, leaves the question whether the stream is public: of that the store may be asked, once, as by anybody
    /// who brings nothing. So it is with a cookie, and with a token that counts and is for other things.
    pub(crate) async fn refuses(&self, name: &str, (method, uri, headers, body): &Way<'_>) -> Answer {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (mut before, asked_before) = self.asked();
        let answer = self.fixture.send(method, uri, &headers, body.clone()).await;
        assert!(answer.status >= 400, "{name}: {method} {uri} {}", answer.status);
        let (after, asked_after) = self.asked();
        let reads = uri.starts_with("/v1/stream/") && ["GET", "HEAD"].contains(method);
        let has_shown = uri.contains("?ticket=") || headers.iter().any(|(_, value)| value.starts_with("Bearer "));
        if reads && (!has_shown || [403, 404].contains(&answer.status)) {
            before.tail_checks = after.tail_checks.min(before.tail_checks + 1);
        }
        assert_eq!(after, before, "{name}: {method} {uri}: the store was asked");
        assert_eq!(asked_after, asked_before, "{name}: {method} {uri}: the issuer was asked");
        answer
    }

    /// An attack comes to what it must, as it is meant and in every other way.
    async fn resists(&self, kind: &str, attack: &Attack) {
        let (name, project, token, act, (status, reason)) = attack;
        let name = format!("{kind}: {name}");
        let first = meant(project, token, *act);
        // Once more, in case what came of it was remembered.
        for _ in 0..2 {
            assert_eq!(told(&self.refuses(&name, &first).await), expected(*status, reason), "{name}");
        }
        for way in ways(project, token, *act, *status) {
            let answer = self.refuses(&name, &way).await;
            assert_eq!(answer.status, *status, "{name}: {} {} {:?}", way.0, way.1, way.2);
        }
    }
}

pub(crate) fn told(answer: &Answer) -> (u16, String, String) {
    let said = answer.json();
    let why = ["reason", "scope"].into_iter().find_map(|member| said[member].as_str()).unwrap_or_default();
    (answer.status, answer.code(), why.to_owned())
}

/// What a refusal is told as.
fn expected(status: u16, reason: &str) -> (u16, String, String) {
    let (code, why) = match reason.split_once(' ').unwrap_or((reason, "")) {
        ("scope", scope) => ("scope_needed", scope),
        ("stream", _) => ("stream_not_allowed", ""),
        ("hidden", _) => ("stream_not_found", ""),
        _ => ("token_refused", reason),
    };
    (status, code.to_owned(), why.to_owned())
}

fn with_bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {token}")), ("content-type", "text/plain".to_owned())]
}

/// What an attack asks for.
fn meant(project: &str, token: &str, act: Act<'_>) -> Way<'static> {
    let (method, path) = match act {
        Act::Read(stream) => ("GET", format!("/v1/stream/{project}/{stream}")),
        Act::Write(stream) => ("POST", format!("/v1/stream/{project}/{stream}")),
        Act::Manage => ("GET", format!("/v1/admin/projects/{project}")),
    };
    (method, path, with_bearer(token), "x".to_owned())
}

/// What else can be tried with a token that is refused so: whatever there is, where the token itself does not count.
fn ways(project: &str, token: &str, act: Act<'_>, status: u16) -> Vec<Way<'static>> {
    let scope = || r#"{"scope":["read"]}"#.to_owned();
    let (Act::Read(stream) | Act::Write(stream)) = act else {
        let root = format!("/v1/admin/projects/{project}");
        return vec![("POST", format!("{root}/tokens"), with_bearer(token), scope())];
    };
    let path = format!("/v1/stream/{project}/{stream}");
    let by_bearer = |method, uri| (method, uri, with_bearer(token), "x".to_owned());
    let in_cookie = vec![("cookie", format!("session={token}")), ("sec-fetch-site", "same-origin".to_owned())];
    let reads = vec![
        by_bearer("HEAD", path.clone()),
        by_bearer("GET", format!("{path}?offset=-1&live=sse")),
        by_bearer("GET", format!("{path}?offset=now&live=long-poll")),
        ("GET", path.clone(), in_cookie, String::new()),
    ];
    let writes = ["PUT", "POST", "DELETE"].map(|method| by_bearer(method, path.clone()));
    if status != 401 {
        return if matches!(act, Act::Read(_)) { reads } else { writes.into() };
    }
    let wanted = json!({"stream": format!("{project}/{stream}"), "origin": PAGE}).to_string();
    let in_query = token.replace(' ', "%20").replace('+', "%2B");
    let fork = [with_bearer(token), vec![("stream-forked-from", "/v1/stream/chat/s".to_owned())]].concat();
    let root = format!("/v1/admin/projects/{project}");
    let others = vec![
        ("PUT", format!("{path}/fork"), fork, String::new()),
        ("GET", format!("{path}?ticket={in_query}"), vec![("origin", PAGE.to_owned())], String::new()),
        ("POST", "/v1/ticket".to_owned(), with_bearer(token), wanted),
        by_bearer("GET", root.clone()),
        ("POST", format!("{root}/tokens"), with_bearer(token), scope()),
        ("POST", format!("{root}/revocations"), with_bearer(token), r#"{"id":"one"}"#.to_owned()),
        by_bearer("GET", "/v1/admin/projects".to_owned()),
    ];
    [reads, writes.into(), others].concat()
}

#[tokio::test]
async fn no_attack_gets_in_whichever_way_it_comes_and_nobody_is_asked_about_it() {
    let house = House::new().await;
    house.make_streams().await;
    let mut sent = 0;
    for (kind, attacks) in attacks() {
        assert!(!attacks.is_empty(), "{kind}");
        for attack in &attacks {
            house.resists(kind, attack).await;
            sent += 1;
        }
    }
    assert!(sent >= 100, "{sent}");
    let bearer = format!("Bearer {}", good());
    let authorized = ("authorization", bearer.as_str());
    for stream in STREAMS {
        let path = format!("/v1/stream/chat/{stream}");
        assert_eq!(house.fixture.send("GET", &path, &[authorized], "").await.body, "hello", "{stream} is as it was");
    }
    assert_eq!(house.asked().1, (0, 0));
    // Whose keys are needed is asked, and was to be had all the time.
    house.read_with_theirs().await;
    assert_eq!(house.asked().1, (1, 1));
}
