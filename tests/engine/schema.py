"""Fields of Kubernetes' objects, as the API server's own OpenAPI description lists them, and values to try in them."""

from collections.abc import Iterator
from typing import Any

from twin.config import Twin
from twin.kubernetes import control_plane

Path = tuple[str | int, ...]
Schema = dict[str, Any]

ROOTS = {"Deployment": "apis/apps/v1", "Pod": "api/v1"}
_KINDS = {"Deployment": "io.k8s.api.apps.v1.Deployment", "Pod": "io.k8s.api.core.v1.Pod"}
_SELECTOR = {"matchLabels": {"shopcat/colour": "green"}}
_TERM = {"topologyKey": "kubernetes.io/hostname", "labelSelector": _SELECTOR, "namespaces": ["shopcat"]}
_CONTAINER = {"name": "other", "image": "r/other:1"}
_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_PREFERENCE = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["x"]}]}
_SPREAD = {"maxSkew": 1, "topologyKey": "x", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": _SELECTOR}
_VOLUME = {"name": "more", "emptyDir": {}}
WORDS: dict[str, list[Any]] = {
    # What no generated value of its type is: values that the API server takes.
    "affinity": [{"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_TERM]}}],
    "annotations": [{"a": "b"}],
    "appArmorProfile": [{"type": "Unconfined"}],
    "args": [["-x"]],
    "command": [["sh"]],
    "configMap": [{"name": "x"}],
    "configMapKeyRef": [{"name": "x", "key": "x"}],
    "csi": [{"driver": "x.example.com"}],
    "dnsConfig": [{"nameservers": ["10.0.0.1"]}],
    "downwardAPI": [{"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}],
    "env": [[{"name": "MORE", "value": "x"}]],
    "envFrom": [[{"secretRef": {"name": "other"}}]],
    "ephemeral": [{"volumeClaimTemplate": {"spec": _CLAIM}}],
    "exec": [{"command": ["true"]}],
    "fieldRef": [{"fieldPath": "metadata.name"}],
    "glusterfs": [{"endpoints": "x", "path": "x"}],
    "hostAliases": [[{"ip": "10.0.0.1", "hostnames": ["x"]}]],
    "hostIP": ["10.0.0.1"],
    "hostPath": [{"path": "/"}],
    "hostPort": [8080],
    "hostname": ["x"],
    "httpHeaders": [[{"name": "X", "value": "x"}]],
    "image": [{"reference": "r/other:1"}],
    "imagePullSecrets": [[{"name": "x"}]],
    "initContainers": [[_CONTAINER]],
    "lifecycle": [{"preStop": {"sleep": {"seconds": 1}}}],
    "limits": [{"memory": "1Gi"}],
    "mountPropagation": ["None", "HostToContainer"],
    "nodeAffinity": [{"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": _PREFERENCE}]}],
    "matchExpressions": [[{"key": "app.kubernetes.io/name", "operator": "Exists"}]],
    "nodeSelector": [{"a": "b"}],
    "ports": [[{"containerPort": 81}]],
    "postStart": [{"exec": {"command": ["true"]}}],
    "procMount": ["Default"],
    "projected": [{"sources": [{"configMap": {"name": "x"}}]}],
    "rbd": [{"monitors": ["x"], "image": "x"}],
    "readinessGates": [[{"conditionType": "x.example.com/y"}]],
    "resourceFieldRef": [{"resource": "limits.memory"}],
    "requests": [{"cpu": "1m"}],
    "resizePolicy": [[{"resourceName": "cpu", "restartPolicy": "NotRequired"}]],
    "resourceClaims": [[{"name": "x", "resourceClaimName": "x"}]],
    "resources": [{"limits": {"cpu": "1"}}],
    "restartPolicyRules": [[{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]],
    "runtimeClassName": ["x"],
    "schedulingGates": [[{"name": "x.example.com/y"}]],
    "os": [{"name": "linux"}],
    "seLinuxOptions": [{"level": "s0:c1,c2"}],
    "seccompProfile": [{"type": "Unconfined"}],
    "secret": [{"secretName": "x"}],
    "securityContext": [{"runAsUser": 0}],
    "shareProcessNamespace": [True],
    "startupProbe": [{"exec": {"command": ["true"]}}],
    "livenessProbe": [{"exec": {"command": ["true"]}}],
    "subPath": ["x"],
    "subPathExpr": ["x"],
    "supplementalGroups": [[1]],
    "sysctls": [[{"name": "kernel.shm_rmid_forced", "value": "1"}]],
    "tolerations": [[{"operator": "Exists"}]],
    "topologySpreadConstraints": [[_SPREAD]],
    "valueFrom": [{"fieldRef": {"fieldPath": "metadata.name"}}],
    "volumeDevices": [[{"name": "scratch", "devicePath": "/x"}]],
    "volumeMounts": [[{"name": "scratch", "mountPath": "/x"}]],
    "volumes": [[_VOLUME]],
}  # fmt: skip


class Fields:
    """The API server's own description."""

    def __init__(self, twin: Twin) -> None:
        self._schemas: dict[str, Schema] = {}
        for path in ROOTS.values():
            self._schemas |= control_plane.call(twin, "GET", f"/openapi/v3/{path}")["components"]["schemas"]

    def _resolved(self, schema: Schema) -> Schema:
        for one in (schema, *schema.get("allOf", [])):
            if "$ref" in one:
                return {**schema, **self._schemas[one["$ref"].rpartition("/")[2]]}
        return schema

    def nodes(self, kind: str, found: Any) -> Iterator[tuple[Path, Schema, dict[str, Any]]]:
        """Every map of an object that has fields of its own: its path, its schema and its value."""
        yield from self._nodes(self._schemas[_KINDS[kind]], found, ())

    def _nodes(self, schema: Schema, found: Any, path: Path) -> Iterator[tuple[Path, Schema, dict[str, Any]]]:
        schema = self._resolved(schema)
        if isinstance(found, list) and "items" in schema:
            for index, one in enumerate(found):
                yield from self._nodes(schema["items"], one, (*path, index))
        elif isinstance(found, dict) and "properties" in schema:
            yield path, schema, found
            for name, one in found.items():
                if name in schema["properties"]:
                    yield from self._nodes(schema["properties"][name], one, (*path, name))

    def values(self, schema: Schema, name: str, depth: int = 0) -> list[Any]:
        """Values to try in a field: those known to be right, and those of its type."""
        schema = self._resolved(schema)
        found = list(WORDS.get(name, []))
        kind = schema.get("type")
        if "enum" in schema:
            found += schema["enum"]
        elif kind == "boolean":
            found += [True, False]
        elif kind == "integer":
            found += [7, 1, 0, 31_536_000]
        elif kind == "array":
            found += [[one] for one in self.values(schema["items"], name, depth + 1)[:2]] if depth < 4 else []
        elif "properties" in schema and depth < 4:
            inner = schema["properties"]
            wanted = {one: self.values(inner[one], one, depth + 1) for one in schema.get("required", [])}
            if all(wanted.values()):
                found.append({one: several[0] for one, several in wanted.items()})
        elif "additionalProperties" in schema:
            found += [{"a": one} for one in self.values(schema["additionalProperties"], name, depth + 1)[:2]]
        elif kind == "string" or "oneOf" in schema:
            found += ["x", "1", "1Gi", "/x"]
        return found
