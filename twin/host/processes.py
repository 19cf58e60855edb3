"""Processes of the twin: started in the background, found again by pid and start time, stopped by pid alone."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twin.config import Twin
from twin.errors import TwinError

_POLL_SECONDS = 0.1


def heed_interrupts() -> None:
    """Let this process, and what it starts, be interrupted, also where a shell has put it into the background.

    Such a shell has it ignore SIGINT, and so does all that it starts: Pulumi then waits 5 s for a plugin to heed one.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Process:
    """A started process. The start time (clock ticks after boot) tells it from a later one with the same pid."""

    name: str
    pid: int
    started_ticks: int
    log: Path

    def alive(self) -> bool:
        """Report whether this very process still has a running thread; its ports are taken until the last thread ends."""
        return _start_ticks(self.pid) == self.started_ticks


def _start_ticks(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, threads = fields[0], int(fields[17])
    # The first thread of a killed process is a zombie at once, while others still give back memory and files.
    if state in ("Z", "X") and threads <= 1:
        return None
    return int(fields[19])


def _pidfile(twin: Twin, name: str) -> Path:
    return twin.directory / "run" / f"{name}.json"


def find(twin: Twin, name: str) -> Process | None:
    """The running process of that name, or None."""
    path = _pidfile(twin, name)
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    process = Process(name, record["pid"], record["started_ticks"], twin.logs / f"{name}.log")
    return process if process.alive() else None


def names(twin: Twin) -> list[str]:
    """Every process name this twin ever started and did not stop."""
    return sorted(path.stem for path in (twin.directory / "run").glob("*.json"))


def start(
    twin: Twin,
    name: str,
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    netns: str | None = None,
    user: str | None = None,
    cwd: Path | None = None,
) -> Process:
    """Start ``argv`` in the background unless it already runs; its output goes to ``logs/<name>.log``.

    ``env`` is added to this process's environment. ``netns`` runs it in that network namespace (sharing all mounts);
    ``user`` drops root.

    Raises:
        TwinError: the program does not exist.
    """
    running = find(twin, name)
    if running is not None:
        return running
    twin.logs.mkdir(parents=True, exist_ok=True)
    _pidfile(twin, name).parent.mkdir(parents=True, exist_ok=True)
    command = [str(part) for part in argv]
    if netns is not None:
        command = ["nsenter", f"--net=/var/run/netns/{netns}", *command]
    log = twin.logs / f"{name}.log"
    account = pwd.getpwnam(user) if user is not None else None
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd or twin.directory,
                start_new_session=True,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )
        except FileNotFoundError as error:
            message = f"{name}: the program {command[0]} is missing; run `python -m twin build`"
            raise TwinError(message) from error
    ticks = _start_ticks(child.pid)
    record = {"pid": child.pid, "started_ticks": ticks if ticks is not None else -1, "argv": command}
    _pidfile(twin, name).write_text(json.dumps(record))
    return Process(name, child.pid, record["started_ticks"], log)  # type: ignore[arg-type]


def stop(twin: Twin, name: str, *, grace_seconds: float = 10.0, by: signal.Signals = signal.SIGTERM) -> None:
    """Stop a process: SIGTERM or what is given, then SIGKILL; when this returns, its ports and files are free.

    Nothing happens if it doesn't run.
    """
    process = find(twin, name)
    if process is not None:
        _signal(process.pid, by)
        deadline = time.monotonic() + grace_seconds
        while process.alive() and time.monotonic() < deadline:
            _reap(process.pid)
            time.sleep(_POLL_SECONDS)
        if process.alive():
            _signal(process.pid, signal.SIGKILL)
            while process.alive():
                _reap(process.pid)
                time.sleep(_POLL_SECONDS)
    _pidfile(twin, name).unlink(missing_ok=True)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def wait_until(
    probe: Callable[[], bool],
    what: str,
    *,
    timeout_seconds: float,
    process: Process | None = None,
) -> None:
    """Wait until ``probe`` is true; exceptions of type OSError count as "not yet".

    Raises:
        TwinError: it took longer than ``timeout_seconds``, or ``process`` died; names its log and shows its end.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        with contextlib.suppress(OSError):
            if probe():
                return
        died = process is not None and not process.alive()
        if died or time.monotonic() > deadline:
            reason = "its process ended" if died else f"not within {timeout_seconds:.0f} s"
            where = f"; log: {process.log}\n{tail(process.log)}" if process is not None else ""
            message = f"{what}: {reason}{where}"
            raise TwinError(message)
        time.sleep(_POLL_SECONDS)
