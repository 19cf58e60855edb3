"""The objects that EKS's managed add-ons put into kube-system, with the requests they have on a real node.

CoreDNS is the real one. The VPC CNI, kube-proxy and the pod identity agent are placeholders: pods that only wait,
marked ``shopcat.twin/placeholder: "true"``, on the host's network like the originals, so that slots and CPU are as
tight as on EKS (what they do is done by twin/host/network.py, the node's own kube-proxy and twin/aws). The AWS stand-in
applies an add-on when the program creates it, and deletes it with it: before that kube-system is empty.

Requests: `kubectl describe node` of real EKS nodes; shapes: the add-ons' own manifests (aws/amazon-vpc-cni-k8s,
coredns/deployment, aws/eks-pod-identity-agent).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twin.build import image_layers
from twin.config import Twin, region
from twin.errors import TwinError
from twin.kubernetes import control_plane

_VERSION = "shopcat.twin/addon-version"
PLACEHOLDER = "shopcat.twin/placeholder"
MANAGED_BY = "shopcat.twin/eks-add-on"
_NAMESPACE = "kube-system"
_FIELD_MANAGER = "eks"
_REGISTRY_ACCOUNT = "602401143452"
"""Owner of EKS's own images in most regions."""

_COLLECTIONS = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}

Manifest = dict[str, Any]

_EVERYWHERE = [{"operator": "Exists"}]
_NOT_ON_FARGATE = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [
                        {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                        {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
                    ]
                }
            ]
        }
    }
}

COREFILE = """.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}
"""
"""EKS's own, but for the prometheus line."""


def _meta(name: str, addon: str, **extra: Any) -> Manifest:
    metadata = {"name": name, "namespace": _NAMESPACE, **extra}
    metadata["labels"] = {MANAGED_BY: addon, **metadata.get("labels", {})}
    return metadata


def _placeholder(addon: str, name: str, containers: Mapping[str, Mapping[str, str]]) -> list[Manifest]:
    """A DaemonSet of waiting containers (container → its requests) under the original's name."""
    selector = {"k8s-app": name}
    annotations = {PLACEHOLDER: "true"}
    pod_spec = {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "tolerations": _EVERYWHERE,
        "affinity": _NOT_ON_FARGATE,
        "terminationGracePeriodSeconds": 10,
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": container,
                "image": image_layers.PAUSE_IMAGE,
                "resources": {"requests": dict(requests)} if requests else {},
            }
            for container, requests in containers.items()
        ],
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": _meta(name, addon, annotations=annotations, labels=selector),
            "spec": {
                "selector": {"matchLabels": selector},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
                "template": {"metadata": {"labels": selector, "annotations": annotations}, "spec": pod_spec},
            },
        }
    ]


def _coredns(twin: Twin, configuration: Mapping[str, Any]) -> list[Manifest]:
    addon = "coredns"
    selector = {"eks.amazonaws.com/component": "coredns", "k8s-app": "kube-dns"}
    labels = {**selector, "kubernetes.io/name": "CoreDNS"}
    resources = configuration.get(
        "resources", {"requests": {"cpu": "100m", "memory": "70Mi"}, "limits": {"memory": "170Mi"}}
    )
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]

    def probe(path: str, port: int) -> Manifest:
        return {"httpGet": {"path": path, "port": port, "scheme": "HTTP"}}

    container = {
        "name": "coredns",
        "image": f"{_REGISTRY_ACCOUNT}.dkr.ecr.{region()}.amazonaws.com/{image_layers.COREDNS_IMAGE}",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": resources,
        "ports": [
            {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
        ],
        "livenessProbe": {
            **probe("/health", 8080),
            "initialDelaySeconds": 60,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": 5,
        },
        # EKS asks every 10 s; the first answer mostly comes a moment too late, and nobody wants to wait for the second.
        "readinessProbe": {**probe("/ready", 8181), "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    apart = {
        "podAffinityTerm": {
            "labelSelector": {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["kube-dns"]}]},
            "topologyKey": "kubernetes.io/hostname",
        },
        "weight": 100,
    }
    pod_spec = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "tolerations": [
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
        ],
        "affinity": {
            **_NOT_ON_FARGATE,
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]},
        },
        "topologySpreadConstraints": [
            {
                "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
        "containers": [container],
        "volumes": [
            {
                "name": "config-volume",
                "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]},
            }
        ],
    }
    spread = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": "25%"}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta("coredns", addon, labels=labels)},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns", "labels": {MANAGED_BY: addon}},
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns", "labels": {MANAGED_BY: addon}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": _NAMESPACE}],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _meta("coredns", addon, labels=selector),
            "data": {"Corefile": configuration.get("corefile", COREFILE)},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _meta("kube-dns", addon, labels={**labels, "kubernetes.io/cluster-service": "true"}),
            "spec": {
                "clusterIP": twin.dns_service_ip,
                "selector": {"k8s-app": "kube-dns"},
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": _meta("coredns", addon, labels=labels),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _meta("coredns", addon, labels=labels),
            "spec": {
                "replicas": configuration.get("replicaCount", 2),
                "progressDeadlineSeconds": 600,
                "strategy": spread,
                "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": selector}, "spec": pod_spec},
            },
        },
    ]


