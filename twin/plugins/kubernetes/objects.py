"""Kubernetes objects as plain values: one form for what means the same, and which part of a live one is ours."""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
import re
import secrets
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from twin.plugins.common import UNKNOWN, Secret, is_unknown

Object = dict[str, Any]

AUTONAMED = "pulumi.com/autonamed"
FIELD_MANAGER = "__fieldManager"
INITIAL_API_VERSION = "__initialApiVersion"
_OWN = (FIELD_MANAGER, INITIAL_API_VERSION, "__inputs", "__defaults")
_READ_ONLY = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields",
    "resourceVersion", "uid",
)  # fmt: skip
_QUANTITIES = {"requests", "limits", "capacity", "hard", "default", "defaultRequest", "max", "min", "overhead"}
_ONE_QUANTITY = {"sizeLimit", "divisor"}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

CLUSTER_SCOPED = {
    ("", "ComponentStatus"), ("", "Namespace"), ("", "Node"), ("", "PersistentVolume"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"), ("apiregistration.k8s.io", "APIService"),
    ("certificates.k8s.io", "CertificateSigningRequest"), ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"), ("networking.k8s.io", "IngressClass"),
    ("node.k8s.io", "RuntimeClass"), ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"), ("resource.k8s.io", "DeviceClass"),
    ("scheduling.k8s.io", "PriorityClass"), ("storage.k8s.io", "CSIDriver"), ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"), ("storage.k8s.io", "VolumeAttachment"),
}  # fmt: skip
"""Kinds of Kubernetes' own APIs that have no namespace."""


def group(api_version: str) -> str:
    """``apps/v1`` → ``apps``; the core group is empty."""
    return api_version.rpartition("/")[0]


def builtin(api_version: str) -> bool:
    """Whether it is one of Kubernetes' own APIs and not a custom resource's."""
    found = group(api_version)
    return "." not in found or found.endswith(".k8s.io")


def metadata(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its metadata; empty when missing or not known yet."""
    found = manifest.get("metadata")
    return found if isinstance(found, Mapping) else {}


def notes_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Its annotations; empty when missing or not known yet."""
    found = metadata(manifest).get("annotations")
    return found if isinstance(found, Mapping) else {}


def identifier(live: Mapping[str, Any]) -> str:
    """``namespace/name``, or the name alone."""
    found = metadata(live)
    return f"{found['namespace']}/{found['name']}" if found.get("namespace") else str(found["name"])


def is_definition(manifest: Mapping[str, Any]) -> bool:
    """Whether it is a CustomResourceDefinition."""
    wanted = "CustomResourceDefinition"
    return manifest.get("kind") == wanted and group(str(manifest.get("apiVersion"))) == "apiextensions.k8s.io"


def canonical_quantity(text: str) -> str:
    """A quantity as the API server writes it back: ``1024Mi`` → ``1Gi``, ``0.5`` → ``500m``; other text as it is.

    No fraction, and the largest suffix that leaves none (k8s.io/apimachinery pkg/api/resource).
    """
    match = re.fullmatch(r"\s*([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d+))?\s*", text)
    if match is None:
        return text
    sign, digits, binary, decimal, exponent = match.groups()
    value = Fraction(digits if not digits.endswith(".") else digits[:-1])
    negative = "-" if sign == "-" and value else ""
    if exponent is not None:
        value *= Fraction(10) ** int(exponent)
        power = 0
        while value and value.denominator == 1 and value.numerator % 1000 == 0:
            value, power = value / 1000, power + 3
        while value.denominator != 1 and power > -9:
            value, power = value * 1000, power - 3
        return f"{negative}{-(-value.numerator // value.denominator)}" + (f"e{power}" if power else "")
    if binary is not None:
        value *= 2 ** _BINARY[binary]
        if value >= 1024:
            return negative + _with_suffix(value, {name: Fraction(2) ** power for name, power in _BINARY.items()})
    else:
        value *= Fraction(10) ** _DECIMAL[decimal or ""]
    return negative + _with_suffix(value, {name: Fraction(10) ** power for name, power in _DECIMAL.items()})


def _with_suffix(value: Fraction, units: Mapping[str, Fraction]) -> str:
    if not value:
        return "0"
    for name, unit in sorted(units.items(), key=lambda one: -one[1]):
        if (value / unit).denominator == 1:
            return f"{value / unit}{name}"
    smallest_name, smallest = min(units.items(), key=lambda one: one[1])
    if "Ki" in units:
        smallest_name, smallest = "", Fraction(1)
    scaled = value / smallest
    return f"{-(-scaled.numerator // scaled.denominator)}{smallest_name}"


def _canonical(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        if key in _QUANTITIES:
            return {name: _as_quantity(one) for name, one in value.items()}
        return {
            name: _as_quantity(one) if name in _ONE_QUANTITY else _canonical(one, name) for name, one in value.items()
        }
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    return value


def _as_quantity(value: Any) -> Any:
    if isinstance(value, bool) or value == UNKNOWN or not isinstance(value, str | int | float):
        return _canonical(value)
    return canonical_quantity(str(value))


def dashed(value: Any) -> Any:
    """Field names as Kubernetes spells them: the SDKs write ``x_kubernetes_…`` for ``x-kubernetes-…``."""
    if isinstance(value, Mapping):
        return {_dashed_key(str(key)): dashed(one) for key, one in value.items()}
    return [dashed(one) for one in value] if isinstance(value, list) else value


def underscored(value: Any) -> Any:
    """The other way round, for outputs."""
    if isinstance(value, Mapping):
        return {
            key.replace("-", "_") if key.startswith("x-kubernetes-") else key: underscored(one)
            for key, one in value.items()
        }
    return [underscored(one) for one in value] if isinstance(value, list) else value


def _dashed_key(key: str) -> str:
    return key.replace("_", "-") if key.startswith("x_kubernetes_") else key


def normalized(manifest: Mapping[str, Any]) -> Object:
    """The one form of manifests that mean the same, without what only the server writes."""
    found: Object = dashed({key: copy.deepcopy(value) for key, value in manifest.items() if key not in _OWN})
    if isinstance(found.get("metadata"), dict):
        for name in _READ_ONLY:
            found["metadata"].pop(name, None)
    api_version = str(found.get("apiVersion", ""))
    if not builtin(api_version):
        return found
    if found.get("kind") == "Secret" and api_version == "v1":
        return _normalized_secret(found)
    if is_definition(found):
        found.pop("status", None)
        spec = found.get("spec")
        if isinstance(spec, dict) and spec.get("preserveUnknownFields") is False:
            del spec["preserveUnknownFields"]
        return found
    return {key: _canonical(value, key) for key, value in found.items()}


def _normalized_secret(found: Object) -> Object:
    plain, data = found.get("stringData"), found.get("data")
    if isinstance(plain, Mapping) and plain and not is_unknown(plain) and not is_unknown(data):
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
        found["data"] = {**(data or {}), **encoded}
        del found["stringData"]
    elif isinstance(data, Mapping):
        found["data"] = {key: _encoded_again(value) for key, value in data.items()}
    return found


def _encoded_again(value: Any) -> Any:
    if not isinstance(value, str) or value == UNKNOWN:
        return value
    try:
        return base64.b64encode(base64.b64decode(value)).decode()
    except (binascii.Error, ValueError):
        return value  # the API server will say so


def _same_shape(one: Any, other: Any) -> bool:
    return (isinstance(one, Mapping) and isinstance(other, Mapping)) or (
        isinstance(one, list) and isinstance(other, list)
    )


def pruned(live: Any, like: Any) -> Any:
    """The live value cut down to the shape of the inputs, item by item in lists."""
    if isinstance(live, Mapping) and isinstance(like, Mapping):
        return {
            key: pruned(value, like[key]) if _same_shape(value, like[key]) else value
            for key, value in live.items()
            if key in like
        }
    if isinstance(live, list) and isinstance(like, list):
        both = zip(live, like, strict=False)
        return [pruned(one, other) if _same_shape(one, other) else one for one, other in both]
    return live


def with_empties(live: Any, like: Any) -> Any:
    """The pruned live value with those inputs put back that say nothing: APIs leave out what is false, zero or empty."""
    if isinstance(live, Mapping) and isinstance(like, Mapping):
        kept = {key: value for key, value in like.items() if key not in live and not value}
        return {**{key: with_empties(value, like.get(key)) for key, value in live.items()}, **kept}
    if isinstance(live, list) and isinstance(like, list):
        tail = live[len(like) :]
        return [with_empties(one, other) for one, other in zip(live, like, strict=False)] + tail
    return live


def outputs(live: Mapping[str, Any], *, initial_api_version: str, field_manager: str) -> Object:
    """What the program sees of an object: all of it but the managers' book-keeping. A Secret's data is secret."""
    found: Object = underscored(live)
    if isinstance(found.get("metadata"), Mapping):
        found["metadata"] = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    found = marked(found)
    found[INITIAL_API_VERSION] = initial_api_version
    found[FIELD_MANAGER] = field_manager
    return found


def marked(manifest: Mapping[str, Any]) -> Object:
    """With a Secret's data marked secret."""
    if manifest.get("kind") != "Secret":
        return dict(manifest)
    return {key: Secret(value) if key in ("data", "stringData") else value for key, value in manifest.items()}


def unique_name(prefix: str, seed: bytes) -> str:
    """The prefix and eight hexadecimal digits, always the same for a seed."""
    digits = hashlib.sha256(seed).hexdigest()[:8] if seed else secrets.token_hex(4)
    return f"{prefix}{digits}"


def named(manifest: Mapping[str, Any], old: Mapping[str, Any], logical: str, seed: bytes) -> Object:
    """With a name. Old inputs lend theirs if it was made here; a new object gets one from its logical name."""
    found = dict(manifest)
    if found.get("metadata") == UNKNOWN or metadata(found).get("name") or metadata(found).get("generateName"):
        return found
    if old:
        if notes_of(old).get(AUTONAMED) != "true":
            return found  # no name any more: a replacement, for which a name is made
        name = str(metadata(old)["name"])
    else:
        name = unique_name(f"{logical}-", seed)
    notes = metadata(found).get("annotations")
    more = {} if notes == UNKNOWN else {"annotations": {**notes_of(found), AUTONAMED: "true"}}
    found["metadata"] = {**metadata(found), "name": name, **more}
    return found
