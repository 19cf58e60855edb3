"""HAProxy's runtime API, through the master's socket: what is said here reaches the old workers of a reload as well."""

from __future__ import annotations

import re
import socket
from pathlib import Path

_TIMEOUT_SECONDS = 5.0


class RuntimeApiError(Exception):
    """HAProxy did not take a command; the caller falls back to a reload."""


def command(master_socket: Path, text: str) -> str:
    """Send one command to the master and return its answer.

    Raises:
        OSError: nobody listens on the socket.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_SECONDS)
        connection.connect(str(master_socket))
        connection.sendall(text.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while received := connection.recv(65536):
            answer += received
    return answer.decode(errors="replace").strip()


def workers(master_socket: Path) -> tuple[list[int], list[int]]:
    """Process ids of the current workers and of old ones that still finish their connections."""
    current: list[int] = []
    old: list[int] = []
    into = current
    for line in command(master_socket, "show proc").splitlines():
        if line.startswith("# old workers"):
            into = old
        elif line.startswith("# programs"):
            break
        match = re.match(r"(\d+)\s+worker\s", line)
        if match:
            into.append(int(match.group(1)))
    return current, old


def failed_reloads(master_socket: Path) -> int:
    """Return how many reloads in a row this master could not load; it goes on with the worker it had."""
    match = re.search(r"\[failed: (\d+)\]", command(master_socket, "show proc"))
    return int(match.group(1)) if match else 0


def tell(master_socket: Path, pid: int, text: str) -> str:
    """One command to one worker."""
    return command(master_socket, f"@!{pid} {text}")


def replace_map(master_socket: Path, pid: int, path: Path, lines: dict[str, str]) -> None:
    """Replace a whole map at once: every rule changes at the same moment.

    Raises:
        RuntimeApiError: the worker has no such map, or refuses.
    """
    answer = tell(master_socket, pid, f"prepare map {path}")
    match = re.search(r"New version created: (\d+)", answer)
    if not match:
        raise RuntimeApiError(f"prepare map {path}: {answer or 'no answer'}")
    version = match.group(1)
    for key, value in lines.items():
        answer = tell(master_socket, pid, f"add map @{version} {path} {key} {value}")
        if answer:
            raise RuntimeApiError(f"add map {path} {key}: {answer}")
    answer = tell(master_socket, pid, f"commit map @{version} {path}")
    if answer:
        raise RuntimeApiError(f"commit map {path}: {answer}")


def set_server(master_socket: Path, pid: int, server: str, *, address: tuple[str, int] | None, state: str) -> None:
    """Give a server slot an address and a state (ready or maint).

    Raises:
        RuntimeApiError: the worker has no such server, or refuses.
    """
    if address is not None:
        answer = tell(master_socket, pid, f"set server {server} addr {address[0]} port {address[1]}")
        if "changed" not in answer and "no need to change" not in answer:
            raise RuntimeApiError(f"set server {server} addr: {answer or 'no answer'}")
    answer = tell(master_socket, pid, f"set server {server} state {state}")
    if answer:
        raise RuntimeApiError(f"set server {server} state {state}: {answer}")


def shut_sessions(master_socket: Path, pid: int, server: str) -> None:
    """Cut every request in flight on a server."""
    tell(master_socket, pid, f"shutdown sessions server {server}")
