//! One append, until it is known what became of it.
//!
//! An append whose fate is unknown may still land later. What was conditioned on the position is sent again, the same
//! batch at the same position: at most one of them can land. What was conditioned on the token alone is settled by
//! moving the token: from then on the late attempt is refused, so the log up to that fence either holds the batch, found
//! by its identity, or never will.
//!
//! After an outage many have to be settled at once. So the pauses between tries grow, with jitter, and nothing is looked
//! into for whom nobody waits any more: what follows is decided on the log, whatever became of it.

use std::{ops::Deref, sync::Arc, time::Duration};

use tailwater_log::{BatchId, Condition, Entry, NewRecord, Plan, Token};
use tailwater_upstream::{Append, AppendAck, AppendError, Fate, Position, StreamKey, Upstream};
use tokio::time::{Instant, sleep};

use crate::{
    chance::Chance,
    config::Config,
    logread::{LogReader, append_within},
    ops::OpError,
};

/// What became of an append.
#[derive(Debug)]
pub(crate) enum Settled {
    /// It is durable.
    Landed(AppendAck),
    /// It did not land, and will not: the log, or the token, is not what the plan was made on. Look, and decide again.
    Refused {
        /// The token in force, where the refusal named it.
        token: Option<Token>,
    },
    /// It did not land, and will not.
    Failed(AppendError),
    /// Nobody can tell in time.
    Unknown,
}

/// The first pause between tries, how often it doubles, and the time of one try.
const PAUSE: Duration = Duration::from_millis(100);
const DOUBLINGS: u32 = 3;
const ONE_TRY: Duration = Duration::from_secs(6);
/// How often a name is tried again whose emptied stream the store is just reaping.
const REAPING_PAUSE: Duration = Duration::from_millis(50);

/// An append and all that is needed to find out about it.
pub(crate) struct Attempt {
    upstream: Arc<dyn Upstream>,
    key: StreamKey,
    append: Append,
    batch: BatchId,
    token: Token,
    /// Where the log ended when the plan was made: the batch can only stand behind it.
    from: u64,
    deadline: Instant,
    chance: Chance,
}

/// An append whose fate is being looked into, for as long as somebody waits for the answer.
struct Settling<'a> {
    attempt: &'a Attempt,
    is_awaited: &'a (dyn Fn() -> bool + Send + Sync),
}

/// How patiently the fate of an append is looked into.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    within: Duration,
    chance: Chance,
}

impl From<&Arc<Config>> for Patience {
    fn from(config: &Arc<Config>) -> Self {
        Self { within: config.settle, chance: config.chance.clone() }
    }
}

impl Attempt {
    pub(crate) fn new(
        upstream: Arc<dyn Upstream>,
        key: StreamKey,
        plan: Plan,
        (token, next): (Token, u64),
        Patience { within, chance }: Patience,
    ) -> Self {
        let match_seq = match plan.condition {
            Condition::Token => None,
            Condition::TokenAndPosition => Some(next),
        };
        let append = Append { records: plan.records, match_seq, token: Some(token.to_string()) };
        let deadline = Instant::now() + within;
        Self { upstream, key, append, batch: plan.batch, token, from: next, deadline, chance }
    }

    /// Appends, and settles what is not known at once, for as long as somebody waits for the answer.
    pub(crate) async fn run(self, is_awaited: &(dyn Fn() -> bool + Send + Sync)) -> Settled {
        loop {
            match self.try_once().await {
                Ok(ack) => return Settled::Landed(ack),
                Err(AppendError::SeqMismatch { .. }) => return Settled::Refused { token: None },
                Err(AppendError::TokenMismatch { actual }) => {
                    return Settled::Refused { token: Some(Token::parse(&actual)) };
                }
                Err(AppendError::DeletionPending) if self.has_time() => sleep(REAPING_PAUSE).await,
                Err(error) if error.fate() == Fate::NotAppended => return Settled::Failed(error),
                Err(_) => break,
            }
        }
        // A batch that moves the token refuses its own second coming, as one that is conditioned on the position does.
        let at_most_once = self.append.match_seq.is_some() || self.append.records.iter().any(NewRecord::is_fence);
        let settling = Settling { attempt: &self, is_awaited };
        if at_most_once { settling.send_again().await } else { settling.move_token().await }
    }

