"""Rows, refusals and redaction of a takeover plan: one row for each object, nothing that loses data, no secret in a line."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as generated
from hypothesis import strategies as st

from infra import settings
from infra.commands import takeover_plan
from infra.commands.takeover import declared, helm, kinds, layout
from infra.commands.takeover.declaration import Declared, reference
from infra.commands.takeover.differences import Effect
from infra.commands.takeover.kinds import KINDS
from infra.commands.takeover.plan import UNGUARDED, UNTAGGED, TakeoverPlan, import_id, plan_takeover
from infra.commands.takeover.redaction import HIDDEN, Redactor
from infra.commands.takeover.report import plan_text
from infra.commands.takeover.rows import Outcome, TakeoverRow
from infra.commands.takeover.state import Owned, TerraformState, parse_state
from infra.settings import Settings
from tests.unit.test_settings import committed, existing
from twin.plugins.aws.provider import KINDS as STAND_IN

FOLDER = Path(__file__).parent / "fixtures" / "terraform"
GOLDEN = FOLDER.parents[2] / "engine" / "golden" / "production.json"
REGION, ACCOUNT = "eu-central-1", "123456789012"
SETTINGS = settings.read_settings(committed())


_RECORDED: dict[str, list[Declared]] = {}


def recorded(chosen: Settings = SETTINGS, zones: Mapping[str, str] | None = None) -> list[Declared]:
    """Record what settings declare; once, since that takes seconds."""
    key = f"{chosen.model_dump_json()} {zones or {}}"
    if key not in _RECORDED:
        _RECORDED[key] = declared.record_declared(chosen, REGION, ACCOUNT, zones)
    return _RECORDED[key]


def _state(name: str) -> TerraformState:
    return parse_state((FOLDER / name).read_bytes(), name)


def _helm() -> helm.HelmRelease:
    return helm.parse_text((FOLDER / "helm-get-all.yaml").read_bytes(), "helm.yaml", "shopcat")


PLAIN, MODULES = _state("plain.tfstate"), _state("modules.tfstate")


def _plan(owned: Any, chosen: Settings = SETTINGS, **options: Any) -> TakeoverPlan:
    return plan_takeover(owned, recorded(chosen, layout.zone_ids(owned)), chosen, **options)


def _row(plan: TakeoverPlan, address: str) -> TakeoverRow:
    (row,) = [each for each in plan.rows if each.address == address]
    return row


def _with(owned: tuple[Owned, ...], address: str, **attributes: Any) -> list[Owned]:
    assert any(each.address == address for each in owned)
    return [
        replace(each, attributes={**each.attributes, **attributes}) if each.address == address else each
        for each in owned
    ]


# What is declared -----------------------------------------------------------------------------------------------------


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value


@cache
def engine_resources() -> dict[str, dict[str, Any]]:
    """Return what the engine was given, by URN: a record's is by its host, which on the twin is another one."""
    text, chosen = GOLDEN.read_text(), committed()
    text = text.replace("<name>.shopcat-previews.localhost", chosen["previewDomain"])
    found: dict[str, dict[str, Any]] = json.loads(text.replace("<name>.shopcat.localhost", chosen["domain"]))
    return found


def test_what_is_recorded_is_what_the_engine_was_given() -> None:
    """Also of the eks component, which runs in another plugin."""
    engine_inputs: dict[tuple[str, str], Any] = {}
    for urn, resource in engine_resources().items():
        engine_inputs[urn.split("::")[-2].rpartition("$")[2], urn.split("::")[-1]] = resource["inputs"]
    cloud = [each for each in recorded() if each.pulumi_type.startswith("aws:")]
    assert len(cloud) > 80
    compared = 0
    for each in cloud:
        for name, value in each.inputs.items():
            text = json.dumps([value, engine_inputs[each.key].get(name)])
            if name != "tags" and "<" not in text and "example" not in text:
                assert _whole(value) == engine_inputs[each.key][name], (each.key, name)
                compared += 1
    assert compared > 200
    cluster = engine_inputs["aws:eks/cluster:Cluster", "shopcat-eksCluster"]
    (declared_cluster,) = [each for each in cloud if each.pulumi_type == "aws:eks/cluster:Cluster"]
    assert set(declared_cluster.inputs) == set(cluster) - {"tagsAll"}


def test_with_an_existing_cluster_neither_it_nor_a_network_is_declared() -> None:
    chosen = settings.read_settings(committed(cluster={**committed()["cluster"], **existing()}))
    types = {each.pulumi_type for each in recorded(chosen)}
    assert "aws:rds/instance:Instance" in types
    assert not types & {"aws:eks/cluster:Cluster", "aws:ec2/vpc:Vpc", "aws:ec2/subnet:Subnet", "aws:eks/addon:Addon"}


