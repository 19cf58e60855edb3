"""Lists and watches one collection, keeps a trimmed copy of it, and tells of changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import urllib3

from twin.loadbalancer.controller.kubernetes import ApiError, Kubernetes, Object, Store, key_of

_log = logging.getLogger(__name__)

Trim = Callable[[Object], Object]
Handler = Callable[[Object | None, Object | None], None]
"""Called with (before, after); one of them is None when an object comes or goes."""


class Informer:
    """One collection. ``trim`` keeps of each object only what is needed."""

    def __init__(self, kubernetes: Kubernetes, path: str, trim: Trim) -> None:
        self._kubernetes = kubernetes
        self._path = path
        self._trim = trim
        self._handlers: list[Handler] = []
        self.store = Store()

    def on_change(self, handler: Handler) -> None:
        """Tell of every change from now on."""
        self._handlers.append(handler)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        threading.Thread(target=self._run, name=self._path, daemon=True).start()

    def _tell(self, before: Object | None, after: Object | None) -> None:
        for handler in self._handlers:
            try:
                handler(before, after)
            except Exception:
                _log.exception("handler of %s", self._path)

    def _list(self) -> str:
        listed = self._kubernetes.request("GET", self._path)
        kind: dict[str, Any] = {}
        seen = set()
        for item in listed["items"]:
            trimmed = self._trim({**kind, **item})
            seen.add(key_of(trimmed))
            before = self.store.put(trimmed)
            if before != trimmed:
                self._tell(before, trimmed)
        for key in self.store.keys() - seen:
            self._tell(self.store.remove(key), None)
        self.store.synced.set()
        return str(listed["metadata"]["resourceVersion"])

    def _run(self) -> None:
        while True:
            try:
                version = self._list()
                while True:
                    for kind, item in self._kubernetes.watch(self._path, version):
                        version = item["metadata"]["resourceVersion"]
                        if kind == "BOOKMARK":
                            continue
                        trimmed = self._trim(item)
                        if kind == "DELETED":
                            self.store.remove(key_of(trimmed))
                            self._tell(trimmed, None)
                        else:
                            before = self.store.put(trimmed)
                            if before != trimmed:
                                self._tell(before, trimmed)
            except (ApiError, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                if not (isinstance(error, ApiError) and error.status == 410):
                    _log.warning("watch %s: %s", self._path, error)
                time.sleep(1)


def _metadata(item: Object, *fields: str) -> Object:
    metadata = item["metadata"]
    wanted = ("name", "namespace", "uid", "deletionTimestamp", *fields)
    return {name: metadata[name] for name in wanted if name in metadata}


def trim_pod(pod: Object) -> Object:
    """Labels, gates, conditions, node, address; annotations wake nothing."""
    status = pod.get("status", {})
    return {
        "metadata": _metadata(pod, "labels"),
        "spec": {name: pod["spec"][name] for name in ("nodeName", "readinessGates") if name in pod["spec"]},
        "status": {"conditions": status.get("conditions", []), "podIP": status.get("podIP", "")},
    }


def _load_balancer_annotations(resource: Object) -> dict[str, str]:
    annotations = resource["metadata"].get("annotations") or {}
    return {key: value for key, value in annotations.items() if key.startswith("alb.ingress.kubernetes.io/")}


def trim_service(service: Object) -> Object:
    """Selector, ports, and what an Ingress takes from the annotations."""
    spec = service["spec"]
    return {
        "metadata": {**_metadata(service), "annotations": _load_balancer_annotations(service)},
        "spec": {"selector": spec.get("selector") or {}, "ports": spec.get("ports") or []},
    }


def trim_ingress(ingress: Object) -> Object:
    """Spec, annotations and the beginning of the deletion: a change of one of these wakes the real controller."""
    return {"metadata": _metadata(ingress, "annotations"), "spec": ingress["spec"]}


def trim_node(node: Object) -> Object:
    """The Ready condition's status."""
    conditions = node.get("status", {}).get("conditions", [])
    ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "False")
    return {"metadata": _metadata(node), "ready": ready}


def trim_slice(endpoint_slice: Object) -> Object:
    """Endpoints and ports."""
    return {
        "metadata": _metadata(endpoint_slice, "labels"),
        "addressType": endpoint_slice.get("addressType"),
        "endpoints": endpoint_slice.get("endpoints") or [],
        "ports": endpoint_slice.get("ports") or [],
    }


def trim_binding(binding: Object) -> Object:
    """Everything but managed fields."""
    metadata = {name: value for name, value in binding["metadata"].items() if name != "managedFields"}
    return {"metadata": metadata, "spec": binding["spec"], "status": binding.get("status", {})}
