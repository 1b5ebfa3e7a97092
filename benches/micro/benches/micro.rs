//! All operations by the clock: `cargo bench -p tailwater-micro`, with a part of a name to run only some.
//!
//! An operation is called through a pointer, which adds about a nanosecond to each.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use tailwater_micro::{Work, operations};

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for operation in operations() {
        let mut group = criterion.benchmark_group(operation.group);
        group.throughput(match operation.work {
            Work::Elements(count) => Throughput::Elements(count),
            Work::Bytes(count) => Throughput::Bytes(count),
        });
        group.bench_function(operation.name, |bencher| {
            let mut run = (operation.prepare)();
            bencher.iter(&mut run);
        });
        group.finish();
    }
    criterion.final_summary();
}
