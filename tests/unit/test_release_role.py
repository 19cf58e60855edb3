"""What the release role may do and what it may not: for each type that production declares, each call of its provider."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from moto.iam.aws_managed_policies import aws_managed_policies_data

from infra.access import boundary, release_role
from infra.access.iam_policies import AwsScope
from infra.foundation.cluster import NODE_POLICIES
from tests.iam import Request, as_list, decide, may_call
from tests.unit.release_calls import ACCOUNT, CALLS, REGION, Calls, actions, arn
from twin.plugins.eks.components import CLUSTER_POLICIES

PLACE = AwsScope(ACCOUNT, REGION, "shopcat", "shopcat-releases")
RELEASES = [json.loads(release_role.release_policy(PLACE, updates_platform=False))]
UPDATES = [json.loads(release_role.release_policy(PLACE, updates_platform=True))]
BOUNDARY = [json.loads(boundary.boundary(PLACE))]
OURS = {"aws:ResourceTag/shopcat:project": "shopcat"}
INFRA = Path(__file__).resolve().parents[2] / "infra"


def declared() -> set[str]:
    """Types of AWS that production's program declares, and what pulumi-eks does for it."""
    text = "".join(path.read_text() for path in INFRA.rglob("*.py") if path.name != "preview.py")
    types = set(re.findall(r"\baws\.([a-z0-9]+\.[A-Z]\w*)\(", text))
    return {one for one in types if not one.endswith("Args")} | {"eks.Cluster"}


def test_the_table_has_every_type_that_production_declares() -> None:
    assert declared() == set(CALLS)


def verdicts(each: Calls, *parts: str) -> list[tuple[str, bool, bool]]:
    """Action, whether a release may call it, and whether one with updates may; on production's own resource."""
    found = []
    for action in sorted(actions(each, *parts)):
        asked = [Request(action, resource, OURS) for resource in (each.resource, "*")]
        first, second = (any(decide(p, one).allowed for one in asked) for p in (RELEASES, UPDATES))
        found.append((action, first, second))
    return found


@pytest.mark.parametrize("kind", CALLS)
def test_making_deleting_and_tagging_is_an_administrator_s(kind: str) -> None:
    for action, *allowed in verdicts(CALLS[kind], "create", "delete", "tags"):
        assert allowed == [False, False], action


@pytest.mark.parametrize("kind", CALLS)
def test_updates_are_whose_the_table_says(kind: str) -> None:
    each = CALLS[kind]
    for action, *allowed in verdicts(each, "update"):
        assert allowed == [False, False], action
    for action, *allowed in verdicts(each, "ordinary"):
        assert allowed == [False, True], action
    for action, *allowed in verdicts(each, "release"):
        assert allowed == [True, True], action
    for action, _, allowed_with_updates in verdicts(each, "read"):
        assert allowed_with_updates, action


