"""An old and a new load balancer, the zone of the shop's name, users by its records, and a clock that only waiting moves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID
from moto.elbv2.models import elbv2_backends
from moto.route53.models import RecordSet, route53_backends

from infra import settings
from infra.clients.aws import AwsClients
from infra.commands.traffic_move import by_hand, move, reads
from infra.commands.traffic_move.records import Edge, plain_name
from infra.commands.traffic_move.rules import LiveRelease, RequestCounts
from infra.commands.traffic_move.watch import WatchClock
from infra.errors import PreflightError, ShopCatError
from infra.release.probes import Probe
from tests.unit.releases import REGION, client
from tests.unit.route53 import strict_batches
from tests.unit.test_settings import committed

HOST, ZONE = "shop.example.com", "example.com"
OLD, NEW = "k8s-shopcat-shopcat-1f2e3d4c5b", "shopcat"
GONE = "a load balancer that is gone"
SERVICES = ("route53", "elbv2", "elb", "cloudwatch", "ec2", "acm", "dynamodb")
EXTERNAL = settings.read_settings({**committed(), "domain": HOST, "dns": "external"})


class KilledError(BaseException):
    """The process ends here."""


class _Client:
    """A client that counts its calls, and may end the process before or after one of them."""

    def __init__(self, world: TrafficWorld, real: Any) -> None:
        self._world, self._real = world, real

    def __getattr__(self, name: str) -> Any:
        if name in {"get_paginator", "meta"}:
            return getattr(self._real, name)

        def call(**arguments: Any) -> Any:
            self._world.before_call(name)
            if name == "change_resource_record_sets":
                self._world.check_targets(arguments["ChangeBatch"]["Changes"])
            answer = getattr(self._real, name)(**arguments)
            self._world.after_call()
            if name == "get_change" and self._world.pending > 0:
                self._world.pending -= 1
                answer["ChangeInfo"]["Status"] = "PENDING"
            return answer

        return call


class TrafficWorld:
    """Everything that the steps meet; one for a whole module, reset for each example."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = {service: client(service) for service in SERVICES}
        self.clients = AwsClients(REGION)
        self.clients.session = object()
        self.clients._clients = {service: _Client(self, real) for service, real in self.real.items()}
        self.reset()
        vpc = self.vpc = self.real["ec2"].create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            self.real["ec2"].create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"{REGION}{zone}")[
                "Subnet"
            ]["SubnetId"]
            for n, zone in enumerate("ab")
        ]
        for name in (OLD, NEW):
            self.make_balancer(name)
        self.zone_id = self.real["route53"].create_hosted_zone(Name=ZONE, CallerReference="1")["HostedZone"]["Id"]
        self.zone_id = self.zone_id.rpartition("/")[2]
        self.backend = route53_backends[DEFAULT_ACCOUNT_ID]["aws"].get_hosted_zone(self.zone_id)
        self.empty = list(self.backend.rrsets)
        self.old, self.new = (self.edge(name) for name in (OLD, NEW))
        self.balancers = elbv2_backends[DEFAULT_ACCOUNT_ID][REGION].load_balancers
        self.new_balancer, self.first_dns_name = self.balancers[self.new.arn], self.new.dns_name
        strict_batches(monkeypatch, self.observe)
        for module in (move, by_hand):
            monkeypatch.setattr(module, "read_live", lambda *_: self.release)
            monkeypatch.setattr(module, "read_counts", lambda *_: self.counts)

    def reset(self) -> None:
        self.said: list[str] = []
        self.seconds = 0.0
        self.broken: dict[str, Callable[[float], bool]] = {}
        self.unreached: Callable[[float], bool] = lambda _: False
        self.release = LiveRelease("v1.0.0-r1")
        self.counts = RequestCounts(0, 0, 288, 288)
        self.pending = 0
        self.calls = 0
        self.kill_at: tuple[int, str] | None = None
        self.meanwhile: Callable[[], None] | None = None
        self.probed: list[str] = []
        if hasattr(self, "backend"):
            self.backend.rrsets = list(self.empty)
            self.delete_new()
            self.make_new(self.first_dns_name)

    def make_balancer(self, name: str) -> str:
        made = self.real["elbv2"].create_load_balancer(Name=name, Subnets=self.subnets, Type="application")
        arn = str(made["LoadBalancers"][0]["LoadBalancerArn"])
        certificate = self.real["acm"].request_certificate(DomainName=HOST)["CertificateArn"]
        group = self.real["elbv2"].create_target_group(
            Name=f"g-{name}"[:32].rstrip("-"), Protocol="HTTP", Port=8080, VpcId=self.vpc, TargetType="ip"
        )["TargetGroups"][0]["TargetGroupArn"]
        self.real["elbv2"].create_listener(
            LoadBalancerArn=arn, Protocol="HTTPS", Port=443, Certificates=[{"CertificateArn": certificate}],
            DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
        )  # fmt: skip
        return arn

    def edge(self, name: str) -> Edge:
        edge = reads.find_edge(self.clients, name)
        assert edge is not None
        return edge

    def delete_new(self) -> None:
        """Let this program's load balancer be gone; `new` is what it was."""
        self.balancers.pop(self.new.arn, None)

    def make_new(self, dns_name: str) -> None:
        """Let this program's load balancer stand under a DNS name: AWS gives another one each time."""
        self.new_balancer.dns_name = dns_name
        self.balancers[self.new.arn] = self.new_balancer
        self.new = replace(self.new, dns_name=dns_name)

    def names_that_stand(self) -> dict[str, str]:
        """Return each load balancer's name by its DNS name."""
        return {balancer.dns_name: balancer.name for balancer in self.balancers.values()}

    # Calls ------------------------------------------------------------------------------------------------------------

    def before_call(self, name: str) -> None:
        self.calls += 1
        if name == "change_resource_record_sets" and self.meanwhile:
            other, self.meanwhile = self.meanwhile, None
            other()
        self._kill("before")

    def check_targets(self, changes: list[dict[str, Any]]) -> None:
        """Refuse an alias to a load balancer that is gone, as Route 53 does (github.com/boto/boto/issues/2519)."""
        for change in changes:
            target = change["ResourceRecordSet"].get("AliasTarget", {}).get("DNSName")
            if change["Action"] == "CREATE" and target and plain_name(target) not in self.names_that_stand():
                text = f"[Tried to create an alias that targets {target}, but that target was not found]"
                raise ClientError(
                    {"Error": {"Code": "InvalidChangeBatch", "Message": text}}, "ChangeResourceRecordSets"
                )

    def after_call(self) -> None:
        self._kill("after")

    def _kill(self, when: str) -> None:
        if self.kill_at == (self.calls, when):
            self.kill_at = None
            raise KilledError

    # Records and users ------------------------------------------------------------------------------------------------

    def put(self, *records: dict[str, Any]) -> None:
        """Let records stand, as somebody entered them."""
        self.backend.rrsets = [*self.empty]
        for record in records:
            listed = [each["Value"] for each in record.get("ResourceRecords", [])]
            self.backend.rrsets.append(RecordSet({**record, "Name": f"{HOST}.", "ResourceRecords": listed}))

    def alias(self, kind: str = "A", edge: Edge | None = None, *, healthy: bool = True) -> dict[str, Any]:
        edge = edge or self.old
        name = f"dualstack.{edge.dns_name}."
        return {
            "Type": kind,
            "AliasTarget": {"HostedZoneId": edge.zone_id, "DNSName": name, "EvaluateTargetHealth": healthy},
        }

    def cname(self, ttl: int = 300) -> dict[str, Any]:
        return {"Type": "CNAME", "TTL": ttl, "ResourceRecords": [{"Value": self.old.dns_name}]}

    def shares(self, records: list[RecordSet] | None = None) -> dict[str, dict[str, float]]:
        """Return by type which part of the users each load balancer gets, as Route 53 answers."""
        by_kind: dict[str, list[RecordSet]] = {}
        for record in self.backend.rrsets if records is None else records:
            if record.name == f"{HOST}.":
                by_kind.setdefault(str(record.type), []).append(record)
        shares: dict[str, dict[str, float]] = {}
        for kind, group in by_kind.items():
            weights = [1.0 if record.weight is None else float(record.weight) for record in group]
            total = sum(weights)
            assert total > 0
            shares[kind] = {OLD: 0.0, NEW: 0.0}
            for record, weight in zip(group, weights, strict=True):
                target = record.alias_target["DNSName"] if record.alias_target else record.records[0]
                name = self.names_that_stand().get(plain_name(target), GONE)
                shares[kind][name] = shares[kind].get(name, 0.0) + weight / total
        return shares

    def observe(self, before: list[RecordSet], after: list[RecordSet]) -> None:
        """Hold each write against the oracle: users go somewhere, and nobody is sent to what fails its probes."""
        shares, former = self.shares(after), self.shares(before)
        assert shares, "no answer for the shop's name"
        once = next(iter(former.values()))
        for kind, parts in shares.items():
            assert sum(parts.values()) == pytest.approx(1)
            for name, part in parts.items():
                if part > former.get(kind, once).get(name, 0.0) + 1e-9:
                    assert name != GONE
                    assert self.is_well(name), f"{name} fails its probes and got {part} of the users"

    # Load balancers ---------------------------------------------------------------------------------------------------

    def is_well(self, name: str) -> bool:
        return not self.broken.get(name, lambda _: False)(self.seconds)

    def ask(self, edge: Edge) -> Probe:
        self.probed.append(edge.name)
        if self.unreached(self.seconds):
            return Probe(ok=False, what="no route", reached=False)
        well = edge.dns_name in self.names_that_stand() and self.is_well(edge.name)
        return Probe(ok=well, what=f"HTTP {200 if well else 503}")

    def clock(self) -> WatchClock:
        def sleep(seconds: float) -> None:
            self.seconds += seconds

        return WatchClock(lambda: datetime(2026, 11, 29, tzinfo=UTC) + timedelta(seconds=self.seconds), sleep)

    def mover(self, values: settings.Settings = EXTERNAL) -> move.TrafficMove:
        zone = reads.find_shop_zone(self.clients, values)
        assert zone is not None
        return move.TrafficMove(self.clients, values, zone, self.ask, self.said.append, self.clock())

    def stop_at(self, number: int, when: str, step: Callable[[], None]) -> bool:
        """Run a step that ends at one of its calls; true if it got that far."""
        self.calls, self.kill_at = 0, (number, when)
        with suppress(KilledError):
            step()
        killed, self.kill_at = self.kill_at is None, None
        return killed


def refused(call: Any, error: type[ShopCatError] = PreflightError) -> str:
    """Return the message of a step that is refused."""
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def arrange(world: TrafficWorld, weight: int | None) -> None:
    """Let a simple record stand, or a pair with this share of the new load balancer."""
    world.reset()
    if weight is None:
        world.put(world.alias())
        return
    sides = ((world.old, "shopcat-old", 100 - weight), (world.new, "shopcat-new", weight))
    world.put(
        *(
            {**world.alias(edge=edge, healthy=False), "SetIdentifier": name, "Weight": part}
            for edge, name, part in sides
        )
    )
