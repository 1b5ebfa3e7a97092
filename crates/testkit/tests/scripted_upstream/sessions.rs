//! Read sessions: pages and batches, trims, reaping, cuts and stalls.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_reads_pages_while_behind_and_single_batches_when_live() {
    let store = store();
    for _ in 0..1200 {
        store.append_native(&key(), ["x"]);
    }
    let mut session = session(&store, 100).await;
    assert_eq!(drain(&mut session), ["100..1100", "1100..1200", "=1200"]);
    store.append_native(&key(), ["a", "b"]);
    store.append_native(&key(), ["c"]);
    assert_eq!(drain(&mut session), ["1200..1202", "1202..1203", "=1203"]);
    assert_eq!(drain(&mut session), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_falls_far_behind_reads_pages_again() {
    let store = store();
    store.append_native(&key(), ["x"]);
    let mut session = session(&store, 1).await;
    assert_eq!(drain(&mut session), ["=1"]);
    for _ in 0..33 {
        store.append_native(&key(), ["x"]);
    }
    assert_eq!(drain(&mut session), ["1..34", "=34"]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_session_is_woken_by_an_append() {
    let store = store();
    store.append_native(&key(), ["x"]);
    let mut session = session(&store, 1).await;
    assert_eq!(drain(&mut session), ["=1"]);
    let (seen, _) = join(session.next(), async { store.append_native(&key(), ["y"]) }).await;
    assert!(matches!(seen, Some(Ok(SessionEvent::Records(records))) if seqs(&records) == [1]));
}

#[tokio::test(start_paused = true)]
async fn a_session_sees_command_records() {
    let store = store();
    store.append_native(&key(), ["x"]);
    let mut session = session(&store, 1).await;
    store.append(&key(), Append::new(vec![NewRecord::fence("o.1"), NewRecord::trim(1)])).await.unwrap();
    let Some(Ok(SessionEvent::Records(records))) = session.next().await else { panic!("no records") };
    let commands: Vec<_> = records.iter().map(Record::command).collect();
    assert_eq!(commands, [Some(Command::Fence("o.1".to_owned())), Some(Command::Trim(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_behind_crosses_a_trim_in_silence() {
    let store = store();
    store.append_native(&key(), ["a", "b", "c"]);
    let mut behind = session(&store, 0).await;
    store.append(&key(), Append::new(vec![NewRecord::trim(2)])).await.unwrap();
    assert_eq!(drain(&mut behind), ["2..4", "=4"]);

    let mut at_the_end_of_nothing = session(&store, 1).await;
    store.append(&key(), Append::new(vec![NewRecord::trim(u64::MAX)])).await.unwrap();
    assert_eq!(drain(&mut at_the_end_of_nothing), ["=5"], "caught up beyond its last record");
}

#[tokio::test(start_paused = true)]
async fn a_live_session_sees_what_is_trimmed_at_once() {
    let store = store();
    store.append_native(&key(), ["a"]);
    let mut session = session(&store, 0).await;
    assert_eq!(drain(&mut session), ["0..1", "=1"]);
    store.append(&key(), Append::new(vec![message("b"), NewRecord::trim(u64::MAX)])).await.unwrap();
    assert_eq!(drain(&mut session), ["1..3", "=3"]);
    assert_eq!(store.records(&key()), []);
}

#[tokio::test(start_paused = true)]
async fn a_session_cannot_start_beyond_the_tail() {
    let store = store();
    store.append_native(&key(), ["a"]);
    assert!(matches!(store.read_session(&key(), 2).await.err(), Some(ReadError::Refused { .. })));
    assert_eq!(drain(&mut session(&store, 1).await), ["=1"]);
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_reaped_stream_sees_the_last_trim_and_ends() {
    let store = store();
    store.append(&key(), Append::new(vec![NewRecord::trim(u64::MAX)])).await.unwrap();
    let mut session = session(&store, 0).await;
    assert_eq!(drain(&mut session), ["=1"]);
    assert!(store.reap(&key()));
    store.append_native(&key(), ["another stream"]);
    let Some(Ok(SessionEvent::Records(last))) = session.next().await else { panic!("no records") };
    assert_eq!(last[0].command(), Some(Command::Trim(u64::MAX)));
    assert_eq!(drain(&mut session), ["not found", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_session_ends_with_an_error() {
    let store = store();
    store.append_native(&key(), ["a"]);
    let mut cut = session(&store, 0).await;
    assert_eq!(store.cut_sessions(&key()), 1);
    assert_eq!(drain(&mut cut), ["unavailable", "end"]);
    store.faults().next_session(SessionFault::Cut);
    assert_eq!(drain(&mut session(&store, 0).await), ["unavailable", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_session_yields_only_the_word_of_it_until_it_reconnects() {
    let store = store();
    store.append_native(&key(), ["a"]);
    let mut session = session(&store, 0).await;
    assert_eq!(drain(&mut session), ["0..1", "=1"]);
    assert_eq!(store.stall_sessions(&key()), 1);
    store.append_native(&key(), ["b"]);
    store.append_native(&key(), ["c"]);
    assert_eq!(drain(&mut session), ["stalled"]);
    let (next, ()) = join(session.next(), async { store.resume_sessions(&key()) }).await;
    assert!(matches!(next, Some(Ok(SessionEvent::Records(records))) if seqs(&records) == [1, 2]));
    assert_eq!(drain(&mut session), ["=3"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_can_stall_from_its_start() {
    let store = store();
    store.append_native(&key(), ["a"]);
    store.faults().next_session(SessionFault::Stall);
    let mut session = session(&store, 0).await;
    assert_eq!(drain(&mut session), Vec::<String>::new());
    store.resume_sessions(&key());
    assert_eq!(drain(&mut session), ["0..1", "=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_reconnects_gets_whatever_stream_bears_the_name() {
    for (records, seen) in [(0, "not found"), (1, "the store refused the read"), (3, "2..3")] {
        let store = store();
        store.append_native(&key(), ["a"]);
        store.append(&key(), Append::new(vec![NewRecord::trim(u64::MAX)])).await.unwrap();
        let mut session = session(&store, 2).await;
        store.stall_sessions(&key());
        assert!(store.reap(&key()));
        for _ in 0..records {
            store.append_native(&key(), ["of another stream"]);
        }
        store.resume_sessions(&key());
        assert_eq!(drain(&mut session)[0], seen, "with {records} records");
    }
}
