"""Reconciles TargetGroupBindings: registers what a Service's pods are, and opens and shuts their readiness gates."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import urllib3

from twin.loadbalancer.controller.elb import AWS_ERRORS, ElasticLoadBalancing, TargetInfo, is_not_found
from twin.loadbalancer.controller.kubernetes import ApiError, Kubernetes, Object, Store

_log = logging.getLogger(__name__)

GROUP = "elbv2.k8s.aws"
FINALIZER = "elbv2.k8s.aws/resources"
CHECKPOINT = "elbv2.k8s.aws/checkpoint"
CHECKPOINT_TIME = "elbv2.k8s.aws/checkpoint-timestamp"
GATE_PREFIX = "target-health.elbv2.k8s.aws"


class RequeueNeededError(Exception):
    """Reconciliation is not finished and is tried again after a while."""

    def __init__(self, why: str, after_seconds: float) -> None:
        super().__init__(why)
        self.after_seconds = after_seconds


class BackendNotFoundError(Exception):
    """The Service, or its port, is missing."""


@dataclass(frozen=True)
class Endpoint:
    """A pod's address behind a Service port."""

    ip: str
    port: int
    pod: Object

    @property
    def identity(self) -> tuple[str, int]:
        """The key by which two targets are the same."""
        return self.ip, self.port


@dataclass(frozen=True)
class Caches:
    """The objects that the informers keep, one store per kind."""

    services: Store
    slices: Store
    pods: Store
    nodes: Store
    bindings: Store


def gate_name(binding: Object) -> str:
    """The condition type of a binding's readiness gate."""
    return f"{GATE_PREFIX}/{binding['metadata']['name']}"


def condition(pod: Object, name: str) -> Object | None:
    """A pod's condition."""
    return next((item for item in pod["status"].get("conditions", []) if item["type"] == name), None)


def has_gate(pod: Object, name: str) -> bool:
    """Report whether the pod has that readiness gate."""
    return any(gate["conditionType"] == name for gate in pod["spec"].get("readinessGates") or [])


def service_port(service: Object, wanted: int | str) -> Object:
    """A Service's port by number or name.

    Raises:
        BackendNotFoundError: it has none.
    """
    for port in service["spec"]["ports"]:
        if wanted in (port.get("port"), port.get("name")):
            return dict(port)
    name = service["metadata"]["name"]
    raise BackendNotFoundError(f"backend not found: unable to find port {wanted} on service {name}")


def endpoints_of(caches: Caches, namespace: str, name: str, wanted_port: int | str) -> list[Endpoint]:  # noqa: C901 - as upstream decides, in its order
    """The pods that belong into the target group.

    Ready endpoints; of the others those whose containers are ready, that don't terminate, on a node that is Ready; and
    if there is none at all, those on nodes nothing is known of.

    Raises:
        BackendNotFoundError: the Service or its port is missing.
    """
    service = caches.services.get(namespace, name)
    if service is None:
        raise BackendNotFoundError(f'backend not found: Service "{name}" not found')
    port_name = service_port(service, wanted_port).get("name") or ""
    ready: list[Endpoint] = []
    unknown: list[Endpoint] = []
    slices = [
        endpoint_slice
        for endpoint_slice in caches.slices.all(namespace)
        if endpoint_slice["metadata"].get("labels", {}).get("kubernetes.io/service-name") == name
        and endpoint_slice["addressType"] == "IPv4"
    ]
    for endpoint_slice in slices:
        for port in endpoint_slice["ports"]:
            if port_name and port.get("name") != port_name:
                continue
            for entry in endpoint_slice["endpoints"]:
                reference = entry.get("targetRef") or {}
                if reference.get("kind") != "Pod" or not entry.get("addresses"):
                    continue
                pod = caches.pods.get(reference.get("namespace") or namespace, reference["name"])
                if pod is None:
                    continue
                endpoint = Endpoint(entry["addresses"][0], int(port["port"]), pod)
                conditions = entry.get("conditions") or {}
                if conditions.get("ready") in (None, True):
                    ready.append(endpoint)
                    continue
                containers = condition(pod, "ContainersReady")
                node = caches.nodes.get("", pod["spec"].get("nodeName", ""))
                if containers is None or containers["status"] != "True" or node is None:
                    continue
                if node["ready"] == "True" and not conditions.get("terminating"):
                    ready.append(endpoint)
                elif node["ready"] == "Unknown":
                    unknown.append(endpoint)
    return ready or unknown


def checkpoint_of(binding: Object, endpoints: Sequence[Endpoint]) -> str:
    """A hash of what has to be registered; unchanged means there is nothing to do."""
    identities = ",".join(sorted(f"{endpoint.ip}:{endpoint.port}" for endpoint in endpoints))
    spec = json.dumps(binding["spec"], sort_keys=True)
    return "/".join(hashlib.sha256(text.encode()).hexdigest() for text in (identities, spec))


