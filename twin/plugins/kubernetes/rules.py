"""Pure decisions of the stand-in: which changes need a new object, and when an object is ready.

They follow pulumi/pulumi-kubernetes provider/pkg/provider/diff.go (immutable fields) and provider/pkg/await (readiness).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_IMMUTABLE: dict[str, tuple[str, ...]] = {
    "apps/Deployment": ("spec.selector*",),
    "apps/DaemonSet": ("spec.selector*",),
    "apps/ReplicaSet": ("spec.selector*",),
    "apps/StatefulSet": (
        "spec.podManagementPolicy", "spec.revisionHistoryLimit", "spec.selector*", "spec.serviceName",
        "spec.volumeClaimTemplates*",
    ),
    "batch/Job": ("spec.completionMode", "spec.completions", "spec.parallelism", "spec.selector*", "spec.template*"),
    "/PersistentVolumeClaim": ("spec.accessModes*", "spec.selector*", "spec.storageClassName", "spec.volumeName"),
    "/Pod": ("spec*",),
    "/Service": ("spec.clusterIP", "spec.type"),
    "policy/PodDisruptionBudget": (),
    "rbac.authorization.k8s.io/ClusterRoleBinding": ("roleRef*",),
    "rbac.authorization.k8s.io/RoleBinding": ("roleRef*",),
    "scheduling.k8s.io/PriorityClass": ("value",),
    "storage.k8s.io/StorageClass": ("parameters*", "provisioner", "reclaimPolicy", "volumeBindingMode"),
}  # fmt: skip
_ALWAYS = ("apiVersion", "kind", "metadata.name", "metadata.namespace")


def group_kind(api_version: str, kind: str) -> str:
    """``apps/v1``, ``Deployment`` → ``apps/Deployment``; the core group is empty."""
    group = api_version.rpartition("/")[0]
    return f"{group}/{kind}"


def replaces(
    api_version: str, kind: str, changed: list[str], *, config_map_mutable: bool, secret_mutable: bool
) -> list[str]:
    """Which of the changed paths can't be changed in place."""
    patterns = [*_ALWAYS, *_IMMUTABLE.get(group_kind(api_version, kind), ())]
    if kind == "ConfigMap" and not config_map_mutable:
        patterns += ["data*", "binaryData*", "immutable"]
    if kind == "Secret":
        patterns.append("type")
        if not secret_mutable:
            patterns += ["data*", "stringData*", "immutable"]
    return [path for path in changed if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)]


@dataclass(frozen=True)
class Readiness:
    """Ready, failed for good, or waiting; with words for a person."""

    ready: bool
    failed: bool = False
    message: str = ""


READY = Readiness(ready=True)


def conditions(live: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Conditions by type."""
    return {one["type"]: one for one in (live.get("status") or {}).get("conditions") or []}


def deployment(live: Mapping[str, Any]) -> Readiness:
    """Observed, every replica new and available, no old one left over (await/deployment.go)."""
    wanted = live["spec"].get("replicas", 1)
    status = live.get("status") or {}
    if status.get("observedGeneration", 0) < live["metadata"]["generation"]:
        return Readiness(ready=False, message="the controller has not seen the change yet")
    found = conditions(live)
    progressing = found.get("Progressing", {})
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return Readiness(ready=False, failed=True, message=f"[ProgressDeadlineExceeded] {progressing.get('message')}")
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    available = status.get("availableReplicas", 0)
    if updated < wanted or total > updated or available < wanted:
        return Readiness(ready=False, message=f"{available} of {wanted} replicas available, {updated} updated")
    if wanted and found.get("Available", {}).get("status") != "True":
        return Readiness(ready=False, message="minimum number of live Pods was not attained")
    return READY


def stateful_set(live: Mapping[str, Any]) -> Readiness:
    """Every replica current and ready."""
    wanted, status = live["spec"].get("replicas", 1), live.get("status") or {}
    if status.get("observedGeneration", 0) < live["metadata"]["generation"]:
        return Readiness(ready=False, message="the controller has not seen the change yet")
    ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    if ready < wanted or updated < wanted:
        return Readiness(ready=False, message=f"{ready} of {wanted} replicas ready")
    return READY


def job(live: Mapping[str, Any]) -> Readiness:
    """Complete, or failed for good (await/job.go)."""
    found = conditions(live)
    if found.get("Complete", {}).get("status") == "True":
        return READY
    failure = found.get("Failed", {})
    if failure.get("status") == "True":
        return Readiness(ready=False, failed=True, message=f"[{failure.get('reason')}] {failure.get('message')}")
    return Readiness(ready=False, message="the Job has not completed")


def pod(live: Mapping[str, Any]) -> Readiness:
    """Ready, or succeeded."""
    phase = (live.get("status") or {}).get("phase")
    if phase == "Succeeded" or conditions(live).get("Ready", {}).get("status") == "True":
        return READY
    return Readiness(ready=False, failed=phase == "Failed", message=f"the Pod is {phase}")


def persistent_volume_claim(live: Mapping[str, Any]) -> Readiness:
    """Bound."""
    phase = (live.get("status") or {}).get("phase")
    return READY if phase == "Bound" else Readiness(ready=False, message=f"the claim is {phase}")


def custom_resource_definition(live: Mapping[str, Any]) -> Readiness:
    """Established."""
    if conditions(live).get("Established", {}).get("status") == "True":
        return READY
    return Readiness(ready=False, message="the definition is not established")


def _json_path(live: Any, path: str) -> list[Any]:
    """A plain dotted JSONPath such as ``{.status.phase}``; anything cleverer is refused."""
    text = path.strip().removeprefix("{").removesuffix("}").lstrip(".")
    found = [live]
    for part in text.split("."):
        match = re.fullmatch(r"([^\[\]]+)(?:\[(\d+)\])?", part)
        if match is None:
            raise ValueError(f"twin: JSONPath {path!r} is not implemented by the stand-in")
        found = [one.get(match[1]) for one in found if isinstance(one, Mapping) and match[1] in one]
        if match[2] is not None:
            found = [one[int(match[2])] for one in found if isinstance(one, list) and len(one) > int(match[2])]
    return found


def wait_for(live: Mapping[str, Any], annotation: str) -> Readiness:
    """``pulumi.com/waitFor``: ``condition=Ready[=value]``, ``jsonpath=…[=value]`` or a JSON list of them (all must hold).

    Raises:
        ValueError: an expression that the stand-in doesn't implement.
    """
    expressions = json.loads(annotation) if annotation.startswith("[") else [annotation]
    for expression in expressions:
        kind, _, rest = expression.partition("=")
        if kind == "condition":
            name, _, value = rest.partition("=")
            found = {key.lower(): one for key, one in conditions(live).items()}.get(name.lower(), {})
            if found.get("status", "").lower() != (value or "true").lower():
                text = found.get("message") or "not reported yet"
                return Readiness(ready=False, message=f"condition {name}: {text}")
        elif kind == "jsonpath":
            path, _, value = rest.partition("=")
            values = _json_path(live, path)
            if not values or (value and str(values[0]) != value):
                return Readiness(ready=False, message=f"waiting for {rest}")
        else:
            raise ValueError(f"twin: pulumi.com/waitFor {expression!r} is not implemented by the stand-in")
    return READY


BY_KIND = {
    "apps/Deployment": deployment,
    "apps/StatefulSet": stateful_set,
    "batch/Job": job,
    "/Pod": pod,
    "/PersistentVolumeClaim": persistent_volume_claim,
    "apiextensions.k8s.io/CustomResourceDefinition": custom_resource_definition,
}
