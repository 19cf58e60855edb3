"""A real Kubernetes control plane on the host: etcd, API server, controller manager, scheduler.

The API server listens on the twin's bridge address (loopback in simulated mode), so that host, nodes and pods use one
URL; the others listen on loopback only. Bearer tokens it didn't issue itself are shown to the IAM authenticator, as on
EKS; it starts, and certificates and service accounts work, also while that isn't up.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from twin.build import programs
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import pki, ports, processes

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# First to last; they stop the other way round.
PROCESSES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
TOKEN_REVIEW_PATH = "/authenticate"  # noqa: S105 - a URL path
"""Path to which the API server posts TokenReviews on 127.0.0.1:<authenticator port>."""

_START_SECONDS = 120.0
_PROBE_SECONDS = 2.0
_CALL_SECONDS = 30.0
_DEPRECATED = "apiserver_requested_deprecated_apis{"
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def etcd_directory(twin: Twin) -> Path:
    """The cluster's data."""
    return twin.directory / "etcd"


def _client_context(twin: Twin) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca_file(twin)))
    admin = pki.client_files(twin, "admin", "twin-admin", "system:masters")
    context.load_cert_chain(admin.certificate, admin.key)
    return context


def healthy(twin: Twin, url: str) -> bool:
    """Report whether a component of this twin answers 200 at the URL (as the administrator, trusting the twin's authority)."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS, context=_client_context(twin)) as response:
            return int(response.status) == 200
    except (OSError, urllib.error.URLError):
        return False


def healthy_plain(url: str) -> bool:
    """Report whether a plain HTTP health check answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as response:
            return int(response.status) == 200
    except (OSError, urllib.error.URLError):
        return False