def test_arguments_that_need_a_new_resource_are_those_of_the_stand_in_and_more() -> None:
    """Two lists, made apart from the same documentation."""
    known = {kind.pulumi_type: kind for kind in KINDS.values() if kind.pulumi_type}
    shared = sorted(set(known) & set(STAND_IN))
    assert len(shared) > 25
    for pulumi_type in shared:
        missing = STAND_IN[pulumi_type].replaces - known[pulumi_type].forces_new
        # A table of an association may be replaced in place (ReplaceRouteTableAssociation).
        allowed = {"routeTableId"} if pulumi_type.endswith(":RouteTableAssociation") else set()
        assert missing <= allowed, pulumi_type


def test_every_declared_type_of_aws_is_one_that_a_state_can_hold() -> None:
    known = {kind.pulumi_type for kind in KINDS.values()}
    assert {each.pulumi_type for each in recorded() if each.pulumi_type.startswith("aws:")} <= known


def test_each_row_of_the_table_names_its_page() -> None:
    start = "https://registry.terraform.io/providers/hashicorp/aws/latest/docs/resources"
    assert kinds.documentation_page("aws_db_instance") == f"{start}/db_instance"
    assert kinds.documentation_page("aws_alb_listener") == f"{start}/lb_listener"
    lines = plan_text(_plan(PLAIN.owned), Redactor([])).splitlines()
    assert any(f"would replace cidrBlock: 10.0.0.0/16 → 10.64.0.0/16 ({start}/vpc)" in line for line in lines)


# The plain layout -----------------------------------------------------------------------------------------------------


def test_the_plain_layout_is_refused_with_the_settings_that_avoid_it() -> None:
    plan = _plan([*PLAIN.owned, *_helm().owned])
    assert len(plan.rows) == len(PLAIN.owned) + 3
    by_outcome = {outcome: [row.address for row in plan.rows if row.outcome is outcome] for outcome in Outcome}
    assert by_outcome[Outcome.REFUSED] == ["aws_db_instance.shopcat", "aws_vpc.shopcat"]
    assert by_outcome[Outcome.TAKEN] == [
        "aws_db_subnet_group.shopcat",
        "aws_ecr_repository.shopcat",
        "aws_security_group.database",
    ]
    assert by_outcome[Outcome.BESIDE] == [
        "helm: Secret shopcat/shopcat",
        "helm: Service shopcat/shopcat",
        "helm: Deployment shopcat/shopcat",
    ]
    assert not by_outcome[Outcome.UNKNOWN]
    assert not by_outcome[Outcome.LEFT]
    errors = "\n".join(plan.errors)
    assert "aws_db_instance.shopcat: username is shopcat, this program declares shopcat_admin" in errors
    assert "aws_db_instance.shopcat: storageEncrypted is false, this program declares true" in errors
    assert "set shopcat:vpc.cidr or shopcat:cluster.existing to what is there" in errors
    assert "runs Kubernetes 1.29, and 1.33 is the oldest" in errors
    assert "    vpcId: vpc-0a1b2c3d4e5f60001" in plan.suggestion
    assert "    publicSubnetIds: [subnet-0a0000000000000a1, subnet-0a0000000000000b1]" in plan.suggestion
    assert "    privateSubnetIds: [subnet-0b0000000000000a1, subnet-0b0000000000000b1]" in plan.suggestion
    assert "    natAddresses: [203.0.113.10]" in plan.suggestion
    assert "aws:ec2/vpc:Vpc" not in plan.anew
    assert plan.anew["aws:lb/targetGroup:TargetGroup"] == ("group-blue", "group-green")


def test_a_repository_that_moves_tags_is_changed_in_place() -> None:
    row = _row(_plan(PLAIN.owned), "aws_ecr_repository.shopcat")
    assert row.detail.endswith(" aws:ecr/repository:Repository shopcat shopcat")
    assert row.remarks == (UNTAGGED,)
    assert [(each.argument, each.effect, each.actual, each.declared) for each in row.differences] == [
        ("imageScanningConfiguration.scanOnPush", Effect.IN_PLACE, "false", "true"),
        ("imageTagMutability", Effect.IN_PLACE, "MUTABLE", "IMMUTABLE"),
    ]


