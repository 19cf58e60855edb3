"""Judge suggested lines of settings by the settings' own parser: what it would refuse is an error of the plan and no line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from infra.errors import SettingsError
from infra.settings import read_settings

if TYPE_CHECKING:
    from infra.settings import Settings

PLACEHOLDERS: Mapping[str, Any] = {
    "shopcat:cluster.existing.kubeconfig": "kubeconfig",
    "shopcat:cluster.existing.previewSubnetIds": ["subnet-00000000", "subnet-00000001"],
    "shopcat:database.masterSecret": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x-000000",
}
"""Setting that a person fills in → a value in its place while the others are judged."""


def usable_lines(lines: Sequence[str], settings: Settings) -> tuple[list[str], list[str]]:
    """Return the lines that the settings take, and for each other one why nothing describes what is there.

    Args:
        lines: of a stack file, comments among them.
        settings: that the lines are to be put into.
    """
    kept, errors = list(lines), list[str]()
    dropped: set[str] = set()
    while wrong := [line for line in _refusals(kept, settings) if not line.startswith(tuple(dropped))]:
        paths = dict(zip(_paths(kept), kept, strict=True))
        for line in wrong:
            errors.append(f"what is there can't be described: {line}")
            setting = max((path for path in paths if path and _concerns(line, path)), key=len, default="")
            if not setting or paths[setting].rstrip().endswith(":"):
                return kept, errors  # of several settings together: a person has to choose
            dropped.add(f"{setting}:")
            kept = _without_empty([each for path, each in zip(_paths(kept), kept, strict=True) if path != setting])
            paths.pop(setting)
    return kept, errors


def _concerns(line: str, path: str) -> bool:
    return line.startswith((f"{path}:", f"{path}."))


def _paths(lines: Sequence[str]) -> list[str]:
    """Return for each line the setting that stands there, such as `shopcat:database.identifier`; nothing for a comment."""
    found, parents = list[str](), list[str]()
    for line in lines:
        text = line.lstrip()
        if text.startswith("#") or not text:
            found.append("")
            continue
        depth = (len(line) - len(text)) // 2
        name = text.removeprefix("shopcat:").partition(":")[0]
        parents = [*parents[:depth], name]
        found.append(f"shopcat:{'.'.join(parents)}")
    return found


def _without_empty(lines: Sequence[str]) -> list[str]:
    """Return the lines without headings that nothing stands below."""
    paths = _paths(lines)
    return [
        line
        for path, line in zip(paths, lines, strict=True)
        if not line.rstrip().endswith(":") or not path or any(other.startswith(f"{path}.") for other in paths)
    ]


def _refusals(lines: Sequence[str], settings: Settings) -> list[str]:
    """Return what the settings say against the lines in place of their own."""
    values = settings.model_dump(mode="json", by_alias=True)
    suggested = yaml.safe_load("\n".join(lines)) or {}
    for key, section in suggested.items():
        name = key.removeprefix("shopcat:")
        values[name] = {**(values.get(name) or {}), **section}
    for path, value in PLACEHOLDERS.items():
        *parents, last = path.removeprefix("shopcat:").split(".")
        place: Any = values
        for parent in parents:
            place = place.get(parent) or {}
        # Only where the lines describe that section at all.
        if parents[0] in {key.removeprefix("shopcat:") for key in suggested}:
            place[last] = value
    try:
        read_settings(values)
    except SettingsError as error:
        lines = [line.removeprefix("  - ") for line in str(error).splitlines()[1:]]
        # What the state does not say is a comment among the lines, for a person to fill in.
        return [line for line in lines if ": missing; " not in line]
    return []
