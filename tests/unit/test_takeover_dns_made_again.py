"""The new load balancer deleted, or made again under another DNS name: where users are sent, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra.commands.traffic_move.reads import find_edge
from infra.commands.traffic_move.records import stands, strays, wanted_records
from infra.errors import AwsError, PreflightError, TrafficError
from tests.unit.traffic_world import GONE, NEW, OLD, TrafficWorld, arrange, refused


@pytest.mark.parametrize("kind", ["A", "CNAME"])
@pytest.mark.parametrize("again", [False, True])
def test_back_needs_the_old_load_balancer_alone(world: TrafficWorld, kind: str, *, again: bool) -> None:
    world.put(world.alias() if kind == "A" else world.cname())
    move = world.mover()
    move.split()
    for percent in (1, 10):
        move.weight(percent)
    former = world.new.dns_name
    world.delete_new()
    if again:
        world.make_new("shopcat-2.example.net")
    assert world.shares()[kind] == {OLD: pytest.approx(0.9), NEW: 0.0, GONE: pytest.approx(0.1)}
    move.status()
    stray = f"10 % lead to {former}, which is not the new load balancer; run make takeover-dns STEP=back first"
    assert any(f"90 % old, {stray}" in line for line in world.said)
    assert world.said[-1] == "  next     make takeover-dns STEP=back"
    assert (f"  new      {NEW}: no load balancer of this account and region" in world.said) == (not again)
    for call in (lambda: move.weight(50), lambda: move.weight(0), lambda: move.finish(24 * 60, 0)):
        assert stray in refused(call)
    begin = world.seconds
    move.back()
    assert world.shares()[kind] == {OLD: 1.0, NEW: 0.0}
    assert world.seconds - begin >= move.zone.read(None).ttl_seconds
    if not again:
        assert "there is no load balancer shopcat" in refused(lambda: move.weight(1))
        world.make_new("shopcat-3.example.net")
    move.weight(1)
    assert world.shares()[kind] == {OLD: pytest.approx(0.99), NEW: pytest.approx(0.01)}


def test_a_stray_share_of_100_percent_is_not_finished(world: TrafficWorld) -> None:
    arrange(world, 100)
    world.make_new("shopcat-2.example.net")
    assert "100 % lead to" in refused(lambda: world.mover().finish(24 * 60, 0))
    world.mover().status()
    assert OLD in world.probed, "whether the way back is open"


def test_a_new_load_balancer_deleted_during_the_watch_loses_its_share(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()

    def ask(edge: Any) -> Any:
        if world.seconds > begin + 20:
            world.delete_new()
        return world.ask(edge)

    begin = world.seconds
    object.__setattr__(move, "ask", ask)
    assert "all went back to the old load balancer" in refused(lambda: move.weight(1), TrafficError)
    assert world.shares()["A"] == {OLD: 1.0, NEW: 0.0}


def test_back_is_watched_to_its_end_while_the_new_one_fails(world: TrafficWorld) -> None:
    arrange(world, 50)
    world.broken[NEW] = lambda _: True
    world.mover().back()
    assert world.seconds >= 60
    assert world.said[-1] == "all is at the old load balancer: 61 of 61 probes answered (HTTP 200)"


def test_a_load_balancer_deleted_between_two_calls_is_none(
    world: TrafficWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = world.real["elbv2"]
    listeners = real.get_paginator("describe_listeners")

    class Pages:
        def paginate(self, **arguments: Any) -> Any:
            world.delete_new()
            return listeners.paginate(**arguments)

    client = world.clients.get("elbv2")
    monkeypatch.setattr(
        client, "get_paginator", lambda name: Pages() if name == "describe_listeners" else real.get_paginator(name),
        raising=False,
    )  # fmt: skip
    assert find_edge(world.clients, NEW) is None


def test_the_target_of_the_new_record_is_part_of_what_stands(world: TrafficWorld) -> None:
    arrange(world, 1)
    former = world.new
    records = world.mover().zone.read(former)
    assert records.new_target == former.dns_name
    assert stands(records, former, 1)
    other = replace(former, dns_name="shopcat-2.example.net")
    assert not stands(records, other, 1)
    assert (strays(records, former), strays(records, other), strays(records, None)) == (False, True, True)
    assert stands(records, None, 1)
    with pytest.raises(PreflightError, match="there is no load balancer shopcat"):
        wanted_records(records, None, 1)


@pytest.mark.parametrize(
    ("weights", "share"), [((255, 1), 1), ((1, 255), 99), ((0, 1), 100), ((1, 0), 0), ((0, 0), 50)]
)
def test_only_one_record_s_answers_are_all_or_nothing(
    world: TrafficWorld, weights: tuple[int, int], share: int
) -> None:
    arrange(world, 0)
    for record, weight in zip(world.backend.rrsets[-2:], weights, strict=True):
        record.weight = weight
    assert world.mover().zone.read(None).weight == share


def test_a_new_load_balancer_made_again_without_ipv6_gets_no_share_of_aaaa(world: TrafficWorld) -> None:
    sides = ((world.old, "shopcat-old", 100), (world.new, "shopcat-new", 0))
    world.put(
        *(
            {**world.alias(kind, edge, healthy=False), "SetIdentifier": name, "Weight": part}
            for kind in ("A", "AAAA")
            for edge, name, part in sides
        )
    )
    assert "has no IPv6 addresses" in refused(lambda: world.mover().weight(1))


def test_a_new_load_balancer_deleted_right_before_the_write_changes_nothing(world: TrafficWorld) -> None:
    arrange(world, 0)
    world.meanwhile = world.delete_new
    message = refused(lambda: world.mover().weight(1), AwsError)
    assert "that target was not found" in message
    assert "somebody else" not in message
    assert world.shares()["A"] == {OLD: 1.0, NEW: 0.0, GONE: 0.0}
