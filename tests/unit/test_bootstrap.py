"""Bootstrap on moto: makes everything once, and nothing the second time."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from infra.aws_clients import AwsClients
from infra.backends import STACKS
from infra.bootstrap import Bootstrap

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
