"""Check that production fits its nodes, and count the previews that fit beside it.

Slots, CPU, memory and disk of the fullest states of N pods a release on n nodes of one shape:

* **one node drained**: live N + new N + one Job + everything the platform runs; previews yield (their priority is lower). While
  a migration runs, which comes before the new N: live N + the migration + the platform;
* **all nodes**: live N + new N + terminating N + one Job + the platform; with a migration, live N + terminating N;
* **the former release's pods kept beside the live one** (`shopcat:keepFormer`): no more than any of the above. They stand where
  a release's new N do, and are gone before the next release sets its password, migrates or starts pods;
* **the database**: the pools of live, new and terminating N, the Jobs and what PostgreSQL keeps for itself.

Sums on one node decide. It has to hold the platform, the Job and, of the shop's pods, the lesser of

* 2N: a pod without a place would mean that each node already has 2N of the 3N pods, or of the 2N that are left in a drain;
* 3 x ceil(N / (n - 1)): the pods of one release spread with a skew of 1 (infra/release/manifests.py) and one node at a time is
  drained, so no node ever has more than that of live, new and terminating ones.

On two nodes the lesser is 2N, all that is there while one is drained. Likewise with a migration: the lesser of N and
2 x ceil(N / (n - 1)). Previews are counted node by node, in what is left once the pods of each kind are spread evenly.

Slots and requests of a t3.medium on EKS (17 pods; 1930m and 3309 MiB allocatable) follow the node agent's formulas and
were read from a running node; `NODE_SHAPES` says where those of larger nodes come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

NODES = 2
"""Nodes of the cluster that this program makes."""


class CapacityError(ValueError):
    """Something does not fit; one line per shortage, each with what to change."""

    def __init__(self, shortages: list[str]) -> None:
        self.shortages = shortages
        super().__init__("production does not fit:\n" + "\n".join(f"  - {line}" for line in shortages))


@dataclass(frozen=True)
class NodeShape:
    """Resources that pods may use on one node."""

    name: str
    pod_slots: int
    cpu_millicores: int
    memory_mebibytes: int
    disk_mebibytes: int


DISK_GIBIBYTES = 40
"""Disk of a node that this program makes. The kubelet removes images at 85 percent (kubernetes.io/docs/concepts/architecture/
garbage-collection, imageGCHighThresholdPercent), so 34 GiB are used at most."""
_SYSTEM_AND_IMAGES_GIBIBYTES = 14
"""The operating system, the images of everything that may run on one node at a time, and production's own logs."""


