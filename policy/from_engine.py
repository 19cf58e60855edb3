"""Resources as Pulumi's engine hands them to a pack, as the rules take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.commands.takeover.declaration import UNKNOWN, Declared


def declared(kind: str, name: str, arguments: Any, *, protect: bool, unknown: type[Exception]) -> Declared:
    """Return a resource, `UNKNOWN` in place of each value that is not known before the update.

    Of a resource's options the engine hands over `protect` and no `retainOnDelete`, so that nothing counts as retained.

    Args:
        kind: its type.
        name: its logical name.
        arguments: mappings and sequences that raise when a value is asked for that isn't known.
        protect: Pulumi's option.
        unknown: what they raise.
    """
    return Declared(kind, name, _plain(arguments, unknown), protect=bool(protect))


def _plain(value: Any, unknown: type[Exception]) -> Any:
    if isinstance(value, Mapping):
        return {key: _item(value, key, unknown) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_item(value, index, unknown) for index in range(len(value))]
    return value


def _item(holder: Any, key: Any, unknown: type[Exception]) -> Any:
    try:
        value = holder[key]
    except unknown:
        return UNKNOWN
    return _plain(value, unknown)
