"""The application's secret, and what a database leaves behind."""

import json
import re
from collections.abc import Iterator
from functools import cache, partialmethod
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from pydantic import ValidationError

from infra import settings
from infra.clients.aws import AwsClients
from infra.commands.takeover import declared as recorder
from infra.commands.takeover.declaration import Declared
from infra.commands.takeover.declared import record_declared
from infra.errors import PreflightError, ShopCatError
from infra.foundation import restored_database
from infra.foundation.database import (
    Database,
    ensure_application_secret,
    final_snapshot,
    managed_secret,
    misleading_version,
)
from infra.foundation.database_roles import role_sql
from infra.foundation.restored_database import restored_sql
from infra.foundation.secret_versions import restored_instance
from infra.names import APPLICATION_SECRET
from infra.settings.platform import MAX_CONNECTIONS, DatabaseSettings
from tests.unit.test_settings import committed

OWN = DatabaseSettings()
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shopcat/master-AbCdEf"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
THERE: dict[str, Any] = {
    "engineVersion": "15.8",
    "instanceClass": "db.m5.large",
    "storageGibibytes": 500,
    "maxStorageGibibytes": 0,
    "storageType": "io1",
    "iops": 4000,
    "encrypted": True,
    "kmsKeyArn": KEY,
    "backupRetentionDays": 0,
    "identifier": "shop-db",
    "dbName": "shop",
    "username": "shop",
    "port": 5433,
    "parameterGroup": "shop-pg15",
    "subnetGroup": "shop",
    "securityGroupIds": ["sg-0123456789abcdef0"],
    "securityGroupName": "shopcat-database-pods",
    "iamAuthentication": True,
    "masterSecret": SECRET,
}


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        found = AwsClients("eu-central-1")
        found.get("secretsmanager").create_secret(Name=APPLICATION_SECRET)
        yield found


def value(clients: AwsClients) -> dict[str, str]:
    found: dict[str, str] = json.loads(
        clients.get("secretsmanager").get_secret_value(SecretId=APPLICATION_SECRET)["SecretString"]
    )
    return found


def version(clients: AwsClients) -> str:
    return str(clients.get("secretsmanager").get_secret_value(SecretId=APPLICATION_SECRET)["VersionId"])


def test_the_secret_gets_a_value_once(clients: AwsClients) -> None:
    ensure_application_secret(clients, OWN, "one.rds", "5432")
    first, made = value(clients), version(clients)
    ensure_application_secret(clients, OWN, "one.rds", "5432")
    assert (value(clients), version(clients)) == (first, made)
    assert {key: first[key] for key in ("host", "port", "username")} == {
        "host": "one.rds",
        "port": "5432",
        "username": "shopcat",
    }


def test_a_secret_that_was_kept_names_the_database_of_now_and_keeps_its_password(clients: AwsClients) -> None:
    ensure_application_secret(clients, OWN, "one.rds", "5432")
    first = value(clients)
    ensure_application_secret(clients, OWN, "two.rds", "5432")
    assert value(clients) == {**first, "host": "two.rds"}


@pytest.mark.parametrize("text", ["no JSON", "[]", "1"])
def test_a_value_that_is_none_of_ours_is_one_clear_error(clients: AwsClients, text: str) -> None:
    clients.get("secretsmanager").put_secret_value(SecretId=APPLICATION_SECRET, SecretString=text)
    with pytest.raises(ShopCatError, match=APPLICATION_SECRET):
        ensure_application_secret(clients, OWN, "one.rds", "5432")


@given(lives=st.sets(st.from_regex(r"sg-[0-9a-f]{8,17}", fullmatch=True), min_size=2))
def test_each_life_has_a_final_snapshot_of_its_own(lives: set[str]) -> None:
    names = {final_snapshot(group) for group in lives}
    assert len(names) == len(lives)
    # RDS: begins with a letter; letters, digits and single hyphens; 255 characters at the most (CreateDBSnapshot).
    assert all(re.fullmatch(r"[a-z](-?[a-z0-9])*", name) and len(name) <= 255 for name in names)


