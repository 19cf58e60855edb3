"""The AWS resources that one Ingress asks for. What the stand-in doesn't play of Ingress is refused by name.

Names, tags and defaults are those of the real controller 3.5.0 (`pkg/ingress/model_build_*.go`, `pkg/deploy/tracking`).
Played is one load balancer with one HTTP listener on port 80, one rule, and target groups of ip targets with their bindings:
one of the path's Service, or several with weights by the annotation `actions.<name>`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twin.loadbalancer.controller.bindings import BackendNotFoundError, service_port
from twin.loadbalancer.controller.kubernetes import Object

INGRESS_CLASS = "alb"
LEGACY_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
ANNOTATION_PREFIX = "alb.ingress.kubernetes.io/"
CLUSTER_TAG = "elbv2.k8s.aws/cluster"
STACK_TAG = "ingress.k8s.aws/stack"
RESOURCE_TAG = "ingress.k8s.aws/resource"
LISTENER_PORT = 80
RULE_PRIORITY = 1

_TARGET_GROUP_ANNOTATIONS = {
    "target-type",
    "target-group-attributes",
    "healthcheck-path",
    "healthcheck-interval-seconds",
    "healthcheck-timeout-seconds",
    "healthy-threshold-count",
    "unhealthy-threshold-count",
    "success-codes",
}
_PLAYED_ANNOTATIONS = _TARGET_GROUP_ANNOTATIONS | {"scheme"}
USE_ANNOTATION = "use-annotation"
_ACTIONS = "actions."
_UNNAMED_TARGET_PORT = 1
"""The target group's port when the Service names its target port; pods are registered with their own anyway."""


class ModelError(Exception):
    """The Ingress, or its Service, can't be turned into AWS resources."""


@dataclass(frozen=True)
class GroupModel:
    """A target group of the rule, and its weight there."""

    service: str
    service_port: int | str
    target_port: int | str
    group_port: int
    group_name: str
    health_check: Mapping[str, Any]
    group_attributes: Mapping[str, str]
    weight: int


@dataclass(frozen=True)
class IngressModel:
    """One Ingress's resources, without what AWS makes up (ARNs, the DNS name)."""

    namespace: str
    name: str
    cluster: str
    scheme: str
    groups: tuple[GroupModel, ...]
    conditions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stack(self) -> str:
        """The stack's id, which every resource is tagged with."""
        return f"{self.namespace}/{self.name}"

    def group_resource(self, group: GroupModel) -> str:
        """Return a target group's resource id: it stays the same when the Service is made anew."""
        return f"{self.stack}-{group.service}:{group.service_port}"

    @property
    def load_balancer_name(self) -> str:
        """The load balancer's name."""
        return _short_name(self.namespace, self.name, self.cluster, self.stack, self.scheme)

    @property
    def security_group_name(self) -> str:
        """The name of the load balancer's own security group."""
        return _short_name(self.namespace, self.name, self.cluster, self.stack)


def stack_tags(cluster: str, stack: str) -> dict[str, str]:
    """Return the tags of every AWS resource of an Ingress."""
    return {CLUSTER_TAG: cluster, STACK_TAG: stack}


def stack_labels(namespace: str, name: str) -> dict[str, str]:
    """Return the labels of an Ingress's bindings."""
    return {"ingress.k8s.aws/stack-namespace": namespace, "ingress.k8s.aws/stack-name": name}


def shared_security_group_name(cluster: str) -> str:
    """Return the name of the security group that all load balancers of a cluster share, to reach pods."""
    digest = hashlib.sha256(cluster.encode()).hexdigest()
    return f"k8s-traffic-{re.sub('[^a-zA-Z0-9]', '', cluster)[:232]}-{digest[:10]}"


def _short_name(namespace: str, name: str, *hashed: str) -> str:
    digest = hashlib.sha256("".join(hashed).encode()).hexdigest()
    parts = (re.sub("[^a-zA-Z0-9]", "", part)[:8] for part in (namespace, name))
    return f"k8s-{'-'.join(parts)}-{digest[:10]}"


def is_ours(ingress: Object) -> bool:
    """Return True if the Ingress is of class alb."""
    annotations = ingress["metadata"].get("annotations") or {}
    return INGRESS_CLASS in (ingress["spec"].get("ingressClassName"), annotations.get(LEGACY_CLASS_ANNOTATION))


