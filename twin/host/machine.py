"""Locks on what all twins of a machine share: one twin at a time makes it or removes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock (flock) of a file or folder that exists; wait while another holds it. It ends with the process."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def places() -> contextlib.AbstractContextManager[None]:
    """Lock the folders that twins mount on: removing one ends the mounts on it in every process's mount namespace."""
    return locked(Path("/run"))


def mounted(path: Path) -> bool:
    """Report whether something is mounted on the folder in any process's mount namespace."""
    for mountinfo in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if any(line.split()[4] == str(path) for line in mountinfo.read_text(errors="replace").splitlines()):
                return True
    return False
