"""The shape that the bench asks of each system that releases ShopCat: one for the old chart, its patches, the peers and ours."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.load import Load, Stream


@dataclass(frozen=True)
class State:
    """Content that serves now, as the system's own API and its pods tell it."""

    serving: str
    """Content (:class:`bench.images.Images`) that all users get; empty while two versions share the traffic or none serves."""
    settled: bool
    """No pod starts or leaves any more, and no controller or tool of the system works on a release."""
    unfinished: str = ""
    """Work that is left for a person before the next release; empty if nothing is."""


@dataclass(frozen=True)
class Target:
    """Where a system's users send their requests, on this machine."""

    address: str
    host: str
    port: int
    ca_file: Path | None
    """Authority of its certificate; None for plain HTTP."""

    def load(self, streams: Sequence[Stream], maximum_seconds: float = 3600.0) -> Load:
        """Return a load on it; it isn't started yet."""
        return Load(
            self.address,
            self.host,
            port=self.port,
            ca_file=self.ca_file,
            streams=streams,
            maximum_seconds=maximum_seconds,
        )


class System(Protocol):
    """One way to release ShopCat on the twin; each has a namespace, a host name and pods of its own.

    A release tool runs as a process of its own session, so that an accident can kill it. Every method raises TwinError if a
    call that should work does not.
    """

    name: str
    """Key in files and namespace: ``legacy``, ``rolling``, ``patched``, ``argo-canary``, ``argo-bluegreen``, ``ours``."""
    title: str
    """Heading of its column."""
    tuned: str
    """Configuration, and what undoes a release."""

    @property
    def controllers(self) -> Sequence[tuple[str, str]]:
        """Return namespace and label selector of the pods of each controller that works on a release."""

    def install(self, tag: str) -> None:
        """Make everything the system needs, with a first release that answers."""

    def push(self, tag: str, edits: Mapping[str, str]) -> None:
        """Build the application with these pieces of its source replaced, and push it as the system's workflow does."""

    def push_again(self, content: str) -> None:
        """Push other content under the tag by which the cluster pulls this one; TwinError if the registry refuses it."""

    def start(self, tag: str) -> subprocess.Popen[str]:
        """Start the release of a pushed tag the documented way; the process ends when the tool says that it is done."""

    def go_on(self, tag: str) -> subprocess.Popen[str]:
        """Start what the documentation says to do after the release tool of this tag was killed."""

    def undo(self) -> subprocess.Popen[str]:
        """Start the fastest documented way back from the release that is live or under way."""

    def target(self) -> Target:
        """Return where its users send requests."""

    def load_balancer(self) -> str:
        """Return the name of the load balancer that its users reach, by which the access logs are found."""

    def has_ready_pod(self, tag: str) -> bool:
        """Tell whether a pod of this tag is ready."""

    def is_shifting(self, tag: str) -> bool:
        """Tell whether users' requests go to pods of this tag already."""

    def state(self) -> State:
        """Read what serves now, whether anything still moves, and what is left to do."""
