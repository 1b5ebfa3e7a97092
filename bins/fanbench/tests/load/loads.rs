//! Every load against the floor, where every check holds and every figure adds up.

use std::{
    fs, hint,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    floor::Floor,
    metrics, run,
    scripted::{Fault, Scripted},
};

/// What makes a run short.
const SHORT: [&str; 4] = ["--duration", "600ms", "--warmup", "200ms"];

#[test]
fn a_run_delivers_every_message_to_every_reader_and_measures_it() {
    let floor = Floor::start(&[]);
    let flags = ["--adapter", "floor", "--readers", "50", "--rate", "50", "--after", "0s", "--pid", &floor.pid()];
    let outcome = run("run", &floor.url, &[&flags[..], &SHORT].concat()).expect_ok();
    let sent = outcome.number("/appends/sent");
    // 50 a second for 0.8 s.
    assert_eq!((sent, outcome.number("/appends/acked")), (40.0, 40.0));
    assert_eq!(outcome.number("/deliveries/total"), sent * 50.0);
    assert_eq!(outcome.number("/deliveries/measured"), 30.0 * 50.0);
    assert_eq!(outcome.number("/appends/latency/count"), 30.0);
    assert_eq!(outcome.number("/deliveries/publish_to_receive/count"), 1500.0);
    assert_eq!(outcome.number("/deliveries/ack_to_receive/count"), 1500.0);
    assert_eq!(outcome.number("/deliveries/last_reader/count"), 30.0);
    assert_eq!(outcome.number("/connect/latency/count"), 50.0);
    let p50 = outcome.number("/deliveries/publish_to_receive/p50_us");
    assert!(p50 > 0.0 && p50 <= outcome.number("/deliveries/last_reader/p50_us"));
    assert!(outcome.number("/cpu/client_us_per_delivery") > 0.0);
    let looks: Vec<&str> = outcome.report["memory"]
        .as_array()
        .expect("the memory was looked at")
        .iter()
        .filter_map(|look| look["at"].as_str())
        .collect();
    assert_eq!(looks, ["start", "readers", "connected", "end", "left"]);
    assert_eq!(outcome.number("/memory/1/readers"), 50.0);
    assert!(outcome.number("/memory/4/rss_anon") > 0.0);
}

/// CPU that this process has used, in milliseconds; proc(5), fields 14 and 15 of stat.
fn own_cpu_ms() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("the kernel shows this process");
    let fields = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace().skip(11);
    // All systems that matter count in hundredths of a second.
    fields.take(2).map(|ticks| ticks.parse::<f64>().expect("a number") * 10.0).sum()
}

#[test]
fn the_servers_cpu_is_that_of_its_processes_while_it_is_measured() {
    let url = Scripted::start(Fault::Nothing, 1_000_000);
    // What was used before is not to count.
    while own_cpu_ms() < 1_000.0 {}
    let (before, done) = (own_cpu_ms(), AtomicBool::new(false));
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                hint::spin_loop();
            }
        });
        let pid = std::process::id().to_string();
        let outcome = run(
            "run",
            &url,
            &[&["--readers", "2", "--rate", "50", "--after", "0s", "--pid", &pid], &SHORT[..]].concat(),
        );
        done.store(true, Ordering::Relaxed);
        outcome.expect_ok()
    });
    let (server, spent) = (outcome.number("/cpu/server_ms"), own_cpu_ms() - before);
    // A thread that never sleeps uses more than a tenth of a core, even where others want it too.
    assert!(server > 60.0 && server < spent, "{server} of {spent} ms: {outcome}");
    let each = outcome.number("/cpu/server_us_per_delivery") * outcome.number("/cpu/deliveries");
    assert!((each - server * 1000.0).abs() < 1.0, "{outcome}");
}

#[test]
fn long_polls_deliver_the_same_as_events() {
    let floor = Floor::start(&[]);
    let flags = ["--mode", "long-poll", "--readers", "20", "--rate", "50", "--streams", "2"];
    let outcome = run("run", &floor.url, &[&flags[..], &SHORT].concat()).expect_ok();
    assert_eq!(outcome.number("/appends/sent"), 80.0);
    assert_eq!(outcome.number("/deliveries/total"), 80.0 * 10.0);
}

#[test]
fn readers_that_leave_and_come_back_miss_nothing() {
    let floor = Floor::start(&[]);
    for mode in ["sse", "long-poll"] {
        let flags = ["--mode", mode, "--readers", "20", "--rate", "100", "--leave-rate", "100"];
        let outcome = run("run", &floor.url, &[&flags[..], &SHORT].concat()).expect_ok();
        assert!(outcome.number("/churned") >= 30.0, "{outcome}");
        assert_eq!(outcome.number("/deliveries/total"), outcome.number("/appends/sent") * 20.0);
    }
}

#[test]
fn readers_from_the_start_and_replayers_get_what_was_there_before() {
    let floor = Floor::start(&[]);
    for events in [&[][..], &["--replay-events"]] {
        let flags =
            ["--from", "start", "--preload", "300KiB", "--preload-size", "1KiB", "--readers", "5", "--replayers", "4"];
        let outcome = run("run", &floor.url, &[&flags[..], &SHORT, events].concat()).expect_ok();
        assert_eq!((outcome.number("/replays/finished"), outcome.number("/replays/time/count")), (4.0, 4.0));
        assert!(outcome.number("/replays/bytes") >= 4.0 * 300.0 * 1024.0);
    }
}

