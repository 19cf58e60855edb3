"""Whether two t3.medium hold a full release, alone and with one node drained."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import capacity
from infra.capacity import CapacityError, CapacityPlan, PodRequest, ProductionDemand

PRODUCTION = ProductionDemand(replicas=2, pod=PodRequest(200, 384), database_pool_size=5, database_max_connections=80)
productions = st.builds(
    ProductionDemand,
    replicas=st.integers(-1, 8),
    pod=st.builds(PodRequest, st.integers(0, 1500), st.integers(0, 2500)),
    database_pool_size=st.integers(1, 30),
    database_max_connections=st.integers(20, 500),
)


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
    # One node alone holds live and new.
    assert 2 * production.replicas * production.pod.memory_mebibytes <= node.memory_mebibytes
    assert plan.pods + 2 * plan.previews <= nodes * node.pod_slots


@given(productions)
def test_asking_for_less_never_stops_fitting(production: ProductionDemand) -> None:
    plan = attempt(production)
    if plan is not None and production.replicas > 1:
        smaller = capacity.plan(replace(production, replicas=production.replicas - 1))
        assert smaller.previews >= plan.previews


@given(productions)
def test_two_nodes_hold_whatever_one_drained_node_holds_twice(production: ProductionDemand) -> None:
    if attempt(production) is not None:
        assert attempt(replace(production, nodes=3)) is not None


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
            "the migration and the platform fit by their sum but not node by node; lower shopcat:release.replicas, "  # noqa: ISC004
            "shopcat:release.cpu or shopcat:release.migrateMemory",
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


def test_what_fits_by_its_sum_but_not_node_by_node_is_refused() -> None:
    with pytest.raises(CapacityError) as caught:
        capacity.plan(replace(PRODUCTION, replicas=1, pod=PodRequest(200, 1700), platform=[]))
    assert "on 2 x t3.medium: 1 live + 1 new + 1 terminating pods" in caught.value.shortages[0]
    assert "fit by their sum but not node by node" in caught.value.shortages[0]


def test_previews_are_as_many_as_the_nodes_have_disk_for() -> None:
    production = capacity.ProductionDemand(2, capacity.PodRequest(200, 384), 5, 112)
    node = capacity.T3_MEDIUM
    assert node.disk_mebibytes > 0
    scarce = replace(production, node=replace(node, disk_mebibytes=1024))
    # One database and an application on each node, of which one is the room for an update.
    assert capacity.plan(scarce).previews < capacity.plan(production).previews
    none = replace(production, node=replace(node, disk_mebibytes=512))
    assert capacity.plan(none).previews == 0
