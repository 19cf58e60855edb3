"""Once per account, before the first `pulumi up` (``make bootstrap``): what no stack may own.

State buckets for production and for previews (versioned, encrypted, private), a key for each that encrypts secrets in
state, the release ledger (with point-in-time recovery and deletion protection), and GitHub's OIDC provider. Every step
looks first and makes only what is missing, so it can run again at any time.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import backends, settings
from infra.aws_clients import AwsClients, error_code, explain
from infra.errors import Refused
from infra.ledger import Ledger, table_definition
from infra.permissions import AUDIENCE, ISSUER

RECOVERY_ATTEMPTS = 13
RECOVERY_PAUSE_SECONDS = 5
"""A minute in all: a table that is ACTIVE refuses recovery with ContinuousBackupsUnavailableException for some seconds
(docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateContinuousBackups.html, errors)."""


@dataclass(frozen=True)
class Step:
    """Something that must be there."""

    title: str
    present: Callable[[], bool]
    make: Callable[[], None]


class Bootstrap:
    """The steps, for one account and region."""

    def __init__(self, clients: AwsClients, account: str, ledger_table: str) -> None:
        self._clients = clients
        self._account = account
        self._table = ledger_table

    def bucket(self, stack: str) -> str:
        """The bucket of a stack's state in this account and region."""
        return backends.bucket(stack, self._account, self._clients.region)

    def alias(self, stack: str) -> str:
        """Name of the key that encrypts a stack's secrets and state."""
        return backends.alias(stack)

    def steps(self) -> list[Step]:
        """In the order they are needed: keys before the buckets they encrypt."""
        found: list[Step] = []
        for stack in backends.STACKS:
            key, bucket = functools.partial(self._make_key, stack), functools.partial(self._make_bucket, stack)
            found.append(Step(f"KMS key {self.alias(stack)}", self._has_key(stack), key))
            found.append(Step(f"S3 bucket {self.bucket(stack)}", self._has_bucket(stack), bucket))
        found.append(Step(f"DynamoDB table {self._table} (release ledger)", self._has_table, self._make_table))
        found.append(Step(f"OIDC provider {ISSUER}", self._has_issuer, self._make_issuer))
        return found

    def run(self, say: Callable[[str], None]) -> int:
        """Make what is missing; returns how many things that were.

        Raises:
            Refused: AWS says no; the message says to what and why.
        """
        made = 0
        try:
            for step in self.steps():
                if step.present():
                    say(f"there already: {step.title}")
                else:
                    say(f"making:        {step.title}")
                    step.make()
                    made += 1
            self._complete_table()
        except (BotoCoreError, ClientError) as error:
            raise explain(error, "bootstrap", self._clients.endpoint_url) from error
        return made

    def next_step(self) -> str:
        """How to go on, with this account's own names."""
        region = self._clients.region
        return (
            f"next:\n  pulumi login s3://{self.bucket('prod')}?region={region}\n"
            f"  pulumi stack init prod --secrets-provider 'awskms://{self.alias('prod')}?region={region}'\n"
            "  pulumi up -s prod"
        )

    def _has_key(self, stack: str) -> Callable[[], bool]:
        def present() -> bool:
            pages = self._clients.get("kms").get_paginator("list_aliases").paginate()
            return any(one["AliasName"] == self.alias(stack) for page in pages for one in page["Aliases"])

        return present

    def _make_key(self, stack: str) -> None:
        kms = self._clients.get("kms")
        key = kms.create_key(Description=f"Pulumi state and secrets of ShopCat, {stack}")["KeyMetadata"]["KeyId"]
        kms.enable_key_rotation(KeyId=key)
        kms.create_alias(AliasName=self.alias(stack), TargetKeyId=key)

    def _has_bucket(self, stack: str) -> Callable[[], bool]:
        def present() -> bool:
            try:
                self._clients.get("s3").head_bucket(Bucket=self.bucket(stack))
            except ClientError as error:
                if error_code(error) in ("404", "NoSuchBucket", "NotFound"):
                    return False
                raise
            return True

        return present

    def _make_bucket(self, stack: str) -> None:
        s3, name = self._clients.get("s3"), self.bucket(stack)
        place: dict[str, Any] = {}
        if self._clients.region != "us-east-1":  # S3 refuses a constraint for its oldest region
            place["CreateBucketConfiguration"] = {"LocationConstraint": self._clients.region}
        s3.create_bucket(Bucket=name, **place)
        s3.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        encryption = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": self.alias(stack)}
        s3.put_bucket_encryption(
            Bucket=name,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": encryption, "BucketKeyEnabled": True}]
            },
        )
        only_tls = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [only_tls]}))

    def _has_table(self) -> bool:
        try:
            self._clients.get("dynamodb").describe_table(TableName=self._table)
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                return False
            raise
        return True

    def _make_table(self) -> None:
        dynamodb = self._clients.get("dynamodb")
        dynamodb.create_table(**table_definition(self._table))
        dynamodb.get_waiter("table_exists").wait(TableName=self._table)

    def _complete_table(self) -> None:
        """Recovery and the empty ledger; also mends a run that was cut off after the table was made."""
        dynamodb = self._clients.get("dynamodb")
        self._enable_recovery(dynamodb)
        Ledger(dynamodb, self._table).initialise()

    def _enable_recovery(self, dynamodb: Any) -> None:
        """Point-in-time recovery; asked for again while DynamoDB still prepares backups of a new table."""
        for attempt in range(1, RECOVERY_ATTEMPTS + 1):
            try:
                dynamodb.update_continuous_backups(
                    TableName=self._table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
                )
            except ClientError as error:
                if error_code(error) != "ContinuousBackupsUnavailableException":
                    raise
                if attempt == RECOVERY_ATTEMPTS:
                    raise Refused(
                        f"DynamoDB table {self._table} (release ledger) has no point-in-time recovery yet: {error}; "
                        "run `make bootstrap` again in some minutes"
                    ) from error
                time.sleep(RECOVERY_PAUSE_SECONDS)
            else:
                return

    def _has_issuer(self) -> bool:
        found = self._clients.get("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
        return any(one["Arn"].endswith(f"/{ISSUER}") for one in found)

    def _make_issuer(self) -> None:
        self._clients.get("iam").create_open_id_connect_provider(Url=f"https://{ISSUER}", ClientIDList=[AUDIENCE])


def main() -> int:
    """``python -m infra.bootstrap``; PULUMI_OPTION_CONFIG_FILE names another stack file, as for pulumi itself."""
    path = Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml"))
    try:
        region, given = settings.read_stack(path)
        clients = AwsClients(region, endpoint_url=given.aws_endpoint)
        account, caller = clients.identity()
        print(f"account {account}, region {region}, as {caller}")
        bootstrap = Bootstrap(clients, account, given.ledger_table)
        made = bootstrap.run(print)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{made} made, nothing else changed")
    print(bootstrap.next_step())
    return 0


if __name__ == "__main__":
    sys.exit(main())
