"""A small client of the Kubernetes API: discovery, server-side apply, reads, deletes; kubeconfigs with exec plugins."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import requests
import urllib3
import yaml

from twin.plugins.common import ProviderError

_TIMEOUT_SECONDS = 30


class ApiError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Api:
    """One cluster, as a kubeconfig describes it."""

    def __init__(self, kubeconfig: str, context: str | None = None) -> None:
        document = yaml.safe_load(Path(kubeconfig).read_text() if os.path.exists(kubeconfig) else kubeconfig)  # noqa: PTH110
        if not isinstance(document, dict) or "clusters" not in document:
            raise ProviderError("failed to parse kubeconfig data in `kubernetes:config:kubeconfig`")
        self.text = yaml.safe_dump(document)
        contexts = {one["name"]: one["context"] for one in document.get("contexts", [])}
        chosen = contexts[context or document.get("current-context") or next(iter(contexts))]
        cluster = next(one["cluster"] for one in document["clusters"] if one["name"] == chosen["cluster"])
        user = next(one["user"] for one in document["users"] if one["name"] == chosen["user"])
        self.server = cluster["server"].rstrip("/")
        self._files = tempfile.TemporaryDirectory(prefix="pulumi-kubernetes-")
        self._local = threading.local()
        self._verify: str | bool = True
        if "certificate-authority-data" in cluster:
            self._verify = self._write("ca", cluster["certificate-authority-data"])
        elif "certificate-authority" in cluster:
            self._verify = cluster["certificate-authority"]
        self._certificate: tuple[str, str] | None = None
        if "client-certificate-data" in user:
            self._certificate = (
                self._write("crt", user["client-certificate-data"]),
                self._write("key", user["client-key-data"]),
            )
        elif "client-certificate" in user:
            self._certificate = (user["client-certificate"], user["client-key"])
        self._token: str | None = user.get("token")
        self._exec: dict[str, Any] | None = user.get("exec")
        self._lock = threading.Lock()
        self._kinds: dict[str, dict[str, dict[str, Any]]] = {}

    def _write(self, name: str, data: str) -> str:
        path = Path(self._files.name) / name
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(data))
        return str(path)

    def _execute(self) -> str:
        plugin = self._exec or {}
        env = {**os.environ, **{one["name"]: one["value"] for one in plugin.get("env") or []}}
        command = [plugin["command"], *(plugin.get("args") or [])]
        try:
            result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise ProviderError(f"kubeconfig's credential command {plugin['command']!r} is not on PATH") from error
        if result.returncode != 0:
            raise ProviderError(f"kubeconfig's credential command failed: {result.stderr.strip()}")
        token: str = json.loads(result.stdout)["status"]["token"]
        return token

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False
            session.verify = self._verify
            if self._certificate is not None:
                session.cert = self._certificate
            with self._lock:
                if self._token is None and self._exec is not None:
                    self._token = self._execute()
            if self._token is not None:
                session.headers["Authorization"] = f"Bearer {self._token}"
            self._local.session = session
        return session

    def call(self, method: str, path: str, *, body: Any = None, content_type: str = "application/json") -> Any:
        """One request.

        Raises:
            ApiError: the API answered with an error.
            ProviderError: it can't be reached.
        """
        url = self.server + path
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type} if data is not None else {}
        try:
            answer = self._session().request(method, url, data=data, headers=headers, timeout=_TIMEOUT_SECONDS)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise ProviderError(f"configured Kubernetes cluster is unreachable: {self.server}: {error}") from error
        if answer.status_code >= 400:
            try:
                status = answer.json()
            except ValueError:
                status = {}
            raise ApiError(answer.status_code, status.get("reason", ""), status.get("message", answer.text))
        found: Any = answer.json()
        return found

    def path(self, api_version: str, kind: str, namespace: str | None, name: str | None) -> str:
        """URL path of an object, or of its collection without a name.

        Raises:
            ProviderError: the cluster has no such kind.
        """
        prefix = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        resource = self._kind(prefix, kind)
        if resource is None:
            raise ProviderError(f'no matches for kind "{kind}" in version "{api_version}"')
        scope = f"/namespaces/{namespace or 'default'}" if resource["namespaced"] else ""
        tail = f"/{urllib.parse.quote(name)}" if name else ""
        return f"{prefix}{scope}/{resource['name']}{tail}"

    def _kind(self, prefix: str, kind: str) -> dict[str, Any] | None:
        known = self._kinds.get(prefix, {})
        if kind not in known:
            try:
                listed = self.call("GET", prefix)["resources"]
            except ApiError as error:
                if error.status == 404:
                    return None
                raise
            known = {one["kind"]: one for one in listed if "/" not in one["name"]}
            self._kinds[prefix] = known
        return known.get(kind)

    def get(self, api_version: str, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """The object, or None."""
        try:
            found: dict[str, Any] = self.call("GET", self.path(api_version, kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def apply(self, manifest: dict[str, Any], manager: str, *, force: bool) -> dict[str, Any]:
        """Server-side apply."""
        metadata = manifest["metadata"]
        path = self.path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"])
        query = urllib.parse.urlencode({"fieldManager": manager, "force": str(force).lower()})
        found: dict[str, Any] = self.call(
            "PATCH", f"{path}?{query}", body=manifest, content_type="application/apply-patch+yaml"
        )
        return found

    def delete(self, api_version: str, kind: str, namespace: str | None, name: str, propagation: str) -> None:
        """Ask for deletion; 404 is fine."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        try:
            self.call("DELETE", self.path(api_version, kind, namespace, name), body=body)
        except ApiError as error:
            if error.status != 404:
                raise

    def listed(self, api_version: str, kind: str, namespace: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        """Objects by labels."""
        selector = urllib.parse.quote(",".join(f"{key}={value}" for key, value in labels.items()))
        path = self.path(api_version, kind, namespace, None)
        items: list[dict[str, Any]] = self.call("GET", f"{path}?labelSelector={selector}")["items"]
        return items
