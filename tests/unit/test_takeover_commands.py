"""The plan's commands are those with which an update stops, and the settings that it suggests describe what is there."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from infra import settings
from infra.clients.aws import AwsClients
from infra.commands.takeover.declaration import Declared
from infra.commands.takeover.kinds import KINDS
from infra.commands.takeover.plan import TakeoverPlan, import_id, takeover_command
from infra.commands.takeover.redaction import Redactor
from infra.commands.takeover.report import IMPORT_ORDER, plan_text
from infra.commands.takeover.rows import Outcome
from infra.commands.takeover.state import Owned
from infra.errors import ShopCatError
from infra.foundation import existing_resources
from infra.foundation.existing_resources import FINDERS, HELM_RELEASE
from infra.settings import Settings
from tests.unit.releases import run
from tests.unit.test_existing_resources import Account
from tests.unit.test_settings import committed
from tests.unit.test_takeover_plan import (
    MODULES,
    PLAIN,
    SETTINGS,
    _as_declared,
    _plan,
    _row,
    _snake,
    _with,
    engine_resources,
    recorded,
)
from twin.plugins.aws.provider import KINDS as STAND_IN

TERRAFORM = {kind.pulumi_type: name for name, kind in KINDS.items() if not name.startswith("aws_alb")}
LOGS = {"image": f"example.com/fluent-bit@sha256:{'a' * 64}"}
WATCHED = {"email": "ops@example.com", "monthlyBudgetUsd": 300, "logs": LOGS}
WHOLE = settings.read_settings(committed(github={"repository": "shopcat/shopcat"}, monitoring=WATCHED))
"""Settings with which every type is declared that can be."""


# Commands -------------------------------------------------------------------------------------------------------------


def engine_parents() -> dict[tuple[str, str], set[str]]:
    """Type and name → URNs that its parent may have, of what the engine made of the committed settings.

    There are two where components of one type stand side by side, such as both load balancers.
    """
    components: dict[str, set[str]] = {}
    urns = list(engine_resources())
    for urn in urns:
        components.setdefault(urn.split("::")[2], set()).add(urn)
    parts = [(urn.split("::")[2].rpartition("$"), urn.split("::")[3]) for urn in urns]
    return {(kind, name): components[chain] for (chain, _, kind), name in parts if chain}


def guard_command(declared: Declared, parent: str, identifier: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the command in the message with which an update stops at what is there under this id."""
    monkeypatch.setattr(existing_resources, "find_existing", lambda *_: identifier)
    monkeypatch.setattr(existing_resources, "QUIET_SECONDS", 0)
    monkeypatch.setattr(existing_resources, "read_owners", lambda _: {})

    def unasked() -> Any:
        return None

    guard = existing_resources.ImportGuard(AwsClients("eu-central-1"), unasked, "prod", "shopcat")

    monkeypatch.setattr(existing_resources, "find_helm_release", lambda *_: identifier)

    async def urn() -> str:
        return parent

    guard._parents[declared.key] = SimpleNamespace(urn=SimpleNamespace(future=urn))  # type: ignore[assignment]
    asked: Any = SimpleNamespace(type=declared.pulumi_type, name=declared.name, urn="", new_inputs={})
    with pytest.raises(ShopCatError) as stopped:
        run(guard._before_create(asked))
    return str(stopped.value).splitlines()[-1].strip()


def test_the_command_of_a_row_is_the_one_with_which_an_update_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = engine_parents()
    guarded = {*FINDERS, HELM_RELEASE}
    declared = [each for each in recorded(WHOLE) if each.pulumi_type in guarded]
    rows = {row.address: row for row in _plan(_as_declared(WHOLE), WHOLE).rows}
    taken = set()
    for each in declared:
        # The golden stack has no repository on GitHub, and so no roles for its workflows.
        assert each.parent in parents.get(each.key, {each.parent})
        assert each.is_guarded
        row = rows.get(f"{TERRAFORM[each.pulumi_type]}.{each.name}")
        command = takeover_command(each, "id")
        if row and row.outcome is Outcome.TAKEN:
            command = row.detail
            taken.add(each.pulumi_type)
        assert command == guard_command(each, each.parent, shlex.split(command)[-1], monkeypatch), each.key
    # Declared with what confines previews, which the recording leaves out; the first update makes them.
    beside = {"aws:dynamodb/table:Table", "aws:ssm/parameter:Parameter"}
    types = {each.pulumi_type for each in declared}
    assert types == guarded - beside
    assert set(FINDERS) <= set(TERRAFORM)
    # Without a name of their own, so no state's object is known to be the same one; and a record would lead all users away.
    not_taken = {
        HELM_RELEASE,  # no state is made up of it here
        "aws:route53/record:Record",
        "aws:lb/listener:Listener",
        "aws:lb/listenerRule:ListenerRule",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    }
    assert types - taken == not_taken


