"""Folders in which the twin keeps things on this machine, outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def is_root() -> bool:
    """Report whether this process may make network namespaces, mounts and cgroups."""
    return os.geteuid() == 0


def cache_directory() -> Path:
    """Built programs and downloads, keyed by their versions; safe to delete when no twin runs.

    ``$SHOPCAT_TWIN_CACHE``, else ``/var/cache/shopcat-twin`` for root (PostgreSQL runs as another user and must be
    able to read it), else ``$XDG_CACHE_HOME/shopcat-twin``.
    """
    path = os.environ.get("SHOPCAT_TWIN_CACHE")
    if path:
        return Path(path)
    if is_root():
        return Path("/var/cache/shopcat-twin")
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "shopcat-twin"


def state_directory() -> Path:
    """One folder per running twin: ``$SHOPCAT_TWIN_STATE``, ``/var/lib/shopcat-twin`` or ``$XDG_STATE_HOME/…``."""
    path = os.environ.get("SHOPCAT_TWIN_STATE")
    if path:
        return Path(path)
    if is_root():
        return Path("/var/lib/shopcat-twin")
    return Path(os.environ.get("XDG_STATE_HOME", str(Path.home() / ".local" / "state"))) / "shopcat-twin"
