"""What an update would change, and which changes need a new object.

After provider/pkg/provider: provider.go (Diff, convertPatchToDiff) and diff.go (forceNew).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from twin.plugins.common import Difference
from twin.plugins.kubernetes import objects

Path = tuple[str | int, ...]
ANY_ITEM = "*"

_CONTAINER = (
    "args", "command", "env", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "ports", "readinessProbe",
    "resources", "securityContext", "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty",
    "volumeDevices", "volumeMounts", "workingDir",
)  # fmt: skip
_POD = (
    "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases", "hostIPC",
    "hostNetwork", "hostPID", "hostname", "imagePullSecrets", "nodeName", "nodeSelector", "overhead", "preemptionPolicy",
    "priority", "priorityClassName", "readinessGates", "restartPolicy", "runtimeClassName", "schedulerName",
    "securityContext", "serviceAccount", "serviceAccountName", "shareProcessNamespace", "subdomain",
    "terminationGracePeriodSeconds", "volumes",
)  # fmt: skip
_VOLUMES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker",
    "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk", "portworxVolume",
    "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
)  # fmt: skip
_IMMUTABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("apps/v1", "DaemonSet"): ("spec.selector",),
    ("apps/v1", "Deployment"): ("spec.selector",),
    ("apps/v1", "StatefulSet"): (
        "spec.podManagementPolicy", "spec.revisionHistoryLimit", "spec.selector", "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    ("batch/v1", "Job"): ("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): ("roleRef",),
    ("storage.k8s.io/v1", "StorageClass"): ("parameters", "provisioner"),
    ("v1", "PersistentVolume"): tuple(f"spec.{name}" for name in _VOLUMES),
    ("v1", "PersistentVolumeClaim"): (
        "spec.accessModes", "spec.selector", "spec.storageClassName", "spec.volumeName",
    ),
    ("v1", "Pod"): (
        *(f"spec.{name}" for name in _POD),
        *(f"spec.{kind}.*.{name}" for kind in ("containers", "initContainers") for name in _CONTAINER),
    ),
    ("v1", "ResourceQuota"): ("spec.scopes",),
    ("v1", "Secret"): ("type",),
    ("v1", "Service"): ("spec.clusterIP",),
}  # fmt: skip


def immutable(manifest: Mapping[str, Any], *, config_maps_change: bool, secrets_change: bool) -> list[tuple[str, ...]]:
    """Paths whose change needs a new object. ``*`` stands for any item of a list."""
    key = (str(manifest.get("apiVersion")), str(manifest.get("kind")))
    fixed = manifest.get("immutable") is True
    if key == ("v1", "Secret") and (fixed or not secrets_change):
        found: Sequence[str] = ("type", "stringData", "data")
    elif key == ("v1", "ConfigMap") and (fixed or not config_maps_change):
        found = ("binaryData", "data")
    else:
        found = _IMMUTABLE.get(key, ())
    return [tuple(path.split(".")) for path in ("metadata.name", "metadata.namespace", *found)]


def _needs_new(path: Path, value: Any, pattern: tuple[str, ...]) -> bool:
    """Whether a change of ``path`` to ``value`` touches the pattern: it lies on it or below it, or holds it."""
    for step, wanted in zip(path, pattern, strict=False):
        if step != wanted and not (isinstance(step, int) and wanted == ANY_ITEM):
            return False
    rest = pattern[len(path) :]
    values = [value]
    for wanted in rest:
        if wanted == ANY_ITEM:
            values = [one for found in values if isinstance(found, list) for one in found]
        else:
            values = [found[wanted] for found in values if isinstance(found, Mapping) and wanted in found]
    return bool(values)


def render(path: Path) -> str:
    """Pulumi's notation: ``a.b[0]``, and ``a["b.c"]`` for names with dots, quotes or brackets."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.search(r'[."\[\]]', step):
            escaped = step.replace('"', '\\"')
            text += f'["{escaped}"]'
        else:
            text += f".{step}" if text else step
    return text


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


_Found = list[tuple[Path, str, Any]]


def walk(old: Any, new: Any, applied: Any, path: Path = ()) -> _Found:
    """Changes from the pruned live value to the new inputs: path, ``add``/``update``/``delete``, new value.

    ``applied`` are the inputs applied last. What they said and the API left out because it says nothing is no change.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: _Found = []
        before = applied if isinstance(applied, Mapping) else {}
        for name, value in new.items():
            if name in old:
                found += walk(old[name], value, before.get(name), (*path, name))
            elif value is not None and not (not value and name in before and _same(before[name], value)):
                found.append(((*path, name), "add", value))
        return found + [((*path, name), "delete", None) for name in old if name not in new]
    if isinstance(old, list) and isinstance(new, list):
        found = []
        items = applied if isinstance(applied, list) else []
        for i in range(max(len(old), len(new))):
            if i >= len(old):
                found.append(((*path, i), "add", new[i]))
            elif i >= len(new):
                found.append(((*path, i), "delete", None))
            else:
                found += walk(old[i], new[i], items[i] if i < len(items) else None, (*path, i))
        return found
    return [] if _same(old, new) else [(path, "update", new)]


def difference(found: _Found, patterns: Sequence[tuple[str, ...]], ignored: Sequence[str] = ()) -> Difference:
    """As the engine wants it; changes at or below an ignored path are left out."""
    made = Difference()
    for path, kind, value in found:
        text = render(path)
        if any(text == one or text.startswith((f"{one}.", f"{one}[")) for one in ignored):
            continue
        made.changed.append(text)
        made.kinds[text] = kind
        if any(_needs_new(path, value, pattern) for pattern in patterns) or (kind == "delete" and text == "metadata"):
            made.replaces.append(text)
    return made


def between(
    live: Mapping[str, Any],
    applied: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    namespaced: bool,
    config_maps_change: bool,
    secrets_change: bool,
    ignored: Sequence[str] = (),
) -> Difference:
    """The change from a live object, as far as the inputs applied last speak of it, to new inputs."""
    old, wanted = objects.pruned(live, objects.normalized(applied)), objects.normalized(new)
    for manifest in (old, wanted):
        data = dict(objects.metadata(manifest))
        if namespaced:
            data["namespace"] = data.get("namespace") or "default"
        else:
            data.pop("namespace", None)
        if isinstance(manifest.get("metadata"), Mapping):
            manifest["metadata"] = data
    if objects.metadata(wanted).get("name") and isinstance(old.get("metadata"), Mapping):
        old["metadata"]["name"] = objects.metadata(live).get("name")
    for name in ("apiVersion", "kind"):
        old.setdefault(name, wanted.get(name))
    patterns = immutable(wanted, config_maps_change=config_maps_change, secrets_change=secrets_change)
    return difference(walk(old, wanted, objects.normalized(applied)), patterns, ignored)
