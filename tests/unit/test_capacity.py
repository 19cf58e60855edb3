"""Room of a full release on all nodes, and on one less while that is drained."""

from __future__ import annotations

import itertools
import operator
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import capacity
from infra.capacity import (
    JOB_POD,
    PREVIEW_APPLICATION,
    PREVIEW_DATABASE,
    CapacityError,
    CapacityPlan,
    PodRequest,
    ProductionDemand,
)

PRODUCTION = ProductionDemand(replicas=2, pod=PodRequest(200, 384), database_pool_size=5, database_max_connections=80)
productions = st.builds(
    ProductionDemand,
    replicas=st.integers(-1, 8),
    pod=st.builds(PodRequest, st.integers(0, 1500), st.integers(0, 2500)),
    database_pool_size=st.integers(1, 30),
    database_max_connections=st.integers(20, 500),
    nodes=st.just(2) | st.integers(2, 5),
)
fitting_productions = st.builds(
    ProductionDemand,
    replicas=st.integers(1, 4),
    pod=st.builds(PodRequest, st.integers(0, 500), st.integers(0, 900), st.integers(0, 2000)),
    database_pool_size=st.just(5),
    database_max_connections=st.just(500),
    migration=st.none() | st.builds(PodRequest, st.integers(0, 1500), st.integers(0, 2500), st.integers(0, 2000)),
    nodes=st.just(2) | st.integers(2, 5),
    node=st.just(capacity.T3_MEDIUM)
    | st.sampled_from(sorted(capacity.NODE_SHAPES.values(), key=lambda node: node.name)),
)


def amounts(pod: PodRequest) -> tuple[int, ...]:
    return (1, pod.cpu_millicores, pod.memory_mebibytes, pod.disk_mebibytes)


def total(pods: Iterable[PodRequest]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*map(amounts, pods), strict=True))) or (0, 0, 0, 0)


def is_within(used: Iterable[int], free: Iterable[int]) -> bool:
    return all(amount <= limit for amount, limit in zip(used, free, strict=True))


def free_of_node(production: ProductionDemand) -> list[int]:
    """Amounts that a node has beside the pods that every node runs."""
    node = production.node
    shape = (node.pod_slots, node.cpu_millicores, node.memory_mebibytes, node.disk_mebibytes)
    every = [each.pod for each in production.platform if each.per_node for _ in range(each.count)]
    return [limit - used for limit, used in zip(shape, total(every), strict=True)]


def states(production: ProductionDemand) -> list[list[PodRequest]]:
    """Pods of each fullest state of all nodes, but for those that every node has."""
    platform = [each.pod for each in production.platform if not each.per_node for _ in range(each.count)]
    pods, migration = [production.pod] * production.replicas, production.migration
    return [
        [*platform, *3 * pods, JOB_POD],
        *([[*platform, *2 * pods, migration]] if migration else []),
    ]


def drained_states(production: ProductionDemand) -> list[list[PodRequest]]:
    """The same of all nodes but one, from which pods move: none of the former release are there any more."""
    platform = [each.pod for each in production.platform if not each.per_node for _ in range(each.count)]
    pods, migration = [production.pod] * production.replicas, production.migration
    return [
        [*platform, *2 * pods, JOB_POD],
        *([[*platform, *pods, migration]] if migration else []),
    ]


def is_placed_first_fit(production: ProductionDemand, pods: Sequence[PodRequest], nodes: int = 2) -> bool:
    """Put each pod, in this order, on the first node that has room for it."""
    places: list[list[PodRequest]] = [[] for _ in range(nodes)]
    for pod in pods:
        node = next((node for node in places if is_within(total([*node, pod]), free_of_node(production))), None)
        if node is None:
            return False
        node.append(pod)
    return True


def has_placement(production: ProductionDemand, pods: Sequence[PodRequest], nodes: int = 2) -> bool:
    """Try every way to share the pods between the nodes, the even ones first."""
    kinds = Counter(pods)
    columns = list(zip(*map(amounts, kinds), strict=True))
    return _has_placement(free_of_node(production), columns, list(kinds.values()), nodes)


