"""Helm releases through the real ``helm`` (upstream links Helm's library; provider/pkg/provider/helm_release.go)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twin.plugins.common import Difference, Properties, ProviderError, differing

TYPE = "kubernetes:helm.sh/v3:Release"
_KNOWN = {
    "name", "chart", "version", "namespace", "createNamespace", "repositoryOpts", "values", "atomic", "cleanupOnFail",
    "timeout", "skipAwait", "skipCrds", "description",
}  # fmt: skip
_REPLACE = {"name", "namespace"}


def check(inputs: Properties, logical: str) -> Properties:
    """Inputs with defaults; what isn't implemented is refused by name."""
    unknown = sorted(set(inputs) - _KNOWN - {"__defaults", "compat"})
    if unknown:
        raise ProviderError(f"twin: helm Release property {', '.join(unknown)} is not implemented by the stand-in")
    found = {key: value for key, value in inputs.items() if key in _KNOWN}
    found.setdefault("name", logical)
    found.setdefault("namespace", "default")
    return found


def difference(old: Properties, new: Properties) -> Difference:
    """Name and namespace need a new release; everything else is an upgrade."""
    changed = differing(old, new)
    replacing = [path for path in changed if path in _REPLACE]
    return Difference(changed, replacing, delete_before_replace=bool(replacing))


class Helm:
    """The helm command against one cluster."""

    def __init__(self, kubeconfig: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pulumi-helm-")
        home = Path(self._directory.name)
        path = home / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(kubeconfig)
        names = {"HELM_CACHE_HOME": "cache", "HELM_CONFIG_HOME": "config", "HELM_DATA_HOME": "data"}
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(path),
            **{name: str(home / folder) for name, folder in names.items()},
        }

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["helm", *arguments], env=self._environment, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ProviderError(
                "twin: the kubernetes stand-in runs the real helm, and there is none on PATH"
            ) from error

    def install(self, inputs: Properties, timeout_seconds: float) -> Properties:
        """Install or upgrade; a failed former attempt is healed by this one."""
        seconds = int(timeout_seconds or inputs.get("timeout") or 300)
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=self._directory.name) as values:
            json.dump(inputs.get("values") or {}, values)
            values.flush()
            arguments = ["upgrade", inputs["name"], inputs["chart"], "--install", "--namespace", inputs["namespace"]]
            arguments += ["--values", values.name, "--timeout", f"{seconds}s", "--output", "json"]
            if inputs.get("version"):
                arguments += ["--version", str(inputs["version"])]
            repository = (inputs.get("repositoryOpts") or {}).get("repo")
            if repository:
                arguments += ["--repo", repository]
            flags = {
                "createNamespace": "--create-namespace",
                "atomic": "--atomic",
                "cleanupOnFail": "--cleanup-on-fail",
                "skipCrds": "--skip-crds",
            }
            arguments += [flag for name, flag in flags.items() if inputs.get(name)]
            if not inputs.get("skipAwait"):
                arguments.append("--wait")
            result = self._run(*arguments)
        if result.returncode != 0:
            text = result.stderr.strip() or result.stdout.strip()
            raise ProviderError(f"helm release {inputs['namespace']}/{inputs['name']}: {text}")
        return self._outputs(inputs, json.loads(result.stdout))

    def _outputs(self, inputs: Properties, release: dict[str, Any]) -> Properties:
        chart = release.get("chart", {}).get("metadata", {})
        status = {
            "name": release["name"],
            "namespace": release["namespace"],
            "revision": release["version"],
            "status": release["info"]["status"],
            "chart": chart.get("name", inputs["chart"]),
            "version": chart.get("version", inputs.get("version", "")),
            "appVersion": chart.get("appVersion", ""),
        }
        return {**inputs, "status": status}

    def read(self, inputs: Properties) -> Properties | None:
        """The release as it stands, or None."""
        result = self._run("status", inputs["name"], "--namespace", inputs["namespace"], "--output", "json")
        if result.returncode != 0:
            if "not found" in result.stderr:
                return None
            raise ProviderError(f"helm release {inputs['namespace']}/{inputs['name']}: {result.stderr.strip()}")
        return self._outputs(inputs, json.loads(result.stdout))

    def uninstall(self, inputs: Properties, timeout_seconds: float) -> None:
        """Remove it and wait; its CRDs stay, as helm leaves them."""
        seconds = int(timeout_seconds or inputs.get("timeout") or 300)
        arguments = ["uninstall", inputs["name"], "--namespace", inputs["namespace"], "--wait", "--ignore-not-found"]
        result = self._run(*arguments, "--timeout", f"{seconds}s")
        if result.returncode != 0:
            raise ProviderError(f"helm release {inputs['namespace']}/{inputs['name']}: {result.stderr.strip()}")
