"""The most that any role of ShopCat may ever do: the permissions boundary that every role here carries.

`make bootstrap` keeps it, as an administrator; no role here may change it, or any other part of IAM. So a mistake in a policy
of infra/, or a release that is made to write one, gives nobody more than this: no IAM, no way into the cluster for others, no
policy of a repository, secret, key or bucket, and nothing of the database. It does not hold network and load balancers back,
which the cluster's and the nodes' own roles change, nor the deletion of what previews may delete of their own: there the
roles' policies are the bound.

It is the union of the actions in the roles' own policies, on any resource, and of what AWS's managed policies of the cluster's
and the nodes' roles allow (docs.aws.amazon.com/aws-managed-policy/latest/reference: AmazonEKSClusterPolicy,
AmazonEKSWorkerNodePolicy, AmazonEC2ContainerRegistryPullOnly, AmazonEKS_CNI_Policy). A policy that grows needs
`make bootstrap` before `pulumi up`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from infra import addon_policies, permissions, release_role
from infra.permissions import allow, document

if TYPE_CHECKING:
    from infra.permissions import Place

NAME = "shopcat-boundary"
_MANAGED = [
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:UpdateAutoScalingGroup",
    "ec2:*",
    "ecr:BatchImportUpstreamImage",
    "eks-auth:AssumeRoleForPodIdentity",
    "eks:DescribeCluster",
    "elasticloadbalancing:*",
    "kms:DescribeKey",
]
"""The nodes' network plug-in and the cluster's own controllers change interfaces, addresses, security groups and load
balancers; which of those calls they make is AWS's to decide."""


def arn(account: str) -> str:
    """ARN of the managed policy."""
    return f"arn:aws:iam::{account}:policy/{NAME}"


def policies(place: Place) -> list[str]:
    """Every policy of ours that a role here has."""
    return [
        release_role.policy(place, updates_platform=True),
        permissions.preview(place, "*", "*"),
        permissions.cleanup(place, "*"),
        permissions.secrets_policy(place),
        addon_policies.controller(place),
        addon_policies.operator(place),
        addon_policies.operator_reads(["*"]),
    ]


def boundary(place: Place) -> str:
    """The policy's document."""
    own = {
        action
        for text in policies(place)
        for statement in json.loads(text)["Statement"]
        for action in statement["Action"]
        if action.partition(":")[0] not in ("ec2", "elasticloadbalancing", "sts")
    }
    linked = {"iam:AWSServiceName": "elasticloadbalancing.amazonaws.com"}
    return document(
        [
            allow(sorted({*own, *_MANAGED}), "*"),
            allow(["sts:AssumeRole", "sts:TagSession"], place.role(permissions.SECRETS_ROLE)),
            allow(["iam:CreateServiceLinkedRole"], "*", StringEquals=linked),
        ]
    )
