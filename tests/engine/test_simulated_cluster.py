"""Simulated mode: a real control plane, two nodes that nobody runs, no root."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from twin import config
from twin.host import dns, pki, processes
from twin.kubernetes import cluster_addons, control_plane, kwok, node

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the twin's control plane needs Linux"),
]

MODULES = (pki, dns, control_plane, kwok)
POD = {"containers": [{"name": "main", "image": "nowhere.invalid/any"}]}


def take_down(twin: config.Twin) -> None:
    for module in reversed(MODULES):
        module.down(twin)
    shutil.rmtree(twin.directory, ignore_errors=True)
    config.release_index(twin)


@pytest.fixture(scope="module")
def cluster() -> Iterator[config.Twin]:
    take_down(config.load("test-simulated", simulated=True))
    twin = config.load("test-simulated", simulated=True)
    twin.directory.mkdir(parents=True)
    for module in MODULES:
        module.up(twin)
    yield twin
    take_down(twin)


def eventually(probe: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def create(twin: config.Twin, path: str, manifest: dict[str, Any]) -> None:
    control_plane.call(twin, "POST", path, manifest)


def conditions(twin: config.Twin, pod: str) -> dict[str, str]:
    found = control_plane.call(twin, "GET", f"/api/v1/namespaces/default/pods/{pod}")
    return {c["type"]: c["status"] for c in found["status"].get("conditions", [])}


def test_nodes_have_the_shape_of_the_real_ones(cluster: config.Twin) -> None:
    for found in node.node_objects(cluster).values():
        assert found["status"]["allocatable"] == {
            "cpu": "1930m",
            "memory": "3388304Ki",
            "ephemeral-storage": "35Gi",
            "pods": "17",
        }
        assert found["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "t3.medium"
    assert all(line.ok for module in MODULES for line in module.status(cluster))


def test_add_ons_become_available_and_go(cluster: config.Twin) -> None:
    for name in ("vpc-cni", "coredns"):
        cluster_addons.apply(cluster, name)
        eventually(lambda name=name: not cluster_addons.problems(cluster, name), f"{name} runs")  # type: ignore[misc]
        cluster_addons.delete(cluster, name)
    path = "/api/v1/namespaces/kube-system/pods"
    eventually(lambda: not control_plane.call(cluster, "GET", path)["items"], "pods go")


def test_a_job_succeeds(cluster: config.Twin) -> None:
    spec = {"template": {"spec": {**POD, "restartPolicy": "Never"}}}
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": spec}
    create(cluster, "/apis/batch/v1/namespaces/default/jobs", manifest)
    path = "/apis/batch/v1/namespaces/default/jobs/once"
    eventually(lambda: control_plane.call(cluster, "GET", path)["status"].get("succeeded") == 1, "the Job succeeds")


def test_a_pod_is_as_ready_as_its_gates(cluster: config.Twin) -> None:
    gate = "target-health.elbv2.k8s.aws/blue"
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "gated"},
        "spec": {**POD, "readinessGates": [{"conditionType": gate}]},
    }
    create(cluster, "/api/v1/namespaces/default/pods", manifest)
    eventually(lambda: conditions(cluster, "gated").get("ContainersReady") == "True", "it runs")
    assert conditions(cluster, "gated")["Ready"] == "False"
    for state in ("True", "False", "True"):
        control_plane.call(
            cluster,
            "PATCH",
            "/api/v1/namespaces/default/pods/gated/status",
            {"status": {"conditions": [{"type": gate, "status": state}]}},
            content_type="application/strategic-merge-patch+json",
        )
        eventually(lambda state=state: conditions(cluster, "gated")["Ready"] == state, f"gate {state}")  # type: ignore[misc]
    control_plane.call(cluster, "DELETE", "/api/v1/namespaces/default/pods/gated")
    path = "/api/v1/namespaces/default/pods"
    eventually(lambda: "gated" not in json.dumps(control_plane.call(cluster, "GET", path)), "it goes")


def test_what_does_not_fit_two_t3_medium_stays_pending(cluster: config.Twin) -> None:
    big = {"containers": [{**POD["containers"][0], "resources": {"requests": {"cpu": "1931m"}}}]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "big"}, "spec": big}
    create(cluster, "/api/v1/namespaces/default/pods", manifest)

    def message() -> str:
        found = control_plane.call(cluster, "GET", "/api/v1/namespaces/default/pods/big")
        return json.dumps(found["status"].get("conditions", []))

    eventually(lambda: "Insufficient cpu" in message(), "the scheduler says so")


def test_a_second_up_starts_nothing(cluster: config.Twin) -> None:
    before = {name: processes.find(cluster, name) for name in processes.names(cluster)}
    for module in MODULES:
        module.up(cluster)
    assert {name: processes.find(cluster, name) for name in processes.names(cluster)} == before
