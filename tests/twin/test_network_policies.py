"""The program's own NetworkPolicies under real packets: what a preview's pods reach, and what they don't.

A cluster of its own without production: pods stand where production's would, a listener on the host where the database
would. kube-router enforces here what the VPC CNI enforces on EKS; each row is tried first without the policies, so that a
refusal is theirs.
"""

import json
import os
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from infra.foundation import addon_isolation
from infra.previews import isolation
from infra.release.manifests import SMOKE, ingress_policy
from tests.conftest import PREFIX
from tests.engine import isolation_table
from tests.twin.test_cluster import MODULES, take_down
from twin import config
from twin.build import image_layers, programs
from twin.host import ports
from twin.kubernetes import control_plane, network_policies
from twin.paths import REPOSITORY, is_root

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not is_root(), reason="real nodes need root: network namespaces, mounts and cgroups"),
]

PREVIEW, PRODUCTION = "pr-123", "shopcat"
OPERATOR, CONTROLLER = addon_isolation.OPERATOR, addon_isolation.CONTROLLER
SYSTEM = addon_isolation.CONTROLLER_NAMESPACE
NAME = f"{PREFIX}policies"
SERVER = "mkdir -p /tmp/page && exec python3 -m http.server {port} -d /tmp/page"


def kubectl(twin: config.Twin, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(programs.program(twin, "kubectl")), "--kubeconfig", str(twin.kubeconfig), *arguments],
        text=True,
        capture_output=True,
        check=check,
    )


