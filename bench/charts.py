"""The old repository's chart as it is, with its patches up to 05 (rolling), and with all of them (blue/green).

Each is released as its workflow does: `helm upgrade --wait`, and for the last helm/release.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bench import pods, run, tools
from bench.images import Images
from bench.system import State, Target
from bench.systems import (
    LEGACY,
    LOAD_BALANCER_CONTROLLER,
    PATCHED,
    ROLLING,
    IngressLoadBalancer,
    host_rule,
    rule_weights,
    target_group,
)
from bench.tools import execute
from infra.timeouts import DrainBudget
from twin import config, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.host import pki, processes
from twin.loadbalancer import front_door, hostnames
from twin.paths import REPOSITORY
from twin.scenarios import production

_APP = "shopcat"
_THRESHOLDS = {"HealthyThresholdCount": 2, "UnhealthyThresholdCount": 3}
"""The first as ours, the second the default of Terraform's aws_lb_target_group."""
_GATE_LABEL = "        app.kubernetes.io/name: shopcat\n"
"""By this label the twin's controller chooses the pods that get readiness gates; patches/ expects one that takes every pod."""


class Chart:
    """A copy of the old repository with some of its patches, in a namespace of its own."""

    name = ""
    title = ""
    tuned = ""
    controllers = (LOAD_BALANCER_CONTROLLER,)
    patches = 0
    """Number of the last patch that is applied."""

    def __init__(self, twin: Twin, directory: Path, images: Images, budget: DrainBudget) -> None:
        self._twin, self._images, self._budget = twin, images, budget
        self._copy = directory / self.name
        self._former = ""
        """Content that served alone when the last release was started."""
        self._balancer = IngressLoadBalancer(twin, self.name, _APP)

    # What differs -----------------------------------------------------------------------------------------------------

    def _install(self, tag: str) -> None:
        raise NotImplementedError

    def _enter(self) -> None:
        """Make its way in, where that comes after the first release."""

    def _release(self, tag: str) -> list[list[str]]:
        """Return the commands of a release."""
        raise NotImplementedError

    # The system -------------------------------------------------------------------------------------------------------

    def install(self, tag: str) -> None:
        """Make a copy with the patches, its namespace and its way in; install, and wait until it answers."""
        shutil.copytree(REPOSITORY / "legacy", self._copy)
        for patch in sorted((REPOSITORY / "patches").glob("*.diff"))[: self.patches]:
            execute(self._twin, ["git", "apply", str(patch)], directory=self._copy)
        if self.patches:
            template = self._copy / "helm" / "shopcat" / "templates" / "deployment.yaml"
            label = "        app: shopcat\n        release:"
            text = template.read_text()
            template.write_text(text.replace(label, f"        app: shopcat\n{_GATE_LABEL}        release:"))
        self._apply((self._copy / "k8s" / "namespace.yaml").read_text().replace("name: shopcat", f"name: {self.name}"))
        self._install(tag)
        self._run(self._release(tag))
        self._former = tag
        self._enter()
        processes.wait_until(lambda: self.state().settled, f"{self.name}: first release", timeout_seconds=180)

    def push(self, tag: str, edits: Mapping[str, str]) -> None:
        """Build and push to the shop's own repository, whose tags can't be changed."""
        self._images.push(tag, edits)

    def push_again(self, content: str) -> None:
        """Push other content under this one's tag."""
        self._images.push_again(content)

    def start(self, tag: str) -> subprocess.Popen[str]:
        """Start the workflow's commands."""
        self._former = self.state().serving or self._former  # of two at once the second finds two
        return self._start(self._release(tag))

    def go_on(self, tag: str) -> subprocess.Popen[str]:
        """Start Helm's way back to its last good revision if an upgrade is pending, then the release once more."""
        return self._start([*self._rollback(pending=True), *self._release(tag)])

    def undo(self) -> subprocess.Popen[str]:
        """Start `helm rollback` to the last good revision before."""
        return self._start(self._rollback(pending=False))

    def target(self) -> Target:
        """Return its Ingress's load balancer."""
        return self._balancer.target()

    def load_balancer(self) -> str:
        """Return the name of its Ingress's load balancer."""
        return self._balancer.name()

    def has_ready_pod(self, tag: str) -> bool:
        """Tell whether a pod of this content is ready."""
        return any(pods.is_ready(pod) and self._images.content([pod]) == tag for pod in self._pods())

    def is_shifting(self, tag: str) -> bool:
        """Tell whether a pod of it is ready: a rolling update sends to each as it comes."""
        return self.has_ready_pod(tag)

    def state(self) -> State:
        """Read the pods, and Helm's own status once they are at rest."""
        listed = self._pods()
        settled = pods.are_at_rest(listed)
        unfinished = ""
        if settled and (status := self._revisions()[-1]["status"]) != "deployed":
            unfinished = f"Helm's last revision is {status}"
        return State(self._serving(listed), settled, unfinished)

    def _serving(self, listed: list[dict[str, Any]]) -> str:
        return self._images.content(listed)

    # Tools ------------------------------------------------------------------------------------------------------------

    def _pods(self) -> list[dict[str, Any]]:
        return pods.list_pods(self._twin, self.name)

    def _apply(self, text: str, *, namespaced: bool = False) -> None:
        where = ["-n", self.name] if namespaced else []
        execute(self._twin, ["kubectl", "apply", *where, "-f", "-"], stdin=text)

    def _ingress(self) -> None:
        text = (self._copy / "k8s" / "ingress.yaml").read_text()
        self._apply(text.replace("namespace: shopcat", f"namespace: {self.name}"))
        self._balancer.wait()

    def _secret(self) -> None:
        """Make the Secret that the chart's ExternalSecret would: this cluster's External Secrets writes for ours alone."""
        (self._copy / "helm" / "shopcat" / "templates" / "externalsecret.yaml").unlink()
        password = run.others_secret(self._twin)["password"]
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": _APP},
            "stringData": {"password": password},
        }
        self._apply(json.dumps(secret), namespaced=True)

    def _start(self, commands: Iterable[list[str]]) -> subprocess.Popen[str]:
        return tools.start(self._twin, [*commands], self._copy, self.name)

    def _run(self, commands: Iterable[list[str]]) -> None:
        for argv in commands:
            execute(self._twin, argv, directory=self._copy)

    def _helm(self, *arguments: str) -> list[str]:
        return ["helm", *arguments, "-n", self.name]

    def _upgrade(self, *more: str) -> list[str]:
        return self._helm("upgrade", "--install", _APP, "helm/shopcat", "--wait", "--timeout", "5m", *more)

    def _revisions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(execute(self._twin, self._helm("history", _APP, "-o", "json")))
        return found

    def _rollback(self, *, pending: bool) -> list[list[str]]:
        """Return the way back to the last revision that was deployed; none if only a pending one has one."""
        *before, last = self._revisions()
        if pending and not last["status"].startswith("pending"):
            return []
        good = [each for each in before if each["status"] in ("deployed", "superseded")]
        if not good:
            raise TwinError(f"{self.name}: Helm has no good revision before {last['revision']}")
        revision = str(max(good, key=lambda each: (each["status"] == "deployed", each["revision"]))["revision"])
        return [self._helm("rollback", _APP, revision, "--wait", "--timeout", "5m")]

    def _digest(self, tag: str) -> str:
        (image,) = pulumi.client(self._twin, "ecr").describe_images(
            repositoryName=production.REPOSITORY_NAME, imageIds=[{"imageTag": tag}]
        )["imageDetails"]
        return str(image["imageDigest"])

    def _database(self) -> dict[str, str]:
        secret = run.others_secret(self._twin)
        return {
            "host": secret["host"],
            "port": str(secret["port"]),
            "name": secret["dbname"],
            "user": secret["username"],
        }

    def _set_defaults(self, values: Mapping[str, Any]) -> None:
        """Make this installation's values the chart's own, so that the release commands set nothing but the image."""
        path = self._copy / "helm" / "shopcat" / "values.yaml"
        defaults: dict[str, Any] = yaml.safe_load(path.read_text())
        for name, value in values.items():
            defaults[name] = {**(defaults.get(name) or {}), **value}
        path.write_text(yaml.safe_dump(defaults))

    def _patched_values(self) -> dict[str, Any]:
        """Return image, drain numbers and database of a chart whose secret comes by External Secrets."""
        drain = self._budget.app_drain_seconds
        return {
            "image": {"repository": f"{config.registry_host()}/{production.REPOSITORY_NAME}"},
            "drain": {"preStopSeconds": self._budget.pre_stop_seconds, "applicationSeconds": drain},
            "database": self._database(),
            "env": {"APP_DRAIN_SECONDS": str(drain)},
        }


