//! The loop around a shard, with threads and real sockets. Whatever is waited for has a time-out, and nothing sleeps.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Barrier, LazyLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus::{IntGauge, Registry};
use socket2::SockRef;
use tailwater_protocol::{
    ContentKind,
    cursor::{EPOCH_MS, INTERVAL_MS},
    sse::Lapse,
};

use super::{
    super::{Arrival, Departure, End, Judge, Loss, MAX_UNREAD, Shards, ShardsSeed},
    script::{Client, Wire},
    world::{CURSOR, Stream, World, settings},
};
use crate::{
    frame::{LAST_CHUNK, Stand},
    metrics::ShardMetrics,
    precedence::Precedence,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    shards: Shards<usize>,
    departures: mpsc::Receiver<Departure<TcpStream, usize>>,
    /// Who may not go on: all up to this number.
    withdrawn: Arc<AtomicUsize>,
    metrics: ShardMetrics,
    live: IntGauge,
    listener: TcpListener,
}

/// The client's end of a real connection.
struct Remote {
    socket: TcpStream,
    client: Client,
}

impl House {
    fn new(count: usize) -> Self {
        let (sender, departures) = mpsc::channel();
        Self::with(count, departures, move |departure| drop(sender.send(departure)))
    }

    fn with(
        count: usize,
        departures: mpsc::Receiver<Departure<TcpStream, usize>>,
        on_departure: impl Fn(Departure<TcpStream, usize>) + Send + Sync + 'static,
    ) -> Self {
        let deliveries = Arc::new(Precedence::of_deliveries(count));
        Self::watched(count, departures, on_departure, (|| EPOCH_MS + CURSOR * INTERVAL_MS, deliveries))
    }

