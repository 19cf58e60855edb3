"""Other names of the shop: in one certificate, each with its own records, and free before an update takes them."""

from __future__ import annotations

import typing
from types import SimpleNamespace
from typing import Any, cast

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import settings
from infra.clients.aws import AwsClients
from infra.errors import AwsError, PreflightError, SettingsError
from infra.foundation import dns, load_balancers
from tests.unit.test_platform import Echo
from tests.unit.test_settings import committed

HOST, ALIASES = "shop.example.com", ["www.shop.example.com", "m.shop.example.com"]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
@pytest.mark.parametrize("zone_id", [None, "Z1"])
def test_each_host_gets_the_record_that_acm_has_for_it(
    monkeypatch: pytest.MonkeyPatch, zone_id: str | None, order: list[int]
) -> None:
    hosts = [HOST, *ALIASES]
    kinds = {"resourceRecordName": "_1.{}.", "resourceRecordType": "CNAME", "resourceRecordValue": "_2.{}."}
    options = [
        {"domainName": host, **{name: text.format(host) for name, text in kinds.items()}}
        for host in (hosts[index] for index in order)
    ]
    mocks = Echo()
    mocks.known = {
        "aws:acm/certificate:Certificate": {"domainValidationOptions": options},
        "aws:lb/loadBalancer:LoadBalancer": {"dnsName": "lb.amazonaws.com", "zoneId": "Z2"},
    }
    declared: dict[str, dict[str, Any]] = {}
    inherited = mocks.new_resource

    def record(args: pulumi.runtime.MockResourceArgs) -> Any:
        if args.typ in {"aws:route53/record:Record", "aws:acm/certificate:Certificate"}:
            declared[args.name if "record" in args.typ else "certificate"] = dict(args.inputs)
        return inherited(args)

    monkeypatch.setattr(mocks, "new_resource", record)
    pulumi.runtime.set_mocks(mocks)
    found: list[list[dict[str, str]]] = []

    @pulumi.runtime.test
    def program() -> Any:
        balancer = load_balancers.LoadBalancer(
            "shop",
            hosts=hosts,
            zone_id=zone_id,
            network=cast("Any", SimpleNamespace(vpc_id="vpc-1", cidr="10.64.0.0/16")),
            subnet_ids=["subnet-1", "subnet-2"],
            drain=settings.read_settings(committed()).drain.budget,
            protect=False,
            opts=pulumi.ResourceOptions(),
        )
        return balancer.names.apply(found.append)

    program()
    assert declared["certificate"]["domainName"] == HOST
    assert declared["certificate"]["subjectAlternativeNames"] == ALIASES
    records = {name: each for name, each in declared.items() if name != "certificate"}
    if zone_id:
        names = {f"shop-validation@{host}": host for host in hosts}
        assert {name: (records[name]["name"], records[name]["records"]) for name in names} == {
            name: (f"_1.{host}", [f"_2.{host}."]) for name, host in names.items()
        }
        addresses = {f"shop-address@{host}": host for host in hosts}
        assert {name: records[name]["name"] for name in addresses} == addresses
        assert set(records) == {*names, *addresses}
        assert found == [[]]
    else:
        assert records == {}
        (entries,) = found
        assert [entry["name"] for entry in entries] == [*(f"_1.{host}." for host in hosts), *hosts]
        line = load_balancers.to_enter(entries)
        assert (
            line.index(f"_1.{ALIASES[1]}.") < line.index("for which an update waits") < line.index(f"{HOST} CNAME lb")
        )


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ([HOST], "domainAliases: shop.example.com is domain itself"),
        (["www.example.org"], "domainAliases: www.example.org does not lie in shop.example.com"),
        (
            ["shop-previews.example.net"],
            "previewDomain: shop-previews.example.net: no name of the shop can .*domainAliases",
        ),
        (
            ["shop.example.net"],
            "shop-previews.example.net and shop.example.net are one site .*previewDomainShared to true",
        ),
        (["www.shop.example.com", "www.shop.example.com"], "domainAliases: .*each may be there once"),
    ],
)
def test_a_name_that_can_not_be_the_shops_is_no_setting(aliases: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings.read_settings(committed(domainAliases=aliases))


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
names = st.one_of(
    st.lists(labels, min_size=2, max_size=4).map(".".join),
    # What joined names collided on.
    st.sampled_from(
        ["a.b", "validation-a.b", "0", "address-a.b", "validation-validation-a.b", "preview-a.b", "preview-0"]
    ),
)
Records = dict[tuple[str, str, str], tuple[str, list[str]]]
"""Load balancer, purpose and host → logical name, and the former names in the order in which the engine tries them."""


def declared_records(hosts: list[str], previews: str) -> Records:
    found: Records = {}
    for balancer, own in (("shopcat", hosts), ("shopcat-preview", [f"*.{previews}"])):
        for index, host in enumerate(own):
            for purpose in typing.get_args(load_balancers.Purpose):
                former = load_balancers.former_names(balancer, purpose, host, is_first=index == 0)
                name = load_balancers.record_name(balancer, purpose, host)
                found[balancer, purpose, host] = (name, [str(alias.name) for alias in former])
    return found


def former_state(hosts: list[str], previews: str) -> dict[str, tuple[str, str, str]]:
    """Return logical name → record, as the program named them when the first host's went by its role."""
    state = {}
    for balancer, own in (("shopcat", hosts), ("shopcat-preview", [f"*.{previews}"])):
        for index, host in enumerate(own):
            suffix = f"-{host}" if index else ""
            state[f"{balancer}-validation{suffix}"] = (balancer, "validation", host)
            state[f"{balancer}{suffix or '-0'}"] = (balancer, "address", host)
    return state


@given(st.lists(names, min_size=1, max_size=10, unique=True), names, st.randoms())
def test_each_record_has_one_name_whatever_role_its_host_plays(hosts: list[str], previews: str, order: Any) -> None:
    before = {record: name for record, (name, _) in declared_records(hosts, previews).items()}
    assert len(set(before.values())) == len(before)
    moved = [host for host in hosts if order.random() < 0.8] or hosts
    order.shuffle(moved)
    after = {record: name for record, (name, _) in declared_records(moved, previews).items()}
    assert {record: before[record] for record in after} == after


@given(st.lists(labels, min_size=1, max_size=5, unique=True), labels, st.randoms())
def test_a_state_with_former_names_keeps_its_records(first: list[str], previews: str, order: Any) -> None:
    """A model of the engine: it takes the first of a resource's names that the state has (pulumi.com/docs, aliases)."""
    hosts = [f"{label}.example.com" for label in first]
    state = former_state(hosts, previews)
    moved = list(hosts)
    order.shuffle(moved)
    for current in (hosts, [hosts[0], *order.sample(hosts[1:], len(hosts) - 1)], moved):
        taken = {
            record: next((state[each] for each in (name, *former) if each in state), None)
            for record, (name, former) in declared_records(current, previews).items()
        }
        # Never another's record; and with the same domain, no record is left to be made or deleted.
        assert all(old in (None, record) for record, old in taken.items())
        if current[0] == hosts[0]:
            assert all(taken.values())


alias_lists = st.lists(
    st.sampled_from(["www.shop.example.com", "m.shop.example.com", "a.shop.example.com"]), unique=True
)


@given(alias_lists)
def test_production_alone_has_other_names(aliases: list[str]) -> None:
    production, previews = dns.dns_names(settings.read_settings(committed(domainAliases=aliases)), "shopcat")
    assert [each.host for each in production.each_host()] == [HOST, *aliases]
    assert len(previews.each_host()) == 1


class Zone:
    """A Route 53 zone with one record, or whose records may not be read."""

    def __init__(self, record: dict[str, Any] | None, code: str = "") -> None:
        self.record, self.code = record, code

    def read(self, _: Any, __: str, wanted: dns.DnsName) -> list[dict[str, Any]]:
        if self.code:
            raise AwsError("no", self.code)
        return [self.record] if self.record and self.record["Name"].rstrip(".") == wanted.host else []


def test_a_name_of_somebody_elses_is_refused_and_ours_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    name = dns.dns_names(settings.read_settings(committed(domainAliases=ALIASES)), "shopcat")[0]
    clients = cast("AwsClients", SimpleNamespace(region="eu-central-1", endpoint_url=None))

    def check(zone: Zone) -> None:
        monkeypatch.setattr(dns, "read_dns_records", zone.read)
        dns.refuse_taken_aliases(clients, "Z1", name)

    theirs = {"Name": f"{ALIASES[0]}.", "Type": "CNAME", "ResourceRecords": [{"Value": "other.example.org"}]}
    ours = {
        "Name": f"{ALIASES[0]}.",
        "Type": "A",
        "AliasTarget": {"DNSName": "shopcat-1.eu-central-1.elb.amazonaws.com."},
    }
    own_host = {**theirs, "Name": f"{HOST}."}
    for quiet in (Zone(None), Zone(ours), Zone(own_host), Zone(None, "AccessDenied")):
        check(quiet)
    with pytest.raises(PreflightError, match=r"www\.shop\.example\.com CNAME leads to other\.example\.org"):
        check(Zone(theirs))
    with pytest.raises(AwsError):
        check(Zone(None, "Throttling"))