def test_a_repository_with_a_key_of_its_own_is_not_replaced() -> None:
    encryption = [
        {
            "encryption_type": "KMS",
            "kms_key": "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef",
        }
    ]
    owned = _with(PLAIN.owned, "aws_ecr_repository.shopcat", encryption_configuration=encryption)
    plan = _plan(owned)
    assert _row(plan, "aws_ecr_repository.shopcat").outcome is Outcome.REFUSED
    assert any(
        "images in it, would be replaced; set shopcat:registry.kmsKey to what is" in error for error in plan.errors
    )
    place = plan.suggestion.index("shopcat:registry:")
    assert plan.suggestion[place : place + 3] == (
        "shopcat:registry:",
        "  repository: shopcat",
        f"  kmsKey: {encryption[0]['kms_key']}",
    )


def test_an_encryption_that_no_setting_describes_is_refused() -> None:
    encryption = [{"encryption_type": "KMS_DSSE", "kms_key": "arn:aws:kms:eu-central-1:123456789012:key/1"}]
    plan = _plan(_with(PLAIN.owned, "aws_ecr_repository.shopcat", encryption_configuration=encryption))
    assert any("and all images in it, would be replaced; no setting of this version" in error for error in plan.errors)
    assert "shopcat:registry:" not in plan.suggestion


def _adopted_settings(**changes: Any) -> Settings:
    """Settings as the plan of the plain layout suggests them, and a database that this version can describe."""
    existing_cluster = {
        "kubeconfig": "{}",
        "vpcId": "vpc-0a1b2c3d4e5f60001",
        "vpcCidr": "10.0.0.0/16",
        "publicSubnetIds": ["subnet-0a0000000000000a1", "subnet-0a0000000000000b1"],
        "previewSubnetIds": ["subnet-0f0000000000000a1", "subnet-0f0000000000000b1"],
        "privateSubnetIds": ["subnet-0b0000000000000a1", "subnet-0b0000000000000b1"],
        "natAddresses": ["203.0.113.10"],
    }
    group = layout.block(_of("aws_eks_cluster.shopcat"), "vpc_config")["cluster_security_group_id"]
    cluster = {**committed()["cluster"], "existing": {**existing_cluster, "securityGroupId": group, **changes}}
    return settings.read_settings(committed(cluster=cluster))


def _of(address: str) -> Owned:
    (owned,) = [each for each in PLAIN.owned if each.address == address]
    return owned


def _adoptable() -> list[Owned]:
    owned = _with(PLAIN.owned, "aws_eks_cluster.shopcat", version="1.33")
    said = {"username": "shopcat_admin", "storage_encrypted": True, "engine_version_actual": "16.4"}
    return _with(tuple(owned), "aws_db_instance.shopcat", **said, parameter_group_name="shop-pg16")


def test_with_the_suggested_settings_the_cluster_is_used_as_it_is() -> None:
    plan = _plan(_adoptable(), _adopted_settings(), region=REGION, account=ACCOUNT)
    assert plan.errors == ()
    assert plan.suggestion[0] == "shopcat:database:", "the cluster fits, and the database's password would be set anew"
    row = _row(plan, "aws_vpc.shopcat")
    assert (row.outcome, row.detail) == (Outcome.USED, "shopcat:cluster.existing.vpcId names it")
    assert "privateSubnetIds" in _row(plan, "aws_subnet.private[1]").detail
    assert "natAddresses" in _row(plan, "aws_eip.nat").detail
    assert "kubeconfig" in _row(plan, "aws_eks_cluster.shopcat").detail
    for address in ("aws_eks_cluster.shopcat", "aws_iam_role.nodes", "aws_iam_openid_connect_provider.shopcat"):
        assert _row(plan, address).outcome is Outcome.USED, address
    database = _row(plan, "aws_db_instance.shopcat")
    assert database.detail.endswith(" aws:rds/instance:Instance database shopcat")
    assert all(each.effect is not Effect.REPLACES for each in database.differences)
    (password,) = [each for each in database.differences if each.argument == "manageMasterUserPassword"]
    assert "whatever signs in with the old one is shut out" in password.note
    subnets = _row(plan, "aws_db_subnet_group.shopcat")
    assert [each.argument for each in subnets.differences] == ["description"]


@pytest.mark.parametrize(
    ("changes", "setting"),
    [({"vpcId": "vpc-0123456789abcdef0"}, "vpcId"), ({"securityGroupId": "sg-0123456789abcdef0"}, "securityGroupId")],
)
def test_settings_of_another_cluster_are_named(changes: Mapping[str, str], setting: str) -> None:
    plan = _plan(_adoptable(), _adopted_settings(**changes))
    assert [f"shopcat:cluster.existing.{setting} is" in error for error in plan.errors] == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "eu-west-1"}, "is in eu-central-1, aws:region is eu-west-1"),
        (
            {"region": REGION, "account": "210987654321"},
            "is in account 123456789012, the credentials are of 210987654321",
        ),
    ],
)
def test_another_account_or_region_is_refused(options: Mapping[str, str], message: str) -> None:
    (error,) = _plan(_adoptable(), _adopted_settings(), **options).errors
    assert message in error


