"""What restarts the database, when RDS does it, and what an update says and refuses of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import PreflightError
from infra.foundation.database_fit import (
    STATIC_PARAMETERS,
    LiveDatabase,
    apply_method,
    restart_note,
    restarts,
    static_changes,
    window_refusal,
)
from infra.foundation.existing_database import restart_notes
from infra.settings.platform import DatabaseSettings, window_minutes
from tests.unit.test_database import declared

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK = 7 * 24 * 60
minutes = st.integers(0, WEEK - 1)
lengths = st.integers(1, 24 * 60)


def moment(minute: int) -> str:
    return f"{DAYS[minute // 1440 % 7]}:{minute // 60 % 24:02}:{minute % 60:02}"


def window(begin: int, length: int) -> str:
    return f"{moment(begin)}-{moment((begin + length) % WEEK)}"


def backup(begin: int, length: int) -> str:
    ends = (begin % 1440, (begin + length) % 1440)
    return "-".join(f"{each // 60:02}:{each % 60:02}" for each in ends)


def live(**values: Any) -> LiveDatabase:
    known = {"engine": "postgres", "version": "16.4", "storage_gibibytes": 20, "db_name": "shopcat", "kms_key_arn": ""}
    known |= {"username": "shopcat_admin", "is_encrypted": True, "port": 5432}
    return LiveDatabase(**{**known, "instance_class": "db.t4g.micro", "backup_retention_days": 14, **values})


@given(minutes, lengths, st.integers(0, 1439), st.integers(1, 240))
def test_a_window_is_refused_exactly_if_it_has_a_minute_with_a_backup(
    begin: int, length: int, backup_begin: int, backup_length: int
) -> None:
    text = window(begin, length)
    assert window_minutes(text) == length
    in_window = {minute % 1440 for minute in range(begin, begin + length)}
    in_backup = {minute % 1440 for minute in range(backup_begin, backup_begin + backup_length)}
    refusal = window_refusal(text, backup(backup_begin, backup_length))
    assert bool(refusal) == bool(in_window & in_backup)
    assert not refusal or "shopcat:database.maintenanceWindow" in refusal
    assert window_refusal("", backup(backup_begin, backup_length)) == window_refusal(text, "") == ""


@given(minutes, lengths)
def test_a_window_shorter_than_rds_takes_is_no_setting(begin: int, length: int) -> None:
    text = window(begin, length)
    if length >= 30:
        assert DatabaseSettings(maintenance_window=text).maintenance_window == text
    else:
        with pytest.raises(ValueError, match="is shorter than 30 minutes"):
            DatabaseSettings(maintenance_window=text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"maintenanceWindow": "Sun:03:00-Sun:04:00"}, "a window such as sun:03:00-sun:03:30"),
        ({"maintenanceWindow": "sun:24:00-mon:04:00"}, "a window such as"),
        ({"parameters": {"work_mem": "8192"}, "parameterGroup": "mine"}, "parameters say nothing while parameterGroup"),
        ({"parameters": {"max_connections": "50"}}, "max_connections is what the capacity plan takes"),
        ({"parameters": {"rds.force_ssl": "0"}}, "rds.force_ssl is set by this program"),
        ({"parameters": {"work_mem": "8'; --"}}, "a value such as 8192"),
    ],
)
def test_what_rds_or_this_program_can_not_keep_to_is_no_setting(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatabaseSettings.model_validate(values)


versions = st.tuples(st.integers(15, 17), st.integers(0, 12)).map(lambda pair: f"{pair[0]}.{pair[1]}")


@given(
    versions,
    versions | st.sampled_from(["15", "16", "17"]),
    st.sampled_from(["db.t4g.micro", "db.t4g.small"]),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_a_restart_is_named_exactly_for_what_changes(
    version: str, wanted: str, instance_class: str, days: int, wanted_days: int
) -> None:
    chosen = DatabaseSettings.model_construct(
        **{
            **DatabaseSettings().model_dump(),
            "engine_version": wanted,
            "instance_class": instance_class,
            "backup_retention_days": wanted_days,
        }
    )
    present = live(version=version, backup_retention_days=days)
    names = [change.split()[0].removeprefix("shopcat:database.") for change in restarts(present, chosen)]
    expected = {
        "engineVersion": version.split(".")[: wanted.count(".") + 1] != wanted.split("."),
        "instanceClass": instance_class != "db.t4g.micro",
        "backupRetentionDays": (days == 0) != (wanted_days == 0),
    }
    assert names == [name for name, differs in expected.items() if differs]
    assert bool(restart_note(restarts(present, chosen), chosen)) == any(expected.values())


def test_a_restart_within_the_update_is_refused_while_a_release_is_open() -> None:
    at_once, later = (DatabaseSettings(engine_version="16.5", apply_immediately=each) for each in (True, False))
    with pytest.raises(PreflightError, match=r"engineVersion 16\.4 → 16\.5: .* in the middle of release v1\.2\.0-r1"):
        restart_notes(live(), at_once, "v1.2.0-r1")
    (note,) = restart_notes(live(), at_once, "")
    assert "within this update" in note
    (note,) = restart_notes(live(), later, "v1.2.0-r1")
    assert "in its maintenance window" in note
    assert restart_notes(live(), DatabaseSettings(), "v1.2.0-r1") == []
    assert restart_notes(None, at_once, "v1.2.0-r1") == []
    (note,) = restart_notes(live(waits_for_restart=True), DatabaseSettings(), "v1.2.0-r1")
    assert "aws rds reboot-db-instance --db-instance-identifier shopcat" in note


values = st.dictionaries(st.sampled_from(["work_mem", "shared_buffers", "wal_level"]), st.sampled_from(["1", "2"]))


@given(values, values)
def test_static_parameters_are_named_exactly_if_their_value_changes(
    before: dict[str, str], after: dict[str, str]
) -> None:
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert static_changes(before, after) == sorted(changed - {"work_mem"})


def test_static_parameters_are_those_that_postgresql_reads_when_it_starts() -> None:
    programs = sorted(Path("/var/cache/shopcat-twin").glob("debian-*/root/usr/lib/postgresql/15/bin/postgres"))
    if not programs:
        pytest.skip("the twin's PostgreSQL is not built: `make build`")
    listed = subprocess.run([programs[-1], "--describe-config"], capture_output=True, text=True, check=True).stdout
    context = {row[0]: row[1] for row in (line.split("\t") for line in listed.splitlines())}
    assert {name for name, each in context.items() if each == "postmaster"} <= STATIC_PARAMETERS
    assert {name for name, each in context.items() if name in STATIC_PARAMETERS and each != "postmaster"} == set()


def test_parameters_are_declared_as_rds_takes_them() -> None:
    found = declared(parameters={"work_mem": "8192", "max_locks_per_transaction": "128"})
    parameters = found["aws:rds/parameterGroup:ParameterGroup", "database"].inputs["parameters"]
    assert parameters == [
        {"name": "rds.force_ssl", "value": "1", "applyMethod": "immediate"},
        {"name": "max_locks_per_transaction", "value": "128", "applyMethod": "pending-reboot"},
        {"name": "work_mem", "value": "8192", "applyMethod": "immediate"},
    ]
    assert apply_method("work_mem") == "immediate"


@pytest.mark.parametrize(("version", "is_automatic"), [("16", True), ("16.4", False)])
def test_rds_moves_a_minor_version_only_where_none_is_chosen(version: str, *, is_automatic: bool) -> None:
    inputs = declared(engineVersion=version)["aws:rds/instance:Instance", "database"].inputs
    assert inputs["autoMinorVersionUpgrade"] is is_automatic
    assert inputs["applyImmediately"] is True
    assert "maintenanceWindow" not in inputs


def test_the_window_and_the_moment_are_declared() -> None:
    found = declared(maintenanceWindow="sun:03:00-sun:03:30", applyImmediately=False)
    inputs = found["aws:rds/instance:Instance", "database"].inputs
    assert (inputs["maintenanceWindow"], inputs["applyImmediately"]) == ("sun:03:00-sun:03:30", False)
