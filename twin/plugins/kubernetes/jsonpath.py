"""The part of JSONPath that ``pulumi.com/waitFor`` needs (provider/pkg/jsonpath): fields, items, filters by equality."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_STEP = re.compile(
    r"""\.(?P<field>[A-Za-z_][\w-]*)|\[\s*(?P<quoted>'[^']*'|"[^"]*")\s*\]|\[\s*(?P<item>-?\d+)\s*\]|(?P<all>\[\*\]|\.\*)"""
    r"""|\[\?\(?\s*@(?P<path>(?:\.[A-Za-z_][\w-]*)+)\s*(?P<sign>==|!=)\s*(?P<value>'[^']*'|"[^"]*"|true|false|-?[\d.]+)\s*\)?\]"""
)


@dataclass(frozen=True)
class Expression:
    """A path, and the value it must have; without one it is enough that it selects something."""

    path: str
    steps: tuple[re.Match[str], ...]
    value: str | None

    def matches(self, live: Mapping[str, Any]) -> bool:
        """Whether the object fulfils it.

        Raises:
            ValueError: a value is asked for and the path selects a mapping or a list.
        """
        found = select(live, self.steps)
        if not found:
            return False
        if self.value is None:
            return True
        if isinstance(found[0], Mapping | list):
            raise ValueError(f"{self.path!r} has a non-primitive value ({found[0]})")  # noqa: TRY004 - a wrong expression
        return text(found[0]) == self.value

    def __str__(self) -> str:
        """As it was written."""
        return self.path if self.value is None else f"{self.path}={self.value}"


def text(value: Any) -> str:
    """A primitive as upstream prints it."""
    return json.dumps(value) if isinstance(value, bool) or value is None else str(value)


def parse(given: str) -> Expression:
    """``{.status.phase}=Bound`` (what follows ``jsonpath=``).

    Raises:
        ValueError: it is not of that form, or uses more of JSONPath than the stand-in knows.
    """
    path, _, value = given.replace("==", "\0").partition("=")
    if "=" in value:
        raise ValueError(f"format should be {{.path}}=value or {{.path}}, got {given!r}")
    path, value = path.replace("\0", "=="), value.replace("\0", "==")
    if given.replace("==", "\0").find("=") >= 0 and not value:
        raise ValueError(f"{path}= requires a value")
    match = re.fullmatch(r"\{\s*\$?(.*?)\s*\}", path)
    if match is None:
        raise ValueError(f"{path} should be wrapped in brackets {{ ... }}")
    steps, rest = [], match[1]
    while rest:
        step = _STEP.match(rest)
        if step is None:
            raise ValueError(f"twin: JSONPath {rest!r} is not implemented by the stand-in of the kubernetes plugin")
        steps.append(step)
        rest = rest[step.end() :]
    return Expression(path, tuple(steps), value or None)


def select(live: Any, steps: tuple[re.Match[str], ...]) -> list[Any]:
    """Everything the path selects."""
    found = [live]
    for step in steps:
        found = [value for one in found for value in _step(one, step)]
    return found


def _step(one: Any, step: re.Match[str]) -> list[Any]:
    name = step["field"] or (step["quoted"] or "")[1:-1]
    if name:
        return [one[name]] if isinstance(one, Mapping) and name in one else []
    if step["item"] is not None:
        place = int(step["item"])
        return [one[place]] if isinstance(one, list) and -len(one) <= place < len(one) else []
    items = list(one.values()) if isinstance(one, Mapping) else one if isinstance(one, list) else []
    if step["all"]:
        return items
    wanted = json.loads(step["value"]) if step["value"][0] not in "'\"" else step["value"][1:-1]
    same = step["sign"] == "=="
    return [item for item in items if (_field(item, step["path"]) == wanted) is same]


def _field(item: Any, path: str) -> Any:
    for name in path.strip(".").split("."):
        item = item.get(name) if isinstance(item, Mapping) else None
    return item