def manifests(twin: Twin, addon_name: str, configuration: Mapping[str, Any] | None = None) -> list[Manifest]:
    """Everything an add-on consists of, in the order in which it is applied.

    ``configuration`` is EKS's ``configurationValues``, parsed: CoreDNS honours replicaCount, resources and corefile;
    placeholders have nothing to configure.

    Raises:
        TwinError: no stand-in for that add-on, or for that setting of CoreDNS.
    """
    values = configuration or {}
    if addon_name == "coredns":
        unknown = sorted(set(values) - {"replicaCount", "resources", "corefile"})
        if unknown:
            raise TwinError(f"twin: {', '.join(unknown)} of the add-on coredns is not implemented by the stand-in")
        return _coredns(twin, values)
    if addon_name == "vpc-cni":
        # Two containers of 25m: the plug-in's daemon and the network policy agent.
        return _placeholder(addon_name, "aws-node", {"aws-node": {"cpu": "25m"}, "aws-eks-nodeagent": {"cpu": "25m"}})
    if addon_name == "kube-proxy":
        return _placeholder(addon_name, "kube-proxy", {"kube-proxy": {"cpu": "100m"}})
    if addon_name == "eks-pod-identity-agent":
        return _placeholder(addon_name, "eks-pod-identity-agent", {"eks-pod-identity-agent": {}})
    raise TwinError(f"twin: the EKS add-on {addon_name!r} is not implemented by the stand-in")


def _path(manifest: Manifest) -> str:
    return f"{_COLLECTIONS[manifest['kind']].format(namespace=_NAMESPACE)}/{manifest['metadata']['name']}"


def apply(twin: Twin, addon_name: str, configuration: Mapping[str, Any] | None = None, *, version: str = "") -> None:
    """Create or update an add-on's objects; returns before its pods run.

    The stand-in's pods are the same in every version; another ``version`` rolls them as the real ones would be.

    Raises:
        TwinError: see :func:`manifests`; or the API server refused an object.
    """
    for manifest in manifests(twin, addon_name, configuration):
        if version and manifest["kind"] in ("Deployment", "DaemonSet"):
            manifest["spec"]["template"]["metadata"].setdefault("annotations", {})[_VERSION] = version
        control_plane.apply(twin, _path(manifest), manifest, manager=_FIELD_MANAGER)


def delete(twin: Twin, addon_name: str) -> None:
    """Delete an add-on's objects, and their pods in the background; what is gone already doesn't matter.

    Raises:
        TwinError: see :func:`manifests`; or the API server refused.
    """
    for manifest in reversed(manifests(twin, addon_name)):
        try:
            control_plane.call(twin, "DELETE", _path(manifest), {"propagationPolicy": "Background"})
        except control_plane.ApiError as error:
            if error.status != 404:
                raise


def problems(twin: Twin, addon_name: str) -> list[str]:
    """Return why an add-on isn't wholly running yet (EKS's ACTIVE once this is empty).

    Raises:
        TwinError: see :func:`manifests`.
    """
    lines: list[str] = []
    for manifest in manifests(twin, addon_name):
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind not in ("Deployment", "DaemonSet"):
            continue
        try:
            state = control_plane.call(twin, "GET", _path(manifest))
        except control_plane.ApiError as error:
            lines.append(f"{kind} {name}: {error}")
            continue
        status = state.get("status", {})
        current = status.get("observedGeneration") == state["metadata"]["generation"]
        if kind == "Deployment":
            wanted, ready = state["spec"]["replicas"], status.get("availableReplicas", 0)
            updated = status.get("updatedReplicas", 0)
        else:
            wanted, ready = max(1, status.get("desiredNumberScheduled", 0)), status.get("numberAvailable", 0)
            updated = status.get("updatedNumberScheduled", 0)
        if not current or min(ready, updated) < wanted:
            lines.append(f"{kind} {name}: {ready} of {wanted} pods are available")
    return lines
