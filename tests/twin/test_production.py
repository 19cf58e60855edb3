"""ShopCat's production on real pods, as `make up` leaves it."""

import json
import shutil
import ssl
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import run
from tests.tools import aws, command, kubectl, summary
from twin import config
from twin.config import Twin
from twin.paths import REPOSITORY
from twin.scenarios import production

pytestmark = pytest.mark.twin


def request(twin: Twin, path: str, *, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, str]:
    url = str(production.outputs(twin)["url"]).rstrip("/") + path
    context = ssl.create_default_context(cafile=str(twin.pki / "ca.crt"))
    data = json.dumps(body).encode() if body is not None else None
    message = urllib.request.Request(url, data=data, method=method, headers=headers)
    with urllib.request.urlopen(message, context=context, timeout=15) as answer:
        return answer.status, answer.read().decode()


def application_secret(twin: Twin) -> Mapping[str, str]:
    """Where the database is, and what the live colour signs in with."""
    return run.application_secret(twin)


def psql(twin: Twin, sql: str) -> str:
    secret = application_secret(twin)
    endpoint = f"host={twin.host_ip} port={twin.postgres_port} dbname={secret['dbname']} user={secret['username']}"
    return command(
        twin, ["psql", f"{endpoint} sslmode=require", "-At", "-c", sql], PGPASSWORD=secret["password"]
    ).stdout


def test_page_comes_out_of_postgresql(twin: Twin) -> None:
    status, page = request(twin, "/")
    assert status == 200
    assert "Cat tree" in page


def test_order_is_read_back_by_id_and_found_with_psql(twin: Twin) -> None:
    key = str(uuid.uuid4())
    status, answer = request(
        twin, "/orders", method="POST", body={"item": "Cat tree", "quantity": 2}, **{"Idempotency-Key": key}
    )
    assert status == 201
    order = json.loads(answer)["id"]
    _, read = request(twin, f"/orders/{order}")
    assert json.loads(read)["idempotency_key"] == key
    assert psql(twin, f"SELECT id FROM orders WHERE idempotency_key = '{key}'").strip() == str(order)


def test_secret_reaches_the_pods_and_no_manifest(twin: Twin) -> None:
    password = application_secret(twin)["password"]
    (pod, *_) = kubectl(twin, "get", "pods", "-n", "shopcat", "-l", "app.kubernetes.io/name=shopcat")["items"]
    seen = command(
        twin, ["kubectl", "exec", "-n", "shopcat", pod["metadata"]["name"], "--", "printenv", "DATABASE_PASSWORD"]
    )
    assert seen.stdout.strip() == password
    assert password not in json.dumps(pod)
    assert password not in command(twin, ["pulumi", "stack", "export", "-s", "prod"]).stdout


def test_images_run_by_digest(twin: Twin) -> None:
    for pod in kubectl(twin, "get", "pods", "-n", "shopcat")["items"]:
        for container in pod["spec"]["containers"]:
            assert "@sha256:" in container["image"], container["image"]


def test_nothing_pending_and_nothing_restarted(twin: Twin) -> None:
    for pod in kubectl(twin, "get", "pods", "-A")["items"]:
        assert pod["status"]["phase"] in ("Running", "Succeeded"), pod["metadata"]["name"]
        assert sum(c["restartCount"] for c in pod["status"].get("containerStatuses", [])) == 0, pod["metadata"]["name"]