def test_a_secret_of_another_role_is_refused(clients: AwsClients) -> None:
    """The Job would set that role's password: pods that sign in with it would be shut out."""
    ensure_application_secret(clients, OWN, "one.rds", "5432")
    first = version(clients)
    other = OWN.model_copy(update={"application_role": "shopcat_app"})
    with pytest.raises(PreflightError, match=r"is of the role shopcat, and .* is shopcat_app"):
        ensure_application_secret(clients, other, "one.rds", "5432")
    assert version(clients) == first


def test_the_secret_names_the_database_and_the_role_of_the_settings(clients: AwsClients) -> None:
    there = OWN.model_copy(update={"application_role": "shopcat_app", "db_name": "shop"})
    ensure_application_secret(clients, there, "one.rds", "5432")
    assert {key: value(clients)[key] for key in ("dbname", "username")} == {"dbname": "shop", "username": "shopcat_app"}


# What is declared -----------------------------------------------------------------------------------------------------


@cache
def _declared(text: str) -> dict[tuple[str, str], Declared]:
    chosen = settings.read_settings(committed(database={**committed()["database"], **json.loads(text)}))
    return {each.key: each for each in record_declared(chosen, "eu-central-1", "123456789012")}


def declared(**changes: Any) -> dict[tuple[str, str], Declared]:
    return _declared(json.dumps(changes))


INSTANCE = ("aws:rds/instance:Instance", "database")


def test_the_committed_settings_declare_what_they_always_did() -> None:
    """tests/engine/test_golden.py compares all of it, as the engine is given it."""
    assert set(declared()[INSTANCE].inputs) == {
        "allocatedStorage", "applyImmediately", "autoMinorVersionUpgrade", "backupRetentionPeriod", "copyTagsToSnapshot",
        "dbName", "dbSubnetGroupName", "deletionProtection", "engine", "engineVersion", "finalSnapshotIdentifier",
        "identifier", "instanceClass", "manageMasterUserPassword", "maxAllocatedStorage", "multiAz", "parameterGroupName",
        "publiclyAccessible", "skipFinalSnapshot", "storageEncrypted", "storageType", "username", "vpcSecurityGroupIds",
    }  # fmt: skip
    job = declared()["kubernetes:batch/v1:Job", "database-roles"].inputs["spec"]["template"]
    assert "annotations" not in job["metadata"]
    assert role_sql(taken_over=False) in job["spec"]["containers"][0]["command"][2]


