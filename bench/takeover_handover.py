"""Terraform's state and Helm's release given up, by the commands of docs/takeover-handover.md and no others."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from twin import config, pulumi
from twin.errors import TwinError
from twin.host import processes
from twin.paths import REPOSITORY
from twin.scenarios import guide
from twin.scenarios.old_shop import NAMESPACE, OldShop

FREEZE, BACK_UP = "1. Freeze", "2. Back up"
DATABASE, IMAGES = "3. The database leaves Terraform's state", "4. The repository leaves Terraform's state"
CHECK = "5. Check, after step 3 and after step 4"
GIVE_UP, TAKE_AGAIN = "Nobody keeps them", "Network and cluster come back"
BACK = "With the back-up"
CHART_GOES, CHART_BACK, RECORDS_GO = "7. The old chart goes", "The chart comes back", "The records go too"
_BUCKET = "handover-backups"
_IN_PLACE = re.compile(r"Plan: 0 to add, (\d+) to change, 0 to destroy")


class HandOver:
    """The old repository's checkout and the steps that end it; counts the commands that were killed."""

    def __init__(self, shop: OldShop, directory: Path) -> None:
        self._shop, self._chart = shop, directory / "old-repository"
        self.kills = 0

    def prepare(self) -> None:
        """Copy chart and Ingress; with Terraform also make a git checkout of its folder, and a bucket for the back-up.

        Raises:
            TwinError: no AWS command line or no git is on PATH.
        """
        shutil.copytree(REPOSITORY / "legacy", self._chart)
        if self._shop.without_terraform:
            return
        for tool in ("aws", "git"):
            if shutil.which(tool) is None:
                raise TwinError(f"{tool} is not on PATH; the commands of the hand-over need it")
        ignored = (".terraform*", "*.tfstate*", "*.auto.tfvars.json", "*.tf.json")
        (self._shop.terraform_directory / ".gitignore").write_text("\n".join([*ignored, ""]))
        self._terraform(["git init -q", "git add .", "git commit -qm 'as it was'"])
        s3 = pulumi.client(self._shop.twin, "s3")
        s3.create_bucket(Bucket=_BUCKET, CreateBucketConfiguration={"LocationConstraint": config.region()})
        s3.put_bucket_versioning(Bucket=_BUCKET, VersioningConfiguration={"Status": "Enabled"})

    # Terraform --------------------------------------------------------------------------------------------------------

    def freeze(self) -> str:
        """Take steps 1 and 2; return what Terraform would set back of what Pulumi has changed."""
        changes = self._planned(FREEZE)
        self._run(BACK_UP)
        return f"Terraform would set back {changes} things"

    def give_up_what_pulumi_has(self) -> str:
        """Take steps 3 to 5, with the first one killed, then go on as the guide says."""
        self._killed(DATABASE, 0.7)
        self._give_up(again=True)
        self._terraform(["git commit --all --quiet -m 'handed over'"])
        return f"{len(self.addresses())} things left in Terraform's state"

    def go_back_and_forth(self) -> str:
        """Bring the back-up into the state again, which writes nothing to AWS, then take steps 3 to 5 once more."""
        self._planned(BACK)
        restored = len(self.addresses())
        self._give_up()
        self._terraform(["git commit --all --quiet --allow-empty -m 'handed over again'"])
        return f"{restored} things were in the state again"

    def give_up_the_rest(self) -> str:
        """Empty Terraform's state, bring it back, and empty it again."""
        self._run(GIVE_UP)
        empty = self.addresses()
        self._run(TAKE_AGAIN)
        restored = self.addresses()
        # The tag stands already; the guide makes it once.
        commands = [line for line in guide.blocks()[GIVE_UP] if not line.startswith("git tag")]
        self._terraform(commands)
        if empty or not restored or self.addresses():
            raise TwinError(f"Terraform's state had {empty}, then {restored}, then {self.addresses()}")
        return f"state empty; {len(restored)} things came back; empty again"

    def _give_up(self, *, again: bool = False) -> None:
        self._run(DATABASE, again=again)
        self._planned(CHECK)
        self._run(IMAGES)
        self._run(CHECK)

    def _planned(self, title: str) -> int:
        """Run commands that end in a plan; return how many things Terraform would change in place.

        Raises:
            TwinError: it would make or destroy something too.
        """
        output = self._run(title, allowed=(0, 2))
        if "No changes" in output:
            return 0
        changes = _IN_PLACE.search(output)
        if changes is None:
            raise TwinError(f"{title}: Terraform plans more than changes in place:\n{output}")
        return int(changes[1])

    def addresses(self) -> list[str]:
        """Return what Terraform's state has; data sources excepted."""
        return self._terraform(["terraform state list"]).split()

    # Helm -------------------------------------------------------------------------------------------------------------

    def end_the_chart(self) -> str:
        """Delete the old Ingress and chart, bring both back, and delete them for good."""
        self._helm(CHART_GOES)
        processes.wait_until(
            lambda: not self._shop.load_balancers(), "the old load balancer to go", timeout_seconds=120
        )
        self._helm(CHART_BACK)
        self._shop.kubectl("rollout", "status", "deployment/shopcat", "-n", NAMESPACE, "--timeout=120s")
        processes.wait_until(self._shop.serves, "a page through the Ingress that came back", timeout_seconds=120)
        self._helm(CHART_GOES)
        self._helm(RECORDS_GO)
        processes.wait_until(
            lambda: not self._shop.load_balancers(), "the old load balancer to go", timeout_seconds=120
        )
        # Those that came back: `pulumi up` refuses to tighten the namespace around them.
        self._shop.kubectl("wait", "pods", "-n", NAMESPACE, "-l", "app=shopcat", "--for=delete", "--timeout=180s")
        return "gone, came back and served, gone again"

    def helm_releases(self) -> list[str]:
        """Return the names of Helm's releases in the shop's namespace."""
        listed: list[dict[str, Any]] = json.loads(self._in_chart([f"helm list --all -n {NAMESPACE} -o json"]))
        return [str(release["name"]) for release in listed]

    # Running ----------------------------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        people = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {
            **os.environ,
            **pulumi.environment(self._shop.twin),
            "AWS_DEFAULT_REGION": config.region(),
            "AWS_PAGER": "",
            "TF_CLI_ARGS": "-no-color",
            "SHOPCAT": str(REPOSITORY),
            "BUCKET": _BUCKET,
            **people,
        }

    def _run(self, title: str, *, allowed: tuple[int, ...] = (0,), again: bool = False) -> str:
        """Run a heading's commands; ``again`` after a kill: what is out of the state already is no error, as the guide says."""
        commands = guide.blocks()[title]
        if again:
            commands = [f"{line} || true" if line.startswith("terraform state rm ") else line for line in commands]
        return self._terraform(commands, allowed)

    def _killed(self, title: str, seconds: float) -> None:
        result = guide.run(
            guide.blocks()[title], self._shop.terraform_directory, self._terraform_environment(), stop_after=seconds
        )
        self.kills += result.returncode < 0

    def _terraform_environment(self) -> dict[str, str]:
        # The aws command that a person has, and not the twin's, which knows a few operations alone.
        return {**self._environment(), "PATH": os.environ["PATH"]}

    def _terraform(self, commands: list[str], allowed: tuple[int, ...] = (0,)) -> str:
        result = guide.run(commands, self._shop.terraform_directory, self._terraform_environment())
        if result.returncode not in allowed:
            raise TwinError(f"{commands[0]} … ended with {result.returncode}:\n{result.stdout}")
        return result.stdout

    def _helm(self, title: str) -> str:
        return self._in_chart(guide.blocks()[title])

    def _in_chart(self, commands: list[str]) -> str:
        result = guide.run(commands, self._chart, self._environment())
        if result.returncode != 0:
            raise TwinError(f"{commands[0]} … ended with {result.returncode}:\n{result.stdout}")
        return result.stdout
