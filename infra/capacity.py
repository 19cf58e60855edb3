"""Does production fit its two t3.medium, and how many previews are left beside it.

What is counted, by pod slots, CPU, memory and disk requests:

* on all nodes: live N + new N + terminating N + one Job + everything the platform runs;
* on one node, the other drained: live N + new N + one Job + the platform; previews yield (their priority is lower);
* both once more while a migration runs, which comes before the new N and may be larger than the other Jobs;
* in the database: every pod's pool of live, new and terminating N, the Jobs and what PostgreSQL keeps for itself.

Slots and requests of a t3.medium on EKS (17 pods; 1930m and 3309 MiB allocatable) follow the node agent's formulas and
were read from a running node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class CapacityError(ValueError):
    """Something does not fit; one line per shortage, each with what to change."""

    def __init__(self, shortages: list[str]) -> None:
        self.shortages = shortages
        super().__init__("production does not fit:\n" + "\n".join(f"  - {line}" for line in shortages))


@dataclass(frozen=True)
class NodeShape:
    """What pods may use on one node."""

    name: str
    pod_slots: int
    cpu_millicores: int
    memory_mebibytes: int
    disk_mebibytes: int


DISK_GIBIBYTES = 40
"""A node's disk. The kubelet removes images at 85 percent (kubernetes.io/docs/concepts/architecture/garbage-collection,
imageGCHighThresholdPercent), so 34 GiB are used at most."""
_SYSTEM_AND_IMAGES_GIBIBYTES = 14
"""The operating system, the images of everything that may run on one node at a time, and production's own logs."""

