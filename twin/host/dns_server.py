"""A name server for the twin's own names: every hosts file in a folder, NXDOMAIN for the rest of the world.

Run by file name, with the standard library alone: ``dns_server.py FOLDER ADDRESS PORT``. The folder is looked at with
each question, so a name answers the moment its file is there. Format: ``address name [name ...]`` a line, ``#``
comments; ``*.example.com`` stands for one or more labels, and the longest match wins, as in Route 53. Files that begin
with a dot are being written and don't count.

Not CoreDNS: the one built for the cluster lacks the ``bind`` plugin, so it would listen on every address of the machine;
its ``hosts`` plugin knows no wildcards and reads a changed file only after its ``reload`` interval.

Source of the message format: RFC 1035 section 4; of NXDOMAIN against an empty answer: RFC 2308.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import sys
from pathlib import Path

TTL_SECONDS = 5
"""Time to live of an RDS endpoint's address (an ALB's is 60): short, so that a fail-over is seen."""

_HEADER = struct.Struct("!6H")
_QUERY_RESPONSE, _AUTHORITATIVE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0100, 0x0080
_OPCODE = 0x7800
_NO_ERROR, _FORMAT_ERROR, _NAME_ERROR, _NOT_IMPLEMENTED = 0, 1, 3, 4
_A, _SOA, _AAAA, _ANY, _INTERNET = 1, 6, 28, 255, 1
_MAXIMUM_DATAGRAM = 512
_TRUNCATED = 0x0200

Addresses = dict[str, list[ipaddress.IPv4Address | ipaddress.IPv6Address]]


def parse_hosts(text: str) -> Addresses:
    """Names (lower case, no final dot) and their addresses; a line that isn't one is skipped."""
    addresses: Addresses = {}
    for line in text.splitlines():
        first, *names = line.partition("#")[0].split() or [""]
        try:
            address = ipaddress.ip_address(first)
        except ValueError:
            continue
        for name in names:
            known = addresses.setdefault(name.lower().rstrip("."), [])
            if address not in known:
                known.append(address)
    return addresses


class Names:
    """All hosts files of a folder, read again when one changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._addresses: Addresses = {}

    def lookup(self, name: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address] | None:
        """Return the name's addresses, or None if it does not exist."""
        self._refresh()
        wanted = name.lower().rstrip(".")
        if wanted in self._addresses:
            return self._addresses[wanted]
        labels = wanted.split(".")
        for start in range(1, len(labels)):
            wildcard = ".".join(["*", *labels[start:]])
            if wildcard in self._addresses:
                return self._addresses[wildcard]
        return None

    def _refresh(self) -> None:
        files = []
        for path in sorted(self._folder.glob("*")):
            try:
                if not path.name.startswith("."):
                    stat = path.stat()
                    files.append((path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                continue
        if files == self._seen:
            return
        merged: Addresses = {}
        for path, *_ in files:
            try:
                for name, addresses in parse_hosts(path.read_text()).items():
                    known = merged.setdefault(name, [])
                    known.extend(address for address in addresses if address not in known)
            except (OSError, UnicodeDecodeError):
                continue
        self._addresses, self._seen = merged, files


def _read_question(message: bytes) -> tuple[str, int, int]:
    """Name, type and end of the first question.

    Raises:
        ValueError: the message is not a question.
    """
    position, labels = _HEADER.size, []
    while True:
        if position >= len(message):
            raise ValueError("name runs past the end")
        length = message[position]
        position += 1
        if length == 0:
            break
        if length > 63 or position + length > len(message):
            raise ValueError("bad label")
        labels.append(message[position : position + length].decode("ascii", "replace"))
        position += length
    if position + 4 > len(message):
        raise ValueError("no type")
    kind, _ = struct.unpack_from("!2H", message, position)
    return ".".join(labels), kind, position + 4


def _record(kind: int, data: bytes) -> bytes:
    # 0xC00C points back at the question's name.
    return struct.pack("!HHHIH", 0xC00C, kind, _INTERNET, TTL_SECONDS, len(data)) + data


def _authority() -> bytes:
    """The SOA record, which says how long a negative answer may be cached."""
    name = b"\x04twin\x07invalid\x00"
    return _record(_SOA, name + name + struct.pack("!5I", 1, 60, 60, 3600, TTL_SECONDS))


def answer(message: bytes, names: Names) -> bytes | None:
    """The reply to a message; None to one that isn't a question at all."""
    if len(message) < _HEADER.size:
        return None
    identifier, flags, questions, *_ = _HEADER.unpack_from(message)
    if flags & _QUERY_RESPONSE:
        return None
    reply_flags = _QUERY_RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (flags & (_RECURSION_DESIRED | _OPCODE))
    if flags & _OPCODE:
        return _HEADER.pack(identifier, reply_flags | _NOT_IMPLEMENTED, 0, 0, 0, 0)
    refusal = _HEADER.pack(identifier, reply_flags | _FORMAT_ERROR, 0, 0, 0, 0)
    if questions != 1:
        return refusal
    try:
        name, kind, end = _read_question(message)
    except ValueError:
        return refusal
    addresses = names.lookup(name)
    records = [
        _record(_A if address.version == 4 else _AAAA, address.packed)
        for address in addresses or []
        if kind in (_ANY, _A if address.version == 4 else _AAAA)
    ]
    code = _NAME_ERROR if addresses is None else _NO_ERROR
    authority = b"" if records else _authority()
    header = _HEADER.pack(identifier, reply_flags | code, 1, len(records), 1 if authority else 0, 0)
    return header + message[_HEADER.size : end] + b"".join(records) + authority


def truncated(reply: bytes) -> bytes:
    """A reply that fits a datagram: if it doesn't, one that asks to come back over TCP."""
    if len(reply) <= _MAXIMUM_DATAGRAM:
        return reply
    identifier, flags, *_ = _HEADER.unpack_from(reply)
    _, _, end = _read_question(reply)
    return _HEADER.pack(identifier, flags | _TRUNCATED, 1, 0, 0, 0) + reply[_HEADER.size : end]


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, names: Names) -> None:
        self._names = names
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = answer(data, self._names)
        if reply is not None and self._transport is not None:
            self._transport.sendto(truncated(reply), addr)


async def _serve(folder: Path, address: str, port: int) -> None:
    names = Names(folder)

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                reply = answer(await reader.readexactly(length), names)
                if reply is None:
                    break
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(stream, address, port)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: _Datagrams(names), local_addr=(address, port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
