"""A small client of the Kubernetes API over plain HTTP: discovery, create, apply, patch, read, delete.

client-go, which the upstream plugin uses, waits and asks again when the server says Retry-After, and asks the kubeconfig's
credential command for a new token once the old one has expired or is refused; so does this.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import urllib3

from twin.plugins.common import ProviderError
from twin.plugins.kubernetes.kubeconfig import Access

Manifest = dict[str, Any]

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60
_CONNECTIONS = 32
_ASKS_AGAIN = 10
JSON = "application/json"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"


class ApiError(Exception):
    """An answer other than success, with the fields of the API's Status object."""

    def __init__(self, status: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.details = dict(details or {})

    @property
    def not_found(self) -> bool:
        """The object, its namespace or its whole API is not there."""
        return self.status == 404

    @property
    def namespace_missing(self) -> bool:
        """The namespace it would live in is not there."""
        return self.not_found and self.details.get("kind") == "namespaces"

    @property
    def already_exists(self) -> bool:
        """A create met an object of that name."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Another field manager owns a field, or the object has changed meanwhile."""
        return self.status == 409 and self.reason == "Conflict"


class NoMatchError(ProviderError):
    """The cluster has no such kind."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(f'no matches for kind "{kind}" in version "{api_version}"')


class UnreachableError(ProviderError):
    """The cluster does not answer, or the credential command fails."""


class Credentials:
    """The bearer token of a user: given, read from a file, or made by a command and renewed in time."""

    def __init__(self, user: Mapping[str, Any]) -> None:
        self._user = user
        self._lock = threading.Lock()
        self._token: str | None = user.get("token")
        self._expires: dt.datetime | None = None

    @property
    def renewable(self) -> bool:
        """Whether a refused token can be replaced by a new one."""
        return "exec" in self._user

    def token(self, *, refused: str | None = None) -> str | None:
        """A token that has not expired and is not the refused one; None without any (client certificates).

        Raises:
            UnreachableError: the credential command failed.
        """
        if "tokenFile" in self._user and "token" not in self._user:
            return Path(self._user["tokenFile"]).read_text().strip()
        if not self.renewable:
            return self._token
        with self._lock:
            now = dt.datetime.now(dt.UTC)
            late = self._expires is not None and now >= self._expires
            if self._token is None or late or self._token == refused:
                self._token, self._expires = self._run(self._user["exec"])
            return self._token

    @staticmethod
    def _run(plugin: Mapping[str, Any]) -> tuple[str, dt.datetime | None]:
        request = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
        given = {one["name"]: one["value"] for one in plugin.get("env") or []}
        env = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(request), **given}
        command = [plugin["command"], *(plugin.get("args") or [])]
        try:
            result = subprocess.run(
                command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            text = f"getting credentials: exec: executable {plugin['command']} not found ({error.strerror})"
            raise UnreachableError(text) from error
        if result.returncode != 0:
            text = (
                f"getting credentials: exec: executable {plugin['command']} failed with exit code {result.returncode}"
            )
            raise UnreachableError(f"{text}: {result.stderr.strip()}")
        try:
            status = json.loads(result.stdout)["status"]
            expires = status.get("expirationTimestamp")
            return status["token"], None if expires is None else dt.datetime.fromisoformat(expires)
        except (ValueError, KeyError, TypeError) as error:
            text = f"getting credentials: exec: {plugin['command']} printed no ExecCredential with a token"
            raise UnreachableError(text) from error


class Api:
    """One cluster."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._credentials = Credentials(access.user)
        self._files = tempfile.TemporaryDirectory(prefix="pulumi-kubernetes-")
        self._pool = self._connections()
        self._lock = threading.Lock()
        self._kinds: dict[str, dict[str, dict[str, Any]]] = {}

    def _connections(self) -> urllib3.PoolManager:
        cluster, user = self._access.cluster, self._access.user
        options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED"}
        if cluster.get("insecure-skip-tls-verify"):
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            options = {"cert_reqs": "CERT_NONE"}
        elif "certificate-authority-data" in cluster:
            options["ca_cert_data"] = base64.b64decode(cluster["certificate-authority-data"]).decode()
        elif "certificate-authority" in cluster:
            options["ca_certs"] = cluster["certificate-authority"]
        if "tls-server-name" in cluster:
            options |= {"server_hostname": cluster["tls-server-name"], "assert_hostname": cluster["tls-server-name"]}
        for key, name in (("cert_file", "client-certificate"), ("key_file", "client-key")):
            if f"{name}-data" in user:
                options[key] = self._write(name, base64.b64decode(user[f"{name}-data"]))
            elif name in user:
                options[key] = user[name]
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_ANSWER_SECONDS)
        return urllib3.PoolManager(maxsize=_CONNECTIONS, retries=False, timeout=timeout, **options)

    def _write(self, name: str, data: bytes) -> str:
        path = Path(self._files.name) / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        return str(path)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """One request; asked again when the server says later, or when the token was refused and a new one can be had.

        Raises:
            ApiError: the API answered with an error.
            UnreachableError: it can't be reached.
        """
        url = self._access.server + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body)
        refused: str | None = None
        for left in reversed(range(_ASKS_AGAIN)):
            token = self._credentials.token(refused=refused)
            headers = {"Accept": JSON, "Content-Type": content_type}
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            answer = self._send(method, url, data, headers)
            if answer.status < 400:
                return answer.json()
            if answer.status == 401 and refused is None and self._credentials.renewable and left:
                refused = token
                continue
            later = answer.headers.get("Retry-After", "")
            if later.isdigit() and (answer.status == 429 or answer.status >= 500) and left:
                time.sleep(int(later))
                continue
            raise _error(answer)
        raise AssertionError

    def _send(self, method: str, url: str, data: str | None, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        for attempt in (1, 2):
            try:
                return self._pool.request(method, url, body=data, headers=headers)
            except urllib3.exceptions.ProtocolError as error:
                # A kept-alive connection that the server has closed; a read does no harm twice.
                if method != "GET" or attempt == 2:
                    raise UnreachableError(f"{self._access.server}: {error}") from error
            except urllib3.exceptions.HTTPError as error:
                raise UnreachableError(f"{self._access.server}: {error}") from error
        raise AssertionError

    def reach(self) -> None:
        """Ask for the server's version.

        Raises:
            ApiError: the credentials are refused.
            UnreachableError: it can't be reached.
        """
        self.call("GET", "/version")

    def resource(self, api_version: str, kind: str) -> dict[str, Any]:
        """What discovery says about a kind; a kind that is missing is looked for anew each time.

        Raises:
            NoMatchError: the cluster has no such kind.
        """
        prefix = _prefix(api_version)
        with self._lock:
            known = self._kinds.get(prefix, {})
        if kind not in known:
            try:
                listed = self.call("GET", prefix)["resources"]
            except ApiError as error:
                if error.not_found:
                    raise NoMatchError(api_version, kind) from error
                raise
            known = {one["kind"]: one for one in listed if "/" not in one["name"]}
            with self._lock:
                self._kinds[prefix] = known
        if kind not in known:
            raise NoMatchError(api_version, kind)
        return known[kind]

    def forget(self) -> None:
        """Read discovery anew; a definition has come or gone."""
        with self._lock:
            self._kinds.clear()

    def namespaced(self, api_version: str, kind: str) -> bool:
        """Whether objects of that kind live in a namespace."""
        return bool(self.resource(api_version, kind)["namespaced"])

    def path(self, api_version: str, kind: str, namespace: str | None, name: str | None) -> str:
        """URL path of an object, or of its collection without a name."""
        resource = self.resource(api_version, kind)
        scope = f"/namespaces/{namespace or 'default'}" if resource["namespaced"] else ""
        tail = f"/{urllib.parse.quote(name)}" if name else ""
        return f"{_prefix(api_version)}{scope}/{resource['name']}{tail}"

    def path_of(self, manifest: Mapping[str, Any]) -> str:
        """URL path of the object a manifest describes."""
        metadata = manifest["metadata"]
        return self.path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"])

    def get(self, manifest: Mapping[str, Any]) -> Manifest:
        """The object as it is.

        Raises:
            ApiError: it is not there (``not_found``), or can't be read.
        """
        found: Manifest = self.call("GET", self.path_of(manifest))
        return found

    def find(self, manifest: Mapping[str, Any]) -> Manifest | None:
        """The object as it is, or None when it or its kind is not there."""
        try:
            return self.get(manifest)
        except NoMatchError:
            return None
        except ApiError as error:
            if error.not_found:
                return None
            raise

    def create(self, manifest: Mapping[str, Any], manager: str, *, dry_run: bool) -> Manifest:
        """A new object; one of that name must not exist."""
        metadata = manifest["metadata"]
        path = self.path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), None)
        found: Manifest = self.call("POST", path, body=manifest, query=_query(dry_run=dry_run, fieldManager=manager))
        return found

    def apply(self, manifest: Mapping[str, Any], manager: str, *, force: bool, dry_run: bool) -> Manifest:
        """Server-side apply."""
        query = _query(dry_run=dry_run, fieldManager=manager, force=str(force).lower())
        found: Manifest = self.call("PATCH", self.path_of(manifest), body=manifest, content_type=APPLY, query=query)
        return found

    def replace(self, manifest: Mapping[str, Any], manager: str, *, dry_run: bool) -> Manifest:
        """The whole object anew."""
        query = _query(dry_run=dry_run, fieldManager=manager)
        found: Manifest = self.call("PUT", self.path_of(manifest), body=manifest, query=query)
        return found

    def patch(self, manifest: Mapping[str, Any], operations: list[dict[str, Any]]) -> Manifest:
        """JSON patch."""
        found: Manifest = self.call("PATCH", self.path_of(manifest), body=operations, content_type=JSON_PATCH)
        return found

    def delete(self, manifest: Mapping[str, Any], propagation: str) -> str | None:
        """Ask for deletion; returns the uid of what is being deleted, where the API tells."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        answer = self.call("DELETE", self.path_of(manifest), body=body)
        found = (answer.get("details") or {}).get("uid") or (answer.get("metadata") or {}).get("uid")
        return None if found is None else str(found)

    def ask_to_list(self, manifest: Mapping[str, Any]) -> None:
        """List objects of its kind where it lives, one at most, as an informer does before it watches.

        Raises:
            ApiError: that may not be listed.
        """
        place = manifest["metadata"].get("namespace")
        self.call("GET", self.path(manifest["apiVersion"], manifest["kind"], place, None), query={"limit": "1"})

    def listed(
        self, api_version: str, kind: str, namespace: str, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """Objects of a namespace, by labels if any are given."""
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else None
        items: Iterable[Manifest] = self.call("GET", self.path(api_version, kind, namespace, None), query=query)[
            "items"
        ]
        return [{"apiVersion": api_version, "kind": kind, **one} for one in items]


def again_while_missing(
    attempt: Callable[[], Manifest], tell: Callable[[str], None], give_up: Callable[[], bool]
) -> Manifest:
    """Try five times more, 1, 2, 4, 8 and 16 s apart, while a namespace or a definition is only just being made."""
    pause = 1.0
    for count in range(6):
        try:
            return attempt()
        except (ApiError, NoMatchError) as error:
            passing = isinstance(error, NoMatchError) or error.not_found
            if not passing or count == 5 or give_up():
                raise
            tell(f"Retry #{count}; creation failed: {error}")
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline and not give_up():
            time.sleep(0.1)
        pause *= 2
    raise AssertionError


def _prefix(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _query(*, dry_run: bool, **given: str) -> dict[str, str]:
    return {**given, "dryRun": "All"} if dry_run else given


def _error(answer: urllib3.BaseHTTPResponse) -> ApiError:
    try:
        status = answer.json()
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    text = status.get("message") or answer.data.decode(errors="replace").strip() or answer.reason or ""
    return ApiError(answer.status, status.get("reason", ""), text, status.get("details"))
