"""Isolation of a preview: the preview declares it (preview.py), production demands it (admission_policies.py).

Who a pull request is comes from its number alone: its jobs can take the preview role under the session name ``<n>`` and no
other (infra/access/iam_policies.py), EKS makes that the Kubernetes user ``shopcat-preview:<n>``, and that user's namespace is
``pr-<n>``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra import capacity
from infra.foundation.shared_rules import RBAC_API_GROUP, egress_to_dns
from infra.names import (
    APPLICATION,
    APPLICATION_PORT,
    DATABASE_PORT,
    GATES_LABEL,
    POD_SECURITY,
    POD_SECURITY_LABEL,
    PREVIEW_CLUSTER_ROLE,
    PREVIEW_LABEL,
    PREVIEW_SESSION_TAG,
    PREVIEW_USER_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


PREVIEW_STORE = APPLICATION
PREVIEW_PRIORITY = 1_000
"""Priority of previews' pods: below production's 100000, above pods that name no class."""
NAME_LABEL = "app.kubernetes.io/name"
PREVIEW_ANNOTATIONS = ("pulumi.com/patchFieldManager", "pulumi.com/skipAwait", "pulumi.com/waitFor")
"""Annotations that Pulumi's plugin and infra/previews/preview.py write."""
ANNOTATION_CHARACTERS = 64

QUOTA_NAME = "preview"
"""Name of the ResourceQuota and of the LimitRange."""
DEFAULT_DENY = "default-deny"
DATABASE_WORKLOAD = "database"


def preview_selector(name: str) -> dict[str, str]:
    """Select the pods of a workload in the preview's namespace."""
    return {NAME_LABEL: name}


def namespace_labels(namespace: str) -> dict[str, str]:
    """Label a namespace as a preview's; its pods are restricted, and wait for the load balancer."""
    return {
        "kubernetes.io/metadata.name": namespace,
        PREVIEW_LABEL: "true",
        GATES_LABEL: "enabled",
        POD_SECURITY_LABEL: POD_SECURITY,
    }


REPLICA_SETS = 20
"""Most of both Deployments together: each keeps one former one, and all that never became ready since it was complete."""
OBJECT_COUNTS: Mapping[str, int] = {
    "deployments.apps": 2,
    "externalsecrets.external-secrets.io": 1,
    "limitranges": 1,
    "networkpolicies.networking.k8s.io": 3,
    "replicasets.apps": REPLICA_SETS,
    "rolebindings.rbac.authorization.k8s.io": 1,
    "secrets": 1,
    "secretstores.external-secrets.io": 1,
    "services": 2,
    "targetgroupbindings.elbv2.k8s.aws": 1,
}
"""Most objects of each kind: those that the previews' role may make (infra/previews/rbac.py), and what controllers make of
them. ResourceQuotas can't be counted by one; admission admits one name."""


def quota() -> dict[str, str]:
    """Return the room for application and database, a second application that replaces one, and a third that drains."""
    application, database = capacity.PREVIEW_APPLICATION, capacity.PREVIEW_DATABASE
    memory = f"{3 * application.memory_mebibytes + database.memory_mebibytes}Mi"
    disk = f"{3 * application.disk_mebibytes + database.disk_mebibytes}Mi"
    return {
        **{f"count/{kind}": str(most) for kind, most in OBJECT_COUNTS.items()},
        "pods": "4",
        "requests.cpu": f"{3 * application.cpu_millicores + database.cpu_millicores}m",
        "requests.memory": memory,
        "limits.memory": memory,
        "requests.ephemeral-storage": disk,
        "limits.ephemeral-storage": disk,
        "persistentvolumeclaims": "0",
        "services.loadbalancers": "0",
        "services.nodeports": "0",
    }


def resources(size: capacity.PodRequest) -> dict[str, dict[str, str]]:
    """Return the resources of a preview's container: no limit of CPU, as in production; memory and disk are what it asks for."""
    bounded = {"memory": f"{size.memory_mebibytes}Mi", "ephemeral-storage": f"{size.disk_mebibytes}Mi"}
    return {"requests": {"cpu": f"{size.cpu_millicores}m", **bounded}, "limits": bounded}


def container_limits() -> dict[str, dict[str, str]]:
    """Return what a container gets that asks for nothing."""
    database = resources(capacity.PREVIEW_DATABASE)
    return {"defaultRequest": database["requests"], "default": database["limits"]}


def default_deny() -> dict[str, Any]:
    """Return the spec that lets nothing in or out of any pod."""
    return {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def preview_network_policies(load_balancer_cidrs: Sequence[str]) -> dict[str, Any]:
    """Return the specs that let nothing in or out, but: load balancer to application, application to its database, names."""
    app, database = {"matchLabels": preview_selector(APPLICATION)}, {"matchLabels": preview_selector(DATABASE_WORKLOAD)}
    http, postgresql = {"protocol": "TCP", "port": APPLICATION_PORT}, {"protocol": "TCP", "port": DATABASE_PORT}
    return {
        DEFAULT_DENY: default_deny(),
        APPLICATION: {
            "podSelector": app,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": cidr}} for cidr in load_balancer_cidrs], "ports": [http]}],
            "egress": [{"to": [{"podSelector": database}], "ports": [postgresql]}, egress_to_dns()],
        },
        DATABASE_WORKLOAD: {
            "podSelector": database,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": app}], "ports": [postgresql]}],
        },
    }


def role_reference() -> Any:
    """Refer to the ClusterRole that the preview's RoleBinding names."""
    return {"apiGroup": RBAC_API_GROUP, "kind": "ClusterRole", "name": PREVIEW_CLUSTER_ROLE}


def role_subjects(namespace: str) -> Any:
    """Return the one user who may work in the namespace: its own pull request."""
    return [
        {"apiGroup": RBAC_API_GROUP, "kind": "User", "name": f"{PREVIEW_USER_PREFIX}{namespace.removeprefix('pr-')}"}
    ]


def store(namespace: str, region: str, role_arn: str) -> dict[str, Any]:
    """Return the spec of the SecretStore: the operator reads in a session that can read this namespace's secrets alone."""
    aws = {
        "service": "SecretsManager",
        "region": region,
        "role": role_arn,
        "sessionTags": [{"key": PREVIEW_SESSION_TAG, "value": namespace}],
    }
    return {"provider": {"aws": aws}}


def owner(role_id: str, number: int) -> str:
    """Return `aws:userid` of the pull request's session, which owns everything that carries it as a tag."""
    return f"{role_id}:{number}"
