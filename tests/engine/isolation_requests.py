"""Requests to IAM, decided by the policies that the program stored, and who may take which role."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.access.iam_policies import AUDIENCE, NUMBER_TAG
from infra.names import CLEANUP_ROLE, PREVIEW_ROLE, PREVIEW_SECRETS_ROLE, RELEASE_ROLE
from tests.engine.isolation_attempts import Facts
from tests.iam import Request


@dataclass(frozen=True)
class AwsFacts:
    """Names that requests are made of; only the rows' titles are needed to collect the tests."""

    facts: Facts
    account: str
    listeners: Mapping[str, str]
    """Load balancer → ARN of its HTTPS listener."""
    secrets: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    what: str
    request: Request
    allowed: bool = False
    role: str = PREVIEW_ROLE


@dataclass(frozen=True)
class Take:
    what: str
    role: str
    claims: Mapping[str, str]
    session: str
    allowed: bool = False


def requests(given: AwsFacts | None) -> list[Row]:
    """Every row; without facts for their titles alone."""
    facts = given.facts if given else None
    region, account = (facts.region, given.account) if facts and given else ("", "")
    role_id = facts.contract["previewRoleId"] if facts else "AROA"
    own, other = {"aws:userid": f"{role_id}:123"}, f"{role_id}:77"
    others = {**own, "aws:ResourceTag/shopcat:owner": other}
    mine = {**own, "aws:ResourceTag/shopcat:owner": f"{role_id}:123"}
    groups = facts.target_groups if facts else {}
    listeners = given.listeners if given else {}
    secrets = given.secrets if given else {}

    def arn(service: str, resource: str) -> str:
        return f"arn:aws:{service}:{region}:{account}:{resource}"

    def group(name: str) -> str:
        return groups.get(name, "*")

    def secret(name: str) -> str:
        return secrets.get(name, "*")

    def role(name: str) -> str:
        return f"arn:aws:iam::{account}:role/{name}"

    def bucket(stack: str) -> str:
        return f"arn:aws:s3:::shopcat-state-{stack}-{account}-{region}"

    rule = arn("elasticloadbalancing", "listener-rule/app/shopcat-preview/1/2/3")
    operator = {"aws:PrincipalTag/shopcat-preview": "pr-123"}
    return [
        Row("write to the contract", Request("ssm:PutParameter", arn("ssm", "parameter/shopcat/contract"), own)),
        Row(
            "write to the release ledger",
            Request("dynamodb:PutItem", arn("dynamodb", "table/shopcat-releases"), own),
        ),
        Row(
            "read the release ledger",
            Request("dynamodb:GetItem", arn("dynamodb", "table/shopcat-releases"), own),
        ),
        Row(
            "read production's secret",
            Request("secretsmanager:GetSecretValue", secret("shopcat/application"), own),
        ),
        Row(
            "read another pull request's secret",
            Request("secretsmanager:GetSecretValue", secret("shopcat-preview/pr-77/database"), others),
        ),
        Row(
            "write another pull request's secret",
            Request("secretsmanager:PutSecretValue", secret("shopcat-preview/pr-77/database"), others),
        ),
        Row(
            "delete another pull request's secret",
            Request("secretsmanager:DeleteSecret", secret("shopcat-preview/pr-77/database"), others),
        ),
        Row(
            "take the name of a secret that another pull request will make",
            Request(
                "secretsmanager:CreateSecret",
                arn("secretsmanager", "secret:shopcat-preview/pr-88/database-AbCdEf"),
                {**own, "aws:RequestTag/shopcat:owner": f"{role_id}:123", f"aws:RequestTag/{NUMBER_TAG}": "88"},
            ),
        ),
        Row(
            "take the name of another pull request's target group",
            Request(
                "elasticloadbalancing:CreateTargetGroup",
                arn("elasticloadbalancing", "targetgroup/shopcat-pr-88/1"),
                {**own, "aws:RequestTag/shopcat:owner": f"{role_id}:123", f"aws:RequestTag/{NUMBER_TAG}": "123"},
            ),
        ),
        Row(
            "make its own target group",
            Request(
                "elasticloadbalancing:CreateTargetGroup",
                arn("elasticloadbalancing", "targetgroup/shopcat-pr-123/1"),
                {**own, "aws:RequestTag/shopcat:owner": f"{role_id}:123", f"aws:RequestTag/{NUMBER_TAG}": "123"},
            ),
            allowed=True,
        ),
        Row(
            "make another pull request's secret its own by a tag",
            Request(
                "secretsmanager:TagResource",
                secret("shopcat-preview/pr-77/database"),
                {**others, "aws:RequestTag/shopcat:owner": f"{role_id}:123"},
            ),
        ),
        Row(
            "read and write its own secret",
            Request("secretsmanager:PutSecretValue", secret("shopcat-preview/pr-123/database"), mine),
            allowed=True,
        ),
        Row("assume the release role", Request("sts:AssumeRole", role(RELEASE_ROLE), own)),
        Row("assume the role that reads previews' secrets", Request("sts:AssumeRole", role(PREVIEW_SECRETS_ROLE), own)),
        Row("change a role", Request("iam:PutRolePolicy", role(PREVIEW_ROLE), own)),
        Row("let itself into the cluster", Request("eks:CreateAccessEntry", arn("eks", "cluster/shopcat"), own)),
        Row(
            "read production's state",
            Request("s3:GetObject", f"{bucket('prod')}/.pulumi/stacks/shopcat/prod.json", own),
        ),
        Row(
            "decrypt what production's state key encrypts",
            Request("kms:Decrypt", arn("kms", "key/1"), {**own, "kms:ResourceAliases": ["alias/shopcat-state-prod"]}),
        ),
        Row(
            "read another pull request's state",
            Request("s3:GetObject", f"{bucket('previews')}/{other}/.pulumi/stacks/shopcat/pr-77.json", own),
        ),
        Row(
            "write its own state",
            Request("s3:PutObject", f"{bucket('previews')}/{role_id}:123/.pulumi/stacks/shopcat/pr-123.json", own),
            allowed=True,
        ),
        Row(
            "register targets in production's target group",
            Request("elasticloadbalancing:RegisterTargets", group("shopcat-green"), own),
        ),
        Row(
            "change production's target group",
            Request("elasticloadbalancing:ModifyTargetGroup", group("shopcat-green"), own),
        ),
        Row(
            "make production's target group its own by a tag",
            Request(
                "elasticloadbalancing:AddTags",
                group("shopcat-green"),
                {**own, "aws:RequestTag/shopcat:owner": f"{role_id}:123"},
            ),
        ),
        Row(
            "create a rule on production's listener",
            Request(
                "elasticloadbalancing:CreateRule",
                listeners.get("shopcat", "*"),
                {**own, "aws:RequestTag/shopcat:owner": f"{role_id}:123"},
            ),
        ),
        Row("change another pull request's rule", Request("elasticloadbalancing:ModifyRule", rule, others)),
        Row(
            "create its own rule on the previews' listener",
            Request(
                "elasticloadbalancing:CreateRule",
                listeners.get("shopcat-preview", "*"),
                {**own, "aws:RequestTag/shopcat:owner": f"{role_id}:123"},
            ),
            allowed=True,
        ),
        Row(
            "push into production's repository",
            Request("ecr:PutImage", arn("ecr", "repository/shopcat"), own),
        ),
        Row(
            "delete images, so that a tag may be pushed again",
            Request("ecr:BatchDeleteImage", arn("ecr", "repository/shopcat-preview"), own),
        ),
        Row("push its own image", Request("ecr:PutImage", arn("ecr", "repository/shopcat-preview"), own), allowed=True),
        Row(
            "the operator, in the session of a preview's store: production's secret",
            Request("secretsmanager:GetSecretValue", secret("shopcat/application"), operator),
            role=PREVIEW_SECRETS_ROLE,
        ),
        Row(
            "the operator, in the session of a preview's store: another pull request's secret",
            Request("secretsmanager:GetSecretValue", secret("shopcat-preview/pr-77/database"), operator),
            role=PREVIEW_SECRETS_ROLE,
        ),
        Row(
            "the operator, in the session of a preview's store: that preview's secret",
            Request("secretsmanager:GetSecretValue", secret("shopcat-preview/pr-123/database"), operator),
            allowed=True,
            role=PREVIEW_SECRETS_ROLE,
        ),
    ]


