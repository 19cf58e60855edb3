"""Helm releases through the real ``helm`` (upstream links Helm's library: provider/pkg/provider/helm_release.go)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from twin.plugins.common import (
    UNKNOWN,
    Difference,
    PartialError,
    Properties,
    ProviderError,
    is_unknown,
    merged,
)
from twin.plugins.kubernetes import changes, objects

TYPE = "kubernetes:helm.sh/v3:Release"
DEFAULT_SECONDS = 300
_INSTALL_FLAGS = {
    "atomic": "--atomic", "createNamespace": "--create-namespace", "dependencyUpdate": "--dependency-update",
    "devel": "--devel", "disableOpenapiValidation": "--disable-openapi-validation", "disableWebhooks": "--no-hooks",
    "renderSubchartNotes": "--render-subchart-notes", "replace": "--replace", "skipCrds": "--skip-crds",
}  # fmt: skip
_UPGRADE_FLAGS = {
    "atomic": "--atomic", "cleanupOnFail": "--cleanup-on-fail", "dependencyUpdate": "--dependency-update",
    "devel": "--devel", "disableCRDHooks": "--no-hooks", "forceUpdate": "--force",
    "renderSubchartNotes": "--render-subchart-notes", "resetValues": "--reset-values", "reuseValues": "--reuse-values",
}  # fmt: skip
_KNOWN = {
    *_INSTALL_FLAGS, *_UPGRADE_FLAGS, "name", "chart", "version", "namespace", "repositoryOpts", "values", "timeout",
    "skipAwait", "waitForJobs", "description", "maxHistory",
}  # fmt: skip
_IGNORED = {"__defaults", "compat", "allowNullValues", "resourceNames"}
_REPOSITORY = {
    "repo": "--repo", "caFile": "--ca-file", "certFile": "--cert-file", "keyFile": "--key-file", "username": "--username",
    "password": "--password",
}  # fmt: skip
_EXACT_VERSION = re.compile(r"v?\d+\.\d+\.\d+([-+][\w.+-]+)?")


def check(inputs: Properties, old: Properties, logical: str, namespace: str, seed: bytes) -> Properties:
    """Inputs with name, namespace and time-out; what isn't implemented is refused by name."""
    unknown = sorted(set(inputs) - _KNOWN - _IGNORED)
    if unknown:
        raise ProviderError(f"twin: helm Release property {', '.join(unknown)} is not implemented by the stand-in")
    options = inputs.get("repositoryOpts") or {}
    more = sorted(set(options) - set(_REPOSITORY) - _IGNORED) if isinstance(options, Mapping) else []
    if more:
        raise ProviderError(f"twin: helm Release repositoryOpts.{', '.join(more)} is not implemented by the stand-in")
    found = {key: value for key, value in inputs.items() if key in _KNOWN}
    if not found.get("name"):
        found["name"] = old.get("name") or objects.unique_name(f"{logical}-", seed)
    if not found.get("namespace"):
        found["namespace"] = namespace
    if not found.get("skipAwait"):
        found.setdefault("timeout", DEFAULT_SECONDS)
    return found


def difference(old_inputs: Properties, outputs: Properties, new: Properties, ignored: tuple[str, ...]) -> Difference:
    """Inputs against what was installed; what the inputs no longer name is taken away. Name and namespace: a new release.

    A three-way merge: only what the old inputs named can be missed in the new ones.
    """
    before = {**new, "version": outputs.get("version", new.get("version"))} if "version" in ignored else new
    found = changes.walk(_shaped(outputs, old_inputs, before), before, old_inputs)
    return changes.difference(found, [("name",), ("namespace",)], ignored)


def _shaped(state: Any, applied: Any, new: Any) -> Any:
    """The state cut down to what old or new inputs name."""
    if isinstance(state, Mapping):
        before = applied if isinstance(applied, Mapping) else {}
        after = new if isinstance(new, Mapping) else {}
        return {
            key: _shaped(value, before.get(key), after.get(key))
            for key, value in state.items()
            if key in before or key in after
        }
    return state


