"""What the figures are held to: the bars of the fan-out engine, and which of them are known to be missed.

A bar looks at a figure as the tables print it, rounded, so that whoever reads the page finds what is said here. A run
that failed says nothing, so a bar over a server of ours with such a run is missed.
"""

from dataclasses import dataclass
from pathlib import Path

from comparison import tables
from comparison.scenarios import FLOOR, FLOOR_S2, MEBI, MILLI, OURS, SCENARIOS, Column

# What is missed, and why it is let be. Whatever else is missed fails the check, and so does what is listed here and holds.
KNOWN_SHORT = {
    "cpu-100-streams-floor": "what a message takes before it is delivered is spread over 100 readers only, and S2's client library "
    "alone takes nearly all that the bar leaves for that (`floor-s2`; proofs/upstream.md; ADR 13). Beyond the first reader of each "
    "stream a delivery is within it",
    "latency-p50": "a shard's time is the kernel's send, and so is the floor's (proofs/profile.md): this is less than rounds differ by",
    "record-polls-1000": "not measured yet",
}

SHARED = (FLOOR, "electric")
DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True)
class Limit:
    """What a figure may be: `sign` is ≤, < or ≥. The best of some servers in the same rounds, where there is no value."""

    sign: str
    value: float | None = None
    servers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """A limit for one of our figures."""

    id: str
    group: str
    says: str
    scenario: str
    column: Column
    limit: Limit
    # Every round is held to it, and not their median.
    each: bool = False


@dataclass(frozen=True)
class Elsewhere:
    """What other measurements and tests hold; `says_so` is what stands in a file that does."""

    group: str
    says: str
    # Relative to docs/.
    file: str
    says_so: str


@dataclass(frozen=True)
class Verdict:
    """What became of a bar."""

    bar: Bar
    figure: float | None
    limit: float | None
    holds: bool
    # In place of the distance, where that is not what is wrong.
    why: str | None = None


PEERS = Limit("<", servers=("electric", "nchan"))


def _cpu(id: str, scenario: str, readers: str) -> tuple[Bar, ...]:
    figure = "load.cpu_us_per_delivery"
    return (
        Bar(f"{id}-floor", CPU, f"× floor, {readers}", scenario, Column("", figure, 2, over_floor=True), Limit("≤", 1.15)),
        Bar(f"{id}-peers", CPU, f"µs a delivery, {readers}", scenario, Column("", figure, 2), PEERS),
    )


def _latency(percentile: str) -> tuple[Bar, ...]:
    after_ack = Column("", f"load.after_ack_{percentile}_us", 1, MILLI)
    receive = Column("", f"load.receive_{percentile}_us", 1, MILLI)
    return (
        Bar(
            f"latency-{percentile}",
            LATENCY,
            f"{percentile} ms from ack to receive, 10,000 readers of one stream",
            "readers-10000",
            after_ack,
            Limit("≤", servers=SHARED),
        ),
        # It acknowledges what it has delivered, so there the whole way is compared.
        Bar(
            f"latency-{percentile}-nchan",
            LATENCY,
            f"{percentile} ms from due to receive, the same",
            "readers-10000",
            receive,
            Limit("≤", servers=("nchan",)),
        ),
    )


def _each(id: str, group: str, says: str, scenario: str, column: Column, limit: Limit) -> Bar:
    return Bar(id, group, says, scenario, column, limit, each=True)


