//! Faults that single operations meet.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_append_that_is_not_sent_has_not_happened() {
    let store = store();
    store.faults().next_append(AppendFault::NotSent);
    assert!(is_unavailable(&store.append(&key(), one("a")).await, Fate::NotAppended));
    assert_eq!(store.tail(&key()), None);
    store.append(&key(), one("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_is_lost_has_happened_as_its_conditions_allow() {
    let store = store();
    let conditional = || Append { match_seq: Some(0), ..one("a") };
    store.faults().next_append(AppendFault::AnswerLost).next_append(AppendFault::AnswerLost);
    assert!(is_unavailable(&store.append(&key(), conditional()).await, Fate::Unknown));
    assert!(is_unavailable(&store.append(&key(), conditional()).await, Fate::Unknown));
    assert_eq!(bodies(&store), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_held_append_lands_later_unless_the_token_has_moved() {
    let store = store();
    let fenced = |body| Append { token: Some(String::new()), ..one(body) };
    store.faults().next_append(AppendFault::LandsLater).next_append(AppendFault::LandsLater);
    assert!(is_unavailable(&store.append(&key(), fenced("a")).await, Fate::Unknown));
    assert_eq!((store.held(), store.tail(&key())), (1, None));
    store.release_held().remove(0).unwrap();
    assert_eq!(bodies(&store), ["a"]);

    assert!(is_unavailable(&store.append(&key(), fenced("b")).await, Fate::Unknown));
    store.append(&key(), Append::new(vec![NewRecord::fence("o.2")])).await.unwrap();
    let late = store.release_held().remove(0);
    assert!(matches!(late, Err(AppendError::TokenMismatch { actual }) if actual == "o.2"));
    assert_eq!((store.held(), store.tail(&key()).unwrap().seq), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_append_never_lands() {
    let store = store();
    store.faults().next_append(AppendFault::LandsLater);
    assert!(is_unavailable(&store.append(&key(), one("a")).await, Fate::Unknown));
    assert_eq!(store.forget_held(), 1);
    assert!(store.release_held().is_empty());
    assert_eq!(store.tail(&key()), None);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_append_takes_its_time() {
    let store = store();
    let span = Duration::from_secs(3);
    store.faults().next_append(AppendFault::PauseBefore(Pause::For(span)));
    let begun = Instant::now();
    let ack = store.append(&key(), one("a")).await.unwrap();
    assert_eq!(begun.elapsed(), span);
    assert_eq!(ack.start.timestamp, START_MS + 3_000);
}

#[tokio::test(start_paused = true)]
async fn an_append_at_a_gate_lands_when_it_is_let_go() {
    let store = store();
    let gate = Gate::new();
    store.faults().next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let (ack, ()) = join(store.append(&key(), one("late")), async {
        gate.arrived().await;
        store.append_native(&key(), ["first"]);
        gate.open();
    })
    .await;
    assert_eq!(ack.unwrap().start.seq, 1);
    assert_eq!(bodies(&store), ["first", "late"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_is_late_has_landed_even_if_nobody_waits_for_it() {
    let store = store();
    let gate = Gate::new();
    store.faults().next_append(AppendFault::PauseAfter(Pause::At(gate)));
    assert!(store.append(&key(), one("a")).now_or_never().is_none());
    assert_eq!(bodies(&store), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_store_can_ask_for_patience_be_deleting_or_refuse() {
    let store = store();
    let retry_after = Some(Duration::from_millis(70));
    store
        .faults()
        .next_append(AppendFault::Busy { retry_after })
        .next_append(AppendFault::DeletionPending)
        .next_append(AppendFault::Refused)
        .next_read(ReadFault::Busy { retry_after })
        .next_read(ReadFault::Refused)
        .next_list(ReadFault::Fails)
        .next_session(SessionFault::Busy { retry_after })
        .next_session(SessionFault::Refused)
        .next_session(SessionFault::Fails);
    let name = key();
    let append = || store.append(&name, one("a"));
    assert!(matches!(append().await, Err(AppendError::Busy { retry_after: after }) if after == retry_after));
    assert!(matches!(append().await, Err(AppendError::DeletionPending)));
    assert!(matches!(append().await, Err(AppendError::Refused { .. })));
    assert_eq!(store.tail(&key()), None, "none of them had an effect");
    let read = || store.read(&name, ReadFrom::Seq(0), 1);
    assert!(matches!(read().await, Err(ReadError::Busy { retry_after: after }) if after == retry_after));
    assert!(matches!(read().await, Err(ReadError::Refused { .. })));
    assert!(matches!(store.list("p", "", "", 1).await, Err(ReadError::Unavailable { .. })));
    let open = || async { store.read_session(&key(), 0).await.err() };
    assert!(matches!(open().await, Some(ReadError::Busy { .. })));
    assert!(matches!(open().await, Some(ReadError::Refused { .. })));
    assert!(matches!(open().await, Some(ReadError::Unavailable { .. })));
    assert_eq!(store.faults().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_tail_check_tells_of_the_time_before_or_after_its_pause() {
    let store = store();
    store.append_native(&key(), ["a"]);
    for (after, seen) in [(true, 1), (false, 3)] {
        let gate = Gate::new();
        let pause = Pause::At(gate.clone());
        store.faults().next_tail(if after { ReadFault::PauseAfter(pause) } else { ReadFault::PauseBefore(pause) });
        let (tail, ()) = join(store.check_tail(&key()), async {
            gate.arrived().await;
            store.append_native(&key(), ["b"]);
            gate.open();
        })
        .await;
        assert_eq!(tail.unwrap().seq, seen, "answer before the pause: {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_can_open_late() {
    let store = store();
    store.append_native(&key(), ["a"]);
    store.faults().next_session(SessionFault::PauseBefore(Pause::For(Duration::from_secs(2))));
    let begun = Instant::now();
    assert_eq!(drain(&mut session(&store, 0).await), ["0..1", "=1"]);
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_one_stream_waits_for_that_stream() {
    let store = store();
    let other = StreamKey::new("project", "other");
    store.faults_of(&other).next_append(AppendFault::NotSent);
    store.append(&key(), one("a")).await.unwrap();
    assert_eq!(store.faults().waiting(), 1);
    assert!(is_unavailable(&store.append(&other, one("a")).await, Fate::NotAppended));
}

#[tokio::test(start_paused = true)]
async fn a_hook_chooses_the_fault_from_what_is_appended() {
    let store = store();
    let look = store.clone();
    store.on_append(move |key, append| {
        let closes = append.bodies().any(|body| body == "close");
        (closes && look.tail(key).is_some()).then_some(AppendFault::AnswerLost)
    });
    store.append(&key(), one("close")).await.unwrap();
    assert!(is_unavailable(&store.append(&key(), one("close")).await, Fate::Unknown));
    store.append(&key(), one("a")).await.unwrap();
}
