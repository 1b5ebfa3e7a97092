//! All streams and all open sessions of the model. Synchronous: the shell locks it, and wakes whom it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    task::{Context, Poll, Waker},
};

use tailwater_log::Record;
use tailwater_upstream::{Append, AppendAck, AppendError, Page, Position, ReadError, ReadFrom, StreamKey};
use tokio::time::Instant;

use crate::{
    follower::{Follower, Yield, start_within},
    log::{StreamLog, admit},
};

/// When what was trimmed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trims {
    /// With the append of the trim record.
    #[default]
    AtOnce,
    /// With a call of [`settle_trims`](crate::ScriptedUpstream::settle_trims): S2 trims in the background, and what
    /// was trimmed stays visible for a while.
    WhenSettled,
}

/// A batch that has landed, trimmed since or not.
#[derive(Debug, Clone)]
pub struct Landed {
    /// The stream.
    pub key: StreamKey,
    /// Which log of that name: a stream that is created again after it was reaped has another one.
    pub log: u64,
    /// When it landed.
    pub at: Instant,
    /// The records.
    pub records: Vec<Record>,
}

/// The model of a store.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// A log has a number of its own, because a name outlives a stream.
    names: BTreeMap<StreamKey, u64>,
    logs: BTreeMap<u64, Entry>,
    sessions: BTreeMap<u64, Follower>,
    last_id: u64,
    trims: Trims,
    /// While set, no session is connected to anything.
    down: bool,
    woken: Vec<Waker>,
    journal: Option<Vec<Landed>>,
}

#[derive(Debug, Default)]
struct Entry {
    log: StreamLog,
    followers: BTreeSet<u64>,
}

impl Store {
    pub(crate) fn new(trims: Trims, keeps_journal: bool) -> Self {
        Self { trims, journal: keeps_journal.then(Vec::new), ..Self::default() }
    }

    /// Appends. A missing stream is created first, and stays created when a condition then refuses the batch.
    pub(crate) fn append(&mut self, key: &StreamKey, append: Append, now: u64) -> Result<AppendAck, AppendError> {
        admit(&append)?;
        let id = match self.names.get(key) {
            Some(id) => *id,
            None => self.create(key),
        };
        let trims = self.trims;
        let entry = self.entry(id);
        let ack = entry.log.append(append, now)?;
        if trims == Trims::AtOnce {
            entry.log.settle_trims();
        }
        let records = self.journal.is_some().then(|| self.entry(id).log.newest_batch().to_vec());
        if let (Some(journal), Some(records)) = (&mut self.journal, records) {
            journal.push(Landed { key: key.clone(), log: id, at: Instant::now(), records });
        }
        self.wake_followers(id);
        Ok(ack)
    }

    pub(crate) fn read(&self, key: &StreamKey, from: ReadFrom, limit: usize) -> Result<Page, ReadError> {
        let log = self.log(key).ok_or(ReadError::NotFound)?;
        Ok(Page { records: log.page(from, limit) })
    }

    pub(crate) fn tail(&self, key: &StreamKey) -> Result<Position, ReadError> {
        self.log(key).map(StreamLog::tail).ok_or(ReadError::NotFound)
    }

    pub(crate) fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Vec<String> {
        self.names
            .keys()
            .filter(|key| key.project.as_ref() == project && key.stream.starts_with(prefix) && *key.stream > *after)
            .take(limit)
            .map(|key| key.stream.to_string())
            .collect()
    }

    /// Opens a session; its number is what [`poll_session`](Self::poll_session) wants.
    pub(crate) fn open_session(&mut self, key: &StreamKey, seq: u64) -> Result<u64, ReadError> {
        let log = *self.names.get(key).ok_or(ReadError::NotFound)?;
        start_within(seq, &self.entry(log).log)?;
        let id = self.next_id();
        self.sessions.insert(id, Follower::new(key.clone(), log, seq));
        self.entry(log).followers.insert(id);
        Ok(id)
    }

    pub(crate) fn close_session(&mut self, id: u64) {
        self.disconnect(id);
        self.sessions.remove(&id);
    }

    pub(crate) fn poll_session(&mut self, id: u64, cx: &Context<'_>) -> Poll<Yield> {
        let step = self.step(id);
        if step.is_pending() {
            self.session(id).waker = Some(cx.waker().clone());
        }
        step
    }

    /// Ends the sessions of a stream with an error, and says how many.
    pub(crate) fn cut_sessions(&mut self, key: &StreamKey) -> usize {
        self.each_session(key, Follower::cut).len()
    }

    /// Keeps the sessions of a stream from yielding anything but the word that they have lost their connection.
    pub(crate) fn stall_sessions(&mut self, key: &StreamKey) -> usize {
        let ids = self.each_session(key, |follower| follower.stalled = true);
        for id in &ids {
            self.disconnect(*id);
        }
        ids.len()
    }

    /// Lets stalled sessions reconnect.
    pub(crate) fn resume_sessions(&mut self, key: &StreamKey) {
        self.each_session(key, |follower| follower.stalled = false);
    }

