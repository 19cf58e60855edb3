"""A ClusterRole of ours and its binding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi_kubernetes as kubernetes

from infra.foundation.shared_rules import RBAC_API_GROUP

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pulumi

    from infra.foundation.shared_rules import RbacRule


def cluster_role(name: str, rules: Sequence[RbacRule], opts: pulumi.ResourceOptions) -> kubernetes.rbac.v1.ClusterRole:
    """Declare a ClusterRole."""
    return kubernetes.rbac.v1.ClusterRole(
        name,
        metadata=kubernetes.meta.v1.ObjectMetaArgs(name=name),
        rules=[
            kubernetes.rbac.v1.PolicyRuleArgs(
                api_groups=rule["apiGroups"],
                resources=rule["resources"],
                verbs=rule["verbs"],
                resource_names=rule.get("resourceNames"),
            )
            for rule in rules
        ],
        opts=opts,
    )


def cluster_role_binding(
    role: str, subject: kubernetes.rbac.v1.SubjectArgs, opts: pulumi.ResourceOptions
) -> kubernetes.rbac.v1.ClusterRoleBinding:
    """Declare a ClusterRoleBinding under its role's name."""
    return kubernetes.rbac.v1.ClusterRoleBinding(
        role,
        metadata=kubernetes.meta.v1.ObjectMetaArgs(name=role),
        role_ref=kubernetes.rbac.v1.RoleRefArgs(api_group=RBAC_API_GROUP, kind="ClusterRole", name=role),
        subjects=[subject],
        opts=opts,
    )
