"""Production taken down by docs/destroy.md and brought up again, through what was kept and through killed updates.

Whatever stops an update is told with a command; the test runs what it is told and nothing else.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.engine.test_killed import EVERY_CALL, killed
from tests.tools import aws, command, settings_file, summary
from twin import pulumi
from twin.config import Twin
from twin.scenarios import production

pytestmark = [
    pytest.mark.twin,
    pytest.mark.skipif(not EVERY_CALL, reason="a second life of production takes an hour; `make kills` runs it"),
]

UP = ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview"]
DESTROY = ["pulumi", "destroy", "-s", "prod", "--yes", "--skip-preview"]
TABLE = "shopcat-previews"
LOGS = "/aws/eks/shopcat/cluster"
STEP = 7
"""An update is killed after so many calls that change something in AWS, again and again, until one needs no more."""


def run_named_commands(twin: Twin, text: str) -> int:
    """Run every `pulumi import` command that a refusal names; return how many there are."""
    commands = re.findall(r"^\s*(pulumi import .*)$", text, re.MULTILINE)
    for command_line in dict.fromkeys(commands):
        result = command(twin, ["sh", "-c", command_line], check=False)
        assert result.returncode == 0, f"{command_line}\n{result.stdout}{result.stderr}"
    return len(commands)


def heal(twin: Twin) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run `up` and the commands that its refusals name, until it succeeds; return how many refusals there were."""
    for rounds in range(6):
        result = command(twin, UP, check=False)
        if result.returncode == 0:
            return result, rounds
        assert run_named_commands(twin, result.stdout + result.stderr), result.stdout + result.stderr
    raise AssertionError(result.stdout + result.stderr)


def take(twin: Twin, place: int, stack: str) -> None:
    item = {"place": {"S": str(place)}, "stack": {"S": stack}, "since": {"S": "2026-01-02T03:04:05+00:00"}}
    aws(twin, "dynamodb").put_item(TableName=TABLE, Item=item)


@pytest.fixture(scope="module")
def destroyed(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Twin:
    """Production taken down step by step; while a preview is open that is refused with the list."""
    folder: Path = tmp_path_factory.mktemp("settings")
    unprotected = str(settings_file(twin, folder, {"shopcat:protection": False}))
    take(twin, 2, "pr-77")
    plain = command(twin, DESTROY, check=False)
    assert plain.returncode != 0
    assert "cannot be deleted" in plain.stdout
    deleted = re.findall(r"^ -  (\S+) \S+ deleted", plain.stdout, re.MULTILINE)
    assert set(deleted) <= {"pulumi:providers:eks", "shopcat:identity:Identity"}, "these are in the state alone"
    refused = command(twin, UP, check=False, PULUMI_OPTION_CONFIG_FILE=unprotected)
    assert refused.returncode != 0
    assert "pr-77, open for" in refused.stdout + refused.stderr
    assert set(summary(command(twin, UP).stdout)) <= {"unchanged", "created"}
    aws(twin, "dynamodb").delete_item(TableName=TABLE, Key={"place": {"S": "2"}})
    command(twin, UP, PULUMI_OPTION_CONFIG_FILE=unprotected)
    parameter = aws(twin, "ssm").get_parameter(Name="/shopcat/contract")["Parameter"]["Value"]
    assert json.loads(parameter)["previews"] == 0
    command(twin, DESTROY)
    return twin


def test_what_is_kept_is_told_in_one_message_with_its_commands(destroyed: Twin) -> None:
    logs = aws(destroyed, "logs")
    # As EKS makes the group, should a person have deleted it too early.
    logs.delete_retention_policy(logGroupName=LOGS)
    result = command(destroyed, UP, check=False)
    assert result.returncode != 0
    kept = re.findall(r"pulumi import .* (\S+) (\S+) (\S+)$", result.stdout, re.MULTILINE)
    assert {kind.rpartition(":")[2] for kind, _, _ in kept} == {"LogGroup", "Repository", "Secret"}
    assert run_named_commands(destroyed, result.stdout) == 3


def test_an_update_that_is_killed_again_and_again_is_gone_on_with(destroyed: Twin) -> None:
    environment = pulumi.environment(destroyed)
    kills, done = 0, True
    output = ""
    while done or run_named_commands(destroyed, output):
        done, output = killed(destroyed, ["up", "-s", "prod"], environment, STEP)
        if done:
            kills += 1
            command(destroyed, ["pulumi", "cancel", "prod", "--yes"])
        assert kills < 100, "an update never needs fewer calls"
    assert "error:" not in output, output
    assert kills > 5
    heal(destroyed)
    assert set(summary(command(destroyed, UP).stdout)) == {"unchanged"}


def test_the_second_life_serves_what_the_first_one_did(destroyed: Twin) -> None:
    heal(destroyed)
    outputs = production.outputs(destroyed)
    assert outputs["liveRelease"] == production.FIRST_TAG
    (group,) = aws(destroyed, "logs").describe_log_groups(logGroupNamePrefix=LOGS)["logGroups"]
    assert group["retentionInDays"] > 0
