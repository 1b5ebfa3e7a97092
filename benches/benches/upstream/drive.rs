//! One variant, once: what falls due and when, and what it took.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::ensure;
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tailwater_benches::{
    figures::{Sample, Summary},
    phases,
    programs::Cores,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    house::{House, Writers},
    readers::Readers,
};

/// The size of a message, in bytes.
const MESSAGE: usize = 100;
/// What a message begins with; its number follows, in so many digits.
const HEAD: &str = r#"{"n":"#;
const DIGITS: usize = 8;
/// What does not count: connections, caches and the allocator find their shape. In seconds.
const WARM_UP: u32 = 2;
/// The most messages of a turn: they are all in memory.
const MOST: u64 = 1_000_000;

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Nobody, and nothing falls due.
    Nobody,
    /// Nobody, but the schedule is kept.
    Schedule,
    /// A request for each message.
    Unary,
    /// An append session for each stream.
    Sessions,
}

/// Who follows the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Nobody.
    Nobody,
    /// A read session for each stream.
    Sessions,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) writes: Writes,
    pub(crate) reads: Reads,
}

/// How much falls due, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) streams: u32,
    /// Messages a second and stream.
    pub(crate) rate: u32,
    /// How long is measured.
    pub(crate) seconds: u32,
}

/// All messages of a turn, made before it begins. The `n`th one is for stream `n` modulo the number of streams.
pub(crate) struct Messages {
    bodies: Vec<Bytes>,
    streams: usize,
}

/// What a turn took.
pub(crate) struct Turn {
    /// How many messages fell due while it was measured.
    pub(crate) messages: u32,
    /// CPU of this process meanwhile, and how long that was.
    pub(crate) cpu: Duration,
    pub(crate) elapsed: Duration,
    /// From when an append was due to its ack.
    pub(crate) acks: Option<Summary>,
    /// The bars that were missed.
    pub(crate) missed: Vec<String>,
}

/// A moment, and the CPU that this process had taken by then.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    cpu: Duration,
}

/// What came of the schedule.
struct Driven {
    from: Mark,
    to: Mark,
    acks: Sample,
    missed: Vec<String>,
}

/// The acks so far.
#[derive(Default)]
struct Acked {
    /// The first append that counts.
    first: u32,
    times: Sample,
    missed: Vec<String>,
}

impl Variant {
    /// In the order in which they take turns.
    pub(crate) const ALL: [Self; 6] = [
        Self { writes: Writes::Schedule, reads: Reads::Nobody },
        Self { writes: Writes::Unary, reads: Reads::Nobody },
        Self { writes: Writes::Unary, reads: Reads::Sessions },
        Self { writes: Writes::Sessions, reads: Reads::Nobody },
        Self { writes: Writes::Sessions, reads: Reads::Sessions },
        Self { writes: Writes::Nobody, reads: Reads::Sessions },
    ];

    pub(crate) fn name(self) -> &'static str {
        match (self.writes, self.reads) {
            (Writes::Nobody, Reads::Nobody) => "nothing",
            (Writes::Nobody, Reads::Sessions) => "read sessions alone",
            (Writes::Schedule, Reads::Nobody) => "the schedule alone",
            (Writes::Schedule, Reads::Sessions) => "the schedule + read session",
            (Writes::Unary, Reads::Nobody) => "unary",
            (Writes::Unary, Reads::Sessions) => "unary + read session",
            (Writes::Sessions, Reads::Nobody) => "append session",
            (Writes::Sessions, Reads::Sessions) => "append session + read session",
        }
    }

    fn appends(self) -> bool {
        match self.writes {
            Writes::Nobody | Writes::Schedule => false,
            Writes::Unary | Writes::Sessions => true,
        }
    }
}

impl Plan {
    pub(crate) fn new(streams: u32, rate: u32, seconds: u32) -> anyhow::Result<Self> {
        ensure!(streams > 0 && rate > 0 && seconds > 0, "no streams, no messages or no time measure nothing");
        let all = u64::from(streams) * u64::from(rate) * (u64::from(seconds) + u64::from(WARM_UP));
        ensure!(all <= MOST, "{all} messages of a turn are more than {MOST}");
        Ok(Self { streams, rate, seconds })
    }

    fn a_second(self) -> u32 {
        self.streams * self.rate
    }

    fn warm_up(self) -> u32 {
        self.a_second() * WARM_UP
    }

    fn measured(self) -> u32 {
        self.a_second() * self.seconds
    }

    /// When the `n`th message falls due: somewhere in the `n`th of equal slots. At its start each time, all of them would
    /// meet the store in the same phase of its tick.
    fn due(self, n: u32) -> Duration {
        let slot = Duration::from_secs(1) / self.a_second();
        slot * n + phases::pause(n, slot)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, rate, seconds } = self;
        write!(f, "{streams} streams, {rate} messages of {MESSAGE} bytes a second and stream, {seconds} s a turn")
    }
}

