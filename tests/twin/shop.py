"""Production under constant load, and what people and accidents do to it."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench import run
from bench.load import Load, Outcome, Stream
from tests.tools import aws, command, kubectl
from twin import pulumi
from twin.config import Twin
from twin.loadbalancer import service
from twin.paths import REPOSITORY
from twin.scenarios import production

APPLICATION = REPOSITORY / "twin" / "application"
SHORT = {
    "shopcat:drain": {
        "appDrain": 10,
        "longestRequest": 8,
        "propagation": 15,
        "controllerLag": 25,
        "appKeepAlive": 75,
        # What is live at first was released with a propagation of 45 s, and one accident's releases with one of 60 s.
        "deregistrationDelay": 68,
    },
    "shopcat:release": {"replicas": 2, "cpu": "200m", "memory": "384Mi", "env": {"APP_DRAIN_SECONDS": "10"}},
}
"""A drain budget for delays a quarter as long. Controller lag, health interval and metric minutes don't scale."""
DELAY_SCALE = 0.25
MIX = (
    Stream("page, kept alive", 12.0),
    Stream("page, fresh", 4.0, fresh=True),
    Stream("order", 3.0, path="/orders", order=True, expected=201),
    Stream("long", 2.0, path="/slow?seconds=8"),
)
STRAGGLERS_SECONDS = 12.0
"""The longest request and a little: until then a request that was due before may still fail."""


@dataclass
class Shop:
    """One twin's production, the load on it, and the settings its releases use."""

    twin: Twin
    load: Load
    directory: Path
    settings: Path
    since: float = field(default_factory=time.time)

    def push(self, tag: str, edits: Mapping[str, str] | None = None) -> None:
        """Push an image of the application, with pieces of its source replaced."""
        production.push_image(self.twin, self.source(tag, edits), tag)

    def source(self, tag: str, edits: Mapping[str, str] | None = None) -> Path:
        """Folder of the application with pieces of its source replaced; each tag is an image of its own."""
        source = self.directory / f"application-{tag}"
        production.copy_application(source, tag, edits or {})
        return source

    def copy(self, changes: Mapping[str, Any] | None = None) -> Path:
        """A throw-away copy of the settings, with changes."""
        copy = Path(tempfile.mkdtemp(dir=self.directory, prefix="settings-")) / "Pulumi.prod.yaml"
        copy.write_text(changed(self.settings, changes or {}))
        return copy

    def start(self, changes: Mapping[str, Any] | None = None, **values: str) -> tuple["subprocess.Popen[str]", Path]:
        """Start `pulumi up` in the background, on a throw-away copy of the settings."""
        log = self.directory / f"up-{len(list(self.directory.glob('up-*.log')))}.log"
        return run.start_up(self.twin, self.copy(changes), log, values), log

    def up(self, changes: Mapping[str, Any] | None = None, **values: str) -> tuple[int, str]:
        """Run `pulumi up`; return its exit code and output."""
        process, log = self.start(changes, **values)
        try:
            code = process.wait(900)
        finally:
            stop(process)
        return code, log.read_text()

    def cancel(self) -> None:
        """Clear the stack's lock, as a person does after the engine was killed."""
        command(self.twin, ["pulumi", "cancel", "-s", "prod", "--yes"])

    def outputs(self) -> Mapping[str, Any]:
        return production.outputs(self.twin)

    def weights(self) -> dict[str, int]:
        """Weight of each colour, by the load balancer's API."""
        elb = aws(self.twin, "elbv2")
        names = {
            group["TargetGroupArn"]: group["TargetGroupName"] for group in elb.describe_target_groups()["TargetGroups"]
        }
        for balancer in elb.describe_load_balancers(Names=["shopcat"])["LoadBalancers"]:
            for listener in elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]:
                for rule in elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]:
                    tuples = rule["Actions"][0].get("ForwardConfig", {}).get("TargetGroups", [])
                    if len(tuples) == 2:
                        return {
                            names[group["TargetGroupArn"]].removeprefix("shopcat-"): group["Weight"] for group in tuples
                        }
        raise AssertionError("no rule forwards to both colours")

    def replicas(self, colour: str) -> int:
        deployment = kubectl(self.twin, "get", "deployment", f"shopcat-{colour}", "-n", "shopcat")
        return int(deployment["spec"]["replicas"])

    def failed(self, since: float, until: float | None = None) -> list[Outcome]:
        """Failed requests that were due since then; waits until all that were due by now have ended."""
        end = until or time.time()
        time.sleep(max(0.0, end + STRAGGLERS_SECONDS - time.time()))
        return [outcome for outcome in self.load.failures if since <= outcome.due <= end]


def stop(process: "subprocess.Popen[str]") -> None:
    """Kill the engine with all it started, as a lost machine would."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def wait_for(log: Path, text: str, process: "subprocess.Popen[str]", seconds: float = 300) -> None:
    """Wait until the engine's log matches a regular expression."""
    deadline = time.monotonic() + seconds
    while not re.search(text, log.read_text()):
        assert process.poll() is None, f"it ended without {text!r}:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"no {text!r} within {seconds} s:\n{log.read_text()}"
        time.sleep(0.5)


def changed(settings: str | Path, changes: Mapping[str, Any]) -> str:
    """The text of a stack's settings with these in place of its own."""
    document = yaml.safe_load(Path(settings).read_text())
    document["config"].update(changes)
    return yaml.safe_dump(document, sort_keys=False)


@contextmanager
def open_shop(twin: Twin, directory: Path, changes: Mapping[str, Any] = SHORT) -> Iterator[Shop]:
    """Load on a twin's production until the block ends; its delays are scaled to the short drain budget."""
    service.set_faults(twin, delayScale=DELAY_SCALE)
    settings = directory / "Pulumi.prod.yaml"
    settings.write_text(changed(pulumi.environment(twin)["PULUMI_OPTION_CONFIG_FILE"], changes))
    with run.load_on(twin, MIX, maximum_seconds=7200) as load:
        yield Shop(twin, load, directory, settings)


@contextmanager
def fault(twin: Twin, **wanted: Any) -> Iterator[None]:
    """A fault of the AWS API, off again at the end of the block."""
    url = f"{twin.aws_endpoint}/twin/faults"
    body = json.dumps(wanted).encode()
    urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST"), timeout=10).close()
    try:
        yield
    finally:
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60).close()