class HelmError(ProviderError):
    """Helm's own words."""


class Helm:
    """The helm command against one cluster."""

    def __init__(self, kubeconfig: str, context: str | None, cancelled: Callable[[], bool]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pulumi-helm-")
        self._cancelled = cancelled
        home = Path(self._directory.name)
        path = home / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(kubeconfig)
        names = {"HELM_CACHE_HOME": "cache", "HELM_CONFIG_HOME": "config", "HELM_DATA_HOME": "data"}
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(path),
            **({"HELM_KUBECONTEXT": context} if context else {}),
            **{name: str(home / folder) for name, folder in names.items()},
        }
        self._lock = threading.Lock()
        self._versions: dict[str, str] = {}

    def _run(self, *arguments: str) -> str:
        """Helm's output. Cancelled: helm is asked to stop, and marks the release as failed."""
        try:
            child = subprocess.Popen(
                ["helm", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except FileNotFoundError as error:
            raise ProviderError(
                "twin: the stand-in of the kubernetes plugin runs the real helm, and there is none on PATH"
            ) from error
        told = False
        while True:
            try:
                out, problems = child.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if self._cancelled() and not told:
                    told = True
                    child.terminate()
        if child.returncode != 0:
            lines = [line for line in problems.splitlines() if not line.startswith("WARNING:")]
            text = "\n".join(lines).strip().removeprefix("Error: ")
            raise HelmError(text or f"helm {arguments[0]} failed with exit code {child.returncode}")
        return out

    @staticmethod
    def _source(inputs: Properties) -> list[str]:
        """Which chart, from where, in which version."""
        options: dict[str, Any] = inputs.get("repositoryOpts") or {}
        chart = str(inputs["chart"]).strip()
        if chart.startswith("oci://"):
            given = {key: value for key, value in options.items() if key != "repo"}
        elif options.get("repo") and "://" not in options["repo"]:
            given = {key: value for key, value in options.items() if key != "repo"}
            chart = chart if "/" in chart else f"{options['repo']}/{chart}"
        else:
            given = options
        flags = [part for key, flag in _REPOSITORY.items() if given.get(key) for part in (flag, str(given[key]))]
        version = str(inputs.get("version") or "").strip()
        return [chart, *flags, *(["--version", version] if version else [])]

    def chart_version(self, inputs: Properties) -> str:
        """The version that a constraint, or none, means now; the chart must be there.

        Raises:
            ProviderError: the chart can't be found.
        """
        source = [*self._source(inputs), *(["--devel"] if inputs.get("devel") else [])]
        key = json.dumps(source)
        with self._lock:
            known = self._versions.get(key)
        if known is None:
            try:
                shown = self._run("show", "chart", *source)
            except HelmError as error:
                raise ProviderError(f"{error}; check the chart name and repository configuration.") from error
            known = str(next(_documents(shown))["version"])
            with self._lock:
                self._versions[key] = known
        return known

    def install(self, inputs: Properties) -> Properties:
        """A new release; its name must be free."""
        return self._change("install", inputs, _INSTALL_FLAGS, "was created, but failed to initialize completely")

    def upgrade(self, inputs: Properties) -> Properties:
        """The next revision, also after a failed one."""
        return self._change("upgrade", inputs, _UPGRADE_FLAGS, "failed to initialize completely")

    def _change(self, verb: str, inputs: Properties, flags: Mapping[str, str], failed: str) -> Properties:
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=self._directory.name) as values:
            json.dump(inputs.get("values") or {}, values)
            values.flush()
            source = self._source(inputs)
            arguments = [verb, str(inputs["name"]), *source, "--namespace", str(inputs["namespace"])]
            arguments += ["--values", values.name, "--timeout", f"{int(inputs.get('timeout') or DEFAULT_SECONDS)}s"]
            arguments += [flag for name, flag in flags.items() if inputs.get(name)]
            if inputs.get("description"):
                arguments += ["--description", str(inputs["description"])]
            if verb == "upgrade":
                arguments += ["--history-max", str(int(inputs.get("maxHistory") or 0))]
            if not inputs.get("skipAwait"):
                arguments += ["--wait", *(["--wait-for-jobs"] if inputs.get("waitForJobs") else [])]
            before = self._revision(inputs)
            try:
                self._run(*arguments)
            except HelmError as error:
                # Helm has written a revision: the release is there, though not as it should be.
                if self._revision(inputs) == before:
                    raise ProviderError(str(error)) from error
                where = f"{inputs['namespace']}/{inputs['name']}"
                text = (
                    f'Helm release "{where}" {failed}. Use Helm CLI to investigate: failed to become available within '
                    f"allocated timeout. Error: Helm Release {where}: {error}"
                )
                raise PartialError(where, self.outputs(inputs) or inputs, inputs, [text]) from error
        found = self.outputs(inputs)
        if found is None:
            raise ProviderError(f"Helm release {inputs['namespace']}/{inputs['name']} is gone as soon as it was made")
        return found

    def _get(self, what: str, inputs: Properties, *more: str) -> str | None:
        try:
            return self._run("get", what, str(inputs["name"]), "--namespace", str(inputs["namespace"]), *more)
        except HelmError as error:
            if "not found" in str(error):
                return None
            raise

    def _revision(self, inputs: Properties) -> int | None:
        found = self._get("metadata", inputs, "--output", "json")
        return None if found is None else int(json.loads(found)["revision"])

    def outputs(self, inputs: Properties) -> Properties | None:
        """The release as it stands, or None."""
        told = self._get("metadata", inputs, "--output", "json")
        values = self._get("values", inputs, "--output", "json")
        manifest = self._get("manifest", inputs)
        if told is None or values is None or manifest is None:
            return None
        release = json.loads(told)
        status = {
            "appVersion": release.get("appVersion", ""),
            "chart": release["chart"],
            "name": release["name"],
            "namespace": release["namespace"],
            "revision": release["revision"],
            "status": release["status"],
            "version": release["version"],
        }
        return {
            **inputs,
            "values": merged(inputs.get("values") or {}, json.loads(values) or {}),
            "version": release["version"],
            "resourceNames": resource_names(manifest),
            "status": status,
        }

    def uninstall(self, inputs: Properties) -> None:
        """Remove it, waiting unless it was told not to; its CRDs stay, as helm leaves them."""
        arguments = ["uninstall", str(inputs["name"]), "--namespace", str(inputs["namespace"])]
        if inputs.get("atomic") or not inputs.get("skipAwait"):
            arguments += ["--wait", "--timeout", f"{int(inputs.get('timeout') or DEFAULT_SECONDS)}s"]
        with contextlib.suppress(FileNotFoundError):
            self._run(*arguments)


def preview(inputs: Properties) -> Properties:
    """What is known before it is installed."""
    return {**inputs, "resourceNames": UNKNOWN, "status": UNKNOWN}


def complete(inputs: Properties) -> bool:
    """Whether enough is known to look for the chart."""
    return not any(is_unknown(inputs.get(name)) for name in ("chart", "version", "repositoryOpts", "devel"))


def exact(version: object) -> bool:
    """Whether a version is one version and not a range of them."""
    return isinstance(version, str) and _EXACT_VERSION.fullmatch(version) is not None


def resource_names(manifest: str) -> Properties:
    """Names of what a release made, by ``Kind.group/apiVersion``."""
    found: dict[str, set[str]] = {}
    for one in _documents(manifest):
        if not isinstance(one, Mapping) or not one.get("kind"):
            continue
        group = objects.group(str(one["apiVersion"]))
        kind = f"{one['kind']}.{group}" if group else str(one["kind"])
        found.setdefault(f"{kind}/{one['apiVersion']}", set()).add(objects.identifier(one))
    return {key: sorted(names) for key, names in sorted(found.items())}


def _documents(text: str) -> Iterator[Any]:
    import yaml  # a plugin's start waits for what is loaded at the top

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return iter(yaml.load_all(text, Loader=loader))
