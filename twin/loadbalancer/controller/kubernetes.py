"""The part of the Kubernetes API that the controller needs, over plain HTTP, to save memory."""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3

Object = dict[str, Any]

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WATCH_SECONDS = 300


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Kubernetes:
    """A connection pool to the API server, as the pod's service account or as a kubeconfig's user."""

    def __init__(self) -> None:
        self._token_file: Path | None = None
        context = ssl.create_default_context()
        kubeconfig = os.environ.get("KUBECONFIG")
        if kubeconfig:
            self._server = self._from_kubeconfig(Path(kubeconfig), context)
            self.namespace = "kube-system"
        else:
            host = os.environ["KUBERNETES_SERVICE_HOST"]
            self._server = f"https://{host}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
            context.load_verify_locations(cafile=str(_SERVICE_ACCOUNT / "ca.crt"))
            self._token_file = _SERVICE_ACCOUNT / "token"
            self.namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
        self._pool = urllib3.PoolManager(maxsize=16, ssl_context=context, retries=False)

    @staticmethod
    def _from_kubeconfig(path: Path, context: ssl.SSLContext) -> str:
        import yaml

        document = yaml.safe_load(path.read_text())
        cluster = document["clusters"][0]["cluster"]
        user = document["users"][0]["user"]
        context.load_verify_locations(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile(prefix="client-", suffix=".pem") as pair:
            pair.write(base64.b64decode(user["client-certificate-data"]))
            pair.write(base64.b64decode(user["client-key-data"]))
            pair.flush()
            context.load_cert_chain(pair.name)
        return str(cluster["server"])

    def _headers(self, content_type: str | None = None) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "aws-load-balancer-controller"}
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        if content_type is not None:
            headers["Content-Type"] = content_type
        return headers

    def request(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Object:
        """One request.

        Raises:
            ApiError: a status of 400 and above.
            urllib3.exceptions.HTTPError: the API server can't be reached.
        """
        answer = self._pool.request(
            method,
            self._server + path,
            body=json.dumps(body).encode() if body is not None else None,
            headers=self._headers(content_type if body is not None else None),
            timeout=urllib3.Timeout(connect=5, read=30),
        )
        if answer.status >= 400:
            try:
                message = json.loads(answer.data).get("message", "")
            except ValueError:
                message = answer.data.decode(errors="replace")
            raise ApiError(answer.status, message)
        document: Object = json.loads(answer.data)
        return document

    def merge_patch(self, path: str, patch: Object) -> Object:
        """JSON merge patch."""
        return self.request("PATCH", path, patch, content_type="application/merge-patch+json")

    def strategic_patch(self, path: str, patch: Object) -> Object:
        """Strategic merge patch."""
        return self.request("PATCH", path, patch, content_type="application/strategic-merge-patch+json")

    def watch(self, path: str, version: str) -> Iterator[tuple[str, Object]]:
        """Events of a collection after a resource version, until the server ends the watch.

        Raises:
            ApiError: the version is too old, among others.
        """
        query = f"watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}"
        url = f"{self._server}{path}?{query}"
        answer = self._pool.request(
            "GET",
            url,
            headers=self._headers(),
            preload_content=False,
            timeout=urllib3.Timeout(connect=5, read=_WATCH_SECONDS + 30),
        )
        try:
            if answer.status >= 400:
                raise ApiError(answer.status, answer.read().decode(errors="replace"))
            rest = b""
            for chunk in answer.stream(65536, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"].get("code", 500), event["object"].get("message", ""))
                    yield event["type"], event["object"]
        finally:
            answer.close()


def key_of(item: Object) -> tuple[str, str]:
    """Namespace (empty for cluster-wide objects) and name."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


class Store:
    """The objects of one collection as last seen; safe to read from any thread."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Object] = {}
        self._lock = threading.Lock()
        self.synced = threading.Event()

    def get(self, namespace: str, name: str) -> Object | None:
        """One object."""
        with self._lock:
            return self._objects.get((namespace, name))

    def all(self, namespace: str | None = None) -> list[Object]:
        """Every object, or those of a namespace."""
        with self._lock:
            return [item for (where, _), item in self._objects.items() if namespace in (None, where)]

    def put(self, item: Object) -> Object | None:
        """Add or replace; returns what was there."""
        with self._lock:
            before = self._objects.get(key_of(item))
            self._objects[key_of(item)] = item
            return before

    def remove(self, key: tuple[str, str]) -> Object | None:
        """Remove; returns what was there."""
        with self._lock:
            return self._objects.pop(key, None)

    def keys(self) -> set[tuple[str, str]]:
        """Keys of every object."""
        with self._lock:
            return set(self._objects)
