"""Kubernetes rights of the two identities that previews are made and removed by. Production declares them.

* `shopcat-preview-opener`, for every pull request, in the whole cluster: make a namespace, delete one, and bind the one
  ClusterRole below in it. Which namespace is admission's business (infra/previews/admission_policies.py): names can't be a
  rule here.
* `shopcat-preview`, by a RoleBinding in ``pr-<n>``, for the user of pull request <n>: what infra/previews/preview.py declares
  there. What fences the preview (quota, limits, network policies, the binding itself) can't be deleted, but with the
  namespace.
* `shopcat-preview-remover`, for the clean-up job: delete a namespace, which takes everything in it along.

Whoever may delete a kind may also list and watch it: the engine's plugin learns that an object is gone from an informer, and
without these rights waits for ever (github.com/pulumi/pulumi-kubernetes/issues/4580). So names and labels of all namespaces
can be read.

Nobody here reads a Secret, runs a command in a pod, makes a token or a ServiceAccount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi_kubernetes as kubernetes

from infra.foundation.shared_rules import READ_VERBS, rbac_rule
from infra.names import CLEANUP_GROUP, PREVIEW_CLUSTER_ROLE, PREVIEW_GROUP

if TYPE_CHECKING:
    import pulumi

OPENER = "shopcat-preview-opener"
REMOVER = "shopcat-preview-remover"
_OWN = ["create", *READ_VERBS, "patch", "update", "delete"]
_FENCE = ["create", *READ_VERBS, "patch", "update"]


def opener() -> list[dict[str, Any]]:
    """In the whole cluster, for every pull request."""
    group = "rbac.authorization.k8s.io"
    return [
        # Both are made by an apply, so that an update that was killed half-way can go on: that is a create and a patch. For a
        # patch as for a create, admission asks for exactly the object that infra/previews/isolation.py makes, in its own
        # namespace.
        rbac_rule("", ["namespaces"], ["create", *READ_VERBS, "patch", "delete"]),
        rbac_rule(group, ["rolebindings"], ["create", "patch"]),
        rbac_rule(group, ["clusterroles"], ["bind"], [PREVIEW_CLUSTER_ROLE]),
    ]


def remover() -> list[dict[str, Any]]:
    """In the whole cluster, for the clean-up job."""
    return [rbac_rule("", ["namespaces"], [*READ_VERBS, "delete"])]


def inside() -> list[dict[str, Any]]:
    """In the preview's own namespace: what it declares, and what the engine reads while it waits for that."""
    return [
        rbac_rule("", ["services"], _OWN),
        rbac_rule("apps", ["deployments"], _OWN),
        rbac_rule("external-secrets.io", ["secretstores", "externalsecrets"], _OWN),
        rbac_rule("elbv2.k8s.aws", ["targetgroupbindings"], _OWN),
        rbac_rule("", ["resourcequotas", "limitranges"], _FENCE),
        rbac_rule("networking.k8s.io", ["networkpolicies"], _FENCE),
        rbac_rule("rbac.authorization.k8s.io", ["rolebindings"], ["get"]),
        rbac_rule("apps", ["replicasets"], READ_VERBS),
        rbac_rule("", ["pods", "events", "endpoints", "persistentvolumeclaims"], READ_VERBS),
    ]


def _bound(role: str, group: str, opts: pulumi.ResourceOptions) -> kubernetes.rbac.v1.ClusterRoleBinding:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}
    return kubernetes.rbac.v1.ClusterRoleBinding(
        role, metadata={"name": role}, role_ref=reference, subjects=[subject], opts=opts
    )


def declare_rbac(opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """The ClusterRoles and who has them; nobody is in the groups until access/github_roles.py makes the access entries."""
    rules = {OPENER: opener(), PREVIEW_CLUSTER_ROLE: inside(), REMOVER: remover()}
    roles: list[pulumi.Resource] = [
        kubernetes.rbac.v1.ClusterRole(name, metadata={"name": name}, rules=given, opts=opts)
        for name, given in rules.items()
    ]
    return [*roles, _bound(OPENER, PREVIEW_GROUP, opts), _bound(REMOVER, CLEANUP_GROUP, opts)]
