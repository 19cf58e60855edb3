"""Upgrades of production under load: each is one changed setting and `pulumi up -s prod`, and may fail no request.

What restarts the database fails the requests that need it meanwhile; nothing else may fail then, and nothing afterwards.

They take three quarters of an hour, so they run only when they are asked for: `make upgrades`, which writes docs/upgrades.md.
Rows that are not run (`pytest -k`) stay on the page as they were, with the day on which they were measured.
"""

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from bench import run
from bench.load import Outcome
from bench.reconcile import disagreements, orders_lost_or_doubled
from tests.tools import aws, command, kubectl
from tests.twin.shop import Shop, open_shop, stop, wait_for
from twin import pulumi
from twin.aws import postgres, rds
from twin.aws.postgres import Server
from twin.config import Twin
from twin.host import pki
from twin.kubernetes import charts
from twin.loadbalancer import front_door, hostnames
from twin.paths import REPOSITORY

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not os.environ.get("SHOPCAT_UPGRADES"), reason="half an hour; `make upgrades` runs it"),
]

PAGE = REPOSITORY / "docs" / "upgrades.md"
HEAD = f"""# Upgrades, rehearsed

Written by `make upgrades` on the twin, never by hand. Each row is one changed setting and `pulumi up -s prod` under load.

- **Nodes**: drained and replaced one after the other. The twin takes the old node away before the new one comes (EKS's strategy
  MINIMAL); production's setting, DEFAULT, brings new ones first, so there everything has more room.
- **Control plane**: the twin has one API server and one version of Kubernetes. It restarts, and the new version is recorded.
- **EKS add-ons**: their pods are rolled; the stand-ins are the same in every version.
- **Charts**: each moves by three settings, `charts`, `chartDigests` and `images`. No second version of the real charts can be had
  here, so each is served again under the next number: the real External Secrets, and the controller's stand-in with one
  definition more. A pod of the live colour is asked for all the time (server-side dry run), and must get its gate or be
  refused.
- **Database**: RDS restarts it for a minor version and, when it is told to, for static parameters. Then every request that needs
  it fails, whatever this program does: the row counts them. The stand-in is down for {rds.UPGRADE_SECONDS:.0f} s for a version,
  which is our guess, and for {rds.REBOOT_SECONDS:.0f} s for a reboot, as in AWS's example.
- **Certificate**: renewed by another name in it, since ACM's own renewal changes nothing here.

| upgrade | killed meanwhile | seconds | failed of sent | seen | measured |
|---|---|---:|---:|---|---|
"""
NODES, EKS_ADDONS = "nodes: amiReleaseVersion", "EKS add-ons: addonVersions"
CONTROLLER, OPERATOR = "chart of the load balancer controller", "chart of External Secrets"
DYNAMIC, STATIC, RESTART = "RDS: a dynamic parameter", "RDS: a static parameter", "RDS: the restart that it waits for"
MINOR, LATER = "RDS: minor version, applyImmediately: true", "RDS: minor version, applyImmediately: false"
CERTIFICATE, KUBERNETES = "certificate: domainAliases", "Kubernetes 1.35 → 1.36"
ROWS = (NODES, EKS_ADDONS, CONTROLLER, OPERATOR, DYNAMIC, STATIC, RESTART, MINOR, LATER, CERTIFICATE, KUBERNETES)


