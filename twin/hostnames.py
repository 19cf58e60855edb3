"""The shop's name on this machine: one marked line in /etc/hosts while the twin runs.

curl and browsers take ``*.localhost`` to loopback by themselves; Python and most other clients ask the C library, which
often doesn't. The line is added as root alone, and taken away by ``make down``, also after a crash, by its mark.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

from twin.config import PartStatus, Twin
from twin.loadbalancer import front_door
from twin.paths import is_root

HOSTS = Path("/etc/hosts")


def domain(twin: Twin) -> str:
    """The shop's host name on this twin."""
    return "shopcat.localhost" if twin.name == "main" else f"{twin.name}.shopcat.localhost"


def _mark(twin: Twin) -> str:
    return f"# shopcat twin {twin.name}"


def changed(text: str, mark: str, line: str | None) -> str:
    """The file's text with the marked line set, or taken away."""
    kept = [one for one in text.splitlines() if not one.endswith(mark)]
    if line is not None:
        kept.append(f"{line} {mark}")
    return "\n".join(kept) + "\n"


def _write(twin: Twin, line: str | None) -> None:
    if not is_root() or not HOSTS.exists():
        return
    with HOSTS.open("r+") as file:  # in place: the file may be a mount of its own
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read()
        after = changed(before, _mark(twin), line)
        if after != before:
            file.seek(0)
            file.write(after)
            file.truncate()


def up(twin: Twin) -> None:
    """Add the line."""
    _write(twin, f"{front_door.address(twin)} {domain(twin)}")


def down(twin: Twin) -> None:
    """Take it away."""
    _write(twin, None)


def status(twin: Twin) -> list[PartStatus]:
    """Whether the name leads to the front door."""
    there = HOSTS.exists() and _mark(twin) in HOSTS.read_text()
    if not is_root():
        return [PartStatus("host name", ok=True, detail="no root: only clients that know *.localhost find it")]
    return [PartStatus("host name", ok=there, detail=f"{domain(twin)} in {HOSTS}" if there else "missing")]