CPU, MEMORY, LATENCY, HOSTILE, STORM, REPLAY = "CPU", "Memory", "Latency", "Hostile", "Storm", "Replay"
UPSTREAM, HANDED_OVER = "Upstream", "Handed over"
NONE, ALL = Limit("≤", 0), Limit("≥", 20)
IDLE, LEFT = Column("", "load.bytes_per_reader"), Column("", "load.after_ratio", 2)
FAILED, REFUSED = Column("", "load.connect_errors"), Column("", "load.refusals")
HOSTILE_P99 = Column("", "hostile.receive_p99_us", 2, over="calm.receive_p99_us")
GROWN, COUNTED = Column("", "hostile.grown_bytes", 1, MEBI), Column("", "hostile.stallers_counted")
REPLAYED, SLOWEST = Column("", "hostile.replays_finished"), Column("", "hostile.replay_max_us", 1, MILLI * MILLI)
BARS = (
    *_cpu("cpu-5000", "readers-5000", "5,000 readers of one stream"),
    *_cpu("cpu-10000", "readers-10000", "10,000 readers of one stream"),
    *_cpu("cpu-100-streams", "streams-100", "10,000 readers over 100 streams"),
    Bar("calls", CPU, "writes a delivery", "syscalls", Column("", "long.writes", 2, over_step="short"), Limit("≤", 1)),
    Bar("memory", MEMORY, "bytes an idle reader", "memory", IDLE, Limit("≤", 600)),
    Bar("memory-electric", MEMORY, "the same", "memory", IDLE, Limit("<", servers=("electric",))),
    Bar("memory-left", MEMORY, "× start, a minute after all have left", "memory", LEFT, Limit("≤", 1.1)),
    _each("readers-19000", MEMORY, "19,000 readers in one process: connections that failed", "readers-19000", FAILED, NONE),
    *_latency("p50"),
    *_latency("p99"),
    Bar("hostile-p99", HOSTILE, "p99 of those who behave, × without hostiles", "hostile", HOSTILE_P99, Limit("≤", 1.5)),
    Bar("hostile-growth", HOSTILE, "memory grows by MiB", "hostile", GROWN, Limit("<", 64)),
    _each("hostile-stallers", HOSTILE, "stallers sent away of 20, by its counter", "hostile", COUNTED, ALL),
    _each("hostile-replays", HOSTILE, "replays done of 20", "hostile", REPLAYED, ALL),
    _each("hostile-slowest", HOSTILE, "the slowest replay, s", "hostile", SLOWEST, Limit("<", 60)),
    _each("storm", STORM, "8,000 readers back after s", "storm", Column("", "load.back_ms", 2, MILLI), Limit("<", 10)),
    _each("storm-refusals", STORM, "refusals", "storm", REFUSED, NONE),
    _each("storm-failed", STORM, "failed connections", "storm", FAILED, NONE),
)
# No bar: what there is beside what another does.
BESIDE = (
    (CPU, "µs a delivery, 10,000 readers over 100 streams", "streams-100", Column("", "load.cpu_us_per_delivery", 2), FLOOR_S2),
    (CPU, "all system calls a delivery", "syscalls", Column("", "long.calls", 2, over_step="short"), FLOOR),
    (REPLAY, "1,000 clients, MiB a second", "replay", Column("", "load.replay_mib_per_second"), "electric"),
)
FAN, HELD = "proofs/fan.md", "every bar is held"
ELSEWHERE = (
    Elsewhere(STORM, "one read session a stream, and at most a read for each missing chunk", FAN, HELD),
    Elsewhere(REPLAY, "upstream reads of 1,000 replays, at most chunks + 5", FAN, HELD),
    Elsewhere(UPSTREAM, "10,000 readers of 1, 100 and 1,000 streams: a read session for each stream", FAN, HELD),
    Elsewhere(UPSTREAM, "200 readers of a stream share one read session", "proofs/sessions.md", "test result: ok"),
    Elsewhere(
        HANDED_OVER,
        "the head of the response equals the ordinary path's",
        "../tests/tests/gateway/handover.rs",
        "the_head_of_events_that_leave_is_the_one_of_events_that_stay",
    ),
    Elsewhere(HANDED_OVER, "events over HTTP/2, by Node's client", "../tests/http2/http2.test.mjs", "each in order"),
    Elsewhere(HANDED_OVER, "the public suite, over TLS too", "../tests/conformance/run.mjs", "--tls"),
)


def judge(bar: Bar, records: dict[str, dict]) -> Verdict:
    """Whether a bar holds in the records, by the names of their scenarios."""
    runs = records.get(bar.scenario, {"runs": []})["runs"]
    ours = [run for run in runs if run["server"] == OURS]
    figure = _figure(bar, runs)
    limit = bar.limit.value
    if limit is None:
        others = [tables.shown(bar.column, server, runs) for server in bar.limit.servers]
        limit = None if None in others else min(others)
    failed = sum(not tables.holds(run) for run in ours)
    if failed:
        return Verdict(bar, figure, limit, False, f"failed {failed} of {len(ours)}")
    if figure is None or limit is None:
        return Verdict(bar, figure, limit, False, "not measured")
    holds = {"≤": figure <= limit, "<": figure < limit, "≥": figure >= limit}[bar.limit.sign]
    return Verdict(bar, figure, limit, holds)


