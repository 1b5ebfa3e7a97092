//! The command line, and scenario files, which are command lines written down.
//!
//! A scenario's keys are the names of flags. They are put before the flags that were typed, so that those win, and so
//! that there is one parser with one set of names, defaults and errors.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use serde::{Serialize, Serializer};

use crate::adapter::{Adapter, From, Mode};

/// What `--help` says of the output.
const OUTPUT: &str = "\
Output: a line of progress each second on stderr, a table on stdout, and with --json everything as one JSON object:
  command, version, settings, ok, failures_total,
    failures[]                                            what was run, and whether every check held
  connect {all_ms, latency}                               until all readers had an answer; for each connection
  refusals {status: count}, connect_errors                answers that were not a success; connections that failed
  listen_overflows                                        connections that found the listener's queue full (machine-wide)
  rotations, cut, churned                                 responses that the server ended properly; that broke off;
                                                          readers that left by --leave-rate
  appends {sent, acked, late, latency}                    late: sent more than 1 ms after it was due
  deliveries {total, measured, per_second, before_ack,
    publish_to_receive, ack_to_receive,                   from due time, and from the ack's arrival, to each reader
    last_reader, ack_to_last_reader}                      the same to the last reader of each message
  cpu {window_ms, deliveries, server_ms, client_ms,
    server_us_per_delivery, client_us_per_delivery}       over the measured window; server: the processes of --pid
  memory [{at, readers, rss_anon, anonymous, sockets,
    processes[]}]                                         bytes; at start, readers (stallers still to come),
                                                          connected, end, left, or after a step
  stallers [{index, closed_after_ms, server_end_open}]    when the server ended a connection that nobody reads, as far as
                                                          the kernel shows it
  counters [{series, before, after}]                      of --counter: when the readers had joined and no staller had, and
                                                          when the readers leave; null: the server shows no such series
  replays {clients, finished, bytes, elapsed_ms,
    mib_per_second, time}                                 readers from the first message to the tail
  storms [{readers, all_back_ms, back}]                   from the reset to each reader's next event or answer
  slope {from, to, bytes_per_reader, kernel_bytes_per_reader, after_ratio}
Latencies are {count, mean_us, p50_us, p90_us, p99_us, p999_us, max_us}. before_ack counts deliveries that were read
before the ack was; they are 0 in ack_to_receive.

Checks: every reader compares every byte of every message, and their numbers must be an unbroken sequence from the
first message on, across reconnects. A gap, a repeat, a foreign byte, a missing message at the end, a failed append, or
a refusal (unless --allow-refusals) makes the run fail. Exit code: 0 when every check held, 1 when one did not, 2 when
the run could not be made.

Settings can stand in a file (--scenario) as TOML with the names of the flags: `readers = 5000`, `duration = \"30s\"`,
`pid = [12, 13]`. Flags that are typed win. A key `command` says which command the file is for.";

/// Load for servers that fan streams out: many readers, open-loop writers, every message checked
#[derive(Debug, Parser)]
#[command(name = "fanbench", version, after_long_help = OUTPUT, args_override_self = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be the floor server: one thread, one write per reader and message; prints `listening on ADDR` first
    Floor(FloorArgs),
    /// Readers that follow streams while writers append on a fixed schedule
    #[command(after_long_help = OUTPUT)]
    Run(RunArgs),
    /// Readers that are all reset at once and come back at once, at their offsets
    #[command(after_long_help = OUTPUT)]
    Storm(StormArgs),
    /// Clients that all read a stream from its first message to its tail
    #[command(after_long_help = OUTPUT)]
    Replay(ReplayArgs),
    /// The server's memory per idle reader, as the slope between steps of readers
    #[command(after_long_help = OUTPUT)]
    Memory(MemoryArgs),
}

/// The floor server.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// The most that is kept of each stream
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) history: ByteSize,
    /// Stay on this core
    #[arg(long, value_name = "CORE")]
    pub(crate) pin: Option<usize>,
}

