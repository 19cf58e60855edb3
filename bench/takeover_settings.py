"""The settings of a rehearsed takeover: the committed ones, then what the plan suggests until it has no error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from twin import config, pulumi
from twin.scenarios import production
from twin.scenarios.old_shop import OldShop

_SUGGESTED = "settings that describe"


Command = Callable[..., subprocess.CompletedProcess[str]]
"""Runs a command in the twin's environment; a failure is a TwinError unless ``check`` is off."""


class PlannedSettings:
    """The stack's file, and Terraform's state that the plan reads."""

    def __init__(self, shop: OldShop, directory: Path, command: Command) -> None:
        self._shop, self._twin, self._command = shop, shop.twin, command
        self.path = directory / "Pulumi.prod.yaml"
        self._state = directory / "terraform.tfstate"

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the settings by their keys."""
        document = yaml.safe_load(self.path.read_text())
        change(document["config"])
        self.path.write_text(yaml.safe_dump(document, sort_keys=False))

    def write(self) -> str:
        """Write the committed settings, then what the plan suggests, until the plan has no error.

        Raises:
            TwinError: the plan refuses something all the same.
        """
        self.path.write_text(pulumi.write_settings(self._twin).read_text())
        self.change(lambda settings: settings.update({"shopcat:dns": "external"}))
        self._state.touch(mode=0o600)
        self._state.write_text(json.dumps(self._shop.state()))
        suggested = self._suggestions(self._plan(check=False))
        existing = suggested["shopcat:cluster"]["existing"]
        existing["previewSubnetIds"] = self._preview_subnets(existing["vpcId"])
        existing["oldImages"] = [f"{config.registry_host()}/{production.REPOSITORY_NAME}:latest"]
        suggested["shopcat:database"]["masterSecret"] = self._master_secret()

        def merge(settings: dict[str, Any]) -> None:
            for key, value in suggested.items():
                settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value

        self.change(merge)
        setting = ["--secret", "--path", "shopcat:cluster.existing.kubeconfig", "--config-file", str(self.path)]
        self._command("pulumi", "config", "set", "-s", pulumi.STACK, *setting, stdin=self._twin.kubeconfig.read_text())
        return self._plan(check=True).strip().splitlines()[-1]

    def _plan(self, *, check: bool) -> str:
        result = self._command(sys.executable, "-m", "infra.commands.takeover_plan", str(self._state), check=check)
        return result.stdout

    def _suggestions(self, plan: str) -> dict[str, Any]:
        """Return the lines of settings that the plan prints."""
        blocks = [block.partition("\n")[2] for block in plan.split("\n\n") if block.startswith(_SUGGESTED)]
        return {key: value for block in blocks for key, value in yaml.safe_load(block).items()}

    def _preview_subnets(self, vpc: str) -> list[str]:
        """Make two more public subnets, as the plan asks for."""
        ec2 = pulumi.client(self._twin, "ec2")
        first, second, third, _ = self._twin.vpc_cidr.partition("/")[0].split(".")
        return [
            ec2.create_subnet(
                VpcId=vpc,
                CidrBlock=f"{first}.{second}.{int(third) + 2 + place}.0/24",
                AvailabilityZone=f"{config.region()}{zone}",
            )["Subnet"]["SubnetId"]
            for place, zone in enumerate("ab")
        ]

    def _master_secret(self) -> str:
        """Keep the master password, which only Terraform's state has, where the program may read it."""
        secret = pulumi.client(self._twin, "secretsmanager").create_secret(
            Name="shop/master", SecretString=json.dumps({"password": self._shop.database_password()})
        )
        return str(secret["ARN"])


def without_old(settings: dict[str, Any]) -> None:
    """Take out what served the old pods alone: their images, and the master password that they had."""
    settings["shopcat:cluster"]["existing"].pop("oldImages")
    database = settings["shopcat:database"]
    database.pop("masterSecret")
    database["backupRetentionDays"] = 14
