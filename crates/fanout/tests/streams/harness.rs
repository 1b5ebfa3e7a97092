//! A pod to test, and short words for what is asked of it.

use std::{ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use prometheus::Registry;
use tailwater_fanout::{
    Allot, Appended, Config, Create, Delivery, Event, Gateway, Metrics, Need, NewVisibility, OpError, Post, Reader,
    Seed,
};
use tailwater_protocol::{ContentType, Offset, Producer, ProducerId, ReadOffset, StreamSeq};
use tailwater_testkit::{ScriptedUpstream, Settings};
use tailwater_upstream::{StreamKey, Upstream};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longer than anything takes that does not hang; of virtual time.
pub(crate) const LONG: Duration = Duration::from_secs(300);

/// A gateway with all that it was given.
pub(crate) struct Pod {
    gateway: Gateway,
    registry: Registry,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Deref for Pod {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// As where every project has more than its share of active streams.
pub(crate) fn only_what_is_owed() -> Allot {
    Box::new(|_, _, need| match need {
        Need::Request => None,
        Need::Owed => Some(Box::new(())),
    })
}

impl Pod {
    pub(crate) fn new(store: &ScriptedUpstream) -> Self {
        Self::with(store, Config::default())
    }

    pub(crate) fn with(store: &ScriptedUpstream, config: Config) -> Self {
        Self::on(Arc::new(store.clone()), config)
    }

    pub(crate) fn on(upstream: Arc<dyn Upstream>, config: Config) -> Self {
        let (registry, tracker, shutdown) = (Registry::new(), TaskTracker::new(), CancellationToken::new());
        let metrics = Metrics::register(&registry).unwrap();
        let seed = Seed { upstream, config, metrics, tracker: tracker.clone(), shutdown: shutdown.clone() };
        Self { gateway: Gateway::new(seed), registry, tracker, shutdown }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        self.gateway.clone()
    }

    /// The value of a metric, its labels summed up.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        metrics.iter().map(|metric| metric.get_counter().value() + metric.get_gauge().value()).sum()
    }

    /// The batches that ended in one way.
    pub(crate) fn writes(&self, outcome: &str) -> f64 {
        self.labelled("tailwater_writes_total", outcome)
    }

    /// The requests that one limit refused.
    pub(crate) fn refused(&self, limit: &str) -> f64 {
        self.labelled("tailwater_requests_refused_total", limit)
    }

    fn labelled(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        let labelled = metrics.iter().find(|metric| metric.get_label()[0].value() == label);
        labelled.map_or(0.0, |metric| metric.get_counter().value())
    }

    pub(crate) async fn shut_down(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        in_time(self.tracker.wait()).await;
    }

    pub(crate) fn begin_shutdown(&self) {
        self.shutdown.cancel();
        self.tracker.close();
    }
}

pub(crate) fn store() -> ScriptedUpstream {
    ScriptedUpstream::default()
}

/// A store that nobody but this process can write to.
pub(crate) fn own_store() -> ScriptedUpstream {
    ScriptedUpstream::new(Settings { single_owner: true, ..Settings::default() })
}

pub(crate) fn key(name: &str) -> StreamKey {
    StreamKey::new("project", name)
}

pub(crate) fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

pub(crate) fn json() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

/// A PUT of a text stream.
pub(crate) fn plain() -> Create {
    Create {
        content_type: Some(text()),
        lifetime: None,
        visibility: NewVisibility::Undeclared,
        messages: Vec::new(),
        closed: false,
        fork: None,
    }
}

pub(crate) fn holding(bodies: &[&str]) -> Create {
    Create { messages: bytes(bodies), ..plain() }
}

pub(crate) fn bytes(bodies: &[&str]) -> Vec<Bytes> {
    bodies.iter().map(|body| Bytes::copy_from_slice(body.as_bytes())).collect()
}

/// A POST of text messages.
pub(crate) fn say(bodies: &[&str]) -> Post {
    Post { messages: bytes(bodies), content_type: Some(text()), producer: None, stream_seq: None, close: false }
}

/// A POST of one message.
pub(crate) fn tell(body: &str) -> Post {
    say(&[body])
}

/// A close without data.
pub(crate) fn close() -> Post {
    Post { content_type: None, close: true, ..say(&[]) }
}

pub(crate) fn last(bodies: &[&str]) -> Post {
    Post { close: true, ..say(bodies) }
}

pub(crate) fn by(producer: Producer, post: Post) -> Post {
    Post { producer: Some(producer), ..post }
}

pub(crate) fn after(seq: &str, post: Post) -> Post {
    Post { stream_seq: Some(StreamSeq::new(seq.as_bytes()).unwrap()), ..post }
}

pub(crate) fn claim(id: &str, epoch: u64, seq: u64) -> Producer {
    Producer { id: ProducerId::new(id).unwrap(), epoch, seq }
}

/// The offset that an append which landed was told.
pub(crate) fn landed(answer: Result<Appended, OpError>) -> Offset {
    match answer {
        Ok(Appended::Landed { next, .. }) => next,
        other => panic!("it should have landed: {other:?}"),
    }
}

pub(crate) fn strings(bodies: &[Bytes]) -> Vec<String> {
    bodies.iter().map(|body| String::from_utf8(body.to_vec()).unwrap()).collect()
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(LONG, work).await.expect("nothing hangs")
}

/// Lets everything that can go on without more input go on.
pub(crate) async fn rest() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Reads page by page up to the tail, and checks that the pages lead on to each other.
pub(crate) async fn read_from(gateway: &Gateway, key: &StreamKey, from: ReadOffset) -> Result<Vec<String>, OpError> {
    let (mut from, mut all) = (from, Vec::new());
    loop {
        let page = in_time(gateway.read(key, from)).await?;
        assert!(page.start <= page.next, "a page goes forward");
        if let ReadOffset::At(offset) = from {
            assert!(offset <= page.next);
        }
        all.extend(strings(&page.messages));
        if page.up_to_date {
            assert_eq!(page.next, page.head.tail, "a page that is up to date ends at the tail");
            return Ok(all);
        }
        assert!(!page.messages.is_empty(), "a page before the tail holds something");
        from = ReadOffset::At(page.next);
    }
}

/// All that a stream holds.
pub(crate) async fn read(gateway: &Gateway, key: &StreamKey) -> Vec<String> {
    read_from(gateway, key, ReadOffset::Start).await.unwrap()
}

/// The next delivery of a live reader.
pub(crate) async fn delivery(reader: &mut Reader) -> Delivery {
    match in_time(reader.next()).await {
        Event::Messages(delivery) => delivery,
        other => panic!("messages should have come: {other:?}"),
    }
}

/// Takes deliveries until so many messages have come.
pub(crate) async fn take(reader: &mut Reader, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let before = reader.position();
        let delivery = delivery(reader).await;
        assert!(before <= delivery.next, "a reader goes forward");
        assert_eq!(reader.position(), delivery.next);
        all.extend(strings(&delivery.messages));
    }
    all
}

/// Takes deliveries until the stream is closed.
pub(crate) async fn take_all(reader: &mut Reader) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let delivery = delivery(reader).await;
        all.extend(strings(&delivery.messages));
        if delivery.closed {
            assert!(delivery.up_to_date && reader.is_closed());
            return all;
        }
    }
}

/// Nothing comes for a while.
pub(crate) async fn assert_silent(reader: &mut Reader) {
    let heard = timeout(Duration::from_secs(5), reader.next()).await;
    assert!(heard.is_err(), "nothing should have come: {heard:?}");
}

pub(crate) fn numbered(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}