/// What all loads have in common.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct LoadArgs {
    /// What stands before the names of streams, such as http://127.0.0.1:4437/v1/stream/bench; for nchan and s2 the root
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
    /// The kind of server
    #[arg(long, value_enum, default_value = "durable-streams")]
    pub(crate) adapter: Adapter,
    /// How readers follow their streams
    #[arg(long, value_enum, default_value = "sse")]
    pub(crate) mode: Mode,
    /// Streams; readers and messages go round robin over them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) streams: u32,
    /// The size of a message, at least 96 bytes
    #[arg(long, value_name = "SIZE", default_value = "200", value_parser = message_size)]
    #[serde(serialize_with = "in_bytes")]
    pub(crate) size: ByteSize,
    /// The server's processes, whose CPU and memory count; repeat it
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// Stay on this core
    #[arg(long, value_name = "CORE")]
    pub(crate) pin: Option<usize>,
    /// Addresses that readers connect from in turns: one, or a range such as 127.0.0.2-127.0.0.9
    #[arg(long, value_name = "ADDRS", value_parser = sources)]
    pub(crate) source: Option<Sources>,
    /// Connections that are begun at the same time, until they have an answer
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) connect_window: usize,
    /// How long all readers may take to connect
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) connect_timeout: Duration,
    /// How long the last message may take to every reader before it counts as missing
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) settle: Duration,
    /// How long a reader waits before it reconnects when the server has not said so with `retry:`
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) retry: Duration,
    /// The most connections for appends; each stream keeps to one of them
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) writers: usize,
    /// Do not fail because of refusals and failed connections; they are reported all the same
    #[arg(long)]
    pub(crate) allow_refusals: bool,
    /// What the names of this run's streams begin with, instead of something new
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// S2's basin; it is made if it is not there
    #[arg(long, value_name = "NAME", default_value = "fanbench-basin")]
    pub(crate) basin: String,
    /// A bearer token for every request
    #[arg(long, value_name = "TOKEN")]
    #[serde(skip)]
    pub(crate) token: Option<String>,
    /// Write everything that was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Take settings from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
}

/// What is in the streams before the load begins.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct PreloadArgs {
    /// What each stream holds before the load begins
    #[arg(long, value_name = "SIZE", default_value = "0")]
    #[serde(serialize_with = "in_bytes")]
    pub(crate) preload: ByteSize,
    /// The size of its messages; the same as --size if not given
    #[arg(long, value_name = "SIZE", value_parser = message_size)]
    #[serde(serialize_with = "maybe_in_bytes")]
    pub(crate) preload_size: Option<ByteSize>,
}

/// Readers that follow streams.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct FollowArgs {
    /// Readers
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) readers: usize,
    /// Where readers begin
    #[arg(long, value_enum, default_value = "now")]
    pub(crate) from: From,
    /// Messages a second, to each stream
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = rate)]
    pub(crate) rate: f64,
}

/// A steady load.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) preload: PreloadArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) follow: FollowArgs,
    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) duration: Duration,
    /// How long the load runs before anything is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) warmup: Duration,
    /// Connections that ask for events from the first message on, and never read
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) stallers: usize,
    /// How much a staller's side receives unread; the kernel doubles it
    #[arg(long, value_name = "SIZE", default_value = "16KiB")]
    #[serde(serialize_with = "in_bytes")]
    pub(crate) staller_buffer: ByteSize,
    /// Where the server shows metrics as text, in Prometheus' format
    #[arg(long, value_name = "URL", requires = "counter")]
    pub(crate) metrics: Option<String>,
    /// A counter there to report, as it is written there, such as ends_total{reason="stalled"}; repeat it
    #[arg(long, value_name = "SERIES", requires = "metrics")]
    pub(crate) counter: Vec<String>,
    /// Clients that read their stream from the first message to the tail, when the measured time begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) replayers: usize,
    /// Replayers ask for events instead of pages
    #[arg(long)]
    pub(crate) replay_events: bool,
    /// How long a replayer may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) replay_timeout: Duration,
    /// Readers a second that leave and come back at once, at their offset
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = rate)]
    pub(crate) leave_rate: f64,
    /// How long after all readers have left the server's memory is looked at
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) after: Duration,
}

