"""The IAM role of an add-on's pods, handed out by EKS Pod Identity: role, what it allows, and which pods get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws

from infra.access import boundary
from infra.foundation.cluster import assume

if TYPE_CHECKING:
    from infra.access.iam_policies import AwsScope


@dataclass(frozen=True)
class PodRole:
    """One declared role. Pods that need it are made after `association`, or they never get credentials."""

    role: aws.iam.Role
    association: aws.eks.PodIdentityAssociation


def pod_role(
    name: str,
    policy: str,
    *,
    scope: AwsScope,
    cluster: str,
    namespace: str,
    parent: pulumi.Resource,
    depends_on: list[pulumi.Resource],
) -> PodRole:
    """Declare the role for the pods of a service account.

    Args:
        name: of the role, of its policy and of the service account.
        policy: all that the role allows.
        scope: the account, whose permissions boundary the role gets.
        cluster: name of the EKS cluster.
        namespace: of the service account.
        parent: component that it belongs to.
        depends_on: what an association needs, such as the add-on that hands out credentials.
    """
    child = pulumi.ResourceOptions(parent=parent)
    role = aws.iam.Role(
        name,
        assume_role_policy=assume("pods.eks.amazonaws.com", "sts:AssumeRole", "sts:TagSession"),
        permissions_boundary=boundary.boundary_arn(scope.account),
        opts=child,
    )
    allowed = aws.iam.RolePolicy(name, role=role.name, policy=policy, opts=child)
    association = aws.eks.PodIdentityAssociation(
        name,
        cluster_name=cluster,
        namespace=namespace,
        service_account=name,
        role_arn=role.arn,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[*depends_on, allowed]),
    )
    return PodRole(role, association)