def disk_for_pods(disk_gibibytes: int) -> int:
    """Return what a node's disk leaves to pods, in MiB."""
    return (disk_gibibytes * 85 // 100 - _SYSTEM_AND_IMAGES_GIBIBYTES) * 1024


T3_MEDIUM = NodeShape(
    "t3.medium",
    pod_slots=17,
    cpu_millicores=1930,
    memory_mebibytes=3309,
    disk_mebibytes=disk_for_pods(DISK_GIBIBYTES),
)

_INSTANCE_SIZES: Mapping[str, tuple[int, int, int]] = {
    "t3.large": (2, 8, 35),
    "t3a.large": (2, 8, 35),
    **{f"{family}.large": (2, 8, 29) for family in ("m5", "m5a", "m6a", "m6i", "m7a", "m7i", "m7i-flex")},
    **{
        f"{family}.xlarge": (4, 16, 58) for family in ("t3", "t3a", "m5", "m5a", "m6a", "m6i", "m7a", "m7i", "m7i-flex")
    },
    "t3.2xlarge": (8, 32, 58),
    "m6a.4xlarge": (16, 64, 234),
    "m6a.8xlarge": (32, 128, 234),
}
"""Instance type of x86_64 → vCPUs, GiB and pods: network interfaces x (addresses of each - 1) + 2, as the VPC CNI has them
without custom networking (aws.amazon.com/ec2/instance-types; awslabs/amazon-eks-ami, nodeadm/internal/kubelet/
eni-max-pods.txt)."""


_MANY_CORES = 30
_MOST_PODS = (110, 250)
"""Pods that a managed node group allows below 30 vCPUs, and from there on, whatever the addresses of the network interfaces
would allow (docs.aws.amazon.com/eks/latest/userguide/cni-increase-ip-addresses-procedure.html)."""


def _reserved_millicores(cores: int) -> int:
    """Return the CPU that the node agent keeps: 6 % of the first core, 1 % of the second, 0.5 % of two more, 0.25 % of the rest.

    Source: awslabs/amazon-eks-ami, nodeadm/internal/kubelet/config.go.
    """
    return 60 + 10 * (cores > 1) + 5 * min(max(cores - 2, 0), 2) + (5 * max(cores - 4, 0) + 1) // 2


def _allocatable(name: str, cores: int, gibibytes: int, pod_slots: int) -> NodeShape:
    """Return what pods may use: the node agent keeps 255 MiB + 11 MiB a pod and evicts at 100 MiB (config.go, as above).

    The kernel sees less than the instance's memory. Karpenter subtracts 7.5 percent for that where it has not seen a node
    (karpenter.sh/docs/reference/settings, vmMemoryOverheadPercent); a t3.medium was measured with 6.
    """
    visible = gibibytes * 1024 * 925 // 1000
    memory = visible - (255 + 11 * pod_slots) - 100
    millicores = 1000 * cores - _reserved_millicores(cores)
    most = _MOST_PODS[cores >= _MANY_CORES]
    return NodeShape(name, min(pod_slots, most), millicores, memory, disk_for_pods(DISK_GIBIBYTES))


NODE_SHAPES: Mapping[str, NodeShape] = {
    T3_MEDIUM.name: T3_MEDIUM,
    **{name: _allocatable(name, *size) for name, size in _INSTANCE_SIZES.items()},
}
"""Instance type → its shape with a disk of `DISK_GIBIBYTES`. t3.medium is as measured; all others are computed, with less memory
than a node really has."""


def known_shape(instance_type: str, disk_gibibytes: int) -> NodeShape:
    """Return the shape of a node.

    Raises:
        KeyError: no such instance type is known; `NODE_SHAPES` has those that are.
    """
    return replace(NODE_SHAPES[instance_type], disk_mebibytes=disk_for_pods(disk_gibibytes))


def has_room_of(node: NodeShape, other: NodeShape) -> bool:
    """Tell whether a node has at least the slots, CPU and memory of another shape; disks are chosen apart from the type."""
    return all(
        getattr(node, name) >= getattr(other, name) for name in ("pod_slots", "cpu_millicores", "memory_mebibytes")
    )


@dataclass(frozen=True)
class PodRequest:
    """Resource requests of one pod."""

    cpu_millicores: int
    memory_mebibytes: int
    disk_mebibytes: int = 0
    """Part of the node's disk: its logs, its own layer and its emptyDir volumes. Only previews are held to it; who stays below
    it is evicted last where a disk runs full (kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction)."""


@dataclass(frozen=True)
class Workload:
    """Pods of one kind that the platform runs."""

    name: str
    pod: PodRequest
    count: int = 1
    per_node: bool = False
    """One on each node (a DaemonSet): `count` is per node then."""


NODE_PODS = (
    Workload("aws-node", PodRequest(50, 0), per_node=True),
    Workload("kube-proxy", PodRequest(100, 0), per_node=True),
    Workload("eks-pod-identity-agent", PodRequest(0, 0), per_node=True),
)
CLUSTER_DNS = Workload("coredns", PodRequest(100, 70), count=2)
LOAD_BALANCER_CONTROLLER = Workload("aws-load-balancer-controller", PodRequest(50, 128), count=2)
EXTERNAL_SECRETS = Workload("external-secrets", PodRequest(25, 96), count=1)
LOG_SHIPPER = Workload("log-shipper", PodRequest(50, 100), per_node=True)
"""Runs only where `shopcat:monitoring.logs` is set. Its publisher's chart asks for 50m and 50Mi, and 250Mi at most
(aws/eks-charts, aws-for-fluent-bit 0.2.0)."""
PLATFORM: tuple[Workload, ...] = (
    *NODE_PODS,
    CLUSTER_DNS,
    LOAD_BALANCER_CONTROLLER,
    EXTERNAL_SECRETS,
)
"""Everything the platform runs; foundation/addons.py sets the requests of the two that Helm installs from these."""

JOB_POD = PodRequest(50, 64)
"""The database's Jobs and the smoke test; they run one after the other. A migration runs between them, before the pods start."""

APPLICATION_DISK_MEBIBYTES = 128
"""Disk of production's application: 64 MiB of /tmp and five log files of 10 MiB, as the kubelet keeps them."""
PREVIEW_APPLICATION = PodRequest(100, 256, 256)
PREVIEW_DATABASE = PodRequest(50, 128, 768)

RESERVED_CONNECTIONS = 5
"""PostgreSQL's superuser_reserved_connections (3) and the two that RDS keeps for itself."""

JOB_CONNECTIONS = 2
"""The database Job and a migration."""


@dataclass(frozen=True)
class ProductionDemand:
    """Settings that decide how much room a release needs."""

    replicas: int
    pod: PodRequest
    database_pool_size: int
    database_max_connections: int
    migration: PodRequest | None = None
    """The migration's pod, if the release has one."""
    node: NodeShape = T3_MEDIUM
    nodes: int = NODES
    """At least 2; all of one shape, and one at a time may be drained."""
    platform: Sequence[Workload] = PLATFORM


@dataclass(frozen=True)
class CapacityPlan:
    """The room that production needs at its fullest, and the previews that fit beside it."""

    pods: int
    cpu_millicores: int
    memory_mebibytes: int
    connections: int
    previews: int
    """Previews (application and database) that fit beside a full release on all nodes, one preview being updated."""

    def describe(self, production: ProductionDemand) -> str:
        """Return the arithmetic in one line, for a person."""
        node, nodes = production.node, production.nodes
        return (
            f"a full release uses {self.pods} of {nodes * node.pod_slots} pod slots, "
            f"{self.cpu_millicores} of {nodes * node.cpu_millicores} millicores, "
            f"{self.memory_mebibytes} of {nodes * node.memory_mebibytes} MiB and "
            f"{self.connections} of {production.database_max_connections} database connections; "
            f"{self.previews} previews fit beside it"
        )


class _Amounts(NamedTuple):
    """An amount of each resource: needed by pods, or left on a node."""

    slots: int
    cpu: int
    memory: int
    disk: int

    def minus(self, other: _Amounts, times: int = 1) -> _Amounts:
        return _Amounts(*(amount - times * taken for amount, taken in zip(self, other, strict=True)))

    def holds(self, other: _Amounts) -> bool:
        return min(self.minus(other)) >= 0


def _sum(pods: Sequence[PodRequest]) -> _Amounts:
    return _Amounts(
        slots=len(pods),
        cpu=sum(pod.cpu_millicores for pod in pods),
        memory=sum(pod.memory_mebibytes for pod in pods),
        disk=sum(pod.disk_mebibytes for pod in pods),
    )


def _room(node: NodeShape) -> _Amounts:
    return _Amounts(node.pod_slots, node.cpu_millicores, node.memory_mebibytes, node.disk_mebibytes)


def _platform_pods(workloads: Iterable[Workload], nodes: int) -> list[PodRequest]:
    return [workload.pod for workload in workloads for _ in range(workload.count * (nodes if workload.per_node else 1))]


def _shortages(production: ProductionDemand, pods: Sequence[PodRequest], title: str, memory_setting: str) -> list[str]:
    """List each resource that is short for these pods and the platform on one node."""
    needed = _sum([*_platform_pods(production.platform, nodes=1), *pods])
    room, replicas = _room(production.node), "shopcat:release.replicas"
    rows = [
        ("pod slots", needed.slots, room.slots, replicas),
        ("millicores of CPU", needed.cpu, room.cpu, f"{replicas} or shopcat:release.cpu"),
        ("MiB of memory", needed.memory, room.memory, f"{replicas} or {memory_setting}"),
        ("MiB of disk", needed.disk, room.disk, replicas),
    ]
    nodes, name = production.nodes, production.node.name
    place = f"on one of {nodes} x {name}" if nodes > NODES else f"on 1 x {name} while one node is drained"
    return [
        f"{place}: {title} need {need} {resource}, there are {available}; lower {setting}"
        for resource, need, available, setting in rows
        if need > available
    ]


def plan(production: ProductionDemand) -> CapacityPlan:
    """Return the room that a full release needs, and how many previews fit beside it.

    Raises:
        CapacityError: it does not fit; every shortage is named, with the setting that mends it.
    """
    count, pod, nodes, migration = production.replicas, production.pod, production.nodes, production.migration
    if count < 1:
        raise CapacityError([f"shopcat:release.replicas is {count}; a release needs at least 1 pod"])
    if nodes < 2:
        raise CapacityError([f"{nodes} x {production.node.name}: while it is drained no pod has a place; take 2 nodes"])
    release, released = f"{count} live + {count} new pods", most_on_a_node(2 * count, 3, count, nodes)
    migrating, migrated = f"{count} live pods", most_on_a_node(count, 2, count, nodes)
    if nodes > NODES:
        release, migrating = f"{released} pods of the shop", f"{migrated} pods of the shop"
    title = f"{release}, a Job and the platform"
    shortages = _shortages(production, [*[pod] * released, JOB_POD], title, "shopcat:release.memory")
    if migration:
        title = f"{migrating}, the migration and the platform"
        shortages += _shortages(production, [*[pod] * migrated, migration], title, "shopcat:release.migrateMemory")
    connections = 3 * count * production.database_pool_size + JOB_CONNECTIONS + RESERVED_CONNECTIONS
    if connections > production.database_max_connections:
        shortages.append(
            f"in the database: {3 * count} pods x a pool of {production.database_pool_size}, {JOB_CONNECTIONS} for Jobs"
            f" and {RESERVED_CONNECTIONS} reserved need {connections} connections, max_connections is "
            f"{production.database_max_connections}; lower shopcat:database.poolSize or take a larger database instance"
        )
    if shortages:
        raise CapacityError(shortages)
    platform = _platform_pods(production.platform, nodes)
    fullest = [*platform, *[pod] * (3 * count), JOB_POD]
    states = [fullest, [*platform, *[pod] * (2 * count), migration]] if migration else [fullest]
    needed = _sum(fullest)
    return CapacityPlan(
        pods=needed.slots,
        cpu_millicores=needed.cpu,
        memory_mebibytes=needed.memory,
        connections=connections,
        previews=min(_previews(production.node, nodes, state) for state in states),
    )


def most_on_a_node(any_order: int, releases: int, replicas: int, nodes: int) -> int:
    """Return how many of the shop's pods one node has to have room for; the module's docstring says why that is enough.

    Args:
        any_order: number with which each pod finds a place in whatever order all are scheduled.
        releases: releases whose pods are there at a time; those of each spread with a skew of 1.
        replicas: pods of one release.
        nodes: at least 2, of which one may be drained.
    """
    return min(any_order, releases * -(-replicas // (nodes - 1)))


def _previews(node: NodeShape, nodes: int, pods: Sequence[PodRequest]) -> int:
    """Return how many previews fit beside production's pods, which have their places first (their priority is higher).

    One more application pod fits beside them, so that an update of one preview finds room; a second one at the same time
    waits for the first.

    Args:
        node: the shape of all nodes.
        nodes: how many there are.
        pods: production's, those of one kind in a row: dealt out in turns, each kind is spread evenly.
    """
    preview, update = _sum([PREVIEW_APPLICATION, PREVIEW_DATABASE]), _sum([PREVIEW_APPLICATION])
    count, has_update_room = 0, False
    for index in range(nodes):
        free = _room(node).minus(_sum(pods[index::nodes]))
        fitting = min(amount // each for amount, each in zip(free, preview, strict=True))
        count += fitting
        has_update_room |= free.minus(preview, fitting).holds(update)
    return count if has_update_room else max(count - 1, 0)
