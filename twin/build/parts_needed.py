"""The programs as a part of the twin: ``up`` builds what is missing."""

from __future__ import annotations

from twin import build
from twin.config import PartStatus, Twin


def up(twin: Twin) -> None:
    """Build or unpack what this twin uses."""
    build.programs(twin, build.needed(twin))


def down(twin: Twin) -> None:
    """The cache stays: it is what makes the next start quick."""


def status(twin: Twin) -> list[PartStatus]:
    """How many of the programs are built."""
    parts = {name: build.part(twin, name) for name in build.needed(twin)}
    missing = [name for name, part in parts.items() if not part.directory(twin.cache).exists()]
    if not build.debian_part(twin).directory(twin.cache).exists():
        missing.append("Debian's packages")
    detail = f"missing: {', '.join(missing)}; `make build`" if missing else f"in {twin.cache}"
    return [PartStatus("programs", ok=not missing, detail=detail)]