def _backend(ingress: Object) -> Object:
    """Return the Service that the first path names; empty if there is none."""
    for rule in ingress["spec"].get("rules") or []:
        for path in (rule.get("http") or {}).get("paths") or []:
            return dict(path["backend"].get("service") or {})
    return {}


def backend_services(ingress: Object) -> list[str]:
    """Return the names of the Services behind the first path: the one that it names, or those of its annotation."""
    try:
        return [service for service, _, _ in _forwarded(ingress)]
    except ModelError:
        return []


def _forwarded(ingress: Object) -> list[tuple[str, int | str, int]]:
    """Return name, port and weight of each Service behind the first path.

    Raises:
        ModelError: the annotation is missing or wrong, or asks for what the stand-in doesn't play.
    """
    backend = _backend(ingress)
    if not backend:
        return []
    name, port = str(backend.get("name", "")), backend.get("port") or {}
    if port.get("name") != USE_ANNOTATION:
        return [(name, port.get("number") or port.get("name", ""), 1)]
    text = _annotations(ingress).get(f"{_ACTIONS}{name}")
    if text is None:
        raise ModelError(f"missing {_ACTIONS}{name} configuration")
    return [
        (str(group.get("servicename", "")), _port(group.get("serviceport")), int(group.get("weight", 1)))
        for group in _forward_groups(f"{_ACTIONS}{name}", text)
    ]


def _port(value: Any) -> int | str:
    text = str(value)
    return int(text) if text.isdecimal() else text


def _forward_groups(annotation: str, text: str) -> list[dict[str, Any]]:
    try:
        action = _in_small_letters(json.loads(text))
    except ValueError as error:
        raise ModelError(
            f"failed to parse json annotation, {ANNOTATION_PREFIX}{annotation}: {text}: {error}"
        ) from error
    known = isinstance(action, dict) and isinstance(action.get("forwardconfig"), dict)
    if not known or action.get("type") != "forward":
        raise ModelError(f"twin: an action other than forward in {annotation} is not implemented by the stand-in")
    config = action["forwardconfig"]
    if (config.get("targetgroupstickinessconfig") or {}).get("enabled"):
        raise ModelError(f"twin: stickiness in {annotation} is not implemented by the stand-in")
    groups: list[dict[str, Any]] = config.get("targetgroups") or []
    if not groups or not all(group.get("servicename") for group in groups):
        raise ModelError(f"twin: a target group without a Service in {annotation} is not implemented by the stand-in")
    return groups


def _in_small_letters(value: Any) -> Any:
    """Return JSON with its keys in small letters: Go reads them whatever their case, and Argo Rollouts writes `Type`."""
    if isinstance(value, dict):
        return {key.lower(): _in_small_letters(each) for key, each in value.items()}
    return [_in_small_letters(each) for each in value] if isinstance(value, list) else value


def _annotations(*documents: Object) -> dict[str, str]:
    """Return the controller's annotations without their prefix; those of a later document win."""
    return {
        key.removeprefix(ANNOTATION_PREFIX): value
        for document in documents
        for key, value in (document["metadata"].get("annotations") or {}).items()
        if key.startswith(ANNOTATION_PREFIX)
    }


def unplayed(ingress: Object) -> list[str]:
    """Return, by name, what the Ingress asks for and the stand-in doesn't play."""
    spec = ingress["spec"]
    played = _PLAYED_ANNOTATIONS | {f"{_ACTIONS}{_backend(ingress).get('name')}"}
    refused = [f"the annotation {ANNOTATION_PREFIX}{name}" for name in _annotations(ingress) if name not in played]
    if spec.get("ingressClassName") != INGRESS_CLASS:
        refused.append(f"the annotation {LEGACY_CLASS_ANNOTATION} in place of spec.ingressClassName")
    refused += [f"spec.{name} of an Ingress" for name in ("defaultBackend", "tls") if spec.get(name)]
    rules = spec.get("rules") or []
    if len(rules) != 1:
        return [*refused, f"an Ingress with {len(rules)} rules"]
    paths = (rules[0].get("http") or {}).get("paths") or []
    if len(paths) != 1:
        return [*refused, f"an Ingress with {len(paths)} paths"]
    return refused + _unplayed_path(paths[0])


def _unplayed_path(path: Object) -> list[str]:
    refused = []
    if path.get("pathType") != "Prefix":
        refused.append(f"pathType {path.get('pathType')}")
    service = path["backend"].get("service")
    if not service:
        refused.append("a backend that is no Service")
    return refused


