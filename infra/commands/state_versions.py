"""``make state-versions``: the versions that S3 keeps of production's state file, and one of them put back.

The state's bucket is versioned (`make bootstrap`), so a file that was deleted or overwritten is there still. A version that is
put back becomes the newest one; none is deleted. The ledger and the cluster decide what a release does, so an older state goes on
too (docs/runbook.md); what was made since is named by the next `pulumi up -s prod`, with the command that imports it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import settings
from infra.clients.aws import AwsClients, explain
from infra.errors import PreflightError, ShopCatError
from infra.names import PRODUCTION_STACK, PROJECT, state_bucket

STATE_KEY = f".pulumi/stacks/{PROJECT}/{PRODUCTION_STACK}.json"
"""Name of the file (pulumi/pulumi, pkg/backend/diy/store.go, projectReferenceStore)."""
SHOWN = 10


@dataclass(frozen=True)
class Version:
    """One version of the state file."""

    identifier: str
    written: datetime
    resources: int
    """Number of resources in it; 0 for a file that Pulumi can't use."""
    is_current: bool


def count_resources(text: bytes) -> int:
    """Return how many resources a state file holds; 0 for anything that is none."""
    try:
        latest = json.loads(text)["checkpoint"]["latest"]
        return len(latest["resources"]) if latest else 0
    except (KeyError, TypeError, ValueError):
        return 0


def choose(versions: list[Version], wanted: str) -> Version:
    """Return the version to put back.

    Args:
        versions: newest first.
        wanted: begin of its id.

    Raises:
        PreflightError: none has it, several have, or what has it is no state.
    """
    found = [version for version in versions if version.identifier.startswith(wanted)]
    if len(found) != 1:
        raise PreflightError(
            f"{len(found)} versions of the state begin with {wanted[:40]!r}; `make state-versions` lists them"
        )
    if not found[0].resources:
        raise PreflightError(f"version {found[0].identifier} of the state holds no resource; choose another")
    return found[0]


def version_lines(versions: list[Version]) -> list[str]:
    """Return one line for each version, newest first."""
    return [
        f"{each.identifier}  {each.written.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC  {each.resources:>4} resources"
        f"{'  the present one' if each.is_current else ''}"
        for each in versions
    ]


class StateVersions:
    """The state file's versions in its bucket."""

    def __init__(self, clients: AwsClients, bucket: str) -> None:
        self._clients, self._bucket = clients, bucket
        self._s3 = clients.get("s3")

    def newest(self, most: int = SHOWN) -> list[Version]:
        """Return the newest versions, newest first; each is read.

        Raises:
            ShopCatError: S3 says no, or there is no version at all.
        """
        try:
            pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=STATE_KEY)
            listed = [each for page in pages for each in page.get("Versions", []) if each["Key"] == STATE_KEY]
            listed.sort(key=lambda each: (each["LastModified"], each["IsLatest"]), reverse=True)
            found = [self._version(each) for each in listed[:most]]
        except (BotoCoreError, ClientError) as error:
            raise explain(error, f"versions of s3://{self._bucket}/{STATE_KEY}", self._clients.endpoint_url) from error
        if not found:
            raise PreflightError(
                f"s3://{self._bucket} has no version of {STATE_KEY}; the state is then rebuilt by imports (docs/restore.md)"
            )
        return found

    def _version(self, listed: Mapping[str, Any]) -> Version:
        body = self._s3.get_object(Bucket=self._bucket, Key=STATE_KEY, VersionId=listed["VersionId"])["Body"].read()
        return Version(
            str(listed["VersionId"]), listed["LastModified"], count_resources(body), bool(listed["IsLatest"])
        )

    def put_back(self, version: Version) -> None:
        """Make a version the newest one; nothing is deleted.

        Raises:
            ShopCatError: S3 says no.
        """
        source = {"Bucket": self._bucket, "Key": STATE_KEY, "VersionId": version.identifier}
        try:
            self._s3.copy_object(Bucket=self._bucket, Key=STATE_KEY, CopySource=source)
        except (BotoCoreError, ClientError) as error:
            raise explain(error, f"s3://{self._bucket}/{STATE_KEY}", self._clients.endpoint_url) from error


def main() -> int:
    """Run ``python -m infra.commands.state_versions [version]``: list them, or put one back."""
    path = Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml"))
    try:
        region, production = settings.read_stack(path)
        clients = AwsClients(region, endpoint_url=production.aws_endpoint)
        versions = StateVersions(clients, state_bucket(PRODUCTION_STACK, clients.identity()[0], region))
        newest = versions.newest()
        if len(sys.argv) == 1:
            print("\n".join(version_lines(newest)))
            return 0
        chosen = choose(newest, sys.argv[1])
        versions.put_back(chosen)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"version {chosen.identifier} with {chosen.resources} resources is the present one; next: pulumi preview -s prod"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
