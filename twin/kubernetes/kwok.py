"""Simulated mode: two nodes without a machine behind them, on the real control plane, run by KWOK. Needs no root.

Nodes have the shape and the labels of the real ones (twin/kubernetes/node.py), so the scheduler decides as it would; what becomes
of pods is in kwok_stages.yaml. No container ever runs: nothing is served, no Job's command executed, no image pulled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twin.build import programs
from twin.config import PartStatus, Twin
from twin.host import pki, processes
from twin.kubernetes import control_plane
from twin.kubernetes.node import (
    ALLOCATABLE_CPU_MILLICORES,
    CAPACITY_MEMORY_KIBIBYTES,
    MAXIMUM_PODS,
    RESERVED_MEMORY_MEBIBYTES,
    Node,
    labels,
    node_objects,
    nodes,
    ready_condition,
)

_PROCESS = "kwok"
_START_SECONDS = 60.0
_STAGES = Path(__file__).with_name("kwok_stages.yaml")
_LEASE_SECONDS = 40
DISK_GIBIBYTES = 40
"""Size of a node's disk, as infra/capacity.py declares it."""
_FIELD_MANAGER = "shopcat-twin"


def node_manifest(node: Node) -> dict[str, Any]:
    """The Node object as a kubelet on EKS would register it."""
    allocatable_memory = CAPACITY_MEMORY_KIBIBYTES - 1024 * RESERVED_MEMORY_MEBIBYTES
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                **labels(node),
            },
        },
        "spec": {
            "podCIDR": node.twin.pod_cidr(node.number),
            "podCIDRs": [node.twin.pod_cidr(node.number)],
            "providerID": node.provider_id,
        },
        "status": {
            "capacity": {
                "cpu": "2",
                "memory": f"{CAPACITY_MEMORY_KIBIBYTES}Ki",
                "ephemeral-storage": f"{DISK_GIBIBYTES}Gi",
                "pods": str(MAXIMUM_PODS),
            },
            "allocatable": {
                "cpu": f"{ALLOCATABLE_CPU_MILLICORES}m",
                "memory": f"{allocatable_memory}Ki",
                # The agent keeps 1 GiB, and the kubelet evicts below a tenth.
                "ephemeral-storage": f"{DISK_GIBIBYTES * 9 // 10 - 1}Gi",
                "pods": str(MAXIMUM_PODS),
            },
            "addresses": [
                {"type": "InternalIP", "address": node.ip},
                {"type": "Hostname", "address": node.name},
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "operatingSystem": "linux",
                "kubeletVersion": "v0.0.0-simulated",
                "containerRuntimeVersion": "kwok://simulated",
                "osImage": "simulated",
                "kernelVersion": "",
                "kubeProxyVersion": "",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
        },
    }


def _ready(twin: Twin, node: Node) -> bool:
    return bool(ready_condition(node_objects(twin).get(node.name, {}))["status"] == "True")


def up(twin: Twin) -> None:
    """Register both nodes and keep them alive.

    Raises:
        TwinError: a node doesn't become Ready; names KWOK's log.
    """
    known = node_objects(twin)
    for node in nodes(twin):
        if node.name not in known:
            control_plane.call(twin, "POST", f"/api/v1/nodes?fieldManager={_FIELD_MANAGER}", node_manifest(node))
    kubeconfig = pki.kubeconfig(twin, "kwok", "kwok", "system:masters")
    process = processes.start(
        twin,
        _PROCESS,
        [
            programs.program(twin, "kwok"),
            f"--kubeconfig={kubeconfig}",
            f"--config={_STAGES}",
            "--manage-all-nodes=true",
            "--v=WARN",
            f"--node-lease-duration-seconds={_LEASE_SECONDS}",
        ],
    )
    for node in nodes(twin):
        processes.wait_until(
            lambda node=node: _ready(twin, node),  # type: ignore[misc]
            f"simulated node {node.name} Ready",
            timeout_seconds=_START_SECONDS,
            process=process,
        )


def down(twin: Twin) -> None:
    """Stop KWOK; its nodes go with the cluster's data."""
    processes.stop(twin, _PROCESS)


def status(twin: Twin) -> list[PartStatus]:
    """KWOK itself, and what Kubernetes says of its nodes."""
    process = processes.find(twin, _PROCESS)
    if process is None:
        return [PartStatus(_PROCESS, ok=False, detail=f"not running; log: {twin.logs / f'{_PROCESS}.log'}")]
    lines = [PartStatus(_PROCESS, ok=True, detail=f"pid {process.pid}")]
    try:
        objects = node_objects(twin)
    except control_plane.ApiError as error:
        return [*lines, PartStatus("nodes", ok=False, detail=str(error))]
    for node in nodes(twin):
        ok = ready_condition(objects.get(node.name, {}))["status"] == "True"
        lines.append(PartStatus(node.name, ok=ok, detail="Ready, simulated" if ok else "not Ready, simulated"))
    return lines
