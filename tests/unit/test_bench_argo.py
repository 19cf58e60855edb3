"""Argo's objects in the bench: the stand-in controller plays their Ingresses, their numbers are those of the drain budget, their
pods those of the patched chart."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import argo_analysis
from bench.argo import Argo, ArgoBlueGreen, ArgoCanary, disruption_budget
from bench.argo_analysis import PROBE, PYTHON
from bench.argo_status import final_phase
from bench.images import Images
from bench.workloads import SHORT_BUDGET
from infra.timeouts import METRIC_MINUTES_SECONDS
from twin import config
from twin.loadbalancer.controller.ingress_model import build, unplayed
from twin.paths import REPOSITORY

LOAD_BALANCER = "arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/app/x/1"
SECRET = {"host": "h", "port": "5432", "dbname": "d", "username": "u", "password": "never in it"}
DEPLOYMENT, DISRUPTION = (f"helm/shopcat/templates/{name}.yaml" for name in ("deployment", "disruption"))


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
    rollout = made(kind, tmp_path)._rollout("v1.0.0", SECRET)
    pod = rollout["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert slept == SHORT_BUDGET.pre_stop_seconds
    assert pod["terminationGracePeriodSeconds"] >= slept + SHORT_BUDGET.app_drain_seconds
    assert "never in it" not in str(rollout)


def patched(file: str, first: str, end: str = "") -> Any:
    """Read a piece of a file, from a line to another, as patches/02 leaves it."""
    (patch,) = (REPOSITORY / "patches").glob("02-*.diff")
    changes = patch.read_text().partition(f"+++ b/{file}\n")[2].partition("\ndiff --git")[0]
    text = "\n".join(line[1:] for line in changes.splitlines() if line[:1] in {"+", " "})
    begin = text.index(f"{first}:")
    begin = text.rindex("\n", 0, begin) + 1 if begin else 0
    return yaml.safe_load(textwrap.dedent(text[begin : text.index(end, begin) if end else None]))


@pytest.mark.parametrize("kind", [ArgoCanary, ArgoBlueGreen])
def test_the_pods_are_those_of_the_patched_chart(kind: type[Argo], tmp_path: Path) -> None:
    spec = made(kind, tmp_path)._rollout("v1.0.0", SECRET)["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: value for name, value in container.items() if name.endswith("Probe")}
    assert len(probes) == 3
    assert probes == patched(DEPLOYMENT, "startupProbe", "          resources:")
    spread = {"topologySpreadConstraints": pod["topologySpreadConstraints"]}
    assert spread == patched(DEPLOYMENT, "topologySpreadConstraints", "      containers:")
    assert {"minReadySeconds": spec["minReadySeconds"]} == patched(DEPLOYMENT, "minReadySeconds", "  strategy:")
    assert disruption_budget()["spec"] == patched(DISRUPTION, "apiVersion")["spec"]
    assert (
        spec["template"]["metadata"]["labels"].items() >= disruption_budget()["spec"]["selector"]["matchLabels"].items()
    )


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
    metric, _ = argo_analysis.template(LOAD_BALANCER, ["192.0.2.1"], "image")["spec"]["metrics"]
    queries = metric["provider"]["cloudWatch"]["metricDataQueries"]
    named = [query["metricStat"]["metric"]["dimensions"] for query in queries]
    assert named == [[{"name": "LoadBalancer", "value": "app/x/1"}]] * len(queries)
    assert looked(metric) >= METRIC_MINUTES_SECONDS


def looked(metric: dict[str, Any]) -> int:
    """Return the seconds from the begin of the analysis to the metric's last look."""
    seconds = {name: int(metric[name].removesuffix("s")) for name in ("initialDelay", "interval")}
    return seconds["initialDelay"] + int(metric["count"] - 1) * seconds["interval"]


def test_a_job_asks_both_nodes_for_as_long_as_cloudwatch_is_looked_at() -> None:
    cloudwatch, requests = argo_analysis.template(LOAD_BALANCER, ["192.0.2.1", "192.0.2.2"], "image")["spec"]["metrics"]
    job = requests["provider"]["job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert (job["backoffLimit"], pod["restartPolicy"], container["image"]) == (0, "Never", "image")
    assert container["command"][:3] == [PYTHON, "-c", PROBE]
    assert container["command"][3:] == [str(looked(cloudwatch)), "http://192.0.2.1/", "http://192.0.2.2/"]
    assert f'ENTRYPOINT ["{PYTHON}"' in (REPOSITORY / "app_docker" / "Dockerfile").read_text()
    assert "labels" not in job["template"].get("metadata", {}), "its pod is none of the shop's"


def test_the_canary_is_analysed_from_its_first_weight_on_and_at_its_end(tmp_path: Path) -> None:
    canary = made(ArgoCanary, tmp_path).strategy()["canary"]
    weighted = [number for number, step in enumerate(canary["steps"]) if step.get("setWeight")]
    assert canary["analysis"]["startingStep"] == weighted[0]
    assert canary["steps"][-1]["analysis"]["templates"] == canary["analysis"]["templates"]
    assert canary["steps"][weighted[-1]] == {"setWeight": 100}
    assert len(canary["steps"]) - 1 > weighted[-1]


class Page(BaseHTTPRequestHandler):
    """Answers each request with the next status of its server's list, the last one for ever."""

    def do_GET(self) -> None:
        statuses, asked = self.server.statuses, self.server.asked
        self.send_response(statuses[min(len(asked), len(statuses) - 1)])
        self.send_header("Content-Length", "0")
        self.end_headers()
        asked.append(self.client_address)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def nodes() -> Iterator[list[ThreadingHTTPServer]]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Page) for _ in range(2)]
    for server in servers:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ([200], [200], 0),
        ([404], [404], 0),
        ([200, 503], [200], 1),
        ([500], [502], 1),
        ([500, 200], [500, 200], 0),
    ],
)
def test_the_job_fails_at_the_third_request_that_fails(
    nodes: list[Any], first: list[int], second: list[int], code: int
) -> None:
    nodes[0].statuses, nodes[1].statuses = first, second
    assert probe("8" if code else "3", nodes) == code
    asked = [len(node.asked) for node in nodes]
    assert abs(asked[0] - asked[1]) <= 1, "in turns"
    assert len({address for node in nodes for address in node.asked}) == sum(asked), "each on a connection of its own"
    assert sum(asked) in ({3, 7} if code else range(3, 7))


def test_a_node_that_does_not_answer_fails_the_job(nodes: list[Any]) -> None:
    for node in nodes:
        node.statuses = [200]
        node.shutdown()
        node.server_close()
    assert probe("8", nodes) == 1


def probe(seconds: str, nodes: list[Any]) -> int:
    urls = [f"http://127.0.0.1:{node.server_port}/" for node in nodes]
    return subprocess.run([sys.executable, "-c", PROBE, seconds, *urls], check=False, timeout=60).returncode
