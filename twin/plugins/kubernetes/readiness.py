"""When an object is ready, and what to say while it is not: decisions over objects as the API returns them.

One function per kind, after provider/pkg/await/<kind>.go of pulumi-kubernetes; messages are upstream's, since people and
search engines know them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twin.plugins.kubernetes import jsonpath, objects

Object = Mapping[str, Any]

REVISION = "deployment.kubernetes.io/revision"
SETTLE_SECONDS = 10.0
"""Endpoints that have not changed for so long are taken as settled."""


@dataclass(frozen=True)
class Readiness:
    """Ready, failed for good, or waiting; what is shown meanwhile, and the reasons given if time runs out."""

    ready: bool
    failed: bool = False
    status: str = ""
    reasons: tuple[str, ...] = ()


READY = Readiness(ready=True)


def _status(live: Object) -> Mapping[str, Any]:
    found = live.get("status")
    return found if isinstance(found, Mapping) else {}


def _spec(live: Object) -> Mapping[str, Any]:
    found = live.get("spec")
    return found if isinstance(found, Mapping) else {}


def conditions(live: Object) -> dict[str, Mapping[str, Any]]:
    """Conditions by type."""
    return {one["type"]: one for one in _status(live).get("conditions") or []}


def owned_by(some: Iterable[Object], owner: Object | None) -> list[Object]:
    """Those whose owner is exactly that object."""
    if owner is None:
        return []
    uid = objects.metadata(owner).get("uid")
    return [
        one
        for one in some
        if any(reference.get("uid") == uid for reference in objects.metadata(one).get("ownerReferences") or [])
    ]


def _name(live: Object) -> str:
    found = objects.metadata(live)
    return found["name"] if found.get("namespace") in (None, "", "default") else f"{found['namespace']}/{found['name']}"


# --- pods


def _container_errors(status: Mapping[str, Any]) -> list[str]:
    if status.get("ready"):
        return []
    found = []
    state = status.get("state") or {}
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting and waiting.get("reason") != "ContainerCreating":
        found.append(f"[{waiting.get('reason', '')}] {waiting.get('message', '')}".strip())
    if ended and ended.get("reason"):
        message = ended.get("message")
        code = f'container "{status["name"]}" completed with exit code {ended.get("exitCode", 0)}'
        found.append(f"[{ended['reason']}] {message}" if message else code)
    last = (status.get("lastState") or {}).get("terminated")
    if last:
        how = f"{last.get('reason', '')}: exit code {last.get('exitCode', 0)}"
        found.append(f'container "{status["name"]}" terminated at {last.get("finishedAt")} ({how})')
        if last.get("message"):
            found.append(last["message"])
    return found


def pod(live: Object) -> Readiness:
    """Scheduled, initialized and ready, or succeeded (await/checker/pod)."""
    found, phase, name = conditions(live), _status(live).get("phase"), _name(live)
    for kind, words in (("PodScheduled", "scheduled"), ("Initialized", "initialized"), ("Ready", "ready")):
        one = found.get(kind)
        waiting = f'Waiting for Pod "{name}" to be {words}'
        if one is not None and (one.get("status") == "True" or (kind == "Ready" and phase == "Succeeded")):
            continue
        reasons: tuple[str, ...] = ()
        if one is not None and kind != "PodScheduled":
            errors = [text for each in _status(live).get("containerStatuses") or [] for text in _container_errors(each)]
            if errors or one.get("message"):
                own = one.get("message", "") if one.get("reason") else ""
                reasons = (f"[Pod {name}]: {own}" + "\n".join(errors),)
        elif one is not None and one.get("reason") and one.get("message"):
            # Upstream only shows this one; kept as a reason, since nothing else says why a Pod is Pending.
            reasons = (f"[Pod {name}]: {one['message']}",)
        return Readiness(ready=False, status=waiting, reasons=reasons)
    return READY


def pod_reasons(pods: Iterable[Object]) -> tuple[str, ...]:
    """Why pods are not ready, each reason once."""
    return tuple(dict.fromkeys(reason for one in pods for reason in pod(one).reasons))


# --- controllers of pods


def _said(condition: Mapping[str, Any] | None) -> list[str]:
    if condition is None or condition.get("status") == "True" or not condition.get("reason"):
        return []
    return [f"[{condition['reason']}] {condition.get('message', '')}"]


def deployment(
    live: Object,
    replica_sets: Iterable[Object] = (),
    pods: Iterable[Object] = (),
    claims: Iterable[Object] = (),
) -> Readiness:
    """Observed; Available; after the first revision NewReplicaSetAvailable; its ReplicaSet's pods ready (deployment.go).

    As upstream: a missed progress deadline is a reason and no early end, and pods of older revisions that are still going
    are not waited for, so a Deployment scaled to 0 is ready at once.
    """
    status, found = _status(live), conditions(live)
    if status.get("observedGeneration") != objects.metadata(live).get("generation"):
        return Readiness(ready=False, status="Waiting for the Deployment controller", reasons=())
    revision = objects.notes_of(live).get(REVISION, "0")
    mine = {objects.notes_of(one).get(REVISION): one for one in owned_by(replica_sets, live)}.get(revision)
    wanted = _spec(mine).get("replicas", 1) if mine is not None else 0
    ready = _status(mine).get("readyReplicas") if mine is not None else None
    up_to_date = mine is not None and (ready >= wanted if ready is not None else wanted == 0)
    available = found.get("Available", {}).get("status") == "True"
    progressing = found.get("Progressing", {})
    rolled = progressing.get("status") == "True" and progressing.get("reason") == "NewReplicaSetAvailable"
    unbound = [one for one in claims if _status(one).get("phase") != "Bound"]
    first = revision == "1"
    if available and up_to_date and (first or rolled) and not unbound:
        return READY
    reasons = _said(found.get("Progressing")) + _said(found.get("Available"))
    if unbound:
        names = ",".join(str(objects.metadata(one)["name"]) for one in unbound)
        reasons.append(f'Failed to bind PersistentVolumeClaim(s): "{names}"')
    if not available:
        reasons.append("Minimum number of live Pods was not attained")
    elif not first and not rolled:
        reasons.append("Minimum number of Pods to consider the application live was not attained")
    elif not up_to_date:
        reasons.append(
            "Minimum number of Pods to consider the application live was not attained"
            if first
            else "Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live"
        )
    said = f"Waiting for app ReplicaSet to be available ({ready or 0}/{wanted} Pods available)"
    return Readiness(ready=False, status=said, reasons=(*reasons, *pod_reasons(owned_by(pods, mine))))


def stateful_set(live: Object, pods: Iterable[Object] = ()) -> Readiness:
    """Every replica ready and of the newest revision (statefulset.go)."""
    status, spec = _status(live), _spec(live)
    generation = objects.metadata(live).get("generation", 0)
    wanted = spec.get("replicas", 0)
    if status.get("observedGeneration", 0) < generation:
        none = f"0 out of {wanted} replicas succeeded readiness checks"
        return Readiness(ready=False, status="Waiting for the StatefulSet controller", reasons=(none,))
    ready, current, target = status.get("readyReplicas", 0), status.get("currentRevision"), status.get("updateRevision")
    by_hand = generation > 1 and (spec.get("updateStrategy") or {}).get("type") == "OnDelete"
    revised = by_hand or (bool(current) and current == target)
    enough = wanted == status.get("replicas", 0) == ready and (by_hand or wanted == status.get("currentReplicas", 0))
    if revised and enough:
        return READY
    counted = ready if revised else min(ready, status.get("updatedReplicas", 0))
    reasons = []
    if not enough:
        reasons.append(f"{counted} out of {wanted} replicas succeeded readiness checks")
    if not revised:
        reasons.append(f'StatefulSet controller failed to advance from revision "{current}" to revision "{target}"')
    said = f"Waiting for StatefulSet to roll out ({counted}/{wanted} Pods ready)"
    return Readiness(ready=False, status=said, reasons=(*reasons, *pod_reasons(owned_by(pods, live))))


def daemon_set(live: Object, pods: Iterable[Object] = ()) -> Readiness:
    """A pod of the newest revision available on every node it belongs on (daemonset.go, kstatus)."""
    status = _status(live)
    wanted = status.get("desiredNumberScheduled")
    counts = ("currentNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady")
    seen = status.get("observedGeneration") == objects.metadata(live).get("generation")
    if seen and wanted is not None and all(status.get(name, 0) >= wanted for name in counts):
        return READY
    said = f"Available: {status.get('numberAvailable', 0)}/{wanted or 0}"
    return Readiness(ready=False, status=said, reasons=pod_reasons(owned_by(pods, live)))


def job(live: Object, pods: Iterable[Object] = ()) -> Readiness:
    """Started and complete. Out of tries or of time: failed (job.go, checker/job)."""
    status, found = _status(live), conditions(live)
    because = pod_reasons(owned_by(pods, live))
    if not status.get("startTime"):
        return Readiness(ready=False, status=f'Waiting for Job "{_name(live)}" to start', reasons=because)
    failure = found.get("Failed", {})
    if failure.get("status") == "True" and failure.get("reason") in ("BackoffLimitExceeded", "DeadlineExceeded"):
        said = f"[{failure['reason']}] {failure.get('message', '')}"
        return Readiness(ready=False, failed=True, reasons=(said, *because))
    if found.get("Complete", {}).get("status") == "True":
        return READY
    counts = " | ".join(f"{name.capitalize()}: {status.get(name, 0)}" for name in ("active", "succeeded", "failed"))
    said = f'Waiting for Job "{_name(live)}" to succeed ({counts})'
    return Readiness(ready=False, status=said, reasons=because)


def replication_controller(live: Object) -> Readiness:
    """As many replicas available as wanted (awaiters.go)."""
    wanted, available = _spec(live).get("replicas"), _status(live).get("availableReplicas")
    if wanted is not None and wanted == available:
        return READY
    return Readiness(ready=False, status=f"Waiting for replicas ({available or 0}/{wanted})")


# --- traffic


@dataclass
class Settling:
    """Time since the last change of something watched: its versions by name."""

    versions: dict[str, str] = field(default_factory=dict)
    since: float | None = None

    def observe(self, now: float, versions: dict[str, str]) -> float | None:
        """Seconds without a change; None if nothing was ever there."""
        if versions != self.versions:
            self.versions, self.since = dict(versions), now
        return None if self.since is None else now - self.since


def service(live: Object, endpoints: Object | None, *, settled: bool, late: bool = False) -> Readiness:
    """Its endpoints settled and none of them pending, its load balancer there if it asks for one (service.go).

    As upstream: no endpoints at all are fine once settled; those of pods that are not ready are waited for.
    ``late``: time has run out, so endpoints count that never settled.
    """
    spec = _spec(live)
    kind = spec.get("type", "ClusterIP")
    balanced = kind != "LoadBalancer" or bool((_status(live).get("loadBalancer") or {}).get("ingress"))
    headless = spec.get("clusterIP") == "None"
    if kind == "ExternalName" or headless or not spec.get("selector"):
        return (
            READY if balanced else Readiness(ready=False, status="[2/3] Attempting to allocate IP address to Service")
        )
    subsets = (endpoints or {}).get("subsets") or []
    pending = any(one.get("notReadyAddresses") for one in subsets)
    served = any(one.get("addresses") for one in subsets)
    if balanced and not pending and (settled or late):
        return READY
    reasons = []
    if not served:
        reasons.append(
            "Service does not target any Pods. Selected Pods may not be ready, or "
            "field '.spec.selector' may not match labels on any Pods"
        )
    if not balanced:
        reasons.append("Service was not allocated an IP address; does your cloud provider support this?")
    said = (
        "[2/3] Attempting to allocate IP address to Service"
        if settled and served
        else "[1/3] Finding Pods to direct traffic to"
    )
    return Readiness(ready=False, status=said, reasons=tuple(reasons))


def ingress(live: Object, known: set[str], *, settled: bool) -> Readiness:
    """Each backend has endpoints (or they have settled without), and it has an address (ingress.go)."""
    backends = [
        ((path.get("backend") or {}).get("service") or {}).get("name")
        for rule in _spec(live).get("rules") or []
        for path in (rule.get("http") or {}).get("paths") or []
    ]
    found = settled or all(name in known for name in backends if name)
    addressed = bool((_status(live).get("loadBalancer") or {}).get("ingress"))
    if found and addressed:
        return READY
    reasons = []
    if not found:
        reasons.append("Ingress has at least one rule with an unavailable target endpoint.")
    if not addressed:
        reasons.append("Ingress .status.loadBalancer field was not updated with a hostname/IP address.")
    said = (
        "[2/3] Waiting for update of .status.loadBalancer with hostname/IP"
        if found
        else "[1/3] Finding a matching service for each Ingress path"
    )
    return Readiness(ready=False, status=said, reasons=tuple(reasons))


# --- storage and the rest (awaiters.go)


def persistent_volume(live: Object) -> Readiness:
    """Available or bound."""
    phase = _status(live).get("phase")
    return READY if phase in ("Available", "Bound") else Readiness(ready=False, status=f"The volume is {phase}")


def persistent_volume_claim(live: Object, binding_mode: str | None, *, update: bool) -> Readiness:
    """Bound; pending is enough where a claim waits for its first consumer."""
    phase = _status(live).get("phase")
    late_binding = binding_mode == "WaitForFirstConsumer" and not (update and phase == "Bound")
    if phase == ("Pending" if late_binding else "Bound"):
        return READY
    return Readiness(ready=False, status=f"The claim is {phase}")


def resource_quota(live: Object) -> Readiness:
    """Taken note of."""
    return READY if _spec(live).get("hard") == _status(live).get("hard") else Readiness(ready=False)


def secret(live: Object) -> Readiness:
    """A service account's token is filled in; others are ready at once."""
    waits = live.get("type") == "kubernetes.io/service-account-token" and not live.get("data")
    return Readiness(ready=False, status="Waiting for the token") if waits else READY


