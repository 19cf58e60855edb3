"""Run subprocesses: capture or stream their output, and interrupt them at a deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from infra.errors import ShopCatError
from pipeline.errors import CommandError

GRACE_SECONDS = 30
"""Time for a program to end by itself once it was interrupted."""


@dataclass(frozen=True)
class Finished:
    """Exit code and output of a program that has ended."""

    code: int
    text: str
    """Standard output and standard error, in the order they came."""
    interrupted: bool = False


Environment: TypeAlias = Mapping[str, str | None]
"""Variables on top of this process's own; None takes one away."""


def capture(arguments: Sequence[str], *, environment: Environment | None = None, cwd: Path | None = None) -> str:
    """Return the standard output of a program that must succeed.

    Raises:
        ShopCatError: it is not installed, or it failed; with the end of its output.
    """
    try:
        result = subprocess.run(
            arguments,
            env=_merged(environment),
            cwd=cwd,
            encoding="utf-8",
            errors="replace",  # a program may print any bytes
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
    except OSError as error:
        raise _absent(arguments[0], error) from error
    if result.returncode != 0:
        output = (result.stderr.strip() or result.stdout.strip())[-2000:]
        raise CommandError(f"`{' '.join(arguments[:3])} …` failed (exit {result.returncode}): {output}")
    return result.stdout


def show(
    arguments: Sequence[str],
    *,
    environment: Environment | None = None,
    cwd: Path | None = None,
    text: str | None = None,
    deadline_seconds: float | None = None,
) -> Finished:
    """Run a program and print its output line by line, as it comes.

    Args:
        arguments: the program and its arguments.
        environment: on top of this process's own.
        cwd: where it runs.
        text: its standard input; None: closed.
        deadline_seconds: time until it is interrupted (SIGINT, on which Pulumi ends in order: what it has begun is finished
            and recorded, its lock given back), and killed :data:`GRACE_SECONDS` later, with all that it has started.

    Raises:
        ShopCatError: it is not installed.
    """
    try:
        running = subprocess.Popen(
            arguments,
            env=_merged(environment),
            cwd=cwd,
            encoding="utf-8",
            errors="replace",  # a program may print any bytes
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise _absent(arguments[0], error) from error
    late = threading.Event()

    def interrupt() -> None:
        late.set()
        running.send_signal(signal.SIGINT)

    timers = []
    if deadline_seconds is not None:
        timers = [
            threading.Timer(deadline_seconds, interrupt),
            threading.Timer(deadline_seconds + GRACE_SECONDS, kill_with_children, [running.pid]),
        ]
        for timer in timers:
            timer.start()
    lines: list[str] = []
    try:
        if text is not None and running.stdin is not None:
            with contextlib.suppress(BrokenPipeError), running.stdin:  # it may end without reading
                running.stdin.write(text)
        for line in running.stdout or ():
            print(_printable(line), end="", flush=True)
            lines.append(line)
        code = running.wait()
    except BaseException as error:
        _end(running, interrupted=isinstance(error, KeyboardInterrupt))
        raise
    finally:
        for timer in timers:
            timer.cancel()
    return Finished(code, "".join(lines), late.is_set())


def _printable(line: str) -> str:
    """Return the line with what this process's own output can't encode replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "replace").decode(encoding, "replace")


def _end(running: subprocess.Popen[str], *, interrupted: bool) -> None:
    """End a program whose output nobody reads any more."""
    if not interrupted:  # else the terminal has sent SIGINT already, and at a second one Pulumi ends at once
        running.send_signal(signal.SIGINT)
    try:
        running.communicate(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        kill_with_children(running.pid)
        running.communicate()


def kill_with_children(pid: int) -> None:
    """Kill a program and its children: Pulumi's plugins outlive it by minutes, in process groups of their own."""
    doomed, parents = [pid], _parents()
    for parent in doomed:
        doomed += [child for child, its_parent in parents.items() if its_parent == parent]
    for process in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _parents() -> dict[int, int]:
    """Return the parent of every process; nothing where there is no /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
    return parents


def _merged(environment: Environment | None) -> dict[str, str]:
    merged: dict[str, str | None] = {**os.environ, **(environment or {})}
    return {name: value for name, value in merged.items() if value is not None}


def _absent(program: str, error: OSError) -> ShopCatError:
    return ShopCatError(f"{program} can't be started ({error.strerror}); install it or put it on PATH")