def test_a_database_that_is_there_is_declared_as_it_is() -> None:
    found = declared(**THERE)
    inputs = found[INSTANCE].inputs
    names = {
        "engineVersion": "engineVersion", "instanceClass": "instanceClass", "storageGibibytes": "allocatedStorage",
        "maxStorageGibibytes": "maxAllocatedStorage", "storageType": "storageType", "iops": "iops",
        "encrypted": "storageEncrypted", "kmsKeyArn": "kmsKeyId", "backupRetentionDays": "backupRetentionPeriod",
        "identifier": "identifier", "dbName": "dbName", "username": "username", "port": "port",
        "parameterGroup": "parameterGroupName", "subnetGroup": "dbSubnetGroupName",
        "iamAuthentication": "iamDatabaseAuthenticationEnabled",
    }  # fmt: skip
    assert {setting: inputs[name] for setting, name in names.items()} == {name: THERE[name] for name in names}
    assert not {"password", "manageMasterUserPassword"} & set(inputs)
    assert inputs["vpcSecurityGroupIds"][0] == "sg-0123456789abcdef0"
    assert len(inputs["vpcSecurityGroupIds"]) == 2
    types = {pulumi_type for pulumi_type, _ in found}
    assert not {"aws:rds/subnetGroup:SubnetGroup", "aws:rds/parameterGroup:ParameterGroup"} & types
    rule = found["aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "database-from-cluster"].inputs
    assert (rule["fromPort"], rule["toPort"]) == (5433, 5433)
    assert found["aws:ec2/securityGroup:SecurityGroup", "database"].inputs["name"] == "shopcat-database-pods"


def test_the_job_signs_in_with_the_secret_that_a_person_filled() -> None:
    found = declared(**THERE)
    master = found["kubernetes:external-secrets.io/v1:ExternalSecret", "database-master"].inputs["spec"]
    assert master["data"] == [{"secretKey": "password", "remoteRef": {"key": SECRET, "property": "password"}}]
    policy = found["aws:iam/rolePolicy:RolePolicy", "database-secrets"].inputs["policy"]
    assert SECRET in json.loads(policy)["Statement"][0]["Resource"]
    template = found["kubernetes:batch/v1:Job", "database-roles"].inputs["spec"]["template"]
    (container,) = template["spec"]["containers"]
    plain = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    assert (plain["PGDATABASE"], plain["PGUSER"]) == ("shop", "shop")
    assert role_sql(taken_over=True) in container["command"][2]
    assert template["metadata"]["annotations"] == {"shopcat/master-secret": SECRET}


def test_without_the_setting_rds_keeps_the_password_and_the_job_runs_once_more() -> None:
    found = declared(**{**THERE, "masterSecret": "", "backupRetentionDays": 7})
    assert found[INSTANCE].inputs["manageMasterUserPassword"] is True
    template = found["kubernetes:batch/v1:Job", "database-roles"].inputs["spec"]["template"]
    assert "annotations" not in template["metadata"]
    assert role_sql(taken_over=True) in template["spec"]["containers"][0]["command"][2]


def test_the_secret_of_rds_is_unknown_while_a_preview_would_turn_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: Any = [SimpleNamespace(secret_arn="arn:x")]
    assert managed_secret(kept) == "arn:x"
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    assert managed_secret([]) is pulumi.UNKNOWN
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
    with pytest.raises(PreflightError, match=r"shopcat:database\.masterSecret"):
        managed_secret([])


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encrypted": False, "kmsKeyArn": KEY}, "kmsKeyArn says nothing while encrypted is false"),
        ({"kmsKeyArn": KEY.replace("key/", "alias/")}, "kmsKeyArn: 'arn"),
        ({"storageType": "io1"}, "iops is missing, and storageType io1 needs it"),
        ({"storageType": "gp2", "iops": 3000}, "iops says nothing while storageType is gp2"),
        ({"iops": 4000}, "gp3 takes it from 400 GiB on, storageGibibytes is 20"),
        ({"storageType": "gp4"}, "database.storageType"),
        ({"storageGibibytes": 100, "maxStorageGibibytes": 109}, "set it to at least 110, or to 0"),
        ({"username": "shopcat"}, "applicationRole and username are both shopcat"),
        ({"applicationRole": "shopcat_admin"}, "applicationRole and username are both shopcat_admin"),
        ({"username": "shop_green", "applicationRole": "shop"}, "username shop_green is the role of a colour"),
        ({"applicationRole": "s" * 58}, "the most is 57"),
        ({"applicationRole": "rds_superuser"}, "applicationRole: 'rds_superuser' is not a role of your own"),
        ({"parameterGroup": "default.postgres15"}, "parameterGroup default.postgres15 is not of engineVersion 16"),
        ({"backupRetentionDays": 0}, "no backup is only accepted while masterSecret stands"),
        ({"instanceClass": "db.x9.large"}, "no instance class of which this program knows the memory"),
        ({"masterSecret": "shopcat/master"}, "the whole ARN of a secret"),
        ({"identifier": "shop--db"}, "identifier: 'shop--db' is not an instance"),
        ({"securityGroupIds": ["sg-1"]}, "securityGroupIds: 'sg-1' is not a security group"),
        ({"password": "x"}, "database.password: unknown setting"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShopCatError) as refused:
        settings.read_settings(committed(database={**committed()["database"], **changes}))
    (line,) = str(refused.value).splitlines()[1:]
    assert message in line
    assert "shopcat:database" in line


def test_what_is_less_than_this_program_makes_is_said() -> None:
    assert OWN.remarks() == []
    less = DatabaseSettings.model_validate(
        {"encrypted": False, "parameterGroup": "default.postgres16", "backupRetentionDays": 0, "masterSecret": SECRET}
    )
    assert [remark.split(" ")[0].removeprefix("shopcat:database.") for remark in less.remarks()] == [
        "encrypted",
        "parameterGroup",
        "backupRetentionDays",
        "masterSecret",
    ]


@given(st.sampled_from(sorted(MAX_CONNECTIONS)))
def test_connections_grow_with_the_class_up_to_rds_s_limit(name: str) -> None:
    assert 112 <= MAX_CONNECTIONS[name] <= 5000
    family = name.rpartition(".")[0]
    of_family = [number for other, number in MAX_CONNECTIONS.items() if other.startswith(f"{family}.")]
    assert of_family == sorted(of_family)


@given(size=st.integers(20, 65_536), largest=st.none() | st.integers(0, 65_536))
def test_storage_that_is_accepted_may_grow_or_never_does(size: int, largest: int | None) -> None:
    values = {"storageGibibytes": size, "maxStorageGibibytes": largest}
    try:
        chosen = settings.read_settings(committed(database={**committed()["database"], **values})).database
    except ShopCatError:
        assert largest
        assert largest < 1.1 * size
    else:
        found = chosen.largest_storage_gibibytes
        assert found == 0 or size <= found <= 65_536


RESTORED = "aws:rds/instance:Instance", "database-restored"
MOMENT = {"at": "2026-11-29T10:00:00Z"}
SERVES, STANDS = {"restore": {**MOMENT, "serves": True}}, {"restore": MOMENT}


def environment(job: Declared) -> dict[str, Any]:
    """Plain values of a Job's container, and for secret ones the Secret's name."""
    (container,) = job.inputs["spec"]["template"]["spec"]["containers"]
    return {
        each["name"]: each["value"] if "value" in each else each["valueFrom"]["secretKeyRef"]["name"]
        for each in container["env"]
    }


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each instance a host of its own, which the recorder of declarations doesn't."""
    resolve = recorder._Recorder.new_resource

    def new_resource(self: Any, args: Any) -> Any:
        mark, outputs = resolve(self, args)
        return mark, {**outputs, "address": args.name} if args.typ == INSTANCE[0] else outputs

    monkeypatch.setattr(recorder._Recorder, "new_resource", new_resource)
    _declared.cache_clear()


def test_without_the_setting_nothing_is_restored() -> None:
    assert RESTORED not in declared()
    assert OWN.serving_identifier == "shopcat"


def test_a_restored_instance_stands_beside_the_first_with_what_a_restore_can_be_told() -> None:
    found, before = declared(restore=MOMENT), declared()
    assert {key: each.inputs for key, each in found.items() if key == INSTANCE} == {INSTANCE: before[INSTANCE].inputs}
    inputs = found[RESTORED].inputs
    assert inputs["identifier"] == "shopcat-restored"
    assert inputs["restoreToPointInTime"]["restoreTime"] == MOMENT["at"]
    same = {
        "backupRetentionPeriod",
        "instanceClass",
        "storageEncrypted",
        "storageType",
        "maxAllocatedStorage",
        "publiclyAccessible",
    }
    assert {name: inputs[name] for name in same} == {name: before[INSTANCE].inputs[name] for name in same}
    assert not {"dbName", "username", "engine", "engineVersion", "allocatedStorage"} & set(inputs), "its source's own"
    assert inputs["deletionProtection"] is False
    assert inputs["skipFinalSnapshot"] is False


@pytest.mark.usefixtures("addresses")
def test_the_restored_database_is_checked_as_the_application_s_role() -> None:
    found = declared(restore=MOMENT)
    job = found["kubernetes:batch/v1:Job", "database-restored"]
    roles = found["kubernetes:batch/v1:Job", "database-roles"]
    assert roles.inputs == declared()["kubernetes:batch/v1:Job", "database-roles"].inputs
    assert environment(job)["PGPASSWORD"] == "master-restored"
    assert (environment(roles)["PGHOST"], environment(job)["PGHOST"]) == ("database", "database-restored")
    (container,) = job.inputs["spec"]["template"]["spec"]["containers"]
    script = container["command"][2]
    assert script.index(role_sql(taken_over=False)) < script.index(restored_sql()) < script.index("rows")
    assert restored_sql().index('SET ROLE :"role"') < restored_sql().index("pg_tables"), (
        "it may not sign in as that role"
    )
    assert job.inputs["spec"]["template"]["metadata"]["annotations"] == {"shopcat/restored-to": MOMENT["at"]}
    policy = json.loads(found["aws:iam/rolePolicy:RolePolicy", "database-secrets"].inputs["policy"])
    assert len(policy["Statement"][0]["Resource"]) == 5, "the application's, both colours' and both master users'"


@pytest.mark.parametrize(
    ("changes", "instances"),
    [
        ({}, ["shopcat"]),
        ({"restore": MOMENT}, ["shopcat", "shopcat-restored"]),
        ({"restore": {**MOMENT, "serves": True}}, ["shopcat-restored"]),
        ({"restore": {**MOMENT, "identifier": "other", "serves": True}}, ["other"]),
    ],
)
def test_passwords_are_set_where_releases_are_led_and_in_a_restored_copy(
    changes: dict[str, Any], instances: list[str]
) -> None:
    assert DatabaseSettings.model_validate(changes).login_identifiers == instances


def test_the_secrets_of_the_colours_are_guarded_like_the_application_s() -> None:
    secrets = [each for (kind, _), each in declared().items() if kind == "aws:secretsmanager/secret:Secret"]
    assert {"shopcat/application", "shopcat/login-blue", "shopcat/login-green"} <= {
        each.inputs["name"] for each in secrets
    }
    assert all(each.protect and each.retain_on_delete for each in secrets if each.inputs["name"].startswith("shopcat/"))


@pytest.mark.usefixtures("addresses")
def test_releases_use_the_restored_instance_only_where_it_serves() -> None:
    key = "kubernetes:external-secrets.io/v1:ExternalSecret", "database-application"
    hosts = [
        declared(**settings)[key].inputs["metadata"]["annotations"]["shopcat/database-host"]
        for settings in ({}, {"restore": MOMENT}, {"restore": {**MOMENT, "serves": True}})
    ]
    assert hosts == ["database", "database", "database-restored"]
    inputs = declared(restore={**MOMENT, "serves": True})[RESTORED].inputs
    assert inputs["deletionProtection"] is True, "orders are in it"


def test_another_moment_is_compared_by_the_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """RDS does not tell the moment, so an import does not know it."""
    monkeypatch.setattr(restored_database.aws.rds, "Instance", lambda _, **arguments: arguments["opts"])
    config = DatabaseSettings.model_validate({"restore": MOMENT})
    assert config.restore is not None
    source: Any = SimpleNamespace(
        identifier="", db_subnet_group_name="", parameter_group_name="", vpc_security_group_ids=[]
    )
    options: Any = restored_database.declare_restored_instance(
        config,
        config.restore,
        source,
        protect=True,
        parent=None,  # type: ignore[arg-type]
    )
    assert (options.replacement_trigger, options.ignore_changes) == (MOMENT["at"], ["restoreToPointInTime"])
    assert options.delete_before_replace


def test_a_restored_instance_that_goes_leaves_a_snapshot_of_its_own() -> None:
    names = {declared(restore={"at": at})[RESTORED].inputs["finalSnapshotIdentifier"] for at in (
        MOMENT["at"], "2026-11-29T10:00:01Z")}  # fmt: skip
    assert len(names) == 2
    assert all(re.fullmatch("[a-z](-?[a-z0-9])*", name) for name in names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"restore": {"at": "yesterday"}}, "restore.at"),
        ({"restore": {"at": "2026-11-29T10:00:00"}}, "no moment such as 2026-11-29T10:00:00Z"),
        ({"restore": {"at": "2026-02-30T10:00:00Z"}}, "no moment such as 2026-11-29T10:00:00Z"),
        ({"restore": {}}, "restore.at"),
        ({"restore": {**MOMENT, "identifier": "shopcat"}}, "restore.identifier is shopcat, the instance that is restored"),
        ({"restore": MOMENT, "backupRetentionDays": 0, "masterSecret": SECRET}, "no backup to restore from"),
    ],
)  # fmt: skip
def test_a_restore_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShopCatError, match=re.escape(message)):
        settings.read_settings(committed(database={**committed()["database"], **changes}))


