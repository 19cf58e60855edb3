"""Compare what this program declares with what stands in the cluster, so that a change made by hand is put back.

Pulumi compares declarations with its own state. A `kubectl scale` or `kubectl edit` is therefore no difference until
somebody runs `pulumi refresh`. `compare_objects` gives such an object an annotation with a new value, which is a difference,
so the next plain update writes the object; without a change made by hand the annotation keeps its value and nothing is
written. An object that somebody deleted is written too: a hook makes it again first (`Hooks.make_again`), since the provider
updates only what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

RESTORED_ANNOTATION = "shopcat/restored"
"""Annotation: the object's resource version when a change made by hand was last found on it, or when it was found deleted."""
_ATOMIC = ("selector", "matchLabels", "podSelector", "nodeSelector")
"""Maps that the API server replaces as a whole, and in which one more key means something else (`x-kubernetes-map-type`)."""
_EMPTY: tuple[Any, ...] = (None, "", 0, False, {}, [])
_MULTIPLES = {
    "m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
}  # fmt: skip
"""Suffixes of Kubernetes' resource quantities that this program writes or the API server turns them into."""


def object_differences(declared: Any, standing: Any, where: str = "") -> list[str]:
    """List what is declared and stands otherwise in the cluster, one line per value; empty when nothing does.

    Only declared values count: defaults and status that the API server adds are no difference, nor is an entry of a list
    of named things (containers, variables, ports) that somebody else added, which a write would not remove either. A map
    that selects something counts as a whole.
    """
    if isinstance(declared, Mapping):
        present = standing if isinstance(standing, Mapping) else {}
        extra = [f"{where}.{key} is {present[key]!r}, expected none" for key in present if key not in declared]
        return [
            line
            for key, value in declared.items()
            for line in object_differences(value, present.get(key), f"{where}.{key}" if where else str(key))
        ] + (extra if where.rpartition(".")[2] in _ATOMIC else [])
    if (
        isinstance(declared, list)
        and declared
        and all(isinstance(entry, Mapping) and "name" in entry for entry in declared)
    ):
        named = {entry.get("name"): entry for entry in standing or [] if isinstance(entry, Mapping)}
        return [
            line
            for entry in declared
            for line in object_differences(entry, named.get(entry["name"]), f"{where}[{entry['name']}]")
        ]
    if isinstance(declared, list) and isinstance(standing, list) and len(declared) == len(standing):
        pairs = enumerate(zip(declared, standing, strict=True))
        return [
            line for index, (first, second) in pairs for line in object_differences(first, second, f"{where}[{index}]")
        ]
    if _same(declared, standing):
        return []
    return [f"{where} is {standing!r}, expected {declared!r}"]


def _same(declared: Any, standing: Any) -> bool:
    # The API server leaves out what is empty.
    if declared == standing or (declared in _EMPTY and standing in _EMPTY):
        return True
    first, second = _quantity_value(declared), _quantity_value(standing)
    return first is not None and first == second


def _quantity_value(value: Any) -> Decimal | None:
    """Return the number behind a resource quantity: the API server rewrites `1000m` as `1`."""
    if not isinstance(value, str):
        return None
    number = value.rstrip("mkMGKi")
    multiple = _MULTIPLES.get(value[len(number) :])
    try:
        return Decimal(number) * multiple if multiple is not None else None
    except InvalidOperation:
        return None


def is_gone(standing: Mapping[str, Any] | None) -> bool:
    """Check that somebody deleted an object: it is not there, or on its way out."""
    return standing is None or "deletionTimestamp" in (standing.get("metadata") or {})


@dataclass(frozen=True)
class Drift:
    """Differences between declaration and cluster, one line each, and the annotation that makes this update write it."""

    lines: tuple[str, ...] = ()
    mark: Mapping[str, str] = field(default_factory=dict)


def compare_objects(
    spec: Mapping[str, Any],
    annotations: Mapping[str, str],
    standing: Mapping[str, Any] | None,
    *,
    intent: str,
    is_expected: bool,
) -> Drift:
    """Compare an object's declaration with what stands in the cluster.

    Args:
        spec: the declared `spec`.
        annotations: the declared annotations.
        standing: the object as the API server has it; `None` if it has none.
        intent: the annotation that names what an object was written for. One that was written for something else is written
            in any case, so it isn't compared; objects without it always are.
        is_expected: an update has made the object before, so if it isn't there somebody deleted it.

    Returns:
        Lines, and a mark of a new value, where something differs; else the mark that stands there, if there is one.
    """
    if is_gone(standing) or standing is None:
        if not is_expected:
            return Drift()
        return Drift(("was deleted",), {RESTORED_ANNOTATION: f"deleted before {datetime.now(UTC).isoformat()}"})
    metadata = standing.get("metadata") or {}
    stands = metadata.get("annotations") or {}
    if stands.get(intent) != annotations.get(intent):
        return Drift()
    lines = object_differences(spec, standing.get("spec") or {})
    if lines:
        return Drift(tuple(lines), {RESTORED_ANNOTATION: str(metadata.get("resourceVersion", ""))})
    known = stands.get(RESTORED_ANNOTATION)
    return Drift((), {RESTORED_ANNOTATION: str(known)} if known else {})
