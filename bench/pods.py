"""Pods of a system on the twin: evicted, drained with their node, and waited for."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.systems import OURS
from bench.tools import execute
from twin.config import Twin
from twin.errors import TwinError

REPLICAS = 2
_EVICTION_SECONDS = 300


def namespace(system: str) -> str:
    """Return the namespace of a system's pods."""
    return "shopcat" if system == OURS else system


def _selector(system: str) -> str:
    return "app.kubernetes.io/name=shopcat,shopcat/colour" if system == OURS else "app=shopcat"


def list_pods(twin: Twin, system: str) -> list[dict[str, Any]]:
    """List the system's pods, those that are leaving among them."""
    arguments = ["kubectl", "get", "pods", "-n", namespace(system), "-l", _selector(system), "-o", "json"]
    pods: list[dict[str, Any]] = json.loads(execute(twin, arguments))["items"]
    return pods


def is_leaving(pod: dict[str, Any]) -> bool:
    """Return true once the pod was told to leave."""
    return "deletionTimestamp" in pod["metadata"]


def is_ready(pod: dict[str, Any]) -> bool:
    """Return true while the pod's own condition says so."""
    conditions = pod["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def are_at_rest(listed: list[dict[str, Any]]) -> bool:
    """Return true once as many pods as the shop has are ready, and no other is there."""
    return len(listed) == REPLICAS and all(is_ready(pod) and not is_leaving(pod) for pod in listed)


def evict(twin: Twin, system: str, number: int) -> float:
    """Evict pods one after the other, as the drain of their nodes would.

    Returns:
        Deadline (monotonic) by which the system has to be settled again.

    Raises:
        TwinError: there are not that many, or one could not be evicted within five minutes.
    """
    names = [pod["metadata"]["name"] for pod in list_pods(twin, system) if not is_leaving(pod)]
    if len(names) < number:
        raise TwinError(f"{len(names)} pods of {system}; {number} were to be evicted")
    deadline = time.monotonic() + _EVICTION_SECONDS
    for name in names[:number]:
        where = namespace(system)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": where}}
        path = f"/api/v1/namespaces/{where}/pods/{name}/eviction"
        while True:
            try:
                execute(twin, ["kubectl", "create", "--raw", path, "-f", "-"], stdin=json.dumps(body))
                break
            except TwinError as error:
                if "disruption budget" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1)
    return deadline


def wait_until_settled(twin: Twin, system: str, deadline: float) -> None:
    """Wait until no pod leaves and each is ready.

    Raises:
        TwinError: not by the deadline (monotonic).
    """
    while True:
        pods = list_pods(twin, system)
        if are_at_rest(pods):
            return
        if time.monotonic() > deadline:
            unready = [pod["metadata"]["name"] for pod in pods if is_leaving(pod) or not is_ready(pod)]
            raise TwinError(f"{system} has not settled: {unready or len(pods)}")
        time.sleep(1)


def wait_until_drained(twin: Twin, system: str, deadline: float) -> None:
    """Wait until no pod that was told to leave is left.

    Raises:
        TwinError: a pod still runs at the deadline (monotonic), although its grace period is over.
    """
    while leaving := [pod for pod in list_pods(twin, system) if is_leaving(pod)]:
        if time.monotonic() > deadline:
            raise TwinError(f"{leaving[0]['metadata']['name']} does not leave")
        time.sleep(5)


def drain_node(twin: Twin) -> str:
    """Run `kubectl drain` on the first node, with everything on it, then uncordon it; return its name."""
    node = twin.node_names[0]
    drain = ["kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s", "--force"]
    try:
        execute(twin, drain)
    finally:
        execute(twin, ["kubectl", "uncordon", node])
    return node
