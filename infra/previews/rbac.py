"""Kubernetes rights of the two identities that previews are made and removed by. Production declares them.

* `shopcat-preview-opener`, for every pull request, in the whole cluster: make a namespace, delete one, and bind the one
  ClusterRole below in it. Which namespace is admission's business (infra/previews/admission_policies.py): names can't be a
  rule here.
* `shopcat-preview`, by a RoleBinding in ``pr-<n>``, for the user of pull request <n>: what infra/previews/preview.py declares
  there. What isolates the preview (quota, limits, network policies, the binding itself) can't be deleted, but with the
  namespace.
* `shopcat-preview-remover`, for the clean-up job: delete a namespace, which takes everything in it along.

Whoever may delete a kind may also list and watch it: the engine's plugin learns that an object is gone from an informer, and
without these rights waits for ever (github.com/pulumi/pulumi-kubernetes/issues/4580). So names and labels of all namespaces
can be read.

Nobody here reads a Secret, runs a command in a pod, makes a token or a ServiceAccount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi_kubernetes as kubernetes

from infra.foundation.cluster_roles import cluster_role, cluster_role_binding
from infra.foundation.shared_rules import RBAC_API_GROUP, READ_VERBS, RbacRule, rbac_rule
from infra.names import CLEANUP_GROUP, PREVIEW_CLUSTER_ROLE, PREVIEW_GROUP

if TYPE_CHECKING:
    import pulumi

OPENER = "shopcat-preview-opener"
REMOVER = "shopcat-preview-remover"
_OWN = ["create", *READ_VERBS, "patch", "update", "delete"]
_KEPT = ["create", *READ_VERBS, "patch", "update"]


def opener() -> list[RbacRule]:
    """Return the rules in the whole cluster, for every pull request."""
    return [
        # Both are made by an apply, so that an update that was killed half-way can go on: that is a create and a patch. For a
        # patch as for a create, admission asks for exactly the object that infra/previews/isolation.py makes, in its own
        # namespace.
        rbac_rule("", ["namespaces"], ["create", *READ_VERBS, "patch", "delete"]),
        rbac_rule(RBAC_API_GROUP, ["rolebindings"], ["create", "patch"]),
        rbac_rule(RBAC_API_GROUP, ["clusterroles"], ["bind"], [PREVIEW_CLUSTER_ROLE]),
    ]


def remover() -> list[RbacRule]:
    """Return the rules in the whole cluster, for the clean-up job."""
    return [rbac_rule("", ["namespaces"], [*READ_VERBS, "delete"])]


def inside() -> list[RbacRule]:
    """Return the rules in the preview's own namespace: what it declares, and what the engine reads while it waits."""
    return [
        rbac_rule("", ["services"], _OWN),
        rbac_rule("apps", ["deployments"], _OWN),
        rbac_rule("external-secrets.io", ["secretstores", "externalsecrets"], _OWN),
        rbac_rule("elbv2.k8s.aws", ["targetgroupbindings"], _OWN),
        rbac_rule("", ["resourcequotas", "limitranges"], _KEPT),
        rbac_rule("networking.k8s.io", ["networkpolicies"], _KEPT),
        rbac_rule(RBAC_API_GROUP, ["rolebindings"], ["get"]),
        rbac_rule("apps", ["replicasets"], READ_VERBS),
        rbac_rule("", ["pods", "events", "endpoints", "persistentvolumeclaims"], READ_VERBS),
    ]


def declare_rbac(opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Declare the ClusterRoles and who has them.

    Nobody is in the groups until access/github_roles.py makes the access entries.
    """
    roles = {OPENER: opener(), PREVIEW_CLUSTER_ROLE: inside(), REMOVER: remover()}
    members = {OPENER: PREVIEW_GROUP, REMOVER: CLEANUP_GROUP}
    group = kubernetes.rbac.v1.SubjectArgs
    return [
        *(cluster_role(name, rules, opts) for name, rules in roles.items()),
        *(
            cluster_role_binding(role, group(api_group=RBAC_API_GROUP, kind="Group", name=name), opts)
            for role, name in members.items()
        ),
    ]