@pytest.mark.parametrize(
    ("changes", "argument", "effect"),
    [
        ({"engine_version_actual": "16.4", "parameter_group_name": "mine"}, "engineVersion", None),
        ({"engine_version_actual": "16", "parameter_group_name": "mine"}, "engineVersion", None),
        ({"identifier": "orders"}, "identifier", Effect.REPLACES),
        ({"db_name": "orders"}, "dbName", Effect.REPLACES),
        ({"storage_encrypted": None}, "storageEncrypted", Effect.UNKNOWN),
        ({"restore_to_point_in_time": [{"use_latest_restorable_time": True}]}, "restoreToPointInTime", Effect.REPLACES),
        ({"allocated_storage": "20"}, "allocatedStorage", None),
        ({"db_subnet_group_name": "other"}, "dbSubnetGroupName", Effect.UNKNOWN),
        ({"storage_type": "gp3"}, "storageType", None),
    ],
)
def test_a_database_s_arguments(changes: Mapping[str, Any], argument: str, effect: Effect | None) -> None:
    plan = _plan(_with(tuple(_adoptable()), "aws_db_instance.shopcat", **changes), _adopted_settings())
    row = _row(plan, "aws_db_instance.shopcat")
    assert {each.argument: each.effect for each in row.differences}.get(argument) is effect
    is_lost = effect is Effect.REPLACES or argument == "storageEncrypted"
    assert bool(plan.errors) is is_lost
    assert row.outcome is (Outcome.REFUSED if plan.errors else Outcome.TAKEN)


def test_what_the_state_does_not_say_of_a_database_may_replace_it() -> None:
    plan = _plan(_with(tuple(_adoptable()), "aws_db_instance.shopcat", username=None), _adopted_settings())
    (error,) = plan.errors
    assert "the state says nothing of username, so the database, and all orders in it, may be replaced" in error


def test_several_databases_are_never_chosen_from() -> None:
    database = replace(
        _of("aws_db_instance.shopcat"), attributes={**_of("aws_db_instance.shopcat").attributes, "identifier": "a"}
    )
    rest = [each for each in _adoptable() if each.type_name != "aws_db_instance"]
    second = replace(database, address="aws_db_instance.other", attributes={**database.attributes, "identifier": "b"})
    plan = _plan([*rest, database, second], _adopted_settings())
    assert any("can't say which is the shop's" in error for error in plan.errors)
    other = replace(database, type_name="aws_rds_cluster", address="aws_rds_cluster.x")
    plan = _plan([*rest, other], _adopted_settings())
    assert any("a cluster of RDS can't be taken over" in error for error in plan.errors)
    assert _row(plan, "aws_rds_cluster.x").outcome is Outcome.UNKNOWN


def test_a_database_of_another_engine_is_not_the_shop_s() -> None:
    attributes = {**_of("aws_db_instance.shopcat").attributes, "engine": "mysql", "identifier": "wiki"}
    wiki = Owned("aws_db_instance.wiki", "aws_db_instance", "", attributes)
    plan = _plan([*_adoptable(), wiki], _adopted_settings())
    assert plan.errors == ()
    assert _row(plan, "aws_db_instance.wiki").outcome is Outcome.UNKNOWN


# A cluster that this program declares itself --------------------------------------------------------------------------


