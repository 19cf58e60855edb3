"""The twin's Kubernetes by itself: nodes, network, DNS, add-ons, and a machine that is left as it was found."""

import base64
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from twin import config
from twin.aws import registry
from twin.build import image_layers, programs
from twin.errors import TwinError
from twin.host import cgroups, dns, machine, network, pki, ports, processes
from twin.images import system_images
from twin.kubernetes import cluster_addons, control_plane, node, node_configuration, node_mounts, node_processes
from twin.paths import is_root

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not is_root(), reason="real nodes need root: network namespaces, mounts and cgroups"),
]

ADD_ONS = ("vpc-cni", "kube-proxy", "eks-pod-identity-agent", "coredns")
MODULES = (network, pki, dns, registry, system_images, control_plane, node_processes)
DATABASE = "shopcat.c0ffee.eu-central-1.rds.amazonaws.com"


def left_by(twin: config.Twin) -> dict[str, list[str]]:
    """Return what a twin could leave behind on the machine, without what belongs to other running twins."""

    def mine(lines: list[str]) -> list[str]:
        names = [line for line in lines if "shopcat" not in line or twin.bridge in line or str(twin.directory) in line]
        return sorted(set(names))

    routes = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"], text=True, capture_output=True, check=True
    )
    return {
        "mounts": mine([path for path in mounts() if path != str(network.NETNS_DIRECTORY.resolve())]),
        "namespaces": mine([str(path) for path in Path("/run/netns").glob("*")]),
        "interfaces": mine([path.name for path in Path("/sys/class/net").iterdir() if "veth" not in path.name]),
        "routes": [route["dst"] for route in json.loads(routes.stdout) if is_own(twin, route["dst"])],
        "cgroups": mine([str(path) for root, _ in cgroups.hierarchies() for path in root.iterdir() if path.is_dir()]),
        "folders": [
            path
            for path in ("/etc/kubernetes", "/usr/libexec/kubernetes", "/opt/containerd", "/run/containerd")
            if Path(path).exists()
        ],
        "sysctls": sysctls(),
        "firewall": firewall(twin),
        "processes": mine([line for line in command_lines() if str(twin.directory) in line]),
    }


def is_own(twin: config.Twin, destination: str) -> bool:
    """Check that a route leads to an address of the twin."""
    if destination == "default":
        return False
    return any(ipaddress.ip_network(destination, strict=False).overlaps(own) for own in network.networks(twin))


def mounts() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def sysctls() -> list[str]:
    settings = []
    for folder in (
        "net/ipv4",
        "net/ipv4/conf/all",
        "net/ipv4/conf/default",
        "net/bridge",
        "net/netfilter",
        "kernel",
        "vm",
    ):
        for path in sorted(Path("/proc/sys", folder).glob("*")):
            steady = not path.name.endswith(("_count", "_mem", "_pid", "ns_last_pid", "drop_caches", "pty", "random"))
            if path.is_file() and os.access(path, os.R_OK) and steady:
                try:
                    settings.append(f"{path}: {path.read_text().strip()}")
                except OSError:
                    continue
    return settings


def firewall(twin: config.Twin) -> list[str]:
    environment = {**os.environ, **programs.debian_environment(twin)}
    rules = []
    for kind in ("nft", "legacy"):
        program = str(programs.debian_program(twin, f"xtables-{kind}-multi"))
        saved = subprocess.run([program, "iptables-save"], env=environment, text=True, capture_output=True, check=False)
        rules += [f"{kind}: {line}" for line in saved.stdout.splitlines() if line.startswith("-A")]
    return rules


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def take_down(twin: config.Twin) -> None:
    for module in reversed(MODULES):
        module.down(twin)
    shutil.rmtree(twin.directory, ignore_errors=True)
    config.release_index(twin)


def bring_up(name: str) -> config.Twin:
    take_down(config.load(name, simulated=False))
    twin = config.load(name, simulated=False)
    twin.directory.mkdir(parents=True)
    for module in MODULES:
        module.up(twin)
    return twin


@pytest.fixture(scope="module")
def before() -> dict[str, list[str]]:
    twin = config.load("test-cluster", simulated=False)
    take_down(twin)
    return left_by(config.load("test-cluster", simulated=False))


@pytest.fixture(scope="module")
def cluster(before: dict[str, list[str]]) -> Iterator[config.Twin]:
    twin = bring_up("test-cluster")
    for add_on in ADD_ONS:
        cluster_addons.apply(twin, add_on)
    yield twin
    take_down(twin)


