"""Traffic from the old load balancer to the new one: every step, refused, killed at each call, and done by two people at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra import settings
from infra.commands.traffic_move.rules import LiveRelease, RequestCounts
from infra.errors import TrafficError
from infra.foundation.existing_resources import find_existing
from tests.unit.test_settings import committed
from tests.unit.traffic_world import HOST, NEW, OLD, TrafficWorld, arrange, refused


def test_all_steps_lead_from_the_old_record_to_the_declared_one(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    assert world.shares() == {"A": {OLD: 1.0, NEW: 0.0}}
    for percent in (1, 10, 50, 100):
        move.weight(percent)
        assert world.shares()["A"][NEW] == pytest.approx(percent / 100)
    move.finish(24 * 60, 0)
    (record,) = [each for each in world.backend.rrsets if each.name == f"{HOST}."]
    # As infra/foundation/load_balancers.py declares it: the load balancer's own DNS name, health not evaluated.
    assert record.alias_target == {
        "HostedZoneId": world.new.zone_id,
        "DNSName": world.new.dns_name,
        "EvaluateTargetHealth": False,
    }
    assert (record.type, record.set_identifier, record.weight) == ("A", None, None)
    inputs = {"zoneId": world.zone_id, "name": HOST, "type": "A"}
    identifier = find_existing(world.clients, "aws:route53/record:Record", inputs)
    assert identifier == f"{world.zone_id}_{HOST}_A"
    assert identifier in world.said[-1]


def test_a_cname_keeps_its_ttl_and_is_watched_for_it(world: TrafficWorld) -> None:
    world.put(world.cname(ttl=300))
    move = world.mover()
    move.split()
    begin = world.seconds
    move.weight(1)
    assert 300 <= world.seconds - begin < 310
    assert {(each.type, each.ttl, each.weight) for each in world.backend.rrsets if each.name == f"{HOST}."} == {
        ("CNAME", 300, 99),
        ("CNAME", 300, 1),
    }
    for percent in (10, 50, 100):
        move.weight(percent)
    move.finish(24 * 60, 0)
    assert world.shares() == {"A": {OLD: 0.0, NEW: 1.0}}


def test_an_alias_is_watched_for_sixty_seconds_after_route_53_is_in_sync(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    world.pending, begin = 3, world.seconds
    move.weight(1)
    assert 70 <= world.seconds - begin <= 80


def test_a_change_that_never_gets_in_sync_is_named_and_stands(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    world.pending = 10_000
    message = refused(lambda: move.weight(1), TrafficError)
    assert "1 % at the new load balancer, which was not watched to the end" in message
    assert world.shares()["A"][NEW] == pytest.approx(0.01)


def test_aaaa_needs_ipv6_at_the_new_load_balancer(world: TrafficWorld) -> None:
    world.put(world.alias(), world.alias("AAAA"))
    assert "has no IPv6 addresses" in refused(world.mover().split)
    assert world.shares() == {kind: {OLD: 1.0, NEW: 0.0} for kind in ("A", "AAAA")}


def test_a_and_aaaa_move_in_one_batch(world: TrafficWorld) -> None:
    arn = world.new.arn
    world.put(world.alias(), world.alias("AAAA"))
    world.real["elbv2"].set_ip_address_type(LoadBalancerArn=arn, IpAddressType="dualstack")
    try:
        move = world.mover()
        move.split()
        for percent in (1, 10, 50, 100):
            move.weight(percent)
            parts = [world.shares()[kind][NEW] for kind in ("A", "AAAA")]
            assert parts == [pytest.approx(percent / 100)] * 2
        move.finish(24 * 60, 0)
        assert world.shares() == {kind: {OLD: 0.0, NEW: 1.0} for kind in ("A", "AAAA")}
    finally:
        world.real["elbv2"].set_ip_address_type(LoadBalancerArn=arn, IpAddressType="ipv4")


def test_a_share_grows_by_the_steps_only(world: TrafficWorld) -> None:
    move = world.mover()
    assert "run STEP=split first" in refused(lambda: move.weight(1))
    move.split()
    assert "run WEIGHT=1 first" in refused(lambda: move.weight(10))
    move.weight(1)
    assert "run WEIGHT=10 first" in refused(lambda: move.weight(100))
    move.weight(7)
    move.weight(10)
    move.weight(3)
    assert world.shares()["A"][NEW] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("release", "words"),
    [(LiveRelease(), "no release is live"), (LiveRelease("v1.0.0-r1", "v1.1.0-r1"), "release v1.1.0-r1 is open")],
)
def test_no_share_grows_without_a_live_release(world: TrafficWorld, release: LiveRelease, words: str) -> None:
    move = world.mover()
    move.split()
    world.release = release
    assert words in refused(lambda: move.weight(1))
    assert world.shares()["A"][NEW] == 0


def test_a_new_load_balancer_that_fails_gets_no_share(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    world.broken[NEW] = lambda _: True
    assert "fails its probes: 0 of 3 probes answered (HTTP 503)" in refused(lambda: move.weight(1))


def test_a_new_load_balancer_that_fails_later_loses_its_share_by_itself(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    move.weight(1)
    begin = world.seconds
    world.broken[NEW] = lambda second: second > begin + 20
    message = refused(lambda: move.weight(10), TrafficError)
    assert "all went back to the old load balancer" in message
    assert world.shares()["A"] == {OLD: 1.0, NEW: 0.0}
    assert 20 < world.seconds - begin < 60 + 60


def test_one_failed_probe_of_a_watch_changes_nothing(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    begin = world.seconds
    world.broken[NEW] = lambda second: second == begin + 20
    move.weight(1)
    assert world.shares()["A"][NEW] == pytest.approx(0.01)
    assert any("60 of 61 probes answered" in line for line in world.said)


def test_a_machine_without_a_network_is_no_proof_of_health(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    begin = world.seconds
    world.unreached = lambda second: begin < second < begin + 60
    message = refused(lambda: move.weight(1), TrafficError)
    assert "this machine reached neither load balancer" in message
    assert world.shares()["A"][NEW] == 0


def test_both_failing_leaves_the_weights_and_says_so(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    begin = world.seconds
    world.broken = dict.fromkeys((OLD, NEW), lambda second: second > begin + 5)
    message = refused(lambda: move.weight(1), TrafficError)
    assert "could not go back by itself: the old load balancer does not answer" in message
    assert world.shares()["A"][NEW] == pytest.approx(0.01)


def test_back_needs_neither_a_release_nor_the_new_one(world: TrafficWorld) -> None:
    move = world.mover()
    move.split()
    move.weight(1)
    world.release = LiveRelease()
    world.broken[NEW] = lambda _: True
    move.back()
    assert world.shares()["A"] == {OLD: 1.0, NEW: 0.0}


def test_back_is_refused_by_name(world: TrafficWorld) -> None:
    move = world.mover()
    assert "not a weighted pair" in refused(move.back)
    move.split()
    move.weight(1)
    world.broken[OLD] = lambda _: True
    assert "the old load balancer does not answer: 0 of 3" in refused(move.back)
    assert "does not answer" in refused(lambda: move.weight(0))


def test_an_old_load_balancer_that_is_gone_is_named(world: TrafficWorld) -> None:
    arn = world.make_balancer("k8s-gone")
    gone = world.edge("k8s-gone")
    world.put(world.alias(edge=gone))
    world.real["elbv2"].delete_load_balancer(LoadBalancerArn=arn)
    move = world.mover()
    reason = refused(move.split)
    assert f"leads to {gone.dns_name}, which is no load balancer of this account and region" in reason
    pair = [(gone, "shopcat-old", 0), (world.new, "shopcat-new", 100)]
    world.put(*({**world.alias(edge=edge), "SetIdentifier": name, "Weight": weight} for edge, name, weight in pair))
    assert f"{gone.dns_name} is not there any more" in refused(move.back)
    assert "its requests can't be counted" in refused(lambda: move.finish(24 * 60, 0))


@pytest.mark.parametrize(
    ("counts", "accepted", "words"),
    [
        (RequestCounts(3, 0, 288, 288), 0, "counted 3 requests in the last 24 hours"),
        (RequestCounts(0, 5, 288, 288), 4, "set ACCEPT=5"),
        (RequestCounts(0, 0, 288, 287), 0, "reported nothing in 1 of 288 periods"),
        (RequestCounts(0, 0, 288, 0), 0, "a missing RequestCount is no proof of 0"),
        (RequestCounts(0, 0, 288, 288, ("requests: PartialData",)), 0, "not complete (requests: PartialData)"),
    ],
)
def test_finish_wants_proof_that_nobody_uses_the_old_one(
    world: TrafficWorld, counts: RequestCounts, accepted: int, words: str
) -> None:
    move = world.mover()
    move.split()
    for percent in (1, 10, 50):
        move.weight(percent)
    assert "run STEP=weight WEIGHT=100 first" in refused(lambda: move.finish(24 * 60, 0))
    move.weight(100)
    world.counts, world.probed = counts, []
    assert words in refused(lambda: move.finish(24 * 60, accepted))
    assert OLD not in world.probed, "our own requests would count"
    world.counts = RequestCounts(3, 2, 288, 288)
    move.finish(24 * 60, 5)
    assert world.shares() == {"A": {OLD: 0.0, NEW: 1.0}}


def test_this_program_s_own_record_is_left_alone(world: TrafficWorld) -> None:
    values = settings.read_settings({**committed(), "domain": HOST, "hostedZone": "example.com"})
    move = world.mover(values)
    for call in (move.split, lambda: move.weight(1), lambda: move.finish(24 * 60, 0)):
        assert "shopcat:dns is route53" in refused(call)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([{"Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "192.0.2.1"}]}], "an ALB has no addresses that stay"),
        (["latency"], "routed by Region"),
        (["stranger"], "A has the weighted records a, b"),
        (["both"], "they lead to"),
    ],
)
def test_records_of_another_kind_are_refused_by_name(world: TrafficWorld, records: list[Any], words: str) -> None:
    shapes: dict[str, list[dict[str, Any]]] = {
        "latency": [{**world.alias(), "SetIdentifier": "a", "Region": "eu-central-1"}],
        "stranger": [{**world.alias(), "SetIdentifier": name, "Weight": 1} for name in "ab"],
        "both": [world.alias(), world.alias("AAAA", world.new)],
    }
    world.put(*[each for record in records for each in (shapes[record] if isinstance(record, str) else [record])])
    for call in (world.mover().status, world.mover().split):
        message = refused(call)
        assert words in message
        assert "Make them one simple record for each type" in message


STEPS: dict[str, tuple[int | None, Any]] = {
    "split": (None, lambda move: move.split()),
    "up": (1, lambda move: move.weight(10)),
    "down": (50, lambda move: move.weight(10)),
    "back": (50, lambda move: move.back()),
    "finish": (100, lambda move: move.finish(24 * 60, 0)),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_that_is_killed_at_any_call_is_done_by_running_it_again(
    world: TrafficWorld, name: str, when: str
) -> None:
    weight, step = STEPS[name]
    arrange(world, weight)
    step(world.mover())
    wanted = world.shares()
    kills = 0
    while True:
        arrange(world, weight)
        start = world.shares()
        killed = world.stop_at(kills + 1, when, lambda: step(world.mover()))
        assert world.shares() in (start, wanted)
        if not killed:
            break
        kills += 1
        step(world.mover())
        assert world.shares() == wanted
    assert kills >= 3


def test_of_two_people_at_once_one_is_refused(world: TrafficWorld) -> None:
    arrange(world, 1)
    world.meanwhile = lambda: world.mover().back()
    assert "are not those that were read, so nothing was changed" in refused(lambda: world.mover().weight(10))
    assert world.shares()["A"][NEW] == 0


def test_two_people_who_want_the_same_both_get_it(world: TrafficWorld) -> None:
    arrange(world, 1)
    world.meanwhile = lambda: world.mover().weight(10)
    world.mover().weight(10)
    assert world.shares()["A"][NEW] == pytest.approx(0.1)


def test_a_weight_that_somebody_changes_during_the_watch_is_said(world: TrafficWorld) -> None:
    arrange(world, 1)
    move = world.mover()
    done = []

    def ask(edge: Any) -> Any:
        if world.seconds > 30 and not done:
            done.append(True)
            world.mover().back()
        return world.ask(edge)

    object.__setattr__(move, "ask", ask)
    assert "has another weight than 10 % after the watch" in refused(lambda: move.weight(10), TrafficError)


def test_weights_that_a_person_entered_are_read_as_a_share(world: TrafficWorld) -> None:
    arrange(world, 0)
    for record, weight in zip(world.backend.rrsets[-2:], (200, 50), strict=True):
        record.weight = weight
    move = world.mover()
    assert "80 % old, 20 % new" in str([move.status(), world.said])
    move.back()
    assert world.shares()["A"][NEW] == 0


def test_status_changes_nothing_and_names_the_next_step(world: TrafficWorld) -> None:
    for weight, following in ((None, "STEP=split"), (0, "WEIGHT=1,"), (10, "WEIGHT=50,"), (100, "STEP=finish")):
        arrange(world, weight)
        before = list(world.backend.rrsets)
        world.mover().status()
        assert world.backend.rrsets == before
        assert following in world.said[-1]
        assert (OLD in world.probed) == (weight != 100)
    world.put(world.alias(edge=world.new))
    replace(world.mover(), old_name=OLD).status()
    assert any(line.startswith(f"  old      {OLD}: not asked") for line in world.said)
    assert "set shopcat:dns to route53" in world.said[-1]


def test_a_new_load_balancer_that_fails_after_finish_is_said(world: TrafficWorld) -> None:
    arrange(world, 100)
    world.broken[NEW] = lambda second: second > 10
    world.probed = []
    message = refused(lambda: world.mover().finish(24 * 60, 0), TrafficError)
    assert f"{HOST} leads to it alone" in message
    assert OLD not in world.probed
    world.broken = {}
    world.mover().finish(24 * 60, 0)
    assert "shopcat:hostedZone to example.com" in world.said[-1]


def test_a_ttl_that_makes_the_way_back_long_is_not_split(world: TrafficWorld) -> None:
    world.put(world.cname(ttl=301))
    before = list(world.backend.rrsets)
    message = refused(world.mover().split)
    assert "has a TTL of 301 s" in message
    assert "Set the TTL to 60 first, wait 301 s" in message
    assert world.backend.rrsets == before
    world.put(world.cname(ttl=300))
    world.mover().split()


def test_a_zone_without_the_name_is_said(world: TrafficWorld) -> None:
    world.put()
    assert "has no record of shop.example.com" in refused(world.mover().split)