def generic(live: Object) -> Readiness:
    """Any kind, with PULUMI_K8S_AWAIT_ALL=true: observed, and no condition against it (await/condition/ready.go, kstatus)."""
    status, found = _status(live), conditions(live)
    seen = status.get("observedGeneration")
    if seen is not None and seen != objects.metadata(live).get("generation"):
        return Readiness(ready=False, status="Waiting for the controller to observe the change")
    for name, bad in (("Reconciling", "True"), ("Stalled", "True"), ("Ready", "False"), ("Ready", "Unknown")):
        if found.get(name, {}).get("status") == bad:
            return Readiness(ready=False, status=found[name].get("message") or f"{name} is {bad}")
    return READY


# --- pulumi.com/waitFor


Judge = Callable[[Object], Readiness]


def wait_for(annotation: str) -> Judge:
    """``condition=Ready[=value]``, ``jsonpath={.a.b}[=value]``, or a JSON list of them, all of which must hold.

    Raises:
        ValueError: it is neither.
    """
    try:
        given = json.loads(annotation)
    except ValueError:
        given = None
    expressions = given if isinstance(given, list) else [annotation]
    if not expressions:
        raise ValueError("at least one condition must be specified")
    judges = [_expression(str(one)) for one in expressions]

    def judge(live: Object) -> Readiness:
        for one in judges:
            found = one(live)
            if not found.ready:
                return found
        return READY

    return judge


