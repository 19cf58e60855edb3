"""Our own requests through the load balancer."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol

import urllib3

from infra.clients import threads
from infra.names import COLOUR_HEADER


@dataclass(frozen=True)
class Probe:
    """One of our own requests through the load balancer."""

    ok: bool
    what: str
    colour: str = ""
    """The colour that answered, if the answer names it."""
    reached: bool = True
    """The load balancer was reached; without that the answer says nothing of the shop."""


class Prober(Protocol):
    """Sends one request through the load balancer."""

    async def __call__(self) -> Probe:
        """Return the outcome; never raises."""


class HttpsProber:
    """GET of the shop's page on a fresh connection each time; TLS trust follows SSL_CERT_FILE as everywhere.

    Names below `localhost` are this machine (RFC 6761), also where the resolver doesn't know them.

    Args:
        url: of the shop; its host is the TLS server name and the Host header.
        timeout_seconds: for the connection, and for the answer.
        address: host to connect to in place of the URL's, for one load balancer of several with that name.
    """

    def __init__(self, url: str, timeout_seconds: float = 10, address: str = "") -> None:
        self._url = urllib3.util.parse_url(url)
        self._timeout = timeout_seconds
        self._address = address

    def _pool(self) -> urllib3.HTTPConnectionPool:
        host = self._url.host or ""
        address = self._address or ("127.0.0.1" if host.endswith(".localhost") and not _resolves(host) else host)
        if self._url.scheme == "https":
            return urllib3.HTTPSConnectionPool(
                address, self._url.port or 443, server_hostname=host, assert_hostname=host, timeout=self._timeout
            )
        return urllib3.HTTPConnectionPool(address, self._url.port or 80, timeout=self._timeout)

    def get(self) -> Probe:
        """Send one request and wait for it; never raises."""
        headers = {"Host": self._url.netloc or "", "Connection": "close"}
        try:
            with self._pool() as pool:
                response = pool.request("GET", self._url.path or "/", headers=headers, retries=False)
        except urllib3.exceptions.ReadTimeoutError:
            return Probe(ok=False, what=f"no answer within {self._timeout} s")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Probe(ok=False, what=f"{type(error).__name__}: {error}", reached=False)
        return Probe(response.status < 400, f"HTTP {response.status}", response.headers.get(COLOUR_HEADER, ""))

    async def __call__(self) -> Probe:
        """Send one request, off the event loop."""
        return await threads.in_thread(self.get)


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False
