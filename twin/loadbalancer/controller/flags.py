"""The controller's flags: those of the real one that mean something here; others are refused by name."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_IGNORED = {
    # Of parts that are not played (no Service or Gateway is watched), so their values change nothing.
    "ingress-class",
    "enable-shield",
    "enable-waf",
    "enable-wafv2",
    "metrics-bind-addr",
    "ingress-max-concurrent-reconciles",
    "service-max-concurrent-reconciles",
    "log-level",
    "disable-restricted-sg-rules",
    "feature-gates",
    "default-ssl-policy",
}


@dataclass(frozen=True)
class Flags:
    """Parsed flags. Seconds throughout."""

    cluster_name: str
    region: str
    vpc: str | None
    default_target_type: str
    endpoints: Mapping[str, str]
    aws_max_retries: int
    requeue_seconds: float
    maximum_backoff_seconds: float
    concurrent_reconciles: int
    sync_period_seconds: float
    webhook_address: str
    webhook_port: int
    webhook_certificates: str
    health_address: str
    health_port: int
    namespace: str
    inject_gates: bool


def duration_seconds(text: str) -> float:
    """A Go duration such as ``15s``, ``1m30s``, ``10h0m0s``.

    Raises:
        ValueError: it is none.
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        message = f"{text!r} is no duration; one such as 15s or 1m30s is expected"
        raise ValueError(message)
    return sum(float(number) * units[unit] for number, unit in parts)


def _endpoints(text: str) -> dict[str, str]:
    """Return the URLs in ``--aws-api-endpoints`` (``Service1=URL1,Service2=URL2``) by botocore's names."""
    names = {"elasticloadbalancing": "elbv2", "elasticloadbalancingv2": "elbv2", "ec2": "ec2"}
    pairs = [pair.partition("=") for pair in filter(None, text.split(","))]
    services = [(service.lower().replace(" ", ""), url) for service, _, url in pairs]
    return {names[service]: url for service, url in services if service in names}


def parse(arguments: Sequence[str]) -> Flags:
    """Parse the command line; an unknown or unplayed flag ends the program with its name."""
    parser = argparse.ArgumentParser(prog="aws-load-balancer-controller", allow_abbrev=False)
    parser.add_argument("--cluster-name", required=True)
    parser.add_argument("--aws-region", required=True)
    parser.add_argument("--aws-api-endpoints", default="")
    parser.add_argument("--aws-vpc-id")
    parser.add_argument("--aws-max-retries", type=int, default=10)
    parser.add_argument("--default-target-type", default="instance")
    parser.add_argument("--enable-backend-security-group", choices=("true",), default="true")
    parser.add_argument("--targetgroupbinding-requeue-duration", type=duration_seconds, default=15.0)
    parser.add_argument("--targetgroupbinding-max-exponential-backoff-delay", type=duration_seconds, default=1000.0)
    parser.add_argument("--targetgroupbinding-max-concurrent-reconciles", type=int, default=3)
    parser.add_argument("--sync-period", type=duration_seconds, default=36000.0)
    parser.add_argument("--webhook-bind-port", type=int, default=9443)
    parser.add_argument("--webhook-bind-address", default="")
    parser.add_argument("--webhook-cert-dir", default="/tmp/k8s-webhook-server/serving-certs")  # noqa: S108 - as upstream
    parser.add_argument("--health-probe-bind-addr", default=":61779")
    parser.add_argument("--leader-election-namespace", default="")
    parser.add_argument("--enable-pod-readiness-gate-inject", choices=("true", "false"), default="true")
    parser.add_argument("--enable-endpoint-slices", choices=("true",), default="true")
    for name in sorted(_IGNORED):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        names = ", ".join(flag.partition("=")[0] for flag in unknown)
        parser.error(f"twin: {names} is not implemented by the stand-in")
    return Flags(
        cluster_name=known.cluster_name,
        region=known.aws_region,
        vpc=known.aws_vpc_id,
        default_target_type=known.default_target_type,
        endpoints=_endpoints(known.aws_api_endpoints),
        aws_max_retries=known.aws_max_retries,
        requeue_seconds=known.targetgroupbinding_requeue_duration,
        maximum_backoff_seconds=known.targetgroupbinding_max_exponential_backoff_delay,
        concurrent_reconciles=known.targetgroupbinding_max_concurrent_reconciles,
        sync_period_seconds=known.sync_period,
        webhook_address=known.webhook_bind_address,
        webhook_port=known.webhook_bind_port,
        webhook_certificates=known.webhook_cert_dir,
        health_address=known.health_probe_bind_addr.rpartition(":")[0],
        health_port=int(known.health_probe_bind_addr.rpartition(":")[2]),
        namespace=known.leader_election_namespace,
        inject_gates=known.enable_pod_readiness_gate_inject == "true",
    )