def _has_placement(free: Sequence[int], columns: Sequence[Sequence[int]], left: Sequence[int], nodes: int) -> bool:
    every = [sum(map(operator.mul, left, column)) for column in columns]
    if nodes == 1 or any(amount > nodes * limit for amount, limit in zip(every, free, strict=True)):
        return is_within(every, free)
    shares = [sorted(range(count + 1), key=lambda share, even=count / nodes: abs(share - even)) for count in left]
    for counts in itertools.product(*shares):
        first = [sum(map(operator.mul, counts, column)) for column in columns]
        if is_within(first, free) and _has_placement(free, columns, list(map(operator.sub, left, counts)), nodes - 1):
            return True
    return False


def attempt(production: ProductionDemand) -> CapacityPlan | None:
    try:
        return capacity.plan(production)
    except CapacityError as error:
        if not error.shortages:
            raise
        return None


def test_the_default_fits_and_leaves_previews() -> None:
    plan = capacity.plan(PRODUCTION)
    assert plan.pods == 6 + 5 + 6 + 1
    assert plan.previews >= 3
    assert "previews fit beside it" in plan.describe(PRODUCTION)


@given(productions)
def test_what_fits_is_within_every_limit(production: ProductionDemand) -> None:
    plan = attempt(production)
    if plan is None:
        return
    nodes, node = production.nodes, production.node
    assert plan.pods <= nodes * node.pod_slots
    assert plan.cpu_millicores <= nodes * node.cpu_millicores
    assert plan.memory_mebibytes <= nodes * node.memory_mebibytes
    assert plan.connections <= production.database_max_connections
    assert 2 * production.replicas * production.database_pool_size <= production.database_max_connections
    # One node of two alone holds live and new.
    assert nodes > 2 or 2 * production.replicas * production.pod.memory_mebibytes <= node.memory_mebibytes
    assert plan.pods + 2 * plan.previews <= nodes * node.pod_slots


@given(productions)
def test_asking_for_less_never_stops_fitting(production: ProductionDemand) -> None:
    plan = attempt(production)
    if plan is not None and production.replicas > 1:
        smaller = capacity.plan(replace(production, replicas=production.replicas - 1))
        assert smaller.previews >= plan.previews


@given(fitting_productions, st.randoms(use_true_random=False))
def test_what_is_accepted_finds_room_in_whatever_order_it_is_scheduled(
    production: ProductionDemand, order: random.Random
) -> None:
    if attempt(production) is None:
        return
    for count, each in ((production.nodes, states), (production.nodes - 1, drained_states)):
        for pods in each(production):
            order.shuffle(pods)
            assert is_placed_first_fit(production, pods, count)


@given(fitting_productions, st.integers(2, 3))
def test_the_previews_that_are_counted_have_a_placement(production: ProductionDemand, nodes: int) -> None:
    production = replace(production, nodes=nodes, node=capacity.T3_MEDIUM)  # a search on larger ones takes minutes
    plan = attempt(production)
    if plan is None or plan.previews == 0:
        return
    previews = [PREVIEW_APPLICATION] * (plan.previews + 1) + [PREVIEW_DATABASE] * plan.previews
    for pods in states(production):
        assert has_placement(production, [*pods, *previews], production.nodes)