#[test]
fn stallers_are_told_to_be_cut_or_not() {
    let floor = Floor::start(&[]);
    let open = run("run", &floor.url, &[&["--readers", "1", "--stallers", "2"][..], &SHORT].concat()).expect_ok();
    assert_eq!(open.report["stallers"][1]["server_end_open"], true);
    // More than any socket takes unread, so the floor drops them at the next message.
    let flags = ["--readers", "1", "--stallers", "2", "--preload", "24MiB", "--preload-size", "64KiB"];
    let cut = run("run", &floor.url, &[&flags[..], &SHORT].concat()).expect_ok();
    assert_eq!(cut.report["stallers"].as_array().map(Vec::len), Some(2));
    assert_eq!(cut.report["stallers"][0]["server_end_open"], false, "{cut}");
}

#[test]
fn the_servers_own_count_of_stallers_is_read_before_they_come_and_after() {
    let floor = Floor::start(&[]);
    let pages =
        ["ends_total{reason=\"left\"} 5\nends_total{reason=\"stalled\"} 3\n", "ends_total{reason=\"stalled\"} 23\n"];
    let url = metrics::start(&pages);
    let flags = ["--readers", "1", "--stallers", "2", "--metrics", &url];
    let counters = ["--counter", "ends_total{reason=\"stalled\"}", "--counter", "ends_total{reason=\"left\"}"];
    let outcome = run("run", &floor.url, &[&flags[..], &counters, &SHORT].concat()).expect_ok();
    let expected = serde_json::json!([
        {"series": "ends_total{reason=\"stalled\"}", "before": 3.0, "after": 23.0},
        {"series": "ends_total{reason=\"left\"}", "before": 5.0, "after": null},
    ]);
    assert_eq!(outcome.report["counters"], expected, "{outcome}");
    assert!(outcome.stdout.contains("ends_total{reason=\"stalled\"} from 3 to 23"), "{outcome}");
}

#[test]
fn without_the_metrics_that_were_asked_for_there_is_no_run() {
    let floor = Floor::start(&[]);
    for url in
        [metrics::start(&["ends 1\n"]).replace("/metrics", "/elsewhere"), "http://127.0.0.1:1/metrics".to_owned()]
    {
        let outcome = run("run", &floor.url, &[&["--metrics", &url, "--counter", "ends"][..], &SHORT].concat());
        assert_eq!(outcome.code, Some(2), "{outcome}");
        assert!(outcome.stderr.contains("no metrics at"), "{outcome}");
    }
}

#[test]
fn a_storm_brings_every_reader_back_where_it_was() {
    let floor = Floor::start(&[]);
    let flags =
        ["--readers", "200", "--rate", "50", "--storms", "2", "--gap", "200ms", "--source", "127.0.0.2-127.0.0.4"];
    let outcome = run("storm", &floor.url, &flags).expect_ok();
    for storm in ["/storms/0", "/storms/1"] {
        assert_eq!(outcome.number(&format!("{storm}/back/count")), 200.0);
        assert!(outcome.number(&format!("{storm}/all_back_ms")) < 10_000.0);
    }
    assert_eq!(outcome.number("/deliveries/total"), outcome.number("/appends/sent") * 200.0);
}

#[test]
fn a_replay_reads_everything_by_pages_and_by_events() {
    let floor = Floor::start(&[]);
    for events in [&[][..], &["--replay-events"]] {
        let outcome =
            run("replay", &floor.url, &[&["--clients", "5", "--preload", "3MiB"][..], events].concat()).expect_ok();
        assert_eq!(outcome.number("/replays/finished"), 5.0);
        assert!(outcome.number("/replays/bytes") >= 5.0 * 3.0 * 1024.0 * 1024.0);
        assert!(outcome.number("/replays/mib_per_second") > 0.0);
    }
}

#[test]
fn memory_is_a_slope_between_steps() {
    let floor = Floor::start(&[]);
    let flags = ["--steps", "50,300", "--rest", "50ms", "--after", "50ms", "--pid", &floor.pid()];
    let outcome = run("memory", &floor.url, &flags).expect_ok();
    assert_eq!((outcome.number("/slope/from"), outcome.number("/slope/to")), (50.0, 300.0));
    // A floor keeps a few hundred bytes of a connection, and has no more than it began with after all have left.
    assert!(outcome.number("/slope/bytes_per_reader") < 10_000.0, "{outcome}");
    assert!(outcome.number("/slope/after_ratio") < 2.0, "{outcome}");
    assert_eq!(outcome.number("/memory/2/readers"), 300.0);
}

#[test]
fn a_scenario_is_a_command_line_in_a_file() {
    let floor = Floor::start(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("small.toml");
    fs::write(&path, "command = \"run\"\nreaders = 3\nrate = 20\nduration = \"300ms\"\nwarmup = \"0s\"\n")
        .expect("written");
    let scenario = path.to_str().expect("a text");
    let outcome = run("run", &floor.url, &["--scenario", scenario, "--readers", "4"]).expect_ok();
    assert_eq!(outcome.number("/settings/readers"), 4.0);
    assert_eq!(outcome.number("/deliveries/total"), 4.0 * 6.0);
    fs::write(&path, "reader = 3\n").expect("written");
    assert_eq!(run("run", &floor.url, &["--scenario", scenario]).code, Some(2));
}