def kubectl(twin: config.Twin, *arguments: str, text: str | None = None) -> str:
    result = subprocess.run(
        [programs.program(twin, "kubectl"), "--kubeconfig", twin.kubeconfig, *arguments],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def eventually(probe: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


ASK_OFTEN = """
from urllib.request import urlopen
for _ in range(30):
    try:
        print(urlopen("http://echo.default.svc.cluster.local", timeout=5).read().decode().strip())
    except OSError as error:
        print(error)
"""


def get_or_error(url: str) -> str:
    try:
        return get(url)
    except OSError as error:
        return str(error)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode().strip())


@pytest.fixture(scope="module")
def echo(cluster: config.Twin) -> list[dict[str, Any]]:
    """Two pods, one a node, that answer with their name on port 8080."""
    script = "mkdir /tmp/page && hostname > /tmp/page/index.html && exec python3 -m http.server 8080 -d /tmp/page"
    container = {
        "name": "echo",
        "image": f"docker.io/{image_layers.BASE_IMAGE}",
        "command": ["sh", "-c", script],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "echo"}},
    }
    template = {
        "metadata": {"labels": {"app": "echo"}},
        "spec": {"containers": [container], "topologySpreadConstraints": [spread], "terminationGracePeriodSeconds": 1},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "echo", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "echo"}}, "template": template},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "echo", "namespace": "default"},
        "spec": {"selector": {"app": "echo"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubectl(
        cluster,
        "apply",
        "-f",
        "-",
        text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}),
    )
    kubectl(cluster, "rollout", "status", "deployment/echo", "--timeout=90s")
    pods: list[dict[str, Any]] = json.loads(kubectl(cluster, "get", "pods", "-l", "app=echo", "-o", "json"))["items"]
    return pods


def inside(twin: config.Twin, pod: str, program: str) -> str:
    return kubectl(twin, "exec", pod, "--", "python3", "-c", program).strip()


def test_nodes_are_shaped_like_t3_medium(cluster: config.Twin) -> None:
    objects = node.node_objects(cluster)
    assert sorted(objects) == ["node1", "node2"]
    zones = set()
    for node_object in objects.values():
        assert node_object["status"]["capacity"]["memory"] == "3943312Ki"
        allocatable = node_object["status"]["allocatable"]
        assert (allocatable["cpu"], allocatable["memory"], allocatable["pods"]) == ("1930m", "3388304Ki", "17")
        assert "ephemeral-storage" in allocatable, (
            "previews' pods ask for some, and stay pending on a node that has none"
        )
        labels = node_object["metadata"]["labels"]
        assert labels["node.kubernetes.io/instance-type"] == "t3.medium"
        zones.add(labels["topology.kubernetes.io/zone"])
        assert node_object["spec"]["providerID"].startswith(f"aws:///{labels['topology.kubernetes.io/zone']}/i-")
    assert zones == {f"{config.region()}a", f"{config.region()}b"}


def test_the_machine_keeps_its_settings_while_a_twin_runs(cluster: config.Twin, before: dict[str, list[str]]) -> None:
    now = left_by(cluster)
    assert now["sysctls"] == before["sysctls"]
    assert now["firewall"] == before["firewall"]


def test_pods_answer_the_host_at_their_own_addresses(cluster: config.Twin, echo: list[dict[str, Any]]) -> None:
    assert {pod["spec"]["nodeName"] for pod in echo} == {"node1", "node2"}
    for pod in echo:
        assert get(f"http://{pod['status']['podIP']}:8080/") == pod["metadata"]["name"]


