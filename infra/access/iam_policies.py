"""Rights of previews and their clean-up in AWS, and who takes which role: pure functions of names, nothing is declared.

What the release role may do is in infra/access/release_role.py, what add-ons may do in infra/access/addon_policies.py, and the
most that any of these roles may ever do in infra/access/boundary.py.

Which pull request a session is for is settled once, when the role is taken: the trust policy lets a job name its session
``<n>`` and nothing else, since it compares GitHub's claim ``ref`` with ``refs/pull/${sts:RoleSessionName}/merge``. From
then on `aws:userid` is ``<role id>:<n>``, in every request of the session. What a preview makes carries that as the tag
`shopcat:owner`; what carries another's can't be read, changed or deleted, and the folder of its state is named by it.

A name is taken for one's own number alone. No name in AWS may hold the colon of `aws:userid`, and no other variable of the
session knows the number; so what is made carries it as a second tag, `shopcat-pull-request`, which has to be the end of
`aws:userid` and is the number in the name (`secret:shopcat-preview/pr-<n>/…`, `targetgroup/shopcat-pr-<n>/…`).

Sources: STS compares GitHub's claims `ref`, `repository` and `environment` in trust policies and in none else
(docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html, "Available in session: No");
`aws:userid` of a web identity's session (…/reference_policies_variables.html); a session's name has two characters or more
(docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html), so pull requests 1 to 9 get no preview;
the subject of repositories made since the summer of 2026 holds numbers beside both names (github.blog/changelog,
immutable subject claims), so names are compared by the claim `repository` and the subject by its kind; which conditions and
resources an action takes: docs.aws.amazon.com/service-authorization/latest/reference (tests/unit/test_iam_lint.py asks it).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from infra.names import (
    APPLICATION,
    CLEANUP_ROLE,
    CLUSTER_INFO_PARAMETER,
    MAIN_BRANCH,
    METRICS_NAMESPACE,
    PREVIEW_REPOSITORY,
    PREVIEW_ROLE,
    PREVIEW_SECRET_PATH,
    PREVIEW_SESSION_TAG,
    PREVIEW_SLOTS_TABLE,
    PREVIEWS_BACKEND,
    RELEASE_REPOSITORY,
    RELEASE_ROLE,
    state_bucket,
    state_key_alias,
)

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"
OWNER_TAG = "shopcat:owner"
NUMBER_TAG = "shopcat-pull-request"
"""Holds the pull request's number. Without a colon, since it is named inside a policy variable."""
_OWNER_CONDITION = f"aws:ResourceTag/{OWNER_TAG}"
_NEW_OWNER_CONDITION = f"aws:RequestTag/{OWNER_TAG}"
_SELF = "${aws:userid}"
_NEW_NUMBER = f"${{aws:RequestTag/{NUMBER_TAG}}}"

Statement = dict[str, Any]

_PUSH = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:DescribeImages",
    "ecr:DescribeRepositories",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:ListImages",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)


@dataclass(frozen=True)
class AwsScope:
    """Account, region, cluster, ledger and repository of releases that ARNs are made of."""

    account: str
    region: str
    cluster: str
    ledger_table: str
    repository: str = RELEASE_REPOSITORY

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource in this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    def role(self, name: str) -> str:
        """Return the ARN of a role of this account."""
        return f"arn:aws:iam::{self.account}:role/{name}"


def allow(actions: list[str], resources: list[str] | str, **conditions: Any) -> Statement:
    """Return a statement that allows actions on resources, under conditions."""
    statement: Statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return {**statement, "Condition": conditions} if conditions else statement


