"""The figures of one run, from the report that fanbench wrote: a name and a number each. What a run has not, is left out."""

LATENCIES = {
    "ack": ("appends", "latency"),
    "receive": ("deliveries", "publish_to_receive"),
    "after_ack": ("deliveries", "ack_to_receive"),
    "last_reader": ("deliveries", "last_reader"),
    "after_ack_last": ("deliveries", "ack_to_last_reader"),
    "connect": ("connect", "latency"),
    "replay": ("replays", "time"),
}
NUMBERS = {
    "deliveries": ("deliveries", "total"),
    "deliveries_per_second": ("deliveries", "per_second"),
    "late_appends": ("appends", "late"),
    "connected_ms": ("connect", "all_ms"),
    "cpu_us_per_delivery": ("cpu", "server_us_per_delivery"),
    "client_us_per_delivery": ("cpu", "client_us_per_delivery"),
    "cpu_ms": ("cpu", "server_ms"),
    "cpu_deliveries": ("cpu", "deliveries"),
    "replays_finished": ("replays", "finished"),
    "bytes_per_reader": ("slope", "bytes_per_reader"),
    "kernel_bytes_per_reader": ("slope", "kernel_bytes_per_reader"),
    "after_ratio": ("slope", "after_ratio"),
    "rotations": ("rotations",),
    "connect_errors": ("connect_errors",),
}
PERCENTILES = ("p50_us", "p99_us", "max_us")


def of(report: dict) -> dict[str, float]:
    """All figures of a report."""
    found = {name: _at(report, path) for name, path in NUMBERS.items()}
    for name, path in LATENCIES.items():
        latencies = _at(report, path) or {}
        if latencies.get("count"):
            found.update({f"{name}_{percentile}": latencies[percentile] for percentile in PERCENTILES})
    found["refusals"] = sum(report["refusals"].values())
    found.update({f"anonymous_{look['at'].split()[0]}_bytes": look["rss_anon"] for look in report["memory"]})
    replays = report["replays"]
    if replays and replays["finished"] == replays["clients"]:
        found["replay_mib_per_second"] = replays["mib_per_second"]
    if report["stallers"]:
        found["stallers"] = len(report["stallers"])
        found["stallers_gone"] = sum(not staller["server_end_open"] for staller in report["stallers"])
        found["stallers_counted"] = _counted(report["counters"])
    if report["storms"] and all(storm["all_back_ms"] is not None for storm in report["storms"]):
        found["back_ms"] = max(storm["all_back_ms"] for storm in report["storms"])
    return {name: round(value, 3) for name, value in found.items() if value is not None}


def growth(found: dict[str, float], peak: int) -> dict[str, float]:
    """How much more memory the server had at its peak than before: when those who behave had joined and nobody else, and
    when nobody was connected."""
    since = {"grown_bytes": "anonymous_readers_bytes", "grown_from_start_bytes": "anonymous_start_bytes"}
    if "anonymous_readers_bytes" not in found:
        return {}
    return {"peak_bytes": peak, **{name: max(0, peak - found[look]) for name, look in since.items()}}


def _counted(counters: list[dict]) -> float | None:
    """How far the server's own counter of stallers went meanwhile; a series that is not there yet has counted nothing."""
    if not counters or counters[0]["after"] is None:
        return None
    return counters[0]["after"] - (counters[0]["before"] or 0)


def failure(report: dict) -> str | None:
    """Why the run failed: the first thing that was found wrong, and how many more there were."""
    if report["ok"]:
        return None
    first, *_ = report["failures"] or ["for a reason that was not told"]
    others = report["failures_total"] - 1
    return f"{first} (and {others:,} more)" if others > 0 else first


def _at(report: dict, path: tuple[str, ...]):
    found = report
    for key in path:
        if found is None:
            return None
        found = found.get(key)
    return found
