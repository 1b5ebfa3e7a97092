//! Several plain batches of one stream in flight: acks, refusals and unknown fates in every order, and what waits for
//! what.

use std::time::Duration;

use futures_util::future::{join, join_all, join3};
use tailwater_fanout::OpError;
use tailwater_log::{Entry, Kind, Refusal};
use tailwater_protocol::ReadOffset;
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{AppendFault, Pause},
};
use tailwater_upstream::StreamKey;
use tokio::time::{Instant, sleep};

use crate::harness::*;

/// How many plain batches may be in flight.
const LIMIT: usize = 4;

/// The next append arrives once the gate is opened.
fn arrives_at(store: &ScriptedUpstream) -> Gate {
    let gate = Gate::new();
    store.faults().next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    gate
}

/// The next append lands at once, and its ack comes once the gate is opened.
fn acked_at(store: &ScriptedUpstream) -> Gate {
    let gate = Gate::new();
    store.faults().next_append(AppendFault::PauseAfter(Pause::At(gate.clone())));
    gate
}

/// How many appends have been asked for.
fn asked(store: &ScriptedUpstream) -> u64 {
    store.counts().appends
}

/// Long enough for what gathers to have gone.
async fn gathered() {
    sleep(Duration::from_millis(10)).await;
}

/// One after the other, each far enough behind the one before for a batch of its own.
async fn one_by_one(pod: &Pod, key: &StreamKey, bodies: &[String]) -> Vec<u64> {
    let posts = (0..).zip(bodies).map(|(n, body)| async move {
        sleep(Duration::from_millis(5) * n).await;
        landed(pod.append(key, tell(body)).await).seq
    });
    join_all(posts).await
}

