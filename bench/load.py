"""Constant load over HTTPS on this machine, every request accounted for.

* Open loop: request ``n`` of a stream is due at ``start + n / rate`` whatever happened to the others, and its latency
  counts from then (no coordinated omission).
* Never a retry: one request is one attempt on one connection. A request that meets a kept-alive connection which the other
  side has just closed has failed, and is counted so.
* Loopback addresses only; bounded in count and time; stops by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from twin.errors import TwinError

TRACE_PREFIX = "Root=1-"
"""Begin of our requests' ids."""
MAXIMUM_REQUESTS = 3_000_000
MAXIMUM_SECONDS = 24 * 3600.0
LONGEST_IDLE_SECONDS = 30.0
"""A kept-alive connection that nobody used for so long is closed by us, before the load balancer does (its idle timeout
is longer): as browsers and HTTP libraries do, so that only what a release does closes one under a request."""
_LARGEST_ANSWER = 1 << 20


class LoadError(TwinError):
    """A load that can't be run."""


@dataclass(frozen=True)
class Stream:
    """Requests of one kind at a steady rate."""

    name: str
    rate: float
    """Requests a second."""
    path: str = "/"
    fresh: bool = False
    """A connection of its own for each request; otherwise connections are kept alive and used again."""
    order: bool = False
    """POST an order with an idempotency key of its own."""
    timeout_seconds: float = 45.0
    expected: int = 200
    contains: str = ""
    """Text that the answer's body must hold."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one request. Times are seconds since the epoch; ``failure`` is empty when it went well."""

    stream: str
    trace: str
    due: float
    ended: float
    status: int = 0
    failure: str = ""
    """connect, tls, reset, closed, timeout, malformed, wrong-body, or http-<status>."""
    reused: bool = False
    colour: str = ""
    release: str = ""
    pod: str = ""
    key: str = ""
    """Idempotency key of an order."""

    @property
    def latency_seconds(self) -> float:
        """Seconds from when it was due."""
        return self.ended - self.due


PAGE, ORDER, LONG = "Latest order", '"id"', '"slept"'
"""Texts in the shop's answers."""

MIX = (
    Stream("page, kept alive", 16.0, contains=PAGE),
    Stream("page, fresh", 4.0, fresh=True, contains=PAGE),
    Stream("order", 4.0, path="/orders", order=True, expected=201, contains=ORDER),
    Stream("long", 1.2, path="/slow?seconds=20", contains=LONG),
)
"""About 25 requests a second, of which some 24 long ones are always in flight."""


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: bool = False
    idle_since: float = 0.0

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.writer.transport.abort()


class _FailedError(Exception):
    """Failure of a request, of the kind that the text names."""


