"""With simulated nodes nothing runs in pods, so the controllers run as processes of the host once their charts are there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from twin import build, config, controlplane, processes
from twin.config import PartStatus, Twin
from twin.loadbalancer import host_controller

PROCESS = "external-secrets"
_POLL_SECONDS = 1.0
_DEPLOYMENT = "/apis/apps/v1/namespaces/external-secrets/deployments/external-secrets"


def up(twin: Twin) -> None:
    """Start both supervisors; each waits for its chart."""
    environment = {**config.module_environment(twin), "KUBECONFIG": str(twin.kubeconfig)}
    processes.start(twin, PROCESS, [sys.executable, "-m", "twin.host_controllers"], env=environment)
    host_controller.up(twin)


def down(twin: Twin) -> None:
    """Stop both."""
    host_controller.down(twin)
    processes.stop(twin, PROCESS)


def status(twin: Twin) -> list[PartStatus]:
    """Whether they run."""
    running = processes.find(twin, PROCESS) is not None
    detail = "on the host" if running else "not running"
    return [PartStatus("External Secrets", ok=running, detail=detail), *host_controller.status(twin)]


def _deployed(twin: Twin) -> bool:
    try:
        controlplane.call(twin, "GET", _DEPLOYMENT)
    except Exception:
        return False
    return True


def main() -> None:
    """Run the real operator whenever its chart is installed; start it again when it ends."""
    twin = config.load()
    # An exception makes subprocess.run() end the operator too; the default action would leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    environment = {
        **os.environ,
        **twin.aws_environment(),
        "KUBECONFIG": str(twin.kubeconfig),
        "AWS_ENDPOINT_URL": twin.aws_endpoint,
    }
    command = [
        str(build.program(twin, "external-secrets")),
        "--concurrent=1",
        "--metrics-addr=127.0.0.1:0",
        "--live-addr=127.0.0.1:0",
    ]
    while True:
        if _deployed(twin):
            subprocess.run(command, env=environment, check=False)
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
