//! Clients that read, lose their connections, and go on from the last offset that they were told.
//!
//! All four ways of reading are here, and each loses connections in two ways: something breaks, or the client has had
//! enough after a while and comes back elsewhere. What came after the last offset is forgotten with its connection,
//! because it will come again.

mod events;
mod pages;
mod place;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    history::{ReaderHistory, Start},
    message::Content,
    plan::between,
    reader::place::Place,
};

/// After so many complaints a reader gives up.
const COMPLAINTS: usize = 10;
/// Between these a client comes back when nobody says when.
const BACK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// The longest that a client waits because it was told to.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Server-Sent Events, by a client of the protocol.
    Events,
    /// Server-Sent Events as a browser's `EventSource` asks for them: the first URL again, and `Last-Event-ID`.
    EventSource,
    /// Long-polls, many on a connection.
    LongPoll,
    /// Pages up to the tail, now and then.
    CatchUp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Events, Self::EventSource, Self::LongPoll, Self::CatchUp];
}

/// What a reader is to do.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Which stream.
    pub stream: String,
    /// What that holds.
    pub content: Content,
    /// Where it can be reached; each connection goes to another one.
    pub fronts: Vec<SocketAddr>,
    /// How it reads.
    pub kind: Kind,
    /// From where.
    pub from: Start,
    /// How long after the others it begins.
    pub after: Duration,
    /// How long it waits until it takes silence for a loss.
    pub silence: Duration,
    /// How long it keeps a connection, if it does not keep it as long as it lasts.
    pub keeps: Option<(Duration, Duration)>,
    /// Decides what is left to chance.
    pub seed: u64,
}

/// What can be seen of a reader while it reads.
#[derive(Debug, Default)]
pub struct Progress {
    messages: AtomicU64,
    /// When it was answered on a further connection.
    resumed: Mutex<Vec<Instant>>,
}

impl Progress {
    /// How many messages it has.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// How often it went on from its offset.
    #[must_use]
    pub fn resumes(&self) -> usize {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// When it did so, from one moment on and before another.
    #[must_use]
    pub fn resumed_between(&self, from: Instant, until: Instant) -> Vec<Instant> {
        let resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
        resumed.iter().filter(|at| (from..until).contains(*at)).copied().collect()
    }

    fn has(&self, messages: usize) {
        self.messages.store(messages as u64, Ordering::Relaxed);
    }

    fn resume(&self) {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }
}

/// How a connection ended for its reader.
enum Leg {
    /// With the end of the stream.
    Finished,
    /// In any other way; when to come back.
    Over(Duration),
    /// With something that should not have been.
    Wrong(String),
}

struct Reader {
    reading: Reading,
    rng: StdRng,
    place: Place,
    progress: Arc<Progress>,
    /// The number of connections so far.
    connections: usize,
}

/// Reads to the end of the stream, or until told to give up.
pub async fn read(reading: Reading, progress: Arc<Progress>, give_up: CancellationToken) -> ReaderHistory {
    let name = format!("{:?} from {:?}, seed {}", reading.kind, reading.from, reading.seed);
    let mut reader = Reader {
        rng: StdRng::seed_from_u64(reading.seed),
        place: Place::new(reading.from),
        progress,
        connections: 0,
        reading,
    };
    let mut breaches = Vec::new();
    let finished = give_up.run_until_cancelled(reader.run(&mut breaches)).await.unwrap_or(false);
    let Reader { reading, place, progress, .. } = reader;
    let (resumes, (seen, begun)) = (progress.resumes() as u64, place.into_seen());
    ReaderHistory { name, from: reading.from, begun, behind: None, seen, resumes, finished, breaches }
}

impl Reader {
    /// Whether it came to the end of the stream.
    async fn run(&mut self, breaches: &mut Vec<String>) -> bool {
        sleep(self.reading.after).await;
        loop {
            let leg = match self.reading.kind {
                Kind::Events | Kind::EventSource => self.events().await,
                Kind::LongPoll => self.polls().await,
                Kind::CatchUp => self.pages().await,
            };
            self.connections += 1;
            self.place.roll_back();
            match leg {
                Leg::Finished => return true,
                Leg::Over(back) => sleep(back).await,
                Leg::Wrong(what) => {
                    breaches.push(format!("{what}, to {:?} at {}", self.reading.kind, self.place.offset()));
                    if breaches.len() >= COMPLAINTS {
                        return false;
                    }
                    sleep(LONGEST_WAIT).await;
                }
            }
        }
    }

    fn front(&self) -> SocketAddr {
        let fronts = &self.reading.fronts;
        let first = usize::try_from(self.reading.seed).unwrap_or_default();
        fronts[first.wrapping_add(self.connections) % fronts.len()]
    }

    /// When it has had enough of a connection that it opens now.
    fn enough(&mut self) -> Option<Instant> {
        let (least, most) = self.reading.keeps?;
        Some(Instant::now() + between(&mut self.rng, least, most))
    }

    /// Comes back soon.
    fn back(&mut self) -> Leg {
        Leg::Over(between(&mut self.rng, BACK.0, BACK.1))
    }

    /// What a status that is no success means. Passing ones, and what nginx says of gateways that it lost, are a loss.
    fn refused(&mut self, status: u16, headers: &HeaderMap) -> Leg {
        if !(502..=504).contains(&status) {
            return Leg::Wrong(format!("{status}"));
        }
        let seconds = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        match seconds.map(Duration::from_secs) {
            Some(wait) => Leg::Over(wait.min(LONGEST_WAIT).mul_f64(self.rng.random_range(1.0..1.5))),
            None => self.back(),
        }
    }

    /// The first answer on a connection has come to a request that carried an offset, or none.
    fn answered(&self, carried: bool) {
        if carried {
            self.progress.resume();
        }
    }

    /// Everything up to an offset has come.
    fn commit(&mut self, next: &str) -> Result<(), Leg> {
        self.place.commit(next).map_err(|misplaced| Leg::Wrong(misplaced.to_string()))?;
        self.progress.has(self.place.seen());
        Ok(())
    }

    /// Messages have come whose offset has not.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Leg> {
        let messages = self.reading.content.decode(bytes).map_err(|malformed| Leg::Wrong(malformed.to_string()))?;
        self.place.take(messages);
        Ok(())
    }
}
