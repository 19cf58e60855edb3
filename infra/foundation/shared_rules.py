"""What NetworkPolicies and ClusterRoles of ours have in common."""

from __future__ import annotations

from typing import Any

READ_VERBS = ["get", "list", "watch"]


def rbac_rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> dict[str, Any]:
    """A rule of a ClusterRole; for these names alone, if any are given."""
    rule: dict[str, Any] = {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
    return {**rule, "resourceNames": names} if names else rule


def egress_to_dns() -> dict[str, Any]:
    """Egress to the cluster's DNS."""
    return {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }
