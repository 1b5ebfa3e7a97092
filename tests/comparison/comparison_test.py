"""What benches/compare makes of the figures it is given. The last line counts, for ./test."""

import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches"))

from comparison import bars, figures, page, runs, samples, servers, syscalls, tables  # noqa: E402
from comparison.scenarios import SCENARIOS, Column, Scenario, Step  # noqa: E402

CPU = "load.cpu"
PLAIN = Column("CPU", CPU, 1)
OVER_FLOOR = Column("× floor", CPU, 2, over_floor=True)
SCENARIO = Scenario("some", "Some", "", ("floor", "ours", "theirs"), (PLAIN, OVER_FLOOR), (Step("some.toml"),))


def a_run(number, server, cpu, failure=None):
    return {"round": number, "server": server, "steps": {"load": {"failure": failure, "figures": {"cpu": cpu}}}}


class Cells(unittest.TestCase):
    def test_a_cell_is_the_median_over_the_rounds(self):
        runs = [a_run(1, "ours", 9.0), a_run(2, "ours", 1.0), a_run(3, "ours", 2.0)]
        self.assertEqual(tables.cell(PLAIN, "ours", runs), "2.0")

    def test_a_ratio_is_taken_within_the_round_before_the_median(self):
        runs = [a_run(1, "floor", 1.0), a_run(1, "ours", 2.0)]
        runs += [a_run(2, "floor", 10.0), a_run(2, "ours", 10.0)]
        runs += [a_run(3, "floor", 4.0), a_run(3, "ours", 6.0)]
        self.assertEqual(tables.cell(OVER_FLOOR, "ours", runs), "1.50")

    def test_what_is_next_to_nothing_has_no_sign(self):
        self.assertEqual(tables.cell(PLAIN, "ours", [a_run(1, "ours", -0.04)]), "0.0")
        self.assertEqual(tables.cell(PLAIN, "ours", [a_run(1, "ours", -0.06)]), "-0.1")

    def test_a_failed_run_is_in_no_median(self):
        runs = [a_run(1, "ours", 100.0, "a gap"), a_run(2, "ours", 3.0)]
        self.assertEqual(tables.cell(PLAIN, "ours", runs), "3.0")

    def test_where_no_run_held_the_figures_are_in_brackets(self):
        runs = [a_run(1, "ours", 100.0, "a gap"), a_run(2, "ours", 300.0, "a gap")]
        self.assertEqual(tables.cell(PLAIN, "ours", runs), "(200.0)")

    def test_a_round_whose_floor_failed_has_no_ratio(self):
        runs = [a_run(1, "floor", 1.0, "a gap"), a_run(1, "ours", 2.0)]
        self.assertEqual(tables.cell(OVER_FLOOR, "ours", runs), tables.NOTHING)

    def test_a_figure_that_no_run_has_is_a_dash(self):
        self.assertEqual(tables.cell(Column("other", "load.other"), "ours", [a_run(1, "ours", 1.0)]), tables.NOTHING)

    def test_a_figure_over_another_is_of_the_same_run(self):
        run = a_run(1, "ours", 6.0)
        run["steps"]["calm"] = {"failure": None, "figures": {"cpu": 4.0}}
        self.assertEqual(tables.cell(Column("×", CPU, 2, over="calm.cpu"), "ours", [run]), "1.50")

    def test_a_difference_of_two_steps_is_over_the_difference_of_their_deliveries(self):
        run = {"round": 1, "server": "ours", "steps": {}}
        for step, calls, deliveries in (("short", 700, 500), ("long", 1700, 1500)):
            figures = {"writes": calls, "deliveries": deliveries}
            run["steps"][step] = {"failure": None, "figures": figures}
        column = Column("writes", "long.writes", 2, over_step="short")
        self.assertEqual(tables.cell(column, "ours", [run]), "1.00")


