"""The page docs/benchmarks.md, rendered from the records in docs/benchmarks/."""

import json
from pathlib import Path

from comparison import bars, tables
from comparison.scenarios import SCENARIOS, Scenario

HEAD = """\
# Benchmarks

Tailwater beside other servers that push messages to many readers, and beside a floor: one thread that writes one
prebuilt frame to each socket, with no protocol and no storage. Nothing can deliver for less, so figures are also given
as multiples of the floor's.

Every table is written by `benches/compare`, which runs everything again:

```sh
benches/peers/install      # the other servers, into the target folder
benches/compare            # all tables, about an hour and a half; --scenario NAME for one, --quick to try it out
benches/compare --check    # measures nothing: whether the figures here hold the bars
```

## How it is measured

- `fanbench` (`bins/fanbench`) is the client for all of them, on one core; the server is alone on another. Tailwater's store
  is a process of its own beside the client, because it is a service elsewhere when deployed; the last column says what
  it used. A store that keeps its data on disk may use both cores. Servers with several threads have one core like the rest, and nginx runs one worker.
- Writers keep to a schedule: a message is stamped with the time at which it was due, not with the time at which the
  server let it be sent. Latency is from there to the reader's `read`. Messages are JSON of 200 bytes.
- **Every reader checks that it receives every message once and in order.** A run in which one does not has failed. A
  failed run is in no median; its server's name says how many failed, and why stands below the table. Where none held,
  brackets are around what the failed ones showed.
- Each round runs every server once, each a fresh process without data. A figure is the median over the rounds; a multiple
  of the floor is the median of the multiples within each round, because a machine is not equally fast all day.
- An append's ack is timed from when the message was due, too. Nchan acknowledges when it has written to all readers, so
  there is no time from its acks to them.
- On loopback it is the server's CPU that takes a segment through the client's half of the kernel and wakes the client. `fanbench`
  stays awake for a moment after each look at its sockets, so that a burst pays for one wake-up and not for many.
- `before` is Tailwater at commit `9bad203`, when a live reader was still a response body of the HTTP library.
- `floor-s2` is the floor with S2's client library, as the gateway uses it, and nothing else: no log, no offsets, no HTTP library.
- What a delivery's time goes into is in [`proofs/profile.md`](proofs/profile.md): nearly all of it is the kernel's send.
- CPU is user and system time of the server's processes over the measured time, without connecting and warming up.
  Memory is what the kernel counts as anonymous; what nginx workers share is not in it.
- Ursula can be installed and run in the same way (`benches/peers/serve ursula 4500`), but has no row: what it delivers of a
  JSON stream is not an array of messages, as the protocol wants it, and the readers refuse it.
- All speak plain HTTP/1.1 and Server-Sent Events on loopback and keep data in memory or, where they cannot, acknowledge
  before the disk; tables that say so keep it on disk. Whatever is not said is at its default.
"""


def render(records: list[dict]) -> str:
    """The whole page. A record is what one comparison of one scenario left."""
    by_name = {record["scenario"]: record for record in records}
    measured = [(scenario, by_name[scenario.name]) for scenario in SCENARIOS if scenario.name in by_name]
    parts = [HEAD, bars.section(by_name), *(section(scenario, record) for scenario, record in measured), circumstances(measured)]
    return "\n".join(parts)


def read(folder: Path) -> list[dict]:
    """What the comparisons have left in a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def problems(records: list[dict], text: str) -> list[str]:
    """Bars that are missed and not known to be, what is not held elsewhere, and a page that is not of these records."""
    found = bars.problems({record["scenario"]: record for record in records}) + bars.unproven()
    return found if text == render(records) else [*found, "the page is not what the records say: benches/compare --page writes it"]


def section(scenario: Scenario, record: dict) -> str:
    """A scenario's table with what it shows, and what failed."""
    lines = [f"## {scenario.title}", "", f"{scenario.says} {_rounds(record)}.".strip(), ""]
    lines += tables.table(scenario, record["runs"])
    failed = tables.failures(record["runs"])
    if failed:
        lines += ["", "Failed:", "", *(f"- {line}" for line in failed)]
    return "\n".join([*lines, ""])


def circumstances(measured: list[tuple[Scenario, dict]]) -> str:
    """Where and when each table was made, and of which versions."""
    lines = ["## Circumstances", "", "| Table | Commit | Date | Took | Busy before |", "|---|---|---|---|---|"]
    for scenario, record in measured:
        of = record["circumstances"]
        commit = f"`{of['commit'][:12]}`"
        if of["changed_files"]:
            commit += f", **and {of['changed_files']} changed or new files that are not part of it**"
        row = [f"`{scenario.name}`", commit, of["date"], f"{record['seconds'] / 60:.0f} min", f"{of['busy_percent']} %"]
        lines.append("| " + " | ".join(row) + " |")
    machines = {record["circumstances"]["machine"] for _, record in measured}
    lines += ["", "Machine: " + "; ".join(sorted(machines)) + "."]
    versions = {f"{name} {version}" for _, record in measured for name, version in record["versions"].items()}
    lines += ["Versions: " + "; ".join(sorted(versions)) + ".", ""]
    lines += ["The figures of every run are in [`benchmarks/`](benchmarks/), a file for each table.", ""]
    return "\n".join(lines)


def _rounds(record: dict) -> str:
    rounds = len({run["round"] for run in record["runs"]})
    return f"One round, `--scenario {record['scenario']}`" if rounds == 1 else f"{rounds} rounds, `--scenario {record['scenario']}`"
