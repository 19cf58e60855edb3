"""Rights of a pull request with its own role and kubeconfig, whatever its code says, and their limits.

The API server's answers are real: its RBAC and its admission decide, asked with the previews' own credentials. moto
enforces no IAM, so there the policies that the program stored are read back and evaluated (tests/iam.py). With
SHOPCAT_ISOLATION=1 (`make isolation`) the rows become docs/isolation.md.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.access.iam_policies import ISSUER
from infra.names import CLEANUP_ROLE, PREVIEW_ROLE, RELEASE_ROLE
from tests import iam
from tests.engine import isolation_table
from tests.engine.isolation_attempts import ADMIN_ATTEMPTS, ADMISSION, APPLY, ATTEMPTS, Attempt, Facts
from tests.engine.isolation_job import GITHUB, Session, facts_of, identity_of, pulumi, session, tried
from tests.engine.isolation_requests import TAKES, AwsFacts, Take, requests
from tests.engine.isolation_shapes import ADMIN_SHAPES, SHAPES, deployment
from tests.tools import aws, command, kubectl, settings_file, summary
from twin.config import ACCOUNT_ID, Twin
from twin.paths import REPOSITORY
from twin.scenarios import preview, production

pytestmark = pytest.mark.engine

NUMBER, OTHER, UNOPENED = 123, 77, 124
SHA = "d" * 40
UP = ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview"]


@pytest.fixture(scope="module", autouse=True)
def roles(simulated: Twin, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Production knows its repository on GitHub, and a pull request's image is pushed."""
    changed = settings_file(simulated, tmp_path_factory.mktemp("settings"), {"shopcat:github": GITHUB})
    command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(changed))
    production.push_image(simulated, REPOSITORY / "twin" / "application", SHA, preview.REPOSITORY_NAME)


