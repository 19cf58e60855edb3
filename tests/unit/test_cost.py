"""The cost page: every price has a source, everything declared has a price, sums are sums, and the page is up to date."""

import contextlib
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import capacity, settings
from infra.commands import recorded_stacks
from infra.commands.cost import __main__ as command
from infra.commands.cost import prices as price_file
from infra.commands.cost.charges import ALWAYS_CHARGED, CHARGED, Charge, charges, charges_beside
from infra.commands.cost.estimate import Estimate, estimate
from infra.commands.cost.nodes import cheapest_pair, node_pair, node_pairs, other_types
from infra.commands.cost.page import SETTING_CHANGES, changed
from infra.commands.cost.prices import HOURS_PER_MONTH, Price, PriceList, read_prices
from infra.commands.takeover.declaration import Declared
from infra.errors import SettingsError
from infra.settings import Settings
from infra.settings.platform import Restore
from tests.unit.test_settings import PREVIEWS, committed, existing

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "engine" / "golden"
REGION, ACCOUNT = "eu-central-1", "123456789012"
PRICES = read_prices(REGION)
SETTINGS = settings.read_settings(committed())
WATCHED = {"email": "ops@example.com", "monthlyBudgetUsd": 300}
SHIPPED = {"image": f"example.com/fluent-bit@sha256:{'a' * 64}"}
MONITORED = settings.read_settings(committed(monitoring={**WATCHED, "logs": SHIPPED}))


@cache
def _recorded(text: str) -> Sequence[Declared]:
    return recorded_stacks.record_production(Settings.model_validate_json(text), REGION, ACCOUNT)


def production(chosen: Settings) -> Sequence[Declared]:
    """Record what settings declare; each once, since that takes half a second."""
    return _recorded(chosen.model_dump_json(by_alias=True))


@cache
def preview() -> Sequence[Declared]:
    return recorded_stacks.record_preview(settings.read_preview(PREVIEWS, {"shopcat:tag": "abc"})[1], REGION)


def bill(chosen: Settings) -> Estimate:
    return estimate([*charges(production(chosen), PRICES), *charges_beside(chosen)], PRICES)


# Prices ---------------------------------------------------------------------------------------------------------------


def test_every_price_has_a_source_with_a_date_or_says_why_it_is_unknown() -> None:
    for name, price in PRICES.price.items():
        if price.usd is None:
            assert len(price.unknown) > 20, name
        else:
            source = PRICES.source[price.source]
            assert source.published <= source.read
            assert re.match(r"https://(b0\.p\.awsstatic\.com/pricing/|aws\.amazon\.com/)", source.url), name


def test_a_copy_stands_in_a_repository_at_a_commit() -> None:
    """What is linked is what was read, whatever its repository holds later."""
    for source in PRICES.source.values():
        if source.evidence == "copy":
            assert re.match(r"https://github\.com/[^/]+/[^/]+/blob/[0-9a-f]{40}/", source.seen)


_FILE = (price_file.PRICES_FOLDER / f"{REGION}.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('usd = 0.052\nunit = "hour"\nsource = "nat"\n', 'usd = 0.052\nunit = "hour"\n', "usd needs a source"),
        ('usd = 0.052\nunit = "hour"', 'unit = "hour"', "either usd, with its source and entry, or unknown"),
        ('usd = 0.052\nunit = "hour"', 'usd = -1\nunit = "hour"', "greater than or equal to 0"),
        ('source = "nat"', 'source = "hearsay"', "sources that are named and not described"),
        ('url = "https://aws', 'url = "http://aws', "begin with https://"),
        ("published = 2026-09-20", "published = 2027-01-01", "read before it was published"),
        ('evidence = "quote"\nseen', 'evidence = "page"\nseen', "a page needs none"),
        ('region = "eu-central-1"', 'region = "eu-west-1"', "name it by its region"),
        ('unit = "LCU-hour"', 'unit = "fortnight"', "LCU-hour"),
    ],
)
def test_a_price_file_that_lacks_something_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in _FILE
    (tmp_path / f"{REGION}.toml").write_text(_FILE.replace(old, new))
    with pytest.raises(SettingsError, match=re.escape(words)):
        read_prices(REGION, tmp_path)