SECOND = "arn:aws:elasticloadbalancing:eu-central-1:123456789012"
MUST = [
    ("ecr:GetAuthorizationToken", "*"),
    ("ecr:PutImage", arn("ecr", "repository/shopcat")),
    ("s3:PutObject", f"arn:aws:s3:::shopcat-state-prod-{ACCOUNT}-{REGION}/.pulumi/stacks/shopcat/prod.json"),
    ("dynamodb:PutItem", arn("dynamodb", "table/shopcat-releases")),
    ("dynamodb:UpdateItem", arn("dynamodb", "table/shopcat-releases")),
    ("dynamodb:ConditionCheckItem", arn("dynamodb", "table/shopcat-releases")),
    ("elasticloadbalancing:ModifyRule", f"{SECOND}:listener-rule/app/shopcat/1/2/3"),
    ("elasticloadbalancing:DescribeTargetHealth", "*"),
    ("secretsmanager:DescribeSecret", arn("secretsmanager", "secret:shopcat/application-AbCdEf")),
    ("ssm:PutParameter", arn("ssm", "parameter/shopcat/contract")),
    ("cloudwatch:GetMetricData", "*"),
    ("eks:DescribeCluster", arn("eks", "cluster/shopcat")),
    ("route53:ListHostedZones", "*"),
    ("rds:DescribeDBInstances", arn("rds", "db:shopcat")),
]
MUST_NOT = [
    # Who may do what.
    ("eks:AssociateIdentityProviderConfig", arn("eks", "cluster/shopcat")),
    ("eks:CreateAccessEntry", arn("eks", "cluster/shopcat")),
    ("eks:UpdatePodIdentityAssociation", arn("eks", "podidentityassociation/shopcat/a-1")),
    ("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/shopcat-x"),
    ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/node-somebody-elses"),
    ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/shopcat-eksRole-role-1234567"),
    ("iam:CreatePolicyVersion", boundary.boundary_arn(ACCOUNT)),
    ("iam:DeleteRolePermissionsBoundary", f"arn:aws:iam::{ACCOUNT}:role/shopcat-release"),
    ("ecr:SetRepositoryPolicy", arn("ecr", "repository/shopcat")),
    ("ecr:SetRepositoryPolicy", arn("ecr", "repository/shopcat-preview")),
    ("secretsmanager:PutResourcePolicy", arn("secretsmanager", "secret:shopcat/application-AbCdEf")),
    ("s3:PutBucketPolicy", f"arn:aws:s3:::shopcat-state-prod-{ACCOUNT}-{REGION}"),
    ("kms:PutKeyPolicy", arn("kms", "key/1")),
    # What holds data.
    ("ecr:PutLifecyclePolicy", arn("ecr", "repository/shopcat")),
    ("ecr:BatchDeleteImage", arn("ecr", "repository/shopcat")),
    ("rds:DeleteDBSnapshot", arn("rds", "snapshot:shopcat-final-1")),
    ("rds:ModifyDBSnapshotAttribute", arn("rds", "snapshot:shopcat-final-1")),
    ("rds:ModifyDBInstance", arn("rds", "db:shopcat")),
    ("logs:PutRetentionPolicy", arn("logs", "log-group:/aws/eks/shopcat/cluster")),
    ("dynamodb:DeleteItem", arn("dynamodb", "table/shopcat-releases")),
    ("dynamodb:DeleteTable", arn("dynamodb", "table/shopcat-releases")),
    ("dynamodb:UpdateContinuousBackups", arn("dynamodb", "table/shopcat-releases")),
    ("s3:DeleteObjectVersion", f"arn:aws:s3:::shopcat-state-prod-{ACCOUNT}-{REGION}/x"),
    ("secretsmanager:GetSecretValue", arn("secretsmanager", "secret:shopcat/application-AbCdEf")),
    ("secretsmanager:GetSecretValue", arn("secretsmanager", "secret:rds!db-1-AbCdEf")),
    ("secretsmanager:DeleteSecret", arn("secretsmanager", "secret:shopcat/application-AbCdEf")),
    # What is somebody else's.
    ("route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/ZOTHER"),
    ("acm:DeleteCertificate", arn("acm", "certificate/other")),
    ("ec2:DeleteVpc", arn("ec2", "vpc/vpc-other")),
    ("ec2:AuthorizeSecurityGroupIngress", arn("ec2", "security-group/sg-other")),
    ("ec2:CreateTags", arn("ec2", "vpc/vpc-other")),
    ("ec2:CreateTags", arn("ec2", "instance/i-other")),
    ("ec2:DescribeInstances", "*"),
    ("iam:GetAccountAuthorizationDetails", "*"),
    ("elasticloadbalancing:ModifyRule", f"{SECOND}:listener-rule/app/shopcat-preview/1/2/3"),
    ("elasticloadbalancing:ModifyRule", f"{SECOND}:listener-rule/app/shopcart/1/2/3"),
    ("elasticloadbalancing:ModifyTargetGroup", f"{SECOND}:targetgroup/shopcat-pr-123/1"),
    ("dynamodb:PutItem", arn("dynamodb", "table/shopcat-previews")),
    ("s3:GetObject", f"arn:aws:s3:::shopcat-state-previews-{ACCOUNT}-{REGION}/x"),
    ("ssm:PutParameter", arn("ssm", "parameter/other")),
    ("eks:UpdateClusterVersion", arn("eks", "cluster/other")),
    ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/shopcat-preview-secrets"),
]


@pytest.mark.parametrize(("action", "resource"), MUST)
def test_what_a_release_must_do(action: str, resource: str) -> None:
    assert decide(RELEASES, Request(action, resource)).allowed


@pytest.mark.parametrize(("action", "resource"), MUST_NOT)
@pytest.mark.parametrize("tags", [{}, OURS], ids=["no-tag", "ours"])
def test_what_no_release_may_do(action: str, resource: str, tags: dict[str, str]) -> None:
    assert not decide(RELEASES, Request(action, resource, tags)).allowed
    assert not decide(UPDATES, Request(action, resource, tags)).allowed


@pytest.mark.parametrize(("action", "kind"), [
    ("eks:UpdateClusterVersion", "eks.Cluster"),
    ("eks:UpdateNodegroupVersion", "eks.NodeGroup"),
    ("eks:UpdateAddon", "eks.Addon"),
    ("elasticloadbalancing:ModifyTargetGroup", "lb.TargetGroup"),
    ("elasticloadbalancing:ModifyLoadBalancerAttributes", "lb.LoadBalancer"),
])  # fmt: skip
def test_an_ordinary_update_needs_the_project_s_tag(action: str, kind: str) -> None:
    for tags in ({}, {"aws:ResourceTag/shopcat:project": "other"}):
        assert not decide(UPDATES, Request(action, CALLS[kind].resource, tags)).allowed
    assert decide(UPDATES, Request(action, CALLS[kind].resource, OURS)).allowed


