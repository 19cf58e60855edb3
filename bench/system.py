"""What the bench asks of each system that releases ShopCat: one shape for the old chart, its patches, the peers and ours."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class UnsupportedError(Exception):
    """The system has no documented way to do this; the text says why, and stands in the cell."""


@dataclass(frozen=True)
class State:
    """What runs now, as the system's own API tells it."""

    serving: str
    """Tag that all users get; empty while two versions share the traffic or none serves."""
    settled: bool
    """No pod starts or leaves any more, and no controller or tool of the system works on a release."""
    detail: str = ""


@dataclass(frozen=True)
class Target:
    """Where a system's users send their requests, on this machine."""

    address: str
    host: str
    port: int
    ca_file: Path | None
    """Authority of its certificate; None for plain HTTP."""


class System(Protocol):
    """One way to release ShopCat on the twin; each has a namespace, a host name and pods of its own.

    A release tool runs as a process of its own session, so that an accident can kill it. Every method raises TwinError if a
    call that should work does not, and UnsupportedError where the system has no such thing.
    """

    name: str
    """Key in files and host label: ``legacy``, ``rolling``, ``patched``, ``argo-canary``, ``argo-bluegreen``, ``ours``."""
    title: str
    """Heading of its column."""
    namespace: str

    def install(self, tag: str) -> None:
        """Make everything the system needs, with a first release that answers."""

    def start(self, tag: str) -> subprocess.Popen[str]:
        """Start the release of a pushed tag the documented way; the process ends when the tool says that it is done."""

    def go_on(self, tag: str) -> subprocess.Popen[str]:
        """Start what the documentation says to do after the release tool of this tag was killed."""

    def undo(self) -> subprocess.Popen[str]:
        """Start the fastest documented way back from the release that is live or under way."""

    def target(self) -> Target:
        """Return where its users send requests."""

    def has_ready_pod(self, tag: str) -> bool:
        """Tell whether a pod of this tag is ready."""

    def state(self) -> State:
        """Read what serves now and whether anything still moves."""