T3_MEDIUM = NodeShape(
    "t3.medium",
    pod_slots=17,
    cpu_millicores=1930,
    memory_mebibytes=3309,
    disk_mebibytes=(DISK_GIBIBYTES * 85 // 100 - _SYSTEM_AND_IMAGES_GIBIBYTES) * 1024,
)


@dataclass(frozen=True)
class PodRequest:
    """What one pod asks for."""

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
PLATFORM: tuple[Workload, ...] = (
    *NODE_PODS,
    CLUSTER_DNS,
    LOAD_BALANCER_CONTROLLER,
    EXTERNAL_SECRETS,
)
"""Everything the platform runs; foundation/addons.py sets the requests of the two that Helm installs from these."""

JOB_POD = PodRequest(50, 64)
"""The database and smoke Jobs; they run one after the other, and a migration before both."""

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
    """What decides the room a release needs."""

    replicas: int
    pod: PodRequest
    database_pool_size: int
    database_max_connections: int
    migration: PodRequest | None = None
    """The migration's pod, if the release has one."""
    nodes: int = 2
    node: NodeShape = T3_MEDIUM
    platform: Sequence[Workload] = PLATFORM


@dataclass(frozen=True)
class CapacityPlan:
    """The room production needs at its fullest, and what is left."""

    pods: int
    cpu_millicores: int
    memory_mebibytes: int
    connections: int
    previews: int
    """Previews (application and database) that fit beside a full release on all nodes, one of them being updated."""

    def describe(self, production: ProductionDemand) -> str:
        """The arithmetic in one line, for a person."""
        node = production.node
        return (
            f"a full release uses {self.pods} of {production.nodes * node.pod_slots} pod slots, "
            f"{self.cpu_millicores} of {production.nodes * node.cpu_millicores} millicores, "
            f"{self.memory_mebibytes} of {production.nodes * node.memory_mebibytes} MiB and "
            f"{self.connections} of {production.database_max_connections} database connections; "
            f"{self.previews} previews fit beside it"
        )


@dataclass
class _Room:
    slots: int
    cpu: int
    memory: int
    disk: int

    def takes(self, pod: PodRequest) -> bool:
        return (
            self.slots >= 1
            and self.cpu >= pod.cpu_millicores
            and self.memory >= pod.memory_mebibytes
            and self.disk >= pod.disk_mebibytes
        )

    def put(self, pod: PodRequest) -> None:
        self.slots -= 1
        self.cpu -= pod.cpu_millicores
        self.memory -= pod.memory_mebibytes
        self.disk -= pod.disk_mebibytes


def _platform_pods(workloads: Sequence[Workload], nodes: int) -> Iterator[PodRequest]:
    for workload in workloads:
        for _ in range(workload.count * (nodes if workload.per_node else 1)):
            yield workload.pod


def _place(pods: Sequence[PodRequest], rooms: list[_Room]) -> bool:
    """Put each pod on the node with the most memory left that takes it, largest first; whether all found a place."""
    for pod in sorted(pods, key=lambda each: (each.memory_mebibytes, each.cpu_millicores), reverse=True):
        candidates = [room for room in rooms if room.takes(pod)]
        if not candidates:
            return False
        max(candidates, key=lambda room: (room.memory, room.cpu, room.slots)).put(pod)
    return True


def _rooms(production: ProductionDemand, nodes: int) -> list[_Room] | None:
    """Each node's room once what runs on every node has its place; `None` if that alone does not fit."""
    node = production.node
    rooms = [
        _Room(node.pod_slots, node.cpu_millicores, node.memory_mebibytes, node.disk_mebibytes) for _ in range(nodes)
    ]
    for room in rooms:
        for pod in _platform_pods([each for each in production.platform if each.per_node], 1):
            if not room.takes(pod):
                return None
            room.put(pod)
    return rooms


def _fits(production: ProductionDemand, nodes: int, pods: Sequence[PodRequest]) -> list[_Room] | None:
    rooms = _rooms(production, nodes)
    everywhere = list(_platform_pods([each for each in production.platform if not each.per_node], nodes))
    if rooms is None or not _place([*everywhere, *pods], rooms):
        return None
    return rooms


def _phases(production: ProductionDemand) -> list[tuple[int, list[PodRequest], str]]:
    """Number of nodes, pods beside the platform's, and what they are; the first is a full release on all nodes."""
    count, nodes = production.replicas, production.nodes
    pods, migration = [production.pod] * count, production.migration
    phases = [
        (nodes, [*3 * pods, JOB_POD], f"{count} live + {count} new + {count} terminating pods, a Job and the platform")
    ]
    if nodes > 1:
        phases.append((nodes - 1, [*2 * pods, JOB_POD], f"{count} live + {count} new pods, a Job and the platform"))
    if migration:
        what = "the migration and the platform"
        phases.append((nodes, [*2 * pods, migration], f"{count} live + {count} terminating pods, {what}"))
        if nodes > 1:
            phases.append((nodes - 1, [*pods, migration], f"{count} live pods, {what}"))
    return phases


def _shortages(production: ProductionDemand, nodes: int, pods: Sequence[PodRequest], what: str) -> list[str]:
    """Each resource that is short, by its sum; or, if only the packing fails, that."""
    node = production.node
    where = f"on {nodes} x {node.name}" + (" while one node is drained" if nodes < production.nodes else "")
    memory = "shopcat:release.memory"
    if production.migration in pods and production.migration != production.pod:
        memory = "shopcat:release.migrateMemory"
    every = [*_platform_pods(production.platform, nodes), *pods]
    rows = [
        ("pod slots", len(every), nodes * node.pod_slots, "shopcat:release.replicas"),
        (
            "millicores of CPU",
            sum(pod.cpu_millicores for pod in every),
            nodes * node.cpu_millicores,
            "shopcat:release.replicas or shopcat:release.cpu",
        ),
        (
            "MiB of memory",
            sum(pod.memory_mebibytes for pod in every),
            nodes * node.memory_mebibytes,
            f"shopcat:release.replicas or {memory}",
        ),
    ]
    lines = [
        f"{where}: {what} need {needed} {resource}, there are {there}; lower {setting}"
        for resource, needed, there, setting in rows
        if needed > there
    ]
    if not lines and _fits(production, nodes, pods) is None:
        lines.append(
            f"{where}: {what} fit by their sum but not node by node; "
            f"lower shopcat:release.replicas, shopcat:release.cpu or {memory}"
        )
    return lines


def plan(production: ProductionDemand) -> CapacityPlan:
    """The room a full release needs, and how many previews fit beside it.

    Raises:
        CapacityError: it does not fit; every shortage is named, with the setting that mends it.
    """
    count = production.replicas
    if count < 1:
        raise CapacityError([f"shopcat:release.replicas is {count}; a release needs at least 1 pod"])
    phases = _phases(production)
    shortages = [line for phase in phases for line in _shortages(production, *phase)]
    connections = 3 * count * production.database_pool_size + JOB_CONNECTIONS + RESERVED_CONNECTIONS
    if connections > production.database_max_connections:
        shortages.append(
            f"in the database: {3 * count} pods x a pool of {production.database_pool_size}, {JOB_CONNECTIONS} for Jobs"
            f" and {RESERVED_CONNECTIONS} reserved need {connections} connections, max_connections is "
            f"{production.database_max_connections}; lower shopcat:database.poolSize or take a larger database instance"
        )
    if shortages:
        raise CapacityError(shortages)
    full = phases[0][1]
    every = [*_platform_pods(production.platform, production.nodes), *full]
    return CapacityPlan(
        pods=len(every),
        cpu_millicores=sum(pod.cpu_millicores for pod in every),
        memory_mebibytes=sum(pod.memory_mebibytes for pod in every),
        connections=connections,
        previews=min(_previews(production, pods) for nodes, pods, _ in phases if nodes == production.nodes),
    )


def _previews(production: ProductionDemand, full: Sequence[PodRequest]) -> int:
    """Previews that fit beside a full release, production having its places first (its priority is higher).

    One more application pod fits beside them, so that an update of one preview finds room; a second one at the same time
    waits for the first.
    """
    one, previews = [PREVIEW_APPLICATION, PREVIEW_DATABASE], 0
    while True:
        rooms = _fits(production, production.nodes, full)
        if rooms is None or not _place([*one * (previews + 1), PREVIEW_APPLICATION], rooms):
            return previews
        previews += 1