/// A storm of reconnects.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) preload: PreloadArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) follow: FollowArgs,
    /// Storms, one after the other
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) storms: usize,
    /// How long readers are left alone after a storm
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) gap: Duration,
}

/// A replay by many.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: LoadArgs,
    /// Clients; they all begin at once
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) clients: usize,
    /// What each stream holds
    #[arg(long, value_name = "SIZE", default_value = "20MiB")]
    #[serde(serialize_with = "in_bytes")]
    pub(crate) preload: ByteSize,
    /// The size of its messages; the same as --size if not given
    #[arg(long, value_name = "SIZE", value_parser = message_size)]
    #[serde(serialize_with = "maybe_in_bytes")]
    pub(crate) preload_size: Option<ByteSize>,
    /// Ask for events instead of pages
    #[arg(long)]
    pub(crate) replay_events: bool,
    /// How long all may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) replay_timeout: Duration,
}

/// Memory per reader.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct MemoryArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: LoadArgs,
    /// How many readers there are at each step
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1000,10000")]
    pub(crate) steps: Vec<usize>,
    /// How many readers come and go before the memory is looked at for the start: what a server makes once, on its first
    /// readers, is not what it keeps of those who left
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) warm: usize,
    /// How long after a step's last message the memory is looked at
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) rest: Duration,
    /// How long after all readers have left it is looked at again
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "in_words")]
    pub(crate) after: Duration,
}

/// Addresses to connect from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Sources(pub(crate) Vec<IpAddr>);

/// The arguments of this process, with those of the scenario they name.
pub(crate) fn read(arguments: impl Iterator<Item = OsString>) -> Result<Arguments> {
    let arguments: Vec<OsString> = arguments.collect();
    let Some(path) = scenario_path(&arguments) else { return Ok(Arguments::parse_from(arguments)) };
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read the scenario {}", path.display()))?;
    let command = arguments.get(1).and_then(|command| command.to_str()).unwrap_or_default();
    let mut flags = flags_of(&text, command).with_context(|| format!("in the scenario {}", path.display()))?;
    let typed: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    // Flags that can be repeated would add up instead of being replaced.
    let replaced = |flag: &String| {
        ["--pid", "--steps", "--counter"].iter().any(|name| flag.starts_with(name) && is_typed(&typed, name))
    };
    flags.retain(|flag| !replaced(flag));
    let (head, tail) = arguments.split_at(arguments.len().min(2));
    let all = head.iter().cloned().chain(flags.into_iter().map(OsString::from)).chain(tail.iter().cloned());
    Ok(Arguments::parse_from(all))
}

fn is_typed(arguments: &[&str], name: &str) -> bool {
    arguments.iter().any(|argument| argument.split('=').next() == Some(name))
}

fn scenario_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--scenario" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--scenario=")) {
            return Some(Path::new(OsStr::new(path)).to_owned());
        }
    }
    None
}

/// The flags that a scenario's text stands for.
fn flags_of(text: &str, command: &str) -> Result<Vec<String>> {
    let table: toml::Table = text.parse()?;
    let mut flags = Vec::new();
    for (key, value) in table {
        let mut add = |value: &toml::Value| -> Result<()> {
            match value {
                toml::Value::String(text) => flags.push(format!("--{key}={text}")),
                toml::Value::Integer(number) => flags.push(format!("--{key}={number}")),
                toml::Value::Float(number) => flags.push(format!("--{key}={number}")),
                toml::Value::Boolean(true) => flags.push(format!("--{key}")),
                toml::Value::Boolean(false) => {}
                toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                    bail!("`{key}` is neither a text, a number, nor a list of them")
                }
            }
            Ok(())
        };
        if key == "command" {
            if value.as_str() != Some(command) {
                bail!("it is for `fanbench {}`, not for `fanbench {command}`", value.as_str().unwrap_or("?"));
            }
        } else if let Some(values) = value.as_array() {
            values.iter().try_for_each(add)?;
        } else {
            add(&value)?;
        }
    }
    Ok(flags)
}

