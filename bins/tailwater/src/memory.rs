//! How much memory the process may have.
//!
//! It is the least of what the machine has and of what any control group that holds the process allows. Sources: the
//! kernel's cgroup-v2 (`memory.max`) and cgroup-v1 memory (`memory.limit_in_bytes`) documentation, cgroups(7) for
//! `/proc/self/cgroup`, and proc_meminfo(5). Everything is decided on text, so that tests need no such machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the groups of version 2 are, and those of version 1.
const CGROUP_V2: &str = "/sys/fs/cgroup";
const CGROUP_V1: &str = "/sys/fs/cgroup/memory";
/// The groups that this process is in.
const OWN_GROUPS: &str = "/proc/self/cgroup";
const MEMINFO: &str = "/proc/meminfo";

/// The bytes that this process may have; `None` where nobody says.
pub(crate) fn of_this_process() -> Option<u64> {
    available(|path| fs::read_to_string(path).ok())
}

/// The least of all limits, by files that `read` knows.
fn available(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let own = read(Path::new(OWN_GROUPS)).unwrap_or_default();
    let groups = limits_of(&own).into_iter().filter_map(|path| limit(&read(&path)?));
    let machine = read(Path::new(MEMINFO)).as_deref().and_then(physical);
    groups.chain(machine).min()
}

/// The files that hold the limits of a process's groups and of those around them. Within a container the paths are
/// those outside of it at times, and only the topmost group is there.
fn limits_of(own_groups: &str) -> Vec<PathBuf> {
    let mut files = vec![Path::new(CGROUP_V2).join("memory.max"), Path::new(CGROUP_V1).join("memory.limit_in_bytes")];
    for line in own_groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (CGROUP_V2, "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (CGROUP_V1, "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // The root itself is in the list.
        let groups = Path::new(path.trim_start_matches('/')).ancestors().filter(|group| !group.as_os_str().is_empty());
        files.extend(groups.map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

/// The bytes that a group allows; `None` for no limit. Version 1 spells that as a number beyond all memory.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The bytes that the machine has.
fn physical(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: (&str, &str) = ("/proc/meminfo", "MemTotal:        4194304 kB\nMemFree:         1 kB\n");

    /// Names of files, and their texts.
    type Files<'f> = &'f [(&'f str, &'f str)];

    fn on(files: Files<'_>) -> Option<u64> {
        available(|path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        let own_v2 = ("/proc/self/cgroup", "0::/system.slice/tailwater.service\n");
        let own_v1 = ("/proc/self/cgroup", "9:name=systemd:/x\n5:cpu,memory:/docker/a\n4:memory2:/y\n0::/\n");
        let table: [(Files<'_>, Option<u64>); 12] = [
            (&[], None),
            (&[MACHINE], Some(4 << 30)),
            (&[MACHINE, ("/sys/fs/cgroup/memory.max", "max\n")], Some(4 << 30)),
            (&[MACHINE, ("/sys/fs/cgroup/memory.max", "1073741824\n")], Some(1 << 30)),
            (&[("/sys/fs/cgroup/memory.max", "1073741824\n")], Some(1 << 30)),
            (&[MACHINE, ("/sys/fs/cgroup/memory.max", "1099511627776\n")], Some(4 << 30)),
            (&[MACHINE, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")], Some(4 << 30)),
            (&[MACHINE, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n")], Some(512 << 20)),
            (
                &[MACHINE, own_v2, ("/sys/fs/cgroup/system.slice/tailwater.service/memory.max", "268435456\n")],
                Some(256 << 20),
            ),
            (
                &[
                    MACHINE,
                    own_v2,
                    ("/sys/fs/cgroup/system.slice/tailwater.service/memory.max", "max\n"),
                    ("/sys/fs/cgroup/system.slice/memory.max", "134217728\n"),
                ],
                Some(128 << 20),
            ),
            (
                &[MACHINE, own_v1, ("/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "67108864\n")],
                Some(64 << 20),
            ),
            (&[MACHINE, own_v1, ("/sys/fs/cgroup/memory/y/memory.limit_in_bytes", "1\n")], Some(4 << 30)),
        ];
        for (files, bytes) in table {
            assert_eq!(on(files), bytes, "{files:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_no_limit() {
        for text in ["", "max", "-1", "1 GiB", "0x10"] {
            assert_eq!(limit(text), None, "{text}");
        }
        for text in
            ["", "MemTotal:", "MemTotal: 12", "MemTotal: x kB", "MemFree: 12 kB", "MemTotal: 99999999999999999 kB"]
        {
            assert_eq!(physical(text), None, "{text}");
        }
        let odd = ("/proc/self/cgroup", "garbage\n::\n0::\n1:memory\n");
        assert_eq!(on(&[MACHINE, odd]), Some(4 << 30));
    }
}