def test_a_region_without_prices_is_refused_with_what_to_add() -> None:
    with pytest.raises(SettingsError, match=r"prices of eu-central-1 alone: add infra/commands/cost/eu-west-1\.toml"):
        read_prices("eu-west-1")


def test_a_price_that_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match=r"there is no price t3\.small: add"):
        PRICES.of("t3.small")


def test_a_page_that_can_not_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--write", str(tmp_path)]) == 1
    assert "can't be written" in capsys.readouterr().err


def test_no_price_is_left_over() -> None:
    """Each is used for the settings as they are or may be, or for another shape of the nodes."""
    databases = [_variant(1, endpoints=True, multi=multi, size=size) for multi in (False, True) for size in range(3)]
    databases += [changed(each, "database", storage_type="gp2") for each in (databases[0], databases[3])]
    databases.append(MONITORED)
    used = {charge.price for each in databases for charge in charges(production(each), PRICES)}
    used |= (
        {charge.price for charge in charges_beside(SETTINGS)}
        | set(other_types(SETTINGS.production, PRICES))
        | {"eks-extended-support"}
    )
    assert used == set(PRICES.price)


# What is declared -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"multi_zone": True}, {"storage_type": "gp2"}])
def test_a_restored_database_costs_as_much_as_the_first(changes: dict[str, Any]) -> None:
    restore = Restore(at="2026-11-29T10:00:00Z", serves=True)
    first = changed(SETTINGS, "database", **changes)
    alone, both = (charges(production(each), PRICES) for each in (first, changed(first, "database", restore=restore)))
    added = Counter(both) - Counter(alone)
    assert added == Counter(
        charge for charge in alone if charge.what.startswith(("database ", "storage of", "secret with"))
    )
    assert len(added) == 3


def test_a_database_with_iops_of_its_own_is_not_priced_without_them() -> None:
    chosen = changed(SETTINGS, "database", storage_gibibytes=400, iops=12_000)
    with pytest.raises(SettingsError, match="iops is 12000"):
        charges(production(chosen), PRICES)


def _engine_types(name: str) -> set[str]:
    """Types of what the engine was given, of whatever plugin."""
    urns = json.loads((GOLDEN / name).read_text())
    types = {urn.split("::")[-2].rpartition("$")[2] for urn in urns}
    return {kind for kind in types if kind.split(":")[0] in ("aws", "kubernetes")}


@pytest.mark.parametrize("name", ["production.json", "preview.json"])
def test_every_type_that_the_engine_is_given_is_priced_or_named_free(name: str) -> None:
    """The release and what confines previews too, which are not recorded."""
    known = {*CHARGED, *ALWAYS_CHARGED, *PRICES.free}
    assert _engine_types(name) <= known


def test_a_type_is_charged_for_or_free_and_not_both() -> None:
    assert [
        *CHARGED.keys() & ALWAYS_CHARGED.keys(),
        *(CHARGED.keys() | ALWAYS_CHARGED.keys()) & PRICES.free.keys(),
    ] == []


def test_no_type_is_listed_that_nothing_declares() -> None:
    watched = {each.pulumi_type for each in production(MONITORED)}
    engine = _engine_types("production.json") | _engine_types("preview.json")
    assert {*CHARGED, *ALWAYS_CHARGED, *PRICES.free} == engine | watched


