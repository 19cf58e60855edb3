"""The stand-in of the pulumi-kubernetes plugin: any kind the cluster knows, by server-side apply; Helm releases by helm."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from importlib.metadata import version
from typing import Any

from twin.plugins.common import (
    UNKNOWN,
    Difference,
    PartialError,
    Properties,
    Provider,
    ProviderError,
    Secret,
    differing,
    prune,
)
from twin.plugins.kubernetes import helm, rules
from twin.plugins.kubernetes.api import Api, ApiError

_POLL_SECONDS = 0.5
_DEFAULT_TIMEOUT_SECONDS = 600.0
_MANAGER = "pulumi-kubernetes"
_REFUSED = re.compile(r"kubernetes:(yaml|kustomize|helm\.sh)/|.*(Patch|List)$")
_SETTINGS = {
    "kubeconfig", "context", "cluster", "namespace", "enableServerSideApply", "enableConfigMapMutable",
    "enableSecretMutable", "deleteUnreachable", "skipUpdateUnreachable", "suppressDeprecationWarnings", "version",
    "suppressHelmHookWarnings", "clusterIdentifier", "helmReleaseSettings", "alwaysRender",
}  # fmt: skip
_OWN = {"__initialApiVersion", "__fieldManager", "__inputs"}


def _annotations(manifest: Properties) -> dict[str, str]:
    return (manifest.get("metadata") or {}).get("annotations") or {}


class KubernetesProvider(Provider):
    """pulumi-kubernetes as far as the twin needs it."""

    name = "kubernetes"
    version = version("pulumi-kubernetes")

    def __init__(self) -> None:
        self._settings: Properties = {}
        self._api: Api | None = None
        self._helm: helm.Helm | None = None

    def configure(self, settings: Properties) -> None:
        """Take the provider's settings; the cluster is first contacted when it is needed."""
        unknown = sorted(set(settings) - _SETTINGS)
        if unknown:
            raise ProviderError(f"twin: kubernetes provider setting {', '.join(unknown)} is not implemented")
        if str(settings.get("enableServerSideApply", "true")).lower() != "true":
            raise ProviderError("twin: a kubernetes provider without server-side apply is not implemented")
        self._settings = settings

    @property
    def api(self) -> Api:
        """The cluster."""
        if self._api is None:
            given = self._settings.get("kubeconfig") or os.environ.get("KUBECONFIG", "")
            if not given or given == UNKNOWN:
                raise ProviderError("kubernetes provider: no kubeconfig (it is not known yet, or not set)")
            self._api = Api(given, self._settings.get("context"))
        return self._api

    @property
    def helm(self) -> helm.Helm:
        """Helm for the same cluster."""
        if self._helm is None:
            self._helm = helm.Helm(self.api.text)
        return self._helm

    def _mutable(self, name: str) -> bool:
        return str(self._settings.get(name, "false")).lower() == "true"

    def check(self, type_name: str, urn: str, old: Properties, new: Properties, seed: bytes) -> Properties:
        """Names and namespaces as upstream fills them in."""
        logical = urn.rpartition("::")[2]
        if type_name == helm.TYPE:
            return helm.check(new, logical)
        if _REFUSED.match(type_name):
            raise ProviderError(f"twin: {type_name} is not implemented by the stand-in of the kubernetes plugin")
        inputs = {key: value for key, value in new.items() if key != "__defaults"}
        if not inputs.get("apiVersion") or not inputs.get("kind"):
            raise ProviderError(f"{logical}: apiVersion and kind are required")
        metadata = dict(inputs.get("metadata") or {})
        if not metadata.get("name"):
            before = (old.get("metadata") or {}).get("name")
            digits = hashlib.sha256(seed).hexdigest()[:8] if seed else secrets.token_hex(4)
            metadata["name"] = before or f"{logical[:54]}-{digits}"
            notes = {**(metadata.get("annotations") or {}), "pulumi.com/autonamed": "true"}
            metadata["annotations"] = notes
        default = self._settings.get("namespace")
        if default and not metadata.get("namespace"):
            metadata["namespace"] = default
        inputs["metadata"] = metadata
        return inputs

    def difference(
        self, type_name: str, identifier: str, old_inputs: Properties, outputs: Properties, new: Properties
    ) -> Difference:
        """Inputs against inputs; immutable fields and unready Jobs that ask for it need a new object."""
        del identifier, outputs
        if type_name == helm.TYPE:
            return helm.difference(old_inputs, new)
        changed = differing(old_inputs, new)
        found = rules.replaces(
            new["apiVersion"],
            new["kind"],
            changed,
            config_map_mutable=self._mutable("enableConfigMapMutable"),
            secret_mutable=self._mutable("enableSecretMutable"),
        )
        if not found and _annotations(new).get("pulumi.com/replaceUnready") == "true":
            live = self._live(old_inputs)
            if live is None or self._readiness(live).failed:
                changed, found = [*changed, "status"], ["status"]
        named = _annotations(new).get("pulumi.com/autonamed") != "true"
        same = (old_inputs.get("metadata") or {}).get("name") == (new.get("metadata") or {}).get("name")
        return Difference(changed, found, delete_before_replace=bool(found) and named and same)

    def _live(self, manifest: Properties) -> dict[str, Any] | None:
        metadata = manifest["metadata"]
        return self.api.get(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"])

    def _outputs(self, live: dict[str, Any], inputs: Properties) -> Properties:
        found: Properties = json.loads(json.dumps(live))
        found.get("metadata", {}).pop("managedFields", None)
        if found.get("kind") == "Secret":
            for key in ("data", "stringData"):
                if key in found:
                    found[key] = Secret(found[key])
        found["__initialApiVersion"] = inputs["apiVersion"]
        found["__fieldManager"] = _MANAGER
        return found

    def _identifier(self, inputs: Properties, live: dict[str, Any]) -> str:
        metadata = live["metadata"]
        del inputs
        return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else str(metadata["name"])

    def create(self, type_name: str, urn: str, inputs: Properties, timeout: float) -> tuple[str, Properties]:
        """Apply and await."""
        del urn
        if type_name == helm.TYPE:
            outputs = self.helm.install(inputs, timeout)
            return f"{inputs['namespace']}/{inputs['name']}", outputs
        live = self._apply(inputs, timeout)
        identifier = self._identifier(inputs, live)
        return identifier, self._await(identifier, inputs, live, timeout)

    def _apply(self, inputs: Properties, timeout: float) -> dict[str, Any]:
        """Server-side apply. A kind or namespace that is only just being made is retried, as upstream does."""
        force = _annotations(inputs).get("pulumi.com/patchForce") == "true"
        deadline = time.monotonic() + min(timeout or 60.0, 60.0)
        manifest = {key: value for key, value in inputs.items() if key not in _OWN}
        while True:
            try:
                return self.api.apply(manifest, _MANAGER, force=force)
            except ApiError as error:
                passing = error.status in (429, 500, 503) or (error.status == 404 and "namespaces" in str(error))
                if not passing or time.monotonic() > deadline:
                    raise self._clear(inputs, error) from error
            except ProviderError as error:
                if "no matches for kind" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def _clear(self, inputs: Properties, error: ApiError) -> ProviderError:
        metadata = inputs["metadata"]
        where = f"{inputs['kind']} {metadata.get('namespace', '')}/{metadata['name']}".replace(" /", " ")
        if error.status == 409 and "conflict" in str(error).lower():
            return ProviderError(
                f"{where}: the resource has conflicts with other field managers; set the annotation pulumi.com/patchForce "
                f"to take the fields over: {error}"
            )
        return ProviderError(f"{where}: {error}")

    def _readiness(self, live: dict[str, Any]) -> rules.Readiness:
        annotation = _annotations(live).get("pulumi.com/waitFor")
        if annotation:
            try:
                return rules.wait_for(live, annotation)
            except ValueError as error:
                raise ProviderError(str(error)) from error
        key = rules.group_kind(live["apiVersion"], live["kind"])
        if key == "/Service":
            return self._service(live)
        judge = rules.BY_KIND.get(key)
        return judge(live) if judge is not None else rules.READY

    def _service(self, live: dict[str, Any]) -> rules.Readiness:
        """At least one endpoint, unless it has no selector or is a name elsewhere (await/service.go)."""
        spec = live["spec"]
        if spec.get("type") == "ExternalName" or not spec.get("selector"):
            return rules.READY
        metadata = live["metadata"]
        labels = {"kubernetes.io/service-name": metadata["name"]}
        slices = self.api.listed("discovery.k8s.io/v1", "EndpointSlice", metadata["namespace"], labels)
        if any(one.get("endpoints") for one in slices):
            return rules.READY
        return rules.Readiness(ready=False, message="Service does not target any Pods")

    def _await(self, identifier: str, inputs: Properties, live: dict[str, Any], timeout: float) -> Properties:
        notes = _annotations(inputs)
        if notes.get("pulumi.com/skipAwait") == "true":
            return self._outputs(live, inputs)
        seconds = timeout or float(notes.get("pulumi.com/timeoutSeconds") or _DEFAULT_TIMEOUT_SECONDS)
        deadline = time.monotonic() + seconds
        while True:
            found = self._readiness(live)
            if found.ready:
                return self._outputs(live, inputs)
            expired = time.monotonic() > deadline
            if found.failed or expired:
                late = f"not ready within {seconds:.0f} s" if expired and not found.failed else "failed"
                reasons = [f"{inputs['kind']} {identifier} {late}: {found.message}", *self._pod_reasons(live)]
                raise PartialError(identifier, self._outputs(live, inputs), inputs, reasons)
            time.sleep(_POLL_SECONDS)
            latest = self._live(inputs)
            if latest is None:
                raise ProviderError(f"{inputs['kind']} {identifier} was deleted while it was awaited")
            live = latest

    def _pod_reasons(self, live: dict[str, Any]) -> list[str]:
        """Why its pods aren't ready, so that a person needn't ask the cluster."""
        labels = ((live.get("spec") or {}).get("selector") or {}).get("matchLabels")
        if not labels:
            return []
        reasons = []
        for pod in self.api.listed("v1", "Pod", live["metadata"]["namespace"], labels):
            name = pod["metadata"]["name"]
            for container in (pod.get("status") or {}).get("containerStatuses") or []:
                waiting = (container.get("state") or {}).get("waiting") or {}
                if waiting.get("reason"):
                    reasons.append(f"Pod {name}: {waiting['reason']}: {waiting.get('message', '')}".strip(": "))
            for one in rules.conditions(pod).values():
                if one["status"] != "True" and one.get("message"):
                    reasons.append(f"Pod {name}: {one['type']}: {one['message']}")
        return reasons[:8]

    def read(
        self, type_name: str, identifier: str, inputs: Properties, outputs: Properties
    ) -> tuple[Properties, Properties] | None:
        """Live state, and the inputs as the cluster has them now."""
        if type_name == helm.TYPE:
            found = self.helm.read(inputs)
            return None if found is None else (inputs, found)
        if not inputs:
            raise ProviderError(f"twin: importing {identifier} is not implemented by the stand-in")
        del outputs
        live = self._live(inputs)
        if live is None:
            return None
        return prune(live, inputs), self._outputs(live, inputs)

    def update(
        self,
        type_name: str,
        identifier: str,
        old_inputs: Properties,
        outputs: Properties,
        new: Properties,
        timeout: float,
    ) -> Properties:
        """Apply and await."""
        del old_inputs, outputs
        if type_name == helm.TYPE:
            return self.helm.install(new, timeout)
        live = self._apply(new, timeout)
        return self._await(identifier, new, live, timeout)

    def delete(self, type_name: str, identifier: str, inputs: Properties, outputs: Properties, timeout: float) -> None:
        """Delete and wait until it is gone."""
        if type_name == helm.TYPE:
            self.helm.uninstall(inputs or outputs, timeout)
            return
        manifest = inputs or outputs
        metadata = manifest["metadata"]
        policy = _annotations(manifest).get("pulumi.com/deletionPropagationPolicy", "background").capitalize()
        where = (manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"])
        try:
            self.api.delete(*where, policy)
        except ProviderError as error:
            if "no matches for kind" in str(error):
                return  # its definition is gone, and the object with it
            raise
        except ApiError as error:
            raise self._clear(manifest, error) from error
        deadline = time.monotonic() + (timeout or _DEFAULT_TIMEOUT_SECONDS)
        while (live := self.api.get(*where)) is not None:
            if time.monotonic() > deadline:
                held = ", ".join(live["metadata"].get("finalizers") or []) or "none"
                raise ProviderError(f"{manifest['kind']} {identifier} is still there; its finalizers: {held}")
            time.sleep(_POLL_SECONDS)

    def explain(self, error: Exception) -> str | None:
        """The API's own words."""
        return str(error) if isinstance(error, ApiError) else None