class Failures(unittest.TestCase):
    runs = [a_run(1, "ours", 1.0), a_run(2, "ours", 1.0, "reader 3: expected 5, got 7"), a_run(1, "theirs", 1.0, "gone")]

    def test_a_difference_of_two_steps_has_a_ratio_to_the_floors_of_the_same_round(self):
        runs = []
        for number, server, first, load in ((1, "floor", 10, 210), (1, "ours", 50, 350), (2, "floor", 10, 410)):
            steps = {}
            for step, cpu, deliveries in (("first", first, 100), ("load", load, 300)):
                steps[step] = {"failure": None, "figures": {"cpu": cpu, "measured": deliveries}}
            runs.append({"round": number, "server": server, "steps": steps})
        column = Column("CPU", CPU, 2, 1000, over_step="first", deliveries="measured")
        self.assertEqual(tables.cell(column, "ours", runs), "1,500.00")
        column = Column("× floor", CPU, 2, over_floor=True, over_step="first", deliveries="measured")
        self.assertEqual(tables.cell(column, "ours", runs), "1.50")

    def test_a_failed_run_shows_in_the_row_of_its_server(self):
        rows = tables.table(SCENARIO, self.runs)[2:]
        self.assertEqual(rows[0].split("|")[1].strip(), "ours, **failed 1 of 2**")
        self.assertEqual(rows[1].split("|")[1].strip(), "theirs, **failed 1 of 1**")

    def test_why_a_run_failed_stands_below_the_table(self):
        record = {"scenario": "some", "runs": self.runs}
        self.assertIn("- ours, round 2, load: reader 3: expected 5, got 7", page.section(SCENARIO, record).splitlines())

    def test_a_server_that_was_not_run_has_no_row(self):
        self.assertEqual(len(tables.table(SCENARIO, self.runs)), 4)


class Figures(unittest.TestCase):
    NOTHING_WRONG = {
        "ok": True,
        "failures": [],
        "failures_total": 0,
        "refusals": {},
        "memory": [],
        "stallers": [],
        "counters": [],
        "storms": [],
        "replays": None,
    }

    def test_the_first_thing_that_was_wrong_is_why_a_run_failed(self):
        report = {"ok": False, "failures": ["reader 3: a gap", "reader 4: a gap"], "failures_total": 1200}
        self.assertEqual(figures.failure(report), "reader 3: a gap (and 1,199 more)")
        self.assertIsNone(figures.failure(self.NOTHING_WRONG))

    def test_a_replay_that_not_all_finished_has_no_throughput(self):
        replays = {"clients": 2, "finished": 1, "mib_per_second": 9.0, "time": {"count": 1, "p50_us": 1, "p99_us": 1, "max_us": 1}}
        some = figures.of({**self.NOTHING_WRONG, "replays": replays})
        self.assertNotIn("replay_mib_per_second", some)
        every = figures.of({**self.NOTHING_WRONG, "replays": {**replays, "finished": 2}})
        self.assertEqual(every["replay_mib_per_second"], 9.0)

    def test_the_worst_storm_counts_and_one_that_did_not_end_has_no_time(self):
        ended = figures.of({**self.NOTHING_WRONG, "storms": [{"all_back_ms": 5}, {"all_back_ms": 9}]})
        self.assertEqual(ended["back_ms"], 9)
        self.assertNotIn("back_ms", figures.of({**self.NOTHING_WRONG, "storms": [{"all_back_ms": 5}, {"all_back_ms": None}]}))

    def test_a_staller_is_gone_when_the_server_holds_its_end_no_more(self):
        stallers = [{"server_end_open": True}, {"server_end_open": False}, {"server_end_open": False}]
        found = figures.of({**self.NOTHING_WRONG, "stallers": stallers})
        self.assertEqual((found["stallers"], found["stallers_gone"]), (3, 2))


    def test_stallers_are_counted_by_how_far_the_servers_counter_went(self):
        def counted(before, after):
            counters = [{"series": "stalled", "before": before, "after": after}]
            stallers = [{"server_end_open": False}]
            return figures.of({**self.NOTHING_WRONG, "stallers": stallers, "counters": counters}).get("stallers_counted")

        self.assertEqual(counted(3.0, 23.0), 20)
        # Nothing is shown of what has not happened yet.
        self.assertEqual(counted(None, 20.0), 20)
        self.assertIsNone(counted(3.0, None))
        self.assertNotIn("stallers_counted", figures.of({**self.NOTHING_WRONG, "stallers": [{"server_end_open": False}]}))

    def test_growth_is_from_those_who_behave_and_from_nobody(self):
        looks = [{"at": at, "rss_anon": rss} for at, rss in (("start", 10), ("readers", 30), ("connected", 60))]
        found = figures.of({**self.NOTHING_WRONG, "memory": looks})
        self.assertEqual(figures.growth(found, 100), {"peak_bytes": 100, "grown_bytes": 70, "grown_from_start_bytes": 90})
        self.assertEqual(figures.growth({}, 100), {})


