//! What is shown: a load, what the store was asked for meanwhile, and the bars that it is held against.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use tailwater_benches::{chunks, programs::Cores};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    house::{Counts, House},
    say,
};

/// How often the store and the gateway are looked at while readers are there.
const LOOK: Duration = Duration::from_millis(250);
/// Within which all must be back after a storm.
const BACK: Duration = Duration::from_secs(10);
/// The size of the messages of a storm, in bytes, and the gateway's ring: up to there, no chunk is missing.
const STORMED: u64 = 200;
const RING: u64 = 1024 * 1024;
/// The size of the messages of a replay, in bytes: as `benches/scenarios/replay.toml` has it.
const REPLAYED: u64 = 1000;
/// The unary reads of a replay beyond one for each chunk: what the gateway reads to meet the stream.
const BESIDE: u64 = 5;

/// What a load has shown.
pub(crate) struct Finding {
    text: String,
    figures: Map<String, Value>,
    missed: Vec<&'static str>,
}

/// What clients that replay ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One answer after the other, up to the tail.
    Pages,
    /// Server-Sent Events; who has come to the tail is a live reader.
    Events,
}

/// What the store had open while all readers were there.
#[derive(Default)]
struct Looks(Vec<Counts>);

/// Readers that follow streams, with a message a second to each stream. While all of them are there, the store has one
/// read session a stream.
pub(crate) async fn sessions(cores: Cores, readers: u64, streams: u64) -> anyhow::Result<Finding> {
    let house = House::open(cores).await?;
    let settings = [
        ("readers", readers.to_string()),
        ("streams", streams.to_string()),
        ("rate", "1".to_owned()),
        ("duration", "10s".to_owned()),
    ];
    let mut looks = Looks::default();
    let report = tokio::select! {
        report = house.load("run", &settings, &[]) => report?,
        failed = looks.take(&house, readers) => return Err(failed),
    };
    let Counts { opened, reads, .. } = house.counts();
    let (times, fewest, most) = looks.open();
    let [first, last] = [looks.0.first(), looks.0.last()].map(|look| look.map_or(0, |counts| counts.open));
    let text = format!(
        "sessions  {readers} readers of {streams} streams: {first} read sessions open at the store when all had joined, \
         {last} at the end, {fewest} to {most} in {times} looks; {opened} opened in all; {reads} unary reads; {} deliveries",
        number(&report, "/deliveries/total")?,
    );
    let mut finding = Finding::new(text, &report);
    finding.note("sessions", &[("readers", readers), ("streams", streams), ("opened", opened), ("reads", reads)]);
    finding.note("sessions", &[("looks", times), ("fewest_open", fewest), ("most_open", most)]);
    finding.bar(times >= 2, "the readers were seen at least twice");
    finding.bar((fewest, most) == (streams, streams), "as many read sessions are open as there are streams");
    finding.bar(opened == streams, "no more read sessions were opened than there are streams");
    house.close().await?;
    Ok(finding)
}

/// All readers of a stream are cut and come back at once. What they missed is in the ring, so no chunk is missing, and
/// the store is asked for nothing.
pub(crate) async fn storm(cores: Cores, readers: u64) -> anyhow::Result<Finding> {
    let house = House::open(cores).await?;
    let settings = [
        ("readers", readers.to_string()),
        ("streams", "1".to_owned()),
        ("rate", "5".to_owned()),
        ("size", STORMED.to_string()),
        ("gap", "5s".to_owned()),
        ("connect-window", readers.to_string()),
    ];
    let report = house.load("storm", &settings, &[]).await?;
    let Counts { opened, reads, reads_before, .. } = house.counts();
    let (during, sent) = (reads - reads_before, number(&report, "/appends/sent")?);
    let back = report.pointer("/storms/0/all_back_ms").and_then(Value::as_u64);
    let took = back.map_or_else(|| "not all back".to_owned(), |ms| format!("all back after {ms} ms"));
    let text = format!(
        "storm     {readers} readers of a stream cut at once: {took}; {opened} read sessions opened at the store; {during} \
         unary reads from the first reader on, for 0 missing chunks ({sent} messages of {STORMED} bytes, all in the ring), and \
         {reads_before} before",
    );
    let mut finding = Finding::new(text, &report);
    finding.note("storm", &[("readers", readers), ("opened", opened), ("reads", during)]);
    finding.note("storm", &[("reads_before", reads_before)]);
    finding.note("storm", &back.map_or_else(Vec::new, |ms| vec![("all_back_ms", ms)]));
    let cut = report.pointer("/storms/0/readers").and_then(Value::as_u64);
    finding.bar(cut == Some(readers), "every reader was cut");
    finding.bar(back.is_some_and(|ms| u128::from(ms) < BACK.as_millis()), "all are back within 10 s");
    finding.bar(sent * STORMED < RING, "all that was sent is in the ring");
    finding.bar(opened == 1, "one read session is opened for the stream");
    finding.bar(during == 0, "no more unary reads than missing chunks");
    house.close().await?;
    Ok(finding)
}

