"""Two nodes shaped like t3.medium: their names, folders, labels and sizes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from twin.config import Twin, region
from twin.errors import TwinError
from twin.kubernetes import control_plane

INSTANCE_TYPE = "t3.medium"
CAPACITY_MEMORY_KIBIBYTES = 3_943_312
"""Memory that a t3.medium's kernel reports, from `kubectl describe node` of real nodes."""
RESERVED_MEMORY_MEBIBYTES = 442 + 100
"""EKS: 255 Mi + 11 Mi for each of 17 pods for the kubelet, and 100 Mi below which it would evict. The twin's kubelet
never evicts (the machine's memory isn't the node's), so all of it is reserved."""
ALLOCATABLE_CPU_MILLICORES = 1930
MAXIMUM_PODS = 17
"""3 network interfaces x (6 - 1) addresses + 2."""
NODE_GROUP = "shopcat"

KUBELET_PORT = 10250
PROXY_HEALTH_PORT = 10256
START_SECONDS = 120.0


@dataclass(frozen=True)
class Node:
    """Names and folders of node 1 or 2."""

    twin: Twin
    number: int

    @property
    def name(self) -> str:
        """Its name in Kubernetes."""
        return self.twin.node_names[self.number - 1]

    @property
    def netns(self) -> str:
        """Its network namespace."""
        return self.twin.netns(self.number)

    @property
    def ip(self) -> str:
        """Its address."""
        return self.twin.node_ip(self.number)

    @property
    def directory(self) -> Path:
        """Everything it writes."""
        return self.twin.directory / "nodes" / self.name

    @property
    def etc(self) -> Path:
        """Its configuration files."""
        return self.directory / "etc"

    @property
    def containerd_socket(self) -> Path:
        """Socket at which ``ctr -n k8s.io`` reaches its containerd."""
        return self.directory / "containerd.sock"

    @property
    def zone(self) -> str:
        """The nodes stand in two zones."""
        return f"{region()}{'ab'[self.number - 1]}"

    @property
    def instance_id(self) -> str:
        """An EC2 instance id that stays the same for this twin's node."""
        return f"i-{hashlib.sha256(f'{self.twin.name}/{self.name}'.encode()).hexdigest()[:17]}"

    @property
    def provider_id(self) -> str:
        """The node's provider ID in the format of the AWS cloud provider."""
        return f"aws:///{self.zone}/{self.instance_id}"

    def process(self, role: str) -> str:
        """Name of one of its processes."""
        return f"{self.name}-{role}"


def nodes(twin: Twin) -> tuple[Node, Node]:
    """Both nodes."""
    return (Node(twin, 1), Node(twin, 2))


def labels(node: Node) -> dict[str, str]:
    """Labels that EKS and its kubelet arguments give a managed node, beside those a kubelet sets itself."""
    return {
        "node.kubernetes.io/instance-type": INSTANCE_TYPE,
        "beta.kubernetes.io/instance-type": INSTANCE_TYPE,
        "topology.kubernetes.io/region": region(),
        "topology.kubernetes.io/zone": node.zone,
        "eks.amazonaws.com/nodegroup": NODE_GROUP,
        "eks.amazonaws.com/capacityType": "ON_DEMAND",
    }


def reserved_cpu_millicores(machine_cpus: int) -> int:
    """Return the CPU that a kubelet must reserve so that 1930m are left for pods.

    Raises:
        TwinError: the machine has fewer than two CPUs.
    """
    reserved = 1000 * machine_cpus - ALLOCATABLE_CPU_MILLICORES
    if reserved < 0:
        raise TwinError(f"this machine has {machine_cpus} CPU; a node shaped like {INSTANCE_TYPE} needs 2")
    return reserved


def node_objects(twin: Twin) -> dict[str, dict[str, Any]]:
    """Both Node objects by name, those that exist."""
    items = control_plane.call(twin, "GET", "/api/v1/nodes")["items"]
    return {item["metadata"]["name"]: item for item in items}


def ready_condition(node_object: dict[str, Any]) -> dict[str, Any]:
    """A Node object's condition Ready; Unknown if it has none."""
    for condition in node_object.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            return cast("dict[str, Any]", condition)
    return {"status": "Unknown", "lastHeartbeatTime": "1970-01-01T00:00:00Z", "message": "never reported"}
