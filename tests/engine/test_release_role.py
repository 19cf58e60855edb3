"""The release role suffices for releases, and what else a run calls is an administrator's, by name.

moto enforces no IAM: the calls that production's own program makes are taken from the log of the twin's AWS, and the policies
that the program stored are evaluated on them. The upstream aws plugin's further reads are in tests/unit/release_calls.py.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.access import boundary
from infra.names import CLEANUP_ROLE, PREVIEW_ROLE, PREVIEW_SECRETS_ROLE, RELEASE_ROLE
from tests import iam
from tests.engine.aws_calls import needed
from tests.engine.test_isolation import GITHUB, session
from tests.tools import aws, command, kubectl, settings_file, summary
from tests.unit.release_calls import administrators
from twin import config
from twin.config import Twin
from twin.paths import REPOSITORY
from twin.scenarios import production

pytestmark = pytest.mark.engine
ROLES = {
    "shopcat:github": {**GITHUB, "updatesPlatform": True},
    "shopcat:monitoring": {"email": "ops@example.com", "slowestSeconds": 10},
}
UP = ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview"]


@pytest.fixture(scope="module")
def roles(simulated: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings with a repository on GitHub, brought up by an administrator."""
    changed = settings_file(simulated, tmp_path_factory.mktemp("settings"), ROLES)
    command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(changed))
    return changed


def policies(twin: Twin) -> list[dict[str, Any]]:
    """The release role's own policies, as the program stored them."""
    client = aws(twin, "iam")
    names = client.list_role_policies(RoleName=RELEASE_ROLE)["PolicyNames"]
    return [client.get_role_policy(RoleName=RELEASE_ROLE, PolicyName=name)["PolicyDocument"] for name in names]


def run(twin: Twin, settings: Path, *, succeeds: bool = True, **changes: Any) -> tuple[str, set[str]]:
    """`pulumi up -s prod` in a session of the release role: what it said, and what it called, all of which is allowed."""
    path = settings_file(twin, settings.with_name("run"), {**ROLES, **changes})
    who = session(twin, RELEASE_ROLE, "release")
    result = command(twin, UP, check=False, PULUMI_OPTION_CONFIG_FILE=str(path), **who)
    said = result.stdout + result.stderr
    assert (result.returncode == 0) is succeeds, said
    calls = needed(twin, who["AWS_ACCESS_KEY_ID"])
    assert calls
    refused = sorted(call for call in calls if not iam.may_call(policies(twin), call))
    assert not refused, refused
    return said, calls


def test_every_role_is_bounded(simulated: Twin, roles: Path) -> None:
    found = {one["RoleName"]: one for one in aws(simulated, "iam").list_roles()["Roles"]}
    assert {RELEASE_ROLE, PREVIEW_ROLE, CLEANUP_ROLE, PREVIEW_SECRETS_ROLE} < set(found)
    assert len(found) == 8
    of_eks = {name for name in found if name.startswith(("node-", "shopcat-eksRole-"))}
    assert len(of_eks) == 2
    for name in found:
        role = aws(simulated, "iam").get_role(RoleName=name)["Role"]
        wanted = boundary.EKS_BOUNDARY_NAME if name in of_eks else boundary.BOUNDARY_NAME
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary.boundary_arn(
            config.ACCOUNT_ID, wanted
        ), name


def test_the_operator_has_written_its_secrets_with_our_rights(simulated: Twin, roles: Path) -> None:
    """It is the real one, as its ServiceAccount; with the chart's ClusterRole gone."""
    names = {one["metadata"]["name"] for one in kubectl(simulated, "get", "clusterroles")["items"]}
    assert not {name for name in names if name.startswith("external-secrets")}
    spaces = {
        (one["metadata"]["namespace"], one["type"])
        for one in kubectl(simulated, "get", "secrets", "-A", "-l", "reconcile.external-secrets.io/managed=true")[
            "items"
        ]
    }
    assert spaces == {("shopcat", "Opaque"), ("shopcat-database", "Opaque")}


