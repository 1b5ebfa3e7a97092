//! One way under one load, once.

use std::{fmt, process, sync::Arc, time::Duration};

use anyhow::Context as _;
use tailwater_benches::{
    figures::{Sample, Summary},
    ledger::{Ledger, Stamp},
    programs::cpu_of,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    house::Doors,
    way::{Road, Way, Writer},
};

/// What does not count: connections, caches and the allocator find their shape.
const WARM_UP: Duration = Duration::from_secs(1);

/// How many write to how many streams, and for how long it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) streams: u32,
    pub(crate) writers: u32,
    pub(crate) seconds: u32,
}

/// What a turn took.
pub(crate) struct Turn {
    /// Acks while it was measured.
    pub(crate) acks: usize,
    /// How long they took; `None` where there was none.
    pub(crate) times: Option<Summary>,
    pub(crate) cpu: Cpu,
    /// The bars that were missed.
    pub(crate) missed: Vec<String>,
}

/// CPU of each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// This one: a client of the gateway, or who speaks to the store.
    pub(crate) own: Duration,
    pub(crate) gateway: Duration,
    pub(crate) store: Duration,
}

/// When a writer begins, when its acks count, and when it ends.
#[derive(Clone, Copy)]
struct Schedule {
    from: Instant,
    to: Instant,
}

/// What a writer has to tell.
struct Written {
    writer: usize,
    acked: usize,
    times: Vec<Duration>,
    /// Why it ended early.
    failed: Option<anyhow::Error>,
}

impl Cpu {
    fn now(doors: &Doors) -> anyhow::Result<Self> {
        let Doors { store_pid, gateway_pid, .. } = *doors;
        Ok(Self { own: cpu_of(process::id())?, gateway: cpu_of(gateway_pid)?, store: cpu_of(store_pid)? })
    }

    fn since(self, before: Self) -> Self {
        Self { own: self.own - before.own, gateway: self.gateway - before.gateway, store: self.store - before.store }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |number: u32| if number == 1 { "" } else { "s" };
        let Self { streams, writers, .. } = *self;
        write!(f, "{streams} stream{}, {writers} writer{}", plural(streams), plural(writers))
    }
}

/// Lets all writers write, and looks at what the streams then hold.
pub(crate) async fn turn(doors: Doors, load: Load, way: Way) -> anyhow::Result<Turn> {
    let road = Arc::new(Road::open(doors.clone(), way, load.streams).await?);
    let mut opened = Vec::new();
    for number in 0..load.writers as usize {
        opened.push(Writer::open(Arc::clone(&road), way, number).await?);
    }

    let from = Instant::now() + WARM_UP;
    let schedule = Schedule { from, to: from + Duration::from_secs(load.seconds.into()) };
    let mut writers = JoinSet::new();
    for (number, writer) in opened.into_iter().enumerate() {
        writers.spawn(write(writer, number, schedule));
    }
    sleep_until(schedule.from).await;
    let before = Cpu::now(&doors)?;
    sleep_until(schedule.to).await;
    let cpu = Cpu::now(&doors)?.since(before);

    let mut ledger = Ledger { streams: load.streams as usize, acked: vec![0; load.writers as usize] };
    let (mut sample, mut acks, mut missed) = (Sample::default(), 0, Vec::new());
    while let Some(written) = writers.join_next().await {
        let Written { writer, acked, times, failed } = written?;
        ledger.acked[writer] = acked;
        acks += times.len();
        times.into_iter().for_each(|took| sample.push(took));
        missed
            .extend(failed.map(|error| format!("message {acked} of writer {writer} was not acknowledged: {error:#}")));
    }
    for stream in 0..ledger.streams {
        let held = road.messages(way, stream).await.with_context(|| format!("stream {stream} cannot be read"))?;
        if let Err(breach) = ledger.check(stream, held) {
            missed.push(format!("stream {stream}: {breach}"));
        }
    }
    if acks == 0 {
        missed.push("nothing was acknowledged while it was measured".to_owned());
    }
    let road = Arc::into_inner(road).context("a writer is still there")?;
    road.close().await?;
    Ok(Turn { acks, times: sample.summary(), cpu, missed })
}

async fn write(mut writer: Writer, number: usize, schedule: Schedule) -> Written {
    let mut written = Written { writer: number, acked: 0, times: Vec::new(), failed: None };
    loop {
        let start = Instant::now();
        if start >= schedule.to {
            return written;
        }
        if let Err(error) = writer.append(Stamp { writer: number, nth: written.acked }).await {
            written.failed = Some(error);
            return written;
        }
        written.acked += 1;
        let end = Instant::now();
        if (schedule.from..schedule.to).contains(&end) {
            written.times.push(end - start);
        }
    }
}
