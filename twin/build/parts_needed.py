"""The programs as a part of the twin: ``up`` builds what is missing."""

from __future__ import annotations

from twin import build
from twin.build import cache, golang
from twin.config import PartStatus, Twin


def up(twin: Twin) -> None:
    """Build or unpack what this twin uses."""
    build.debian_root(twin)
    for name in build.needed(twin):
        cache.ensure(twin.cache, golang.part(name))


def down(twin: Twin) -> None:
    """The cache stays: it is what makes the next start quick."""


def status(twin: Twin) -> list[PartStatus]:
    """How many of the programs are built."""
    missing = [name for name in build.needed(twin) if not golang.part(name).directory(twin.cache).exists()]
    detail = f"missing: {', '.join(missing)}; `make build`" if missing else f"in {twin.cache}"
    return [PartStatus("programs", ok=not missing, detail=detail)]
