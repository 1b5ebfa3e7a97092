//! Idempotent producers and `Stream-Seq` (protocol section 5.2.1), on one pod and across pods.

use tailwater_fanout::{Appended, OpError};
use tailwater_log::Refusal;

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn claims_are_answered_as_the_protocol_says_by_every_pod() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    landed(pod.append(&key, by(claim("p", 3, 0), tell("a"))).await);
    let tail = landed(other.append(&key, by(claim("p", 3, 1), tell("b"))).await);
    for pod in [&pod, &other] {
        for seq in [0, 1] {
            let answer = pod.append(&key, by(claim("p", 3, seq), tell("again"))).await.unwrap();
            assert_eq!(answer, Appended::Duplicate { highest: 1, next: tail, closed: false });
        }
        let refused = |epoch, seq| {
            let gateway = pod.gateway();
            async move {
                let post = by(claim("p", epoch, seq), tell("x"));
                match gateway.append(&crate::harness::key("s"), post).await {
                    Err(OpError::Refused(refusal)) => refusal,
                    other => panic!("it should have been refused: {other:?}"),
                }
            }
        };
        assert_eq!(refused(3, 5).await, Refusal::ProducerGap { expected: 2, received: 5 });
        assert_eq!(refused(2, 9).await, Refusal::StaleEpoch { current: 3 });
        assert_eq!(refused(4, 1).await, Refusal::EpochStart);
    }
    landed(pod.append(&key, by(claim("p", 4, 0), tell("c"))).await);
    let stale = other.append(&key, by(claim("p", 3, 2), tell("x"))).await;
    assert!(matches!(stale, Err(OpError::Refused(Refusal::StaleEpoch { current: 4 }))), "{stale:?}");
    assert_eq!(read(&other, &key).await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_producer_starts_at_zero() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let gap = pod.append(&key, by(claim("p", 0, 1), tell("x"))).await;
    assert!(matches!(gap, Err(OpError::Refused(Refusal::ProducerGap { expected: 0, received: 1 }))));
}

#[tokio::test(start_paused = true)]
async fn a_closure_by_a_producer_is_recognised_when_it_is_retried_on_another_pod() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let closing = by(claim("p", 0, 0), last(&["a"]));
    let Appended::Landed { next, closed: true } = pod.append(&key, closing.clone()).await.unwrap() else {
        panic!("it should have been closed");
    };
    for pod in [&pod, &other] {
        let again = pod.append(&key, closing.clone()).await.unwrap();
        assert_eq!(again, Appended::Duplicate { highest: 0, next, closed: true });
        let later = pod.append(&key, by(claim("p", 0, 1), tell("x"))).await;
        assert!(matches!(later, Err(OpError::Refused(Refusal::Closed { .. }))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_seq_must_grow_whichever_pod_it_goes_to() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    landed(pod.append(&key, after("0010", tell("a"))).await);
    for (pod, seq) in [(&pod, "0010"), (&other, "0010"), (&other, "0009")] {
        let answer = pod.append(&key, after(seq, tell("x"))).await;
        assert!(matches!(answer, Err(OpError::Refused(Refusal::StreamSeq))), "{answer:?}");
    }
    landed(other.append(&key, after("0011", tell("b"))).await);
    landed(pod.append(&key, after("0012", tell("c"))).await);
    assert_eq!(read(&pod, &key).await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn pipelined_claims_of_one_producer_all_land_in_order() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    landed(pod.append(&key, by(claim("p", 0, 0), tell("0"))).await);
    // What the other pod appends is not known to the first one: it judges all that follows on a state that is old.
    for n in 1..4 {
        landed(other.append(&key, by(claim("p", 0, n), tell(&n.to_string()))).await);
    }
    let posts = (4..12).map(|n| {
        let (gateway, key) = (pod.gateway(), key.clone());
        async move { gateway.append(&key, by(claim("p", 0, n), tell(&n.to_string()))).await }
    });
    for answer in in_time(futures_util::future::join_all(posts)).await {
        landed(answer);
    }
    assert_eq!(read(&pod, &key).await, numbered(0..12));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_waits_twice_lands_once() {
    let (pod, key) = (Pod::new(&store()), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let post = by(claim("p", 0, 0), tell("a"));
    let (one, two) = in_time(futures_util::future::join(pod.append(&key, post.clone()), pod.append(&key, post))).await;
    let next = landed(one);
    assert_eq!(two.unwrap(), Appended::Duplicate { highest: 0, next, closed: false });
    assert_eq!(read(&pod, &key).await, ["a"]);
}
