"""The most that any role of ShopCat may ever do: two permissions boundaries, one for our roles and one for EKS's own.

`make bootstrap` keeps both, as an administrator; no role here may change them, or any other part of IAM. So a mistake in a
policy of infra/, or a release that is made to write one, gives nobody more than this: no IAM, no way into the cluster for
others, no policy of a repository, secret, key or bucket, and nothing of the database. The boundary of our roles is the union of
the actions in their own policies, on any resource; what a preview may delete of its own, a role's policy alone narrows to that.

The cluster's and the nodes' roles carry AWS's managed policies, and a boundary that allows those
(docs.aws.amazon.com/aws-managed-policy/latest/reference: AmazonEKSClusterPolicy, AmazonEKSWorkerNodePolicy,
AmazonEC2ContainerRegistryPullOnly, AmazonEKS_CNI_Policy). A policy that grows needs `make bootstrap` before `pulumi up`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from infra.access import addon_policies, iam_policies, release_role
from infra.access.iam_policies import allow, document
from infra.names import PREVIEW_SECRETS_ROLE

if TYPE_CHECKING:
    from infra.access.iam_policies import AwsScope

BOUNDARY_NAME = "shopcat-boundary"
"""Policy that bounds every role whose policy is ours."""
EKS_BOUNDARY_NAME = "shopcat-eks-boundary"
"""Policy that bounds the cluster's and the nodes' roles."""
_MANAGED = [
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:UpdateAutoScalingGroup",
    "ec2:*",
    "ecr:BatchGetImage",
    "ecr:BatchImportUpstreamImage",
    "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
    "eks-auth:AssumeRoleForPodIdentity",
    "eks:DescribeCluster",
    "elasticloadbalancing:*",
    "kms:DescribeKey",
]
"""The nodes' network plug-in and the cluster's own controllers change interfaces, addresses, security groups and load
balancers; which of those calls they make is AWS's to decide."""


def boundary_arn(account: str, name: str = BOUNDARY_NAME) -> str:
    """Return the ARN of a boundary's managed policy."""
    return f"arn:aws:iam::{account}:policy/{name}"


def bounded_policies(scope: AwsScope) -> list[str]:
    """Return every policy of ours that a role here has."""
    return [
        release_role.release_policy(scope, updates_platform=True),
        iam_policies.preview_policy(scope, "*", "*"),
        iam_policies.cleanup_policy(scope, "*", is_monitored=True),
        iam_policies.secrets_policy(scope),
        addon_policies.controller_policy(scope),
        addon_policies.operator_policy(scope),
        addon_policies.operator_reads(["*"]),
    ]


def documents(scope: AwsScope) -> dict[str, str]:
    """Return the policy document of each boundary, by its name."""
    return {BOUNDARY_NAME: boundary(scope), EKS_BOUNDARY_NAME: eks_boundary()}


def boundary(scope: AwsScope) -> str:
    """Return the policy document that bounds our own roles."""
    actions = {
        action
        for text in bounded_policies(scope)
        for statement in json.loads(text)["Statement"]
        for action in statement["Action"]
    }
    actions -= {"sts:AssumeRole", "sts:TagSession"}
    return document(
        [
            allow(sorted(actions), "*"),
            allow(["sts:AssumeRole", "sts:TagSession"], scope.role(PREVIEW_SECRETS_ROLE)),
        ]
    )


def eks_boundary() -> str:
    """Return the policy document that bounds the cluster's and the nodes' roles."""
    linked = {"iam:AWSServiceName": "elasticloadbalancing.amazonaws.com"}
    return document([allow(_MANAGED, "*"), allow(["iam:CreateServiceLinkedRole"], "*", StringEquals=linked)])
