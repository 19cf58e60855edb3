"""Resources of `make bootstrap` as lists of properties, each asked for and set anew if it doesn't hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KeptProperty:
    """Something that must hold, and the call that makes it so."""

    name: str
    holds: Callable[[], bool]
    make: Callable[[], Any]


@dataclass(frozen=True)
class KeptResource:
    """A thing of the account and its properties in the order in which they can be set; the first is that it exists."""

    title: str
    properties: tuple[KeptProperty, ...]
