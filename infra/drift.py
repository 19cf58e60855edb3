"""Compare what this program declares with what stands in the cluster, so that a change made by hand is put back.

Pulumi compares declarations with its own state. A `kubectl scale` or `kubectl edit` is therefore no difference until
somebody runs `pulumi refresh`. `marker` gives such an object an annotation with a new value, which is a difference, so the
next plain update writes the object; without a change made by hand the annotation keeps its value and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

MARKER = "shopcat/restored"
"""Annotation: the object's resource version when a change made by hand was last found on it."""
_EMPTY: tuple[Any, ...] = (None, "", 0, False, {}, [])
_MULTIPLES = {
    "m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
}  # fmt: skip
"""Suffixes of Kubernetes' resource quantities that this program writes or the API server turns them into."""


def differences(declared: Any, standing: Any, where: str = "") -> list[str]:
    """List what is declared and stands otherwise in the cluster, one line per value; empty when nothing does.

    Only declared values count: defaults and status that the API server adds are no difference, nor is an entry of a list
    of named things (containers, variables, ports) that somebody else added, which a write would not remove either.
    """
    if isinstance(declared, Mapping):
        found = standing if isinstance(standing, Mapping) else {}
        return [
            line
            for key, value in declared.items()
            for line in differences(value, found.get(key), f"{where}.{key}" if where else str(key))
        ]
    if isinstance(declared, list) and declared and all(isinstance(one, Mapping) and "name" in one for one in declared):
        named = {one.get("name"): one for one in standing or [] if isinstance(one, Mapping)}
        return [
            line for one in declared for line in differences(one, named.get(one["name"]), f"{where}[{one['name']}]")
        ]
    if isinstance(declared, list) and isinstance(standing, list) and len(declared) == len(standing):
        pairs = enumerate(zip(declared, standing, strict=True))
        return [line for index, (one, other) in pairs for line in differences(one, other, f"{where}[{index}]")]
    if _same(declared, standing):
        return []
    return [f"{where} is {standing!r}, expected {declared!r}"]


def _same(declared: Any, standing: Any) -> bool:
    # The API server leaves out what is empty.
    if declared == standing or (declared in _EMPTY and standing in _EMPTY):
        return True
    first, second = _quantity(declared), _quantity(standing)
    return first is not None and first == second


def _quantity(value: Any) -> Decimal | None:
    """Return the number behind a resource quantity: the API server rewrites `1000m` as `1`."""
    if not isinstance(value, str):
        return None
    number = value.rstrip("mkMGKi")
    multiple = _MULTIPLES.get(value[len(number) :])
    try:
        return Decimal(number) * multiple if multiple is not None else None
    except InvalidOperation:
        return None


def written_for(
    declared: Mapping[str, str], standing: Mapping[str, Any] | None, intent: str
) -> Mapping[str, Any] | None:
    """Return the standing object if it was written for what is declared now; another intent is written in any case.

    Args:
        declared: the annotations of the declaration.
        standing: the object as the API server has it.
        intent: the annotation that names what an object was written for; objects without it are always comparable.
    """
    annotations = ((standing or {}).get("metadata") or {}).get("annotations") or {}
    return standing if annotations.get(intent) == declared.get(intent) else None


def marker(spec: Mapping[str, Any], standing: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the annotation that makes this update write an object which stands otherwise than declared.

    Args:
        spec: the object's declared `spec`.
        standing: the object as the API server has it; `None` if it has none.

    Returns:
        A new value where something differs, else the value that stands there, else nothing.
    """
    if standing is None:
        return {}
    metadata = standing.get("metadata") or {}
    if differences(spec, standing.get("spec") or {}):
        return {MARKER: str(metadata.get("resourceVersion", ""))}
    known = (metadata.get("annotations") or {}).get(MARKER)
    return {MARKER: str(known)} if known else {}