def test_a_restored_instance_has_a_name_that_fits_into_a_version(clients: AwsClients) -> None:
    most = {"restore": {**MOMENT, "identifier": "r" * 46, "serves": True}}
    ensure_application_secret(clients, DatabaseSettings.model_validate(most), "restored", "5432")
    assert restored_instance(version(clients)) == "r" * 46
    long = DatabaseSettings(identifier="s" * 63)
    ensure_application_secret(clients, long, "long", "5432")
    assert restored_instance(version(clients)) == misleading_version(clients, long) == "", (
        "too long, and so the first one"
    )
    for changes in ({"identifier": "s" * 38}, {"restore": {**MOMENT, "identifier": "r" * 47}}):
        with pytest.raises(ValidationError, match="46"):
            DatabaseSettings.model_validate({"restore": MOMENT, **changes})


def test_however_often_a_database_is_restored_each_version_tells_where_it_leads(clients: AwsClients) -> None:
    """Secrets Manager has room for 20 staging labels, and describes no version without one."""
    led: dict[str, str] = {}
    for number in range(30):
        chosen = DatabaseSettings.model_validate(SERVES if number % 2 else {})
        for _ in range(2):  # an update that was killed, and the next one
            ensure_application_secret(clients, chosen, chosen.serving_identifier, "5432")
        led[version(clients)] = chosen.serving_identifier
    assert len(led) == 30
    for made, instance in led.items():
        assert restored_instance(made) == instance
        assert restored_instance(made, instance) == ""
    described = clients.get("secretsmanager").describe_secret(SecretId=APPLICATION_SECRET)["VersionIdsToStages"]
    labels = {label for stages in described.values() for label in stages}
    assert labels == {"AWSCURRENT", "AWSPREVIOUS"}