class _Nodes:
    """Nodes on which a release's pods are spread with a skew of 1, as Kubernetes does with DoNotSchedule."""

    def __init__(self, production: ProductionDemand, choose: random.Random) -> None:
        self._free, self._choose = free_of_node(production), choose
        self._pods: list[list[tuple[str, PodRequest]]] = [[] for _ in range(production.nodes)]
        self._drained: int | None = None

    def place(self, group: str, pod: PodRequest) -> None:
        """Put a pod of a release on any node that the spread allows, and another pod on any; each has to have room."""
        ready = [each for index, each in enumerate(self._pods) if index != self._drained]
        counts = [sum(name == group for name, _ in each) for each in ready]
        allowed = [node for node, count in zip(ready, counts, strict=True) if not group or count == min(counts)]
        for node in allowed:
            assert is_within(total([*(each for _, each in node), pod]), self._free), (group, counts)
        self._choose.choice(allowed).append((group, pod))

    def drain(self, index: int | None) -> None:
        """Take one node away, after the one before it has come back; its pods move, and terminating ones end."""
        self._drained = index
        if index is not None:
            moved, self._pods[index] = self._pods[index], []
            for group, pod in moved:
                if group != "terminating":
                    self.place(group, pod)


def tightest(production: ProductionDemand) -> ProductionDemand:
    """Give the pods as much memory as the arithmetic lets them have."""
    other = total([*(each.pod for each in production.platform for _ in range(each.count)), JOB_POD])[2]
    count = capacity.most_on_a_node(2 * production.replicas, 3, production.replicas, production.nodes)
    memory = (production.node.memory_mebibytes - other) // count
    tight = replace(production, pod=PodRequest(1, memory), migration=None)
    assert attempt(tight) is not None
    assert attempt(replace(tight, pod=PodRequest(1, memory + 1))) is None
    return tight


@given(st.integers(3, 6), st.integers(2, 7), st.randoms(use_true_random=False))
def test_on_three_nodes_and_more_each_node_that_the_spread_allows_has_room(
    count: int, replicas: int, choose: random.Random
) -> None:
    """Also with the pods of three releases, in any order, whichever single node is drained between two of them."""
    large = capacity.NODE_SHAPES["t3.xlarge"]
    production = tightest(replace(PRODUCTION, nodes=count, node=large, replicas=replicas, database_max_connections=500))
    nodes = _Nodes(production, choose)
    pods = [("", each.pod) for each in production.platform if not each.per_node for _ in range(each.count)]
    pods += [(name, production.pod) for name in ("live", "new", "terminating") for _ in range(replicas)]
    pods.append(("", JOB_POD))
    choose.shuffle(pods)
    for group, pod in pods:
        nodes.drain(choose.choice([None, *range(count)]))
        nodes.place(group, pod)


def test_more_nodes_hold_what_two_can_t() -> None:
    many = replace(PRODUCTION, replicas=5, database_max_connections=200)
    assert attempt(many) is None
    assert attempt(replace(many, nodes=4)) is not None
    with pytest.raises(CapacityError) as caught:
        capacity.plan(replace(many, replicas=8, nodes=3, database_max_connections=500))
    assert "on one of 3 x t3.medium: 12 pods of the shop, a Job and the platform need 21 pod slots" in str(caught.value)


@given(productions.filter(lambda production: production.nodes == 2))
def test_one_more_node_never_stops_fitting(production: ProductionDemand) -> None:
    plan = attempt(production)
    if plan is not None:
        assert capacity.plan(replace(production, nodes=3)).previews >= plan.previews


def test_a_single_node_is_refused() -> None:
    with pytest.raises(CapacityError, match="while it is drained no pod has a place; take 2 nodes"):
        capacity.plan(replace(PRODUCTION, nodes=1))


@pytest.mark.parametrize(
    ("instance_type", "slots", "millicores"),
    [("t3.medium", 17, 1930), ("t3.large", 35, 1930), ("m6i.large", 29, 1930), ("m7i.xlarge", 58, 3920)],
)
def test_shapes_of_nodes_are_those_of_the_published_table(instance_type: str, slots: int, millicores: int) -> None:
    shape = capacity.known_shape(instance_type, 20)
    assert (shape.pod_slots, shape.cpu_millicores) == (slots, millicores)
    assert shape.disk_mebibytes == 3 * 1024


