"""Check that a colour is ready for traffic: every pod runs the release's digest, its gate is open, the ALB reports it healthy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from infra.names import RELEASE_LABEL, Colour, workload_name
from infra.release.manifests import CONTAINER
from infra.release.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GATE_PREFIX = "target-health.elbv2.k8s.aws/"
CLOCKS_DIFFER_SECONDS = 30
"""At most, between the machine that claims a release and a node. A release takes minutes, so only pods of the very first one, or
restarted ones, are so young when the next is claimed."""


@dataclass(frozen=True)
class Target:
    """One target of a group, as DescribeTargetHealth has it."""

    address: str
    port: int
    state: str
    reason: str = ""

    @property
    def leaves(self) -> bool:
        """Check for a deregistered target that still finishes old requests."""
        return self.state in ("draining", "unused") and self.reason != "Target.NotInUse"


def _conditions(pod: Mapping[str, Any]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions") or []}


def _running_image(pod: Mapping[str, Any]) -> str:
    return next((each["image"] for each in pod["spec"]["containers"] if each["name"] == CONTAINER), "")


def staying(pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the pods that are not being deleted and have not ended."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]


def _belongs(record: Record, pod: Mapping[str, Any]) -> bool:
    """Check that a pod was made for a release: another one may have the same digest with other settings."""
    label = (pod["metadata"].get("labels") or {}).get(RELEASE_LABEL)
    return label == record.name and _running_image(pod).endswith(f"@{record.digest}")


def is_served(record: Record, pods: Sequence[Mapping[str, Any]], targets: Sequence[Target]) -> bool:
    """Check that a pod of the release is a healthy target, and that every pod that stays is of it."""
    healthy = {target.address for target in targets if target.state == "healthy"}
    found = staying(pods)
    is_one_healthy = any(pod.get("status", {}).get("podIP") in healthy for pod in found)
    return is_one_healthy and all(_belongs(record, pod) for pod in found)


def _moment(text: Any) -> datetime | None:
    """Return the time that a text says; nothing if it says none, or not in which zone."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else None


def run_since(pods: Sequence[Mapping[str, Any]], moment: str) -> bool:
    """Check that there are pods that stay, and that the application in each has run since before a moment, without a restart.

    Args:
        pods: of one colour.
        moment: as ISO 8601, by a clock that is at most CLOCKS_DIFFER_SECONDS from the nodes'.
    """
    starts = []
    for pod in staying(pods):
        statuses = pod.get("status", {}).get("containerStatuses") or []
        running = [(each.get("state") or {}).get("running") or {} for each in statuses if each["name"] == CONTAINER]
        starts += [_moment(each.get("startedAt")) for each in running] or [None]
    latest = _moment(moment)
    if latest is None or not starts:
        return False
    latest -= timedelta(seconds=CLOCKS_DIFFER_SECONDS)
    return all(start is not None and start < latest for start in starts)


def unready_reasons(
    record: Record, colour: Colour, pods: Sequence[Mapping[str, Any]], targets: Sequence[Target]
) -> list[str]:
    """List what keeps a colour from carrying all traffic; empty if N pods of exactly this release are N healthy targets.

    Every pod of the colour counts: one of another digest or made for another release, without its readiness gate or without a
    healthy target is a reason, and so is a target that is neither leaving nor one of these pods.
    """
    gate = GATE_PREFIX + workload_name(colour)
    healthy = {target.address for target in targets if target.state == "healthy"}
    reasons = []
    proven = 0
    addresses = set()
    for pod in staying(pods):
        name = pod["metadata"]["name"]
        conditions = _conditions(pod)
        gates = {each["conditionType"] for each in pod["spec"].get("readinessGates") or []}
        address = pod.get("status", {}).get("podIP", "")
        addresses.add(address)
        if not _running_image(pod).endswith(f"@{record.digest}"):
            reasons.append(f"pod {name} runs {_running_image(pod) or 'no such container'}, not {record.digest}")
        elif not _belongs(record, pod):
            reasons.append(f"pod {name} was made for another release than {record.name}")
        elif gate not in gates:
            reasons.append(f"pod {name} has no readiness gate {gate}: it was made before its binding; delete it")
        elif conditions.get(gate) != "True" or conditions.get("Ready") != "True":
            reasons.append(f"pod {name} is not ready (its gate is {conditions.get(gate, 'unset')})")
        elif address not in healthy:
            state = next(
                (f"{each.state} {each.reason}".strip() for each in targets if each.address == address), "absent"
            )
            reasons.append(f"pod {name} at {address} is {state} in target group {workload_name(colour)}")
        else:
            proven += 1
    reasons += [
        f"target {target.address} of {workload_name(colour)} is {target.state} and no pod of {record.name}"
        for target in targets
        if target.address not in addresses and not target.leaves
    ]
    if proven < record.template.replicas:
        reasons.insert(0, f"{proven} of {record.template.replicas} pods of {record.name} are proven in {colour}")
    return reasons


def unserved(
    pods: Sequence[Mapping[str, Any]],
    targets: Sequence[Target],
    deployment: Mapping[str, Any] | None = None,
    replicas: int = 0,
) -> list[str]:
    """List what the live colour lacks, with which no release may start.

    Ready pods that are no healthy target, and pods that its Deployment doesn't ask for any more: a release that failed would
    put all traffic back on those that are left. A Deployment that is not there is no matter of this list, nor are pods that
    are not ready: a release is what replaces a broken one.

    Args:
        pods: of the live colour.
        targets: of its target group.
        deployment: of the live colour as it stands in the cluster.
        replicas: pods that the live release was made with.
    """
    asked = replicas if deployment is None else int((deployment.get("spec") or {}).get("replicas", 1))
    fewer = [f"its Deployment asks for {asked} pods instead of {replicas}"] if asked < replicas else []
    healthy = {target.address for target in targets if target.state == "healthy"}
    return fewer + [
        f"pod {pod['metadata']['name']} is ready but no healthy target"
        for pod in staying(pods)
        if _conditions(pod).get("Ready") == "True" and pod.get("status", {}).get("podIP", "") not in healthy
    ]
