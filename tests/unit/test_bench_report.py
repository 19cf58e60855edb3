"""The report says what was measured, and says so when a run proves nothing."""

import dataclasses
import json
from pathlib import Path

from bench import report
from bench.load import Outcome
from bench.scenarios import Measured, Result
from bench.systems import LEGACY, OURS, PATCHED


def measured(scenario: str, system: str, failed: int, ratio: float = 1.0) -> Measured:
    return Measured(scenario, system, 0.0, 10.0, ratio, 100, failed, {"http-502": failed} if failed else {}, 0.01, 0.05)


def outcomes(system: str) -> list[Outcome]:
    good = [Outcome("page, fresh", f"{system}{i}", i, i + 0.01, 200, colour="blue") for i in range(20)]
    return [*good, Outcome("page, fresh", f"{system}x", 5.0, 5.1, 502, "http-502")]


GOOD = Result(
    measured=[
        measured("too small a budget: eviction", OURS, 7, 360.0),
        *(measured("new tag", system, failed) for system, failed in ((OURS, 0), (LEGACY, 40), (PATCHED, 0))),
        measured("rollback", OURS, 0, 3.0),
    ],
    steps=[(0.0, "new tag")],
    outcomes={name: outcomes(name) for name in (OURS, LEGACY, PATCHED, "too small")},
    disagreements=[],
    orders_wrong=[],
    seconds=12.0,
)


def test_the_page_holds_every_count_and_the_json_every_failure(tmp_path: Path) -> None:
    report.write(GOOD, tmp_path)
    page, raw = (tmp_path / "bench.html").read_text(), json.loads((tmp_path / "bench.json").read_text())
    assert "<b>40</b>" in page
    assert "proves nothing" not in page
    assert page.count("data:image/svg+xml") == 5
    assert [one["failed"] for one in raw["measured"]] == [7, 0, 40, 0, 0]
    assert len(raw["failures"][LEGACY]) == 1


def test_the_curve_has_one_point_for_each_ratio() -> None:
    assert report.curve_points(GOOD.measured, OURS) == [(1.0, 0), (3.0, 0)]


def test_a_run_that_proves_nothing_says_why() -> None:
    assert report.problems(GOOD) == []
    ours_failed = dataclasses.replace(GOOD, measured=[*GOOD.measured, measured("node drain", OURS, 1)])
    assert report.problems(ours_failed) == ["ours failed 1 requests"]
    kind = dataclasses.replace(GOOD, measured=[one for one in GOOD.measured if one.failed == 0])
    assert len(report.problems(kind)) == 2
    assert "disagree" in report.problems(dataclasses.replace(GOOD, disagreements=["x"]))[0]
    assert "exactly once" in report.problems(dataclasses.replace(GOOD, orders_wrong=["k"]))[0]