def test_the_measured_node_has_no_less_than_the_formulas_say() -> None:
    computed, measured = capacity._allocatable("t3.medium", 2, 4, 17), capacity.T3_MEDIUM
    assert computed.cpu_millicores == measured.cpu_millicores
    assert 0 <= measured.memory_mebibytes - computed.memory_mebibytes < 100


def test_production_fits_on_every_known_shape_as_it_is_by_default() -> None:
    for name in capacity.NODE_SHAPES:
        assert attempt(replace(PRODUCTION, node=capacity.known_shape(name, 20))) is not None, name


def test_the_search_for_a_placement_can_fail() -> None:
    large = PodRequest(200, 1700)
    assert has_placement(replace(PRODUCTION, platform=[]), [large, large])
    assert not has_placement(replace(PRODUCTION, platform=[]), [large, large, large])
    assert not is_placed_first_fit(replace(PRODUCTION, platform=[]), [large, large, large])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"replicas": 6}, "while one node is drained: 6 live + 6 new pods, a Job and the platform need 21 pod slots"),
        ({"replicas": 6}, "lower shopcat:release.replicas"),
        ({"replicas": 0}, "at least 1 pod"),
        (
            {"pod": PodRequest(200, 1200)},
            "MiB of memory, there are 3309; lower shopcat:release.replicas or shopcat:release.mem",
        ),
        ({"pod": PodRequest(700, 384)}, "millicores of CPU"),
        (
            {"migration": PodRequest(200, 4000)},
            "while one node is drained: 2 live pods, the migration and the platform need 5260 MiB of memory, there are 3309; "  # noqa: ISC004
            "lower shopcat:release.replicas or shopcat:release.migrateMemory",
        ),
        (
            {"pod": PodRequest(200, 384, 6000)},
            "2 live + 2 new pods, a Job and the platform need 24000 MiB of disk, there are 20480; lower shopcat:release.re",
        ),
        ({"database_pool_size": 20}, "6 pods x a pool of 20, 2 for Jobs and 5 reserved need 127 connections"),
    ],
)
def test_a_shortage_says_what_to_change(change: dict[str, object], words: str) -> None:
    with pytest.raises(CapacityError) as caught:
        capacity.plan(replace(PRODUCTION, **change))  # type: ignore[arg-type]
    assert words in str(caught.value)


@given(productions, st.none() | st.builds(PodRequest, st.integers(0, 1500), st.integers(0, 2500)))
def test_a_migration_no_larger_than_a_pod_needs_no_more_room(
    production: ProductionDemand, migration: PodRequest | None
) -> None:
    """It runs before the new pods, so only a larger one counts; previews never gain by it."""
    without, plan = attempt(production), attempt(replace(production, migration=migration))
    if migration is None or (
        migration.cpu_millicores <= production.pod.cpu_millicores
        and migration.memory_mebibytes <= production.pod.memory_mebibytes
        and production.replicas > 1
    ):
        assert plan == without
    elif plan is not None:
        assert without is not None
        assert plan.previews <= without.previews


def test_a_drained_node_decides_although_both_have_room_by_their_sum() -> None:
    with pytest.raises(CapacityError) as caught:
        capacity.plan(replace(PRODUCTION, replicas=1, pod=PodRequest(200, 1700), platform=[]))
    assert len(caught.value.shortages) == 1
    assert "on 1 x t3.medium while one node is drained: 1 live + 1 new pods" in caught.value.shortages[0]


def test_previews_are_as_many_as_the_nodes_have_disk_for() -> None:
    production = capacity.ProductionDemand(2, capacity.PodRequest(200, 384), 5, 112)
    node = capacity.T3_MEDIUM
    assert node.disk_mebibytes > 0
    scarce = replace(production, node=replace(node, disk_mebibytes=1024))
    # One database and an application on each node, of which one is the room for an update.
    assert capacity.plan(scarce).previews < capacity.plan(production).previews
    none = replace(production, node=replace(node, disk_mebibytes=512))
    assert capacity.plan(none).previews == 0
