"""System calls of a server, counted by strace while a step runs, by what they are for."""

import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

WRITES = ("write", "writev", "pwrite64", "send", "sendto", "sendmsg", "sendmmsg", "sendfile", "splice")
READS = ("read", "readv", "pread64", "preadv", "recv", "recvfrom", "recvmsg", "recvmmsg")
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "io_uring_enter")

# How long strace may take to attach to all threads, and to write its summary.
ATTACH_SECONDS = 10.0


class CannotTrace(Exception):
    """Strace is there and did not attach; the text is what it said."""


def possible() -> bool:
    """Whether this machine has strace."""
    return shutil.which("strace") is not None


@contextmanager
def counted(pids: list[int]):
    """Yields a dict that holds, after the context, how many calls the processes made: `calls`, and of these `writes` and so on."""
    calls: dict[str, int] = {}
    if not pids:
        yield calls
        return
    with tempfile.TemporaryDirectory() as scratch:
        summary, said = Path(scratch) / "summary", Path(scratch) / "said"
        command = ["strace", "-c", "-f", "-o", str(summary)]
        for pid in pids:
            command += ["-p", str(pid)]
        with said.open("w") as output:
            strace = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_until_attached(strace, len(pids), said)
            yield calls
        finally:
            # It lets go of the processes and writes the summary.
            strace.send_signal(signal.SIGINT)
            strace.wait(ATTACH_SECONDS)
        calls.update(by_purpose(parse(summary.read_text())))


def _wait_until_attached(strace: subprocess.Popen, processes: int, said: Path) -> None:
    deadline = time.monotonic() + ATTACH_SECONDS
    while said.read_text().count("attached") < processes:
        if strace.poll() is not None or time.monotonic() > deadline:
            raise CannotTrace(said.read_text().strip() or "strace did not attach")
        time.sleep(0.05)


def parse(summary: str) -> dict[str, int]:
    """The counts of strace's table: share, seconds, microseconds a call, calls, perhaps errors, name."""
    calls = {}
    for line in summary.splitlines():
        fields = line.split()
        if len(fields) in (5, 6) and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return calls


def by_purpose(calls: dict[str, int]) -> dict[str, int]:
    """How many calls there were, and how many of them wrote, read, or waited."""
    groups = {"writes": WRITES, "reads": READS, "waits": WAITS}
    found = {group: sum(calls.get(name, 0) for name in names) for group, names in groups.items()}
    return {"calls": sum(calls.values()), **found}