def written_rows(page: str) -> dict[str, str]:
    """Rows of the page by what was upgraded."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| upgrade |")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


@pytest.fixture(scope="module")
def shop(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(twin, tmp_path_factory.mktemp("shop")) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, str]]:
    measured: dict[str, str] = {}
    yield measured
    known = {**written_rows(PAGE.read_text()), **measured}
    PAGE.write_text(HEAD + "".join(f"{known[name]}\n" for name in ROWS if name in known))


def changed_settings(shop: Shop, key: str, **changes: Any) -> dict[str, Any]:
    present = yaml.safe_load(shop.settings.read_text())["config"][f"shopcat:{key}"]
    return {f"shopcat:{key}": {**present, **changes}}


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


def no_failure(failed: list[Outcome]) -> str:
    assert failed == []
    return ""


def only_the_restart(seconds: float) -> Callable[[list[Outcome]], str]:
    """What fails while a database is down for so long: requests that need it, from then until the pools are connected again."""

    def check(failed: list[Outcome]) -> str:
        assert failed, "the restart was never seen"
        assert {outcome.stream for outcome in failed} <= {"page, kept alive", "page, fresh", "order"}
        assert {outcome.failure for outcome in failed} <= {"http-500", "http-503"}
        span = max(outcome.due for outcome in failed) - min(outcome.due for outcome in failed)
        # A pool of the application's waits twice as long after each attempt to connect (psycopg_pool).
        assert span < 2 * seconds + 30
        return f"; only pages and orders failed, the last {span:.0f} s after the first; PostgreSQL was away for {seconds:.0f} s"

    return check


def write_row(
    shop: Shop,
    rows: dict[str, str],
    name: str,
    began: float,
    ended: float,
    seen: Callable[[], str],
    killed: str = "-",
    check: Callable[[list[Outcome]], str] = no_failure,
) -> None:
    """Count the requests that were due since then, and write the row if they fail as expected."""
    text = seen()  # first: the load balancer's nodes may learn of a change after the update has ended
    failed = shop.failed(began)
    sent = sum(1 for outcome in shop.load.outcomes if outcome.due >= began)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert sent >= 100, "the load has ended"
    text += check(failed)
    rows[name] = f"| {name} | {killed} | {ended - began:.0f} | {len(failed)} of {sent} | {text} | {today} |"


def upgrade(
    shop: Shop,
    rows: dict[str, str],
    name: str,
    changes: Mapping[str, Any],
    seen: Callable[[], str],
    kill_at: str = "",
    check: Callable[[list[Outcome]], str] = no_failure,
) -> str:
    """Run one upgrade, with the engine killed once it has printed that text, write its row, and return what it printed."""
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
    ended = time.time()
    shop.settings.write_text((shop.copy(changes)).read_text())
    code, after = shop.up()
    assert code == 0, after
    assert " updated" not in after, after
    write_row(shop, rows, name, began, ended, seen, "the engine" if kill_at else "-", check)
    return output


def refused(shop: Shop, changes: Mapping[str, Any], *words: str) -> None:
    """Settings that are refused before anything moves, by a message with these words."""
    code, output = shop.up(changes)
    assert code != 0, output
    assert all(word in output for word in words), output
    assert " updated" not in output, output


class NewPods:
    """A pod of the live colour, asked for again and again by server-side dry run; what was answered is kept."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._end = shop, threading.Event()
        template = kubectl(shop.twin, "get", "deployment", f"shopcat-{shop.outputs()['liveColour']}", "-n", "shopcat")
        pod = template["spec"]["template"]
        metadata = {**pod["metadata"], "generateName": "asked-for-", "namespace": "shopcat"}
        self._pod = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]})
        self.gates: list[int] = []
        """Number of readiness gates of each pod that was taken."""
        self.refusals: list[str] = []

    def ask(self) -> None:
        answer = subprocess.run(
            ["kubectl", "create", "--dry-run=server", "-f", "-", "-o", "json"],
            env={**os.environ, **pulumi.environment(self._shop.twin)},
            input=self._pod,
            text=True,
            capture_output=True,
            check=False,
        )
        if answer.returncode == 0:
            self.gates.append(len(json.loads(answer.stdout)["spec"].get("readinessGates") or []))
        else:
            self.refusals.append(answer.stderr.strip())

    def _ask_on(self) -> None:
        while not self._end.wait(0.5):
            self.ask()

    @contextmanager
    def asking(self) -> Iterator[None]:
        self.ask()
        assert self.gates == [1], f"the webhook gives its gate before anything is changed: {self.refusals}"
        thread = threading.Thread(target=self._ask_on, daemon=True)
        thread.start()
        yield
        self._end.set()
        thread.join(30)


def chart_changes(shop: Shop, setting: str, version: str, digest: str) -> dict[str, Any]:
    """The three settings of a chart; its image is the same one by digest, under the chart's tag."""
    image = yaml.safe_load(shop.settings.read_text())["config"]["shopcat:images"][setting]
    image = re.sub(r":v[^:@]*@", f":v{version}@", image)
    return {
        **changed_settings(shop, "charts", **{setting: version}),
        **changed_settings(shop, "chartDigests", **{setting: digest}),
        **changed_settings(shop, "images", **{setting: image}),
    }


def pods_of(shop: Shop, name: str, namespace: str) -> set[str]:
    pods = kubectl(shop.twin, "get", "pods", "-n", namespace, "-l", f"app.kubernetes.io/name={name}")["items"]
    return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def created(shop: Shop, *what: str) -> str:
    return str(kubectl(shop.twin, "get", *what)["metadata"]["creationTimestamp"])


@pytest.fixture(scope="module")
def next_charts(shop: Shop) -> dict[str, tuple[str, str]]:
    return charts.publish_next(shop.twin)


def show(shop: Shop, parameter: str) -> str:
    return postgres.sql(Server(shop.twin), f"SHOW {parameter};").strip()


def started(shop: Shop) -> str:
    return postgres.sql(Server(shop.twin), "SELECT pg_postmaster_start_time();").strip()


