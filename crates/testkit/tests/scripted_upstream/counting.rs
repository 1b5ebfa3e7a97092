//! Counters, and what else a test can look at.

use super::*;

#[tokio::test(start_paused = true)]
async fn operations_are_counted_and_back_doors_are_not() {
    let store = store();
    store.append_native(&key(), ["a"]);
    store.land(&key(), one("b")).unwrap();
    store.append(&key(), Append::new(vec![message("c"), message("d")])).await.unwrap();
    store.read(&key(), ReadFrom::TailOffset(1), 1).await.unwrap();
    store.check_tail(&key()).await.unwrap();
    store.list("project", "", "", 9).await.unwrap();
    let mut open = session(&store, 4).await;
    drop(session(&store, 4).await);
    assert_eq!(drain(&mut open), ["=4"]);
    let counts = Counts {
        appends: 1,
        append_records: 2,
        reads: 1,
        tail_checks: 1,
        lists: 1,
        sessions_opened: 2,
        sessions_open: 1,
        session_polls: 2,
    };
    assert_eq!(store.counts(), counts);
}

#[tokio::test(start_paused = true)]
async fn appends_are_kept_as_they_were_asked_for() {
    let store = store();
    let first = Append { match_seq: Some(7), token: Some("o.1".to_owned()), ..one("a") };
    store.append(&key(), first.clone()).await.unwrap_err();
    store.append(&key(), one("b")).await.unwrap();
    let asked: Vec<Append> = store.asked().into_iter().map(|asked| asked.append).collect();
    assert_eq!(asked, [first, one("b")]);
}

#[tokio::test(start_paused = true)]
async fn a_test_can_wait_for_a_session_to_be_dropped() {
    let store = store();
    store.append_native(&key(), ["a"]);
    let open = session(&store, 0).await;
    assert!(store.when(|counts| counts.sessions_open == 0).now_or_never().is_none());
    let (counts, ()) = join(store.when(|counts| counts.sessions_open == 0), async { drop(open) }).await;
    assert_eq!(counts.sessions_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_polls_is_behind() {
    let store = store();
    store.append_native(&key(), ["a"]);
    let mut session = session(&store, 0).await;
    assert_eq!(store.sessions_behind(), 1);
    drain(&mut session);
    assert_eq!(store.sessions_behind(), 0);
    store.append_native(&key(), ["b"]);
    assert_eq!(store.sessions_behind(), 1);
    store.stall_sessions(&key());
    assert_eq!(store.sessions_behind(), 1, "it has to say that it has lost its connection");
    assert_eq!(drain(&mut session), ["stalled"]);
    assert_eq!(store.sessions_behind(), 0, "it could yield nothing more");
    store.resume_sessions(&key());
    assert_eq!(store.sessions_behind(), 1, "it must be polled to come back");
    drop(session);
    assert_eq!(store.sessions_behind(), 0);
}

#[tokio::test(start_paused = true)]
async fn single_ownership_is_a_setting() {
    assert!(!store().single_owner());
    assert!(ScriptedUpstream::new(Settings { single_owner: true, ..Settings::default() }).single_owner());
}
