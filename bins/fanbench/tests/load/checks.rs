//! Every check, where it fails.

use crate::{
    Outcome, run,
    scripted::{Fault, Scripted},
};

/// A run of 20 messages to three readers.
fn short_run(fault: Fault, rotate_after: usize, flags: &[&str]) -> Outcome {
    let url = Scripted::start(fault, rotate_after);
    let short = ["--readers", "3", "--rate", "50", "--duration", "400ms", "--warmup", "0s"];
    run("run", &url, &[&short[..], flags].concat())
}

/// What is not there soon will not come.
const SOON: [&str; 2] = ["--settle", "500ms"];
const LONG_POLL: [&str; 2] = ["--mode", "long-poll"];
/// More messages than a response of events has in any test.
const NEVER: usize = 1_000_000;

#[test]
fn a_server_that_does_right_passes_in_both_modes_and_across_rotations() {
    for flags in [&[][..], &LONG_POLL] {
        let outcome = short_run(Fault::Nothing, NEVER, flags).expect_ok();
        assert_eq!(outcome.number("/deliveries/total"), 60.0);
        assert_eq!(outcome.number("/rotations"), 0.0);
    }
    let outcome = short_run(Fault::Nothing, 6, &[]).expect_ok();
    assert_eq!(outcome.number("/deliveries/total"), 60.0);
    // Three responses of six messages each were ended, for each reader.
    assert_eq!(outcome.number("/rotations"), 9.0);
}

#[test]
fn a_writer_whose_idle_connection_was_closed_makes_another() {
    assert_eq!(short_run(Fault::CloseIdle, NEVER, &[]).expect_ok().number("/deliveries/total"), 60.0);
    let url = Scripted::start(Fault::CloseIdle, NEVER);
    let pid = std::process::id().to_string();
    let times = ["--rest", "100ms", "--after", "100ms", "--warm", "2"];
    run("memory", &url, &[&["--steps", "2,4", "--pid", &pid], &times[..]].concat()).expect_ok();
}

#[test]
fn a_gap_fails_the_run_and_says_who_expected_what() {
    for flags in [&[][..], &LONG_POLL] {
        let outcome = short_run(Fault::Gap(4), NEVER, flags);
        outcome.expect_failure("of stream 0: gap: expected message 4, got 5");
        outcome.expect_failure("reader 2 ");
    }
}

#[test]
fn a_repeat_fails_the_run() {
    for flags in [&[][..], &LONG_POLL] {
        short_run(Fault::Repeat(4), NEVER, flags).expect_failure("repeat: expected message 5, got 4");
    }
}

#[test]
fn a_message_in_the_place_of_a_later_one_fails_the_run() {
    short_run(Fault::Stale(4), NEVER, &[]).expect_failure("repeat: expected message 4, got 3");
}

#[test]
fn a_changed_byte_and_a_changed_time_fail_the_run() {
    short_run(Fault::Alter(7), NEVER, &[]).expect_failure("foreign bytes: expected message 7");
    short_run(Fault::Retime(7), NEVER, &[]).expect_failure("foreign bytes: expected message 7");
}

#[test]
fn a_last_message_that_does_not_come_fails_the_run() {
    short_run(Fault::Withhold(19), NEVER, &SOON).expect_failure("missing at the end: expected 20 messages, got 19");
}

#[test]
fn a_gap_or_a_repeat_across_a_reconnect_fails_the_run() {
    short_run(Fault::SkipOnReturn, 6, &[]).expect_failure("gap: expected message 6, got 7");
    short_run(Fault::RepeatOnReturn, 6, &[]).expect_failure("repeat: expected message 6, got 5");
    let url = Scripted::start(Fault::SkipOnReturn, NEVER);
    let storm = run("storm", &url, &["--readers", "3", "--rate", "50", "--gap", "300ms", "--settle", "500ms"]);
    storm.expect_failure("gap: expected message");
}

#[test]
fn an_append_that_is_refused_or_not_answered_fails_the_run() {
    let outcome = short_run(Fault::RefuseAppend(5), NEVER, &[]);
    outcome.expect_failure("appending message 5 to stream 0 was answered 500");
    let outcome = short_run(Fault::IgnoreAppend(5), NEVER, &SOON);
    outcome.expect_failure("not every append was answered in time");
    assert_eq!(outcome.number("/appends/acked"), 5.0);
}

