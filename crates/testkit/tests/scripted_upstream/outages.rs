//! Outages of the whole store.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_refusing_store_fails_everything_at_once_and_sessions_come_back() {
    let store = store();
    store.append_native(&key(), ["a"]);
    let mut session = session(&store, 0).await;
    assert_eq!(drain(&mut session), ["0..1", "=1"]);
    store.faults().next_append(AppendFault::Refused);
    store.set_outage(Outage::Refusing);
    let begun = Instant::now();
    assert!(is_unavailable(&store.append(&key(), one("b")).await, Fate::NotAppended));
    assert!(matches!(store.check_tail(&key()).await, Err(ReadError::Unavailable { .. })));
    assert!(matches!(store.read_session(&key(), 0).await.err(), Some(ReadError::Unavailable { .. })));
    assert!(store.ready(Duration::from_secs(1)).await.is_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(store.faults().waiting(), 1, "an outage uses no fault up");
    store.append_native(&key(), ["by another way"]);
    assert_eq!(drain(&mut session), ["stalled"]);
    let (next, ()) = join(session.next(), async { store.set_outage(Outage::Over) }).await;
    assert!(matches!(next, Some(Ok(SessionEvent::Records(records))) if seqs(&records) == [1]));
    store.ready(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_gives_no_answer_and_its_appends_land_when_it_comes_back() {
    let store = store();
    store.append_native(&key(), ["a"]);
    store.set_outage(Outage::Silent);
    let begun = Instant::now();
    assert!(store.ready(Duration::from_secs(1)).await.is_err());
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert!(is_unavailable(&store.append(&key(), one("given up")).await, Fate::Unknown));
    assert_eq!(begun.elapsed(), Duration::from_secs(1) + ANSWER_WITHIN);
    assert_eq!(bodies(&store), ["a"]);
    let (ack, ()) = join(store.append(&key(), one("waited for")), async { store.set_outage(Outage::Over) }).await;
    assert_eq!(ack.unwrap().start.seq, 2);
    assert_eq!(bodies(&store), ["a", "given up", "waited for"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_silent_store_waits_for_it_for_a_while() {
    let store = store();
    store.append_native(&key(), ["a"]);
    store.set_outage(Outage::Silent);
    assert!(matches!(store.check_tail(&key()).await, Err(ReadError::Unavailable { .. })));
    let (tail, ()) = join(store.check_tail(&key()), async { store.set_outage(Outage::Over) }).await;
    assert_eq!(tail.unwrap().seq, 1);
}

#[tokio::test(start_paused = true)]
async fn appends_that_hang_are_lost_when_the_store_dies() {
    let store = store();
    store.set_outage(Outage::Silent);
    let (lost, ()) = join(store.append(&key(), one("a")), async { store.set_outage(Outage::Refusing) }).await;
    assert!(is_unavailable(&lost, Fate::Unknown));
    store.set_outage(Outage::Over);
    assert_eq!(store.tail(&key()), None);
}
