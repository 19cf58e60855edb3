"""Waiting for objects: asks the cluster for what a decision in readiness.py needs, until it is made or time is up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twin.plugins.kubernetes import objects, readiness
from twin.plugins.kubernetes.api import Api, ApiError, Manifest, NoMatchError
from twin.plugins.kubernetes.readiness import Readiness

POLL_SECONDS = 0.5
DEFAULT_SECONDS = 600.0
_SAY_AGAIN_SECONDS = 10.0
_NO_ENDPOINTS_SECONDS = 60.0


class NotReadyError(Exception):
    """The object is there, and time is up, the wait was cancelled, or it failed for good."""

    def __init__(self, text: str, live: Manifest, reasons: Sequence[str]) -> None:
        super().__init__(text)
        self.live = live
        self.reasons = list(reasons)


@dataclass
class Watch:
    """One object that is waited for. ``before`` is the live object an update found; None for a new one."""

    api: Api
    before: Manifest | None = None
    settling: readiness.Settling = field(default_factory=readiness.Settling)
    started: float = field(default_factory=time.monotonic)

    def pods(self, live: Manifest) -> list[Manifest]:
        """Pods that its selector names; all of the namespace where the selector is more than labels."""
        selector = (live.get("spec") or {}).get("selector") or {}
        labels = selector.get("matchLabels") if not selector.get("matchExpressions") else None
        return self.api.listed("v1", "Pod", live["metadata"]["namespace"], labels)

    def deployment(self, live: Manifest) -> Readiness:
        """With its ReplicaSets, their pods and its claims."""
        namespace = live["metadata"]["namespace"]
        template = live["spec"]["template"]["spec"]
        volumes = [one.get("persistentVolumeClaim") or {} for one in template.get("volumes") or []]
        names = {one["claimName"] for one in volumes if "claimName" in one}
        claims = self.api.listed("v1", "PersistentVolumeClaim", namespace) if names else []
        return readiness.deployment(
            live,
            self.api.listed("apps/v1", "ReplicaSet", namespace),
            self.pods(live),
            [one for one in claims if one["metadata"]["name"] in names],
        )

    def _endpoints(self, namespace: str, name: str) -> Manifest | None:
        wanted = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": namespace, "name": name}}
        return self.api.find(wanted)

    def service(self, live: Manifest, *, at_once: bool = False, late: bool = False) -> Readiness:
        """With its endpoints, ten seconds after their last change."""
        found = self._endpoints(live["metadata"]["namespace"], live["metadata"]["name"])
        versions = {"": found["metadata"]["resourceVersion"]} if found is not None else {}
        quiet = self.settling.observe(time.monotonic(), versions)
        settled = at_once or (quiet is not None and quiet >= readiness.SETTLE_SECONDS)
        return readiness.service(live, found, settled=settled, late=late)

    def ingress(self, live: Manifest, *, at_once: bool = False) -> Readiness:
        """With the endpoints of its namespace."""
        namespace = live["metadata"]["namespace"]
        endpoints = self.api.listed("v1", "Endpoints", namespace)
        versions = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in endpoints}
        quiet = self.settling.observe(time.monotonic(), versions)
        patience = readiness.SETTLE_SECONDS if versions else _NO_ENDPOINTS_SECONDS
        waited = quiet if quiet is not None else time.monotonic() - self.started
        services = self.api.listed("v1", "Service", namespace)
        elsewhere = {one["metadata"]["name"] for one in services if one["spec"].get("type") == "ExternalName"}
        return readiness.ingress(live, {*versions, *elsewhere}, settled=at_once or waited >= patience)

    def claim(self, live: Manifest) -> Readiness:
        """With the binding mode of its storage class."""
        name = (live.get("spec") or {}).get("storageClassName")
        mode = None
        if name:
            wanted = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
            mode = (self.api.find(wanted) or {}).get("volumeBindingMode")
        return readiness.persistent_volume_claim(live, mode, update=self.before is not None)


@dataclass(frozen=True)
class Kind:
    """How a kind is judged; whether a refresh judges it too; its own time limit, whatever is configured."""

    judge: Callable[[Watch, Manifest], Readiness]
    read: Callable[[Watch, Manifest], Readiness] | None = None
    limit_seconds: float | None = None


def _plain(judge: Callable[[Mapping[str, Any]], Readiness]) -> Callable[[Watch, Manifest], Readiness]:
    return lambda _, live: judge(live)


def _with_pods(judge: Callable[[Mapping[str, Any], list[Manifest]], Readiness]) -> Kind:
    def look(watch: Watch, live: Manifest) -> Readiness:
        return judge(live, watch.pods(live))

    return Kind(look, read=look)


KINDS: dict[tuple[str, str], Kind] = {
    ("apps/v1", "DaemonSet"): _with_pods(readiness.daemon_set),
    ("apps/v1", "Deployment"): Kind(Watch.deployment, read=Watch.deployment),
    ("apps/v1", "StatefulSet"): _with_pods(readiness.stateful_set),
    ("batch/v1", "Job"): _with_pods(readiness.job),
    ("networking.k8s.io/v1", "Ingress"): Kind(Watch.ingress, read=lambda w, live: w.ingress(live, at_once=True)),
    ("v1", "PersistentVolume"): Kind(_plain(readiness.persistent_volume), limit_seconds=300),
    ("v1", "PersistentVolumeClaim"): Kind(Watch.claim, limit_seconds=300),
    ("v1", "Pod"): Kind(_plain(readiness.pod), read=_plain(readiness.pod)),
    ("v1", "ReplicationController"): Kind(_plain(readiness.replication_controller), limit_seconds=600),
    ("v1", "ResourceQuota"): Kind(_plain(readiness.resource_quota), limit_seconds=60),
    ("v1", "Secret"): Kind(_plain(readiness.secret), limit_seconds=5),
    ("v1", "Service"): Kind(Watch.service, read=lambda w, live: w.service(live, at_once=True)),
}
"""Kinds that are waited for (provider/pkg/await/awaiters.go); every other is ready once the API has taken it."""

SKIP_AWAIT_SKIPS_DELETION = {
    ("v1", "Namespace"), ("v1", "Pod"), ("v1", "ReplicationController"), ("apps/v1", "DaemonSet"),
    ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("batch/v1", "Job"),
}  # fmt: skip


def kind_of(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """``apps/v1``, ``Deployment``."""
    return str(manifest.get("apiVersion")), str(manifest.get("kind"))


def skipped(inputs: Mapping[str, Any]) -> bool:
    """Whether ``pulumi.com/skipAwait`` is "true"."""
    return objects.notes_of(inputs).get("pulumi.com/skipAwait") == "true"


def seconds_for(given: float, inputs: Mapping[str, Any]) -> float:
    """customTimeouts, else ``pulumi.com/timeoutSeconds``, else ten minutes."""
    noted = objects.notes_of(inputs).get("pulumi.com/timeoutSeconds", "")
    return given or (float(noted) if noted.isdigit() else DEFAULT_SECONDS)


def _judge(watch: Watch, live: Manifest) -> tuple[Callable[[Manifest], Readiness], float | None, bool]:
    """How to judge it, the kind's own limit, and whether upstream's generic words are used for it."""
    annotation = objects.notes_of(live).get("pulumi.com/waitFor")
    if annotation:
        return readiness.wait_for(annotation), None, True
    kind = KINDS.get(kind_of(live))
    if kind is not None:
        return (lambda found: kind.judge(watch, found)), kind.limit_seconds, kind_of(live) == ("apps/v1", "DaemonSet")
    if os.environ.get("PULUMI_K8S_AWAIT_ALL") == "true":
        return readiness.generic, None, True
    return (lambda _: readiness.READY), None, True


def until_ready(
    watch: Watch,
    live: Manifest,
    seconds: float,
    *,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> Manifest:
    """The object once it is ready.

    Raises:
        NotReadyError: it failed, time is up, it went away, or the wait was cancelled.
        ApiError, ProviderError: the cluster can't be asked.
    """
    judge, limit, generic = _judge(watch, live)
    deadline = time.monotonic() + (limit if limit is not None else seconds)
    name, said, said_at = live["metadata"]["name"], "", 0.0
    while True:
        found = judge(live)
        if found.ready:
            tell("")
            return live
        reasons = readiness.reasons_of(found)
        if found.failed:
            raise NotReadyError(f"Resource '{name}' was created but failed to initialize", live, reasons)
        if cancelled():
            raise NotReadyError(f'Resource operation was cancelled for "{name}"', live, reasons)
        if time.monotonic() > deadline:
            if kind_of(live) == ("v1", "Service") and not generic and watch.service(live, late=True).ready:
                return live
            text = "timed out waiting for the condition" if generic else f"'{name}' timed out waiting to be Ready"
            raise NotReadyError(text, live, reasons)
        if found.status != said or time.monotonic() - said_at > _SAY_AGAIN_SECONDS:
            said, said_at = found.status, time.monotonic()
            tell(said)
        time.sleep(POLL_SECONDS)
        latest = watch.api.find(live)
        if latest is None:
            raise NotReadyError(f"Resource '{name}' was deleted while it was waited for", live, reasons)
        live = latest


def read_readiness(api: Api, live: Manifest) -> Readiness:
    """What a refresh says of it; only kinds that upstream judges then."""
    kind = KINDS.get(kind_of(live))
    if kind is None or kind.read is None:
        return readiness.READY
    return kind.read(Watch(api), live)


def until_gone(
    api: Api,
    manifest: Manifest,
    uid: str | None,
    seconds: float,
    *,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> str | None:
    """Wait until the object (or that very object, by uid) is gone; otherwise why it is not.

    Its kind must be one that may be listed, whether or not the object is gone at the first look.
    """
    deadline = time.monotonic() + seconds
    try:
        api.ask_to_list(manifest)
    except NoMatchError:
        return None
    except ApiError as error:
        return None if error.not_found else str(error)
    while True:
        try:
            live = api.find(manifest)
        except NoMatchError:
            return None
        except ApiError as error:
            if error.status != 403:
                raise
            return str(error)
        if live is None or (uid is not None and live["metadata"].get("uid") != uid):
            tell("")
            return None
        finalizers = ", ".join(live["metadata"].get("finalizers") or [])
        hint = f"; finalizers might be preventing deletion ({finalizers})" if finalizers else ""
        if cancelled():
            return f'Resource operation was cancelled for "{manifest["metadata"]["name"]}"{hint}'
        if time.monotonic() > deadline:
            return f"timed out waiting for the condition{hint}"
        tell(f"Waiting for deletion{hint}")
        time.sleep(POLL_SECONDS)
