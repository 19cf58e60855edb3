"""The controller as a process on the host, for simulated nodes, run as the chart's Deployment says.

The chart is installed like anywhere else; its pods are simulated and do nothing. This supervisor waits for the
Deployment, takes arguments, environment and webhook certificate from the cluster, and runs the same program on
loopback, where the chart's webhooks point (``twinWebhookURL``). It follows upgrades and ends the process when the
Deployment goes.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import FrameType

import urllib3

from twin import config
from twin.config import PartStatus, Twin
from twin.host import processes
from twin.loadbalancer.controller.kubernetes import ApiError, Kubernetes
from twin.paths import REPOSITORY

_log = logging.getLogger(__name__)

PROCESS = "load-balancer-controller"
CONTROLLER_NAMESPACE = "kube-system"
DEPLOYMENT = "aws-load-balancer-controller"
SECRET = "aws-load-balancer-tls"  # noqa: S105 - its name
_POLL_SECONDS = 0.25


def webhook_port(twin: Twin) -> int:
    """Port of the webhooks on loopback."""
    return twin.port(20)


def webhook_url(twin: Twin) -> str:
    """Value that the chart's ``twinWebhookURL`` must have."""
    return f"https://127.0.0.1:{webhook_port(twin)}"


@dataclass(frozen=True)
class Wanted:
    """The controller's arguments, environment and certificate as the cluster has them."""

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    certificate: bytes
    key: bytes


def wanted(kubernetes: Kubernetes) -> Wanted | None:
    """The Deployment's arguments and environment and the Secret's certificate; None while either is missing."""
    try:
        deployment = kubernetes.request(
            "GET", f"/apis/apps/v1/namespaces/{CONTROLLER_NAMESPACE}/deployments/{DEPLOYMENT}"
        )
        secret = kubernetes.request("GET", f"/api/v1/namespaces/{CONTROLLER_NAMESPACE}/secrets/{SECRET}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    if deployment["metadata"].get("deletionTimestamp") or not deployment["spec"].get("replicas", 1):
        return None
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return Wanted(
        tuple(container.get("args", [])),
        tuple(
            (variable["name"], variable.get("value", ""))
            for variable in container.get("env", [])
            if variable.get("value")
        ),
        base64.b64decode(secret["data"]["tls.crt"]),
        base64.b64decode(secret["data"]["tls.key"]),
    )


def _start(twin: Twin, configuration: Wanted) -> subprocess.Popen[bytes]:
    directory = twin.directory / "loadbalancer" / "webhook"
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in (("tls.crt", configuration.certificate), ("tls.key", configuration.key)):
        file = directory / name
        file.touch(mode=0o600)
        file.write_bytes(content)
    kept = [argument for argument in configuration.arguments if not argument.startswith("--webhook-bind-port")]
    command = [
        sys.executable,
        "-m",
        "twin.loadbalancer.controller",
        *kept,
        "--webhook-bind-address=127.0.0.1",
        f"--webhook-bind-port={webhook_port(twin)}",
        f"--webhook-cert-dir={directory}",
        f"--health-probe-bind-addr=127.0.0.1:{twin.port(21)}",
        f"--leader-election-namespace={CONTROLLER_NAMESPACE}",
    ]
    return subprocess.Popen(command, env={**os.environ, **dict(configuration.environment)}, cwd=REPOSITORY)


def _end(child: subprocess.Popen[bytes] | None) -> None:
    if child is not None:
        child.terminate()
        child.wait()


def supervise(twin: Twin) -> None:
    """Keep the controller running as the cluster says, for ever."""
    kubernetes = Kubernetes()
    running: Wanted | None = None
    child: subprocess.Popen[bytes] | None = None

    def stop(_: int, __: FrameType | None) -> None:
        _end(child)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    while True:
        with contextlib.suppress(urllib3.exceptions.HTTPError, ApiError):
            configuration = wanted(kubernetes)
            if configuration != running or (child is not None and child.poll() is not None):
                _end(child)
                _log.info(
                    "%s",
                    f"starting with {' '.join(configuration.arguments)}" if configuration else "stopped: not deployed",
                )
                child = _start(twin, configuration) if configuration is not None else None
                running = configuration
        time.sleep(_POLL_SECONDS)


def up(twin: Twin) -> None:
    """Start the supervisor; the controller follows once its chart is installed."""
    processes.start(
        twin,
        PROCESS,
        [sys.executable, "-m", "twin.loadbalancer.simulated_controller"],
        env={
            **config.module_environment(twin),
            **twin.aws_environment(),
            "KUBECONFIG": str(twin.kubeconfig),
        },
    )


def down(twin: Twin) -> None:
    """Stop supervisor and controller."""
    processes.stop(twin, PROCESS)


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the supervisor runs."""
    process = processes.find(twin, PROCESS)
    detail = f"on the host, webhooks at {webhook_url(twin)}" if process is not None else "not running"
    return [PartStatus("load balancer controller", ok=process is not None, detail=detail)]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    supervise(config.load(simulated=True))