impl Messages {
    fn of(plan: Plan) -> Self {
        let body = |n| {
            let head = format!(r#"{HEAD}"{n:0DIGITS$}","text":""#);
            let fill = MESSAGE - head.len() - r#""}"#.len();
            Bytes::from(format!(r#"{head}{:.>fill$}"}}"#, ""))
        };
        let bodies = (0..plan.warm_up() + plan.measured()).map(body).collect();
        Self { bodies, streams: plan.streams as usize }
    }

    pub(crate) fn len(&self) -> usize {
        self.bodies.len()
    }

    fn stream_of(&self, n: usize) -> usize {
        n % self.streams
    }

    /// The number of the message with this body, if there is one and it is for this stream.
    pub(crate) fn number_of(&self, stream: usize, body: &Bytes) -> Option<usize> {
        let digits = body.get(HEAD.len() + 1..)?.get(..DIGITS)?;
        let n: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (self.bodies.get(n)? == body && self.stream_of(n) == stream).then_some(n)
    }
}

impl Mark {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(cpu.tv_sec).expect("a process has taken no negative time");
        let nanos = u32::try_from(cpu.tv_nsec).expect("there are less than 10^9 nanoseconds to a second");
        Self { at: Instant::now(), cpu: Duration::new(seconds, nanos) }
    }
}

impl Acked {
    fn take(&mut self, (n, ended): (u32, anyhow::Result<Duration>)) {
        match ended {
            Ok(took) if n >= self.first => self.times.push(took),
            Ok(_) => {}
            Err(error) => self.missed.push(format!("message {n} was not acknowledged: {error:#}")),
        }
    }
}

/// Opens everything, keeps the schedule, and looks at what came of it.
pub(crate) async fn turn(cores: Cores, plan: Plan, variant: Variant) -> anyhow::Result<Turn> {
    let house = House::open(cores, plan.streams).await?;
    let messages = Arc::new(Messages::of(plan));
    let writers = Arc::new(house.writers(variant.writes)?);
    let (sessions, wanted) = match variant.reads {
        Reads::Nobody => (Vec::new(), 0),
        Reads::Sessions => (house.read_sessions().await?, plan.streams),
    };
    let readers = Readers::follow(sessions, &messages);

    let before = house.open_read_sessions()?;
    let mut driven = match variant.writes {
        Writes::Nobody => wait(plan).await,
        Writes::Schedule | Writes::Unary | Writes::Sessions => drive(plan, &writers, &messages).await?,
    };
    let after = house.open_read_sessions()?;

    let mut missed = std::mem::take(&mut driven.missed);
    if (before, after) != (wanted, wanted) {
        missed.push(format!("{before} read sessions before and {after} after, not {wanted}"));
    }
    missed.extend(readers.end(variant.appends()).await);
    if let Some(writers) = Arc::into_inner(writers) {
        writers.close().await?;
    }
    house.close().await?;
    Ok(Turn {
        messages: if variant.writes == Writes::Nobody { 0 } else { plan.measured() },
        cpu: driven.to.cpu - driven.from.cpu,
        elapsed: driven.to.at - driven.from.at,
        acks: if variant.appends() { driven.acks.summary() } else { None },
        missed,
    })
}

/// Lets the time of a schedule pass.
async fn wait(plan: Plan) -> Driven {
    let start = Instant::now();
    sleep_until(start + Duration::from_secs(WARM_UP.into())).await;
    let from = Mark::now();
    sleep_until(start + Duration::from_secs((WARM_UP + plan.seconds).into())).await;
    Driven { from, to: Mark::now(), acks: Sample::default(), missed: Vec::new() }
}

/// Starts each append when it is due, and waits for all acks once the schedule is over.
async fn drive(plan: Plan, writers: &Arc<Writers>, messages: &Arc<Messages>) -> anyhow::Result<Driven> {
    let start = Instant::now();
    let mut from = Mark::now();
    let mut appends = JoinSet::new();
    let mut acked = Acked { first: plan.warm_up(), ..Acked::default() };
    for n in 0..plan.warm_up() + plan.measured() {
        let due = start + plan.due(n);
        sleep_until(due).await;
        if n == plan.warm_up() {
            from = Mark::now();
        }
        appends.spawn(append(n, due, Arc::clone(writers), Arc::clone(messages)));
        while let Some(ended) = appends.try_join_next() {
            acked.take(ended?);
        }
    }
    sleep_until(start + plan.due(plan.warm_up() + plan.measured())).await;
    let to = Mark::now();
    while let Some(ended) = appends.join_next().await {
        acked.take(ended?);
    }
    Ok(Driven { from, to, acks: acked.times, missed: acked.missed })
}

async fn append(
    n: u32,
    due: Instant,
    writers: Arc<Writers>,
    messages: Arc<Messages>,
) -> (u32, anyhow::Result<Duration>) {
    let at = n as usize;
    let appended = writers.append(messages.stream_of(at), messages.bodies[at].clone()).await;
    (n, appended.map(|()| due.elapsed()))
}
