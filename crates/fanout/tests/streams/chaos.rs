//! Random interleavings of writers, readers, pods and faults, each from a seed that a failure names.
//!
//! What must hold in all of them: every acked message stands in the log once, in its writer's order and at the offset
//! that was answered; nothing of a refused write does; both pods and every reader agree on the whole.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{join, join_all};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tailwater_fanout::{Appended, Config, Event, Gateway, OpError, Post};
use tailwater_log::Refusal;
use tailwater_protocol::{Offset, ReadOffset};
use tailwater_testkit::{
    ScriptedUpstream,
    fault::{AppendFault, Pause, ReadFault, SessionFault},
};
use tailwater_upstream::StreamKey;
use tokio::time::{sleep, timeout};

use crate::harness::*;

const SEEDS: u64 = 200;
const POSTS: usize = 12;
const READERS: usize = 3;

/// The bodies of an acked post, with the offset behind it where that was told.
type Acked = (Vec<String>, Option<Offset>);

/// What the writers were told.
#[derive(Default)]
struct Told {
    /// By writer, in order.
    acked: BTreeMap<usize, Vec<Acked>>,
    refused: Vec<String>,
}

/// One world: a store, two pods, and the seed of all chance.
struct World {
    seed: u64,
    store: ScriptedUpstream,
    pods: [Pod; 2],
    key: StreamKey,
    /// How many write, and every which of them is a producer: where few are, plain batches are in flight together.
    writers: usize,
    producer_in: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let store = store();
        let config = Config {
            ring_bytes: [1, 600, 100_000][rng.random_range(0..3)],
            page_bytes: [1, 40, 100_000][rng.random_range(0..3)],
            linger: Duration::from_millis(rng.random_range(1..2_000)),
            idle: Duration::from_millis(rng.random_range(1..2_000)),
            ..Config::default()
        };
        let pods = [Pod::with(&store, config.clone()), Pod::with(&store, config)];
        let (writers, producer_in) = if seed.is_multiple_of(2) { (4, 2) } else { (12, 12) };
        Self { seed, store, pods, key: key("s"), writers, producer_in }
    }

    fn rng(&self, who: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000).wrapping_add(who))
    }

    fn any_pod(&self, rng: &mut StdRng) -> Gateway {
        self.pods[rng.random_range(0..2)].gateway()
    }

    /// Lets appends fail in every way, each now and then.
    fn begin_faults(&self) {
        let rng = Mutex::new(self.rng(1));
        self.store.on_append(move |_, _| {
            let mut rng = rng.lock().unwrap();
            let pause = Pause::For(Duration::from_millis(rng.random_range(0..80)));
            match rng.random_range(0..40) {
                0 => Some(AppendFault::AnswerLost),
                1 => Some(AppendFault::LandsLater),
                2 => Some(AppendFault::NotSent),
                3 => Some(AppendFault::Busy { retry_after: None }),
                4..10 => Some(AppendFault::PauseBefore(pause)),
                10..16 => Some(AppendFault::PauseAfter(pause)),
                _ => None,
            }
        });
    }

    /// Breaks sessions and reads, and lets late appends arrive, until it is dropped.
    async fn weather(&self) {
        let mut rng = self.rng(2);
        loop {
            sleep(Duration::from_millis(rng.random_range(1..400))).await;
            match rng.random_range(0..8) {
                0 => drop(self.store.cut_sessions(&self.key)),
                1 => drop(self.store.stall_sessions(&self.key)),
                2 | 3 => self.store.resume_sessions(&self.key),
                4 => drop(self.store.release_held()),
                5 => drop(self.store.faults_of(&self.key).next_read(ReadFault::Fails)),
                6 => drop(self.store.faults_of(&self.key).next_session(SessionFault::Cut)),
                _ => {
                    let pause = Pause::For(Duration::from_millis(rng.random_range(0..50)));
                    self.store.faults_of(&self.key).next_tail(ReadFault::PauseAfter(pause));
                }
            }
        }
    }

    async fn end_faults(&self) {
        self.store.on_append(|_, _| None);
        self.store.resume_sessions(&self.key);
        self.store.release_held();
        // What is still queued is met by someone who does not mind.
        for _ in 0..50 {
            if self.store.faults().waiting() == 0 {
                return;
            }
            let pod = Pod::new(&self.store);
            drop(pod.head(&self.key).await);
            let reader = pod.follow(&self.key, ReadOffset::Now).await;
            rest().await;
            drop(reader);
            pod.shut_down().await;
        }
    }

    /// Writes; some of the writers are producers, who repeat what is not answered for.
    async fn write(&self, writer: usize, told: &Mutex<Told>) {
        let mut rng = self.rng(10 + writer as u64);
        for n in 0..POSTS {
            sleep(Duration::from_millis(rng.random_range(0..60))).await;
            let bodies: Vec<String> = (0..rng.random_range(1..4)).map(|m| format!("{writer}-{n}-{m}")).collect();
            let refs: Vec<&str> = bodies.iter().map(String::as_str).collect();
            let post = say(&refs);
            if writer.is_multiple_of(self.producer_in) {
                let seq = n as u64;
                let next = self.produce(&mut rng, by(claim(&writer.to_string(), 0, seq), post)).await;
                told.lock().unwrap().acked.entry(writer).or_default().push((bodies, next));
                continue;
            }
            match in_time(self.any_pod(&mut rng).append(&self.key, post)).await {
                Ok(Appended::Landed { next, .. }) => {
                    told.lock().unwrap().acked.entry(writer).or_default().push((bodies, Some(next)));
                }
                Ok(other) => panic!("seed {}: {other:?}", self.seed),
                Err(OpError::OutcomeUnknown) => {}
                Err(OpError::Unavailable { .. }) => told.lock().unwrap().refused.extend(bodies),
                Err(error) => panic!("seed {}: {error:?}", self.seed),
            }
        }
    }

    /// Repeats a claim until it is accepted, or known to have been.
    async fn produce(&self, rng: &mut StdRng, post: Post) -> Option<Offset> {
        loop {
            match in_time(self.any_pod(rng).append(&self.key, post.clone())).await {
                Ok(Appended::Landed { next, .. }) => return Some(next),
                Ok(Appended::Duplicate { .. }) => return None,
                Err(OpError::OutcomeUnknown | OpError::Unavailable { .. }) => {}
                other => panic!("seed {}: {other:?}", self.seed),
            }
        }
    }

    /// Follows the stream to its closure, now here, now there; what it was given.
    async fn follow(&self, reader: usize) -> Vec<String> {
        let mut rng = self.rng(100 + reader as u64);
        let (mut from, mut seen) = (ReadOffset::Start, Vec::new());
        loop {
            let Ok(mut reader) = in_time(self.any_pod(&mut rng).follow(&self.key, from)).await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            for _ in 0..rng.random_range(1..8) {
                if reader.is_closed() {
                    return seen;
                }
                let patience = Duration::from_millis(rng.random_range(1..500));
                match timeout(patience, reader.next()).await {
                    Err(_) => {}
                    Ok(Event::Messages(delivery)) => {
                        seen.extend(strings(&delivery.messages));
                        from = ReadOffset::At(delivery.next);
                        if delivery.closed {
                            return seen;
                        }
                    }
                    Ok(Event::Failed(error)) if error.is_retryable() => break,
                    Ok(event) => panic!("seed {}: {event:?}", self.seed),
                }
                if rng.random_bool(0.3) {
                    sleep(Duration::from_millis(rng.random_range(0..300))).await;
                }
            }
        }
    }

    /// All messages with the offset behind each.
    async fn log(&self) -> Vec<(String, Offset)> {
        let pod = Pod::with(&self.store, Config { page_bytes: 1, ring_bytes: 1, ..Config::default() });
        let (mut from, mut all) = (ReadOffset::Start, Vec::new());
        loop {
            let page = pod.read(&self.key, from).await.unwrap();
            all.extend(strings(&page.messages).into_iter().map(|body| (body, page.next)));
            if page.up_to_date {
                return all;
            }
            from = ReadOffset::At(page.next);
        }
    }

    fn check_log(&self, log: &[(String, Offset)], told: &Told) {
        let seed = self.seed;
        let at = |body: &String| {
            let places: Vec<usize> = (0..log.len()).filter(|n| log[*n].0 == *body).collect();
            assert!(places.len() <= 1, "seed {seed}: {body} stands there twice");
            places.first().copied()
        };
        for (writer, acked) in &told.acked {
            let mut before = None;
            for (bodies, next) in acked {
                for body in bodies {
                    let place = at(body);
                    assert!(place.is_some(), "seed {seed}: {body} was acked and is lost");
                    assert!(place > before, "seed {seed}: {body} of {writer} stands in the wrong order");
                    before = place;
                }
                let end = before.map(|place| log[place].1);
                assert!(next.is_none() || *next == end, "seed {seed}: {bodies:?} at {end:?}, told {next:?}");
            }
        }
        for body in &told.refused {
            assert_eq!(at(body), None, "seed {seed}: {body} was refused");
        }
        for (body, _) in log {
            assert!(at(body).is_some());
        }
    }
}

