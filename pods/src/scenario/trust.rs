//! Three gateways on one store: keys are rotated and tokens revoked at one, and the others are asked until they know.
//!
//! Everything goes by HTTP, as an operator does it. Each act is asked of another gateway in turn, and its time is taken from
//! before it is asked until the last gateway has answered as it has to.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Form, leave, seconds};
use crate::{
    cluster::{Cluster, Setup, Way},
    report::Findings,
    wire::{Answer, Ask, Link},
};

/// How long what is changed may take to be so everywhere.
const WITHIN: Duration = Duration::from_secs(5);
/// When it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a gateway is asked.
const EVERY: Duration = Duration::from_millis(2);
/// The operator's credential.
const OPERATOR: &str = "the-credential-of-an-operator-of-pods";
/// The event that tells a reader that what it came with counts no more.
const LAST_EVENT: &str = "event: unauthorized\ndata:{\"reason\":\"revoked\"}\n\n";
/// What may stand behind it, with a number of milliseconds: when to come back. It is no event.
const COMES_BACK: &str = "retry: ";

/// Runs it.
///
/// # Errors
/// When something does not start, or is not answered.
pub async fn run(form: Form, seed: u64) -> anyhow::Result<Findings> {
    let rounds = match form {
        Form::Short => 2,
        Form::Long => 100,
    };
    let mut findings = Findings::of("trust");
    findings.figure("seed", seed);
    let secrets = TempDir::with_prefix("tailwater-trust-")?;
    let operator = secrets.path().join("operator");
    fs::write(&operator, OPERATOR)?;
    let operator = operator.to_str().context("the temporary folder's name is no text")?;
    let pod_args = ["--auth", "required", "--admin-token-file", operator, "--audit-stream", "ops/audit"];
    let setup = Setup { pods: 3, pod_args: pod_args.map(str::to_owned).to_vec(), way: Way::Direct };
    let cluster = Cluster::start(&setup).await?;
    let mut trial = Trial::of(&cluster);
    trial.open(rounds).await?;

    findings.figure("rounds", rounds);
    trial.tell(&mut findings);
    Ok(leave(cluster, findings))
}

/// A live reader: when its response has ended, and all that was in it.
type Reading = JoinHandle<anyhow::Result<(Instant, String)>>;

/// How long each kind of change took, at each time.
#[derive(Default)]
struct Times {
    made: Vec<Duration>,
    rotated_in: Vec<Duration>,
    rotated_out: Vec<Duration>,
    one_token: Vec<Duration>,
    readers_with_it: Vec<Duration>,
    all_before: Vec<Duration>,
    readers_with_those: Vec<Duration>,
    removed: Vec<Duration>,
    readers_in_it: Vec<Duration>,
}

struct Trial {
    pods: Vec<Link>,
    /// The project of the round.
    project: String,
    /// Whose turn it is to be asked for something.
    turn: usize,
    times: Times,
    readers: usize,
    /// Of those, whose response ended with the event that says why, and nothing behind it.
    told: usize,
    /// How much was written between a token's revocation and the end of its last reader.
    written: usize,
}

impl Trial {
    fn of(cluster: &Cluster) -> Self {
        let pods = cluster.fronts().into_iter().map(Link::to).collect();
        Self { pods, project: String::new(), turn: 0, times: Times::default(), readers: 0, told: 0, written: 0 }
    }

    async fn open(&mut self, rounds: usize) -> anyhow::Result<()> {
        for round in 0..rounds {
            self.round(round).await.with_context(|| format!("in round {round}"))?;
        }
        Ok(())
    }

    /// A project comes, its key is rotated, tokens are revoked in all ways, and it goes.
    async fn round(&mut self, round: usize) -> anyhow::Result<()> {
        let secret = format!("the secret of round {round}, which is long enough");
        // Of its own, so that nothing of the rounds before is revoked in it.
        self.project = format!("acme-{round}");
        let project = format!(
            "[[project]]\nid = 'acme-{round}'\n[[project.key]]\nid = 'old'\nalgorithm = 'HS256'\nsecret = '{secret}'\n"
        );
        let began = Instant::now();
        self.administer(Method::PUT, "", project).await?;
        let first = self.token("first").await?;
        self.put(&first).await?;
        let took = self.until(&first, began, true).await?;
        self.times.made.push(took);

        self.administer(Method::POST, "/keys", json!({ "id": "new" }).to_string()).await?;
        let began = Instant::now();
        self.administer(Method::PUT, "/keys/new", String::new()).await?;
        let second = self.token("second").await?;
        let took = self.until(&second, began, true).await?;
        self.times.rotated_in.push(took);
        let began = Instant::now();
        self.administer(Method::DELETE, "/keys/old", String::new()).await?;
        let took = self.until(&first, began, false).await?;
        self.times.rotated_out.push(took);

        self.withdraw(&second).await
    }

    /// A token is revoked, all before a time are, and the project is removed: for new requests and for who reads already.
    async fn withdraw(&mut self, second: &str) -> anyhow::Result<()> {
        let readers = self.readers(second).await?;
        let began = Instant::now();
        self.administer(Method::POST, "/revocations", json!({ "id": "second" }).to_string()).await?;
        let took = self.until(second, began, false).await?;
        self.times.one_token.push(took);
        let third = self.token("third").await?;
        self.until(&third, Instant::now(), true).await?;
        self.write_until_ended(&third, &readers).await?;
        let took = self.see_out(readers, began).await?;
        self.times.readers_with_it.extend(took);

        let readers = self.readers(&third).await?;
        let began = Instant::now();
        let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 1;
        self.administer(Method::POST, "/revocations", json!({ "before": before }).to_string()).await?;
        let took = self.until(&third, began, false).await?;
        self.times.all_before.push(took);
        let took = self.see_out(readers, began).await?;
        self.times.readers_with_those.extend(took);

        let fourth = self.counting_token(Instant::now()).await?;
        self.until(&fourth, Instant::now(), true).await?;
        let readers = self.readers(&fourth).await?;
        let began = Instant::now();
        self.administer(Method::DELETE, "", String::new()).await?;
        let took = self.until(&fourth, began, false).await?;
        self.times.removed.push(took);
        let took = self.see_out(readers, began).await?;
        self.times.readers_in_it.extend(took);
        Ok(())
    }

    /// Asks the next gateway to change something.
    async fn administer(&mut self, method: Method, path: &str, body: String) -> anyhow::Result<Answer> {
        let ask = Ask::new(method, format!("/v1/admin/projects/{}{path}", self.project)).body(body);
        let answer = self.next_pod().exchange(&bearing(ask, OPERATOR), PATIENCE).await?;
        let told = String::from_utf8_lossy(&answer.body);
        ensure!((200..300).contains(&answer.status), "{path} was answered {} {told}", answer.status);
        Ok(answer)
    }

    fn next_pod(&mut self) -> &mut Link {
        self.turn += 1;
        let count = self.pods.len();
        &mut self.pods[self.turn % count]
    }

    /// A token that may read and write, of this id.
    async fn token(&mut self, id: &str) -> anyhow::Result<String> {
        let wanted = json!({ "scope": ["read", "write"], "id": id });
        // The one that has just made the change, which is in force there: others may not know it yet.
        let count = self.pods.len();
        let pod = &mut self.pods[self.turn % count];
        let ask =
            Ask::new(Method::POST, format!("/v1/admin/projects/{}/tokens", self.project)).body(wanted.to_string());
        let answer = pod.exchange(&bearing(ask, OPERATOR), PATIENCE).await?;
        ensure!(answer.status == 201, "a token was answered {}", String::from_utf8_lossy(&answer.body));
        let made: Value = serde_json::from_slice(&answer.body)?;
        Ok(made["token"].as_str().context("there is no token")?.to_owned())
    }

