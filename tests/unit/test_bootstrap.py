"""Bootstrap on moto: makes everything once, and nothing the second time."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from infra import bootstrap as module
from infra.aws_clients import AwsClients
from infra.backends import STACKS
from infra.bootstrap import Bootstrap
from infra.errors import Refused

REGION = "eu-central-1"


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bootstrap]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield Bootstrap(AwsClients(REGION), "123456789012", "shopcat-releases")


def test_second_run_makes_nothing(bootstrap: Bootstrap) -> None:
    said: list[str] = []
    assert bootstrap.run(said.append) == 6
    assert all(line.startswith("making") for line in said)
    again: list[str] = []
    assert bootstrap.run(again.append) == 0
    assert all(line.startswith("there already") for line in again)


def test_buckets_are_versioned_encrypted_and_private(bootstrap: Bootstrap) -> None:
    bootstrap.run(lambda _: None)
    s3 = AwsClients(REGION).get("s3")
    for stack in STACKS:
        name = bootstrap.bucket(stack)
        assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
        rules = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
        access = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
        assert all(access.values())
        assert len(access) == 4


def test_the_ledger_can_be_recovered_and_not_deleted(bootstrap: Bootstrap) -> None:
    bootstrap.run(lambda _: None)
    dynamodb = AwsClients(REGION).get("dynamodb")
    assert dynamodb.describe_table(TableName="shopcat-releases")["Table"]["DeletionProtectionEnabled"] is True
    backups = dynamodb.describe_continuous_backups(TableName="shopcat-releases")["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


class Unavailable:
    """DynamoDB that refuses recovery so many times before it takes it."""

    def __init__(self, refusals: int, code: str = "ContinuousBackupsUnavailableException") -> None:
        self.asked = 0
        self._refusals = refusals
        self._code = code

    def update_continuous_backups(self, **_: Any) -> None:
        self.asked += 1
        if self.asked <= self._refusals:
            raise ClientError({"Error": {"Code": self._code, "Message": "not yet"}}, "UpdateContinuousBackups")


def test_a_new_table_that_takes_no_recovery_yet_is_asked_again(
    bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    ready = Unavailable(3)
    bootstrap._enable_recovery(ready)
    assert ready.asked == 4
    assert len(pauses) == 3

    pauses.clear()
    with pytest.raises(Refused, match=r"shopcat-releases .* run `make bootstrap` again"):
        bootstrap._enable_recovery(Unavailable(1000))
    assert sum(pauses) == 60

    denied = Unavailable(1000, "AccessDeniedException")
    with pytest.raises(ClientError, match="AccessDenied"):
        bootstrap._enable_recovery(denied)
    assert denied.asked == 1