class Legacy(Chart):
    """The old repository: one Deployment of `latest`, rolled by Helm."""

    name = LEGACY
    title = "old chart"
    tuned = (
        "legacy/ as it is: the image `latest`, `helm upgrade --wait`, a grace period of 60 s, no preStop, its Ingress. "
        "Undone by pushing the former source over `latest` and `helm upgrade`: `helm rollback` would pull `latest` again."
    )
    _repository = "shopcat-legacy"

    def _install(self, tag: str) -> None:
        ecr = pulumi.client(self._twin, "ecr")
        ecr.create_repository(repositoryName=self._repository, imageTagMutability="MUTABLE")
        self.push(tag, {})
        password = run.others_secret(self._twin)["password"]
        values = self._copy / "helm" / "shopcat" / "values.yaml"
        values.touch(mode=0o600)
        values.chmod(0o600)
        self._set_defaults(
            {
                "image": {"repository": f"{config.registry_host()}/{self._repository}"},
                "database": {**self._database(), "password": password},
                "env": {"APP_DRAIN_SECONDS": str(self._budget.app_drain_seconds)},
            }
        )

    def _enter(self) -> None:
        self._ingress()

    def push(self, tag: str, edits: Mapping[str, str]) -> None:
        """Build and push over `latest`, as its workflow does."""
        self._images.push(tag, edits, tag="latest", repository=self._repository)

    def push_again(self, content: str) -> None:
        """Push other content over `latest`."""
        self._images.push_again(content, tag="latest", repository=self._repository)

    def undo(self) -> subprocess.Popen[str]:
        """Push the former source over `latest`, then start `helm upgrade`."""
        self.push(self._former, self._images.edits(self._former))
        return self._start([*self._rollback(pending=True), self._upgrade()])

    def _release(self, tag: str) -> list[list[str]]:
        del tag
        return [self._upgrade()]