_REPOSITORY = {"repository": "octo/shop", "aud": AUDIENCE}
_PULL = {**_REPOSITORY, "sub": "repo:octo/shop:pull_request", "ref": "refs/pull/123/merge"}
_MAIN = {**_REPOSITORY, "sub": "repo:octo/shop:ref:refs/heads/main", "ref": "refs/heads/main"}
_DEPLOY = {**_MAIN, "sub": "repo:octo/shop:environment:production", "environment": "production"}

TAKES = [
    Take("a pull request's job takes the preview role, as its own number", PREVIEW_ROLE, _PULL, "123", allowed=True),
    Take("a pull request's job takes the preview role as another number", PREVIEW_ROLE, _PULL, "77"),
    Take("a pull request's job takes the release role", RELEASE_ROLE, _PULL, "123"),
    Take("a pull request's job takes the clean-up role", CLEANUP_ROLE, _PULL, "123"),
    Take("a job of the main branch outside the environment takes the release role", RELEASE_ROLE, _MAIN, "run"),
    Take(
        "a job of another branch inside the environment takes the release role",
        RELEASE_ROLE,
        {**_DEPLOY, "ref": "refs/heads/feature"},
        "run",
    ),
    Take(
        "a job of the main branch inside the environment takes the release role",
        RELEASE_ROLE,
        _DEPLOY,
        "run",
        allowed=True,
    ),
    Take("another repository takes the preview role", PREVIEW_ROLE, {**_PULL, "repository": "evil/shop"}, "123"),
]