def test_a_plan_with_commands_says_when_to_run_them() -> None:
    assert IMPORT_ORDER in plan_text(_plan(PLAIN.owned), Redactor([]))
    without = [each for each in PLAIN.owned if each.type_name == "aws_eip"]
    assert IMPORT_ORDER not in plan_text(_plan(without), Redactor([]))


def test_the_recorded_parents_are_the_engine_s() -> None:
    parents = engine_parents()
    assert len(recorded()) > 90
    for each in recorded():
        assert each.parent in parents[each.key], each.key


def test_a_command_is_one_line_that_a_shell_reads_as_it_is_meant() -> None:
    (declared,) = [each for each in recorded() if each.key == ("aws:ecr/repository:Repository", "shopcat")]
    words = shlex.split(takeover_command(declared, "shop/shop cat"))
    assert words[-3:] == ["aws:ecr/repository:Repository", "shopcat", "shop/shop cat"]
    assert f"--parent=parent={declared.parent}" in words
    (chart,) = [each for each in recorded() if each.key == ("kubernetes:helm.sh/v3:Release", "external-secrets")]
    assert "--provider=provider=urn:pulumi:prod::shopcat::pulumi:providers:kubernetes::kubernetes" in shlex.split(
        takeover_command(chart, "external-secrets/external-secrets")
    )


@pytest.fixture
def account(mocked_aws: None) -> Account:
    return Account()


def test_import_ids_of_a_state_are_those_that_aws_is_asked_for(account: Account) -> None:
    compared = set()
    for kind, inputs in account.cases():
        made = account.make(kind, **inputs)
        attributes = {**{_snake(name): value for name, value in inputs.items()}, "id": made, "arn": made}
        name = TERRAFORM[kind]
        assert import_id(KINDS[name], Owned(f"{name}.x", name, "", attributes)) == account.find(kind, **inputs), kind
        compared.add(kind)
    assert len(compared) > 20


def test_import_ids_of_parts_of_a_cluster_are_those_that_aws_is_asked_for() -> None:
    """moto has none of them."""
    eks = SimpleNamespace(
        describe_addon=lambda **_: {},
        describe_access_entry=lambda **_: {},
        list_pod_identity_associations=lambda **_: {"associations": [{"associationId": "a-1"}]},
    )
    clients: Any = SimpleNamespace(get=lambda _: eks)
    for kind, inputs in (
        ("aws:eks/addon:Addon", {"clusterName": "c", "addonName": "coredns"}),
        ("aws:eks/accessEntry:AccessEntry", {"clusterName": "c", "principalArn": "arn:aws:iam::123456789012:role/r"}),
        (
            "aws:eks/podIdentityAssociation:PodIdentityAssociation",
            {"clusterName": "c", "namespace": "n", "serviceAccount": "s"},
        ),
    ):
        attributes = {**{_snake(name): value for name, value in inputs.items()}, "id": "a-1", "association_id": "a-1"}
        name = TERRAFORM[kind]
        assert import_id(KINDS[name], Owned(f"{name}.x", name, "", attributes)) == FINDERS[kind](clients, inputs)


# Settings -------------------------------------------------------------------------------------------------------------


def suggested(plan: TakeoverPlan, **nodes: Any) -> Settings:
    """Return the settings with the lines that a plan prints, and what it asks a person to add."""
    lines = yaml.safe_load("\n".join(plan.suggestion))
    existing = {
        **lines["shopcat:cluster"]["existing"],
        "kubeconfig": "{}",
        "previewSubnetIds": ["subnet-0f0000000000000a1", "subnet-0f0000000000000b1"],
    }
    existing["nodes"] = {**existing["nodes"], **nodes}
    cluster = {**committed()["cluster"], **lines["shopcat:cluster"], "existing": existing}
    return settings.read_settings(
        committed(cluster=cluster, registry=lines.get("shopcat:registry", {}), dns="external")
    )


