"""What figures depend on: the commit, the machine, how busy it was."""

import os
import platform
import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def changes() -> list[str]:
    """What is not committed, other than what a comparison writes."""
    command = ["git", "status", "--porcelain", "--untracked-files=all", "--", "."]
    command += [":(exclude)docs/benchmarks", ":(exclude)docs/benchmarks.md", ":(exclude)docs/proofs"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def of_now() -> dict:
    """The circumstances, for the record that a comparison leaves."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip(),
        "changed_files": len(changes()),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": f"{os.cpu_count()} cores of {_cpu()}, {_memory()}, {platform.system()} {platform.release()}",
        "busy_percent": busy_percent(),
    }


def busy_percent(seconds: float = 2.0) -> int:
    """How busy all cores are together. Builds that are still running would show in the figures."""
    was_idle, was_all = _ticks()
    time.sleep(seconds)
    idle, everything = _ticks()
    return round(100 - 100 * (idle - was_idle) / (everything - was_all))


def _ticks() -> tuple[int, int]:
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> str:
    found = re.search(r"^MemTotal:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return f"{int(found[1]) / 1048576:.1f} GiB" if found else "unknown memory"
