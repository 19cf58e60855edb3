"""The two other ways to run ShopCat that ours is measured against: the old repository, and the old repository patched.

Both run on the same twin as ours, with the same pods, database and delays, by host name behind the stack's other load
balancer (the previews'): a release of ours watches what its own load balancer answers, and would take theirs for its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from bench import run
from twin import config, pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.paths import REPOSITORY
from twin.scenarios import production

LEGACY = "legacy"
PATCHED = "patched"
OURS = "ours"
_THRESHOLDS = {"HealthyThresholdCount": 3, "UnhealthyThresholdCount": 3}
"""Defaults of Terraform's aws_lb_target_group."""


def execute(twin: Twin, argv: list[str], *, directory: Path = REPOSITORY, stdin: str = "") -> str:
    """Run a command in the twin's environment; return its output.

    Raises:
        TwinError: it failed.
    """
    result = subprocess.run(
        argv,
        cwd=directory,
        env={**os.environ, **pulumi.environment(twin), "AWS_DEFAULT_REGION": config.region()},
        text=True,
        capture_output=True,
        check=False,
        input=stdin,
    )
    if result.returncode != 0:
        raise TwinError(f"{' '.join(argv[:4])} … failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def _vpc_and_listener(twin: Twin) -> tuple[str, str]:
    elb = pulumi.client(twin, "elbv2")
    (balancer,) = elb.describe_load_balancers(Names=[run.PREVIEW_LOAD_BALANCER])["LoadBalancers"]
    listeners = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    listener = next(listener for listener in listeners if listener["Port"] == 443)
    return str(balancer["VpcId"]), str(listener["ListenerArn"])


def target_group(twin: Twin, name: str, **changes: Any) -> str:
    """Make a target group with AWS's defaults but for the changes; return its ARN."""
    elb, (vpc, _) = pulumi.client(twin, "elbv2"), _vpc_and_listener(twin)
    attributes = {key: str(value) for key, value in changes.pop("attributes", {}).items()}
    created = elb.create_target_group(
        Name=name, Protocol="HTTP", Port=8080, VpcId=vpc, TargetType="ip", HealthCheckPath="/healthz", **changes
    )
    arn = str(created["TargetGroups"][0]["TargetGroupArn"])
    if attributes:
        listed = [{"Key": key, "Value": value} for key, value in attributes.items()]
        elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=listed)
    return arn


def host_prefix(system: str) -> str:
    """Return the label before the previews' domain in the system's host name; empty for the shop's own name."""
    return "" if system == OURS else f"{system}."


def host_rule(twin: Twin, system: str, priority: int, weights: dict[str, int]) -> str:
    """Make a rule that sends the requests for the system's host name to its groups; return its ARN."""
    elb, (_, listener) = pulumi.client(twin, "elbv2"), _vpc_and_listener(twin)
    groups = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
    created = elb.create_rule(
        ListenerArn=listener,
        Priority=priority,
        Conditions=[{"Field": "host-header", "HostHeaderConfig": {"Values": [f"{host_prefix(system)}*"]}}],
        Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}],
    )
    return str(created["Rules"][0]["RuleArn"])


class Legacy:
    """The old repository: one Deployment of `latest`, rolled by Helm."""

    def __init__(self, twin: Twin, directory: Path, app_drain_seconds: int) -> None:
        self._twin, self._directory, self._drain = twin, directory, app_drain_seconds
        self._repository = "shopcat-legacy"
        self._number = 0

    def _push(self) -> None:
        """Build the application anew and push it over `latest`, as its workflow does."""
        self._number += 1
        source = self._directory / f"legacy-{self._number}"
        shutil.copytree(REPOSITORY / "twin" / "application", source)
        with (source / "shopcat" / "__main__.py").open("a") as file:
            file.write(f"# {self._number}\n")
        production.push_image(self._twin, source, "latest", repository=self._repository)

    def install(self) -> None:
        """Make repository, target group and binding, and install for the first time."""
        twin = self._twin
        pulumi.client(twin, "ecr").create_repository(repositoryName=self._repository, imageTagMutability="MUTABLE")
        self._push()
        group = target_group(twin, "bench-legacy", **_THRESHOLDS)
        host_rule(twin, LEGACY, 5, {group: 1})
        execute(twin, ["kubectl", "create", "namespace", LEGACY])
        binding = (REPOSITORY / "bench" / "legacy_targetgroupbinding.yaml").read_text()
        old = next(line for line in binding.splitlines() if "targetGroupARN:" in line)
        self._helm()
        execute(
            twin,
            ["kubectl", "apply", "-n", LEGACY, "-f", "-"],
            stdin=binding.replace(old, f"  targetGroupARN: {group}"),
        )

    def release(self) -> str:
        """Release as its workflow does: push `latest`, `helm upgrade`, wait."""
        self._push()
        return self.change()

    def change(self) -> str:
        """Run `helm upgrade` alone, as for another value."""
        self._helm()
        return "latest"

    def _helm(self) -> None:
        secret = run.application_secret(self._twin)
        values = {
            "image": {"repository": f"{config.registry_host()}/{self._repository}"},
            "database": {
                "host": secret["host"],
                "port": str(secret["port"]),
                "name": secret["dbname"],
                "user": secret["username"],
                "password": secret["password"],
            },
            "env": {"APP_DRAIN_SECONDS": str(self._drain)},
        }
        path = self._directory / "legacy-values.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(values))
        chart = str(REPOSITORY / "legacy" / "helm" / "shopcat")
        try:
            execute(
                self._twin,
                [
                    "helm",
                    "upgrade",
                    "--install",
                    "shopcat",
                    chart,
                    "-n",
                    LEGACY,
                    "-f",
                    str(path),
                    "--wait",
                    "--timeout",
                    "5m",
                ],
            )
        finally:
            path.unlink()


