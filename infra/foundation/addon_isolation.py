"""Limits on the add-ons inside the cluster and on whom they reach: RBAC, admission and NetworkPolicies of ours.

* External Secrets has a ClusterRole of ours instead of its chart's. It makes no token, reads no ServiceAccount or ConfigMap, and
  has no right about cluster-wide stores, pushed secrets or generators, whose controllers are off.
* It writes Secrets in production's namespaces and in previews', of the type Opaque, and nowhere else. RBAC can't say which
  namespaces begin with `pr-`, so admission does, whoever made the ExternalSecret. The type matters as much as the place: a Secret
  of another type may be a token that Kubernetes fills in for a ServiceAccount.
* Reading can't be narrowed: its manager watches all Secrets of the cluster to learn of changed ones (external-secrets v0.20.4,
  pkg/controllers/externalsecret/externalsecret_controller.go, WatchesMetadata), and admission sees no reads.
* Both add-ons reach names, the API server and AWS, and are reached by nobody, but that the API server calls the controller's
  webhooks. Nothing here scrapes their metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infra.foundation.admission import AdmissionPolicy
from infra.foundation.cel import literal
from infra.foundation.shared_rules import READ_VERBS, RbacRule, egress_to_dns, rbac_rule
from infra.names import DATABASE_NAMESPACE, PREVIEW_NAMESPACE_PATTERN, SHOP_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPERATOR = "external-secrets"
"""Chart, namespace and ServiceAccount of External Secrets."""
OPERATOR_ROLE = "shopcat-external-secrets"
CONTROLLER = "aws-load-balancer-controller"
"""Chart and ServiceAccount of the controller, and its pods' name."""
CONTROLLER_NAMESPACE = "kube-system"
WEBHOOK_PORT = 9443
"""Port of the controller's webhooks (its chart's webhookBindPort)."""
POD_IDENTITY_AGENT = "169.254.170.23/32"
"""Address of EKS's agent for credentials, at port 80 of each node
(docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html)."""
HTTPS = 443


def operator_rules() -> list[RbacRule]:
    """Return the rules of the operator's ClusterRole: what its two controllers call (v0.20.4, pkg/controllers)."""
    external, generators = "external-secrets.io", "generators.external-secrets.io"
    return [
        rbac_rule(
            external, ["externalsecrets", "secretstores"], [*READ_VERBS, "update", "patch"]
        ),  # writes its finalizers
        rbac_rule(external, ["externalsecrets/status", "secretstores/status"], ["get", "update", "patch"]),
        rbac_rule("", ["secrets"], [*READ_VERBS, "create", "update", "patch", "delete"]),
        rbac_rule("", ["events"], ["create", "patch"]),
        # Its manager starts only once it has listed these, though nothing makes one.
        rbac_rule(generators, ["generatorstates"], READ_VERBS),
    ]


def operator_secrets() -> AdmissionPolicy:
    """Limit the Secrets that the operator writes: where ExternalSecrets of ours are, and plain data alone."""
    user = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"
    ours = [SHOP_NAMESPACE, DATABASE_NAMESPACE]
    return AdmissionPolicy(
        "shopcat-operator-secrets",
        [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE", "DELETE"],
                "resources": ["secrets"],
                "scope": "*",
            }
        ],
        {"external-secrets": f"request.userInfo.username == {literal(user)}"},
        [
            (
                f"request.namespace in {literal(ours)} || request.namespace.matches({literal(PREVIEW_NAMESPACE_PATTERN)})",
                "External Secrets writes Secrets in production's namespaces and previews' alone",
            ),
            (
                "request.operation == 'DELETE' || (has(object.type) && object.type == 'Opaque')",
                "External Secrets writes Secrets of type Opaque alone",
            ),
        ],
    )


def egress_ports(api_server: str, aws_endpoint: str | None) -> list[int]:
    """Return the TCP ports of the API server and of AWS: 443, and whatever their addresses say.

    Enforcers see a packet after a Service's address has become its endpoint's, so the API server's own port counts.
    """
    ports = {HTTPS}
    for url in filter(None, (api_server, aws_endpoint)):
        parts = urlsplit(url)
        ports.add(parts.port or (80 if parts.scheme == "http" else HTTPS))
    return sorted(ports)


def addon_policy_spec(pods: Mapping[str, str], ports: list[int], served: Sequence[int] = ()) -> dict[str, Any]:
    """Return a NetworkPolicy's spec: out to names, credentials and these TCP ports; in to `served` alone."""
    return {
        "podSelector": {"matchLabels": dict(pods)} if pods else {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": port} for port in served]}] if served else [],
        "egress": [
            egress_to_dns(),
            {"to": [{"ipBlock": {"cidr": POD_IDENTITY_AGENT}}], "ports": [{"protocol": "TCP", "port": 80}]},
            # Neither the API server nor AWS has fixed addresses.
            {"ports": [{"protocol": "TCP", "port": port} for port in ports]},
        ],
    }


def addon_network_policies(ports: list[int]) -> dict[tuple[str, str], dict[str, Any]]:
    """Map namespace and name of each NetworkPolicy of the add-ons to its spec.

    Args:
        ports: of the API server and of AWS (:func:`egress_ports`).
    """
    return {
        (OPERATOR, OPERATOR): addon_policy_spec({}, ports),
        (CONTROLLER_NAMESPACE, CONTROLLER): addon_policy_spec(
            {"app.kubernetes.io/name": CONTROLLER}, ports, [WEBHOOK_PORT]
        ),
    }
