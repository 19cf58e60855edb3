"""Invariants of the takeover's plan over states of every kind that a shop may have, and of settings that describe one."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as generated
from hypothesis import strategies as st

from infra import settings
from infra.commands.takeover import helm, layout
from infra.commands.takeover.database_settings import existing_database
from infra.commands.takeover.declaration import Declared, reference
from infra.commands.takeover.differences import Effect
from infra.commands.takeover.kinds import KINDS
from infra.commands.takeover.live import READERS
from infra.commands.takeover.plan import ASK, TakeoverPlan, plan_takeover
from infra.commands.takeover.redaction import Redactor
from infra.commands.takeover.report import plan_text
from infra.commands.takeover.rows import Outcome
from infra.commands.takeover.state import Owned, parse_state
from infra.settings import Settings, stack_file
from tests.unit.test_settings import committed, existing
from tests.unit.test_takeover_plan import ACCOUNT, FOLDER, MODULES, PLAIN, REGION, SETTINGS, _with, recorded
from twin.paths import REPOSITORY

DOCUMENTS = {
    path.name: json.loads(path.read_text())
    for path in (FOLDER / "plain.tfstate", FOLDER / "modules.tfstate", REPOSITORY / "twin/scenarios/old_shop.tfstate")
}
ODD: list[Any] = [
    None, True, 0, -1, 3.5, 10**30, float("nan"), [], {}, [[]], [None], [{}], {"": ""}, ["x"], [{"kms_key": 7}],
    "", "a: b", "[", "*x", "123", "null", "no", "~", "on", "1e3", "0777", "12:30", "2024-01-01", "<<", "naïve-\u00fc", "q\"u'o",
    "a\nb: c", "\x1b[31m", "\u2028x", "$(reboot)", "{}", "- a", "a #c", "&a", "!tag", "%x", "a\x00b", "x" * 300, " lead", "a, b",
]  # fmt: skip
MARKS: list[Any] = ["qz7", "long-marked-value-7", 91827, 918273645]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(each for key, below in inner for each in _paths(below, (*path, key)))]


PLACES = [
    (name, place, path)
    for name, document in DOCUMENTS.items()
    for place, resource in enumerate(document["resources"])
    for path in _paths(resource["instances"][0].get("attributes") or {})
]


def _put(attributes: Any, path: tuple[Any, ...], value: Any) -> bool:
    """Put a value at a path, if another change has left the way there."""
    *way, last = path
    for step in way:
        is_there = (
            step in attributes
            if isinstance(attributes, dict)
            else isinstance(attributes, list) and step < len(attributes)
        )
        if not is_there:
            return False
        attributes = attributes[step]
    if not isinstance(attributes, dict) and not (isinstance(attributes, list) and last < len(attributes)):
        return False
    attributes[last] = value
    return True


def _step(key: Any) -> dict[str, Any]:
    if isinstance(key, str):
        return {"type": "get_attr", "value": key}
    return {"type": "index", "value": {"value": key, "type": "number"}}


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, Any], list[Any]]:
    """A recorded layout with odd values anywhere, and values in it that Terraform marks, with a path of any length."""
    changes = draw(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(ODD)), max_size=4))
    marks = draw(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(MARKS)), max_size=3))
    name = draw(st.sampled_from(sorted(DOCUMENTS)))
    document, marked = copy.deepcopy(DOCUMENTS[name]), []
    for (_, place, path), value in changes:
        if place < len(document["resources"]):
            _put(document["resources"][place]["instances"][0].get("attributes"), path, value)
    for (of, place, path), value in marks:
        if of == name:
            instance = document["resources"][place]["instances"][0]
            if _put(instance["attributes"], path, value):
                length = draw(st.integers(1, len(path)))
                instance["sensitive_attributes"] = [
                    *instance.get("sensitive_attributes", []),
                    [*map(_step, path[:length])],
                ]
                marked.append(value)
    for resource in document["resources"]:
        resource["instances"][0] |= draw(
            st.sampled_from([{}] * 8 + [{"deposed": "0a1b2c3d"}, {"status": "tainted"}, {"index_key": 'a "b'}])
        )
    return document, marked


def _suggested(text: str) -> list[str]:
    """Lines of settings as they are printed."""
    return text.partition("settings that describe what is there:\n")[2].partition("\n\n")[0].splitlines()


@generated(max_examples=120, deadline=None)
@given(documents())
def test_whatever_stands_in_a_state_the_plan_is_whole_and_shows_nothing_that_is_marked(
    case: tuple[dict[str, Any], list[Any]],
) -> None:
    document, marked = case
    state = parse_state(json.dumps(document).encode(), "s")
    plan = plan_takeover(state.owned, recorded(), SETTINGS, region=REGION, account=ACCOUNT)
    assert len(plan.rows) == len(state.owned)
    text = plan_text(plan, Redactor(state.secrets))
    for value in marked:
        assert not re.search(rf"(?<![A-Za-z0-9]){value}(?![A-Za-z0-9])", text)
    assert all(character.isprintable() or character == "\n" for character in text)
    lines = "\n".join(_suggested(text))
    parsed = stack_file.parse(f"config:\n  a: b\n{lines}\n".encode(), "s")["config"]
    assert set(parsed) <= {"shopcat:a", "shopcat:cluster", "shopcat:registry", "shopcat:database"}


# What the settings allow is not refused -------------------------------------------------------------------------------

_TERRAFORM = {kind.pulumi_type: name for name, kind in reversed(list(KINDS.items())) if kind.pulumi_type}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1].lower()}", name)


def _as_terraform(value: Any) -> Any:
    """A declared value as Terraform's state has it: references are the ids of `made`."""
    if isinstance(value, dict):
        return {_snake(key): _as_terraform(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_terraform(each) for each in value]
    target = reference(value)
    if target:
        return f"id-of-{target[1]}"
    return int(value) if isinstance(value, float) else value


def made(declared: list[Declared]) -> list[Owned]:
    """A state in which everything stands already, just as it is declared."""
    owned = []
    for each in declared:
        type_name = _TERRAFORM.get(each.pulumi_type)
        if type_name:
            attributes = {"id": f"id-of-{each.name}", "arn": f"id-of-{each.name}", **_as_terraform(dict(each.inputs))}
            owned.append(Owned(f"{type_name}.{each.name}", type_name, "", attributes))
    return owned


DATABASES: list[dict[str, Any]] = [
    {},
    {"storageGibibytes": 100, "maxStorageGibibytes": 0, "username": "shop", "dbName": "shop", "applicationRole": "app"},
    {"encrypted": False, "engineVersion": "15.8", "parameterGroup": "default.postgres15", "port": 6000},
    {"storageType": "io1", "iops": 3000, "storageGibibytes": 200, "identifier": "orders", "iamAuthentication": True},
]


def chosen(number: int, *, with_cluster: bool) -> Settings:
    values: dict[str, Any] = {"database": {**committed()["database"], **DATABASES[number]}, "dns": "external"}
    if with_cluster:
        values["cluster"] = {**committed()["cluster"], **existing()}
    return settings.read_settings(committed(**values))


@pytest.mark.parametrize("with_cluster", [False, True])
@pytest.mark.parametrize("number", range(len(DATABASES)))
def test_a_shop_that_stands_as_it_is_described_is_refused_nothing(number: int, *, with_cluster: bool) -> None:
    wanted = chosen(number, with_cluster=with_cluster)
    owned = made(recorded(wanted))
    plan = plan_takeover(owned, recorded(wanted), wanted, region=REGION, account=ACCOUNT)
    assert plan.errors == ()
    assert not [row for row in plan.rows if row.outcome is Outcome.REFUSED]
    assert not [each for row in plan.rows for each in row.differences if each.effect is Effect.REPLACES]
    (database,) = [row for row in plan.rows if row.address == "aws_db_instance.database"]
    assert database.outcome is Outcome.TAKEN
    assert database.differences == ()


@pytest.mark.parametrize(
    ("attribute", "value", "setting"),
    [
        ("db_name", "other", "dbName"), ("username", "other", "username"), ("storage_encrypted", False, "encrypted"),
        ("identifier", "other", "identifier"), ("engine_version", "15.8", "engineVersion"),
        ("allocated_storage", 500, "storageGibibytes"), ("port", 6000, "port"),
        ("instance_class", "db.t4g.large", ""), ("multi_az", True, ""), ("backup_retention_period", 1, ""),
        ("allocated_storage", 21, ""),
    ],
)  # fmt: skip
def test_one_difference_is_one_error_with_its_setting_or_none(attribute: str, value: Any, setting: str) -> None:
    wanted = chosen(0, with_cluster=True)
    owned = _with(tuple(made(recorded(wanted))), "aws_db_instance.database", **{attribute: value})
    plan = plan_takeover(owned, recorded(wanted), wanted, region=REGION, account=ACCOUNT)
    errors = [error for error in plan.errors if "can't be described" not in error]  # the ids that are made up here
    assert [f"set shopcat:database.{setting} to" in error for error in errors] == ([True] if setting else [])


def _planned(owned: Any, wanted: Settings = SETTINGS, **options: Any) -> TakeoverPlan:
    return plan_takeover(owned, recorded(wanted), wanted, **{"region": REGION, "account": ACCOUNT, **options})


def test_what_is_elsewhere_is_named_and_hinders_nothing() -> None:
    """A repository in the account of the builds, a replica in another region: only a state without the shop is the wrong one."""
    wanted = chosen(0, with_cluster=True)
    away = {
        "aws_ecr_repository.builds": ("aws_ecr_repository", f"arn:aws:ecr:{REGION}:210987654321:repository/builds"),
        "aws_db_instance.copy": ("aws_db_instance", f"arn:aws:rds:eu-west-1:{ACCOUNT}:db:copy"),
    }
    others = [
        Owned(address, type_name, "", {"arn": arn, "name": "builds", "engine": "postgres"})
        for address, (type_name, arn) in away.items()
    ]
    newer = Owned("aws_vpc.far", "aws_vpc", "", {"region": "us-east-1", "id": "vpc-1"})
    here = _with(
        tuple(made(recorded(wanted))), "aws_db_instance.database", arn=f"arn:aws:rds:{REGION}:{ACCOUNT}:db:shopcat"
    )
    plan = _planned([*others, newer, *here], wanted)
    assert plan.errors == ()
    rows = {row.address: row for row in plan.rows}
    assert [rows[address].outcome for address in (*away, "aws_vpc.far")] == [Outcome.UNKNOWN] * 3
    assert f"it is in {REGION}, account 210987654321" in rows["aws_ecr_repository.builds"].detail
    arn = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/shopcat"
    repository = Owned("aws_ecr_repository.shopcat", "aws_ecr_repository", "", {"arn": arn})
    for owned in ([others[1]], [others[1], repository]):
        assert any("aws:region is" in error for error in _planned(owned, wanted).errors), "no database is here"


def test_a_cluster_of_rds_beside_the_database_that_the_settings_name_is_somebody_else_s() -> None:
    wanted = chosen(0, with_cluster=True)
    aurora = Owned("aws_rds_cluster.reports", "aws_rds_cluster", "", {"id": "reports"})
    assert _planned([aurora, *made(recorded(wanted))], wanted).errors == ()
    (error,) = _planned([aurora], wanted).errors
    assert "a cluster of RDS can't be taken over" in error


def test_a_cluster_s_name_that_none_of_several_has_is_named() -> None:
    wanted = chosen(0, with_cluster=True)
    clusters = [Owned(f"aws_eks_cluster.{name}", "aws_eks_cluster", "", {"name": name}) for name in ("blue", "green")]
    (error,) = _planned([*clusters, *made(recorded(wanted))], wanted).errors
    assert error == "shopcat:cluster.name is shopcat, the clusters are blue, green; set it to the shop's"


@pytest.mark.parametrize("username", ["shopcat_app", "shop"])
def test_the_role_that_is_suggested_is_not_the_master_user(username: str) -> None:
    owned = _with(PLAIN.owned, "aws_db_instance.shopcat", username=username)
    instance = next(each for each in owned if each.type_name == "aws_db_instance")
    lines = [line for line in existing_database(instance, owned, SETTINGS) if "applicationRole" in line]
    assert len(lines) == 1
    assert f"applicationRole: {username} " not in lines[0]


def test_what_the_state_does_not_say_aws_may() -> None:
    owned = _with(PLAIN.owned, "aws_ecr_repository.shopcat", encryption_configuration=[])
    assert any(error.endswith(ASK) for error in _planned(owned, account="").errors)
    assert not any(error.endswith(ASK) for error in _planned(owned).errors)
    unnamed = _with(PLAIN.owned, "aws_db_instance.shopcat", db_name="")
    assert any("says nothing of dbName" in error and "no setting" in error for error in _planned(unnamed).errors)


def test_a_database_s_name_of_an_old_provider_counts() -> None:
    attributes = {**_of(PLAIN.owned, "aws_db_instance"), "name": "shop"}
    del attributes["db_name"]
    owned = [
        replace(each, attributes=attributes) if each.type_name == "aws_db_instance" else each for each in PLAIN.owned
    ]
    assert "  dbName: shop" in _planned(owned).suggestion


def _of(owned: Any, type_name: str) -> dict[str, Any]:
    return dict(next(each for each in owned if each.type_name == type_name).attributes)


class _Answers:
    """A client whose one call answers."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def get(self, _: str) -> Any:
        return self

    def __getattr__(self, _: str) -> Any:
        return lambda **_: self._answer


def test_aws_says_which_version_runs_and_how_a_repository_is_encrypted() -> None:
    instance = {"EngineVersion": "15.10", "DBName": "shop", "Endpoint": {"Port": 6000}}
    attributes = READERS["aws_db_instance"][1](_Answers({"DBInstances": [instance]}), PLAIN.owned[0])  # type: ignore[arg-type]
    assert attributes == {"engine_version_actual": "15.10", "db_name": "shop", "port": 6000}
    repository = {"imageTagMutability": "MUTABLE", "encryptionConfiguration": {"encryptionType": "AES256"}}
    attributes = READERS["aws_ecr_repository"][1](_Answers({"repositories": [repository]}), PLAIN.owned[0])  # type: ignore[arg-type]
    assert attributes is not None
    owned = _with(PLAIN.owned, "aws_ecr_repository.shopcat", **attributes)
    assert not any("encryptionConfigurations" in error for error in _planned(owned).errors)


def test_helm_s_objects_are_read_as_text() -> None:
    """`=` is a value in custom resources, and no number of a Secret is left out of what is hidden."""
    text = "kind: CRD\nmetadata: {name: 123}\nvalues: [=]\n---\nkind: Secret\nmetadata: {name: a}\nstringData: {pin: 12345678}\n"
    release = helm.parse_text(text.encode(), "helm.yaml", "shopcat")
    assert [each.address for each in release.owned] == ["helm: CRD shopcat/123", "helm: Secret shopcat/a"]
    assert release.secrets == {"12345678"}


def test_a_marked_number_is_in_no_line_and_no_error() -> None:
    document = copy.deepcopy(DOCUMENTS["plain.tfstate"])
    for resource in document["resources"]:
        if resource["type"] == "aws_db_instance":
            resource["instances"][0]["attributes"]["port"] = 61234
            resource["instances"][0]["sensitive_attributes"] = [[_step("port")]]
    state = parse_state(json.dumps(document).encode(), "s")
    text = plan_text(_planned(state.owned), Redactor(state.secrets))
    assert "61234" not in text
    assert "it answers at port (secret)" in text
    assert "# port: (secret)" in text


def test_the_way_that_modules_lie_changes_no_error() -> None:
    assert {each.module for each in MODULES.owned} > {""}
    flat = [replace(each, module="") for each in MODULES.owned]
    assert _planned(flat).errors == _planned(MODULES.owned).errors
    assert layout.account_of(flat) == ACCOUNT


@pytest.mark.parametrize("password", ["postgres", "database", "registry", "subnet-0", "existing"])
def test_a_password_that_is_a_part_of_names_breaks_no_line(password: str) -> None:
    """Such as `postgres`, which is in `default.postgres15`: a line with half of its value would say something else."""
    document = copy.deepcopy(DOCUMENTS["plain.tfstate"])
    for resource in document["resources"]:
        if resource["type"] == "aws_db_instance":
            resource["instances"][0]["attributes"]["password"] = password
    state = parse_state(json.dumps(document).encode(), "s")
    lines = _suggested(plan_text(_planned(state.owned), Redactor(state.secrets)))
    whole = _suggested(plan_text(_planned(state.owned), Redactor([])))
    assert {line for line in lines if "#" not in line} <= set(whole)
    assert {line.split(":")[0].strip(" #") for line in whole} == {line.split(":")[0].strip(" #") for line in lines}
    values = [line for line in lines if not line.lstrip().startswith("#")]
    assert not any(password in line.partition(": ")[2] for line in values)


def test_a_comment_with_an_odd_name_in_it_ends_nothing() -> None:
    owned = [
        replace(
            each,
            address="a\nb: [",
            attributes={**each.attributes, "instance_types": ["\x1b[31m", "x"], "ami_type": ami},
        )
        if each.type_name == "aws_eks_node_group"
        else each
        for ami in ("AL2_x86_64",)
        for each in PLAIN.owned
    ]
    text = plan_text(_planned(owned), Redactor([]))
    assert any("# nodes: the state has" in line for line in _suggested(text))