@pytest.mark.parametrize(
    ("owned", "cluster", "repository", "nodes"),
    [
        (PLAIN.owned, "aws_eks_cluster.shopcat", "shopcat", ("t3.medium", 2, 20)),
        (MODULES.owned, "module.eks.aws_eks_cluster.this[0]", "shop/shopcat", ("t3.large", 2, 20)),
    ],
)
def test_with_the_suggested_settings_only_the_database_and_the_version_are_refused(
    owned: tuple[Owned, ...], cluster: str, repository: str, nodes: tuple[str, int, int]
) -> None:
    chosen = suggested(_plan(owned))
    existing = chosen.cluster.existing
    assert existing is not None
    assert (existing.nodes.instance_type, existing.nodes.count, existing.nodes.disk_gibibytes) == nodes
    assert chosen.production.node.name == nodes[0]
    plan = _plan(owned, chosen, region="eu-central-1", account="123456789012")
    others = [error for error in plan.errors if "aws_db_instance" not in error]
    assert len(others) == 1
    assert f"{cluster} runs Kubernetes 1.29, and 1.33 is the oldest" in others[0]
    newer = _plan(_with(owned, cluster, version="1.33"), chosen, region="eu-central-1", account="123456789012")
    assert [error for error in newer.errors if "aws_db_instance" not in error] == []
    assert not {"shopcat:cluster:", "shopcat:registry:"} & {*newer.suggestion}
    assert {row.address for row in newer.rows if row.outcome is Outcome.REFUSED} <= {
        row.address for row in newer.rows if "aws_db_instance" in row.address
    }
    row = _row(newer, "aws_ecr_repository.shopcat")
    assert row.outcome is Outcome.TAKEN
    assert row.detail.endswith(f" aws:ecr/repository:Repository shopcat {repository}")
    assert {each.argument for each in row.differences} == {
        "imageTagMutability",
        "imageScanningConfiguration.scanOnPush",
    }


def test_an_encrypted_repository_is_taken_over_with_its_key() -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    encryption = [{"encryption_type": "KMS", "kms_key": key}]
    owned = _with(MODULES.owned, "aws_ecr_repository.shopcat", encryption_configuration=encryption)
    chosen = suggested(_plan(owned))
    assert chosen.registry.kms_key == key
    assert _row(_plan(owned, chosen), "aws_ecr_repository.shopcat").outcome is Outcome.TAKEN


def test_of_several_repositories_a_person_chooses() -> None:
    (repository,) = [each for each in MODULES.owned if each.type_name == "aws_ecr_repository"]
    other = replace(
        repository, address="aws_ecr_repository.x", attributes={**repository.attributes, "name": "shop/worker"}
    )
    lines = _plan([*MODULES.owned, other]).suggestion
    assert "# shopcat:registry.repository names the one with the shop's images: shop/shopcat, shop/worker" in lines
    assert "shopcat:registry:" not in lines


def test_nodes_of_a_launch_template_s_security_groups_are_not_in_the_cluster_s() -> None:
    plan = _plan(MODULES.owned)
    assert "    securityGroupId: sg-0ec00000000000004" in plan.suggestion
    group = suggested(plan).cluster.existing
    assert group is not None
    wrong = group.model_copy(update={"security_group_id": "sg-0ec00000000000002"})
    chosen = suggested(plan)
    chosen = chosen.model_copy(update={"cluster": chosen.cluster.model_copy(update={"existing": wrong})})
    (error,) = [each for each in _plan(MODULES.owned, chosen).errors if "securityGroupId" in each]
    assert "its nodes are in sg-0ec00000000000004; set it to that" in error


GROUP = 'module.eks.module.eks_managed_node_group["workers"].aws_eks_node_group.this[0]'


