"""A plugin whose engine was killed goes by itself."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twin.paths import REPOSITORY

ENGINE = """
import subprocess, sys, time
plugin = subprocess.Popen([sys.executable, "-m", sys.argv[1], "127.0.0.1:1"], stdout=subprocess.PIPE, text=True)
print(plugin.pid, plugin.stdout.readline().strip(), flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("plugin", ["aws", "eks"])
def test_a_plugin_leaves_with_its_engine(plugin: str) -> None:
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, f"twin.plugins.{plugin}"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert engine.stdout is not None
    pid, port = engine.stdout.readline().split()
    assert port.isdigit()
    engine.kill()
    engine.wait(10)
    deadline = time.monotonic() + 20
    while alive(int(pid)):
        assert time.monotonic() < deadline, f"plugin {plugin} still runs 20 s after its engine was killed"
        time.sleep(0.2)
