"""What waits for a restart or a renewal, and the versions that one update goes to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from infra import settings
from infra.clients.aws import AwsClients
from infra.commands.findings import FindingState
from infra.commands.offers import newest_of_major, next_minor, version_order
from infra.commands.running import judge_certificate, judge_database, read_running
from tests.unit.test_settings import committed

versions = st.tuples(st.integers(1, 3), st.integers(0, 12)).map(lambda pair: f"{pair[0]}.{pair[1]}")


@given(versions, st.lists(versions, unique=True))
def test_the_next_step_is_one_that_an_update_goes_to(pinned: str, offered: list[str]) -> None:
    newer = sorted((each for each in offered if version_order(each) > version_order(pinned)), key=version_order)
    assert next_minor(pinned, offered) == (newer[0] if newer else "")
    same = [each for each in newer if each.split(".")[0] == pinned.split(".", maxsplit=1)[0]]
    assert newest_of_major(pinned, offered) == (same[-1] if same else "")


def database(**values: Any) -> dict[str, Any]:
    known = {
        "DBInstanceIdentifier": "shopcat", "Engine": "postgres", "EngineVersion": "16.4", "AllocatedStorage": 20,
        "MasterUsername": "shopcat_admin", "PreferredMaintenanceWindow": "sun:03:00-sun:03:30",
    }  # fmt: skip
    return {**known, **values}


def test_what_waits_at_the_database_is_named_with_its_next_step() -> None:
    (row,) = judge_database(database())
    assert (row.state, row.todo) == (FindingState.OK, "")
    assert "runs PostgreSQL 16.4, nothing waits; maintenance window sun:03:00-sun:03:30 UTC" in row.finding
    group = {"DBParameterGroupName": "shopcat-postgres16", "ParameterApplyStatus": "pending-reboot"}
    owed, pending = judge_database(database(DBParameterGroups=[group], PendingModifiedValues={"EngineVersion": "16.5"}))
    assert owed.state is pending.state is FindingState.LOOK
    assert "aws rds reboot-db-instance --db-instance-identifier shopcat" in owed.todo
    assert "EngineVersion 16.5 waits for the maintenance window, sun:03:00-sun:03:30 UTC" in pending.finding


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, FindingState.OK),
        ("SUCCESS", FindingState.OK),
        ("PENDING_AUTO_RENEWAL", FindingState.OK),
        ("PENDING_VALIDATION", FindingState.CHANGE),
        ("FAILED", FindingState.CHANGE),
    ],
)
def test_a_certificate_that_acm_can_not_renew_has_to_be_changed(status: str | None, state: FindingState) -> None:
    record = {"Name": "_1.shop.example.com.", "Type": "CNAME", "Value": "_2.acm-validations.aws."}
    options = [{"DomainName": "shop.example.com", "ResourceRecord": record, "ValidationStatus": "PENDING_VALIDATION"}]
    renewal = {"RenewalSummary": {"RenewalStatus": status, "DomainValidationOptions": options}} if status else {}
    certificate = {"Status": "ISSUED", "NotAfter": datetime(2027, 3, 1, tzinfo=UTC), **renewal}
    row = judge_certificate("shop.example.com", certificate)
    assert row.state is state
    assert "valid until 2027-03-01" in row.finding
    assert ("_1.shop.example.com. CNAME _2.acm-validations.aws." in row.todo) is (state is FindingState.CHANGE)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield AwsClients("eu-central-1")


def test_an_account_before_the_first_update_has_nothing_that_waits(clients: AwsClients) -> None:
    clients.get("acm").request_certificate(DomainName="shop.example.com")  # the old shop's
    rows = read_running(settings.read_settings(committed()), clients)
    assert [row.subject for row in rows] == [
        "database shopcat", "certificate shop.example.com", "certificate *.shop-previews.example.net",
    ]  # fmt: skip
    assert {row.state for row in rows} == {FindingState.OK}
