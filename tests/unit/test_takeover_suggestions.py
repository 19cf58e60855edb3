"""Whatever a state holds: a suggested line is one that the settings take, and what they would refuse is an error of the plan."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as generated
from hypothesis import strategies as st

from infra import settings
from infra.commands.takeover import layout, nodes
from infra.commands.takeover.database_settings import existing_database
from infra.commands.takeover.plan import plan_takeover
from infra.commands.takeover.redaction import HIDDEN, Redactor
from infra.commands.takeover.report import plan_text
from infra.commands.takeover.state import Owned, parse_state
from infra.commands.takeover.suggestions import PLACEHOLDERS, usable_lines
from infra.errors import SettingsError
from tests.unit.test_settings import committed
from tests.unit.test_takeover_plan import ACCOUNT, MODULES, PLAIN, REGION, SETTINGS, recorded

FOLDER = Path(__file__).parent / "fixtures" / "terraform"
NAMES = st.sampled_from(
    ["123", "1e3", "0x10", "2024-99-99", "true", "No", "null", "~", "a: b", "a # b", "[", "*x", '"', "a\nb: [", ""]
)
"""Names that AWS takes and YAML reads as something else, and some that would end a line of a stack file or its meaning."""
CHANGES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "aws_db_instance": {
        "db_name": st.sampled_from([None, "", "shop", "9shop", "unknown"]),
        "username": st.sampled_from(["admin", "shop", "rdsadmin", "a b"]),
        "instance_class": st.sampled_from(["db.t2.micro", "db.t4g.micro", "db.r6g.large", "db.serverless", None]),
        "allocated_storage": st.sampled_from([None, 5, 20, 100, 100_000]),
        "max_allocated_storage": st.sampled_from([None, 0, 1000]),
        "storage_type": st.sampled_from(["gp2", "gp3", "io1", "standard", None]),
        "iops": st.sampled_from([None, 0, 3000]),
        "kms_key_id": st.sampled_from(["", "alias/aws/rds", "arn:aws:kms:eu-central-1:123456789012:alias/x"]),
        "engine_version_actual": st.sampled_from(["15.8", "9.6.24", "", None]),
        "port": st.sampled_from([None, 5432, 80, 6000]),
        "backup_retention_period": st.sampled_from([0, 7, 40]),
        "multi_az": st.sampled_from([True, None]),
    },
    "aws_nat_gateway": {"public_ip": st.sampled_from(["", "203.0.113.9", "x", "x: ["])},
    "aws_eks_node_group": {
        "instance_types": st.sampled_from([["t4g.medium"], ["t3.medium"], ["t3.large", "m5.large"], ["p5.48xlarge"]]),
        "scaling_config": st.integers(0, 200).map(lambda least: [{"min_size": least}]),
        "disk_size": st.sampled_from([0, 8, 20, 20_000]),
        "ami_type": st.sampled_from(["AL2023_x86_64_STANDARD", "AL2_ARM_64", "WINDOWS_CORE_2022_x86_64"]),
        "capacity_type": st.sampled_from(["ON_DEMAND", "SPOT"]),
        "taint": st.sampled_from(
            [[], [{"key": "a", "effect": "NO_SCHEDULE"}], [{"key": "a", "effect": "PREFER_NO_SCHEDULE"}]]
        ),
    },
    "aws_eks_cluster": {"name": NAMES},
    "aws_subnet": {"id": st.sampled_from(["", "subnet-0123456789abcdef0", "[", "a: b"])},
    "aws_vpc": {"cidr_block": st.sampled_from(["10.0.0.0/16", "10.0.0.1/16", "", None])},
    "aws_ecr_repository": {
        "name": st.sampled_from(["shopcat", "Shop", "acme/shop", "shopcat-preview"]) | NAMES,
        "encryption_configuration": st.sampled_from(
            [[], [{"encryption_type": "KMS", "kms_key": "alias/x"}], [{"encryption_type": "KMS", "kms_key": None}]]
        ),
    },
}


@st.composite
def changed_states(draw: st.DrawFn) -> list[Owned]:
    """One of the recorded layouts, with values in it that real accounts have, and some that no setting takes."""
    owned = []
    for each in draw(st.sampled_from([PLAIN, MODULES])).owned:
        known = CHANGES.get(each.type_name, {})
        chosen = draw(st.fixed_dictionaries({}, optional=known)) if known else {}
        copies = draw(st.integers(1, 6)) if each.type_name == "aws_nat_gateway" else 1
        owned += [replace(each, attributes={**each.attributes, **chosen})] * copies
    return owned


def merged(lines: list[str]) -> dict[str, Any]:
    """The committed settings with the lines in them, and with what a person fills in."""
    values = committed()
    for key, section in (yaml.safe_load("\n".join(lines)) or {}).items():
        name = key.removeprefix("shopcat:")
        values[name] = {**values.get(name, {}), **section}
    for path, value in PLACEHOLDERS.items():
        section, *rest = path.removeprefix("shopcat:").split(".")
        place = values[section]
        for part in rest[:-1]:
            place = place.get(part, {})
        if rest[:-1] == ["existing"] or "masterSecret" in place:
            place[rest[-1]] = value
    return values


def refusals(values: dict[str, Any]) -> list[str]:
    try:
        settings.read_settings(values)
    except SettingsError as refusal:
        return [line.removeprefix("  - ") for line in str(refusal).splitlines()[1:]]
    return []


@generated(deadline=None)
@given(changed_states())
def test_a_suggested_line_is_taken_or_the_plan_has_an_error(owned: list[Owned]) -> None:
    instance = next(each for each in owned if each.type_name == "aws_db_instance")
    suggested = [
        *layout.existing_cluster(owned, SETTINGS),
        *layout.registry(owned, SETTINGS),
        *existing_database(instance, owned, SETTINGS),
    ]
    lines, errors = usable_lines(suggested, SETTINGS)
    assert len(set(errors)) == len(errors)
    assert [line for line in suggested if line in lines] == lines, "lines are left out, and never changed"
    assert len(lines) == len(suggested) or errors
    refused = refusals(merged(lines))
    told = [line for line in refused if ": missing; " in line or any(line in error for error in errors)]
    assert told == refused


@pytest.mark.parametrize("words", ["shop", "qz"])
def test_a_value_that_an_output_marks_is_in_no_line(words: str) -> None:
    document = json.loads((FOLDER / "plain.tfstate").read_text())
    for resource in document["resources"]:
        if resource["type"] == "aws_db_instance":
            resource["instances"][0]["attributes"]["username"] = words
    document["outputs"] = {"user": {"value": words, "sensitive": True}}
    state = parse_state(json.dumps(document).encode(), "s")
    plan = plan_takeover(state.owned, recorded(), SETTINGS, region=REGION, account=ACCOUNT)
    text = plan_text(plan, Redactor(state.secrets))
    assert f"# username: {HIDDEN}, since Terraform marks it" in text
    assert f'"{words}"' not in text
    assert f" {words} " not in text


FIXTURES = {name: json.loads((FOLDER / name).read_text()) for name in ("plain.tfstate", "modules.tfstate")}
TEXTS = [
    (name, place, key)
    for name, document in FIXTURES.items()
    for place, resource in enumerate(document["resources"])
    for key, value in resource["instances"][0]["attributes"].items()
    if isinstance(value, str)
]


@generated(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(TEXTS), min_size=1, max_size=8))
def test_a_short_value_that_is_marked_is_printed_nowhere(places: set[tuple[str, int, str]]) -> None:
    """In an output, since that marks it for every object; in any attribute that a row, an error or a suggestion may name."""
    for name, fixture in FIXTURES.items():
        document = {**copy.deepcopy(fixture), "outputs": {"marked": {"value": "qz7", "sensitive": True}}}
        for place, key in ((place, key) for state_name, place, key in places if state_name == name):
            document["resources"][place]["instances"][0]["attributes"][key] = "qz7"
        state = parse_state(json.dumps(document).encode(), name)
        plan = plan_takeover(state.owned, recorded(), SETTINGS, region=REGION, account=ACCOUNT)
        assert not re.search("(?<![a-z0-9])qz7(?![a-z0-9])", plan_text(plan, Redactor(state.secrets)))


def test_a_name_that_yaml_reads_as_a_number_is_in_quotes() -> None:
    owned = [
        replace(each, attributes={**each.attributes, "name": "0123"})
        if each.type_name == "aws_ecr_repository"
        else each
        for each in PLAIN.owned
    ]
    lines, errors = usable_lines(list(layout.registry(owned, SETTINGS)), SETTINGS)
    assert (lines, errors) == (["shopcat:registry:", '  repository: "0123"'], [])


def test_every_setting_that_is_refused_is_named_at_once() -> None:
    lines = [
        "shopcat:registry:",
        "  repository: Shop",
        "shopcat:database:",
        "  port: 80",
        "  storageType: io1",
        "  storageGibibytes: 20",
    ]
    kept, errors = usable_lines(lines, SETTINGS)
    assert kept == ["shopcat:database:", "  storageType: io1", "  storageGibibytes: 20"]
    reasons = [error.removeprefix("what is there can't be described: shopcat:").partition(":")[0] for error in errors]
    assert sorted(reasons) == ["database", "database.port", "registry.repository"]


def test_iops_of_the_settings_go_where_the_database_has_none() -> None:
    chosen = settings.read_settings(
        committed(database={**committed()["database"], "storageType": "io1", "iops": 3000, "storageGibibytes": 100})
    )
    instance = next(each for each in PLAIN.owned if each.type_name == "aws_db_instance")
    lines, errors = usable_lines(list(existing_database(instance, PLAIN.owned, chosen)), chosen)
    assert "  iops: 0" in lines
    assert not [error for error in errors if "iops" in error]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"taint": [{"key": "gpu", "effect": "NO_SCHEDULE"}]}, "its nodes have a taint"),
        ({"capacity_type": "SPOT"}, "SPOT"),
        ({"ami_type": "WINDOWS_FULL_2022_x86_64"}, "Windows"),
        ({"ami_type": "AL2023_ARM_64_STANDARD"}, "ARM"),
    ],
)
def test_nodes_that_pods_can_t_run_on_are_no_room(changes: dict[str, Any], reason: str) -> None:
    owned = [
        replace(each, attributes={**each.attributes, **changes}) if each.type_name == "aws_eks_node_group" else each
        for each in PLAIN.owned
    ]
    cluster = layout.production_cluster(owned, SETTINGS)
    assert cluster is not None
    lines = list(nodes.node_lines(nodes.node_groups(cluster, owned), owned))
    assert any(reason in line for line in lines)
    assert not any("count:" in line for line in lines)
    described = settings.read_settings(merged(list(layout.existing_cluster(PLAIN.owned, SETTINGS)))).cluster.existing
    assert described is not None
    (error,) = nodes.wrong_nodes(cluster, owned, described.nodes)
    assert reason in error


def test_only_gateways_of_this_network_with_a_public_address_are_named() -> None:
    gateway = next(each for each in PLAIN.owned if each.type_name == "aws_nat_gateway")
    other = Owned("aws_subnet.other", "aws_subnet", "", {"id": "subnet-0f", "vpc_id": "vpc-0f"})
    owned = [
        *PLAIN.owned,
        other,
        replace(gateway, attributes={**gateway.attributes, "subnet_id": "subnet-0f", "public_ip": "203.0.113.99"}),
        replace(gateway, attributes={**gateway.attributes, "connectivity_type": "private", "public_ip": ""}),
    ]
    (line,) = [line for line in layout.existing_cluster(owned, SETTINGS) if "natAddresses" in line]
    assert line == "    natAddresses: [203.0.113.10]"


def plan_errors(owned: Any, **changes: Any) -> str:
    chosen = settings.read_settings(committed(**changes))
    plan = plan_takeover(owned, recorded(chosen), chosen, region=REGION, account=ACCOUNT)
    return "\n".join(plan.errors)


def with_database(**changes: Any) -> list[Owned]:
    return [
        replace(each, attributes={**each.attributes, **changes}) if each.type_name == "aws_db_instance" else each
        for each in PLAIN.owned
    ]


def test_a_database_is_made_neither_smaller_nor_older() -> None:
    errors = plan_errors(with_database(allocated_storage=200, engine_version_actual="17.2"))
    assert "it has 200 GiB, and RDS makes no storage smaller; set shopcat:database.storageGibibytes to 200" in errors
    assert "it runs PostgreSQL 17.2, and RDS goes back to no older version" in errors
    fine = plan_errors(with_database(allocated_storage=20, engine_version_actual="16.1"))
    assert "smaller" not in fine
    assert "older version" not in fine


def test_settings_of_a_database_that_the_state_lacks_are_an_error() -> None:
    without = [each for each in PLAIN.owned if each.type_name != "aws_db_instance"]
    described = {**committed()["database"], "username": "shop", "applicationRole": "shopcat_app"}
    assert "shopcat:database describes a database that somebody else has made" in plan_errors(
        without, database=described
    )
    assert "somebody else has made" not in plan_errors(without)
    assert "somebody else has made" not in plan_errors(PLAIN.owned, database=described)


def test_the_only_repository_is_the_one_with_the_images() -> None:
    owned = [
        replace(each, attributes={**each.attributes, "name": "acme/shop"})
        if each.type_name == "aws_ecr_repository"
        else each
        for each in PLAIN.owned
    ]
    assert (
        "shopcat:registry.repository is shopcat, and the shop's images are in acme/shop; set it to that"
        in plan_errors(owned)
    )
    assert "images are in" not in plan_errors(owned, registry={"repository": "acme/shop"})
    with pytest.raises(SettingsError, match="repository"):
        settings.read_settings(
            committed(registry={"repository": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop"})
        )


def test_arns_of_another_region_or_account_are_named() -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    assert "shopcat:registry.kmsKey is in eu-west-1" in plan_errors(PLAIN.owned, registry={"kmsKey": key})
    secret = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:shop/master-AbCdEf"
    described = {
        **committed()["database"],
        "masterSecret": secret,
        "username": "shop",
        "applicationRole": "shopcat_app",
    }
    assert "shopcat:database.masterSecret is in account 999999999999" in plan_errors(PLAIN.owned, database=described)
