"""Say in CEL that an object is exactly a template, but for the values that the template leaves open.

A deny-list lets through whatever nobody thought of; this is its opposite. `rules` compares each map and list of an object with
the template's, so a field that the template doesn't have is refused: one that exists today, and one that a later version of
Kubernetes brings. A value that is `Free` is read back from the object and held to a rule of its own.

Expressions are CEL (kubernetes.io/docs/reference/using-api/cel), with its optional values: a path that isn't there is no
error but unequal, so the message says where an object differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

CelRule = tuple[str, str]
"""An expression that must hold, and the message otherwise."""


def literal(value: Any) -> str:
    """Write a plain value in CEL.

    As JSON does, but that the API server takes only maps and lists whose values are of one type: each is made `dyn`.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)}: dyn({literal(item)})" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(f"dyn({literal(item)})" for item in value) + "]"
    return json.dumps(value)


def same_quantities(path: str, wanted: Mapping[str, str]) -> str:
    """Say that a map of quantities is exactly this one: `1Gi` is `1024Mi`, and no key more or less."""
    each = [
        f"{literal(name)} in {path} && {same_quantity(f'{path}[{literal(name)}]', quantity)}"
        for name, quantity in wanted.items()
    ]
    return " && ".join([f"{path}.size() == {len(wanted)}", *each])


def same_quantity(path: str, wanted: str) -> str:
    """Say that a quantity is this one, in whatever unit."""
    return f"quantity(string({path})).compareTo(quantity({literal(wanted)})) == 0"


@dataclass(frozen=True)
class Free:
    """A value that the template leaves open."""

    holds: Callable[[str], str]
    """Function from the CEL of the value to the CEL of what must hold of it."""
    says: str
    """Description for a person of what it may be."""
    optional: bool = False
    """True if the value may be missing too."""


def between(least: int, most: int, unit: str = "") -> Free:
    """Leave open a whole number within bounds, both included."""
    return Free(lambda path: f"{path} >= {least} && {path} <= {most}", f"{least} to {most}{unit}")


def default(value: Any) -> Free:
    """Leave open what the API server, or an add-on, fills in: this value, or none where its version knows of no such field."""
    return Free(lambda path: f"{path} == dyn({literal(value)})", f"{json.dumps(value)} or nothing", optional=True)


def cel_rules(path: str, template: Any, where: str) -> list[CelRule]:
    """Say that the value at a path is the template.

    Args:
        path: CEL of the value, which is there.
        template: maps, lists and plain values, with `Free` ones among them.
        where: name of the path in messages.
    """
    return _rules(f"optional.of(dyn({path}))", template, where)


def _is_plain(template: Any) -> bool:
    if isinstance(template, Mapping):
        return all(_is_plain(item) for item in template.values())
    if isinstance(template, list):
        return all(_is_plain(item) for item in template)
    return not isinstance(template, Free)


def _rules(node: str, template: Any, where: str) -> list[CelRule]:
    """Return the rules for one node, whose CEL is an optional value, and for all below it."""
    if isinstance(template, Free):
        holds = template.holds(f"{node}.value()")
        expression = f"!{node}.hasValue() || ({holds})" if template.optional else f"{node}.hasValue() && ({holds})"
        return [(expression, f"{where}: {template.says}")]
    if isinstance(template, Mapping) and template:
        entries = []
        below: list[CelRule] = []
        for name, value in template.items():
            inner, key = f"{node}[?{literal(name)}]", literal(name)
            if isinstance(value, Free) or (isinstance(value, (Mapping, list)) and value):
                entries.append(f"?{key}: {inner}")
                below += _rules(inner, value, f"{where}.{name}")
            else:
                entries.append(f"{key}: dyn({literal(value)})")
        names = ", ".join(template)
        return [
            (f"{node} == optional.of(dyn({{{', '.join(entries)}}}))", f"{where}: exactly {names}, as given"),
            *below,
        ]
    if isinstance(template, list) and not _is_plain(template):
        size = f"{node}.hasValue() && {node}.value().size() == {len(template)}"
        below = [
            rule
            for index, item in enumerate(template)
            for rule in _rules(f"{node}[?{index}]", item, f"{where}[{index}]")
        ]
        return [(size, f"{where}: exactly {len(template)}"), *below]
    return [(f"{node} == optional.of(dyn({literal(template)}))", f"{where}: exactly {json.dumps(template)}")]