class Bars(unittest.TestCase):
    COLUMN = Column("CPU", "load.cpu", 2)

    def verdict(self, limit, runs, each=False):
        bar = bars.Bar("some", "CPU", "some", "scenario", self.COLUMN, limit, each)
        return bars.judge(bar, {"scenario": {"runs": runs}})

    @staticmethod
    def of(*figures):
        return [a_run(number, "tailwater", figure) for number, figure in enumerate(figures, 1)]

    def test_a_figure_is_held_to_its_bar_as_it_is_printed(self):
        for each in (False, True):
            self.assertTrue(self.verdict(bars.Limit("≤", 1.15), self.of(1.1549), each).holds)
        short = self.verdict(bars.Limit("≤", 1.15), self.of(1.156))
        self.assertEqual((short.holds, bars.outcome(short)), (False, "short by 0.01"))

    def test_below_is_not_the_same_and_at_least_looks_the_other_way(self):
        self.assertFalse(self.verdict(bars.Limit("<", 2), self.of(2.0)).holds)
        self.assertTrue(self.verdict(bars.Limit("<", 2), self.of(1.9)).holds)
        self.assertTrue(self.verdict(bars.Limit("≥", 2), self.of(2.0)).holds)
        self.assertFalse(self.verdict(bars.Limit("≥", 2), self.of(1.9)).holds)

    def test_the_best_of_the_others_is_the_bar(self):
        others = [a_run(1, "electric", 5.0), a_run(1, "nchan", 3.0)]
        limit = bars.Limit("<", servers=("electric", "nchan"))
        self.assertFalse(self.verdict(limit, self.of(4.0) + others).holds)
        self.assertTrue(self.verdict(limit, self.of(2.0) + others).holds)
        self.assertEqual(bars.outcome(self.verdict(limit, self.of(2.0) + others[:1])), "not measured")

    def test_a_median_forgives_one_round_and_a_count_forgives_none(self):
        self.assertTrue(self.verdict(bars.Limit("≥", 20), self.of(20, 19, 20)).holds)
        self.assertFalse(self.verdict(bars.Limit("≥", 20), self.of(20, 19, 20), each=True).holds)
        self.assertFalse(self.verdict(bars.Limit("≤", 0), self.of(0, 0, 1), each=True).holds)

    def test_a_run_of_ours_that_failed_misses_every_bar(self):
        failed = [*self.of(1.0), a_run(2, "tailwater", 1.0, "a gap")]
        self.assertEqual(bars.outcome(self.verdict(bars.Limit("≤", 9), failed)), "failed 1 of 2")

    def test_what_was_not_measured_does_not_hold(self):
        self.assertEqual(bars.outcome(self.verdict(bars.Limit("≤", 9), [])), "not measured")
        self.assertFalse(bars.judge(bars.BARS[0], {}).holds)


