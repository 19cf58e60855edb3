"""Upgrades of production under load: each is one changed setting and `pulumi up -s prod`, and may fail no request.

They take half an hour, so they run only when they are asked for: `make upgrades`, which writes docs/upgrades.md.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from bench import run
from bench.reconcile import disagreements, orders_lost_or_doubled
from tests.tools import aws, command, kubectl
from tests.twin.shop import Shop, open_shop, stop, wait_for
from twin.config import Twin
from twin.paths import REPOSITORY

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not os.environ.get("SHOPCAT_UPGRADES"), reason="half an hour; `make upgrades` runs it"),
]

PAGE = REPOSITORY / "docs" / "upgrades.md"
HEAD = """# Upgrades, rehearsed

Written by `make upgrades` on the twin, never by hand. Each row is one changed setting and `pulumi up -s prod` under load.

- **Nodes**: drained and replaced one after the other. The twin takes the old node away before the new one comes (EKS's strategy
  MINIMAL); production's setting, DEFAULT, brings new ones first, so there everything has more room.
- **Control plane**: the twin has one API server and one version of Kubernetes. It restarts, and the new version is recorded.
- **Add-ons**: their pods are rolled; the stand-ins are the same in every version.

| upgrade | killed meanwhile | seconds | failed of sent | seen |
|---|---|---:|---:|---|
"""


@pytest.fixture(scope="module")
def shop(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(twin, tmp_path_factory.mktemp("shop")) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


def cluster_settings(shop: Shop, **changes: Any) -> Mapping[str, Any]:
    import yaml

    present = yaml.safe_load(shop.settings.read_text())["config"]["shopcat:cluster"]
    return {"shopcat:cluster": {**present, **changes}}


def machines(shop: Shop) -> dict[str, str]:
    """Name and UID of each node, and whether it is ready."""
    nodes = kubectl(shop.twin, "get", "nodes")["items"]
    assert all(condition["status"] == "True" for node in nodes for condition in node["status"]["conditions"][-1:])
    return {node["metadata"]["name"]: node["metadata"]["uid"] for node in nodes}


def addon_pods(shop: Shop, name: str) -> set[str]:
    pods = kubectl(shop.twin, "get", "pods", "-n", "kube-system", "-l", f"k8s-app={name}")["items"]
    return {pod["metadata"]["uid"] for pod in pods}


def wait_until_active(shop: Shop) -> None:
    """As `aws eks wait nodegroup-active` does."""
    eks = aws(shop.twin, "eks")
    (name,) = eks.list_nodegroups(clusterName="shopcat")["nodegroups"]
    deadline = time.monotonic() + 900
    while eks.describe_nodegroup(clusterName="shopcat", nodegroupName=name)["nodegroup"]["status"] != "ACTIVE":
        assert time.monotonic() < deadline
        time.sleep(3)


def upgrade(
    shop: Shop, rows: list[str], name: str, changes: Mapping[str, Any], seen: Callable[[], str], kill_at: str = ""
) -> None:
    """Run one upgrade, with the engine killed once it has printed that text, and write its row."""
    began = time.time()
    if kill_at:
        process, log = shop.start(changes)
        wait_for(log, kill_at, process)
        time.sleep(20)
        stop(process)
        shop.cancel()
        code, output = shop.up(changes)
        assert code != 0
        assert "is being updated" in output, "EKS goes on by itself, and takes no second update meanwhile"
        wait_until_active(shop)
        refresh = ["pulumi", "refresh", "-s", "prod", "--yes", "--skip-preview", "--non-interactive"]
        command(shop.twin, refresh, PULUMI_OPTION_CONFIG_FILE=str(shop.copy(changes)))
    code, output = shop.up(changes)
    assert code == 0, output
    seconds = time.time() - began
    shop.settings.write_text((shop.copy(changes)).read_text())
    code, output = shop.up()
    assert code == 0, output
    assert " updated" not in output, output
    failed = shop.failed(began)
    sent = sum(1 for outcome in shop.load.outcomes if outcome.due >= began)
    rows.append(f"| {name} | {'the engine' if kill_at else '-'} | {seconds:.0f} | {len(failed)} of {sent} | {seen()} |")
    assert sent >= 100, "the load has ended"
    assert failed == []


def test_a_new_node_image_replaces_both_nodes(shop: Shop, rows: list[str]) -> None:
    before = machines(shop)

    def seen() -> str:
        after = machines(shop)
        assert set(after) == set(before)
        assert not set(after.values()) & set(before.values())
        return "both nodes are new ones"

    upgrade(shop, rows, "nodes: amiReleaseVersion", cluster_settings(shop, amiReleaseVersion="1.35.8-20261101"), seen)


def test_new_versions_of_the_add_ons_roll_their_pods(shop: Shop, rows: list[str]) -> None:
    before = addon_pods(shop, "kube-dns")

    def seen() -> str:
        after = addon_pods(shop, "kube-dns")
        assert after
        assert not after & before
        return "CoreDNS has new pods"

    versions = {
        "vpc-cni": "v1.21.2-eksbuild.1",
        "coredns": "v1.13.3-eksbuild.1",
        "kube-proxy": "v1.35.4-eksbuild.1",
        "eks-pod-identity-agent": "v1.3.11-eksbuild.1",
    }
    upgrade(shop, rows, "EKS add-ons: addonVersions", cluster_settings(shop, addonVersions=versions), seen)


def test_a_new_minor_version_of_kubernetes_survives_the_death_of_the_engine(shop: Shop, rows: list[str]) -> None:
    before = machines(shop)

    def seen() -> str:
        assert not set(machines(shop).values()) & set(before.values())
        return "API server restarted, both nodes are new ones"

    changes = cluster_settings(shop, kubernetesVersion="1.36", amiReleaseVersion="1.36.1-20261101")
    upgrade(shop, rows, "Kubernetes 1.35 → 1.36", changes, seen, kill_at="aws:eks:NodeGroup nodes updating")


def test_clients_load_balancer_and_database_tell_the_same_story(shop: Shop) -> None:
    """Run last: compare over all of them."""
    outcomes = shop.load.stop()
    assert disagreements(outcomes, run.requests_since(shop.twin, shop.load.started - 1)) == []
    assert orders_lost_or_doubled(outcomes, run.stored_orders(shop.twin)) == []
