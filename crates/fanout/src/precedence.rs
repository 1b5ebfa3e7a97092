//! What is live goes first: what is read of the past gives way to it.
//!
//! Nobody waits for the past at a fixed time; everybody who follows a stream waits for its next message. So whatever serves
//! the past asks, piece by piece, whether something that goes first is [under way](Precedence), and waits until it is not.
//! It waits for a limited time only: what goes first all the time slows down whoever catches up, and never keeps them out.
//!
//! Appends go before chunks of history ([`AppendsFirst`]). A chunk is some milliseconds of work for a store, and one that
//! is asked for chunk after chunk does little else meanwhile, so that its acks come late. And live deliveries go before what
//! is sent to those who are behind, where they need all cores.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tailwater_upstream::{
    Append, AppendAck, AppendError, Page, Position, ReadError, ReadFrom, ReadSession, StreamKey, Traffic, Upstream,
};
use tokio::{sync::Notify, time::timeout};

/// For how long a read of history gives way to appends, however many there are: a few times what an append takes.
const BEHIND_APPENDS: Duration = Duration::from_millis(20);
/// For how long a part of an answer about the past gives way to live deliveries, however many there are: about what ten
/// thousand of them take.
const BEHIND_DELIVERIES: Duration = Duration::from_millis(50);

/// How much of what goes first is under way, for those who give way to it.
#[derive(Debug)]
pub struct Precedence {
    under_way: AtomicUsize,
    /// So much of it leaves no room for others.
    full: usize,
    patience: Duration,
    has_room: Notify,
}

/// An upstream that knows how many appends are under way.
pub(crate) struct AppendsFirst {
    upstream: Arc<dyn Upstream>,
    appends: Precedence,
}

/// Something that goes first and is under way, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct UnderWay<'a>(&'a Precedence);

impl Precedence {
    fn new(full: usize, patience: Duration) -> Self {
        Self { under_way: AtomicUsize::new(0), full: full.max(1), patience, has_room: Notify::new() }
    }

    /// That of live deliveries on a machine with so many cores: once as many shards deliver, whatever else runs takes time
    /// from one of them.
    #[must_use]
    pub fn of_deliveries(cores: usize) -> Self {
        Self::new(cores, BEHIND_DELIVERIES)
    }

    /// Whether there is no room beside what goes first.
    pub fn is_full(&self) -> bool {
        self.under_way.load(Ordering::Acquire) >= self.full
    }

    /// Waits until there is room beside what goes first, but not for long. Cancel safe.
    pub async fn give_way(&self) {
        if !self.is_full() {
            return;
        }
        let room = async {
            loop {
                // Registered before the count is looked at, so that what ends in between is not missed.
                let mut room = pin!(self.has_room.notified());
                room.as_mut().enable();
                if !self.is_full() {
                    return;
                }
                room.await;
            }
        };
        // Either way it is the reader's turn now.
        let _ = timeout(self.patience, room).await;
    }

    /// Begins something that goes first.
    pub fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(self)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == self.0.full {
            self.0.has_room.notify_waiters();
        }
    }
}

impl AppendsFirst {
    pub(crate) fn new(upstream: Arc<dyn Upstream>) -> Self {
        Self { upstream, appends: Precedence::new(1, BEHIND_APPENDS) }
    }

    /// Waits until no append is under way, but not for long. Cancel safe.
    pub(crate) async fn give_way(&self) {
        self.appends.give_way().await;
    }
}

#[async_trait]
impl Upstream for AppendsFirst {
    async fn append(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        let _under_way = self.appends.begin();
        self.upstream.append(key, append).await
    }

    async fn read(&self, key: &StreamKey, from: ReadFrom, limit: usize) -> Result<Page, ReadError> {
        self.upstream.read(key, from, limit).await
    }

    async fn check_tail(&self, key: &StreamKey) -> Result<Position, ReadError> {
        self.upstream.check_tail(key).await
    }

    async fn read_session(&self, key: &StreamKey, seq: u64) -> Result<ReadSession, ReadError> {
        self.upstream.read_session(key, seq).await
    }

    async fn list(&self, project: &str, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ReadError> {
        self.upstream.list(project, prefix, after, limit).await
    }

    async fn ready(&self, within: Duration) -> Result<(), ReadError> {
        self.upstream.ready(within).await
    }

    async fn reachable(&self, key: &StreamKey) {
        self.upstream.reachable(key).await;
    }

    fn is_suspended(&self, traffic: Traffic) -> bool {
        self.upstream.is_suspended(traffic)
    }

    fn single_owner(&self) -> bool {
        self.upstream.single_owner()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use tailwater_log::NewRecord;
    use tailwater_testkit::{
        Gate, ScriptedUpstream, Settings,
        fault::{AppendFault, Pause},
    };
    use tokio::time::Instant;

    use super::*;

    fn world() -> (ScriptedUpstream, Arc<AppendsFirst>, Gate) {
        let store = ScriptedUpstream::new(Settings::default());
        let gate = Gate::new();
        store.faults().next_append(AppendFault::PauseAfter(Pause::At(gate.clone())));
        (store.clone(), Arc::new(AppendsFirst::new(Arc::new(store))), gate)
    }

    async fn append(upstream: &AppendsFirst) {
        let batch = Append::new(vec![NewRecord::message(Bytes::from_static(b"a"))]);
        upstream.append(&StreamKey::new("p", "s"), batch).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_where_nothing_is_written() {
        let (_, upstream, _) = world();
        assert!(upstream.give_way().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_of_history_waits_for_the_append_under_way_and_no_longer() {
        let (_, upstream, gate) = world();
        let began = Instant::now();
        let read = async {
            gate.arrived().await;
            assert!(upstream.give_way().now_or_never().is_none());
            let ((), ()) = tokio::join!(upstream.give_way(), async { gate.open() });
        };
        tokio::join!(append(&upstream), read);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(upstream.give_way().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_writes_all_the_time_keeps_nobody_out() {
        let (_, upstream, gate) = world();
        let began = Instant::now();
        let read = async {
            gate.arrived().await;
            upstream.give_way().await;
            let waited = began.elapsed();
            gate.open();
            waited
        };
        let ((), waited) = tokio::join!(append(&upstream), read);
        assert!((BEHIND_APPENDS..BEHIND_APPENDS * 2).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_that_is_given_up_is_waited_for_no_more() {
        let (_, upstream, gate) = world();
        let given_up = timeout(Duration::from_secs(1), append(&upstream));
        let ((), given_up) = tokio::join!(gate.arrived(), given_up);
        assert!(given_up.is_err());
        assert!(upstream.give_way().now_or_never().is_some());
    }

    #[test]
    fn deliveries_leave_room_until_there_are_as_many_as_cores() {
        let deliveries = Precedence::of_deliveries(2);
        let one = deliveries.begin();
        assert!(!deliveries.is_full());
        assert!(deliveries.give_way().now_or_never().is_some());
        let another = deliveries.begin();
        assert!(deliveries.is_full());
        drop(one);
        assert!(!deliveries.is_full());
        drop(another);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_way_goes_on_when_one_of_several_deliveries_ends() {
        let deliveries = Precedence::of_deliveries(2);
        let (one, _another) = (deliveries.begin(), deliveries.begin());
        let began = Instant::now();
        tokio::join!(deliveries.give_way(), async { drop(one) });
        assert_eq!(began.elapsed(), Duration::ZERO);
        let _third = deliveries.begin();
        deliveries.give_way().await;
        assert!((BEHIND_DELIVERIES..BEHIND_DELIVERIES * 2).contains(&began.elapsed()));
    }
}