@given(st.lists(st.tuples(st.sampled_from([{}, STANDS, SERVES]), st.booleans()), min_size=1, max_size=6))
def test_however_updates_are_killed_the_next_whole_one_leads_releases_to_the_database_of_its_settings(
    updates: list[tuple[dict[str, Any], bool]],
) -> None:
    """One that is killed after the secret's hook has not written the secret's reader, whose inputs decide about the hook."""
    with mock_aws():
        made = AwsClients("eu-central-1")
        made.get("secretsmanager").create_secret(Name=APPLICATION_SECRET)
        written: dict[str, str] = {}
        for changes, is_whole in [*updates, (updates[-1][0], True)]:
            chosen = DatabaseSettings.model_validate(changes)
            misleading = misleading_version(made, chosen)
            inputs = {"host": chosen.serving_identifier, **({"replaces": misleading} if misleading else {})}
            if inputs != written:
                ensure_application_secret(made, chosen, chosen.serving_identifier, "5432")
                written = inputs if is_whole else written
        assert value(made)["host"] == chosen.serving_identifier
        assert misleading_version(made, chosen) == ""
        assert restored_instance(version(made)) == chosen.serving_identifier


def test_the_secret_s_reader_differs_where_the_secret_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def annotations() -> dict[str, str]:
        chosen = settings.read_settings(committed())
        found = {each.key: each for each in record_declared(chosen, "eu-central-1", "123456789012")}
        reader = found["kubernetes:external-secrets.io/v1:ExternalSecret", "database-application"]
        noted: dict[str, str] = reader.inputs["metadata"]["annotations"]
        return noted

    before = annotations()
    monkeypatch.setattr(Database, "declare", partialmethod(Database.declare, misleading="restored-shopcat-restored-1"))
    assert annotations() == {**before, "shopcat/replaces-version": "restored-shopcat-restored-1"}


def test_without_the_secret_nothing_is_misleading(clients: AwsClients) -> None:
    assert misleading_version(clients, OWN) == "", "it has no value yet"
    clients.get("secretsmanager").delete_secret(SecretId=APPLICATION_SECRET, ForceDeleteWithoutRecovery=True)
    assert misleading_version(clients, OWN) == ""


def test_the_application_s_secret_moves_to_the_serving_database_and_back(clients: AwsClients) -> None:
    manager, versions = clients.get("secretsmanager"), []
    for host in ("first", "first", "restored", "first"):
        ensure_application_secret(clients, OWN, host, "5432")
        value = manager.get_secret_value(SecretId=APPLICATION_SECRET)
        versions.append((value["VersionId"], json.loads(value["SecretString"])))
    assert [value["host"] for _, value in versions] == ["first", "first", "restored", "first"]
    assert len({version for version, _ in versions}) == 3, "a new version for each move, none without one"
    assert len({value["password"] for _, value in versions}) == 1
    former = manager.get_secret_value(SecretId=APPLICATION_SECRET, VersionId=versions[2][0])
    assert json.loads(former["SecretString"])["host"] == "restored", "a release that serves keeps its own"
