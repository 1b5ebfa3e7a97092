//! What the kernel says of this process and of the server's: CPU, memory, descriptors (proc(5)).

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result, bail};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};
use serde::Serialize;

/// Descriptors that are needed beside the connections.
const SPARE_DESCRIPTORS: u64 = 64;

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    pub(crate) pid: u32,
    /// `RssAnon` of its status.
    pub(crate) rss_anon: u64,
    /// `Anonymous` of its memory map; 0 where it may not be read.
    pub(crate) anonymous: u64,
}

/// The monotonic clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// CPU time of this process, in nanoseconds.
pub(crate) fn own_cpu() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// A number that no earlier run had.
pub(crate) fn run_number() -> u64 {
    nanoseconds(ClockId::Realtime) / 1_000_000
}

/// CPU time of these processes, user and system, in nanoseconds. The kernel counts in ticks, mostly of 10 ms.
pub(crate) fn cpu(pids: &[u32]) -> Result<u64> {
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
        ticks += ticks_in(&stat).with_context(|| format!("/proc/{pid}/stat makes no sense"))?;
    }
    Ok(ticks * tick)
}

/// Memory of these processes.
pub(crate) fn memory(pids: &[u32]) -> Result<Vec<Memory>> {
    pids.iter()
        .map(|&pid| {
            let status =
                fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("no process {pid}"))?;
            let rss_anon = kilobytes(&status, "RssAnon:").context("no RssAnon in the status of a process")?;
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            Ok(Memory { pid, rss_anon, anonymous: kilobytes(&rollup, "Anonymous:").unwrap_or(0) })
        })
        .collect()
}

/// Memory of all TCP sockets of this machine in the kernel, in bytes.
pub(crate) fn socket_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").context("the kernel shows no socket memory")?;
    let pages = pages_in(&text).context("no memory of TCP sockets in /proc/net/sockstat")?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// How often a connection was not taken because a listener's queue was full, on this machine since it started. The client
/// tries again after a second, so such a server looks slow to connect to.
pub(crate) fn listen_overflows() -> u64 {
    fs::read_to_string("/proc/net/netstat").ok().and_then(|text| counter(&text, "ListenOverflows")).unwrap_or(0)
}

/// Whether the server's end of a connection from `local` to `remote` is established, if it is on this machine.
pub(crate) fn server_end_is_open(local: SocketAddr, remote: SocketAddr) -> bool {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().any(|table| established(table, remote.port(), local.port()))
}

/// Raises the limit of open descriptors as far as it goes, and refuses if that is less than `connections` need.
pub(crate) fn allow_descriptors(connections: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("the limit of open descriptors cannot be raised")?;
    let needed = connections as u64 + SPARE_DESCRIPTORS;
    match limit.maximum {
        Some(most) if most < needed => {
            bail!("{connections} connections need {needed} descriptors, and the hard limit is {most} (ulimit -Hn)")
        }
        _ => Ok(()),
    }
}

/// Keeps this process on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    if core >= CpuSet::MAX_CPU {
        bail!("there is no core {core}");
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot stay on core {core}"))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Fields 14 and 15 of a process's stat. The second field, its name, can hold anything.
fn ticks_in(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn pages_in(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
}

/// A counter of the extended TCP statistics: a line of names above a line of values.
fn counter(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let at = lines.next()?.position(|word| word == name)?;
    lines.next()?.nth(at)?.parse().ok()
}

/// Whether the kernel's table has an established connection between these two ports, seen from the first.
fn established(table: &str, from: u16, to: u16) -> bool {
    let port = |field: &str| field.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next(), fields.next(), fields.next());
        state == Some("01") && local.and_then(port) == Some(from) && remote.and_then(port) == Some(to)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_understood() {
        let stat = "12 (a) b) R 1 2 3 4 5 6 7 8 9 10 100 50 0 0 20 0 1 0";
        assert_eq!(ticks_in(stat), Some(150));
        assert_eq!(kilobytes("VmRSS:\t 9 kB\nRssAnon:\t     12 kB\n", "RssAnon:"), Some(12 * 1024));
        assert_eq!(kilobytes("VmRSS:\t 9 kB\n", "RssAnon:"), None);
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: A\nIpExt: 4\n";
        assert_eq!(counter(netstat, "ListenOverflows"), Some(22));
        assert_eq!(counter(netstat, "Absent"), None);
        assert_eq!(pages_in("sockets: used 5\nTCP: inuse 3 orphan 0 tw 0 alloc 4 mem 77\n"), Some(77));
    }

    #[test]
    fn a_connection_is_open_only_while_the_table_says_established() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1F90 0100007F:C350 01 0 0\n   \
            1: 0100007F:1F90 0100007F:C351 04 0 0\n";
        assert!(established(table, 8080, 50000));
        assert!(!established(table, 8080, 50001));
        assert!(!established(table, 50000, 8080));
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let used = || cpu(&[pid]).expect("this process runs");
        let (own, ticked) = (own_cpu(), used());
        while used() - ticked < 50_000_000 {}
        // User and system time are each cut to ticks.
        assert!(own_cpu() - own >= 20_000_000);
        let memory = memory(&[pid]).expect("this process runs");
        assert!(memory[0].rss_anon > 0);
        assert!(cpu(&[u32::MAX]).is_err());
    }

    #[test]
    fn more_connections_than_descriptors_are_refused() {
        assert!(allow_descriptors(1).is_ok());
        if getrlimit(Resource::Nofile).maximum.is_some() {
            assert!(allow_descriptors(usize::MAX / 2).is_err());
        }
    }
}