    fn watched(
        count: usize,
        departures: mpsc::Receiver<Departure<TcpStream, usize>>,
        on_departure: impl Fn(Departure<TcpStream, usize>) + Send + Sync + 'static,
        (now_ms, deliveries): (fn() -> u64, Arc<Precedence>),
    ) -> Self {
        let metrics = ShardMetrics::register(&Registry::new()).unwrap();
        let withdrawn = Arc::new(AtomicUsize::new(0));
        let list = Arc::clone(&withdrawn);
        let judge: Judge<usize> =
            Arc::new(move |number| (*number < list.load(Ordering::SeqCst)).then_some(Lapse::Revoked));
        let seed = ShardsSeed {
            count,
            config: settings(),
            metrics: metrics.clone(),
            now_ms,
            on_departure: Arc::new(on_departure),
            judge,
            deliveries,
        };
        Self {
            shards: Shards::start(&seed).unwrap(),
            departures,
            withdrawn,
            metrics,
            live: IntGauge::new("live", "live").unwrap(),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn connect(&self, stream: &Stream, seq: u64) -> (TcpStream, Remote) {
        let socket = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (ours, _) = self.listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let client = Client::new(&Wire::new(&stream.log), stream.kind, stream.offset_at(seq));
        (ours, Remote { socket, client })
    }

    fn arrival(&self, socket: TcpStream, stream: &Stream, seq: u64, luggage: usize) -> Arrival<TcpStream, usize> {
        let stand = Stand { seq, at: stream.offset_at(seq) };
        Arrival {
            socket,
            seat: stream.seat(stand, stream.feed.turns(), &self.live),
            cursor: 0,
            ends_at: Instant::now() + Duration::from_secs(3600),
            expires_at: None,
            wants: crate::Wants::Events { greet: true },
            unread: Bytes::new(),
            luggage,
        }
    }

    fn arrive(&self, stream: &Stream, seq: u64, luggage: usize) -> Remote {
        let (ours, remote) = self.connect(stream, seq);
        self.shards.take(self.arrival(ours, stream, seq, luggage)).unwrap();
        remote
    }

    fn departed(&self) -> Departure<TcpStream, usize> {
        self.departures.recv_timeout(PATIENCE).expect("it departs")
    }
}

impl Remote {
    /// Reads until it has been given everything up to a position.
    fn read_to(&mut self, at: u64) {
        let mut buffer = [0; 64 * 1024];
        while self.client.at < at || self.client.is_mid_chunk() {
            let length = self.socket.read(&mut buffer).expect("something comes");
            assert!(length > 0, "the connection ended at {}", self.client.at);
            self.client.wire.borrow_mut().put_late(&buffer[..length]);
            self.client.read();
        }
    }
}

#[test]
fn while_a_shard_delivers_it_goes_first_and_not_longer() {
    static DELIVERIES: LazyLock<Arc<Precedence>> = LazyLock::new(|| Arc::new(Precedence::of_deliveries(1)));
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    // A shard asks for the time when a bell has rung and when somebody arrives; nobody arrives twice here.
    let now_ms = || {
        SEEN.fetch_add(usize::from(DELIVERIES.is_full()), Ordering::SeqCst);
        EPOCH_MS + CURSOR * INTERVAL_MS
    };
    let (sender, departures) = mpsc::channel();
    let on_departure = move |departure| drop(sender.send(departure));
    let (house, world) = (House::watched(1, departures, on_departure, (now_ms, Arc::clone(&DELIVERIES))), World::new());
    let mut stream = world.stream(ContentKind::Json);
    stream.push(&[b"0"]);
    let mut remote = house.arrive(&stream, 0, 7);
    remote.read_to(1);
    assert_eq!(SEEN.load(Ordering::SeqCst), 0, "who arrives is given what is there, in its turn");
    stream.push(&[b"1"]);
    stream.feed.ring();
    remote.read_to(2);
    drop(remote);
    assert!(matches!(house.departed(), Departure::Lost { reason: Loss::Left, .. }));
    assert!(SEEN.load(Ordering::SeqCst) > 0);
    assert!(!DELIVERIES.is_full());
}

#[test]
fn two_hundred_readers_on_two_shards_are_given_everything_and_handed_back_in_working_order() {
    let (house, world) = (House::new(2), World::new());
    let mut stream = world.stream(ContentKind::Json);
    let mut remotes: Vec<Remote> = Vec::new();
    for n in 0..200_usize {
        remotes.push(house.arrive(&stream, stream.next.saturating_sub(3), n));
        stream.push(&[n.to_string().as_bytes()]);
        stream.feed.ring();
    }
    for remote in &mut remotes {
        remote.read_to(200);
        assert!(remote.client.last().up_to_date);
    }
    assert_eq!((house.metrics.readers.get(), stream.feed.listeners()), (200, 2));
    stream.feed.turn();
    for _ in 0..200 {
        let Departure::Behind { mut socket, stands, luggage, .. } = house.departed() else { panic!("behind") };
        assert_eq!((stands.stand.seq, stands.stand.at), (200, stream.offset_at(200)));
        let none = socket.read(&mut [0]).expect_err("it does not block");
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        if luggage % 2 == 0 {
            socket.write_all(LAST_CHUNK).unwrap();
        } else {
            house.shards.take(house.arrival(socket, &stream, 200, luggage)).unwrap();
        }
    }
    stream.close(&[b"null"]);
    stream.feed.ring();
    for (n, remote) in remotes.iter_mut().enumerate() {
        while !remote.client.has_ended {
            remote.read_to(if n % 2 == 0 { 200 } else { 201 });
            let mut rest = [0; 100];
            if !remote.client.has_ended {
                let length = remote.socket.read(&mut rest).unwrap();
                remote.client.wire.borrow_mut().put_late(&rest[..length]);
                remote.client.read();
            }
        }
        assert_eq!(remote.client.last().closed, n % 2 == 1);
    }
    for _ in 0..100 {
        assert!(matches!(house.departed(), Departure::Ended { luggage, .. } if luggage % 2 == 1));
    }
    house.shards.stop();
    house.shards.join();
    assert_eq!((house.metrics.readers.get(), house.live.get(), stream.feed.listeners()), (0, 0, 0));
}

#[test]
fn a_socket_that_fills_up_goes_on_when_the_client_reads() {
    let (house, world) = (House::new(1), World::new());
    let mut stream = world.stream_of(ContentKind::Binary, 1 << 22);
    let (ours, mut remote) = house.connect(&stream, 0);
    SockRef::from(&ours).set_send_buffer_size(64 * 1024).unwrap();
    SockRef::from(&remote.socket).set_recv_buffer_size(256 * 1024).unwrap();
    house.shards.take(house.arrival(ours, &stream, 0, 0)).unwrap();
    let mut witness = house.arrive(&stream, 0, 1);
    for n in 0..40 {
        stream.push(&[&vec![n; 50_000]]);
        stream.feed.ring();
        witness.read_to(stream.next);
    }
    assert!(house.metrics.partial.get() > 0, "it was too much for the socket");
    remote.read_to(40);
    house.shards.stop();
    house.shards.join();
    assert!(matches!(house.departed(), Departure::Lost { reason: Loss::Closed, .. }));
}

#[test]
fn a_review_misses_nobody_and_costs_nobody_else_a_message_however_it_races_with_arrivals_and_bells() {
    let (house, world) = (House::new(2), World::new());
    for n in 0..200_usize {
        let mut stream = world.stream(ContentKind::Text);
        let mut remote = house.arrive(&stream, 0, n);
        let mut other = house.arrive(&stream, 0, usize::MAX);
        stream.push(&[b"before"]);
        stream.feed.ring();
        if n % 2 == 0 {
            remote.read_to(1);
        }
        // Else they may still be on their way to their shards.
        house.withdrawn.store(n + 1, Ordering::SeqCst);
        house.shards.review();
        stream.push(&[b"behind"]);
        stream.feed.ring();
        let mut buffer = [0; 1000];
        while !remote.client.has_ended {
            let length = remote.socket.read(&mut buffer).unwrap();
            assert!(length > 0, "the connection ended at {}", remote.client.at);
            remote.client.wire.borrow_mut().put_late(&buffer[..length]);
            remote.client.read();
        }
        assert_eq!(remote.client.unauthorized.as_deref(), Some("revoked"));
        let departed = house.departed();
        assert!(
            matches!(departed, Departure::Ended { reason: End::Lapsed(Lapse::Revoked), luggage, .. } if luggage == n)
        );
        other.read_to(2);
        drop(other);
        assert!(matches!(house.departed(), Departure::Lost { reason: Loss::Left, .. }));
    }
}

#[test]
fn a_client_that_goes_is_noticed() {
    let (house, world) = (House::new(1), World::new());
    let stream = world.stream(ContentKind::Text);
    drop(house.arrive(&stream, 0, 7));
    assert!(matches!(house.departed(), Departure::Lost { reason: Loss::Left, luggage: 7, .. }));
    let mut noisy = house.arrive(&stream, 0, 8);
    noisy.socket.write_all(&[b'x'; MAX_UNREAD + 1]).unwrap();
    assert!(matches!(house.departed(), Departure::Lost { reason: Loss::Noisy, luggage: 8, .. }));
}

#[test]
fn closing_hands_everybody_back_and_takes_nobody_in() {
    let (house, world) = (House::new(2), World::new());
    let stream = world.stream(ContentKind::Text);
    let _remotes: Vec<Remote> = (0..100).map(|n| house.arrive(&stream, 0, n)).collect();
    house.shards.stop();
    house.shards.join();
    for _ in 0..100 {
        assert!(matches!(house.departed(), Departure::Lost { reason: Loss::Closed, .. }));
    }
    let (ours, _remote) = house.connect(&stream, 0);
    let refused = house.shards.take(house.arrival(ours, &stream, 0, 100));
    assert_eq!(refused.map_err(|arrival| arrival.luggage), Err(100));
    assert_eq!((house.metrics.readers.get(), stream.feed.listeners()), (0, 0));
}

#[test]
fn those_who_wait_to_be_let_in_when_it_closes_are_handed_back_too() {
    let (sender, departures) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let house = House::with(1, departures, move |departure| {
        sender.send(departure).unwrap();
        // Holds the shard up until everybody waits; then it is open for good.
        assert!(gate.lock().unwrap().recv().is_err(), "nothing is sent");
    });
    let world = World::new();
    let stream = world.stream(ContentKind::Text);
    drop(house.arrive(&stream, 0, 0));
    assert!(matches!(house.departed(), Departure::Lost { reason: Loss::Left, .. }));
    let _remotes: Vec<Remote> = (1..=50).map(|n| house.arrive(&stream, 0, n)).collect();
    let House { shards, departures, .. } = house;
    drop(shards);
    drop(open);
    let mut closed: Vec<usize> = (0..50)
        .map(|_| match departures.recv_timeout(PATIENCE) {
            Ok(Departure::Lost { reason: Loss::Closed, luggage, .. }) => luggage,
            other => panic!("{other:?}"),
        })
        .collect();
    closed.sort_unstable();
    assert_eq!(closed, (1..=50).collect::<Vec<_>>());
}

#[test]
fn nothing_is_lost_when_arrivals_and_bells_race() {
    let (house, world) = (House::new(1), World::new());
    for n in 0..500_usize {
        let mut stream = world.stream(ContentKind::Text);
        let (ours, mut remote) = house.connect(&stream, 0);
        let arrival = house.arrival(ours, &stream, 0, n);
        let barrier = Arc::new(Barrier::new(2));
        // The log grows first, for the client to compare with; the ring in the race.
        let prepared = stream.prepare(&[b"a"]);
        let (feed, start) = (Arc::clone(&stream.feed), Arc::clone(&barrier));
        let pusher = thread::spawn(move || {
            start.wait();
            feed.push(prepared);
            feed.ring();
        });
        barrier.wait();
        house.shards.take(arrival).unwrap();
        remote.read_to(1);
        pusher.join().unwrap();
        drop(remote);
        assert!(matches!(house.departed(), Departure::Lost { reason: Loss::Left, luggage, .. } if luggage == n));
    }
    assert_eq!((house.metrics.readers.get(), house.live.get()), (0, 0));
}

#[test]
fn a_drain_ends_the_responses_and_the_connections_live_on() {
    let (house, world) = (House::new(2), World::new());
    let stream = world.stream(ContentKind::Text);
    let mut remotes: Vec<Remote> = (0..20).map(|n| house.arrive(&stream, 0, n)).collect();
    house.shards.drain(Duration::ZERO);
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let Departure::Ended { mut socket, luggage, .. } = house.departed() else { panic!("ended") };
        socket.write_all(b"next").unwrap();
        sockets.push((luggage, socket));
    }
    for remote in &mut remotes {
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\nnext") {
            let mut buffer = [0; 1000];
            let length = remote.socket.read(&mut buffer).unwrap();
            assert!(length > 0);
            body.extend_from_slice(&buffer[..length]);
        }
        body.truncate(body.len() - b"next".len());
        remote.client.wire.borrow_mut().put_late(&body);
        remote.client.read();
        assert!(remote.client.has_ended && remote.client.reconnection_time().is_some());
    }
}

#[test]
fn a_shard_that_has_failed_leaves_its_share_to_the_others() {
    let (sender, departures) = mpsc::channel();
    // One thread panics while it sees off a reader, and is gone.
    let house = House::with(2, departures, move |departure| {
        assert!(
            !matches!(departure, Departure::Lost { luggage: 0, .. }),
            "a reason to fail, and no fault of this test"
        );
        drop(sender.send(departure));
    });
    let world = World::new();
    let stream = world.stream(ContentKind::Json);
    drop(house.arrive(&stream, 0, 0));
    let gone = Instant::now();
    while !house.shards.has_failed() {
        assert!(gone.elapsed() < PATIENCE, "it never fails");
        thread::yield_now();
    }
    let mut remotes: Vec<Remote> = (1..20).map(|luggage| house.arrive(&stream, 0, luggage)).collect();
    let mut stream = stream;
    stream.add(&[b"1"], 0, false);
    stream.feed.ring();
    remotes.iter_mut().for_each(|remote| remote.read_to(1));
}
