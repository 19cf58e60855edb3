"""The takeover plan of a database that is there: refused with the settings' names, then taken over with the suggested lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra import settings
from infra.commands.takeover.database_settings import existing_database
from infra.commands.takeover.differences import Effect
from infra.commands.takeover.plan import TakeoverPlan
from infra.commands.takeover.redaction import HIDDEN
from infra.commands.takeover.rows import Outcome
from infra.commands.takeover.state import Owned, TerraformState
from infra.settings import Settings
from tests.unit.test_settings import committed
from tests.unit.test_takeover_plan import MODULES, PLAIN, SETTINGS, _plan, _row

SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shopcat/master-AbCdEf"
ADDRESS = {"plain": "aws_db_instance.shopcat", "modules": "module.rds.module.db_instance.aws_db_instance.this[0]"}
STATES = {"plain": PLAIN, "modules": MODULES}


def _suggested(plan: TakeoverPlan) -> dict[str, Any]:
    """The lines of the plan as the stack file has them, with the secret that a person makes."""
    lines = plan.suggestion[plan.suggestion.index("shopcat:database:") :]
    values: dict[str, Any] = yaml.safe_load("\n".join(lines))["shopcat:database"]
    assert values.pop("masterSecret") == "<its whole ARN>"
    return {**values, "masterSecret": SECRET}


def _described(state: TerraformState) -> Settings:
    return settings.read_settings(committed(database={"poolSize": 5, **_suggested(_plan(state.owned))}))


@pytest.mark.parametrize("name", STATES)
def test_the_database_is_refused_with_the_settings_that_describe_it(name: str) -> None:
    plan = _plan(STATES[name].owned)
    assert _row(plan, ADDRESS[name]).outcome is Outcome.REFUSED
    errors = [error for error in plan.errors if error.startswith(f"{ADDRESS[name]}: ")]
    assert errors
    assert all("; set shopcat:database." in error for error in errors)
    assert any("set shopcat:database.username to what is there" in error for error in errors)
    assert any("set shopcat:database.encrypted to what is there" in error for error in errors)


@pytest.mark.parametrize("name", STATES)
def test_with_the_suggested_lines_it_is_taken_over_and_nobody_is_shut_out(name: str) -> None:
    plan = _plan(STATES[name].owned, _described(STATES[name]))
    assert not [error for error in plan.errors if "database" in error or ADDRESS[name] in error]
    assert "shopcat:database:" not in plan.suggestion
    row = _row(plan, ADDRESS[name])
    assert row.outcome is Outcome.TAKEN
    assert row.detail.endswith(f" aws:rds/instance:Instance database {'shopcat' if name == 'plain' else 'shop-db'}")
    assert {each.argument for each in row.differences} == {
        "autoMinorVersionUpgrade",
        "copyTagsToSnapshot",
        "deletionProtection",
        "vpcSecurityGroupIds",
    }
    assert all(each.effect is Effect.IN_PLACE for each in row.differences)


def test_what_the_database_refers_to_stays_and_the_plan_names_the_setting() -> None:
    plain, modules = _plan(PLAIN.owned, _described(PLAIN)), _plan(MODULES.owned, _described(MODULES))
    expected = {
        "aws_db_subnet_group.shopcat": "subnetGroup",
        "aws_security_group.database": "securityGroupIds",
    }
    for plan, address, setting in (
        *((plain, address, setting) for address, setting in expected.items()),
        (modules, "module.vpc.aws_db_subnet_group.database[0]", "subnetGroup"),
        (modules, "module.rds.module.db_parameter_group.aws_db_parameter_group.this[0]", "parameterGroup"),
        (modules, "aws_security_group.database", "securityGroupIds"),
    ):
        row = _row(plan, address)
        assert (row.outcome, row.detail) == (Outcome.USED, f"shopcat:database.{setting} names it"), address


def test_a_role_or_a_group_of_the_default_s_name_gets_another() -> None:
    plain, modules = _suggested(_plan(PLAIN.owned)), _suggested(_plan(MODULES.owned))
    assert (plain["applicationRole"], plain["securityGroupName"]) == ("shopcat_app", "shopcat-database-pods")
    # Whoever signs in as a role of the default's name would be shut out, whatever the master user is called.
    assert modules["applicationRole"] == "shopcat_app"
    assert "securityGroupName" not in modules
    assert (plain["engineVersion"], plain["backupRetentionDays"], plain["encrypted"]) == ("15.8", 0, False)


def _instance(**changes: Any) -> Owned:
    (instance,) = [each for each in PLAIN.owned if each.type_name == "aws_db_instance"]
    return replace(instance, attributes={**instance.attributes, **changes})


def test_storage_key_port_and_iam_are_in_the_lines_where_they_are_there() -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    special = {
        "storage_type": "io1", "iops": 4000, "kms_key_id": key, "storage_encrypted": True, "port": 5433,
        "iam_database_authentication_enabled": True,
    }  # fmt: skip
    owned = [each for each in PLAIN.owned if each.type_name != "aws_db_instance"]
    plan = _plan([*owned, _instance(**special)])
    values = _suggested(plan)
    assert {name: values[name] for name in ("iops", "kmsKeyArn", "port", "iamAuthentication")} == {
        "iops": 4000, "kmsKeyArn": key, "port": 5433, "iamAuthentication": True,
    }  # fmt: skip
    assert settings.read_settings(committed(database=values)).database.kms_key_arn == key


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicate_source_db": "shop-main"}, "it is a replica of shop-main"),
        ({"port": 5433}, "set shopcat:database.port to 5433"),
        ({"port": "5433"}, "set shopcat:database.port to 5433"),
    ],
)
def test_what_no_argument_says_is_refused_all_the_same(changes: dict[str, Any], words: str) -> None:
    changed = _instance(**changes)
    owned = [changed if each.address == changed.address else each for each in PLAIN.owned]
    fitting = _described(PLAIN)
    assert not [error for error in _plan(PLAIN.owned, fitting).errors if "database" in error]
    assert any(words in error for error in _plan(owned, fitting).errors)


def test_the_identifier_says_which_of_several_databases_is_the_shop_s() -> None:
    rest = [each for each in PLAIN.owned if each.type_name != "aws_db_instance"]
    two = [
        replace(_instance(identifier=identifier), address=f"aws_db_instance.{identifier}")
        for identifier in ("orders", "wiki")
    ]
    plan = _plan([*rest, *two])
    assert any("set shopcat:database.identifier to the shop's" in error for error in plan.errors)
    chosen = settings.read_settings(committed(database={**_suggested(_plan(PLAIN.owned)), "identifier": "orders"}))
    plan = _plan([*rest, *two], chosen)
    assert _row(plan, "aws_db_instance.orders").outcome is Outcome.TAKEN
    assert _row(plan, "aws_db_instance.wiki").outcome is Outcome.UNKNOWN
    assert not any("database" in error for error in plan.errors)


def test_what_terraform_marks_as_a_secret_is_in_no_line() -> None:
    marked = replace(_instance(username="qzx"), secrets=frozenset({"qzx"}))
    lines = list(existing_database(marked, PLAIN.owned, SETTINGS))
    assert f"  # username: {HIDDEN}, since Terraform marks it; write it yourself" in lines
    assert not any("qzx" in line for line in lines)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)


@given(
    st.dictionaries(
        st.sampled_from(sorted(_instance().attributes)),
        scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=4), scalars, max_size=2),
        max_size=8,
    )
)
def test_whatever_a_state_holds_the_lines_are_yaml(changes: dict[str, Any]) -> None:
    lines = list(existing_database(_instance(**changes), PLAIN.owned, SETTINGS))
    values = yaml.safe_load("\n".join(lines))["shopcat:database"]
    assert "masterSecret" in values