def wait_until_database_is_available(shop: Shop) -> None:
    client = aws(shop.twin, "rds")
    deadline = time.monotonic() + 300
    while (
        client.describe_db_instances(DBInstanceIdentifier="shopcat")["DBInstances"][0]["DBInstanceStatus"]
        != "available"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def certificate_names(shop: Shop, host: str) -> set[str]:
    """Names in the certificate that users are shown at a host of the shop."""
    context = ssl.create_default_context(cafile=str(pki.ca_file(shop.twin)))
    with (
        socket.create_connection((front_door.address(shop.twin), 443), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        certificate = secured.getpeercert() or {}
    return {str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}


def test_a_new_node_image_replaces_both_nodes(shop: Shop, rows: dict[str, str]) -> None:
    before = machines(shop)

    def seen() -> str:
        after = machines(shop)
        assert set(after) == set(before)
        assert not set(after.values()) & set(before.values())
        return "both nodes are new ones"

    upgrade(shop, rows, NODES, changed_settings(shop, "cluster", amiReleaseVersion="1.35.8-20261101"), seen)


def test_new_versions_of_the_add_ons_roll_their_pods(shop: Shop, rows: dict[str, str]) -> None:
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
    upgrade(shop, rows, EKS_ADDONS, changed_settings(shop, "cluster", addonVersions=versions), seen)


def test_a_bad_chart_moves_nothing(shop: Shop, next_charts: dict[str, tuple[str, str]]) -> None:
    version, digest = next_charts["loadBalancerController"]
    refused(
        shop,
        chart_changes(shop, "loadBalancerController", "9.9.9", digest),
        "has no aws-load-balancer-controller 9.9.9", "shopcat:charts",
    )  # fmt: skip
    refused(
        shop,
        chart_changes(shop, "externalSecrets", next_charts["externalSecrets"][0], digest),
        "shopcat:chartDigests", "Nothing of it is installed",
    )  # fmt: skip
    assert version not in str(kubectl(shop.twin, "get", "deployments", "-A"))


def test_a_new_chart_of_the_controller_leaves_no_pod_without_its_gate(
    shop: Shop, rows: dict[str, str], next_charts: dict[str, tuple[str, str]]
) -> None:
    name, namespace = "aws-load-balancer-controller", "kube-system"
    before, asked = pods_of(shop, name, namespace), NewPods(shop)

    def seen() -> str:
        after = pods_of(shop, name, namespace)
        assert len(after) == 2
        assert not after & before
        assert set(asked.gates) == {1}, "each pod that was taken has its gate"
        defined = created(shop, "crd", charts.NEXT_DEFINITION)
        assert defined <= created(shop, "secret", "-n", namespace, f"sh.helm.release.v1.{name}.v2")
        refusals = len(asked.refusals)
        assert all("webhook" in refusal for refusal in asked.refusals), asked.refusals
        return (
            f"both pods are new ones; the new definition was there first; of {len(asked.gates) + refusals} pods asked for "
            f"meanwhile {len(asked.gates)} got their gate and {refusals} were refused"
        )

    with asked.asking():
        upgrade(
            shop,
            rows,
            CONTROLLER,
            chart_changes(shop, "loadBalancerController", *next_charts["loadBalancerController"]),
            seen,
        )


def test_a_new_chart_of_external_secrets_keeps_secrets_in_step(
    shop: Shop, rows: dict[str, str], next_charts: dict[str, tuple[str, str]]
) -> None:
    before = pods_of(shop, "external-secrets", "external-secrets")

    def seen() -> str:
        after = pods_of(shop, "external-secrets", "external-secrets")
        assert after
        assert not after & before
        secret = ["externalsecret", "application", "-n", "shopcat-database"]
        synced = kubectl(shop.twin, "get", *secret)["status"]["refreshTime"]
        command(shop.twin, ["kubectl", "annotate", *secret, "--overwrite", f"force-sync={time.time()}"])
        deadline = time.monotonic() + 60
        while kubectl(shop.twin, "get", *secret)["status"]["refreshTime"] == synced:
            assert time.monotonic() < deadline, "the new pod reads no secret"
            time.sleep(1)
        return "its pod is a new one, and has read a secret since"

    upgrade(shop, rows, OPERATOR, chart_changes(shop, "externalSecrets", *next_charts["externalSecrets"]), seen)


def test_a_dynamic_parameter_holds_at_once(shop: Shop, rows: dict[str, str]) -> None:
    before = started(shop)
    changes = changed_settings(shop, "database", parameters={"work_mem": "8192"})

    def seen() -> str:
        assert show(shop, "work_mem") == "8MB"
        assert started(shop) == before
        return "work_mem holds, PostgreSQL was not restarted"

    output = upgrade(shop, rows, DYNAMIC, changes, seen)
    assert "next restart" not in output, output


def test_a_static_parameter_waits_for_a_restart_that_somebody_asks_for(shop: Shop, rows: dict[str, str]) -> None:
    name, before = "max_locks_per_transaction", started(shop)
    changes = changed_settings(shop, "database", parameters={"work_mem": "8192", name: "128"})
    restart = "aws rds reboot-db-instance --db-instance-identifier shopcat"
    preview = ["pulumi", "preview", "-s", "prod", "--non-interactive"]
    plan = command(shop.twin, preview, PULUMI_OPTION_CONFIG_FILE=str(shop.copy(changes))).stdout
    assert f"{name} will hold from the database's next restart on; `{restart}`" in plan, plan

    def seen() -> str:
        assert show(shop, name) == "64"
        assert started(shop) == before
        return "the plan names the parameter and the command; PostgreSQL was not restarted"

    upgrade(shop, rows, STATIC, changes, seen)
    code, output = shop.up()
    assert code == 0, output
    assert f"static parameters that hold only from its next restart on: `{restart}`" in output, output
    began = time.time()
    aws(shop.twin, "rds").reboot_db_instance(DBInstanceIdentifier="shopcat")
    wait_until_database_is_available(shop)
    ended = time.time()

    def restarted() -> str:
        assert show(shop, name) == "128"
        return f"`{restart}`: {name} holds"

    time.sleep(15)
    write_row(shop, rows, RESTART, began, ended, restarted, check=only_the_restart(rds.REBOOT_SECONDS))


def test_a_minor_version_of_postgresql_restarts_it(shop: Shop, rows: dict[str, str]) -> None:
    setting = "shopcat:database.engineVersion"
    refused(shop, changed_settings(shop, "database", engineVersion="16.3"), setting, "goes back to no older version")
    refused(shop, changed_settings(shop, "database", engineVersion="17"), setting, "--allow-major-version-upgrade")
    before = started(shop)

    def seen() -> str:
        instance = aws(shop.twin, "rds").describe_db_instances(DBInstanceIdentifier="shopcat")["DBInstances"][0]
        assert instance["EngineVersion"] == "16.5"
        assert started(shop) != before
        return "PostgreSQL was restarted, as the plan says"

    changes = changed_settings(shop, "database", engineVersion="16.5")
    output = upgrade(shop, rows, MINOR, changes, seen, check=only_the_restart(rds.UPGRADE_SECONDS))
    assert f"{setting} 16.4 → 16.5: RDS restarts the database within this update" in output, output


def test_a_minor_version_can_wait_for_the_maintenance_window(shop: Shop, rows: dict[str, str]) -> None:
    before, window = started(shop), "sun:03:00-sun:03:30"

    def seen() -> str:
        assert started(shop) == before
        return "PostgreSQL was not restarted; RDS does it in maintenanceWindow, which the twin has not"

    changes = changed_settings(shop, "database", engineVersion="16.6", applyImmediately=False, maintenanceWindow=window)
    output = upgrade(shop, rows, LATER, changes, seen)
    assert f"16.5 → 16.6: RDS restarts the database in its maintenance window ({window} UTC)" in output, output


def test_another_name_is_another_certificate(shop: Shop, rows: dict[str, str]) -> None:
    domain = hostnames.domain(shop.twin)
    alias = f"www.{domain}"
    assert certificate_names(shop, domain) == {domain}

    def seen() -> str:
        deadline = time.monotonic() + 90  # until both of the load balancer's nodes have it
        while any(certificate_names(shop, domain) != {domain, alias} for _ in range(8)):
            assert time.monotonic() < deadline
            time.sleep(2)
        assert certificate_names(shop, alias) == {domain, alias}
        acm = aws(shop.twin, "acm")
        assert len(acm.list_certificates()["CertificateSummaryList"]) == 2, "production's new one and the previews'"
        return "users are shown the new certificate at both names; the former one is deleted"

    upgrade(shop, rows, CERTIFICATE, {"shopcat:domainAliases": [alias]}, seen)


def test_a_new_minor_version_of_kubernetes_survives_the_death_of_the_engine(shop: Shop, rows: dict[str, str]) -> None:
    before = machines(shop)

    def seen() -> str:
        assert not set(machines(shop).values()) & set(before.values())
        return "API server restarted, both nodes are new ones"

    changes = changed_settings(shop, "cluster", kubernetesVersion="1.36", amiReleaseVersion="1.36.1-20261101")
    upgrade(shop, rows, KUBERNETES, changes, seen, kill_at="aws:eks:NodeGroup nodes updating")


def test_clients_load_balancer_and_database_tell_the_same_story(shop: Shop) -> None:
    """Run last: compare over all of them."""
    outcomes = shop.load.stop()
    assert disagreements(outcomes, run.requests_since(shop.twin, shop.load.started - 1)) == []
    assert orders_lost_or_doubled(outcomes, run.stored_orders(shop.twin)) == []
