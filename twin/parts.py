"""The twin's parts, each after those it needs; ``down`` takes them one by one, last first."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, cast

from twin.config import PartStatus, Twin

_TIMES = threading.Lock()


class PartModule(Protocol):
    """The functions that every part's module offers."""

    def up(self, twin: Twin) -> None:
        """Start the part unless it runs."""

    def down(self, twin: Twin) -> None:
        """Stop it and remove what it made."""

    def status(self, twin: Twin) -> list[PartStatus]:
        """Return one line for each thing that belongs to the part, and whether it runs."""


@dataclass(frozen=True)
class Part:
    """A part's title, the module that runs it, and the parts (by title) that must be up before it starts."""

    title: str
    module: str
    after: tuple[str, ...] = ()
    needs_root: bool = False
    only_simulated: bool = False

    def load(self) -> PartModule:
        """The module; imported late, since some are slow."""
        return cast("PartModule", importlib.import_module(self.module))

    def applies_to(self, twin: Twin) -> bool:
        """Report whether this twin has the part."""
        return not (self.needs_root and twin.simulated) and not (self.only_simulated and not twin.simulated)


PARTS = (
    Part("programs", "twin.build.programs"),
    Part("network", "twin.host.network", ("programs",), needs_root=True),
    Part("certificates", "twin.host.pki", ("programs", "network")),
    Part("DNS", "twin.host.dns", ("certificates",)),
    Part("AWS", "twin.aws.service", ("DNS",)),
    Part("registry", "twin.aws.registry", ("AWS",)),
    Part("images", "twin.images.system_images", ("registry",)),
    Part("charts", "twin.kubernetes.charts", ("certificates",)),
    Part("control plane", "twin.kubernetes.control_plane", ("DNS",)),
    Part("nodes", "twin.kubernetes.node_processes", ("control plane", "registry"), needs_root=True),
    Part("simulated nodes", "twin.kubernetes.kwok", ("control plane",), only_simulated=True),
    Part("load balancer", "twin.loadbalancer.service", ("AWS",)),
    Part("controller image", "twin.loadbalancer.controller_image", ("images",)),
    Part(
        "simulated controllers",
        "twin.kubernetes.simulated_controllers",
        ("control plane", "load balancer"),
        only_simulated=True,
    ),
    Part("host name", "twin.loadbalancer.hostnames"),
    Part("Pulumi", "twin.pulumi", ("images", "charts", "controller image")),
    Part("account", "twin.aws.account", ("Pulumi",)),
)


@contextlib.contextmanager
def timed(twin: Twin, title: str) -> Iterator[None]:
    """Print a step's title and how long it took, at its end; kept in ``up-times.json``."""
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"{title:<24}failed after {time.monotonic() - started:6.1f} s", flush=True)
        raise
    took(twin, title, time.monotonic() - started)


def took(twin: Twin, title: str, seconds: float) -> None:
    """One line about a step that is done."""
    print(f"{title:<24}{seconds:6.1f} s", flush=True)
    path = twin.directory / "up-times.json"
    with _TIMES:
        times: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError):
            times = json.loads(path.read_text())
        times[title] = round(seconds, 2)
        path.write_text(json.dumps(times, indent=2) + "\n")


def up(twin: Twin) -> None:
    """Start every part once those it needs are up; what runs already is left alone."""
    begin(twin)()


def begin(twin: Twin, later: Collection[str] = ()) -> Callable[[], None]:
    """Start every part like `up`, but return once all are up except those of ``later``, which nothing else needs.

    Returns:
        What waits for the rest, and raises what went wrong with it.
    """
    twin.directory.mkdir(parents=True, exist_ok=True)
    (twin.directory / "mode").write_text("simulated\n" if twin.simulated else "pods\n")
    waiting = [part for part in PARTS if part.applies_to(twin)]
    ours = {part.title for part in waiting}
    done: set[str] = set()
    running: dict[Future[None], Part] = {}
    failures: list[BaseException] = []
    pool = ThreadPoolExecutor(len(waiting))

    def step() -> None:
        for part in [candidate for candidate in waiting if not failures and ours.intersection(candidate.after) <= done]:
            waiting.remove(part)
            running[pool.submit(_start, twin, part)] = part
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            done.add(running.pop(future).title)
            error = future.exception()
            if error is not None:
                failures.append(error)

    def rest() -> None:
        while running or (waiting and not failures):
            step()
        pool.shutdown()
        if failures:
            raise failures[0]

    while not failures and not ours - set(later) <= done:
        step()
    if failures:
        rest()
    return rest


def _start(twin: Twin, part: Part) -> None:
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
            attempt(part.title, lambda stopped, part=part: part.load().down(stopped))  # type: ignore[misc]
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
