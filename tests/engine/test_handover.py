"""docs/takeover-handover.md with the real Terraform: legacy/terraform on moto, each command as the guide has it.

Terraform takes its AWS provider from where its own configuration (TF_CLI_CONFIG_FILE) says; without one these tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from twin.paths import REPOSITORY
from twin.scenarios import guide

pytestmark = pytest.mark.engine

REGION = "eu-central-1"
BUCKET = "handover-backups"
READ = "-var=shopcat_keeper=terraform"
HANDED_OVER = {
    "aws_db_instance.shopcat",
    "aws_db_subnet_group.shopcat",
    "aws_security_group.database",
    "aws_ecr_repository.shopcat",
}
FREEZE, BACK_UP = "1. Freeze", "2. Back up"
DATABASE, REPOSITORY_STEP = "3. The database leaves Terraform's state", "4. The repository leaves Terraform's state"
CHECK = "5. Check, after step 3 and after step 4"
KEEP, GIVE_UP, TAKE_AGAIN = (
    "Terraform keeps network and cluster",
    "Nobody keeps them",
    "Network and cluster come back",
)
BACK, BACK_BY_IMPORT = "With the back-up", "Without it"
TERRAFORM = {FREEZE, BACK_UP, DATABASE, REPOSITORY_STEP, CHECK, KEEP, GIVE_UP, TAKE_AGAIN, BACK, BACK_BY_IMPORT}
MOTO = """
import threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""
MOTO_DIFFERS = {
    # moto has no security group of the cluster.
    ("rds.tf", "    security_groups = [aws_eks_cluster.shopcat.vpc_config[0].cluster_security_group_id]"): (
        "    cidr_blocks     = [aws_vpc.shopcat.cidr_block]"
    ),
    # moto gives a node group a key pair and a version of its own.
    ("eks.tf", "  depends_on = [aws_iam_role_policy_attachment.nodes]"): (
        "  depends_on = [aws_iam_role_policy_attachment.nodes]\n\n  lifecycle {\n    ignore_changes = all\n  }"
    ),
}


