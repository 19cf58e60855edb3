"""The report says what was measured, and says so when a run proves nothing."""

import dataclasses
import json
from pathlib import Path

from bench import report
from bench.load import Outcome
from bench.scenarios import CURVE, NEW_TAG, RELEASE, TOO_SMALL, Measured, Result
from bench.steps import Step
from bench.systems import LEGACY, OURS, PATCHED

STEPS = (Step(0.0, "claim"), Step(4.0, "shift"), Step(8.0, "live"))


def measured(scenario: str, system: str, failed: int, ratio: float = 1.0) -> Measured:
    kinds = {"http-502": failed} if failed else {}
    one = Measured(scenario, system, 0.0, 10.0, ratio, 100, failed, kinds, 0.01, 0.05, 0.01, 0.05, load=system)
    if (scenario, system) in ((NEW_TAG, OURS), (RELEASE, OURS)):
        return dataclasses.replace(one, steps=STEPS, floor=(("settle", 8.0),))
    return one


def outcomes(system: str) -> list[Outcome]:
    good = [Outcome("page, fresh", f"{system}{i}", i, i + 0.01, 200, colour="blue") for i in range(20)]
    return [*good, Outcome("page, fresh", f"{system}x", 5.0, 5.1, 502, "http-502")]


GOOD = Result(
    measured=[
        measured(TOO_SMALL, OURS, 7, 15.0),
        *(measured(NEW_TAG, system, failed) for system, failed in ((OURS, 0), (LEGACY, 40), (PATCHED, 0))),
        measured(CURVE, OURS, 0, 1.0),
        measured(CURVE, OURS, 9, 3.0),
    ],
    outcomes={name: outcomes(name) for name in (OURS, LEGACY, PATCHED, f"{OURS} 2")},
    disagreements=[],
    orders_wrong=[],
    seconds=12.0,
)


def test_the_page_holds_every_count_and_the_json_every_failure_with_its_step(tmp_path: Path) -> None:
    report.write(GOOD, tmp_path, "bench")
    page, raw = (tmp_path / "bench.html").read_text(), json.loads((tmp_path / "bench.json").read_text())
    assert "<b>40</b>" in page
    assert "proves nothing" not in page
    assert page.count("data:image/svg+xml") == 7  # four loads, latency, floor, curve
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert [one["failed"] for one in raw["measured"]] == [7, 0, 40, 0, 0, 9]
    (failure,) = raw["failures"][OURS]
    assert (failure["failure"], failure["due"]) == ("http-502", 5.0)
    assert report.step_of([measured(NEW_TAG, OURS, 0)], OURS, 5.0) == f"{NEW_TAG}: shift"
    assert report.step_of(GOOD.measured, f"{OURS} 2", 5.0) == "before"
    assert raw["series"][LEGACY] == {
        "blue": [[float(at), 2.0] for at in range(0, 20, 2)],
        "failed": [[4.0, 1.0]],
    }


def test_the_curve_has_one_point_for_each_ratio() -> None:
    assert report.curve_points(GOOD.measured, OURS) == [(1.0, 0), (3.0, 9)]


def test_a_run_that_proves_nothing_says_why() -> None:
    assert report.problems(GOOD) == []
    ours_failed = dataclasses.replace(GOOD, measured=[*GOOD.measured, measured("node drain", OURS, 1)])
    assert report.problems(ours_failed) == ["ours failed 1 requests"]
    within_budget = dataclasses.replace(GOOD, measured=[*GOOD.measured, measured(CURVE, OURS, 2, 1.0)])
    assert report.problems(within_budget) == ["ours failed 2 requests"]
    kind = dataclasses.replace(GOOD, measured=[one for one in GOOD.measured if one.failed == 0])
    assert len(report.problems(kind)) == 2
    assert "disagree" in report.problems(dataclasses.replace(GOOD, disagreements=["x"]))[0]
    assert "exactly once" in report.problems(dataclasses.replace(GOOD, orders_wrong=["k"]))[0]


def test_a_full_run_needs_its_releases_its_requests_its_latency_and_its_time() -> None:
    full = dataclasses.replace(GOOD, full=True, measured=[measured(RELEASE, OURS, 0)])
    said = report.problems(full)
    assert "1 releases and 84 requests" in said[0]
    assert "12 of 84 requests came while a release ran" in said[1]
    assert "0 long requests in flight" in said[2]
    assert len(said) == 3
    slow = dataclasses.replace(full.measured[0], p99=0.07, ended=11.0)
    said = report.problems(dataclasses.replace(full, measured=[slow]))
    assert "1.40 of the steady one" in said[3]
    assert "1.38 of its floor" in said[4]


def test_a_full_runs_page_says_what_ran_behind_the_shop(tmp_path: Path) -> None:
    full = dataclasses.replace(GOOD, full=True, behind=True, gone_on=["smoke <failed>"], broken="stopped")
    assert report.problems(full)[0] == "the run ended early: stopped"
    report.write(full, tmp_path, "full")
    page = (tmp_path / "full.html").read_text()
    assert "idle class); the database" in page
    assert "make bench FULL=1" in page
    assert "went on with it: smoke &lt;failed&gt;" in page
    assert json.loads((tmp_path / "full.json").read_text())["behind"] is True
    report.write(dataclasses.replace(full, behind=False), tmp_path, "full")
    assert "could not be put into the kernel's idle class" in (tmp_path / "full.html").read_text()
    report.write(GOOD, tmp_path, "short")
    assert "idle class" not in (tmp_path / "short.html").read_text()


def test_a_long_request_is_in_flight_from_when_it_is_due_until_it_ends() -> None:
    one = measured(RELEASE, OURS, 0)
    sent = [Outcome("long", "x", due, ended) for due, ended in ((1.0, 3.9), (1.0, 4.1), (4.1, 9.0))]
    assert report.long_in_flight(one, [*sent, Outcome("page, fresh", "y", 3.0, 5.0)]) == 1
    assert report.released_under([dataclasses.replace(one, drained=12.0)], [*sent, Outcome("a", "z", 13.0, 13.1)]) == 3
    assert report.released_under([one, dataclasses.replace(one, drained=12.0)], sent) == 3, "each is counted once"
