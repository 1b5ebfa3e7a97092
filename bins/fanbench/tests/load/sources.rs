//! Where a server sees its readers come from.

use std::collections::BTreeMap;

use crate::{
    run,
    scripted::{Fault, Scripted},
};

/// How many reads came from each address.
fn reads_by_address(command: &str, flags: &[&str]) -> BTreeMap<String, usize> {
    let (url, server) = Scripted::start_watched(Fault::Nothing, 1_000_000);
    run(command, &url, &[&["--rate", "20"], flags].concat()).expect_ok();
    let mut reads = BTreeMap::new();
    for reader in server.readers() {
        *reads.entry(reader.ip().to_string()).or_insert(0) += 1;
    }
    reads
}

fn counted(reads: &[(&str, usize)]) -> BTreeMap<String, usize> {
    reads.iter().map(|(address, count)| ((*address).to_owned(), *count)).collect()
}

#[test]
fn readers_connect_from_the_addresses_they_are_given_in_turns() {
    let short = ["--duration", "200ms", "--warmup", "0s", "--readers", "5"];
    let reads = |flags: &[&str]| reads_by_address("run", &[&short, flags].concat());
    let range = reads(&["--source", "127.0.0.7-127.0.0.9"]);
    assert_eq!(range, counted(&[("127.0.0.7", 2), ("127.0.0.8", 2), ("127.0.0.9", 1)]));
    assert_eq!(reads(&["--source", "127.0.0.5"]), counted(&[("127.0.0.5", 5)]));
    assert_eq!(reads(&[]), counted(&[("127.0.0.1", 5)]));
}

#[test]
fn readers_come_back_from_where_they_came() {
    let flags = ["--readers", "3", "--storms", "2", "--gap", "200ms", "--source", "127.0.0.6-127.0.0.7"];
    // Each is there three times: two readers of the one address, one of the other.
    assert_eq!(reads_by_address("storm", &flags), counted(&[("127.0.0.6", 6), ("127.0.0.7", 3)]));
}