@pytest.mark.parametrize(
    ("verb", "what", "namespace", "allowed"),
    [
        ("create", "serviceaccounts/token", "kube-system", False),
        ("create", "serviceaccounts/token", "external-secrets", False),
        ("get", "serviceaccounts", "kube-system", False),
        ("get", "configmaps", "kube-system", False),
        ("create", "pushsecrets.external-secrets.io", "shopcat", False),
        ("list", "clustersecretstores.external-secrets.io", "", False),
        ("create", "externalsecrets.external-secrets.io", "shopcat", False),
        ("create", "pods", "external-secrets", False),
        ("list", "externalsecrets.external-secrets.io", "shopcat", True),
    ],
)
def test_the_operator_s_rights(
    simulated: Twin, roles: Path, verb: str, what: str, namespace: str, *, allowed: bool
) -> None:
    where = ["-n", namespace] if namespace else []
    who = "--as=system:serviceaccount:external-secrets:external-secrets"
    answer = command(simulated, ["kubectl", "auth", "can-i", verb, what, *where, who], check=False)
    assert answer.stdout.strip() == ("yes" if allowed else "no")


@pytest.mark.parametrize(
    ("namespace", "kind", "allowed"),
    [
        ("shopcat", "generic", True),
        ("shopcat-database", "generic", True),
        ("kube-system", "generic", False),
        ("external-secrets", "generic", False),
        ("default", "generic", False),
        ("shopcat", "token", False),
    ],
)
def test_where_the_operator_writes_secrets(
    simulated: Twin, roles: Path, namespace: str, kind: str, *, allowed: bool, tmp_path: Path
) -> None:
    types = {"generic": "Opaque", "token": "kubernetes.io/service-account-token"}
    annotations = {"kubernetes.io/service-account.name": "default"} if kind == "token" else {}
    path = tmp_path / "secret.yaml"
    metadata = {"name": "attempt", "namespace": namespace, "annotations": annotations}
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": types[kind]}))
    who = "--as=system:serviceaccount:external-secrets:external-secrets"
    answer = command(simulated, ["kubectl", "create", "-f", str(path), who, "--dry-run=server"], check=False)
    assert (answer.returncode == 0) is allowed, answer.stdout + answer.stderr
    if not allowed:
        assert "shopcat-operator-secrets" in answer.stderr


def test_nothing_to_do(simulated: Twin, roles: Path) -> None:
    said, _ = run(simulated, roles)
    assert set(summary(said)) == {"unchanged"}


