use std::{convert::Infallible, sync::Arc, time::Duration};

use tailwater_auth::register::{Record, Register, Unfit};
use tailwater_log::NewRecord;
use tailwater_protocol::ProjectId;
use tailwater_testkit::{
    Gate, ScriptedUpstream,
    fault::{AppendFault, Outage, Pause, SessionFault},
};
use tailwater_upstream::Append;
use tokio::{task::JoinHandle, time::advance};

use super::*;
use crate::{fold::Fold, follow::CHECKPOINT_EVERY, view::BEHIND_AFTER};

fn project(id: &str) -> ProjectId {
    ProjectId::parse(id).unwrap()
}

fn revoke(id: &str) -> Record {
    Record::RevokeToken { project: project("chat"), id: id.to_owned(), expires_at: None }
}

fn revokes(view: &View, id: &str) -> bool {
    view.register().is_revoked(&project("chat"), Some(id), None)
}

/// A gateway, as far as it has to do with the register.
struct Pod {
    log: RegisterLog,
    registry: prometheus::Registry,
    following: JoinHandle<()>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Pod {
    fn start(upstream: &ScriptedUpstream) -> Self {
        let registry = prometheus::Registry::new();
        let log = RegisterLog::new(Arc::new(upstream.clone()), Metrics::register(&registry).unwrap());
        let following = tokio::spawn(log.clone().follow());
        Self { log, registry, following }
    }

    async fn reading(upstream: &ScriptedUpstream) -> Self {
        let pod = Self::start(upstream);
        pod.when(|view| view.is_read()).await;
        pod
    }

    async fn when(&self, wanted: impl FnMut(&View) -> bool) -> View {
        self.log.changes().wait_for(wanted).await.unwrap().clone()
    }

    async fn revoke(&self, id: &str) -> Result<u64, AppendError<Infallible>> {
        self.log.append(|_| Ok(revoke(id))).await
    }

    fn shown(&self, line: &str) -> bool {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.lines().any(|shown| shown == line)
    }
}

/// Appends as another pod would.
fn land(upstream: &ScriptedUpstream, record: &Record) {
    upstream.land(&RegisterLog::key(), Append::new(vec![NewRecord::message(record.encode().into())])).unwrap();
}

fn store() -> ScriptedUpstream {
    ScriptedUpstream::default()
}

#[tokio::test(start_paused = true)]
async fn what_one_pod_has_answered_is_in_force_there_and_in_a_moment_everywhere() {
    let upstream = store();
    let (one, other) = (Pod::reading(&upstream).await, Pod::reading(&upstream).await);
    assert_eq!(one.revoke("a").await.unwrap(), 0);
    assert!(revokes(&one.log.view(), "a"));
    let view = other.when(|view| revokes(view, "a")).await;
    assert!(!revokes(&view, "b"));
    assert_eq!(other.revoke("b").await.unwrap(), 1);
    let view = one.when(|view| revokes(view, "b")).await;
    assert_eq!(view.register(), other.log.view().register());
    assert_eq!(one.log.standing(), Standing::Current);
    assert!(one.shown("tailwater_register_next 2"));
    assert!(one.shown("tailwater_register_standing 0"));
    assert!(one.shown("tailwater_register_appends_total{outcome=\"landed\"} 1"));
    assert!(one.shown("tailwater_register_sessions_total 1"));
    assert_eq!(upstream.counts().sessions_open, 2, "one a pod");
}

#[tokio::test(start_paused = true)]
async fn where_the_store_is_away_at_the_start_nothing_is_known_until_it_is_back() {
    let upstream = store();
    land(&upstream, &revoke("a"));
    upstream.set_outage(Outage::Refusing);
    let pod = Pod::start(&upstream);
    advance(Duration::from_secs(60)).await;
    assert_eq!((pod.log.standing(), pod.log.view().is_read()), (Standing::Unread, false));
    assert!(pod.shown("tailwater_register_standing 2"));
    assert!(matches!(pod.revoke("b").await, Err(AppendError::NotFollowed(Standing::Unread))));
    upstream.set_outage(Outage::Over);
    let view = pod.when(View::is_read).await;
    assert!(revokes(&view, "a") && !revokes(&view, "b"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_takes_nothing_back_and_what_was_missed_is_made_good() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    pod.revoke("a").await.unwrap();
    upstream.set_outage(Outage::Silent);
    pod.when(|view| view.trouble().is_some()).await;
    assert_eq!(pod.log.standing(), Standing::Current, "a lost connection is no news");
    advance(BEHIND_AFTER).await;
    assert_eq!(pod.log.standing(), Standing::Behind);
    assert!(pod.shown("tailwater_register_standing 1"));
    assert!(revokes(&pod.log.view(), "a"));
    land(&upstream, &revoke("b"));
    upstream.set_outage(Outage::Over);
    pod.when(|view| revokes(view, "b") && view.trouble().is_none()).await;
    assert_eq!(pod.log.standing(), Standing::Current);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_is_opened_again_where_it_was() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    pod.revoke("a").await.unwrap();
    let faults = upstream.faults_of(&RegisterLog::key());
    for fault in
        [SessionFault::Fails, SessionFault::Cut, SessionFault::Busy { retry_after: None }, SessionFault::Refused]
    {
        faults.next_session(fault);
    }
    assert_eq!(upstream.cut_sessions(&RegisterLog::key()), 1);
    land(&upstream, &revoke("b"));
    pod.when(|view| revokes(view, "b")).await;
    assert_eq!(faults.waiting(), 0);
    assert!(pod.shown("tailwater_register_refolds_total 0"));
}

#[tokio::test(start_paused = true)]
async fn who_loses_a_race_learns_what_was_written_and_is_judged_again() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    let gate = Gate::new();
    upstream.faults_of(&RegisterLog::key()).next_append(AppendFault::PauseBefore(Pause::At(gate.clone())));
    let log = pod.log.clone();
    let known = |register: &Register| register.is_revoked(&project("chat"), Some("theirs"), None);
    let ours = tokio::spawn(async move {
        log.append(|register| if known(register) { Err("it is theirs") } else { Ok(revoke("ours")) }).await
    });
    gate.arrived().await;
    land(&upstream, &revoke("theirs"));
    gate.open();
    assert!(matches!(ours.await.unwrap(), Err(AppendError::Declined("it is theirs"))));
    assert_eq!(upstream.records(&RegisterLog::key()).len(), 1);
    assert!(pod.shown("tailwater_register_appends_total{outcome=\"lost_race\"} 1"));
    assert_eq!(pod.revoke("ours").await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_catches_up_knows_what_others_were_answered() {
    let upstream = store();
    let (one, other) = (Pod::reading(&upstream).await, Pod::reading(&upstream).await);
    assert!(other.log.catch_up().await, "there is nothing yet");
    one.revoke("a").await.unwrap();
    assert!(other.log.catch_up().await);
    assert!(revokes(&other.log.view(), "a"));
    upstream.set_outage(Outage::Refusing);
    assert!(!other.log.catch_up().await);
}

#[tokio::test(start_paused = true)]
async fn a_race_is_not_run_for_ever() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    let (rival, mut count) = (upstream.clone(), 0);
    upstream.on_append(move |_, append| {
        count += 1;
        // Somebody else is always faster.
        append.match_seq.map(|_| {
            land(&rival, &revoke(&format!("rival-{count}")));
            AppendFault::PauseBefore(Pause::For(Duration::from_millis(1)))
        })
    });
    assert!(matches!(pod.revoke("ours").await, Err(AppendError::Contended)));
    let asked = upstream.asked().len();
    assert_eq!(upstream.records(&RegisterLog::key()).len(), asked, "all of them the rival's");
}

#[tokio::test(start_paused = true)]
async fn what_has_become_of_an_append_is_told_as_it_is() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    let faults = upstream.faults_of(&RegisterLog::key());
    faults.next_append(AppendFault::NotSent);
    assert!(matches!(pod.revoke("a").await, Err(AppendError::Store(_))));
    assert!(upstream.records(&RegisterLog::key()).is_empty());
    faults.next_append(AppendFault::AnswerLost);
    assert!(matches!(pod.revoke("b").await, Err(AppendError::Unknown(_))));
    pod.when(|view| revokes(view, "b")).await;
    // To say it again is harmless.
    pod.revoke("b").await.unwrap();
    upstream.set_outage(Outage::Silent);
    assert!(matches!(pod.revoke("c").await, Err(AppendError::Unknown(_))));
    for outcome in ["failed", "unknown"] {
        let count = if outcome == "failed" { 1 } else { 2 };
        assert!(pod.shown(&format!("tailwater_register_appends_total{{outcome=\"{outcome}\"}} {count}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_would_meet_a_bound_is_not_appended() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    let nameless = |_: &Register| Ok::<_, Infallible>(revoke(""));
    assert!(matches!(pod.log.append(nameless).await, Err(AppendError::Unfit(Unfit::Malformed))));
    assert_eq!(upstream.counts().appends, 0);
}

#[tokio::test(start_paused = true)]
async fn the_log_is_cut_short_and_a_pod_that_comes_later_knows_the_same() {
    let upstream = store();
    let pods = [Pod::reading(&upstream).await, Pod::reading(&upstream).await, Pod::reading(&upstream).await];
    for n in 0..CHECKPOINT_EVERY + 10 {
        pods[0].revoke(&n.to_string()).await.unwrap();
    }
    let first = upstream.records(&RegisterLog::key())[0].clone();
    assert!(first.seq >= CHECKPOINT_EVERY);
    assert!(matches!(Record::decode(&first.body), Ok(Some(Record::Checkpoint(_)))));
    let late = Pod::reading(&upstream).await;
    let known = pods[0].log.view();
    assert_eq!(late.log.view().register(), known.register());
    assert!(revokes(&late.log.view(), "0"));
    for pod in &pods {
        pod.when(|view| view.register() == known.register()).await;
    }
    let made = pods.iter().filter(|pod| pod.shown("tailwater_register_checkpoints_total 1")).count();
    assert_eq!(made, 1, "by one of them");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_slept_through_a_trim_reads_again_and_forgets_nothing_meanwhile() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    pod.revoke("before").await.unwrap();
    upstream.stall_sessions(&RegisterLog::key());
    for n in 0..CHECKPOINT_EVERY {
        land(&upstream, &revoke(&n.to_string()));
    }
    let mut whole = Register::default();
    for record in upstream.records(&RegisterLog::key()) {
        whole.apply(record.seq, record.timestamp / 1000, &record.body).unwrap();
    }
    let (checkpoint, at) = (whole.checkpoint().encode(), whole.next());
    let batch = Append::new(vec![NewRecord::message(checkpoint.into()), NewRecord::trim(at)]);
    upstream.land(&RegisterLog::key(), batch).unwrap();
    advance(Duration::from_secs(1)).await;
    assert!(revokes(&pod.log.view(), "before"));
    upstream.resume_sessions(&RegisterLog::key());
    let view = pod.when(|view| view.register().next() == at + 2).await;
    assert!(revokes(&view, "before") && revokes(&view, "200"));
    assert!(pod.shown("tailwater_register_refolds_total 1"));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_stops_what_is_known_and_takes_nothing_back() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    pod.revoke("a").await.unwrap();
    upstream.append_native(&RegisterLog::key(), ["from a program of the future"]);
    land(&upstream, &revoke("b"));
    pod.when(|view| view.standing() == Standing::Unreadable).await;
    advance(Duration::from_secs(300)).await;
    assert_eq!(pod.log.standing(), Standing::Unreadable);
    let view = pod.log.view();
    assert!(revokes(&view, "a") && !revokes(&view, "b") && view.is_read());
    assert!(matches!(pod.revoke("c").await, Err(AppendError::NotFollowed(Standing::Unreadable))));
    let late = Pod::start(&upstream);
    late.when(|view| view.standing() == Standing::Unreadable).await;
    assert!(!late.log.view().is_read(), "who has read nothing judges nobody");
}

#[tokio::test(start_paused = true)]
async fn what_comes_together_with_a_record_that_cannot_be_read_counts_up_to_it() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    pod.revoke("a").await.unwrap();
    let future = NewRecord::message(vec![1, 99, 0].into());
    let batch =
        vec![NewRecord::message(revoke("b").encode().into()), future, NewRecord::message(revoke("c").encode().into())];
    upstream.land(&RegisterLog::key(), Append::new(batch)).unwrap();
    let view = pod.when(|view| view.standing() == Standing::Unreadable).await;
    assert!(revokes(&view, "a") && revokes(&view, "b") && !revokes(&view, "c"));
    assert_eq!(view.register().next(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_begins_in_its_middle_is_not_believed() {
    let upstream = store();
    land(&upstream, &revoke("a"));
    land(&upstream, &revoke("b"));
    upstream.land(&RegisterLog::key(), Append::new(vec![NewRecord::trim(1)])).unwrap();
    let pod = Pod::start(&upstream);
    pod.when(|view| view.standing() == Standing::Unreadable).await;
    assert!(!pod.log.view().is_read());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_has_lost_records_is_not_believed() {
    let upstream = store();
    let pod = Pod::reading(&upstream).await;
    pod.revoke("a").await.unwrap();
    upstream.land(&RegisterLog::key(), Append::new(vec![NewRecord::trim(2)])).unwrap();
    upstream.settle_trims();
    assert!(upstream.reap(&RegisterLog::key()), "somebody has deleted it");
    pod.when(|view| view.standing() == Standing::Shortened).await;
    land(&upstream, &revoke("b"));
    advance(Duration::from_secs(300)).await;
    assert_eq!(pod.log.standing(), Standing::Shortened);
    assert!(revokes(&pod.log.view(), "a"));
    assert!(matches!(pod.revoke("c").await, Err(AppendError::NotFollowed(Standing::Shortened))));
}

#[test]
fn what_was_trimmed_in_part_is_passed_over_until_the_checkpoint_that_holds_it() {
    let mut whole = Register::default();
    let mut log = Vec::new();
    let mut append = |whole: &mut Register, record: &Record| {
        let at = whole.next();
        whole.apply(at, 1_800_000_000, &record.encode()).unwrap();
        log.push(NewRecord::message(record.encode().into()).at(at, 1_800_000_000_000));
    };
    for n in 0..6 {
        append(&mut whole, &revoke(&n.to_string()));
    }
    let checkpoint = whole.checkpoint();
    append(&mut whole, &checkpoint);
    append(&mut whole, &revoke("last"));
    for start in [0, 3, 6] {
        let mut fold = Fold::default();
        for record in &log[start..] {
            fold.take(record).unwrap();
        }
        fold.finish(8).unwrap();
        assert_eq!((fold.register(), fold.next()), (&whole, 8), "from {start}");
    }
    let mut fold = Fold::default();
    for record in &log[3..6] {
        assert_eq!(fold.take(record), Ok(false));
    }
    assert!(fold.finish(6).is_err(), "there is no checkpoint");
    let mut fold = Fold::default();
    fold.take(&log[0]).unwrap();
    assert!(fold.take(&log[2]).is_err(), "a gap is none to be passed over");
    assert!(fold.finish(8).is_err(), "nor is one at the end");
    assert_eq!(Fold::default().finish(0), Ok(()));
}
