//! Answers of the present: whatever another pod has done before a request arrived is part of its answer.

use std::time::Duration;

use futures_util::future::{join, join_all};
use tailwater_fanout::{Appended, Create, OpError};
use tailwater_log::Refusal;
use tailwater_protocol::ReadOffset;
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{Pause, ReadFault, SessionFault},
};
use tailwater_upstream::StreamKey;

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn a_write_is_read_at_once_by_everyone() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    for n in 0..10 {
        let (writer, reader) = if n % 2 == 0 { (&pod, &other) } else { (&other, &pod) };
        let tail = landed(writer.append(&key, tell(&n.to_string())).await);
        for pod in [reader, writer] {
            assert_eq!(pod.head(&key).await.unwrap().tail, tail);
            assert_eq!(read(pod, &key).await, numbered(0..n + 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_owner_of_a_store_needs_no_tail_checks_to_read_its_own_writes() {
    let store = own_store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let before = store.counts();
    for n in 0..10 {
        let tail = landed(pod.append(&key, tell(&n.to_string())).await);
        assert_eq!(pod.head(&key).await.unwrap().tail, tail);
        assert_eq!(read(&pod, &key).await.len(), n + 1);
    }
    let after = store.counts();
    assert_eq!((after.tail_checks, after.reads), (before.tail_checks, before.reads));
    assert_eq!(after.appends, before.appends + 10);
}

#[tokio::test(start_paused = true)]
async fn what_another_pod_has_done_is_part_of_every_answer() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    landed(pod.append(&key, by(claim("p", 0, 0), tell("b"))).await);

    let next = landed(other.append(&key, by(claim("p", 0, 1), tell("c"))).await);
    let retried = pod.append(&key, by(claim("p", 0, 1), tell("c"))).await.unwrap();
    assert_eq!(retried, Appended::Duplicate { highest: 1, next, closed: false });

    other.append(&key, close()).await.unwrap();
    assert!(pod.head(&key).await.unwrap().closed);
    let refused = pod.append(&key, tell("x")).await;
    assert!(matches!(refused, Err(OpError::Refused(Refusal::Closed { tail })) if tail == next), "{refused:?}");

    other.delete(&key).await.unwrap();
    assert!(matches!(pod.read(&key, ReadOffset::Start).await, Err(OpError::Refused(Refusal::NotFound))));

    other.create(&key, Create { content_type: Some(json()), ..plain() }).await.unwrap();
    assert_eq!(pod.head(&key).await.unwrap().content_type, json());
    let refused = pod.append(&key, tell("x")).await;
    assert!(matches!(refused, Err(OpError::Refused(Refusal::ContentType { .. }))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_append_that_meets_another_life_is_judged_by_that_life() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    other.delete(&key).await.unwrap();
    assert!(matches!(pod.append(&key, tell("x")).await, Err(OpError::Refused(Refusal::NotFound))));
    other.create(&key, plain()).await.unwrap();
    landed(pod.append(&key, tell("a")).await);
    other.delete(&key).await.unwrap();
    other.create(&key, holding(&["b"])).await.unwrap();
    landed(pod.append(&key, tell("c")).await);
    assert_eq!(read(&other, &key).await, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn any_number_of_requests_at_once_shares_two_tail_checks() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, holding(&["a"])).await.unwrap();
    pod.head(&key).await.unwrap();

    let before = store.counts().tail_checks;
    for head in in_time(join_all((0..100).map(|_| pod.head(&key)))).await {
        head.unwrap();
    }
    assert!(store.counts().tail_checks <= before + 2, "{}", store.counts().tail_checks - before);

    // One is under way and slow: all who come meanwhile share the next.
    let gate = Gate::new();
    store.faults().next_tail(ReadFault::PauseBefore(Pause::At(gate.clone())));
    let before = store.counts().tail_checks;
    let opens = async {
        gate.arrived().await;
        rest().await;
        gate.open();
    };
    let heads = join_all((0..1000).map(|_| pod.head(&key)));
    for head in in_time(join(heads, opens)).await.0 {
        head.unwrap();
    }
    assert_eq!(store.counts().tail_checks, before + 2);
    assert_eq!(pod.metric("tailwater_tail_checks_total"), store.counts().tail_checks as f64);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_answered_from_a_check_that_was_sent_before_it() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = Gate::new();
    store.faults().next_tail(ReadFault::PauseAfter(Pause::At(gate.clone())));
    let early = pod.head(&key);
    let late = async {
        gate.arrived().await;
        let tail = landed(other.append(&key, tell("a")).await);
        let (head, ()) = join(pod.head(&key), async {
            rest().await;
            gate.open();
        })
        .await;
        assert_eq!(head.unwrap().tail, tail);
    };
    in_time(join(early, late)).await.0.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_refused_on_a_check_that_was_sent_before_it() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = Gate::new();
    store.faults().next_tail(ReadFault::PauseAfter(Pause::At(gate.clone())));
    let late = async {
        gate.arrived().await;
        landed(other.append(&key, by(claim("p", 0, 0), tell("a"))).await);
        let (answer, ()) = join(pod.append(&key, by(claim("p", 0, 1), tell("b"))), async {
            rest().await;
            gate.open();
        })
        .await;
        landed(answer);
    };
    in_time(join(pod.head(&key), late)).await.0.unwrap();
    assert_eq!(read(&pod, &key).await, ["a", "b"]);
}

/// The first tail check is as ever; the answer of the second waits at the gate.
fn hold_the_second_tail_check(store: &ScriptedUpstream) -> Gate {
    let gate = Gate::new();
    let faults = store.faults();
    faults.next_tail(ReadFault::PauseBefore(Pause::For(Duration::ZERO)));
    faults.next_tail(ReadFault::PauseAfter(Pause::At(gate.clone())));
    gate
}

/// A claim that another pod's makes possible, whose answer is under way in a check that the gate holds.
async fn claims_behind_another(pod: &Pod, other: &Pod, key: &StreamKey, gate: &Gate) {
    landed(in_time(other.append(key, by(claim("p", 0, 0), tell("a")))).await);
    let opens = async {
        rest().await;
        gate.open();
    };
    let (answer, ()) = in_time(join(pod.append(key, by(claim("p", 0, 1), tell("b"))), opens)).await;
    landed(answer);
    assert_eq!(read(pod, key).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_refused_on_a_check_that_was_sent_for_writes_before_it() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let (gate, before) = (hold_the_second_tail_check(&store), store.counts().tail_checks);
    let gaps = ["q", "r"].map(|id| pod.append(&key, by(claim(id, 0, 1), tell("x"))));
    for answer in in_time(join_all(gaps)).await {
        assert!(matches!(answer, Err(OpError::Refused(Refusal::ProducerGap { .. }))), "{answer:?}");
    }
    rest().await;
    let checks = store.counts().tail_checks - before;
    claims_behind_another(&pod, &other, &key, &gate).await;
    assert_eq!(checks, 1, "what is refused together shares a check");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_refused_on_a_check_that_a_failed_session_led_to() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = hold_the_second_tail_check(&store);
    store.faults().next_session(SessionFault::Fails);
    let _reader = pod.follow(&key, ReadOffset::Start).await.unwrap();
    in_time(gate.arrived()).await;
    claims_behind_another(&pod, &other, &key, &gate).await;
}

#[tokio::test(start_paused = true)]
async fn a_tail_check_that_comes_back_after_an_own_append_is_no_sign_of_a_lost_log() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gate = Gate::new();
    store.faults().next_tail(ReadFault::PauseAfter(Pause::At(gate.clone())));
    let writes = async {
        gate.arrived().await;
        landed(pod.append(&key, tell("a")).await);
        gate.open();
    };
    in_time(join(pod.head(&key), writes)).await.0.unwrap();
    assert_eq!(pod.metric("tailwater_resets_total"), 0.0);
    assert_eq!(pod.metric("tailwater_activations_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_missed_thousands_of_records_looks_at_the_log_anew() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let bodies = numbered(0..5_000);
    for chunk in bodies.chunks(500) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        landed(other.append(&key, say(&chunk)).await);
    }
    assert_eq!(read(&pod, &key).await, bodies);
}