def test_a_release_that_is_shifted_back_and_its_abort(simulated: Twin, roles: Path) -> None:
    """Simulated pods serve no page, so the probes of the shift fail, and it puts the weights back.

    The abort is not refused because the settings ask meanwhile for another platform, nor does it change that.
    """
    production.push_image(simulated, REPOSITORY / "twin" / "application", "v1.1.0")
    said, calls = run(simulated, roles, succeeds=False, **{"shopcat:tag": "v1.1.0"})
    assert "everything is back on green" in said
    assert {"elasticloadbalancing:ModifyRule", "dynamodb:PutItem", "secretsmanager:DescribeSecret"} <= calls
    settings = yaml.safe_load(roles.read_text())["config"]
    database, cluster, monitoring = (settings[f"shopcat:{name}"] for name in ("database", "cluster", "monitoring"))
    wishes = {
        "shopcat:database": {
            **database,
            "instanceClass": "db.t4g.medium",
            "maintenanceWindow": "sun:03:00-sun:03:30",
            "storageGibibytes": 2 * database["storageGibibytes"],
        },
        "shopcat:cluster": {
            **cluster,
            "addonVersions": {**cluster["addonVersions"], "coredns": "v1.13.2-eksbuild.5"},
        },
        "shopcat:drain": {**settings["shopcat:drain"], "deregistrationDelay": 300},
        "shopcat:monitoring": {**monitoring, "slowestSeconds": 5},
    }
    # What these newly name is not made, and what they name no more is not deleted.
    others = {
        "shopcat:vpc": {**settings["shopcat:vpc"], "natGateways": 2, "interfaceEndpoints": True},
        "shopcat:domainAliases": [f"www.{settings['shopcat:domain']}"],
        "shopcat:github": {},
    }
    refused, _ = run(simulated, roles, succeeds=False, **wishes)
    assert "in the middle of release v1.1.0-r1" in refused
    said, calls = run(simulated, roles, **{"shopcat:abort": "v1.1.0"}, **{**wishes, **others})
    assert "a way back leaves the platform as it is" in said
    # The weights are back already, so nothing but the ledger is written.
    changing = {call for call in calls if re.search(r":(Create|Modify|Put|Update|Delete|Add|Set)", call)}
    assert {call.partition(":")[0] for call in changing} == {"dynamodb"}
    assert production.outputs(simulated)["liveRelease"] == "v1.0.0"
    # The next update makes the changes, with an identity that may.
    path = settings_file(simulated, roles.with_name("wishes"), {**ROLES, **wishes})
    updated = []
    for file, instance_class in ((path, "db.t4g.medium"), (roles, database["instanceClass"])):
        updated.append(summary(command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(file)).stdout)["updated"])
        (instance,) = aws(simulated, "rds").describe_db_instances()["DBInstances"]
        assert instance["DBInstanceClass"] == instance_class
    assert updated[0] == updated[1] >= 6, "instance, add-on, both target groups, alarms"


def test_an_ordinary_update(simulated: Twin, roles: Path) -> None:
    settings = yaml.safe_load(roles.read_text())["config"]
    versions = {**settings["shopcat:cluster"]["addonVersions"], "coredns": "v1.13.2-eksbuild.5"}
    said, calls = run(
        simulated,
        roles,
        **{
            "shopcat:drain": {**settings["shopcat:drain"], "deregistrationDelay": 120},
            "shopcat:cluster": {**settings["shopcat:cluster"], "addonVersions": versions},
        },
    )
    assert summary(said)["updated"] == 3, "both target groups and the add-on"
    assert {"elasticloadbalancing:ModifyTargetGroupAttributes", "eks:UpdateAddon"} <= calls


def test_whatever_else_an_administrator_s_runs_need_is_named(simulated: Twin, roles: Path) -> None:
    """From nothing until here, with the twin's own credentials: bootstrap, platform, first release."""
    calls = needed(simulated, config.ACCESS_KEY_ID)
    allowed = policies(simulated)
    named = administrators()
    nameless = sorted(call for call in calls if not iam.may_call(allowed, call) and call not in named)
    assert not nameless, nameless


def test_taking_it_down_is_an_administrator_s(simulated: Twin, roles: Path) -> None:
    """Last, since nothing is left after it."""
    roles = settings_file(simulated, roles.parent, {**ROLES, "shopcat:protection": False})
    command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(roles))
    command(simulated, ["pulumi", "destroy", "-s", "prod", "--yes", "--skip-preview"])
    deleting = {call for call in needed(simulated, config.ACCESS_KEY_ID) if re.search(r":(Delete|Remove|Detach)", call)}
    assert deleting
    allowed = policies_of_nobody()
    assert not [call for call in deleting if iam.may_call(allowed, call) and not call.startswith("s3:")]


def policies_of_nobody() -> list[dict[str, Any]]:
    """The release role's policies, rendered, since the role is gone."""
    from infra.access import release_role
    from infra.access.iam_policies import AwsScope

    scope = AwsScope(config.ACCOUNT_ID, config.region(), "shopcat", "shopcat-releases")
    return [json.loads(release_role.release_policy(scope, updates_platform=True))]
