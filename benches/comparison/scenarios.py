"""What is compared: which servers, which runs of fanbench, which figures. The loads themselves are in scenarios/*.toml."""

from dataclasses import dataclass

FLOOR = "floor"
# The floor with S2's client library, as the gateway uses it, and nothing else.
FLOOR_S2 = "floor-s2"
OURS = "tailwater"
# Tailwater as it was before connections left the HTTP library.
BEFORE = "before"

MILLI = 1e-3
MEBI = 1 / 1048576


@dataclass(frozen=True)
class Step:
    """One run of fanbench against a fresh server."""

    file: str
    name: str = "load"
    arguments: tuple[str, ...] = ()
    traced: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table: a figure of a step (`load.receive_p50_us`; comparison/figures.py has them all), or what it is in
    proportion to something of the same round.

    `over_floor` is the floor's figure, `over` another figure of the same server, and `over_step` the deliveries: what
    the figure's step counted beyond that other step, which is the same but smaller, for each delivery beyond.
    `deliveries` is the figure that counts them.
    """

    heading: str
    figure: str
    decimals: int = 0
    scale: float = 1.0
    over_floor: bool = False
    over: str | None = None
    over_step: str | None = None
    deliveries: str = "deliveries"


@dataclass(frozen=True)
class Scenario:
    """What is run for one table, and the table."""

    name: str
    title: str
    says: str
    # In the order of the rows.
    servers: tuple[str, ...]
    columns: tuple[Column, ...]
    steps: tuple[Step, ...]
    store: str = "memory"
    # How often, where that is not for the caller to say.
    rounds: int | None = None
    # What makes the load small, for trying it out.
    quick: tuple[str, ...] = ()


LIVE = (
    Column("CPU µs a delivery", "load.cpu_us_per_delivery", 2),
    Column("× floor", "load.cpu_us_per_delivery", 2, over_floor=True),
    Column("p50 ms", "load.receive_p50_us", 1, MILLI),
    Column("p99 ms", "load.receive_p99_us", 1, MILLI),
    Column("ack p50", "load.ack_p50_us", 1, MILLI),
    Column("ack → receive p50", "load.after_ack_p50_us", 1, MILLI),
    Column("p99", "load.after_ack_p99_us", 1, MILLI),
    Column("last reader p50", "load.last_reader_p50_us", 1, MILLI),
    Column("p99", "load.last_reader_p99_us", 1, MILLI),
    Column("anonymous MiB", "load.anonymous_end_bytes", 1, MEBI),
    Column("store, cores", "load.store_cores", 2),
)
# Writing, storing and following are in both steps; what the larger has more is delivery.
SPREAD = (
    *LIVE[:2],
    Column("beyond the first reader of each stream", "load.cpu_ms", 2, 1000, over_step="first", deliveries="cpu_deliveries"),
    Column("× floor", "load.cpu_ms", 2, over_floor=True, over_step="first", deliveries="cpu_deliveries"),
    Column("CPU µs a message, first reader only", "first.cpu_us_per_delivery"),
    *LIVE[2:],
)
MEMORY = (
    Column("bytes a reader", "load.bytes_per_reader"),
    Column("in the kernel, both ends", "load.kernel_bytes_per_reader"),
    Column("MiB at the start", "load.anonymous_start_bytes", 1, MEBI),
    Column("a minute after all have left", "load.anonymous_left_bytes", 1, MEBI),
    Column("× start", "load.after_ratio", 2),
)
STORM = (
    Column("all back after s", "load.back_ms", 2, MILLI),
    Column("refusals", "load.refusals"),
    Column("failed connections", "load.connect_errors"),
    Column("anonymous MiB", "load.anonymous_end_bytes", 1, MEBI),
)
REPLAY = (
    Column("MiB a second, all together", "load.replay_mib_per_second"),
    Column("a client's p50 s", "load.replay_p50_us", 2, MILLI * MILLI),
    Column("p99", "load.replay_p99_us", 2, MILLI * MILLI),
    Column("CPU s", "load.cpu_ms", 2, MILLI),
    Column("anonymous MiB", "load.anonymous_end_bytes", 1, MEBI),
    Column("store, cores", "load.store_cores", 2),
)
HOSTILE = (
    Column("p99 ms, all behave", "calm.receive_p99_us", 1, MILLI),
    Column("with hostiles", "hostile.receive_p99_us", 1, MILLI),
    Column("×", "hostile.receive_p99_us", 2, over="calm.receive_p99_us"),
    Column("p50 ms", "hostile.receive_p50_us", 1, MILLI),
    Column("memory grows by MiB", "hostile.grown_bytes", 1, MEBI),
    Column("calm", "calm.grown_bytes", 1, MEBI),
    Column("from nobody connected", "hostile.grown_from_start_bytes", 1, MEBI),
    Column("stallers sent away of 20, by its counter", "hostile.stallers_counted"),
    Column("gone, by the kernel's list", "hostile.stallers_gone"),
    Column("replays done of 20", "hostile.replays_finished"),
    Column("the slowest s", "hostile.replay_max_us", 1, MILLI * MILLI),
)
SYSCALLS = (
    Column("a delivery", "long.calls", 2, over_step="short"),
    Column("writes", "long.writes", 2, over_step="short"),
    Column("reads", "long.reads", 2, over_step="short"),
    Column("waits", "long.waits", 2, over_step="short"),
)

SMALL_LIVE = ("--readers", "200", "--warmup", "1s", "--duration", "3s", "--after", "1s")
RIVALS = (FLOOR, OURS, BEFORE, "electric", "nchan")


def _live(name: str, title: str, says: str, servers: tuple[str, ...] = RIVALS, **more) -> Scenario:
    return Scenario(name, title, says, servers, LIVE, (Step(f"{name}.toml"),), quick=SMALL_LIVE, **more)


SCENARIOS = (
    _live(
        "readers-5000",
        "5,000 readers of one stream",
        "Five messages a second, 25,000 deliveries.",
        servers=(FLOOR, OURS, "electric", "nchan"),
    ),
    _live(
        "readers-10000",
        "10,000 readers of one stream",
        "Five messages a second, 50,000 deliveries.",
    ),
    Scenario(
        "streams-100",
        "10,000 readers over 100 streams",
        "Two messages a second to each stream, 20,000 deliveries: a frame is shared by 100 readers only, and so is the cost of "
        "taking a message in. Run twice, with one reader of each stream and with 100: what the second has more is delivery. "
        "`floor-s2` is the floor with S2's client library: what S2 takes of everybody who stands in front of it.",
        (FLOOR, FLOOR_S2, OURS, "electric", "nchan"),
        SPREAD,
        (Step("streams-100-first.toml", "first"), Step("streams-100.toml")),
        quick=SMALL_LIVE,
    ),
    _live(
        "readers-19000",
        "19,000 readers in one process",
        "One message a second, on servers that may have 20,000 descriptors.",
        servers=(FLOOR, OURS, "electric", "nchan"),
        rounds=3,
    ),
    _live(
        "polls-1000",
        "1,000 long-polls",
        "Five messages a second to one stream; a delivery is a request and an answer.",
        servers=(FLOOR, OURS, "electric", "node"),
        rounds=3,
    ),
    Scenario(
        "memory",
        "Memory of an idle reader",
        "The slope between 1,000 and 10,000 readers of one stream, all of whom have had a message.",
        (OURS, "electric"),
        MEMORY,
        (Step("memory.toml"),),
        quick=("--steps", "50,200", "--rest", "1s", "--after", "1s"),
    ),
    Scenario(
        "storm",
        "A storm of reconnects",
        "8,000 readers are reset at once and come back at once, each at its own offset, while messages go on: the worse of two.",
        (FLOOR, OURS, "electric"),
        STORM,
        (Step("storm.toml"),),
        quick=("--readers", "200", "--gap", "1s"),
    ),
    Scenario(
        "replay",
        "A history read by 1,000 at once",
        "20 MiB in messages of 1,000 bytes; every client compares every byte.",
        (FLOOR, OURS, "electric"),
        REPLAY,
        (Step("replay.toml"),),
        quick=("--clients", "20", "--preload", "2MiB"),
    ),
    Scenario(
        "hostile",
        "Hostile readers",
        "2,000 readers at ten messages a second, of a stream with 64 MiB of history on disk; then the same with 20 more that never "
        "read, and 20 that read the history, 1.3 GB in all, through the one core of a client that compares every byte. What the "
        "floor shows with them is what that client and its core allow. Memory grows to the peak: from when the 2,000 had joined and "
        "nobody else, and from when the history was written and nobody was connected. Tailwater has a memory budget of 128 MiB, "
        "and counts whom it sends away because they do not read; the floor has no limits, sends nobody away and counts nothing. "
        "The kernel lists who is connected still, whatever the reason.",
        (FLOOR, OURS),
        HOSTILE,
        (Step("calm.toml", "calm"), Step("hostile.toml", "hostile")),
        store="directory",
        quick=("--readers", "100", "--warmup", "1s", "--duration", "5s", "--preload", "4MiB", "--after", "1s"),
    ),
    Scenario(
        "syscalls",
        "System calls",
        "Calls of the server for each delivery, counted by strace: 5,000 readers of one stream at two messages a second. What "
        "Tailwater writes for a message beside the deliveries (to the store, to the writer, to wake a shard) is in it.",
        (FLOOR, OURS, "electric", "nchan"),
        SYSCALLS,
        tuple(Step("syscalls.toml", name, ("--duration", time), traced=True) for name, time in (("short", "4s"), ("long", "14s"))),
        rounds=1,
        quick=("--readers", "50"),
    ),
)
