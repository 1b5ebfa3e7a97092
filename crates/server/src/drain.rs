//! The end of live responses when the process ends.
//!
//! A process that is told to stop reports unready first. For a moment that is all, so that whoever spreads the load can
//! notice and send nobody here who would be refused. Then it takes no new live readers, and ends those that it has, each at
//! a moment of its own within what is left of the drain window, so that the processes that take over do not meet them all
//! at once. What is not live is served as ever, but on connections that take no further request: whoever comes again comes
//! to another process.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Shared by all live responses; a cheap clone.
#[derive(Debug, Clone)]
pub struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    window: Duration,
    notice: Duration,
    announced_at: OnceLock<Instant>,
    began_at: OnceLock<Instant>,
    begun: CancellationToken,
    hurried: CancellationToken,
    live: TaskTracker,
}

/// A live response's place in the drain.
#[derive(Debug)]
pub(crate) struct Turn {
    drain: Drain,
    /// Where in the window it ends, from 0 to 1.
    share: f64,
    _alive: TaskTrackerToken,
}

/// The gateway takes no new live readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway is shutting down")]
pub struct Draining;

impl Drain {
    /// A drain that spreads the ends of live responses over `window`, behind a `notice` of at most a quarter of it.
    #[must_use]
    pub fn new(window: Duration, notice: Duration) -> Self {
        Self(Arc::new(Shared {
            window,
            notice: notice.min(window / 4),
            announced_at: OnceLock::new(),
            began_at: OnceLock::new(),
            begun: CancellationToken::new(),
            hurried: CancellationToken::new(),
            live: TaskTracker::new(),
        }))
    }

    /// Says that it is about to begin; it begins with [`begin`](Self::begin), which is to come after the notice.
    pub(crate) fn announce(&self) {
        self.0.announced_at.get_or_init(Instant::now);
    }

    /// How long after the announcement it is to begin.
    pub(crate) fn notice(&self) -> Duration {
        self.0.notice
    }

    /// Whether it has begun or is about to.
    pub(crate) fn is_announced(&self) -> bool {
        self.0.announced_at.get().is_some()
    }

    /// Begins. What begins twice goes on.
    pub fn begin(&self) {
        self.announce();
        self.0.began_at.get_or_init(Instant::now);
        self.0.begun.cancel();
    }

    /// Ends all live responses now.
    pub fn hurry(&self) {
        self.begin();
        self.0.hurried.cancel();
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.begun.is_cancelled()
    }

    /// Waits until no live response is left, or the window is over.
    pub async fn ended(&self) {
        self.0.begun.cancelled().await;
        self.0.live.close();
        tokio::select! {
            () = self.0.live.wait() => {}
            () = sleep_until(self.at(1.0)) => {}
        }
    }

    /// Waits until it has begun and this share of the window is over, or nobody wants to wait any more. Cancel safe.
    pub(crate) async fn comes_to(&self, share: f64) {
        self.0.begun.cancelled().await;
        tokio::select! {
            () = sleep_until(self.at(share)) => {}
            () = self.0.hurried.cancelled() => {}
        }
    }

    /// Waits until no live response is left.
    pub(crate) async fn left(&self) {
        self.0.live.wait().await;
    }

    /// How much of the window is left.
    pub(crate) fn left_of_window(&self) -> Duration {
        self.at(1.0).saturating_duration_since(Instant::now())
    }

    /// Lets a live response in. `share` is where in the window it is to end.
    pub(crate) fn enter(&self, share: f64) -> Result<Turn, Draining> {
        if self.has_begun() {
            return Err(Draining);
        }
        Ok(Turn { drain: self.clone(), share, _alive: self.0.live.token() })
    }

    fn at(&self, share: f64) -> Instant {
        let began = *self.0.began_at.get_or_init(Instant::now);
        let announced = *self.0.announced_at.get_or_init(|| began);
        let whole = (announced + self.0.window).saturating_duration_since(began);
        began + whole.mul_f64(share)
    }
}

impl Turn {
    /// Waits until the response has to end. Cancel safe.
    pub(crate) async fn comes(&self) {
        self.drain.comes_to(self.share).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);
    const NOTICE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn live_responses_end_where_in_the_window_their_share_says() {
        let drain = Drain::new(WINDOW, NOTICE);
        let turns = [0.0, 0.5, 0.9].map(|share| drain.enter(share).unwrap());
        let began = Instant::now();
        drain.begin();
        for (turn, seconds) in turns.into_iter().zip([0, 5, 9]) {
            turn.comes().await;
            assert_eq!(began.elapsed().as_secs(), seconds);
        }
        drain.ended().await;
        assert_eq!(began.elapsed().as_secs(), 9, "it does not wait for a window in which nobody is left");
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_drain_lets_everybody_in_and_is_over_with_the_same_window() {
        let drain = Drain::new(WINDOW, NOTICE);
        assert_eq!(Drain::new(NOTICE, NOTICE).notice(), NOTICE / 4, "there is time left for what it is about");
        drain.announce();
        assert!(drain.is_announced() && !drain.has_begun());
        let turns = [0.0, 0.5].map(|share| drain.enter(share).unwrap());
        let began = Instant::now();
        tokio::time::sleep(drain.notice()).await;
        drain.begin();
        assert_eq!(drain.left_of_window(), WINDOW - NOTICE);
        for (turn, millis) in turns.iter().zip([1000, 5500]) {
            turn.comes().await;
            assert_eq!(began.elapsed().as_millis(), millis);
        }
        drain.ended().await;
        assert_eq!(began.elapsed(), WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_its_window_whoever_stays() {
        let drain = Drain::new(WINDOW, NOTICE);
        let _stays = drain.enter(0.5).unwrap();
        let began = Instant::now();
        drain.begin();
        drain.ended().await;
        assert_eq!(began.elapsed(), WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_enters_once_it_has_begun_and_a_hurried_one_ends_at_once() {
        let drain = Drain::new(WINDOW, NOTICE);
        let turn = drain.enter(0.9).unwrap();
        drain.hurry();
        assert_eq!(drain.enter(0.1).unwrap_err(), Draining);
        let began = Instant::now();
        turn.comes().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