class Committed(unittest.TestCase):
    """The page and the records of this repository."""

    DOCS = Path(__file__).resolve().parents[2] / "docs"

    def setUp(self):
        self.records = page.read(self.DOCS / "benchmarks")
        self.by_name = {record["scenario"]: record for record in self.records}

    def test_every_bar_is_held_that_is_not_known_to_be_missed_and_the_page_is_of_these_records(self):
        self.assertEqual(page.problems(self.records, (self.DOCS / "benchmarks.md").read_text()), [])

    def test_a_bar_that_is_missed_and_not_known_fails_and_so_does_one_that_is_known_and_holds(self):
        missed = {bar.id for bar in bars.BARS if not bars.judge(bar, self.by_name).holds}
        missed |= {f"record-{scenario.name}" for scenario in SCENARIOS if scenario.name not in self.by_name}
        self.assertEqual({problem.split(":")[0] for problem in bars.problems(self.by_name, {})}, missed)
        every = {bar.id: "because" for bar in bars.BARS} | {id: "because" for id in missed}
        held = {bar.id for bar in bars.BARS} - missed
        self.assertGreater(len(held), 10)
        self.assertEqual({problem.split(":")[0] for problem in bars.problems(self.by_name, every)}, held)

    def test_a_page_of_other_figures_fails(self):
        text = (self.DOCS / "benchmarks.md").read_text().replace("| holds |", "| held |", 1)
        self.assertEqual(page.problems(self.records, text), ["the page is not what the records say: benches/compare --page writes it"])

    def test_no_two_bars_have_one_name(self):
        names = [bar.id for bar in bars.BARS]
        self.assertEqual(len(names), len(set(names)))


class Scenarios(unittest.TestCase):
    def test_every_step_has_its_file(self):
        folder = Path(__file__).resolve().parents[2] / "benches" / "scenarios"
        named = {step.file for scenario in SCENARIOS for step in scenario.steps}
        self.assertEqual(named, {path.name for path in folder.glob("*.toml")})

    def test_where_some_do_not_read_the_servers_own_count_of_them_is_asked_for(self):
        said = ["adapter floor\n", "url http://h/bench\n", 'stalled http://h/metrics ends{reason="left out"}\n', "ready\n"]
        server = servers._introduced("some", SimpleNamespace(stdout=said))
        self.assertEqual(server.stalled, ("http://h/metrics", 'ends{reason="left out"}'))
        place = runs.Place(Path("fanbench"), 1, Path("logs"))
        scenario = next(scenario for scenario in SCENARIOS if scenario.name == "hostile")
        calm, hostile = (runs._command(scenario, step, server, place, False) for step in scenario.steps)
        self.assertEqual(hostile[-4:], ["--metrics", "http://h/metrics", "--counter", 'ends{reason="left out"}'])
        self.assertNotIn("--metrics", calm)

    def test_no_two_have_one_name(self):
        names = [scenario.name for scenario in SCENARIOS]
        self.assertEqual(len(names), len(set(names)))


class SystemCalls(unittest.TestCase):
    SUMMARY = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 90.00    0.000900           1       900        12 write
 10.00    0.000100           1       100           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000                  1000        12 total
"""

    def test_the_counts_of_strace_are_read_with_and_without_errors(self):
        self.assertEqual(syscalls.parse(self.SUMMARY), {"write": 900, "epoll_wait": 100})

    def test_calls_are_counted_by_what_they_are_for(self):
        found = syscalls.by_purpose({"write": 2, "sendto": 3, "recvfrom": 1, "epoll_wait": 4, "futex": 10})
        self.assertEqual(found, {"calls": 20, "writes": 5, "reads": 1, "waits": 4})


class Samples(unittest.TestCase):
    SCRIPT = """shard-0     1 cpu-clock:
\tffffffff81 tcp_sendmsg_locked ([kernel.kallsyms])
\tffffffff82 __x64_sys_sendto ([kernel.kallsyms])
\t    7f0000 __send (/lib/libc.so.6)

shard-0     1 cpu-clock:
\tffffffff83 ep_poll ([kernel.kallsyms])
\tffffffff84 __x64_sys_epoll_wait ([kernel.kallsyms])

tokio-rt-worker     2 cpu-clock:
\t    550000 send_all (/bin/server)

fanbench     3 cpu-clock:
\tffffffff85 ksys_write ([kernel.kallsyms])

"""

    def test_a_sample_is_of_a_thread_and_of_what_it_was_doing(self):
        found = samples.counted(self.SCRIPT)
        wanted = {("shard", "send"): 1, ("shard", "kernel"): 1, ("worker", "own"): 1, ("floor", "send"): 1}
        self.assertEqual(dict(found), wanted)


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=2).result
    failed = len(result.failures) + len(result.errors)
    print(f"comparison: {result.testsRun - failed} passed, {failed} failed")
    sys.exit(failed > 0)