def test_all_of_aws_that_the_engine_is_given_is_recorded() -> None:
    for name, recorded in (("production.json", production(SETTINGS)), ("preview.json", preview())):
        types = {each.pulumi_type for each in recorded if each.pulumi_type.startswith("aws:")}
        assert types >= {kind for kind in _engine_types(name) if kind.startswith("aws:")} - {
            "aws:eks/accessEntry:AccessEntry",  # of administrators and GitHub, who are in the test's settings alone
            "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        }


def test_each_resource_is_recorded_once() -> None:
    keys = [each.key for each in production(SETTINGS)]
    assert len(keys) == len(set(keys)) > 80


def test_a_type_that_nobody_knows_is_an_error() -> None:
    cache_cluster = Declared("aws:elasticache/cluster:Cluster", "sessions")
    with pytest.raises(SettingsError, match="cluster:Cluster sessions: nothing says what it costs"):
        charges([*production(SETTINGS), cache_cluster], PRICES)


@pytest.mark.parametrize(
    ("kind", "inputs", "argument"),
    [
        ("aws:rds/instance:Instance", {"storageType": "io2"}, "storageType"),
        ("aws:rds/instance:Instance", {"engine": "mysql"}, "engine"),
        ("aws:lb/loadBalancer:LoadBalancer", {"loadBalancerType": "network"}, "loadBalancerType"),
        ("aws:eks/nodeGroup:NodeGroup", {"capacityType": "SPOT"}, "capacityType"),
        ("aws:dynamodb/table:Table", {"billingMode": "PROVISIONED"}, "billingMode"),
        ("aws:ec2/vpcEndpoint:VpcEndpoint", {"vpcEndpointType": "GatewayLoadBalancer"}, "vpcEndpointType"),
        (
            "aws:ec2/launchTemplate:LaunchTemplate",
            {"blockDeviceMappings": [{"ebs": {"volumeType": "io2"}}]},
            "volumeType",
        ),
        ("kubernetes:core/v1:Service", {"spec": {"type": "LoadBalancer"}}, "spec.type"),
    ],
)
def test_an_argument_that_has_another_price_is_an_error(kind: str, inputs: Mapping[str, Any], argument: str) -> None:
    whole = [*production(SETTINGS), *preview()]
    other = [replace(each, inputs={**each.inputs, **inputs}) if each.pulumi_type == kind else each for each in whole]
    with pytest.raises(SettingsError, match=f"{argument} is .* has a price"):
        charges(other, PRICES)


def test_an_instance_class_without_a_price_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"no price db\.r8g\.large-single"):
        estimate([Charge("database", "db.r8g.large-single", Decimal(1))], PRICES)


def test_the_bill_with_somebody_elses_cluster_has_neither_it_nor_nodes_nor_nat() -> None:
    chosen = settings.read_settings(committed(cluster={**committed()["cluster"], **existing()}))
    names = {row.price_name for row in bill(chosen).fixed}
    assert not names & {"eks-cluster", "t3.medium", "node-disk", "nat-gateway"}
    assert {"load-balancer", "db.t4g.micro-single"} <= names


# Sums -----------------------------------------------------------------------------------------------------------------

_counts = st.decimals(0, 1000, places=2)
_charges = st.lists(
    st.builds(Charge, st.sampled_from(["a", "b", "c"]), st.sampled_from(sorted(PRICES.price)), st.none() | _counts).map(
        # What is paid by use never shares a name with what is paid for the time it exists.
        lambda charge: replace(charge, what=f"{charge.what} {'by use' if charge.count is None else ''}")
    )
)


@given(_charges)
def test_a_total_is_the_sum_of_its_charges(lines: list[Charge]) -> None:
    result = estimate(lines, PRICES)
    fixed = [line for line in lines if line.count is not None]
    amounts = [PRICES.of(line.price).monthly(line.count or Decimal()) for line in fixed]
    assert result.total == sum((amount for amount in amounts if amount is not None), Decimal())
    assert result.total == sum((row.monthly for row in result.fixed if row.monthly is not None), Decimal())
    assert set(result.unknown) == {line.what for line in fixed if PRICES.of(line.price).usd is None}
    assert {row.what for row in result.by_use} == {line.what for line in lines if line.count is None}


@given(_charges, _charges)
def test_one_charge_more_never_lowers_a_total(lines: list[Charge], more: list[Charge]) -> None:
    assert estimate([*lines, *more], PRICES).total >= estimate(lines, PRICES).total


