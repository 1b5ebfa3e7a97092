//! Where the process spends its time and its memory, over some seconds: `GET /debug/profile?seconds=N`, at the listener
//! for operations alone.
//!
//! It shows which threads are busy, by name, as the kernel counts (`/proc/self/task/*/schedstat`, nanoseconds), what the
//! kernel says of memory (`/proc/self/status`), and what the runtime has to do. Functions are `perf`'s to show, from
//! outside: nothing in here interrupts a thread (ADR 17).
//!
//! One is made at a time. It is for the operator; where nobody is, for whoever reaches a listener on loopback, and
//! otherwise it does not exist.

use std::{collections::BTreeMap, fs, io, time::Duration};

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tailwater_auth::{Refusal, TokenError};
use tokio::{
    runtime::Handle,
    sync::TryAcquireError,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{admin::said, app::App, drain::Draining, problem::Problem, request::Fields};

/// How long it takes, where nobody says.
const SECONDS: u64 = 5;
/// The longest.
const MAX_SECONDS: u64 = 60;
/// What is shown of `/proc/self/status`.
const MEMORY: [(&str, &str); 5] = [
    ("VmRSS", "resident"),
    ("VmHWM", "residentAtMost"),
    ("RssAnon", "anonymous"),
    ("RssFile", "mapped"),
    ("VmSwap", "swapped"),
];

/// What the threads of one name have taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    threads: usize,
    cpu: Duration,
}

/// `/debug/profile`.
pub(crate) async fn profile(State(app): State<App>, request: Request) -> Response {
    match made(&app, request.headers(), request.uri().query()).await {
        Ok(profile) => said(StatusCode::OK, &profile),
        Err(problem) => problem.into_response(),
    }
}

async fn made(app: &App, headers: &HeaderMap, query: Option<&str>) -> Result<Value, Problem> {
    allow(app, headers)?;
    let seconds = seconds(query).ok_or_else(Problem::invalid_seconds)?;
    let _turn = match app.profiles.try_acquire() {
        Ok(turn) => turn,
        // It is never closed.
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => return Err(Problem::profile_under_way()),
    };
    let (began, before) = (Instant::now(), look().await?);
    tokio::select! {
        () = sleep(Duration::from_secs(seconds)) => {}
        // The end of the process does not wait for this.
        () = app.drain.comes_to(0.0) => return Err(Draining.into()),
    }
    let (elapsed, after) = (began.elapsed(), look().await?);
    let status = spawn_blocking(|| fs::read_to_string("/proc/self/status")).await.map_err(io::Error::other).flatten();
    let status = status.map_err(|error| Problem::profile_failed(&error))?;
    let runtime = Handle::current().metrics();
    Ok(json!({
        "seconds": elapsed.as_secs_f64(),
        "threads": busy(&before, &after),
        "memory": memory(&status),
        "runtime": {
            "workers": runtime.num_workers(),
            "tasks": runtime.num_alive_tasks(),
            "queued": runtime.global_queue_depth(),
        },
    }))
}

/// Who may see it.
fn allow(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    match &app.config.operator {
        None if app.config.open_profiles => Ok(()),
        None => Err(Problem::not_found()),
        Some(operator) => {
            let token = Fields(headers).bearer()?.ok_or(Refusal::NoToken)?;
            if operator.is(token) { Ok(()) } else { Err(Refusal::Token(TokenError::Unverified).into()) }
        }
    }
}

/// How long, between a second and the longest.
pub(crate) fn seconds(query: Option<&str>) -> Option<u64> {
    let mut given = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("seconds="));
    match (given.next(), given.next()) {
        (None, _) => Some(SECONDS),
        (Some(seconds), None) => seconds.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds)),
        (Some(_), Some(_)) => None,
    }
}

/// What the threads have taken so far, by their names.
async fn look() -> Result<BTreeMap<String, Taken>, Problem> {
    let taken = spawn_blocking(threads).await.map_err(io::Error::other).flatten();
    taken.map_err(|error| Problem::profile_failed(&error))
}