class Load:
    """Load on one HTTPS host, in a thread of its own.

    Args:
        address: where to connect to; must be loopback.
        host: name asked for, in TLS and in the request.
        ca_file: whom to trust; None for plain HTTP.
        streams: what to send.
        maximum_seconds: when it stops by itself.
        longest_idle_seconds: how long a kept-alive connection may wait for its next request.

    Raises:
        LoadError: the address is not on this machine, or the load has no bound.
    """

    def __init__(
        self,
        address: str,
        host: str,
        *,
        port: int = 443,
        ca_file: Path | None,
        streams: Sequence[Stream] = MIX,
        maximum_seconds: float = 3600.0,
        longest_idle_seconds: float = LONGEST_IDLE_SECONDS,
    ) -> None:
        if not ipaddress.ip_address(address).is_loopback:
            raise LoadError(f"load goes to this machine only, and {address} is not a loopback address")
        total = sum(stream.rate for stream in streams) * maximum_seconds
        if not 0 < maximum_seconds <= MAXIMUM_SECONDS or total > MAXIMUM_REQUESTS:
            raise LoadError(
                f"{total:.0f} requests in {maximum_seconds:.0f} s: at most {MAXIMUM_REQUESTS} in {MAXIMUM_SECONDS:.0f} s"
            )
        self._address, self._host, self._port = address, host, port
        self._streams, self._maximum_seconds = tuple(streams), maximum_seconds
        self._tls = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
        self._idle: list[_Connection] = []
        self._longest_idle = longest_idle_seconds
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        self.started = 0.0

    # --- from outside

    def __enter__(self) -> Self:
        """Start."""
        self.started = time.time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no more, wait for what is in flight."""
        self.stop()

    def stop(self) -> list[Outcome]:
        """Send no more, wait until every request in flight has ended, and return all outcomes."""
        self._stopping.set()
        self._thread.join(max(stream.timeout_seconds for stream in self._streams) + 10)
        if self._thread.is_alive():
            raise LoadError("requests are still in flight past every time-out")
        return self.outcomes

    @property
    def outcomes(self) -> list[Outcome]:
        """Requests that have ended so far."""
        with self._lock:
            return list(self._outcomes)

    @property
    def failures(self) -> list[Outcome]:
        """Requests that have failed so far."""
        return [outcome for outcome in self.outcomes if outcome.failure]

    # --- inside

    async def _run(self) -> None:
        start = time.time()
        async with asyncio.TaskGroup() as group:
            for place, stream in enumerate(self._streams):
                # Streams of equal rates don't send at the same instant.
                group.create_task(self._send(group, stream, start + place / (stream.rate * len(self._streams))))
        for connection in self._idle:
            connection.close()

    async def _send(self, group: asyncio.TaskGroup, stream: Stream, start: float) -> None:
        number = 0
        while not self._stopping.is_set():
            due = start + number / stream.rate
            if due - start > self._maximum_seconds:
                return
            wait = due - time.time()
            if wait > 0.05:
                await asyncio.sleep(min(wait, 0.5))
                continue
            if wait > 0:
                await asyncio.sleep(wait)
            group.create_task(self._request(stream, due))
            number += 1

    async def _request(self, stream: Stream, due: float) -> None:
        trace = f"{TRACE_PREFIX}{int(due):08x}-{uuid.uuid4().hex[:24]}"
        key = str(uuid.uuid4()) if stream.order else ""
        connection: _Connection | None = None
        status, headers, body, failure, reused = 0, dict[str, str](), b"", "", False
        try:
            async with asyncio.timeout(stream.timeout_seconds):
                connection = await self._connect(stream)
                reused = connection.used
                status, headers, body = await self._exchange(connection, stream, trace, key)
        except TimeoutError:
            failure = "timeout"
        except _FailedError as error:
            failure = str(error)
        if not failure and status != stream.expected:
            failure = f"http-{status}"
        elif not failure and stream.contains.encode() not in body:
            failure = "wrong-body"
        if connection is not None:
            keep = not failure.startswith(("timeout", "reset", "closed", "malformed")) and not stream.fresh
            if keep and headers.get("connection", "").lower() != "close":
                connection.used = True
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                connection.close()
        outcome = Outcome(
            stream=stream.name,
            trace=trace,
            due=due,
            ended=time.time(),
            status=status,
            failure=failure,
            reused=reused,
            colour=headers.get("x-shopcat-colour", ""),
            release=headers.get("x-shopcat-release", ""),
            pod=headers.get("x-shopcat-pod", ""),
            key=key,
        )
        with self._lock:
            self._outcomes.append(outcome)

    async def _connect(self, stream: Stream) -> _Connection:
        while self._idle and not stream.fresh:
            connection = self._idle.pop()
            # A connection that is known to be closed is not used; one that closes from now on is the request's failure.
            idle = time.monotonic() - connection.idle_since
            if idle > self._longest_idle or connection.reader.at_eof() or connection.writer.is_closing():
                connection.close()
                continue
            return connection
        try:
            reader, writer = await asyncio.open_connection(
                self._address, self._port, ssl=self._tls, server_hostname=self._host if self._tls else None
            )
        except ssl.SSLError as error:
            raise _FailedError("tls") from error
        except OSError as error:
            raise _FailedError("connect") from error
        return _Connection(reader, writer)

    async def _exchange(
        self, connection: _Connection, stream: Stream, trace: str, key: str
    ) -> tuple[int, dict[str, str], bytes]:
        body = json.dumps({"item": "Cat tree", "quantity": 1}).encode() if stream.order else b""
        head = [
            f"{'POST' if stream.order else 'GET'} {stream.path} HTTP/1.1",
            f"Host: {self._host}",
            f"X-Amzn-Trace-Id: {trace}",
            f"Connection: {'close' if stream.fresh else 'keep-alive'}",
        ]
        if stream.order:
            head += [f"Idempotency-Key: {key}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        try:
            connection.writer.write("\r\n".join([*head, "", ""]).encode() + body)
            await connection.writer.drain()
            status, headers = await _read_head(connection.reader)
            answer = await _read_body(connection.reader, headers)
        except asyncio.IncompleteReadError as error:
            raise _FailedError("closed") from error
        except OSError as error:
            raise _FailedError("reset") from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise _FailedError("malformed") from error
        return status, headers, answer


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, status, *_ = lines[0].split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(lines[0])
    headers = {}
    for line in filter(None, lines[1:]):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(status), headers


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body
    length = int(headers.get("content-length", "0"))
    if length > _LARGEST_ANSWER:
        raise ValueError(f"an answer of {length} bytes")
    return await reader.readexactly(length)


# --- outcomes


@dataclass(frozen=True)
class Summary:
    """Counts and latencies of some requests; latencies in seconds, of those that went well."""

    requests: int
    failed: int
    by_failure: Mapping[str, int] = field(default_factory=dict)
    p50: float = 0.0
    p99: float = 0.0


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least this share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * len(ordered) * 1000) // 1000) - 1))]


def summarize(outcomes: Iterable[Outcome]) -> Summary:
    """Summarize all streams together; latency of the short requests alone, since a long one takes as long as it asks for."""
    every = list(outcomes)
    kinds: dict[str, int] = {}
    for outcome in every:
        if outcome.failure:
            kinds[outcome.failure] = kinds.get(outcome.failure, 0) + 1
    good = [outcome.latency_seconds for outcome in every if not outcome.failure and outcome.stream != "long"]
    return Summary(len(every), sum(kinds.values()), kinds, percentile(good, 0.5), percentile(good, 0.99))


def write(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write one JSON object a line."""
    with path.open("w") as file:
        for outcome in outcomes:
            file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")


def read(path: Path) -> list[Outcome]:
    """Return what :func:`write` wrote."""
    with path.open() as file:
        return [Outcome(**json.loads(line)) for line in file]
