//! The way to the store, as one kind of requests takes it: its circuit, and those who wait for that to close.
//!
//! A request that is not to be sent is told so at once, with the time after which another may be; or it waits. Those who
//! wait cost nothing: they are woken when the circuit closes, and only one at a time looks whether a probe is due.

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tailwater_upstream::{StreamKey, Traffic};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    circuit::{Circuit, Phase, Verdict},
    metrics::Meter,
};

/// Over how long those who have waited set out once the store is back.
const SPREAD: Duration = Duration::from_millis(250);
/// A request that is given up after so long, unanswered, has failed. One that is given up sooner proves nothing.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// The way to the store.
pub(crate) struct Way {
    traffic: Traffic,
    circuit: Mutex<Circuit>,
    /// Whether requests are sent, for those who wait.
    passable: watch::Sender<bool>,
    /// Whoever holds it looks whether a probe is due.
    lookout: tokio::sync::Mutex<()>,
    meter: Meter,
}

/// A request that may be sent. What became of it is to be told; one that is dropped without a word was given up.
pub(crate) struct Pass<'w> {
    way: &'w Way,
    /// Which stream it is about.
    stream: u64,
    sent: Instant,
    is_probe: bool,
    is_over: bool,
}

/// A request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spared {
    /// After which time another may be.
    pub(crate) retry_after: Duration,
}

impl Way {
    pub(crate) fn new(traffic: Traffic, meter: Meter) -> Self {
        meter.circuit(traffic, Phase::Closed);
        Self {
            traffic,
            circuit: Mutex::new(Circuit::new()),
            passable: watch::Sender::new(true),
            lookout: tokio::sync::Mutex::new(()),
            meter,
        }
    }