@pytest.fixture(scope="module")
def job(simulated: Twin, roles: None, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A job of pull request 123."""
    return identity_of(simulated, tmp_path_factory.mktemp("job"), session(simulated, PREVIEW_ROLE, str(NUMBER)))


@pytest.fixture(scope="module")
def unopened(simulated: Twin, roles: None, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A job of pull request 124, which has no namespace yet."""
    return identity_of(simulated, tmp_path_factory.mktemp("job"), session(simulated, PREVIEW_ROLE, str(UNOPENED)))


def called(twin: Twin, who: Session) -> set[tuple[str, str]]:
    """AWS calls made with these credentials: service and action."""
    lines = (line.split() for line in (twin.logs / "aws-calls.log").read_text().splitlines())
    return {(line[1], line[2]) for line in lines if len(line) == 6 and line[5] == who["AWS_ACCESS_KEY_ID"]}


def policies_of(twin: Twin, role: str) -> list[dict[str, Any]]:
    """Read the role's policies as the program stored them."""
    client = aws(twin, "iam")
    names = client.list_role_policies(RoleName=role)["PolicyNames"]
    return [client.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]


def trust_of(twin: Twin, role: str) -> dict[str, Any]:
    found: dict[str, Any] = aws(twin, "iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    return found


@pytest.fixture(scope="module")
def opened(simulated: Twin, job: Session) -> Iterator[Facts]:
    """Pull request 123's preview, brought up by its own identity, and 77's beside it."""
    for number in (NUMBER, OTHER):
        preview.close(simulated, number)  # a twin that was kept may have them still
    text = pulumi(simulated, NUMBER, job, "up", "-c", f"shopcat:tag={SHA}")
    assert set(summary(text)) == {"created"}, text
    other = session(simulated, PREVIEW_ROLE, str(OTHER))
    pulumi(simulated, OTHER, other, "up", "-c", f"shopcat:tag={SHA}")
    yield facts_of(simulated, NUMBER, OTHER, UNOPENED)
    pulumi(simulated, OTHER, other, "destroy")


def test_a_pull_request_brings_up_its_preview_with_its_own_identity(simulated: Twin, opened: Facts) -> None:
    deployment = kubectl(simulated, "get", "deployment", "shopcat", "-n", f"pr-{NUMBER}")
    assert deployment["status"]["availableReplicas"] == 1
    binding = kubectl(simulated, "get", "rolebinding", "shopcat-preview", "-n", f"pr-{NUMBER}")
    assert [one["name"] for one in binding["subjects"]] == [f"shopcat-preview:{NUMBER}"]
    isolation_table.allowed(
        "`pulumi up -s pr-123`: everything is created", "the API server, with the role's kubeconfig"
    )


def test_its_up_again_and_its_secret_work_too(simulated: Twin, opened: Facts, job: Session) -> None:
    text = pulumi(simulated, NUMBER, job, "up", "-c", f"shopcat:tag={SHA}")
    assert set(summary(text)) == {"unchanged"}, text
    secret = aws(simulated, "secretsmanager").describe_secret(SecretId=f"shopcat-preview/pr-{NUMBER}/database")
    tags = {one["Key"]: one["Value"] for one in secret["Tags"]}
    assert tags["shopcat:owner"] == f"{opened.contract['previewRoleId']}:{NUMBER}"


def test_the_policies_fit_the_kinds_they_judge(simulated: Twin) -> None:
    """The API server checks each expression against the kinds it is for."""
    for one in kubectl(simulated, "get", "validatingadmissionpolicies")["items"]:
        assert not one["status"].get("typeChecking", {}).get("expressionWarnings"), one["metadata"]["name"]


@pytest.mark.parametrize("attempt", [*ATTEMPTS, *SHAPES], ids=lambda one: one.what)
def test_the_api_server_denies(
    simulated: Twin, opened: Facts, job: Session, unopened: Session, attempt: Attempt
) -> None:
    who = unopened if attempt.unopened else job
    result = tried(simulated, attempt, who, opened)
    text = result.stdout + result.stderr
    assert result.returncode != 0, f"{attempt.what}: allowed\n{text}"
    assert re.search(attempt.says, text), f"{attempt.what}: denied for another reason\n{text}"
    isolation_table.denied(attempt.what, attempt.by, isolation_table.words(text))


@pytest.mark.parametrize("name", ["shopcat", "database"])
def test_its_own_deployments_are_let_in_by_the_same_rules(
    simulated: Twin, opened: Facts, job: Session, name: str
) -> None:
    """The objects that the denied ones are made from; and what a pull request may choose of them."""
    made = deployment(opened, name)
    rested = {**made, "spec": {**made["spec"], "replicas": 0}}
    for manifest in (made, rested):
        own = Attempt("", ADMISSION, "", (*APPLY, "--dry-run=server"), lambda _, manifest=manifest: manifest)  # type: ignore[misc]
        result = tried(simulated, own, job, opened)
        assert result.returncode == 0, result.stdout + result.stderr
    isolation_table.allowed(
        f"its own Deployment {name}, with one pod or none", "the API server, with the role's kubeconfig"
    )


def test_production_finds_a_node_whatever_previews_asked_for(simulated: Twin, opened: Facts, job: Session) -> None:
    """Previews' pods against production's were refused above, so with one node left the real scheduler places production's."""
    attempt = next(one for one in SHAPES if "anti-affinity" in one.what)
    for _ in range(5):
        assert tried(simulated, attempt, job, opened).returncode != 0
    command(simulated, ["kubectl", "cordon", "node1"])
    try:
        live = ["-n", "shopcat", "-l", "shopcat/colour=green"]
        command(simulated, ["kubectl", "delete", "pods", *live, "--force", "--grace-period=0"])
        command(
            simulated,
            ["kubectl", "rollout", "status", "deployment/shopcat-green", "-n", "shopcat", "--timeout=120s"],
        )
        pods = kubectl(simulated, "get", "pods", "-n", "shopcat", "-l", "shopcat/colour=green")["items"]
        placed = [one["spec"].get("nodeName") for one in pods if "deletionTimestamp" not in one["metadata"]]
        assert placed == ["node2", "node2"]
    finally:
        command(simulated, ["kubectl", "uncordon", "node1"])
    isolation_table.allowed("production's pods find room on the one node that is left", "the real scheduler")


@pytest.mark.parametrize("attempt", [*ADMIN_ATTEMPTS, *ADMIN_SHAPES], ids=lambda one: one.what)
def test_the_api_server_denies_whoever_asks(simulated: Twin, opened: Facts, attempt: Attempt) -> None:
    for arguments in attempt.prepare:
        command(simulated, ["kubectl", *arguments], check=False)
    try:
        result = tried(simulated, attempt, {}, opened)
        text = result.stdout + result.stderr
        assert result.returncode != 0, f"{attempt.what}: allowed\n{text}"
        assert re.search(attempt.says, text), f"{attempt.what}: denied for another reason\n{text}"
        isolation_table.denied(attempt.what, attempt.by, isolation_table.words(text))
    finally:
        if attempt.restore:
            command(simulated, ["kubectl", *attempt.restore])


def aws_facts(twin: Twin, opened: Facts) -> AwsFacts:
    elb = aws(twin, "elbv2")
    listeners = {}
    for balancer in elb.describe_load_balancers()["LoadBalancers"]:
        for listener in elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]:
            if listener["Port"] == 443:
                listeners[balancer["LoadBalancerName"]] = listener["ListenerArn"]
    secrets = {one["Name"]: one["ARN"] for one in aws(twin, "secretsmanager").list_secrets()["SecretList"]}
    return AwsFacts(opened, ACCOUNT_ID, listeners, secrets)


@pytest.mark.parametrize("index", range(len(requests(None))), ids=[one.what for one in requests(None)])
def test_iam_denies(simulated: Twin, opened: Facts, index: int) -> None:
    row = requests(aws_facts(simulated, opened))[index]
    decision = iam.decide(policies_of(simulated, row.role), row.request)
    assert decision.allowed == row.allowed, f"{row.what}: {decision.why}"
    if row.allowed:
        isolation_table.allowed(row.what, "IAM policies evaluated")
    else:
        isolation_table.denied(row.what, "IAM policies evaluated", f"`{row.request.action}`: {decision.why}")


@pytest.mark.parametrize("take", TAKES, ids=lambda one: one.what)
def test_roles_are_taken_by_those_they_are_for(simulated: Twin, take: Take) -> None:
    context = {f"{ISSUER}:{key}": value for key, value in take.claims.items()}
    request = iam.Request(
        "sts:AssumeRoleWithWebIdentity",
        context={**context, "sts:RoleSessionName": take.session},
        principal=f"arn:aws:iam::{ACCOUNT_ID}:oidc-provider/{ISSUER}",
    )
    decision = iam.decide([trust_of(simulated, take.role)], request)
    assert decision.allowed == take.allowed, f"{take.what}: {decision.why}"
    if take.allowed:
        isolation_table.allowed(take.what, "trust policy evaluated")
    else:
        isolation_table.denied(take.what, "trust policy evaluated", f"`{request.action}`: {decision.why}")


def test_the_node_role_is_out_of_a_pods_reach(simulated: Twin) -> None:
    """The hop limit is what a real network enforces; here it is read back."""
    ec2 = aws(simulated, "ec2")
    (template,) = ec2.describe_launch_templates()["LaunchTemplates"]
    newest = ec2.describe_launch_template_versions(
        LaunchTemplateId=template["LaunchTemplateId"], Versions=[str(template["LatestVersionNumber"])]
    )["LaunchTemplateVersions"][0]["LaunchTemplateData"]["MetadataOptions"]
    assert (newest["HttpPutResponseHopLimit"], newest["HttpTokens"]) == (1, "required")
    isolation_table.denied(
        "read the node role through the instance metadata service (169.254.169.254)",
        "declared, read back from EC2; nothing on the twin enforces it",
        "launch template: tokens required, hop limit 1, so an answer never reaches a pod; and no egress is allowed there",
    )


def subnets_of(twin: Twin, name: str) -> list[str]:
    """CIDR blocks of the subnets in which a load balancer stands."""
    balancers = aws(twin, "elbv2").describe_load_balancers(Names=[name])["LoadBalancers"]
    ids = [zone["SubnetId"] for one in balancers for zone in one["AvailabilityZones"]]
    return [one["CidrBlock"] for one in aws(twin, "ec2").describe_subnets(SubnetIds=ids)["Subnets"]]


def test_network_policies_stand_where_a_preview_can_not_remove_them(simulated: Twin, opened: Facts) -> None:
    (policy,) = kubectl(simulated, "get", "networkpolicy", "-n", "shopcat")["items"]
    sources = [next(iter(one)) for rule in policy["spec"]["ingress"] for one in rule["from"]]
    assert sources == ["ipBlock", "ipBlock", "podSelector"]
    cidrs = [one["ipBlock"]["cidr"] for rule in policy["spec"]["ingress"] for one in rule["from"] if "ipBlock" in one]
    previews = opened.contract["loadBalancerCidrs"]
    assert not {*cidrs} & {*previews}
    standing = subnets_of(simulated, "shopcat-preview")
    assert sorted(standing) == sorted(previews)
    assert sorted(subnets_of(simulated, "shopcat")) == sorted(cidrs)
    names = {
        one["metadata"]["name"] for one in kubectl(simulated, "get", "networkpolicy", "-n", f"pr-{NUMBER}")["items"]
    }
    assert names == {"default-deny", "shopcat", "database"}
    by = "declared; kept by the API server (rows above)"
    isolation_table.denied(
        "TCP to production's pods",
        by,
        "production's own policy lets in its own load balancer's subnets and the smoke test",
    )
    isolation_table.denied(
        "TCP to the database", by, "egress of every pod of a preview is its own database and DNS, and nothing widens it"
    )


def test_every_call_that_a_preview_makes_is_allowed_by_its_role(simulated: Twin, opened: Facts, job: Session) -> None:
    policies = policies_of(simulated, PREVIEW_ROLE)
    calls = {call for call in called(simulated, job) if call[0] != "sts"}
    assert ("secretsmanager", "CreateSecret") in calls
    missing = sorted(
        f"{service}:{action}" for service, action in calls if not iam.may_call(policies, f"{service}:{action}")
    )
    assert not missing, missing
    isolation_table.allowed(f"the {len(calls)} AWS actions that its `up` calls", "IAM policies evaluated, by action")


def test_destroy_leaves_nothing_with_the_namespace_there(simulated: Twin, opened: Facts, job: Session) -> None:
    pulumi(simulated, NUMBER, job, "destroy")
    assert left(simulated, NUMBER) == []
    isolation_table.allowed("`pulumi destroy -s pr-123`: nothing is left", "the API server, with the role's kubeconfig")


def test_destroy_leaves_nothing_with_the_namespace_gone(simulated: Twin, opened: Facts, job: Session) -> None:
    pulumi(simulated, NUMBER, job, "up", "-c", f"shopcat:tag={SHA}")
    command(simulated, ["kubectl", "delete", "namespace", f"pr-{NUMBER}", "--timeout=200s"])
    pulumi(simulated, NUMBER, job, "destroy")
    assert left(simulated, NUMBER) == []
    isolation_table.allowed("the same with the namespace already gone", "the API server, with the role's kubeconfig")


def test_destroy_leaves_nothing_after_half_an_up(simulated: Twin, opened: Facts, job: Session) -> None:
    manager = aws(simulated, "secretsmanager")
    name = f"shopcat-preview/pr-{NUMBER}/database"
    manager.create_secret(Name=name)  # so that the update fails half-way
    text = pulumi(simulated, NUMBER, job, "up", "-c", f"shopcat:tag={SHA}", check=False)
    assert "database" in text
    manager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    assert left(simulated, NUMBER) != []
    pulumi(simulated, NUMBER, job, "destroy")
    assert left(simulated, NUMBER) == []
    isolation_table.allowed("the same after an `up` that failed half-way", "the API server, with the role's kubeconfig")


def test_the_clean_up_removes_a_preview_with_its_own_identity(
    simulated: Twin, opened: Facts, job: Session, tmp_path: Path
) -> None:
    pulumi(simulated, NUMBER, job, "up", "-c", f"shopcat:tag={SHA}")
    cleanup = identity_of(simulated, tmp_path, session(simulated, CLEANUP_ROLE, "cleanup"))
    for arguments in (["delete", "namespace", "shopcat"], ["delete", "deployment", "shopcat", "-n", f"pr-{NUMBER}"]):
        result = command(simulated, ["kubectl", *arguments], check=False, **cleanup)
        assert result.returncode != 0
        isolation_table.denied(
            f"the clean-up job: `kubectl {' '.join(arguments)}`", "API server", isolation_table.words(result.stderr)
        )
    preview.close(simulated, NUMBER, more=cleanup)
    assert left(simulated, NUMBER) == []
    calls = {call for call in called(simulated, cleanup) if call[0] != "sts"}
    policies = policies_of(simulated, CLEANUP_ROLE)
    assert not [call for call in calls if not iam.may_call(policies, f"{call[0]}:{call[1]}")], calls
    isolation_table.allowed(
        "the clean-up job: `python -m pipeline preview close --number 123`", "the API server, as the role"
    )


def test_a_release_goes_on_under_these_policies(simulated: Twin, opened: Facts, tmp_path: Path) -> None:
    """With the release role's own credentials, without a change: everything it reads is allowed."""
    release = session(simulated, RELEASE_ROLE, "release")
    changed = settings_file(simulated, tmp_path, {"shopcat:github": GITHUB})
    counts = summary(command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(changed), **release).stdout)
    assert set(counts) == {"unchanged"}, counts
    policies = policies_of(simulated, RELEASE_ROLE)
    calls = {call for call in called(simulated, release) if call[0] != "sts"}
    assert not [call for call in calls if not iam.may_call(policies, f"{call[0]}:{call[1]}")], calls
    isolation_table.allowed(
        "the release role: `pulumi up -s prod` without a change", "IAM policies evaluated, by action"
    )


def left(twin: Twin, number: int) -> list[str]:
    """Everything of a preview that is anywhere."""
    stack = f"pr-{number}"
    elb = aws(twin, "elbv2")
    found = [one["TargetGroupName"] for one in elb.describe_target_groups()["TargetGroups"]]
    found += [
        one["Name"] for one in aws(twin, "secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"]
    ]
    found += [one["stack"]["S"] for one in aws(twin, "dynamodb").scan(TableName="shopcat-previews")["Items"]]
    found += [one["metadata"]["name"] for one in kubectl(twin, "get", "namespaces")["items"]]
    return [name for name in found if re.search(rf"(^|[-/]){stack}(/|$)", name)]


def test_the_table_is_written(simulated: Twin, opened: Facts) -> None:
    """Last, so that it holds every row; only when asked for."""
    if os.environ.get("SHOPCAT_ISOLATION"):
        isolation_table.write(REPOSITORY / "docs" / "isolation.md")
