//! Appends of unknown fate: an answer says what became of them, or that nobody knows; and an error answer stays true.

use std::time::Duration;

use tailwater_fanout::{Appended, Config, Create, OpError, Post};
use tailwater_log::Refusal;
use tailwater_testkit::{
    ScriptedUpstream,
    fault::{AppendFault, Outage},
};
use tokio::time::timeout;

use crate::harness::*;

fn posts() -> Vec<(&'static str, Post)> {
    vec![
        ("plain", tell("x")),
        ("producer", by(claim("p", 0, 0), tell("x"))),
        ("stream seq", after("1", tell("x"))),
        ("closing", last(&["x"])),
        ("closing producer", by(claim("p", 0, 0), last(&["x"]))),
    ]
}

/// Whatever was held back arrives now, and is refused.
fn assert_nothing_lands_late(store: &ScriptedUpstream) {
    for late in store.release_held() {
        assert!(late.is_err(), "a late copy must be refused");
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_found_and_acked_once() {
    for (what, post) in posts() {
        let store = store();
        let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        store.faults().next_append(AppendFault::AnswerLost);
        let next = landed(in_time(pod.append(&key, post.clone())).await);
        for pod in [&pod, &other] {
            assert_eq!(read(pod, &key).await, ["x"], "{what}");
            assert_eq!(pod.head(&key).await.unwrap().tail, next, "{what}");
            assert_eq!(pod.head(&key).await.unwrap().closed, post.close, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_still_under_way_lands_once_whenever_it_arrives() {
    for (what, post) in posts() {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        store.faults().next_append(AppendFault::LandsLater);
        landed(in_time(pod.append(&key, post)).await);
        assert_nothing_lands_late(&store);
        assert_eq!(read(&pod, &key).await, ["x"], "{what}");
        assert_eq!(read(&Pod::new(&store), &key).await, ["x"], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn appends_that_share_a_batch_share_its_fate() {
    for fault in [AppendFault::AnswerLost, AppendFault::LandsLater] {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        store.faults().next_append(fault);
        let bodies = numbered(0..30);
        let posts = bodies.iter().map(|body| pod.append(&key, tell(body)));
        for answer in in_time(futures_util::future::join_all(posts)).await {
            landed(answer);
        }
        assert_nothing_lands_late(&store);
        assert_eq!(read(&pod, &key).await, bodies);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_looked_into_for_whom_nobody_waits_any_more() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    store.set_outage(Outage::Silent);
    assert!(timeout(Duration::from_secs(1), pod.append(&key, tell("a"))).await.is_err(), "its client has gone");
    let asked = store.counts().appends;
    tokio::time::sleep(LONG).await;
    assert_eq!(store.counts().appends, asked, "no token is moved");
    assert_eq!(pod.writes("unknown"), 1.0);
    store.set_outage(Outage::Over);
    landed(in_time(pod.append(&key, tell("b"))).await);
    assert_eq!(read(&pod, &key).await, ["a", "b"], "it was under way all the time");
}

#[tokio::test(start_paused = true)]
async fn an_append_is_settled_at_ever_longer_intervals() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    let before = store.counts().appends;
    store.faults().next_append(AppendFault::AnswerLost);
    let goes_away = async {
        store.when(|counts| counts.appends > before).await;
        store.set_outage(Outage::Refusing);
    };
    let (answer, ()) = in_time(futures_util::future::join(pod.append(&key, tell("a")), goes_away)).await;
    assert!(matches!(answer, Err(OpError::OutcomeUnknown)), "{answer:?}");
    let tries = store.counts().appends - before;
    assert!((8..=30).contains(&tries), "in ten seconds: {tries}");
}

#[tokio::test(start_paused = true)]
async fn a_close_of_unknown_fate_is_settled() {
    for fault in [AppendFault::AnswerLost, AppendFault::LandsLater] {
        for closing in [close(), by(claim("p", 0, 0), close())] {
            let store = store();
            let (pod, key) = (Pod::new(&store), key("s"));
            let tail = pod.create(&key, holding(&["a"])).await.unwrap().head.tail;
            store.faults().next_append(fault.clone());
            let answer = in_time(pod.append(&key, closing)).await.unwrap();
            assert_eq!(answer, Appended::Landed { next: tail, closed: true });
            assert_nothing_lands_late(&store);
            assert!(Pod::new(&store).head(&key).await.unwrap().closed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_of_unknown_fate_is_settled_and_is_fresh() {
    for fault in [AppendFault::AnswerLost, AppendFault::LandsLater] {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        for _ in 0..2 {
            store.faults_of(&key).next_append(fault.clone());
            let created = in_time(pod.create(&key, holding(&["a"]))).await.unwrap();
            assert!(created.fresh, "it was this request that created it");
            assert_nothing_lands_late(&store);
            assert_eq!(read(&pod, &key).await, ["a"]);
            store.faults_of(&key).next_append(fault.clone());
            in_time(pod.delete(&key)).await.unwrap();
            assert_nothing_lands_late(&store);
            assert!(matches!(pod.head(&key).await, Err(OpError::Refused(Refusal::NotFound))));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_meets_a_reaping_tries_again() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    for _ in 0..5 {
        store.faults().next_append(AppendFault::DeletionPending);
    }
    assert!(in_time(pod.create(&key, plain())).await.unwrap().fresh);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_was_not_sent_is_an_error_and_never_lands() {
    for (what, post) in posts() {
        for fault in [AppendFault::NotSent, AppendFault::Busy { retry_after: Some(Duration::from_secs(3)) }] {
            let store = store();
            let (pod, key) = (Pod::new(&store), key("s"));
            pod.create(&key, plain()).await.unwrap();
            let busy = matches!(fault, AppendFault::Busy { .. });
            store.faults().next_append(fault);
            let error = in_time(pod.append(&key, post.clone())).await.unwrap_err();
            let expected = busy.then_some(Duration::from_secs(3));
            assert!(matches!(&error, OpError::Unavailable { retry_after, .. } if *retry_after == expected), "{what}");
            assert!(error.is_retryable());
            assert!(read(&pod, &key).await.is_empty(), "{what}");
            landed(pod.append(&key, post.clone()).await);
            assert_eq!(read(&pod, &key).await, ["x"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_the_store_refuses_as_such_fails_as_such() {
    let store = store();
    let (pod, key) = (Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    store.faults().next_append(AppendFault::Refused);
    let error = pod.append(&key, tell("x")).await.unwrap_err();
    assert!(matches!(error, OpError::StoreRefused { .. }) && !error.is_retryable());
    assert_eq!(error.fault(), tailwater_upstream::Fault::Upstream);
}

#[tokio::test(start_paused = true)]
async fn a_fate_is_unknown_only_while_the_store_stays_silent_for_longer_than_it_is_looked_into() {
    for (what, post) in posts() {
        for lands in [false, true] {
            let store = store();
            let settle = Duration::from_secs(10);
            let (pod, key) = (Pod::with(&store, Config { settle, ..Config::default() }), key("s"));
            pod.create(&key, plain()).await.unwrap();
            store.set_outage(Outage::Silent);
            let since = tokio::time::Instant::now();
            let error = in_time(pod.append(&key, post.clone())).await.unwrap_err();
            assert!(matches!(error, OpError::OutcomeUnknown), "{what}: {error:?}");
            assert!(since.elapsed() >= settle && since.elapsed() < settle * 2, "{what}: {:?}", since.elapsed());
            if !lands {
                store.set_outage(Outage::Refusing);
            }
            store.set_outage(Outage::Over);
            let found = read(&pod, &key).await;
            if lands {
                assert_eq!(found, ["x"], "{what}: of all the tries one has landed");
            } else {
                assert!(found.is_empty());
            }
            // With a claim a retry is exactly once, whatever became of it.
            if post.producer.is_some() {
                let again = in_time(pod.append(&key, post.clone())).await.unwrap();
                assert_eq!(matches!(again, Appended::Duplicate { .. }), lands, "{what}: {again:?}");
                assert_eq!(read(&pod, &key).await, ["x"]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_in_time_leaves_nothing_unknown() {
    for (what, post) in posts() {
        let store = store();
        let (pod, key) = (Pod::new(&store), key("s"));
        pod.create(&key, plain()).await.unwrap();
        store.set_outage(Outage::Silent);
        let comes_back = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            store.set_outage(Outage::Over);
        };
        let (answer, ()) = in_time(futures_util::future::join(pod.append(&key, post), comes_back)).await;
        landed(answer);
        assert_eq!(read(&pod, &key).await, ["x"], "{what}");
        rest().await;
        assert_eq!(read(&Pod::new(&store), &key).await, ["x"], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_settled_append_is_not_repeated_by_those_who_wait_behind_it() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    // The token has been moved for it; the other pod has to learn that, and this one too.
    store.faults().next_append(AppendFault::AnswerLost);
    landed(in_time(pod.append(&key, tell("0"))).await);
    landed(in_time(other.append(&key, tell("1"))).await);
    landed(in_time(pod.append(&key, by(claim("p", 0, 0), tell("2")))).await);
    store.faults().next_append(AppendFault::LandsLater);
    landed(in_time(other.append(&key, tell("3"))).await);
    landed(in_time(pod.append(&key, tell("4"))).await);
    assert_nothing_lands_late(&store);
    pod.append(&key, close()).await.unwrap();
    assert_eq!(read(&other, &key).await, numbered(0..5));
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_stretch_of_the_log_was_trimmed_meanwhile_is_not_appended_again() {
    let store = store();
    let (pod, other, key) = (Pod::new(&store), Pod::new(&store), key("s"));
    pod.create(&key, plain()).await.unwrap();
    store.faults().next_append(AppendFault::AnswerLost);
    let next_life = async {
        store.when(|counts| counts.appends >= 2).await;
        other.delete(&key).await.unwrap();
        other.create(&key, Create { messages: bytes(&["of the next life"]), ..plain() }).await.unwrap();
    };
    let (answer, ()) = in_time(futures_util::future::join(pod.append(&key, tell("x")), next_life)).await;
    match answer {
        Err(OpError::OutcomeUnknown) => assert_eq!(read(&pod, &key).await, ["of the next life"]),
        other => panic!("nobody can tell whether it had landed: {other:?}"),
    }
}
