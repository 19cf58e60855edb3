"""Faults of the twin's AWS, switched on for a while (``POST /twin/faults``).

``{"service": "elasticloadbalancing", "action": "ModifyRule", "kind": "throttle", "seconds": 60}``; kinds: ``throttle``,
``freeze`` (answer when it is over), ``delay`` (by ``delay_seconds``) and ``kill``: once the ``after``-th call that makes or
changes something has been carried out, SIGKILL every process of ``session`` before any of them hears of it.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

_FIELDS = {"service", "action", "kind", "seconds", "delay_seconds", "session", "after"}
_KINDS = ("throttle", "freeze", "delay", "kill")
_READS = re.compile(r"(Batch)?(Assume|Describe|Get|List|Scan|Query|Head)|GET |(De)?[Rr]egisterTargets")
"""Actions that an update's plugin makes nothing by; the load balancer controller's are none of an update's."""


class Faults:
    """The faults that are on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[dict[str, Any]] = []

    def add(self, fault: dict[str, Any]) -> None:
        """Switch a fault on for ``seconds`` (at most 600).

        Raises:
            ValueError: there is none such.
        """
        if set(fault) - _FIELDS or fault.get("kind") not in _KINDS:
            raise ValueError(f"twin: fault {fault} is not implemented; kinds: {', '.join(_KINDS)}")
        until = time.monotonic() + min(float(fault.get("seconds", 60)), 600)
        with self._lock:
            self._active.append({**fault, "until": until})

    def clear(self) -> None:
        """Switch every fault off."""
        with self._lock:
            self._active.clear()

    def _matching(self, service: str, action: str) -> list[dict[str, Any]]:
        now = time.monotonic()
        self._active = [fault for fault in self._active if fault["until"] > now]
        return [
            fault
            for fault in self._active
            if fault.get("service", service) == service and fault.get("action", action) == action
        ]

    def apply(self, service: str, action: str) -> bool:
        """Wait as long as the faults say; True if the call is to be throttled."""
        with self._lock:
            active = self._matching(service, action)
        throttled = False
        for fault in active:
            if fault["kind"] == "throttle":
                throttled = True
            elif fault["kind"] == "freeze":
                time.sleep(max(0.0, fault["until"] - time.monotonic()))
            elif fault["kind"] == "delay":
                time.sleep(float(fault.get("delay_seconds", 0.2)))
        return throttled

    def carried_out(self, service: str, action: str) -> None:
        """Kill whom a fault names once its call is the one."""
        if _READS.match(action):
            return
        with self._lock:
            for fault in self._matching(service, action):
                if fault["kind"] == "kill":
                    fault["after"] -= 1
                    if fault["after"] == 0:
                        _kill(int(fault["session"]))


def _kill(session: int) -> None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    os.kill(int(entry.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