fn threads() -> io::Result<BTreeMap<String, Taken>> {
    let mut taken = BTreeMap::<String, Taken>::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        // One that has ended meanwhile is left out.
        let (Ok(name), Ok(stat)) =
            (fs::read_to_string(thread.join("comm")), fs::read_to_string(thread.join("schedstat")))
        else {
            continue;
        };
        let nanoseconds = stat.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default();
        let of_name = taken.entry(name.trim_end().to_owned()).or_default();
        of_name.threads += 1;
        of_name.cpu += Duration::from_nanos(nanoseconds);
    }
    Ok(taken)
}

/// What was taken meanwhile, the busiest first.
fn busy(before: &BTreeMap<String, Taken>, after: &BTreeMap<String, Taken>) -> Value {
    let mut busy: Vec<_> = after
        .iter()
        .map(|(name, now)| {
            let until_then = before.get(name).copied().unwrap_or_default();
            // Threads that have ended take along what they had taken.
            (now.cpu.saturating_sub(until_then.cpu), name, now.threads)
        })
        .collect();
    busy.sort_by(|a, b| b.cmp(a));
    let shown = |(cpu, name, threads): (Duration, &String, usize)| json!({ "name": name, "threads": threads, "cpuMs": cpu.as_secs_f64() * 1e3 });
    busy.into_iter().map(shown).collect()
}

/// Bytes, by what they are.
fn memory(status: &str) -> Value {
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let shown = |(name, shown): (&str, &str)| Some((shown.to_owned(), json!(kibibytes(name)? * 1024)));
    Value::Object(MEMORY.into_iter().filter_map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_as_long_as_was_asked_for_within_bounds() {
        let table = [
            (None, Some(5)),
            (Some(""), Some(5)),
            (Some("a=b"), Some(5)),
            (Some("seconds=1"), Some(1)),
            (Some("a=b&seconds=60"), Some(60)),
            (Some("seconds=0"), None),
            (Some("seconds=61"), None),
            (Some("seconds=-1"), None),
            (Some("seconds="), None),
            (Some("seconds=1&seconds=1"), None),
            (Some("seconds=18446744073709551616"), None),
        ];
        for (query, wanted) in table {
            assert_eq!(seconds(query), wanted, "{query:?}");
        }
    }

    #[test]
    fn threads_of_one_name_are_counted_together_and_the_busiest_come_first() {
        let taken = |threads, millis| Taken { threads, cpu: Duration::from_millis(millis) };
        let map = |rows: &[(&str, Taken)]| rows.iter().map(|(name, taken)| ((*name).to_owned(), *taken)).collect();
        let before = map(&[("a", taken(2, 10)), ("b", taken(1, 10)), ("gone", taken(1, 5))]);
        let after = map(&[("a", taken(1, 7)), ("b", taken(1, 30)), ("new", taken(1, 1))]);
        assert_eq!(
            busy(&before, &after),
            json!([
                { "name": "b", "threads": 1, "cpuMs": 20.0 },
                { "name": "new", "threads": 1, "cpuMs": 1.0 },
                { "name": "a", "threads": 1, "cpuMs": 0.0 },
            ])
        );
    }

    #[test]
    fn this_process_has_threads_that_have_taken_time() {
        let spin = std::hint::black_box((0..3_000_000_u64).fold(0, |sum, n| sum ^ std::hint::black_box(n)));
        let threads = threads().unwrap();
        assert!(threads.values().map(|taken| taken.threads).sum::<usize>() >= 1, "{spin}");
        assert!(threads.values().any(|taken| taken.cpu > Duration::ZERO), "{threads:?}");
    }

    #[test]
    fn memory_is_what_the_kernel_says_of_it_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nVmSwap:\t junk\nThreads:\t3\n";
        assert_eq!(memory(status), json!({ "resident": 1_048_576, "residentAtMost": 2_097_152 }));
    }
}
