"""Controllers as processes of the host, for simulated nodes, where nothing runs in pods; each starts once its chart exists.

The operator runs with its Deployment's arguments and as its ServiceAccount, so its rights are those it has in a pod.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from twin import config
from twin.build import programs
from twin.config import PartStatus, Twin
from twin.host import processes
from twin.kubernetes import control_plane
from twin.loadbalancer import simulated_controller

PROCESS = "external-secrets"
_POLL_SECONDS = 1.0
_DEPLOYMENT = "/apis/apps/v1/namespaces/external-secrets/deployments/external-secrets"


def up(twin: Twin) -> None:
    """Start both supervisors; each waits for its chart."""
    environment = {**config.module_environment(twin), "KUBECONFIG": str(twin.kubeconfig)}
    processes.start(twin, PROCESS, [sys.executable, "-m", "twin.kubernetes.simulated_controllers"], env=environment)
    simulated_controller.up(twin)


def down(twin: Twin) -> None:
    """Stop both."""
    simulated_controller.down(twin)
    processes.stop(twin, PROCESS)


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the simulated controllers run."""
    running = processes.find(twin, PROCESS) is not None
    detail = "on the host" if running else "not running"
    return [PartStatus("External Secrets", ok=running, detail=detail), *simulated_controller.status(twin)]


def _arguments(twin: Twin) -> list[str] | None:
    """Return the operator's arguments in the chart's Deployment, but for addresses it serves on; None while there is none."""
    try:
        deployment = control_plane.call(twin, "GET", _DEPLOYMENT)
    except Exception:
        return None
    arguments = deployment["spec"]["template"]["spec"]["containers"][0].get("args", [])
    return [argument for argument in arguments if not argument.startswith(("--metrics-addr", "--live-addr"))]


def _kubeconfig(twin: Twin) -> Path:
    """The twin's kubeconfig, but as the operator's ServiceAccount: what it may do is what its pod might."""
    document = yaml.safe_load(twin.kubeconfig.read_text())
    for each in document["users"]:
        each["user"]["as"] = f"system:serviceaccount:{PROCESS}:{PROCESS}"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{PROCESS}", "system:authenticated"]
        each["user"]["as-groups"] = groups
    path = twin.directory / "kubeconfig-external-secrets"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path


def main() -> None:
    """Run the real operator whenever its chart is installed; start it again when it ends."""
    twin = config.load()
    # An exception makes subprocess.run() end the operator too; the default action would leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    environment = {**os.environ, **twin.aws_environment(), "AWS_ENDPOINT_URL": twin.aws_endpoint}
    program = str(programs.program(twin, "external-secrets"))
    while True:
        arguments = _arguments(twin)
        if arguments is not None:
            environment["KUBECONFIG"] = str(_kubeconfig(twin))
            command = [program, *arguments, "--metrics-addr=127.0.0.1:0", "--live-addr=127.0.0.1:0"]
            subprocess.run(command, env=environment, check=False)
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