def _as_declared(chosen: Settings = SETTINGS) -> list[Owned]:
    """A state whose every argument is as this program declares it, with ids in place of its references."""
    types = {kind.pulumi_type: name for name, kind in KINDS.items() if not name.startswith("aws_alb")}

    def text(key: tuple[str, str]) -> str:
        return f"id-of-{key[0].rpartition(':')[2]}-{key[1]}"

    def filled(value: Any) -> Any:
        target = reference(value)
        if target is not None:
            return text(target)
        if isinstance(value, dict):
            return [{_snake(name): each if name == "tags" else filled(each) for name, each in value.items()}]
        if isinstance(value, list):
            return [filled(each)[0] if isinstance(each, dict) else filled(each) for each in value]
        return value

    owned = []
    for each in recorded(chosen):
        name = types.get(each.pulumi_type)
        if name is None or not name.startswith("aws_") or each.pulumi_type.endswith("Validation"):
            continue
        attributes = {_snake(key): filled(value) for key, value in each.inputs.items() if key != "tags"}
        attributes["tags"] = each.inputs.get("tags") or {}
        title = text(each.key)
        attributes |= {
            "id": title,
            "arn": title,
            "key_id": title,
            "association_id": title,
            "name": attributes.get("name", title),
        }
        if name == "aws_eks_cluster":
            attributes["vpc_config"][0]["vpc_id"] = text(("aws:ec2/vpc:Vpc", "vpc"))
        owned.append(Owned(f"{name}.{each.name}", name, "", attributes))
    return owned


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def test_what_is_as_declared_is_taken_over_without_a_loss() -> None:
    owned = [each for each in _as_declared() if each.type_name != "aws_route53_record"]
    plan = _plan(owned)
    assert plan.errors == ()
    taken = {row.address: row for row in plan.rows if row.outcome is Outcome.TAKEN}
    for address in (
        "aws_vpc.vpc",
        "aws_eks_cluster.shopcat-eksCluster",
        "aws_eks_node_group.nodes",
        "aws_db_instance.database",
    ):
        assert address in taken
    for each in (
        "aws_iam_role.node",
        "aws_kms_key.secrets",
        "aws_launch_template.nodes",
        "aws_eip.nat-0",
        "aws_route_table.public",
    ):
        assert taken[each].detail.startswith("pulumi import --stack prod "), each
    assert {row.address for row in taken.values() if UNGUARDED in row.remarks} >= {"aws_vpc.vpc", "aws_kms_key.secrets"}
    assert not taken["aws_eks_cluster.shopcat-eksCluster"].remarks
    differences = [(row.address, each.argument, each.effect) for row in plan.rows for each in row.differences]
    assert differences == [("aws_eks_node_group.nodes", "launchTemplate.version", Effect.UNKNOWN)]


def test_a_cluster_without_encryption_gets_it_in_place() -> None:
    owned = _with(tuple(_as_declared()), "aws_eks_cluster.shopcat-eksCluster", encryption_config=[])
    row = _row(_plan(owned), "aws_eks_cluster.shopcat-eksCluster")
    assert {each.argument: each.effect for each in row.differences}[
        "encryptionConfig.provider.keyArn"
    ] is Effect.IN_PLACE


@pytest.mark.parametrize(
    "changes", [{"role_arn": "arn:aws:iam::1:role/other"}, {"remote_network_config": [{"remote_node_networks": []}]}]
)
def test_a_cluster_is_never_replaced(changes: Mapping[str, Any]) -> None:
    plan = _plan(_with(tuple(_as_declared()), "aws_eks_cluster.shopcat-eksCluster", **changes))
    assert _row(plan, "aws_eks_cluster.shopcat-eksCluster").outcome is Outcome.REFUSED
    assert any(
        "and all that runs in it, would be replaced; set shopcat:cluster.existing" in error for error in plan.errors
    )
    assert plan.suggestion


def test_a_value_that_terraform_marks_is_in_no_message_however_short() -> None:
    document = json.loads((FOLDER / "plain.tfstate").read_text())
    (instance,) = next(each for each in document["resources"] if each["type"] == "aws_db_instance")["instances"]
    instance["attributes"]["username"] = "qzx"
    instance["sensitive_attributes"] += [[{"type": "get_attr", "value": "username"}]]
    state = parse_state(json.dumps(document).encode(), "s")
    plan = _plan(state.owned)
    assert "qzx" not in plan_text(plan, Redactor(state.secrets))
    assert any(f"username is {HIDDEN}, this program declares shopcat_admin" in error for error in plan.errors)


def test_a_replica_is_not_the_shop_s_database() -> None:
    database = _of("aws_db_instance.shopcat")
    copy = {**database.attributes, "identifier": "copy", "replicate_source_db": "shop"}
    renamed = replace(database, attributes={**database.attributes, "identifier": "shop"})
    plan = _plan([renamed, Owned("aws_db_instance.copy", "aws_db_instance", "", copy)])
    assert not any("can't say which" in error for error in plan.errors)
    assert _row(plan, "aws_db_instance.shopcat").outcome is Outcome.REFUSED
    assert _row(plan, "aws_db_instance.copy").outcome is Outcome.UNKNOWN


def test_the_name_of_an_existing_cluster_has_to_be_its_own() -> None:
    plan = _plan(_with(tuple(_adoptable()), "aws_eks_cluster.shopcat", name="other"), _adopted_settings())
    assert ["shopcat:cluster.name is shopcat, the cluster is called other" in error for error in plan.errors] == [True]


def test_a_cluster_whose_network_is_in_another_state_is_not_moved() -> None:
    owned = [each for each in PLAIN.owned if each.type_name not in {"aws_vpc", "aws_subnet"}]
    plan = _plan(owned)
    assert any("its network vpc-0a1b2c3d4e5f60001 is not in this state" in error for error in plan.errors)
    assert "    # vpcCidr: the state does not say" in plan.suggestion