#[tokio::test(start_paused = true)]
async fn a_writer_does_not_wait_for_the_batch_of_another() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = arrives_at(&store);
    let others = async {
        gate.arrived().await;
        let second = landed(in_time(pod.append(&key, tell("b"))).await);
        assert_eq!(read(&pod, &key).await, ["b"], "it is there while the first is not");
        gate.open();
        second
    };
    let (first, second) = in_time(join(pod.append(&key, tell("a")), others)).await;
    assert!(second < landed(first), "each is told where it stands");
    assert_eq!(read(&pod, &key).await, ["b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn acks_that_come_in_another_order_are_folded_in_the_order_of_the_log() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = acked_at(&store);
    let bodies = numbered(0..3);
    let opens = async {
        gate.arrived().await;
        gathered().await;
        gathered().await;
        gate.open();
    };
    let (offsets, ()) = in_time(join(one_by_one(&pod, &key, &bodies), opens)).await;
    assert!(offsets.is_sorted());
    let before = store.counts().reads;
    assert_eq!(read(&pod, &key).await, bodies);
    // The next one is conditioned on a position, and lands at the first try: all is folded.
    landed(pod.append(&key, by(claim("p", 0, 0), tell("3"))).await);
    assert_eq!(read(&pod, &key).await, numbered(0..4));
    assert_eq!(store.counts().reads, before, "the acks have brought everything");
    assert_eq!(pod.writes("refused"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn live_readers_are_given_the_order_of_the_log_whatever_the_order_of_acks() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let mut reader = pod.follow(&key, ReadOffset::Now).await.unwrap();
    let gates = [acked_at(&store), acked_at(&store), acked_at(&store)];
    let bodies = numbered(0..4);
    let opens = async {
        for gate in gates.iter().rev() {
            gate.arrived().await;
            gathered().await;
            gate.open();
        }
    };
    let (offsets, ()) = in_time(join(one_by_one(&pod, &key, &bodies), opens)).await;
    assert!(offsets.is_sorted());
    assert_eq!(take(&mut reader, 4).await, bodies);
    assert_eq!(read(&pod, &key).await, bodies);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_in_flight_than_may_be_and_what_waits_goes_together() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = Gate::new();
    let held = gate.clone();
    store.on_append(move |_, _| Some(AppendFault::PauseBefore(Pause::At(held.clone()))));
    let before = asked(&store);
    let bodies = numbered(0..20);
    let opens = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(asked(&store) - before, LIMIT as u64);
        gate.open();
    };
    in_time(join(one_by_one(&pod, &key, &bodies), opens)).await;
    assert_eq!(asked(&store) - before, LIMIT as u64 + 1, "what waited went as one batch");
    assert_eq!(read(&pod, &key).await[LIMIT..], bodies[LIMIT..]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_ack_came_early_keeps_its_place_until_it_is_folded() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = acked_at(&store);
    let before = asked(&store);
    let bodies = numbered(0..10);
    let looks = async {
        gate.arrived().await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(asked(&store) - before, LIMIT as u64, "one without an ack, and three behind it");
        // A read brings what lies between, and the places are free.
        assert_eq!(read(&pod, &key).await[..LIMIT], bodies[..LIMIT]);
        gathered().await;
        assert_eq!(asked(&store) - before, LIMIT as u64 + 1);
        gate.open();
    };
    in_time(join(one_by_one(&pod, &key, &bodies), looks)).await;
    assert_eq!(read(&pod, &key).await, bodies);
}

#[tokio::test(start_paused = true)]
async fn a_burst_beside_a_batch_in_flight_is_one_batch() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let before = asked(&store);
    let gate = arrives_at(&store);
    let bodies = numbered(0..200);
    let bursts = async {
        gate.arrived().await;
        for answer in join_all(bodies.iter().map(|body| pod.append(&key, tell(body)))).await {
            landed(answer);
        }
        assert_eq!(asked(&store) - before, 2);
        gate.open();
    };
    landed(in_time(join(pod.append(&key, tell("first")), bursts)).await.0);
    assert_eq!(read(&pod, &key).await.pop().unwrap(), "first");
}

#[tokio::test(start_paused = true)]
async fn of_several_with_unknown_fates_each_lands_once() {
    let faults = [AppendFault::AnswerLost, AppendFault::LandsLater];
    for (one, two) in faults.iter().flat_map(|one| faults.iter().map(move |two| (one, two))) {
        for third in [None, Some(AppendFault::PauseBefore(Pause::For(Duration::from_millis(400))))] {
            let store = store();
            let (pod, key) = (Pod::new(&store), key("s"));
            pod.create(&key, plain()).await.unwrap();
            store.faults().next_append(one.clone()).next_append(two.clone());
            if let Some(third) = &third {
                store.faults().next_append(third.clone());
            }
            let bodies = numbered(0..3);
            in_time(one_by_one(&pod, &key, &bodies)).await;
            for late in store.release_held() {
                assert!(late.is_err(), "a late copy must be refused");
            }
            for pod in [&pod, &Pod::new(&store)] {
                let mut all = read(pod, &key).await;
                all.sort();
                assert_eq!(all, bodies, "{one:?}, {two:?}, {third:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_lost_does_not_take_along_what_has_landed_beside_it() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    store.faults().next_append(AppendFault::LandsLater);
    let behind = async {
        sleep(Duration::from_millis(5)).await;
        let since = Instant::now();
        landed(pod.append(&key, tell("b")).await);
        assert!(since.elapsed() < Duration::from_millis(5), "it waits for nobody");
    };
    let (lost, ()) = in_time(join(pod.append(&key, tell("a")), behind)).await;
    landed(lost);
    assert!(store.release_held()[0].is_err());
    assert_eq!(read(&pod, &key).await, ["b", "a"]);
}

/// Another pod moves the turn of the token.
async fn another_takes_a_turn(store: &ScriptedUpstream, other: &Pod, key: &StreamKey) {
    store.faults().next_append(AppendFault::AnswerLost);
    landed(other.append(key, tell("x")).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_together_is_decided_again_once_in_its_order() {
    for swapped in [false, true] {
        let store = store();
        let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        other.head(&key).await.unwrap();
        let mut gates = [arrives_at(&store), arrives_at(&store), arrives_at(&store)];
        let bodies = numbered(0..3);
        let interferes = async {
            for gate in &gates {
                gate.arrived().await;
            }
            another_takes_a_turn(&store, &other, &key).await;
            if swapped {
                gates.reverse();
            }
            let before = asked(&store);
            for gate in &gates {
                assert_eq!(asked(&store), before, "nothing goes before all are back");
                gate.open();
                gathered().await;
            }
        };
        let (offsets, ()) = in_time(join(one_by_one(&pod, &key, &bodies), interferes)).await;
        assert!(offsets.is_sorted(), "{offsets:?}");
        assert_eq!(read(&pod, &key).await, [vec!["x".to_owned()], bodies].concat());
        assert_eq!(pod.writes("refused"), 3.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closure_by_another_pod_refuses_all_that_is_in_flight() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gates = [arrives_at(&store), arrives_at(&store)];
    let closes = async {
        gates[1].arrived().await;
        other.append(&key, close()).await.unwrap();
        gates[1].open();
        gathered().await;
        gates[0].open();
    };
    let second = async {
        gates[0].arrived().await;
        gathered().await;
        pod.append(&key, tell("b")).await
    };
    let (one, two, ()) = in_time(join3(pod.append(&key, tell("a")), second, closes)).await;
    for answer in [one, two] {
        assert!(matches!(answer, Err(OpError::Refused(Refusal::Closed { .. }))), "{answer:?}");
    }
    assert!(read(&pod, &key).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_depends_on_the_state_waits_for_what_is_in_flight_and_nothing_overtakes_it() {
    for post in
        [close(), last(&["z"]), by(claim("p", 0, 0), tell("z")), after("1", tell("z")), tell(&"z".repeat(2 << 20))]
    {
        let store = own_store();
        let (pod, key) = (Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        let gates = [arrives_at(&store), arrives_at(&store)];
        let before = asked(&store);
        let (plain, waits) = (numbered(0..2), async {
            gates[1].arrived().await;
            let late = async {
                gathered().await;
                pod.append(&key, tell("late")).await
            };
            let opens = async {
                gathered().await;
                gathered().await;
                gates[0].open();
                gathered().await;
                assert_eq!(asked(&store) - before, 2, "one is in flight still");
                gates[1].open();
            };
            join3(pod.append(&key, post.clone()), late, opens).await
        });
        let (_, (answer, late, ())) = in_time(join(one_by_one(&pod, &key, &plain), waits)).await;
        landed(answer);
        assert_eq!(late.is_err(), post.close, "{late:?}");
        let all = read(&pod, &key).await;
        assert_eq!(all[..2], plain);
        assert_eq!(all.last().is_some_and(|body| body == "late"), !post.close);
    }
}

#[tokio::test(start_paused = true)]
async fn neither_busy_plain_writers_nor_busy_producers_keep_the_others_out() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let way = Duration::from_millis(5);
    store.on_append(move |_, _| Some(AppendFault::PauseBefore(Pause::For(way))));
    let slowest = |id: usize, produces: bool| {
        let (gateway, key) = (pod.gateway(), key.clone());
        async move {
            let mut slowest = Duration::ZERO;
            for n in 0..100 {
                let post = tell(&format!("{id}.{n}"));
                let post = if produces { by(claim(&id.to_string(), 0, n), post) } else { post };
                let since = Instant::now();
                landed(gateway.append(&key, post).await);
                slowest = slowest.max(since.elapsed());
            }
            slowest
        }
    };
    let all = join_all((0..12).map(|id| slowest(id, id % 4 == 0)));
    let slowest = in_time(all).await.into_iter().max().unwrap();
    assert!(slowest <= way * 4, "{slowest:?}");
    in_time(pod.append(&key, close())).await.unwrap();
    assert_eq!(read(&pod, &key).await.len(), 1200);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_holds_all_that_stands_before_its_batch() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    store.on_append(|_, append| {
        let later = append.records.len() % 2 == 0;
        Some(AppendFault::PauseBefore(Pause::For(Duration::from_millis(if later { 7 } else { 3 }))))
    });
    let writers = (0..8).map(|_| async {
        for n in 0..200 {
            landed(pod.append(&key, tell(&n.to_string().repeat(20))).await);
        }
    });
    in_time(join_all(writers)).await;
    let (mut checkpoints, mut batch) = (0, 0);
    for record in store.records(&key) {
        let entry = Entry::decode(&record).unwrap();
        if let Kind::Checkpoint(checkpoint) = entry.kind {
            assert_eq!(checkpoint.as_of, batch);
            checkpoints += 1;
        }
        if entry.stamp.is_some() {
            batch = record.seq + 1;
        }
    }
    assert!(checkpoints > 0, "1,600 records are worth one");
    assert_eq!(read(&Pod::new(&store), &key).await.len(), 1600);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_all_that_is_in_flight_and_all_that_waits() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gates = [arrives_at(&store), acked_at(&store)];
    let bodies = numbered(0..3);
    let ends = async {
        gates[1].arrived().await;
        sleep(Duration::from_millis(20)).await;
        pod.begin_shutdown();
        gathered().await;
        gates[1].open();
        gathered().await;
        gates[0].open();
    };
    in_time(join(one_by_one(&pod, &key, &bodies), ends)).await;
    pod.shut_down().await;
    let mut all = read(&Pod::new(&store), &key).await;
    all.sort();
    assert_eq!(all, bodies);
}
