"""The versions of the state file that a bucket keeps, and one of them put back."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.commands.state_versions import STATE_KEY, StateVersions, Version, choose, count_resources, version_lines
from infra.errors import PreflightError, ShopCatError

BUCKET = "shopcat-state-prod-123456789012-eu-central-1"
NOW = datetime(2026, 11, 29, 10, tzinfo=UTC)


def state(resources: int) -> bytes:
    latest = {"resources": [{"urn": str(number)} for number in range(resources)]}
    return json.dumps({"version": 3, "checkpoint": {"stack": "prod", "latest": latest}}).encode()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AwsClients, Any]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        clients = AwsClients("eu-central-1")
        client = clients.get("s3")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield clients, client


def test_a_file_that_was_deleted_is_put_back_as_it_was(s3: tuple[AwsClients, Any]) -> None:
    clients, client = s3
    for resources in (3, 7):
        client.put_object(Bucket=BUCKET, Key=STATE_KEY, Body=state(resources))
    client.put_object(Bucket=BUCKET, Key=f"{STATE_KEY}.bak", Body=state(99))
    client.delete_object(Bucket=BUCKET, Key=STATE_KEY)
    versions = StateVersions(clients, BUCKET)
    found = versions.newest()
    assert [each.resources for each in found] == [7, 3]
    assert not any(each.is_current for each in found)
    versions.put_back(choose(found, found[0].identifier))
    assert client.get_object(Bucket=BUCKET, Key=STATE_KEY)["Body"].read() == state(7)
    assert len(versions.newest()) == 3, "none is deleted"
    versions.put_back(choose(found, found[1].identifier))
    assert client.get_object(Bucket=BUCKET, Key=STATE_KEY)["Body"].read() == state(3)


def test_a_bucket_without_any_version_says_what_is_left(s3: tuple[AwsClients, Any]) -> None:
    clients, _ = s3
    with pytest.raises(PreflightError, match=r"no version of .* rebuilt by imports"):
        StateVersions(clients, BUCKET).newest()
    with pytest.raises(ShopCatError, match="versions of s3://nobody-has-it"):
        StateVersions(clients, "nobody-has-it").newest()


@given(st.lists(st.sampled_from(["aa1", "aa2", "b", "c"]), unique=True), st.sampled_from(["a", "aa1", "b", "d", ""]))
def test_only_one_version_that_is_meant_is_put_back(identifiers: list[str], wanted: str) -> None:
    versions = [Version(each, NOW - timedelta(minutes=place), 1, place == 0) for place, each in enumerate(identifiers)]
    matching = [each for each in versions if each.identifier.startswith(wanted)]
    if len(matching) == 1:
        assert choose(versions, wanted) is matching[0]
        return
    with pytest.raises(PreflightError, match=f"^{len(matching)} versions"):
        choose(versions, wanted)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"checkpoint": {"latest": null}}', b"\xff"])
def test_what_is_no_state_is_not_put_back(text: bytes) -> None:
    assert count_resources(text) == 0
    with pytest.raises(PreflightError, match="holds no resource"):
        choose([Version("a", NOW, count_resources(text), is_current=True)], "a")


def test_the_list_says_which_is_the_present_one() -> None:
    first, second = version_lines([Version("a", NOW, 7, is_current=True), Version("b", NOW, 0, is_current=False)])
    assert first == "a  2026-11-29 10:00:00 UTC     7 resources  the present one"
    assert second.endswith("0 resources")