class Recorder:
    """Kubernetes events on bindings and Ingresses; the same one again raises its count."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self._kubernetes = kubernetes
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}
        self._lock = threading.Lock()

    def event(self, subject: Object, kind: str, reason: str, message: str) -> None:
        """Record an event; failing to is only logged."""
        metadata = subject["metadata"]
        subject_kind = subject.get("kind", "TargetGroupBinding")
        component = subject_kind[0].lower() + subject_kind[1:]
        namespace = metadata["namespace"]
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = (metadata["uid"], reason, message)
        path = f"/api/v1/namespaces/{namespace}/events"
        with self._lock:
            name, count = self._known.get(key, ("", 0))
        try:
            if name:
                self._kubernetes.merge_patch(f"{path}/{name}", {"count": count + 1, "lastTimestamp": now})
            else:
                name = f"{metadata['name']}.{time.time_ns():x}"
                self._kubernetes.request(
                    "POST",
                    path,
                    {
                        "metadata": {"name": name, "namespace": namespace},
                        "involvedObject": {
                            "apiVersion": subject.get("apiVersion", f"{GROUP}/v1beta1"),
                            "kind": subject_kind,
                            "name": metadata["name"],
                            "namespace": namespace,
                            "uid": metadata["uid"],
                            "resourceVersion": metadata["resourceVersion"],
                        },
                        "type": kind,
                        "reason": reason,
                        "message": message[:1024],
                        "source": {"component": component},
                        "reportingComponent": component,
                        "firstTimestamp": now,
                        "lastTimestamp": now,
                        "count": 1,
                    },
                )
        except (ApiError, urllib3.exceptions.HTTPError) as error:
            _log.warning("event %s: %s", reason, error)
            with self._lock:
                self._known.pop(key, None)
            return
        with self._lock:
            self._known[key] = (name, count + 1)


class Reconciler:
    """One pass over one binding."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        elb: ElasticLoadBalancing,
        caches: Caches,
        recorder: Recorder,
        requeue_seconds: float,
    ) -> None:
        self._kubernetes = kubernetes
        self._elb = elb
        self._caches = caches
        self._recorder = recorder
        self._requeue_seconds = requeue_seconds

    @staticmethod
    def _path(binding: Object) -> str:
        metadata = binding["metadata"]
        return f"/apis/{GROUP}/v1beta1/namespaces/{metadata['namespace']}/targetgroupbindings/{metadata['name']}"

    def reconcile(self, namespace: str, name: str, *, whole: bool = False) -> None:
        """Bring ELB and gates in line; ``whole`` ignores the checkpoint.

        Raises:
            RequeueNeededError: a gate is not open yet.
            ApiError, botocore errors: to be tried again later.
        """
        try:
            binding = self._kubernetes.request(
                "GET", f"/apis/{GROUP}/v1beta1/namespaces/{namespace}/targetgroupbindings/{name}"
            )
        except ApiError as error:
            if error.status == 404:
                return
            raise
        if binding["metadata"].get("deletionTimestamp"):
            self._clean_up(binding)
            return
        finalizers = binding["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            binding = self._kubernetes.merge_patch(
                self._path(binding),
                {
                    "metadata": {
                        "finalizers": [*finalizers, FINALIZER],
                        "resourceVersion": binding["metadata"]["resourceVersion"],
                    }
                },
            )
        try:
            done = self._bind(binding, whole=whole)
        except RequeueNeededError:
            raise
        except (ApiError, urllib3.exceptions.HTTPError, *AWS_ERRORS) as error:
            self._recorder.event(binding, "Warning", "FailedReconcile", f"Failed reconcile due to {error}")
            raise
        if not done:
            return
        generation = binding["metadata"]["generation"]
        if binding.get("status", {}).get("observedGeneration") != generation:
            self._kubernetes.merge_patch(
                f"{self._path(binding)}/status", {"status": {"observedGeneration": generation}}
            )
        self._recorder.event(binding, "Normal", "SuccessfullyReconciled", "Successfully reconciled")

    def _bind(self, binding: Object, *, whole: bool) -> bool:
        """Register and deregister; False if the checkpoint says that there is nothing to do."""
        spec = binding["spec"]
        arn = spec["targetGroupARN"]
        gate = gate_name(binding)
        old = (binding["metadata"].get("annotations") or {}).get(CHECKPOINT, "")
        try:
            endpoints = endpoints_of(
                self._caches, binding["metadata"]["namespace"], spec["serviceRef"]["name"], spec["serviceRef"]["port"]
            )
        except BackendNotFoundError as error:
            self._recorder.event(binding, "Warning", "BackendNotFound", str(error))
            self._remove_all_targets(binding)
            self._open_gates_for_good(binding)
            self._save_checkpoint(binding, "", old)
            return True
        new = checkpoint_of(binding, endpoints)
        waiting = any(
            gate_condition is not None and gate_condition["status"] != "True"
            for gate_condition in (condition(endpoint.pod, gate) for endpoint in endpoints)
        )
        if old == new and not waiting and not whole:
            return False
        targets = self._elb.targets(arn)
        present = {target.identity: target for target in targets if target.state != "draining"}
        wanted = {endpoint.identity: endpoint for endpoint in endpoints}
        missing = [endpoint for identity, endpoint in wanted.items() if identity not in present]
        surplus = [target for identity, target in present.items() if identity not in wanted]
        matched = [(endpoint, present[identity]) for identity, endpoint in wanted.items() if identity in present]
        shut = any(has_gate(endpoint.pod, gate) and target.state != "healthy" for endpoint, target in matched)
        if missing or surplus or shut:
            # Whatever happens next, the following pass must not believe that all is done.
            self._save_checkpoint(binding, "", old)
            old = ""
        if surplus:
            _log.info("deregister %s from %s", [f"{t.ip}:{t.port}" for t in surplus], arn)
            self._elb.deregister(arn, surplus)
        if missing:
            _log.info("register %s with %s", [f"{e.ip}:{e.port}" for e in missing], arn)
            self._elb.register(arn, [TargetInfo(endpoint.ip, endpoint.port) for endpoint in missing])
        more = False
        for endpoint, target in matched:
            more |= self._set_gate(endpoint.pod, gate, target)
        for endpoint in missing:
            starting = TargetInfo(
                endpoint.ip,
                endpoint.port,
                "initial",
                "Elb.RegistrationInProgress",
                "Target registration is in progress",
            )
            more |= self._set_gate(endpoint.pod, gate, starting)
        if more:
            raise RequeueNeededError("monitor targetHealth", self._requeue_seconds)
        self._save_checkpoint(binding, new, old)
        return True

    def _set_gate(self, pod: Object, gate: str, target: TargetInfo) -> bool:
        """Write a pod's gate if it differs; whether the target has to be asked for again."""
        if not has_gate(pod, gate):
            return False
        status = "True" if target.state == "healthy" else "False" if target.state else "Unknown"
        more = status != "True"
        metadata = pod["metadata"]
        existing = condition(pod, gate)
        wanted = {"type": gate, "status": status, "reason": target.reason, "message": target.description}
        if existing is not None and all(
            (existing.get(name) or "") == wanted[name] for name in ("status", "reason", "message")
        ):
            return more
        if existing is None or existing["status"] != status:
            wanted["lastTransitionTime"] = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        patch: dict[str, Any] = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [wanted]}}
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        try:
            self._kubernetes.strategic_patch(path, patch)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return more

    def _save_checkpoint(self, binding: Object, new: str, old: str) -> None:
        if new == old:
            return
        self._kubernetes.merge_patch(
            self._path(binding),
            {"metadata": {"annotations": {CHECKPOINT: new, CHECKPOINT_TIME: str(int(time.time()))}}},
        )

    def _remove_all_targets(self, binding: Object) -> None:
        arn = binding["spec"].get("targetGroupARN", "")
        try:
            targets = self._elb.targets(arn)
            if targets:
                self._elb.deregister(arn, targets)
        except AWS_ERRORS as error:
            if not is_not_found(error):
                raise

    def _open_gates_for_good(self, binding: Object) -> None:
        """A binding that is gone must not keep pods from being Ready: its gates say True, though nothing is healthy."""
        gone = TargetInfo("", 0, "healthy", "", "Target Group Binding is deleted")
        for pod in self._caches.pods.all(binding["metadata"]["namespace"]):
            self._set_gate(pod, gate_name(binding), gone)

    def _clean_up(self, binding: Object) -> None:
        if FINALIZER not in (binding["metadata"].get("finalizers") or []):
            return
        try:
            self._remove_all_targets(binding)
            self._open_gates_for_good(binding)
        except (ApiError, urllib3.exceptions.HTTPError, *AWS_ERRORS) as error:
            self._recorder.event(binding, "Warning", "FailedCleanup", f"Failed cleanup due to {error}")
            raise
        rest = [name for name in binding["metadata"]["finalizers"] if name != FINALIZER]
        try:
            self._kubernetes.merge_patch(
                self._path(binding),
                {"metadata": {"finalizers": rest, "resourceVersion": binding["metadata"]["resourceVersion"]}},
            )
        except ApiError as error:
            if error.status != 404:
                raise
