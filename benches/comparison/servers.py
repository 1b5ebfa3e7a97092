"""Servers under measurement: each is run by benches/peers/serve, which says how to reach it and what to measure."""

import os
import re
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SERVE = Path(__file__).parent.parent / "peers" / "serve"

# Below the ports that the kernel gives to clients, so that no reader of an earlier run sits on one.
PORTS = range(20000, 30000, 2)

_ports = iter(PORTS)


@dataclass
class Server:
    """A server that accepts connections."""

    name: str
    adapter: str = ""
    url: str = ""
    pids: list[int] = field(default_factory=list)
    beside: list[int] = field(default_factory=list)
    # Where its metrics are, and the counter among them of readers that it has sent away because they did not read.
    stalled: tuple[str, str] | None = None


class DidNotStart(Exception):
    """A server that is installed, and did not come up; the text says why."""


def here() -> dict[str, str]:
    """The servers that can run here, and their versions, in the order of the tables."""
    listed = subprocess.run([SERVE], check=True, capture_output=True, text=True).stdout
    return dict(line.split(" ", 1) for line in listed.splitlines())


@contextmanager
def running(name: str, store: str):
    """Runs a server from empty for as long as the context lasts."""
    command = [SERVE, name, str(_free_port()), store]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield _introduced(name, process)
    finally:
        # It ends what it started when its input ends.
        process.stdin.close()
        process.wait()


def _introduced(name: str, process: subprocess.Popen) -> Server:
    server = Server(name)
    for line in process.stdout:
        word, _, value = line.strip().partition(" ")
        match word:
            case "adapter":
                server.adapter = value
            case "url":
                server.url = value
            case "pid":
                server.pids.append(int(value))
            case "beside":
                server.beside.append(int(value))
            case "stalled":
                server.stalled = tuple(value.split(" ", 1))
            case "ready":
                return server
    raise DidNotStart(process.stderr.read().strip().splitlines()[-1])


def _free_port() -> int:
    """A port that is free along with the one after it; each is given once, so that no run meets the leavings of another."""
    for port in _ports:
        if all(_is_free(port + more) for more in (0, 1)):
            return port
    raise DidNotStart(f"no free ports from {PORTS.start} to {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that processes have used so far; proc(5), fields 14 and 15 of stat."""
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError as gone:
            raise ProcessLookupError(pid) from gone
        after_name = stat.rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def anonymous_bytes(pids: list[int]) -> int:
    """Anonymous memory of processes; proc(5), RssAnon of status. Nothing for one that has ended."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        found = re.search(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)
        total += int(found[1]) * 1024 if found else 0
    return total
