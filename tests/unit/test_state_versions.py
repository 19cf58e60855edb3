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
from infra.commands.state_versions import (
    LOCKS,
    SHOWN,
    STATE_KEY,
    STOOD_SECONDS,
    StateVersions,
    Version,
    choose,
    version_line,
    which_stood,
)
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


def write(client: Any, *counts: int) -> None:
    for count in counts:
        client.put_object(Bucket=BUCKET, Key=STATE_KEY, Body=state(count))


def test_a_file_that_was_deleted_is_put_back_as_it_was(s3: tuple[AwsClients, Any]) -> None:
    clients, client = s3
    write(client, 3, 7)
    client.put_object(Bucket=BUCKET, Key=f"{STATE_KEY}.bak", Body=state(99))
    client.delete_object(Bucket=BUCKET, Key=STATE_KEY)
    versions = StateVersions(clients, BUCKET)
    found = versions.listed()
    assert [versions.resources(each) for each in found] == [7, 3]
    assert not any(each.is_current for each in found)
    assert versions.put_back(choose(found, found[0].identifier)) == 7
    assert client.get_object(Bucket=BUCKET, Key=STATE_KEY)["Body"].read() == state(7)
    assert len(versions.listed()) == 3, "none is deleted"
    versions.put_back(choose(found, found[1].identifier))
    assert client.get_object(Bucket=BUCKET, Key=STATE_KEY)["Body"].read() == state(3)


def test_a_version_behind_all_that_the_last_updates_wrote_is_put_back(s3: tuple[AwsClients, Any]) -> None:
    """Pulumi writes the file at each step, so the newest ten are of one update's last seconds."""
    clients, client = s3
    write(client, 5, *range(1001, 1001 + 3 * SHOWN))
    versions = StateVersions(clients, BUCKET)
    found = versions.listed()
    assert len(found) == 1 + 3 * SHOWN
    assert versions.put_back(choose(found, found[-1].identifier)) == 5
    assert versions.listed()[0].is_current


def test_nothing_is_put_back_while_an_update_holds_the_lock(s3: tuple[AwsClients, Any]) -> None:
    clients, client = s3
    write(client, 3, 7)
    client.put_object(Bucket=BUCKET, Key=f"{LOCKS}one.json", Body=b"{}")
    versions = StateVersions(clients, BUCKET)
    with pytest.raises(PreflightError, match=r"holds the stack's lock.*prod/one\.json"):
        versions.put_back(versions.listed()[-1])
    assert client.get_object(Bucket=BUCKET, Key=STATE_KEY)["Body"].read() == state(7)
    client.delete_object(Bucket=BUCKET, Key=f"{LOCKS}one.json")
    assert versions.put_back(versions.listed()[-1]) == 3


def test_a_bucket_without_any_version_says_what_is_left(s3: tuple[AwsClients, Any]) -> None:
    clients, _ = s3
    with pytest.raises(PreflightError, match=r"no version of .* rebuilt by imports"):
        StateVersions(clients, BUCKET).listed()
    with pytest.raises(ShopCatError, match="versions of s3://nobody-has-it"):
        StateVersions(clients, "nobody-has-it").listed()


@given(st.lists(st.sampled_from(["aa1", "aa2", "b", "c"]), unique=True), st.sampled_from(["a", "aa1", "b", "d", ""]))
def test_only_one_version_that_is_meant_is_put_back(identifiers: list[str], wanted: str) -> None:
    versions = [Version(each, NOW - timedelta(minutes=place), place == 0) for place, each in enumerate(identifiers)]
    matching = [each for each in versions if each.identifier.startswith(wanted)]
    if len(matching) == 1:
        assert choose(versions, wanted) is matching[0]
        return
    with pytest.raises(PreflightError, match=f"^{len(matching)} versions"):
        choose(versions, wanted)


@given(st.lists(st.integers(0, 2 * STOOD_SECONDS), max_size=8))
def test_the_list_shows_what_stood_between_updates(seconds: list[int]) -> None:
    """Each number is how long a version stood until the next one, the newest first."""
    written = [NOW - timedelta(seconds=sum(seconds[:place])) for place in range(len(seconds) + 1)]
    versions = [Version(str(place), each, place == 0) for place, each in enumerate(written)]
    shown = {int(each.identifier) for each in which_stood(versions)}
    assert shown == {0, *(place + 1 for place, stood in enumerate(seconds) if stood >= STOOD_SECONDS)}


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"checkpoint": {"latest": null}}', b"\xff"])
def test_what_is_no_state_is_not_put_back(s3: tuple[AwsClients, Any], text: bytes) -> None:
    clients, client = s3
    write(client, 3)
    client.put_object(Bucket=BUCKET, Key=STATE_KEY, Body=text)
    versions = StateVersions(clients, BUCKET)
    with pytest.raises(PreflightError, match="holds no resource"):
        versions.put_back(versions.listed()[0])


def test_the_list_says_which_is_the_present_one() -> None:
    line = version_line(Version("a", NOW, is_current=True), 7)
    assert line == "a  2026-11-29 10:00:00 UTC     7 resources  the present one"
    assert version_line(Version("b", NOW, is_current=False), 0).endswith("0 resources")