class ApiError(TwinError):
    """The API server's refusal; ``status`` is its HTTP status, 0 if it can't be reached."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def call(
    twin: Twin, method: str, path: str, body: object = None, *, content_type: str = "application/json"
) -> dict[str, Any]:
    """One request to the API server as the administrator; its JSON answer.

    Raises:
        ApiError: it refused, or it can't be reached.
    """
    request = urllib.request.Request(
        f"{twin.api_server}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": content_type, "Accept": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_CALL_SECONDS, context=_client_context(twin)) as response:
            document: dict[str, Any] = json.load(response)
            return document
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, AttributeError):
            text = json.loads(text).get("message", text)
        raise ApiError(f"{method} {path}: {text}", error.code) from error
    except OSError as error:
        raise ApiError(f"{twin.api_server} can't be reached: {error}; `make status`", 0) from error


def deprecated_apis(twin: Twin, removed_in: str) -> list[str]:
    """Return the APIs that were called since the API server's start and that a version of Kubernetes has no more.

    Raises:
        ApiError: the API server can't be reached.
    """
    try:
        with urllib.request.urlopen(
            f"{twin.api_server}/metrics", timeout=_CALL_SECONDS, context=_client_context(twin)
        ) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        raise ApiError(f"{twin.api_server} can't be reached: {error}; `make status`", 0) from error
    series = (dict(_LABEL.findall(line)) for line in lines if line.startswith(_DEPRECATED))
    return sorted(
        f"{labels['group']}/{labels['version']} {labels['resource']}".lstrip("/")
        for labels in series
        if labels["removed_release"] == removed_in
    )


def apply(twin: Twin, path: str, manifest: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
    """Server-side apply of one object at its path, taking over whatever others had set.

    Raises:
        ApiError: it was refused.
    """
    query = urllib.parse.urlencode({"fieldManager": manager, "force": "true"})
    return call(twin, "PATCH", f"{path}?{query}", manifest, content_type="application/apply-patch+yaml")


def client(twin: Twin) -> ApiClient:
    """A Kubernetes client as the administrator."""
    from kubernetes import config

    api_client: ApiClient = config.new_client_from_config(str(twin.kubeconfig))
    return api_client


def _start_etcd(twin: Twin) -> processes.Process:
    server = pki.server_files(twin, "etcd", ["localhost"], ["127.0.0.1"])
    etcd_directory(twin).mkdir(mode=0o700, exist_ok=True)
    client_url = f"https://127.0.0.1:{twin.etcd_port}"
    # The peer listener is never used by a single member, but can't be left out.
    peer_url = f"http://127.0.0.1:{twin.etcd_peer_port}"
    return processes.start(
        twin,
        "etcd",
        [
            programs.debian_program(twin, "etcd"),
            f"--name={twin.name}",
            f"--data-dir={etcd_directory(twin)}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster={twin.name}={peer_url}",
            f"--cert-file={server.certificate}",
            f"--key-file={server.key}",
            f"--trusted-ca-file={pki.ca_file(twin)}",
            "--client-cert-auth",
            "--auto-compaction-retention=1",
            "--quota-backend-bytes=4294967296",
            "--logger=zap",
            "--log-level=warn",
            # A twin that loses power is made anew; waiting for a shared disk at each write would only slow it.
            "--unsafe-no-fsync",
        ],
        env=programs.debian_environment(twin),
    )


def _write_token_review(twin: Twin) -> Path:
    path = twin.pki / "token-review.kubeconfig"
    server = f"http://127.0.0.1:{twin.authenticator_port}{TOKEN_REVIEW_PATH}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "iam", "cluster": {"server": server}}],
        "users": [{"name": "apiserver"}],
        "contexts": [{"name": "iam", "context": {"cluster": "iam", "user": "apiserver"}}],
        "current-context": "iam",
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _start_api_server(twin: Twin) -> processes.Process:
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names.append("kubernetes.default.svc.cluster.local")
    addresses = sorted({"127.0.0.1", twin.host_ip, twin.service_ip})
    server = pki.server_files(twin, "kube-apiserver", names, addresses)
    etcd_client = pki.client_files(twin, "kube-apiserver-etcd", "kube-apiserver")
    kubelet_client = pki.client_files(twin, "kube-apiserver-kubelet", "kube-apiserver", "system:masters")
    front_proxy = pki.client_files(twin, "front-proxy", "front-proxy-client")
    arguments = [
        f"--bind-address={twin.host_ip}",
        f"--advertise-address={twin.host_ip}",
        f"--secure-port={twin.api_port}",
        f"--etcd-servers=https://127.0.0.1:{twin.etcd_port}",
        f"--etcd-cafile={pki.ca_file(twin)}",
        f"--etcd-certfile={etcd_client.certificate}",
        f"--etcd-keyfile={etcd_client.key}",
        f"--client-ca-file={pki.ca_file(twin)}",
        f"--tls-cert-file={server.certificate}",
        f"--tls-private-key-file={server.key}",
        f"--service-cluster-ip-range={twin.service_cidr}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-signing-key-file={pki.service_account_key_file(twin)}",
        f"--service-account-key-file={pki.service_account_key_file(twin)}",
        f"--kubelet-certificate-authority={pki.ca_file(twin)}",
        f"--kubelet-client-certificate={kubelet_client.certificate}",
        f"--kubelet-client-key={kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki.ca_file(twin)}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={front_proxy.certificate}",
        f"--proxy-client-key-file={front_proxy.key}",
        # Webhooks are called at their pods' addresses: the host has no kube-proxy.
        "--enable-aggregator-routing=true",
        "--authorization-mode=Node,RBAC",
        # Those that EKS has on beside the defaults; ValidatingAdmissionPolicy and PodSecurity are defaults.
        "--enable-admission-plugins=NodeRestriction",
        f"--authentication-token-webhook-config-file={_write_token_review(twin)}",
        "--authentication-token-webhook-version=v1",
        "--authentication-token-webhook-cache-ttl=10s",
        "--allow-privileged=true",
        # Needs progress notifications, which etcd has from 3.4.25 on; without it clients list as they always did.
        "--feature-gates=WatchList=false",
        "--profiling=false",
        "--shutdown-delay-duration=0s",
    ]
    if twin.simulated:
        # A loopback address may not stand in the Service's endpoints.
        arguments.append("--endpoint-reconciler-type=none")
    return processes.start(twin, "kube-apiserver", [programs.program(twin, "kube-apiserver"), *arguments])


def _start_controller_manager(twin: Twin) -> processes.Process:
    kubeconfig = pki.kubeconfig(twin, "kube-controller-manager", "system:kube-controller-manager")
    server = pki.server_files(twin, "kube-controller-manager-server", ["localhost"], ["127.0.0.1"])
    return processes.start(
        twin,
        "kube-controller-manager",
        [
            programs.program(twin, "kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={twin.controller_manager_port}",
            f"--tls-cert-file={server.certificate}",
            f"--tls-private-key-file={server.key}",
            f"--client-ca-file={pki.ca_file(twin)}",
            f"--service-account-private-key-file={pki.service_account_key_file(twin)}",
            f"--root-ca-file={pki.ca_file(twin)}",
            f"--cluster-signing-cert-file={pki.ca_file(twin)}",
            f"--cluster-signing-key-file={pki.ca_key_file(twin)}",
            "--use-service-account-credentials=true",
            # At its start it asks for dozens of tokens; with the default of 20 a second that alone takes five seconds.
            "--kube-api-qps=100",
            "--kube-api-burst=200",
            # There is one of it; a lease would only delay its restart.
            "--leader-elect=false",
            # Each node's pod network is fixed, see twin/kubernetes/node.py.
            "--allocate-node-cidrs=false",
            f"--flex-volume-plugin-dir={twin.directory / 'volume-plugins'}",
            "--profiling=false",
            # An alarm counts lines of its log that are written from here on (infra/foundation/alarms.py).
            "--v=2",
        ],
    )


def _start_scheduler(twin: Twin) -> processes.Process:
    kubeconfig = pki.kubeconfig(twin, "kube-scheduler", "system:kube-scheduler")
    server = pki.server_files(twin, "kube-scheduler-server", ["localhost"], ["127.0.0.1"])
    return processes.start(
        twin,
        "kube-scheduler",
        [
            programs.program(twin, "kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={twin.scheduler_port}",
            f"--tls-cert-file={server.certificate}",
            f"--tls-private-key-file={server.key}",
            f"--client-ca-file={pki.ca_file(twin)}",
            "--leader-elect=false",
            "--profiling=false",
        ],
    )


def _health_urls(twin: Twin) -> dict[str, str]:
    return {
        "kube-apiserver": f"{twin.api_server}/readyz",
        "kube-controller-manager": f"https://127.0.0.1:{twin.controller_manager_port}/healthz",
        "kube-scheduler": f"https://127.0.0.1:{twin.scheduler_port}/healthz",
    }


def _exists(twin: Twin, path: str) -> bool:
    try:
        call(twin, "GET", path)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def up(twin: Twin) -> None:
    """Start what doesn't run and wait until each answers.

    Raises:
        TwinError: one of them doesn't come up; names its log.
    """
    listeners = {
        "etcd": ("127.0.0.1", twin.etcd_port),
        "kube-apiserver": (twin.host_ip, twin.api_port),
        "kube-controller-manager": ("127.0.0.1", twin.controller_manager_port),
        "kube-scheduler": ("127.0.0.1", twin.scheduler_port),
    }
    for name, (address, port) in listeners.items():
        if processes.find(twin, name) is None:
            ports.require_free(twin, address, port, name)
    started = {
        "etcd": _start_etcd(twin),
        "kube-apiserver": _start_api_server(twin),
    }
    urls = _health_urls(twin)

    def wait(name: str) -> None:
        def ready() -> bool:
            if not started["etcd"].alive():
                raise TwinError(f"etcd ended; log: {started['etcd'].log}\n{processes.tail(started['etcd'].log)}")
            return healthy(twin, urls[name])

        processes.wait_until(ready, name, timeout_seconds=_START_SECONDS, process=started[name])

    wait("kube-apiserver")
    started["kube-controller-manager"] = _start_controller_manager(twin)
    started["kube-scheduler"] = _start_scheduler(twin)
    wait("kube-controller-manager")
    wait("kube-scheduler")
    # No pod is accepted before its namespace has one.
    processes.wait_until(
        lambda: _exists(twin, "/api/v1/namespaces/default/serviceaccounts/default"),
        "the first service account",
        timeout_seconds=_START_SECONDS,
        process=started["kube-controller-manager"],
    )


def down(twin: Twin) -> None:
    """Stop all four and delete the cluster's data."""
    for name in reversed(PROCESSES):
        processes.stop(twin, name)
    if etcd_directory(twin).exists():
        shutil.rmtree(etcd_directory(twin))


def status(twin: Twin) -> list[PartStatus]:
    """Each process: whether it runs and answers."""
    urls = _health_urls(twin)
    lines: list[PartStatus] = []
    for name in PROCESSES:
        process = processes.find(twin, name)
        if process is None:
            lines.append(PartStatus(name, ok=False, detail=f"not running; log: {twin.logs / f'{name}.log'}"))
        elif name in urls and not healthy(twin, urls[name]):
            lines.append(
                PartStatus(name, ok=False, detail=f"pid {process.pid} runs but {urls[name]} doesn't answer 200")
            )
        else:
            lines.append(PartStatus(name, ok=True, detail=f"pid {process.pid} {urls.get(name, '')}".strip()))
    return lines
