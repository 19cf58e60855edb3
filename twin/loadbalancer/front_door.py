"""A way in for people: one address on which every load balancer answers by host name, as the internet's DNS would do.

HTTPS is passed on untouched by its server name (TLS ends at the load-balancer node); HTTP by its Host header.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.loadbalancer import haproxy_runtime_api
from twin.loadbalancer.dns_names import host_maps
from twin.loadbalancer.haproxy import reload_haproxy, start_haproxy

PROCESS = "front-door"
PORTS = (443, 80)
ADDRESS_VARIABLE = "SHOPCAT_TWIN_ADDRESS"


def address(twin: Twin) -> str:
    """The front door's address: ``$SHOPCAT_TWIN_ADDRESS``, else 127.0.0.1 (127.0.0.<1 + index> for a second twin)."""
    return os.environ.get(ADDRESS_VARIABLE) or f"127.0.0.{1 + twin.index}"


def _listening_inode(ip: str, port: int) -> str | None:
    """Inode of the socket that listens on the port, on this address or on all."""
    packed = socket.inet_aton(ip)[::-1].hex().upper()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local, listening = fields[1], fields[3] == "0A"
            owner, _, number = local.partition(":")
            if listening and int(number, 16) == port and (owner == packed or set(owner) == {"0"}):
                return fields[9]
    return None


def _socket_inodes(process: Path) -> set[str]:
    inodes = set()
    with contextlib.suppress(OSError):
        for link in list((process / "fd").iterdir()):
            with contextlib.suppress(OSError):
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    return inodes


def holder(ip: str, port: int) -> str:
    """The process that holds a port, as far as it can be seen, such as ``nginx (pid 812)``."""
    inode = _listening_inode(ip, port)
    if inode is None:
        return "a process that can't be seen from here"
    for process in Path("/proc").glob("[0-9]*"):
        if inode in _socket_inodes(process):
            return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return "a process of another user"


def refuse_taken_ports(ip: str) -> list[int]:
    """Return the ports that this user has no right to open; a port that is taken is an error.

    Raises:
        TwinError: a port is taken, or the address is none of this machine's.
    """
    forbidden = []
    for port in PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, port))
                probe.listen(1)
            except PermissionError:
                forbidden.append(port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    message = (
                        f"port {port} on {ip} is taken by {holder(ip, port)}; stop it, or move the twin's front door "
                        f"with {ADDRESS_VARIABLE}=127.0.0.2 (any address of 127.0.0.0/8)"
                    )
                    raise TwinError(message) from error
                message = (
                    f"{ADDRESS_VARIABLE}={ip} can't be used ({error.strerror}); any address of 127.0.0.0/8 will do"
                )
                raise TwinError(message) from error
    return forbidden


def render(ip: str, directory: Path, backends: Mapping[str, Sequence[str]]) -> str:
    """The front door's configuration.

    Args:
        ip: where it listens.
        directory: its files.
        backends: backend → the load balancer's node addresses.
    """
    exact, suffixes = directory / "exact.map", directory / "suffixes.map"
    lines = [
        "global",
        f"  stats socket {directory}/stats.sock level admin expose-fd listeners",
        "  nbthread 1",
        "  maxconn 8000",
        "defaults",
        "  retries 0",
        "  timeout connect 5s",
        "  timeout client 4000s",
        "  timeout server 4000s",
        "  option idle-close-on-response",
        "frontend https",
        "  mode tcp",
        f"  bind {ip}:443",
        "  tcp-request inspect-delay 5s",
        f"  tcp-request content set-var(sess.to) req.ssl_sni,lower,map_str({exact}) if {{ req.ssl_hello_type 1 }}",
        (
            f"  tcp-request content set-var(sess.to) req.ssl_sni,lower,map_end({suffixes})"
            " if { req.ssl_hello_type 1 } !{ var(sess.to) -m found }"
        ),
        "  tcp-request content reject if { req.ssl_hello_type 1 } !{ var(sess.to) -m found }",
        "  tcp-request content accept if { req.ssl_hello_type 1 }",
        "  use_backend https-%[var(sess.to)]",
        "frontend http",
        "  mode http",
        f"  bind {ip}:80",
        f"  http-request set-var(sess.to) req.hdr(host),field(1,:),lower,map_str({exact})",
        (
            f"  http-request set-var(sess.to) req.hdr(host),field(1,:),lower,map_end({suffixes})"
            " if !{ var(sess.to) -m found }"
        ),
        (
            '  http-request return status 404 content-type text/plain string "twin: no load balancer has this name\\n"'
            " if !{ var(sess.to) -m found }"
        ),
        "  use_backend http-%[var(sess.to)]",
    ]
    for name, addresses in sorted(backends.items()):
        for scheme, port, mode in (("https", 443, "tcp"), ("http", 80, "http")):
            lines += [f"backend {scheme}-{name}", f"  mode {mode}", "  balance roundrobin"]
            lines += [f"  server node{i} {ip_}:{port}" for i, ip_ in enumerate(addresses, 1)]
    return "\n".join(lines) + "\n"


class FrontDoor:
    """The front door's HAProxy; reloaded only when a load balancer comes or goes."""

    def __init__(self, twin: Twin, ip: str, directory: Path) -> None:
        self._twin = twin
        self._ip = ip
        self._directory = directory
        self._text = ""
        self._maps: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def apply(self, names: Mapping[str, str], keys: Mapping[str, str], nodes: Mapping[str, Sequence[str]]) -> None:
        """Follow these names.

        Args:
            names: DNS name → load balancer ARN.
            keys: load balancer ARN → a short name.
            nodes: load balancer ARN → its nodes' loopback addresses.

        Raises:
            TwinError: HAProxy did not start.
        """
        text = render(self._ip, self._directory, {keys[arn]: nodes[arn] for arn in keys})
        maps = host_maps(names, keys)
        process = processes.find(self._twin, PROCESS)
        if process is not None and text == self._text and maps == self._maps:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        master = self._directory / "master.sock"
        files = (self._directory / "exact.map", self._directory / "suffixes.map")
        for file, lines in zip(files, maps, strict=True):
            file.write_text("".join(f"{name} {key}\n" for name, key in sorted(lines.items())))
        (self._directory / "haproxy.cfg").write_text(text)
        if process is None:
            process = start_haproxy(self._twin, PROCESS, self._directory / "haproxy.cfg", master)
            processes.wait_until(
                lambda: bool(haproxy_runtime_api.workers(master)[0]),
                f"the front door on {self._ip}",
                timeout_seconds=10,
                process=process,
            )
        elif text == self._text:
            for pid in haproxy_runtime_api.workers(master)[0]:
                for file, lines in zip(files, maps, strict=True):
                    haproxy_runtime_api.replace_map(master, pid, file, lines)
        else:
            reload_haproxy(process, master)
        self._text, self._maps = text, maps

    def stop(self) -> None:
        """Stop it."""
        processes.stop(self._twin, PROCESS)
