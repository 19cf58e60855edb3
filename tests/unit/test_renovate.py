"""Everything that is pinned in the stack's file and in the workflows is watched by Renovate."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = json.loads((ROOT / ".github" / "renovate.json").read_text())
MANAGERS: list[dict[str, Any]] = CONFIG["customManagers"]
DATASOURCES = {"docker", "helm", "endoflife-date", "aws-eks-addon", "github-releases"}


def found(path: str) -> list[dict[str, str]]:
    """Return the managers' matches in a file: templates and groups of each, as Renovate merges them."""
    dependencies = []
    for manager in MANAGERS:
        if not any(re.search(pattern.strip("/"), path) for pattern in manager["managerFilePatterns"]):
            continue
        for text in manager["matchStrings"]:
            for match in re.finditer(text.replace("(?<", "(?P<"), (ROOT / path).read_text()):
                groups = match.groupdict()
                templates = {
                    key.removesuffix("Template"): re.sub(r"{{{(\w+)}}}", lambda one: groups[one[1]], value)  # noqa: B023
                    for key, value in manager.items()
                    if key.endswith("Template") and not key.startswith("autoReplace")
                }
                dependencies.append({**groups, **templates})
    return dependencies


def test_every_version_of_the_production_stack_is_watched_once() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    cluster = config["shopcat:cluster"]
    pinned = {
        "amazon-eks": cluster["kubernetesVersion"],
        "awslabs/amazon-eks-ami": cluster["amiReleaseVersion"].rpartition("-")[2],
        "aws-load-balancer-controller": config["shopcat:charts"]["loadBalancerController"],
        "external-secrets": config["shopcat:charts"]["externalSecrets"],
        "amazon-rds-postgresql": config["shopcat:database"]["engineVersion"],
        **cluster["addonVersions"],
        **{
            image.partition("@")[0].rpartition(":")[0]: image.partition("@")[0].rpartition(":")[2]
            for image in config["shopcat:images"].values()
        },
    }
    dependencies = found("Pulumi.prod.yaml")
    assert {one["depName"]: one["currentValue"] for one in dependencies} == pinned
    assert len(dependencies) == len(pinned)
    assert {one["datasource"] for one in dependencies} <= DATASOURCES


def test_an_add_on_is_looked_up_for_the_clusters_kubernetes_version() -> None:
    version = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]["shopcat:cluster"]["kubernetesVersion"]
    names = [
        json.loads(one["packageName"]) for one in found("Pulumi.prod.yaml") if one["datasource"] == "aws-eks-addon"
    ]
    assert len(names) == 4
    assert {name["kubernetesVersion"] for name in names} == {version}


def test_the_pulumi_cli_and_buildkits_image_are_watched() -> None:
    requirements = (ROOT / "requirements" / "infra.in").read_text()
    pinned = re.search(r"^pulumi==(\S+)", requirements, re.MULTILINE)
    assert pinned is not None
    (watched,) = found("requirements/infra.in")
    assert (watched["depName"], watched["currentValue"]) == ("pulumi/pulumi", pinned[1])
    assert f"pulumi=={pinned[1]} " in (ROOT / "requirements.txt").read_text()
    for name in ("check.yml", "preview.yml", "release.yml"):
        path = f".github/workflows/{name}"
        (image,) = [one for one in found(path) if one["datasource"] == "docker"]
        assert image["depName"] == "docker.io/moby/buildkit"
        assert f"{image['currentValue']}@{image['currentDigest']}" in (ROOT / path).read_text()


def test_releases_are_read_without_their_v() -> None:
    for manager in MANAGERS:
        pattern = manager.get("extractVersionTemplate", "").replace("(?<", "(?P<")
        if pattern:
            match = re.fullmatch(pattern, "v20260903")
            assert match
            assert match["version"] == "20260903"


def test_custom_managers_are_switched_on() -> None:
    assert "custom.regex" in CONFIG["enabledManagers"]
