"""Write suggested lines of settings, and judge them by the settings' own parser: what it would refuse is an error and no line.

A value that Terraform marks as sensitive is in none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from infra.commands.takeover.redaction import HIDDEN, scalars_in, texts_of
from infra.errors import SettingsError
from infra.settings import read_settings

if TYPE_CHECKING:
    from infra.commands.takeover.redaction import Redactor
    from infra.commands.takeover.state import Owned
    from infra.settings import Settings

_MARKED = f"{HIDDEN}, since Terraform marks it; write it yourself"
_PLAIN = re.compile(r"(arn:[a-z0-9:-]+:)?[A-Za-z][A-Za-z0-9/._-]*|[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?")
"""Texts that need no quotes in YAML, unless it reads them as a truth value or as nothing (`no`, `null`)."""

PLACEHOLDERS: Mapping[str, Any] = {
    "shopcat:cluster.existing.kubeconfig": "kubeconfig",
    "shopcat:cluster.existing.previewSubnetIds": ["subnet-00000000", "subnet-00000001"],
    "shopcat:database.masterSecret": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x-000000",
}
"""Setting that a person fills in → a value in its place while the others are judged."""


def setting_line(name: str, value: Any, indent: int, owned: Sequence[Owned], *, elsewhere: str = "") -> str:
    """Return the line of a setting; a comment where the state does not say its value, or marks that as sensitive.

    Args:
        name: of the setting.
        value: what the state says; None or an empty text if it says nothing.
        indent: spaces before the name.
        owned: everything that the state holds, with what is secret of it.
        elsewhere: who knows what the state does not say.
    """
    texts = {*texts_of(value), *scalars_in(value)}
    if value is None or value == "":
        comment = f"the state does not say{elsewhere}"
    elif any(texts & each.secrets for each in owned):
        comment = _MARKED
    else:
        return f"{' ' * indent}{name}: {_written(value)}"
    return f"{' ' * indent}# {name}: {comment}"


def without_secret(line: str, redactor: Redactor) -> str:
    """Return a line as it may be printed: a value with a secret in it is left out, since half of it is another value."""
    name, _, value = line.partition(": ")
    if name.lstrip().startswith("#"):
        return redactor.hide(line)
    if not value or redactor.hide(value) == value:
        return line
    text = name.lstrip()
    return f"{name.removesuffix(text)}# {text}: {_MARKED}"


def _written(value: Any) -> str:
    """Return a value as YAML on one line, which is read back as the same value."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value
    return value if is_plain else json.dumps(value)


def usable_lines(lines: Sequence[str], settings: Settings) -> tuple[list[str], list[str]]:
    """Return the lines that the settings take, and for each other one why nothing describes what is there.

    Args:
        lines: of a stack file, comments among them.
        settings: that the lines are to be put into.
    """
    kept, errors = _without_empty(lines), list[str]()
    dropped: set[str] = set()
    while wrong := [line for line in _refusals(kept, settings) if not line.startswith(tuple(dropped))]:
        errors += [f"what is there can't be described: {line}" for line in wrong]
        paths = dict(zip(_paths(kept), kept, strict=True))
        values = [path for path, line in paths.items() if path and not line.rstrip().endswith(":")]
        refused = {path for path in values for line in wrong if _concerns(line, path)}
        if not refused:
            break  # of several settings together: a person has to choose
        dropped |= {f"{path}{end}" for path in refused for end in ":."}
        kept = _without_empty([each for path, each in zip(_paths(kept), kept, strict=True) if path not in refused])
    return kept, list(dict.fromkeys(errors))


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
    # A comment may have an address in it, and so a line break or what no YAML has.
    suggested = yaml.safe_load("\n".join(line for line in lines if not line.lstrip().startswith("#"))) or {}
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
