"""The names of the twin's world: what Route 53 and AWS's own zones answer inside a VPC.

Whoever knows a name publishes it under an owner of its own (the database's endpoint, a load balancer's aliases). The
cluster's CoreDNS forwards here everything that isn't the cluster's; a name nobody published does not exist, and no
question leaves the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import ports, processes

_PROCESS = "dns"
_PROBE_SECONDS = 1.0
_START_SECONDS = 20.0


def publish(twin: Twin, owner: str, names: Mapping[str, Sequence[str]]) -> None:
    """Replace all names of ``owner`` by these (name → addresses); they answer at once.

    Raises:
        TwinError: the owner is not a plain file name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", owner):
        message = f"{owner!r} can't own names: letters, digits, dot, hyphen and underscore are expected"
        raise TwinError(message)
    twin.hosts_directory.mkdir(parents=True, exist_ok=True)
    lines = [f"{address} {name}\n" for name, addresses in sorted(names.items()) for address in addresses]
    partial = twin.hosts_directory / f".{owner}.{os.getpid()}"
    partial.write_text("".join(lines))
    partial.replace(twin.hosts_directory / owner)


def withdraw(twin: Twin, owner: str) -> None:
    """Remove all names of ``owner``."""
    (twin.hosts_directory / owner).unlink(missing_ok=True)


def _answers(twin: Twin) -> bool:
    """Report whether the server replies to a query (for a name that doesn't exist)."""
    question = struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\x05probe\x07invalid\x00" + struct.pack("!2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(_PROBE_SECONDS)
        client.connect((twin.host_ip, twin.dns_port))
        try:
            client.send(question)
            return client.recv(512)[:2] == question[:2]
        except OSError:
            return False


def up(twin: Twin) -> None:
    """Start the server.

    Raises:
        TwinError: it doesn't answer; names its log.
    """
    twin.hosts_directory.mkdir(parents=True, exist_ok=True)
    if processes.find(twin, _PROCESS) is None:
        ports.require_free(twin, twin.host_ip, twin.dns_port, "DNS")
    server = Path(__file__).with_name("dns_server.py")
    arguments: list[str | Path] = [sys.executable, "-I", server, twin.hosts_directory, twin.host_ip, str(twin.dns_port)]
    process = processes.start(twin, _PROCESS, arguments)
    processes.wait_until(lambda: _answers(twin), "DNS", timeout_seconds=_START_SECONDS, process=process)


def down(twin: Twin) -> None:
    """Stop it and forget all names."""
    processes.stop(twin, _PROCESS)
    if twin.hosts_directory.parent.exists():
        shutil.rmtree(twin.hosts_directory.parent)


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the DNS server answers."""
    process = processes.find(twin, _PROCESS)
    if process is None:
        return [PartStatus("DNS", ok=False, detail=f"not running; log: {twin.logs / f'{_PROCESS}.log'}")]
    if not _answers(twin):
        return [PartStatus("DNS", ok=False, detail=f"pid {process.pid} runs but does not answer")]
    return [PartStatus("DNS", ok=True, detail=f"pid {process.pid} {twin.host_ip}:{twin.dns_port}")]