def problems(records: dict[str, dict], known: dict[str, str] = KNOWN_SHORT) -> list[str]:
    """What is missed and not known, and what is known and is not missed."""
    missed = {verdict.bar.id: outcome(verdict) for bar in BARS if not (verdict := judge(bar, records)).holds}
    missed |= {f"record-{scenario.name}": "no record" for scenario in SCENARIOS if scenario.name not in records}
    found = [f"{id}: {what}" for id, what in missed.items() if id not in known]
    held = "it holds, or is no bar; take it off the list of what is known to be short"
    return found + [f"{id}: {held}" for id in known if id not in missed]


def unproven() -> list[str]:
    """What is said to be held elsewhere, and is not."""
    found = []
    for row in ELSEWHERE:
        file = DOCS / row.file
        if not file.is_file() or row.says_so not in file.read_text():
            found.append(f"{row.file} does not say {row.says_so!r}")
    return found


def outcome(verdict: Verdict) -> str:
    """In words: `holds`, or by how much it does not."""
    if verdict.holds:
        return "holds"
    if verdict.why:
        return verdict.why
    return f"short by {_number(abs(verdict.figure - verdict.limit), verdict.bar)}"


def section(records: dict[str, dict], known: dict[str, str] = KNOWN_SHORT) -> str:
    """The bars as a part of the page."""
    lines = ["## Bars", "", "What the gateway is held to; `benches/compare --check` fails where it is not, other than below."]
    lines += ["Medians over the rounds; counts, and what is in seconds, in the worst round.", ""]
    lines += ["| | | tailwater | bar | |", "| --- | --- | ---: | ---: | --- |"]
    verdicts = [judge(bar, records) for bar in BARS]
    rows = [(verdict.bar.group, _row(verdict)) for verdict in verdicts]
    rows += [(group, _beside(*rest, records)) for group, *rest in BESIDE]
    rows += [(row.group, f"{row.says} | | | [{Path(row.file).name}]({row.file}) |") for row in ELSEWHERE]
    for group in dict.fromkeys(group for group, _ in rows):
        lines += [f"| {group} | {row}" for of, row in rows if of == group]
    known_short = [verdict.bar for verdict in verdicts if verdict.bar.id in known and not verdict.holds]
    short = [f"- {bar.says}: {known[bar.id]}." for bar in known_short]
    if short:
        lines += ["", "Short, and why:", "", *short]
    return "\n".join([*lines, ""])


def _row(verdict: Verdict) -> str:
    bar = verdict.bar
    limit = f"{bar.limit.sign} {_number(verdict.limit, bar)}"
    if bar.limit.servers:
        limit += f" ({', '.join(bar.limit.servers)})"
    said = outcome(verdict)
    return f"{bar.says} | {_number(verdict.figure, bar)} | {limit} | {said if verdict.holds else f'**{said}**'} |"


def _beside(says: str, scenario: str, column: Column, other: str, records: dict[str, dict]) -> str:
    runs = records.get(scenario, {"runs": []})["runs"]
    return f"{says} | {tables.cell(column, OURS, runs)} | {other}: {tables.cell(column, other, runs)} | |"


def _figure(bar: Bar, runs: list[dict]) -> float | None:
    if not bar.each:
        return tables.shown(bar.column, OURS, runs)
    of_rounds = [tables.value(bar.column, run, runs) for run in runs if run["server"] == OURS and tables.holds(run)]
    if not of_rounds or None in of_rounds:
        return None
    return tables.rounded(bar.column, min(of_rounds) if bar.limit.sign == "≥" else max(of_rounds))


def _number(figure: float | None, bar: Bar) -> str:
    return tables.NOTHING if figure is None else tables.printed(bar.column, figure)
