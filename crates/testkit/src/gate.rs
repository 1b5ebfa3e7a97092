//! A place where operations wait until the test lets them go.

use std::sync::Arc;

use tokio::sync::watch;

/// A barrier between a test and the operations that it holds up. Clones are the same gate.
///
/// The test puts the gate into a fault, waits until an operation [has arrived](Self::arrived), does what must happen
/// meanwhile, and [opens](Self::open) it. An opened gate stays open.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    arrived: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner { arrived: watch::Sender::new(0), open: watch::Sender::new(false) }))
    }

    /// Waits until an operation has arrived at the gate.
    pub async fn arrived(&self) {
        self.arrivals(1).await;
    }

    /// Waits until `count` operations have arrived since the gate was made, those that gave up included.
    pub async fn arrivals(&self, count: usize) {
        let mut arrived = self.0.arrived.subscribe();
        arrived.wait_for(|so_far| *so_far >= count).await.expect("the gate holds the sender");
    }

    /// Lets go of everything that waits and of everything that will arrive.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Arrives, and waits until the gate is open. Cancel safe: one that gives up counts as arrived.
    pub(crate) async fn pass(&self) {
        self.0.arrived.send_modify(|so_far| *so_far += 1);
        let mut open = self.0.open.subscribe();
        open.wait_for(|open| *open).await.expect("the gate holds the sender");
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join3};

    use super::*;

    #[tokio::test]
    async fn an_operation_waits_at_the_gate_until_it_is_opened() {
        let gate = Gate::new();
        assert!(gate.arrived().now_or_never().is_none(), "nobody has arrived");
        let (.., left_waiting) = join3(gate.pass(), gate.pass(), async {
            gate.arrivals(2).await;
            let third_has_arrived = gate.arrivals(3).now_or_never().is_some();
            gate.open();
            third_has_arrived
        })
        .await;
        assert!(!left_waiting);
        assert!(gate.pass().now_or_never().is_some(), "an opened gate stays open");
    }
}
