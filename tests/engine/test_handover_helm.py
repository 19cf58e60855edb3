"""docs/takeover-handover.md with the real Helm and a real API server: legacy's chart, each command as the guide has it.

No controller runs: what becomes of pods, and of the load balancer behind the Ingress, is not seen here.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.engine.test_handover import TERRAFORM
from twin import config
from twin.build import programs
from twin.paths import REPOSITORY
from twin.scenarios import guide

pytestmark = pytest.mark.engine

GO, COME_BACK, RECORDS = "7. The old chart goes", "The chart comes back", "The records go too"
PART_STAYS = "A chart of which something stays"
CHART = {"deployment/shopcat", "service/shopcat", "secret/shopcat"}
TOKEN = "administrator"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """etcd and an API server on loopback; yields the environment in which helm and kubectl reach them."""
    twin = config.load("main")
    folder = tmp_path_factory.mktemp("cluster")
    path = os.pathsep.join([*map(str, programs.path_directories(twin)), os.environ["PATH"]])
    for tool in ("kube-apiserver", "kubectl", "helm"):
        if shutil.which(tool, path=path) is None:
            pytest.skip(f"no {tool} on PATH and none built yet; `make build` builds it")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_file, tokens, kubeconfig = folder / "sa.key", folder / "tokens.csv", folder / "kubeconfig"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    tokens.write_text(f"{TOKEN},admin,admin,system:masters\n")
    etcd_port, peer_port, port = free_ports(3)
    etcd = f"http://127.0.0.1:{etcd_port}"
    peer = f"http://127.0.0.1:{peer_port}"
    server = f"https://127.0.0.1:{port}"
    user = {"name": "admin", "user": {"token": TOKEN}}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [user],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    kubeconfig.write_text(yaml.safe_dump(document))
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig), "HELM_CACHE_HOME": str(folder / "helm")}
    started: list[subprocess.Popen[bytes]] = []

    def start(argv: list[str], name: str, **more: str) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            started.append(subprocess.Popen(argv, env={**environment, **more}, stdout=log, stderr=log))

    try:
        start(
            [
                str(programs.debian_program(twin, "etcd")),
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync",
            ],
            "etcd",
            **programs.debian_environment(twin),
        )
        start(
            [
                "kube-apiserver",
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--cert-dir={folder}",
                f"--token-auth-file={tokens}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={key_file}",
                f"--service-account-key-file={key_file}",
                "--service-cluster-ip-range=10.96.0.0/24",
                "--endpoint-reconciler-type=none",
                "--feature-gates=WatchList=false",
                "--disable-admission-plugins=ServiceAccount",
                "--shutdown-delay-duration=0s",
            ],
            "kube-apiserver",
        )
        deadline = time.monotonic() + 240
        while guide.run(["kubectl get --raw /readyz"], folder, environment).returncode != 0:
            stopped = [process.args for process in started if process.poll() is not None]
            assert not stopped, (folder / "kube-apiserver.log").read_text()[-3000:]
            assert time.monotonic() < deadline, (folder / "kube-apiserver.log").read_text()[-3000:]
            time.sleep(1)
        yield environment
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


@dataclass
class OldShop:
    """A namespace with the old chart, the Ingress, and a Deployment of the new program."""

    folder: Path
    environment: dict[str, str]

    def run(self, *commands: str) -> str:
        result = guide.run(list(commands), self.folder, self.environment)
        assert result.returncode == 0, result.stdout
        return result.stdout

    def step(self, title: str) -> str:
        return self.run(*guide.blocks()[title])

    def objects(self) -> set[str]:
        kinds = "deployments,services,secrets,ingresses"
        listed = json.loads(self.run(f"kubectl get {kinds} -n shopcat -o json"))["items"]
        return {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in listed}

    def install(self) -> None:
        self.run(
            "helm upgrade --install shopcat helm/shopcat --namespace shopcat --set database.password=an-example-password",
            "kubectl apply -f k8s/ingress.yaml",
            "kubectl create deployment shopcat-blue --image=example.org/shopcat -n shopcat",
        )


@pytest.fixture
def shop(cluster: dict[str, str], tmp_path: Path) -> Iterator[OldShop]:
    for name in ("helm", "k8s"):
        shutil.copytree(REPOSITORY / "legacy" / name, tmp_path / name)
    shop = OldShop(tmp_path, cluster)
    shop.run("kubectl apply -f k8s/namespace.yaml")
    shop.install()
    yield shop
    shop.run("kubectl delete deployments,services,secrets,ingresses --all -n shopcat")


NEW = {"deployment/shopcat-blue"}
RECORD = {"secret/sh.helm.release.v1.shopcat.v1"}


def test_the_chart_goes_comes_back_and_goes_for_good(shop: OldShop) -> None:
    before = shop.objects()
    assert before == CHART | NEW | RECORD | {"ingress/shopcat"}
    password = shop.run("kubectl get secret shopcat -n shopcat -o jsonpath={.data.password}")
    shop.step(GO)
    assert shop.objects() == NEW | RECORD
    assert "an-example-password" in (shop.folder / "helm-before.yaml").read_text()
    shop.step(COME_BACK)
    assert shop.objects() == before | {"secret/sh.helm.release.v1.shopcat.v2"}
    assert shop.run("kubectl get secret shopcat -n shopcat -o jsonpath={.data.password}") == password
    shop.step(GO)
    shop.step(RECORDS)
    assert shop.objects() == NEW


def test_an_annotation_on_the_object_does_not_keep_it(shop: OldShop) -> None:
    shop.run("kubectl annotate service shopcat -n shopcat helm.sh/resource-policy=keep")
    shop.step(GO)
    assert not CHART & shop.objects()


def test_an_annotation_in_the_chart_keeps_the_object(shop: OldShop) -> None:
    path = shop.folder / "helm" / "shopcat" / "templates" / "service.yaml"
    text = path.read_text()
    path.write_text(text.replace("  labels:", "  annotations:\n    helm.sh/resource-policy: keep\n  labels:", 1))
    assert path.read_text() != text
    shop.run("helm upgrade shopcat helm/shopcat --namespace shopcat --reuse-values")
    shop.step(GO)
    assert CHART & shop.objects() == {"service/shopcat"}


def test_without_the_records_helm_forgets_the_chart_and_its_objects_stay(shop: OldShop) -> None:
    before = shop.objects()
    shop.step(PART_STAYS)
    assert shop.objects() == before - RECORD
    assert json.loads(shop.run("helm list --all -n shopcat -o json")) == []
    result = guide.run(["helm uninstall shopcat -n shopcat"], shop.folder, shop.environment)
    assert "not found" in result.stdout
    assert shop.objects() == before - RECORD


def test_every_command_of_the_guide_is_tried() -> None:
    assert set(guide.blocks()) == TERRAFORM | {GO, COME_BACK, RECORDS, PART_STAYS}