/// Clients that read the same stream from its first message to its tail, all at once. The store is read once for each
/// chunk, and a few times when the gateway meets the stream; all reads of the gateway's life are counted.
pub(crate) async fn replay(cores: Cores, clients: u64, mib: u64, form: Form) -> anyhow::Result<Finding> {
    let house = House::open(cores).await?;
    let settings = [
        ("clients", clients.to_string()),
        ("streams", "1".to_owned()),
        ("preload", format!("{mib}MiB")),
        ("preload-size", REPLAYED.to_string()),
    ];
    let flags: &[&str] = if form == Form::Events { &["--replay-events"] } else { &[] };
    let report = house.load("replay", &settings, flags).await?;
    let Counts { opened, reads, .. } = house.counts();
    let records = house.records(0).await?;
    let (chunks, each) = (chunks::holding(records, REPLAYED), chunks::records_of_one(REPLAYED));
    let text = format!(
        "replay    {clients} clients, {mib} MiB each as {}, at once: {reads} unary reads at the store, {opened} read \
         sessions; {chunks} chunks ({records} records of {REPLAYED} bytes at the store, {each} to a chunk); {} of {clients} \
         had all after {} ms, {:.0} MiB/s",
        form.name(),
        number(&report, "/replays/finished")?,
        number(&report, "/replays/elapsed_ms")?,
        report.pointer("/replays/mib_per_second").and_then(Value::as_f64).context("the throughput of a replay")?,
    );
    let mut finding = Finding::new(text, &report);
    finding.note("replay", &[("clients", clients), ("reads", reads), ("records", records), ("chunks", chunks)]);
    finding.note("replay", &[("opened", opened)]);
    finding.figures.insert("form".to_owned(), form.name().into());
    finding.bar(number(&report, "/replays/finished")? == clients, "every client has read it all");
    finding.bar(records >= (mib * 1024 * 1024).div_ceil(REPLAYED), "the stream is as long as it should be");
    finding.bar(reads <= chunks + BESIDE, "no more unary reads than chunks and 5");
    finding.bar(opened <= u64::from(form == Form::Events), "one read session for live readers, none for others");
    house.close().await?;
    Ok(finding)
}

impl Finding {
    /// A finding; `fanbench`'s own checks (no gap, repeat or refusal) are a bar of each.
    fn new(text: String, report: &Value) -> Self {
        let mut finding = Self { text, figures: Map::new(), missed: Vec::new() };
        if let Some(failures) = report.pointer("/failures").and_then(Value::as_array) {
            finding.text.extend(failures.iter().take(3).map(|failure| format!("\n          fanbench: {failure}")));
        }
        finding.bar(report.pointer("/ok") == Some(&Value::Bool(true)), "no gap, no repeat, no refusal");
        finding
    }

    fn note(&mut self, show: &str, figures: &[(&str, u64)]) {
        self.figures.insert("show".to_owned(), show.into());
        self.figures.extend(figures.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
    }

    fn bar(&mut self, held: bool, what: &'static str) {
        if !held {
            self.missed.push(what);
        }
    }

    /// Whether every bar is held.
    pub(crate) fn holds(&self) -> bool {
        self.missed.is_empty()
    }

    /// The same as the line, for machines.
    pub(crate) fn json(&self) -> Value {
        json!({ "figures": self.figures, "missed": self.missed })
    }

    /// Prints the line.
    pub(crate) fn told(self) -> anyhow::Result<Self> {
        say(&self.text)?;
        self.missed.iter().try_for_each(|what| say(&format!("          MISSED: {what}")))?;
        Ok(self)
    }
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Pages => "pages",
            Self::Events => "events",
        }
    }
}

impl Looks {
    /// Looks at the store again and again, and keeps what it saw while all readers were there. Ends only when it fails.
    async fn take(&mut self, house: &House, readers: u64) -> anyhow::Error {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match house.live_readers().await {
                Ok(there) if there == readers => self.0.push(house.counts()),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    /// How many looks there were, and the fewest and the most read sessions that were open.
    fn open(&self) -> (u64, u64, u64) {
        let open = || self.0.iter().map(|counts| counts.open);
        (self.0.len() as u64, open().min().unwrap_or_default(), open().max().unwrap_or_default())
    }
}

fn number(report: &Value, at: &str) -> anyhow::Result<u64> {
    report.pointer(at).and_then(Value::as_u64).with_context(|| format!("fanbench tells no {at}"))
}
