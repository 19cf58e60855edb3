"""Which roles and access entries are declared."""

import json
from typing import Any

import pulumi
import pytest

from infra.access.iam_policies import AwsScope
from infra.names import CLEANUP_ROLE, PREVIEW_ROLE, RELEASE_ROLE
from infra.settings import GithubSettings
from tests import iam

PLACE = AwsScope("123456789012", "eu-central-1", "shopcat", "shopcat-releases")


class Recorder(pulumi.runtime.Mocks):
    """Every resource's inputs, by type and name."""

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str], dict[str, Any]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.resources[args.typ, args.name] = dict(args.inputs)
        return f"{args.name}-id", {**args.inputs, "arn": f"arn:{args.name}", "uniqueId": f"AROA-{args.name}"}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        return {}


def declared(
    repository: str, *, in_our_cluster: bool = True, updates_platform: bool = False
) -> dict[tuple[str, str], dict[str, Any]]:
    from infra.access.github_roles import GithubRoles

    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, preview=False)

    @pulumi.runtime.test
    def program() -> Any:
        made = GithubRoles(
            "identity",
            GithubSettings(repository=repository, updates_platform=updates_platform),
            scope=PLACE,
            listener_arn="arn:listener",
            in_our_cluster=in_our_cluster,
            is_monitored=False,
            depends_on=[],
            opts=pulumi.ResourceOptions(),
        )
        return pulumi.Output.all(made.preview_role_id, *made.roles.values())

    program()
    return recorder.resources


def test_without_a_repository_there_is_nothing() -> None:
    assert {kind for kind, _ in declared("")} == {"shopcat:identity:Identity"}


def test_three_roles_each_with_one_policy() -> None:
    found = declared("octo/shop")
    for kind in ("aws:iam/role:Role", "aws:iam/rolePolicy:RolePolicy"):
        assert {name for one, name in found if one == kind} == {RELEASE_ROLE, PREVIEW_ROLE, CLEANUP_ROLE}
    listeners = [
        resource
        for statement in json.loads(found["aws:iam/rolePolicy:RolePolicy", PREVIEW_ROLE]["policy"])["Statement"]
        if "elasticloadbalancing:CreateRule" in statement["Action"]
        for resource in iam.as_list(statement["Resource"])
    ]
    assert listeners[0] == "arn:listener"
    assert f"AROA-{PREVIEW_ROLE}:*" in found["aws:iam/rolePolicy:RolePolicy", CLEANUP_ROLE]["policy"]


def test_every_role_is_bounded() -> None:
    found = declared("octo/shop")
    roles = [inputs for (kind, _), inputs in found.items() if kind == "aws:iam/role:Role"]
    assert {one["permissionsBoundary"] for one in roles} == {"arn:aws:iam::123456789012:policy/shopcat-boundary"}


@pytest.mark.parametrize("updates", [False, True])
def test_ordinary_updates_are_asked_for(*, updates: bool) -> None:
    found = declared("octo/shop", updates_platform=updates)
    policy = found["aws:iam/rolePolicy:RolePolicy", RELEASE_ROLE]["policy"]
    assert ("eks:UpdateAddon" in policy) is updates


def test_in_the_cluster_each_session_is_a_user_of_its_own_and_releases_administer() -> None:
    found = declared("octo/shop")
    entries = {name: inputs for (kind, name), inputs in found.items() if kind == "aws:eks/accessEntry:AccessEntry"}
    assert entries[PREVIEW_ROLE]["userName"] == "shopcat-preview:{{SessionName}}"
    assert entries[PREVIEW_ROLE]["kubernetesGroups"] == ["shopcat-previews"]
    assert entries[CLEANUP_ROLE]["kubernetesGroups"] == ["shopcat-preview-cleanup"]
    (policy,) = [inputs for (kind, _), inputs in found.items() if kind.endswith("AccessPolicyAssociation")]
    assert policy["principalArn"] == f"arn:{RELEASE_ROLE}"


def test_a_cluster_that_somebody_else_keeps_gets_no_entries() -> None:
    assert not [kind for kind, _ in declared("octo/shop", in_our_cluster=False) if "eks" in kind]
