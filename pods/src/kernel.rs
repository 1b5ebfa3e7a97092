//! What the kernel says of processes (proc(5)), and how many files this one may open.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open beside the connections.
const SPARE_FILES: u64 = 256;

/// CPU time of a process so far, user and system.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    let ticks = ticks_in(&stat).with_context(|| format!("/proc/{pid}/stat makes no sense"))?;
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// Raises the number of files that may be open to all that is allowed, for this process and those that it starts.
///
/// # Errors
/// When `connections` would need more.
pub fn allow_connections(connections: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let needed = connections + SPARE_FILES;
    ensure!(
        limit.maximum.is_none_or(|most| most >= needed),
        "{needed} files have to be open, and the hard limit is {:?} (ulimit -Hn)",
        limit.maximum
    );
    Ok(())
}

/// Fields 14 and 15. The second field, the name, can hold anything.
fn ticks_in(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        assert_eq!(ticks_in("12 (a) b) R 1 2 3 4 5 6 7 8 9 10 100 50 0 0 20 0 1 0"), Some(150));
        assert_eq!(ticks_in("12 (a"), None);
    }

    #[test]
    fn this_process_has_used_some_time_and_one_that_is_not_there_none() {
        assert!(cpu(std::process::id()).is_ok());
        assert!(cpu(u32::MAX).is_err());
    }

    #[test]
    fn more_connections_than_files_are_refused() {
        assert!(allow_connections(1).is_ok());
        if getrlimit(Resource::Nofile).maximum.is_some() {
            assert!(allow_connections(u64::MAX / 2).is_err());
        }
    }
}
