//! Unary reads, tails, trims, listings, reaping.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_missing_stream_is_not_found() {
    let store = store();
    assert!(matches!(store.read(&key(), ReadFrom::Seq(0), 1).await, Err(ReadError::NotFound)));
    assert!(matches!(store.check_tail(&key()).await, Err(ReadError::NotFound)));
    assert!(matches!(store.read_session(&key(), 0).await.err(), Some(ReadError::NotFound)));
    assert_eq!(store.counts().sessions_opened, 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_below_the_trim_point_starts_at_the_first_record_left() {
    let store = ScriptedUpstream::new(Settings { trims: Trims::WhenSettled, ..Settings::default() });
    store.append_native(&key(), ["a", "b", "c"]);
    store.append(&key(), Append::new(vec![NewRecord::trim(2)])).await.unwrap();
    assert_eq!(page(&store, 0).await, [0, 1, 2, 3], "trimmed records stay visible for a while");
    store.settle_trims();
    assert_eq!(page(&store, 0).await, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_trimmed_to_nothing_keeps_its_tail_and_its_numbering() {
    let store = store();
    store.append_native(&key(), ["a"]);
    store.append(&key(), Append::new(vec![NewRecord::fence("g.1"), NewRecord::trim(9)])).await.unwrap();
    assert_eq!(store.read(&key(), ReadFrom::Seq(0), 10).await.unwrap(), Page::default());
    assert_eq!(store.check_tail(&key()).await.unwrap(), Position { seq: 3, timestamp: START_MS });
    let again = Append { match_seq: Some(3), token: Some("g.1".to_owned()), ..one("open") };
    assert_eq!(store.append(&key(), again).await.unwrap().start.seq, 3);
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_in_order_within_its_project_prefix_and_limit() {
    let store = store();
    for (project, stream) in [("p", "b"), ("p", "a/2"), ("p", "a/1"), ("q", "a/3"), ("p", "a/4")] {
        store.append_native(&StreamKey::new(project, stream), ["x"]);
    }
    assert_eq!(store.list("p", "a/", "", 10).await.unwrap(), ["a/1", "a/2", "a/4"]);
    assert_eq!(store.list("p", "a/", "a/1", 1).await.unwrap(), ["a/2"]);
    assert_eq!(store.list("nobody", "", "", 10).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_reaped_stream_is_missing_and_starts_at_0_again() {
    let store = store();
    store.append_native(&key(), ["a"]);
    assert!(!store.reap(&key()), "it holds a record");
    store.append(&key(), Append::new(vec![NewRecord::trim(u64::MAX)])).await.unwrap();
    assert!(store.reap(&key()));
    assert!(!store.reap(&key()), "it is gone");
    assert!(matches!(store.check_tail(&key()).await, Err(ReadError::NotFound)));
    assert_eq!(store.append_native(&key(), ["b"]).start.seq, 0);
}
