//! Appends: conditions, fencing, limits, timestamps.

use super::*;

#[tokio::test(start_paused = true)]
async fn creation_is_a_compare_and_swap() {
    let store = store();
    let open = || Append { match_seq: Some(0), ..Append::new(vec![message("open"), NewRecord::fence("o.1")]) };
    let ack = store.append(&key(), open()).await.unwrap();
    assert_eq!(ack.start, Position { seq: 0, timestamp: START_MS });
    assert_eq!(ack.end, Position { seq: 2, timestamp: START_MS });
    let second = store.append(&key(), open()).await;
    assert!(matches!(second, Err(AppendError::SeqMismatch { actual: 2 })));
    assert_eq!(store.token(&key()).as_deref(), Some("o.1"));
}

#[tokio::test(start_paused = true)]
async fn a_moved_token_refuses_plain_appends_and_names_itself() {
    let store = store();
    let with = |token: &str, records| Append { token: Some(token.to_owned()), ..Append::new(records) };
    store.append(&key(), with("", vec![NewRecord::fence("o.1")])).await.unwrap();
    store.append(&key(), with("o.1", vec![message("a")])).await.unwrap();
    store.append(&key(), with("o.1", vec![message("close"), NewRecord::fence("c.1")])).await.unwrap();
    let late = store.append(&key(), with("o.1", vec![message("late")])).await;
    assert!(matches!(late, Err(AppendError::TokenMismatch { actual }) if actual == "c.1"));
    assert_eq!(store.tail(&key()).unwrap().seq, 4);
    store.append_native(&key(), ["native"]);
    assert_eq!(store.tail(&key()).unwrap().seq, 5, "who brings no token is not fenced");
}

#[tokio::test(start_paused = true)]
async fn a_refused_condition_on_a_missing_stream_leaves_it_created_and_empty() {
    let store = store();
    let refused = store.append(&key(), Append { token: Some("o.1".to_owned()), ..one("x") }).await;
    assert!(matches!(refused, Err(AppendError::TokenMismatch { actual }) if actual.is_empty()));
    assert_eq!(store.check_tail(&key()).await.unwrap(), Position { seq: 0, timestamp: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_batch_beyond_the_limits_creates_nothing() {
    let store = store();
    let refused = store.append(&key(), Append::new(vec![message("x"); 1001])).await;
    assert!(matches!(refused, Err(AppendError::Refused { .. })));
    assert_eq!(store.tail(&key()), None);
}

#[tokio::test(start_paused = true)]
async fn records_are_stamped_on_arrival_and_time_never_goes_back() {
    let store = store();
    tokio::time::advance(Duration::from_millis(30)).await;
    store.append(&key(), one("a")).await.unwrap();
    store.clock().set(5);
    store.append(&key(), one("b")).await.unwrap();
    store.clock().set(START_MS + 900);
    store.append(&key(), one("c")).await.unwrap();
    let stamps: Vec<u64> = store.records(&key()).iter().map(|record| record.timestamp - START_MS).collect();
    assert_eq!(stamps, [30, 30, 900]);
}
