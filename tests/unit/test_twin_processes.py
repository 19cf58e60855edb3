"""A stopped process is gone with all its threads, so what comes after it finds the port free."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from twin.config import Twin
from twin.errors import TwinError
from twin.host import ports, processes

# The kernel ends a killed process's threads one by one, the first one first; here that moment lasts.
_FIRST_THREAD_ENDS = """
import ctypes, platform, socket, sys, threading, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
ctypes.CDLL(None).syscall(93 if platform.machine() == "aarch64" else 60, 0)  # exit: of this thread alone
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_process_whose_first_thread_has_ended_is_still_found_and_stopped(tmp_path: Path) -> None:
    twin = Twin("processes", 0, tmp_path / "cache", tmp_path / "state", simulated=True)
    twin.directory.mkdir(parents=True)
    port = _free_port()
    process = processes.start(twin, "server", [sys.executable, "-c", _FIRST_THREAD_ENDS, str(port)])

    def first_thread_is_gone() -> bool:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    try:
        processes.wait_until(first_thread_is_gone, "the first thread ends", timeout_seconds=30)
        with pytest.raises(TwinError, match=f"port {port} on 127.0.0.1 is taken"):
            ports.require_free(twin, "127.0.0.1", port, "the server")
        assert processes.find(twin, "server") == process
    finally:
        processes.stop(twin, "server")
    assert processes.find(twin, "server") is None
    ports.require_free(twin, "127.0.0.1", port, "the server")