/// Plays one world to its end.
async fn play(seed: u64) {
    let world = World::new(seed);
    in_time(world.pods[0].create(&world.key, plain())).await.unwrap();
    world.begin_faults();
    let told = Mutex::new(Told::default());
    let writes = async {
        let writers = join_all((0..world.writers).map(|writer| world.write(writer, &told)));
        tokio::select! {
            () = world.weather() => {}
            _ = writers => {}
        }
        world.end_faults().await;
        loop {
            match in_time(world.pods[1].append(&world.key, close())).await {
                Ok(_) => return,
                Err(error) => assert!(error.is_retryable(), "seed {seed}: {error:?}"),
            }
        }
    };
    let readers = join_all((0..READERS).map(|reader| world.follow(reader)));
    let ((), seen) = timeout(Duration::from_secs(3_600), join(writes, readers))
        .await
        .unwrap_or_else(|_| panic!("seed {seed}: it does not end"));
    world.store.release_held();
    let log = world.log().await;
    world.check_log(&log, &told.into_inner().unwrap());
    let bodies: Vec<String> = log.into_iter().map(|(body, _)| body).collect();
    for (n, seen) in seen.into_iter().enumerate() {
        assert_eq!(seen, bodies, "seed {seed}: reader {n}");
    }
    for pod in &world.pods {
        assert_eq!(read(pod, &world.key).await, bodies, "seed {seed}");
        pod.shut_down().await;
    }
    assert_eq!(world.store.counts().sessions_open, 0, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn every_acked_message_is_read_once_and_in_order_whatever_goes_wrong() {
    for seed in 0..SEEDS {
        play(seed).await;
    }
}

/// Creates and deletes a stream over and over; each life begins with a message that names it.
async fn live_and_die(world: &World, lives: &Mutex<u32>, who: u64) {
    let mut rng = world.rng(who);
    for _ in 0..10 {
        sleep(Duration::from_millis(rng.random_range(0..40))).await;
        let pod = world.any_pod(&mut rng);
        let answer = match rng.random_range(0..4) {
            0 => in_time(pod.delete(&world.key)).await,
            1 | 2 => {
                let life = {
                    let mut lives = lives.lock().unwrap();
                    *lives += 1;
                    *lives
                };
                in_time(pod.create(&world.key, holding(&[&format!("life {life}")]))).await.map(drop)
            }
            _ => in_time(pod.append(&world.key, tell("a"))).await.map(drop),
        };
        match answer {
            Ok(()) | Err(OpError::Refused(Refusal::NotFound)) => {}
            Err(error) => assert!(error.is_retryable(), "seed {}: {error:?}", world.seed),
        }
    }
}

/// Follows one life after the other from its start, and checks that it is one.
async fn watch_lives(world: &World, who: u64) {
    let mut rng = world.rng(who);
    loop {
        sleep(Duration::from_millis(rng.random_range(0..30))).await;
        let Ok(mut reader) = world.any_pod(&mut rng).follow(&world.key, ReadOffset::Start).await else { continue };
        let mut seen: Vec<String> = Vec::new();
        loop {
            match timeout(Duration::from_millis(rng.random_range(1..300)), reader.next()).await {
                Err(_) => {
                    if rng.random_bool(0.3) {
                        break;
                    }
                }
                Ok(Event::Messages(delivery)) => seen.extend(strings(&delivery.messages)),
                Ok(_) => break,
            }
        }
        for (n, body) in seen.iter().enumerate() {
            assert_eq!(body.starts_with("life"), n == 0, "seed {}: {seen:?}", world.seed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_reader_ever_sees_two_lives_whatever_goes_wrong() {
    for seed in 0..SEEDS {
        let world = Arc::new(World::new(seed));
        world.begin_faults();
        let lives = Mutex::new(0);
        let actors = join_all((0..3).map(|n| live_and_die(&world, &lives, 200 + n)));
        tokio::select! {
            () = world.weather() => {}
            _ = join_all((0..3).map(|n| watch_lives(&world, 300 + n))) => {}
            _ = actors => {}
        }
        world.end_faults().await;
        let heads = [in_time(world.pods[0].head(&world.key)).await, in_time(world.pods[1].head(&world.key)).await];
        match heads {
            [Ok(one), Ok(two)] => {
                assert_eq!(one, two, "seed {seed}");
                assert_eq!(read(&world.pods[0], &world.key).await, read(&world.pods[1], &world.key).await);
            }
            [one, two] => assert!(one.is_err() && two.is_err(), "seed {seed}: {one:?} {two:?}"),
        }
    }
}
