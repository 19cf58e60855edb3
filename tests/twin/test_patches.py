"""The patched chart's hook on a real cluster: a tag is released once, and Helm says which release had it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools import aws, command, kubectl
from twin import production
from twin.config import Twin
from twin.paths import REPOSITORY

pytestmark = pytest.mark.twin

NAMESPACE = "patched"


def test_helm_refuses_a_used_tag_and_names_the_release_that_had_it(twin: Twin, tmp_path: Path) -> None:
    """Without replicas: what is tried here comes before any of the release's own pods."""
    copy = tmp_path / "shop"
    shutil.copytree(REPOSITORY / "legacy", copy)
    for patch in sorted((REPOSITORY / "patches").glob("*.diff")):
        subprocess.run(["git", "apply", str(patch)], cwd=copy, check=True)
    found = aws(twin, "ecr").describe_images(
        repositoryName=production.REPOSITORY_NAME, imageIds=[{"imageTag": production.FIRST_TAG}]
    )
    digest = found["imageDetails"][0]["imageDigest"]

    def upgrade(tag: str) -> "subprocess.CompletedProcess[str]":
        colour = json.dumps({"tag": tag, "digest": digest, "replicas": 0})
        options = {
            "image.repository": f"{production.registry_host()}/{production.REPOSITORY_NAME}",
            "database.secretName": "shopcat/application",
            "releasing": "blue",
        }
        arguments = [
            "--create-namespace",
            "--namespace",
            NAMESPACE,
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
        deployment = kubectl(twin, "get", "deployment", "shopcat-blue", "-n", NAMESPACE)
        return str(deployment["spec"]["template"]["metadata"]["labels"]["release"])

    try:
        for tag in ("v1.0.0", "v1.0.0", "v1.1.0"):
            accepted = upgrade(tag)
            assert accepted.returncode == 0, accepted.stdout + accepted.stderr
        ledger = kubectl(twin, "get", "configmap", "shopcat-releases", "-n", NAMESPACE)["data"]
        assert sorted(ledger) == ["v1.0.0", "v1.1.0"]
        refused = upgrade("v1.0.0")
        assert refused.returncode != 0
        said = refused.stdout + refused.stderr
        assert "v1.0.0 was released before: release 1" in said
        assert digest in said
        assert template_tag() == "v1.1.0", "the hook comes before everything else"
        assert kubectl(twin, "get", "configmap", "shopcat-releases", "-n", NAMESPACE)["data"] == ledger
    finally:
        command(twin, ["kubectl", "delete", "namespace", NAMESPACE, "--wait=false"])