class Rolling(Chart):
    """The old repository with its patches up to 05: a rolling update whose pods leave by the drain arithmetic."""

    name = ROLLING
    title = "patched chart, rolling"
    patches = 5
    tuned = (
        "patches/ up to 05: image by digest, preStop sleep and grace period from the drain budget, readiness gates, "
        "maxUnavailable 0, a disruption budget; its Ingress with a deregistration delay of 90 s and health checks every 5 s. "
        "Undone by `helm rollback`."
    )

    def _install(self, tag: str) -> None:
        del tag
        self._set_defaults(self._patched_values())
        self._secret()
        # Before the chart: a pod that is older than its binding has no readiness gate. The Service comes with the chart.
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": _APP,
                "labels": {"app": _APP, "app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"meta.helm.sh/release-name": _APP, "meta.helm.sh/release-namespace": self.name},
            },
            "spec": {"selector": {"app": _APP}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }
        self._apply(json.dumps(service), namespaced=True)
        self._ingress()

    def _release(self, tag: str) -> list[list[str]]:
        image = ["--set", f"image.tag={tag}", "--set", f"image.digest={self._digest(tag)}"]
        return [self._upgrade("--reset-then-reuse-values", *image)]


class Patched(Chart):
    """The old repository with every patch: blue/green by its own helm/release.py."""

    name = PATCHED
    title = "patched chart, blue/green"
    patches = 7
    tuned = (
        "All of patches/: helm/release.py starts the idle colour, moves the weights and reads them back twice, waits for "
        "propagation and the longest request, then stops the old colour. "
        "Undone by releasing the former source under a new tag: a tag is released once."
    )

    def __init__(self, twin: Twin, directory: Path, images: Images, budget: DrainBudget) -> None:
        super().__init__(twin, directory, images, budget)
        self._rule = ""
        self._last_tag = ""
        self._groups: dict[str, str] = {}

    def _install(self, tag: str) -> None:
        del tag
        for colour in ("blue", "green"):
            self._groups[colour] = target_group(
                self._twin,
                f"bench-patched-{colour}",
                HealthCheckIntervalSeconds=5,
                HealthCheckTimeoutSeconds=4,
                **_THRESHOLDS,
                attributes={"deregistration_delay.timeout_seconds": 90},
            )
        self._rule = host_rule(self._twin, self.name, 6, {self._groups["blue"]: 100, self._groups["green"]: 0})
        colours = (self._copy / "k8s" / "colours.yaml").read_text()
        for colour, arn in self._groups.items():
            colours = colours.replace(f"${{{colour.upper()}_TARGET_GROUP_ARN}}", arn)
        self._apply(colours, namespaced=True)
        self._secret()
        self._set_defaults(self._patched_values())

    def _release(self, tag: str) -> list[list[str]]:
        self._last_tag = tag
        settle = self._budget.propagation_seconds + self._budget.longest_request_seconds
        arguments = [
            "--tag", tag, "--digest", self._digest(tag), "--rule", self._rule, "--blue", self._groups["blue"],
            "--green", self._groups["green"], "--settle", str(settle), "--", "--namespace", self.name,
        ]  # fmt: skip
        return [[sys.executable, "helm/release.py", *arguments]]

    def undo(self) -> subprocess.Popen[str]:
        """Push what served before under a new tag, and start its release."""
        major, minor, patch = self._last_tag.removeprefix("v").split(".")
        tag = f"v{major}.{minor}.{int(patch) + 1}"
        self._images.push(self._former, self._images.edits(self._former), tag=tag)
        return self._start([*self._rollback(pending=True), *self._release(tag)])

    def target(self) -> Target:
        """Return the previews' load balancer, by the host name of its rule."""
        host = f"{self.name}.{hostnames.preview_domain(self._twin)}"
        return Target(front_door.address(self._twin), host, 443, pki.ca_file(self._twin))

    def load_balancer(self) -> str:
        """Return the name of the previews' load balancer."""
        return run.PREVIEW_LOAD_BALANCER

    def is_shifting(self, tag: str) -> bool:
        """Tell whether the group of its colour has a weight."""
        colours = {colour for colour, pod in self._by_colour() if self._images.content([pod]) == tag}
        weights = rule_weights(self._twin, self._rule)
        return any(weights.get(self._groups[colour], 0) > 0 for colour in colours)

    def _by_colour(self) -> list[tuple[str, dict[str, Any]]]:
        return [(pod["metadata"]["labels"].get("colour", "blue"), pod) for pod in self._pods()]

    def _serving(self, listed: list[dict[str, Any]]) -> str:
        weights = rule_weights(self._twin, self._rule)
        weighted = {colour for colour, arn in self._groups.items() if weights.get(arn, 0) > 0}
        chosen = [pod for pod in listed if pod["metadata"]["labels"].get("colour") in weighted]
        return self._images.content(chosen) if len(weighted) == 1 else ""
