"""The nodes' access logs: one JSON object a line among HAProxy's own messages, in ``logs/alb-<name>-node<n>.log``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LINE_START = b'{"time":'


@dataclass(frozen=True)
class Request:
    """One request as a node saw it. Times in milliseconds (``received_ms`` since the epoch), -1 if HAProxy knows none.

    ``by_target`` says whether the response was the target's own; otherwise the load balancer made it.
    ``flags`` are HAProxy's two termination letters (``--`` is a clean end).
    """

    received_ms: int
    node: str
    listener: int
    rule: str
    group: str
    target: str
    status: int
    by_target: bool
    flags: str
    connect_ms: int
    response_ms: int
    total_ms: int
    client: str
    method: str
    path: str
    trace: str

    @property
    def elb_status(self) -> int:
        """The status as ELB logs it: 460 when the client went away before the answer."""
        if self.flags.startswith("C") and not self.by_target:
            return 460
        return self.status

    @property
    def connection_failed(self) -> bool:
        """Report whether the connection to the target could not be opened."""
        return bool(self.target) and self.flags[1:] == "C" and self.flags[0] in "Ss"


def parse(line: bytes) -> Request | None:
    """A request, or None for any other line."""
    if not line.startswith(_LINE_START):
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    target = str(fields["target"])
    return Request(
        received_ms=int(fields["time"]),
        node=fields["node"],
        listener=int(fields["listener"]),
        rule=fields["rule"],
        group=fields["group"],
        target="" if target.startswith("-") else target,
        status=int(fields["status"]),
        by_target=fields["by"] == "target",
        flags=fields["flags"],
        connect_ms=int(fields["connect"]),
        response_ms=int(fields["response"]),
        total_ms=int(fields["total"]),
        client=fields["client"],
        method=fields["method"],
        path=fields["path"],
        trace=fields["id"],
    )


def read(path: Path) -> Iterator[Request]:
    """Every request in a node's log."""
    with path.open("rb") as log:
        for line in log:
            request = parse(line)
            if request is not None:
                yield request


class Tail:
    """Follows a log from where it is now; a log that was begun anew is read from its start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def new(self) -> list[Request]:
        """The requests written since the last call."""
        try:
            with self._path.open("rb") as log:
                if self._path.stat().st_size < self._position:
                    self._position, self._rest = 0, b""
                log.seek(self._position)
                content = log.read()
        except OSError:
            return []
        self._position += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [request for line in lines if (request := parse(line)) is not None]