def test_nodes_are_launched_from_our_template_alone() -> None:
    template = arn("ec2", "launch-template/lt-1")
    by_template = {"ec2:LaunchTemplate": template}
    resources = [arn("ec2", one) for one in ("instance/i-1", "volume/v-1", "subnet/s-1", "security-group/sg-1")]
    resources += [arn("ec2", "network-interface/eni-1"), f"arn:aws:ec2:{REGION}::image/ami-1"]
    for resource in resources:
        assert decide(UPDATES, Request("ec2:RunInstances", resource, by_template)).allowed
        assert not decide(UPDATES, Request("ec2:RunInstances", resource)).allowed
    assert decide(UPDATES, Request("ec2:RunInstances", template, {**by_template, **OURS})).allowed
    assert not decide(UPDATES, Request("ec2:RunInstances", template, by_template)).allowed
    instance = arn("ec2", "instance/i-1")
    assert decide(UPDATES, Request("ec2:CreateTags", instance, {"ec2:CreateAction": "RunInstances"})).allowed


def test_the_boundary_holds_whatever_a_role_s_policy_says() -> None:
    anything: dict[str, Any] = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    for action, resource in MUST:
        assert decide([anything], Request(action, resource), boundary=BOUNDARY).allowed, action
    for action in ("iam:PutRolePolicy", "iam:CreateRole", "iam:PassRole", "iam:CreatePolicyVersion",
                   "iam:DeleteRolePermissionsBoundary", "eks:CreateAccessEntry", "eks:AssociateIdentityProviderConfig",
                   "rds:ModifyDBInstance", "rds:DeleteDBSnapshot", "s3:PutBucketPolicy", "s3:DeleteObjectVersion",
                   "kms:ScheduleKeyDeletion", "kms:PutKeyPolicy", "ecr:SetRepositoryPolicy", "ecr:DeleteRepository",
                   "secretsmanager:PutResourcePolicy", "dynamodb:DeleteTable", "route53:ChangeResourceRecordSets",
                   "ec2:CreateVpc", "ec2:DeleteVpc", "ec2:TerminateInstances", "ec2:ModifyNetworkInterfaceAttribute",
                   "elasticloadbalancing:DeleteLoadBalancer", "elasticloadbalancing:CreateLoadBalancer",
                   "iam:CreateServiceLinkedRole", "organizations:LeaveOrganization"):  # fmt: skip
        assert not decide([anything], Request(action), boundary=BOUNDARY).allowed, action
    other = Request("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/admin")
    assert not decide([anything], other, boundary=BOUNDARY).allowed


def test_the_boundary_of_eks_cuts_nothing_off_aws_s_policies_and_gives_nothing_of_ours() -> None:
    own = [json.loads(boundary.eks_boundary())]
    managed = json.loads(aws_managed_policies_data)
    for name in (*CLUSTER_POLICIES, *NODE_POLICIES):
        for statement in managed[name]["Document"]["Statement"]:
            for action in as_list(statement["Action"]):
                assert may_call(own, action), (name, action)
    anything: dict[str, Any] = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    for action in ("iam:CreateRole", "sts:AssumeRole", "secretsmanager:GetSecretValue", "s3:GetObject",
                   "rds:DeleteDBInstance", "eks:CreateAccessEntry", "dynamodb:GetItem", "ecr:PutImage"):  # fmt: skip
        assert not decide([anything], Request(action), boundary=own).allowed, action


def test_a_role_needs_its_policy_and_the_boundary() -> None:
    image = Request("ecr:PutImage", arn("ecr", "repository/shopcat"))
    assert decide(RELEASES, image, boundary=BOUNDARY).allowed
    assert not decide([], image, boundary=BOUNDARY).allowed
    assert decide(RELEASES, image, boundary=[]).why == "no statement of the permissions boundary allows it"


def test_nothing_that_a_role_may_do_is_cut_off_by_the_boundary() -> None:
    for text in boundary.bounded_policies(PLACE):
        for statement in json.loads(text)["Statement"]:
            for action in statement["Action"]:
                assert may_call(BOUNDARY, action), action


def test_images_are_pushed_to_the_repository_of_the_settings_alone() -> None:
    place = AwsScope(ACCOUNT, REGION, "shopcat", "shopcat-releases", "shop/shopcat")
    policy = [json.loads(release_role.release_policy(place, updates_platform=False))]
    for name, allowed in (("shop/shopcat", True), ("shopcat", False), ("shop/shopcat/other", False)):
        assert decide(policy, Request("ecr:PutImage", arn("ecr", f"repository/{name}"))).allowed is allowed, name


def test_policies_fit_what_aws_takes() -> None:
    """IAM counts no white space: 6,144 characters of a managed policy, 10,240 of a role's inline ones (IAM quotas)."""
    longest = AwsScope("1" * 12, "ap-southeast-1", "x" * 100, "y" * 255, "z" * 256)
    for text in boundary.documents(longest).values():
        assert len("".join(text.split())) <= 6_144
    assert len("".join(release_role.release_policy(longest, updates_platform=True).split())) <= 10_240
