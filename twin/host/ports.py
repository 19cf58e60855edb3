"""Check that a port is free before a part listens on it, so that the message names the cause."""

from __future__ import annotations

import errno
import socket

from twin.config import Twin
from twin.errors import TwinError


def require_free(twin: Twin, address: str, port: int, what: str) -> None:
    """Return if ``what`` can listen on TCP ``address:port``.

    Raises:
        TwinError: another program listens there.
    """
    with socket.socket() as probe:
        # As servers do: connections of an earlier run that linger don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise TwinError(f"{what} can't listen on {address}:{port}: {error.strerror}") from error
            raise TwinError(
                f"port {port} on {address} is taken, and {what} of the twin {twin.name!r} needs it; "
                f"`ss -ltnp 'sport = :{port}'` names who has it: stop that, or take another SHOPCAT_TWIN_NAME"
            ) from error