@dataclass
class Folder:
    """The old repository's Terraform folder, and the AWS that it made."""

    path: Path
    environment: dict[str, str]

    def step(self, *titles: str, stop_after: float | None = None) -> str:
        for title in titles:
            result = guide.run(guide.blocks()[title], self.path, self.environment, stop_after=stop_after)
            assert stop_after or result.returncode == 0, f"{title}\n{result.stdout}"
        return result.stdout

    def terraform(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return guide.run([f"terraform {' '.join(arguments)}"], self.path, self.environment)

    def addresses(self) -> set[str]:
        return set(self.terraform("state", "list").stdout.split())

    def aws(self) -> dict[str, Any]:
        """What AWS says of all that the old layout has."""
        found: dict[str, Any] = {}
        for service, operations in (
            ("ec2", ("vpcs", "subnets", "security_groups", "route_tables", "nat_gateways", "addresses")),
            ("rds", ("db_instances", "db_subnet_groups")),
            ("ecr", ("repositories",)),
        ):
            client = self.client(service)
            for operation in operations:
                found[operation] = getattr(client, f"describe_{operation}")()
        eks, iam = self.client("eks"), self.client("iam")
        found["cluster"] = eks.describe_cluster(name="shopcat")
        found["nodes"] = eks.describe_nodegroup(clusterName="shopcat", nodegroupName="nodes")
        found["roles"] = iam.list_roles()
        found["attached"] = iam.list_attached_role_policies(RoleName="shopcat-nodes")
        for answer in found.values():
            del answer["ResponseMetadata"]
        for instance in found["db_instances"]["DBInstances"]:
            del instance["LatestRestorableTime"]  # the time of the question
        return found

    def client(self, service: str) -> Any:
        environment = self.environment
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name=REGION,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    environment = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    process = subprocess.Popen(
        [sys.executable, "-c", MOTO], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def applied(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """legacy/terraform as its README says it was applied to moto, in a git checkout of its own."""
    for tool in ("terraform", "aws", "git"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on PATH")
    path = tmp_path_factory.mktemp("handover") / "terraform"
    shutil.copytree(REPOSITORY / "legacy" / "terraform", path)
    for (name, old), new in MOTO_DIFFERS.items():
        text = (path / name).read_text()
        assert text.count(old) == 1
        (path / name).write_text(text.replace(old, new))
    (path / ".gitignore").write_text(".terraform*\n*.tfstate*\n")
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": moto,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "CHECKPOINT_DISABLE": "1",
        "TF_CLI_ARGS": "-no-color",
        "TF_VAR_database_password": "an-example-password",
        "SHOPCAT": str(REPOSITORY),
        "BUCKET": BUCKET,
        **{f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    environment.pop("TF_INPUT", None)
    folder = Folder(path, environment)
    initialised = folder.terraform("init", "-input=false")
    if initialised.returncode != 0:
        pytest.skip(f"terraform has no AWS provider: {initialised.stdout}")
    s3 = folder.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    made = folder.terraform("apply", "-auto-approve", "-input=false")
    assert made.returncode == 0, made.stdout
    # What AWS fills in after the first apply is in the state from the second on.
    refreshed = folder.terraform("apply", "-refresh-only", "-auto-approve")
    assert refreshed.returncode == 0, refreshed.stdout
    committed = guide.run(["git init -q", "git add .", "git commit -qm old"], path, environment)
    assert committed.returncode == 0, committed.stdout
    return folder


def copied(folder: Folder, target: Path) -> Folder:
    """A copy with a state of its own; AWS is the same one, which no step may change."""
    shutil.copytree(folder.path, target, symlinks=True)
    return Folder(target, folder.environment)


@pytest.fixture(scope="module")
def frozen_once(applied: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = copied(applied, tmp_path_factory.mktemp("frozen") / "terraform")
    folder.step(FREEZE, BACK_UP)
    return folder


@pytest.fixture(scope="module")
def handed_over_once(frozen_once: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = copied(frozen_once, tmp_path_factory.mktemp("handed-over") / "terraform")
    folder.step(DATABASE, REPOSITORY_STEP, CHECK)
    committed = guide.run(["git commit --all --quiet -m 'handed over'"], folder.path, folder.environment)
    assert committed.returncode == 0, committed.stdout
    return folder


@pytest.fixture
def shop(applied: Folder, tmp_path: Path) -> Folder:
    """The folder before the first step."""
    return copied(applied, tmp_path / "terraform")


@pytest.fixture
def frozen(frozen_once: Folder, tmp_path: Path) -> Folder:
    """The folder after steps 1 and 2."""
    return copied(frozen_once, tmp_path / "terraform")


@pytest.fixture
def handed_over(handed_over_once: Folder, tmp_path: Path) -> Folder:
    """The folder after step 5."""
    return copied(handed_over_once, tmp_path / "terraform")


def test_each_step_leaves_aws_alone_and_ends_with_no_changes(shop: Folder) -> None:
    before, addresses = shop.aws(), shop.addresses()
    assert addresses >= HANDED_OVER
    assert "No changes" in shop.step(FREEZE)
    assert "Enabled" in shop.step(BACK_UP)
    (kept,) = shop.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="handover/")["Contents"]
    stored = shop.client("s3").get_object(Bucket=BUCKET, Key=kept["Key"])["Body"].read()
    assert len(json.loads(stored)["resources"]) > len(HANDED_OVER)
    assert stored == (shop.path / "before-handover.tfstate").read_bytes()
    for step, gone in (
        (DATABASE, {address for address in HANDED_OVER if "ecr" not in address}),
        (REPOSITORY_STEP, HANDED_OVER),
    ):
        shop.step(step)
        assert "No changes" in shop.step(CHECK)
        assert shop.addresses() == addresses - gone
        assert shop.aws() == before
    assert set(json.loads(shop.terraform("output", "-json").stdout)) == {"cluster_name"}


@pytest.mark.parametrize(
    "command", ["plan", "apply -auto-approve", "destroy -auto-approve", "apply -refresh-only -auto-approve"]
)
def test_the_guard_refuses_what_changes_something(frozen: Folder, command: str) -> None:
    before, state = frozen.aws(), (frozen.path / "terraform.tfstate").read_text()
    result = frozen.terraform(command)
    assert result.returncode == 1
    assert "ShopCat's database and repository belong to Pulumi" in " ".join(result.stdout.replace("│", " ").split())
    assert frozen.aws() == before
    assert (frozen.path / "terraform.tfstate").read_text() == state


def test_a_plan_from_before_the_handover_is_stale_after_it(shop: Folder) -> None:
    assert shop.terraform("plan", "-destroy", "-out=old.tfplan").returncode == 0
    before = shop.aws()
    shop.step(FREEZE, BACK_UP, DATABASE)
    result = shop.terraform("apply", "old.tfplan")
    assert result.returncode == 1
    assert "Saved plan is stale" in result.stdout
    assert shop.aws() == before


def test_a_block_without_state_rm_is_told_by_the_check_and_not_carried_out(frozen: Folder) -> None:
    """The mistake that would delete the database: its block is gone and its state is not."""
    (forgotten,) = [line for line in guide.blocks()[DATABASE] if line.startswith("terraform")]
    before = frozen.aws()
    rest = [line for line in guide.blocks()[DATABASE] if line != forgotten]
    assert guide.run(rest, frozen.path, frozen.environment).returncode == 0
    result = guide.run(guide.blocks()[CHECK], frozen.path, frozen.environment)
    assert result.returncode == 2
    assert "3 to destroy" in result.stdout
    assert frozen.aws() == before
    # The mend that the guide names.
    assert guide.run([forgotten], frozen.path, frozen.environment).returncode == 0
    assert "No changes" in frozen.step(CHECK)


@pytest.mark.parametrize("seconds", [0.5, 1.5, None])
def test_a_step_that_is_killed_is_gone_on_with(frozen: Folder, seconds: float | None) -> None:
    """Killed after so many seconds, or between the change of the state and those of the files (None)."""
    before, addresses = frozen.aws(), frozen.addresses()
    first, *files = guide.blocks()[DATABASE]
    if seconds is None:
        assert guide.run([first], frozen.path, frozen.environment).returncode == 0
    else:
        frozen.step(DATABASE, stop_after=seconds)
    left = frozen.addresses()
    database = {address for address in HANDED_OVER if "ecr" not in address}
    assert left in (addresses, addresses - database), "one write takes all of them, or none"
    again = guide.run([first], frozen.path, frozen.environment)
    if left == addresses:
        assert again.returncode == 0, again.stdout
    else:
        assert again.returncode == 1
        assert "No matching objects found" in again.stdout
    remaining = [line for line in files if not line.startswith("rm ") or (frozen.path / "rds.tf").exists()]
    assert guide.run(remaining, frozen.path, frozen.environment).returncode == 0
    frozen.step(CHECK, stop_after=seconds or 1.0)
    assert "No changes" in frozen.step(CHECK)
    assert frozen.addresses() == addresses - database
    assert frozen.aws() == before


def test_the_backup_brings_everything_back(handed_over: Folder) -> None:
    before = handed_over.aws()
    without_force = [line.replace(" -force", "") for line in guide.blocks()[BACK]]
    refused = guide.run(without_force, handed_over.path, handed_over.environment)
    assert "serial" in refused.stdout, "or the guide needs no -force"
    assert "No changes" in handed_over.step(BACK)
    assert handed_over.addresses() >= HANDED_OVER
    (handed_over.path / "guard.tf").unlink()
    assert handed_over.terraform("plan", "-detailed-exitcode").returncode == 0
    assert handed_over.aws() == before


def test_without_the_backup_nothing_is_made_or_destroyed(handed_over: Folder) -> None:
    before = handed_over.aws()
    handed_over.step(BACK_BY_IMPORT)
    assert handed_over.addresses() >= HANDED_OVER
    planned = handed_over.terraform("plan", READ, "-out=back.tfplan")
    assert planned.returncode == 0, planned.stdout
    plan = json.loads(handed_over.terraform("show", "-json", "back.tfplan").stdout)
    actions = {change["address"]: change["change"]["actions"] for change in plan["resource_changes"]}
    assert {address for address, steps in actions.items() if steps != ["no-op"]} <= HANDED_OVER
    assert {step for steps in actions.values() for step in steps} == {"no-op", "update"}
    (database,) = [one["change"] for one in plan["resource_changes"] if one["address"] == "aws_db_instance.shopcat"]
    assert database["after"]["password"] != database["before"]["password"], "or the guide needs no warning"
    assert handed_over.aws() == before


def test_terraform_keeps_network_and_cluster(handed_over: Folder) -> None:
    before = handed_over.aws()
    assert "No changes" in handed_over.step(KEEP)
    assert {"aws_vpc.shopcat", "aws_eks_cluster.shopcat"} <= handed_over.addresses()
    assert handed_over.aws() == before


def test_nobody_keeps_network_and_cluster(handed_over: Folder) -> None:
    before, addresses = handed_over.aws(), handed_over.addresses()
    handed_over.step(GIVE_UP)
    assert handed_over.addresses() == set()
    assert handed_over.terraform("plan").returncode == 1
    assert "No changes" in handed_over.step(TAKE_AGAIN)
    assert handed_over.addresses() == addresses
    assert handed_over.aws() == before


def test_what_pulumi_changed_already_stays_as_it_is(shop: Folder) -> None:
    """As after a real `pulumi up`: Terraform would set back what differs, until the thing has left its state."""
    rds, ecr = shop.client("rds"), shop.client("ecr")

    def change(*, back: bool) -> None:
        rds.modify_db_instance(DBInstanceIdentifier="shopcat", DeletionProtection=not back)
        ecr.put_image_tag_mutability(repositoryName="shopcat", imageTagMutability="MUTABLE" if back else "IMMUTABLE")

    change(back=False)
    try:
        before = shop.aws()
        result = guide.run(guide.blocks()[FREEZE], shop.path, shop.environment)
        assert result.returncode == 2
        assert "Plan: 0 to add, 2 to change, 0 to destroy" in result.stdout
        shop.step(BACK_UP, DATABASE, REPOSITORY_STEP)
        assert "No changes" in shop.step(CHECK)
        assert shop.aws() == before
    finally:
        change(back=True)


def test_the_workflow_refuses_what_takes_the_guard_away(tmp_path: Path) -> None:
    workflow = yaml.safe_load((REPOSITORY / "legacy" / "handover" / "guard.yml").read_text())
    present, nothing_of_pulumi = [step["run"] for step in workflow["jobs"]["guard"]["steps"] if "run" in step]

    def ends_well(script: str) -> bool:
        return subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, check=False).returncode == 0

    folder = tmp_path / "terraform"
    shutil.copytree(REPOSITORY / "legacy" / "terraform", folder)
    assert not ends_well(present)
    assert not ends_well(nothing_of_pulumi)
    shutil.copy(REPOSITORY / "legacy" / "handover" / "guard.tf", folder)
    assert ends_well(present)
    files = [line for title in (DATABASE, REPOSITORY_STEP) for line in guide.blocks()[title]]
    for line in files:
        if not line.startswith("terraform "):
            subprocess.run(["bash", "-e", "-c", line], cwd=folder, check=True)
    assert ends_well(nothing_of_pulumi)
    remains = re.findall(r'^resource "(\w+)"', (folder / "eks.tf").read_text(), re.MULTILINE)
    assert "aws_eks_cluster" in remains
    assert "aws_ecr_repository" not in remains
