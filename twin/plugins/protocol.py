"""The engine's protocol without the rest of Pulumi's SDK: a plugin's start waits for what it imports."""

from __future__ import annotations

import importlib.machinery
import sys
import types

_PARENTS = ("pulumi", "pulumi.runtime")


def alone() -> None:
    """Let ``pulumi.runtime.proto`` be imported without its parent packages being run; for a process of a plugin's own.

    Raises:
        ModuleNotFoundError: the SDK is not installed.
    """
    path: list[str] | None = None
    for name in _PARENTS:
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        path = list(spec.submodule_search_locations)
        package = types.ModuleType(name)
        package.__path__ = path
        sys.modules[name] = package
