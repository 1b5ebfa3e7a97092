//! The line of progress, which people look at while a run lasts.

use crate::{
    Outcome, run,
    scripted::{Fault, Scripted},
};

/// Ten messages to three readers, and time for two lines behind them.
fn lines(fault: Fault, rotate_after: usize, flags: &[&str]) -> (Outcome, Vec<String>) {
    let url = Scripted::start(fault, rotate_after);
    let load = ["--readers", "3", "--rate", "50", "--duration", "200ms", "--warmup", "0s", "--settle", "2500ms"];
    let outcome = run("run", &url, &[&load[..], flags].concat());
    let lines = outcome.stderr.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    (outcome, lines)
}

#[test]
fn a_line_a_second_tells_how_far_the_run_is() {
    // The last message does not come, so the run waits for it with everything else done.
    let (outcome, lines) = lines(Fault::Withhold(9), 6, &[]);
    let [first, second] = &lines[..] else { panic!("two lines: {outcome}") };
    let p50 = outcome.number("/deliveries/publish_to_receive/p50_us") / 1000.0;
    let line = |seconds: u32, more: u32| {
        format!(
            "{seconds} s readers 3 sent 10 acked 10 late {} delivered 27 (+{more}) p50 {p50:.1} ms rotated 3 refused 0 failures 0",
            outcome.number("/appends/late")
        )
    };
    assert_eq!((first, second), (&line(1, 27), &line(2, 0)), "{outcome}");
}

#[test]
fn what_goes_wrong_shows_in_the_line() {
    let (_, refused) = lines(Fault::RefuseReads(2), 1_000_000, &["--allow-refusals", "--duration", "1200ms"]);
    assert!(refused[0].contains(" refused 2 failures 0"), "{refused:?}");
    let (_, failed) = lines(Fault::Gap(4), 1_000_000, &["--duration", "1200ms"]);
    assert!(failed[0].starts_with("1 s readers 0 ") && failed[0].ends_with(" refused 0 failures 3"), "{failed:?}");
}