def document(statements: list[Statement]) -> str:
    """Return a policy document as JSON."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _trust(account: str, repository: str, kinds: list[str], claims: dict[str, str]) -> str:
    owner, _, name = repository.partition("/")
    return document(
        [
            {
                "Effect": "Allow",
                "Principal": {"Federated": f"arn:aws:iam::{account}:oidc-provider/{ISSUER}"},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": {
                        f"{ISSUER}:aud": AUDIENCE,
                        f"{ISSUER}:repository": repository,
                        **{f"{ISSUER}:{claim}": value for claim, value in claims.items()},
                    },
                    "StringLike": {f"{ISSUER}:sub": [f"repo:{owner}*/{name}*:{kind}" for kind in kinds]},
                },
            }
        ]
    )


def trust(account: str, repository: str, environment: str) -> dict[str, str]:
    """Return the trust policy of each role, by the role's name.

    * release: a job on the main branch, in the protected environment; both, so that neither alone is enough.
    * preview: a pull request's job, under the session name that is its number. Forks get no token from GitHub at all.
    * clean-up: what runs from the main branch: the schedule, and the event that closes a pull request by merging it (its
      `ref` is the branch it was merged into, docs.github.com, variables reference, GITHUB_REF).
    """
    main = f"refs/heads/{MAIN_BRANCH}"
    return {
        RELEASE_ROLE: _trust(
            account, repository, [f"environment:{environment}"], {"environment": environment, "ref": main}
        ),
        PREVIEW_ROLE: _trust(account, repository, ["pull_request"], {"ref": "refs/pull/${sts:RoleSessionName}/merge"}),
        CLEANUP_ROLE: _trust(account, repository, [f"ref:{main}", "pull_request"], {"ref": main}),
    }


def secrets_trust(operator_arn: str) -> str:
    """Trust the operator alone, and only for a preview's namespace; pod identity's own session tags travel along."""
    return document(
        [
            {
                "Effect": "Allow",
                "Principal": {"AWS": operator_arn},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {"StringLike": {f"aws:RequestTag/{PREVIEW_SESSION_TAG}": "pr-*"}},
            }
        ]
    )


def secrets_policy(scope: AwsScope) -> str:
    """Allow the secrets of the namespace that the session is for, and no others."""
    secret = f"secret:{PREVIEW_SECRET_PATH}/${{aws:PrincipalTag/{PREVIEW_SESSION_TAG}}}/*"
    return document([allow(["secretsmanager:GetSecretValue"], scope.arn("secretsmanager", secret))])


def push_statements(scope: AwsScope, repository: str) -> list[Statement]:
    """Allow pushing to one repository; the log-in token can't be narrowed to one."""
    return [
        allow(["ecr:GetAuthorizationToken"], "*"),
        allow(list(_PUSH), scope.arn("ecr", f"repository/{repository}")),
    ]


def state_statements(scope: AwsScope, stack: str, folder: str) -> list[Statement]:
    """Allow the objects of a folder in the stack's bucket, and the key that encrypts them."""
    bucket = f"arn:aws:s3:::{state_bucket(stack, scope.account, scope.region)}"
    listed = {"StringLike": {"s3:prefix": [f"{folder}*"]}} if folder else {}
    alias = {"kms:ResourceAliases": state_key_alias(stack)}
    return [
        allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], f"{bucket}/{folder}*"),
        allow(["s3:ListBucket"], bucket, **listed),
        allow(
            ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:DescribeKey"],
            scope.arn("kms", "key/*"),
            **{"ForAnyValue:StringEquals": alias},
        ),
    ]


