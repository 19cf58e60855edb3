"""Who owns which field of a live object: what was created or edited by others' tools becomes ours before we apply.

After provider/pkg/await/await.go: fixCSAFieldManagers, patchForce, handleSSAIgnoreFields.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

CREATOR = "pulumi-kubernetes"
"""The field manager of a create; the first update hands its fields to the object's own manager."""

_TAKEN_OVER = (
    ("kubectl", "Apply"), ("kubectl", "Update"), ("before-first-apply", "Update"), (CREATOR, "Update"),
    ("pulumi-resource-kubernetes", "Update"),
)  # fmt: skip
_MISSING = object()


def _entries(live: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = live["metadata"].get("managedFields") or []
    return found


def _taken(entry: Mapping[str, Any]) -> bool:
    who = (str(entry.get("manager")), entry.get("operation"))
    return not entry.get("subresource") and any(who[0].startswith(n) and who[1] == o for n, o in _TAKEN_OVER)


def _union(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {**one, **{key: _union(one.get(key, {}), value) for key, value in other.items()}}
    return other or one


def handover(live: Mapping[str, Any], manager: str) -> list[dict[str, Any]]:
    """A JSON patch that makes those fields the manager's own; empty if there are none."""
    entries = _entries(live)
    taken = [one for one in entries if _taken(one)]
    if not taken:
        return []
    own = [one for one in entries if one.get("manager") == manager and one.get("operation") == "Apply"]
    fields: Any = {}
    for one in [*own, *taken]:
        fields = _union(fields, copy.deepcopy(one.get("fieldsV1") or {}))
    merged = {**taken[0], "manager": manager, "operation": "Apply", "fieldsV1": fields}
    kept = [one for one in entries if one not in taken and one not in own]
    return [
        {"op": "replace", "path": "/metadata/managedFields", "value": [*kept, merged]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
    ]


def forced(*, wanted: bool, live: Mapping[str, Any] | None, preview: bool) -> bool:
    """Whether an apply takes fields from others: if asked for, and where the owner is only an earlier form of us."""
    if wanted:
        return True
    if live is None:
        return preview
    entries = _entries(live)
    if not entries:
        return True
    before = (CREATOR, "pulumi-resource-kubernetes")
    return preview and any(one.get("manager") in before and one.get("operation") == "Update" for one in entries)


def _owned(fields: Any, path: Sequence[str]) -> bool:
    for step in path:
        fields = fields.get(f"f:{step}") if isinstance(fields, Mapping) else None
        if fields is None:
            return False
    return True


def _get(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        if not isinstance(value, Mapping) or step not in value:
            return _MISSING
        value = value[step]
    return value


def without_ignored(
    inputs: Mapping[str, Any], live: Mapping[str, Any], ignored: Sequence[str], manager: str
) -> dict[str, Any]:
    """Inputs for an apply that leaves ignored fields as they are: others' fields go unsaid, ours keep their live value."""
    found: dict[str, Any] = copy.deepcopy(dict(inputs))
    ours = [one.get("fieldsV1") for one in _entries(live) if one.get("manager") == manager]
    theirs = [one.get("fieldsV1") for one in _entries(live) if one.get("manager") != manager]
    for text in ignored:
        path = text.split(".")
        parent = _get(found, path[:-1])
        value = _get(live, path)
        if any(_owned(one, path) for one in theirs) and not any(_owned(one, path) for one in ours):
            if isinstance(parent, dict):
                parent.pop(path[-1], None)
        elif value is not _MISSING and isinstance(parent, dict):
            parent[path[-1]] = copy.deepcopy(value)
    return found