def pod(twin: config.Twin, namespace: str, name: str, label: str, port: int) -> dict[str, Any]:
    """A pod that serves on the port, and from which others are called."""
    container = {
        "name": "main",
        "image": f"docker.io/{image_layers.BASE_IMAGE}",
        "command": ["sh", "-c", SERVER.format(port=port)],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False}
    metadata = {"name": name, "labels": isolation.preview_selector(label)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def twin() -> Iterator[config.Twin]:
    """Nodes, an enforcer on each, and a pod for everyone who might call or be called."""
    take_down(config.load(NAME, simulated=False))
    loaded = config.load(NAME, simulated=False)
    loaded.directory.mkdir(parents=True)
    for module in MODULES:
        module.up(loaded)
    network_policies.up(loaded)
    for namespace in (PREVIEW, PRODUCTION, OPERATOR):
        labels = isolation.namespace_labels(namespace) if namespace == PREVIEW else {}
        labels.pop("pod-security.kubernetes.io/enforce", None)  # the servers here are no model of a pod
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
        control_plane.call(loaded, "POST", "/api/v1/namespaces", space)
    spaces = (PREVIEW, PRODUCTION, OPERATOR, SYSTEM)
    _wait(lambda: all(_exists(loaded, namespace) for namespace in spaces), "service accounts")
    for namespace, name, label, port in (
        (PREVIEW, "shopcat", "shopcat", 8080),
        (PREVIEW, "database", "database", 5432),
        (PREVIEW, "other", "other", 8080),
        (PRODUCTION, "shopcat", "shopcat", 8080),
        (PRODUCTION, "smoke", SMOKE, 9090),
        (OPERATOR, "operator", OPERATOR, 8080),
        (SYSTEM, "controller", CONTROLLER, addon_isolation.WEBHOOK_PORT),
        (SYSTEM, "metrics", CONTROLLER, 8080),
    ):
        path = f"/api/v1/namespaces/{namespace}/pods"
        control_plane.call(loaded, "POST", path, pod(loaded, namespace, name, label, port))
    kubectl(loaded, "wait", "pods", "--all", "-A", "--for=condition=Ready", "--timeout=180s")
    yield loaded
    network_policies.down(loaded)
    if not os.environ.get("SHOPCAT_KEEP_TWIN"):
        take_down(loaded)


def _exists(twin: config.Twin, namespace: str) -> bool:
    try:
        control_plane.call(twin, "GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
    except control_plane.ApiError:
        return False
    return True


def _wait(probe: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def database(twin: config.Twin) -> Iterator[str]:
    """Servers in the place of RDS and AWS: outside the cluster, at PostgreSQL's port and at AWS's."""
    with ExitStack() as stack:
        for port in (5432, twin.aws_port):
            server = stack.enter_context(_Listener((twin.host_ip, port), socketserver.BaseRequestHandler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        yield twin.host_ip
    for port in (5432, twin.aws_port):
        ports.require_free(twin, twin.host_ip, port, "the next twin of this index")


class _Listener(socketserver.TCPServer):
    """Take connections and close them. (A thread in accept() would keep its port beyond close().)"""

    allow_reuse_address = True


def address(twin: config.Twin, namespace: str, name: str) -> str:
    pod = json.loads(kubectl(twin, "get", "pod", name, "-n", namespace, "-o", "json").stdout)
    return str(pod["status"]["podIP"])


def connects(twin: config.Twin, namespace: str, name: str, host: str, port: int) -> bool:
    """Report whether a TCP connection from that pod opens within two seconds."""
    code = f"import socket; socket.create_connection(({host!r}, {port}), 2)"
    return kubectl(twin, "exec", name, "-n", namespace, "--", "python3", "-c", code, check=False).returncode == 0


@dataclass(frozen=True)
class Row:
    what: str
    source: tuple[str, str]
    where: tuple[str, str, int]
    """Namespace (empty: outside the cluster), pod and port."""
    allowed: bool = False


SHOP, DATABASE = (PRODUCTION, "shopcat", 8080), ("", "database", 5432)
API, AWS = ("", "api", 0), ("", "aws", 0)
"""Outside the cluster: the API server by its Service, and where the twin's AWS would be; their ports are the twin's."""
ROWS = [
    Row("a preview's application to production's pods", (PREVIEW, "shopcat"), SHOP),
    Row("another pod of a preview to production's pods", (PREVIEW, "other"), SHOP),
    Row("a preview's application to production's database", (PREVIEW, "shopcat"), DATABASE),
    Row("another pod of a preview to production's database", (PREVIEW, "other"), DATABASE),
    Row("another pod of a preview to the preview's database", (PREVIEW, "other"), (PREVIEW, "database", 5432)),
    Row("a preview's application to its database", (PREVIEW, "shopcat"), (PREVIEW, "database", 5432), allowed=True),
    Row("production's smoke test to production's pods", (PRODUCTION, "smoke"), SHOP, allowed=True),
    Row("production's pods to production's database", (PRODUCTION, "shopcat"), DATABASE, allowed=True),
    Row("External Secrets to production's pods", (OPERATOR, "operator"), SHOP),
    Row("External Secrets to production's database", (OPERATOR, "operator"), DATABASE),
    Row("production's pods to External Secrets", (PRODUCTION, "smoke"), (OPERATOR, "operator", 8080)),
    Row("External Secrets to the API server", (OPERATOR, "operator"), API, allowed=True),
    Row("External Secrets to AWS", (OPERATOR, "operator"), AWS, allowed=True),
    Row("the controller to production's pods", (SYSTEM, "controller"), SHOP),
    Row("the controller to production's database", (SYSTEM, "controller"), DATABASE),
    Row("the controller to the API server", (SYSTEM, "controller"), API, allowed=True),
    Row("the controller to AWS", (SYSTEM, "controller"), AWS, allowed=True),
    Row("another pod to the controller's other ports", (PRODUCTION, "smoke"), (SYSTEM, "metrics", 8080)),
    Row("another pod to the controller's webhooks", (PRODUCTION, "smoke"), (SYSTEM, "controller", 9443), allowed=True),
]


def reached(twin: config.Twin, database: str, row: Row) -> bool:
    namespace, name, port = row.where
    if row.where == API:
        service = json.loads(kubectl(twin, "get", "service", "kubernetes", "-n", "default", "-o", "json").stdout)
        return connects(twin, *row.source, service["spec"]["clusterIP"], addon_isolation.HTTPS)
    if row.where == AWS:
        return connects(twin, *row.source, twin.host_ip, twin.aws_port)
    return connects(twin, *row.source, address(twin, namespace, name) if namespace else database, port)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_without_policies_everything_connects(twin: config.Twin, database: str, row: Row) -> None:
    assert reached(twin, database, row)


@pytest.fixture(scope="module")
def fenced(twin: config.Twin, database: str) -> None:
    """Exactly what the program declares, with the twin's bridge as the load balancers' subnet."""
    specs = {(PREVIEW, name): spec for name, spec in isolation.preview_network_policies([twin.bridge_cidr]).items()}
    specs[PRODUCTION, "ingress"] = ingress_policy([twin.bridge_cidr])
    server = json.loads(kubectl(twin, "config", "view", "-o", "json").stdout)["clusters"][0]["cluster"]["server"]
    specs.update(addon_isolation.addon_network_policies(addon_isolation.egress_ports(server, twin.aws_endpoint)))
    for (namespace, name), spec in specs.items():
        body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}
        control_plane.call(twin, "POST", f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", body)
    _wait(lambda: not any(reached(twin, database, row) for row in ROWS if not row.allowed), "the policies are in force")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_with_the_programs_policies(twin: config.Twin, database: str, fenced: None, row: Row) -> None:
    assert reached(twin, database, row) == row.allowed
    isolation_table.packet(
        row.what, "connects" if row.allowed else "no connection within two seconds; without, it connects"
    )


@pytest.mark.parametrize("namespace", [PREVIEW, PRODUCTION])
def test_the_load_balancer_reaches_both_applications(twin: config.Twin, fenced: None, namespace: str) -> None:
    with socket.create_connection((address(twin, namespace, "shopcat"), 8080), 2):
        pass


def test_the_rows_are_written(twin: config.Twin, fenced: None) -> None:
    """Run last, so that the file holds every row; write it only when asked for."""
    if os.environ.get("SHOPCAT_ISOLATION"):
        isolation_table.write_sections(REPOSITORY / "docs" / "isolation.md")
