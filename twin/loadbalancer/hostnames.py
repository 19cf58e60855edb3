"""The shop's name on this machine: one marked line in /etc/hosts while the twin runs.

curl and browsers take ``*.localhost`` to loopback by themselves; Python and most other clients ask the C library, which
often doesn't. Names of previews join it (`make pr`). The line is added as root alone, and taken away by ``make down``,
also after a crash, by its mark.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

from twin.config import PartStatus, Twin
from twin.loadbalancer import front_door
from twin.paths import is_root

HOSTS = Path("/etc/hosts")


def domain(twin: Twin) -> str:
    """The shop's host name on this twin."""
    return "shopcat.localhost" if twin.name == "main" else f"{twin.name}.shopcat.localhost"


def preview_domain(twin: Twin) -> str:
    """Domain that previews' names end with on this twin: another site than the shop's, as on AWS."""
    return "shopcat-previews.localhost" if twin.name == "main" else f"{twin.name}.shopcat-previews.localhost"


def _mark(twin: Twin) -> str:
    return f"# shopcat twin {twin.name}"


def changed(text: str, mark: str, line: str | None) -> str:
    """The file's text with the marked line set, or taken away."""
    kept = [row for row in text.splitlines() if not row.endswith(mark)]
    if line is not None:
        kept.append(f"{line} {mark}")
    return "\n".join(kept) + "\n"


def marked(text: str, mark: str) -> list[str]:
    """The names in the marked line; none without one."""
    return next((line.split("#")[0].split()[1:] for line in text.splitlines() if line.endswith(mark)), [])


def _write(twin: Twin, change: Callable[[list[str]], list[str]]) -> None:
    """Set the marked line to what becomes of its names; without any, there is no line."""
    if not is_root() or not HOSTS.exists():
        return
    with HOSTS.open("r+") as file:  # in place: the file may be a mount of its own
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read()
        names = change(marked(before, _mark(twin)))
        line = f"{front_door.address(twin)} {' '.join(names)}" if names else None
        after = changed(before, _mark(twin), line)
        if after != before:
            file.seek(0)
            file.write(after)
            file.truncate()


def names(twin: Twin) -> list[str]:
    """Every name that leads to the front door."""
    return marked(HOSTS.read_text(), _mark(twin)) if HOSTS.exists() else []


def add(twin: Twin, name: str) -> None:
    """Add a name that leads to the front door."""
    _write(twin, lambda names: [*names, *([] if name in names else [name])])


def remove(twin: Twin, name: str) -> None:
    """Remove a name from the hosts file."""
    _write(twin, lambda names: [kept for kept in names if kept != name])


def up(twin: Twin) -> None:
    """Add the shop's own name."""
    add(twin, domain(twin))


def down(twin: Twin) -> None:
    """Take the line away."""
    _write(twin, lambda _: [])


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the host name leads to the front door."""
    is_listed = HOSTS.exists() and _mark(twin) in HOSTS.read_text()
    if not is_root():
        return [PartStatus("host name", ok=True, detail="no root: only clients that know *.localhost find it")]
    return [PartStatus("host name", ok=is_listed, detail=f"{domain(twin)} in {HOSTS}" if is_listed else "missing")]
