"""The load generator against a server that misbehaves in a counted way."""

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from bench.load import Load, LoadError, Outcome, Stream, percentile, summarize
from bench.reconcile import disagreements, orders_lost_or_doubled
from twin.loadbalancer.access_log import Request


class Server:
    """Answers on loopback; resets and refuses as often as it is told, and can stand still."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.resets = 0
        self.errors = 0
        self.stall_until = 0.0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(5)

    def _run(self) -> None:
        async def serve() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve())
        self._loop.run_forever()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            self.requests.append(head)
            await asyncio.sleep(max(0.0, self.stall_until - time.monotonic()))
            if self.resets > 0:
                self.resets -= 1
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            status = b"200 OK"
            if self.errors > 0:
                self.errors -= 1
                status = b"503 Service Unavailable"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\nX-ShopCat-Colour: blue\r\n\r\nok")
            await writer.drain()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def load(server: Server, *streams: Stream, seconds: float = 1.0) -> list[Outcome]:
    with Load(
        "127.0.0.1", "shop.test", port=server.port, ca_file=None, streams=streams, maximum_seconds=seconds
    ) as run:
        time.sleep(seconds + 0.2)
        return run.stop()


def test_every_injected_failure_is_counted_once(server: Server) -> None:
    server.resets, server.errors = 7, 5
    outcomes = load(server, Stream("a", 60.0), Stream("b", 20.0, fresh=True))
    assert Counter(outcome.failure for outcome in outcomes if outcome.failure) in (
        Counter({"reset": 7, "http-503": 5}),
        Counter({"closed": 7, "http-503": 5}),
    )
    assert summarize(outcomes).failed == 12


def test_nothing_is_ever_sent_twice(server: Server) -> None:
    server.resets = 20
    outcomes = load(server, Stream("a", 50.0))
    assert len(server.requests) == len(outcomes)
    assert len({outcome.trace for outcome in outcomes}) == len(outcomes)


def test_the_rate_holds_and_latency_counts_from_when_a_request_was_due(server: Server) -> None:
    server.stall_until = time.monotonic() + 0.8
    outcomes = load(server, Stream("a", 50.0), seconds=1.5)
    assert len(outcomes) in range(75, 78)
    early = [outcome for outcome in outcomes if outcome.due - min(each.due for each in outcomes) < 0.2]
    assert all(outcome.latency_seconds > 0.5 for outcome in early)
    assert summarize(outcomes).p99 > 0.5


def test_an_answer_without_what_it_must_hold_has_failed(server: Server) -> None:
    assert {outcome.failure for outcome in load(server, Stream("a", 20.0, contains="ok"), seconds=0.3)} == {""}
    assert {outcome.failure for outcome in load(server, Stream("a", 20.0, contains="cat"), seconds=0.3)} == {
        "wrong-body"
    }


def test_connections_are_kept_alive_or_fresh_as_asked(server: Server) -> None:
    kept = load(server, Stream("a", 40.0))
    assert sum(outcome.reused for outcome in kept) > len(kept) / 2
    assert {outcome.colour for outcome in kept} == {"blue"}
    assert not any(outcome.reused for outcome in load(server, Stream("a", 40.0, fresh=True)))


def test_a_connection_that_was_idle_for_long_is_not_used_again(server: Server) -> None:
    streams = [Stream("a", 5.0)]
    with Load(
        "127.0.0.1", "x", port=server.port, ca_file=None, streams=streams, maximum_seconds=1, longest_idle_seconds=0.05
    ) as run:
        time.sleep(1.2)
        outcomes = run.stop()
    assert len(outcomes) > 3
    assert not any(outcome.reused or outcome.failure for outcome in outcomes)


def test_a_request_without_answer_times_out(server: Server) -> None:
    server.stall_until = time.monotonic() + 3
    outcomes = load(server, Stream("a", 10.0, timeout_seconds=0.3), seconds=0.5)
    assert {outcome.failure for outcome in outcomes} == {"timeout"}


def test_nobody_listening_is_a_failed_connection() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    streams = [Stream("a", 20.0)]
    with Load("127.0.0.1", "x", port=port, ca_file=None, streams=streams, maximum_seconds=0.4) as run:
        time.sleep(0.5)
        assert {outcome.failure for outcome in run.stop()} == {"connect"}


def test_load_stays_on_this_machine_and_within_bounds() -> None:
    with pytest.raises(LoadError, match="loopback"):
        Load("192.0.2.1", "x", ca_file=None)
    with pytest.raises(LoadError, match="at most"):
        Load("127.0.0.1", "x", ca_file=None, streams=[Stream("a", 1e6)])


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([3.0], 0.99) == 3.0


def outcome(trace: str, status: int = 200, failure: str = "", key: str = "") -> Outcome:
    return Outcome("a", trace, 0.0, 1.0, status, failure, key=key)


def logged(trace: str, status: int, flags: str = "--", *, by_target: bool = True) -> Request:
    return Request(0, "n", 443, "r", "g", "t", status, by_target, flags, 0, 0, 0, "c", "GET", "/", trace)


def test_client_and_load_balancer_have_to_agree_on_each_request() -> None:
    assert disagreements([outcome("a"), outcome("b", 502, "http-502")], [logged("a", 200), logged("b", 502)]) == []
    assert disagreements([outcome("a", 0, "connect")], []) == []
    assert "not in its log" in str(disagreements([outcome("a")], [])[0])
    assert "HTTP 502" in str(disagreements([outcome("a")], [logged("a", 502)])[0])
    assert "sent no such request" in str(disagreements([], [logged("Root=1-a", 502)])[0])
    assert disagreements([], [logged("made-up", 502)]) == []


def test_what_the_load_balancer_cut_is_a_failure_to_both() -> None:
    cut = logged("Root=1-a", -1, "K-", by_target=False)
    assert disagreements([outcome("Root=1-a", 502, "http-502")], [cut]) == []
    assert disagreements([outcome("Root=1-a", 0, "closed")], [cut]) == []
    assert "HTTP 200" in str(disagreements([outcome("Root=1-a")], [cut])[0])
    assert "sent no such request" in str(disagreements([], [cut])[0])
    assert disagreements([outcome("a", 0, "reset")], [logged("a", 200)])


def test_acknowledged_orders_are_stored_exactly_once() -> None:
    good, failed = outcome("a", 201, key="k"), outcome("b", 502, "http-502", key="l")
    assert orders_lost_or_doubled([good, failed], {"k": 1}) == []
    assert orders_lost_or_doubled([good], {}) == ["k"]
    assert orders_lost_or_doubled([good], {"k": 2}) == ["k"]