    async fn try_once(&self) -> Result<AppendAck, AppendError> {
        append_within(ONE_TRY, self.upstream.append(&self.key, self.append.clone())).await
    }

    /// The pause before one more try: longer each time, and never the same on two pods.
    async fn rest(&self, tries: &mut u32) {
        sleep(self.chance.jittered(PAUSE * (1 << (*tries).min(DOUBLINGS)))).await;
        *tries += 1;
    }

    fn has_time(&self) -> bool {
        Instant::now() < self.deadline
    }
}

impl Deref for Settling<'_> {
    type Target = Attempt;

    fn deref(&self) -> &Attempt {
        self.attempt
    }
}

impl Settling<'_> {
    async fn send_again(&self) -> Settled {
        let mut tries = 0;
        while self.goes_on() {
            self.rest(&mut tries).await;
            match self.try_once().await {
                Ok(ack) => return Settled::Landed(ack),
                Err(AppendError::SeqMismatch { .. } | AppendError::TokenMismatch { .. }) => {
                    return self.look(None).await;
                }
                Err(_) => {}
            }
        }
        Settled::Unknown
    }

    async fn move_token(&self) -> Settled {
        let Some(moved) = self.token.with_turn(self.chance.number()) else {
            // Without a token of ours nothing can refuse the late attempt.
            return Settled::Unknown;
        };
        let mut tries = 0;
        while self.goes_on() {
            self.rest(&mut tries).await;
            let fence = vec![NewRecord::fence(&moved.to_string())];
            let append = Append { records: fence, match_seq: None, token: self.append.token.clone() };
            match append_within(ONE_TRY, self.upstream.append(&self.key, append)).await {
                Ok(_) => return self.look(Some(moved)).await,
                Err(AppendError::TokenMismatch { actual }) => return self.look(Some(Token::parse(&actual))).await,
                Err(_) => {}
            }
        }
        Settled::Unknown
    }

    /// Looks for the batch in the log, which can no longer change in this respect.
    async fn look(&self, token: Option<Token>) -> Settled {
        let reader = LogReader::new(Arc::clone(&self.upstream), self.key.clone());
        let mut tries = 0;
        while self.has_time() {
            if let Ok(Some(tail)) = reader.tail().await
                && let Ok(records) = reader.read_all(self.from, tail.seq).await
            {
                let ours = records.iter().rposition(|read| {
                    let stamp = Entry::decode(&read.record).ok().and_then(|entry| entry.stamp);
                    stamp.is_some_and(|stamp| stamp.batch == self.batch)
                });
                let Some(last) = ours else {
                    // Where part of the stretch has been trimmed since, the batch may have stood there.
                    let first = records.first().map_or(tail.seq, |read| read.record.seq);
                    let is_whole = first == self.from;
                    return if is_whole { Settled::Refused { token } } else { Settled::Unknown };
                };
                let first = (last + 1).saturating_sub(self.append.records.len());
                return Settled::Landed(AppendAck {
                    start: position(&records[first].record, 0),
                    end: position(&records[last].record, 1),
                });
            }
            self.rest(&mut tries).await;
        }
        Settled::Unknown
    }

    fn goes_on(&self) -> bool {
        self.has_time() && (self.is_awaited)()
    }
}

fn position(record: &tailwater_log::Record, after: u64) -> Position {
    Position { seq: record.seq + after, timestamp: record.timestamp }
}

/// What a settled append that is known not to have landed tells a client.
pub(crate) fn failed(error: AppendError) -> OpError {
    OpError::from(error)
}