def _expression(given: str) -> Judge:
    kind, _, rest = given.partition("=")
    if kind == "jsonpath":
        return _by_path(jsonpath.parse(rest))
    if kind == "condition":
        return _by_condition(rest)
    raise ValueError(f'expected a "jsonpath=" or "condition=" prefix, got {json.dumps(given)}')


def _outdated(live: Object, seen: Any) -> bool:
    generation = objects.metadata(live).get("generation")
    return seen is not None and generation is not None and seen < generation


def _by_path(expression: jsonpath.Expression) -> Judge:
    def judge(live: Object) -> Readiness:
        if _outdated(live, _status(live).get("observedGeneration")):
            return Readiness(ready=False, status=f"Waiting for {expression}")
        return READY if expression.matches(live) else Readiness(ready=False, status=f"Waiting for {expression}")

    return judge


def _by_condition(rest: str) -> Judge:
    name, _, value = rest.partition("=")
    wanted = value or "True"

    def judge(live: Object) -> Readiness:
        found = {kind.lower(): one for kind, one in conditions(live).items()}.get(name.lower())
        if found is None:
            return Readiness(ready=False, status=f"Waiting for condition {name}")
        if _outdated(live, found.get("observedGeneration", _status(live).get("observedGeneration"))):
            return Readiness(ready=False, status=f"Waiting for condition {name} of the newest generation")
        status = str(found.get("status"))
        if status.lower() == wanted.lower():
            return READY
        said = f"Resource has condition {name}={status} (want {wanted})"
        message = found.get("message")
        return Readiness(ready=False, status=f"{said}: {message}" if message else said)

    return judge


def reasons_of(found: Readiness) -> Sequence[str]:
    """What to add to "timed out": its reasons, or what it was waiting for."""
    return found.reasons or ((found.status,) if found.status else ())
