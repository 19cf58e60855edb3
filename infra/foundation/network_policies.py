"""Rules that several NetworkPolicies of ours share."""

from __future__ import annotations

from typing import Any


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
