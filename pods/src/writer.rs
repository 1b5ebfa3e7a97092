//! Clients that write, and know of each append what they may know: it was acknowledged, it was refused, or nobody said.
//!
//! A plain writer goes on to its next append in any case. A producer sends an append again until it is acknowledged,
//! unless it crashes, which it does where nobody answers: then it comes back with a higher epoch. Once that is
//! acknowledged, what it was before sends something, too, and has to be refused.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tailwater_protocol::headers;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    history::{Append, Fate, WriterHistory, WriterKind},
    message::{Content, Message},
    plan::between,
    wire::{Answer, Ask, Link, Lost},
};

/// How long a producer goes on with its last append after it was told to stop.
const LAST: Duration = Duration::from_secs(40);
/// When to come back, where nobody says.
const SOON: Duration = Duration::from_secs(1);
/// The most pages that a writer reads to see its own message.
const PAGES: usize = 50;

/// What a writer is to do.
#[derive(Debug, Clone)]
pub struct Writing {
    /// To which stream.
    pub stream: String,
    /// What that holds.
    pub content: Content,
    /// Where it can be reached; every request goes to any of them.
    pub fronts: Vec<SocketAddr>,
    /// The writer's number.
    pub writer: u32,
    /// Whether it sends producer headers.
    pub kind: WriterKind,
    /// How long it rests between two appends.
    pub pace: (Duration, Duration),
    /// How long it waits for an answer.
    pub patience: Duration,
    /// What else it does.
    pub habits: Habits,
    /// Decides what is left to chance.
    pub seed: u64,
}

/// What a writer does now and then. All but the first two are chances, from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// The most messages in an append to a JSON stream.
    pub most: u32,
    /// The most bytes of padding in an ordinary message.
    pub padding: usize,
    /// That a message is larger than one batch of the store's.
    pub large: f64,
    /// That a producer crashes where it is not answered, or after an answer.
    pub crash: f64,
    /// That a producer sends again what was acknowledged.
    pub twice: f64,
    /// That a plain writer looks whether its message is there, elsewhere.
    pub look: f64,
}

/// More padding than one batch of the store takes.
const LARGE: usize = 1_200_000;

/// What an answer to an append says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Acked {
        next: Option<String>,
        /// Whether it is said to be new: of producers only.
        fresh: bool,
    },
    /// It is not there, and never will be.
    Refused { again_after: Duration },
    /// It may be there, or may come.
    Unknown { again_after: Duration },
    /// A newer epoch is known.
    Stale,
    /// An answer that should not have been.
    Wrong(String),
}

/// An append of a producer's, with its place.
#[derive(Debug, Clone)]
struct Claim {
    append: Append,
    body: Vec<u8>,
    epoch: u64,
    seq: u64,
}

struct Writer {
    writing: Writing,
    rng: StdRng,
    links: Vec<Link>,
    next: u32,
    /// The offset behind the newest append that was acknowledged.
    newest: Option<String>,
    /// Messages that were acknowledged, of all writers together.
    acked: Arc<AtomicU64>,
    history: WriterHistory,
}

/// Writes until told to stop. Messages that are acknowledged are counted in `acked`.
pub async fn write(writing: Writing, acked: Arc<AtomicU64>, stop: CancellationToken) -> WriterHistory {
    let mut writer = Writer {
        rng: StdRng::seed_from_u64(writing.seed),
        links: writing.fronts.iter().map(|front| Link::to(*front)).collect(),
        next: 0,
        newest: None,
        acked,
        history: WriterHistory {
            writer: writing.writer,
            kind: writing.kind,
            appends: Vec::new(),
            retried: 0,
            failed_twice: 0,
            breaches: Vec::new(),
        },
        writing,
    };
    match writer.writing.kind {
        WriterKind::Plain => writer.plainly(&stop).await,
        WriterKind::Producer => writer.as_producer(&stop).await,
    }
    writer.history
}

impl Writer {
    async fn plainly(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let (append, body) = self.draw();
            let before = self.newest.clone();
            let outcome = self.send(&self.ask(body)).await;
            self.record(append, fate_of(&outcome));
            match outcome {
                Outcome::Acked { next, .. } => {
                    self.newest = next;
                    if let (Some(before), true) = (before, self.happens(self.writing.habits.look)) {
                        self.look(before, Message { writer: self.writing.writer, number: append.first }).await;
                    }
                    self.rest(None, stop).await;
                }
                Outcome::Refused { again_after } => self.rest(Some(again_after), stop).await,
                Outcome::Unknown { .. } => self.rest(None, stop).await,
                Outcome::Stale => self.complain(append, "a stale epoch", stop).await,
                Outcome::Wrong(what) => self.complain(append, &what, stop).await,
            }
        }
    }

    async fn as_producer(&mut self, stop: &CancellationToken) {
        let (mut epoch, mut seq) = (0, 0);
        // What it was before its last crash, while that has not spoken yet.
        let mut former: Option<(u64, u64)> = None;
        while !stop.is_cancelled() {
            let (append, body) = self.draw();
            let claim = Claim { append, body, epoch, seq };
            let acked = self.insist(&claim, stop).await;
            if acked {
                if self.happens(self.writing.habits.twice) {
                    self.repeat(&claim).await;
                }
                if let Some((epoch, seq)) = former.take() {
                    self.speak_as(epoch, seq).await;
                }
            }
            if !acked || self.happens(self.writing.habits.crash) {
                former = Some((epoch, seq + u64::from(acked)));
                (epoch, seq) = (epoch + 1, 0);
            } else {
                seq += 1;
            }
            self.rest(None, stop).await;
        }
    }

    /// Sends an append until it is acknowledged, or the producer crashes. Whether it was acknowledged.
    async fn insist(&mut self, claim: &Claim, stop: &CancellationToken) -> bool {
        let (mut tries, mut all_refused) = (0_u64, true);
        let mut give_up: Option<Instant> = None;
        loop {
            let outcome = self.send(&self.claim(claim)).await;
            tries += 1;
            let again_after = match outcome {
                Outcome::Acked { .. } => {
                    self.record(claim.append, Fate::Acked);
                    return true;
                }
                Outcome::Refused { again_after } => again_after,
                Outcome::Unknown { again_after } => {
                    all_refused = false;
                    again_after
                }
                Outcome::Stale => {
                    self.history.breaches.push(format!("stale epoch {} of {}", claim.epoch, self.writing.writer));
                    SOON
                }
                Outcome::Wrong(what) => {
                    all_refused = false;
                    self.history.breaches.push(format!("{what}, to {:?} of {}", claim.append, self.writing.writer));
                    SOON
                }
            };
            self.history.retried += u64::from(tries == 1);
            self.history.failed_twice += u64::from(tries == 2);
            if stop.is_cancelled() {
                give_up.get_or_insert_with(|| Instant::now() + LAST);
            }
            let over = give_up.is_some_and(|give_up| Instant::now() > give_up);
            if over || self.happens(self.writing.habits.crash) {
                self.record(claim.append, if all_refused { Fate::Refused } else { Fate::Unknown });
                return false;
            }
            sleep(again_after).await;
        }
    }

    /// Sends again what was acknowledged.
    async fn repeat(&mut self, claim: &Claim) {
        match self.send(&self.claim(claim)).await {
            Outcome::Acked { fresh: false, .. } | Outcome::Refused { .. } | Outcome::Unknown { .. } => {}
            outcome @ (Outcome::Acked { fresh: true, .. } | Outcome::Stale | Outcome::Wrong(_)) => {
                self.history.breaches.push(format!("{outcome:?}, to what was acknowledged: {:?}", claim.append));
            }
        }
    }

    /// Appends something as what the producer was before: whatever the answer is, it must never be there.
    async fn speak_as(&mut self, epoch: u64, seq: u64) {
        let (append, body) = self.draw();
        let outcome = self.send(&self.claim(&Claim { append, body, epoch, seq })).await;
        self.record(append, Fate::Refused);
        match outcome {
            Outcome::Stale | Outcome::Refused { .. } | Outcome::Unknown { .. } => {}
            outcome @ (Outcome::Acked { .. } | Outcome::Wrong(_)) => {
                self.history.breaches.push(format!("{outcome:?}, to the stale epoch {epoch}"));
            }
        }
    }

    /// Looks whether a message of its own is there: whoever asks after it was acknowledged sees it, at any pod.
    async fn look(&mut self, from: String, wanted: Message) {
        let mut offset = from;
        for _ in 0..PAGES {
            let ask = Ask::get(format!("/v1/stream/{}?offset={offset}", self.writing.stream));
            let Ok(page) = self.exchange(&ask).await else { return };
            if page.status != 200 {
                if !(500..600).contains(&page.status) {
                    self.history.breaches.push(format!("{} {:?} for a look", page.status, page.code()));
                }
                return;
            }
            match self.writing.content.decode(&page.body) {
                Ok(messages) if messages.contains(&wanted) => return,
                Ok(_) if page.is_up_to_date() => {
                    return self.history.breaches.push(format!("{wanted:?} was acknowledged, and is not shown"));
                }
                Ok(_) => page.next().unwrap_or_default().clone_into(&mut offset),
                Err(malformed) => return self.history.breaches.push(malformed.to_string()),
            }
        }
    }

    /// The next append, which takes its numbers for good.
    fn draw(&mut self) -> (Append, Vec<u8>) {
        let Habits { most, padding, large, .. } = self.writing.habits;
        let large = self.happens(large);
        let count = match self.writing.content {
            Content::Json if !large => self.rng.random_range(1..=most.max(1)),
            Content::Json | Content::Text => 1,
        };
        let append = Append { first: self.next, count, fate: Fate::Unknown };
        self.next += count;
        let texts = (append.first..self.next).map(|number| {
            let padding = if large { LARGE } else { self.rng.random_range(0..=padding) };
            Message { writer: self.writing.writer, number }.text(padding)
        });
        let texts = texts.collect();
        (append, self.writing.content.encode(texts))
    }

    fn ask(&self, body: Vec<u8>) -> Ask {
        let target = format!("/v1/stream/{}", self.writing.stream);
        Ask::new(Method::POST, target).with("content-type", self.writing.content.mime()).body(body)
    }

    fn claim(&self, claim: &Claim) -> Ask {
        self.ask(claim.body.clone())
            .with(headers::PRODUCER_ID, format!("writer-{}", self.writing.writer))
            .with(headers::PRODUCER_EPOCH, claim.epoch.to_string())
            .with(headers::PRODUCER_SEQ, claim.seq.to_string())
    }

    async fn send(&mut self, ask: &Ask) -> Outcome {
        outcome_of(self.exchange(ask).await)
    }

    async fn exchange(&mut self, ask: &Ask) -> Result<Answer, Lost> {
        let link = self.rng.random_range(0..self.links.len());
        self.links[link].exchange(ask, self.writing.patience).await
    }

    fn record(&mut self, append: Append, fate: Fate) {
        if fate == Fate::Acked {
            self.acked.fetch_add(u64::from(append.count), Ordering::Relaxed);
        }
        self.history.appends.push(Append { fate, ..append });
    }

    async fn complain(&mut self, append: Append, what: &str, stop: &CancellationToken) {
        self.history.breaches.push(format!("{what}, to {append:?} of {}", self.writing.writer));
        self.rest(Some(SOON), stop).await;
    }

    async fn rest(&mut self, at_least: Option<Duration>, stop: &CancellationToken) {
        let (least, most) = self.writing.pace;
        let rest = between(&mut self.rng, least, most).max(at_least.unwrap_or_default());
        tokio::select! {
            () = sleep(rest) => {}
            () = stop.cancelled() => {}
        }
    }

    fn happens(&mut self, chance: f64) -> bool {
        self.rng.random_bool(chance)
    }
}

