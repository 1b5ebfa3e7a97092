//! The two operations, each done both ways.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use tailwater_benches::{
    connection::Connection,
    figures::{Comparison, Sample, Summary},
    phases,
};
use tailwater_log::NewRecord;
use tailwater_upstream::{Append, StreamKey, Upstream as _};
use tokio::{task::yield_now, time::sleep};

use crate::{arrivals::Arrivals, house::House};

/// The project that all streams are in.
const PROJECT: &str = "bench";
/// The size of a message, in bytes.
pub(crate) const MESSAGE: usize = 200;
/// Attempts that do not count, each way: connections, caches and the allocator find their shape.
const WARM_UP: u32 = 100;
/// How many deliveries are taken one way before the other has its turn.
const BLOCK: u32 = 50;
/// Attempts start at all phases of this period: two flush ticks of a store in memory.
const PERIOD: Duration = Duration::from_millis(10);
/// The timer's resolution is a millisecond; the rest of a pause is spent looking at the clock.
const TIMER: Duration = Duration::from_millis(2);

/// By which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Gateway,
}

/// Who publishes, and the readers of two streams of which only one is published to at a time.
struct Readers<'a> {
    house: &'a House,
    by_session: Arrivals,
    by_response: Arrivals,
}

/// Times of both ways.
#[derive(Debug, Default)]
struct Times {
    direct: Sample,
    gateway: Sample,
}

/// From the start of an append to its acknowledgement. Each way has a stream of its own, and they take turns.
pub(crate) async fn appends(house: &House, count: u32) -> anyhow::Result<Comparison> {
    let mut connection = Connection::open(&house.gateway, PROJECT).await?;
    connection.create("append-gateway").await?;
    let mut times = Times::default();
    for n in 0..WARM_UP + count {
        // Whoever comes second may find the store busier: so both come second equally often.
        let ways = if n % 2 == 0 { [Way::Direct, Way::Gateway] } else { [Way::Gateway, Way::Direct] };
        for way in ways {
            let message = message(n);
            pause(phases::pause(n, PERIOD)).await;
            let start = Instant::now();
            match way {
                Way::Direct => publish(house, "append-direct", message).await?,
                Way::Gateway => connection.append("append-gateway", message).await?,
            }
            times.keep(n, way, start.elapsed());
        }
    }
    times.compare(house, "append")
}

/// From the start of an append by S2's library to the arrival of the message at the one reader of the stream: a read
/// session by the library, or a response of Server-Sent Events by the gateway.
pub(crate) async fn deliveries(house: &House, count: u32) -> anyhow::Result<Comparison> {
    let mut readers = Readers::open(house).await?;
    let mut times = Times::default();
    let all = WARM_UP + count;
    for first in (0..all).step_by(BLOCK as usize) {
        for way in [Way::Direct, Way::Gateway] {
            for n in first..all.min(first + BLOCK) {
                pause(phases::pause(n, PERIOD)).await;
                times.keep(n, way, readers.deliver(way, n).await?);
            }
        }
    }
    times.compare(house, "delivery")
}

impl<'a> Readers<'a> {
    const BY_SESSION: &'static str = "delivery-session";
    const BY_RESPONSE: &'static str = "delivery-response";

    async fn open(house: &'a House) -> anyhow::Result<Self> {
        publish(house, Self::BY_SESSION, message(0)).await?;
        let key = StreamKey::new(PROJECT, Self::BY_SESSION);
        let tail = house.direct.check_tail(&key).await?;
        let by_session = Arrivals::of_session(house.direct.read_session(&key, tail.seq).await?);
        let mut connection = Connection::open(&house.gateway, PROJECT).await?;
        connection.create(Self::BY_RESPONSE).await?;
        let by_response = Arrivals::of_response(connection.follow(Self::BY_RESPONSE).await?).await?;
        Ok(Self { house, by_session, by_response })
    }

    /// Publishes the `n`th message to one of the readers; how long it took.
    async fn deliver(&mut self, way: Way, n: u32) -> anyhow::Result<Duration> {
        let (stream, arrivals) = match way {
            Way::Direct => (Self::BY_SESSION, &mut self.by_session),
            Way::Gateway => (Self::BY_RESPONSE, &mut self.by_response),
        };
        let message = message(n);
        let start = Instant::now();
        // The message may be there before its ack.
        let (arrived, published) = tokio::join!(arrivals.next(&message), publish(self.house, stream, message.clone()));
        published?;
        Ok(arrived?.duration_since(start))
    }
}

impl Times {
    fn keep(&mut self, n: u32, way: Way, took: Duration) {
        if n < WARM_UP {
            return;
        }
        match way {
            Way::Direct => self.direct.push(took),
            Way::Gateway => self.gateway.push(took),
        }
    }

    fn compare(&self, house: &House, operation: &'static str) -> anyhow::Result<Comparison> {
        let summary = |sample: &Sample| -> anyhow::Result<Summary> { sample.summary().context("nothing was measured") };
        let (direct, gateway) = (summary(&self.direct)?, summary(&self.gateway)?);
        Ok(Comparison { store: house.layout.name(), operation, direct, gateway })
    }
}

/// Appends one plain record by S2's library. A gateway's readers see it as a message.
async fn publish(house: &House, stream: &str, message: Bytes) -> anyhow::Result<()> {
    let append = Append::new(vec![NewRecord::message(message)]);
    house.direct.append(&StreamKey::new(PROJECT, stream), append).await?;
    Ok(())
}

/// The `n`th message: [`MESSAGE`] bytes of JSON that no other one has.
fn message(n: u32) -> Bytes {
    let head = format!(r#"{{"n":{n},"text":""#);
    let fill = MESSAGE - head.len() - r#""}"#.len();
    format!(r#"{head}{:.>fill$}"}}"#, "").into()
}

/// Sleeps, more exactly than the timer does.
async fn pause(length: Duration) {
    let until = Instant::now() + length;
    if let Some(long) = length.checked_sub(TIMER) {
        sleep(long).await;
    }
    while Instant::now() < until {
        yield_now().await;
    }
}
