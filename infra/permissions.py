"""What GitHub's workflows may do in AWS, as policy documents: pure functions of names, nothing is declared here.

Which pull request a session is for is settled once, when the role is taken: the trust policy lets a job name its session
``<n>`` and nothing else, since it compares GitHub's claim ``ref`` with ``refs/pull/${sts:RoleSessionName}/merge``. From
then on `aws:userid` is ``<role id>:<n>``, in every request of the session. What a preview makes carries that as the tag
`shopcat:owner`; what carries another's can't be read, changed or deleted, and the folder of its state is named by it. Names
keep previews away from everything else, not from each other: no name in AWS may hold the colon of `aws:userid`, and no other
variable of the session knows the number.

Sources: STS compares GitHub's claims `ref`, `repository` and `environment` in trust policies and in none else
(docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html, "Available in session: No");
`aws:userid` of a web identity's session (…/reference_policies_variables.html); a session's name has two characters or more
(docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html), so pull requests 1 to 9 get no preview;
the subject of repositories made since the summer of 2026 holds numbers beside both names (github.blog/changelog,
immutable subject claims), so names are compared by the claim `repository` and the subject by its kind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from infra import backends, fence
from infra.contract import PARAMETER, PLACES_TABLE
from infra.record import APPLICATION, REPOSITORY

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"
RELEASE, PREVIEW, CLEANUP = "shopcat-release", "shopcat-preview", "shopcat-preview-cleanup"
SECRETS_ROLE = "shopcat-preview-secrets"
OWNER_TAG = "shopcat:owner"
BRANCH = "main"
_TAG = f"aws:ResourceTag/{OWNER_TAG}"
_NEW_TAG = f"aws:RequestTag/{OWNER_TAG}"
_SELF = "${aws:userid}"

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
class Place:
    """Where everything is."""

    account: str
    region: str
    cluster: str
    ledger_table: str

    def arn(self, service: str, resource: str) -> str:
        """ARN of a resource in this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    def role(self, name: str) -> str:
        """ARN of a role of this account."""
        return f"arn:aws:iam::{self.account}:role/{name}"


def _allow(actions: list[str], resources: list[str] | str, **conditions: Any) -> Statement:
    found: Statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return {**found, "Condition": conditions} if conditions else found


def _deny(actions: list[str], resources: list[str] | str) -> Statement:
    return {"Effect": "Deny", "Action": actions, "Resource": resources}


def document(statements: list[Statement]) -> str:
    """A policy."""
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
    """Who may take each role.

    * release: a job on the main branch, in the protected environment; both, so that neither alone is enough.
    * preview: a pull request's job, under the session name that is its number. Forks get no token from GitHub at all.
    * clean-up: what runs from the main branch: the schedule, and the event that closes a pull request by merging it (its
      `ref` is the branch it was merged into, docs.github.com, variables reference, GITHUB_REF).
    """
    main = f"refs/heads/{BRANCH}"
    return {
        RELEASE: _trust(account, repository, [f"environment:{environment}"], {"environment": environment, "ref": main}),
        PREVIEW: _trust(account, repository, ["pull_request"], {"ref": "refs/pull/${sts:RoleSessionName}/merge"}),
        CLEANUP: _trust(account, repository, [f"ref:{main}", "pull_request"], {"ref": main}),
    }


def secrets_trust(operator_arn: str) -> str:
    """The operator alone, and only for a preview's namespace; pod identity's own session tags travel along."""
    return document(
        [
            {
                "Effect": "Allow",
                "Principal": {"AWS": operator_arn},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {"StringLike": {f"aws:RequestTag/{fence.SESSION_TAG}": "pr-*"}},
            }
        ]
    )


def secrets_policy(place: Place) -> str:
    """The secrets of the namespace that the session is for, and no others."""
    secret = f"secret:{fence.SECRET_PATH}/${{aws:PrincipalTag/{fence.SESSION_TAG}}}/*"
    actions = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    return document([_allow(actions, place.arn("secretsmanager", secret))])


def _push(place: Place, repository: str) -> list[Statement]:
    """Push to one repository; the log-in token can't be narrowed to one."""
    return [
        _allow(["ecr:GetAuthorizationToken"], "*"),
        _allow(list(_PUSH), place.arn("ecr", f"repository/{repository}")),
    ]


