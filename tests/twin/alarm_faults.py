"""A fault for each alarm: how it is made on a twin, whether it is real there, and which other alarms it is also about."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from bench import run
from bench.load import Stream
from tests.tools import aws, command, kubectl
from tests.twin.shop import Shop, fault
from tests.twin.watch import GOOD, Watch
from twin.host import processes

NAMESPACE = "shopcat"
PAGE = (
    'async def page(request: web.Request) -> web.Response:\n    """The shop\'s front page, read from PostgreSQL."""\n'
)
DEFECT = {PAGE: f'{PAGE}    if "defect" in request.query:\n        return web.Response(status=500)\n'}
"""A release with a defect on one page, which neither its smoke test nor the release's watch asks for."""
RESYNC_SECONDS = 20
UNSYNCED = "unsynced"

Begin = Callable[[Shop, Watch], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One fault: begun, kept until its alarm is in ALARM, and mended."""

    alarm: str
    what: str
    begin: Begin
    group: int
    """Faults of one group are on at the same time."""
    is_real: bool = True
    also: frozenset[str] = frozenset()
    """Other alarms that this fault is about as well."""


def live_colour(shop: Shop) -> str:
    """Return the colour that carries the traffic."""
    return max(weights := shop.weights(), key=lambda colour: weights[colour])


def scale(shop: Shop, colour: str, replicas: int) -> None:
    deployment = f"deployment/shopcat-{colour}"
    command(shop.twin, ["kubectl", "scale", "-n", NAMESPACE, deployment, f"--replicas={replicas}"])


def scaled_live(replicas: int) -> Begin:
    """Scale the live colour by hand, and back to two."""

    @contextlib.contextmanager
    def begin(shop: Shop, _: Watch) -> Iterator[None]:
        colour = live_colour(shop)
        scale(shop, colour, replicas)
        yield
        scale(shop, colour, 2)

    return begin


@contextlib.contextmanager
def idle_colour_runs(shop: Shop, _: Watch) -> Iterator[None]:
    """Start a pod of the idle colour, as an update leaves it that was killed."""
    idle = "green" if live_colour(shop) == "blue" else "blue"
    scale(shop, idle, 1)
    yield
    scale(shop, idle, 0)


def asked(stream: Stream) -> Begin:
    """Send a stream of requests beside the constant load."""

    @contextlib.contextmanager
    def begin(shop: Shop, _: Watch) -> Iterator[None]:
        with run.load_on(shop.twin, (stream,), maximum_seconds=900):
            yield

    return begin


@contextlib.contextmanager
def dead_target(shop: Shop, _: Watch) -> Iterator[None]:
    """Register an address at which nobody answers with the live colour's group."""
    elb = aws(shop.twin, "elbv2")
    (group,) = elb.describe_target_groups(Names=[f"shopcat-{live_colour(shop)}"])["TargetGroups"]
    arn = group["TargetGroupArn"]
    (known, *_) = elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    address = f"{known['Target']['Id'].rpartition('.')[0]}.251"
    targets = [{"Id": address, "Port": known["Target"]["Port"]}]
    elb.register_targets(TargetGroupArn=arn, Targets=targets)
    yield
    elb.deregister_targets(TargetGroupArn=arn, Targets=targets)


def pods(name: str, count: int, container: Mapping[str, Any]) -> Begin:
    """Run pods beside the add-ons, from the shop's own image."""

    @contextlib.contextmanager
    def begin(shop: Shop, _: Watch) -> Iterator[None]:
        deployment = kubectl(shop.twin, "get", "deployment", f"shopcat-{live_colour(shop)}", "-n", NAMESPACE)
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        spec = {"containers": [{"name": name, "image": image, **container}], "terminationGracePeriodSeconds": 0}
        items = [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{name}-{index}", "namespace": "kube-system"},
                "spec": spec,
            }
            for index in range(count)
        ]
        path = shop.directory / f"{name}.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        command(shop.twin, ["kubectl", "apply", "-f", str(path)])
        yield
        command(shop.twin, ["kubectl", "delete", "-f", str(path), "--wait=false"])

    return begin