    /// Lets a request about a stream through, or says when to come back.
    pub(crate) fn pass(&self, key: &StreamKey) -> Result<Pass<'_>, Spared> {
        self.try_pass(key).inspect_err(|_| self.meter.spared(self.traffic))
    }

    /// Lets a request about a stream through as soon as one may be sent. Cancel safe.
    pub(crate) async fn admitted(&self, key: &StreamKey) -> Pass<'_> {
        loop {
            match self.try_pass(key) {
                Ok(pass) => return pass,
                Err(_) => self.wait().await,
            }
        }
    }

    /// Waits until a request may be sent, or it is worth a try. Cancel safe.
    async fn wait(&self) {
        if self.due_in().is_zero() {
            return;
        }
        let mut passable = self.passable.subscribe();
        let lookout = async {
            let _turn = self.lookout.lock().await;
            loop {
                let due = self.due_in();
                if due.is_zero() {
                    return;
                }
                sleep(due).await;
            }
        };
        let closes = async {
            // Never closed: `self` holds the sender.
            let _passable = passable.wait_for(|passable| *passable).await.map(|passable| *passable);
        };
        tokio::select! {
            () = closes => {}
            () = lookout => return,
        }
        sleep(SPREAD.mul_f64(rand::random())).await;
    }

    /// Something else has reached the store again: it is time for a probe.
    pub(crate) fn hint(&self) {
        let now = Instant::now();
        self.change(|circuit| circuit.hint(now));
    }

    /// Whether everything is sent.
    pub(crate) fn is_passable(&self) -> bool {
        *self.passable.borrow()
    }

    /// Whether nothing is sent for now.
    pub(crate) fn is_suspended(&self) -> bool {
        !self.is_passable() && !self.due_in().is_zero()
    }

    /// Whether anything was answered since then.
    pub(crate) fn has_answered_since(&self, then: Instant) -> bool {
        self.circuit().answered_at().is_some_and(|answered| answered >= then)
    }

    /// Lets a request through that nobody else waits for, or says when to come back.
    pub(crate) fn try_pass(&self, key: &StreamKey) -> Result<Pass<'_>, Spared> {
        let now = Instant::now();
        let is_probe = match self.change(|circuit| circuit.ask(now)) {
            Verdict::Go => false,
            Verdict::Probe => true,
            Verdict::Wait(retry_after) => return Err(Spared { retry_after }),
        };
        // Which is which matters for the next few requests, and a mistake for none.
        let stream = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        Ok(Pass { way: self, stream, sent: now, is_probe, is_over: false })
    }

    fn due_in(&self) -> Duration {
        self.circuit().due_in(Instant::now())
    }

    fn change<R>(&self, change: impl FnOnce(&mut Circuit) -> R) -> R {
        let mut circuit = self.circuit();
        let before = circuit.phase();
        let result = change(&mut circuit);
        let after = circuit.phase();
        if before != after {
            self.meter.circuit_changed(self.traffic, after);
            // Under the lock, so that the last word is the last one here, too. It only wakes.
            self.passable.send_replace(after != Phase::Open);
            match (before, after) {
                (Phase::Closed, _) => tracing::warn!(traffic = %self.traffic, "the store does not answer"),
                (_, Phase::Closed) => tracing::info!(traffic = %self.traffic, "the store answers again"),
                _ => tracing::debug!(traffic = %self.traffic, ?after, "the store was tried"),
            }
        }
        result
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        // Nothing that runs under the lock can leave it half done.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Whether it is for the one request that finds out about the store.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Tells whether the store has answered, with whatever; whether that means that it is back.
    pub(crate) fn ended(mut self, answered: bool) -> bool {
        self.is_over = true;
        let (now, chance) = (Instant::now(), rand::random());
        self.way.change(|circuit| {
            let was_open = circuit.phase() == Phase::Open;
            match (answered, self.is_probe) {
                (true, _) => circuit.answered(now),
                (false, true) => circuit.probe_failed(now, chance),
                (false, false) => circuit.failed(self.stream, self.sent, now, chance),
            }
            was_open && circuit.phase() != Phase::Open
        })
    }

    fn given_up(&self) {
        let (now, chance) = (Instant::now(), rand::random());
        let was_long = now.saturating_duration_since(self.sent) >= GIVEN_UP;
        self.way.change(|circuit| match (was_long, self.is_probe) {
            (true, true) => circuit.probe_failed(now, chance),
            (true, false) => circuit.failed(self.stream, self.sent, now, chance),
            (false, true) => circuit.probe_abandoned(now),
            (false, false) => {}
        });
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.given_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use prometheus::Registry;
    use tokio::task::JoinSet;

    use super::*;
    use crate::metrics::Metrics;

    fn key(n: usize) -> StreamKey {
        StreamKey::new("project", &n.to_string())
    }

    struct Road {
        way: Arc<Way>,
        registry: Registry,
    }

    impl Road {
        fn new() -> Self {
            let registry = Registry::new();
            let meter = Arc::new(Metrics::register(&registry).unwrap());
            Self { way: Arc::new(Way::new(Traffic::Reads, meter)), registry }
        }

        /// Requests that are sent and not answered, until nothing is sent any more.
        async fn close(&self) {
            for stream in (0..).map(|n| key(n % 10)) {
                let Ok(pass) = self.way.pass(&stream) else { return };
                sleep(Duration::from_millis(100)).await;
                pass.ended(false);
            }
        }

        fn value(&self, name: &str) -> f64 {
            let families = self.registry.gather();
            let family = families.iter().find(|family| family.name() == name);
            let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
            metrics.iter().map(|metric| metric.get_counter().value() + metric.get_gauge().value()).sum()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_left_alone_and_asked_again_by_one_alone() {
        let road = Road::new();
        road.close().await;
        assert!(road.way.is_suspended());
        assert_eq!(road.value("tailwater_upstream_circuit"), 2.0);
        let spared = road.way.pass(&key(0)).err().unwrap();
        sleep(spared.retry_after).await;
        assert!(!road.way.is_suspended(), "it is worth a try");
        let probe = road.way.pass(&key(0)).ok().unwrap();
        assert!(road.way.pass(&key(1)).is_err(), "one at a time");
        assert!(probe.ended(true), "it is back");
        road.way.pass(&key(1)).ok().unwrap().ended(true);
        assert_eq!(road.value("tailwater_upstream_circuit"), 0.0);
        assert_eq!(road.value("tailwater_upstream_circuit_changes_total"), 3.0);
        assert!(road.value("tailwater_upstream_spared_total") >= 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_given_up_has_failed_if_it_was_long_under_way() {
        let road = Road::new();
        for _ in 0..100 {
            drop(road.way.pass(&key(0)));
        }
        assert!(!road.way.is_suspended(), "whoever asked may have had reasons of its own");
        let passes: Vec<_> = (0..5).map(|n| road.way.pass(&key(n)).ok().unwrap()).collect();
        sleep(GIVEN_UP).await;
        drop(passes);
        assert!(road.way.is_suspended());

        sleep(Duration::from_secs(1)).await;
        drop(road.way.pass(&key(0)).ok().unwrap());
        assert!(!road.way.is_suspended(), "a probe that was given up leaves its place to another");
        let probe = road.way.pass(&key(0)).ok().unwrap();
        sleep(GIVEN_UP).await;
        drop(probe);
        assert!(road.way.is_suspended());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_wait_send_one_probe_at_a_time_and_set_out_together_when_it_is_answered() {
        let road = Road::new();
        road.close().await;
        let (probes, store) = (Arc::new(Mutex::new(0_u32)), watch::Sender::new(false));
        let mut waiting = JoinSet::new();
        for n in 0..1000 {
            let (way, probes, back) = (Arc::clone(&road.way), Arc::clone(&probes), store.subscribe());
            waiting.spawn(async move {
                loop {
                    let pass = way.admitted(&key(n)).await;
                    let is_back = *back.borrow();
                    if !is_back {
                        *probes.lock().unwrap() += 1;
                        sleep(Duration::from_millis(10)).await;
                    }
                    pass.ended(is_back);
                    if is_back {
                        return Instant::now();
                    }
                }
            });
        }
        let away = Duration::from_secs(60);
        sleep(away).await;
        let sent = *probes.lock().unwrap();
        assert!((50..=140).contains(&sent), "one or two a second: {sent}");
        let returned = Instant::now();
        store.send_replace(true);
        while let Some(through) = waiting.join_next().await {
            let took = through.unwrap() - returned;
            assert!(took <= Duration::from_millis(1500), "{took:?}");
        }
        assert_eq!(road.way.wait().now_or_never(), Some(()), "nobody waits any more");
    }
}
