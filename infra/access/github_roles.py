"""Roles for GitHub's workflows, by OIDC: no long-lived key anywhere.

What each may do is in infra/access/iam_policies.py and infra/access/release_role.py.

* `shopcat-release`: jobs of the protected environment on the main branch; a push to `shopcat` and a release of it.
* `shopcat-preview`: a pull request's jobs; a push to `shopcat-preview` and `pulumi up -s pr-<n>` for its own number.
* `shopcat-preview-cleanup`: jobs on the main branch, which remove previews by their number (pipeline/removal.py).

None is made before `shopcat:github.repository` is set; an administrator's `pulumi up -s prod` makes and changes them, since
a release may not. A pull request's job names its session by its number (10 or more: AWS wants two characters) and keeps its
state in `s3://<previews' bucket>/<UserId that aws sts get-caller-identity prints>` (infra/names.py).

In the cluster they are who their access entries say: the release an administrator, previews the user of their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws

from infra.access import boundary, iam_policies, release_role
from infra.access.iam_policies import AwsScope
from infra.names import (
    CLEANUP_GROUP,
    CLEANUP_ROLE,
    CLEANUP_USER_PREFIX,
    CLUSTER_ADMIN_POLICY,
    PREVIEW_GROUP,
    PREVIEW_ROLE,
    PREVIEW_USER_PREFIX,
    RELEASE_ROLE,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.settings import GithubSettings

ENTRIES: Mapping[str, tuple[str, str]] = {
    PREVIEW_ROLE: (PREVIEW_GROUP, PREVIEW_USER_PREFIX),
    CLEANUP_ROLE: (CLEANUP_GROUP, CLEANUP_USER_PREFIX),
}
"""Role → group and user in Kubernetes; the session's name is the rest of the user's."""


class GithubRoles(pulumi.ComponentResource):
    """Roles, their policies and their identities in the cluster; nothing if no repository is set."""

    def __init__(
        self,
        name: str,
        settings: GithubSettings,
        *,
        scope: AwsScope,
        listener_arn: pulumi.Input[str],
        in_our_cluster: bool,
        is_monitored: bool,
        depends_on: list[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("shopcat:identity:Identity", name, None, opts)
        self.roles: dict[str, pulumi.Output[str]] = {}
        self.preview_role_id: pulumi.Input[str] = ""
        self._depends_on = depends_on
        if settings.repository:
            trusted = iam_policies.trust(scope.account, settings.repository, settings.environment)
            self._boundary = boundary.boundary_arn(scope.account)
            roles = {role: self._role(role, text) for role, text in trusted.items()}
            self.preview_role_id = roles[PREVIEW_ROLE].unique_id
            listener = pulumi.Output.from_input(listener_arn)
            documents: dict[str, pulumi.Input[str]] = {
                RELEASE_ROLE: release_role.release_policy(scope, updates_platform=settings.updates_platform),
                PREVIEW_ROLE: pulumi.Output.all(listener, roles[PREVIEW_ROLE].unique_id).apply(
                    lambda values: iam_policies.preview_policy(scope, *values)
                ),
                CLEANUP_ROLE: roles[PREVIEW_ROLE].unique_id.apply(
                    lambda role_id: iam_policies.cleanup_policy(scope, role_id, is_monitored=is_monitored)
                ),
            }
            for role, text in documents.items():
                aws.iam.RolePolicy(role, name=role, role=roles[role].name, policy=text, opts=self._child())
            if in_our_cluster:
                self._entries(scope.cluster, roles)
            self.roles = {role: resource.arn for role, resource in roles.items()}
        self.register_outputs({})

    def _child(self, depends_on: list[pulumi.Resource] | None = None) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=depends_on)

    def _role(self, name: str, trusted: str) -> aws.iam.Role:
        return aws.iam.Role(
            name,
            name=name,
            assume_role_policy=trusted,
            permissions_boundary=self._boundary,
            opts=self._child(),
        )

    def _entries(self, cluster: str, roles: Mapping[str, aws.iam.Role]) -> None:
        after = self._child(self._depends_on)
        for role, (group, user) in ENTRIES.items():
            aws.eks.AccessEntry(
                role,
                cluster_name=cluster,
                principal_arn=roles[role].arn,
                kubernetes_groups=[group],
                user_name=f"{user}{{{{SessionName}}}}",
                opts=after,
            )
        entry = aws.eks.AccessEntry(
            RELEASE_ROLE, cluster_name=cluster, principal_arn=roles[RELEASE_ROLE].arn, opts=after
        )
        aws.eks.AccessPolicyAssociation(
            RELEASE_ROLE,
            cluster_name=cluster,
            principal_arn=roles[RELEASE_ROLE].arn,
            policy_arn=CLUSTER_ADMIN_POLICY,
            access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
            opts=self._child([entry]),
        )