def test_several_clusters_are_never_chosen_from() -> None:
    (cluster,) = [each for each in PLAIN.owned if each.type_name == "aws_eks_cluster"]
    two = [replace(cluster, address=f"aws_eks_cluster.{name}", attributes={"name": name}) for name in ("a", "b")]
    (error,) = _plan(two).errors
    assert "can't say which EKS cluster is the production's" in error


# The layout of the registry's modules ---------------------------------------------------------------------------------


def test_the_module_layout() -> None:
    plan = _plan([*MODULES.owned, *_helm().owned])
    assert len(plan.rows) == len(MODULES.owned) + 3
    refused = [row.address for row in plan.rows if row.outcome is Outcome.REFUSED]
    assert refused == [
        "module.vpc.aws_vpc.this[0]",
        "module.eks.aws_eks_cluster.this[0]",
        "module.rds.module.db_instance.aws_db_instance.this[0]",
        "aws_route53_record.shop",
    ]
    outcomes = {row.address: row.outcome for row in plan.rows}
    nodes = 'module.eks.module.eks_managed_node_group["workers"]'
    assert outcomes[f"{nodes}.aws_eks_node_group.this[0]"] is Outcome.USED
    assert outcomes["module.eks.module.kms.aws_kms_key.this[0]"] is Outcome.USED
    assert outcomes["module.eks.aws_security_group.node[0]"] is Outcome.USED
    assert outcomes["aws_security_group.database"] is Outcome.BESIDE
    assert outcomes["aws_ecr_repository.shopcat"] is Outcome.BESIDE
    assert outcomes["aws_secretsmanager_secret.database"] is Outcome.BESIDE
    assert outcomes["random_password.database"] is Outcome.LEFT
    assert outcomes["aws_s3_bucket.uploads"] is Outcome.UNKNOWN
    assert outcomes["kubernetes_namespace.shopcat"] is Outcome.TAKEN
    assert outcomes["helm_release.controller"] is Outcome.TAKEN
    assert any("set shopcat:dns to external" in error for error in plan.errors)
    assert (
        "    privateSubnetIds: [subnet-0d0000000000000a2, subnet-0d0000000000000b2, subnet-0d0000000000000c2]"
        in plan.suggestion
    )


def test_with_external_dns_no_record_is_touched() -> None:
    plan = _plan(MODULES.owned, settings.read_settings(committed(dns="external")))
    assert not any("shopcat:dns" in error for error in plan.errors)
    assert _row(plan, "aws_route53_record.shop").outcome is Outcome.USED


def test_the_account_is_that_of_the_state_s_arns() -> None:
    assert layout.account_of(PLAIN.owned) == ACCOUNT
    assert layout.account_of([Owned("x", "aws_eks_cluster", "", {"arn": "no arn"})]) == ""


# Rows in general ------------------------------------------------------------------------------------------------------


def test_deposed_and_tainted_objects_say_so() -> None:
    owned = [replace(_of("aws_ecr_repository.shopcat"), tainted=True), replace(_of("aws_eip.nat"), deposed=True)]
    plan = _plan(owned)
    assert "tainted" in _row(plan, "aws_ecr_repository.shopcat").remarks[-1]
    assert _row(plan, "aws_eip.nat").outcome is Outcome.LEFT


def test_attributes_in_the_flat_form_are_not_compared() -> None:
    plan = _plan([replace(_of("aws_ecr_repository.shopcat"), comparable=False)])
    assert plan.rows[0].outcome is Outcome.BESIDE


def test_a_long_address_is_printed_whole() -> None:
    name = "a" * 300
    owned = [replace(_of("aws_ecr_repository.shopcat"), address=f"aws_ecr_repository.{name}")]
    text = plan_text(_plan(owned), Redactor([]))
    assert f"aws_ecr_repository.{name}\n" in text


def test_an_import_id_needs_every_part() -> None:
    assert import_id(KINDS["aws_route"], Owned("x", "aws_route", "", {"route_table_id": "rtb-1"})) == ""
    full = {"route_table_id": "rtb-1", "destination_cidr_block": "0.0.0.0/0"}
    assert import_id(KINDS["aws_route"], Owned("x", "aws_route", "", full)) == "rtb-1_0.0.0.0/0"


@pytest.mark.parametrize(
    "type_name", [*sorted(KINDS), "kubernetes_deployment_v1", "aws_unknown", "kubernetes_manifest"]
)
def test_every_type_has_a_row_whatever_it_lacks(type_name: str) -> None:
    (row,) = _plan([Owned(f"{type_name}.x", type_name, "", {})]).rows
    assert row.address == f"{type_name}.x"
    assert row.detail


