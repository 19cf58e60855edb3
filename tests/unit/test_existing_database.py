"""A database that is there stops an update which would lose it, or which RDS would refuse half-way, before anything changes."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from infra import production, settings
from infra.clients.aws import AwsClients
from infra.errors import AwsError, PreflightError
from infra.foundation.database_fit import LiveDatabase, database_refusals
from infra.foundation.existing_database import refuse_taken_snapshot, refuse_unfit_database
from infra.settings.platform import DatabaseSettings
from tests.unit.test_settings import committed

KEYS = [f"arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-{number:012x}" for number in (1, 2)]
FIELDS = {
    "dbName": "db_name",
    "username": "username",
    "encrypted": "encrypted",
    "kmsKeyArn": "kms_key_arn",
    "port": "port",
    "storageGibibytes": "storage_gibibytes",
    "engineVersion": "engine_version",
}
ADVICE = re.compile(
    r"set shopcat:database\.(\w+) to (\S+)$|shopcat:database\.(\w+) is .*; (?:set it to (\S+)|.* remove the setting)$"
)


def described(live: LiveDatabase, **others: Any) -> DatabaseSettings:
    """Settings that say just what is there."""
    values = {
        "engine_version": live.version,
        "storage_gibibytes": live.storage_gibibytes,
        "db_name": live.db_name,
        "username": live.username,
        "encrypted": live.is_encrypted,
        "kms_key_arn": live.kms_key_arn,
        "port": live.port,
        "max_storage_gibibytes": 0,
    }
    return DatabaseSettings.model_construct(**{**DatabaseSettings().model_dump(), **values, **others})


@st.composite
def databases(draw: st.DrawFn) -> LiveDatabase:
    encrypted = draw(st.booleans())
    return LiveDatabase(
        engine="postgres",
        version=draw(st.sampled_from(["13.15", "15.4", "15.8", "16.2", "16.10", "17"])),
        storage_gibibytes=draw(st.integers(20, 200)),
        db_name=draw(st.sampled_from(["shop", "shopcat"])),
        username=draw(st.sampled_from(["shop", "postgres"])),
        is_encrypted=encrypted,
        kms_key_arn=draw(st.sampled_from(KEYS)) if encrypted else "",
        port=draw(st.sampled_from([5432, 5433, 6000])),
    )


@given(databases(), databases(), st.sets(st.sampled_from(sorted(FIELDS))), st.sampled_from([None, 0, 1000]))
def test_what_is_refused_is_mended_by_the_advice_alone(
    live: LiveDatabase, other: LiveDatabase, wrong: set[str], largest: int | None
) -> None:
    chosen = {FIELDS[name]: getattr(described(other), FIELDS[name]) for name in wrong}
    wanted = described(live, **chosen, max_storage_gibibytes=largest)
    reasons = database_refusals(live, wanted, protect=True)
    advised = {}
    for reason in reasons:
        match = ADVICE.search(reason)
        assert match, reason
        name, value = match[1] or match[3], match[2] or match[4] or ""
        assert name in wrong, "what is described as it is, is not refused"
        advised[FIELDS[name]] = type(getattr(wanted, FIELDS[name]))(value) if name != "encrypted" else value == "true"
    assert len(advised) == len(reasons)
    mended = wanted.model_copy(update=advised)
    assert database_refusals(live, mended, protect=True) == []


@given(databases(), databases())
def test_each_property_that_replaces_it_is_refused_while_it_is_protected(
    live: LiveDatabase, other: LiveDatabase
) -> None:
    same = described(live)
    for name in ("db_name", "username", "is_encrypted"):
        setting = {"is_encrypted": "encrypted"}.get(name, name)
        wanted = same.model_copy(update={setting: getattr(other, name)})
        differs = getattr(live, name) != getattr(other, name)
        assert bool(database_refusals(live, wanted, protect=True)) is differs
        assert database_refusals(live, wanted, protect=False) == []


@pytest.mark.parametrize(
    ("size", "chosen", "largest", "is_refused"),
    [
        (20, 20, 0, False),
        (21, 20, 0, True),
        (80, 20, None, False),
        (81, 20, None, True),
        (20, 100, 0, False),
        (99, 20, 99, False),
    ],
)
def test_storage_that_rds_has_made_larger_by_itself_is_left(
    size: int, chosen: int, largest: int | None, *, is_refused: bool
) -> None:
    live = LiveDatabase("postgres", "16.4", size, "shopcat", "shopcat_admin", True, "", 5432)
    wanted = DatabaseSettings(storage_gibibytes=chosen, max_storage_gibibytes=largest)
    assert bool(database_refusals(live, wanted, protect=True)) is is_refused


@pytest.mark.parametrize(
    ("live", "wanted", "word"),
    [
        ("16.4", "16", ""), ("16.4", "16.4", ""), ("16.4", "16.6", ""), ("16.4", "16.3", "older"), ("15.8", "16", "major"),
        ("17.1", "16.9", "older"), ("16.10", "16.9", "older"), ("11.22-rds.20240509", "16", ""),
    ],
)  # fmt: skip
def test_versions(live: str, wanted: str, word: str) -> None:
    database = LiveDatabase("postgres", live, 20, "shopcat", "shopcat_admin", True, "", 5432)
    reasons = database_refusals(database, DatabaseSettings(engine_version=wanted), protect=True)
    assert [word in reason for reason in reasons] == ([True] if word else [])


def test_a_database_without_a_name_or_of_another_engine_is_no_shop_s() -> None:
    live = LiveDatabase("mysql", "16.4", 20, "", "shopcat_admin", True, "", 5432)
    engine, name = database_refusals(live, DatabaseSettings(), protect=True)
    assert "it is mysql" in engine
    assert "it has none; name another database with shopcat:database.identifier" in name


# What AWS has ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clients(mocked_aws: None) -> AwsClients:
    return AwsClients("eu-central-1")


def made(clients: AwsClients, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "DBInstanceIdentifier": "shopcat", "Engine": "postgres", "EngineVersion": "16.4", "DBInstanceClass": "db.t4g.micro",
        "AllocatedStorage": 20, "DBName": "shopcat", "MasterUsername": "shopcat_admin", "MasterUserPassword": "not-a-password",
        "StorageEncrypted": True,
    }  # fmt: skip
    clients.get("rds").create_db_instance(**{**arguments, **changes})


def test_a_database_as_it_is_described_and_one_that_is_not_there_hinder_nothing(clients: AwsClients) -> None:
    refuse_unfit_database(clients, DatabaseSettings(), protect=True)
    made(clients)
    refuse_unfit_database(clients, DatabaseSettings(), protect=True)
    made(clients, DBInstanceIdentifier="other", AllocatedStorage=500)
    refuse_unfit_database(clients, DatabaseSettings(), protect=True)


def test_one_error_has_every_reason(clients: AwsClients) -> None:
    made(clients, AllocatedStorage=500, EngineVersion="17.2", MasterUsername="shop", StorageEncrypted=False)
    with pytest.raises(PreflightError) as error:
        refuse_unfit_database(clients, DatabaseSettings(), protect=True)
    text = str(error.value)
    assert text.startswith("database shopcat is not as the settings describe it, and nothing was changed:\n")
    for word in ("storageGibibytes to 500", "engineVersion to 17.2", "username is shopcat_admin", "encrypted is true"):
        assert text.count(word) == 1
    assert len(text.splitlines()) == 5


@pytest.mark.parametrize(
    ("code", "is_error"), [("AccessDenied", False), ("DBInstanceNotFound", False), ("Throttling", True)]
)
def test_who_may_not_read_it_may_not_change_it_either(code: str, *, is_error: bool) -> None:
    def describe_db_instances(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeDBInstances")

    rds = SimpleNamespace(describe_db_instances=describe_db_instances)
    clients = cast("AwsClients", SimpleNamespace(get=lambda _: rds, endpoint_url=None))
    if is_error:
        with pytest.raises(AwsError):
            refuse_unfit_database(clients, DatabaseSettings(), protect=True)
    else:
        refuse_unfit_database(clients, DatabaseSettings(), protect=True)


def test_a_moment_whose_copy_has_left_a_snapshot_is_not_restored_again(clients: AwsClients) -> None:
    restoring = DatabaseSettings.model_validate({"restore": {"at": "2026-11-29T10:00:00Z"}})
    refuse_taken_snapshot(clients, restoring)
    made(clients)
    name = "shopcat-final-restored-20261129100000"
    clients.get("rds").create_db_snapshot(DBSnapshotIdentifier=name, DBInstanceIdentifier="shopcat")
    refuse_taken_snapshot(clients, DatabaseSettings())
    with pytest.raises(PreflightError, match=f"delete-db-snapshot --db-snapshot-identifier {name}"):
        refuse_taken_snapshot(clients, restoring)
    made(clients, DBInstanceIdentifier="shopcat-restored")
    refuse_taken_snapshot(clients, restoring)


def test_an_update_reads_it_before_anything_is_declared(clients: AwsClients, monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Any = SimpleNamespace(
        decision=SimpleNamespace(action="stay", open=None),
        state=SimpleNamespace(open=None),
        kubernetes=None,
        is_way_back=False,
    )
    monkeypatch.setattr("infra.production.release_plan.make_plan", lambda *_: plan)
    monkeypatch.setattr("infra.production.upgrade.refuse_unfit_version", lambda *_: None)
    monkeypatch.setattr("infra.production.chart_upgrade.refuse_unfit_charts", lambda *_: [])
    wanted = settings.read_settings(committed(dns="external"))
    assert production._read(wanted, clients).plan is plan
    made(clients, AllocatedStorage=500)
    with pytest.raises(PreflightError, match="storageGibibytes to 500"):
        production._read(wanted, clients)
