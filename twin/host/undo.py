"""Record of the twin's changes to the machine outside its own names: written before the change, undone by `make down`.

Almost nothing is ever in here. Namespaces, the one network interface, its routes and the cgroups carry the twin's name
and are found by it; everything else of a node lives in namespaces that end with it.
"""

from __future__ import annotations

import json
from pathlib import Path

from twin.config import Twin


def _file(twin: Twin) -> Path:
    return twin.directory / "undo.json"


def _read(twin: Twin) -> dict[str, list[str]]:
    try:
        recorded: dict[str, list[str]] = json.loads(_file(twin).read_text())
    except FileNotFoundError:
        return {}
    return recorded


def _write(twin: Twin, recorded: dict[str, list[str]]) -> None:
    path = _file(twin)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(recorded, indent=2) + "\n")
    partial.replace(path)


def record(twin: Twin, kind: str, what: str) -> None:
    """Remember, before it happens, that ``what`` is about to be changed."""
    recorded = _read(twin)
    if what not in recorded.setdefault(kind, []):
        recorded[kind].append(what)
        _write(twin, recorded)


def recorded(twin: Twin, kind: str) -> list[str]:
    """Everything of that kind, in the order in which it was changed."""
    return list(_read(twin).get(kind, []))


def forget(twin: Twin, kind: str, what: str) -> None:
    """Drop the record of a change that was undone."""
    recorded = _read(twin)
    if what in recorded.get(kind, []):
        recorded[kind].remove(what)
        if not recorded[kind]:
            del recorded[kind]
        _write(twin, recorded)
    if not recorded:
        _file(twin).unlink(missing_ok=True)