def _state(place: Place, stack: str, folder: str) -> list[Statement]:
    """Objects of a folder in the stack's bucket, and the key that encrypts them."""
    bucket = f"arn:aws:s3:::{backends.bucket(stack, place.account, place.region)}"
    listed = {"StringLike": {"s3:prefix": [f"{folder}*"]}} if folder else {}
    alias = {"kms:ResourceAliases": backends.alias(stack)}
    return [
        _allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], f"{bucket}/{folder}*"),
        _allow(["s3:ListBucket"], bucket, **listed),
        _allow(
            ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:DescribeKey"],
            place.arn("kms", "key/*"),
            **{"ForAnyValue:StringEquals": alias},
        ),
    ]


def _found(place: Place) -> list[Statement]:
    """What every preview's program reads first."""
    return [
        _allow(["ssm:GetParameter"], place.arn("ssm", f"parameter{PARAMETER}")),
        _allow(
            ["dynamodb:Scan", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"],
            place.arn("dynamodb", f"table/{PLACES_TABLE}"),
        ),
        _allow(
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


def _groups(place: Place) -> tuple[str, str]:
    """Previews' target groups, and rules of the previews' load balancer."""
    return (
        place.arn("elasticloadbalancing", f"targetgroup/{APPLICATION}-pr-*/*"),
        place.arn("elasticloadbalancing", f"listener-rule/app/{APPLICATION}-preview/*/*/*"),
    )


_VALUE = ("GetSecretValue", "PutSecretValue", "UpdateSecret")


def _owned(place: Place, owner: str, *, only_delete: bool) -> list[Statement]:
    """What a preview has made: what carries its owner's tag, or among previews' names carries none.

    `IfExists`, since an object that is gone has no tag: without it IAM denies what a close that was cut off asks again, and
    the provider never hears that nothing is there. Nor are tags known to IAM in the first moments of an object, in which
    its provider changes it already. Every object that a preview makes is made with its tag, which nobody may take off, so
    what has none is gone or a person's own. A secret's value needs the tag: it is written once IAM knows whose it is.
    """
    group, rule = _groups(place)
    secret = place.arn("secretsmanager", f"secret:{fence.SECRET_PATH}/pr-*")
    balancing, secrets = ["DeleteRule", "DeleteTargetGroup"], ["DeleteSecret", "DescribeSecret", "GetResourcePolicy"]
    if not only_delete:
        balancing += ["ModifyRule", "ModifyTargetGroup", "ModifyTargetGroupAttributes"]
        secrets += ["ListSecretVersionIds"]
    mine = {"StringLikeIfExists": {_TAG: owner}}
    found = [
        _allow([f"elasticloadbalancing:{action}" for action in balancing], [group, rule], **mine),
        _allow([f"secretsmanager:{action}" for action in secrets], secret, **mine),
    ]
    if not only_delete:
        found.append(_allow([f"secretsmanager:{action}" for action in _VALUE], secret, StringLike={_TAG: owner}))
    return found


def preview(place: Place, listener_arn: str) -> str:
    """The preview role: what infra/preview.py makes, each thing owned by the pull request that makes it.

    Args:
        place: where everything is.
        listener_arn: of the previews' load balancer, on which alone rules are made.
    """
    group, rule = _groups(place)
    secret = place.arn("secretsmanager", f"secret:{fence.SECRET_PATH}/pr-*")
    owned = {"StringLike": {_NEW_TAG: _SELF}}
    # Tags are written on what is new, or on what is one's own: never on another's to make it one's own.
    tagging = {"StringLike": {_NEW_TAG: _SELF}, "StringLikeIfExists": {_TAG: _SELF}}
    return document(
        [
            *_push(place, f"{REPOSITORY}-preview"),
            *_found(place),
            *_state(place, backends.PREVIEWS, f"{_SELF}/"),
            _allow(["elasticloadbalancing:CreateTargetGroup"], group, **owned),
            _allow(["elasticloadbalancing:CreateRule"], [listener_arn, rule], **owned),
            _allow(["elasticloadbalancing:AddTags"], [group, rule], **tagging),
            _allow(["secretsmanager:GetRandomPassword"], "*"),
            _allow(["secretsmanager:CreateSecret"], secret, **owned),
            _allow(["secretsmanager:TagResource"], secret, **tagging),
            *_owned(place, _SELF, only_delete=False),
        ]
    )


def cleanup(place: Place, preview_role_id: str) -> str:
    """The clean-up role: finds and deletes any preview's things, images too; it makes none and reads no secret.

    A pull request's own session deletes no image: its tag could be pushed again with another one, which another's preview
    might take.
    """
    owner = f"{preview_role_id}:*"
    return document(
        [
            *_found(place),
            *_state(place, backends.PREVIEWS, f"{preview_role_id}:"),
            _allow(
                ["ecr:BatchDeleteImage", "ecr:BatchGetImage", "ecr:DescribeImages", "ecr:DescribeRepositories"],
                place.arn("ecr", f"repository/{REPOSITORY}-preview"),
            ),
            *_owned(place, owner, only_delete=True),
        ]
    )


_LEDGER = ["ConditionCheckItem", "DescribeTable", "GetItem", "PutItem", "Query", "Scan", "UpdateItem"]
_NETWORK = [
    "Address", "InternetGateway", "LaunchTemplate", "NatGateway", "Route", "SecurityGroup", "Subnet", "Tags", "Vpc",
]  # fmt: skip
_READ = [
    "acm:Describe*", "acm:List*", "cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics", "ec2:Describe*",
    "eks:DescribeAddonVersions", "elasticloadbalancing:Describe*", "iam:Get*", "iam:List*", "kms:Describe*",
    "kms:GetKey*", "kms:List*", "logs:DescribeLogGroups", "rds:Describe*", "rds:ListTagsForResource", "route53:Get*",
    "route53:List*", "ssm:DescribeParameters",
]  # fmt: skip
_ADMINISTRATORS = [
    "ecr:BatchDeleteImage", "ecr:DeleteRepository", "ecr:PutImageTagMutability", "eks:AssociateAccessPolicy",
    "eks:CreateAccessEntry", "eks:DeleteAccessEntry", "eks:DeleteCluster", "eks:DisassociateAccessPolicy",
    "eks:UpdateAccessEntry", "rds:DeleteDBInstance", "secretsmanager:DeleteSecret",
]  # fmt: skip
"""Who may do what, what a tag means and what holds data: never changed by a release."""
_PASSED = ["node", "shopcat-eksRole-role", "external-secrets", "aws-load-balancer-controller"]
"""Names of the platform's own roles, to which the engine adds seven digits."""


def release(place: Place) -> str:
    """The release role: `pulumi up -s prod` on a platform that an administrator has brought up once.

    Who may do what is changed by administrators alone: no IAM is written and no access entry, so a release can't raise
    itself or anybody else. A change of infra/ that needs it fails here by name.
    """
    balancers = [
        place.arn("elasticloadbalancing", f"{kind}/app/{APPLICATION}*/*")
        for kind in ("loadbalancer", "listener", "listener-rule")
    ]
    groups = place.arn("elasticloadbalancing", f"targetgroup/{APPLICATION}-*/*")
    parts = ("nodegroup", "addon", "access-entry", "podidentityassociation")
    cluster = [place.arn("eks", f"cluster/{place.cluster}")]
    cluster += [place.arn("eks", f"{part}/{place.cluster}/*") for part in parts]
    repositories = [place.arn("ecr", f"repository/{name}") for name in (REPOSITORY, f"{REPOSITORY}-preview")]
    databases = [place.arn("rds", f"{kind}:{APPLICATION}*") for kind in ("db", "pg", "subgrp", "snapshot")]
    here = {"aws:RequestedRegion": place.region}
    passed = {"iam:PassedToService": ["ec2.amazonaws.com", "eks.amazonaws.com", "pods.eks.amazonaws.com"]}
    return document(
        [
            *_push(place, REPOSITORY),
            *_state(place, backends.PRODUCTION, ""),
            _allow([f"dynamodb:{action}" for action in _LEDGER], place.arn("dynamodb", f"table/{place.ledger_table}")),
            _allow(["dynamodb:*"], place.arn("dynamodb", f"table/{PLACES_TABLE}")),
            _allow(["ecr:*"], repositories),
            _allow(["ssm:*"], place.arn("ssm", f"parameter{PARAMETER}")),
            _allow(["secretsmanager:*"], place.arn("secretsmanager", f"secret:{APPLICATION}/*")),
            _allow(["secretsmanager:GetRandomPassword"], "*"),
            _allow(["elasticloadbalancing:*"], [*balancers, groups]),
            _allow(["eks:*"], cluster),
            _allow(["rds:*"], databases),
            _allow(["logs:*"], place.arn("logs", f"log-group:/aws/eks/{place.cluster}/cluster*")),
            _allow(["acm:*"], place.arn("acm", "certificate/*")),
            _allow(["route53:ChangeResourceRecordSets"], "arn:aws:route53:::hostedzone/*"),
            _allow(list(_READ), "*"),
            _allow([*(f"ec2:*{thing}*" for thing in _NETWORK), "ec2:RunInstances"], "*", StringEquals=here),
            _allow(["iam:PassRole"], [place.role(f"{name}-*") for name in _PASSED], StringEquals=passed),
            _deny(list(_ADMINISTRATORS), "*"),
        ]
    )
