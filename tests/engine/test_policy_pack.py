"""The policy pack under the real engine: production passes it, and each of its rules stops an update."""

import json
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from policy import rules
from tests import conftest
from tests.tools import aws, command, settings_file, summary
from twin import pulumi
from twin.config import Twin
from twin.paths import REPOSITORY
from twin.scenarios import production

pytestmark = pytest.mark.engine

PREVIEW = ["pulumi", "preview", "-s", "prod", "--policy-pack", "policy"]
LEVELS = ("mandatory", "advisory")


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Twin, str]]:
    """Production on simulated nodes, and what the pack said before anything of it was there."""
    before: list[str] = []

    def produce(twin: Twin) -> None:
        before.append(command(twin, [*PREVIEW, "--non-interactive"]).stdout)
        production.up(twin)

    for twin in conftest._twin(f"{conftest.PREFIX}policy", simulated=True, produce=produce):
        yield twin, before[0]


def assert_passed(text: str) -> None:
    assert "shopcat@" in text, text
    assert not [line for line in text.splitlines() if any(f"[{level}]" in line for level in LEVELS)], text


def test_production_passes_before_it_is_there(shop: tuple[Twin, str]) -> None:
    """Much of it is not known yet then, and what is known is judged."""
    _, before = shop
    assert summary(before)["to create"] > 50
    assert_passed(before)


def test_production_passes(shop: tuple[Twin, str]) -> None:
    passed = command(shop[0], PREVIEW).stdout
    assert set(summary(passed)) == {"unchanged"}
    assert_passed(passed)


def test_an_update_of_production_passes(shop: tuple[Twin, str]) -> None:
    up = ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview", "--policy-pack", "policy"]
    assert_passed(command(shop[0], up).stdout)


def test_what_a_setting_accepts_is_said_with_its_reason(shop: tuple[Twin, str], tmp_path: Path) -> None:
    path = settings_file(shop[0], tmp_path, {"shopcat:protection": False})
    said = command(shop[0], PREVIEW, PULUMI_OPTION_CONFIG_FILE=str(path)).stdout
    assert "[mandatory]" not in said
    assert "[advisory]" in said
    assert "accepted by shopcat:protection: false: production is being taken down (docs/destroy.md)" in said


# A program of one resource that breaks one rule ------------------------------------------------------------------------

EVERYBODY = json.dumps({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]})
POD = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "shop:latest"}]}
BROKEN: Mapping[str, tuple[str, dict[str, Any]]] = {
    "public-access": (
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        {"cidrIpv4": "0.0.0.0/0", "ipProtocol": "tcp", "fromPort": 5432, "toPort": 5432, "securityGroupId": "a group"},
    ),
    "unencrypted-storage": ("aws:sns/topic:Topic", {"name": "broken"}),
    "wildcard-principal": ("aws:iam/role:Role", {"name": "broken", "assumeRolePolicy": EVERYBODY}),
    "mutable-image": ("kubernetes:core/v1:Pod", {"apiVersion": "v1", "kind": "Pod", "spec": POD}),
    "unguarded-data": ("aws:secretsmanager/secret:Secret", {"name": "broken"}),
}
PROGRAM = """
import json, pathlib, pulumi
for kind, name, arguments, protect in json.loads(pathlib.Path("declared.json").read_text()):
    pulumi.CustomResource(kind, name, arguments, pulumi.ResourceOptions(protect=protect))
"""


class Program:
    """A Pulumi program in a folder of its own, with state of its own, that declares what it is told."""

    def __init__(self, twin: Twin, folder: Path, stack: str) -> None:
        self._twin, self._folder, self._stack = twin, folder, stack
        (folder / "state").mkdir()
        (folder / "__main__.py").write_text(textwrap.dedent(PROGRAM))
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump({"name": "shopcat", "runtime": "python"}))
        self._settings = folder / f"Pulumi.{stack}.yaml"
        self.run("stack", "init", stack, "--secrets-provider", "passphrase")
        document = {**yaml.safe_load(self._settings.read_text()), "config": {"aws:region": "eu-central-1"}}
        self._settings.write_text(yaml.safe_dump(document))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        cwd = ["--cwd", str(self._folder), "--non-interactive"]
        environment = {
            "PULUMI_BACKEND_URL": pulumi.backend_url(self._folder / "state"),
            "PULUMI_OPTION_CONFIG_FILE": str(self._settings),
        }
        return command(self._twin, ["pulumi", *arguments, *cwd], check=False, **environment)

    def declare(self, *resources: tuple[str, str, dict[str, Any], bool]) -> None:
        (self._folder / "declared.json").write_text(json.dumps(resources))

    def judged(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(*arguments, "-s", self._stack, "--policy-pack", str(REPOSITORY / "policy"))


def _group(twin: Twin) -> dict[str, Any]:
    """The first of the account's security groups that is its network's default."""
    found = aws(twin, "ec2").describe_security_groups(Filters=[{"Name": "group-name", "Values": ["default"]}])
    group: dict[str, Any] = min(found["SecurityGroups"], key=lambda one: one["GroupId"])
    return group


def _exists(twin: Twin, rule: str) -> bool:
    """Tell whether the resource that breaks the rule was made."""
    if rule == "mutable-image":
        return bool(
            json.loads(command(twin, ["kubectl", "get", "pods", "-n", "default", "-o", "json"]).stdout)["items"]
        )
    try:
        found = {
            "public-access": lambda: [
                opening for opening in _group(twin)["IpPermissions"] if opening.get("FromPort") == 5432
            ],
            "unencrypted-storage": lambda: [
                topic for topic in aws(twin, "sns").list_topics()["Topics"] if topic["TopicArn"].endswith(":broken")
            ],
            "wildcard-principal": lambda: [aws(twin, "iam").get_role(RoleName="broken")],
            "unguarded-data": lambda: [aws(twin, "secretsmanager").describe_secret(SecretId="broken")],
        }[rule]()
    except ClientError:
        return False
    return bool(found)


def test_there_is_a_program_for_each_rule() -> None:
    assert set(BROKEN) == set(rules.RULES)


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_stops_an_update_before_the_resource_is_made(shop: tuple[Twin, str], tmp_path: Path, rule: str) -> None:
    kind, arguments = BROKEN[rule]
    if "securityGroupId" in arguments:
        arguments = {**arguments, "securityGroupId": _group(shop[0])["GroupId"]}
    program = Program(shop[0], tmp_path, "pr-1")
    program.declare((kind, "broken", arguments, False))
    for verb in (["preview"], ["up", "--yes", "--skip-preview"]):
        refused = program.judged(*verb)
        assert refused.returncode != 0, refused.stdout
        lines = [line for line in refused.stdout.splitlines() if "[mandatory]" in line]
        assert [line for line in lines if f" {rule} " in line], refused.stdout
        assert not [line for line in lines if f" {rule} " not in line], refused.stdout
    assert not _exists(shop[0], rule)
    assert program.run("up", "-s", "pr-1", "--yes", "--skip-preview").returncode == 0, "without the pack it is made"
    assert _exists(shop[0], rule)
    assert program.run("destroy", "-s", "pr-1", "--yes", "--skip-preview").returncode == 0