fn message_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    let fits = (crate::message::MIN_SIZE as u64..=1 << 20).contains(&size.as_u64());
    if fits { Ok(size) } else { Err(format!("a message has {} bytes to 1 MiB", crate::message::MIN_SIZE)) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1e6).contains(&rate) { Ok(rate) } else { Err("a rate is between 0 and a million".to_owned()) }
}

fn sources(text: &str) -> Result<Sources, String> {
    let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| format!("{text} is not an address"));
    let Some((first, last)) = text.split_once('-') else { return Ok(Sources(vec![address(text)?])) };
    match (address(first)?, address(last)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last && last.to_bits() - first.to_bits() < 65_536 => {
            Ok(Sources((first.to_bits()..=last.to_bits()).map(|bits| IpAddr::V4(bits.into())).collect()))
        }
        _ => Err("a range goes from one IPv4 address to a later one, over 65,536 at most".to_owned()),
    }
}

fn in_words<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*time))
}

fn in_bytes<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(size.as_u64())
}

fn maybe_in_bytes<S: Serializer>(size: &Option<ByteSize>, serializer: S) -> Result<S::Ok, S::Error> {
    size.map(|size| size.as_u64()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(arguments: &[&str]) -> Arguments {
        read(arguments.iter().map(OsString::from)).expect("the arguments are right")
    }

    fn run_args(arguments: Arguments) -> RunArgs {
        match arguments.command {
            Command::Run(run) => run,
            Command::Floor(_) | Command::Storm(_) | Command::Replay(_) | Command::Memory(_) => {
                panic!("another command")
            }
        }
    }

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn typed_flags_win_over_the_scenario_which_wins_over_defaults() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.toml");
        let text = "command = \"run\"\nurl = \"http://h\"\nreaders = 7\nrate = 2.5\npid = [1, 2]\nallow-refusals = true\n\
            duration = \"3s\"\n";
        fs::write(&path, text).expect("written");
        let path = path.to_str().expect("a text");
        let run = run_args(parse(&["fanbench", "run", "--scenario", path, "--rate", "4", "--duration=1s"]));
        assert_eq!((run.follow.readers, run.follow.rate, run.load.pid.clone()), (7, 4.0, vec![1, 2]));
        assert_eq!((run.duration, run.warmup), (Duration::from_secs(1), Duration::from_secs(2)));
        assert!(run.load.allow_refusals);
        let run = run_args(parse(&["fanbench", "run", "--scenario", path, "--pid", "9"]));
        assert_eq!(run.load.pid, [9]);
        assert!(read(["fanbench", "storm", "--scenario", path].iter().map(OsString::from)).is_err());
    }

    #[test]
    fn a_scenario_holds_texts_numbers_and_lists_only() {
        assert_eq!(
            flags_of("a = 1\nb = [\"x\", \"y\"]\nc = false", "run").expect("right"),
            ["--a=1", "--b=x", "--b=y"]
        );
        assert!(flags_of("[a]\nb = 1", "run").is_err());
        assert!(flags_of("a = ", "run").is_err());
    }

    #[test]
    fn a_range_of_sources_has_both_ends() {
        let Sources(range) = sources("127.0.0.2-127.0.0.4").expect("a range");
        assert_eq!(range.len(), 3);
        assert_eq!(sources("10.0.0.1"), Ok(Sources(vec![IpAddr::from([10, 0, 0, 1])])));
        assert!(sources("127.0.0.4-127.0.0.2").is_err());
        assert!(sources("localhost").is_err());
    }

    #[test]
    fn sizes_and_rates_have_bounds() {
        assert!(message_size("95").is_err() && message_size("96").is_ok() && message_size("2MiB").is_err());
        assert!(rate("-1").is_err() && rate("0").is_ok() && rate("nan").is_err());
    }
}
