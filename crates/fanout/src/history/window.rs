//! Windows: how much a reader that is behind takes at a time, and all of them together.
//!
//! Who replays is given a window of history after the other. The bytes of a window are counted from before it is read
//! until the reader asks for the next one, which it does when it has got rid of them. All windows share one budget;
//! where it is used up readers wait for each other, in the order in which they came, and nobody fails.

use std::{future::poll_fn, sync::Arc};

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// The unit in which the budget is handed out, in bytes.
const UNIT: usize = 1024;

/// The budget of all windows; a cheap clone.
#[derive(Clone)]
pub(crate) struct Windows {
    budget: Arc<Semaphore>,
    /// All there is, in units.
    total: u32,
    /// What a window takes at first, in units.
    one: u32,
    gauge: IntGauge,
}

/// A reader's claim on the budget.
pub(crate) struct Window {
    windows: Windows,
    /// Keeps the reader's place among those who wait, also where its wait is given up and begun anew.
    queue: PollSemaphore,
    held: Option<OwnedSemaphorePermit>,
}

impl Windows {
    /// A budget of so many bytes for windows of about `window` bytes. There is always room for one.
    pub(crate) fn new(budget: usize, window: usize, gauge: IntGauge) -> Self {
        let one = units(window);
        let total = units(budget).max(one);
        Self { budget: Arc::new(Semaphore::new(total as usize)), total, one, gauge }
    }

    /// A claim that holds nothing yet.
    pub(crate) fn claim(&self) -> Window {
        Window { windows: self.clone(), queue: PollSemaphore::new(Arc::clone(&self.budget)), held: None }
    }
}

impl Window {
    /// Waits for as much as a window takes, or `bytes` where that is more. Cancel safe. What was held before is given
    /// back first: whoever held one part and waited for another could wait for somebody who does the same.
    pub(crate) async fn open(&mut self, bytes: usize) {
        self.close();
        let wanted = units(bytes).clamp(self.windows.one, self.windows.total);
        let permit = poll_fn(|cx| self.queue.poll_acquire_many(cx, wanted)).await;
        self.hold(permit);
    }

    /// Whether what is held is enough for so many bytes, or is all there is. What is too much is given back.
    pub(crate) fn fits(&mut self, bytes: usize) -> bool {
        let needed = units(bytes).min(self.windows.total);
        let Some(mut held) = self.take() else { return false };
        let too_much = held.num_permits().saturating_sub(needed as usize);
        drop(held.split(too_much));
        let fits = held.num_permits() >= needed as usize;
        self.hold(Some(held));
        fits
    }

    /// Gives back what is held.
    pub(crate) fn close(&mut self) {
        drop(self.take());
    }

    fn hold(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.windows.gauge.add(bytes_of(permit.as_ref()));
        self.held = permit;
    }

    fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        self.windows.gauge.sub(bytes_of(self.held.as_ref()));
        self.held.take()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.close();
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

fn bytes_of(permit: Option<&OwnedSemaphorePermit>) -> i64 {
    permit.map_or(0, |permit| i64::try_from(permit.num_permits() * UNIT).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const KIB: usize = 1024;

    fn windows(budget: usize, window: usize) -> Windows {
        Windows::new(budget, window, IntGauge::new("g", "h").unwrap())
    }

    #[tokio::test]
    async fn a_window_waits_for_room_and_gives_it_back_when_it_is_closed_or_dropped() {
        let windows = windows(8 * KIB, 4 * KIB);
        let (mut a, mut b, mut c) = (windows.claim(), windows.claim(), windows.claim());
        a.open(0).await;
        b.open(0).await;
        assert_eq!(windows.gauge.get(), 8 * 1024);
        assert!(c.open(0).now_or_never().is_none());
        a.close();
        assert!(c.open(0).now_or_never().is_some());
        drop((b, c));
        assert_eq!((windows.gauge.get(), windows.budget.available_permits()), (0, 8));
    }

    #[tokio::test]
    async fn what_is_not_needed_goes_back_at_once() {
        let windows = windows(8 * KIB, 4 * KIB);
        let mut window = windows.claim();
        window.open(0).await;
        assert!(window.fits(1));
        assert_eq!((windows.gauge.get(), windows.budget.available_permits()), (1024, 7));
        assert!(!window.fits(2 * KIB));
        window.open(2 * KIB).await;
        assert!(window.fits(2 * KIB));
    }

    #[tokio::test]
    async fn what_is_larger_than_all_there_is_has_it_alone() {
        let windows = windows(8 * KIB, 4 * KIB);
        let (mut large, mut small) = (windows.claim(), windows.claim());
        large.open(100 * KIB).await;
        assert!(large.fits(100 * KIB));
        assert!(small.open(0).now_or_never().is_none());
        large.close();
        assert!(small.open(0).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_and_begins_anew_keeps_its_place() {
        let windows = windows(4 * KIB, 4 * KIB);
        let (mut holder, mut first, mut second) = (windows.claim(), windows.claim(), windows.claim());
        holder.open(0).await;
        assert!(first.open(0).now_or_never().is_none());
        assert!(second.open(0).now_or_never().is_none());
        assert!(first.open(0).now_or_never().is_none());
        holder.close();
        assert!(second.open(0).now_or_never().is_none());
        assert!(first.open(0).now_or_never().is_some());
    }
}
