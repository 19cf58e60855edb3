"""Programs that the bench runs in a twin's environment: to their end, or in the background as a release tool."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from twin import config, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.paths import REPOSITORY

_IN_ORDER = (
    "import json, subprocess, sys\n"
    "for argv in json.loads(sys.argv[1]):\n"
    "    code = subprocess.run(argv, stdin=subprocess.DEVNULL).returncode\n"
    "    if code: sys.exit(code)\n"
)

_started: list[subprocess.Popen[str]] = []


def environment(twin: Twin) -> Mapping[str, str]:
    """Return the environment of a program that talks to the twin's cluster and AWS."""
    return {**os.environ, **pulumi.environment(twin), "AWS_DEFAULT_REGION": config.region()}


def execute(twin: Twin, argv: Sequence[str], *, directory: Path = REPOSITORY, stdin: str = "") -> str:
    """Run a command in the twin's environment; return its output.

    Raises:
        TwinError: it failed.
    """
    result = subprocess.run(
        argv, cwd=directory, env=environment(twin), text=True, capture_output=True, check=False, input=stdin
    )
    if result.returncode != 0:
        raise TwinError(f"{' '.join(argv[:4])} … failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def start(twin: Twin, commands: Sequence[Sequence[str]], directory: Path, name: str) -> subprocess.Popen[str]:
    """Start commands one after the other, up to the first that fails, in a session of their own; return their process.

    They run in the directory, where their log goes too, under that name.
    """
    log = directory / f"{name}-{time.monotonic_ns()}.log"
    argv = [sys.executable, "-c", _IN_ORDER, json.dumps([list(each) for each in commands])]
    return start_session(argv, directory, environment(twin), log)


def start_session(
    argv: Sequence[str], directory: Path, variables: Mapping[str, str], log: Path
) -> subprocess.Popen[str]:
    """Start a command in a session of its own, its output to a log; :func:`kill_started` knows of it."""
    with log.open("w") as out:
        process = subprocess.Popen(
            argv,
            cwd=directory,
            env=variables,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _started.append(process)
    return process


def kill_started() -> None:
    """Kill what was started and has not ended, with all that it has started itself."""
    for process in _started:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
