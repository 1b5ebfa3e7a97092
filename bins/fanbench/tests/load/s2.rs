//! The load against S2 itself, as s2-lite has it.

use tailwater_s2::{EmbeddedStore, EmbeddedStoreConfig, Endpoint, Storage};
use tokio::runtime::Runtime;

use crate::{Outcome, run};

/// A store in memory that ends with its test.
struct Store {
    runtime: Runtime,
    embedded: Option<EmbeddedStore>,
    url: String,
}

impl Store {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime starts");
        let config = EmbeddedStoreConfig::new(Storage::Memory);
        let embedded = runtime.block_on(EmbeddedStore::start(config)).expect("a store in memory starts");
        let Endpoint::Url(url) = embedded.endpoint() else { panic!("an embedded store has a url") };
        Self { runtime, embedded: Some(embedded), url }
    }

    fn run(&self, command: &str, flags: &[&str]) -> Outcome {
        let token = self.embedded.as_ref().expect("it has started").token().reveal();
        run(command, &self.url, &[&["--adapter", "s2", "--token", token], flags].concat())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let embedded = self.embedded.take().expect("it has started");
        // What it holds goes with it.
        drop(self.runtime.block_on(embedded.shutdown()));
    }
}

#[test]
fn readers_of_s2_receive_every_message_and_go_on_at_their_sequence_number() {
    let store = Store::start();
    let flags = ["--readers", "4", "--streams", "2", "--rate", "20", "--duration", "600ms", "--warmup", "0s"];
    let steady = store.run("run", &flags).expect_ok();
    assert_eq!(steady.number("/deliveries/total"), 2.0 * 24.0);
    let storm = store.run("storm", &["--readers", "6", "--rate", "50", "--gap", "300ms"]).expect_ok();
    assert_eq!(storm.number("/storms/0/back/count"), 6.0);
    assert_eq!(storm.number("/deliveries/total"), storm.number("/appends/sent") * 6.0);
}

#[test]
fn a_history_at_s2_is_read_as_events_from_its_first_record() {
    let flags = ["--clients", "3", "--preload", "300KiB", "--preload-size", "1KiB", "--replay-events"];
    let outcome = Store::start().run("replay", &flags).expect_ok();
    assert_eq!(outcome.number("/replays/finished"), 3.0);
    assert!(outcome.number("/replays/bytes") >= 3.0 * 300.0 * 1024.0);
}
