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
            found = self._trim({**kind, **item})
            seen.add(key_of(found))
            before = self.store.put(found)
            if before != found:
                self._tell(before, found)
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
                        found = self._trim(item)
                        if kind == "DELETED":
                            self.store.remove(key_of(found))
                            self._tell(found, None)
                        else:
                            before = self.store.put(found)
                            if before != found:
                                self._tell(before, found)
            except (ApiError, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                if not (isinstance(error, ApiError) and error.status == 410):
                    _log.warning("watch %s: %s", self._path, error)
                time.sleep(1)


def _metadata(found: Object, *fields: str) -> Object:
    metadata = found["metadata"]
    wanted = ("name", "namespace", "uid", "deletionTimestamp", *fields)
    return {name: metadata[name] for name in wanted if name in metadata}


def trim_pod(found: Object) -> Object:
    """Labels, gates, conditions, node, address; annotations wake nothing."""
    status = found.get("status", {})
    return {
        "metadata": _metadata(found, "labels"),
        "spec": {name: found["spec"][name] for name in ("nodeName", "readinessGates") if name in found["spec"]},
        "status": {"conditions": status.get("conditions", []), "podIP": status.get("podIP", "")},
    }


def _load_balancer_annotations(found: Object) -> dict[str, str]:
    annotations = found["metadata"].get("annotations") or {}
    return {key: value for key, value in annotations.items() if key.startswith("alb.ingress.kubernetes.io/")}


def trim_service(found: Object) -> Object:
    """Selector, ports, and what an Ingress takes from the annotations."""
    spec = found["spec"]
    return {
        "metadata": {**_metadata(found), "annotations": _load_balancer_annotations(found)},
        "spec": {"selector": spec.get("selector") or {}, "ports": spec.get("ports") or []},
    }


def trim_ingress(found: Object) -> Object:
    """What a change of wakes the real controller: spec, annotations, the beginning of the deletion."""
    return {"metadata": _metadata(found, "annotations"), "spec": found["spec"]}


def trim_node(found: Object) -> Object:
    """The Ready condition's status."""
    conditions = found.get("status", {}).get("conditions", [])
    ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "False")
    return {"metadata": _metadata(found), "ready": ready}


def trim_slice(found: Object) -> Object:
    """Endpoints and ports."""
    return {
        "metadata": _metadata(found, "labels"),
        "addressType": found.get("addressType"),
        "endpoints": found.get("endpoints") or [],
        "ports": found.get("ports") or [],
    }


def trim_binding(found: Object) -> Object:
    """Everything but managed fields."""
    metadata = {name: value for name, value in found["metadata"].items() if name != "managedFields"}
    return {"metadata": metadata, "spec": found["spec"], "status": found.get("status", {})}