#[test]
fn refusals_fail_the_run_unless_they_are_allowed() {
    let refused = short_run(Fault::RefuseReads(2), NEVER, &[]);
    refused.expect_failure("2 reads were refused");
    assert_eq!(refused.number("/refusals/503"), 2.0);
    let allowed = short_run(Fault::RefuseReads(2), NEVER, &["--allow-refusals"]).expect_ok();
    assert_eq!(allowed.number("/refusals/503"), 2.0);
}

#[test]
fn connections_that_fail_fail_the_run_unless_they_are_allowed() {
    let failed = short_run(Fault::DropReads(2), NEVER, &[]);
    failed.expect_failure("2 connections failed");
    let allowed = short_run(Fault::DropReads(2), NEVER, &["--allow-refusals"]).expect_ok();
    assert_eq!(allowed.number("/connect_errors"), 2.0);
}

#[test]
fn readers_without_an_answer_fail_the_run() {
    let flags = ["--connect-timeout", "300ms"];
    short_run(Fault::IgnoreReads, NEVER, &flags).expect_failure("3 connections had no answer in time");
    let url = Scripted::start(Fault::IgnoreReturns, NEVER);
    let storm = run("storm", &url, &[&["--readers", "3", "--gap", "0s", "--settle", "100ms"][..], &flags].concat());
    storm.expect_failure("3 of 3 readers were not back in time after a storm");
    assert!(storm.report["storms"][0]["all_back_ms"].is_null());
}

#[test]
fn a_storm_over_readers_that_have_had_nothing_is_none() {
    let url = Scripted::start(Fault::Withhold(0), NEVER);
    let storm = run("storm", &url, &["--readers", "3", "--connect-timeout", "300ms", "--settle", "100ms"]);
    storm.expect_failure("not every reader had a message before the storm");
    assert_eq!(storm.report["storms"], serde_json::json!([]));
}

#[test]
fn readers_stay_away_for_as_long_as_they_are_told() {
    let outcome = short_run(Fault::LongRetry, 6, &[]).expect_ok();
    // Of what was sent in the meantime, the first message waited longest.
    assert!(outcome.number("/deliveries/publish_to_receive/max_us") > 200_000.0, "{outcome}");
    let prompt = short_run(Fault::Nothing, 6, &[]).expect_ok();
    assert!(prompt.number("/deliveries/publish_to_receive/p50_us") < 200_000.0, "{prompt}");
}

#[test]
fn a_replay_that_lacks_messages_fails() {
    let flags = ["--clients", "2", "--preload", "20KiB"];
    run("replay", &Scripted::start(Fault::Nothing, NEVER), &flags).expect_ok();
    let false_tail = run("replay", &Scripted::start(Fault::FalseTail, NEVER), &flags);
    false_tail.expect_failure("up to date after 40 of 103 messages");
    let short = run("replay", &Scripted::start(Fault::ShortPage, NEVER), &flags);
    short.expect_failure("gap: expected message 39, got 40");
    let altered = run("replay", &Scripted::start(Fault::Alter(50), NEVER), &flags);
    altered.expect_failure("replayer 1 of stream 0: foreign bytes: expected message 50");
    let retimed = run("replay", &Scripted::start(Fault::Retime(50), NEVER), &flags);
    retimed.expect_failure("foreign bytes: expected message 50");
    let events = [&flags[..], &["--replay-events", "--replay-timeout", "1s"]].concat();
    let late = run("replay", &Scripted::start(Fault::Withhold(102), NEVER), &events);
    late.expect_failure("was not done in time: it had 102 messages");
}

#[test]
fn a_server_that_is_not_there_is_no_run() {
    let outcome = run("run", "http://127.0.0.1:1/x", &["--readers", "1"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("the streams could not be made"), "{outcome}");
    assert!(outcome.report.is_null());
}

#[test]
fn what_an_adapter_cannot_do_is_said() {
    for adapter in ["nchan", "s2"] {
        let outcome = run("run", "http://127.0.0.1:1", &["--adapter", adapter, "--mode", "long-poll"]);
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains("reads Server-Sent Events only"), "{outcome}");
    }
}
