"""The bench's numbers, and how it counts requests and retries updates."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from bench import experiment, full, workloads
from bench.experiment import Bench
from bench.load import Load, Outcome
from bench.measurements import Action, steady_summary
from bench.steps import Step
from bench.systems import LEGACY, OURS, PATCHED, host_prefix
from infra.settings import DrainSettings
from infra.timeouts import METRIC_MINUTES_SECONDS
from twin import config
from twin.errors import TwinError
from twin.loadbalancer import parameters
from twin.loadbalancer.access_log import Request
from twin.loadbalancer.engine import Engine


def test_every_delay_can_be_made_the_worst_one(tmp_path: Path) -> None:
    twin, nothing = config.Twin("x", 1, tmp_path, tmp_path, True), cast("Any", None)
    engine = Engine(twin, parameters.load(), nothing, None, processes_run=False, targets_answer=False)
    delay = parameters.load().deregistration_seconds
    assert len({engine._draw(delay) for _ in range(10)}) == 10
    engine.set_faults({"delayScale": 0.5, "delayWorst": True})
    assert {engine._draw(delay) for _ in range(10)} == {delay.maximum * 0.5}
    with pytest.raises(TwinError, match="true or false"):
        engine.set_faults({"delayWorst": 1})


def test_the_short_settings_give_the_short_budget_and_keep_what_does_not_scale() -> None:
    drain = DrainSettings.model_validate(workloads.SHORT_SETTINGS["shopcat:drain"]).budget
    assert drain == workloads.SHORT_BUDGET
    committed = DrainSettings().budget
    assert (drain.controller_lag_seconds, drain.app_keep_alive_seconds, drain.settle_seconds) == (
        committed.controller_lag_seconds,
        committed.app_keep_alive_seconds,
        METRIC_MINUTES_SECONDS,
    )


def test_each_system_has_a_host_of_its_own() -> None:
    assert [host_prefix(system) for system in (OURS, LEGACY, PATCHED)] == ["", "legacy.", "patched."]


def test_what_an_update_that_failed_said_is_its_diagnostics() -> None:
    log = "Updating\n\nDiagnostics:\n  Job (smoke):\n    error: no\n\nOutputs:\n  - releases: [...]\n"
    assert experiment.errors_of(log) == "Job (smoke):\n    error: no"
    assert experiment.errors_of("killed") == "killed"


def test_an_update_that_fails_is_gone_on_with_once_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = config.Twin("x", 1, tmp_path, tmp_path, True)
    bench, left = Bench(twin, tmp_path, full.MIX, lambda _: None), [TwinError("smoke failed")]

    def up(*_: Any) -> str:
        if left:
            raise left.pop()
        return "9 s"

    monkeypatch.setattr(bench, "up", up)
    assert "run twice" in bench.up_with_retry({}, {"tag": "v1.0.0"})
    assert bench.retried_updates == ["smoke failed"]
    assert bench.up_with_retry({}, {"tag": "v1.1.0"}) == "9 s"
    left += [TwinError("smoke failed")] * 2
    with pytest.raises(TwinError):
        bench.up_with_retry({}, {"tag": "v1.2.0"})


class Sent:
    """A load that has ended."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes


def test_a_request_belongs_to_the_scenario_that_had_begun_when_it_was_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(config.Twin("x", 1, tmp_path, tmp_path, True), tmp_path / "b", workloads.SHORT_MIX)
    due = [90.0, 95.0, 101.0, 105.0, 119.0, 121.0]
    outcomes = [Outcome("a", str(at), at, at + 0.1, 200, "http-502" if at in (105.0, 119.0) else "") for at in due]
    bench.loads[OURS] = cast("Load", Sent(outcomes))
    first = Action("new tag", OURS, 1.0, 100.0, 110.0)
    second = Action("rollback", OURS, 1.0, 120.0, 130.0)
    bench._actions = [first, second]
    measurements = bench.measurements()
    assert [(each.scenario, each.requests, each.failed) for each in measurements] == [
        ("new tag", 3, 2),
        ("rollback", 1, 0),
    ]
    assert {each.load for each in measurements} == {OURS}
    assert measurements[0].steady_p99 == pytest.approx(0.1)


def test_a_load_is_compared_with_its_own_load_balancer_and_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(config.Twin("x", 1, tmp_path, tmp_path, True), tmp_path / "b", workloads.SHORT_MIX)
    sent = [
        Outcome("page", "a", 100.0, 100.1, 200),
        Outcome("page", "b", 101.0, 101.1, 200),
        Outcome("order", "c", 102.0, 102.1, 201, key="kept"),
        Outcome("order", "d", 103.0, 103.1, 201, key="lost"),
    ]
    logs = {"its-own": {"a": 200, "b": 502, "c": 201, "d": 201, "of another load": 502}}

    def requests_since(_: object, since: float, name: str) -> list[Request]:
        assert 98 < since <= 100
        return [
            Request(0, "n", 80, "r", "g", "t", status, True, "--", 0, 0, 0, "c", "GET", "/", trace)
            for trace, status in logs[name].items()
        ]

    monkeypatch.setattr(experiment, "_LOGGED_SECONDS", 0)
    monkeypatch.setattr(experiment.run, "requests_since", requests_since)
    monkeypatch.setattr(experiment.run, "stored_orders", lambda _: {"kept": 1})
    assert bench.contradictions_of(sent, "its-own") == [
        "b: client HTTP 200, load balancer HTTP 502",
        "acknowledged order not stored exactly once: lost",
    ]


def test_what_the_bench_itself_holds_up_before_an_action_is_not_what_the_shop_takes() -> None:
    slow = [Outcome("page", str(at), at, at + 0.8, 200) for at in (70.0, 80.5, 84.9)]
    quick = [Outcome("page", str(at), at, at + 0.01, 200) for at in (85.0, 90.0, 99.9)]
    later = [Outcome("page", "during", 100.0, 100.5, 200)]
    summary = steady_summary([*slow, *quick, *later], 100.0)
    assert (summary.requests, summary.p99) == (3, pytest.approx(0.01))


def test_the_floor_counts_metrics_as_late_as_they_were(tmp_path: Path) -> None:
    twin = config.Twin("x", 1, tmp_path, tmp_path, True)
    bench = Bench(twin, tmp_path / "b", workloads.SHORT_MIX)
    reached = [Step(600.0, "shift"), Step(900.0, "live")]
    action = Action("new tag", OURS, 1.0, 500.0, 910.0, steps=reached)
    assert bench.floor(action.steps) == [], "without two minutes of metrics nothing can be said"
    twin.logs.mkdir(parents=True)
    lines = [json.dumps({"minute": minute, "written": at}) for minute, at in ((540, 650.0), (600, 777.0), (660, 888.0))]
    (twin.logs / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert dict(bench.floor(action.steps))["settle and two metric minutes"] == 288.0
    action.steps = reached[:1]
    assert bench.floor(action.steps) == [], "a release that was taken back has none"