def test_a_cluster_ip_reaches_both_nodes_from_pods_and_host(cluster: config.Twin, echo: list[dict[str, Any]]) -> None:
    names = {pod["metadata"]["name"] for pod in echo}
    address = kubectl(cluster, "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
    # kube-proxy takes a second or so to hear of an endpoint; until then a connection is refused.
    for pod in names:
        eventually(
            lambda pod=pod: set(inside(cluster, pod, ASK_OFTEN).split()) == names, f"{pod} reaches both, also itself"
        )
    eventually(lambda: {get_or_error(f"http://{address}/") for _ in range(30)} == names, "the host reaches both")


def test_names_of_the_cluster_and_of_the_twin_resolve_and_no_others(
    cluster: config.Twin, echo: list[dict[str, Any]]
) -> None:
    dns.publish(cluster, "test", {DATABASE: [cluster.host_ip], "*.preview.shopcat.localhost": ["10.1.2.3", "10.1.2.4"]})
    program = (
        "import json, socket\n"
        "def find(name):\n"
        "    try:\n"
        "        return sorted({a[4][0] for a in socket.getaddrinfo(name, 80, proto=6)})\n"
        "    except socket.gaierror as error:\n"
        "        return error.errno\n"
        f"names = ['kubernetes.default', '{DATABASE}', 'pr-7.preview.shopcat.localhost', 'example.com']\n"
        "print(json.dumps([find(name) for name in names]))"
    )
    not_known = -2
    for pod in echo:
        answers = json.loads(inside(cluster, pod["metadata"]["name"], program))
        assert answers == [[cluster.service_ip], [cluster.host_ip], ["10.1.2.3", "10.1.2.4"], not_known]
    dns.withdraw(cluster, "test")


def test_add_ons_take_the_room_they_take_on_eks(cluster: config.Twin) -> None:
    eventually(lambda: not any(cluster_addons.problems(cluster, name) for name in ADD_ONS), "add-ons run")
    pods = json.loads(kubectl(cluster, "get", "pods", "-n", "kube-system", "-o", "json"))["items"]
    requests = [c["resources"].get("requests", {}).get("cpu", "0m") for p in pods for c in p["spec"]["containers"]]
    assert len(pods) == 2 * 3 + 2
    assert sum(int(cpu.removesuffix("m")) for cpu in requests) == 2 * (50 + 100) + 2 * 100
    placeholders = [p for p in pods if p["metadata"].get("annotations", {}).get(cluster_addons.PLACEHOLDER) == "true"]
    assert all(p["spec"]["hostNetwork"] and p["spec"]["priority"] == 2000001000 for p in placeholders)
    assert len(placeholders) == 6
    with pytest.raises(TwinError, match="'aws-ebs-csi-driver' is not implemented by the stand-in"):
        cluster_addons.apply(cluster, "aws-ebs-csi-driver")
    cluster_addons.delete(cluster, "eks-pod-identity-agent")
    cluster_addons.delete(cluster, "eks-pod-identity-agent")
    assert cluster_addons.problems(cluster, "eks-pod-identity-agent")


WEBHOOK = """
import http.server, json, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": "said the webhook"}}
        body = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer(("", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_the_api_server_calls_a_webhook_in_a_pod(cluster: config.Twin) -> None:
    pair = pki.issue_server_certificate(cluster, ["hook.default.svc"])
    tls = {"tls.crt": pair.certificate.decode(), "tls.key": pair.key.decode()}
    container = {
        "name": "hook",
        "image": f"docker.io/{image_layers.BASE_IMAGE}",
        "command": ["python3", "-c", WEBHOOK],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    hook = {
        "name": "hook.example.com",
        "clientConfig": {
            "service": {"name": "hook", "namespace": "default", "port": 443, "path": "/"},
            "caBundle": base64.b64encode(pki.ca_file(cluster).read_bytes()).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
    }
    items = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "stringData": tls},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "hook", "labels": {"app": "hook"}},
            "spec": {
                "containers": [container],
                "volumes": [{"name": "tls", "secret": {"secretName": "hook"}}],
                "terminationGracePeriodSeconds": 1,
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hook"},
            "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": 8443}]},
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "hook"},
            "webhooks": [hook],
        },
    ]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl(cluster, "apply", "-f", "-", text=text)
    try:
        kubectl(cluster, "wait", "--for=condition=Ready", "pod/hook", "--timeout=60s")

        def refused() -> bool:
            manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "any"}}
            with pytest.raises(control_plane.ApiError) as caught:
                control_plane.call(cluster, "POST", "/api/v1/namespaces/default/configmaps", manifest)
            return "said the webhook" in str(caught.value)

        eventually(refused, "the webhook is asked", seconds=15)
    finally:
        kubectl(cluster, "delete", "-f", "-", "--wait=false", text=text)


def test_a_dead_or_frozen_kubelet_shows_and_up_mends_it(cluster: config.Twin, echo: list[dict[str, Any]]) -> None:
    kubelet = processes.find(cluster, "node1-kubelet")
    assert kubelet is not None
    os.kill(kubelet.pid, signal.SIGSTOP)
    try:
        frozen = {line.name: line for line in node_processes.status(cluster)}
    finally:
        os.kill(kubelet.pid, signal.SIGCONT)
    assert not frozen["node1"].ok
    assert "does not answer" in frozen["node1"].detail
    os.kill(kubelet.pid, signal.SIGKILL)
    eventually(lambda: not kubelet.alive(), "killed")
    dead = {line.name: line for line in node_processes.status(cluster)}
    assert not dead["node1"].ok
    assert "kubelet not running" in dead["node1"].detail
    assert dead["node2"].ok
    node_processes.up(cluster)
    assert all(line.ok for line in node_processes.status(cluster))
    restarts = kubectl(cluster, "get", "pods", "-l", "app=echo", "-o", "jsonpath={..restartCount}")
    assert restarts.split() == ["0", "0"]


def test_a_second_up_starts_nothing(cluster: config.Twin) -> None:
    pids = {name: processes.find(cluster, name) for name in processes.names(cluster)}
    for module in MODULES:
        module.up(cluster)
    assert {name: processes.find(cluster, name) for name in processes.names(cluster)} == pids


def test_two_twins_side_by_side(cluster: config.Twin, echo: list[dict[str, Any]]) -> None:
    other = bring_up("test-cluster2")
    try:
        assert other.index != cluster.index
        assert all(line.ok for line in node_processes.status(other))
        assert all(line.ok for line in node_processes.status(cluster))
    finally:
        take_down(other)
    # The first one's mounts must have outlived the second one's end: a new pod needs them.
    kubectl(cluster, "delete", "pod", echo[0]["metadata"]["name"], "--wait=false")
    eventually(
        lambda: kubectl(cluster, "get", "deployment", "echo", "-o", "jsonpath={.status.readyReplicas}") == "2",
        "a new pod runs",
    )


def test_addresses_that_are_routed_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = config.Twin("x", 3, Path("/nowhere"), Path("/nowhere"), simulated=False)
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "10.213.49.0/24", "dev": twin.bridge},
        {"dst": "10.213.32.0/24", "dev": "shopcat2"},
        {"dst": "10.0.0.0/8", "dev": "tun0"},
        {"type": "local", "dst": "10.213.63.1", "dev": "eth1"},
        {"dst": "10.214.8.0/22", "dev": "shopcat2"},
        {"dst": "10.214.12.128/25", "dev": "eth2"},
    ]
    wrong = ["10.0.0.0/8 dev tun0", "10.213.63.1 dev eth1", "10.214.12.128/25 dev eth2"]
    assert network.overlapping_routes(twin, routes) == wrong
    monkeypatch.setattr(network, "_ip", lambda *_, **__: json.dumps(routes))
    with pytest.raises(TwinError, match=r"10\.214\.12\.0/22, and this machine already routes 10\.0\.0\.0/8 dev tun0"):
        network._refuse_overlap(twin)


def test_a_twin_of_another_state_folder_is_left_alone(cluster: config.Twin, tmp_path: Path) -> None:
    stranger = config.Twin("stranger", cluster.index, cluster.cache, tmp_path, simulated=False)
    (tmp_path / "stranger").mkdir()
    with pytest.raises(TwinError, match=f"the twin in {cluster.directory} runs with the index {cluster.index} too"):
        network.up(stranger)
    node_processes.down(stranger)
    network.down(stranger)
    assert all(line.ok for line in [*network.status(cluster), *node_processes.status(cluster)])


def test_a_taken_port_is_named(cluster: config.Twin) -> None:
    with pytest.raises(TwinError, match=f"port {cluster.api_port} on {cluster.host_ip} is taken"):
        ports.require_free(cluster, cluster.host_ip, cluster.api_port, "kube-apiserver")


def nothing_shared_is_left() -> bool:
    """None of the folders that all twins mount on, unless another twin does at the moment."""
    netns = network.NETNS_DIRECTORY.resolve()
    return (str(netns) not in mounts() or any(netns.iterdir())) and all(
        not (path / node_mounts.MARKER).exists() or machine.mounted(path)
        for path in node_configuration.OWN_DIRECTORIES.values()
    )


def test_down_after_a_crash_leaves_the_machine_as_it_was(cluster: config.Twin, before: dict[str, list[str]]) -> None:
    for name in processes.names(cluster):
        process = processes.find(cluster, name)
        if name in ("node1-kubelet", "node1-kube-proxy"):
            # Alive, but nobody remembers it.
            (cluster.directory / "run" / f"{name}.json").unlink()
        elif process is not None:
            os.kill(process.pid, signal.SIGKILL)
    take_down(cluster)
    after = left_by(cluster)
    assert after == before
    processes.wait_until(nothing_shared_is_left, "the last twin to remove what twins share", timeout_seconds=60)