CANARY = "canary-0123456789"
canaries = st.integers(min_value=0, max_value=9).map(lambda number: f"{CANARY}{number}")
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@cache
def known_arguments() -> list[str]:
    names = {_snake(name) for each in recorded() for name in each.inputs}
    return sorted(names | {"id", "arn", "identifier", "key_id", "vpc_config", "metadata", "route", "subnet_ids"})


SECRET_NAMES = ["password", "master_password", "secret_string", "auth_token", "private_key_pem", "client_secret"]


@st.composite
def objects(draw: st.DrawFn) -> dict[str, Any]:
    """One resource of a state, with secrets where Terraform may have them, and copies of these in its other attributes."""
    attributes: dict[str, Any] = draw(
        st.dictionaries(st.sampled_from(known_arguments()), values | canaries, max_size=8)
    )
    marked = [name for name, value in attributes.items() if isinstance(value, str) and value.startswith(CANARY)]
    attributes |= draw(
        st.dictionaries(st.sampled_from(SECRET_NAMES), canaries | st.lists(canaries, max_size=2), max_size=2)
    )
    type_name = draw(st.sampled_from([*sorted(KINDS), "kubernetes_secret", "aws_unknown"]))
    instance: dict[str, Any] = {
        "attributes": attributes,
        "sensitive_attributes": [[{"type": "get_attr", "value": name}] for name in marked],
        "index_key": draw(st.none() | st.integers(0, 3) | canaries),
    }
    if draw(st.booleans()):
        instance["deposed"] = "0a1b2c3d"
    return {"mode": "managed", "type": type_name, "name": draw(st.sampled_from("abc")), "instances": [instance]}


@generated(max_examples=60)
@given(st.lists(objects(), min_size=1, max_size=4), canaries)
def test_any_state_has_a_row_for_each_object_and_no_secret_in_it(resources: list[dict[str, Any]], output: str) -> None:
    document = {
        "version": 4,
        "resources": [
            *resources,
            {
                "mode": "managed",
                "type": "random_password",
                "name": "all",
                "instances": [{"attributes": {"result": f"{CANARY}{number}"}} for number in range(10)],
            },
        ],
        "outputs": {"url": {"value": output, "sensitive": True}},
    }
    state = parse_state(json.dumps(document).encode(), "s")
    assert {f"{CANARY}{number}" for number in range(10)} <= state.secrets
    plan = plan_takeover(state.owned, recorded(), SETTINGS, region=REGION, account=ACCOUNT)
    assert [row.address for row in plan.rows] == [each.address for each in state.owned]
    text = plan_text(plan, Redactor(state.secrets))
    assert CANARY not in text
    assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("state", [PLAIN, MODULES])
def test_no_secret_of_the_fixtures_is_printed(state: TerraformState) -> None:
    release = _helm()
    text = plan_text(_plan([*state.owned, *release.owned]), Redactor([*state.secrets, *release.secrets]))
    assert any(secret.startswith("fixture-") for secret in state.secrets)
    assert "fixture-" not in text
    assert HIDDEN not in text, "nothing that is printed had to be hidden"


def test_decisions_need_neither_pulumi_nor_aws() -> None:
    code = (
        "import sys, infra.commands.takeover.plan, infra.commands.takeover.report, infra.commands.takeover.state\n"
        "print([name for name in sys.modules if name.startswith(('pulumi', 'boto'))])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("type_name", "attributes", "outcome", "word"),
    [
        ("aws_elb", {}, Outcome.BESIDE, "counts its requests"),
        ("aws_lb", {"load_balancer_type": "network"}, Outcome.BESIDE, "counts its connections"),
        ("aws_alb", {"load_balancer_type": "gateway"}, Outcome.UNKNOWN, "can't count it"),
        ("aws_lb", {"load_balancer_type": "application"}, Outcome.BESIDE, "aws:lb/loadBalancer:LoadBalancer"),
        ("aws_lb", {}, Outcome.BESIDE, "aws:lb/loadBalancer:LoadBalancer"),
    ],
)
def test_each_kind_of_load_balancer_has_its_way_on(
    type_name: str, attributes: dict[str, Any], outcome: Outcome, word: str
) -> None:
    (row,) = _plan([Owned(f"{type_name}.old", type_name, "", {"name": "old", **attributes})]).rows
    assert row.outcome is outcome
    assert word in row.detail


def test_the_page_explains_every_word_of_the_table() -> None:
    page = (FOLDER.parents[3] / "docs" / "takeover.md").read_text()
    assert [str(outcome) for outcome in Outcome if f"| {outcome} |" not in page] == []
    assert [str(effect) for effect in Effect if f"- **{effect}**" not in page] == []


# The command ----------------------------------------------------------------------------------------------------------