@given(st.decimals(0, 100, places=4), st.integers(1, 50))
def test_an_hour_s_price_is_paid_730_times(usd: Decimal, count: int) -> None:
    hourly = Price(unit="hour", usd=usd, source="x", entry="y").monthly(Decimal(count))
    monthly = Price(unit="month", usd=usd, source="x", entry="y").monthly(Decimal(count))
    assert hourly is not None
    assert monthly is not None
    assert hourly == monthly * HOURS_PER_MONTH == monthly * 365 * 24 / 12


def _variant(nat: int, *, endpoints: bool, multi: bool, size: int) -> Settings:
    chosen = changed(SETTINGS, "vpc", nat_gateways=nat, interface_endpoints=endpoints)
    classes = ("db.t4g.micro", "db.t4g.small", "db.t4g.medium")
    return changed(chosen, "database", multi_zone=multi, instance_class=classes[size], storage_gibibytes=20 + 10 * size)


_switches = st.tuples(st.integers(1, 2), st.booleans(), st.booleans(), st.integers(0, 1))


@given(_switches, _switches)
def test_turning_a_paid_setting_on_never_lowers_the_sum(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    low, high = (tuple(choose(pair) for pair in zip(first, second, strict=True)) for choose in (min, max))
    totals = [
        bill(_variant(nat, endpoints=endpoints, multi=multi, size=size)).total
        for nat, endpoints, multi, size in (low, high)
    ]
    assert totals[0] < totals[1] if low != high else totals[0] == totals[1]


def test_monitoring_costs_its_key_and_each_metric_of_an_alarm() -> None:
    metrics = [
        query
        for each in production(MONITORED)
        if each.pulumi_type == "aws:cloudwatch/metricAlarm:MetricAlarm"
        for query in each.inputs["metricQueries"]
        if "metric" in query
    ]
    key = PRICES.of("key").usd
    assert key is not None
    assert bill(MONITORED).total - bill(SETTINGS).total == key + len(metrics) * Decimal("0.10")


def test_each_setting_of_the_page_changes_the_total() -> None:
    amounts = [bill(change.apply(SETTINGS)).total - bill(SETTINGS).total for change in SETTING_CHANGES]
    assert all(amount > 0 for amount in amounts[:-1])
    assert amounts[-1] == -2 * (PRICES.of("hosted-zone").usd or 0), "two zones that are not needed"


def test_one_zone_serves_both_names_if_both_lie_in_it() -> None:
    shared = settings.read_settings(
        committed(
            previewDomain="previews.shop.example.com", previewDomainShared=True, previewHostedZone="shop.example.com"
        )
    )
    zones = [charge for charge in charges_beside(shared) if charge.price == "hosted-zone"]
    assert len(zones) == 1


# Nodes ----------------------------------------------------------------------------------------------------------------


def test_the_nodes_that_there_are_come_first_and_hold_what_the_contract_says() -> None:
    today, *others = node_pairs(SETTINGS.production, capacity.DISK_GIBIBYTES, PRICES)
    assert today.shape is capacity.T3_MEDIUM
    assert today.previews == capacity.plan(SETTINGS.production).previews
    amounts = [pair.monthly for pair in others]
    assert amounts == sorted(amounts, key=lambda amount: amount or Decimal())


@given(st.integers(1, 120))
def test_the_cheapest_nodes_hold_so_many_previews_and_a_smaller_disk_does_not(previews: int) -> None:
    pair = cheapest_pair(SETTINGS.production, previews, PRICES)
    assert pair is not None
    assert pair.previews >= previews
    if pair.disk_gibibytes > capacity.DISK_GIBIBYTES:
        smaller = capacity.known_shape(pair.shape.name, pair.disk_gibibytes - 10)
        assert node_pair(SETTINGS.production, smaller, pair.disk_gibibytes - 10, PRICES).previews < previews


def test_no_shape_is_enough_for_too_many() -> None:
    assert cheapest_pair(SETTINGS.production, 1000, PRICES) is None


def test_a_managed_node_group_s_limit_of_pods_counts() -> None:
    slots = {name: capacity.known_shape(name, 40).pod_slots for name in other_types(SETTINGS.production, PRICES)}
    assert slots["m6a.4xlarge"] == 110
    assert slots["m6a.8xlarge"] == 234
    assert slots["t3.large"] == 35


def test_nodes_of_another_number_and_type_are_compared_with_as_many() -> None:
    described = {**existing()["existing"], "nodes": {"instanceType": "t3.large", "count": 3, "diskGibibytes": 50}}
    chosen = settings.read_settings(committed(cluster={**committed()["cluster"], "existing": described}))
    today, *others = node_pairs(chosen.production, 50, PRICES)
    assert (today.shape.name, today.disk_gibibytes) == ("t3.large", 50)
    assert "t3.large" not in {pair.shape.name for pair in others}
    assert today.monthly == PRICES.of("t3.large").monthly(Decimal(3)) + PRICES.of("node-disk").monthly(Decimal(150))


# The page -------------------------------------------------------------------------------------------------------------


@cache
def page() -> str:
    """Return what the command prints; once, since it records production for each setting."""
    printed = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(printed):
        assert command.main([]) == 0
    return printed.getvalue()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record each production once, for whoever asks."""
    monkeypatch.setattr(command, "record_production", lambda chosen, *_: production(chosen))
    monkeypatch.setattr(command, "record_preview", lambda *_: preview())
    monkeypatch.chdir(ROOT)


def test_the_page_on_disk_is_what_the_command_prints() -> None:
    assert (ROOT / "docs" / "cost.md").read_text() == page(), "run make cost"


def test_the_totals_on_the_page_are_the_sums_of_its_rows() -> None:
    for heading in ("## Production, per month", "## A preview, per day"):
        part = page().partition(heading)[2].partition("\n## ")[0]
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")][2:]
        amounts = [Decimal(row[-1].strip("*| ")) for row in rows]
        # Each row is rounded by itself.
        assert abs(sum(amounts[:-1], Decimal()) - amounts[-1]) <= len(rows) * Decimal("0.005")
        assert len(amounts) > 1


@pytest.mark.usefixtures("quick")
def test_the_page_is_written_where_it_is_told(tmp_path: Path) -> None:
    assert command.main(["--write", str(tmp_path / "cost.md")]) == 0
    assert (tmp_path / "cost.md").read_text() == page()


@pytest.mark.usefixtures("quick")
def test_an_unknown_price_makes_the_total_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Price(unit="hour", unknown="nobody knows")
    without = PRICES.model_copy(update={"price": {**PRICES.price, "nat-gateway": unknown}})
    monkeypatch.setattr(command, "read_prices", lambda _: without)
    text = command.cost_text(ROOT)
    assert "to which the unknown has to be added" in text
    assert "Not in the total, since no price has a source: NAT gateway." in text
    (gateways,) = [line for line in text.splitlines() if line.startswith("| `vpc.natGateways")]
    assert gateways.endswith("| unknown |"), "more of what has no price costs more than nothing"
    (storage,) = [line for line in text.splitlines() if line.startswith("| `database.storageGibibytes")]
    assert "+1.37" in storage


def test_a_refusal_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(_: str) -> PriceList:
        raise SettingsError("there are no prices")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command, "read_prices", refuse)
    assert command.main(["--write", str(tmp_path / "cost.md")]) == 1
    assert capsys.readouterr().err == "error: there are no prices\n"
    assert not (tmp_path / "cost.md").exists()


def test_numbers_of_money_in_the_program_are_those_of_the_price_file() -> None:
    """Docstrings and messages; a comment of the price file is no number of the program."""
    extended, cluster = PRICES.of("eks-extended-support").usd, PRICES.of("eks-cluster").usd
    assert extended is not None
    assert cluster is not None
    known = {extended, extended + cluster}
    found = {
        (str(path.relative_to(ROOT)), Decimal(number))
        for path in (ROOT / "infra").rglob("*.py")
        for number in re.findall(r"\$?\b(\d+(?:\.\d+)?) (?:USD|US dollars|dollars)\b", path.read_text())
    }
    assert {amount for _, amount in found} == known, found
