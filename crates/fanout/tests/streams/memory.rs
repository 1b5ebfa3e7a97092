//! The memory of recent batches: all streams together keep to its limit, and readers whose batches had to go miss nothing.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, Read, Write},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use prometheus::Registry;
use tailwater_fanout::{
    Arrival, Config, Departure, Moment, Post, Reader, Seat, ShardConfig, ShardMetrics, Wants,
    workbench::{Shard, ShardBell},
};
use tailwater_protocol::ReadOffset;
use tailwater_testkit::{
    Chunks, Piece, ScriptedUpstream,
    sse::{DurableEvent, DurableSse, Payload},
};
use tailwater_upstream::StreamKey;
use tokio::time::Instant;

use crate::harness::*;

/// A large body, as such bodies go beside these limits.
const LARGE: usize = 100_000;
/// Room for five such bodies, each of which counts twice.
const LIMIT: usize = 10 * LARGE + 5_000;

fn within(limit: usize) -> Config {
    Config { ring_total_bytes: limit, ..Config::default() }
}

/// A large body that says which it is.
fn large(n: usize) -> String {
    format!("{n}{};", "x".repeat(LARGE))
}

fn post(body: String) -> Post {
    Post { messages: vec![body.into()], ..tell("") }
}

fn ring_bytes(pod: &Pod) -> usize {
    pod.metric("tailwater_ring_bytes") as usize
}

/// Streams that nobody reads, each of which is written one large body after the other.
struct Writers {
    keys: Vec<StreamKey>,
    written: usize,
    /// What all rings may hold.
    limit: usize,
}

impl Writers {
    async fn new(pod: &Pod, count: usize, limit: usize) -> Self {
        let keys: Vec<_> = (0..count).map(|n| key(&format!("written-{n}"))).collect();
        for key in &keys {
            pod.create(key, plain()).await.unwrap();
        }
        Self { keys, written: 0, limit }
    }

