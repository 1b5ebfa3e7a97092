//! Appends go first: what is read of the past waits while something is being written.
//!
//! A chunk of history is some milliseconds of work for a store, and nobody waits for it at a fixed time; everybody who
//! follows a stream waits for its next append. A store that is asked for a long history chunk after chunk does little
//! else meanwhile, and its acks come late. So a read of history begins when no append of this process is under way. It
//! waits for [`PATIENCE`] at most: those who write all the time slow down whoever catches up, and never keep them out.

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
const PATIENCE: Duration = Duration::from_millis(20);

/// An upstream that knows how many appends are under way.
pub(crate) struct AppendsFirst {
    upstream: Arc<dyn Upstream>,
    under_way: AtomicUsize,
    none: Notify,
}

/// An append that is.
struct UnderWay<'a>(&'a AppendsFirst);

impl AppendsFirst {
    pub(crate) fn new(upstream: Arc<dyn Upstream>) -> Self {
        Self { upstream, under_way: AtomicUsize::new(0), none: Notify::new() }
    }

    /// Waits until no append is under way, but not for long. Cancel safe.
    pub(crate) async fn give_way(&self) {
        let none = async {
            loop {
                // Registered before the count is looked at, so that what ends in between is not missed.
                let mut none = pin!(self.none.notified());
                none.as_mut().enable();
                if self.under_way.load(Ordering::Acquire) == 0 {
                    return;
                }
                none.await;
            }
        };
        // Either way it is the reader's turn now.
        let _ = timeout(PATIENCE, none).await;
    }

    fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(self)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[async_trait]
impl Upstream for AppendsFirst {
    async fn append(&self, key: &StreamKey, append: Append) -> Result<AppendAck, AppendError> {
        let _under_way = self.begin();
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
        assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_that_is_given_up_is_waited_for_no_more() {
        let (_, upstream, gate) = world();
        let given_up = timeout(Duration::from_secs(1), append(&upstream));
        let ((), given_up) = tokio::join!(gate.arrived(), given_up);
        assert!(given_up.is_err());
        assert!(upstream.give_way().now_or_never().is_some());
    }
}