def _lookups(scope: AwsScope) -> list[Statement]:
    """Allow what every preview's program reads first."""
    return [
        allow(["ssm:GetParameter"], scope.arn("ssm", f"parameter{CLUSTER_INFO_PARAMETER}")),
        allow(
            ["dynamodb:Scan", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"],
            scope.arn("dynamodb", f"table/{PREVIEW_SLOTS_TABLE}"),
        ),
        allow(
            [
                "elasticloadbalancing:DescribeTargetGroups",
                "elasticloadbalancing:DescribeTargetGroupAttributes",
                "elasticloadbalancing:DescribeTags",
                "elasticloadbalancing:DescribeRules",
                "elasticloadbalancing:DescribeListeners",
                "elasticloadbalancing:DescribeLoadBalancers",
            ],
            "*",
        ),
    ]


def _groups(scope: AwsScope) -> tuple[str, str]:
    """Return the ARNs of previews' target groups, and of the rules of the previews' load balancer."""
    return (
        scope.arn("elasticloadbalancing", f"targetgroup/{APPLICATION}-pr-*/*"),
        scope.arn("elasticloadbalancing", f"listener-rule/app/{APPLICATION}-preview/*/*/*"),
    )


_VALUE = ("GetSecretValue", "PutSecretValue", "UpdateSecret")


def _owned(scope: AwsScope, owner: str) -> list[Statement]:
    """Allow changing what a preview has made: it carries the owner's tag or, among previews' names, none.

    `IfExists`, since an object that is gone has no tag: without it IAM denies what a close that was cut off asks again, and
    the provider never hears that nothing is there. Nor are tags known to IAM in the first moments of an object, in which
    its provider changes it already. Every object that a preview makes is made with its tag, which nobody may take off, so
    what has none is gone or a person's own. A secret's value needs the tag: it is written once IAM knows whose it is.
    """
    group, rule = _groups(scope)
    secret = scope.arn("secretsmanager", f"secret:{PREVIEW_SECRET_PATH}/pr-*")
    changes = ["ModifyRule", "ModifyTargetGroup", "ModifyTargetGroupAttributes"]
    reads = ["DescribeSecret", "GetResourcePolicy", "ListSecretVersionIds"]
    owned = {"StringLikeIfExists": {_OWNER_CONDITION: owner}}
    return [
        *_deletes(scope, owner),
        allow([f"elasticloadbalancing:{action}" for action in changes], [group, rule], **owned),
        allow([f"secretsmanager:{action}" for action in reads], secret, **owned),
        allow([f"secretsmanager:{action}" for action in _VALUE], secret, StringLike={_OWNER_CONDITION: owner}),
    ]


def _deletes(scope: AwsScope, owner: str) -> list[Statement]:
    """Allow deleting what carries the owner's tag or, among previews' names, none (see `_owned`)."""
    group, rule = _groups(scope)
    owned = {"StringLikeIfExists": {_OWNER_CONDITION: owner}}
    return [
        allow(["elasticloadbalancing:DeleteRule", "elasticloadbalancing:DeleteTargetGroup"], [group, rule], **owned),
        allow(
            ["secretsmanager:DeleteSecret"], scope.arn("secretsmanager", f"secret:{PREVIEW_SECRET_PATH}/pr-*"), **owned
        ),
    ]


def preview_policy(scope: AwsScope, listener_arn: str, role_id: str) -> str:
    """Return the preview role's policy: what infra/previews/preview.py makes, each thing owned by the pull request that makes it.

    Args:
        scope: where everything is.
        listener_arn: of the previews' load balancer, on which alone rules are made.
        role_id: unique id of this role, with which `aws:userid` of its sessions begins.
    """
    group, rule = _groups(scope)
    secret = scope.arn("secretsmanager", f"secret:{PREVIEW_SECRET_PATH}/pr-*")
    owned = {"StringLike": {_NEW_OWNER_CONDITION: _SELF}}
    named = {**owned, "StringEquals": {"aws:userid": f"{role_id}:{_NEW_NUMBER}"}}
    own_group = scope.arn("elasticloadbalancing", f"targetgroup/{APPLICATION}-pr-{_NEW_NUMBER}/*")
    own_secret = scope.arn("secretsmanager", f"secret:{PREVIEW_SECRET_PATH}/pr-{_NEW_NUMBER}/*")
    # Tags are written on what is new, or on what is one's own: never on another's to make it one's own.
    tagging = {"StringLike": {_NEW_OWNER_CONDITION: _SELF}, "StringLikeIfExists": {_OWNER_CONDITION: _SELF}}
    return document(
        [
            *push_statements(scope, PREVIEW_REPOSITORY),
            *_lookups(scope),
            *state_statements(scope, PREVIEWS_BACKEND, f"{_SELF}/"),
            allow(["elasticloadbalancing:CreateTargetGroup"], own_group, **named),
            allow(["elasticloadbalancing:CreateRule"], listener_arn, **owned),
            allow(["elasticloadbalancing:AddTags"], [group, rule], **tagging),
            allow(["secretsmanager:GetRandomPassword"], "*"),
            allow(["secretsmanager:CreateSecret"], own_secret, **named),
            allow(["secretsmanager:TagResource"], secret, **tagging),
            *_owned(scope, _SELF),
        ]
    )


def cleanup_policy(scope: AwsScope, preview_role_id: str, *, is_monitored: bool) -> str:
    """Return the clean-up role's policy: find and delete any preview's things, images too; read no secret, no state.

    With `shopcat:monitoring` it may also write this program's own metrics, for which AWS knows no resource.

    A pull request's own session deletes no image: its tag could be pushed again with another one, which another's preview
    might take.
    """
    owner = f"{preview_role_id}:"
    bucket = f"arn:aws:s3:::{state_bucket(PREVIEWS_BACKEND, scope.account, scope.region)}"
    ours = {"cloudwatch:namespace": METRICS_NAMESPACE}
    metrics = [allow(["cloudwatch:PutMetricData"], "*", StringEquals=ours)] if is_monitored else []
    return document(
        [
            allow(["ssm:GetParameter"], scope.arn("ssm", f"parameter{CLUSTER_INFO_PARAMETER}")),
            allow(["dynamodb:Scan", "dynamodb:DeleteItem"], scope.arn("dynamodb", f"table/{PREVIEW_SLOTS_TABLE}")),
            allow(["elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeRules"], "*"),
            allow(["s3:ListBucket"], bucket, StringLike={"s3:prefix": [f"{owner}*"]}),
            allow(["s3:DeleteObject"], f"{bucket}/{owner}*"),
            allow(["ecr:BatchDeleteImage"], scope.arn("ecr", f"repository/{PREVIEW_REPOSITORY}")),
            *_deletes(scope, f"{owner}*"),
            *metrics,
        ]
    )