fn fate_of(outcome: &Outcome) -> Fate {
    match outcome {
        Outcome::Acked { .. } => Fate::Acked,
        Outcome::Refused { .. } | Outcome::Stale => Fate::Refused,
        Outcome::Unknown { .. } | Outcome::Wrong(_) => Fate::Unknown,
    }
}

/// An error answer of a gateway's says that nothing was appended, unless it says that nobody knows. What nginx says
/// about a gateway that it has lost says nothing about the append.
fn outcome_of(answer: Result<Answer, Lost>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Lost::Unreachable(_)) => return Outcome::Refused { again_after: SOON },
        Err(Lost::Broken(_) | Lost::Silent) => return Outcome::Unknown { again_after: SOON },
    };
    let again_after = answer.retry_after().unwrap_or(SOON);
    match (answer.status, answer.code().as_deref()) {
        (200 | 204, _) => Outcome::Acked { next: answer.next().map(str::to_owned), fresh: answer.status == 200 },
        (503, Some("outcome_unknown")) => Outcome::Unknown { again_after },
        (503, Some(_)) | (408, Some("body_timeout")) => Outcome::Refused { again_after },
        (502..=504, None) => Outcome::Unknown { again_after },
        (403, Some("stale_epoch")) => Outcome::Stale,
        (status, code) => Outcome::Wrong(format!("{status} {code:?}")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn answer(status: u16, code: Option<&str>, fields: &[(&'static str, &'static str)]) -> Result<Answer, Lost> {
        let mut headers: HeaderMap = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let mut body = b"<html>".to_vec();
        if let Some(code) = code {
            headers.insert("content-type", HeaderValue::from_static("application/problem+json"));
            body = serde_json::json!({ "code": code }).to_string().into_bytes();
        }
        Ok(Answer { status, headers, body: body.into() })
    }

    #[test]
    fn an_answer_says_what_became_of_an_append_and_its_loss_says_nothing() {
        let next = || Some("0_1".to_owned());
        let fields = [("stream-next-offset", "0_1")];
        let (again_after, later) = (SOON, Duration::from_secs(3));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let table = [
            (answer(200, None, &fields), Outcome::Acked { next: next(), fresh: true }),
            (answer(204, None, &fields), Outcome::Acked { next: next(), fresh: false }),
            (answer(503, Some("outcome_unknown"), &[]), Outcome::Unknown { again_after }),
            (answer(503, Some("draining"), &[("retry-after", "3")]), Outcome::Refused { again_after: later }),
            (answer(503, None, &[]), Outcome::Unknown { again_after }),
            (answer(502, None, &[]), Outcome::Unknown { again_after }),
            (answer(504, None, &[]), Outcome::Unknown { again_after }),
            (answer(502, Some("store_refused"), &[]), Outcome::Wrong("502 Some(\"store_refused\")".to_owned())),
            (answer(403, Some("stale_epoch"), &[]), Outcome::Stale),
            (answer(409, Some("producer_gap"), &[]), Outcome::Wrong("409 Some(\"producer_gap\")".to_owned())),
            (answer(404, None, &[]), Outcome::Wrong("404 None".to_owned())),
            (Err(Lost::Unreachable(refused)), Outcome::Refused { again_after }),
            (Err(Lost::Silent), Outcome::Unknown { again_after }),
        ];
        for (answer, outcome) in table {
            assert_eq!(outcome_of(answer), outcome);
        }
    }

    #[test]
    fn what_is_wrong_may_be_there_and_what_is_refused_must_not() {
        assert_eq!(fate_of(&Outcome::Wrong(String::new())), Fate::Unknown);
        assert_eq!(fate_of(&Outcome::Unknown { again_after: SOON }), Fate::Unknown);
        assert_eq!(fate_of(&Outcome::Stale), Fate::Refused);
        assert_eq!(fate_of(&Outcome::Acked { next: None, fresh: false }), Fate::Acked);
    }
}
