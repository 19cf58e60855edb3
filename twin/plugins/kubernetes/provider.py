"""The stand-in of the pulumi-kubernetes plugin: any kind the cluster knows, by server-side apply; Helm releases by helm.

What it follows, and where it knowingly differs, is in CONFORMANCE.md.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from twin.plugins.common import (
    UNKNOWN,
    Difference,
    PartialError,
    Properties,
    Provider,
    ProviderError,
    current_urn,
    differing,
    ignored_paths,
    is_unknown,
    merged,
)
from twin.plugins.kubernetes import changes, helm, kubeconfig, objects, ownership, readiness, waiting
from twin.plugins.kubernetes.api import Api, ApiError, Manifest, NoMatchError, UnreachableError, again_while_missing

_REFUSED = re.compile(r"kubernetes:(yaml|kustomize|helm\.sh)/.*")
_PATCH_OR_LIST = re.compile(r"kubernetes:[\w.-]+/v\w+:\w+(Patch|List)")
_KEPT_BY_THE_CLUSTER = {
    "kubeconfig", "context", "cluster", "namespace", "version", "clusterIdentifier",
}  # fmt: skip
_FLAGS = {
    "enableServerSideApply": "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY",
    "enableConfigMapMutable": "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE",
    "enableSecretMutable": "PULUMI_K8S_ENABLE_SECRET_MUTABLE",
    "enablePatchForce": "PULUMI_K8S_ENABLE_PATCH_FORCE",
    "upsertExistingObjects": "PULUMI_K8S_UPSERT_EXISTING_OBJECTS",
    "deleteUnreachable": "PULUMI_K8S_DELETE_UNREACHABLE",
    "skipUpdateUnreachable": "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE",
    "suppressDeprecationWarnings": "PULUMI_K8S_SUPPRESS_DEPRECATION_WARNINGS",
    "suppressHelmHookWarnings": "PULUMI_K8S_SUPPRESS_HELM_HOOK_WARNINGS",
}
_CONFLICT_HELP = (
    "server-side apply field conflict detected, see https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/"
    "managing-resources-with-server-side-apply/#handle-field-conflicts-on-existing-resources for troubleshooting help"
)
_EXISTS_HELP = (
    "The resource already exists in the cluster. A renamed Pulumi resource needs an alias or deleteBeforeReplace; an "
    "object to be adopted needs `pulumi import`, or upsertExistingObjects on the provider."
)
_DELETE_HELP = (
    "If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the operation with the "
    'PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"'
)


class KubernetesProvider(Provider):
    """pulumi-kubernetes as far as the twin needs it."""

    name = "kubernetes"
    version = version("pulumi-kubernetes")

    def __init__(self) -> None:
        self._settings: Properties = {}
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._document: dict[str, Any] | None = None
        self._api: Api | None = None
        self._reason: str | None = None
        self._asked = False
        self._helm: helm.Helm | None = None
        self._namespace = kubeconfig.DEFAULT_NAMESPACE
        self._declared: dict[tuple[str, str], bool] = {}

    # --- the provider itself

    def configure(self, settings: Properties) -> None:
        """Take the provider's settings and begin to contact the cluster."""
        unknown = sorted(set(settings) - _KEPT_BY_THE_CLUSTER - set(_FLAGS))
        if unknown:
            raise ProviderError(f"twin: kubernetes provider setting {', '.join(unknown)} is not implemented")
        self._settings = settings
        if not self._flag("enableServerSideApply", default=True):
            raise ProviderError("twin: a kubernetes provider without server-side apply is not implemented")
        given = settings.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
        try:
            self._document = kubeconfig.parse(given)
            access = kubeconfig.access(
                self._document,
                context=settings.get("context"),
                cluster=settings.get("cluster"),
                namespace=settings.get("namespace"),
            )
        except kubeconfig.KubeconfigError as error:
            self._namespace = settings.get("namespace") or kubeconfig.DEFAULT_NAMESPACE
            self._asked = True
            self._reason = f"failed to parse kubeconfig data in `kubernetes:config:kubeconfig`- {error}"
            return
        self._namespace = access.namespace
        self._api = Api(access)
        # As upstream, which asks for the server's version here; nothing waits for the answer before it is needed.
        threading.Thread(target=lambda: self.unreachable, daemon=True).start()

    def configuration_difference(self, old: Properties, new: Properties) -> Difference:
        """Another cluster means that everything is made anew; other credentials for the same one do not."""
        changed = sorted({path.split(".")[0].split("[")[0] for path in differing(old, new)})
        found = Difference(changed)
        names = ("kubeconfig", "context", "cluster")
        unknown = [name for name in names if is_unknown(new.get(name))]
        before, after = kubeconfig.active_cluster(old), kubeconfig.active_cluster(new)
        if changed and unknown:
            found = Difference(unknown[:1], unknown[:1])
        elif before is not None and after is not None and before != after:
            found.replaces = [name for name in names if name in changed]
        here, there = new.get("clusterIdentifier"), old.get("clusterIdentifier")
        if here and here == there:
            found.replaces = []
        elif here and there:
            found.replaces.append("clusterIdentifier")
        return found

    def cancel(self) -> None:
        """Waits end, with an error; what was made stays in the state."""
        self._cancelled.set()

    def _flag(self, name: str, *, default: bool = False) -> bool:
        given = self._settings.get(name, os.environ.get(_FLAGS[name]))
        return default if given is None else str(given).lower() == "true"

    @property
    def unreachable(self) -> str | None:
        """Why the cluster can't be reached; None if it can. Asked once, as upstream does when it is configured."""
        with self._lock:
            if not self._asked:
                self._asked = True
                try:
                    self._client().reach()
                except (UnreachableError, ApiError) as error:
                    self._reason = f"unable to load schema information from the API server: {error}"
            return self._reason

    def _client(self) -> Api:
        if self._api is None:
            raise ProviderError("twin: the kubernetes plugin was asked for work before it was configured")
        return self._api

    @property
    def api(self) -> Api:
        """The cluster.

        Raises:
            ProviderError: it can't be reached.
        """
        if self.unreachable is not None:
            raise ProviderError(f"configured Kubernetes cluster is unreachable: {self.unreachable}")
        return self._client()

    @property
    def helm(self) -> helm.Helm:
        """Helm for the same cluster."""
        with self._lock:
            if self._helm is None:
                document = dict(self._document or {})
                if self._settings.get("cluster"):
                    raise ProviderError("twin: Helm with the provider setting cluster is not implemented; use context")
                self._helm = helm.Helm(json.dumps(document), self._settings.get("context"), self._cancelled.is_set)
            return self._helm

    def _namespaced(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the kind lives in a namespace; a kind that nobody knows yet is taken to."""
        api_version, kind = str(manifest.get("apiVersion")), str(manifest.get("kind"))
        group = objects.group(api_version)
        if (group, kind) in objects.CLUSTER_SCOPED:
            return False
        if objects.builtin(api_version):
            return True
        if self.unreachable is None:
            try:
                return self.api.namespaced(api_version, kind)
            except NoMatchError:
                pass
        return self._declared.get((group, kind), True)

    def _known_kind(self, manifest: Mapping[str, Any]) -> bool:
        if self.unreachable is not None:
            return False
        try:
            self.api.resource(str(manifest.get("apiVersion")), str(manifest.get("kind")))
        except NoMatchError:
            return False
        return True

    # --- check and diff

    def check(self, type_name: str, urn: str, old: Properties, new: Properties, seed: bytes) -> Properties:
        """Names and namespaces as upstream fills them in; what can't be done is refused before anything is."""
        logical = urn.rpartition("::")[2]
        if self._flag("skipUpdateUnreachable") and self.unreachable is not None:
            self.engine.warn("Cluster is unreachable but skipUpdateUnreachable flag is set to true, skipping...")
            return old
        if type_name == helm.TYPE:
            return self._check_release(old, new, logical, seed)
        if _REFUSED.match(type_name) or _PATCH_OR_LIST.fullmatch(type_name):
            raise ProviderError(f"twin: {type_name} is not implemented by the stand-in of the kubernetes plugin")
        if not new.get("apiVersion") or not new.get("kind"):
            raise ProviderError(f"{logical}: apiVersion and kind are required")
        inputs = objects.named(objects.normalized(new), old, logical, seed)
        found = objects.metadata(inputs)
        if found.get("generateName") and not found.get("name"):
            raise ProviderError("the `.metadata.generateName` field is not supported in Server-Side Apply mode")
        if isinstance(inputs.get("metadata"), Mapping) and not found.get("namespace") and self._namespaced(inputs):
            inputs["metadata"] = {**found, "namespace": self._namespace}
        expression = objects.notes_of(inputs).get("pulumi.com/waitFor")
        if expression and expression != UNKNOWN:
            try:
                readiness.wait_for(expression)
            except ValueError as error:
                raise ProviderError(f"{logical}: pulumi.com/waitFor: {error}") from error
        if objects.is_definition(inputs) and isinstance(inputs.get("spec"), Mapping):
            spec = inputs["spec"]
            kind = (spec.get("names") or {}).get("kind")
            with self._lock:
                self._declared[str(spec.get("group")), str(kind)] = spec.get("scope") != "Cluster"
        return objects.marked(objects.underscored(inputs))

    def _check_release(self, old: Properties, new: Properties, logical: str, seed: bytes) -> Properties:
        inputs = helm.check(new, old, logical, self._namespace, seed)
        if helm.complete(inputs) and not helm.exact(inputs.get("version")):
            inputs["version"] = self.helm.chart_version(inputs)
        return inputs

    def difference(
        self, type_name: str, identifier: str, old_inputs: Properties, outputs: Properties, new: Properties
    ) -> Difference:
        """What is there (as of the last update or refresh) against the new inputs, as far as inputs speak of it."""
        del identifier
        if type_name == helm.TYPE:
            return helm.difference(old_inputs, outputs, new, ignored_paths())
        live = objects.dashed(outputs)
        found = changes.between(
            live,
            old_inputs,
            new,
            namespaced=self._namespaced(new),
            config_maps_change=self._flag("enableConfigMapMutable"),
            secrets_change=self._flag("enableSecretMutable"),
            ignored=ignored_paths(),
        )
        found.of_inputs = False
        if objects.notes_of(new).get("pulumi.com/replaceUnready") == "true":
            self._replace_unready(found, live, new)
        before, after = objects.metadata(live), objects.metadata(new)
        given = bool(after.get("name")) and objects.notes_of(new).get(objects.AUTONAMED) != "true"
        same = after.get("name") == before.get("name") and (
            not self._namespaced(new) or (after.get("namespace") or "default") == (before.get("namespace") or "default")
        )
        found.delete_before_replace = bool(found.replaces) and given and same
        return found

    def _replace_unready(self, found: Difference, live: Manifest, new: Properties) -> None:
        """A Job that has not completed is made anew; one that is gone is not noticed before a refresh."""
        if new.get("kind") != "Job":
            self.engine.warn("replaceUnready annotation is not supported for this resource")
            return
        if self.unreachable is not None:
            self.engine.warn("Cluster is unreachable, skipping replaceUnready check")
            return
        latest = self.api.find(live)
        if latest is not None and not readiness.job(latest).ready:
            path = 'metadata.annotations["pulumi.com/replaceUnready"]'
            if path not in found.changed:
                found.changed.append(path)
            found.replaces.append(path)

    # --- create, read, update, delete

    def _field_manager(self, outputs: Properties, inputs: Properties) -> str:
        """The annotation's, else the object's own, else a new one."""
        given = objects.notes_of(inputs).get("pulumi.com/patchFieldManager")
        known = outputs.get(objects.FIELD_MANAGER)
        return str(given or known or objects.unique_name("pulumi-kubernetes-", b""))

    def _told(self, error: ApiError, manager: str) -> str:
        if error.already_exists:
            return f"{error}\n\n{_EXISTS_HELP}"
        if error.conflict:
            who = f'The resource managed by field manager "{manager}" had an apply conflict'
            return f"{_CONFLICT_HELP}\n{who}: {error} (the annotation pulumi.com/patchForce takes the fields over)"
        return str(error)

    def _force(self, inputs: Properties, live: Manifest | None, *, preview: bool) -> bool:
        asked = objects.notes_of(inputs).get("pulumi.com/patchForce") == "true"
        return ownership.forced(wanted=asked or self._flag("enablePatchForce"), live=live, preview=preview)

    def _make(self, inputs: Properties, manager: str, *, dry_run: bool) -> Manifest:
        if self._flag("upsertExistingObjects"):
            force = self._force(inputs, None, preview=dry_run)
            return self.api.apply(inputs, manager, force=force, dry_run=dry_run)
        return self.api.create(inputs, ownership.CREATOR, dry_run=dry_run)

    def _tried(self, manifest: Manifest, manager: str) -> Manifest:
        """A creation as a dry run; one that replaces an object in ways an apply can't is tried under another name."""
        try:
            return self._make(manifest, manager, dry_run=True)
        except ApiError as error:
            if not self._flag("upsertExistingObjects") or error.status != 422 or "field is immutable" not in str(error):
                raise
            name = objects.unique_name(f"{manifest['metadata']['name']}-", b"")
            other = {**manifest, "metadata": {**manifest["metadata"], "name": name}}
            return self._make(other, manager, dry_run=True)

    def preview(self, type_name: str, inputs: Properties, outputs: Properties) -> Properties:
        """What the API server says an apply would make of it; the inputs where it can't be asked yet."""
        if type_name == helm.TYPE:
            return helm.preview(inputs)
        plain = merged({}, inputs)
        manifest = objects.normalized(inputs)
        if is_unknown(manifest) or not self._known_kind(manifest):
            return dict(plain)
        manager = self._field_manager(outputs, inputs)
        try:
            if outputs:
                found = self._apply(manifest, objects.dashed(outputs), manager, dry_run=True)
            else:
                found = self._tried(manifest, manager)
        except ApiError as error:
            create = not outputs
            if error.status == 403 or (create and (error.namespace_missing or error.already_exists)):
                return dict(plain)
            text = self._told(error, manager)
            if create:
                raise ProviderError(
                    f'resource "{current_urn()}" was not successfully created by the Kubernetes API server: {text}'
                ) from error
            raise ProviderError(f'update of resource "{current_urn()}" failed: {text}') from error
        found.pop("status", None)
        api_version = str(outputs.get(objects.INITIAL_API_VERSION) or inputs["apiVersion"])
        return objects.outputs(found, initial_api_version=api_version, field_manager=manager)

    def create(self, type_name: str, urn: str, inputs: Properties, timeout: float) -> tuple[str, Properties]:
        """Create it (what exists already is an error) and wait until it is ready."""
        if type_name == helm.TYPE:
            self._reached("can't create Helm Release with unreachable cluster")
            return f"{inputs['namespace']}/{inputs['name']}", self.helm.install(inputs)
        manager = self._field_manager({}, inputs)
        manifest = objects.normalized(inputs)
        api = self.api
        try:
            live = again_while_missing(
                lambda: self._make(manifest, manager, dry_run=False), self.engine.status, self._cancelled.is_set
            )
        except NoMatchError as error:
            raise ProviderError(
                f'creation of resource "{urn}" with kind {inputs["apiVersion"]}/{inputs["kind"]} failed because the '
                "Kubernetes API server reported that the apiVersion for this resource does not exist. "
                f"Verify that any required CRDs have been created: {error}"
            ) from error
        except ApiError as error:
            raise ProviderError(
                f'resource "{urn}" was not successfully created by the Kubernetes API server: '
                f"{self._told(error, manager)}"
            ) from error
        self.engine.status("")
        if objects.is_definition(manifest):
            api.forget()
        identifier = objects.identifier(live)
        failed = (
            f'resource "{urn}" was successfully created, but the Kubernetes API server reported that it failed to fully '
            "initialize or become live"
        )
        api_version = str(inputs["apiVersion"])
        return identifier, self._await(inputs, live, None, timeout, api_version, manager, failed)

    def _await(
        self,
        inputs: Properties,
        live: Manifest,
        before: Manifest | None,
        timeout: float,
        api_version: str,
        manager: str,
        failed: str,
    ) -> Properties:
        def shown(found: Manifest) -> Properties:
            return objects.outputs(found, initial_api_version=api_version, field_manager=manager)

        if waiting.skipped(inputs):
            return shown(live)
        watch = waiting.Watch(self.api, before)
        seconds = waiting.seconds_for(timeout, inputs)
        try:
            ready = waiting.until_ready(watch, live, seconds, tell=self.engine.status, cancelled=self._cancelled.is_set)
        except waiting.NotReadyError as error:
            reasons = [f"{failed}: {error}", *error.reasons]
            raise PartialError(objects.identifier(live), shown(error.live), inputs, reasons) from error
        except (ApiError, ProviderError, ValueError) as error:
            # Made it is, so it must not be forgotten, whatever keeps us from watching it.
            raise PartialError(objects.identifier(live), shown(live), inputs, [f"{failed}: {error}"]) from error
        return shown(ready)

    def read(
        self, type_name: str, identifier: str, inputs: Properties, outputs: Properties
    ) -> tuple[Properties, Properties] | None:
        """Live state, and the inputs as the cluster has them now."""
        if self.unreachable is not None:
            self.engine.warn(f"configured Kubernetes cluster is unreachable: {self.unreachable}")
            if self._flag("deleteUnreachable"):
                return None
            if self._flag("skipUpdateUnreachable"):
                return inputs, outputs
            raise ProviderError(f"failed to read resource state due to unreachable cluster. {_DELETE_HELP}")
        if type_name == helm.TYPE:
            return self._read_release(identifier, inputs, outputs)
        if not inputs:
            return self._imported(type_name, identifier)
        applied = objects.normalized(inputs)
        live = self.api.find(objects.dashed(outputs) if outputs.get("metadata") else applied)
        if live is None:
            return None
        seen = objects.marked(objects.underscored(objects.with_empties(objects.pruned(live, applied), applied)))
        shown = objects.outputs(
            live,
            initial_api_version=str(outputs.get(objects.INITIAL_API_VERSION) or applied["apiVersion"]),
            field_manager=self._field_manager(outputs, inputs),
        )
        if not waiting.skipped(inputs):
            found = waiting.read_readiness(self.api, live)
            if not found.ready:
                text = f"Resource '{live['metadata']['name']}' was created but failed to initialize"
                raise PartialError(identifier, shown, seen, [text, *readiness.reasons_of(found)])
        return seen, shown

    def _read_release(
        self, identifier: str, inputs: Properties, outputs: Properties
    ) -> tuple[Properties, Properties] | None:
        if not inputs:
            raise ProviderError(f"twin: importing Helm release {identifier} is not implemented by the stand-in")
        known = {key: value for key, value in outputs.items() if key not in ("status", "resourceNames")}
        found = self.helm.outputs({**inputs, **known})
        return None if found is None else (inputs, found)

    def _imported(self, type_name: str, identifier: str) -> tuple[Properties, Properties] | None:
        """An object that is not in the state: `pulumi import` and the SDKs' ``get``; typed kinds alone."""
        match = re.fullmatch(r"kubernetes:([\w.-]+)/(v\w+):(\w+)", type_name)
        if match is None or _REFUSED.match(type_name) or _PATCH_OR_LIST.fullmatch(type_name):
            raise ProviderError(f"twin: reading {type_name} by its name is not implemented by the stand-in")
        group = "" if match[1] == "core" else f"{match[1]}/"
        namespace, _, name = identifier.rpartition("/")
        wanted = {"apiVersion": f"{group}{match[2]}", "kind": match[3], "metadata": {"name": name}}
        wanted["metadata"] |= {"namespace": namespace} if namespace else {}  # type: ignore[operator]
        live = self.api.find(wanted)
        if live is None:
            return None
        manager = self._field_manager({}, {})
        shown = objects.outputs(live, initial_api_version=live["apiVersion"], field_manager=manager)
        inputs = objects.normalized({key: value for key, value in live.items() if key != "status"})
        notes = dict(objects.notes_of(inputs))
        for key in ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration"):
            notes.pop(key, None)
        inputs["metadata"] = {**{k: v for k, v in inputs["metadata"].items() if k != "annotations"}}
        if notes:
            inputs["metadata"]["annotations"] = notes
        return objects.marked(inputs), shown

    def _apply(self, manifest: Manifest, known: Manifest, manager: str, *, dry_run: bool) -> Manifest:
        """Change a live object into what the inputs say. Definitions are put whole, everything else is applied."""
        name = objects.metadata(known).get("name")
        target = {**manifest, "metadata": {**objects.metadata(manifest), "name": name}}
        live = self.api.get(target)
        if objects.is_definition(manifest):
            data = {**manifest["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
            return self.api.replace({**manifest, "metadata": data}, manager, dry_run=dry_run)
        if not dry_run:
            operations = ownership.handover(live, manager)
            if operations:
                live = self.api.patch(target, operations)
        wanted = ownership.without_ignored(manifest, live, ignored_paths(), manager)
        force = self._force(manifest, live, preview=dry_run)
        return self.api.apply(wanted, manager, force=force, dry_run=dry_run)

    def update(
        self,
        type_name: str,
        identifier: str,
        old_inputs: Properties,
        outputs: Properties,
        new: Properties,
        timeout: float,
    ) -> Properties:
        """Apply and wait until it is ready."""
        del old_inputs
        if type_name == helm.TYPE:
            self._reached("can't update Helm Release with unreachable cluster")
            return self.helm.upgrade(new)
        api = self.api
        manager, known = self._field_manager(outputs, new), objects.dashed(outputs)
        api_version = str(outputs.get(objects.INITIAL_API_VERSION) or new["apiVersion"])
        failed = f'the Kubernetes API server reported that "{identifier}" failed to fully initialize or become live'
        before = api.find(known)
        try:
            live = self._apply(objects.normalized(new), known, manager, dry_run=False)
        except NoMatchError as error:
            raise ProviderError(
                f'update of resource "{current_urn()}" failed because the Kubernetes API server reported that the '
                f"apiVersion for this resource does not exist. Verify that any required CRDs have been created: {error}"
            ) from error
        except ApiError as error:
            text = self._told(error, manager)
            latest = api.find(known)
            if latest is None:
                raise ProviderError(f'update of resource "{current_urn()}" failed: {text}') from error
            shown = objects.outputs(latest, initial_api_version=api_version, field_manager=manager)
            raise PartialError(identifier, shown, new, [f"{failed}: {text}"]) from error
        if objects.is_definition(new):
            api.forget()
        found = self._await(new, live, before, timeout, api_version, manager, failed)
        former = outputs.get(objects.FIELD_MANAGER)
        if former and former != manager:
            self._relinquish(live, str(former))
        return found

    def _relinquish(self, live: Manifest, manager: str) -> None:
        """The object's former field manager gives up what it owned."""
        data = {key: value for key, value in live["metadata"].items() if key in ("name", "namespace")}
        nothing = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": data}
        self.api.apply(nothing, manager, force=False, dry_run=False)

    def _reached(self, what: str) -> None:
        if self.unreachable is not None:
            raise ProviderError(f"{what}: {self.unreachable}")

    def delete(self, type_name: str, identifier: str, inputs: Properties, outputs: Properties, timeout: float) -> None:
        """Delete and wait until it is gone."""
        if type_name == helm.TYPE:
            self._reached("can't delete Helm Release with unreachable cluster")
            self.helm.uninstall(outputs or inputs)
            return
        if self.unreachable is not None:
            self.engine.warn(f"configured Kubernetes cluster is unreachable: {self.unreachable}")
            if self._flag("deleteUnreachable"):
                return
            raise ProviderError(f"configured Kubernetes cluster is unreachable. {_DELETE_HELP}")
        manifest = objects.dashed(outputs) if outputs.get("metadata") else objects.normalized(inputs)
        policy = objects.notes_of(inputs).get("pulumi.com/deletionPropagationPolicy", "").lower()
        propagation = policy.capitalize() if policy in ("orphan", "background") else "Foreground"
        try:
            uid = self.api.delete(manifest, propagation)
        except NoMatchError:
            return  # its definition is gone, and the object with it
        except ApiError as error:
            if error.not_found:
                return
            raise ProviderError(f"{manifest['kind']} {identifier}: {error}") from error
        if objects.is_definition(manifest):
            self.api.forget()
        if waiting.skipped(inputs) and waiting.kind_of(manifest) in waiting.SKIP_AWAIT_SKIPS_DELETION:
            return
        problem = waiting.until_gone(
            self.api,
            manifest,
            uid,
            waiting.seconds_for(timeout, inputs),
            tell=self.engine.status,
            cancelled=self._cancelled.is_set,
        )
        if problem is not None:
            raise ProviderError(f"{manifest['kind']} {identifier}: {problem}")

    def explain(self, error: Exception) -> str | None:
        """The API's own words."""
        return str(error) if isinstance(error, ApiError) else None
