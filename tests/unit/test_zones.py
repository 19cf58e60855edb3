"""Availability zones that can hold the cluster, and the DNS zone whose names have to be free."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from infra import settings
from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation import availability_zones, dns
from infra.foundation.existing_resources import find_existing
from tests.unit.test_settings import committed

REGION = "us-east-1"
DOMAIN = "shop.example.com"
IDS = [f"use1-az{number}" for number in range(1, 7)]


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield AwsClients(REGION)


# Availability zones ---------------------------------------------------------------------------------------------------


@given(
    ids=st.permutations(IDS),
    there=st.integers(min_value=0, max_value=6),
    offering=st.sets(st.sampled_from(IDS)),
    letters=st.lists(st.sampled_from("abcdefz"), min_size=2, max_size=2, unique=True),
)
def test_zones_pass_exactly_if_each_can_hold_the_cluster(
    ids: list[str], there: int, offering: set[str], letters: list[str]
) -> None:
    """Letters mean other zones in each account; whatever they mean, ids decide."""
    zones = {f"{REGION}{letter}": zone_id for letter, zone_id in zip("abcdef", ids[:there], strict=False)}
    wanted = availability_zones.zone_names(REGION, tuple(letters))
    can = {name for name, zone_id in zones.items() if zone_id != "use1-az3" and zone_id in offering}
    wrong = availability_zones.zone_refusal(wanted, zones, offering, "t3.medium")
    assert (wrong is None) == (set(wanted) <= can)
    if wrong is not None:
        assert wrong.startswith("shopcat:vpc.zones: ")
        problem, _, mend = wrong.partition(". ")
        assert [name for name in wanted if f"{name} (" in problem] == [name for name in wanted if name not in can]
        assert {name for name in zones if f"{name} (" in mend} == can
        assert ("choose another aws:region" in mend) == (len(can) < 2)


@pytest.mark.parametrize(
    ("region", "zone_id"), [("us-east-1", "use1-az3"), ("us-west-1", "usw1-az2"), ("ca-central-1", "cac1-az3")]
)
def test_a_zone_without_eks_is_refused_whatever_its_letter(region: str, zone_id: str) -> None:
    zones = {f"{region}a": zone_id, f"{region}b": "x-az8", f"{region}c": "x-az9"}
    wrong = availability_zones.zone_refusal([f"{region}a", f"{region}b"], zones, set(zones.values()), "t3.medium")
    assert wrong == (
        f"shopcat:vpc.zones: the cluster can't be in {region}a (EKS takes no subnet in {zone_id}). Those that can: "
        f"{region}b (x-az8), {region}c (x-az9); choose two of them, by their letters"
    )


def test_zones_are_read_from_ec2(clients: AwsClients) -> None:
    zones, offering = availability_zones.read_zones(clients)
    (bad,) = [name for name, zone_id in zones.items() if zone_id == "use1-az3"]
    good = [name[-1] for name, zone_id in zones.items() if zone_id in offering and name != bad]
    availability_zones.refuse_unusable(clients, (good[0], good[1]))
    with pytest.raises(ShopCatError, match=rf"{bad} \(EKS takes no subnet in use1-az3\)"):
        availability_zones.refuse_unusable(clients, (good[0], bad[-1]))
    _, none = availability_zones.read_zones(clients, "no.such")
    assert none == set()


def test_a_denied_read_of_zones_is_one_message(clients: AwsClients, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, "DescribeAvailabilityZones")

    monkeypatch.setattr(clients.get("ec2"), "describe_availability_zones", denied)
    with pytest.raises(ShopCatError, match=r"^availability zones: .*UnauthorizedOperation"):
        availability_zones.refuse_unusable(clients, ("a", "b"))


# The DNS zone ---------------------------------------------------------------------------------------------------------

OURS = f"shopcat-123.{REGION}.elb.amazonaws.com"
BOTH = dns.dns_names(
    settings.read_settings(
        committed(hostedZone="example.com.", previewDomain=f"preview.{DOMAIN}", previewDomainShared=True)
    ),
    "shopcat",
)
"""Both names in one zone, which is the harder case."""
NAMES = [DOMAIN, f"*.preview.{DOMAIN}", f"preview.{DOMAIN}", "example.com", f"www.{DOMAIN}", f"*.{DOMAIN}"]


def record(name: str, kind: str, value: str = "192.0.2.1") -> dict[str, Any]:
    return {"Name": f"{name}.".replace("*", "\\052"), "Type": kind, "ResourceRecords": [{"Value": value}]}


def alias(name: str, target: str, kind: str = "A") -> dict[str, Any]:
    return {"Name": f"{name}.".replace("*", "\\052"), "Type": kind, "AliasTarget": {"DNSName": target}}


def obstacles(*records: dict[str, Any]) -> list[str]:
    return [line for name in BOTH for line in dns.dns_obstacles(records, name, REGION, "Z1")]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["A", "AAAA", "CNAME", "TXT", "MX", "NS", "SOA"]))))
def test_names_are_free_unless_a_record_decides_where_they_lead(pairs: list[tuple[str, str]]) -> None:
    blocked = {
        (name, kind)
        for name, kind in pairs
        if (name in NAMES[:2] and kind in ("A", "AAAA", "CNAME", "NS")) or (name == NAMES[2] and kind == "NS")
    }
    assert bool(obstacles(*(record(name, kind) for name, kind in pairs))) == bool(blocked)


@pytest.mark.parametrize("target", [OURS, f"dualstack.{OURS}.", OURS.upper()])
def test_a_name_that_leads_to_our_load_balancer_is_no_obstacle(target: str) -> None:
    assert obstacles(alias(DOMAIN, target)) == []


def routed(name: str, target: str, **policy: Any) -> dict[str, Any]:
    entry = alias(name, target)
    return {
        **entry,
        **policy,
        "AliasTarget": {**entry["AliasTarget"], "HostedZoneId": "Z2", "EvaluateTargetHealth": True},
    }


def test_records_with_a_routing_policy_are_in_the_way_wherever_they_lead(clients: AwsClients) -> None:
    route53 = clients.get("route53")
    zone_id = route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"].rpartition("/")[2]
    pair = [
        routed(DOMAIN, f"{OURS}.", SetIdentifier=word, Weight=weight) for word, weight in (("old", 0), ("new", 100))
    ]
    changes = [{"Action": "CREATE", "ResourceRecordSet": each} for each in pair]
    route53.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch={"Changes": changes})
    with pytest.raises(ShopCatError) as refused:
        dns.refuse_taken_name(clients, zone_id, BOTH[0])
    with pytest.raises(ShopCatError, match=r"routing policy .*SetIdentifier"):
        find_existing(clients, "aws:route53/record:Record", {"zoneId": zone_id, "name": DOMAIN, "type": "A"})
    words = shlex.split(str(refused.value).partition("`")[2].partition("`")[0])
    assert words[:5] == ["aws", "route53", "change-resource-record-sets", "--hosted-zone-id", zone_id]
    # The command does as it says: one simple record, and nothing is in the way.
    route53.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch=json.loads(words[-1]))
    dns.refuse_taken_name(clients, zone_id, BOTH[0])
    (record,) = [each for each in dns.read_dns_records(clients, zone_id, BOTH[0]) if each["Type"] == "A"]
    assert "SetIdentifier" not in record
    elsewhere = routed(DOMAIN, f"other-1.{REGION}.elb.amazonaws.com", SetIdentifier="old", Weight=1)
    assert all("other-1" in line for line in obstacles(elsewhere, pair[1]))
    assert "STEP=finish" in dns.routing_obstacle([elsewhere, pair[1]], zone_id)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (alias(DOMAIN, f"shop-123.{REGION}.elb.amazonaws.com"), "shop-123"),
        (alias(DOMAIN, "shopcat-123.eu-central-1.elb.amazonaws.com"), "eu-central-1"),
        (alias(DOMAIN, f"shopcat-preview-123.{REGION}.elb.amazonaws.com"), "shopcat-preview-123"),
        (alias(DOMAIN, OURS, "AAAA"), "AAAA"),
        (alias(DOMAIN, "d1.cloudfront.net"), "cloudfront"),
        (record(DOMAIN, "CNAME", OURS), "CNAME"),
        (record(f"*.preview.{DOMAIN}", "A"), r"*.preview.shop.example.com A leads to 192.0.2.1"),
        (record(DOMAIN, "NS", "ns1.example.net"), "ostedZone to shop.example.com"),
        (
            record(f"preview.{DOMAIN}", "NS", "ns1.example.net"),
            "set shopcat:previewHostedZone to preview.shop.example.com",
        ),
    ],
)
def test_a_record_of_another_owner_is_named_with_what_to_do(entry: dict[str, Any], named: str) -> None:
    found = obstacles(entry)
    assert found
    assert all(named in line for line in found)


@pytest.mark.parametrize(
    ("name", "values", "blocked"),
    [
        ("example.com", ['0 issue "letsencrypt.org"'], [DOMAIN, f"*.preview.{DOMAIN}"]),
        ("example.com", ['0 issue "letsencrypt.org"', '0 issue "amazon.com"'], []),
        ("example.com", ['0 issue ";"'], [DOMAIN, f"*.preview.{DOMAIN}"]),
        ("example.com", ['0 iodef "mailto:a@example.com"'], []),
        ("example.com", ['0 issue "amazon.com"', '0 issuewild ";"'], [f"*.preview.{DOMAIN}"]),
        ("example.com", ['0 issuewild "letsencrypt.org"'], [f"*.preview.{DOMAIN}"]),
        (f"preview.{DOMAIN}", ['0 issue "letsencrypt.org"'], [f"*.preview.{DOMAIN}"]),
        (DOMAIN, ['0 issue "awstrust.com; policy=x"'], []),
    ],
)
def test_a_caa_record_that_forbids_the_certificate_is_found(name: str, values: list[str], blocked: list[str]) -> None:
    entry = {"Name": f"{name}.", "Type": "CAA", "ResourceRecords": [{"Value": value} for value in values]}
    found = obstacles(entry)
    found_for = [host for host in (DOMAIN, f"*.preview.{DOMAIN}") if any(f"for {host}" in line for line in found)]
    assert found_for == blocked
    nearer = {**entry, "Name": f"{DOMAIN}.", "ResourceRecords": [{"Value": '0 issue "amazon.com"'}]}
    if name == "example.com":
        assert obstacles(entry, nearer) == []


def test_records_are_read_from_route_53_before_the_load_balancers_are_made(clients: AwsClients) -> None:
    route53 = clients.get("route53")
    route53.create_hosted_zone(Name="example.com", CallerReference="1")
    zone_id = dns.find_zone(clients, BOTH[0])
    assert dns.find_zone(clients, BOTH[1]) == zone_id

    def check() -> None:
        for name in BOTH:
            dns.refuse_taken_name(clients, zone_id, name)

    def enter(entry: dict[str, Any], action: str = "CREATE") -> None:
        change = {"Action": action, "ResourceRecordSet": {**entry, "TTL": 60}}
        route53.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch={"Changes": [change]})

    check()
    for number in range(150):
        enter(record(f"a{number}.example.com", "A"))
    check()
    for entry in (record(f"*.preview.{DOMAIN}", "A"), record(DOMAIN, "CNAME", "x.example.net")):
        enter(entry)
        with pytest.raises(ShopCatError, match=r"Route 53 zone example.com .*in the way: .*shop.example.com"):
            check()
        enter(entry, "DELETE")
    check()


def test_each_name_has_the_zone_that_it_lies_in(clients: AwsClients) -> None:
    shop, previews = dns.dns_names(settings.read_settings(committed()), "shopcat")
    assert (shop.host, shop.zone) == (DOMAIN, DOMAIN)
    assert (previews.host, previews.zone) == ("*.shop-previews.example.net", "shop-previews.example.net")
    assert previews.balancer == "shopcat-preview"
    clients.get("route53").create_hosted_zone(Name=DOMAIN, CallerReference="1")
    assert dns.find_zone(clients, shop)
    with pytest.raises(
        ShopCatError,
        match=r"no public Route 53 zone shop-previews.example.net .* set shopcat:previewHostedZone to the zone that ",
    ):
        dns.find_zone(clients, previews)
    clients.get("route53").create_hosted_zone(Name="example.net", CallerReference="2")
    above = settings.read_settings(committed(previewHostedZone="example.net"))
    assert dns.find_zone(clients, dns.dns_names(above, "shopcat")[1]) != dns.find_zone(clients, shop)


def test_two_zones_of_one_name_are_refused_and_a_private_one_is_none(clients: AwsClients) -> None:
    route53 = clients.get("route53")

    def make(reference: str, **more: Any) -> str:
        answer = route53.create_hosted_zone(Name="example.com", CallerReference=reference, **more)
        return str(answer["HostedZone"]["Id"].rpartition("/")[2])

    first = make("1")
    make("2", HostedZoneConfig={"PrivateZone": True}, VPC={"VPCRegion": REGION, "VPCId": "vpc-1"})
    assert dns.find_zone(clients, BOTH[0]) == first
    second = make("3")
    with pytest.raises(ShopCatError, match=r"are called example.com .*aws route53 delete-hosted-zone") as refused:
        dns.find_zone(clients, BOTH[0])
    assert first in str(refused.value)
    assert second in str(refused.value)
    assert not isinstance(refused.value, dns.ZoneMissingError)
