"""The commands of a guide in docs/, run as they stand there: what the guide says is what is tried."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from twin.paths import REPOSITORY

HANDOVER = REPOSITORY / "docs" / "takeover-handover.md"


def blocks(page: Path = HANDOVER) -> dict[str, list[str]]:
    """Return the indented commands of a guide by the heading that they stand under, each a line."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in page.read_text().splitlines():
        if title := re.match(r"#+ (.+)", line):
            heading = title[1]
        elif line.startswith("    "):
            found.setdefault(heading, []).append(line.strip())
    return found


def run(
    commands: list[str], directory: Path, environment: Mapping[str, str], *, stop_after: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run commands in one shell that stops at the first failure; the answer to a question is yes.

    After ``stop_after`` seconds the shell and all it started are killed, as with a machine that dies.
    """
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=directory,
        env=dict(environment),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate("yes\n" * 4, timeout=stop_after or 600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(commands, process.returncode, output)
