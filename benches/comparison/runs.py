"""One run: a fresh server, and fanbench against it for each step of a scenario."""

import json
import subprocess
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from comparison import figures, servers, syscalls
from comparison.scenarios import Scenario, Step

FILES = Path(__file__).parent.parent / "scenarios"

# What a step may take before it counts as failed: the longest reads for minutes, and a server that hangs should not
# hold up the others for long.
STEP_LIMIT_SECONDS = 600
# How often the server's memory is looked at, for its peak.
LOOK_SECONDS = 0.5


@dataclass
class Place:
    """Where things run and lie."""

    fanbench: Path
    client_core: int
    logs: Path


def run(scenario: Scenario, server: str, place: Place, quick: bool) -> dict:
    """Runs every step against a server of its own. What fails is in the answer, as a failure with its reason."""
    steps = {}
    for step in scenario.steps:
        try:
            with servers.running(server, scenario.store) as running:
                steps[step.name] = _measure(scenario, step, running, place, quick)
        except servers.DidNotStart as why:
            steps[step.name] = _failed(f"did not start: {why}")
        except syscalls.CannotTrace as why:
            steps[step.name] = _failed(f"strace: {why}")
        except ProcessLookupError:
            steps[step.name] = _failed("a process of the server has ended")
    return steps


def _failed(reason: str) -> dict:
    return {"failure": reason, "figures": {}}


def _measure(scenario: Scenario, step: Step, server: servers.Server, place: Place, quick: bool) -> dict:
    log = place.logs / f"{scenario.name}-{step.name}-{server.name}.log"
    with tempfile.TemporaryDirectory() as scratch, log.open("w") as output:
        written = Path(scratch) / "report.json"
        command = _command(scenario, step, server, place, quick) + ["--json", str(written)]
        began, store_began = time.monotonic(), servers.cpu_seconds(server.beside)
        with syscalls.counted(server.pids if step.traced else []) as calls:
            status, peak = _client(command, output, server)
        seconds, store_used = time.monotonic() - began, servers.cpu_seconds(server.beside) - store_began
        if status is None:
            return _failed(f"not done after {STEP_LIMIT_SECONDS} s")
        if not written.exists():
            return _failed(_last_line(log) or f"fanbench ended with {status}")
        report = json.loads(written.read_text())
    found = figures.of(report)
    found.update(calls)
    if server.beside:
        found["store_cores"] = round(store_used / seconds, 3)
    found.update(figures.growth(found, peak))
    return {"failure": figures.failure(report), "figures": found}


def _client(command: list[str], output, server: servers.Server) -> tuple[int | None, int]:
    """Runs fanbench; its exit code, if it came to one in time, and the most memory that the server had meanwhile."""
    deadline, peak = time.monotonic() + STEP_LIMIT_SECONDS, 0
    client = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        while time.monotonic() < deadline:
            peak = max(peak, servers.anonymous_bytes(server.pids))
            try:
                return client.wait(LOOK_SECONDS), peak
            except subprocess.TimeoutExpired:
                continue
        return None, peak
    finally:
        if client.poll() is None:
            client.kill()
            client.wait()


def _command(scenario: Scenario, step: Step, server: servers.Server, place: Place, quick: bool) -> list[str]:
    load = tomllib.loads((FILES / step.file).read_text())
    command = ["taskset", "--cpu-list", str(place.client_core), str(place.fanbench), load["command"]]
    command += ["--scenario", str(FILES / step.file), "--adapter", server.adapter, "--url", server.url]
    for pid in server.pids:
        command += ["--pid", str(pid)]
    if server.stalled and "stallers" in load:
        command += ["--metrics", server.stalled[0], "--counter", server.stalled[1]]
    return command + list(step.arguments) + list(scenario.quick if quick else ())


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
