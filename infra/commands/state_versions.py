"""``make state-versions``: the versions that S3 keeps of production's state file, and one of them put back.

The state's bucket is versioned (`make bootstrap`), so a file that was deleted or overwritten is there still. A version that is
put back becomes the newest one; none is deleted. Pulumi writes the file at each step of an update (pulumi/pulumi, pkg/backend/
snapshot.go), so the list leaves out what a newer version replaced within minutes; any version may be put back.

The ledger and the cluster decide what a release does, so an older state goes on too (docs/runbook.md); what was made since is
named by the next `pulumi up -s prod`, with the command that imports it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from infra import settings
from infra.clients.aws import AwsClients, explain
from infra.errors import PreflightError, ShopCatError
from infra.names import PRODUCTION_STACK, PROJECT, state_bucket

STATE_KEY = f".pulumi/stacks/{PROJECT}/{PRODUCTION_STACK}.json"
"""Name of the file (pulumi/pulumi, pkg/backend/diy/store.go, projectReferenceStore)."""
LOCKS = f".pulumi/locks/organization/{PROJECT}/{PRODUCTION_STACK}/"
"""Begin of the names of locks, one for an update that runs (pkg/backend/diy/lock.go, stackLockDir)."""
SHOWN = 10
STOOD_SECONDS = 300
"""How long a version stood that is not only a step of an update."""


@dataclass(frozen=True)
class Version:
    """One version of the state file, as S3 lists it."""

    identifier: str
    written: datetime
    is_current: bool


def count_resources(text: bytes) -> int:
    """Return how many resources a state file holds; 0 for anything that is none."""
    try:
        latest = json.loads(text)["checkpoint"]["latest"]
        return len(latest["resources"]) if latest else 0
    except (KeyError, TypeError, ValueError):
        return 0


def choose(versions: Sequence[Version], wanted: str) -> Version:
    """Return the version whose id begins with this.

    Raises:
        PreflightError: none has it, or several have.
    """
    found = [version for version in versions if version.identifier.startswith(wanted)]
    if len(found) != 1:
        raise PreflightError(
            f"{len(found)} versions of the state begin with {wanted[:40]!r}; `make state-versions` lists them"
        )
    return found[0]


def which_stood(versions: Sequence[Version]) -> list[Version]:
    """Return the newest version, and those that stood for a while before a newer one replaced them.

    Args:
        versions: newest first.
    """
    least = timedelta(seconds=STOOD_SECONDS)
    return [
        *versions[:1],
        *(older for newer, older in pairwise(versions) if newer.written - older.written >= least),
    ]


def version_line(version: Version, resources: int) -> str:
    """Return a version in one line."""
    return (
        f"{version.identifier}  {version.written.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC  {resources:>4} resources"
        f"{'  the present one' if version.is_current else ''}"
    )


class StateVersions:
    """The state file's versions in its bucket."""

    def __init__(self, clients: AwsClients, bucket: str) -> None:
        self._clients, self._bucket = clients, bucket
        self._s3 = clients.get("s3")

    def listed(self) -> list[Version]:
        """Return all versions, newest first.

        Raises:
            ShopCatError: S3 says no, or there is no version at all.
        """
        try:
            pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=STATE_KEY)
            found = [
                Version(str(each["VersionId"]), each["LastModified"], bool(each["IsLatest"]))
                for page in pages
                for each in page.get("Versions", [])
                if each["Key"] == STATE_KEY
            ]
        except (BotoCoreError, ClientError) as error:
            raise explain(error, f"versions of s3://{self._bucket}/{STATE_KEY}", self._clients.endpoint_url) from error
        if not found:
            raise PreflightError(
                f"s3://{self._bucket} has no version of {STATE_KEY}; the state is then rebuilt by imports (docs/restore.md)"
            )
        return sorted(found, key=lambda each: (each.written, each.is_current), reverse=True)

    def resources(self, version: Version) -> int:
        """Read a version and return how many resources it holds; 0 for a file that Pulumi can't use.

        Raises:
            ShopCatError: S3 says no.
        """
        try:
            found = self._s3.get_object(Bucket=self._bucket, Key=STATE_KEY, VersionId=version.identifier)
            return count_resources(found["Body"].read())
        except (BotoCoreError, ClientError) as error:
            raise explain(error, f"version {version.identifier} of the state", self._clients.endpoint_url) from error

    def put_back(self, version: Version) -> int:
        """Make a version the newest one, and return how many resources it holds; nothing is deleted.

        Raises:
            ShopCatError: it holds none, an update may be running, or S3 says no.
        """
        resources = self.resources(version)
        if not resources:
            raise PreflightError(f"version {version.identifier} of the state holds no resource; choose another")
        source = {"Bucket": self._bucket, "Key": STATE_KEY, "VersionId": version.identifier}
        try:
            locks = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=LOCKS).get("Contents", [])
            if locks:
                raise PreflightError(
                    "an update holds the stack's lock and would write its own state over this one; run it again when that has "
                    f"ended, or where it was killed first `aws s3 rm s3://{self._bucket}/{locks[0]['Key']}`"
                )
            self._s3.copy_object(Bucket=self._bucket, Key=STATE_KEY, CopySource=source)
        except (BotoCoreError, ClientError) as error:
            raise explain(error, f"s3://{self._bucket}/{STATE_KEY}", self._clients.endpoint_url) from error
        return resources


def main() -> int:
    """Run ``python -m infra.commands.state_versions [version]``: list them, or put one back."""
    path = Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml"))
    try:
        region, production = settings.read_stack(path)
        clients = AwsClients(region, endpoint_url=production.aws_endpoint)
        versions = StateVersions(clients, state_bucket(PRODUCTION_STACK, clients.identity()[0], region))
        listed = versions.listed()
        if len(sys.argv) == 1:
            for each in which_stood(listed)[:SHOWN]:
                print(version_line(each, versions.resources(each)))
            print(f"{len(listed)} in all, back to {listed[-1].written.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
            return 0
        chosen = choose(listed, sys.argv[1])
        resources = versions.put_back(chosen)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"version {chosen.identifier} with {resources} resources is the present one; next: pulumi preview -s prod")
    return 0


if __name__ == "__main__":
    sys.exit(main())
