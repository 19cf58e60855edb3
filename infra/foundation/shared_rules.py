"""The parts that NetworkPolicies and ClusterRoles of ours have in common."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

RBAC_API_GROUP = "rbac.authorization.k8s.io"
READ_VERBS = ["get", "list", "watch"]


class RbacRule(TypedDict):
    """A rule of a ClusterRole, as Kubernetes' own JSON."""

    apiGroups: list[str]
    resources: list[str]
    verbs: list[str]
    resourceNames: NotRequired[list[str]]


def rbac_rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> RbacRule:
    """Return a rule of a ClusterRole; for these names alone, if any are given."""
    rule: RbacRule = {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
    return {**rule, "resourceNames": names} if names else rule


def egress_to_dns() -> dict[str, Any]:
    """Return the egress to the cluster's DNS."""
    return {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }
