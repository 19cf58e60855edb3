"""The time of one more preview is flat or not, a run proves something or not, and its page holds it all."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from bench import previews, previews_report
from bench.measurements import Measurement
from bench.previews_report import BUSY, CLOSED, OPENED, QUIET, UPDATED, Operation, Result
from bench.steps import Step
from bench.systems import OURS
from bench.workloads import SHORT_SETTINGS
from infra import capacity
from infra.previews import isolation
from infra.settings import read_preview
from twin.paths import REPOSITORY

PLACES = 3
REFUSAL = "\n".join(["pr-4: 3 previews fit beside a full release", *(f"  - pr-{n}, open for 2 min" for n in (1, 2, 3))])


def change(scenario: str, began: float, ended: float) -> Measurement:
    steps = (Step(began + 1, "claim"), Step(began + 5, "live"))
    return Measurement(scenario, OURS, began, ended, 1.0, 500, 0, {}, 0.01, 0.05, steps=steps, load=OURS)


def operations(up_seconds: tuple[float, ...] = (31.0, 30.0, 30.5)) -> list[Operation]:
    result = []
    for at, (what, phase) in enumerate(
        ((OPENED, QUIET), (CLOSED, QUIET), (OPENED, BUSY), (UPDATED, BUSY), (CLOSED, BUSY))
    ):
        for number in range(1, PLACES + 1):
            began = 1000.0 * at + 100 * number
            up = up_seconds[number - 1]
            steps = {"namespace": 60.0} if what == CLOSED else {"build": 5.0, "pulumi up": up}
            result.append(Operation(what, number, phase, began, began + sum(steps.values()), steps))
    return result


GOOD = Result(
    places=PLACES,
    arithmetic="a full release uses 18 of 34 pod slots; 3 previews fit beside it",
    room=[("pod slots", 34, 27, 7, 9)],
    operations=operations(),
    changes=[change("release of v1.1.0", 2050.0, 3200.0), change("rollback of v1.1.0 to v1.0.0", 3200.0, 4150.0)],
    requests=9000,
    failed=0,
    by_failure={},
    disagreements=[],
    orders_wrong=[],
    refusal=REFUSAL,
    left_by_refused={},
    stale=[],
    left={},
    new_objects=[],
    seconds=1500.0,
)


def test_the_slope_sees_a_steady_growth_and_forgives_one_that_is_off() -> None:
    assert previews_report.slope([10.0, 11.0, 12.0, 13.0]) == pytest.approx(1.0)
    assert previews_report.trend([10.0, 11.0, 12.0, 13.0, 14.0]) == pytest.approx(4 / 12)
    flat = [30.0, 30.4, 29.8, 30.2, 29.9, 30.1]
    assert abs(previews_report.trend([45.0, *flat])) < previews_report.MAX_TREND, "the first is cold"
    assert abs(previews_report.trend([*flat, 45.0])) < previews_report.MAX_TREND, "the machine was busy once"
    assert previews_report.trend([30.0 + n for n in range(7)]) > previews_report.MAX_TREND


def test_what_was_done_several_times_counts_with_its_median() -> None:
    again = [
        dataclasses.replace(operation, began=operation.began + 5000, steps={"pulumi up": up})
        for operation, up in zip(GOOD.of(OPENED, QUIET) * 2, (61.0, 30.2, 30.5, 33.0, 10.0, 30.5), strict=True)
    ]
    result = dataclasses.replace(GOOD, operations=[*GOOD.operations, *again])
    assert previews_report.up_seconds(result, QUIET) == [33.0, 30.0, 30.5]
    assert previews_report.up_seconds(result, BUSY) == [31.0, 30.0, 30.5]


@pytest.mark.parametrize("few", [[], [30.0]])
def test_fewer_than_two_have_no_trend(few: list[float]) -> None:
    assert previews_report.trend(few) == 0.0


def test_the_scatter_is_the_median_distance_from_the_median() -> None:
    assert previews_report.scatter([10.0, 9.0, 11.0, 10.0, 30.0]) == pytest.approx(0.1)


def test_the_room_is_that_of_the_capacity_plan() -> None:
    document = yaml.safe_load((REPOSITORY / "Pulumi.prod.yaml").read_text())
    production = capacity.ProductionDemand(
        2, capacity.PodRequest(200, 384), database_pool_size=5, database_max_connections=112
    )
    plan = capacity.plan(production)
    rows = {title: rest for title, *rest in previews_report.room(plan, production)}
    assert rows["pod slots"] == [34, plan.pods, 2 * plan.previews + 1, 2 * plan.previews + 3]
    assert all(total - release >= taken for total, release, taken, _ in rows.values())
    assert any(total - release < more for total, release, _, more in rows.values()), (
        "no sum says why one more is too many"
    )
    assert document["config"]["shopcat:release"]["replicas"] == production.replicas


def test_the_plan_is_read_from_settings(tmp_path: Path) -> None:
    document = yaml.safe_load((REPOSITORY / "Pulumi.prod.yaml").read_text())
    document["config"].update(SHORT_SETTINGS)
    path = tmp_path / "Pulumi.prod.yaml"
    path.write_text(yaml.safe_dump(document))
    plan, production = previews.room_of(path)
    assert plan == capacity.plan(production)
    assert f"{plan.previews} previews fit" in plan.describe(production)


def test_previews_drain_as_production_does() -> None:
    _, settings = read_preview(REPOSITORY / "Pulumi.pr.yaml", {**previews.SETTINGS, "shopcat:tag": "a" * 40})
    production = SHORT_SETTINGS["shopcat:release"]["env"]
    assert settings.env == production
    assert settings.drain.budget.app_drain_seconds == int(production["APP_DRAIN_SECONDS"])
    assert isolation.quota()["pods"] == "4", "one that drains beside one that is replaced"


def test_production_goes_on_from_the_first_release_and_back_to_it() -> None:
    done = list(previews.changes(("v1.1.0", "v1.2.0"), "v1.0.0"))
    assert [values for _, values in done] == [
        {"tag": "v1.1.0"},
        {"rollback": "v1.1.0->v1.0.0"},
        {"tag": "v1.2.0"},
        {"rollback": "v1.2.0->v1.0.0"},
    ]


def test_what_production_went_through_meanwhile() -> None:
    opening = next(each for each in GOOD.operations if (each.what, each.phase, each.number) == (OPENED, BUSY, 1))
    assert previews_report.beside(opening, GOOD.changes) == ["release of v1.1.0"]
    assert previews_report.beside(GOOD.of(OPENED, QUIET)[0], GOOD.changes) == []


def test_a_good_run_has_no_problem() -> None:
    assert previews_report.problems(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"failed": 2, "by_failure": {"http-502": 2}}, "2 of 9000 production requests failed"),
        ({"requests": 0}, "0 of 0 production requests"),
        ({"disagreements": ["x"]}, "disagree: x"),
        ({"orders_wrong": ["k"]}, "exactly once: k"),
        ({"operations": operations()[:-1]}, "closed, beside releases: 2 previews of the 3"),
        ({"operations": operations((30.0, 40.0, 50.0))}, "changes by +50% from the first"),
        ({"operations": operations((301.0, 301.0, 301.0))}, "pr-1 opened after 306 s"),
        ({"changes": []}, "no release of production went live"),
        ({"refusal": ""}, "pr-4, one too many, was not refused"),
        ({"refusal": "docker push"}, "for another reason: docker push"),
        ({"refusal": REFUSAL.replace("pr-2", "pr-9")}, "does not name pr-2"),
        ({"left_by_refused": {"places": ["4"]}}, "left by the refused one: places: 4"),
        ({"stale": ["pr-2"]}, "pr-2 does not serve"),
        ({"left": {"secrets": ["shopcat-preview/pr-1/database"]}}, "secrets: shopcat-preview/pr-1/database"),
        ({"new_objects": ["ClusterRole x"]}, "ClusterRole x"),
    ],
)
def test_a_run_that_proves_nothing_says_why(changed: dict[str, object], expected: str) -> None:
    result = dataclasses.replace(GOOD, **changed)  # type: ignore[arg-type]
    problems = previews_report.problems(result)
    assert any(expected in problem for problem in problems), problems
    assert "proves nothing" in previews_report.page(result)


def test_what_was_done_while_production_stood_still_counts_for_nothing() -> None:
    problems = previews_report.problems(
        dataclasses.replace(GOOD, changes=[change("release of v1.1.0", 2050.0, 2500.0)])
    )
    assert problems == [f"{what}, {BUSY}: production stood still meanwhile" for what in (UPDATED, CLOSED)]


def test_the_page_and_the_json_hold_what_was_measured(tmp_path: Path) -> None:
    previews_report.write(GOOD, tmp_path, "previews")
    page, raw = (tmp_path / "previews.md").read_text(), json.loads((tmp_path / "previews.json").read_text())
    assert "| 1 | 31.0 | 36.0 | 31.0 | 36.0 | 36.0 | 60.0 |" in page
    assert "| pod slots | 34 | 27 | 7 | 7 | 9 |" in page
    assert "9000 requests, **0 failed**" in page
    assert "| release of v1.1.0 | 1150 | 500 | 0 |" in page
    assert GOOD.arithmetic in page
    assert "pr-3, open for 2 min" in page
    assert "Nothing. Looked for, of any preview" in page
    assert "proves nothing" not in page
    assert raw["trend"][QUIET] == pytest.approx(-0.0164, abs=1e-3)
    assert f"{raw['trend'][QUIET]:+.1%}" in page
    assert len(raw["operations"]) == 5 * PLACES
    assert raw["problems"] == []


def test_the_committed_page_is_that_of_the_committed_figures() -> None:
    document = json.loads(previews_report.PUBLISHED.read_text())
    assert (
        previews_report.page(previews_report.read(document)) == previews_report.PUBLISHED.with_suffix(".md").read_text()
    )


def test_figures_are_read_back_whole() -> None:
    document = json.loads(json.dumps(previews_report.raw(GOOD)))
    assert previews_report.raw(previews_report.read(document)) == document