@contextlib.contextmanager
def secrets_manager_refuses(shop: Shop, _: Watch) -> Iterator[None]:
    """Throttle Secrets Manager when a release's secret is new, which alone is read.

    External Secrets is asked again every few seconds: left alone it waits longer than a window.
    """
    (known, *_) = kubectl(shop.twin, "get", "externalsecret", "-n", NAMESPACE)["items"]
    spec = {**known["spec"], "target": {**known["spec"]["target"], "name": UNSYNCED}}
    metadata = {"name": UNSYNCED, "namespace": NAMESPACE}
    new = {"apiVersion": known["apiVersion"], "kind": known["kind"], "metadata": metadata, "spec": spec}
    path = shop.directory / f"{UNSYNCED}.json"
    path.write_text(json.dumps(new))
    of_it = ["externalsecret", UNSYNCED, "-n", NAMESPACE]
    over = threading.Event()

    def ask() -> None:
        while not over.wait(RESYNC_SECONDS):
            command(shop.twin, ["kubectl", "annotate", *of_it, "--overwrite", f"force-sync={time.time():.0f}"])

    with fault(shop.twin, service="secretsmanager", kind="throttle", seconds=600):
        command(shop.twin, ["kubectl", "apply", "-f", str(path)])
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield
        finally:
            over.set()
            asking.join(60)
            command(shop.twin, ["kubectl", "delete", *of_it])


@contextlib.contextmanager
def kubelet_stopped(shop: Shop, _: Watch) -> Iterator[None]:
    """Freeze node2's kubelet; afterwards delete the live pods there, which stay unready when a node comes back."""
    kubelet = processes.find(shop.twin, "node2-kubelet")
    assert kubelet is not None
    os.kill(kubelet.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(kubelet.pid, signal.SIGCONT)
    command(shop.twin, ["kubectl", "wait", "--for=condition=Ready", "node/node2", "--timeout=120s"])
    chosen = ["-n", NAMESPACE, "--field-selector=spec.nodeName=node2", "-l", f"shopcat/colour={live_colour(shop)}"]
    command(shop.twin, ["kubectl", "delete", "pods", *chosen, "--wait=false"])


def written(alarm: str, value: float) -> Begin:
    """Write a bad value in the metric's place."""

    @contextlib.contextmanager
    def begin(_: Shop, watch: Watch) -> Iterator[None]:
        watch.values[alarm] = value
        yield
        watch.values[alarm] = GOOD[alarm]

    return begin


def _injected(alarm: str, what: str, value: float, group: int) -> Fault:
    return Fault(f"shopcat-{alarm}", what, written(f"shopcat-{alarm}", value), group, is_real=False)


LIVE = "shopcat-live-targets"
FAULTS = (
    Fault(
        "shopcat-application-errors",
        "a released version answers 500 on a page that its smoke test does not ask for, and users ask for it",
        asked(Stream("defect", 5.0, path="/?defect=1")),
        1,
    ),
    Fault("shopcat-both-colours", "the idle colour has a pod, as after an update that was killed", idle_colour_runs, 1),
    _injected("database-cpu", "RDS writes 99 % CPU", 99, 1),
    _injected("certificate-production", "ACM writes 5 days to the end", 5, 1),
    _injected("clean-up", "the reaper writes two previews that it could not close", 2, 1),
    Fault(
        "shopcat-slow-answers", "users ask for answers of 20 s", asked(Stream("slow", 1.0, path="/slow?seconds=20")), 2
    ),
    Fault("shopcat-unhealthy-targets", "a target of the live colour that answers nobody", dead_target, 2),
    Fault(
        "shopcat-restart-loop",
        "containers in kube-system that end at once; lines of the real kubelets",
        # A kubelet may be silent on one of them for a minute and a half, which is most of a window here.
        pods("restarts", 4, {"command": ["false"]}),
        2,
    ),
    Fault(
        "shopcat-unschedulable-pods",
        "a pod that wants 100 CPUs; the real scheduler's verdict, written as EKS would",
        pods("no-room", 1, {"resources": {"requests": {"cpu": "100"}}}),
        2,
    ),
    _injected("database-connections", "RDS writes 10 000 connections", 10_000, 2),
    _injected("certificate-previews", "ACM writes 5 days to the end", 5, 2),
    Fault(LIVE, "the live colour is scaled to one pod by hand", scaled_live(1), 3),
    Fault(
        "shopcat-secrets-not-synced",
        "Secrets Manager refuses every call while a secret is made; lines of the real External Secrets",
        secrets_manager_refuses,
        3,
    ),
    _injected("database-storage", "RDS writes 0.1 GiB of free storage", 0.1 * (1 << 30), 3),
    Fault("shopcat-balancer-errors", "the live colour has no pod at all", scaled_live(0), 4, also=frozenset({LIVE})),
    _injected("database-credits", "RDS writes charged CPU credits", 1, 4),
    Fault(
        "shopcat-node-not-ready",
        "the kubelet of one node is stopped; lines of the real control plane",
        kubelet_stopped,
        5,
        also=frozenset({LIVE}),
    ),
)
WITHOUT_FAULT: Mapping[str, str] = {}
"""Alarm → why no fault is made for it."""
