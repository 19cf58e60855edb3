"""Make what no stack may own, once per account, before the first `pulumi up` (``make bootstrap``).

State buckets for production and for previews, a key for each that encrypts secrets in state, the release ledger, the
permissions boundary of every role, and GitHub's OIDC provider. Each is a list of properties. Every run asks for every
property and sets those that don't hold, so a run that was cut off, or a change by hand, is mended by the next one, which says
what it changed. What others added stays: further statements of a bucket's or key's policy, further audiences.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import settings
from infra.access import boundary
from infra.access.iam_policies import AwsScope
from infra.clients.aws import AwsClients, error_code, explain
from infra.commands import bootstrap_iam
from infra.commands.kept_resources import KeptProperty, KeptResource
from infra.commands.policy_statements import by_iam, only_tls, with_statement
from infra.errors import PreflightError, ShopCatError
from infra.names import STATE_BACKENDS, state_bucket, state_key_alias
from infra.release.ledger import HEAD, KEY, Ledger, table_definition

RECOVERY_ATTEMPTS = 13
RECOVERY_PAUSE_SECONDS = 5
"""A minute in all: a table that is ACTIVE refuses recovery with ContinuousBackupsUnavailableException for some seconds
(docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateContinuousBackups.html, errors)."""

BLOCK_PUBLIC_ACCESS = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}


class Bootstrap:
    """The resources of one account and region."""

    def __init__(self, clients: AwsClients, account: str, ledger_table: str) -> None:
        self._clients = clients
        self._account = account
        self._table = ledger_table
        # A boundary holds actions alone, so the cluster's name is none of its business.
        self._scope = AwsScope(account, clients.region, "*", ledger_table)

    def bucket(self, stack: str) -> str:
        """Return the bucket of a stack's state in this account and region."""
        return state_bucket(stack, self._account, self._clients.region)

    def alias(self, stack: str) -> str:
        """Return the name of the key that encrypts a stack's secrets and state."""
        return state_key_alias(stack)

    def resources(self) -> Iterator[KeptResource]:
        """Yield the resources in the order they are needed: keys before the buckets they encrypt."""
        for stack in STATE_BACKENDS:
            yield self._key(stack)
            yield self._bucket(stack)
        yield self._ledger()
        for name, document in boundary.documents(self._scope).items():
            yield bootstrap_iam.role_boundary(self._clients, self._account, name, document)
        yield bootstrap_iam.issuer(self._clients, self._account)

    def run(self, say: Callable[[str], None]) -> int:
        """Set every property that doesn't hold, saying which; returns how many those were.

        Raises:
            ShopCatError: AWS says no, or something stands in the way that this must not touch; the message says what mends it.
        """
        changes = 0
        try:
            for resource in self.resources():
                changed = []
                for wanted in resource.properties:
                    if not wanted.holds():
                        wanted.make()
                        changed.append(wanted.name)
                say(f"set: {resource.title}: {', '.join(changed)}" if changed else f"as it should be: {resource.title}")
                changes += len(changed)
        except (BotoCoreError, ClientError) as error:
            raise explain(error, "bootstrap", self._clients.endpoint_url) from error
        return changes

    def next_step(self) -> str:
        """Return the commands that come next, with this account's own names."""
        region = self._clients.region
        return (
            f"next:\n  pulumi login s3://{self.bucket('prod')}?region={region}\n"
            f"  pulumi stack init prod --secrets-provider 'awskms://{self.alias('prod')}?region={region}'\n"
            "  pulumi up -s prod"
        )

    # Keys -------------------------------------------------------------------------------------------------------------

    def _key(self, stack: str) -> KeptResource:
        kms, alias = self._clients.get("kms"), self.alias(stack)

        def policy() -> str | None:
            current = kms.get_key_policy(KeyId=self._key_id(stack), PolicyName="default")["Policy"]
            return with_statement(current, by_iam(self._account))

        def enabled() -> bool:
            self._refuse_other_kinds(stack)
            return bool(self._metadata(stack)["KeyState"] == "Enabled")

        def enable() -> None:
            if self._metadata(stack)["KeyState"] == "PendingDeletion":
                kms.cancel_key_deletion(KeyId=self._key_id(stack))  # leaves it disabled
            kms.enable_key(KeyId=self._key_id(stack))

        return KeptResource(
            f"KMS key {alias}",
            (
                KeptProperty("made", lambda: bool(self._key_id(stack)), lambda: self._make_key(stack)),
                KeptProperty("enabled", enabled, enable),
                KeptProperty(
                    "IAM of this account decides who uses it",
                    lambda: policy() is None,
                    lambda: kms.put_key_policy(KeyId=self._key_id(stack), PolicyName="default", Policy=policy()),
                ),
                KeptProperty(
                    "yearly rotation",
                    lambda: bool(kms.get_key_rotation_status(KeyId=self._key_id(stack))["KeyRotationEnabled"]),
                    lambda: kms.enable_key_rotation(KeyId=self._key_id(stack)),
                ),
            ),
        )

    def _aliases(self) -> dict[str, str]:
        """Return the key id of each alias."""
        pages = self._clients.get("kms").get_paginator("list_aliases").paginate()
        return {alias["AliasName"]: alias.get("TargetKeyId", "") for page in pages for alias in page["Aliases"]}

    def _key_id(self, stack: str) -> str:
        return self._aliases().get(self.alias(stack), "")

    def _metadata(self, stack: str) -> dict[str, Any]:
        metadata: dict[str, Any] = self._clients.get("kms").describe_key(KeyId=self._key_id(stack))["KeyMetadata"]
        return metadata

    def _refuse_other_kinds(self, stack: str) -> None:
        metadata = self._metadata(stack)
        kind = (metadata.get("KeySpec"), metadata.get("Origin"))
        if kind != ("SYMMETRIC_DEFAULT", "AWS_KMS"):  # such a key is for encryption, and can be rotated
            raise PreflightError(
                f"{self.alias(stack)} names key {metadata['KeyId']}, which is {' of '.join(map(str, kind))}; a symmetric key "
                "made by AWS KMS is needed. If no state is encrypted with it, delete the alias (`aws kms "
                f"delete-alias --alias-name {self.alias(stack)}`) and run `make bootstrap` again"
            )

    def _make_key(self, stack: str) -> None:
        """Name a key, which a run that was cut off may have made already."""
        kms, description = self._clients.get("kms"), f"Pulumi state and secrets of ShopCat, {stack}"
        named = set(self._aliases().values())
        pages = kms.get_paginator("list_keys").paginate()
        unnamed = (key["KeyId"] for page in pages for key in page["Keys"] if key["KeyId"] not in named)
        left = next((key for key in unnamed if self._is_left(key, description)), None)
        key = left or kms.create_key(Description=description)["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=self.alias(stack), TargetKeyId=key)

    def _is_left(self, key: str, description: str) -> bool:
        try:
            metadata = self._clients.get("kms").describe_key(KeyId=key)["KeyMetadata"]
        except ClientError as error:
            if error_code(error) == "AccessDeniedException":  # somebody else's, whose policy lets nobody look
                return False
            raise
        return bool(metadata.get("Description") == description and metadata["KeyState"] == "Enabled")

    # Buckets ----------------------------------------------------------------------------------------------------------

    def _bucket(self, stack: str) -> KeptResource:
        s3, name = self._clients.get("s3"), self.bucket(stack)

        def policy() -> str | None:
            current = _absent_as_none(lambda: s3.get_bucket_policy(Bucket=name)["Policy"], "NoSuchBucketPolicy")
            return with_statement(current, only_tls(name))

        def private() -> bool:
            block = _absent_as_none(
                lambda: s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
                "NoSuchPublicAccessBlockConfiguration",
            )
            return bool(block == BLOCK_PUBLIC_ACCESS)

        encryption = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": self.alias(stack)}
        rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": encryption, "BucketKeyEnabled": True}]}
        return KeptResource(
            f"S3 bucket {name}",
            (
                KeptProperty("made", lambda: self._has_bucket(name), lambda: self._make_bucket(name)),
                KeptProperty(
                    "no public access",
                    private,
                    lambda: s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=BLOCK_PUBLIC_ACCESS),
                ),
                KeptProperty(
                    "versioning",
                    lambda: s3.get_bucket_versioning(Bucket=name).get("Status") == "Enabled",
                    lambda: s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"}),
                ),
                KeptProperty(
                    "encryption by its key",
                    lambda: self._is_encrypted(stack),
                    lambda: s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=rules),
                ),
                KeptProperty(
                    "HTTPS only",
                    lambda: policy() is None,
                    lambda: s3.put_bucket_policy(Bucket=name, Policy=policy()),
                ),
            ),
        )

    def _has_bucket(self, name: str) -> bool:
        try:
            self._clients.get("s3").head_bucket(Bucket=name, ExpectedBucketOwner=self._account)
        except ClientError as error:
            code = error_code(error)
            if code in ("404", "NoSuchBucket", "NotFound"):
                return False
            if code in ("403", "AccessDenied", "Forbidden"):
                raise PreflightError(
                    f"S3 bucket {name}: S3 lets these credentials not look at it ({error}). Either they lack s3:ListBucket "
                    f"on it, or another account than {self._account} took the name: then ask its owner for it, and put no "
                    "state there"
                ) from error
            raise
        return True

    def _make_bucket(self, name: str) -> None:
        location: dict[str, Any] = {}
        if self._clients.region != "us-east-1":  # S3 refuses a constraint for its oldest region
            location["CreateBucketConfiguration"] = {"LocationConstraint": self._clients.region}
        self._clients.get("s3").create_bucket(Bucket=name, **location)

    def _is_encrypted(self, stack: str) -> bool:
        s3, key, alias = self._clients.get("s3"), self._metadata(stack), self.alias(stack)
        rules = _absent_as_none(
            lambda: s3.get_bucket_encryption(Bucket=self.bucket(stack))["ServerSideEncryptionConfiguration"]["Rules"],
            "ServerSideEncryptionConfigurationNotFoundError",
        )
        if not rules or not rules[0].get("BucketKeyEnabled"):
            return False
        default = rules[0].get("ApplyServerSideEncryptionByDefault", {})
        names = (alias, key["KeyId"], key["Arn"], f"{key['Arn'].partition(':key/')[0]}:{alias}")
        return default.get("SSEAlgorithm") == "aws:kms" and default.get("KMSMasterKeyID") in names

    # The ledger -------------------------------------------------------------------------------------------------------

    def _ledger(self) -> KeptResource:
        dynamodb = self._clients.get("dynamodb")
        waiter = dynamodb.get_waiter("table_exists")  # until it is ACTIVE

        def protect() -> None:
            dynamodb.update_table(TableName=self._table, DeletionProtectionEnabled=True)
            waiter.wait(TableName=self._table)

        def initialise() -> None:
            Ledger(dynamodb, self._table).initialise()

        return KeptResource(
            f"DynamoDB table {self._table} (release ledger)",
            (
                KeptProperty("made", self._has_table, lambda: dynamodb.create_table(**table_definition(self._table))),
                KeptProperty("active", self._is_active, lambda: waiter.wait(TableName=self._table)),
                KeptProperty(
                    "deletion protection", lambda: bool(self._description()["DeletionProtectionEnabled"]), protect
                ),
                KeptProperty("point-in-time recovery", self._has_recovery, lambda: self._enable_recovery(dynamodb)),
                KeptProperty("an empty ledger", self._has_head, initialise),
            ),
        )

    def _description(self) -> dict[str, Any]:
        table: dict[str, Any] = self._clients.get("dynamodb").describe_table(TableName=self._table)["Table"]
        return {"DeletionProtectionEnabled": False, **table}

    def _has_table(self) -> bool:
        try:
            table = self._description()
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                return False
            raise
        if table["KeySchema"] != table_definition(self._table)["KeySchema"]:
            raise PreflightError(
                f"DynamoDB table {self._table} is none of this program's: its key is {table['KeySchema']}, not {KEY}. Set "
                "shopcat:ledgerTable to another name"
            )
        if table["TableStatus"] == "DELETING":
            raise PreflightError(
                f"DynamoDB table {self._table} is being deleted; run `make bootstrap` again when it is gone"
            )
        return True

    def _has_head(self) -> bool:
        """Tell whether the ledger is begun; releases without its head mean a loss, which an empty head would only hide."""
        dynamodb = self._clients.get("dynamodb")
        if "Item" in dynamodb.get_item(TableName=self._table, Key={KEY: {"S": HEAD}}, ConsistentRead=True):
            return True
        if dynamodb.scan(TableName=self._table, Limit=1, ConsistentRead=True)["Items"]:
            raise PreflightError(
                f"DynamoDB table {self._table} (release ledger) holds releases and not what is live; restore it from "
                "before that was lost (point-in-time recovery), and set shopcat:ledgerTable to the restored table"
            )
        return False

    def _is_active(self) -> bool:
        return bool(self._description()["TableStatus"] == "ACTIVE")

    def _has_recovery(self) -> bool:
        backups = self._clients.get("dynamodb").describe_continuous_backups(TableName=self._table)
        state = backups["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return bool(state.get("PointInTimeRecoveryStatus") == "ENABLED")

    def _enable_recovery(self, dynamodb: Any) -> None:
        """Enable point-in-time recovery; ask again while DynamoDB still prepares backups of a new table."""
        for attempt in range(1, RECOVERY_ATTEMPTS + 1):
            try:
                dynamodb.update_continuous_backups(
                    TableName=self._table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
                )
            except ClientError as error:
                if error_code(error) != "ContinuousBackupsUnavailableException":
                    raise
                if attempt == RECOVERY_ATTEMPTS:
                    raise PreflightError(
                        f"DynamoDB table {self._table} (release ledger) has no point-in-time recovery yet: {error}; "
                        "run `make bootstrap` again in some minutes"
                    ) from error
                time.sleep(RECOVERY_PAUSE_SECONDS)
            else:
                return


def _absent_as_none(read: Callable[[], Any], code: str) -> Any:
    try:
        return read()
    except ClientError as error:
        if error_code(error) == code:
            return None
        raise


def main() -> int:
    """Run ``python -m infra.commands.bootstrap``; PULUMI_OPTION_CONFIG_FILE names another stack file, as for pulumi itself."""
    path = Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml"))
    try:
        region, production = settings.read_stack(path)
        clients = AwsClients(region, endpoint_url=production.aws_endpoint)
        account, caller = clients.identity()
        print(f"account {account}, region {region}, as {caller}")
        bootstrap = Bootstrap(clients, account, production.ledger_table)
        changes = bootstrap.run(print)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{changes} set, nothing else changed")
    print(bootstrap.next_step())
    return 0


if __name__ == "__main__":
    sys.exit(main())