    /// One more body for each of the next few.
    async fn write(&mut self, pod: &Pod, count: usize) {
        for _ in 0..count {
            let key = &self.keys[self.written % self.keys.len()];
            landed(in_time(pod.append(key, post(large(self.written)))).await);
            self.written += 1;
            assert!(ring_bytes(pod) <= self.limit, "{} bytes", ring_bytes(pod));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_only_written_keep_within_the_memory_for_recent_batches() {
    let store = store();
    let pod = Pod::with(&store, within(LIMIT));
    let mut writers = Writers::new(&pod, 40, LIMIT).await;
    writers.write(&pod, 120).await;
    assert_eq!(pod.metric("tailwater_active_streams"), 40.0);
    assert!(ring_bytes(&pod) > LIMIT / 2, "what there is room for is kept");
    for (n, key) in writers.keys.iter().enumerate() {
        let expected: Vec<String> = (0..3).map(|round| large(round * 40 + n)).collect();
        assert!(read(&pod, key).await == expected, "stream {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn readers_with_a_task_of_their_own_miss_nothing_while_the_memory_is_full() {
    for limit in [0, LIMIT] {
        let store = store();
        let (pod, key) = (Pod::with(&store, within(limit)), key("read"));
        pod.create(&key, plain()).await.unwrap();
        let mut writers = Writers::new(&pod, 20, limit).await;
        let mut quick = pod.follow(&key, ReadOffset::Now).await.unwrap();
        let mut slow = pod.follow(&key, ReadOffset::Now).await.unwrap();
        let expected: Vec<String> = (0..30).map(large).collect();
        for n in 0..30 {
            writers.write(&pod, 8).await;
            landed(in_time(pod.append(&key, post(large(n)))).await);
            assert!(take(&mut quick, 1).await == [large(n)], "message {n}, in turn");
        }
        assert!(take(&mut slow, 30).await == expected, "late, and each once");
        assert_silent(&mut quick).await;
        assert_silent(&mut slow).await;
        assert!(ring_bytes(&pod) <= limit);
        assert_eq!(store.counts().sessions_opened, 1, "whatever was let go of, there is one session");
        landed(pod.append(&key, last(&["the end"])).await);
        for reader in [&mut quick, &mut slow] {
            assert_eq!(take_all(reader).await, ["the end"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_keeps_no_batch_and_misses_nothing() {
    for closes in [false, true] {
        let store = store();
        let (pod, key) = (Pod::with(&store, within(LIMIT)), key("read"));
        pod.create(&key, plain()).await.unwrap();
        let expected: Vec<String> = (0..3).map(large).collect();
        for body in &expected {
            landed(in_time(pod.append(&key, post(body.clone()))).await);
        }
        if closes {
            landed(pod.append(&key, close()).await);
        }
        let mut reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
        assert!(reader.is_live() && !reader.is_caught_up(), "the ring had all of it when it joined");
        Writers::new(&pod, 20, LIMIT).await.write(&pod, 20).await;
        if closes {
            assert!(take_all(&mut reader).await == expected);
        } else {
            assert!(take(&mut reader, 3).await == expected);
            landed(pod.append(&key, tell("after")).await);
            assert_eq!(take(&mut reader, 1).await, ["after"]);
        }
        assert!(pod.metric("tailwater_reader_rejoins_total") >= 1.0, "what the ring has let go of is gone");
    }
}

/// A shard with one stream's readers, called by hand.
struct Hall {
    shard: Shard<Socket, usize>,
    began: Instant,
    guests: Vec<Guest>,
    /// How often a reader had to catch up elsewhere.
    behind: usize,
}

/// The gateway's end of a connection that takes everything.
#[derive(Debug)]
struct Socket(Rc<RefCell<Vec<u8>>>);

struct Guest {
    written: Rc<RefCell<Vec<u8>>>,
    chunks: Chunks,
    sse: DurableSse,
    data: Vec<u8>,
}

impl Hall {
    fn new() -> Self {
        let retry = (Duration::from_secs(1), Duration::from_secs(2));
        let config = ShardConfig {
            keep_alive: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            rotated_retry: retry,
            drained_retry: retry,
            random: || 4,
        };
        let metrics = ShardMetrics::register(&Registry::new()).unwrap();
        let began = Instant::now();
        let shard = Shard::new(config, metrics, ShardBell::new(Box::new(|| {})), began.into_std());
        Self { shard, began, guests: Vec::new(), behind: 0 }
    }

    fn seat(&mut self, reader: Reader) {
        let from = reader.position().to_string();
        let written = Rc::default();
        let sse = DurableSse::new(Payload::Text).from_offset(&from);
        self.guests.push(Guest { written: Rc::clone(&written), chunks: Chunks::default(), sse, data: Vec::new() });
        let seat = reader.into_seat().ok().expect("it is live");
        self.arrive(Socket(written), seat, self.guests.len() - 1);
    }

    fn arrive(&mut self, socket: Socket, seat: Seat, luggage: usize) {
        let ends_at = (Instant::now() + LONG * 100).into_std();
        let (wants, unread) = (Wants::Events { greet: false }, Bytes::new());
        let arrival = Arrival { socket, seat, cursor: 0, ends_at, expires_at: None, wants, unread, luggage };
        let now = self.now();
        self.shard.arrive(arrival, now);
    }

    fn now(&self) -> Moment {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap();
        Moment { at: Instant::now().into_std(), unix_ms: 1_800_000_000_000 + passed }
    }

    /// Does what the bell has rung for; who is behind catches up, and comes back.
    async fn turn(&mut self, pod: &Pod) {
        loop {
            for line in self.shard.rung() {
                let now = self.now();
                self.shard.on_bell(line, now);
            }
            let departures = self.shard.departures();
            if departures.is_empty() {
                return;
            }
            for departure in departures {
                let Departure::Behind { socket, stands, luggage, .. } = departure else { panic!("nobody leaves") };
                self.behind += 1;
                let mut reader = Reader::resume(pod.gateway(), &stands);
                while let Some(event) = in_time(reader.next_unless_live()).await {
                    let tailwater_fanout::Event::Messages(delivery) = event else { panic!("{event:?}") };
                    let guest = &mut self.guests[luggage];
                    guest.text();
                    delivery.messages.iter().for_each(|body| guest.data.extend_from_slice(body));
                    guest.sse = DurableSse::new(Payload::Text).from_offset(&delivery.next.to_string());
                }
                self.arrive(socket, reader.into_seat().ok().expect("it is live"), luggage);
            }
        }
    }
}

impl Guest {
    /// All that it was given, as one text.
    fn text(&mut self) -> &str {
        self.chunks.push(&std::mem::take(&mut *self.written.borrow_mut()));
        while let Some(piece) = self.chunks.pop().unwrap() {
            let Piece::Chunk { bytes, .. } = piece else { continue };
            self.sse.push(&bytes);
            while let Some(event) = self.sse.pop() {
                if let DurableEvent::Data(data) = event.unwrap() {
                    self.data.extend_from_slice(&data);
                }
            }
        }
        std::str::from_utf8(&self.data).unwrap()
    }
}

impl Write for Socket {
    fn write(&mut self, offered: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(offered)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

/// What readers at a shard are given of a stream while others fill the memory, and how many of them fell behind.
/// The shard comes to it once for `every` so many messages.
async fn serve_at_a_shard(store: &ScriptedUpstream, limit: usize, every: usize) -> usize {
    let (pod, key) = (Pod::with(store, within(limit)), key("read"));
    pod.create(&key, plain()).await.unwrap();
    let mut writers = Writers::new(&pod, 20, limit).await;
    let mut hall = Hall::new();
    for _ in 0..3 {
        hall.seat(pod.follow(&key, ReadOffset::Now).await.unwrap());
    }
    let mut expected = String::new();
    for n in 0..30 {
        landed(in_time(pod.append(&key, post(large(n)))).await);
        expected += &large(n);
        // Before the shard comes to it.
        writers.write(&pod, 8).await;
        if n % every == every - 1 {
            hall.turn(&pod).await;
            for guest in &mut hall.guests {
                assert!(guest.text() == expected, "each message once and in order, up to {n}");
            }
        }
    }
    assert!(ring_bytes(&pod) <= limit);
    assert_eq!(store.counts().sessions_opened, 1, "whatever was let go of, there is one session");
    hall.behind
}

#[tokio::test(start_paused = true)]
async fn readers_at_a_shard_are_served_from_the_ring_while_streams_that_nobody_reads_fill_the_memory() {
    assert_eq!(serve_at_a_shard(&store(), LIMIT, 1).await, 0, "nobody fell behind");
}

#[tokio::test(start_paused = true)]
async fn readers_at_a_shard_whose_batches_had_to_go_catch_up_and_miss_nothing() {
    // A ring that can hold nothing, and a shard that is so late that its streams hold more than there is room for.
    assert_eq!(serve_at_a_shard(&store(), 0, 1).await, 3 * 30, "all of them, each time");
    assert_eq!(serve_at_a_shard(&store(), LIMIT, 10).await, 3 * 3, "all of them, each time");
}