    /// A token that is not of before all that was revoked: seconds have to pass for that.
    async fn counting_token(&mut self, began: Instant) -> anyhow::Result<String> {
        loop {
            match self.token("another").await {
                Ok(token) => return Ok(token),
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn stream(&self) -> String {
        format!("/v1/stream/{}/s", self.project)
    }

    async fn put(&mut self, token: &str) -> anyhow::Result<()> {
        self.write(Method::PUT, token).await
    }

    async fn write(&mut self, method: Method, token: &str) -> anyhow::Result<()> {
        let ask = Ask::new(method, self.stream()).with("content-type", "text/plain").body("a");
        let count = self.pods.len();
        let answer = self.pods[self.turn % count].exchange(&bearing(ask, token), PATIENCE).await?;
        ensure!((200..300).contains(&answer.status), "a write was answered {}", answer.status);
        Ok(())
    }

    /// Writes for as long as somebody reads, so that there is something that could come behind the last event.
    async fn write_until_ended(&mut self, token: &str, readers: &[Reading]) -> anyhow::Result<()> {
        let began = Instant::now();
        while readers.iter().any(|reader| !reader.is_finished()) && began.elapsed() < PATIENCE {
            self.write(Method::POST, token).await?;
            self.written += 1;
            sleep(EVERY).await;
        }
        Ok(())
    }

    /// How long it takes, from then on, until a token counts everywhere, or nowhere.
    async fn until(&mut self, token: &str, began: Instant, counts: bool) -> anyhow::Result<Duration> {
        let (wanted, stream) = (if counts { 200 } else { 401 }, self.stream());
        for pod in &mut self.pods {
            loop {
                let ask = bearing(Ask::new(Method::HEAD, &stream), token);
                if pod.exchange(&ask, PATIENCE).await.is_ok_and(|answer| answer.status == wanted) {
                    break;
                }
                ensure!(began.elapsed() < PATIENCE, "a gateway does not answer {wanted}");
                sleep(EVERY).await;
            }
        }
        Ok(began.elapsed())
    }

    /// A live reader at each gateway, whose responses have begun.
    async fn readers(&mut self, token: &str) -> anyhow::Result<Vec<Reading>> {
        let (mut readers, stream) = (Vec::new(), self.stream());
        for pod in &mut self.pods {
            let ask = bearing(Ask::get(format!("{stream}?offset=-1&live=sse")), token);
            let answer = pod.start(&ask, PATIENCE).await?;
            ensure!(answer.status() == 200, "a reader was answered {}", answer.status());
            let mut body = answer.into_body();
            readers.push(tokio::spawn(async move {
                let mut text = String::new();
                while let Some(frame) = body.frame().await {
                    if let Ok(data) = frame?.into_data() {
                        text.push_str(&String::from_utf8_lossy(&data));
                    }
                }
                Ok((Instant::now(), text))
            }));
        }
        Ok(readers)
    }

    /// Waits until all responses have ended, each whole; how long that took from then on.
    async fn see_out(&mut self, readers: Vec<Reading>, began: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        for reader in readers {
            let (ended, text) = timeout(PATIENCE, reader).await.context("a reader goes on")???;
            self.readers += 1;
            self.told += usize::from(ends_with_the_reason(&text));
            times.push(ended.saturating_duration_since(began));
        }
        Ok(times)
    }

    fn tell(self, findings: &mut Findings) {
        let times = self.times;
        let all = [
            ("a project is made", times.made),
            ("a new key counts", times.rotated_in),
            ("an old key counts no more", times.rotated_out),
            ("a token is revoked", times.one_token),
            ("a live reader with it has ended", times.readers_with_it),
            ("all before a time is revoked", times.all_before),
            ("a live reader with one of those has ended", times.readers_with_those),
            ("a project is removed", times.removed),
            ("a live reader in it has ended", times.readers_in_it),
        ];
        let mut worst = Duration::ZERO;
        for (what, mut times) in all {
            times.sort_unstable();
            let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
            worst = worst.max(most);
            findings.figure(&format!("{what}, s: median, most"), json!([seconds(median), seconds(most)]));
        }
        findings.figure("messages between a revocation and the end of its readers", self.written);
        findings.check(format!("{} s at most until all three know, of {WITHIN:?}", seconds(worst)), worst <= WITHIN);
        let (told, readers) = (self.told, self.readers);
        let what = format!("{told} of {readers} live readers were told why they end by the last event");
        findings.check(what, told == readers);
    }
}

fn bearing(ask: Ask, token: &str) -> Ask {
    ask.with("authorization", format!("Bearer {token}"))
}

/// Whether the last event of a response is the one that says why it ends. Behind that there may be when to come back.
fn ends_with_the_reason(text: &str) -> bool {
    let comes_back = |rest: &str| {
        let millis = rest.strip_prefix(COMES_BACK).and_then(|rest| rest.strip_suffix("\n\n"));
        rest.is_empty() || millis.is_some_and(|millis| millis.parse::<u64>().is_ok())
    };
    // The first one: if it stood there twice, an event would be behind it.
    text.split_once(LAST_EVENT).is_some_and(|(_, rest)| comes_back(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_last_event_or_none() {
        let (event, data) = (LAST_EVENT, "event: data\ndata:a\n\n");
        let ends = [event.to_owned(), format!("{data}{event}"), format!("{data}{event}retry: 1234\n\n")];
        for text in &ends {
            assert!(ends_with_the_reason(text), "{text}");
        }
        let others = [
            data.to_owned(),
            event.replace("revoked", "expired"),
            event.trim_end().to_owned(),
            format!("{event}{data}"),
            format!("{event}retry: 1234\n\n{data}"),
            format!("{event}retry: 1234\n"),
            format!("{event}retry: a\n\n"),
            format!("{event}retry: 1\n\nretry: 2\n\n"),
            format!("{event}{event}"),
        ];
        for text in &others {
            assert!(!ends_with_the_reason(text), "{text}");
        }
    }
}
