//! Group commit: what waits goes out together, in order, and within the store's limits.

use futures_util::future::{join, join_all};
use tailwater_fanout::{Config, OpError};
use tailwater_log::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS};
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{AppendFault, Pause},
};

use crate::harness::*;

/// Keeps the next append under way until the gate is opened.
fn hold_up(store: &ScriptedUpstream) -> Gate {
    let gate = Gate::new();
    store.faults().next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    gate
}

/// Opens the gate once everything else has come to rest.
async fn open_soon(gate: &Gate) {
    rest().await;
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_append_that_is_under_way_goes_out_as_one_batch() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let before = store.counts().appends;
    let gate = hold_up(&store);
    let bodies = numbered(0..100);
    let (first, answers) = in_time(join(pod.append(&key, tell(&bodies[0])), async {
        gate.arrived().await;
        let posts = join_all(bodies[1..].iter().map(|body| pod.append(&key, tell(body))));
        join(posts, open_soon(&gate)).await.0
    }))
    .await;
    landed(first);
    let offsets: Vec<_> = answers.into_iter().map(landed).collect();
    assert!(offsets.is_sorted(), "each client's append stands where it was sent");
    assert_eq!(store.counts().appends, before + 2);
    assert_eq!(read(&pod, &key).await, bodies);
}

#[tokio::test(start_paused = true)]
async fn no_batch_is_larger_than_the_store_takes() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = hold_up(&store);
    let large = "x".repeat(300 * 1024);
    let many = vec!["y"; 400];
    let posts = (0..24).map(|n| pod.append(&key, if n % 2 == 0 { tell(&large) } else { say(&many) }));
    let opens = async {
        gate.arrived().await;
        rest().await;
        gate.open();
    };
    for answer in in_time(join(join_all(posts), opens)).await.0 {
        landed(answer);
    }
    for asked in store.asked() {
        assert!(asked.append.records.len() <= MAX_BATCH_RECORDS);
        assert!(asked.append.metered_bytes() <= MAX_BATCH_BYTES);
    }
    let all = read(&pod, &key).await;
    assert_eq!(all.iter().filter(|body| body.len() > 1).count(), 12);
    assert_eq!(all.iter().filter(|body| *body == "y").count(), 12 * 400);
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_is_refused_and_the_rest_lands() {
    let store = own_store();
    let config = Config { max_waiting: 20, ..Config::default() };
    let (pod, key) = (Pod::with(&store, config), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = hold_up(&store);
    let bodies = numbered(0..50);
    let (first, answers) = in_time(join(pod.append(&key, tell("first")), async {
        gate.arrived().await;
        let posts = join_all(bodies.iter().map(|body| pod.append(&key, tell(body))));
        join(posts, open_soon(&gate)).await.0
    }))
    .await;
    landed(first);
    let busy = answers.iter().filter(|answer| matches!(answer, Err(OpError::StreamBusy))).count();
    assert_eq!(busy, 30, "twenty wait");
    assert!(answers[..20].iter().all(Result::is_ok), "those who came first");
    assert_eq!(read(&pod, &key).await, [vec!["first".to_owned()], bodies[..20].to_vec()].concat());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_decided_again_keeps_the_order_of_its_appends() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = hold_up(&store);
    let bodies = numbered(0..40);
    // Counted appends: what the other pod appends meanwhile takes their position.
    let posts =
        join_all(bodies.iter().enumerate().map(|(n, body)| pod.append(&key, by(claim("p", 0, n as u64), tell(body)))));
    let interferes = async {
        gate.arrived().await;
        rest().await;
        landed(other.append(&key, tell("between")).await);
        gate.open();
    };
    for answer in in_time(join(posts, interferes)).await.0 {
        landed(answer);
    }
    let mut all = read(&pod, &key).await;
    assert_eq!(all.remove(0), "between");
    assert_eq!(all, bodies);
    assert!(pod.writes("refused") >= 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_does_not_hold_up_the_others() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = hold_up(&store);
    let impatient = async {
        let waits = tokio::time::timeout(std::time::Duration::from_secs(1), pod.append(&key, tell("a"))).await;
        assert!(waits.is_err());
        gate.open();
    };
    let (_, patient) = in_time(join(impatient, pod.append(&key, tell("b")))).await;
    landed(patient);
    assert_eq!(read(&pod, &key).await, ["a", "b"]);
}
