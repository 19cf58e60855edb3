"""The twin's DynamoDB restores a table to a moment, as an oracle says that it was then."""

import time
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from twin.aws import dynamodb

WRITES = st.lists(st.tuples(st.sampled_from(["put", "delete", "transact"]), st.integers(0, 4)), min_size=1, max_size=12)


class Clock:
    """Time that goes on by one second with each question."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(scope="module", autouse=True)
def patched() -> None:
    dynamodb.patch_recovery()


def client() -> Any:
    make: Any = boto3.client
    return make("dynamodb", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")


def make_table(name: str, *, recoverable: bool = True) -> None:
    client().create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    if recoverable:
        client().update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )


def write(kind: str, key: int, value: int) -> None:
    item = {"pk": {"S": str(key)}, "value": {"N": str(value)}}
    if kind == "put":
        client().put_item(TableName="ledger", Item=item)
    elif kind == "delete":
        client().delete_item(TableName="ledger", Key={"pk": item["pk"]})
    else:
        client().transact_write_items(TransactItems=[{"Put": {"TableName": "ledger", "Item": item}}])


def items(name: str) -> dict[str, str]:
    return {item["pk"]["S"]: item["value"]["N"] for item in client().scan(TableName=name)["Items"]}


@settings(max_examples=25)
@given(WRITES)
def test_a_restored_table_is_as_the_source_was(writes: list[tuple[str, int]]) -> None:
    clock = Clock()
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamodb, "time", clock)
        make_table("ledger")
        oracle: list[tuple[float, dict[str, str]]] = [(clock.time(), {})]
        for value, (kind, key) in enumerate(writes):
            write(kind, key, value)
            oracle.append((clock.time(), items("ledger")))
        clock.now += dynamodb.LATEST_SECONDS
        for number, (moment, expected) in enumerate(oracle):
            client().restore_table_to_point_in_time(
                SourceTableName="ledger", TargetTableName=f"restored-{number}", RestoreDateTime=moment
            )
            assert items(f"restored-{number}") == expected
        assert items("ledger") == oracle[-1][1], "the source stays"


@mock_aws
def test_moments_that_nobody_keeps_are_refused() -> None:
    make_table("ledger")
    make_table("without", recoverable=False)
    for source, more, code in (
        ("ledger", {"RestoreDateTime": time.time()}, "InvalidRestoreTimeException"),
        ("ledger", {"RestoreDateTime": time.time() - 3600}, "InvalidRestoreTimeException"),
        ("without", {"UseLatestRestorableTime": True}, "PointInTimeRecoveryUnavailableException"),
        ("gone", {"UseLatestRestorableTime": True}, "SourceTableNotFoundException"),
        ("ledger", {"UseLatestRestorableTime": True, "BillingModeOverride": "PROVISIONED"}, "ValidationException"),
    ):
        with pytest.raises(ClientError) as refused:
            client().restore_table_to_point_in_time(SourceTableName=source, TargetTableName="restored", **more)
        assert refused.value.response["Error"]["Code"] == code
    assert client().list_tables()["TableNames"] == ["ledger", "without"]