class Patched:
    """The old repository with every patch: blue/green by its own helm/release.py."""

    def __init__(
        self, twin: Twin, directory: Path, *, app_drain_seconds: int, pre_stop_seconds: int, settle_seconds: int
    ) -> None:
        self._twin, self._copy = twin, directory / "patched"
        self._drain, self._pre_stop, self._settle = app_drain_seconds, pre_stop_seconds, settle_seconds
        self._rule = ""
        self._groups: dict[str, str] = {}

    def install(self) -> None:
        """Apply the patches; make target groups, Services, bindings and store."""
        twin = self._twin
        shutil.copytree(REPOSITORY / "legacy", self._copy)
        for patch in sorted((REPOSITORY / "patches").glob("*.diff")):
            execute(twin, ["git", "apply", str(patch)], directory=self._copy)
        for colour in ("blue", "green"):
            self._groups[colour] = target_group(
                twin,
                f"bench-patched-{colour}",
                HealthCheckIntervalSeconds=5,
                HealthCheckTimeoutSeconds=4,
                **_THRESHOLDS,
                attributes={"deregistration_delay.timeout_seconds": 90},
            )
        self._rule = host_rule(twin, PATCHED, 6, {self._groups["blue"]: 100, self._groups["green"]: 0})
        namespace = (self._copy / "k8s" / "namespace.yaml").read_text().replace("name: shopcat", f"name: {PATCHED}")
        execute(twin, ["kubectl", "apply", "-f", "-"], stdin=namespace)
        colours = (self._copy / "k8s" / "colours.yaml").read_text()
        for colour, arn in self._groups.items():
            colours = colours.replace(f"${{{colour.upper()}_TARGET_GROUP_ARN}}", arn)
        store = {
            "apiVersion": "external-secrets.io/v1",
            "kind": "SecretStore",
            "metadata": {"name": "aws"},
            "spec": {"provider": {"aws": {"service": "SecretsManager", "region": config.region()}}},
        }
        for document in (colours, json.dumps(store)):
            execute(twin, ["kubectl", "apply", "-n", PATCHED, "-f", "-"], stdin=document)
        secret = run.application_secret(twin)
        values: dict[str, dict[str, Any]] = {
            "image": {"repository": f"{config.registry_host()}/{production.REPOSITORY_NAME}"},
            "drain": {"preStopSeconds": self._pre_stop, "applicationSeconds": self._drain},
            "database": {
                "host": secret["host"],
                "port": str(secret["port"]),
                "name": secret["dbname"],
                "user": secret["username"],
                "secretName": run.login_secret_name(twin),
                "secretStore": {"kind": "SecretStore", "name": "aws"},
            },
            "env": {"APP_DRAIN_SECONDS": str(self._drain)},
        }
        # The values of this installation become the chart's defaults; release.py itself sets nothing but the colours.
        path = self._copy / "helm" / "shopcat" / "values.yaml"
        defaults: dict[str, Any] = yaml.safe_load(path.read_text())
        for name, value in values.items():
            defaults[name] = {**(defaults.get(name) or {}), **value}
        path.write_text(yaml.safe_dump(defaults))

    def release(self, tag: str) -> str:
        """Release a pushed tag as its workflow does; return what helm/release.py prints."""
        twin = self._twin
        (image,) = pulumi.client(twin, "ecr").describe_images(
            repositoryName=production.REPOSITORY_NAME, imageIds=[{"imageTag": tag}]
        )["imageDetails"]
        arguments = [
            "--tag", tag, "--digest", image["imageDigest"], "--rule", self._rule, "--blue", self._groups["blue"],
            "--green", self._groups["green"], "--settle", str(self._settle), "--", "--namespace", PATCHED,
        ]  # fmt: skip
        return execute(twin, [sys.executable, "helm/release.py", *arguments], directory=self._copy)
