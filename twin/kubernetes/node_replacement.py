"""Nodes replaced one by one, as a managed node group does it for a new AMI, version or launch template.

EKS launches new nodes before it takes old ones away (strategy DEFAULT). The twin has two places for nodes, so it takes the old
one away first, as strategy MINIMAL does: everything has to fit on one node meanwhile, which is harder. The new node has the
name and address of the old one, and nothing else of it: no pods, no images, no files.
"""

from __future__ import annotations

import time
from typing import Any

from twin.config import Twin
from twin.errors import TwinError
from twin.host import cgroups
from twin.kubernetes import control_plane, node_processes
from twin.kubernetes.node import Node, nodes
from twin.kubernetes.node_mounts import delete_directory

EVICTION_SECONDS = 900.0
"""EKS gives a node's pods 15 minutes to go, then the update fails (PodEvictionFailure,
docs.aws.amazon.com/eks/latest/userguide/managed-node-update-behavior.html)."""
_RETRY_SECONDS = 5.0
_PATCH = "application/merge-patch+json"


def replace_all(twin: Twin) -> None:
    """Replace both nodes, one after the other.

    Raises:
        TwinError: a pod can't be evicted in time, and its node stays, cordoned no more; or a node does not come up again.
    """
    if twin.simulated:
        raise TwinError("twin: replacing simulated nodes is not implemented by the stand-in; it needs real pods (root)")
    for node in nodes(twin):
        _cordon(node, unschedulable=True)
        try:
            _evict_all(node)
        except TwinError:
            _cordon(node, unschedulable=False)
            raise
        control_plane.call(twin, "DELETE", f"/api/v1/nodes/{node.name}")
        node_processes.stop(node)
        cgroups.remove(twin, node.number)
        delete_directory(node.directory)
        _forget_pods(node)
        node_processes.up(twin)


def _cordon(node: Node, *, unschedulable: bool) -> None:
    patch = {"spec": {"unschedulable": unschedulable}}
    control_plane.call(node.twin, "PATCH", f"/api/v1/nodes/{node.name}", patch, content_type=_PATCH)


def _pods(node: Node) -> list[dict[str, Any]]:
    selector = f"spec.nodeName={node.name}"
    pods: list[dict[str, Any]] = control_plane.call(node.twin, "GET", f"/api/v1/pods?fieldSelector={selector}")["items"]
    return pods


def _must_leave(pod: dict[str, Any]) -> bool:
    """Return true for a pod that is evicted: one that has not ended, and that no DaemonSet would put there again."""
    owners = pod["metadata"].get("ownerReferences", [])
    return pod["status"]["phase"] not in ("Succeeded", "Failed") and all(
        owner["kind"] != "DaemonSet" for owner in owners
    )


def _forget_pods(node: Node) -> None:
    """Delete what is still bound to a node that is gone, as the garbage collector does: the new node has the old one's name."""
    for pod in _pods(node):
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        control_plane.call(node.twin, "DELETE", path, {"gracePeriodSeconds": 0})


def _evict_all(node: Node) -> None:
    deadline = time.monotonic() + EVICTION_SECONDS
    while pods := [pod for pod in _pods(node) if _must_leave(pod)]:
        if time.monotonic() > deadline:
            names = ", ".join(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods)
            raise TwinError(f"PodEvictionFailure: {node.name} still has {names} after {EVICTION_SECONDS:.0f} s")
        for pod in pods:
            if "deletionTimestamp" not in pod["metadata"]:
                _evict(node.twin, pod["metadata"]["namespace"], pod["metadata"]["name"])
        time.sleep(_RETRY_SECONDS)


def _evict(twin: Twin, namespace: str, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    try:
        control_plane.call(twin, "POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body)
    except control_plane.ApiError as error:
        if error.status not in (404, 429):  # gone, or its disruption budget has no room now
            raise
