"""The twin's parts in the order they start; ``down`` goes the other way."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from twin.config import PartStatus, Twin


class PartModule(Protocol):
    """What every part's module offers."""

    def up(self, twin: Twin) -> None:
        """Start the part unless it runs."""

    def down(self, twin: Twin) -> None:
        """Stop it and remove what it made."""

    def status(self, twin: Twin) -> list[PartStatus]:
        """What of it runs."""


@dataclass(frozen=True)
class Part:
    """A part's title and the module that runs it."""

    title: str
    module: str
    needs_root: bool = False
    only_simulated: bool = False

    def load(self) -> PartModule:
        """The module; imported late, since some are slow."""
        return cast("PartModule", importlib.import_module(self.module))

    def applies_to(self, twin: Twin) -> bool:
        """Whether this twin has the part."""
        return not (self.needs_root and twin.simulated) and not (self.only_simulated and not twin.simulated)


PARTS = (
    Part("programs", "twin.build.parts_needed"),
    Part("network", "twin.network", needs_root=True),
    Part("certificates", "twin.pki"),
    Part("DNS", "twin.dns"),
    Part("AWS", "twin.aws.service"),
    Part("registry", "twin.registry"),
    Part("images", "twin.images"),
    Part("charts", "twin.charts"),
    Part("control plane", "twin.controlplane"),
    Part("nodes", "twin.node", needs_root=True),
    Part("simulated nodes", "twin.kwok", only_simulated=True),
    Part("load balancer", "twin.loadbalancer.service"),
    Part("simulated controllers", "twin.host_controllers", only_simulated=True),
    Part("host name", "twin.hostnames"),
    Part("Pulumi", "twin.pulumi"),
)


@contextlib.contextmanager
def timed(twin: Twin, title: str) -> Iterator[None]:
    """Print a step's title and, at its end, how long it took; kept in ``up-times.json``."""
    print(f"{title:<24}", end="", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"failed after {time.monotonic() - started:6.1f} s", flush=True)
        raise
    seconds = time.monotonic() - started
    print(f"{seconds:6.1f} s", flush=True)
    _keep(twin, title, seconds)


def took(twin: Twin, title: str, seconds: float) -> None:
    """The same line for a step that has shown its own output meanwhile."""
    print(f"{title:<24}{seconds:6.1f} s", flush=True)
    _keep(twin, title, seconds)


def _keep(twin: Twin, title: str, seconds: float) -> None:
    path = twin.directory / "up-times.json"
    times: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        times = json.loads(path.read_text())
    times[title] = round(seconds, 2)
    path.write_text(json.dumps(times, indent=2) + "\n")


def up(twin: Twin) -> None:
    """Start every part, in order; what runs already is left alone."""
    twin.directory.mkdir(parents=True, exist_ok=True)
    (twin.directory / "mode").write_text("simulated\n" if twin.simulated else "pods\n")
    for part in PARTS:
        if part.applies_to(twin):
            with timed(twin, part.title):
                part.load().up(twin)


def down(twin: Twin) -> list[str]:
    """Stop every part, last first. A part that fails does not keep the others running.

    Returns:
        One line for each part that could not be taken down whole.
    """
    problems: list[str] = []

    def attempt(title: str, action: Callable[[Twin], None]) -> None:
        try:
            action(twin)
        except Exception as error:
            problems.append(f"{title}: {error}")

    for part in reversed(PARTS):
        if part.applies_to(twin):
            attempt(part.title, lambda found, part=part: part.load().down(found))  # type: ignore[misc]
    return problems


def status(twin: Twin) -> list[PartStatus]:
    """Every part's lines; a part whose status can't be read is a line that says so."""
    lines: list[PartStatus] = []
    for part in PARTS:
        if not part.applies_to(twin):
            continue
        try:
            lines.extend(part.load().status(twin))
        except Exception as error:
            lines.append(PartStatus(part.title, ok=False, detail=f"status unknown: {error}"))
            print(f"status of {part.title}: {error}", file=sys.stderr)
    return lines
