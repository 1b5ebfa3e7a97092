"""From the runs of a scenario to a table: medians over the rounds, ratios within a round, failures that stay visible.

A run is `{"round": 1, "server": "floor", "steps": {"load": {"failure": null, "figures": {"name": 1.0}}}}`.
"""

from statistics import median

from comparison.scenarios import FLOOR, Column, Scenario

NOTHING = "–"


def table(scenario: Scenario, runs: list[dict]) -> list[str]:
    """The lines of a Markdown table, a row for each server that was run."""
    lines = [_row(["", *(column.heading for column in scenario.columns)])]
    lines.append(_row(["---", *("---:" for _ in scenario.columns)]))
    for server in (name for name in scenario.servers if any(run["server"] == name for run in runs)):
        lines.append(_row([_name(server, runs), *(cell(column, server, runs) for column in scenario.columns)]))
    return lines


def failures(runs: list[dict]) -> list[str]:
    """A line for each step that failed: which server, which round, and why."""
    lines = []
    for run in runs:
        for step, outcome in run["steps"].items():
            if outcome["failure"]:
                lines.append(f"{run['server']}, round {run['round']}, {step}: {outcome['failure']}")
    return lines


def cell(column: Column, server: str, runs: list[dict]) -> str:
    """The median over the rounds that held; in brackets, over those that failed, where none has held."""
    mine = [run for run in runs if run["server"] == server]
    for counted, form in (([run for run in mine if holds(run)], "{}"), (mine, "({})")):
        values = _values(column, counted, runs)
        if values:
            return form.format(printed(column, median(values)))
    return NOTHING


def shown(column: Column, server: str, runs: list[dict]) -> float | None:
    """The number that the cell shows: rounded, and only of rounds that held."""
    values = _values(column, [run for run in runs if run["server"] == server and holds(run)], runs)
    return rounded(column, median(values)) if values else None


def rounded(column: Column, figure: float) -> float:
    """The number that stands for a figure in a cell of this column."""
    return float(f"{figure:.{column.decimals}f}")


def printed(column: Column, figure: float) -> str:
    """A figure as a cell of this column has it: what is next to nothing has no sign."""
    return f"{rounded(column, figure) + 0.0:,.{column.decimals}f}"


def value(column: Column, run: dict, runs: list[dict]) -> float | None:
    """The figure of one run, or its ratio to what the column says it is over."""
    found = _of_its_own(column, run)
    if found is None:
        return None
    if column.over is not None:
        return _ratio(found, _figure(run, column.over))
    if column.over_floor:
        floor = _floor_of_round(run["round"], runs)
        return _ratio(found, _of_its_own(column, floor)) if floor else None
    return found * column.scale


def holds(run: dict) -> bool:
    """Whether every step did what it should; what a run measured that lost or repeated a message says nothing."""
    return all(outcome["failure"] is None for outcome in run["steps"].values())


def _values(column: Column, of: list[dict], runs: list[dict]) -> list[float]:
    return [found for run in of if (found := value(column, run, runs)) is not None]


def _name(server: str, runs: list[dict]) -> str:
    mine = [run for run in runs if run["server"] == server]
    failed = sum(not holds(run) for run in mine)
    return f"{server}, **failed {failed} of {len(mine)}**" if failed else server


def _of_its_own(column: Column, run: dict) -> float | None:
    """What the run says by itself, before it is compared with another."""
    return _figure(run, column.figure) if column.over_step is None else _per_delivery(run, column)


def _floor_of_round(number: int, runs: list[dict]) -> dict | None:
    floors = (run for run in runs if run["round"] == number and run["server"] == FLOOR and holds(run))
    return next(floors, None)


def _figure(run: dict, name: str) -> float | None:
    step, _, figure = name.partition(".")
    return run["steps"].get(step, {"figures": {}})["figures"].get(figure)


def _per_delivery(run: dict, column: Column) -> float | None:
    """What a larger step has more than a smaller one, for each delivery that it has more: whatever else is done is in both."""
    step, _, figure = column.figure.partition(".")
    more = [_figure(run, f"{step}.{name}") for name in (figure, column.deliveries)]
    less = [_figure(run, f"{column.over_step}.{name}") for name in (figure, column.deliveries)]
    if None in more or None in less:
        return None
    return _ratio(more[0] - less[0], more[1] - less[1])


def _ratio(one: float, other: float | None) -> float | None:
    return one / other if other else None


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
