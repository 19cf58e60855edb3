"""The Kubernetes plugin that the twin runs is upstream's, and goes with its engine. No cluster is needed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2_grpc

from twin import config
from twin.build import golang, programs

pytestmark = pytest.mark.engine

ENGINE = """
import subprocess, sys, time
plugin = subprocess.Popen([sys.argv[1], "127.0.0.1:1"], stdout=subprocess.PIPE, text=True)
print(plugin.pid, plugin.stdout.readline().strip(), flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_it_names_its_version_and_leaves_with_its_engine() -> None:
    program = programs.program(config.load(), "pulumi-resource-kubernetes")
    engine = subprocess.Popen([sys.executable, "-c", ENGINE, program], stdout=subprocess.PIPE, text=True)
    assert engine.stdout is not None
    pid, port = engine.stdout.readline().split()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = provider_pb2_grpc.ResourceProviderStub(channel).GetPluginInfo(empty_pb2.Empty(), timeout=30)
    assert answer.version == golang.KUBERNETES_PLUGIN
    engine.kill()
    engine.wait(10)
    deadline = time.monotonic() + 20
    while alive(int(pid)):
        assert time.monotonic() < deadline, "it still runs 20 s after its engine was killed"
        time.sleep(0.2)
