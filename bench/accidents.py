"""The accidents during a release, and the outcome that is expected of ours: fixed here, before any run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_PAGE = '    """The shop\'s front page, read from PostgreSQL."""\n'
_FAILS_ONE_OF_THREE = {
    f"async def page(request: web.Request) -> web.Response:\n{_PAGE}": (
        "served = []\n\n\nasync def page(request: web.Request) -> web.Response:\n"
        f"{_PAGE}    served.append(1)\n    if len(served) > 60 and len(served) % 3 == 0:\n"
        "        return web.Response(status=500)\n"
    )
}
"""One page of three is an error, from a pod's sixtieth on: smoke test and readiness see none of them."""
_NEVER_READY = {'    return web.Response(text="ok\\n")': "    return web.Response(status=503)"}

Fault = Literal["", "throttle", "freeze", "restart", "drain", "kill", "second", "push-again"]
Outcome = Literal["released", "undone", "stuck", "wrong code"]
"""released: the new version serves alone. undone: the former one does, by the system's own doing. wrong code: another content
than the one that was pushed under the tag when it was released. stuck: anything else, or something still moves."""


@dataclass(frozen=True)
class Accident:
    """One thing that goes wrong during a release."""

    name: str
    title: str
    fault: Fault = ""
    """throttle, freeze: the ELB API, for a minute. restart: the pods of every controller of the system. drain: `kubectl drain`
    of a node. kill: the release tool by SIGKILL, then the documented way on. second: another release three seconds later.
    push-again: other content under the tag that serves, then the release is undone."""
    at_shift: bool = False
    """The fault comes once users' requests go to the new version; otherwise as soon as its first pod is ready."""
    expected_outcome: Outcome = "released"
    """Outcome that is expected of ours."""
    expected_failed: int = 0
    """Most requests that may fail with ours."""
    reason: str = ""
    """Why any may fail, or why ours doesn't release."""
    delay_ratio: float = 1.0
    """The load balancer's worst delay ÷ what the drain budget allows for."""
    edits: Mapping[str, str] = field(default_factory=dict)
    """Pieces of the application's source that the new version has otherwise, and what takes their place."""
    headline: bool = False
    """Part of `make bench`; the others run with ALL=1."""

    @property
    def is_exclusive(self) -> bool:
        """The fault meets the whole twin, so one system alone releases at a time."""
        return self.fault in ("throttle", "freeze", "restart", "drain")


FAULT_SECONDS = 60.0
"""For so long the ELB API is throttled or frozen."""
ACCIDENTS = (
    Accident("nothing", "nothing goes wrong", headline=True),
    Accident("slow", "the load balancer is three times slower than budgeted", delay_ratio=3.0, headline=True),
    Accident(
        "bad-version",
        "the new version answers 500 on one page of three",
        expected_outcome="undone",
        expected_failed=60,
        reason="what users see from the shift until the weights are back",
        edits=_FAILS_ONE_OF_THREE,
        headline=True,
    ),
    Accident("throttled", "ELB API throttled for 60 s as the shift begins", "throttle", at_shift=True, headline=True),
    Accident("frozen", "ELB API frozen for 60 s as the shift begins", "freeze", at_shift=True),
    Accident("restarted", "controllers restarted as the shift begins", "restart", at_shift=True),
    Accident("drained", "a node drained as the shift begins", "drain", at_shift=True),
    Accident(
        "never-ready",
        "the new version never gets ready",
        expected_outcome="undone",
        reason="what never gets ready is not released",
        edits=_NEVER_READY,
    ),
    Accident("killed", "the release tool killed at the shift, then the documented way on", "kill", at_shift=True),
    Accident("two", "two releases at once", "second"),
    Accident(
        "pushed-again",
        "the tag that serves pushed again with other content, then the release undone",
        "push-again",
        expected_outcome="undone",
        reason="the row ends with the way back",
    ),
)
