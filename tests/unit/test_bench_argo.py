"""Argo's objects in the bench: the stand-in controller plays their Ingresses, and their numbers are those of the drain budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.argo import Argo, ArgoBlueGreen, ArgoCanary, analysis
from bench.argo_status import final_phase
from bench.images import Images
from bench.workloads import SHORT_BUDGET
from infra.timeouts import METRIC_MINUTES_SECONDS
from twin import config
from twin.loadbalancer.controller.ingress_model import build, unplayed


def made(kind: type[Argo], tmp_path: Path) -> Argo:
    twin = config.Twin("x", 1, tmp_path, tmp_path, True)
    return kind(twin, tmp_path, Images(twin, tmp_path), SHORT_BUDGET)


@pytest.mark.parametrize(("kind", "weights"), [(ArgoCanary, {"ping": 100, "pong": 0}), (ArgoBlueGreen, {"active": 1})])
def test_the_stand_in_plays_the_ingress(kind: type[Argo], weights: dict[str, int], tmp_path: Path) -> None:
    system = made(kind, tmp_path)
    ingress = system.ingress()
    ingress["metadata"]["namespace"] = system.name
    assert unplayed(ingress) == []
    services: dict[str, Any] = {
        name: {
            "metadata": {"name": name, "namespace": system.name, "uid": name},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }
        for name in system.services
    }
    model = build(ingress, services, cluster="shopcat", default_target_type="instance")
    assert {group.service: group.weight for group in model.groups} == weights
    assert set(weights) <= set(system.services)


@pytest.mark.parametrize("kind", [ArgoCanary, ArgoBlueGreen])
def test_a_pod_leaves_as_late_as_the_patched_chart_s(kind: type[Argo], tmp_path: Path) -> None:
    secret = {"host": "h", "port": "5432", "dbname": "d", "username": "u", "password": "never in it"}
    rollout = made(kind, tmp_path)._rollout("v1.0.0", secret)
    pod = rollout["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert slept == SHORT_BUDGET.pre_stop_seconds
    assert pod["terminationGracePeriodSeconds"] >= slept + SHORT_BUDGET.app_drain_seconds
    assert "never in it" not in str(rollout)


def test_old_pods_stay_until_the_load_balancer_has_left_them(tmp_path: Path) -> None:
    for kind, key in ((ArgoCanary, "canary"), (ArgoBlueGreen, "blueGreen")):
        strategy = made(kind, tmp_path).strategy()[key]
        needed = SHORT_BUDGET.propagation_seconds + SHORT_BUDGET.longest_request_seconds
        assert min(strategy["scaleDownDelaySeconds"], strategy["abortScaleDownDelaySeconds"]) >= needed


def test_the_controller_is_done_once_it_has_seen_the_newest_template() -> None:
    def rollout(phase: str, observed: int) -> dict[str, Any]:
        return {"metadata": {"generation": 3}, "status": {"phase": phase, "observedGeneration": str(observed)}}

    assert [final_phase(rollout(phase, 3)) for phase in ("Healthy", "Degraded", "Progressing", "Paused")] == [
        "Healthy",
        "Degraded",
        "",
        "",
    ]
    assert final_phase(rollout("Healthy", 2)) == ""
    assert final_phase({"metadata": {"generation": 1}}) == ""


def test_the_analysis_sees_two_whole_minutes_of_the_load_balancer() -> None:
    (metric,) = analysis("arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/app/x/1")["spec"]["metrics"]
    seconds = {name: int(metric[name].removesuffix("s")) for name in ("initialDelay", "interval")}
    took = seconds["initialDelay"] + (metric["count"] - 1) * seconds["interval"]
    assert took >= METRIC_MINUTES_SECONDS
    queries = metric["provider"]["cloudWatch"]["metricDataQueries"]
    named = [query["metricStat"]["metric"]["dimensions"] for query in queries]
    assert named == [[{"name": "LoadBalancer", "value": "app/x/1"}]] * len(queries)