def test_second_up_changes_nothing(twin: Twin) -> None:
    counts = summary(command(twin, ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview"]).stdout)
    assert set(counts) == {"unchanged"}, counts
    assert counts["unchanged"] > 50


def test_rotating_the_master_secret_changes_neither_record_nor_pod(twin: Twin) -> None:
    database = aws(twin, "rds")
    (instance,) = database.describe_db_instances()["DBInstances"]
    before = aws(twin, "secretsmanager").get_secret_value(SecretId=instance["MasterUserSecret"]["SecretArn"])
    database.modify_db_instance(
        DBInstanceIdentifier=instance["DBInstanceIdentifier"], RotateMasterUserPassword=True, ApplyImmediately=True
    )
    deadline = time.monotonic() + 30
    while True:
        after = aws(twin, "secretsmanager").get_secret_value(SecretId=instance["MasterUserSecret"]["SecretArn"])
        if after["SecretString"] != before["SecretString"]:
            break
        assert time.monotonic() < deadline, "the master secret was not rotated within 30 s"
        time.sleep(0.5)
    counts = summary(command(twin, ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview"]).stdout)
    assert set(counts) == {"unchanged"}, counts

    (pod, *_) = kubectl(twin, "get", "pods", "-n", "shopcat", "-l", "app.kubernetes.io/name=shopcat")["items"]
    command(twin, ["kubectl", "delete", "pod", "-n", "shopcat", pod["metadata"]["name"], "--wait=false"])
    selector = ["-n", "shopcat", "-l", "app.kubernetes.io/name=shopcat"]
    deadline = time.monotonic() + 120
    while True:
        pods = kubectl(twin, "get", "pods", *selector)["items"]
        ready = [
            p
            for p in pods
            if p["metadata"]["name"] != pod["metadata"]["name"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
        ]
        if len(ready) >= 2:
            break
        assert time.monotonic() < deadline, "the pod was not replaced by a ready one within 120 s"
        time.sleep(1)
    assert request(twin, "/")[0] == 200


# Beside it, in a namespace of its own, the patched chart: Helm says which release had a tag that was used before ---------

PATCHED = "patched"


def test_the_patched_chart_refuses_a_used_tag_and_names_the_release_that_had_it(twin: Twin, tmp_path: Path) -> None:
    """Test without replicas: the refusal comes before any of the release's own pods."""
    copy = tmp_path / "shop"
    shutil.copytree(REPOSITORY / "legacy", copy)
    for patch in sorted((REPOSITORY / "patches").glob("*.diff")):
        subprocess.run(["git", "apply", str(patch)], cwd=copy, check=True)
    images = aws(twin, "ecr").describe_images(
        repositoryName=production.REPOSITORY_NAME, imageIds=[{"imageTag": production.FIRST_TAG}]
    )
    digest = images["imageDetails"][0]["imageDigest"]

    def upgrade(tag: str) -> "subprocess.CompletedProcess[str]":
        colour = json.dumps({"tag": tag, "digest": digest, "replicas": 0})
        options = {
            "image.repository": f"{config.registry_host()}/{production.REPOSITORY_NAME}",
            "database.secretName": "shopcat/application",
            "releasing": "blue",
        }
        arguments = [
            "--create-namespace",
            "--namespace",
            PATCHED,
            "--timeout",
            "2m",
            "--set-json",
            f"colours.blue={colour}",
        ]
        for name, value in options.items():
            arguments += ["--set", f"{name}={value}"]
        return command(
            twin, ["helm", "upgrade", "--install", "shopcat", str(copy / "helm" / "shopcat"), *arguments], check=False
        )

    def template_tag() -> str:
        deployment = kubectl(twin, "get", "deployment", "shopcat-blue", "-n", PATCHED)
        return str(deployment["spec"]["template"]["metadata"]["labels"]["release"])

    try:
        for tag in ("v1.0.0", "v1.0.0", "v1.1.0"):
            accepted = upgrade(tag)
            assert accepted.returncode == 0, accepted.stdout + accepted.stderr
        ledger = kubectl(twin, "get", "configmap", "shopcat-releases", "-n", PATCHED)["data"]
        assert sorted(ledger) == ["v1.0.0", "v1.1.0"]
        refused = upgrade("v1.0.0")
        assert refused.returncode != 0
        output = refused.stdout + refused.stderr
        assert "v1.0.0 was released before: release 1" in output
        assert digest in output
        assert template_tag() == "v1.1.0", "the hook comes before everything else"
        assert kubectl(twin, "get", "configmap", "shopcat-releases", "-n", PATCHED)["data"] == ledger
    finally:
        command(twin, ["kubectl", "delete", "namespace", PATCHED, "--wait=false"])