def _run(*words: str) -> int:
    return takeover_plan.main([str(word) for word in words])


def test_the_command_ends_with_1_if_something_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(str(FOLDER / "plain.tfstate"), "--offline", "--helm", str(FOLDER / "helm-get-all.yaml")) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "nothing is changed by this" in out
    assert "refused               aws_db_instance.shopcat" in out
    assert "error: aws_vpc.shopcat: cidrBlock is 10.0.0.0/16" in out
    assert out.rstrip().endswith("0 more are only read; 6 errors")


def test_what_a_chart_keeps_in_a_secret_hides_nothing_that_terraform_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Charts keep address, name and user of the database beside its password; the plan is the same as with the password alone."""
    path, password = tmp_path / "helm.yaml", "fixture-chart-database-password"
    texts = sorted(PLAIN.open_texts)
    printed = []
    for values in ({}, {f"value{number}": text for number, text in enumerate(texts)}):
        secret = {"kind": "Secret", "metadata": {"name": "shopcat"}, "stringData": {"password": password, **values}}
        path.write_text(yaml.safe_dump(secret))
        assert _run(str(FOLDER / "plain.tfstate"), "--offline", "--helm", str(path)) == 1
        printed.append(capsys.readouterr().out)
    assert {"shopcat", "5432"} <= set(texts)
    assert not PLAIN.open_texts & PLAIN.secrets
    assert printed[0] == printed[1]
    assert password not in printed[0]


def test_an_empty_state_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "terraform.tfstate"
    path.write_text('{"version": 4, "resources": []}')
    assert _run(str(path), "--offline") == 0
    assert "0 owned: nothing; 0 more are only read; 0 errors" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "{", '{"version": 3}'])
def test_what_is_no_state_is_one_error(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "terraform.tfstate"
    if content is not None:
        path.write_text(content)
    assert _run(str(path), "--offline") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_without_a_state_the_command_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("") == 1
    assert "error: no state is named: make takeover-plan STATE=terraform.tfstate" in capsys.readouterr().err


def test_a_wrong_file_of_helm_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "helm.yaml"
    path.write_text("nothing")
    assert _run(str(FOLDER / "plain.tfstate"), "--offline", "--helm", str(path)) == 1
    assert "error: helm.yaml holds no Kubernetes objects" in capsys.readouterr().err


def test_everything_that_can_t_be_read_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {name: tmp_path / name for name in ("state", "settings", "helm")}
    for path in names.values():
        path.mkdir()
    monkeypatch.setenv("PULUMI_OPTION_CONFIG_FILE", str(names["settings"]))
    assert _run(str(names["state"]), "--offline", "--helm", str(names["helm"])) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in lines] == [True] * 3
    assert all(any(str(path) in line for line in lines) for path in names.values())


def test_a_state_that_powershell_has_written_is_read() -> None:
    text = (FOLDER / "plain.tfstate").read_text()
    assert parse_state(text.encode("utf-16"), "s") == PLAIN


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (FOLDER / "plain.tfstate").read_bytes()
    (tmp_path / "terraform.tfstate").write_bytes(content)
    monkeypatch.setenv("PULUMI_OPTION_CONFIG_FILE", str(Path("Pulumi.prod.yaml").resolve()))
    monkeypatch.chdir(tmp_path)
    _run("terraform.tfstate", "--offline")
    assert [path.name for path in tmp_path.iterdir()] == ["terraform.tfstate"]
    assert (tmp_path / "terraform.tfstate").read_bytes() == content


def test_the_role_of_self_managed_nodes_is_the_cluster_s_though_only_a_name_leads_to_it() -> None:
    (role,) = [each for each in PLAIN.owned if each.address == "aws_iam_role.nodes"]
    kept = [each for each in PLAIN.owned if each.type_name != "aws_eks_node_group"]
    template = replace(
        role,
        address="aws_launch_template.nodes",
        type_name="aws_launch_template",
        attributes={"id": "lt-1", "name": "nodes", "iam_instance_profile": [{"name": "shop-nodes"}]},
    )
    profile = replace(
        role,
        address="aws_iam_instance_profile.nodes",
        type_name="aws_iam_instance_profile",
        attributes={"id": "shop-nodes", "name": "shop-nodes", "role": role.text("name"), "arn": "arn:aws:iam::1:p"},
    )
    plan = _plan([*kept, template, profile])
    by_address = {row.address: row.outcome for row in plan.rows}
    assert by_address["aws_iam_role.nodes"] is Outcome.USED
    assert by_address["aws_iam_instance_profile.nodes"] is Outcome.USED


def test_a_reader_who_has_seen_enough_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "infra.commands.takeover_plan", "--offline", str(FOLDER / "plain.tfstate")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
