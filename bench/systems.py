"""Names of the systems that are compared, and the pieces of AWS that those without a Pulumi program get by hand.

Several share a twin (bench.matrix.STAGES); all have the same pods, load and delays. The patched chart has a host name behind the
stack's other load balancer (the previews'): a release of ours watches what its own load balancer answers, and would take theirs
for its own. The others have a load balancer each, from their Ingress.
"""

from __future__ import annotations

import json
from typing import Any

from bench import run
from bench.system import Target
from bench.tools import execute
from twin import pulumi
from twin.config import Twin
from twin.host import processes
from twin.loadbalancer.addresses import NodeAddresses

LEGACY = "legacy"
ROLLING = "rolling"
PATCHED = "patched"
ARGO_CANARY = "argo-canary"
ARGO_BLUE_GREEN = "argo-bluegreen"
OURS = "ours"
LOAD_BALANCER_CONTROLLER = ("kube-system", "app.kubernetes.io/name=aws-load-balancer-controller")
"""Namespace and label of the pods of the controller that every system needs."""


def preview_listener(twin: Twin) -> tuple[str, str]:
    """Return the network, and the ARN of the HTTPS listener of the previews' load balancer."""
    elb = pulumi.client(twin, "elbv2")
    (balancer,) = elb.describe_load_balancers(Names=[run.PREVIEW_LOAD_BALANCER])["LoadBalancers"]
    listeners = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    listener = next(listener for listener in listeners if listener["Port"] == 443)
    return str(balancer["VpcId"]), str(listener["ListenerArn"])


def target_group(twin: Twin, name: str, **changes: Any) -> str:
    """Make a target group with AWS's defaults but for the changes; return its ARN."""
    elb, (vpc, _) = pulumi.client(twin, "elbv2"), preview_listener(twin)
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
    elb, (_, listener) = pulumi.client(twin, "elbv2"), preview_listener(twin)
    groups = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
    created = elb.create_rule(
        ListenerArn=listener,
        Priority=priority,
        Conditions=[{"Field": "host-header", "HostHeaderConfig": {"Values": [f"{host_prefix(system)}*"]}}],
        Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}],
    )
    return str(created["Rules"][0]["RuleArn"])


def rule_weights(twin: Twin, rule: str) -> dict[str, int]:
    """Return the weight of each target group (ARN) of a rule."""
    (found,) = pulumi.client(twin, "elbv2").describe_rules(RuleArns=[rule])["Rules"]
    groups = found["Actions"][-1]["ForwardConfig"]["TargetGroups"]
    return {group["TargetGroupArn"]: group["Weight"] for group in groups}


class IngressLoadBalancer:
    """The load balancer that the controller makes for a namespace's one Ingress."""

    def __init__(self, twin: Twin, namespace: str, ingress: str) -> None:
        self._twin, self._namespace, self._ingress = twin, namespace, ingress

    def arn(self) -> str:
        """Return its ARN; nothing while there is none."""
        get = ["kubectl", "get", "ingress", self._ingress, "-n", self._namespace, "-o", "json"]
        status = json.loads(execute(self._twin, get)).get("status") or {}
        names = [each["hostname"] for each in (status.get("loadBalancer") or {}).get("ingress") or []]
        listed = pulumi.client(self._twin, "elbv2").describe_load_balancers()["LoadBalancers"]
        return next((each["LoadBalancerArn"] for each in listed if each["DNSName"].lower() in names), "")

    def name(self) -> str:
        """Return its name, from its ARN."""
        return self.arn().partition(":loadbalancer/")[2].split("/")[1]

    def addresses(self, *, loopback: bool = True) -> list[str]:
        """Return the addresses of its nodes, on loopback or on the twin's bridge; none while it has none."""
        try:
            return list(NodeAddresses(self._twin).of(self.arn(), loopback=loopback))
        except KeyError:
            return []

    def wait(self) -> None:
        """Wait until it is there and has addresses.

        Raises:
            TwinError: not within two minutes.
        """
        processes.wait_until(lambda: bool(self.addresses()), f"{self._namespace}: load balancer", timeout_seconds=120)

    def target(self) -> Target:
        """Return one of its nodes, by plain HTTP as the Ingress listens; :meth:`wait` comes before."""
        return Target(self.addresses()[0], f"{self._namespace}.example.com", 80, None)
