"""Interrupts of the twin and the bench, and the bench's garbage collection."""

import subprocess
import sys

from twin.paths import REPOSITORY

_IGNORES_INTERRUPT = """
import signal, subprocess, sys
from twin.host import processes
if sys.argv[1:]:
    processes.heed_interrupts()
child = "import re, pathlib; print(re.search('SigIgn:.*', pathlib.Path('/proc/self/status').read_text())[0])"
found = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout
print(bool(int(found.split()[1], 16) & 1 << signal.SIGINT - 1))
"""


def _in_the_background(*arguments: str) -> str:
    argv = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-c", _IGNORES_INTERRUPT, *arguments]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()


def test_what_is_started_from_the_background_heeds_an_interrupt() -> None:
    assert _in_the_background() == "True", "the shell has all of them ignore it"
    assert _in_the_background("heed") == "False"