def _whole_number(annotations: Mapping[str, str], name: str, default: int) -> int:
    text = annotations.get(name, str(default))
    if not re.fullmatch(r"\d+", text):
        raise ModelError(f"failed to parse int32 annotation, {ANNOTATION_PREFIX}{name}: {text}")
    return int(text)


def _health_check(annotations: Mapping[str, str]) -> dict[str, Any]:
    return {
        "HealthCheckProtocol": "HTTP",
        "HealthCheckPort": "traffic-port",
        "HealthCheckPath": annotations.get("healthcheck-path", "/"),
        "HealthCheckIntervalSeconds": _whole_number(annotations, "healthcheck-interval-seconds", 15),
        "HealthCheckTimeoutSeconds": _whole_number(annotations, "healthcheck-timeout-seconds", 5),
        "HealthyThresholdCount": _whole_number(annotations, "healthy-threshold-count", 2),
        "UnhealthyThresholdCount": _whole_number(annotations, "unhealthy-threshold-count", 2),
        "Matcher": {"HttpCode": annotations.get("success-codes", "200")},
    }


def _attributes(annotations: Mapping[str, str]) -> dict[str, str]:
    text = annotations.get("target-group-attributes", "")
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    if not all(separator for _, separator, _ in pairs):
        raise ModelError(f"failed to parse stringMap annotation, {ANNOTATION_PREFIX}target-group-attributes: {text}")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _conditions(host: str, path: str) -> list[dict[str, Any]]:
    if any(character in path for character in "*?"):
        raise ModelError(f"prefix path shouldn't contain wildcards: {path}")
    stem = path.rstrip("/")
    conditions = [{"Field": "host-header", "HostHeaderConfig": {"Values": [host]}}] if host else []
    patterns = [stem, f"{stem}/*"] if stem else ["/*"]
    return [*conditions, {"Field": "path-pattern", "PathPatternConfig": {"Values": patterns}}]


def build(ingress: Object, services: Mapping[str, Object], *, cluster: str, default_target_type: str) -> IngressModel:
    """Return the resources that an Ingress and its Services ask for.

    Raises:
        ModelError: they ask for something that is wrong, or that the stand-in doesn't play.
        BackendNotFoundError: a Service, or its port, is missing.
    """
    refused = unplayed(ingress)
    for service in services.values():
        refused += [
            f"the Service's annotation {ANNOTATION_PREFIX}{name}"
            for name in _annotations(service)
            if name not in _TARGET_GROUP_ANNOTATIONS
        ]
        target_type = _annotations(ingress, service).get("target-type", default_target_type)
        if target_type != "ip":
            refused.append(f"target-type {target_type}")
    if refused:
        raise ModelError(f"twin: {', '.join(dict.fromkeys(refused))} is not implemented by the stand-in")
    scheme = _annotations(ingress).get("scheme", "internal")
    if scheme not in ("internal", "internet-facing"):
        raise ModelError(f"unknown scheme: {scheme}")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    namespace, name = ingress["metadata"]["namespace"], ingress["metadata"]["name"]
    groups = []
    for service_name, port, weight in _forwarded(ingress):
        if service_name not in services:
            raise BackendNotFoundError(f'Service "{service_name}" not found')
        groups.append(_group(ingress, services[service_name], port, weight, cluster))
    return IngressModel(
        namespace=namespace,
        name=name,
        cluster=cluster,
        scheme=scheme,
        groups=tuple(groups),
        conditions=_conditions(rule.get("host", ""), path["path"]),
    )


def _group(ingress: Object, service: Object, port: int | str, weight: int, cluster: str) -> GroupModel:
    annotations = _annotations(ingress, service)
    target_port = service_port(service, port).get("targetPort", port)
    group_port = target_port if isinstance(target_port, int) else _UNNAMED_TARGET_PORT
    namespace, name = ingress["metadata"]["namespace"], ingress["metadata"]["name"]
    hashed = (
        cluster, f"{namespace}/{name}", namespace, name, service["metadata"]["uid"], str(port), str(group_port),
        "ip", "HTTP", "HTTP1",
    )  # fmt: skip
    return GroupModel(
        service=service["metadata"]["name"],
        service_port=port,
        target_port=target_port,
        group_port=group_port,
        group_name=_short_name(namespace, service["metadata"]["name"], *hashed),
        health_check=_health_check(annotations),
        group_attributes=_attributes(annotations),
        weight=weight,
    )