    /// Stalls one session from its start.
    pub(crate) fn stall_session(&mut self, id: u64) {
        self.session(id).stalled = true;
        self.disconnect(id);
    }

    pub(crate) fn cut_session(&mut self, id: u64) {
        self.session(id).cut();
    }

    /// Cuts every connection off, which the sessions say, or lets them come back.
    pub(crate) fn set_down(&mut self, down: bool) {
        self.down = down;
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.disconnect(id);
            self.wake(id);
        }
    }

    /// Removes a stream that holds nothing; false where it does not exist or holds records.
    pub(crate) fn reap(&mut self, key: &StreamKey, now: u64) -> bool {
        let Some(id) = self.names.get(key).copied() else { return false };
        if !self.entry(id).log.is_empty() {
            return false;
        }
        self.entry(id).log.reap(now);
        self.names.remove(key);
        self.wake_followers(id);
        if self.entry(id).followers.is_empty() {
            self.logs.remove(&id);
        }
        true
    }

    pub(crate) fn settle_trims(&mut self) {
        for entry in self.logs.values_mut() {
            if !entry.log.is_reaped() {
                entry.log.settle_trims();
            }
        }
    }

    /// How many sessions have something to yield and have not been polled for it.
    pub(crate) fn sessions_behind(&self) -> usize {
        let is_behind = |follower: &&Follower| match follower.log.and_then(|id| self.logs.get(&id)) {
            Some(entry) => follower.has_work(&entry.log),
            None => follower.has_loss_to_tell() || !(self.down || follower.stalled || follower.is_over()),
        };
        self.sessions.values().filter(is_behind).count()
    }

    /// All that has ever landed, in order; nothing where no journal is kept.
    pub(crate) fn journal(&self) -> &[Landed] {
        self.journal.as_deref().unwrap_or_default()
    }

    pub(crate) fn records(&self, key: &StreamKey) -> Vec<Record> {
        self.log(key).map(|log| log.records().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn token(&self, key: &StreamKey) -> Option<String> {
        self.log(key).map(|log| log.token().to_owned())
    }

    /// Whom to wake, once the lock is gone.
    pub(crate) fn take_woken(&mut self) -> Vec<Waker> {
        mem::take(&mut self.woken)
    }

    fn step(&mut self, id: u64) -> Poll<Yield> {
        let follower = self.sessions.get_mut(&id).expect("an open session is in the store");
        if follower.is_over() {
            return follower.step(&StreamLog::default());
        }
        if follower.has_loss_to_tell() || self.down || follower.stalled {
            return follower.step_lost();
        }
        let Some(log) = follower.log.or_else(|| self.names.get(&follower.key).copied()) else {
            return follower.fail(ReadError::NotFound);
        };
        let entry = self.logs.get_mut(&log).expect("a name or a session holds its log");
        if follower.log.is_none() {
            if let Err(error) = follower.reconnect(log, &entry.log) {
                return follower.fail(error);
            }
            entry.followers.insert(id);
        }
        follower.step(&entry.log)
    }

    fn each_session(&mut self, key: &StreamKey, act: impl Fn(&mut Follower)) -> Vec<u64> {
        let ids: Vec<u64> = self.sessions.iter().filter(|(_, f)| f.key == *key).map(|(id, _)| *id).collect();
        for id in &ids {
            act(self.session(*id));
            self.wake(*id);
        }
        ids
    }

    fn disconnect(&mut self, id: u64) {
        let Some(log) = self.session(id).log.take() else { return };
        let entry = self.entry(log);
        entry.followers.remove(&id);
        if entry.log.is_reaped() && entry.followers.is_empty() {
            self.logs.remove(&log);
        }
    }

    fn wake_followers(&mut self, log: u64) {
        let entry = self.logs.get(&log).expect("a changed log is in the store");
        for id in &entry.followers {
            self.woken.extend(self.sessions.get_mut(id).and_then(|follower| follower.waker.take()));
        }
    }

    fn wake(&mut self, id: u64) {
        let waker = self.session(id).waker.take();
        self.woken.extend(waker);
    }

    fn create(&mut self, key: &StreamKey) -> u64 {
        let id = self.next_id();
        self.names.insert(key.clone(), id);
        self.logs.insert(id, Entry::default());
        id
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn log(&self, key: &StreamKey) -> Option<&StreamLog> {
        self.names.get(key).and_then(|id| self.logs.get(id)).map(|entry| &entry.log)
    }

    fn entry(&mut self, id: u64) -> &mut Entry {
        self.logs.get_mut(&id).expect("a name or a session holds its log")
    }

    fn session(&mut self, id: u64) -> &mut Follower {
        self.sessions.get_mut(&id).expect("an open session is in the store")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use tailwater_log::NewRecord;
    use tailwater_upstream::SessionEvent;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        Append(usize),
        Poll,
        Stall,
        Resume,
        Outage(bool),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (1_usize..5).prop_map(Act::Append),
            1 => Just(Act::Append(700)),
            6 => Just(Act::Poll),
            1 => Just(Act::Stall),
            1 => Just(Act::Resume),
            1 => any::<bool>().prop_map(Act::Outage),
        ];
        prop::collection::vec(act, 0..120)
    }

    fn poll(store: &mut Store, id: u64, seen: &mut Vec<u64>) -> bool {
        match store.poll_session(id, &Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(SessionEvent::Records(records)))) => seen.extend(records.iter().map(|r| r.seq)),
            Poll::Ready(Some(Ok(SessionEvent::CaughtUp(tail)))) => assert_eq!(seen.len() as u64, tail.seq),
            Poll::Ready(Some(Ok(SessionEvent::Stalled))) => {}
            Poll::Ready(other) => panic!("a session without faults ended: {other:?}"),
            Poll::Pending => return false,
        }
        true
    }

    proptest! {
        #[test]
        fn a_session_sees_every_record_once_and_in_order_whatever_happens_to_its_connection(acts in acts()) {
            let key = StreamKey::new("p", "s");
            let mut store = Store::new(Trims::AtOnce, false);
            let message = NewRecord::message(Bytes::from_static(b"x"));
            store.append(&key, Append::new(vec![message.clone()]), 0).unwrap();
            let id = store.open_session(&key, 0).unwrap();
            let mut seen = Vec::new();
            for act in acts {
                match act {
                    Act::Append(count) => {
                        store.append(&key, Append::new(vec![message.clone(); count]), 0).unwrap();
                    }
                    Act::Poll => { poll(&mut store, id, &mut seen); }
                    Act::Stall => { store.stall_sessions(&key); }
                    Act::Resume => store.resume_sessions(&key),
                    Act::Outage(down) => store.set_down(down),
                }
            }
            store.resume_sessions(&key);
            store.set_down(false);
            while poll(&mut store, id, &mut seen) {}
            prop_assert_eq!(seen, (0..store.tail(&key).unwrap().seq).collect::<Vec<_>>());
            prop_assert_eq!(store.sessions_behind(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_journal_keeps_what_was_trimmed_and_tells_two_logs_of_one_name_apart() {
        let key = StreamKey::new("p", "s");
        let mut store = Store::new(Trims::AtOnce, true);
        for _ in 0..2 {
            let message = NewRecord::message(Bytes::from_static(b"x"));
            store.append(&key, Append::new(vec![message, NewRecord::trim(u64::MAX)]), 0).unwrap();
            assert!(store.reap(&key, 0));
        }
        let [one, two] = store.journal() else { panic!("two batches have landed") };
        assert_eq!((one.records.len(), two.records.len()), (2, 2));
        assert_eq!((one.records[0].seq, two.records[0].seq), (0, 0));
        assert_ne!(one.log, two.log);
    }

    #[test]
    fn a_session_says_once_that_its_connection_is_lost_if_it_has_said_anything_before() {
        let key = StreamKey::new("p", "s");
        let mut store = Store::new(Trims::AtOnce, false);
        let message = NewRecord::message(Bytes::from_static(b"x"));
        store.append(&key, Append::new(vec![message.clone()]), 0).unwrap();
        let id = store.open_session(&key, 0).unwrap();
        let said = |store: &mut Store| {
            let mut said = Vec::new();
            while let Poll::Ready(Some(Ok(event))) = store.poll_session(id, &Context::from_waker(Waker::noop())) {
                said.push(match event {
                    SessionEvent::Records(records) => records.len().to_string(),
                    SessionEvent::CaughtUp(tail) => format!("tail {}", tail.seq),
                    SessionEvent::Stalled => "stalled".to_owned(),
                });
            }
            said
        };
        store.stall_sessions(&key);
        assert_eq!(said(&mut store), [""; 0]);
        store.resume_sessions(&key);
        assert_eq!(said(&mut store), ["1", "tail 1"]);
        store.set_down(true);
        assert_eq!(store.sessions_behind(), 1);
        assert_eq!(said(&mut store), ["stalled"]);
        assert_eq!(store.sessions_behind(), 0);
        store.append(&key, Append::new(vec![message]), 0).unwrap();
        store.set_down(false);
        assert_eq!(said(&mut store), ["1", "tail 2"]);
        // However short it was: nobody knows what was missed.
        store.stall_sessions(&key);
        store.resume_sessions(&key);
        assert_eq!(said(&mut store), ["stalled", "tail 2"]);
    }

    #[test]
    fn a_reaped_log_goes_with_its_last_session() {
        let key = StreamKey::new("p", "s");
        let mut store = Store::new(Trims::AtOnce, false);
        store.append(&key, Append::new(vec![NewRecord::trim(u64::MAX)]), 0).unwrap();
        let id = store.open_session(&key, 1).unwrap();
        assert!(store.reap(&key, 0));
        assert_eq!(store.logs.len(), 1);
        store.close_session(id);
        assert!(store.logs.is_empty());
    }
}