@pytest.mark.parametrize(
    ("nodes", "changes", "message"),
    [
        (
            {"instanceType": "t3.xlarge"},
            {},
            "its nodes are t3.large, and shopcat:cluster.existing.nodes.instanceType is",
        ),
        ({"instanceType": "t3.medium"}, {}, ""),
        ({"count": 3}, {}, "nodes.count is 3, and 2 are always there (min_size); raise that or lower the count"),
        ({"diskGibibytes": 40}, {}, "nodes.diskGibibytes is 40, its nodes have 20; set it to that"),
        ({"diskGibibytes": 40}, {"disk_size": 50}, ""),
        ({}, {"instance_types": ["t4g.large"]}, "nobody has worked out how much room a node of t4g.large has"),
        ({}, {"instance_types": ["t3.large", "t3.xlarge"]}, ""),
        ({}, {"instance_types": ["t3.large", "t3.medium"]}, "its nodes are t3.medium"),
        ({}, {"scaling_config": [{"min_size": 1}]}, "nodes.count is 2, and 1 are always there"),
        ({}, {"scaling_config": []}, "nodes.count is 2, and 0 are always there"),
    ],
)
def test_nodes_that_have_less_room_than_the_settings_say_are_refused(
    nodes: Mapping[str, Any], changes: Mapping[str, Any], message: str
) -> None:
    chosen = suggested(_plan(MODULES.owned), **nodes)
    errors = [each for each in _plan(_with(MODULES.owned, GROUP, **changes), chosen).errors if each.startswith(GROUP)]
    assert len(errors) == bool(message), errors
    assert not message or message in errors[0]


def test_nodes_that_no_type_describes_are_named() -> None:
    lines = _plan(_with(MODULES.owned, GROUP, instance_types=["m6g.large", "t3.large"])).suggestion
    assert any("# nodes: the state has m6g.large, t3.large; name a type of infra/capacity.py" in line for line in lines)
    without = [each for each in MODULES.owned if each.type_name != "aws_eks_node_group"]
    assert any("# nodes: the state has no managed node group" in line for line in _plan(without).suggestion)


@pytest.mark.parametrize("text", ["t4g.medium", "", "t3.medium ", "m5.24xlarge"])
def test_an_unknown_type_of_nodes_is_refused_with_those_that_are_known(text: str) -> None:
    with pytest.raises(ShopCatError, match=r"existing\.nodes\.instanceType.*use t3\.medium, t3\.large") as refused:
        suggested(_plan(MODULES.owned), instanceType=text)
    assert "m7i.large" in str(refused.value)


# The repository -------------------------------------------------------------------------------------------------------


def test_a_repository_that_stops_moving_tags_keeps_those_that_are_there(account: Account) -> None:
    """And `latest` takes no other image from then on, whoever pushes it."""
    kind, name = "aws:ecr/repository:Repository", "shop/shopcat"
    account.make(kind, name=name)
    ecr = account.clients.get("ecr")

    def push(size: int) -> Any:
        layer = {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": f"sha256:{size:064d}",
            "size": size,
        }
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
        text = json.dumps({**manifest, "config": layer, "layers": []})
        return ecr.put_image(repositoryName=name, imageManifest=text, imageTag="latest", imageDigest=layer["digest"])

    push(1)
    push(2)
    state = {"name": name, "imageTagMutability": "MUTABLE"}
    STAND_IN[kind].update(
        account.aws, name, state, {**state, "imageTagMutability": "IMMUTABLE"}, {"imageTagMutability"}
    )
    before = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": "latest"}])["imageDetails"]
    with pytest.raises(ClientError, match="AlreadyExistsException"):
        push(3)
    assert ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": "latest"}])["imageDetails"] == before


def test_settings_of_the_registry_leave_its_urn_and_change_nothing_by_default() -> None:
    def repositories(chosen: Settings) -> dict[str, Any]:
        return {each.name: each.inputs for each in recorded(chosen) if each.pulumi_type.endswith(":Repository")}

    plain = repositories(SETTINGS)
    assert plain["shopcat"]["name"] == "shopcat"
    assert plain["shopcat"]["encryptionConfigurations"] == [{"encryptionType": "AES256"}]
    named = repositories(settings.read_settings(committed(registry={"repository": "shop/shopcat"})))
    assert named == {**plain, "shopcat": {**plain["shopcat"], "name": "shop/shopcat"}}


def test_the_previews_repository_is_never_that_of_releases() -> None:
    with pytest.raises(
        ShopCatError, match=r"registry\.repository: shopcat-preview is the previews', which a pull request"
    ):
        settings.read_settings(committed(registry={"repository": "shopcat-preview"}))
